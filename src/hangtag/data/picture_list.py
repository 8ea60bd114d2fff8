"""Places that a user points at -> the list of pictures to classify: files, folders, patterns, archives, tables, names.

Places may be addresses such as s3://bucket/photos. Nothing is decoded here, and labels are not read. Hidden files and
those of operating systems are left out. What only folders, archives and tables need is imported when one is named, so
that a few files are answered at once.
"""

import glob
import os
import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hangtag.data.picture_facts import Skipped
from hangtag.data.store.containers import (
    Bucket,
    Container,
    Folder,
    Listing,
    ParquetColumn,
    Sample,
    Zip,
    ZipSpans,
    archive_listing,
    is_junk,
)
from hangtag.data.store.remote import below, is_address, is_folder, open_address, size_at, walk, without_query
from hangtag.errors import DataError, DataNotFound, HangtagError, StoreError, UsageError
from hangtag.files import saving, user_path
from hangtag.pictures import PICTURE_ENDINGS
from hangtag.words import amount, first_few, visible

if TYPE_CHECKING:
    from hangtag.data.tables import BytesInParquet

__all__ = ["Listed", "PictureList", "list_each", "list_pictures", "places_in"]

_ENDINGS = tuple(f".{ending}" for ending in ("zip", "tar", "tgz", "tar.gz", "tbz2", "tar.bz2", "txz", "tar.xz"))
_SHARDS = (*_ENDINGS, ".parquet", ".pq")
_OF_JOB = "_manifest.json"  # beside the answers of a job of `prediction/job.py`
_PIECE, _SAMPLED = 1 << 20, 200  # bytes of a download; rows that say what a column holds
_MOST_OTHERS = 100  # files of other kinds whose names are kept
_NOT_IN_NAMES = re.compile(rb"[\x01-\x08\x0e-\x1f\x7f]|\A\xff\xd8\xff")  # control characters, which images begin with
_BEGINNING = 1 << 12  # bytes of standard input that say whether it is an image


class Listed(NamedTuple):
    """A picture that was found.

    Attributes:
        name: for the user.
        container, key: where its bytes are.
        size: bytes; None if unknown.
        problem: why it cannot be read and what to do, if that is known already.
    """

    name: str
    container: Container
    key: Any
    size: int | None = None
    problem: tuple[str, str] | None = None


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


def list_pictures(
    places: Iterable[str | os.PathLike[str]],
    folder: Path,
    image_column: str | None = None,
    root: Path | None = None,
    refuse: bool = True,
) -> PictureList:
    """List the pictures of all places, one place after the other; arguments and errors as for `list_each`."""
    found = PictureList()
    numbers: dict[int, int] = {}  # of containers, by identity
    for name, container, key, _, problem in list_each(places, folder, image_column, root, found.notes, refuse):
        if id(container) not in numbers:
            numbers[id(container)] = len(found.containers)
            found.containers.append(container)
        if problem is not None:
            found.problems[len(found.samples)] = problem
        found.samples.append(Sample(name, numbers[id(container)], key))
    return found


def list_each(
    places: Iterable[str | os.PathLike[str]],
    folder: Path,
    image_column: str | None = None,
    root: Path | None = None,
    notes: list[str] | None = None,
    refuse: bool = True,
    in_place: bool = False,
) -> Iterator[Listed]:
    """Find the pictures of all places, one place after the other; of a folder tree, one folder at a time is in memory.

    Args:
        places: files, folders, patterns such as "photos/*.jpg", zip and tar files, tables. A file that does not exist
            is listed, so that it has a row with an error.
        folder: an empty folder for archives that must be unpacked and pictures that are cells of a table.
        image_column, root: of tables: the column of pictures, and the folder to which its paths are relative.
        notes: a list to which sentences about what was left out are added.
        refuse: whether a place that has no picture or cannot be read is an error; False: it is listed with a problem.
        in_place: whether members of zip files can be read without the directory of the file.

    Raises:
        DataError: a place has no picture, or cannot be read.
        UsageError: a place is empty, or there is none.
    """
    finder = _Finder(folder, image_column, root, [] if notes is None else notes, in_place)
    for name in places:
        place = os.fspath(name)
        try:
            yield from finder.place(place)
        except HangtagError as error:
            if refuse or isinstance(error, StoreError):
                raise
            problem = (error.message.removeprefix(f"{place}: "), error.hint)
            yield Listed(place, finder.here, None, None, problem)
    if finder.is_empty:
        raise UsageError("no pictures were named", "name files, folders, archives or tables")


