"""The cache on disk: decoded pictures, features of images, and public data sets that were fetched.

Everything in it can be deleted at any time. The name of an entry is a hash of its source, so a changed source finds
no entry. An entry gets its name only when it is complete, and every byte of it is checked when it is opened: an image
by its checksum in facts.npy, the other files by theirs in checksums.json. A damaged entry counts as none. When the
cache is too large, the least recently used pictures and features are deleted.
"""

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import FACTS, Skipped
from hangtag.data.store.pool import npy_bytes
from hangtag.errors import SaveError, UsageError
from hangtag.files import cache_home, make_folder, new_folder_whole, saving, write_bytes
from hangtag.mapped import forget
from hangtag.pictures import Images, ImageSpec

__all__ = [
    "VERSION",
    "CacheEntry",
    "LazyNames",
    "Pictures",
    "building",
    "clear",
    "decoded_as",
    "entries",
    "limit_bytes",
    "load_features",
    "load_groups",
    "make_room",
    "open_pictures",
    "save",
    "save_features",
    "save_groups",
    "set_aside",
]

VERSION = 7
"""Of the entries' layout; entries of other versions are ignored. Since 7: when a photo was taken."""

_LIMIT_GIGABYTES = 20.0
_PICTURES, _SETS, _FEATURES, _GROUPS = "pictures", "datasets", "features", "groups"
_GROUPS_VERSION = 2  # of the search for near duplicates; groups of other versions are ignored
_CHECKSUMS = "checksums.json"
_LOCK = "lock"
_DIGEST = hashlib.sha256().digest_size
_CHECKED_BYTES = 64_000_000  # of images that are in memory at a time
_MOST_SEARCHED = 16  # earlier entries searched for pictures of the same content
_ABANDONED = 7 * 86_400  # seconds after which an interrupted decoding is deleted


@dataclass(frozen=True)
class CacheEntry:
    """One entry: its kind, its source, its size in bytes, when it was last used (POSIX seconds)."""

    path: Path
    kind: str
    what: str
    bytes: int
    used: float

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "kind": self.kind, "what": self.what, "bytes": self.bytes, "used": self.used}


@dataclass(frozen=True, eq=False)
class Pictures:
    """An entry of decoded pictures; the images are mapped from their file.

    Attributes:
        images: (M, H, W) or (M, H, W, 3) uint8.
        facts: (M,) of `picture_facts.FACTS`.
        labels: (M,) int64.
        parts: (M,) int8, an index into `PARTS`; -1 without parts.
        groups: (M,) int64, or None.
        names: the M names of the pictures; loaded on first access.
        index: the rest, as JSON: class names, spec, notes, ...
        skipped: files that were set aside.
    """

    images: Images
    facts: NDArray[Any]
    labels: NDArray[np.int64]
    parts: NDArray[np.int8]
    groups: NDArray[np.int64] | None
    names: Sequence[str]
    index: dict[str, Any]
    skipped: tuple[Skipped, ...]


class LazyNames(Sequence[str]):
    """Names as JSON, parsed on first access; `path` is where they come from."""

    def __init__(self, path: Path, content: bytes, count: int) -> None:
        self.path, self._content, self._count = path, content, count

    @cached_property
    def names(self) -> list[str]:
        names: list[str] = json.loads(self._content)
        return names

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, which: Any) -> Any:
        return self.names[which]


def open_pictures(key: str) -> Pictures | None:
    """The entry of this name; None if there is none. A damaged entry is deleted."""
    folder = cache_home(_PICTURES) / key
    if not folder.is_dir():
        return None
    try:
        content = _checked(folder)
        index = json.loads(content["index.json"])
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        facts, labels, parts = (_array(content[f"{name}.npy"]) for name in ("facts", "labels", "parts"))
        groups = _array(content["groups.npy"]) if "groups.npy" in content else None
        shape = (len(labels), *ImageSpec(**index["spec"]).shape)
        whole = images.shape == shape and images.dtype == np.uint8 and facts.dtype == FACTS
        whole = whole and len(facts) == len(labels) == len(parts) and index["version"] == VERSION
        whole = whole and _rows_are_whole(images, facts["pixels"])
        skipped = tuple(Skipped(**each) for each in index["skipped"])
    except Exception:  # truncated, of another version or not ours: NumPy and JSON raise many types
        whole = False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)
    names = LazyNames(folder / "names.json", content["names.json"], len(labels))
    return Pictures(images, facts, labels, parts, groups, names, index, skipped)


def _checked(folder: Path, *only: str) -> dict[str, bytes]:
    """The content of an entry's files, or of some of them; raises OSError, KeyError or ValueError if one is damaged."""
    checksums = json.loads((folder / _CHECKSUMS).read_bytes())
    content = {}
    for name in only or checksums:
        content[name] = (folder / name).read_bytes()
        if hashlib.sha256(content[name]).hexdigest() != checksums[name]:
            raise ValueError(f"{folder / name}: its checksum does not match its content")
    return content


