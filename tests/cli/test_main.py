"""main.py and options.py: help, completion, exit codes, and `python -m hangtag`."""

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hangtag.cli import main

COMMANDS = (
    "data", "look", "audit", "train", "evaluate", "report", "predict", "compare", "stress", "check", "model",
    "tutorial", "bench", "cache",
)  # fmt: skip


@pytest.mark.parametrize(
    "arguments", [("data", ""), ("train", "--out="), ("check", "last", ""), ("predict", "last", ""), ("evaluate", "")]
)
def test_an_empty_argument_is_refused(arguments: tuple[str, ...], hangtag: Any) -> None:
    outcome = hangtag(*arguments)

    assert (outcome.code, outcome.err.count("\n"), "is empty" in outcome.err) == (2, 1, True)


def test_names_from_strangers_are_printed_with_escapes(hangtag: Any, tmp_path: Path) -> None:
    folder = tmp_path / "set" / "red\x1b[31m\nline"
    for label in (folder, tmp_path / "set" / "caf\udce9"):
        label.mkdir(parents=True)
        Image.new("L", (16, 16), len(label.name)).save(label / "1\x9b2J\udce9.png")
    (folder / "bad\udce9\x07.png").write_bytes(b"no picture")

    outcomes = [hangtag("data", "set"), hangtag("data", "set", "--json"), hangtag("look", "set")]
    outcomes += [hangtag("predict", "red\x1b[2J", "x.png"), hangtag("data", "red\x1b[2J/x")]

    for outcome in outcomes:
        assert (outcome.out + outcome.err).replace("\n", "").isprintable()
    assert outcomes[1].json["classes"] == ["caf\\xe9", "red\\x1b[31m\\nline"]
    assert (tmp_path / "skipped.csv").read_text().splitlines()[1].startswith("red\\x1b[31m\\nline/bad\\xe9\\x07.png,")


def test_a_terminal_gets_bars_and_questions_but_no_codes_of_strangers(tmp_path: Path) -> None:
    for number, folder in enumerate(("a/x\x1b[2Jx", "a/y", "b/z")):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("L", (16, 16), number).save(tmp_path / folder / "1.png")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"}
    terminal, end = pty.openpty()
    program = [sys.executable, "-m", "hangtag", "data", str(tmp_path)]
    with subprocess.Popen(program, env=environment, stdin=end, stdout=end, stderr=end) as running:
        asked = ""
        while "Enter a number from 1 to" not in asked:
            asked += os.read(terminal, 1 << 16).decode()
        redrawn = select.select([terminal], [], [], 0.4)[0]  # a bar would be, ten times a second
        os.write(terminal, b"1\n")
        assert running.wait(120) == 0
        shown = asked + os.read(terminal, 1 << 16).decode()
    os.close(terminal)
    os.close(end)

    assert not redrawn and "\x1b[?25l" not in asked  # what is typed stays visible, and the cursor
    assert "which ones are the classes?" in shown and "read as with --classes top, as you answered" in shown
    assert "\x1b[" in shown  # of the progress bar
    assert "a/x\\x1b[2Jx" in shown and "\x1b[2Jx" not in shown and "\\x1b[2K" not in shown


