"""`hangtag model` and `bench`; test_tutorial.py has the lesson."""

from typing import Any

import pytest

from hangtag.cli import screen
from hangtag.cli.bench import Bench


def test_model_prints_the_layer_table(hangtag: Any) -> None:
    shown = hangtag("model", "tutorial")

    assert "101,770" in shown.out
    assert "(N, 784)" in shown.out
    assert hangtag("model", "tutorial", "--json").json["parameters"] == 101_770


def test_bench_measures_this_machine(hangtag: Any, capsys: pytest.CaptureFixture[str]) -> None:  # exports a network
    typed = hangtag("bench", "tiny", "--path", "files", "--seconds", "1", "--device", "cpu", "--json")
    screen.print_bench(screen.console(), Bench(**typed.json))
    table = capsys.readouterr().out

    assert (typed.code, typed.err.strip()) == (0, "")
    assert typed.json["data"] == {"name": "tiny", "training_images": 20}
    assert all(what in table for what in ("training with recipe 'fast'", "GFLOP/s", "predicting one image"))
    assert typed.json["machine"]["processor"] in table
