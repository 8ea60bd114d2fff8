"""trust.py and promises.py: what is asked for is what is judged, and what cannot be promised is said."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from hangtag.errors import HangtagError, UsageError
from hangtag.evaluation.guarantee_report import Promises, Share, promises
from hangtag.model.calibration import Calibrator, fit_calibrator, log_softmax, softmax
from hangtag.model.guarantees import RIGHT, Asking, Trust, fit_trust
from toys import drawn

NAMES = ("a", "b", "c", "d", "e")


def taught(count: int = 4000, seed: int = 0) -> Trust:
    logits, labels = drawn(count, seed=seed)
    return fit_trust(logits, labels, fit_calibrator(logits, labels), NAMES, unfamiliar=True)


def fresh(count: int = 4000, seed: int = 1) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    logits, labels = drawn(count, seed=seed)
    return softmax(logits).astype(np.float32), labels


@pytest.mark.parametrize("share", [0.9, 0.95])
def test_answers_are_right_as_often_as_asked_in_nine_of_ten_trainings(share: float) -> None:
    rows, labels = fresh(20_000)
    kept = 0
    for seed in range(2, 32):
        logits, truth = drawn(1500, seed=seed)
        trust = fit_trust(logits, truth, Calibrator.none(5), NAMES, unfamiliar=False)
        sure = trust.judge(rows, None, Asking(right=share)).sure
        assert sure is not None
        right = (rows.argmax(1) == labels)[sure]
        kept += not len(right) or right.mean() >= share

    assert kept >= 26


def test_too_few_pictures_cannot_say_what_is_right_so_often() -> None:
    trust = taught(60)
    rows, _ = fresh(50)

    assert trust.least[RIGHT.index(0.999)] is None
    assert not trust.judge(rows, None, Asking(right=0.999)).sure.any()  # type: ignore[union-attr]


def test_a_cost_answers_only_where_the_risk_is_worth_it() -> None:
    rows, _ = fresh(500)

    sure = taught().judge(rows, None, Asking(cost=5)).sure

    np.testing.assert_array_equal(sure, rows.max(1) > 0.8)


def test_without_either_a_set_of_one_label_is_sure_unless_the_picture_is_unfamiliar() -> None:
    rows, _ = fresh(500)
    strange = np.linspace(0, 1, 500)

    verdicts = taught().judge(rows, strange, Asking(coverage=0.8, false_alarms=0.1))

    assert verdicts.inside is not None
    np.testing.assert_array_equal(verdicts.unfamiliar, strange > 0.9)
    np.testing.assert_array_equal(verdicts.sure, (verdicts.inside.sum(1) == 1) & (strange <= 0.9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coverage": 1.0}, "a coverage of 1 cannot be promised"),
        ({"coverage": 0.0}, "a coverage of 0 cannot be promised"),
        ({"method": "apz"}, "unknown method 'apz'"),
        ({"false_alarms": 0.0}, "a share of 0 false alarms"),
        ({"false_alarms": 1.0}, "a share of 1 false alarms"),
        ({"cost": 1.0}, "a cost of 1"),
        ({"cost": -3.0}, "a cost of -3"),
        ({"cost": float("nan")}, "a cost of nan"),
        ({"right": 0.97}, "sure answers of which 0.97 are right"),
        ({"right": 0.99, "cost": 9.0}, "a cost and a share of right answers"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Asking(**settings)  # type: ignore[arg-type]

    assert caught.value.message == message and caught.value.hint


def test_what_held_out_pictures_taught_survives_json() -> None:
    trust = taught(500)

    assert Trust.from_json(json.loads(json.dumps(trust.to_json()))) == trust


@pytest.mark.parametrize("count", [1, 2, 6, 18, 19, 25])
def test_few_held_out_pictures_promise_little_and_say_so(count: int) -> None:
    trust = taught(count)
    rows, _ = fresh(50)

    verdicts = trust.judge(rows, None, Asking())

    assert verdicts.inside is not None
    shortage = trust.shortage(Asking())
    assert (shortage is None) == (count >= 19)
    if shortage is not None:
        assert verdicts.inside.all() and not verdicts.sure.any()  # type: ignore[union-attr]
        assert f"it takes 19 held-out pictures, there were {count}" in shortage
        assert any(f"only {count} pictures were held out" in sentence for sentence in trust.missing)
    assert trust.shortage(Asking(coverage=0.9995)) is not None


def test_a_class_without_held_out_pictures_is_named() -> None:
    logits, labels = drawn(200)
    known = labels != 3

    trust = fit_trust(logits[known], labels[known], Calibrator.none(5), NAMES, unfamiliar=False)

    assert trust.images[3] == 0
    assert "no held-out pictures of d: no promise was tried on these classes" in trust.missing


def test_a_model_that_held_nothing_out_promises_nothing() -> None:
    trust = Trust.none(5, "nothing was held out")
    rows, labels = fresh(300)

    verdicts = trust.judge(rows, None, Asking())
    kept = promises({"probabilities": rows}, labels, trust)

    assert (verdicts.inside, verdicts.unfamiliar, verdicts.sure) == (None, None, None)
    assert trust.judge(rows, None, Asking(right=0.99)).sure is None
    assert (kept.sets, kept.sure, kept.right, kept.missing) == ((), None, (), ("nothing was held out",))
    assert Promises.from_json(json.loads(json.dumps(kept.to_json()))) == kept


def test_promises_are_tried_with_intervals() -> None:
    trust = taught()
    rows, labels = fresh()
    strange = np.random.default_rng(0).random(len(rows)).astype(np.float32)

    kept = promises({"probabilities": rows, "uncalibrated": rows, "unfamiliarity": strange}, labels, trust)

    assert [each.coverage for each in kept.sets] == [0.9, 0.95, 0.99]
    for each in kept.sets:
        assert each.held.share == pytest.approx(each.coverage, abs=0.02) and each.enough
        assert each.held.count == sum(one.count for one in each.classes)
    assert [target for target, _, _ in kept.right] == list(RIGHT)
    assert kept.false_alarms is not None and kept.false_alarms.share == pytest.approx(0.05, abs=0.015)
    assert kept.answered[-1] == 1.0 and kept.accuracy[-1] == pytest.approx((rows.argmax(1) == labels).mean())
    assert Promises.from_json(json.loads(json.dumps(kept.to_json()))) == kept
    assert Share.counted(np.zeros(0, bool)) == Share(0, 0, None, None)


def test_probabilities_that_are_nan_are_refused() -> None:
    rows, labels = fresh(30)
    rows[3] = np.nan

    with pytest.raises(HangtagError, match="NaN"):
        promises({"probabilities": rows}, labels, taught())


def test_calibrated_means_of_the_logarithms() -> None:
    logits, labels = drawn(600, temperature=3.0)
    calibrator = fit_calibrator(logits, labels)

    np.testing.assert_allclose(calibrator(log_softmax(logits)), calibrator(log_softmax(logits + 7.0)), atol=1e-9)
