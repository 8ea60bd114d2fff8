"""Checkpoints of a training: written atomically, verified by a checksum, without pickle.

    checkpoints/00012.checkpoint     safetensors, followed by its SHA-256; the metadata holds everything else as JSON

The newest two are kept, so that a damaged one costs minutes instead of the whole run.
"""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from hangtag.errors import RunError, warn
from hangtag.files import make_folder, remove_partial, write_bytes

__all__ = ["Checkpoint", "CheckpointWriter", "latest"]

_VERSION = "2"
_SUFFIX = ".checkpoint"
_KEPT = 2
_DIGEST = hashlib.sha256().digest_size
_COST = 0.01  # fraction of the time spent on saving; the documented limit is 2 %
_FIRST_SECONDS = 5.0  # a shorter training is quickly repeated


@dataclass(frozen=True)
class Checkpoint:
    """A training between two chunks of batches.

    Attributes:
        tensors: weights, buffers and the optimizer's averages, by name.
        metadata: everything else, as JSON: the kind of steps, the position, and the sums over its epoch.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]

    @property
    def epoch(self) -> int:
        """The epoch it is in; raises RunError if its position is invalid."""
        position = self.metadata.get("position")
        epoch = position.get("epoch") if isinstance(position, dict) else None
        if type(epoch) is not int or epoch < 1:
            raise RunError("the checkpoint has no valid position", "start over in another folder: --out")
        return epoch

    def to_bytes(self) -> bytes:
        metadata = {"version": _VERSION, "metadata": json.dumps(self.metadata, allow_nan=False)}
        content = safetensors.torch.save(
            {
                # Copies, because safetensors rejects tensors that share memory: tied weights, or views of one vector.
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in self.tensors.items()
            },
            metadata,
        )
        return content + hashlib.sha256(content).digest()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Checkpoint":
        """Raises ValueError if the content is damaged or has another version."""
        body, digest = content[:-_DIGEST], content[-_DIGEST:]
        if hashlib.sha256(body).digest() != digest:
            raise ValueError("its checksum does not match its content")
        length = int.from_bytes(body[:8], "little")
        header = msgspec.json.decode(body[8 : 8 + length], type=_Header).__metadata__
        if header.version != _VERSION:
            raise ValueError(f"its version must be {_VERSION}, got {header.version}")
        return cls(safetensors.torch.load(body), msgspec.json.decode(header.metadata, type=dict[str, Any]))


class _Text(msgspec.Struct):
    version: str = ""
    metadata: str = ""


class _Header(msgspec.Struct):
    __metadata__: _Text


@dataclass
class CheckpointWriter:
    """Saves checkpoints of one training, at intervals that keep saving at about 1 % of the time.

    Args:
        folder: created when first needed.
    """

    folder: Path
    last: float = field(default_factory=time.perf_counter)
    wait: float = field(default_factory=lambda: _FIRST_SECONDS)

    def due(self) -> bool:
        return time.perf_counter() - self.last > self.wait

    def save(self, make: Callable[[], Checkpoint]) -> None:
        """Write a checkpoint, then remove all but the newest two.

        Raises:
            SaveError: the disk is full or the folder is not writable; earlier checkpoints are intact.
        """
        began = time.perf_counter()
        make_folder(self.folder)
        number = max((int(path.stem) for path in _files(self.folder)), default=0) + 1
        write_bytes(self.folder / f"{number:05d}{_SUFFIX}", make().to_bytes())
        for old in _files(self.folder)[:-_KEPT]:
            old.unlink(missing_ok=True)
        self.saved_in(time.perf_counter() - began)

    def saved_in(self, seconds: float) -> None:
        """A checkpoint has just been saved, which took this long."""
        self.last, self.wait = time.perf_counter(), max(_FIRST_SECONDS, seconds / _COST)

    def remove(self) -> None:
        """Remove all checkpoints of a complete run; files that cannot be removed do no harm."""
        remove_partial(self.folder)
        with suppress(OSError):
            for path in _files(self.folder):
                path.unlink(missing_ok=True)
            self.folder.rmdir()


def latest(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint, or None; newer, damaged ones are removed with a warning.

    Raises:
        RunError: there are checkpoints, but all are damaged.
    """
    damaged: dict[Path, Exception] = {}
    for path in reversed(_files(folder)):
        try:
            checkpoint = Checkpoint.from_bytes(path.read_bytes())
        except (OSError, ValueError, KeyError, RecursionError, safetensors.SafetensorError) as error:
            damaged[path] = error
            continue
        for bad, reason in damaged.items():
            warn(f"skipped a damaged checkpoint: {bad}: {reason}")
            if not isinstance(reason, OSError):  # a read error may be temporary
                with suppress(OSError):
                    bad.unlink()  # it would count as one of the two that are kept
        return checkpoint
    if damaged:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in damaged.items())
        raise RunError(f"every checkpoint is damaged: {reasons}", "start over in another folder: --out")
    return None


def _files(folder: Path) -> list[Path]:
    """The checkpoint files, oldest first."""
    files = (path for path in folder.glob(f"*{_SUFFIX}") if path.stem.isdecimal() and path.is_file())
    return sorted(files, key=lambda path: int(path.stem))
