"""A linear head on features: logistic regression (scikit-learn), its strength chosen by cross-validation."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.splits import in_order_of_appearance
from hangtag.model.calibration import log_softmax

__all__ = ["Head", "fit_head", "loss_and_accuracy"]

_FOLDS = 5
_MANY = 10_000  # images, from which one fold and fewer iterations are enough
_ITERATIONS = {False: 300, True: 60}
_STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0)
_FACTORS = tuple(2.0 ** (power / 2) for power in range(-6, 13))
_WORSE = 1.05  # times the least loss, from which larger strengths are not tried
_NEVER = 10.0  # how much smaller the logits of a class without images are

Rows = NDArray[np.float32]


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
    scaled = [(view - mean) / np.float32(deviation) for view in views]
    basis = _basis(scaled)
    reduced = scaled if basis is None else [view @ basis for view in scaled]
    strength, factor = _chosen(reduced[0], labels, classes, weights, _folds(labels, groups, seed))
    rows, every = np.concatenate(reduced), len(reduced)
    final = _Regression(classes).fit(rows, np.tile(labels, every), np.tile(weights, every), strength / every)
    weight = final.weight if basis is None else final.weight @ basis.T
    weight, bias = factor * weight / deviation, factor * final.bias
    words = f"fitted a linear head to the features of {len(labels):,} images"
    return Head(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), words)


def loss_and_accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """The mean cross-entropy and the accuracy of logits (N, K)."""
    loss = -log_softmax(logits)[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def _basis(views: Sequence[Rows]) -> Rows | None:
    """(E, D) an orthonormal basis of the space that the rows span; None if this is the whole space.

    A penalised linear model has the same solution in it, found faster: few images span few dimensions.
    """
    rows = np.concatenate(views)
    if len(rows) >= rows.shape[1]:
        return None
    basis: Rows = np.linalg.svd(rows, full_matrices=False)[2].T
    return basis


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """The positions of each fold, stratified by class; groups stay together. One fold is enough for many images."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = in_order_of_appearance(groups)
    count = min(_FOLDS, int(groups.max()) + 1)
    if count < 2:
        return []
    with warnings.catch_warnings():  # of a class with fewer images than folds
        warnings.simplefilter("ignore")
        split = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32).split(labels, labels, groups)
        folds = [fold for _, fold in split if len(fold)]
    return folds[:1] if len(labels) > _MANY else folds


def _chosen(
    rows: Rows, labels: NDArray[np.int64], classes: int, weights: NDArray[np.float64], folds: list[NDArray[np.int64]]
) -> tuple[float, float]:
    """The inverse of the penalty, and the factor of the logits, with the smallest loss of rows that were left out.

    The factor makes up for a strong penalty, which makes a model less confident than it is accurate.
    """
    best, least = (_STRENGTHS[1], 1.0), np.inf
    if not folds:
        return best
    models = [_Regression(classes) for _ in folds]
    out = np.concatenate(folds)
    for strength in _STRENGTHS:  # the weakest first: each is where the next one begins
        logits = []
        for model, fold in zip(models, folds, strict=True):
            rest = np.delete(np.arange(len(labels)), fold)
            logits.append(model.fit(rows[rest], labels[rest], weights[rest], strength)(rows[fold]))
        logits_out = np.concatenate(logits)
        losses = [_loss(factor * logits_out, labels[out], weights[out]) for factor in _FACTORS]
        place = int(np.argmin(losses))
        if losses[place] < least:
            best, least = (strength, _FACTORS[place]), losses[place]
        elif losses[place] > _WORSE * least:
            break
    return best


def _loss(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], weights: NDArray[np.float64]) -> float:
    return float(-np.average(log_softmax(logits)[np.arange(len(labels)), labels], weights=weights))


class _Regression:
    """A logistic regression, whose fits begin where the one before ended.

    Attributes:
        weight: (K, D).
        bias: (K,); a class without rows has a far smaller one than the others.
    """

    def __init__(self, classes: int) -> None:
        from sklearn.linear_model import LogisticRegression

        self.classes = classes
        self.model = LogisticRegression(tol=1e-3, warm_start=True)

    def fit(
        self, rows: Rows, labels: NDArray[np.int64], weights: NDArray[np.float64], strength: float
    ) -> "_Regression":
        self.weight, self.bias = np.zeros((self.classes, rows.shape[1]), np.float32), np.zeros(self.classes, np.float32)
        present = np.unique(labels)
        if len(present) > 1:
            self.model.set_params(C=strength, max_iter=_ITERATIONS[len(labels) > _MANY])
            with warnings.catch_warnings():  # of a fit that is not quite finished
                warnings.simplefilter("ignore")
                self.model.fit(rows, labels, weights.astype(rows.dtype))
            weight, bias = self.model.coef_, self.model.intercept_
            if len(present) == 2:  # scikit-learn has one row, for the second class
                weight, bias = np.outer([-0.5, 0.5], weight[0]), np.array([-0.5, 0.5]) * bias[0]
            self.weight[present], self.bias[present] = weight, bias
        self.bias[np.setdiff1d(np.arange(self.classes), present)] = self.bias[present].min() - _NEVER
        return self

    def __call__(self, rows: Rows) -> Rows:
        return rows @ self.weight.T + self.bias
