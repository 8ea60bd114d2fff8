"""time_budget.py: a time limit determines recipe, network and epochs, from steps timed here."""

import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.errors import DataError, ModelError, UsageError
from hangtag.training import time_budget, transfer
from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.networks import is_builtin
from hangtag.training.engine.recipes import RECIPES, Recipe, adapt_to_size
from hangtag.training.engine.steps import GenericSteps, Steps
from hangtag.training.time_budget import plan
from toys import CLASSES, shapes, tiny_backbone

CPU = torch.device("cpu")
NOW = 1000.0  # of a clock that stands still


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_budget, "_MEASURED_SECONDS", 0.02)
    monkeypatch.setattr(time_budget, "_MOST_MEASURED", 0.02)
    monkeypatch.setattr(time_budget, "choose_recipe", lambda data: ("fast", ""))  # tests of pretrained features say so


def data(count: int = 600) -> LabelledImages:
    return from_arrays(*shapes(count))


def with_costs(monkeypatch: pytest.MonkeyPatch, epochs: dict[str, float]) -> None:
    """Pretend that an epoch of each network takes this many seconds, and planning none."""

    def cost(recipe: object, *_: object) -> time_budget._Cost:
        return time_budget._Cost(0.1, epochs[recipe.network], 5.0)  # type: ignore[attr-defined]

    monkeypatch.setattr(time_budget._Cost, "of", cost)
    monkeypatch.setattr(time_budget, "time", SimpleNamespace(perf_counter=lambda: NOW))


@pytest.mark.parametrize(
    ("minutes", "network", "epochs"),
    [(14.0, "cnn-large", 20.9), (5.0, "cnn", 14.75), (1.2, "cnn-small", 6.7), (0.2, "mlp", 7.0)],
)
def test_the_largest_network_that_sees_the_data_often_enough_is_chosen(
    monkeypatch: pytest.MonkeyPatch, minutes: float, network: str, epochs: float
) -> None:
    with_costs(monkeypatch, {"cnn-large": 40.0, "cnn": 20.0, "cnn-small": 10.0, "mlp": 1.0})

    chosen = plan(data(30_000), minutes, NOW, CPU)

    assert chosen.recipe.network == network
    assert chosen.epochs == pytest.approx(epochs, abs=0.1)
    assert chosen.recipe.epochs - 1 + chosen.recipe.last_epoch_fraction == pytest.approx(chosen.epochs, abs=0.01)
    assert chosen.expected_seconds == pytest.approx(60 * minutes, rel=0.02)
    assert f"network '{network}'" in chosen.in_words


def test_few_images_need_more_passes_for_a_large_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with_costs(monkeypatch, {"cnn-large": 0.5, "cnn": 0.2, "cnn-small": 0.1, "mlp": 0.1})

    networks = [plan(data(count), 0.3, NOW, CPU).recipe.network for count in (30_000, 60)]

    assert networks == ["cnn-large", "cnn"]  # 20 epochs of it would do, if there were more images


@pytest.mark.parametrize("count", [6, 15, 17, 300])
def test_a_plan_for_few_images_is_what_will_be_trained(count: int) -> None:
    chosen = plan(data(count), 5.0, time.perf_counter(), CPU).recipe

    for epochs in (chosen.epochs, RECIPES[chosen.name].epochs):
        assert adapt_to_size(replace(chosen, epochs=epochs), count) == (replace(chosen, epochs=epochs), "")
    assert chosen.batch_size <= count


def parts_costed(monkeypatch: pytest.MonkeyPatch, **parts: slice) -> tuple[int, int, int]:
    """How many of 600 images are expected to train, to be held out, and to judge."""
    seen = []

    def cost(recipe: Recipe, work: time_budget._Work, *_: object) -> time_budget._Cost:
        seen.append((len(work.train), work.validation, work.judged))
        return time_budget._Cost(0.1, 1.0, 5.0)

    monkeypatch.setattr(time_budget._Cost, "of", cost)
    plan(LabelledImages(*shapes(600), CLASSES, parts=parts), 10.0, time.perf_counter(), CPU)
    return seen[0]


def test_the_expected_split_is_the_one_that_training_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    train, middle, last = slice(0, 300), slice(300, 420), slice(420, 600)

    assert parts_costed(monkeypatch) == (540, 60, 60)
    assert parts_costed(monkeypatch, train=train, test=last) == (270, 30, 180)
    assert parts_costed(monkeypatch, train=train, validation=middle) == (300, 120, 120)
    assert parts_costed(monkeypatch, train=train, validation=middle, test=last) == (300, 120, 180)
    with pytest.raises(DataError, match="no training images"):
        parts_costed(monkeypatch, test=last)


