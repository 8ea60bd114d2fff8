"""Whether a picture is like nothing the network learned from: a score, fitted once, computed in the model file.

Two things are strange about a strange picture: its descriptor lies far from that of every class (Mahalanobis distance
to the nearest class mean, one covariance for all: Lee et al., 2018), and no logit is large (maximum logit: Hendrycks et
al., 2022). Each is measured in standard deviations of held-out pictures; their sum won over each alone, the maximum
probability, the energy (Liu et al., 2020) and nearest neighbours (Sun et al., 2022): docs/log.md. What is reported is
the share of held-out pictures that are less strange, so that a limit of 0.95 alarms falsely on 5 of 100.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError

__all__ = ["OodDetector", "fit_ood_detector"]

_MOST_QUANTILES = 1000

Floats = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class OodDetector:
    """What is familiar, as arrays for the graph; all float32.

    Attributes:
        projection: (D, D) that makes the spread of each class round; distances are then in standard deviations of those
            of held-out pictures.
        offset: (D,) minus the centre of all classes, projected.
        classes: (D, K) class means from the centre, projected, times -2.
        lengths: (K,) their squared lengths.
        weak: 1 / standard deviation of the largest logit.
        quantiles: (Q,) scores of held-out pictures, ascending.
    """

    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    classes: NDArray[np.float32]
    lengths: NDArray[np.float32]
    weak: float
    quantiles: NDArray[np.float32]

    def distance(self, descriptor: Floats) -> NDArray[np.float32]:
        """(N,) Mahalanobis distance to the nearest class mean, in standard deviations of held-out pictures."""
        placed = descriptor.astype(np.float32) @ self.projection + self.offset
        squares = (placed * placed).sum(axis=1, keepdims=True) + (placed @ self.classes + self.lengths)
        found: NDArray[np.float32] = np.sqrt(np.maximum(squares.min(axis=1), 0))
        return found

    def score(self, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) how strange, in standard deviations of two things added up."""
        found: NDArray[np.float32] = (self.distance(descriptor) - self.weak * logits.max(axis=1)).astype(np.float32)
        return found

    def ood_score(self, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) the share of held-out pictures that are less strange, 0 up to Q / (Q + 1)."""
        below = np.searchsorted(self.quantiles, self.score(descriptor, logits), side="left")
        found: NDArray[np.float32] = (below / (len(self.quantiles) + 1)).astype(np.float32)
        return found


def fit_ood_detector(
    descriptor: Floats, labels: NDArray[np.int64], held_out_descriptor: Floats, held_out_logits: Floats
) -> OodDetector:
    """What training pictures look like, and how strange held-out ones are beside them.

    Args:
        descriptor: (N, D) of training pictures.
        labels: (N,) their classes.
        held_out_descriptor, held_out_logits: (M, D) and (M, K) of pictures that did not train.

    Raises:
        DataError: no held-out pictures, or values that are not finite.
    """
    from sklearn.covariance import ledoit_wolf

    if not len(held_out_logits) or not len(descriptor):
        raise DataError("there are no held-out images", "hold some out: --set validation=0.1")
    if not all(np.isfinite(each).all() for each in (descriptor, held_out_descriptor, held_out_logits)):
        raise DataError("the network's features hold values that are not finite", "the model did not train")
    wide = descriptor.astype(np.float64)
    spread = wide.std(axis=0)
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0.0)
    wide = wide * scale
    present = np.unique(labels)
    means = np.stack([wide[labels == label].mean(axis=0) for label in present])
    covariance, _ = ledoit_wolf(wide - means[np.searchsorted(present, labels)], assume_centered=True)
    covariance += 1e-6 * max(float(np.trace(covariance)) / len(covariance), 1e-6) * np.eye(len(covariance))
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
    centre = means.mean(axis=0)
    projection, classes = scale[:, None] * whitening, (means - centre) @ whitening

    def measured_in(unit: float, weak: float) -> OodDetector:
        return OodDetector(
            projection=(projection / unit).astype(np.float32),
            offset=(-centre @ whitening / unit).astype(np.float32),
            classes=(-2 * classes.T / unit).astype(np.float32),
            lengths=((classes / unit) ** 2).sum(axis=1).astype(np.float32),
            weak=weak,
            quantiles=np.zeros(0, np.float32),
        )

    distance, best = measured_in(1.0, 0.0).distance(held_out_descriptor), held_out_logits.max(axis=1)
    ood_detector = measured_in(max(float(distance.std()), 1e-6), 1 / max(float(best.std()), 1e-6))
    scores = np.sort(ood_detector.score(held_out_descriptor, held_out_logits))
    if len(scores) > _MOST_QUANTILES:
        at = (np.arange(1, _MOST_QUANTILES + 1) * (len(scores) + 1) / (_MOST_QUANTILES + 1)).round().astype(np.int64)
        scores = scores[np.clip(at - 1, 0, len(scores) - 1)]
    return replace(ood_detector, quantiles=scores.astype(np.float32))
