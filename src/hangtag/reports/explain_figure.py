"""An explanation as one figure: what the network sees, where its evidence lies, probabilities, similar images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.html import is_light_on_black
from hangtag.model.explanation import Why
from hangtag.reports.figures import BLUE, FAINT, GREY, INK, RED, ReportFigure, show_image
from hangtag.words import in_percent

__all__ = ["draw_explanation"]

_MOST_BARS = 8


def draw_explanation(why: Why) -> ReportFigure:
    """One row for the answer and, if they are known, one for the nearest training images."""
    rows = 2 if why.neighbours else 1
    figure = ReportFigure(figsize=(9.6, 3.8 if rows == 1 else 6.1), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)  # type: ignore[union-attr,call-arg]
    top, *below = figure.subfigures(rows, 1, height_ratios=[3.4, 2][:rows], squeeze=False)[:, 0]
    top.suptitle(_verdict(why), fontsize=13, color=INK)
    seen, heat, bars = top.subplots(1, 3, width_ratios=[1, 1, 1.25])
    colours = _colours(why)
    _show(seen, why.seen, "what the network sees", colours)
    _show(heat, _pale(why.seen), "evidence for (blue), against (red)", colours)
    _overlay(heat, why.heat, why.seen.shape[:2], 0.5 if why.seen.ndim == 2 else 1.0)  # photos have evidence all over
    names = [label for label, _ in why.answer.top][:_MOST_BARS]
    shares = [probability for _, probability in why.answer.top][:_MOST_BARS]
    bars.barh(range(len(names)), shares, color=[BLUE] + [GREY] * (len(names) - 1), height=0.6)
    bars.set_yticks(range(len(names)), [_short(name, 24) for name in names])
    bars.invert_yaxis()
    bars.set_xlim(0, 1.15)
    bars.set_xticks([])
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    for place, share in enumerate(shares):
        bars.text(share + 0.02, place, in_percent(share), va="center", fontsize=9, color=FAINT)
    if below:
        _show_neighbours(below[0], why)
    return figure


def _verdict(why: Why) -> str:
    answer = why.answer
    text = f"{answer.label}, {in_percent(answer.top[0][1])}"
    if answer.is_ood:
        return f"{text}: unfamiliar, more unusual than {answer.ood_score:.1%} of known images"
    if answer.sure is None:
        return text
    if answer.sure:
        return f"{text}: sure"
    others = [label for label in answer.prediction_set or () if label != answer.label]
    return f"{text}: not sure" + (f", may also be {' or '.join(others[:3])}" if others else "")


def _short(name: str, longest: int) -> str:
    return name if len(name) < longest else f"{name[: longest - 1]}…"


def _colours(why: Why) -> str:
    """One colour map for the whole figure: an image must not look like neighbours that are its negative."""
    return "binary" if is_light_on_black([why.seen]) else "gray"


def _pale(seen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A colour image in pale grey, so that blue and red are those of the evidence; a grey image as it is."""
    if seen.ndim == 2:
        return seen
    grey: NDArray[np.uint8] = (128 + seen.mean(axis=2) / 2).astype(np.uint8)
    return grey


def _show(axes: Any, pixels: NDArray[np.uint8], title: str, colours: str) -> None:
    show_image(axes, pixels, colours)
    axes.set_title(title, fontsize=9, color=FAINT)


def _overlay(axes: Any, heat: NDArray[np.float32], size: Sequence[int], power: float) -> None:
    colours = np.zeros((*heat.shape, 4))
    colours[heat >= 0, :3] = np.array([22, 104, 176]) / 255
    colours[heat < 0, :3] = np.array([200, 50, 31]) / 255
    shares = np.abs(heat) / max(float(np.abs(heat).max()), 1e-6)
    colours[..., 3] = 0.8 * shares**power
    axes.imshow(colours, extent=(-0.5, size[1] - 0.5, size[0] - 0.5, -0.5), interpolation="bilinear")


def _are_reduced(why: Why) -> bool:
    """Whether the similar images were kept at a smaller size than that of the network."""
    return any(each.picture.shape[:2] != why.seen.shape[:2] for each in why.neighbours)


def _show_neighbours(row: Any, why: Why) -> None:
    how = "reduced" if _are_reduced(why) else "as the network sees them"
    row.suptitle(f"most similar training images, {how}", fontsize=9, color=FAINT)
    columns = row.subplots(1, len(why.neighbours), squeeze=False)[0]
    for axes, neighbour in zip(columns, why.neighbours, strict=True):
        _show(axes, neighbour.picture, "", _colours(why))
        if _are_reduced(why):
            axes.images[-1].set_interpolation("bilinear")
        label = f"{_short(neighbour.label, 16)}\nsimilarity {neighbour.similarity:.2f}"
        axes.set_xlabel(label, fontsize=9, color=BLUE if neighbour.label == why.answer.label else RED)
