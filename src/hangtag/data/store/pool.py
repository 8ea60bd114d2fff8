"""Very many picture files -> one uint8 array on disk, on all cores, with limits on time and memory for each picture.

The work is done by processes of `decoder.py`. One that dies or takes too long is replaced, and the picture it was at
is set aside. What is done is written down, so that an interrupted decoding goes on where it was.
"""

import contextlib
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
from hangtag.data.store.containers import Container, place_of, why_gone
from hangtag.data.store.worker import STATUS
from hangtag.errors import DataError, SaveError
from hangtag.machine import processors
from hangtag.pictures import ImageSpec
from hangtag.progress import Progress
from hangtag.resize import sizing_model

__all__ = ["Decoded", "Pool", "Sample", "npy_header"]

_SECONDS = 20.0
"""Longest that one picture may take; the largest allowed takes about three on one slow core."""

_MEMORY = 6_000_000_000  # bytes of address space of one worker, of which libraries reserve one or two
_FIRST_CHUNK, _LARGEST_CHUNK = 32, 512  # pictures handed to a worker at a time
_CHUNK_SECONDS = 0.1  # that a chunk should take, so that what is done is written down and shown often enough
_MOST_FAILING = 100  # pictures, one after the other, that a disk or network fails to give
_HEADER = 128  # bytes before the pixels in images.npy


class Sample(NamedTuple):
    """One picture to decode: what to call it, which container holds it, and its key there."""

    name: str
    container: int
    key: Any


@dataclass(frozen=True, eq=False)
class Decoded:
    """What came of it.

    Attributes:
        good: (M,) positions of the pictures that were decoded, ascending; row i of images.npy is picture good[i].
        skipped: the others, with reasons.
        notes: how many pictures had to be changed in which way.
    """

    good: NDArray[np.int64]
    skipped: tuple[Skipped, ...]
    notes: dict[str, int]


class Pool:
    """Processes that decode; use as a context manager.

    Args:
        containers: where the bytes of the pictures are; can be set later, as long as it is before `decode`.
        workers: how many; None takes one a core.
    """

    def __init__(self, containers: Sequence[Container] = (), workers: int | None = None) -> None:
        self.containers = containers
        self.count = workers or processors()
        self.idle: list[_Worker] = []

    def __enter__(self) -> "Pool":
        return self

    def start(self) -> None:
        """Start the processes before there is work; they take a fifth of a second until they are ready."""
        self.idle += [_Worker() for _ in range(self.count - len(self.idle))]

    def __exit__(self, *error: object) -> None:
        for worker in self.idle:
            worker.end()

    def take(self) -> "_Worker":
        return self.idle.pop() if self.idle else _Worker()

    def give(self, worker: "_Worker") -> None:
        self.idle.append(worker)

    def decode(
        self,
        wanted: Sequence[Sample],
        spec: ImageSpec | None,
        folder: Path,
        known: Sequence[Path] = (),
        progress: Progress | None = None,
        one_size: bool = False,
    ) -> Decoded:
        """Fill `folder` with images.npy (M, H, W[, 3]) uint8 and facts.npy (M,), going on where an earlier try ended.

        Args:
            wanted: the pictures; the same ones in the same order when an earlier try is gone on with.
            spec: what to bring them to; None only looks at them, and images.npy is empty.
            known: folders of the cache in which the same content may be found decoded already.
            one_size: whether the pictures are likely to have the spec's size; a process that meets another then gets
                ready for sizing itself, which is spared otherwise.

        Raises:
            SaveError: the disk is full.
        """
        job = _Job(wanted, self.containers, spec, folder, known, progress)
        job.go_on()
        if spec is not None and not one_size and _may_size():
            job.told["sizing"] = sizing_model(spec).hex()
        job.run(self)
        return job.finish()


