"""calibration.py: errors of probabilities against independent arithmetic; maps that improve them and do no harm."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from sklearn.metrics import brier_score_loss, log_loss

from hangtag.errors import DataError
from hangtag.model.calibration import (
    Calibration,
    Calibrator,
    cross_fitted,
    fitted_calibrator,
    log_softmax,
    measure_calibration,
    softmax,
)
from toys import drawn


def plain_ece(probabilities: NDArray[np.float64], labels: NDArray[np.int64], bins: int) -> float:
    """Independent arithmetic: split the ranked images into equal parts, compare means."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.array_split(np.argsort(confidence), bins)
    return float(sum(len(part) * abs(confidence[part].mean() - right[part].mean()) for part in parts) / len(labels))


def test_the_numbers_are_those_of_independent_arithmetic() -> None:
    logits, labels = drawn(3000)
    probabilities = softmax(logits)

    found = measure_calibration(probabilities, labels)

    assert found.ece == pytest.approx(plain_ece(probabilities, labels, 15))
    assert found.nll == pytest.approx(log_loss(labels, probabilities))
    expected = brier_score_loss(labels, probabilities, labels=range(5), scale_by_half=False)
    assert found.brier == pytest.approx(expected)
    assert sum(each.images for each in found.bins) == 3000
    assert Calibration.from_json(found.to_json()) == found


def test_the_floor_is_the_error_of_calibrated_answers() -> None:
    errors = []
    for seed in range(40):
        logits, labels = drawn(2000, seed=seed)
        found = measure_calibration(softmax(logits), labels)
        errors.append(found.ece)

    assert found.ece_floor == pytest.approx(np.mean(errors), rel=0.15)
    assert np.mean(np.array(errors) <= found.ece_high) >= 0.85
    assert "no miscalibration beyond chance" in found.in_words


@pytest.mark.parametrize("count", [15, 40, 300])
@pytest.mark.parametrize("power", [0.2, 1, 5])
def test_the_floor_is_that_of_drawing_each_answer(count: int, power: float) -> None:
    random = np.random.default_rng(count)
    confidence = np.sort(0.5 + random.random(count) ** power / 2)  # of two classes
    found = measure_calibration(np.column_stack([confidence, 1 - confidence]), np.zeros(count, np.int64))

    sizes = np.array([each.images for each in found.bins])
    means = np.array([each.confidence for each in found.bins])
    correct = random.random((4000, count)) < confidence
    accuracies = np.add.reduceat(correct.astype(float), np.cumsum(sizes) - sizes, axis=1) / sizes
    errors = np.abs(accuracies - means) @ (sizes / count)
    assert found.ece_floor == pytest.approx(errors.mean(), rel=0.07)  # of 400 drawn sets
    assert found.ece_high == pytest.approx(np.quantile(errors, 0.95), rel=0.12)


def test_overconfidence_is_reported() -> None:
    logits, labels = drawn(3000, temperature=3.0)

    assert "too high" in measure_calibration(softmax(logits), labels).in_words
    assert "too low" in measure_calibration(softmax(logits / 9), labels).in_words


@pytest.mark.parametrize("temperature", [0.4, 1.7, 5.0])
def test_a_true_temperature_is_found(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)

    calibrator = cross_fitted(logits, labels)[0]
    fresh, truth = drawn(20_000, temperature, seed=1)

    shrunk = 1 / np.mean(np.diag(calibrator.weights))
    assert shrunk == pytest.approx(temperature, rel=0.1)
    after = measure_calibration(calibrator(log_softmax(fresh)), truth)
    assert after.ece < max(0.01, 1.5 * after.ece_high)
    assert after.nll < measure_calibration(softmax(fresh), truth).nll


def test_bias_towards_a_class_needs_more_than_a_temperature() -> None:
    logits, labels = drawn(6000)
    favoured = logits + np.array([2.0, 0, 0, 0, -1.0])

    calibrator = cross_fitted(favoured, labels)[0]
    fresh, truth = drawn(6000, seed=1)
    after = measure_calibration(calibrator(log_softmax(fresh + np.array([2.0, 0, 0, 0, -1.0]))), truth)

    assert calibrator.method in ("vector", "matrix") and calibrator.temperature is None
    assert after.nll == pytest.approx(measure_calibration(softmax(fresh), truth).nll, abs=0.01)


def hard_cases() -> dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    logits, labels = drawn(600)
    certain = np.eye(5)[labels] * 9 + logits / 100
    absent = np.where(labels > 2, 0, labels)
    return {
        "usual": (logits + np.arange(5), labels),
        "overconfident": (8 * logits, labels),
        "almost constant": (logits / 100, labels),
        "all right": (certain, labels),
        "all wrong": (-certain, labels),
        "absent classes": (logits - 40 * (np.arange(5) > 2), absent),
    }


