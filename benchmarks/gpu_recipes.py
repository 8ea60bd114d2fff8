"""Recipes on one GPU: test accuracy of `best`, and how long it takes to 94 % and 95 % of Fashion-MNIST's test images.

    python -m benchmarks.gpu_recipes [--seeds 5] [--json FILE] [--go-on]

`fast`, `accurate` and `best` are trained in full, each seed in a process of its own, on the 60,000 images less their
validation split. A process starts Python, imports, reads the data; warms up, by one epoch of the same recipe whose
network is thrown away: it starts the GPU and chooses kernels; then trains. The times are kept apart. *Training* is
`fit` alone: from images in memory to a trained network in memory, validation after each epoch included, warm-up and
export not. *From starting the process* is everything until then, the warm-up included.

The time to an accuracy is the training of the quickest of these recipes whose mean is there; no training is stopped
for it. Test accuracy, of the model file, is reported and nowhere used to choose a setting. FILE is written after every
seed; with `--go-on` the seeds it holds already are not trained again. Without a GPU it says so and ends with status 3.
"""

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import NO_GPU, Result, alone, in_fresh_process, options, publish, result_from_here, summary

RECIPES = ("fast", "accurate", "best")
BEST_WANTED, BEST_BETTER = 0.963, 0.9691  # test accuracy of `best`: at least; above
TIMES = {0.94: (10.0, 2.0), 0.95: (30.0, 8.0)}  # test accuracy: seconds of training at most; better


@dataclass(frozen=True)
class Trained:
    """One seed of a recipe.

    Attributes:
        start_seconds: from starting the process until the data is read.
        warm_up_seconds: then, of an epoch that is thrown away.
        training_seconds: then, of `fit`.
        peak_gb: 10^9 bytes, the most that tensors took on the GPU.
    """

    test_accuracy: float
    validation_accuracy: float
    start_seconds: float
    warm_up_seconds: float
    training_seconds: float
    peak_gb: float
    epochs: int

    @property
    def whole_seconds(self) -> float:
        return self.start_seconds + self.warm_up_seconds + self.training_seconds


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--go-on", action="store_true", help="keep the seeds that the file of --json holds already")
    settings = parser.parse_args()
    if settings.go_on and (settings.json is None or not settings.json.is_file()):
        parser.error("--go-on needs the file of a former --json")
    gpu = in_fresh_process(gpu_name)
    if gpu is None:
        print("skipped gpu_recipes: no GPU here")
        sys.exit(NO_GPU)
    found = measured_before(settings.json, gpu) if settings.go_on else {name: [] for name in RECIPES}
    for recipe, trained in found.items():
        for seed in range(len(trained), settings.seeds):
            with alone():
                trained.append(in_fresh_process(train_once, recipe, seed, time.time()))
            print(f"{recipe}, seed {seed}: {trained[-1]}", flush=True)
            publish(describe(found, gpu), settings.json)


def gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def measured_before(file: Path, gpu: str) -> dict[str, list[Trained]]:
    """The seeds of each recipe in a result of this benchmark, in order.

    Raises:
        SystemExit: they were measured on another kind of machine or GPU, or with other versions.
    """
    numbers = result_from_here(file)["numbers"]
    if numbers["gpu"] != gpu:
        raise SystemExit(f"{file} was measured on one {numbers['gpu']}; this is {gpu}: leave out --go-on")
    return {name: [Trained(**seed) for seed in numbers["seeds"].get(name, [])] for name in RECIPES}


def train_once(recipe: str, seed: int, started: float, device: str = "cuda") -> Trained:
    """In a process that was started at `started`, in seconds of `time.time`."""
    import hangtag
    from hangtag.training.engine.loop import choose_device
    from hangtag.training.engine.speed import peak_memory

    data = hangtag.read("fashion-mnist")
    training = data.train
    read = time.time()
    hangtag.ImageClassifier(recipe=recipe, epochs=1, seed=seed, device=device).fit(training)
    warm = time.time()
    classifier = hangtag.ImageClassifier(recipe=recipe, seed=seed, device=device).fit(training)
    trained = time.time()
    last, peak = classifier.history_[-1], peak_memory(choose_device(device))
    assert last.val_accuracy is not None and peak is not None
    accuracy = classifier.evaluate(data.test).accuracy
    return Trained(accuracy, last.val_accuracy, read - started, warm - read, trained - warm, peak / 1e9, last.epochs)


