"""Kill trainings at random instants until they have survived so many; each must leave what one left alone leaves.

    make soak                 (60 kills; about twenty minutes)
    python scripts/soak.py --kills 300 --seed 1

Real images, recipes `tutorial` and `fast` in turn, each on 6,000 images. Checkpoints are written after every chunk of
batches, so that many kills fall inside a save; others fall when all steps are taken and the run is finished: exported,
verified, judged. A finished run folder must hold the same files and nothing else, no checkpoint and no half-written
file. Weights, metrics and the pictures kept to explain answers must be equal bit for bit; the history but for its
times; `model.onnx` but for `created`, the second it was made in, which its metadata holds and its fingerprint covers.
Of `config.json`, which is full of dates and speeds, the status is compared. A training that ends before its kill, and
one that is killed when its status is `finished` already, counts as none.
"""

import argparse
import json
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

TESTS = 100  # images that are not trained on
RECIPES = {"tutorial": 40, "fast": 3}  # epochs: some seconds each
TIMES = ("seconds", "training_seconds", "first_step")  # of an epoch: those of the process that ended it
KILL = (0.2, 1.2)  # shares of the time of a training left alone; some must come too late, or none would ever end
LATER = 1.1  # times as late after each kill: a run ends even where the machine has become slower meanwhile


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="decides when to kill")
    parser.add_argument("--images", type=int, default=6000, help="to train on")
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
        for recipe in RECIPES:
            started = time.perf_counter()
            if begin(recipe, folder / recipe).wait():
                sys.exit(f"{recipe}: training failed, although nobody killed it")
            seconds, right = time.perf_counter() - started, contents(folder / recipe)
            if wrong := differences(right, right):
                sys.exit(f"{recipe}: although nobody killed it: {'; '.join(wrong)}")
            expected[recipe] = Alone(right, seconds)
            print(f"{recipe}: left alone it takes {seconds:.1f} s", flush=True)
        while survived.all < settings.kills:
            for recipe, alone in expected.items():
                run = folder / "killed"
                kills = killed_until_done(partial(begin, recipe, run), run, RECIPES[recipe], alone, when)
                if wrong := differences(alone.right, contents(run)):
                    sys.exit(f"{recipe}: after {kills}: {'; '.join(wrong)}")
                shutil.rmtree(run)
                survived += kills
                print(f"{recipe}: finished after {kills} with equal bits; survived in all: {survived}", flush=True)
    print(f"survived {survived} of {survived.all}")
    return None


@dataclass
class Alone:
    """A training that nobody kills: what its run folder says, and the shortest time that one took so far."""

    right: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Kills:
    """How many there were, and how many of them when all steps were taken."""

    all: int = 0
    finishing: int = 0

    def __add__(self, more: "Kills") -> "Kills":
        return Kills(self.all + more.all, self.finishing + more.finishing)

    def __str__(self) -> str:
        return f"{self.all} kills ({self.finishing} while finishing)"


def killed_until_done(
    begin: Callable[[], "subprocess.Popen[bytes]"], run: Path, epochs: int, alone: Alone, when: random.Random
) -> Kills:
    """Kills it took until the training could end; where it took none, `alone` learns how long that was."""
    kills = Kills()
    while True:
        began, process = time.perf_counter(), begin()
        try:
            process.wait(when.uniform(*KILL) * alone.seconds * LATER**kills.all)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            if (run / "config.json").is_file() and status(run / "config.json") == "finished":
                shutil.rmtree(run / "checkpoints", ignore_errors=True)  # removed last of all, and needed by nobody
                return kills
            kills += Kills(1, epochs_of(run) == epochs)
            continue
        if process.returncode:
            sys.exit(f"going on failed after {kills}: {process.args!r}")
        if not kills.all:
            alone.seconds = min(alone.seconds, time.perf_counter() - began)
        return kills


def start(images: int, recipe: str, run: Path) -> "subprocess.Popen[bytes]":
    options = ["--images", str(images), "--child", recipe, str(run)]
    return subprocess.Popen([sys.executable, "-W", "ignore", __file__, *options])


def child(recipe: str, run: Path, images: int) -> None:
    """Train, or go on training, saving as often as possible, and complete the run folder."""
    import hangtag
    from hangtag.training.engine import batches, checkpoints
    from hangtag.training.run import Training

    batches._CHUNK_PIXELS = 1_000_000
    checkpoints._FIRST_SECONDS, checkpoints._COST = 0.0, 1e9
    some = hangtag.read("fashion-mnist").take(slice(images + TESTS))
    data = replace(some, parts={"train": slice(images), "test": slice(images, images + TESTS)})
    classifier = hangtag.ImageClassifier(recipe=recipe, epochs=RECIPES[recipe], seed=1, device="cpu")
    training = Training.begin(classifier, data, {"what": "fashion-mnist", "path": None}, run)
    for _ in training.epochs():
        pass
    training.finish()


def epochs_of(run: Path) -> int:
    """Epochs that are finished."""
    history = run / "history.jsonl"
    return history.read_bytes().count(b"\n") if history.is_file() else 0


def contents(run: Path) -> dict[str, Any]:
    """What each file of a run folder says that must not depend on time; None for what does not belong there."""
    return {path.name: FILES[path.name](path) if path.name in FILES else None for path in run.iterdir()}


def differences(right: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What is wrong with a finished run folder, a sentence for each file; `right` is that of a training left alone."""
    wrong = [f"{name} is missing" for name in FILES if name not in found]
    wrong += [f"{name} was left behind" for name in sorted(found) if name not in FILES]
    wrong += [
        f"{name} is not that of a training left alone" for name in FILES if name in found and found[name] != right[name]
    ]
    return wrong


def status(config: Path) -> Any:
    return json.loads(config.read_text(encoding="utf-8"))["status"]


def untimed(history: Path) -> list[dict[str, Any]]:
    epochs = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in epoch.items() if name not in TIMES} for epoch in epochs]


def undated(model: Path) -> bytes:
    return re.sub(rb'"created": "[^"]*"', b"", model.read_bytes(), count=1)


FILES: dict[str, Callable[[Path], Any]] = {
    "config.json": status,
    "history.jsonl": untimed,
    "weights.safetensors": Path.read_bytes,
    "model.onnx": undated,
    "neighbours.npz": Path.read_bytes,
    "metrics.json": Path.read_bytes,
}
"""Those of a finished run, each with how to read what must be equal."""


if __name__ == "__main__":
    main()
