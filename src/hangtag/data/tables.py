"""A table -> which column holds the pictures, which the labels, which the parts: CSV, TSV, JSON lines, Parquet, frames.

Columns are found by what is in them, or named by the user. It reads tables, not pictures.
"""

import contextlib
import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hangtag.data.folder_layout import PART_NAMES, PICTURE_ENDINGS, Choose
from hangtag.data.picture_facts import Skipped
from hangtag.data.store.containers import Container, Folder, ParquetColumn, need_pyarrow
from hangtag.errors import DataError, UnknownName

__all__ = ["Columns", "FoundFiles", "Table", "find_columns", "label_names", "paths_of", "read_table", "table_of_frame"]

_LABELS = ("label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "species", "y")
_IMAGES = ("image", "img", "picture", "photo", "path", "file", "filename", "file_name", "image_path", "filepath", "x")
_PARTS = ("split", "part", "set", "subset", "partition", "usage", "fold_name")
_LOOKED_AT = 200  # rows
_MOSTLY = 0.9
_MOST_CLASSES = 1000  # a column of more different values is no label, unless it is named
_MOST_BESIDE = 50  # folders beside a table that are looked into for its pictures
_KINDS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


@dataclass
class Table:
    """Columns of equal length, what the table is called, and where its relative paths start.

    Attributes:
        parquet: for a column that stays in its files, how to get at it: the container and a key for each row.
        class_names: for a column of numbers, the names that the table itself gives them.
        parts: for each row the part that its file's name says, or None.
        beside: folders in the root, where its pictures may lie as well.
    """

    where: str
    root: str
    columns: dict[str, Sequence[Any]]
    rows: int
    parquet: dict[str, tuple[Container, list[Any]]] = field(default_factory=dict)
    class_names: dict[str, list[str]] = field(default_factory=dict)
    parts: list[str | None] | None = None
    beside: tuple[str, ...] = ()

    def home(self, values: Sequence[Any]) -> str:
        """Where these paths start: the table's root, or the one folder beside the table in which the first one is."""
        first = next((value for value in values if isinstance(value, str) and value), None)
        if first is None or _is_there(self.root, first):
            return self.root
        found = [folder for folder in self.beside if _is_there(folder, first)]
        own = [folder for folder in found if Path(folder).name == Path(self.where).stem]
        return own[0] if own else found[0] if len(found) == 1 else self.root


@dataclass(frozen=True)
class Columns:
    """The names of the columns; part and group only where there are some."""

    image: str
    label: str
    part: str | None = None


@dataclass(frozen=True)
class FoundFiles:
    """Files that a column of paths names: key and stamp for each row, None where there is no such file."""

    container: Folder
    keys: list[str | None]
    sizes: list[int]
    stamps: list[int]


# --- reading ---------------------------------------------------------------------------------------------------


def read_table(paths: Sequence[Path], root: Path | None = None) -> Table:
    """One table of one or, for Parquet, many files.

    Raises:
        DataError: it cannot be read as what its name says, or is empty.
    """
    first = paths[0]
    ending = first.suffix.lower()
    start = str(root if root is not None else first.parent)
    try:
        if ending in (".parquet", ".pq"):
            table = _parquet(paths, start)
        elif ending in _KINDS:
            table = _csv(first, start, _KINDS[ending])
        elif ending in (".jsonl", ".ndjson", ".json"):
            table = _json(first, start)
        else:
            raise DataError(f"{first}: not a table hangtag can read", "tables end in .csv, .tsv, .jsonl or .parquet")
    except UnicodeDecodeError as error:
        raise DataError(f"{first}: not UTF-8 text (byte {error.start})", "save the table as UTF-8") from error
    except OSError as error:
        raise DataError(f"{first}: cannot be read: {error.strerror}", "check the file") from error
    if not table.rows:
        raise DataError(f"{first}: the table has no rows", "a header, then a row for each picture")
    if root is None:
        with contextlib.suppress(OSError):
            folders = sorted(str(each) for each in first.parent.iterdir() if each.is_dir())
            table.beside = tuple(folders) if len(folders) <= _MOST_BESIDE else ()
    return table


def table_of_frame(frame: Any, root: Path | None = None, where: str = "the frame") -> Table:
    """A pandas or polars DataFrame, or a mapping from names to columns."""
    names = [str(name) for name in (frame.keys() if isinstance(frame, Mapping) else frame.columns)]
    columns: dict[str, Sequence[Any]] = {}
    for name, given in zip(names, frame.keys() if isinstance(frame, Mapping) else frame.columns, strict=True):
        column = frame[given]
        columns[name] = column.tolist() if hasattr(column, "tolist") else list(column)
    rows = len(next(iter(columns.values()), ()))
    if not rows:
        raise DataError(f"{where} has no rows", "give a row for each picture")
    return Table(where, str(root or "."), columns, rows)


def _csv(path: Path, root: str, separator: str) -> Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline()
        if separator == "," and head.count(";") > head.count(","):
            separator = ";"
        elif separator == "," and head.count("\t") > head.count(","):
            separator = "\t"
        file.seek(0)
        try:
            rows = list(csv.reader(file, delimiter=separator))
        except csv.Error as error:
            raise DataError(f"{path}: not a table: {error}", "save it anew as CSV") from error
    rows = [row for row in rows if row]
    if not rows:
        raise DataError(f"{path}: the table is empty", "a header, then a row for each picture")
    if any(name.lower().endswith(PICTURE_ENDINGS) for name in rows[0]):  # a picture, no header
        rows.insert(0, [""] * len(rows[0]))
    names = [name.strip() or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two columns are called {twice}", "give each column its own name")
    for number, row in enumerate(rows[1:], 2):
        if len(row) > len(names):
            raise DataError(f"{path}: row {number} has {len(row)} values for {len(names)} columns", "mend this row")
    filled = [row + [""] * (len(names) - len(row)) for row in rows[1:]]
    return Table(
        str(path), root, {name: [row[place] for row in filled] for place, name in enumerate(names)}, len(filled)
    )


def _json(path: Path, root: str) -> Table:
    text = path.read_text(encoding="utf-8-sig")
    number = 0
    try:
        if path.suffix.lower() == ".json":
            rows = json.loads(text)
        else:
            rows = []
            for line in text.splitlines():
                number += 1
                if line.strip():
                    rows.append(json.loads(line))
    except ValueError as error:
        at = f"line {number}: " if number else ""
        raise DataError(f"{path}: {at}not JSON: {error}", "one object for each picture") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: not a list of objects", 'for example: {"image": "1.png", "label": "cat"}')
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(str(path), root, {name: [row.get(name) for row in rows] for name in names}, len(rows))


def _parquet(paths: Sequence[Path], root: str) -> Table:
    need_pyarrow()
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types

    columns: dict[str, list[Any]] = {}
    kept: dict[str, tuple[str | None, list[Any]]] = {}
    parts: list[str | None] = []
    names: dict[str, list[str]] = {}
    rows = 0
    for place, path in enumerate(paths):
        try:
            file = pyarrow.parquet.ParquetFile(path)
            schema = file.schema_arrow
            inside = {each.name: _picture_field(each.type, pyarrow.types) for each in schema}
            plain = [name for name, found in inside.items() if found is None]
            read = file.read(columns=plain)
        except PermissionError:
            raise DataError(f"{path}: may not be read", "check the permissions") from None
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path}: not a whole Parquet file: {error}", "download or make it again") from error
        if place and [*columns, *kept] != [*plain, *(name for name in inside if name not in plain)]:
            raise DataError(f"{path}: has other columns than {paths[0]}", "files of one table have the same columns")
        for name in plain:
            columns.setdefault(name, []).extend(read.column(name).to_pylist())
        keys = [
            [place, group, row]
            for group in range(file.metadata.num_row_groups)
            for row in range(file.metadata.row_group(group).num_rows)
        ]
        for name, found in inside.items():
            if found is not None:
                kept.setdefault(name, (found or None, []))[1].extend(keys)
        names |= _class_names(schema.metadata or {})
        parts += [_part_of_file(path)] * len(keys)
        rows += len(keys)
    if not rows:
        raise DataError(f"{paths[0]}: the table has no rows", "a row for each picture")
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} Parquet files)"
    stays = {
        name: (ParquetColumn([str(path) for path in paths], name, inner), keys) for name, (inner, keys) in kept.items()
    }
    return Table(where, root, dict(columns), rows, dict(stays), names, parts if any(parts) else None)


