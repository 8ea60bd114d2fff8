"""What the command line draws with Rich: progress bars, the lines and curves of a training, a contact sheet.

Without a terminal there are no bars and no images, only lines that suit a log file.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich import progress
from rich.color import Color
from rich.console import Console
from rich.rule import Rule
from rich.style import Style
from rich.text import Text

from hangtag.words import printable, setting_text

if TYPE_CHECKING:
    from hangtag.cli.tutorial import Section
    from hangtag.data.labelled_images import LabelledImages
    from hangtag.evaluation.tuning_results import Trial
    from hangtag.training.engine.loop import Epoch
    from hangtag.training.search_space import Space

_LONG = 1e9  # seconds; the speed of jobs is that of all that were done
_WIDTH = 9  # of a column with a setting
_FOLD_SECONDS = 5  # folds that take less have no line of their own


class _Console(Console):
    """Prints names from strangers with escapes; Rich alone would send their control characters to the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def console(stderr: bool = False) -> Console:
    stream: Any = sys.stderr if stderr else sys.stdout
    while hasattr(stream, "rich_proxied_file"):  # Rich draws with control characters, which `print` shows as escapes
        stream = stream.rich_proxied_file
    return _Console(file=stream, highlight=False, soft_wrap=True, markup=False, emoji=False)  # names may hold brackets


class _Amount(progress.ProgressColumn):
    """A number of images or bytes, and their speed."""

    def render(self, task: progress.Task) -> Text:
        if task.description.endswith(("pictures", "images", "shards")):
            of = f"/{task.total:,.0f}" if task.total else ""
            speed = f" {task.speed:,.0f}/s" if task.speed else ""
            return Text(f"{task.completed:,.0f}{of}{speed}")
        done = progress.DownloadColumn().render(task)
        return Text.assemble(done, " ", progress.TransferSpeedColumn().render(task))


class ByteProgress:
    """A progress bar on stderr for bytes or images, which is on the screen from its first report until `hide`."""

    def __init__(self) -> None:
        self._bar = _progress(console(stderr=True), _text("{task.description}"), progress.BarColumn(), _Amount())
        self._task = self._bar.add_task("", total=None)

    def __call__(self, what: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=what, completed=done, total=total or None)
        self._bar.start()

    def hide(self) -> None:
        """Leave the screen to a question, whose answer a bar would overwrite; the next report shows the bar again."""
        self._bar.stop()


@contextmanager
def byte_progress() -> Iterator[ByteProgress]:
    """A progress bar that is taken off the screen at the end."""
    bar = ByteProgress()
    try:
        yield bar
    finally:
        bar.hide()


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


class Jobs:
    """Bars for work that consists of several trainings: one for the whole, and one for each that is in progress.

    Args:
        noun: what they are, such as "trial".
        total: how many there are.
        done: how many were finished before.
    """

    def __init__(self, console: Console, noun: str, total: float, done: int = 0) -> None:
        self.noun, self.total, self.finished, self.note = noun, total, done, ""
        columns = _text("{task.description}"), progress.BarColumn(bar_width=24), _text("{task.fields[numbers]}")
        self.bar = _progress(console, *columns, seconds=_LONG)
        self.whole = self.bar.add_task("", total=total, completed=done, numbers="")
        self.tasks: dict[int, progress.TaskID] = {}
        self.shares: dict[int, float] = {}

    def show(self, number: int, epoch: "Epoch", where: str = "") -> None:
        """Show the state of a job."""
        if number not in self.tasks:
            self.tasks[number] = self.bar.add_task("", total=1.0, numbers="")
        self.shares[number] = (epoch.number - 1 + epoch.step / max(1, epoch.steps)) / max(1, epoch.epochs)
        what = epoch.doing or f"epoch {epoch.number}/{epoch.epochs}"
        description = f"{self.noun} {number}{f' on {where}' if where else ''}: {what}"
        numbers = "" if epoch.doing else f"loss {epoch.loss:.4f}  {_per_step(epoch)}"
        self.bar.update(self.tasks[number], description=description, completed=self.shares[number], numbers=numbers)
        self._show_whole()

    def report(self, number: int, state: Mapping[str, Any], where: str) -> None:
        """Show the state of a job on a cluster."""
        from hangtag.training.engine.loop import Epoch

        self.show(number, Epoch(**state), where)

    def end(self, number: int, line: str = "", finished: bool = True) -> None:
        """Print the result of a job that has ended, and remove its bar."""
        if number in self.tasks:
            self.bar.remove_task(self.tasks.pop(number))
        self.shares.pop(number, None)
        self.finished += finished
        self.bar.console.print(line) if line else None
        self._show_whole()

    def _show_whole(self) -> None:
        done = self.finished + sum(self.shares.values())
        description = f"{self.noun}s: {self.finished} of {self.total:g} done"
        self.bar.update(self.whole, description=description, completed=done, numbers=self.note)


