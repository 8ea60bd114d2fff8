"""The split into training and validation images: stratified by class, determined by a seed and the content.

Test images are never used. Images of one group, and equal or nearly equal images, are never on both sides. Of equal
images of a class, validation holds one.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.near_duplicates import groups_of, near_pairs
from hangtag.data.store import cache
from hangtag.errors import DataError, UsageError
from hangtag.mapped import MappedRows
from hangtag.progress import Progress
from hangtag.words import amount, first_few

__all__ = [
    "BURST_NOTE", "BURST_SECONDS", "Split", "bursts", "fingerprint_of", "in_order_of_appearance", "kept_together",
    "merge_groups", "near_groups", "once", "split_of", "stratified",
]  # fmt: skip

BURST_SECONDS = 2
"""Between two photos of a burst; Exif data often has whole seconds only."""

BURST_NOTE = (
    f"photos of one class that were taken within {BURST_SECONDS} seconds of each other are held out together, because "
    "they often show one object; --group-by (in Python group_by) replaces this"
)

_MOST_COMPARED = 1_000_000
"""The largest set that is searched for nearly equal images before a split; a larger one would take an hour."""


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of the training and of the validation images, both in the order of their content.

    Attributes:
        given: whether the data came with a validation part, so that nothing was drawn.
        fingerprint: SHA-256 of the labels and content of the validation images; equal for equal images, in any form.
        folds: number of folds of a cross-validation; 0 for none. There are then no validation images.
        judged: number of images that were held out in one of them.
        notes: what a user should know about the split, in sentences.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    given: bool = False
    fingerprint: str = ""
    folds: int = 0
    judged: int = 0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        if self.folds:
            return f"<Split: {len(self.train):,} training images, {self.folds} folds>"
        return f"<Split: {len(self.train):,} training and {len(self.validation):,} validation images>"

    def to_json(self) -> dict[str, Any]:
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            **({"folds": self.folds, "judged": self.judged} if self.folds else {}),
            **({"given": True} if self.given else {}),
            **({"fingerprint": self.fingerprint} if self.fingerprint else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def split_of(data: LabelledImages, fraction: float, seed: int) -> tuple[LabelledImages, Split]:
    """The images for training and validation, and their split; a validation part of the data is used, if there is one.

    The split depends on the content of images, not on the order in which they were read. No image is copied if the
    parts of the data lie one after the other, as `read` arranges them.

    Args:
        fraction: the share of each class to hold out, for data without a validation part.

    Raises:
        DataError: no image can be held out.
    """
    if "validation" in data.parts and "train" in data.parts:
        train = data.positions("train")
        both = data.take(np.concatenate([train, data.positions("validation")]), f"{data.name} (train)")
        order = both.order
        held_out, repeated = once(both, order[order >= len(train)])
        notes = _repeated(repeated)
        return both, Split(order[order < len(train)], held_out, True, fingerprint_of(both, held_out), notes=notes)
    images = data.train
    order = images.order
    groups = kept_together(images) if fraction else None
    split = stratified(images.labels[order], fraction, seed, None if groups is None else groups[order])
    held_out, repeated = once(images, order[split.validation])
    if fraction and not len(held_out) and len(images):
        raise DataError(
            f"{images.name}: no image can be held out: each class has one image or one group of images",
            "add images, give a validation part, or hold nothing out: --set validation=0 (in Python validation=0)",
        )
    fingerprint = fingerprint_of(images, held_out) if len(held_out) else ""
    return images, Split(
        order[split.train], held_out, fingerprint=fingerprint, notes=(*_notes(images, held_out), *_repeated(repeated))
    )


def stratified(labels: NDArray[np.int64], fraction: float, seed: int, groups: NDArray[np.int64] | None = None) -> Split:
    """Hold out `fraction` of each class for validation; a class keeps at least one image (or group) to train on.

    Args:
        labels: (N,) int64.
        fraction: of each class, from 0 up to but not including 1; 0 holds out nothing.
        seed: the same seed and labels give the same split.
        groups: (N,) int64, equal for images that stay together; a group counts for the class of its first image. Only
            which images are together matters, not the numbers of the groups.

    >>> split = stratified(np.array([0] * 10 + [1] * 20), 0.1, seed=0)
    >>> len(split.train), len(split.validation)
    (27, 3)
    """
    if not 0 <= fraction < 1:
        raise UsageError(
            f"the validation fraction must be at least 0 and below 1, got {fraction}", "0.1 holds out a tenth"
        )
    random = np.random.default_rng(seed)
    if groups is None:
        firsts, group_of, sizes = np.arange(len(labels)), np.arange(len(labels)), np.ones(len(labels), np.int64)
    else:
        _, firsts, group_of, sizes = np.unique(
            in_order_of_appearance(groups), return_index=True, return_inverse=True, return_counts=True
        )
    label_of = labels[firsts]
    held_out = np.zeros(len(firsts), bool)
    for name in np.unique(labels):
        members = random.permutation(np.flatnonzero(label_of == name))
        images = int(sizes[members].sum())
        if not fraction or len(members) < 2:
            continue
        count = min(images - 1, max(1, round(images * fraction)))
        taken = np.cumsum(sizes[members]) <= count
        if not taken.any():
            taken[int(sizes[members].argmin())] = True  # every group is too large: take the smallest one
        held_out[members[taken][: len(members) - 1]] = True
    out = held_out[group_of]
    return Split(np.flatnonzero(~out), np.flatnonzero(out))


def in_order_of_appearance(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the same groups, numbered in the order in which they first appear.

    >>> in_order_of_appearance(np.array([7, 3, 7, 9])).tolist()
    [0, 1, 0, 2]
    """
    _, firsts, group_of = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[group_of.reshape(-1)].astype(np.int64)


