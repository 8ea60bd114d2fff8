"""Where the bytes of pictures are: files in a folder, members of a zip or tar file, values of a Parquet column.

A container lists its files and reads one at a time, in place; only a compressed tar file is unpacked first. Members
that an archive from a stranger should not contain are refused. Containers decode nothing and know no labels.
"""

import bz2
import errno
import gzip
import hashlib
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from hangtag.data.folder_layout import PICTURE_ENDINGS
from hangtag.data.picture_facts import Skipped
from hangtag.errors import DataError, MissingExtra, PictureError
from hangtag.files import LOOSE, MARKER
from hangtag.words import first_few

__all__ = [
    "FAILING",
    "LARGEST_FILE",
    "Container",
    "Folder",
    "ListedFile",
    "Listing",
    "ParquetColumn",
    "Spans",
    "Zip",
    "archive_listing",
    "common_place",
    "container_of",
    "is_junk",
    "need_pyarrow",
    "why_unreadable",
]

LARGEST_FILE = 512_000_000
"""Bytes; a picture file that claims to be larger is refused before it is read."""

FAILING = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN}
"""Error numbers of a failing disk or network, not of a single file."""

_JUNK = {
    "__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information", "ehthumbs.db",
    "#recycle", "lost+found", "__pycache__", "mlruns", ".git", ".svn", ".hg", ".ipynb_checkpoints",
    ".trash", ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".documentrevisions-v100",
    ".appledouble", ".thumbnails",
    ".thumbs", ".picasaoriginals", ".xvpics", ".cache", ".venv", ".tox", ".dvc", ".idea", ".vscode", ".snapshot",
    ".stversions", ".recycle", ".dropbox.cache",
}  # fmt: skip
"""Files and folders of operating systems and tools, in lower case."""

_LARGEST_RATIO = 200  # content to packed bytes; PNG and JPEG members come to about 1, uncompressed BMP to 50
_SMALL = 4_000_000  # bytes; smaller content may be packed at any ratio
_MODEL, _MARKED = "/model.onnx", f"/{MARKER}"
_PIECE = 1 << 16
_COMPRESSION: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError)
# zipfile raises RuntimeError for a password and its child NotImplementedError for an unknown compression.
_NEW_ARCHIVE = "download or create it again"


class ListedFile(NamedTuple):
    """A file or member: its name with /, its size in bytes, a stamp that changes when it is edited, its key."""

    name: str
    size: int
    stamp: int
    key: Any