@contextmanager
def jobs(console: Console, noun: str, total: float, done: int = 0) -> Iterator[Jobs]:
    """Bars for several trainings, with the time that the whole will take; without a terminal, only the lines."""
    shown = Jobs(console, noun, total, done)
    with shown.bar:
        yield shown


def trial_head(space: "Space") -> str:
    """The head of the table of trials, which `trial_line` continues."""
    names = (f"{name:>{width}}" for name, width in _widths(space).items())
    return "  ".join(["trial", f"{'loss':>7}", "accuracy", f"{'epochs':>9}", f"{'time':>8}", *names])


def trial_line(trial: "Trial", space: "Space") -> str:
    loss, accuracy = (f"{each:.4f}" if each is not None else "-" for each in (trial.loss, trial.accuracy))
    cells = (f"{setting_text(trial.settings.get(name)):>{width}}" for name, width in _widths(space).items())
    epochs = f"{len(trial.curve)}/{trial.epochs}" if trial.curve else "-"
    numbers = [f"{trial.number:>5}", f"{loss:>7}", f"{accuracy:>8}", f"{epochs:>9}", f"{trial.seconds:>6.1f} s"]
    return "  ".join([*numbers, *cells]) + ("" if trial.state == "completed" else f"  {trial.in_words}")


def _widths(space: "Space") -> dict[str, int]:
    """The width of each setting's column."""
    values = {name: map(setting_text, getattr(each, "values", ())) for name, each in space.items()}
    return {name: max(_WIDTH, len(name), *map(len, texts)) for name, texts in values.items()}


def _progress(console: Console, *columns: progress.ProgressColumn, seconds: float = 30.0) -> progress.Progress:
    """A bar that is gone at the end; its ETA is that of the speed in the last `seconds`."""
    remaining = progress.TextColumn("ETA"), progress.TimeRemainingColumn(compact=True)
    return progress.Progress(
        *columns, *remaining, console=console, transient=True, disable=not console.is_terminal,
        speed_estimate_period=seconds,
    )  # fmt: skip


def _text(template: str) -> progress.TextColumn:
    return progress.TextColumn(template, markup=False)


def show_epochs(console: Console, epochs: Iterator["Epoch"], notes: Callable[[], list[str]] = list) -> list["Epoch"]:
    """Show a progress bar, and print a line for each finished epoch that has one; returns all finished epochs.

    The notes of the training are printed first, and those that are new at the end. While each epoch has a line, the
    bar is that of the current epoch; with many epochs, it is that of all of them.
    """
    finished: list[Epoch] = []
    said: set[str] = set()
    columns = _text("{task.description}"), progress.BarColumn(bar_width=24), _text("{task.fields[numbers]}")
    with _progress(console, *columns) as bar:
        task = bar.add_task("", total=None, numbers="")
        for index, epoch in enumerate(epochs):
            if index == 0:
                _print_notes(bar.console, notes(), said)
            said.add(epoch.doing)
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
    _print_notes(console, notes() if finished else [], said)
    print_curves(console, finished)
    if finished and finished[-1].enough:
        console.print(f"early stopping: no improvement since epoch {finished[-1].kept}; its weights were restored")
    elif finished and finished[-1].kept not in (None, finished[-1].number):
        console.print(f"epoch {finished[-1].kept} had the lowest validation loss; its weights were restored")
    return finished


def _print_notes(console: Console, notes: list[str], said: set[str]) -> None:
    for note in notes:
        if note not in said:
            console.print(f"note: {note}")
            said.add(note)


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


def print_section(console: Console, section: "Section") -> None:
    console.print(Rule(section.title, align="left"))
    print(section.text)
    print("\n".join(f">>> {line}" for line in section.code.splitlines()))
    if section.output:
        print(section.output)
    if section.figure:
        print(f"wrote {section.figure}")
    print()
