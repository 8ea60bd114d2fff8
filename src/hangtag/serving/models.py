"""The models that a server answers with, by name and version."""

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hangtag.errors import UsageError
from hangtag.model.predictor import Predictor, load
from hangtag.serving.refusals import Refusal

__all__ = ["Models", "ServedModel"]

_MEASURED = 4  # images of a batch whose time is measured
_GAIN = 4  # times the cost of a call that the pictures of an efficient batch take


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model.

    Attributes:
        name: of the run's folder, or of the file without its ending.
        version: the fingerprint of the model file.
        predictor: answers with limits on every picture, one thread for each call.
        path: of the model file or its run folder; clients never see it.
        call_seconds: that a batch takes in addition to the time of its pictures.
        least_batch: pictures in a batch that make this addition small.
    """

    name: str
    version: str
    predictor: Predictor
    path: Path | None = None
    call_seconds: float = 0.0
    least_batch: int = 1


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
    return ServedModel(name, predictor.fingerprint, predictor, path, *_cost(predictor))


def _cost(predictor: Predictor) -> tuple[float, int]:
    """`ServedModel.call_seconds` and `ServedModel.least_batch`, measured."""
    images = np.zeros((_MEASURED, *predictor.spec.shape), np.uint8)
    times = []
    for count in (1, _MEASURED) * 2:
        began = time.perf_counter()
        predictor.together([predictor.prepare(image) for image in images[:count]])
        times.append(time.perf_counter() - began)
    one, many = min(times[::2]), min(times[1::2])
    each = max(many - one, 1e-7) / (_MEASURED - 1)
    call = max(one - each, 0.0)
    return call, max(1, math.ceil(_GAIN * call / each))
