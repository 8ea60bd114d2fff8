"""What a model guarantees, next to what was measured, and how it copes with degraded images: values for the page."""

from collections.abc import Sequence
from typing import Any

from hangtag.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from hangtag.evaluation.guarantee_report import GuaranteeReport, SetCoverage
from hangtag.evaluation.slices import FALSE_DISCOVERIES
from hangtag.evaluation.stress_test import Stress
from hangtag.html import Line, chart
from hangtag.model.guarantees import OOD_FALSE_POSITIVE_RATE
from hangtag.words import ENOUGH, amount, interval, listed, rate

__all__ = ["guarantee_tiles", "guarantee_values", "stress_values"]

_COVERAGE = 0.95  # the coverage that the page comments on class by class
_TARGET = 0.99  # the target accuracy that has a tile of its own
_QUARTERS = {share: f"{share:.0%}" for share in (0.0, 0.25, 0.5, 0.75, 1.0)}


def guarantee_tiles(report: GuaranteeReport) -> dict[str, str]:
    """The numbers that decide whether the model can be used, by their names."""
    tiles = {}
    if report.sure and report.sure.of:
        tiles["answered with confidence"] = str(report.sure)
    if report.sure_right and report.sure_right.interval:
        span = interval(report.sure_right.interval, report.sure_right.of)
        tiles[f"correct when confident (95% interval {span})"] = str(report.sure_right)
    for target, answered, _ in report.target_accuracies:
        if target == _TARGET and answered.of:
            tiles[f"answered at a target accuracy of {target:.0%}"] = str(answered)
    return tiles


def guarantee_values(report: GuaranteeReport, names: Sequence[str]) -> dict[str, Any]:
    """Calibration, prediction sets, answers held back and unfamiliar images, for `guarantees.html`."""
    charts = (_accuracy_chart(report), _reliability_chart(report))
    return {
        "report": report,
        "limitations": [f"{text[:1].upper()}{text[1:]}".rstrip(".") for text in report.limitations],
        "charts": [each for each in charts if each],
        "ood_rate": OOD_FALSE_POSITIVE_RATE,
        "names": names,
        "shortfall": _shortfall(report.sets, names),
    }


def _shortfall(sets: Sequence[SetCoverage], names: Sequence[str]) -> dict[str, Any] | None:
    """The classes whose coverage is below the target by more than chance, lowest first."""
    main = next((each for each in sets if each.coverage == _COVERAGE and each.enough), None)
    if main is None:
        return None
    known = [(share.count / share.of, name, share) for share, name in zip(main.classes, names, strict=True) if share.of]
    low = sorted(one for one in known if one[2].interval and one[2].interval[1] < _COVERAGE)
    shown = [f"{name} ({rate(share.count, share.of)})" for _, name, share in low[:3]]
    return {
        "coverage": _COVERAGE,
        "low": listed([*shown, amount(len(low) - 3, "more class")] if len(low) > 3 else shown) if low else "",
        "small": amount(sum(share.of < ENOUGH for _, _, share in known), "class"),
        "enough": all(share.of >= ENOUGH for _, _, share in known),
    }


def _accuracy_chart(report: GuaranteeReport) -> dict[str, Any] | None:
    images = report.calibration.images
    points = list(zip(report.answered, report.accuracy, strict=True))
    if len(points) < 2:
        return None
    lowest = min(accuracy for answered, accuracy in points if answered > 0.02 or answered == 1)
    bottom = max(0.0, min(0.95, int(lowest * 20) / 20))
    levels = {level: f"{100 * level:g}%" for level in (bottom, (bottom + 1) / 2, 1.0)}
    line = Line("training", f"all images answered: {rate(round(points[-1][1] * images), images)} correct", points)
    return chart("Accuracy by share of images answered", [line], _QUARTERS, levels, "answered, most confident first")


def _reliability_chart(report: GuaranteeReport) -> dict[str, Any]:
    now = "calibrated" if report.before else "not calibrated"
    measured = (("validation", "uncalibrated", report.before), ("training", now, report.calibration))
    lines = [
        Line(kind, f"{name}, error {100 * each.ece:.1f} points", [(one.confidence, one.accuracy) for one in each.bins])
        for kind, name, each in measured
        if each is not None
    ]
    levels = {0.0: "0%", 0.5: "50%", 1.0: "100%"}
    label = "probability of the answer; vertical: share correct"
    return chart("Do the probabilities match the results?", lines, _QUARTERS, levels, label, diagonal=True)


def stress_values(stress: Stress) -> dict[str, Any]:
    """Groups on which the model is weak and a table of corruptions, for `stress.html`."""
    total = min(stress.images, 100)
    rows = []
    for name in stress.worst():
        means = (stress.mean(name, field) for field in ("ece", "caught", "ood_rate"))
        rows.append(
            {
                "name": name,
                "cells": [
                    (round(0.9 * (1 - cell.accuracy), 2), f"{total * cell.accuracy:.0f}") for cell in stress.at(name)
                ],
                "means": ["–" if mean is None else f"{100 * mean:.0f}" for mean in means],
            }
        )
    return {
        "stress": stress,
        "rows": rows,
        "severities": SEVERITIES,
        "corruptions": len(CORRUPTIONS),
        "enough": stress.tried >= ENOUGH,
        "slices": stress.slices[:12],
        "false_discoveries": FALSE_DISCOVERIES,
    }
