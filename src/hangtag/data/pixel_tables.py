"""Tables whose cells are pixels -> images: a column for each pixel (`pixel0`, `1x1`), or all pixels in one text."""

import contextlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.folder_layout import Choose
from hangtag.errors import DataError

__all__ = ["PIXELS", "images_of_rows", "numbers_in", "picture_of", "pixel_columns", "pixel_texts", "pixels_in"]

PIXELS = "pixels"
"""The name of the column that replaces a column for each pixel."""

_FEWEST = 49  # pixels; fewer numbered columns are taken for something else
_COMPARED = 500  # images by which the order of colours is found
_CLEARLY = 0.8  # neighbouring values differ by this share of what they differ by in the other order
_DIGITS = {str(value): value for value in range(256)}
_TEXT = re.compile(r"[\s\[(]*\d+(?:\.0*)?(?:[\s,;]+\d+(?:\.0*)?)+[\s\])]*")


def pixel_columns(names: Sequence[str]) -> tuple[int, int] | None:
    """The first of the columns of pixels and the one after the last; None if there are none.

    They are next to each other and numbered: pixel0 to pixel783, px_1 to px_64, 0 to 783, or 1x1 to 28x28.

    >>> pixel_columns(["label", *(f"pixel{number}" for number in range(784))])
    (1, 785)
    """
    first = best = 0
    longest = 0
    for place, name in enumerate(names):
        if not place or not _follows(names[place - 1], name):
            first = place
        if place + 1 - first > longest:
            best, longest = first, place + 1 - first
    return (best, best + longest) if longest >= _FEWEST and _numbers(names[best])[1] <= 1 else None


def pixels_in(cells: Sequence[Any], where: str, row: int) -> NDArray[np.uint8]:
    """(D,) the pixels of one row.

    Raises:
        DataError: a cell is not a whole number from 0 to 255.
    """
    with contextlib.suppress(KeyError, TypeError):  # the usual case, ten times as fast
        return np.frombuffer(bytes(map(_DIGITS.__getitem__, cells)), np.uint8)
    try:
        pixels = np.array(cells, np.float64)
    except (TypeError, ValueError):
        pixels = np.array([np.nan])
    whole = pixels.astype(np.uint8, casting="unsafe") if np.isfinite(pixels).all() else np.zeros(1, np.uint8)
    if not np.array_equal(whole, pixels):
        raise DataError(
            f"{where}: row {row}: pixels must be whole numbers from 0 to 255",
            "scale the pixels to 0 to 255, and fill or remove incomplete rows",
        )
    return whole


def images_of_rows(rows: NDArray[np.uint8], where: str, choose: Choose) -> tuple[NDArray[np.uint8], str]:
    """Square images of rows of pixels, and a note on how the pixels were arranged.

    Args:
        rows: (N, D) uint8; D is side x side, or side x side x 3.

    Returns:
        (N, side, side) or (N, side, side, 3) uint8, and a sentence.

    Raises:
        DataError: the pixels make no square.
        UsageError: the order of colours is unclear, and `choose` cannot decide.
    """
    count = rows.shape[1]
    side = int(np.sqrt(count) + 0.5)
    if side * side == count:
        return rows.reshape(-1, side, side), f"{count:,} pixels for each image were read as {side}x{side} grey"
    side = int(np.sqrt(count / 3) + 0.5)
    if 3 * side * side != count:
        raise DataError(f"{where}: {count:,} pixels for each image do not make a square", "give the images as files")
    mixed = rows.reshape(-1, side, side, 3)
    planes = rows.reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    rough = [_roughness(way[:_COMPARED]) for way in (mixed, planes)]
    if min(rough) <= _CLEARLY * max(rough):
        answer = "mixed" if rough[0] < rough[1] else "planes"
    else:
        answer = choose(
            f"{where}: in which order are the colours of the {count:,} pixels? (give the images as files to be sure)",
            [("mixed", "red, green and blue of each pixel"), ("planes", "all of red, then green, then blue")],
        )
    order = "each pixel's colours together" if answer == "mixed" else "one colour after the other"
    note = f"{count:,} numbers for each image were read as {side}x{side} colour, {order}"
    return np.ascontiguousarray(mixed if answer == "mixed" else planes), note


def picture_of(image: NDArray[np.uint8]) -> bytes:
    """A uint8 (H, W) or (H, W, 3) array as the bytes of a PGM or PPM file, which is not compressed."""
    kind = 5 if image.ndim == 2 else 6
    return b"P%d %d %d 255\n" % (kind, image.shape[1], image.shape[0]) + image.tobytes()


def pixel_texts(values: Sequence[Any]) -> bool:
    """Whether texts or lists hold the pixels of an image each, as in "70 80 82 ..."."""
    few = [value for value in values[:20] if value is not None]
    return bool(few) and all(numbers_in(value) is not None for value in few)


def numbers_in(value: Any) -> list[str] | list[int] | None:
    """The numbers of a text or list of at least 49; None if it holds anything else."""
    if isinstance(value, str) and len(value) >= 2 * _FEWEST - 1 and _TEXT.fullmatch(value):
        found = re.split(r"[\s,;]+", value.strip(" \t\r\n[]()"))
        return found if len(found) >= _FEWEST else None
    if isinstance(value, (list, tuple)) and len(value) >= _FEWEST and all(isinstance(each, int) for each in value):
        return list(value)
    return None


def _roughness(images: NDArray[np.uint8]) -> float:
    """The mean difference between pixels next to each other."""
    values = images.astype(np.int16)
    return float(np.abs(np.diff(values, axis=1)).mean() + np.abs(np.diff(values, axis=2)).mean())


def _numbers(name: str) -> tuple[str, int, int | None]:
    """What a name begins with, and the number or the two numbers at its end."""
    if pair := re.fullmatch(r"(\d{1,6})x(\d{1,6})", name):
        return "x", int(pair[2]), int(pair[1])
    if one := re.fullmatch(r"(.*?)(\d{1,9})", name):
        return one[1], int(one[2]), None
    return name, -1, None


def _follows(before: str, name: str) -> bool:
    start, number, line = _numbers(name)
    start_before, number_before, line_before = _numbers(before)
    if start != start_before or number < 0 or number_before < 0:
        return False
    if line is None or line_before is None:
        return line is None and line_before is None and number == number_before + 1
    same_line = line == line_before and number == number_before + 1
    return same_line or (line == line_before + 1 and number <= 1)
