"""`hangtag model` and `bench`; test_tutorial.py has the lesson."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hangtag.cli import learn, screen
from hangtag.cli.bench import Bench
from hangtag.cli.tutorial import Section
from hangtag.training.engine.loop import Epoch


def test_model_prints_the_layer_table(hangtag: Any) -> None:
    shown = hangtag("model", "tutorial")

    assert "101,770" in shown.out
    assert "(N, 784)" in shown.out
    assert hangtag("model", "tutorial", "--json").json["parameters"] == 101_770


def test_bench_measures_this_machine(hangtag: Any, capsys: pytest.CaptureFixture[str]) -> None:  # exports a network
    typed = hangtag("bench", "tiny", "--path", "files", "--seconds", "1", "--device", "cpu", "--json")
    screen.print_bench(Bench(**typed.json))
    table = capsys.readouterr().out

    assert (typed.code, typed.err.strip()) == (0, "")
    assert typed.json["data"] == {"name": "tiny", "training_images": 20}
    assert all(what in table for what in ("training with recipe 'fast'", "GFLOP/s", "predicting one image"))
    assert typed.json["machine"]["processor"] in table


def test_the_tutorial_prints_each_step_as_it_comes(
    hangtag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def steps(*_: Any) -> Iterator[Section | Epoch]:
        yield Section("1. First", "Text.", "code()", "output", tmp_path / "figure.png")
        yield Section("2. Second", "Text.", "code()")
        assert "2. Second" in capsys.readouterr().out  # printed before training begins
        for number in (1, 2):
            yield Epoch(number, 2, 5, 5, 0.5, 0.9, 0.001, 1.0, finished=True)
        yield Section("3. Third", "Text.", "code()")

    monkeypatch.setattr(learn, "read_data", lambda *_: None)
    monkeypatch.setattr("hangtag.cli.tutorial.walk", steps)

    shown = hangtag("tutorial", "--out", "figures")

    assert shown.code == 0, shown.err
    assert shown.out.index("epoch 1/2") < shown.out.index("epoch 2/2") < shown.out.index("3. Third")
    assert (tmp_path / "figures").is_dir()
