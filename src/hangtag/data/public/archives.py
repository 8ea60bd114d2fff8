"""The content of packed files, in memory and never more of it than asked for.

gzip, or some members of a zip or a tar.gz. Nothing is written to disk, so that no name inside an archive can lead
anywhere; what is too long is cut off one byte after its limit, so that a small file cannot become a huge one.
"""

import gzip
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hangtag.errors import DataError

__all__ = ["content_of", "gunzip", "members_of", "sha256_of"]

_ROOM_FOR_OTHERS = 2**20  # bytes: headers and notes in a tar beside the members that are wanted
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile, RuntimeError)
# zipfile raises RuntimeError for a password and its child NotImplementedError for an unknown compression.


def content_of(path: Path, most: int) -> bytes:
    """The first `most` bytes of a file, decompressed when it begins as gzip does, whatever its name.

    Raises:
        DataError: it cannot be read, or is cut short or damaged.
    """
    with _reading(path), path.open("rb") as raw:
        packed = _is_gzip(raw.read(2))
        raw.seek(0)
        if not packed:
            return raw.read(most)
        with gzip.open(raw) as unpacked:
            return unpacked.read(most)


def gunzip(content: bytes, most: int, place: str | Path) -> bytes:
    """The first `most` bytes of `content`, decompressed if it is gzip; errors name `place`."""
    if not _is_gzip(content):
        return content[:most]
    with _reading(place), gzip.open(io.BytesIO(content)) as unpacked:
        return unpacked.read(most)


def members_of(archive: Path, wanted: Mapping[str, int]) -> dict[str, bytes]:
    """Those of the `wanted` members that a zip or a tar.gz holds, as they are in it.

    Args:
        wanted: for each member's whole name the most bytes to take of it.

    Raises:
        DataError: it is neither a zip nor a tar.gz, cannot be read, or is cut short or damaged.
    """
    with _reading(archive), archive.open("rb") as file:
        beginning = file.read(4)
        file.seek(0)
        if beginning[:2] == b"PK":
            return _in_zip(file, wanted)
        if _is_gzip(beginning):
            return _in_tar(file, wanted, archive)
    raise DataError(f"{archive}: is neither a zip nor a tar.gz", "download it again")


def sha256_of(path: Path) -> str:
    """Of a file as it lies there, compressed or not."""
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_gzip(beginning: bytes) -> bool:
    """Does a file that begins like this hold gzip (RFC 1952, 2.3.1)?"""
    return beginning[:2] == b"\x1f\x8b"


def _in_zip(file: IO[bytes], wanted: Mapping[str, int]) -> dict[str, bytes]:
    found = {}
    with zipfile.ZipFile(file) as archive:
        for name in wanted.keys() & set(archive.namelist()):
            with archive.open(name) as member:
                found[name] = member.read(wanted[name])
    return found


def _in_tar(file: IO[bytes], wanted: Mapping[str, int], path: Path) -> dict[str, bytes]:
    """In one pass from front to back, which ends with the last wanted member."""
    found: dict[str, bytes] = {}
    most = sum(wanted.values()) + _ROOM_FOR_OTHERS
    with gzip.open(file) as unpacked, tarfile.open(fileobj=_Limited(unpacked, most, path), mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() and member.name in wanted else None
            if content is not None:
                found[member.name] = content.read(wanted[member.name])
            if len(found) == len(wanted):
                break
    return found


class _Limited(io.RawIOBase):
    """What is read of a stream, until it was too much."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, most: int, path: Path) -> None:
        self.stream, self.left, self.path = stream, most, path

    def read(self, size: int = -1) -> bytes:
        content = self.stream.read(self.left + 1 if size < 0 else size)
        self.left -= len(content)
        if self.left < 0:
            raise DataError(f"{self.path}: holds far more than it should", "is it another archive?")
        return content


@contextmanager
def _reading(place: str | Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise DataError(f"{place}: cut short or damaged ({error})", "download it again") from error
    except OSError as error:
        raise DataError(
            f"{place}: cannot be read: {error.strerror or error}", "check the file's permissions"
        ) from error