def test_a_terminal_with_a_narrow_encoding_shows_escapes(tmp_path: Path) -> None:
    for label in ("café", "ant"):
        (tmp_path / label).mkdir()
        Image.new("L", (16, 16), len(label)).save(tmp_path / label / "1.png")
    program = [sys.executable, "-m", "hangtag", "data", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    run = partial(subprocess.run, env=environment, capture_output=True, text=True, check=True, timeout=120)

    assert "2 classes (ant, caf\\xe9)" in run(program).stdout
    assert json.loads(run([*program, "--json"]).stdout)["classes"] == ["ant", "café"]


def test_every_command_has_help_with_an_example(hangtag: Any) -> None:
    for command in COMMANDS:
        shown = hangtag(command, "--help")
        assert shown.code == 0
        assert f"Example: hangtag {command}" in shown.out


MISTAKES = [
    (("train", "fashion-mnits"), 2, "did you mean 'fashion-mnist'"),
    (("train", "tiny", "--recipe", "fats"), 2, "did you mean 'fast'"),
    (("train", "tiny", "--path", "files", "--epochs", "0"), 2, "epochs must be from 1 to 1,000,000, got 0"),
    (("train", "tiny", "--path", "nowhere"), 1, "no such folder"),
    (("train", "tiny", "--path", "files", "--recipe", "tutorial", "--device", "abacus"), 2, "known: auto, cpu, cuda"),
    (("model", "tutorail"), 2, "did you mean 'tutorial'"),
    (("evaluate", "nope"), 1, "no such run"),
    (("evaluate", "last"), 1, "no finished run"),
    (("predict", "nope.onnx", "a.png"), 1, "no such file"),
    (("predict", "files", "a.png"), 1, "no model.onnx"),
    (("predict", "nope.onnx", "a.png", "--device", "abacus"), 2, "known: cpu, cuda"),
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


@pytest.mark.parametrize(
    ("typed", "heavy"),
    [
        (["--help"], ("torch", "numpy", "onnxruntime", "matplotlib", "PIL")),
        (["train", "photos", "--recipe", "fats"], ("torch", "sklearn", "matplotlib")),
        (["train", "photos", "--log-to", "tensorbord"], ("torch", "sklearn", "matplotlib")),
        (["evaluate", "no-such-run"], ("pydantic", "torch", "sklearn", "matplotlib")),
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


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("train fashion", ["fashion-mnist"]),
        ("train --recipe t", ["transfer", "tutorial"]),
        ("train pho", []),  # the shell then completes the folder photos/
        ("predict ", ["clothes", "last"]),
        ("data --gr", ["--grey", "--gray", "--group-by"]),
    ],
)
def test_names_are_completed_in_the_shell(tmp_path: Path, line: str, completed: list[str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "runs" / "clothes").mkdir(parents=True)
    (tmp_path / "runs" / "clothes" / "config.json").write_text("{}")

    done = run_module(
        tmp_path,
        _HANGTAG_COMPLETE="complete_bash",
        COMP_WORDS=f"hangtag {line}",
        COMP_CWORD=str(len(f"hangtag {line}".split(" ")) - 1),
    )

    assert sorted(done.stdout.split()) == sorted(completed)


def run_module(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python -m hangtag` in a folder."""
    source = Path(main.__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "hangtag", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_python_m_hangtag_imports_nothing_from_the_current_folder(photos: Path, tmp_path: Path) -> None:
    """`python -m` puts the current folder first on the import path."""
    loaded = subprocess.run(  # Python itself imports these before any code of hangtag runs
        [sys.executable, "-P", "-c", "import runpy, sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    packages = {"numpy", "typer", "rich", "PIL", "onnxruntime", "platformdirs", "filelock", "click"}
    for name in (sys.stdlib_module_names | packages) - {*loaded, *sys.builtin_module_names}:
        (tmp_path / f"{name}.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\nraise SystemExit(7)\n")

    done = run_module(tmp_path, "data", "photos", "--gray")

    assert done.returncode == 0, done.stderr
    assert "60 images" in done.stdout
    assert not (tmp_path / "ran").exists()


def test_american_spellings_are_accepted(hangtag: Any, photos: Path) -> None:
    assert "16x16, grey images in three channels" in hangtag("data", "photos", "--color").out
    assert hangtag("data", "photos", "--gray").out == hangtag("data", "photos", "--grey").out


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (("train", "digits", "--minutes", "two"), "'--minutes': must be a number, got 'two'"),
        (("train", "digits", "--epochs", "1.5"), "'--epochs': must be a whole number, got '1.5'"),
        (("serve", "last", "--port", "http"), "'--port': must be a whole number, got 'http'"),
    ],
)
def test_text_in_place_of_a_number_is_refused_in_plain_words(
    typed: tuple[str, ...], complaint: str, hangtag: Any
) -> None:
    outcome = hangtag(*typed)

    assert outcome.code == 2 and outcome.err.endswith(f"Error: Invalid value for {complaint}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "tiny", "--path", "files", "--seed", "18446744073709551616"), "less than or equal to"),
        (("data", "tiny", "--path", "files", "--size", "²"), "--size must be a number of pixels"),
        (("data", "tiny", "--path", "files", "--size", "9" * 5000), "--size must be a number of pixels"),
        (("bench", "tiny", "--path", "files", "--seconds", "inf"), "less than or equal to"),
        (("bench", "tiny", "--path", "files", "--seconds", "nan"), "less than or equal to 3600"),
        (("train", "tiny", "--path", "files", "--epochs", "9" * 30), "epochs must be from 1 to 1,000,000"),
        (("train", "tiny", "--path", "files", "--set", "random_shift=" + "9" * 9), "random_shift must be from 0 to 1"),
        (("train", "tiny", "--path", "files", "--minutes", "nan"), "--minutes must be above 0"),
    ],
)
def test_numbers_that_no_computer_can_use_are_refused_in_one_line(
    hangtag: Any, arguments: tuple[str, ...], message: str
) -> None:
    outcome = hangtag(*arguments)
    assert outcome.code == 2
    assert message in " ".join(outcome.err.replace("│", " ").split())
    assert "Traceback" not in outcome.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", ["--help", "model tutorial"])
def test_a_full_disk_behind_stdout_is_one_line(tmp_path: Path, command: str) -> None:
    source = Path(main.__file__).parents[2]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "hangtag", *command.split()],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(source)}, stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("hangtag: the output: cannot be written: No space left on device (")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_leaves_no_temporary_file(name: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz", compresslevel=0) as tar:
        for number in range(24):
            member = tarfile.TarInfo(f"{'ab'[number % 2]}/{number}.bin")
            member.size = 5_000_000
            tar.addfile(member, io.BytesIO(os.urandom(1_000_000) * 5))
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "hangtag", "data", "set.tar.gz"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, getattr(signal, name), signal.SIG_DFL),  # noqa: PLW1509 - jobs may ignore it
    )  # fmt: skip
    try:
        while process.poll() is None and not list(tmp_path.glob("tmp/*/tar")):
            time.sleep(0.01)
        process.send_signal(getattr(signal, name))
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()

    assert process.returncode == 128 + getattr(signal, name)
    assert b"stopped" in said and b"Traceback" not in said
    assert list((tmp_path / "tmp").glob("hangtag-*")) == []


def test_a_full_disk_is_one_line_wherever_it_is_met(hangtag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr("hangtag.data.read.read", full)

    shown = hangtag("data", "files")

    assert (shown.code, shown.err.count("\n")) == (1, 1)
    assert "/tmp/x: cannot be written: No space left on device (the disk is full" in shown.err


def test_a_closed_stdout_is_no_traceback() -> None:
    program = f"{sys.executable} -m hangtag cache >&-"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    done = subprocess.run(["sh", "-c", program], env=environment, stderr=subprocess.PIPE, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_c_code_is_imported_is_no_traceback(hangtag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def imports(**_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise ImportError("initialization failed") from interrupt

    monkeypatch.setattr(main, "_app", lambda arguments: imports)

    outcome = hangtag("data")

    assert (outcome.code, outcome.err) == (130, "stopped\n")


def test_at_exit_nobody_looks_for_garbage() -> None:
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); import hangtag.cli"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout == "True\n"
