"""Any picture -> a uint8 array, always by the same code; `ImageSpec` describes what a model takes.

The only module that imports Pillow. It decodes and converts colour but never resizes: the model file resizes, with
the same code wherever the model runs.
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
from enum import IntFlag
from os import PathLike, fspath
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from hangtag.errors import PictureError, PictureProblem

__all__ = [
    "FITS",
    "MAX_PIXELS",
    "Change",
    "Examined",
    "ImageSpec",
    "Images",
    "Picture",
    "carries_colour",
    "check_images",
    "decode",
    "decode_only",
    "encode_jpeg",
    "encode_png",
    "examine",
    "in_channels",
    "picture_bytes",
    "reads_heic",
]

Images: TypeAlias = NDArray[np.uint8]
"""(N, H, W) grey or (N, H, W, 3) colour."""

Picture: TypeAlias = "str | PathLike[str] | bytes | Image.Image | NDArray[Any]"
"""A picture: a path, the bytes of a file, a PIL image, or a uint8 array of (H, W), (H, W, C) or (1, H, W[, C])."""

Notes: TypeAlias = "dict[Change, str]"
"""What was changed in a picture, each change as a sentence."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""The formats hangtag decodes; Pillow's other decoders are old or rarely tested, so files from strangers avoid them."""

HEIC = b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"
"""Brands of the HEIF files (ISO 23008-12) that phones write; pillow-heif (the extra `heic`) decodes them."""

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before decoding: 80 megapixels is 240 MB in colour."""

FITS = ("squash", "pad", "crop")
"""Ways to fit a picture to a model's size."""

_LARGEST_16_BIT = 65_535
_GREY_CHANNELS, _COLOUR_CHANNELS = 1, 3
_GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN = ("PNG", "JPEG")
_PNG_START = struct.Struct(">8sI4sIIBBBBBII4s")  # signature, header with its checksum, start of the next chunk
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_BARE_MODES = {(8, 0, 0, 0, 0): "L", (8, 2, 0, 0, 0): "RGB"}  # depth, colour, compression, filter, interlace
_ALTERING = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp", "transparency", "loop", "duration"}
"""Metadata of a PNG or JPEG file whose pixels need more than decoding: rotation, transparency or animation."""

_FAR_FROM_GREY = 24  # grey levels between a pixel's strongest and weakest channel; JPEG noise stays below
_SOME_PIXELS = 0.01
_VIA = {"LAB": "RGB", "La": "LA"}  # modes that Pillow converts only in two steps
_opening = threading.Lock()  # warning filters are process-wide
_decode_only = False
_nothing = nullcontext()


class Change(IntFlag):
    """What decoding changed in a picture; the bits are those of the flags in `picture_facts.FACTS`."""

    TRANSPARENT = 4
    ANIMATED = 8
    SEVERAL = 16
    DEEP = 32
    GREY = 64


_UNCHANGED = Change(0)


@dataclass(frozen=True)
class ImageSpec:
    """What a model takes: size in pixels, 1 (grey) or 3 (RGB) channels, and how other pictures are fitted to it.

    Attributes:
        background: the grey level behind transparent pixels and, with `fit` "pad", around the picture.
        fit: "squash" changes the proportions, "pad" keeps them and fills the rest, "crop" keeps them and cuts off
            the edges.
    """

    height: int
    width: int
    channels: int = _GREY_CHANNELS
    background: int = 255
    fit: str = "squash"

    @classmethod
    def of(cls, images: Images) -> "ImageSpec":
        """The spec of images of one size; the background is the median of their border pixels."""
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
    """One picture as uint8 (H, W) or (H, W, 3) in its own size, and notes on what was changed.

    Raises:
        PictureError: it cannot be read, is too large, or is an array that is not a picture.
    """
    if isinstance(picture, np.ndarray):
        pixels, notes = _from_array(picture, spec)
    elif isinstance(picture, Image.Image):
        with _naming("image"):
            pixels, notes = _from_pil(picture, spec)
    else:
        with _naming(_name(picture)), _open(_content(picture)) as opened:
            pixels, notes = _from_pil(opened, spec)
    return pixels, tuple(notes.values())


