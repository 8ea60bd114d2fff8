"""cli.py: what a user types, what comes back, and the exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hangtag.cli import main, screen, train
from hangtag.cli.bench import Bench
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public import datasets
from hangtag.data.store import cache
from hangtag.errors import UsageError
from hangtag.pictures import encode_png
from toys import tiny_files, tiny_set, toy_model

COMMANDS = (
    "data", "look", "model", "train", "evaluate", "predict", "report", "bench", "tutorial", "audit", "cache",
    "compare", "stress", "check",
)  # fmt: skip


class Typed:
    """The outcome of one command line."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def hangtag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Type a command in an empty folder, beside a public set of thirty pictures called `tiny` in `files/`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(datasets.NAMED, "tiny", tiny_set())
    (tmp_path / "files").mkdir()
    for name, content in tiny_files().items():
        (tmp_path / "files" / name).write_bytes(content)

    def run(*arguments: str) -> Typed:
        monkeypatch.setattr(sys, "argv", ["hangtag", *arguments])
        try:
            main.main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Typed(int(code or 0), captured.out, captured.err)

    return run


def train_tiny(hangtag: Any, *more: str) -> Typed:
    answer: Typed = hangtag("train", "tiny", "--path", "files", "--recipe", "tutorial", "--epochs", "2", *more)
    return answer


def test_every_command_has_help_with_an_example(hangtag: Any) -> None:
    for command in COMMANDS:
        shown = hangtag(command, "--help")
        assert shown.code == 0
        assert f"Example: hangtag {command}" in shown.out


def test_data_says_where_from_how_big_and_the_fingerprint(hangtag: Any) -> None:
    shown = hangtag("data", "tiny", "--path", "files")

    assert shown.code == 0
    assert "30 images of 4x4 grey, 3 classes (train 20, test 10)" in shown.out
    said = hangtag("data", "tiny", "--path", "files", "--json").json
    assert said["origin"] == "files"
    assert said["fingerprint"] in shown.out and len(said["fingerprint"]) == 64


def test_data_exports_pictures_in_a_folder_per_class(hangtag: Any, tmp_path: Path) -> None:
    hangtag("data", "tiny", "--path", "files", "--export", "out", "--first", "4")

    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")) == [
        "bar/00001.png", "dot/00002.png", "edge/00000.png", "edge/00003.png",
    ]  # fmt: skip


def test_look_writes_two_pictures_and_prints_the_class_table(hangtag: Any, tmp_path: Path) -> None:
    shown = hangtag("look", "tiny", "--path", "files", "--out", "seen")

    assert [path.name for path in sorted((tmp_path / "seen").iterdir())] == ["1-one-image.png", "2-grid.png"]
    assert "in all" in shown.out
    assert "bar" in shown.out


def test_model_prints_the_layer_table(hangtag: Any) -> None:
    shown = hangtag("model", "tutorial")

    assert "101,770" in shown.out
    assert "(N, 784)" in shown.out
    assert hangtag("model", "tutorial", "--json").json["parameters"] == 101_770


def test_train_fills_a_run_folder_that_evaluate_predict_and_report_use(hangtag: Any, tmp_path: Path) -> None:
    trained = train_tiny(hangtag)
    run = tmp_path / "runs" / "tiny-tutorial"

    assert trained.code == 0
    assert "epoch 2/2  1/1  loss" in trained.out
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json", "figures", "history.jsonl", "metrics.json", "model.onnx", "neighbours.npz", "report.html",
        "weights.safetensors",
    ]  # fmt: skip
    assert json.loads((run / "config.json").read_text())["status"] == "finished"

    evaluated = hangtag("evaluate", "last", "--json").json
    assert evaluated == json.loads((run / "metrics.json").read_text())
    assert "confusion" in evaluated
    assert "precision" in hangtag("evaluate", "tiny-tutorial").out

    picture = tmp_path / "a.png"
    picture.write_bytes(encode_png(np.zeros((9, 7), np.uint8)))
    answered = hangtag("predict", "last", "a.png", "--top", "2", "--json").json[0]
    assert len(answered["top"]) == 2
    assert answered["warnings"] == ["resized from 7x9 to 4x4, which changes its proportions"]

    (run / "report.html").unlink()
    assert hangtag("report", "last").code == 0
    assert (run / "report.html").stat().st_size > 1000


