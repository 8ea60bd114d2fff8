"""Names that old programs wrote into zip files are shown as they were meant."""

import struct
import zlib

import pytest

from hangtag.data.store.zip_names import decode_names, unicode_path


@pytest.mark.parametrize(
    ("names", "encoding"),
    [
        (["café/1.png", "Äpfel/2.png", "Köln/x.jpg"], "cp437"),
        (["кошка/1.png", "Собака/2.png"], "cp866"),
        (["猫/しゃしん 1.png", "犬/2.png"], "cp932"),
        (["カメラ/1.png", "東京/2.png"], "cp932"),
        (["猫/1.png", "小狗/2.png"], "gbk"),
        (["鞋子/照片1.jpg", "手提包/2.jpg"], "gbk"),
        (["貓/照片.png", "狗/圖片.png"], "big5"),
        (["naïve/1.png", "кошка/2.png"], "utf-8"),
    ],
)
def test_the_encoding_is_recognised_from_all_names(names: list[str], encoding: str) -> None:
    assert decode_names([name.encode(encoding) for name in names]) == (names, encoding)


def test_any_bytes_are_a_name() -> None:
    names, _ = decode_names([bytes(range(128, 256)), b"\xff", b""])

    assert len(names) == 3 and names[1]


def test_a_name_that_is_given_in_utf_8_as_well_needs_no_guess() -> None:
    raw = "кошка.png".encode("cp866")
    field = b"\1" + struct.pack("<I", zlib.crc32(raw)) + "кошка.png".encode()
    extra = b"UT\5\0abcde" + struct.pack("<HH", 0x7075, len(field)) + field

    assert unicode_path(extra, raw) == "кошка.png"
    assert unicode_path(extra, b"renamed.png") is None and unicode_path(b"\1\2\3", raw) is None
