"""One training on two workers against one worker on the same two cores: speed, accuracy, weights.

    python -m benchmarks.cluster_training                     5 seeds of `fast` on Fashion-MNIST; about half an hour
    python -m benchmarks.cluster_training --seeds 2 --epochs 1 --set prune_fraction=0     a quick look

Every training is the command of a user, in a process of its own; both kinds take turns. Two workers have one thread
each (`--workers 2 --cpus 1 --ray`), one worker has two threads. The speed is that of the steps, as `config.json`
records it: starting Ray and its workers is not in it, and is shown on its own. The weights after one epoch are compared
with those of one worker, and beside it those of one thread with those of two, because the last digits depend on both.
The machine must be quiet: workers wait for each other after every step.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from benchmarks.common import Result, alone, options, publish
from scipy import stats

KINDS: dict[str, tuple[list[str], int]] = {
    "one worker, two threads": (["--set", "cores=2"], 2),
    "two workers, one thread each": (["--workers", "2", "--cpus", "1", "--ray"], 1),
}
ONE_THREAD = (["--set", "cores=1"], 1)


@dataclass(frozen=True)
class Trained:
    """What one training found: images a second, test accuracy, seconds besides the steps, and the weights."""

    speed: float
    accuracy: float
    around: float
    weights: dict[str, Any]


def train(data: str, seed: int, arguments: list[str], threads: int, more: list[str]) -> Trained:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder, alone():
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "hangtag", "train", data, "--recipe", "fast", "--seed", str(seed)]
        command += ["--set", "adapt_cores=no", "--out", str(run), *arguments, *more]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        config, metrics = (json.loads((run / f"{name}.json").read_text()) for name in ("config", "metrics"))
        history = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
        weights = safetensors.numpy.load_file(run / "weights.safetensors")
    steps = sum(line["seconds"] for line in history)
    return Trained(
        config["speed"]["images_per_second"], metrics["accuracy"], config["seconds"]["train"] - steps, weights
    )


def distance(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """How far weights are from each other, relative to the size of the array that they are in."""
    apart = [
        float(np.linalg.norm(one[name] - other[name])) / max(float(np.linalg.norm(one[name])), 1e-12)
        for name in one
        if one[name].dtype.kind == "f"
    ]
    return {"median": statistics.median(apart), "largest": max(apart)}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe, name=value")
    given = parser.parse_args()
    more = [part for setting in given.set for part in ("--set", setting)]
    epochs = ["--epochs", str(given.epochs)] if given.epochs else []
    found: dict[str, list[Trained]] = {kind: [] for kind in KINDS}
    for seed in range(given.seeds):
        order = list(KINDS.items())
        for kind, (arguments, threads) in order if seed % 2 else reversed(order):
            found[kind].append(train(given.data, seed, arguments, threads, [*more, *epochs]))
            print(f"seed {seed}, {kind}: {found[kind][-1].speed:,.0f} images/s, {found[kind][-1].accuracy:.4f}")
    plain = [*more, "--epochs", "1", "--set", "bfloat16=no", "--set", "muon_learning_rate=0"]
    first = {
        kind: train(given.data, 0, *how, plain).weights for kind, how in {**KINDS, "one thread": ONE_THREAD}.items()
    }
    one, two = found.values()
    ratios = [b.speed / a.speed for a, b in zip(one, two, strict=True)]
    accuracies = {kind: [each.accuracy for each in trained] for kind, trained in found.items()}
    p = float(stats.ttest_ind(*accuracies.values(), equal_var=False).pvalue) if given.seeds > 1 else float("nan")
    of_workers = distance(first["one thread"], first["two workers, one thread each"])
    of_threads = distance(first["one thread"], first["one worker, two threads"])
    length = f"epochs: {given.epochs}" if given.epochs else "all epochs"
    publish(
        Result(
            "cluster_training",
            f"One training on two workers against one, fast on {given.data}, {length}, n = {given.seeds} seeds",
            ("", "images/s, median", "test accuracy, mean", "seconds besides epochs, median"),
            [
                (
                    kind,
                    f"{statistics.median(each.speed for each in trained):,.0f}",
                    f"{statistics.mean(accuracies[kind]):.4f}",
                    f"{statistics.median(each.around for each in trained):.1f}",
                )
                for kind, trained in found.items()
            ],
            [
                f"Two workers take {statistics.median(ratios):.2f} times as many images a second as one "
                f"(median of {len(ratios)} pairs; {min(ratios):.2f} to {max(ratios):.2f}).",
                f"Accuracies: Welch's t-test, p = {p:.2f}.",
                f"Weights after an epoch of float32 and Adam: relative distance of an array {of_workers['median']:.1e} "
                f"(largest {of_workers['largest']:.1e}) between one and two workers, {of_threads['median']:.1e} "
                f"(largest {of_threads['largest']:.1e}) between one and two threads of one worker.",
            ],
            {
                "speed": {kind: [each.speed for each in trained] for kind, trained in found.items()},
                "accuracy": accuracies,
                "welch_p": p,
                "weights": {"workers": of_workers, "threads": of_threads},
            },
        ),
        given.json,
    )


if __name__ == "__main__":
    main()
