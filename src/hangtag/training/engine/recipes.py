"""Recipes: the settings of a training as data, each number with its reason.

Recipes are independent of machine and data.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from hangtag.errors import UnknownName, UsageError
from hangtag.files import user_path

__all__ = [
    "ADAM_BETA1",
    "BALANCE",
    "DEFAULT",
    "FINE_TUNING",
    "KINDS",
    "OF_HEAD",
    "RECIPES",
    "Recipe",
    "adapt_to_pixels",
    "adapt_to_size",
    "changed",
    "check_not_two",
    "find_recipe",
    "is_given",
    "parsed",
    "typed",
    "with_settings",
]

OF_HEAD = ("backbone", "fine_tune", "flip", "validation", "folds", "balance", "cores")
"""The settings that apply to a recipe with a backbone."""

_MIN_BATCH, _STEPS_PER_EPOCH, _MAX_EPOCH_FACTOR = 16, 32, 10  # for small datasets
_TUNED_VALUES = 28 * 28  # numbers per image of the data that the recipes were tuned on
_MAX = 1e30  # of any setting; the largest float32 is 3.4e38

ADAM_BETA1 = 0.9
"""Decay of Adam's first moment, for every recipe."""

BALANCE = ("auto", "off", "weights", "sampling")
"""Ways to handle uneven classes; see sampling.py."""

