"""How `hangtag predict` prints answers one by one. It needs no Rich, whose import would take longer than an answer."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hangtag.pictures import is_usual
from hangtag.words import amount, visible

if TYPE_CHECKING:
    from hangtag.model.predictor import Answer

__all__ = ["json_list", "print_answer", "print_frequent"]

_LABELS = 5  # of a prediction set, in one line
_SAME_NOTES = 3  # the most images with the same note that are named


def print_answer(picture: str, answer: "Answer", notes: Counter[str]) -> None:
    """Print an answer as a line, and what was noted about it on stderr.

    Args:
        notes: how often each note was made so far; a frequent one is only counted, for `print_frequent`.
    """
    ranked = ", ".join(f"{label} {probability:.1%}" for label, probability in answer.top)
    name = visible(picture)
    print(f"{name}: {ranked}{_how_sure(answer)}")
    for repair in answer.repairs:
        print(f"{name}: {repair}", file=sys.stderr)
    for warning in answer.warnings:
        if is_usual(warning):
            continue
        notes[warning] += 1
        if notes[warning] <= _SAME_NOTES:
            print(f"{name}: note: {warning}", file=sys.stderr)


def print_frequent(notes: Counter[str]) -> None:
    """Print how often the notes were made that `print_answer` only counted."""
    for note, count in notes.items():
        if count > _SAME_NOTES:
            print(f"note: {amount(count - _SAME_NOTES, 'more image')}: {note}", file=sys.stderr)


def _how_sure(answer: "Answer") -> str:
    if answer.is_ood:
        return f"; not sure: unfamiliar (less typical than {answer.ood_score:.1%} of known images), so no set of labels"
    if answer.sure is None:
        return ""
    if answer.sure:
        return "; sure"
    labels = answer.prediction_set or ()
    if len(labels) < 2:
        return f"; not sure{_why_not(answer)}"
    others = f" or {len(labels) - _LABELS:,} more" if len(labels) > _LABELS else ""
    covered = "repaired, so no coverage is promised" if answer.coverage is None else f"{answer.coverage:.0%} coverage"
    return f"; not sure: {' or '.join(labels[:_LABELS])}{others} ({covered})"


def _why_not(answer: "Answer") -> str:
    """Why an answer with a single label is not sure, if it is about a repaired picture; notes say other reasons."""
    from hangtag.model.predictor import SURE_AFTER

    is_repaired = answer.coverage is None and any(repair.after is not None for repair in answer.repairs)
    if not is_repaired or answer.ood_score is None or answer.ood_score <= SURE_AFTER:
        return ""
    return f": less typical than {answer.ood_score:.1%} of known images, even after repairs"


@contextmanager
def json_list() -> Iterator[Callable[[Any], None]]:
    """Print a list of JSON values one by one, each as soon as it is there."""
    count = 0
    ascii_only = "utf" not in (sys.stdout.encoding or "utf").lower()

    def add(value: Any) -> None:
        nonlocal count
        text = json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False)
        lines = text.encode("utf-8", "backslashreplace").decode().replace("\n", "\n  ")
        print(f"{',' if count else '['}\n  {lines}", end="")
        count += 1

    try:
        yield add
    finally:  # also after Ctrl-C, so that it stays JSON
        print("\n]" if count else "[]")
