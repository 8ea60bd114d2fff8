"""Any picture -> a uint8 array, always by the same code; `ImageSpec` describes what a model takes.

The only module that imports Pillow. It decodes and converts colour but never resizes: the model file resizes, with
the same code wherever the model runs. A JPEG that is much larger than the model's size is decoded at a half, a quarter
or an eighth of its size, which costs a fraction of the time; this depends only on the two sizes, so training and
prediction see the same pixels. Pillow is imported when a picture is decoded: data in the cache needs none.
"""

import importlib.util
import io
import math
import re
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import IntFlag
from os import PathLike, fspath
from os import stat as stat_of
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import PictureError, PictureNotFound, PictureProblem
from hangtag.levels import Levels, agreed, alone, levels_of, measure, range_in_words, to_8_bits

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "FITS",
    "LARGEST_FILE",
    "MAX_PIXELS",
    "PICTURE_ENDINGS",
    "RESIZED",
    "ROTATED",
    "Change",
    "Examined",
    "ImageSpec",
    "Images",
    "Picture",
    "carries_colour",
    "check_images",
    "decode",
    "decode_noting_size",
    "decode_only",
    "encode_jpeg",
    "encode_png",
    "examine",
    "finite",
    "in_channels",
    "is_one_picture",
    "many_images",
    "picture_bytes",
    "reads_heic",
    "stacked",
]

Images: TypeAlias = NDArray[np.uint8]
"""(N, H, W) grey or (N, H, W, 3) colour."""

Picture: TypeAlias = "str | PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any] | list[Any]"
"""A picture: a path, an open file or its bytes, a PIL image, or numbers of (H, W), (H, W, C) or (1, H, W[, C])."""

Notes: TypeAlias = "dict[Change, str]"
"""What was changed in a picture, each change as a sentence."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""The formats hangtag decodes; Pillow's other decoders are old or rarely tested, so files from strangers avoid them."""

PICTURE_ENDINGS = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm", ".heic", ".heif",
)  # fmt: skip
"""Endings that only pictures have, in lower case; a picture may have another name, too."""

HEIC = b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"
"""Brands of the HEIF files (ISO 23008-12) that phones write; pillow-heif (the extra `heic`) decodes them."""

LARGEST_FILE = 512_000_000
"""Larger files are not read as pictures; bytes."""

MAX_PIXELS = 80_000_000
"""Larger pictures are refused before decoding: 80 megapixels is 240 MB in colour."""

FITS = ("squash", "pad", "crop")
"""Ways to fit a picture to a model's size."""

_GREY_CHANNELS, _COLOUR_CHANNELS = 1, 3
_LARGEST_16_BIT = 65_535
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0  # a tag of TIFF files, and one of its values
_EXIF_DETAILS, _MAKE, _MODEL, _TAKEN, _FRACTION = 0x8769, 0x010F, 0x0110, 0x9003, 0x9291  # tags of Exif
_OPAQUE = (1, 255, 1023, 4095, 16_383, _LARGEST_16_BIT)  # of alpha
ROTATED = "rotated as its Exif data says"
"""The note of a picture that was not upright in its file."""

RESIZED = "resized from"
"""How the note on a picture of another size than the model's starts."""

_FITTED = {
    "squash": "which changes its proportions",
    "pad": "its proportions kept, the rest filled",
    "crop": "its proportions kept, its edges cut off",
}

_DEEP = "16-bit or float pixels were scaled to 8 bits"
_DEEP_GREY_ALPHA = "LA;16B"
_LOW_BYTES = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in ("BL", "LB", "NB" if sys.byteorder == "little" else "NL")
} | {_DEEP_GREY_ALPHA: "RGBA"}
"""Layouts of 16-bit pixels whose upper bytes Pillow keeps, and those that make it keep the lower bytes."""

_GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_JPEG, _SCAN, _MAX_SCANS = b"\xff\xd8\xff", b"\xff\xda", 100  # a progressive JPEG has about ten; an attack, thousands
_PNG = b"\x89PNG\r\n\x1a\n"
_LEAST_PARTS, _BYTES_A_PART = 1000, 200  # Pillow reads chunks and segments in Python: many small ones take minutes
_PLAIN = ("PNG", "JPEG")
_PNG_START = struct.Struct(">8sI4sIIBBBBBII4s")  # signature, header with its checksum, start of the next chunk
_NPY = b"\x93NUMPY"
_POINTER = b"version https://git-lfs"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_BARE_MODES = {(8, 0, 0, 0, 0): "L", (8, 2, 0, 0, 0): "RGB"}  # depth, colour, compression, filter, interlace
_ALTERING = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp", "transparency", "loop", "duration"}
"""Metadata of a PNG or JPEG file whose pixels need more than decoding: rotation, transparency or animation."""

_LEAST_REDUCED = 512
_LEAST_TIMES = 4
"""What a JPEG keeps at least when it is decoded at reduced size: pixels of the shorter side, and how many times the
longer side of the model's size that must be, so that the model's own resizing decides how the picture looks."""

