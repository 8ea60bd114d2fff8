"""Any picture becomes one uint8 array by one path, or one PictureError that names it and says what to do."""

import io
import os
import struct
import sys
import tempfile
import threading
import zlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from hangtag import pictures as module
from hangtag.errors import PictureError
from hangtag.levels import Levels
from hangtag.pictures import (
    FORMATS,
    MAX_PIXELS,
    ROTATED,
    ImageSpec,
    check_images,
    decode,
    decode_noting_size,
    encode_png,
    examine,
    picture_bytes,
)
from hangtag.resize import Sizer
from pictures import encoded_heic, needs_heic, photo
from toys import in_a_process

GREY, COLOUR = ImageSpec(8, 8, background=0), ImageSpec(8, 8, channels=3, background=0)
RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (6, 5), dtype=np.uint8)
RGB = RANDOM.integers(0, 256, (6, 5, 3), dtype=np.uint8)
ALPHA = np.tile(np.array([0, 255], np.uint8), 15).reshape(6, 5)
DEEP = "16-bit or float pixels were scaled to 8 bits: 0 to {} became 0 to 255"
DEEP_16, DEEP_255, DEEP_1 = (DEEP.format(white) for white in ("65,535", "255", "1"))
FILLED = "transparency was filled with grey level 0"
GREYED = "colour was converted to grey"


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """ITU-R 601-2, in the fixed-point arithmetic that picture libraries share."""
    red, green, blue = np.moveaxis(rgb.astype(np.int64), -1, 0)
    return np.asarray((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16, dtype=np.uint8)


def stacked(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([grey] * 3, axis=-1)


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_that_declares(width: int, height: int) -> bytes:
    """A PNG file of one grey row, whatever size its header declares."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(width % 1000 + 1))
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def refusal(picture: Any, spec: ImageSpec = GREY) -> tuple[str, str]:
    """Message and hint with which `picture` is refused; both must say something."""
    with pytest.raises(PictureError) as caught:
        decode(picture, spec)
    assert caught.value.message and caught.value.hint
    return caught.value.message, caught.value.hint


def expect(picture: Any, spec: ImageSpec, pixels: NDArray[np.uint8], *notes: str) -> None:
    decoded, said = decode(picture, spec)
    np.testing.assert_array_equal(decoded, pixels, strict=True)
    assert said == notes


# --- arrays ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(28, 28), (1, 28, 28), (28, 28, 1), (1, 28, 28, 1)])
def test_a_grey_array_needs_no_particular_axes(shape: tuple[int, ...]) -> None:
    pixels = RANDOM.integers(0, 256, (28, 28), dtype=np.uint8)

    expect(pixels.reshape(shape), GREY, pixels)
    expect(pixels.reshape(shape), COLOUR, stacked(pixels))


@pytest.mark.parametrize("shape", [(6, 5, 3), (1, 6, 5, 3)])
def test_a_colour_array_needs_no_batch_axis(shape: tuple[int, ...]) -> None:
    expect(RGB.reshape(shape), COLOUR, RGB)
    expect(RGB.reshape(shape), GREY, luma(RGB), GREYED)


def test_an_array_with_alpha_is_laid_over_the_background() -> None:
    with_alpha = np.concatenate([RGB, ALPHA[..., None]], axis=2)

    expect(with_alpha, COLOUR, RGB * (ALPHA[..., None] == 255).astype(np.uint8), FILLED)


def test_views_are_decoded_as_they_look() -> None:
    expect(RGB[::-1, ::2], COLOUR, np.ascontiguousarray(RGB[::-1, ::2]))
    expect(PIXELS.T, GREY, np.ascontiguousarray(PIXELS.T))


@pytest.mark.parametrize(
    "shape",
    [(), (28,), (0, 0), (0, 28), (28, 0, 3), (2, 28, 28), (28, 28, 2), (28, 28, 5), (2, 6, 5, 3), (1, 1, 1, 6, 5)],
)
def test_an_array_that_is_not_one_picture_is_refused_with_its_shape(shape: tuple[int, ...]) -> None:
    assert refusal(np.zeros(shape, np.uint8)) == (
        f"array of shape {shape} is not a single image",
        "pass uint8 of (H, W), (H, W, 3), (1, H, W) or (3, H, W); for many images use .many() or .predict()",
    )


def test_channels_may_come_first() -> None:
    expect(np.ascontiguousarray(RGB.transpose(2, 0, 1)), COLOUR, RGB)
    for images in (np.stack([RGB] * 2), np.stack([PIXELS] * 2)[..., None]):
        np.testing.assert_array_equal(check_images(images.transpose(0, 3, 1, 2)), check_images(images))
        np.testing.assert_array_equal(check_images(list(images.transpose(0, 3, 1, 2))), check_images(images))


@pytest.mark.parametrize(
    ("shape", "hint"),
    [((), "give an array"), ((4,), "hangtag.read((files, labels))"), ((4, 64), "images.reshape(-1, height, width)"),
     ((4, 8, 8, 4), "images[..., :3]")],
)  # fmt: skip
def test_the_hint_for_images_of_a_wrong_shape_fits_the_shape(shape: tuple[int, ...], hint: str) -> None:
    with pytest.raises(PictureError) as caught:
        check_images(np.zeros(shape, np.uint8))

    assert hint in caught.value.hint


@pytest.mark.parametrize("kind", ["complex", "object", "U1", "datetime64[s]"])
def test_an_array_without_numbers_is_refused_with_the_way_out(kind: str) -> None:
    array = np.zeros((8, 8), kind)
    message = f"expected numbers, got {array.dtype}"
    hint = "pass uint8 pixels from 0 to 255: images.astype(numpy.uint8)"
    with pytest.raises(PictureError) as caught:
        check_images(array[None], "photos")

    assert refusal(array) == (f"image: {message}", hint)
    assert (caught.value.message, caught.value.hint) == (f"photos: {message}", hint)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e300])
def test_pixels_that_are_not_finite_are_refused(wrong: float) -> None:
    images = np.zeros((3, 8, 8))
    images[1, 2, 3] = wrong
    with pytest.raises(PictureError) as caught:
        check_images(images, "photos")

    assert refusal(images[1])[0] == "image: contains NaN or infinite pixels"
    assert caught.value.message == "photos: 1 of 3 images contain NaN or infinite pixels"


@pytest.mark.parametrize("kind", [np.uint16, np.int64, np.float32, np.float64])
def test_numbers_from_0_to_255_are_the_same_picture_in_every_type(kind: Any) -> None:
    np.testing.assert_array_equal(decode(PIXELS.astype(kind), GREY)[0], PIXELS)
    np.testing.assert_array_equal(decode(RGB.astype(kind), COLOUR)[0], RGB)
    np.testing.assert_array_equal(check_images(np.stack([PIXELS, PIXELS]).astype(kind))[0], PIXELS)


def test_truth_values_are_black_and_white() -> None:
    expect(PIXELS > 127, GREY, BILEVEL)


# --- PIL images ------------------------------------------------------------------------------------------------


def transparent_palette() -> Image.Image:
    """Two colours, the first of them see-through."""
    image = Image.fromarray((ALPHA // 255).astype(np.uint8), "L").convert("P")
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.info["transparency"] = 0
    return image


def deep(levels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return levels.astype(np.uint16) * 257


COLOUR_IMAGE = Image.fromarray(RGB)
GREY_IMAGE = Image.fromarray(PIXELS)
GREY_ALPHA = Image.merge("LA", (GREY_IMAGE, Image.fromarray(ALPHA)))
COLOUR_ALPHA = Image.merge("RGBA", (*COLOUR_IMAGE.split(), Image.fromarray(ALPHA)))
OPAQUE = COLOUR_IMAGE.convert("RGBA")
BILEVEL = np.where(PIXELS > 127, 255, 0).astype(np.uint8)
VISIBLE = np.where(ALPHA == 255, PIXELS, 0).astype(np.uint8)
VISIBLE_RGB = RGB * (ALPHA[..., None] == 255)
TWO_COLOURS = np.where(ALPHA[..., None] == 255, np.array([200, 100, 50], np.uint8), np.uint8(0))
CMYK = COLOUR_IMAGE.convert("CMYK")

MODES: dict[str, tuple[Image.Image, NDArray[np.uint8], tuple[str, ...], NDArray[np.uint8], tuple[str, ...]]] = {
    # name: image, as grey, notes, as colour, notes
    "1": (Image.fromarray(PIXELS > 127), BILEVEL, (), stacked(BILEVEL), ()),
    "L": (GREY_IMAGE, PIXELS, (), stacked(PIXELS), ()),
    "LA": (GREY_ALPHA, VISIBLE, (FILLED,), stacked(VISIBLE), (FILLED,)),
    "LA, opaque": (GREY_IMAGE.convert("LA"), PIXELS, (), stacked(PIXELS), ()),
    "RGB": (COLOUR_IMAGE, luma(RGB), (GREYED,), RGB, ()),
    "RGBA": (COLOUR_ALPHA, luma(VISIBLE_RGB), (FILLED, GREYED), VISIBLE_RGB, (FILLED,)),
    "RGBA, opaque": (OPAQUE, luma(RGB), (GREYED,), RGB, ()),
    "RGBa": (COLOUR_ALPHA.convert("RGBa"), luma(VISIBLE_RGB), (FILLED, GREYED), VISIBLE_RGB, (FILLED,)),
    "P": (transparent_palette(), luma(TWO_COLOURS), (FILLED, GREYED), TWO_COLOURS, (FILLED,)),
    "CMYK": (CMYK, luma(RGB), (GREYED,), RGB, ()),
    "I;16": (Image.fromarray(deep(PIXELS)), PIXELS, (DEEP_16,), stacked(PIXELS), (DEEP_16,)),
    "I": (Image.fromarray(deep(PIXELS).astype(np.int32)), PIXELS, (DEEP_16,), stacked(PIXELS), (DEEP_16,)),
    "F, 0-255": (Image.fromarray(PIXELS.astype(np.float32)), PIXELS, (DEEP_255,), stacked(PIXELS), (DEEP_255,)),
    "F, 0-1": (Image.fromarray(PIXELS.astype(np.float32) / 255), PIXELS, (DEEP_1,), stacked(PIXELS), (DEEP_1,)),
}


@pytest.mark.parametrize("name", MODES)
def test_a_pil_image_of_any_mode_becomes_grey_or_colour(name: str) -> None:
    image, as_grey, grey_notes, as_colour, colour_notes = MODES[name]

    expect(image, GREY, as_grey, *grey_notes)
    expect(image, COLOUR, as_colour.astype(np.uint8), *colour_notes)


@pytest.mark.parametrize("mode", ["PA", "La", "LAB", "HSV", "YCbCr"])
def test_a_rare_mode_can_be_read_as_grey_and_as_colour(mode: str) -> None:
    size = {"La": 60, "PA": 60}.get(mode, 90)
    image = Image.frombytes(mode, (5, 6), bytes(range(size)))

    assert decode(image, GREY)[0].shape == (6, 5)
    assert decode(image, COLOUR)[0].shape == (6, 5, 3)


@pytest.mark.parametrize("background", [0, 128, 255])
def test_half_transparent_pixels_mix_with_the_background(background: int) -> None:
    picture = Image.new("LA", (2, 2), (100, 128))

    pixels, notes = decode(picture, ImageSpec(8, 8, background=background))

    assert np.abs(pixels.astype(int) - round(100 * 128 / 255 + background * 127 / 255)).max() <= 1
    assert notes == (f"transparency was filled with grey level {background}",)


@pytest.mark.parametrize(
    ("values", "span"),
    [
        (np.array([[-1.0, 2.0]], np.float32), "-1 to 2"),
        (np.array([[0.0, 1e6]], np.float32), "0 to 1,000,000"),
        (np.array([[3, 4095]], np.int32), "3 to 4,095"),  # 12 bits, or a dark picture of 16
        (np.array([[-5, 7]], np.int32), "-5 to 7"),
        (np.array([[0, 70_000]], np.int32), "0 to 70,000"),
    ],
)
def test_deep_pixels_without_an_agreed_meaning_are_refused(values: NDArray[Any], span: str) -> None:
    assert refusal(Image.fromarray(values)) == (
        f"image: pixel values range from {span}, which is not a known scale",
        "save it with 8 or 16 bits, or as floats from 0 to 1",
    )


def test_a_pil_image_is_left_as_it_was() -> None:
    image = COLOUR_ALPHA.copy()

    decode(image, GREY)

    assert (image.mode, image.tobytes()) == ("RGBA", COLOUR_ALPHA.tobytes())


def test_a_pil_image_without_pixels_is_refused() -> None:
    assert refusal(Image.new("L", (0, 4))) == ("image: the size is 0x4, so there are no pixels", "remove it")


# --- files and bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_every_form_of_one_lossless_picture_is_the_same_picture(tmp_path: Path, kind: str) -> None:
    content = file_of(GREY_IMAGE, kind)
    path = tmp_path / "any name at all.txt"
    path.write_bytes(content)

    with Image.open(io.BytesIO(content)) as lazily_opened:
        forms = [decode(form, GREY) for form in (path, str(path), content, lazily_opened, GREY_IMAGE, PIXELS)]

    assert [(pixels.tobytes(), pixels.shape) for pixels, _ in forms] == [(PIXELS.tobytes(), (6, 5))] * 6


@pytest.mark.parametrize("kind", FORMATS)
def test_every_known_format_can_be_read(kind: str) -> None:
    flat = Image.new("RGB", (16, 16), (200, 40, 90))

    pixels, _ = decode(file_of(flat, kind), COLOUR)

    assert np.abs(pixels.astype(int) - np.array([200, 40, 90])).max() <= 12  # the lossy ones move a little


def test_an_array_can_be_read_while_another_thread_imports_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", ModuleType("PIL.Image"))  # empty, as at the beginning of its import

    expect(PIXELS, GREY, PIXELS)
    assert not module.is_one_picture(PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation: int) -> None:
    turned = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.T,
        6: np.rot90(PIXELS, -1),
        7: PIXELS[::-1, ::-1].T,
        8: np.rot90(PIXELS, 1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation

    notes = () if orientation == 1 else (ROTATED,)
    expect(file_of(GREY_IMAGE, "PNG", exif=exif), GREY, np.ascontiguousarray(turned), *notes)


@pytest.mark.parametrize(("kind", "count", "value"), [(3, 1, b"\0\0"), (3, 1, b"\0\x63"), (2, 4, b"six")])
def test_an_orientation_that_exif_does_not_know_changes_nothing(kind: int, count: int, value: bytes) -> None:
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHI4sI", 8, 1, 0x0112, kind, count, value, 0)
    large = file_of(Image.new("L", (900, 1200), 7), "JPEG", exif=exif)  # is decoded at reduced size

    expect(file_of(GREY_IMAGE, "PNG", exif=exif), GREY, PIXELS)
    assert ROTATED not in decode(large, GREY)[1]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_used_and_said(kind: str) -> None:
    frames = [Image.new("L", (6, 6), level) for level in (10, 240)]
    options = {"lossless": True} if kind == "WEBP" else {}

    pixels, notes = decode(
        file_of(frames[0], kind, save_all=True, append_images=frames[1:], **options), ImageSpec(6, 6)
    )

    assert (pixels.tolist(), notes[0]) == ([[10] * 6] * 6, "animated: the first of 2 frames was used")


def test_of_an_animation_opened_at_a_later_frame_the_first_is_used() -> None:
    frames = [Image.new("L", (6, 6), level) for level in (10, 240)]
    with Image.open(io.BytesIO(file_of(frames[0], "GIF", save_all=True, append_images=frames[1:]))) as opened:
        opened.seek(1)

        pixels, _ = decode(opened, ImageSpec(6, 6))

    assert pixels.tolist() == [[10] * 6] * 6


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_a_png_palette_may_be_transparent(transparency: int | bytes) -> None:
    content = file_of(transparent_palette(), "PNG", transparency=transparency)

    expect(content, COLOUR, TWO_COLOURS, FILLED)


def test_a_grey_png_may_name_one_level_transparent() -> None:
    content = file_of(Image.fromarray(BILEVEL), "PNG", transparency=0)

    expect(content, ImageSpec(8, 8, background=7), np.where(BILEVEL == 0, 7, 255).astype(np.uint8),
           "transparency was filled with grey level 7")  # fmt: skip


def test_a_16_bit_png_file_is_scaled() -> None:
    expect(file_of(Image.fromarray(deep(PIXELS)), "PNG"), GREY, PIXELS, DEEP_16)


def test_a_12_bit_cmyk_picture_is_refused_in_every_form(tmp_path: Path) -> None:
    """Pillow decodes 12 bits per channel of greyscale only; the wrong pixels would be worse than an error."""
    jpeg = bytearray(file_of(CMYK, "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 1], jpeg[frame + 4] = 0xC1, 12  # extended sequential, 12 bits
    tiff = bytearray(file_of(CMYK, "TIFF"))
    depths = tiff.index(struct.pack("<4H", 8, 8, 8, 8))
    tiff[depths : depths + 8] = struct.pack("<4H", 12, 12, 12, 12)
    for content in (bytes(jpeg), bytes(tiff)):
        path = tmp_path / "picture"
        path.write_bytes(content)
        for picture in (content, path, io.BytesIO(content)):
            with pytest.raises(PictureError, match="not an image that hangtag can read"):
                decode(picture, COLOUR)


def test_a_cmyk_jpeg_is_read_as_colour() -> None:
    flat = Image.new("RGB", (16, 16), (200, 40, 90))

    pixels, _ = decode(file_of(flat.convert("CMYK"), "JPEG", quality=100), COLOUR)

    assert np.abs(pixels.astype(int) - np.array([200, 40, 90])).max() <= 3


PNG_FILE, JPEG_FILE = (file_of(Image.fromarray(np.tile(RGB, (4, 4, 1))), kind) for kind in ("PNG", "JPEG"))
KNOWN = f"known formats: {', '.join(FORMATS)} and HEIC; the file's content decides, not its extension"
TOO_LARGE = "pixels, over the limit of 80,000,000"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "the file is empty", "replace it with an image"),
        (b"these are words\n" * 9, "not an image that hangtag can read", KNOWN),
        (b"%PDF-1.7 and so on", "not an image that hangtag can read", KNOWN),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image that hangtag can read", KNOWN),
        (PNG_FILE[: len(PNG_FILE) // 2], "truncated or damaged image", "save or download it again"),
        (PNG_FILE[:45], "truncated or damaged image", "save or download it again"),
        (PNG_FILE[:20], "truncated or damaged image", "save or download it again"),
        (JPEG_FILE[:300], "truncated or damaged image", "save or download it again"),
        (JPEG_FILE[:-100], "truncated or damaged image", "save or download it again"),
        (png_that_declares(100_000, 100_000), f"declares 100000x100000 {TOO_LARGE}", "scale it down first"),
        (png_that_declares(20_000, 9_000), f"declares 20000x9000 {TOO_LARGE}", "scale it down first"),
        (png_that_declares(10_000, 9_000), f"declares 10000x9000 {TOO_LARGE}", "scale it down first"),
        (png_that_declares(9_000, 9_000), f"declares 9000x9000 {TOO_LARGE}", "scale it down first"),
    ],
    ids=[
        "empty", "text", "PDF", "PostScript", "PNG cut in the pixels", "PNG cut before the pixels",
        "PNG cut in the header", "JPEG cut in the header", "JPEG cut in the pixels", "10,000 megapixels", "180 megapixels", "90 megapixels",  # noqa: E501
        "81 megapixels",
    ],
)  # fmt: skip
def test_a_file_that_is_no_picture_is_refused_with_its_name(
    tmp_path: Path, content: bytes, message: str, hint: str
) -> None:
    path = tmp_path / "shoe.png"
    path.write_bytes(content)

    assert refusal(path) == (f"{path}: {message}", hint)
    assert refusal(content) == (f"image of {len(content):,} bytes: {message}", hint)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"), (b"words", "not an image"), (PNG_FILE[:45], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(100)), "damaged"), (png_that_declares(20_000, 9_000), "too large"),
        (file_of(Image.fromarray(np.array([[np.nan, 2.0]], np.float32)), "TIFF"), "NaN pixels"),
    ],
)  # fmt: skip
def test_an_error_carries_the_kind_of_problem(content: bytes, kind: str) -> None:
    with pytest.raises(PictureError) as caught:
        examine(content)

    assert (caught.value.kind, caught.value.message) == (kind, caught.value.reason)


def test_a_png_without_width_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "thin.png"
    path.write_bytes(png_that_declares(0, 8))

    message, _ = refusal(path)

    assert message.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("missing.png", "no such file", "check the spelling and the folder you are in"),
        ("folder", "is a folder, not an image", "name the files: {path}/*.png"),
        ("no\0name", "cannot be read: embedded null byte", "check the path"),
        ("file/below", "cannot be read: [Errno 20] Not a directory: '{path}'", "check the path"),
        ("x" * 300, "cannot be read: [Errno 36] File name too long: '{path}'", "check the path"),
    ],
)
def test_a_path_without_a_file_is_refused_with_its_name(tmp_path: Path, name: str, message: str, hint: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    path = tmp_path / name

    assert refusal(str(path)) == (f"{path}: {message.format(path=path)}", hint.format(path=path))


def test_a_file_that_may_not_be_read_is_refused_with_its_name() -> None:
    program = """
import os
from pathlib import Path
from hangtag.errors import PictureError
from hangtag.levels import Levels
from hangtag.pictures import ImageSpec, decode
Path("secret.png").write_bytes(b"x")
Path("secret.png").chmod(0)
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    decode("secret.png", ImageSpec(8, 8))
except PictureError as error:
    print(error)
"""
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        os.chmod(folder, 0o755)  # noqa: PTH101
        printed = in_a_process(program, Path(folder))

    assert printed == "secret.png: permission denied (check the file's permissions)\n"


@pytest.mark.parametrize("thing", [None, 3, {1, 2}, object])
def test_a_thing_that_is_no_picture_is_refused_with_its_type(thing: object) -> None:
    assert refusal(thing) == (
        f"expected an image, got {type(thing).__name__}",
        "pass a path, an open file, bytes, a PIL image or an array",
    )


def test_pictures_can_be_decoded_in_many_threads() -> None:
    outcomes: list[str] = []

    def work(content: bytes) -> None:
        try:
            decode(content, GREY)
            outcomes.append("fine")
        except PictureError as error:
            outcomes.append(error.message.split(":")[1][:9])

    huge = png_that_declares(10_000, 9_000)
    threads = [threading.Thread(target=work, args=(content,)) for content in [PNG_FILE, huge] * 20]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == [" declares"] * 20 + ["fine"] * 20


# --- bare PNG files, which take a shorter way ---------------------------------------------------------------------


def bare_pngs() -> dict[str, bytes]:
    """Small PNG files of every filter and compression, without any further chunk."""
    random, found = np.random.default_rng(1), {}
    for height, width in ((1, 1), (5, 6), (28, 28), (33, 40)):
        y, x = np.mgrid[0:height, 0:width]
        smooth = (x * 5 + y * 3 + random.integers(0, 4, (height, width))).astype(np.uint8)
        for name, pixels in (("grey", smooth), ("colour", np.stack([smooth, 255 - smooth, smooth // 2], axis=2))):
            for level in (0, 1, 9):
                image = Image.fromarray(pixels)
                found[f"{name} {width}x{height}, level {level}"] = file_of(image, "PNG", compress_level=level)
    header = struct.pack(">IIBBBBB", 6, 5, 8, 0, 0, 0, 0)
    for filtered in range(6):  # there is no filter 5
        rows = b"".join(bytes([filtered, *random.integers(0, 256, 6).tolist()]) for _ in range(5))
        for what, body in (("", rows), (", too short", rows[:-3]), (", too long", rows + bytes(40))):
            chunks = png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(body)), png_chunk(b"IEND", b"")
            found[f"filter {filtered}{what}"] = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    return found


def examined(content: bytes) -> tuple[object, ...]:
    """Everything `examine` says about a file, and `decode_noting_size` for a grey and a colour model."""
    found: list[object] = []
    for read in (examine, *(partial(decode_noting_size, spec=ImageSpec(5, 4, channels)) for channels in (1, 3))):
        try:
            pixels, *others = read(content)  # type: ignore[operator]
        except PictureError as error:
            found += [error.message, error.hint, error.kind]
        else:
            found += [pixels.shape, pixels.dtype, pixels.tobytes(), *others]
    return tuple(found)


@pytest.mark.parametrize("kind", bare_pngs())
def test_a_bare_png_is_read_exactly_as_any_other_file(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content, random = bare_pngs()[kind], np.random.default_rng(2)
    files = [content, content + b"x", content[:-1], content[:33] + png_chunk(b"tRNS", b"\0\0") + content[33:]]
    for _ in range(200):  # one damaged byte each; half of them with check sums that fit again
        damaged = bytearray(content)
        damaged[random.integers(len(damaged))] = random.integers(256)
        if random.random() < 0.5:
            damaged[29:33] = struct.pack(">I", zlib.crc32(damaged[12:29]))
        if max(struct.unpack(">II", damaged[16:24])) < 1000:  # larger ones take their time
            files.append(bytes(damaged))

    short = [examined(each) for each in files]
    monkeypatch.setattr(module, "_bare_png", lambda *_: None)

    assert short == [examined(each) for each in files]


def test_a_bare_png_takes_the_short_way() -> None:
    assert module._bare_png(PNG_FILE) is not None
    assert module._bare_png(png_that_declares(10_000, 9_000)) is None


# --- properties ------------------------------------------------------------------------------------------------

PICTURES = {
    "grey PNG": file_of(GREY_IMAGE, "PNG"),
    "palette PNG": file_of(transparent_palette(), "PNG"),
    "animated PNG": file_of(GREY_IMAGE, "PNG", save_all=True, append_images=[Image.fromarray(255 - PIXELS)]),
    "JPEG": JPEG_FILE,
    "CMYK JPEG": file_of(CMYK, "JPEG"),
    "animated GIF": file_of(GREY_IMAGE, "GIF", save_all=True, append_images=[Image.fromarray(255 - PIXELS)]),
    "TIFF": file_of(COLOUR_IMAGE, "TIFF"),
    "BMP": file_of(COLOUR_IMAGE, "BMP"),
    "16-bit PNG": file_of(Image.fromarray(deep(PIXELS)), "PNG"),
    "array": picture_bytes(deep(PIXELS)),
}


@pytest.mark.parametrize("kind", PICTURES)
@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_a_damaged_file_is_decoded_or_refused_but_never_crashes(kind: str, data: st.DataObject) -> None:
    content = bytearray(PICTURES[kind])
    places = st.integers(0, len(content) - 1)
    for place, byte in data.draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=6)):
        content[place] = byte
    cut = data.draw(st.one_of(st.just(len(content)), places))

    try:
        pixels, _ = decode(bytes(content[:cut]), GREY)
    except PictureError as error:
        assert error.message.startswith(f"image of {cut:,} bytes: ")
    else:
        assert (pixels.dtype.name, pixels.ndim) == ("uint8", 2)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(arrays(np.uint8, st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))
)))  # fmt: skip
def test_a_picture_survives_being_saved_as_png(pixels: NDArray[np.uint8]) -> None:
    expect(encode_png(pixels), COLOUR if pixels.ndim == 3 else GREY, pixels)


# --- many images and their spec --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_shape", "shape"),
    [((4, 8, 9), (4, 8, 9)), ((4, 8, 9, 1), (4, 8, 9)), ((4, 8, 9, 3), (4, 8, 9, 3)), ((0, 8, 9), (0, 8, 9))],
)
def test_arrays_of_images_are_accepted(given_shape: tuple[int, ...], shape: tuple[int, ...]) -> None:
    assert check_images(np.zeros(given_shape, np.uint8)).shape == shape


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 9), np.uint8), "images: expected shape (N, H, W) or (N, H, W, 3), got (8, 9)"),
        (np.zeros((5, 784), np.uint8), "images: expected shape (N, H, W) or (N, H, W, 3), got (5, 784)"),
        (np.zeros((5, 8, 8, 4), np.uint8), "images: expected shape (N, H, W) or (N, H, W, 3), got (5, 8, 8, 4)"),
        (np.zeros((5, 0, 8), np.uint8), "images: images of shape (0, 8) have no pixels"),
        ([np.zeros((2, 2), np.uint8), np.zeros((3, 3), np.uint8)], "images: images must have one size, got several"),
        ("photos/", "images: expected shape (N, H, W) or (N, H, W, 3), got ()"),
        (None, "images: expected shape (N, H, W) or (N, H, W, 3), got ()"),
    ],
)
def test_what_is_not_an_array_of_images_is_refused(images: object, message: str) -> None:
    with pytest.raises(PictureError) as caught:
        check_images(images)

    assert (caught.value.message, bool(caught.value.hint)) == (message, True)


@pytest.mark.parametrize(
    ("shape", "spec", "says"),
    [
        ((4, 6, 5), ImageSpec(6, 5, 1, 30), "5x6 grey"),
        ((4, 6, 5, 3), ImageSpec(6, 5, 3, 30), "5x6 colour"),
    ],
)
def test_a_spec_is_read_off_the_images(shape: tuple[int, ...], spec: ImageSpec, says: str) -> None:
    images = np.full(shape, 30, np.uint8)
    images[:, 1:-1, 1:-1] = 200  # what is shown does not matter, the border does

    found = ImageSpec.of(images)

    assert (found, found.shape, str(found)) == (spec, shape[1:], says)
    assert found.to_json() == {"height": 6, "width": 5, "channels": spec.channels, "background": 30, "fit": "squash"}


def test_the_limit_on_pixels_is_that_of_the_documentation() -> None:
    assert MAX_PIXELS == 80_000_000


# --- HEIC ------------------------------------------------------------------------------------------------------


@needs_heic
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_photo_is_turned_upright_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo_of = Image.fromarray(photo(1, 40, 64))
    wanted, _ = decode(file_of(photo_of, "PNG", exif=exif), COLOUR)

    found, notes = decode(encoded_heic(photo_of, orientation), COLOUR)

    assert (found.shape, notes) == (wanted.shape, ())
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 3  # what YCbCr rounds


@needs_heic
@pytest.mark.parametrize(("mode", "says"), [("RGB", ()), ("L", ()), ("RGBA", (FILLED,)), ("I;16", (DEEP_16,))])
def test_heic_pictures_of_every_mode(mode: str, says: tuple[str, ...]) -> None:
    image = Image.fromarray(photo(2, 32, 48)).convert("L")
    image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(np.full((32, 48), 128, np.uint8)))
    wanted, _ = decode(image, COLOUR)

    found, notes = decode(encoded_heic(image), COLOUR)

    assert notes == says
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 3


@needs_heic
def test_of_several_pictures_in_a_heic_file_the_main_one_is_used() -> None:
    frames = [Image.new("L", (32, 32), level) for level in (10, 240, 60)]

    pixels, notes = decode(encoded_heic(frames[0], append_images=frames[1:], save_all=True, primary_index=1), GREY)

    assert abs(int(pixels[16, 16]) - 240) <= 3
    assert notes == ("the file contains several images; the main one was used",)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_a_scan_of_200_megapixels_is_refused_with_its_number_of_pixels(kind: str) -> None:
    content = bytearray(file_of(Image.new("L", (64, 48)), kind))
    if kind == "JPEG":
        place = content.index(b"\xff\xc0") + 5
        content[place : place + 4] = struct.pack(">HH", 12_500, 16_000)
    else:
        for tag, side in ((256, 16_000), (257, 12_500)):
            place = content.index(struct.pack("<H", tag), struct.unpack("<I", content[4:8])[0]) + 2
            content[place : place + 10] = struct.pack("<HII", 4, 1, side)

    assert "declares 200,000,000 pixels, over the limit of 80,000,000" in refusal(bytes(content))[0]


@needs_heic
def test_a_heic_picture_larger_than_allowed_is_refused_before_it_is_decoded() -> None:
    content = bytearray(encoded_heic(Image.new("L", (64, 64))))
    place = content.index(b"ispe") + 8
    content[place : place + 8] = struct.pack(">II", 20_000, 20_000)

    assert "20000x20000 pixels, over the limit" in refusal(bytes(content))[0]


@needs_heic
def test_a_heic_file_cut_short_is_refused() -> None:
    content = encoded_heic(Image.fromarray(photo(1, 40, 64)))

    assert "truncated or damaged" in refusal(content[: len(content) * 2 // 3])[0]


def test_a_heic_picture_without_its_extra_is_refused_with_the_way_to_get_it() -> None:
    program = """
import sys
sys.modules["pillow_heif"] = None  # as if it were not installed
from hangtag.errors import PictureError
from hangtag.levels import Levels
from hangtag.pictures import ImageSpec, decode
try:
    decode(b"\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic", ImageSpec(8, 8))
except PictureError as error:
    print(error)
"""
    said = "image of 24 bytes: HEIC images need hangtag[heic], which is not installed (pip install 'hangtag[heic]')\n"
    assert in_a_process(program, Path.cwd()) == said


def test_reading_other_pictures_never_loads_what_reads_heic() -> None:
    program = """
import sys, numpy
from hangtag.pictures import ImageSpec, decode, encode_png, reads_heic
decode(encode_png(numpy.zeros((8, 8), numpy.uint8)), ImageSpec(8, 8))
reads_heic()
print("pillow_heif" in sys.modules)
"""
    assert in_a_process(program, Path.cwd()) == "False\n"


# --- the bytes of a picture in memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODES)
def test_a_pil_image_as_bytes_is_the_same_picture(name: str) -> None:
    image = MODES[name][0]

    pixels, _ = decode(picture_bytes(image), COLOUR)

    np.testing.assert_array_equal(pixels, decode(image, COLOUR)[0])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_pil_image_as_bytes_is_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(file_of(COLOUR_IMAGE, "PNG", exif=exif))) as opened:
        pixels, _ = decode(picture_bytes(opened), COLOUR)
        wanted, _ = decode(opened, COLOUR)

    np.testing.assert_array_equal(pixels, wanted)


# --- every mode and depth, in every way a picture can enter -----------------------------------------------------


def png_16(pixels: NDArray[np.uint16], transparent: bytes = b"") -> bytes:
    """A PNG file of 16 bits per channel: grey, grey with alpha, RGB or RGBA, by the number of channels."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels))
    extra = png_chunk(b"tRNS", transparent) if transparent else b""
    return (
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    )


def tiff(pixels: NDArray[Any], order: str = "<", turned: bool = False, **how: Any) -> bytes:
    buffer = io.BytesIO()
    tags = [(274, "H", 1, 6, True)] if turned else []
    tifffile.imwrite(buffer, pixels, byteorder=order, extratags=tags, metadata=None, **how)
    return buffer.getvalue()


COLOUR_16 = RANDOM.integers(0, 65_536, (6, 5, 3)).astype(np.uint16)
GREY_16, ALPHA_16 = COLOUR_16[..., :1], deep(ALPHA)[..., None]
CENTRE = np.s_[2, 3]
FILES: dict[str, bytes] = {
    **{f"{name}.PNG": file_of(image, "PNG") for name, (image, *_) in MODES.items()
       if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")},
    **{f"{name}.TIFF": file_of(image, "TIFF") for name, (image, *_) in MODES.items() if image.mode != "RGBa"},
    "YCbCr.TIFF": file_of(COLOUR_IMAGE.convert("YCbCr"), "TIFF"),
    "LAB.TIFF": file_of(Image.frombytes("LAB", (5, 6), RGB.tobytes()), "TIFF"),
    "PA.TIFF": file_of(transparent_palette(), "PNG", transparency=bytes([0, 255])),
    "16-bit grey.PNG": png_16(GREY_16),
    "16-bit grey with a transparent value.PNG": png_16(GREY_16, GREY_16[CENTRE].astype(">u2").tobytes()),
    "16-bit grey and alpha.PNG": png_16(np.concatenate([GREY_16, ALPHA_16], axis=2)),
    "16-bit RGB.PNG": png_16(COLOUR_16),
    "16-bit RGB with a transparent colour.PNG": png_16(COLOUR_16, COLOUR_16[CENTRE].astype(">u2").tobytes()),
    "16-bit RGBA.PNG": png_16(np.concatenate([COLOUR_16, ALPHA_16], axis=2)),
    **{f"{kind}, {order} {name}.TIFF": tiff(pixels.astype(kind), order, turned=name == "turned", **how)
       for order in "<>" for kind, pixels, name, how in [
           (np.uint16, GREY_16[..., 0], "grey", {}), (np.uint16, GREY_16[..., 0], "turned", {}),
           (np.uint16, COLOUR_16, "RGB", {}), (np.uint16, COLOUR_16, "turned", {}),
           (np.uint16, COLOUR_16, "zlib", {"compression": "zlib"}),
           (np.uint16, GREY_16[..., 0], "zlib", {"compression": "zlib"}),
           (np.uint16, np.concatenate([COLOUR_16, ALPHA_16], axis=2), "RGBA", {"extrasamples": ["unassalpha"]}),
           (np.float32, GREY_16[..., 0] / 65_535, "float", {}), (np.int32, GREY_16[..., 0], "32-bit", {}),
           (np.int16, GREY_16[..., 0] // 2, "signed", {}), (np.float32, GREY_16[..., 0] - 30_000.0, "below zero", {}),
       ]},
}  # fmt: skip


def outcome(read: Any) -> Any:
    """The shape and bytes of pixels, or the error without the name of the picture."""
    try:
        pixels = read()
    except PictureError as error:
        return error.kind, error.reason
    return pixels.shape, pixels.tobytes()


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_the_same_picture_in_every_way_it_can_enter(name: str, spec: ImageSpec, tmp_path: Path) -> None:
    content = FILES[name]
    path = tmp_path / "picture"
    path.write_bytes(content)
    written = io.BytesIO()
    written.write(content)
    with path.open("rb") as file, Image.open(path) as lazily_opened, Image.open(path) as opened:
        ways: list[Any] = [path, str(path), content, bytearray(content), memoryview(content), written, file, opened]
        found = [outcome(lambda way=way: decode(way, spec)[0]) for way in ways]
        as_bytes = [outcome(lambda way=way: decode(picture_bytes(way), spec)[0]) for way in [*ways[:-1], lazily_opened]]

    assert found == [found[0]] * len(ways)
    assert as_bytes == found


MEMORY: dict[str, Image.Image] = {
    **{name: image for name, (image, *_) in MODES.items()},
    **{f"I;16{order}": Image.frombytes(f"I;16{order}", (5, 6), deep(PIXELS).tobytes()) for order in ("", "L", "N")},
    "I;16B": Image.frombytes("I;16B", (5, 6), deep(PIXELS).astype(">u2").tobytes()),
    **{mode: Image.frombytes(mode, (5, 6), RGB.tobytes()) for mode in ("LAB", "HSV", "YCbCr")},
    "La": GREY_ALPHA.convert("La"), "PA": transparent_palette().convert("PA"), "RGBX": COLOUR_IMAGE.convert("RGBX"),
    "I, 12 bits": Image.fromarray(np.array([[1800, 1840]], np.int32)),
    "F, not a number": Image.fromarray(np.array([[np.nan, 1]], np.float32)),
}  # fmt: skip


@pytest.mark.parametrize("spec", [GREY, COLOUR], ids=["grey", "colour"])
@pytest.mark.parametrize("name", MEMORY)
def test_a_picture_in_memory_is_the_same_as_image_array_list_and_bytes(name: str, spec: ImageSpec) -> None:
    image = MEMORY[name]
    ways: list[Any] = [image, image.copy(), picture_bytes(image)]
    if image.mode in ("1", "L", "RGB", "F") or image.mode.startswith("I"):
        ways += [np.asarray(image), np.asarray(image).tolist(), picture_bytes(np.asarray(image))]
        ways += [np.asarray(image)[np.newaxis], picture_bytes(np.asarray(image)[np.newaxis])]

    found = [outcome(lambda way=way: decode(way, spec)[0]) for way in ways]

    assert found == [found[0]] * len(ways)


def test_16_bits_of_a_colour_file_are_read_whole() -> None:
    pixels = np.linspace(1800, 1840, 90).round().reshape(6, 5, 3).astype(np.uint16)
    spec = ImageSpec(6, 5, 3, integers=Levels(1800, 1840, 1800, 1840))
    wanted = np.rint((pixels - 1800.0) * (255 / 40)).astype(np.uint8)

    for content in (png_16(pixels), tiff(pixels), tiff(pixels, ">"), tiff(pixels, compression="zlib")):
        np.testing.assert_array_equal(decode(content, spec)[0], wanted)
        np.testing.assert_array_equal(examine(content, spec).pixels, wanted)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }", "Python objects, which are never loaded"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (99999, 99999), }", "damaged image"),
        ("{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 2), }", "damaged image"),
        ("{'descr': '<u2', 'fortran_order': __import__('os').abort(), 'shape': (2, 2), }", "damaged image"),
        ("(" * 5000, "damaged image"),
    ],
)
def test_an_array_file_of_a_stranger_is_refused(header: str, says: str) -> None:
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)

    assert says in refusal(content)[0]


