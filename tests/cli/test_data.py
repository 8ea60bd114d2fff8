"""`hangtag data`, `look`, `audit` and `cache`."""

import json
from pathlib import Path
from typing import Any

import pytest


def test_data_prints_origin_size_and_fingerprint(hangtag: Any) -> None:
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

    assert [path.name for path in sorted((tmp_path / "seen").iterdir())] == [
        ".hangtag",
        "1-one-image.png",
        "2-grid.png",
    ]
    assert "total" in shown.out
    assert "bar" in shown.out


def test_data_prints_how_a_folder_was_read_and_what_was_skipped(hangtag: Any, photos: Path, tmp_path: Path) -> None:
    shown = hangtag("data", "photos")

    assert shown.out.splitlines()[0] == ("Read as one folder per class: 60 images, 2 classes (cat, dog), 16x16, grey")
    assert "skipped      1 file, see skipped.csv" in shown.out
    assert "note: skipped 1 file: 1 not an image" in shown.out
    assert "cat/bad.jpg,not an image" in (tmp_path / "skipped.csv").read_text()
    said = hangtag("data", "photos", "--json").json
    assert (said["images"], said["skipped"][0]["name"]) == (60, "cat/bad.jpg")


def test_a_list_of_skipped_files_replaces_no_other_file(hangtag: Any, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "skipped.csv").write_text("mine")
    (tmp_path / "skipped-2.csv").symlink_to("nowhere")

    said = [hangtag("data", "photos").out for _ in range(2)]

    assert all("skipped      1 file, see skipped-3.csv" in each for each in said)
    assert (tmp_path / "skipped.csv").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.glob("skipped*")) == [f"skipped{n}.csv" for n in ("-2", "-3", "")]


def test_audit_finds_problems_and_train_applies_decisions(
    hangtag: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = hangtag("audit", "photos", "--no-labels", "--out", "seen")

    assert shown.code == 0, shown.err
    assert "drop 1 duplicate image: dog/03.png" in shown.out
    assert f"hangtag train {photos} --decisions seen/decisions.csv" in shown.out
    assert (tmp_path / "seen" / "audit.html").stat().st_size > 1000
    (tmp_path / "mine.csv").write_text("name,decision\ndog/03.png,drop\ncat/00.png,relabel: dog\n")
    trained = hangtag(
        "train", "photos", "--decisions", "mine.csv", "--recipe", "quick", "--epochs", "1", "--out", "runs/b"
    )
    assert trained.code == 0 and "mine.csv: 1 image dropped, 1 label changed" in trained.err
    config = json.loads((tmp_path / "runs" / "b" / "config.json").read_text())
    assert config["data"]["images"] == 59
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert hangtag("evaluate", str(tmp_path / "runs" / "b")).code == 0  # the same decisions again


def test_an_ambiguous_folder_is_an_error_where_nobody_can_answer(hangtag: Any, photos: Path) -> None:
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
        (("--size", "big"), "--size must be a number of pixels"),
        (("--classes", "middle"), "--classes must be top, leaf, name, file or parts, got middle"),
        (("--fit", "stretch"), "unknown way to fit 'stretch'"),
        (("--group-by", "("), "not a regular expression"),
        (("--decisions", "nowhere.csv"), "nowhere.csv: no such file"),
    ],
)
def test_a_wrong_data_option_is_one_line(hangtag: Any, photos: Path, options: tuple[str, ...], says: str) -> None:
    shown = hangtag("data", "photos", *options)

    assert shown.code in (1, 2) and says in shown.err and shown.err.count("\n") == 1
