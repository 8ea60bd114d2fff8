"""Whatever the user has becomes `LabelledImages`, or one error that says what it is instead."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from numpy.typing import NDArray
from PIL import Image

import hangtag
from hangtag.data.labelled_images import LabelledImages, Source, export_folder, from_arrays
from hangtag.data.public.catalog import NAMED
from hangtag.data.read import read
from hangtag.data.splits import split_of
from hangtag.errors import DataError, HangtagError, PictureError, UnknownName, UsageError
from hangtag.pictures import ImageSpec, decode
from toys import idx_files, in_a_process, shapes

IMAGES, LABELS = shapes(9)


def refused(act: Callable[..., object], *args: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        act(*args)
    assert caught.value.hint
    return caught.value


@pytest.fixture(scope="module")
def idx_folder(fashion: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files, in a folder of the user's own."""
    folder = tmp_path_factory.mktemp("my data")
    for name, content in idx_files(fashion.images, fashion.labels, train=60_000).items():
        (folder / name).write_bytes(content)
    return folder


# --- read ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [Path, str])
def test_the_files_of_a_public_set_are_read_for_its_name(
    idx_folder: Path, fashion: LabelledImages, path: Callable[[Path], str | Path]
) -> None:
    data = hangtag.read("fashion-mnist", path(idx_folder))

    assert (data.name, data.source.origin) == ("fashion-mnist", str(idx_folder))
    assert (data.class_names, data.fingerprint) == (fashion.class_names, fashion.fingerprint)


def test_the_files_of_a_public_set_are_arrays_without_its_name(idx_folder: Path, fashion: LabelledImages) -> None:
    data = read(idx_folder)

    assert (data.name, data.class_names) == (idx_folder.name, tuple("0123456789"))
    assert (data.sizes(), data.fingerprint) == (fashion.sizes(), fashion.fingerprint)


