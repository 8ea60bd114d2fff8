"""The same pictures in every form are the same data, and what is wrong with a file stops nothing."""

import os
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

import hangtag
from hangtag.data import read as reading
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.read import read, skipped_table
from hangtag.data.splits import split_of
from hangtag.data.store.containers import ListedFile, Listing
from hangtag.errors import DataError, HangtagError, UnknownName, UsageError
from hangtag.mapped import mapping_of
from hangtag.pictures import ImageSpec, decode
from hangtag.resize import Sizer
from pictures import HAS_HEIC, encoded, kinds, needs_heic, photo, write_folder, write_forms
from toys import idx_files


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("forms")
    return write_forms(root, write_folder(root / "photos"))


@pytest.fixture(scope="module")
def folder(forms: dict[str, Path]) -> LabelledImages:
    return read(forms["folder"])


def tree(root: Path, *names: str) -> Path:
    """A folder with small pictures of these names."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(photo(number, 16, 16)), "x.png"))
    return root


def refused(*what: Any, **options: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        read(*what, **options)
    return caught.value


# --- one way for all forms -------------------------------------------------------------------------------------


FORMS = ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "csv", "tsv", "jsonl", "hub", "raw", "paths", "many")


@pytest.mark.parametrize("form", FORMS)
def test_the_same_pictures_are_the_same_data_in_every_form(
    form: str, forms: dict[str, Path], folder: LabelledImages
) -> None:
    data = read(forms[form])

    assert (data.fingerprint, data.spec, data.class_names) == (folder.fingerprint, folder.spec, ("day", "night"))
    np.testing.assert_array_equal(data.images[data.order], folder.images[folder.order])


def test_pictures_in_memory_are_the_same_data(forms: dict[str, Path], folder: LabelledImages) -> None:
    base = forms["folder"]
    paths = sorted(path for path in base.rglob("*") if path.is_file())
    labels = [path.parent.name for path in paths]
    ways = [
        pandas.DataFrame({"image": [str(path) for path in paths], "label": labels}),
        pandas.DataFrame({"image": [path.read_bytes() for path in paths], "label": labels}),
        {"image": paths, "label": labels},
        list(zip(paths, labels, strict=True)),
        list(zip([path.read_bytes() for path in paths], labels, strict=True)),
    ]

    assert {read(way).fingerprint for way in ways} == {folder.fingerprint}


@pytest.mark.parametrize(("files", "size", "processes"), [(0, 0, 1), (12, 1000, 1), (500, 1000, 5), (8, 4_000_000, 16)])
def test_as_many_processes_decode_as_pay_for_their_start(
    files: int, size: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "processors", lambda: 16)

    listing = Listing([ListedFile(str(number), size, "", None) for number in range(files)])

    assert reading._processes(listing) == processes


def test_paths_in_a_list_or_frame_start_where_one_is(
    forms: dict[str, Path], folder: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(forms["folder"])
    paths = sorted(str(path) for path in Path().rglob("*") if path.is_file())
    labels = [path.split("/")[0] for path in paths]

    frame = read(pandas.DataFrame({"image": paths, "label": labels}))
    pairs = read(list(zip(paths, labels, strict=True)))
    renamed = read({"what": paths, "kind": labels})

    assert frame.fingerprint == pairs.fingerprint == renamed.fingerprint == folder.fingerprint
    assert (
        "columns 'image' and 'label'" in frame.source.description
        and "columns 'what' and 'kind'" in renamed.source.description
    )


@pytest.mark.parametrize("form", ["list", "frame"])
def test_opened_pictures_in_memory_are_as_their_files(form: str, tmp_path: Path) -> None:
    for orientation in range(1, 9):
        path = tmp_path / "set" / "ab"[orientation % 2] / f"{orientation}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(photo(orientation, 12, 20)), "x.png", orientation))
    paths = sorted((tmp_path / "set").rglob("*.png"))
    images, labels = [Image.open(path) for path in paths], [path.parent.name for path in paths]

    data = read(list(zip(images, labels, strict=True)) if form == "list" else {"image": images, "label": labels})

    assert data.fingerprint == read(tmp_path / "set").fingerprint


def test_every_row_is_what_the_model_file_makes_of_the_picture(folder: LabelledImages, forms: dict[str, Path]) -> None:
    sizer = Sizer(folder.spec)

    assert len(folder) == (53 if HAS_HEIC else 42)
    for name, row in zip(folder.names, folder.images, strict=True):
        pixels, _ = decode(forms["folder"] / name, folder.spec)
        np.testing.assert_array_equal(sizer(pixels), row, err_msg=name)


def test_arrays_in_files_are_the_same_data_as_pictures_of_them(tmp_path: Path) -> None:
    images = np.stack([photo(number, 20, 20) for number in range(12)])
    labels = np.array(["b", "a"] * 6)
    root = tmp_path / "pictures"
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{number}.png").write_bytes(encoded(Image.fromarray(image), "x.png"))
    np.savez(tmp_path / "a.npz", X=images, y=labels)
    (tmp_path / "pair").mkdir()
    np.save(tmp_path / "pair" / "images.npy", images.transpose(0, 3, 1, 2))  # as PyTorch keeps them
    np.save(tmp_path / "pair" / "labels.npy", labels)
    ways = [root, tmp_path / "a.npz", tmp_path / "pair", tmp_path / "pair" / "images.npy", (images, labels)]
    ways.append(list(zip(images, labels, strict=True)))

    assert len({read(way).fingerprint for way in ways}) == 1


def test_the_same_weights_come_of_every_form(forms: dict[str, Path]) -> None:
    weights, splits = [], []
    for form in ("folder", "zip", "raw"):
        clf = hangtag.ImageClassifier(recipe="quick", epochs=1).fit(read(forms[form], size=16))
        splits.append(clf.split_.to_json())
        weights.append(b"".join(value.numpy().tobytes() for value in clf.network_.state_dict().values()))

    assert weights[0] == weights[1] == weights[2]
    assert splits[0] == splits[1] == splits[2] and len(splits[0]["fingerprint"]) == 64


# --- understanding ---------------------------------------------------------------------------------------------


def test_the_description_says_how_the_data_was_read(folder: LabelledImages) -> None:
    assert folder.source.description == (
        f"Read as one folder per class: {len(folder)} images, 2 classes (day, night), 44x30 to 48x40, colour"
    )
    assert folder.source.notes[0].startswith(
        "images are resized to 40x40 colour: proportions are kept and margins are filled"
    )


@pytest.mark.parametrize(
    ("names", "parts", "classes"),
    [
        (["train/a/1.png", "train/b/2.png", "test/a/3.png"], {"train": 2, "test": 1}, ("a", "b")),
        (["TRAIN/a/1.png", "Train2/b/2.png"], None, None),
        (["Training/a/1.png", "Training/b/2.png", "Valid/a/3.png", "testing/b/4.png"],
         {"train": 2, "validation": 1, "test": 1}, ("a", "b")),
        (["a/train/1.png", "b/train/2.png", "a/val/3.png"], {"train": 2, "validation": 1}, ("a", "b")),
        (["photos/a/1.png", "photos/b/2.png"], {}, ("a", "b")),
        (["class 10/1.png", "class 9/2.png"], {}, ("class 9", "class 10")),
        (["a/x/1.png", "a/2.png", "b/3.png"], {}, ("a", "b")),
    ],
)  # fmt: skip
def test_folders_say_classes_and_parts(
    names: list[str], parts: dict[str, int] | None, classes: tuple[str, ...] | None, tmp_path: Path
) -> None:
    root = tree(tmp_path / "set", *names)
    if parts is None:
        assert "folders" in str(refused(root))
        return

    data = read(root)

    assert ({name: len(data.part(name)) for name in data.parts}, data.class_names) == (parts, classes)


def test_nested_folders_can_be_read_in_two_ways(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "cats/tom/1.png", "cats/kit/2.png", "dogs/rex/3.png", "dogs/bo/4.png")
    asked: list[str] = []

    error = refused(root)
    chosen = read(root, choose=lambda question, answers: asked.append(question) or answers[1][0])  # type: ignore[func-returns-value]

    assert isinstance(error, UsageError)
    assert "the 2 folders at the top: cats, dogs" in str(error) and "the 4 innermost folders" in str(error)
    assert len(asked) == 1 and chosen.class_names == ("cats/kit", "cats/tom", "dogs/bo", "dogs/rex")
    assert read(root, classes="top").class_names == ("cats", "dogs")


def test_folders_that_are_parts_are_no_classes(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "train/1.png", "test/2.png")

    assert "the folders of its parts (test, train) contain no class folders" in str(refused(root))


def test_options_that_do_not_apply_to_a_form_of_data_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png")
    (root / "t.csv").write_text("file,label\na/1.png,a\nb/2.png,b\n")
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8), np.uint8), labels=[0, 1, 0, 1])

    alone = tree(tmp_path / "alone", "a/1.png", "b/2.png")
    assert "--label-column x does not apply (this option is for tables" in str(refused(alone, label_column="x"))
    assert "--split-column x does not apply (this option is for tables" in str(refused(alone, split_column="x"))
    assert "--classes top does not apply" in str(refused(root / "t.csv", classes="top"))
    assert "--group-by x does not apply" in str(refused(tmp_path / "a.npz", group_by="x"))
    assert "--root . does not apply" in str(refused("digits", root="."))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": 64}, "--size 64"),
        ({"size": (48, 64)}, "--size 48x64"),
        ({"fit": "pad"}, "--fit pad"),
        ({"colour": True}, "--colour"),
        ({"colour": False}, "--grey"),
    ],
)
def test_size_fit_and_colour_are_refused_where_pictures_stay_as_they_are(options: dict[str, Any], said: str) -> None:
    for what, only_for in (("digits", "your own data"), (read("digits"), "data that has not been read yet")):
        error = refused(what, **options)

        assert isinstance(error, UsageError)
        assert error.message == f"digits: {said} does not apply"
        assert error.hint == f"this option is for {only_for}; leave it out"


def test_a_public_set_is_as_it_is_whatever_a_model_takes() -> None:
    assert read("digits", spec=ImageSpec(32, 32, 3)).spec.shape == (8, 8)


def test_an_archive_is_called_as_its_file_without_endings(forms: dict[str, Path]) -> None:
    assert {read(forms[form]).name for form in ("zip", "tar", "tar.gz", "tar.bz2", "tar.xz")} == {"a"}


def test_idx_files_may_have_the_names_of_a_public_set(tmp_path: Path) -> None:
    images, labels = np.stack([photo(number, 12, 12)[..., 0] for number in range(8)]), np.arange(8) % 2
    for name, content in idx_files(images, labels, train=6).items():
        (tmp_path / name).write_bytes(content)

    data = read(tmp_path)

    assert ({name: len(data.part(name)) for name in data.parts}, data.class_names) == (
        {"train": 6, "test": 2},
        ("0", "1"),
    )


def test_junk_is_no_class(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png", "__MACOSX/a/._1.png", ".ipynb_checkpoints/3.png")
    for junk in (".DS_Store", "a/Thumbs.db", "a/notes.txt", "labels.md"):
        (root / junk).write_text("junk")
    (root / "empty").mkdir()

    data = read(root)

    assert (data.class_names, len(data), data.source.skipped) == (("a", "b"), 2, ())


@pytest.mark.parametrize(
    ("files", "size", "says"),
    [
        ([(16, 16)] * 4, None, "16x16 grey"),
        ([(300, 400)] * 4, None, "111x83 grey"),
        ([(300, 400), (400, 300)] * 2, None, "96x96 grey"),
        ([(300, 400)] * 4, 32, "32x32 grey"),
        ([(300, 400)] * 4, (24, 32), "32x24 grey"),
        ([(20, 30), (30, 20)] * 2, None, "20x20 grey"),
    ],
)
def test_the_size_is_chosen_by_the_pictures(files: list[tuple[int, int]], size: Any, says: str, tmp_path: Path) -> None:
    for number, (height, width) in enumerate(files):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number, height, width)).convert("L").save(path)

    assert str(read(tmp_path / "set", size=size).spec) == says


def test_colour_files_without_colours_become_grey(tmp_path: Path) -> None:
    for number in range(4):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number)).convert("L").convert("RGB").save(path)

    data = read(tmp_path / "set")

    assert data.spec.channels == 1 and data.source.description.endswith("grey images in colour files")
    assert read(tmp_path / "set", colour=True).spec.channels == 3


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_other_proportions_are_brought_to_size_as_in_the_model_file(fit: str, tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png", "b/4.png")
    wide = photo(9, 20, 60)
    (root / "a" / "3.png").write_bytes(encoded(Image.fromarray(wide), "x.png"))

    data = read(root, size=24, fit=fit)
    clf = hangtag.ImageClassifier(recipe="tutorial", epochs=1).fit(data)
    row = data.images[list(data.names).index("a/3.png")]

    np.testing.assert_array_equal(clf.predictor_.probabilities(wide[None]), clf.predictor_.probabilities(row[None]))
    assert clf.predictor_.spec.fit == fit
    if fit == "pad":
        assert (row[:8] == data.spec.background).all() and (row[16:] == data.spec.background).all()


# --- files that are wrong --------------------------------------------------------------------------------------


def broken(root: Path) -> dict[str, str]:
    """Wrong files in a folder of good ones, each with the reason it must be set aside for."""
    whole = encoded(Image.fromarray(photo(3)), "x.jpg")
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\r" + chunk + struct.pack(">I", zlib.crc32(chunk))
    bomb += b"\0\0\0\x01IDATx" + struct.pack(">I", zlib.crc32(b"IDATx"))
    files = {
        "a/empty.png": (b"", "empty"),
        "a/text.jpg": (b"I am a text", "not an image"),
        "a/cut.jpg": (whole[: len(whole) * 4 // 5], "truncated"),
        "a/bomb.png": (bomb, "too large"),
        "b/noise.png": (b"\x89PNG\r\n\x1a\n" + bytes(range(100)), "damaged"),
    }
    for name, (content, _) in files.items():
        (root / name).write_bytes(content)
    return {name: kind for name, (_, kind) in files.items()}


def test_files_that_cannot_be_read_are_set_aside_with_a_reason(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png", "b/3.png")
    expected = broken(root)

    data = read(root)

    assert {each.name: each.kind for each in data.source.skipped} == expected
    assert (len(data), sorted(data.names)) == (3, ["a/1.png", "b/2.png", "b/3.png"])
    assert data.source.notes[-1].startswith("skipped 5 files: ")
    assert skipped_table(data).splitlines()[0] == "name,kind,reason"
    assert len(skipped_table(data).splitlines()) == 6
    assert data.fingerprint == read(tree(tmp_path / "other", "a/1.png", "b/2.png", "b/3.png")).fingerprint


@needs_heic
def test_heic_pictures_are_set_aside_without_their_extra_and_read_once_it_is_there(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png")
    (root / "a" / "IMG_1.HEIC").write_bytes(encoded(Image.fromarray(photo(7, 16, 16)), "x.heic"))
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text("import sys\nsys.modules['pillow_heif'] = None\n")
    program = f"""
