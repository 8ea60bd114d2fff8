"""Where the bytes of pictures are: files in a folder, members of a zip or tar file, values of a Parquet column.

A container lists what it holds and gives the bytes of one thing at a time, in place, without unpacking anything
beside itself. It refuses what a stranger's archive should not hold. It decodes no pictures and knows no labels.
"""

import errno
import hashlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

from hangtag.data.picture_facts import Skipped
from hangtag.errors import DataError, MissingExtra, PictureError

__all__ = [
    "FAILING",
    "LARGEST_FILE",
    "Container",
    "Folder",
    "ListedFile",
    "Listing",
    "ParquetColumn",
    "Scan",
    "Spans",
    "Zip",
    "container_of",
    "is_junk",
    "need_pyarrow",
    "place_of",
    "scan",
    "tar_listing",
    "why_gone",
]

LARGEST_FILE = 512_000_000
"""Bytes of one picture file; whatever claims to be larger is refused before it is read."""

_JUNK = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "ehthumbs.db"}
_MOST_PACKED = 200  # times smaller than its content; PNG and JPEG members come to about 1, uncompressed BMP to 50
_SMALL = 4_000_000  # bytes; whatever is smaller may be packed as well as it likes
_PIECE = 1 << 16
FAILING = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN}
"""What the system says when not a file but the disk or network it is on has a problem."""


class ListedFile(NamedTuple):
    """One file-like thing: its name with /, its size in bytes, a stamp that changes when it is edited, its key."""

    name: str
    size: int
    stamp: int
    key: Any


