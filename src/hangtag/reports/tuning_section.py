"""What a run's report says about the search that found its settings."""

import math
from typing import Any

from hangtag.evaluation.tuning_results import Trial, Trials
from hangtag.html import Line, chart, round_ticks

__all__ = ["tuning_values"]

_MOST_ROWS = 100


def tuning_values(trials: Trials, part: str, classes: int) -> dict[str, Any]:
    """The values of `tuning.html`.

    Args:
        part: what the model was judged on.
        classes: number of classes; the loss of guessing follows from it.
    """
    (chosen,) = (trial for trial in trials.trials if trial.number == trials.chosen)
    ranked, most = trials.ranked(), math.log(classes)
    return {
        "trials": trials,
        "chosen": chosen,
        "caution": trials.caution(part),
        "ranked": ranked[:_MOST_ROWS],
        "left_out": len(ranked[_MOST_ROWS:]),
        "charts": [each for each in (_curves(trials, chosen, most), _progress(trials, most)) if each],
    }


def _curves(trials: Trials, chosen: Trial, most: float) -> dict[str, Any] | None:
    """The validation loss of each trial while it was trained; None if no trial has at least two epochs."""
    lines = [
        Line(
            "validation" if trial is chosen else "other",
            f"trial {trial.number}, chosen" if trial is chosen else "",
            [(100 * number / trial.epochs, min(loss, most)) for number, loss in enumerate(trial.curve, 1)],
        )
        for trial in sorted(trials.trials, key=lambda each: each is chosen)
        if len(trial.curve) > 1 or trial.epochs > 1
    ]
    lines = [line for line in lines if line.points]
    if not any(len(line.points) > 1 for line in lines):
        return None
    values = [loss for line in lines for _, loss in line.points]
    ticks = {tick: f"{tick:g}" for tick in round_ticks(min(values), max(values))}
    epochs: dict[float, str] = {share: f"{share}%" for share in (0, 25, 50, 75, 100)}
    return chart("Validation loss of each trial", lines, epochs, ticks, "share of epochs")


def _progress(trials: Trials, most: float) -> dict[str, Any] | None:
    """The loss of each trial in order, and the lowest one so far; None for fewer than two trials."""
    losses = [(trial.number, min(trial.loss, most)) for trial in trials.trials if trial.loss is not None]
    lowest, best = [], math.inf
    for trial in trials.trials:
        if trial.state == "completed" and trial.loss is not None:
            best = min(best, trial.loss)
        if math.isfinite(best):
            lowest.append((float(trial.number), best))
    if len(losses) < 2:
        return None
    lines = [Line("dots", "each trial", losses), Line("validation", f"lowest so far, {best:.3g} at the end", lowest)]
    ticks = {tick: f"{tick:g}" for tick in round_ticks(min(y for _, y in losses), max(y for _, y in losses))}
    last = trials.trials[-1].number
    numbers: dict[float, str] = {
        number: str(number) for number in sorted({round(last * part / 4) for part in range(5)})
    }
    return chart("Loss by trial", lines, numbers, ticks, "trial")
