"""Processes of `worker.py` that share the work of many pictures, and the threads that feed them.

Each process has one thread of its own. One that dies or hangs is replaced, and the picture it was at is tried again
alone; only if that fails again is it a row with an error.
"""

import itertools
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

from hangtag.data.store.process import Retries, WorkerProcess
from hangtag.errors import HangtagError, UsageError
from hangtag.files import saving
from hangtag.machine import hardware, processors
from hangtag.model import gpu
from hangtag.model.predictor import Predictor

__all__ = ["Crew", "Wanted"]

_MODULE = "hangtag.prediction.worker"
_BYTES_PER_WORKER = 1_000_000_000  # of this machine's memory; a worker takes 0.2 GB, and more for a large picture
_FIRST_CHUNK, _LARGEST_CHUNK = 4, 256  # pictures sent to a worker at a time
_CHUNK_SECONDS = 0.2  # intended time of a chunk
_EARLY = 8  # processes that are started before there is work
_MOST_ON_GPU = 4  # processes; each takes 0.5 GB of a GPU's memory before it has work
_AHEAD = 3  # chunks of each worker that may be waiting for an earlier one


class Wanted(NamedTuple):
    """A picture to answer: its number, its container as JSON, and its key there."""

    row: int
    container: list[Any]
    key: Any


class Crew:
    """Worker processes, and one thread for each that sends it pictures and waits for its answers; a context manager.

    Args:
        predictor: whose answers they give.
        top: number of classes in an answer.
        workers: number of processes; None: one per core, on a GPU at most 4.
        as_rows: whether answers are the values of a table's row (`table.values_of`), not the fields of an `Answer`.
        device: that of the processes; None: the predictor's.

    Raises:
        UsageError: too many processes for a GPU.
    """

    def __init__(
        self, predictor: Predictor, top: int, workers: int | None = None, as_rows: bool = False,
        device: str | None = None,
    ) -> None:  # fmt: skip
        self.device = device or predictor.device
        self.count = workers or _count(self.device)
        if self.device == "cuda" and self.count > gpu.MOST_PROCESSES:
            most = gpu.MOST_PROCESSES
            raise UsageError(
                f"workers must be at most {most} on a GPU, got {self.count}", f"give --workers {most} or fewer"
            )
        self.folder = tempfile.TemporaryDirectory(prefix="hangtag-")
        model = Path(self.folder.name) / "model.onnx"
        with saving(model):
            model.write_bytes(predictor.content)
        self.settings = {
            "model": str(model), "policy": asdict(predictor.policy), "doctor": predictor.doctor, "top": top,
            "as_rows": as_rows, "device": self.device, **({"memory": None} if self.device == "cuda" else {}),
        }  # fmt: skip
        self.stop = threading.Event()
        self.idle: list[WorkerProcess] = []
        self.retries = Retries(_MODULE, "classifies images")
        self.seconds = 0.0  # for one picture, most recently
        self.threads = ThreadPoolExecutor(self.count, "hangtag")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self.threads.shutdown(wait=True, cancel_futures=True)
        for worker in self.idle:
            worker.end()
        self.folder.cleanup()

    def start(self) -> None:
        """Start some processes before there is work: each needs half a second, while pictures are listed, for example.

        Raises:
            DataError: no process can be started.
        """
        while len(self.idle) < min(self.count, _EARLY):
            self.idle.append(WorkerProcess(_MODULE, self.settings))

    def answers(self, pictures: Iterator[Wanted], total: int) -> Iterator[Any]:
        """What the workers answer to each picture, in order, or {"error": why there is none, "hint": what to do}.

        Only some are in memory at a time.

        Raises:
            DataError: no process can be started.
            StoreError: no picture of a container can be read any more.
            UsageError, GpuError: the device of a process cannot be used, or fails.
        """
        waiting: deque[Future[list[Any]]] = deque()
        for chunk in self._chunks(pictures, total):
            waiting.append(self.threads.submit(self._work, chunk))
            while len(waiting) > _AHEAD * self.count or (waiting and waiting[0].done()):
                yield from _result(waiting.popleft())
        while waiting:
            yield from _result(waiting.popleft())

    def _chunks(self, pictures: Iterator[Wanted], left: int) -> Iterator[list[Wanted]]:
        """Pieces of the list that take about the same time; fewer towards the end, so that all finish together."""
        while True:
            size = _FIRST_CHUNK if not self.seconds else round(_CHUNK_SECONDS / self.seconds)
            chunk = list(itertools.islice(pictures, max(1, min(size, left // (2 * self.count), _LARGEST_CHUNK))))
            if not chunk:
                return
            yield chunk
            left -= len(chunk)

    def _work(self, chunk: list[Wanted]) -> list[Any]:
        done: dict[int, Any] = {}
        rest, size = chunk, len(chunk)
        while rest and not self.stop.is_set():
            part = rest[: self.retries.together([each.row for each in rest[:size]])]
            worker, began = self._take(), time.monotonic()
            found = worker.answer(_by_container(part), self.stop)
            if found is not None:
                self.idle.append(worker)
                self.retries.succeeded()
                if found and isinstance(found[0], dict) and "stop" in found[0]:
                    raise HangtagError.of_plain(found[0]["stop"])
                self.seconds = max((time.monotonic() - began) / len(part), 1e-6)
                done |= {each.row: answer for each, answer in zip(part, found, strict=True)}
                rest = rest[len(part) :]
            elif not self.stop.is_set():  # it died or hung
                failure = worker.failure()
                size = max(1, size // 4)
                if self.retries.is_given_up(failure):
                    done[failure.row] = {"error": f"{failure.kind}: {failure.reason}"}
                    rest = [each for each in rest if each.row != failure.row]
            else:
                worker.end()
        return [done[each.row] for each in chunk] if not self.stop.is_set() else []

    def _take(self) -> WorkerProcess:
        try:
            return self.idle.pop()
        except IndexError:
            return WorkerProcess(_MODULE, self.settings)


def _count(device: str) -> int:
    """One process for each core, if the machine has the memory for them; on a GPU at most 4."""
    memory: int = hardware().get("memory_bytes", 16 * _BYTES_PER_WORKER)
    most = _MOST_ON_GPU if device == "cuda" else processors()
    return max(1, min(processors(), memory // _BYTES_PER_WORKER, most))


def _by_container(pictures: list[Wanted]) -> list[list[Any]]:
    """Pictures as a worker takes them: for each run of the same container, the container and [row, key] of each."""
    groups = itertools.groupby(pictures, key=lambda each: each.container)
    return [[container, [[each.row, each.key] for each in group]] for container, group in groups]


def _result(future: "Future[list[Any]]") -> list[Any]:
    """What a thread found; it waits in short steps, so that Ctrl-C is noticed at once."""
    while True:
        try:
            return future.result(0.2)
        except TimeoutError:
            if future.done():
                raise
