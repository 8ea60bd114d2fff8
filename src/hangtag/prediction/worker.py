"""A worker process that decodes and classifies pictures: `python -m hangtag.prediction.worker`; `crew.py` starts it.

It does for each picture what `Predictor.many` does in the user's process, with one thread, so the answers are the same.
Pixels never travel between processes. A picture that crashes or hangs a decoder ends this process alone.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hangtag.data.store.containers import Container, ParquetColumn, container_of
from hangtag.data.store.worker import Watch
from hangtag.errors import HangtagError
from hangtag.model.artifact import Artifact, check_file
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Predictor
from hangtag.prediction.bulk import problem_of, source_of

__all__ = ["work"]


def work() -> None:
    """Follow stdin until it ends: a line with settings, then lines of pictures, each [row, container, key]."""
    import json

    watch = Watch()
    settings = watch.settings
    content = Path(settings["model"]).read_bytes()  # whoever starts this process has opened and checked it
    artifact, policy = Artifact(content, *check_file(content), threads=1), AnswerPolicy(**settings["policy"])
    predictor = Predictor(artifact, policy, doctor=settings["doctor"])
    containers = [container_of(each) for each in settings["containers"]]
    for container in containers:
        if isinstance(container, ParquetColumn):
            container.alive = watch.alive
    for line in sys.stdin:
        answers = _answers(predictor, containers, json.loads(line), settings["top"], watch)
        watch.at(-1)
        watch.reply(answers)


def _answers(
    predictor: Predictor, containers: list[Container], pictures: list[Any], top: int, watch: Watch
) -> list[dict[str, Any]]:
    """For each picture, the fields of its answer, or those of `problem_of`."""
    answers: list[dict[str, Any]] = [{}] * len(pictures)
    read: list[int] = []  # the places of the pictures that were read

    def sources() -> Iterator[str | bytes]:
        for place, (row, container, key) in enumerate(pictures):
            watch.at(row)
            try:
                source = source_of(containers[container], key)
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
        return [answer for each in pictures for answer in _answers(predictor, containers, [each], top, watch)]
    for place, answer in zip(read, found, strict=True):
        _, container, key = pictures[place]
        answers[place] = answer.to_json() if answer.error is None else _alone(predictor, containers[container], key)
    return answers


def _alone(predictor: Predictor, container: Container, key: Any) -> dict[str, Any]:
    """A picture that could not be read, once more, for what `many` does not say: what to do next."""
    try:
        return predictor(source_of(container, key)).to_json()
    except HangtagError as error:
        return problem_of(error)


if __name__ == "__main__":
    work()
