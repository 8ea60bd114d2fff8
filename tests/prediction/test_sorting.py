"""Pictures in a folder for each label."""

from pathlib import Path

import numpy as np
import pytest

from hangtag.data.picture_list import PictureList
from hangtag.data.store.containers import Container, Folder, Sample, Spans
from hangtag.errors import SaveError, UsageError
from hangtag.model.predictor import Answer
from hangtag.pictures import encode_png
from hangtag.prediction import sorting
from hangtag.prediction.sorting import Sorter

PNG = encode_png(np.zeros((4, 4), np.uint8))


def answer(label: str | None, sure: bool | None = True) -> Answer:
    return Answer(label, None if label is None else 0.9, (), (), "", sure=sure)


def put(sorter: Sorter, container: Container, key: object, found: Answer, name: str = "") -> str | None:
    path = sorter.put(Sample(name or str(key), 0, key), container, found)
    return None if path is None else str(path.relative_to(sorter.folder))


@pytest.mark.parametrize("link", [False, True])
def test_each_label_has_a_folder_and_nothing_is_overwritten(tmp_path: Path, link: bool) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        (tmp_path / "in" / folder / "1.png").write_bytes(PNG + folder.encode())
    sorter = Sorter(tmp_path / "out", ["cat", "a/b: c", "CAT", "not sure"], link, PictureList())
    container = Folder(str(tmp_path / "in"))

    found = [put(sorter, container, f"{folder}/1.png", answer("cat")) for folder in ("a", "b")]
    found += [put(sorter, container, "c/1.png", answer(label)) for label in ("a/b: c", "CAT", "not sure")]
    found += [put(sorter, container, "a/1.png", answer("cat", False)), put(sorter, container, "a/1.png", answer(None))]

    assert found == [
        "cat/1.png", "cat/1 (2).png", "a-b- c/1.png", "CAT-2/1.png", "not sure/1.png", "not sure-2/1.png", None,
    ]  # fmt: skip
    moved = tmp_path / "out" / "cat" / "1 (2).png"
    assert moved.is_symlink() == link and moved.read_bytes() == PNG + b"b"


def test_pictures_inside_a_file_are_written_with_a_safe_name_and_their_ending(tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes(PNG + b"\xff\xd8\xff")
    sorter, spans = Sorter(tmp_path / "out", ["cat"], True, PictureList()), Spans(str(tmp_path / "all"))

    found = [
        put(sorter, spans, [0, len(PNG)], answer("cat"), "photos.parquet: row 1"),
        put(sorter, spans, [len(PNG), 3], answer("cat"), "a.zip/deep/.."),
    ]

    assert found == ["cat/photos.parquet- row 1.png", "cat/image.jpg"]
    assert (tmp_path / "out" / str(found[0])).read_bytes() == PNG


def test_a_folder_with_files_is_refused_and_a_full_disk_is_found_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1.png").write_bytes(PNG)
    pictures = PictureList([Sample("1.png", 0, "1.png")], [Folder(str(tmp_path))])
    with pytest.raises(UsageError, match="is not an empty folder"):
        Sorter(tmp_path, ["cat"], False, pictures)
    usage = sorting.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(sorting.shutil, "disk_usage", lambda _: usage._replace(free=10))

    with pytest.raises(SaveError, match="the copies take") as found:
        Sorter(tmp_path / "out", ["cat"], False, pictures)

    assert "--link" in found.value.hint
    Sorter(tmp_path / "linked", ["cat"], True, pictures)  # links take no room


def test_labels_and_files_of_any_name_have_a_place_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes(PNG)
    names = ["../x", "..", "", "CON", "con", "nul.txt", "x" * 300, "x" * 301, "日" * 200, "/etc/passwd", "\n"]
    sorter, spans = Sorter(tmp_path / "out", names, False, PictureList()), Spans(str(tmp_path / "all"))

    found = {put(sorter, spans, [0, len(PNG)], answer(name), "n" * 400 + ".png") for name in names for _ in range(3)}

    files = {str(path.relative_to(sorter.folder)) for path in sorter.folder.glob("*/*.png")}
    assert found == files and len(files) == 3 * len(names)
    reserved = {path.split("/")[0].partition(".")[0].lower() for path in files} & {"con", "nul"}
    assert not reserved