_LIMITS: tuple[tuple[str, str, Callable[[Any], bool], str], ...] = (
    ("epochs", "from 1 to 1,000,000", lambda value: 1 <= value <= 10**6, "usual: 5 to 60"),
    ("batch_size", "from 1 to 1,000,000", lambda value: 1 <= value <= 10**6, "usual: 16 to 512"),
    ("learning_rate", "above 0", lambda value: 0 < value <= _MAX, "usual: below 0.1"),
    ("muon_learning_rate", "0 or more", lambda value: 0 <= value <= _MAX, "usual: below 0.1; 0 turns Muon off"),
    ("weight_decay", "0 or more", lambda value: 0 <= value <= _MAX, "usual: below 0.1"),
    ("adam_epsilon", "0 or more", lambda value: 0 <= value <= _MAX, "usual: below 1e-6"),
    ("start_factor end_factor", "0 or more", lambda value: 0 <= value <= _MAX, "it is a multiple of learning_rate"),
    ("muon_momentum adam_beta2", "at least 0 and below 1", lambda value: 0 <= value < 1, "usual: 0.6 to 0.999"),
    (
        "validation prune_fraction prune_rate label_smoothing", "at least 0 and below 1", lambda value: 0 <= value < 1,
        "0 turns it off",
    ),
    ("warmup prune_until random_erasing", "from 0 to 1", lambda value: 0 <= value <= 1, "it is a fraction"),
    ("last_epoch_fraction", "above 0 and at most 1", lambda value: 0 < value <= 1, "1 trains the whole epoch"),
    ("min_steps patience fine_tune", "from 0 to 1,000,000", lambda value: 0 <= value <= 10**6, "0 turns it off"),
    ("random_shift", "from 0 to 1,000", lambda value: 0 <= value <= 1000, "0 turns it off"),
    ("balance", f"one of {', '.join(BALANCE)}", lambda value: value in BALANCE, "auto weights imbalanced classes"),
    ("folds", "0, or from 2 to 100", lambda value: value in (None, 0) or 2 <= value <= 100, "0 holds images out"),
    ("cores", "from 1 to 1,024", lambda value: value is None or 1 <= value <= 1024, "none uses all cores"),
)  # fmt: skip
"""Settings, the requirement in words and as a function, and a hint."""


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        network: a name in `networks.NETWORKS`, or "module:function".
        backbone: the pretrained network to whose features a linear head is fitted, see `find_backbone`; of the other
            settings, only those in `OF_HEAD` then apply. Empty: the network is trained from nothing.
        fine_tune: epochs in which the last blocks of the backbone, on a GPU the whole of it, are trained together with
            the head; the result is kept if it is better on held-out images. 0: the backbone stays as it is.
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: the peak learning rate of AdamW (Kingma & Ba, 2015; Loshchilov & Hutter, 2019).
        warmup: fraction of all steps in which the rate rises linearly to its peak; it then falls linearly. 0: constant.
        start_factor, end_factor: the first and the last learning rate as a fraction of the peak.
        muon_learning_rate: the peak learning rate of Muon (Jordan, 2024), which replaces AdamW for convolutions that
            normalisation follows; 0: AdamW for all weights.
        muon_momentum: decay of Muon's sum of gradients.
        adam_beta2: decay of Adam's second moment.
        adam_epsilon: added to the denominator of Adam's step.
        weight_decay: for weight matrices, not for biases and normalisation; 0 makes AdamW plain Adam.
        label_smoothing: probability mass spread over all classes in training (Szegedy et al., 2016).
        flip: mirror each image left to right in every other epoch (Jordan, 2024, "alternating flip").
        random_shift: shift images by up to this many pixels in both directions.
        flip_tta: predict the mean of the logits of an image and its mirror image, which takes twice as long; only
            together with `flip`. The model file includes it.
        prune_fraction: fraction of the images, those with the smallest losses, that count as easy; 0: none.
        prune_rate: fraction of the easy images that each epoch after the first leaves out; the other easy images get a
            larger weight (Qin et al., 2024, "InfoBatch").
        prune_until: fraction of the epochs after which all images are used again; 0.875 in InfoBatch.
        random_erasing: fraction of the images in which a random rectangle becomes noise (Zhong et al., 2020).
        validation: fraction of each class held out for validation.
        folds: judge the training by this many folds, with the model trained on all images, instead of holding images
            out; 0: never. None: `hangtag train` uses 5 for few images without a test or validation part, where the time
            allows.
        patience: stop after this many epochs without a smaller validation loss, and restore the best weights
            (Prechelt, 1998, "early stopping"). 0: never.
        balance: one of `BALANCE`; "auto" weights uneven classes.
        min_steps: on small datasets, smaller batches and more epochs are used until this many steps are taken.
        last_partial_batch: also take a step on the remainder if the batch size does not divide the number of images.
        last_epoch_fraction: fraction of the last epoch's steps that is taken, to end at a given time.
        cores: maximum number of CPU cores; None: all.
        adapt_cores: use fewer cores while other programs keep them busy and fewer are faster. Sums are
            then rounded differently, so turn it off for equal weights on a busy machine.
        bfloat16: multiply in bfloat16 if the hardware supports it.
        given: names of the settings that the user chose (`changed` adds them), which are never adapted to the data.

    Raises:
        UsageError: a setting has the wrong type or is out of range.
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
    flip_tta: bool = False
    prune_fraction: float = 0.0
    prune_rate: float = 0.0
    prune_until: float = 1.0
    random_erasing: float = 0.0
    min_steps: int = 0
    validation: float = 0.1
    folds: int | None = None
    patience: int = 0
    balance: str = "auto"
    last_partial_batch: bool = False
    last_epoch_fraction: float = 1.0
    bfloat16: bool = True
    backbone: str = ""
    fine_tune: int = 0
    cores: int | None = None
    adapt_cores: bool = True
    given: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in KINDS:
            object.__setattr__(self, name, typed(name, getattr(self, name)))
        if ".onnx" in self.backbone.lower() and not self.backbone.startswith("timm:"):  # a run may go on elsewhere
            object.__setattr__(self, "backbone", os.path.abspath(user_path(self.backbone)))  # noqa: PTH100 - keeps links
        object.__setattr__(self, "given", tuple(self.given))
        for names, requirement, valid, hint in _LIMITS:
            for name in names.split():
                if not valid(value := getattr(self, name)):
                    raise UsageError(f"{name} must be {requirement}, got {value}", hint)

    def __repr__(self) -> str:
        trained = f"head on {self.backbone}" if self.backbone else f"network {self.network}, {self.epochs} epochs"
        own = [
            f"{name}={getattr(self, name)!r}" for name in self.given if name not in ("network", "epochs", "backbone")
        ]
        return f"<Recipe {self.name}: {trained}{', '.join(['', *own])}>"

    @property
    def uses_flip_tta(self) -> bool:
        """flip=no turns both off, for data such as letters, where mirror images change the meaning."""
        return self.flip and self.flip_tta

    @property
    def mean_fraction_kept(self) -> float:
        """Mean fraction of the images that an epoch after the first trains on."""
        return 1 - self.prune_fraction * self.prune_rate * self.prune_until

    def most_cores(self, available: int) -> int:
        return min(self.cores or available, available)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "given": list(self.given)}


