"""Random layouts of data sets, and those of published ones, are read right, refused, or noted; never wrong in silence.

The campaign over many thousands is `scripts/soak_layouts.py`.
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hangtag
from hangtag.errors import HangtagError
from known_layouts import FAMILIES, KNOWN, Make, family_of
from layouts import SILENT, Draw, Example, Layout, checked, code_of, encoded, kept_workers, picture, write

LAYOUTS = 100


@pytest.fixture(autouse=True, scope="module")
def workers() -> Iterator[None]:
    with kept_workers():
        yield


def test_random_layouts_are_read_right_or_not_in_silence(tmp_path: Path) -> None:
    failures, kinds = {}, Counter[str]()
    for number in range(LAYOUTS):
        seed = f"test/{number}"
        family = family_of(seed)
        draw = Draw(seed)
        outcome = checked(hangtag.read, HangtagError, FAMILIES[family][0](draw, tmp_path / seed))
        kinds[outcome.kind] += 1
        if outcome.kind in SILENT:
            failures[seed] = (family, draw.made, outcome)
        shutil.rmtree(tmp_path / seed, ignore_errors=True)

    assert not failures, f"python scripts/soak_layouts.py --only SEED: {failures}"
    assert kinds["right"] > LAYOUTS / 2, kinds


@pytest.mark.parametrize("make", KNOWN, ids=lambda make: make.__name__)
def test_a_known_layout_is_read_right_or_not_in_silence(tmp_path: Path, make: Make) -> None:
    outcome = checked(hangtag.read, HangtagError, make(Draw("known/0"), tmp_path / "data"))

    assert outcome.kind not in SILENT, outcome


def test_a_picture_tells_its_number_and_an_altered_one_does_not() -> None:
    images = [picture(code, 8, 12) for code in range(0, 4096, 5)]

    assert [code_of(image) for image in images] == list(range(0, 4096, 5))
    assert sum(code_of(255 - image) is not None for image in images) < len(images) / 8
    assert code_of((images[1] // 2).astype(np.uint8)) is None


@pytest.mark.parametrize(
    ("truth", "options", "kind"),
    [
        ([Example(1, "a"), Example(2, "b")], {}, "right"),
        ([Example(1, "b"), Example(2, "a")], {}, "wrong"),
        ([Example(1, "a", "train"), Example(2, "b", "train")], {}, "wrong"),
        ([Example(1, "a"), Example(3, "b")], {}, "wrong"),
        ([Example(1, "a"), Example(2, "b"), Example(3, "b")], {}, "wrong"),
        ([Example(1, "a"), Example(2, "b")], {"said": [("mask",)]}, "unsaid"),
        ([Example(1, "a"), Example(2, "b")], {"skipped": ["broken.png"]}, "unsaid"),
    ],
)
def test_the_check_finds_another_reading(
    tmp_path: Path, truth: list[Example], options: dict[str, list[str]], kind: str
) -> None:
    write(tmp_path / "x", {"a/1.png": encoded(picture(1)), "b/2.png": encoded(picture(2))})

    outcome = checked(hangtag.read, HangtagError, Layout(tmp_path / "x", truth, **options))

    assert outcome.kind == kind, outcome


@pytest.mark.parametrize(("doubtful", "kind"), [(True, "noted"), (False, "wrong")])
def test_folders_beside_a_table_are_honest_if_the_table_is_said_not_to_be_read(
    tmp_path: Path, doubtful: bool, kind: str
) -> None:
    files = {
        f"{label}/{number}.png": encoded(picture(4 * "ab".index(label) + number)) for label in "ab" for number in (1, 2)
    }
    rows = ["image,label", "1.png,a", "2.png,"]
    write(tmp_path / "x", {**files, "labels.csv": "\n".join(rows).encode()})
    truth = [Example(1, "a")]
    layout = Layout(tmp_path / "x", truth, doubtful=doubtful, said=[("labels",), ("no label", "without a label")])

    outcome = checked(hangtag.read, HangtagError, layout)

    assert outcome.kind == kind, outcome
