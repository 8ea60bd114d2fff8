"""The simple API: pictures in, answers out."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hangtag.cli import main
from hangtag.model.predictor import Predictor, load
from hangtag.pictures import encode_png
from hangtag.serving.app import create_app
from hangtag.serving.models import Models
from hangtag.serving.settings import Settings
from live import live
from toys import shapes, toy_model


def pictures(count: int = 4) -> list[bytes]:
    return [encode_png(image) for image in shapes(count)[0]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    (folder / "toys.onnx").write_bytes(toy_model())
    (folder / "colour.onnx").write_bytes(toy_model(3))
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    models = Models([folder / "toys.onnx", folder / "colour.onnx"])
    with live(create_app(models, Settings(max_pictures=5))) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load(folder / "toys.onnx")


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_a_picture_as_the_body_has_the_answer_of_the_library(client: httpx.Client, predictor: Predictor) -> None:
    for kind in ("image/png", "application/octet-stream", "application/x-www-form-urlencoded", None):
        said = client.post("/predict", content=pictures()[1], headers={"content-type": kind} if kind else {})

        assert said.status_code == 200 and said.json() == as_json(predictor(pictures()[1]).to_json())


def test_files_in_a_form_have_the_rows_that_predict_prints(
    client: httpx.Client,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = {"a.png": pictures()[0], "b.txt": b"no picture", "c.png": pictures()[2]}
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(name).write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["hangtag", "predict", str(folder / "toys.onnx"), *files, "--top", "2", "--json"])
    with pytest.raises(SystemExit):
        main.main()
    printed = json.loads(capsys.readouterr().out)

    said = client.post("/predict?top=2", files=[("any", (f"C:\\photos/{name}", files[name])) for name in files])

    assert said.status_code == 200 and said.json() == printed
    assert "error" in printed[1]
