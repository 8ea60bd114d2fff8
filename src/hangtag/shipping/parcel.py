"""What is shipped: a checked model file under a name that every target accepts."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from hangtag.errors import UsageError
from hangtag.model.artifact import OUTPUT, Metadata, check_file
from hangtag.model.guarantees import Guarantees
from hangtag.model.onnx_file import Value
from hangtag.model.predictor import Predictor
from hangtag.words import printable

__all__ = ["Files", "Parcel", "Shipped", "check_name", "name_for"]

Files: TypeAlias = dict[str, bytes]
"""The content of files, by their paths in a folder."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?")


class Shipped(NamedTuple):
    """The files for one target, and the commands to run next, one for each line."""

    files: Files
    next: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Parcel:
    """A model file and what must be known of it.

    Attributes:
        name: lower-case letters, digits and hyphens; of the model on a server, of services and files.
        content: the bytes of `model.onnx`.
        metadata: what the file says about itself.
        outputs: of its graph, by name.
        sha256: of the file.
    """

    name: str
    content: bytes
    metadata: Metadata
    outputs: dict[str, Value]
    sha256: str

    @classmethod
    def of(cls, model: Predictor, name: str) -> "Parcel":
        """A model, which was checked when it was opened; raises UsageError if the name is not possible."""
        check_name(name)
        return cls(name, model.content, *check_file(model.content), model.sha256)

    @property
    def guarantees(self) -> Guarantees:
        names = self.metadata.class_names
        return self.metadata.guarantees or Guarantees.none(len(names), "this model has no held-out images")

    @property
    def deciding(self) -> list[str]:
        """The outputs from which labels, prediction sets and warnings follow, those that the file has."""
        wanted = [OUTPUT, "uncalibrated", "ood_score", *(["fold_uncalibrated"] if self.guarantees.needs_folds else [])]
        return [name for name in wanted if name in self.outputs]

    @property
    def labels(self) -> bytes:
        """The class names, one for each line."""
        return "".join(f"{printable(' '.join(name.split()))}\n" for name in self.metadata.class_names).encode(
            "utf-8", "replace"
        )


def name_for(path: Path) -> str:
    """A name that every target accepts, from that of a run folder or model file."""
    text = path.stem if path.suffix == ".onnx" else path.name
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:50].rstrip("-")
    return name if _NAME.fullmatch(name) else f"model-{name}"[:50].rstrip("-")


def check_name(name: str) -> None:
    """Raise UsageError unless servers, Kubernetes and systemd accept the name."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"the name must be lower-case letters, digits and hyphens, got '{name}'",
            "start with a letter, use at most 50 characters, for example --name shoes-2",
        )
