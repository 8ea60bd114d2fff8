"""The types of the public names, as a program outside of hangtag sees them in pyright's strict mode."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hangtag

SOURCE = Path(hangtag.__file__).parents[1]
CONSUMER = Path(__file__).parent / "consumer.py"


WRONG = """
import hangtag

hangtag.read(3, size="large")
hangtag.load(1.5)
"""


@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_pyright_in_strict_mode_accepts_what_is_right_and_finds_what_is_wrong(tmp_path: Path) -> None:
    shutil.copy(CONSUMER, tmp_path / "right.py")
    (tmp_path / "wrong.py").write_text(WRONG)
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(SOURCE)], "include": ["*.py"]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))

    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )

    complaints = json.loads(done.stdout)["generalDiagnostics"]
    assert [each["message"] for each in complaints if "right.py" in each["file"]] == []
    assert len([each for each in complaints if "wrong.py" in each["file"]]) == 2


def test_the_program_uses_every_public_name() -> None:
    program = CONSUMER.read_text(encoding="utf-8")
    used = {*re.findall(r"hangtag\.(\w+)", program), "errors", "recipes", "HangtagWarning"}

    assert set(hangtag.__all__) - used == set()
