"""Whether probabilities mean what they say: the map that makes them do so, and what is left of the error.

Arithmetic on arrays; it runs no model. Of pictures answered with 80 %, a calibrated model is right on 80 of 100.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError

__all__ = [
    "BINS",
    "Bin",
    "Calibration",
    "Calibrator",
    "check_probabilities",
    "cross_entropy",
    "fit_calibrator",
    "fitted_calibrator",
    "log_softmax",
    "measure_calibration",
    "softmax",
]

BINS = 15
_DRAWS = 400  # of imagined labels, for the noise floor; its own error is then below 2 % of it
_FOLDS = 5
_CANDIDATES = (("temperature", 0.0), ("vector", 1e-4), ("matrix", 1e-2), ("matrix", 1e-3))
_LEAST_IMAGES = 30  # for any map; with 12, the mean loss over 60 draws was 0.03 nats, with 30 it was 0.007
_IMAGES_A_CLASS = 20  # for a map with more than one number
_MOST_CLASSES = 50  # for a map with a number for every two classes
_LOG_BETAS = (-3.0, 3.0)  # the logarithm of 1 / temperature is looked for between these

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Bin:
    """Pictures whose confidence (probability of the answer) is alike.

    Attributes:
        images: how many.
        confidence: the mean of theirs.
        accuracy: the share that was answered rightly.
    """

    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far probabilities can be taken at their word.

    Attributes:
        images: how many were judged.
        ece: expected calibration error of the confidence: the mean distance of confidence and accuracy over bins of
            equal numbers of images (Naeini et al., 2015; equal-mass bins as in Nguyen & O'Connor, 2015).
        ece_floor: the mean ece that perfectly calibrated answers with these confidences would show, by chance alone.
        ece_high: what these would stay under in 95 of 100 such samples.
        nll: mean negative log-likelihood of the true class, in nats.
        brier: mean squared distance of the row of probabilities from the truth, 0 to 2 (Brier, 1950).
        bins: for a reliability diagram.
    """

    images: int
    ece: float
    ece_floor: float
    ece_high: float
    nll: float
    brier: float
    bins: tuple[Bin, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Calibration":
        return cls(**{**value, "bins": tuple(Bin(**row) for row in value["bins"])})

    @property
    def in_words(self) -> str:
        """What the error means to somebody who never heard of calibration."""
        points, floor = 100 * self.ece, 100 * self.ece_floor
        seen = f"Its probabilities are off by {points:.1f} points on average (chance alone would show {floor:.1f})"
        if self.ece <= self.ece_high:
            return f"{seen}: as far as {self.images:,} pictures can tell, they can be taken at their word."
        high = sum(each.images * (each.confidence - each.accuracy) for each in self.bins) > 0
        return f"{seen}: on the whole they are {'too high' if high else 'too low'}."


def measure_calibration(probabilities: Floats, labels: NDArray[np.int64], bins: int = BINS) -> Calibration:
    """Judge probabilities by what was true.

    Args:
        probabilities: (N, K), rows that sum to 1.
        labels: (N,) indices of the true classes.

    Raises:
        DataError: no images, shapes that disagree, or values that are no probabilities.
    """
    check_probabilities(probabilities, labels)
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    edges = np.linspace(0, len(labels), min(bins, len(labels)) + 1).round().astype(np.int64)
    sizes = np.diff(edges)
    confidences = np.add.reduceat(confidence[order], edges[:-1]) / sizes
    accuracies = np.add.reduceat(right[order], edges[:-1]) / sizes
    weights = sizes / len(labels)
    floor, high = _floor(confidence[order], edges, confidences, weights)
    rows = zip(sizes.tolist(), confidences.tolist(), accuracies.tolist(), strict=True)
    return Calibration(
        images=len(labels),
        ece=float(weights @ np.abs(confidences - accuracies)),
        ece_floor=floor,
        ece_high=high,
        nll=cross_entropy(probabilities, labels),
        brier=_brier(probabilities, labels),
        bins=tuple(Bin(*row) for row in rows),
    )


def cross_entropy(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """Mean negative log-likelihood of the true classes, in nats; a probability of 0 counts as the least float."""
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_truth, np.finfo(np.float32).tiny)).mean())


def softmax(logits: Floats) -> NDArray[np.float64]:
    """Rows of logits -> rows of probabilities."""
    wide = np.asarray(logits, np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    rows: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return rows


@dataclass(frozen=True)
class Calibrator:
    """A map from what a network answers to calibrated probabilities: softmax(log p @ weights + bias).

    Attributes:
        method: "none"; "temperature", one number (Guo et al., 2017); "vector", one for each class and a bias (ibid.);
            or "matrix", between any two classes, with a penalty (Dirichlet calibration; Kull et al., 2019).
        weights: (K, K).
        bias: (K,).
        images: how many fitted it.
    """

    method: str
    weights: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]
    images: int

    @classmethod
    def none(cls, classes: int) -> "Calibrator":
        return _calibrator("none", np.eye(classes), np.zeros(classes), 0)

    @property
    def temperature(self) -> float | None:
        """Where it is no more than that."""
        return 1 / self.weights[0][0] if self.method in ("none", "temperature") else None

    def __call__(self, logs: Floats) -> NDArray[np.float64]:
        """(N, K) calibrated probabilities, of the logarithms (N, K) of those the network answers."""
        return softmax(np.asarray(logs, np.float64) @ np.array(self.weights) + np.array(self.bias))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Calibrator":
        weights = tuple(tuple(float(cell) for cell in row) for row in value["weights"])
        return cls(str(value["method"]), weights, tuple(map(float, value["bias"])), int(value["images"]))


