"""Pixels of more than 8 bits -> 8 bits, on one scale for a whole dataset.

A file of 16-bit or floating-point pixels does not say which value is white: 255, 1,023, 4,095, 65,535 or 1.0. One
picture alone cannot tell, but all pictures of a dataset can. Their scale is kept in the model file, so that a single
picture is read in the same way.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FAINT", "Levels", "agreed", "alone", "levels_of", "measure", "range_in_words", "to_8_bits"]

FAINT = 1 / 250
"""The share of a scale that is about one grey level of 8 bits."""

_BITS = {255: 0.125, 1023: 0.5, 4095: 0.5, 16_383: 0.5, 65_535: 0.5}
"""White of whole numbers, and the share of the scale that pictures must use; below, their own range is the scale."""

_FLOATS = ((0.0, 1.0, 0.5), (-1.0, 1.0, 0.5), (0.0, 255.0, 0.125))
"""Usual scales of floats: black, white, and the share that must be used."""

_OVERSHOOT = 0.02  # of a scale of floats; what interpolation adds, which is clipped
_RARE = 0.005  # the share of a picture's pixels at either end, and of pictures, that may be outliers
_STRETCHED = 4.0  # outliers count if they widen the range by more than this factor
_SEEN = 1 / 32  # the share of the scale that a picture with values beyond it must use
_TAIL = 16  # grey levels that outliers share at either end
_SAMPLED = 1_000_000  # pixels of one picture in which outliers are searched
_AT_ONCE = 4_000_000  # pixels converted in one step, to bound memory


@dataclass(frozen=True)
class Levels:
    """The scale of pixels of more than 8 bits.

    Attributes:
        black, white: the values that become 0 and 255.
        low, high: the same; or the lowest and highest outlier in the dataset, which then become 0 and 255, so that
            outliers share the outer 16 grey levels.
    """

    black: float
    white: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not np.isfinite([self.black, self.white, self.low, self.high]).all() or self.black >= self.white:
            raise ValueError(f"white must be above black, got {self.black:g} and {self.white:g}")

    @property
    def is_usual(self) -> bool:
        """Whether it is the full scale of a usual kind of pixel, such as 0 to 4,095 or 0 to 1."""
        scales = {(0.0, float(white)) for white in _BITS} | {(black, white) for black, white, _ in _FLOATS}
        return (self.black, self.white) in scales and not self.has_outliers

    @property
    def has_outliers(self) -> bool:
        return self._ends() != (0, 255)

    def fits(self, low: float, high: float) -> bool:
        """Whether pixel values with this range are plausible: not far outside, and not all one grey level."""
        margin, seen = (self.high - self.low) / 2, min(high, self.white) - max(low, self.black)
        beyond = low < self.black or high > self.white
        inside = self.low - margin <= low and high <= self.high + margin
        return inside and (low == high or seen >= (self.white - self.black) * (_SEEN if beyond else FAINT))

    def __str__(self) -> str:
        first, last = self._ends()
        scale = f"{range_in_words(self.black, self.white)} became {first} to {last}"
        rest = f", and rare values from {range_in_words(self.low, self.high)} the rest"
        return scale + rest if self.has_outliers else scale

    def _ends(self) -> tuple[int, int]:
        """The grey levels of black and white."""
        return _TAIL * (self.low < self.black), 255 - _TAIL * (self.high > self.white)


def range_in_words(low: float, high: float) -> str:
    """A range of pixel values: "1,800 to 1,840", "0 to 1.004"."""
    return f"{_word(low)} to {_word(high)}"


def measure(images: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 4) the lowest and highest value of each of (N, ...) images, then the same without outliers.

    Values that are not finite make the first two of an image NaN or infinite.
    """
    rows = images.reshape(len(images), -1)
    result = np.empty((len(rows), 4), np.float32)
    size, step = rows.shape[1], -(-rows.shape[1] // _SAMPLED)
    for start in range(0, len(rows), at_once := max(1, _AT_ONCE // size)):
        few = rows[start : start + at_once]
        sample = few[:, ::step]
        last = sample.shape[1] - 1
        rare = int(_RARE * sample.shape[1])
        ends = np.partition(sample, sorted({rare, last - rare}), axis=1)
        columns = few.min(axis=1), few.max(axis=1), ends[:, rare], ends[:, last - rare]
        with np.errstate(over="ignore"):  # values beyond float32 count as infinite
            result[start : start + at_once] = np.stack([each.astype(np.float32) for each in columns], axis=1)
    return result


def levels_of(values: NDArray[np.float32], is_float: bool) -> Levels:
    """The scale of all pictures of a dataset: a usual one if they use enough of it, else the range of their values.

    Args:
        values: (M, 4) the result of `measure`, in any order, M at least 1.
        is_float: whether the pixels are floats, not whole numbers.
    """
    low, high = float(values[:, 0].min()), float(values[:, 1].max())
    few = int(_RARE * len(values))
    black = float(np.sort(values[:, 2])[few])
    white = float(np.sort(values[:, 3])[len(values) - 1 - few])
    if high - low <= _STRETCHED * (white - black):
        black, white = low, high  # no outliers
    scales = _FLOATS if is_float else tuple((0.0, float(end), share) for end, share in _BITS.items())
    for first, last, share in scales:
        slack = _OVERSHOOT * (last - first) * is_float
        if first - slack <= black and white <= last + slack and white - black >= share * (last - first):
            black, white = first, last
            break
    white = white if white > black else black + 1
    slack = _OVERSHOOT * (white - black)
    return Levels(black, white, low if low < black - slack else black, high if high > white + slack else white)


def alone(low: float, high: float, is_float: bool) -> Levels | None:
    """The scale of a single picture that no dataset explains; None if its values allow several."""
    if is_float and low >= 0 and high <= 1 + _OVERSHOOT:
        white = 1
    elif low >= 0 and (high == 0 or 64 <= high <= 255):
        white = 255
    elif not is_float and low >= 0 and 16_384 <= high <= 65_535:
        white = 65_535
    else:
        return None
    return Levels(0, white, 0, white)


def agreed(known: Levels | None, other: Levels | None, found: Levels | None, low: float, high: float) -> Levels | None:
    """The scale to use for pictures that a model was not trained on; None if nothing is plausible.

    Args:
        known: the model's scale for pixels of this kind (whole numbers or floats).
        other: its scale for the other kind.
        found: the scale that the pictures seem to have.
        low, high: the range of their values.
    """
    for each in (known, other):
        if each is not None and each.fits(low, high):
            return each
    trusted = known is None and (other is None or other.is_usual)
    return found if trusted and found is not None and found.is_usual else None


def to_8_bits(values: NDArray[Any], levels: Levels) -> NDArray[np.uint8]:
    """Pixel values of any shape and type as uint8, rounded and clipped."""
    result = np.empty(values.shape, np.uint8)
    first, last = levels._ends()
    ends = {levels.black: first, levels.white: last}
    if first:
        ends[levels.low] = 0
    if last < 255:
        ends[levels.high] = 255
    places = sorted(ends)
    rows = max(1, _AT_ONCE // max(1, int(np.prod(values.shape[1:]))))
    for start in range(0, len(values), rows):
        few = values[start : start + rows].astype(np.float64)
        if len(places) == 2:
            grey = (few - levels.black) * (255 / (levels.white - levels.black))
        else:
            grey = np.interp(few, places, [ends[each] for each in places])
        result[start : start + rows] = np.rint(grey).clip(0, 255)
    return result


def _word(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
