"""fit_progress.py: what fit writes, in a terminal and elsewhere."""

import contextlib
import dataclasses
import io
import re
import sys
from typing import Any

import pytest
from rich.console import Console

from hangtag.cli.live import show_epochs
from hangtag.training.engine import loop
from hangtag.training.estimator import ImageClassifier
from hangtag.training.fit_progress import show_progress
from toys import shapes


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def written(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, verbose: int | bool | None, own: int = 0) -> str:
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(loop, "_REPORT_SECONDS", 0.0)
    ImageClassifier("quick", epochs=2, verbose=own).fit(*shapes(60), verbose=verbose)
    return out.getvalue()


def test_nothing_is_written_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert written(monkeypatch, Terminal(), None) == written(monkeypatch, Terminal(), 0, own=1) == ""
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("verbose", [1, 2, True])
def test_elsewhere_each_epoch_is_a_line(monkeypatch: pytest.MonkeyPatch, verbose: int) -> None:
    note, *lines = written(monkeypatch, io.StringIO(), verbose).splitlines()

    assert note.startswith("note: small dataset")
    assert [re.sub("[0-9.]+", "#", line) for line in lines] == [
        "epoch #/#  #/#  loss #  accuracy #  val loss #  val accuracy #  # s"
    ] * 2


def test_a_terminal_has_a_bar_that_leaves_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = written(monkeypatch, Terminal(), None, own=1)

    assert "[" in text and "\r" in text
    left = [line.rpartition("\x1b[K")[2] for line in text.split("\n")[1:-1]]
    assert [line[:9] for line in left] == ["epoch 1/2", "epoch 2/2"]
    assert "\r" not in written(monkeypatch, Terminal(), 2)


def epochs(count: int, seconds: float = 0.1, stopped: int | None = None) -> list[loop.Epoch]:
    """Epochs of a training, a report within each and one at its end."""
    found = []
    for number in range(1, (stopped or count) + 1):
        epoch = loop.Epoch(number, count, 5, 10, 1.0, 0.5, 0.1, seconds / 2)
        end: dict[str, Any] = {"step": 10, "seconds": seconds, "finished": True, "val_loss": 1.0, "val_accuracy": 0.5}
        found += [epoch, dataclasses.replace(epoch, **end, enough=number == stopped)]
    return found


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        (epochs(15), list(range(1, 16))),  # few
        (epochs(90), [9, 18, 27, 36, 45, 54, 63, 72, 81, 90]),
        (epochs(90, stopped=40), [9, 18, 27, 36, 40]),
        (epochs(23, seconds=6), list(range(1, 24))),  # slow
        (epochs(16), [2, 4, 6, 8, 10, 12, 14, 16]),
    ],
)
def test_many_quick_epochs_have_about_ten_lines(told: list[loop.Epoch], lines: list[int]) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        show_progress(iter(told), 1, list)
    finished = show_epochs(Console(file=(shown := io.StringIO()), width=200), iter(told))

    for text in (out.getvalue(), shown.getvalue()):
        assert [int(number) for number in re.findall(r"^epoch +([0-9]+)/", text, re.MULTILINE)] == lines
    assert len(finished) == told[-1].number

    with contextlib.redirect_stdout(out := io.StringIO()):
        show_progress(iter(told), 2, list)
    assert out.getvalue().count("\n") == told[-1].number
