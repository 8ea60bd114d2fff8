"""Named public sets: where their files may be, what they must contain, and how to get them.

Looked for in this order: a folder the user names, `HANGTAG_DATA`, the cache, the Debian package's folder, the
official mirrors, the system's package tool. Checksums are of the *decompressed* content, because distributors
compress the same files anew. What passed them is kept in the cache as one array that opens at once.
It knows nothing of other kinds of data (`sources.py`) nor of screens: progress goes to a function.
"""

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError, DownloadError, SaveError, UnknownName, UsageError
from hangtag.files import cache_home, new_folder_whole
from hangtag.images import Images
from hangtag.mapped import forget

__all__ = ["FASHION_MNIST", "NAMED", "Found", "NamedSet", "Progress", "cache_folder", "fetch", "fingerprint"]

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (what is going on, bytes done, bytes in all)."""


@dataclass(frozen=True)
class IdxFile:
    """One file of a set: its plain name, how many items it holds, and the SHA-256 of its decompressed content."""

    name: str
    items: int
    sha256: str


@dataclass(frozen=True)
class NamedSet:
    """A public set in IDX files (two of images, two of labels), with everything needed to get and check it."""

    name: str
    title: str
    class_names: tuple[str, ...]
    side: int  # pixels
    images: tuple[IdxFile, IdxFile]  # train, test
    labels: tuple[IdxFile, IdxFile]
    fingerprint: str  # of all images and labels, train then test: see fingerprint()
    mirrors: tuple[str, ...]
    debian_package: str
    debian_folder: Path

    @property
    def files(self) -> tuple[IdxFile, ...]:
        return (*self.images, *self.labels)


@dataclass(frozen=True, eq=False)
class Found:
    """The content of a named set, and where it came from."""

    images: Images  # (N, H, W), train then test
    labels: NDArray[np.int64]  # (N,)
    origin: str


FASHION_MNIST = NamedSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    class_names=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ),
    side=28,
    images=(
        IdxFile("train-images-idx3-ubyte", 60_000, "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        IdxFile("t10k-images-idx3-ubyte", 10_000, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
    ),
    labels=(
        IdxFile("train-labels-idx1-ubyte", 60_000, "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        IdxFile("t10k-labels-idx1-ubyte", 10_000, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
    fingerprint="934f3500fd399dd42ff58ebc4bc3c558c3e497052c8674425a66b408e22fd6d2",
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    debian_package="dataset-fashion-mnist",
    debian_folder=Path("/usr/share/datasets/fashion-mnist"),
)  # fmt: skip

NAMED = {FASHION_MNIST.name: FASHION_MNIST}

# The digits that share Fashion-MNIST's file names, by the SHA-256 of their decompressed content.
_DIGITS = {
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_IMAGE_HEADER, _LABEL_HEADER = 16, 8  # bytes
_MIRROR_PATIENCE = (10, 60)  # seconds to connect, seconds without a byte


def fetch(name: str, path: Path | None = None, progress: Progress | None = None) -> Found:
    """The named set, from the first place that has it; kept in the cache when it had to be decompressed.

    Raises:
        UnknownName: no such set.
        DataError: a folder the user named lacks a file or holds other content.
        DownloadError: it is nowhere on this machine and could not be fetched.
    """
    if name not in NAMED:
        raise UnknownName.among("data set", name, NAMED)
    wanted = NAMED[name]
    report = progress or _silent
    for folder in _named_by_user(wanted, path):
        return _found(*_read_folder(wanted, folder, report), str(folder))
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
            if any(_locate(folder, file) for file in wanted.files):
                yield folder


def _obtain(wanted: NamedSet, progress: Progress) -> tuple[Images, NDArray[np.int64], str]:
    if wanted.debian_folder.is_dir():
        return *_read_folder(wanted, wanted.debian_folder, progress), str(wanted.debian_folder)
    troubles = []
    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        for mirror in wanted.mirrors:
            try:
                folder = _download(wanted, mirror, Path(temporary), progress)
                return *_read_folder(wanted, folder, progress), mirror
            except (DataError, DownloadError) as trouble:
                troubles.append(f"{mirror}: {trouble.message}")
        try:
            folder = _from_package_tool(wanted, Path(temporary), progress)
            return *_read_folder(wanted, folder, progress), f"the Debian package {wanted.debian_package}"
        except (DataError, DownloadError) as trouble:
            troubles.append(trouble.message)
    raise DownloadError(
        f"{wanted.title} is not on this machine and could not be fetched: {'; '.join(troubles)}",
        f"copy its four files here by hand and name the folder (--path or HANGTAG_DATA), "
        f"or install the package {wanted.debian_package}",
    )


# --- IDX files -------------------------------------------------------------------------------------------------


def _read_folder(wanted: NamedSet, folder: Path, progress: Progress) -> tuple[Images, NDArray[np.int64]]:
    """All images (N, H, W) and labels (N,) of the set, train then test, each file checked."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", f"name the folder that holds {wanted.images[0].name}[.gz]")
    total = sum(file.items * (wanted.side**2 if file in wanted.images else 1) for file in wanted.files)
    done, contents = 0, {}
    for file in wanted.files:
        contents[file.name] = _content(wanted, folder, file)
        done += len(contents[file.name])
        progress(f"reading {wanted.title}", min(done, total), total)
    shape = (-1, wanted.side, wanted.side)
    images = [np.frombuffer(contents[file.name], np.uint8, offset=_IMAGE_HEADER) for file in wanted.images]
    labels = [np.frombuffer(contents[file.name], np.uint8, offset=_LABEL_HEADER) for file in wanted.labels]
    return np.concatenate(images).reshape(shape), np.concatenate(labels).astype(np.int64)


