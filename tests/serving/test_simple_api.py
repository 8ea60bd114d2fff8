"""The simple API: pictures in, answers out."""

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hangtag.cli import main
from hangtag.model.explanation import explain
from hangtag.model.predictor import Predictor, load
from hangtag.pictures import ImageSpec, decode, encode_png
from hangtag.serving.heat_map import heat_map
from hangtag.serving.models import Models
from hangtag.serving.settings import Settings
from toys import sha256, shapes, toy_model

from .conftest import run_server


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
    settings = Settings(port=0, access_log=None, max_pictures=5)
    with run_server(models, settings) as server, httpx.Client(base_url=server.url) as client:
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


@pytest.mark.parametrize(("content", "status"), [(b"small", 422), (bytes(20_000), 413)])
def test_a_picture_in_a_form_without_a_file_name_is_explained(
    client: httpx.Client, content: bytes, status: int
) -> None:
    said = client.post("/predict", files={"image": (None, content)})

    assert said.status_code == status
    assert "curl -F image=@photo.jpg" in said.json()["hint"]


def test_a_slash_at_the_end_is_an_unknown_path_and_no_redirect(client: httpx.Client) -> None:
    assert client.post("/predict/", content=pictures()[0]).status_code == 404


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


def test_json_has_one_answer_or_a_list(client: httpx.Client, predictor: Predictor) -> None:
    texts = [base64.b64encode(picture).decode() for picture in pictures(2)]
    texts[1] = f"data:image/png;base64,{texts[1]}"
    wanted = [as_json(predictor(picture, 1).to_json()) for picture in pictures(2)]

    one = client.post("/predict", json={"image": texts[0], "top": 1})
    many = client.post("/predict?top=1", json={"images": [*texts, "http://127.0.0.1/a.png"]})

    assert one.json() == wanted[0]
    assert many.status_code == 200 and many.json()[:2] == wanted
    assert many.json()[2]["error"] == "the string is not base64" and "addresses" in many.json()[2]["hint"]


def test_the_only_picture_decides_the_status(client: httpx.Client) -> None:
    raw = client.post("/predict", content=b"nothing")
    form = client.post("/predict", files={"a": ("../../etc/\x1b[31mb\u202e.png", b"nothing")})
    too_large = client.post("/predict", content=encode_png(np.zeros((9000, 9000), np.uint8)))

    assert raw.status_code == form.status_code == 422 and too_large.status_code == 413
    assert set(raw.json()) == {"error", "hint"}
    assert form.json()["file"] == "\\x1b[31mb\\u202e.png"


@pytest.mark.parametrize(
    ("query", "error", "hint"),
    [
        ("topp=3", "unknown parameter 'topp'", "did you mean 'top'?"),
        ("top=0", "top must be at least 1, got 0", "number of classes"),
        ("top=1_0", "top must be a whole number, got '1_0'", "for example 3"),
        ("top=1&top=2", "top is given twice", "give it once"),
        ("why=maybe", "why must be 1 or 0, got 'maybe'", "true"),
        ("coverage=1", "coverage must be above 0 and below 1", ""),
        ("coverage=nan", "coverage must be a number, got 'nan'", ""),
        ("set_method=rap", "unknown method 'rap'", "did you mean 'raps'?"),
        ("target_accuracy=0.5", "unknown target accuracy 0.5", "choose one of"),
        ("cost=2&target_accuracy=0.9", "cost and target accuracy cannot be combined", ""),
        ("doctor=1&as_is=1", "doctor and as_is contradict each other", ""),
        ("timeout=0", "timeout must be above 0, got 0", ""),
    ],
)
def test_parameters_are_checked_before_pictures(client: httpx.Client, query: str, error: str, hint: str) -> None:
    said = client.post(f"/predict?{query}", content=b"no picture")

    assert said.status_code == 422
    assert error in said.json()["error"] and hint in said.json()["hint"]


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (400, {"content": b"{", "headers": {"content-type": "application/json"}}),
        (400, {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}),
        (400, {"content": b'{"image": NaN}', "headers": {"content-type": "application/json"}}),
        (400, {"content": b'{"image": "\xff"}', "headers": {"content-type": "application/json"}}),
        (400, {"content": b"{} {}", "headers": {"content-type": "application/json"}}),
        (400, {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
        (400, {"content": b'--b\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx',
               "headers": {"content-type": "multipart/form-data; boundary=b"}}),
        (413, {"files": [("a", ("a", b"x"))] * 6}),
        (413, {"json": {"images": ["eA=="] * 6}}),
        (413, {"json": {"image": "eA==", "top": [[]] * 200}}),
        (415, {"content": b"--b--", "headers": {"content-type": "multipart/form-data; boundary=b; charset=undefined"}}),
        (415, {"content": b"--b--", "headers": {"content-type": "multipart/form-data; boundary=b; charset=punycode"}}),
        (415, {"content": b"x", "headers": {"content-type": "video/mp4"}}),
        (422, {"content": b""}),
        (422, {"json": []}),
        (422, {"json": {"image": "eA==", "images": []}}),
        (422, {"json": {"images": []}}),
        (422, {"json": {"image": 3}}),
        (422, {"json": {"image": "eA==", "top": [3]}}),
        (422, {"data": {"a": "b"}, "files": [("a", ("a", b"x"))]}),
    ],
)  # fmt: skip
def test_bodies_are_refused_with_an_error_and_a_hint(client: httpx.Client, status: int, sent: dict[str, Any]) -> None:
    said = client.post("/predict", **sent)

    assert said.status_code == status
    assert set(said.json()) == {"error", "hint"} and all(said.json().values())


