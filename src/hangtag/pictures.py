"""Any picture -> one uint8 array, by one path; `ImageSpec` says what a model wants.

The only module that touches Pillow. It decodes and converts colour; it never resizes: the model file does that
itself, so that a picture is resized by the same code wherever the model runs.
"""

import importlib.util
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from hangtag.errors import PictureError

__all__ = [
    "FITS",
    "MAX_PIXELS",
    "Examined",
    "ImageSpec",
    "Images",
    "Picture",
    "check_images",
    "decode",
    "encode_jpeg",
    "encode_png",
    "examine",
    "in_channels",
    "reads_heic",
]

Images: TypeAlias = NDArray[np.uint8]
"""(N, H, W) grey or (N, H, W, 3) colour."""

Picture: TypeAlias = "str | PathLike[str] | bytes | Image.Image | NDArray[Any]"
"""One picture: a path, the bytes of a file, a PIL image, or a uint8 array of (H, W), (H, W, C) or (1, H, W[, C])."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Decoders we let near a stranger's file; Pillow has many more, some of them old and rarely tested."""

HEIC = b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"
"""Brands of HEIF files (ISO 23008-12) as phones make them; pillow-heif decodes them, the extra `heic`."""

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before a pixel is decoded: 80 megapixels is 240 MB in colour."""

FITS = ("squash", "pad", "crop")
"""Ways to bring a picture to a model's size."""

_LARGEST_16_BIT = 65_535
_GREY_CHANNELS, _COLOUR_CHANNELS = 1, 3
_GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = ("PNG", "JPEG")
_PNG_START = struct.Struct(">8sI4sIIBBBBBII4s")  # signature, header with its check sum, start of the next chunk
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_BARE_MODES = {(8, 0, 0, 0, 0): "L", (8, 2, 0, 0, 0): "RGB"}  # depth, colour, compression, filter, interlace
_ALTERING = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp", "transparency", "loop", "duration"}
"""What a PNG or JPEG file says when its pixels are not yet the picture."""

_FAR_FROM_GREY = 24  # grey levels between a pixel's strongest and weakest channel; JPEG noise stays below
_SOME_PIXELS = 0.01
_VIA = {"LAB": "RGB", "La": "LA"}  # modes that Pillow converts one step at a time only
_opening = threading.Lock()  # warning filters are process-wide
_alone = False
_nothing = nullcontext()


@dataclass(frozen=True)
class ImageSpec:
    """What a model takes: size in pixels, 1 (grey) or 3 (RGB) channels, and how other pictures come to that size.

    Attributes:
        background: the grey level put behind transparency and, by `fit` "pad", around the picture.
        fit: "squash" changes the proportions, "pad" keeps them and fills the rest, "crop" keeps them and cuts the
            edges off.
    """

    height: int
    width: int
    channels: int = _GREY_CHANNELS
    background: int = 255
    fit: str = "squash"

    @classmethod
    def of(cls, images: Images) -> "ImageSpec":
        """The spec of a set whose pictures share one size; background: the median of their border pixels."""
        height, width = images.shape[1:3]
        few = images[:: max(1, len(images) // 500)]
        border = np.concatenate([few[:, 0].ravel(), few[:, -1].ravel(), few[:, :, 0].ravel(), few[:, :, -1].ravel()])
        return cls(height, width, 1 if images.ndim == 3 else images.shape[3], int(np.median(border)))

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W) for grey, (H, W, 3) for colour."""
        return (self.height, self.width) if self.channels == _GREY_CHANNELS else (self.height, self.width, 3)

    @property
    def mode(self) -> str:
        return "grey" if self.channels == _GREY_CHANNELS else "colour"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.mode}"


def decode(picture: Picture, spec: ImageSpec) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """One picture as uint8 (H, W) or (H, W, 3), its own size kept, plus notes on what had to be changed.

    Raises:
        PictureError: it cannot be read, is too large, or is an array that is not a picture.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture, spec)
    name = _name(picture)
    if isinstance(picture, Image.Image):
        return _from_pil(picture, spec, name)
    with _open(_content(picture, name), name) as opened:
        return _from_pil(opened, spec, name)


class Examined(NamedTuple):
    """One picture file, decoded in its own size and colours.

    Attributes:
        pixels: (H, W) uint8 where the file is grey, else (H, W, 3).
        colourful: whether colour carries anything: some pixels are far from grey.
        transparent: whether some of it was filled with the background.
        kind: format and mode, "JPEG RGB".
        notes: what had to be changed.
    """

    pixels: NDArray[np.uint8]
    colourful: bool
    transparent: bool
    kind: str
    notes: tuple[str, ...]


