"""judge.py: data with other classes than the model is evaluated by name, and strangers are counted apart."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import DataError
from hangtag.evaluation.judge import Judgement
from hangtag.model.predictor import Predictor
from toys import CLASSES, quick_recipe, shapes


@pytest.fixture(scope="module")
def classifier() -> hangtag.ImageClassifier:
    images, labels = shapes(600)
    return hangtag.ImageClassifier(recipe="quick").fit(LabelledImages(images, labels, CLASSES))


@pytest.fixture(scope="module")
def model(classifier: hangtag.ImageClassifier) -> Predictor:
    return classifier.predictor_


def given(names: tuple[str, ...] = CLASSES, count: int = 300) -> LabelledImages:
    images, labels = shapes(count, seed=1)
    return LabelledImages(images, labels, names, "given")


def test_fewer_classes_than_the_model_has(model: Predictor) -> None:
    data = given()
    two = data.take(np.flatnonzero(data.labels != 1))
    two = dataclasses.replace(two, labels=(two.labels > 0).astype(np.int64), class_names=("bar", "edge"))

    judged = hangtag.evaluate(model, two)

    assert judged.evaluation.images == 200 and judged.evaluation.accuracy > 0.9
    assert [(row.name, row.images) for row in judged.evaluation.classes] == [("bar", 100), ("dot", 0), ("edge", 100)]
    assert (judged.evaluation.strangers, judged.notes) == (None, ())


def test_one_class_is_enough_for_an_existing_model(model: Predictor, tmp_path: Path) -> None:
    images, labels = shapes(30, seed=1)
    dots = images[labels == 1]
    (tmp_path / "dot").mkdir()
    for number, image in enumerate(dots):
        Image.fromarray(image).save(tmp_path / f"dot/{number}.png")

    folder, arrays = hangtag.evaluate(model, tmp_path), hangtag.evaluate(model, (dots, ["dot"] * len(dots)))

    assert folder.evaluation == arrays.evaluation
    assert [(row.name, row.images) for row in folder.evaluation.classes] == [("bar", 0), ("dot", 10), ("edge", 0)]
    assert folder.evaluation.accuracy > 0.8


def test_other_order_gives_the_same_numbers(model: Predictor) -> None:
    data = given()
    turned = dataclasses.replace(data, labels=2 - data.labels, class_names=CLASSES[::-1])

    assert hangtag.evaluate(model, turned).evaluation == hangtag.evaluate(model, data).evaluation


def test_strangers_are_counted_apart(model: Predictor) -> None:
    data = given()
    strange = np.concatenate([data.images, 255 - data.images[:40]])
    labels = np.concatenate([data.labels, np.repeat([3, 4], 20)])
    more = LabelledImages(strange, labels, (*CLASSES, "ring", "star", "never"), "more")

    judged = hangtag.evaluate(model, more)

    strangers = judged.evaluation.strangers
    assert strangers is not None and strangers.unfamiliar is not None and strangers.sure is not None
    assert dataclasses.replace(judged.evaluation, strangers=None) == hangtag.evaluate(model, data).evaluation
    assert (strangers.images, strangers.classes) == (40, (("ring", 20), ("star", 20)))
    assert (strangers.unfamiliar.count, strangers.sure.count) == (40, 0)
    assert str(strangers) == (
        "40 images of classes that the model does not know: ring (20), star (20), 40 called unfamiliar, "
        "0 answered as sure"
    )
    assert judged.to_json()["strangers"]["unfamiliar"]["count"] == 40


def test_names_that_look_alike_are_matched_and_said(model: Predictor) -> None:
    judged = hangtag.evaluate(model, given((" Bar", "DOT", "edge")))

    assert judged.evaluation.accuracy > 0.9 and judged.evaluation.strangers is None
    assert judged.notes == (
        "class ' Bar' of given was taken for the model's 'bar'",
        "class 'DOT' of given was taken for the model's 'dot'",
    )


def test_an_exact_name_wins_and_two_that_look_alike_stay_strangers(model: Predictor) -> None:
    exact = hangtag.evaluate(model, given(("bar", "Bar", "edge"))).evaluation
    twice = hangtag.evaluate(model, given(("BAR", "Bar", "edge"))).evaluation

    assert exact.strangers is not None and exact.strangers.classes == (("Bar", 100),)
    assert twice.strangers is not None and twice.strangers.classes == (("BAR", 100), ("Bar", 100))


def test_data_without_any_class_of_the_model_is_refused(model: Predictor) -> None:
    with pytest.raises(DataError) as caught:
        hangtag.evaluate(model, given(("x", "y", "z")))

    assert caught.value.message == (
        "given has no class that the model knows: its classes are x, y, z; the model's are bar, dot, edge"
    )


def test_the_test_part_is_judged_if_there_is_one(model: Predictor) -> None:
    data = dataclasses.replace(given(), parts={"train": slice(0, 200), "test": slice(200, 300)})

    assert (hangtag.evaluate(model, data).part, len(hangtag.evaluate(model, data).data)) == ("test", 100)


def test_a_lower_accuracy_on_other_data_is_not_called_overfitting(model: Predictor) -> None:
    data = given()
    wrong = dataclasses.replace(data, labels=(data.labels + 1) % 3)

    assert "suggests overfitting" not in hangtag.evaluate(model, wrong).evaluation.gap_in_words


def test_the_classifier_evaluates_by_name_too(classifier: hangtag.ImageClassifier) -> None:
    data = given()
    found = classifier.evaluate(data.images, np.where(data.labels == 1, 9, data.labels))
    named = classifier.evaluate(given(("bar", "ring", "edge")))

    assert found.strangers is not None and found.strangers.classes == (("9", 100),)
    assert named.strangers is not None and (named.images, named.strangers.images) == (200, 100)


def test_training_accuracy_is_measured_on_images_as_they_are(classifier: hangtag.ImageClassifier) -> None:
    images, labels = shapes(600)
    train = classifier.split_.train

    expected = float((classifier.predict_proba(images[train]).argmax(1) == labels[train]).mean())

    assert classifier.training_accuracy_ == pytest.approx(expected)
    assert isinstance(hangtag.evaluate(classifier.predictor_, given()), Judgement)


def test_numbers_on_the_training_images_come_with_a_note(model: Predictor) -> None:
    images, labels = shapes(600)
    trained = LabelledImages(images, labels, CLASSES)

    def notes(data: LabelledImages) -> bool:
        return any("trained on these images" in note for note in hangtag.evaluate(model, data).notes)

    assert notes(trained)
    assert notes(trained.take(np.random.default_rng(0).permutation(600)))
    assert not notes(given())
    assert not notes(dataclasses.replace(trained, parts={"train": slice(0, 400), "test": slice(400, 600)}))


def test_repeated_images_are_said_and_few_are_not(model: Predictor) -> None:
    data = given()

    repeated = hangtag.evaluate(model, data.take(np.arange(300).repeat(2)))
    few = hangtag.evaluate(model, data.take(np.append(np.arange(300), 0)))

    assert repeated.notes == (
        "only 300 of the 600 images are different, so the numbers are less certain than their intervals say",
    )
    assert repeated.to_json()["notes"] == list(repeated.notes)
    assert few.notes == ()


def test_training_accuracy_is_that_of_the_calibrated_model() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (1000, 8, 8), dtype=np.uint8)
    labels = (random.random(1000) < 0.1).astype(np.int64)
    settings = dataclasses.replace(quick_recipe(), balance="weights", validation=0.3)  # names the rare one too often

    classifier = hangtag.ImageClassifier(recipe=settings).fit(LabelledImages(images, labels, ("often", "rare")))

    train = classifier.split_.train
    answers = classifier.predictor_.probabilities(images[train]).argmax(axis=1)
    assert classifier.training_accuracy_ == pytest.approx((answers == labels[train]).mean())
    assert classifier.guarantees_.calibrator.method != "none"
