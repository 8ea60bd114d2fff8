"""What every peer's script takes and tells; it needs numpy and no framework.

A script is given a folder with train-images.npy (N, 28, 28) uint8 and train-labels.npy (N,), and test-*.npy likewise.
It prints one JSON object a line: first {"versions": {...}}, then for each epoch its number from 1, its seconds, the
training accuracy where the framework counts it, and with `--judge` the test accuracy and the seconds since the script's
training began that went into judging. The time of a whole process is taken by whoever started it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Labels = NDArray[np.int64]


class Peer:
    """One run of a peer: its settings, its data, what it tells."""

    def __init__(self, description: str | None, **options: str) -> None:
        parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
        parser.add_argument("folder", type=Path)
        parser.add_argument("--epochs", type=int, default=3)
        parser.add_argument("--seed", type=int, default=0)
        parser.add_argument("--judge", action="store_true", help="test accuracy after each epoch")
        parser.add_argument("--threads", type=int, default=0, help="0: the framework's own choice")
        for name, default in options.items():
            parser.add_argument(f"--{name.replace('_', '-')}", default=default)
        self.settings = parser.parse_args()
        self.epoch, self.judging = 0, 0.0

    def read(self, part: str) -> tuple[Pixels, Labels]:
        """(N, 28, 28) from 0 to 1, (N,)."""
        folder: Path = self.settings.folder
        images = np.load(folder / f"{part}-images.npy").astype(np.float32) / np.float32(255)
        return images, np.load(folder / f"{part}-labels.npy").astype(np.int64)

    def versions(self, *packages: str) -> None:
        """Tell which versions run."""
        tell(versions={"python": sys.version.split()[0]} | {name: version(name) for name in packages})

    def epoch_done(
        self, seconds: float, judge: Callable[[Pixels, Labels], float], accuracy: float | None = None
    ) -> None:
        """Tell of an epoch; `judge` answers the accuracy on the given images."""
        self.epoch += 1
        test_accuracy = None
        if self.settings.judge:
            began = time.perf_counter()
            test_accuracy = float(judge(*self.read("test")))
            self.judging += time.perf_counter() - began
        tell(
            epoch=self.epoch,
            seconds=seconds,
            accuracy=accuracy,
            test_accuracy=test_accuracy,
            judging_seconds=self.judging,
        )


def tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)
