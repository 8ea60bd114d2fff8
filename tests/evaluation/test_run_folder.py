"""Run folders are numbered, never overwritten, found again, and honest about damage."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import hangtag
from hangtag.errors import HangtagError, RunError, SaveError, UsageError
from hangtag.evaluation.run_folder import Run, find_run, new_run, newest_unfinished
from hangtag.machine import hardware, now, versions
from toys import toy_model


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are made under the folder one is in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(act: Callable[[], object]) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        act()
    assert caught.value.hint
    return caught.value


# --- making ----------------------------------------------------------------------------------------------------


def test_runs_of_one_name_are_numbered() -> None:
    paths = [new_run(None, "clothes").path for _ in range(3)]

    assert paths == [Path("runs/clothes"), Path("runs/clothes-2"), Path("runs/clothes-3")]
    assert all(path.is_dir() for path in paths)


def test_a_number_that_is_free_again_is_used() -> None:
    for _ in range(3):
        new_run(None, "clothes")
    shutil.rmtree("runs/clothes-2")

    assert new_run(None, "clothes").path == Path("runs/clothes-2")


def test_a_wanted_folder_is_made_with_its_parents() -> None:
    run = new_run(Path("some/where"), "clothes")

    assert (run, run.path.is_dir()) == (Run(Path("some/where")), True)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_wanted_folder_that_exists_is_refused_and_left_alone(kind: str) -> None:
    path = Path("taken")
    if kind == "file":
        path.write_text("kept")
    else:
        path.mkdir()
        (path / "model.onnx").write_text("kept")

    error = refused(lambda: new_run(path, "clothes"))

    assert isinstance(error, RunError)
    assert str(error) == "taken: already exists (choose another name; earlier runs are never overwritten)"
    assert (path if kind == "file" else path / "model.onnx").read_text() == "kept"


def test_a_wanted_folder_that_is_empty_is_taken() -> None:
    Path("taken").mkdir()
    Path("taken/.config.json.abc.partial").write_text("of a run killed at its very beginning")

    assert new_run(Path("taken"), "clothes") == Run(Path("taken"))


def test_a_place_where_no_folder_can_be_is_refused() -> None:
    Path("file").write_text("kept")

    error = refused(lambda: new_run(Path("file/below"), "clothes"))

    assert isinstance(error, SaveError)
    assert error.message == "file/below: cannot be written: Not a directory"


# --- finding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["runs/clothes", "clothes", "{here}/runs/clothes", "runs/clothes/"])
def test_a_run_is_found_by_path_or_name(name: str, workplace: Path) -> None:
    new_run(None, "clothes")

    found = find_run(name.format(here=workplace))

    assert found.path.resolve() == (workplace / "runs" / "clothes").resolve()


def test_the_last_run_is_the_newest_that_was_finished() -> None:
    for age, name in enumerate(("newest", "older", "oldest")):
        run = new_run(None, name)
        run.write_model(toy_model())
        os.utime(run.model, (1_000_000 - age, 1_000_000 - age))
    new_run(None, "not finished")

    assert find_run("last") == Run(Path("runs/newest"))


def test_the_newest_unfinished_run_is_one_that_nobody_works_on() -> None:
    begun = {"killed": "training", "stopped": "stopped early", "finished": "finished", "worked on": "training"}
    for minute, (name, status) in enumerate(begun.items()):
        new_run(None, name).write_config({"status": status, "created": f"2026-01-01T00:{minute:02d}:00+00:00"})
    new_run(None, "several").write_config({"status": "training", "created": "2027", "seeds": [0, 1]})
    new_run(None, "empty")
    held = Run(Path("runs/worked on")).lock()

    assert newest_unfinished() == Run(Path("runs/stopped"))
    assert held is not None
    held.close()
    assert newest_unfinished() == Run(Path("runs/worked on"))


def test_a_folder_of_the_name_last_is_itself() -> None:
    Path("last").mkdir()

    assert find_run("last") == Run(Path("last"))


def test_without_a_finished_run_there_is_no_last() -> None:
    new_run(None, "clothes")

    assert str(refused(lambda: find_run("last"))) == (
        "there is no finished run under runs/ (train one: hangtag train fashion-mnist)"
    )


def test_an_unknown_run_is_refused_with_those_there_are() -> None:
    assert str(refused(lambda: find_run("shoes"))) == (
        "shoes: no such run (there is none under runs/ yet; train one: hangtag train fashion-mnist)"
    )

    new_run(None, "clothes")
    new_run(None, "bags")
    Path("runs/notes.txt").write_text("not a run")
    Path("runs/.hidden").mkdir()

    assert str(refused(lambda: find_run("shoes"))) == "shoes: no such run (under runs/: bags, clothes)"


def test_a_file_in_place_of_a_run_is_refused() -> None:
    Path("model.onnx").write_bytes(b"x")

    assert str(refused(lambda: find_run("model.onnx"))) == (
        "model.onnx: is a file, not a run folder (name the folder that `hangtag train` created)"
    )


@pytest.mark.parametrize("name", ["x" * 5000, "nul\0l", ""])
def test_a_name_that_can_be_no_folder_is_refused(name: str) -> None:
    assert isinstance(refused(lambda: find_run(name)), RunError if name else UsageError)


# --- reading and writing ---------------------------------------------------------------------------------------


def test_what_was_written_is_read_back() -> None:
    run = new_run(None, "clothes")

    run.write_config({"seed": 0, "class_names": ["셔츠"]})
    run.write_metrics({"accuracy": 0.5})
    run.write_model(b"model")
    run.write_weights(b"weights")
    run.add_epoch({"number": 1, "note": "a line\u2028that some call two"})
    run.add_epoch({"number": 2})

    assert run.config() == {"seed": 0, "class_names": ["셔츠"]}
    assert run.metrics() == {"accuracy": 0.5}
    assert run.history() == [{"number": 1, "note": "a line\u2028that some call two"}, {"number": 2}]
    assert sorted(path.name for path in run.path.iterdir()) == [
        ".hangtag", "config.json", "history.jsonl", "metrics.json", "model.onnx", "weights.safetensors",
    ]  # fmt: skip
    assert (run.model.read_bytes(), run.weights.read_bytes()) == (b"model", b"weights")
    assert (run.report, run.figures) == (run.path / "report.html", run.path / "figures")


@pytest.mark.parametrize(
    ("text", "history"),
    [
        ("", []),
        ('{"number": 1}\n{"number": 2, "lo', [{"number": 1}]),
        ('{"number": 1}\n{"number": 2}', [{"number": 1}]),
        ('{"number"', []),
    ],
)
def test_a_last_line_that_was_never_finished_is_skipped(text: str, history: list[dict[str, int]]) -> None:
    run = new_run(None, "clothes")
    (run.path / "history.jsonl").write_text(text)

    assert run.history() == history


def test_damage_in_the_middle_of_the_history_is_an_error() -> None:
    run = new_run(None, "clothes")
    (run.path / "history.jsonl").write_text('{"number": 1\n{"number": 2}\n')

    error = refused(run.history)

    assert isinstance(error, RunError)
    assert error.message.startswith("runs/clothes/history.jsonl, line 1 is not valid JSON: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "runs/clothes: there is no config.json in this folder"),
        (b"", "runs/clothes/config.json is not valid JSON: "),
        (b'{"seed": 0', "runs/clothes/config.json is not valid JSON: "),
        (b"[1, 2]", "runs/clothes/config.json is invalid: expected a JSON object"),
        (b"\xff\xfe\x00", "runs/clothes/config.json is not valid JSON: "),
        (b"[" * 100_000, "runs/clothes/config.json is invalid: it is nested too deeply"),
        (b'{"a":' * 100_000, "runs/clothes/config.json is invalid: it is nested too deeply"),
        (b'{"seed": NaN}', "runs/clothes/config.json is not valid JSON: "),
        (b'{"seed": 1e999}', "runs/clothes/config.json is invalid: number out of range"),
        (b'{"seed": "0"}', "runs/clothes/config.json is invalid: expected `int`, got `str` (field `seed`)"),
        (
            b'{"source": {"options": {"size": {}}}}',
            "runs/clothes/config.json is invalid: expected `bool | int | str | array`, got `object` "
            "(field `source.options[...]`)",
        ),
        (
            b'{"data": {"name": "clothes"}}',
            "runs/clothes/config.json is invalid: object missing required field `fingerprint` (field `data`)",
        ),
    ],
    ids=[
        "missing",
        "empty",
        "cut short",
        "a list",
        "not text",
        "nested lists",
        "nested objects",
        "NaN",
        "infinite",
        "text for a number",
        "an object for a size",
        "data without a fingerprint",
    ],
)
def test_a_damaged_config_is_refused_with_its_name(content: bytes | None, message: str) -> None:
    run = new_run(None, "clothes")
    if content is not None:
        (run.path / "config.json").write_bytes(content)

    error = refused(run.config)

    assert isinstance(error, RunError)
    assert error.message.startswith(message)


@pytest.mark.parametrize("name", ["config.json", "metrics.json", "history.jsonl", "stress.json"])
def test_a_link_out_of_the_folder_is_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"number": 1}\n')
    run = new_run(None, "clothes")
    (run.path / name).symlink_to(tmp_path / "secret")

    error = refused(getattr(run, name.partition(".")[0]))

    assert error.message == f"runs/clothes/{name}: is a link that leads out of the run folder"
    assert refused(run.check_links).message == error.message


def test_a_pipe_in_place_of_a_file_is_not_waited_for() -> None:
    run = new_run(None, "clothes")
    os.mkfifo(run.path / "config.json")

    assert refused(run.config).message == "runs/clothes: there is no config.json in this folder"


@pytest.mark.parametrize(
    "line", ['{"number": "1"}', '{"loss": 1}', "1", '{"number": 1, "loss": "low"}', '{"number": NaN}', "[" * 100_000]
)
def test_a_line_of_the_history_that_is_no_epoch_is_an_error(line: str) -> None:
    run = new_run(None, "clothes")
    (run.path / "history.jsonl").write_text(line + "\n")

    assert refused(run.history).message.startswith("runs/clothes/history.jsonl")


# --- what made a result ----------------------------------------------------------------------------------------


def test_versions_name_what_decides_a_result() -> None:
    found = versions()

    assert set(found) == {"hangtag", "python", "torch", "onnx", "onnxruntime", "numpy", "pillow"}
    assert found["hangtag"] == hangtag.__version__


def test_the_machine_is_described() -> None:
    found = hardware()

    assert set(found) >= {"system", "processor", "cores"}
    assert found["cores"] >= 1 and found["processor"]


def test_the_time_is_in_utc_to_the_second() -> None:
    assert len(now()) == len("2026-01-01T00:00:00+00:00")
    assert now().endswith("+00:00")


def test_a_name_taken_at_the_same_moment_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs/clothes").mkdir(parents=True)
    honest, looked = os.path.lexists, []

    def lexists(path: Path) -> bool:
        looked.append(path)
        return False if len(looked) == 1 else honest(path)  # as if another process made the folder just after the look

    monkeypatch.setattr(os.path, "lexists", lexists)

    assert new_run(None, "clothes").path == Path("runs/clothes-2")
    assert looked[:2] == [Path("runs/clothes"), Path("runs/clothes")]  # the second look found it
