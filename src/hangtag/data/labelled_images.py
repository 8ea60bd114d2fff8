"""`LabelledImages`: images, one label each, the parts they came divided into, and their source.

The same content has the same order and fingerprint, in whatever form it was read.
"""

import hashlib
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex, cast, overload

import numpy as np
from numpy.typing import NDArray

from hangtag.data.class_names import joined_names
from hangtag.data.picture_facts import Skipped
from hangtag.errors import DataError
from hangtag.files import make_folder, make_own_folder, short_name, write_bytes
from hangtag.levels import levels_of, measure
from hangtag.mapped import as_slice, forget
from hangtag.pictures import Images, ImageSpec, check_images, encode_png, stacked
from hangtag.progress import Progress
from hangtag.words import natural

__all__ = [
    "PARTS", "LabelledImage", "LabelledImages", "Source", "content_hashes", "export_folder", "folder_names",
    "from_arrays", "one_column",
]  # fmt: skip

PARTS = ("train", "validation", "test")
"""The parts that data may come divided into, in the order in which they lie in memory."""

_ROWS_AT_ONCE = 10_000  # rows hashed before their memory is given back
_CLASSES_SHOWN, _PICTURES_SHOWN = 12, 8  # in a notebook


class LabelledImage(NamedTuple):
    """One image, uint8 (H, W) or (H, W, 3), and the name of its class."""

    image: NDArray[np.uint8]
    label: str

    def __repr__(self) -> str:
        height, width, *channels = self.image.shape
        return f"<LabelledImage: {self.label}, {ImageSpec(height, width, *channels or (1,))}>"

    def _repr_html_(self) -> str:
        from hangtag.html import render, thumbnail

        return render("notebook_image.html", {"label": self.label, "picture": thumbnail(self.image, 160)})


