"""A folder, an archive, a table or a frame -> the list of its pictures, where each is, and its label.

Nothing is decoded here. A manifest has a digest that changes when its source is edited.
"""

import difflib
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hangtag.data.choose_size import Size
from hangtag.data.columns import (
    Columns,
    Division,
    division_of,
    find_columns,
    groups_in_several,
    label_names,
    no_labels,
    notes_on_shared_groups,
    notes_on_unused,
    said_parts,
)
from hangtag.data.describe import counted
from hangtag.data.folder_layout import Choose, is_picture_name, layout_of, refuse
from hangtag.data.labelled_images import PARTS
from hangtag.data.parts import part_in_file_name, part_named
from hangtag.data.picture_facts import NO_CLASS, Skipped
from hangtag.data.store.containers import Container, Folder, Listing, Sample, Spans, settle, stamp_of
from hangtag.data.table_paths import locate, moved, part_in_path, plain_path, status_of
from hangtag.data.tables import Table, plain_value, with_images_of_pixels
from hangtag.errors import DataError, UsageError
from hangtag.files import saving, write_all
from hangtag.pictures import picture_bytes
from hangtag.progress import Progress
from hangtag.words import amount, first_few, listed, visible

__all__ = [
    "ARCHIVES",
    "Answers",
    "Manifest",
    "ReadOptions",
    "found_instead",
    "from_listing",
    "from_pairs",
    "from_tables",
    "pictures_of",
]

_BLANKS = {"none", "null", "na", "n/a", "nan", "-", "?"}
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".tbz2", ".bz2", ".txz", ".xz", ".7z", ".rar")


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
    split_column: str | None = None
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

    def arrays(self) -> tuple[Choose, str | None, str | None]:
        """How to choose among the arrays of a file: `choose`, and the names of the images and labels, if given."""
        return self.choose, self.image_column, self.label_column

    def _texts(self) -> dict[str, str | None]:
        names = ("image_column", "label_column", "split_column", "root", "classes", "group_by")
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
        notes: what was decided about the listing, in sentences.
        answers: what was answered to a question, as an option of `read`.
        asked: the questions that were asked while listing.
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
    answers: dict[str, str] = field(default_factory=dict)
    asked: Answers = field(default_factory=Answers)

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
    inside = [entry.name for entry in listing.entries if entry.name.lower().endswith(ARCHIVES)]
    skipped = listing.skipped + [Skipped(name, "archive", "read this archive separately") for name in inside]
    entries = [entry for entry in listing.entries if is_picture_name(entry.name)]
    if not entries:
        raise DataError(
            f"{where}: no images found{found_instead(listing, skipped)}",
            "it must contain one folder of images per class, or a table of them; a file of arrays must be named itself",
        )
    names = [entry.name for entry in entries]
    if any(name.endswith(".cls") for name in names) and not any("/" in name for name in names):
        raise DataError(
            f"{where}: the labels are in .cls files beside the images (WebDataset), which hangtag does not read",
            "unpack it, and put each image into a folder named after its class",
        )
    answers: list[str] = []

    def choose(question: str, choices: Sequence[tuple[str, str]]) -> str:
        answers.append(options.choose(question, choices))
        return answers[-1]

    layout = layout_of(names, str(where), choose, options.classes)
    groups = _groups_by_name(names, options.group_by)
    keep = [row for row, label in enumerate(layout.labels) if label is not None]
    parts = [layout.parts[row] for row in keep]
    skipped += [
        Skipped(name, NO_CLASS, "it is not in a class folder, or is named like a mask")
        for name, label in zip(names, layout.labels, strict=True)
        if label is None
    ]
    return Manifest(
        where.resolve().name if where.is_dir() else where.stem.removesuffix(".tar"),
        f"{kind}, {layout.description}" if kind else layout.description,
        [Sample(names[row], 0, entries[row].key) for row in keep],
        [container],
        [label for label in layout.labels if label is not None],
        parts,
        None if groups is None else [groups[row] for row in keep],
        "",
        skipped,
        [
            *listing.notes,
            *([] if isinstance(container, Folder) else listing.notes_on_own()),
            *_notes_on_empty(listing, names),
            *map(visible, layout.notes),
            *_notes_on_groups(None if groups is None else [groups[row] for row in keep], parts, options.group_by),
            *(f"read as with --classes {answer}, as you answered" for answer in answers),
        ],
        {"classes": answers[0]} if len(answers) == 1 else {},
    )


