"""A table in a zip or tar file -> a manifest of the archive's images.

Tables look for files in folders, so they get a mirror of the archive: its tables, and an empty file for each image.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hangtag.data.folder_layout import is_picture_name
from hangtag.data.manifest import Manifest
from hangtag.data.store.containers import Container, Folder, Listing
from hangtag.errors import DataError, HangtagError
from hangtag.files import saving

__all__ = ["in_archive", "mirrored", "naming"]

_UNPACK = "unpack the archive, and name the folder or the table in it"
_NO_FILES = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL}
"""Error numbers of names that this system cannot have beside the others; such images are not found."""


def mirrored(container: Container, listing: Listing, tables: Iterable[str], root: Path) -> None:
    """Write the mirror of an archive into an empty folder.

    Args:
        tables: the names of the tables to unpack.
    """
    wanted = set(tables)
    for entry in sorted(listing.entries, key=lambda entry: -entry.name.count("/")):  # a folder wins over a file
        if entry.name in wanted or is_picture_name(entry.name):
            path = root / entry.name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(container.content(entry.key) if entry.name in wanted else b"")
            except OSError as error:
                if error.errno not in _NO_FILES:
                    with saving(path):
                        raise


def in_archive(manifest: Manifest, container: Container, listing: Listing, root: Path, path: Path) -> Manifest:
    """The manifest of a mirror with the images of the archive instead of the empty files.

    Raises:
        DataError: some images are not in the archive.
    """
    key_of = {entry.name: entry.key for entry in listing.entries}
    wanted = []
    for sample in manifest.wanted:
        own = manifest.containers[sample.container]
        if not isinstance(own, Folder):
            raise DataError(f"{path}: the images are in cells of a table, which are not read in archives", _UNPACK)
        name = os.path.relpath(os.path.join(own.root, sample.key), root)  # noqa: PTH118
        if name not in key_of:
            raise DataError(f"{path}: the table names {sample.name}, which is not in the archive", _UNPACK)
        wanted.append(sample._replace(name=name, container=0, key=key_of[name]))
    return replace(
        manifest,
        wanted=wanted,
        containers=[container],
        notes=[note.replace(str(root), str(path)) for note in manifest.notes],
        skipped=[replace(each, reason=each.reason.replace(str(root), str(path))) for each in manifest.skipped],
    )


@contextmanager
def naming(root: Path, path: Path) -> Iterator[None]:
    """Errors inside the block name the archive and not its mirror."""
    try:
        yield
    except HangtagError as error:
        raise type(error)(*(text.replace(str(root), str(path)) for text in (error.message, error.hint))) from error
