"""Every number of an evaluation is scikit-learn's and SciPy's number for it."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

from hangtag.errors import DataError
from hangtag.evaluation.metrics import ClassResult, Evaluation, evaluate, wilson


def random_case(seed: int, images: int, classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[str, ...]]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), images)
    return probabilities, random.integers(0, classes, images), tuple(f"class {number}" for number in range(classes))


def or_none(value: float) -> object:
    return None if math.isnan(value) else pytest.approx(value)


@pytest.mark.parametrize(("images", "classes"), [(1, 2), (7, 3), (12, 10), (500, 4), (3000, 10)])
@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_scikit_learn(seed: int, images: int, classes: int) -> None:
    probabilities, labels, names = random_case(seed, images, classes)

    found = evaluate(probabilities, labels, names)

    predicted, every = probabilities.argmax(1), list(range(classes))
    scores = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    precision, recall, _, support = scores
    f1 = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=0)[2]
    assert found.images == images
    assert found.loss == pytest.approx(log_loss(labels, probabilities, labels=every))
    assert found.accuracy == pytest.approx(accuracy_score(labels, predicted))
    assert np.array_equal(found.confusion, confusion_matrix(labels, predicted, labels=every))
    assert [one.name for one in found.classes] == list(names)
    assert [one.images for one in found.classes] == support.tolist()
    assert [one.precision for one in found.classes] == [or_none(value) for value in precision]
    assert [one.recall for one in found.classes] == [or_none(value) for value in recall]
    seen = [one.images + sum(row[number] for row in found.confusion) > 0 for number, one in enumerate(found.classes)]
    assert [one.f1 for one in found.classes] == [
        pytest.approx(value) if judged else None for value, judged in zip(f1, seen, strict=True)
    ]


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_the_interval_is_wilsons(data: st.DataObject) -> None:
    trials = data.draw(st.integers(1, 100_000))
    successes = data.draw(st.one_of(st.sampled_from([0, trials]), st.integers(0, trials)))

    low, high = wilson(successes, trials)

    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert 0 <= low <= successes / trials <= high <= 1


def test_the_intervals_of_an_evaluation_are_of_its_own_counts() -> None:
    probabilities, labels, names = random_case(1, 300, 3)

    found = evaluate(probabilities, labels, names)

    hits = [found.confusion[number][number] for number in range(3)]
    assert found.accuracy_interval == wilson(sum(hits), 300)
    assert [one.recall_interval for one in found.classes] == [
        wilson(hit, one.images) for hit, one in zip(hits, found.classes, strict=True)
    ]


def test_classes_without_images_or_predictions_have_no_numbers_instead_of_false_ones() -> None:
    probabilities = np.array([[0.8, 0.2, 0, 0], [0.4, 0.6, 0, 0], [0.9, 0.1, 0, 0]])

    found = evaluate(probabilities, np.array([0, 0, 2]), ("seen", "only predicted", "never predicted", "absent"))

    assert found.classes == (
        ClassResult("seen", 2, 0.5, 0.5, wilson(1, 2), 0.5, wilson(1, 2)),
        ClassResult("only predicted", 0, 0.0, None, None, 0.0, wilson(0, 1)),
        ClassResult("never predicted", 1, None, 0.0, wilson(0, 1), 0.0),
        ClassResult("absent", 0, None, None, None, None),
    )


def test_a_confident_mistake_costs_much_but_not_infinity() -> None:
    found = evaluate(np.array([[1.0, 0.0]]), np.array([1]), ("a", "b"))

    assert (found.accuracy, math.isfinite(found.loss), found.loss > 80) == (0.0, True, True)


TWO = ("a", "b")
FAIR = np.full((3, 2), 0.5)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (FAIR, [0, 1], "probabilities of shape (3, 2) do not fit 2 labels and 2 classes"),
        (np.full((3, 3), 1 / 3), [0, 1, 0], "probabilities of shape (3, 3) do not fit 3 labels and 2 classes"),
        (np.zeros((0, 2)), [], "there are no images to evaluate on"),
        (np.array([[0.5, np.nan]] * 3), [0, 1, 0], "probabilities contain NaN or values outside 0-1"),
        (np.array([[0.5, np.inf]] * 3), [0, 1, 0], "probabilities contain NaN or values outside 0-1"),
        (np.array([[-0.5, 1.5]] * 3), [0, 1, 0], "probabilities contain NaN or values outside 0-1"),
        (FAIR, [0, 1, 2], "labels from 0 to 2 do not fit 2 classes"),
        (FAIR, [-1, 1, 0], "labels from -1 to 1 do not fit 2 classes"),
    ],
)
def test_invalid_probabilities_and_labels_are_refused(
    probabilities: NDArray[Any], labels: list[int], message: str
) -> None:
    with pytest.raises(DataError) as caught:
        evaluate(probabilities, np.array(labels, np.int64), TWO)

    assert (caught.value.message, bool(caught.value.hint)) == (message, True)


@pytest.mark.parametrize("training_accuracy", [None, 0.75])
def test_an_evaluation_survives_json(training_accuracy: float | None) -> None:
    probabilities, labels, _ = random_case(2, 5, 3)
    before = evaluate(probabilities, labels, ("셔츠", "b", "never"), training_accuracy)

    after = Evaluation.from_json(json.loads(json.dumps(before.to_json(), allow_nan=False)))

    assert after == before


def test_an_evaluation_reads_as_one_line() -> None:
    found = evaluate(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1]), TWO)

    assert str(found) == "accuracy 0.7500 [0.3006, 0.9544], loss 0.5623, 4 images"


def judged(right: int, training_accuracy: float | None, images: int = 1000, folds: int = 0) -> str:
    """In words, for half the images of each of two classes; the first `right` of both are correct."""
    labels = np.arange(images) % 2
    correct = np.arange(images) < right
    probabilities = np.where((labels == correct.astype(int))[:, None], [[0.1, 0.9]], [[0.9, 0.1]])
    return evaluate(probabilities, labels, TWO, training_accuracy, folds=folds).gap_in_words


def test_a_gap_beyond_chance_is_called_overfitting() -> None:
    assert judged(880, 0.91) == (
        "Accuracy is 91.0% on the training images and 88.0% on these images, 3.0 points lower. Such a gap "
        "suggests overfitting: part of what the model learned may hold only for its training images."
    )


@pytest.mark.parametrize(("training_accuracy", "share"), [(0.89, "89.0%"), (0.88, "88.0%"), (0.7, "70.0%")])
def test_a_gap_within_chance_or_the_other_way_is_not(training_accuracy: float, share: str) -> None:
    sentence = judged(880, training_accuracy)

    assert sentence == (
        f"Accuracy is {share} on the training images and 88.0% on these images: no sign of overfitting beyond chance."
    )


@pytest.mark.parametrize(("right", "images", "folds"), [(97, 100, 5), (99, 100, 5), (198, 200, 0), (999, 1000, 0)])
def test_a_few_mistakes_are_no_overfitting_even_if_there_are_none_on_the_training_images(
    right: int, images: int, folds: int
) -> None:
    sentence = judged(right, 1.0, images, folds)

    assert "suggests" not in sentence and "points lower" not in sentence
    assert sentence.endswith(
        "held out, a difference within chance." if folds else "no sign of overfitting beyond chance."
    )


def test_a_gap_after_a_cross_validation_is_explained_without_a_diagnosis() -> None:
    assert judged(160, 1.0, 200, folds=5) == (
        "Accuracy is 100.0% on the training images and 80.0% on the same images while they were held out, 20.0 points "
        "lower. Expect the lower one for new images; more training images usually raise it."
    )
    assert judged(200, 1.0, 200, folds=5).endswith("while they were held out.")


@pytest.mark.parametrize("right", [0, 4, 500, 520])
def test_answers_no_better_than_guessing_are_not_explained_by_overfitting_alone(right: int) -> None:
    sentence = judged(right, 0.99)

    assert "suggests overfitting" not in sentence and "no sign" not in sentence
    assert "not measurably better than always naming the largest class (50.0%). Check that labels" in sentence


def test_a_model_that_learned_nothing_is_not_praised_for_having_no_gap() -> None:
    assert judged(500, 0.5) == (
        "Accuracy is 50.0% on the training images and 50.0% on these images, which is not measurably better than "
        "always naming the largest class (50.0%)."
    )


@pytest.mark.parametrize(("images", "comforts"), [(6, False), (19, False), (199, False), (200, True)])
def test_few_images_give_no_comfort(images: int, comforts: bool) -> None:
    sentence = judged(images, 1.0, images)

    assert ("no sign of overfitting" in sentence) == comforts
    assert (f"{images} images cannot rule out overfitting" in sentence) != comforts


def test_without_a_training_accuracy_there_is_no_gap_to_judge() -> None:
    assert judged(880, None) == (
        "The training accuracy is unknown or belongs to other data, so overfitting cannot be assessed."
    )


def test_a_cross_validation_is_named_and_its_intervals_are_wider() -> None:
    labels = np.arange(90) % 2
    rows = np.where(labels[:, None] == np.arange(2), 0.8, 0.2)
    rows[:9] = rows[:9, ::-1]

    crossed = evaluate(rows, labels, ("a", "b"), 1.0, folds=5)

    assert crossed.accuracy_interval == wilson(36, 40)  # 90 / (1 + 5 / 4)
    assert str(crossed).endswith("5-fold cross-validated on 90 images")
    assert "90.0% on the same images while they were held out" in crossed.gap_in_words


def test_images_of_a_group_count_as_one_for_the_interval() -> None:
    labels = np.zeros(60, np.int64)
    rows = np.tile([0.9, 0.1], (60, 1))

    grouped = evaluate(rows, labels, ("a", "b"), groups=np.arange(60) // 6)

    assert grouped.accuracy_interval == wilson(10, 10) and grouped.images == 60
    assert grouped.classes[0].recall_interval == wilson(10, 10)