def places_in(content: bytes, folder: Path | None) -> list[str]:
    """The places that standard input names, or the one file that it is.

    Args:
        content: names, one on each line, or separated by zero bytes as `find -print0` writes them; or an image, which
            is written to a file.
        folder: for that file, an empty one; None: an image is refused.

    Raises:
        UsageError: there is no name, or an image without a folder.
        SaveError: the file cannot be written.
    """
    if _NOT_IN_NAMES.search(content, 0, _BEGINNING):
        if folder is None:
            raise UsageError("standard input is an image, which cannot be read a second time", "name its file instead")
        file = folder / "standard input"
        with saving(file):
            file.write_bytes(content)
        return [str(file)]
    lines = content.split(b"\0") if b"\0" in content else content.splitlines()
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise UsageError(
            "standard input holds neither names nor an image",
            "for example: find photos -name '*.jpg' | hangtag predict last -",
        )
    return names


class _Finder:
    """Finds pictures; arguments as for `list_each`."""

    def __init__(
        self, folder: Path, image_column: str | None, root: Path | None, notes: list[str], in_place: bool
    ) -> None:
        self.folder, self.image_column, self.root, self.notes = folder, image_column, root, notes
        self.in_place, self.spans = in_place, ZipSpans("")
        self.here = Folder(str(Path.cwd()))
        self.count = 0  # of files written to the folder
        self.is_empty = True

    def place(self, place: str) -> Iterator[Listed]:
        self.is_empty = False
        path = user_path(place)
        if is_address(place) and not path.exists():
            yield from self._address(place)
            return
        matches = _matching(str(path)) if glob.has_magic(place) and not os.path.lexists(path) else [str(path)]
        for match in matches:
            yield from self._file(match)

    def _file(self, place: str) -> Iterator[Listed]:
        path, name = Path(place), place.lower()
        if path.is_dir():
            yield from self._tree(path, place)
        elif name.endswith(_ENDINGS) and path.is_file():
            yield from self._archive(str(path.absolute()), place)
        elif not name.endswith(PICTURE_ENDINGS) and path.is_file() and _is_table(name):
            yield from self._table(path)
        else:
            yield Listed(path.name if path.parent == self.folder else place, self.here, place)

    def _address(self, address: str) -> Iterator[Listed]:
        place = without_query(address)
        if place.startswith("file://"):
            yield from self._file(place.removeprefix("file://"))
        elif is_folder(address):
            yield from self._bucket(address)
        else:
            yield from self._object(address)

    def _object(self, address: str) -> Iterator[Listed]:
        """The pictures of one file at an address."""
        place = without_query(address)
        name = place.lower()
        if name.endswith(_ENDINGS):
            yield from self._archive(address, place)
        elif not name.endswith(PICTURE_ENDINGS) and _is_table(name):
            yield from self._table_at(address)
        else:
            folder, _, key = place.rpartition("/")
            yield Listed(place, Bucket(address.replace(place, folder, 1)), key, size_at(address))

    def _bucket(self, address: str) -> Iterator[Listed]:
        """The pictures below an address."""
        container, lead = Bucket(address), without_query(address).rstrip("/")
        files = (
            (entry.name, entry.name, entry.size)
            for entry in walk(address)
            if not any(is_junk(part) for part in entry.name.split("/"))
        )
        images, count, others = yield from _images_among(files, container, lead)
        if not images and (shards := _shards_in(others)):
            self._note_shards(lead, shards)
            for name in shards:
                yield from self._object(below(address, name))
            return
        if not images:
            found = f", but files such as {visible(others[0])}" if others else ""
            raise DataError(f"{lead}: no images found{found}", "name a place that holds images")
        self._note(lead, Listing(), others, count)

    def _archive(self, path: str, place: str) -> Iterator[Listed]:
        container, listing = archive_listing(path, self._new())
        for each in self._listed(container, listing, place):
            if isinstance(container, Zip) and self.in_place:
                yield each._replace(container=self._spans_of(container), key=container.span(each.key))
            else:
                yield each

    def _spans_of(self, archive: Zip) -> Container:
        if self.spans.path != archive.path:
            self.spans = ZipSpans(archive.path)
        return self.spans

    def _table_at(self, address: str) -> Iterator[Listed]:
        """The pictures of a table at an address: bytes stay there; a table of paths is downloaded."""
        from hangtag.data.tables import bytes_in_parquet

        place = without_query(address)
        if place.lower().endswith((".parquet", ".pq")):
            found = bytes_in_parquet(address, self.image_column)
            if found is not None:
                yield from _rows_of(address, place, found)
                return
        copy = self._new().with_suffix(Path(place).suffix)
        with open_address(address) as file, saving(copy), copy.open("wb") as out:
            while piece := file.read(_PIECE):
                out.write(piece)
        beside = address.replace(place, place.rpartition("/")[0], 1)
        yield from self._table(copy, place, beside if self.root is None else None)

    def _tree(self, path: Path, place: str) -> Iterator[Listed]:
        """The pictures in a folder and its subfolders."""
        container, listing = Folder(str(path.absolute())), Listing()
        files = ((entry.name, entry.key, entry.size) for entry in container.files(listing))
        images, count, others = yield from _images_among(files, container, place.rstrip("/"))
        if not images and (shards := _shards_in(others)):
            self._note_shards(place, shards)
            for name in shards:
                yield from self._file(f"{place.rstrip('/')}/{name}")
        elif not images:  # perhaps there are only hidden folders
            yield from self._listed(container, container.listing(), place)
        else:
            self._note(place, listing, others, count)

    def _listed(self, container: Container, listing: Listing, place: str) -> Iterator[Listed]:
        """The pictures among files that were all listed."""
        from hangtag.data.folder_layout import is_picture_name
        from hangtag.data.manifest import found_instead

        entries = [entry for entry in listing.entries if is_picture_name(entry.name)]
        if not entries:
            raise DataError(
                f"{place}: no images found{found_instead(listing, listing.skipped)}", "name a folder that holds images"
            )
        others = [entry.name for entry in listing.entries if not is_picture_name(entry.name)]
        self._note(place, listing, others, len(others))
        lead = place.rstrip("/")
        for entry in entries:
            yield Listed(f"{lead}/{entry.name}", container, entry.key, entry.size)

    def _note(self, place: str, listing: Listing, others: list[str], count: int) -> None:
        """What was left out of a folder or archive."""
        from hangtag.data.describe import counted

        notes = [*listing.notes, *listing.notes_on_own()]
        if listing.skipped:
            notes.append(f"set aside: {counted(listing.skipped)}")
        inside = _shards_in(others)
        if others:
            notes.append(f"{amount(count, 'file')} of other kinds left out, such as {visible(others[0])}")
        if inside:
            notes.append(
                f"{amount(len(inside), 'file')} (archives, Parquet) left out, because there are image files; to read "
                f"them, name them, too: {visible(inside[0])}"
            )
        self.notes += [f"{place}: {note}" for note in notes]

    def _note_shards(self, place: str, shards: list[str]) -> None:
        """What is read of a folder without image files."""
        from hangtag.data.tables_in_folder import missing_shards

        self.notes.append(
            f"{place}: no image files; images read from {amount(len(shards), 'file')} (archives, Parquet)"
        )
        if missing := missing_shards(shards):
            self.notes.append(f"{place}: numbered files are missing: {visible(first_few(missing))}")

    def _table(self, path: Path, place: str = "", beside: str | None = None) -> Iterator[Listed]:
        """The pictures of a table.

        Args:
            place: its name for the user, if that is not its path.
            beside: the address to which its paths are relative, if it came from one.
        """
        from hangtag.data.columns import find_image_column
        from hangtag.data.folder_layout import refuse
        from hangtag.data.manifest import pictures_of
        from hangtag.data.tables import bytes_in_parquet, read_table, with_images_of_pixels

        place = place or str(path)
        if path.suffix.lower() in (".parquet", ".pq"):
            found = bytes_in_parquet(str(path), self.image_column)
            if found is not None:
                yield from _rows_of(str(path.absolute()), place, found)
                return
        table = with_images_of_pixels(read_table([path], self.root), refuse)
        column = find_image_column(table, refuse, self.image_column)
        values = table.columns.get(column, ())
        if beside is not None or any(isinstance(value, str) and is_address(value) for value in values[:_SAMPLED]):
            yield from _addresses(_written(values), place, beside, self.root)
            return
        wanted, container, _, missing, notes = pictures_of(table, column, [None] * table.rows, self._new(), refuse)
        self.notes += [f"{place}: {note}" for note in (*table.notes, *notes)]
        if isinstance(container, Folder):
            container = Folder(str(Path(container.root).absolute()))
            names = [str(value) for value in _written(table.columns[column])]
        else:
            names = [f"{place}: row {row}" for row in range(1, table.rows + 1)]
        reasons = iter(missing)
        for name, each in zip(names, wanted, strict=True):
            if each is None:
                yield Listed(name, container, None, None, _why_missing(next(reasons)))
            else:
                yield Listed(name, container, each.key)

    def _new(self) -> Path:
        """A file that does not exist yet."""
        self.count += 1
        return self.folder / f"{self.count:06d}"