@pytest.mark.parametrize("case", hard_cases())
@pytest.mark.parametrize(("method", "penalty"), [("vector", 1e-4), ("matrix", 1e-2), ("matrix", 1e-3)])
def test_maps_are_the_minimum_that_a_general_optimizer_finds(case: str, method: str, penalty: float) -> None:
    logits, labels = hard_cases()[case]
    rows, classes = log_softmax(logits), logits.shape[1]
    base = fitted_calibrator(logits, labels, "temperature", 0.0)
    free = np.eye(classes, dtype=bool) if method == "vector" else np.ones((classes, classes), bool)

    def logs(change: NDArray[np.float64]) -> NDArray[np.float64]:
        weights = np.array(base.weights)
        weights[free] += change[:-classes]
        return log_softmax(rows @ weights + change[-classes:])

    def loss(change: NDArray[np.float64]) -> float:
        return float(-logs(change)[np.arange(len(labels)), labels].mean() + penalty * change @ change)

    found = fitted_calibrator(logits, labels, method, penalty)
    ours = np.append((np.array(found.weights) - np.array(base.weights))[free], found.bias)
    theirs = minimize(loss, np.zeros(len(ours)), method="BFGS", options={"gtol": 1e-6})

    assert loss(ours) <= theirs.fun + 1e-9
    np.testing.assert_allclose(found(rows), np.exp(logs(theirs.x)), atol=1e-4)


@pytest.mark.parametrize("case", hard_cases())
def test_temperatures_are_the_minimum_that_a_general_optimizer_finds(case: str) -> None:
    logits, labels = hard_cases()[case]
    rows = log_softmax(logits)

    def loss(power: float) -> float:
        logs = log_softmax(np.exp(power) * rows)
        return float(-logs[np.arange(len(labels)), labels].sum() + power**2 / 2)

    found = fitted_calibrator(logits, labels, "temperature", 0.0).temperature
    expected = minimize_scalar(loss, bounds=(-3, 3), method="bounded", options={"xatol": 1e-7})

    assert found == pytest.approx(np.exp(-expected.x), rel=1e-4)


@pytest.mark.parametrize("count", [1, 5, 12, 30, 100])
def test_few_images_make_answers_hardly_worse(count: int) -> None:
    lost = []
    for seed in range(20):
        logits, labels = drawn(count, seed=seed)
        calibrator = cross_fitted(logits, labels)[0]
        fresh, truth = drawn(2000, seed=1000 + seed)
        lost.append(
            measure_calibration(calibrator(log_softmax(fresh)), truth).nll
            - measure_calibration(softmax(fresh), truth).nll
        )

    assert np.mean(lost) < 0.05


def test_a_calibrator_survives_json() -> None:
    logits, labels = drawn(500, temperature=2.0)
    calibrator = cross_fitted(logits, labels)[0]

    assert Calibrator.from_json(calibrator.to_json()) == calibrator
    assert Calibrator.none(3).temperature == 1.0


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.full((2, 3), np.nan), [0, 1], "probabilities contain NaN or values outside 0-1"),
        (np.full((2, 3), 1.5), [0, 1], "probabilities contain NaN or values outside 0-1"),
        (np.zeros((0, 3)), [], "there are no images to evaluate on"),
        (np.full((2, 3), 1 / 3), [0, 3], "labels from 0 to 3 do not fit 3 classes"),
        (np.full((2, 3), 1 / 3), [0], "probabilities of shape (2, 3) do not fit 1 labels"),
    ],
)
def test_invalid_probabilities_and_labels_are_refused(
    probabilities: NDArray[np.float64], labels: list[int], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        measure_calibration(probabilities, np.array(labels, np.int64))

    assert caught.value.message == message and caught.value.hint


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        cross_fitted(np.full((20, 3), np.nan), np.zeros(20, np.int64))


@pytest.mark.parametrize(("images", "comforts"), [(40, False), (199, False), (200, True), (4000, True)])
def test_few_images_give_no_comfort(images: int, comforts: bool) -> None:
    logits, labels = drawn(images)

    words = measure_calibration(softmax(logits), labels).in_words

    assert ("no miscalibration beyond chance" in words) == comforts
    assert ("cannot show" in words) != comforts


def test_equal_confidences_are_one_point_in_any_order() -> None:
    """A model that learned nothing, on images sorted by class."""
    rows = np.tile([0.5 + 1e-8, 0.5 - 1e-8], (400, 1))

    calibration = measure_calibration(rows, np.repeat([0, 1], 200))

    assert len(calibration.bins) == 1 and calibration.ece < 1e-6


@pytest.mark.parametrize("scale", [20.0, 1000.0])
def test_answers_that_are_all_certain_and_right_are_calibrated_without_a_warning(scale: float) -> None:
    labels = np.arange(60) % 3
    logits = np.where(np.arange(3) == labels[:, None], scale, -scale)

    calibrator, _ = cross_fitted(logits, labels)

    assert (calibrator(log_softmax(logits)).argmax(axis=1) == labels).all()
