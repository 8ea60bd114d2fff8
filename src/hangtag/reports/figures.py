"""Arrays -> matplotlib figures, including the six of the classic lesson.

This module computes no probabilities, opens no data and keeps no state: it uses no pyplot, and no style outlives a
call. Correct is blue and wrong is red; marks and wording say the same to readers who cannot see the difference.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import MissingExtra, UsageError
from hangtag.files import mark_loose, write_bytes
from hangtag.html import is_light_on_black, which_mistakes
from hangtag.words import amount, in_percent

try:
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator, PercentFormatter
except ImportError as missing:
    raise MissingExtra.named("train", "matplotlib") from missing

__all__ = [
    "ReportFigure", "answer", "answers", "confusion", "curves", "image_grid", "lesson", "mistakes", "one_image",
    "probability_bars", "save", "show_image",
]  # fmt: skip

Pixels: TypeAlias = "Sequence[NDArray[Any]] | NDArray[Any]"
"""(N, H, W) or (N, H, W, 3), or images of several sizes one after another; uint8, or floats from 0 to 1."""

Labels: TypeAlias = "Sequence[int] | NDArray[np.integer[Any]]"

# Correct, wrong and validation; colour-blind readers can tell them apart.
BLUE, RED, ORANGE = "#1668b0", "#c8321f", "#b86a00"
INK, FAINT, GREY, HAIRLINE = "#1d232b", "#5f6873", "#aab0b8", "#d5d9de"
DOTS_PER_INCH = 150

_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")
_STYLE: Mapping[str, Any] = {
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), FAINT),
    **dict.fromkeys(("axes.titlecolor", "text.color"), INK),
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "hatch.color"), "white"),
    **dict.fromkeys(("figure.constrained_layout.h_pad", "figure.constrained_layout.w_pad"), 0.15),
    **dict.fromkeys(("axes.spines.right", "axes.spines.top", "legend.frameon"), False),
    **dict.fromkeys(("font.size", "axes.labelsize"), 10),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 9),
    **{"axes.axisbelow": True, "axes.linewidth": 0.8, "axes.titlesize": 11},
    **{"grid.color": HAIRLINE, "grid.linewidth": 0.6, "hatch.linewidth": 1.2, "savefig.bbox": None},
    "text.parse_math": False,  # a class may be called "$5 bill or $10 bill"
}
_MOST_PIXELS = 600  # a side; a grid shows no more
_LEFT, _RIGHT, _TOP = 0.7, 0.3, 1.08  # the room around bars that stand 1 apart and are up to 1 high
_EACH_INDEX, _EACH_NAME, _EACH_COUNT = 12, 40, 20  # the most classes for which each is labelled


class ReportFigure(Figure):
    """A matplotlib figure that keeps its style while it is drawn and that notebooks display."""

    def draw(self, renderer: Any) -> None:
        with _style():
            super().draw(renderer)

    def png(self, dots_per_inch: int = DOTS_PER_INCH) -> bytes:
        """The bytes of a PNG file."""
        buffer, before = io.BytesIO(), self.dpi
        self.dpi = dots_per_inch
        try:  # `savefig` would draw a figure with a layout twice
            FigureCanvasAgg(self).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
        finally:
            self.dpi = before
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()


@contextmanager
def _style() -> Iterator[None]:
    style: dict[Any, Any] = {**_STYLE, "font.family": _fonts()}
    with matplotlib.rc_context(style):
        yield


@_style()
def one_image(image: NDArray[Any], title: str = "") -> ReportFigure:
    """The lesson's first figure: one image with pixel positions; grey values from 0 to 255 are shown as colours."""
    pixels = _pixels(image)
    figure = ReportFigure(figsize=(5.6, 4.6), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(pixels, cmap="viridis", vmin=0, vmax=255, interpolation=_interpolation(pixels))
    axes.spines[:].set_visible(True)
    axes.locator_params(nbins=8, integer=True)
    axes.set_title(_name(title, 50), pad=10)
    if pixels.ndim == 2:
        bar = figure.colorbar(shown, ax=axes, ticks=[0, 50, 100, 150, 200, 255], shrink=0.9, pad=0.03)
        bar.outline.set_visible(False)
    else:
        axes.set_xlabel(f"{pixels.shape[1]}x{pixels.shape[0]} pixels; red, green and blue from 0 to 255")
    return figure


@_style()
def image_grid(
    images: Pixels, labels: Labels, class_names: Sequence[str], rows: int = 5, columns: int = 5
) -> ReportFigure:
    """The lesson's second figure: the first images, each with the name of its class below."""
    _check(images, labels, class_names)
    shown, rows, columns = _fit(len(images), rows, columns)
    some = _pictured([images[index] for index in range(shown)])
    side, across, down, margin = 1.3, 1.6, 1.78, 0.2
    sheet = _Sheet(margin * 2 + columns * across, margin * 2 + rows * down - 0.05)
    for index, pixels in enumerate(some):
        row, column = divmod(index, columns)
        left = margin + column * across + (across - side) / 2
        bottom = sheet.image(left, margin + row * down, side, pixels)
        name = _two_lines(class_names[int(labels[index])], 20)
        sheet.text(left + side / 2, bottom + 5 / 72, name, ha="center", color=INK, fontsize=9)
    return sheet.figure


@_style()
def answer(image: NDArray[Any], probabilities: NDArray[Any], label: int, class_names: Sequence[str]) -> ReportFigure:
    """The lesson's third and fourth figure: the answer for one image next to all K probabilities.

    Args:
        image: (H, W) or (H, W, 3).
        probabilities: (K,).
        label: index of the true class.
        class_names: (K,) names.
    """
    probabilities = np.asarray(probabilities)
    _check([image], [label], class_names, probabilities[None])
    sheet = _Sheet(6.6, 3.5)
    sheet.image(0.3, 0.6, 2.5, _pictured([image])[0])
    _verdict(sheet, 0.3, 0.6, probabilities, label, class_names, 12)
    place = sheet.bars(3.2, 0.6, 3.1, 2.5, probabilities, label, 9)
    _values(sheet.axes, place, probabilities, _highlighted(probabilities, label), 10)
    return sheet.figure


@_style()
def answers(
    images: Pixels, probabilities: NDArray[Any], labels: Labels, class_names: Sequence[str], rows: int = 5,
    columns: int = 3,
) -> ReportFigure:  # fmt: skip
    """The lesson's fifth figure: the first images, each next to its probabilities."""
    probabilities = np.asarray(probabilities)
    _check(images, labels, class_names, probabilities)
    shown, rows, columns = _fit(len(images), rows, columns)
    some = _pictured([images[index] for index in range(shown)])
    side, across, down, margin = 1.3, 3.4, 1.9, 0.25
    sheet = _Sheet(margin + columns * across, margin + rows * down)
    for index, pixels in enumerate(some):
        row, column = divmod(index, columns)
        left, top = margin + column * across, margin + row * down + 0.25
        sheet.image(left, top, side, pixels)
        _verdict(sheet, left, top, probabilities[index], int(labels[index]), class_names, 9.5)
        sheet.bars(left + side + 0.18, top, side + 0.35, side, probabilities[index], int(labels[index]), 7)
    return sheet.figure


@_style()
def probability_bars(probabilities: NDArray[Any], class_names: Sequence[str], label: int | None = None) -> ReportFigure:
    """The lesson's sixth figure: the (K,) probabilities of one image by class name; `label` is its class, if known."""
    probabilities = np.asarray(probabilities)
    if probabilities.shape != (len(class_names),):
        raise UsageError(
            f"probabilities must have shape ({len(class_names)},), one for each class name, got {probabilities.shape}",
            "pass the probabilities of one image",
        )
    count = len(class_names)
    width = max(5.0, 1.6 + (0.56 if count <= _EACH_COUNT else 0.3) * count) if count <= _EACH_NAME else 9.0
    figure = ReportFigure(figsize=(width, 4.4), layout="constrained")
    axes = figure.add_subplot()
    place = _Place(0, 0, 1, 1)
    _bars(axes, place, probabilities, label)
    axes.set_ylim(0, _TOP)
    axes.set_xlim(-_LEFT, count - _RIGHT)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=2 if count > _EACH_NAME else 0)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("probability")
    axes.grid(axis="y")
    if count <= _EACH_NAME:
        names = [_name(name, 24) for name in class_names]
        axes.set_xticks(range(count), names, rotation=45, ha="right", rotation_mode="anchor", color=INK)
        _values(axes, place, probabilities, set(np.flatnonzero(probabilities >= 0.005)), 8)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("class number")
    return figure