class Slow:
    """A machine on which a step of a network of convolutions takes ten milliseconds an image.

    Attributes:
        batches: sizes of the batches that were stepped on.
    """

    cores = 1
    torch_threads = 1

    def __init__(self) -> None:
        self.batches: set[int] = set()

    def steps_for(self, network: nn.Module, recipe: Recipe, batch: int, device: torch.device) -> Steps:
        return SlowSteps(self, network, recipe, batch, device) if is_builtin(network) else GenericSteps(
            network, recipe, batch, device
        )  # fmt: skip


class SlowSteps(GenericSteps):
    def __init__(self, slow: Slow, *others: object) -> None:
        super().__init__(*others)  # type: ignore[arg-type]
        self.slow = slow

    def run(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None = None) -> Tensor:
        self.slow.batches.add(self.batch_size)
        time.sleep(0.01 * len(images))
        return torch.zeros(len(images), 3)


def test_a_network_that_is_too_slow_for_small_batches_is_not_timed_with_whole_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow()
    monkeypatch.setattr(time_budget, "steps_for", slow.steps_for)

    chosen = plan(data(300_000), 10.0, time.perf_counter(), CPU)

    assert chosen.recipe.network == "mlp"
    assert set(chosen.measured_step_seconds) == {"mlp"}
    assert max(slow.batches) <= 32


def test_the_lessons_network_gets_a_smaller_rate_for_larger_images(monkeypatch: pytest.MonkeyPatch) -> None:
    with_costs(monkeypatch, {"cnn-large": 400.0, "cnn": 200.0, "cnn-small": 100.0, "mlp": 1.0})
    images = np.zeros((60, 64, 64, 3), np.uint8)

    chosen = plan(from_arrays(images, np.arange(60) % 2), 0.2, NOW, CPU)

    assert (chosen.recipe.network, chosen.recipe.learning_rate) == ("mlp", 0.00076)


