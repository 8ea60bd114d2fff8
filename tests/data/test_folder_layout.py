"""Folders and file names say classes and parts, and what is not used is said; what hangtag wrote is never data."""

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hangtag.data.folder_layout import Layout, layout_of, refuse
from hangtag.data.parts import part_of_folder
from hangtag.data.read import read
from hangtag.errors import DataError, HangtagError, UsageError
from hangtag.files import MARKER, make_own_folder, mark_loose
from pictures import encoded, photo


def names(*folders: str, each: int = 3) -> list[str]:
    return [f"{folder}/{number}.png".lstrip("/") for folder in folders for number in range(each)]


def found(layout: Layout) -> set[str]:
    """The class and part of the pictures that are used, as text."""
    pairs = zip(layout.labels, layout.parts, strict=True)
    return {f"{part or '-'} {label}" for label, part in pairs if label is not None}


def refused(*what: Any, **options: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        layout_of(*what, "set", refuse, **options)
    return caught.value


def tree(root: Path, *files: str) -> Path:
    for number, name in enumerate(files):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(photo(number, 16, 16)), "x.png"))
    return root


SPLIT = {"train a", "train b", "test a"}


@pytest.mark.parametrize(
    ("folders", "classes_and_parts"),
    [
        (["training_set/a", "training_set/b", "test_set/a"], SPLIT),
        (["seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a"], SPLIT),
        (["Train/a", "Train/b", "TEST/a"], SPLIT),
        (["train_images/a", "train_images/b", "test_images/a"], SPLIT),
        (["train/images/a", "train/images/b", "test/images/a"], SPLIT),
        (["train/a/images", "train/b/images", "test/a/images"], SPLIT),
        (["a/train", "b/train", "a/test"], SPLIT),
        (["set/data/train/a", "set/data/train/b", "set/data/test/a"], SPLIT),
        (["data/train/a", "data/train/b", "test/a"], SPLIT),
        (["one/train/a", "one/train/b", "two/test/a"], SPLIT),
        (["train/a", "train/b", "valid/a"], {"train a", "train b", "validation a"}),
        (["TrainSet/a", "TestImages/b"], {"train a", "test b"}),
        (["train/a", "dev/b"], {"train a", "validation b"}),
        (["train2017/a", "train2017/b", "val2017/a"], {"train a", "train b", "validation a"}),
        (["train/car", "train/train", "test/train"], {"train car", "train train", "test train"}),
        (["car", "plane", "train"], {"- car", "- plane", "- train"}),
        (
            ["pets_train/pets_train/a", "pets_train/pets_train/b", "pets_test/pets_test/a"],
            {"train a", "train b", "test a"},
        ),
        (["valid", "invalid"], {"- valid", "- invalid"}),
        (["training shoes", "test tubes"], {"- training shoes", "- test tubes"}),
        ([".net", "-1", "+", "_other"], {"- .net", "- -1", "- +", "- _other"}),
        (["cat/images", "dog/images"], {"- cat", "- dog"}),
        (["a", "a/x", "b"], {"- a", "- b"}),
        (["cafe\u0301s/Tra\u0301in/a", "cafe\u0301s/Tra\u0301in/b"], {"- a", "- b"}),
    ],
)
def test_folders_say_classes_and_parts(folders: list[str], classes_and_parts: set[str]) -> None:
    assert found(layout_of(names(*folders), "set", refuse)) == classes_and_parts


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("Training Set", "train"), ("images-val", "validation"), ("t\u200brain", "train"), ("TSTDATA", None),
        ("tested", None), ("train station", None), ("train2", None), ("images", None), ("train_test", None),
    ],
)  # fmt: skip
def test_the_name_of_a_part_may_have_other_words_beside_it(name: str, part: str | None) -> None:
    assert part_of_folder(name) == part


