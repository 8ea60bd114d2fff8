"""Pictures with the labels they must keep, and which of them a model gets wrong; for continuous integration.

Expectations are a folder with a subfolder per label, at any depth below it. They need not cover every class.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hangtag.data.store.containers import is_junk
from hangtag.errors import DataError, HangtagError, PictureError, UnknownName
from hangtag.model.predictor import Predictor
from hangtag.serializable import Serializable
from hangtag.words import natural

__all__ = ["Broken", "Check", "check"]


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

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "kept": self.kept}


def check(predictor: Predictor, folder: Path) -> Check:
    """Compare a model's answers with a folder of expectations.

    Raises:
        DataError: the folder does not exist or holds no pictures.
        UnknownName: a subfolder does not name a class of the model.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", "create it, with one subfolder of images per label")
    known = {_plain(name): name for name in predictor.class_names}
    expected: list[tuple[Path, str]] = []
    for label in sorted(folder.iterdir(), key=lambda path: natural(path.name)):
        if not label.is_dir() or is_junk(label.name):
            continue
        if _plain(label.name) not in known:
            raise UnknownName.among(f"class in {folder}:", label.name, predictor.class_names)
        files = (path for path in sorted(label.rglob("*")) if path.is_file())
        name = known[_plain(label.name)]
        expected += [(path, name) for path in files if not any(map(is_junk, path.relative_to(folder).parts))]
    if not expected:
        raise DataError(f"{folder}: no images in this folder", "put images into one subfolder per label")
    broken = [found for path, label in expected if (found := _broken(predictor, path, label, folder))]
    return Check(len(expected), tuple(broken), predictor.fingerprint)


def _broken(predictor: Predictor, path: Path, expected: str, folder: Path) -> Broken | None:
    name = str(path.relative_to(folder))
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