@dataclass(frozen=True)
class Source:
    """Where images came from, and how they were read.

    Attributes:
        origin: the path or address they were read from; "memory" for arrays.
        description: how the data was read, as one sentence; "" for data that needs no explanation.
        notes: what was decided or changed while reading, in sentences.
        skipped: what was set aside while reading, with reasons.
        spec: the size and colours that the pictures were brought to; None derives them from the images.
        answers: what was answered to questions or chosen for a model while reading, as options of `read`.
    """

    origin: str = "memory"
    description: str = ""
    notes: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    spec: ImageSpec | None = None
    answers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images with one label each, and the parts (train, test, ...) they came divided into.

    `data[3]` is a `LabelledImage`, as is each element of `for image, label in data`; `data[10:20]`, `data[mask]` and
    `data[[3, 1]]` are `LabelledImages` without parts. `data["test"]` is `data.test`.

    Attributes:
        images: (N, H, W) or (N, H, W, 3) uint8; may be memory-mapped and read-only.
        labels: (N,) int64, each an index into `class_names`.
        class_names: (K,) names, in the order of the model's outputs.
        name: the name of the set in a report.
        parts: the images of each part, as a slice or an array of positions.
        names: (N,) a name for each image, such as its file's; empty for images without names.
        groups: (N,) int64, equal for images that belong together (one object, one video), or None.
        group_names: the name of each group, by its number; empty for groups without names.
        picture_facts: (N,) what is known about each picture's file (`picture_facts.FACTS`), or None.
        source: where the images came from, and how they were read.
    """

    images: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    name: str = "images"
    parts: Mapping[str, slice | NDArray[np.int64]] = field(default_factory=dict)
    names: Sequence[str] = ()
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    picture_facts: NDArray[Any] | None = None
    source: Source = field(default_factory=Source)

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, place: int | np.integer[Any]) -> LabelledImage: ...
    @overload
    def __getitem__(self, place: slice | str | Sequence[int] | NDArray[Any]) -> "LabelledImages": ...
    def __getitem__(
        self, place: int | np.integer[Any] | slice | str | Sequence[int] | NDArray[Any]
    ) -> "LabelledImage | LabelledImages":
        if isinstance(place, str):
            return self.part(place)
        if isinstance(place, slice):
            return self.take(place)
        if np.ndim(place) == 0:
            number = operator.index(cast(SupportsIndex, place))
            if not -len(self) <= number < len(self):
                raise IndexError(f"image {number} of {len(self):,} images")  # ends `for` loops and `list(data)`
            return LabelledImage(np.asarray(self.images[number]), self.class_names[self.labels[number]])
        places = np.asarray(place)
        if places.ndim != 1:
            raise IndexError(f"positions must have the shape (N,), got {places.shape}")
        return self.take(np.arange(len(self))[places if len(places) else slice(0)])

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self[place] for place in range(len(self)))

    @property
    def train(self) -> "LabelledImages":
        """The training part; all images when there are no parts."""
        return self.part("train") if self.parts else self

    @property
    def validation(self) -> "LabelledImages":
        return self.part("validation")

    @property
    def test(self) -> "LabelledImages":
        return self.part("test")

    def part(self, name: str) -> "LabelledImages":
        return self.take(self._where(name), f"{self.name} ({name})")

    def take(self, positions: slice | NDArray[np.int64], name: str | None = None) -> "LabelledImages":
        """Some of the images, in the given order; no pixels are copied for a slice or for consecutive positions.

        Hashes that were already computed are passed on, so that no image is hashed twice.
        """
        positions = positions if isinstance(positions, slice) else as_slice(positions)
        taken = replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            name=name or self.name,
            parts={},
            names=_names(self.names, positions),
            groups=None if self.groups is None else self.groups[positions],
            picture_facts=None if self.picture_facts is None else self.picture_facts[positions],
            source=replace(self.source, spec=self.spec),
        )
        computed = vars(self)
        if "contents" in computed:
            vars(taken)["contents"] = self.contents[positions]
        if isinstance(positions, slice) and positions.indices(len(self)) == (0, len(self), 1):
            same = ("order",) if self.parts else ("order", "fingerprint")
            vars(taken).update({each: computed[each] for each in same if each in computed})
        return taken

    def positions(self, part: str) -> NDArray[np.int64]:
        """(M,) the positions of a part's images among all images."""
        where = self._where(part)
        return np.arange(len(self))[where] if isinstance(where, slice) else where

    def counts(self, part: str | None = None) -> NDArray[np.int64]:
        """(K,) the number of images of each class, in one part or in all; reads no pixels."""
        labels = self.labels if part is None else self.labels[self._where(part)]
        return np.bincount(labels, minlength=len(self.class_names))

    def sizes(self) -> dict[str, int]:
        """The number of images in each part; reads no pixels."""
        return {name: len(self.positions(name)) for name in self.parts}

    @cached_property
    def contents(self) -> NDArray[np.uint64]:
        """(N, 2) the `content_hashes` of the images."""
        return content_hashes(self.images)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(N,) positions in an order that depends on content alone: by label, then by hash of the pixels."""
        return _sorted(self.labels, self.contents)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels, labels and parts; equal for equal content, in any order and form."""
        part_of = np.zeros(len(self), np.uint64)
        for number, name in enumerate(sorted(self.parts), 1):
            part_of[self.parts[name]] = number
        rows = np.column_stack([part_of, self.labels.astype(np.uint64), self.contents])
        rows = rows[_sorted(part_of.astype(np.int64) * len(self.class_names) + self.labels, self.contents)]
        digest = hashlib.sha256(repr((self.images.shape[1:], sorted(self.parts))).encode())
        digest.update(np.ascontiguousarray(rows, "<u8").data)
        return digest.hexdigest()

    @cached_property
    def spec(self) -> ImageSpec:
        """The size and colours of the images."""
        return self.source.spec if self.source.spec is not None else ImageSpec.of(self.images)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "origin": self.source.origin,
            "images": len(self),
            "parts": self.sizes(),
            "classes": list(self.class_names),
            "image": self.spec.to_json(),
            "bytes": int(self.images.nbytes),
            "fingerprint": self.fingerprint,
            **({"description": self.source.description} if self.source.description else {}),
            **({"notes": list(self.source.notes)} if self.source.notes else {}),
            **({"skipped": [each.to_json() for each in self.source.skipped]} if self.source.skipped else {}),
        }

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {size:,}" for name, size in self.sizes().items())
        inside = f" ({parts})" if parts else ""
        return f"<{self.name}: {len(self):,} images{inside}, {len(self.class_names)} classes, {self.spec}>"

    def _repr_html_(self) -> str:
        from hangtag.html import render, thumbnail

        counts = {part: self.counts(part) for part in self.parts} or {"images": self.counts()}
        shown = self.positions("train") if "train" in self.parts else np.arange(len(self))
        rows = []
        for number, name in enumerate(self.class_names[:_CLASSES_SHOWN]):
            places = shown[np.flatnonzero(self.labels[shown] == number)[:_PICTURES_SHOWN]].tolist()
            pictures = [thumbnail(np.asarray(self.images[place]), 36) for place in places]
            rows.append((name, [int(count[number]) for count in counts.values()], pictures))
        left_out = len(self.class_names) - len(rows)
        return render("notebook_data.html", {"data": self, "counts": counts, "rows": rows, "left_out": left_out})

    def _where(self, part: str) -> slice | NDArray[np.int64]:
        if part not in self.parts:
            known = f"use one of its parts: {', '.join(self.parts)}" if self.parts else "it is not divided into parts"
            raise DataError(f"{self.name} has no '{part}' part", known)
        return self.parts[part]


