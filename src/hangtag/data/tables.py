"""A file of a table, or a frame -> its columns: CSV, TSV, JSON lines, Parquet, pandas, polars, mappings.

Tables may come from strangers: their size, depth and width are limited. This module reads tables, not pictures, and
knows no meaning of columns (`columns.py` does), except that columns of pixels become one column of images.
"""

import contextlib
import csv
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hangtag.data.folder_layout import Choose
from hangtag.data.pixel_tables import (
    PIXELS,
    images_of_rows,
    numbers_in,
    picture_of,
    pixel_columns,
    pixel_texts,
    pixels_in,
)
from hangtag.data.store.containers import Container, ParquetColumn
from hangtag.data.store.remote import is_address, need_pyarrow, open_address
from hangtag.data.table_paths import FilesBelow
from hangtag.errors import DataError
from hangtag.pictures import PICTURE_ENDINGS

__all__ = [
    "TABLE_ENDINGS",
    "BytesInParquet",
    "Table",
    "bytes_in_parquet",
    "plain_value",
    "read_table",
    "table_of_frame",
    "with_images_of_pixels",
]

TABLE_ENDINGS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")

_SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_LARGEST = 4_000_000_000  # bytes of a table of text that is read row by row
_LARGEST_JSON = 100_000_000  # bytes of a .json file, which is parsed as a whole into up to 30 times its size
_LONGEST_LINE = 20_000_000  # characters
_MOST_CELLS = 100_000_000  # about 8 GB of text in memory
_MOST_ROWS = 50_000_000  # of a Parquet file, which can repeat one value at no cost


@dataclass
class Table:
    """Columns of equal length, the table's name, and the folder in which its relative paths start.

    Attributes:
        parquet: the container and the key of each row, for columns that stay in their files.
        class_names: the names that the table itself gives to the numbers of a column.
        part: the part that the table's file or folder is named after; "" if others are named so but not this one.
        files: the files below the root, among which paths are searched; None: paths are taken as they are.
        notes: what was decided while reading the table, in sentences.
    """

    where: str
    root: str
    columns: dict[str, Sequence[Any]]
    rows: int
    parquet: dict[str, tuple[Container, list[Any]]] = field(default_factory=dict)
    class_names: dict[str, list[str]] = field(default_factory=dict)
    part: str | None = None
    files: FilesBelow | None = None
    notes: list[str] = field(default_factory=list)
    is_parquet: bool = False


def read_table(paths: Sequence[Path], root: Path | None = None, part: str | None = None, texts: bool = False) -> Table:
    """One table from one file or, for Parquet, many.

    Args:
        root: where relative paths start; None: in the folder of the table.
        part: see `Table`.
        texts: also read columns of lists of texts, of Parquet files.

    Raises:
        DataError: a file is empty, too large, or does not have the format of its ending.
    """
    first = paths[0]
    ending = first.suffix.lower()
    start = str(root if root is not None else first.parent)
    try:
        if ending in (".parquet", ".pq"):
            table = _parquet(paths, start, texts)
        elif ending in _SEPARATORS:
            table = _csv(first, start, _SEPARATORS[ending])
        elif ending in TABLE_ENDINGS:
            table = _json(first, start)
        else:
            raise DataError(f"{first}: not a table that hangtag can read", "it reads .csv, .tsv, .jsonl and .parquet")
    except UnicodeError as error:
        raise _not_utf8(first, error) from error
    except OSError as error:
        raise DataError(f"{first}: cannot be read: {error.strerror}", "check the file") from error
    if not table.rows:
        raise DataError(f"{first}: the table has no rows", "it needs a header and a row for each image")
    table.part, table.files = part, FilesBelow(start)
    return table


