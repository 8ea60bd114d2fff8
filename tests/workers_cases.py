"""What `test_workers.py` runs in one process, and in three that train together.

python workers_cases.py RANK COUNT FOLDER     as worker RANK of COUNT; writes FOLDER/RANK-CASE.pt
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hangtag.errors import HangtagError
from hangtag.pictures import ImageSpec
from hangtag.training.engine.build import build_network
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.loop import train
from hangtag.training.engine.recipes import Recipe, find_recipe
from hangtag.training.engine.workers import Workers

SIDE, CLASSES, IMAGES, HELD_OUT = 12, 4, 110, 31
BASE = replace(
    find_recipe("fast"), epochs=2, batch_size=23, last_partial_batch=True, bfloat16=False, adapt_cores=False,
    muon_learning_rate=0.0, learning_rate=1e-3, prune_fraction=0.0, flip=True, balance="off",
)  # fmt: skip


class Odd(nn.Module):
    """Random numbers, batch statistics, weights that are never used, and some that only every other step uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(SIDE * SIDE, 16, bias=False), nn.Linear(16, CLASSES)
        self.norm, self.dropout = nn.BatchNorm1d(16, momentum=None), nn.Dropout(0.5)
        self.never, self.sometimes = nn.Linear(3, 3), nn.Linear(16, 16)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(torch.relu(self.norm(self.first(x.flatten(1)))))
        if self.training:
            self.steps += 1
            y = y + 0.1 * torch.randn_like(y) * torch.rand(len(y), 1)
            if self.steps % 2:
                y = y + self.sometimes(y)
        logits: Tensor = self.last(y)
        return logits


def batch_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """One number for a batch, which is not a mean over its images."""
    return cross_entropy(logits, labels) + 0.1 * logits.mean(0).pow(2).sum()


def jitter(images: Tensor, random: torch.Generator) -> Tensor:
    """An augmentation that draws numbers for the images it is given."""
    return (images + torch.randint(0, 20, (len(images), 1, 1, 1), generator=random)).clamp(0, 255).to(torch.uint8)


@dataclass
class Case:
    recipe: Recipe
    network: str = "cnn-small"
    more: dict[str, Any] = field(default_factory=dict)


CASES = {
    "convolutions": Case(replace(BASE, balance="weights", random_shift=1, random_erasing=0.5)),
    "muon, one step": Case(replace(BASE, epochs=1, last_epoch_fraction=0.2, muon_learning_rate=0.08)),
    "pruned": Case(replace(BASE, epochs=3, prune_fraction=0.6, prune_rate=0.6)),
    "dense": Case(replace(BASE, weight_decay=0.0, label_smoothing=0.0), "mlp"),
    "dense, weighted": Case(replace(BASE, weight_decay=0.0, label_smoothing=0.0, balance="weights"), "mlp"),
    "odd": Case(BASE, "odd", {"loss": batch_loss, "augment": jitter}),
    "early stopping": Case(replace(BASE, epochs=20, patience=1, learning_rate=0.05), "mlp"),
}


def images_and_labels() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, IMAGES + HELD_OUT)
    images = random.integers(0, 120, (len(labels), SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        image[(label // 2) * 6 :][:6, (label % 2) * 6 :][:, :6] += 100
    return images.astype(np.uint8), labels.astype(np.int64)


def network_of(name: str) -> nn.Module:
    if name != "odd":
        return build_network(name, ImageSpec(SIDE, SIDE), CLASSES, seed=0)
    torch.manual_seed(1)
    return Odd()


def trained(
    case: Case, workers: Workers | None, stop: Callable[[], bool] = lambda: False, **more: Any
) -> dict[str, Tensor]:
    """The weights, the losses and accuracies of the epochs, after a training."""
    images, labels = images_and_labels()
    network = network_of(case.network)
    epochs: Iterator[Any] = train(
        network, images[:IMAGES], labels[:IMAGES], case.recipe, 0, (images[IMAGES:], labels[IMAGES:]), stop=stop,
        workers=workers, **case.more, **more,
    )  # fmt: skip
    numbers = [[e.loss, e.accuracy, e.val_loss, e.val_accuracy] for e in epochs if e.finished]
    return {"epochs": torch.tensor(numbers), **{k: v.detach().clone() for k, v in network.state_dict().items()}}


class Kept(CheckpointWriter):
    """Keeps the checkpoint of the moment when a training is stopped."""

    content = b""

    def due(self) -> bool:
        return False

    def save(self, make: Callable[[], Checkpoint]) -> None:
        self.content = make().to_bytes()


def stopped(case: Case, workers: Workers | None, chunks: int, tell: bool = True) -> bytes:
    """The checkpoint of a training that was stopped after so many chunks; the first worker has it."""
    left, writer = [chunks], Kept(Path())

    def stop() -> bool:
        left[0] -= 1
        return tell and left[0] <= 0

    trained(case, workers, stop, checkpoint_writer=writer)
    return writer.content


def resumed(case: Case, workers: Workers | None, content: bytes) -> dict[str, Tensor]:
    return trained(case, workers, resume=Checkpoint.from_bytes(content) if content else None)


def main(rank: int, count: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    workers = Workers.of_process_group(torch.device("cpu"))
    for name, case in CASES.items():
        torch.save(trained(case, workers), folder / f"{rank}-{name}.pt")
    # Only the last worker says stop, and only the first gets the checkpoint.
    for name in ("pruned", "dense"):
        content = stopped(CASES[name], workers, 2, tell=rank == count - 1)
        (folder / f"{rank}-{name}.checkpoint").write_bytes(content)
        torch.save(resumed(CASES[name], workers, content), folder / f"{rank}-{name}-resumed.pt")
        alone = (folder / f"alone-{name}.checkpoint").read_bytes() if rank == 0 else b""
        torch.save(resumed(CASES[name], workers, alone), folder / f"{rank}-{name}-from-one.pt")
    errors = []
    try:
        trained(Case(replace(BASE, batch_size=2)), workers)
    except HangtagError as error:
        errors.append(f"{type(error).__name__}: {error}")
    if rank == count - 1:
        os._exit(0)  # as if killed
    try:
        trained(CASES["convolutions"], workers)
    except HangtagError as error:
        errors.append(f"{type(error).__name__}: {error}")
    (folder / f"{rank}-errors.txt").write_text("\n".join(errors))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
