"""Files of arrays -> images and labels: .npz, pairs of .npy, IDX and IDX.gz. Pickled objects are refused.

The names of the arrays say which hold images, which hold labels, and which part they belong to.
"""

import gzip
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.folder_layout import Choose
from hangtag.data.labelled_images import PARTS
from hangtag.data.parts import PART_NAMES, part_in_file_name
from hangtag.data.public.idx import read_idx
from hangtag.errors import DataError, UnknownName
from hangtag.words import first_few

__all__ = ["ArrayPart", "Arrays", "flat_labels", "is_idx", "read_idx_folder", "read_npy", "read_npz", "read_npz_folder"]

_IMAGES = ("images", "image", "imgs", "img", "data", "pictures", "photos", "pixels", "features", "inputs")
_LABELS = ("labels", "label", "targets", "target", "classes", "class")
_PARTNERS = {"x": ("y",), **dict.fromkeys(_IMAGES, _LABELS)}
"""The words for labels that may stand in place of a word for images in the name of an array."""

_NAMES = {"class_names", "label_names", "target_names", "classes", "names", "categories"}
"""Names of arrays that hold a name for each number."""

_MOST_ARRAYS = 1000
_LARGEST_RATIO = 200  # content to packed bytes of a large array; images come to 1 to 20
_SMALL = 256_000_000  # bytes; a smaller array may be packed at any ratio


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """Images and labels of one part; the part is None for undivided data."""

    part: str | None
    images: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Arrays:
    """The parts, in the order of `PARTS`, and notes on what was not used, in sentences."""

    parts: list[ArrayPart]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Header:
    """The shape of an array and whether it holds text; `problem` says why it cannot be read, in an error."""

    shape: tuple[int, ...]
    is_text: bool = False
    problem: DataError | None = None


_Pair = tuple[str | None, str, str]
"""A part, and the names of its images and of its labels."""


def read_npz(path: Path, choose: Choose, images: str | None = None, labels: str | None = None) -> Arrays:
    """The parts of a .npz file: x_train/y_train, train_images/train_labels, X/y, images/labels, ...

    No array is loaded before its header was compared with what the file holds.

    Args:
        choose: called if several pairs of arrays are plausible.
        images, labels: the names of the arrays, if the user gave them.

    Raises:
        DataError: the file is damaged, declares more than it holds or contains pickled objects, or its arrays have
            unknown names.
        UsageError: several pairs of arrays are plausible, and `choose` cannot decide.
    """
    with _as_data_errors(path):
        headers = _npz_headers(path)

    def load(name: str) -> NDArray[Any]:
        with _as_data_errors(path), path.open("rb") as file, np.load(file, allow_pickle=False) as opened:
            loaded: NDArray[Any] = opened[name]
            return loaded

    return _arrays(headers, load, str(path), choose, images, labels)


def read_npz_folder(path: Path, choose: Choose, images: str | None = None, labels: str | None = None) -> Arrays:
    """The .npz files of a folder: one for each part, such as train.npz, or one with a single array for each class.

    An array is called by its file and its own name: train_images.

    Raises:
        DataError, UsageError: as `read_npz`.
    """
    places: dict[str, tuple[Path, str]] = {}
    headers: dict[str, _Header] = {}
    files = sorted(file for file in path.glob("*.npz") if not file.name.startswith("."))
    for file in files:
        with _as_data_errors(file):
            found = _npz_headers(file)
        places |= {f"{file.stem}_{name}": (file, name) for name in found}
        headers |= {f"{file.stem}_{name}": header for name, header in found.items()}

    def load(name: str) -> NDArray[Any]:
        file, own = places[name]
        with _as_data_errors(file), file.open("rb") as raw, np.load(raw, allow_pickle=False) as opened:
            loaded: NDArray[Any] = opened[own]
            return loaded

    are_classes = len(files) == len(headers) > 1 and all(len(header.shape) > 2 for header in headers.values())
    if not are_classes or images or labels or any(part_in_file_name(file.stem) for file in files):
        return _arrays(headers, load, str(path), choose, images, labels)
    if problem := next((header.problem for header in headers.values() if header.problem), None):
        raise problem
    if len({header.shape[1:] for header in headers.values()}) > 1:
        raise DataError(f"{path}: the files have images of different shapes", "give all images the same size")
    classes = np.repeat([file.stem for file in files], [header.shape[0] for header in headers.values()])
    note = f"each .npz file is a class: {first_few([file.stem for file in files])}"
    return Arrays([ArrayPart(None, np.concatenate([load(name) for name in headers]), classes)], (note,))


