"""Parts of a report's page, as HTML text: a chart, tables, pictures, numbers in words. It knows no run and no model."""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files as package_files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.pictures import encode_png
from hangtag.words import out_of_100

__all__ = [
    "MOST_ROWS",
    "chart",
    "code_block",
    "data_uri",
    "definitions",
    "dig",
    "document",
    "escaped",
    "right_on",
    "section",
    "shrunk",
    "table",
    "text_of",
    "thumbnail",
]

_SIGNS = {"training": "●", "validation": "■"}
MOST_ROWS = 40
"""Of a table that stands without its own scroll bar."""

_FIRST = ' class="name stick"'


def document(title: str, body: str) -> str:
    """A whole page in one file that loads nothing from anywhere."""
    style = package_files("hangtag.reports").joinpath("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,">
<title>{escaped(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def chart(history: Sequence[Mapping[str, Any]], key: str, title: str, scale: int, unit: str) -> str:
    """After each epoch: a line for the training pictures and, where there are any, one for those held out."""
    lines = {
        kind: [(epoch["number"], scale * epoch[field]) for epoch in history if epoch.get(field) is not None]
        for kind, field in (("training", key), ("validation", f"val_{key}"))
    }
    lines = {kind: points for kind, points in lines.items() if points}
    if not lines:
        return ""
    values = [value for points in lines.values() for _, value in points]
    ticks = _ticks(min(values), max(values))
    first, last = history[0]["number"], history[-1]["number"]
    inside, keys = "", ""
    for tick in ticks:
        y = _down(tick, ticks)
        inside += f'<line class="axis" x1="44" x2="356" y1="{y:.1f}" y2="{y:.1f}"/>'
        inside += f'<text x="38" y="{y + 4:.1f}" text-anchor="end">{tick:g}{unit}</text>'
    for number in sorted({round(first + (last - first) * part / 4) for part in range(5)}):
        inside += f'<text x="{_across(number, first, last):.1f}" y="200" text-anchor="middle">{number}</text>'
    for kind, points in lines.items():
        places = [(_across(number, first, last), _down(value, ticks)) for number, value in points]
        inside += f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
        inside += "".join(_marker(kind, x, y) for x, y in (places if len(places) <= 30 else places[-1:]))
        keys += f'<span class="key {kind}">{_SIGNS[kind]} {kind}, last {points[-1][1]:.3g}{unit}</span> '
    return (
        f'<figure class="chart"><figcaption><b>{title}</b><br>{keys}</figcaption><svg viewBox="0 0 360 216" role="img" '
        f'aria-label="{title}">{inside}<text x="200" y="215" text-anchor="middle">epoch</text></svg></figure>'
    )


def _down(value: float, ticks: Sequence[float]) -> float:
    return 182 - 170 * (value - ticks[0]) / (ticks[-1] - ticks[0])


def _across(number: float, first: float, last: float) -> float:
    return 200.0 if first == last else 56 + 288 * (number - first) / (last - first)


def _marker(kind: str, x: float, y: float) -> str:
    if kind == "training":
        return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
    return f'<rect class="{kind}" x="{x - 2.4:.1f}" y="{y - 2.4:.1f}" width="4.8" height="4.8"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that enclose both."""
    span = max(high - low, 1e-3 * max(abs(high), 1e-3))
    raw = span / 4
    size = 10.0 ** np.floor(np.log10(raw))
    step = size * min(factor for factor in (1, 2, 5, 10) if factor * size >= raw * 0.999)
    bottom, top = np.floor(low / step), np.ceil(high / step)
    return [float(round(step * number, 10)) for number in range(int(bottom), int(max(top, bottom + 1)) + 1)]


def section(title: str, body: str, note: str = "") -> str:
    said = f'<p class="note">{note}</p>\n' if note else ""
    return f"<section>\n<h2>{title}</h2>\n{said}{body}\n</section>\n"


def table(head: Iterable[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML; the first column names the row."""
    titles = "".join(
        f'<th scope="col"{_FIRST if not number else ""}>{escaped(title)}</th>' for number, title in enumerate(head)
    )
    lines = (
        f'<tr><th scope="row"{_FIRST}>{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>\n'
        for row in rows
    )
    tall = " tall" if len(rows) > MOST_ROWS else ""
    body = f"<thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="scroll{tall}"><table class="{kind}">{body}</table></div>'


def definitions(shown: Mapping[str, object]) -> str:
    rows = (
        f"<dt>{escaped(key)}</dt><dd>{escaped(text_of(value))}</dd>"
        for key, value in shown.items()
        if value not in (None, "")
    )
    return f'<dl class="facts">{"".join(rows)}</dl>'


def code_block(text: str) -> str:
    return f"<pre><code>{escaped(text)}</code></pre>"


def shrunk(image: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """The mean of each block of step x step pixels; blocks at the edges may be smaller."""
    rows, columns = np.arange(0, image.shape[0], step), np.arange(0, image.shape[1], step)
    sums = np.add.reduceat(np.add.reduceat(image.astype(np.float64), rows, axis=0), columns, axis=1)
    sizes = np.outer(np.diff([*rows, image.shape[0]]), np.diff([*columns, image.shape[1]]))
    means = sums / sizes.reshape(sizes.shape + (1,) * (image.ndim - 2))
    small: NDArray[np.uint8] = np.rint(means).astype(np.uint8)
    return small


def thumbnail(image: NDArray[np.uint8], side: int, alt: str = "", invert: bool = False, lazy: bool = True) -> str:
    """A picture of at most about `side` pixels a side; small ones show their pixels. `invert`: light becomes dark."""
    step = -(-max(image.shape[:2]) // side)
    small = shrunk(image, step) if step > 1 else image
    small = 255 - small if invert else small
    pixels = " pixels" if max(small.shape[:2]) < side // 2 else ""
    later = ' loading="lazy"' if lazy else ""
    return f'<img class="picture{pixels}" alt="{escaped(alt)}"{later} src="{data_uri(encode_png(small))}">'


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def right_on(share: float, images: int) -> str:
    return (
        f"Right on {round(share * images)} of {images} pictures"
        if images < 100
        else f"Right on {out_of_100(share)} of 100 pictures"
    )


def text_of(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def dig(table: Mapping[str, Any], *keys: str, default: Any = None) -> Any:
    """A value that may not be there, some tables deep."""
    value: Any = table
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return default if value is None else value


def escaped(value: object) -> str:
    return html.escape(str(value))