def found_instead(listing: Listing, skipped: Sequence[Skipped]) -> str:
    """What is in a place without images, as the end of a sentence."""
    more = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
    if listing.own:
        more += f"; hangtag wrote {first_few(listing.own)}, and does not read it"
    endings = Counter(os.path.splitext(entry.name)[1].lower() or "other" for entry in listing.entries)  # noqa: PTH122
    there = [f"{count:,} {ending} {'file' if count == 1 else 'files'}" for ending, count in endings.most_common(3)]
    return more + (f"; it contains {listed(there)}" if there else "")


def _notes_on_empty(listing: Listing, names: Sequence[str]) -> list[str]:
    """A note on folders without pictures beside folders with pictures."""
    full = {name.rpartition("/")[0] for name in names}
    beside = {folder.rpartition("/")[0] for folder in full if folder}
    every = {entry.name.rpartition("/")[0] for entry in listing.entries} | set(listing.empty)
    empty = [
        folder
        for folder in every - full
        if folder and folder.rpartition("/")[0] in beside and not any(each.startswith(f"{folder}/") for each in full)
    ]
    return [f"folders without images: {visible(first_few(sorted(empty)))}"] if empty else []


def from_tables(tables: Sequence[Table], name: str, options: ReadOptions, folder: Path) -> Manifest:
    """Pictures of the rows of one table, or of several that are a part each, such as train.csv and test.csv.

    Args:
        folder: where pictures that exist only in memory are written to a file.

    Raises:
        DataError, UsageError: columns are missing, empty, mixed or equally plausible, or files do not exist.
    """
    tables = sorted(tables, key=lambda table: PARTS.index(table.part) if table.part in PARTS else len(PARTS))
    tables = [with_images_of_pixels(table, options.choose) for table in tables]
    named = (options.image_column, options.label_column)
    divisions = [division_of(table, options.choose, options.split_column, named) for table in tables]
    model, columns = _first_with_labels(tables, divisions, options)
    found: list[Manifest] = []
    notes: list[str] = []
    for number, (table, division) in enumerate(zip(tables, divisions, strict=True)):
        own = columns if table is model else _same_columns(table, columns, division, options)
        if own.label is None and table.part in (None, "train"):
            raise no_labels(table)
        if own.label is None:
            count = amount(table.rows, "image")
            notes.append(f"{table.where} has no labels: {count} left out; classify them with predict")
            continue
        if table.class_names.get(own.label) != model.class_names.get(str(columns.label)):
            raise DataError(
                f"{table.where}: its class names differ from those of {model.where}", "use the same class names in both"
            )
        elsewhere = [value for other in tables if other.is_parquet for value in other.columns.get(own.label, ())]
        found.append(_from_table(table, own, division, name, options, folder / f"pictures-{number}", elsewhere))
        notes += [note for note in found[-1].notes if note not in notes]
        if len(tables) > 1:
            found[-1] = _with_own_names(found[-1], table)
    manifest = _joined(found)
    if len(tables) > 1 and any(table.part for table in tables) and options.split_column is None:
        named_parts = [Path(table.where).name for table in tables if table.part]
        verb = "gives" if len(named_parts) == 1 else "give"
        said = f"{listed(named_parts)} {verb} the split: {said_parts(manifest.parts)}"
        notes.insert(0, f"{said}; --split-column none reads them as one")
        notes += notes_on_shared_groups(tables, (options.group_by, columns.label))
    if len(tables) > 1:
        manifest.kind = manifest.kind.replace("a table", f"{len(tables)} tables", 1)
    manifest.notes = notes + _notes_on_groups(manifest.groups, manifest.parts, options.group_by)
    if not manifest.wanted:
        why = f"{counted(manifest.skipped)}; {manifest.skipped[0].reason}" if manifest.skipped else "all were left out"
        raise DataError(f"{tables[0].where}: no image is left: {why}", "correct the table")
    return manifest


