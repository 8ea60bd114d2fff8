"""The folds of a cross-validation: stratified by class, determined by a seed and the content.

Each image is held out in one fold and trained on in all others. Images of one group, and equal or nearly equal images,
are in one fold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import (
    BURST_NOTE,
    bursts,
    fingerprint_of,
    in_order_of_appearance,
    kept_together,
    merge_groups,
    once,
)
from hangtag.errors import DataError
from hangtag.words import amount, first_few

__all__ = ["FOLDS", "MOST_FOLDS", "Folds", "folds_of", "stratified_folds"]

FOLDS, MOST_FOLDS = 5, 100
"""The usual number of folds, and the largest."""


_SCENES = "photos of one class that seem to show one scene, such as those of a burst, and nearly equal images,"


@dataclass(frozen=True, eq=False)
class Folds:
    """The fold in which each of N images is held out.

    Attributes:
        count: number of folds.
        of: (N,) fold of each image, from 0; -1 for an image that is trained on in every fold.
        judged: (J,) positions of the held-out images in the order of their content, each content of a class once.
        groups: (J,) a number for each of these, equal for images that are kept together.
        fingerprint: SHA-256 of their labels and content; equal for equal images, in any form.
        notes: what a user should know about the folds, in sentences.
    """

    count: int
    of: NDArray[np.int64]
    judged: NDArray[np.int64]
    groups: NDArray[np.int64]
    fingerprint: str
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Folds: {self.count}, {len(self.judged):,} images held out once>"


def folds_of(images: LabelledImages, count: int, seed: int, scenes: NDArray[np.int64] | None = None) -> Folds:
    """Divide images into `count` folds, or fewer if no class has as many images or groups of images.

    The folds depend on the content of images, not on the order in which they were read.

    Args:
        scenes: (N,) a number for each image, equal for images that show one scene; None if that is not known.

    Raises:
        DataError: no image can be held out.
    """
    order = images.order
    groups = kept_together(images)
    if scenes is not None:
        groups = scenes if groups is None else merge_groups(groups, scenes)
    in_order = np.arange(len(images)) if groups is None else groups[order]
    fold = np.empty(len(images), np.int64)
    fold[order] = stratified_folds(images.labels[order], in_order, count, seed)
    held_out, repeated = once(images, order[fold[order] >= 0])
    if not len(held_out):
        raise DataError(
            f"{images.name}: no image can be held out: each class has one image or one group of images",
            "add images, or give a test part or a validation part",
        )
    counts = np.bincount(images.labels[held_out], minlength=len(images.class_names))
    present = images.counts()
    never = [name for name, n, all_ in zip(images.class_names, counts, present, strict=True) if all_ and not n]
    notes = []
    if never:
        notes.append(
            f"never judged: {first_few(never)}; a class with one image, or one group of images, cannot be held out"
        )
    if repeated:
        notes.append(
            f"left {amount(repeated, 'repeated image')} out of the judged images: equal images of a class count once"
        )
    _, together = np.unique((np.arange(len(images)) if groups is None else groups)[held_out], return_inverse=True)
    if together.max() + 1 < len(held_out):
        what = "nearly equal images" if images.groups is None else "images of a group, and nearly equal images,"
        instead = "" if scenes is None else "; --group-by (in Python group_by) replaces this"
        groups_of = f"{amount(len(held_out), 'image')} form {amount(int(together.max()) + 1, 'group')}"
        notes.append(f"{what if scenes is None else _SCENES} are in one fold: {groups_of}{instead}")
    if images.groups is None and bursts(images) is not None:
        notes.append(BURST_NOTE)
    return Folds(
        int(fold.max()) + 1, fold, held_out, together.reshape(-1).astype(np.int64), fingerprint_of(images, held_out),
        tuple(notes),
    )  # fmt: skip


def stratified_folds(labels: NDArray[np.int64], groups: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """(N,) the fold of each image, from 0; -1 for images without which a class could not be trained on.

    Args:
        labels: (N,) int64.
        groups: (N,) int64, equal for images that stay together; a group counts for the class of its first image.
        count: at most this many folds, each with at least one image.
        seed: the same seed, labels and groups give the same folds.

    >>> stratified_folds(np.array([0, 0, 0, 1, 1, 2]), np.arange(6), 5, seed=0).tolist()
    [2, 0, 1, 0, 1, -1]
    """
    random = np.random.default_rng(seed)
    _, firsts, group_of, sizes = np.unique(
        in_order_of_appearance(groups), return_index=True, return_inverse=True, return_counts=True
    )
    group_of, label_of = group_of.reshape(-1), labels[firsts]
    count = min(count, int(np.bincount(label_of).max()))
    fold, images = np.full(len(firsts), -1, np.int64), np.zeros(count, np.int64)
    for name in np.unique(label_of):
        members = random.permutation(np.flatnonzero(label_of == name))
        members = members[np.argsort(-sizes[members], kind="stable")]
        of_class = np.zeros(count, np.int64)
        for group in members if len(members) > 1 else ():
            least = int(np.lexsort((random.random(count), images, of_class))[0])
            fold[group] = least
            of_class[least] += sizes[group]
            images[least] += sizes[group]
    of = fold[group_of]
    while (lost := _only_there(labels, of, count)).any():
        fold[group_of[lost]] = -1
        of = fold[group_of]
    kept = np.unique(of[of >= 0])
    return np.where(of < 0, -1, np.searchsorted(kept, of)).astype(np.int64)


def _only_there(labels: NDArray[np.int64], fold: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """(N,) whether all images of an image's class are in its fold, so that the class could not be trained on."""
    table = np.zeros((int(labels.max(initial=0)) + 1, count), np.int64)
    held = fold >= 0
    np.add.at(table, (labels[held], fold[held]), 1)
    everywhere = np.bincount(labels, minlength=len(table))
    alone: NDArray[np.bool_] = held & (table[labels, fold.clip(0)] == everywhere[labels])
    return alone
