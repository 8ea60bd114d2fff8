"""What the command line puts on a screen: live bars, tables, a contact sheet. No parsing and no decisions.

rich draws. Without a terminal there are no bars and no pictures, only the lines that a log file wants.
"""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.color import Color
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.rule import Rule
from rich.style import Style
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hangtag.cli.bench import Bench
    from hangtag.cli.lesson import Section
    from hangtag.data.audit import Audit
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.data.store.cache import CacheEntry
    from hangtag.evaluation.guarantee_report import GuaranteeReport
    from hangtag.evaluation.judge import Judgement
    from hangtag.evaluation.metrics import Evaluation
    from hangtag.evaluation.stress_test import Stress
    from hangtag.model.predictor import Answer
    from hangtag.training.engine.loop import Epoch
    from hangtag.training.run import Training
    from hangtag.training.seeds import Seeds


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def console(stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)  # names hold brackets


class _Amount(ProgressColumn):
    """Bytes and their speed, or a number of pictures."""

    def render(self, task: Task) -> Text:
        if task.description.endswith("pictures"):
            return Text(f"{task.completed:,.0f}/{task.total or 0:,.0f}")
        done = DownloadColumn().render(task)
        return Text.assemble(done, " ", TransferSpeedColumn().render(task))


@contextmanager
def byte_progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr that appears only once there is something to wait for."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Amount(),
        TimeRemainingColumn(),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", total=None, visible=False)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total, visible=True)


@contextmanager
def share_progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr for work that tells what it does and which share of all, from 0 to 1, is done."""
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
    )
    stderr = Console(stderr=True)
    with Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def show_epochs(console: Console, epochs: Iterator["Epoch"], notes: Callable[[], list[str]] = list) -> list["Epoch"]:
    """A live bar for the epoch that runs, one kept line for each that is done; first, what training has to say."""
    finished: list[Epoch] = []
    said = False
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[numbers]}", markup=False),
        TextColumn("ETA"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, numbers="")
        for epoch in epochs:
            if not said:
                said = True
                for note in notes():
                    bar.console.print(f"note: {note}")
            if epoch.finished:
                finished.append(epoch)
                bar.console.print(_epoch_line(epoch))
                bar.reset(task, total=epoch.steps, numbers="")
            else:
                numbers = f"{epoch.step}/{epoch.steps}  loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}"
                numbers += f"  {_per_step(epoch)}"
                description = f"epoch {epoch.number}/{epoch.epochs}"
                bar.update(task, description=description, completed=epoch.step, total=epoch.steps, numbers=numbers)
    print_curves(console, finished)
    if finished and finished[-1].enough:
        console.print(f"no smaller validation loss since epoch {finished[-1].kept}: stopped, its weights are kept")
    elif finished and finished[-1].kept not in (None, finished[-1].number):
        console.print(f"the validation loss was smallest after epoch {finished[-1].kept}: its weights are kept")
    return finished


def _epoch_line(epoch: "Epoch") -> str:
    width = len(str(epoch.epochs))
    line = (
        f"epoch {epoch.number:>{width}}/{epoch.epochs}  {epoch.step}/{epoch.steps}  "
        f"loss {epoch.loss:.4f}  accuracy {epoch.accuracy:.4f}"
    )
    if epoch.val_accuracy is not None:
        line += f"  val loss {epoch.val_loss:.4f}  val accuracy {epoch.val_accuracy:.4f}"
    line += f"  rate {epoch.learning_rate:.2g}"
    return f"{line}  {epoch.seconds:.1f} s  {_per_step(epoch)}"


_LEVELS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"


def print_curves(console: Console, history: Sequence["Epoch"]) -> None:
    """Loss, accuracy and learning rate over the epochs, one line each; nothing for fewer than three epochs."""
    if len(history) < 3 or "utf" not in console.encoding:
        return
    for title, values in (
        ("loss", [epoch.loss for epoch in history]),
        ("val loss", [epoch.val_loss for epoch in history]),
        ("accuracy", [epoch.accuracy for epoch in history]),
        ("val accuracy", [epoch.val_accuracy for epoch in history]),
        ("learning rate", [epoch.learning_rate for epoch in history]),
    ):
        known = [value for value in values if value is not None]
        if known:
            console.print(f"{title:>13}  {_curve(known)}  {known[0]:.4g} to {known[-1]:.4g}", markup=False)


def _curve(values: Sequence[float], width: int = 40) -> str:
    """Values as blocks of eight heights from the least to the most; of more than `width`, some."""
    places = np.linspace(0, len(values) - 1, min(width, len(values))).round().astype(int)
    least, most = min(values), max(values)
    span = (most - least) or 1.0
    return "".join(_LEVELS[round(7 * (values[place] - least) / span)] for place in places)


def _per_step(epoch: "Epoch") -> str:
    milliseconds = 1000 * epoch.seconds / max(1, epoch.step)
    return f"{milliseconds:.2f} ms/step" if milliseconds < 10 else f"{milliseconds:.0f} ms/step"


def table_of(*columns: str) -> Table:
    """A plain table; a column whose title begins with > is aligned to the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in columns:
        table.add_column(title.lstrip(">"), justify="right" if title.startswith(">") else "left", no_wrap=True)
    return table


