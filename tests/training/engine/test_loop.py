"""loop.py: training learns, reports progress, is reproducible bit for bit, and can be stopped."""

import copy
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.errors import DivergedError, ModelError, UsageError
from hangtag.training.engine import batches
from hangtag.training.engine import loop as train_module
from hangtag.training.engine.build import build_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter, latest
from hangtag.training.engine.loop import Epoch, choose_device, learning_rate_at, train
from hangtag.training.engine.recipes import Recipe, find_recipe
from toys import SIDE, ImageSpec, quick_recipe, shapes

SPEC = ImageSpec(SIDE, SIDE)


def trained(recipe: Recipe, seed: int = 0) -> tuple[nn.Module, list[Epoch]]:
    images, labels = shapes(90)
    network = build_network(recipe.network, SPEC, 3, seed)
    epochs = list(train(network, images, labels, recipe, seed, shapes(30, seed=1)))
    return network, [epoch for epoch in epochs if epoch.finished]


def test_training_learns() -> None:
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


def test_dropout_is_seeded_and_pytorchs_random_state_is_unchanged() -> None:
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


def test_training_restores_the_settings_of_the_process() -> None:
    threads = torch.get_num_threads()

    trained(quick_recipe())

    assert torch.get_num_threads() == threads
    assert float(torch.tensor([1e-40]) * 1.0) > 0  # denormal numbers count again


def test_stop_ends_the_training_and_the_epoch_reports_its_steps() -> None:
    images, labels = shapes(60_000)
    asked = count()
    network = build_network("mlp", SPEC, 3, 0)

    epochs = list(train(network, images, labels, quick_recipe(), 0, stop=lambda: next(asked) >= 1))

    assert epochs[-1].finished
    assert epochs[-1].cut_short
    assert 0 < epochs[-1].step < epochs[-1].steps


def test_an_infinite_training_loss_stops_the_training_with_advice() -> None:
    images, labels = shapes(60)
    recipe = replace(find_recipe("fast", epochs=30), batch_size=8, learning_rate=1e30)

    with pytest.raises(ModelError, match=r"training loss is NaN or infinite in epoch \d+, step \d+; .*smaller"):
        list(train(build_network("cnn", SPEC, 3, 0), images, labels, recipe, 0))


class Growing(nn.Module):
    """Learns, while a buffer grows by a factor of 1e9 per step; in evaluation mode, logits are multiplied by it.

    Args:
        limit: the largest value of the buffer.
    """

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, 3)
        self.limit = limit
        self.register_buffer("grown", torch.ones(()))
        self.register_buffer("mask", torch.full((3,), -torch.inf))  # infinite on purpose

    def forward(self, x: Tensor) -> Tensor:
        logits = self.layer(x.flatten(1))
        if self.training:
            self.grown.mul_(1e9).clamp_(max=self.limit)
            return logits
        return logits * 1e4 * self.grown


@pytest.mark.parametrize(
    ("limit", "name"),
    [(1e38, "the validation loss"), (torch.inf, "the network's 'grown'")],
)
def test_divergence_at_the_end_of_an_epoch_restores_the_weights_before_it(limit: float, name: str) -> None:
    images, labels = shapes(90)  # three steps an epoch
    network = Growing(limit)
    states = {}

    with pytest.raises(DivergedError) as caught:
        for epoch in train(network, images, labels, quick_recipe(5), 0, shapes(30, seed=1)):
            if epoch.finished:
                states[epoch.number] = {name: value.clone() for name, value in network.state_dict().items()}

    assert caught.value.message == (
        f"training diverged: {name} is NaN or infinite in epoch 2; the weights of epoch 1 were restored"
    )
    assert "--set learning_rate=0.0001" in caught.value.hint
    assert list(states) == [1]
    assert all(torch.equal(states[1][name], value) for name, value in network.state_dict().items())


def test_infinite_weights_are_found_without_validation_images() -> None:
    with pytest.raises(DivergedError, match="'grown' is NaN or infinite"):
        list(train(Growing(torch.inf), *shapes(90), quick_recipe(5), 0))


class Wrong(nn.Module):
    """Returns logits in evaluation mode; in training it raises an exception, or returns something else."""

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
    ("wrong", "reason"),
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
def test_any_error_of_a_custom_network_in_training_is_one_line(wrong: object, reason: str) -> None:
    with pytest.raises(ModelError) as caught:
        list(train(Wrong(wrong), *shapes(60), quick_recipe(), 0))

    assert caught.value.message.startswith(f"the network cannot be trained: {reason}")
    assert len(caught.value.message.splitlines()) == 1
    assert len(caught.value.message) < 400
    assert "logits (N, K)" in caught.value.hint
    assert caught.value.__cause__ is not None  # what --debug shows


