"""`LabelledImages`: images, one label each, the parts they came divided into, and where each came from.

Also what has the same content has the same order and fingerprint here, in whatever form it was read.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import Skipped
from hangtag.errors import DataError
from hangtag.files import make_folder, write_bytes
from hangtag.mapped import as_slice, forget
from hangtag.pictures import Images, ImageSpec, check_images, encode_png
from hangtag.progress import Progress
from hangtag.words import natural

__all__ = ["PARTS", "LabelledImages", "export_folder", "from_arrays"]

PARTS = ("train", "validation", "test")
"""The parts data may come divided into, in the order in which they lie in memory."""

_AT_A_TIME = 10_000  # rows hashed before their memory is given back


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
        names: (N,) a name for each picture, such as its file's; empty where there are none.
        groups: (N,) int64, equal for pictures that belong together (one object, one video), or None.
        group_names: the name of each group, by its number; empty where there are none.
        skipped: what was set aside while reading, with reasons.
        notes: what had to be decided or changed while reading, in sentences.
        understood: how the source was understood, as one sentence; "" for what needed no understanding.
        facts: (N,) what is known about each picture's file (`decoder.FACTS`), or None.
        made_with: the spec the pictures were brought to; None takes it from the images.
    """

    images: Images
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    name: str = "images"
    origin: str = "memory"
    parts: Mapping[str, slice | NDArray[np.int64]] = field(default_factory=dict)
    names: Sequence[str] = ()
    groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    understood: str = ""
    facts: NDArray[Any] | None = None
    made_with: ImageSpec | None = None

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
        return self.take(self._where(name), f"{self.name} ({name})")

    def take(self, positions: slice | NDArray[np.int64], name: str | None = None) -> "LabelledImages":
        """Some of the images, in the given order; a slice, or positions in a row, copy nothing."""
        positions = positions if isinstance(positions, slice) else as_slice(positions)
        return replace(
            self,
            images=self.images[positions],
            labels=self.labels[positions],
            name=name or self.name,
            parts={},
            names=_names(self.names, positions),
            groups=None if self.groups is None else self.groups[positions],
            facts=None if self.facts is None else self.facts[positions],
            made_with=self.spec,
        )

    def positions(self, part: str) -> NDArray[np.int64]:
        """(M,) where a part's images are among all."""
        found = self._where(part)
        return np.arange(len(self))[found] if isinstance(found, slice) else found

    def counts(self, part: str | None = None) -> NDArray[np.int64]:
        """(K,) images of each class, of a part or of all; no image is looked at."""
        labels = self.labels if part is None else self.labels[self._where(part)]
        return np.bincount(labels, minlength=len(self.class_names))

    def sizes(self) -> dict[str, int]:
        """How many images each part has; no image is looked at."""
        return {name: len(self.positions(name)) for name in self.parts}

    @cached_property
    def contents(self) -> NDArray[np.uint64]:
        """(N, 2) the first 128 bits of the BLAKE2b hash of each image's pixels."""
        found = bytearray()
        for start in range(0, len(self.images), _AT_A_TIME):
            rows = np.ascontiguousarray(self.images[start : start + _AT_A_TIME])
            for row in rows:
                found += hashlib.blake2b(row.data, digest_size=16).digest()
            forget(self.images)
        return np.frombuffer(bytes(found), "<u8").reshape(-1, 2)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(N,) positions in an order that content alone decides: by label, then by hash of the pixels."""
        return np.lexsort((self.contents[:, 1], self.contents[:, 0], self.labels)).astype(np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels, labels and parts; equal for equal content, in any order and form."""
        part_of = np.zeros(len(self), np.uint64)
        for number, name in enumerate(sorted(self.parts), 1):
            part_of[self.parts[name]] = number
        rows = np.column_stack([part_of, self.labels.astype(np.uint64), self.contents])
        rows = rows[np.lexsort(rows.T[::-1])]
        said = repr((self.images.shape[1:], sorted(self.parts)))
        digest = hashlib.sha256(said.encode())
        digest.update(np.ascontiguousarray(rows, "<u8").data)
        return digest.hexdigest()

    @cached_property
    def spec(self) -> ImageSpec:
        return self.made_with if self.made_with is not None else ImageSpec.of(self.images)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "origin": self.origin,
            "images": len(self),
            "parts": self.sizes(),
            "classes": list(self.class_names),
            "image": self.spec.to_json(),
            "bytes": int(self.images.nbytes),
            "fingerprint": self.fingerprint,
            **({"understood": self.understood} if self.understood else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
            **({"skipped": [each.to_json() for each in self.skipped]} if self.skipped else {}),
        }

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {size:,}" for name, size in self.sizes().items())
        inside = f" ({parts})" if parts else ""
        return f"<{self.name}: {len(self):,} images{inside}, {len(self.class_names)} classes, {self.spec}>"

    def _where(self, part: str) -> slice | NDArray[np.int64]:
        if part not in self.parts:
            has = f"it has {', '.join(self.parts)}" if self.parts else "it is not divided"
            raise DataError(f"{self.name} has no '{part}' part", f"{has}; use the parts there are")
        return self.parts[part]


def from_arrays(
    images: object, labels: Sequence[Any] | NDArray[Any], name: str = "arrays", natural_order: bool = True
) -> LabelledImages:
    """Arrays as labelled images; the sorted distinct labels become the classes.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) of strings or whole numbers, gaps allowed.
        natural_order: sort names by the numbers in them ("class 2" before "class 10"), as all other forms of data
            do; False sorts them as text, as `numpy.unique` and scikit-learn do.

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
    if natural_order and given.dtype.kind in "OSU":
        order = sorted(range(len(classes)), key=lambda index: natural(str(classes[index])))
        classes, positions = classes[order], np.argsort(order)[positions]
    if len(classes) < 2:
        raise DataError(
            f"there is only one class: {classes[0]!s}", "a classifier needs pictures of at least two classes"
        )
    return LabelledImages(checked, positions.astype(np.int64), tuple(str(value) for value in classes), name)


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


def _names(names: Sequence[str], positions: slice | NDArray[np.int64]) -> Sequence[str]:
    if not len(names) or isinstance(positions, slice):
        return names[positions] if isinstance(positions, slice) else ()
    return [names[position] for position in positions]


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
