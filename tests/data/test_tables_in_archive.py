"""Tables in zip and tar files are read as those in folders are."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag import read
from hangtag.errors import DataError, HangtagError, UsageError
from pictures import encoded, photo


def picture(number: int) -> bytes:
    return encoded(Image.fromarray(photo(number, 16, 16)), "x.png")


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path: Path, files: dict[str, str | bytes]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def shards(labels: str = "abab") -> dict[str, str | bytes]:
    """Pictures in folders that are no classes, and a table that names them without folder and ending."""
    files: dict[str, str | bytes] = {f"images_part_{n % 2 + 1}/{n}.png": picture(n) for n in range(len(labels))}
    return files | {"labels.csv": "id,label\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels))}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz"])
def test_a_table_in_an_archive_gives_the_labels(tmp_path: Path, name: str) -> None:
    path = (zipped if name.endswith("zip") else tarred)(tmp_path / name, shards("abba"))

    first, again = read(path), read(path)

    assert first.class_names == ("a", "b") and first.name == "x"
    labels = dict(zip(first.names, first.labels.tolist(), strict=True))
    assert labels == {f"images_part_{n % 2 + 1}/{n}.png": label for n, label in enumerate([0, 1, 1, 0])}
    pixels = dict(zip(first.names, first.images, strict=True))
    assert all(np.array_equal(pixels[f"images_part_{n % 2 + 1}/{n}.png"], photo(n, 16, 16)) for n in range(4))
    assert "with the columns 'id' and 'label' in a" in first.source.description
    assert again.fingerprint == first.fingerprint and again.source.notes == first.source.notes
    assert str(tmp_path) in first.source.origin and not any("/hangtag-" in note for note in first.source.notes)


def test_the_parts_of_tables_in_an_archive_are_kept(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        f"{part}/{n}.png": picture(n + at) for at, part in ((0, "train"), (9, "test")) for n in range(4)
    }
    files |= {
        f"{part}.csv": "id,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(4)) for part in ("train", "test")
    }

    data = read(zipped(tmp_path / "x.zip", files))

    assert data.sizes() == {"train": 4, "test": 4}
    assert {name.split("/")[0] for name in data.test.names} == {"test"}


def test_a_table_that_contradicts_the_folders_of_an_archive_is_asked_about(tmp_path: Path) -> None:
    files = {f"{'ab'[n % 2]}/{n}.png": picture(n) for n in range(4)}
    table = "image,label\n" + "".join(f"{'ab'[n % 2]}/{n}.png,{'xy'[n // 2]}\n" for n in range(4))
    path = zipped(tmp_path / "x.zip", files | {"labels.csv": table})

    with pytest.raises(UsageError, match="the tables and the folders give different labels") as caught:
        read(path)
    assert "/hangtag-" not in str(caught.value)
    assert read(path, classes="top").class_names == ("a", "b")
    assert read(path, label_column="label").class_names == ("x", "y")
    with pytest.raises(UsageError, match="--label-column label does not apply"):
        read(zipped(tmp_path / "y.zip", files), label_column="label")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,label\nOUTSIDE,a\nOUTSIDE,b\nim/1.png,a\n", "which is not in the archive"),
        ("image,label\n../none/7.png,a\n../none/8.png,b\n", "2 of 2 images were not found under"),
        (
            "label," + ",".join(f"pixel{n}" for n in range(64)) + 2 * ("\n" + ",".join(["1"] * 65)),
            "in cells of a table",
        ),
        ("image,label\nim/1.png,a,b,c\n", "labels.csv: row 2 has 4 values"),
    ],
)
def test_a_table_in_an_archive_reads_nothing_else(tmp_path: Path, table: str, message: str) -> None:
    outside = tmp_path / "outside.png"
    outside.write_bytes(picture(5))
    files = {"im/1.png": picture(1), "im/2.png": picture(2), "labels.csv": table.replace("OUTSIDE", str(outside))}

    with pytest.raises(HangtagError, match=message) as caught:
        read(zipped(tmp_path / "x.zip", files))
    assert "/hangtag-" not in str(caught.value) and str(tmp_path / "x.zip") in str(caught.value)


def test_names_that_a_folder_cannot_have_do_not_hide_the_others(tmp_path: Path) -> None:
    files = shards("abab") | {
        "images_part_1": b"a file",
        "x" * 300 + ".png": picture(7),
        "images_part_2/1.png/q.png": b"",
    }

    data = read(zipped(tmp_path / "x.zip", files))

    assert sorted(data.names) == ["images_part_1/0.png", "images_part_1/2.png", "images_part_2/3.png"]
    assert [each.kind for each in data.source.skipped] == ["no such file"]


def test_labels_of_webdataset_files_are_refused_in_words(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {}
    for n in range(4):
        files |= {f"{n}.png": picture(n), f"{n}.cls": str(n % 2), f"{n}.json": '{"label": 1}'}

    with pytest.raises(DataError, match=r"the labels are in \.cls files"):
        read(tarred(tmp_path / "x.tar", files))
