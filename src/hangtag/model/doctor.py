"""The doctor: finds out in what a picture differs from the training images, and repairs it as far as they support.

Repairs need training images with one plain background (`Appearance.is_plain`): the object is found against the
picture's own background, which may be a page, wood or cloth in uneven light, and is laid on that of the training
images, inverted if they are, and framed as they are. For Fashion-MNIST this is how its images were made of product
photos: trimmed at 5 % of the scale, fitted by the longer side, extended to a square, negated (Xiao et al., 2017).
Photos on backgrounds of all kinds support none of this, and pictures for models of such photos are left alone.

This module proposes; `predictor.py` lets the model score all proposals, and uses one only if it is more familiar.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hangtag.model.appearance import TRIM, Appearance, Looks, looks_of
from hangtag.model.foreground import Foreground, find_foreground
from hangtag.pictures import ImageSpec
from hangtag.resize import Sizer
from hangtag.words import in_percent

__all__ = ["Doctor", "Examination", "Proposal", "Repair"]

_BLANK = 0.03  # of the full scale: less contrast in the whole picture is nothing
_STRIP = 6.0  # times as wide or as high as the training images
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601-2, as in `pictures.py`
_DARKEST = np.float32(0.05)  # background by which pixels are divided

Grid = NDArray[np.float32]


@dataclass(frozen=True)
class Repair:
    """One repair of a picture.

    Attributes:
        name: what was done: "turned", "background", "inverted", "grey", "cropped" or "centred".
        reason: in what the picture differed from the training images, without a full stop.
        before, after: the picture's OOD score before the first and after the last repair; None if it was only turned.
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


@dataclass(frozen=True)
class Examination:
    """What the doctor found in a picture.

    Attributes:
        is_off: whether it differs from the training images in something that can be repaired.
        is_blank: whether nothing stands out in it.
        warnings: what cannot be repaired, as sentences without a full stop.
    """

    is_off: bool
    is_blank: bool
    warnings: tuple[str, ...]


class Doctor:
    """Compares pictures with the training images of one model.

    Args:
        spec: of the model's images.
        appearance: of its training images.
    """

    def __init__(self, spec: ImageSpec, appearance: Appearance) -> None:
        self.spec, self.appearance = spec, appearance
        self._fitted, self._squashed = Sizer(spec), Sizer(replace(spec, fit="squash"))

    def examine(self, picture: NDArray[np.uint8]) -> Examination:
        """Compare a decoded picture (H, W[, 3]), in the model's colours, with the training images."""
        seen = self._fitted(picture).reshape(self.spec.height, self.spec.width, -1) / np.float32(255)
        height, width = picture.shape[:2]
        warnings = []
        few = picture[:: -(-height // 256), :: -(-width // 256)] / 255
        is_blank = bool(np.ptp(np.quantile(few, [0.002, 0.998])) < _BLANK)
        if is_blank:
            warnings.append("nothing stands out in this picture, so the answer says nothing about it")
        strip = width * self.spec.height / (height * self.spec.width)
        if max(strip, 1 / strip) > _STRIP:
            times, shape = (strip, "wide") if strip > 1 else (1 / strip, "high")
            warnings.append(f"relative to the training images, the picture is {times:.0f} times as {shape}; crop it")
        return Examination(not is_blank and self._is_off(seen), is_blank, tuple(warnings))

    def _is_off(self, seen: Grid) -> bool:
        trained = self.appearance
        looks = looks_of(seen[np.newaxis], np.array(trained.background))
        if not trained.is_plain:
            return self._has_needless_colour(looks)
        spreads = ["border", "contrast"]
        spreads += ["extent"] if trained.is_framed else []
        spreads += ["mass" if trained.centres_mass else "box"] if trained.is_centred else []
        values = {name: float(getattr(looks, name)[0]) for name in spreads}
        return any(not getattr(trained, name).holds(value, TRIM) for name, value in values.items())

    def _has_needless_colour(self, looks: Looks) -> bool:
        return self.spec.channels == 3 and self.appearance.is_grey and float(looks.colour[0]) > 0.02

    def proposals(self, picture: NDArray[np.uint8]) -> list[Proposal]:
        """Repaired pictures, those with the fewest repairs first; empty if no repair suits the picture.

        Args:
            picture: (H, W) or (H, W, 3), best in its own colours.
        """
        return list(self._proposals(picture))

    def _proposals(self, picture: NDArray[np.uint8]) -> Iterator[Proposal]:
        trained = self.appearance
        if not trained.is_plain:
            if self.spec.channels == 3 and trained.is_grey and picture.ndim == 3:
                reason = Repair("grey", "the picture has colours; the training images are grey")
                yield Proposal(self._fitted(_in_channels(picture / np.float32(255), 3, True)), (reason,))
            return
        colours = picture if picture.ndim == 3 else picture[..., np.newaxis]
        found = find_foreground(colours)
        if found is None:
            return
        yield from self._of(found, colours.shape)
        if found.may_be_page and (inner := find_foreground(colours, found.within)) is not None:
            yield from self._of(inner, colours.shape, True)

    def _of(self, found: Foreground, shape: tuple[int, ...], in_page: bool = False) -> Iterator[Proposal]:
        """Proposals for one object in a picture of this shape."""
        trained = self.appearance
        pixels = _in_channels(found.pixels, self.spec.channels, trained.is_grey)
        behind = _in_channels(found.background, self.spec.channels, trained.is_grey)
        lighter = float((pixels - behind).mean(axis=2)[found.object].mean()) > 0
        invert = trained.polarity != 0 and lighter != (trained.polarity > 0)
        alpha = _softened(found.object)[..., np.newaxis]
        repairs = tuple(self._repairs(found, behind, lighter, invert, shape, in_page))
        background = np.array(trained.background, np.float32)
        for tone in (_relative_to_background, _relative_to_white):
            laid = background + alpha * (tone(pixels, behind, background, invert) - background)
            yield Proposal(self._framed(laid.astype(np.float32), found), repairs)

    def _framed(self, laid: Grid, found: Foreground) -> NDArray[np.uint8]:
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


def _relative_to_background(pixels: Grid, behind: Grid, background: Grid, invert: bool) -> Grid:
    """The object with its contrast to the background, as a share of what is possible; evens out the light."""
    darker = np.minimum(pixels - behind, 0) / np.maximum(behind, _DARKEST)
    lighter = np.maximum(pixels - behind, 0) / np.maximum(1 - behind, _DARKEST)
    contrast = (darker + lighter) * (-1 if invert else 1)
    laid: Grid = background + np.maximum(contrast, 0) * (1 - background) + np.minimum(contrast, 0) * background
    return laid


def _relative_to_white(pixels: Grid, behind: Grid, background: Grid, invert: bool) -> Grid:
    """The object with its own brightness, relative to the lightest part of the picture; evens out the light."""
    level = behind.mean(axis=(0, 1))
    even = pixels * (level / np.maximum(behind, _DARKEST)) if level.min() > 4 * _DARKEST else pixels
    white = np.maximum(np.quantile(even, 0.995, axis=(0, 1)), 4 * _DARKEST)
    laid: Grid = np.clip(even / white, 0, 1)
    return 1 - laid if invert else laid


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