def _first_with_labels(
    tables: Sequence[Table], divisions: Sequence[Division], options: ReadOptions
) -> tuple[Table, Columns]:
    """The first table with labels, and its columns.

    Raises:
        DataError: no table has labels.
    """
    for table, division in zip(tables, divisions, strict=True):
        own = find_columns(table, options.choose, options.image_column, options.label_column, division.columns)
        own = _labelled_by_folders(table, own, division)
        if own.label is not None:
            return table, own
    raise no_labels(tables[0])


def _same_columns(table: Table, other: Columns, division: Division, options: ReadOptions) -> Columns:
    """The columns of a table that have the names of another table's; the label is None if it has none."""
    every = [*table.columns, *table.parquet]
    names = str(other.label).split(", ")
    label = other.label if other.label in every else ",".join(names) if set(names) <= set(every) else None
    if label in table.columns:
        values = [plain for value in table.columns[label] if (plain := plain_value(value)) is not None]
        hides = table.is_parquet or table.class_names.get(label)
        if not values or (hides and all(isinstance(value, int) and value == -1 for value in values)):
            label = None
    image = other.image if other.image in every else options.image_column
    if label is None:
        return _labelled_by_folders(table, Columns(image or "", None), division)
    return find_columns(table, options.choose, image, label, division.columns)


def _labelled_by_folders(table: Table, columns: Columns, division: Division) -> Columns:
    """The columns; the label of a table that gives only the split is the folder of each image."""
    if columns.label is not None or not division.columns or columns.image not in table.columns:
        return columns
    values = table.columns[columns.image]
    folders = [plain_path(value).split("/")[-2:-1] if isinstance(value, str) else [] for value in values]
    labels = [folder[0] if folder and part_named(folder[0]) is None else None for folder in folders]
    if None in labels or len(set(labels)) < 2:
        return columns
    table.columns["folder"] = labels
    table.notes.append(f"{table.where} has no labels; the folders of its images are the classes")
    return Columns(columns.image, "folder")


def _from_table(
    table: Table,
    columns: Columns,
    division: Division,
    name: str,
    options: ReadOptions,
    file: Path,
    elsewhere: Sequence[Any],
) -> Manifest:
    label = str(columns.label)
    stem = Path(table.where).stem
    own = table.part or part_in_file_name(stem) or stem
    words = [part or own for part in division.parts or [None] * table.rows]
    wanted, container, marks, skipped, notes = pictures_of(table, columns.image, words, file, options.choose)
    names = [each.name if each else "" for each in wanted]
    parts = division.parts
    if parts is None and options.split_column is None:
        parts, more = _parts_of_folders(names, columns.image)
        notes += more
    labels = label_names(table, label, parts, elsewhere)
    unlabelled = [row for row, own in enumerate(labels) if own is None]
    tested = [row for row, part in enumerate(parts or ()) if part == "test"]
    if tested and set(tested) <= set(unlabelled):
        notes.append(
            f"the test part has no labels: {amount(len(tested), 'image')} left out; classify them with predict"
        )
        unlabelled = sorted(set(unlabelled) - set(tested))
    skipped += [Skipped(f"row {row + 1}", "no label", f"column {label} is empty in this row") for row in unlabelled]
    groups = _groups_by_column(table, options.group_by, names)
    keep = [
        row
        for row, each in enumerate(wanted)
        if each is not None and labels[row] is not None and (parts is None or parts[row] is not None)
    ]
    digest = hashlib.sha256(json.dumps(container.to_json()).encode())
    for mark in marks:
        digest.update(f"{mark}\n".encode("utf-8", "surrogateescape"))
    kind = f"a table with the columns '{columns.image}' and '{label}'"
    notes = [*table.notes, *division.notes, *notes]
    notes += notes_on_unused(table, label, (columns.image, options.group_by, *division.columns), parts or ())
    return Manifest(
        name,
        f"{kind}, parts by {listed([repr(each) for each in division.columns])}" if division.columns else kind,
        [each for row in keep if (each := wanted[row]) is not None],
        [container],
        [str(labels[row]) for row in keep],
        [parts[row] if parts is not None else None for row in keep],
        None if groups is None else [groups[row] for row in keep],
        digest.hexdigest(),
        skipped,
        notes,
    )


