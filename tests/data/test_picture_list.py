"""Places -> pictures to classify."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag.data.picture_list import PictureList, list_pictures, places_in
from hangtag.errors import DataError, DataNotFound, UsageError
from hangtag.pictures import encode_png

PNG = encode_png(np.zeros((4, 4), np.uint8))


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photos/b.png", "photos/a [1].jpg", "photos/in/c.png", "photos/.hidden.png", "photos/read me.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)


def names(*places: str) -> list[str]:
    return [sample.name for sample in found(*places).samples]


def found(*places: str) -> PictureList:
    Path("new").mkdir(exist_ok=True)
    return list_pictures(places, Path("new"))


def test_files_folders_and_patterns_in_their_order() -> None:
    assert names("photos") == ["photos/a [1].jpg", "photos/b.png", "photos/in/c.png"]
    assert names("photos/in/c.png", "photos/b.png") == ["photos/in/c.png", "photos/b.png"]
    assert names("photos/*.png") == ["photos/b.png"]
    assert names("photos/**/*.png") == ["photos/b.png", "photos/in/c.png"]
    assert names("photos/a [1].jpg") == ["photos/a [1].jpg"]  # a name, though it looks like a pattern
    assert names("photo?") == names("photos")
    assert names("photos/nowhere.png") == ["photos/nowhere.png"]  # it will be a row with an error


def test_what_is_left_out_is_said() -> None:
    (Path("photos") / "old.zip").write_bytes(b"PK")

    notes = " ".join(found("photos").notes)

    assert "2 files of other kinds left out" in notes and "name them, too: old.zip" in notes


def test_a_folder_without_image_files_is_read_as_its_archives_and_parquet_files() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in (
        "part-0.parquet",
        "in/part-1.snappy.parquet",
        "in/part-0-of-3.PQ",
        "_delta/x.parquet",
        "old/p.parquet",
    ):
        (Path("data") / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table({"image": [PNG, PNG]}), Path("data") / name)
    parquet.write_table(pyarrow.table({"file": ["../photos/b.png"]}), "data/paths.parquet")
    with zipfile.ZipFile("data/in/z-00001-of-00002.zip", "w") as archive:
        archive.writestr("c.png", PNG)
    for name in ("_SUCCESS", "README.md", ".part-0.parquet.crc", "old/_manifest.json"):
        (Path("data") / name).write_text("{}")

    listed = found("data/")

    assert [sample.name for sample in listed.samples] == [
        "data/in/part-0-of-3.PQ: row 1", "data/in/part-0-of-3.PQ: row 2",
        "data/in/part-1.snappy.parquet: row 1", "data/in/part-1.snappy.parquet: row 2",
        "data/in/z-00001-of-00002.zip/c.png",
        "data/part-0.parquet: row 1", "data/part-0.parquet: row 2", "../photos/b.png",
    ]  # fmt: skip
    assert [listed.containers[each.container].content(each.key) for each in listed.samples] == [PNG] * 8
    notes = " ".join(listed.notes)
    assert "data: no image files; images read from 5 files (archives, Parquet)" in notes
    assert "numbered files are missing: in/z-00000-of-00002.zip" in notes
    (Path("data") / "one.png").write_bytes(PNG)  # image files come first, as in `hangtag train`
    listed = found("data")
    assert [sample.name for sample in listed.samples] == ["data/one.png"]
    assert "5 files (archives, Parquet) left out, because there are image files" in " ".join(listed.notes)


def test_members_of_archives() -> None:
    with zipfile.ZipFile("a.zip", "w") as archive:
        for name in ("x/2.png", "x/1.png", "__MACOSX/x/._1.png", "../out.png", "list.txt"):
            archive.writestr(name, PNG)
    with tarfile.open("a.tar.gz", "w:gz") as archive:
        archive.add("photos/b.png", "y/3.png")

    listed = found("a.zip", "a.tar.gz", "photos/b.png")

    assert [each.name for each in listed.samples] == [
        "a.zip/x/1.png",
        "a.zip/x/2.png",
        "a.tar.gz/y/3.png",
        "photos/b.png",
    ]
    assert listed.containers[1].content(listed.samples[2].key) == PNG
    assert "a.zip: set aside: 1 name outside" in " ".join(listed.notes)


def test_rows_of_a_table_stay_in_order_with_their_problems() -> None:
    Path("t.csv").write_text("picture,label\nphotos/b.png,x\nnone.png,\n,y\nphotos/in/c.png,z\nphotos/b.png,\n")

    listed = found("photos/b.png", "t.csv")

    assert [each.name for each in listed.samples] == [
        "photos/b.png", "photos/b.png", "none.png", "", "photos/in/c.png", "photos/b.png",
    ]  # fmt: skip
    assert {row: reason for row, (reason, _) in listed.problems.items()} == {
        2: "not found under .", 3: "the cell is empty",
    }  # fmt: skip
    assert all(hint for _, hint in listed.problems.values())


def test_a_table_without_pictures_is_an_error() -> None:
    Path("t.csv").write_text("height,weight\n1,2\n3,4\n")

    with pytest.raises(DataError, match=r"t\.csv"):
        found("t.csv")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("new", "new: no images found"),
        ("*.bmp", r"\*\.bmp: no file matches"),
        ("https://example.com/a.png", "web addresses are not read"),
    ],
)
def test_places_without_pictures(place: str, said: str) -> None:
    Path("new").mkdir()

    with pytest.raises((DataError, UsageError), match=said):
        found(place)


def test_bad_places_in_a_list_are_rows_with_an_error() -> None:
    Path("new").mkdir()
    places = ["https://example.com/a.png", "loose.png", "new", "*.bmp"]

    pictures = list_pictures(places, Path("work"), refuse=False)

    assert [sample.name for sample in pictures.samples] == places
    assert sorted(pictures.problems) == [0, 2, 3]
    assert pictures.problems[0] == ("web addresses are not read", "download the picture, and name its file")


def test_a_pattern_without_a_match_is_also_a_file_not_found() -> None:
    with pytest.raises(DataNotFound):
        found("*.bmp")


def test_lists_of_names(tmp_path: Path) -> None:
    assert places_in(b"a.png\r\nb c.png\n\n", tmp_path) == ["a.png", "b c.png"]
    assert places_in(b"a\nb.png\0c.png\0", tmp_path) == ["a\nb.png", "c.png"]
    assert places_in(b"\xff.png\nBMW.jpg\n\t.png\n", tmp_path) == ["\udcff.png", "BMW.jpg", "\t.png"]
    with pytest.raises(UsageError, match="holds neither names nor an image"):
        places_in(b"\n", tmp_path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF"])
def test_an_image_on_standard_input_is_no_list_of_names(kind: str, tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, kind)

    pictures = list_pictures(places_in(stream.getvalue(), tmp_path), tmp_path)

    assert [sample.name for sample in pictures.samples] == ["standard input"]
    assert Path(pictures.samples[0].key).read_bytes() == stream.getvalue()
    with pytest.raises(UsageError, match="cannot be read a second time"):
        places_in(stream.getvalue(), None)