def _images_among(
    files: Iterable[tuple[str, Any, int]], container: Container, lead: str
) -> Generator[Listed, None, tuple[int, int, list[str]]]:
    """The images among files of a name, key and size; returns their number, that of other files, and some of those.

    A file of an unknown kind, such as LICENSE, counts as an image unless there are archives or Parquet files instead of
    images.
    """
    from hangtag.data.folder_layout import is_picture_name

    images, count, others = 0, 0, list[str]()
    unknown = list[Listed]()  # before the first image
    for name, key, size in files:
        if is_picture_name(name) and not name.lower().endswith(_SHARDS):
            unknown.append(Listed(f"{lead}/{name}", container, key, size))
            if images or name.lower().endswith(PICTURE_ENDINGS) or len(unknown) > _MOST_OTHERS:
                images += len(unknown)
                yield from unknown
                unknown.clear()
        else:
            count += 1
            if len(others) < _MOST_OTHERS or name.lower().endswith(_SHARDS) or _is_of_job(name):
                others.append(name)
    if not _shards_in(others):
        images += len(unknown)
        yield from unknown
    return images, count, others


def _shards_in(names: list[str]) -> list[str]:
    """The archives and Parquet files among the files of a folder.

    As in other programs, names that begin with _ or . are not data. Folders of answers that hangtag wrote are left out.
    """
    answers = tuple(name.removesuffix(_OF_JOB) for name in names if _is_of_job(name))
    found = [name for name in names if name.lower().endswith(_SHARDS) and not name.startswith(answers)]
    return [name for name in found if not any(part[0] in "._" for part in name.split("/"))]