def describe(found: dict[str, list[Trained]], gpu: str) -> Result:
    """The table and its conclusions; recipes without a seed are left out."""
    numbers: dict[str, Any] = {"gpu": gpu}
    rows: list[tuple[str, ...]] = []
    for recipe, seeds in found.items():
        if not seeds:
            continue
        columns = {key: summary([getattr(one, key) for one in seeds]) for key in QUANTITIES}
        numbers[recipe] = columns
        cells = (f"{columns[key]['mean']:{form}} ({sd(columns[key], form)})" for key, form in QUANTITIES.items())
        rows.append((f"`{recipe}`", str(seeds[0].epochs), *cells, str(len(seeds))))
    numbers["quickest"] = {f"{accuracy:g}": quickest(numbers, accuracy) for accuracy in TIMES}
    numbers["seeds"] = {recipe: [asdict(one) for one in seeds] for recipe, seeds in found.items()}
    columns_ = ("recipe", "epochs", *HEADINGS, "seeds")
    return Result("gpu_recipes", f"Recipes on one GPU, {gpu}", columns_, rows, conclusions(numbers), numbers)


QUANTITIES = {
    "test_accuracy": ".4f", "validation_accuracy": ".4f", "training_seconds": ".2f", "whole_seconds": ".1f",
    "start_seconds": ".1f", "warm_up_seconds": ".1f", "peak_gb": ".2f",
}  # fmt: skip
HEADINGS = (
    "test accuracy: mean (sd)", "validation accuracy", "training, s", "from starting the process, s",
    "of it start and reading, s", "of it warm-up, s", "GPU memory, GB",
)  # fmt: skip


def sd(found: dict[str, Any], form: str) -> str:
    """In words; a single measurement has none."""
    return "-" if found["sd"] is None else f"{found['sd']:{form}}"


def quickest(numbers: dict[str, Any], accuracy: float) -> str | None:
    """The recipe with the shortest training whose mean test accuracy is there; None where there is none."""
    there = [name for name in RECIPES if name in numbers and numbers[name]["test_accuracy"]["mean"] >= accuracy]
    return min(there, key=lambda name: numbers[name]["training_seconds"]["mean"], default=None)


def conclusions(numbers: dict[str, Any]) -> list[str]:
    says = []
    if "best" in numbers:
        found = numbers["best"]["test_accuracy"]
        word = verdict(found["mean"] >= BEST_WANTED, found["mean"] > BEST_BETTER)
        says.append(
            f"`best` has {found['mean']:.2%} of the test images right (sd {sd(found, '.2%')}, n = {found['n']}; "
            f"wanted {BEST_WANTED:.1%}, better above {BEST_BETTER:.2%}: {word})."
        )
    for accuracy, (wanted, better) in TIMES.items():
        name = numbers["quickest"][f"{accuracy:g}"]
        aims = f"wanted {wanted:g} s, better {better:g} s"
        if name is None:
            says.append(f"To {accuracy:.0%} of the test images: no recipe's mean is there ({aims}: NOT REACHED).")
            continue
        training, whole = numbers[name]["training_seconds"], numbers[name]["whole_seconds"]
        word = verdict(training["mean"] <= wanted, training["mean"] <= better)
        says.append(
            f"To {accuracy:.0%} of the test images: {training['mean']:.2f} s of training (sd {sd(training, '.2f')}, "
            f"n = {training['n']}) with `{name}`, the quickest whose mean is there; {whole['mean']:.1f} s from "
            f"starting the process, warm-up included ({aims} of training: {word})."
        )
    return [
        *says,
        "Warm-up: one epoch of the same recipe whose network is thrown away; it starts the GPU and chooses kernels.",
        "Test accuracy is reported, never used to choose a setting.",
    ]


def verdict(least: bool, better: bool) -> str:
    return "the aim is reached" if better else "reached" if least else "NOT REACHED"


if __name__ == "__main__":
    main()