def test_a_folder_may_be_named_from_home(
    idx_folder: Path, fashion: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(idx_folder.parent))

    assert read(f"~/{idx_folder.name}").fingerprint == fashion.fingerprint


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        ("fashion-mnits", "did you mean 'fashion-mnist'? "),
        ("Fashion_MNIST", "did you mean 'fashion-mnist'? "),
        ("zzz", ""),
        ("x" * 5000, ""),
        ("nul\0l", ""),
    ],
)
def test_an_unknown_name_offers_the_nearest_one(name: str, offer: str) -> None:
    error = refused(read, name)

    assert isinstance(error, UnknownName)
    assert error.message == f"unknown dataset '{name}'"
    assert error.hint == f"{offer}known: {', '.join(sorted(NAMED))}, or a folder, archive or table of your own"


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        ("photso", "did you mean 'Photos'? "),
        ("PHOTOS.ZP", "did you mean 'photos.zip'? "),
        ("minst", "did you mean 'mnist'? "),
        ("minst-wn", "did you mean 'minst-own'? "),
        ("hidden", ""),
    ],
)
def test_an_unknown_name_offers_what_lies_here_too(
    name: str, offer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("Photos", "minst-own", ".hidden"):
        (tmp_path / folder).mkdir()
    (tmp_path / "photos.zip").write_bytes(b"")
    monkeypatch.chdir(tmp_path)

    error = refused(read, name)

    assert isinstance(error, UnknownName)
    assert error.message == f"unknown dataset '{name}'"
    assert error.hint == f"{offer}known: {', '.join(sorted(NAMED))}, or a folder, archive or table of your own"


def test_an_address_is_not_a_dataset() -> None:
    with pytest.raises(FileNotFoundError, match="s3://shop/photos: addresses are read by hangtag predict only"):
        hangtag.read("s3://shop/photos")


@pytest.mark.parametrize(
    ("path", "says", "hint"),
    [
        ("data/photso", "no such file or folder", "did you mean 'data/photos'?"),
        ("data/PHOTOS/", "no such file or folder", "did you mean 'data/photos'?"),
        ("./dtaa", "no such file or folder", "did you mean 'data'?"),
        ("dtaa/photos", "there is no folder dtaa", "did you mean 'data'?"),
        ("data/photso/cats", "there is no folder data/photso", "did you mean 'data/photos'?"),
        ("data/photos/cts", "no such file or folder", "did you mean 'data/photos/cats'?"),
        ("data/zzz", "no such file or folder", "check the spelling and the current folder"),
        ("zzz/photos", "there is no folder zzz", "check the spelling and the current folder"),
        ("data/a.zip/cats", "data/a.zip is a file, not a folder", "name the file itself"),
        ("data/" + "x" * 5000, "no such file or folder", "check the spelling and the current folder"),
        ("data/nul\0l", "no such file or folder", "check the spelling and the current folder"),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_path_to_nothing_says_where_it_ends_and_offers_the_nearest(
    path: str, says: str, hint: str, absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "photos" / "cats").mkdir(parents=True)
    (tmp_path / "data" / "a.zip").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    if absolute:
        path = f"{tmp_path}/{path}"
        says, hint = (re.sub(r"(folder |^|')(data|dtaa|zzz)", rf"\1{tmp_path}/\2", text) for text in (says, hint))

    error = refused(read, path)

    assert isinstance(error, UnknownName)
    assert (error.message, error.hint) == (f"{Path(path)}: {says}", hint)


def test_a_folder_that_is_called_as_a_public_set_is_read_by_its_path_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_folder(from_arrays(IMAGES, LABELS), tmp_path / "digits")
    monkeypatch.chdir(tmp_path)

    assert read("digits").class_names == NAMED["digits"].class_names
    assert read("digits").source.notes == (
        "read the public dataset digits, not the folder of that name; to read the folder, write ./digits",
    )
    for own in ("./digits", Path("digits")):
        assert (len(read(own)), read(own).source.notes) == (9, ())
    monkeypatch.chdir("/")
    assert read("digits").source.notes == ()


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photos.zip"
    path.write_bytes(b"PK")

    assert refused(read, path).message == f"{path}: damaged or incomplete zip file: File is not a zip file"
    assert refused(read, "fashion-mnist", path).message == f"{path}: no such folder"


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert refused(read, tmp_path).message == f"{tmp_path}: the folder is empty"


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(b"x")

    assert refused(read, tmp_path).message == f"{tmp_path}: cat.jpg is not in a class folder"


def test_a_folder_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    program = """
import os, tempfile
from pathlib import Path
from hangtag.errors import DataError
from hangtag.data.read import read
from hangtag.data.splits import split_of
folder = Path(tempfile.mkdtemp(dir="/tmp"))
folder.chmod(0)
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    read(folder)
except DataError as error:
    print(str(error).replace(str(folder), "FOLDER"))
os.seteuid(os.getuid())
folder.rmdir()
"""
    assert in_a_process(program, tmp_path) == "FOLDER: permission denied (check the permissions)\n"


# --- parts -----------------------------------------------------------------------------------------------------


def divided() -> LabelledImages:
    data = from_arrays(*shapes(9), name="shapes")
    parts: dict[str, slice | NDArray[np.int64]] = {"train": slice(0, 6), "test": np.array([8, 6])}
    return LabelledImages(data.images, data.labels, ("bar", "dot", "edge"), "shapes", parts=parts)


def test_parts_are_the_images_at_their_positions() -> None:
    data = divided()

    np.testing.assert_array_equal(data.train.images, IMAGES[:6], strict=True)
    np.testing.assert_array_equal(data.train.labels, LABELS[:6], strict=True)
    np.testing.assert_array_equal(data.test.images, IMAGES[[8, 6]], strict=True)
    np.testing.assert_array_equal(data.test.labels, LABELS[[8, 6]], strict=True)
    assert [part.name for part in (data.train, data.test)] == ["shapes (train)", "shapes (test)"]
    assert data.train.class_names == data.class_names
    assert repr(data) == "<shapes: 9 images (train 6, test 2), 3 classes, 8x8 grey>"


def test_a_part_that_is_a_slice_copies_nothing() -> None:
    data = divided()

    assert np.shares_memory(data.train.images, data.images)
    assert np.shares_memory(data.take(np.array([4, 5, 6])).images, data.images)
    assert not np.shares_memory(data.test.images, data.images)


def test_undivided_data_is_all_for_training() -> None:
    data = from_arrays(IMAGES, LABELS)

    assert data.train is data
    assert refused(lambda: data.test).message == "arrays has no 'test' part"
    assert refused(lambda: data.test).hint == "it is not divided into parts"


def test_a_missing_part_is_refused_with_those_there_are() -> None:
    error = refused(lambda: divided().validation)

    assert isinstance(error, DataError)
    assert str(error) == "shapes has no 'validation' part (use one of its parts: train, test)"


def test_counts_include_classes_without_images() -> None:
    assert divided().take(slice(0, 2)).counts().tolist() == [1, 1, 0]
    assert divided().counts("test").tolist() == [1, 0, 1]
    assert refused(divided().counts, "tset").message == "shapes has no 'tset' part"


def test_counting_looks_at_no_image() -> None:
    terabyte = np.broadcast_to(np.zeros((), np.uint8), (900_000, 1000, 1000))
    labels, odd = np.arange(900_000) % 3, np.arange(1, 900_000, 2)
    spec = ImageSpec(1000, 1000)
    data = LabelledImages(terabyte, labels, ("bar", "dot", "edge"), parts={"train": odd}, source=Source(spec=spec))

    assert (data.counts("train").tolist(), data.sizes()) == ([150_000] * 3, {"train": 450_000})
    assert repr(data) == "<images: 900,000 images (train 450,000), 3 classes, 1000x1000 grey>"


def test_json_says_everything_about_a_set() -> None:
    data = divided()

    assert data.to_json() == {
        "name": "shapes",
        "origin": "memory",
        "images": 9,
        "parts": {"train": 6, "test": 2},
        "classes": ["bar", "dot", "edge"],
        "image": {"height": 8, "width": 8, "channels": 1, "background": data.spec.background, "fit": "squash"},
        "bytes": 576,
        "fingerprint": data.fingerprint,
    }


# --- fingerprints ----------------------------------------------------------------------------------------------


def test_equal_content_has_an_equal_fingerprint_however_it_is_held() -> None:
    names = np.array(["bar", "dot", "edge"])[LABELS]
    ways = [
        from_arrays(IMAGES, LABELS),
        from_arrays(IMAGES[..., None], list(LABELS)),
        from_arrays(np.asfortranarray(IMAGES), LABELS.astype(np.int8)),
        from_arrays(IMAGES, names, name="another name"),
        from_arrays(IMAGES[::-1], LABELS[::-1]),
        from_arrays(np.repeat(IMAGES, 2, axis=0), np.repeat(LABELS, 2)).take(slice(0, None, 2)),
    ]

    assert len({way.fingerprint for way in ways}) == 1


def test_another_pixel_label_or_shape_has_another_fingerprint() -> None:
    other_pixel = IMAGES.copy()
    other_pixel[3, 3, 3] ^= 1
    others = [
        from_arrays(IMAGES, LABELS),
        from_arrays(other_pixel, LABELS),
        from_arrays(IMAGES, LABELS[::-1]),
        from_arrays(IMAGES, np.roll(LABELS, 1)),
        from_arrays(IMAGES.reshape(9, 4, 16), LABELS),
    ]

    assert len({other.fingerprint for other in others}) == len(others)


def test_no_image_is_hashed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    blake2b = hashlib.blake2b
    monkeypatch.setattr(hashlib, "blake2b", lambda *each, **more: hashed.append(1) or blake2b(*each, **more))  # type: ignore[func-returns-value]
    data = from_arrays(*shapes(90))
    parts = {"train": slice(0, 60), "validation": slice(60, 90)}
    divided = LabelledImages(data.images, data.labels, data.class_names, parts=parts)

    for each in (data, divided):
        hashed.clear()
        fingerprint = each.fingerprint
        images, split = split_of(each, 0.2, seed=0)

        assert len(hashed) == 90 and fingerprint == each.fingerprint
        assert images.take(split.validation).fingerprint == images.take(split.validation.copy()).fingerprint
        np.testing.assert_array_equal(images.contents, from_arrays(images.images, images.labels).contents)
    assert data.take(slice(None)).order is data.order


def test_the_order_and_fingerprint_are_those_of_sorting_by_all_columns() -> None:
    contents = np.random.default_rng(0).integers(0, 4, (300, 2)).astype(np.uint64)  # halves of hashes repeat
    labels = np.arange(300, dtype=np.int64) % 3
    data = LabelledImages(np.zeros((300, 4, 4), np.uint8), labels, ("a", "b", "c"), parts={"test": slice(100, 200)})
    vars(data)["contents"] = contents

    np.testing.assert_array_equal(data.order, np.lexsort((contents[:, 1], contents[:, 0], labels)))
    rows = np.column_stack([np.repeat([0, 1, 0], 100), labels, contents]).astype("<u8")
    rows = rows[np.lexsort(rows.T[::-1])]
    assert data.fingerprint == hashlib.sha256(repr(((4, 4), ["test"])).encode() + rows.tobytes()).hexdigest()


# --- from arrays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names", "positions"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (np.array(["b", "a", "b"], dtype=object), ("a", "b"), [1, 0, 1]),
        ([7, 3, 900], ("3", "7", "900"), [1, 0, 2]),
        (np.array([-1, 1, -1], np.int8), ("-1", "1"), [0, 1, 0]),
        (np.array([1, 2, 1], dtype=object), ("1", "2"), [0, 1, 0]),
        ([True, False, True], ("False", "True"), [1, 0, 1]),
        (np.array([2.0, 0.0, 2.0]), ("0", "2"), [1, 0, 1]),
        (["셔츠", "바지", "셔츠"], ("바지", "셔츠"), [1, 0, 1]),
    ],
)
def test_labels_may_be_names_or_numbers_with_gaps(labels: Any, names: tuple[str, ...], positions: list[int]) -> None:
    data = from_arrays(IMAGES[:3], labels)

    assert (data.class_names, data.labels.tolist(), data.labels.dtype.name) == (names, positions, "int64")


MIXED = "convert them, and fill in missing labels"


@pytest.mark.parametrize(
    ("labels", "message", "hint"),
    [
        ([0, 1], "9 images but 2 labels", "give exactly one label for each image, in the same order"),
        (np.eye(3)[LABELS], "labels: expected shape (N,), got (9, 3)",
         "give one label per image, not one-hot rows: labels.argmax(axis=1)"),
        ([[1], [1, 2]], "labels: rows differ in length", "give one label per image, not one-hot rows"),
        (3, "labels: expected shape (N,), got ()", "give one label per image, in a list or an array"),
        ([5] * 9, "there is only one class: 5", "a classifier needs images of at least two classes"),
        ([np.nan, *range(8)], "labels contain fractions or NaN", "labels must be names or whole numbers"),
        ([np.inf, *range(8)], "labels contain fractions or NaN", "labels must be names or whole numbers"),
        ([0.5, *range(8)], "labels contain fractions or NaN", "labels must be names or whole numbers"),
        (["cat", "dog", np.nan] * 3, "labels must be all names or all whole numbers, got float, str", MIXED),
        (["cat", 1, 2] * 3, "labels must be all names or all whole numbers, got int, str", MIXED),
        ([None, 1, 2] * 3, "labels must be all names or all whole numbers, got NoneType, int", MIXED),
        ([b"cat", b"dog", b"cow"] * 3, "labels must be all names or all whole numbers, got bytes", MIXED),
    ],
    ids=["too few", "one-hot", "ragged", "a number", "one class", "NaN", "infinity", "fraction",
         "names and NaN", "names and numbers", "numbers and None", "bytes"],
)  # fmt: skip
def test_labels_that_are_not_one_per_image_are_refused(labels: Any, message: str, hint: str) -> None:
    error = refused(from_arrays, IMAGES, labels)

    assert (type(error), error.message, error.hint) == (DataError, message, hint)


def test_no_images_at_all_are_refused() -> None:
    assert refused(from_arrays, np.zeros((0, 8, 8), np.uint8), []).message == "there are no images"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES.astype(complex), "images: expected numbers, got complex128"),
        (IMAGES.reshape(9, 64), "images: expected shape (N, H, W) or (N, H, W, 3), got (9, 64)"),
        (np.full((9, 8, 8), np.nan), "images: 9 of 9 images contain NaN or infinite pixels"),
    ],
)
def test_images_that_are_not_images_are_refused(images: Any, message: str) -> None:
    error = refused(from_arrays, images, LABELS)

    assert (type(error), error.message) == (PictureError, message)


