"""What the doctor did to a picture, as one figure: the picture, what the model would have seen, and what it saw."""

import textwrap

import numpy as np
from numpy.typing import NDArray

from hangtag.model.predictor import Answer
from hangtag.reports.figures import FAINT, INK, ReportFigure, show_image
from hangtag.words import in_percent

__all__ = ["draw_repairs"]

_WIDTH = 120  # characters of a line below the pictures


def draw_repairs(as_is: Answer, answer: Answer) -> ReportFigure:
    """The answers for one picture without and with the doctor, as `Predictor(picture)` gives them.

    Each needs its `picture` and its `seen`.
    """
    assert as_is.picture is not None
    assert as_is.seen is not None
    assert answer.seen is not None
    lines = [f"{repair.name}: {repair.reason}" for repair in answer.repairs] or ["nothing was repaired"]
    lines += [f"note: {warning}" for warning in answer.warnings]
    text = "\n".join(textwrap.fill(line, _WIDTH) for line in lines)
    panels: list[tuple[str, NDArray[np.uint8]]] = [("the picture", as_is.picture)]
    if answer.repairs:
        panels.append((f"before: what the model would see\n{_said(as_is)}", as_is.seen))
    panels.append((f"{'after: ' if answer.repairs else ''}what the model saw\n{_said(answer)}", answer.seen))
    below_height = 0.4 + 0.2 * text.count("\n")
    figure = ReportFigure(figsize=(3.2 * len(panels), 4.1 + below_height), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[4.1, below_height], squeeze=False)[:, 0]
    for axes, (title, pixels) in zip(above.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        show_image(axes, pixels, "gray")
        axes.set_title(title, fontsize=9, color=INK)
    below.text(0.02, 0.5, text, fontsize=8, color=FAINT, va="center")
    return figure


def _said(answer: Answer) -> str:
    assert answer.probability is not None
    familiar = "" if answer.ood_score is None else f", OOD score {answer.ood_score:.2f}"
    return f"{answer.label} {in_percent(answer.probability)}{familiar}"
