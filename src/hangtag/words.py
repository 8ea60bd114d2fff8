"""Numbers, names and lists as text for messages, tables and pages."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "ENOUGH",
    "amount",
    "bytes_in_words",
    "csv_cell",
    "csv_text",
    "first_few",
    "from_csv",
    "in_percent",
    "interval",
    "is_whole_number",
    "listed",
    "natural",
    "out_of_100",
    "percent",
    "printable",
    "rate",
    "rate_with_count",
    "seconds_in_words",
    "setting_text",
    "times",
    "visible",
]

ENOUGH = 200
"""With fewer images, no sentence says that all is well, because a problem may not show."""

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def amount(count: int, noun: str) -> str:
    """A count and its noun, in the plural unless the count is 1.

    >>> amount(1, "picture"), amount(2000, "class")
    ('1 picture', '2,000 classes')
    """
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"


def is_whole_number(text: str) -> bool:
    """Whether a text has the digits 0 to 9 only, and few enough of them for a number of anything.

    >>> [is_whole_number(text) for text in ("12", "²", "-1", "", "9" * 5000)]
    [True, False, False, False, False]
    """
    return text.isascii() and text.isdigit() and len(text) < 20


def out_of_100(share: float) -> str:
    """A share as a number out of 100, rounded so that a share below 1 never shows as 100."""
    digits = next((digits for digits in (1, 2, 3) if share == 1 or float(f"{100 * share:.{digits}f}") < 100), 4)
    return "100" if share == 1 else f"{100 * share:.{digits}f}"


def rate(count: int, of: int) -> str:
    """A share in percent, or as counts if there are fewer than 100, because so few support no decimals.

    >>> rate(24, 30), rate(9386, 10_000), rate(9999, 10_000)
    ('24 of 30', '93.9%', '99.99%')
    """
    return f"{count} of {of}" if of < 100 else f"{out_of_100(count / of)}%"


def rate_with_count(count: int, of: int) -> str:
    """A share and the number that it is a share of.

    >>> rate_with_count(24, 30), rate_with_count(9386, 10_000)
    ('24 of 30', '93.9% of 10,000')
    """
    return rate(count, of) if of < 100 else f"{rate(count, of)} of {of:,}"


def interval(bounds: Sequence[float], of: int) -> str:
    """The interval of a share of `of` items, with no more decimals than `rate` gives.

    >>> interval((0.6, 0.9), 30), interval((0.933, 0.943), 10_000)
    ('60% to 90%', '93.3% to 94.3%')
    """
    return " to ".join(in_percent(share) if of < 100 else f"{out_of_100(share)}%" for share in bounds)


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def bytes_in_words(count: object) -> str:
    if not isinstance(count, int):
        return ""
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def seconds_in_words(value: float) -> str:
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.1f} min"


def setting_text(value: object) -> str:
    """A setting's value as `--set` takes it.

    >>> setting_text(0.0031), setting_text(True), setting_text(None)
    ('0.0031', 'yes', 'none')
    """
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def first_few(items: Sequence[str], most: int = 5) -> str:
    """The first few items, separated by commas, with dots for the others.

    >>> first_few(["cat", "dog", "hen"], 2)
    'cat, dog, ...'
    """
    return ", ".join(items[:most]) + (", ..." if len(items) > most else "")


def visible(text: str) -> str:
    r"""Text from a stranger with escapes in place of characters that change what a terminal shows.

    These are control characters, characters that change the direction of writing, and the bytes of a file name that
    are not valid Unicode, which Python keeps as surrogates.

    >>> print(visible("red\x1b[31m"))
    red\x1b[31m
    """
    return text if text.isprintable() else _UNSEEN.sub(_escape, text)


def printable(text: str) -> str:
    """Lines of text with the escapes of `visible` in each."""
    return text if text.isprintable() else "\n".join(map(visible, text.split("\n")))


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code if code < 0x80 else None
    return _ESCAPES.get(found.group()) or (f"\\u{code:04x}" if byte is None else f"\\x{byte:02x}")


def csv_text(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table, with the escapes of `visible` in its cells.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; `from_csv` takes it away.

    >>> csv_text(["name", "count"], [["=1+1", -2]])
    "name,count\\n'=1+1,-2\\n"
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(map(csv_cell, row) for row in rows)
    return buffer.getvalue()


def csv_cell(value: object) -> object:
    """A value as `csv_text` writes it."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if _FORMULA.match(text) else text


def from_csv(cell: str) -> str:
    """A text as it was before `csv_text` wrote it.

    >>> from_csv("'=1+1"), from_csv("-2"), from_csv("'a'")
    ('=1+1', '-2', "'a'")
    """
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def in_percent(probability: float) -> str:
    """A probability in whole percent; only 0 and 1 themselves are shown as 0% and 100%.

    >>> in_percent(0.75), in_percent(0.998), in_percent(1.0), in_percent(0.001)
    ('75%', '>99%', '100%', '<1%')
    """
    shown = f"{probability:.0%}"
    if shown == "100%" and probability < 1:
        return ">99%"
    return "<1%" if shown == "0%" and probability > 0 else shown


def natural(name: str) -> list[tuple[int, int, str]]:
    """A sort key for names that orders the numbers in them by size: 2 before 10, and -1 before 0.

    >>> sorted(["10", "-1", "9", "cat 10", "cat 2"], key=natural)
    ['-1', '9', '10', 'cat 2', 'cat 10']
    """
    if re.fullmatch(r"-[0-9]{1,4000}", name):
        return [(0, int(name), ""), (-1, 0, name)]
    pieces = re.findall(r"[0-9]{1,4000}|[^0-9]+", name)
    key = [(0, int(piece), "") if piece.isascii() and piece.isdigit() else (1, 0, piece) for piece in pieces]
    return [*key, (-1, 0, name)]  # "01" and "1" are two names
