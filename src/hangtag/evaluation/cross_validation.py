"""`cross_validation.npz` of a run folder: what networks that had not seen an image answered for it.

The model file of such a run was trained on all images, so it cannot be judged on them again; these answers judge it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import DataError, RunError
from hangtag.model.artifact import OUTPUT
from hangtag.model.guarantees import Guarantees
from hangtag.npz import Limits, read_npz, write_npz

__all__ = ["FILE", "PART", "CrossValidation", "as_held_out", "read_cross_validation", "write_cross_validation"]

FILE = "cross_validation.npz"
PART = "cross-validation"
"""What the images of a cross-validation are called where others are called "test" or "validation"."""

_MOST_IMAGES, _MOST_CLASSES, _MOST_FOLDS = 10_000_000, 100_000, 1000
_HINT = "restore the file, or judge the model on images that it has not seen: hangtag evaluate RUN DATA"


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The answers to J training images, each from a network that was trained without it.

    Attributes:
        ranks: (J,) positions of the images in the order of content of the training images (`LabelledImages.order`).
        folds: (J,) the fold that held each image out, from 0.
        groups: (J,) equal for images that belong together.
        outputs: (J, ...) float32 each, as of a model file: `OUTPUT`, "uncalibrated" and "ood_score".
    """

    ranks: NDArray[np.int64]
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]
    outputs: dict[str, NDArray[np.float32]]

    def __repr__(self) -> str:
        return f"<CrossValidation: {self.count} folds, {len(self.ranks):,} images>"

    @property
    def count(self) -> int:
        """Number of folds."""
        return len(np.unique(self.folds))

    def images_of(self, train: LabelledImages) -> LabelledImages:
        """The J images, among all training images; raises DataError if there are too few."""
        if len(self.ranks) and int(self.ranks.max()) >= len(train):
            raise DataError(f"{train.name} has only {len(train):,} images; {FILE} has answers to more", _HINT)
        return train.take(train.order[self.ranks])


def as_held_out(
    outputs: Mapping[str, NDArray[np.float32]], folds: NDArray[np.int64], guarantees: Guarantees
) -> dict[str, NDArray[np.float32]]:
    """Outputs for training images in which the answers come from the networks of the folds that held the images out.

    Args:
        outputs: (N, ...) of a model file, "fold_uncalibrated" among them; the images may be changed ones.
        folds: (N,) the fold that held each image out.

    Raises:
        RunError: the model has no network of such a fold.
    """
    if folds.max(initial=0) >= outputs["fold_uncalibrated"].shape[1]:
        raise RunError(f"{FILE} does not belong to this model: it has more folds", _HINT)
    own = outputs["fold_uncalibrated"][np.arange(len(folds)), folds]
    logs = np.log(np.maximum(own, np.finfo(np.float32).tiny))
    rest = {name: rows for name, rows in outputs.items() if name != "fold_uncalibrated"}
    return {**rest, OUTPUT: guarantees.calibrator(logs).astype(np.float32), "uncalibrated": own}


def write_cross_validation(folder: Path, result: CrossValidation) -> None:
    """Save to a run folder; raises SaveError if it cannot be written."""
    arrays = {"ranks": result.ranks, "folds": result.folds, "groups": result.groups}
    write_npz(folder / FILE, {**arrays, **result.outputs})


def read_cross_validation(folder: Path, classes: int) -> CrossValidation:
    """What was saved in a run folder; nothing in the file is trusted.

    Args:
        classes: number of classes of the model.

    Raises:
        RunError: the file is missing, damaged, or belongs to another model.
    """
    path = folder / FILE
    if not path.is_file():
        raise RunError(f"{folder}: {FILE} is missing; the model was trained on all images, so only it can judge", _HINT)
    numbers, shares = Limits(np.int64, (_MOST_IMAGES,)), Limits(np.float32, (_MOST_IMAGES, _MOST_CLASSES))
    limits = dict.fromkeys(("ranks", "folds", "groups"), numbers) | dict.fromkeys((OUTPUT, "uncalibrated"), shares)
    rows = read_npz(path, limits | {"ood_score": Limits(np.float32, (_MOST_IMAGES,))}, _HINT)
    ranks, folds, groups = (rows.pop(name) for name in ("ranks", "folds", "groups"))
    lengths = {len(each) for each in (ranks, folds, groups, *rows.values())}
    are_shares = all(
        rows[name].shape[1:] == (classes,)
        and np.isfinite(rows[name]).all()
        and rows[name].min(initial=0) >= 0
        and np.allclose(rows[name].sum(axis=1), 1, atol=1e-3)
        for name in (OUTPUT, "uncalibrated")
    )
    scores = rows["ood_score"]
    are_positions = len(ranks) and min(ranks.min(), folds.min(), groups.min()) >= 0 and folds.max() < _MOST_FOLDS
    if len(lengths) > 1 or not are_shares or not are_positions or not ((scores >= 0) & (scores <= 1)).all():
        raise RunError(f"{path}: does not belong to this model", _HINT)
    if len(np.unique(ranks)) < len(ranks):
        raise RunError(f"{path}: damaged: an image has two answers", _HINT)
    return CrossValidation(ranks, folds, groups, rows)