def examine(content: bytes, name: str, background: int = 255) -> Examined:
    """Decode the bytes of a picture file as `decode` does, without a model to suit.

    Raises:
        PictureError: as `decode`.
    """
    if not content:
        raise PictureError(f"{name}: the file is empty", "replace it with a real picture")
    bare = _bare_png(content)
    if bare is not None:
        colour = bare.ndim == 3
        return Examined(bare, colour and carries_colour(bare), False, "PNG RGB" if colour else "PNG L", ())
    with _open(content, name) as opened:
        kind = f"{opened.format} {opened.mode}"
        if opened.format in _PLAIN and opened.mode in ("L", "RGB"):
            pixels = _plain_pixels(opened, name)
            if pixels is not None:
                return Examined(pixels, pixels.ndim == 3 and carries_colour(pixels), False, kind, ())
        grey = opened.mode in _GREY_MODES
        spec = ImageSpec(1, 1, _GREY_CHANNELS if grey else _COLOUR_CHANNELS, background)
        pixels, notes = _from_pil(opened, spec, name)
    transparent = any(note.startswith("transparency") for note in notes)
    return Examined(pixels, not grey and carries_colour(pixels), transparent, kind, notes)


def _bare_png(content: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a PNG file that is a header, one chunk of grey or RGB pixels and an end, and nothing else.

    Small pictures are mostly such files, and Pillow takes longer to look for other chunks in them than to decode the
    pixels. Its decoder is handed the pixels here at once; None for whatever is not exactly like this, or damaged.
    """
    if len(content) < _PNG_START.size or not content.endswith(_PNG_END):
        return None
    signature, length, header, width, height, *how, check, size, chunk = _PNG_START.unpack_from(content)
    mode = _BARE_MODES.get(tuple(how))
    whole = len(content) == _PNG_START.size + size + 4 + len(_PNG_END) and zlib.crc32(content[12:29]) == check
    if mode is None or not whole or (signature, length, header, chunk) != (_PNG, 13, b"IHDR", b"IDAT"):
        return None
    if not 0 < width * height <= MAX_PIXELS:
        return None
    try:
        decoded = Image.frombytes(mode, (width, height), content[_PNG_START.size : -len(_PNG_END) - 4], "zip", mode)
    except ValueError:
        return None
    return np.frombuffer(decoded.tobytes(), np.uint8).reshape((height, width) if mode == "L" else (height, width, 3))


def _plain_pixels(opened: Image.Image, name: str) -> NDArray[np.uint8] | None:
    """The pixels of a picture that is neither turned, transparent nor animated; None for one that may be."""
    if not _ALTERING.isdisjoint(opened.info) or getattr(opened, "n_frames", 1) > 1:
        return None
    try:
        content = opened.tobytes()
    except Exception as error:  # as in _from_pil
        raise _damaged(name, error) from error
    if not _ALTERING.isdisjoint(opened.info) or 0 in opened.size:  # some of it may stand behind the pixels
        return None
    shape = (opened.height, opened.width) if opened.mode == "L" else (opened.height, opened.width, 3)
    return np.frombuffer(content, np.uint8).reshape(shape)


def in_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) uint8 as grey (1) or colour (3), exactly as `decode` would have made them."""
    if channels == _GREY_CHANNELS:
        return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., np.newaxis], _COLOUR_CHANNELS, axis=2)


def check_images(images: object, name: str = "images") -> Images:
    """`images` as (N, H, W) or (N, H, W, 3) uint8, or a `PictureError` that says what they are instead."""
    try:
        array = np.asarray(images)
    except ValueError:
        raise PictureError(f"{name}: pictures of different sizes make no array", "give them one size") from None
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != _COLOUR_CHANNELS):
        raise PictureError(
            f"{name}: expected shape (N, H, W) or (N, H, W, 3), got {array.shape}",
            "reshape the array; a flat row of pixels needs its height and width: images.reshape(-1, 28, 28)",
        )
    if 0 in array.shape[1:3]:
        raise PictureError(f"{name}: pictures of shape {array.shape[1:]} have no pixels", "leave empty pictures out")
    return _check_dtype(array, name)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A uint8 (H, W) or (H, W, 3) array as the bytes of a PNG file; lossless."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """A uint8 (H, W) or (H, W, 3) array as the bytes of a JPEG file; `quality` from 1 to 95."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def picture_bytes(picture: object) -> bytes:
    """One picture as the bytes of a file: those of the file where there is one, else a lossless PNG.

    Raises:
        PictureError: it is no picture, or cannot be read.
    """
    if isinstance(picture, np.ndarray):
        return encode_png(_from_array(picture, ImageSpec(1, 1, _GREY_CHANNELS if picture.ndim == 2 else 3))[0])
    if isinstance(picture, Image.Image):
        return _png_of(picture)
    return _content(picture, _name(picture))


