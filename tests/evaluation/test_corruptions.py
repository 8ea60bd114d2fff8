"""corruptions.py: every corruption in grey and colour, small and odd: same shape back, worse with severity."""

import numpy as np
import pytest
from scipy import ndimage

from hangtag.errors import HangtagError
from hangtag.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from hangtag.pictures import Images


def scene(count: int = 8, side: int = 32, channels: int = 1) -> Images:
    """A bright, textured square on a dark background."""
    random = np.random.default_rng(0)
    shape = (count, side, side) if channels == 1 else (count, side, side, channels)
    images = random.integers(20, 60, shape, dtype=np.uint8)
    images[:, side // 4 : -side // 4, side // 4 : -side // 4] += 120
    return images


def test_there_are_fifteen_corruptions_and_five_severities() -> None:
    assert (len(CORRUPTIONS), SEVERITIES) == (15, (1, 2, 3, 4, 5))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_change_more_with_severity_and_keep_their_shape(name: str, channels: int) -> None:
    images = scene(channels=channels)
    before = images.copy()

    off = []
    for severity in SEVERITIES:
        changed = corrupt(images, name, severity)
        assert (changed.shape, changed.dtype) == (images.shape, np.uint8)
        off.append(np.abs(changed.astype(int) - images).mean())

    np.testing.assert_array_equal(images, before)
    assert off[0] > 0.2 and off[-1] > 1.2 * off[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 9), (2, 40, 7, 3)])
def test_odd_sizes_do_no_harm(name: str, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)

    for severity in SEVERITIES:
        assert corrupt(images, name, severity).shape == shape


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_seed_gives_the_same_pictures(name: str) -> None:
    images = scene()

    np.testing.assert_array_equal(corrupt(images, name, 3, seed=4), corrupt(images, name, 3, seed=4))


def test_inversion_of_severity_five_is_the_negative() -> None:
    images = scene()

    np.testing.assert_array_equal(corrupt(images, "inversion", 5), 255 - images)


def test_unknown_corruptions_and_severities_are_refused() -> None:
    with pytest.raises(HangtagError, match="did you mean 'rotation'"):
        corrupt(scene(), "rotatoin", 1)
    with pytest.raises(HangtagError, match="severity must be 1 to 5, got 6"):
        corrupt(scene(), "noise", 6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_blur_motion_and_scaling_are_those_of_scipy(severity: int, channels: int) -> None:
    planes = np.random.default_rng(0).integers(0, 256, (3, 33, 33, channels), dtype=np.uint8)
    images = planes[..., 0] if channels == 1 else planes
    amount = {name: CORRUPTIONS[name][1][severity - 1] for name in ("blur", "motion", "smaller")}
    wide = images.astype(np.float32)
    width = 33 * amount["blur"]
    y, x = (np.indices((33, 33)) - 16) / amount["smaller"] + 16
    smaller = np.empty(planes.shape)
    for number, channel in np.ndindex(3, channels):
        plane = planes[number, :, :, channel].astype(np.float32)
        smaller[number, :, :, channel] = ndimage.map_coordinates(plane, [y, x], order=1, mode="nearest")
    expected = {
        "blur": ndimage.gaussian_filter(wide, (0, width, width, 0)[: images.ndim], mode="nearest"),
        "motion": ndimage.uniform_filter1d(wide, max(2, round(33 * amount["motion"])), axis=2, mode="nearest"),
        "smaller": smaller.reshape(images.shape),
    }

    for name, pixels in expected.items():
        difference = np.abs(corrupt(images, name, severity).astype(float) - np.clip(pixels, 0, 255))
        assert difference.max() < 0.51, name  # nothing but rounding to whole grey levels
