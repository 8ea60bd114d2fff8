"""Arrays that live in a file: how to read some rows of them without holding the rest in memory.

Pages of a mapped file that were read count as this process's memory until the system wants them back; `forget` gives
them back at once. The file's content stays in the system's cache, so that reading it again is quick.
"""

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.files import cache_home, make_folder

__all__ = ["MappedRows", "as_slice", "forget", "mapping_of", "rows_of", "scratch"]

_HELD = 64_000_000  # bytes of a scratch array up to which memory holds it


class MappedRows:
    """Some rows of an array, in a given order, read when asked for.

    Args:
        array: (N, ...), as a rule mapped from a file.
        positions: (M,) of the rows.
    """

    def __init__(self, array: NDArray[Any], positions: NDArray[np.int64]) -> None:
        self.array, self.positions = array, positions

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.positions), *self.array.shape[1:])

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def nbytes(self) -> int:
        return len(self) * self.array[:1].nbytes

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, which: slice | NDArray[np.int64]) -> NDArray[Any]:
        """A copy of some of them, in memory."""
        return rows_of(self.array, self.positions[which])


def as_slice(positions: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Positions in a row as a slice: what is taken by it is not copied, and stays in its file.

    >>> as_slice(np.array([3, 4, 5])), as_slice(np.array([5, 4]))
    (slice(3, 6, None), array([5, 4]))
    """
    if len(positions) and positions.dtype.kind in "iu" and positions[0] >= 0 and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def rows_of(array: "NDArray[Any] | MappedRows", positions: NDArray[np.int64]) -> NDArray[Any]:
    """(M, ...) a copy of these rows; of a mapped file, nothing else stays in memory."""
    if isinstance(array, MappedRows):
        return array[positions]
    order = np.argsort(positions, kind="stable")  # a file is read from front to back
    found = np.empty((len(positions), *array.shape[1:]), array.dtype)
    with _only_these(array, positions[order]):
        found[order] = array[positions[order]]
    forget(array)
    return found


@contextmanager
def _only_these(array: NDArray[Any], positions: NDArray[np.int64]) -> Iterator[None]:
    """While large rows of a mapped file are read: the system fetches these at once, and none of what lies around them.

    Left to itself it fetches some megabytes at each row, of which shuffled reading of a set larger than memory uses
    little before they are given up again.
    """
    mapping = mapping_of(array)
    row_bytes = array[:1].nbytes
    if mapping is None or row_bytes < mmap.PAGESIZE or not array.flags.c_contiguous or not hasattr(mmap, "MADV_RANDOM"):
        yield
        return
    start = array.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    mapping.madvise(mmap.MADV_RANDOM)
    for position in positions.tolist():
        at = start + position * row_bytes
        first = at - at % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, first, at + row_bytes - first)
    try:
        yield
    finally:
        mapping.madvise(mmap.MADV_NORMAL)


def forget(array: "NDArray[Any] | MappedRows") -> None:
    """Give back the memory of what was read so far of a mapped file; of any other array, nothing happens."""
    mapping = mapping_of(array.array if isinstance(array, MappedRows) else array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def mapping_of(array: object) -> mmap.mmap | None:
    """The read-only mapped file that an array is a view of, or None."""
    writable = False
    while isinstance(array, np.ndarray):
        writable = writable or array.flags.writeable
        array = array.base
    # What was written to a private mapping and not yet to its file would be lost.
    return array if isinstance(array, mmap.mmap) and not writable else None


def scratch(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """An array to fill; a large one lies in a file of the cache folder that vanishes with it, so that memory is spared.

    Raises:
        SaveError: the folder cannot be made.
    """
    if np.prod(shape, dtype=np.int64) * np.dtype(dtype).itemsize <= _HELD:
        return np.empty(shape, dtype)
    make_folder(cache_home("scratch"))
    with tempfile.TemporaryFile(dir=cache_home("scratch")) as file:
        return np.memmap(file, dtype, "w+", shape=shape)
