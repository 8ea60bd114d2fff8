"""sampling.py: uneven classes are balanced by weights or sampling; easy images are pruned without bias."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hangtag.errors import RunError
from hangtag.training.engine.batches import Batches
from hangtag.training.engine.build import build_network
from hangtag.training.engine.checkpoints import CheckpointWriter, latest
from hangtag.training.engine.loop import train
from hangtag.training.engine.recipes import Recipe, find_recipe
from hangtag.training.engine.sampling import Pruning, balance_note, balanced_order, choose_balance, class_weights
from hangtag.training.engine.steps import GenericSteps, steps_for
from hangtag.training.estimator import ImageClassifier
from toys import SIDE, ImageSpec, quick_recipe, shapes

FAST = find_recipe("fast")
SPEC = ImageSpec(SIDE, SIDE)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("balance", "counts", "chosen"),
    [
        ("auto", [100, 100, 90], "off"),
        ("auto", [300, 100, 100], "off"),
        ("auto", [301, 100, 100], "weights"),
        ("auto", [301, 100, 0], "weights"),
        ("auto", [100, 100, 0], "off"),
        ("off", [1000, 1, 1], "off"),
        ("sampling", [1, 1, 1], "sampling"),
    ],
)
def test_by_default_only_uneven_classes_are_balanced(balance: str, counts: list[int], chosen: str) -> None:
    assert choose_balance(replace(FAST, balance=balance), np.array(counts)) == chosen


def test_the_note_tells_what_is_done_and_how_to_turn_it_off() -> None:
    note = balance_note("weights", np.array([5000, 40]), ("cat", "dog"))

    assert note == (
        "classes are imbalanced (cat 5,000, dog 40 images): images are weighted by inverse class frequency. "
        "To turn this off: --balance off (in Python balance='off')"
    )
    assert balance_note("off", np.array([5000, 40]), ("cat", "dog")) == ""


def test_weights_are_inverse_to_the_counts_and_one_on_average() -> None:
    counts = np.array([10, 30, 0, 60])

    weights = class_weights(counts).numpy()

    assert weights[[0, 1, 3]] * counts[[0, 1, 3]] == pytest.approx([100 / 3] * 3)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[2] == 0


def test_a_balanced_order_shows_classes_equally_often_and_wastes_no_rare_image() -> None:
    labels = torch.tensor([0] * 80 + [1] * 15 + [3] * 5)

    order = balanced_order(labels, torch.Generator().manual_seed(0))

    shown = torch.bincount(labels[order], minlength=4).tolist()
    assert sum(shown) == 100
    assert (shown[2], max(shown), min(shown[0], shown[1], shown[3])) == (0, 34, 33)
    assert set(order[labels[order] == 3].tolist()) == set(range(95, 100))
    each = torch.bincount(order, minlength=100)[95:]
    assert int(each.max() - each.min()) <= 1


def test_weighted_steps_weigh_each_image_by_its_own_class() -> None:
    recipe = replace(FAST, bfloat16=False)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, 3))
    weights = torch.tensor([1.0, 2.0, 3.0])
    steps = steps_for(network, recipe, 8, torch.device("cpu"))
    assert isinstance(steps, GenericSteps)
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3

    losses = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")

    assert float(steps._loss(logits, labels, weights[labels])) == pytest.approx(
        float((losses * weights[labels]).mean())
    )


@pytest.mark.parametrize("balance", ["auto", "sampling"])
def test_a_rare_class_is_learned(balance: str) -> None:
    images, labels = shapes(900)
    keep = (labels != 1) | (np.arange(900) < 30)
    recipe = replace(quick_recipe(6), balance=balance)
    classifier = ImageClassifier(recipe=recipe).fit(images[keep], labels[keep])

    assert len(classifier.notes_) == 1
    assert classifier.recipe_.balance == ("weights" if balance == "auto" else "sampling")
    test, truth = shapes(90, seed=5)
    assert (classifier.predict(test[truth == 1]) == 1).all()


def pruned(epochs: int = 4) -> Recipe:
    return replace(quick_recipe(epochs), batch_size=8, prune_fraction=0.5, prune_rate=0.6, label_smoothing=0.1)


def test_easy_images_are_pruned_and_the_remaining_ones_weighted() -> None:
    pruning = Pruning(10, pruned())
    pruning.record(torch.arange(10), torch.arange(10.0))

    pruning.begin(2)
    order = torch.arange(9, -1, -1)
    selected = pruning.select(order)

    assert pruning.pruned(2) == 3
    assert selected.tolist() == [9, 8, 7, 6, 5, 1, 0]  # the first three of the easy 4, 3, 2, 1, 0 are pruned
    assert pruning.weights(selected).tolist() == [1.0] * 5 + [2.5] * 2
    assert float(pruning.weights(selected).sum()) == 10


def test_the_first_epoch_uses_all_images_and_an_image_without_a_loss_is_not_easy() -> None:
    pruning = Pruning(4, replace(pruned(), prune_fraction=0.75))
    pruning.begin(1)
    assert pruning.select(torch.arange(4)).tolist() == [0, 1, 2, 3]

    pruning.record(torch.tensor([0, 2, 3]), torch.tensor([5.0, 5.0, 5.0]))
    pruning.begin(2)

    assert pruning.easy.tolist() == [True, False, True, True]


def test_a_pruned_epoch_has_fewer_steps_and_the_same_total_weight() -> None:
    images, labels = shapes(90)
    batches = Batches(images, labels, replace(pruned(), last_partial_batch=True), 0, CPU)
    batches.begin(1)
    for number in range(batches.chunks(1)):
        batches.record_losses(1, number, torch.rand(len(batches.chunk(1, number).labels)))
    batches.begin(2)

    weights = torch.cat([batches.chunk(2, number).weights for number in range(batches.chunks(2))])

    assert (batches.steps(1), batches.steps(2)) == (12, 8)
    assert len(weights) == 90 - 27
    assert float(weights.sum()) == pytest.approx(90)


def test_epochs_after_prune_until_use_all_images_with_weight_one() -> None:
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


def test_training_with_pruning_learns_and_reports_the_accuracy_of_all_images() -> None:
    images, labels = shapes(90)
    network = build_network("mlp", SPEC, 3, 0)

    epochs = [each for each in train(network, images, labels, pruned(20), 0, shapes(30, seed=1)) if each.finished]

    assert epochs[-1].val_accuracy == 1.0
    assert [epoch.steps for epoch in epochs[:3]] == [12, 8, 8]
    assert epochs[-1].accuracy == pytest.approx(1.0)


def test_sample_weights_change_the_training() -> None:
    images, labels = shapes(90)

    def trained(recipe: Recipe) -> torch.Tensor:
        network = build_network("mlp", SPEC, 3, 0)
        list(train(network, images, labels, recipe, 0))
        return network.state_dict()["hidden.weight"]

    assert not torch.equal(trained(pruned(2)), trained(replace(pruned(2), prune_fraction=0.0)))


def test_resuming_in_the_middle_of_a_pruned_epoch_gives_the_same_bits(
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

    with pytest.raises(RunError, match="it has 90 images, this training has 60"):
        list(train(network, images[:60], labels[:60], pruned(), 0, resume=latest(tmp_path)))


def test_sampling_turns_pruning_off() -> None:
    images, labels = shapes(60)
    batches = Batches(images, np.where(labels == 2, 1, labels), replace(pruned(), balance="sampling"), 0, CPU)

    assert batches.pruning is None
    assert find_recipe("tutorial").mean_fraction_kept == 1
