"""What `fit(verbose=1)` writes: a progress bar in a terminal, and lines for finished epochs there and elsewhere."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from numbers import Integral

from hangtag.errors import UsageError
from hangtag.training.engine.loop import Epoch

__all__ = ["check_verbose", "folds_progress", "show_progress"]

_BAR = 24  # characters


def check_verbose(verbose: object) -> int:
    """0, 1 or 2; raises UsageError for anything else."""
    if not isinstance(verbose, Integral) or int(verbose) not in (0, 1, 2):
        raise UsageError(f"verbose must be 0, 1 or 2, got {verbose!r}", "0: silent; 1: a bar in a terminal; 2: lines")
    return int(verbose)


def folds_progress(verbose: int) -> Callable[[int, int, Epoch], None] | None:
    """What writes a line to stdout for each fold that begins; None if nothing is written."""
    begun: list[int] = []

    def write(fold: int, folds: int, epoch: Epoch) -> None:
        if fold not in begun:
            begun.append(fold)
            sys.stdout.write(f"cross-validation: fold {fold} of {folds}\n")

    return write if check_verbose(verbose) else None


def show_progress(epochs: Iterator[Epoch], verbose: int, notes: Callable[[], Sequence[str]]) -> None:
    """Train to the end; write to stdout the notes, then lines for finished epochs.

    Args:
        verbose: 0 writes nothing; 1 writes a line for each epoch, or for about ten if they are many and quick, and
            draws a bar if stdout is a terminal; 2 writes a line for each epoch and draws no bar.
    """
    verbose, out = check_verbose(verbose), sys.stdout
    bar = verbose == 1 and out.isatty()
    for index, epoch in enumerate(epochs):
        if not verbose:
            continue
        if index == 0:
            out.writelines(f"note: {note}\n" for note in notes())
        clear = "\r\x1b[K" if bar else ""
        if epoch.finished:
            if verbose == 1 and not epoch.has_line:
                continue
            kept = (
                f"; the weights of epoch {epoch.kept} were restored" if epoch.kept not in (None, epoch.number) else ""
            )
            out.write(f"{clear}{epoch}  {epoch.seconds:.1f} s{kept}\n")
        elif bar:
            done = _BAR * epoch.step // epoch.steps
            line = f"{epoch}  [{'#' * done}{'.' * (_BAR - done)}]"
            out.write(clear + line[: shutil.get_terminal_size().columns - 1])
        out.flush()
