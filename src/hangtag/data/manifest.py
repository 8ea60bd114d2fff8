"""A folder, an archive, a table or a frame -> the list of its pictures, where each is, and its label.

Nothing is decoded here. A manifest has a digest that changes when its source is edited.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hangtag.data.choose_size import Size
from hangtag.data.folder_layout import PART_NAMES, Choose, is_picture_name, layout_of
from hangtag.data.labelled_images import PARTS
from hangtag.data.picture_facts import Skipped
from hangtag.data.store.containers import Container, Folder, Listing, Spans, settle, stamp_of
from hangtag.data.store.pool import Sample
from hangtag.data.tables import Table, find_columns, label_names, paths_of
from hangtag.errors import DataError, UsageError
from hangtag.files import saving, write_all
from hangtag.pictures import encode_png, picture_bytes
from hangtag.progress import Progress

__all__ = ["Answers", "Manifest", "ReadOptions", "from_listing", "from_pairs", "from_table", "refuse"]

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz", ".7z", ".rar")


def refuse(question: str, answers: Sequence[tuple[str, str]]) -> str:
    """Raise an error that names every choice, because nobody can be asked the question.

    Raises:
        UsageError: always.
    """
    choices = "; or ".join(f"'{answer}': {meaning}" for answer, meaning in answers)
    raise UsageError(f"{question} {choices}", "choose one of them")


class Answers:
    """Asks each question once, and knows what was answered: data decoded with other answers is other data."""

    def __init__(self, choose: Choose = refuse) -> None:
        self.choose = choose
        self.given: dict[str, tuple[Sequence[tuple[str, str]], str]] = {}  # answers on offer, and the one chosen

    def __call__(self, question: str, answers: Sequence[tuple[str, str]]) -> str:
        if question not in self.given:
            self.given[question] = answers, self.choose(question, answers)
        return self.given[question][1]

    def to_json(self) -> list[Any]:
        return [[question, list(answers), answer] for question, (answers, answer) in self.given.items()]

    def are_as(self, asked: list[Any]) -> bool:
        """Whether these questions have the same answers again."""
        return all(self(question, [(it, why) for it, why in answers]) == answer for question, answers, answer in asked)


@dataclass(frozen=True)
class ReadOptions:
    """How the user wants data to be read (see `read`); None where an option was not given."""

    image_column: str | None = None
    label_column: str | None = None
    root: Path | None = None
    classes: str | None = None
    group_by: str | None = None
    size: Size = field(default_factory=Size)
    choose: Choose = refuse
    progress: Progress | None = None

    def key(self) -> tuple[object, ...]:
        """Everything that changes what is read, for a name in the cache."""
        return (*self._texts().values(), self.size)

    def refuse(self, where: object, only_for: str, *names: str) -> None:
        """Raise UsageError if one of these options was given for a form of data that it does not apply to."""
        _refuse(where, only_for, {name: value for name, value in self._texts().items() if name in names})

    def refuse_all(self, where: object, only_for: str) -> None:
        """Raise UsageError if any option was given, except the spec of a model."""
        _refuse(where, only_for, self._texts() | self.size.options())

    def _texts(self) -> dict[str, str | None]:
        names = ("image_column", "label_column", "root", "classes", "group_by")
        return {name: None if (value := getattr(self, name)) is None else str(value) for name in names}


def _refuse(where: object, only_for: str, options: dict[str, str | None]) -> None:
    for name, value in options.items():
        if value is not None:
            option = f"--{name.replace('_', '-')} {value}".rstrip()
            raise UsageError(f"{where}: {option} does not apply", f"this option is for {only_for}; leave it out")


@dataclass
class Manifest:
    """Pictures with a label each, in the order in which they were listed.

    Attributes:
        name, kind: the name of the set, and how it was read, in a few words.
        wanted, containers: the N pictures, and where their bytes are.
        labels, parts, groups: N each; a part is None for undivided data, and groups are None without `group_by`.
        digest: changes when a row or a file of a table is edited; empty for a listing, which has its own.
        skipped: what was set aside without decoding it.
        notes: what was found while listing, in sentences.
        answers: the questions that were asked while listing.
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
    notes: list[str] = field(default_factory=list)
    answers: Answers = field(default_factory=Answers)

    def by_part(self) -> "Manifest":
        """The same, sorted by part, so that each part is one piece of the array of decoded pictures.

        In divided data, a picture without a part is for training. Undivided data stays as it is.
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


def from_listing(container: Container, listing: Listing, where: Path, options: ReadOptions, kind: str) -> Manifest:
    """Pictures whose folders name their class and part.

    Raises:
        DataError: there are no pictures, or they are not in class folders.
        UsageError: the folders can be read in two ways.
    """
    inside = [entry.name for entry in listing.entries if entry.name.lower().endswith(_ARCHIVES)]
    skipped = listing.skipped + [Skipped(name, "archive", "read this archive separately") for name in inside]
    entries = [entry for entry in listing.entries if is_picture_name(entry.name)]
    if not entries:
        more = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise DataError(f"{where}: no images found{more}", "it must contain one folder of images per class")
    names = [entry.name for entry in entries]
    layout = layout_of(names, str(where), options.choose, options.classes)
    return Manifest(
        where.resolve().name if where.is_dir() else where.stem.removesuffix(".tar"),
        f"{kind}, {layout.description}" if kind else layout.description,
        [Sample(entry.name, 0, entry.key) for entry in entries],
        [container],
        list(layout.labels),
        list(layout.parts),
        _groups_by_name(names, options.group_by),
        "",
        skipped,
        listing.notes,
    )


def from_table(table: Table, name: str, options: ReadOptions, folder: Path) -> Manifest:
    """Pictures of a table's rows.

    Args:
        folder: where pictures that exist only in memory are written to a file.

    Raises:
        DataError, UsageError: columns are missing, empty, mixed or equally plausible, or files do not exist.
    """
    columns = find_columns(table, options.choose, options.image_column, options.label_column)
    labels, skipped = label_names(table, columns.label)
    wanted, container, marks, missing = _pictures(table, columns.image, folder)
    skipped += missing
    parts = _parts_of(table, columns.part)
    groups = _groups_by_column(table, options.group_by, [each.name if each else "" for each in wanted])
    keep = [row for row, each in enumerate(wanted) if each is not None and labels[row] is not None]
    digest = hashlib.sha256(json.dumps(container.to_json()).encode())
    for mark in marks:
        digest.update(f"{mark}\n".encode("utf-8", "surrogateescape"))
    kind = f"a table with the columns '{columns.image}' and '{columns.label}'"
    return Manifest(
        name,
        f"{kind}, parts by '{columns.part}'" if columns.part else kind,
        [each for row in keep if (each := wanted[row]) is not None],
        [container],
        [str(labels[row]) for row in keep],
        [parts[row] for row in keep],
        None if groups is None else [groups[row] for row in keep],
        digest.hexdigest(),
        skipped,
    )


def from_pairs(pairs: Sequence[tuple[Any, Any]], options: ReadOptions, folder: Path) -> Manifest:
    """A list of (picture, label)."""
    for place, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"item {place} of the list is not a pair", "give (image, label) for each item")
    columns: dict[str, Sequence[Any]] = {"image": [pair[0] for pair in pairs], "label": [pair[1] for pair in pairs]}
    table = Table("the list", ".", columns, len(pairs))
    manifest = from_table(table, "list", ReadOptions("image", "label", group_by=options.group_by), folder)
    manifest.kind = "a list of images and labels"
    return manifest


def _pictures(
    table: Table, column: str, folder: Path
) -> tuple[list[Sample | None], Container, list[str], list[Skipped]]:
    """The picture of each row or None; the container; marks that an edit changes; the rows without a picture."""
    if column in table.parquet:
        container, keys = table.parquet[column]
        stamps = []
        for path in getattr(container, "paths", []):
            status = Path(path).stat()
            settle(status.st_ctime_ns)
            stamps.append(f"{status.st_size} {stamp_of(path, status)}")
        return [Sample(f"row {row + 1}", 0, key) for row, key in enumerate(keys)], container, stamps, []
    if any(not isinstance(value, str) and value is not None for value in table.columns[column]) and not all(
        (isinstance(value, dict) and not value.get("bytes")) or value is None for value in table.columns[column]
    ):
        return _in_one_file(table.columns[column], folder / "pictures")
    folder_of_files, files = paths_of(table, column)
    wanted = [Sample(file[0], 0, file[0]) if file else None for file in files]
    missing = [
        Skipped(str(value), "no such file", f"row {row}: not found under {folder_of_files.root}")
        for row, (value, file) in enumerate(zip(table.columns[column], files, strict=True), 1)
        if file is None
    ]
    return wanted, folder_of_files, _stamps(folder_of_files, [file[0] for file in files if file]), missing


def _stamps(folder: Folder, names: list[str]) -> list[str]:
    listing = Listing()
    for name in names:
        path = Path(folder.root, name)
        listing.add(str(path), name, path.stat())
    settle(listing.newest)
    return [f"{name} {size} {stamp}" for name, size, stamp, _ in listing.entries]


def _in_one_file(values: Sequence[Any], path: Path) -> tuple[list[Sample | None], Container, list[str], list[Skipped]]:
    """Pictures in memory, written one after another into a file, from which they are read like all other pictures."""
    wanted: list[Sample | None] = []
    marks, missing = [], []
    with saving(path):
        opened = path.open("wb", buffering=0)
    with opened as file:
        for row, value in enumerate(values):
            try:
                content = _content(value)
            except DataError as error:
                wanted.append(None)
                missing.append(Skipped(f"row {row + 1}", "no image", error.message))
                continue
            wanted.append(Sample(f"row {row + 1}", 0, [file.tell(), len(content)]))
            marks.append(hashlib.sha256(content).hexdigest())
            with saving(path):
                write_all(file.fileno(), content)
    return wanted, Spans(str(path)), marks, missing


def _content(value: Any) -> bytes:
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, np.ndarray):
        return encode_png(value) if value.dtype == np.uint8 and value.ndim in (2, 3) else picture_bytes(value)
    return picture_bytes(value)


def _parts_of(table: Table, column: str | None) -> list[str | None]:
    if column is None:
        return table.parts or [None] * table.rows
    return [None if value is None else PART_NAMES.get(str(value).strip().lower()) for value in table.columns[column]]


def _groups_by_name(names: Sequence[str], group_by: str | None) -> list[str] | None:
    if group_by is None:
        return None
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UsageError(
            f"--group-by {group_by!r} is not a regular expression: {error}", "for example: '([^/]+)_'"
        ) from None
    matches = [pattern.search(name) for name in names]
    if not any(matches):
        raise UsageError(
            f"--group-by {group_by!r} matches none of the names; the first is {names[0]}", "correct the expression"
        )
    return [
        name if match is None else str(match.group(1) if match.groups() else match.group())
        for name, match in zip(names, matches, strict=True)
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
        raise UsageError(f"{error.message}, and no column has this name", hint) from None
