"""`hangtag tune`: what a user types, what is printed, the exit code and the run folder."""

import json
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hangtag.cli import tune


@pytest.fixture
def tune_tiny(hangtag: Any) -> Any:
    """Run `hangtag tune tiny` for four short trials, with more options."""
    own = ("--recipe", "tutorial", "--set", "epochs=2", "--trials", "4")
    return partial(hangtag, "tune", "tiny", "--path", "files", *own)


def test_a_search_fills_an_ordinary_run_folder(hangtag: Any, tune_tiny: Any, tmp_path: Path) -> None:
    tuned = tune_tiny("--search", "learning_rate=1e-4..1e-1")
    run = tmp_path / "runs" / "tiny-tutorial-tuned"

    assert tuned.code == 0, tuned.err
    assert "search space: learning_rate 0.0001 to 0.1 (logarithmic)" in tuned.out
    assert tuned.out.count("\n    ") >= 4  # a line for each trial
    assert "the best of 4 trials" in tuned.out
    assert "The test images took no part in the search." in tuned.out
    assert json.loads((run / "config.json").read_text())["tuning"]["tried"] == 4
    assert len((run / "trials.csv").read_text().splitlines()) == 5
    assert "Search for settings" in (run / "report.html").read_text()
    assert hangtag("evaluate", "last", "--json").json["part"] == "test"
    assert hangtag("report", "last").code == 0
    assert "chosen among 4 trials" in (run / "report.html").read_text()
    refused = tune_tiny("--search", "learning_rate=1e-4..1e-1", "--out", "runs/tiny-tutorial-tuned")
    assert (refused.code, "already exists" in refused.err) == (1, True)


def test_results_as_json(tune_tiny: Any) -> None:
    found = tune_tiny("--search", "flip=yes,no", "--json").json

    assert [trial["number"] for trial in found["tuning"]["trials"]] == [0, 1]
    assert found["tuning"]["chosen"] in (0, 1)
    assert 0 <= found["accuracy"] <= 1


def test_ctrl_c_keeps_the_trials_and_the_same_command_goes_on(tune_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        checks = count()
        patched.setattr(tune, "stop_on_interrupt", lambda: nullcontext(lambda: next(checks) > 20))
        stopped = tune_tiny()
    assert stopped.code == 130
    assert "To continue, run the same command again" in stopped.out

    assert "continuing after" in (again := tune_tiny()).out
    assert again.code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--search", "learning_rat=1..2"], "did you mean 'learning_rate'"),
        (["--search", "epochs=1..2"], "both fixed and searched"),
        (["--search", "learning_rate=2..1"], "2 is not below 1"),
        (["--trials", "0"], "trials must be from 1"),
        (["--minutes", "-1"], "minutes must be above 0"),
        (["--search", "backbone=efficientnet-lite0,efficientnet-lite1"], "takes no backbone"),
        (["--ray", "127.0.0.1:99999"], "must be HOST:PORT"),
    ],
)
def test_invalid_requests_are_one_line_and_leave_no_folder(
    tune_tiny: Any, tmp_path: Path, options: list[str], message: str
) -> None:
    refused = tune_tiny(*options)

    assert refused.code == 2
    assert message in refused.err
    assert len(refused.err.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()
