"""What the tests of the command line share: running a command, small data, trained runs."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hangtag.cli import main
from hangtag.data.public import datasets
from toys import tiny_files, tiny_set


class Outcome:
    """What one command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def hangtag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in a folder that holds the public dataset `tiny`, thirty images, in `files/`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(datasets.NAMED, "tiny", tiny_set())
    (tmp_path / "files").mkdir()
    for name, content in tiny_files().items():
        (tmp_path / "files" / name).write_bytes(content)

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["hangtag", *arguments])
        try:
            main.main()
            code: Any = 0
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return Outcome(int(code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def train_tiny(hangtag: Any) -> Any:
    """Run `hangtag train tiny` for two epochs, with more options."""
    return partial(hangtag, "train", "tiny", "--path", "files", "--recipe", "tutorial", "--epochs", "2")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty textured images in two folders, one of them twice, and a file that is no image."""
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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 360 drawn images in three classes, and two runs `a` and `b` trained on them."""
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
