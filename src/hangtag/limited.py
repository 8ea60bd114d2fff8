"""`decode` for pictures from strangers: with limits on the time and the memory that a picture may take.

The cost of decoding a PNG or a JPEG is bounded by what `pictures.py` refuses: too many pixels, too many scans. The
decoders of other formats do their work in one call that nothing can interrupt, so a process of its own makes the call.
"""

import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import PictureError
from hangtag.pictures import ImageSpec, Picture, decode_noting_size, picture_bytes

__all__ = ["decode_limited"]

_SECONDS = 20.0  # the largest picture allowed takes about three seconds on a slow core
_MEMORY = 4_000_000_000  # bytes of address space beyond those that the process has already
_BOUNDED = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x93NUMPY")


def decode_limited(
    picture: Picture, spec: ImageSpec, seconds: float = _SECONDS
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """As `pictures.decode_noting_size`, for the path or the bytes of a file; what is in memory is decoded as usual.

    The process of its own needs Linux; elsewhere the picture is decoded without limits.

    Raises:
        PictureError: as there, or the picture takes more time or memory than the limits.
    """
    if not isinstance(picture, (str, bytes, os.PathLike)) or sys.platform != "linux":
        return decode_noting_size(picture, spec)
    content = picture_bytes(picture)
    name = "" if isinstance(picture, bytes) else str(picture)
    if not isinstance(picture, bytes) and not Path(picture).is_file():  # a pipe, which can be read only once
        picture = content
    if content.startswith(_BOUNDED):
        return decode_noting_size(picture, spec)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads; the child runs none of their code
        child = os.fork()
    if not child:
        os.close(reading)
        _decode_and_exit(picture, spec, writing)
    os.close(writing)
    try:
        answer = _read_all(reading, time.monotonic() + seconds)
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if answer is None:
        raise PictureError(
            f"decoding takes more than {seconds:g} s", "save it again as a PNG or a JPEG", "takes too long", name
        )
    head, _, pixels = answer.partition(b"\n")
    described: dict[str, Any] = json.loads(head) if head else {}
    if "shape" in described:
        return np.frombuffer(bytearray(pixels), np.uint8).reshape(described["shape"]), tuple(described["notes"])
    if "error" in described:
        raise PictureError(*described["error"])
    raise PictureError(
        "its decoder crashed, or needed more memory than the limit", "save it again as a PNG or a JPEG", "damaged", name
    )


def _decode_and_exit(picture: Picture, spec: ImageSpec, writing: int) -> None:
    """In the child: write a line of JSON, then the pixels, and end the process without any clean-up."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + _MEMORY, resource.RLIM_INFINITY))
        try:
            pixels, notes = decode_noting_size(picture, spec)
            answer = json.dumps({"shape": pixels.shape, "notes": notes}).encode() + b"\n" + pixels.tobytes()
        except PictureError as error:
            answer = json.dumps({"error": error.__reduce__()[1]}).encode() + b"\n"
        with os.fdopen(writing, "wb") as file:
            file.write(answer)
    finally:
        os._exit(0)


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 - pathlib may not be loaded yet
        return int(statm.read().split()[0]) * resource.getpagesize()


def _read_all(reading: int, end: float) -> bytes | None:
    """Everything that comes until the other side closes; None if that is later than `end`."""
    pieces = bytearray()
    while select.select([reading], [], [], max(0.0, end - time.monotonic()))[0]:
        piece = os.read(reading, 1 << 20)
        if not piece:
            return bytes(pieces)
        pieces += piece
    return None
