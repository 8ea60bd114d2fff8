"""Does an image look like the training images of its class, or like turned training images that pass for this class?

A network that was trained to tell classes apart cares little which way up an image is, so that it may be certain that a
shirt on its side is a bag. Yet its features can tell the two apart: for each class, a logistic regression separates
training images that the network takes for the class from those that it takes for the class after a quarter or half
turn. Turned images as substitutes for unfamiliar ones are an idea of Golan and
El-Yaniv (2018, "Deep anomaly detection using geometric transformations") and Hendrycks et al. (2019, "Using
self-supervised learning can improve model robustness and uncertainty").

Where turned images look like training images, as bags upside down do, the regression finds nothing, and they stay
familiar. Images that are strange in other ways are found more often, too (docs/log.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hangtag.model.calibration import Floats, softmax
from hangtag.pictures import Images, ImageSpec
from hangtag.resize import Sizer

__all__ = ["TurnedOdds", "fit_turned_odds", "turned_images"]

_STRENGTH = 1.0  # inverse weight of the squared coefficients, of features in standard deviations; docs/log.md
_MIN_DEVIATION = 1e-6  # of features
_TOLERANCE = 1e-3  # relative gain of a step after which the fit ends: 1e-9 takes four times as long for nothing
_MOST_STEPS = 100


@dataclass(frozen=True, eq=False)
class TurnedOdds:
    """Logistic regressions, one for each class, as float32 values for the graph.

    Attributes:
        weights: (D, K) of features, for each class.
        bias: (K,).
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def log_odds(self, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) how much more likely images are turned ones, from their (N, D) features; the mean over classes, weighted
        by the probabilities that follow from their (N, K) logits."""
        by_class = descriptor.astype(np.float32) @ self.weights + self.bias
        odds: NDArray[np.float32] = (softmax(logits).astype(np.float32) * by_class).sum(axis=1)
        return odds

    def scaled(self, scale: float, shift: float) -> "TurnedOdds":
        """The same with log odds in other units, because the weights of the classes sum to 1."""
        return TurnedOdds(
            (self.weights * np.float32(scale)).astype(np.float32),
            (self.bias * np.float32(scale) + np.float32(shift)).astype(np.float32),
        )


def turned_images(images: Images, spec: ImageSpec) -> Images:
    """(N, H, W[, 3]) images turned to the left, upside down, to the right, to the left ..., in the model's size."""
    size, turned = Sizer(spec), np.empty_like(images)
    for place, image in enumerate(images):
        turned[place] = size(np.ascontiguousarray(np.rot90(image, 1 + place % 3)))
    return turned


def fit_turned_odds(descriptor: Floats, logits: Floats, turned: Floats, turned_logits: Floats) -> TurnedOdds:
    """Fit to features (N, D) and logits (N, K) of training images, and to those of turned ones."""
    from scipy.optimize import minimize

    features = np.concatenate([descriptor, turned]).astype(np.float64)
    side = np.where(np.arange(len(features)) < len(descriptor), -1.0, 1.0)
    answers = np.concatenate([logits, turned_logits]).argmax(axis=1)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + _MIN_DEVIATION
    placed = np.column_stack([(features - mean) / deviation, np.ones(len(features))])
    weights = np.zeros((features.shape[1], logits.shape[1]))
    bias = np.zeros(logits.shape[1])
    for label in np.unique(answers):
        rows, signs = placed[answers == label], side[answers == label]

        def loss(line: NDArray[np.float64], rows: Floats = rows, signs: Floats = signs) -> tuple[float, Floats]:
            margins = signs * (rows @ line)
            slopes = -signs * np.exp(-np.logaddexp(0, margins))
            penalty = float(line @ line) / (2 * _STRENGTH)
            return float(np.logaddexp(0, -margins).sum()) + penalty, rows.T @ slopes + line / _STRENGTH

        start, steps = np.zeros(rows.shape[1]), {"maxiter": _MOST_STEPS, "ftol": _TOLERANCE}
        line = minimize(loss, start, jac=True, method="L-BFGS-B", options=steps).x
        weights[:, label] = line[:-1] / deviation
        bias[label] = line[-1] - line[:-1] @ (mean / deviation)
    return TurnedOdds(weights.astype(np.float32), bias.astype(np.float32))