def fit_calibrator(logits: Floats, labels: NDArray[np.int64]) -> Calibrator:
    """The map that did best on held-out images that had not fitted it: temperature, vector, matrix, or none of them.

    Each candidate is fitted on four fifths of the images and judged by its cross-entropy on the other fifth, five
    times; the winner is fitted on all. So a few images cannot make answers worse by much, and simple maps win there.

    Args:
        logits: (N, K) as the network answers, of images that did not train it.
        labels: (N,) their true classes.

    Raises:
        DataError: no images, shapes that disagree, or logits that are not finite.
    """
    check_probabilities(softmax(logits) if np.isfinite(logits).all() else np.asarray(logits), labels)
    rows, classes = log_softmax(logits), logits.shape[1]
    best, least = Calibrator.none(classes), float(_nll(rows, labels).mean())
    if len(labels) < _LEAST_IMAGES:
        return best
    fold = _folds(labels)
    for method, penalty in _CANDIDATES:
        if method != "temperature" and len(labels) < _IMAGES_A_CLASS * classes:
            continue
        if method == "matrix" and classes > _MOST_CLASSES:
            continue
        lost = 0.0
        for number in range(_FOLDS):
            judged = fold == number
            weights, bias = _fitted(rows[~judged], labels[~judged], method, penalty)
            lost += float(_nll(rows[judged] @ weights + bias, labels[judged]).sum())
        if lost / len(labels) < least:
            least = lost / len(labels)
            best = fitted_calibrator(rows, labels, method, penalty)
    return best


def fitted_calibrator(logits: Floats, labels: NDArray[np.int64], method: str, penalty: float) -> Calibrator:
    """One of the maps, fitted to all images; the penalty is on the squares of all that is not a temperature."""
    return _calibrator(method, *_fitted(log_softmax(logits), labels, method, penalty), len(labels))


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Rows of logits -> rows of logarithms of probabilities."""
    wide = np.asarray(logits, np.float64)
    wide = wide - wide.max(axis=1, keepdims=True)
    rows: NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return rows


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
        raise DataError("probabilities hold values outside 0-1 or NaN", "the model did not train; lower the rate")


def _floor(confidence: Floats, edges: NDArray[np.int64], means: Floats, weights: Floats) -> tuple[float, float]:
    """Mean and 95 % point of the calibration error of answers that are right as often as they say."""
    random = np.random.default_rng(0)
    errors = np.empty(_DRAWS)
    sizes = np.diff(edges)
    for draw in range(_DRAWS):
        right = random.random(len(confidence)) < confidence
        errors[draw] = weights @ np.abs(np.add.reduceat(right.astype(np.float64), edges[:-1]) / sizes - means)
    return float(errors.mean()), float(np.quantile(errors, 0.95))


def _brier(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    wide = probabilities.astype(np.float64)
    of_truth = wide[np.arange(len(labels)), labels]
    return float(((wide**2).sum(axis=1) - 2 * of_truth + 1).mean())


def _calibrator(method: str, weights: Floats, bias: Floats, images: int) -> Calibrator:
    return Calibrator(method, tuple(tuple(row) for row in weights.tolist()), tuple(bias.tolist()), images)


def _folds(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) the fold of each image; every class is spread evenly."""
    fold = np.empty(len(labels), np.int64)
    fold[np.argsort(labels, kind="stable")] = np.arange(len(labels)) % _FOLDS
    return fold


def _nll(scores: Floats, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,) of rows that are logarithms of probabilities but for a constant each."""
    most = scores.max(axis=1)
    found: NDArray[np.float64] = most + np.log(np.exp(scores - most[:, None]).sum(axis=1))
    return found - scores[np.arange(len(labels)), labels]


def _fitted(rows: Floats, labels: NDArray[np.int64], method: str, penalty: float) -> tuple[Floats, Floats]:
    """Weights (K, K) and bias (K,) with the least mean cross-entropy, plus the penalty."""
    classes = rows.shape[1]
    beta = _best_beta(rows, labels)
    start, bias = beta * np.eye(classes), np.zeros(classes)
    if method == "temperature":
        return start, bias
    from scipy.optimize import minimize

    truth = np.eye(classes)[labels]
    free = np.eye(classes, dtype=bool) if method == "vector" else np.ones((classes, classes), bool)

    def loss(numbers: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        change = np.zeros((classes, classes))
        change[free] = numbers[:-classes]
        scores = rows @ (start + change) + numbers[-classes:]
        error = (softmax(scores) - truth) / len(rows)
        slope = np.concatenate([(rows.T @ error)[free], error.sum(axis=0)])
        value = float(_nll(scores, labels).mean()) + penalty * float(numbers @ numbers)
        return value, slope + 2 * penalty * numbers

    found = minimize(loss, np.zeros(int(free.sum()) + classes), jac=True, method="L-BFGS-B", options={"maxiter": 300})
    start[free] += found.x[:-classes]
    return start, found.x[-classes:]


def _best_beta(rows: Floats, labels: NDArray[np.int64]) -> float:
    """1 / temperature with the least cross-entropy; of few images, one that is not far from 1.

    The penalty is that of a normal prior on the logarithm with deviation 1: a handful of images, all answered rightly,
    would else ask for a temperature of 0.
    """
    from scipy.optimize import minimize_scalar

    def loss(power: float) -> float:
        return float(_nll(np.exp(power) * rows, labels).mean()) + power**2 / (2 * len(labels))

    found = minimize_scalar(loss, bounds=_LOG_BETAS, method="bounded")
    return float(np.exp(found.x))
