"""What every page shares: the templates that render it, thumbnails as data URIs, charts as SVG coordinates."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from hangtag.pictures import encode_jpeg, encode_png
from hangtag.words import amount, interval, out_of_100, rate, setting_text, times

__all__ = [
    "MOST_CELLS", "Line", "Thumbnail", "chart", "confusion_cells", "curve", "data_uri", "heat_map", "is_light_on_black",
    "render", "round_ticks", "script", "thumbnail", "which_mistakes",
]  # fmt: skip

MOST_CELLS = 20
"""Classes up to which a confusion matrix is a table with numbers."""

_JPEG_QUALITY = 80
_BLACK = 16
"""The highest grey level of a border that counts as black."""
_RIGHT, _WRONG, _EMPTY = (22, 104, 176), (208, 58, 36), (246, 247, 249)  # red, green, blue


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hangtag"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters.update(
        count="{:,}".format, percent=lambda share: f"{out_of_100(share)}%", times=times, setting=setting_text
    )
    environment.globals.update(amount=amount, interval=interval, rate=rate, which_mistakes=which_mistakes)
    return environment


def render(template: str, values: Mapping[str, object]) -> str:
    """Fill in a template: one HTML file that loads nothing. Every value is escaped, so it is text and never markup."""
    return _environment().get_template(template).render(values)


def script(name: str) -> tuple[Markup, str]:
    """A script beside the templates, and the hash by which a page's content security policy permits it alone."""
    loader = _environment().loader
    assert loader is not None
    source = loader.get_source(_environment(), name)[0]
    digest = base64.b64encode(hashlib.sha256(source.encode("utf-8")).digest()).decode("ascii")
    return Markup(source), f"sha256-{digest}"


class Thumbnail(NamedTuple):
    """A small picture. `pixelated` pictures are enlarged without smoothing."""

    source: str
    pixelated: bool