@dataclass
class Listing:
    """What a container holds, in the order of names, and what was refused."""

    entries: list[ListedFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def refuse(self, name: str, kind: str, reason: str) -> None:
        self.skipped.append(Skipped(name, kind, reason))

    def digest(self) -> str:
        """SHA-256 that changes when anything is added, removed, renamed or edited."""
        said = "\n".join([f"{name}\0{size}\0{stamp}" for name, size, stamp, _ in self.entries])
        said += repr(self.skipped)
        return hashlib.sha256(said.encode("utf-8", "surrogateescape")).hexdigest()

    def sorted(self) -> "Listing":
        self.entries.sort(key=itemgetter(0))
        self.skipped.sort(key=lambda skipped: skipped.name)
        return self


class Scan(NamedTuple):
    """Every file under a folder that holds no links: digest of names, sizes and times; the files by folder."""

    digest: str
    files: list[tuple[str, list[str]]]


def scan(root: str) -> Scan | None:
    """A quick look at a folder, to know again what was listed before; None where there are links or closed doors."""
    digest = hashlib.sha256()
    waiting, files = [root], []
    try:
        while waiting:
            folder = waiting.pop()
            found, folders = [], []
            with _opened_folder(folder) as place, os.scandir(place) as children:
                for child in children:
                    if child.is_file(follow_symlinks=False):
                        status = child.stat(follow_symlinks=False)
                        found.append(f"{child.name}\0{status.st_size}\0{status.st_mtime_ns}")
                    elif child.is_dir(follow_symlinks=False):
                        folders.append(os.path.join(folder, child.name))  # noqa: PTH118
                    else:
                        return None
            found.sort()
            waiting += sorted(folders)
            files.append((folder, found))
            digest.update("\n".join([folder, *found]).encode("utf-8", "surrogateescape"))
    except OSError:
        return None
    return Scan(digest.hexdigest(), files)


@contextmanager
def _opened_folder(folder: str) -> Iterator[int | str]:
    """The folder's handle, by which the system finds files in it without walking the whole path, where it can."""
    if os.scandir not in os.supports_fd:
        yield folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Folder:
    """Files under a folder; links are followed as long as they stay under it. Keys are relative names."""

    root: str

    def listing(self, scanned: Scan | None = None) -> Listing:
        found = Listing()
        if scanned is not None:
            self._take(scanned, found)
            return found.sorted()
        self._walk(self.root, "", found, os.path.realpath(self.root), frozenset())
        return found.sorted()

    def content(self, key: str) -> bytes:
        path = f"{self.root}/{key}" if key[:1] != "/" else key  # a table may name whole paths
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                content = os.read(handle, _PIECE)
                if len(content) < _PIECE:
                    return content
                pieces, size = [content], len(content)
                while content := os.read(handle, 16 * _PIECE):
                    pieces.append(content)
                    size += len(content)
                    if size > LARGEST_FILE:
                        raise PictureError(f"{key}: larger than {LARGEST_FILE:,} bytes", "that is no picture of yours")
                return b"".join(pieces)
            finally:
                os.close(handle)
        except OSError as error:
            raise _unread(key, error) from error

    def gives(self, key: str) -> bool:
        """Whether this file can be opened."""
        try:
            os.close(os.open(os.path.join(self.root, key), os.O_RDONLY))  # noqa: PTH118
        except OSError:
            return False
        return True

    def to_json(self) -> list[str]:
        return ["folder", self.root]

    def _take(self, scanned: Scan, found: Listing) -> None:
        for folder, files in scanned.files:
            prefix = folder[len(self.root) :].strip("/")
            if prefix and any(is_junk(part) for part in prefix.split("/")):
                continue
            prefix = f"{prefix}/" if prefix else ""
            for line in files:
                own, size, stamp = line.split("\0")
                if own[0] != "." and own not in _JUNK and own.lower() not in _JUNK:
                    found.entries.append(ListedFile(prefix + own, int(size), int(stamp), prefix + own))

    def _walk(self, folder: str, prefix: str, found: Listing, real_root: str, above: frozenset[str]) -> None:
        try:
            with os.scandir(folder) as found_here:
                children = list(found_here)
        except OSError as error:
            kind = "may not be read" if isinstance(error, PermissionError) else "cannot be read"
            found.refuse(prefix.rstrip("/") or ".", kind, f"the folder: {error.strerror}")
            return
        entries = found.entries
        for child in children:
            own = child.name
            if own[0] == "." or own in _JUNK or own.lower() in _JUNK:
                continue
            name = prefix + own
            try:
                if child.is_file(follow_symlinks=False):
                    status = child.stat(follow_symlinks=False)
                    entries.append(ListedFile(name, status.st_size, status.st_mtime_ns, name))
                elif child.is_symlink() and not self._may_follow(child, folder, name, found, real_root, above):
                    continue
                elif child.is_dir():
                    real = above | {os.path.realpath(child.path)} if child.is_symlink() else above
                    self._walk(child.path, f"{name}/", found, real_root, real)
                elif child.is_file():
                    status = child.stat()
                    entries.append(ListedFile(name, status.st_size, status.st_mtime_ns, name))
                else:
                    found.refuse(name, "not a file", "a device, pipe, socket or a link to nothing")
            except OSError as error:
                found.refuse(name, "cannot be read", error.strerror or "the system refuses")

    @staticmethod
    def _may_follow(
        child: "os.DirEntry[str]", folder: str, name: str, found: Listing, real_root: str, above: frozenset[str]
    ) -> bool:
        real = os.path.realpath(child.path)
        if real != real_root and not real.startswith(real_root + os.sep):
            found.refuse(name, "link outside", "a link that leads outside the folder is not followed")
        elif real in above or os.path.realpath(folder).startswith(real + os.sep) or real == os.path.realpath(folder):
            found.refuse(name, "link in a circle", "a link to a folder that it lies in")
        else:
            return True
        return False


class Zip:
    """Members of a zip file, read in place. Keys are member names."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._open: zipfile.ZipFile | None = None

    def listing(self) -> Listing:
        found = Listing()
        for member in self._opened().infolist():
            name = member.filename
            if member.is_dir() or any(is_junk(part) for part in name.split("/")):
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                found.refuse(name, "link", "links in archives are not followed")
            elif member.flag_bits & 1:
                found.refuse(name, "encrypted", "the member is encrypted: unpack it yourself")
            elif _packed_too_well(member.file_size, member.compress_size):
                found.refuse(name, "bomb", f"{member.file_size:,} bytes packed into {member.compress_size:,}")
            elif not _refused(name, found):
                found.entries.append(ListedFile(name, member.file_size, member.CRC, name))
        return found.sorted()

    def content(self, key: str) -> bytes:
        try:
            with self._opened().open(key) as file:
                return _whole(file, key)
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            KeyError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            raise PictureError(f"{key}: damaged in the zip file: {error}", "make the zip file again") from error
        except OSError as error:
            raise _unread(key, error) from error

    def to_json(self) -> list[str]:
        return ["zip", self.path]

    def _opened(self) -> zipfile.ZipFile:
        if self._open is None:
            try:
                self._open = zipfile.ZipFile(self.path)
            except OSError as error:
                raise _unread(self.path, error) from error
            except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
                raise DataError(f"{self.path}: not a whole zip file: {error}", "download or make it again") from error
        return self._open


@dataclass(frozen=True)
class Spans:
    """Stretches of one file: the members of an uncompressed tar, or pictures that were put there. Keys: [at, size]."""

    path: str

    def content(self, key: tuple[int, int]) -> bytes:
        at, size = key
        try:
            with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(at)
                content = file.read(size)
        except OSError as error:
            raise _unread(self.path, error) from error
        if len(content) < size:
            raise PictureError(f"{self.path}: cut short", "download or make it again")
        return content

    def to_json(self) -> list[str]:
        return ["spans", self.path]


class ParquetColumn:
    """Pictures as bytes in a column of Parquet files, plain or in a struct's field. Keys: [file, row group, row]."""

    def __init__(self, paths: list[str], column: str, inner: str | None) -> None:
        self.paths, self.column, self.inner = paths, column, inner
        self._group: tuple[tuple[int, int], Any] = ((-1, -1), None)

    def content(self, key: tuple[int, int, int]) -> bytes:
        file, group, row = key
        if self._group[0] != (file, group):
            import pyarrow
            import pyarrow.parquet

            try:
                read = pyarrow.parquet.ParquetFile(self.paths[file]).read_row_group(group, columns=[self.column])
            except (OSError, pyarrow.ArrowException) as error:
                if isinstance(error, OSError) and error.errno:
                    raise _unread(self.paths[file], error) from error
                raise PictureError(f"{self.paths[file]}: row group {group} is damaged", "get the file again") from error
            self._group = ((file, group), read.column(self.column))
        value = self._group[1][row].as_py()
        content = value[self.inner] if self.inner is not None and value is not None else value
        if not isinstance(content, bytes):
            raise PictureError(f"{self.paths[file]}: no picture in this row", "fill it, or leave the row out")
        return content

    def to_json(self) -> list[Any]:
        return ["parquet", self.paths, self.column, self.inner]


Container: TypeAlias = Folder | Zip | Spans | ParquetColumn


def container_of(value: list[Any]) -> Container:
    """The container that `to_json` described, for another process."""
    kinds: dict[str, Any] = {"folder": Folder, "zip": Zip, "spans": Spans, "parquet": ParquetColumn}
    made: Container = kinds[value[0]](*value[1:])
    return made


def place_of(container: Container, keys: Iterable[Any]) -> str:
    """The folder or file without which none of these pictures can be read; of many files the first."""
    if isinstance(container, Folder):
        paths = [os.path.abspath(os.path.join(container.root, key)) for key in keys]  # noqa: PTH100, PTH118
        return os.path.commonpath([os.path.dirname(min(paths)), os.path.dirname(max(paths))])  # noqa: PTH120
    return container.paths[0] if isinstance(container, ParquetColumn) else container.path


def why_gone(container: Container, place: str) -> str | None:
    """Why nothing can be read any more of what `place_of` named, in a few words; None where something still can."""
    if isinstance(container, Folder):
        try:
            with os.scandir(place) as children:  # where a file system was unmounted, an empty folder is left
                return None if next(children, None) is not None else "it is empty now"
        except PermissionError:  # it is there; that some pictures can be read all the same is known by their reading
            return None
        except OSError as error:
            return error.strerror or str(error)
    why = None
    for path in container.paths if isinstance(container, ParquetColumn) else [container.path]:
        try:
            with Path(path).open("rb") as file:
                file.read(1)
        except OSError as error:
            why = error.strerror or str(error)
        else:
            return None
    return why


def tar_listing(path: str, unpacked: Path) -> tuple[Spans, Listing]:
    """The members of a tar file. A compressed one is unpacked as a whole into the file `unpacked` first.

    Raises:
        DataError: not a tar file, cut short, or packed beyond all reason.
    """
    plain = path
    try:
        if not _is_plain_tar(path):
            plain = str(unpacked)
            _unpack(path, unpacked)
        found = Listing()
        with tarfile.open(plain, "r:") as opened:
            for member in opened:
                name = member.name.removeprefix("./")
                if any(is_junk(part) for part in name.split("/")) or member.isdir():
                    continue
                if member.issym() or member.islnk():
                    found.refuse(name, "link", "links in archives are not followed")
                elif not member.isreg() or member.sparse is not None:
                    found.refuse(name, "not a file", "a device, pipe or sparse file")
                elif not _refused(name, found):
                    found.entries.append(
                        ListedFile(name, member.size, int(member.mtime), [member.offset_data, member.size])
                    )
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DataError(f"{path}: not a whole tar file: {error}", "download or make it again") from error
    return Spans(plain), found.sorted()


def is_junk(name: str) -> bool:
    """Whether systems and programs leave files of this name behind, which are nobody's data."""
    return (name.startswith(".") and name != "..") or name.lower() in _JUNK


def _refused(name: str, found: Listing) -> bool:
    """Whether an archive's member has a name it should not have."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or (len(parts[0]) == 2 and parts[0][1] == ":"):
        found.refuse(name, "name outside", "a name that leads outside the archive")
    else:
        return False
    return True


def _unread(name: str, error: OSError) -> PictureError:
    """The error for a picture that may be whole, but that the system does not give."""
    said = "the disk or network fails" if error.errno in FAILING else "cannot be read"
    return PictureError(f"{name}: {said}: {error.strerror or error}", "check the file")


def _packed_too_well(size: int, packed: int) -> bool:
    return size > LARGEST_FILE or (size > _SMALL and size > _MOST_PACKED * max(1, packed))


def _whole(file: IO[bytes] | Any, name: str) -> bytes:
    content: bytes = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise PictureError(f"{name}: larger than {LARGEST_FILE:,} bytes", "a picture that large is refused")
    return content


def _is_plain_tar(path: str) -> bool:
    with Path(path).open("rb") as file:
        return file.read(512)[257:262] == b"ustar"


def _unpack(path: str, unpacked: Path) -> None:
    most = max(_SMALL, _MOST_PACKED * Path(path).stat().st_size)
    with unpacked.open("wb") as out:
        for piece in _decompressed(path):
            if out.tell() + len(piece) > most:
                raise DataError(f"{path}: unpacks to more than {_MOST_PACKED} times its size", "is it meant to harm?")
            out.write(piece)


def _decompressed(path: str) -> Iterator[bytes]:
    import bz2
    import gzip
    import lzma

    with Path(path).open("rb") as file:
        start = file.read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
    opener = next((each for magic, each in openers.items() if start.startswith(magic)), None)
    if opener is None:
        raise DataError(f"{path}: not a tar file hangtag can read", "plain, gzip, bzip2 and xz tar files are read")
    try:
        with opener(path, "rb") as file:
            while piece := file.read(_PIECE):
                yield piece
    except lzma.LZMAError as error:
        raise DataError(f"{path}: damaged: {error}", "download or make it again") from error


def need_pyarrow() -> None:
    """Raises `MissingExtra` where pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra.named("parquet", "pyarrow") from None
