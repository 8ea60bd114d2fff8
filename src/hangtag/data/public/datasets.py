"""Public data sets: finding their files, checking them, and caching them.

Places are searched in this order: a folder the user names, `HANGTAG_DATA`, the cache, the Debian package's folder, the
official mirrors. Checksums are of the *decompressed* content where published, because distributors compress the same
files differently; otherwise of the files as their authors distribute them. Checked images and labels are cached as
arrays that can be memory-mapped. `catalog.json` describes the data sets.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages, Source, content_hashes
from hangtag.data.not_found import exists
from hangtag.data.public.archives import content_of, gunzip, members_of, sha256_of
from hangtag.data.public.catalog import NAMED, Archive, DataFile, NamedSet
from hangtag.data.public.download import download
from hangtag.data.public.idx import check_length, idx_header, parse_idx
from hangtag.errors import (
    DataError,
    DataNotFound,
    DownloadError,
    MissingExtra,
    SaveError,
    UnknownName,
    UsageError,
    warn,
)
from hangtag.files import cache_home, new_folder_whole, write_bytes, write_json
from hangtag.mapped import forget
from hangtag.pictures import Images
from hangtag.progress import Progress

__all__ = ["NAMED", "NamedSet", "PublicSet", "cache_folder", "fetch", "fingerprint", "read_public"]


@dataclass(frozen=True, eq=False)
class PublicSet:
    """The content of a public data set, and its source."""

    images: Images  # (N, H, W) or (N, H, W, 3), train then test
    labels: NDArray[np.int64]  # (N,)
    origin: str
    parts: dict[str, slice] = field(default_factory=dict)  # train and test; empty if the data set is not divided
    contents: NDArray[np.uint64] | None = None  # (N, 2) `content_hashes` of the images, if they are cached


def read_public(name: str, path: Path | None = None, progress: Progress | None = None) -> LabelledImages:
    """The public data set of this name; arguments and errors as for `fetch`."""
    public = fetch(name, path, progress)
    kind = NAMED[name]
    notes: tuple[str, ...] = ()
    if path is None and exists(Path(name)):
        own = "folder" if Path(name).is_dir() else "file"
        notes = (f"read the public dataset {name}, not the {own} of that name; to read the {own}, write ./{name}",)
    source = Source(public.origin, notes=notes)
    data = LabelledImages(
        public.images, public.labels, kind.class_names, kind.name, parts=dict(public.parts), source=source
    )
    if public.contents is not None:
        vars(data)["contents"] = public.contents
    return data


def fetch(name: str, path: Path | None = None, progress: Progress | None = None) -> PublicSet:
    """The public data set of this name, from the first place that has it; cached if it had to be decompressed.

    Args:
        path: the folder with the data set's files, or the archive that holds them; None searches for them.

    Raises:
        UnknownName: no such data set.
        UsageError: `path` for a data set without files, or a wrong `HANGTAG_DATA`.
        DataError: a folder the user named lacks a file or has other content.
        DownloadError: the data set is not on this machine and could not be downloaded.
        MissingExtra: the data set comes with scikit-learn, which is not installed.
    """
    if name not in NAMED:
        raise UnknownName.among("dataset", name, NAMED)
    dataset = NAMED[name]
    report = progress or _silent
    if not dataset.files:
        return _from_scikit_learn(dataset, path)
    folder = _user_folder(dataset, path)
    if folder is not None:
        return _public_set(dataset, *_read_folder(dataset, folder, report), str(folder))
    cached = _read_cache(dataset)
    if cached is not None:
        return cached
    images, labels, origin = _find_or_download(dataset, report)
    return _save(dataset, images, labels, origin)


def cache_folder(name: str) -> Path:
    """Where this data set is cached."""
    return cache_home("datasets") / name


def fingerprint(images: NDArray[Any], labels: NDArray[Any]) -> str:
    """SHA-256 over the shape and pixels of `images` (N, H, W[, C]) uint8 and over `labels` (N,) as int64."""
    digest = hashlib.sha256(repr(images.shape).encode())
    for start in range(0, len(images), 10_000):
        digest.update(np.ascontiguousarray(images[start : start + 10_000]).data)
        forget(images)
    digest.update(np.ascontiguousarray(labels, dtype="<i8").data)
    return digest.hexdigest()


def _silent(what: str, done: int, total: int) -> None:
    pass


def _user_folder(dataset: NamedSet, path: Path | None) -> Path | None:
    """The folder the user named, if any, for this data set."""
    if path is not None or not os.environ.get("HANGTAG_DATA"):
        return path
    place = Path(os.environ["HANGTAG_DATA"])
    if not place.is_dir():
        raise UsageError(f"HANGTAG_DATA: {place} is not a folder", "set it to the folder that contains your datasets")
    for folder in (place / dataset.name, place):
        if _archive_in(dataset, folder) or any(_locate(dataset, folder, file) for file in dataset.files):
            return folder
    return None


def _find_or_download(dataset: NamedSet, progress: Progress) -> tuple[Images, NDArray[np.int64], str]:
    """Images, labels and source, from the Debian package or a mirror; a checksum must prove every file."""
    if dataset.debian_folder and dataset.debian_folder.is_dir():
        return *_read_folder(dataset, dataset.debian_folder, progress, proven=True), str(dataset.debian_folder)
    problems = []
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        for mirror in dataset.mirrors:
            try:
                folder = download(dataset, mirror, Path(temporary), progress)
                return *_read_folder(dataset, folder, progress, proven=True), mirror
            except (DataError, DownloadError) as error:
                problems.append(f"{mirror}: {error.message}")
    files = dataset.archive.name if dataset.archive else "its four files"
    package = f", or install the Debian package {dataset.debian_package}" if dataset.debian_package else ""
    raise DownloadError(
        f"{dataset.title} is not on this machine and could not be downloaded: {'; '.join(problems) or 'no mirrors'}",
        f"download {files} from {dataset.home} and name the folder (--path or HANGTAG_DATA){package}",
    )


def _from_scikit_learn(dataset: NamedSet, path: Path | None) -> PublicSet:
    """1797 digits of 8x8 pixels; scikit-learn's values from 0 to 16 are scaled to 0-255."""
    if path is not None:
        raise UsageError(f"{dataset.name}: this dataset comes with scikit-learn, not from a folder", "remove --path")
    try:
        import sklearn
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise MissingExtra.named("train", "sklearn") from None
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    return _public_set(dataset, images, digits.target.astype(np.int64), f"scikit-learn {sklearn.__version__}")