def read_npy(path: Path, choose: Choose, images: str | None = None, labels: str | None = None) -> Arrays:
    """A folder with pairs of .npy files, or one file of a pair: x.npy and y.npy, images.npy and labels.npy.

    Of a file, only the pair it belongs to is read.

    Raises:
        DataError: a file is damaged or contains pickled objects, or one of the pair is missing.
        UsageError: several pairs are plausible, and `choose` cannot decide.
    """
    folder = path if path.is_dir() else path.parent
    opened: dict[str, NDArray[Any]] = {}
    headers = {}
    for file in sorted(folder.glob("*.npy")):
        try:
            with _as_data_errors(file):
                opened[file.stem] = np.load(file, mmap_mode="r", allow_pickle=False)
            headers[file.stem] = _Header(opened[file.stem].shape, opened[file.stem].dtype.kind in "US")
        except DataError as error:
            headers[file.stem] = _Header((), problem=error)

    named = None if path.is_dir() else path.stem
    return _arrays(headers, opened.__getitem__, str(path), choose, images, labels, named)


def flat_labels(labels: Any, count: int) -> NDArray[Any]:
    """(N,) labels of (N,), (N, 1), (1, N) or one-hot (N, K); the class of a one-hot row is the number of its column.

    Raises:
        DataError: the rows differ in length, or are not one-hot.
    """
    try:
        array = np.asarray(labels)
    except ValueError:
        raise DataError("labels: rows differ in length", "give one label per image, or one-hot rows") from None
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "backslashreplace")
    if array.ndim == 2 and 1 in array.shape and array.size == count:
        flat: NDArray[Any] = array.reshape(-1)
        return flat
    if array.ndim != 2 or array.dtype.kind not in "biuf" or len(array) != count:
        return array
    wrong = np.flatnonzero(((array != 0) & (array != 1)).any(axis=1) | (array.sum(axis=1) != 1))
    if len(wrong):
        raise DataError(
            f"labels of shape {array.shape} must be one-hot, but row {wrong[0]} is not", "give one label per image"
        )
    columns: NDArray[Any] = array.argmax(axis=1)
    return columns


def is_idx(path: Path) -> bool:
    """Whether a file begins like an IDX file, compressed or not."""
    try:
        with path.open("rb") as raw:
            start = raw.read(4)
        if start[:2] == b"\x1f\x8b":
            with gzip.open(path) as packed:
                start = packed.read(4)
    except (OSError, EOFError, zlib.error):
        return False
    return len(start) == 4 and start[:2] == b"\0\0" and start[2] in range(8, 15) and 1 <= start[3] <= 4