def _content(wanted: NamedSet, folder: Path, file: IdxFile) -> bytes:
    """The decompressed content of one file, exactly what it should be or an error that says what it is instead."""
    path = _locate(folder, file)
    if path is None:
        raise DataError(f"{folder}: {file.name}[.gz] is missing", f"{wanted.title} has four files; put them all there")
    expected = _expected_size(wanted, file)
    content = _decompress(path, expected)
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise _why_wrong(wanted, path, content, expected)
    return content


def _locate(folder: Path, file: IdxFile) -> Path | None:
    """The file under its plain name, or compressed, or with the dot that some unpackers put before `idx`."""
    names = (file.name, file.name.replace("-idx", ".idx"))
    places = (folder / (name + ending) for ending in ("", ".gz") for name in names)
    return next((place for place in places if place.is_file()), None)


def _expected_size(wanted: NamedSet, file: IdxFile) -> int:
    if file in wanted.images:
        return _IMAGE_HEADER + file.items * wanted.side**2
    return _LABEL_HEADER + file.items


def _decompress(path: Path, expected: int) -> bytes:
    try:
        with path.open("rb") as raw:
            if raw.read(2) != b"\x1f\x8b":
                raw.seek(0)
                return raw.read(expected + 1)
        with gzip.open(path) as packed:
            return packed.read(expected + 1)  # one byte more shows a file that is too long, without reading it all
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: cut short or damaged ({error})", "download it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}", "check the file's permissions") from error


def _why_wrong(wanted: NamedSet, path: Path, content: bytes, expected: int) -> DataError:
    digest = hashlib.sha256(content).hexdigest()
    if digest in _DIGITS or _looks_like_digits(content, expected):
        return DataError(
            f"{path}: these are the handwritten digits of MNIST, not {wanted.title}",
            "both sets use the same file names; get the files from the Fashion-MNIST project",
        )
    if len(content) < expected:
        return DataError(f"{path}: cut short: {len(content):,} of {expected:,} bytes", "download it again")
    if len(content) > expected:
        return DataError(f"{path}: longer than the {expected:,} bytes of {wanted.title}", "is it another data set?")
    return DataError(f"{path}: wrong content: SHA-256 {digest[:12]}... is not {wanted.title}'s", "download it again")


def _looks_like_digits(content: bytes, expected: int) -> bool:
    """MNIST's first labels, or its much darker images (mean 33 of 255, against 73), in a file of the same size."""
    if len(content) != expected:
        return False
    if struct.unpack(">I", content[:4]) == (2049,):
        return content[8:18] in (bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]), bytes([7, 2, 1, 0, 4, 1, 4, 9, 5, 9]))
    return 32 < float(np.frombuffer(content, np.uint8, offset=_IMAGE_HEADER).mean()) < 35


# --- the cache -------------------------------------------------------------------------------------------------