_ORIENTATION, _FIRST_SIDEWAYS = 274, 5  # a tag of Exif, and the first of its values with sides exchanged
_FAR_FROM_GREY = 4  # grey levels between a pixel's strongest and weakest channel; JPEG, WebP and AVIF turn grey into 1
_PIXELS_AT_ONCE = 100_000  # searched for colours
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
    FLOAT = 128
    ROTATED = 256
    """Said of single pictures only."""


_UNCHANGED = Change(0)


@dataclass(frozen=True)
class ImageSpec:
    """What a model takes: size in pixels, 1 (grey) or 3 (RGB) channels, and how other pictures are fitted to it.

    Attributes:
        background: the grey level behind transparent pixels and, with `fit` "pad", around the picture.
        fit: "squash" changes the proportions, "pad" keeps them and fills the rest, "crop" keeps them and cuts off
            the edges.
        integers, floats: the scales of whole numbers of more than 8 bits and of floats in the pictures that it was
            chosen for; None if there were none.
    """

    height: int
    width: int
    channels: int = _GREY_CHANNELS
    background: int = 255
    fit: str = "squash"
    integers: Levels | None = None
    floats: Levels | None = None

    def __post_init__(self) -> None:
        for name in ("integers", "floats"):  # from JSON
            if isinstance(value := getattr(self, name), dict):
                object.__setattr__(self, name, Levels(**value))

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

    def levels(self, is_float: bool) -> tuple[Levels | None, Levels | None]:
        """The scale of pixels of this kind, and that of the other kind."""
        return (self.floats, self.integers) if is_float else (self.integers, self.floats)

    def with_levels(self, levels: Levels, is_float: bool) -> "ImageSpec":
        return replace(self, floats=levels) if is_float else replace(self, integers=levels)

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.mode}"


def decode(picture: Picture, spec: ImageSpec) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """One picture as uint8 (H, W) or (H, W, 3) in its own size, and notes on what was changed.

    Raises:
        PictureError: it cannot be read, is too large, or is an array that is not a picture.
    """
    read = _read(picture, spec)
    return read.pixels, tuple(_notes(read, spec))


