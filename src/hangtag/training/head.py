"""A linear head on features: the mean of logistic regression and discriminant analysis, chosen by cross-validation.

The penalty, the shrinkage and the scale of the logits are those with the smallest cross-entropy of images left out.
With few images, this is less noisy than their accuracy. On small sets of photos, the mean of both models had a smaller
cross-entropy than either (docs/log.md).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.folds import stratified_folds
from hangtag.machine import blas_threads
from hangtag.model.calibration import log_softmax

__all__ = ["Head", "fit_head", "loss_and_accuracy"]

_FOLDS = 5
_MANY = 10_000  # images, from which one fold and fewer iterations are enough
_ITERATIONS = {False: 300, True: 60}
_FACTORS = tuple(2.0 ** (power / 2) for power in range(-6, 13))
_WORSE = 1.05  # times the least loss, from which larger strengths are not tried
_VARIES = 1e-4  # of the variance of all rows, which those of a class have at least
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
    """Fit a head to the features of images and of their mirror images.

    Args:
        views: (N, E) features of the images; and, as a second view, of their mirror images.
        labels: (N,) from 0 to `classes` - 1; a class may have no image.
        weights: (N,) of the images in the loss, with mean 1.
        groups: (N,) equal for images that are never on two sides of a fold.
        seed: of the folds.
    """
    import sklearn.linear_model  # noqa: F401 - first, so that the limit holds for the libraries it loads

    # Threads for the small matrix products of few images wait for each other: ten times the processor time.
    with blas_threads(1 if len(labels) <= _MANY else None):
        mean, deviation = views[0].mean(axis=0), float(views[0].std()) or 1.0
        scaled = [(view - mean) / np.float32(deviation) for view in views]
        basis = _basis(scaled)
        reduced = scaled if basis is None else [view @ basis for view in scaled]
        folds, every = _folds(labels, groups, seed), len(views)
        found = [_cross_validated(kind, reduced[0], labels, weights, classes, folds) for kind in _KINDS]
        out = np.concatenate(folds) if folds else np.zeros(0, np.int64)
        mean_logits = np.sum([each.factor * each.logits for each in found], axis=0)
        factor = _factor(mean_logits, labels[out], weights[out])[0]
        rows, labels, weights = np.concatenate(reduced), np.tile(labels, every), np.tile(weights, every)
        weight, bias = np.zeros((classes, rows.shape[1]), np.float32), np.zeros(classes, np.float32)
        for kind, each in zip(_KINDS, found, strict=True):
            model = kind(classes, rows, labels, weights)
            model.set(each.strength / every if kind is _Regression else each.strength)
            weight, bias = weight + factor * each.factor * model.weight, bias + factor * each.factor * model.bias
        weight = (weight if basis is None else weight @ basis.T) / np.float32(deviation)
        words = f"fitted a linear head to the features of {len(views[0]):,} images"
        return Head(weight.astype(np.float32), (bias - weight @ mean).astype(np.float32), words)


def loss_and_accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[float, float]:
    """The mean cross-entropy and the accuracy of logits (N, K)."""
    loss = -log_softmax(logits)[np.arange(len(labels)), labels].mean()
    return float(loss), float((logits.argmax(axis=1) == labels).mean())


def _basis(views: Sequence[Rows]) -> Rows | None:
    """(E, D) an orthonormal basis of the space that the rows span; None if this is the whole space.

    Both models are linear and depend only on products of rows, so nothing outside this space has a weight. Few images
    span few dimensions, in which a fit is faster.
    """
    rows = np.concatenate(views)
    if len(rows) >= rows.shape[1]:
        return None
    basis: Rows = np.linalg.svd(rows, full_matrices=False)[2].T
    return basis


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> list[NDArray[np.int64]]:
    """The positions of each fold, stratified by class; groups stay together. One fold is enough for many images."""
    fold = stratified_folds(labels, groups, _FOLDS, seed)
    folds = [np.flatnonzero(fold == number) for number in range(int(fold.max()) + 1)]
    return folds[:1] if len(labels) > _MANY else folds


@dataclass(frozen=True, eq=False)
class _CrossValidated:
    """The strength of a kind of model, and the factor of its logits, with the smallest loss of rows left out.

    Attributes:
        logits: of these rows, fold by fold.
    """

    strength: float
    factor: float
    logits: Rows


def _cross_validated(
    kind: "type[_Regression | _Discriminant]", rows: Rows, labels: NDArray[np.int64], weights: NDArray[np.float64],
    classes: int, folds: list[NDArray[np.int64]],
) -> _CrossValidated:  # fmt: skip
    best, least = _CrossValidated(kind.STRENGTHS[2], 1.0, np.zeros((0, classes), np.float32)), np.inf
    models = []
    for fold in folds:
        rest = np.delete(np.arange(len(labels)), fold)
        models.append(kind(classes, rows[rest], labels[rest], weights[rest]))
    for strength in kind.STRENGTHS if folds else ():
        for model in models:
            model.set(strength)
        logits = np.concatenate(
            [rows[fold] @ model.weight.T + model.bias for model, fold in zip(models, folds, strict=True)]
        )
        out = np.concatenate(folds)
        factor, loss = _factor(logits, labels[out], weights[out])
        if loss < least:
            best, least = _CrossValidated(strength, factor, logits), loss
        elif loss > _WORSE * least:
            break
    return best


def _factor(logits: Rows, labels: NDArray[np.int64], weights: NDArray[np.float64]) -> tuple[float, float]:
    """The factor of logits (M, K) with the smallest cross-entropy, and that.

    It makes up for a penalty, after which a model is less confident than it is accurate. As if one image more had each
    label equally often, so that a model without a mistake is not infinitely confident.
    """
    if not len(labels):
        return 1.0, 0.0
    share, losses = 1 / (len(labels) + 1), []
    for factor in _FACTORS:
        logs = log_softmax(factor * logits)
        losses.append(
            (1 - share) * -np.average(logs[np.arange(len(labels)), labels], weights=weights) - share * logs.mean()
        )
    place = int(np.argmin(losses))
    return _FACTORS[place], float(losses[place])


class _Regression:
    """Logistic regression with an L2 penalty; each fit begins where the one before ended.

    Attributes:
        weight: (K, D).
        bias: (K,); a class without rows has a far smaller one than the others.
    """

    STRENGTHS = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 10.0)  # inverse of the penalty; the fastest fits first

    def __init__(self, classes: int, rows: Rows, labels: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        from sklearn.linear_model import LogisticRegression

        self.classes, self.rows, self.labels, self.weights = classes, rows, labels, weights.astype(rows.dtype)
        self.model = LogisticRegression(tol=1e-3, warm_start=True, max_iter=_ITERATIONS[len(labels) > _MANY])

    def set(self, strength: float) -> None:
        present = np.unique(self.labels)
        weight, bias = np.zeros((len(present), self.rows.shape[1])), np.zeros(len(present))
        if len(present) > 1:
            self.model.set_params(C=strength)
            with warnings.catch_warnings():  # of a fit that is not quite finished
                warnings.simplefilter("ignore")
                self.model.fit(self.rows, self.labels, self.weights)
            weight, bias = self.model.coef_, self.model.intercept_
            if len(present) == 2:  # scikit-learn has one row, for the second class
                weight, bias = np.outer([-0.5, 0.5], weight[0]), np.array([-0.5, 0.5]) * bias[0]
        self.weight, self.bias = _for_all(self.classes, present, weight, bias)


class _Discriminant:
    """Linear discriminant analysis, the covariance shrunk towards a multiple of the identity (Friedman, 1989).

    Attributes: as for `_Regression`.
    """

    STRENGTHS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 0.95)  # of the shrinkage

    def __init__(self, classes: int, rows: Rows, labels: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        self.classes, (self.present, own) = classes, np.unique(labels, return_inverse=True)
        sums = np.zeros((len(self.present), len(rows)), np.float32)
        sums[own, np.arange(len(rows))] = weights
        self.shares = sums.sum(axis=1)
        self.means = sums @ rows / np.maximum(self.shares, 1e-9)[:, None]
        rest = (rows - self.means[own]) * np.sqrt(weights / weights.sum()).astype(np.float32)[:, None]
        values, self.vectors = np.linalg.eigh(rest.T @ rest)
        self.values, within, overall = np.maximum(values, 0), float(values.mean()), float(rows.var(axis=0).mean())
        # Where no class varies, for example with one image a class, nothing says how far apart the classes are.
        self.spread = max(within if within > _VARIES * overall else overall, 1e-9)

    def set(self, strength: float) -> None:
        values = (1 - strength) * self.values + strength * self.spread
        weight = (self.means @ self.vectors / values) @ self.vectors.T
        bias = np.log(np.maximum(self.shares, 1e-9) / self.shares.sum()) - (weight * self.means).sum(axis=1) / 2
        self.weight, self.bias = _for_all(self.classes, self.present, weight, bias)


_KINDS: tuple[type[_Regression] | type[_Discriminant], ...] = (_Regression, _Discriminant)


def _for_all(classes: int, present: NDArray[np.int64], weight: NDArray[Any], bias: NDArray[Any]) -> tuple[Rows, Rows]:
    """(K, D) and (K,) of all classes, from those of the classes that have rows."""
    weights, biases = np.zeros((classes, weight.shape[1]), np.float32), np.zeros(classes, np.float32)
    weights[present] = weight - weight.mean(axis=0)
    biases[:] = bias.min() - _NEVER
    biases[present] = bias
    return weights, biases
