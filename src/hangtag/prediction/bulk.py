"""Any number of pictures -> their answers, one after the other, in bounded memory, on all cores.

A few pictures are answered in this process, which is quicker than starting others. For more, processes of `worker.py`
read, decode and classify; each has one thread, because several threads in one small network mostly wait for each other.
The answers are those of `Predictor(path)`, bit for bit. A process that dies or hangs is replaced, and the picture it
was at is tried again alone; only if that fails again is it a row with an error.
"""

import os
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from hangtag.data.picture_list import PictureList, list_pictures
from hangtag.data.store.pool import Sample
from hangtag.data.store.process import Failure, WorkerProcess
from hangtag.errors import HangtagError, UsageError
from hangtag.files import saving
from hangtag.machine import hardware, processors
from hangtag.model.doctor import Repair
from hangtag.model.predictor import Answer, Predictor, load
from hangtag.prediction.worker import problem_of, source_of
from hangtag.progress import Progress

__all__ = ["FEW", "FileAnswer", "Row", "answers", "predict"]

FEW = 8
"""Up to this many pictures are answered in this process."""

_MODULE = "hangtag.prediction.worker"
_BYTES_PER_WORKER = 1_000_000_000  # of this machine's memory; a worker takes 0.2 GB, and more for a large picture
_FIRST_CHUNK, _LARGEST_CHUNK = 4, 256  # pictures sent to a worker at a time
_CHUNK_SECONDS = 0.2  # intended time of a chunk
_AHEAD = 3  # chunks of each worker that may be waiting for an earlier one
_TRIES = 3  # how often a picture may end a worker before it is a row with an error
_MOST_RESTARTS = 10  # of workers that end between two pictures, in a row


class FileAnswer(NamedTuple):
    """A picture's file, as the user named it or where it was found, and its answer.

    The answer of a picture that cannot be read has no label, and its `error` says why.
    """

    file: str
    answer: Answer


class Row(NamedTuple):
    """A picture of a list, its answer, and what to do about a picture that cannot be read."""

    sample: Sample
    answer: Answer
    hint: str = ""


