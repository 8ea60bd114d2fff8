"""search_space.py: what can be searched, as text and in Python, and the errors."""

import math
from typing import Any

import pytest

from hangtag.errors import UsageError
from hangtag.training.engine.recipes import RECIPES, changed, find_recipe
from hangtag.training.search_space import (
    Choice,
    Range,
    default_space,
    own_settings,
    parse_space,
    size_of,
    space_from_python,
)

FAST = find_recipe("fast")


def test_ranges_and_values_as_text_and_in_python() -> None:
    space = parse_space(FAST, ["learning_rate=1e-4..1e-1", "batch_size=32,64", "epochs=5..9", "flip=yes,no"])

    assert space == {
        "learning_rate": Range(1e-4, 0.1, log=True), "batch_size": Choice((32, 64)), "epochs": Range(5, 9),
        "flip": Choice((True, False)),
    }  # fmt: skip
    assert space == space_from_python(
        FAST, {"learning_rate": (1e-4, 0.1), "batch_size": [32, 64], "epochs": (5, 9), "flip": [True, False]}
    )
    assert math.isinf(size_of(space))
    assert size_of(parse_space(FAST, ["epochs=5..9", "flip=yes,no"])) == 10


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ("learning_rat=1..2", "did you mean 'learning_rate'"),
        ("learning_rate", "has no values"),
        ("learning_rate=", "has no values"),
        ("learning_rate=0.1..0.01", "0.1 is not below 0.01"),
        ("learning_rate=nan..1", "is empty"),
        ("learning_rate=0.1..a", "must be a number, got a"),
        ("learning_rate=-1..1", "learning_rate must be above 0"),
        ("batch_size=1.5..3", "must be a whole number"),
        ("batch_size=32", "only one value"),
        ("batch_size=32,32", "same value twice"),
        ("flip=no..yes", "cannot have a range"),
        ("balance=auto,odd", "balance must be one of"),
        ("validation=0.1,0.2", "decides which images judge a trial"),
        ("weight_decay=0..1", "both fixed and searched"),
        ("backbone=efficientnet-lite0,efficientnet-lite1", "takes no backbone"),
    ],
)
def test_errors_name_the_setting(search: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("..", r"\.\.")):
        parse_space(find_recipe("fast", weight_decay=0.1), [search])


@pytest.mark.parametrize("search", [{"epochs": 3}, {"epochs": (1, 2, 3)}, {"flip": "yes"}, {"epochs": ["3"]}])
def test_errors_in_python(search: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="must be"):
        space_from_python(FAST, search)


def test_a_setting_cannot_be_searched_twice() -> None:
    with pytest.raises(UsageError, match="searched twice"):
        parse_space(FAST, ["epochs=5..9", "epochs=1,2"])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("images", [20, 500, 60_000])
def test_the_default_space_of_each_recipe_is_valid_and_holds_its_own_settings(name: str, images: int) -> None:
    recipe = find_recipe(name)
    space = default_space(recipe, images)

    assert len(space) >= 2
    for setting, each in space.items():
        for value in (each.low, each.high) if isinstance(each, Range) else each.values:
            changed(recipe, {setting: value})
    if name == "transfer" or images > 2000:
        assert own_settings(recipe, space) is not None


def test_settings_that_are_fixed_are_not_in_the_default_space() -> None:
    assert "learning_rate" not in default_space(find_recipe("fast", learning_rate=0.01), 1000)