def decode_noting_size(
    picture: Picture, spec: ImageSpec, most: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """As `decode`, with a note on how the model will resize the picture; a file may have at most `most` pixels."""
    read = _read(picture, spec, most)
    return read.pixels, (*_notes(read, spec), *_size_notes(read.size or read.pixels.shape[1::-1], spec))


def _read(picture: Picture, spec: ImageSpec, most: int = MAX_PIXELS) -> "_Read":
    is_array = hasattr(picture, "__array__") and not isinstance(picture, (str, bytes)) and not _is_pil(picture)
    if is_array or isinstance(picture, list):
        return _from_array(_array(picture), spec)
    if _is_pil(picture):
        with _naming("image"):
            content = _unread_file(picture)
            is_jpeg = content is not None and content.startswith(_JPEG)
            return _from_file(content, spec) if content and is_jpeg else _from_pil(picture, spec, content)
    with _naming(_name(picture)):
        content = _content(picture)
        return (
            _from_array(_array_in(content, most), spec) if content.startswith(_NPY) else _from_file(content, spec, most)
        )


def _notes(read: "_Read", spec: ImageSpec) -> list[str]:
    """What was changed in a picture, and what in it differs from the training images."""
    notes = list(read.notes.values())
    levels = spec.integers or spec.floats
    if read.values is None and levels is not None and not levels.is_usual:
        said = range_in_words(levels.low, levels.high)
        notes.append(f"this image has 8 bits; the training images had values from {said}")
    return notes


def _size_notes(size: tuple[int, ...], spec: ImageSpec) -> list[str]:
    """What the model does to a picture of this width and height, in words."""
    width, height = size
    if (height, width) == (spec.height, spec.width):
        return []
    note = f"{RESIZED} {width}x{height} to {spec.width}x{spec.height}"
    change = width * spec.height / (height * spec.width)
    least = 1.1 if spec.fit == "squash" else 1.02  # what is worth a warning; what leaves a margin
    return [f"{note}, {_FITTED[spec.fit]}" if max(change, 1 / change) > least else note]


def is_usual(note: str) -> bool:
    """Whether a note says no more than that a picture was resized, and nothing of it was lost."""
    return note.startswith(RESIZED) and not note.endswith((_FITTED["squash"], _FITTED["crop"]))


def is_one_picture(value: object) -> bool:
    """Whether the value is one picture, not several: a path, an open file or its bytes, or a PIL image."""
    return isinstance(value, (str, PathLike, bytes, bytearray, memoryview)) or _is_pil(value) or hasattr(value, "read")


def many_images(images: Any, labels: Any = None, width: int = 0) -> Any:
    """The images, unless they are the pixels of one picture, whose rows would look like images.

    Args:
        labels: one for each image, if they are known.
        width: of the images that the model was trained on; 0: unknown.

    Raises:
        PictureError: they are one picture.
    """
    if is_one_picture(images):
        raise PictureError("expected many images, got one", "put it into a list: [image]")
    shape = _shape(images)
    count = len(labels) if hasattr(labels, "__len__") else None
    last = shape[-1] if len(shape) == 3 else 0
    if len(shape) == 2 or (last in (1, 3, 4) and width != last and count != shape[0]):
        flat = "; for flat rows of pixels, images.reshape(-1, height, width)" if len(shape) == 2 else ""
        narrow = f"; for many images {last} pixels wide, images[..., None]" if last else ""
        raise PictureError(
            f"expected many images (N, H, W) or (N, H, W, 3), got one of shape {shape}",
            f"for one image, give images[None]{flat}{narrow}",
        )
    return images


def _shape(images: Any) -> tuple[int, ...]:
    """The shape of an array, or of nested lists of numbers; a list of pictures has the shape (N,)."""
    if not isinstance(images, (list, tuple)):
        return tuple(getattr(images, "shape", ()))
    with suppress(ValueError):  # rows of several lengths
        if images and not is_one_picture(images[0]):
            return len(images), *np.shape(images[0])
    return (len(images),)


class Examined(NamedTuple):
    """One decoded picture file, in its own colours, and in its own size unless it is a JPEG that was reduced.

    Attributes:
        pixels: (H, W) uint8 if the file is grey, else (H, W, 3).
        colourful: whether some pixels are not grey.
        mode: the colour mode of the file, as Pillow names it: "RGB", "CMYK".
        changes: what had to be changed.
        size: width and height of the picture in the file, as seen upright.
        values: (4,) `levels.measure` of a picture of more than 8 bits; None for others.
        shot: when the photo was taken, in milliseconds by its camera's clock, and a number for the model of the camera;
            zeros if the file does not say so.
    """

    pixels: NDArray[np.uint8]
    colourful: bool
    mode: str
    changes: Change
    size: tuple[int, ...]
    values: NDArray[np.float32] | None = None
    shot: tuple[int, int] = (0, 0)


def examine(content: bytes, spec: ImageSpec | None = None) -> Examined:
    """Decode the bytes of a picture file as `decode` does, in its own colours.

    Args:
        spec: its size, background and levels are used; without levels, the picture's own range of values is the scale.

    Raises:
        PictureError: as `decode`, without a name.
    """
    if not content:
        raise _empty()
    bare = _bare_png(content)
    if bare is not None:
        colour = bare.ndim == 3
        return Examined(bare, colour and carries_colour(bare), "RGB" if colour else "L", _UNCHANGED, bare.shape[1::-1])
    if content.startswith(_NPY):
        array = _array_in(content)
        read, mode = _from_array(array, _spec_of(array.ndim == 2, spec), False), "F" if array.dtype.kind == "f" else "I"
        return _examined(read, mode if array.ndim == 2 else "RGB")
    with _open(content) as opened:
        mode, raw_mode, size = opened.mode, _deep_mode(opened), opened.size
        _reduce(opened, spec or ImageSpec(1, 1))
        if opened.format in _PLAIN and mode in ("L", "RGB") and raw_mode is None:
            pixels = _plain_pixels(opened)
            if pixels is not None:
                return Examined(pixels, pixels.ndim == 3 and carries_colour(pixels), mode, _UNCHANGED, size)
        grey = mode in _GREY_MODES or raw_mode == _DEEP_GREY_ALPHA
        read = _from_pil(opened, _spec_of(grey, spec), content, False, size)
        shot = _shot(opened)
    return _examined(read, mode if raw_mode is None else raw_mode.partition(";")[0] + ";16")._replace(shot=shot)


def _shot(image: "Image.Image") -> tuple[int, int]:
    """See `Examined.shot`: of Exif's tags Make, Model, DateTimeOriginal and SubSecTimeOriginal."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(_EXIF_DETAILS)
        moment = datetime.strptime(str(details[_TAKEN]).strip("\0 "), "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
        fraction = re.sub(r"\D", "", str(details.get(_FRACTION, "")))[:3].ljust(3, "0")
    except Exception:  # a damaged Exif block may raise anything; the pixels are good
        return 0, 0
    camera = zlib.crc32(repr([str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)]).encode())
    return max(0, int(moment.timestamp()) * 1000 + int(fraction)), camera


def _spec_of(grey: bool, spec: ImageSpec | None) -> ImageSpec:
    """The spec, or a default one, in the picture's own colours."""
    return replace(spec or ImageSpec(1, 1), channels=_GREY_CHANNELS if grey else _COLOUR_CHANNELS)


def _examined(read: "_Read", mode: str) -> Examined:
    changes = Change(sum(read.notes)) | (_UNCHANGED if read.values is None else Change.DEEP)
    changes |= Change.FLOAT if read.is_float else _UNCHANGED
    colourful = read.pixels.ndim == 3 and carries_colour(read.pixels)
    return Examined(read.pixels, colourful, mode, changes, read.size or read.pixels.shape[1::-1], read.values)


def _bare_png(content: bytes, most: int = MAX_PIXELS) -> NDArray[np.uint8] | None:
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
    if not 0 < width * height <= most:
        return None
    from PIL import Image

    try:
        decoded = Image.frombytes(mode, (width, height), content[_PNG_START.size : -len(_PNG_END) - 4], "zip", mode)
    except ValueError:
        return None
    return np.frombuffer(decoded.tobytes(), np.uint8).reshape((height, width) if mode == "L" else (height, width, 3))


def _plain_pixels(opened: "Image.Image") -> NDArray[np.uint8] | None:
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
        from PIL import Image

        return pixels if pixels.ndim == 2 else np.asarray(Image.fromarray(pixels).convert("L"))
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., np.newaxis], _COLOUR_CHANNELS, axis=2)


