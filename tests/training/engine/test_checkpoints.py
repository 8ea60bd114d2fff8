"""checkpoints.py and the loop that uses it: an interrupted training ends with the bits of one that was not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hangtag.errors import RunError, SaveError
from hangtag.pictures import ImageSpec
from hangtag.training.engine.batches import Batches
from hangtag.training.engine.build import build_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter, latest
from hangtag.training.engine.dense import CompiledSteps
from hangtag.training.engine.loop import train
from hangtag.training.engine.recipes import RECIPES, Recipe
from toys import shapes

SPEC = ImageSpec(8, 8)
IMAGES, LABELS = shapes(60)


def example() -> Checkpoint:
    return Checkpoint({"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7)}, {"epoch": 3, "loss": 0.1})


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


class Always(CheckpointWriter):
    """Saves after every chunk."""

    def due(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.training.engine.batches._CHUNK_PIXELS", 2 * 8 * 64)


def network(recipe: Recipe) -> nn.Module:
    return build_network(recipe.network, SPEC, 3, seed=0)


def test_a_checkpoint_survives_writing_and_reading() -> None:
    again = Checkpoint.from_bytes(example().to_bytes())

    assert again.metadata == {"epoch": 3, "loss": 0.1}
    assert torch.equal(again.tensors["a"], example().tensors["a"]) and int(again.tensors["b"]) == 7


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-1], lambda c: c[:100], lambda c: b"", lambda c: c[:90] + b"x" + c[91:]]
)
def test_any_damage_is_noticed(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match="checksum"):
        Checkpoint.from_bytes(damage(example().to_bytes()))


def test_two_are_kept_and_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path) -> None:
    checkpoint_writer = CheckpointWriter(tmp_path / "checkpoints")
    for number in range(4):
        checkpoint_writer.save(lambda number=number: replace(example(), metadata={"number": number}))
    files = sorted((tmp_path / "checkpoints").iterdir())
    files[-1].write_bytes(files[-1].read_bytes()[:-5])

    with pytest.warns(UserWarning, match="damaged checkpoint"):
        found = latest(tmp_path / "checkpoints")

    assert len(files) == 2
    assert found is not None and found.metadata == {"number": 2}
    checkpoint_writer.save(example)
    assert files[0].exists()  # the good one


def test_the_newest_checkpoint_has_the_largest_number(tmp_path: Path) -> None:
    for number in (99999, 100000):
        content = replace(example(), metadata={"number": number}).to_bytes()
        (tmp_path / f"{number}.checkpoint").write_bytes(content)
    found = latest(tmp_path)

    assert found is not None and found.metadata == {"number": 100000}


def test_leftovers_of_a_killed_save_are_removed(tmp_path: Path) -> None:
    checkpoint_writer = CheckpointWriter(tmp_path / "checkpoints")
    checkpoint_writer.save(example)
    (tmp_path / "checkpoints" / ".00002.checkpoint.abc.partial").write_bytes(b"half")

    checkpoint_writer.remove()

    assert not (tmp_path / "checkpoints").exists()


def test_tied_weights_can_be_saved(tmp_path: Path) -> None:
    one = nn.Linear(3, 3)
    tied = nn.Sequential(one, nn.ReLU(), one)
    checkpoint_writer = CheckpointWriter(tmp_path)

    checkpoint_writer.save(lambda: Checkpoint(dict(tied.state_dict()), {}))

    found = latest(tmp_path)
    assert found is not None and torch.equal(found.tensors["2.weight"], one.weight)


def test_only_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    assert latest(tmp_path / "none") is None
    (tmp_path / "00001.checkpoint").write_bytes(b"rubbish")
    with pytest.raises(RunError, match="every checkpoint is damaged"):
        latest(tmp_path)


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint_writer = CheckpointWriter(tmp_path)
    checkpoint_writer.save(example)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SaveError):
        checkpoint_writer.save(example)
    monkeypatch.undo()

    assert [path.name for path in tmp_path.iterdir()] == ["00001.checkpoint"]
    assert latest(tmp_path) is not None


@pytest.mark.parametrize(("name", "native"), [("tutorial", "on"), ("tutorial", "off"), ("fast", "on")])
def test_resuming_from_any_checkpoint_gives_the_bits_of_an_uninterrupted_training(
    name: str, native: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native == "off":
        monkeypatch.setattr(CompiledSteps, "possible", lambda: False)
    recipe = replace(RECIPES[name], epochs=3, batch_size=8, random_shift=1)
    whole = network(recipe)
    kept: list[Checkpoint] = []

    class Collect(Always):
        def save(self, make: Callable[[], Checkpoint]) -> None:
            kept.append(Checkpoint.from_bytes(make().to_bytes()))

    history = list(train(whole, IMAGES, LABELS, recipe, 5, checkpoint_writer=Collect(tmp_path)))
    last = history[-1]

    assert len(kept) >= (
        12 if recipe.mean_fraction_kept == 1 else 8
    )  # later epochs are shorter where easy images are left out
    for saved in kept if name == "tutorial" else kept[1::4]:
        again = network(recipe)
        finished = [epoch for epoch in train(again, IMAGES, LABELS, recipe, 5, resume=saved) if epoch.finished]
        assert same(whole, again)
        assert (finished[-1].loss, finished[-1].accuracy) == (last.loss, last.accuracy)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    recipe = replace(RECIPES["tutorial"], epochs=1)
    checkpoint_writer = Always(tmp_path)
    list(train(network(recipe), IMAGES, LABELS, recipe, 0, checkpoint_writer=checkpoint_writer))

    with pytest.raises(RunError, match="does not fit"):
        list(train(build_network("cnn", SPEC, 3, 0), IMAGES, LABELS, RECIPES["fast"], 0, resume=latest(tmp_path)))


def test_chunks_of_an_epoch_add_up_to_its_steps() -> None:
    batches = Batches(IMAGES, LABELS, replace(RECIPES["tutorial"], batch_size=8), 0, torch.device("cpu"))

    assert batches.chunks(1) > 2
    assert [batches.steps_before(1, 0), batches.steps_before(1, batches.chunks(1))] == [0, batches.steps(1)]