_NOT_SETTINGS = ("name", "description", "given")
KINDS: dict[str, Any] = {each.name: each.type for each in fields(Recipe) if each.name not in _NOT_SETTINGS}
"""The settings and their types."""


def typed(name: str, value: Any) -> Any:
    """A setting's value as Python's own type; numbers of numpy, as a search may draw them, are accepted.

    Raises:
        UnknownName: there is no such setting.
        UsageError: the value has the wrong type.
    """
    kind = _kind(name)
    is_bool = type(value).__name__ in ("bool", "bool_")
    if kind is str and isinstance(value, str):
        return str(value)
    if kind is bool and is_bool:
        return bool(value)
    if kind == int | None and value is None:
        return None
    if kind in (int, int | None) and isinstance(value, Integral) and not is_bool:
        return int(value)
    if kind is float and isinstance(value, Real) and not is_bool:
        return float(value)
    raise UsageError(f"{name} must be {_EXPECTED[kind][0]}, got {value!r}", f"for example {name}={_EXPECTED[kind][1]}")


def _kind(name: str) -> Any:
    if name not in KINDS:
        raise UnknownName.among("setting", str(name), KINDS)
    return KINDS[name]


_EXPECTED: dict[Any, tuple[str, str]] = {
    str: ("a word", "'auto'"),
    bool: ("True or False", "False"),
    int: ("a whole number", "2"),
    int | None: ("a whole number or None", "2"),
    float: ("a number", "0.1"),
}


# Exactly the lesson's training, not tuned.
TUTORIAL = Recipe(
    name="tutorial",
    description="the lesson: Flatten > Dense 128 > Dense 10, Adam, 10 epochs, all training images",
    network="mlp",
    epochs=10,
    batch_size=32,  # the lesson's framework's default
    learning_rate=1e-3,  # also its default
    adam_epsilon=1e-7,  # also its default; PyTorch's is 1e-8
    validation=0.0,  # the lesson trains on all 60,000
    balance="off",  # with equal weights
    last_partial_batch=True,
    bfloat16=False,
    cores=2,  # a step of 32 images is too little work for more
)

# Tuned on a validation split of the training images; docs/log.md documents the search.
FAST = Recipe(
    name="fast",
    description="a small convolutional network (default)",
    network="cnn",
    epochs=9,  # less than two and a half minutes on two cores
    batch_size=256,  # 128 was no faster per epoch and 0.1 points worse
    learning_rate=0.005,
    warmup=0.2,
    start_factor=0.2,
    end_factor=0.02,
    muon_learning_rate=0.08,  # half of it lost 0.3 points, twice 0.4
    adam_beta2=0.98,
    weight_decay=0.02,
    label_smoothing=0.1,
    min_steps=600,  # small datasets need as many steps; docs/log.md
    flip=True,  # gains 0.5 points at 9 epochs, loses 0.3 at 4
    flip_tta=True,  # gains 0.2 to 0.3 points; prediction takes twice as long
    prune_fraction=0.6,  # 0.7, with a prune_rate of 0.8, lost half of the gain
    prune_rate=0.6,  # 14 pruned epochs take as long as 9 full ones and gain 0.5 points
    random_shift=0,  # one pixel lost 0.5 points at 4 epochs and 0.7 at 9, because the clothes are centred
)

# The lesson's network, for a few seconds of training. Tuned in the same way.
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
    bfloat16=False,  # required by the steps in dense.c
    cores=2,
    min_steps=600,  # 24 steps on 200 images left one seed in three at chance; docs/log.md
)

# Like `fast`, but larger and longer. Tuned in the same way.
ACCURATE = replace(
    FAST,
    name="accurate",
    description="a larger convolutional network; takes ten times as long as fast",
    network="cnn-large",
    epochs=28,  # less than 25 minutes on two cores
    muon_learning_rate=0.03,  # with momentum 0.9, 0.1 points better than 0.08 with 0.6; two seeds, half the channels
    muon_momentum=0.9,
    prune_until=0.88,  # the last three epochs use all images: perhaps 0.1 points, for 5 % more time
    random_erasing=0.5,  # 0.25 was not compared at equal length; docs/log.md
)