def _joined(manifests: Sequence[Manifest]) -> Manifest:
    """The pictures of several tables, one table after the other."""
    first = manifests[0]
    if len(manifests) == 1:
        return first
    starts = np.cumsum([0, *(len(each.containers) for each in manifests)]).tolist()
    return replace(
        first,
        wanted=[
            sample._replace(container=start + sample.container)
            for start, each in zip(starts, manifests, strict=False)
            for sample in each.wanted
        ],
        containers=[container for each in manifests for container in each.containers],
        labels=[label for each in manifests for label in each.labels],
        parts=[part for each in manifests for part in each.parts],
        groups=None if first.groups is None else [group for each in manifests for group in each.groups or ()],
        digest=" ".join(each.digest for each in manifests),
        skipped=[skipped for each in manifests for skipped in each.skipped],
    )


def _with_own_names(manifest: Manifest, table: Table) -> Manifest:
    """Names that differ from those of other tables: paths below the folder of all tables, or rows of this table."""
    container, below = manifest.containers[0], table.files.root if table.files else "."
    lead = f"{Path(table.where).name}: "
    names = [
        str(moved(each.name, container.root, below)) if isinstance(container, Folder) else lead + each.name
        for each in manifest.wanted
    ]
    wanted = [each._replace(name=name) for each, name in zip(manifest.wanted, names, strict=True)]
    skipped = [replace(each, name=lead + each.name) for each in manifest.skipped]
    return replace(manifest, wanted=wanted, skipped=skipped)


def _parts_of_folders(names: Sequence[str], column: str) -> tuple[list[str | None] | None, list[str]]:
    """The parts that the folders of these paths are named after, if there are several, and notes."""
    given = [name for name in names if name]
    mixed = len({os.path.isabs(name) for name in given}) != 1  # noqa: PTH117
    folder = "" if mixed else os.path.commonpath([os.path.dirname(name) for name in given])  # noqa: PTH120
    parts = [part_in_path(name[len(folder) :]) for name in names]
    several = sorted({part for part in parts if part is not None})
    if len(several) > 1:
        said = f"the folders in the column '{column}' give the split: {said_parts(parts)}"
        return parts, [f"{said}; to read all as one part: --split-column none"]
    inside = [*several, *([part_in_path(f"{folder}/")] if not os.path.isabs(folder) else [])]  # noqa: PTH117
    tested = [part for part in inside if part not in (None, "train")]
    said = f"images of the column '{column}' are in a folder named like the {tested[0]} part" if tested else ""
    return None, [f"{said}, but the table gives no split; they are used like all others"] if tested else []


def from_pairs(pairs: Sequence[tuple[Any, Any]], options: ReadOptions, folder: Path) -> Manifest:
    """A list of (picture, label)."""
    for place, pair in enumerate(pairs):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise DataError(f"item {place} of the list is not a pair", "give (image, label) for each item")
    columns: dict[str, Sequence[Any]] = {"image": [pair[0] for pair in pairs], "label": [pair[1] for pair in pairs]}
    table = Table("the list", ".", columns, len(pairs))
    manifest = from_tables([table], "list", ReadOptions("image", "label", "none", group_by=options.group_by), folder)
    manifest.kind = "a list of images and labels"
    return manifest


