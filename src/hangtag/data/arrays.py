"""Files of arrays -> images and labels: .npz, pairs of .npy, IDX and IDX.gz. Pickled objects are refused.

The names of the arrays say which hold images, which hold labels, and which part they belong to.
"""

import gzip
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.folder_layout import PART_NAMES
from hangtag.data.labelled_images import PARTS
from hangtag.data.public.idx import read_idx
from hangtag.errors import DataError

__all__ = ["ArrayPart", "is_idx", "read_idx_folder", "read_npy", "read_npz"]

_PAIRS = (
    ("x_{}", "y_{}"), ("{}_images", "{}_labels"), ("{}_x", "{}_y"), ("X_{}", "y_{}"), ("images_{}", "labels_{}"),
    ("{}_data", "{}_labels"),
)  # fmt: skip
_WHOLE = (
    ("x", "y"), ("images", "labels"), ("data", "labels"), ("data", "target"), ("images", "target"), ("image", "label"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """Images and labels of one part; the part is None for undivided data."""

    part: str | None
    images: NDArray[Any]
    labels: NDArray[Any]


def read_npz(path: Path) -> list[ArrayPart]:
    """The parts of a .npz file: x_train/y_train, train_images/train_labels, X/y, images/labels, ...

    Raises:
        DataError: the file is damaged or contains pickled objects, or its arrays have unknown names.
    """
    with _as_data_errors(path), path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
        arrays = {name: opened[name] for name in opened.files}
    return _parts(arrays, str(path))


def read_npy(path: Path) -> list[ArrayPart]:
    """A pair of .npy files in one folder, given by either of them: x.npy and y.npy, images.npy and labels.npy.

    Raises:
        DataError: a file is damaged or contains pickled objects, or one of the pair is missing.
    """
    folder = path if path.is_dir() else path.parent
    arrays = {}
    for file in sorted(folder.glob("*.npy")):
        with _as_data_errors(file):
            arrays[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
    return _parts(arrays, str(path))


def is_idx(path: Path) -> bool:
    """Whether a file begins like an IDX file, compressed or not."""
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as packed:
                start = packed.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in range(8, 15) and 1 <= start[3] <= 4


def read_idx_folder(path: Path) -> list[ArrayPart]:
    """Pairs of IDX files in a folder, or the pair that one file belongs to: train-images-idx3-ubyte and so on.

    Raises:
        DataError: one file of a pair is missing.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path, *_partners(path)]
    arrays = {}
    for file in files:
        if file.is_file() and is_idx(file):
            name = re.sub(r"[-.]?idx\d.*$|\.gz$", "", file.name).replace("-", "_").replace("t10k", "test")
            arrays[name] = read_idx(file)
    return _parts(arrays, str(path))


def _partners(path: Path) -> list[Path]:
    for one, other in (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1"), ("images", "labels")):
        for mine, theirs in ((one, other), (other, one)):
            if mine in path.name:
                wanted = path.name.replace(mine, theirs).removesuffix(".gz")
                return [each for ending in ("", ".gz") if (each := path.with_name(wanted + ending)).is_file()]
    return []


def _parts(arrays: Mapping[str, NDArray[Any]], where: str) -> list[ArrayPart]:
    lower = {name.lower(): array for name, array in arrays.items()}
    parts: dict[str, ArrayPart] = {}
    for word, part in PART_NAMES.items():
        for one, other in _PAIRS:
            images, labels = lower.get(one.format(word).lower()), lower.get(other.format(word).lower())
            if images is not None and labels is not None and part not in parts:
                parts[part] = _checked(part, images, labels, where)
    if parts:
        return [parts[part] for part in PARTS if part in parts]
    for one, other in _WHOLE:
        if one in lower and other in lower:
            return [_checked(None, lower[one], lower[other], where)]
    raise DataError(
        f"{where}: cannot tell images from labels; it contains {', '.join(arrays) or 'no arrays'}",
        "name them x_train and y_train (x_test, y_test), or images and labels",
    )


def _checked(part: str | None, images: NDArray[Any], labels: NDArray[Any], where: str) -> ArrayPart:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if len(images) != len(labels):
        of_part = f" of {part}" if part else ""
        raise DataError(
            f"{where}: {len(images):,} images but {len(labels):,} labels{of_part}", "give one label for each image"
        )
    return ArrayPart(part, images, labels)


@contextmanager
def _as_data_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise DataError(f"{path}: permission denied", "check the permissions") from None
    except ValueError as error:
        if "pickle" in str(error).lower():
            raise DataError(
                f"{path} contains Python objects, which hangtag never loads because they can run arbitrary code",
                "save plain arrays: numpy.savez(file, images=..., labels=...)",
            ) from error
        raise DataError(f"{path} is damaged: {error}", "save or download it again") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise DataError(f"{path} is not a complete {path.suffix} file: {error}", "save or download it again") from error
