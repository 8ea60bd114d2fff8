"""Prediction sets with guaranteed coverage: split conformal prediction (Papadopoulos et al., 2002; Vovk et al., 2005).

For new images like the calibration images, at least the requested share of sets contains the true label. This module
does arithmetic on arrays of probabilities; it runs no model. The guarantee needs scores that were not fitted to the
calibration images' labels, so hangtag takes the network's probabilities before calibration: calibrated ones cost up to
0.7 points of coverage on Fashion-MNIST, and the sets are equally small (docs/log.md).

After a cross-validation, each score comes from the network of the fold that held its image out (cross-conformal
prediction: Vovk, 2015; CV+: Romano, Sesia & Candès, 2020). A label is in the set unless the scores that the folds give
it are above almost all of those. What is proven (`proven_coverage`) is less than the coverage asked for; in practice
the share of sets with the true label is close to it (benchmarks/cross_fit.py).

A label with a lower score fits better, and is in the set if its score is at most the threshold:

    threshold   -log p of the label, ordered as 1 - p (Sadinle, Lei & Wasserman, 2019): the smallest sets on average
    aps         the total probability of all labels at least as likely, itself included (Romano, Sesia & Candès, 2020)
    raps        aps plus a penalty for every label beyond the first (Angelopoulos et al., 2021): smaller sets than aps
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UnknownName, UsageError
from hangtag.model.calibration import Floats, check_probabilities
from hangtag.serializable import Serializable

__all__ = [
    "LEVELS",
    "METHODS",
    "MOST_SCORES",
    "Conformal",
    "calibrate",
    "calibrate_by_folds",
    "check_coverage",
    "highest_score",
    "needed",
    "proven_coverage",
    "scores_of",
    "threshold_at",
]

METHODS = ("threshold", "aps", "raps")
LEVELS = (
    *(round(0.5 + 0.01 * step, 3) for step in range(50)),
    *(round(0.99 + 0.001 * step, 3) for step in range(1, 10)),
)
"""Coverages with a stored threshold; a coverage between two of them uses the higher one."""

MOST_SCORES = 10_000
"""Images, at most, whose scores a file keeps for each method."""

_LEAST = float(np.finfo(np.float32).tiny)  # stands for a probability of 0
RAPS_PENALTY = 0.1  # for each label beyond the first; the paper tried 0.001 to 1

# Thresholds are above the scores by this much, so that equal scores stay in the set when another processor, version or
# batch size rounds float32 differently.
_MARGIN, _RELATIVE_MARGIN = 1e-6, 1e-4


def highest_score(classes: int) -> float:
    """No score or threshold is higher with this number of classes."""
    return max(-math.log(_LEAST), 1 + RAPS_PENALTY * classes) + 0.01


@dataclass(frozen=True)
class Conformal(Serializable):
    """Thresholds for prediction sets, from one calibration.

    Attributes:
        method: one of `METHODS`.
        images: number of calibration images.
        thresholds: one for each level; None if there were too few images for that coverage.
        fold_scores: of each fold, the scores of its images, ascending; empty without folds, or if their networks do not
            ship.
        levels: `LEVELS`, kept in the file.
    """

    method: str
    images: int
    thresholds: tuple[float | None, ...]
    fold_scores: tuple[tuple[float, ...], ...] = ()
    levels: tuple[float, ...] = LEVELS

    def __post_init__(self) -> None:
        if self.fold_scores and sum(map(len, self.fold_scores)) != self.images:
            raise ValueError(f"{self.method} scores must be those of {self.images:,} images")
        if self.method not in METHODS or self.levels != LEVELS or len(self.thresholds) != len(LEVELS):
            raise ValueError(f"{self.method} thresholds are for the coverage levels of another hangtag version")

    def level(self, coverage: float) -> float:
        """The stored level for this coverage: itself or the next higher one.

        Raises:
            UsageError: the coverage is not above 0 and below 1.
        """
        check_coverage(coverage)
        return next((level for level in LEVELS if level >= coverage - 1e-9), LEVELS[-1])

    def threshold(self, coverage: float) -> float | None:
        """The highest score of a label in the set; None if only the set of all labels has this coverage."""
        level = self.level(coverage)
        return None if coverage > LEVELS[-1] else self.thresholds[LEVELS.index(level)]

    def sets(self, probabilities: Floats, coverage: float, never_empty: bool = True) -> NDArray[np.bool_]:
        """(N, K) whether each label is in the image's prediction set; all are, if the threshold is None.

        Args:
            probabilities: (N, K), of the kind that the thresholds come from.
            coverage: target share of sets that contain the true label, above 0 and below 1.
            never_empty: always include the most probable label; otherwise sets may be empty if the model is correct
                more often than `coverage`. The coverage holds either way.
        """
        limit = self.threshold(coverage)
        if limit is None:
            return np.ones(probabilities.shape, bool)
        in_set: NDArray[np.bool_] = scores_of(probabilities, self.method) <= limit
        if never_empty:
            in_set[np.arange(len(in_set)), probabilities.argmax(axis=1)] = True
        return in_set

    def sets_by_folds(self, probabilities: Floats, coverage: float) -> NDArray[np.bool_]:
        """(N, K) whether each label is in the image's cross-conformal set, which may be empty.

        A label's p-value is (1 + the number of `fold_scores` that are at least as high as the label's score in the same
        fold) / (1 + their number); the label is in the set if it is above 1 - coverage.

        Args:
            probabilities: (N, F, K), of the networks of the F folds, before calibration.
            coverage: target share of sets that contain the true label, above 0 and below 1.
        """
        above = np.zeros((len(probabilities), probabilities.shape[2]), np.int64)
        for fold, ranked in enumerate(self.fold_scores):
            scores = scores_of(probabilities[:, fold], self.method)
            above += len(ranked) - np.searchsorted(np.array(ranked), scores, side="left")
        if self.threshold(coverage) is None:
            return np.ones(above.shape, bool)
        in_set: NDArray[np.bool_] = 1 + above > (1 - coverage) * (1 + self.images) + 1e-9
        return in_set


def calibrate_by_folds(
    probabilities: Floats, labels: NDArray[np.int64], folds: NDArray[np.int64], method: str = "threshold"
) -> Conformal:
    """Thresholds and scores from the images of a cross-validation.

    Args:
        probabilities: (N, K), each row of the network of the fold that held the image out.
        labels: (N,) indices of the true classes.
        folds: (N,) the fold of each image, from 0.

    Raises:
        UnknownName, DataError: as for `calibrate`.
    """
    pooled = calibrate(probabilities, labels, method)
    scores = _widened(scores_of(probabilities, method)[np.arange(len(labels)), labels], method)
    by_fold = (np.sort(scores[folds == fold]) for fold in range(int(folds.max()) + 1))
    return replace(pooled, fold_scores=tuple(tuple(np.round(each, 7).tolist()) for each in by_fold))


def calibrate(probabilities: Floats, labels: NDArray[np.int64], method: str = "threshold") -> Conformal:
    """Thresholds from held-out images.

    Args:
        probabilities: (N, K) of images that are used neither for training nor for evaluation nor for calibration.
        labels: (N,) indices of the true classes.

    Raises:
        UnknownName: no such method.
        DataError: values that are not probabilities.
    """
    check_probabilities(probabilities, labels)
    ranked = _widened(np.sort(scores_of(probabilities, method)[np.arange(len(labels)), labels]), method)
    return Conformal(method, len(labels), tuple(threshold_at(ranked, level) for level in LEVELS))


def _widened(scores: NDArray[np.float64], method: str) -> NDArray[np.float64]:
    """(N,) scores with their margins."""
    to_edge = np.minimum(scores, 1) if method == "threshold" else np.maximum(0, 1 - scores)
    widened: NDArray[np.float64] = scores + _MARGIN + _RELATIVE_MARGIN * to_edge
    return widened


def scores_of(probabilities: Floats, method: str) -> NDArray[np.float64]:
    """(N, K) the nonconformity score of each label; a lower score fits better.

    >>> scores_of(np.array([[0.7, 0.2, 0.1]]), "aps").round(6).tolist()
    [[0.7, 0.9, 1.0]]
    """
    if method not in METHODS:
        raise UnknownName.among("method", method, METHODS)
    wide = probabilities.astype(np.float64)
    if method == "threshold":
        return -np.log(np.maximum(wide, _LEAST))
    order = np.argsort(-wide, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(wide, order, axis=1), axis=1)
    if method == "raps":
        sums += RAPS_PENALTY * np.arange(wide.shape[1])
    scores = np.empty_like(wide)
    np.put_along_axis(scores, order, sums, axis=1)
    return scores


def threshold_at(ranked: NDArray[np.float64], coverage: float) -> float | None:
    """The ceil((n + 1) coverage)-th smallest of n scores; None if n is too small for one.

    >>> threshold_at(np.arange(1.0, 20.0), 0.9), threshold_at(np.arange(1.0, 9.0), 0.9)
    (18.0, None)
    """
    rank = math.ceil((len(ranked) + 1) * coverage - 1e-9)
    return float(ranked[rank - 1]) if rank <= len(ranked) else None


def needed(coverage: float) -> int:
    """The smallest number of calibration images for this coverage.

    >>> needed(0.95), needed(0.99)
    (19, 99)
    """
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def proven_coverage(coverage: float, images: int, folds: int) -> float:
    """The share of cross-conformal sets that contain the true label, at least, as far as it is proven.

    Romano, Sesia & Candès (2020), theorem 3, for equal folds of images that are exchangeable.

    >>> round(proven_coverage(0.95, 300, 5), 3)
    0.874
    """
    slack = min(2 * (1 - 1 / folds) / (images / folds + 1), (1 - folds / images) / (folds + 1))
    return max(0.0, 1 - 2 * (1 - coverage) - slack)


def check_coverage(coverage: float) -> None:
    """Raises UsageError unless the coverage is above 0 and below 1."""
    if not 0 < coverage < 1:
        raise UsageError(
            f"coverage must be above 0 and below 1, got {coverage:g}",
            "use a share such as 0.95; only the set of all labels always contains the true one",
        )
