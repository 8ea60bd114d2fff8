"""The exceptions hangtag raises.

    HangtagError                  something is wrong; the hint says what to do next
    |-- UsageError                an invalid request (command line: exit code 2); also a ValueError
    |   `-- UnknownName           an unknown name; the hint offers the nearest known one
    |       `-- PathNotFound          neither a public dataset nor an existing path
    |-- DataError                 labelled images that cannot be used as they are; also a ValueError
    |   |-- DataNotFound          a missing file or folder of a dataset
    |   |-- StoreError            an object store that does not answer or denies access
    |   `-- PictureError          one picture that cannot be read or does not fit the model
    |       `-- PictureNotFound       a missing picture file
    |-- DownloadError             a public data set or pretrained weights that could not be fetched
    |-- ModelError                a network that cannot be built, trained or exported
    |   `-- DivergedError           a training whose loss became NaN or infinite
    |-- ArtifactError             a model file that hangtag did not write, or that is damaged or inconsistent
    |   `-- ModelNotFound         a missing model file
    |-- GpuError                  a GPU that failed, or has no memory left
    |-- ClusterError              a Ray cluster that cannot be reached, does not suit the work, or failed
    |-- RunError                  a run folder that is missing or incomplete
    |   |-- RunNotFound           a missing run folder
    |   `-- WorkerLostError       another worker of the same training that stopped
    |-- SaveError                 a file that could not be written; no partial file is left behind
    |-- MissingExtra              an optional part of hangtag that is not installed; also an ImportError
    `-- MissingAttribute          a name such as `hangtag.figures` that needs such a part; also an AttributeError

Errors about something missing on disk (`...NotFound`) are also FileNotFoundErrors. Warnings are `HangtagWarning`s.
Notes, such as what training decided, go to the logger "hangtag" at level INFO.

Exceptions of other libraries are converted to these where those libraries are called.
"""

import difflib
import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

__all__ = [
    "ArtifactError",
    "ClusterError",
    "DataError",
    "DataNotFound",
    "DivergedError",
    "DownloadError",
    "GpuError",
    "HangtagError",
    "HangtagWarning",
    "MissingAttribute",
    "MissingExtra",
    "ModelError",
    "ModelNotFound",
    "PathNotFound",
    "PictureError",
    "PictureNotFound",
    "PictureProblem",
    "RunError",
    "RunNotFound",
    "SaveError",
    "StoreError",
    "UnknownName",
    "UsageError",
    "WorkerLostError",
    "logger",
    "warn",
]

PictureProblem: TypeAlias = Literal[
    "empty", "not an image", "truncated", "damaged", "too large", "unknown pixel scale", "NaN pixels", "no image",
    "cannot be read", "takes too long", "disk or network error", "HEIC (pip install 'hangtag[heic]')",
]  # fmt: skip
"""Why a picture cannot be used, in few words; reports count pictures by it."""

_SERVE_PACKAGES = ("fastapi", "uvicorn", "httptools", "python_multipart", "prometheus_client", "orjson")
_TRAIN_PACKAGES = {"torch", "onnx", "onnxscript", "safetensors", "sklearn", "scipy", "matplotlib"}
_EXTRA_OF = {
    **dict.fromkeys(_SERVE_PACKAGES, "serve"), **dict.fromkeys(_TRAIN_PACKAGES, "train"), "pyarrow": "parquet",
    "fsspec": "parquet", "pillow_heif": "heic", "optuna": "tune", "ray": "ray", "tensorboard": "tensorboard",
    "mlflow": "mlflow",
}  # fmt: skip
"""The extra that contains a package."""


logger = logging.getLogger("hangtag")
"""Gets notes at level INFO. Without a handler of the user's own, Python shows none of them."""


class HangtagWarning(UserWarning):
    """Something went wrong that costs little, such as a damaged cache; the work goes on."""


