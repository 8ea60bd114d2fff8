"""Frozen dataclasses as JSON objects: written by field name, and read back with the type of every field checked.

JSON in run folders and model files may come from strangers, so it is read strictly: no NaN, limited in size and depth.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import msgspec
import numpy as np

from hangtag.errors import HangtagError, RunError
from hangtag.files import inside

__all__ = ["Serializable", "checked", "parse_json", "read_json", "read_text"]

_MOST_BYTES = 100_000_000  # the metrics of 3,000 classes
_Checked = TypeVar("_Checked")


def _plain(value: object) -> object:
    """A NumPy number or array as Python's own."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


class Serializable:
    """Base of the dataclasses that model files and run folders hold."""

    FAILURE: ClassVar[type[HangtagError]] = RunError
    HINT: ClassVar[str] = "restore the file, or train again"

    def to_json(self) -> dict[str, Any]:
        """The fields by name, in types that `json.dumps` accepts."""
        fields: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_plain)
        return fields

    @classmethod
    def from_json(cls, value: object, where: str = "") -> Self:
        """Read what `to_json` wrote; unknown keys are ignored, and a missing key takes the field's default.

        Args:
            value: parsed JSON.
            where: the file or part of a file it comes from, for the message.

        Raises:
            RunError: (or the class's `FAILURE`) a field is missing or invalid; the message names it.
        """
        return checked(lambda: msgspec.convert(value, cls), where or cls.__name__, cls.FAILURE, cls.HINT)

    @classmethod
    def read(cls, content: bytes, where: str) -> Self:
        """Read JSON text; see `from_json`."""
        return checked(lambda: msgspec.json.decode(content, type=cls), where, cls.FAILURE, cls.HINT)


def checked(read: Callable[[], _Checked], where: str, failure: type[HangtagError], hint: str) -> _Checked:
    """The result of a function that reads with msgspec; its errors become a `failure` that names the field."""
    try:
        return read()
    except msgspec.ValidationError as error:
        problem, _, field = str(error).partition(" - at `$")
        place = f" (field `{field.lstrip('.')})" if field else ""
        raise failure(f"{where} is invalid: {problem[0].lower()}{problem[1:]}{place}", hint) from None
    except RecursionError:
        raise failure(f"{where} is invalid: it is nested too deeply", hint) from None
    except ValueError as error:
        raise failure(f"{where} is not valid JSON: {error}", hint) from None


def parse_json(text: bytes, where: str, hint: str = Serializable.HINT) -> Any:
    """JSON text as Python's own types; raises RunError if it is invalid."""
    return checked(lambda: msgspec.json.decode(text), where, RunError, hint)


def read_text(folder: Path, name: str) -> bytes:
    """The content of a text file of a run folder.

    Raises:
        RunError: the file is missing, too large, cannot be read, or is a link that leads out of the folder.
    """
    path = folder / name
    try:
        if not path.is_file():
            raise RunError(f"{folder}: there is no {name} in this folder", "it is incomplete; train again")
        if not inside(folder, path):
            raise RunError(f"{path}: is a link that leads out of the run folder", "replace it by a copy of the file")
        if path.stat().st_size > _MOST_BYTES:
            raise RunError(f"{path}: is larger than {_MOST_BYTES // 1_000_000} MB", Serializable.HINT)
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}", "check the file's permissions") from error


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of a run folder; raises RunError if it is missing or damaged."""
    table = parse_json(read_text(folder, name), str(folder / name))
    if not isinstance(table, dict):
        raise RunError(f"{folder / name} is invalid: expected a JSON object", Serializable.HINT)
    return table
