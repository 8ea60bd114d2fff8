"""Where the bytes of pictures are: files in a folder, members of a zip or tar file, values of a Parquet column.

A file may also be at an address such as s3://bucket/photos.zip; parts of it are read as they are needed.

A container lists its files and reads one at a time, in place; only a compressed tar file is unpacked first. Members
that an archive from a stranger should not contain are refused. Containers decode nothing and know no labels.
"""

import bz2
import errno
import gzip
import hashlib
import io
import lzma
import os
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from hangtag.data.picture_facts import Skipped
from hangtag.data.store.remote import below, is_address, open_address, reading, size_at, without_query
from hangtag.data.store.zip_names import decode_names, unicode_path
from hangtag.errors import DataError, DataNotFound, PictureError, PictureNotFound
from hangtag.files import LOOSE, MARKER, saving, write_all
from hangtag.pictures import LARGEST_FILE, PICTURE_ENDINGS
from hangtag.words import amount, first_few, visible

__all__ = [
    "FAILING",
    "Bucket",
    "Container",
    "Folder",
    "ListedFile",
    "Listing",
    "ParquetColumn",
    "Sample",
    "Spans",
    "Zip",
    "ZipSpans",
    "archive_listing",
    "common_place",
    "container_of",
    "is_junk",
    "is_local",
    "settle",
    "stamp_of",
    "why_unreadable",
]

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
_LARGEST_HEADER = 1_000_000  # bytes of a tar member's long name or pax records
_DEEPEST_HEADER = 16  # such headers before one member; programs write up to four
_MOST_MEMBERS = 5_000_000  # of an archive
_BATCH_BYTES = 16_000_000  # pictures of a Parquet file that are in memory at a time
_MODEL, _MARKED = "/model.onnx", f"/{MARKER}"
_OF_RUN = {"model.onnx", "config.json"}
_PIECE = 1 << 16
_LARGEST_BLOCK = 64_000_000  # bytes read from an address at a time
_TAR_BUFFER = 1 << 19  # bytes read from a tar file at a time; members may be smaller
_COMPRESSION: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
# zipfile raises RuntimeError for a password and its child NotImplementedError for an unknown compression.
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError)
_DAMAGED_TAR = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    OSError,
    ValueError,
    ArithmeticError,
    MemoryError,
)
_EXTRA_HEADERS = (*tarfile.GNU_TYPES[:2], tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_END_OF_ZIP = 22  # bytes of the last record of a zip file without its comment
_UTF8 = 0x800  # flag of a zip member whose name is UTF-8
_NEW_ARCHIVE = "download or create it again"
_COARSE_NS, _FINE_NS = 2_000_000_000, 10_000_000  # FAT counts in 2 s; times of other file systems are finer than 10 ms


def stamp_of(path: str | Path, status: os.stat_result) -> str:
    """Changes when the file is edited or replaced: its inode and times, or its content if its times cannot be true.

    The time of the last status change is included, because programs may set the time of the last modification.
    """
    stamp = f"{status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"
    if status.st_ctime_ns > time.time_ns():
        with open(path, "rb") as file:  # noqa: PTH123
            stamp += hashlib.file_digest(file, "sha256").hexdigest()
    return stamp


def settle(newest_ns: int) -> None:
    """Wait until a later edit must change a file's times: some file systems only count in steps of two seconds."""
    age = time.time_ns() - newest_ns
    if newest_ns % _FINE_NS == 0 and 0 <= age < _COARSE_NS:
        time.sleep((_COARSE_NS - age) / 1e9)


class Sample(NamedTuple):
    """One picture to decode: its name, the index of its container, and its key there."""

    name: str
    container: int
    key: Any


class ListedFile(NamedTuple):
    """A file or member: its name with /, its size in bytes, a stamp that changes when it is edited, its key."""

    name: str
    size: int
    stamp: str
    key: Any


@dataclass
class Listing:
    """The files of a container in the order of their names, those that were refused, and notes on what was found.

    Attributes:
        newest: time of the last change to a file of a folder, in ns.
        own: folders and pictures that hangtag wrote, which are left out.
        empty: folders without any file.
        hidden: folders with images, but not of a class, whose names begin with a dot.
    """

    entries: list[ListedFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    newest: int = 0
    own: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)

    def add(self, path: str, name: str, status: os.stat_result) -> None:
        self.entries.append(self.found(path, name, status))

    def found(self, path: str, name: str, status: os.stat_result) -> ListedFile:
        """A file of a folder; its key is its name."""
        self.newest = max(self.newest, status.st_ctime_ns)
        return ListedFile(name, status.st_size, stamp_of(path, status), name)

    def refuse(self, name: str, kind: str, reason: str) -> None:
        self.skipped.append(Skipped(name, kind, reason))

    def digest(self) -> str:
        """SHA-256 that changes when a file is added, removed, renamed or edited."""
        text = "\n".join([f"{name}\0{size}\0{stamp}" for name, size, stamp, _ in self.entries])
        text += repr((self.skipped, self.empty))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def name_apart(self) -> None:
        """Give members that share a name different ones, in the order in which they were listed."""
        taken = {entry.name for entry in self.entries}
        if len(taken) == len(self.entries):
            return
        seen: set[str] = set()
        renamed = []
        for place, entry in enumerate(self.entries):
            name, number = entry.name, 1
            while name in seen or (number > 1 and name in taken):
                number += 1
                stem, dot, ending = entry.name.rpartition(".")
                name = f"{stem} ({number}).{ending}" if dot and "/" not in ending else f"{entry.name} ({number})"
            seen.add(name)
            if name != entry.name:
                renamed.append(name)
                self.entries[place] = entry._replace(name=name)
        self.notes.append(
            f"the archive has several members of the same name; all are read: {amount(len(renamed), 'member')} "
            f"got a new name, for example {renamed[0]}"
        )

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

    def notes_on_own(self) -> list[str]:
        """What was left out, as sentences; for a folder this may change while its digest stays the same."""
        notes = [f"not read, because hangtag wrote it: {first_few(sorted(set(self.own)))}"] if self.own else []
        if self.hidden:
            notes.append(f"hidden folders with images not read: {visible(first_few(self.hidden))}")
        return notes

    def leave_out_hidden(self) -> None:
        """Leave out folders whose names begin with a dot, unless they are class folders: beside others, or alone."""
        if not any("/." in entry.name or entry.name[0] == "." for entry in self.entries):
            return
        with_pictures = {
            entry.name.rpartition("/")[0] for entry in self.entries if entry.name.lower().endswith(PICTURE_ENDINGS)
        }
        plain = [folder for folder in with_pictures if not _has_dot(folder)]
        beside = {folder.rpartition("/")[0] for folder in plain or with_pictures}

        def is_class(folder: str) -> bool:
            above, _, own = folder.rpartition("/")
            whole = folder in with_pictures and above in beside and above not in with_pictures
            return not folder or ((not own.startswith(".") or whole) and is_class(above))

        read = {folder: is_class(folder) for folder in {entry.name.rpartition("/")[0] for entry in self.entries}}
        self.entries = [entry for entry in self.entries if read[entry.name.rpartition("/")[0]]]
        self.hidden = sorted(folder for folder in with_pictures if not read[folder])

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
        listing.entries = list(self._walk(self.root, "", listing, os.path.realpath(self.root), frozenset(), True))
        settle(listing.newest)
        return listing.sorted()

    def files(self, listing: Listing) -> Iterator[ListedFile]:
        """The files in the order of their names, as they are found: only the names of one folder are in memory.

        Folders that hangtag wrote and hidden folders are left out, and the listing gets their names and what is
        refused.
        """
        return self._walk(self.root, "", listing, os.path.realpath(self.root), frozenset(), False)

    def content(self, key: str) -> bytes:
        path = f"{self.root}/{key}" if key[:1] != "/" else key  # tables may contain absolute paths
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe would wait for its writer
            try:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise PictureError("a device, pipe or folder", "name image files", "cannot be read", key)
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

    def to_json(self) -> list[str]:
        return ["folder", self.root]

    def _walk(  # noqa: PLR0912 - a case for each kind of child
        self, folder: str, prefix: str, listing: Listing, real_root: str, above: frozenset[str], everything: bool
    ) -> Iterator[ListedFile]:
        """The files in a folder and those in it; `above` holds the real paths of the links that lead to it.

        Args:
            everything: also what `Listing.sorted` leaves out.
        """
        try:
            with os.scandir(folder) as children:
                found = list(children)
        except OSError as error:
            kind = "permission denied" if isinstance(error, PermissionError) else "cannot be read"
            listing.refuse(prefix.rstrip("/") or ".", kind, f"the folder cannot be listed: {error.strerror}")
            return
        names = {child.name: child for child in found if child.name[0] == "." or child.name in _OF_RUN}
        if prefix and (MARKER in names or (not everything and names.keys() >= _OF_RUN)):
            listing.own.append(prefix.rstrip("/"))
            return
        count = len(listing.own)
        loose = _names_in(names[LOOSE]) if LOOSE in names else frozenset[str]()
        listing.own += [prefix + child.name for child in found if child.name in loose] if loose else []
        is_empty = True
        if not everything:
            found.sort(key=_place_in_order)
        found.reverse()
        while found:  # each entry is released with what the system said about it
            child = found.pop()
            own = child.name
            if own in loose or own in _JUNK or own.lower() in _JUNK:
                continue
            if own[0] == "." and not child.is_dir(follow_symlinks=False):
                continue
            name = prefix + own
            try:
                if child.is_file(follow_symlinks=False):
                    is_empty = False
                    yield listing.found(child.path, name, child.stat(follow_symlinks=False))
                elif child.is_symlink() and not self._may_follow(child, folder, name, listing, real_root, above):
                    continue
                elif child.is_dir():
                    if own[0] == "." and not everything:
                        listing.hidden.append(name)
                        continue
                    real = above | {os.path.realpath(child.path)} if child.is_symlink() else above
                    for each in self._walk(child.path, f"{name}/", listing, real_root, real, everything):
                        is_empty = False
                        yield each
                elif child.is_file():
                    is_empty = False
                    yield listing.found(child.path, name, child.stat())
                else:
                    listing.refuse(name, "not a file", "a device, pipe, socket or broken link")
            except OSError as error:
                listing.refuse(name, "cannot be read", error.strerror or str(error))

        if prefix and is_empty and len(listing.own) == count:
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
    """Members of a zip file, read in place. Keys are positions in its directory."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: zipfile.ZipFile | None = None

    def listing(self) -> Listing:
        listing = Listing()
        archive = self._open()
        members = archive.infolist()
        self._refuse_bomb(members)
        self._note_rest(archive, listing)
        for place, name in enumerate(self._names(members, listing)):
            member = members[place]
            size, packed = member.file_size, member.compress_size
            if name.endswith(_MARKED):
                listing.own.append(name[: -len(_MARKED)])
            if name.endswith("/") or _is_ignored(name):
                continue
            if stat.S_ISLNK(member.external_attr >> 16):
                listing.refuse(name, "link", "links in archives are not followed")
            elif member.flag_bits & 1:
                listing.refuse(name, "encrypted", "the file is encrypted; extract it yourself")
            elif size > LARGEST_FILE or size > max(_SMALL, _LARGEST_RATIO * packed):
                listing.refuse(name, "suspicious compression", f"{size:,} bytes packed into {packed:,}")
            elif _stays_inside(name, listing):
                listing.entries.append(ListedFile(name, size, str(member.CRC), place))
        listing.name_apart()
        return listing.sorted()

    def content(self, key: int) -> bytes:
        place = self.path
        try:
            member = self._open().infolist()[key]
            place = f"{self.path}: {member.filename}"
            with self._open().open(member) as file:
                content = file.read(LARGEST_FILE + 1)
        except DataError:
            raise
        except (*_DAMAGED_ZIP, IndexError) as error:
            raise PictureError(f"damaged in the zip file: {error}", _NEW_ARCHIVE, name=place) from error
        except OSError as error:
            raise _unreadable(place, error) from error
        if len(content) > LARGEST_FILE:
            raise _too_large(place)
        return content

    @staticmethod
    def _names(members: list[zipfile.ZipInfo], listing: Listing) -> list[str]:
        """The members' names with /, also those that old programs wrote in the encoding of their system."""
        names = [member.filename for member in members]
        old = [
            place for place, member in enumerate(members) if not member.flag_bits & _UTF8 and not names[place].isascii()
        ]
        raw = [members[place].orig_filename.encode("cp437") for place in old]  # how zipfile decoded it
        texts, encoding = decode_names(raw)
        for place, name, text in zip(old, raw, texts, strict=True):
            names[place] = unicode_path(members[place].extra, name) or text
        if old and encoding != "utf-8":
            listing.notes.append(f"the zip file does not say how its names are encoded; they were read as {encoding}")
        return [name.replace("\\", "/") if "/" not in name else name for name in names]

    def _note_rest(self, archive: zipfile.ZipFile, listing: Listing) -> None:
        """Note bytes before the first member and behind the end, which may be another archive."""
        first = min((member.header_offset for member in archive.infolist()), default=0)
        with _opened(self.path) as file:
            file.seek(-min(_size_of(self.path), _END_OF_ZIP + len(archive.comment)), os.SEEK_END)
            ends = file.read(4) == b"PK\5\6"
        if first or not ends:
            place = "after the end" if not ends else f"before the first member ({first:,})"
            listing.notes.append(f"the zip file has bytes {place} that were not read; is it two files in one?")

    def _refuse_bomb(self, members: list[zipfile.ZipInfo]) -> None:
        most = 16 * _SMALL + _LARGEST_RATIO * _size_of(self.path)
        if sum(member.file_size for member in members) > most:  # members may share their packed bytes
            raise _bomb(self.path)
        if len(members) > _MOST_MEMBERS:
            raise _too_many(self.path)

    def span(self, key: int) -> list[int]:
        """The key of a member in `ZipSpans`."""
        member = self._open().infolist()[key]
        return [member.header_offset, member.compress_size, member.file_size, member.compress_type, member.CRC]

    def to_json(self) -> list[str]:
        return ["zip", self.path]

    def _open(self) -> zipfile.ZipFile:
        if self._file is None:
            try:
                self._file = zipfile.ZipFile(open_address(self.path) if is_address(self.path) else self.path)
            except OSError as error:
                raise _unreadable(self.path, error) from error
            except _DAMAGED_ZIP as error:
                raise DataError(f"{self.path}: damaged or incomplete zip file: {error}", _NEW_ARCHIVE) from error
        return self._file


class Spans:
    """Parts of one file: members of an uncompressed tar, or pictures from memory. Keys: [offset, size].

    Parts of a file at an address that are read one after the other come together.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._start, self._block = 0, b""

    def content(self, key: tuple[int, int]) -> bytes:
        offset, size = key
        content = self._read(offset, size)
        if len(content) < size:
            raise PictureError("truncated", _NEW_ARCHIVE, "truncated", self.path)
        return content

    def to_json(self) -> list[str]:
        return ["spans", self.path]

    def expect(self, keys: Sequence[Any]) -> None:
        """At an address: the pictures that are read next."""
        if not is_address(self.path):
            return
        start, end = min(key[0] for key in keys), max(key[0] + key[1] + self._around for key in keys)
        if end - start <= _LARGEST_BLOCK:
            self._block = b""
            self._start, self._block = start, self._read(start, end - start)

    _around = 0  # bytes of a part beside its key's

    def _read(self, offset: int, size: int) -> bytes:
        """Some bytes; fewer at the end of the file."""
        place = offset - self._start
        if self._block and place >= 0 and place + size <= len(self._block):
            return self._block[place : place + size]
        try:
            if not is_address(self.path):
                with _opened(self.path) as file:
                    file.seek(offset)
                    return file.read(size)
            self._file = self._file or open_address(self.path)
            with reading(without_query(self.path)):
                self._file.seek(offset)
                return self._file.read(size)
        except OSError as error:
            raise _unreadable(self.path, error) from error


class ZipSpans(Spans):
    """Members of a zip file without its directory. Keys: [offset, packed size, size, compression, CRC]."""

    _around = 512  # the header of a member before its content

    def content(self, key: tuple[int, int]) -> bytes:
        offset, packed, size, method, checksum = key  # type: ignore[misc]
        try:
            block = self._read(offset, packed + self._around)
            names, extra = struct.unpack_from("<HH", block, 26)
            start = 30 + names + extra
            if start + packed > len(block):
                block = self._read(offset, start + packed)
            member = zipfile.ZipInfo()
            member.compress_size, member.file_size, member.compress_type, member.CRC = packed, size, method, checksum
            if block[:4] != b"PK\3\4":
                raise zipfile.BadZipFile("no member at this position")
            with zipfile.ZipExtFile(io.BytesIO(block[start : start + packed]), "r", member) as file:
                content = file.read(min(size, LARGEST_FILE) + 1)
        except DataError:
            raise
        except (*_DAMAGED_ZIP, struct.error) as error:
            raise PictureError(f"damaged in the zip file: {error}", _NEW_ARCHIVE, name=self.path) from error
        if len(content) != size:
            raise PictureError("truncated", _NEW_ARCHIVE, "truncated", self.path)
        return content

    def to_json(self) -> list[str]:
        return ["zip spans", self.path]


@dataclass(frozen=True)
class Bucket:
    """Files below an address such as s3://bucket/photos. Keys are relative names."""

    root: str

    def content(self, key: str) -> bytes:
        address = below(self.root, key)
        try:
            with open_address(address) as file, reading(without_query(address)):
                content = file.read(LARGEST_FILE + 1)
        except DataNotFound:
            raise PictureNotFound("no such file", "check its name", "cannot be read", key) from None
        if len(content) > LARGEST_FILE:
            raise _too_large(key)
        return content

    def to_json(self) -> list[str]:
        return ["bucket", self.root]


class ParquetColumn:
    """Pictures as bytes in a column of Parquet files, plain or in a struct's field. Keys: [file, row group, row].

    A row group is read in batches from its first row on, so rows of a group must be asked for in ascending order.
    """

    def __init__(self, paths: list[str], column: str, inner: str | None) -> None:
        self.paths, self.column, self.inner = paths, column, inner
        self.alive: Callable[[], None] = lambda: None  # called after each batch
        self._file: tuple[int, Any] = (-1, None)
        self._group = (-1, -1)
        self._batches: Any = None
        self._batch: Any = ()
        self._first = 0  # row of the batch's first picture

    def content(self, key: tuple[int, int, int]) -> bytes:
        import pyarrow

        file, group, row = key
        path = self.paths[file]
        try:
            with _failing(path):
                value = self._value(file, group, row)
        except MemoryError:  # also one of pyarrow's errors
            self._group = (-1, -1)
            raise
        except (OSError, pyarrow.ArrowException, StopIteration) as error:
            self._group = (-1, -1)
            if isinstance(error, OSError) and error.errno:
                raise _unreadable(path, error) from error
            raise PictureError(f"row group {group} is damaged", _NEW_ARCHIVE, name=path) from error
        content = value[self.inner] if self.inner is not None and value is not None else value
        if not isinstance(content, bytes):
            raise PictureError("this row has no image", "add it, or remove the row", "no image", path)
        if len(content) > LARGEST_FILE:
            raise _too_large(path)
        return content

    def _value(self, file: int, group: int, row: int) -> Any:
        if self._group != (file, group) or row < self._first:
            self._start(file, group)
        while row >= self._first + len(self._batch):
            self._first += len(self._batch)
            self._batch = ()  # released before the next one is read
            self._batch = next(self._batches).column(0)
            self.alive()
        return self._batch[row - self._first].as_py()

    def _start(self, file: int, group: int) -> None:
        import pyarrow.parquet

        self._group, self._first, self._batch = (-1, -1), 0, ()
        if self._file[0] != file:  # with a buffer, a column is read page by page instead of whole
            path = self.paths[file]
            opened = open_address(path) if is_address(path) else path
            self._file = (file, pyarrow.parquet.ParquetFile(opened, buffer_size=1 << 20, pre_buffer=False))
        opened = self._file[1]
        chunks = map(opened.metadata.row_group(group).column, range(opened.metadata.num_columns))
        size = sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.startswith(self.column))
        rows = max(1, _BATCH_BYTES * opened.metadata.row_group(group).num_rows // max(1, size))
        self._batches = opened.iter_batches(min(rows, 1024), [group], [self.column], use_threads=False)
        self._group = (file, group)

    def to_json(self) -> list[Any]:
        return ["parquet", self.paths, self.column, self.inner]


Container: TypeAlias = Folder | Bucket | Zip | Spans | ZipSpans | ParquetColumn


def container_of(value: list[Any]) -> Container:
    """The container from its `to_json`, for another process."""
    kinds: dict[str, Any] = {
        "folder": Folder, "bucket": Bucket, "zip": Zip, "spans": Spans, "zip spans": ZipSpans, "parquet": ParquetColumn,
    }  # fmt: skip
    container: Container = kinds[value[0]](*value[1:])
    return container


def is_local(container: Container) -> bool:
    """Whether nothing of it is at an address."""
    if isinstance(container, Folder | Bucket):
        return isinstance(container, Folder)
    return not any(map(is_address, container.paths if isinstance(container, ParquetColumn) else [container.path]))


def common_place(container: Container, keys: Iterable[Any]) -> str:
    """The folder or file without which none of these pictures can be read; of several Parquet files, the first."""
    if isinstance(container, Folder):
        paths = [os.path.abspath(os.path.join(container.root, key)) for key in keys]  # noqa: PTH100, PTH118
        return os.path.commonpath([os.path.dirname(min(paths)), os.path.dirname(max(paths))])  # noqa: PTH120
    if isinstance(container, Bucket):
        return container.root
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
    if isinstance(container, Bucket):  # whoever reads from it gets a `StoreError`
        return None
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


def archive_listing(path: Path | str, unpacked: Path) -> tuple[Zip | Spans, Listing]:
    """The members of a zip or tar file or address. A compressed tar file is first decompressed into `unpacked`.

    Raises:
        DataError: the file is neither, is damaged or incomplete, or would unpack to far more than its size.
    """
    name = str(path)
    try:
        if not is_address(name):
            settle(Path(name).stat().st_ctime_ns)
        with _opened(name) as file:
            start = file.read(512)
        if without_query(name).lower().endswith(".zip") or start[:2] == b"PK":
            archive = Zip(name)
            return archive, archive.listing()
        plain = name
        if start[257:262] != b"ustar" and not _is_old_tar(start):
            plain = str(unpacked)
            _decompress(name, start, unpacked)
        return Spans(plain), _tar_listing(plain)
    except DataError:
        raise
    except _DAMAGED_TAR as error:
        if isinstance(error, OSError) and error.errno:
            raise _unreadable(name, error) from error
        raise DataError(f"{name}: damaged or incomplete tar file: {error}", _NEW_ARCHIVE) from error


def _opened(path: str) -> BinaryIO:
    """A file or address, opened for reading."""
    return open_address(path) if is_address(path) else open(path, "rb", buffering=0)  # noqa: PTH123


def _failing(path: str) -> AbstractContextManager[None]:
    """Turns what an object store raises into a `StoreError`; errors of files stay as they are."""
    return reading(without_query(path)) if is_address(path) else nullcontext()


def _size_of(path: str) -> int:
    return size_at(path) if is_address(path) else Path(path).stat().st_size


class _TarMember(tarfile.TarInfo):
    """A member with limits on its extra headers, which the standard library nests without end and reads at any size."""

    def _proc_member(self, archive: Any) -> tarfile.TarInfo:
        depth = getattr(archive, "depth", 0)
        extra = self.type in _EXTRA_HEADERS
        if self.size < 0 or (extra and self.size > _LARGEST_HEADER) or depth > _DEEPEST_HEADER:
            raise tarfile.ReadError(f"invalid header at byte {self.offset:,}")
        archive.depth = depth + extra
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        archive.depth = depth
        return member


def _tar_listing(path: str) -> Listing:
    listing = Listing()
    files: dict[str, list[int]] = {}  # keys by name, for hard links
    count = 0
    buffered: Any = io.BufferedReader(_opened(path), _TAR_BUFFER)
    with buffered, tarfile.open(fileobj=buffered, mode="r:", tarinfo=_TarMember) as opened:
        for count, member in enumerate(opened, 1):
            opened.members = []  # type: ignore[attr-defined] # or it keeps them all
            name = member.name.removeprefix("./")
            if count > _MOST_MEMBERS:
                raise _too_many(path)
            if name.endswith(_MARKED):
                listing.own.append(name[: -len(_MARKED)])
            if _is_ignored(name) or member.isdir():
                continue
            key = files.get(member.linkname.removeprefix("./")) if member.islnk() else [member.offset_data, member.size]
            if member.issym() or key is None:
                listing.refuse(name, "link", "links in archives are not followed")
            elif not (member.isreg() or member.islnk()) or member.sparse is not None:
                listing.refuse(name, "not a file", "a device, pipe or sparse file")
            elif _stays_inside(name, listing):
                files[name] = key
                listing.entries.append(ListedFile(name, key[1], "", key))
        _check_end(path, opened.offset, listing)
    listing.name_apart()
    return listing.sorted()


def _check_end(path: str, offset: int, listing: Listing) -> None:
    """Raise ReadError if the members end at a damaged header; note what follows the end mark."""
    with _opened(path) as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"invalid header at byte {offset:,}")
        while piece := file.read(_PIECE):
            if piece.strip(b"\0"):
                rest = _size_of(path) - offset
                listing.notes.append(
                    f"{rest:,} bytes after the end of the tar file were not read; is it two files in one?"
                )
                return