def _read_cache(wanted: NamedSet) -> Found | None:
    """The kept arrays, memory-mapped and checked; a damaged copy is removed, said aloud, and fetched anew."""
    folder = cache_folder(wanted.name)
    if not folder.is_dir():
        return None
    try:
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / "labels.npy", allow_pickle=False)
        intact = fingerprint(images, labels) == wanted.fingerprint
    except Exception:  # a damaged header makes NumPy raise many types, tokenize.TokenError among them
        intact = False
    if intact:
        return _found(images, labels, str(folder))
    warnings.warn(f"{folder}: the kept copy of {wanted.title} is damaged; fetching it again", stacklevel=3)
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _keep(wanted: NamedSet, images: Images, labels: NDArray[np.int64], origin: str) -> Found:
    folder = cache_folder(wanted.name)
    try:
        with new_folder_whole(folder) as temporary:
            np.save(temporary / "images.npy", images, allow_pickle=False)
            np.save(temporary / "labels.npy", labels, allow_pickle=False)
    except SaveError as error:
        warnings.warn(f"{error.message}; {wanted.title} will be read from {origin} each time", stacklevel=3)
    return _found(images, labels, origin)


def _found(images: Images, labels: NDArray[np.int64], origin: str) -> Found:
    images.flags.writeable = False
    labels.flags.writeable = False
    return Found(images, labels, origin)


# --- from outside ----------------------------------------------------------------------------------------------


class _DownloadBar:
    """What pooch calls a progress bar, passed on to a `Progress` function."""

    def __init__(self, what: str, progress: Progress) -> None:
        self.what, self.progress = what, progress
        self.total = self.done = 0

    def update(self, count: int) -> None:
        self.done += count
        self.progress(self.what, min(self.done, self.total), self.total)

    def reset(self) -> None:
        self.done = 0

    def close(self) -> None:
        pass


def _download(wanted: NamedSet, mirror: str, temporary: Path, progress: Progress) -> Path:
    import pooch
    import requests

    folder = temporary / hashlib.sha256(mirror.encode()).hexdigest()[:8]
    names = [f"{file.name}.gz" for file in wanted.files]
    files = pooch.create(folder, base_url=mirror, registry=dict.fromkeys(names), retry_if_failed=2)
    pooch.get_logger().setLevel("ERROR")
    for name in names:
        bar = _DownloadBar(f"downloading {name}", progress)
        download = pooch.HTTPDownloader(progressbar=bar, chunk_size=65_536, timeout=_MIRROR_PATIENCE)
        try:
            files.fetch(name, downloader=download)
        except requests.HTTPError as error:
            raise DownloadError(f"the server answered {_status(error)}", "try later") from error
        except (requests.RequestException, ValueError) as error:
            raise DownloadError("no answer", "check the network") from error
        except OSError as error:
            raise DownloadError(f"cannot keep the download: {error.strerror}", "free some space") from error
    return folder


def _status(error: Any) -> str:
    return "nothing" if error.response is None else str(error.response.status_code)


def _from_package_tool(wanted: NamedSet, temporary: Path, progress: Progress) -> Path:
    """Fetch and unpack the Debian package into `temporary`; needs no root and installs nothing."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise DownloadError("there is no apt-get here", "install the package another way")
    lists = temporary / "lists"
    (lists / "partial").mkdir(parents=True)
    own_lists = [f"-oDir::State::Lists={lists}", f"-oDir::Cache={temporary}", "-oDebug::NoLocking=1"]
    steps = (
        ["apt-get", "-qq", "download", wanted.debian_package],
        ["apt-get", "-qq", *own_lists, "update"],
        ["apt-get", "-qq", *own_lists, "download", wanted.debian_package],
    )
    for number, step in enumerate(steps):
        progress(f"asking the system's package tool for {wanted.debian_package}", number, len(steps))
        outcome = subprocess.run(step, cwd=temporary, capture_output=True, text=True, check=False)
        archives = sorted(temporary.glob(f"{wanted.debian_package}_*.deb"))
        if archives:
            unpacked = temporary / "unpacked"
            if subprocess.run(["dpkg-deb", "-x", archives[0], unpacked], capture_output=True, check=False).returncode:
                raise DownloadError(f"dpkg-deb cannot unpack {archives[0].name}", "is the disk full?")
            return unpacked / wanted.debian_folder.relative_to("/")
    lines = outcome.stderr.strip().splitlines() or ["no package came"]
    raise DownloadError(f"apt-get: {lines[-1]}", f"install {wanted.debian_package} by hand")
