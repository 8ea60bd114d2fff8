"""The models that a server answers with, by name and version."""

import asyncio
import contextlib
import ctypes
import math
import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hangtag.errors import HangtagError, UsageError, logger
from hangtag.model.artifact import MODEL_FILE, open_artifact
from hangtag.model.predictor import Predictor
from hangtag.serving.decoding import decode
from hangtag.serving.refusals import Refusal
from hangtag.words import visible

__all__ = ["Models", "ServedModel", "open_to_serve"]

_MEASURED = 4  # images of a batch whose time is measured
_GAIN = 4  # times the cost of a call that the pictures of an efficient batch take


@dataclass(frozen=True, eq=False)
class ServedModel:
    """One version of a model.

    Attributes:
        name: of the run's folder, or of the file without its ending; control characters and bytes that are no text
            are escaped.
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
    """All models of a server; the first one is the default. New files replace them while they serve.

    Attributes:
        problems: for a model whose file cannot be used now, why; the version that was opened last serves on.
    """

    def __init__(self, places: Sequence[str | os.PathLike[str]]) -> None:
        self._places: dict[str, Path] = {}
        for place in places:
            path = Path(place)
            name = visible(path.stem if path.suffix == ".onnx" else Path(os.path.abspath(path)).name)  # noqa: PTH100
            if name in self._places:
                raise UsageError(f"two models are named '{name}'", "rename one of the folders")
            self._places[name] = path
        self.problems: dict[str, str] = {}
        self._stamps = {name: _stamp(path) for name, path in self._places.items()}  # before the files are read
        self._failed: dict[str, Any] = {}  # stamps of files that could not be opened
        self._current = {name: _opened(name, path) for name, path in self._places.items()}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._current.values())

    @property
    def default(self) -> ServedModel:
        return next(iter(self._current.values()))

    def find(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The newest version of a model, or the one named; raises Refusal (404)."""
        model = self.default if name is None else self._current.get(name)
        if model is None or version not in (None, model.version):
            known = ", ".join(f"{each.name} (version {each.version})" for each in self)
            raise Refusal(404, "unknown model or version", f"this server has {known}")
        return model

    def refresh(self, is_patient: bool = False) -> None:
        """Open files that have changed, in the thread that calls this; requests under way keep the version they have.

        Args:
            is_patient: report a file as a problem only if it is the same the next time, as it may be half written.
        """
        with self._lock:
            for name, path in self._places.items():
                stamp = _stamp(path)
                if stamp == self._stamps[name]:
                    self._settle(name)
                    continue
                if stamp == self._failed.get(name) and name in self.problems:
                    continue
                try:
                    model = _opened(name, path)
                except Exception as error:  # whatever is wrong with a file, the old version serves on
                    if not is_patient or stamp == self._failed.get(name):
                        self.problems[name] = _without_path(error, path)
                        logger.warning("model '%s': %s; version %s serves on", name, error, self._current[name].version)
                    self._failed[name] = stamp
                    continue
                self._stamps[name] = stamp
                self._settle(name)
                if model.version != self._current[name].version:
                    self._current = {**self._current, name: model}
                    logger.info("model '%s': version %s serves now", name, model.version)
                    _give_memory_back()

    async def watch(self, seconds: float = 1.0) -> None:
        """Look for new files until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await asyncio.to_thread(self.refresh, True)
            except Exception:  # the next look may succeed
                logger.exception("the models could not be read again; the old ones go on serving")

    def _settle(self, name: str) -> None:
        self.problems.pop(name, None)
        self._failed.pop(name, None)


def _give_memory_back() -> None:
    """Let the system have what models before left: glibc keeps it for each thread that opened or used one."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _stamp(path: Path) -> tuple[Any, ...]:
    """What changes with the model file. A run's record of it counts, too, as it may be written after the file."""
    files = [path / MODEL_FILE, path / "config.json"] if os.path.isdir(path) else [path]  # noqa: PTH112 - is_dir raises on a stale disk
    return tuple(map(_state, files))


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns  # the mtime may be set


def _without_path(error: Exception, path: Path) -> str:
    """Why the file cannot be used; paths are for the log only."""
    reason = str(error.message) if isinstance(error, HangtagError) else ""
    for each in (path / MODEL_FILE, path):
        reason = reason.replace(f"{each}: ", "")
    return f"the new file cannot be used{f': {reason}' if reason and os.sep not in reason else ''}"


def open_to_serve(source: Path | bytes) -> Predictor:
    """A model file, its bytes or its run folder, opened as servers do; errors as of `open_artifact`."""
    artifact = open_artifact(source, threads=1)
    artifact.settle_batches()
    return Predictor(artifact, decode_picture=decode)


def _opened(name: str, path: Path) -> ServedModel:
    predictor = open_to_serve(path)
    return ServedModel(name, predictor.fingerprint, predictor, path, *_cost(predictor))


def _cost(predictor: Predictor) -> tuple[float, int]:
    """`ServedModel.call_seconds` and `ServedModel.least_batch`, measured."""
    images = np.zeros((_MEASURED, *predictor.spec.shape), np.uint8)
    times = []
    for count in (1, _MEASURED) * 2:
        began = time.thread_time()  # others may use the machine, too
        predictor.together([predictor.prepare(image) for image in images[:count]])
        times.append(time.thread_time() - began)
    one, many = min(times[::2]), min(times[1::2])
    each = max(many - one, 1e-7) / (_MEASURED - 1)
    call = max(one - each, 0.0)
    return call, max(1, math.ceil(_GAIN * call / each))
