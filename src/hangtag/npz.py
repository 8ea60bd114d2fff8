"""Arrays of an npz file from a stranger: their types and sizes are checked before they are read. No pickle."""

import math
import operator
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Unfit", "array_of"]


class Unfit(ValueError):
    """An array has another type or shape than it should have."""


def array_of(
    archive: zipfile.ZipFile, name: str, kind: type[np.generic], most: tuple[int, ...], axes: tuple[int, ...] = ()
) -> NDArray[Any]:
    """An array of an npz file.

    Args:
        most: its largest sides.
        axes: numbers of axes that it may have; by default as many as `most` has sides.

    Raises:
        Unfit: it is another kind of array.
    """
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise Unfit(f"{name} has an unknown version")
        shape, _, found = np.lib.format.read_array_header_1_0(file)
        if found != kind or len(shape) not in (axes or (len(most),)) or any(map(operator.gt, shape, most)):
            raise Unfit(f"{name} has the shape {shape} and the type {found}")
        content = file.read(math.prod(shape) * found.itemsize)
    return np.frombuffer(content, found).reshape(shape)
