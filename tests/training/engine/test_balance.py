"""balance.py: uneven classes are noticed, said, and evened out, by weights or by drawing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hangtag.training.classifier import ImageClassifier
from hangtag.training.engine.balance import balance_in_words, balanced_order, choose_balance, class_weights
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.engine.steps import GenericSteps, steps_for
from toys import SIDE, quick_recipe, shapes

FAST = find_recipe("fast")


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
def test_only_uneven_classes_are_evened_out_unless_asked(balance: str, counts: list[int], chosen: str) -> None:
    assert choose_balance(replace(FAST, balance=balance), np.array(counts)) == chosen


def test_it_is_said_with_how_to_turn_it_off() -> None:
    said = balance_in_words("sampling", np.array([5000, 40]), ("cat", "dog"))

    assert said.startswith("classes are uneven (cat 5,000, dog 40 images)")
    assert said.endswith("--balance off")
    assert balance_in_words("off", np.array([5000, 40]), ("cat", "dog")) == ""


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
    steps = steps_for(network, recipe, 8, torch.device("cpu"), weighted=True)
    assert isinstance(steps, GenericSteps)
    logits, labels = torch.randn(8, 3), torch.arange(8) % 3

    each = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1, reduction="none")

    assert float(steps._loss(logits, labels, weights[labels])) == pytest.approx(float((each * weights[labels]).mean()))


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