def check_images(images: object, name: str = "images", spec: ImageSpec | None = None) -> Images:
    """`images` as (N, H, W) or (N, H, W, 3) uint8, or a `PictureError` that describes them.

    Args:
        images: an array, or a list of arrays or PIL images of one size. Numbers of other types are brought to 8 bits.
        spec: a model's, whose scale is used; None uses the scale that the images have.
    """
    array = stacked(images, name)
    if array.dtype == np.uint8 or not array.size:
        return array.astype(np.uint8, copy=False)
    is_float, values = array.dtype.kind == "f", finite(measure(array), name)
    if spec is None:
        return to_8_bits(array, levels_of(values, is_float))
    low, high = float(values[:, 0].min()), float(values[:, 1].max())
    return to_8_bits(array, _levels_for(spec, low, high, is_float, name))


def stacked(images: object, name: str = "images") -> NDArray[Any]:
    """`images` as (N, H, W) or (N, H, W, 3) of uint8, of whole numbers or of floats, or a `PictureError`."""
    try:
        array = np.asarray(_from_list(images) if isinstance(images, (list, tuple)) else images)
    except PictureError:
        raise
    except ValueError:
        raise PictureError("images must have one size, got several", "resize them first", name=name) from None
    if has_channels_first(array):
        array = np.ascontiguousarray(array.transpose(0, 2, 3, 1))
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != _COLOUR_CHANNELS):
        raise PictureError(
            f"expected shape (N, H, W) or (N, H, W, 3), got {array.shape}", _shape_hint(array.shape), name=name
        )
    if 0 in array.shape[1:3]:
        raise PictureError(f"images of shape {array.shape[1:]} have no pixels", "remove empty images", name=name)
    return _numbers(array, name)


def has_channels_first(images: NDArray[Any]) -> bool:
    """Whether these are (N, C, H, W), as PyTorch keeps images."""
    return images.ndim == 4 and images.shape[1] in (1, 3) and images.shape[3] not in (1, 3)


def _shape_hint(shape: tuple[int, ...]) -> str:
    if len(shape) < 2:
        return "give an array or a list of images; hangtag.read((files, labels)) reads files"
    if len(shape) == 4:
        return "give 1 or 3 channels; to leave out transparency, images[..., :3]"
    return "for one image, give images[None]; for flat rows of pixels, images.reshape(-1, height, width)"


