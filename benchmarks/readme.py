"""The README's table of figures, made from `results/*.json`: what it claims is what was measured.

It stands between two markers; `run_all.py` writes it anew, and a test compares the two.
"""

import re
from collections.abc import Callable
from typing import Any

__all__ = ["renewed", "table"]

BEGIN, END = "<!-- figures: written by benchmarks/run_all.py -->", "<!-- end of figures -->"
Results = dict[str, dict[str, Any]]
Row = tuple[str, str, str, str]


def renewed(readme: str, results: Results) -> str:
    """The README's text with the table between its markers made anew."""
    found = re.fullmatch(f"(.*{re.escape(BEGIN)}\n).*(\n{re.escape(END)}.*)", readme, re.DOTALL)
    if found is None:
        raise ValueError(f"the README has no lines {BEGIN} and {END}")
    return found[1] + table(results) + found[2]


def table(results: Results) -> str:
    """Rows for what was measured; results by a benchmark's name, each as it is in its file.

    Those of another processor than most say so.
    """
    processors = {name: result["machine"]["processor"] for name, result in results.items() if name in MAKERS}
    usual = max(processors.values(), key=list(processors.values()).count, default="")
    rows: list[Row] = []
    for name, make in MAKERS.items():
        made = make(results[name]["numbers"]) if name in results else []
        if made and name != "gpu_recipes" and processors[name] != usual:
            made = [
                (f"{what}, on {plain(processors[name])}", ours, theirs, times) for what, ours, theirs, times in made
            ]
        rows += made
    head = ("measured", "hangtag", "beside it", "of hangtag's time")
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * 4, *rows))


def parity(numbers: dict[str, Any]) -> list[Row]:
    found = numbers["test accuracy"]
    theirs = f"Keras on TensorFlow: {spread(found['reference'], '.4f')}"
    return [("the lesson's test accuracy after ten epochs", spread(found["hangtag"], ".4f"), theirs, "")]


def epochs(numbers: dict[str, Any]) -> list[Row]:
    """The lesson as its own framework's users write it, and the fastest way found of every peer."""
    ours = next(iter(numbers))
    names = [name for name in numbers if name.endswith("TensorFlow, as in the lesson")]
    names += [name for name in numbers["best"].values() if name not in names]
    return [
        (
            "" if at else "an epoch of the lesson's training (median)",
            "" if at else f"{numbers[ours]['seconds']['median']:.2f} s",
            f"{name}: {numbers[name]['seconds']['median']:.2f} s",
            ratio(numbers[name]["ratio"]),
        )
        for at, name in enumerate(names)
    ]


def accuracy_in_time(numbers: dict[str, Any]) -> list[Row]:
    ours, *others = (name for name in numbers if name != "seeds")
    mine = numbers[ours]
    rows = []
    for at, name in enumerate(others):
        found = numbers[name]
        seconds = f"{found['seconds']['median']:.0f} s"
        if found["reached"] < 1:
            there = f"by {found['reached']:.0%} of seeds" if found["reached"] else "by no seed"
            seconds = f"more than {seconds}; reached {there} within {max(found['epochs']['values']):.0f} epochs"
        rows.append((
            "" if at else "from starting a process to 88.64 % test accuracy (median)",
            "" if at else f"{mine['seconds']['median']:.1f} s; reached by {mine['reached']:.0%} of seeds",
            f"{name}: {seconds}",
            ("more than " if found["reached"] < 1 else "") + ratio(found["ratio"]),
        ))  # fmt: skip
    return rows


def recipe(name: str) -> Callable[[dict[str, Any]], list[Row]]:
    def rows(numbers: dict[str, Any]) -> list[Row]:
        return [
            (f"recipe `{name}`: test accuracy", spread(numbers["test_accuracy"], ".4f"), "", ""),
            (f"recipe `{name}`: training", spread(numbers["seconds"], ".0f", " s"), "", ""),
        ]

    return rows


def gpu(numbers: dict[str, Any]) -> list[Row]:
    """Test accuracy of `best`, and the training of the quickest recipe that has an accuracy."""
    rows = []
    if "best" in numbers:
        accuracy = spread(numbers["best"]["test_accuracy"], ".4f")
        rows.append((f"recipe `best` on one {numbers['gpu']}: test accuracy", accuracy, "", ""))
    for wanted, name in numbers["quickest"].items():
        seconds = f"{spread(numbers[name]['training_seconds'], '.2f', ' s')}, `{name}`" if name else "not reached"
        rows.append((f"training on one {numbers['gpu']} to {float(wanted):.0%} test accuracy", seconds, "", ""))
    return rows


def guarantees(numbers: dict[str, Any]) -> list[Row]:
    least = min(found["mean"] for name, found in numbers.items() if name.startswith("auroc"))
    n = numbers["ece"]["n"]
    ece, before, floor = (f"{numbers[name]['mean']:.4f}" for name in ("ece", "ece_before", "ece_floor"))
    return [
        ("expected calibration error (test)", f"{ece} (n = {n})", f"before {before}; by chance alone {floor}", ""),
        ("labels in a set that holds the true one, 95 %", spread(numbers["threshold 0.95 size"], ".3f"), "", ""),
        ("right among the surest 80 %", spread(numbers["right_of_80"], ".4f"), "", ""),
        ("AUROC against strangers, the worst kind of six", f"{least:.3f} (n = {n})", "", ""),
    ]


def start_up(numbers: dict[str, Any]) -> list[Row]:
    name = next(name for name in numbers if "predict" in name)
    return [
        ("`hangtag predict`, from start to exit", f"{numbers[name]['median']:.2f} s (n = {numbers[name]['n']})", "", "")
    ]


MAKERS = {
    "tutorial_parity": parity,
    "epoch_speed": epochs,
    "time_to_accuracy": accuracy_in_time,
    "fast_recipe": recipe("fast"),
    "accurate_recipe": recipe("accurate"),
    "gpu_recipes": gpu,
    "trust": guarantees,
    "start_up": start_up,
}


def plain(processor: str) -> str:
    """
    >>> plain("Intel(R) Xeon(R) Processor")
    'Intel Xeon'
    """
    return re.sub(r"\((?:R|TM)\)|\bProcessor\b", "", processor, flags=re.IGNORECASE).strip()


def spread(found: dict[str, Any], form: str, unit: str = "") -> str:
    """Mean, sd and n."""
    sd = "" if found["sd"] is None else f"sd {found['sd']:{'.1f' if form == '.0f' else form}}, "
    return f"{found['mean']:{form}}{unit} ({sd}n = {found['n']})"


def ratio(found: dict[str, Any]) -> str:
    return f"{found['median']:.1f}x (n = {found['n']})"
