"""What notes say about data that was read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag import read
from pictures import encoded, photo


def tree(root: Path, **files: int) -> Path:
    """Files with the picture of this number each; __ stands for / in a name."""
    for name, number in files.items():
        path = root / f"{name.replace('__', '/')}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(photo(number, 16, 16)), "x.png"))
    return root


@pytest.mark.parametrize(
    ("files", "notes"),
    [
        ({"train__a__1": 1, "train__b__2": 2, "test__a__3": 3, "test__a__4": 3}, []),
        (
            {"train__a__1": 1, "train__b__2": 2, "test__a__3": 1, "test__b__4": 4},
            ["one image is in several parts: train/a/1.png, test/a/3.png; hangtag audit lists them"],
        ),
        (
            {"a__1": 1, "b__2": 2, "b__3": 1, "c__4": 2, "c__5": 5},
            ["2 images are each in several classes: a/1.png, b/3.png; hangtag audit lists them"],
        ),
    ],
)
def test_equal_files_in_several_parts_or_classes_are_said(
    tmp_path: Path, files: dict[str, int], notes: list[str]
) -> None:
    assert [note for note in read(tree(tmp_path / "x", **files)).source.notes if "several" in note] == notes


def test_one_picture_in_several_rows_is_said(tmp_path: Path) -> None:
    tree(tmp_path, a1=1, a2=2, a3=3)
    table = tmp_path / "t.csv"
    table.write_text(
        "image,label,split\na1.png,x,train\na2.png,y,train\na3.png,x,train\na1.png,y,train\na2.png,y,test\n"
    )

    assert [note for note in read(table).source.notes if "several" in note] == [
        "one image is in several classes: a1.png; hangtag audit lists them",
        "one image is in several parts: a2.png; hangtag audit lists them",
    ]


def test_equal_images_in_arrays_are_said() -> None:
    images = np.stack([photo(number, 16, 16) for number in range(8)])
    labels = np.arange(8) % 2

    assert read(((images[:4], labels[:4]), (images[4:], labels[4:]))).source.notes == ()
    notes = read(((images, labels), (images[:3], labels[:3].tolist()))).source.notes
    assert notes == ("3 images are each in several parts; hangtag audit lists them",)
