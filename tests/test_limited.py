import io
import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag import limited
from hangtag.errors import PictureError
from hangtag.limited import decode_limited
from hangtag.model.predictor import load
from hangtag.pictures import ImageSpec, decode
from pictures import textured
from toys import toy_model

SPEC = ImageSpec(16, 16, 3)
COLOUR = np.stack([textured(3, 16)[index] for index in range(3)], axis=-1)


def saved(form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(buffer, form, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF"])
def test_every_format_gives_the_same_pixels_and_notes(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{form.lower()}"
    path.write_bytes(saved(form))
    for picture in (path, str(path), path.read_bytes()):
        found, expected = decode_limited(picture, SPEC), decode(picture, SPEC)
        assert np.array_equal(found[0], expected[0])
        assert found[1] == expected[1]


def test_a_problem_is_told_as_without_limits(tmp_path: Path) -> None:
    (tmp_path / "cut.webp").write_bytes(saved("WEBP")[:-20])
    with pytest.raises(PictureError) as expected:
        decode(tmp_path / "cut.webp", SPEC)
    with pytest.raises(PictureError) as caught:
        decode_limited(tmp_path / "cut.webp", SPEC)
    assert (str(caught.value), caught.value.kind) == (str(expected.value), expected.value.kind)


def test_a_decoder_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "slow.webp").write_bytes(saved("WEBP"))
    monkeypatch.setattr(limited, "decode_noting_size", lambda *_: time.sleep(60))
    began = time.monotonic()
    with pytest.raises(PictureError, match=r"slow\.webp: decoding takes more than 0\.5 s"):
        decode_limited(tmp_path / "slow.webp", SPEC, seconds=0.5)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("fault", ["os._exit(1)", "[0] * 10**10"])
def test_a_decoder_that_crashes_or_needs_too_much_memory_is_one_error(
    fault: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(limited, "decode_noting_size", lambda *_: eval(fault, {"os": limited.os}))
    with pytest.raises(PictureError, match="its decoder crashed, or needed more memory than the limit"):
        decode_limited(saved("WEBP"), SPEC)
    assert capfd.readouterr().out == ""


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    content = saved("JPEG", progressive=True, quality=95)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + b"\xff\xd9"


def test_a_jpeg_of_thousands_of_scans_is_refused_in_every_way(tmp_path: Path) -> None:
    (tmp_path / "bomb.jpg").write_bytes(many_scans(2000))
    for picture in (tmp_path / "bomb.jpg", many_scans(2000), io.BytesIO(many_scans(2000))):
        with pytest.raises(PictureError, match="has more than 100 scans") as caught:
            decode(picture, SPEC)
        assert caught.value.kind == "takes too long"
    assert decode(many_scans(3), SPEC)[0].shape == (16, 16, 3)


def test_a_predictor_with_limits_answers_as_one_without(tmp_path: Path) -> None:
    tag = load(toy_model())
    (tmp_path / "a.webp").write_bytes(saved("WEBP"))
    assert tag.with_limits()(tmp_path / "a.webp") == tag(tmp_path / "a.webp")


def test_large_pictures_are_answered_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tag = load(toy_model())
    monkeypatch.setattr("hangtag.model.predictor._BATCH_BYTES", 3 * 8 * 8)
    images = textured(10, 8)
    batches = []
    monkeypatch.setattr(
        tag, "_rows", lambda rows, names, real=tag._rows: batches.append(len(rows)) or real(rows, names)
    )
    answers = tag.many(iter(images))
    assert batches == [3, 3, 3, 1]
    assert answers == [tag(image) for image in images]


def test_a_picture_from_a_pipe_is_read_once() -> None:
    reading, writing = os.pipe()
    os.write(writing, saved("PNG"))
    os.close(writing)

    pixels, _ = decode_limited(f"/dev/fd/{reading}", SPEC)

    os.close(reading)
    assert np.array_equal(pixels, COLOUR)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_of_many_tiny_parts_is_refused(kind: str) -> None:
    stored = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stored, kind)
    content = stored.getvalue()
    text = b"\0\0\0\x03tEXta\0b" + struct.pack(">I", zlib.crc32(b"tEXta\0b"))
    parts = {"PNG": (33, [text]), "JPEG": (2, [b"\xff\xe1\0\x02", b"\xff", b"\xff\0"])}
    place, each = parts[kind]
    for part in each:
        assert decode(content[:place] + part * 100 + content[place:], SPEC)[0].shape == (16, 16, 3)
        with pytest.raises(PictureError, match="too many small parts"):
            decode(content[:place] + part * 5000 + content[place:], SPEC)