import hangtag
data = hangtag.read({str(root)!r})
print(len(data), *data.source.notes, *(each.reason for each in data.source.skipped), sep="; ")
"""
    without = os.pathsep.join([str(tmp_path / "without"), str(Path(hangtag.__file__).parents[1])])

    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": without}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip

    assert done.stdout == (
        "2; skipped 1 file: 1 HEIC (pip install 'hangtag[heic]'); "
        "HEIC images need hangtag[heic], which is not installed\n"
    )
    assert sorted(read(root).names) == ["a/1.png", "a/IMG_1.HEIC", "b/2.png"]


def test_strict_stops_at_them(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png")
    (root / "a" / "bad.jpg").write_bytes(b"no")

    assert "a/bad.jpg: not an image" in str(refused(root, strict=True))


def test_links_are_followed_inside_and_refused_outside(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png")
    outside = tree(tmp_path / "outside", "c/3.png")
    (root / "b" / "inside.png").symlink_to(root / "a" / "1.png")
    (root / "b" / "outside.png").symlink_to(outside / "c" / "3.png")
    (root / "b" / "gone.png").symlink_to(root / "nothing.png")
    (root / "b" / "round").symlink_to(root / "b")
    (root / "c").symlink_to(outside / "c")

    data = read(root)

    assert sorted(data.names) == ["a/1.png", "b/2.png", "b/inside.png"]
    kinds_of = {each.name: each.kind for each in data.source.skipped}
    assert kinds_of == {
        "b/outside.png": "link outside", "b/gone.png": "not a file", "b/round": "circular link", "c": "link outside",
    }  # fmt: skip


def test_archives_with_members_that_lead_elsewhere(tmp_path: Path) -> None:
    content = encoded(Image.fromarray(photo(1, 16, 16)), "x.png")
    other = encoded(Image.fromarray(photo(2, 16, 16)), "x.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in ("a/1.png", "../b/2.png", "/etc/3.png"):
            packed.writestr(name, content)
        packed.writestr("b/4.png", other)
        packed.writestr("a/inner.zip", b"PK")
        packed.writestr("a/bomb.bmp", b"\0" * 30_000_000)
        link = zipfile.ZipInfo("a/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for path in tree(tmp_path / "good", "a/1.png", "b/2.png").rglob("*.png"):
            tar.add(path, str(path.relative_to(tmp_path / "good")))
        entry = tarfile.TarInfo("../a/out.png")
        tar.addfile(entry)
        entry = tarfile.TarInfo("a/link.png")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)

    in_zip, in_tar = read(tmp_path / "a.zip"), read(tmp_path / "a.tar")

    assert {each.name: each.kind for each in in_zip.source.skipped} == {
        "../b/2.png": "name outside", "/etc/3.png": "name outside", "a/inner.zip": "archive",
        "a/bomb.bmp": "suspicious compression",
        "a/link.png": "link",
    }  # fmt: skip
    assert {each.name: each.kind for each in in_tar.source.skipped} == {
        "../a/out.png": "name outside",
        "a/link.png": "link",
    }
    assert (sorted(in_zip.names), sorted(in_tar.names)) == (["a/1.png", "b/4.png"], ["a/1.png", "b/2.png"])


def test_an_encrypted_member_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for number, name in enumerate(("a/1.png", "a/2.png", "b/3.png")):
            packed.writestr(name, encoded(Image.fromarray(photo(number, 16, 16)), "x.png"))
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    content[place + 8] |= 1  # of the first member, in the directory
    path.write_bytes(bytes(content))

    assert [(each.name, each.kind) for each in read(path).source.skipped] == [("a/1.png", "encrypted")]


@pytest.mark.parametrize("name", ["cut.zip", "cut.tar", "cut.tar.gz", "cut.parquet", "cut.npz", "cut.tar.xz"])
def test_an_archive_cut_short_is_one_clear_error(name: str, forms: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "whole.npz", images=np.zeros((40, 20, 20), np.uint8), labels=np.arange(40) % 2)
    form = {"parquet": "raw"}.get(name.removeprefix("cut."), name.removeprefix("cut."))
    source = tmp_path / "whole.npz" if form == "npz" else forms[form]
    content = source.read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: len(content) // 3])

    if name == "cut.tar":  # its whole members can be read; that the last one is cut is said
        try:
            assert read(path).source.skipped
        except DataError as error:
            assert str(path) in str(error)
        return
    assert str(path) in refused(path).message


def test_python_objects_in_an_array_file_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, images=np.array([object()], dtype=object), labels=np.array([1]))

    assert "Python objects" in refused(path).message


# --- tables ----------------------------------------------------------------------------------------------------


def test_missing_files_are_counted_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file,label\n" + "".join(f"no/{number}.png,{'ab'[number % 2]}\n" for number in range(5)))

    error = refused(path)

    assert error.message == (f"{path}: 5 of 5 images were not found under {tmp_path}: no/0.png, no/1.png, no/2.png")
    assert "--root" in error.hint


def test_a_row_without_its_file_or_label_is_set_aside(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "1.png", "2.png", "3.png", "4.png")
    (root / "a.csv").write_text("file,label\n1.png,a\n2.png,b\n3.png,\n4.png,b\nmissing.png,a\n")

    data = read(root / "a.csv")

    assert {each.kind for each in data.source.skipped} == {"no label", "no such file"}
    assert list(data.names) == ["1.png", "2.png", "4.png"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("file,label,class\n1.png,a,x\n2.png,b,y\n3.png,a,y\n4.png,b,x\n", "which column contains the labels"),
        ("file,other,label\n1.png,2.png,a\n2.png,1.png,b\n3.png,4.png,a\n4.png,3.png,b\n", None),
        ("one,two,label\n1.png,2.png,a\n2.png,1.png,b\n3.png,4.png,a\n4.png,3.png,b\n", "contains the images"),
        ("file\n1.png\n2.png\n3.png\n4.png\n", "no column contains labels"),
        ("number,label\n7,a\n8,b\n9,a\n", "no column contains images"),
        ("file,label\n1.png,a\n2.png,a\n3.png,a\n", "there is only one class: a"),
        ("file,label\n1.png,\n2.png,\n", "column label is empty"),
        ("file,label,label\n1.png,a,b\n", "two columns are named label"),
        ("file,label\n1.png,a,b,c\n", "row 2 has 4 values for 2 columns"),
        ("", "the table is empty"),
        ("file,label\n", "the table has no rows"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_understood(table: str, says: str | None, tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "1.png", "2.png", "3.png", "4.png")
    (root / "a.csv").write_text(table)

    if says is None:
        assert len(read(root / "a.csv")) == 4
    else:
        assert says in str(refused(root / "a.csv"))


@pytest.mark.parametrize("name", ["{part}/{label}/{number}.png", "{label}/{part}/{number}.png"])
def test_parts_in_folders_of_their_own_stay_in_their_file(name: str, tmp_path: Path) -> None:
    parts = {"train": 3, "val": 2, "test": 1}
    names = [
        name.format(part=part, label=label, number=number)
        for part, count in parts.items()
        for label in "ab"
        for number in range(count)
    ]

    data = read(tree(tmp_path / "set", *names))

    assert data.parts == {"train": slice(0, 6), "validation": slice(6, 10), "test": slice(10, 12)}
    assert all(mapping_of(data.part(part).images) is not None for part in data.parts)
    assert [name.partition(".")[0][-1] for name in data.names] == [*"012012", *"0101", *"00"]


MIXED = """file,label,patient,split
0.png,a,x,test
1.png,b,y,train
2.png,a,x,val
3.png,b,z,train
4.png,a,x,train
5.png,a,y,train
6.png,b,z,test
7.png,a,x,val
"""


def test_parts_that_a_table_mixes_lie_side_by_side_with_all_that_is_known_of_each_picture(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", *(f"{number}.png" for number in range(8)))
    (root / "4.png").write_bytes(b"no picture")
    (root / "a.csv").write_text(MIXED)
    (root / "decided.csv").write_text("name,decision\n1.png,drop\n6.png,relabel: a\n")

    first, again = (read(root / "a.csv", group_by="patient") for _ in range(2))
    decided = read(root / "a.csv", group_by="patient", decisions=root / "decided.csv")

    for data in (first, again):
        assert data.parts == {"train": slice(0, 3), "validation": slice(3, 5), "test": slice(5, 7)}
        assert list(data.names) == [f"{number}.png" for number in (1, 3, 5, 2, 7, 0, 6)]
        np.testing.assert_array_equal(data.images, [photo(number, 16, 16) for number in (1, 3, 5, 2, 7, 0, 6)])
        assert data.labels.tolist() == [1, 1, 0, 0, 0, 0, 1]
        assert data.groups is not None
        assert [data.group_names[group] for group in data.groups] == [*"yzyxxxz"]
        assert [each.name for each in data.source.skipped] == ["4.png"]
    assert {part: list(decided.part(part).names) for part in decided.parts} == {
        "train": ["3.png", "5.png"], "validation": ["2.png", "7.png"], "test": ["0.png", "6.png"],
    }  # fmt: skip
    assert decided.test.labels.tolist() == [0, 0]


def test_given_training_and_validation_parts_stay_in_their_file(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", *(f"{number}.png" for number in range(8)))
    (root / "a.csv").write_text(MIXED)

    both, split = split_of(read(root / "a.csv"), 0.1, seed=0)

    assert mapping_of(both.images) is not None
    assert {both.names[position] for position in split.validation} == {"2.png", "7.png"}
    assert {both.names[position] for position in split.train} == {"1.png", "3.png", "4.png", "5.png"}


def test_columns_can_be_named_and_parts_come_from_a_column(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "1.png", "2.png", "3.png", "4.png")
    (root / "a.csv").write_text(
        "one,two,label,class,split\n1.png,2.png,a,x,train\n2.png,1.png,b,y,train\n3.png,4.png,a,y,Test\n4.png,3.png,b,x,val\n"
    )

    data = read(root / "a.csv", image_column="two", label_column="class")

    assert list(data.names) == ["2.png", "1.png", "3.png", "4.png"]  # those that validate before those that test
    assert {name: len(data.part(name)) for name in data.parts} == {"train": 2, "validation": 1, "test": 1}
    assert data.class_names == ("x", "y")
    assert isinstance(refused(root / "a.csv", label_column="clas"), UnknownName)


def test_a_table_may_lack_its_header(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "1.png", "2.png", "3.png", "4.png")
    (root / "a.csv").write_text("1.png,a\n2.png,b\n3.png,b\n4.png,a\n")

    data = read(root / "a.csv")

    assert (len(data), data.class_names, data.labels.tolist()) == (4, ("a", "b"), [0, 1, 1, 0])


def test_pictures_may_lie_in_a_folder_beside_the_table(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", "images/1.png", "images/2.png")
    own = tree(tmp_path / "own", "train/1.png", "train/2.png", "test/1.png")
    both = tree(tmp_path / "both", "left/1.png", "left/2.png", "right/1.png")
    for root in (one, own, both):
        (root / "train.csv").write_text("id,label\n1,a\n2,b\n")

    assert read(one).names[0] == read(one / "train.csv").names[0] == "1.png"
    assert read(own / "train.csv").fingerprint == read(own).fingerprint == read(one).fingerprint
    assert "a name in the column 'id' fits several files" in str(refused(both / "train.csv"))
    assert read(both / "train.csv", root=both / "left").fingerprint == read(one).fingerprint


def test_a_folder_with_two_tables_is_asked_about(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "images/1.png", "images/2.png")
    for name in ("labels.csv", "metadata.csv"):
        (root / name).write_text("id,label\n1,a\n2,b\n" if name == "labels.csv" else "id,label\n1,c\n2,d\n")

    assert "'labels.csv': the table labels.csv; or 'metadata.csv'" in str(refused(root))
    assert read(root, choose=lambda question, answers: answers[1][0]).class_names == ("c", "d")


def test_a_group_that_is_no_column_offers_the_nearest(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "1.png", "2.png")
    (root / "a.csv").write_text("file,label,patient\n1.png,a,x\n2.png,b,y\n")

    assert "did you mean the column 'patient'?" in str(refused(root / "a.csv", group_by="patnt"))
    assert read(root / "a.csv", group_by="patient").group_names == ("x", "y")


def test_mixed_labels_are_refused(tmp_path: Path) -> None:
    paths = [str(tree(tmp_path / "set", "1.png") / "1.png")] * 3

    assert "must be all names or all whole numbers" in str(refused({"image": paths, "label": ["a", 1, 2]}))


def test_numbers_get_the_names_that_the_table_gives(tmp_path: Path) -> None:
    import json

    import pyarrow
    import pyarrow.parquet

    said = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    contents = [encoded(Image.fromarray(photo(number, 16, 16)), "x.png") for number in range(4)]
    table = pyarrow.table({"img": contents, "label": [0, 1, 1, 0]}).replace_schema_metadata(
        {"huggingface": json.dumps(said)}
    )
    pyarrow.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")

    data = read(tmp_path / "train-00000-of-00001.parquet")

    assert (data.class_names, list(data.labels), list(data.parts)) == (("cat", "dog"), [0, 1, 1, 0], ["train"])


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((3, 8, 8), np.uint8), [0, 1], "3 images but 2 labels"),
        (np.zeros((2, 8, 8), complex), [0, 1], "expected numbers, got complex128"),
        (np.zeros((2, 64), np.uint8), [0, 1], "expected shape (N, H, W)"),
        (np.zeros((2, 8, 8), np.uint8), [0, 0], "there is only one class"),
    ],
)
def test_arrays_that_cannot_be_used(images: Any, labels: list[int], says: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=images, y_train=np.array(labels))

    assert says in str(refused(tmp_path / "a.npz"))


def test_parts_of_an_array_file(tmp_path: Path) -> None:
    images = np.stack([photo(number, 12, 12) for number in range(8)])
    np.savez(tmp_path / "a.npz", train_images=images[:5], train_labels=[[0], [1], [0], [1], [1]],
             test_images=images[5:], test_labels=[[0], [1], [0]])  # fmt: skip

    data = read(tmp_path / "a.npz")

    assert ({name: len(data.part(name)) for name in data.parts}, data.class_names) == (
        {"train": 5, "test": 3},
        ("0", "1"),
    )


# --- everything else -------------------------------------------------------------------------------------------


def test_what_is_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(b"abc")

    assert "hangtag cannot read this kind of file" in str(refused(tmp_path / "a.xyz"))
    assert "cannot read labelled images from int" in str(refused(3))
    assert isinstance(refused(tmp_path / "a.png", fit="stretch"), UnknownName)
    assert "size must be 8 to 1024 pixels, got 4" in str(refused(tmp_path, size=4))
    for size in ((24,), "24", (24, 24, 3), (24.0, 24)):
        assert "size must be a number of pixels, or (height, width)" in str(refused(tmp_path, size=size))
    for name, advice in (
        ("a.pkl", "never loaded"),
        ("a.xlsx", "as CSV"),
        ("a.JPG", "hangtag predict"),
        ("a.7z", "unpack"),
    ):
        (tmp_path / name).write_bytes(b"abc")
        assert advice in refused(tmp_path / name).hint


def test_a_folder_that_may_not_be_entered_is_set_aside(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "b/2.png", "c/3.png")
    program = f"""
