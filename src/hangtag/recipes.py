"""Recipes: how to train, as data, each number with its reason.

A recipe says nothing about the machine (`train.py` looks at that) nor about the data.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from hangtag.errors import UnknownName, UsageError

__all__ = ["ADAM_BETA1", "DEFAULT", "RECIPES", "Recipe", "find_recipe"]


ADAM_BETA1 = 0.9
"""Decay of Adam's first moment, in every recipe."""


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        network: a name in `models.NETWORKS`.
        epochs: passes over the training images.
        batch_size: images per step.
        lr_peak: the largest learning rate of AdamW (Kingma & Ba, 2015; Loshchilov & Hutter, 2019).
        warm_up: share of all steps on a straight way up to the peak; after it, a straight way down. 0: constant.
        lr_start, lr_end: share of the peak at the first and after the last step.
        beta2: decay of Adam's second moment.
        adam_epsilon: added to the denominator of Adam's step.
        weight_decay: on weight matrices, not on biases and normalisation; 0 makes AdamW plain Adam.
        label_smoothing: probability mass spread over all classes while training (Szegedy et al., 2016).
        flip: mirror images left to right, every other epoch each (Jordan, 2024, "alternating flip").
        shift: move images by up to this many pixels in both directions.
        validation: share of each class held out to watch, never trained on.
        last_partial_batch: also take the step on what is left when the batch size does not divide the images.
        cores: how many to use at most; None is all there are.
        bfloat16: multiply in bfloat16 where the hardware does so natively.
    """

    name: str
    says: str
    network: str
    epochs: int
    batch_size: int
    lr_peak: float
    warm_up: float = 0.0
    lr_start: float = 1.0
    lr_end: float = 1.0
    beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    flip: bool = False
    shift: int = 0
    validation: float = 0.1
    last_partial_batch: bool = False
    bfloat16: bool = True
    cores: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# The lesson's training, exactly; nothing here is ours to tune.
TUTORIAL = Recipe(
    name="tutorial",
    says="the lesson: Flatten > Dense 128 > Dense 10, Adam, 10 epochs, all training images",
    network="mlp",
    epochs=10,
    batch_size=32,  # the lesson's framework's default
    lr_peak=1e-3,  # likewise
    adam_epsilon=1e-7,  # likewise; PyTorch's is 1e-8
    validation=0.0,  # the lesson trains on all 60,000
    last_partial_batch=True,
    bfloat16=False,
    cores=2,  # a step of 32 images is too little work to share among more
)

# Chosen on a validation split of the training images; docs/log.md has the search.
FAST = Recipe(
    name="fast",
    says="a small convolutional network; the default",
    network="cnn",
    epochs=6,  # under two minutes on two cores
    batch_size=256,  # 128 was no faster an epoch and 0.1 points worse
    lr_peak=0.005,
    warm_up=0.2,
    lr_start=0.2,
    lr_end=0.02,
    beta2=0.98,
    weight_decay=0.02,
    label_smoothing=0.1,
    flip=True,  # worth 0.5 points at 9 epochs; at 4 it cost 0.3
    shift=0,  # a pixel cost 0.5 points at 4 epochs and 0.7 at 9: the clothes are all centred
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
