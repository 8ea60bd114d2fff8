"""The README's table of figures, made from `results/*.json`; RESULTS.md has the rest.

`run_all.py` writes the table between two markers, and a test checks that the README holds what was measured.
"""

import re
from collections.abc import Callable
from typing import Any

__all__ = ["renewed", "table"]

BEGIN, END = "<!-- figures: written by benchmarks/run_all.py -->", "<!-- end of figures -->"
Results = dict[str, dict[str, Any]]
Row = tuple[str, str, str]


def renewed(readme: str, results: Results) -> str:
    """The README's text with a new table between its markers."""
    parts = re.fullmatch(f"(.*{re.escape(BEGIN)}\n).*(\n{re.escape(END)}.*)", readme, re.DOTALL)
    if parts is None:
        raise ValueError(f"the README has no lines {BEGIN} and {END}")
    return parts[1] + table(results) + parts[2]


def table(results: Results) -> str:
    """One row for each measured figure; a row names its processor if most other rows used another one.

    Args:
        results: the content of each result file, by benchmark name.
    """
    processors = {name: result["machine"]["processor"] for name, result in results.items() if name in FIGURES}
    usual = max(processors.values(), key=list(processors.values()).count, default="")
    rows: list[Row] = [("measured on Fashion-MNIST", "hangtag", "for comparison"), ("---",) * 3]
    for name, figures in FIGURES.items():
        if name in results:
            machine = "" if processors[name] == usual else f", on {plain(processors[name])}"
            rows += [(f"{what}{machine}", ours, other) for what, ours, other in figures(results[name]["numbers"])]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def parity(numbers: dict[str, Any]) -> list[Row]:
    accuracy = numbers["test accuracy"]
    keras = f"Keras on TensorFlow: {spread(accuracy['reference'], '.4f')}"
    return [("the lesson's test accuracy after 10 epochs", spread(accuracy["hangtag"], ".4f"), keras)]


def epoch(numbers: dict[str, Any]) -> list[Row]:
    """The lesson as written, and the fastest other framework with the best settings found."""
    seconds = {name: found["seconds"]["median"] for name, found in numbers.items() if "seconds" in found}
    ours, *others = seconds
    names = dict.fromkeys([lesson(others), min(others, key=seconds.__getitem__)])
    peers = [f"{name}: {seconds[name]:.2f} s ({numbers[name]['ratio']['median']:.1f}x)" for name in names]
    n = numbers[others[0]]["ratio"]["n"]
    return [("one epoch of the lesson's training (median)", f"{seconds[ours]:.2f} s", f"{'; '.join(peers)}; n = {n}")]


def time_to_accuracy(numbers: dict[str, Any]) -> list[Row]:
    """The lesson as written, and the fastest other framework, with the share of seeds that reached the accuracy."""
    seconds = {name: found["seconds"]["median"] for name, found in numbers.items() if "seconds" in found}
    ours, *others = seconds
    peers = []
    for name in dict.fromkeys([lesson(others), min(others, key=seconds.__getitem__)]):
        reached, limit = numbers[name]["reached"], f"{max(numbers[name]['epochs']['values']):.0f} epochs"
        if reached == 0:
            peers.append(f"{name}: not reached in {limit} ({seconds[name]:.0f} s)")
        else:
            within = "" if reached == 1 else f" (by {reached:.0%} of seeds within {limit})"
            peers.append(f"{name}: {seconds[name]:.0f} s{within}")
    mine = f"{seconds[ours]:.1f} s (by {numbers[ours]['reached']:.0%} of seeds)"
    n = numbers[ours]["seconds"]["n"]
    return [("from process start to 88.64 % test accuracy (median)", mine, f"{'; '.join(peers)}; n = {n}")]


def recipe(name: str) -> Callable[[dict[str, Any]], list[Row]]:
    def rows(numbers: dict[str, Any]) -> list[Row]:
        time = f"{numbers['seconds']['mean']:.0f} s of training (sd {numbers['seconds']['sd']:.0f})"
        return [(f"recipe `{name}`: test accuracy and time", f"{spread(numbers['test_accuracy'], '.4f')}, {time}", "")]

    return rows


def guarantees(numbers: dict[str, Any]) -> list[Row]:
    before, chance = (f"{numbers[name]['mean']:.4f}" for name in ("ece_before", "ece_floor"))
    size = f"{numbers['threshold 0.95 size']['mean']:.2f} labels per set on average"
    return [
        (
            "expected calibration error of `fast`",
            spread(numbers["ece"], ".4f"),
            f"before calibration {before}; perfect probabilities would show {chance}",
        ),
        (
            "share of 95 % prediction sets that hold the true label",
            spread(numbers["threshold 0.95 held"], ".4f"),
            f"target 0.95; {size}",
        ),
    ]


def start_up(numbers: dict[str, Any]) -> list[Row]:
    predict = next(found for name, found in numbers.items() if "predict" in name)
    return [("`hangtag predict`, from start to exit (median)", f"{predict['median']:.2f} s (n = {predict['n']})", "")]


def first_run(numbers: dict[str, Any]) -> list[Row]:
    found = numbers.get("fast, now, first")
    if found is None:
        return []
    what = "recipe `fast` on images never read before, from process start to the report (median)"
    seconds = f"{found['seconds']['median']:.0f} s, {found['training']['median']:.0f} s of them training"
    return [(what, f"{seconds} (n = {found['seconds']['n']})", "")]


FIGURES = {
    "tutorial_parity": parity,
    "epoch_speed": epoch,
    "time_to_accuracy": time_to_accuracy,
    "fast_recipe": recipe("fast"),
    "first_run": first_run,
    "accurate_recipe": recipe("accurate"),
    "trust": guarantees,
    "start_up": start_up,
}


def lesson(names: list[str]) -> str:
    """The peer that runs the lesson with the lesson's own framework."""
    return next(name for name in names if name.endswith("TensorFlow, as in the lesson"))


def plain(processor: str) -> str:
    """
    >>> plain("Intel(R) Xeon(R) Processor")
    'Intel Xeon'
    """
    return re.sub(r"\((?:R|TM)\)|\bProcessor\b", "", processor, flags=re.IGNORECASE).strip()


def spread(numbers: dict[str, Any], form: str) -> str:
    """Mean, standard deviation and n."""
    sd = "" if numbers["sd"] is None else f"sd {numbers['sd']:{form}}, "
    return f"{numbers['mean']:{form}} ({sd}n = {numbers['n']})"
