"""Recipes: how to train, as data, each number with its reason.

A recipe says nothing about the machine (`train.py` looks at that) nor about the data.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from hangtag.errors import UnknownName, UsageError

__all__ = ["DEFAULT", "RECIPES", "Recipe", "find_recipe"]


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        network: a name in `models.NETWORKS`.
        epochs: passes over the training images.
        batch_size: images per step.
        optimizer: "adam" (Kingma & Ba, 2015) or "sgd" (Nesterov momentum).
        lr_peak: the largest learning rate.
        schedule: "constant", or "one-cycle": up to the peak in a straight line, then down to zero.
        warm_up: share of all steps spent going up.
        momentum: of sgd.
        weight_decay: of sgd, on weights but not on biases and normalisation.
        adam_epsilon: added to the denominator of Adam's step.
        label_smoothing: probability mass spread over the other classes while training.
        flip: mirror images left to right, each with probability one half.
        shift: move images by up to this many pixels in both directions.
        validation: share of each class held out to watch, never trained on.
        last_partial_batch: also take the step on what is left when the batch size does not divide the images.
        bfloat16: multiply in bfloat16 where the hardware does so natively.
    """

    name: str
    says: str
    network: str
    epochs: int
    batch_size: int
    optimizer: str
    lr_peak: float
    schedule: str = "constant"
    warm_up: float = 0.0
    momentum: float = 0.0
    weight_decay: float = 0.0
    adam_epsilon: float = 1e-8
    label_smoothing: float = 0.0
    flip: bool = False
    shift: int = 0
    validation: float = 0.1
    last_partial_batch: bool = False
    bfloat16: bool = True

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# The lesson's training, exactly; nothing here is ours to tune.
TUTORIAL = Recipe(
    name="tutorial",
    says="the lesson: Flatten > Dense 128 > Dense 10, Adam, 10 epochs, all training images",
    network="mlp",
    epochs=10,
    batch_size=32,  # the lesson's framework's default
    optimizer="adam",
    lr_peak=1e-3,  # likewise
    adam_epsilon=1e-7,  # likewise; PyTorch's is 1e-8
    validation=0.0,  # the lesson trains on all 60,000
    last_partial_batch=True,
    bfloat16=False,
)

FAST = Recipe(
    name="fast",
    says="a small convolutional network; the default",
    network="cnn",
    epochs=8,
    batch_size=128,
    optimizer="sgd",
    lr_peak=0.2,
    schedule="one-cycle",
    warm_up=0.25,
    momentum=0.9,
    weight_decay=5e-4,
    label_smoothing=0.1,
    flip=True,
    shift=1,
)

RECIPES = {recipe.name: recipe for recipe in (FAST, TUTORIAL)}
DEFAULT = FAST.name


def find_recipe(recipe: str | Recipe, network: str | None = None, epochs: int | None = None) -> Recipe:
    """The named recipe, with another network or number of epochs where given.

    >>> find_recipe("tutorial", epochs=3).epochs
    3
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise UnknownName.among("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe]
    if epochs is not None and epochs < 1:
        raise UsageError(f"epochs={epochs} makes no sense", "train for at least 1 epoch")
    changes: dict[str, Any] = {"network": network, "epochs": epochs}
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})
