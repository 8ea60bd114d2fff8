"""Processes of `worker.py` that share the work of many pictures, and the threads that feed them.

Each process has one thread of its own. One that dies or hangs is replaced, and the picture it was at is tried again
alone; only if that fails again is it a row with an error.
"""

import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hangtag.data.picture_list import PictureList
from hangtag.data.store.process import Retries, WorkerProcess
from hangtag.files import saving
from hangtag.machine import hardware, processors
from hangtag.model.predictor import Predictor

__all__ = ["answer_all"]

_MODULE = "hangtag.prediction.worker"
_BYTES_PER_WORKER = 1_000_000_000  # of this machine's memory; a worker takes 0.2 GB, and more for a large picture
_FIRST_CHUNK, _LARGEST_CHUNK = 4, 256  # pictures sent to a worker at a time
_CHUNK_SECONDS = 0.2  # intended time of a chunk
_AHEAD = 3  # chunks of each worker that may be waiting for an earlier one


def answer_all(
    predictor: Predictor, pictures: PictureList, top: int, workers: int | None = None
) -> Iterator[dict[str, Any]]:
    """For each picture in order, the fields of its answer, or {"error": why there is none, "hint": what to do}.

    Args:
        workers: number of processes; None: one per core.

    Raises:
        DataError: no process can be started.
    """
    with tempfile.TemporaryDirectory(prefix="hangtag-") as folder:
        model = Path(folder) / "model.onnx"
        with saving(model):
            model.write_bytes(predictor.content)
        settings = {
            "model": str(model), "policy": asdict(predictor.policy), "doctor": predictor.doctor, "top": top,
            "containers": [each.to_json() for each in pictures.containers],
        }  # fmt: skip
        with closing(_Crew(settings, workers or _count())) as crew:
            yield from crew.rows(pictures)


def _count() -> int:
    """One process for each core, if the machine has the memory for them."""
    memory: int = hardware().get("memory_bytes", 16 * _BYTES_PER_WORKER)
    return max(1, min(processors(), memory // _BYTES_PER_WORKER))


class _Crew:
    """Worker processes, and one thread for each that sends it pictures and waits for its answers."""

    def __init__(self, settings: dict[str, Any], count: int) -> None:
        self.settings, self.count = settings, count
        self.stop = threading.Event()
        self.idle: list[WorkerProcess] = []
        self.retries = Retries(_MODULE, "classifies images")
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
            part = rest[: self.retries.together([row for row, *_ in rest[:size]])]
            worker, began = self._take(), time.monotonic()
            found = worker.answer(part, self.stop)
            if found is not None:
                self.idle.append(worker)
                self.retries.succeeded()
                self.seconds = max((time.monotonic() - began) / len(part), 1e-6)
                done |= {row: answer for (row, *_), answer in zip(part, found, strict=True)}
                rest = rest[len(part) :]
            elif not self.stop.is_set():  # it died or hung
                failure = worker.failure()
                size = max(1, size // 4)
                if self.retries.is_given_up(failure):
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


def _result(future: "Future[list[dict[str, Any]]]") -> list[dict[str, Any]]:
    """What a thread found; it waits in short steps, so that Ctrl-C is noticed at once."""
    while True:
        try:
            return future.result(0.2)
        except TimeoutError:
            if future.done():
                raise
