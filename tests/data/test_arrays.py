"""Arrays in files: the file that was named is read, labels in every shape, and headers are not believed."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hangtag.data.read import read
from hangtag.errors import DataError, HangtagError, UsageError
from pictures import photo

IMAGES = np.stack([photo(number, 16, 16)[..., 0] for number in range(12)])
LABELS = np.arange(12) % 3


def refused(*what: Any, **options: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        read(*what, **options)
    return caught.value


def saved(folder: Path, **arrays: NDArray[Any]) -> Path:
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


# --- which arrays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["images", "labels"])
def test_the_file_that_was_named_is_read(named: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", x=IMAGES[:6], y=LABELS[:6], images=IMAGES, labels=LABELS)

    assert (len(read(folder / f"{named}.npy")), len(read(folder / "x.npy"))) == (12, 6)


def test_of_several_pairs_in_a_folder_one_is_chosen(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", x=IMAGES[:6], y=LABELS[:6], images=IMAGES, labels=LABELS)

    error = refused(folder)

    assert isinstance(error, UsageError)
    assert "which arrays hold the images and labels? (--image-column, --label-column)" in error.message
    assert len(read(folder, choose=lambda question, answers: answers[1][0])) in (6, 12)
    assert len(read(folder, image_column="x", label_column="y")) == 6
    assert len(read(folder, label_column="labels")) == 12


def test_the_labels_of_a_file_have_the_same_naming_scheme(tmp_path: Path) -> None:
    folder = saved(
        tmp_path / "set", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:6], y_test=LABELS[:6],
        faces_images=IMAGES[:9], faces_labels=LABELS[:9],
    )  # fmt: skip

    train, faces = read(folder / "x_train.npy"), read(folder / "faces_images.npy")

    assert (train.sizes(), len(faces)) == ({"train": 12}, 9)
    assert train.source.notes[0].startswith("arrays that are not used: faces_images (9, 16, 16), ")


def test_labels_of_another_scheme_are_taken_if_only_their_shape_fits(tmp_path: Path) -> None:
    assert len(read(saved(tmp_path / "one", x=IMAGES, labels=LABELS) / "x.npy")) == 12
    error = refused(saved(tmp_path / "two", x=IMAGES, a=LABELS[:5]) / "x.npy")
    assert "no array beside it holds the labels of x; found: a (5,), x (12, 16, 16)" in error.message


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (["x_train", "y_train", "x_test", "y_test"], {"train": 6, "test": 6}),
        (["train_images", "train_labels", "test_images", "test_labels"], {"train": 6, "test": 6}),
        (["X_val", "Y_val", "X_train", "Y_train"], {"train": 6, "validation": 6}),
        (["images_dev", "targets_dev", "images_train", "targets_train"], {"train": 6, "validation": 6}),
        (["data", "target"], {}),
        (["arr_0", "arr_1"], {}),
    ],
)
def test_the_names_of_arrays_say_what_they_hold(names: list[str], sizes: dict[str, int], tmp_path: Path) -> None:
    arrays = [IMAGES[:6], LABELS[:6], IMAGES[6:], LABELS[6:]][: len(names)]
    np.savez(tmp_path / "a.npz", **dict(zip(names, arrays, strict=True)))

    data = read(tmp_path / "a.npz")

    assert (data.sizes(), data.source.notes) == (sizes, ())


def test_arrays_that_are_not_used_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, weights=np.ones(12), x_extra=IMAGES)
    np.savez(tmp_path / "b.npz", images=IMAGES, labels=LABELS, target=LABELS)
    np.savez(tmp_path / "c.npz", pictures_of_cats=IMAGES, pictures_of_dogs=IMAGES)

    assert read(tmp_path / "a.npz").source.notes == ("arrays that are not used: weights (12,), x_extra (12, 16, 16)",)
    assert "the arrays images, labels" in refused(tmp_path / "b.npz").message
    assert len(read(tmp_path / "b.npz", label_column="target")) == 12
    assert "found: pictures_of_cats (12, 16, 16), pictures_of_dogs (12, 16, 16)" in refused(tmp_path / "c.npz").message
    assert "unknown array" in refused(tmp_path / "a.npz", image_column="image").message


def test_names_beside_the_numbers_are_the_class_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=LABELS, class_names=["cat", "ant", "bee"])
    np.savez(tmp_path / "b.npz", images=IMAGES, labels=LABELS, class_names=["cat", "ant"])

    data = read(tmp_path / "a.npz")

    assert ([data.class_names[label] for label in data.labels[:3]], data.source.notes) == (["cat", "ant", "bee"], ())
    assert read(tmp_path / "b.npz").source.notes == ("arrays that are not used: class_names (2,)",)


# --- shapes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        LABELS[:, None], LABELS[None], np.eye(3)[LABELS], np.eye(3, dtype=bool)[LABELS], LABELS.astype(float),
        LABELS.astype(np.uint8), LABELS.astype("S"), LABELS.astype(str), LABELS.tolist(),
    ],
)  # fmt: skip
def test_labels_of_every_shape_are_the_same_labels(labels: Any) -> None:
    data = read((IMAGES, labels))

    assert (data.class_names, data.labels.tolist()) == (("0", "1", "2"), LABELS.tolist())


@pytest.mark.parametrize("images", [IMAGES[..., None], IMAGES[:, None], np.repeat(IMAGES[:, None], 3, 1)])
def test_images_of_every_shape_are_the_same_images(images: NDArray[np.uint8]) -> None:
    data = read((images, LABELS))

    assert data.fingerprint == read((IMAGES, LABELS)).fingerprint
    assert any("(images, channels, height, width)" in note for note in data.source.notes) == (images.shape[3] == 16)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (LABELS[:5], "12 images but 5 labels"),
        (np.full((12, 3), 1 / 3), "labels of shape (12, 3) must be one-hot, but row 0 is not"),
        (np.zeros((12, 3), int), "labels of shape (12, 3) must be one-hot, but row 0 is not"),
        ([[1], [1, 2]] * 6, "rows differ in length"),
        (LABELS + 0.5, "labels contain fractions"),
        (np.zeros((12, 3, 2)), "expected shape (N,)"),
        (np.array(1), "expected shape (N,)"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Any, says: str) -> None:
    assert says in refused((IMAGES, labels)).message


def test_an_array_with_one_channel_in_a_list_is_grey() -> None:
    pairs = [(image[..., None], int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]

    assert read(pairs).fingerprint == read((IMAGES, LABELS)).fingerprint


def test_a_class_without_training_images_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=IMAGES[:8], y_train=LABELS[:8] % 2, x_test=IMAGES[8:], y_test=[0, 2, 2, 0])

    assert read(tmp_path / "a.npz").source.notes == (
        "1 class without training images: 2",
        "1 class without test images: 1",
    )


# --- strangers' files ------------------------------------------------------------------------------------------


def npz_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_an_array_that_declares_more_than_the_file_holds_is_refused_before_it_is_read(tmp_path: Path) -> None:
    whole = npy(IMAGES)
    lies = whole.replace(b"(12, 16, 16)", b"(9999999999, 16, 16)").replace(b" " * 8, b"", 1)
    assert len(lies) == len(whole)
    path = npz_of(tmp_path / "a.npz", images=lies, labels=npy(LABELS))

    assert "it declares 2,559,999,999,872 bytes, but the file holds 3,200" in refused(path).message
    (tmp_path / "images.npy").write_bytes(lies)
    (tmp_path / "labels.npy").write_bytes(npy(LABELS))
    assert "images.npy is damaged" in refused(tmp_path / "images.npy").message


def test_a_decompression_bomb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("images.npy", "w") as file:
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(
                header, {"descr": "|u1", "fortran_order": False, "shape": (300, 1000, 1000)}
            )
            file.write(header.getvalue())
            for _ in range(300):
                file.write(bytes(1_000_000))
        archive.writestr("labels.npy", npy(np.arange(300) % 3))

    assert "decompression bomb" in refused(path).message


@pytest.mark.parametrize(
    "header",
    [
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x01\x00\x10\x00" + b"{'descr': '|O'}\n",
        b"\x93NUMPY\x09\x00\x10\x00" + b" " * 16,
        b"",
        npy(IMAGES).replace(b"(12, 16, 16)", b"(-2, 16, 16)"),
    ],
)
def test_a_damaged_header_is_one_error(header: bytes, tmp_path: Path) -> None:
    error = refused(npz_of(tmp_path / "a.npz", images=header, labels=npy(LABELS)))

    assert isinstance(error, DataError)
    assert "images is damaged" in error.message


def test_pickled_objects_are_refused_only_where_they_would_be_used(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}] * 12, dtype=object)
    np.savez(tmp_path / "labels.npz", images=IMAGES, labels=objects)
    np.savez(tmp_path / "other.npz", images=IMAGES, labels=LABELS, notes=objects)

    assert "contains Python objects" in refused(tmp_path / "labels.npz").message
    assert read(tmp_path / "other.npz").source.notes == ("arrays that are not used: notes (12,)",)


# --- in memory -------------------------------------------------------------------------------------------------


def test_a_training_and_a_test_part_may_be_two_pairs_of_arrays() -> None:
    data = read(((IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:, None])))

    assert (data.sizes(), len(data)) == ({"train": 8, "test": 4}, 12)


def test_pictures_and_labels_may_be_two_lists(tmp_path: Path) -> None:
    data = read(([*IMAGES], LABELS.tolist()))

    assert data.fingerprint == read((IMAGES, LABELS)).fingerprint
    assert len(read(((IMAGES[0], "a"), (IMAGES[1], "b")))) == 2
    assert refused(([*IMAGES], [0, 1])).message == "12 images but 2 labels"


def test_labels_that_may_mean_no_label_are_named_or_refused() -> None:
    assert "'-1' is read as a class" in read((IMAGES, LABELS - 1)).source.notes[0]
    assert read((IMAGES, LABELS % 2 * 2 - 1)).source.notes == ()  # -1 and 1
    assert "some labels are empty" in refused((IMAGES, ["a", "b", " "] * 4)).message


def test_a_list_without_a_usable_picture_is_one_error() -> None:
    error = refused([(np.zeros((8, 8, 8)), "a"), (np.zeros((8, 8, 8, 8)), "b")])

    assert isinstance(error, DataError) and "no image is left: 2 no image" in error.message
    assert "array of shape (8, 8, 8) is not a single image" in error.message


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y"), ("x_{}", "y_{}")])
def test_a_folder_of_npz_files_has_one_for_each_part(tmp_path: Path, images: str, labels: str) -> None:
    for part, rows in (("train", slice(0, 8)), ("val", slice(8, 10)), ("test", slice(10, 12))):
        np.savez(tmp_path / f"{part}.npz", **{images.format(part): IMAGES[rows], labels.format(part): LABELS[rows]})

    data = read(tmp_path)

    assert {part: len(data.positions(part)) for part in data.parts} == {"train": 8, "validation": 2, "test": 2}
    np.testing.assert_array_equal(np.asarray(data.test.images), IMAGES[10:])
    assert data.test.labels.tolist() == LABELS[10:].tolist()


def test_a_folder_of_npz_files_with_one_array_each_has_one_for_each_class(tmp_path: Path) -> None:
    np.savez(tmp_path / "cat.npz", IMAGES[:5])
    np.savez_compressed(tmp_path / "dog.npz", pictures=IMAGES[5:])

    data = read(tmp_path)

    assert data.class_names == ("cat", "dog") and data.labels.tolist() == [0] * 5 + [1] * 7
    np.testing.assert_array_equal(np.asarray(data.images), IMAGES)
    assert "each .npz file is a class: cat, dog" in data.source.notes


def test_a_folder_of_npz_files_that_say_neither_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "train.npz", IMAGES[:5])
    np.savez(tmp_path / "test.npz", IMAGES[5:])
    assert "train_arr_0" in str(refused(tmp_path))

    np.savez(tmp_path / "dog.npz", np.zeros((3, 5, 5), np.uint8))
    (tmp_path / "train.npz").rename(tmp_path / "cat.npz")
    (tmp_path / "test.npz").unlink()
    assert "different shapes" in refused(tmp_path).message
