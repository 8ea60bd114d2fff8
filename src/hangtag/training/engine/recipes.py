"""Recipes: how to train, as data, each number with its reason.

A recipe says nothing about the machine (`train.py` looks at that) nor about the data.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from hangtag.errors import UnknownName, UsageError

__all__ = ["ADAM_BETA1", "BALANCE", "DEFAULT", "RECIPES", "Recipe", "adapt_to_size", "find_recipe", "with_settings"]

_LEAST_BATCH, _STEPS_PER_EPOCH, _MOST_TIMES = 16, 32, 10  # for few images
_MOST = 1e30  # of any setting; a float32 holds some more

ADAM_BETA1 = 0.9
"""Decay of Adam's first moment, in every recipe."""

BALANCE = ("auto", "off", "weights", "sampling")
"""What can be done about uneven classes; balance.py does it."""


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        network: a name in `models.NETWORKS`.
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: the largest learning rate of AdamW (Kingma & Ba, 2015; Loshchilov & Hutter, 2019).
        warmup: share of all steps on a straight way up to the peak; after it, a straight way down. 0: constant.
        start_factor, end_factor: share of the peak at the first and after the last step.
        muon_learning_rate: the largest learning rate of Muon (Jordan, 2024), which then replaces AdamW for
            convolutions with
            normalisation behind them; 0: AdamW for all.
        muon_momentum: decay of its sum of gradients.
        adam_beta2: decay of Adam's second moment.
        adam_epsilon: added to the denominator of Adam's step.
        weight_decay: on weight matrices, not on biases and normalisation; 0 makes AdamW plain Adam.
        label_smoothing: probability mass spread over all classes while training (Szegedy et al., 2016).
        flip: mirror images left to right, every other epoch each (Jordan, 2024, "alternating flip").
        random_shift: move images by up to this many pixels in both directions.
        small_first: begin with smaller images, where the network takes any size (Howard, 2018, "progressive resizing").
        flip_tta: answer with the mean of the logits of a picture and its mirror image; predicting takes twice as
            long. Built into the model file; only together with `flip`.
        prune_fraction: share of the images, those of the smallest losses, that count as easy; 0: none.
        prune_rate: share of the easy ones that each epoch but the first leaves out, the others counting more (Qin et
            al., 2024, "InfoBatch").
        prune_until: share of the epochs after which none is left out any more; there 0.875.
        random_erasing: share of the images in which a random rectangle becomes noise (Zhong et al., 2020, "random
            erasing").
        validation: share of each class held out to watch, never trained on.
        patience: stop after so many epochs in which the validation loss did not get smaller, and keep the weights from
            when it was smallest (Prechelt, 1998, "early stopping"). 0: never.
        balance: one of `BALANCE`; "auto" weighs classes that are uneven.
        min_steps: on few images, batches are made smaller and epochs added until so many steps are taken.
        last_partial_batch: also take the step on what is left when the batch size does not divide the images.
        last_epoch_fraction: share of the last epoch's steps that are taken, to end at a given time.
        cores: how many to use at most; None is all there are.
        bfloat16: multiply in bfloat16 where the hardware does so natively.
    """

    name: str
    description: str
    network: str
    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float = 0.0
    start_factor: float = 1.0
    end_factor: float = 1.0
    muon_learning_rate: float = 0.0
    muon_momentum: float = 0.6
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    flip: bool = False
    random_shift: int = 0
    small_first: bool = False
    flip_tta: bool = False
    prune_fraction: float = 0.0
    prune_rate: float = 0.0
    prune_until: float = 1.0
    random_erasing: float = 0.0
    min_steps: int = 0
    validation: float = 0.1
    patience: int = 0
    balance: str = "auto"
    last_partial_batch: bool = False
    last_epoch_fraction: float = 1.0
    bfloat16: bool = True
    cores: int | None = None

    def __post_init__(self) -> None:
        for name, fine, hint in (
            ("epochs", self.epochs >= 1, "train for at least 1 epoch"),
            ("batch_size", self.batch_size >= 1, "a batch holds at least 1 image"),
            ("learning_rate", 0 < self.learning_rate <= _MOST, "a learning rate is above 0, mostly below 0.1"),
            ("validation", 0 <= self.validation < 1, "a share is at least 0 and less than 1"),
            ("prune_fraction", 0 <= self.prune_fraction < 1, "a share is at least 0 and less than 1"),
            ("prune_rate", 0 <= self.prune_rate < 1, "a share is at least 0 and less than 1"),
            ("prune_until", 0 <= self.prune_until <= 1, "a share is from 0 to 1"),
            ("random_erasing", 0 <= self.random_erasing <= 1, "a share is from 0 to 1"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "a share is at least 0 and less than 1"),
            ("warmup", 0 <= self.warmup <= 1, "a share is from 0 to 1"),
            ("muon_learning_rate", 0 <= self.muon_learning_rate <= _MOST, "a learning rate is 0 or more"),
            ("muon_momentum", 0 <= self.muon_momentum < 1, "a decay is at least 0 and less than 1"),
            ("adam_beta2", 0 <= self.adam_beta2 < 1, "a decay is at least 0 and less than 1"),
            ("start_factor", 0 <= self.start_factor <= _MOST, "it is a share of learning_rate, 0 or more"),
            ("end_factor", 0 <= self.end_factor <= _MOST, "it is a share of learning_rate, 0 or more"),
            ("adam_epsilon", 0 <= self.adam_epsilon <= _MOST, "it is 0 or more, mostly below 1e-6"),
            ("weight_decay", 0 <= self.weight_decay <= _MOST, "it is 0 or more, mostly below 0.1"),
            ("min_steps", self.min_steps >= 0, "it is 0 or more steps"),
            ("random_shift", self.random_shift >= 0, "it is 0 or more pixels"),
            ("patience", self.patience >= 0, "it is a number of epochs, 0 for never"),
            ("last_epoch_fraction", 0 < self.last_epoch_fraction <= 1, "a share is above 0 and at most 1"),
            ("balance", self.balance in BALANCE, f"known: {', '.join(BALANCE)}"),
            ("cores", self.cores is None or self.cores >= 1, "it is at least 1"),
        ):
            if not fine:
                raise UsageError(f"{name}={getattr(self, name)} makes no sense", hint)

    @property
    def uses_flip_tta(self) -> bool:
        """Where mirror images are other things, as with letters, flip=no turns both off."""
        return self.flip and self.flip_tta

    @property
    def mean_fraction_kept(self) -> float:
        """Share of the images that an epoch but the first trains on, in the mean."""
        return 1 - self.prune_fraction * self.prune_rate * self.prune_until

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


# The lesson's training, exactly; nothing here is ours to tune.
TUTORIAL = Recipe(
    name="tutorial",
    description="the lesson: Flatten > Dense 128 > Dense 10, Adam, 10 epochs, all training images",
    network="mlp",
    epochs=10,
    batch_size=32,  # the lesson's framework's default
    learning_rate=1e-3,  # likewise
    adam_epsilon=1e-7,  # likewise; PyTorch's is 1e-8
    validation=0.0,  # the lesson trains on all 60,000
    balance="off",  # and weighs them alike
    last_partial_batch=True,
    bfloat16=False,
    cores=2,  # a step of 32 images is too little work to share among more
)

# Chosen on a validation split of the training images; docs/log.md has the search.
FAST = Recipe(
    name="fast",
    description="a small convolutional network; the default",
    network="cnn",
    epochs=9,  # under two and a half minutes on two cores
    batch_size=256,  # 128 was no faster an epoch and 0.1 points worse
    learning_rate=0.005,
    warmup=0.2,
    start_factor=0.2,
    end_factor=0.02,
    muon_learning_rate=0.08,  # half of it cost 0.3 points, twice 0.4
    adam_beta2=0.98,
    weight_decay=0.02,
    label_smoothing=0.1,
    min_steps=600,  # few pictures need no fewer steps; docs/log.md
    flip=True,  # worth 0.5 points at 9 epochs; at 4 it cost 0.3
    flip_tta=True,  # worth 0.2 to 0.3 points; predicting takes twice as long
    prune_fraction=0.6,  # 0.7, with 0.8 of them left out, lost half of what this gains
    prune_rate=0.6,  # 14 such epochs cost what 9 whole ones do, and are worth 0.5 points more
    random_shift=0,  # a pixel cost 0.5 points at 4 epochs and 0.7 at 9: the clothes are all centred
)

# The lesson's network, when there are only seconds. Chosen likewise.
QUICK = Recipe(
    name="quick",
    description="the lesson's network in a few seconds",
    network="mlp",
    epochs=8,
    batch_size=64,
    learning_rate=0.003,
    warmup=0.2,
    start_factor=0.2,
    end_factor=0.0,
    adam_beta2=0.98,
    last_partial_batch=True,
    bfloat16=False,  # so that the steps written in C can take them
    cores=2,
)

# As fast, larger and longer. Chosen likewise.
ACCURATE = replace(
    FAST,
    name="accurate",
    description="a larger convolutional network, ten times as long",
    network="cnn-large",
    epochs=28,  # under 25 minutes on two cores
    muon_learning_rate=0.03,  # with this momentum, 0.1 points better than 0.08 with 0.6; two seeds, half the channels
    muon_momentum=0.9,
    prune_until=0.88,  # the last three epochs take all images: perhaps 0.1 points, for a twentieth more time
    random_erasing=0.5,  # a quarter was not compared with it at equal length; docs/log.md
)

# For a GPU. Not yet measured: on a CPU it takes hours, and no GPU was at hand when it was written.
BEST = replace(
    ACCURATE,
    name="best",
    description="the largest network, longest; for a GPU; not yet measured",
    network="cnn-wide",
    epochs=60,
)

RECIPES = {recipe.name: recipe for recipe in (FAST, ACCURATE, BEST, QUICK, TUTORIAL)}
DEFAULT = FAST.name


def find_recipe(
    recipe: str | Recipe,
    network: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    patience: int | None = None,
    balance: str | None = None,
) -> Recipe:
    """The named recipe, with other settings where given.

    >>> find_recipe("tutorial", epochs=3).epochs
    3
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise UnknownName.among("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe]
    changes = {
        "network": network,
        "epochs": epochs,
        "batch_size": batch_size,
        "patience": patience,
        "balance": balance,
    }
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


def adapt_to_size(recipe: Recipe, images: int, unasked: Recipe | None = None) -> tuple[Recipe, str]:
    """A recipe for so many training images, and what was changed, in words; settings that were asked for stay.

    Args:
        unasked: what the recipe is if nothing is asked for; None: the one of ours with its name.

    >>> adapt_to_size(find_recipe("fast"), 400)[1]
    'few images: 38 epochs in batches of 16, not 9 of 256, for enough steps'
    """
    own = unasked or RECIPES.get(recipe.name)
    if (
        own is None
        or recipe.epochs * (int(recipe.mean_fraction_kept * images) // recipe.batch_size) >= recipe.min_steps
    ):
        return recipe, ""
    batch, epochs = recipe.batch_size, recipe.epochs
    if batch == own.batch_size:
        while batch > _LEAST_BATCH and images < _STEPS_PER_EPOCH * batch:
            batch //= 2
    if epochs == own.epochs:
        epochs = max(epochs, -(-recipe.min_steps // max(1, int(recipe.mean_fraction_kept * images) // batch)))
        epochs = min(epochs, _MOST_TIMES * recipe.epochs)
    if (batch, epochs) == (recipe.batch_size, recipe.epochs):
        return recipe, ""
    words = f"few images: {epochs} epochs in batches of {batch}, not {recipe.epochs} of {recipe.batch_size}"
    return replace(recipe, batch_size=batch, epochs=epochs), f"{words}, for enough steps"


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """A recipe changed by settings in words, `name=value`.

    >>> with_settings(find_recipe("fast"), ["learning_rate=0.002", "flip=no"]).learning_rate
    0.002
    """
    kinds = {field.name: field.type for field in fields(Recipe) if field.name not in ("name", "description")}
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"setting '{setting}' has no value", "write it as name=value: --set learning_rate=0.002")
        if name not in kinds:
            raise UnknownName.among("setting", name, kinds)
        changes[name] = _parsed(name, value, kinds[name])
    return replace(recipe, **changes)


_YES_AND_NO = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


def _parsed(name: str, value: str, kind: Any) -> Any:
    if kind is str:
        return value
    if kind is bool:
        if value.lower() not in _YES_AND_NO:
            raise UsageError(f"{name}={value} makes no sense", f"say {name}=yes or {name}=no")
        return _YES_AND_NO[value.lower()]
    if kind == int | None and value.lower() == "none":
        return None
    whole = kind is int or kind == int | None
    try:
        return int(value) if whole else float(value)
    except ValueError:
        raise UsageError(f"{name}={value} makes no sense", f"it is a {'whole ' if whole else ''}number") from None
