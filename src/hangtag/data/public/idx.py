"""IDX files, the format of MNIST: a type, the sizes of an array, its numbers.

Described at http://yann.lecun.com/exdb/mnist: two zero bytes, one for the type, one for the number of dimensions,
each dimension as a big-endian 32-bit number, then the numbers themselves, also big-endian.
"""

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.public.archives import content_of
from hangtag.errors import DataError

__all__ = ["idx_header", "parse_idx", "read_idx"]

_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LONGEST_HEADER = 4 + 4 * 255  # bytes


def read_idx(path: Path, most: int = 4 * 2**30) -> NDArray[Any]:
    """The array in an IDX file, plain or gzip, whatever its name.

    Args:
        most: bytes its content may have; a file that claims more is refused before it is read.

    Returns:
        an array of the shape and type that the file says (uint8, int8, int16, int32, float32 or float64).

    Raises:
        DataError: it cannot be read, is no IDX file, is cut short, damaged or too long.
    """
    shape, kind = _header(content_of(path, _LONGEST_HEADER), path)
    size = len(idx_header(shape)) + math.prod(shape) * kind.itemsize
    if size > most:
        raise DataError(f"{path}: says that it holds {size:,} bytes", f"at most {most:,} are read at once")
    return parse_idx(content_of(path, size + 1), path)


def parse_idx(content: bytes, place: str | Path) -> NDArray[Any]:
    """The array that an IDX file's whole content is; errors name `place`. Bytes are not copied."""
    shape, kind = _header(content, place)
    start = len(idx_header(shape))
    expected = start + math.prod(shape) * kind.itemsize
    if len(content) < expected:
        raise DataError(f"{place}: cut short: {len(content):,} of {expected:,} bytes", "download it again")
    if len(content) > expected:
        raise DataError(f"{place}: longer than the {expected:,} bytes it says it has", "download it again")
    return np.frombuffer(content, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="), copy=False)


def idx_header(shape: tuple[int, ...]) -> bytes:
    """How the IDX file of a uint8 array of this shape begins."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 0x08, len(shape), *shape)


def _header(content: bytes, place: str | Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(f"{place}: is not an IDX file", "IDX files begin with two zero bytes and a type")
    dimensions = content[3]
    if len(content) < 4 + 4 * dimensions:
        raise DataError(f"{place}: cut short in its header", "download it again")
    return struct.unpack_from(f">{dimensions}I", content, 4), np.dtype(_TYPES[content[2]])
