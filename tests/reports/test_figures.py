"""The figures, through what a reader sees: wording, colours, number of images; and the errors of wrong calls."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from PIL import Image

import toys
from hangtag.errors import SaveError, UsageError
from hangtag.files import LOOSE
from hangtag.model.doctor import Repair
from hangtag.model.predictor import Answer
from hangtag.reports import figures
from hangtag.reports.doctor_figure import draw_repairs


def guesses(labels: NDArray[np.int64], classes: int = 3, wrong: tuple[int, ...] = ()) -> NDArray[np.float32]:
    """(N, K): 80 % for the true class, or for the next one where wrong; the rest shared."""
    rows = np.full((len(labels), classes), 0.2 / (classes - 1), np.float32)
    predicted = labels.copy()
    predicted[list(wrong)] = (predicted[list(wrong)] + 1) % classes
    rows[np.arange(len(labels)), predicted] = 0.8
    return rows


def texts(figure: figures.ReportFigure) -> list[str]:
    found = [text.get_text() for text in figure.findobj(matplotlib.text.Text) if isinstance(text, matplotlib.text.Text)]
    return [text for text in found if text]


def colours(axes: Axes) -> list[str]:
    """Of the bars, class by class."""
    return [to_hex(colour) for colour in axes.collections[0].get_facecolor()]


def shown(figure: figures.ReportFigure) -> list[Any]:
    """The images in a grid, (H, W, 3) each."""
    return [image.get_array() for image in figure.axes[0].images]


def size(figure: figures.ReportFigure) -> tuple[int, int]:
    with Image.open(io.BytesIO(figure.png())) as picture:
        return picture.size


def test_one_image_shows_its_values_from_0_to_255() -> None:
    images, _ = toys.shapes(1)

    figure = figures.one_image(images[0], "bar")

    picture, bar = figure.axes
    assert picture.get_title() == "bar"
    assert picture.images[0].get_clim() == (0, 255)
    assert list(bar.get_yticks()) == [0, 50, 100, 150, 200, 255]


def test_one_colour_image_has_no_colour_bar() -> None:
    figure = figures.one_image(np.zeros((6, 4, 3), np.uint8))

    assert len(figure.axes) == 1
    assert "4x6 pixels; red, green and blue from 0 to 255" in texts(figure)


def test_the_grid_names_every_image_and_leaves_out_empty_rows() -> None:
    images, labels = toys.shapes(7)

    figure = figures.image_grid(images // 2, labels, toys.CLASSES)

    assert texts(figure) == ["bar", "dot", "edge", "bar", "dot", "edge", "bar"]
    assert (shown(figure)[0][..., 0] == 255 - images[0] // 2).all()  # light on black turns black on white


def test_dark_on_white_is_not_inverted() -> None:
    images, labels = toys.shapes(3)

    figure = figures.image_grid(255 - images, labels, toys.CLASSES)

    assert (shown(figure)[0][..., 0] == 255 - images[0]).all()


def test_a_right_answer_is_blue_in_words_and_bars() -> None:
    images, labels = toys.shapes(1)

    figure = figures.answer(images[0], guesses(labels)[0], 0, toys.CLASSES)

    caption = next(text for text in figure.texts)
    assert (caption.get_text(), caption.get_color()) == ("✓ bar 80% (bar)", figures.BLUE)
    assert colours(figure.axes[0]) == [figures.BLUE, figures.GREY, figures.GREY]
    assert [text.get_text() for text in figure.texts[1:]] == ["0", "1", "2"]


def test_a_wrong_answer_is_red_and_hatched_next_to_the_true_class_in_blue() -> None:
    images, labels = toys.shapes(1)

    figure = figures.answer(images[0], guesses(labels, wrong=(0,))[0], 0, toys.CLASSES)

    caption = next(text for text in figure.texts)
    assert (caption.get_text(), caption.get_color()) == ("✗ dot 80% (bar)", figures.RED)
    assert colours(figure.axes[0]) == [figures.BLUE, figures.RED, figures.GREY]
    assert [patch.get_hatch() for patch in figure.axes[0].patches] == [None, "////"]  # of the frame and the wrong bar


def test_answers_pairs_each_image_with_its_bars() -> None:
    images, labels = toys.shapes(20)

    figure = figures.answers(images, guesses(labels, wrong=(3,)), labels, toys.CLASSES)

    assert len(shown(figure)) == 15
    verdicts = [text.get_text() for text in figure.texts if len(text.get_text()) > 1]
    assert verdicts[2:4] == ["✓ edge 80% (edge)", "✗ dot 80% (bar)"]


def test_probability_bars_carry_slanted_class_names() -> None:
    figure = figures.probability_bars(np.array([0.1, 0.7, 0.2]), toys.CLASSES, label=2)

    labels = figure.axes[0].get_xticklabels()
    assert [(label.get_text(), label.get_rotation()) for label in labels] == [("bar", 45), ("dot", 45), ("edge", 45)]
    assert colours(figure.axes[0]) == [figures.GREY, figures.RED, figures.BLUE]


def test_bars_of_an_unlabelled_image_mark_nothing_as_correct_or_wrong() -> None:
    figure = figures.probability_bars(np.array([0.1, 0.7, 0.2]), toys.CLASSES)

    assert colours(figure.axes[0]) == [figures.GREY, figures.INK, figures.GREY]


def test_curves_draw_validation_only_if_there_is_one() -> None:
    epoch: dict[str, Any] = {"number": 1, "loss": 0.5, "accuracy": 0.8, "val_loss": None, "val_accuracy": None}
    watched = {**epoch, "number": 2, "val_loss": 0.6, "val_accuracy": 0.75}

    alone, both = figures.curves([epoch]), figures.curves([epoch, watched])

    assert [line.get_label() for line in alone.axes[0].lines] == ["training, last 0.500"]
    assert [line.get_label() for line in both.axes[1].lines] == ["training, last 80.0%", "validation, last 75.0%"]


def test_the_confusion_matrix_shows_counts_only_if_they_are_legible() -> None:
    small = figures.confusion([[8, 2], [0, 10]], ("cat", "dog"))
    large = figures.confusion(np.eye(100, dtype=int), [f"class {index}" for index in range(100)])

    assert [text.get_text() for text in small.axes[0].texts] == ["8", "2", "0", "10"]
    assert [label.get_text() for label in small.axes[0].get_yticklabels()] == ["cat", "dog"]
    assert not large.axes[0].texts


def test_the_most_confident_mistakes_come_first() -> None:
    images, labels = toys.shapes(6)
    rows = guesses(labels, wrong=(1, 4))
    rows[4] = [0.02, 0.03, 0.95]

    figure = figures.mistakes(images, rows, labels, toys.CLASSES)

    words = [text.get_text() for text in figure.texts]
    assert words == ["All 2 mistakes, most confident first", "✗ edge 95%", "true: dot", "✗ edge 80%", "true: dot"]


def test_without_mistakes_there_is_a_sentence() -> None:
    images, labels = toys.shapes(6)

    assert texts(figures.mistakes(images, guesses(labels), labels, toys.CLASSES)) == ["✓ No mistakes on 6 images"]


def test_the_lesson_has_six_pictures() -> None:
    images, labels = toys.shapes(30)

    pictures = figures.lesson(images, labels, images, labels, guesses(labels), toys.CLASSES)

    assert list(pictures) == ["1-one-image", "2-grid", "3-answer-0", "4-answer-12", "5-answers", "6-bars"]


def test_the_lesson_of_few_test_images_is_shorter() -> None:
    images, labels = toys.shapes(30)

    pictures = figures.lesson(images, labels, images[:1], labels[:1], guesses(labels[:1]), toys.CLASSES)

    assert list(pictures) == ["1-one-image", "2-grid", "3-answer-0", "5-answers", "6-bars"]


@pytest.mark.parametrize("classes", [2, 41, 1000])
def test_any_number_of_classes_size_and_name_can_be_drawn(classes: int) -> None:
    names = [f"$ {index} <&> 鞋\n a name that goes on and on" for index in range(classes)]
    images = np.random.default_rng(0).integers(0, 256, (4, 70, 20, 3), dtype=np.uint8)
    labels = np.array([0, 1, classes - 1, 0])
    rows = guesses(labels, classes, wrong=(1,))

    drawn = [
        figures.image_grid(images, labels, names),
        figures.answer(images[0], rows[0], 0, names),
        figures.answers(images, rows, labels, names),
        figures.probability_bars(rows[1], names, 1),
        figures.confusion(np.eye(classes, dtype=int), names),
        figures.mistakes(images, rows, labels, names),
    ]

    assert all(min(size(figure)) > 200 for figure in drawn)


def test_images_of_several_sizes_and_scaled_images_can_be_shown() -> None:
    images: list[NDArray[Any]] = [np.zeros((5, 9), np.uint8), np.ones((30, 20)) / 2, np.zeros((700, 10, 1), np.uint8)]

    figure = figures.image_grid(images, [0, 1, 2], toys.CLASSES)

    assert [int(image.max()) for image in shown(figure)] == [255, 127, 255]  # light on black turns black on white


def test_notebooks_get_a_png() -> None:
    assert figures.one_image(toys.shapes(1)[0][0])._repr_png_().startswith(b"\x89PNG")


def test_drawing_leaves_the_callers_style_alone() -> None:
    before = dict(matplotlib.rcParams)

    size(figures.one_image(toys.shapes(1)[0][0]))

    assert dict(matplotlib.rcParams) == before


def test_save_writes_a_whole_png_or_says_why_not(tmp_path: Path) -> None:
    image = toys.shapes(1)[0][0]

    figures.save(figures.one_image(image), tmp_path / "one.png")

    assert {path.name for path in tmp_path.iterdir()} == {"one.png", LOOSE}
    assert (tmp_path / "one.png").read_bytes() == figures.one_image(image).png()
    with pytest.raises(SaveError):
        figures.save(figures.one_image(image), tmp_path / "missing" / "one.png")


def test_arguments_that_do_not_fit_are_rejected() -> None:
    images, labels = toys.shapes(4)
    rows = guesses(labels)

    wrong_calls: dict[str, Callable[[], object]] = {
        "images and labels must match, got 4 and 3": lambda: figures.image_grid(images, labels[:3], toys.CLASSES),
        "rows and columns must be at least 1, got 0 and 5": lambda: figures.image_grid(
            images, labels, toys.CLASSES, rows=0
        ),
        "no images to show": lambda: figures.image_grid(images[:0], labels[:0], toys.CLASSES),
        "labels must be from 0 to 1, got 0 to 2": lambda: figures.image_grid(images, labels, toys.CLASSES[:2]),
        "probabilities must have shape .4, 3., got .2, 3.": lambda: figures.answers(
            images, rows[:2], labels, toys.CLASSES
        ),
        "one for each class name": lambda: figures.probability_bars(rows[0], toys.CLASSES[:2]),
        "at least one finished epoch": lambda: figures.curves([]),
        "a confusion matrix of 3 classes": lambda: figures.confusion([[1]], toys.CLASSES),
        "count must be at least 1, got 0": lambda: figures.mistakes(images, rows, labels, toys.CLASSES, count=0),
        "an image must have shape": lambda: figures.one_image(np.zeros(5)),
    }

    for message, call in wrong_calls.items():
        with pytest.raises(UsageError, match=message):
            call()


@pytest.mark.parametrize("repairs", [(), (Repair("inverted", "the object was darker than its background"),)])
def test_the_figure_of_repairs_compares_only_what_differs(repairs: tuple[Repair, ...]) -> None:
    wide, seen = np.full((40, 80, 3), 90, np.uint8), np.full((28, 28, 3), 90, np.uint8)
    answer = Answer("a", 0.9, (("a", 0.9),), (), "0", ood_score=0.9, repairs=repairs, picture=wide, seen=seen)

    figure = draw_repairs(replace(answer, repairs=()), answer)

    assert len(figure.get_axes()) == (3 if repairs else 2)