def _picture_field(kind: Any, types: Any) -> str | None:
    """ "" for a column of bytes, the field's name for a struct that holds bytes, None for anything else."""
    if types.is_binary(kind) or types.is_large_binary(kind):
        return ""
    if types.is_struct(kind):
        for each in kind:
            if each.name == "bytes" and (types.is_binary(each.type) or types.is_large_binary(each.type)):
                return "bytes"
    return None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """Names that dataset hubs write for columns of numbers."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: each["names"] for name, each in features.items() if isinstance(each, dict) and each.get("names")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _part_of_file(path: Path) -> str | None:
    return PART_NAMES.get(path.stem.lower().split("-")[0].split("_")[0])


# --- understanding ---------------------------------------------------------------------------------------------


def find_columns(table: Table, choose: Choose, image: str | None = None, label: str | None = None) -> Columns:
    """Which columns hold what.

    Raises:
        UnknownName: a column that was named is not there.
        DataError: no column can be it.
        UsageError: two are equally plausible, and there is nobody to ask.
    """
    every = [*table.columns, *table.parquet]
    for name in (image, label):
        if name is not None and name not in every:
            raise UnknownName.among(f"column of {table.where}:", name, every)
    part = next((name for name in table.columns if name.lower() in _PARTS and _holds_parts(table.columns[name])), None)
    if image is None:
        found = [name for name in every if name != label and (name in table.parquet or _holds_pictures(table, name))]
        image = _one(found, _IMAGES, "pictures", "--image-column", table, choose)
    if label is None:
        others = [name for name in table.columns if name not in (image, part)]
        named = [name for name in others if name.lower() in _LABELS]
        found = named or [name for name in others if _holds_labels(table.columns[name])]
        label = _one(_without_doubles(table, found), (), "labels", "--label-column", table, choose)
    return Columns(image, label, part)


def label_names(table: Table, column: str) -> tuple[list[str | None], list[Skipped]]:
    """For each row the name of its label, None where it has none, which is also said.

    Raises:
        DataError: no row has a label, or they are names here and numbers there.
    """
    values = [_plain(value) for value in table.columns[column]]
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        raise DataError(f"{table.where}: column {column} is empty", "fill it, or name another: --label-column")
    if len(kinds) > 1 or kinds & {list, dict, float}:
        first = {type(value).__name__: value for value in reversed(values) if value is not None}
        said = ", ".join(f"{kind} ({value!r})" for kind, value in sorted(first.items()))
        raise DataError(f"{table.where}: labels in column {column} are {said}", "all names, or all whole numbers")
    known = table.class_names.get(column)
    names: list[str | None] = []
    skipped = []
    for row, value in enumerate(values):
        if value is None:
            skipped.append(Skipped(f"row {row + 1}", "no label", f"column {column} is empty here"))
        names.append(known[value] if known and isinstance(value, int) and 0 <= value < len(known) else _text(value))
    return names, skipped


def paths_of(table: Table, column: str) -> FoundFiles:
    """The files that a column names, relative to the table's root.

    Raises:
        DataError: most of them do not exist; says how many, the first three, and where it looked.
    """
    values = [_plain(value) for value in table.columns[column]]
    values = [value.get("path") if isinstance(value, dict) else value for value in values]
    root = table.home(values)
    ending = _missing_ending(root, values)
    keys: list[str | None] = []
    sizes, stamps, missing = [], [], []
    for value in values:
        key = f"{value}{ending}" if value is not None else None
        status = _stat(os.path.join(root, key)) if key else None  # noqa: PTH118
        if status is None:
            missing.append(str(value))
        keys.append(key if status else None)
        sizes.append(status.st_size if status else 0)
        stamps.append(status.st_mtime_ns if status else 0)
    if 2 * len(missing) > len(values):
        raise DataError(
            f"{table.where}: {len(missing):,} of {len(values):,} pictures do not exist, looked for under "
            f"{os.path.abspath(root)}: {', '.join(missing[:3])}",  # noqa: PTH100
            "say where they are: --root FOLDER; or name another column: --image-column",
        )
    return FoundFiles(Folder(root), keys, sizes, stamps)


def _one(found: list[str], preferred: Sequence[str], what: str, option: str, table: Table, choose: Choose) -> str:
    if not found:
        columns = ", ".join([*table.columns, *table.parquet])
        raise DataError(f"{table.where}: no column holds {what}; there are {columns}", f"name it: {option} NAME")
    if len(found) == 1:
        return found[0]
    best = [name for name in found if name.lower() in preferred]
    if len(best) == 1:
        return best[0]
    answers = [(name, f"column {name}: {', '.join(_examples(table, name))}") for name in found]
    return choose(f"{table.where}: which column holds the {what}? ({option})", answers)


def _examples(table: Table, name: str) -> list[str]:
    if name in table.parquet:
        return ["bytes"]
    return [str(value)[:40] for value in list(dict.fromkeys(map(str, table.columns[name][:_LOOKED_AT])))[:3]]


def _without_doubles(table: Table, names: list[str]) -> list[str]:
    """Of columns that say the same (a number and a name for each class) the one with names."""
    kept: list[str] = []
    for name in sorted(
        names, key=lambda each: any(isinstance(v, str) and not v.isdigit() for v in table.columns[each]), reverse=True
    ):
        values = list(map(str, table.columns[name]))
        same = any(
            len(set(zip(values, map(str, table.columns[other]), strict=True)))
            == len(set(values))
            == len(set(map(str, table.columns[other])))
            for other in kept
        )
        if not same:
            kept.append(name)
    return [name for name in names if name in kept]


def _holds_pictures(table: Table, name: str) -> bool:
    values = [value for value in table.columns[name][:_LOOKED_AT] if _plain(value) is not None]
    if not values:
        return False
    if all(_is_picture(value) for value in values):
        return True
    texts = [value for value in values if isinstance(value, str)]
    if len(texts) < len(values):
        return False
    by_name = sum(text.lower().endswith(PICTURE_ENDINGS) for text in texts)
    if by_name >= _MOSTLY * len(texts):
        return True
    root = table.home(texts)
    ending = _missing_ending(root, texts)
    there = sum(_stat(os.path.join(root, text + ending)) is not None for text in texts)  # noqa: PTH118
    return there >= _MOSTLY * len(texts)


def _is_picture(value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(value.get("bytes"), bytes) or isinstance(value.get("path"), str)
    return (
        isinstance(value, (bytes, os.PathLike))
        or (hasattr(value, "shape") and getattr(value, "ndim", 0) > 1)
        or (hasattr(value, "convert") and hasattr(value, "getexif"))
    )


def _holds_labels(values: Sequence[Any]) -> bool:
    plain = [_plain(value) for value in values]
    known = {value for value in plain if isinstance(value, (str, int, bool))}
    if len(known) + sum(value is None for value in plain) < 1 or any(
        isinstance(v, (float, bytes, dict, list)) for v in plain
    ):
        return False
    return 2 <= len(known) <= min(_MOST_CLASSES, max(2, len(values) // 2))


def _holds_parts(values: Sequence[Any]) -> bool:
    known = {str(value).strip().lower() for value in values if _plain(value) is not None}
    return bool(known) and known <= PART_NAMES.keys()


def _missing_ending(root: str, values: Sequence[Any]) -> str:
    """The ending that names in the table lack and files have, such as .png; "" in all other cases."""
    first = next((value for value in values if isinstance(value, str) and value), None)
    if first is None or _stat(os.path.join(root, first)) is not None:  # noqa: PTH118
        return ""
    for ending in PICTURE_ENDINGS:
        for written in (ending, ending.upper()):
            if _stat(os.path.join(root, first + written)) is not None:  # noqa: PTH118
                return written
    return ""


def _is_there(folder: str, name: str) -> bool:
    """Whether there is such a file, with an ending or without."""
    return _stat(os.path.join(folder, name)) is not None or _missing_ending(folder, [name]) != ""  # noqa: PTH118


def _stat(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status if not os.path.isdir(path) else None  # noqa: PTH112


def _plain(value: Any) -> Any:
    """None for what stands for nothing; NumPy's numbers as Python's; whole floats as whole numbers."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None if math.isnan(value) else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