def finite(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """The result of `levels.measure`, or a `PictureError` if an image has a value that is NaN or infinite."""
    if wrong := int((~np.isfinite(values[:, :2]).all(axis=1)).sum()):
        many = f"{wrong:,} of {len(values):,} images contain" if len(values) > 1 else "contains"
        raise PictureError(
            f"{many} NaN or infinite pixels", "replace these pixels, or drop the images", "NaN pixels", name
        )
    return values


def _from_list(images: "list[Any] | tuple[Any, ...]") -> "list[Any] | tuple[Any, ...]":
    """The images with those of Pillow as arrays, all grey or all in colour."""
    if not any(_is_pil(each) for each in images):
        return images
    grey = all(
        each.mode in _GREY_MODES or _deep_mode(each) == _DEEP_GREY_ALPHA if _is_pil(each) else np.ndim(each) == 2
        for each in images
    )
    return [
        _array_in(each)
        if (each := picture_bytes(image)).startswith(_NPY)
        else decode(each, ImageSpec(1, 1, 1 if grey else 3))[0]
        for image in images
    ]


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A uint8 (H, W) or (H, W, 3) array as the bytes of a PNG file; lossless."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_jpeg(image: NDArray[np.uint8], quality: int) -> bytes:
    """A uint8 (H, W) or (H, W, 3) array as the bytes of a JPEG file; `quality` from 1 to 95."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def picture_bytes(picture: object) -> bytes:
    """One picture as the bytes of a file: the file's own, or for a picture in memory a lossless PNG, or NPY if it has
    more than 8 bits.

    Raises:
        PictureError: it is not a picture, or cannot be read.
    """
    if isinstance(picture, (np.ndarray, list)):
        array = _array(picture)
        return encode_png(array) if array.dtype == np.uint8 else _npy_of(array)
    with _naming(_name(picture)):
        if _is_pil(picture):
            return _unread_file(picture) or _bytes_of(picture)
        return _content(picture)


def reads_heic() -> bool:
    """Whether pillow-heif is installed; it is not imported."""
    return importlib.util.find_spec("pillow_heif") is not None


def carries_colour(pixels: NDArray[np.uint8]) -> bool:
    """Whether any pixel of a colour picture (H, W, 3) is further from grey than lossy formats make a grey picture."""
    height, width = pixels.shape[:2]
    few = pixels[:: -(-height // 64), :: -(-width // 64)]  # enough for most pictures that have colours
    if few.size < pixels.size and _is_coloured(few):
        return True
    rows = max(1, _PIXELS_AT_ONCE // width)
    return any(_is_coloured(pixels[start : start + rows]) for start in range(0, height, rows))


def _is_coloured(pixels: NDArray[np.uint8]) -> bool:
    red, green, blue = (pixels[..., channel] for channel in range(3))
    strongest, weakest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    return bool((strongest - weakest > _FAR_FROM_GREY).any())


class _Read(NamedTuple):
    """Pixels in the spec's colours, notes, and of a picture of more than 8 bits the result of `measure`.

    `size` is the width and height of a file's picture, upright; None if the pixels have this size.
    """

    pixels: NDArray[np.uint8]
    notes: Notes
    values: NDArray[np.float32] | None = None
    is_float: bool = False
    size: tuple[int, ...] | None = None


def _numbers(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The array if it holds numbers; truth values as 0 and 255, as Pillow reads them."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise PictureError(
            f"expected numbers, got {array.dtype}", "pass uint8 pixels from 0 to 255: images.astype(numpy.uint8)",
            name=name,
        )  # fmt: skip
    return array


def _array(picture: object) -> NDArray[Any]:
    """One picture as (H, W), (H, W, 3) or (H, W, 4) of numbers."""
    try:
        array = np.asarray(picture)
    except ValueError:
        raise PictureError("rows differ in length", "give all rows of a picture the same length") from None
    except (TypeError, RuntimeError) as error:  # such as a tensor on a GPU
        raise PictureError(f"cannot be read as an array: {error}", "pass a NumPy array", "no image") from error
    shape = array.shape
    if (array.ndim == 4 and shape[0] == 1) or (array.ndim == 3 and shape[0] == 1 and shape[2] not in (3, 4)):
        array = array[0]
    if array.ndim == 3 and array.shape[0] == _COLOUR_CHANNELS and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)  # as PyTorch keeps images
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise PictureError(
            f"array of shape {shape} is not a single image",
            "pass uint8 of (H, W), (H, W, 3), (1, H, W) or (3, H, W); for many images use .many() or .predict()",
        )
    return np.ascontiguousarray(_numbers(array, "image"))


def _from_array(array: NDArray[Any], spec: ImageSpec, single: bool = True) -> _Read:
    """Read an array of `_array`; `single` as for `_from_deep`."""
    with _naming("image"):
        if array.dtype != np.uint8:
            alpha = None
            if array.ndim == 3 and array.shape[2] == 4:
                opaque = next((each for each in _OPAQUE if array[..., 3].max() <= each), np.inf)
                alpha = np.rint(array[..., 3] * (255 / opaque)).clip(0, 255).astype(np.uint8)
            return _from_deep(array if alpha is None else array[..., :3], alpha, spec, single)
        if array.ndim == (2 if spec.channels == _GREY_CHANNELS else 3) and array.shape[-1:] != (4,):
            return _Read(array, {})
        from PIL import Image

        return _Read(*_flatten(Image.fromarray(array), spec))


def _from_deep(values: NDArray[Any], alpha: NDArray[np.uint8] | None, spec: ImageSpec, single: bool) -> _Read:
    """Read pixels of more than 8 bits.

    Args:
        values: (H, W) or (H, W, 3) of whole numbers or floats.
        alpha: (H, W), or None.
        single: whether the scale must be certain; in a dataset, all pictures together decide later.
    """
    from PIL import Image

    is_float = values.dtype.kind == "f"
    measured = finite(measure(values[np.newaxis]), "")
    levels = spec.levels(is_float)[0]
    if single:
        levels = _levels_for(spec, float(measured[0, 0]), float(measured[0, 1]), is_float, "")
    elif levels is None:
        levels = levels_of(measured, is_float)
    halved = values.ndim == 3 and levels.is_usual and levels.white == _LARGEST_16_BIT
    image = Image.fromarray((values >> 8).astype(np.uint8) if halved else to_8_bits(values, levels))
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    pixels, notes = _flatten(image, spec)
    said = {} if (levels.black, levels.white, is_float) == (0, 255, False) else {Change.DEEP: f"{_DEEP}: {levels}"}
    return _Read(pixels, said | notes, measured[0], is_float)


def _levels_for(spec: ImageSpec, low: float, high: float, is_float: bool, name: str) -> Levels:
    """The scale for pictures that are not part of a dataset."""
    known = spec.levels(is_float)
    levels = agreed(*known, alone(low, high, is_float), low, high)
    if levels is not None:
        return levels
    has, wanted = range_in_words(low, high), [each for each in known if each is not None]
    if not wanted:
        raise PictureError(
            f"pixel values range from {has}, which is not a known scale",
            "save it with 8 or 16 bits, or as floats from 0 to 1", "unknown pixel scale", name,
        )  # fmt: skip
    raise PictureError(
        f"pixel values range from {has}; those of the training images range from "
        f"{range_in_words(wanted[0].low, wanted[0].high)}",
        "bring them to the scale of the training images", "unknown pixel scale", name,
    )  # fmt: skip


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Add the picture's name to errors."""
    try:
        yield
    except PictureError as error:
        raise type(error)(error.reason, error.hint, error.kind, name) from error.__cause__


def _name(picture: object) -> str:
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return f"image of {memoryview(picture).nbytes:,} bytes"
    if _is_pil(picture):
        return "image"
    if isinstance(picture, (str, PathLike)):
        return fspath(picture)
    if hasattr(picture, "read"):
        return str(getattr(picture, "name", "image"))
    raise PictureError(
        f"expected an image, got {type(picture).__name__}", "pass a path, an open file, bytes, a PIL image or an array"
    )


def _content(picture: Any) -> bytes:
    """The bytes of a picture file, given by its path or content."""
    if isinstance(picture, (bytes, bytearray, memoryview)):
        content = bytes(picture)
    elif hasattr(picture, "read"):
        content = _file_content(picture)
    else:
        if not fspath(picture):
            raise PictureError("a path is empty", "name an image file", "cannot be read")
        problem: PictureProblem = "cannot be read"
        try:
            content = _content_at(picture)
        except PictureError:  # also a ValueError
            raise
        except FileNotFoundError:
            raise PictureNotFound("no such file", "check the spelling and the folder you are in", problem) from None
        except IsADirectoryError:
            raise PictureError("is a folder, not an image", f"name the files: {Path(picture)}/*.png", problem) from None
        except PermissionError:
            raise PictureError("permission denied", "check the file's permissions", problem) from None
        except (OSError, ValueError) as error:
            raise PictureError(f"cannot be read: {error}", "check the path", problem) from error
    if not content:
        raise _empty()
    return content


def _content_at(path: "str | PathLike[str]") -> bytes:
    """The bytes of a file that is neither a device nor too large; raises PictureError, OSError or ValueError."""
    problem: PictureProblem = "cannot be read"
    status = stat_of(path)  # noqa: PTH116 - making a Path takes longer than reading a small file
    kind, size = status.st_mode, min(status.st_size, LARGEST_FILE)
    is_piped = stat.S_ISFIFO(kind) and Path(path).is_relative_to("/dev")  # <(command) in a shell
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or is_piped):
        raise PictureError("is a device or a pipe, not an image", "name image files", problem)
    with open(path, "rb") as file:  # noqa: PTH123
        content = file.read(size + 1)  # reserves as much memory as it may return
        if len(content) > size:  # a pipe, or it has grown
            content += file.read(LARGEST_FILE + 1 - len(content))
    if len(content) > LARGEST_FILE:
        raise PictureError(f"is larger than {LARGEST_FILE:,} bytes", "use a smaller image", "too large")
    return content


