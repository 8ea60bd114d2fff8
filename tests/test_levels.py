"""Pixels of more than 8 bits get one scale, from all pictures of a dataset, whatever their order."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hangtag.levels import Levels, agreed, alone, levels_of, measure, to_8_bits

RANDOM = np.random.default_rng(0)


def dataset(low: float, high: float, kind: Any = np.float64, count: int = 40) -> NDArray[Any]:
    """(N, 16, 16) random pixels that use the whole range."""
    images = RANDOM.uniform(low, high, (count, 16, 16))
    images[0, 0, :2] = low, high
    return images.astype(kind)


def scale_of(images: NDArray[Any]) -> tuple[float, float]:
    levels = levels_of(measure(images), images.dtype.kind == "f")
    return round(levels.black, 5), round(levels.white, 5)


@pytest.mark.parametrize(
    ("low", "high", "kind", "scale"),
    [
        (0, 255, np.uint16, (0, 255)), (3, 250, np.int64, (0, 255)), (0, 90, np.uint16, (0, 255)),
        (0, 1000, np.uint16, (0, 1023)), (12, 4000, np.uint16, (0, 4095)), (0, 4095, np.int32, (0, 4095)),
        (100, 16_000, np.uint16, (0, 16_383)), (0, 65_535, np.uint16, (0, 65_535)), (0, 40_000, np.int64, (0, 65_535)),
        (1800, 1840, np.uint16, (1800, 1840)), (0, 1200, np.uint16, (0, 1200)), (-1024, 3071, np.int16, (-1024, 3071)),
        (0, 16, np.uint16, (0, 16)), (0, 1_000_000, np.int64, (0, 1_000_000)),
        (0, 1, np.float32, (0, 1)), (0.2, 0.9, np.float32, (0, 1)), (-1, 1, np.float32, (-1, 1)),
        (0, 255, np.float64, (0, 255)), (0, 16, np.float64, (0, 16)), (-0.5, 2.25, np.float64, (-0.5, 2.25)),
        (0, 1.004, np.float32, (0, 1)), (0.5, 0.5625, np.float16, (0.5, 0.5625)),
    ],
)  # fmt: skip
def test_the_scale_is_a_usual_one_or_the_range_of_the_values(low: float, high: float, kind: Any, scale: Any) -> None:
    images = dataset(low, high, kind)

    assert scale_of(images) == scale
    assert scale_of(images[RANDOM.permutation(len(images))]) == scale


@pytest.mark.parametrize(("kind", "white"), [(np.int64, 255), (np.uint16, 65_535), (np.float32, 1), (np.float64, 255)])
def test_a_set_on_a_usual_scale_becomes_the_same_8_bits(kind: Any, white: float) -> None:
    grey = dataset(0, 255, np.uint8)
    images = (grey * (white / 255)).astype(kind)

    np.testing.assert_array_equal(to_8_bits(images, levels_of(measure(images), images.dtype.kind == "f")), grey)


@pytest.mark.parametrize(("offset", "factor"), [(1800, 1), (-4.5, 0.037), (1000, 3)])
def test_a_set_in_a_narrow_range_loses_nothing(offset: float, factor: float) -> None:
    grey = dataset(0, 255, np.uint8)
    images = grey.astype(float) * factor + offset

    found = to_8_bits(images, levels_of(measure(images), True))

    assert np.abs(found.astype(int) - grey.astype(int)).max() <= 1


@pytest.mark.parametrize("where", ["one pixel of every picture", "one whole picture"])
def test_outliers_do_not_darken_the_others_and_stay_apart(where: str) -> None:
    images = np.concatenate([dataset(7000, 9000, np.uint16) for _ in range(10)])
    if where == "one whole picture":
        images[5] = RANDOM.integers(30_000, 65_536, images[5].shape)
    else:
        images[:, 3, 3] = RANDOM.integers(30_000, 65_536, len(images))
    others = images < 10_000

    levels = levels_of(measure(images), False)
    found = to_8_bits(images, levels)

    assert not levels.is_usual
    assert np.ptp(found[others].astype(int)) > 200
    assert found[~others].min() > found[others].max() and len(np.unique(found[~others])) > 4


def test_a_spot_in_every_picture_is_no_outlier_if_it_is_not_far() -> None:
    images = dataset(2000, 3000, np.uint16)
    images[:, 3, 3] = 4000

    levels = levels_of(measure(images), False)

    assert (levels.low, levels.high) == (levels.black, levels.white)


@pytest.mark.parametrize("value", [0, 7, 65_535])
def test_a_set_of_one_value_has_a_scale(value: int) -> None:
    images = np.full((3, 8, 8), value, np.uint16)

    assert len(np.unique(to_8_bits(images, levels_of(measure(images), False)))) == 1


def test_the_order_and_the_number_of_images_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    images = dataset(100, 3000, np.uint16, 30)
    whole, levels = measure(images), levels_of(measure(images), False)
    grey = to_8_bits(images, levels)

    monkeypatch.setattr("hangtag.levels._AT_ONCE", 700)

    np.testing.assert_array_equal(measure(images), whole)
    np.testing.assert_array_equal(to_8_bits(images, levels), grey)
    assert levels_of(whole[::-1], False) == levels


@pytest.mark.parametrize(
    ("low", "high", "is_float", "white"),
    [
        (0, 1, True, 1), (0.2, 0.4, True, 1), (0, 1.01, True, 1), (0, 200, True, 255), (0, 0, False, 255),
        (0, 255, False, 255), (0, 20_000, False, 65_535), (100, 65_535, False, 65_535),
        (0, 4095, False, None), (1800, 1840, False, None), (0, 30, False, None), (0, 65_536, False, None),
        (-1, 1, True, None), (0, 16, True, None), (0, 4095, True, None), (-5, 200, False, None),
    ],
)  # fmt: skip
def test_a_single_picture_has_a_scale_only_if_there_is_no_doubt(
    low: float, high: float, is_float: bool, white: float | None
) -> None:
    levels = alone(low, high, is_float)

    assert (levels and (levels.black, levels.white)) == (None if white is None else (0, white))


WINDOW, TWELVE, SIXTEEN, UNIT, BYTES = (
    Levels(low, high, low, high) for low, high in ((1800, 1840), (0, 4095), (0, 65_535), (0, 1), (0, 255))
)


@pytest.mark.parametrize(
    ("model", "low", "high", "is_float", "result"),
    [
        (WINDOW, 1805, 1830, False, WINDOW), (WINDOW, 1790, 1850, False, WINDOW), (WINDOW, 1805, 1830, True, WINDOW),
        (WINDOW, 0, 1, True, None), (WINDOW, 0, 65_535, False, None), (WINDOW, 0, 255, False, None),
        (TWELVE, 0, 4000, False, TWELVE), (TWELVE, 0, 900, False, TWELVE), (TWELVE, 0, 65_535, False, None),
        (TWELVE, 5, 5, False, TWELVE), (SIXTEEN, 0, 255, False, None), (SIXTEEN, 0, 1, True, UNIT),
    ],
)  # fmt: skip
def test_a_picture_is_read_on_the_scale_of_the_model_or_not_at_all(
    model: Levels, low: float, high: float, is_float: bool, result: Levels | None
) -> None:
    known, other = (None, model) if is_float else (model, None)

    assert agreed(known, other, alone(low, high, is_float), low, high) == result


@pytest.mark.parametrize(
    ("model", "low", "high"), [(UNIT, 0, 255), (UNIT, -1, 1), (UNIT, -2.5, 2.5), (BYTES, 0, 1), (BYTES, -1, 1)]
)
def test_floats_in_another_range_than_those_of_the_model_are_refused(model: Levels, low: float, high: float) -> None:
    assert agreed(model, None, alone(low, high, True), low, high) is None


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (np.nan, 1), (0, np.inf)])
def test_a_scale_without_a_range_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="white must be above black"):
        Levels(*ends, *ends)
