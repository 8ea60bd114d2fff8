"""Names that mean the same are one class in every form of data, and names that look alike are named in a note."""

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hangtag.data.class_names import clean_name, joined_names, matching_class
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.read import read
from pictures import encoded, photo

NFD = unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["café", NFD], {"café"}),
        (["cat", " cat", "cat ", "cat\u00a0", "\ufeffcat", "c\u200bat", "cat\u200d"], {"cat"}),
        (["1", "1.0", "2"], {"1", "2"}),
        (["0.0", "1.0"], {"0", "1"}),
        (["1.0", "1", "2.5"], {"1", "2.5"}),
        (["1.0", "2.5"], {"1.0", "2.5"}),
        (["-1", "1", "+"], {"-1", "1", "+"}),
        (["caf\udce9", "caf\udcea"], {"caf\\xe9", "caf\\xea"}),
        (["می\u200cخواهم", "👩\u200d🚀"], {"می\u200cخواهم", "👩\u200d🚀"}),
    ],
)
def test_names_that_mean_the_same_are_one(given: list[str], names: set[str]) -> None:
    joined, notes = joined_names(given)

    assert set(joined) == names
    assert any("spellings are read as" in note for note in notes) == (len(given) > len(names))
    assert set(joined_names(joined)[0]) == names  # reading them again changes nothing


@pytest.mark.parametrize(
    "given",
    [
        ["Cat", "cat"], ["New York", "New  York"], ["New York", "New\u00a0York"], ["ｃat", "cat"], ["сat", "cat"],
        ["1", "01"], ["1", "1.0", "one"], ["cat", "cat - Copy"], ["cat", "Copy of cat"],
        ["dog", "dog (2)"], ["a", "a_aug"], ["ice-cream", "ice_cream"], ["class 1", "class1"], ["👩\u200d🚀", "👩🚀"],
    ],
)  # fmt: skip
def test_names_that_only_look_alike_stay_two_and_a_note_names_them(given: list[str]) -> None:
    joined, notes = joined_names(given)

    assert joined == given
    assert len(notes) == 1 and "look alike" in notes[0] and notes[0].isprintable()


@pytest.mark.parametrize(
    ("given", "note"),
    [
        (["cat", "nan"], "'nan' is read as a class; images without a label"),
        (["cat", "None", "Unlabelled", "N/A"], "'N/A', 'None', 'Unlabelled' are read as classes"),
        (["-1", "0", "1"], "'-1' is read as a class"),
        (["Mass", "Nodule", "Mass|Nodule"], "1 class may be several labels each: 'Mass|Nodule'"),
        (["a", "b, c", "c;d", "c"], "2 classes may be several labels each: 'b, c', 'c;d'"),
        (["clear", "clear water", "water clear"], "2 classes may be several labels each: 'clear water', 'water clear'"),
        ([" ".join("abc"[:n][at:]) for n in (1, 2, 3) for at in range(n)], "may be several labels each: 'a b', "),
    ],
)
def test_names_that_may_be_no_class_or_several_are_named(given: list[str], note: str) -> None:
    assert joined_names(given)[0] == given
    assert [note in each for each in joined_names(given)[1]] == [True]


@pytest.mark.parametrize(
    "given",
    [
        ["cat", "cut"], ["-1", "1"], [".net", "net"], ["1", "10"], ["v1.1", "v11"], ["C", "C++"],
        ["sign (1)", "sign (2)"], ["Washington, D.C.", "Paris, Texas"], ["red car", "blue car", "red bus", "blue bus"],
        ["unknown", "other"], ["hot dog", "hot"], ["-2", "-1", "x"],
    ],
)  # fmt: skip
def test_other_names_need_no_note(given: list[str]) -> None:
    assert joined_names(given) == (given, [])


def test_a_class_is_found_by_its_exact_name_first() -> None:
    assert matching_class(NFD, (NFD, "café")) == NFD
    assert matching_class(NFD, ("café", "thé")) == "café"
    assert matching_class("cafe", ("café", "thé")) is None
    assert clean_name("\u200b") == "\u200b"  # a name is never empty


def test_every_form_of_data_has_the_same_classes(tmp_path: Path) -> None:
    images = np.stack([photo(number, 16, 16) for number in range(8)])
    labels = ["café", NFD, " café", "caf\u200bé", "thé", "thé", "thé", "thé "]
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "set" / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(Image.fromarray(image), "x.png"))
    paths = [f"set/{label}/{number}.png" for number, label in enumerate(labels)]
    rows = [f'"{path}","{label}"' for path, label in zip(paths, labels, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    np.savez(tmp_path / "a.npz", images=images, labels=np.array(labels))
    pairs = list(zip(images, labels, strict=True))
    forms: list[object] = [
        tmp_path / "set", tmp_path / "a.csv", tmp_path / "a.npz", (images, labels), pairs,
        {"image": [tmp_path / path for path in paths], "label": labels},
    ]  # fmt: skip

    read_as = [read(form) for form in forms]

    assert {data.class_names for data in read_as} == {("café", "thé")}
    assert len({data.fingerprint for data in read_as}) == 1
    assert all(any("spellings are read as" in note for note in data.source.notes) for data in read_as)


def test_names_that_are_not_text_are_read_and_shown_with_escapes(tmp_path: Path) -> None:
    root = tmp_path / "latin\udce9"
    for number, folder in enumerate(["caf\udce9", "red\x1b[31m\n"] * 3):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / f"{number}\udcff.png").write_bytes(encoded(Image.fromarray(photo(number, 16, 16)), "x.png"))
    (root / "caf\udce9" / "bad\udce9\n.png").write_bytes(b"not a picture")

    data, again = read(root), read(root)

    assert data.class_names == again.class_names == ("caf\\xe9", "red\\x1b[31m")
    assert data.name == "latin\\xe9" and data.names[0] == "caf\\xe9/0\\xff.png"
    assert [each.name for each in data.source.skipped] == ["caf\\xe9/bad\\xe9\\n.png"]
    assert _is_plain_text(data) and again.fingerprint == data.fingerprint


def _is_plain_text(data: LabelledImages) -> bool:
    shown = {name: value for name, value in data.to_json().items() if name != "origin"}
    return json.dumps([shown, list(data.names)], ensure_ascii=False).encode().decode().isprintable()