def _not_utf8(path: Path, error: UnicodeError) -> DataError:
    """The error for a table in another encoding, with what it says if that is a common one."""
    context = b""
    if isinstance(error, UnicodeDecodeError):
        lines = error.object[: error.end + 80].splitlines()
        context = next((line for line in lines if not line.isascii() or b"\0" in line), b"")
    if context.count(0) > len(context) // 4:
        encoding = "UTF-16LE" if context[1:2] == b"\0" else "UTF-16BE"
        said = f"it seems to be {encoding} without a mark"
    else:
        encoding = "WINDOWS-1252"
        said = f"in Windows-1252 it says {context[:60].decode('cp1252', 'replace').strip()!r}"
    return DataError(
        f"{path}: not UTF-8 text; {said}",
        f"save the table as UTF-8 (in Excel: CSV UTF-8), or convert it: iconv -f {encoding} -t UTF-8 {path.name}",
    )


def table_of_frame(frame: Any, root: Path | None = None, where: str = "the frame") -> Table:
    """A pandas or polars DataFrame, or a mapping from names to columns.

    Raises:
        DataError: there are no rows, two columns have one name, or columns differ in length.
    """
    if hasattr(frame, "to_pydict"):  # a table of pyarrow
        frame = frame.to_pydict()
    given = list(frame.keys() if isinstance(frame, Mapping) else frame.columns)
    names = [str(name) for name in given]
    _refuse_doubles(names, where)
    columns: dict[str, Sequence[Any]] = {}
    for name, key in zip(names, given, strict=True):
        try:
            column = frame[key]
            if isinstance(column, (str, bytes)):
                raise TypeError
            cells = column.tolist() if hasattr(column, "tolist") else list(column)
            columns[name] = [cell.tolist() if getattr(cell, "ndim", 0) == 1 else cell for cell in cells]
            lengths = len(columns[name])
        except (TypeError, KeyError, ValueError, IndexError):
            raise DataError(f"{where}: {name} is not a column", "give a list of values for each column") from None
        if lengths != len(columns[names[0]]):
            raise DataError(
                f"{where}: column {name} has {lengths:,} values, {names[0]} has {len(columns[names[0]]):,}",
                "give a value for each image in every column",
            )
    rows = len(next(iter(columns.values()), ()))
    if not rows:
        raise DataError(f"{where} has no rows", "give a row for each image")
    files = FilesBelow(str(root)) if root else None
    return Table(where, str(root or "."), _without_lists_of_one(columns), rows, files=files)


def _without_lists_of_one(columns: Mapping[str, Sequence[Any]]) -> dict[str, Sequence[Any]]:
    """The columns with each list of one value replaced by the value, where no list of the column holds more."""
    found = dict(columns)
    for name, values in columns.items():
        lengths = {len(value) for value in values if isinstance(value, (list, tuple))}
        if lengths and lengths <= {0, 1}:
            found[name] = [(*value, None)[0] if isinstance(value, (list, tuple)) else value for value in values]
    return found


def plain_value(value: Any) -> Any:
    """None for a missing value; NumPy's numbers as Python's; whole floats as integers."""
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        value = value.item()
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return None if math.isnan(value) else int(value) if value.is_integer() else value
    return None if type(value).__name__ in ("NAType", "NaTType") else value


def with_images_of_pixels(table: Table, choose: Choose) -> Table:
    """The table with its columns of pixels, or its texts of pixels, as one column of images.

    Raises:
        DataError: pixels are missing, are not whole numbers from 0 to 255, or make no square.
        UsageError: the order of colours is unclear, and `choose` cannot decide.
    """
    names = list(table.columns)
    rows: dict[str, NDArray[np.uint8]] = {}
    if isinstance(table.columns.get(PIXELS), np.ndarray):
        rows[PIXELS] = np.asarray(table.columns[PIXELS])
    elif (found := pixel_columns(names)) is not None:
        values = zip(*(table.columns.pop(name) for name in names[slice(*found)]), strict=True)
        rows[PIXELS] = np.stack([pixels_in(cells, table.where, row) for row, cells in enumerate(values, 1)])
    for name, column in table.columns.items():
        if name not in rows and pixel_texts(column):
            parsed = [pixels_in(numbers_in(value) or (), table.where, row) for row, value in enumerate(column, 1)]
            if len({len(each) for each in parsed}) > 1:
                raise DataError(f"{table.where}: column {name}: rows differ in length", "give all images one size")
            rows[name] = np.stack(parsed)
    for name, block in rows.items():
        images, note = images_of_rows(block, table.where, choose)
        table.columns[name] = [picture_of(image) for image in images]
        table.notes.append(f"column {name}: {note}")
    return table


