"""How much work an encoded picture is, from its first bytes."""

import struct

__all__ = ["is_quick"]

_QUICK_PIXELS = 500_000  # about five milliseconds
_PNG, _JPEG, _NPY = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"\x93NUMPY"
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG's size
_BARE = frozenset(range(0xD0, 0xD9)) | {0x01, 0xFF}  # markers without a length
_MOST_SEGMENTS = 100


def is_quick(content: bytes) -> bool:
    """Whether decoding takes a few milliseconds at most, as far as the header says: a small PNG, JPEG or NPY file.

    Nothing depends on the truth of the header but how long other pictures wait.
    """
    if content.startswith(_PNG):
        if len(content) < 24:
            return True  # damaged
        width, height = struct.unpack_from(">II", content, 16)
        return bool(width * height <= _QUICK_PIXELS)
    if content.startswith(_JPEG):
        return _jpeg_pixels(content) <= _QUICK_PIXELS
    return not content or (content.startswith(_NPY) and len(content) <= _QUICK_PIXELS)


def _jpeg_pixels(content: bytes) -> int:
    """What the first frame header of a JPEG says (ITU-T T.81, annex B); 0 if there is none."""
    place = 2
    for _ in range(_MOST_SEGMENTS):
        if place + 9 > len(content) or content[place] != 0xFF:
            return 0
        marker = content[place + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", content, place + 5)
            return int(width * height)
        place += (
            1 if marker == 0xFF else 2 if marker in _BARE else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        )
    return _QUICK_PIXELS + 1