# --- finding files ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Piece:
    """One file of a data set, as found."""

    file: DataFile
    place: str  # its path, or its archive's path and its name there
    content: bytes  # decompressed; one byte too many if it is too long
    packed: Path | bytes  # the file or member itself
    archive: Path | None = None

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def packed_sha256(self) -> str:
        return sha256_of(self.packed) if isinstance(self.packed, Path) else hashlib.sha256(self.packed).hexdigest()


def _pieces(dataset: NamedSet, folder: Path) -> Iterator[_Piece]:
    """The data set's files in their order, from its archive if there is one."""
    archive = _archive_in(dataset, folder)
    if dataset.archive and archive:
        yield from _pieces_of_archive(dataset, dataset.archive, archive)
        return
    if not folder.is_dir():
        raise DataNotFound(f"{folder}: no such folder", f"name the folder that holds {_first_of(dataset)}")
    for file in dataset.files:
        path = _locate(dataset, folder, file)
        if path is None:
            raise _missing(dataset, folder, file)
        yield _Piece(file, str(path), content_of(path, _size(dataset, file) + 1), path)


def _pieces_of_archive(dataset: NamedSet, archive: Archive, path: Path) -> Iterator[_Piece]:
    names = {file: f"{archive.folder}{file.name}{archive.ending}" for file in dataset.files}
    members = members_of(path, names.values())
    for file, name in names.items():
        if name not in members:
            raise DataError(f"{path}: {name} is missing", f"get {archive.name} from {dataset.home}")
        packed = members.pop(name)
        place = f"{path}: {name}"
        yield _Piece(file, place, gunzip(packed, _size(dataset, file) + 1, place), packed, path)


def _archive_in(dataset: NamedSet, folder: Path) -> Path | None:
    """The data set's archive: a file in the folder, or the file that the user named instead of a folder."""
    if dataset.archive is None:
        return None
    path = folder if folder.is_file() else folder / dataset.archive.name
    return path if path.is_file() else None


def _locate(dataset: NamedSet, folder: Path, file: DataFile) -> Path | None:
    """The file, plain or compressed; some programs put a dot before `idx` in its name."""
    names = (file.name, file.name.replace("-idx", ".idx"))
    endings = ("", ".gz") if file.sha256 else (".gz", "")  # the one with a known checksum first
    folders = (folder, folder / dataset.archive.folder) if dataset.archive else (folder,)
    places = (place / (name + ending) for place in folders for ending in endings for name in names)
    return next((place for place in places if place.is_file()), None)


