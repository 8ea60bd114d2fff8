"""Frozen dataclasses as JSON objects: written by field name, and read back with the type of every field checked."""

from typing import Any, ClassVar, Self

import msgspec
import numpy as np

from hangtag.errors import HangtagError, RunError

__all__ = ["Serializable"]


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
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            problem, _, field = str(error).partition(" - at `$")
            place = f" (field `{field.lstrip('.')})" if field else ""
            message = f"{where or cls.__name__} is invalid: {problem[0].lower()}{problem[1:]}{place}"
            raise cls.FAILURE(message, cls.HINT) from None