def thumbnail(image: NDArray[np.uint8], side: int, invert: bool = False, as_jpeg: bool = False) -> Thumbnail:
    """A picture of at most about `side` pixels a side; `invert` swaps light and dark.

    Args:
        as_jpeg: takes a fifth of the space for photos; pictures that the page enlarges stay lossless.
    """
    step = -(-max(image.shape[:2]) // side)
    small = _shrunk(image, step) if step > 1 else image
    small = 255 - small if invert else small
    pixelated = max(small.shape[:2]) < side // 2
    if as_jpeg and not pixelated:
        return Thumbnail(data_uri(encode_jpeg(small, _JPEG_QUALITY), "jpeg"), pixelated)
    return Thumbnail(data_uri(encode_png(small)), pixelated)


def _shrunk(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The mean of each block of step x step pixels; blocks at the edges may be smaller."""
    rows, columns = np.arange(0, image.shape[0], step), np.arange(0, image.shape[1], step)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    means = sums / sizes.reshape(sizes.shape + (1,) * (image.ndim - 2))
    small: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return small


def data_uri(picture: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")


def is_light_on_black(images: Sequence[NDArray[np.uint8]] | NDArray[np.uint8]) -> bool:
    """Whether grey images show light things on black, which are easier to see inverted: the median of their borders."""
    borders = [np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]) for image in images if image.ndim == 2]
    return bool(borders) and float(np.median(np.concatenate(borders))) <= _BLACK


def which_mistakes(shown: int, total: int) -> str:
    if total == 1:
        return "The only mistake"
    return (
        f"All {total} mistakes, most confident first"
        if shown == total
        else f"The {shown} most confident of {total:,} mistakes"
    )


class Line(NamedTuple):
    """A line of a chart: `kind` ("training", "validation", "other" or "dots") decides its colour and markers."""

    kind: str
    legend: str
    points: Sequence[tuple[float, float]]


def chart(
    title: str, lines: Sequence[Line], x_ticks: Mapping[float, str], y_ticks: Mapping[float, str], x_label: str,
    diagonal: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """A line chart in a drawing that is 360 wide and 216 high.

    Args:
        x_ticks, y_ticks: labels of values; the outermost are the limits.
        diagonal: whether to draw the line x = y.
    """
    (left, right), (bottom, top) = ((min(ticks), max(ticks)) for ticks in (x_ticks, y_ticks))

    def across(x: float) -> float:
        return round(50 + 300 * (x - left) / (right - left), 1) if left < right else 200.0

    def down(y: float) -> float:
        return round(182 - 170 * (max(y, bottom) - bottom) / (top - bottom), 1)

    placed = [line._replace(points=[(across(x), down(y)) for x, y in line.points]) for line in lines]
    columns, rows = [(across(x), x_ticks[x]) for x in x_ticks], [(down(y), y_ticks[y]) for y in y_ticks]
    return {
        "title": title, "lines": placed, "x_ticks": columns, "y_ticks": rows, "x_label": x_label, "diagonal": diagonal,
    }  # fmt: skip


def curve(history: Sequence[Mapping[str, Any]], key: str, title: str, scale: int, unit: str) -> dict[str, Any] | None:
    """A chart of a number after each epoch, in training and, if there was one, in validation; None if it is unknown."""
    lines = []
    for kind, field in (("training", key), ("validation", f"val_{key}")):
        points = [(epoch["number"], scale * epoch[field]) for epoch in history if epoch.get(field) is not None]
        if points:
            lines.append(Line(kind, f"{kind}, last {points[-1][1]:.3g}{unit}", points))
    if not lines:
        return None
    values = [value for line in lines for _, value in line.points]
    first, last = history[0]["number"], history[-1]["number"]
    epochs = sorted({round(first + (last - first) * part / 4) for part in range(5)})
    ticks = {tick: f"{tick:g}{unit}" for tick in round_ticks(min(values), max(values))}
    return chart(title, lines, {number: str(number) for number in epochs}, ticks, "epoch")


def round_ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that enclose both."""
    span = max(high - low, 1e-3 * max(abs(high), 1e-3))
    size = 10.0 ** np.floor(np.log10(span / 4))
    step = size * min(factor for factor in (1, 2, 5, 10) if factor * size >= span / 4 * 0.999)
    bottom, top = np.floor(low / step), np.ceil(high / step)
    return [float(round(step * number, 10)) for number in range(int(bottom), int(max(top, bottom + 1)) + 1)]


def confusion_cells(confusion: NDArray[np.int64]) -> list[list[tuple[int, str, float]]]:
    """Rows of (count, CSS classes, depth of colour)."""
    depth, hits = _depths(confusion), np.eye(len(confusion), dtype=bool)
    kinds = np.where(confusion == 0, "none", np.where(hits, "hit", "miss") + np.where(depth > 0.55, " deep", ""))
    columns = (confusion.tolist(), kinds.tolist(), depth.round(2).tolist())
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def heat_map(confusion: NDArray[np.int64]) -> str:
    """The confusion matrix of many classes as a picture without numbers, in a data URI."""
    depth = np.where(confusion == 0, 0, _depths(confusion))[..., None]
    full = np.where(np.eye(len(confusion), dtype=bool)[..., None], _RIGHT, _WRONG)
    colours = np.rint(depth * full + (1 - depth) * np.array(_EMPTY)).astype(np.uint8)
    side = max(2, 480 // len(confusion))
    return data_uri(encode_png(colours.repeat(side, axis=0).repeat(side, axis=1)))


def _depths(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K, K) from 0 to 1: the share of each row; the root makes rare mistakes visible."""
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    hits = np.eye(len(share), dtype=bool)
    most = max(0.2, float(share[~hits].max(initial=0)))
    depths: NDArray[np.float64] = np.where(hits, 0.1 + 0.85 * share, 0.85 * np.sqrt(np.minimum(share / most, 1)))
    return depths