@pytest.mark.parametrize(
    ("folders", "answers"),
    [
        (["cats/tom", "cats/kit", "dogs/rex"], {"top": {"- cats", "- dogs"},
                                                "leaf": {"- cats/tom", "- cats/kit", "- dogs/rex"}}),
        (["photo/cat", "photo/dog", "sketch/cat"], {"top": {"- photo", "- sketch"}, "name": {"- cat", "- dog"},
                                                    "leaf": {"- photo/cat", "- photo/dog", "- sketch/cat"}}),
        (["a", "b/x", "b/y"], {"top": {"- a", "- b"}, "leaf": {"- a", "- b/x", "- b/y"}}),
        (["train/a", "train/b", "extra/a"], {"parts": {"train a", "train b"}, "top": {"- train", "- extra"}}),
        (["a/train", "a/test", "b"], {"parts": {"train a", "test a"}, "top": {"- a", "- b"}}),
        (["car/x", "train/x"], {"top": {"- car", "- train"}, "parts": {"train x"}}),
        (["a", "b", "pets-test-set"], {"top": {"- a", "- b", "- pets-test-set"}, "parts": {"- a", "- b"}}),
        (["a", "b", "test"], {"top": {"- a", "- b", "- test"}, "parts": {"- a", "- b"}}),
    ],
)  # fmt: skip
def test_folders_with_two_readings_are_asked_about(folders: list[str], answers: dict[str, set[str]]) -> None:
    error = refused(names(*folders))

    assert isinstance(error, UsageError)
    assert "(--classes)" in error.message and all(f"'{answer}': " in error.message for answer in answers)
    for answer, classes in answers.items():
        given = layout_of(names(*folders), "set", lambda question, choices, answer=answer: answer)
        option = layout_of(names(*folders), "set", refuse, answer)
        assert found(given) == found(option) == classes


@pytest.mark.parametrize(
    ("files", "count", "where"),
    [
        (names("train/a", "train/b") + names("test", each=5), 5, "test"),
        (names("train/a", "train/b") + names("seg_pred/seg_pred", each=4), 4, "seg_pred/seg_pred"),
        (names("train/train/a", "train/train/b") + names("test/test", each=4), 4, "test/test"),
        (names("train/a", "train/b", each=9) + names("train", each=1), 1, "train"),
        (names("a", "b", each=9) + names("", each=1), 1, "the top folder"),
        (names("top/a", "top/b", each=9) + names("top", each=1), 1, "top"),
    ],
)
def test_pictures_without_a_class_are_left_out_and_a_note_says_so(files: list[str], count: int, where: str) -> None:
    layout = layout_of(files, "set", refuse)

    assert layout.labels.count(None) == count
    assert {label for label in layout.labels if label} == {"a", "b"}
    images = "1 image" if count == 1 else f"{count} images"
    assert layout.notes == (f"{images} in {where} without a class left out; hangtag predict classifies them",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (names("", each=10) + names("a", "b"), "set: 0.png is not in a class folder, nor are 9 others"),
        (["cat.jpg"], "set: cat.jpg is not in a class folder"),
        (names("train", "test"), "set: the folders of its parts (test, train) contain no class folders"),
        (
            ["LICENSE", *names("train", "test1")],
            "set: the folders of its parts (test1, train) contain no class folders",
        ),
    ],
)
def test_too_many_pictures_without_a_class_are_refused(files: list[str], message: str) -> None:
    error = refused(files)

    assert isinstance(error, DataError) and error.message == message


def test_classes_in_file_names_are_asked_about() -> None:
    files = [f"train/{label}.{number}.jpg" for label in ("cat", "big dog") for number in range(4)]
    files += [f"test1/{number}.jpg" for number in range(3)]
    error = refused(files)

    assert "do the names of the files name the classes? (--classes file)" in error.message
    layout = layout_of(files, "set", refuse, "file")
    assert found(layout) == {"train cat", "train big dog"}
    assert layout.notes == ("3 images in test1 without a class left out; hangtag predict classifies them",)
    with pytest.raises(DataError, match="contain no class folders"):
        layout_of(files, "set", lambda question, answers: answers[1][0])