class _Epoch(Protocol):
    """A `training.engine.loop.Epoch`, which reports must not import."""

    def to_json(self) -> dict[str, Any]: ...


@_style()
def curves(history: Sequence["Mapping[str, Any] | _Epoch"]) -> ReportFigure:
    """Loss and accuracy after each epoch, for training and, if there is one, for validation.

    Args:
        history: each epoch, as an `Epoch` or as its `to_json()`.
    """
    tables = [epoch if isinstance(epoch, Mapping) else epoch.to_json() for epoch in history]
    finished = [epoch for epoch in tables if epoch.get("finished", True)]
    if not finished:
        raise UsageError("history must contain at least one finished epoch", "train for at least one epoch")
    figure = ReportFigure(figsize=(9.6, 3.9), layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr,call-arg]
    loss, accuracy = figure.subplots(1, 2)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes, key, form, title, corner in (
        (loss, "loss", "{:.3f}", "Loss (lower is better)", "upper right"),
        (accuracy, "accuracy", "{:.1%}", "Accuracy (higher is better)", "lower right"),
    ):
        _curve(axes, finished, key, "training", form)
        _curve(axes, finished, f"val_{key}", "validation", form)
        axes.set_title(title, loc="left", pad=10)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
        axes.set_xlim(finished[0]["number"] - 0.4, finished[-1]["number"] + 0.4)
        axes.margins(y=0.1)
        axes.grid(axis="y")
        axes.legend(labelcolor=INK, fontsize=9, loc=corner)
    return figure


