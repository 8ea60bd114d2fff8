"""What the training images look like, apart from what they show; `doctor.py` compares pictures with it.

The statistics are fitted to the training images at export and kept in the model file's metadata. They say whether the
images have one plain background, whether their objects are lighter or darker than it, and how objects are framed.
"""

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.pictures import Images
from hangtag.serializable import Serializable

__all__ = ["Appearance", "Spread", "Statistics", "across_channels", "border_of", "fit_appearance"]

TRIM = 0.05
"""A pixel belongs to the object if it differs from the background by more than this share of the full scale: the
tolerance at which the product photos of Fashion-MNIST were trimmed (Xiao et al., 2017)."""

_LOWEST, _HIGHEST = 0.005, 0.995  # quantiles that bound what training images look like
_LEAST_SHARE = 0.9  # of training images that must have a property before pictures are repaired to have it
_LEAST_BORDER = 0.3  # share of border pixels that show the background, if the image has a plain background
_MOST_VARIATION = 0.15  # by how much the framing of training images varies, if they were framed by a rule
_LEAST_IMAGES = 20
_AT_ONCE = 2000
_OF_IMAGES = ("border", "colour", "sharpness")  # statistics whose spread is kept
_OF_OBJECTS = ("contrast", "extent", "box", "mass", "aspect")  # the same, of images with an object


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


class Statistics:
    """The same statistics of N images, (N,) each, computed on first use; without an object, NaN.

    Args:
        images: (N, H, W, C) from 0 to 1.
        background: (C,) with which they are compared.
    """

    def __init__(self, images: NDArray[np.floating[Any]], background: NDArray[np.float64]) -> None:
        self._images, self._background = images, background
        self._height, self._width = images.shape[1:3]
        self._border = border_of(images)
        self._apart: Any = across_channels(np.maximum, np.abs(images - background.astype(np.float32)))  # (N, H, W)
        self._inside: NDArray[np.bool_] = self._apart > TRIM

    @cached_property
    def found(self) -> NDArray[np.bool_]:
        """Whether an image has an object."""
        return np.asarray(self._inside.any(axis=(1, 2)))

    @property
    def border(self) -> NDArray[np.float64]:
        values: NDArray[np.float64] = np.abs(_quantiles(self._border, 0.5) - self._background).max(axis=1)
        return values

    @property
    def plain(self) -> NDArray[np.float64]:
        shows: NDArray[np.bool_] = np.abs(self._border - self._background).max(axis=2) <= TRIM
        return np.asarray(shows.mean(axis=1))

    @property
    def lighter(self) -> NDArray[np.float64]:
        difference = np.where(self._inside, self._grey - np.float32(self._background.mean()), 0)
        return self._of_objects(np.sign(difference.sum(axis=(1, 2))))

    @property
    def contrast(self) -> NDArray[np.float64]:
        return self._of_objects(_quantiles(self._apart.reshape(len(self._apart), -1), 0.98))

    @property
    def extent(self) -> NDArray[np.float64]:
        return self._of_objects(np.maximum(*self._sides))

    @property
    def box(self) -> NDArray[np.float64]:
        (top, bottom), (left, right) = self._ends
        down, across = np.abs(top + bottom - self._height), np.abs(left + right - self._width)
        return self._of_objects(np.maximum(down / (2 * self._height), across / (2 * self._width)))

    @property
    def mass(self) -> NDArray[np.float64]:
        weight = np.where(self._inside, self._apart, 0)
        total = np.maximum(weight.sum(axis=(1, 2)), 1e-9)
        places = [np.arange(side) + 0.5 for side in (self._height, self._width)]
        y, x = ((weight.sum(axis=3 - axis) * place).sum(axis=1) / total / len(place) - 0.5
                for axis, place in enumerate(places, 1))  # fmt: skip
        return self._of_objects(np.maximum(np.abs(y), np.abs(x)))

    @property
    def aspect(self) -> NDArray[np.float64]:
        tall, wide = self._sides
        return self._of_objects(np.log(np.maximum(wide * self._width, 1) / np.maximum(tall * self._height, 1)))

    @property
    def colour(self) -> NDArray[np.float64]:
        range_of = across_channels(np.maximum, self._images) - across_channels(np.minimum, self._images)
        values: NDArray[np.float64] = range_of.mean(axis=(1, 2)).astype(np.float64)
        return values

    @property
    def sharpness(self) -> NDArray[np.float64]:
        return sharpness_of(self._grey)

    def _of_objects(self, values: NDArray[Any]) -> NDArray[np.float64]:
        return np.where(self.found, values, np.nan).astype(np.float64)

    @cached_property
    def _grey(self) -> NDArray[np.floating[Any]]:
        grey: NDArray[np.floating[Any]] = across_channels(np.add, self._images) / self._images.dtype.type(
            self._images.shape[3]
        )
        return grey

    @cached_property
    def _ends(self) -> tuple[Any, Any]:
        """Of the box around the object, down and across."""
        return _ends(np.asarray(self._inside.any(axis=2))), _ends(np.asarray(self._inside.any(axis=1)))

    @cached_property
    def _sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of the same box, as shares of the image's."""
        (top, bottom), (left, right) = self._ends
        return (bottom - top) / self._height, (right - left) / self._width


def fit_appearance(images: Images) -> Appearance:
    """The appearance of training images (N, H, W[, 3]) uint8, N at least 1."""
    background = np.median(np.concatenate([border_of(_scaled(part)) for part in _parts(images)]), axis=(0, 1))
    names = ("plain", "lighter", "found", *_OF_IMAGES, *_OF_OBJECTS)
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
    for part in _parts(images):
        statistics = Statistics(_scaled(part), background)
        for name, pieces in parts.items():
            pieces.append(getattr(statistics, name))
    values = {name: np.concatenate(pieces) for name, pieces in parts.items()}
    found = values["found"]
    return Appearance(
        images=len(images),
        background=tuple(round(float(level), 4) for level in background),
        plain=float((values["plain"] >= _LEAST_BORDER).mean()),
        lighter=float((values["lighter"][found] > 0).mean()) if found.any() else 0.5,
        **{name: _spread(values[name]) for name in _OF_IMAGES},
        **{name: _spread(values[name][found]) for name in _OF_OBJECTS},
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


def _quantiles(values: NDArray[np.floating[Any]], share: float) -> NDArray[np.floating[Any]]:
    """`np.quantile` along axis 1, in a fraction of the time for a few rows."""
    place = share * (values.shape[1] - 1)
    below = int(place)
    above = min(below + 1, values.shape[1] - 1)
    ordered = np.partition(values, (below, above), axis=1)
    low, high = ordered[:, below], ordered[:, above]
    between: NDArray[np.floating[Any]] = low + (high - low) * values.dtype.type(place - below)
    return between


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