@pytest.mark.parametrize("files", [["a/1.png", "b/2.png"], ["a/x/1.png", "b/y/2.png"], ["a/1.png", "test/2.png"]])
def test_classes_in_parts_only_need_parts_with_classes(files: list[str]) -> None:
    with pytest.raises(UsageError, match="set: --classes parts does not apply"):
        layout_of(files, "set", refuse, "parts")


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (["cat.123.jpg", "dog_7.png", "cat 1.jpg", "dog (8).png"], {"- cat", "- dog"}),
        (["images/great_dane_1.jpg", "images/great_dane_2.jpg", "images/pug_1.jpg"], {"- great_dane", "- pug"}),
        (["7_01.png", "7_02.png", "3_01.png"], {"- 7", "- 3"}),
    ],
)
def test_the_beginning_of_a_file_name_is_its_class(files: list[str], classes: set[str]) -> None:
    assert found(layout_of(files, "set", refuse, "file")) == classes


def test_a_file_that_is_no_picture_may_lie_beside_the_class_folders() -> None:
    layout = layout_of(["LICENSE", "a/1.png", "b/1.png"], "set", refuse)

    assert layout.labels == (None, "a", "b")


def test_masks_in_class_folders_are_left_out_and_said() -> None:
    layout = layout_of(["a/1.png", "a/1_mask.png", "a/1_mask_2.png", "b/seg.png", "b/2.png"], "set", refuse)

    assert layout.labels == ("a", None, None, "b", "b")
    assert layout.notes == (
        "2 images left out as masks of other images: a/1_mask.png, a/1_mask_2.png; rename them if they are images",
    )


@pytest.mark.parametrize(
    ("files", "classes"),
    [
        (["a/images/1.png", "a/masks/1.png", "b/images/1.png", "b/masks/1.png"], {"- a", "- b"}),
        (["images/a/1.png", "images/b/2.png", "masks/a/1.png", "masks/b/2.png"], {"- a", "- b"}),
        (
            ["train/RGB/a/1.png", "train/RGB/b/1.png", "train/label/a/1.png", "val/RGB/a/2.png"],
            {"train a", "train b", "validation a"},
        ),
        (["with_mask/1.png", "without_mask/1.png"], {"- with_mask", "- without_mask"}),
        (["mask/1.png", "no mask/1.png"], {"- mask", "- no mask"}),
        (["a/label.png", "labels/1.png"], {"- a", "- labels"}),
        (["label/1.png", "photo/1.png", "box/1.png"], {"- label", "- photo", "- box"}),
    ],
)
def test_a_folder_of_masks_is_one_beside_a_folder_of_images(files: list[str], classes: set[str]) -> None:
    assert found(layout_of(files, "set", refuse)) == classes


@pytest.mark.parametrize("names", ["images masks", "image label", "img ground_truth", "CameraRGB CameraSeg",
    "JPEGImages SegmentationClass", "train/images train/annotations"])  # fmt: skip
def test_images_and_their_masks_are_not_two_classes(names: str) -> None:
    with pytest.raises(DataError, match="no class folders"):
        layout_of([f"{folder}/{number}.png" for folder in names.split() for number in range(9)], "set", refuse)


def test_a_part_with_a_folder_of_images_alone_has_no_classes() -> None:
    files = ["train/a/images/1.png", "train/b/images/1.png", "val/images/2.png", "test/images/3.png"]

    assert layout_of(files, "set", refuse).labels == ("a", "b", None, None)


def test_an_answer_is_said_and_kept_as_an_option(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "cats/tom/1.png", "cats/kit/2.png", "dogs/rex/3.png")

    first, again = (read(root, choose=lambda question, answers: "top") for _ in range(2))

    assert first.class_names == again.class_names == ("cats", "dogs")
    assert dict(first.source.answers) == dict(again.source.answers) == {"classes": "top"}
    assert "read as with --classes top, as you answered" in again.source.notes
    assert read(root, classes="leaf").class_names == ("cats/kit", "cats/tom", "dogs/rex")


