"""Places that a user points at -> the list of pictures to classify: files, folders, patterns, archives, tables, names.

Nothing is decoded here, and labels are not read. Hidden files and those of operating systems are left out. What only
folders, archives and tables need is imported when one is named, so that a few files are answered at once.
"""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hangtag.data.picture_facts import Skipped
from hangtag.data.store.containers import Container, Folder, Listing, Sample, archive_listing
from hangtag.errors import DataError, DataNotFound, HangtagError, UsageError
from hangtag.files import user_path
from hangtag.pictures import PICTURE_ENDINGS
from hangtag.words import amount, visible

__all__ = ["PictureList", "list_pictures", "names_in"]

_ENDINGS = tuple(f".{ending}" for ending in ("zip", "tar", "tgz", "tar.gz", "tbz2", "tar.bz2", "txz", "tar.xz"))


@dataclass
class PictureList:
    """Pictures to classify, in order.

    Attributes:
        samples: each with its name for the user, its container and its key there.
        containers: where their bytes are.
        problems: why a picture cannot be read and what to do, where that is known already; by position.
        notes: what was left out, in sentences.
    """

    samples: list[Sample] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    problems: dict[int, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, container: Container, named: Iterable[tuple[str, Any]]) -> None:
        """Pictures of a container: the name and the key of each."""
        if container not in self.containers:
            self.containers.append(container)
        place = self.containers.index(container)
        self.samples += [Sample(name, place, key) for name, key in named]


def list_pictures(
    places: Iterable[str | os.PathLike[str]],
    folder: Path,
    image_column: str | None = None,
    root: Path | None = None,
    refuse: bool = True,
) -> PictureList:
    """List the pictures of all places, one place after the other.

    Args:
        places: files, folders, patterns such as "photos/*.jpg", zip and tar files, tables. A file that does not exist
            is listed, so that it has a row with an error.
        folder: an empty folder for archives that must be unpacked and pictures that are cells of a table.
        image_column, root: of tables: the column of pictures, and the folder to which its paths are relative.
        refuse: whether a place that has no picture or cannot be read is an error; False: it is a row with an error.

    Raises:
        DataError: a place has no picture, or cannot be read.
        UsageError: a place is empty or an address, or there is none.
    """
    found = PictureList()
    for name in places:
        place = os.fspath(name)
        try:
            _add_place(found, place, folder, image_column, root)
        except HangtagError as error:
            if refuse:
                raise
            found.problems[len(found.samples)] = (error.message.removeprefix(f"{place}: "), error.hint)
            found.add(Folder(str(Path.cwd())), [(place, None)])
    if not found.samples:
        raise UsageError("no pictures were named", "name files, folders, archives or tables")
    return found


def names_in(content: bytes) -> list[str]:
    """The names in a list, one on each line, or separated by zero bytes as `find -print0` writes them.

    Raises:
        UsageError: there is none.
    """
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise UsageError(
            "standard input holds no names", "for example: find photos -name '*.jpg' | hangtag predict last -"
        )
    return names


def _add_place(found: PictureList, place: str, folder: Path, image_column: str | None, root: Path | None) -> None:
    path = user_path(place)
    if "://" in place and not path.exists():
        raise UsageError(f"{place}: addresses are not read", "download the picture, and name its file")
    matches = _matching(str(path)) if glob.has_magic(place) and not os.path.lexists(path) else [str(path)]
    for match in matches:
        _add(found, match, folder, image_column, root)


def _matching(pattern: str) -> list[str]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a path of any kind, also an absolute one
    if "**" in pattern:  # it matches the files in the folders, too
        matches = [match for match in matches if not Path(match).is_dir()]
    if not matches:
        raise DataNotFound(f"{pattern}: no file matches this pattern", "check the folder and the pattern")
    return matches


def _add(found: PictureList, place: str, folder: Path, image_column: str | None, root: Path | None) -> None:
    path, name = Path(place), place.lower()
    if path.is_dir():
        listing = Folder(str(path.absolute())).listing()
        _add_listed(found, Folder(str(path.absolute())), listing, place)
    elif name.endswith(_ENDINGS) and path.is_file():
        container, listing = archive_listing(path.absolute(), folder / f"unpacked-{len(found.containers)}")
        _add_listed(found, container, listing, place)
    elif not name.endswith(PICTURE_ENDINGS) and path.is_file() and _is_table(name):
        _add_table(found, path, folder, image_column, root)
    else:
        found.add(Folder(str(Path.cwd())), [(place, place)])


def _is_table(name: str) -> bool:
    from hangtag.data.tables import TABLE_ENDINGS

    return name.endswith(TABLE_ENDINGS)


def _add_listed(found: PictureList, container: Container, listing: Listing, place: str) -> None:
    """The pictures in a folder or an archive."""
    from hangtag.data.describe import counted
    from hangtag.data.folder_layout import is_picture_name
    from hangtag.data.manifest import ARCHIVES, found_instead

    entries = [entry for entry in listing.entries if is_picture_name(entry.name)]
    if not entries:
        raise DataError(
            f"{place}: no images found{found_instead(listing, listing.skipped)}", "name a folder that holds images"
        )
    notes = [*listing.notes, *listing.notes_on_own()]
    if listing.skipped:
        notes.append(f"set aside: {counted(listing.skipped)}")
    others = [entry.name for entry in listing.entries if not is_picture_name(entry.name)]
    inside = [name for name in others if name.lower().endswith(ARCHIVES)]
    if others:
        notes.append(f"{amount(len(others), 'file')} of other kinds left out, such as {visible(others[0])}")
    if inside:
        notes.append(f"archives in it are not read; name them, too: {visible(inside[0])}")
    found.notes += [f"{place}: {note}" for note in notes]
    lead = place.rstrip("/")
    found.add(container, [(f"{lead}/{entry.name}", entry.key) for entry in entries])


def _add_table(found: PictureList, path: Path, folder: Path, image_column: str | None, root: Path | None) -> None:
    from hangtag.data.columns import find_image_column
    from hangtag.data.folder_layout import refuse
    from hangtag.data.manifest import pictures_of
    from hangtag.data.tables import read_table, with_images_of_pixels

    table = with_images_of_pixels(read_table([path], root), refuse)
    column = find_image_column(table, refuse, image_column)
    beside = folder / f"pictures-{len(found.containers)}"
    wanted, container, _, missing, notes = pictures_of(table, column, [None] * table.rows, beside, refuse)
    found.notes += [f"{path}: {note}" for note in (*table.notes, *notes)]
    if isinstance(container, Folder):
        container = Folder(str(Path(container.root).absolute()))
        names = [str(value) for value in _written(table.columns[column])]
    else:
        names = [f"{path}: row {row}" for row in range(1, table.rows + 1)]
    start = len(found.samples)
    found.add(container, [(name, each.key if each else None) for name, each in zip(names, wanted, strict=True)])
    reasons = iter(missing)
    found.problems |= {start + row: _why_missing(next(reasons)) for row, each in enumerate(wanted) if each is None}


def _written(values: Sequence[Any]) -> list[Any]:
    """Paths as a table writes them."""
    return [value.get("path") if isinstance(value, dict) else value for value in values]


def _why_missing(skipped: Skipped) -> tuple[str, str]:
    if skipped.name in ("None", ""):
        return "the cell is empty", "fill it, or leave out the row"
    return skipped.reason.partition(": ")[2] or skipped.reason, "check the path, or give its folder: --root FOLDER"
