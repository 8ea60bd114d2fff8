"""What is known about each picture that was decoded, as one record, and why pictures were not."""

import numpy as np

__all__ = ["CARRIES_COLOUR", "COLOUR_FILE", "FACTS", "NOTED", "TRANSPARENT", "UNREAD"]

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
"""What is known about one picture that was decoded; flags: 1 colour file, 2 carries colour, 4 transparent, 8 noted."""

COLOUR_FILE, CARRIES_COLOUR, TRANSPARENT, NOTED = 1, 2, 4, 8
"""The bits of `flags`."""

UNREAD = ("cannot be read", "disk or network fails")
"""Kinds of reasons that say nothing about the picture: another time it may be there."""
