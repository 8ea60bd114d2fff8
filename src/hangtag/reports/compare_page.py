"""A comparison of two models as one offline HTML page: the verdict, then the images on which only one is correct."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.decisions import name_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.comparison import Comparison
from hangtag.files import write_text
from hangtag.html import is_light_on_black, render, thumbnail
from hangtag.words import in_percent

__all__ = ["write_comparison"]

_THUMBNAIL, _MOST = 96, 36

Floats = NDArray[np.float32]


def write_comparison(found: Comparison, data: LabelledImages, first: Floats, second: Floats, path: Path) -> Path:
    """Write the page and return its path.

    Args:
        data: the images both were judged on.
        first, second: (N, K) probabilities, classes in the order of `data`.

    Raises:
        SaveError: it cannot be written.
    """
    one, two = (rows.argmax(axis=1) == data.labels for rows in (first, second))
    invert = is_light_on_black(data.images[:25])
    sides = []
    for positions, wrong, place in ((two & ~one, first, 1), (one & ~two, second, 0)):
        order = np.flatnonzero(positions)[np.argsort(-wrong[positions].max(axis=1), kind="stable")]
        note = f"Most confident mistakes of {found.names[1 - place]} first"
        cards = [
            {
                "picture": thumbnail(np.asarray(data.images[index]), _THUMBNAIL, invert),
                "answers": _answers(found.names, data, (first[index], second[index]), data.labels[index]),
                "name": name_of(data, index),
            }
            for index in order[:_MOST].tolist()
        ]
        note += f"; the first {len(cards)} are shown." if len(cards) < len(order) else "."
        sides.append(
            {"right": found.names[place], "count": len(order), "note": note if cards else "No images.", "cards": cards}
        )
    write_text(path, render("comparison.html", {"found": found, "sides": sides}))
    return path


def _answers(
    models: Sequence[str], data: LabelledImages, rows: Sequence[Floats], label: np.int64
) -> list[dict[str, Any]]:
    return [
        {"model": model, "correct": best == label, "text": f"{data.class_names[best]} {in_percent(float(row[best]))}"}
        for model, row in zip(models, rows, strict=True)
        for best in [int(row.argmax())]
    ]
