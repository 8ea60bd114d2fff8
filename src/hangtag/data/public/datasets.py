"""Named public sets: finding their files, checking them, and keeping what was found.

Looked for in this order: a folder the user names, `HANGTAG_DATA`, the cache, the Debian package's folder, the
official mirrors, the system's package tool. Checksums are of the *decompressed* content where anybody publishes them,
because distributors compress the same files anew; else of the files as their makers distribute them. What passed is
kept in the cache as one array that opens at once. The sets themselves are in `named.py`.
It knows nothing of other kinds of data (`sources.py`) nor of screens: progress goes to a function.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.public.archives import content_of, gunzip, members_of, sha256_of
from hangtag.data.public.catalog import FASHION_MNIST, NAMED, Archive, DataFile, NamedSet
from hangtag.data.public.download import download, from_package_tool
from hangtag.data.public.idx import idx_header, parse_idx
from hangtag.errors import DataError, DownloadError, MissingExtra, SaveError, UnknownName, UsageError
from hangtag.files import cache_home, new_folder_whole, write_json
from hangtag.mapped import forget
from hangtag.pictures import Images
from hangtag.progress import Progress

__all__ = ["FASHION_MNIST", "NAMED", "NamedSet", "PublicSet", "cache_folder", "fetch", "fingerprint"]


@dataclass(frozen=True, eq=False)
class PublicSet:
    """The content of a named set, and where it came from."""

    images: Images  # (N, H, W) or (N, H, W, 3), train then test
    labels: NDArray[np.int64]  # (N,)
    origin: str
    parts: dict[str, slice] = field(default_factory=dict)  # train and test; empty when the set is not divided


def fetch(name: str, path: Path | None = None, progress: Progress | None = None, proven: bool = False) -> PublicSet:
    """The named set, from the first place that has it; kept in the cache when it had to be decompressed.

    Args:
        path: the folder that holds the set's files, or the one archive they are in, instead of looking for them.
        proven: refuse files of the user's for which no published checksum can be compared, instead of warning of them.

    Raises:
        UnknownName: no such set.
        UsageError: `path` for a set that has no files, or a wrong `HANGTAG_DATA`.
        DataError: a folder the user named lacks a file or holds other content.
        DownloadError: it is nowhere on this machine and could not be fetched.
        MissingExtra: it comes with scikit-learn, which is not installed.
    """
    if name not in NAMED:
        raise UnknownName.among("data set", name, NAMED)
    wanted = NAMED[name]
    report = progress or _silent
    if not wanted.files:
        return _with_scikit_learn(wanted, path)
    for folder in _named_by_user(wanted, path):
        return _found(wanted, *_read_folder(wanted, folder, report, proven), str(folder))
    cached = _read_cache(wanted)
    if cached is not None:
        return cached
    images, labels, origin = _obtain(wanted, report)
    return _keep(wanted, images, labels, origin)


def cache_folder(name: str) -> Path:
    """Where the named set is kept once it was read."""
    return cache_home("datasets") / name


_HASHED_ROWS = 10_000  # at a time


def fingerprint(images: NDArray[Any], labels: NDArray[Any]) -> str:
    """SHA-256 over the shape and pixels of `images` (N, H, W[, C]) uint8 and over `labels` (N,) as int64."""
    digest = hashlib.sha256(repr(images.shape).encode())
    for start in range(0, len(images), _HASHED_ROWS):
        digest.update(np.ascontiguousarray(images[start : start + _HASHED_ROWS]).data)
        forget(images)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def _silent(what: str, done: int, total: int) -> None:
    pass


def _named_by_user(wanted: NamedSet, path: Path | None) -> Iterator[Path]:
    if path is not None:
        yield path
    elif os.environ.get("HANGTAG_DATA"):
        place = Path(os.environ["HANGTAG_DATA"])
        if not place.is_dir():
            raise UsageError(f"HANGTAG_DATA: {place} is not a folder", "set it to the folder that holds your data sets")
        for folder in (place / wanted.name, place):
            if _archive_in(wanted, folder) or any(_locate(wanted, folder, file) for file in wanted.files):
                yield folder


def _obtain(wanted: NamedSet, progress: Progress) -> tuple[Images, NDArray[np.int64], str]:
    """Images, labels and origin, from outside the user's own folders: every file must be proven by a checksum."""
    if wanted.debian_folder and wanted.debian_folder.is_dir():
        return *_read_folder(wanted, wanted.debian_folder, progress, proven=True), str(wanted.debian_folder)
    troubles = []
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        for mirror in wanted.mirrors:
            try:
                folder = download(wanted, mirror, Path(temporary), progress)
                return *_read_folder(wanted, folder, progress, proven=True), mirror
            except (DataError, DownloadError) as trouble:
                troubles.append(f"{mirror}: {trouble.message}")
        if wanted.debian_folder:
            try:
                folder = from_package_tool(wanted, Path(temporary), progress)
                images, labels = _read_folder(wanted, folder, progress, proven=True)
                return images, labels, f"the Debian package {wanted.debian_package}"
            except (DataError, DownloadError) as trouble:
                troubles.append(trouble.message)
    files = wanted.archive.name if wanted.archive else "its four files"
    package = f", or install the package {wanted.debian_package}" if wanted.debian_package else ""
    raise DownloadError(
        f"{wanted.title} is not on this machine and could not be fetched: {'; '.join(troubles)}",
        f"copy {files} here by hand from {wanted.home} and name the folder (--path or HANGTAG_DATA){package}",
    )