# --- to a folder -----------------------------------------------------------------------------------------------


def test_exported_pictures_are_the_images_in_folders_by_class(tmp_path: Path) -> None:
    names = ("T-shirt/top", "..", "Ankle boot")
    data = LabelledImages(IMAGES, LABELS, names)
    told: list[tuple[str, int, int]] = []

    paths = export_folder(data, tmp_path / "out", lambda *step: told.append(step))

    folders = ("T-shirt-top", "-", "Ankle boot")
    assert paths == [tmp_path / "out" / folders[label] / f"{position:05d}.png" for position, label in enumerate(LABELS)]
    np.testing.assert_array_equal([decode(path, ImageSpec(8, 8))[0] for path in paths], IMAGES)
    assert told[-1] == ("writing images", 9, 9)


def test_classes_whose_names_make_one_folder_get_two(tmp_path: Path) -> None:
    data = LabelledImages(IMAGES[:3], np.arange(3), ("a/b", "a:b", "A-B"), "names")

    paths = export_folder(data, tmp_path)

    assert [path.parent.name for path in paths] == ["a-b", "a-b-2", "A-B-3"]


def test_a_home_folder_of_nobody_is_an_ordinary_wrong_name() -> None:
    with pytest.raises(HangtagError, match="nosuchuser"):
        read("~nosuchuser/pictures")