def test_a_tiff_file_whose_0_is_white_is_the_same_picture_in_every_depth() -> None:
    grey = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    shallow = tiff(255 - grey, photometric="miniswhite")
    deep = tiff((255 - grey).astype(np.uint16) * 257, photometric="miniswhite")
    floats = tiff(((255 - grey) / 255).astype(np.float32), photometric="miniswhite")
    spec = ImageSpec(8, 8)

    for content in (shallow, deep, Image.open(io.BytesIO(deep)), io.BytesIO(deep), floats):
        assert (decode(content, spec)[0] == grey).all()
    assert (examine(deep).pixels == grey).all()
    assert (examine(picture_bytes(Image.open(io.BytesIO(deep)))).pixels == grey).all()


def test_a_pointer_of_git_lfs_is_called_so() -> None:
    with pytest.raises(PictureError, match="a Git LFS pointer") as caught:
        decode(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", ImageSpec(8, 8))
    assert caught.value.hint == "run: git lfs pull"


def test_devices_pipes_and_very_large_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(b"x" * 101)
    monkeypatch.setattr(module, "LARGEST_FILE", 100)

    for path, message in (
        ("/dev/zero", "is a device or a pipe, not an image"),
        (tmp_path / "pipe.png", "is a device or a pipe, not an image"),
        (tmp_path / "large.png", "is larger than 100 bytes"),
        ("", "a path is empty"),
    ):
        with pytest.raises(PictureError, match=message) as caught:
            decode(path, ImageSpec(8, 8))
        assert "(" not in caught.value.message  # one hint, not the text of an error with its own


def jpeg(width: int, height: int, **options: Any) -> bytes:
    """A JPEG file with smooth shapes and some noise."""
    random = np.random.default_rng(0)
    small = Image.fromarray(random.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    noisy = pixels + random.normal(0, 5, pixels.shape).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("size", "side", "found"),
    [
        ((1100, 1023), 28, (1100, 1023)),  # half would be less than 512
        ((1100, 1024), 28, (550, 512)),
        ((1100, 1024), 128, (550, 512)),
        ((1100, 1024), 129, (1100, 1024)),  # half would be less than four times the model's size
        ((2051, 2200), 28, (513, 550)),
    ],
)
def test_a_jpeg_far_larger_than_the_models_size_is_decoded_at_reduced_size(
    size: tuple[int, int], side: int, found: tuple[int, int]
) -> None:
    content, spec = jpeg(*size), ImageSpec(side, side, 3)

    pixels, notes = decode_noting_size(content, spec)
    examined = examine(content, spec)

    assert pixels.shape == (*found[::-1], 3)
    assert notes[0].startswith(f"resized from {size[0]}x{size[1]} to {side}x{side}")
    assert np.array_equal(examined.pixels, pixels)
    assert examined.size == size


def test_a_reduced_jpeg_looks_as_the_whole_one_to_the_model() -> None:
    content, spec = jpeg(2200, 2051), ImageSpec(64, 64, 3)

    reduced = Sizer(spec)(decode(content, spec)[0]).astype(int)
    whole = Sizer(spec)(np.asarray(Image.open(io.BytesIO(content)))).astype(int)

    assert np.abs(reduced - whole).max() <= 4 and np.abs(reduced - whole).mean() < 0.5


@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_is_not_reduced_where_rounding_would_move_the_picture_in_its_frame(turned: bool) -> None:
    spec = ImageSpec(*((40, 100) if turned else (100, 40)), 3, fit="pad")  # a mistake about the turn would show
    sides = [(1025, width) for width in range(1025, 1400)]
    moved = [each for each in sides if module._frame(*each, spec) != module._frame(*(-(-n // 2) for n in each), spec)]
    width, height = moved[0]
    exif = Image.Exif()
    exif[274] = 6
    content = jpeg(height, width, exif=exif) if turned else jpeg(width, height)

    pixels = decode(content, spec)[0]

    assert pixels.shape == (height, width, 3)
    assert module._frame(width, height, spec) != (40, 100) and decode(jpeg(1030, 1030), spec)[0].shape[0] == 515


def test_a_reduced_jpeg_is_turned_upright_and_noted_upright() -> None:
    exif = Image.Exif()
    exif[274] = 6
    content, spec = jpeg(2100, 1100, exif=exif), ImageSpec(28, 28, 3)

    pixels, notes = decode_noting_size(content, spec)

    assert pixels.shape == (1050, 550, 3) and notes[0] == ROTATED and "from 1100x2100" in notes[1]
    assert examine(content, spec).size == (1100, 2100)


def test_an_open_jpeg_gives_the_pixels_of_its_file_and_stays_as_it_is() -> None:
    content, spec = jpeg(1100, 1024), ImageSpec(28, 28, 3)
    opened = Image.open(io.BytesIO(content))

    assert np.array_equal(decode(opened, spec)[0], decode(content, spec)[0])
    assert opened.size == (1100, 1024) and np.asarray(opened).shape == (1024, 1100, 3)
