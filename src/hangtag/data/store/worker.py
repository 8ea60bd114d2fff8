"""A worker process that decodes picture files into rows of one array: `python -m hangtag.data.store.worker`.

`pool.py` starts it. It is a separate process because a damaged file can make any decoder crash, hang or use too much
memory; then only this process ends. A small shared file records which row it is decoding. It reads and writes lines of
JSON; pixels go directly into the array's file.
"""

import hashlib
import json
import mmap
import os
import signal
import struct
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import CARRIES_COLOUR, COLOUR_FILE, FACTS
from hangtag.data.store.containers import Container, ParquetColumn, container_of
from hangtag.errors import DataError, PictureError
from hangtag.files import write_all
from hangtag.pictures import ImageSpec, decode_only, examine, in_channels
from hangtag.resize import Sizer

__all__ = ["STATUS", "DecodedBefore", "Watch", "limit_more_data", "work"]

STATUS = struct.Struct("<qdd")
"""The row being decoded (-1: none), the last sign of life (monotonic seconds), and the CPU time before the row."""

_FACTS = struct.Struct("<16sIIIB15s4fqI")
_NO_VALUES = (0.0, 0.0, 0.0, 0.0)
_NO_PIXELS = np.empty(0, np.uint8)
_LARGEST_BUFFER = 8_000_000  # bytes of pixels that wait to be written


class DecodedBefore:
    """Pictures that were decoded earlier for the same `ImageSpec`, found by their content.

    Args:
        folders: of the cache, each with images.npy and facts.npy.
    """

    def __init__(self, folders: list[str]) -> None:
        self.sets = []
        for folder in folders:
            try:
                facts = np.load(Path(folder) / "facts.npy", allow_pickle=False)
                images = np.load(Path(folder) / "images.npy", mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError):
                continue
            if len(facts) == len(images):
                order = np.argsort(facts["content"][:, 0], kind="stable")
                self.sets.append((facts["content"][order, 0], order, facts, images))

    def find(self, digest: bytes) -> tuple[bytes, NDArray[np.uint8]] | None:
        """The facts and the pixels of a picture with this content, if they are undamaged."""
        if not self.sets:
            return None
        content = np.frombuffer(digest, "<u8")
        for keys, order, facts, images in self.sets:
            place = int(np.searchsorted(keys, content[0]))
            if place < len(keys) and keys[place] == content[0]:
                position = order[place]
                row = np.ascontiguousarray(images[position])
                if facts[position]["content"][1] == content[1] and facts[position]["pixels"] == zlib.crc32(row.data):
                    return facts[position].tobytes(), row
        return None


class _Decoder:
    """Decodes the pictures of one job, which `pool.py` describes, into the job's files."""

    def __init__(self, job: dict[str, Any], containers: list[Container]) -> None:
        self.containers = containers
        self.spec = ImageSpec(**job["spec"]) if job["spec"] else None  # None: only collect facts
        self.sizer = Sizer(self.spec) if self.spec else None
        self.decoded_before = DecodedBefore(job["decoded_before"])
        self.array = os.open(job["array"], os.O_WRONLY)
        self.facts = os.open(job["facts"], os.O_WRONLY)
        self.header_bytes = job["header_bytes"]
        self.shape = self.spec.shape if self.spec else (0,)
        self.row_bytes = int(np.prod(self.shape))
        self.first_row = 0  # of the rows that wait to be written
        self.rows: list[memoryview] = []
        self.all_facts: list[bytes] = []

    def decode(self, row: int, container: int, key: Any) -> list[Any] | None:
        """Decode one picture and queue it for writing; None, or [row, kind of problem, reason]."""
        try:
            content = self.containers[container].content(key)
            digest = hashlib.sha256(content).digest()[:16]
            facts, pixels = self.decoded_before.find(digest) or self._examine(content, digest)
        except PictureError as error:
            return [row, error.kind, error.reason]
        except DataError as error:
            return [row, "damaged", error.message]
        except MemoryError:
            return [row, "needs too much memory", "needs more memory than the limit for one image"]
        except (RuntimeError, ValueError, OSError) as error:
            return [row, "cannot be resized", str(error)[:200]]
        if row != self.first_row + len(self.rows) or len(self.rows) * self.row_bytes > _LARGEST_BUFFER:
            self.write()
            self.first_row = row
        self.rows.append(pixels.data)
        self.all_facts.append(facts)
        return None

    def write(self) -> None:
        """Write the queued rows, which are neighbours, into their files; raises OSError on a full disk."""
        if not self.rows:
            return
        write_all(self.array, b"".join(self.rows), self.header_bytes + self.first_row * self.row_bytes)
        write_all(self.facts, b"".join(self.all_facts), self.first_row * FACTS.itemsize)
        self.first_row += len(self.rows)
        self.rows, self.all_facts = [], []

    def _examine(self, content: bytes, digest: bytes) -> tuple[bytes, NDArray[np.uint8]]:
        picture = examine(content, self.spec)
        pixels = picture.pixels
        if self.spec is None:
            pixels = _NO_PIXELS
        elif pixels.shape != self.shape and self.sizer is not None:
            pixels = np.ascontiguousarray(self.sizer(in_channels(pixels, self.spec.channels)))
        flags = COLOUR_FILE * (picture.pixels.ndim == 3) | CARRIES_COLOUR * picture.colourful | int(picture.changes)
        width, height = picture.size
        values = _NO_VALUES if picture.values is None else picture.values
        return _FACTS.pack(
            digest, height, width, zlib.crc32(pixels.data), flags, picture.mode.encode(), *values, *picture.shot
        ), pixels

    def close(self) -> None:
        os.close(self.array)
        os.close(self.facts)


