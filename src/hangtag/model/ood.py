"""Out-of-distribution (OOD) detection: a score that is fitted once and computed in the model file.

The raw score adds two measures, each in standard deviations of held-out images: the Mahalanobis distance of the
network's features to the nearest class mean, with one covariance for all classes (Lee et al., 2018), and the negative
maximum logit (Hendrycks et al., 2022). In our experiments (docs/log.md) the sum did better than either measure alone,
and better than the maximum probability, the energy (Liu et al., 2020) and nearest neighbours (Sun et al., 2022).

The reported OOD score is the share of held-out images with a lower raw score, so that a limit of 0.95 flags 5 of 100
in-distribution images.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError
from hangtag.model.calibration import Floats

__all__ = ["OodDetector", "fit_ood_detector"]

_MAX_QUANTILES = 1000


@dataclass(frozen=True, eq=False)
class OodDetector:
    """The distribution of training features, as float32 arrays for the graph.

    Attributes:
        projection: (D, D) whitens the features within classes; distances are then in standard deviations of those of
            held-out images.
        offset: (D,) minus the projected centre of all classes.
        classes: (D, K) projected class means relative to the centre, times -2.
        lengths: (K,) squared lengths of the projected class means.
        weak: 1 / standard deviation of the maximum logit.
        quantiles: (Q,) raw scores of held-out images, ascending.
    """

    projection: NDArray[np.float32]
    offset: NDArray[np.float32]
    classes: NDArray[np.float32]
    lengths: NDArray[np.float32]
    weak: float
    quantiles: NDArray[np.float32]

    def distance(self, descriptor: Floats) -> NDArray[np.float32]:
        """(N,) Mahalanobis distance of (N, D) features to the nearest class mean."""
        placed = descriptor.astype(np.float32) @ self.projection + self.offset
        squares = (placed * placed).sum(axis=1, keepdims=True) + (placed @ self.classes + self.lengths)
        distances: NDArray[np.float32] = np.sqrt(np.maximum(squares.min(axis=1), 0))
        return distances

    def score(self, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) raw scores of (N, D) features and (N, K) logits; higher is further from the training images."""
        scores: NDArray[np.float32] = (self.distance(descriptor) - self.weak * logits.max(axis=1)).astype(np.float32)
        return scores

    def ood_score(self, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) the share of held-out images with a lower raw score, from 0 to Q / (Q + 1)."""
        below = np.searchsorted(self.quantiles, self.score(descriptor, logits), side="left")
        shares: NDArray[np.float32] = (below / (len(self.quantiles) + 1)).astype(np.float32)
        return shares


def fit_ood_detector(
    descriptor: Floats, labels: NDArray[np.int64], held_out_descriptor: Floats, held_out_logits: Floats
) -> OodDetector:
    """Fit a detector to training features, and its quantiles to held-out images.

    Args:
        descriptor: (N, D) features of training images.
        labels: (N,) indices of their classes.
        held_out_descriptor: (M, D) features of images the network was not trained on.
        held_out_logits: (M, K) their logits.

    Raises:
        DataError: no held-out images, or values that are not finite.
    """
    from sklearn.covariance import ledoit_wolf

    if not len(held_out_logits) or not len(descriptor):
        raise DataError("there are no held-out images", "hold some out: --set validation=0.1")
    if not all(np.isfinite(each).all() for each in (descriptor, held_out_descriptor, held_out_logits)):
        raise DataError("the network's features contain NaN or infinity", "training failed; lower the learning rate")
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

    distance, max_logit = measured_in(1.0, 0.0).distance(held_out_descriptor), held_out_logits.max(axis=1)
    ood_detector = measured_in(max(float(distance.std()), 1e-6), 1 / max(float(max_logit.std()), 1e-6))
    scores = np.sort(ood_detector.score(held_out_descriptor, held_out_logits))
    if len(scores) > _MAX_QUANTILES:
        at = (np.arange(1, _MAX_QUANTILES + 1) * (len(scores) + 1) / (_MAX_QUANTILES + 1)).round().astype(np.int64)
        scores = scores[np.clip(at - 1, 0, len(scores) - 1)]
    return replace(ood_detector, quantiles=scores.astype(np.float32))
