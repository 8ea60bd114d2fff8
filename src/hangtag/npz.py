"""npz files of a run folder, which may come from a stranger: types and sizes are checked before reading. No pickle."""

import io
import math
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import RunError
from hangtag.files import inside, write_bytes

if TYPE_CHECKING:
    import zipfile

__all__ = ["Limits", "read_npz", "write_npz"]


class Limits(NamedTuple):
    """What an array may be: its type, its largest sides, and how many axes it has; by default all that have a limit."""

    type: type[np.generic]
    most: tuple[int, ...]
    axes: tuple[int, ...] = ()


class _Unfit(ValueError):
    """An array has another type or shape than it should have."""


def write_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Save arrays, compressed; raises SaveError if they cannot be written."""
    buffer = io.BytesIO()
    values: dict[str, Any] = dict(arrays)
    np.savez_compressed(buffer, **values)
    write_bytes(path, buffer.getvalue())


def read_npz(path: Path, limits: Mapping[str, Limits], hint: str) -> dict[str, NDArray[Any]]:
    """The arrays that have limits, from a file of a run folder.

    Raises:
        RunError: the file is damaged, with this hint, or is a link that leads out of the folder.
    """
    if not inside(path.parent, path):
        raise RunError(f"{path}: is a link that leads out of the run folder", "replace it by a copy of the file")
    import zipfile  # slow to import, and seldom needed

    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _array(archive, name, limit) for name, limit in limits.items()}
    except Exception as error:  # zipfile and NumPy may raise anything for a damaged file
        reason = f": {error}" if isinstance(error, _Unfit) else ""
        raise RunError(f"{path}: damaged{reason}", hint) from None


def _array(archive: "zipfile.ZipFile", name: str, limits: Limits) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise _Unfit(f"{name} has an unknown version")
        shape, _, found = np.lib.format.read_array_header_1_0(file)
        axes = limits.axes or (len(limits.most),)
        if found != limits.type or len(shape) not in axes or any(map(operator.gt, shape, limits.most)):
            raise _Unfit(f"{name} has the shape {shape} and the type {found}")
        content = file.read(math.prod(shape) * found.itemsize)
    return np.frombuffer(content, found).reshape(shape)
