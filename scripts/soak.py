"""Kill trainings at random instants until they have survived so many; the weights must be those of one left alone.

    make soak                 (60 kills; about ten minutes)
    python scripts/soak.py --kills 300 --seed 1

Real images, recipes `tutorial` and `fast` in turn, each on 6,000 images. Checkpoints are written after every chunk of
batches, so that many kills fall inside a save. A training that ends before its kill counts as none.
"""

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

TESTS = 100  # images that are not trained on
RECIPES = {"tutorial": 40, "fast": 3}  # epochs: some seconds each


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="decides when to kill")
    parser.add_argument("--images", type=int, default=6000, help="to train on")
    parser.add_argument("--child", nargs=2, metavar=("RECIPE", "RUN"), help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        recipe, run = settings.child
        return child(recipe, run, settings.images)
    begin = partial(start, settings.images)
    when, survived = random.Random(settings.seed), 0
    with tempfile.TemporaryDirectory(prefix="hangtag-soak-") as name:
        folder = Path(name)
        expected = {}
        for recipe in RECIPES:
            started = time.perf_counter()
            if begin(recipe, folder / recipe).wait():
                sys.exit(f"{recipe}: training failed, although nobody killed it")
            expected[recipe] = (weights(folder / recipe), time.perf_counter() - started)
            print(f"{recipe}: left alone it takes {expected[recipe][1]:.1f} s", flush=True)
        while survived < settings.kills:
            for recipe, (right, seconds) in expected.items():
                kills = killed_until_done(partial(begin, recipe, folder / "killed"), seconds, when)
                if weights(folder / "killed") != right:
                    sys.exit(f"{recipe}: after {kills} kills the weights are not those of a training left alone")
                shutil.rmtree(folder / "killed")
                survived += kills
                print(f"{recipe}: finished after {kills} kills with equal bits; {survived} survived in all", flush=True)
    print(f"survived {survived} of {survived} kills")
    return None


def killed_until_done(begin: Callable[[], "subprocess.Popen[bytes]"], seconds: float, when: random.Random) -> int:
    """Kills it took until the training could end."""
    kills = 0
    while True:
        process = begin()
        try:
            process.wait(when.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        if process.returncode:
            sys.exit(f"going on failed after {kills} kills: {process.args!r}")
        return kills


def start(images: int, recipe: str, run: Path) -> "subprocess.Popen[bytes]":
    options = ["--images", str(images), "--child", recipe, str(run)]
    return subprocess.Popen([sys.executable, "-W", "ignore", __file__, *options])


def child(recipe: str, run: str, images: int) -> None:
    """Train, or go on training, saving as often as possible."""
    import hangtag
    from hangtag import batches, checkpoints
    from hangtag.lifecycle import Training
    from hangtag.runs import Run

    batches._CHUNK_PIXELS = 1_000_000
    checkpoints._FIRST_SECONDS, checkpoints._COST = 0.0, 1e9
    if (Path(run) / "config.json").is_file() and Run(Path(run)).config()["status"] == "finished":
        return  # the kill came after the end
    some = hangtag.read("fashion-mnist").take(slice(images + TESTS))
    data = replace(some, parts={"train": slice(images), "test": slice(images, images + TESTS)})
    classifier = hangtag.ImageClassifier(recipe=recipe, epochs=RECIPES[recipe], seed=1, device="cpu")
    training = Training(classifier, data, {"what": "fashion-mnist", "path": None}, Path(run))
    for _ in training.epochs():
        pass
    training.run.write_weights(b"".join(value.numpy().tobytes() for value in classifier.network_.state_dict().values()))
    config = training.run.config()
    training.run.write_config({**config, "status": "finished"})


def weights(run: Path) -> str:
    return hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
