"""`hangtag train`: what a user types, what is printed, the exit code and the run folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
import torch
from onnx import numpy_helper

from hangtag.cli import main, train
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.store import cache
from hangtag.errors import UsageError
from hangtag.pictures import encode_png


def test_train_fills_a_run_folder_that_evaluate_predict_and_report_use(
    hangtag: Any, train_tiny: Any, tmp_path: Path
) -> None:
    trained = train_tiny()
    run = tmp_path / "runs" / "tiny-tutorial"

    assert trained.code == 0
    assert "epoch 2/2  1/1  loss" in trained.out
    assert sorted(path.name for path in run.iterdir()) == [
        ".hangtag", "config.json", "figures", "history.jsonl", "metrics.json", "model.onnx", "neighbours.npz",
        "reference.npz", "report.html", "weights.safetensors",
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
    assert answered["warnings"][0] == "resized from 7x9 to 4x4, which changes its proportions"
    assert [each.partition(",")[0] for each in answered["warnings"][1:]] == ["no object stands out from the background"]

    (run / "report.html").unlink()
    assert hangtag("report", "last").code == 0
    assert (run / "report.html").stat().st_size > 1000


def test_a_second_training_leaves_the_first_untouched(train_tiny: Any, tmp_path: Path) -> None:
    train_tiny()
    before = (tmp_path / "runs/tiny-tutorial/model.onnx").read_bytes()

    assert "runs/tiny-tutorial-2" in train_tiny("--seed", "1").out
    refused = train_tiny("--out", "runs/tiny-tutorial")

    assert (refused.code, "already exists" in refused.err) == (1, True)
    assert (tmp_path / "runs/tiny-tutorial/model.onnx").read_bytes() == before


class Pressed:
    """Ctrl-C after training has checked for it this many times."""

    def __init__(self, after: int) -> None:
        self.checks = iter([False] * after)

    def __call__(self) -> bool:
        return next(self.checks, True)


def test_a_resumed_run_still_lists_every_use_of_the_test_images(
    hangtag: Any, train_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(train, "stop_on_interrupt", lambda: nullcontext(Pressed(after=0)))
        assert train_tiny("--out", "run").code == 130

    assert hangtag("train", "--resume", "run").code == 0
    assert len(json.loads((tmp_path / "run" / "config.json").read_text())["test_opened"]) == 2


def test_names_are_printed_as_they_are_and_commands_can_be_copied(
    train_tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "stop_on_interrupt", lambda: nullcontext(Pressed(after=0)))
    answer = train_tiny("--out", "my [first] run")

    assert "run folder: my [first] run" in answer.out
    assert "hangtag train --resume 'my [first] run'" in answer.out
    assert "hangtag predict 'my [first] run' photo.png" in answer.out
    assert "continue it: hangtag train --resume 'my [first] run'" in train_tiny("--out", "my [first] run").err


def test_ctrl_c_before_there_is_a_model_says_how_to_continue(
    hangtag: Any, train_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("hangtag.cli.live.show_epochs", interrupted)
        answer = train_tiny("--out", "run")

    assert answer.code == 130
    assert "stopped before there was a model" in answer.out
    assert "hangtag train --resume run" in answer.out
    assert hangtag("train", "--resume", "run").code == 0


def test_a_run_with_a_backbone_in_a_file_resumes_from_any_folder(
    hangtag: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = np.random.default_rng(0).normal(size=(24, 3, 3, 3)).astype(np.float32)
    model = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["" : 20]>
        g (float[N, 3, 12, 12] x) => (float[N, 24] y)
        { m = Conv (x, kernel) r = Relu (m) p = GlobalAveragePool (r) y = Flatten (p) }""")
    model.graph.initializer.append(numpy_helper.from_array(kernel, "kernel"))
    Path("small.onnx").write_bytes(model.SerializeToString())

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def begin(name: str) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("hangtag.cli.live.show_epochs", interrupted)
            assert hangtag("train", "photos", "--backbone", "small.onnx@0..1", "--out", name).code == 130

    begin("run")
    begin("lost")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = hangtag("train", "--resume", "../run", "--backbone", "../small.onnx@0..1")
    assert again.code == 0 and "cross-validated" in again.out, again.err
    wrong = hangtag("train", "--resume", "../lost", "--backbone", "efficientnet-lite0")
    assert wrong.code == 2 and "small.onnx@0..1, now efficientnet-lite0" in wrong.err
    Path("../small.onnx").unlink()
    missing = hangtag("train", "--resume", "../lost")
    assert missing.code == 1 and "small.onnx" in missing.err and "Traceback" not in missing.err


