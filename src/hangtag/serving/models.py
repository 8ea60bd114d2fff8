"""The models that a server answers with, by name and version."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hangtag.errors import UsageError
from hangtag.model.predictor import Predictor, load
from hangtag.serving.refusals import Refusal

__all__ = ["Models", "ServedModel"]


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model.

    Attributes:
        name: of the run's folder, or of the file without its ending.
        version: the fingerprint of the model file.
        predictor: answers with limits on every picture, one thread for each call.
        path: of the model file or its run folder; clients never see it.
    """

    name: str
    version: str
    predictor: Predictor
    path: Path | None = None


class Models:
    """All models of a server. The first one is the default."""

    def __init__(self, places: Sequence[str | os.PathLike[str]]) -> None:
        self._places: dict[str, Path] = {}
        for place in places:
            path = Path(place)
            name = path.stem if path.suffix == ".onnx" else path.resolve().name
            if name in self._places:
                raise UsageError(f"two models are named '{name}'", "rename one of the folders")
            self._places[name] = path
        self._current = {name: _opened(name, path) for name, path in self._places.items()}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._current.values())

    @property
    def default(self) -> ServedModel:
        return next(iter(self._current.values()))

    def find(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The newest version of a model, or the one named; raises Refusal (404)."""
        model = self.default if name is None else self._current.get(name)
        if model is None or version not in (None, model.version):
            raise Refusal(404, "unknown model or version", f"known: {', '.join(self._current)}")
        return model


def _opened(name: str, path: Path) -> ServedModel:
    predictor = load(path, threads=1).with_limits()
    return ServedModel(name, predictor.fingerprint, predictor, path)
