"""Arrays -> matplotlib figures, the six pictures of the classic lesson among them.

It computes no probabilities, opens no data and keeps no state: no pyplot, no style that outlives a call. A picture is
judged right (blue) or wrong (red); the wording and the marks say the same without colour.
"""

from collections.abc import Callable
from typing import Any

from hangtag.errors import MissingExtra

try:
    import matplotlib
    from matplotlib import font_manager
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
except ImportError as missing:
    raise MissingExtra.named("train", "matplotlib") from missing

__all__ = [
    "Picture",
    "answer",
    "answers",
    "confusion",
    "curves",
    "image_grid",
    "lesson",
    "mistakes",
    "one_image",
    "probability_bars",
    "save",
]

BLUE, RED, GREY, INK, FAINT = "#1668b0", "#c8321f", "#a3a9b1", "#1d232b", "#5f6873"
"""Right, wrong, neither, text, lesser text; blue and red stay apart for colour-blind readers."""

DOTS_PER_INCH = 150

_FONTS = ("DejaVu Sans", "Noto Sans CJK SC", "Noto Sans CJK JP", "Microsoft YaHei", "Hiragino Sans", "Arial Unicode MS")
_DARK_GROUND = 16  # grey level up to which a border counts as black
_MOST_PIXELS = 600  # per side; more would not show in a grid
_TICK_EVERY_CLASS = 12
_NAME_EVERY_CLASS = 40
_COUNTS_IN_CELLS = 20


class Picture(Figure):
    """A matplotlib figure that a notebook shows by itself."""

    def draw(self, renderer: Any) -> None:
        with _style():
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return _png(self)


Drawing = Callable[..., Picture]


def _styled(drawing: Drawing) -> Drawing:
    raise NotImplementedError