def _missing(dataset: NamedSet, folder: Path, file: DataFile) -> DataError:
    if dataset.archive is None:
        return DataError(f"{folder}: {file.name}[.gz] is missing", f"put all four files of {dataset.title} there")
    return DataError(
        f"{folder}: must contain {dataset.archive.name} or {file.name}",
        f"get {dataset.archive.name} ({dataset.archive.note}) from {dataset.home}",
    )


def _first_of(dataset: NamedSet) -> str:
    return dataset.archive.name if dataset.archive else f"{dataset.files[0].name}[.gz]"


# --- checking and reading them ---------------------------------------------------------------------------------


def _read_folder(
    dataset: NamedSet, folder: Path, progress: Progress, proven: bool = False
) -> tuple[Images, NDArray[np.int64]]:
    """All images (N, H, W[, 3]) and labels (N,) of the data set, train then test, after checking each file.

    Args:
        proven: refuse a file that no published checksum proves, instead of warning about it.
    """
    total = dataset.items * (dataset.pixels + 1)
    done, places, contents, unproven = 0, {}, {}, False
    for piece in _pieces(dataset, folder):
        unproven |= not _is_proven(dataset, piece, proven)
        places[piece.file], contents[piece.file] = piece.place, piece.content
        done += len(piece.content)
        progress(f"reading {dataset.title}", min(done, total), total)
    images, labels = _decode(dataset, contents, places)
    valid = labels.min() >= 0 and labels.max() < len(dataset.class_names)
    if not valid or (unproven and dataset.balanced and not _is_balanced(dataset, labels)):
        raise DataError(f"{folder}: the labels are not those of {dataset.title}", f"get the files from {dataset.home}")
    if unproven:
        warn(
            f"{folder}: this looks like {dataset.title}, judging by shape and labels, but is not verified; checksums "
            f"are published only for the .gz files of its authors"
        )
    return images, labels


def _is_proven(dataset: NamedSet, piece: _Piece, required: bool) -> bool:
    """Whether a published checksum proves the file. Raises DataError for a wrong file, or if a proof is required."""
    if _matches(dataset, piece):
        return True
    other = _other_set(dataset, piece)
    if other is not None:
        raise DataError(
            f"{piece.place}: these are {other.what}, not {dataset.title}",
            f"to read them, use the name '{other.name}'; get the files of {dataset.title} from {dataset.home}",
        )
    check_length(piece.content, _size(dataset, piece.file), piece.place)
    if required or piece.file.sha256:
        raise DataError(
            f"{piece.place}: wrong content: its SHA-256 {piece.sha256[:12]}... is not that of {dataset.title}",
            "download it again",
        )
    return False


def _matches(dataset: NamedSet, piece: _Piece) -> bool:
    """Whether the checksum of the file's content, of its .gz or of its archive is as published."""
    file = piece.file
    if len(piece.content) != _size(dataset, file):
        return False
    if piece.sha256 == file.sha256 or (file.packed_sha256 and piece.packed_sha256 == file.packed_sha256):
        return True
    return bool(piece.archive and dataset.archive and sha256_of(piece.archive) == dataset.archive.sha256)


def _other_set(dataset: NamedSet, piece: _Piece) -> NamedSet | None:
    """The other data set whose published checksum the file has."""
    for other in NAMED.values():
        checksums = {(file.sha256 or file.packed_sha256) for file in other.files}
        if other.name != dataset.name and {piece.sha256, piece.packed_sha256} & checksums:
            return other
    return None


def _is_balanced(dataset: NamedSet, labels: NDArray[np.int64]) -> bool:
    """Whether each part has the same number of labels of every class."""
    counts = [np.bincount(labels[part], minlength=len(dataset.class_names)) for part in dataset.parts.values()]
    return all((part == part[0]).all() for part in counts)


def _size(dataset: NamedSet, file: DataFile) -> int:
    """Bytes of the file's decompressed content."""
    if dataset.label_bytes:
        return file.items * (dataset.label_bytes + dataset.pixels)
    shape = _shape(dataset, file)
    return len(idx_header(shape)) + int(np.prod(shape))


def _shape(dataset: NamedSet, file: DataFile) -> tuple[int, ...]:
    """The shape that the file's IDX header must have."""
    if file in dataset.labels:
        return (file.items,)
    return (file.items, *(reversed(dataset.shape) if dataset.transposed else dataset.shape))