def pictures_of(
    table: Table, column: str, words: Sequence[str | None], file: Path, choose: Choose
) -> tuple[list[Sample | None], Container, list[str], list[Skipped], list[str]]:
    """The picture of each row or None; the container; marks that an edit changes; rows without a picture; notes."""
    if column in table.parquet:
        container, keys = table.parquet[column]
        stamps = []
        for path in getattr(container, "paths", []):
            status = Path(path).stat()
            settle(status.st_ctime_ns)
            stamps.append(f"{status.st_size} {stamp_of(path, status)}")
        return [Sample(f"row {row + 1}", 0, key) for row, key in enumerate(keys)], container, stamps, [], []
    values = table.columns[column]
    paths = [value.get("path") if isinstance(value, dict) and not value.get("bytes") else value for value in values]
    paths = [value if _in_memory(value) else plain_value(value) for value in paths]
    if any(map(_in_memory, paths)):
        return *_in_one_file(values, file), []
    found = locate(paths, table.root, table.files, words, table.where, column, choose)
    wanted: list[Sample | None] = []
    missing, listing = [], Listing()
    for row, (value, name) in enumerate(zip(paths, found.names, strict=True), 1):
        found_at = status_of(found.folder, name) if name is not None else None
        wanted.append(Sample(name, 0, name) if name is not None and found_at else None)
        if name is not None and found_at:
            listing.add(str(Path(found.folder, name)), name, found_at)
        else:
            missing.append(Skipped(str(value), "no such file", f"row {row}: not found under {table.root}"))
    if 2 * len(missing) > len(values):
        raise DataError(
            f"{table.where}: {len(missing):,} of {len(values):,} images were not found under "
            f"{Path(table.root).absolute()}: {', '.join(each.name for each in missing[:3])}",
            "give their folder: --root FOLDER; or name another column: --image-column",
        )
    settle(listing.newest)
    marks = [f"{name} {size} {stamp}" for name, size, stamp, _ in listing.entries]
    return wanted, Folder(found.folder), marks, missing, list(found.notes)


def _in_memory(value: Any) -> bool:
    return value is not None and not isinstance(value, (str, int, float))


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
    return picture_bytes(value)


def _notes_on_groups(groups: Sequence[str] | None, parts: Sequence[str | None], group_by: str | None) -> list[str]:
    """A note on groups that the data itself has in several parts."""
    shared = groups_in_several(groups or (), parts)
    many = f"{amount(len(shared), 'group')} of {group_by} {'is' if len(shared) == 1 else 'are'} in several parts"
    return [f"{many} of the data: {first_few(shared)}"] if shared else []


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
        (match and (match.group(1) if match.groups() else match.group())) or name
        for name, match in zip(names, matches, strict=True)
    ]


def _groups_by_column(table: Table, group_by: str | None, names: Sequence[str]) -> list[str] | None:
    if group_by is not None and group_by in table.columns:
        return [_group(value, row, group_by) for row, value in enumerate(table.columns[group_by], 1)]
    try:
        return _groups_by_name(names, group_by)
    except UsageError as error:
        near = difflib.get_close_matches(str(group_by), table.columns, n=1)
        offer = f"did you mean the column '{near[0]}'? " if near else ""
        hint = f"{offer}columns: {', '.join(table.columns)}; or {error.hint}"
        raise UsageError(f"{error.message}, and no column has this name", hint) from None


def _group(value: Any, row: int, column: str) -> str:
    """The name of a row's group; a blank is a group of its own."""
    plain = plain_value(value)
    blank = plain is None or str(plain).lower() in _BLANKS
    return f"row {row} (no {column})" if blank else str(plain)