def _with_scikit_learn(wanted: NamedSet, path: Path | None) -> PublicSet:
    """1797 digits of 8x8 pixels: counts of dark dots, 0-16 as they come, here 0-255."""
    if path is not None:
        raise UsageError(f"{wanted.name}: {wanted.title} have no files", "leave out the folder")
    try:
        import sklearn
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise MissingExtra.named("train", "sklearn") from None
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    return _found(wanted, images, digits.target.astype(np.int64), f"scikit-learn {sklearn.__version__}")


# --- finding files ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Piece:
    """One file of a set as it was found."""

    file: DataFile
    place: str  # in words: its path, or its archive's path and its name in there
    content: bytes  # decompressed; a byte too many when it is longer than it should be
    packed: Path | bytes  # the file or member as it was found
    archive: Path | None = None

    @cached_property
    def packed_sha256(self) -> str:
        return sha256_of(self.packed) if isinstance(self.packed, Path) else hashlib.sha256(self.packed).hexdigest()


def _pieces(wanted: NamedSet, folder: Path) -> Iterator[_Piece]:
    """The set's files in their order, out of its archive if that is there."""
    archive = _archive_in(wanted, folder)
    if wanted.archive and archive:
        yield from _pieces_of_archive(wanted, wanted.archive, archive)
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", f"name the folder that holds {_first_of(wanted)}")
    for file in wanted.files:
        path = _locate(wanted, folder, file)
        if path is None:
            raise _missing(wanted, folder, file)
        yield _Piece(file, str(path), content_of(path, _size(wanted, file) + 1), path)