import os
os.environ["XDG_CACHE_HOME"] = {str(tmp_path / "cache")!r}
from hangtag.data.store.containers import Folder
os.chmod({str(root / "c")!r}, 0)
if os.geteuid() == 0:
    os.seteuid(65534)
print([(each.name, each.kind) for each in Folder({str(root)!r}).listing().skipped])
"""
    for folder in (tmp_path, *tmp_path.parents):
        if os.geteuid() == 0 and Path(tempfile.gettempdir()) in folder.parents:  # only pytest's own folders
            folder.chmod(0o755)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    (root / "c").chmod(0o755)
    assert done.stdout.strip() == "[('c', 'permission denied')]", done.stderr


def test_colour_may_be_spelt_either_way(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", "a/1.png", "a/2.png", "b/3.png", "b/4.png")

    assert read(root, color=False).spec == read(root, colour=False).spec
    assert read(root, color=True).spec.channels == 3
    with pytest.raises(UsageError, match="colour=True contradicts color=False"):
        read(root, colour=True, color=False)


def test_every_kind_of_picture_reads_as_one_and_the_same() -> None:
    spec = ImageSpec(40, 48, 1)
    exact = {"grey.png", "deep.png", "float.tiff", "colour.png", "map.bmp", "scan.tif", "plain.ppm"}
    wanted, _ = decode(encoded(kinds()["grey.png"], "grey.png"), spec)
    for name in exact:
        found, _ = decode(encoded(kinds()[name], name), spec)
        assert int(np.abs(found.astype(int) - wanted.astype(int)).max()) <= 1, name