class Examined(NamedTuple):
    """One decoded picture file, in its own size and colours.

    Attributes:
        pixels: (H, W) uint8 if the file is grey, else (H, W, 3).
        colourful: whether some pixels are far from grey.
        mode: the colour mode of the file, as Pillow names it: "RGB", "CMYK".
        changes: what had to be changed.
    """

    pixels: NDArray[np.uint8]
    colourful: bool
    mode: str
    changes: Change


def examine(content: bytes, background: int = 255) -> Examined:
    """Decode the bytes of a picture file as `decode` does, without a spec.

    Raises:
        PictureError: as `decode`, without a name.
    """
    if not content:
        raise _empty()
    bare = _bare_png(content)
    if bare is not None:
        colour = bare.ndim == 3
        return Examined(bare, colour and carries_colour(bare), "RGB" if colour else "L", _UNCHANGED)
    with _open(content) as opened:
        mode = opened.mode
        if opened.format in _PLAIN and opened.mode in ("L", "RGB"):
            pixels = _plain_pixels(opened)
            if pixels is not None:
                return Examined(pixels, pixels.ndim == 3 and carries_colour(pixels), mode, _UNCHANGED)
        grey = opened.mode in _GREY_MODES
        spec = ImageSpec(1, 1, _GREY_CHANNELS if grey else _COLOUR_CHANNELS, background)
        pixels, notes = _from_pil(opened, spec)
    return Examined(pixels, not grey and carries_colour(pixels), mode, Change(sum(notes)))


def _bare_png(content: bytes) -> NDArray[np.uint8] | None:
    """The pixels of a PNG file that holds only a header, one chunk of 8-bit grey or RGB pixels and an end.

    Most small pictures are such files, and Pillow needs longer to look for other chunks than to decode the pixels, so
    its decoder gets the pixels directly. None for any other or damaged file.
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


def _plain_pixels(opened: Image.Image) -> NDArray[np.uint8] | None:
    """The pixels of a picture that is not rotated, transparent or animated; None if it may be."""
    if not _ALTERING.isdisjoint(opened.info) or getattr(opened, "n_frames", 1) > 1:
        return None
    try:
        content = opened.tobytes()
    except Exception as error:  # as in _from_pil
        raise _damaged(error) from error
    if not _ALTERING.isdisjoint(opened.info) or 0 in opened.size:  # metadata may follow the pixels
        return None
    shape = (opened.height, opened.width) if opened.mode == "L" else (opened.height, opened.width, 3)
    return np.frombuffer(content, np.uint8).reshape(shape)


def in_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """(H, W) or (H, W, 3) uint8 as grey (1) or colour (3), with the result of `decode`."""
    if channels == _GREY_CHANNELS:
        return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., np.newaxis], _COLOUR_CHANNELS, axis=2)


def check_images(images: object, name: str = "images") -> Images:
    """`images` as (N, H, W) or (N, H, W, 3) uint8, or a `PictureError` that describes them."""
    try:
        array = np.asarray(images)
    except ValueError:
        raise PictureError("images must have one size, got several", "resize them first", name=name) from None
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != _COLOUR_CHANNELS):
        raise PictureError(
            f"expected shape (N, H, W) or (N, H, W, 3), got {array.shape}",
            "reshape the array; a flat row of pixels needs its height and width: images.reshape(-1, 28, 28)",
            name=name,
        )
    if 0 in array.shape[1:3]:
        raise PictureError(f"images of shape {array.shape[1:]} have no pixels", "remove empty images", name=name)
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
    """One picture as the bytes of a file: the file's own, or a lossless PNG of a picture in memory.

    Raises:
        PictureError: it is not a picture, or cannot be read.
    """
    if isinstance(picture, np.ndarray):
        return encode_png(_from_array(picture, ImageSpec(1, 1, _GREY_CHANNELS if picture.ndim == 2 else 3))[0])
    with _naming(_name(picture)):
        return _png_of(picture) if isinstance(picture, Image.Image) else _content(picture)


def reads_heic() -> bool:
    """Whether pillow-heif is installed; it is not imported."""
    return importlib.util.find_spec("pillow_heif") is not None


def carries_colour(pixels: NDArray[np.uint8]) -> bool:
    """Whether some pixels of a colour picture (H, W, 3) are far from grey."""
    few = pixels[:: max(1, pixels.shape[0] // 64), :: max(1, pixels.shape[1] // 64)]
    spread = few.max(axis=2) - few.min(axis=2)
    return float((spread > _FAR_FROM_GREY).mean()) > _SOME_PIXELS


def _check_dtype(array: NDArray[Any], name: str) -> Images:
    if array.dtype == np.uint8:
        return array
    hint = "convert pixels to whole numbers from 0 to 255: images.astype(numpy.uint8)"
    if np.issubdtype(array.dtype, np.floating):
        if np.isnan(array).any():
            raise PictureError("contains NaN", "replace or drop the images that contain NaN", name=name)
        if array.size and float(array.max()) <= 1.0:
            hint = "pass pixels from 0 to 255; hangtag scales them: (images * 255).round().astype(numpy.uint8)"
    raise PictureError(f"expected uint8 pixels, got {array.dtype}", hint, name=name)


def _from_array(array: NDArray[Any], spec: ImageSpec) -> tuple[NDArray[np.uint8], Notes]:
    shape = array.shape
    if (array.ndim == 4 and shape[0] == 1) or (array.ndim == 3 and shape[0] == 1 and shape[2] not in (3, 4)):
        array = array[0]
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(
            f"array of shape {shape} is not a single image",
            "pass uint8 of (H, W), (H, W, 3) or (1, H, W); for many images use .many() or .probabilities()",
        )
    pixels = _check_dtype(array, "image")
    if pixels.ndim == (2 if spec.channels == _GREY_CHANNELS else 3) and pixels.shape[-1] != 4:
        return np.ascontiguousarray(pixels), {}
    with _naming("image"):
        return _from_pil(Image.fromarray(np.ascontiguousarray(pixels)), spec)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Add the picture's name to errors."""
    try:
        yield
    except PictureError as error:
        raise PictureError(error.reason, error.hint, error.kind, name) from error.__cause__