def _sorted(groups: NDArray[np.int64], contents: NDArray[np.uint64]) -> NDArray[np.int64]:
    """(N,) positions by group, then by content; sorting by half of the hash and then by group is four times as fast."""
    first, last = contents.T
    order = np.argsort(first, kind="stable")
    if np.any((np.diff(first[order]) == 0) & (last[order][1:] < last[order][:-1])):
        order = np.lexsort((last, first))
    fits = len(groups) == 0 or groups.max() <= np.iinfo(np.uint16).max  # NumPy sorts these by radix
    return order[np.argsort(groups[order].astype(np.uint16 if fits else np.int64), kind="stable")].astype(np.int64)


def content_hashes(images: Images) -> NDArray[np.uint64]:
    """(N, 2) the first 128 bits of the BLAKE2b hash of each image's pixels."""
    hashes = bytearray()
    for start in range(0, len(images), _ROWS_AT_ONCE):
        for row in np.ascontiguousarray(images[start : start + _ROWS_AT_ONCE]):
            hashes += hashlib.blake2b(row.data, digest_size=16).digest()
        forget(images)
    return np.frombuffer(bytes(hashes), "<u8").reshape(-1, 2)


def from_arrays(
    images: object, labels: Sequence[Any] | NDArray[Any], name: str = "arrays", natural_order: bool = True,
    least_classes: int = 2,
) -> LabelledImages:  # fmt: skip
    """Arrays as labelled images; the sorted distinct labels become the classes.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8; numbers of other types are brought to 8 bits on one scale.
        labels: (N,) or (N, 1) of strings or whole numbers, gaps allowed.
        natural_order: join names that mean the same (see `class_names.py`), and sort them by the numbers in them
            ("class 2" before "class 10"), as for all other forms of data; False sorts them as `numpy.unique` and
            scikit-learn do, and joins none.
        least_classes: 1 for data that judges an existing model.

    Raises:
        PictureError: the images have the wrong shape or type.
        DataError: lengths differ, a label is missing, there are no images, or there is only one class.

    >>> from_arrays(np.zeros((4, 8, 8), np.uint8), ["cat", "dog", "cat", "dog"]).class_names
    ('cat', 'dog')
    """
    checked, spec = _checked(images)
    given = _label_array(labels)
    if len(given) != len(checked):
        raise DataError(
            f"{len(checked):,} images but {len(given):,} labels",
            "give exactly one label for each image, in the same order",
        )
    if not len(given):
        raise DataError("there are no images", "give at least two images of two classes")
    if given.dtype.kind == "f" and (not np.isfinite(given).all() or (given != np.rint(given)).any()):
        raise DataError("labels contain fractions or NaN", "labels must be names or whole numbers")
    classes, positions = np.unique(given, return_inverse=True)
    names, notes = tuple(str(value) for value in classes), list[str]()
    if natural_order:
        joined, notes = joined_names(names)
        if "" in joined:
            raise DataError("some labels are empty", "give every image a label, or leave it out")
        names = tuple(sorted(set(joined), key=natural))
        number = {name: index for index, name in enumerate(names)}
        positions = np.array([number[name] for name in joined])[positions]
    if len(names) < least_classes:
        raise DataError(f"there is only one class: {names[0]}", "a classifier needs images of at least two classes")
    source = Source(notes=tuple(notes), spec=spec)
    return LabelledImages(checked, positions.astype(np.int64), names, name, source=source)