def print_class_table(console: Console, names: tuple[str, ...], counts: dict[str, list[int]]) -> None:
    table = table_of(">class", "name", *(f">{part}" for part in counts))
    for index, name in enumerate(names):
        table.add_row(str(index), name, *(f"{column[index]:,}" for column in counts.values()))
    table.add_section()
    table.add_row("", "in all", *(f"{sum(column):,}" for column in counts.values()))
    console.print(table)


def print_contact_sheet(console: Console, data: "LabelledImages") -> None:
    """The first picture of each of the first ten classes, where the terminal has colours and block characters."""
    if not console.is_terminal or console.color_system not in ("256", "truecolor") or "utf" not in console.encoding:
        return
    train = data.train
    firsts = [int((train.labels == index).argmax()) for index in range(min(10, len(data.class_names)))]
    for start in range(0, len(firsts), 5):
        row = firsts[start : start + 5]
        console.print("".join(f"{data.class_names[train.labels[first]]:<15.14}" for first in row))
        for cells in zip(*(_half_blocks(train.images[first]) for first in row), strict=True):
            console.print(Text(" ").join(cells))
        console.print()


def _half_blocks(image: NDArray[np.uint8], side: int = 14) -> list[Text]:
    """One picture as side/2 lines of side characters, each showing two pixels, one above the other."""
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


def print_summary(console: Console, training: "Training", judged: "Judgement", report: Path) -> None:
    run = training.run
    print()
    print(f"{judged.part} {judged.evaluation}")
    print(judged.evaluation.gap_in_words)
    _print_trust(judged.guarantees)
    print(f"training took {training.seconds['train']:.1f} s: {training.speed}")
    print(f"  ship this    {run.model}")
    print(f"  read this    {report}")
    print(f"  try this     hangtag predict {shlex.quote(str(run.path))} photo.png")


def _print_trust(kept: "GuaranteeReport") -> None:
    """Whether the answers can be used, in two lines."""
    if kept.sure and kept.sure_right and kept.sure.share is not None and kept.sure_right.share is not None:
        print(f"sure of {kept.sure.share:.1%} of them, and right on {kept.sure_right.share:.1%} of these")
    for sentence in kept.limitations:
        print(f"note: {sentence}")


