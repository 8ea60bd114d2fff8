"""One training on several workers: what each must know, and what each does.

The process that began the training divides the data and adapts the recipe. It describes the training in a `Task`, from
which every worker reads the same data and builds the same network. `engine/workers.py` does the rest.
"""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import split_of
from hangtag.errors import HangtagError, UsageError
from hangtag.evaluation.judge import read_same
from hangtag.training.engine.build import build_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.loop import Epoch, choose_device, train
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.workers import Workers
from hangtag.training.fit_input import part_of

__all__ = ["Network", "OnWorkers", "Part", "Task", "TheseWorkers", "Trainer", "check_shareable", "follow"]

Network = nn.Module
"""What is trained."""


class Task(msgspec.Struct, frozen=True):
    """What a worker must know of a training; `to_bytes` has no pictures.

    Attributes:
        source: where the data is and how to read it.
        name, fingerprint: of the data.
        recipe: adapted to the data.
        seed: of weights, order and augmentation.
        train, validation: positions of the images, int64.
        device: "auto", "cpu" or "cuda".
    """

    source: dict[str, Any]
    name: str
    fingerprint: str
    recipe: Recipe
    seed: int
    train: bytes
    validation: bytes
    device: str

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Task":
        return msgspec.msgpack.decode(content, type=cls)


class Trainer(Protocol):
    """Trains a network on workers in place of `engine.loop.train`."""

    def __call__(
        self, task: Task, network: nn.Module, data: LabelledImages, stop: Callable[[], bool],
        checkpoint_writer: CheckpointWriter | None, resume: Checkpoint | None,
    ) -> Iterator[Epoch]:  # fmt: skip
        """The epochs; whenever the caller stops iterating, the network has weights of the training.

        Args:
            data: the images in which the task's positions count.
        """
        ...


@dataclass(frozen=True)
class OnWorkers:
    """How a classifier trains on several workers, and where they find its data.

    Attributes:
        source, name, fingerprint: as in a `Task`.
    """

    trainer: Trainer
    source: dict[str, Any]
    name: str
    fingerprint: str

    def task(
        self, recipe: Recipe, seed: int, train: NDArray[np.int64], validation: NDArray[np.int64], device: str
    ) -> Task:
        positions = train.astype(np.int64).tobytes(), validation.astype(np.int64).tobytes()
        return Task(self.source, self.name, self.fingerprint, recipe, seed, *positions, device)


def check_shareable(recipe: Recipe) -> None:
    """Raise UsageError if this recipe is not trained on several workers."""
    if recipe.backbone:
        raise UsageError(
            f"recipe '{recipe.name}' fits a linear head, which several workers cannot share",
            "leave --workers out, or train a network: --recipe fast",
        )


class TheseWorkers:
    """Trains on the workers of this process group. This process is the first one; the others `follow`."""

    def __init__(self, workers: Workers) -> None:
        self.workers, self.waiting = workers, True

    def __call__(
        self, task: Task, network: nn.Module, data: LabelledImages, stop: Callable[[], bool],
        checkpoint_writer: CheckpointWriter | None, resume: Checkpoint | None,
    ) -> Iterator[Epoch]:  # fmt: skip
        self.waiting = False
        self.workers.bytes_of_first(task.to_bytes())
        yield from Part(task, self.workers, data, network).epochs(stop, checkpoint_writer, resume)

    def dismiss(self) -> None:
        """Let the others end if there was nothing to train."""
        if self.waiting:
            self.workers.bytes_of_first(None)


def follow(workers: Workers, stop: Callable[[], bool]) -> None:
    """As one of the other workers, wait for the first one's task and take part in it; there may be none."""
    content = workers.bytes_of_first(None)
    if content is not None:
        for _ in Part(Task.from_bytes(content), workers).epochs(stop):
            pass


class Part:
    """What one worker does of a training.

    Args:
        workers: all of them; None: this process is the only one.
        data, network: what is trained; None: they are read and built as the task says.

    Raises:
        HangtagError: a worker cannot take part; every worker gets the error, which names its machine.
    """

    network: nn.Module

    def __init__(
        self, task: Task, workers: Workers | None, data: LabelledImages | None = None, network: nn.Module | None = None
    ) -> None:
        self.task, self.workers = task, workers
        problem: HangtagError | None = None
        try:
            if data is None:
                data, _ = split_of(read_same(task.source, task.name, task.fingerprint), 0.0, task.seed)
            if network is None:
                network = build_network(self.task.recipe.network, data.spec, len(data.class_names), task.seed)
            self.images, self.validation = (
                part_of(data, np.frombuffer(each, np.int64)) for each in (task.train, task.validation)
            )
            self.network, self.device = network, choose_device(task.device)
        except HangtagError as error:
            problem = error
        if workers is not None:
            _agree(workers, problem)
        if problem is not None:
            raise problem

    def epochs(
        self, stop: Callable[[], bool], checkpoint_writer: CheckpointWriter | None = None,
        resume: Checkpoint | None = None,
    ) -> Iterator[Epoch]:  # fmt: skip
        """Train; as `engine.loop.train`."""
        yield from train(
            self.network, *self.images, self.task.recipe, self.task.seed, self.validation, self.device, stop,
            checkpoint_writer, resume, workers=self.workers,
        )  # fmt: skip


def _agree(workers: Workers, problem: HangtagError | None) -> None:
    """Raise the problem of the first worker that has one, on every worker."""
    own = {"problem": problem and problem.to_plain(), "node": socket.gethostname()}
    for rank, each in enumerate(map(json.loads, workers.bytes_of_all(json.dumps(own).encode()))):
        if each["problem"]:
            raise HangtagError.of_plain(each["problem"], f"worker {rank} on {each['node']}: ")
