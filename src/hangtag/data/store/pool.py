"""Many picture files -> one uint8 array on disk, on all cores, with limits on time and memory for each picture.

Processes of `worker.py` do the work. One that dies or hangs is replaced, and the picture it was decoding is set aside.
A journal records what is done, so an interrupted decoding resumes where it stopped.
"""

import contextlib
import io
import json
import mmap
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import FACTS, UNREAD, Skipped
from hangtag.data.store.containers import Container, common_place, why_unreadable
from hangtag.data.store.worker import STATUS
from hangtag.errors import DataError, SaveError
from hangtag.machine import processors
from hangtag.pictures import ImageSpec
from hangtag.progress import Progress
from hangtag.resize import sizing_model

__all__ = ["Decoded", "Pool", "Sample", "npy_header"]

_SECONDS = 20.0
"""Time limit for one picture; the largest allowed takes about three seconds on a slow core."""

_MEMORY = 6_000_000_000  # bytes of address space of one worker; libraries reserve one or two billion
_FIRST_CHUNK, _LARGEST_CHUNK = 32, 512  # pictures sent to a worker at a time
_CHUNK_SECONDS = 0.1  # intended time of a chunk, so that the journal and the progress are updated often enough
_MOST_FAILURES = 100  # consecutive pictures that a disk or network fails to read


class Sample(NamedTuple):
    """One picture to decode: its name, the index of its container, and its key there."""

    name: str
    container: int
    key: Any


@dataclass(frozen=True, eq=False)
class Decoded:
    """The result of a decoding.

    Attributes:
        good: (M,) positions of the decoded pictures, ascending; row i of images.npy is picture good[i].
        skipped: the other pictures, with reasons.
    """

    good: NDArray[np.int64]
    skipped: tuple[Skipped, ...]


