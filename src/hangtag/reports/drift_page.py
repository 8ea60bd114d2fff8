"""A drift as one offline HTML page: the verdict, the shares behind it, their course over time and the distributions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hangtag.evaluation.drift import Drift, Spread, Window
from hangtag.evaluation.metrics import Share
from hangtag.files import write_text
from hangtag.html import Line, chart, render, round_ticks

__all__ = ["write_drift_page"]

_MOST_LABELS = 30
_MOST_DATES = 4  # below a chart


def write_drift_page(found: Drift, name: str, path: Path) -> Path:
    """Write the page and return its path; raises SaveError if it cannot be written.

    Args:
        name: of the run.
    """
    over_time = [
        _over_time(title, found.windows, [getattr(each, field) for each in found.windows], spread)
        for title, field, spread in (
            ("Unfamiliar pictures", "unfamiliar", found.unfamiliar), ("Not sure", "not_sure", found.not_sure),
        )
        if spread is not None and len(found.windows) > 1
    ]  # fmt: skip
    distributions = [
        _distribution(title, found, bins)
        for title, bins in (("OOD score", found.ood_bins), ("Confidence", found.confidence_bins))
        if bins is not None
    ]
    shown = found.labels[:_MOST_LABELS]
    values = {"found": found, "name": name, "over_time": over_time, "charts": distributions, "labels": shown}
    write_text(path, render("drift.html", values))
    return path


def _over_time(title: str, windows: Sequence[Window], shares: Sequence[Share], spread: Spread) -> dict[str, Any]:
    """A chart of a share in each window with its interval, and the share of the reference."""
    known = [(place, share) for place, share in enumerate(shares) if share.share is not None and share.interval]
    reference = 100 * (spread.reference.share or 0)
    points = [(place, 100 * (share.share or 0)) for place, share in known]
    ends = [[(place, 100 * share.interval[end]) for place, share in known if share.interval] for end in (0, 1)]
    highest = max(reference, *(y for _, y in ends[1]), 1)
    step = max(1, -(-len(windows) // _MOST_DATES))
    is_short = windows[0].begins[:10] == windows[-1].begins[:10]
    dates: dict[float, str] = {place: _date(windows[place].begins, is_short) for place in range(0, len(windows), step)}
    dates = {**dates, **({} if len(windows) - 1 in dates else {len(windows) - 1: ""})}
    drawn = chart(
        title,
        [
            Line("training", f"{len(windows)} windows", points),
            Line("validation", f"judged images, {reference:.3g}%", [(0, reference), (len(windows) - 1, reference)]),
            *(Line("end", "", each) for each in ends),
        ],
        dates, {tick: f"{tick:g}%" for tick in round_ticks(0, highest)}, "time (UTC)",
    )  # fmt: skip
    *drawn["lines"], low, high = drawn["lines"]
    drawn["whiskers"] = [(x, bottom, top) for (x, bottom), (_, top) in zip(low.points, high.points, strict=True)]
    return drawn


def _date(begins: str, is_short: bool) -> str:
    return begins[11:16] if is_short else f"{begins[5:10]} {begins[11:16]}".removesuffix(" 00:00")


def _distribution(title: str, found: Drift, bins: Sequence[Sequence[float]]) -> dict[str, Any]:
    """A chart of the share of answers in each tenth."""
    count = len(bins[0])
    lines = [
        Line(kind, legend, [((place + 0.5) / count, 100 * share) for place, share in enumerate(shares)])
        for kind, legend, shares in (
            ("training", f"these {found.answers:,} answers", bins[1]), ("validation", "judged images", bins[0]),
        )
    ]  # fmt: skip
    highest = 100 * max(max(shares) for shares in bins)
    ticks = {tick: f"{tick:g}%" for tick in round_ticks(0, highest)}
    return chart(title, lines, {0: "0", 0.25: "0.25", 0.5: "0.5", 0.75: "0.75", 1: "1"}, ticks, title)