def print_seeds(seeds: "Seeds", kept: int, judged: "Judgement", report: Path) -> None:
    common = seeds.run.metrics()["seeds"]
    low, high = common["accuracy"]["interval"]
    print()
    print(
        f"{judged.part} accuracy over {len(seeds.numbers)} seeds: mean {common['accuracy']['mean']:.4f}, "
        f"sd {common['accuracy']['sd']:.4f}, 95 % of the mean [{low:.4f}, {high:.4f}]"
    )
    print(f"kept seed {kept} ({common['kept_because']}): {judged.part} {judged.evaluation}")
    print(judged.evaluation.gap_in_words)
    _print_trust(judged.guarantees)
    print(f"  ship this    {seeds.run.model}")
    print(f"  read this    {report}")
    print(f"  try this     hangtag predict {shlex.quote(str(seeds.run.path))} photo.png")


def print_evaluation(console: Console, evaluation: "Evaluation", part: str) -> None:
    print(f"{part} {evaluation}")
    print(evaluation.gap_in_words)
    table = table_of("class", ">images", ">precision", "95 %", ">recall", "95 %", ">F1")
    for row in evaluation.classes:
        cells: list[str] = []
        for share, interval in ((row.precision, row.precision_interval), (row.recall, row.recall_interval)):
            cells += [_share(share), f"{interval[0]:.3f}-{interval[1]:.3f}" if interval else ""]
        table.add_row(row.name, f"{row.images:,}", *cells, _share(row.f1))
    console.print(table)
    confusion = table_of("true \\ predicted", *(f">{index}" for index in range(len(evaluation.classes))))
    for index, (row, counts) in enumerate(zip(evaluation.classes, evaluation.confusion, strict=True)):
        confusion.add_row(f"{index} {row.name}", *(str(count) if count else "." for count in counts))
    console.print(confusion)


def print_promises(kept: "GuaranteeReport", part: str) -> None:
    """What the model promises about its answers, and what became of it, a line each."""
    if part == "validation" and kept.sets:
        print("note: there is no test part; these pictures also set the thresholds, so that the promises are not tried")
    print(kept.calibration.in_words)
    for each in kept.sets:
        promised = f"sets for {each.coverage:.0%}"
        print(f"{promised}: hold the label for {each.covered.share:.1%}, {each.size:.2f} labels on average")
    for target, answered, right in kept.target_accuracies:
        if answered.share is not None and right.share is not None:
            print(
                f"asked for {100 * target:g}% right: answers {answered.share:.1%}, of which {right.share:.1%} are right"
            )
    if kept.ood_false_positives is not None and kept.ood_false_positives.share is not None:
        print(f"called unfamiliar, falsely: {kept.ood_false_positives.share:.1%} (5% expected)")
    for sentence in kept.limitations:
        print(f"note: {sentence}")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def print_answer(picture: Path, answer: "Answer") -> None:
    ranked = ", ".join(f"{label} {probability:.1%}" for label, probability in answer.top)
    print(f"{picture}: {ranked}{_how_sure(answer)}")
    for warning in answer.warnings:
        print(f"{picture}: note: {warning}", file=sys.stderr)


def _how_sure(answer: "Answer") -> str:
    if answer.is_ood:
        return f"; unfamiliar: stranger than {answer.ood_score:.1%} of the pictures it was tried on"
    if answer.sure is None:
        return ""
    if answer.sure:
        return "; sure"
    several = answer.prediction_set is not None and len(answer.prediction_set) > 1
    return (
        f"; not sure: {' or '.join(answer.prediction_set or ())} ({answer.coverage:.0%})" if several else "; not sure"
    )


