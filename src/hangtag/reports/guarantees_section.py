"""What a model promises and how that fared, as parts of the report's page: HTML text and charts."""

from collections.abc import Sequence

from hangtag.evaluation.corruptions import CORRUPTIONS, SEVERITIES
from hangtag.evaluation.guarantee_report import GuaranteeReport, SetCoverage, Share
from hangtag.evaluation.stress_test import Stress
from hangtag.model.calibration import Calibration
from hangtag.reports.html import escaped, section, table
from hangtag.words import listed, out_of_100

__all__ = ["promises_section", "stress_section", "trust_tiles"]

_MAIN = 0.95  # of the coverages shown, the one told about in words
_ASKED = 0.99  # of the shares of right answers, likewise


def trust_tiles(kept: GuaranteeReport) -> dict[str, str]:
    """The three numbers that decide whether the model can be used, by what they are."""
    tiles = {}
    if kept.sure and kept.sure_right and kept.sure.share is not None:
        tiles["sure of, of 100 pictures"] = out_of_100(kept.sure.share)
        if kept.sure_right.share is not None:
            tiles["right when sure, of 100"] = out_of_100(kept.sure_right.share)
    for target, answered, _ in kept.target_accuracies:
        if target == _ASKED and answered.share is not None:
            tiles[f"answered when {target:.0%} shall be right"] = f"{out_of_100(answered.share)} of 100"
    return tiles


def promises_section(kept: GuaranteeReport, names: Sequence[str], tried: bool) -> str:
    """Calibration, sets, answers left out, unfamiliar pictures: each promise beside what became of it.

    Args:
        tried: whether the pictures judged are others than those that taught the promises.
    """
    charts = f'<div class="charts">{_answered_chart(kept)}{_reliability_chart(kept.calibration, kept.before)}</div>'
    parts = [_missing(kept), f"<p>{escaped(_summary(kept))}</p>", charts]
    if kept.target_accuracies:
        parts.append("<h3>Answering only when sure</h3>" + _right_table(kept))
    if kept.sets:
        parts.append("<h3>Sets of labels</h3>" + _sets_table(kept.sets) + _class_note(kept.sets, names))
        parts.append(_by_class(kept.sets, names))
    note = (
        "Thresholds and calibration come from pictures held out of training; what you see here was tried on the "
        "pictures judged, which set none of them."
        if tried
        else "There is no test part: the pictures judged are the same held-out ones that set the thresholds, so that "
        "these numbers show what was fitted, not what new pictures will show. Give a test part to try the promises."
    )
    return section("Can its answers be trusted", "".join(parts), note)


def stress_section(broken: Stress) -> str:
    """Groups it is weak on, and a table of corruptions."""
    head = ("pictures gone wrong by", *map(str, SEVERITIES), "off by, points", "not sure when wrong", "ood_rate")
    rows = [_stress_row(name, broken) for name in broken.worst()]
    clean = broken.clean
    body = _slices(broken)
    body += (
        f"<h3>Pictures gone wrong</h3><p>As they are, it is right on {out_of_100(clean.accuracy)} of 100; over all "
        f"{len(CORRUPTIONS)} ways and {len(SEVERITIES)} strengths, on {out_of_100(broken.accuracy)}. Darker red: fewer "
        "right. The last three columns are means over the strengths: by how many points probabilities are off, and how "
        "many of the wrong answers come with &ldquo;not sure&rdquo;, as they should.</p>"
    )
    body += table(head, rows, "wide heat")
    return section("How it breaks", body, f"{broken.images:,} of the judged pictures, corrupted on purpose.")


def _missing(kept: GuaranteeReport) -> str:
    return "".join(f'<p class="warning">{escaped(sentence)}.</p>' for sentence in kept.limitations)


def _summary(kept: GuaranteeReport) -> str:
    said = [kept.calibration.in_words]
    if kept.before is not None and kept.before.ece != kept.calibration.ece:
        said.append(
            f"Before calibration they were off by {100 * kept.before.ece:.1f} points "
            f"(loss {kept.before.nll:.4f}, now {kept.calibration.nll:.4f}; Brier score {kept.before.brier:.4f}, "
            f"now {kept.calibration.brier:.4f})."
        )
    if kept.ood_false_positives is not None and kept.ood_false_positives.share is not None:
        said.append(
            f"It called {out_of_100(kept.ood_false_positives.share)} of 100 of these pictures unfamiliar; "
            "all are of its kind, and 5 were to be expected."
        )
    return " ".join(said)


def _right_table(kept: GuaranteeReport) -> str:
    rows = []
    for target, answered, right in kept.target_accuracies:
        share = "&ndash;" if answered.share is None else f"{out_of_100(answered.share)} of 100"
        rows.append((f"{100 * target:g} of 100", share, _with_interval(right)))
    return table(("right when answered: asked for", "pictures answered", "right, of 100 answered"), rows, "wide")


def _sets_table(sets: Sequence[SetCoverage]) -> str:
    rows = [
        (
            f"{100 * each.coverage:g} of 100" + ("" if each.enough else ": too few held-out pictures for this"),
            _with_interval(each.covered),
            f"{each.size:.2f}",
            out_of_100(each.single.share or 0),
        )
        for each in sets
    ]
    head = ("sets that shall hold the true label", "that did", "labels in a set", "sets of one label, of 100")
    return table(head, rows, "wide")


