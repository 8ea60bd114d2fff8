"""guarantees.py and guarantee_report.py: guarantees hold on fresh data, and their limitations are reported."""

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import betabinom

from hangtag.errors import HangtagError, UsageError
from hangtag.evaluation.guarantee_report import GuaranteeReport, measure_guarantees
from hangtag.evaluation.metrics import Share
from hangtag.model.calibration import Calibrator, cross_fitted, log_softmax, softmax
from hangtag.model.guarantees import (
    LEAST_SURE,
    SURE_ACCURACY,
    TARGET_ACCURACIES,
    AnswerPolicy,
    Guarantees,
    fit_guarantees,
)
from toys import drawn

NAMES = ("a", "b", "c", "d", "e")


def fitted(logits: NDArray[np.float32], labels: NDArray[np.int64], calibrator: Calibrator | None = None) -> Guarantees:
    chosen = calibrator or Calibrator.none(logits.shape[1])
    plain, rows = softmax(logits).astype(np.float32), chosen(log_softmax(logits)).astype(np.float32)
    return fit_guarantees(rows, labels, chosen, NAMES, calibrator is not None, uncalibrated=plain)


def of(rows: NDArray[np.float32], ood_score: NDArray[Any] | None = None) -> dict[str, NDArray[Any]]:
    """The outputs of a model file; these answers stand for both kinds of probabilities."""
    more = {} if ood_score is None else {"ood_score": ood_score}
    return {"probabilities": rows, "uncalibrated": rows, **more}


def taught(count: int = 4000, seed: int = 0) -> Guarantees:
    logits, labels = drawn(count, seed=seed)
    return fitted(logits, labels, cross_fitted(logits, labels)[0])


