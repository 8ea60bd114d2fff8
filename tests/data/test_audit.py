"""Problems planted into data are found; decisions change what is trained on, and no file."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from hangtag.data.audit import KINDS, Audit, Finding, LabelErrors, audit, write_audit
from hangtag.data.decisions import apply_decisions, read_decisions
from hangtag.data.labelled_images import LabelledImages, Source, from_arrays
from hangtag.data.picture_facts import FACTS, Skipped
from hangtag.data.read import read
from hangtag.data.splits import split_of
from hangtag.errors import DataError, HangtagError, ModelError, UnknownName, UsageError
from hangtag.reports.audit_page import write_audit_page
from hangtag.training import label_errors
from hangtag.training.label_errors import find_label_errors, label_error_finder
from pictures import changed, photo, textured
from toys import shapes


@pytest.fixture(scope="module")
def digits() -> tuple[LabelledImages, np.ndarray]:
    """900 real digits, 3 % of them with another label, and which."""
    found = load_digits()
    random = np.random.default_rng(1)
    labels = found.target[:900].copy()
    flipped = random.choice(len(labels), 27, replace=False)
    labels[flipped] = (labels[flipped] + random.integers(1, 10, 27)) % 10
    return from_arrays((found.images[:900] * 15.9375).astype(np.uint8), labels), flipped


def test_planted_labels_are_suspected_first(digits: tuple[LabelledImages, np.ndarray]) -> None:
    data, flipped = digits

    found = find_label_errors(data)

    assert np.isin(found.positions[:20], flipped).mean() > 0.8
    assert np.isin(flipped, found.positions).mean() > 0.8
    assert found.probabilities.shape == (900, 10) and np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    assert found.judged and found.convincing
    assert found.wrong[flipped].mean() > 0.7
    assert np.delete(found.wrong, flipped).mean() < 0.05


def test_few_pictures_are_passed_over_more_often_before_networks_judge_their_labels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[tuple[str, int, int]] = []
    monkeypatch.setattr(label_errors, "_MOST_DESCRIBED", 0)

    find_label_errors(from_arrays(*shapes(300)), device="cpu", progress=lambda *each: said.append(each))

    assert said[-1][1] == said[-1][2] >= 3 * 150


@pytest.mark.parametrize(
    "where", ["hangtag.training.engine.loop.Batches", "hangtag.training.label_errors.predict_logits"]
)
def test_running_out_of_memory_while_labels_are_judged_says_what_an_audit_can_do(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(label_errors, "_MOST_DESCRIBED", 0)
    monkeypatch.setattr(where, too_much)
    with pytest.raises(ModelError) as caught:
        find_label_errors(from_arrays(*shapes(60)), device="cpu")

    assert caught.value.message == "out of memory while checking labels"
    assert "--no-labels" in caught.value.hint and "--batch-size" not in str(caught.value)


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
        images, labels.astype(np.int64), ("cat", "dog", "hen"), name="pets", picture_facts=facts,
        parts={"train": slice(0, 100), "test": slice(100, 120)}, names=[f"{n:03d}.png" for n in range(120)],
        source=Source(skipped=(Skipped("bad.png", "empty", "the file is empty"),)),
    )  # fmt: skip


def test_everything_planted_is_found() -> None:
    data = troubled()

    found = audit(data)

    by_kind = {kind: {finding.name for finding in found.findings if finding.kind == kind} for kind in found.counts()}
    assert by_kind == {
        "leak": {"110.png"}, "conflicting label": {"043.png"}, "unreadable": {"bad.png"},
        "duplicate": {"021.png", "032.png"}, "small class": {"hen"}, "blank": {"010.png"}, "dark": {"012.png"},
        "tiny": {"052.png"}, "odd aspect ratio": {"050.png", "051.png"}, "odd colour mode": {"060.png"},
    }  # fmt: skip
    assert list(found.counts()) == [kind for kind in KINDS if kind in by_kind]
    assert found.first()[0] == "drop 1 image (also in another part): 110.png"
    assert len(found.first()) == 5


def test_size_proportions_and_mode_are_those_of_the_files(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for number in range(120):
        (root / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(number, 200, 200)).save(root / "ab"[number % 2] / f"{number:03d}.jpg")
    Image.fromarray(photo(200, 20, 20)).save(root / "a" / "tiny.png")
    Image.fromarray(photo(201, 100, 900)).save(root / "a" / "wide.jpg")
    Image.fromarray(photo(202, 200, 200)).convert("CMYK").save(root / "b" / "print.jpg")
    Image.fromarray(photo(203, 200, 200)).convert("L").save(root / "b" / "grey.jpg")
    Image.fromarray(photo(3, 200, 200)).resize((120, 120)).save(root / "b" / "000-smaller.png")

    data = read(root)
    found = audit(data)

    assert max(data.spec.shape) <= 96
    said = {each.name: (each.kind, each.message) for each in found.findings}
    assert said == {
        "a/tiny.png": ("tiny", "20x20 pixels; the median shorter side is 200"),
        "a/wide.jpg": ("odd aspect ratio", "900x100 pixels, 9 times as wide as high; the median is 1"),
        "b/print.jpg": ("odd colour mode", "its colour mode is CMYK; for 98% of the images it is colour"),
        "b/grey.jpg": ("odd colour mode", "its colour mode is grey; for 98% of the images it is colour"),
        "b/000-smaller.png": (
            "duplicate",
            "nearly identical to b/003.jpg (edges correlate 1.00)",
        ),  # the larger one is to be kept
    }
    page = write_audit_page(found, tmp_path / "audit.html").read_text(encoding="utf-8")
    assert "900x100" in page and "aspect-ratio:900/100" in page


def test_suspect_labels_come_with_their_like_and_equal_pictures_with_the_label_to_believe() -> None:
    clean = load_digits()
    images, truth = (clean.images[:600] * 15.9375).astype(np.uint8), clean.target[:600]
    labels = truth.copy()
    labels[:200:10] = (labels[:200:10] + 1) % 10
    blank, rare = np.full((1, 8, 8), 99, np.uint8), (clean.images[700:704] * 15.9375).astype(np.uint8)
    data = from_arrays(
        np.concatenate([images, blank, images[500:501], rare]),
        [*map(str, labels), "3", str((labels[500] + 5) % 10), *["rare"] * 4],
    )
    names = data.class_names

    findings = audit(data, label_error_finder()).findings

    suspects = {each.position: each for each in findings if each.kind == "suspect label"}
    flipped = [suspects[place] for place in range(0, 200, 10) if place in suspects]
    assert len(flipped) > 10
    right = [each for each in flipped if each.suggestion == f"relabel: {truth[each.position]}"]
    assert len(right) > 10 and all(0.3 < each.certainty < 1 for each in right)
    for each in right:
        beside = [names[data.labels[other]] for other in each.others]
        assert beside == [str(truth[each.position]), str(labels[each.position])] and each.position not in each.others
    per_class = {(each.suggestion, each.others[0]) for each in suspects.values()}
    assert len(per_class) > len({each.suggestion for each in suspects.values()})  # not one picture for each class
    assert not {600, 601, 500, *range(602, 606)} & set(suspects)
    (twice,) = (each for each in findings if each.kind == "conflicting label" and 601 in (each.position, *each.others))
    assert (twice.position, twice.others, twice.suggestion) == (601, (500,), f"relabel: {labels[500]}")
    (small,) = (each for each in findings if each.kind == "small class")
    assert small.message.startswith("only 4 training images") and small.message.endswith("too few to check the labels")
    assert [names[data.labels[other]] for other in small.others] == ["rare"] * 3


def crops(per_class: int, side: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Parts of two photographs, one class each."""
    random, images = np.random.default_rng(3), []
    for each in load_sample_images().images:
        for _ in range(per_class):
            top, left = (random.integers(0, length - 200) for length in each.shape[:2])
            images.append(each[top : top + 200, left : left + 200][:: 200 // side, :: 200 // side][:side, :side])
    return np.stack(images), np.repeat([0, 1], per_class)


def some_digits(per_class: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    found, random = load_digits(), np.random.default_rng(seed)
    chosen = np.concatenate([random.permutation(np.flatnonzero(found.target == n))[:per_class] for n in range(10)])
    return (found.images[chosen] * 15.9375).astype(np.uint8), found.target[chosen]


@pytest.mark.parametrize("clean", [crops(27), some_digits(12, 0), some_digits(12, 1), some_digits(20, 2)])
def test_nobody_is_accused_in_a_clean_small_set(clean: tuple[np.ndarray, np.ndarray]) -> None:
    found = audit(from_arrays(*clean), label_error_finder())

    assert "suspect label" not in found.counts()
    doubts = "; where they disagreed, the models may be wrong as well as the labels." in found.labels_checked
    assert doubts is ("with 100% of" not in found.labels_checked)


def test_a_model_that_is_often_wrong_accuses_nobody() -> None:
    images, labels = some_digits(15)

    found = audit(from_arrays(np.random.default_rng(0).permutation(images), labels), label_error_finder())

    assert "suspect label" not in found.counts()
    assert found.labels_checked.startswith("No model could be trained well enough on these 150 images")


@pytest.mark.parametrize("seed", [0, 1])
def test_swapped_labels_of_a_small_set_are_found_and_named_as_strongly_as_is_known(seed: int) -> None:
    images, labels = some_digits(20, seed)
    swapped = np.random.default_rng(seed).choice(200, 10, replace=False)
    labels[swapped] = (labels[swapped] + 1 + seed) % 10

    found = audit(from_arrays(images, labels), label_error_finder()).findings

    suspects = [each for each in found if each.kind == "suspect label"]
    assert len(suspects) <= 20 and len({each.position for each in suspects} & set(swapped.tolist())) >= 8
    for each in suspects:
        assert each.message.endswith("the label is probably wrong" if each.certainty >= 0.5 else "worth a look")


def test_labels_of_very_few_pictures_are_not_judged() -> None:
    images = textured(12)

    found = audit(from_arrays(images, ["a", "b"] * 6), label_error_finder())

    assert set(found.counts()) == {"small class"}


def test_parts_that_differ_are_said() -> None:
    images = textured(200)
    images[100:] = images[100:] // 2
    labels = np.r_[np.arange(100) % 2, np.zeros(90), np.ones(10)].astype(np.int64)
    data = LabelledImages(images, labels, ("a", "b"), parts={"train": slice(0, 100), "test": slice(100, 200)})

    assert {each.name for each in audit(data).findings if each.kind == "shift"} >= {
        "brightness",
        "classes",
    }


@pytest.mark.parametrize("seed", range(5))
def test_parts_drawn_at_random_do_not_differ(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 10, 300)
    parts = {"train": slice(0, 240), "test": slice(240, 300)}
    data = LabelledImages(textured(300), labels, tuple("abcdefghij"), parts=parts)

    assert "shift" not in audit(data).counts()


@pytest.mark.parametrize(
    ("agreement", "said"),
    [(1.0, "agreed with 100% of the labels."), (0.94, "where they disagreed, the models may be wrong as well")],
)
def test_an_audit_without_suspects_does_not_say_that_all_labels_are_right(agreement: float, said: str) -> None:
    data = troubled()
    nobody = np.zeros(0, np.int64), np.zeros(len(data)), data.labels, np.full((len(data), 2), 0.5, np.float32)

    found = audit(data, lambda *_: LabelErrors(*nobody, agreement, (), judged=True))

    assert said in found.labels_checked and "no sign" not in found.labels_checked


def test_a_part_from_which_all_images_were_dropped_is_not_compared() -> None:
    data = LabelledImages(
        textured(20), np.arange(20) % 2, ("a", "b"), parts={"train": slice(0, 20), "test": slice(20, 20)}
    )

    assert "shift" not in audit(data).counts()


def test_findings_land_in_files_and_decisions_stay(tmp_path: Path) -> None:
    found = audit(troubled())

    paths = write_audit(found, tmp_path)
    page = write_audit_page(found, tmp_path / "audit.html").read_text(encoding="utf-8")
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


@pytest.mark.parametrize(
    ("written", "stays"),
    [
        ("name,decision\n021.png,\n", False),
        ("name,decision\n021.png,  \n", False),
        ("name,decision\n021.png,keep\n", True),
        ("name,decision\n021.png,dorp\n", True),
        ("notes of mine\n", True),
    ],
)
def test_a_list_to_fill_in_is_replaced_by_that_of_the_next_audit_until_somebody_decides(
    tmp_path: Path, written: str, stays: bool
) -> None:
    (tmp_path / "decisions.csv").write_text(written)

    paths = write_audit(audit(troubled()), tmp_path)

    assert ((tmp_path / "decisions.csv").read_text() == written) is stays
    assert (tmp_path / "decisions.csv" not in paths) is stays


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
    assert decided.source.notes == ("d.csv: 2 images dropped, 1 label changed",)
    assert len(data) == 120 and data.labels[43] == 1


def test_names_that_a_spreadsheet_would_run_are_written_harmless_and_read_back(tmp_path: Path) -> None:
    names = ["=1+1.png", "-2.png", "@a.png", "'=b.png", "'c.png", "d.png"]
    data = LabelledImages(textured(6), np.arange(6) % 2, ("a", "b"), names=names)
    findings = tuple(Finding("blank", name, "+1", 1.0, place) for place, name in enumerate(names))

    write_audit(Audit(data, findings), tmp_path)

    text = (tmp_path / "decisions.csv").read_text()
    assert not any(cell.startswith(tuple("=+-@")) for row in csv.reader(text.splitlines()) for cell in row)
    (tmp_path / "filled.csv").write_text(text.replace(",,", ",keep,"))
    assert read_decisions(tmp_path / "filled.csv") == dict.fromkeys(names, "keep")


def test_a_name_with_a_sign_is_also_read_as_typed(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("name,decision\n-2.png,drop\n=1+1.png,keep\n")

    assert read_decisions(tmp_path / "d.csv") == {"-2.png": "drop", "=1+1.png": "keep"}


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("name,decision\n021.png,remove\n", UsageError, "write keep, drop, or relabel: CLASS"),
        ("name,decision\n021.png,relabel: cow\n", UnknownName, "unknown class 'cow'"),
        ("name,decision\nnobody.png,drop\n", UsageError, "has no image named nobody.png"),
        ("name,decision\n021.png,drop\n021.png,keep\n", UsageError, "two decisions about 021.png"),
        ("file,what\n021.png,drop\n", DataError, "must have the columns 'name' and 'decision'"),
    ],
)
def test_wrong_decisions_are_refused(text: str, kind: type[HangtagError], says: str, tmp_path: Path) -> None:
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
        assert held | trains == set(range(100)) and len(whole) == 160
        repeated = 160 - len(split.train) - len(split.validation)  # validation holds one of equal images
        assert 20 <= len(split.validation) + repeated <= 40


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


def test_equal_pictures_are_one_piece_of_evidence_about_their_labels() -> None:
    images, labels = some_digits(2)
    repeated = from_arrays(images.repeat(30, axis=0), labels.repeat(30))

    found = audit(repeated, label_error_finder())

    assert "suspect label" not in found.counts()
    assert found.labels_checked == "There are too few different images of each class to judge labels."


def test_an_audit_that_judged_no_labels_does_not_say_that_all_is_well() -> None:
    data = from_arrays(*shapes(60))

    assert Audit(data, (), "", labels_judged=True).nothing_found == "no problems found"
    assert audit(data, None).nothing_found == "no problems found; labels were not judged"
