"""Which images train and which validate: stratified by class, decided by one seed and the content.

Test images are never touched. Pictures that belong together, the same picture among them, are never on both sides.
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

__all__ = ["Split", "by_appearance", "joined_groups", "near_groups", "split_of", "stratified"]

_MOST_COMPARED = 1_000_000
"""Images up to which nearly equal ones are looked for before a split; beyond, that would take an hour."""


@dataclass(frozen=True, eq=False)
class Split:
    """Positions of the training and of the validation images, both in the order of their content.

    Attributes:
        given: whether the data came divided so.
        fingerprint: SHA-256 of the labels and content of the validation images; equal for equal images, in any form.
        notes: what had to be decided, in sentences.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    given: bool = False
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "train": len(self.train),
            "validation": len(self.validation),
            **({"given": True} if self.given else {}),
            **({"fingerprint": self.fingerprint} if self.fingerprint else {}),
            **({"notes": list(self.notes)} if self.notes else {}),
        }


def split_of(data: LabelledImages, fraction: float, seed: int) -> tuple[LabelledImages, Split]:
    """The images that may train and validate, and which do what; a validation part that was given is used.

    Content alone decides, not the order in which images were read. Where the parts that were given lie one behind the
    other, as `read` puts them, no image is copied.

    Args:
        fraction: of each class to hold out, where no validation part was given.

    Raises:
        DataError: nothing can be held out.
    """
    if "validation" in data.parts and "train" in data.parts:
        trains = data.positions("train")
        both = data.take(np.concatenate([trains, data.positions("validation")]), f"{data.name} (train)")
        order = both.order
        held_out = order[order >= len(trains)]
        return both, Split(order[order < len(trains)], held_out, True, _fingerprint(both, held_out))
    images = data.train
    order = images.order
    groups = _together(images) if fraction else None
    found = stratified(images.labels[order], fraction, seed, None if groups is None else groups[order])
    held_out = order[found.validation]
    if fraction and not len(held_out) and len(images):
        raise DataError(
            f"{images.name}: no image can be held out: there is one of each class, or all of a class are one group",
            "add images, give a validation or test part, or hold nothing out: --set validation=0",
        )
    fingerprint = _fingerprint(images, held_out) if len(held_out) else ""
    return images, Split(order[found.train], held_out, fingerprint=fingerprint, notes=_notes(images, found, order))


def stratified(labels: NDArray[np.int64], fraction: float, seed: int, groups: NDArray[np.int64] | None = None) -> Split:
    """Hold out `fraction` of each class for validation; a class keeps at least one image (or group) to train on.

    Args:
        labels: (N,) int64.
        fraction: of each class, from 0 up to but not including 1; 0 holds out nothing.
        seed: the same seed and labels give the same split.
        groups: (N,) int64, equal for images that stay together; a group goes with the class of its first image. Where
            they stand decides, not their numbers.

    >>> split = stratified(np.array([0] * 10 + [1] * 20), 0.1, seed=0)
    >>> len(split.train), len(split.validation)
    (27, 3)
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"validation fraction {fraction} is out of range", "give at least 0 and less than 1")
    random = np.random.default_rng(seed)
    if groups is None:
        firsts, group_of, sizes = np.arange(len(labels)), np.arange(len(labels)), np.ones(len(labels), np.int64)
    else:
        _, firsts, group_of, sizes = np.unique(
            by_appearance(groups), return_index=True, return_inverse=True, return_counts=True
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
            taken[int(sizes[members].argmin())] = True  # every group is too large: the smallest one
        held_out[members[taken][: len(members) - 1]] = True
    out = held_out[group_of]
    return Split(np.flatnonzero(~out), np.flatnonzero(out))


def by_appearance(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the same groups, numbered in the order in which they first appear.

    >>> by_appearance(np.array([7, 3, 7, 9])).tolist()
    [0, 1, 0, 2]
    """
    _, firsts, group_of = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(firsts))[group_of.reshape(-1)].astype(np.int64)


def joined_groups(*groupings: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) groups such that images that share a group in any of the groupings share one here."""
    label = np.arange(len(groupings[0]), dtype=np.int64)
    numbered = [np.unique(groups, return_inverse=True)[1] for groups in groupings]
    while True:
        before = label
        for groups in numbered:
            least = np.full(int(groups.max(initial=-1)) + 1, len(label), np.int64)
            np.minimum.at(least, groups, label)
            label = least[groups]
        if (label == before).all():
            return label


def near_groups(images: LabelledImages, progress: Progress | None = None) -> NDArray[np.int64] | None:
    """(N,) a number for each image, equal for nearly the same pictures; None for too many images to compare.

    Looked for once for each set; kept in the cache.
    """
    if len(images) > _MOST_COMPARED:
        return None
    kept = cache.load_groups(images.fingerprint)
    if kept is None:
        found = groups_of(len(images), near_pairs(MappedRows(images.images, images.order), progress))
        cache.save_groups(images.fingerprint, found)
        kept = found
    groups = np.empty(len(images), np.int64)
    groups[images.order] = kept
    return groups


def _together(images: LabelledImages) -> NDArray[np.int64] | None:
    """Groups that were given, joined with those of (nearly) equal pictures; None where every image is on its own."""
    contents = images.contents
    same = np.unique(contents[:, 0] ^ (contents[:, 1] << np.uint64(1)), return_inverse=True)[1]
    near = near_groups(images)
    groupings = [each for each in (images.groups, near) if each is not None]
    if same.max(initial=-1) + 1 < len(images):
        groupings.append(same)
    groups = joined_groups(*groupings) if groupings else None
    return groups if groups is not None and len(np.unique(groups)) < len(images) else None


def _fingerprint(images: LabelledImages, positions: NDArray[np.int64]) -> str:
    """Of images in the order of their content."""
    rows = np.column_stack([images.labels[positions].astype(np.uint64), images.contents[positions]])
    return hashlib.sha256(np.ascontiguousarray(rows, "<u8").data).hexdigest()


def _notes(images: LabelledImages, found: Split, order: NDArray[np.int64]) -> tuple[str, ...]:
    if not len(found.validation):
        return ()
    labels = images.labels[order]
    counts = np.bincount(labels[found.validation], minlength=len(images.class_names))
    missing = [name for name, count in zip(images.class_names, counts, strict=True) if not count]
    notes = []
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        notes.append(f"no validation images of {', '.join(missing[:5])}{more}: too few images, or all of one group")
    if len(images) > _MOST_COMPARED:
        notes.append(
            f"more than {_MOST_COMPARED:,} images: equal pictures were kept on one side, nearly equal ones were not "
            "looked for; keep them together with --group-by if there are many"
        )
    return tuple(notes)