def predict(
    model: Predictor | str | os.PathLike[str] | bytes,
    *places: str | os.PathLike[str],
    top: int = 3,
    image_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[FileAnswer]:
    """Classify files, folders, zip and tar files and tables, on all cores, in bounded memory.

    Answers come in the order of the places, and in a folder in the order of the names. They are those of
    `load(model)(path)`. A file that cannot be read has an answer, too, which says why.

    Args:
        model: a `Predictor`, or what `load` takes.
        places: files; folders, with all folders in them; patterns such as "photos/*.jpg"; zip and tar files; tables
            (.csv, .tsv, .jsonl, .parquet) with a column of paths or of pictures.
        top: number of classes in `Answer.top`, at least 1.
        image_column, root: of tables: the column of pictures, and the folder to which its paths are relative.
        workers: number of processes; None: one per core.
        progress: called with ("classifying images", done, total).

    Raises:
        DataError: a folder, archive or table has no picture, or cannot be read.
        UsageError: `top` or `workers` is out of range.
        RunError, ArtifactError: as for `load`.

    >>> for file, answer in predict("runs/photos", "photos/", "more.zip"):  # doctest: +SKIP
    ...     print(file, answer.label, answer.sure)
    """
    if workers is not None and not (isinstance(workers, int) and workers >= 1):
        raise UsageError(f"workers must be at least 1, got {workers!r}", "leave it out to use all cores")
    if not isinstance(top, int) or top < 1:
        raise UsageError(f"top must be at least 1, got {top!r}", "it is the number of classes to show")
    predictor = model if isinstance(model, Predictor) else load(model)
    temporary = tempfile.TemporaryDirectory(prefix="hangtag-")
    try:
        pictures = list_pictures(places, Path(temporary.name), image_column, None if root is None else Path(root))
    except BaseException:
        temporary.cleanup()
        raise
    return _until_the_end(answers(predictor, pictures, top, workers, progress), temporary)


def _until_the_end(rows: Iterator[Row], temporary: "tempfile.TemporaryDirectory[str]") -> Iterator[FileAnswer]:
    with temporary:
        for row in rows:
            yield FileAnswer(row.sample.name, row.answer)


def answers(
    predictor: Predictor,
    pictures: PictureList,
    top: int = 3,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Row]:
    """The answers for listed pictures, in their order.

    Args:
        workers: number of processes; None: one per core, and none for a few pictures.
        progress: called with ("classifying images", done, total).

    Raises:
        HangtagError: no process can be started.
    """
    total = len(pictures.samples)
    found = (
        _here(predictor, pictures, top)
        if workers is None and total <= FEW
        else _there(predictor, pictures, top, workers or _count())
    )
    for done, (sample, fields) in enumerate(zip(pictures.samples, found, strict=True), 1):
        known = pictures.problems.get(done - 1)
        yield Row(sample, *_answer(predictor, fields if known is None else {"error": known}))
        if progress is not None:
            progress("classifying images", done, total)


def _count() -> int:
    """One process for each core, if the machine has the memory for them."""
    memory: int = hardware().get("memory_bytes", 16 * _BYTES_PER_WORKER)
    return max(1, min(processors(), memory // _BYTES_PER_WORKER))


def _here(predictor: Predictor, pictures: PictureList, top: int) -> Iterator[dict[str, Any]]:
    limited = predictor.with_limits()
    for sample in pictures.samples:
        try:
            yield limited(source_of(pictures.containers[sample.container], sample.key), top).to_json()
        except HangtagError as error:
            yield problem_of(error)


def _there(predictor: Predictor, pictures: PictureList, top: int, workers: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="hangtag-") as folder:
        model = Path(folder) / "model.onnx"
        with saving(model):
            model.write_bytes(predictor.content)
        settings = {
            "model": str(model), "policy": asdict(predictor.policy), "doctor": predictor.doctor, "top": top,
            "containers": [each.to_json() for each in pictures.containers],
        }  # fmt: skip
        with closing(_Crew(settings, workers)) as crew:
            yield from crew.rows(pictures)


def _answer(predictor: Predictor, found: dict[str, Any]) -> tuple[Answer, str]:
    """An answer that came as JSON, and a hint if there is none."""
    if "label" not in found:
        return Answer(None, None, (), (), predictor.fingerprint, error=found["error"]), found.get("hint", "")
    values: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in found.items()}
    values["top"] = tuple((each["label"], each["probability"]) for each in found["top"])
    values["repairs"] = tuple(Repair(**each) for each in found["repairs"])
    return Answer(**values), ""


class _Crew:
    """Worker processes, and one thread for each that sends it pictures and waits for its answers."""

    def __init__(self, settings: dict[str, Any], count: int) -> None:
        self.settings, self.count = settings, count
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.idle: list[WorkerProcess] = []
        self.ended: Counter[int] = Counter()  # how many processes each row has ended; -1: between two rows
        self.seconds = 0.0  # for one picture, most recently
        self.threads = ThreadPoolExecutor(count, "hangtag")

    def rows(self, pictures: PictureList) -> Iterator[dict[str, Any]]:
        """The fields of each picture's answer, or {"error": ...}, in order; only some are in memory at a time."""
        waiting: deque[Future[list[dict[str, Any]]]] = deque()
        for chunk in self._chunks(pictures):
            waiting.append(self.threads.submit(self._work, chunk))
            while len(waiting) > _AHEAD * self.count or (waiting and waiting[0].done()):
                yield from _result(waiting.popleft())
        while waiting:
            yield from _result(waiting.popleft())

    def close(self) -> None:
        self.stop.set()
        self.threads.shutdown(wait=True, cancel_futures=True)
        for worker in self.idle:
            worker.end()

    def _chunks(self, pictures: PictureList) -> Iterator[list[list[Any]]]:
        """Pieces of the list that take about the same time; fewer towards the end, so that all finish together."""
        samples, start = pictures.samples, 0
        while start < len(samples):
            size = _FIRST_CHUNK if not self.seconds else round(_CHUNK_SECONDS / self.seconds)
            share = (len(samples) - start) // (2 * self.count)
            end = start + max(1, min(size, share, _LARGEST_CHUNK))
            yield [[row, samples[row].container, samples[row].key] for row in range(start, min(end, len(samples)))]
            start = end

    def _work(self, chunk: list[list[Any]]) -> list[dict[str, Any]]:
        done: dict[int, dict[str, Any]] = {}
        rest, size = chunk, len(chunk)
        while rest and not self.stop.is_set():
            alone = next((place for place, (row, *_) in enumerate(rest[:size]) if row in self.ended), size)
            part = rest[: max(1, alone)]
            worker, began = self._take(), time.monotonic()
            found = worker.answer(part, self.stop)
            if found is not None:
                self.idle.append(worker)
                self.ended.pop(-1, None)
                self.seconds = max((time.monotonic() - began) / len(part), 1e-6)
                done |= {row: answer for (row, *_), answer in zip(part, found, strict=True)}
                rest = rest[len(part) :]
            elif not self.stop.is_set():  # it died or hung
                failure = worker.failure()
                size = max(1, size // 4)
                if self._is_given_up(failure):
                    done[failure.row] = {"error": f"{failure.kind}: {failure.reason}"}
                    rest = [each for each in rest if each[0] != failure.row]
            else:
                worker.end()
        return [done[row] for row, *_ in chunk] if not self.stop.is_set() else []

    def _take(self) -> WorkerProcess:
        try:
            return self.idle.pop()
        except IndexError:
            return WorkerProcess(_MODULE, self.settings)

    def _is_given_up(self, failure: Failure) -> bool:
        """Count a process's end, and say whether its picture has ended too many; raises if none can start."""
        with self.lock:
            self.ended[failure.row] += _TRIES if failure.certain else 1
            count = self.ended[failure.row]
        if failure.row >= 0:
            return count >= _TRIES
        if count > _MOST_RESTARTS:
            raise HangtagError(
                f"the process that classifies images did not start ({failure.reason})", "check the free memory"
            )
        return False


def _result(future: "Future[list[dict[str, Any]]]") -> list[dict[str, Any]]:
    """What a thread found; it waits in short steps, so that Ctrl-C is noticed at once."""
    while True:
        try:
            return future.result(0.2)
        except TimeoutError:
            if future.done():
                raise
