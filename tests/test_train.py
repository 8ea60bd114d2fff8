"""train.py: the loop learns, tells where it stands, repeats itself bit for bit, and stops when asked."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hangtag import train as train_module
from hangtag.checkpoints import Keeper, newest
from hangtag.errors import ModelError, UsageError
from hangtag.models import build
from hangtag.recipes import Recipe, find_recipe
from hangtag.train import Epoch, choose_device, learning_rate, train
from toys import SIDE, ImageSpec, quick_recipe, shapes

SPEC = ImageSpec(SIDE, SIDE)


def trained(recipe: Recipe, seed: int = 0) -> tuple[nn.Module, list[Epoch]]:
    images, labels = shapes(90)
    network = build(recipe.network, SPEC, 3, seed)
    epochs = list(train(network, images, labels, recipe, seed, shapes(30, seed=1)))
    return network, [epoch for epoch in epochs if epoch.finished]


def test_it_learns_what_can_be_learned() -> None:
    _, epochs = trained(quick_recipe(epochs=20))

    assert len(epochs) == 20
    assert epochs[-1].val_accuracy == 1.0
    assert epochs[-1].loss < epochs[0].loss
    assert [epoch.number for epoch in epochs] == list(range(1, 21))
    assert {(epoch.step, epoch.steps) for epoch in epochs} == {(3, 3)}


@pytest.mark.parametrize("name", ["tutorial", "fast"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(name: str) -> None:
    recipe = replace(find_recipe(name, epochs=2), batch_size=16)

    one, other, third = (trained(recipe, seed)[0].state_dict() for seed in (3, 3, 4))

    assert all(torch.equal(one[key], other[key]) for key in one)
    assert not all(torch.equal(one[key], third[key]) for key in one)


def test_dropout_is_seeded_and_pytorchs_own_random_state_is_left_alone() -> None:
    images, labels = shapes(60)

    def run() -> torch.Tensor:
        torch.manual_seed(1)
        network = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 32), nn.Dropout(), nn.Linear(32, 3))
        torch.manual_seed(np.random.default_rng().integers(1000))
        before = torch.random.get_rng_state()
        list(train(network, images, labels, quick_recipe(), 0))
        assert torch.equal(before, torch.random.get_rng_state())
        return network[1].weight.detach()

    assert torch.equal(run(), run())


def test_settings_of_the_process_are_as_before() -> None:
    threads = torch.get_num_threads()

    trained(quick_recipe())

    assert torch.get_num_threads() == threads
    assert float(torch.tensor([1e-40]) * 1.0) > 0  # denormal numbers count again


def test_it_stops_when_asked_and_says_how_far_it_came() -> None:
    images, labels = shapes(60_000)
    asked = count()
    network = build("mlp", SPEC, 3, 0)

    epochs = list(train(network, images, labels, quick_recipe(), 0, stop=lambda: next(asked) >= 1))

    assert epochs[-1].finished
    assert epochs[-1].cut_short
    assert 0 < epochs[-1].step < epochs[-1].steps


def test_a_loss_that_is_no_longer_a_number_stops_the_training_with_advice() -> None:
    images, labels = shapes(60)
    recipe = replace(find_recipe("fast", epochs=30), batch_size=8, lr_peak=1e30)

    with pytest.raises(ModelError, match=r"no longer a number.*smaller"):
        list(train(build("cnn", SPEC, 3, 0), images, labels, recipe, 0))


def test_the_learning_rate_goes_up_to_its_peak_and_down_again() -> None:
    recipe = replace(find_recipe("fast"), lr_peak=1.0, warm_up=0.2, lr_start=0.2, lr_end=0.0)

    assert [round(learning_rate(recipe, done), 3) for done in (0, 0.1, 0.2, 0.6, 1.0)] == [0.2, 0.6, 1.0, 0.5, 0.0]


def test_a_device_that_is_not_there_is_said() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="--device cpu"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="'cuda' cannot be used"):
            choose_device("cuda")


def patient(epochs: int = 40, patience: int = 3) -> Recipe:
    """Memorises noise soon, so that the validation loss rises."""
    return replace(quick_recipe(epochs), lr_peak=0.02, validation=0.5, patience=patience)


def noise() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (64, SIDE, SIDE), dtype=np.uint8), np.arange(64, dtype=np.int64) % 3


def loss_of(network: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    network.eval()
    with torch.no_grad():
        pixels = torch.from_numpy(images)[:, None].float() / 255
        return float(nn.functional.cross_entropy(network(pixels), torch.from_numpy(labels)))


def test_patience_ends_the_training_and_brings_the_best_weights_back() -> None:
    images, labels = noise()
    network = build("mlp", SPEC, 3, 0)

    held_out = (images[32:], labels[32:])
    epochs = list(train(network, images[:32], labels[:32], patient(), 0, held_out))
    finished = [epoch for epoch in epochs if epoch.finished]

    losses = [epoch.val_loss for epoch in finished]
    best = int(np.argmin(losses)) + 1
    assert len(finished) == best + 3 < 40
    assert (finished[-1].enough, finished[-1].kept) == (True, best)
    assert not any(epoch.enough or epoch.kept for epoch in finished[:-1])
    assert loss_of(network, *held_out) == pytest.approx(min(losses), rel=1e-5)


def test_a_patient_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    images, labels = noise()
    held_out = (images[32:], labels[32:])
    one, other = build("mlp", SPEC, 3, 0), build("mlp", SPEC, 3, 0)
    whole = list(train(one, images[:32], labels[:32], patient(), 0, held_out))

    asked = count()
    for _ in train(
        other, images[:32], labels[:32], patient(), 0, held_out,
        stop=lambda: next(asked) >= len(whole) - 3, keeper=Keeper(tmp_path),
    ):  # fmt: skip
        pass
    rest = list(train(other, images[:32], labels[:32], patient(), 0, held_out, resume=newest(tmp_path)))

    assert rest[-1].kept == whole[-1].kept
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_part_of_a_last_epoch_can_be_left_out() -> None:
    images, labels = shapes(60_000)
    recipe = replace(quick_recipe(2), last_epoch=0.5)

    epochs = [epoch for epoch in train(build("mlp", SPEC, 3, 0), images, labels, recipe, 0) if epoch.finished]

    assert epochs[0].step == epochs[0].steps == 1875
    assert 0.4 * 1875 < epochs[1].step < 0.6 * 1875
    assert not epochs[1].cut_short


def test_running_out_of_memory_is_said_with_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = shapes(90)

    def too_much(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(train_module, "Batches", too_much)
    with pytest.raises(ModelError, match=r"batches of 32 images \(use smaller ones: --batch-size 16"):
        list(train(build("mlp", SPEC, 3, 0), images, labels, quick_recipe(), 0))
