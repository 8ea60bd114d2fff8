"""train.py: the loop learns, tells where it stands, repeats itself bit for bit, and stops when asked."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.errors import DivergedError, ModelError, UsageError
from hangtag.training.engine import loop as train_module
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter, latest
from hangtag.training.engine.loop import Epoch, choose_device, learning_rate_at, train
from hangtag.training.engine.networks import build_network
from hangtag.training.engine.recipes import Recipe, find_recipe
from toys import SIDE, ImageSpec, quick_recipe, shapes

SPEC = ImageSpec(SIDE, SIDE)


def trained(recipe: Recipe, seed: int = 0) -> tuple[nn.Module, list[Epoch]]:
    images, labels = shapes(90)
    network = build_network(recipe.network, SPEC, 3, seed)
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
    network = build_network("mlp", SPEC, 3, 0)

    epochs = list(train(network, images, labels, quick_recipe(), 0, stop=lambda: next(asked) >= 1))

    assert epochs[-1].finished
    assert epochs[-1].cut_short
    assert 0 < epochs[-1].step < epochs[-1].steps


def test_a_loss_that_is_no_longer_a_number_stops_the_training_with_advice() -> None:
    images, labels = shapes(60)
    recipe = replace(find_recipe("fast", epochs=30), batch_size=8, learning_rate=1e30)

    with pytest.raises(ModelError, match=r"no longer a number.*smaller"):
        list(train(build_network("cnn", SPEC, 3, 0), images, labels, recipe, 0))


class Growing(nn.Module):
    """Learns, while a buffer beside it grows a thousand million times with each step; judging multiplies with it.

    Args:
        most: where the growing ends.
    """

    def __init__(self, most: float) -> None:
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, 3)
        self.most = most
        self.register_buffer("grown", torch.ones(()))
        self.register_buffer("mask", torch.full((3,), -torch.inf))  # meant to be no number

    def forward(self, x: Tensor) -> Tensor:
        logits = self.layer(x.flatten(1))
        if self.training:
            self.grown.mul_(1e9).clamp_(max=self.most)
            return logits
        return logits * 1e4 * self.grown


@pytest.mark.parametrize(
    ("most", "said"),
    [
        (1e38, "the loss is no longer a number (epoch 2, on the held-out images); "),
        (torch.inf, "the network's 'grown' is no longer a number (epoch 2, in the weights); "),
    ],
)
def test_what_is_no_number_at_the_end_of_an_epoch_brings_the_weights_before_it_back(most: float, said: str) -> None:
    images, labels = shapes(90)  # three steps an epoch
    network = Growing(most)
    states = {}

    with pytest.raises(DivergedError) as caught:
        for epoch in train(network, images, labels, quick_recipe(5), 0, shapes(30, seed=1)):
            if epoch.finished:
                states[epoch.number] = {name: value.clone() for name, value in network.state_dict().items()}

    assert caught.value.message == f"{said}the weights after epoch 1 are kept"
    assert "--set learning_rate=0.0001" in caught.value.hint
    assert list(states) == [1]
    assert all(torch.equal(states[1][name], value) for name, value in network.state_dict().items())


def test_weights_that_are_no_numbers_are_found_without_held_out_images() -> None:
    with pytest.raises(DivergedError, match="'grown' is no longer a number"):
        list(train(Growing(torch.inf), *shapes(90), quick_recipe(5), 0))


class Wrong(nn.Module):
    """Answers as it must until it is trained; then it raises, or answers something else."""

    def __init__(self, wrong: object) -> None:
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, 3)
        self.wrong = wrong

    def forward(self, x: Tensor) -> object:
        if self.training and isinstance(self.wrong, Exception):
            raise self.wrong
        logits = self.layer(x.flatten(1))
        return self.wrong(logits) if self.training and callable(self.wrong) else logits


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (RuntimeError("shapes\n  do not fit"), "RuntimeError: shapes do not fit"),
        (KeyError("weights"), "KeyError: 'weights'"),
        (NotImplementedError(), "NotImplementedError:"),
        (AssertionError("x" * 1000), "AssertionError:"),
        (lambda logits: (logits, logits), "AttributeError: 'tuple' object has no attribute 'float'"),
        (lambda logits: logits.detach(), "RuntimeError: element 0 of tensors does not require grad"),
        (lambda logits: logits[1:], "ValueError: "),
    ],
)
def test_whatever_ones_own_network_raises_in_training_is_one_line(wrong: object, said: str) -> None:
    with pytest.raises(ModelError) as caught:
        list(train(Wrong(wrong), *shapes(60), quick_recipe(), 0))

    assert caught.value.message.startswith(f"the network cannot be trained: {said}")
    assert len(caught.value.message.splitlines()) == 1
    assert len(caught.value.message) < 400
    assert "logits (N, K)" in caught.value.hint
    assert caught.value.__cause__ is not None  # what --debug shows


def test_an_error_of_hangtags_from_inside_ones_own_network_stays_as_it_is() -> None:
    mine = UsageError("not so", "but so")

    with pytest.raises(UsageError) as caught:
        list(train(Wrong(mine), *shapes(60), quick_recipe(), 0))

    assert caught.value is mine


def test_a_network_without_anything_to_learn_is_said() -> None:
    with pytest.raises(ModelError, match="the network cannot be trained"):
        list(train(nn.Sequential(nn.Flatten(), nn.AvgPool1d(16)), *shapes(60), find_recipe("fast", epochs=1), 0))


def test_the_learning_rate_goes_up_to_its_peak_and_down_again() -> None:
    recipe = replace(find_recipe("fast"), learning_rate=1.0, warmup=0.2, start_factor=0.2, end_factor=0.0)

    assert [round(learning_rate_at(recipe, done), 3) for done in (0, 0.1, 0.2, 0.6, 1.0)] == [0.2, 0.6, 1.0, 0.5, 0.0]


def test_a_device_that_is_not_there_is_said() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="--device cpu"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="'cuda' cannot be used"):
            choose_device("cuda")


def patient(epochs: int = 40, patience: int = 3) -> Recipe:
    """Memorises noise soon, so that the validation loss rises."""
    return replace(quick_recipe(epochs), learning_rate=0.02, validation=0.5, patience=patience)


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
    network = build_network("mlp", SPEC, 3, 0)

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
    one, other = build_network("mlp", SPEC, 3, 0), build_network("mlp", SPEC, 3, 0)
    whole = list(train(one, images[:32], labels[:32], patient(), 0, held_out))

    asked = count()
    for _ in train(
        other, images[:32], labels[:32], patient(), 0, held_out,
        stop=lambda: next(asked) >= len(whole) - 3, checkpoint_writer=CheckpointWriter(tmp_path),
    ):  # fmt: skip
        pass
    rest = list(train(other, images[:32], labels[:32], patient(), 0, held_out, resume=latest(tmp_path)))

    assert rest[-1].kept == whole[-1].kept
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_part_of_a_last_epoch_can_be_left_out() -> None:
    images, labels = shapes(60_000)
    recipe = replace(quick_recipe(2), last_epoch_fraction=0.5)

    epochs = [epoch for epoch in train(build_network("mlp", SPEC, 3, 0), images, labels, recipe, 0) if epoch.finished]

    assert epochs[0].step == epochs[0].steps == 1875
    assert 0.4 * 1875 < epochs[1].step < 0.6 * 1875
    assert not epochs[1].cut_short


NO_MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def test_running_out_of_memory_is_said_with_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = shapes(90)

    def too_much(*_: object) -> None:
        raise RuntimeError(NO_MEMORY)

    monkeypatch.setattr(train_module, "Batches", too_much)
    with pytest.raises(ModelError, match=r"batches of 32 images \(use smaller ones: --batch-size 16"):
        list(train(build_network("mlp", SPEC, 3, 0), images, labels, quick_recipe(), 0))


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(NO_MEMORY)]
)
def test_running_out_of_memory_in_a_step_is_told_from_the_networks_own_mistakes(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"out of memory with batches of 32 images \(use smaller ones"):
        list(train(Wrong(error), *shapes(60), quick_recipe(), 0))


def test_running_out_of_memory_while_going_on_is_not_taken_for_another_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network, checkpoint_writer = build_network("mlp", SPEC, 3, 0), CheckpointWriter(tmp_path)
    list(train(network, *shapes(60), quick_recipe(), 0, stop=lambda: True, checkpoint_writer=checkpoint_writer))
    saved = latest(tmp_path)
    assert isinstance(saved, Checkpoint)

    def too_much(*_: object) -> None:
        raise RuntimeError(NO_MEMORY)

    monkeypatch.setattr(network, "load_state_dict", too_much)
    with pytest.raises(ModelError, match="out of memory with batches of 32 images"):
        list(train(network, *shapes(60), quick_recipe(), 0, resume=saved))
