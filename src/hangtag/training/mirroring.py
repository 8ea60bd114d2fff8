"""Whether a recipe's mirror images suit the data: the mirror image of a "b" or of a left glove is another class."""

import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.training.engine.recipes import Recipe, is_given

__all__ = ["choose_flip"]

_MOST_COMPARED = 2000  # images
_SIDE = 16  # pixels at most, to which images are thinned out before they are compared
_LEAST_KEPT = 0.8  # of the advantage over chance, for mirror images; see docs/log.md
_SIDES = {"left", "right", "clockwise", "counterclockwise", "anticlockwise", "east", "west"}
_NUMBERS = {"zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"}


def choose_flip(recipe: Recipe, data: LabelledImages, train: NDArray[np.int64]) -> tuple[Recipe, str]:
    """The recipe, without mirror images if they may belong to another class, and a note on it, or "".

    A recipe mirrors images unless the class names are numbers, single characters or contain sides. Even then it does if
    the data supports it: if the nearest neighbours of mirrored images have the right class about as often as those of
    the images themselves. A user's own `flip` is kept.

    Args:
        train: (M,) positions of the training images in `data`.
    """
    reason = _suspicion(data.class_names)
    if not recipe.flip or not reason:
        return recipe, ""
    doubt = f"class names {reason}, and the mirror image of a digit, a letter or a side is another class"
    if is_given(recipe, "flip"):
        return recipe, f"{doubt}: to turn mirror images off, --set flip=no (in Python settings={{'flip': False}})"
    if _looks_symmetric(data, train):
        return recipe, ""
    note = f"{doubt}: mirror images are not used. To use them: --set flip=yes (in Python settings={{'flip': True}})"
    return replace(recipe, flip=False), note


def _suspicion(class_names: tuple[str, ...]) -> str:
    """What the class names have in common that mirroring may change; or ""."""
    words = [re.findall(r"[^\W\d_]+|\d+", name.lower()) for name in class_names]
    if any(_SIDES & set(each) for each in words):
        return "contain left or right"
    common = set.intersection(*map(set, words))  # as in "digit 3" and "digit 5"
    own = [[word for word in each if word not in common] or each for each in words]
    if all(len(name) == 1 for name in class_names) or (
        all(own) and all(len(word) == 1 or word.isdecimal() or word in _NUMBERS for each in own for word in each)
    ):
        return "are single characters or numbers"
    return ""


def _looks_symmetric(data: LabelledImages, train: NDArray[np.int64]) -> bool:
    """Whether mirrored images are nearest to images of their own class about as often as the images themselves."""
    chosen = np.sort(np.random.default_rng(0).permutation(train)[:_MOST_COMPARED])
    labels, images = data.labels[chosen], np.asarray(data.images[chosen])
    step = max(1, -(-max(images.shape[1:3]) // _SIDE))
    trimmed = images[:, : images.shape[1] // step * step, : images.shape[2] // step * step]
    count, height, width = trimmed.shape[:3]
    blocks = trimmed.reshape(count, height // step, step, width // step, step, -1).mean(axis=(2, 4), dtype=np.float32)
    blocks -= blocks.mean(axis=(1, 2, 3), keepdims=True)
    rows, mirrored = blocks.reshape(count, -1), blocks[:, :, ::-1].reshape(count, -1)
    squares = (rows**2).sum(axis=1)

    def accuracy(queries: NDArray[np.float32]) -> float:
        distances = squares - 2 * queries @ rows.T
        np.fill_diagonal(distances, np.inf)  # an image is not its own neighbour, nor that of its mirror image
        return float((labels[distances.argmin(axis=1)] == labels).mean())

    chance = float((np.bincount(labels) / count).max())
    own = accuracy(rows) - chance
    enough = own * count > 3 * np.sqrt(count)  # well above chance; few images show nothing
    return bool(enough and accuracy(mirrored) - chance >= _LEAST_KEPT * own)
