"""comparison.py: a real difference is significant, equal models are not, and only comparable runs are compared."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import DataError, UsageError
from hangtag.evaluation.comparison import compare_judgements, compare_probabilities, name_pair
from hangtag.evaluation.guarantee_report import measure_guarantees
from hangtag.evaluation.judge import Judgement
from hangtag.evaluation.metrics import evaluate, wilson
from hangtag.model.artifact import OUTPUT
from hangtag.model.guarantees import Guarantees

NAMES = ("old", "new")


def answers(count: int, accuracy: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities for three classes with this accuracy, and the labels."""
    labels = np.arange(count) % 3
    random = np.random.default_rng(seed)
    predicted = np.where(random.random(count) < accuracy, labels, (labels + 1) % 3)
    return 0.1 + 0.7 * np.eye(3)[predicted], labels


def test_the_numbers_are_those_of_the_paired_table() -> None:
    first, labels = answers(1000, 0.90, 0)
    second, _ = answers(1000, 0.95, 1)
    one, two = first.argmax(1) == labels, second.argmax(1) == labels

    found = compare_probabilities(NAMES, labels, first, second)

    only = int((one & ~two).sum()), int((two & ~one).sum())
    assert (found.only_first, found.only_second) == only
    assert found.both_right + found.both_wrong + sum(only) == found.images == 1000
    assert found.p == pytest.approx(binomtest(only[0], sum(only), 0.5).pvalue)
    assert found.difference == pytest.approx(two.mean() - one.mean())
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.significant and "new is more accurate than old" in found.in_words
    assert found.loss_difference < 0 and found.loss_interval[1] < 0
    back = compare_probabilities(NAMES[::-1], labels, second, first)
    said = found.in_words.partition(":")[0]
    assert back.in_words.partition(":")[0] == said
    low, high = found.interval
    assert f"(95% interval {100 * low:.2f} to {100 * high:.2f}; p = " in said


def test_one_image_is_one_image_in_words() -> None:
    first, labels = answers(1, 1.0, 0)
    second, _ = answers(1, 0.0, 0)

    words = compare_probabilities(NAMES, labels, first, second).in_words

    assert "only old is right on 1 image, only new on 0. Only a large difference would show on 1 image." in words


def test_equal_models_differ_significantly_in_at_most_five_of_a_hundred() -> None:
    called = covered = 0
    for seed in range(300):
        first, labels = answers(400, 0.9, 2 * seed)
        second, _ = answers(400, 0.9, 2 * seed + 1)
        found = compare_probabilities(NAMES, labels, first, second)
        called += found.significant
        covered += found.interval[0] <= 0 <= found.interval[1]

    assert called <= 20
    assert covered >= 275


def test_the_same_answers_do_not_differ() -> None:
    first, labels = answers(50, 0.8, 0)

    found = compare_probabilities(NAMES, labels, first, first)

    assert (found.p, found.difference, found.significant) == (1.0, 0.0, False)
    assert "No significant difference" in found.in_words


def test_probabilities_for_different_images_are_refused() -> None:
    first, labels = answers(50, 0.8, 0)

    with pytest.raises(DataError, match="cannot be compared"):
        compare_probabilities(NAMES, labels, first, first[:40])
    with pytest.raises(DataError, match="cannot be compared"):
        compare_probabilities(NAMES, labels[:0], first[:0], first[:0])


def judgement(side: int, names: list[str], wrong: str) -> Judgement:
    """Of a model that takes images of this size, in the order of these names, and that is wrong on one of them."""
    labels = np.array([int(name) % 3 for name in names])
    images = np.full((len(names), side, side), 9, np.uint8)
    images[:, 0, 0] = [int(name) for name in names]
    data = LabelledImages(images, labels, ("a", "b", "c"), names=tuple(names))
    predicted = np.where(np.array(names) == wrong, (labels + 1) % 3, labels)
    rows = (0.1 + 0.7 * np.eye(3)[predicted]).astype(np.float32)
    found = evaluate(rows, labels, data.class_names, folds=5)
    guarantees = measure_guarantees({OUTPUT: rows}, labels, Guarantees.none(3, "for a test"))
    return Judgement("cross-validation", data, {OUTPUT: rows}, found, guarantees)


def test_images_at_two_sizes_are_matched_by_name_in_any_order() -> None:
    names = [str(number) for number in range(9)]
    first = judgement(8, names, "4")

    same, rows = compare_judgements(NAMES, first, judgement(12, names[::-1], "4"))
    other, _ = compare_judgements(NAMES, first, judgement(12, names[3:] + names[:3], "7"))

    assert (same.only_first, same.only_second, same.both_wrong) == (0, 0, 1)
    assert same.accuracies[0] == (first.evaluation.accuracy, *first.evaluation.accuracy_interval)
    assert same.accuracies[0][1] < wilson(8, 9)[0]  # a cross-validation says less than nine new images
    assert (rows == first.probabilities).all()
    assert (other.only_first, other.only_second, other.both_wrong) == (1, 1, 0)
    with pytest.raises(UsageError, match="other images"):
        compare_judgements(NAMES, first, judgement(12, [*names[:-1], "11"], "4"))


def test_runs_of_one_name_are_distinguished_by_their_paths(tmp_path: object) -> None:
    from pathlib import Path

    assert name_pair(Path("runs/a"), Path("runs/b")) == ("a", "b")
    assert name_pair(Path("x/a"), Path("y/a")) == ("x/a", "y/a")
