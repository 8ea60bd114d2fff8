"""What the training images look like, apart from what they show; `doctor.py` compares pictures with it.

The statistics are fitted to the training images at export and kept in the model file's metadata. They say whether the
images have one plain background, whether their objects are lighter or darker than it, and how objects are framed.
"""

from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.pictures import Images
from hangtag.serializable import Serializable

__all__ = ["Appearance", "Spread", "Statistics", "across_channels", "border_of", "fit_appearance", "statistics_of"]

TRIM = 0.05
"""A pixel belongs to the object if it differs from the background by more than this share of the full scale: the
tolerance at which the product photos of Fashion-MNIST were trimmed (Xiao et al., 2017)."""

_LOWEST, _HIGHEST = 0.005, 0.995  # quantiles that bound what training images look like
_LEAST_SHARE = 0.9  # of training images that must have a property before pictures are repaired to have it
_LEAST_BORDER = 0.3  # share of border pixels that show the background, if the image has a plain background
_MOST_VARIATION = 0.15  # by how much the framing of training images varies, if they were framed by a rule
_LEAST_IMAGES = 20
_AT_ONCE = 2000


@dataclass(frozen=True)
class Spread(Serializable):
    """The values of a statistic over the training images: nearly all are between `low` and `high`."""

    low: float
    median: float
    high: float

    def __post_init__(self) -> None:
        if not -10 <= self.low <= self.median <= self.high <= 10:
            raise ValueError("the statistics of training images are out of range")

    def holds(self, values: NDArray[np.float64], slack: float) -> NDArray[np.bool_]:
        """Which of these values are between the limits, or at most `slack` beyond them."""
        return (self.low - slack <= values) & (values <= self.high + slack)


@dataclass(frozen=True)
class Appearance(Serializable):
    """What training images look like. Shares and grey levels are from 0 to 1.

    Attributes:
        images: how many training images were measured.
        background: (C,) the median colour of their borders.
        plain: the share of images whose border shows this background.
        lighter: the share of objects that are lighter than the background.
        border: how far the median of an image's border is from the background.
        contrast: how far the object differs from the background.
        extent: the longer side of the box around the object, as a share of the image's side.
        box, mass: how far the centre of that box, and the object's centre of mass, are from the image's centre, as
            shares of the image's side.
        aspect: width of the box divided by its height, as a natural logarithm.
        colour: mean difference between a pixel's strongest and weakest channel.
        sharpness: mean difference between a pixel and its neighbours' mean, relative to the image's contrast.
    """

    images: int
    background: tuple[float, ...]
    plain: float
    lighter: float
    border: Spread
    contrast: Spread
    extent: Spread
    box: Spread
    mass: Spread
    aspect: Spread
    colour: Spread
    sharpness: Spread

    def __post_init__(self) -> None:
        if len(self.background) not in (1, 3) or not all(0 <= level <= 1 for level in self.background):
            raise ValueError("the background of the training images must be 1 or 3 levels from 0 to 1")
        if self.images < 1 or not (0 <= self.plain <= 1 and 0 <= self.lighter <= 1):
            raise ValueError("the statistics of training images are out of range")

    @property
    def is_plain(self) -> bool:
        """Whether the training images have one plain background, so that other backgrounds can be replaced by it."""
        return self.images >= _LEAST_IMAGES and self.plain >= _LEAST_SHARE

    @property
    def polarity(self) -> int:
        """1 if objects are lighter than the background, -1 if they are darker, 0 if both occur."""
        if not self.is_plain:
            return 0
        return 1 if self.lighter >= _LEAST_SHARE else -1 if self.lighter <= 1 - _LEAST_SHARE else 0

    @property
    def is_framed(self) -> bool:
        """Whether objects fill the training images by a rule, so that a picture can be cropped to do the same."""
        return self.is_plain and self.extent.median - self.extent.low <= 2 * _MOST_VARIATION and self.is_centred

    @property
    def is_centred(self) -> bool:
        return self.is_plain and min(self.box.high, self.mass.high) <= _MOST_VARIATION

    @property
    def centres_mass(self) -> bool:
        """Whether objects are centred by their centre of mass, as in MNIST, and not by the box around them."""
        return self.mass.high < self.box.high

    @property
    def is_grey(self) -> bool:
        """Whether all training images are grey."""
        return self.colour.high < 0.01


@dataclass(frozen=True, eq=False)
class Statistics:
    """The same statistics of N images; `found` says which images have an object, and the others' values are NaN."""

    border: NDArray[np.float64]
    plain: NDArray[np.float64]
    found: NDArray[np.bool_]
    lighter: NDArray[np.float64]
    contrast: NDArray[np.float64]
    extent: NDArray[np.float64]
    box: NDArray[np.float64]
    mass: NDArray[np.float64]
    aspect: NDArray[np.float64]
    colour: NDArray[np.float64]
    sharpness: NDArray[np.float64]


