"""A linear head: as good as a tuned logistic regression, for any classes, weights and groups."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_info

from hangtag.machine import blas_threads
from hangtag.training import head
from hangtag.training.head import fit_head, loss_and_accuracy

Drawn = tuple[NDArray[np.float32], NDArray[np.int64]]


def drawn(count: int, size: int = 50, classes: int = 3, seed: int = 0) -> Drawn:
    """Features around a mean for each class."""
    means = 0.35 * np.random.default_rng(9).normal(size=(classes, size))
    random, labels = np.random.default_rng(seed), np.arange(count) % classes
    return (3 + means[labels] + random.normal(size=(count, size))).astype(np.float32), labels


def fit(features: NDArray[np.float32], labels: NDArray[np.int64], classes: int = 3, **given: NDArray) -> head.Head:
    given = {"weights": np.ones(len(labels)), "groups": np.arange(len(labels))} | given
    return fit_head([features], labels, classes, given["weights"], given["groups"], 0)


@pytest.mark.parametrize(("count", "slack"), [(30, 0.05), (200, 0.02)])  # fewer and more images than features
def test_a_head_is_nearly_as_good_as_the_regression_that_is_best_on_the_test(count: int, slack: float) -> None:
    features, labels = drawn(count)
    test, true = drawn(3000, seed=1)
    rivals = (LogisticRegression(C=10.0**power, max_iter=1000).fit(features, labels) for power in range(-5, 2))

    loss, accuracy = loss_and_accuracy(fit(features, labels)(test), true)

    assert accuracy > max(rival.score(test, true) for rival in rivals) - slack
    assert loss < 0.8  # the logits are scaled to be as sure as they are right


def test_discriminant_analysis_is_scikit_learns() -> None:
    features, labels = drawn(90, size=6)
    ours = head._Discriminant(3, features, labels, np.ones(90))
    ours.set(0.3)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(features, labels)

    logits = features @ ours.weight.T + ours.bias

    np.testing.assert_allclose(
        log_softmax(logits, axis=1), log_softmax(theirs.decision_function(features), axis=1), atol=1e-2
    )


def test_a_regression_gives_the_same_answers_in_the_basis_of_few_images() -> None:
    features, labels = drawn(30)
    basis = head._basis([features])
    assert basis is not None
    whole, reduced = (head._Regression(3, rows, labels, np.ones(30)) for rows in (features, features @ basis))
    whole.set(0.01)
    reduced.set(0.01)

    logits = features @ basis @ reduced.weight.T + reduced.bias

    np.testing.assert_allclose(logits, features @ whole.weight.T + whole.bias, atol=0.02)


def test_two_classes_and_a_class_without_images() -> None:
    features, labels = drawn(60, classes=2)
    found = fit(features, labels, classes=4)

    logits = found(features)

    assert loss_and_accuracy(logits, labels)[1] > 0.9
    assert set(logits.argmax(axis=1)) == {0, 1}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_images_give_a_head(count: int) -> None:
    features, labels = drawn(3)

    assert np.isfinite(fit(features[:count], labels[:count])(features)).all()


@pytest.mark.parametrize("repeats", [1, 2])  # copies of an image show no variation either
def test_one_image_a_class_does_not_make_a_head_certain(repeats: int) -> None:
    features, labels = drawn(3 * repeats)
    few = np.tile(features[:3], (repeats, 1))

    logits = fit(few, labels, groups=labels)(drawn(3000, seed=1)[0])

    assert np.median(np.exp(log_softmax(logits, axis=1)).max(axis=1)) < 0.999
    assert loss_and_accuracy(logits, drawn(3000, seed=1)[1])[0] < 5  # without a variance, 2e10


def test_images_of_weight_0_do_not_count() -> None:
    features, labels = drawn(60)
    wrong = np.concatenate([labels, (labels + 1) % 3])
    twice, weights = np.concatenate([features, features]), np.repeat([2.0, 0.0], 60)

    found = fit(twice, wrong, weights=weights, groups=np.tile(np.arange(60), 2))

    assert loss_and_accuracy(found(features), labels)[1] > 0.9


def test_groups_stay_on_one_side_of_a_fold() -> None:
    labels, groups = np.arange(60) % 3, np.arange(60) // 6

    folds = head._folds(labels, groups, 0)

    assert len(folds) == 5
    assert sorted(np.concatenate(folds).tolist()) == list(range(60))
    assert sum(len(np.unique(groups[fold])) for fold in folds) == 10


def test_copies_do_not_make_a_head_surer_than_it_is() -> None:
    """Labels are noise: with groups the copies of an image help nobody to predict it."""
    random = np.random.default_rng(0)
    features = np.repeat(random.normal(size=(20, 50)).astype(np.float32), 5, axis=0)
    labels, groups = np.repeat(random.integers(0, 3, 20), 5), np.repeat(np.arange(20), 5)
    new = random.normal(size=(500, 50)).astype(np.float32)

    together = log_softmax(fit(features, labels, groups=groups)(new), axis=1).max(axis=1).mean()
    apart = log_softmax(fit(features, labels)(new), axis=1).max(axis=1).mean()

    assert together < apart - 0.2


def test_few_images_are_fitted_with_one_thread_for_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    fold = head._folds

    def seen(*arguments: Any) -> Any:
        used.extend(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")
        return fold(*arguments)

    monkeypatch.setattr(head, "_folds", seen)
    rows, labels = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32), np.arange(20) % 2
    with blas_threads(2):
        fit_head([rows], labels, 2, np.ones(20), np.arange(20), 0)

    assert used and set(used) == {1}
