"""Names in zip files that do not say how they are encoded: the encoding is recognised from all of them together."""

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["decode_names", "unicode_path"]

_COMMON: dict[str, tuple[tuple[int, int], ...]] = {
    "cp932": ((0x829F, 0x82F1), (0x8340, 0x8396), (0x889F, 0x9872)),  # kana, the 2,965 common kanji
    "gbk": ((0xB0A1, 0xD7F9),),  # the 3,755 common characters
    "big5": ((0xA440, 0xC67E),),  # the 5,401 common characters
}
"""Codes of the characters that make up nearly all text in this encoding."""

_SINGLE = {"cp866": ("\u0400", "\u04ff"), "cp437": ("\u00c0", "\u00ff")}  # Cyrillic, accented Latin letters
_UNICODE_PATH = 0x7075  # APPNOTE.TXT 4.6.9


def decode_names(names: Sequence[bytes]) -> tuple[list[str], str]:
    """Names of one archive as text, and the name of their encoding: UTF-8, or the one whose text looks most like words.

    >>> decode_names([b"\\xaa\\xae\\xe2/1.png"])
    (['кот/1.png'], 'cp866')
    """
    scores = {}
    for encoding in ("utf-8", *_COMMON, *_SINGLE):
        try:
            texts = [name.decode(encoding) for name in names]
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8":
            return texts, encoding
        marks = [mark for text in texts for mark in _marks(text, encoding)]
        scores[encoding] = sum(marks) / max(1, len(marks))
    best = max(scores, key=lambda encoding: scores[encoding])
    return [name.decode(best) for name in names], best


def unicode_path(extra: bytes, name: bytes) -> str | None:
    """The name in UTF-8 that some programs add to a member of a zip file, or None."""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and field[1:5] == struct.pack("<I", zlib.crc32(name)):
            return field[5:].decode("utf-8", "replace")
    return None


def _marks(text: str, encoding: str) -> list[float]:
    """For each character outside ASCII, 1 if it is common in this encoding and suits its neighbours, down to 0."""
    marks = []
    around = f" {text} "
    for (before, letter), after in zip(pairwise(around), around[2:], strict=False):
        if letter.isascii():
            continue
        beside_latin = any(each.isascii() and each.isalpha() for each in (before, after))
        if encoding in _COMMON:
            code = int.from_bytes(letter.encode(encoding), "big")
            marks.append(float(not beside_latin and any(low <= code <= high for low, high in _COMMON[encoding])))
        else:
            low, high = _SINGLE[encoding]
            right_script = letter.isalpha() and low <= letter <= high
            latin = encoding == "cp437"
            marks.append((1.0 if beside_latin == latin else 0.5 * latin) * right_script)
    return marks
