"""Recipes: the settings of a training as data, each number with its reason.

Recipes are independent of machine and data.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from hangtag.errors import UnknownName, UsageError

__all__ = ["ADAM_BETA1", "BALANCE", "DEFAULT", "RECIPES", "Recipe", "adapt_to_size", "find_recipe", "with_settings"]

_MIN_BATCH, _STEPS_PER_EPOCH, _MAX_EPOCH_FACTOR = 16, 32, 10  # for small datasets
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
    ("min_steps patience", "from 0 to 1,000,000", lambda value: 0 <= value <= 10**6, "0 turns it off"),
    ("random_shift", "from 0 to 1,000", lambda value: 0 <= value <= 1000, "0 turns it off"),
    ("balance", f"one of {', '.join(BALANCE)}", lambda value: value in BALANCE, "auto weights imbalanced classes"),
    ("cores", "from 1 to 1,024", lambda value: value is None or 1 <= value <= 1024, "none uses all cores"),
)  # fmt: skip
"""Settings, the requirement in words and as a function, and a hint."""


@dataclass(frozen=True)
class Recipe:
    """Settings of one training.

    Attributes:
        network: a name in `networks.NETWORKS`, or "module:function".
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
        patience: stop after this many epochs without a smaller validation loss, and restore the best weights
            (Prechelt, 1998, "early stopping"). 0: never.
        balance: one of `BALANCE`; "auto" weights uneven classes.
        min_steps: on small datasets, smaller batches and more epochs are used until this many steps are taken.
        last_partial_batch: also take a step on the remainder if the batch size does not divide the number of images.
        last_epoch_fraction: fraction of the last epoch's steps that is taken, to end at a given time.
        cores: maximum number of CPU cores; None: all.
        adapt_cores: use fewer cores while other programs keep them busy and fewer are faster. The weights of
            convolutions then differ in their last digits, so turn it off for equal weights on a busy machine.
        bfloat16: multiply in bfloat16 if the hardware supports it.
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
    patience: int = 0
    balance: str = "auto"
    last_partial_batch: bool = False
    last_epoch_fraction: float = 1.0
    bfloat16: bool = True
    cores: int | None = None
    adapt_cores: bool = True

    def __post_init__(self) -> None:
        for names, requirement, valid, hint in _LIMITS:
            for name in names.split():
                if not valid(value := getattr(self, name)):
                    raise UsageError(f"{name} must be {requirement}, got {value}", hint)

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
        return asdict(self)


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
    """The named recipe, with the given settings replaced.

    >>> find_recipe("tutorial", epochs=3).epochs
    3
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise UnknownName.among("recipe", recipe, RECIPES)
        recipe = RECIPES[recipe]
    changes: dict[str, Any] = {"network": network, "epochs": epochs, "batch_size": batch_size}
    changes |= {"patience": patience, "balance": balance}
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})


def adapt_to_size(recipe: Recipe, images: int, defaults: Recipe | None = None) -> tuple[Recipe, str]:
    """Adapt a recipe to the number of training images; return it and a note, empty if nothing changed.

    Args:
        defaults: the recipe before the user's settings, which are never changed; None: our recipe of the same name.

    >>> adapt_to_size(find_recipe("fast"), 400)[1]
    'small dataset: 38 epochs with batch size 16 instead of 9 with 256, to take more steps'
    """
    defaults = defaults or RECIPES.get(recipe.name)
    per_epoch = int(recipe.mean_fraction_kept * images)
    if defaults is None or recipe.epochs * (per_epoch // recipe.batch_size) >= recipe.min_steps:
        return recipe, ""
    batch, epochs = recipe.batch_size, recipe.epochs
    if batch == defaults.batch_size:
        while batch > _MIN_BATCH and images < _STEPS_PER_EPOCH * batch:
            batch //= 2
    if epochs == defaults.epochs:
        epochs = max(epochs, -(-recipe.min_steps // max(1, per_epoch // batch)))
        epochs = min(epochs, _MAX_EPOCH_FACTOR * recipe.epochs)
    if (batch, epochs) == (recipe.batch_size, recipe.epochs):
        return recipe, ""
    return replace(recipe, batch_size=batch, epochs=epochs), (
        f"small dataset: {epochs} epochs with batch size {batch} instead of {recipe.epochs} with {recipe.batch_size}, "
        "to take more steps"
    )


def with_settings(recipe: Recipe, settings: Iterable[str]) -> Recipe:
    """A recipe changed by settings written as `name=value`.

    >>> with_settings(find_recipe("fast"), ["learning_rate=0.002", "flip=no"]).learning_rate
    0.002
    """
    kinds = {field.name: field.type for field in fields(Recipe) if field.name not in ("name", "description")}
    changes: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"setting '{setting}' has no value", "write name=value: --set learning_rate=0.002")
        if name not in kinds:
            raise UnknownName.among("setting", name, kinds)
        changes[name] = _parsed(name, value, kinds[name])
    return replace(recipe, **changes)


_BOOLEANS = {"yes": True, "true": True, "on": True, "1": True, "no": False, "false": False, "off": False, "0": False}


def _parsed(name: str, value: str, kind: Any) -> Any:
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