def export_folder(data: LabelledImages, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write the images as lossless PNG files, folder/class/00000.png, numbered by position; returns their paths.

    Characters that file names cannot contain become hyphens: `T-shirt/top` is written to `T-shirt-top`.
    """
    paths = []
    make_own_folder(folder)
    class_folders = [folder / name for name in folder_names(data.class_names)]
    for each in class_folders:
        make_folder(each)
    for position, (image, label) in enumerate(zip(data.images, data.labels, strict=True)):
        path = class_folders[label] / f"{position:05d}.png"
        write_bytes(path, encode_png(image), sync=False)
        paths.append(path)
        if progress and (position % 100 == 0 or position + 1 == len(data)):
            progress("writing images", position + 1, len(data))
    return paths


def _checked(images: object) -> tuple[Images, ImageSpec | None]:
    """The images as uint8, and a spec with their scale if they were other numbers."""
    array = stacked(images)
    checked = check_images(array)
    if array.dtype == np.uint8 or not len(array):
        return checked, None
    is_float = array.dtype.kind == "f"
    return checked, ImageSpec.of(checked).with_levels(levels_of(measure(array), is_float), is_float)


def _names(names: Sequence[str], positions: slice | NDArray[np.int64]) -> Sequence[str]:
    if isinstance(positions, slice):
        return names[positions]
    return [names[position] for position in positions] if len(names) else ()


def _label_array(labels: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    """(N,) names or numbers; NumPy alone would turn a missing label among names into the name 'nan' or 'None'."""
    try:
        labels = one_column(labels)
        given = np.asarray(labels)
        given = np.asarray(given.tolist()) if given.dtype == object else given
    except ValueError:
        raise DataError("labels: rows differ in length", "give one label per image, not one-hot rows") from None
    if given.ndim != 1:
        hint = "not one-hot rows: labels.argmax(axis=1)" if given.ndim == 2 else "in a list or an array"
        raise DataError(f"labels: expected shape (N,), got {given.shape}", f"give one label per image, {hint}")
    if given.dtype.kind in "OSU" and not all(isinstance(label, str) for label in labels):
        kinds = ", ".join(sorted({type(label).__name__ for label in labels}))
        raise DataError(
            f"labels must be all names or all whole numbers, got {kinds}", "convert them, and fill in missing labels"
        )
    return given


def one_column(labels: Any) -> Any:
    """Labels of shape (N, 1), as Keras and data frames have them, as (N,); all others as they are."""
    shape: tuple[int, ...] = np.shape(labels)
    return np.asarray(labels)[:, 0] if len(shape) == 2 and shape[1] == 1 else labels


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder for each class; a number is appended where two names would be the same folder on some system."""
    folders: dict[str, str] = {}  # by the name in small letters
    for name in map(_file_name, class_names):
        free, number = name, 1
        while free.lower() in folders:
            number += 1
            free = f"{name}-{number}"
        folders[free.lower()] = free
    return list(folders.values())


def _file_name(class_name: str) -> str:
    name = re.sub(r'[/\\:*?"<>|\x00-\x1f]', "-", class_name).lstrip()
    if re.match(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|$)", name, re.IGNORECASE):
        name = f"-{name}"  # names of devices on Windows
    return short_name(name).rstrip(" .") or "-"
