"""What is known about each decoded picture, as one record, and why other pictures were set aside."""

from dataclasses import dataclass

import numpy as np

from hangtag.pictures import Change

__all__ = ["CARRIES_COLOUR", "COLOUR_FILE", "FACTS", "NO_CLASS", "PASSING", "TRANSPARENT", "UNREAD", "Skipped"]

FACTS = np.dtype(
    [
        ("content", "<u8", 2),  # the first 128 bits of the SHA-256 of the file
        ("height", "<u4"),  # pixels, as seen upright
        ("width", "<u4"),
        ("pixels", "<u4"),  # CRC-32 of the row
        ("flags", "u1"),
        ("mode", "S15"),  # colour mode of the file, as Pillow names it: "RGB", "CMYK"
        ("values", "<f4", 4),  # `levels.measure` of pixels of more than 8 bits; 0 for others
        ("taken", "<i8"),  # milliseconds by the camera's clock; 0 if the file does not say so
        ("camera", "<u4"),  # a number for its model
    ]
)
"""The record of one decoded picture; its flags are the bits below and those of `pictures.Change`."""

COLOUR_FILE, CARRIES_COLOUR, TRANSPARENT = 1, 2, int(Change.TRANSPARENT)

NO_CLASS = "no class"
"""The kind of reason for pictures that may be whole, but have no label."""

UNREAD = ("cannot be read", "disk or network error")
"""Kinds of reasons for which the bytes of a picture are missing."""

PASSING = (*UNREAD, "takes too long", "crashes the decoder", "needs too much memory", "cannot be resized")
"""Kinds of reasons that may lie outside the picture (a busy machine, a killed process): they are never remembered."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that was set aside: its name, the kind of reason (a few words, for counting), and the reason."""

    name: str
    kind: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "kind": self.kind, "reason": self.reason}
