"""Recipes are data: the lesson's is the lesson's, and each can be asked for by name and changed."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from hangtag.errors import UnknownName, UsageError
from hangtag.models import NETWORKS
from hangtag.recipes import DEFAULT, RECIPES, Recipe, find_recipe


def test_the_tutorial_recipe_is_the_lesson() -> None:
    lesson = RECIPES["tutorial"]

    assert (lesson.network, lesson.epochs, lesson.batch_size) == ("mlp", 10, 32)
    assert (lesson.lr_peak, lesson.adam_epsilon, lesson.beta2) == (1e-3, 1e-7, 0.999)
    assert (lesson.validation, lesson.last_partial_batch, lesson.bfloat16) == (0.0, True, False)
    assert (lesson.weight_decay, lesson.label_smoothing, lesson.flip, lesson.shift) == (0.0, 0.0, False, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_known_by_its_own_name_and_names_a_network(name: str) -> None:
    recipe = RECIPES[name]

    assert (recipe.name, recipe.network in NETWORKS, bool(recipe.says)) == (name, True, True)
    assert find_recipe(name) is recipe or find_recipe(name) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    assert Recipe(**json.loads(json.dumps(RECIPES[name].to_json()))) == RECIPES[name]


def test_a_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["fast"].epochs = 3  # type: ignore[misc]


def test_the_default_is_fast() -> None:
    assert DEFAULT == "fast"


def test_network_and_epochs_can_be_asked_for() -> None:
    assert find_recipe("tutorial", network="cnn", epochs=3) == replace(RECIPES["tutorial"], network="cnn", epochs=3)
    assert find_recipe(RECIPES["fast"], epochs=1) == replace(RECIPES["fast"], epochs=1)


def test_an_unknown_recipe_offers_the_nearest_one() -> None:
    with pytest.raises(UnknownName) as caught:
        find_recipe("tutoral")

    assert str(caught.value) == "unknown recipe 'tutoral' (did you mean 'tutorial'? known: fast, tutorial)"


@pytest.mark.parametrize("epochs", [0, -1])
def test_training_for_no_epochs_is_refused(epochs: int) -> None:
    with pytest.raises(UsageError) as caught:
        find_recipe("fast", epochs=epochs)

    assert str(caught.value) == f"epochs={epochs} makes no sense (train for at least 1 epoch)"