def _pieces_of_archive(wanted: NamedSet, archive: Archive, path: Path) -> Iterator[_Piece]:
    names = {file: f"{archive.folder}{file.name}{archive.ending}" for file in wanted.files}
    # What cannot be compressed is a little longer as gzip.
    members = members_of(path, {name: _size(wanted, file) * 1001 // 1000 + 1024 for file, name in names.items()})
    for file, name in names.items():
        if name not in members:
            raise DataError(f"{path}: {name} is not in it", f"get {archive.name} from {wanted.home}")
        packed = members.pop(name)
        place = f"{path}: {name}"
        yield _Piece(file, place, gunzip(packed, _size(wanted, file) + 1, place), packed, path)


def _archive_in(wanted: NamedSet, folder: Path) -> Path | None:
    """The set's archive, if it has one: in the folder, or the file that the user named in place of a folder."""
    if wanted.archive is None:
        return None
    path = folder if folder.is_file() else folder / wanted.archive.name
    return path if path.is_file() else None


def _locate(wanted: NamedSet, folder: Path, file: DataFile) -> Path | None:
    """The file under its plain name, or compressed, or with the dot that some unpackers put before `idx`."""
    names = (file.name, file.name.replace("-idx", ".idx"))
    endings = ("", ".gz") if file.sha256 else (".gz", "")  # first the one whose checksum is known
    folders = (folder, folder / wanted.archive.folder) if wanted.archive else (folder,)
    places = (place / (name + ending) for place in folders for ending in endings for name in names)
    return next((place for place in places if place.is_file()), None)


def _missing(wanted: NamedSet, folder: Path, file: DataFile) -> DataError:
    if wanted.archive is None:
        return DataError(f"{folder}: {file.name}[.gz] is missing", f"{wanted.title} has four files; put them all there")
    return DataError(
        f"{folder}: neither {wanted.archive.name} nor {file.name} is there",
        f"get {wanted.archive.name} ({wanted.archive.note}) from {wanted.home}",
    )


def _first_of(wanted: NamedSet) -> str:
    return wanted.archive.name if wanted.archive else f"{wanted.files[0].name}[.gz]"


# --- checking and reading them ---------------------------------------------------------------------------------


def _read_folder(
    wanted: NamedSet, folder: Path, progress: Progress, proven: bool = False
) -> tuple[Images, NDArray[np.int64]]:
    """All images (N, H, W[, 3]) and labels (N,) of the set, train then test, each file checked.

    Args:
        proven: refuse a file for which no published checksum can be compared, instead of warning of it.
    """
    total = wanted.items * (wanted.pixels + 1)
    done, places, contents, doubtful = 0, {}, {}, False
    for piece in _pieces(wanted, folder):
        doubtful |= not _is_proven(wanted, piece, proven)
        places[piece.file], contents[piece.file] = piece.place, piece.content
        done += len(piece.content)
        progress(f"reading {wanted.title}", min(done, total), total)
    images, labels = _decode(wanted, contents, places)
    known = labels.min() >= 0 and labels.max() < len(wanted.class_names)
    if not known or (doubtful and wanted.even and not _is_even(wanted, labels)):
        raise DataError(f"{folder}: the labels are not those of {wanted.title}", f"get the files from {wanted.home}")
    if doubtful:
        warnings.warn(
            f"{folder}: that this is {wanted.title} was checked by its shape and labels alone: checksums are known "
            f"of the .gz files as its makers give them",
            stacklevel=3,
        )
    return images, labels


def _is_proven(wanted: NamedSet, piece: _Piece, must_be: bool) -> bool:
    """Does a published checksum fit? If not: raises DataError, unless there is none to compare and it need not be."""
    digest = hashlib.sha256(piece.content).hexdigest()
    expected, length = _size(wanted, piece.file), len(piece.content)
    if length == expected and _fits(wanted, piece, digest):
        return True
    other = _other_set(wanted, piece, digest)
    if other is not None:
        raise DataError(
            f"{piece.place}: these are {other.what}, not {wanted.title}",
            f"name the set '{other.name}' to read them; get the files of {wanted.title} from {wanted.home}",
        )
    if length < expected:
        raise DataError(f"{piece.place}: cut short: {length:,} of {expected:,} bytes", "download it again")
    if length > expected:
        raise DataError(
            f"{piece.place}: longer than the {expected:,} bytes of {wanted.title}", "is it another data set?"
        )
    if must_be or piece.file.sha256:
        raise DataError(
            f"{piece.place}: wrong content: SHA-256 {digest[:12]}... is not {wanted.title}'s", "download it again"
        )
    return False


def _fits(wanted: NamedSet, piece: _Piece, digest: str) -> bool:
    """Does the checksum of its content, of its .gz or of its archive fit? What costs more is tried later."""
    if digest == piece.file.sha256 or (piece.file.packed_sha256 and piece.packed_sha256 == piece.file.packed_sha256):
        return True
    return bool(piece.archive and wanted.archive and sha256_of(piece.archive) == wanted.archive.sha256)


def _other_set(wanted: NamedSet, piece: _Piece, digest: str) -> NamedSet | None:
    """The set that a file belongs to in truth, if its checksum or its looks tell."""
    for other in NAMED.values():
        if other.name != wanted.name:
            checksums = {(file.sha256 or file.packed_sha256) for file in other.files}
            if {digest, piece.packed_sha256} & checksums or _looks_like(other, wanted, piece):
                return other
    return None


def _looks_like(other: NamedSet, wanted: NamedSet, piece: _Piece) -> bool:
    """First labels or mean brightness of another set, in a file that has the right size for the wanted one."""
    if other.looks is None or len(piece.content) != _size(wanted, piece.file):
        return False
    if piece.file in wanted.labels:
        return piece.content[8:18] in other.looks.first_labels
    return abs(float(np.frombuffer(piece.content, np.uint8, offset=16).mean()) - other.looks.mean) < 1.5


def _is_even(wanted: NamedSet, labels: NDArray[np.int64]) -> bool:
    """Has each part equally many labels of each class?"""
    counts = [np.bincount(labels[part], minlength=len(wanted.class_names)) for part in wanted.parts.values()]
    return all((part == part[0]).all() for part in counts)


def _size(wanted: NamedSet, file: DataFile) -> int:
    """Bytes of the file's decompressed content."""
    if wanted.label_bytes:
        return file.items * (wanted.label_bytes + wanted.pixels)
    shape = _shape(wanted, file)
    return len(idx_header(shape)) + int(np.prod(shape))


def _shape(wanted: NamedSet, file: DataFile) -> tuple[int, ...]:
    """What the file's IDX header must say."""
    if file in wanted.labels:
        return (file.items,)
    return (file.items, *(reversed(wanted.shape) if wanted.transposed else wanted.shape))


def _decode(
    wanted: NamedSet, contents: Mapping[DataFile, bytes], places: Mapping[DataFile, str]
) -> tuple[Images, NDArray[np.int64]]:
    if wanted.label_bytes:
        return _decode_records(wanted, [contents[file] for file in wanted.images])
    arrays = {file: parse_idx(content, places[file]) for file, content in contents.items()}
    for file, array in arrays.items():
        if array.shape != _shape(wanted, file) or array.dtype != np.uint8:
            raise DataError(
                f"{places[file]}: holds {array.dtype} of shape {array.shape}, not {wanted.title}",
                f"get the files from {wanted.home}",
            )
    images = np.concatenate([arrays[file] for file in wanted.images])
    labels = np.concatenate([arrays[file] for file in wanted.labels]).astype(np.int64) - wanted.first_label
    return np.ascontiguousarray(images.swapaxes(1, 2)) if wanted.transposed else images, labels


def _decode_records(wanted: NamedSet, contents: list[bytes]) -> tuple[Images, NDArray[np.int64]]:
    """CIFAR's binary records (https://www.cs.toronto.edu/~kriz/cifar.html): label bytes, then each colour's plane."""
    height, width, colours = wanted.shape
    images = np.empty((wanted.items, *wanted.shape), np.uint8)  # (N, H, W, 3)
    labels = np.empty(wanted.items, np.int64)
    start = 0
    for content in contents:
        records = np.frombuffer(content, np.uint8).reshape(-1, wanted.label_bytes + wanted.pixels)
        stop = start + len(records)
        planes = records[:, wanted.label_bytes :].reshape(-1, colours, height, width)
        images[start:stop] = planes.transpose(0, 2, 3, 1)
        labels[start:stop] = records[:, wanted.label_bytes - 1]
        start = stop
    return images, labels


# --- the cache -------------------------------------------------------------------------------------------------


def _read_cache(wanted: NamedSet) -> PublicSet | None:
    """The kept arrays, memory-mapped and checked; a damaged copy is removed, said aloud, and fetched anew."""
    folder = cache_folder(wanted.name)
    if not folder.is_dir():
        return None
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        intact = fingerprint(images, labels) == (wanted.fingerprint or _kept_fingerprint(folder))
    except Exception:  # a damaged header makes NumPy raise many types, tokenize.TokenError among them
        intact = False
    if intact:
        return _found(wanted, images, labels, str(folder))
    warnings.warn(f"{folder}: the kept copy of {wanted.title} is damaged; fetching it again", stacklevel=3)
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _kept_fingerprint(folder: Path) -> Any:
    return json.loads((folder / "kept.json").read_text(encoding="utf-8"))["fingerprint"]


def _keep(wanted: NamedSet, images: Images, labels: NDArray[np.int64], origin: str) -> PublicSet:
    """Kept with its fingerprint, as computed now, where nobody knew it before."""
    folder = cache_folder(wanted.name)
    try:
        with new_folder_whole(folder) as temporary:
            np.save(temporary / "images.npy", images, allow_pickle=False)
            np.save(temporary / "labels.npy", labels, allow_pickle=False)
            if not wanted.fingerprint:
                kept = {"set": wanted.name, "origin": origin, "fingerprint": fingerprint(images, labels)}
                write_json(temporary / "kept.json", kept)
    except SaveError as error:
        warnings.warn(f"{error.message}; {wanted.title} will be read from {origin} each time", stacklevel=3)
    return _found(wanted, images, labels, origin)


def _found(wanted: NamedSet, images: Images, labels: NDArray[np.int64], origin: str) -> PublicSet:
    images.flags.writeable = False
    labels.flags.writeable = False
    return PublicSet(images, labels, origin, wanted.parts)
