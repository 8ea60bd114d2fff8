"""What to fix first, as values for the page: weak classes, confusions, confidence, small classes, fit."""

import shlex
from typing import Any

import numpy as np

from hangtag.evaluation.metrics import ClassResult, wilson
from hangtag.reports.facts import Facts

__all__ = ["advice"]

_CONFIDENT = 0.9  # the probability from which an answer counts as confident here
_WIDE = 0.2  # a recall interval wider than this says little


def advice(facts: Facts) -> dict[str, Any]:
    """The values that `advice.html` turns into steps; a step whose value is empty is left out."""
    uncertain = sorted((row for row in facts.evaluation.classes if _width(row) > _WIDE), key=lambda row: row.images)
    return {
        "weakest": _weakest(facts) if facts.mistakes else [],
        "confusion": _most_confused(facts),
        "confidence": _confidence(facts),
        "uncertain": uncertain[:3],
        "more_uncertain": max(0, len(uncertain) - 3),
        "fit": _fit(facts),
    }


def _weakest(facts: Facts) -> list[ClassResult]:
    """Up to three classes with the lowest recall, below the accuracy if possible."""
    known = sorted((row.recall, row.name, row) for row in facts.evaluation.classes if row.recall is not None)
    return [row for recall, _, row in known[:3] if recall < facts.evaluation.accuracy] or [known[0][2]]


def _most_confused(facts: Facts) -> dict[str, Any] | None:
    """The two classes that are confused most often, the more frequent direction first."""
    errors = facts.confusion - np.diag(np.diag(facts.confusion))
    both = np.triu(errors + errors.T)
    if both.max() < 2:
        return None
    pair = [int(index) for index in np.unravel_index(int(both.argmax()), both.shape)]
    first, second = sorted(pair, key=lambda index: -errors[index, sum(pair) - index])
    return {
        "names": (facts.names[first], facts.names[second]),
        "count": int(errors[first, second]),
        "reverse": int(errors[second, first]),
    }


def _confidence(facts: Facts) -> dict[str, Any] | None:
    confident = facts.probabilities.max(axis=1) >= _CONFIDENT
    count, correct = int(confident.sum()), int((facts.predicted == facts.labels)[confident].sum())
    if not count:
        return None
    return {"from": _CONFIDENT, "count": count, "correct": correct, "interval": wilson(correct, count)}


def _width(row: ClassResult) -> float:
    return row.recall_interval[1] - row.recall_interval[0] if row.recall_interval else 1.0


def _fit(facts: Facts) -> dict[str, Any] | None:
    training, evaluation, recipe = facts.evaluation.training_accuracy, facts.evaluation, facts.config.get("recipe", {})
    if training is None:
        return None
    if evaluation.overfits:
        data = facts.setting("source", "what") or facts.setting("data", "name") or "DATA"
        does_more = recipe.get("backbone") or recipe.get("flip") or recipe.get("random_shift")
        command = "" if does_more else f"hangtag train {shlex.quote(str(data))} --recipe fast"
        return {"gap": 100 * (training - evaluation.accuracy), "command": command}
    return {"training": training} if training < 0.9 else None