# For a GPU; on a CPU it takes hours. Not measured yet.
BEST = replace(
    ACCURATE,
    name="best",
    description="the largest network and the longest training; for a GPU; not measured yet",
    network="cnn-wide",
    epochs=60,
)

# No network is trained: a linear head on the features of a pretrained network; see `transfer.py`.
TRANSFER = Recipe(
    name="transfer",
    description="a linear head on the features of a pretrained network; for photos, and for few images",
    network="linear",
    backbone="efficientnet-lite0",
    epochs=1,  # an epoch is one look at each image
    batch_size=1,
    learning_rate=1.0,  # not used
    flip=False,  # mirrored copies changed accuracy by 0.2 points on six small sets, for twice the time; docs/log.md
    bfloat16=False,
)

# How a pretrained network is trained on; epochs, mirroring and balance are those of the recipe that asks for it.
FINE_TUNING = Recipe(
    name="fine-tuning",
    description="the last blocks of a pretrained network, from its own weights",
    network="efficientnet-lite",
    epochs=10,
    batch_size=16,
    learning_rate=1e-4,  # 5e-4 lost a quarter of the accuracy at first; docs/log.md
    warmup=0.1,
    start_factor=0.1,
    end_factor=0.02,
    weight_decay=0.02,
    label_smoothing=0.1,
    flip=True,
    adapt_cores=False,
)

RECIPES = {recipe.name: recipe for recipe in (FAST, ACCURATE, BEST, QUICK, TUTORIAL, TRANSFER)}
DEFAULT = FAST.name


