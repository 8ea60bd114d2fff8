"""What export and judging take after a training on a GPU, with the network's side there and on the processor.

    python -m benchmarks.gpu_judging [--recipe best] [--rounds 3] [--json FILE]

One network of the recipe is trained for one epoch on Fashion-MNIST; its size is that of a full training. Then the same
network is exported, verified and judged on the 10,000 test images, in turns with its answers computed on the GPU and
on the processor (parameter `device`). The file's side runs on the processor both times, as it does for users. A round
before these is not counted. Without a GPU it says so and ends with status 3.
"""

import sys
import time
from typing import Any

from benchmarks.common import NO_GPU, Result, alone, in_fresh_process, options, publish, summary
from benchmarks.gpu_recipes import gpu_name

DEVICES = ("cuda", "cpu")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--recipe", default="best")
    parser.add_argument("--rounds", type=int, default=3)
    settings = parser.parse_args()
    gpu = in_fresh_process(gpu_name)
    if gpu is None:
        print("skipped gpu_judging: no GPU here")
        sys.exit(NO_GPU)
    with alone():
        found = in_fresh_process(measure, settings.recipe, settings.rounds, DEVICES)
    publish(describe(found, settings.recipe, gpu), settings.json)


def measure(recipe: str, rounds: int, devices: tuple[str, ...]) -> dict[str, Any]:
    """Seconds of each device: `export`, with verification on the held-out images, and `judge`, on the test images."""
    import hangtag

    data = hangtag.read("fashion-mnist")
    classifier = hangtag.ImageClassifier(recipe=recipe, epochs=1, seed=0, device=devices[0], verbose=0)
    classifier.fit(data.train)
    found: dict[str, Any] = {device: {"export": [], "judge": []} for device in devices}
    for number in range(rounds + 1):
        for device in devices if number % 2 else devices[::-1]:
            classifier.device = device
            classifier._export = classifier._content = classifier._predictor = None  # so that all is done again
            began = time.perf_counter()
            classifier.to_bytes()
            exported = time.perf_counter()
            accuracy = classifier.evaluate(data.test).accuracy
            seconds = {"export": exported - began, "judge": time.perf_counter() - exported}
            print(device, *(f"{part} {took:.1f} s" for part, took in seconds.items()), file=sys.stderr, flush=True)
            if number:
                for part, took in seconds.items():
                    found[device][part].append(took)
                found[device]["accuracy"] = accuracy
    return found


def describe(found: dict[str, Any], recipe: str, gpu: str) -> Result:
    numbers: dict[str, Any] = {"gpu": gpu, "recipe": recipe}
    rows = []
    for device, seconds in found.items():
        numbers[device] = {part: summary(seconds[part]) for part in ("export", "judge")}
        cells = (f"{numbers[device][part]['median']:.2f}" for part in ("export", "judge"))
        rows.append((device, *cells, f"{seconds['accuracy']:.4f}", str(len(seconds["export"]))))
    columns = ("network's side on", "export and verification, s (median)", "test images, s", "test accuracy", "n")
    title = f"Export and judging of `{recipe}`, {gpu}"
    return Result("gpu_judging", title, columns, rows, ["The network was trained for one epoch."], numbers)


if __name__ == "__main__":
    main()