def _array(content: bytes) -> NDArray[Any]:
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def _rows_are_whole(images: Images, checksums: NDArray[Any]) -> bool:
    """Whether each image has its CRC-32."""
    step = max(1, _CHECKED_BYTES // max(1, images[:1].nbytes))
    for start in range(0, len(images), step):
        rows = images[start : start + step].reshape(-1, int(np.prod(images.shape[1:])))
        if any(
            zlib.crc32(row.data) != checksum for row, checksum in zip(rows, checksums[start:].tolist(), strict=False)
        ):
            return False
        forget(images)
    return True


def set_aside(key: str) -> None:
    """Give up an outdated entry; its images are still found by their content until it is made again."""
    home = cache_home(_PICTURES)
    shutil.rmtree(home / _outdated(key), ignore_errors=True)
    with contextlib.suppress(OSError):
        (home / key).rename(home / _outdated(key))
    shutil.rmtree(home / key, ignore_errors=True)


def _outdated(key: str) -> str:
    return f".{key}.old.partial"


@contextmanager
def building(key: str, source: str) -> Iterator[Path]:
    """A folder to fill for the entry `key`; call `save` when it is complete.

    It holds what an interrupted earlier process wrote. While another process fills it, this one gets its own folder.

    Raises:
        SaveError: the cache cannot be written.
    """
    from filelock import FileLock, Timeout  # its import takes longer than opening an entry

    home = cache_home(_PICTURES)
    folder = home / f".{key}.partial"
    try:
        make_folder(folder)
    except SaveError as error:
        raise SaveError(error.message, f"{error.hint}; XDG_CACHE_HOME moves the cache") from error
    limit_bytes()  # a wrong limit is an error before the work
    lock = FileLock(folder / _LOCK)  # released by the system when a process is killed
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError, NotImplementedError):  # in use, or a file system without locks
        folder = home / f".{key}.{os.getpid()}.partial"
        make_folder(folder)
        lock = FileLock(folder / _LOCK)
        with contextlib.suppress(Timeout, OSError, NotImplementedError):
            lock.acquire(blocking=False)
    try:
        write_bytes(folder / "source", source.encode("utf-8", "surrogateescape"), sync=False)
        yield folder
    finally:
        lock.release()


def save(
    folder: Path, key: str, index: dict[str, Any], arrays: Mapping[str, NDArray[Any] | None], names: Sequence[str]
) -> None:
    """Complete a folder with images.npy and facts.npy as the entry `key`. The first process to finish wins."""
    content = {f"{name}.npy": npy_bytes(array) for name, array in arrays.items() if array is not None}
    content["names.json"] = json.dumps(list(names)).encode("ascii")
    content["index.json"] = json.dumps({"version": VERSION, **index}).encode("ascii")
    for name, each in content.items():
        write_bytes(folder / name, each, sync=False)
    target = cache_home(_PICTURES) / key
    with saving(target):
        content["facts.npy"] = (folder / "facts.npy").read_bytes()
        checksums = {name: hashlib.sha256(each).hexdigest() for name, each in content.items()}
        write_bytes(folder / _CHECKSUMS, json.dumps(checksums).encode("ascii"))
        for path in folder.iterdir():
            if path.name not in (*content, "images.npy", _CHECKSUMS):
                path.unlink()  # the lock, what served an interrupted decoding, and partial files
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
            shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(target.with_name(_outdated(key)), ignore_errors=True)


def load_groups(fingerprint: str) -> NDArray[np.int64] | None:
    """(N,) groups of near duplicates that were found earlier in this data set, in the order of its content."""
    with contextlib.suppress(OSError, ValueError):
        content = _groups_file(fingerprint).read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() == content[:_DIGEST]:
            return _array(content[_DIGEST:])
    return None


def save_groups(fingerprint: str, groups: NDArray[np.int64]) -> None:
    """Store groups for `load_groups`; if they cannot be written, the next command searches again."""
    with contextlib.suppress(SaveError):
        make_folder(cache_home(_GROUPS))
        content = npy_bytes(groups)
        checksum = hashlib.sha256(content).digest()
        write_bytes(_groups_file(fingerprint), checksum + content, sync=False)


def _groups_file(fingerprint: str) -> Path:
    return cache_home(_GROUPS) / f"{fingerprint}-{_GROUPS_VERSION}.npy"