def find_recipe(recipe: str | Recipe, **settings: Any) -> Recipe:
    """The named recipe, with the given settings replaced; None leaves a setting as it is.

    >>> find_recipe("tutorial", epochs=3).epochs
    3
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise UnknownName.among("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe]
    if not isinstance(recipe, Recipe):
        raise UsageError(f"recipe must be a name or a Recipe, got {recipe!r}", f"known: {', '.join(sorted(RECIPES))}")
    return changed(recipe, {name: value for name, value in settings.items() if value is not None})


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """A recipe with the settings that a user gives; they are never adapted to the data.

    Raises:
        UnknownName: there is no such setting.
        UsageError: a setting has the wrong type or is out of range, or two contradict each other.
    """
    for name in settings:
        _kind(name)
    result = replace(recipe, **settings, given=tuple(sorted({*recipe.given, *settings})))
    if bool(result.backbone) != bool(recipe.backbone):
        raise UsageError(
            f"recipe '{recipe.name}' trains a network from nothing, so it takes no backbone"
            if result.backbone
            else f"recipe '{recipe.name}' needs a backbone",
            "use recipe 'transfer' for a pretrained backbone, or 'fast' without one",
        )
    if result.fine_tune and not result.backbone:
        raise UsageError(
            f"recipe '{recipe.name}' trains a network from nothing, so there is nothing to fine-tune",
            "use recipe 'transfer' to fine-tune a pretrained network",
        )
    if result.backbone and (unused := [name for name in settings if name not in OF_HEAD]):
        raise UsageError(
            f"recipe '{recipe.name}' does not use {', '.join(unused)}: it fits a linear head to the features of a "
            "pretrained network",
            "leave it out, or train a network from nothing with recipe 'fast'",
        )
    for name in ("validation", "patience", "fine_tune") if result.folds else ():
        if name in result.given and (value := getattr(result, name)):
            raise UsageError(
                f"folds={result.folds} and {name}={value:g} contradict each other: with folds, no images are held out "
                "of the training",
                "give only one of them",
            )
    return result


def is_given(recipe: Recipe, name: str, defaults: Recipe | None = None) -> bool:
    """Whether the user chose a setting: by name, by another value than the default, or by a recipe of their own.

    Args:
        defaults: the recipe before the user's settings; None: our recipe of the same name.
    """
    defaults = defaults or RECIPES.get(recipe.name)
    return defaults is None or name in recipe.given or getattr(recipe, name) != getattr(defaults, name)


def adapt_to_size(recipe: Recipe, images: int, defaults: Recipe | None = None) -> tuple[Recipe, str]:
    """Adapt a recipe to the number of training images; return it and a note, empty if nothing changed.

    Settings that the user chose are kept; `defaults` is as for `is_given`.

    >>> adapt_to_size(find_recipe("fast"), 400)[1]
    'small dataset: 38 epochs with batch size 16 instead of 9 with 256, to take more steps'
    >>> adapt_to_size(find_recipe("fast", epochs=9, batch_size=256), 400)[1]
    ''
    """
    per_epoch = int(recipe.mean_fraction_kept * images)
    if recipe.epochs * (per_epoch // recipe.batch_size) >= recipe.min_steps:
        return recipe, ""
    batch, epochs = recipe.batch_size, recipe.epochs
    if not is_given(recipe, "batch_size", defaults):
        while batch > _MIN_BATCH and images < _STEPS_PER_EPOCH * batch:
            batch //= 2
    if not is_given(recipe, "epochs", defaults):
        epochs = max(epochs, -(-recipe.min_steps // max(1, per_epoch // batch)))
        epochs = min(epochs, _MAX_EPOCH_FACTOR * recipe.epochs)
    if (batch, epochs) == (recipe.batch_size, recipe.epochs):
        return recipe, ""
    now = f"{epochs} epochs with batch size {batch} instead of {recipe.epochs} with {recipe.batch_size}"
    if epochs == recipe.epochs:
        now = f"batch size {batch} instead of {recipe.batch_size}"
    return replace(recipe, batch_size=batch, epochs=epochs), f"small dataset: {now}, to take more steps"


def adapt_to_pixels(recipe: Recipe, values: int) -> tuple[Recipe, str]:
    """Adapt a recipe with the network "mlp" to larger images; return it and a note, empty if nothing changed.

    A step of Adam moves each weight by about the learning rate, so the sum over more inputs moves further, and units of
    a network without normalisation die. A rate that the user chose is kept, and so is that of a recipe without
    `min_steps`, such as the lesson's.

    Args:
        values: numbers per image: height x width x channels.

    >>> adapt_to_pixels(find_recipe("quick"), 64 * 64 * 3)[1]
    'images of 12,288 values: learning rate 0.00076 instead of 0.003'
    """
    factor = math.sqrt(_TUNED_VALUES / max(values, _TUNED_VALUES))
    if recipe.network != "mlp" or not recipe.min_steps or factor == 1 or is_given(recipe, "learning_rate"):
        return recipe, ""
    rate = float(f"{factor * recipe.learning_rate:.2g}")
    note = f"images of {values:,} values: learning rate {rate:g} instead of {recipe.learning_rate:g}"
    return replace(recipe, learning_rate=rate), note


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """`changed` with settings written as `name=value`.

    >>> with_settings(find_recipe("fast"), ["learning_rate=0.002", "flip=no"]).learning_rate
    0.002
    """
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"setting '{setting}' has no value", "write name=value: --set learning_rate=0.002")
        given = parsed(name, value)
        check_not_two(name, changes.setdefault(name, given), given)
    return changed(recipe, changes)


def check_not_two(name: str, one: Any, other: Any) -> None:
    """Raise UsageError if a setting was given twice with different values."""
    if one is not None and other is not None and one is not other and one != other:
        raise UsageError(f"{name} was given twice: {one} and {other}", "give it once")


_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


def parsed(name: str, value: str) -> Any:
    """A setting's value from text. Errors as for `typed`."""
    kind = _kind(name)
    if kind is str:
        return value
    if kind is bool:
        if value.lower() not in _BOOLEANS:
            raise UsageError(f"{name} must be yes or no, got {value}", f"for example: --set {name}=no")
        return _BOOLEANS[value.lower()]
    if kind == int | None and value.lower() == "none":
        return None
    try:
        return float(value) if kind is float else int(value)
    except ValueError:
        number, example = ("number", "0.1") if kind is float else ("whole number", "2")
        raise UsageError(f"{name} must be a {number}, got {value}", f"for example: --set {name}={example}") from None
