"""A recipe on Fashion-MNIST, `fast`, the default: seconds of training, test accuracy, peak memory.

    python -m benchmarks.fast_recipe [--seeds 5] [--json FILE] [--go-on]

Each seed trains in a process of its own on the 60,000 images less its validation split. Seconds are those of `fit`:
from images in memory to a trained network, validation after each epoch included, imports and export not. Peak memory
is the process's largest resident size (ru_maxrss), imports, data and evaluation included. Test accuracy is reported
here and nowhere used to choose anything. FILE is written after every seed; with `--go-on` the seeds it holds already
are not trained again, if they come from the same kind of machine and the same versions.
"""

import resource
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.common import Result, alone, in_fresh_process, options, publish, result_from_here, summary


@dataclass(frozen=True)
class Trained:
    seconds: float
    test_accuracy: float
    validation_accuracy: float
    peak_gb: float
    epochs: int


def main() -> None:
    measure("fast", __doc__, seeds=5, aims=Aims((0.935, 150.0, 1.2), (0.94, 60.0, 0.8)))


@dataclass(frozen=True)
class Aims:
    """Test accuracy, seconds of training, gigabytes: what is wanted at least, and what would be better."""

    least: tuple[float, float, float]
    better: tuple[float, float, float]


def measure(recipe: str, description: str | None, seeds: int, aims: Aims) -> None:
    """One process for each seed, and the summary after each."""
    parser = options(description)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument(
        "--models", type=Path, help="also keep the model files here, as benchmarks.trust looks for them"
    )
    parser.add_argument("--go-on", action="store_true", help="keep the seeds that the file of --json holds already")
    settings = parser.parse_args()
    if settings.go_on and (settings.json is None or not settings.json.is_file()):
        parser.error("--go-on needs the file of a former --json")
    found = measured_before(settings.json) if settings.go_on else []
    for seed in range(len(found), settings.seeds):
        with alone():
            found.append(in_fresh_process(train_once, recipe, seed, settings.models))
        print(f"seed {seed}: {found[-1]}", flush=True)
        publish(describe(recipe, found, aims), settings.json)


def measured_before(file: Path) -> list[Trained]:
    """The seeds in a result of this benchmark, in order.

    Raises:
        SystemExit: they were measured on another kind of machine or with other versions.
    """
    numbers = result_from_here(file)["numbers"]
    lacking = [field.name for field in fields(Trained) if field.name not in numbers]
    if lacking:
        raise SystemExit(f"{file} does not hold {lacking[0]} of its seeds: leave out --go-on")
    columns = [numbers[field.name]["values"] for field in fields(Trained)]
    return [Trained(*values) for values in zip(*columns, strict=True)]


def train_once(recipe: str, seed: int, models: Path | None) -> Trained:
    import hangtag

    data = hangtag.read("fashion-mnist")
    began = time.perf_counter()
    classifier = hangtag.ImageClassifier(recipe=recipe, seed=seed, device="cpu").fit(data.train)
    seconds = time.perf_counter() - began
    judged = classifier.evaluate(data.test)
    peak = peak_gb()
    if models is not None:
        models.mkdir(parents=True, exist_ok=True)
        classifier.save(models / f"{recipe}-{seed}.onnx")
    last = classifier.history_[-1]
    assert last.val_accuracy is not None
    return Trained(seconds, judged.accuracy, last.val_accuracy, peak, last.epochs)


def peak_gb() -> float:
    """The largest resident size of this process so far, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe(recipe: str, found: list[Trained], aims: Aims) -> Result:
    rows: list[tuple[str, ...]] = []
    numbers: dict[str, Any] = {"epochs": summary([one.epochs for one in found])}
    for name, key, digits in (
        ("test accuracy", "test_accuracy", 4),
        ("validation accuracy", "validation_accuracy", 4),
        ("seconds of training", "seconds", 1),
        ("peak memory, GB", "peak_gb", 2),
    ):
        values = numbers[key] = summary([asdict(one)[key] for one in found])
        mean, median, least, most = (f"{values[part]:.{digits}f}" for part in ("mean", "median", "least", "most"))
        sd = "-" if values["sd"] is None else f"{values['sd']:.{digits}f}"
        rows.append((name, mean, sd, median, least, most, str(values["n"])))
    columns = ("quantity", "mean", "sd", "median", "least", "most", "seeds")
    title = f"Recipe `{recipe}` on Fashion-MNIST, {found[0].epochs} epochs"
    says = [verdict(numbers, aims), "Test accuracy is reported, never used to choose."]
    return Result(f"{recipe}_recipe", title, columns, rows, says, numbers)


def verdict(numbers: dict[str, Any], aims: Aims) -> str:
    """What was wanted, and whether the means reach it."""
    accuracy, seconds, gigabytes = (numbers[key]["mean"] for key in ("test_accuracy", "seconds", "peak_gb"))

    def reached(wanted: tuple[float, float, float]) -> bool:
        return bool(accuracy >= wanted[0] and seconds <= wanted[1] and gigabytes <= wanted[2])

    words = " in ".join((f"{aims.least[0]:.1%}", f"{aims.least[1]:.0f} s"))
    more = " in ".join((f"{aims.better[0]:.1%}", f"{aims.better[1]:.0f} s"))
    result = "the aim is reached" if reached(aims.better) else "reached" if reached(aims.least) else "NOT REACHED"
    return (
        f"Wanted on two cores, as means: {words} and at most {aims.least[2]:g} GB; better {more} and "
        f"{aims.better[2]:g} GB: {result}."
    )


if __name__ == "__main__":
    main()
