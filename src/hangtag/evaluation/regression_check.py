"""Pictures and the labels they must keep: which ones a model gets wrong. For somebody's continuous integration.

Expectations are a folder with a subfolder for each label, any depth below it. They need not name every class, and one
picture is enough.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hangtag.data.store.containers import is_junk
from hangtag.errors import DataError, HangtagError, UnknownName
from hangtag.model.predictor import Predictor
from hangtag.words import natural

__all__ = ["Broken", "Check", "check"]


@dataclass(frozen=True)
class Broken:
    """An expectation that was not met.

    Attributes:
        file: the picture, below the folder of expectations.
        expected: the label it must keep.
        label, probability: what the model said; None where it could not be read.
        reason: in words.
    """

    file: str
    expected: str
    label: str | None
    probability: float | None
    reason: str


@dataclass(frozen=True)
class Check:
    """What came of it.

    Attributes:
        pictures: how many were expected.
        broken: those that failed.
        model: fingerprint of the model file.
    """

    pictures: int
    broken: tuple[Broken, ...]
    model: str

    @property
    def kept(self) -> bool:
        return not self.broken

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "kept": self.kept}


def check(predictor: Predictor, folder: Path) -> Check:
    """Ask a model about every picture in a folder of expectations.

    Raises:
        DataError: no such folder, or nothing in it.
        UnknownName: a subfolder that names no class of the model.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder", "make one: a subfolder for each label, with its pictures")
    labels = sorted(
        (each for each in folder.iterdir() if each.is_dir() and not is_junk(each.name)),
        key=lambda each: natural(each.name),
    )
    named = {_plain(name): name for name in predictor.class_names}
    expected: list[tuple[Path, str]] = []
    for each in labels:
        if _plain(each.name) not in named:
            raise UnknownName.among(f"label {each.name} in {folder}: class", each.name, predictor.class_names)
        files = sorted(path for path in each.rglob("*") if path.is_file())
        expected += [
            (path, named[_plain(each.name)])
            for path in files
            if not any(is_junk(part) for part in path.relative_to(folder).parts)
        ]
    if not expected:
        raise DataError(f"{folder}: holds no expectations", "put pictures into a subfolder for each label")
    broken = [one for path, label in expected if (one := _asked(predictor, path, label, folder)) is not None]
    return Check(len(expected), tuple(broken), predictor.fingerprint)


def _asked(predictor: Predictor, path: Path, expected: str, folder: Path) -> Broken | None:
    name = str(path.relative_to(folder))
    try:
        answer = predictor(path)
    except HangtagError as error:
        return Broken(name, expected, None, None, error.message)
    if answer.label == expected:
        return None
    return Broken(name, expected, answer.label, answer.probability, f"is {answer.label} {answer.probability:.1%} now")


def _plain(name: str) -> str:
    """Class names as folders can be called: "T-shirt/top" is T-shirt-top or T-shirt_top there."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.casefold())
