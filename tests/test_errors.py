"""Every error says what is wrong and what to do, and survives the way from one process to another."""

import json
import pickle
import re
import tomllib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import hangtag
from hangtag import errors
from hangtag.errors import (
    DataError,
    DataNotFound,
    HangtagError,
    MissingAttribute,
    MissingExtra,
    ModelNotFound,
    PathNotFound,
    PictureError,
    PictureNotFound,
    RunNotFound,
    UnknownName,
    UsageError,
)  # fmt: skip
from hangtag.evaluation.run_folder import find_run
from hangtag.pictures import ImageSpec, decode
from toys import in_a_process

CLASSES = sorted(set(errors.__all__) - {"PictureProblem", "HangtagWarning", "logger", "warn"})


def test_the_tree_in_the_docstring_is_the_tree_of_the_code() -> None:
    drawn = re.findall(r"^ {4}([| `-]*)([A-Z]\w+) ", errors.__doc__ or "", flags=re.MULTILINE)
    above: dict[int, str] = {}
    parents = {}
    for branch, name in drawn:
        depth = len(branch) // 4
        above[depth] = name
        parents[name] = above.get(depth - 1, "Exception")

    real = {name: getattr(errors, name).__bases__[0].__name__ for name in CLASSES}

    assert parents == real


def test_every_class_of_the_module_is_public() -> None:
    classes = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, HangtagError)]

    assert sorted(item.__name__ for item in classes) == CLASSES


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_cannot_be_made_without_a_hint(name: str) -> None:
    with pytest.raises(TypeError, match="hint"):
        getattr(errors, name)("something is wrong")


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_shows_its_message_and_its_hint(name: str) -> None:
    error = getattr(errors, name)("a.png: empty", "replace it")

    assert isinstance(error, HangtagError)
    assert str(error) == "a.png: empty (replace it)"
    assert error.to_json() == {"error": "a.png: empty", "hint": "replace it"}


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_survives_pickling(name: str) -> None:
    error = getattr(errors, name)("a.png: empty", "replace it")

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), copy.message, copy.hint) == (type(error), "a.png: empty", "replace it")


def test_a_picture_error_names_the_picture_and_keeps_its_kind() -> None:
    copy = pickle.loads(pickle.dumps(PictureError("the file is empty", "replace it", "empty", "a.png")))

    assert (copy.message, copy.reason, copy.kind) == ("a.png: the file is empty", "the file is empty", "empty")
    assert PictureError("odd", "replace it").kind == "damaged"


def test_an_error_crosses_to_another_process_and_back() -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other, pytest.raises(PictureError) as caught:
        other.submit(decode, "no such.png", ImageSpec(8, 8)).result()

    assert str(caught.value) == "no such.png: no such file (check the spelling and the folder you are in)"


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("tutoral", "did you mean 'tutorial'? known: fast, tutorial"),
        ("TUTORIAL", "did you mean 'tutorial'? known: fast, tutorial"),
        ("zzz", "known: fast, tutorial"),
        ("", "known: fast, tutorial"),
    ],
)
def test_an_unknown_name_offers_the_nearest_one(given: str, hint: str) -> None:
    error = UnknownName.among("recipe", given, ["tutorial", "fast"])

    assert (error.message, error.hint) == (f"unknown recipe '{given}'", hint)


def test_an_unknown_name_can_say_what_else_would_do() -> None:
    assert UnknownName.among("data set", "x", ["a"], ", or a folder").hint == "known: a, or a folder"


def test_a_missing_extra_says_how_to_install_it() -> None:
    error = MissingExtra.named("train", "torch")

    assert str(error) == "this needs 'torch', which is not installed (pip install 'hangtag[train]')"


def test_every_package_of_an_extra_is_known_by_its_extra() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {extra: " ".join(needed) for extra, needed in project["optional-dependencies"].items()}
    modules = {"scikit-learn": "sklearn", "python-multipart": "python_multipart", "pillow-heif": "pillow_heif"}
    for package in ("torch", "scikit-learn", "pyarrow", "fsspec", "pillow-heif", "optuna", "ray", "fastapi",
                    "python-multipart", "tensorboard", "mlflow"):  # fmt: skip
        error = MissingExtra.for_module(f"{modules.get(package, package)}.part")
        assert error is not None
        extra = error.hint.partition("[")[2].partition("]")[0]
        assert re.search(rf"\b{package}\b", extras[extra]), (package, extra)
    assert MissingExtra.for_module("json") is None and MissingExtra.for_module(None) is None


@pytest.mark.parametrize(
    ("kind", "pythons"),
    [
        (UsageError, ValueError), (UnknownName, ValueError), (DataError, ValueError), (PictureError, ValueError),
        (MissingExtra, ImportError), (MissingAttribute, AttributeError), (PathNotFound, FileNotFoundError),
        (DataNotFound, FileNotFoundError), (PictureNotFound, FileNotFoundError), (ModelNotFound, FileNotFoundError),
        (RunNotFound, FileNotFoundError),
    ],
)  # fmt: skip
def test_errors_are_also_pythons_own(kind: type[HangtagError], pythons: type[Exception]) -> None:
    error = pickle.loads(pickle.dumps(kind("what is wrong", "what to do")))

    assert isinstance(error, pythons) and isinstance(error, HangtagError)
    assert (type(error), str(error)) == (kind, "what is wrong (what to do)")


def test_a_missing_path_is_a_file_not_found_error(tmp_path: Path) -> None:
    asked: list[Callable[[], object]] = [
        lambda: hangtag.read(tmp_path / "none"), lambda: hangtag.read("no-such-set"),
        lambda: hangtag.load(tmp_path / "none.onnx"), lambda: find_run(str(tmp_path / "none")),
        lambda: decode(tmp_path / "none.png", ImageSpec(8, 8)),
    ]  # fmt: skip
    for each in asked:
        with pytest.raises(FileNotFoundError) as caught:
            each()
        assert isinstance(caught.value, HangtagError) and caught.value.hint


WITHOUT_EXTRAS = """
import sys, pydoc
sys.modules |= dict.fromkeys(("torch", "sklearn", "matplotlib", "onnx", "scipy", "safetensors"))
import hangtag
print(hasattr(hangtag, "figures"), hasattr(hangtag, "ImageClassifier"), hasattr(hangtag, "load"))
print("hangtag: from labelled images" in pydoc.render_doc(hangtag))
for line in ("hangtag.figures", "from hangtag import ImageClassifier"):
    try:
        exec(line)
    except (AttributeError, ImportError) as error:
        print(type(error).__name__, error)
"""


def test_a_base_install_has_help_and_says_what_its_missing_names_need(tmp_path: Path) -> None:
    assert in_a_process(WITHOUT_EXTRAS, tmp_path).splitlines() == [
        "False False True",
        "True",
        "MissingAttribute hangtag.figures: this needs 'matplotlib', which is not installed "
        "(pip install 'hangtag[train]')",
        "MissingExtra this needs 'sklearn', which is not installed (pip install 'hangtag[train]')",
    ]


def test_an_error_travels_to_another_process_as_strings() -> None:
    sent = json.loads(json.dumps(UsageError("x must be 1, got 2", "give 1").to_plain()))

    found = HangtagError.of_plain(sent, "on node east: ")

    assert (type(found), found.message, found.hint) == (UsageError, "on node east: x must be 1, got 2", "give 1")
    assert type(HangtagError.of_plain({**sent, "kind": "difflib"})) is HangtagError
