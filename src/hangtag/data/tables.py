"""A table -> the columns of its pictures, labels and parts: CSV, TSV, JSON lines, Parquet, frames.

Columns are recognised by their content, or named by the user. This module reads tables, not pictures.
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

__all__ = ["Columns", "Table", "find_columns", "label_names", "paths_of", "read_table", "table_of_frame"]

_LABELS = ("label", "labels", "class", "class_name", "classname", "label_name", "category", "target", "species", "y")
_IMAGES = ("image", "img", "picture", "photo", "path", "file", "filename", "file_name", "image_path", "filepath", "x")
_PARTS = ("split", "part", "set", "subset", "partition", "usage", "fold_name")
_LOOKED_AT = 200  # rows
_MOSTLY = 0.9
_MOST_CLASSES = 1000  # a column with more different values is not taken for labels, unless it is named
_MOST_BESIDE = 50  # folders beside a table that are searched for its pictures
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}


@dataclass
class Table:
    """Columns of equal length, the table's name, and the folder in which its relative paths start.

    Attributes:
        parquet: the container and the key of each row, for columns that stay in their files.
        class_names: the names that the table itself gives to the numbers of a column.
        parts: the part that a row's file is named after, or None.
        beside: folders in the root, which may hold the pictures.
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
        """The folder that these paths are relative to: the root, or the one folder in `beside` with the first path."""
        first = _first_text(values)
        if first is None or _exists(self.root, first):
            return self.root
        folders = [folder for folder in self.beside if _exists(folder, first)]
        own = [folder for folder in folders if Path(folder).name == Path(self.where).stem]
        return own[0] if own else folders[0] if len(folders) == 1 else self.root


@dataclass(frozen=True)
class Columns:
    """The names of the columns; the part is None for undivided data."""

    image: str
    label: str
    part: str | None = None


# --- reading ---------------------------------------------------------------------------------------------------


def read_table(paths: Sequence[Path], root: Path | None = None) -> Table:
    """One table from one file or, for Parquet, many.

    Raises:
        DataError: a file is empty or does not have the format of its ending.
    """
    first = paths[0]
    ending = first.suffix.lower()
    start = str(root if root is not None else first.parent)
    try:
        if ending in (".parquet", ".pq"):
            table = _parquet(paths, start)
        elif ending in _SEPARATORS:
            table = _csv(first, start, _SEPARATORS[ending])
        elif ending in (".jsonl", ".ndjson", ".json"):
            table = _json(first, start)
        else:
            raise DataError(f"{first}: not a table that hangtag can read", "it reads .csv, .tsv, .jsonl and .parquet")
    except UnicodeDecodeError as error:
        raise DataError(f"{first}: not UTF-8 text (byte {error.start})", "save the table as UTF-8") from error
    except OSError as error:
        raise DataError(f"{first}: cannot be read: {error.strerror}", "check the file") from error
    if not table.rows:
        raise DataError(f"{first}: the table has no rows", "it needs a header and a row for each image")
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
        raise DataError(f"{where} has no rows", "give a row for each image")
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
            raise DataError(f"{path}: not a table: {error}", "save it as CSV again") from error
    rows = [row for row in rows if row]
    if not rows:
        raise DataError(f"{path}: the table is empty", "it needs a header and a row for each image")
    if any(name.lower().endswith(PICTURE_ENDINGS) for name in rows[0]):  # a picture, not a header
        rows.insert(0, [""] * len(rows[0]))
    names = [name.strip() or f"column {number}" for number, name in enumerate(rows[0], 1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{path}: two columns are named {twice}", "give each column its own name")
    for number, row in enumerate(rows[1:], 2):
        if len(row) > len(names):
            raise DataError(f"{path}: row {number} has {len(row)} values for {len(names)} columns", "correct this row")
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
        raise DataError(f"{path}: {at}not JSON: {error}", "write one object for each image") from error
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
    pictures: dict[str, tuple[str | None, list[Any]]] = {}
    parts: list[str | None] = []
    names: dict[str, list[str]] = {}
    rows = 0
    for place, path in enumerate(paths):
        try:
            file = pyarrow.parquet.ParquetFile(path)
            schema = file.schema_arrow
            inside = {each.name: _picture_field(each.type, pyarrow.types) for each in schema}
            plain = [name for name, field_name in inside.items() if field_name is None]
            content = file.read(columns=plain)
        except PermissionError:
            raise DataError(f"{path}: permission denied", "check the permissions") from None
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} is not a complete Parquet file: {error}", "download or make it again") from error
        if place and [*columns, *pictures] != [*plain, *(name for name in inside if name not in plain)]:
            raise DataError(f"{path}: its columns differ from those of {paths[0]}", "give all files the same columns")
        for name in plain:
            columns.setdefault(name, []).extend(content.column(name).to_pylist())
        keys = [
            [place, group, row]
            for group in range(file.metadata.num_row_groups)
            for row in range(file.metadata.row_group(group).num_rows)
        ]
        for name, field_name in inside.items():
            if field_name is not None:
                pictures.setdefault(name, (field_name or None, []))[1].extend(keys)
        names |= _class_names(schema.metadata or {})
        parts += [_part_of_file(path)] * len(keys)
        rows += len(keys)
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0].parent} ({len(paths)} Parquet files)"
    containers = {
        name: (ParquetColumn([str(path) for path in paths], name, inner), keys)
        for name, (inner, keys) in pictures.items()
    }
    return Table(where, root, dict(columns), rows, dict(containers), names, parts if any(parts) else None)


