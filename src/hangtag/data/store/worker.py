"""A worker process that decodes picture files into rows of one array: `python -m hangtag.data.store.worker`.

It is used by `pool.py`.
It is a process of its own because a damaged file can make any decoder crash, hang or eat memory: then this process
dies alone. Which row it is at, and since when, stands in a small shared file. Lines of JSON in, lines of JSON out;
pixels go straight into the array's file.
"""

import hashlib
import json
import mmap
import os
import struct
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import CARRIES_COLOUR, COLOUR_FILE, FACTS, NOTED, TRANSPARENT
from hangtag.data.store.containers import Container, container_of
from hangtag.errors import HangtagError
from hangtag.pictures import ImageSpec, decode_alone, examine, in_channels
from hangtag.resize import Sizer

__all__ = ["STATUS", "DecodedBefore", "reason_kind", "work"]

STATUS = struct.Struct("<qd")
"""The row being decoded (-1: none) and when that began, in seconds of the system's monotonic clock."""

_FACTS = struct.Struct("<16sIIIB15s")
_NO_PIXELS = np.empty(0, np.uint8)
_MOST_WAITING = 8_000_000  # bytes of pixels that wait to be written


class DecodedBefore:
    """Pictures that were decoded before for the same `ImageSpec`, found by their content.

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

    def find(self, digest: bytes) -> tuple[bytes, NDArray[np.uint8], str] | None:
        """The facts and the row of a picture with this content, if its row is still whole."""
        if not self.sets:
            return None
        content = np.frombuffer(digest, "<u8")
        for keys, order, facts, images in self.sets:
            place = int(np.searchsorted(keys, content[0]))
            if place < len(keys) and keys[place] == content[0]:
                at = order[place]
                row = np.ascontiguousarray(images[at])
                if facts[at]["content"][1] == content[1] and facts[at]["pixels"] == zlib.crc32(row.data):
                    return facts[at].tobytes(), row, "as before" if facts[at]["flags"] & NOTED else ""
        return None


class _Decoder:
    """One job: which pictures' pixels go where. `told` is what `decoding.py` said."""

    def __init__(self, told: dict[str, Any], containers: list[Container]) -> None:
        self.containers = containers
        self.spec = ImageSpec(**told["spec"]) if told["spec"] else None  # None: only look at the pictures
        sizing = bytes.fromhex(told["sizing"]) if told["sizing"] else None
        self.sizer = Sizer(self.spec, sizing) if self.spec else None
        self.known = DecodedBefore(told["known"])
        self.array = os.open(told["array"], os.O_WRONLY)
        self.facts = os.open(told["facts"], os.O_WRONLY)
        self.first = told["first"]
        self.shape = self.spec.shape if self.spec else (0,)
        self.row_bytes = int(np.prod(self.shape))
        self.first_row = 0  # of those that wait to be written
        self.rows: list[memoryview] = []
        self.all_facts: list[bytes] = []

    def put(self, row: int, place: int, key: Any) -> list[Any] | None:
        """Decode one picture, to be written; None, or [row, kind of reason, reason], or [row, None, note]."""
        try:
            content = self.containers[place].content(key)
            digest = hashlib.sha256(content).digest()[:16]
            facts, pixels, note = self.known.find(digest) or self._decoded(content, digest)
        except HangtagError as error:
            reason = error.message.partition(": ")[2] or error.message
            return [row, reason_kind(reason), reason]
        except MemoryError:
            return [row, "too large", "needs more memory than one picture may take"]
        except ModuleNotFoundError:
            return [row, "cannot be sized", "has another size than the others, and sizing needs onnx: hangtag[train]"]
        except (RuntimeError, ValueError, OSError) as error:
            return [row, "cannot be sized", str(error)[:200]]
        if row != self.first_row + len(self.rows) or len(self.rows) * self.row_bytes > _MOST_WAITING:
            self.write()
            self.first_row = row
        self.rows.append(pixels.data)
        self.all_facts.append(facts)
        return [row, None, note] if note else None

    def write(self) -> None:
        """Put neighbouring rows that wait into their files."""
        if not self.rows:
            return
        os.pwrite(self.array, b"".join(self.rows), self.first + self.first_row * self.row_bytes)
        os.pwrite(self.facts, b"".join(self.all_facts), self.first_row * FACTS.itemsize)
        self.first_row += len(self.rows)
        self.rows, self.all_facts = [], []

    def _decoded(self, content: bytes, digest: bytes) -> tuple[bytes, NDArray[np.uint8], str]:
        seen = examine(content, "picture", self.spec.background if self.spec else 255)
        pixels = seen.pixels
        if self.spec is None:
            pixels = _NO_PIXELS
        elif pixels.shape != self.shape and self.sizer is not None:
            pixels = np.ascontiguousarray(self.sizer(in_channels(seen.pixels, self.spec.channels)))
        flags = COLOUR_FILE * (seen.pixels.ndim == 3) | CARRIES_COLOUR * seen.colourful
        flags |= TRANSPARENT * seen.transparent | NOTED * bool(seen.notes)
        height, width = seen.pixels.shape[:2]
        facts = _FACTS.pack(digest, height, width, zlib.crc32(pixels.data), flags, seen.kind.encode())
        return facts, pixels, "; ".join(seen.notes)

    def close(self) -> None:
        os.close(self.array)
        os.close(self.facts)


def reason_kind(reason: str) -> str:
    """A few words for a reason, so that reasons can be counted."""
    for sign, kind in (
        ("empty", "empty"),
        ("not a picture", "not a picture"),
        ("truncated", "truncated"),
        ("cut short", "truncated"),
        ("over the limit", "too large"),
        ("larger than", "too large"),
        ("may not be read", "may not be read"),
        ("cannot be read", "cannot be read"),
        ("disk or network fails", "disk or network fails"),
        ("no picture", "no picture"),
        ("no agreed meaning", "pixels without a meaning"),
        ("a HEIC picture", "HEIC (pip install 'hangtag[heic]')"),
    ):
        if sign in reason:
            return kind
    return "damaged"


def work() -> None:
    """Do what stdin says until it ends: a line about the process, then for each job a line and lines of pictures."""
    told = json.loads(sys.stdin.readline())
    _limit_memory(told["memory"])
    decode_alone()
    with open(told["status"], "r+b") as file:  # noqa: PTH123
        status = mmap.mmap(file.fileno(), STATUS.size)
    containers: dict[str, Container] = {}  # an archive that was opened stays open
    decoder: _Decoder | None = None
    for line in sys.stdin:
        said = json.loads(line)
        if isinstance(said, dict):
            if decoder is not None:
                decoder.close()
            for each in said["containers"]:
                containers.setdefault(repr(each), container_of(each))
            decoder = _Decoder(said, [containers[repr(each)] for each in said["containers"]])
            continue
        assert decoder is not None
        remarks = []
        for row, place, key in said:
            STATUS.pack_into(status, 0, row, time.monotonic())
            remark = decoder.put(row, place, key)
            if remark is not None:
                remarks.append(remark)
        decoder.write()
        STATUS.pack_into(status, 0, -1, 0.0)
        sys.stdout.write(json.dumps(remarks) + "\n")
        sys.stdout.flush()


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    size = size if most == resource.RLIM_INFINITY else min(size, most)
    with suppress(ValueError, OSError):  # macOS refuses any limit on the address space; memory is not bounded there
        resource.setrlimit(resource.RLIMIT_AS, (size, most))


if __name__ == "__main__":
    work()
