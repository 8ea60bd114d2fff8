"""IDX files: any shape and type, plain or compressed, or one error that says what is wrong."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hangtag.data.public.idx import idx_header, parse_idx, read_idx
from hangtag.errors import DataError
from toys import idx

IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("array", [IMAGES, IMAGES[:, 0, 0], np.zeros((0, 3, 4), np.uint8), IMAGES.reshape(1, 2, 3, 4)])
def test_an_array_of_bytes_is_read_whatever_its_shape(tmp_path: Path, array: NDArray[np.uint8], packed: bool) -> None:
    path = tmp_path / "some file"
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))

    np.testing.assert_array_equal(read_idx(path), array, strict=True)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")],
)
def test_every_type_of_the_format_is_read_into_the_processor_s_byte_order(code: int, kind: str) -> None:
    numbers = np.array([1, 0, 100], kind)
    content = struct.pack(">BBBBI", 0, 0, code, 1, 3) + numbers.astype(f">{kind}").tobytes()

    np.testing.assert_array_equal(parse_idx(content, "numbers"), numbers, strict=True)


def test_a_header_is_how_a_file_of_that_shape_begins() -> None:
    assert idx(IMAGES).startswith(idx_header((2, 3, 4)))
    assert idx_header((60_000,)) == bytes.fromhex("00000801 0000ea60")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES)[:-1], "must have 40 bytes, got 39"),
        (idx(IMAGES)[:6], "its header is incomplete"),
        (idx(IMAGES) + b"x", "must have 40 bytes, got more"),
        (b"", "not an IDX file"),
        (b"\0\0\x07\x01\0\0\0\0", "not an IDX file"),
        (b"\x89PNG\r\n", "not an IDX file"),
        (gzip.compress(idx(IMAGES))[:-9], "damaged or incomplete"),
        (struct.pack(">BBBB2I", 0, 0, 8, 2, 2**32 - 1, 2**32 - 1), "declares 18,446,744,065,119,617,037"),
    ],
    ids=["a byte short", "half a header", "a byte long", "empty", "unknown type", "a picture", "cut gzip", "huge"],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    with pytest.raises(DataError) as caught:
        read_idx(path)

    assert caught.value.message.startswith(f"{path}: {message}")
    assert caught.value.hint


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file or directory"):
        read_idx(tmp_path / "nowhere")
