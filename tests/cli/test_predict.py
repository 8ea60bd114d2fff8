"""`hangtag predict`."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hangtag.cli.predict_job import folder_of
from hangtag.pictures import encode_png
from hangtag.prediction import bulk
from toys import toy_model


def test_predict_answers_the_good_pictures_and_names_the_bad(hangtag: Any, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(toy_model())
    (tmp_path / "good.png").write_bytes(encode_png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "text.png").write_text("not a picture")

    shown = hangtag("predict", "model.onnx", "text.png", "good.png")

    assert shown.code == 1
    assert shown.out.startswith("good.png: ")
    note, error = shown.err.splitlines()
    assert note.startswith("note: this model file was exported without guarantees")
    assert error.startswith("hangtag: text.png: not an image")


def test_predict_marks_sure_answers_and_can_leave_the_rest_out(in_trained: Any, trained: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    (trained / "noise.png").write_bytes(encode_png(noise))
    pictures = ("drawn/test/bar/240.png", "noise.png")

    shown = in_trained("predict", "runs/a", *pictures, "--coverage", "0.9", "--json").json
    familiar, strange = shown

    assert familiar["label"] == "bar" and familiar["coverage"] == 0.9 and "bar" in familiar["prediction_set"]
    assert not familiar["is_ood"]
    assert strange["ood_score"] > 0.9
    # 24 held-out images: at most 23 of 24 can be more typical, so 5 % is just above the resolution
    only = in_trained(
        "predict", "runs/a", *pictures, "--cost", "1.5", "--ood-false-positive-rate", "0.2", "--sure-only"
    )
    assert only.code == 0 and "noise.png" not in only.out
    assert " of 2 images because the model is not sure" in only.err


def test_predict_draws_explanations(in_trained: Any, trained: Path) -> None:
    one = in_trained("predict", "runs/a", "drawn/test/dot/241.png", "--why", "why.png")
    two = in_trained(
        "predict", "runs/b/model.onnx", "drawn/test/dot/241.png", "drawn/test/bar/240.png", "--why", "both", "--json"
    )

    assert one.code == 0 and "wrote why.png" in one.out
    assert (trained / "why.png").stat().st_size > 10_000
    assert [answer["why"] for answer in two.json] == ["both/241.png", "both/240.png"]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """Thirty pictures in two folders, and one file that is none."""
    (tmp_path / "model.onnx").write_bytes(toy_model())
    random = np.random.default_rng(0)
    for number in range(30):
        path = tmp_path / "photos" / ("a", "b")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(random.integers(0, 256, (8, 8), dtype=np.uint8)))
    (tmp_path / "photos" / "a" / "broken.jpg").write_bytes(b"x")
    return tmp_path


def test_predict_writes_a_table_sorts_and_draws_a_contact_sheet(hangtag: Any, many: Path) -> None:
    shown = hangtag(
        "predict", "model.onnx", "photos", "--out", "a.csv", "--sort-into", "sorted", "--sheet", "sheet.html"
    )

    assert shown.code == 1
    assert "31 images, 1 could not be read" in shown.out and "photos/a/00.png" not in shown.out
    assert shown.err.splitlines()[1].startswith("hangtag: photos/a/broken.jpg: not an image")
    assert {"sorted into sorted", "wrote sheet.html", "wrote a.csv"} <= set(shown.err.splitlines())
    with (many / "a.csv").open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    assert len(rows) == 31 and rows["photos/a/broken.jpg"]["error"].startswith("not an image")
    for file, row in rows.items():
        if row["label"]:
            assert (many / "sorted" / row["label"] / Path(file).name).read_bytes() == (many / file).read_bytes()
    assert sum(path.suffix == ".png" for path in (many / "sorted").rglob("*")) == 30
    page = (many / "sheet.html").read_text()
    assert page.count("<figure") == 30 and "photos/a/broken.jpg" in page
    least = min((float(row["probability"]), file) for file, row in rows.items() if row["label"])[1]
    assert page.index(f'title="{least}') < page.index('title="photos') + 1


def test_predict_prints_a_line_for_each_picture_where_no_terminal_is(hangtag: Any, many: Path) -> None:
    shown = hangtag("predict", "model.onnx", "photos/*/*.png")

    assert shown.code == 0
    assert [line.partition(":")[0] for line in shown.out.splitlines()] == sorted(
        f"photos/{('a', 'b')[number % 2]}/{number:02d}.png" for number in range(30)
    )


def test_predict_reads_names_from_standard_input(hangtag: Any, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (many / "photos" / "new\nline.png").write_bytes((many / "photos" / "a" / "00.png").read_bytes())
    names = b"photos/a/02.png\0photos/new\nline.png\0"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(names)))

    shown = hangtag("predict", "model.onnx", "photos/b/01.png", "-", "--json")

    assert [each["file"] for each in shown.json] == ["photos/b/01.png", "photos/a/02.png", "photos/new\nline.png"]
    assert shown.json[0].keys() >= {"label", "probability", "top", "warnings"}


def test_predict_reads_an_image_from_standard_input(hangtag: Any, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (many / "photos" / "a" / "02.png").read_bytes()
    answers = []
    for place in ("-", "photos/a/02.png"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        answers += hangtag("predict", "model.onnx", place, "--json").json
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))

    assert answers[0] == {**answers[1], "file": "standard input"}
    assert "standard input is an image" in hangtag("predict", "model.onnx", "-", "--out", "shards/").err


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (("photos", "--out", "there.csv"), "there.csv: already exists", 2),
        (("photos", "--out", "a.xlsx"), "a.xlsx: the ending must be one of .csv, .jsonl, .parquet", 2),
        (("photos", "--sort-into", "photos"), "photos: is not an empty folder", 2),
        (("photos", "--sheet", "there.csv"), "the ending must be .html", 2),
        (("texts",), "texts: no images found; it contains 1 .txt file", 1),
        (("photos/*.bmp",), "photos/*.bmp: no file matches", 1),
        (("there.csv",), "there.csv", 1),
    ],
)
def test_predict_refuses_before_it_works(
    hangtag: Any, many: Path, options: tuple[str, ...], said: str, code: int
) -> None:
    (many / "there.csv").write_text("height\n1\n")
    (many / "texts").mkdir()
    (many / "texts" / "notes.txt").write_text("text")

    shown = hangtag("predict", "model.onnx", *options)

    assert shown.code == code and said in shown.err and shown.out == ""
    assert (many / "there.csv").read_text() == "height\n1\n"


def test_predict_needs_pyarrow_for_parquet_before_it_works(
    hangtag: Any, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    shown = hangtag("predict", "no-such-model", "photos", "--out", "a.parquet")

    assert "this needs 'pyarrow'" in shown.err and "hangtag[parquet]" in shown.err


def test_ctrl_c_keeps_the_answers_so_far(hangtag: Any, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bulk.answers

    def interrupted(*arguments: Any) -> Iterator[Any]:
        for number, row in enumerate(before(*arguments)):
            if number == 5:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(bulk, "answers", interrupted)

    shown = hangtag("predict", "model.onnx", "photos", "--out", "a.jsonl", "--json")

    assert shown.code == 130
    assert "the answers for 5 of 31 images are in a-partial.jsonl" in shown.err
    assert len((many / "a-partial.jsonl").read_text().splitlines()) == 5 == len(shown.json)
    assert not (many / "a.jsonl").exists()


def test_sure_only_leaves_the_others_out_of_every_output(in_trained: Any, trained: Path) -> None:
    shown = in_trained(
        "predict", "runs/a", "drawn/test", "--sure-only", "--cost", "1.5", "--out", "sure.csv", "--sort-into", "sure",
        "--link",
    )  # fmt: skip

    with (trained / "sure.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    left = 120 - len(rows)
    assert f"120 images, {left} not sure" in shown.out and {row["sure"] for row in rows} == {"yes"}
    links = [path for path in (trained / "sure").rglob("*.png") if path.is_symlink() and path.exists()]
    assert len(links) == len(rows) and not (trained / "sure" / "not sure").exists()


def test_predict_draws_repairs_or_leaves_images_as_they_are(in_trained: Any, trained: Path) -> None:
    picture = "drawn/test/dot/241.png"

    drawn = in_trained("predict", "runs/a", picture, "--doctor", "--json").json
    as_is = in_trained("predict", "runs/a", picture, "--as-is", "--json").json
    both = in_trained("predict", "runs/a", picture, "--as-is", "--doctor")

    assert drawn[0]["doctor"] == "doctor/241.png"
    assert (trained / "doctor" / "241.png").read_bytes().startswith(b"\x89PNG")
    elsewhere = in_trained("predict", "runs/a", picture, "--doctor-into", "drawings/here", "--json").json
    assert elsewhere[0]["doctor"] == "drawings/here/241.png" and (trained / "drawings/here/241.png").is_file()
    assert as_is[0]["repairs"] == []
    assert both.code == 2 and "contradict" in both.err


@pytest.mark.parametrize(
    ("out", "folder"),
    [
        ("answers", True), ("answers.d/", True), ("photos", True), ("s3://bucket/answers", True),
        ("answers.csv", False), ("a/b.parquet", False), ("answers.txt", False),
    ],
)  # fmt: skip
def test_out_names_a_folder_of_shards_or_a_table(many: Path, monkeypatch: Any, out: str, folder: bool) -> None:
    monkeypatch.chdir(many)

    assert (folder_of(out) is not None) == folder


def test_predict_writes_shards_and_continues(hangtag: Any, many: Path) -> None:
    shown = hangtag("predict", "model.onnx", "photos", "--out", "answers", "--top", "1")
    again = hangtag("predict", "model.onnx", "photos", "--out", "answers", "--top", "1", "--json")

    assert shown.code == 0 and again.code == 0
    assert hangtag("predict", "model.onnx", "photos", "--out", "answers", "--top", "1", "--strict").code == 1
    assert "31 images, 1 could not be read" in shown.out
    assert "photos/a/broken.jpg: not an image that hangtag can read" in shown.err
    assert "wrote 1 shard in" in shown.err
    assert (again.json["images"], again.json["failed"], again.json["shards"]) == (31, 1, 1)
    for option in ("--sort-into=sorted", "--sheet=page.html", "--sure-only"):
        refused = hangtag("predict", "model.onnx", "photos", "--out", "answers", "--top", "1", option)
        assert refused.code == 2 and "cannot be combined" in refused.err
    refused = hangtag("predict", "model.onnx", "photos", "--out", "s3://bucket/answers.csv")
    assert refused.code == 2 and "a table can be written on this machine only" in refused.err
    refused = hangtag("predict", "model.onnx", "photos", "--out", "answers")
    assert refused.code == 2 and "has another --top" in refused.err


def test_unreadable_images_decide_the_exit_code_where_no_row_keeps_them(hangtag: Any, many: Path) -> None:
    broken = "photos/a/broken.jpg"

    assert hangtag("predict", "model.onnx", "photos").code == 1
    assert hangtag("predict", "model.onnx", "photos", "--not-strict").code == 0
    assert hangtag("predict", "model.onnx", broken, "--out", "answers").code == 1  # no image at all was answered