def fit_appearance(images: Images) -> Appearance:
    """The appearance of training images (N, H, W[, 3]) uint8, N at least 1."""
    background = np.median(np.concatenate([border_of(_scaled(part)) for part in _parts(images)]), axis=(0, 1))
    pieces = [statistics_of(_scaled(part), background) for part in _parts(images)]
    statistics = Statistics(
        *(np.concatenate([getattr(piece, name) for piece in pieces]) for name in Statistics.__dataclass_fields__)
    )
    framed = ("contrast", "extent", "box", "mass", "aspect")
    return Appearance(
        images=len(images),
        background=tuple(round(float(level), 4) for level in background),
        plain=float((statistics.plain >= _LEAST_BORDER).mean()),
        lighter=float((statistics.lighter[statistics.found] > 0).mean()) if statistics.found.any() else 0.5,
        **{name: _spread(getattr(statistics, name)) for name in ("border", "colour", "sharpness")},
        **{name: _spread(getattr(statistics, name)[statistics.found]) for name in framed},
    )


def statistics_of(images: NDArray[np.floating[Any]], background: NDArray[np.float64]) -> Statistics:
    """Statistics of images (N, H, W, C) from 0 to 1 against a background (C,)."""
    count, height, width, _ = images.shape
    border = border_of(images)
    apart: Any = across_channels(np.maximum, np.abs(images - background.astype(np.float32)))  # (N, H, W)
    grey = across_channels(np.add, images) / images.dtype.type(images.shape[3])
    range_of = across_channels(np.maximum, images) - across_channels(np.minimum, images)
    inside = apart > TRIM
    found = inside.any(axis=(1, 2))
    weight = np.where(inside, apart, 0)
    total = np.maximum(weight.sum(axis=(1, 2)), 1e-9)
    difference = np.where(inside, grey - np.float32(background.mean()), 0).sum(axis=(1, 2))
    top, bottom = _ends(inside.any(axis=2))
    left, right = _ends(inside.any(axis=1))
    tall, wide = (bottom - top) / height, (right - left) / width
    box = np.maximum(np.abs(top + bottom - height) / (2 * height), np.abs(left + right - width) / (2 * width))
    mass_y = (weight.sum(axis=2) * (np.arange(height) + 0.5)).sum(axis=1) / total / height - 0.5
    mass_x = (weight.sum(axis=1) * (np.arange(width) + 0.5)).sum(axis=1) / total / width - 0.5
    gone = np.where(found, 0.0, np.nan)
    return Statistics(
        border=np.abs(np.median(border, axis=1) - background).max(axis=1),
        plain=(np.abs(border - background).max(axis=2) <= TRIM).mean(axis=1),
        found=found,
        lighter=np.sign(difference) + gone,
        contrast=np.quantile(apart.reshape(count, -1), 0.98, axis=1) + gone,
        extent=np.maximum(tall, wide) + gone,
        box=box + gone,
        mass=np.maximum(np.abs(mass_y), np.abs(mass_x)) + gone,
        aspect=np.log(np.maximum(wide * width, 1) / np.maximum(tall * height, 1)) + gone,
        colour=range_of.mean(axis=(1, 2)).astype(np.float64),
        sharpness=sharpness_of(grey),
    )


def across_channels(operation: np.ufunc, images: NDArray[Any], axis: int = 3) -> NDArray[Any]:
    """The reduction of images along a few channels, which takes NumPy's own `reduce` several times as long."""
    return reduce(operation, np.moveaxis(images, axis, 0))


def sharpness_of(grey: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(N,) the mean difference between a pixel and its four neighbours' mean, relative to the standard deviation."""
    if min(grey.shape[1:]) < 3:
        return np.zeros(len(grey))
    around = (grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]) / 4
    detail = np.abs(grey[:, 1:-1, 1:-1] - around).mean(axis=(1, 2))
    relative: NDArray[np.float64] = np.minimum(detail / np.maximum(grey.std(axis=(1, 2)), 1e-3), 10)
    return relative


def border_of(images: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """(N, P, C) the outermost pixels of images (N, H, W, C)."""
    edges = images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]
    return np.concatenate(edges, axis=1)


def _ends(some: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(N,) the first true place of each row of (N, L), and one behind the last."""
    return some.argmax(axis=1), some.shape[1] - some[:, ::-1].argmax(axis=1)


def _parts(images: Images) -> list[Images]:
    return [images[start : start + _AT_ONCE] for start in range(0, len(images), _AT_ONCE)]


def _scaled(images: Images) -> NDArray[np.floating[Any]]:
    scaled = np.asarray(images, np.float32) / np.float32(255)
    return scaled[..., np.newaxis] if scaled.ndim == 3 else scaled


def _spread(values: NDArray[np.float64]) -> Spread:
    if not len(values):
        return Spread(0, 0, 0)
    low, median, high = np.quantile(values, [_LOWEST, 0.5, _HIGHEST], method="nearest")
    return Spread(*(round(float(value), 4) for value in (low, median, high)))
