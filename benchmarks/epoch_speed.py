"""Seconds per epoch of the lesson's training: recipe `tutorial` against Keras 3 on TensorFlow, on the same CPU.

    make bench-peers                                                    # once: the peers' environment
    python -m benchmarks.epoch_speed [--rounds 5] [--epochs 3] [--json FILE]

Same network, optimizer, batch size (32) and images. A round starts one process for hangtag and one for each way of
running Keras, one after the other, so that a slow minute of the machine hits all of them; a process's number is the
median of its epochs after the first, which compiles. The ratio is taken within a round, then the median over rounds.
Keras runs as the lesson writes it and with the settings its documentation names for speed; the fastest counts as its
best. Drawing is off on both sides. `HANGTAG_PEERS_PYTHON` names another Python with Keras and TensorFlow in it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import Result, alone, in_fresh_process, options, publish, summary

ROOT = Path(__file__).resolve().parent.parent
LESSON = "Keras, as in the lesson"
WAYS = {
    LESSON: "",
    "Keras, jit_compile=True": "--jit on",
    "Keras, jit_compile=False": "--jit off",
    "Keras, steps_per_execution=75": "--steps-per-execution 75",
    "Keras, steps_per_execution=75, jit_compile=False": "--steps-per-execution 75 --jit off",
    "Keras, steps_per_execution=75, one thread": "--steps-per-execution 75 --threads 1",
    "Keras, steps_per_execution=75, jit_compile=False, one thread": "--steps-per-execution 75 --jit off --threads 1",
}
HANGTAG = "hangtag, recipe `tutorial`"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="at least 2: the first does not count")
    settings = parser.parse_args()
    peer = peers_python()
    if peer is None:
        sys.exit("skipped epoch_speed: no Python with Keras and TensorFlow; make one: make bench-peers")
    seconds: dict[str, list[float]] = {name: [] for name in (HANGTAG, *WAYS)}
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        folder = Path(name)
        in_fresh_process(write_arrays, folder)
        for number in range(1, settings.rounds + 1):
            with alone():
                seconds[HANGTAG].append(steady(in_fresh_process(hangtag_epochs, settings.epochs)))
                for way, arguments in WAYS.items():
                    answer = keras_epochs(peer, folder, settings.epochs, arguments)
                    seconds[way].append(steady(answer["seconds"]))
            print(f"round {number}: " + ", ".join(f"{values[-1]:.3f}" for values in seconds.values()), flush=True)
    publish(compare(seconds, answer["versions"]), settings.json)


def peers_python() -> Path | None:
    """The Python that has Keras and TensorFlow, if there is one."""
    named = os.environ.get("HANGTAG_PEERS_PYTHON")
    python = Path(named) if named else ROOT / ".venv-peers" / "bin" / "python"
    return python if python.is_file() else None


def write_arrays(folder: Path) -> None:
    """The training images and labels as files that need no hangtag to read."""
    import numpy as np

    import hangtag

    train = hangtag.read("fashion-mnist").train
    np.save(folder / "images.npy", np.array(train.images))
    np.save(folder / "labels.npy", train.labels.astype(np.uint8))


def hangtag_epochs(epochs: int) -> list[float]:
    """Seconds of each epoch."""
    import hangtag

    train = hangtag.read("fashion-mnist").train
    classifier = hangtag.ImageClassifier(recipe="tutorial", epochs=epochs, device="cpu").fit(train)
    return [epoch.seconds for epoch in classifier.history_]


def keras_epochs(python: Path, folder: Path, epochs: int, arguments: str) -> dict[str, Any]:
    """What `peers/keras_lesson.py` prints."""
    script = Path(__file__).with_name("peers") / "keras_lesson.py"
    command = [str(python), str(script), str(folder), "--epochs", str(epochs), *arguments.split()]
    outcome = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return answer


def steady(seconds: list[float]) -> float:
    """The median epoch after the first."""
    return statistics.median(seconds[1:])


def compare(seconds: dict[str, list[float]], peer_versions: dict[str, str]) -> Result:
    ours = seconds[HANGTAG]
    rows = []
    numbers: dict[str, Any] = {}
    for name, values in seconds.items():
        ratios = [value / own for value, own in zip(values, ours, strict=True)]
        found, ratio = summary(values), summary(ratios)
        numbers[name] = {"seconds": found, "ratio": ratio}
        spread = f"{ratio['least']:.1f}-{ratio['most']:.1f}"
        rows.append((name, f"{found['median']:.3f}", str(found["n"]), f"{ratio['median']:.1f}x", spread))
    best = min(WAYS, key=lambda way: statistics.median(seconds[way]))
    says = [
        f"hangtag is {numbers[LESSON]['ratio']['median']:.1f}x faster than the lesson as written (median of rounds), "
        f"and {numbers[best]['ratio']['median']:.1f}x faster than the fastest way found to run it: {best}.",
        "Keras in its own environment: " + ", ".join(f"{name} {version}" for name, version in peer_versions.items()),
    ]
    numbers["best"], numbers["peer_versions"] = best, peer_versions
    columns = ("side", "seconds per epoch (median)", "rounds", "of hangtag's time", "per round")
    return Result("epoch_speed", "An epoch of the lesson's training, batch 32", columns, rows, says, numbers)


if __name__ == "__main__":
    main()
