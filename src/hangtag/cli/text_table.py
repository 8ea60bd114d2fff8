"""A table of text, as wide as its cells; Rich's tables look the same and take fifty times as long."""

import shutil
import sys
import unicodedata
from collections.abc import Sequence

from hangtag.words import visible

__all__ = ["TextTable", "screen_width"]

_GAP = "   "


def screen_width() -> int:
    """Columns of the terminal; 80 without one."""
    return shutil.get_terminal_size((80, 25)).columns


class TextTable:
    """Rows under a head, with escapes in cells from strangers.

    Args:
        titles: of the columns; one that begins with > aligns its column to the right.
    """

    def __init__(self, *titles: str) -> None:
        self._to_right = [title.startswith(">") for title in titles]
        self._head = [title.lstrip(">") for title in titles]
        self._rows: list[list[str]] = []
        self._sections: list[int] = []

    def add_row(self, *cells: str) -> None:
        self._rows.append([visible(cell) for cell in cells])

    def add_section(self) -> None:
        """Separate the next rows from those above by an empty line."""
        self._sections.append(len(self._rows))

    @property
    def width(self) -> int:
        """How many columns of a terminal it takes."""
        widths = self._widths()
        return sum(widths) + len(_GAP) * (len(widths) - 1) + 2

    def show(self) -> None:
        """Print it on stdout."""
        rule = "\u2500" if "utf" in (sys.stdout.encoding or "utf").lower() else "-"
        widths = self._widths()
        print(f"\n{self._line(self._head, widths)}\n {rule * (self.width - 2)}")
        for place, row in enumerate(self._rows):
            print("\n" * (place in self._sections) + self._line(row, widths))
        print()

    def _widths(self) -> list[int]:
        return [max(map(_columns, column)) for column in zip(self._head, *self._rows, strict=True)]

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        parts = []
        for cell, width, to_right in zip(cells, widths, self._to_right, strict=True):
            space = " " * (width - _columns(cell))
            parts.append(space + cell if to_right else cell + space)
        return (" " + _GAP.join(parts)).rstrip()


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )
