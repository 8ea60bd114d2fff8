"""What is known about each decoded picture, as one record, and why other pictures were set aside."""

from dataclasses import dataclass

import numpy as np

__all__ = ["CARRIES_COLOUR", "COLOUR_FILE", "FACTS", "NOTED", "TRANSPARENT", "UNREAD", "Skipped"]

FACTS = np.dtype(
    [
        ("content", "<u8", 2),  # the first 128 bits of the SHA-256 of the file
        ("height", "<u4"),  # pixels, as seen upright
        ("width", "<u4"),
        ("pixels", "<u4"),  # CRC-32 of the row
        ("flags", "u1"),
        ("kind", "S15"),  # "JPEG RGB"
    ]
)
"""The record of one decoded picture; flags: 1 colour file, 2 carries colour, 4 transparent, 8 has a note."""

COLOUR_FILE, CARRIES_COLOUR, TRANSPARENT, NOTED = 1, 2, 4, 8
"""The bits of `flags`."""

UNREAD = ("cannot be read", "disk or network fails")
"""Kinds of reasons that lie outside the picture: a later read may succeed."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or row that was set aside: its name, the kind of reason (a few words, for counting), and the reason."""

    name: str
    kind: str
    reason: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "kind": self.kind, "reason": self.reason}