def _is_ignored(name: str) -> bool:
    """Whether a member is hidden, or belongs to the operating system."""
    folders = name.split("/")
    return is_junk(folders[-1]) or any(folder.lower() in _JUNK for folder in folders)


def _has_dot(folder: str) -> bool:
    return folder.startswith(".") or "/." in folder


def is_junk(name: str) -> bool:
    """Whether files of this name are hidden or belong to the operating system, such as Thumbs.db."""
    return (name.startswith(".") and name != "..") or name.lower() in _JUNK


def _place_in_order(child: "os.DirEntry[str]") -> str:
    """Sorts the children of a folder so that whole names come in order."""
    return child.name if child.is_file() else f"{child.name}/"


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


def _decompress(path: str, start: bytes, unpacked: Path) -> None:
    opener = next((opener for magic, opener in _COMPRESSION.items() if start.startswith(magic)), None)
    if opener is None:
        raise DataError(
            f"{path}: not an archive that hangtag can read", "it reads zip and tar (plain, gzip, bzip2, xz)"
        )
    most = max(_SMALL, _LARGEST_RATIO * _size_of(path))
    with _opened(path) as file, opener(file, "rb") as packed:
        with saving(unpacked):
            out = unpacked.open("wb", buffering=0)
        with out:
            while piece := packed.read(_PIECE):
                if out.tell() + len(piece) > most:
                    raise _bomb(path)
                with saving(unpacked):
                    write_all(out.fileno(), piece)


def _is_old_tar(start: bytes) -> bool:
    """Whether it is a tar file from before 1988, which has no mark but a checksum."""
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _bomb(place: str) -> DataError:
    return DataError(
        f"{place}: unpacks to over {_LARGEST_RATIO} times its size", "it may be a decompression bomb; do not use it"
    )


def _too_many(place: str) -> DataError:
    return DataError(f"{place}: the archive has over {_MOST_MEMBERS:,} members", "extract it and read the folder")
