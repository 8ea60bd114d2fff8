"""Dynamic batching: waiting pictures of all requests are decoded and inferred together, off the event loop.

Answers are those of the library, bit for bit, whatever is in a batch with them.

Threads take waiting pictures themselves as soon as they are free, so batches fill while all threads are busy, and
nothing waits while one is idle. The event loop and a thread meet once per batch. A few pictures that the doctor has to
repair are answered after the others of their batch. Large pictures, and formats whose decoders need a process of their
own, are answered one by one in other threads, so that small pictures do not wait.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import HangtagError, logger
from hangtag.model.predictor import Answer
from hangtag.pictures import Images
from hangtag.serving.compute import Ask, Engine, Here, failure
from hangtag.serving.decoding import end_sandboxes, is_quick
from hangtag.serving.models import ServedModel
from hangtag.serving.refusals import Refusal
from hangtag.serving.settings import Settings

__all__ = ["Batcher", "Recorder"]

_LARGE = 500_000  # pixels of an image of a tensor that is answered on its own
_SMOOTHING = 0.1  # weight of the latest batch in the time of a picture
_LONGEST_WAIT = 60  # seconds that Retry-After asks for at most


class Recorder:
    """What a `Batcher` reports; this one ignores it. Methods are called on any thread."""

    def decoded(self, seconds: Sequence[float]) -> None:
        """Pictures were decoded, in so many seconds each."""

    def inferred(self, pictures: int, seconds: float) -> None:
        """A batch of pictures went through a model."""

    def answered(self, model: ServedModel, answers: Sequence[Answer | HangtagError], queued: float) -> None:
        """A request has its answers; its first picture waited for so many seconds. Called in the request's task."""

    def computed(
        self, model: ServedModel, outputs: Mapping[str, NDArray[np.float32]], pictures: int, queued: float
    ) -> None:
        """A request has outputs of a model, by name; else as `answered`."""


_SILENT = Recorder()


class _Job:
    """What a request wants from a model: the answers for encoded pictures, or the outputs for an array of images.

    Attributes:
        key: jobs with the same one can share a batch.
        payload: the pictures, (N,); dropped when the request is over.
        left: pictures without a result.
        queued: seconds that the first part waited for a thread.
        parts: that no thread has taken yet.
    """

    __slots__ = ("ask", "began", "count", "deadline", "future", "is_over", "key", "left", "loop", "model", "parts",
                 "payload", "queued", "results", "size")  # fmt: skip

    def __init__(self, model: ServedModel, key: Any, payload: Any, ask: Ask | None, size: int, deadline: float) -> None:
        self.model, self.key, self.payload, self.ask = model, key, payload, ask
        self.size, self.deadline, self.began = size, deadline, time.monotonic()
        self.count = self.left = len(payload)
        self.is_over = False
        self.queued = -1.0
        self.parts: list[_Part] = []
        self.results: Any = None
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()

    def take(self, start: int, results: Any) -> None:
        """Results of pictures from `start` on, or an error; in the request's event loop."""
        if self.future.done():
            return
        if isinstance(results, Exception):
            self.future.set_exception(results)
            return
        is_list = isinstance(results, list)
        count = len(results) if is_list else len(next(iter(results.values())))
        if count == self.count:
            self.results = results
        elif is_list:
            self.results = self.results or [None] * self.count
            self.results[start : start + count] = results
        else:
            if self.results is None:
                shapes = {name: (self.count, *rows.shape[1:]) for name, rows in results.items()}
                self.results = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
            for name, rows in results.items():
                self.results[name][start : start + count] = rows
        self.left -= count
        if not self.left:
            self.future.set_result(self.results)


class _Part(NamedTuple):
    """Some pictures of a job, from `start` to before `stop`."""

    job: _Job
    start: int
    stop: int


_Result = tuple[_Job, int, Any]  # arguments of `_Job.take`; or None in place of results: this picture comes later