def test_a_deadline_is_kept(client: httpx.Client) -> None:
    late = client.post("/predict?timeout=1e-9", content=pictures()[0])
    also = client.post("/predict", content=pictures()[0], headers={"X-Request-Timeout": "1e-9"})

    assert late.status_code == also.status_code == 504
    assert client.post("/predict?timeout=1e9", content=pictures()[0]).status_code == 200
    wrong = client.post("/predict", content=pictures()[0], headers={"X-Request-Timeout": "soon"})
    assert wrong.status_code == 400 and "X-Request-Timeout must be a number, got 'soon'" in wrong.json()["error"]


def test_models_say_what_they_are(client: httpx.Client, predictor: Predictor) -> None:
    about = client.get("/model?model=colour").json()

    assert [model["name"] for model in client.get("/models").json()] == ["toys", "colour"]
    assert client.get("/labels").json() == list(predictor.class_names)
    assert about["name"] == "colour" and about["image"]["channels"] == 3 and about["score"] is None
    assert client.get("/model").json()["version"] == predictor.fingerprint
    assert client.get("/model?model=tois").status_code == 404
    assert client.get("/labels?top=1").status_code == 422
    assert client.get("/nothing").json() == {"error": "not found", "hint": "/docs lists the paths and their methods"}
    assert client.delete("/predict").status_code == 405


def test_an_explanation_shows_where_the_evidence_is(client: httpx.Client, predictor: Predictor) -> None:
    said = client.post("/predict?why=1", content=pictures()[1]).json()
    found = explain(predictor, pictures()[1])

    why = said.pop("why")
    assert said == as_json(found.answer.to_json())
    assert why["method"] == found.method == "occlusion"
    assert (why["most_for"], why["most_against"]) == (max(0, found.heat.max()), min(0, found.heat.min()))
    assert decode(base64.b64decode(why["heat_map"].partition(",")[2]), ImageSpec(256, 256, 3))[0].shape[2] == 3


def test_images_that_only_an_explanation_needs_are_not_counted_as_pictures(client: httpx.Client) -> None:
    def counted() -> dict[str, float]:
        lines = client.get("/metrics").text.splitlines()
        found = dict(line.rsplit(" ", 1) for line in lines if "model=" in line and "bucket" not in line)
        return {name: float(value) for name, value in found.items() if "toys" in name}

    before = counted()
    assert client.post("/predict?why=1", content=pictures()[1]).status_code == 200
    gained = {name.partition("{")[0]: value - before.get(name, 0) for name, value in counted().items()}

    assert gained["hangtag_pictures_total"] == 1
    assert gained["hangtag_confidence_count"] == 1


def test_a_heat_map_is_blue_where_the_evidence_is() -> None:
    heat = np.array([[1, 0], [0, -1]], np.float32)

    for seen in (np.full((8, 8), 255, np.uint8), np.zeros((8, 8), np.uint8)):
        drawn = heat_map(seen, heat).astype(int)
        assert drawn.shape == (256, 256, 3)
        assert drawn[5, 5, 2] > drawn[5, 5, 0] + 50 and drawn[-5, -5, 0] > drawn[-5, -5, 2] + 50
        assert drawn[5, -5].min() > 200


def test_the_score_is_that_of_the_model_being_served(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.onnx").write_bytes(toy_model())
    score = {"part": "test", "images": 90, "accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}
    (run / "metrics.json").write_text(json.dumps({**score, "loss": 1}))
    config = {"status": "finished", "model": {"sha256": sha256(toy_model())}}
    (run / "config.json").write_text(json.dumps(config))
    with run_server(Models([run])) as server:
        assert httpx.get(f"{server.url}/model").json()["score"] == score
        config["model"] = {"sha256": sha256(b"another model")}
        (run / "config.json").write_text(json.dumps(config))
        assert httpx.get(f"{server.url}/model").json()["score"] is None
