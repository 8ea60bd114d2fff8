"""The base install (`pip install hangtag`, without extras) does all but train, and says at once which extra is missing.

The environment is a real one: a virtual environment with links to the base dependencies only.
"""

import json
import os
import re
import shutil
import subprocess
import tomllib
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest

import hangtag

SOURCE = Path(hangtag.__file__).parents[1]
EXTRAS = ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "scipy", "matplotlib", "pandas", "pyarrow")

PROGRAM = f"""
import contextlib, importlib.util, io, json, sys
from hangtag.cli import main

assert [name for name in {EXTRAS!r} if importlib.util.find_spec(name)] == []
outcomes = []
for arguments in json.loads(sys.stdin.read()):
    sys.argv = ["hangtag", *arguments]
    code = 0
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(printed[0]), contextlib.redirect_stderr(printed[1]):
        try:
            main.main()
        except SystemExit as end:
            code = end.code
    for stream in printed:
        stream.flush()
    outcomes.append([code, *(stream.buffer.getvalue().decode() for stream in printed)])
print(json.dumps(outcomes))
"""


def base_packages() -> set[str]:
    """The names of the distributions that `pip install hangtag` brings along."""
    project = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found, waiting = set[str](), [*project["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = re.match(r"[\w.-]+", requirement)[0].lower()  # type: ignore[index]
        if name in found or "extra ==" in requirement:
            continue
        try:
            waiting += distribution(name).requires or ()
        except PackageNotFoundError:  # a marker excludes it here
            continue
        found.add(name)
    return found


@pytest.fixture(scope="module")
def base_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has the base dependencies and this source."""
    folder = tmp_path_factory.mktemp("base")
    venv.create(folder, symlinks=os.name != "nt")
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    (packages,) = folder.rglob("site-packages")
    for name in base_packages():
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    (packages / "hangtag.pth").write_text(str(SOURCE))
    return scripts / Path("python.exe" if os.name == "nt" else "python")


@pytest.fixture
def base(base_python: Path, tmp_path: Path, trained: Path) -> Any:
    """Run commands in one process of the base install, in a copy of the folder `trained`."""
    shutil.copytree(trained, tmp_path / "work", dirs_exist_ok=True)
    for name in ("a", "b"):
        config = tmp_path / "work" / "runs" / name / "config.json"
        config.write_text(config.read_text().replace(str(trained), str(tmp_path / "work")))

    def run(*commands: list[str]) -> list[tuple[int, str, str]]:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [base_python, "-c", PROGRAM],
            input=json.dumps(commands),
            cwd=tmp_path / "work",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return [tuple(each) for each in json.loads(done.stdout)]

    return run


def test_everything_but_training_works_without_extras(base: Any, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    for label in ("bar", "dot"):
        (odd / label).mkdir(parents=True)
        for number in range(3):
            from PIL import Image

            Image.new("L", (20 + number, 31), 40 * number).save(odd / label / f"{number}.png")
    (tmp_path / "expected").mkdir()
    commands = [
        ["data", str(odd)],
        ["look", str(odd), "--out", "pictures"],
        ["audit", str(odd), "--no-labels"],
        ["predict", "runs/a", str(odd / "bar/0.png")],
        ["evaluate", "runs/a"],
        ["evaluate", "runs/a", str(odd), "--page", "page.html"],
        ["compare", "runs/a", "runs/b"],
        ["stress", "runs/a", "--images", "20"],
        ["check", "runs/a", str(odd)],
        ["report", "runs/a"],
    ]
    outcomes = dict(zip([" ".join(each[:1] + each[2:3]) for each in commands], base(*commands), strict=True))

    failed = {command: found for command, found in outcomes.items() if found[0] and not command.startswith("check")}
    assert failed == {}
    assert "6 images of" in outcomes["data"][1] and "skipped" not in outcomes["data"][1]
    note = "note: figures were not drawn: they need 'matplotlib' (pip install 'hangtag[train]')"
    for command in ("look --out", "stress --images", "report"):
        assert outcomes[command][1].splitlines()[-1] == note
    assert "of 6 images have the expected label" in outcomes["check " + str(odd)][1]
    assert (tmp_path / "work/page.html").is_file()


def test_names_that_need_an_extra_are_missing_attributes_and_say_which(base_python: Path, tmp_path: Path) -> None:
    program = """
import pydoc, hangtag
from hangtag.errors import MissingExtra

missing = [name for name in hangtag.__all__ if not hasattr(hangtag, name)]
assert missing == sorted(set(hangtag.__all__) - set(dir(hangtag))), missing
assert "Judge a model" in pydoc.render_doc(hangtag)
for name in missing:
    try:
        exec(f"from hangtag import {name}")
    except MissingExtra as error:
        print(name, error.hint)
"""
    done = subprocess.run(
        [base_python, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )

    needed = ("Epoch", "ImageClassifier", "figures", "tune")
    assert (done.stdout, done.stderr) == ("".join(f"{name} pip install 'hangtag[train]'\n" for name in needed), "")


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        (["train", "nowhere"], "pip install 'hangtag[train]'"),
        (["audit", "nowhere"], "pip install 'hangtag[train]', or leave the labels unchecked: --no-labels"),
    ],
)
def test_the_missing_extra_is_named_before_anything_is_read(base: Any, command: list[str], hint: str) -> None:
    commands = [command, ["bench", "nowhere"], ["tutorial", "--path", "nowhere"], ["model"]]
    commands.append(["predict", "nowhere.onnx", "nowhere.png", "--why", "why.png"])
    on_ray = ["predict", "nowhere.onnx", "nowhere.png", "--out", "shards/", "--ray"]

    shards = ["predict", "nowhere.onnx", "nowhere.png", "--out", "shards/"]
    table = ["predict", "nowhere.onnx", "nowhere.png", "--out", "answers.parquet"]
    bucket = ["predict", "runs/a", "s3://bucket/photos"]

    *outcomes, without_ray, no_shards, no_table, no_bucket = base(*commands, on_ray, shards, table, bucket)

    needed = "hangtag: this needs 'pyarrow', which is not installed (pip install 'hangtag[parquet]')\n"
    assert no_shards == no_table == no_bucket == (1, "", needed)
    assert without_ray[2] == "hangtag: this needs 'ray', which is not installed (pip install 'hangtag[ray]')\n"

    assert outcomes[0] == (1, "", f"hangtag: this needs 'torch', which is not installed ({hint})\n")
    for code, out, err in outcomes[1:]:
        assert (code, out) == (1, "")
        assert re.fullmatch(
            r"hangtag: this needs '(torch|matplotlib)', which is not installed \(pip install 'hangtag\[train\]'\)\n",
            err,
        )