# --- CSV -------------------------------------------------------------------------------------------------------


def _csv(path: Path, root: str, separator: str) -> Table:
    with _text(path, _LARGEST) as file, _long_fields():
        lines = _lines(file, path)
        head = next(lines, "")
        if named := re.fullmatch(r"sep=(.)\s*", head):  # a line for spreadsheets
            separator, head = named[1], next(lines, "")
        else:
            separator = max(dict.fromkeys(separator + ",;\t|"), key=head.count)  # in doubt, that of the file's ending
        reader = csv.reader(chain([head], lines), delimiter=separator)
        try:
            first = next((row for row in reader if row), None)
            if first is None:
                raise DataError(f"{path}: the table is empty", "it needs a header and a row for each image")
            names, data, notes = _header(first, str(path))
            table = _rows_of_csv(chain(data, (row for row in reader if row)), names, path, root)
        except csv.Error as error:
            raise DataError(f"{path}: not a table: {error}", "save it as CSV again") from error
    table.notes += notes
    return table


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """Let a field be as long as a line, because it may hold the pixels of an image."""
    before = csv.field_size_limit(_LONGEST_LINE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _header(first: list[str], where: str) -> tuple[list[str], list[list[str]], list[str]]:
    """The names of the columns, the rows of data in what was read as the header, and notes."""
    if any(name.lower().endswith(PICTURE_ENDINGS) for name in first):  # a picture, not a header
        return [f"column {number}" for number in range(1, len(first) + 1)], [first], []
    if len(first) > 50 and all(cell.strip().isdigit() for cell in first) and len(set(first)) < len(first):
        names = ["label", *(f"pixel{number}" for number in range(len(first) - 1))]
        return names, [first], ["the table has no header; its first column was read as the label"]
    names = [name.strip() or f"column {number}" for number, name in enumerate(first, 1)]
    _refuse_doubles(names, where)
    return names, [], []


def _rows_of_csv(rows: Iterator[list[str]], names: list[str], path: Path, root: str) -> Table:
    start, stop = pixel_columns(names) or (0, 0)
    others = [place for place in range(len(names)) if not start <= place < stop]
    kept: list[list[str]] = [[] for _ in others]
    pixels = bytearray()
    number = 0
    for number, row in enumerate(rows, 1):
        if len(row) > len(names):
            raise DataError(
                f"{path}: row {number + 1} has {len(row)} values for {len(names)} columns", "correct this row"
            )
        if number * len(others) > _MOST_CELLS:
            raise DataError(f"{path}: the table has over {_MOST_CELLS:,} cells", "remove columns that are not needed")
        row.extend([""] * (len(names) - len(row)))
        for place, column in zip(others, kept, strict=True):
            column.append(row[place])
        if stop:
            pixels += pixels_in(row[start:stop], str(path), number + 1).tobytes()
    columns: dict[str, Sequence[Any]] = {names[place]: column for place, column in zip(others, kept, strict=True)}
    if stop:
        columns[PIXELS] = np.frombuffer(bytes(pixels), np.uint8).reshape(number, stop - start)  # type: ignore[assignment]
    return Table(str(path), root, columns, number)


def _refuse_doubles(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DataError(f"{where}: two columns are named {twice}", "give each column its own name")


@contextlib.contextmanager
def _text(path: Path, most: int) -> Iterator[IO[str]]:
    """A text file in UTF-8 or, if it begins with their mark, UTF-16; refused if it is too large."""
    with path.open("rb") as raw:
        start = raw.read(2)
    if (size := path.stat().st_size) > most:
        raise DataError(
            f"{path}: a table of {size / 1e9:.1f} GB is too large (at most {most / 1e9:g} GB)", "use a Parquet file"
        )
    encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    with path.open(encoding=encoding, newline="") as file:
        yield file


def _lines(file: IO[str], path: Path) -> Iterator[str]:
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{path}: a line has over {_LONGEST_LINE:,} characters", "write one line for each image")
        yield line


# --- JSON ------------------------------------------------------------------------------------------------------


def _json(path: Path, root: str) -> Table:
    columns: dict[str, list[Any]] = {}
    rows = 0
    for row in _objects(path):
        if not isinstance(row, dict):
            raise DataError(f"{path}: not a list of objects", 'for example: {"image": "1.png", "label": "cat"}')
        for name, value in row.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (rows - len(column)))
            column.append(value)
        rows += 1
        if len(columns) * rows > _MOST_CELLS:
            raise DataError(f"{path}: over {_MOST_CELLS:,} cells", "remove fields that are not needed")
    for column in columns.values():
        column.extend([None] * (rows - len(column)))
    return Table(str(path), root, _without_lists_of_one(columns), rows)


def _objects(path: Path) -> Iterator[Any]:
    """What the lines of a file, or the list that is the whole file, contain."""
    whole = path.suffix.lower() == ".json"
    with _text(path, _LARGEST_JSON if whole else _LARGEST) as file:
        for number, text in enumerate([file.read()] if whole else _lines(file, path), 1):
            if not text.strip() and not whole:
                continue
            try:
                found = json.loads(text)
            except (ValueError, RecursionError) as error:
                at = "" if whole else f"line {number}: "
                why = "nested too deeply" if isinstance(error, RecursionError) else error
                raise DataError(f"{path}: {at}not JSON: {why}", "write one object for each image") from error
            if whole and isinstance(found, dict) and {"images", "annotations"} <= found.keys():
                raise DataError(
                    f"{path}: annotations of objects in images (COCO), which hangtag does not read",
                    "hangtag learns one class for each image; write a table with an image and a label in each row",
                )
            if whole:
                yield from found if isinstance(found, list) else _rows_of_mapping(found)
            else:
                yield found


def _rows_of_mapping(found: Any) -> list[Any]:
    """The rows of columns as pandas writes them (lists of equal length, or objects by the row), or of image: label."""
    values: list[Any] = list(found.values()) if isinstance(found, dict) else [None]
    if values and all(isinstance(each, (str, int)) for each in values):
        names = sum(name.lower().endswith(PICTURE_ENDINGS) for name in found)
        return [{"image": name, "label": label} for name, label in found.items()] if names == len(values) else [None]
    if values and all(isinstance(each, dict) for each in values):
        if not all(key.isdigit() for key in values[0]):
            return values  # a row under each name
        values = [list(each.values()) if each.keys() == values[0].keys() else None for each in values]
    if not values or not all(isinstance(each, list) and len(each) == len(values[0]) for each in values):
        return [None]
    return [dict(zip(found, row, strict=True)) for row in zip(*values, strict=True)]


# --- Parquet ---------------------------------------------------------------------------------------------------


def _parquet(paths: Sequence[Path], root: str, texts: bool) -> Table:
    need_pyarrow()
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types

    columns: dict[str, list[Any]] = {}
    pictures: dict[str, tuple[str | None, list[Any]]] = {}
    names: dict[str, list[str]] = {}
    rows = cells = 0
    for place, path in enumerate(paths):
        try:
            file = pyarrow.parquet.ParquetFile(path)
            schema = file.schema_arrow
            _refuse_doubles(schema.names, str(path))
            inside = {each.name: _picture_field(each.type, pyarrow.types) for each in schema}
            elsewhere = [name for name in inside if inside[name] and _is_null(file.metadata, f"{name}.{inside[name]}")]
            inside |= dict.fromkeys(elsewhere)  # their pictures are files, named by the field "path"
            plain = [
                each.name for each in schema if inside[each.name] is None and _is_small(each.type, pyarrow.types, texts)
            ]
            rows += file.metadata.num_rows
            cells += _cells(file.metadata, set(plain))
            if cells > _MOST_CELLS or rows > _MOST_ROWS:
                raise DataError(f"{path}: {rows:,} rows with {cells:,} values are too many", "use a part of the table")
            content = file.read(columns=plain)
        except PermissionError:
            raise DataError(f"{path}: permission denied", "check the permissions") from None
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"{path} is not a complete Parquet file: {error}", "download or make it again") from error
        if place and [*columns, *pictures] != [*plain, *(name for name in inside if inside[name] is not None)]:
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
        own = _class_names(schema.metadata or {})
        if place and own != names:
            raise DataError(f"{path}: its class names differ from those of {paths[0]}", "give all files the same names")
        names = own
    where = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1:,} more"
    containers = {
        name: (ParquetColumn([str(path) for path in paths], name, inner), keys)
        for name, (inner, keys) in pictures.items()
    }
    return Table(where, root, _without_lists_of_one(columns), rows, dict(containers), names, is_parquet=True)