def _name(picture: object) -> str:
    if isinstance(picture, bytes):
        return f"image of {len(picture):,} bytes"
    if isinstance(picture, Image.Image):
        return "image"
    if isinstance(picture, (str, PathLike)):
        return fspath(picture)
    raise PictureError(
        f"expected an image, got {type(picture).__name__}", "pass a path, bytes, a PIL image or a uint8 array"
    )


def _content(picture: Any) -> bytes:
    """The bytes of a picture file, given by its path or content."""
    if isinstance(picture, bytes):
        content = picture
    else:
        path = Path(picture)
        problem: PictureProblem = "cannot be read"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise PictureError("no such file", "check the spelling and the folder you are in", problem) from None
        except IsADirectoryError:
            raise PictureError("is a folder, not an image", f"name the files: {path}/*.png", problem) from None
        except PermissionError:
            raise PictureError("permission denied", "check the file's permissions", problem) from None
        except (OSError, ValueError) as error:
            raise PictureError(f"cannot be read: {error}", "check the path", problem) from error
    if not content:
        raise _empty()
    return content


def _empty() -> PictureError:
    return PictureError("the file is empty", "replace it with an image", "empty")


def _open(content: bytes) -> Image.Image:
    try:
        with _nothing if _decode_only else _filtered_warnings():
            if content.startswith(_PNG):  # as Image.open does, without trying other formats
                opened: Image.Image = PngImageFile(io.BytesIO(content))
            elif _is_heic(content):
                opened = _open_heic(content)
            else:
                opened = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large("too many") from None
    except UnidentifiedImageError:
        raise PictureError(
            "not an image that hangtag can read",
            f"known formats: {', '.join(FORMATS)} and HEIC; the file's content decides, not its extension",
            "not an image",
        ) from None
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on broken headers
        raise _damaged(error) from error
    if opened.width * opened.height > MAX_PIXELS:
        raise _too_large(f"{opened.width}x{opened.height}")
    return opened


def _is_heic(content: bytes) -> bool:
    """Whether it starts as a HEIF file other than AVIF, which Pillow reads itself."""
    return content[4:8] == b"ftyp" and content[8:12] in HEIC and b"avif" not in content[16:64]


def _open_heic(content: bytes) -> Image.Image:
    """pillow-heif rotates as the HEIF file says; Exif's orientation does not count in HEIF."""
    try:
        import pillow_heif
    except ModuleNotFoundError:
        raise PictureError(
            "HEIC images need hangtag[heic], which is not installed", "pip install 'hangtag[heic]'",
            "HEIC (pip install 'hangtag[heic]')",
        ) from None  # fmt: skip
    if _decode_only:
        pillow_heif.options.DECODE_THREADS = 1
    opened: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(content))
    return opened


