"""The size, proportions, colours and scale of pixels that a model takes: the user's choice, or what suits the pictures.

This module knows the facts about pictures (`picture_facts.FACTS`), not where they come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import CARRIES_COLOUR, TRANSPARENT
from hangtag.errors import DataError
from hangtag.levels import FAINT, Levels, agreed, alone, levels_of, range_in_words
from hangtag.pictures import Change, Images, ImageSpec
from hangtag.words import amount, listed

__all__ = [
    "FEW",
    "Size",
    "check_levels",
    "choose_spec",
    "dark",
    "deep",
    "why_pretrained",
    "with_background",
]

FEW = 2000
"""Fewer pictures than this suit pretrained features better than a network that is trained from nothing."""

_LARGEST_KEPT = 96  # pixels; sets of one size up to this keep it
_SIDES = (96, 64, 48, 32)
_PIXELS = 50_000_000  # of a whole set, by which the side is chosen: 5,000 pictures at 96, 20,000 at 48
_PHOTO_SIDE = 64  # pixels; the median photograph is larger
_PHOTO_PIXELS = 1_000_000_000  # of a whole set at the side of photographs: 20,000 at 224, which take 3 GB
_SAME_ASPECT = 1.1  # proportions that differ by less may be squashed
_MOST_DARK = 0.05  # of floating-point images whose values all become about one grey level
_OTHER_SCALE = 12  # factor between the brightest pixels of two parts; a scale of 4 bits more is 16 times as long
_ONE_SCALE = "save all images in one way, for example with 8 bits"
_KINDS = {False: "whole numbers", True: "floating-point numbers"}
_SHORTEST, _LONGEST = 8, 1024  # pixels of a side


@dataclass(frozen=True)
class Size:
    """The size and colours that the user chose; None where nothing was chosen.

    Attributes:
        photo_side: the side that suits a pretrained network, for sets that suit one; None: no set does.
        photos: whether the set suits one; None: if the pictures are photographs, or few.
    """

    spec: ImageSpec | None = None
    side: tuple[int, int] | None = None  # height, width
    fit: str | None = None
    colour: bool | None = None
    photo_side: int | None = None
    photos: bool | None = None

    def options(self) -> dict[str, str | None]:
        """The single options that were given, by their names on the command line."""
        size = None
        if self.side is not None:
            height, width = self.side
            size = str(height) if height == width else f"{height}x{width}"
        colour = {} if self.colour is None else {"colour" if self.colour else "grey": ""}
        return {"size": size, "fit": self.fit, **colour}


def choose_spec(facts: NDArray[Any], count: int, size: Size = Size()) -> ImageSpec:
    """The size and colours a model should take, from the pictures themselves.

    If all pictures have one size, and no side is longer than 96 pixels, that size is kept. Otherwise the side is the
    largest of 96, 64, 48 and 32 pixels at which all pictures together have at most 50 million pixels, and never larger
    than that of the median picture. Sets that suit a pretrained network (`Size.photo_side`) become
    squares of the side it takes, or of a smaller one if all pictures would take more than 3 GB. Pictures of similar
    proportions keep them; others become squares with filled margins. Colour is dropped only if no picture shows any.
    Pixels of more than 8 bits get one scale.

    Args:
        facts: (M,) of `picture_facts.FACTS`, of some pictures or all.
        count: the number of all pictures.
        size: the user's choices, which come first.
    """
    return _with_levels(size.spec or _choose_size(facts, count, size), facts, size.spec is not None)


def _choose_size(facts: NDArray[Any], count: int, size: Size) -> ImageSpec:
    heights, widths, flags = facts["height"].astype(float), facts["width"].astype(float), facts["flags"]
    colour = size.colour if size.colour is not None else bool((flags & CARRIES_COLOUR).any())
    transparent = bool((flags & TRANSPARENT).any())
    aspect = float(np.median(widths / heights))
    alike = np.maximum(widths / heights / aspect, aspect * heights / widths) < _SAME_ASPECT
    fit = size.fit or ("squash" if alike.mean() > 0.9 else "pad")
    photo_side = _photo_side(facts, count, size)
    if size.side is not None:
        height, width = size.side
    elif np.ptp(heights) == 0 and np.ptp(widths) == 0 and max(heights[0], widths[0]) <= _LARGEST_KEPT:
        height, width = int(heights[0]), int(widths[0])
    elif photo_side is not None:
        height = width = photo_side
        fit = size.fit or ("squash" if alike.mean() > 0.9 and 1 / 1.6 < aspect < 1.6 else "pad")
    else:
        most = next((side for side in _SIDES if count * side * side <= _PIXELS), _SIDES[-1])
        side = min(most, max(8, float(np.median(np.minimum(heights, widths)))))
        if alike.mean() <= 0.9:
            height = width = round(side)
        elif 1 / 3 < aspect < 3:
            height, width = (max(8, round(side * factor)) for factor in (aspect**-0.5, aspect**0.5))
        else:  # strips: of their shorter side, too little would be left
            area = min(most * most, float(np.median(heights * widths)))
            height, width = (
                min(_LONGEST, max(_SHORTEST, round(float(np.sqrt(area * factor))))) for factor in (1 / aspect, aspect)
            )
            if size.fit is None and not 1 / _SAME_ASPECT < width / height / aspect < _SAME_ASPECT:
                fit = "pad"
    return ImageSpec(height, width, 3 if colour else 1, 255 if transparent or fit == "pad" else 0, fit)


def _photo_side(facts: NDArray[Any], count: int, size: Size) -> int | None:
    """The side for a pretrained network; None if the pictures do not suit one, are smaller, or too many."""
    if size.photo_side is None or not (why_pretrained(facts, count) if size.photos is None else size.photos):
        return None
    if np.median(np.minimum(facts["height"], facts["width"])) <= _LARGEST_KEPT:
        return None
    sides = range(size.photo_side, _LARGEST_KEPT, -32)
    return next((side for side in sides if count * side * side <= _PHOTO_PIXELS), None)


def why_pretrained(facts: NDArray[Any], count: int) -> str:
    """Why a pretrained network suits pictures better than one that is trained from nothing; "" if it does not.

    It suits photographs: colour pictures larger than 64 pixels. It suits fewer than 2,000 pictures that are larger or
    in colour. It does not suit small grey ones: on 300 of them, it was 6 points worse (digits) or equal (clothes).

    Args:
        facts: (M,) of `picture_facts.FACTS`, of some pictures or all.
        count: the number of all pictures.
    """
    in_colour = (facts["flags"] & CARRIES_COLOUR > 0).mean() > 0.5
    is_large = np.median(np.minimum(facts["height"], facts["width"])) > _PHOTO_SIDE
    if is_large and in_colour:
        return f"they are in colour and larger than {_PHOTO_SIDE} pixels, as photos are"
    return f"there are fewer than {FEW:,}" if count < FEW and (is_large or in_colour) else ""


def with_background(spec: ImageSpec, images: Images, order: NDArray[np.int64], facts: NDArray[Any]) -> ImageSpec:
    """The spec with the background seen at the borders of the images, unless a background was used to make them.

    Args:
        order: (N,) the order in which a sample of the images is drawn.
        facts: (N,) of `picture_facts.FACTS`.
    """
    if spec.fit == "pad" or (facts["flags"] & TRANSPARENT).any():
        return spec
    sample = images[np.sort(order[:: max(1, len(order) // 500)])]
    return replace(spec, background=ImageSpec.of(sample).background)


def deep(facts: NDArray[Any], is_float: bool) -> NDArray[np.bool_]:
    """(N,) whether a picture has whole numbers of more than 8 bits, or floats."""
    flags = facts["flags"]
    return np.asarray((flags & int(Change.DEEP) > 0) & ((flags & int(Change.FLOAT) > 0) == is_float))


def dark(values: NDArray[np.float32], levels: Levels) -> NDArray[np.bool_]:
    """(M,) whether a picture uses less than one of 256 grey levels, but is not of a single value."""
    span = values[:, 1] - values[:, 0]
    return np.asarray((span > 0) & (span < (levels.white - levels.black) * FAINT))


def check_levels(
    facts: NDArray[Any],
    spec: ImageSpec,
    size: Size,
    where: str,
    parts: Mapping[str, NDArray[Any]] = MappingProxyType({}),
) -> None:
    """Check that all pictures have one scale: that of the model whose spec was given, or their own.

    Args:
        facts: (N,) of all pictures.
        spec: the result of `choose_spec`.
        where: the name of the data for the message.
        parts: the facts of each part.

    Raises:
        DataError: the scales differ, so that equal pixels would not look equal.
    """
    said, usual = [], True
    for is_float, kind in _KINDS.items():
        values, levels = facts["values"][deep(facts, is_float)], spec.levels(is_float)[0]
        if not len(values) or levels is None:
            continue
        has = range_in_words(values[:, 0].min(), values[:, 1].max())
        said.append(f"{amount(len(values), 'image')} with {kind} from {has}")
        usual &= levels.is_usual
        if size.spec is not None and _agreed(size.spec, facts, is_float) is None:
            known = next((each for each in size.spec.levels(is_float) if each is not None), None)
            trained = "0 to 255" if known is None else range_in_words(known.low, known.high)
            raise DataError(
                f"{where}: pixel values range from {has}; those of the model's training images range from {trained}",
                "bring them to the scale of the training images",
            )
        if is_float and dark(values, levels).mean() > _MOST_DARK:
            few = f"{dark(values, levels).sum():,} of {len(values):,} images"
            raise DataError(
                f"{where}: {few} have values on a much smaller scale than the others; all range from {has}", _ONE_SCALE
            )
        ends = {
            name: np.median(of["values"][deep(of, is_float), 3])
            for name, of in parts.items()
            if deep(of, is_float).any()
        }
        brightest, darkest = max(ends, key=ends.__getitem__, default=""), min(ends, key=ends.__getitem__, default="")
        if ends and ends[brightest] - levels.black > _OTHER_SCALE * max(ends[darkest] - levels.black, 0):
            raise DataError(
                f"{where}: the brightest pixels of a typical image are {ends[brightest]:,g} in {brightest} and "
                f"{ends[darkest]:,g} in {darkest}, so these parts have different scales",
                _ONE_SCALE,
            )
    if eight := len(facts) - sum(int(deep(facts, is_float).sum()) for is_float in _KINDS):
        said.append(f"{amount(eight, 'image')} with 8 bits")
    if len(said) > 1 and not usual and size.spec is None:
        raise DataError(f"{where}: images have different scales of pixel values: {listed(said)}", _ONE_SCALE)


def _with_levels(spec: ImageSpec, facts: NDArray[Any], given: bool) -> ImageSpec:
    """The spec with scales for the pixels of more than 8 bits: those it has, if they suit, or those of the pictures."""
    result = spec
    for is_float in _KINDS:
        which = deep(facts, is_float)
        if which.any():
            levels = _agreed(spec, facts, is_float) if given or not which.all() else None
            result = result.with_levels(levels or levels_of(facts["values"][which], is_float), is_float)
    return result


def _agreed(spec: ImageSpec, facts: NDArray[Any], is_float: bool) -> Levels | None:
    """The scale for pictures that are read beside others, or for a model; None if none is plausible."""
    values = facts["values"][deep(facts, is_float)]
    found = levels_of(values, is_float)
    low, high = float(values[:, 0].min()), float(values[:, 1].max())
    if found.has_outliers:
        low, high = found.black, found.white
    elif not found.is_usual:
        found = alone(low, high, is_float) or found
    return agreed(*spec.levels(is_float), found, low, high)
