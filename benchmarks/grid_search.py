"""A small grid search: four fits of the recipe `quick` beside four of scikit-learn's MLPClassifier, on 1,000 digits.

    python -m benchmarks.grid_search [--rounds 7] [--json FILE]

Both search two seeds with `GridSearchCV`, two folds, scored on the images left out. MLPClassifier has the same hidden
layer, once with its own defaults (up to 200 epochs) and once with the batch size and the epochs of `quick`. Each search
is a process of its own; the clock starts after the imports and includes all that a first fit loads. The searches are
interleaved.
"""

import resource
import time
import warnings
from typing import Any

from benchmarks.common import Result, alone, in_fresh_process, options, publish, summary

OURS, THEIRS, SHORT = "hangtag quick", "MLPClassifier", "MLPClassifier, as many epochs as quick"
AIM = 1.5  # times as long as MLPClassifier


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    settings = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {OURS: [], THEIRS: [], SHORT: []}
    with alone():
        for _ in range(settings.rounds):
            for name, runs in found.items():
                runs.append(in_fresh_process(search, name))
    publish(compare(found), settings.json)


def search(name: str) -> dict[str, float]:
    """Wall seconds and processor seconds of one search, and the mean accuracy of its four fits."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV
    from sklearn.neural_network import MLPClassifier

    from hangtag import ImageClassifier
    from hangtag.training.engine.recipes import adapt_to_size, find_recipe

    warnings.simplefilter("ignore", ConvergenceWarning)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:1000]
    images, labels = (digits.images[order] * 15.9375).astype(np.uint8), digits.target[order]
    classifier: Any = ImageClassifier("quick", device="cpu")
    grid = {"seed": [0, 1]}
    if name != OURS:
        recipe, _ = adapt_to_size(find_recipe("quick"), 450)  # a tenth of a fold's 500 images is held out
        same = {"batch_size": recipe.batch_size, "max_iter": recipe.epochs} if name == SHORT else {}
        classifier, grid = MLPClassifier((128,), **same), {"random_state": [0, 1]}
        images = images.reshape(len(images), -1) / np.float32(255)
    wall, processor = time.perf_counter(), processor_seconds()
    fitted = GridSearchCV(classifier, grid, cv=2, refit=False).fit(images, labels)
    return {
        "seconds": time.perf_counter() - wall,
        "processor": processor_seconds() - processor,
        "accuracy": float(fitted.cv_results_["mean_test_score"].mean()),
    }


def processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def compare(found: dict[str, list[dict[str, float]]]) -> Result:
    numbers = {
        name: {key: summary([run[key] for run in runs]) for key in runs[0]} for name, runs in found.items()
    }  # fmt: skip
    rows = [
        (
            name,
            *(f"{values[key]['median']:.2f}" for key in ("seconds", "processor")),
            *(f"{values['seconds'][key]:.2f}" for key in ("least", "most")),
            str(values["seconds"]["n"]),
            f"{values['accuracy']['mean']:.3f}",
        )
        for name, values in numbers.items()
    ]
    ratios = {
        peer: [numbers[OURS][key]["median"] / numbers[peer][key]["median"] for key in ("seconds", "processor")]
        for peer in (THEIRS, SHORT)
    }
    says = [
        f"hangtag takes {wall:.2f} times as long as {peer}, and {processor:.2f} times its processor time."
        for peer, (wall, processor) in ratios.items()
    ]
    reached = "reached" if ratios[THEIRS][0] <= AIM else "not reached"
    says.append(f"The aim of at most {AIM} times as long as {THEIRS} is {reached}.")
    columns = ("four fits", "seconds (median)", "processor seconds", "least", "most", "n", "accuracy")
    return Result("grid_search", "A grid search over 1,000 digits", columns, rows, says, {**numbers, "ratios": ratios})


if __name__ == "__main__":
    main()
