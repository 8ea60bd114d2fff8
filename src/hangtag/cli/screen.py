"""What the command line prints: progress bars, tables, a contact sheet. It parses nothing and decides nothing.

Without a terminal there are no bars and no images, only lines that suit a log file.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich import box, progress
from rich.color import Color
from rich.console import Console
from rich.measure import Measurement
from rich.rule import Rule
from rich.style import Style
from rich.table import Table
from rich.text import Text

from hangtag.words import ENOUGH, amount, printable, visible

if TYPE_CHECKING:
    from hangtag.cli.bench import Bench
    from hangtag.cli.predict import Tally
    from hangtag.cli.tutorial import Section
    from hangtag.data.audit import Audit
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.data.store.cache import CacheEntry
    from hangtag.evaluation.guarantee_report import GuaranteeReport
    from hangtag.evaluation.judge import Judgement
    from hangtag.evaluation.metrics import Evaluation
    from hangtag.evaluation.run_folder import Run
    from hangtag.evaluation.stress_test import Stress
    from hangtag.training.engine.loop import Epoch
    from hangtag.training.run import Training
    from hangtag.training.seeds import Seeds


T = TypeVar("T")

_FOLD_SECONDS = 5  # folds that take less have no line of their own
_TABLE, _SHOWN = 50, 20  # classes: the most that a table shows; of more, this many


def print_json(value: Any) -> None:
    """Print JSON as the standard defines it: a number that is NaN or infinite is a programming error."""
    ascii_only = "utf" not in (sys.stdout.encoding or "utf").lower()
    text = json.dumps(value, indent=2, ensure_ascii=ascii_only, allow_nan=False)
    print(text.encode("utf-8", "backslashreplace").decode())


class _Console(Console):
    """Prints names from strangers with escapes; Rich alone would send their control characters to the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


class _Table(Table):
    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(visible(each) if isinstance(each, str) else each for each in cells), **options)


def console(stderr: bool = False) -> Console:
    stream: Any = sys.stderr if stderr else sys.stdout
    while hasattr(stream, "rich_proxied_file"):  # Rich draws with control characters, which `print` shows as escapes
        stream = stream.rich_proxied_file
    return _Console(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False)  # names may hold brackets


class _Amount(progress.ProgressColumn):
    """A number of images, or bytes and their speed."""

    def render(self, task: progress.Task) -> Text:
        if task.description.endswith(("pictures", "images")):
            return Text(f"{task.completed:,.0f}/{task.total or 0:,.0f}")
        done = progress.DownloadColumn().render(task)
        return Text.assemble(done, " ", progress.TransferSpeedColumn().render(task))


@contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr for bytes or images; it appears with the first report."""
    with _progress(console(stderr=True), _text("{task.description}"), progress.BarColumn(), _Amount()) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total, visible=True)


@contextmanager
def share_progress() -> Iterator[Callable[[str, float], None]]:
    """A progress bar on stderr for work that reports what it does and how much is done, from 0 to 1."""
    remaining = progress.TextColumn("ETA"), progress.TimeRemainingColumn(compact=True)
    with _progress(console(stderr=True), _text("{task.description:<24}"), progress.BarColumn(), *remaining) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


@contextmanager
def fold_progress(console: Console) -> Iterator[Callable[[int, int, "Epoch"], None]]:
    """A progress bar for the networks of a cross-validation; without a terminal, a line for each slow one of them."""
    with _progress(console, _text("{task.description}"), progress.BarColumn(bar_width=24)) as bar:
        task = bar.add_task("", total=1.0)
        begun = {0: float("-inf")}  # fold -> when the line of this fold, or of one before it, was printed

        def show(fold: int, folds: int, epoch: "Epoch") -> None:
            what = f"cross-validation: fold {fold} of {folds}"
            if fold not in begun:
                last = max(begun.values())
                is_due = time.monotonic() - last > _FOLD_SECONDS and not console.is_terminal
                console.print(what) if is_due else None
                begun[fold] = time.monotonic() if is_due else last
            done = (epoch.number - 1 + epoch.step / max(1, epoch.steps)) / epoch.epochs
            bar.update(task, description=what, completed=(fold - 1 + done) / folds)

        yield show


def _progress(console: Console, *columns: progress.ProgressColumn) -> progress.Progress:
    remaining = progress.TextColumn("ETA"), progress.TimeRemainingColumn(compact=True)
    return progress.Progress(*columns, *remaining, console=console, transient=True, disable=not console.is_terminal)


def _text(template: str) -> progress.TextColumn:
    return progress.TextColumn(template, markup=False)


def show_epochs(console: Console, epochs: Iterator["Epoch"], notes: Callable[[], list[str]] = list) -> list["Epoch"]:
    """Show a progress bar, and print a line for each finished epoch that has one; returns all finished epochs.

    The notes of the training are printed first. While each epoch has a line, the bar is that of the current epoch; with
    many epochs, it is that of all of them.
    """
    finished: list[Epoch] = []
    columns = _text("{task.description}"), progress.BarColumn(bar_width=24), _text("{task.fields[numbers]}")
    with _progress(console, *columns) as bar:
        task = bar.add_task("", total=None, numbers="")
        for index, epoch in enumerate(epochs):
            if index == 0:
                for note in notes():
                    bar.console.print(f"note: {note}")
            if epoch.finished:
                finished.append(epoch)
                if epoch.has_line:
                    bar.console.print(_epoch_line(epoch))
                if all(each.has_line for each in finished):
                    bar.reset(task, total=epoch.steps, numbers="")
            elif epoch.doing:
                bar.update(task, description=epoch.doing, completed=epoch.step, total=epoch.steps,
                           numbers=f"{epoch.step:,}/{epoch.steps:,}")  # fmt: skip
            else:
                numbers = f"{epoch.step}/{epoch.steps}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}"
                if finished and finished[-1].val_accuracy is not None:
                    numbers += f"  val accuracy {finished[-1].val_accuracy:.4f}"
                done, total = epoch.step, epoch.steps
                if not all(each.has_line for each in finished):
                    done, total = (epoch.number - 1) * total + done, epoch.epochs * total
                description = f"epoch {epoch.number}/{epoch.epochs}"
                numbers += f"  {_per_step(epoch)}"
                bar.update(task, description=description, completed=done, total=total, numbers=numbers)
    print_curves(console, finished)
    if finished and finished[-1].enough:
        console.print(f"early stopping: no improvement since epoch {finished[-1].kept}; its weights were restored")
    elif finished and finished[-1].kept not in (None, finished[-1].number):
        console.print(f"epoch {finished[-1].kept} had the lowest validation loss; its weights were restored")
    return finished


def _epoch_line(epoch: "Epoch") -> str:
    if epoch.doing:
        return f"{epoch}  {epoch.seconds:.1f} s"
    line = f"{epoch}  learning rate {epoch.learning_rate:.2g}"
    busy = (
        f"  {epoch.cores} of {epoch.most_cores} cores (the others are busy)" if epoch.cores < epoch.most_cores else ""
    )
    return f"{line}  {epoch.seconds:.1f} s  {_per_step(epoch)}{busy}"


_LEVELS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def print_curves(console: Console, history: Sequence["Epoch"]) -> None:
    """Print loss, accuracy and learning rate over the epochs, one line each; nothing for fewer than three epochs.

    A head and the fine-tuning after it have no common curve: their losses differ.
    """
    history = [epoch for epoch in history if not epoch.doing]
    if len(history) < 3 or "utf" not in console.encoding:
        return
    for name in ("loss", "val_loss", "accuracy", "val_accuracy", "learning_rate"):
        values = [value for value in (getattr(epoch, name) for epoch in history) if value is not None]
        if values:
            title = name.replace("_", " ")
            console.print(f"{title:>13}  {_curve(values)}  {values[0]:.4g} to {values[-1]:.4g}")


def _curve(values: Sequence[float], width: int = 40) -> str:
    """At most `width` of the values, as blocks of eight heights."""
    indices = np.linspace(0, len(values) - 1, min(width, len(values))).round().astype(int)
    lowest, highest = min(values), max(values)
    span = (highest - lowest) or 1.0
    return "".join(_LEVELS[round(7 * (values[index] - lowest) / span)] for index in indices)


def _per_step(epoch: "Epoch") -> str:
    milliseconds = 1000 * epoch.seconds / max(1, epoch.step)
    return f"{milliseconds:.2f} ms/step" if milliseconds < 10 else f"{milliseconds:.0f} ms/step"


def table_of(*columns: str) -> Table:
    """A plain table; a title that begins with > aligns its column to the right."""
    table = _Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in columns:
        table.add_column(title.lstrip(">"), justify="right" if title.startswith(">") else "left", no_wrap=True)
    return table


def print_class_table(console: Console, names: tuple[str, ...], counts: dict[str, list[int]]) -> None:
    table = table_of(">class", "name", *(f">{part}" for part in counts))
    shown = _few(range(len(names)), lambda index: sum(column[index] for column in counts.values()))
    for index in shown:
        table.add_row(str(index), names[index], *(f"{column[index]:,}" for column in counts.values()))
    if len(shown) < len(names):
        print(f"the {len(shown)} smallest of {len(names):,} classes:")
    table.add_section()
    table.add_row("", "total", *(f"{sum(column):,}" for column in counts.values()))
    console.print(table)


def print_contact_sheet(console: Console, data: "LabelledImages") -> None:
    """Show the first training image of each of the first ten classes that have one.

    Only a terminal with colours and block characters shows images.
    """
    if not console.is_terminal or console.color_system not in ("256", "truecolor") or "utf" not in console.encoding:
        return
    train = data.train
    firsts = np.unique(train.labels, return_index=True)[1][:10].tolist()
    for start in range(0, len(firsts), 5):
        row = firsts[start : start + 5]
        console.print("".join(f"{data.class_names[train.labels[first]]:<15.14}" for first in row))
        for cells in zip(*(_half_blocks(train.images[first]) for first in row), strict=True):
            console.print(Text(" ").join(cells))
        console.print()


def _half_blocks(image: NDArray[np.uint8], side: int = 14) -> list[Text]:
    """One image as side/2 lines of side characters, each showing two pixels, one above the other."""
    rows = np.linspace(0, image.shape[0] - 1, side).round().astype(int)
    columns = np.linspace(0, image.shape[1] - 1, side).round().astype(int)
    small = image[np.ix_(rows, columns)]
    colour = np.stack([small] * 3, axis=-1) if small.ndim == 2 else small
    lines = []
    for upper, lower in zip(colour[::2], colour[1::2], strict=True):
        line = Text()
        for above, below in zip(upper, lower, strict=True):
            line.append("\u2580", Style(color=Color.from_rgb(*above), bgcolor=Color.from_rgb(*below)))
        lines.append(line)
    return lines


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


def print_evaluation(console: Console, evaluation: "Evaluation", part: str) -> None:
    print(str(evaluation) if evaluation.folds else f"{part} {evaluation}")
    print(evaluation.gap_in_words)
    if evaluation.strangers:
        print(f"not counted: {evaluation.strangers}")
    table = table_of("class", ">images", ">precision", "95%", ">recall", "95%", ">F1")
    there = [row for row in evaluation.classes if row.images]
    rows = _few(there, lambda row: (row.f1 is None, row.f1 or 0.0))
    if len(rows) < len(there):
        print(f"the {len(rows)} classes with the lowest F1 of {len(there):,} (all: --json):")
    for row in rows:
        cells: list[str] = []
        for share, interval in ((row.precision, row.precision_interval), (row.recall, row.recall_interval)):
            cells += [_share(share), f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else ""]
        table.add_row(row.name, f"{row.images:,}", *cells, _share(row.f1))
    console.print(table)
    if len(evaluation.classes) > _TABLE:
        return _print_confusions(console, evaluation)
    confusion = table_of("true \\ predicted", *(f">{index}" for index in range(len(evaluation.classes))))
    for index, (row, counts) in enumerate(zip(evaluation.classes, evaluation.confusion, strict=True)):
        if not row.images:
            continue
        confusion.add_row(f"{index} {row.name}", *(str(count) if count else "." for count in counts))
    if Measurement.get(console, console.options.update(width=10_000), confusion).maximum > console.width:
        return _print_confusions(console, evaluation)
    console.print(confusion)
    return None


def _print_confusions(console: Console, evaluation: "Evaluation") -> None:
    """The most frequent confusions, instead of a matrix that is wider than the screen."""
    counts = np.array(evaluation.confusion)
    np.fill_diagonal(counts, 0)
    table = table_of("true", "predicted", ">images")
    for place in np.argsort(-counts, axis=None, kind="stable")[:_SHOWN]:
        true, predicted = divmod(int(place), len(counts))
        if counts[true, predicted]:
            table.add_row(
                *(evaluation.classes[each].name for each in (true, predicted)), f"{counts[true, predicted]:,}"
            )
    print("the most frequent confusions:")
    console.print(table)


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


def print_tally(console: Console, tally: "Tally") -> None:
    """How many pictures have each label, and how many of them are sure."""
    sure = (">sure",) if tally.can_abstain else ()
    table = table_of("label", ">images", *sure)
    counts = tally.labels.most_common()
    shown = counts if len(counts) <= _TABLE else counts[:_SHOWN]
    if len(shown) < len(counts):
        print(f"the {len(shown)} most frequent of {len(counts):,} labels:")
    for label, count in shown:
        table.add_row(label, f"{count:,}", *([f"{tally.sure[label]:,}"] if sure else []))
    console.print(table)
    print(tally.in_words)


def print_bench(console: Console, bench: "Bench") -> None:
    table = table_of("what", ">here", "unit")
    epochs = f"s, median of {bench.lesson_epochs} epochs" if bench.lesson_epochs else "s, extrapolated from a few steps"
    table.add_row("one epoch of the lesson (recipe 'tutorial')", f"{bench.lesson_epoch_seconds:.3f}", epochs)
    table.add_row("training with recipe 'fast'", f"{bench.fast_images_per_second:,.0f}", "images/s")
    for name, gflops in bench.matmul_gflops.items():
        table.add_row(f"fastest matrix product, {name}", f"{gflops:,.0f}", "GFLOP/s")
    p95 = f"ms; 95% take at most {1000 * bench.predict_seconds_p95:.2f}"
    table.add_row("predicting one image (CPU)", f"{1000 * bench.predict_seconds:.2f}", p95)
    table.add_row("predicting many images at once (CPU)", f"{bench.predict_images_per_second:,.0f}", "images/s")
    console.print(table)
    machine = bench.machine
    memory = f", {machine['memory_bytes'] / 1e9:.0f} GB" if "memory_bytes" in machine else ""
    print(f"machine   {machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}, {bench.device}")
    print(f"versions  {', '.join(f'{name} {version}' for name, version in bench.versions.items())}")
    print(f"data      {bench.data['name']}, {bench.data['training_images']:,} training images")
    print("note      other running programs slow these measurements down; measure twice")


def print_stress(console: Console, stress: "Stress") -> None:
    from hangtag.evaluation.metrics import wilson

    table = table_of("corruption", *(f">{severity}" for severity in range(1, 6)), ">caught", ">unfamiliar")
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
    console.print(table)
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


def print_cache(console: Console, entries: Sequence["CacheEntry"], limit: int) -> None:
    table = table_of("what", "made from", ">MB", "last used")
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        table.add_row(entry.kind, entry.what, f"{entry.bytes / 1e6:,.1f}", used)
    table.add_section()
    total = sum(entry.bytes for entry in entries)
    table.add_row("total", "", f"{total / 1e6:,.1f}", f"of at most {limit / 1e6:,.0f}")
    console.print(table)


def print_audit(console: Console, audit: "Audit", written: Sequence[Path]) -> None:
    from hangtag.data.audit import KINDS
    from hangtag.data.public.datasets import NAMED

    table = table_of("finding", ">number", "meaning")
    for kind, count in audit.counts().items():
        table.add_row(kind, f"{count:,}", KINDS[kind])
    console.print(table)
    steps = audit.first()
    print(audit.labels_checked)
    print("start with:" if steps else audit.nothing_found)
    for number, step in enumerate(steps, 1):
        print(f"  {number}  {step}")
    for path in written:
        print(f"wrote {path}")
    if steps:
        decisions = written[-1].parent / "decisions.csv"
        name = audit.data.name if audit.data.name in NAMED else audit.data.source.origin
        print(f"next         open {written[-1]} in a browser, decide, save {decisions} (or fill it in), then run")
        print(f"             hangtag train {shlex.quote(name)} --decisions {shlex.quote(str(decisions))}")


def print_section(console: Console, section: "Section") -> None:
    console.print(Rule(section.title, align="left"))
    print(section.text)
    print("\n".join(f">>> {line}" for line in section.code.splitlines()))
    if section.output:
        print(section.output)
    if section.figure:
        print(f"wrote {section.figure}")
    print()