def reads_heic() -> bool:
    """Whether HEIC pictures can be read here; looked up, not imported."""
    return importlib.util.find_spec("pillow_heif") is not None


def carries_colour(pixels: NDArray[np.uint8]) -> bool:
    """Whether some pixels of a colour picture (H, W, 3) are far from grey."""
    few = pixels[:: max(1, pixels.shape[0] // 64), :: max(1, pixels.shape[1] // 64)]
    spread = few.max(axis=2) - few.min(axis=2)
    return float((spread > _FAR_FROM_GREY).mean()) > _SOME_PIXELS


def _check_dtype(array: NDArray[Any], name: str) -> Images:
    if array.dtype == np.uint8:
        return array
    hint = "pixels are whole numbers from 0 to 255: images.astype(numpy.uint8)"
    if np.issubdtype(array.dtype, np.floating):
        if np.isnan(array).any():
            raise PictureError(f"{name}: contains NaN", "replace or drop the pictures that hold NaN")
        if array.size and float(array.max()) <= 1.0:
            hint = "hangtag scales pixels itself: give 0-255, (images * 255).round().astype(numpy.uint8)"
    raise PictureError(f"{name}: expected uint8 pixels, got {array.dtype}", hint)


def _from_array(array: NDArray[Any], spec: ImageSpec) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    shape = array.shape
    if (array.ndim == 4 and shape[0] == 1) or (array.ndim == 3 and shape[0] == 1 and shape[2] not in (3, 4)):
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(
            f"array of shape {shape} is not one picture",
            "give (H, W), (H, W, 3) or (1, H, W) uint8; for many pictures use .many() or .probabilities()",
        )
    pixels = _check_dtype(array, "picture")
    if pixels.ndim == (2 if spec.channels == _GREY_CHANNELS else 3) and pixels.shape[-1] != 4:
        return np.ascontiguousarray(pixels), ()
    return _from_pil(Image.fromarray(np.ascontiguousarray(pixels)), spec, "picture")


def _name(picture: object) -> str:
    if isinstance(picture, bytes):
        return f"picture of {len(picture):,} bytes"
    if isinstance(picture, Image.Image):
        return "picture"
    if isinstance(picture, (str, PathLike)):
        return fspath(picture)
    raise PictureError(
        f"cannot make a picture of {type(picture).__name__}",
        "give a path, bytes, a PIL image or a uint8 array",
    )


def _content(picture: object, name: str) -> bytes:
    if isinstance(picture, bytes):
        content = picture
    else:
        path = Path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise PictureError(f"{name}: no such file", "check the spelling and the folder you are in") from None
        except IsADirectoryError:
            raise PictureError(f"{name}: is a folder, not a picture", f"name files: {name.rstrip('/')}/*.png") from None
        except PermissionError:
            raise PictureError(f"{name}: may not be read", "check the file's permissions") from None
        except (OSError, ValueError) as error:
            raise PictureError(f"{name}: cannot be read: {error}", "check the path") from error
    if not content:
        raise PictureError(f"{name}: the file is empty", "replace it with a real picture")
    return content


def _open(content: bytes, name: str) -> Image.Image:
    try:
        with _nothing if _alone else _filtered_warnings():
            if content.startswith(_PNG):  # as Image.open does, without trying what else it might be
                opened: Image.Image = PngImageFile(io.BytesIO(content))
            elif _is_heic(content):
                opened = _open_heic(content, name)
            else:
                opened = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(name, "far more") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"{name}: not a picture hangtag can read",
            f"known formats: {', '.join(FORMATS)} and HEIC; the name's ending does not matter, the content does",
        ) from None
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on broken headers
        raise _damaged(name, error) from error
    if opened.width * opened.height > MAX_PIXELS:
        raise _too_large(name, f"{opened.width}x{opened.height}")
    return opened


def _is_heic(content: bytes) -> bool:
    """Does it begin as a HEIF file does that is no AVIF, which Pillow reads itself?"""
    return content[4:8] == b"ftyp" and content[8:12] in HEIC and b"avif" not in content[16:64]


def _open_heic(content: bytes, name: str) -> Image.Image:
    """As HEIF demands, turned by what the file says beside Exif; Exif's own orientation counts for nothing there."""
    try:
        import pillow_heif
    except ModuleNotFoundError:
        raise PictureError(
            f"{name}: a HEIC picture, and hangtag[heic] is not installed", "pip install 'hangtag[heic]'"
        ) from None
    if _alone:
        pillow_heif.options.DECODE_THREADS = 1
    opened: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(content))
    return opened