def fresh(count: int = 4000, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    logits, labels = drawn(count, seed=seed)
    return softmax(logits).astype(np.float32), labels


@pytest.mark.parametrize("share", [0.9, 0.95])
def test_sure_answers_reach_the_target_accuracy_in_nine_of_ten_trainings(share: float) -> None:
    rows, labels = fresh(20_000)
    kept = 0
    for seed in range(2, 32):
        logits, truth = drawn(1500, seed=seed)
        guarantees = fitted(logits, truth)
        sure = guarantees.decide(of(rows), AnswerPolicy(target_accuracy=share)).sure
        assert sure is not None
        right = (rows.argmax(1) == labels)[sure]
        kept += not len(right) or right.mean() >= share

    assert kept >= 26


def test_too_few_images_have_no_threshold_for_a_high_target_accuracy() -> None:
    guarantees = taught(60)
    rows, _ = fresh(50)

    assert guarantees.confidence_thresholds[TARGET_ACCURACIES.index(0.999)] is None
    assert not guarantees.decide(of(rows), AnswerPolicy(target_accuracy=0.999)).sure.any()  # type: ignore[union-attr]


def test_a_cost_sets_the_lowest_confidence_of_sure_answers() -> None:
    rows, _ = fresh(500)

    sure = taught().decide(of(rows), AnswerPolicy(cost=5)).sure

    np.testing.assert_array_equal(sure, rows.max(1) > 0.8)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_a_sure_answer_is_a_set_of_one_label_probable_enough_and_not_ood(coverage: float) -> None:
    guarantees = taught()
    rows, labels = fresh(4000)
    ood_score = np.linspace(0, 1, 4000)
    lowest = guarantees.confidence_thresholds[TARGET_ACCURACIES.index(SURE_ACCURACY)]

    verdicts = guarantees.decide(of(rows, ood_score), AnswerPolicy(coverage=coverage, ood_false_positive_rate=0.1))

    assert verdicts.in_set is not None and verdicts.sure is not None and lowest is not None
    np.testing.assert_array_equal(verdicts.is_ood, ood_score > 0.9)
    single, probable = verdicts.in_set.sum(1) == 1, rows.max(1) >= lowest
    np.testing.assert_array_equal(verdicts.sure, single & probable & (ood_score <= 0.9))
    assert (rows.argmax(1) == labels)[verdicts.sure].mean() > 0.88


def test_answers_that_know_nothing_are_never_sure() -> None:
    """Equal answers whose order is that of the classes, as a network that learned nothing gives them."""
    labels = np.repeat([0, 1], 200)
    rows = np.full((400, 2), [0.50201657, 0.49798343], np.float32)
    rows[200:] += np.array([1e-7, -1e-7], np.float32)  # another batch is rounded in another way
    guarantees = fit_guarantees(rows, labels, Calibrator.none(2), ("green", "red"), has_ood_score=False)

    for given in ({}, {"coverage": 0.5}, {"cost": 1.5}, {"target_accuracy": 0.9}):
        policy = AnswerPolicy(**given)  # type: ignore[arg-type]
        assert not guarantees.decide(of(rows), policy).sure.any()  # type: ignore[union-attr]
    assert guarantees.decide(of(rows), AnswerPolicy()).in_set.all()  # type: ignore[union-attr]
    assert any("not measurably better than chance" in text for text in guarantees.limitations)


def test_always_naming_the_largest_class_is_not_knowing() -> None:
    labels = (np.arange(600) % 50 == 0).astype(np.int64)
    rows = np.full((600, 2), [0.98, 0.02], np.float32)
    guarantees = fit_guarantees(rows, labels, Calibrator.none(2), ("fine", "broken"), has_ood_score=False)
    finds = np.where(labels[:, None] == 1, [[0.2, 0.8]], [[0.99, 0.01]]).astype(np.float32)
    useful = fit_guarantees(finds, labels, Calibrator.none(2), ("fine", "broken"), has_ood_score=False)

    assert not guarantees.better_than_chance and useful.better_than_chance
    assert not guarantees.decide(of(rows), AnswerPolicy()).sure.any()  # type: ignore[union-attr]
    assert useful.decide(of(finds), AnswerPolicy()).sure.mean() > 0.9  # type: ignore[union-attr]


def test_equal_answers_pass_or_fail_together() -> None:
    """The first 100 are right; a threshold within equal answers would depend on their order."""
    labels = np.repeat([0, 1], 100)
    rows = np.full((200, 2), [0.8, 0.2], np.float32)

    assert set(fit_guarantees(rows, labels, Calibrator.none(2), ("a", "b"), False).confidence_thresholds) == {None}


def test_thresholds_are_not_fitted_to_their_own_labels() -> None:
    logits, labels = drawn(400)
    rows = softmax(logits).astype(np.float32)
    optimistic = rows.copy()
    optimistic[np.arange(400), labels] += 0.5
    optimistic /= optimistic.sum(1, keepdims=True)
    calibrator = cross_fitted(logits, labels)[0]

    honest = fit_guarantees(rows, labels, calibrator, NAMES, False, rows, rows)
    fitted_to_them = fit_guarantees(optimistic, labels, calibrator, NAMES, False, rows, rows)

    assert fitted_to_them.conformal == honest.conformal
    pairs = zip(fitted_to_them.confidence_thresholds, honest.confidence_thresholds, strict=True)
    assert all(two is None or (one is not None and one >= two) for one, two in pairs)


def test_ood_images_do_not_count_for_coverage() -> None:
    guarantees = taught()
    rows, labels = fresh()
    wrong = (labels + 1) % 5  # as if the images were of something else
    ood_score = np.where(np.arange(len(rows)) % 4 == 0, 1, 0).astype(np.float32)
    mixed = np.where(ood_score > 0, wrong, labels)

    report = measure_guarantees(of(rows, ood_score), mixed, guarantees)

    assert report.sets[1].covered.of == 3000 and report.sets[1].covered.share == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coverage": 1.0}, "coverage must be above 0 and below 1, got 1"),
        ({"coverage": 0.0}, "coverage must be above 0 and below 1, got 0"),
        ({"method": "apz"}, "unknown method 'apz'"),
        ({"ood_false_positive_rate": 0.0}, "OOD false positive rate must be above 0 and below 1, got 0"),
        ({"ood_false_positive_rate": 1.0}, "OOD false positive rate must be above 0 and below 1, got 1"),
        ({"cost": 1.0}, "cost must be above 1, got 1"),
        ({"cost": -3.0}, "cost must be above 1, got -3"),
        ({"cost": float("nan")}, "cost must be above 1, got nan"),
        ({"target_accuracy": 0.97}, "unknown target accuracy 0.97"),
        ({"target_accuracy": 0.99, "cost": 9.0}, "cost and target accuracy cannot be combined"),
    ],
)
def test_an_impossible_policy_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        AnswerPolicy(**settings)  # type: ignore[arg-type]

    assert caught.value.message == message and caught.value.hint


