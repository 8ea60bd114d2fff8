"""conformal.py: coverage is as exact as theory says, and the sets are those of MAPIE."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import betabinom

from hangtag.errors import UnknownName, UsageError
from hangtag.model import conformal
from hangtag.model.calibration import softmax
from hangtag.model.conformal import (
    LEVELS,
    METHODS,
    Conformal,
    calibrate,
    calibrate_by_folds,
    needed,
    proven_coverage,
    scores_of,
    threshold_at,
)
from toys import Drawn, drawn


def rows(count: int, seed: int = 0) -> Drawn:
    logits, labels = drawn(count, seed=seed, classes=6)
    return softmax(logits), labels


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95, 0.99])
def test_coverage_stays_in_the_band_of_theory(method: str, coverage: float) -> None:
    """With n calibration images, the number of m new images covered is beta-binomial (Vovk, 2012)."""
    probabilities, labels = rows(3000)
    n, m, outside, trials = 1000, 2000, 0, 100
    rank = int(np.ceil((n + 1) * coverage - 1e-9))
    low, high = betabinom(m, rank, n + 1 - rank).interval(0.998)
    random = np.random.default_rng(1)
    for _ in range(trials):
        order = random.permutation(3000)
        fitted = calibrate(probabilities[order[:n]], labels[order[:n]], method)
        inside = fitted.sets(probabilities[order[n:]], coverage, never_empty=False)
        covered = inside[np.arange(m), labels[order[n:]]].sum()
        outside += covered < low or (covered > high and method == "threshold")  # the others tie at 1, where p is 0

    assert outside <= 2


@pytest.mark.parametrize(("method", "theirs"), [("threshold", "lac"), ("aps", "aps"), ("raps", "raps")])
def test_sets_are_those_of_mapie(method: str, theirs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mapie = pytest.importorskip("mapie.classification")
    scores = pytest.importorskip("mapie.conformity_scores")
    probabilities, labels = rows(1200)
    kinds = {
        "lac": scores.LACConformityScore,
        "aps": scores.APSConformityScore,
        "raps": scores.RAPSConformityScore,
    }

    class Answers:
        """A classifier whose X are its probabilities."""

        classes_ = np.arange(6)
        n_features_in_ = 6

        def __sklearn_is_fitted__(self) -> bool:
            return True

        def fit(self, X: object, y: object) -> "Answers":
            return self

        def predict_proba(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(X)

        def predict(self, X: NDArray[np.float64]) -> NDArray[np.int64]:
            return np.asarray(X).argmax(1)

    class Never(np.random.RandomState):
        """MAPIE subtracts a random part of the label's own probability; here, nothing."""

        def uniform(self, *_: object, size: int) -> NDArray[np.float64]:  # type: ignore[override]
            return np.zeros(size)

    if method == "raps":
        monkeypatch.setattr(conformal, "RAPS_PENALTY", 0.0)  # MAPIE chooses its own penalty
        theirs = "aps"
    fitted = mapie.SplitConformalClassifier(
        Answers(),
        confidence_level=[0.8, 0.9, 0.95],
        conformity_score=kinds[theirs](),
        prefit=True,
        random_state=Never(0),
    )
    fitted.conformalize(probabilities[:600], labels[:600])
    options = {} if theirs == "lac" else {"conformity_score_params": {"include_last_label": False}}
    _, expected = fitted.predict_set(probabilities[600:], **options)

    ours = calibrate(probabilities[:600], labels[:600], method)
    for place, coverage in enumerate([0.8, 0.9, 0.95]):
        found = ours.sets(probabilities[600:], coverage, never_empty=theirs != "lac")
        np.testing.assert_array_equal(found, expected[:, :, place])


def test_scores_are_those_of_the_papers() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])

    np.testing.assert_allclose(scores_of(probabilities, "threshold"), -np.log(probabilities))
    np.testing.assert_allclose(scores_of(probabilities, "aps"), [[0.5, 0.8, 1.0], [0.9, 1.0, 0.8]])
    np.testing.assert_allclose(scores_of(probabilities, "raps"), [[0.5, 0.9, 1.2], [1.0, 1.2, 0.8]])