class BytesInParquet(NamedTuple):
    """A column of a Parquet file that holds pictures: its name, the field in it, and (rows, bytes) of each group."""

    column: str
    inner: str | None
    groups: list[tuple[int, int]]


def bytes_in_parquet(path: str, wanted: str | None = None) -> BytesInParquet | None:
    """The column of pictures of a Parquet file or address, without reading it; None if there is no single one.

    Args:
        wanted: the column that the user named.

    Raises:
        DataError: it is not a complete Parquet file.
    """
    need_pyarrow()
    import pyarrow
    import pyarrow.parquet
    import pyarrow.types

    try:
        with pyarrow.parquet.ParquetFile(open_address(path) if is_address(path) else path) as file:
            inside = {each.name: _picture_field(each.type, pyarrow.types) for each in file.schema_arrow}
            metadata = file.metadata
            found = [name for name, inner in inside.items()
                     if inner is not None and not (inner and _is_null(metadata, f"{name}.{inner}"))]  # fmt: skip
            if wanted is None and len(found) == 1:
                wanted = found[0]
            if wanted not in found:
                return None
            groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
            return BytesInParquet(
                str(wanted), inside[str(wanted)] or None, [(group.num_rows, group.total_byte_size) for group in groups]
            )
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is not a complete Parquet file: {error}", "download or make it again") from error


