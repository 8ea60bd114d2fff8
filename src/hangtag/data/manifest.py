"""A folder, an archive, a table or a frame -> which pictures there are, where, and what each is labelled.

Nothing is decoded here. What was found has a digest that changes when any of it is edited.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from hangtag.data.folder_layout import PART_NAMES, Choose, is_picture_name, layout_of
from hangtag.data.labelled_images import PARTS
from hangtag.data.picture_facts import Skipped
from hangtag.data.store.containers import Container, Listing, Spans
from hangtag.data.store.pool import Sample
from hangtag.data.tables import Table, find_columns, label_names, paths_of
from hangtag.errors import DataError, UsageError
from hangtag.pictures import encode_png, picture_bytes

__all__ = [
    "Manifest",
    "ReadOptions",
    "from_listing",
    "from_pairs",
    "from_table",
    "refuse",
    "refuse_needless",
]


def refuse(question: str, answers: Sequence[tuple[str, str]]) -> str:
    """What is asked where nobody can answer: an error that names every answer.

    Raises:
        UsageError: always.
    """
    either = "; or ".join(f"'{answer}': {meaning}" for answer, meaning in answers)
    raise UsageError(f"{question} {either}", "say which of them")


def refuse_needless(where: object, only_for: str, **given: str | None) -> None:
    """Raises UsageError where something was said that means nothing for this form of data."""
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')} {value}".rstrip()
            raise UsageError(f"{where}: {option} means nothing here", f"it is for {only_for}; leave it out")


_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz", ".7z", ".rar")


@dataclass(frozen=True)
class ReadOptions:
    """What the user said about the data beside where it is; None where nothing was said."""

    image_column: str | None = None
    label_column: str | None = None
    root: str | None = None
    classes: str | None = None
    group_by: str | None = None
    choose: Choose = refuse

    def options(self) -> dict[str, str | None]:
        """Everything but who answers, by name."""
        return {name: value for name, value in vars(self).items() if name != "choose"}

    def said(self) -> tuple[str | None, ...]:
        """Everything but who answers."""
        return tuple(self.options().values())


@dataclass
class Manifest:
    """Pictures with a label each, in the order in which they were found.

    Attributes:
        name, kind: what to call the set, and how it was understood, in a few words.
        wanted, containers: the pictures and where their bytes are.
        labels, parts, groups: of each picture; parts None where nothing is said; groups None where none were asked for.
        digest: changes when a row or a file of a table is edited; a listing has its own.
        skipped: what was set aside without decoding it.
    """

    name: str
    kind: str
    wanted: list[Sample]
    containers: list[Container]
    labels: list[str]
    parts: list[str | None]
    groups: list[str] | None
    digest: str
    skipped: list[Skipped]

    def by_part(self) -> "Manifest":
        """The same, part after part, so that each lies in one piece of the array the pictures are decoded into.

        A picture of which no part is said is for training where one is said of others. Without parts nothing moves.
        """
        if not any(self.parts):
            return self
        numbers = np.array([PARTS.index(part or "train") for part in self.parts])
        order = np.argsort(numbers, kind="stable").tolist()
        return replace(
            self,
            wanted=[self.wanted[row] for row in order],
            labels=[self.labels[row] for row in order],
            parts=[self.parts[row] or "train" for row in order],
            groups=None if self.groups is None else [self.groups[row] for row in order],
        )


def from_listing(container: Container, listing: Listing, where: Path, asked: ReadOptions, kind: str) -> Manifest:
    """Pictures whose folders say their class and part.

    Raises:
        DataError: there are none, or they lie in no folders.
        UsageError: folders that can be read in two ways.
    """
    inside = [entry.name for entry in listing.entries if entry.name.lower().endswith(_ARCHIVES)]
    skipped = [*listing.skipped, *(Skipped(name, "archive", "an archive inside: give it by itself") for name in inside)]
    entries = [entry for entry in listing.entries if is_picture_name(entry.name)]
    if not entries:
        more = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise DataError(f"{where}: there are no pictures in it{more}", "a folder for each class, with its pictures")
    names = [entry.name for entry in entries]
    layout = layout_of(names, str(where), asked.choose, asked.classes)
    return Manifest(
        _named_as(where),
        f"{kind}, {layout.in_words}" if kind else layout.in_words,
        [Sample(entry.name, 0, entry.key) for entry in entries],
        [container],
        list(layout.labels),
        list(layout.parts),
        _groups_by_name(names, asked.group_by),
        "",
        skipped,
    )


def _named_as(where: Path) -> str:
    """photos.tar.gz and photos/ are both called photos."""
    if where.is_dir():
        return where.resolve().name
    return where.stem.removesuffix(".tar")


def from_table(table: Table, name: str, asked: ReadOptions, spool: Callable[[], IO[bytes]]) -> Manifest:
    """Pictures of a table's rows.

    Args:
        spool: opens a new file for pictures that are in memory only.

    Raises:
        DataError, UsageError: columns that are missing, empty, mixed or equally plausible; files that do not exist.
    """
    columns = find_columns(table, asked.choose, asked.image_column, asked.label_column)
    labels, skipped = label_names(table, columns.label)
    wanted, container, marks, gone = _pictures(table, columns.image, spool)
    skipped += gone
    parts = _parts_of(table, columns.part)
    groups = _groups_by_column(table, asked.group_by, [each.name if each else "" for each in wanted])
    keep = [row for row, each in enumerate(wanted) if each is not None and labels[row] is not None]
    digest = hashlib.sha256(json.dumps(container.to_json()).encode())
    for mark in marks:
        digest.update(f"{mark}\n".encode("utf-8", "surrogateescape"))
    said = f"the table's columns '{columns.image}' and '{columns.label}'"
    return Manifest(
        name,
        f"{said}, parts by '{columns.part}'" if columns.part else said,
        [each for row in keep if (each := wanted[row]) is not None],
        [container],
        [str(labels[row]) for row in keep],
        [parts[row] for row in keep],
        None if groups is None else [groups[row] for row in keep],
        digest.hexdigest(),
        skipped,
    )


def from_pairs(pairs: Sequence[tuple[Any, Any]], asked: ReadOptions, spool: Callable[[], IO[bytes]]) -> Manifest:
    """A list of (picture, label)."""
    for place, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"item {place} of the list is no pair", "give (picture, label) for each")
    columns: dict[str, Sequence[Any]] = {"image": [pair[0] for pair in pairs], "label": [pair[1] for pair in pairs]}
    table = Table("the list", ".", columns, len(pairs))
    found = from_table(table, "list", ReadOptions("image", "label", group_by=asked.group_by), spool)
    found.kind = "a list of pictures and labels"
    return found


def _pictures(
    table: Table, column: str, spool: Callable[[], IO[bytes]]
) -> tuple[list[Sample | None], Container, list[str], list[Skipped]]:
    """For each row its picture or None; the container; what an edit would change; rows without a picture."""
    if column in table.parquet:
        container, keys = table.parquet[column]
        stamps = []
        for path in getattr(container, "paths", []):
            status = Path(path).stat()
            stamps.append(f"{status.st_size} {status.st_mtime_ns}")
        return [Sample(f"row {row + 1}", 0, key) for row, key in enumerate(keys)], container, stamps, []
    if any(not isinstance(value, str) and value is not None for value in table.columns[column]) and not all(
        (isinstance(value, dict) and not value.get("bytes")) or value is None for value in table.columns[column]
    ):
        return _spooled(table.columns[column], spool())
    found = paths_of(table, column)
    wanted = [Sample(str(key), 0, key) if key is not None else None for key in found.keys]
    marks = [f"{key}\0{size}\0{stamp}" for key, size, stamp in zip(found.keys, found.sizes, found.stamps, strict=True)]
    gone = [
        Skipped(str(table.columns[column][row]), "no such file", f"row {row + 1}: not under {found.container.root}")
        for row, key in enumerate(found.keys)
        if key is None
    ]
    return wanted, found.container, marks, gone


def _spooled(values: Sequence[Any], file: IO[bytes]) -> tuple[list[Sample | None], Container, list[str], list[Skipped]]:
    """Pictures in memory, put one behind the other into a file, from where they take the way of all pictures."""
    wanted: list[Sample | None] = []
    marks, gone = [], []
    with file:
        for row, value in enumerate(values):
            try:
                content = _content(value)
            except DataError as error:
                wanted.append(None)
                gone.append(Skipped(f"row {row + 1}", "no picture", error.message))
                continue
            wanted.append(Sample(f"row {row + 1}", 0, [file.tell(), len(content)]))
            marks.append(hashlib.sha256(content).hexdigest())
            file.write(content)
    return wanted, Spans(str(file.name)), marks, gone


def _content(value: Any) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, np.ndarray):
        return encode_png(value) if value.dtype == np.uint8 and value.ndim in (2, 3) else picture_bytes(value)
    return picture_bytes(value)


def _parts_of(table: Table, column: str | None) -> list[str | None]:
    if column is None:
        return table.parts or [None] * table.rows
    said = [str(value).strip().lower() if value is not None else "" for value in table.columns[column]]
    return [PART_NAMES.get(value) for value in said]


def _groups_by_name(names: Sequence[str], group_by: str | None) -> list[str] | None:
    if group_by is None:
        return None
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(
            f"--group-by {group_by!r}: not a regular expression: {error}", "for example: '([^/]+)_'"
        ) from None
    found = [pattern.search(name) for name in names]
    if not any(found):
        raise UsageError(f"--group-by {group_by!r} matches no name, such as {names[0]}", "mend the expression")
    return [
        name if match is None else str(match.group(1) if match.groups() else match.group())
        for name, match in zip(names, found, strict=True)
    ]


def _groups_by_column(table: Table, group_by: str | None, names: Sequence[str]) -> list[str] | None:
    if group_by is not None and group_by in table.columns:
        return [str(value) for value in table.columns[group_by]]
    try:
        return _groups_by_name(names, group_by)
    except UsageError as error:
        near = difflib.get_close_matches(str(group_by), table.columns, n=1)
        offer = f"did you mean the column '{near[0]}'? " if near else ""
        hint = f"{offer}columns: {', '.join(table.columns)}; or {error.hint}"
        raise UsageError(f"{error.message}, and no column is called so", hint) from None
