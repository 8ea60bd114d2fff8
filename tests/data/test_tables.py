"""Tables as people write them: the right split, labels and files, or a question; nothing is dropped in silence."""

import csv
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from hangtag.data import read as reading
from hangtag.data.manifest import Manifest, ReadOptions, from_listing
from hangtag.data.read import read
from hangtag.errors import DataError, HangtagError, UnknownName, UsageError
from pictures import encoded, photo

PICTURE = encoded(Image.fromarray(photo(0, 8, 8)), "x.png")
List = Callable[..., Manifest]


@pytest.fixture
def listing(monkeypatch: pytest.MonkeyPatch) -> List:
    """Reads everything but the pictures."""
    monkeypatch.setattr(reading, "_read_manifest", lambda manifest, origin, options: manifest)

    def listed(path: Path, stamp: str, listing: Callable[[], Any], kind: str, options: ReadOptions) -> Manifest:
        container, files = listing()
        manifest = from_listing(container, files, path, options, kind)
        manifest.notes += reading._notes_on_tables(files, "unpack the archive and name it" if kind else "name it")
        return manifest

    monkeypatch.setattr(reading, "_read_listing", listed)
    return lambda what, **options: reading._read(what, None, ReadOptions(**options))


def files(root: Path, *names: str) -> Path:
    """A folder with a small picture, a different one, at each of these paths."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PICTURE)
    return root


def table(path: Path, head: str, rows: Sequence[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def split_table(root: Path, column: str, values: Sequence[object]) -> Path:
    """A table of small pictures, two classes, and this column."""
    files(root, *(f"{row}.png" for row in range(len(values))))
    rows = [f"{row}.png,{'ab'[row % 2]},{value}" for row, value in enumerate(values)]
    return table(root / "a.csv", f"image,label,{column}", rows)


def parts_of(manifest: Manifest) -> dict[str | None, int]:
    return {part: manifest.parts.count(part) for part in dict.fromkeys(manifest.parts)}


def said(manifest: Manifest) -> str:
    return "\n".join(manifest.notes)


def refused(act: Callable[..., Any], *what: Any, **options: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        act(*what, **options)
    assert caught.value.hint
    return caught.value


THREE = {"train": 2, "validation": 1, "test": 1}

# --- the split -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "values", "parts", "says"),
    [
        ("phase", ["train"] * 4 + ["test"] * 2, {"train": 4, "test": 2}, "'phase' gives the split: 4 train, 2 test"),
        ("data set", ["train", "train", "valid", "test"], THREE, "1 validation (valid)"),
        ("anything", ["TRAIN", "Train", "Holdout", "dev"], {"train": 2, "test": 1, "validation": 1}, "(Holdout)"),
        ("Usage", ["Training", "Training", "PublicTest", "PrivateTest"], THREE, "(PublicTest)"),
        ("set", ["train_set", "train_set", "test_set", "test_set"], {"train": 2, "test": 2}, "'set'"),
        ("part", ["train", "train", "eval", "test"], THREE, "(eval)"),
        ("part", ["train", "train", "eval", "eval"], {"train": 2, "test": 2}, "(eval)"),
        ("is_valid", [False, False, True, True], {"train": 2, "validation": 2}, "'is_valid'"),
        ("is_test", ["no", "no", "yes", "yes"], {"train": 2, "test": 2}, "'is_test'"),
        ("is_training_image", [1, 1, 0, 0], {"train": 2, "test": 2}, "'is_training_image'"),
        ("isTrain", ["1.0", "1.0", "0.0", "0.0"], {"train": 2, "test": 2}, "'isTrain'"),
        ("is_train,is_valid", ["1,0", "1,0", "0,1", "0,0"], THREE, "'is_train' and 'is_valid'"),
        ("is_val,is_test", ["0,0", "0,0", "1,0", "0,1"], THREE, "'is_val' and 'is_test'"),
    ],
)  # fmt: skip
def test_a_column_gives_the_split_whatever_its_convention(
    column: str, values: list[object], parts: dict[str, int], says: str, tmp_path: Path, listing: List
) -> None:
    manifest = listing(split_table(tmp_path, column, values))

    assert parts_of(manifest) == parts
    assert says in said(manifest) and "--split-column none" in said(manifest)
    assert parts_of(listing(tmp_path / "a.csv", split_column="none")) == {None: len(values)}


@pytest.mark.parametrize(
    ("name", "column", "values", "parts", "says"),
    [
        ("train", "is_valid", [0, 0, 1, 1], {"train": 2, "validation": 2}, ""),
        ("train", "split", ["train", "train", "test", "test"], {"train": 2, "test": 2}, ""),
        ("is_test", "is_test", [0, 0, 0, 1], {"test": 4}, "named after test, so 3 images of earlier parts became test"),
        ("val", "phase", ["train", "train", "val", "test"], {"validation": 3, "test": 1}, "so 2 images of earlier"),
    ],
)
def test_where_the_name_of_a_table_and_its_column_differ_the_later_part_counts_and_a_note_says_so(
    name: str, column: str, values: list[object], parts: dict[str, int], says: str, tmp_path: Path, listing: List
) -> None:
    path = split_table(tmp_path, column, values).rename(tmp_path / f"{name}.csv")

    manifest = listing(path)

    assert parts_of(manifest) == parts
    assert says in said(manifest) and ("is named after" in said(manifest)) is bool(says)
    if says:
        assert parts_of(listing(path, split_column=column)) != parts


@pytest.mark.parametrize("value", ["extra", "", "trainval_test", "unlabeled"])
def test_rows_that_belong_to_no_known_part_are_left_out_and_said(value: str, tmp_path: Path, listing: List) -> None:
    path = split_table(tmp_path, "split", ["train"] * 4 + ["test"] * 2 + [value] * 3)

    manifest = listing(path)

    assert parts_of(manifest) == {"train": 4, "test": 2}
    assert f"3 images left out: their values ({value or 'blank'}) name no part" in said(manifest)


@pytest.mark.parametrize(
    ("column", "values"),
    [("split", "aabb"), ("partition", "0012"), ("subset", ["s1", "s1", "s2", "s2"]), ("train_test", "0011")],
)
def test_a_split_that_is_not_understood_is_asked_about(
    column: str, values: Sequence[str], tmp_path: Path, listing: List
) -> None:
    path = split_table(tmp_path, column, values)

    error = refused(listing, path)

    assert (
        isinstance(error, UsageError) and f"does the column '{column}' give a split? (--split-column)" in error.message
    )
    assert parts_of(listing(path, choose=lambda question, answers: answers[-1][0]))["test"] >= 1
    assert parts_of(listing(path, split_column="none")) == {None: 4}


@pytest.mark.parametrize(("column", "part"), [("valid", "validation"), ("test", "test"), ("train", "train")])
def test_a_flag_that_is_only_named_like_a_part_is_asked_about(
    column: str, part: str, tmp_path: Path, listing: List
) -> None:
    path = split_table(tmp_path, column, [True, True, False, False])

    assert f"does the column '{column}' give the split?" in refused(listing, path).message
    assert parts_of(listing(path, split_column=column))[part] == 2
    assert parts_of(listing(path, split_column="none")) == {None: 4}


def test_the_numbers_of_folds_are_no_split_and_said(tmp_path: Path, listing: List) -> None:
    path = split_table(tmp_path, "fold", [0, 1, 2, 0, 1, 2])

    assert parts_of(listing(path)) == {None: 6}
    assert "the column 'fold' (0, 1, 2) was not used as a split" in said(listing(path))
    assert parts_of(listing(path, split_column="fold=2")) == {"train": 4, "test": 2}
    assert parts_of(listing(path, split_column="fold=1,2")) == {"test": 4, "train": 2}
    assert parts_of(listing(path, split_column="fold")) == {"train": 2, "validation": 2, "test": 2}  # 0, 1, 2
    assert isinstance(refused(listing, path, split_column="fold=7"), UnknownName)
    assert isinstance(refused(listing, path, split_column="fodl"), UnknownName)
    assert "name no parts: a, b" in refused(listing, path, split_column="label").message


def test_two_columns_that_divide_differently_are_asked_about(tmp_path: Path, listing: List) -> None:
    path = split_table(tmp_path, "split,phase,is_test", ["train,train,0", "train,test,0", "test,test,1", "test,test,1"])

    error = refused(listing, path)

    assert (
        "which column gives the split?" in error.message and "'split'" in error.message and "'phase'" in error.message
    )
    assert parts_of(listing(path, split_column="phase")) == {"train": 1, "test": 3}
    assert parts_of(listing(path, split_column="is_test")) == {"train": 2, "test": 2}


def test_folders_in_the_paths_give_the_split_if_no_column_does(tmp_path: Path, listing: List) -> None:
    names = [f"{part}/{row}.png" for part in ("train", "test") for row in range(4)]
    files(tmp_path, *names, "more/1.png")
    rows = [f"{name},{'ab'[row % 2]}" for row, name in enumerate(names)]
    only_test = [f"{name},{'ab'[row % 2]}" for row, name in enumerate([*names[4:], "more/1.png"])]

    assert parts_of(listing(table(tmp_path / "metadata.csv", "file_name,label", rows))) == {"train": 4, "test": 4}
    assert "the folders in the column 'file_name' give the split" in said(listing(tmp_path / "metadata.csv"))
    assert parts_of(listing(tmp_path)) == {"train": 4, "test": 4}
    manifest = listing(table(tmp_path / "b.csv", "file_name,label", only_test))
    assert parts_of(manifest) == {None: 5} and "are in a folder named like the test part" in said(manifest)


# --- several tables --------------------------------------------------------------------------------------------


def two_tables(root: Path, train: str, test: str, head: str = "image,label") -> Path:
    files(root, *(f"images/{row}.png" for row in range(6)))
    table(root / train, head, [f"{row}.png,{'ab'[row % 2]}" for row in range(4)])
    if head == "image,label":
        table(root / test, head, [f"{row}.png,{'ab'[row % 2]}" for row in (4, 5)])
    return root


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train.csv", "test.csv"),
        ("train_labels.csv", "labels_test.csv"),
        ("trainLabels.csv", "testLabels.csv"),
        ("Training_GroundTruth.csv", "Test_GroundTruth.csv"),
        ("tables/train.csv", "tables/test.csv"),
        ("train/metadata.csv", "test/metadata.csv"),
    ],
)
def test_tables_beside_each_other_are_parts(train: str, test: str, tmp_path: Path, listing: List) -> None:
    manifest = listing(two_tables(tmp_path, train, test))

    assert parts_of(manifest) == {"train": 4, "test": 2}
    assert "give the split: 4 train, 2 test" in said(manifest)
    assert [each.name for each in manifest.wanted] == [f"images/{row}.png" for row in range(6)]


def test_one_of_several_tables_is_read_alone_if_it_is_named_and_the_others_are_said(
    tmp_path: Path, listing: List
) -> None:
    root = two_tables(tmp_path, "train.csv", "test.csv")

    assert parts_of(listing(root / "train.csv")) == {None: 4}
    assert "test.csv was not read" in said(listing(root / "train.csv"))
    assert parts_of(listing(root / "test.csv")) == {"test": 2}


def test_a_test_table_without_labels_is_left_out_and_said(tmp_path: Path, listing: List) -> None:
    root = two_tables(tmp_path, "train.csv", "test.csv")
    table(root / "sample_submission.csv", "image,label", ["4.png,a", "5.png,a"])
    for rows, head in ((["4.png", "5.png"], "image"), (["4.png,", "5.png,"], "image,label")):
        table(root / "test.csv", head, rows)

        manifest = listing(root)

        assert parts_of(manifest) == {"train": 4}
        assert "test.csv has no labels: 2 images left out" in said(manifest)


def test_a_training_table_without_labels_is_refused(tmp_path: Path, listing: List) -> None:
    root = two_tables(tmp_path, "train.csv", "test.csv")
    table(root / "train.csv", "image,width", [f"{row}.png,{row}" for row in range(4)])

    assert "train.csv: no column contains labels" in refused(listing, root).message


def test_pictures_of_one_name_in_the_folders_of_the_parts_are_told_apart(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{part}/{row}.png" for part in ("train", "test") for row in range(3)))
    for part, labels in (("train", "aba"), ("test", "bab")):
        table(tmp_path / f"{part}.csv", "id,label", [f"{row},{label}" for row, label in enumerate(labels)])

    manifest = listing(tmp_path)

    assert [(each.name, label) for each, label in zip(manifest.wanted, manifest.labels, strict=True)] == [
        ("train/0.png", "a"), ("train/1.png", "b"), ("train/2.png", "a"),
        ("test/0.png", "b"), ("test/1.png", "a"), ("test/2.png", "b"),
    ]  # fmt: skip


def test_metadata_in_the_folder_of_each_part(tmp_path: Path, listing: List) -> None:
    for part in ("train", "validation"):
        files(tmp_path / part, *(f"{row}.png" for row in range(4)))
        lines = [json.dumps({"file_name": f"{row}.png", "label": "ab"[row % 2]}) for row in range(4)]
        (tmp_path / part / "metadata.jsonl").write_text("\n".join(lines))

    manifest = listing(tmp_path)

    assert parts_of(manifest) == {"train": 4, "validation": 4}
    assert len({each.name for each in manifest.wanted}) == 8


def test_class_folders_and_a_table_that_says_the_same(tmp_path: Path, listing: List) -> None:
    names = [f"{label}/{row}.png" for label in ("cat", "dog") for row in range(3)]
    files(tmp_path, *names)
    table(tmp_path / "labels.csv", "path,label", [f"{name},{name[:3]}" for name in names])
    assert "labels.csv was not read" in said(listing(tmp_path)) and "folder per class" in listing(tmp_path).kind

    table(
        tmp_path / "labels.csv", "path,label,split", [f"{n},{n[:3]},{'test' if '2' in n else 'train'}" for n in names]
    )
    assert parts_of(listing(tmp_path)) == {"train": 4, "test": 2}
    assert parts_of(listing(tmp_path, classes="top")) == {None: 6}


def test_class_folders_and_a_table_that_says_something_else_are_asked_about(tmp_path: Path, listing: List) -> None:
    names = [f"{label}/{row}.png" for label in ("north", "south") for row in range(4)]
    files(tmp_path, *names)
    table(tmp_path / "labels.csv", "path,label", [f"{name},{'ab'[row % 2]}" for row, name in enumerate(names)])

    assert "the tables and the folders give different labels" in refused(listing, tmp_path).message
    assert set(listing(tmp_path, classes="top").labels) == {"north", "south"}
    assert set(listing(tmp_path, label_column="label").labels) == {"a", "b"}
    assert set(listing(tmp_path / "labels.csv").labels) == {"a", "b"}


def test_a_table_that_gives_only_the_split_of_class_folders(tmp_path: Path, listing: List) -> None:
    names = [f"{label}/{row}.png" for label in ("cat", "dog") for row in range(3)]
    files(tmp_path, *names)
    table(tmp_path / "splits.csv", "path,split", [f"{name},{'test' if '2' in name else 'train'}" for name in names])

    manifest = listing(tmp_path)

    assert (parts_of(manifest), set(manifest.labels)) == ({"train": 4, "test": 2}, {"cat", "dog"})
    assert "the folders of its images are the classes" in said(manifest)


@pytest.mark.parametrize(
    "name", ["train_test_split.txt", "meta/train.txt", "one-indexed-files_test.txt", "set/folds.csv"]
)
def test_lists_of_a_split_beside_class_folders_are_said(name: str, tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"images/{label}/{row}.png" for label in ("cat", "dog") for row in range(3)))
    table(tmp_path / name, "1 1", ["2 0"])
    table(tmp_path / "images" / "cat" / "notes.txt", "x", [])

    assert f"{name}: a split may be listed there, which was not read" in said(listing(tmp_path))


def test_tables_of_each_class_are_no_second_reading(tmp_path: Path, listing: List) -> None:
    for part in ("train", "test"):
        for label in ("cat", "dog"):
            files(tmp_path, f"{part}/{label}/1.png", f"{part}/{label}/2.png")
            table(tmp_path / part / label / "metadata.csv", "file_name,weight", ["1.png,0.5", "2.png,1.5"])

    assert listing(tmp_path).labels == ["cat", "cat", "dog", "dog"] * 2


# --- Parquet as dataset hubs write it --------------------------------------------------------------------------


def parquet(path: Path, labels: Sequence[int] | None, names: Sequence[str] = ("cat", "dog"), count: int = 4) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {"image": [{"bytes": PICTURE, "path": f"{row}.png"} for row in range(count)]}
    if labels is not None:
        columns["label"] = labels
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "data/{}-00000-of-00001.parquet",
        "plain_text/{}-00000-of-00001.parquet",
        "default/{}/0000.parquet",
        "default/cifar10-{}.parquet",
    ],
)
def test_the_folders_of_a_dataset_hub(name: str, tmp_path: Path, listing: List) -> None:
    parquet(tmp_path / name.format("train"), [0, 1, 1, 0])
    parquet(tmp_path / name.format("test"), [-1] * 4)
    parquet(tmp_path / name.format("extra"), [0, 1, 1, 0])

    manifest = listing(tmp_path)

    assert (parts_of(manifest), manifest.labels) == ({"train": 4}, ["cat", "dog", "dog", "cat"])
    assert "has no labels: 4 images left out" in said(manifest)
    assert "4 images left out, because the table's name does not name a part" in said(manifest)


def test_a_label_of_minus_one_means_none_in_every_table_of_a_set(tmp_path: Path, listing: List) -> None:
    """The test part alone, with -1 and 1, would look like two classes."""
    for part, labels in (("train", [0, 1, 2, 0]), ("test", [1, -1, 1, 1])):
        columns: dict[str, Any] = {"image": [{"bytes": PICTURE, "path": "x.png"} for _ in labels], "label": labels}
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / f"{part}.parquet")

    manifest = listing(tmp_path)

    assert manifest.labels == ["0", "1", "2", "0", "1", "1", "1"]
    assert [each.kind for each in manifest.skipped] == ["no label"]


def test_a_missing_file_of_a_numbered_set_is_said(tmp_path: Path, listing: List) -> None:
    for number in (0, 2):
        parquet(tmp_path / f"data/train-0000{number}-of-00003.parquet", [0, 1, 1, 0])
    parquet(tmp_path / "data/test-00000-of-00001.parquet", [0, 1, 1, 0])

    assert "1 file of the dataset missing: data/train-00001-of-00003.parquet" in said(listing(tmp_path))
    parquet(tmp_path / "data/train-00001-of-00003.parquet", [0, 1, 1, 0])
    assert "missing" not in said(listing(tmp_path))


def test_pictures_beside_parquet_files_are_read_by_their_paths(tmp_path: Path, listing: List) -> None:
    files(tmp_path, "p/0.png", "p/1.png")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": None, "path": f"p/{row}.png"} for row in (0, 1)], kind)
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": ["a", "b"]}), tmp_path / "train.parquet")

    assert [each.name for each in listing(tmp_path / "train.parquet").wanted] == ["p/0.png", "p/1.png"]


def test_configurations_of_a_dataset_hub_are_asked_about(tmp_path: Path, listing: List) -> None:
    for config in ("small", "large"):
        parquet(tmp_path / config / "train-00000-of-00001.parquet", [0, 1, 1, 0])

    assert "contains several tables" in refused(listing, tmp_path).message
    assert parts_of(listing(tmp_path / "small")) == {"train": 4}


def test_parquet_files_must_agree_on_the_names_of_their_classes(tmp_path: Path, listing: List) -> None:
    parquet(tmp_path / "train-0.parquet", [0, 1, 1, 0])
    parquet(tmp_path / "test-0.parquet", [0, 1, 1, 0], ("dog", "cat"))
    assert "class names differ" in refused(listing, tmp_path).message

    parquet(tmp_path / "test-0.parquet", [0, 1, 1, 2])
    assert "label 2 in column label is not one of its 2 class names" in refused(listing, tmp_path).message


def test_a_label_of_minus_one_is_none_in_parquet_that_numbers_its_classes_from_zero(
    tmp_path: Path, listing: List
) -> None:
    for labels, kept in (([0, 1, -1, 0], ["0", "1", "0"]), ([-1, 1, -1, 1], ["-1", "1", "-1", "1"])):
        columns = {"image": [PICTURE] * 4, "label": labels}
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")

        assert listing(tmp_path / "a.parquet").labels == kept


# --- labels ----------------------------------------------------------------------------------------------------


def test_a_column_for_each_class(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{row}.png" for row in range(4)))
    rows = ["0.png,1.0,0.0,0.0", "1.png,0.0,1.0,0.0", "2.png,0.0,0.0,1.0", "3.png,1.0,0.0,0.0"]
    path = table(tmp_path / "a.csv", "image,MEL,NV,BCC", rows)
    assert listing(path).labels == ["MEL", "NV", "BCC", "MEL"]
    assert "the columns MEL, NV, BCC are one class each" in said(listing(path))

    table(path, "image, MEL, NV, BCC", [*rows[:3], "3.png,1.0,1.0,0.0"])
    assert "which column contains the labels?" in refused(listing, path).message
    assert "row 4 has 2 classes: MEL and NV" in refused(listing, path, label_column="MEL,NV,BCC").message

    table(path, "image,kind,MEL,NV,BCC", [f"{row[:6]}{'xy'[int(row[0]) % 2]},{row[6:]}" for row in rows])
    assert "which columns contain the labels?" in refused(listing, path).message
    assert listing(path, label_column="kind").labels == ["x", "y", "x", "y"]


def test_a_label_of_minus_one_is_none_only_where_the_test_part_hides_its_labels(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{row}.png" for row in range(6)))
    parts = ["train"] * 4 + ["test"] * 2
    for labels, left in (([0, 1, 0, 1, -1, -1], {"train": 4}), ([-1, 1, -1, 1, -1, 1], {"train": 4, "test": 2})):
        rows = [f"{row}.png,{label},{part}" for row, (label, part) in enumerate(zip(labels, parts, strict=True))]
        manifest = listing(table(tmp_path / "a.csv", "image,label,split", rows))
        assert parts_of(manifest) == left
        assert ("the test part has no labels: 2 images left out" in said(manifest)) == ("test" not in left)
        assert manifest.skipped == []


def test_columns_that_are_not_used_are_said(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{kind}{row}.png" for kind in "im" for row in range(6)))
    rows = [f"i{row}.png,m{row}.png,{'ab'[row % 2]},{row % 2},p{row // 2},{'fm'[row // 3]}" for row in range(6)]
    path = table(tmp_path / "a.csv", "image,mask,label,number,patient_id,sex", rows)

    notes = said(listing(path))

    assert "the column 'patient_id' may name groups (3 in 6 images)" in notes
    assert "columns not used: mask, sex" in notes  # the column "number" says what the label says
    assert "patient_id" not in said(listing(path, group_by="patient_id"))


def test_a_column_that_names_groups_is_not_preferred_to_one_of_labels(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{row}.png" for row in range(4)))
    path = table(tmp_path / "a.csv", "file|ill|patient", [f"{row}.png|{row % 2}|p{row % 2}" for row in range(4)])

    assert listing(path).labels == ["0", "1", "0", "1"]


def test_a_blank_is_a_group_of_its_own(tmp_path: Path, listing: List) -> None:
    path = split_table(tmp_path, "patient", ["p1", "p1", "", " ", "nan", "N/A", "p2", ""])

    groups = listing(path, group_by="patient").groups

    assert groups is not None and len(set(groups)) == 7 and groups[0] == groups[1] == "p1"
    by_name = listing(path, group_by=r"^([0-3])?\.?").groups  # a group that matches nothing
    assert by_name is not None and len(set(by_name)) == 8


@pytest.mark.parametrize("given", [None, "patient"])
def test_groups_that_the_data_has_in_several_parts_are_said(tmp_path: Path, listing: List, given: str | None) -> None:
    path = split_table(tmp_path, "split", ["train", "test", "train", "test", "train", "test"])
    text = path.read_text().splitlines()
    path.write_text(
        "\n".join([f"{text[0]},patient", *(f"{row},{who}" for row, who in zip(text[1:], "ppqq r", strict=True))])
    )

    notes = said(listing(path, group_by=given))

    expected = "2 groups of patient are in several parts of the data: p, q" if given else "5 images; 2 in several parts"
    assert expected in notes


def test_labels_that_are_amounts_are_refused(tmp_path: Path, listing: List) -> None:
    path = tmp_path / "t.csv"
    files(tmp_path, *(f"{n}.png" for n in range(12)))

    def labelled(label: Callable[[int], object], head: str = "label") -> Path:
        path.write_text(f"image;{head}\n" + "".join(f"{n}.png;{label(n)}\n" for n in range(12)))
        return path

    for amounts in (lambda n: 0.37 * n, lambda n: f"{n},5", lambda n: f"{n}e-3", lambda n: "nan" if n < 3 else n / 7):
        assert "labels in column label are amounts" in refused(listing, labelled(amounts)).message
    assert set(listing(labelled(lambda n: n % 3 / 2)).labels) == {"0.0", "0.5", "1.0"}  # sizes
    assert set(listing(labelled(lambda n: n // 2)).labels) == set("012345")
    soft = labelled(lambda n: f"{n % 3 / 2};{1 - n % 3 / 2}", "cat;dog")  # probabilities
    assert "no column contains labels" in refused(listing, soft).message


def test_lists_of_one_label_are_labels_and_lists_of_several_are_refused(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{n}.png" for n in range(1, 4 + 1)))
    path = tmp_path / "t.jsonl"
    labels: list[list[str]] = [["a"], ["b"], ["a"], []]
    rows = [{"image": f"{n}.png", "labels": label} for n, label in enumerate(labels, 1)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert listing(path).labels == ["a", "b", "a"]

    rows[3]["labels"] = ["a", "b"]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert "1 row of column labels has several labels, such as ['a', 'b']" in refused(listing, path).message


def test_a_json_file_may_give_a_label_to_each_name_and_coco_is_refused_in_words(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{n}.png" for n in range(4)))
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({f"{n}.png": "ab"[n % 2] for n in range(4)}))
    assert listing(path).labels == ["a", "b", "a", "b"]
    path.write_text(json.dumps({"1": "rose", "2": "tulip"}))  # names of classes
    assert "not a list of objects" in refused(listing, path).message

    path.write_text(json.dumps({"images": [{"id": 1}], "annotations": [{"image_id": 1, "bbox": [0, 0, 1, 1]}]}))
    assert "annotations of objects in images (COCO)" in refused(listing, path).message


def test_boxes_are_said_to_be_unused(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{n}.png" for n in range(1, 4 + 1)))
    path = tmp_path / "t.csv"
    path.write_text(
        "filename,class,xmin,ymin,xmax,ymax\n" + "".join(f"{n}.png,{'ab'[n % 2]},{n},2,3,4\n" for n in (1, 2, 3, 4))
    )
    assert "xmin, ymin, xmax and ymax are not used: the whole image is learned" in said(listing(path))
    path.write_text("filename,class,x1\n" + "".join(f"{n}.png,{'ab'[n % 2]},{n}\n" for n in (1, 2, 3, 4)))
    assert "box" not in said(listing(path))


@pytest.mark.parametrize(
    ("encoding", "said"),
    [
        ("cp1252", "in Windows-1252 it says '1.png,caf\u00e9'"),
        ("utf-16-le", "it seems to be UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
    ],
)
def test_a_table_that_is_not_utf_8_says_how_to_convert_it(
    tmp_path: Path, listing: List, encoding: str, said: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("image,label\n1.png,caf\u00e9\n2.png,b\n".encode(encoding))

    error = refused(listing, path)

    assert said in error.message and "-t UTF-8 t.csv" in error.hint


def test_a_column_with_one_value_in_some_rows_is_named(tmp_path: Path, listing: List) -> None:
    assert "columns not used: site" in said(listing(split_table(tmp_path, "site", ["x", "x", "", "x"])))
    assert "site" not in said(listing(split_table(tmp_path, "site", ["x", "x", "x", "x"])))


def test_a_table_whose_separator_is_not_that_of_its_ending_is_read(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{n}.png" for n in range(1, 4 + 1)))
    path = tmp_path / "t.tsv"
    path.write_text("image,label\n" + "".join(f"{n}.png,{'ab'[n % 2]}\n" for n in (1, 2, 3, 4)))

    assert listing(path).labels == ["b", "a", "b", "a"]


def test_a_decision_is_about_every_row_of_its_picture(tmp_path: Path) -> None:
    path = split_table(tmp_path, "x", [0] * 6)
    with path.open("a") as file:
        file.write("1.png,a,0\n0.png,b,0\n")
    table(tmp_path / "decided.csv", "name,decision", ["1.png,drop", "0.png,relabel: b"])

    data = read(path, decisions=tmp_path / "decided.csv")

    assert "1.png" not in data.names
    assert [data.class_names[data.labels[row]] for row, name in enumerate(data.names) if name == "0.png"] == ["b", "b"]


# --- files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "said"), [(0, True), (50, False)])
def test_groups_in_the_tables_of_two_parts_are_said(tmp_path: Path, listing: List, first: int, said: bool) -> None:
    files(tmp_path, *(f"{number}.png" for number in range(30)))
    rows = [f"{number}.png,{'ab'[number % 2]},p{number // 2 + first * (number >= 20)}" for number in range(30)]
    rows[20] = f"20.png,a,p{first}"
    table(tmp_path / "train.csv", "image,label,patient_id", rows[:20])
    table(tmp_path / "test.csv", "image,label,patient_id", rows[20:])

    notes = " ".join(listing(tmp_path).notes)

    assert ("1 value of the column 'patient_id' is in tables of several parts: p0" in notes) == said
    assert "tables of several parts" not in " ".join(listing(tmp_path, group_by="patient_id").notes)


def test_numbers_without_the_leading_zeros_of_the_files(tmp_path: Path, listing: List) -> None:
    names = [f"images/{number:05d}.png" for number in range(12)]
    files(tmp_path, *names, "images/0010.png")
    rows = [f"{number},{'ab'[number % 2]}" for number in range(10)]

    data = listing(table(tmp_path / "labels.csv", "id,label", rows))

    assert [sample.name.rpartition("/")[2] for sample in data.wanted] == [name[7:] for name in names[:10]]
    assert any("0 was taken for images/00000.png" in note and "10 numbers" in note for note in data.notes)
    with pytest.raises(UsageError, match="several files"):  # 10 is 00010.png or 0010.png
        listing(table(tmp_path / "labels.csv", "id,label", [*rows, "10,a"]))


def test_numbers_of_classes_are_not_taken_for_the_files(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{number:05d}.png" for number in range(12)))
    rows = [f"{number:05d}.png,{number % 3}" for number in range(12)]

    data = listing(table(tmp_path / "labels.csv", "image,label", rows))

    assert data.labels == [str(number % 3) for number in range(12)]
    assert not any("leading zeros" in note for note in data.notes)


def test_names_without_ending_in_several_folders(tmp_path: Path, listing: List) -> None:
    for name in ("HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_1/I2.jpg", "HAM10000_images_part_2/I3.jpg"):
        files(tmp_path, name)
    table(tmp_path / "HAM10000_metadata.csv", "lesion_id,image_id,dx", ["L1,I1,nv", "L1,I2,bkl", "L2,I3,nv"])

    for what in (tmp_path, tmp_path / "HAM10000_metadata.csv"):
        manifest = listing(what)
        assert [each.name for each in manifest.wanted] == [
            "HAM10000_images_part_1/I1.jpg", "HAM10000_images_part_1/I2.jpg", "HAM10000_images_part_2/I3.jpg",
        ]  # fmt: skip
        assert "--group-by lesion_id" in said(manifest)


def test_of_several_files_only_those_that_fit_the_name_are_offered(tmp_path: Path, listing: List) -> None:
    files(tmp_path, "one/s0.jpg", "two/s0.jpg", *(f"rest/s{row}.jpg" for row in range(1, 4)))
    path = table(tmp_path / "labels.csv", "id,label", [f"s{row},{'ab'[row % 2]}" for row in range(4)])
    asked: list[list[str]] = []

    def choose(question: str, answers: Sequence[tuple[str, str]]) -> str:
        asked.append([answer for answer, _ in answers])
        assert len(asked) == 1
        return answers[0][0]

    names = [each.name for each in listing(path, choose=choose).wanted]
    assert sorted(asked[0]) == ["one/*.jpg", "two/*.jpg"]
    assert names == [asked[0][0].replace("*", "s0"), *(f"rest/s{row}.jpg" for row in range(1, 4))]


@pytest.mark.parametrize("cell", [lambda text: [text], lambda text: np.array([text]), lambda text: (text,)])
def test_a_list_of_one_value_in_a_cell_is_the_value(cell: Callable[[str], Any], tmp_path: Path) -> None:
    files(tmp_path, *(f"{row}.png" for row in range(8)))
    frame = pandas.DataFrame(
        {
            "image": [cell(f"{row}.png") for row in range(8)],
            "label": [cell("ab"[row % 2]) for row in range(8)],
            "split": [cell("train" if row < 6 else "test") for row in range(8)],
        }
    )
    data = read(frame, root=tmp_path)

    assert data.class_names == ("a", "b") and data.sizes() == {"train": 6, "test": 2}


@pytest.mark.parametrize("label", [{"name": "a"}, ["a", "b"], np.zeros((2, 2)), -1.5, [{"name": "a"}]])
def test_cells_that_are_not_one_label_are_an_error(label: Any, tmp_path: Path) -> None:
    files(tmp_path, *(f"{row}.png" for row in range(8)))
    values = [-1, "a", *[label] * 6]
    frame = {"image": [f"{row}.png" for row in range(8)], "label": values, "split": ["train"] * 4 + ["test"] * 4}

    with pytest.raises(DataError, match="label"):
        read(frame, root=tmp_path, label_column="label")


def test_a_table_of_another_part_may_have_lists_of_labels_or_none(tmp_path: Path) -> None:
    files(tmp_path, *(f"{row}.png" for row in range(8)))
    for part, rows in (("train", range(6)), ("test", range(6, 8))):
        lines = [json.dumps({"image": f"{row}.png", "label": ["ab"[row % 2]]}) for row in rows]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    assert read(tmp_path).sizes() == {"train": 6, "test": 2}

    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps({"image": f"{row}.png", "label": []}) for row in (6, 7)))
    assert read(tmp_path).sizes() == {"train": 6}

    (tmp_path / "test.jsonl").write_text(json.dumps({"image": "6.png", "label": ["a", "b"]}))
    with pytest.raises(DataError, match="1 row of column label has several labels"):
        read(tmp_path)


def test_a_field_can_be_as_long_as_the_pixels_of_a_large_image(tmp_path: Path, listing: List) -> None:
    before = csv.field_size_limit()
    rows = [f"{'ab'[row]},{' '.join(['100'] * 200**2)}" for row in range(2)]

    assert len(listing(table(tmp_path / "t.csv", "label,pixels", rows)).wanted) == 2
    assert csv.field_size_limit() == before


def test_any_value_of_a_column_with_many_can_be_the_test_part(tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"{row}.png" for row in range(60)))
    rows = [f"{row}.png,{'ab'[row % 2]},v{row // 2}" for row in range(60)]
    manifest = listing(table(tmp_path / "labels.csv", "image,label,video", rows), split_column="video=v28")

    assert [each.name for each, part in zip(manifest.wanted, manifest.parts, strict=True) if part == "test"] == [
        "56.png", "57.png",
    ]  # fmt: skip


@pytest.mark.parametrize("others", ["p/s{}.png", "masks/s{}.jpg", "p/old/s{}.jpg"])
def test_a_name_that_fits_several_files_is_asked_about(others: str, tmp_path: Path, listing: List) -> None:
    files(tmp_path, *(f"p/s{row}.jpg" for row in range(4)), *(others.format(row) for row in range(3)))
    path = table(tmp_path / "labels.csv", "id,label", [f"s{row},{'ab'[row % 2]}" for row in range(4)])

    assert "a name in the column 'id' fits several files" in refused(listing, path).message
    for chosen in (0, 1):
        asked: list[Sequence[tuple[str, str]]] = []
        manifest = listing(
            path, choose=lambda _, answers, at=chosen, asked=asked: asked.append(answers) or answers[at][0]
        )  # type: ignore[misc]
        assert len(asked) == 1 and asked[0][0] == ("p/*.jpg", "4 files in p with .jpg")
        endings = {each.name[-4:] for each in manifest.wanted[:3]}
        assert len(manifest.wanted) == 4 and len(endings) == 1


def test_paths_of_another_machine(tmp_path: Path, listing: List) -> None:
    names = [f"pics/{'ab'[row % 2]}/{row}.png" for row in range(6)]
    files(tmp_path / "set", *names)
    for lead, slash in (
        ("/content/drive/set/", "/"),
        ("C:\\Users\\me\\", "\\"),
        ("set/", "/"),
        ("..\\x\\", "\\"),
        ("https://a.b/", "/"),
    ):
        rows = [f"{lead}{name.replace('/', slash)},{name[5]}" for name in names]
        path = table(tmp_path / "set" / "labels.csv", "image,label", rows)
        manifest = listing(path)
        assert [each.name for each in manifest.wanted] == names
        assert "which is not here; they were found under" in said(manifest)

    path = table(tmp_path / "labels.csv", "image,label", [f"/elsewhere/{name},{name[5]}" for name in names])
    assert len(listing(path, root=tmp_path / "set").wanted) == 6


def test_backslashes_are_slashes_where_that_file_exists(tmp_path: Path, listing: List) -> None:
    files(tmp_path, "p/0.png", "p/1.png", "q\\2.png")
    path = table(tmp_path / "a.csv", "image,label", ["p\\0.png,a", ".\\p\\1.png,b", "q\\2.png,a"])

    assert [each.name for each in listing(path).wanted] == ["p/0.png", "./p/1.png", "q\\2.png"]


def test_another_folder_with_the_same_file_name_is_not_taken_for_the_missing_file(
    tmp_path: Path, listing: List
) -> None:
    files(tmp_path, *(f"cat/{row}.png" for row in range(4)), *(f"dog/{row}.png" for row in range(4)))
    rows = [*(f"/x/cat/{row}.png,cat" for row in range(4)), *(f"/x/dog/{row}.png,dog" for row in range(5))]

    manifest = listing(table(tmp_path / "a.csv", "image,label", [*rows, "/x/dog/9.png,dog"]))

    assert [each.name.split("/")[0] for each in manifest.wanted] == manifest.labels
    assert [each.name for each in manifest.skipped] == ["/x/dog/4.png", "/x/dog/9.png"]


def test_a_pipe_is_no_picture(tmp_path: Path, listing: List) -> None:
    files(tmp_path, "0.png", "1.png", "2.png")
    os.mkfifo(tmp_path / "pipe.png")
    path = table(tmp_path / "a.csv", "image,label", ["0.png,a", "1.png,b", "pipe.png,a", "/dev/zero,b", "2.png,a"])

    assert [each.name for each in listing(path).skipped] == ["pipe.png", "/dev/zero"]


def test_the_message_about_missing_files_counts_those_that_are_missing(tmp_path: Path, listing: List) -> None:
    files(tmp_path, "pics/1.png", "pics/2.png")
    path = table(tmp_path / "a.csv", "image,label", [f"pics/{row}.png,{'ab'[row % 2]}" for row in range(6)])

    assert "4 of 6 images were not found" in refused(listing, path).message
    assert "pics/0.png, pics/3.png, pics/4.png" in refused(listing, path).message
    files(tmp_path, "pics/3.png", "pics/4.png", "pics/5.png")
    assert [each.name for each in listing(path).skipped] == ["pics/0.png"]


def test_a_table_of_which_nothing_is_left(tmp_path: Path) -> None:
    files(tmp_path, "0.png", "1.png")
    path = table(tmp_path / "a.csv", "image,label", ["0.png,", "1.png,", "2.png,a", "3.png,b"])

    error = refused(read, path)

    assert isinstance(error, DataError) and f"{path}: no image is left: 2 no such file, 2 no label" in error.message


# --- pixels in cells -------------------------------------------------------------------------------------------

GREY = np.stack([photo(row, 12, 12)[..., 0] for row in range(6)])
COLOUR = np.stack([photo(row, 12, 12) for row in range(6)])


def pixel_table(names: Sequence[str], images: Any, label_last: bool = False) -> pandas.DataFrame:
    frame = pandas.DataFrame(images.reshape(len(images), -1), columns=names)
    frame.insert(len(names) if label_last else 0, "label", [0, 1, 2] * 2)
    return frame


@pytest.mark.parametrize(
    "names",
    [
        [f"pixel{number}" for number in range(144)],
        [f"pixel{number}" for number in range(1, 145)],
        [f"{row}x{column}" for row in range(1, 13) for column in range(1, 13)],
        [str(number) for number in range(144)],
    ],
)
def test_a_column_for_each_pixel(names: list[str], tmp_path: Path) -> None:
    frame = pixel_table(names, GREY)
    frame.to_csv(tmp_path / "train.csv", index=False)

    for what in (tmp_path / "train.csv", frame):
        data = read(what)
        np.testing.assert_array_equal(data.images, GREY)
        assert (data.labels.tolist(), data.class_names) == ([0, 1, 2, 0, 1, 2], ("0", "1", "2"))
    assert "144 pixels for each image were read as 12x12 grey" in " ".join(read(frame).source.notes)


def test_pixels_without_a_header_and_in_colour(tmp_path: Path) -> None:
    names = [str(number) for number in range(144)]
    pixel_table(names, GREY).to_csv(tmp_path / "a.csv", index=False, header=False)
    np.testing.assert_array_equal(read(tmp_path / "a.csv").images, GREY)

    names = [f"pixel{number:04}" for number in range(432)]
    for images in (COLOUR, COLOUR.transpose(0, 3, 1, 2)):
        pixel_table(names, images, label_last=True).to_csv(tmp_path / "b.csv", index=False)
        np.testing.assert_array_equal(read(tmp_path / "b.csv").images, COLOUR)


def test_pixels_in_one_text_with_their_usage(tmp_path: Path) -> None:
    usage = ["Training"] * 4 + ["PublicTest", "PrivateTest"]
    rows = [f"{row % 2},{' '.join(map(str, GREY[row].ravel()))},{usage[row]}" for row in range(6)]

    data = read(table(tmp_path / "fer2013.csv", "emotion,pixels,Usage", rows))

    np.testing.assert_array_equal(data.images, GREY)
    assert data.sizes() == {"train": 4, "validation": 1, "test": 1}


@pytest.mark.parametrize(
    "cell",
    ["256", "-1", "0.5", "", "x"],
)
def test_pixels_that_are_not_pixels_are_refused(cell: str, tmp_path: Path) -> None:
    names = [f"pixel{number}" for number in range(144)]
    frame = pixel_table(names, GREY).astype(str)
    frame.loc[1, "pixel7"] = cell
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert "row 3: pixels must be whole numbers" in refused(read, tmp_path / "a.csv").message

    pixel_table(names[:90], GREY.reshape(6, -1)[:, :90]).to_csv(tmp_path / "a.csv", index=False)
    assert "90 pixels for each image do not make a square" in refused(read, tmp_path / "a.csv").message


# --- tables from strangers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[1, 2]", '{"image": 1}', "nothing", "null"])
def test_json_of_any_depth_is_one_error(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)

    assert isinstance(refused(read, tmp_path / name), DataError)


def test_separators_of_lines_inside_a_text_are_text(tmp_path: Path, listing: List) -> None:
    files(tmp_path, "0.png", "1.png")
    lines = [json.dumps({"image": f"{row}.png", "label": f"a\u2028b\x85{row}"}, ensure_ascii=False) for row in (0, 1)]
    (tmp_path / "a.jsonl").write_text("\r\n".join(lines), encoding="utf-8", newline="")

    assert listing(tmp_path / "a.jsonl").labels == ["a\u2028b\x850", "a\u2028b\x851"]


def test_tables_that_would_grow_beyond_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.data.tables._MOST_CELLS", 1000)
    monkeypatch.setattr("hangtag.data.tables._LONGEST_LINE", 1000)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({f"k{row}": 1}) for row in range(100)))
    table(tmp_path / "a.csv", ",".join(f"c{place}_" for place in range(100)), ["x"] * 100)
    (tmp_path / "b.csv").write_text("a,b\n" + "," * 2000)
    pyarrow.parquet.write_table(pyarrow.table({"image": ["x.png"] * 2000, "label": [0] * 2000}), tmp_path / "a.parquet")

    assert "over 1,000 cells" in refused(read, tmp_path / "a.jsonl").message
    assert "over 1,000 cells" in refused(read, tmp_path / "a.csv").message
    assert "a line has over 1,000 characters" in refused(read, tmp_path / "b.csv").message
    assert "are too many" in refused(read, tmp_path / "a.parquet").message


def test_frames_that_are_not_tables_are_one_error() -> None:
    two = pandas.DataFrame([["a.png", "x", "y"]], columns=["image", "label", "label"])

    assert refused(read, two).message == "the frame: two columns are named label"
    assert "label has 1 values, image has 2" in refused(read, {"image": ["a.png", "b.png"], "label": ["x"]}).message
    assert "image is not a column" in refused(read, {"image": "a.png", "label": "x"}).message
    assert "image is not a column" in refused(read, {"image": 3, "label": [1]}).message
    assert "has no rows" in refused(read, {}).message


def test_a_frame_of_arrow_and_json_of_columns_are_tables(tmp_path: Path, listing: List) -> None:
    columns = {"image": ["0.png", "1.png"], "label": ["a", "b"]}
    files(tmp_path, *columns["image"])
    by_row = {name: {str(row): value for row, value in enumerate(values)} for name, values in columns.items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for content in (columns, by_row, rows, dict(zip("xy", rows, strict=True))):
        (tmp_path / "a.json").write_text(json.dumps(content))
        assert listing(tmp_path / "a.json").labels == ["a", "b"]
    assert listing(pyarrow.table(columns), root=tmp_path).labels == ["a", "b"]
    assert listing(table(tmp_path / "a.csv", "sep=;", ["image;label", "0.png;a,1", "1.png;b"])).labels == ["a,1", "b"]


def test_a_table_in_utf_16_is_read(tmp_path: Path, listing: List) -> None:
    files(tmp_path, "0.png", "1.png")
    (tmp_path / "a.csv").write_text("image\tlabel\n0.png\tä\n1.png\tb\n", encoding="utf-16")

    assert listing(tmp_path / "a.csv").labels == ["ä", "b"]
