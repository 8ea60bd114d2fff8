"""What the command line prints: results, notes and tables. It parses nothing and decides nothing.

Nothing here needs Rich, which takes longer to import than most of these take to print; `live.py` draws with it.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hangtag.cli.text_table import TextTable, screen_width
from hangtag.words import ENOUGH, amount, setting_text

if TYPE_CHECKING:
    from hangtag.cli.bench import Bench
    from hangtag.cli.tally import Tally
    from hangtag.data.audit import Audit
    from hangtag.data.store.cache import CacheEntry
    from hangtag.evaluation.guarantee_report import GuaranteeReport
    from hangtag.evaluation.judge import Judgement
    from hangtag.evaluation.metrics import Evaluation
    from hangtag.evaluation.run_folder import Run
    from hangtag.evaluation.stress_test import Stress
    from hangtag.evaluation.tuning_results import Trials
    from hangtag.training.run import Training
    from hangtag.training.seeds import Seeds

T = TypeVar("T")

_BEST = 5  # trials that are shown at the end of a search
_TABLE, _SHOWN = 50, 20  # classes: the most that a table shows; of more, this many


def print_json(value: Any) -> None:
    """Print JSON as the standard defines it: a number that is NaN or infinite is a programming error."""
    ascii_only = "utf" not in (sys.stdout.encoding or "utf").lower()
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False)
    print(text.encode("utf-8", "backslashreplace").decode())


def print_class_table(names: tuple[str, ...], counts: dict[str, list[int]]) -> None:
    table = TextTable(">class", "name", *(f">{part}" for part in counts))
    shown = _few(range(len(names)), lambda index: sum(column[index] for column in counts.values()))
    for index in shown:
        table.add_row(str(index), names[index], *(f"{column[index]:,}" for column in counts.values()))
    if len(shown) < len(names):
        print(f"the {len(shown)} smallest of {len(names):,} classes:")
    table.add_section()
    table.add_row("", "total", *(f"{sum(column):,}" for column in counts.values()))
    table.show()


def print_summary(training: "Training", judged: "Judgement", report: Path) -> None:
    print()
    print(judged.in_words)
    print(judged.evaluation.gap_in_words)
    print_notes(judged.notes)
    _print_confidence(judged.guarantees)
    print(f"training took {training.seconds['train']:.1f} s: {training.speed}")
    _print_results(training.run, report)


def print_seeds(seeds: "Seeds", best: int, judged: "Judgement", report: Path) -> None:
    common = seeds.run.metrics()["seeds"]
    low, high = common["accuracy"]["interval"]
    print()
    print(
        f"{judged.part} accuracy of {len(seeds.numbers)} seeds: mean {common['accuracy']['mean']:.4f}, "
        f"sd {common['accuracy']['sd']:.4f}, 95% interval of the mean [{low:.4f}, {high:.4f}], "
        "which covers the choice of seeds, but not of images"
    )
    print(f"kept seed {best} ({common['kept_because']}): {judged.in_words}")
    print(judged.evaluation.gap_in_words)
    _print_confidence(judged.guarantees)
    _print_results(seeds.run, report)


def print_trials(trials: "Trials", part: str) -> None:
    """Print the best trials as a table, and which of them was chosen."""
    table = TextTable("", ">trial", f">{trials.judged_by} loss", ">accuracy", *(f">{name}" for name in trials.space))
    for trial in trials.ranked()[:_BEST]:
        numbers = (f"{each:.4f}" if each is not None else "-" for each in (trial.loss, trial.accuracy))
        settings = (setting_text(trial.settings.get(name)) for name in trials.space)
        kept = "chosen" if trial.number == trials.chosen else "" if trial.state == "completed" else trial.state
        table.add_row(kept, str(trial.number), *numbers, *settings)
    print(f"the best of {trials.in_words}, by {trials.judged_by} loss:")
    table.show()
    print(trials.caution(part))


def _print_confidence(report: "GuaranteeReport") -> None:
    if report.sure and report.sure_right:
        right = f"; correct among these: {report.sure_right}" if report.sure_right.of else ""
        print(f"answered with confidence: {report.sure}{right}")
    for sentence in report.limitations:
        print(f"note: {sentence}")


def _print_results(run: "Run", report: Path) -> None:
    print(f"  model        {run.model}")
    print(f"  report       {report}")
    print(f"  try it       hangtag predict {shlex.quote(str(run.path))} photo.png")


def print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}")


def print_evaluation(evaluation: "Evaluation", part: str) -> None:
    print(str(evaluation) if evaluation.folds else f"{part} {evaluation}")
    print(evaluation.gap_in_words)
    if evaluation.strangers:
        print(f"not counted: {evaluation.strangers}")
    table = TextTable("class", ">images", ">precision", "95%", ">recall", "95%", ">F1")
    there = [row for row in evaluation.classes if row.images]
    rows = _few(there, lambda row: (row.f1 is None, row.f1 or 0.0))
    if len(rows) < len(there):
        print(f"the {len(rows)} classes with the lowest F1 of {len(there):,} (all: --json):")
    for row in rows:
        cells: list[str] = []
        for share, interval in ((row.precision, row.precision_interval), (row.recall, row.recall_interval)):
            cells += [_share(share), f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else ""]
        table.add_row(row.name, f"{row.images:,}", *cells, _share(row.f1))
    table.show()
    if len(evaluation.classes) > _TABLE:
        return _print_confusions(evaluation)
    confusion = TextTable("true \\ predicted", *(f">{index}" for index in range(len(evaluation.classes))))
    for index, (row, counts) in enumerate(zip(evaluation.classes, evaluation.confusion, strict=True)):
        if not row.images:
            continue
        confusion.add_row(f"{index} {row.name}", *(str(count) if count else "." for count in counts))
    if confusion.width > screen_width():
        return _print_confusions(evaluation)
    confusion.show()
    return None


def _print_confusions(evaluation: "Evaluation") -> None:
    """The most frequent confusions, instead of a matrix that is wider than the screen."""
    counts = np.array(evaluation.confusion)
    np.fill_diagonal(counts, 0)
    table = TextTable("true", "predicted", ">images")
    for place in np.argsort(-counts, axis=None, kind="stable")[:_SHOWN]:
        true, predicted = divmod(int(place), len(counts))
        if counts[true, predicted]:
            table.add_row(
                *(evaluation.classes[each].name for each in (true, predicted)), f"{counts[true, predicted]:,}"
            )
    print("the most frequent confusions:")
    table.show()


def _few(items: Iterable[T], worst: Callable[[T], Any]) -> list[T]:
    """All items, or the worst few if a table would flood the screen."""
    every = list(items)
    return every if len(every) <= _TABLE else sorted(every, key=worst)[:_SHOWN]


def print_guarantees(report: "GuaranteeReport", part: str) -> None:
    """Print what the model guarantees about its answers, and what was measured, one line each."""
    if part in ("validation", "cross-validation") and report.sets:
        which = "validation images" if part == "validation" else "images of the cross-validation"
        print(f"note: there is no test part; the {which} also set the thresholds, so these numbers may be optimistic")
    print(report.calibration.in_words)
    for each in report.sets:
        print(
            f"sets for {each.coverage:.0%} coverage: {each.covered} contain the true label, "
            f"{each.size:.2f} labels on average"
        )
    for target, answered, right in report.target_accuracies:
        if right.of:
            print(f"target accuracy {100 * target:g}%: {answered} answered; correct among these: {right}")
    if report.ood_false_positives is not None:
        print(f"images called unfamiliar: {report.ood_false_positives} (target for familiar images: at most 5%)")
    for sentence in report.limitations:
        print(f"note: {sentence}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def print_tally(tally: "Tally") -> None:
    """How many pictures have each label, and how many of them are sure."""
    sure = (">sure",) if tally.can_abstain else ()
    table = TextTable("label", ">images", *sure)
    counts = tally.labels.most_common()
    shown = counts if len(counts) <= _TABLE else counts[:_SHOWN]
    if len(shown) < len(counts):
        print(f"the {len(shown)} most frequent of {len(counts):,} labels:")
    for label, count in shown:
        table.add_row(label, f"{count:,}", *([f"{tally.sure[label]:,}"] if sure else []))
    table.show()
    print(tally.in_words)


def print_bench(bench: "Bench") -> None:
    table = TextTable("what", ">here", "unit")
    epochs = f"s, median of {bench.lesson_epochs} epochs" if bench.lesson_epochs else "s, extrapolated from a few steps"
    table.add_row("one epoch of the lesson (recipe 'tutorial')", f"{bench.lesson_epoch_seconds:.3f}", epochs)
    table.add_row("training with recipe 'fast'", f"{bench.fast_images_per_second:,.0f}", "images/s")
    for name, gflops in bench.matmul_gflops.items():
        table.add_row(f"fastest matrix product, {name}", f"{gflops:,.0f}", "GFLOP/s")
    p95 = f"ms; 95% take at most {1000 * bench.predict_seconds_p95:.2f}"
    table.add_row("predicting one image (CPU)", f"{1000 * bench.predict_seconds:.2f}", p95)
    table.add_row("predicting many images at once (CPU)", f"{bench.predict_images_per_second:,.0f}", "images/s")
    table.show()
    machine = bench.machine
    memory = f", {machine['memory_bytes'] / 1e9:.0f} GB" if "memory_bytes" in machine else ""
    print(f"machine   {machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}, {bench.device}")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in bench.versions.items())}")
    print(f"data      {bench.data['name']}, {bench.data['training_images']:,} training images")
    print("note      other running programs slow these measurements down; measure twice")


def print_stress(stress: "Stress") -> None:
    from hangtag.evaluation.metrics import wilson

    table = TextTable("corruption", *(f">{severity}" for severity in range(1, 6)), ">caught", ">unfamiliar")
    clean = stress.clean
    table.add_row("none", _whole(clean.accuracy), "", "", "", "", _whole(clean.caught), _whole(clean.ood_rate))
    table.add_section()
    for name in stress.worst():
        means = (stress.mean(name, what) for what in ("caught", "ood_rate"))
        table.add_row(name, *(_whole(cell.accuracy) for cell in stress.at(name)), *map(_whole, means))
    print(
        f"accuracy in percent on {stress.images:,} images, by severity; then, averaged over severities, the "
        "percentage of wrong answers that were caught (called not sure) and of images called unfamiliar"
    )
    table.show()
    print(f"mean accuracy: {stress.accuracy:.1%} over all corruptions, {clean.accuracy:.1%} without corruption")
    if stress.images < ENOUGH:
        low, high = wilson(stress.images // 2, stress.images)
        few = amount(stress.images, "image")
        print(f"note: with {few}, chance alone can move each of these accuracies by {50 * (high - low):.0f} points")
    if not stress.slices:
        few = "; so few would not show most differences" if stress.tried < ENOUGH else ""
        print(f"no group is significantly worse than the rest ({amount(stress.tried, 'image')}{few})")
    for each in stress.slices[:10]:
        low, high = each.interval
        print(
            f"weak group: {each.by} {each.group}: accuracy {each.accuracy:.1%} [{low:.1%}, {high:.1%}] on "
            f"{each.images:,} images, {each.rest:.1%} on the rest"
        )


def _whole(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def print_cache(entries: Sequence["CacheEntry"], limit: int) -> None:
    table = TextTable("what", "made from", ">MB", "last used")
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        table.add_row(entry.kind, entry.what, f"{entry.bytes / 1e6:,.1f}", used)
    table.add_section()
    total = sum(entry.bytes for entry in entries)
    table.add_row("total", "", f"{total / 1e6:,.1f}", f"of at most {limit / 1e6:,.0f}")
    table.show()


def print_audit(audit: "Audit", written: Sequence[Path]) -> None:
    from hangtag.data.audit import KINDS
    from hangtag.data.public.datasets import NAMED

    table = TextTable("finding", ">number", "meaning")
    for kind, count in audit.counts().items():
        table.add_row(kind, f"{count:,}", KINDS[kind])
    table.show()
    steps = audit.first()
    print(audit.labels_checked)
    print("start with:" if steps else audit.nothing_found)
    for number, step in enumerate(steps, 1):
        print(f"  {number}  {step}")
    for path in written:
        print(f"wrote {path}")
    decisions = written[-1].parent / "decisions.csv"
    if decisions not in written:
        print(f"note: {decisions} was kept, because it has decisions")
    if steps:
        name = audit.data.name if audit.data.name in NAMED else audit.data.source.origin
        print(f"next         open {written[-1]} in a browser, decide, save {decisions} (or fill it in), then run")
        print(f"             hangtag train {shlex.quote(name)} --decisions {shlex.quote(str(decisions))}")
