"""recipes.py: the tutorial recipe is the lesson; recipes have names, and settings can be changed and are checked."""

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from hangtag.errors import UnknownName, UsageError
from hangtag.training.engine.networks import NETWORKS
from hangtag.training.engine.recipes import (
    DEFAULT,
    RECIPES,
    Recipe,
    adapt_to_pixels,
    adapt_to_size,
    find_recipe,
    with_settings,
)


def test_the_tutorial_recipe_is_the_lesson() -> None:
    lesson = RECIPES["tutorial"]

    assert (lesson.network, lesson.epochs, lesson.batch_size) == ("mlp", 10, 32)
    assert (lesson.learning_rate, lesson.adam_epsilon, lesson.adam_beta2) == (1e-3, 1e-7, 0.999)
    assert (lesson.validation, lesson.last_partial_batch, lesson.bfloat16) == (0.0, True, False)
    assert (lesson.weight_decay, lesson.label_smoothing, lesson.flip, lesson.random_shift) == (0.0, 0.0, False, 0)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_known_by_its_own_name_and_names_a_network(name: str) -> None:
    recipe = RECIPES[name]

    assert (recipe.name, bool(recipe.description)) == (name, True)
    assert (recipe.network in NETWORKS) != bool(recipe.backbone)
    assert find_recipe(name) is recipe or find_recipe(name) == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    assert Recipe(**json.loads(json.dumps(RECIPES[name].to_json()))) == RECIPES[name]


def test_a_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        RECIPES["fast"].epochs = 3  # type: ignore[misc]


def test_the_default_is_fast() -> None:
    assert DEFAULT == "fast"


def test_network_and_epochs_can_be_changed() -> None:
    assert find_recipe("tutorial", network="cnn", epochs=3) == replace(RECIPES["tutorial"], network="cnn", epochs=3)
    assert find_recipe(RECIPES["fast"], epochs=1) == replace(RECIPES["fast"], epochs=1)


def test_an_unknown_recipe_offers_the_nearest_one() -> None:
    with pytest.raises(UnknownName) as caught:
        find_recipe("tutoral")

    assert (
        str(caught.value)
        == "unknown recipe 'tutoral' (did you mean 'tutorial'? known: accurate, best, fast, quick, transfer, tutorial)"
    )


@pytest.mark.parametrize("epochs", [0, -1])
def test_training_for_no_epochs_is_refused(epochs: int) -> None:
    with pytest.raises(UsageError) as caught:
        find_recipe("fast", epochs=epochs)

    assert str(caught.value) == f"epochs must be from 1 to 1,000,000, got {epochs} (usual: 5 to 60)"


@pytest.mark.parametrize(
    "setting",
    [
        "weight_decay=inf", "adam_epsilon=nan", "adam_epsilon=-1", "start_factor=nan", "end_factor=inf",
        "end_factor=-1", "learning_rate=nan", "muon_learning_rate=inf", "min_steps=-5", "label_smoothing=nan",
        "adam_beta2=nan", "last_epoch_fraction=nan",
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_refused(setting: str) -> None:
    with pytest.raises(UsageError, match=f"{setting.partition('=')[0]} must be .*, got "):
        with_settings(find_recipe("fast"), [setting])


def test_any_setting_can_be_changed_by_name_and_value() -> None:
    changed = with_settings(
        find_recipe("fast"), ["learning_rate=0.002", "flip=no", "epochs=3", "cores=none", "network=mlp"]
    )

    assert changed == replace(RECIPES["fast"], learning_rate=0.002, flip=False, epochs=3, cores=None, network="mlp")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("learning_rate", "has no value"),
        ("learning_rat=1", "did you mean 'learning_rate'"),
        ("name=mine", "unknown setting 'name'"),
        ("epochs=many", "epochs must be a whole number, got "),
        ("epochs=1.5", "epochs must be a whole number, got "),
        ("flip=perhaps", "flip must be yes or no, got perhaps"),
        ("validation=1", "validation must be at least 0 and below 1, got 1.0"),
        ("learning_rate=0", r"learning_rate must be above 0, got 0.0 \(usual: below 0.1\)"),
        ("batch_size=0", "batch_size must be from 1 to 1,000,000, got 0"),
        ("balance=hard", "balance must be one of auto, off, weights, sampling, got hard"),
    ],
)
def test_an_invalid_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        with_settings(find_recipe("fast"), [setting])


def test_what_the_user_gives_is_never_adapted_even_if_it_equals_the_recipe() -> None:
    given = find_recipe("fast", epochs=9, batch_size=256)

    assert adapt_to_size(given, 400) == (given, "")
    assert adapt_to_size(with_settings(RECIPES["fast"], ["epochs=9", "batch_size=256"]), 400)[1] == ""
    assert adapt_to_size(find_recipe("fast", epochs=9), 400)[0].epochs == 9
    assert adapt_to_size(find_recipe("fast", epochs=9), 400)[0].batch_size == 16
    assert adapt_to_size(Recipe(**given.to_json()), 400)[1] == ""  # as a resumed run reads it from config.json
    assert adapt_to_size(RECIPES["fast"], 400)[0].epochs == 38


def test_a_larger_image_lowers_the_rate_of_the_network_without_normalisation() -> None:
    assert adapt_to_pixels(find_recipe("quick"), 28 * 28) == (find_recipe("quick"), "")
    assert adapt_to_pixels(find_recipe("quick"), 56 * 56)[0].learning_rate == 0.0015
    assert adapt_to_pixels(find_recipe("quick", learning_rate=0.003), 56 * 56)[1] == ""
    for name in ("tutorial", "fast"):
        assert adapt_to_pixels(find_recipe(name), 56 * 56)[1] == ""


def test_numbers_of_numpy_become_pythons_and_wrong_types_are_refused() -> None:
    recipe = find_recipe("quick", epochs=np.int64(3), learning_rate=np.float64(0.01), flip=np.bool_(False))

    assert [type(each) for each in (recipe.epochs, recipe.learning_rate, recipe.flip)] == [int, float, bool]
    json.dumps(recipe.to_json())
    wrong: list[dict[str, Any]] = [
        {"epochs": 3.5}, {"epochs": True}, {"epochs": "3"}, {"learning_rate": "0.1"}, {"flip": 1}, {"balance": 3},
    ]  # fmt: skip
    for setting in wrong:
        with pytest.raises(ValueError, match=f"{next(iter(setting))} must be a? ?.*, got"):
            find_recipe("quick", **setting)


def test_a_setting_that_is_given_twice_differently_is_refused() -> None:
    assert with_settings(RECIPES["fast"], ["epochs=3", "epochs=3"]).epochs == 3
    with pytest.raises(UsageError, match="epochs was given twice: 3 and 4"):
        with_settings(RECIPES["fast"], ["epochs=3", "epochs=4"])


@pytest.mark.parametrize("other", [{"patience": 2}, {"validation": 0.2}])
def test_folds_and_settings_that_hold_images_out_are_refused_before_there_is_data(other: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        find_recipe("fast", folds=5, **other)

    assert find_recipe("fast", folds=0, **other).folds == 0
