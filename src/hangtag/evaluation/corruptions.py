"""Fifteen corruptions of images, each in five severities: uint8 in, uint8 of the same shape out.

After Hendrycks & Dietterich, 2019 ("ImageNet-C"), with lengths as shares of an image's side, so that small and large
images are corrupted alike. The same seed gives the same result.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import UnknownName, UsageError
from hangtag.model.calibration import Floats
from hangtag.pictures import Images, ImageSpec, decode, encode_jpeg

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt"]

SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(images: Images, name: str, severity: int, seed: int = 0) -> Images:
    """Corrupt N images (N, H, W[, 3]) uint8.

    Args:
        name: one of `CORRUPTIONS`.
        severity: 1 to 5.

    Raises:
        UnknownName: no such corruption.
        UsageError: the severity is not 1 to 5.
    """
    if name not in CORRUPTIONS:
        raise UnknownName.among("corruption", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise UsageError(f"severity must be 1 to 5, got {severity}", "use 1 for the mildest, 5 for the strongest")
    random = np.random.default_rng([seed, list(CORRUPTIONS).index(name), severity])
    function, amounts = CORRUPTIONS[name]
    pixels: Images = np.rint(np.clip(function(images, amounts[severity - 1], random), 0, 255)).astype(np.uint8)
    return pixels


def _noise(images: Images, amount: float, random: np.random.Generator) -> Floats:
    sd = 255 * amount
    return images.astype(np.float32) + random.normal(0, sd, images.shape).astype(np.float32)


def _grain(images: Images, amount: float, random: np.random.Generator) -> Floats:
    """Shot noise (Poisson)."""
    return (random.poisson(images / 255 * amount) / amount * 255).astype(np.float32)


def _specks(images: Images, amount: float, random: np.random.Generator) -> Floats:
    drawn = random.random(images.shape[:3])
    if images.ndim == 4:
        drawn = drawn[..., None]
    specked = np.where(drawn < amount / 2, 0, np.where(drawn > 1 - amount / 2, 255, images))
    return specked.astype(np.float32)


def _blur(images: Images, amount: float, _: np.random.Generator) -> Floats:
    width = max(images.shape[1:3]) * amount
    reach = int(4 * width + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= kernel.sum()
    return _filtered(_filtered(images, kernel, reach, 1), kernel, reach, 2)


def _motion(images: Images, amount: float, _: np.random.Generator) -> Floats:
    length = max(2, round(images.shape[2] * amount))
    return _filtered(images, np.full(length, 1 / length), length // 2, 2)


def _filtered(images: Images | Floats, kernel: NDArray[np.float64], centre: int, axis: int) -> Floats:
    """Convolve along one side, as a product of matrices; border pixels are repeated outside.

    Args:
        centre: the place in the kernel of the pixel itself.
    """
    side = images.shape[axis]
    sources = np.clip(np.arange(side)[:, None] + np.arange(len(kernel)) - centre, 0, side - 1)
    weights = np.zeros((side, side))
    np.add.at(weights, (np.arange(side)[:, None], sources), kernel)
    return np.moveaxis(np.moveaxis(images.astype(np.float32), axis, -1) @ weights.T.astype(np.float32), -1, axis)


def _blocks(images: Images, amount: float, _: np.random.Generator) -> Floats:
    """Pixelation."""
    height, width = (max(1, round(side * amount)) for side in images.shape[1:3])
    rows = (np.arange(images.shape[1]) * height // images.shape[1]).astype(int)
    columns = (np.arange(images.shape[2]) * width // images.shape[2]).astype(int)
    starts = [np.flatnonzero(np.diff(each, prepend=-1)) for each in (rows, columns)]
    sums = np.add.reduceat(np.add.reduceat(images.astype(np.float32), starts[0], axis=1), starts[1], axis=2)
    sizes = np.outer(np.bincount(rows), np.bincount(columns)).astype(np.float32)
    means = sums / sizes.reshape(1, *sizes.shape, *[1] * (images.ndim - 3))
    return np.asarray(means[:, rows][:, :, columns])


def _brighter(images: Images, amount: float, _: np.random.Generator) -> Floats:
    return images.astype(np.float32) + 255 * np.float32(amount)


def _darker(images: Images, amount: float, _: np.random.Generator) -> Floats:
    return images.astype(np.float32) * np.float32(amount)


def _flat(images: Images, amount: float, _: np.random.Generator) -> Floats:
    """Reduced contrast."""
    wide = images.astype(np.float32)
    mean = wide.mean(axis=tuple(range(1, images.ndim)), keepdims=True)
    return np.asarray(mean + (wide - mean) * np.float32(amount))


def _jpeg(images: Images, amount: float, _: np.random.Generator) -> Floats:
    quality = int(amount)
    spec = ImageSpec.of(images)
    return np.stack([decode(encode_jpeg(image, quality), spec)[0] for image in images]).astype(np.float32)


def _shifted(images: Images, amount: float, random: np.random.Generator) -> Floats:
    angles = random.uniform(0, 2 * np.pi, len(images))
    return _warped(images, 1.0, 0.0, amount * np.sin(angles), amount * np.cos(angles))


def _turned(images: Images, amount: float, random: np.random.Generator) -> Floats:
    degrees = amount * random.choice([-1, 1], len(images))
    return _warped(images, 1.0, np.deg2rad(degrees), 0.0, 0.0)


def _smaller(images: Images, amount: float, _: np.random.Generator) -> Floats:
    return _warped(images, amount, 0.0, 0.0, 0.0)


def _covered(images: Images, amount: float, random: np.random.Generator) -> Floats:
    """A grey rectangle at a random place."""
    wide = images.astype(np.float32)
    height, width = (max(1, round(side * amount)) for side in images.shape[1:3])
    tops = random.integers(0, images.shape[1] - height + 1, len(images))
    lefts = random.integers(0, images.shape[2] - width + 1, len(images))
    for image, top, left in zip(wide, tops, lefts, strict=True):
        image[top : top + height, left : left + width] = 128
    return wide


def _inverted(images: Images, amount: float, _: np.random.Generator) -> Floats:
    """Blending with the negative, which is severity 5."""
    wide = images.astype(np.float32)
    return wide + np.float32(amount) * (255 - 2 * wide)


def _warped(
    images: Images, scale: float, angles: NDArray[np.float64] | float, down: NDArray[np.float64] | float,
    right: NDArray[np.float64] | float,
) -> Floats:  # fmt: skip
    """Scale, rotate (radians) about the centre and shift (shares of a side); border pixels are repeated outside."""
    count, height, width = images.shape[:3]
    angles, down, right = (np.broadcast_to(each, count)[:, None, None] for each in (angles, down, right))
    y, x = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    y, x = (y[None] - down * height) / scale, (x[None] - right * width) / scale
    from_y = np.cos(angles) * y - np.sin(angles) * x + (height - 1) / 2
    from_x = np.sin(angles) * y + np.cos(angles) * x + (width - 1) / 2
    planes = images[..., None] if images.ndim == 3 else images
    warped = np.empty(planes.shape, np.float32)
    for image, result, rows, columns in zip(planes, warped, from_y, from_x, strict=True):
        result[:] = _between_pixels(image, rows, columns)
    return warped.reshape(images.shape)


def _between_pixels(
    image: NDArray[np.uint8], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Bilinear interpolation of an image (H, W, C) at the given places; border pixels are repeated outside."""
    height, width = image.shape[:2]
    rows, columns = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    top, left = rows.astype(int), columns.astype(int)
    below, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    upper = (1 - across) * image[top, left] + across * image[top, right]
    lower = (1 - across) * image[below, left] + across * image[below, right]
    blended: NDArray[np.float64] = (1 - down) * upper + down * lower
    return blended


