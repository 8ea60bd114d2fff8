"""Formats with unbounded decoders are decoded in processes that can be killed, with the library's pixels."""

import io
import os
import shutil
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from hangtag.errors import PictureError
from hangtag.pictures import ImageSpec, decode_noting_size, encode_jpeg, encode_png
from hangtag.serving import decoding
from hangtag.serving.decoding import decode, end_sandboxes, is_quick

SPEC = ImageSpec(8, 8, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def saved(form: str, pixels: np.ndarray = PIXELS) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def test_a_sandbox_decodes_as_the_library_and_is_used_again() -> None:
    for form in ("WEBP", "BMP", "GIF", "TIFF"):
        pixels, notes = decode(saved(form), SPEC)
        expected, expected_notes = decode_noting_size(saved(form), SPEC)
        assert np.array_equal(pixels, expected) and notes == expected_notes
    assert len(decoding._idle) == 1
    with pytest.raises(PictureError) as here:
        decode_noting_size(b"no picture at all", SPEC)
    with pytest.raises(PictureError) as there:
        decode(b"no picture at all", SPEC)
    assert (there.value.message, there.value.hint, there.value.kind) == (
        here.value.message, here.value.hint, here.value.kind)  # fmt: skip
    end_sandboxes()
    assert not decoding._idle


def test_a_decoder_that_hangs_or_crashes_ends_only_its_process() -> None:
    decode(saved("BMP"), SPEC)
    (sandbox,) = decoding._idle
    os.kill(sandbox.process.pid, signal.SIGSTOP)
    with pytest.raises(PictureError, match="takes more than"):
        decode(saved("BMP"), SPEC, seconds=0.1)
    assert not decoding._idle and sandbox.process.returncode == -signal.SIGKILL
    decode(saved("BMP"), SPEC)
    (sandbox,) = decoding._idle
    os.kill(sandbox.process.pid, signal.SIGKILL)
    decode(saved("BMP"), SPEC)
    end_sandboxes()


def test_a_sandbox_that_cannot_start_is_an_error_of_the_picture_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("true"))

    with pytest.raises(PictureError, match="its decoder crashed"):
        decode(saved("BMP"), SPEC)
    assert not decoding._idle


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP"])
def test_a_picture_over_the_limit_is_refused_by_its_header(form: str) -> None:
    with pytest.raises(PictureError, match="30x20 pixels, over the limit of 599") as refused:
        decode(saved(form), SPEC, most=599)
    assert refused.value.kind == "too large"
    assert decode(saved(form), SPEC, most=600)[0].shape == (20, 30, 3)
    end_sandboxes()


def test_small_pictures_of_bounded_formats_are_quick() -> None:
    large = np.zeros((1000, 1000), np.uint8)
    assert is_quick(encode_png(PIXELS)) and is_quick(encode_jpeg(PIXELS, 90)) and is_quick(b"")
    assert not any(map(is_quick, (encode_png(large), encode_jpeg(large, 50), saved("WEBP"), b"no picture")))
