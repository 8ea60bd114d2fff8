"""Calibration: measuring whether probabilities match how often answers are right, and fitting a map so that they do.

Of the images answered with 80% confidence, a calibrated model gets 80 of 100 right. This module does arithmetic on
arrays; it runs no model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError
from hangtag.serializable import Serializable
from hangtag.words import ENOUGH, amount

__all__ = [
    "BINS", "Bin", "Calibration", "Calibrator", "Floats", "check_probabilities", "cross_entropies",
    "cross_fitted", "fitted_calibrator", "log_softmax", "measure_calibration", "softmax",
]  # fmt: skip

BINS = 15
_DRAWS = 400  # simulated label sets for the noise floor; its own relative error is then below 2%
_FOLDS = 5
_CANDIDATES = (("temperature", 0.0), ("vector", 1e-4), ("matrix", 1e-2), ("matrix", 1e-3))
_MIN_IMAGES = 30  # for any map; with 12, the mean loss over 60 draws was 0.03 nats, with 30 it was 0.007
_MIN_IMAGES_PER_CLASS = 20  # for a map with more than one parameter
_MAX_CLASSES = 50  # for a map with a parameter for every pair of classes
_LOG_BETAS = (-3.0, 3.0)  # bounds of the search for the logarithm of 1 / temperature
_MOST_STEPS, _SMALLEST_STEP = 100, 1e-6
_ENOUGH_GAIN = 1e-8  # nats per image; the step after that gains far less
_EXACT = 1e-9  # of the logarithm of 1 / temperature
_CERTAIN = 1e-3  # share of the mean uncertainty, below which an answer is nearly certain
_TINY = float(np.finfo(np.float64).tiny)

Floats: TypeAlias = NDArray[np.floating[Any]]
"""Floating-point arrays of any precision."""


@dataclass(frozen=True)
class Bin:
    """Images with similar confidence (probability of the answer).

    Attributes:
        images: number of images.
        confidence: mean confidence.
        accuracy: share of correct answers.
    """

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration(Serializable):
    """How well probabilities match outcomes.

    Attributes:
        images: number of images judged.
        ece: expected calibration error of the confidence: the mean distance of confidence and accuracy over bins of
            equal numbers of images (Naeini et al., 2015; equal-mass bins as in Nguyen & O'Connor, 2015).
        ece_floor: mean ece of perfectly calibrated answers with these confidences, due to chance alone.
        ece_high: 95th percentile of the ece of such answers.
        nll: mean negative log-likelihood of the true class, in nats.
        brier: mean squared distance of the row of probabilities from the truth, 0 to 2 (Brier, 1950).
        bins: points of the reliability diagram.
    """

    images: int
    ece: float
    ece_floor: float
    ece_high: float
    nll: float
    brier: float
    bins: tuple[Bin, ...]

    @property
    def in_words(self) -> str:
        """The error, explained to a reader new to calibration."""
        points, floor = 100 * self.ece, 100 * self.ece_floor
        error = f"Probabilities are off by {points:.1f} points on average (perfect calibration would show {floor:.1f})"
        if self.ece <= self.ece_high and self.images < ENOUGH:
            return f"{error}, but {amount(self.images, 'image')} cannot show whether they can be trusted."
        if self.ece <= self.ece_high:
            return f"{error}: {self.images:,} images show no miscalibration beyond chance."
        high = sum(each.images * (each.confidence - each.accuracy) for each in self.bins) > 0
        return f"{error}: they are too {'high' if high else 'low'} overall."


def measure_calibration(probabilities: Floats, labels: NDArray[np.int64], bins: int = BINS) -> Calibration:
    """Compare probabilities with the true labels.

    Args:
        probabilities: (N, K), rows that sum to 1.
        labels: (N,) indices of the true classes.
        bins: number of bins, at most N.

    Raises:
        DataError: no images, shapes that disagree, or values that are not probabilities.
    """
    check_probabilities(probabilities, labels)
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    edges = np.linspace(0, len(labels), min(bins, len(labels)) + 1).round().astype(np.int64)
    rounded = confidence[order].round(6)  # equal confidences stay in one bin, or it would depend on the images' order
    edges[1:-1] = np.searchsorted(rounded, rounded[edges[1:-1]])
    edges = edges[np.diff(edges, prepend=-1) > 0]
    sizes = np.diff(edges)
    confidences = np.add.reduceat(confidence[order], edges[:-1]) / sizes
    accuracies = np.add.reduceat(correct[order], edges[:-1]) / sizes
    weights = sizes / len(labels)
    floor, high = _floor(confidence[order], edges, confidences, weights)
    rows = zip(sizes.tolist(), confidences.tolist(), accuracies.tolist(), strict=True)
    return Calibration(
        images=len(labels),
        ece=float(weights @ np.abs(confidences - accuracies)),
        ece_floor=floor,
        ece_high=high,
        nll=float(cross_entropies(probabilities, labels).mean()),
        brier=_brier(probabilities, labels),
        bins=tuple(Bin(*row) for row in rows),
    )


def cross_entropies(probabilities: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) negative log-likelihood of each true class, in nats; probabilities are at least the smallest float32."""
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.maximum(of_truth, np.finfo(np.float32).tiny))
    return losses


