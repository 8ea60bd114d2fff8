"""The recipe `fast`, the default: seconds of training, test accuracy, peak memory.

    python -m benchmarks.fast_recipe [--seeds 3] [--json FILE]

Each seed trains in a process of its own on the 60,000 images less its validation split. Seconds are those of `fit`:
from images in memory to a trained network, validation after each epoch included, imports and export not. Peak memory
is the process's largest resident size (ru_maxrss), imports, data and evaluation included. Test accuracy is reported
here and nowhere used to choose anything.
"""

import resource
import sys
import time
from dataclasses import asdict, dataclass

from benchmarks.common import Result, alone, in_fresh_process, options, publish, summary


@dataclass(frozen=True)
class Trained:
    seconds: float
    test_accuracy: float
    validation_accuracy: float
    peak_gb: float
    epochs: int


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    settings = parser.parse_args()
    found = []
    for seed in range(settings.seeds):
        with alone():
            found.append(in_fresh_process(train_once, seed))
        print(f"seed {seed}: {found[-1]}", flush=True)
    publish(describe(found), settings.json)


def train_once(seed: int) -> Trained:
    import hangtag

    data = hangtag.read("fashion-mnist")
    began = time.perf_counter()
    classifier = hangtag.ImageClassifier(recipe="fast", seed=seed, device="cpu").fit(data.train)
    seconds = time.perf_counter() - began
    judged = classifier.evaluate(data.test)
    last = classifier.history_[-1]
    assert last.val_accuracy is not None
    return Trained(seconds, judged.accuracy, last.val_accuracy, peak_gb(), last.epochs)


def peak_gb() -> float:
    """The largest resident size of this process so far, in 10^9 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe(found: list[Trained]) -> Result:
    rows, numbers = [], {}
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
    title = f"Recipe `fast` on Fashion-MNIST, {found[0].epochs} epochs"
    return Result("fast_recipe", title, columns, rows, ["Test accuracy is reported, never used to choose."], numbers)


if __name__ == "__main__":
    main()
