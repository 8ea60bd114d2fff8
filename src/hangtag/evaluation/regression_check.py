"""Pictures with the labels they must keep, and which of them a model gets wrong; for continuous integration.

Expectations are a folder with a subfolder per label, at any depth below it. They need not cover every class.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from hangtag.data.class_names import clean_name, matching_class
from hangtag.data.store.containers import is_junk
from hangtag.errors import DataError, DataNotFound, HangtagError, PictureError, UnknownName, UsageError
from hangtag.evaluation.judge import Model, opened
from hangtag.files import user_path
from hangtag.model.predictor import Predictor
from hangtag.serializable import Serializable
from hangtag.words import listed, natural, visible

__all__ = ["Broken", "Check", "check"]

_SHOWN = 20  # in a notebook


@dataclass(frozen=True)
class Broken:
    """An expectation that was not met.

    Attributes:
        file: path of the picture, relative to the folder of expectations.
        expected: the label it must keep.
        label, probability: the model's answer; None if the picture could not be read.
        reason: why it failed, in words.
    """

    file: str
    expected: str
    label: str | None
    probability: float | None
    reason: str


@dataclass(frozen=True)
class Check(Serializable):
    """The result of a check.

    Attributes:
        pictures: number of pictures checked.
        broken: the expectations that were not met.
        model: fingerprint of the model file.
    """

    pictures: int
    broken: tuple[Broken, ...]
    model: str

    @property
    def kept(self) -> bool:
        """Whether every expectation was met."""
        return not self.broken

    def __str__(self) -> str:
        kept = self.pictures - len(self.broken)
        return f"{kept:,} of {self.pictures:,} images have the expected label (model {self.model})"

    def __repr__(self) -> str:
        return f"<Check: {self}>"

    def _repr_html_(self) -> str:
        from hangtag.html import render

        rows = [(each.file, each.expected, each.reason) for each in self.broken[:_SHOWN]]
        notes = [f"{len(self.broken) - _SHOWN:,} more are not shown"] if len(self.broken) > _SHOWN else []
        head = ["file", "expected", "result"]
        values = {"title": str(self), "head": head, "rows": rows, "notes": notes, "words": True}
        return render("notebook_table.html", values)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "kept": self.kept}


def check(model: Model, folder: "str | PathLike[str]") -> Check:
    """Compare a model's answers with a folder of expectations.

    Args:
        model: a model.onnx, a run or its folder or name, an opened model, or a fitted classifier.
        folder: has a subfolder of pictures per label.

    Raises:
        RunError, ArtifactError: the model cannot be opened.
        DataError: the folder does not exist or holds no pictures.
        UnknownName: a subfolder does not name a class of the model.
        UsageError: the name of a subfolder fits several classes.
    """
    predictor, folder = opened(model), user_path(folder)
    if not folder.is_dir():
        raise DataNotFound(f"{folder}: no such folder", "create it, with one subfolder of images per label")
    expected: list[tuple[Path, str]] = []
    for label in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        if not label.is_dir():
            continue
        name = _class_of(label.name, predictor.class_names, folder)
        if name is None and is_junk(label.name):
            continue
        if name is None:
            raise UnknownName.among(f"class in {folder}:", label.name, predictor.class_names)
        files = (path for path in sorted(label.rglob("*")) if path.is_file())
        expected += [(path, name) for path in files if not any(map(is_junk, path.relative_to(label).parts))]
    if not expected:
        raise DataError(f"{folder}: no images in this folder", "put images into one subfolder per label")
    broken = [found for path, label in expected if (found := _broken(predictor, path, label, folder))]
    return Check(len(expected), tuple(broken), predictor.fingerprint)


def _class_of(folder_name: str, class_names: Sequence[str], folder: Path) -> str | None:
    """The class that a subfolder is named after: an exact name first, then one that a file name cannot contain."""
    exact = matching_class(clean_name(folder_name), class_names)
    alike = [exact] if exact else [name for name in class_names if _plain(name) == _plain(folder_name)]
    if len(alike) > 1:
        raise UsageError(
            f"{folder}: the folder {folder_name} fits several classes: {listed(alike)}", "rename it to one of them"
        )
    return alike[0] if alike else None


def _broken(predictor: Predictor, path: Path, expected: str, folder: Path) -> Broken | None:
    name = visible(str(path.relative_to(folder)))
    try:
        answer = predictor(path)
    except HangtagError as error:
        reason = error.reason if isinstance(error, PictureError) else error.message
        return Broken(name, expected, None, None, f"but cannot be classified: {reason}")
    if answer.label == expected:
        return None
    return Broken(name, expected, answer.label, answer.probability, f"got {answer.label} {answer.probability:.1%}")


def _plain(name: str) -> str:
    """A class name in the form that folder names are compared in: T-shirt-top and T-shirt_top match "T-shirt/top"."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.casefold())
