"""fit_progress.py: what fit writes, in a terminal and elsewhere."""

import io
import re
import sys

import pytest

from hangtag.training.engine import loop
from hangtag.training.estimator import ImageClassifier
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