def test_a_hangtag_error_raised_by_a_custom_network_passes_through() -> None:
    mine = UsageError("not so", "but so")

    with pytest.raises(UsageError) as caught:
        list(train(Wrong(mine), *shapes(60), quick_recipe(), 0))

    assert caught.value is mine


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(ModelError, match="the network cannot be trained"):
        list(train(nn.Sequential(nn.Flatten(), nn.AvgPool1d(16)), *shapes(60), find_recipe("fast", epochs=1), 0))


def test_the_learning_rate_rises_to_its_peak_and_falls() -> None:
    recipe = replace(find_recipe("fast"), learning_rate=1.0, warmup=0.2, start_factor=0.2, end_factor=0.0)

    assert [round(learning_rate_at(recipe, done), 3) for done in (0, 0.1, 0.2, 0.6, 1.0)] == [0.2, 0.6, 1.0, 0.5, 0.0]


def test_a_missing_device_is_refused() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(UsageError, match="known: auto, cpu, cuda"):
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


def test_early_stopping_ends_the_training_and_restores_the_best_weights() -> None:
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


def test_a_resumed_training_with_early_stopping_gives_the_same_bits(tmp_path: Path) -> None:
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


def test_the_last_epoch_can_be_partial() -> None:
    images, labels = shapes(60_000)
    recipe = replace(quick_recipe(2), last_epoch_fraction=0.5)

    epochs = [epoch for epoch in train(build_network("mlp", SPEC, 3, 0), images, labels, recipe, 0) if epoch.finished]

    assert epochs[0].step == epochs[0].steps == 1875
    assert 0.4 * 1875 < epochs[1].step < 0.6 * 1875
    assert not epochs[1].cut_short


NO_MEMORY = "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."


def test_out_of_memory_suggests_a_smaller_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = shapes(90)

    def too_much(*_: object) -> None:
        raise RuntimeError(NO_MEMORY)

    monkeypatch.setattr(train_module, "Batches", too_much)
    with pytest.raises(ModelError, match=r"batches of 32 images \(use a smaller batch, such as 16"):
        list(train(build_network("mlp", SPEC, 3, 0), images, labels, quick_recipe(), 0))


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(NO_MEMORY)]
)
def test_out_of_memory_in_a_step_is_not_reported_as_an_error_of_the_network(error: Exception) -> None:
    with pytest.raises(ModelError, match=r"out of memory with batches of 32 images \(use a smaller batch"):
        list(train(Wrong(error), *shapes(60), quick_recipe(), 0))


def test_out_of_memory_on_resuming_is_not_reported_as_a_checkpoint_of_another_training(
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


class Bursting(nn.Module):
    """Learns; from its `at`-th step on, its logits are infinite."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.layer, self.at = nn.Linear(SIDE * SIDE, 3), at
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
        return self.layer(x.flatten(1)) * torch.where(self.steps >= self.at, torch.inf, 1.0)


@pytest.mark.parametrize(("at", "epoch"), [(5, 0), (17, 1)])
def test_a_training_resumed_inside_an_epoch_that_diverges_restores_the_weights_before_that_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, epoch: int
) -> None:
    monkeypatch.setattr(batches, "_CHUNK_PIXELS", 1)  # a chunk is one step of 8 images; an epoch has 12 of them
    images, labels = shapes(96)
    recipe, asked = find_recipe(quick_recipe(3), batch_size=8), count(1)
    torch.manual_seed(0)
    network = Bursting(at)
    states = {0: copy.deepcopy(network.state_dict())}
    for each in train(
        network, images, labels, recipe, 0,
        stop=lambda: next(asked) == at - 2, checkpoint_writer=CheckpointWriter(tmp_path),
    ):  # fmt: skip
        if each.finished and not each.cut_short:
            states[each.number] = copy.deepcopy(network.state_dict())
    mid = copy.deepcopy(network.state_dict())

    name = f"weights of epoch {epoch}" if epoch else "initial weights"
    with pytest.raises(DivergedError, match=f"the {name} were restored"):
        list(train(network, images, labels, recipe, 0, resume=latest(tmp_path)))

    assert torch.equal(network.state_dict()["layer.weight"], states[epoch]["layer.weight"])
    assert not torch.equal(network.state_dict()["layer.weight"], mid["layer.weight"])