def test_a_set_is_never_empty_unless_exactness_is_requested() -> None:
    probabilities = np.array([[0.4, 0.35, 0.25]] * 3)
    sure = calibrate(np.array([[0.99, 0.005, 0.005]] * 99), np.zeros(99, np.int64))

    assert sure.sets(probabilities, 0.9).tolist() == [[True, False, False]] * 3
    assert not sure.sets(probabilities, 0.9, never_empty=False).any()


def test_too_few_images_give_sets_of_all_labels() -> None:
    probabilities, labels = rows(30)
    few = calibrate(probabilities, labels)

    assert few.threshold(0.95) is not None and few.threshold(0.99) is None
    assert few.sets(probabilities, 0.99).all()
    assert (needed(0.9), needed(0.95), needed(0.99), needed(0.999)) == (9, 19, 99, 999)
    assert threshold_at(np.arange(19.0), 0.95) == 18.0 and threshold_at(np.arange(18.0), 0.95) is None


def test_a_coverage_between_two_levels_takes_the_higher() -> None:
    probabilities, labels = rows(500)
    fitted = calibrate(probabilities, labels)

    assert fitted.level(0.951) == 0.96 and fitted.level(0.95) == 0.95 and fitted.level(0.2) == LEVELS[0]
    assert fitted.threshold(0.951) == fitted.threshold(0.96)
    assert fitted.threshold(0.9995) is None
    assert Conformal.from_json(fitted.to_json()) == fitted


@pytest.mark.parametrize("coverage", [1.0, 1.5, 0.0, -1.0, float("nan")])
def test_an_impossible_coverage_is_refused(coverage: float) -> None:
    probabilities, labels = rows(50)

    with pytest.raises(UsageError, match="coverage must be above 0 and below 1") as caught:
        calibrate(probabilities, labels).sets(probabilities, coverage)

    assert caught.value.hint


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UnknownName, match="did you mean 'raps'"):
        calibrate(*rows(50), method="rap")


@pytest.mark.parametrize("method", METHODS)
def test_sets_by_folds_are_those_of_the_p_values(method: str) -> None:
    probabilities, labels = rows(90)
    folds, new = np.arange(90) % 3, np.stack([rows(40, seed=seed)[0] for seed in (5, 6, 7)], axis=1)  # (40, 3, 6)

    fitted = calibrate_by_folds(probabilities, labels, folds, method)

    own = scores_of(probabilities, method)[np.arange(90), labels]
    for coverage in (0.8, 0.9, 0.95):
        expected = np.zeros((40, 6), bool)
        for image in range(40):
            for label in range(6):
                above = sum(own[i] >= scores_of(new[image, folds[i]][None], method)[0, label] for i in range(90))
                expected[image, label] = (1 + above) / 91 > 1 - coverage
        assert (fitted.sets_by_folds(new, coverage) == expected).all()


def test_sets_by_folds_cover_as_asked() -> None:
    """The folds' networks differ, as noise on the logits; sets come from all of them."""
    covered = []
    for seed in range(40):
        logits, labels = drawn(160, seed=seed, classes=6)
        noise = np.random.default_rng(seed).normal(size=(5, 6))
        by_fold = np.stack([softmax(logits + each) for each in noise], axis=1)  # (160, 5, 6)
        folds = np.arange(60) % 5
        fitted = calibrate_by_folds(by_fold[np.arange(60), folds], labels[:60], folds)
        covered.append(fitted.sets_by_folds(by_fold[60:], 0.95)[np.arange(100), labels[60:]].mean())

    assert np.mean(covered) > 0.94


def test_too_few_scores_give_sets_of_all_labels() -> None:
    probabilities, labels = rows(18)
    fitted = calibrate_by_folds(probabilities, labels, np.arange(18) % 3)

    assert fitted.sets_by_folds(np.stack([probabilities] * 3, axis=1), 0.95).all()
    with pytest.raises(ValueError, match="must be those of 18 images"):
        Conformal(fitted.method, 18, fitted.thresholds, fitted.fold_scores[:2])


def test_what_is_proven_is_less_than_what_is_asked_for() -> None:
    assert proven_coverage(0.95, 300, 5) == pytest.approx(0.9 - 1.6 / 61)
    assert proven_coverage(0.95, 20, 20) == pytest.approx(0.9)  # leaving one out
    assert proven_coverage(0.5, 10, 2) == 0
