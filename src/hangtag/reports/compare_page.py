"""A comparison of two models as one offline HTML page: the verdict, then the pictures on which only one is right."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hangtag.data.decisions import name_of
from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.comparison import Comparison
from hangtag.files import write_text
from hangtag.reports.html import document, escaped, section, table, thumbnail
from hangtag.words import in_percent, out_of_100

__all__ = ["write_comparison"]

_THUMB, _MOST = 96, 36
_DARK_GROUND = 16

Floats = NDArray[np.float32]


def write_comparison(found: Comparison, data: LabelledImages, first: Floats, second: Floats, path: Path) -> Path:
    """Write the page and return its path.

    Args:
        data: the pictures both were judged on.
        first, second: (N, K) probabilities, classes in the order of `data`.

    Raises:
        SaveError: it cannot be written.
    """
    one, two = (rows.argmax(axis=1) == data.labels for rows in (first, second))
    parts = [_headline(found)]
    for right, wrong, place in ((two & ~one, first, 1), (one & ~two, second, 0)):
        positions = np.flatnonzero(right)
        surest = positions[np.argsort(-wrong[positions].max(axis=1), kind="stable")][:_MOST]
        title = f"Only {found.names[place]} is right: {len(positions):,}"
        note = f"Those that {found.names[1 - place]} was most sure of first."
        if len(surest) < len(positions):
            note += f" The first {len(surest)}."
        cards = "".join(_card(found, data, first, second, int(at)) for at in surest)
        body = f'<div class="cards small">{cards}</div>' if cards else "<p>None.</p>"
        parts.append(section(escaped(title), body, escaped(note)))
    write_text(path, document(f"{found.names[0]} and {found.names[1]}", "".join(parts)))
    return path


def _headline(found: Comparison) -> str:
    rows = [
        (escaped(name), out_of_100(share), f"{out_of_100(low)} to {out_of_100(high)}")
        for name, (share, low, high) in zip(found.names, found.accuracies, strict=True)
    ]
    low, high = found.loss_interval
    return (
        f'<p class="kicker">two models, {found.images:,} pictures</p>'
        f"<h1>{'They differ' if found.significant else 'No difference beyond chance'}</h1>"
        f"<p>{escaped(found.in_words)}</p>"
        f"{table(('model', 'right of 100', '95 % interval'), rows)}"
        f'<p class="note">Loss of the second less that of the first: {found.loss_difference:+.4f} nats '
        f"(95&nbsp;% interval {low:+.4f} to {high:+.4f}). Right together on {found.both_right:,}, wrong together on "
        f"{found.both_wrong:,}. Whether one way of training is better than another takes several trainings of each: "
        "<code>hangtag train --seeds 5</code>.</p>"
    )


def _card(found: Comparison, data: LabelledImages, first: Floats, second: Floats, at: int) -> str:
    said = ""
    for name, rows in zip(found.names, (first, second), strict=True):
        best = int(rows[at].argmax())
        kind, mark = ("said", "✓") if best == data.labels[at] else ("wrong", "✗")
        share = in_percent(float(rows[at, best]))
        said += f'<span class="note">{escaped(name)}:</span>'
        said += f'<span class="{kind}">{mark} {escaped(data.class_names[best])} {share}</span>'
    name = escaped(name_of(data, at))
    caption = f'<figcaption>{said}<span class="note">{name}</span></figcaption>'
    return f'<figure class="card">{_picture(data, at)}{caption}</figure>\n'


def _picture(data: LabelledImages, position: int) -> str:
    image = np.asarray(data.images[position])
    return thumbnail(image, _THUMB, invert=image.ndim == 2 and data.spec.background <= _DARK_GROUND)