def _picture_field(kind: Any, types: Any) -> str | None:
    """The field that holds bytes: "" for a column of bytes, a name for a struct, None for anything else."""
    if types.is_binary(kind) or types.is_large_binary(kind):
        return ""
    if types.is_struct(kind):
        for each in kind:
            if each.name == "bytes" and (types.is_binary(each.type) or types.is_large_binary(each.type)):
                return "bytes"
    return None


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The class names that dataset hubs write for columns of numbers."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: each["names"] for name, each in features.items() if isinstance(each, dict) and each.get("names")}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _part_of_file(path: Path) -> str | None:
    return PART_NAMES.get(path.stem.lower().split("-")[0].split("_")[0])


# --- finding columns -------------------------------------------------------------------------------------------


def find_columns(table: Table, choose: Choose, image: str | None = None, label: str | None = None) -> Columns:
    """The columns of the pictures, labels and parts.

    Raises:
        UnknownName: a column that the user named does not exist.
        DataError: no column is plausible.
        UsageError: two columns are equally plausible, and `choose` cannot decide.
    """
    every = [*table.columns, *table.parquet]
    for name in (image, label):
        if name is not None and name not in every:
            raise UnknownName.among(f"column of {table.where}:", name, every)
    part = next((name for name in table.columns if name.lower() in _PARTS and _holds_parts(table.columns[name])), None)
    if image is None:
        images = [name for name in every if name != label and (name in table.parquet or _holds_pictures(table, name))]
        image = _choose_column(images, _IMAGES, "images", "--image-column", table, choose)
    if label is None:
        others = [name for name in table.columns if name not in (image, part)]
        named = [name for name in others if name.lower() in _LABELS]
        labels = named or [name for name in others if _holds_labels(table.columns[name])]
        label = _choose_column(_without_doubles(table, labels), (), "labels", "--label-column", table, choose)
    return Columns(image, label, part)


def label_names(table: Table, column: str) -> tuple[list[str | None], list[Skipped]]:
    """The label of each row as a name, or None; and the rows without a label, as skipped.

    Raises:
        DataError: no row has a label, or labels mix names and numbers.
    """
    values = [_plain(value) for value in table.columns[column]]
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        raise DataError(f"{table.where}: column {column} is empty", "fill it, or name another: --label-column")
    if len(kinds) > 1 or kinds & {list, dict, float}:
        first = {type(value).__name__: value for value in reversed(values) if value is not None}
        examples = ", ".join(f"{kind} ({value!r})" for kind, value in sorted(first.items()))
        raise DataError(
            f"{table.where}: labels in column {column} must be all names or all whole numbers, got {examples}",
            "convert them, or name another column: --label-column",
        )
    names_of = dict(enumerate(table.class_names.get(column, ())))
    skipped = [
        Skipped(f"row {row + 1}", "no label", f"column {column} is empty in this row")
        for row, value in enumerate(values)
        if value is None
    ]
    return [None if value is None else names_of.get(value, str(value)) for value in values], skipped