class _Queue:
    """Parts that can share a batch, in order of arrival."""

    def __init__(self) -> None:
        self.parts: deque[_Part] = deque()
        self.pictures = 0

    def push(self, part: _Part) -> None:
        self.parts.append(part)
        part.job.parts.append(part)
        self.pictures += part.stop - part.start

    def pop(self, most: int) -> list[_Part]:
        """The first parts, at most so many pictures; the last part may be cut."""
        taken: list[_Part] = []
        while self.parts and most > 0:
            part = self.parts.popleft()
            job, start, stop = part
            job.parts.remove(part)
            if stop - start > most:
                rest = _Part(job, start + most, stop)
                self.parts.appendleft(rest)
                job.parts.append(rest)
                part = _Part(job, start, start + most)
            count = part.stop - part.start
            taken.append(part)
            most -= count
            self.pictures -= count
        return taken

    def drop(self, job: _Job) -> None:
        for part in job.parts:
            self.parts.remove(part)
            self.pictures -= part.stop - part.start
        job.parts.clear()


class Batcher:
    """Answers requests, while at most `Settings.max_queue` pictures and `Settings.max_queue_bytes` are waiting.

    Args:
        engine: what computes the batches; this process unless given.

    Attributes:
        waiting: pictures that were admitted and have no answer yet.
        waiting_bytes: the bytes of them all.
        seconds: that a thread needs for a picture, recently; 0 before the first.
    """

    def __init__(self, settings: Settings, recorder: Recorder = _SILENT, engine: Engine | None = None) -> None:
        self.settings, self.recorder = settings, recorder
        self.engine = engine or Here(settings)
        self.waiting = self.waiting_bytes = 0
        self.seconds = 0.0
        self._queues: dict[Any, _Queue] = {}  # by key; none of them is empty
        self._lock = threading.Lock()
        self._wakings: SimpleQueue[None] = SimpleQueue()  # an item lets one idle thread look for work
        self._threads: list[threading.Thread] = []  # started by the first request, in the process that answers it
        self._idle = 0
        self._waking_in: Any = None  # the event loop that is about to wake a thread
        self._slow = ThreadPoolExecutor(max(2, self.engine.threads), "hangtag-slow")
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        """Whether a request would be refused now: cheap, for a check before its body is read."""
        return self.waiting >= self.settings.max_queue or self.waiting_bytes >= self.settings.max_queue_bytes

    @property
    def wait(self) -> float:
        """Estimated seconds until everything that waits now has an answer."""
        return self.waiting * self.seconds / self.engine.threads

    def admit(self, pictures: int, size: int = 0) -> None:
        """Raise Refusal (503) if so many more pictures, of so many bytes in all, cannot wait.

        A server with nothing to do admits any request, as other settings limit its size.
        """
        if self._is_closed:
            raise Refusal(503, "the server is shutting down", "try again in a second", {"Retry-After": "1"})
        settings = self.settings
        too_many = self.waiting + pictures > settings.max_queue or self.waiting_bytes + size > settings.max_queue_bytes
        if too_many and self.waiting:
            raise self.refusal()

    def refusal(self) -> Refusal:
        """The error for a request that cannot wait (503); says when to try again."""
        seconds = min(_LONGEST_WAIT, max(1, math.ceil(self.wait)))
        hint = f"try again in {seconds} second{'s' * (seconds > 1)}"
        return Refusal(503, "the server is overloaded", hint, {"Retry-After": str(seconds)})

    async def answers(
        self, model: ServedModel, pictures: Sequence[bytes], ask: Ask, deadline: float
    ) -> list[Answer | HangtagError]:
        """For each encoded picture, its answer or why there is none.

        Args:
            deadline: in seconds of `time.monotonic()`.

        Raises:
            Refusal: overloaded (503), too late (504), or an error of the server (500).
        """
        self._check(len(pictures), size := sum(map(len, pictures)), deadline)
        if not pictures:
            return []
        found: list[Answer | HangtagError] = await self._done(job := _Job(model, model, pictures, ask, size, deadline))
        self.recorder.answered(model, found, job.queued)
        return found

    async def outputs(
        self, model: ServedModel, images: Images, names: Sequence[str], deadline: float, is_reported: bool = True
    ) -> dict[str, NDArray[np.float32]]:
        """Outputs of the model by name, for checked uint8 images (N, H, W[, 3]); errors as of `answers`.

        Args:
            is_reported: whether the images are pictures of a client, which the recorder counts.
        """
        self._check(len(images), images.nbytes, deadline)
        if not len(images):
            return model.predictor.outputs(images, *names)
        key = model, tuple(names), images.shape[1:]
        job = _Job(model, key, images, None, images.nbytes, deadline)
        found: dict[str, NDArray[np.float32]] = await self._done(job)
        if is_reported:
            self.recorder.computed(model, found, len(images), job.queued)
        return found

    def close(self) -> None:
        """Take nothing new, answer what waits, and end the threads."""
        with self._lock:
            self._is_closed = True
            threads = list(self._threads)
        for _ in threads:
            self._wakings.put(None)
        for thread in threads:
            thread.join()
        self._slow.shutdown(wait=True)
        end_sandboxes()

    # --- in the event loop ---------------------------------------------------------------------------------------

    def _check(self, pictures: int, size: int, deadline: float) -> None:
        """Raise Refusal unless these pictures may wait and can be answered in time."""
        self.admit(pictures, size)
        left = deadline - time.monotonic()
        if left <= 0:
            raise _too_late()
        if self.wait > left:
            raise self.refusal()

    async def _done(self, job: _Job) -> Any:
        """The job's results, when they are there."""
        timer = job.loop.call_later(max(0.0, job.deadline - time.monotonic()), self._expire, job)
        with self._lock:
            self.waiting += job.count
            self.waiting_bytes += job.size
        try:
            self._queue(job)
            return await job.future
        finally:
            timer.cancel()
            job.is_over = True
            job.payload = ()  # a thread that is at work has its own reference
            with self._lock:
                self.waiting -= job.count
                self.waiting_bytes -= job.size
                if job.parts:  # the client is gone, or it is too late
                    queue = self._queues[job.key]
                    queue.drop(job)
                    if not queue.parts:
                        del self._queues[job.key]

    def _expire(self, job: _Job) -> None:
        if not job.future.done():
            job.future.set_exception(_too_late())

    def _queue(self, job: _Job) -> None:
        """Put the job where threads find it: runs of quick pictures together, slow ones alone."""
        slow: list[int] = []
        if job.ask is not None:
            slow = [place for place, picture in enumerate(job.payload) if not is_quick(picture)]
        elif job.payload[0].size > _LARGE:
            slow = list(range(job.count))
        quick = [_Part(job, start, stop) for start, stop in _runs_between(slow, job.count)]
        for place in slow:
            self._slow.submit(self._answer, [_Part(job, place, place + 1)])
        if not quick:
            return
        with self._lock:
            queue = self._queues.setdefault(job.key, _Queue())
            for part in quick:
                queue.push(part)
            while len(self._threads) < self.engine.threads:
                self._start()
        if self._waking_in is not job.loop:  # after this round of the loop, in which more requests may arrive
            self._waking_in = job.loop
            job.loop.call_soon(self._wake, job.loop)

    def _wake(self, loop: asyncio.AbstractEventLoop, is_late: bool = False) -> None:
        """Let an idle thread look for work; if others are at work, perhaps only after more has arrived."""
        self._waking_in = None
        with self._lock:
            if not self._idle or not self._queues:
                return
            queue = max(self._queues.values(), key=lambda queue: queue.pictures)
            model = queue.parts[0].job.model
            if is_late or self._idle == len(self._threads) or queue.pictures >= model.least_batch:
                self._idle -= 1
                self._wakings.put(None)
                return
        loop.call_later(min(self.settings.max_delay_ms / 1000, model.call_seconds), self._wake, loop, True)

    # --- in threads ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="hangtag-batch", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        """Answer batches until the batcher is closed. A thread that fails is replaced."""
        try:
            while (batch := self._next()) is not None:
                self._answer(batch)
        except BaseException:
            logger.exception("a thread of the server failed")
            with self._lock:
                self._threads.remove(threading.current_thread())
                self._start()

    def _next(self) -> list[_Part] | None:
        """The next batch, when there is one; None ends the thread: all is done, or the engine has shrunk."""
        while True:
            with self._lock:
                if len(self._threads) > self.engine.threads and not self._is_closed:
                    self._threads.remove(threading.current_thread())
                    if self._queues and self._idle:  # another does what this one was woken for
                        self._idle -= 1
                        self._wakings.put(None)
                    return None
                if self._queues:
                    return self._take()
                if self._is_closed:
                    return None
                self._idle += 1
            self._wakings.get()

    def _take(self) -> list[_Part]:
        """What has waited longest, and what can share its batch; idle threads get their share of many pictures."""
        key, queue = min(self._queues.items(), key=lambda item: item[1].parts[0].job.began)
        least = queue.parts[0].job.model.least_batch
        batch = queue.pop(min(self.settings.max_batch, max(least, -(-queue.pictures // (self._idle + 1)))))
        if not queue.parts:
            del self._queues[key]
        if self._idle and (queue.pictures >= least or (self._queues and not queue.parts)):
            self._idle -= 1
            self._wakings.put(None)
        return batch

    def _answer(self, parts: list[_Part]) -> None:
        """Compute the results of these parts, and hand them to their requests."""
        now = time.monotonic()
        live = [part for part in parts if not part.job.is_over and part.job.deadline > now]
        for part in live:
            if part.job.queued < 0:
                part.job.queued = now - part.job.began
        results: list[_Result] = [(part.job, part.start, _too_late()) for part in parts if part.job.deadline <= now]
        try:
            if live:
                work = self._pictures if live[0].job.ask is not None else self._tensors
                results += work(live, max(part.job.deadline for part in live) - now)
        except HangtagError as error:
            results += [(part.job, part.start, error) for part in live]
        except BaseException as error:
            logger.error("a batch failed", exc_info=error)
            results += [(part.job, part.start, failure()) for part in live]
        later = [result for result in results if result[2] is None]
        ready = [result for result in results if result[2] is not None]
        for loop in {result[0].loop for result in ready}:
            some = [result for result in ready if result[0].loop is loop]
            with suppress(RuntimeError):  # the loop was closed, and nobody waits
                loop.call_soon_threadsafe(_hand_over, some)
        for job, place, _ in later:
            self._answer([_Part(job, place, place + 1)])

    def _pictures(self, parts: list[_Part], seconds: float) -> list[_Result]:
        pieces = [(part, part.job.ask, part.job.payload[part.start : part.stop]) for part in parts]
        pieces = [piece for piece in pieces if piece[2]]  # a request may have ended just now
        if not pieces:
            return []
        began = time.perf_counter()
        work = self.engine.answers(
            parts[0].job.model, [(ask, pictures) for _, ask, pictures in pieces if ask is not None], seconds
        )
        for pictures, took in work.inferred:
            self.recorder.inferred(pictures, took)
        self.recorder.decoded(work.decoded)
        self._measure(sum(each is not None for found in work.results for each in found), time.perf_counter() - began)
        results: list[_Result] = []
        for (part, _, _), found in zip(pieces, work.results, strict=True):
            later = [place for place, each in enumerate(found) if each is None]
            for start, stop in _runs_between(later, len(found)):
                results.append((part.job, part.start + start, found[start:stop]))
            results += [(part.job, part.start + place, None) for place in later]
        return results

    def _tensors(self, parts: list[_Part], seconds: float) -> list[_Result]:
        pieces = [(part, part.job.payload[part.start : part.stop]) for part in parts]
        pieces = [(part, images) for part, images in pieces if len(images)]  # a request may have ended just now
        if not pieces:
            return []
        began = time.perf_counter()
        (model, names, _), arrays = parts[0].job.key, [images for _, images in pieces]
        together = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
        rows = self.engine.outputs(model, together, names, seconds)
        results, start = [], 0
        for part, images in pieces:
            stop = start + len(images)
            results.append((part.job, part.start, {name: values[start:stop] for name, values in rows.items()}))
            start = stop
        self.recorder.inferred(start, time.perf_counter() - began)
        self._measure(start, time.perf_counter() - began)
        return results

    def _measure(self, pictures: int, seconds: float) -> None:
        if pictures:
            self.seconds += (seconds / pictures - self.seconds) * (_SMOOTHING if self.seconds else 1)


def _hand_over(results: list[_Result]) -> None:
    for job, start, found in results:
        try:
            job.take(start, found)
        except Exception:  # the other requests of the batch must get theirs
            logger.exception("the results of a batch do not fit its request")
            job.take(start, failure())


def _runs_between(places: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of the numbers below `count` that has none of these places, which are in order."""
    start = 0
    for place in (*places, count):
        if place > start:
            yield start, place
        start = place + 1


def _too_late() -> Refusal:
    return Refusal(504, "the deadline has passed", "allow more time, or try again when the server has less to do")