def load_features(source: str) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float32]]]:
    """Features that were computed earlier: pairs of (M, 2) content hashes and (M, E) features, mapped from files.

    Args:
        source: a hash of what computed them.
    """
    for folder in sorted(cache_home(_FEATURES).glob(f"{source}-*")):
        try:
            content = _checked(folder, "contents.npy", "index.json")
            checksums = json.loads((folder / _CHECKSUMS).read_bytes())
            with (folder / "features.npy").open("rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == checksums["features.npy"]
            contents = _array(content["contents.npy"])
            features = np.load(folder / "features.npy", mmap_mode="r", allow_pickle=False)
            whole = whole and contents.shape == (len(features), 2) and contents.dtype == np.uint64
            whole = whole and features.ndim == 2 and features.dtype == np.float32
        except Exception:  # as in `open_pictures`
            whole = False
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with contextlib.suppress(OSError):
            os.utime(folder)
        yield contents, features


def save_features(source: str, what: str, contents: NDArray[np.uint64], features: NDArray[np.float32]) -> None:
    """Store features for `load_features`; if they cannot be written, they are computed again next time.

    Args:
        what: the entry's description for the user.
    """
    files = {"contents.npy": npy_bytes(contents), "features.npy": npy_bytes(features)}
    key = f"{source}-{hashlib.sha256(files['contents.npy']).hexdigest()[:16]}"
    files["index.json"] = json.dumps({"what": what}).encode("ascii")
    with contextlib.suppress(SaveError), new_folder_whole(cache_home(_FEATURES) / key) as folder:
        for name, content in files.items():
            write_bytes(folder / name, content, sync=False)
        checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        write_bytes(folder / _CHECKSUMS, json.dumps(checksums).encode("ascii"), sync=False)
    make_room(key)


def decoded_as(spec: ImageSpec) -> list[Path]:
    """The newest entries that were decoded for this spec; their pictures need not be decoded again."""
    folders: list[Path] = []
    for entry in sorted(entries(), key=lambda each: -each.used):
        if entry.kind == _PICTURES and len(folders) < _MOST_SEARCHED:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                index = json.loads(_checked(entry.path, "index.json", "facts.npy")["index.json"])
                if ImageSpec(**index["decoded_as"]) == spec and index["version"] == VERSION:
                    folders.append(entry.path)
    return folders


def entries() -> list[CacheEntry]:
    """All entries, the largest first, including interrupted decodings."""
    found = []
    for kind in (_PICTURES, _SETS, _FEATURES):
        home = cache_home(kind)
        for path in home.iterdir() if home.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.is_dir():
                    size = sum(file.stat().st_blocks * 512 for file in path.iterdir() if file.is_file())
                    found.append(CacheEntry(path, kind, _source(path), size, path.stat().st_mtime))
    return sorted(found, key=lambda entry: -entry.bytes)


def clear() -> int:
    """Delete all entries but those that a process is filling; returns their size in bytes."""
    freed = 0
    for entry in entries():
        if not _being_filled(entry.path):
            shutil.rmtree(entry.path, ignore_errors=True)
            freed += entry.bytes
    shutil.rmtree(cache_home(_GROUPS), ignore_errors=True)
    return freed


def _being_filled(folder: Path) -> bool:
    """Whether a process is decoding into this folder."""
    from filelock import FileLock, Timeout

    if not (folder / _LOCK).is_file():
        return False
    try:
        with FileLock(folder / _LOCK).acquire(blocking=False):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # a file system without locks
        return False


def limit_bytes() -> int:
    """The largest allowed size of the cache: `HANGTAG_CACHE_GB` gigabytes, or 20.

    Raises:
        UsageError: the variable is not a finite number of at least 0.
    """
    value = os.environ.get("HANGTAG_CACHE_GB", str(_LIMIT_GIGABYTES))
    try:
        size = float(value)
        if not 0 <= size < math.inf:
            raise ValueError
        return int(size * 1e9)
    except (ValueError, OverflowError):
        message = f"HANGTAG_CACHE_GB must be a number of gigabytes (0 or more), got {value!r}"
        raise UsageError(message, "for example HANGTAG_CACHE_GB=20") from None


def make_room(key: str) -> None:
    """Delete the least recently used pictures and features until the cache is within its limit, but not entry `key`."""
    found = [entry for entry in entries() if entry.kind != _SETS and entry.path.name != key]
    total = sum(entry.bytes for entry in entries())
    for entry in sorted(found, key=lambda each: each.used):
        partial = entry.path.name.endswith(".partial")
        if partial and time.time() - entry.used < _ABANDONED:
            continue  # another process may be filling it
        if total > limit_bytes() or partial:
            shutil.rmtree(entry.path, ignore_errors=True)
            total -= entry.bytes


def _source(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        if path.name.endswith(".partial"):
            return f"{(path / 'source').read_text(encoding='utf-8')} (interrupted)"
        if (path / "index.json").is_file():
            return str(json.loads((path / "index.json").read_text(encoding="utf-8"))["what"])
    return path.name
