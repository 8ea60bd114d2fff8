"""The size, proportions and colours that a model takes: the user's choice, or else what suits the pictures.

This module knows the facts about pictures (`picture_facts.FACTS`), not where they come from.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import CARRIES_COLOUR, TRANSPARENT
from hangtag.pictures import Images, ImageSpec

__all__ = ["Size", "choose_spec", "with_background"]

_LARGEST_KEPT = 96  # pixels; sets of one size up to this keep it
_SIDES = (96, 64, 48, 32)
_PIXELS = 50_000_000  # of a whole set, by which the side is chosen: 5,000 pictures at 96, 20,000 at 48
_SAME_ASPECT = 1.1  # proportions that differ by less may be squashed


@dataclass(frozen=True)
class Size:
    """The size and colours that the user chose; None where nothing was chosen."""

    spec: ImageSpec | None = None
    side: tuple[int, int] | None = None  # height, width
    fit: str | None = None
    colour: bool | None = None

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
    than that of the median picture. Pictures of similar proportions keep them; others become squares with filled
    margins.

    Args:
        facts: (M,) of `picture_facts.FACTS`, of some pictures or all.
        count: the number of all pictures.
        size: the user's choices, which come first.
    """
    if size.spec is not None:
        return size.spec
    heights, widths, flags = facts["height"].astype(float), facts["width"].astype(float), facts["flags"]
    colour = size.colour if size.colour is not None else bool((flags & CARRIES_COLOUR > 0).mean() > 0.01)
    transparent = bool((flags & TRANSPARENT).any())
    aspect = float(np.median(widths / heights))
    alike = np.maximum(widths / heights / aspect, aspect * heights / widths) < _SAME_ASPECT
    fit = size.fit or ("squash" if alike.mean() > 0.9 else "pad")
    if size.side is not None:
        height, width = size.side
    elif np.ptp(heights) == 0 and np.ptp(widths) == 0 and max(heights[0], widths[0]) <= _LARGEST_KEPT:
        height, width = int(heights[0]), int(widths[0])
    else:
        most = next((side for side in _SIDES if count * side * side <= _PIXELS), _SIDES[-1])
        side = min(most, max(8, float(np.median(np.minimum(heights, widths)))))
        if alike.mean() > 0.9 and 1 / 3 < aspect < 3:
            height, width = (max(8, round(side * factor)) for factor in (aspect**-0.5, aspect**0.5))
        else:
            height = width = round(side)
    return ImageSpec(height, width, 3 if colour else 1, 255 if transparent or fit == "pad" else 0, fit)


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