def print_bench(console: Console, found: "Bench") -> None:
    table = table_of("what", ">here", "unit")
    epochs = f"s, median of {found.lesson_epochs} epochs" if found.lesson_epochs else "s, reckoned from some steps"
    table.add_row("the lesson's epoch (recipe 'tutorial')", f"{found.lesson_epoch_seconds:.3f}", epochs)
    table.add_row("training by recipe 'fast'", f"{found.fast_images_per_second:,.0f}", "images/s")
    for name, gflops in found.matmul_gflops.items():
        table.add_row(f"best matrix product, {name}", f"{gflops:,.0f}", "GFLOP/s")
    p95 = f"ms, 95 % within {1000 * found.predict_seconds_p95:.2f}"
    table.add_row("predicting one picture (CPU)", f"{1000 * found.predict_seconds:.2f}", p95)
    table.add_row("predicting many at once (CPU)", f"{found.predict_images_per_second:,.0f}", "images/s")
    console.print(table)
    machine = found.machine
    memory = f", {machine['memory_bytes'] / 1e9:.0f} GB" if "memory_bytes" in machine else ""
    print(f"on        {machine['processor']}, {machine['cores']} cores{memory}, {machine['system']}, {found.device}")
    print(f"with      {', '.join(f'{name} {version}' for name, version in found.versions.items())}")
    print(f"data      {found.data['name']}, {found.data['training_images']:,} training images")
    print("note      other programs that ran meanwhile make these numbers worse; run it twice")


def print_stress(console: Console, found: "Stress") -> None:
    table = table_of("corruption", *(f">{severity}" for severity in range(1, 6)), ">caught", ">unfamiliar")
    clean = found.clean
    table.add_row("none", _whole(clean.accuracy), "", "", "", "", _whole(clean.caught), _whole(clean.ood_rate))
    table.add_section()
    for name in found.worst():
        cells = found.at(name)
        means = (found.mean(name, what) for what in ("caught", "ood_rate"))
        table.add_row(name, *(_whole(cell.accuracy) for cell in cells), *map(_whole, means))
    print(
        f"right answers in percent of {found.images:,} pictures, by strength; of the wrong ones, how many were caught "
        "(called not sure), and how many pictures unfamiliar, over all strengths"
    )
    console.print(table)
    print(f"mean over all corruptions {found.accuracy:.1%}, on the pictures as they are {clean.accuracy:.1%}")
    if not found.slices:
        print(f"no group is worse than the rest beyond chance ({found.tried:,} pictures)")
    for each in found.slices[:10]:
        low, high = each.interval
        print(
            f"weak: {each.by} {each.group}: right on {each.accuracy:.1%} [{low:.1%}, {high:.1%}] of {each.images:,}, "
            f"on the rest {each.rest:.1%}"
        )


def _whole(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


def print_cache(console: Console, entries: Sequence["CacheEntry"], most: int) -> None:
    table = table_of("what", "made from", ">MB", "last used")
    for entry in entries:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        table.add_row(entry.kind, entry.what, f"{entry.bytes / 1e6:,.1f}", used)
    table.add_section()
    table.add_row("in all", "", f"{sum(entry.bytes for entry in entries) / 1e6:,.1f}", f"of {most / 1e6:,.0f} at most")
    console.print(table)


def print_audit(console: Console, found: "Audit", written: Sequence[Path]) -> None:
    from hangtag.data.audit import KINDS
    from hangtag.data.public.datasets import NAMED

    table = table_of("finding", ">number", "meaning")
    for kind, count in found.counts().items():
        table.add_row(kind, f"{count:,}", KINDS[kind])
    console.print(table)
    steps = found.first()
    print("to do first:" if steps else "nothing was found")
    for number, step in enumerate(steps, 1):
        print(f"  {number}  {step}")
    for path in written:
        print(f"wrote {path}")
    if steps:
        decisions = written[-1].parent / "decisions.csv"
        print(f"next         look at {written[-1]}; write keep, drop or relabel: CLASS into {decisions}, then")
        named = found.data.name if found.data.name in NAMED else found.data.source.origin
        print(f"             hangtag train {shlex.quote(named)} --decisions {shlex.quote(str(decisions))}")


def print_section(console: Console, section: "Section") -> None:
    console.print(Rule(section.title, align="left"))
    print(section.text)
    print("\n".join(f">>> {line}" for line in section.code.splitlines()))
    if section.prints:
        print(section.prints)
    if section.picture:
        print(f"wrote {section.picture}")
    print()