def test_classes_whose_names_contain_the_name_of_a_part_are_named_in_a_note(tmp_path: Path) -> None:
    note = "folders whose names contain the name of a part are read as classes: test-horse-or-human"
    root = tree(tmp_path / "set", "cat/1.png", "dog/2.png", "test-horse-or-human/3.png")
    assert note in read(root).source.notes
    divided = tree(tmp_path / "two", "train/cat/1.png", "train/test tubes/2.png", "test/cat/3.png")
    assert not any("contain the name of a part" in each for each in read(divided).source.notes)


def test_a_table_beside_class_folders_that_gives_a_split_but_may_be_read_in_two_ways_is_asked_about(
    tmp_path: Path,
) -> None:
    root = tree(tmp_path / "set", *(f"{'cat' if number < 8 else 'dog'}/{number}.png" for number in range(16)))
    rows = [f"{n}.png,{n < 8:d},{n >= 8:d},{('train', 'train', 'train', 'test')[n % 4]},p{n // 2}" for n in range(16)]
    (root / "labels.csv").write_text("\n".join(["image,cat,dog,split,patient", *rows]) + "\n")

    with pytest.raises(UsageError, match="a table beside the folders gives a split; which are right"):
        read(root)

    assert "labels.csv was not read; to use a table, name it" in read(root, classes="top").source.notes
    assert len(read(root / "labels.csv", label_column="cat,dog").test) == 4


@pytest.mark.parametrize(
    ("folders", "parts"),
    [
        (("Training", "PublicTest", "PrivateTest"), ("train", "validation", "test")),
        (("train", "public_test", "private_test"), ("train", "validation", "test")),
        (("train", "val", "PublicTest", "PrivateTest"), ("train", "validation", "test", "test")),
    ],
)
def test_public_and_private_test_folders_are_parts(tmp_path: Path, folders: list[str], parts: list[str]) -> None:
    names = [f"{folder}/{label}/{n}.png" for folder in folders for label in ("joy", "fear") for n in range(2)]

    data = read(tree(tmp_path / "set", *names))

    assert data.class_names == ("fear", "joy")
    part_of = {data.names[at].split("/")[0]: part for part in data.parts for at in data.positions(part)}
    assert part_of == dict(zip(folders, parts, strict=True))


# --- listings --------------------------------------------------------------------------------------------------


def packed(folder: Path, form: str) -> Path:
    """The folder, or an archive of it."""
    if form == "zip":
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            for path in sorted(folder.rglob("*")):
                archive.write(path, path.relative_to(folder.parent))
    elif form == "tar":
        with tarfile.open(folder.with_suffix(".tar"), "w") as tar:
            tar.add(folder, folder.name)
    return folder if form == "folder" else folder.with_suffix(f".{form}")


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_a_class_may_begin_with_a_dot_but_hidden_files_and_folders_of_systems_are_ignored(
    form: str, tmp_path: Path
) -> None:
    root = tree(
        tmp_path / "set", ".net/1.png", "-1/2.png", "+/3.png", "_other/4.png", ".git/5.png", ".thumbnails/6.png",
        ".net/.hidden.png", "+/.small/7.png", "__MACOSX/+/8.png", ".ipynb_checkpoints/9.png", "+/@eaDir/10.png",
    )  # fmt: skip
    (root / ".net" / "Thumbs.db").write_bytes(b"x")

    data = read(packed(root, form))

    assert set(data.class_names) == {".net", "-1", "+", "_other"}
    assert any("hidden folders with images not read" in note and "+/.small" in note for note in data.source.notes)
    assert (len(data), data.source.skipped) == (4, ())
    assert "folders whose names begin with a dot are read as classes: .net" in data.source.notes