def test_guarantees_survive_json() -> None:
    guarantees = taught(500)

    assert Guarantees.from_json(json.loads(json.dumps(guarantees.to_json()))) == guarantees


@pytest.mark.parametrize("count", [1, 2, 6, 18, 19, 25])
def test_few_held_out_images_limit_the_guarantees(count: int) -> None:
    guarantees = taught(count)
    rows, _ = fresh(50)

    verdicts = guarantees.decide(of(rows), AnswerPolicy())

    assert verdicts.in_set is not None
    why_not = guarantees.why_not(AnswerPolicy())
    assert (why_not is None) == (count >= 19)
    if why_not is not None:
        assert verdicts.in_set.all() and not verdicts.sure.any()  # type: ignore[union-attr]
        assert f"95% coverage needs 19 held-out images; this model had {count}, so every set" in why_not
        assert why_not in guarantees.limitations
    assert guarantees.why_not(AnswerPolicy(coverage=0.9995)) is not None


def test_a_class_without_held_out_images_is_named() -> None:
    logits, labels = drawn(200)
    known = labels != 3

    guarantees = fitted(logits[known], labels[known])

    assert guarantees.images[3] == 0
    assert "no held-out images of d: guarantees are untested on these classes" in guarantees.limitations


def test_a_model_without_held_out_images_has_no_guarantees() -> None:
    guarantees = Guarantees.none(5, "nothing was held out")
    rows, labels = fresh(300)

    verdicts = guarantees.decide(of(rows), AnswerPolicy())
    kept = measure_guarantees(of(rows), labels, guarantees)

    assert (verdicts.in_set, verdicts.is_ood, verdicts.sure) == (None, None, None)
    assert guarantees.decide(of(rows), AnswerPolicy(target_accuracy=0.99)).sure is None
    assert (kept.sets, kept.sure, kept.target_accuracies, kept.limitations) == ((), None, (), ("nothing was held out",))
    assert GuaranteeReport.from_json(json.loads(json.dumps(kept.to_json()))) == kept


def test_guarantees_are_measured_with_intervals() -> None:
    guarantees = taught()
    rows, labels = fresh()
    ood_score = np.random.default_rng(0).random(len(rows)).astype(np.float32)

    kept = measure_guarantees(of(rows, ood_score), labels, guarantees)

    assert [each.coverage for each in kept.sets] == [0.9, 0.95, 0.99]
    for each in kept.sets:
        assert each.covered.share == pytest.approx(each.coverage, abs=0.02) and each.enough
        assert each.covered.count == sum(one.count for one in each.classes)
    assert [target for target, _, _ in kept.target_accuracies] == list(TARGET_ACCURACIES)
    assert kept.ood_false_positives is not None and kept.ood_false_positives.share == pytest.approx(0.05, abs=0.015)
    assert kept.answered[-1] == 1.0 and kept.accuracy[-1] == pytest.approx((rows.argmax(1) == labels).mean())
    assert GuaranteeReport.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    assert Share.counted(np.zeros(0, bool)) == Share(0, 0, None, None)


def test_probabilities_that_are_nan_are_refused() -> None:
    rows, labels = fresh(30)
    rows[3] = np.nan

    with pytest.raises(HangtagError, match="NaN"):
        measure_guarantees(of(rows), labels, taught())