def read_idx_folder(path: Path, choose: Choose) -> Arrays:
    """Pairs of IDX files in a folder, or the pair that one file belongs to: train-images-idx3-ubyte and so on.

    Raises:
        DataError: one file of a pair is missing.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path, *_partners(path)]
    arrays = {}
    for file in files:
        if file.is_file() and is_idx(file):
            name = re.sub(r"[-.]?idx\d.*$|\.gz$", "", file.name).replace("-", "_").replace("t10k", "test")
            arrays[name] = read_idx(file)
    headers = {name: _Header(array.shape) for name, array in arrays.items()}
    return _arrays(headers, arrays.__getitem__, str(path), choose)


def _partners(path: Path) -> list[Path]:
    for one, other in (("images-idx3", "labels-idx1"), ("images.idx3", "labels.idx1"), ("images", "labels")):
        for mine, theirs in ((one, other), (other, one)):
            if mine in path.name:
                wanted = path.name.replace(mine, theirs).removesuffix(".gz")
                return [each for ending in ("", ".gz") if (each := path.with_name(wanted + ending)).is_file()]
    return []


def _arrays(
    headers: Mapping[str, _Header],
    load: Callable[[str], NDArray[Any]],
    where: str,
    choose: Choose,
    images: str | None = None,
    labels: str | None = None,
    named: str | None = None,
) -> Arrays:
    """Choose the arrays by their names and shapes, and load only these.

    Args:
        named: the array that the user pointed at; it must be one of the pair.
    """
    for wanted in (images, labels):
        if wanted is not None and wanted not in headers:
            raise UnknownName.among(f"array in {where}:", wanted, headers)
    chosen = {images, labels, named} - {None}
    readings = [[pair for pair in pairs if chosen <= set(pair[1:])] for pairs in _readings(headers)]
    if images and labels:
        readings = [[(None, images, labels)]]
    readings = [pairs for pairs in readings if pairs] or _by_shape(headers, images, labels, named)
    even = [
        pairs
        for pairs in readings
        if all(headers[one].shape[:1] == headers[other].shape[:1] for _, one, other in pairs)
    ]
    readings = even or readings
    if not readings:
        raise _unknown_names(headers, where, named)
    answers = {", ".join(name for pair in pairs for name in pair[1:]): pairs for pairs in readings}
    answer = next(iter(answers))
    if len(answers) > 1:
        question = f"{where}: which arrays hold the images and labels? (--image-column, --label-column)"
        answer = choose(question, [(each, f"the arrays {each}") for each in answers])
    pairs = sorted(answers[answer], key=lambda pair: PARTS.index(pair[0]) if pair[0] else 0)
    for problem in (headers[name].problem for pair in pairs for name in pair[1:]):
        if problem is not None:
            raise problem
    found = [_loaded(part, load(one), load(other), where) for part, one, other in pairs]
    found, names = _with_names(found, headers, load)
    used = {name for pair in pairs for name in pair[1:]} | names
    unused = [f"{name} {headers[name].shape}" for name in headers if name not in used]
    return Arrays(found, (f"arrays that are not used: {first_few(unused)}",) if unused else ())


def _readings(headers: Mapping[str, _Header]) -> list[list[_Pair]]:
    """All ways to read the arrays: one for each naming scheme, with the pair of each part."""
    by_lower = {name.lower(): name for name in headers}
    schemes: dict[tuple[str, str], dict[str | None, _Pair]] = {}
    for name in headers:
        pieces = re.split(r"([^a-z0-9]+)", name.lower())
        for place, word in enumerate(pieces):
            for partner in _PARTNERS.get(word, ()):
                other = by_lower.get("".join([*pieces[:place], partner, *pieces[place + 1 :]]))
                if other is None or other == name:
                    continue
                rest = [*pieces[:place], "", *pieces[place + 1 :]]
                part = next((PART_NAMES[each] for each in rest if each in PART_NAMES), None)
                scheme = "".join("{}" if each in PART_NAMES else each for each in pieces), partner
                schemes.setdefault(scheme, {}).setdefault(part, (part, name, other))
    return [list(pairs.values()) for pairs in schemes.values()]


def _by_shape(
    headers: Mapping[str, _Header], images: str | None, labels: str | None, named: str | None
) -> list[list[_Pair]]:
    """The pairs whose shapes fit, if exactly one array can hold images."""
    pictures = [name for name, header in headers.items() if len(header.shape) in (3, 4)]
    if named in pictures:
        pictures = [named]
    pictures = [images] if images else pictures
    if len(pictures) != 1:
        return []
    count = headers[pictures[0]].shape[:1]
    fits = [name for name, each in headers.items() if name != pictures[0] and each.shape[:1] == count]
    fits = [labels] if labels else [name for name in fits if len(headers[name].shape) <= 2]
    return [[(None, pictures[0], name)] for name in fits if named in (None, pictures[0], name)]


def _unknown_names(headers: Mapping[str, _Header], where: str, named: str | None) -> DataError:
    damaged = [header.problem for header in headers.values() if header.problem is not None]
    if damaged and (named is None or headers[named].problem):
        return damaged[0] if named is None else headers[named].problem or damaged[0]
    contents = first_few([f"{name} {header.shape}" for name, header in headers.items()], 10) or "no arrays"
    what = f"no array beside it holds the labels of {named}" if named else "cannot tell images from labels"
    return DataError(
        f"{where}: {what}; found: {contents}",
        "name them x_train and y_train (x_test, y_test), or images and labels; or name both: "
        "--image-column NAME --label-column NAME",
    )


def _with_names(
    found: list[ArrayPart], headers: Mapping[str, _Header], load: Callable[[str], NDArray[Any]]
) -> tuple[list[ArrayPart], set[str]]:
    """Names in place of numbers, if one of the arrays holds a name for each; and the name of that array."""
    lists = [name for name, each in headers.items() if name.lower() in _NAMES and each.is_text and len(each.shape) == 1]
    numbers = [part.labels for part in found if part.labels.dtype.kind in "biu" and part.labels.size]
    if len(lists) != 1 or len(numbers) != len(found):
        return found, set()
    names = load(lists[0])
    if min(map(np.min, numbers)) < 0 or max(map(np.max, numbers)) >= len(names):
        return found, set()
    return [ArrayPart(part.part, part.images, names[part.labels]) for part in found], {lists[0]}


def _loaded(part: str | None, images: NDArray[Any], labels: NDArray[Any], where: str) -> ArrayPart:
    labels = flat_labels(labels, len(images) if images.ndim else 0)
    if images.ndim and labels.ndim and len(images) != len(labels):
        of_part = f" of {part}" if part else ""
        raise DataError(
            f"{where}: {len(images):,} images but {len(labels):,} labels{of_part}", "give one label for each image"
        )
    return ArrayPart(part, images, labels)


def _npz_headers(path: Path) -> dict[str, _Header]:
    """What each array declares, checked against the number of bytes that the file holds for it."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MOST_ARRAYS:
            raise DataError(f"{path}: more than {_MOST_ARRAYS:,} arrays", "save images and labels as one array each")
        headers: dict[str, _Header] = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            try:
                header = _npy_header(archive, member)
            except (ValueError, EOFError, RuntimeError, RecursionError, MemoryError, zlib.error) as error:
                header = _Header((), problem=DataError(f"{path}: {name} is damaged: {error}", "save it again"))
            if name in headers:
                problem = DataError(f"{path}: two arrays are named {name}", "save the arrays again")
                header = _Header(header.shape, problem=problem)
            headers[name] = header
    return headers


