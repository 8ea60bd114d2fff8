"""The doctor: finds out in what a picture differs from the training images, and repairs it as far as they support.

Repairs need training images with one plain background (`Appearance.is_plain`): the object is found against the
picture's own background, which may be a page, wood or cloth in uneven light, and is laid on that of the training
images, inverted if they are, and framed as they are. For Fashion-MNIST this is how its images were made of product
photos: trimmed at 5 % of the scale, fitted by the longer side, extended to a square, negated (Xiao et al., 2017).
Photos on backgrounds of all kinds support none of this, and pictures for models of such photos are left alone.

This module proposes; `predictor.py` lets the model score all proposals, and uses one only if it is more familiar.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.model.appearance import TRIM, Appearance, Statistics, sharpness_of
from hangtag.model.foreground import LEAST_SIDE, Foreground, find_foreground
from hangtag.pictures import ImageSpec
from hangtag.resize import Sizer
from hangtag.words import in_percent

__all__ = ["NOTHING", "Doctor", "Proposal", "Repair"]

_BLANK = 4  # grey levels: no more contrast in the whole picture is nothing
NOTHING = "no object stands out from the background, so the answer says nothing about this picture"
"""The warning for a picture with nothing in it."""
_IN_PAGE = 2  # sides of the model's size that a page in a picture must have
_STRIP = 6.0  # times as wide or as high as the training images
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2, as in `pictures.py`
_MIXED = 0.15  # of an object's pixels: if so many are lighter and so many darker than the background, both are tried
_DARKEST = np.float32(0.05)  # background by which pixels are divided

Grid = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Repair:
    """One repair of a picture.

    Attributes:
        name: what was done: "rotated", "background", "inverted", "grey", "cropped", "centred" or
            "sharpened".
        reason: in what the picture differed from the training images, without a full stop.
        before, after: the picture's OOD score before the first and after the last repair; None if it was only rotated.
    """

    name: str
    reason: str
    before: float | None = None
    after: float | None = None

    def __str__(self) -> str:
        scores = "" if self.before is None else f" (OOD score {self.before:.2f} -> {self.after:.2f})"
        return f"{self.name}: {self.reason}{scores}"


@dataclass(frozen=True, eq=False)
class Proposal:
    """A repaired picture: uint8 pixels (H, W) or (H, W, 3) in the model's size, and the repairs that made it."""

    pixels: NDArray[np.uint8]
    repairs: tuple[Repair, ...]

    def scored(self, before: float, after: float) -> "Proposal":
        """The same with the OOD scores of the picture before and after the repairs."""
        scored = tuple(replace(repair, before=before, after=after) for repair in self.repairs)
        return replace(self, repairs=scored)


_SHARPENED = Repair("sharpened", "in the model's size, the picture was more blurred than the training images")