def _is_of_job(name: str) -> bool:
    return name.rpartition("/")[2] == _OF_JOB


def _rows_of(path: str, place: str, found: "BytesInParquet") -> Iterator[Listed]:
    """The pictures in a column of bytes of a Parquet file."""
    container, row = ParquetColumn([path], found.column, found.inner), 0
    for group, (rows, size) in enumerate(found.groups):
        for number in range(rows):
            row += 1
            yield Listed(f"{place}: row {row}", container, [0, group, number], size // rows)


def _addresses(values: Sequence[Any], place: str, beside: str | None, root: Path | None) -> Iterator[Listed]:
    """The pictures of a table that names addresses, or paths below one."""
    buckets: dict[str, Bucket] = {}
    query = (beside or "").partition("?")[2]
    lead = without_query(beside) if beside else None
    for row, value in enumerate(values, 1):
        text = "" if value is None else str(value).strip()
        if not is_address(text):
            if not text or lead is None:
                problem = _why_missing(Skipped(text, "", "row: no address"))
                yield Listed(text or f"{place}: row {row}", Folder(str(root or Path.cwd())), None, None, problem)
                continue
            text = f"{lead}/{text.lstrip('/')}"
        scheme, _, rest = text.partition("://")
        host, _, key = rest.partition("/")
        base = f"{scheme}://{host}" + (f"?{query}" if query else "")
        yield Listed(text, buckets.setdefault(base, Bucket(base)), key)


def _matching(pattern: str) -> list[str]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - a path of any kind, also an absolute one
    if "**" in pattern:  # it matches the files in the folders, too
        matches = [match for match in matches if not Path(match).is_dir()]
    if not matches:
        raise DataNotFound(f"{pattern}: no file matches this pattern", "check the folder and the pattern")
    return matches


def _is_table(name: str) -> bool:
    from hangtag.data.tables import TABLE_ENDINGS

    return name.endswith(TABLE_ENDINGS)


def _written(values: Sequence[Any]) -> list[Any]:
    """Paths as a table writes them."""
    return [value.get("path") if isinstance(value, dict) else value for value in values]


def _why_missing(skipped: Skipped) -> tuple[str, str]:
    if skipped.name in ("None", ""):
        return "the cell is empty", "fill it, or leave out the row"
    return skipped.reason.partition(": ")[2] or skipped.reason, "check the path, or give its folder: --root FOLDER"