def _npy_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    """The header of one member.

    Raises:
        ValueError: it is not an array, or declares more or fewer bytes than there are.
    """
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        start = file.tell()
    if dtype.hasobject:
        return _Header(shape, problem=_objects(Path(str(archive.filename))))
    declared = start + math.prod(shape) * dtype.itemsize
    if declared != member.file_size or min(shape, default=0) < 0:
        raise ValueError(f"it declares {declared:,} bytes, but the file holds {member.file_size:,}")
    if declared > max(_SMALL, _LARGEST_RATIO * member.compress_size):
        raise ValueError(f"{declared:,} bytes are packed into {member.compress_size:,}, as in a decompression bomb")
    return _Header(shape, dtype.kind in "US")


def _objects(path: Path) -> DataError:
    return DataError(
        f"{path} contains Python objects, which hangtag never loads because they can run arbitrary code",
        "save plain arrays: numpy.savez(file, images=..., labels=...)",
    )


@contextmanager
def _as_data_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise DataError(f"{path}: permission denied", "check the permissions") from None
    except DataError:
        raise
    except ValueError as error:
        if "pickle" in str(error).lower() or "Python objects" in str(error):
            raise _objects(path) from error
        raise DataError(f"{path} is damaged: {error}", "save or download it again") from error
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, MemoryError) as error:
        raise DataError(f"{path} is not a complete {path.suffix} file: {error}", "save or download it again") from error
