"""The content of gzip, zip and tar.gz files, in memory and up to a limit, so that a small file cannot become huge."""

import gzip
import hashlib
import io
import tempfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from hangtag.errors import DataError

__all__ = ["content_of", "gunzip", "members_of", "sha256_of"]

_GZIP = b"\x1f\x8b"  # RFC 1952, 2.3.1


def content_of(path: Path, most: int) -> bytes:
    """The first `most` bytes of a file; of a gzip file, whatever its name, the first bytes of its content.

    Raises:
        DataError: the file cannot be read, or is damaged or incomplete.
    """
    with _reading(path), path.open("rb") as raw:
        packed = raw.read(2) == _GZIP
        raw.seek(0)
        if not packed:
            return raw.read(most)
        with gzip.open(raw) as unpacked:
            return unpacked.read(most)


def gunzip(content: bytes, most: int, place: str | Path) -> bytes:
    """The first `most` bytes of `content`, decompressed if it is gzip; errors name `place`."""
    if not content.startswith(_GZIP):
        return content[:most]
    with _reading(place), gzip.open(io.BytesIO(content)) as unpacked:
        return unpacked.read(most)


def members_of(archive: Path, names: Collection[str]) -> dict[str, bytes]:
    """Those members of a zip or tar.gz file that have one of these names.

    Raises:
        DataError: the file is neither, cannot be read, or is damaged or incomplete.
    """
    from hangtag.data.store.containers import archive_listing  # not needed for data in the cache

    with tempfile.TemporaryDirectory(prefix="hangtag-") as temporary:
        container, listing = archive_listing(archive, Path(temporary) / "tar")
        return {entry.name: container.content(entry.key) for entry in listing.entries if entry.name in names}


def sha256_of(path: Path) -> str:
    """The checksum of the file as it is, compressed or not."""
    with _reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _reading(place: str | Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{place}: damaged or incomplete: {error}", "download it again") from error
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror or error}", "check its permissions") from error
