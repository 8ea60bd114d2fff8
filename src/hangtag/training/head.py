"""A linear head on features: logistic regression (scikit-learn), its strength chosen by cross-validation."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hangtag.data.splits import in_order_of_appearance
from hangtag.model.calibration import log_softmax

__all__ = ["Head", "fit_head", "loss_and_accuracy"]

_FOLDS = 5
_STRENGTHS = tuple(10.0**power for power in range(-4, 2))
_TEMPERATURES = tuple(2.0**power for power in range(-3, 6))

Rows = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Head:
    """Logits = features (N, E) @ weight.T + bias.

    Attributes:
        weight: (K, E) float32.
        bias: (K,) float32.
        in_words: how it was found.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    in_words: str

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = features @ self.weight.T + self.bias
        return logits


def fit_head(
    views: Sequence[NDArray[np.float32]],
    labels: NDArray[np.int64],
    classes: int,
    weights: NDArray[np.float64],
    groups: NDArray[np.int64],
    seed: int,
) -> Head:
    """Fit a logistic regression with an L2 penalty to the features of images and of their mirror images.

    Args:
        views: (N, E) features of the images; and, as a second view, of their mirror images.
        labels: (N,) from 0 to `classes` - 1; a class may have no image.
        weights: (N,) of the images in the loss, with mean 1.
        groups: (N,) equal for images that are never on two sides of a fold.
        seed: of the folds.
    """
    mean, deviation = views[0].mean(axis=0), float(views[0].std()) or 1.0
    scaled = [((view - mean) / deviation).astype(np.float64) for view in views]
    basis = _basis(scaled)
    reduced = [view @ basis for view in scaled]
    best = _strength(reduced, labels, classes, weights, _folds(labels, groups, seed))
    weight, bias = _fitted(reduced, labels, classes, weights, best)
    weight = weight @ basis.T / deviation
    words = f"fitted a linear head to the features of {len(labels):,} images"
    return Head(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), words)


def loss_and_accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """The mean cross-entropy and the accuracy of logits (N, K)."""
    loss = -log_softmax(logits)[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def _basis(views: Sequence[Rows]) -> Rows:
    """(E, D) an orthonormal basis of the space that the rows span.

    A penalised linear model has the same solution in it, found faster: few images span few dimensions.
    """
    rows = np.concatenate(views)
    if len(rows) >= rows.shape[1]:
        return np.eye(rows.shape[1])
    basis: Rows = np.linalg.svd(rows, full_matrices=False)[2].T
    return basis


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """The positions of each fold, stratified by class; groups stay together."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = in_order_of_appearance(groups)
    count = min(_FOLDS, int(groups.max()) + 1)
    if count < 2:
        return []
    with warnings.catch_warnings():  # of a class with fewer images than folds
        warnings.simplefilter("ignore")
        split = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32).split(labels, labels, groups)
        return [fold for _, fold in split if len(fold)]


def _strength(
    views: Sequence[Rows],
    labels: NDArray[np.int64],
    classes: int,
    weights: NDArray[np.float64],
    folds: list[NDArray[np.int64]],
) -> float:
    """The inverse of the penalty with the smallest loss of images that a model was not fitted to."""
    losses = {}
    for strength in _STRENGTHS:
        logits = np.zeros((len(labels), classes))
        for fold in folds:
            rest = np.setdiff1d(np.arange(len(labels)), fold)
            weight, bias = _fitted([view[rest] for view in views], labels[rest], classes, weights[rest], strength)
            logits[fold] = views[0][fold] @ weight.T + bias
        own = [
            -np.average(log_softmax(factor * logits)[np.arange(len(labels)), labels], weights=weights)
            for factor in _TEMPERATURES
        ]
        losses[strength] = min(own)
    return min(losses, key=losses.__getitem__)


def _fitted(
    views: Sequence[Rows], labels: NDArray[np.int64], classes: int, weights: NDArray[np.float64], strength: float
) -> tuple[Rows, Rows]:
    """(K, D) weights and (K,) biases of a logistic regression; a class without images has the least bias of all."""
    from sklearn.linear_model import LogisticRegression

    rows, present = np.concatenate(views), np.unique(labels)
    weight, bias = np.zeros((classes, rows.shape[1])), np.zeros(classes)
    if len(present) > 1:
        model = LogisticRegression(C=strength / len(views), max_iter=300, tol=1e-3)
        with warnings.catch_warnings():  # of a fit that is not quite finished
            warnings.simplefilter("ignore")
            model.fit(rows, np.tile(labels, len(views)), np.tile(weights, len(views)))
        if len(present) == 2:  # one row of logits, of the second class
            weight[present], bias[present] = (
                np.outer([-0.5, 0.5], model.coef_[0]),
                model.intercept_[0] * np.array([-0.5, 0.5]),
            )
        else:
            weight[present], bias[present] = model.coef_, model.intercept_
    bias[np.setdiff1d(np.arange(classes), present)] = bias.min() - _NEVER
    return weight, bias


_NEVER = 10.0