def _class_note(sets: Sequence[SetCoverage], names: Sequence[str]) -> str:
    main = next((each for each in sets if each.coverage == _MAIN), None)
    if main is None:
        return ""
    known = [(each.share, name) for each, name in zip(main.classes, names, strict=True) if each.share is not None]
    low = [f"{escaped(name)} ({out_of_100(share)})" for share, name in sorted(known)[:3] if share < _MAIN - 0.01]
    if not low:
        return '<p class="note">The promise is kept for every class by itself, too.</p>'
    return (
        f'<p class="note">The promise is about all pictures together. For {listed(low)} of 100, fewer sets than '
        f"{100 * _MAIN:g} of 100 hold the true label; for other classes more do.</p>"
    )


def _by_class(sets: Sequence[SetCoverage], names: Sequence[str]) -> str:
    """How often the sets of each class hold its label, for every coverage shown."""
    rows = [
        (escaped(name), *(_with_interval(each.classes[number]) for each in sets)) for number, name in enumerate(names)
    ]
    head = ("sets that hold the label, of 100", *(f"promised {100 * each.coverage:g}" for each in sets))
    return table(head, rows, "wide")


def _with_interval(share: Share) -> str:
    if share.share is None or share.interval is None:
        return "&ndash;"
    low, high = share.interval
    return f'{out_of_100(share.share)} <span class="interval">({out_of_100(low)} to {out_of_100(high)})</span>'


def _answered_chart(kept: GuaranteeReport) -> str:
    points = list(zip(kept.answered, kept.accuracy, strict=True))
    if len(points) < 2:
        return ""
    least = min(accuracy for answered, accuracy in points if answered > 0.02 or answered == 1)
    bottom = max(0.0, min(0.95, int(least * 20) / 20))
    inside = _frame([bottom, (bottom + 1) / 2, 1.0], bottom)
    line = " ".join(f"{_x(share):.1f},{_y(max(right, bottom), bottom):.1f}" for share, right in points)
    inside += f'<polyline class="training" points="{line}"/>'
    end = points[-1]
    return (
        '<figure class="chart"><figcaption><b>The fewer it answers, the more are right</b><br>'
        f"all pictures: {out_of_100(end[1])} of 100 right</figcaption>"
        f'<svg viewBox="0 0 360 216" role="img" aria-label="accuracy by share answered">{inside}'
        '<text x="200" y="215" text-anchor="middle">answered, surest first</text></svg></figure>'
    )


def _reliability_chart(after: Calibration, before: Calibration | None) -> str:
    inside = _frame([0.0, 0.5, 1.0], 0.0)
    inside += f'<line class="axis" x1="{_x(0)}" y1="{_y(0, 0)}" x2="{_x(1)}" y2="{_y(1, 0)}" stroke-dasharray="4 4"/>'
    keys = ""
    for kind, name, judged in (("validation", "before calibration", before), ("training", "calibrated", after)):
        if judged is None:
            continue
        places = [(_x(each.confidence), _y(each.accuracy, 0.0)) for each in judged.bins]
        inside += f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>'
        inside += "".join(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in places)
        keys += f'<span class="key {kind}">● {name}, off by {100 * judged.ece:.1f} points</span> '
    return (
        f'<figure class="chart"><figcaption><b>Do probabilities mean what they say?</b><br>{keys}</figcaption>'
        f'<svg viewBox="0 0 360 216" role="img" aria-label="reliability diagram">{inside}'
        '<text x="200" y="215" text-anchor="middle">said: probability of the answer; up: how often right</text>'
        "</svg></figure>"
    )


def _frame(levels: Sequence[float], bottom: float) -> str:
    inside = ""
    for level in levels:
        y = _y(level, bottom)
        inside += f'<line class="axis" x1="44" x2="356" y1="{y:.1f}" y2="{y:.1f}"/>'
        inside += f'<text x="38" y="{y + 4:.1f}" text-anchor="end">{100 * level:g}%</text>'
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        inside += f'<text x="{_x(share):.1f}" y="200" text-anchor="middle">{share:.0%}</text>'
    return inside


def _x(share: float) -> float:
    return 50 + 300 * share


def _y(share: float, bottom: float) -> float:
    return 182 - 170 * (share - bottom) / (1 - bottom)


def _stress_row(name: str, broken: Stress) -> list[str]:
    shown = [
        f'<span class="shade" style="--a:{0.9 * (1 - cell.accuracy):.2f}">{100 * cell.accuracy:.0f}</span>'
        for cell in broken.at(name)
    ]
    means = (broken.mean(name, what) for what in ("ece", "caught", "ood_rate"))
    return [escaped(name), *shown, *("&ndash;" if mean is None else f"{100 * mean:.0f}" for mean in means)]


def _slices(broken: Stress) -> str:
    if not broken.slices:
        return f"<p>No group of the {broken.tried:,} pictures is answered worse than the rest beyond chance.</p>"
    rows = [
        (
            f"{escaped(each.by)}: {escaped(each.group)}",
            f'{out_of_100(each.accuracy)} <span class="interval">({out_of_100(each.interval[0])} to '
            f"{out_of_100(each.interval[1])})</span>",
            out_of_100(each.rest),
            f"{each.images:,}",
        )
        for each in broken.slices[:12]
    ]
    head = ("group", "right, of 100", "on all others", "pictures")
    note = (
        '<p class="note">Worse than the rest by an exact test; at most 1 of 100 groups listed is expected to be there '
        "by chance.</p>"
    )
    return f"<h3>Groups it is weakest on</h3>{table(head, rows, 'wide')}{note}"