CORRUPTIONS: dict[str, tuple[Callable[[Images, float, np.random.Generator], Floats], tuple[float, ...]]] = {
    "noise": (_noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "grain": (_grain, (250, 100, 50, 25, 12)),
    "specks": (_specks, (0.01, 0.03, 0.06, 0.1, 0.17)),
    "blur": (_blur, (0.015, 0.025, 0.04, 0.06, 0.09)),
    "motion": (_motion, (0.08, 0.12, 0.18, 0.25, 0.35)),
    "pixelation": (_blocks, (0.7, 0.55, 0.4, 0.3, 0.2)),
    "brighter": (_brighter, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "darker": (_darker, (0.8, 0.6, 0.45, 0.3, 0.2)),
    "less contrast": (_flat, (0.7, 0.5, 0.35, 0.22, 0.12)),
    "JPEG": (_jpeg, (40, 25, 15, 9, 5)),
    "shift": (_shifted, (0.05, 0.1, 0.15, 0.2, 0.28)),
    "rotation": (_turned, (8, 15, 25, 40, 60)),
    "smaller": (_smaller, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "covered": (_covered, (0.2, 0.3, 0.4, 0.5, 0.6)),
    "inversion": (_inverted, (0.15, 0.3, 0.65, 0.85, 1.0)),
}
"""Name -> function and its amount at severity 1 to 5."""