def _file_content(file: Any) -> bytes:
    """The bytes of an open file from its start; its position stays as it was."""
    try:
        place = file.tell() if file.seekable() else None
        if place is not None:
            file.seek(0)
        content = file.read()
        if place is not None:
            file.seek(place)
    except (OSError, ValueError, AttributeError) as error:
        raise PictureError(f"cannot be read: {error}", "open the file in binary mode", "cannot be read") from error
    if not isinstance(content, bytes):
        raise PictureError("the file is open as text", "open it in binary mode: open(path, 'rb')", "cannot be read")
    return content


def _empty() -> PictureError:
    return PictureError("the file is empty", "replace it with an image", "empty")


def _open(content: bytes, most: int = MAX_PIXELS) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    if content.startswith(_JPEG) and content.count(_SCAN) > _MAX_SCANS:
        raise PictureError(
            f"has more than {_MAX_SCANS} scans, and each takes as long as decoding an ordinary JPEG",
            "save it again as an ordinary JPEG", "takes too long",
        )  # fmt: skip
    if _has_many_parts(content):
        raise PictureError("has too many small parts", "save it again with another program", "takes too long")
    try:
        with _nothing if _decode_only else _filtered_warnings():
            if content.startswith(_PNG):  # as Image.open does, without trying other formats
                from PIL.PngImagePlugin import PngImageFile

                opened: Image.Image = PngImageFile(io.BytesIO(content))
            elif _is_heic(content):
                opened = _open_heic(content)
            else:
                opened = Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        stated = re.search(r"\d+", str(error))  # Pillow gives the number of pixels, and only in words
        raise _too_large(f"{int(stated[0]):,}" if stated else "too many") from None
    except UnidentifiedImageError:
        if content.startswith(_POINTER):
            raise PictureError("a Git LFS pointer instead of the image", "run: git lfs pull", "not an image") from None
        raise PictureError(
            "not an image that hangtag can read",
            f"known formats: {', '.join(FORMATS)} and HEIC; the file's content decides, not its extension",
            "not an image",
        ) from None
    except PictureError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on broken headers
        raise _damaged(error) from error
    if opened.width * opened.height > most:
        raise _too_large(f"{opened.width}x{opened.height}", most)
    return opened