@_style()
def confusion(matrix: Sequence[Sequence[int]] | NDArray[Any], class_names: Sequence[str]) -> ReportFigure:
    """True classes (rows) against predicted ones (columns): blue is correct, red is wrong, darker a larger share.

    Args:
        matrix: (K, K) counts, rows by true class.
        class_names: (K,) names.
    """
    counts = np.asarray(matrix)
    number = len(class_names)
    if counts.shape != (number, number) or not number:
        raise UsageError(
            f"a confusion matrix of {number} classes must have shape ({number}, {number}), got {counts.shape}",
            "pass K rows of K counts for K >= 1 class names",
        )
    side = 2.4 + (0.56 * number if number <= _EACH_COUNT else min(9.0, max(5.6, 0.24 * number)))
    figure = ReportFigure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(_confusion_colours(share), interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class", labelpad=8)
    axes.set_ylabel("true class", labelpad=8)
    if number <= _EACH_NAME:
        _confusion_names(axes, [_name(name, 22) for name in class_names])
    else:
        axes.locator_params(nbins=10, integer=True)
    if number <= _EACH_COUNT:
        _confusion_counts(axes, counts, share)
    return figure


@_style()
def mistakes(
    images: Pixels, probabilities: NDArray[Any], labels: Labels, class_names: Sequence[str], count: int = 12
) -> ReportFigure:
    """The most confident mistakes, or a sentence if there are none."""
    probabilities = np.asarray(probabilities)
    _check(images, labels, class_names, probabilities)
    if count < 1:
        raise UsageError(f"count must be at least 1, got {count}", "pass the number of mistakes to show")
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != np.asarray(labels))
    if not len(wrong):
        return _sentence(f"No mistakes on {amount(len(labels), 'image')}")
    worst = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][:count]
    some = _pictured([images[index] for index in worst])
    columns = min(6, max(4, len(worst)))
    rows = -(-len(worst) // columns)
    side, across, down, margin, head = 1.45, 1.78, 2.12, 0.2, 0.45
    sheet = _Sheet(margin * 2 + columns * across, head + margin * 2 + rows * down - 0.05)
    sheet.text(margin + (across - side) / 2, 0.2, which_mistakes(len(worst), len(wrong)), fontsize=11)
    for position, (index, pixels) in enumerate(zip(worst, some, strict=True)):
        row, column = divmod(position, columns)
        left, top = margin + column * across + (across - side) / 2, head + margin + row * down
        sheet.image(left, top, side, pixels)
        answer, true = class_names[predicted[index]], class_names[int(labels[index])]
        confidence = in_percent(float(probabilities[index, predicted[index]]))
        sheet.text(left, top + side + 0.07, f"✗ {_name(answer, 14)} {confidence}", color=RED, fontsize=9)
        sheet.text(left, top + side + 0.26, f"true: {_name(true, 15)}", color=BLUE, fontsize=9)
    return sheet.figure


def lesson(
    train_images: Pixels, train_labels: Labels, test_images: Pixels, test_labels: Labels, probabilities: NDArray[Any],
    class_names: Sequence[str],
) -> dict[str, ReportFigure]:  # fmt: skip
    """The lesson's six figures by file name without its ending; fewer if there are fewer than 13 test images."""
    _check(train_images, train_labels, class_names)
    _check(test_images, test_labels, class_names, np.asarray(probabilities))
    pictures = {
        "1-one-image": one_image(train_images[0], class_names[int(train_labels[0])]),
        "2-grid": image_grid(train_images[:25], train_labels[:25], class_names),
    }
    for number, index in ((3, 0), (4, 12)):
        if index < len(test_images):
            row, label = probabilities[index], int(test_labels[index])
            pictures[f"{number}-answer-{index}"] = answer(test_images[index], row, label, class_names)
    pictures["5-answers"] = answers(test_images[:15], probabilities[:15], test_labels[:15], class_names)
    index = min(1, len(test_images) - 1)
    pictures["6-bars"] = probability_bars(probabilities[index], class_names, int(test_labels[index]))
    return pictures


def save(figure: ReportFigure, path: str | Path) -> None:
    """Write a figure as a PNG file, whole or not at all.

    Raises:
        SaveError: it cannot be written.
    """
    write_bytes(Path(path), figure.png())
    mark_loose(Path(path))


class _Place(NamedTuple):
    """Where bars stand: class k at `x + k * across`, and a probability p from `y` to `y + p * up`."""

    x: float
    y: float
    across: float
    up: float


class _Sheet:
    """A figure measured in inches from its top left corner, drawn on one axes: each further one would take 10 ms."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = ReportFigure(figsize=(width, height))
        self.axes = self.figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
        self.axes.set_axis_off()

    def image(self, left: float, top: float, side: float, pixels: NDArray[np.uint8]) -> float:
        """Draw an image with a thin frame in the middle of a square; returns where it ends below."""
        height, width = (side * length / max(pixels.shape[:2]) for length in pixels.shape[:2])
        left, top = left + (side - width) / 2, top + (side - height) / 2
        extent = (left, left + width, top + height, top)
        self.axes.imshow(pixels, extent=extent, aspect="auto", interpolation=_interpolation(pixels))
        self.axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=HAIRLINE, linewidth=0.8))
        return float(top + height)

    def text(self, left: float, top: float, text: str, **settings: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, **{"va": "top", **settings})

    def bars(
        self, left: float, top: float, width: float, height: float, probabilities: NDArray[Any], label: int,
        size: float,
    ) -> _Place:  # fmt: skip
        """Draw bars above a line, with the numbers of some classes below it."""
        count, bottom = len(probabilities), top + height
        across = width / (count + _LEFT - _RIGHT)
        place = _Place(left + _LEFT * across, bottom, across, -height / _TOP)
        _bars(self.axes, place, probabilities, label)
        self.axes.hlines(bottom, left, left + width, color=GREY, linewidth=0.8)
        length = 2 / 72 if count > _EACH_NAME else 0.0
        numbers = range(count) if count <= _EACH_INDEX else MaxNLocator(6, integer=True).tick_values(0, count - 1)
        for number in (int(each) for each in numbers if 0 <= each < count):
            x = place.x + number * across
            if length:
                self.axes.vlines(x, bottom, bottom + length, color=GREY, linewidth=0.8)
            self.text(x, bottom + length + 3.5 / 72, str(number), ha="center", color=FAINT, fontsize=size)
        return place


def _check(
    images: Pixels, labels: Labels, class_names: Sequence[str], probabilities: NDArray[Any] | None = None
) -> None:
    if len(images) != len(labels):
        raise UsageError(
            f"images and labels must match, got {len(images):,} and {len(labels):,}", "pass one label for each image"
        )
    if not len(images):
        raise UsageError("no images to show", "pass at least one image")
    if np.min(labels) < 0 or np.max(labels) >= len(class_names):
        raise UsageError(
            f"labels must be from 0 to {len(class_names) - 1}, got {np.min(labels)} to {np.max(labels)}",
            "labels are positions in class_names, counted from 0",
        )
    if probabilities is not None and probabilities.shape != (len(images), len(class_names)):
        raise UsageError(
            f"probabilities must have shape ({len(images)}, {len(class_names)}), got {probabilities.shape}",
            "pass one row for each image and one column for each class",
        )


def _fit(available: int, rows: int, columns: int) -> tuple[int, int, int]:
    """How many images to show, in how many rows and columns, leaving out empty ones."""
    if rows < 1 or columns < 1:
        raise UsageError(f"rows and columns must be at least 1, got {rows} and {columns}", "pass larger numbers")
    shown = min(available, rows * columns)
    return shown, -(-shown // columns), min(columns, shown)


def _pixels(image: Any, most: int | None = None) -> NDArray[np.uint8]:
    """One image as uint8 (H, W) or (H, W, 3), thinned out to at most about `most` pixels a side."""
    array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise UsageError(f"an image must have shape (H, W) or (H, W, 3), got {array.shape}", "pass one image")
    step = max(1, -(-max(array.shape[:2]) // most)) if most else 1
    array = array[::step, ::step]
    if array.dtype.kind == "f" and array.max() <= 1:
        array = np.rint(array * 255)
    pixels: NDArray[np.uint8] = np.clip(array, 0, 255).astype(np.uint8)
    return pixels


def _pictured(images: Sequence[Any]) -> list[NDArray[np.uint8]]:
    """Images for a grid, each (H, W, 3): light on black is shown as black on white, as in the lesson."""
    some = [_pixels(image, _MOST_PIXELS) for image in images]
    if is_light_on_black(some):
        some = [255 - pixels if pixels.ndim == 2 else pixels for pixels in some]
    return [np.stack([pixels] * 3, axis=-1) if pixels.ndim == 2 else pixels for pixels in some]


def show_image(axes: Axes, pixels: NDArray[np.uint8], grey_map: str) -> None:
    """Draw an image without ticks; small ones keep visible pixels."""
    axes.imshow(pixels, cmap=grey_map, vmin=0, vmax=255, interpolation=_interpolation(pixels))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color(HAIRLINE)


def _interpolation(pixels: NDArray[np.uint8]) -> str:
    return "nearest" if max(pixels.shape[:2]) <= 100 else "antialiased"


def _verdict(
    sheet: _Sheet, left: float, top: float, probabilities: NDArray[Any], label: int, class_names: Sequence[str],
    size: float,
) -> None:  # fmt: skip
    """The lesson's caption above the image: predicted class, its probability, true class."""
    predicted, longest = int(probabilities.argmax()), 24 if size > 10 else 16
    mark, colour = ("✓", BLUE) if predicted == label else ("✗", RED)
    answer, true = _name(class_names[predicted], longest), _name(class_names[label], longest)
    text = f"{mark} {answer} {in_percent(float(probabilities[predicted]))} ({true})"
    sheet.text(left, top - 0.07, text, color=colour, fontsize=size, va="bottom")


def _bars(axes: Axes, place: _Place, probabilities: NDArray[Any], label: int | None) -> None:
    """A bar for each class: the true one blue, a wrongly predicted one red and hatched, the others grey."""
    count, predicted = len(probabilities), int(probabilities.argmax())
    colours = {predicted: INK} if label is None else {predicted: RED, label: BLUE}
    x, tops = place.x + place.across * np.arange(count), place.y + place.up * probabilities
    if count > _EACH_NAME:
        heights = np.where(np.isin(range(count), list(colours)), place.y, tops)
        edges = np.repeat(np.append(x, x[-1] + place.across) - place.across / 2, 2)
        outline = np.column_stack([edges, np.concatenate([[place.y], np.repeat(heights, 2), [place.y]])])
        axes.add_collection(PolyCollection([outline], facecolors=GREY, edgecolors="none"), autolim=False)
        for index, colour in colours.items():  # unlike a bar, a line stays visible among a thousand
            axes.vlines(x[index], place.y, tops[index], color=colour, linewidth=max(1.8, 190 / count))
        return
    half = 0.4 * place.across
    sides, base = (x - half, x + half), np.full(count, place.y)
    corners = [(sides[0], base), (sides[0], tops), (sides[1], tops), (sides[1], base)]
    bars: Any = np.stack([np.column_stack(corner) for corner in corners], axis=1)  # (K, 4, 2)
    shades = [colours.get(index, GREY) for index in range(count)]
    axes.add_collection(PolyCollection(bars, facecolors=shades, edgecolors="none"), autolim=False)
    if label not in (None, predicted):
        wrong = (x[predicted] - half, place.y), 2 * half, tops[predicted] - place.y
        axes.add_patch(Rectangle(*wrong, facecolor=RED, hatch="////", edgecolor="white", linewidth=0))


def _highlighted(probabilities: NDArray[Any], label: int) -> set[int]:
    """The predicted and the true class, or the predicted one alone if the numbers above their bars would overlap."""
    predicted = int(probabilities.argmax())
    apart = abs(predicted - label) / len(probabilities) > 0.14 or probabilities[predicted] - probabilities[label] > 0.1
    return {predicted, label} if apart else {predicted}


def _values(axes: Axes, place: _Place, probabilities: NDArray[Any], which: set[Any], size: float) -> None:
    """Write the probability above each of these bars."""
    for index in which:
        value = float(probabilities[index])
        top, text = (place.x + place.across * index, place.y + place.up * value), in_percent(value)
        axes.annotate(text, top, (0, 3), textcoords="offset points", ha="center", fontsize=size, color=FAINT)


def _curve(axes: Axes, history: Sequence[Mapping[str, Any]], key: str, name: str, form: str) -> None:
    points = [(epoch["number"], epoch[key]) for epoch in history if epoch.get(key) is not None]
    if not points:
        return
    numbers, values = zip(*points, strict=True)
    marker, dashes, colour = ("s", "--", ORANGE) if key.startswith("val_") else ("o", "-", BLUE)
    label, size = f"{name}, last {form.format(values[-1])}", 4.5 if len(points) <= 30 else 0
    axes.plot(numbers, values, label=label, color=colour, linestyle=dashes, marker=marker, markersize=size)


def _off_diagonal(share: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Shares of mistakes relative to the largest; shares below a fifth stay pale."""
    mistaken = share * ~np.eye(len(share), dtype=bool)
    found: NDArray[np.floating[Any]] = mistaken / max(0.2, float(mistaken.max()))
    return found


def _confusion_colours(share: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """(K, K, 4): blue on the diagonal, red elsewhere; the square root makes rare mistakes visible."""
    blues = matplotlib.colormaps["Blues"](0.15 + 0.7 * share)
    reds = matplotlib.colormaps["Reds"](0.75 * np.sqrt(_off_diagonal(share)))
    diagonal = np.eye(len(share), dtype=bool)
    colours: NDArray[np.floating[Any]] = np.where(diagonal[..., None], blues, reds)
    colours[(share == 0) & ~diagonal] = (0.965, 0.97, 0.975, 1)
    return colours


def _confusion_names(axes: Axes, names: Sequence[str]) -> None:
    size = 10 if len(names) <= _EACH_COUNT else 7.5
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", color=INK, fontsize=size)
    axes.set_yticks(range(len(names)), names, color=INK, fontsize=size)
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.set_axisbelow(False)
    axes.tick_params(which="minor", length=0)


def _confusion_counts(axes: Axes, counts: NDArray[Any], share: NDArray[np.floating[Any]]) -> None:
    dark = (np.diag(np.diag(share)) > 0.5) | (_off_diagonal(share) > 0.6)
    for row, column in np.ndindex(counts.shape):
        count = counts[row, column]
        colour, size = "white" if dark[row, column] else INK if count else GREY, 9 if count < 10_000 else 7
        axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=size)


def _sentence(text: str) -> ReportFigure:
    sheet = _Sheet(6.0, 1.2)
    sheet.figure.text(0.5, 0.5, f"✓ {text}", ha="center", va="center", fontsize=12, color=BLUE)
    return sheet.figure


def _name(text: str, longest: int) -> str:
    """A name as one line in characters that the installed fonts have, cut to `longest` characters."""
    line = "".join(letter if ord(letter) in _letters() else "□" for letter in " ".join(str(text).split()))
    return line if len(line) <= longest else line[: longest - 1].rstrip() + "…"


def _two_lines(text: str, longest: int) -> str:
    line = _name(text, 2 * longest - 2)
    if len(line) <= longest:
        return line
    at = line.rfind(" ", longest // 3, longest)
    return f"{line[:at]}\n{_name(line[at + 1 :], longest)}" if at > 0 else f"{line[:longest]}\n{line[longest:]}"


@cache
def _fonts() -> list[str]:
    """matplotlib's own font, then fonts for other scripts if they are installed."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in _FONTS if name in installed]


@cache
def _letters() -> frozenset[int]:
    files = (font_manager.findfont(name) for name in _fonts())
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())
