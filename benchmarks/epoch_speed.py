"""Seconds per epoch of the lesson's training: recipe `tutorial` against Keras 3 on TensorFlow, on the same CPU.

    make bench-peers                                                    # once: the peers' environment
    python -m benchmarks.epoch_speed [--rounds 5] [--epochs 3] [--json FILE]

Same network, optimizer, batch size (32) and images. A round starts one process for hangtag and one for each way of
running Keras, one after the other, so that a slow minute of the machine hits all of them; a process's number is the
median of its epochs after the first, which compiles. hangtag's epochs are short, so it runs four times as many, to be
timed for about as long as Keras is. The ratio is taken within a round, then the median over rounds.
Keras runs as the lesson writes it and with the settings its documentation names for speed; the fastest counts as its
best. Drawing is off on both sides. `HANGTAG_PEERS_PYTHON` names another Python with Keras and TensorFlow in it.

A round is repeated when other processes took more than 10 % of the processors beside any one side, whatever the times
were; after twice as many rounds as asked for, the least disturbed count. How disturbed they were is said in the result.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Others, Result, alone, in_fresh_process, options, publish, summary

ROOT = Path(__file__).resolve().parent.parent
LESSON = "Keras, as in the lesson"  # jit_compile="auto", which is on for this network
WAYS = {
    LESSON: "",
    "Keras, jit_compile=False": "--jit off",
    "Keras, steps_per_execution=75": "--steps-per-execution 75",
    "Keras, steps_per_execution=75, jit_compile=False": "--steps-per-execution 75 --jit off",
    "Keras, steps_per_execution=75, one thread": "--steps-per-execution 75 --threads 1",
    "Keras, steps_per_execution=75, jit_compile=False, one thread": "--steps-per-execution 75 --jit off --threads 1",
}
HANGTAG = "hangtag, recipe `tutorial`"
DISTURBED = 0.1  # share of the processors that others may take during a round


@dataclass(frozen=True)
class Round:
    seconds: dict[str, float]  # per epoch, of each side
    others: float  # largest share of the processors that other processes took beside one of the sides

    def __str__(self) -> str:
        times = ", ".join(f"{value:.3f}" for value in self.seconds.values())
        return f"{times} s; others took at most {self.others:.0%} of the processors"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=3, help="at least 2: the first does not count")
    settings = parser.parse_args()
    peer = peers_python()
    if peer is None:
        sys.exit("skipped epoch_speed: no Python with Keras and TensorFlow; make one: make bench-peers")
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="hangtag-bench-") as name:
        folder = Path(name)
        in_fresh_process(write_arrays, folder)
        while sum(one.others <= DISTURBED for one in rounds) < settings.rounds and len(rounds) < 2 * settings.rounds:
            rounds.append(measure_round(peer, folder, settings.epochs))
            print(f"round {len(rounds)}: {rounds[-1]}", flush=True)
    publish(compare(rounds, settings.rounds, versions_of(peer)), settings.json)


def measure_round(peer: Path, folder: Path, epochs: int) -> Round:
    """Every side once."""
    with alone():
        watch = Others()
        seconds = {HANGTAG: steady(in_fresh_process(hangtag_epochs, 1 + 4 * (epochs - 1)))}
        others = watch.share()
        for way, arguments in WAYS.items():
            watch = Others()
            seconds[way] = steady(keras_epochs(peer, folder, epochs, arguments))
            others = max(others, watch.share())
        return Round(seconds, others)


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


def keras_epochs(python: Path, folder: Path, epochs: int, arguments: str) -> list[float]:
    """Seconds of each epoch, from `peers/keras_lesson.py`."""
    script = Path(__file__).with_name("peers") / "keras_lesson.py"
    command = [str(python), str(script), str(folder), "--epochs", str(epochs), *arguments.split()]
    outcome = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds: list[float] = json.loads(outcome.stdout.splitlines()[-1])["seconds"]
    return seconds


def versions_of(python: Path) -> dict[str, str]:
    """Versions of Keras and TensorFlow in the peers' environment."""
    code = (
        "from importlib.metadata import distributions as d, version; import json;"
        "names = {x.metadata['Name'] for x in d()} & {'keras', 'tensorflow', 'tensorflow-cpu', 'tensorflow_cpu'};"
        "print(json.dumps({name: version(name) for name in sorted(names)}))"
    )
    outcome = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(outcome.stdout)
    return found


def steady(seconds: list[float]) -> float:
    """The median epoch after the first."""
    return statistics.median(seconds[1:])


def compare(rounds: list[Round], wanted: int, peer_versions: dict[str, str]) -> Result:
    counted = sorted(rounds, key=lambda one: one.others)[:wanted]
    seconds = {name: [one.seconds[name] for one in counted] for name in (HANGTAG, *WAYS)}
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
        f"{len(counted)} of {len(rounds)} rounds counted, those least disturbed: other processes took at most "
        f"{max(one.others for one in counted):.0%} of the processors from any side.",
        "Keras in its own environment: "
        + ", ".join(f"{name} {version}" for name, version in peer_versions.items())
        + ".",
    ]
    numbers["best"], numbers["peer_versions"] = best, peer_versions
    numbers["rounds"] = [asdict(one) for one in rounds]
    columns = ("side", "seconds per epoch (median)", "rounds", "of hangtag's time", "per round")
    return Result("epoch_speed", "An epoch of the lesson's training, batch 32", columns, rows, says, numbers)


if __name__ == "__main__":
    main()
