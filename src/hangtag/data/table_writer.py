"""Rows -> a CSV, JSON lines or Parquet file, written row by row, and there as a whole or not at all.

`tables.py` reads such files.
"""

import csv
import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hangtag.data.store.remote import need_pyarrow
from hangtag.errors import SaveError, UsageError
from hangtag.files import mode_of_new_files, saving
from hangtag.words import csv_cell

__all__ = ["ENDINGS", "TableWriter", "check_new_table"]

ENDINGS = (".csv", ".jsonl", ".parquet")

_ROWS_AT_ONCE = 4096  # of a Parquet file, in memory
_SEPARATOR = " | "  # between the texts in a cell of a CSV file


def check_new_table(path: Path) -> None:
    """Raise an error unless a table can be written there.

    Raises:
        UsageError: the ending is unknown, or something is there already.
        MissingExtra: it is a Parquet file, and pyarrow is not installed.
        SaveError: its folder does not exist.
    """
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"{path}: the ending must be one of {', '.join(ENDINGS)}", "for example answers.csv")
    if os.path.lexists(path):
        raise UsageError(f"{path}: already exists", "choose another name, or delete it; hangtag overwrites no table")
    if path.suffix.lower() == ".parquet":
        need_pyarrow()
    if not path.absolute().parent.is_dir():
        raise SaveError(f"{path}: its folder does not exist", f"create it: mkdir -p {path.parent}")


class TableWriter:
    """Writes rows; use as a context manager.

    If the block ends with an error, the rows so far are kept as NAME-partial, if there are any and the disk has room.

    Args:
        path: a new file; see `check_new_table`.
        columns: their names and types: str, float, bool, or list for several texts.

    Attributes:
        partial: where the rows of an interrupted table are; None if there are none.
    """

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        check_new_table(path)
        self.path, self.columns, self.rows = path, columns, 0
        self.partial: Path | None = None
        with saving(path):
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        self._temporary = Path(name)
        kinds = {".csv": _Csv, ".jsonl": _JsonLines, ".parquet": _Parquet}
        with saving(path):
            self._file: Any = kinds[path.suffix.lower()](handle, columns)

    def __enter__(self) -> Self:
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """One row; columns that are left out are empty.

        Raises:
            SaveError: the disk is full.
        """
        with saving(self.path):
            self._file.write(row)
        self.rows += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        target = self.path if kind is None else _free(self.path.with_stem(f"{self.path.stem}-partial"))
        try:
            with saving(self.path):
                self._file.close()
                self._temporary.chmod(mode_of_new_files())
                if kind is None or (self.rows and not isinstance(error, SaveError)):
                    check_new_table(target)  # another program may have been quicker
                    self._temporary.rename(target)
                    self.partial = target if kind is not None else None
        except Exception:
            if kind is None:
                raise
        finally:
            self._temporary.unlink(missing_ok=True)


def _free(path: Path) -> Path:
    """The path, or one with a number that does not exist yet."""
    number, stem = 1, path.stem
    while os.path.lexists(path):
        number += 1
        path = path.with_stem(f"{stem}-{number}")
    return path


class _Csv:
    """Several texts share a cell; text that a spreadsheet would take for a formula gets an apostrophe in front."""

    def __init__(self, handle: int, columns: Mapping[str, type]) -> None:
        self.columns = columns
        self.file = io.TextIOWrapper(os.fdopen(handle, "wb"), "utf-8", "backslashreplace", newline="")
        self.writer = csv.writer(self.file, lineterminator="\n")
        self.writer.writerow(columns)

    def write(self, row: Mapping[str, Any]) -> None:
        self.writer.writerow([self._cell(row.get(name), kind) for name, kind in self.columns.items()])

    def close(self) -> None:
        self.file.close()

    @staticmethod
    def _cell(value: Any, kind: type) -> object:
        if kind is list and value is not None:
            value = _SEPARATOR.join(value)
        return csv_cell("yes" if value is True else "no" if value is False else value)


class _JsonLines:
    def __init__(self, handle: int, columns: Mapping[str, type]) -> None:
        self.columns = columns
        self.file = os.fdopen(handle, "wb")

    def write(self, row: Mapping[str, Any]) -> None:
        line = json.dumps({name: row.get(name) for name in self.columns}, ensure_ascii=False, allow_nan=False)
        self.file.write(line.encode("utf-8", "backslashreplace") + b"\n")

    def close(self) -> None:
        self.file.close()


class _Parquet:
    def __init__(self, handle: int, columns: Mapping[str, type]) -> None:
        import pyarrow
        import pyarrow.parquet

        types = {str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_()}
        types[list] = pyarrow.list_(pyarrow.string())
        self.schema = pyarrow.schema([(name, types[kind]) for name, kind in columns.items()])
        self.file = os.fdopen(handle, "wb")
        self.writer = pyarrow.parquet.ParquetWriter(self.file, self.schema)
        self.rows: list[dict[str, Any]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append({name: self._plain(row.get(name)) for name in self.schema.names})
        if len(self.rows) >= _ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.writer.close()
        self.file.close()

    def _flush(self) -> None:
        import pyarrow

        if self.rows:
            self.writer.write_table(pyarrow.Table.from_pylist(self.rows, self.schema))
        self.rows = []

    @staticmethod
    def _plain(value: Any) -> Any:
        """Text as Unicode; bytes of a file name that are not text become escapes."""
        if isinstance(value, list | tuple):
            return [_Parquet._plain(each) for each in value]
        return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