# --- in a program and in a notebook --------------------------------------------------------------------------------


def shapes_data() -> LabelledImages:
    images, labels = shapes(30)
    return from_arrays(images, np.array(["bar", "dot", "edge"])[labels], "shapes")


def test_the_name_of_a_part_gives_the_part() -> None:
    images, labels = shapes(30)
    data = hangtag.read(((images[:20], labels[:20]), (images[20:], labels[20:])))

    np.testing.assert_array_equal(data["test"].images, images[20:])
    with pytest.raises(DataError, match="no 'valid' part"):
        data["valid"]


@pytest.mark.parametrize(
    ("place", "error"),
    [(1.5, TypeError), (None, TypeError), (np.zeros((2, 2), int), IndexError), ([99], IndexError), ([0.5], IndexError)],
)
def test_what_is_no_position_is_refused(place: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        shapes_data()[place]


def test_labels_in_one_column_are_labels() -> None:
    images, labels = shapes(9)
    expected = from_arrays(images, labels)

    for column in (labels[:, None], pandas.DataFrame({"label": labels})):
        np.testing.assert_array_equal(from_arrays(images, column).labels, expected.labels)


def test_an_index_gives_an_image_and_the_name_of_its_class() -> None:
    data = shapes_data()

    image, label = data[-1]

    np.testing.assert_array_equal(image, data.images[29])
    assert label == data[29].label == "edge"
    assert [each.label for each in data][:4] == ["bar", "dot", "edge", "bar"]
    assert data[np.int64(1)].label == "dot"
    assert repr(data[1]) == "<LabelledImage: dot, 8x8 grey>"
    assert "dot" in data[1]._repr_html_()
    for outside in (30, -31):
        with pytest.raises(IndexError, match="of 30 images"):
            data[outside]


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (slice(3, 9, 2), [3, 5, 7]), (slice(None, None, -10), [29, 19, 9]), (slice(25, 99), [25, 26, 27, 28, 29]),
        ([4, 2, -1], [4, 2, 29]), (np.array([7, 7]), [7, 7]), (np.arange(30) % 10 == 0, [0, 10, 20]), ([], []),
    ],
)  # fmt: skip
def test_slices_masks_and_lists_give_labelled_images(place: Any, expected: list[int]) -> None:
    data = shapes_data()

    some = data[place]

    assert isinstance(some, LabelledImages)
    np.testing.assert_array_equal(some.images, data.images[expected])
    np.testing.assert_array_equal(some.labels, data.labels[expected])
    assert some.class_names == data.class_names