def softmax(logits: Floats) -> NDArray[np.float64]:
    """(N, K) probabilities of (N, K) logits."""
    wide = np.asarray(logits, np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    rows: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return rows


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """(N, K) logarithms of the probabilities of (N, K) logits."""
    wide = np.asarray(logits, np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    rows: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return rows


@dataclass(frozen=True)
class Calibrator(Serializable):
    """A map from the network's log probabilities to calibrated probabilities: softmax(log p @ weights + bias).

    Attributes:
        method: "none"; "temperature", one parameter (Guo et al., 2017); "vector", one per class and a bias (ibid.);
            or "matrix", one per pair of classes, with a penalty (Dirichlet calibration; Kull et al., 2019).
        weights: (K, K).
        bias: (K,).
        images: number of images that it was fitted on.
    """

    method: str
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    images: int

    @classmethod
    def none(cls, classes: int) -> "Calibrator":
        """The identity map."""
        return _calibrator("none", np.eye(classes), np.zeros(classes), 0)

    @property
    def temperature(self) -> float | None:
        """The temperature; None if the map is more than a temperature."""
        return 1 / self.weights[0][0] if self.method in ("none", "temperature") else None

    def __call__(self, logs: Floats) -> NDArray[np.float64]:
        """(N, K) calibrated probabilities of the network's log probabilities (N, K)."""
        return softmax(np.asarray(logs, np.float64) @ np.array(self.weights) + np.array(self.bias))


def cross_fitted(logits: Floats, labels: NDArray[np.int64]) -> tuple[Calibrator, NDArray[np.float64]]:
    """Choose a map by cross-validation on held-out images: temperature, vector, matrix, or none.

    Each candidate is fitted on four fifths of the images and judged by its cross-entropy on the other fifth, five
    times; the winner is fitted on all. A few images therefore cannot make answers much worse, and favour simple maps.

    Args:
        logits: (N, K) of the network, for images it was not trained on.
        labels: (N,) indices of the true classes.

    Returns:
        The map, and the (N, K) probabilities of the winner's five fits, each for the fifth that it was not fitted on.
        Thresholds that come from the map's own probabilities alone would be too tight: it was fitted to their labels.

    Raises:
        DataError: no images, shapes that disagree, or logits that are not finite.
    """
    check_probabilities(softmax(logits) if np.isfinite(logits).all() else np.asarray(logits), labels)
    rows, classes = log_softmax(logits), logits.shape[1]
    best, lowest, kept = Calibrator.none(classes), float(_nll(rows, labels).mean()), rows
    if len(labels) < _MIN_IMAGES:
        return best, softmax(kept)
    fold, starts = _folds(labels), dict[str, Floats | None]()
    for method, penalty in _CANDIDATES:
        if method != "temperature" and len(labels) < _MIN_IMAGES_PER_CLASS * classes:
            continue
        if method == "matrix" and classes > _MAX_CLASSES:
            continue
        scores, start = np.empty_like(rows), starts.get(method)
        for number in range(_FOLDS):
            judged = fold == number
            weights, bias, start = _fitted(rows[~judged], labels[~judged], method, penalty, start)
            scores[judged] = rows[judged] @ weights + bias
        starts[method] = start
        loss = float(_nll(scores, labels).mean())
        if loss < lowest:
            lowest, kept = loss, scores
            best = _calibrator(method, *_fitted(rows, labels, method, penalty, start)[:2], len(labels))
    return best, softmax(kept)


def fitted_calibrator(logits: Floats, labels: NDArray[np.int64], method: str, penalty: float) -> Calibrator:
    """One map, fitted on all images; the penalty is on the squared departure from a plain temperature."""
    return _calibrator(method, *_fitted(log_softmax(logits), labels, method, penalty)[:2], len(labels))


def check_probabilities(probabilities: Floats, labels: NDArray[Any]) -> None:
    """Raises DataError unless these are N >= 1 rows of probabilities and N labels that index them."""
    if probabilities.ndim != 2 or len(probabilities) != len(labels):
        raise DataError(
            f"probabilities of shape {probabilities.shape} do not fit {len(labels):,} labels",
            "give one row of probabilities for each label",
        )
    if not len(labels):
        raise DataError("there are no images to evaluate on", "give at least one")
    if not (labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        raise DataError(
            f"labels from {labels.min()} to {labels.max()} do not fit {probabilities.shape[1]} classes",
            "labels are positions in the class names, from 0",
        )
    if not (np.isfinite(probabilities).all() and probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-4):
        raise DataError("probabilities contain NaN or values outside 0-1", "training failed; lower the learning rate")


def _floor(confidence: Floats, edges: NDArray[np.int64], means: Floats, weights: Floats) -> tuple[float, float]:
    """Mean and 95th percentile of the calibration error of perfectly calibrated answers, by simulation.

    Correct answers in a bin are drawn as if all its confidences were equal, and their deviation is then scaled to the
    smaller variance of unequal ones. Drawing for each image took 15 times as long.
    """
    sizes, even = np.diff(edges), np.clip(means, 0, 1)
    variance = np.add.reduceat(confidence * (1 - confidence), edges[:-1]) / sizes
    scale = np.sqrt(variance.clip(0) / np.maximum(even * (1 - even), np.finfo(float).tiny))
    correct = np.random.default_rng(0).binomial(sizes, even, (_DRAWS, len(sizes)))
    errors = (np.abs(correct / sizes - even) * scale) @ weights
    return float(errors.mean()), float(np.sort(errors)[int(0.95 * _DRAWS)])


def _brier(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    wide = probabilities.astype(np.float64)
    of_truth = wide[np.arange(len(labels)), labels]
    return float(((wide**2).sum(axis=1) - 2 * of_truth + 1).mean())


def _calibrator(method: str, weights: Floats, bias: Floats, images: int) -> Calibrator:
    return Calibrator(method, tuple(map(tuple, weights.tolist())), tuple(bias.tolist()), images)


def _folds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the fold of each image; every class is spread evenly."""
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % _FOLDS
    return fold


def _nll(scores: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) negative log-likelihood from unnormalised log probabilities (N, K)."""
    largest = scores.max(axis=1)
    log_sums: NDArray[np.float64] = largest + np.log(np.exp(scores - largest[:, None]).sum(axis=1))
    return log_sums - scores[np.arange(len(labels)), labels]


def _fitted(
    rows: Floats, labels: NDArray[np.int64], method: str, penalty: float, start: Floats | None = None
) -> tuple[Floats, Floats, Floats | None]:
    """Weights (K, K) and bias (K,) with the smallest mean cross-entropy plus penalty.

    Also returns the change from a plain temperature, from which the fit of similar images can start.
    """
    classes = rows.shape[1]
    beta = _best_beta(rows, labels)
    weights, bias = beta * np.eye(classes), np.zeros(classes)
    if method == "temperature":
        return weights, bias, None
    family = _PerClass(rows) if method == "vector" else _PerPair(np.column_stack([rows, np.ones(len(rows))]))
    change = _newton(family, beta * rows, labels, penalty * len(rows), family.none() if start is None else start)
    weights += np.diag(change[0]) if method == "vector" else change[:-1]
    return weights, bias + change[-1], change


@dataclass(frozen=True)
class _PerClass:
    """Changes of the map with a factor for each class and a bias: (2, K)."""

    rows: Floats

    def none(self) -> Floats:
        return np.zeros((2, self.rows.shape[1]))

    def scores(self, change: Floats) -> Floats:
        scores: Floats = self.rows * change[0] + change[1]
        return scores

    def slope(self, errors: Floats) -> Floats:
        """The transpose of `scores`."""
        return np.stack([np.einsum("nk,nk->k", self.rows, errors), errors.sum(axis=0)])

    def preconditioner(self, probabilities: Floats, penalty: float) -> Callable[[Floats], Floats]:
        """Division by the diagonal of the Hessian."""
        spread = probabilities * (1 - probabilities)
        diagonal = np.stack([np.einsum("nk,nk,nk->k", self.rows, self.rows, spread), spread.sum(axis=0)]) + 2 * penalty
        return lambda slope: slope / diagonal


@dataclass(frozen=True)
class _PerPair:
    """Changes of the map with a factor for each pair of classes and a bias: (K + 1, K)."""

    rows: Floats  # (N, K + 1), the last column 1

    def none(self) -> Floats:
        sides = self.rows.shape[1]
        return np.zeros((sides, sides - 1))

    def scores(self, change: Floats) -> Floats:
        product: Floats = self.rows @ change
        return product

    def slope(self, errors: Floats) -> Floats:
        """The transpose of `scores`."""
        product: Floats = self.rows.T @ errors
        return product

    def preconditioner(self, probabilities: Floats, penalty: float) -> Callable[[Floats], Floats]:
        """Division by the Hessian as if rows and probabilities were independent: a Kronecker product."""
        unsure = 1 - (probabilities**2).sum(axis=1, keepdims=True)
        left, in_rows = np.linalg.eigh((self.rows * unsure).T @ self.rows / max(float(unsure.sum()), _TINY))
        right, in_classes = np.linalg.eigh(np.diag(probabilities.sum(axis=0)) - probabilities.T @ probabilities)
        curvatures = np.maximum(left, 0)[:, None] * np.maximum(right, 0) + 2 * penalty

        def divide(slope: Floats) -> Floats:
            product: Floats = in_rows @ ((in_rows.T @ slope @ in_classes) / curvatures) @ in_classes.T
            return product

        return divide


def _newton(
    family: _PerClass | _PerPair, start: Floats, labels: NDArray[np.int64], penalty: float, change: Floats
) -> Floats:
    """The change that minimises the total of cross-entropy and penalty, which is strictly convex, by Newton's method.

    Args:
        family: what may change.
        start: (N, K) scores without a change.
        change: where the search begins.
    """

    def loss(change: Floats) -> tuple[float, Floats]:
        scores = start + family.scores(change)
        return float(_nll(scores, labels).sum()) + penalty * float((change**2).sum()), scores

    value, scores = loss(change)
    for _ in range(_MOST_STEPS):
        probabilities = softmax(scores)
        errors = probabilities.copy()
        errors[np.arange(len(labels)), labels] -= 1
        slope = family.slope(errors) + 2 * penalty * change
        step = _newton_step(family, probabilities, slope, penalty)
        gain, size = -float((slope * step).sum()), 1.0  # gain: twice that of the step if the loss is quadratic
        new_value, new_scores = loss(change + step)
        while new_value > value - 1e-4 * size * gain and size > _SMALLEST_STEP:
            size /= 2
            new_value, new_scores = loss(change + size * step)
        if new_value < value:
            change, value, scores = change + size * step, new_value, new_scores
        if gain < _ENOUGH_GAIN * len(labels) or size < _SMALLEST_STEP:
            break
    return change


def _newton_step(family: _PerClass | _PerPair, probabilities: Floats, slope: Floats, penalty: float) -> Floats:
    """Solve Hessian @ step = -slope by conjugate gradients, more accurately the closer it is to the minimum.

    The Hessian leaves out images whose answer is nearly certain, and is in float32; the slope is exact (Nocedal &
    Wright, 2006, chapter 7.1).
    """
    unsure = 1 - (probabilities**2).sum(axis=1)
    kept = unsure > max(_CERTAIN * float(unsure.mean()), float(np.finfo(np.float32).eps))
    if not kept.any():  # every answer is certain: there is no curvature to learn from
        return np.zeros_like(slope)
    family = type(family)(family.rows[kept].astype(np.float32))
    probabilities = probabilities[kept].astype(np.float32)
    precondition = family.preconditioner(probabilities, penalty)
    step, left = np.zeros_like(slope), -slope
    direction = better = precondition(left)
    length = first = float((left * better).sum())
    for _ in range(_MOST_STEPS):
        if length <= min(0.01, first / len(kept)) * first:
            break
        errors = family.scores(direction.astype(np.float32))
        errors -= np.einsum("nk,nk->n", probabilities, errors)[:, None]
        errors *= probabilities
        bent = family.slope(errors) + 2 * penalty * direction
        size = length / float((direction * bent).sum())
        step, left = step + size * direction, left - size * bent
        better = precondition(left)
        length, before = float((left * better).sum()), length
        direction = better + length / before * direction
    return step


def _best_beta(rows: Floats, labels: NDArray[np.int64]) -> float:
    """1 / temperature with the smallest cross-entropy, with a normal prior of deviation 1 on its logarithm.

    Without the prior, a handful of images that are all answered correctly would give a temperature of 0. Newton's
    method searches the logarithm, between bounds that move closer at each step.
    """
    of_truth, (low, high), power = rows[np.arange(len(labels)), labels], _LOG_BETAS, 0.0
    for _ in range(_MOST_STEPS):
        beta = np.exp(power)
        probabilities = softmax(beta * rows)
        mean = np.einsum("nk,nk->n", probabilities, rows)
        variance = np.einsum("nk,nk,nk->n", probabilities, rows, rows) - mean**2
        slope = beta * float((mean - of_truth).mean())
        curvature = slope + beta**2 * float(variance.mean()) + 1 / len(labels)
        slope += power / len(labels)
        low, high = (low, power) if slope > 0 else (power, high)
        step = slope / curvature if curvature > 0 else np.inf
        better = power - step if low < power - step < high else (low + high) / 2
        if abs(better - power) < _EXACT:
            break
        power = better
    return float(np.exp(power))