class Watch:
    """What this process tells the one that watches it (`process.py`): the row it is at, and that it is alive.

    Attributes:
        settings: the first line of stdin, which also limits the memory of this process, if it says how far.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Any] = json.loads(sys.stdin.readline())
        if self.settings["memory"] is not None:
            _limit_memory(self.settings["memory"])
        decode_only()
        self._status = mmap.mmap(self.settings["status"], STATUS.size)
        self._row = -1

    def at(self, row: int) -> None:
        """The row that is decoded now; -1 for none."""
        self._row = row
        self.alive()

    def alive(self) -> None:
        STATUS.pack_into(self._status, 0, self._row, time.monotonic(), time.process_time())
        if hasattr(signal, "alarm"):  # ends this process if the one that watches it has died
            signal.alarm(self.settings["seconds"] if self._row >= 0 else 0)

    @staticmethod
    def reply(answer: Any) -> None:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def work() -> None:
    """Follow stdin until it ends: a line with settings, then for each job its description and lines of pictures.

    After the last job of a reading, a line with null lets go of all files.
    """
    watch = Watch()
    containers: dict[str, Container] = {}  # archives stay open from job to job
    decoder: _Decoder | None = None
    has_moved = False
    for line in sys.stdin:
        message = json.loads(line)
        if decoder is not None and not isinstance(message, list):
            decoder.close()
            decoder = None
        if message is None:
            containers.clear()
            os.chdir(os.sep)  # keeps no file system busy
            has_moved = True
            continue
        if isinstance(message, dict):
            if has_moved:
                os.chdir(message["directory"])
            for each in message["containers"]:
                containers.setdefault(repr(each), _container(each, watch))
            decoder = _Decoder(message, [containers[repr(each)] for each in message["containers"]])
            continue
        assert decoder is not None
        answer: Any = (problems := [])
        try:
            for row, place, key in message:
                watch.at(row)
                if problem := decoder.decode(row, place, key):
                    problems.append(problem)
            decoder.write()
        except OSError as error:  # of the cache, not of a picture
            answer = {"errno": error.errno, "reason": os.strerror(error.errno or 0)}
        watch.at(-1)
        watch.reply(answer)


def _container(value: list[Any], watch: Watch) -> Container:
    container = container_of(value)
    if isinstance(container, ParquetColumn):
        container.alive = watch.alive  # it may have to read past many pictures
    return container


def _limit_memory(size: int) -> None:
    with suppress(ImportError, ValueError, OSError):  # Windows has no limits, and macOS none on the address space
        _lower("RLIMIT_AS", size)


def limit_more_data(size: int) -> None:
    """Limit the memory that this process can write to, to this many bytes more than it has.

    CUDA reserves far more addresses than it uses, so a limit on the address space is none for it.
    """
    with suppress(ImportError, ValueError, OSError):  # only Linux says how much it has
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
        _lower("RLIMIT_DATA", size + pages * mmap.PAGESIZE)


def _lower(name: str, size: int) -> None:
    """Set a soft limit of this process, at most its hard limit."""
    import resource

    kind = getattr(resource, name)
    _, most = resource.getrlimit(kind)
    resource.setrlimit(kind, (size if most == resource.RLIM_INFINITY else min(size, most), most))


if __name__ == "__main__":
    work()