@contextmanager
def _filtered_warnings() -> Iterator[None]:
    """What is wrong with a file is raised; Pillow's remarks about it help nobody."""
    with _opening, warnings.catch_warnings():
        _filter_warnings()
        yield


def _filter_warnings() -> None:
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode_alone() -> None:
    """Say that this process does nothing but decode: warnings are filtered once, for good."""
    global _alone  # noqa: PLW0603
    _alone = True
    _filter_warnings()


def _too_large(name: str, size: str) -> PictureError:
    return PictureError(f"{name}: declares {size} pixels, over the limit of {MAX_PIXELS:,}", "scale it down first")


def _from_pil(opened: Image.Image, spec: ImageSpec, name: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    notes = []
    if 0 in opened.size:
        raise PictureError(f"{name}: a picture of {opened.width}x{opened.height} has no pixels", "leave it out")
    try:
        frames = getattr(opened, "n_frames", 1)  # looks through the whole file, so it can fail as decoding can
        if frames > 1 and opened.format == "HEIF":  # not an animation; it opens at the main one
            notes.append("of several pictures in the file the main one was used")
        elif frames > 1:
            notes.append(f"animated: the first of {frames} frames was used")
        if opened.format != "HEIF" and (getattr(opened, "filename", None) is not None or frames > 1):
            opened.seek(0)
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        assert upright is not None
        flat, colour_notes = _flatten(upright, spec)
    except PictureError as error:
        raise PictureError(f"{name}: {error.message}", error.hint) from None
    except Exception as error:  # as above: a truncated body surfaces here
        raise _damaged(name, error) from error
    return np.asarray(flat, dtype=np.uint8), (*notes, *colour_notes)


def _png_of(image: Image.Image) -> bytes:
    """A PIL image as the bytes of a PNG file that decodes to what the image itself does."""
    try:
        if image.format != "HEIF" and getattr(image, "n_frames", 1) > 1:
            image.seek(0)
        upright = ImageOps.exif_transpose(image)
        assert upright is not None
        if upright.mode.startswith("I") or upright.mode == "F":
            upright = _to_8_bit(upright)
        elif upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            upright = upright.convert(_VIA.get(upright.mode, "RGBA" if upright.has_transparency_data else "RGB"))
        buffer = io.BytesIO()
        upright.save(buffer, format="PNG")
    except PictureError as error:
        raise PictureError(f"picture: {error.message}", error.hint) from None
    except Exception as error:  # as in _from_pil: it may be a file that is decoded only now
        raise _damaged("picture", error) from error
    return buffer.getvalue()


def _damaged(name: str, error: Exception) -> PictureError:
    cut = any(sign in str(error).lower() for sign in ("truncated", "broken data stream", "unexpected end"))
    reason = "truncated or damaged" if cut else f"damaged ({error})"
    return PictureError(f"{name}: {reason} picture", "save or download it again")


def _flatten(image: Image.Image, spec: ImageSpec) -> tuple[Image.Image, list[str]]:
    """To 8-bit L or RGB: deep pixels scaled, transparency over the background, colour by ITU-R 601-2 luma."""
    target = "L" if spec.channels == _GREY_CHANNELS else "RGB"
    notes = []
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
        notes.append("deep pixels were scaled to 8 bits")
    grey = image.mode in ("1", "L", "LA", "La")
    image = image.convert(_VIA.get(image.mode, image.mode))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.new("RGBA", layered.size, (spec.background,) * 3 + (255,))
        image.alpha_composite(layered)
        if layered.getchannel("A").getextrema() != (255, 255):
            notes.append(f"transparency was filled with grey level {spec.background}")
    if target == "L" and not grey:
        notes.append("colour was turned to grey")
        image = image.convert("RGB")  # so that a colour picture turned to grey later comes to the same
    return image.convert(target), notes


def _to_8_bit(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(np.float64)
    low, high = float(pixels.min()), float(pixels.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        scale = 255.0
    elif low >= 0 and high <= 255 and image.mode == "F":
        scale = 1.0
    elif image.mode != "F" and low >= 0 and high <= _LARGEST_16_BIT:
        scale = 255 / _LARGEST_16_BIT
    else:
        raise PictureError(
            f"pixel values from {low:g} to {high:g} have no agreed meaning",
            "save it with 8 or 16 bits, or floats in 0-1",
        )
    return Image.fromarray(np.rint(pixels * scale).astype(np.uint8))