def _picture_field(kind: Any, types: Any) -> str | None:
    """The field that holds bytes: "" for a column of bytes, a name for a struct, None for anything else."""
    if types.is_binary(kind) or types.is_large_binary(kind):
        return ""
    if types.is_struct(kind):
        for each in kind:
            if each.name == "bytes" and (types.is_binary(each.type) or types.is_large_binary(each.type)):
                return "bytes"
    return None


def _cells(metadata: Any, names: set[str]) -> int:
    """The number of values in these columns of a Parquet file."""
    count = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        columns = map(group.column, range(group.num_columns))
        count += sum(each.num_values for each in columns if each.path_in_schema.split(".")[0] in names)
    return count


def _is_null(metadata: Any, path: str) -> bool:
    """Whether the statistics of a Parquet file say that a field has no value in any row."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        column: Any = next(each for each in map(group.column, range(group.num_columns)) if each.path_in_schema == path)
        known = column.statistics is not None and column.statistics.has_null_count
        if not known or column.statistics.null_count < column.num_values:
            return False
    return bool(metadata.num_row_groups)


def _is_small(kind: Any, types: Any, texts: bool = False) -> bool:
    """Whether a column is read: not embeddings and other long lists, except of whole numbers, which may be pixels."""
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return bool(types.is_integer(kind.value_type) or (texts and types.is_string(kind.value_type)))
    return not types.is_map(kind)


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
    """The class names that dataset hubs write for columns of numbers."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {
            name: [str(one) for one in each["names"]]
            for name, each in features.items()
            if isinstance(each, dict) and isinstance(each.get("names"), list)
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
