"""The arguments of a classifier, and the recipe and seeds that they mean."""

import inspect
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any

from torch import nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import UsageError
from hangtag.pictures import ImageSpec
from hangtag.training.choose_recipe import AUTO, choose_recipe
from hangtag.training.engine.custom import Augment, Loss
from hangtag.training.engine.recipes import DEFAULT, Recipe, changed, check_not_two, find_recipe, is_given

__all__ = ["SETTINGS", "Arguments", "check_settings", "seed_of", "split_seed_of"]

SETTINGS = ("epochs", "batch_size", "learning_rate", "validation", "folds", "patience")
"""Settings of the recipe that are also arguments of the classifier."""


class Arguments:
    """The arguments of a `Classifier`, where they are documented; stored unchecked, which scikit-learn requires."""

    def __init__(
        self,
        recipe: str | Recipe = AUTO,
        model: str | nn.Module | Callable[[ImageSpec, int], nn.Module] | None = None,
        epochs: int | None = None,
        seed: int | None = None,
        device: str = "auto",
        split_seed: int | None = None,
        *,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        validation: float | None = None,
        folds: int | None = None,
        patience: int | None = None,
        balance: str | None = None,
        class_weight: str | Mapping[Any, float] | None = None,
        settings: Mapping[str, Any] | None = None,
        loss: Loss | None = None,
        augment: Augment | None = None,
        random_state: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.recipe = recipe
        self.model = model
        self.epochs = epochs
        self.seed = seed
        self.device = device
        self.split_seed = split_seed
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation = validation
        self.folds = folds
        self.patience = patience
        self.balance = balance
        self.class_weight = class_weight
        self.settings = settings
        self.loss = loss
        self.augment = augment
        self.random_state = random_state
        self.verbose = verbose

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments, by name."""
        return {name: getattr(self, name) for name in inspect.signature(Arguments).parameters}

    def chosen_recipe(self, data: LabelledImages | None = None) -> Recipe:
        """The recipe with the constructor's settings applied.

        Args:
            data: what to choose a recipe for if it is "auto"; None: many small images.

        Raises:
            UsageError: a setting is invalid, or two contradict each other.
        """
        return self._choice(data)[0]

    def _choice(self, data: LabelledImages | None) -> tuple[Recipe, str]:
        """`chosen_recipe`, and a note on why."""
        own = {
            "network": self.model if isinstance(self.model, str) else None,
            "balance": self._balance(),
            **{name: getattr(self, name) for name in SETTINGS},
        }
        settings = self.settings or {}
        if not isinstance(settings, Mapping):
            raise UsageError(f"settings must be a dict, got {settings!r}", "for example settings={'flip': False}")
        for name, value in settings.items():
            check_not_two(name, own.get(name), value)
        recipe, note = self.recipe, ""
        own_code = any(value is not None for value in (self.model, self.loss, self.augment))
        if recipe == AUTO:
            given = {*settings, *(name for name, value in own.items() if value is not None)}
            recipe = "transfer" if "backbone" in given else DEFAULT
            if data is not None and recipe == DEFAULT and not own_code:
                recipe, note = choose_recipe(data, given)
        recipe = find_recipe(changed(find_recipe(recipe), settings), **own)
        if recipe.backbone and own_code:
            raise UsageError(
                f"recipe '{recipe.name}' trains no network, so it takes no model, loss or augmentation",
                "leave them out, or use recipe 'fast'",
            )
        return recipe, note

    def _balance(self) -> str | None:
        """`balance`, or what `class_weight` means for it."""
        if self.class_weight is None:
            return self.balance
        if not isinstance(self.class_weight, Mapping) and self.class_weight != "balanced":
            raise UsageError(
                f"class_weight must be 'balanced', a dict or None, got {self.class_weight!r}",
                "for example class_weight={'cat': 2.0}",
            )
        meaning = "off" if isinstance(self.class_weight, Mapping) else "weights"
        if self.balance not in (None, meaning):
            raise UsageError(
                f"class_weight and balance={self.balance!r} contradict each other", "give only one of them"
            )
        return meaning


def seed_of(arguments: Arguments) -> int:
    """The seed of a training: `seed`, or `random_state`, or 0.

    Raises:
        UsageError: a seed is invalid, or the two differ.
    """
    one, other = (_checked_seed(name, getattr(arguments, name)) for name in ("seed", "random_state"))
    check_not_two("the seed", one, other)
    return next((seed for seed in (one, other) if seed is not None), 0)


def split_seed_of(arguments: Arguments) -> int:
    """The seed that determines which images are held out."""
    own = _checked_seed("split_seed", arguments.split_seed)
    return seed_of(arguments) if own is None else own


def _checked_seed(name: str, seed: Any) -> int | None:
    if seed is not None and not (isinstance(seed, Integral) and 0 <= int(seed) < 2**63):
        raise UsageError(f"{name} must be a whole number from 0 to 2^63 - 1, got {seed!r}", f"for example {name}=0")
    return None if seed is None else int(seed)


def check_settings(recipe: Recipe, data: LabelledImages) -> None:
    """Raise UsageError if a setting does not fit the data.

    The batch size of a named recipe shrinks for small data; one that the user chose does not.
    """
    images = len(data.train)
    if recipe.batch_size > images and is_given(recipe, "batch_size"):
        raise UsageError(
            f"batch_size must be at most {images:,}, the number of training images, got {recipe.batch_size:,}",
            f"use a smaller one, such as {max(1, images // 10)}",
        )
    if recipe.patience and not recipe.validation and "validation" not in data.parts:
        raise UsageError(
            f"patience={recipe.patience} needs held-out images, but recipe '{recipe.name}' holds out none",
            "hold some out: --set validation=0.1 (in Python validation=0.1)",
        )
