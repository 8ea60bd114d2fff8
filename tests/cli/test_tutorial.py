"""The lesson on the real images: every number it teaches, and the model file."""

from pathlib import Path

import numpy as np
import pytest

import hangtag
from hangtag.cli.tutorial import Section, walk
from hangtag.data.labelled_images import LabelledImages, export_folder
from hangtag.training.estimator import ImageClassifier

SHIRT_AND_FRIENDS = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lesson(
    fashion: LabelledImages, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ImageClassifier, list[Section], Path]:
    out = tmp_path_factory.mktemp("lesson")
    classifier = ImageClassifier(recipe="tutorial", device="cpu")
    steps = list(walk(fashion, classifier, out))
    return classifier, [step for step in steps if isinstance(step, Section)], out


def test_the_data_is_the_lessons(fashion: LabelledImages) -> None:
    assert fashion.class_names == SHIRT_AND_FRIENDS
    assert (fashion.train.images.shape, fashion.train.images.dtype) == ((60_000, 28, 28), np.uint8)
    assert fashion.test.images.shape == (10_000, 28, 28)
    assert fashion.train.counts().tolist() == [6_000] * 10
    assert fashion.train.labels[:3].tolist() == [9, 0, 0]


def test_it_trains_as_well_as_the_lessons_own_framework(
    lesson: tuple[ImageClassifier, list[Section], Path], fashion: LabelledImages
) -> None:
    classifier, _, _ = lesson

    evaluation = classifier.evaluate(fashion.test)

    assert len(classifier.history_) == 10
    assert abs(evaluation.accuracy - 0.8834) < 5 * 0.0030  # five of the reference's standard deviations
    assert abs(classifier.history_[-1].accuracy - 0.9106) < 5 * 0.0008
    assert abs(evaluation.loss - 0.336) < 0.05
    assert "overfitting" in evaluation.gap_in_words


def test_image_0_is_an_ankle_boot(lesson: tuple[ImageClassifier, list[Section], Path], fashion: LabelledImages) -> None:
    classifier, _, _ = lesson

    rows = classifier.predict_proba(fashion.test.images)

    assert rows.shape == (10_000, 10)
    assert (int(rows[0].argmax()), int(fashion.test.labels[0])) == (9, 9)
    assert classifier.predictor_(fashion.test.images[0]).label == "Ankle boot"
    assert classifier.predictor_(fashion.test.images[:1]).label == "Ankle boot"


def test_it_walks_through_every_step_and_saves_six_pictures(
    lesson: tuple[ImageClassifier, list[Section], Path],
) -> None:
    _, sections, out = lesson

    assert [section.title.split(".")[0] for section in sections] == [str(number) for number in range(1, 12)]
    assert sorted(path.name for path in out.iterdir()) == [
        ".hangtag-files", "1-one-image.png", "2-grid.png", "3-answer-0.png", "4-answer-12.png", "5-answers.png",
        "6-bars.png",
    ]  # fmt: skip
    assert all(section.text and section.code for section in sections)


def test_all_test_images_give_the_same_answers_from_png_files(
    lesson: tuple[ImageClassifier, list[Section], Path], fashion: LabelledImages, tmp_path: Path
) -> None:
    classifier, _, _ = lesson
    classifier.save(tmp_path / "clothes.onnx")
    tag = hangtag.load(tmp_path / "clothes.onnx", doctor=False)

    paths = export_folder(fashion.test, tmp_path / "pictures")
    from_files = tag.many(paths)
    from_arrays = tag.many(list(fashion.test.images))

    assert len(paths) == 10_000
    assert [answer.to_json() for answer in from_files] == [answer.to_json() for answer in from_arrays]
    rows = tag.probabilities(fashion.test.images)
    assert [answer.label for answer in from_files] == [SHIRT_AND_FRIENDS[index] for index in rows.argmax(1)]
