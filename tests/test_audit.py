"""What is planted into data is found and said; decisions change what is trained on, and no file."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from hangtag.audit import KINDS, audit, write_audit
from hangtag.audit_page import write_page
from hangtag.containers import Skipped
from hangtag.decisions import apply_decisions
from hangtag.decoder import FACTS
from hangtag.errors import DataError, HangtagError, UnknownName, UsageError
from hangtag.labelled import LabelledImages, from_arrays
from hangtag.splits import split_of
from hangtag.suspects import suspect_labels
from test_duplicates import changed, textured


@pytest.fixture(scope="module")
def digits() -> tuple[LabelledImages, np.ndarray]:
    """Real digits, 3 % of them with another label, and which."""
    found = load_digits()
    random = np.random.default_rng(1)
    labels = found.target.copy()
    flipped = random.choice(len(labels), 54, replace=False)
    labels[flipped] = (labels[flipped] + random.integers(1, 10, 54)) % 10
    return from_arrays((found.images * 15.9375).astype(np.uint8), labels), flipped


def test_planted_labels_are_suspected_first(digits: tuple[LabelledImages, np.ndarray]) -> None:
    data, flipped = digits

    found = suspect_labels(data)

    assert np.isin(found.positions[:40], flipped).mean() > 0.8
    assert np.isin(flipped, found.positions).mean() > 0.8
    assert found.probabilities.shape == (1797, 10) and np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.quality[flipped].mean() < 0.2
    assert np.delete(found.quality, flipped).mean() > 0.8


def troubled() -> LabelledImages:
    """120 pictures of two classes with one thing of each kind planted."""
    images = textured(120)
    labels = np.arange(120) % 2
    images[10] = 90  # blank
    images[12] //= 20  # dark
    images[21] = images[1]  # equal, same label
    images[32] = changed(images[2], "jpeg")  # nearly equal, same label
    images[43] = images[4]  # equal, other label
    images[110] = changed(images[5], "shift")
    labels[110] = labels[5]  # in test and in training
    facts = np.zeros(120, FACTS)
    facts["height"], facts["width"] = 100, 100
    facts["height"][50], facts["width"][51], facts["height"][52], facts["width"][52] = 400, 900, 9, 9
    facts["flags"][60] = 1
    return LabelledImages(
        images, labels.astype(np.int64), ("cat", "dog", "hen"), name="pets", facts=facts,
        parts={"train": slice(0, 100), "test": slice(100, 120)}, names=[f"{n:03d}.png" for n in range(120)],
        skipped=(Skipped("bad.png", "empty", "the file is empty"),),
    )  # fmt: skip


def test_everything_planted_is_found() -> None:
    data = troubled()

    found = audit(data, labels=False)

    by_kind = {kind: {finding.name for finding in found.findings if finding.kind == kind} for kind in found.counts()}
    assert by_kind == {
        "leak": {"110.png"}, "contradiction": {"043.png"}, "unreadable": {"bad.png"},
        "duplicate": {"021.png", "032.png"}, "small class": {"hen"}, "blank": {"010.png"}, "dark": {"012.png"},
        "tiny": {"052.png"}, "odd aspect": {"050.png", "051.png"}, "odd colours": {"060.png"},
    }  # fmt: skip
    assert list(found.counts()) == [kind for kind in KINDS if kind in by_kind]
    assert found.first()[0] == "take 1 picture out of the test part (also in training)"
    assert len(found.first()) == 5


def test_parts_that_differ_are_said() -> None:
    images = textured(200)
    images[100:] = images[100:] // 2
    labels = np.r_[np.arange(100) % 2, np.zeros(90), np.ones(10)].astype(np.int64)
    data = LabelledImages(images, labels, ("a", "b"), parts={"train": slice(0, 100), "test": slice(100, 200)})

    assert {each.name for each in audit(data, labels=False).findings if each.kind == "shift"} >= {
        "brightness",
        "classes",
    }


def test_findings_land_in_files_and_decisions_stay(tmp_path: Path) -> None:
    found = audit(troubled(), labels=False)

    paths = write_audit(found, tmp_path)
    page = write_page(found, tmp_path / "audit.html").read_text(encoding="utf-8")
    (tmp_path / "decisions.csv").write_text("name,decision\n021.png,drop\n")
    again = write_audit(found, tmp_path)

    assert [path.name for path in paths] == ["findings.csv", "findings.json", "decisions.csv"]
    assert [path.name for path in again] == ["findings.csv", "findings.json"]
    assert (tmp_path / "decisions.csv").read_text() == "name,decision\n021.png,drop\n"
    said = json.loads((tmp_path / "findings.json").read_text())
    with (tmp_path / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(said["findings"]) == len(found.findings)
    assert "043.png" in page and 'src="data:image/png' in page and "http" not in page.replace("http-equiv", "")


def test_decisions_change_what_is_trained_on_and_nothing_else(tmp_path: Path) -> None:
    data = troubled()
    (tmp_path / "d.csv").write_text(
        "name,decision,why\n021.png,drop,twice\n043.png,relabel: cat,wrong\n005.png,keep,\n"
        "110.png,drop,leak\n007.png,,\n"
    )

    decided = apply_decisions(data, tmp_path / "d.csv")

    assert {name: len(decided.part(name)) for name in decided.parts} == {"train": 99, "test": 19}
    assert "021.png" not in decided.names and "110.png" not in decided.names
    assert decided.labels[list(decided.names).index("043.png")] == 0
    assert decided.notes == ("by d.csv: 2 pictures dropped, 1 label changed",)
    assert len(data) == 120 and data.labels[43] == 1


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("name,decision\n021.png,remove\n", UsageError, "decide keep, drop, or relabel: CLASS"),
        ("name,decision\n021.png,relabel: cow\n", UnknownName, "unknown class 'cow'"),
        ("name,decision\nnobody.png,drop\n", UsageError, "there is no picture nobody.png"),
        ("name,decision\n021.png,drop\n021.png,keep\n", UsageError, "two decisions about 021.png"),
        ("file,what\n021.png,drop\n", DataError, "no columns 'name' and 'decision'"),
    ],
)
def test_decisions_that_cannot_be_meant(text: str, kind: type[HangtagError], says: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(text)

    with pytest.raises(kind) as caught:
        apply_decisions(troubled(), tmp_path / "d.csv")

    assert says in str(caught.value)


def test_the_same_picture_is_never_on_both_sides_of_a_split() -> None:
    images = np.concatenate([textured(100), textured(100)[:40], np.roll(textured(100)[40:60], 1, axis=1)])
    labels = np.r_[np.arange(100) % 2, np.arange(40) % 2, np.arange(40, 60) % 2]
    data = from_arrays(images, labels)

    for seed in range(5):
        whole, split = split_of(data, 0.2, seed)
        held = {int(position) % 100 if position < 140 else int(position) - 100 for position in split.validation}
        trains = {int(position) % 100 if position < 140 else int(position) - 100 for position in split.train}
        assert not held & trains
        assert len(split.train) + len(split.validation) == len(whole) == 160
        assert 20 <= len(split.validation) <= 40


def test_groups_stay_together_and_given_parts_are_used() -> None:
    images = textured(90)
    groups = np.arange(90) // 3
    data = LabelledImages(images, (groups % 2).astype(np.int64), ("a", "b"), groups=groups)
    given = LabelledImages(
        images, np.arange(90) % 2, ("a", "b"), parts={"train": slice(0, 60), "validation": slice(60, 90)}
    )

    _, split = split_of(data, 0.2, seed=0)
    whole, divided = split_of(given, 0.2, seed=0)

    assert not set(groups[split.validation]) & set(groups[split.train])
    assert len(whole) == 90 and sorted(divided.validation) == list(range(60, 90)) and divided.given