def test_a_run_folder_may_lie_in_the_home_folder_and_an_impossible_one_is_an_error(
    train_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert train_tiny("--out", "~/run").code == 0
    assert (tmp_path / "home" / "run" / "model.onnx").is_file()
    answer = train_tiny("--out", "x" * 300)
    assert (answer.code, "cannot be written: File name too long" in answer.err) == (1, True)


def test_a_stopped_run_resumes_with_moved_data_and_refuses_other_data(
    hangtag: Any, train_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(train, "stop_on_interrupt", lambda: nullcontext(Pressed(after=0)))
        train_tiny("--out", "run")
    (tmp_path / "files").rename(tmp_path / "moved")
    (tmp_path / "other" / "cat").mkdir(parents=True)
    (tmp_path / "other" / "dog").mkdir()
    for number in range(4):
        grey = np.full((4, 4), 60 * number, np.uint8)
        (tmp_path / "other" / ("cat", "dog")[number % 2] / f"{number}.png").write_bytes(encode_png(grey))

    assert "no such" in hangtag("train", "--resume", "run").err
    refused = hangtag("train", "other", "--resume", "run")
    assert "other is not the data of this run, tiny: its fingerprint" in refused.err
    assert hangtag("train", "--path", "moved", "--resume", "run").code == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["source"]["path"] == str(tmp_path / "moved")
    assert hangtag("evaluate", "run").code == 0


def test_ctrl_c_in_the_last_steps_comes_too_late(
    train_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "stop_on_interrupt", lambda: nullcontext(Pressed(after=1)))  # chunks; each epoch has one
    answer = train_tiny("--out", "run")

    assert (answer.code, "To continue later" in answer.out) == (0, False)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["status"] == "finished"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("more", [(), ("--minutes", "1"), ("--seeds", "2")])
def test_a_missing_gpu_is_an_error_before_data_is_read(hangtag: Any, more: tuple[str, ...]) -> None:
    answer = hangtag("train", "nowhere/", "--device", "cuda", *more)

    assert (answer.code, "device 'cuda' cannot be used" in answer.err) == (2, True)


@pytest.mark.slow
def test_ctrl_c_keeps_the_model(fashion: LabelledImages, tmp_path: Path) -> None:
    source = Path(main.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(source), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    if "cache" in fashion.source.origin:
        environment["XDG_CACHE_HOME"] = str(Path(fashion.source.origin).parents[2])
    command = [sys.executable, "-c", "from hangtag.cli.main import main; main()", "train", "--recipe", "tutorial"]
    process = subprocess.Popen(
        [*command, "--epochs", "1000"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    history = tmp_path / "runs/fashion-mnist-tutorial/history.jsonl"
    deadline = time.monotonic() + 120
    try:
        while not history.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode == 130
    assert "stopped early; the model so far is kept" in out
    assert json.loads((history.parent / "config.json").read_text())["status"] == "stopped early"
    assert (history.parent / "model.onnx").is_file()
    assert (history.parent / "report.html").is_file()


def test_resuming_with_other_settings_names_both(hangtag: Any, train_tiny: Any, tmp_path: Path) -> None:
    train_tiny("--out", "run")
    killed_before_its_first_checkpoint(tmp_path / "run")

    answer = hangtag("train", "--resume", "run", "--recipe", "fast", "--seed", "3")

    assert answer.code == 2
    assert "recipe was tutorial, now fast, seed was 0, now 3" in answer.err
    assert "flip was False, now True" in hangtag("train", "--resume", "run", "--set", "flip=yes", "--epochs", "2").err
    assert "size was None, now 9" in hangtag("train", "--resume", "run", "--size", "9").err
    assert "cannot be combined" in hangtag("train", "--resume", "run", "--out", "elsewhere").err
    assert hangtag("train", "--resume", "run", "--set", "epochs=2", "--recipe", "tutorial").code == 0


def killed_before_its_first_checkpoint(run: Path) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"status": "training"}))
    for name in ("model.onnx", "weights.safetensors", "metrics.json"):
        (run / name).unlink()


def test_the_newest_unfinished_run_is_resumed(hangtag: Any, train_tiny: Any, tmp_path: Path) -> None:
    assert "there is no unfinished run under runs/" in hangtag("train", "--resume", "last").err
    train_tiny()
    before = (tmp_path / "runs/tiny-tutorial/weights.safetensors").read_bytes()
    train_tiny("--seed", "1")
    killed_before_its_first_checkpoint(tmp_path / "runs/tiny-tutorial")

    answer = hangtag("train", "--resume", "last")

    assert answer.code == 0 and "run folder: runs/tiny-tutorial\n" in answer.out
    assert (tmp_path / "runs/tiny-tutorial/weights.safetensors").read_bytes() == before


def test_an_unfinished_run_with_other_settings_is_refused_setting_by_setting(train_tiny: Any, tmp_path: Path) -> None:
    train_tiny("--out", "run")
    killed_before_its_first_checkpoint(tmp_path / "run")

    answer = train_tiny("--set", "learning_rate=0.01", "--seed", "2", "--out", "run")

    assert answer.code == 1
    assert "(learning_rate 0.001 there, 0.01 here; seed 0 there, 2 here)" in answer.err
    assert answer.err.rstrip().endswith("(resume it: hangtag train --resume run; or choose another --out)")


def test_a_recipes_numbers_can_be_changed(train_tiny: Any, tmp_path: Path) -> None:
    answer = train_tiny(
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
    assert "hangtag: batch_size must be at most" in train_tiny("--batch-size", "50").err
    assert "did you mean 'learning_rate'" in train_tiny("--set", "learning_rat=1").err


def test_a_custom_network_trains_resumes_and_predicts(hangtag: Any, train_tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "cli_networks.py").write_text(
        "from torch import nn\n"
        "def tiny(spec, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, classes))\n"
    )

    assert train_tiny("--model", "cli_networks:tiny", "--out", "own").code == 0
    assert hangtag("evaluate", "own").code == 0
    assert "No module named 'nowhere'" in train_tiny("--model", "nowhere:tiny").err
    changed_config(tmp_path / "own", status="stopped early")
    assert hangtag("train", "--resume", "own", "--model", "cli_networks:tiny").code == 0


def changed_config(run: Path, **changes: Any) -> None:
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | changes))


def test_a_resumed_run_imports_only_what_the_user_names(
    hangtag: Any, train_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train_tiny("--out", "run").code == 0
    recipe = json.loads((tmp_path / "run" / "config.json").read_text())["recipe"]
    (tmp_path / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    changed_config(tmp_path / "run", status="stopped early", recipe={**recipe, "network": "evil:go"})

    for arguments in (("--resume", "run"), ("--resume", "last")):
        answer = hangtag("train", *arguments)
        assert answer.code == 1
        assert "Traceback" not in answer.err and answer.err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "hangtag.training.run", None)  # type: ignore[arg-type] # needs no PyTorch
    answer = hangtag("train", "--resume", "run")

    assert answer.err == (
        "hangtag: run: this run trains the custom network 'evil:go', which is imported only if you name it "
        "(if you trust this code: hangtag train --resume run --model evil:go)\n"
    )
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_of_a_run_is_one_line_that_names_it(hangtag: Any, train_tiny: Any, tmp_path: Path) -> None:
    assert train_tiny("--out", "run").code == 0
    damages = (b"[" * 100_000 + b"\n", b'{"number": NaN}\n', b"[]\n")
    for name, command in (("history.jsonl", "report"), ("config.json", "evaluate")):
        file = tmp_path / "run" / name
        whole = file.read_bytes()
        for content in (*damages, *(() if name == "history.jsonl" else (b"", whole[: len(whole) // 2], b"{}"))):
            file.write_bytes(content)
            answer = hangtag(command, "run")
            assert (answer.code, answer.err.count("\n")) == (1, 1), answer.err
            assert answer.err.startswith(f"hangtag: run/{name}") and "train again" in answer.err
        file.write_bytes(whole)


def test_a_warning_of_a_custom_network_is_printed_once(train_tiny: Any, tmp_path: Path) -> None:
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

    answer = train_tiny("--model", "warning_networks:net", "--out", "own")

    assert answer.code == 0, answer.err
    assert answer.err.count("hangtag: note: a network's own") == 1


def test_several_seeds_report_their_spread(hangtag: Any, train_tiny: Any, tmp_path: Path) -> None:
    answer = train_tiny("--seeds", "2", "--out", "seeds", "--json")

    assert answer.json["seeds"]["numbers"] == [0, 1]
    assert answer.json["seeds"]["accuracy"]["n"] == 2
    assert (tmp_path / "seeds" / "report.html").is_file()
    assert hangtag("evaluate", "seeds").code == 0
    assert "training with 2 seeds; run folder: seeds" in answer.err


def test_seeds_that_are_refused_leave_no_folder(train_tiny: Any, tmp_path: Path) -> None:
    answer = train_tiny("--seeds", "2", "--batch-size", "50", "--out", "seeds")

    assert answer.code == 2 and "batch_size must be at most" in answer.err
    assert not (tmp_path / "seeds").exists()


def test_a_seed_that_diverged_is_named_and_does_not_begin_again(train_tiny: Any) -> None:
    wild = ("--seeds", "2", "--set", "learning_rate=1e30", "--out", "seeds")
    first = train_tiny(*wild)
    again = train_tiny(*wild)

    assert first.code == 1 and "seed 0:" in first.out and "loss is NaN or infinite" in first.err
    assert again.code == 1 and "seeds/seeds/0: training with seed 0 diverged" in again.err


def test_near_duplicates_are_found_before_the_remaining_time_is_planned(
    hangtag: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(data: LabelledImages, *_: object) -> None:
        assert cache.load_groups(data.train.fingerprint) is not None
        raise UsageError("planned", "the rest is not needed")

    monkeypatch.setattr("hangtag.training.time_budget.plan", planned)

    assert "planned" in hangtag("train", "tiny", "--path", "files", "--minutes", "0.3").err


def test_minutes_choose_the_other_settings_and_exclude_them(
    hangtag: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "BEGAN", time.perf_counter())
    refused = hangtag("train", "tiny", "--path", "files", "--minutes", "0.001")
    least = re.search(r"is too short: .* take \d+ s \(use at least --minutes ([\d.]+)\)", refused.err)
    assert refused.code == 2 and least is not None, refused.err

    minutes = 2 * float(least[1])  # the machine may be busier now than when the least was measured
    monkeypatch.setattr(train, "BEGAN", time.perf_counter())
    answer = hangtag("train", "tiny", "--path", "files", "--minutes", str(minutes), "--out", "timed", "--json")

    assert answer.code == 0, answer.err
    assert f"{minutes:g} minutes: recipe '" in answer.err
    assert json.loads((tmp_path / "timed" / "config.json").read_text())["plan"]["minutes"] == minutes
    assert hangtag("train", "tiny", "--minutes", "1", "--epochs", "3").code == 2


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_a_time_of_zero_is_refused_before_data_is_read(hangtag: Any, minutes: str) -> None:
    answer = hangtag("train", "nowhere/", "--minutes", minutes)

    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"--minutes must be above 0, got {minutes}" in answer.err


def test_epochs_are_logged_to_tensorboard(train_tiny: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")

    answer = train_tiny("--log-to", "tensorboard", "--out", "logged")

    assert "training log: tensorboard --logdir logged/tensorboard" in answer.out
    assert list((tmp_path / "logged" / "tensorboard").glob("events*"))
    several = train_tiny("--log-to", "tensorboard", "--seeds", "2", "--out", "seeds")
    assert "training log: tensorboard --logdir seeds/seeds/1/tensorboard" in several.out
    unknown = train_tiny("--log-to", "tensorbord", "--out", "nothing")
    assert unknown.code == 2 and "did you mean 'tensorboard'" in unknown.err
    assert not (tmp_path / "nothing").exists()


def test_a_folder_is_trained_on_evaluated_and_used_for_predictions(hangtag: Any, photos: Path, tmp_path: Path) -> None:
    trained = hangtag("train", "photos", "--recipe", "quick", "--epochs", "2", "--out", "runs/a")

    assert trained.code == 0, trained.err
    assert (tmp_path / "runs" / "a" / "skipped.csv").is_file()
    assert hangtag("evaluate", "runs/a").code == 0
    assert hangtag("evaluate", "runs/a", "photos").code == 0
    (tmp_path / "mine.csv").write_text("name,decision\ncat/00.png,drop\n")
    assert "has no test part to evaluate on" in hangtag("evaluate", "runs/a", "--decisions", "mine.csv").err
    answer = hangtag("predict", "runs/a", "photos/cat/00.png", "--json").json[0]
    assert answer["label"] in ("cat", "dog")
    assert answer["warnings"] == []  # all sixty images were held out once, which is enough for sets


def test_a_recipe_that_holds_nothing_out_is_refused_before_it_trains(hangtag: Any, photos: Path) -> None:
    shown = hangtag("train", "photos", "--recipe", "tutorial", "--folds", "0")

    assert shown.code == 1 and "no images to evaluate the model on" in shown.err and "validation=0.1" in shown.err


def test_a_training_refused_at_its_beginning_leaves_no_folder(hangtag: Any, photos: Path, tmp_path: Path) -> None:
    shown = hangtag("train", "photos", "--recipe", "quick", "--batch-size", "5000", "--out", "runs/a")

    assert shown.code == 2 and "batch_size must be at most" in shown.err
    assert not (tmp_path / "runs" / "a").exists()
    assert hangtag("train", "photos", "--recipe", "quick", "--epochs", "1", "--out", "runs/a").code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model", "foo"), "unknown network 'foo'"),
        (("--model", "nowhere:net"), "the network 'nowhere:net' cannot be built"),
        (("--seeds", "1"), "--seeds must be from 2 to 1,000, got 1"),
        (("--seeds", "1000000"), "--seeds must be from 2 to 1,000, got 1,000,000"),
        (("--device", "gpu"), "unknown device 'gpu' (did you mean 'cpu'?"),
        (("--out", "taken"), "taken: already exists"),
    ],
)
def test_a_mistake_is_refused_before_data_is_read(
    options: tuple[str, ...], message: str, hangtag: Any, tmp_path: Path
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()

    outcome = hangtag("train", "no/such/data", *options)

    assert outcome.code != 0 and outcome.err.count("\n") == 1 and message in outcome.err


def test_a_device_is_not_called_missing(hangtag: Any) -> None:
    outcome = hangtag("data", "/dev/null")

    assert outcome.code == 2 and "/dev/null: is neither a file nor a folder" in outcome.err
