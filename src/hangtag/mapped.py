"""Memory-mapped arrays: read some rows without holding the others in memory.

Pages of a mapped file that were read count as this process's memory until the system needs them; `forget` releases
them immediately. They stay in the system's file cache, so reading them again is fast.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.files import cache_home, make_folder, saving

__all__ = ["MappedRows", "as_slice", "forget", "mapping_of", "rows_of", "scratch"]

_IN_MEMORY = 64_000_000  # bytes; larger scratch arrays are files


class MappedRows:
    """Some rows of an array in a given order, read on access.

    Args:
        array: (N, ...), usually mapped from a file.
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
        """A copy of some rows, in memory."""
        return rows_of(self.array, self.positions[which])


def as_slice(positions: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Consecutive positions as a slice, so that indexing makes a view instead of a copy.

    >>> as_slice(np.array([3, 4, 5])), as_slice(np.array([5, 4]))
    (slice(3, 6, None), array([5, 4]))
    """
    if len(positions) and positions.dtype.kind in "iu" and positions[0] >= 0 and (np.diff(positions) == 1).all():
        return slice(int(positions[0]), int(positions[-1]) + 1)
    return positions


def rows_of(array: "NDArray[Any] | MappedRows", positions: NDArray[np.int64]) -> NDArray[Any]:
    """(M, ...) a copy of these rows; the mapped pages they were read from are released."""
    if isinstance(array, MappedRows):
        return array[positions]
    order = np.argsort(positions, kind="stable")  # a file is read from front to back
    rows = np.empty((len(positions), *array.shape[1:]), array.dtype)
    with _prefetched(array, positions[order]):
        rows[order] = array[positions[order]]
    forget(array)
    return rows


@contextmanager
def _prefetched(array: NDArray[Any], positions: NDArray[np.int64]) -> Iterator[None]:
    """Let the system fetch these large rows of a mapped file together, and nothing around them.

    By default it fetches some megabytes around each row; shuffled reading of a data set larger than memory uses little
    of that before it is dropped again.
    """
    mapping = mapping_of(array)
    row_bytes = array[:1].nbytes
    if mapping is None or row_bytes < mmap.PAGESIZE or not array.flags.c_contiguous or not hasattr(mmap, "MADV_RANDOM"):
        yield
        return
    start = array.ctypes.data - np.frombuffer(mapping, np.uint8).ctypes.data
    mapping.madvise(mmap.MADV_RANDOM)
    for position in positions.tolist():
        row = start + position * row_bytes
        page = row - row % mmap.PAGESIZE
        mapping.madvise(mmap.MADV_WILLNEED, page, row + row_bytes - page)
    try:
        yield
    finally:
        mapping.madvise(mmap.MADV_NORMAL)


def forget(array: "NDArray[Any] | MappedRows") -> None:
    """Release the memory of the pages that were read from a mapped file; does nothing for other arrays."""
    mapping = mapping_of(array.array if isinstance(array, MappedRows) else array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def mapping_of(array: object) -> mmap.mmap | None:
    """The read-only memory map that an array is a view of, or None."""
    writable = False
    while isinstance(array, np.ndarray):
        writable = writable or array.flags.writeable
        array = array.base
    # Releasing pages of a private mapping would lose what was written to them.
    return array if isinstance(array, mmap.mmap) and not writable else None


def scratch(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
    """An array to fill; a large one is a file in the cache folder, which is deleted together with the array.

    Raises:
        SaveError: the disk has no room for it, or the folder cannot be created.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if size <= _IN_MEMORY:
        return np.empty(shape, dtype)
    folder = cache_home("scratch")
    make_folder(folder)
    with saving(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):  # or a full disk would end this process when a page is written
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(file, dtype, "w+", shape=shape)
