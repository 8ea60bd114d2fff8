"""Kill trainings at random moments and resume them; each must end in the same run folder as an undisturbed one.

    make soak                 (60 kills; about twenty minutes)
    python scripts/soak.py --kills 300 --seed 1

Recipes `tutorial` and `fast` take turns, each on 6,000 real images. A checkpoint follows every chunk of batches, so
many kills hit a save; others hit the export, verification or evaluation after the last step. A finished run folder must
hold the same files and nothing else: no checkpoint and no partial file. Weights, metrics and the images that explain
answers must be equal bit for bit, the history except for its times, and `model.onnx` except for its creation time. Of
`config.json`, which holds dates and speeds, only the status is compared. A kill after the end of a training, or when
its status is already `finished`, is not counted.
"""

import argparse
import json
import math
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TESTS = 100  # images that are not trained on
RECIPES = {"tutorial": 40, "fast": 3}  # epochs: some seconds each
TIMES = ("seconds", "training_seconds", "first_step")  # fields of an epoch that depend on time
KILL = (0.2, 1.2)  # shares of the time of an undisturbed training; some kills must come too late, or no run would end
LATER = 1.1  # factor on the time after each kill, so that a run ends even on a machine that has become slower


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="random seed for the moments of the kills")
    parser.add_argument("--images", type=int, default=6000, help="number of training images")
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=[*RECIPES], help="recipes to train, in turn")
    parser.add_argument("--child", nargs=2, metavar=("RECIPE", "RUN"), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        recipe, run = settings.child
        return child(recipe, Path(run), settings.images)
    begin = partial(start, settings.images)
    when, survived = random.Random(settings.seed), Kills()
    with tempfile.TemporaryDirectory(prefix="hangtag-soak-") as name:
        folder = Path(name)
        expected = {}
        for recipe in settings.recipes:
            started = time.perf_counter()
            if begin(recipe, folder / recipe).wait():
                sys.exit(f"{recipe}: training failed without a kill")
            seconds, right = time.perf_counter() - started, contents(folder / recipe)
            if wrong := differences(right, right):
                sys.exit(f"{recipe}: without a kill: {'; '.join(wrong)}")
            expected[recipe] = Alone(right, seconds)
            print(f"{recipe}: {seconds:.1f} s without kills", flush=True)
        while survived.all < settings.kills:
            for recipe, alone in expected.items():
                run = folder / "killed"
                kills = killed_until_done(partial(begin, recipe, run), run, RECIPES[recipe], alone, when)
                if wrong := differences(alone.right, contents(run)):
                    sys.exit(f"{recipe}: after {kills}: {'; '.join(wrong)}")
                shutil.rmtree(run)
                survived += kills
                print(f"{recipe}: finished after {kills} with equal bits; total: {survived}", flush=True)
    print(f"survived {survived} of {survived.all}")
    return None


@dataclass
class Alone:
    """An undisturbed training: the contents of its run folder, and the shortest time so far."""

    right: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Kills:
    """The number of kills, and how many of them came after the last training step."""

    all: int = 0
    finishing: int = 0

    def __add__(self, more: "Kills") -> "Kills":
        return Kills(self.all + more.all, self.finishing + more.finishing)

    def __str__(self) -> str:
        return f"{self.all} kills ({self.finishing} while finishing)"


def killed_until_done(
    begin: Callable[[], "subprocess.Popen[bytes]"], run: Path, epochs: int, alone: Alone, when: random.Random
) -> Kills:
    """Kill and resume a training until it ends; a training that ends without a kill updates the time in `alone`."""
    kills = Kills()
    while True:
        began, process = time.perf_counter(), begin()
        try:
            process.wait(when.uniform(*KILL) * alone.seconds * LATER**kills.all)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            if (run / "config.json").is_file() and status(run / "config.json") == "finished":
                shutil.rmtree(run / "checkpoints", ignore_errors=True)  # the last thing a training removes
                return kills
            kills += Kills(1, epochs_of(run) == epochs)
            continue
        if process.returncode:
            sys.exit(f"resuming failed after {kills}: {process.args!r}")
        if not kills.all:
            alone.seconds = min(alone.seconds, time.perf_counter() - began)
        return kills


def start(images: int, recipe: str, run: Path) -> "subprocess.Popen[bytes]":
    options = ["--images", str(images), "--child", recipe, str(run)]
    return subprocess.Popen([sys.executable, "-W", "ignore", __file__, *options])


def child(recipe: str, run: Path, images: int) -> None:
    """Train or resume, with a checkpoint as often as possible, and complete the run folder."""
    import hangtag
    from hangtag.training.engine import batches, checkpoints, cores
    from hangtag.training.run import Training

    batches._CHUNK_PIXELS = 1_000_000
    checkpoints._FIRST_SECONDS, checkpoints._COST = 0.0, 1e9
    cores._BUSY = math.inf
    first = hangtag.read("fashion-mnist").take(slice(images + TESTS))
    data = replace(first, parts={"train": slice(images), "test": slice(images, images + TESTS)})
    classifier = hangtag.ImageClassifier(recipe=recipe, epochs=RECIPES[recipe], seed=1, device="cpu")
    training = Training.begin(classifier, data, {"what": "fashion-mnist", "path": None}, run)
    for _ in training.epochs():
        pass
    training.finish()


def epochs_of(run: Path) -> int:
    """The number of finished epochs."""
    history = run / "history.jsonl"
    return history.read_bytes().count(b"\n") if history.is_file() else 0


def contents(run: Path) -> dict[str, Any]:
    """The contents of each file of a run folder without times; None for a file that does not belong there."""
    return {path.name: FILES[path.name](path) if path.name in FILES else None for path in run.iterdir()}


def differences(right: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is wrong with a finished run folder, one message per file; `right` comes from an undisturbed training."""
    wrong = [f"{name} is missing" for name in FILES if name not in found]
    wrong += [f"{name} does not belong there" for name in sorted(found) if name not in FILES]
    wrong += [
        f"{name} differs from an undisturbed training" for name in FILES if name in found and found[name] != right[name]
    ]
    return wrong


def status(config: Path) -> Any:
    return json.loads(config.read_text(encoding="utf-8"))["status"]


def untimed(history: Path) -> list[dict[str, Any]]:
    epochs = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in epochs]


def undated(model: Path) -> bytes:
    """The file without its creation time and the checksum of the whole."""
    return re.sub(rb'"created": "[^"]*"|(?<=hangtag.sha256.)[^"]{65}', b"", model.read_bytes(), count=2)


def unnamed(reference: Path) -> dict[str, bytes]:
    """The arrays without the model's fingerprint, which depends on its creation time."""
    with np.load(reference) as arrays:
        return {name: arrays[name].tobytes() for name in arrays.files if name != "model"}


FILES: dict[str, Callable[[Path], Any]] = {
    ".hangtag": Path.read_bytes,
    "config.json": status,
    "history.jsonl": untimed,
    "weights.safetensors": Path.read_bytes,
    "model.onnx": undated,
    "neighbours.npz": Path.read_bytes,
    "reference.npz": unnamed,
    "metrics.json": Path.read_bytes,
}
"""The files of a finished run, each with a function that reads what must be equal."""


if __name__ == "__main__":
    main()
