from collections import Counter

import numpy as np
import pytest

from hangtag.cli import live, screen
from hangtag.cli.answers import print_answer, print_frequent
from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.metrics import Evaluation, evaluate
from hangtag.model.doctor import Repair
from hangtag.model.predictor import Answer
from hangtag.training.engine.loop import Epoch


def evaluation_of(count: int) -> Evaluation:
    """Two images per class; those of the last 30 classes are taken for class 0."""
    labels = np.repeat(np.arange(count), 2)
    predicted = np.where(labels >= count - 30, 0, labels)
    probabilities = np.full((len(labels), count), 0.1 / (count - 1))
    probabilities[np.arange(len(labels)), predicted] = 0.9
    return evaluate(probabilities, labels, tuple(f"class {index}" for index in range(count)))


def test_the_evaluation_of_1500_classes_fits_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_evaluation(evaluation_of(1500), "test")

    out = capsys.readouterr().out
    assert len(out.splitlines()) < 60
    assert "the 20 classes with the lowest F1 of 1,500 (all: --json):" in out
    assert any(line.split() == ["class", "1470", "class", "0", "2"] for line in out.splitlines())


def test_a_confusion_matrix_is_shown_where_the_screen_is_wide_enough(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    screen.print_evaluation(evaluation_of(31), "test")
    assert "true \\ predicted" in capsys.readouterr().out


def test_a_confusion_matrix_wider_than_the_screen_is_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_evaluation(evaluation_of(31), "test")
    assert "the most frequent confusions:" in capsys.readouterr().out


def test_a_table_of_1500_classes_shows_the_smallest(capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"class {index}" for index in range(1500))
    screen.print_class_table(names, {"train": [*range(1500, 0, -1)]})
    out = capsys.readouterr().out
    assert "the 20 smallest of 1,500 classes:" in out
    assert "class 1499" in out
    assert "class 0 " not in out


def test_a_prediction_set_of_many_labels_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Answer("a", 0.2, (("a", 0.2),), (), "0", prediction_set=tuple("abcdefgh"), coverage=0.95, sure=False)
    print_answer("x.png", answer, Counter())
    assert "not sure: a or b or c or d or e or 3 more (95% coverage)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("repairs", "score", "said"),
    [
        (
            (Repair("inverted", "it was dark", 1.0, 0.83),),
            0.83,
            "; not sure: less typical than 83.0% of known images, even after",
        ),
        ((Repair("inverted", "it was dark", 1.0, 0.3),), 0.3, "; not sure\n"),  # for another reason
        ((Repair("rotated", "its Exif data says so"),), 0.83, "; not sure\n"),
        ((), 0.83, "; not sure\n"),
    ],
)
def test_a_repaired_picture_that_is_still_strange_is_not_sure_for_this_reason(
    repairs: tuple[Repair, ...], score: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = Answer(
        "a", 0.99, (("a", 0.99),), (), "0", prediction_set=("a",), sure=False, is_ood=False, ood_score=score,
        repairs=repairs,
    )  # fmt: skip

    print_answer("x.png", answer, Counter())

    assert f"x.png: a 99.0%{said}" in capsys.readouterr().out


def test_a_note_on_many_pictures_is_counted_and_resizing_alone_is_no_note(capsys: pytest.CaptureFixture[str]) -> None:
    notes: Counter[str] = Counter()
    warnings = ("transparency was filled with grey level 255", "resized from 90x60 to 8x8, the rest filled")
    for number in range(5):
        print_answer(f"{number}.png", Answer("a", 0.9, (("a", 0.9),), warnings, "0"), notes)
    lost = "resized from 90x60 to 8x8, which changes its proportions"
    print_answer("5.png", Answer("a", 0.9, (("a", 0.9),), (lost,), "0"), notes)
    print_frequent(notes)

    assert capsys.readouterr().err.splitlines() == [
        *(f"{number}.png: note: transparency was filled with grey level 255" for number in range(3)),
        f"5.png: note: {lost}",
        "note: 2 more images: transparency was filled with grey level 255",
    ]


@pytest.mark.parametrize(("seconds", "lines"), [(1.0, ["1 of 5"]), (4.0, ["1 of 5", "3 of 5", "5 of 5"]), (9.0, None)])
def test_only_slow_folds_have_a_line(
    seconds: float, lines: list[str] | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(np.arange(100) * seconds)
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    epoch = Epoch(1, 1, 1, 1, 0.0, 0.0, 0.0, 0.0)
    with live.fold_progress(live.console()) as progress:
        for fold in range(1, 6):
            now = [next(clock)]
            progress(fold, 5, epoch)

    every = [f"{fold} of 5" for fold in range(1, 6)]
    assert capsys.readouterr().out.splitlines() == [f"cross-validation: fold {line}" for line in lines or every]


def test_a_class_without_training_images_is_not_shown_as_another(capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((3, 8, 8), np.uint8)
    parts = {"train": slice(0, 2), "test": slice(2, 3)}
    data = LabelledImages(images, np.array([0, 2, 1]), ("bar", "dot", "edge"), parts=parts)
    console = live.Console(force_terminal=True, color_system="truecolor")

    live.print_contact_sheet(console, data)

    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["bar", "edge"]


def test_json_is_strict(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        screen.print_json({"loss": float("inf")})
    assert not capsys.readouterr().out