@dataclass
class Listing:
    """The files of a container in the order of their names, and those that were refused.

    Attributes:
        own: folders and pictures that hangtag wrote, which are left out.
        empty: folders without any file.
    """

    entries: list[ListedFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def refuse(self, name: str, kind: str, reason: str) -> None:
        self.skipped.append(Skipped(name, kind, reason))

    def digest(self) -> str:
        """SHA-256 that changes when a file is added, removed, renamed or edited."""
        text = "\n".join([f"{name}\0{size}\0{stamp}" for name, size, stamp, _ in self.entries])
        text += repr((self.skipped, self.empty))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def leave_out_own(self) -> None:
        """Leave out the folders that hangtag wrote (marked folders and runs), unless they are all there is."""
        models = [entry.name[: -len(_MODEL)] for entry in self.entries if entry.name.endswith(_MODEL)]
        if models:
            names = {entry.name for entry in self.entries}
            self.own += [folder for folder in models if f"{folder}/config.json" in names]
        inside = tuple(f"{folder}/" for folder in self.own)
        kept = [entry for entry in self.entries if not entry.name.startswith(inside)] if inside else []
        if kept:
            self.entries = kept
        elif self.entries:
            self.own = []

    @property
    def notes(self) -> list[str]:
        """What was left out, as sentences; for a folder this may change while its digest stays the same."""
        return [f"not read, because hangtag wrote it: {first_few(sorted(set(self.own)))}"] if self.own else []

    def leave_out_hidden(self) -> None:
        """Leave out folders whose names begin with a dot, unless they are class folders beside others, such as .net."""
        if not any("/." in entry.name or entry.name[0] == "." for entry in self.entries):
            return
        with_pictures = {
            entry.name.rpartition("/")[0] for entry in self.entries if entry.name.lower().endswith(PICTURE_ENDINGS)
        }
        beside = {folder.rpartition("/")[0] for folder in with_pictures if not _has_dot(folder)}

        def is_class(folder: str) -> bool:
            above, _, own = folder.rpartition("/")
            whole = folder in with_pictures and above in beside and above not in with_pictures
            return not folder or ((not own.startswith(".") or whole) and is_class(above))

        read = {folder: is_class(folder) for folder in {entry.name.rpartition("/")[0] for entry in self.entries}}
        self.entries = [entry for entry in self.entries if read[entry.name.rpartition("/")[0]]]

    def sorted(self) -> "Listing":
        self.leave_out_own()
        self.leave_out_hidden()
        self.entries.sort(key=itemgetter(0))
        self.skipped.sort(key=lambda skipped: skipped.name)
        return self


@dataclass(frozen=True)
class Folder:
    """Files under a folder; links that stay inside it are followed. Keys are relative names."""

    root: str

    def listing(self) -> Listing:
        listing = Listing()
        self._walk(self.root, "", listing, os.path.realpath(self.root), frozenset())
        return listing.sorted()

    def content(self, key: str) -> bytes:
        path = f"{self.root}/{key}" if key[:1] != "/" else key  # tables may contain absolute paths
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
                        raise _too_large(key)
                return b"".join(pieces)
            finally:
                os.close(handle)
        except OSError as error:
            raise _unreadable(key, error) from error

    def is_readable(self, key: str) -> bool:
        try:
            os.close(os.open(os.path.join(self.root, key), os.O_RDONLY))  # noqa: PTH118
        except OSError:
            return False
        return True

    def to_json(self) -> list[str]:
        return ["folder", self.root]

    def _walk(self, folder: str, prefix: str, listing: Listing, real_root: str, above: frozenset[str]) -> None:
        """List a folder and those in it; `above` holds the real paths of the links that lead to it."""
        try:
            with os.scandir(folder) as children:
                found = list(children)
        except OSError as error:
            kind = "permission denied" if isinstance(error, PermissionError) else "cannot be read"
            listing.refuse(prefix.rstrip("/") or ".", kind, f"the folder cannot be listed: {error.strerror}")
            return
        hidden = {child.name: child for child in found if child.name[0] == "."}
        if MARKER in hidden and prefix:
            listing.own.append(prefix.rstrip("/"))
            return
        before = len(listing.entries)
        loose = _names_in(hidden[LOOSE]) if LOOSE in hidden else frozenset[str]()
        listing.own += [prefix + child.name for child in found if child.name in loose] if loose else []
        entries = listing.entries
        for child in found:
            own = child.name
            if own in loose or own in _JUNK or own.lower() in _JUNK:
                continue
            if own[0] == "." and not child.is_dir(follow_symlinks=False):
                continue
            name = prefix + own
            try:
                if child.is_file(follow_symlinks=False):
                    status = child.stat(follow_symlinks=False)
                    entries.append(ListedFile(name, status.st_size, status.st_mtime_ns, name))
                elif child.is_symlink() and not self._may_follow(child, folder, name, listing, real_root, above):
                    continue
                elif child.is_dir():
                    real = above | {os.path.realpath(child.path)} if child.is_symlink() else above
                    self._walk(child.path, f"{name}/", listing, real_root, real)
                elif child.is_file():
                    status = child.stat()
                    entries.append(ListedFile(name, status.st_size, status.st_mtime_ns, name))
                else:
                    listing.refuse(name, "not a file", "a device, pipe, socket or broken link")
            except OSError as error:
                listing.refuse(name, "cannot be read", error.strerror or str(error))

        if prefix and len(entries) == before and not any(own.startswith(prefix) for own in listing.own):
            listing.empty.append(prefix.rstrip("/"))

    @staticmethod
    def _may_follow(
        child: "os.DirEntry[str]", folder: str, name: str, listing: Listing, real_root: str, above: frozenset[str]
    ) -> bool:
        real = os.path.realpath(child.path)
        if real != real_root and not real.startswith(real_root + os.sep):
            listing.refuse(name, "link outside", "the link leads outside the folder")
        elif real in above or f"{os.path.realpath(folder)}{os.sep}".startswith(real + os.sep):
            listing.refuse(name, "circular link", "the link leads to a folder that contains it")
        else:
            return True
        return False


class Zip:
    """Members of a zip file, read in place. Keys are member names."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: zipfile.ZipFile | None = None

    def listing(self) -> Listing:
        listing = Listing()
        for member in self._open().infolist():
            name, size, packed = member.filename, member.file_size, member.compress_size
            if name.endswith(_MARKED):
                listing.own.append(name[: -len(_MARKED)])
            if member.is_dir() or _is_ignored(name):
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                listing.refuse(name, "link", "links in archives are not followed")
            elif member.flag_bits & 1:
                listing.refuse(name, "encrypted", "the file is encrypted; extract it yourself")
            elif size > LARGEST_FILE or size > max(_SMALL, _LARGEST_RATIO * packed):
                listing.refuse(name, "suspicious compression", f"{size:,} bytes packed into {packed:,}")
            elif _stays_inside(name, listing):
                listing.entries.append(ListedFile(name, size, member.CRC, name))
        return listing.sorted()

    def content(self, key: str) -> bytes:
        try:
            with self._open().open(key) as file:
                content = file.read(LARGEST_FILE + 1)
        except _DAMAGED_ZIP as error:
            raise PictureError(f"damaged in the zip file: {error}", _NEW_ARCHIVE, name=f"{self.path}: {key}") from error
        except OSError as error:
            raise _unreadable(key, error) from error
        if len(content) > LARGEST_FILE:
            raise _too_large(key)
        return content

    def to_json(self) -> list[str]:
        return ["zip", self.path]

    def _open(self) -> zipfile.ZipFile:
        if self._file is None:
            try:
                self._file = zipfile.ZipFile(self.path)
            except OSError as error:
                raise _unreadable(self.path, error) from error
            except _DAMAGED_ZIP as error:
                raise DataError(f"{self.path}: damaged or incomplete zip file: {error}", _NEW_ARCHIVE) from error
        return self._file


@dataclass(frozen=True)
class Spans:
    """Parts of one file: members of an uncompressed tar, or pictures from memory. Keys: [offset, size]."""

    path: str

    def content(self, key: tuple[int, int]) -> bytes:
        offset, size = key
        try:
            with open(self.path, "rb", buffering=0) as file:  # noqa: PTH123
                file.seek(offset)
                content = file.read(size)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if len(content) < size:
            raise PictureError("truncated", _NEW_ARCHIVE, "truncated", self.path)
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
        path = self.paths[file]
        if self._group[0] != (file, group):
            import pyarrow
            import pyarrow.parquet

            try:
                table = pyarrow.parquet.ParquetFile(path).read_row_group(group, columns=[self.column])
            except (OSError, pyarrow.ArrowException) as error:
                if isinstance(error, OSError) and error.errno:
                    raise _unreadable(path, error) from error
                raise PictureError(f"row group {group} is damaged", _NEW_ARCHIVE, name=path) from error
            self._group = ((file, group), table.column(self.column))
        value = self._group[1][row].as_py()
        content = value[self.inner] if self.inner is not None and value is not None else value
        if not isinstance(content, bytes):
            raise PictureError("this row has no image", "add it, or remove the row", "no image", path)
        return content

    def to_json(self) -> list[Any]:
        return ["parquet", self.paths, self.column, self.inner]


Container: TypeAlias = Folder | Zip | Spans | ParquetColumn


def container_of(value: list[Any]) -> Container:
    """The container from its `to_json`, for another process."""
    kinds: dict[str, Any] = {"folder": Folder, "zip": Zip, "spans": Spans, "parquet": ParquetColumn}
    container: Container = kinds[value[0]](*value[1:])
    return container


def common_place(container: Container, keys: Iterable[Any]) -> str:
    """The folder or file without which none of these pictures can be read; of several Parquet files, the first."""
    if isinstance(container, Folder):
        paths = [os.path.abspath(os.path.join(container.root, key)) for key in keys]  # noqa: PTH100, PTH118
        return os.path.commonpath([os.path.dirname(min(paths)), os.path.dirname(max(paths))])  # noqa: PTH120
    return container.paths[0] if isinstance(container, ParquetColumn) else container.path


def why_unreadable(container: Container, place: str) -> str | None:
    """Why no picture can be read any more, in a few words; None if some can. `place` is that of `common_place`."""
    if isinstance(container, Folder):
        try:
            with os.scandir(place) as children:  # unmounting a file system leaves an empty folder
                return None if next(children, None) is not None else "it is empty now"
        except PermissionError:  # the folder exists, and pictures in it may still be readable
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


def archive_listing(path: Path, unpacked: Path) -> tuple[Zip | Spans, Listing]:
    """The members of a zip or tar file. A compressed tar file is first decompressed into the file `unpacked`.

    Raises:
        DataError: the file is neither, is damaged or incomplete, or would unpack to far more than its size.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
        if path.suffix.lower() == ".zip" or start[:2] == b"PK":
            archive = Zip(str(path))
            return archive, archive.listing()
        plain = path
        if start[257:262] != b"ustar":
            plain = unpacked
            _decompress(path, start, unpacked)
        return Spans(str(plain)), _tar_listing(plain)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise _unreadable(str(path), error) from error
        raise DataError(f"{path}: damaged or incomplete tar file: {error}", _NEW_ARCHIVE) from error


def _tar_listing(path: Path) -> Listing:
    listing = Listing()
    with tarfile.open(path, "r:") as opened:
        for member in opened:
            name = member.name.removeprefix("./")
            if name.endswith(_MARKED):
                listing.own.append(name[: -len(_MARKED)])
            if _is_ignored(name) or member.isdir():
                continue
            if member.issym() or member.islnk():
                listing.refuse(name, "link", "links in archives are not followed")
            elif not member.isreg() or member.sparse is not None:
                listing.refuse(name, "not a file", "a device, pipe or sparse file")
            elif _stays_inside(name, listing):
                key = [member.offset_data, member.size]
                listing.entries.append(ListedFile(name, member.size, int(member.mtime), key))
    return listing.sorted()


def _is_ignored(name: str) -> bool:
    """Whether a member is hidden, or belongs to the operating system."""
    folders = name.split("/")
    return is_junk(folders[-1]) or any(folder.lower() in _JUNK for folder in folders)


def _has_dot(folder: str) -> bool:
    return folder.startswith(".") or "/." in folder


def is_junk(name: str) -> bool:
    """Whether files of this name are hidden or belong to the operating system, such as Thumbs.db."""
    return (name.startswith(".") and name != "..") or name.lower() in _JUNK


def _names_in(file: "os.DirEntry[str]") -> frozenset[str]:
    """The lines of a small file; none of a link, pipe or larger file."""
    try:
        if file.is_file(follow_symlinks=False) and file.stat(follow_symlinks=False).st_size <= _SMALL:
            return frozenset(map(os.fsdecode, Path(file.path).read_bytes().splitlines()))
    except OSError:
        pass
    return frozenset()


def _stays_inside(name: str, listing: Listing) -> bool:
    """Whether a member's name stays inside the archive; otherwise it is refused."""
    parts = name.replace("\\", "/").split("/")
    outside = ".." in parts or parts[0] == "" or (len(parts[0]) == 2 and parts[0][1] == ":")
    if outside:
        listing.refuse(name, "name outside", "the name leads outside the archive")
    return not outside


def _unreadable(name: str, error: OSError) -> PictureError:
    """The error for a picture that the system cannot read; the picture itself may be whole."""
    failing = error.errno in FAILING
    reason = f"{'disk or network error' if failing else 'cannot be read'}: {error.strerror or error}"
    return PictureError(reason, "check the file", "disk or network error" if failing else "cannot be read", name)


def _too_large(name: str) -> PictureError:
    return PictureError(f"larger than {LARGEST_FILE:,} bytes", "use a smaller image", "too large", name)


def _decompress(path: Path, start: bytes, unpacked: Path) -> None:
    opener = next((opener for magic, opener in _COMPRESSION.items() if start.startswith(magic)), None)
    if opener is None:
        raise DataError(
            f"{path}: not an archive that hangtag can read", "it reads zip and tar (plain, gzip, bzip2, xz)"
        )
    most = max(_SMALL, _LARGEST_RATIO * path.stat().st_size)
    with opener(path, "rb") as packed, unpacked.open("wb") as out:
        while piece := packed.read(_PIECE):
            if out.tell() + len(piece) > most:
                raise DataError(
                    f"{path}: unpacks to over {_LARGEST_RATIO} times its size",
                    "it may be a decompression bomb; do not use it",
                )
            out.write(piece)


def need_pyarrow() -> None:
    """Raises `MissingExtra` if pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtra.named("parquet", "pyarrow") from None
