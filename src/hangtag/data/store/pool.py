"""Many picture files -> one uint8 array on disk, on all cores, with limits on time and memory for each picture.

Processes of `worker.py` do the work. One that dies or hangs is replaced, and the picture it was decoding is tried again
alone; only if that fails again is it set aside, and not for ever (`picture_facts.PASSING`). A journal records what is
done, so an interrupted decoding resumes where it stopped.
"""

import errno
import io
import json
import os
import shutil
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import FACTS, PASSING, UNREAD, Skipped
from hangtag.data.store import spares
from hangtag.data.store.containers import (
    Container,
    ParquetColumn,
    Sample,
    common_place,
    is_local,
    why_unreadable,
)
from hangtag.data.store.process import Retries, WorkerProcess
from hangtag.errors import DataError, SaveError
from hangtag.files import saving, write_bytes
from hangtag.machine import processors
from hangtag.pictures import ImageSpec
from hangtag.progress import Progress
from hangtag.words import bytes_in_words

__all__ = ["Decoded", "Pool", "npy_header"]

_DECODER = "hangtag.data.store.worker"
_FIRST_CHUNK, _LARGEST_CHUNK = 32, 512  # pictures sent to a worker at a time
_CHUNK_SECONDS = 0.1  # intended time of a chunk, so that the journal and the progress are updated often enough
_MOST_FAILURES = 100  # consecutive pictures that a disk or network fails to read


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
    """Worker processes; use as a context manager. Some may be left from the reading before, see `spares`.

    Args:
        containers: where the bytes of the pictures are.
        workers: number of processes; None starts one per core.
    """

    def __init__(self, containers: Sequence[Container], workers: int | None = None) -> None:
        self.containers = containers
        self.count = workers or processors()
        self.idle: list[WorkerProcess] = []
        self.shares = _current_directory() is not None and all(map(is_local, containers))

    def __enter__(self) -> "Pool":
        return self

    def start(self) -> None:
        """Start the processes early; each needs about 0.2 s to start."""
        self.idle += [self._started() for _ in range(self.count - len(self.idle))]

    def __exit__(self, *error: object) -> None:
        for worker in self.idle:
            if self.shares:
                spares.keep(worker)
            else:
                worker.end()

    def acquire(self) -> WorkerProcess:
        return self.idle.pop() if self.idle else self._started()

    def _started(self) -> WorkerProcess:
        return (spares.take() if self.shares else None) or WorkerProcess(_DECODER)

    def release(self, worker: WorkerProcess) -> None:
        self.idle.append(worker)

    def decode(
        self,
        samples: Sequence[Sample],
        spec: ImageSpec | None,
        folder: Path,
        decoded_before: Sequence[Path] = (),
        progress: Progress | None = None,
    ) -> Decoded:
        """Fill `folder` with images.npy (M, H, W[, 3]) uint8 and facts.npy (M,), or resume filling it.

        Args:
            samples: the pictures; to resume, the same ones in the same order.
            spec: what to convert them to; None only collects facts, and images.npy is empty.
            decoded_before: folders of the cache that may hold pictures of the same content, already decoded.

        Raises:
            SaveError: the disk is full.
            DataError: the folder or file that holds the pictures is no longer readable.
        """
        job = _Job(samples, self.containers, spec, folder, decoded_before, progress)
        job.resume()
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
            "spec": spec.to_json() if spec else None,
            "decoded_before": [str(each) for each in decoded_before],
            "array": str(self.array), "facts": str(self.facts), "header_bytes": self.header_bytes,
            "directory": _current_directory(),
        }  # fmt: skip
        self.remaining: list[int] = []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.shown = 0.0
        self.places: dict[int, str] = {}  # of containers with unreadable pictures
        self.failures = 0
        self.containers = containers
        self.retries = Retries(_DECODER, "decodes images")
        names = "\0".join([repr(spec), *(sample.name for sample in samples)])
        self.seed = zlib.crc32(names.encode("utf-8", "surrogateescape"))  # of the checksums in the journal

    def resume(self) -> None:
        """Accept the rows of the journal whose pixels and facts on disk have the recorded checksums.

        Raises:
            SaveError: the disk has no room for the images, or the folder is not writable.
        """
        sizes = {
            self.array: self.header_bytes + self.row_bytes * len(self.samples),
            self.facts: FACTS.itemsize * len(self.samples),
        }
        with saving(self.folder):
            for name in ("images.npy", "facts.npy"):  # of a process that was killed between decoding and saving
                (self.folder / name).unlink(missing_ok=True)
            for path, size in sizes.items():
                with path.open("ab"):
                    os.truncate(path, size)
            missing = sum(max(0, size - path.stat().st_blocks * 512) for path, size in sizes.items())
            disk = shutil.disk_usage(self.folder)
            if disk.total > 0 and disk.free < missing:
                what, variable = ("decoded images", "XDG_CACHE_HOME") if self.spec else ("temporary files", "TMPDIR")
                raise SaveError(
                    f"{self.folder}: the disk is full: the {what} take {bytes_in_words(missing)} more, and "
                    f"{bytes_in_words(disk.free)} are free",
                    f"free some space (see: hangtag cache), or set {variable} to a folder on another disk",
                )
            self._accept(self.journal.read_bytes().split(b"\n") if self.journal.is_file() else [])

    def _accept(self, lines: list[bytes]) -> None:
        """Take over rows from the journal of an earlier process; a line that is damaged or of other pictures is not."""
        records = [record for line in lines if (record := self._read_line(line)) is not None]
        facts = np.fromfile(self.facts, FACTS)
        with self.array.open("rb") as array:
            for rows, problems, checksum in records:
                bad = {row: (kind, reason) for row, kind, reason in problems}
                good = [row for row in rows if row not in bad]
                if zlib.crc32(facts[good].tobytes()) == checksum:
                    for row in good:
                        array.seek(self.header_bytes + row * self.row_bytes)
                        self.done[row] |= zlib.crc32(array.read(self.row_bytes)) == facts[row]["pixels"]
                lasting = {row: problem for row, problem in bad.items() if problem[0] not in PASSING}
                self.done[list(lasting)] = True
                self.problems |= lasting

    def _read_line(self, line: bytes) -> Any:
        checksum, _, text = line.partition(b" ")
        return json.loads(text) if b"%08x" % zlib.crc32(text, self.seed) == checksum else None

    def run(self, pool: Pool) -> None:
        self.remaining = np.flatnonzero(~self.done)[::-1].tolist()  # the first row is last
        if not self.remaining:
            return
        with saving(self.journal):
            opened = self.journal.open("ab", buffering=0)
            if opened.tell():
                opened.write(b"\n")  # the last line may be cut off
        with opened as journal:
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
        with saving(self.folder), self.array.open("r+b") as file:
            if len(good) < len(self.samples):
                _move_rows(file, good, self.header_bytes, self.row_bytes)
            file.truncate(self.header_bytes + len(good) * self.row_bytes)
            header = npy_header((len(good), *self.shape))
            assert len(header) == self.header_bytes
            file.seek(0)
            file.write(header)
            file.flush()
            os.fsync(file.fileno())
        write_bytes(self.folder / "facts.npy", npy_bytes(facts[good]), sync=False)
        with saving(self.folder):
            self.array.rename(self.folder / "images.npy")
            for path in (self.facts, self.journal):
                path.unlink()
        skipped = [Skipped(self.samples[row].name, *self.problems[row]) for row in sorted(self.problems)]
        return Decoded(good, tuple(skipped))

    def _feed(self, pool: Pool, journal: IO[bytes]) -> None:
        """Send chunks to one worker at a time."""
        worker: WorkerProcess | None = None
        rows: list[int] = []
        size = _FIRST_CHUNK
        try:
            while not self.stop.is_set():
                rows = rows or self._next_rows(size, pool.count)
                if not rows:
                    break
                if worker is None:
                    worker = pool.acquire()
                    worker.place = self.folder
                    worker.send(self.description)
                began, chunk = time.monotonic(), rows[: self.retries.together(rows[:size])]
                pictures = [[row, self.samples[row].container, self.samples[row].key] for row in chunk]
                problems = worker.answer(pictures, self.stop)
                if self.stop.is_set():
                    break
                if problems is None:  # it died or hung; the chunk is decoded again
                    failure = worker.failure()
                    worker = None
                    if self.retries.is_given_up(failure):
                        rows.remove(failure.row)
                        self._record([failure.row], [[*failure[:3]]], journal)
                    size = max(1, size // 4)
                    continue
                self.retries.succeeded()
                self._check_places(pool.containers, chunk, problems)
                self._record(chunk, problems, journal)
                rows = rows[len(chunk) :]
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
            share = max(1, len(self.remaining) // (2 * workers))
            if self.remaining and (group := self._row_group(self.remaining[-1])):  # read once, by one worker
                same = (self._row_group(row) == group for row in self.remaining[: -share - 1 : -1])
                share = next((count for count, it in enumerate(same) if not it), share)
            else:
                share = min(size, share)
            start = max(0, len(self.remaining) - share)
            rows = self.remaining[start:][::-1]
            del self.remaining[start:]
            return rows

    def _row_group(self, row: int) -> tuple[int, Any] | None:
        sample = self.samples[row]
        parquet = isinstance(self.containers[sample.container], ParquetColumn)
        return (sample.container, sample.key[:2]) if parquet else None

    def _record(self, rows: list[int], problems: list[list[Any]], journal: IO[bytes]) -> None:
        bad = {row: (kind, reason) for row, kind, reason in problems}
        facts = np.memmap(self.facts, FACTS, "r")[[row for row in rows if row not in bad]]
        text = json.dumps([rows, problems, zlib.crc32(facts.tobytes())]).encode()
        line = b"%08x %s\n" % (zlib.crc32(text, self.seed), text)
        with self.lock:
            with saving(self.journal):
                if journal.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.done[rows] = True
            self.problems |= bad
            now = time.monotonic()
            if self.progress and (now - self.shown > 0.1 or self.done.all()):
                self.shown = now
                self.progress("decoding images", int(self.done.sum()), len(self.samples))


def _current_directory() -> str | None:
    """What relative paths of containers start from; None if it has been deleted."""
    try:
        return str(Path.cwd())
    except FileNotFoundError:
        return None


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


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