def merge_groups(*groupings: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) groups in which images are together if they are in the same group of any grouping."""
    merged = np.arange(len(groupings[0]), dtype=np.int64)
    numbered = [np.unique(groups, return_inverse=True)[1] for groups in groupings]
    while True:
        before = merged
        for groups in numbered:
            least = np.full(int(groups.max(initial=-1)) + 1, len(merged), np.int64)
            np.minimum.at(least, groups, merged)
            merged = least[groups]
        if (merged == before).all():
            return merged


def near_groups(images: LabelledImages, progress: Progress | None = None) -> NDArray[np.int64] | None:
    """(N,) a number for each image, equal for nearly equal images; None for too many images to compare.

    A set is searched once; the result stays in the cache.
    """
    if len(images) > _MOST_COMPARED:
        return None
    in_order = cache.load_groups(images.fingerprint)
    if in_order is None:
        in_order = groups_of(len(images), near_pairs(MappedRows(images.images, images.order), progress))
        cache.save_groups(images.fingerprint, in_order)
    groups = np.empty(len(images), np.int64)
    groups[images.order] = in_order
    return groups


def kept_together(images: LabelledImages) -> NDArray[np.int64] | None:
    """The data's groups, merged with those of equal and nearly equal images; None if no two images are together.

    Without groups of the data, photos of one class that a camera took one right after another are together too.
    """
    contents = images.contents
    same = np.unique(contents[:, 0] ^ (contents[:, 1] << np.uint64(1)), return_inverse=True)[1]
    own = bursts(images) if images.groups is None else images.groups
    groupings = [each for each in (own, near_groups(images)) if each is not None]
    if same.max(initial=-1) + 1 < len(images):
        groupings.append(same)
    groups = merge_groups(*groupings) if groupings else None
    return groups if groups is not None and len(np.unique(groups)) < len(images) else None


def bursts(images: LabelledImages) -> NDArray[np.int64] | None:
    """(N,) a number for each image, equal for photos of one class that one model of camera took with at most
    `BURST_SECONDS` between two; None if there are none. Files say when they were taken in their Exif data.
    """
    facts = images.picture_facts
    if facts is None or not facts["taken"].any():
        return None
    taken, camera = facts["taken"], facts["camera"]
    order = np.lexsort((taken, camera, images.labels))
    alike = (
        (np.diff(camera[order].astype(np.int64)) == 0) & (np.diff(images.labels[order]) == 0) & (taken[order][1:] > 0)
    )
    near = alike & (taken[order][:-1] > 0) & (np.diff(taken[order]) <= 1000 * BURST_SECONDS)
    groups = np.empty(len(images), np.int64)
    groups[order] = np.append(0, np.cumsum(~near))
    return groups if near.any() else None


def once(images: LabelledImages, held_out: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The held-out images, each content of a class once, and how many were left out.

    Repeated images would make a few images look like many: intervals would be too narrow, and the calibration would be
    judged on images that it was fitted to.

    Args:
        held_out: positions in the order of `LabelledImages.order`, in which equal images of a class are neighbours.
    """
    rows = np.column_stack([images.labels[held_out].astype(np.uint64), images.contents[held_out]])
    first = np.append(True, (rows[1:] != rows[:-1]).any(axis=1))[: len(rows)]
    return held_out[first], int((~first).sum())


def fingerprint_of(images: LabelledImages, positions: NDArray[np.int64]) -> str:
    """SHA-256 of the labels and content of images, whose positions are in the order of their content."""
    rows = np.column_stack([images.labels[positions].astype(np.uint64), images.contents[positions]])
    return hashlib.sha256(np.ascontiguousarray(rows, "<u8").data).hexdigest()


def _repeated(count: int) -> tuple[str, ...]:
    left_out = amount(count, "repeated image")
    return (f"left {left_out} out of the validation images: equal images of a class count once",) if count else ()


def _notes(images: LabelledImages, held_out: NDArray[np.int64]) -> tuple[str, ...]:
    if not len(held_out):
        return ()
    counts = np.bincount(images.labels[held_out], minlength=len(images.class_names))
    missing = [name for name, count in zip(images.class_names, counts, strict=True) if not count]
    notes = []
    if images.groups is None and bursts(images) is not None:
        notes.append(BURST_NOTE)
    if missing:
        notes.append(f"no validation images of {first_few(missing)}: too few images, or all in one group")
    if len(images) > _MOST_COMPARED:
        notes.append(
            f"more than {_MOST_COMPARED:,} images: identical images stay on one side of the split, but nearly "
            "identical ones were not searched for; if there are many, keep them together with --group-by"
        )
    return tuple(notes)
