"""Whatever the user has -> `LabelledImages`.

So far: the named public sets, by name or from a folder that holds their files, and arrays. It decodes nothing
itself and never edits what it reads.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag import datasets
from hangtag.datasets import Progress
from hangtag.errors import DataError, UnknownName
from hangtag.files import make_folder, user_path, write_bytes
from hangtag.images import Images, ImageSpec, check_images, encode_png

__all__ = ["LabelledImages", "export_folder", "from_arrays", "read"]


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with one label each, and the parts (train, test, ...) they came divided into.

    Attributes:
        images: (N, H, W) or (N, H, W, 3) uint8; may be memory-mapped and read-only.
        labels: (N,) int64, each an index into `class_names`.
        class_names: (K,) names, in the order of the model's outputs.
        name: what to call the set in a report.
        origin: where it was read from.
        parts: for each part its images, as a slice or an array of positions.
    """

    images: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    name: str = "images"
    origin: str = "memory"
    parts: Mapping[str, slice | NDArray[np.int64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def train(self) -> "LabelledImages":
        """The training part; all of it when there are no parts."""
        return self.part("train") if self.parts else self

    @property
    def validation(self) -> "LabelledImages":
        return self.part("validation")

    @property
    def test(self) -> "LabelledImages":
        return self.part("test")

    def part(self, name: str) -> "LabelledImages":
        if name not in self.parts:
            has = f"it has {', '.join(self.parts)}" if self.parts else "it is not divided"
            raise DataError(f"{self.name} has no '{name}' part", f"{has}; use the parts there are")
        return self.take(self.parts[name], f"{self.name} ({name})")

    def take(self, positions: slice | NDArray[np.int64], name: str | None = None) -> "LabelledImages":
        """Some of the images, in the given order; a slice copies nothing."""
        return LabelledImages(
            self.images[positions], self.labels[positions], self.class_names, name or self.name, self.origin
        )

    def counts(self) -> NDArray[np.int64]:
        """(K,) images of each class."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels and labels; equal for equal content, wherever it came from."""
        return datasets.fingerprint(self.images, self.labels)

    @cached_property
    def spec(self) -> ImageSpec:
        return ImageSpec.of(self.images)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "origin": self.origin,
            "images": len(self),
            "parts": {name: len(self.part(name)) for name in self.parts},
            "classes": list(self.class_names),
            "image": self.spec.to_json(),
            "bytes": int(self.images.nbytes),
            "fingerprint": self.fingerprint,
        }

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {len(self.part(name)):,}" for name in self.parts)
        inside = f" ({parts})" if parts else ""
        return f"<{self.name}: {len(self):,} images{inside}, {len(self.class_names)} classes, {self.spec}>"


def read(what: str | Path, path: str | Path | None = None, progress: Progress | None = None) -> LabelledImages:
    """Labelled images from a name or a folder.

    Args:
        what: the name of a public set (`"fashion-mnist"`), or a folder that holds its files.
        path: the folder to take a named set's files from, instead of looking for them.
        progress: called with (what is going on, bytes done, bytes in all).

    Raises:
        UnknownName: neither a known name nor a folder.
        DataError: the files are not what they should be.
        DownloadError: the set is not on this machine and could not be fetched.

    >>> read("fashion-mnist").train.images.shape  # doctest: +SKIP
    (60000, 28, 28)
    """
    name = str(what)
    if path is None and name not in datasets.NAMED:
        folder = user_path(what)
        try:
            empty = not any(folder.iterdir())
        except NotADirectoryError:
            raise DataError(f"{folder}: is a file, not a folder", "name the folder that holds the IDX files") from None
        except PermissionError:
            raise DataError(f"{folder}: may not be read", "check the folder's permissions") from None
        except (OSError, ValueError):
            raise UnknownName.among("data set", name, datasets.NAMED, ", or a folder that holds its files") from None
        if empty:
            raise DataError(f"{folder}: the folder is empty", "name the folder that holds the IDX files")
        name, path = datasets.FASHION_MNIST.name, folder
    found = datasets.fetch(name, user_path(path) if path is not None else None, progress)
    wanted = datasets.NAMED[name]
    return LabelledImages(
        images=found.images,
        labels=found.labels,
        class_names=wanted.class_names,
        name=wanted.name,
        origin=found.origin,
        parts=dict(found.parts),
    )


def export_folder(data: LabelledImages, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write the images as lossless PNG files, folder/class/00000.png, numbered by position; returns their paths.

    A character that cannot be in a file name becomes a hyphen: `T-shirt/top` is in `T-shirt-top`.
    """
    paths = []
    places = [folder / name for name in _folder_names(data.class_names)]
    for place in places:
        make_folder(place)
    for position, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        path = places[label] / f"{position:05d}.png"
        write_bytes(path, encode_png(image), sync=False)
        paths.append(path)
        if progress and (position % 100 == 0 or position + 1 == len(data)):
            progress("writing pictures", position + 1, len(data))
    return paths


def from_arrays(images: object, labels: Sequence[Any] | NDArray[Any], name: str = "arrays") -> LabelledImages:
    """Arrays as labelled images; the sorted distinct labels become the classes.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) of strings or whole numbers, gaps allowed.

    Raises:
        PictureError: the images have the wrong shape or type.
        DataError: lengths differ, a label is missing, there are no images, or there is only one class.

    >>> from_arrays(np.zeros((4, 8, 8), np.uint8), ["cat", "dog", "cat", "dog"]).class_names
    ('cat', 'dog')
    """
    checked = check_images(images)
    given = _label_array(labels)
    if len(given) != len(checked):
        raise DataError(
            f"{len(checked):,} images but {len(given):,} labels",
            "give exactly one label for each image, in the same order",
        )
    if not len(given):
        raise DataError("there are no images", "give at least two images of two classes")
    if given.dtype.kind == "f" and (not np.isfinite(given).all() or (given != np.rint(given)).any()):
        raise DataError("labels hold fractions or NaN", "labels are names or whole numbers")
    classes, positions = np.unique(given, return_inverse=True)
    if len(classes) < 2:
        raise DataError(
            f"there is only one class: {classes[0]!s}", "a classifier needs pictures of at least two classes"
        )
    return LabelledImages(checked, positions.astype(np.int64), tuple(str(value) for value in classes), name)


def _label_array(labels: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """(N,) names or numbers; NumPy alone would turn a missing label among names into the name 'nan' or 'None'."""
    try:
        given = np.asarray(labels)
        given = np.asarray(given.tolist()) if given.dtype == object else given
    except ValueError:
        raise DataError("labels: rows of different lengths", "give one label per image, not one-hot rows") from None
    if given.ndim != 1:
        raise DataError(f"labels: expected shape (N,), got {given.shape}", "give one label per image, not one-hot rows")
    if given.dtype.kind in "OSU" and not all(isinstance(label, str) for label in labels):
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise DataError(f"labels mix or are {kinds}", "labels are all names or all whole numbers, and none is missing")
    return given


def _folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder for each class; names that would be one folder, on any system, get a number."""
    found: list[str] = []
    taken: set[str] = set()
    for name in map(_file_name, class_names):
        free = next(each for each in (name, *(f"{name}-{n}" for n in range(2, 10**6))) if each.lower() not in taken)
        taken.add(free.lower())
        found.append(free)
    return found


def _file_name(class_name: str) -> str:
    return re.sub(r'[/\\:*?"<>|\x00-\x1f]', "-", class_name).strip(" .") or "-"
