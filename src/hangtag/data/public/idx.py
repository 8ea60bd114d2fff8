"""IDX files, the format of MNIST (http://yann.lecun.com/exdb/mnist).

Two zero bytes, one byte for the type, one for the number of dimensions, each dimension as a big-endian 32-bit number,
then the values, also big-endian.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.public.archives import content_of
from hangtag.errors import DataError

__all__ = ["check_length", "idx_header", "parse_idx", "read_idx"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LONGEST_HEADER = 4 + 4 * 255  # bytes


def read_idx(path: Path, most: int = 4 * 2**30) -> NDArray[Any]:
    """The array in an IDX file, plain or gzip, whatever its name.

    Args:
        most: the largest allowed content in bytes; a file whose header declares more is refused before it is read.

    Returns:
        an array of the file's shape and type (uint8, int8, int16, int32, float32 or float64).

    Raises:
        DataError: the file cannot be read, is not an IDX file, or is damaged, incomplete or too long.
    """
    shape, kind = _header(content_of(path, _LONGEST_HEADER), path)
    size = len(idx_header(shape)) + math.prod(shape) * kind.itemsize
    if size > most:
        raise DataError(f"{path}: declares {size:,} bytes, over the limit of {most:,}", "use a smaller file")
    return parse_idx(content_of(path, size + 1), path)


def parse_idx(content: bytes, place: str | Path) -> NDArray[Any]:
    """The array in an IDX file's content; errors name `place`. Bytes are not copied."""
    shape, kind = _header(content, place)
    start = len(idx_header(shape))
    check_length(content, start + math.prod(shape) * kind.itemsize, place)
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def check_length(content: bytes, expected: int, place: str | Path) -> None:
    """Raises DataError if the content has another length; callers read at most one byte more than expected."""
    if len(content) != expected:
        got = f"{len(content):,}" if len(content) < expected else "more"
        raise DataError(f"{place}: must have {expected:,} bytes, got {got}", "download it again")


def idx_header(shape: tuple[int, ...]) -> bytes:
    """The header of an IDX file with a uint8 array of this shape."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 0x08, len(shape), *shape)


def _header(content: bytes, place: str | Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(f"{place}: not an IDX file", "IDX files start with two zero bytes and a type")
    dimensions = content[3]
    if len(content) < 4 + 4 * dimensions:
        raise DataError(f"{place}: its header is incomplete", "download it again")
    return struct.unpack_from(f">{dimensions}I", content, 4), np.dtype(_TYPES[content[2]])
