"""A worker process that decodes and classifies pictures: `python -m hangtag.prediction.worker`; `crew.py` starts it.

It does for each picture what `Predictor.many` does in the user's process, with one thread, so the answers are the same.
Pixels never travel between processes. A picture that crashes or hangs a decoder ends this process alone.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hangtag.data.store.containers import Container, ParquetColumn, container_of
from hangtag.data.store.worker import Watch
from hangtag.errors import HangtagError
from hangtag.model.artifact import Artifact, check_file
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Answer, Predictor
from hangtag.prediction.bulk import problem_of, source_of
from hangtag.prediction.table import values_of

__all__ = ["work"]

_MOST_OPEN = 16  # containers


def work() -> None:
    """Follow stdin until it ends: a line with settings, then lines of pictures as `crew.py` sends them."""
    import json

    watch = Watch()
    settings = watch.settings
    content = Path(settings["model"]).read_bytes()  # whoever starts this process has opened and checked it
    artifact, policy = Artifact(content, *check_file(content), threads=1), AnswerPolicy(**settings["policy"])
    predictor = Predictor(artifact, policy, doctor=settings["doctor"])
    sources = _Sources(watch)
    for line in sys.stdin:
        groups = json.loads(line)
        pictures = [(row, sources.container(where), key) for where, keys in groups for row, key in keys]
        answers: list[Any] = _answers(predictor, pictures, settings["top"], watch)
        if settings["as_rows"]:
            answers = [each if isinstance(each, dict) else values_of(each) for each in answers]
        else:
            answers = [each if isinstance(each, dict) else each.to_json() for each in answers]
        watch.at(-1)
        watch.reply(answers)


class _Sources:
    """The containers most recently used, which stay open."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.opened: dict[str, Container] = {}

    def container(self, where: list[Any]) -> Container:
        name = repr(where)
        if name in self.opened:
            self.opened[name] = self.opened.pop(name)
        else:
            self.opened[name] = container_of(where)
            if isinstance(self.opened[name], ParquetColumn):
                self.opened[name].alive = self.watch.alive  # type: ignore[union-attr]
            if len(self.opened) > _MOST_OPEN:
                del self.opened[next(iter(self.opened))]
        return self.opened[name]


def _answers(
    predictor: Predictor, pictures: Sequence[tuple[int, Container, Any]], top: int, watch: Watch
) -> list[Answer | dict[str, str]]:
    """For each picture its answer, or the fields of `problem_of`."""
    answers: list[Answer | dict[str, str]] = [{}] * len(pictures)
    read: list[int] = []  # the places of the pictures that were read

    def sources() -> Iterator[str | bytes]:
        for place, (row, container, key) in enumerate(pictures):
            watch.at(row)
            try:
                source = source_of(container, key)
            except HangtagError as error:
                answers[place] = problem_of(error)
                continue
            read.append(place)
            yield source

    try:
        found = predictor.many(sources(), top)
    except HangtagError as error:  # the graph needs too much memory for one of them
        if len(pictures) == 1:
            return [problem_of(error)]
        return [answer for each in pictures for answer in _answers(predictor, [each], top, watch)]
    for place, answer in zip(read, found, strict=True):
        _, container, key = pictures[place]
        answers[place] = answer if answer.error is None else _alone(predictor, container, key)
    return answers


def _alone(predictor: Predictor, container: Container, key: Any) -> Answer | dict[str, str]:
    """A picture that could not be read, once more, for what `many` does not say: what to do next."""
    try:
        return predictor(source_of(container, key))
    except HangtagError as error:
        return problem_of(error)


if __name__ == "__main__":
    work()