def test_a_network_too_large_for_memory_is_skipped_and_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, real = [], time_budget.steps_for

    def scarce(network: nn.Module, *others: object) -> Steps:
        if is_builtin(network):
            refused.append(weakref.ref(network))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        assert all(reference() is None for reference in refused)
        return real(network, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(time_budget, "steps_for", scarce)

    assert plan(data(), 10.0, time.perf_counter(), CPU).recipe.network == "mlp"
    assert len(refused) == 3


def test_too_little_memory_for_any_network_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(time_budget, "steps_for", too_much)
    with pytest.raises(ModelError, match=r"out of memory with the network 'mlp' \(use smaller images"):
        plan(data(), 1.0, time.perf_counter(), CPU)


def test_uneven_classes_are_timed_with_weighted_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    weighted: list[bool] = []
    real = time_budget.steps_for

    def watched(*given: object) -> Steps:
        steps = real(*given)  # type: ignore[arg-type]
        run = steps.run
        steps.run = lambda *batch: weighted.append(batch[3] is not None) or run(*batch)  # type: ignore
        return steps

    monkeypatch.setattr(time_budget, "steps_for", watched)
    images, labels = shapes(60)
    uneven = np.concatenate([np.flatnonzero(labels == 0), np.flatnonzero(labels)[:6]])
    plan(from_arrays(images[uneven][:, :3, :3], labels[uneven]), 10.0, time.perf_counter(), CPU)

    assert weighted and all(weighted)  # 'mlp' leaves no image out, so these are the classes' weights


def test_the_time_since_the_command_began_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with_costs(monkeypatch, dict.fromkeys(("cnn-large", "cnn", "cnn-small", "mlp"), 10.0))

    chosen = plan(data(), 1.0, NOW - 20.0, CPU)

    assert chosen.epochs == pytest.approx((60 - 20 - 5) / 10, abs=0.05)


def test_more_time_than_any_network_needs_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    with_costs(monkeypatch, dict.fromkeys(("cnn-large", "cnn", "cnn-small", "mlp"), 0.1))

    chosen = plan(data(), 10.0, NOW, CPU)

    assert chosen.recipe.epochs == 200
    assert chosen.in_words.endswith("it ends early")


@pytest.mark.parametrize(("count", "epoch", "folds"), [(600, 0.1, 5), (600, 4.0, 0), (2100, 0.1, 0)])
def test_few_images_are_cross_validated_if_the_time_allows(
    monkeypatch: pytest.MonkeyPatch, count: int, epoch: float, folds: int
) -> None:
    with_costs(monkeypatch, dict.fromkeys(("cnn-large", "cnn", "cnn-small", "mlp"), epoch))

    chosen = plan(data(count), 5.0, NOW, CPU)

    assert chosen.recipe.folds == folds
    assert (", then 5 folds" in chosen.in_words) == bool(folds)
    assert chosen.expected_seconds == pytest.approx(5 + chosen.epochs * epoch * max(1, folds))
    assert chosen.expected_seconds <= 300


@pytest.mark.parametrize(("count", "share"), [(110, 0.333), (1000, 0.2), (2100, None)])
def test_of_few_images_more_are_held_out_for_the_comparison(count: int, share: float | None) -> None:
    assert time_budget._to_compare(data(count)).get("validation") == share


def test_costs_are_measured_on_the_real_steps() -> None:
    chosen = plan(data(), 1.0, time.perf_counter(), CPU)

    assert chosen.measured_step_seconds
    assert all(seconds > 0 for seconds in chosen.measured_step_seconds.values())
    assert chosen.epoch_seconds > chosen.measured_step_seconds[chosen.recipe.network]


def test_images_too_small_for_a_convolution_get_another_network() -> None:
    images, labels = shapes(60)

    assert plan(from_arrays(images[:, :3, :3], labels), 1.0, time.perf_counter(), CPU).recipe.network == "mlp"


@pytest.mark.parametrize("minutes", [0.0, -1.0, 0.01])
def test_too_little_time_is_an_error(minutes: float) -> None:
    with pytest.raises(UsageError, match="too short"):
        plan(data(), minutes, time.perf_counter(), CPU)


def test_a_plan_is_a_recipe_like_any_other() -> None:
    chosen = plan(data(), 0.5, time.perf_counter(), CPU)

    assert replace(chosen.recipe) == chosen.recipe
    assert chosen.to_json()["minutes"] == 0.5


class Trained:
    """Stands for a classifier; `better` names the recipe that answers right on held-out images."""

    better = ""

    def __init__(self, recipe: Recipe, seed: int, device: str) -> None:
        self.name = recipe.name
        assert recipe.folds == 0  # images must be held out for the comparison

    def fit_epochs(self, data: LabelledImages) -> Iterator[Epoch]:
        return iter(())

    def validation_logits(self) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(60) % 3
        noise = np.random.default_rng(0).normal(size=(60, 3))
        return (noise + 2 * np.eye(3)[labels] * (self.name == self.better)).astype(np.float32), labels


@pytest.mark.parametrize(
    ("count", "better", "seconds", "epoch", "recipe", "tuning", "words"),
    [
        (
            2100,
            "transfer",
            10.0,
            20.0,
            "transfer",
            13,
            "from nothing, tried in a third of the time, was not better",
        ),
        (1900, "transfer", 10.0, 20.0, "transfer", 0, "not fine-tuned, because a tenth of fewer than 2,000 images"),
        (2100, "transfer", 10.0, 200.0, "transfer", 0, "accuracy"),  # no time for three epochs of fine-tuning
        (600, "accurate", 10.0, 20.0, "accurate", 0, "better than recipe 'transfer': on 60 held-out images"),
        (600, "transfer", 400.0, 20.0, "accurate", 0, "expected to take"),  # no time for the features
    ],
)
def test_held_out_images_choose_between_pretrained_features_and_training_from_nothing(
    monkeypatch: pytest.MonkeyPatch, count: int, better: str, seconds: float, epoch: float, recipe: str, tuning: int,
    words: str,
) -> None:  # fmt: skip
    with_costs(monkeypatch, {"cnn-large": 0.5, "cnn": 0.2, "cnn-small": 0.1, "mlp": 0.1})
    pretrained = time_budget._Pretrained(seconds, epoch, besides=20.0)
    monkeypatch.setattr(time_budget._Pretrained, "of", lambda *_: pretrained)
    monkeypatch.setattr(time_budget, "choose_recipe", lambda data: ("transfer", "they are photos"))
    monkeypatch.setattr(time_budget, "Classifier", Trained)
    monkeypatch.setattr(Trained, "better", better)
    watched = []

    chosen = plan(data(count), 5.0, NOW, CPU, watch=lambda title, epochs: watched.append(title))

    assert (chosen.recipe.name, chosen.recipe.fine_tune) == (recipe, tuning)
    assert words in chosen.in_words and f"recipe '{recipe}'" in chosen.in_words
    assert len(watched) == (0 if seconds > 300 else 2)
    assert chosen.expected_seconds <= 300


def test_what_pretrained_features_take_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, labels = shapes(40)
    small = tiny_backbone()
    for module in (time_budget, transfer):
        monkeypatch.setattr(module, "find_backbone", lambda name: small)

    measured = time_budget._Pretrained.of(from_arrays(pixels, labels), CPU, 0)

    assert measured.seconds > time_budget._AFTERWARDS and measured.epoch > 0
    assert measured.besides < measured.seconds  # only one view of each image
