"""Size, proportions, colours and the scale of pixels are chosen from the pictures, and what is said is true."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hangtag.data.labelled_images import LabelledImages, from_arrays
from hangtag.data.read import read
from hangtag.errors import DataError, HangtagError
from hangtag.levels import Levels
from hangtag.pictures import ImageSpec, decode
from hangtag.resize import Sizer
from pictures import photo, textured

GREY = textured(40, 16)  # (40, 16, 16) uint8
GREY[:, 0, 0], GREY[:, 0, 1] = 0, 255
LABELS = ["a", "b"] * 20


def save(pixels: NDArray[Any], path: Path, **how: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path, **how)


def folder(root: Path, images: Any, ending: str = "png", **how: Any) -> Path:
    """A folder of two classes, half the pictures each."""
    for number, pixels in enumerate(images):
        save(pixels, root / "ab"[number % 2] / f"{number:03d}.{ending}", **how)
    return root


def refused(*what: Any, **options: Any) -> str:
    with pytest.raises(HangtagError) as caught:
        read(*what, **options)
    assert isinstance(caught.value, DataError) and caught.value.hint
    return caught.value.message


def notes(data: LabelledImages) -> str:
    return "\n".join(data.source.notes)


def in_order(data: LabelledImages) -> NDArray[np.uint8]:
    return data.images[data.order]


# --- the scale of pixels ---------------------------------------------------------------------------------------

SCALES: dict[str, tuple[Callable[[NDArray[np.uint8]], NDArray[Any]], str, str]] = {
    # name: 8-bit pixels as others, the kind of file, the note
    "16 bits": (lambda grey: grey.astype(np.uint16) * 257, "png",
                "pixel values range from 0 to 65,535 of 16 bits; 0 to 65,535 became 0 to 255"),
    "12 bits": (lambda grey: (grey.astype(np.uint16) << 4) + (grey >> 4), "png",
                "pixel values range from 0 to 4,095 of 16 bits; 0 to 4,095 became 0 to 255"),
    "8 bits in 16": (lambda grey: grey.astype(np.uint16), "png", ""),
    "X-rays": (lambda grey: 1800 + grey.astype(np.uint16), "png",
               "pixel values range from 1,800 to 2,055 of 16 bits; 1,800 to 2,055 became 0 to 255"),
    "signed": (lambda grey: grey.astype(np.int16) * 16 - 1024, "tif",
               "pixel values range from -1,024 to 3,056; -1,024 to 3,056 became 0 to 255"),
    "0 to 1": (lambda grey: grey.astype(np.float32) / np.float32(255), "tif",
               "floating-point pixel values range from 0 to 1; 0 to 1 became 0 to 255"),
    "-1 to 1": (lambda grey: grey.astype(np.float32) / np.float32(127.5) - 1, "tif",
                "floating-point pixel values range from -1 to 1; -1 to 1 became 0 to 255"),
    "0.0 to 255.0": (lambda grey: grey.astype(np.float32), "tif",
                     "floating-point pixel values range from 0 to 255; 0 to 255 became 0 to 255"),
    "standardised": (lambda grey: (grey.astype(np.float32) - 127.5) / 64, "tif",
                     "floating-point pixel values range from -1.992 to 1.992; -1.992 to 1.992 became 0 to 255"),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALES)
def test_a_set_on_another_scale_is_the_same_data_as_in_8_bits(name: str, tmp_path: Path) -> None:
    change, kind, said = SCALES[name]
    images = change(GREY)
    files = folder(tmp_path / "set", images, kind)
    np.savez(tmp_path / "a.npz", x=images, y=LABELS)
    ways = [files, tmp_path / "a.npz", (images, LABELS), list(zip(images, LABELS, strict=True))]

    data = [read(way) for way in ways]

    eight = read((GREY, LABELS))
    assert {each.fingerprint for each in data} == {eight.fingerprint}
    assert {(each.spec.integers, each.spec.floats) for each in data} == {(data[0].spec.integers, data[0].spec.floats)}
    assert all(("became" in notes(each)) == bool(said) for each in data)
    assert not said or notes(data[0]) == f"40 images: {said}, for all images alike"
    assert from_arrays(images, LABELS).fingerprint == eight.fingerprint


@pytest.mark.parametrize("name", SCALES)
def test_a_single_picture_is_read_as_in_its_set(name: str, tmp_path: Path) -> None:
    change, kind, _ = SCALES[name]
    images = change(GREY)
    data = read(folder(tmp_path / "set", images, kind))

    for path, row in zip(data.names, data.images, strict=True):
        np.testing.assert_array_equal(decode(tmp_path / "set" / path, data.spec)[0], row)
    for pixels, grey in zip(images, GREY, strict=True):
        np.testing.assert_array_equal(decode(pixels, data.spec)[0], grey)


def test_the_order_of_pictures_and_the_number_of_them_that_are_sampled_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = GREY.astype(np.uint16) // np.arange(1, 41, dtype=np.uint16)[:, None, None] * 9 + 700
    first = read(folder(tmp_path / "first", images))
    monkeypatch.setattr("hangtag.data.store.materialize._SAMPLED", 3)
    order = np.concatenate([np.arange(40)[::2][::-1], np.arange(40)[1::2]]).reshape(2, 20).T.ravel()

    again = read(folder(tmp_path / "again", images[order]))

    assert (again.fingerprint, again.spec) == (first.fingerprint, first.spec)


def test_deep_pictures_that_the_sample_missed_are_on_the_scale_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hangtag.data.store.materialize._SAMPLED", 2)
    images = [grey if number < 30 else grey.astype(np.uint16) * 257 for number, grey in enumerate(GREY)]

    data = read(folder(tmp_path / "set", images))

    assert data.fingerprint == read(folder(tmp_path / "eight", GREY)).fingerprint
    assert "10 images: pixel values range from 0 to 65,535 of 16 bits" in notes(data)


def test_a_float_a_little_above_1_is_white(tmp_path: Path) -> None:
    images = GREY.astype(np.float32) / 255
    images[::2] *= 1.004

    data = read(folder(tmp_path / "set", images, "tif"))

    assert data.spec.floats == Levels(0, 1, 0, 1)
    assert all(image.max() == 255 and image.std() > 20 for image in data.images)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (lambda grey: 1800 + grey.astype(np.uint16), "png"),
        (lambda grey: (grey.astype(np.float32) - 127.5) / 64, "tif"),
    ],
)
def test_a_set_with_8_bits_and_another_scale_is_refused(other: Any, kind: str, tmp_path: Path) -> None:
    folder(tmp_path / "set", GREY[:20])
    for number, grey in enumerate(GREY[20:]):
        save(other(grey), tmp_path / "set" / "ab"[number % 2] / f"deep-{number}.{kind}")

    message = refused(tmp_path / "set")

    assert "images have different scales of pixel values: 20 images with " in message
    assert message.endswith("and 20 images with 8 bits")


def test_a_set_with_8_bits_16_bits_and_floats_on_their_full_scales_is_one_set(tmp_path: Path) -> None:
    images = [[grey, grey.astype(np.uint16) * 257, grey.astype(np.float32) / np.float32(255)][number // 2 % 3]
              for number, grey in enumerate(GREY)]  # fmt: skip
    for number, pixels in enumerate(images):
        save(pixels, tmp_path / "set" / "ab"[number % 2] / f"{number}.{'tif' if pixels.dtype == 'f4' else 'png'}")

    data = read(tmp_path / "set")

    assert data.fingerprint == read((GREY, LABELS)).fingerprint


def test_floats_on_two_scales_are_refused() -> None:
    images = GREY.astype(np.float32)
    images[::2] /= 255

    assert "20 of 40 images have values on a much smaller scale than the others" in refused((images, LABELS))
    assert read((np.where(GREY > 9, GREY, 0).astype(np.float32), LABELS)).spec.floats == Levels(0, 255, 0, 255)


def test_parts_of_different_types_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=GREY, y_train=LABELS, x_test=GREY / 255, y_test=LABELS)

    assert "the parts have pixels of different types: uint8, float64" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_pictures_with_values_that_are_not_finite_are_set_aside(wrong: float, tmp_path: Path) -> None:
    images = GREY.astype(np.float32) / 255
    images[7, 3, 3] = wrong

    data = read(folder(tmp_path / "set", images, "tif"))

    assert [(each.name, each.kind) for each in data.source.skipped] == [("b/007.tif", "NaN pixels")]
    assert len(data) == 39 and data.spec.floats == Levels(0, 1, 0, 1)
    assert "1 of 40 images contain NaN or infinite pixels" in _error(images)


def _error(images: NDArray[Any]) -> str:
    with pytest.raises(HangtagError) as caught:
        read((images, LABELS))
    return caught.value.message


MODELS = {
    "8 bits": ImageSpec(16, 16),
    "X-rays": ImageSpec(16, 16, integers=Levels(1800, 2055, 1800, 2055)),
    "0 to 1": ImageSpec(16, 16, floats=Levels(0, 1, 0, 1)),
    "0.0 to 255.0": ImageSpec(16, 16, floats=Levels(0, 255, 0, 255)),
}


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("8 bits", "8 bits in 16"), ("8 bits", "12 bits"), ("8 bits", "16 bits"), ("8 bits", "0 to 1"),
        ("X-rays", "X-rays"), ("0 to 1", "0 to 1"), ("0.0 to 255.0", "0.0 to 255.0"), ("0 to 1", "16 bits"),
    ],
)  # fmt: skip
def test_other_data_are_read_on_the_scale_of_the_model(model: str, data: str, tmp_path: Path) -> None:
    change, kind, _ = SCALES[data]
    ways: list[Any] = [(change(GREY), LABELS)]
    if model == "8 bits":
        ways.append(folder(tmp_path / "set", change(GREY), kind))

    for way in ways:
        np.testing.assert_array_equal(in_order(read(way, spec=MODELS[model])), in_order(read((GREY, LABELS))))


@pytest.mark.parametrize(
    ("model", "data"),
    [
        ("8 bits", "X-rays"), ("8 bits", "standardised"), ("8 bits", "signed"), ("X-rays", "16 bits"),
        ("X-rays", "0 to 1"), ("0 to 1", "0.0 to 255.0"), ("0 to 1", "-1 to 1"), ("0.0 to 255.0", "0 to 1"),
        ("0.0 to 255.0", "standardised"),
    ],
)  # fmt: skip
def test_data_on_another_scale_than_the_model_are_refused(model: str, data: str, tmp_path: Path) -> None:
    change, kind, _ = SCALES[data]
    ways: list[Any] = [(change(GREY), LABELS)]
    if data in ("X-rays", "0 to 1"):
        ways.append(folder(tmp_path / "set", change(GREY), kind))

    for way in ways:
        assert "those of the model's training images range from" in refused(way, spec=MODELS[model])


def test_8_bit_pictures_for_a_model_of_another_scale_are_read_and_said(tmp_path: Path) -> None:
    data = read(folder(tmp_path / "set", GREY), spec=MODELS["X-rays"])

    assert data.fingerprint == read((GREY, LABELS)).fingerprint
    assert notes(data) == "40 images with 8 bits; the model's training images had values from 1,800 to 2,055"
    assert decode(GREY[0], MODELS["X-rays"])[1] == (
        "this image has 8 bits; the training images had values from 1,800 to 2,055",
    )


def test_ordinary_pictures_have_no_scale_and_no_note(tmp_path: Path) -> None:
    for way in (folder(tmp_path / "set", GREY), (GREY, LABELS)):
        data = read(way)

        assert (data.spec.integers, data.spec.floats, data.source.notes) == (None, None, ())


def test_almost_black_pictures_of_16_bits_are_said(tmp_path: Path) -> None:
    images = GREY.astype(np.uint16) * 257
    images[3] = GREY[3]

    assert "1 image: values span less than one grey level of this scale" in notes(
        read(folder(tmp_path / "set", images))
    )


# --- colour ----------------------------------------------------------------------------------------------------


def coloured(grey: NDArray[np.uint8], colour: tuple[int, int, int], side: int = 2) -> NDArray[np.uint8]:
    pixels = np.repeat(grey[..., np.newaxis], 3, axis=2)
    pixels[5 : 5 + side, 9 : 9 + side] = colour
    return pixels


@pytest.mark.parametrize("colour", [(200, 0, 0), (130, 120, 120), (120, 128, 120)])
@pytest.mark.parametrize("count", [1, 40])
def test_colour_is_kept_if_a_single_pixel_shows_it(colour: tuple[int, int, int], count: int, tmp_path: Path) -> None:
    big = textured(40, 150)
    images = [coloured(grey, colour, 1 if number < count else 0) for number, grey in enumerate(big)]

    data = read(folder(tmp_path / "set", images))

    assert data.spec.channels == 3 and data.source.description.endswith(", colour")
    assert "colour" not in notes(data).replace("96x96 colour", "")


@pytest.mark.parametrize(
    ("ending", "how"), [("png", {}), ("jpg", {"quality": 30}), ("jpg", {"quality": 95}), ("webp", {})]
)
def test_grey_pictures_in_colour_files_are_grey_and_the_note_says_how_to_keep_the_channels(
    ending: str, how: dict[str, Any], tmp_path: Path
) -> None:
    root = folder(tmp_path / "set", [np.repeat(grey[..., np.newaxis], 3, axis=2) for grey in GREY], ending, **how)

    data, kept, grey = read(root), read(root, colour=True), read(root, colour=False)

    assert (data.spec.channels, kept.spec.channels) == (1, 3)
    assert data.source.description.endswith("grey images in colour files")
    assert kept.source.description.endswith("grey images in three channels")
    assert notes(data) == "colour files show only grey, so images are read as grey (--colour keeps three channels)"
    assert notes(kept) == notes(grey) == ""


def test_colours_that_are_dropped_are_said_to_be_dropped(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", [coloured(grey, (200, 0, 0)) for grey in GREY])

    data, for_model = read(root, colour=False), read(root, spec=ImageSpec(16, 16))

    assert data.source.description.endswith("colours converted to grey")
    assert notes(data) == "40 images: colours were converted to grey (--colour keeps them)"
    assert notes(for_model) == "40 images: colours were converted to grey"


def test_a_few_coloured_pictures_among_many_keep_colour_and_are_counted() -> None:
    images = np.stack([coloured(GREY[number % 40], (9, 90, 90), int(number == 3)) for number in range(400)])

    data = read((images, LABELS * 10))

    assert data.spec.channels == 3
    assert notes(data) == "only 1 of 400 images show colours (--grey reads all as grey, which is faster)"


# --- proportions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "options", "spec", "said"),
    [
        ([(24, 480)], {}, "429x21 grey", "proportions change by up to 2%"),
        ([(480, 24)], {}, "21x429 grey", "proportions change by up to 2%"),
        ([(30, 1200)], {}, "607x15 grey", "proportions are kept"),
        ([(10, 4000)], {}, "1024x8 grey", "proportions are kept and margins are filled with grey level 255"),
        ([(300, 400)], {}, "111x83 grey", "proportions are kept"),
        ([(300, 400)], {"size": 64}, "64x64 grey", "proportions change by up to 33%; --fit pad keeps them"),
        ([(24, 480)], {"size": 24}, "24x24 grey", "proportions change by up to a factor of 20.0; --fit pad keeps them"),
        ([(300, 300)] * 19 + [(30, 300)], {}, "96x96 grey",
         "the proportions of 2 of 40 images change by up to a factor of 10.0; --fit pad keeps them"),
        ([(300, 400), (400, 300)], {}, "96x96 grey", "proportions are kept and margins are filled with grey level 255"),
        ([(300, 300)], {"fit": "pad"}, "96x96 grey", "proportions are kept"),
        ([(300, 400)], {"fit": "crop", "size": 64}, "64x64 grey", "proportions are kept and edges are cut off"),
        ([(300, 300)], {"fit": "crop"}, "96x96 grey", "proportions are kept"),
    ],
)  # fmt: skip
def test_proportions_are_kept_or_what_happens_to_them_is_said(
    sizes: list[tuple[int, int]], options: dict[str, Any], spec: str, said: str, tmp_path: Path
) -> None:
    images = [photo(number, *sizes[number % len(sizes)])[..., 0] for number in range(40)]

    data = read(folder(tmp_path / "set", images), **options)

    assert str(data.spec) == spec
    assert notes(data) == f"images are resized to {spec}: {said}"


def test_what_differs_along_a_strip_can_still_be_seen(tmp_path: Path) -> None:
    strip = np.zeros((24, 480), np.uint8)
    strip[:, ::20] = 255

    data = read(folder(tmp_path / "set", [strip, strip[:, ::-1]] * 2))

    assert np.ptp(data.images[0][10].astype(int)) > 50


def test_pictures_of_one_small_size_are_not_said_to_change(tmp_path: Path) -> None:
    assert "resized" not in notes(read(folder(tmp_path / "set", GREY)))


def test_a_row_is_what_the_model_file_makes_of_a_deep_picture(tmp_path: Path) -> None:
    images = [1800 + photo(number, 40 + number, 50)[..., 0].astype(np.uint16) for number in range(6)]
    data = read(folder(tmp_path / "set", images), size=24)
    sizer = Sizer(data.spec)

    for name, row in zip(data.names, data.images, strict=True):
        content = (tmp_path / "set" / name).read_bytes()
        for way in (content, io.BytesIO(content), Image.open(io.BytesIO(content))):
            np.testing.assert_array_equal(sizer(decode(way, data.spec)[0]), row)


@pytest.mark.parametrize("factor", [16, 257])
def test_parts_on_different_scales_are_refused(factor: int, tmp_path: Path) -> None:
    deep = GREY.astype(np.uint16)
    np.savez(tmp_path / "a.npz", x_train=deep, y_train=LABELS, x_test=deep * factor, y_test=LABELS)
    np.savez(tmp_path / "b.npz", x_train=deep * 5, y_train=LABELS, x_test=deep * 15, y_test=LABELS)
    for part, images in (("train", deep[:8]), ("test", deep[8:16] * factor)):
        folder(tmp_path / "set" / part, images)

    for way in (tmp_path / "a.npz", tmp_path / "set"):
        assert re.search(r"in test and 2\d\d in train, so these parts have different scales$", refused(way))
    assert read(tmp_path / "b.npz").spec.integers == Levels(0, 4095, 0, 4095)


def test_dark_16_bit_pictures_beside_pictures_of_8_bits_keep_their_scale(tmp_path: Path) -> None:
    images = [grey if number < 20 else grey.astype(np.uint16) * 100 for number, grey in enumerate(GREY)]

    data = read(folder(tmp_path / "set", images))

    assert data.spec.integers == Levels(0, 65_535, 0, 65_535)


def test_one_outlier_among_other_data_does_not_make_them_unreadable_for_the_model() -> None:
    images = GREY.astype(np.uint16) * 16
    images[3, 4, 4] = 65_535
    model = ImageSpec(16, 16, integers=Levels(0, 4095, 0, 4095))

    assert read((images, LABELS), spec=model).spec.integers == model.integers
