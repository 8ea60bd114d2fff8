"""budget.py: the time asked for decides recipe, network and epochs, from steps timed here; nonsense is refused."""

import time
from dataclasses import replace

import pytest
import torch

from hangtag import budget
from hangtag.budget import plan
from hangtag.errors import UsageError
from hangtag.labelled import LabelledImages, from_arrays
from toys import shapes

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "_MEASURED_SECONDS", 0.02)


def data(count: int = 600) -> LabelledImages:
    return from_arrays(*shapes(count))


def with_costs(monkeypatch: pytest.MonkeyPatch, epochs: dict[str, float]) -> None:
    """Pretends that an epoch of each network takes so many seconds."""

    def cost(recipe: object, *_: object) -> budget._Cost:
        return budget._Cost(0.1, epochs[recipe.network], 5.0)  # type: ignore[attr-defined]

    monkeypatch.setattr(budget._Cost, "of", cost)


@pytest.mark.parametrize(
    ("minutes", "network", "epochs"),
    [(14.0, "cnn-large", 20.9), (5.0, "cnn", 14.75), (1.2, "cnn-small", 6.7), (0.2, "mlp", 7.0)],
)
def test_the_largest_network_that_sees_the_data_often_enough_is_chosen(
    monkeypatch: pytest.MonkeyPatch, minutes: float, network: str, epochs: float
) -> None:
    with_costs(monkeypatch, {"cnn-large": 40.0, "cnn": 20.0, "cnn-small": 10.0, "mlp": 1.0})

    chosen = plan(data(), minutes, time.perf_counter(), CPU)

    assert chosen.recipe.network == network
    assert chosen.epochs == pytest.approx(epochs, abs=0.1)
    assert chosen.recipe.epochs - 1 + chosen.recipe.last_epoch == pytest.approx(chosen.epochs, abs=0.01)
    assert chosen.expected_seconds == pytest.approx(60 * minutes, rel=0.02)
    assert f"network '{network}'" in chosen.in_words


def test_what_has_passed_already_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_costs(monkeypatch, dict.fromkeys(("cnn-large", "cnn", "cnn-small", "mlp"), 10.0))

    chosen = plan(data(), 1.0, time.perf_counter() - 20.0, CPU)

    assert chosen.epochs == pytest.approx((60 - 20 - 5) / 10, abs=0.05)


def test_more_time_than_anything_needs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with_costs(monkeypatch, dict.fromkeys(("cnn-large", "cnn", "cnn-small", "mlp"), 0.1))

    chosen = plan(data(), 10.0, time.perf_counter(), CPU)

    assert chosen.recipe.epochs == 200
    assert chosen.in_words.endswith("this ends early")


def test_costs_are_measured_on_the_real_steps() -> None:
    chosen = plan(data(), 1.0, time.perf_counter(), CPU)

    assert chosen.measured
    assert all(seconds > 0 for seconds in chosen.measured.values())
    assert chosen.epoch_seconds > next(iter(chosen.measured.values()))


def test_images_too_small_for_a_convolution_get_another_network() -> None:
    images, labels = shapes(60)

    assert plan(from_arrays(images[:, :3, :3], labels), 1.0, time.perf_counter(), CPU).recipe.network == "mlp"


@pytest.mark.parametrize(("minutes", "said"), [(0.0, "makes no sense"), (-1.0, "makes no sense"), (0.01, "too short")])
def test_no_time_is_said(minutes: float, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        plan(data(), minutes, time.perf_counter(), CPU)


def test_a_plan_is_a_recipe_like_any_other() -> None:
    chosen = plan(data(), 0.5, time.perf_counter(), CPU)

    assert replace(chosen.recipe) == chosen.recipe
    assert chosen.to_json()["minutes"] == 0.5
