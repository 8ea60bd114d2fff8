"""mirroring.py: mirror images are used where they are images of the same class."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hangtag.data.labelled_images import LabelledImages
from hangtag.pictures import Images
from hangtag.training.engine.recipes import RECIPES, Recipe, find_recipe
from hangtag.training.mirroring import choose_flip

DIGITS = load_digits()
WRITTEN: Images = (DIGITS.images * 15.9375).astype(np.uint8)


def chosen(images: Images, labels: np.ndarray, names: list[str], recipe: Recipe | None = None) -> tuple[bool, str]:
    data = LabelledImages(images, labels.astype(np.int64), tuple(names))
    recipe, note = choose_flip(recipe or RECIPES["fast"], data, np.arange(len(labels)))
    return recipe.flip, note


@pytest.mark.parametrize(
    "names",
    [
        list("0123456789"), list("abcdefghij"), [f"digit {number}" for number in range(10)],
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
        [f"{number:05}" for number in range(10)], [f"letter_{each}" for each in "ABCDEFGHIJ"],
        ["turn left", *(f"sign {each}" for each in ("stop", "go", "a", "b", "c", "d", "e", "f", "g"))],
    ],
    ids=lambda names: names[0],
)  # fmt: skip
def test_digits_letters_and_sides_are_not_mirrored(names: list[str]) -> None:
    flip, note = chosen(WRITTEN, DIGITS.target, names)

    assert not flip
    assert "--set flip=yes" in note


@pytest.mark.parametrize(
    "names", [["shirt", "bag", "hat", "shoe", "coat", "dress", "boot", "sock", "belt", "scarf"], ["leftover", "bright"]]
)
def test_other_names_are_mirrored_without_a_word(names: list[str]) -> None:
    keep = DIGITS.target < len(names)

    assert chosen(WRITTEN[keep], DIGITS.target[keep], names) == (True, "")


def test_numbered_classes_that_look_alike_in_a_mirror_are_mirrored() -> None:
    turned = DIGITS.target.copy()
    images = WRITTEN.copy()
    images[::2] = images[::2, :, ::-1]  # as photos, of which half show things from the other side

    assert chosen(images, turned, list("0123456789")) == (True, "")


def test_too_few_images_show_nothing_so_they_are_not_mirrored() -> None:
    assert not chosen(WRITTEN[:12], DIGITS.target[:12] % 2, ["0", "1"])[0]


def test_what_the_user_gives_is_kept() -> None:
    flip, note = chosen(WRITTEN, DIGITS.target, list("0123456789"), find_recipe("fast", flip=True))

    assert flip
    assert "--set flip=no" in note
    assert chosen(WRITTEN, DIGITS.target, list("0123456789"), find_recipe("fast", flip=False)) == (False, "")
