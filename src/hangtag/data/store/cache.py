"""The cache on disk: decoded pictures, and public data sets that were fetched.

Everything in it can be deleted at any time. The name of an entry is a hash of its source, so a changed source finds
no entry. An entry gets its name only when it is complete. When the cache is too large, the least recently used entries
are deleted.
"""

import contextlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.picture_facts import FACTS, Skipped
from hangtag.errors import SaveError, UsageError
from hangtag.files import cache_home, make_folder, write_bytes, write_json
from hangtag.pictures import Images, ImageSpec

__all__ = [
    "VERSION",
    "CacheEntry",
    "LazyNames",
    "Pictures",
    "building",
    "clear",
    "decoded_as",
    "drop",
    "entries",
    "limit_bytes",
    "load_groups",
    "make_room",
    "open_pictures",
    "save",
    "save_groups",
]

VERSION = 4
"""Of the entries' layout; entries of other versions are ignored. Since 4, facts hold the range of deep pixels."""

_LIMIT_GIGABYTES = 20.0
_PICTURES, _SETS, _GROUPS = "pictures", "datasets", "groups"
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
    """Names in a JSON file, loaded on first access."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self._count = path, count

    @cached_property
    def names(self) -> list[str]:
        names: list[str] = json.loads(self.path.read_text(encoding="ascii"))
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
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        images, facts, labels, parts = (
            np.load(folder / f"{name}.npy", mmap_mode="r" if name == "images" else None, allow_pickle=False)
            for name in ("images", "facts", "labels", "parts")
        )
        groups = np.load(folder / "groups.npy", allow_pickle=False) if (folder / "groups.npy").is_file() else None
        shape = (len(labels), *ImageSpec(**index["spec"]).shape)
        whole = images.shape == shape and images.dtype == np.uint8 and facts.dtype == FACTS
        whole = whole and len(facts) == len(labels) == len(parts) and index["version"] == VERSION
        skipped = tuple(Skipped(**each) for each in index["skipped"])
    except Exception:  # truncated, of another version or not ours: NumPy and JSON raise many types
        whole = False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)
    names = LazyNames(folder / "names.json", len(labels))
    return Pictures(images, facts, labels, parts, groups, names, index, skipped)


def drop(key: str) -> None:
    """Delete an outdated entry."""
    shutil.rmtree(cache_home(_PICTURES) / key, ignore_errors=True)


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
    lock = FileLock(folder / "lock")  # released by the system when a process is killed
    try:
        lock.acquire(blocking=False)
    except (Timeout, OSError, NotImplementedError):  # in use, or a file system without locks
        folder = home / f".{key}.{os.getpid()}.partial"
        make_folder(folder)
    try:
        (folder / "source").write_text(source, encoding="utf-8")
        yield folder
    finally:
        lock.release()


def save(
    folder: Path, key: str, index: dict[str, Any], arrays: Mapping[str, NDArray[Any] | None], names: Sequence[str]
) -> None:
    """Complete a folder with images.npy and facts.npy as the entry `key`. The first process to finish wins."""
    try:
        for name, array in arrays.items():
            if array is not None:
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written: {error.strerror}", "free some space") from error
    write_bytes(folder / "names.json", json.dumps(list(names)).encode("ascii"), sync=False)
    write_json(folder / "index.json", {"version": VERSION, **index})
    for name in ("lock", "source", "guess.json"):
        (folder / name).unlink(missing_ok=True)
    target = cache_home(_PICTURES) / key
    try:
        folder.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise SaveError(f"{target}: cannot be written: {error.strerror}", "free some space") from error
        shutil.rmtree(folder, ignore_errors=True)


def load_groups(fingerprint: str) -> NDArray[np.int64] | None:
    """(N,) groups of near duplicates that were found earlier in this data set, in the order of its content."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        groups: NDArray[np.int64] = np.load(cache_home(_GROUPS) / f"{fingerprint}.npy", allow_pickle=False)
        return groups
    return None


def save_groups(fingerprint: str, groups: NDArray[np.int64]) -> None:
    """Store groups for `load_groups`; if they cannot be written, the next command searches again."""
    with contextlib.suppress(SaveError):
        make_folder(cache_home(_GROUPS))
        buffer = io.BytesIO()
        np.save(buffer, groups, allow_pickle=False)
        write_bytes(cache_home(_GROUPS) / f"{fingerprint}.npy", buffer.getvalue(), sync=False)


def decoded_as(spec: ImageSpec) -> list[Path]:
    """The newest entries that were decoded for this spec; their pictures need not be decoded again."""
    folders: list[Path] = []
    for entry in sorted(entries(), key=lambda each: -each.used):
        if entry.kind == _PICTURES and len(folders) < _MOST_SEARCHED:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                index = json.loads((entry.path / "index.json").read_text(encoding="utf-8"))
                if ImageSpec(**index["decoded_as"]) == spec and index["version"] == VERSION:
                    folders.append(entry.path)
    return folders


def entries() -> list[CacheEntry]:
    """All entries, the largest first, including interrupted decodings."""
    found = []
    for kind in (_PICTURES, _SETS):
        home = cache_home(kind)
        for path in home.iterdir() if home.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.is_dir():
                    size = sum(file.stat().st_blocks * 512 for file in path.iterdir() if file.is_file())
                    found.append(CacheEntry(path, kind, _source(path), size, path.stat().st_mtime))
    return sorted(found, key=lambda entry: -entry.bytes)


def clear() -> int:
    """Delete all entries; returns their size in bytes."""
    found = entries()
    for entry in found:
        shutil.rmtree(entry.path, ignore_errors=True)
    shutil.rmtree(cache_home(_GROUPS), ignore_errors=True)
    return sum(entry.bytes for entry in found)


def limit_bytes() -> int:
    """The largest allowed size of the cache: `HANGTAG_CACHE_GB` gigabytes, or 20.

    Raises:
        UsageError: the variable is not a number.
    """
    value = os.environ.get("HANGTAG_CACHE_GB", str(_LIMIT_GIGABYTES))
    try:
        return int(float(value) * 1e9)
    except (ValueError, OverflowError):
        message = f"HANGTAG_CACHE_GB must be a number of gigabytes, got {value!r}"
        raise UsageError(message, "for example HANGTAG_CACHE_GB=20") from None


def make_room(key: str) -> None:
    """Delete the least recently used pictures until the cache is within its limit, but never the entry `key`."""
    found = [entry for entry in entries() if entry.kind == _PICTURES and entry.path.name != key]
    total = sum(entry.bytes for entry in entries())
    for entry in sorted(found, key=lambda each: each.used):
        partial = entry.path.name.endswith(".partial")
        if partial and time.time() - entry.used < _ABANDONED:
            continue  # another process may be filling it
        if total > limit_bytes() or partial:
            shutil.rmtree(entry.path, ignore_errors=True)
            total -= entry.bytes


def _source(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError):
        if path.name.endswith(".partial"):
            return f"{(path / 'source').read_text(encoding='utf-8')} (interrupted)"
        if (path / "index.json").is_file():
            return str(json.loads((path / "index.json").read_text(encoding="utf-8"))["what"])
    return path.name
