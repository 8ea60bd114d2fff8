"""Training beside one busy program, with the cores that hangtag chooses, with all and with one.

    python -m benchmarks.busy_machine [--rounds 5] [--json FILE]

A process that only computes runs beside each training, on the same cores. Each training is a fit of Fashion-MNIST
images with recipe `fast` or `tutorial`, without validation, in this process after a first one that does not count; a
round takes the three ways one after the other. The time is that of `fit`.
"""

import multiprocessing
import statistics
import time
from dataclasses import replace
from typing import Any

from benchmarks.common import Result, alone, options, publish, summary

IMAGES = {"fast": 20_000, "tutorial": 60_000}
EPOCHS = {"fast": 1, "tutorial": 6}
WAYS: dict[str, dict[str, Any]] = {"chosen": {}, "all cores": {"adapt_cores": False}, "one core": {"cores": 1}}
WANTED = 1.3  # times of the better of all and one


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    settings = parser.parse_args()
    other = multiprocessing.get_context("spawn").Process(target=compute, daemon=True)
    other.start()
    with alone():
        times = {recipe: measure(recipe, settings.rounds) for recipe in IMAGES}
    other.kill()
    publish(describe(times), settings.json)


def compute() -> None:
    while True:
        sum(range(100_000))


def measure(recipe: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, one per round."""
    fit(recipe, "all cores", 2_000)
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            times[way].append(fit(recipe, way, IMAGES[recipe]))
            print(recipe, way, f"{times[way][-1]:.1f} s", flush=True)
    return times


def fit(recipe: str, way: str, images: int) -> float:
    import hangtag
    from hangtag.training.engine.recipes import RECIPES

    changes: dict[str, Any] = {"validation": 0.0, "epochs": EPOCHS[recipe], "prune_fraction": 0.0, **WAYS[way]}
    classifier = hangtag.ImageClassifier(replace(RECIPES[recipe], **changes))
    data = hangtag.read("fashion-mnist").train
    began = time.perf_counter()
    classifier.fit(data.images[:images], data.labels[:images])
    return time.perf_counter() - began


def describe(times: dict[str, dict[str, list[float]]]) -> Result:
    rows, says, numbers = [], [], {}
    for recipe, ways in times.items():
        ratios = [
            chosen / min(both)
            for chosen, *both in zip(ways["chosen"], ways["all cores"], ways["one core"], strict=True)
        ]
        numbers[recipe] = {**{way: summary(seconds) for way, seconds in ways.items()}, "ratio": summary(ratios)}
        cells = (f"{statistics.median(seconds):.1f}" for seconds in ways.values())
        rows.append((f"`{recipe}`, {IMAGES[recipe]:,} images", *cells, str(len(ratios))))
        ratio = statistics.median(ratios)
        word = "reached" if ratio <= WANTED else "NOT REACHED"
        says.append(
            f"`{recipe}` takes {ratio:.2f} times as long as on the better of all cores and one (median of the rounds, "
            f"{min(ratios):.2f} to {max(ratios):.2f}; target: at most {WANTED:g}: {word})."
        )
    columns = ("fit", *(f"{way}, s (median)" for way in WAYS), "n")
    return Result("busy_machine", "Training beside a busy program", columns, rows, says, numbers)


if __name__ == "__main__":
    main()
