"""Sets of labels with a promised coverage: split conformal prediction (Vovk et al., 2005; Papadopoulos et al., 2002).

Of new pictures like those it was calibrated on, at least the promised share has its true label in its set. Arithmetic
on arrays of calibrated probabilities; it runs no model.

The score of a label is the smaller, the better it fits; a label is in the set if its score is at most the threshold:

    threshold   1 - p of the label (Sadinle, Lei & Wasserman, 2019): the smallest sets on average
    aps         the probability of all labels at least as likely (Romano, Sesia & Candès, 2020), itself included
    raps        aps with a penalty on every label beyond the first (Angelopoulos et al., 2021): smaller sets than aps
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UnknownName, UsageError
from hangtag.model.calibration import check_probabilities

__all__ = ["LEVELS", "METHODS", "Conformal", "calibrate", "check_coverage", "needed", "scores_of", "threshold_at"]

METHODS = ("threshold", "aps", "raps")
LEVELS = (
    *(round(0.5 + 0.01 * step, 3) for step in range(50)),
    *(round(0.99 + 0.001 * step, 3) for step in range(1, 10)),
)
"""Coverages whose thresholds are kept; for one between two of them the higher one is used."""

RAPS_PENALTY = 0.1  # on each label beyond the first; between those the paper used (0.001 to 1)

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Conformal:
    """Thresholds for sets of labels, from one calibration.

    Attributes:
        method: one of `METHODS`.
        images: how many calibrated it.
        thresholds: one for each of `LEVELS`; None where so few images can promise no such coverage.
    """

    method: str
    images: int
    thresholds: tuple[float | None, ...]

    def level(self, coverage: float) -> float:
        """The kept level that answers for this coverage: itself or the next higher one.

        Raises:
            UsageError: no share that sets could promise.
        """
        check_coverage(coverage)
        return next((level for level in LEVELS if level >= coverage - 1e-9), LEVELS[-1])

    def threshold(self, coverage: float) -> float | None:
        """What a label's score may be at most; None: no set but that of all labels can promise this coverage."""
        if coverage > LEVELS[-1]:
            check_coverage(coverage)
            return None
        return self.thresholds[LEVELS.index(self.level(coverage))]

    def sets(self, probabilities: Floats, coverage: float, never_empty: bool = True) -> NDArray[np.bool_]:
        """(N, K) whether a label is in a picture's set; all are, where the threshold is None.

        Args:
            probabilities: (N, K).
            coverage: the share of sets that shall hold the true label, above 0 and below 1.
            never_empty: the most probable label is always in; where the model is right more often than was promised,
                sets would else be empty. The promise is kept either way.
        """
        limit = self.threshold(coverage)
        if limit is None:
            return np.ones(probabilities.shape, bool)
        inside: NDArray[np.bool_] = scores_of(probabilities, self.method) <= limit
        if never_empty:
            inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
        return inside

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "images": self.images,
            "levels": list(LEVELS),
            "thresholds": list(self.thresholds),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Conformal":
        """Raises KeyError, TypeError or ValueError for what is no such table."""
        if value["method"] not in METHODS or tuple(value["levels"]) != LEVELS:
            raise ValueError(f"sets by {value['method']} at levels of another version")
        thresholds = tuple(None if limit is None else float(limit) for limit in value["thresholds"])
        if len(thresholds) != len(LEVELS):
            raise ValueError(f"{len(thresholds)} thresholds for {len(LEVELS)} levels")
        return cls(str(value["method"]), int(value["images"]), thresholds)


def calibrate(probabilities: Floats, labels: NDArray[np.int64], method: str = "threshold") -> Conformal:
    """Thresholds from held-out images.

    Args:
        probabilities: (N, K) calibrated, of images that neither trained nor judge.
        labels: (N,) their true classes.

    Raises:
        UnknownName: no such method.
        DataError: values that are no probabilities.
    """
    check_probabilities(probabilities, labels)
    of_truth = scores_of(probabilities, method)[np.arange(len(labels)), labels]
    ranked = np.sort(of_truth)
    return Conformal(method, len(labels), tuple(threshold_at(ranked, level) for level in LEVELS))


def scores_of(probabilities: Floats, method: str) -> NDArray[np.float64]:
    """(N, K) the score of each label; the lower, the better it fits.

    >>> scores_of(np.array([[0.7, 0.2, 0.1]]), "aps").round(6).tolist()
    [[0.7, 0.9, 1.0]]
    """
    if method not in METHODS:
        raise UnknownName.among("method", method, METHODS)
    wide = probabilities.astype(np.float64)
    if method == "threshold":
        rows: NDArray[np.float64] = 1 - wide
        return rows
    order = np.argsort(-wide, axis=1, kind="stable")
    sums = np.cumsum(np.take_along_axis(wide, order, axis=1), axis=1)
    if method == "raps":
        sums += RAPS_PENALTY * np.arange(wide.shape[1])
    found = np.empty_like(wide)
    np.put_along_axis(found, order, sums, axis=1)
    return found


def threshold_at(ranked: NDArray[np.float64], coverage: float) -> float | None:
    """The ceil((n + 1) coverage)-th smallest of n scores; None where n is too small for one.

    >>> threshold_at(np.arange(1.0, 20.0), 0.9), threshold_at(np.arange(1.0, 9.0), 0.9)
    (18.0, None)
    """
    rank = math.ceil((len(ranked) + 1) * coverage - 1e-9)
    return float(ranked[rank - 1]) if rank <= len(ranked) else None


def needed(coverage: float) -> int:
    """The fewest images that can promise this coverage.

    >>> needed(0.95), needed(0.99)
    (19, 99)
    """
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def check_coverage(coverage: float) -> None:
    """Raises UsageError for what no sets can promise."""
    if not 0 < coverage < 1:
        hint = "all labels together always hold the true one; ask for less than 1, such as 0.99"
        raise UsageError(
            f"a coverage of {coverage:g} cannot be promised",
            hint if coverage >= 1 else "it is a share above 0 and below 1, such as 0.95",
        )
