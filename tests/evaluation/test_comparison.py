"""comparison.py: a real difference is significant, equal models are not, and only comparable runs are compared."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from hangtag.errors import DataError
from hangtag.evaluation.comparison import compare_probabilities, name_pair

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


def test_runs_of_one_name_are_distinguished_by_their_paths(tmp_path: object) -> None:
    from pathlib import Path

    assert name_pair(Path("runs/a"), Path("runs/b")) == ("a", "b")
    assert name_pair(Path("x/a"), Path("y/a")) == ("x/a", "y/a")