def warn(message: str) -> None:
    """Issue a `HangtagWarning` about the line of the user's code that called hangtag."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "hangtag":
        frame, level = frame.f_back, level + 1
    warnings.warn(message, HangtagWarning, stacklevel=level)


class HangtagError(Exception):
    """A problem: `message` says what is wrong and where, `hint` what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:  # grid searches pass exceptions between processes
        return (type(self), (self.message, self.hint))

    def to_json(self) -> dict[str, str]:
        return {"error": self.message, "hint": self.hint}

    def to_plain(self) -> dict[str, str]:
        """For `of_plain` in another process."""
        return {"kind": type(self).__name__, "message": self.message, "hint": self.hint}

    @staticmethod
    def of_plain(plain: Mapping[str, str], where: str = "") -> "HangtagError":
        """The error of another process; its message starts with the name of its machine, if that is given."""
        kind: Any = globals().get(plain["kind"])
        known = isinstance(kind, type) and issubclass(kind, HangtagError)
        error: HangtagError = (kind if known else HangtagError)(f"{where}{plain['message']}", plain["hint"])
        return error


class UsageError(HangtagError, ValueError):
    """An invalid request, such as a value out of range or options that exclude each other."""


class UnknownName(UsageError):
    """An unknown name.

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


class DataError(HangtagError, ValueError):
    """Labelled images that cannot be used as they are."""


class StoreError(DataError):
    """An object store that does not answer or denies access, so that nothing in it can be read or written."""


class PictureError(DataError):
    """One picture that cannot be read or does not fit the model.

    Args:
        reason: what is wrong with the picture, without its name.
        hint: what to do next.
        kind: the kind of problem in a few words, by which reports count pictures.
        name: the picture's path or name; the message starts with it.
    """

    def __init__(self, reason: str, hint: str, kind: PictureProblem = "damaged", name: str = "") -> None:
        super().__init__(f"{name}: {reason}" if name else reason, hint)
        self.reason, self.kind, self.name = reason, kind, name

    def __reduce__(self) -> tuple[object, ...]:
        return (type(self), (self.reason, self.hint, self.kind, self.name))


class DownloadError(HangtagError):
    """A public data set or pretrained weights that could not be fetched."""


class ModelError(HangtagError):
    """A network that cannot be built, trained or exported."""


class DivergedError(ModelError):
    """A training whose loss became NaN or infinite."""


class ArtifactError(HangtagError):
    """A model file that hangtag did not write, or that is damaged or inconsistent."""


class GpuError(HangtagError):
    """A GPU failed, or has no memory left."""


class ClusterError(HangtagError):
    """A Ray cluster that cannot be reached, does not suit the work, or failed."""


class RunError(HangtagError):
    """A run folder that is missing or incomplete."""


class SaveError(HangtagError):
    """A file that could not be written; no partial file is left behind."""


class MissingExtra(HangtagError, ImportError):
    """An optional part of hangtag that is not installed."""

    @classmethod
    def for_module(cls, module: str | None) -> "MissingExtra | None":
        """The error for a package that cannot be imported; None if none of hangtag's extras contains it."""
        top = (module or "").partition(".")[0]
        return cls.named(_EXTRA_OF[top], top) if top in _EXTRA_OF else None

    @classmethod
    def named(cls, extra: str, module: str, otherwise: str = "") -> "MissingExtra":
        return cls(
            f"this needs '{module}', which is not installed",
            f"pip install 'hangtag[{extra}]'{otherwise}",
        )

    @classmethod
    def check_training(cls, otherwise: str = "") -> None:
        """Raise the error unless everything that training needs is installed, before any data is read.

        Args:
            otherwise: what works without it, as the end of the hint.
        """
        for module in sorted(_TRAIN_PACKAGES, key=lambda name: name != "torch"):
            if importlib.util.find_spec(module) is None:
                raise cls.named("train", module, otherwise)

    @classmethod
    def check_serving(cls) -> None:
        """Raise the error unless everything that the prediction server needs is installed."""
        for module in _SERVE_PACKAGES:
            if importlib.util.find_spec(module) is None:
                raise cls.named("serve", module)


class MissingAttribute(HangtagError, AttributeError):
    """A name of `hangtag` that needs an extra which is not installed, so that `hasattr` is False."""


class PathNotFound(UnknownName, FileNotFoundError):
    """What is neither a public dataset nor an existing path."""


class DataNotFound(DataError, FileNotFoundError):
    """A dataset, or a file that belongs to it, that does not exist."""


class PictureNotFound(PictureError, FileNotFoundError):
    """A picture file that does not exist."""


class ModelNotFound(ArtifactError, FileNotFoundError):
    """A model file that does not exist."""


class WorkerLostError(RunError):
    """Another worker of the same training stopped or cannot be reached."""


class RunNotFound(RunError, FileNotFoundError):
    """A run folder that does not exist."""