def test_bench_measures_this_machine(hangtag: Any, capsys: pytest.CaptureFixture[str]) -> None:  # exports a network
    typed = hangtag("bench", "tiny", "--path", "files", "--seconds", "1", "--device", "cpu", "--json")
    screen.print_bench(screen.console(), Bench(**typed.json))
    table = capsys.readouterr().out

    assert (typed.code, typed.err.strip()) == (0, "")
    assert typed.json["data"] == {"name": "tiny", "training_images": 20}
    assert all(what in table for what in ("training by recipe 'fast'", "GFLOP/s", "predicting one picture"))
    assert typed.json["machine"]["processor"] in table


def test_a_second_training_leaves_the_first_untouched(hangtag: Any, tmp_path: Path) -> None:
    train_tiny(hangtag)
    before = (tmp_path / "runs/tiny-tutorial/model.onnx").read_bytes()

    assert "runs/tiny-tutorial-2" in train_tiny(hangtag, "--seed", "1").out
    refused = train_tiny(hangtag, "--out", "runs/tiny-tutorial")

    assert (refused.code, "already exists" in refused.err) == (1, True)
    assert (tmp_path / "runs/tiny-tutorial/model.onnx").read_bytes() == before


def test_predict_answers_the_good_pictures_and_names_the_bad(hangtag: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    (tmp_path / "good.png").write_bytes(encode_png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "text.png").write_text("not a picture")

    shown = hangtag("predict", "model.onnx", "text.png", "good.png")

    assert shown.code == 1
    assert shown.out.startswith("good.png: ")
    note, error = shown.err.splitlines()
    assert note.startswith("note: this model was made by a hangtag that promised nothing about its answers")
    assert error.startswith("hangtag: text.png: not a picture")


MISTAKES = [
    (("train", "fashion-mnits"), 2, "did you mean 'fashion-mnist'"),
    (("train", "tiny", "--recipe", "fats"), 2, "did you mean 'fast'"),
    (("train", "tiny", "--path", "files", "--epochs", "0"), 2, "at least 1 epoch"),
    (("train", "tiny", "--path", "nowhere"), 1, "no such folder"),
    (("train", "tiny", "--path", "files", "--recipe", "tutorial", "--device", "abacus"), 2, "--device cpu"),
    (("model", "tutorail"), 2, "did you mean 'tutorial'"),
    (("evaluate", "nope"), 1, "no such run"),
    (("evaluate", "last"), 1, "no finished run"),
    (("predict", "nope.onnx", "a.png"), 1, "no such file"),
    (("predict", "files", "a.png"), 1, "no model.onnx"),
    (("predict",), 2, "Missing argument"),
    (("train", "--bogus"), 2, "No such option"),
    (("data", "tiny", "--path", "files", "--export", "x", "--part", "dev"), 1, "has no 'dev' part"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), MISTAKES)
def test_a_mistake_gets_one_line_and_the_right_exit_code(
    hangtag: Any, arguments: tuple[str, ...], code: int, says: str
) -> None:
    shown = hangtag(*arguments)

    assert shown.code == code
    assert says in shown.err
    assert "Traceback" not in shown.err
    if shown.err.startswith("hangtag:"):
        assert shown.err.count("\n") == 1


def test_debug_shows_where_an_error_came_from(hangtag: Any) -> None:
    with pytest.raises(Exception, match="no such run"):
        hangtag("--debug", "evaluate", "nope")


class Pressed:
    """Ctrl-C when training has asked for it so many times."""

    def __init__(self, after: int) -> None:
        self.asked = iter([False] * after)

    def __call__(self) -> bool:
        return next(self.asked, True)


def test_every_look_at_the_test_images_is_kept_when_a_stopped_run_goes_on(
    hangtag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(train, "_stop_on_interrupt", lambda: nullcontext(Pressed(after=0)))
        assert train_tiny(hangtag, "--out", "run").code == 130

    assert hangtag("train", "--resume", "run").code == 0
    assert len(json.loads((tmp_path / "run" / "config.json").read_text())["test_opened"]) == 2


def test_names_are_printed_as_they_are_and_commands_can_be_copied(
    hangtag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "_stop_on_interrupt", lambda: nullcontext(Pressed(after=0)))
    answer = train_tiny(hangtag, "--out", "my [first] run")

    assert "into my [first] run" in answer.out
    assert "hangtag train --resume 'my [first] run'" in answer.out
    assert "hangtag predict 'my [first] run' photo.png" in answer.out
    assert (
        "go on with it: hangtag train --resume 'my [first] run'" in train_tiny(hangtag, "--out", "my [first] run").err
    )


def test_a_run_lands_where_the_home_folder_is_meant_and_where_nothing_can_be_is_said(
    hangtag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert train_tiny(hangtag, "--out", "~/run").code == 0
    assert (tmp_path / "home" / "run" / "model.onnx").is_file()
    answer = train_tiny(hangtag, "--out", "x" * 300)
    assert (answer.code, "cannot be written: File name too long" in answer.err) == (1, True)


def test_a_stopped_run_goes_on_with_data_that_were_moved_and_with_no_others(
    hangtag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(train, "_stop_on_interrupt", lambda: nullcontext(Pressed(after=0)))
        train_tiny(hangtag, "--out", "run")
    (tmp_path / "files").rename(tmp_path / "moved")
    (tmp_path / "other" / "cat").mkdir(parents=True)
    (tmp_path / "other" / "dog").mkdir()
    for number in range(4):
        grey = np.full((4, 4), 60 * number, np.uint8)
        (tmp_path / "other" / ("cat", "dog")[number % 2] / f"{number}.png").write_bytes(encode_png(grey))

    assert "no such" in hangtag("train", "--resume", "run").err
    refused = hangtag("train", "other", "--resume", "run")
    assert "other is not what this run began with, tiny: fingerprint" in refused.err
    assert hangtag("train", "--path", "moved", "--resume", "run").code == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["source"]["path"] == str(tmp_path / "moved")
    assert hangtag("evaluate", "run").code == 0


def test_ctrl_c_in_the_last_steps_comes_too_late(hangtag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        train, "_stop_on_interrupt", lambda: nullcontext(Pressed(after=1))
    )  # chunks; each epoch has one
    answer = train_tiny(hangtag, "--out", "run")

    assert (answer.code, "go on later" in answer.out) == (0, False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["status"] == "finished"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("more", [(), ("--minutes", "1"), ("--seeds", "2")])
def test_a_gpu_that_is_not_there_is_said_before_data_are_read(hangtag: Any, more: tuple[str, ...]) -> None:
    answer = hangtag("train", "nowhere/", "--device", "cuda", *more)

    assert (answer.code, "device 'cuda' cannot be used" in answer.err) == (2, True)


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is(fashion: LabelledImages, tmp_path: Path) -> None:
    source = Path(main.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(source), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    if "cache" in fashion.origin:
        environment["XDG_CACHE_HOME"] = str(Path(fashion.origin).parents[2])
    command = [sys.executable, "-c", "from hangtag.cli.main import main; main()", "train", "--recipe", "tutorial"]
    process = subprocess.Popen(
        [*command, "--epochs", "1000"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    history = tmp_path / "runs/fashion-mnist-tutorial/history.jsonl"
    deadline = time.monotonic() + 120
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)

    assert process.returncode == 130
    assert "keeping what was learned so far" in out
    assert json.loads((history.parent / "config.json").read_text())["status"] == "stopped early"
    assert (history.parent / "model.onnx").is_file()
    assert (history.parent / "report.html").is_file()


@pytest.mark.parametrize(
    ("typed", "heavy"),
    [
        (["--help"], ("torch", "numpy", "onnxruntime", "matplotlib", "PIL")),
        (["train", "photos", "--recipe", "fats"], ("torch", "sklearn", "matplotlib")),
        (["train", "photos", "--log-to", "tensorbord"], ("torch", "sklearn", "matplotlib")),
    ],
)
def test_help_and_wrong_names_need_no_heavy_package(typed: list[str], heavy: tuple[str, ...]) -> None:
    program = (
        "import sys; from hangtag.cli import main\n"
        f"try: sys.argv = ['hangtag', *{typed!r}]; main.main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    source = Path(main.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_resuming_otherwise_than_begun_names_both(hangtag: Any) -> None:
    train_tiny(hangtag, "--out", "run")

    answer = hangtag("train", "--resume", "run", "--recipe", "fast", "--seed", "3")

    assert answer.code == 2
    assert "network mlp there, cnn here" in answer.err
    assert "seed 0 there, 3 here" in answer.err
    assert "size None there, 9 here" in hangtag("train", "--resume", "run", "--size", "9").err
    assert "exclude each other" in hangtag("train", "--resume", "run", "--out", "elsewhere").err


def killed_before_its_first_checkpoint(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"status": "training"}))
    for name in ("model.onnx", "weights.safetensors", "metrics.json"):
        (run / name).unlink()


def test_the_newest_unfinished_run_is_gone_on_with(hangtag: Any, tmp_path: Path) -> None:
    assert "there is no unfinished run here" in hangtag("train", "--resume", "last").err
    train_tiny(hangtag)
    before = (tmp_path / "runs/tiny-tutorial/weights.safetensors").read_bytes()
    train_tiny(hangtag, "--seed", "1")
    killed_before_its_first_checkpoint(tmp_path / "runs/tiny-tutorial")

    answer = hangtag("train", "--resume", "last")

    assert answer.code == 0 and "into runs/tiny-tutorial\n" in answer.out
    assert (tmp_path / "runs/tiny-tutorial/weights.safetensors").read_bytes() == before


def test_an_unfinished_run_with_other_settings_is_refused_setting_by_setting(hangtag: Any, tmp_path: Path) -> None:
    train_tiny(hangtag, "--out", "run")
    killed_before_its_first_checkpoint(tmp_path / "run")

    answer = train_tiny(hangtag, "--set", "learning_rate=0.01", "--seed", "2", "--out", "run")

    assert answer.code == 1
    assert "(learning_rate 0.001 there, 0.01 here; seed 0 there, 2 here)" in answer.err
    assert answer.err.rstrip().endswith("(resume it: hangtag train --resume run; or choose another --out)")


def test_a_recipes_numbers_can_be_changed(hangtag: Any, tmp_path: Path) -> None:
    answer = train_tiny(
        hangtag,
        "--batch-size",
        "4",
        "--set",
        "learning_rate=0.01",
        "--set",
        "validation=0.5",
        "--patience",
        "1",
        "--out",
        "r",
    )

    assert answer.code == 0
    recipe = json.loads((tmp_path / "r" / "config.json").read_text())["recipe"]
    assert (recipe["batch_size"], recipe["learning_rate"], recipe["patience"], recipe["validation"]) == (
        4,
        0.01,
        1,
        0.5,
    )
    assert "hangtag: batch_size must be at most" in train_tiny(hangtag, "--batch-size", "50").err
    assert "did you mean 'learning_rate'" in train_tiny(hangtag, "--set", "learning_rat=1").err


def test_a_network_of_ones_own_trains_resumes_and_answers(hangtag: Any, tmp_path: Path) -> None:
    (tmp_path / "cli_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(spec, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, classes))\n"
    )

    assert train_tiny(hangtag, "--model", "cli_networks:tiny", "--out", "own").code == 0
    assert hangtag("evaluate", "own").code == 0
    assert "No module named 'nowhere'" in train_tiny(hangtag, "--model", "nowhere:tiny").err


def test_what_a_network_of_ones_own_warns_of_at_each_step_is_said_once(hangtag: Any, tmp_path: Path) -> None:
    (tmp_path / "warning_networks.py").write_text(
        "import warnings\n"
        "from torch import nn\n"
        "class Warning(nn.Module):\n"
        "    def forward(self, x):\n"
        "        warnings.warn('a network\\'s own')\n"
        "        return x\n"
        "def net(spec, classes):\n"
        "    return nn.Sequential(nn.Flatten(), Warning(), nn.Linear(spec.height * spec.width, classes))\n"
    )

    answer = train_tiny(hangtag, "--model", "warning_networks:net", "--out", "own")

    assert answer.code == 0, answer.err
    assert answer.err.count("hangtag: note: a network's own") == 1


def test_several_seeds_say_their_spread(hangtag: Any, tmp_path: Path) -> None:
    answer = train_tiny(hangtag, "--seeds", "2", "--out", "seeds", "--json")

    assert answer.json["seeds"]["numbers"] == [0, 1]
    assert answer.json["seeds"]["accuracy"]["n"] == 2
    assert (tmp_path / "seeds" / "report.html").is_file()
    assert hangtag("evaluate", "seeds").code == 0
    assert "2 seeds, into seeds" in answer.err


def test_seeds_that_are_refused_leave_no_folder(hangtag: Any, tmp_path: Path) -> None:
    answer = train_tiny(hangtag, "--seeds", "2", "--batch-size", "50", "--out", "seeds")

    assert answer.code == 2 and "batch_size must be at most" in answer.err
    assert not (tmp_path / "seeds").exists()


def test_a_seed_that_diverged_is_named_and_does_not_begin_again(hangtag: Any) -> None:
    wild = ("--seeds", "2", "--set", "learning_rate=1e30", "--out", "seeds")
    first = train_tiny(hangtag, *wild)
    again = train_tiny(hangtag, *wild)

    assert first.code == 1 and "seed 0:" in first.out and "the loss is no longer a number" in first.err
    assert again.code == 1 and "seeds/seeds/0: training with seed 0 diverged" in again.err


def test_the_search_for_like_pictures_is_over_before_the_rest_of_the_time_is_planned(
    hangtag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(data: LabelledImages, *_: object) -> None:
        assert cache.groups_kept(data.train.fingerprint) is not None
        raise UsageError("planned", "no more is wanted")

    monkeypatch.setattr("hangtag.training.time_budget.plan", planned)

    assert "planned" in hangtag("train", "tiny", "--path", "files", "--minutes", "0.3").err


def test_minutes_choose_everything_else_and_exclude_it(
    hangtag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "BEGAN", time.perf_counter())
    answer = hangtag("train", "tiny", "--path", "files", "--minutes", "0.3", "--out", "timed", "--json")

    assert answer.code == 0
    assert "0.3 minutes: recipe '" in answer.err
    assert json.loads((tmp_path / "timed" / "config.json").read_text())["plan"]["minutes"] == 0.3
    assert hangtag("train", "tiny", "--minutes", "1", "--epochs", "3").code == 2
    assert "too short" in hangtag("train", "tiny", "--path", "files", "--minutes", "0.001").err


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_no_time_is_refused_before_data_are_read(hangtag: Any, minutes: str) -> None:
    answer = hangtag("train", "nowhere/", "--minutes", minutes)

    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"--minutes {minutes} makes no sense" in answer.err


def test_epochs_are_told_to_tensorboard(hangtag: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    answer = train_tiny(hangtag, "--log-to", "tensorboard", "--out", "logged")

    assert "logged: tensorboard --logdir logged/tensorboard" in answer.out
    assert list((tmp_path / "logged" / "tensorboard").glob("events*"))
    several = train_tiny(hangtag, "--log-to", "tensorboard", "--seeds", "2", "--out", "seeds")
    assert "logged: tensorboard --logdir seeds/seeds/1/tensorboard" in several.out
    unknown = train_tiny(hangtag, "--log-to", "tensorbord", "--out", "nothing")
    assert unknown.code == 2 and "did you mean 'tensorboard'" in unknown.err
    assert not (tmp_path / "nothing").exists()


# --- your own pictures -----------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty textured pictures in two folders, one of them twice, and a file that is none."""
    from PIL import Image

    from pictures import textured

    images = textured(60, 16)
    images[1] = images[3]
    for number, image in enumerate(images):
        path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    (tmp_path / "photos" / "cat" / "bad.jpg").write_bytes(b"no picture")
    return tmp_path / "photos"


def test_data_says_how_it_understood_a_folder_and_what_it_set_aside(hangtag: Any, photos: Path, tmp_path: Path) -> None:
    shown = hangtag("data", "photos")

    assert shown.out.splitlines()[0] == (
        "I understood your data as a folder per class: 60 images, 2 classes (cat, dog), 16x16, grey"
    )
    assert "note: set aside 1 file: 1 not a picture" in shown.out
    assert "cat/bad.jpg,not a picture" in (tmp_path / "skipped.csv").read_text()
    said = hangtag("data", "photos", "--json").json
    assert (said["images"], said["skipped"][0]["name"]) == (60, "cat/bad.jpg")


def test_a_folder_is_trained_on_judged_and_asked(hangtag: Any, photos: Path, tmp_path: Path) -> None:
    trained = hangtag("train", "photos", "--recipe", "quick", "--epochs", "2", "--out", "runs/a")

    assert trained.code == 0, trained.err
    assert (tmp_path / "runs" / "a" / "skipped.csv").is_file()
    assert hangtag("evaluate", "runs/a").code == 0
    assert hangtag("evaluate", "runs/a", "photos").code == 0
    (tmp_path / "mine.csv").write_text("name,decision\ncat/00.png,drop\n")
    assert "has no test part to judge on" in hangtag("evaluate", "runs/a", "--decisions", "mine.csv").err
    answer = hangtag("predict", "runs/a", "photos/cat/00.png", "--json").json[0]
    assert answer["label"] in ("cat", "dog")
    (few,) = answer["warnings"]
    assert few.startswith("a coverage of 0.95 cannot be promised but by all labels: it takes 19 held-out pictures")


def test_a_recipe_that_holds_nothing_out_is_refused_before_it_trains(hangtag: Any, photos: Path) -> None:
    shown = hangtag("train", "photos", "--recipe", "tutorial")

    assert shown.code == 1 and "no images to judge the model on" in shown.err and "validation=0.1" in shown.err


def test_a_training_refused_at_its_beginning_leaves_no_folder(hangtag: Any, photos: Path, tmp_path: Path) -> None:
    shown = hangtag("train", "photos", "--recipe", "quick", "--batch-size", "5000", "--out", "runs/a")

    assert shown.code == 2 and "batch_size must be at most" in shown.err
    assert not (tmp_path / "runs" / "a").exists()
    assert hangtag("train", "photos", "--recipe", "quick", "--epochs", "1", "--out", "runs/a").code == 0


def test_audit_finds_and_train_obeys_decisions(
    hangtag: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = hangtag("audit", "photos", "--no-labels", "--out", "seen")

    assert shown.code == 0, shown.err
    assert "drop 1 picture (there more than once): dog/03.png" in shown.out
    assert f"hangtag train {photos} --decisions seen/decisions.csv" in shown.out
    assert (tmp_path / "seen" / "audit.html").stat().st_size > 1000
    (tmp_path / "mine.csv").write_text("name,decision\ndog/03.png,drop\ncat/00.png,relabel: dog\n")
    trained = hangtag(
        "train", "photos", "--decisions", "mine.csv", "--recipe", "quick", "--epochs", "1", "--out", "runs/b"
    )
    assert trained.code == 0 and "by mine.csv: 1 picture dropped, 1 label changed" in trained.err
    config = json.loads((tmp_path / "runs" / "b" / "config.json").read_text())
    assert config["data"]["images"] == 59
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert hangtag("evaluate", str(tmp_path / "runs" / "b")).code == 0  # the same decisions again


def test_two_readings_are_refused_where_nobody_can_answer(hangtag: Any, photos: Path) -> None:
    (photos / "cat" / "old").mkdir()
    (photos / "cat" / "old" / "x.png").write_bytes((photos / "cat" / "00.png").read_bytes())
    for label in ("cat", "dog"):
        for path in [*(photos / label).glob("*.*")]:
            (photos / label / "new").mkdir(exist_ok=True)
            path.rename(photos / label / "new" / path.name)

    shown = hangtag("data", "photos")

    assert shown.code == 2 and "'top'" in shown.err and "'leaf'" in shown.err
    assert "classes (cat, dog)" in hangtag("data", "photos", "--classes", "top").out


def test_the_cache_is_shown_and_cleared(hangtag: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos.parent / "own-cache"))
    hangtag("data", "photos")

    assert [entry["kind"] for entry in hangtag("cache", "--json").json["entries"]] == ["pictures"]
    assert "freed" in hangtag("cache", "--clear").out
    assert hangtag("cache", "--json").json["entries"] == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--size", "big"), "no size"),
        (("--classes", "middle"), "neither top nor leaf"),
        (("--fit", "stretch"), "unknown way to fit 'stretch'"),
        (("--group-by", "("), "not a regular expression"),
        (("--decisions", "nowhere.csv"), "nowhere.csv: no such file"),
    ],
)
def test_wrong_reading_options_are_one_line(hangtag: Any, photos: Path, options: tuple[str, ...], says: str) -> None:
    shown = hangtag("data", "photos", *options)

    assert shown.code in (1, 2) and says in shown.err and shown.err.count("\n") == 1


# --- answers to trust ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 240 drawn pictures in two classes, and two runs `a` and `b` trained on them."""
    from PIL import Image

    from toys import in_a_process, shapes

    folder = tmp_path_factory.mktemp("trusted")
    images, labels = shapes(360)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        part = "test" if number >= 240 else "train"
        path = folder / "drawn" / part / ("bar", "dot", "edge")[label] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    for name, recipe in (("a", "fast"), ("b", "quick")):
        command = ["train", "drawn", "--recipe", recipe, "--epochs", "2", "--batch-size", "16", "--out", f"runs/{name}"]
        program = f"import sys; from hangtag.cli import main; sys.argv = {['hangtag', *command]!r}; main.main()"
        in_a_process(program, folder)
    return folder


@pytest.fixture
def in_trained(hangtag: Any, trained: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(trained)
    return hangtag


def test_predict_says_what_is_sure_and_leaves_the_rest_out(in_trained: Any, trained: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    (trained / "noise.png").write_bytes(encode_png(noise))
    pictures = ("drawn/test/bar/240.png", "noise.png")

    shown = in_trained("predict", "runs/a", *pictures, "--coverage", "0.9", "--json").json
    familiar, strange = shown

    assert familiar["label"] == "bar" and familiar["coverage"] == 0.9 and "bar" in familiar["prediction_set"]
    assert not familiar["is_ood"]
    assert strange["ood_score"] > 0.9
    # 24 held-out pictures: more than 23 of 24 cannot be less strange, so that 5 % can just be told
    only = in_trained(
        "predict", "runs/a", *pictures, "--cost", "1.5", "--ood-false-positive-rate", "0.2", "--sure-only"
    )
    assert only.code == 0 and "noise.png" not in only.out
    assert "left out, because it is not sure: " in only.err


def test_predict_explains_itself_in_a_picture(in_trained: Any, trained: Path) -> None:
    one = in_trained("predict", "runs/a", "drawn/test/dot/241.png", "--why", "why.png")
    two = in_trained(
        "predict", "runs/b/model.onnx", "drawn/test/dot/241.png", "drawn/test/bar/240.png", "--why", "both", "--json"
    )

    assert one.code == 0 and "wrote why.png" in one.out
    assert (trained / "why.png").stat().st_size > 10_000
    assert [answer["why"] for answer in two.json] == ["both/241.png", "both/240.png"]


def test_compare_judges_both_on_the_same_pictures(in_trained: Any, trained: Path) -> None:
    said = in_trained("compare", "runs/a", "runs/b", "--json").json

    assert said["names"] == ["a", "b"] and said["images"] == 120
    assert said["both_right"] + said["only_first"] + said["only_second"] + said["both_wrong"] == 120
    assert "right of 100" in (trained / "comparison.html").read_text()
    config = json.loads((trained / "runs" / "a" / "config.json").read_text())
    assert len(config["test_opened"]) >= 2


def test_compare_refuses_other_pictures_and_other_classes(in_trained: Any, trained: Path, photos: Path) -> None:
    photos.replace(trained / "photos")
    assert in_trained("train", "photos", "--recipe", "quick", "--epochs", "1", "--out", "runs/c").code == 0

    other = in_trained("compare", "runs/a", "runs/c")

    assert other.code == 2 and "know other classes" in other.err
    assert in_trained("compare", "runs/a", "runs/nowhere").code == 1


def test_stress_breaks_the_model_and_adds_it_to_the_report(in_trained: Any, trained: Path) -> None:
    shown = in_trained("stress", "runs/a", "--images", "30")

    assert shown.code == 0, shown.err
    assert "inversion" in shown.out and "mean over all corruptions" in shown.out
    assert "Pictures gone wrong" in (trained / "runs" / "a" / "report.html").read_text()
    said = in_trained("stress", "runs/a", "drawn", "--images", "20", "--json").json
    assert len(said["cells"]) == 75 and said["clean"]["accuracy"] > 0.5


def test_check_fails_with_the_pictures_that_changed(in_trained: Any, trained: Path) -> None:
    kept = in_trained("check", "runs/a", "drawn/test")
    wrong = trained / "wrong" / "dot"
    wrong.mkdir(parents=True)
    (wrong / "240.png").write_bytes((trained / "drawn/test/bar/240.png").read_bytes())
    (wrong / "text.png").write_text("no picture")
    (wrong / ".DS_Store").write_text("junk")
    broken = in_trained("check", "runs/a", "wrong")

    assert kept.code == 0 and "120 of 120 pictures keep their labels" in kept.out
    assert broken.code == 1
    assert broken.out.splitlines()[0].startswith("dot/240.png: must be dot, is bar ")
    assert "dot/text.png: must be dot, wrong/dot/text.png: not a picture" in broken.out
    assert "0 of 2 pictures keep their labels" in broken.out
    assert in_trained("check", "runs/a", "wrong", "--json").json["kept"] is False


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        (("check", "runs/a", "nowhere"), 1, "nowhere: no such folder"),
        (("stress", "runs/a", "--group-by", "x"), 2, "--group-by: a run's own data is read as it was"),
        (("compare", "runs/a", "runs/b", "--size", "9"), 2, "--size: a run's own data is read as it was"),
        (("check", "runs/a", "runs/a/figures"), 1, "holds no expectations"),
        (("check", "runs/a", "drawn"), 2, "label test in drawn"),
        (("predict", "runs/a", "x.png", "--coverage", "1"), 2, "a coverage of 1 cannot be promised"),
        (
            ("predict", "runs/a", "x.png", "--target-accuracy", "0.5"),
            2,
            "choose one of 0.9, 0.95, 0.98, 0.99, 0.995, 0.999",
        ),
        (("predict", "runs/a", "x.png", "--cost", "0"), 2, "a cost of 0"),
        (("predict", "runs/a", "x.png", "--set-method", "rap"), 2, "did you mean 'raps'"),
    ],
)
def test_what_cannot_be_trusted_or_asked_is_one_line(
    in_trained: Any, command: tuple[str, ...], code: int, says: str
) -> None:
    shown = in_trained(*command)

    assert shown.code == code and says in shown.err
    assert shown.err.count("\n") == 1


def test_decisions_give_both_scores(in_trained: Any, trained: Path) -> None:
    (trained / "mine.csv").write_text("name,decision\ntest/dot/241.png,relabel: bar\n")

    both = in_trained("evaluate", "runs/a", "--decisions", "mine.csv", "--json")

    assert both.code == 0, both.err
    assert both.json["before_decisions"]["accuracy"] >= both.json["cleaned"]["accuracy"]
    again = in_trained(
        "train", "drawn", "--decisions", "mine.csv", "--recipe", "quick", "--epochs", "1", "--out", "runs/d", "--json"
    )
    assert again.json["before_decisions"]["images"] == again.json["images"] == 120
    assert "before your decisions" in (trained / "runs" / "d" / "report.html").read_text()
