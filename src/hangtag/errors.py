"""Every error hangtag raises on purpose, and how to look up a near match.

    HangtagError                  something is wrong, and the hint says what to do
    |-- UsageError                the request itself cannot be right (command line: exit 2)
    |   `-- UnknownName           a name nobody knows; offers the nearest one that exists
    |-- DataError                 labelled images that cannot be used as they are
    |   `-- PictureError          one picture that cannot be read or does not fit the model
    |-- DownloadError             public data that could not be fetched
    |-- ModelError                a network that cannot be built, trained or exported
    |   `-- DivergedError           a training whose loss is no longer a number
    |-- ArtifactError             a model file that is not ours, is damaged, or lies about itself
    |-- RunError                  a run folder that is missing or incomplete
    |-- SaveError                 a file that could not be written; nothing half-written is left
    `-- MissingExtra              an optional part of hangtag that is not installed

Foreign exceptions are turned into these at one boundary each; nothing here knows about screens.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "ArtifactError",
    "DataError",
    "DivergedError",
    "DownloadError",
    "HangtagError",
    "MissingExtra",
    "ModelError",
    "PictureError",
    "RunError",
    "SaveError",
    "UnknownName",
    "UsageError",
]

_TRAIN_PACKAGES = {"torch", "onnx", "onnxscript", "safetensors", "sklearn", "matplotlib", "cleanlab"}


class HangtagError(Exception):
    """What is wrong and where, plus `hint`: what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"

    def __reduce__(self) -> tuple[object, ...]:  # exceptions cross process borders in grid searches
        return (type(self), (self.message, self.hint))

    def to_json(self) -> dict[str, str]:
        return {"error": self.message, "hint": self.hint}


class UsageError(HangtagError):
    """The request itself cannot be right."""


class UnknownName(UsageError):
    """A name nobody knows.

    >>> raise UnknownName.among("recipe", "tutoral", ["fast", "tutorial"])
    Traceback (most recent call last):
    hangtag.errors.UnknownName: unknown recipe 'tutoral' (did you mean 'tutorial'? known: fast, tutorial)
    """

    @classmethod
    def among(cls, kind: str, name: str, known: Iterable[str], also: str = "") -> "UnknownName":
        choices = sorted(known)
        near = difflib.get_close_matches(name.lower(), choices, n=1, cutoff=0.5)
        offer = f"did you mean '{near[0]}'? " if near else ""
        return cls(f"unknown {kind} '{name}'", f"{offer}known: {', '.join(choices)}{also}")


class DataError(HangtagError):
    """Labelled images that cannot be used as they are."""


class PictureError(DataError):
    """One picture that cannot be read or does not fit the model."""


class DownloadError(HangtagError):
    """Public data that could not be fetched."""


class ModelError(HangtagError):
    """A network that cannot be built, trained or exported."""


class DivergedError(ModelError):
    """The loss of a training is no longer a number."""


class ArtifactError(HangtagError):
    """A model file that is not ours, is damaged, or lies about itself."""


class RunError(HangtagError):
    """A run folder that is missing or incomplete."""


class SaveError(HangtagError):
    """A file that could not be written; nothing half-written is left."""


class MissingExtra(HangtagError):
    """An optional part of hangtag that is not installed."""

    @classmethod
    def for_module(cls, module: str | None) -> "MissingExtra | None":
        """The error for a package that could not be imported, or None if it belongs to no extra of ours."""
        top = (module or "").partition(".")[0]
        return cls.named("train", top) if top in _TRAIN_PACKAGES else None

    @classmethod
    def named(cls, extra: str, module: str) -> "MissingExtra":
        return cls(
            f"this needs '{module}', which is not installed",
            f"pip install 'hangtag[{extra}]'",
        )