def _decode(
    dataset: NamedSet, contents: Mapping[DataFile, bytes], places: Mapping[DataFile, str]
) -> tuple[Images, NDArray[np.int64]]:
    if dataset.label_bytes:
        return _decode_records(dataset, [contents[file] for file in dataset.images])
    arrays = {file: parse_idx(content, places[file]) for file, content in contents.items()}
    for file, array in arrays.items():
        if array.shape != _shape(dataset, file) or array.dtype != np.uint8:
            raise DataError(
                f"{places[file]}: must be uint8 of shape {_shape(dataset, file)}, got {array.dtype} of {array.shape}",
                f"get the files from {dataset.home}",
            )
    images = np.concatenate([arrays[file] for file in dataset.images])
    labels = np.concatenate([arrays[file] for file in dataset.labels]).astype(np.int64) - dataset.first_label
    return np.ascontiguousarray(images.swapaxes(1, 2)) if dataset.transposed else images, labels


def _decode_records(dataset: NamedSet, contents: list[bytes]) -> tuple[Images, NDArray[np.int64]]:
    """CIFAR's binary records (https://www.cs.toronto.edu/~kriz/cifar.html): label bytes, then a plane per colour."""
    height, width, colours = dataset.shape
    images = np.empty((dataset.items, *dataset.shape), np.uint8)  # (N, H, W, 3)
    labels = np.empty(dataset.items, np.int64)
    start = 0
    for content in contents:
        records = np.frombuffer(content, np.uint8).reshape(-1, dataset.label_bytes + dataset.pixels)
        stop = start + len(records)
        planes = records[:, dataset.label_bytes :].reshape(-1, colours, height, width)
        images[start:stop] = planes.transpose(0, 2, 3, 1)
        labels[start:stop] = records[:, dataset.label_bytes - 1]
        start = stop
    return images, labels


# --- the cache -------------------------------------------------------------------------------------------------


def _read_cache(dataset: NamedSet) -> PublicSet | None:
    """The cached arrays, memory-mapped and checked; a damaged copy is deleted with a warning."""
    folder = cache_folder(dataset.name)
    if not folder.is_dir():
        return None
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        found = fingerprint(images, labels)
        intact = found == (dataset.fingerprint or _cached_fingerprint(folder))
    except Exception:  # a damaged header makes NumPy raise many types, tokenize.TokenError among them
        intact = False
    if intact:
        contents = _cached_contents(folder, images, found)
        return replace(_public_set(dataset, images, labels, str(folder)), contents=contents)
    warn(f"{folder}: the cached copy of {dataset.title} is damaged; it is fetched again")
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _cached_fingerprint(folder: Path) -> Any:
    return json.loads((folder / "kept.json").read_text(encoding="utf-8"))["fingerprint"]


def _cached_contents(folder: Path, images: Images, fingerprint: str) -> NDArray[np.uint64]:
    """The `content_hashes` of the images with this fingerprint, from the cache or else computed and cached."""
    path, content = folder / "contents.bin", b""
    with suppress(OSError):
        content = path.read_bytes()
    checksum, hashes = content[:32], content[32:]
    if len(hashes) != 16 * len(images) or checksum != hashlib.sha256(fingerprint.encode() + hashes).digest():
        hashes = content_hashes(images).tobytes()
        with suppress(SaveError):  # they are computed again next time
            write_bytes(path, hashlib.sha256(fingerprint.encode() + hashes).digest() + hashes)
    return np.frombuffer(hashes, "<u8").reshape(-1, 2)


def _save(dataset: NamedSet, images: Images, labels: NDArray[np.int64], origin: str) -> PublicSet:
    """Cache the data set, with its fingerprint if the catalog has none."""
    folder = cache_folder(dataset.name)
    try:
        with new_folder_whole(folder) as temporary:
            np.save(temporary / "images.npy", images, allow_pickle=False)
            np.save(temporary / "labels.npy", labels, allow_pickle=False)
            if not dataset.fingerprint:
                facts = {"set": dataset.name, "origin": origin, "fingerprint": fingerprint(images, labels)}
                write_json(temporary / "kept.json", facts)
    except SaveError as error:
        warn(f"{error.message}; {dataset.title} will be read from {origin} each time")
    return _public_set(dataset, images, labels, origin)


def _public_set(dataset: NamedSet, images: Images, labels: NDArray[np.int64], origin: str) -> PublicSet:
    images.flags.writeable = False
    labels.flags.writeable = False
    return PublicSet(images, labels, origin, dataset.parts)