def _has_many_parts(content: bytes) -> bool:
    """Whether a PNG has more chunks, or a JPEG more segments before its pixels, than any program writes."""
    if len(content) < _LEAST_PARTS * 4:
        return False
    left = max(_LEAST_PARTS, len(content) // _BYTES_A_PART)
    if content.startswith(_PNG):
        place = 8
        while left > 0 and place < len(content):
            place += 12 + int.from_bytes(content[place : place + 4], "big")
            left -= 1
    elif content.startswith(_JPEG):
        place = 2
        while left > 0 and content[place : place + 2] != _SCAN and place < len(content) - 1:
            marker = content[place + 1]
            if content[place] != 0xFF or marker == 0xFF:  # Pillow skips such bytes one by one
                size = max(1, content.find(b"\xff", place + 1) - place)
                left -= size
                place += size
                continue
            is_bare = marker == 0 or 0xD0 <= marker <= 0xD9
            place += 2 if is_bare else 2 + int.from_bytes(content[place + 2 : place + 4], "big")
            left -= 1
    return left <= 0


def _is_heic(content: bytes) -> bool:
    """Whether it starts as a HEIF file other than AVIF, which Pillow reads itself."""
    return content[4:8] == b"ftyp" and content[8:12] in HEIC and b"avif" not in content[16:64]


def _open_heic(content: bytes) -> "Image.Image":
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
    from PIL import Image

    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def decode_only() -> None:
    """Declare that this process only decodes: its warnings are filtered once and for all."""
    global _decode_only  # noqa: PLW0603
    _decode_only = True
    _filter_warnings()


def _too_large(size: str, most: int = MAX_PIXELS) -> PictureError:
    return PictureError(f"declares {size} pixels, over the limit of {most:,}", "scale it down first", "too large")


def _from_file(content: bytes, spec: ImageSpec, most: int = MAX_PIXELS) -> _Read:
    bare = _bare_png(content, most)
    if bare is not None and bare.shape[2:] == spec.shape[2:]:
        return _Read(bare, {})
    with _open(content, most) as opened:
        size = opened.size
        _reduce(opened, spec)
        return _from_pil(opened, spec, content, size=size)


def _reduce(opened: "Image.Image", spec: ImageSpec) -> None:
    """Have a JPEG that is not decoded yet decoded at a half, a quarter or an eighth of its size, if enough is left.

    libjpeg scales in its cosine transform, which averages and saves most of the work.
    """
    least = max(_LEAST_REDUCED, _LEAST_TIMES * max(spec.height, spec.width))
    if not _is_jpeg(opened) or min(opened.size) // 2 < least:
        return
    size = opened.size if _orientation(opened) < _FIRST_SIDEWAYS else opened.size[::-1]
    frame = _frame(*size, spec)
    for by in (8, 4, 2):
        if min(size) // by >= least and _frame(-(-size[0] // by), -(-size[1] // by), spec) == frame:
            opened.draft(None, (opened.width // by, opened.height // by))
            return


def _frame(width: int, height: int, spec: ImageSpec) -> tuple[int, ...]:
    """The pixels of the model's size that a picture fills, with `fit` "pad"; computed as in `resize.py`."""
    if spec.fit != "pad":
        return spec.shape[:2]
    given = np.array([height, width], np.float32)
    exact = given * (np.array([spec.height, spec.width], np.float32) / given).min()
    return tuple(np.maximum(np.round(exact), 1).astype(int).tolist())


def _from_pil(
    opened: "Image.Image",
    spec: ImageSpec,
    content: bytes | None,
    single: bool = True,
    size: tuple[int, int] | None = None,
) -> _Read:
    """Read a PIL image. Of 16-bit colours, Pillow reads 8 bits and `content`, the file, has the others.

    Args:
        single: as for `_from_deep`.
        size: width and height in the file, if the image is decoded at a smaller size.
    """
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
        raw_mode = _deep_mode(opened)
        opened.load()
        upright = _upright(opened)
        rotated = _orientation(opened) != 1 and opened.format != "HEIF"
        if raw_mode is not None and content is not None:
            read = _from_deep(*_deep_colour(upright, raw_mode, content), spec, single)
        elif upright.mode.startswith("I") or upright.mode == "F":
            read = _from_deep(*_deep_grey(upright, _is_white_zero(opened)), spec, single)
        else:
            read = _Read(*_flatten(upright, spec))
    except PictureError:
        raise
    except Exception as error:  # as above: a truncated body is noticed only here
        raise _damaged(error) from error
    if single and rotated:
        notes[Change.ROTATED] = ROTATED
    if size is not None and upright.size != opened.size:
        size = size[::-1]
    return read._replace(notes=notes | read.notes, size=size)


def _deep_mode(image: "Image.Image") -> str | None:
    """Pillow's name for the layout of a file's 16-bit pixels if it keeps only 8 bits; None for other pictures."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return None
    layout = tiles[0][3] if isinstance(tiles[0][3], str) else tiles[0][3][0] if tiles[0][3] else None
    return layout if layout in _LOW_BYTES else None


def _is_white_zero(image: "Image.Image") -> bool:
    """Whether a TIFF file says that 0 is white."""
    return getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def _deep_grey(image: "Image.Image", white_is_zero: bool = False) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """The pixels of a 16-bit, 32-bit or floating-point image (H, W), and alpha if one value is transparent."""
    values, clear = np.asarray(image), image.info.get("transparency")
    if white_is_zero and values.dtype.itemsize > 1:  # Pillow inverts only 8 bits
        values = (1 if values.dtype.kind == "f" else _LARGEST_16_BIT) - values
    return values, None if clear is None else np.where(values == clear, 0, 255).astype(np.uint8)


def _deep_colour(upright: "Image.Image", mode: str, content: bytes) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
    """All 16 bits of a file whose upper 8 bits Pillow has read, (H, W) or (H, W, 3), and alpha.

    Pillow reads the lower bytes too, if the layout it is given has the bytes in the other order.
    """
    from PIL import ImageFile

    with _open(content) as again:
        tiles: list[Any] = again.tile  # type: ignore[attr-defined]
        for place, (codec, extents, offset, how) in enumerate(tiles):
            other = _LOW_BYTES[mode] if isinstance(how, str) else (_LOW_BYTES[mode], *how[1:])
            tiles[place] = ImageFile._Tile(codec, extents, offset, other)
        low = np.asarray(_upright(again)).astype(np.uint16)
    if mode == _DEEP_GREY_ALPHA:  # read as grey and alpha in two bytes each
        return low[..., 0] << 8 | low[..., 1], low[..., 2].astype(np.uint8)
    high = np.asarray(upright)
    values, clear = high[..., :3].astype(np.uint16) << 8 | low[..., :3], upright.info.get("transparency")
    if clear is not None:
        return values, np.where((values == np.array(clear)).all(axis=2), 0, 255).astype(np.uint8)
    return values, high[..., 3] if upright.mode == "RGBA" else None


def _unread_file(image: "Image.Image") -> bytes | None:
    """The file of an opened JPEG, or image of more than 8 bits, that is not loaded yet; None for any other image."""
    is_jpeg = _is_jpeg(image) and image.tile and not image.decoderconfig  # type: ignore[attr-defined]
    if _deep_mode(image) is None and not is_jpeg:
        return None
    return _file_content(image.fp)  # type: ignore[attr-defined]


def _is_pil(value: object) -> "TypeGuard[Image.Image]":
    """Whether it is an image of Pillow; there is none before Pillow is imported, or while a thread imports it."""
    kind = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return kind is not None and isinstance(value, kind)


def _is_jpeg(image: "Image.Image") -> bool:
    """Whether it is a JPEG file; a copy of its pixels is not."""
    from PIL.JpegImagePlugin import JpegImageFile

    return isinstance(image, JpegImageFile)


def _bytes_of(image: "Image.Image") -> bytes:
    """A PIL image as the bytes of a file that decodes to the same picture."""
    try:
        if image.format != "HEIF" and getattr(image, "n_frames", 1) > 1:
            image.seek(0)
        upright = _upright(image)
        if upright.mode.startswith("I") or upright.mode == "F":
            if "transparency" not in upright.info:
                return _npy_of(_deep_grey(upright, _is_white_zero(image))[0])
        elif upright.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            upright = upright.convert(_VIA.get(upright.mode, "RGBA" if upright.has_transparency_data else "RGB"))
        buffer = io.BytesIO()
        upright.save(buffer, format="PNG")
    except PictureError:
        raise
    except Exception as error:  # as in _from_pil: the image may be a file that is decoded only now
        raise _damaged(error) from error
    return buffer.getvalue()


def _npy_of(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _array_in(content: bytes, most: int = MAX_PIXELS) -> NDArray[Any]:
    """The picture in an NPY file, as `_array` gives it. No memory is taken for what the file only declares."""
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read_header(file)
        if dtype.hasobject:
            raise PictureError("contains Python objects, which are never loaded", "save an array of numbers")
        if min(shape, default=0) < 0:
            raise ValueError("a side is below 0")
        array = np.frombuffer(content, dtype, math.prod(shape), file.tell())
        array = array.reshape(shape, order="F" if by_columns else "C")
    except PictureError:
        raise
    except Exception as error:  # NumPy raises many types on broken headers
        raise _damaged(error) from error
    if array.size > 4 * most:
        raise _too_large("x".join(map(str, shape)))
    return _array(array)


def _orientation(image: "Image.Image") -> int:
    """From 1 to 8, as Exif numbers them; 1, upright, if the file says nothing or something else."""
    found: Any = image.getexif().get(_ORIENTATION)
    return int(found) if found in range(2, 9) else 1


def _upright(image: "Image.Image") -> "Image.Image":
    """The image rotated as its Exif data says."""
    if _orientation(image) == 1:
        return image  # Pillow would copy it
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    assert upright is not None
    return upright


def _damaged(error: Exception) -> PictureError:
    hint = "save or download it again"
    if any(sign in str(error).lower() for sign in ("truncated", "broken data stream", "unexpected end")):
        return PictureError("truncated or damaged image", hint, "truncated")
    return PictureError(f"damaged image: {error}", hint)


def _flatten(image: "Image.Image", spec: ImageSpec) -> tuple[NDArray[np.uint8], Notes]:
    """To (H, W) or (H, W, 3): transparency filled with the background, grey by ITU-R 601-2 luma."""
    from PIL import Image

    target = "L" if spec.channels == _GREY_CHANNELS else "RGB"
    notes: Notes = {}
    grey = image.mode in ("1", "L", "LA", "La")
    image = image.convert(_VIA[image.mode]) if image.mode in _VIA else image
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        image = Image.new("RGBA", layered.size, (spec.background,) * 3 + (255,))
        image.alpha_composite(layered)
        if layered.getchannel("A").getextrema() != (255, 255):
            notes[Change.TRANSPARENT] = f"transparency was filled with grey level {spec.background}"
    if target == "L" and not grey:
        image = image.convert("RGB")  # the result of converting the colour picture to grey later
        if carries_colour(np.asarray(image)):
            notes[Change.GREY] = "colour was converted to grey"
    return np.asarray(image if image.mode == target else image.convert(target), dtype=np.uint8), notes
