"""A worker process that decodes and classifies pictures: `python -m hangtag.prediction.worker`; `crew.py` starts it.

It does for each picture what `Predictor.many` does in the user's process, with one thread, so the answers are the same.
Pixels never travel between processes. A picture that crashes or hangs a decoder ends this process alone.
"""

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from hangtag.data.store.containers import (
    Bucket,
    Container,
    Folder,
    ParquetColumn,
    Spans,
    common_place,
    container_of,
    why_unreadable,
)
from hangtag.data.store.remote import is_address
from hangtag.data.store.worker import Watch, limit_more_data
from hangtag.errors import GpuError, HangtagError, StoreError
from hangtag.model.artifact import Artifact, check_file
from hangtag.model.guarantees import AnswerPolicy
from hangtag.model.predictor import Answer, Predictor
from hangtag.prediction.bulk import problem_of, source_of
from hangtag.prediction.table import values_of

__all__ = ["work"]

_MOST_OPEN = 16  # containers
_MORE_MEMORY = 6_000_000_000  # bytes beside those that CUDA has taken
_AHEAD = 16  # files at addresses that are fetched at the same time
_Picture: TypeAlias = tuple[int, Container, Any]
"""Its row, its container and its key there."""


def work() -> None:
    """Follow stdin until it ends: a line with settings, then lines of pictures as `crew.py` sends them."""
    import json

    watch = Watch()
    settings = watch.settings
    content = Path(settings["model"]).read_bytes()  # the process that starts this one has opened and checked it
    policy = AnswerPolicy(**settings["policy"])
    try:
        predictor = Predictor(_opened(content, settings["device"], watch), policy, doctor=settings["doctor"])
    except HangtagError as error:  # the GPU cannot be used
        sys.stdin.readline()
        watch.reply([{"stop": error.to_plain()}])
        return
    sources = _Sources(watch)
    for line in sys.stdin:
        groups = json.loads(line)
        pictures = [(row, sources.container(where), key) for where, keys in groups for row, key in keys]
        try:
            sources.expect(pictures)
            answers: list[Any] = _answers(predictor, pictures, settings["top"], sources)
            if settings["as_rows"]:
                _refuse_if_gone(pictures, answers)
        except (StoreError, GpuError) as error:
            answers = [{"stop": error.to_plain()}]
        if settings["as_rows"]:
            answers = [each if isinstance(each, dict) else values_of(each) for each in answers]
        else:
            answers = [each if isinstance(each, dict) else each.to_json() for each in answers]
        watch.at(-1)
        watch.reply(answers)


def _opened(content: bytes, device: str, watch: Watch) -> Artifact:
    """The model. On a GPU, also tried out, and only then the memory of this process is limited."""
    artifact = Artifact(content, *check_file(content), threads=1, device=device)
    if device == "cuda":
        watch.alive()
        artifact.settle_batches()
        limit_more_data(_MORE_MEMORY)
        watch.alive()
    return artifact


class _Sources:
    """Where pictures come from: the containers most recently used, which stay open, and threads that read ahead."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.opened: dict[str, Container] = {}
        self.threads: ThreadPoolExecutor | None = None

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

    def expect(self, pictures: Sequence[_Picture]) -> None:
        """Fetch parts of archives at addresses together, while this process shows that it is alive."""
        for container, group in itertools.groupby(pictures, key=lambda each: each[1]):
            if isinstance(container, Spans):
                keys = [key for _, _, key in group if key is not None]
                if keys and is_address(container.path):
                    self._waiting(self._submit(container.expect, keys))

    def read(self, pictures: Sequence[_Picture]) -> Iterator[str | bytes | HangtagError]:
        """The source of each picture or why there is none; some files at addresses are fetched at the same time."""
        ahead: deque[Future[Any]] = deque()
        following = iter([each for each in pictures if isinstance(each[1], Bucket)])
        for row, container, key in pictures:
            if isinstance(container, Bucket):
                self.watch.at(-1)
                for _, other, name in itertools.islice(following, _AHEAD - len(ahead)):
                    ahead.append(self._submit(_source_or_error, other, name))
                source = self._waiting(ahead.popleft())
                self.watch.at(row)
            else:
                self.watch.at(row)
                source = _source_or_error(container, key)
            yield source

    def _submit(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        self.threads = self.threads or ThreadPoolExecutor(_AHEAD)
        return self.threads.submit(function, *arguments)

    def _waiting(self, future: "Future[Any]") -> Any:
        while True:
            try:
                return future.result(1.0)
            except TimeoutError:
                if future.done():
                    raise
                self.watch.alive()


def _source_or_error(container: Container, key: Any) -> str | bytes | HangtagError:
    try:
        return source_of(container, key)
    except HangtagError as error:
        return error


def _refuse_if_gone(pictures: Sequence[_Picture], answers: Sequence[Any]) -> None:
    """Raise StoreError if pictures failed because their folder or file, such as a network drive, is gone."""
    failed = {id(container): container for (_, container, _), each in zip(pictures, answers, strict=True)
              if isinstance(each, dict)}  # fmt: skip
    for container in failed.values():
        place = container.root if isinstance(container, Folder) else common_place(container, [])
        if why := why_unreadable(container, place):
            raise StoreError(f"{place}: cannot be read any more: {why}", "connect it, and run the same command again")


def _answers(
    predictor: Predictor, pictures: Sequence[_Picture], top: int, where: _Sources
) -> list[Answer | dict[str, str]]:
    """For each picture its answer, or the fields of `problem_of`."""
    answers: list[Answer | dict[str, str]] = [{}] * len(pictures)
    read: list[int] = []  # the places of the pictures that were read

    def sources() -> Iterator[str | bytes]:
        for place, source in enumerate(where.read(pictures)):
            if isinstance(source, HangtagError):
                answers[place] = problem_of(source)
            else:
                read.append(place)
                yield source

    try:
        found = predictor.many(sources(), top)
    except HangtagError as error:  # the graph needs too much memory for one of them
        if len(pictures) == 1:
            return [problem_of(error)]
        return [answer for each in pictures for answer in _answers(predictor, [each], top, where)]
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
