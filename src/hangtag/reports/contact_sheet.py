"""Answers for many pictures as one offline HTML page: the least sure first, with a choice of label.

Only the least sure pictures are shown, so that the page stays small; they are decoded again for it.
"""

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from hangtag.data.picture_list import PictureList
from hangtag.data.store.containers import Sample
from hangtag.errors import HangtagError
from hangtag.files import write_text
from hangtag.html import render, script, thumbnail
from hangtag.limited import decode_limited
from hangtag.model.predictor import Answer, Predictor
from hangtag.prediction.bulk import source_of
from hangtag.progress import Progress
from hangtag.words import in_percent, visible

__all__ = ["ContactSheet"]

_THUMBNAIL = 192  # pixels of the longer side
_MOST = 600  # pictures on a page
_MOST_ERRORS = 200
_LABELS = 6  # of a prediction set


class ContactSheet:
    """Collects answers, and keeps those that the page will show."""

    def __init__(self, predictor: Predictor, most: int = _MOST) -> None:
        self.predictor, self.most = predictor, most
        self.total = self.unsure = self.failed = 0
        self.labels: Counter[str] = Counter()
        self._kept: list[tuple[tuple[float, ...], Sample, Answer]] = []  # a heap; the surest is its first
        self.errors: list[tuple[str, str]] = []

    def add(self, sample: Sample, answer: Answer) -> None:
        self.total += 1
        if answer.label is None or answer.probability is None:
            self.failed += 1
            if len(self.errors) < _MOST_ERRORS:
                self.errors.append((visible(sample.name), str(answer.error)))
            return
        self.labels[answer.label] += 1
        self.unsure += answer.sure is False
        # A number of its own, so that two answers are never compared; the earlier picture comes first.
        key = (-(answer.is_ood or 0), -(answer.sure is False), answer.probability, self.total)
        entry = tuple(-each for each in key), sample, answer
        (heapq.heappush if len(self._kept) < self.most else heapq.heappushpop)(self._kept, entry)

    def write(self, path: Path, pictures: PictureList, progress: Progress | None = None) -> None:
        """Write the page.

        Raises:
            SaveError: it cannot be written.
        """
        content, digest = script("contact_sheet.js")
        shown = [entry[1:] for entry in sorted(self._kept, key=lambda entry: entry[0], reverse=True)]
        values: dict[str, object] = {
            "sheet": self,
            "cards": list(self._cards(shown, pictures, progress)),
            "labels": self.labels.most_common(),
            "model": self.predictor.fingerprint,
            "can_abstain": self.predictor.can_abstain,
            "script": content,
            "script_hash": digest,
        }
        write_text(path, render("contact_sheet.html", values))

    def _cards(
        self, shown: list[tuple[Sample, Answer]], pictures: PictureList, progress: Progress | None
    ) -> Iterator[dict[str, Any]]:
        spec = replace(self.predictor.spec, height=_THUMBNAIL, width=_THUMBNAIL, channels=3)
        for done, (sample, answer) in enumerate(shown, 1):
            picture = None
            try:
                source = source_of(pictures.containers[sample.container], sample.key)
                pixels, _ = decode_limited(source, spec)
                picture = thumbnail(pixels, _THUMBNAIL, as_jpeg=True)
            except HangtagError:  # the file has changed since
                pass
            yield {
                "picture": picture,
                "name": visible(sample.name),
                "short": visible(sample.name.rpartition("/")[2]),
                "label": answer.label,
                "probability": in_percent(answer.probability or 0),
                "verdict": _verdict(answer),
                "is_sure": answer.sure is not False,
                "notes": list(answer.warnings),
            }
            if progress is not None:
                progress("drawing images", done, len(shown))


def _verdict(answer: Answer) -> str:
    if answer.is_ood:
        return "not sure: unlike the training images"
    if answer.sure is None:
        return ""
    if answer.sure:
        return "sure"
    labels = answer.prediction_set or ()
    more = f" or {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
    return f"not sure: {' or '.join(labels[:_LABELS])}{more}" if len(labels) > 1 else "not sure"
