"""An explanation as one picture: what the network saw, where its evidence lies, the probabilities, pictures alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hangtag.model.explanation import Why
from hangtag.reports.figures import ReportFigure
from hangtag.words import in_percent

__all__ = ["why_picture"]

_BLUE, _RED, _INK, _FAINT = "#1668b0", "#c8321f", "#1d232b", "#5f6873"
_MOST_BARS = 8


def why_picture(why: Why) -> ReportFigure:
    """One row for the answer; below it, where there are any, the nearest training pictures."""
    rows = 2 if why.neighbours else 1
    figure = ReportFigure(figsize=(9.6, 3.8 if rows == 1 else 6.1), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.08)  # type: ignore[union-attr,call-arg]
    top, *below = figure.subfigures(rows, 1, height_ratios=[3.4, 2][:rows], squeeze=False)[:, 0]
    top.suptitle(_verdict(why), fontsize=13, color=_INK)
    seen, heat, bars = top.subplots(1, 3, width_ratios=[1, 1, 1.25])
    _show(seen, why.seen, "what the network saw")
    _show(heat, why.seen, "blue speaks for it, red against it")
    _overlay(heat, why.heat, why.seen.shape[:2])
    names = [label for label, _ in why.answer.top][:_MOST_BARS]
    shares = [probability for _, probability in why.answer.top][:_MOST_BARS]
    bars.barh(range(len(names)), shares, color=[_BLUE] + ["#aab0b8"] * (len(names) - 1), height=0.6)
    bars.set_yticks(range(len(names)), [name if len(name) < 24 else name[:23] + "…" for name in names])
    bars.invert_yaxis()
    bars.set_xlim(0, 1.15)
    bars.set_xticks([])
    bars.spines[["top", "right", "bottom"]].set_visible(False)
    for place, share in enumerate(shares):
        bars.text(share + 0.02, place, in_percent(share), va="center", fontsize=9, color=_FAINT)
    if below:
        _alike(below[0], why)
    return figure


def _verdict(why: Why) -> str:
    answer = why.answer
    said = f"{answer.label}, {in_percent(answer.probability)}"
    if answer.is_ood:
        return f"{said}: but unfamiliar, stranger than {answer.ood_score:.1%} of the pictures it was tried on"
    if answer.sure is None:
        return said
    if answer.sure:
        return f"{said}: sure"
    others = [label for label in answer.prediction_set or () if label != answer.label]
    return f"{said}: not sure" + (f", it may be {' or '.join(others[:3])}" if others else "")


def _show(axes: "object", pixels: NDArray[np.uint8], title: str) -> None:
    dark = np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])) <= 16
    how = "nearest" if max(pixels.shape[:2]) <= 100 else "antialiased"
    axes.imshow(  # type: ignore[attr-defined]
        pixels, cmap="binary" if dark and pixels.ndim == 2 else "gray", vmin=0, vmax=255, interpolation=how
    )
    axes.set_title(title, fontsize=9, color=_FAINT)  # type: ignore[attr-defined]
    axes.set_xticks([])  # type: ignore[attr-defined]
    axes.set_yticks([])  # type: ignore[attr-defined]


def _overlay(axes: "object", heat: NDArray[np.float32], size: Sequence[int]) -> None:
    most = max(float(np.abs(heat).max()), 1e-6)
    colours = np.zeros((*heat.shape, 4))
    colours[heat >= 0, :3] = np.array([22, 104, 176]) / 255
    colours[heat < 0, :3] = np.array([200, 50, 31]) / 255
    colours[..., 3] = 0.8 * np.sqrt(np.abs(heat) / most)
    axes.imshow(  # type: ignore[attr-defined]
        colours, extent=(-0.5, size[1] - 0.5, size[0] - 0.5, -0.5), interpolation="bilinear"
    )


def _alike(part: "object", why: Why) -> None:
    part.suptitle("training pictures most like it, to the network", fontsize=9, color=_FAINT)  # type: ignore[attr-defined]
    for axes, near in zip(
        part.subplots(1, len(why.neighbours), squeeze=False)[0],  # type: ignore[attr-defined]
        why.neighbours,
        strict=True,
    ):
        _show(axes, near.picture, "")
        colour = _BLUE if near.label == why.answer.label else _RED
        name = near.label if len(near.label) < 16 else near.label[:15] + "…"
        axes.set_xlabel(f"{name}\nalike {near.similarity:.2f}", fontsize=9, color=colour)
