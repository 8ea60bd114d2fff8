"""What hangtag keeps on disk because making it again takes time: decoded pictures, and public sets once fetched.

Everything here can be deleted at any time. An entry has its name from what it was made of, so that a changed source
finds no entry; it appears under its name only when it is whole. The oldest make room when there are too many bytes.
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
    "KeptNames",
    "Pictures",
    "building",
    "clear",
    "drop",
    "entries",
    "groups_kept",
    "keep",
    "keep_groups",
    "known_like",
    "make_room",
    "most_bytes",
    "open_pictures",
    "remember",
    "remembered",
]

VERSION = 2
"""Of the entries' layout; entries of another are not looked at. Since 2 the pictures of a part lie side by side."""

_MOST_GIGABYTES = 20.0
_PICTURES, _SETS, _ALIASES = "pictures", "datasets", "names"
_MOST_KNOWN = 16  # earlier entries searched for content that was decoded before
_ABANDONED = 7 * 86_400  # seconds after which an interrupted decoding is given up


@dataclass(frozen=True)
class CacheEntry:
    """One thing that is kept: what it was made from, its size in bytes, when it was last used (POSIX seconds)."""

    path: Path
    kind: str
    what: str
    bytes: int
    used: float

    def to_json(self) -> dict[str, Any]:
        return {"path": str(self.path), "kind": self.kind, "what": self.what, "bytes": self.bytes, "used": self.used}


@dataclass(frozen=True, eq=False)
class Pictures:
    """Decoded pictures and what was understood of them, mapped from the cache.

    Attributes:
        images: (M, H, W) or (M, H, W, 3) uint8.
        facts: (M,) of `decoder.FACTS`.
        labels: (M,) int64.
        parts: (M,) int8, an index into `PARTS`; -1 where there are no parts.
        groups: (M,) int64, or None.
        names: (M,) of the pictures; read when first looked at.
        said: what else was kept, as JSON: class names, spec, notes, ...
        skipped: what was set aside.
    """

    images: Images
    facts: NDArray[Any]
    labels: NDArray[np.int64]
    parts: NDArray[np.int8]
    groups: NDArray[np.int64] | None
    names: Sequence[str]
    said: dict[str, Any]
    skipped: tuple[Skipped, ...]


class KeptNames(Sequence[str]):
    """Names in a file, read when first looked at."""

    def __init__(self, path: Path, count: int) -> None:
        self.path, self._count = path, count

    @cached_property
    def names(self) -> list[str]:
        found: list[str] = json.loads(self.path.read_text(encoding="ascii"))
        return found

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, which: Any) -> Any:
        return self.names[which]


def open_pictures(key: str) -> Pictures | None:
    """The entry of this name; None where there is none, or it is damaged, which removes it."""
    folder = cache_home(_PICTURES) / key
    if not folder.is_dir():
        return None
    try:
        said = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        images, facts, labels, parts = (
            np.load(folder / f"{name}.npy", mmap_mode="r" if name == "images" else None, allow_pickle=False)
            for name in ("images", "facts", "labels", "parts")
        )
        groups = np.load(folder / "groups.npy", allow_pickle=False) if (folder / "groups.npy").is_file() else None
        shape = (len(labels), *ImageSpec(**said["spec"]).shape)
        whole = images.shape == shape and images.dtype == np.uint8 and facts.dtype == FACTS
        whole = whole and len(facts) == len(labels) == len(parts) and said["version"] == VERSION
        skipped = tuple(Skipped(**each) for each in said["skipped"])
    except Exception:  # cut short, of another version, or not ours: NumPy and JSON raise many types
        whole = False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with contextlib.suppress(OSError):
        os.utime(folder)
    names = KeptNames(folder / "names.json", len(labels))
    return Pictures(images, facts, labels, parts, groups, names, said, skipped)


def drop(key: str) -> None:
    """Delete an entry that is no longer true."""
    shutil.rmtree(cache_home(_PICTURES) / key, ignore_errors=True)


@contextmanager
def building(key: str, what: str) -> Iterator[Path]:
    """A folder to fill for the entry `key`; call `keep` on it when it is whole.

    An interrupted earlier try is found there again. While another process fills it, this one fills a folder of its own.

    Raises:
        SaveError: nothing can be written.
    """
    home = cache_home(_PICTURES)
    folder = home / f".{key}.partial"
    try:
        make_folder(folder)
    except SaveError as error:
        raise SaveError(error.message, f"{error.hint}; XDG_CACHE_HOME moves the cache") from error
    lock = _lock(folder / "lock")
    if lock is None:
        folder = home / f".{key}.{os.getpid()}.partial"
        make_folder(folder)
        lock = _lock(folder / "lock")
    try:
        (folder / "what").write_text(what, encoding="utf-8")
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


