"""Rows -> one Parquet file in memory, and back: the shards of a job of `prediction/job.py`.

A shard says in its metadata what it is part of, and its pages have checksums, so damage and shards of other jobs are
recognised. The same rows give the same bytes with the same version of pyarrow.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hangtag.errors import DataError

__all__ = ["read_shard", "shard_of"]

_KEY = b"hangtag"


def shard_of(columns: Mapping[str, type], rows: Sequence[Sequence[Any]], about: Mapping[str, Any]) -> bytes:
    """A Parquet file of rows, each with a value or None for every column.

    Args:
        columns: their names and types: str, float, bool, or list for several texts.
        about: JSON to keep in its metadata.
    """
    import pyarrow
    import pyarrow.parquet

    types = {str: pyarrow.string(), float: pyarrow.float64(), bool: pyarrow.bool_()}
    types[list] = pyarrow.list_(pyarrow.string())
    fields = [(name, types[kind]) for name, kind in columns.items()]
    schema = pyarrow.schema(fields, {_KEY: json.dumps(about).encode()})
    values = zip(*rows, strict=True) if rows else [()] * len(fields)
    arrays = [_array(list(column), kind) for column, (_, kind) in zip(values, fields, strict=True)]
    buffer = io.BytesIO()
    with pyarrow.parquet.ParquetWriter(buffer, schema, compression="zstd", write_page_checksum=True) as writer:
        writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
    return buffer.getvalue()


def read_shard(content: bytes, place: str) -> tuple[int, dict[str, Any]]:
    """The number of rows of a shard, and what it says about itself, after every page was checked.

    Raises:
        DataError: it is damaged, or `shard_of` did not write it.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as file:
            about = json.loads((file.schema_arrow.metadata or {})[_KEY])
            rows = sum(batch.num_rows for batch in file.iter_batches())
    except (OSError, pyarrow.ArrowException, KeyError, ValueError) as error:
        raise DataError(f"{place}: damaged, or not written by hangtag", "delete it") from error
    if not isinstance(about, dict):
        raise DataError(f"{place}: not written by hangtag", "delete it")
    return rows, about


def _array(values: list[Any], kind: Any) -> Any:
    import pyarrow

    try:
        return pyarrow.array(values, kind)
    except UnicodeEncodeError:  # names of files that are not text
        return pyarrow.array([_plain(value) for value in values], kind)


def _plain(value: Any) -> Any:
    """Text as Unicode; bytes of a file name that are not text become escapes."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
