"""pruning.py: easy images are mostly left out, the others stand for them, and a training goes on to the same bits."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hangtag.errors import RunError
from hangtag.training.engine.batches import Batches
from hangtag.training.engine.checkpoints import CheckpointWriter, latest
from hangtag.training.engine.loop import train
from hangtag.training.engine.networks import build_network
from hangtag.training.engine.pruning import Pruning
from hangtag.training.engine.recipes import Recipe, find_recipe
from toys import SIDE, ImageSpec, quick_recipe, shapes

SPEC = ImageSpec(SIDE, SIDE)
CPU = torch.device("cpu")


def pruned(epochs: int = 4) -> Recipe:
    return replace(quick_recipe(epochs), batch_size=8, prune_fraction=0.5, prune_rate=0.6, label_smoothing=0.1)


def test_the_images_of_the_smallest_losses_are_left_out_and_the_rest_stand_for_them() -> None:
    pruning = Pruning(10, pruned())
    pruning.note(torch.arange(10), torch.arange(10.0))

    pruning.begin(2)
    order = torch.arange(9, -1, -1)
    kept = pruning.kept(order)

    assert pruning.left_out(2) == 3
    assert kept.tolist() == [9, 8, 7, 6, 5, 1, 0]  # of the easy 4, 3, 2, 1, 0 the first three are left out
    assert pruning.weights(kept).tolist() == [1.0] * 5 + [2.5] * 2
    assert float(pruning.weights(kept).sum()) == 10


def test_the_first_epoch_takes_all_and_an_image_never_seen_is_not_easy() -> None:
    pruning = Pruning(4, replace(pruned(), prune_fraction=0.75))
    pruning.begin(1)
    assert pruning.kept(torch.arange(4)).tolist() == [0, 1, 2, 3]

    pruning.note(torch.tensor([0, 2, 3]), torch.tensor([5.0, 5.0, 5.0]))
    pruning.begin(2)

    assert pruning.easy.tolist() == [True, False, True, True]


def test_an_epoch_has_fewer_steps_and_its_weights_stand_for_all_images() -> None:
    images, labels = shapes(90)
    batches = Batches(images, labels, replace(pruned(), last_partial_batch=True), 0, CPU)
    batches.begin(1)
    for number in range(batches.chunks(1)):
        batches.note(1, number, torch.rand(len(batches.chunk(1, number).labels)))
    batches.begin(2)

    weights = torch.cat([batches.chunk(2, number).weights for number in range(batches.chunks(2))])

    assert (batches.steps(1), batches.steps(2)) == (12, 8)
    assert len(weights) == 90 - 27
    assert float(weights.sum()) == pytest.approx(90)


def test_the_last_epochs_take_all_images_again_if_so_wished_and_each_counts_once() -> None:
    images, labels = shapes(90)
    recipe = replace(pruned(8), prune_until=0.75, last_partial_batch=True)
    batches = Batches(images, labels, recipe, 0, CPU)
    for epoch in range(1, 9):
        batches.begin(epoch)
        weights = torch.cat([batches.chunk(epoch, number).weights for number in range(batches.chunks(epoch))])
        assert float(weights.sum()) == pytest.approx(90)
        assert bool((weights == 1).all()) == (epoch in (1, 7, 8))

    assert [batches.steps(epoch) for epoch in range(1, 9)] == [12, 8, 8, 8, 8, 8, 12, 12]
    assert recipe.mean_fraction_kept == pytest.approx(1 - 0.5 * 0.6 * 0.75)


def test_it_learns_as_well_and_says_the_accuracy_of_all_images() -> None:
    images, labels = shapes(90)
    network = build_network("mlp", SPEC, 3, 0)

    epochs = [each for each in train(network, images, labels, pruned(20), 0, shapes(30, seed=1)) if each.finished]

    assert epochs[-1].val_accuracy == 1.0
    assert [epoch.steps for epoch in epochs[:3]] == [12, 8, 8]
    assert epochs[-1].accuracy == pytest.approx(1.0)


def test_images_that_count_more_move_the_weights_more() -> None:
    images, labels = shapes(90)

    def trained(recipe: Recipe) -> torch.Tensor:
        network = build_network("mlp", SPEC, 3, 0)
        list(train(network, images, labels, recipe, 0))
        return network.state_dict()["hidden.weight"]

    assert not torch.equal(trained(pruned(2)), trained(replace(pruned(2), prune_fraction=0.0)))


def test_a_training_stopped_in_the_middle_of_a_pruned_epoch_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hangtag.training.engine.batches._CHUNK_PIXELS", 2 * 8 * SIDE * SIDE)
    images, labels = shapes(90)
    whole, other = build_network("mlp", SPEC, 3, 0), build_network("mlp", SPEC, 3, 0)
    list(train(whole, images, labels, pruned(), 0))
    asked = iter([False] * 8 + [True])  # six chunks in the first epoch, four in each later one
    checkpoint_writer = CheckpointWriter(tmp_path)

    stopped = list(
        train(other, images, labels, pruned(), 0, stop=lambda: next(asked), checkpoint_writer=checkpoint_writer)
    )
    assert stopped[-1].cut_short and stopped[-1].number == 2
    again = build_network("mlp", SPEC, 3, 7)
    list(train(again, images, labels, pruned(), 0, resume=latest(tmp_path)))

    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in again.state_dict().items())


def test_a_checkpoint_of_other_images_is_refused(tmp_path: Path) -> None:
    images, labels = shapes(90)
    network = build_network("mlp", SPEC, 3, 0)
    list(train(network, images, labels, pruned(), 0, stop=lambda: True, checkpoint_writer=CheckpointWriter(tmp_path)))

    with pytest.raises(RunError, match=r"90 images, here are 60"):
        list(train(network, images[:60], labels[:60], pruned(), 0, resume=latest(tmp_path)))


def test_sampling_chooses_images_by_itself() -> None:
    images, labels = shapes(60)
    batches = Batches(images, np.where(labels == 2, 1, labels), replace(pruned(), balance="sampling"), 0, CPU)

    assert batches.pruning is None
    assert find_recipe("tutorial").mean_fraction_kept == 1