def paths_of(table: Table, column: str) -> tuple[Folder, list[tuple[str, int, int] | None]]:
    """The files that a column names: their folder, and name, size and stamp of each row's file, None if it is missing.

    Raises:
        DataError: most of them do not exist.
    """
    values = [_plain(value) for value in table.columns[column]]
    values = [value.get("path") if isinstance(value, dict) else value for value in values]
    root = table.home(values)
    ending = _missing_ending(root, values)
    files: list[tuple[str, int, int] | None] = []
    for value in values:
        status = _stat(os.path.join(root, f"{value}{ending}")) if value is not None else None  # noqa: PTH118
        files.append((f"{value}{ending}", status.st_size, status.st_mtime_ns) if status else None)
    missing = [str(value) for value, file in zip(values, files, strict=True) if file is None]
    if 2 * len(missing) > len(values):
        raise DataError(
            f"{table.where}: {len(missing):,} of {len(values):,} images were not found under "
            f"{os.path.abspath(root)}: {', '.join(missing[:3])}",  # noqa: PTH100
            "give their folder: --root FOLDER; or name another column: --image-column",
        )
    return Folder(root), files


def _choose_column(
    names: list[str], preferred: Sequence[str], content: str, option: str, table: Table, choose: Choose
) -> str:
    if not names:
        columns = ", ".join([*table.columns, *table.parquet])
        raise DataError(
            f"{table.where}: no column contains {content}; its columns are {columns}", f"name one: {option} NAME"
        )
    best = [name for name in names if name.lower() in preferred]
    for only in (names, best):
        if len(only) == 1:
            return only[0]
    answers = [(name, f"column {name}: {_examples(table, name)}") for name in names]
    return choose(f"{table.where}: which column contains the {content}? ({option})", answers)


def _examples(table: Table, name: str) -> str:
    if name in table.parquet:
        return "bytes"
    return ", ".join(value[:40] for value in list(dict.fromkeys(map(str, table.columns[name][:_LOOKED_AT])))[:3])


def _without_doubles(table: Table, names: list[str]) -> list[str]:
    """Of columns with the same content (a number and a name for each class) the one with names."""
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
    if sum(text.lower().endswith(PICTURE_ENDINGS) for text in texts) >= _MOSTLY * len(texts):
        return True
    root = table.home(texts)
    ending = _missing_ending(root, texts)
    files = sum(_stat(os.path.join(root, text + ending)) is not None for text in texts)  # noqa: PTH118
    return files >= _MOSTLY * len(texts)


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
    if any(isinstance(value, (float, bytes, dict, list)) for value in plain):
        return False
    known = {value for value in plain if isinstance(value, (str, int))}
    return 2 <= len(known) <= min(_MOST_CLASSES, max(2, len(values) // 2))


def _holds_parts(values: Sequence[Any]) -> bool:
    known = {str(value).strip().lower() for value in values if _plain(value) is not None}
    return bool(known) and known <= PART_NAMES.keys()


def _missing_ending(root: str, values: Sequence[Any]) -> str:
    """The ending that files have and names in the table lack, such as .png; "" if they lack none."""
    first = _first_text(values)
    if first is None or _stat(os.path.join(root, first)) is not None:  # noqa: PTH118
        return ""
    for ending in PICTURE_ENDINGS:
        for written in (ending, ending.upper()):
            if _stat(os.path.join(root, first + written)) is not None:  # noqa: PTH118
                return written
    return ""


def _first_text(values: Sequence[Any]) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)


def _exists(folder: str, name: str) -> bool:
    """Whether there is such a file, with a picture's ending or without."""
    return _stat(os.path.join(folder, name)) is not None or _missing_ending(folder, [name]) != ""  # noqa: PTH118


def _stat(path: str) -> os.stat_result | None:
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    return status if not os.path.isdir(path) else None  # noqa: PTH112


def _plain(value: Any) -> Any:
    """None for a missing value; NumPy's numbers as Python's; whole floats as integers."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None if math.isnan(value) else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value