class _Job:
    """One array in the making."""

    def __init__(
        self, wanted: Sequence[Sample], containers: Sequence[Container], spec: ImageSpec | None, folder: Path,
        known: Sequence[Path], progress: Progress | None,
    ) -> None:  # fmt: skip
        self.wanted, self.spec, self.folder = wanted, spec, folder
        self.progress = progress
        self.array, self.facts, self.journal = (folder / name for name in ("array", "facts", "journal"))
        self.shape = spec.shape if spec else (0,)
        self.row_bytes = int(np.prod(self.shape))
        self.reasons: dict[int, tuple[str, str]] = {}
        self.notes: dict[str, int] = {}
        self.done = np.zeros(len(wanted), bool)
        self.told = {
            "containers": [container.to_json() for container in containers],
            "spec": spec.to_json() if spec else None, "sizing": "", "known": [str(each) for each in known],
            "array": str(self.array), "facts": str(self.facts), "first": _HEADER,
        }  # fmt: skip
        self.left: list[int] = []
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.errors: list[BaseException] = []
        self.shown = 0.0
        self.places: dict[int, str] = {}  # of containers, once something could not be read
        self.failing = 0

    def go_on(self) -> None:
        """Take over what the journal says was done, as far as the pixels on disk prove it."""
        try:
            for path, size in ((self.array, _HEADER + self.row_bytes * len(self.wanted)),
                               (self.facts, FACTS.itemsize * len(self.wanted))):  # fmt: skip
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
                    rows, remarks = json.loads(line)
                except ValueError:  # the last line of a killed process
                    break
                said = {remark[0]: remark for remark in remarks}
                for row in rows:
                    if row in said and said[row][1] in UNREAD:
                        continue
                    array.seek(_HEADER + row * self.row_bytes)
                    bad = row in said and said[row][1] is not None
                    if bad or zlib.crc32(array.read(self.row_bytes)) == facts[row]["pixels"]:
                        self._note([row], [said[row]] if row in said else [])

    def run(self, pool: Pool) -> None:
        self.left = np.flatnonzero(~self.done)[::-1].tolist()  # taken from its end
        if not self.left:
            return
        with self.journal.open("a", encoding="utf-8") as journal:
            threads = [
                threading.Thread(target=self._feed, args=(pool, journal), daemon=True)
                for _ in range(min(pool.count, len(self.left)))
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
        """Close the holes of what was set aside, and give both files their headers and names."""
        good = np.array([row for row in range(len(self.wanted)) if row not in self.reasons], np.int64)
        facts = np.fromfile(self.facts, FACTS)
        with self.array.open("r+b") as file:
            if len(good) < len(self.wanted):
                _close_holes(file, good, self.row_bytes)
            file.truncate(_HEADER + len(good) * self.row_bytes)
            file.seek(0)
            file.write(npy_header((len(good), *self.shape)))
            file.flush()
            os.fsync(file.fileno())
        np.save(self.folder / "facts.npy", facts[good], allow_pickle=False)
        self.array.rename(self.folder / "images.npy")
        for path in (self.facts, self.journal):
            path.unlink()
        skipped = tuple(Skipped(self.wanted[row].name, *self.reasons[row]) for row in sorted(self.reasons))
        return Decoded(good, skipped, self.notes)

    def _feed(self, pool: Pool, journal: IO[str]) -> None:
        """Hand chunks to one worker after the other; each dies at most once a picture."""
        worker: _Worker | None = None
        rows: list[int] = []
        size = _FIRST_CHUNK
        try:
            while not self.stop.is_set():
                rows = rows or self._next(size, pool.count)
                if not rows:
                    break
                if worker is None:
                    worker = pool.take()
                    worker.say(self.told)
                began, chunk = time.monotonic(), rows[:size]
                pictures = [[row, self.wanted[row].container, self.wanted[row].key] for row in chunk]
                remarks = worker.put(pictures, self.stop)
                if self.stop.is_set():
                    break
                if remarks is None:  # it died or hung; the others of its chunk are done again
                    at, reason = worker.culprit()
                    worker = None
                    rows.remove(at)
                    self._write_down([at], [[at, *reason]], journal)
                    size = max(1, size // 4)
                    continue
                self._stop_where_all_is_gone(pool.containers, chunk, remarks)
                self._write_down(chunk, remarks, journal)
                rows = rows[size:]
                quick = time.monotonic() - began < _CHUNK_SECONDS
                size = min(2 * size, _LARGEST_CHUNK) if quick else max(1, size // 2)
            if worker is not None and not self.stop.is_set():
                pool.give(worker)
                worker = None
        except BaseException as error:  # handed to the thread that waits
            self.errors.append(error)
            self.stop.set()
        finally:
            if worker is not None:
                worker.end()

    def _stop_where_all_is_gone(
        self, containers: Sequence[Container], rows: list[int], remarks: list[list[Any]]
    ) -> None:
        """Raises `DataError` where it is not single pictures that cannot be read, but the place of all."""
        unread = {row: said for row, kind, said in remarks if kind in UNREAD}
        failing = all(row in unread and "fails" in unread[row] for row in rows)
        self.failing = self.failing + len(rows) if failing else 0
        for container in {self.wanted[row].container for row in unread}:
            with self.lock:
                if container not in self.places:
                    keys = [each.key for each in self.wanted if each.container == container]
                    self.places[container] = place_of(containers[container], keys)
            place = self.places[container]
            why = why_gone(containers[container], place)
            if why is None and self.failing > _MOST_FAILING:
                why = unread[rows[-1]].partition(": ")[2]
            if why is not None:
                read = int(self.done.sum()) - len(self.reasons) if self.spec else 0
                raise DataError(
                    f"{place}: cannot be read any more ({why}); {read:,} pictures were read before",
                    "bring it back and give the same command again: it goes on where it was",
                )

    def _next(self, size: int, workers: int) -> list[int]:
        """Some rows that are left; towards the end fewer, so that all workers end at the same time."""
        with self.lock:
            start = len(self.left) - max(1, min(size, len(self.left) // (2 * workers)))
            rows = self.left[max(0, start) :][::-1]
            del self.left[max(0, start) :]
            return rows

    def _write_down(self, rows: list[int], remarks: list[list[Any]], journal: IO[str]) -> None:
        line = json.dumps([rows, remarks]) + "\n"
        with self.lock:
            self._note(rows, remarks)
            journal.write(line)
            journal.flush()
            now = time.monotonic()
            if self.progress and (now - self.shown > 0.1 or self.done.all()):
                self.shown = now
                self.progress("decoding pictures", int(self.done.sum()), len(self.wanted))

    def _note(self, rows: list[int], remarks: list[list[Any]]) -> None:
        self.done[rows] = True
        for row, kind, said in remarks:
            if kind is not None:
                self.reasons[row] = (kind, said)
                continue
            for note in said.split("; "):
                short = note.partition(":")[0] if note.startswith("animated") else note
                self.notes[short] = self.notes.get(short, 0) + 1


class _Worker:
    """One process of `decoder.py`."""

    def __init__(self) -> None:
        self.status_file = tempfile.NamedTemporaryFile(prefix="hangtag-")  # noqa: SIM115
        self.status_file.write(STATUS.pack(-1, 0.0))
        self.status_file.flush()
        self.status = mmap.mmap(self.status_file.fileno(), STATUS.size)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hangtag.data.store.worker"],  # -P: never import from the current folder
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(), bufsize=0,
            start_new_session=True,  # Ctrl-C is ours to handle
        )  # fmt: skip
        self.waiting = b""
        self.hung = False
        self.say({"memory": _MEMORY, "status": self.status_file.name})

    def put(self, pictures: list[list[Any]], stop: threading.Event) -> list[list[Any]] | None:
        """Remarks on these pictures; None when the process died or was killed, then see `culprit`."""
        self.say(pictures)
        assert self.process.stdout is not None
        output = self.process.stdout
        while b"\n" not in self.waiting:
            ready, _, _ = select.select([output], [], [], 0.25)
            if ready:
                piece = os.read(output.fileno(), 1 << 16)
                if not piece:
                    return None
                self.waiting += piece
            elif stop.is_set():
                return None
            else:
                row, began = STATUS.unpack_from(self.status, 0)
                if row >= 0 and time.monotonic() - began > _SECONDS:
                    self.hung = True
                    self.process.kill()
                    return None
        line, _, self.waiting = self.waiting.partition(b"\n")
        remarks: list[list[Any]] = json.loads(line)
        return remarks

    def culprit(self) -> tuple[int, tuple[str, str]]:
        """The picture it was at, and what happened."""
        self.process.kill()
        code = self.process.wait()
        row, _ = STATUS.unpack_from(self.status, 0)
        self.end()
        if row < 0:
            raise DataError(
                f"the process that decodes pictures does not start (exit {code})",
                "is there enough memory? try: python -m hangtag.data.store.worker < /dev/null",
            )
        if self.hung:
            return row, ("takes too long", f"decoding took more than {_SECONDS:.0f} s")
        return row, ("crashes the decoder", f"the decoding process ended with {code}")

    def end(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self.process.kill()
        self.process.wait()
        self.status.close()
        self.status_file.close()

    def say(self, value: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; reading its answer will say so
            content = (json.dumps(value) + "\n").encode()
            while content:
                content = content[self.process.stdin.write(content) or 0 :]


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The first 128 bytes of a .npy file of uint8 in this shape (NumPy's format 1.0)."""
    said = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + said.ljust(_HEADER - 11).encode() + b"\n"


def _close_holes(file: IO[bytes], good: NDArray[np.int64], row_bytes: int) -> None:
    """Move the rows that stay to the front, in order."""
    most = max(1, (16 << 20) // max(1, row_bytes))
    for start in range(0, len(good), most):
        rows = good[start : start + most]
        if rows[-1] == start + len(rows) - 1:
            continue  # nothing is missing so far
        content = bytearray()
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(rows, breaks):
            file.seek(_HEADER + int(run[0]) * row_bytes)
            content += file.read(len(run) * row_bytes)
        file.seek(_HEADER + start * row_bytes)
        file.write(content)


def _may_size() -> bool:
    try:
        import onnx  # noqa: F401
    except ModuleNotFoundError:
        return False  # pictures that have the size already need none; others are set aside, saying so
    return True


def _environment() -> dict[str, str]:
    """One thread per process, and no relative or empty entry of PYTHONPATH: Python would import from where we stand."""
    found = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    absolute = [each for each in found.pop("PYTHONPATH", "").split(os.pathsep) if Path(each).is_absolute()]
    return found | ({"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {})