def keep(
    folder: Path, key: str, said: dict[str, Any], arrays: Mapping[str, NDArray[Any] | None], names: Sequence[str]
) -> None:
    """Give a folder that holds images.npy and facts.npy the entry's name. If another process was first, its stays."""
    try:
        for name, array in arrays.items():
            if array is not None:
                np.save(folder / f"{name}.npy", array, allow_pickle=False)
    except OSError as error:
        raise SaveError(f"{folder}: cannot be written: {error.strerror}", "free some space") from error
    write_bytes(folder / "names.json", json.dumps(list(names)).encode("ascii"), sync=False)
    write_json(folder / "index.json", {"version": VERSION, **said})
    for name in ("lock", "what", "guess.json"):
        (folder / name).unlink(missing_ok=True)
    target = cache_home(_PICTURES) / key
    try:
        folder.rename(target)
    except OSError as error:
        if not target.is_dir():
            raise SaveError(f"{target}: cannot be written: {error.strerror}", "free some space") from error
        shutil.rmtree(folder, ignore_errors=True)


def remember(alias: str, key: str) -> None:
    """That what has this quickly made name is the entry `key`."""
    home = cache_home(_ALIASES)
    with contextlib.suppress(SaveError):  # it only costs time
        make_folder(home)
        write_bytes(home / alias, key.encode(), sync=False)


def remembered(alias: str) -> str | None:
    """The entry that was remembered under a quickly made name."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        key = (cache_home(_ALIASES) / alias).read_text(encoding="ascii")
        return key if key.isalnum() else None
    return None


def groups_kept(fingerprint: str) -> NDArray[np.int64] | None:
    """(N,) groups of nearly equal pictures that were found before in this set, in the order of its content."""
    with contextlib.suppress(OSError, ValueError, EOFError):
        found: NDArray[np.int64] = np.load(cache_home(_ALIASES) / f"{fingerprint}.npy", allow_pickle=False)
        return found
    return None


def keep_groups(fingerprint: str, groups: NDArray[np.int64]) -> None:
    with contextlib.suppress(SaveError):  # it only costs time
        make_folder(cache_home(_ALIASES))
        buffer = io.BytesIO()
        np.save(buffer, groups, allow_pickle=False)
        write_bytes(cache_home(_ALIASES) / f"{fingerprint}.npy", buffer.getvalue(), sync=False)


def known_like(spec: ImageSpec) -> list[Path]:
    """Entries made for the same spec, newest first, whose pictures need not be decoded again."""
    found: list[Path] = []
    for entry in sorted(entries(), key=lambda each: -each.used):
        if entry.kind == _PICTURES and len(found) < _MOST_KNOWN:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                index = json.loads((entry.path / "index.json").read_text(encoding="utf-8"))
                if ImageSpec(**index["decoded_as"]) == spec and index["version"] == VERSION:
                    found.append(entry.path)
    return found


def entries() -> list[CacheEntry]:
    """Everything that is kept, largest first; interrupted decodings among them."""
    found = []
    for kind in (_PICTURES, _SETS):
        home = cache_home(kind)
        for path in home.iterdir() if home.is_dir() else ():
            with contextlib.suppress(OSError):
                if path.is_dir():
                    size = sum(file.stat().st_blocks * 512 for file in path.iterdir() if file.is_file())
                    found.append(CacheEntry(path, kind, _what(path), size, path.stat().st_mtime))
    return sorted(found, key=lambda entry: -entry.bytes)


def clear() -> int:
    """Delete everything that is kept; returns its bytes."""
    found = entries()
    for entry in found:
        shutil.rmtree(entry.path, ignore_errors=True)
    shutil.rmtree(cache_home(_ALIASES), ignore_errors=True)
    return sum(entry.bytes for entry in found)


def most_bytes() -> int:
    """How much may be kept: `HANGTAG_CACHE_GB` gigabytes, else 20.

    Raises:
        UsageError: the variable is no number.
    """
    said = os.environ.get("HANGTAG_CACHE_GB", str(_MOST_GIGABYTES))
    try:
        gigabytes = float(said)
    except ValueError:
        raise UsageError(f"HANGTAG_CACHE_GB: {said!r} is no number", "give gigabytes: HANGTAG_CACHE_GB=20") from None
    return int(gigabytes * 1e9)


def make_room(keep_entry: str) -> None:
    """Delete decoded pictures that were not used for longest, until what is kept fits; never this entry."""
    found = [entry for entry in entries() if entry.kind == _PICTURES and entry.path.name != keep_entry]
    left = sum(entry.bytes for entry in entries())
    for entry in sorted(found, key=lambda each: each.used):
        partial = entry.path.name.endswith(".partial")
        if partial and time.time() - entry.used < _ABANDONED:
            continue  # somebody may be at it
        if left > most_bytes() or partial:
            shutil.rmtree(entry.path, ignore_errors=True)
            left -= entry.bytes


def _what(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError):
        if path.name.endswith(".partial"):
            return f"{(path / 'what').read_text(encoding='utf-8')} (interrupted)"
        if (path / "index.json").is_file():
            return str(json.loads((path / "index.json").read_text(encoding="utf-8"))["what"])
    return path.name


def _lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return handle
    except OSError:
        os.close(handle)
        return None
    return handle