class Doctor:
    """Compares pictures with the training images of one model.

    Args:
        spec: of the model's images.
        appearance: of its training images.
    """

    def __init__(self, spec: ImageSpec, appearance: Appearance) -> None:
        self.spec, self.appearance = spec, appearance
        self._fitted, self._squashed = Sizer(spec), Sizer(replace(spec, fit="squash"))

    def is_blank(self, pictures: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """(N,) whether a decoded picture of (N, H, W[, 3]) has one colour."""
        height, width = pictures.shape[1:3]
        few = pictures[:, :: -(-height // 256), :: -(-width // 256)]
        sides = tuple(range(1, few.ndim))
        blank: NDArray[np.bool_] = np.ptp(few, axis=sides) <= _BLANK
        return blank

    def warnings(self, height: int, width: int) -> list[str]:
        """What no repair can mend in a decoded picture of this size, in sentences without a full stop."""
        strip = width * self.spec.height / (height * self.spec.width)
        if max(strip, 1 / strip) <= _STRIP:
            return []
        times, shape = (strip, "wide") if strip > 1 else (1 / strip, "high")
        return [
            f"compared with the training images, this picture is {times:.0f} times as {shape}; crop it to the object"
        ]

    def is_off(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.bool_]:
        """(N,) whether decoded pictures, in the model's colours, differ in what can be repaired."""
        trained, spec = self.appearance, self.spec
        if not len(pictures) or not (trained.is_plain or (trained.is_grey and spec.channels == 3)):
            return np.zeros(len(pictures), bool)
        fitted = np.stack([self._fitted(picture) for picture in pictures])
        seen = fitted.reshape(len(fitted), spec.height, spec.width, -1) / np.float32(255)
        statistics = Statistics(seen, np.array(trained.background))
        if not trained.is_plain:
            return self._has_needless_colour(statistics)
        spreads = ["border", "contrast"]
        spreads += ["extent"] if trained.is_framed else []
        spreads += ["mass" if trained.centres_mass else "box"] if trained.is_centred else []
        off = np.zeros(len(fitted), bool)
        for name in spreads:
            off |= ~getattr(trained, name).holds(getattr(statistics, name), TRIM)
        return off

    def _has_needless_colour(self, statistics: Statistics) -> NDArray[np.bool_]:
        return (statistics.colour > 0.02) & (self.spec.channels == 3 and self.appearance.is_grey)

    def proposals(self, picture: NDArray[np.uint8]) -> list[Proposal] | None:
        """Repaired pictures, those with the fewest repairs first; None if there is nothing in the picture.

        Args:
            picture: (H, W) or (H, W, 3), best in its own colours.
        """
        trained = self.appearance
        if not trained.is_plain:
            return [self._without_colour(picture)] if trained.is_grey and picture.ndim == 3 else []
        colours = picture if picture.ndim == 3 else picture[..., np.newaxis]
        if min(colours.shape[:2]) < LEAST_SIDE:
            return []
        found = find_foreground(colours)
        if found is None:
            return None
        proposals = list(self._of(found, colours.shape))
        top, left, bottom, right = found.within
        holds_picture = min(bottom - top, right - left) >= _IN_PAGE * max(self.spec.height, self.spec.width)
        if holds_picture and found.may_be_page and (inner := find_foreground(colours, found.within)) is not None:
            proposals += self._of(inner, colours.shape, True)
        return proposals

    def _without_colour(self, picture: NDArray[np.uint8]) -> Proposal:
        reason = Repair("grey", "the picture has colours; the training images are grey")
        grey = _in_channels(picture / np.float32(255), self.spec.channels, True)
        return Proposal(self._fitted(_to_8_bits(grey)), (reason,))

    def _of(self, found: Foreground, shape: tuple[int, ...], in_page: bool = False) -> Iterator[Proposal]:
        """Proposals for one object in a picture of this shape."""
        trained = self.appearance
        pixels = _in_channels(found.pixels, self.spec.channels, trained.is_grey)
        behind = _in_channels(found.background, self.spec.channels, trained.is_grey)
        contrast = (pixels - behind).mean(axis=2)[found.object]
        darker = float((contrast < -TRIM).mean()) / max(float((np.abs(contrast) > TRIM).mean()), 1e-6)
        alpha = _softened(found.object)[..., np.newaxis]
        background = np.array(trained.background, np.float32)
        for is_darker in (True, False):
            if (darker if is_darker else 1 - darker) < _MIXED:
                continue
            invert = trained.polarity != 0 and is_darker == (trained.polarity > 0)
            laid = _laid(pixels, behind, found.object, is_darker, background, trained.polarity)
            pixels_laid = (background + alpha * (laid - background)).astype(np.float32)
            repairs = tuple(self._repairs(found, behind, not is_darker, invert, shape, in_page))
            framed = self._framed(pixels_laid)
            yield Proposal(framed, repairs)
            sharpness = float(sharpness_of(_grey(framed)[np.newaxis])[0])
            if sharpness < trained.sharpness.median:
                yield Proposal(_sharpened(framed), (*repairs, _SHARPENED))

    def _framed(self, laid: Grid) -> NDArray[np.uint8]:
        """The object framed as in the training images; or the whole picture, if they follow no rule."""
        trained, spec = self.appearance, self.spec
        background = np.array(trained.background, np.float32)
        apart = np.abs(laid - background).max(axis=2)
        inside = apart > TRIM
        if not trained.is_framed or not inside.any():
            return self._fitted(_to_8_bits(laid))
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        cut = laid[top:bottom, left:right]
        unit = max((bottom - top) / spec.height, (right - left) / spec.width) / max(trained.extent.median, 0.1)
        height, width = max(round(unit * spec.height), len(cut)), max(round(unit * spec.width), cut.shape[1])
        middle_y, middle_x = len(cut) / 2, cut.shape[1] / 2
        if trained.centres_mass:
            weight = np.where(inside, apart, 0)[top:bottom, left:right]
            middle_y = float((weight.sum(axis=1) * (np.arange(len(cut)) + 0.5)).sum() / weight.sum())
            middle_x = float((weight.sum(axis=0) * (np.arange(cut.shape[1]) + 0.5)).sum() / weight.sum())
        canvas = np.empty((height, width, cut.shape[2]), np.float32)
        canvas[:] = background
        down = min(max(0, round(height / 2 - middle_y)), height - len(cut))
        across = min(max(0, round(width / 2 - middle_x)), width - cut.shape[1])
        canvas[down : down + len(cut), across : across + cut.shape[1]] = cut
        return self._squashed(_to_8_bits(canvas))

    def _repairs(
        self, found: Foreground, behind: Grid, lighter: bool, invert: bool, shape: tuple[int, ...], in_page: bool
    ) -> Iterator[Repair]:
        trained = self.appearance
        if in_page:
            yield Repair("cropped", "the object is in a page or a frame within the picture")
        level, wanted = float(behind.mean()), float(np.mean(trained.background))
        if invert:
            was = "lighter" if lighter else "darker"
            yield Repair("inverted", f"the object was {was} than its background; training images are the opposite")
        expected = 1 - wanted if invert else wanted
        uneven = float(np.ptp(np.quantile(behind, [0.02, 0.98])))
        if abs(level - expected) > TRIM or uneven > TRIM:
            yield Repair(
                "background",
                f"the background was at {in_percent(level)} of the brightness scale; "
                f"that of the training images is plain, at {in_percent(expected)}{' before inversion' * invert}",
            )
        if trained.is_framed:
            top, left, bottom, right = found.box
            extent = max((bottom - top) / shape[0], (right - left) / shape[1])
            least = in_percent(trained.extent.low)
            off = max(abs(top + bottom - shape[0]) / shape[0], abs(left + right - shape[1]) / shape[1]) / 2
            if extent < trained.extent.low - TRIM:
                yield Repair(
                    "cropped",
                    f"the object filled {in_percent(extent)} of the picture's height or width; "
                    f"in training images it fills at least {least}",
                )
            elif off > min(trained.box.high, trained.mass.high) + TRIM:
                yield Repair("centred", "the object was off the centre; in training images it is in the centre")


def _laid(
    pixels: Grid, behind: Grid, mask: NDArray[np.bool_], is_darker: bool, background: Grid, polarity: int
) -> Grid:
    """(h, w, C) the object on a plain background (C,), lighter or darker than it by `polarity`, the light evened out.

    The brightness of a dark object is relative to white, for which the background is taken if nothing is lighter; that
    of a light object is relative to the background.
    """
    if is_darker:
        even = pixels / np.maximum(behind, _DARKEST)
        white = np.maximum(np.quantile(even[mask], 0.98, axis=0), 1)
        strength = 1 - np.minimum(even / white, 1)
    else:
        strength = np.maximum(pixels - behind, 0) / np.maximum(1 - behind, _DARKEST)
    if polarity == 0:
        polarity = -1 if is_darker else 1
    laid: Grid = background + strength * ((1 - background) if polarity > 0 else -background)
    return laid


def _sharpened(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image plus its difference to a Gaussian blur of radius 1 and deviation 1."""
    weights = np.exp(-np.array([1.0, 0.0, 1.0]) / 2)
    blurred = image.astype(np.float64)
    for axis in (0, 1):
        size, width = image.shape[axis], [(0, 0)] * image.ndim
        width[axis] = (1, 1)
        padded = np.pad(blurred, width, mode="edge")
        shifted = [padded.take(range(start, start + size), axis) for start in range(3)]
        blurred = np.tensordot(weights / weights.sum(), np.stack(shifted), 1)
    return np.rint(2.0 * image - blurred).clip(0, 255).astype(np.uint8)


def _grey(image: NDArray[np.uint8]) -> Grid:
    return (image if image.ndim == 2 else image.mean(axis=2)) / np.float32(255)


def _in_channels(pixels: Grid, channels: int, grey: bool) -> Grid:
    """(h, w, channels) of (h, w, C), grey if wanted."""
    if pixels.shape[2] == 3 and (grey or channels == 1):
        pixels = (pixels @ _LUMA)[..., np.newaxis]
    return pixels if pixels.shape[2] == channels else np.repeat(pixels[..., :1], channels, axis=2)


def _softened(mask: NDArray[np.bool_]) -> Grid:
    """(h, w) from 0 to 1, the means of squares of three pixels."""
    padded = np.pad(mask.astype(np.float32), 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    soft: Grid = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / 9
    return soft


def _to_8_bits(pixels: Grid) -> NDArray[np.uint8]:
    levels = np.rint(pixels * 255).clip(0, 255).astype(np.uint8)
    return levels[..., 0] if levels.shape[2] == 1 else levels