class Pool:
    """Worker processes; use as a context manager.

    Args:
        containers: where the bytes of the pictures are.
        workers: number of processes; None starts one per core.
    """

    def __init__(self, containers: Sequence[Container], workers: int | None = None) -> None:
        self.containers = containers
        self.count = workers or processors()
        self.idle: list[_Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def start(self) -> None:
        """Start the processes early; each needs about 0.2 s to start."""
        self.idle += [_Worker() for _ in range(self.count - len(self.idle))]

    def __exit__(self, *error: object) -> None:
        for worker in self.idle:
            worker.end()

    def acquire(self) -> "_Worker":
        return self.idle.pop() if self.idle else _Worker()

    def release(self, worker: "_Worker") -> None:
        self.idle.append(worker)

    def decode(
        self,
        samples: Sequence[Sample],
        spec: ImageSpec | None,
        folder: Path,
        decoded_before: Sequence[Path] = (),
        progress: Progress | None = None,
        one_size: bool = False,
    ) -> Decoded:
        """Fill `folder` with images.npy (M, H, W[, 3]) uint8 and facts.npy (M,), or resume filling it.

        Args:
            samples: the pictures; to resume, the same ones in the same order.
            spec: what to convert them to; None only collects facts, and images.npy is empty.
            decoded_before: folders of the cache that may hold pictures of the same content, already decoded.
            one_size: whether the pictures probably have the spec's size; the resizing model is then not made in
                advance, and a worker that needs it makes its own.

        Raises:
            SaveError: the disk is full.
            DataError: the folder or file that holds the pictures is no longer readable.
        """
        job = _Job(samples, self.containers, spec, folder, decoded_before, progress)
        job.resume()
        if spec is not None and not one_size and _can_resize():
            job.description["sizing"] = sizing_model(spec).hex()
        job.run(self)
        return job.finish()


class _Job:
    """One array in the making."""

    def __init__(
        self, samples: Sequence[Sample], containers: Sequence[Container], spec: ImageSpec | None, folder: Path,
        decoded_before: Sequence[Path], progress: Progress | None,
    ) -> None:  # fmt: skip
        self.samples, self.spec, self.folder = samples, spec, folder
        self.progress = progress
        self.array, self.facts, self.journal = (folder / name for name in ("array", "facts", "journal"))
        self.shape = spec.shape if spec else (0,)
        self.row_bytes = int(np.prod(self.shape))
        self.header_bytes = len(npy_header((len(samples), *self.shape)))
        self.problems: dict[int, tuple[str, str]] = {}  # by row: kind and reason
        self.done = np.zeros(len(samples), bool)
        self.description = {
            "containers": [container.to_json() for container in containers],
            "spec": spec.to_json() if spec else None, "sizing": "",
            "decoded_before": [str(each) for each in decoded_before],
            "array": str(self.array), "facts": str(self.facts), "header_bytes": self.header_bytes,
        }  # fmt: skip
        self.remaining: list[int] = []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.shown = 0.0
        self.places: dict[int, str] = {}  # of containers with unreadable pictures
        self.failures = 0

    def resume(self) -> None:
        """Accept the rows of the journal whose pixels on disk have the recorded checksum."""
        try:
            for path, size in ((self.array, self.header_bytes + self.row_bytes * len(self.samples)),
                               (self.facts, FACTS.itemsize * len(self.samples))):  # fmt: skip
                with path.open("ab"):
                    os.truncate(path, size)
        except OSError as error:
            raise SaveError(f"{self.folder}: cannot be written: {error.strerror}", "free some space") from error
        if not self.journal.is_file():
            return
        facts = np.fromfile(self.facts, FACTS)
        with self.array.open("rb") as array:
            for line in self.journal.read_text(encoding="utf-8").splitlines():
                try:
                    rows, problems = json.loads(line)
                except ValueError:  # the last line of a killed process
                    break
                bad = {row: (kind, reason) for row, kind, reason in problems}
                for row in rows:
                    array.seek(self.header_bytes + row * self.row_bytes)
                    if row in bad:
                        self.done[row] = bad[row][0] not in UNREAD
                    elif zlib.crc32(array.read(self.row_bytes)) == facts[row]["pixels"]:
                        self.done[row] = True
                self.problems |= {row: problem for row, problem in bad.items() if self.done[row]}

    def run(self, pool: Pool) -> None:
        self.remaining = np.flatnonzero(~self.done)[::-1].tolist()  # the first row is last
        if not self.remaining:
            return
        with self.journal.open("a", encoding="utf-8") as journal:
            threads = [
                threading.Thread(target=self._feed, args=(pool, journal), daemon=True)
                for _ in range(min(pool.count, len(self.remaining)))
            ]
            for thread in threads:
                thread.start()
            try:
                for thread in threads:
                    while thread.is_alive():
                        thread.join(0.2)
            finally:
                self.stop.set()
                for thread in threads:
                    thread.join()
        if self.errors:
            raise self.errors[0]

    def finish(self) -> Decoded:
        """Remove the rows that were set aside, and give both files their headers and names."""
        good = np.array([row for row in range(len(self.samples)) if row not in self.problems], np.int64)
        facts = np.fromfile(self.facts, FACTS)
        with self.array.open("r+b") as file:
            if len(good) < len(self.samples):
                _move_rows(file, good, self.header_bytes, self.row_bytes)
            file.truncate(self.header_bytes + len(good) * self.row_bytes)
            header = npy_header((len(good), *self.shape))
            assert len(header) == self.header_bytes
            file.seek(0)
            file.write(header)
            file.flush()
            os.fsync(file.fileno())
        np.save(self.folder / "facts.npy", facts[good], allow_pickle=False)
        self.array.rename(self.folder / "images.npy")
        for path in (self.facts, self.journal):
            path.unlink()
        skipped = [Skipped(self.samples[row].name, *self.problems[row]) for row in sorted(self.problems)]
        return Decoded(good, tuple(skipped))

    def _feed(self, pool: Pool, journal: IO[str]) -> None:
        """Send chunks to one worker at a time; each picture can end at most one worker."""
        worker: _Worker | None = None
        rows: list[int] = []
        size = _FIRST_CHUNK
        try:
            while not self.stop.is_set():
                rows = rows or self._next_rows(size, pool.count)
                if not rows:
                    break
                if worker is None:
                    worker = pool.acquire()
                    worker.send(self.description)
                began, chunk = time.monotonic(), rows[:size]
                pictures = [[row, self.samples[row].container, self.samples[row].key] for row in chunk]
                problems = worker.decode_chunk(pictures, self.stop)
                if self.stop.is_set():
                    break
                if problems is None:  # it died or hung; the rest of the chunk is decoded again
                    row, kind, reason = worker.failure()
                    worker = None
                    rows.remove(row)
                    self._record([row], [[row, kind, reason]], journal)
                    size = max(1, size // 4)
                    continue
                self._check_places(pool.containers, chunk, problems)
                self._record(chunk, problems, journal)
                rows = rows[size:]
                quick = time.monotonic() - began < _CHUNK_SECONDS
                size = min(2 * size, _LARGEST_CHUNK) if quick else max(1, size // 2)
            if worker is not None and not self.stop.is_set():
                pool.release(worker)
                worker = None
        except BaseException as error:  # `run` raises it in the main thread
            self.errors.append(error)
            self.stop.set()
        finally:
            if worker is not None:
                worker.end()

    def _check_places(self, containers: Sequence[Container], rows: list[int], problems: list[list[Any]]) -> None:
        """Raises `DataError` if the place of all pictures is unreadable, not only some pictures."""
        unread = {row: (kind, reason) for row, kind, reason in problems if kind in UNREAD}
        failing = all(row in unread and unread[row][0] == "disk or network error" for row in rows)
        self.failures = self.failures + len(rows) if failing else 0
        for container in {self.samples[row].container for row in unread}:
            with self.lock:
                if container not in self.places:
                    keys = [each.key for each in self.samples if each.container == container]
                    self.places[container] = common_place(containers[container], keys)
            place = self.places[container]
            why = why_unreadable(containers[container], place)
            if why is None and self.failures > _MOST_FAILURES:
                why = unread[rows[-1]][1]
            if why is not None:
                count = int(self.done.sum()) - len(self.problems) if self.spec else 0
                raise DataError(
                    f"{place}: cannot be read any more ({why}); {count:,} images are already decoded",
                    "make it available and run the same command again: it resumes where it stopped",
                )

    def _next_rows(self, size: int, workers: int) -> list[int]:
        """Some remaining rows; fewer towards the end, so that all workers finish at the same time."""
        with self.lock:
            start = max(0, len(self.remaining) - max(1, min(size, len(self.remaining) // (2 * workers))))
            rows = self.remaining[start:][::-1]
            del self.remaining[start:]
            return rows

    def _record(self, rows: list[int], problems: list[list[Any]], journal: IO[str]) -> None:
        line = json.dumps([rows, problems]) + "\n"
        with self.lock:
            self.done[rows] = True
            self.problems |= {row: (kind, reason) for row, kind, reason in problems}
            journal.write(line)
            journal.flush()
            now = time.monotonic()
            if self.progress and (now - self.shown > 0.1 or self.done.all()):
                self.shown = now
                self.progress("decoding images", int(self.done.sum()), len(self.samples))


class _Worker:
    """One process of `worker.py`."""

    def __init__(self) -> None:
        self.status_file = tempfile.NamedTemporaryFile(prefix="hangtag-")  # noqa: SIM115
        self.status_file.write(STATUS.pack(-1, 0.0))
        self.status_file.flush()
        self.status = mmap.mmap(self.status_file.fileno(), STATUS.size)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hangtag.data.store.worker"],  # -P: never import from the current folder
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(), bufsize=0,
            start_new_session=True,  # only the parent process receives Ctrl-C
        )  # fmt: skip
        self.received = b""
        self.hung = False
        self.send({"memory": _MEMORY, "status": self.status_file.name})

    def decode_chunk(self, pictures: list[list[Any]], stop: threading.Event) -> list[list[Any]] | None:
        """[row, kind, reason] of each problem; None if the process died or was killed, see `failure`."""
        self.send(pictures)
        assert self.process.stdout is not None
        output = self.process.stdout
        while b"\n" not in self.received:
            ready, _, _ = select.select([output], [], [], 0.25)
            if ready:
                piece = os.read(output.fileno(), 1 << 16)
                if not piece:
                    return None
                self.received += piece
            elif stop.is_set():
                return None
            else:
                row, began = STATUS.unpack_from(self.status, 0)
                if row >= 0 and time.monotonic() - began > _SECONDS:
                    self.hung = True
                    self.process.kill()
                    return None
        line, _, self.received = self.received.partition(b"\n")
        problems: list[list[Any]] = json.loads(line)
        return problems

    def failure(self) -> tuple[int, str, str]:
        """End the process; the row of the picture it was decoding, the kind of problem and the reason."""
        self.process.kill()
        code = self.process.wait()
        row, _ = STATUS.unpack_from(self.status, 0)
        self.end()
        if row < 0:
            raise DataError(
                f"the process that decodes images did not start (exit code {code})",
                "check the free memory, and try: python -m hangtag.data.store.worker < /dev/null",
            )
        if self.hung:
            return row, "takes too long", f"decoding took more than {_SECONDS:.0f} s"
        return row, "crashes the decoder", f"the decoding process ended with exit code {code}"

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process.kill()
        self.process.wait()
        self.status.close()
        self.status_file.close()

    def send(self, message: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process died; `decode_chunk` notices it
            content = (json.dumps(message) + "\n").encode()
            while content:
                content = content[self.process.stdin.write(content) or 0 :]


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file of uint8; NumPy pads it, so that its length does not depend on the number of rows."""
    header = io.BytesIO()
    description = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def _move_rows(file: IO[bytes], good: NDArray[np.int64], header_bytes: int, row_bytes: int) -> None:
    """Move these rows to the front, in order."""
    most = max(1, (16 << 20) // max(1, row_bytes))
    for start in range(0, len(good), most):
        rows = good[start : start + most]
        if rows[-1] == start + len(rows) - 1:
            continue  # these rows are in place
        content = bytearray()
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(rows, breaks):
            file.seek(header_bytes + int(run[0]) * row_bytes)
            content += file.read(len(run) * row_bytes)
        file.seek(header_bytes + start * row_bytes)
        file.write(content)


def _can_resize() -> bool:
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        return False  # pictures of the right size need no resizing; the others are set aside
    return True


def _environment() -> dict[str, str]:
    """One thread per process, and only absolute entries of PYTHONPATH: Python would import from the current folder."""
    variables = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    absolute = [each for each in variables.pop("PYTHONPATH", "").split(os.pathsep) if Path(each).is_absolute()]
    return variables | ({"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {})