def test_calibration_ignores_a_constant_added_to_logits() -> None:
    logits, labels = drawn(600, temperature=3.0)
    calibrator = cross_fitted(logits, labels)[0]

    np.testing.assert_allclose(calibrator(log_softmax(logits)), calibrator(log_softmax(logits + 7.0)), atol=1e-9)


@pytest.mark.parametrize("kind", ["constant", "random", "overconfident"])
@pytest.mark.parametrize(("classes", "images"), [(2, 25), (2, 400), (7, 150), (60, 200), (1500, 120)])
def test_models_that_learned_nothing_keep_their_coverage_and_are_never_sure(
    kind: str, classes: int, images: int
) -> None:
    random = np.random.default_rng([classes, images])
    width = {"constant": 1e-8, "random": 2.0, "overconfident": 12.0}[kind]

    def nothing(count: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        logits = np.linspace(0, 0.01, classes) + width * random.normal(size=(count, classes))
        return log_softmax(logits), random.integers(0, classes, count)

    few, many = [], []
    for _ in range(4 if classes < 1000 else 1):
        (logs, labels), (new, truth) = nothing(images), nothing(1000)
        calibrator, out_of_fold = cross_fitted(logs, labels)
        rows, plain = calibrator(logs).astype(np.float32), np.exp(logs).astype(np.float32)
        names = tuple(map(str, range(classes)))
        guarantees = fit_guarantees(rows, labels, calibrator, names, False, out_of_fold, plain)
        outputs = {"probabilities": calibrator(new).astype(np.float32), "uncalibrated": np.exp(new).astype(np.float32)}

        for policy in (AnswerPolicy(), AnswerPolicy(coverage=0.5), AnswerPolicy(target_accuracy=0.9)):
            assert not guarantees.decide(outputs, policy).sure.any()  # type: ignore[union-attr]
        covered = guarantees.conformal[0].sets(outputs["uncalibrated"], 0.95, never_empty=False)
        rank = int(np.ceil((images + 1) * 0.95 - 1e-9))
        exact = betabinom(1000, rank, images + 1 - rank)
        hits = int(covered[np.arange(1000), truth].sum())
        few.append(exact.cdf(hits))
        many.append(exact.sf(hits - 1))

    assert min(few) > 1e-4
    assert kind == "constant" or min(many) > 1e-4


def test_an_answer_that_is_hardly_more_than_a_coin_toss_is_not_sure() -> None:
    count = 2000
    labels = np.arange(count) % 2
    confidence = np.where(np.arange(count) % 20 == 0, 0.6, 0.99).astype(np.float32)
    rows = np.where(labels[:, None] == np.arange(2), confidence[:, None], 1 - confidence[:, None])
    guarantees = fit_guarantees(rows, labels, Calibrator.none(2), ("a", "b"), has_ood_score=False)

    verdicts = guarantees.decide(of(rows), AnswerPolicy())

    assert guarantees.confidence_thresholds[TARGET_ACCURACIES.index(SURE_ACCURACY)] == pytest.approx(0.6)
    assert verdicts.in_set is not None and (verdicts.in_set.sum(axis=1) == 1).all()
    assert verdicts.sure is not None and (verdicts.sure == (confidence >= LEAST_SURE)).all()


def test_only_a_calibrated_model_has_numbers_from_before_calibration() -> None:
    logits, labels = drawn(600)
    calibrator = Calibrator("temperature", tuple(map(tuple, (0.5 * np.eye(5)).tolist())), (0.0,) * 5, 600)
    rows = softmax(logits).astype(np.float32)

    with_map, without = (
        measure_guarantees(of(rows), labels, fitted(logits, labels, each)) for each in (calibrator, None)
    )

    assert with_map.before is not None and without.before is None


@pytest.mark.parametrize(
    "setting",
    [
        {"coverage": "0.9"}, {"coverage": None}, {"cost": "5"}, {"target_accuracy": "0.9"}, {"method": None},
        {"ood_false_positive_rate": []},
    ],
)  # fmt: skip
def test_a_policy_of_the_wrong_type_is_one_line(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be a "):
        AnswerPolicy(**setting)