def test_empty_class_folders_are_named(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png")
    (root / "c" / "deep").mkdir(parents=True)
    (root / "d").mkdir()
    (root / "d" / "notes.txt").write_text("no picture")
    assert read(root).source.notes == ("folders without images: c, d",)

    tree(root, "a/1.png", "b/2.png", "c/3.png")
    assert (read(root).class_names, read(root).source.notes) == (("a", "b", "c"), ("folders without images: d",))


def test_a_class_that_only_the_test_part_has_is_named(tmp_path: Path) -> None:
    data = read(tree(tmp_path / "set", "train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png"))

    assert data.source.notes == ("1 class without training images: c", "1 class without test images: b")


def test_pictures_without_a_class_are_listed_as_skipped(tmp_path: Path) -> None:
    data = read(tree(tmp_path / "set", "train/a/1.png", "train/b/2.png", "test/3.png"), strict=True)

    assert data.sizes() == {"train": 2}
    assert [(each.name, each.kind) for each in data.source.skipped] == [("test/3.png", "no class")]


# --- what hangtag writes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_what_hangtag_wrote_is_never_data(form: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png")
    before = read(root)
    for folder in ("pictures", "a/deep/pictures"):
        make_own_folder(root / folder)
        tree(root / folder, "figures/1.png", "2.png")
    tree(root, "b/run/figures/3.png", "copy/figures/3.png")
    for folder in ("b/run", "copy"):  # runs without a marker
        (root / folder / "config.json").write_text("{}")
        (root / folder / "model.onnx").write_bytes(b"")

    data = read(packed(root, form))

    assert (data.class_names, data.fingerprint) == (("a", "b"), before.fingerprint)
    where = "" if form == "folder" else "set/"
    own = ", ".join(f"{where}{each}" for each in ("a/deep/pictures", "b/run", "copy", "pictures"))
    assert data.source.notes == (f"not read, because hangtag wrote it: {own}",)


def test_a_marked_folder_that_the_user_names_is_read(tmp_path: Path) -> None:
    make_own_folder(tmp_path / "exported")
    root = tree(tmp_path / "exported", "a/1.png", "b/2.png")

    assert len(read(root)) == len(read(packed(root, "zip"))) == 2
    with pytest.raises(DataError, match="hangtag wrote exported, and does not read it"):
        read(tmp_path)


def test_single_pictures_in_a_folder_of_the_user_are_marked_by_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "a/why.png", "b/2.png", "why.png")
    make_own_folder(root / "a")  # the user's, and not empty
    for path in (root / "why.png", root / "a" / "why.png", root / "a" / "why.png"):
        mark_loose(path)

    assert not (root / "a" / MARKER).exists()
    assert sorted(read(root).names) == ["a/1.png", "b/2.png"]
    assert read(root).source.notes == ("not read, because hangtag wrote it: a/why.png, why.png",)
    shutil.move(root / "a" / "why.png", root / "a" / "3.png")
    assert len(read(root)) == 3


def test_a_folder_without_images_says_what_it_contains(tmp_path: Path) -> None:
    for name in ("x/1.npz", "x/2.npz", "state.json", "data.arrow"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"1")

    with pytest.raises(DataError, match=r"it contains 2 \.npz files, 1 \.arrow file and 1 \.json file"):
        read(tmp_path)
    with pytest.raises(DataError, match="no images found"):
        read(make_empty(tmp_path / "empty"))


def make_empty(folder: Path) -> Path:
    (folder / "a").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("above", ["", "train/"])
def test_class_folders_that_all_begin_with_a_dot_are_read_and_said(tmp_path: Path, above: str) -> None:
    data = read(tree(tmp_path / "set", f"{above}.cat/1.png", f"{above}.dog/2.png", f"{above and 'test/'}.cat/3.png"))

    assert data.class_names == (".cat", ".dog")
    assert "folders whose names begin with a dot are read as classes: .cat, .dog" in data.source.notes


def test_a_split_in_the_names_of_files_is_said_to_be_unused() -> None:
    files = ["a/train_1.png", "a/test_1.png", "b/train_2.png", "b/test_2.png"]
    (note,) = layout_of(files, "set", refuse).notes
    assert note.startswith("the names of the images begin with test and train, which was not used as a split")
    assert not layout_of([*files, "b/x.png"], "set", refuse).notes
    assert not layout_of([f"{part}/{name}" for part in ("train", "test") for name in files], "set", refuse).notes