def test_a_notebook_shows_some_images_of_each_class_and_their_number() -> None:
    images, labels = shapes(30)
    data = LabelledImages(
        images, labels, ("bar", "<b>dot</b>", "edge"), "shapes", {"train": slice(0, 21), "test": slice(21, 30)}
    )

    shown = data._repr_html_()

    assert shown.count("<img") == 3 * 7
    assert re.sub(r"<[^>]+>", " ", shown).split()[-3:] == ["all", "21", "9"]
    assert "&lt;b&gt;dot&lt;/b&gt;" in shown
    many = LabelledImages(np.zeros((500, 8, 8), np.uint8), np.arange(500), tuple(map(str, range(500))))
    assert "488 more classes" in many._repr_html_()
    assert len(many._repr_html_()) < 20_000


def test_no_way_to_choose_is_the_usual_way(tmp_path: Path) -> None:
    for name in ("a/x/1.png", "a/y/2.png", "b/x/3.png", "b/y/4.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9)).save(path)

    with pytest.raises(UsageError) as usual:
        read(tmp_path)
    with pytest.raises(UsageError) as without:
        read(tmp_path, choose=None)

    assert str(without.value) == str(usual.value)


def test_a_name_that_looks_like_a_message_is_a_name(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", "a/3.png", "b/4.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (9, 9), 40 * int(name[2])).save(tmp_path / name)
    (tmp_path / "a/x: empty.jpg").write_bytes(b"")
    (tmp_path / "b/not an image: damaged.jpg").write_bytes(b"nonsense")

    skipped = [read(tmp_path).source.skipped for _ in range(2)]  # decoded, and from the cache

    assert [(each.name, each.kind) for each in skipped[0]] == [
        ("a/x: empty.jpg", "empty"), ("b/not an image: damaged.jpg", "not an image"),
    ]  # fmt: skip
    assert skipped[1] == skipped[0]
    with pytest.raises(DataError, match=r"a/x: empty\.jpg: the file is empty \(and 1 more\)"):
        read(tmp_path, strict=True)