@contextmanager
def _filtered_warnings() -> Iterator[None]:
    """Problems of a file are raised as errors; Pillow's other warnings are hidden."""
    with _opening, warnings.catch_warnings():
        _filter_warnings()
        yield


def _filter_warnings() -> None:
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode_only() -> None:
    """Declare that this process only decodes: its warnings are filtered once and for all."""
    global _decode_only  # noqa: PLW0603
    _decode_only = True
    _filter_warnings()


def _too_large(size: str) -> PictureError:
    return PictureError(f"declares {size} pixels, over the limit of {MAX_PIXELS:,}", "scale it down first", "too large")


def _from_pil(opened: Image.Image, spec: ImageSpec) -> tuple[NDArray[np.uint8], Notes]:
    notes: Notes = {}
    if 0 in opened.size:
        raise PictureError(f"the size is {opened.width}x{opened.height}, so there are no pixels", "remove it")
    try:
        frames = getattr(opened, "n_frames", 1)  # reads the whole file, so it can fail as decoding can
        if frames > 1 and opened.format == "HEIF":  # not an animation; the main picture is open
            notes[Change.SEVERAL] = "the file contains several images; the main one was used"
        elif frames > 1:
            notes[Change.ANIMATED] = f"animated: the first of {frames} frames was used"
        if opened.format != "HEIF" and (getattr(opened, "filename", None) is not None or frames > 1):
            opened.seek(0)
        opened.load()
        flat, colour_notes = _flatten(_upright(opened), spec)
    except PictureError:
        raise
    except Exception as error:  # as above: a truncated body is noticed only here
        raise _damaged(error) from error
    return np.asarray(flat, dtype=np.uint8), notes | colour_notes


def _png_of(image: Image.Image) -> bytes:
    """A PIL image as the bytes of a PNG file that decodes to the same picture."""
    try:
        if image.format != "HEIF" and getattr(image, "n_frames", 1) > 1:
            image.seek(0)
        upright = _upright(image)
        if upright.mode.startswith("I") or upright.mode == "F":
            upright = _to_8_bit(upright)
        elif upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            upright = upright.convert(_VIA.get(upright.mode, "RGBA" if upright.has_transparency_data else "RGB"))
        buffer = io.BytesIO()
        upright.save(buffer, format="PNG")
    except PictureError:
        raise
    except Exception as error:  # as in _from_pil: the image may be a file that is decoded only now
        raise _damaged(error) from error
    return buffer.getvalue()


def _upright(image: Image.Image) -> Image.Image:
    """The image rotated as its Exif data says."""
    upright = ImageOps.exif_transpose(image)
    assert upright is not None
    return upright


def _damaged(error: Exception) -> PictureError:
    hint = "save or download it again"
    if any(sign in str(error).lower() for sign in ("truncated", "broken data stream", "unexpected end")):
        return PictureError("truncated or damaged image", hint, "truncated")
    return PictureError(f"damaged image: {error}", hint)


def _flatten(image: Image.Image, spec: ImageSpec) -> tuple[Image.Image, Notes]:
    """To 8-bit L or RGB: 16-bit pixels scaled, transparency filled with the background, grey by ITU-R 601-2 luma."""
    target = "L" if spec.channels == _GREY_CHANNELS else "RGB"
    notes: Notes = {}
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
        notes[Change.DEEP] = "16-bit or float pixels were scaled to 8 bits"
    grey = image.mode in ("1", "L", "LA", "La")
    image = image.convert(_VIA.get(image.mode, image.mode))
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.new("RGBA", layered.size, (spec.background,) * 3 + (255,))
        image.alpha_composite(layered)
        if layered.getchannel("A").getextrema() != (255, 255):
            notes[Change.TRANSPARENT] = f"transparency was filled with grey level {spec.background}"
    if target == "L" and not grey:
        notes[Change.GREY] = "colour was converted to grey"
        image = image.convert("RGB")  # the result of converting the colour picture to grey later
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
            f"pixel values range from {low:g} to {high:g}, which is not a known scale",
            "save it with 8 or 16 bits, or as floats from 0 to 1",
            "unknown pixel scale",
        )
    return Image.fromarray(np.rint(pixels * scale).astype(np.uint8))
