"""cross_fit.py: all images are trained on, and nobody judges an image that it was trained on."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import RunError, UsageError
from hangtag.evaluation.comparison import compare_judgements
from hangtag.evaluation.cross_validation import FILE
from hangtag.evaluation.judge import Judgement, judge_own
from hangtag.evaluation.run_folder import STOPPED, Run
from hangtag.evaluation.stress_test import stress
from hangtag.model.predictor import load
from hangtag.reports.report import write_report_and_pictures
from hangtag.training.classifier import Classifier
from hangtag.training.cross_fit import choose_folds
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.run import Training
from toys import CLASSES, shapes

RECIPE = find_recipe("quick", min_steps=0, epochs=12, batch_size=16)


def few(count: int = 60, seed: int = 0) -> LabelledImages:
    """Images of which no two are nearly equal."""
    images, labels = shapes(count, seed)
    images[:, 6:] = np.random.default_rng(seed).integers(0, 256, (count, 2, 8), dtype=np.uint8)
    return LabelledImages(images, labels, CLASSES, "shapes")


def noise(count: int = 60) -> LabelledImages:
    """Images without anything to learn but by heart."""
    random = np.random.default_rng(3)
    images = random.integers(0, 256, (count, 8, 8), dtype=np.uint8)
    return LabelledImages(images, np.arange(count) % 2, ("a", "b"), "noise")


class Linear(nn.Module):
    """A softmax regression: its embedding is the image, so all folds share it."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.logits(x.flatten(1))
        return logits


def begun(folder: Path, data: LabelledImages, **settings: Any) -> Training:
    return Training.begin(Classifier(RECIPE, **settings), data, {"what": "shapes", "path": None}, folder)


def test_labels_learned_by_heart_are_not_recognised_while_held_out() -> None:
    classifier = Classifier(replace(RECIPE, epochs=60), folds=5).fit(noise())

    answers = classifier.answers_of_folds_
    assert answers is not None and classifier.training_accuracy_ == 1.0
    right = answers.outputs["probabilities"].argmax(axis=1) == noise().labels[noise().order[answers.ranks]]
    assert 0.2 < right.mean() < 0.8
    assert not classifier.guarantees_.better_than_chance
    assert len(classifier.split_.train) == 60 and not len(classifier.split_.validation)


def test_the_model_and_its_judgement_are_the_same_again() -> None:
    one, other = (Classifier(RECIPE, folds=3).fit(few()) for _ in range(2))

    first, second = one.answers_of_folds_, other.answers_of_folds_
    assert first is not None and second is not None and first.count == 3
    assert all((first.outputs[name] == rows).all() for name, rows in second.outputs.items())
    assert one.guarantees_ == other.guarantees_


def test_networks_that_differ_in_more_than_their_last_layer_do_not_ship() -> None:
    classifier = Classifier(RECIPE, folds=3).fit(few())

    assert not classifier.predictor_.has_output("fold_uncalibrated")
    assert any("nothing is proven" in text for text in classifier.guarantees_.limitations)


def test_a_pickled_classifier_knows_its_folds() -> None:
    classifier = Classifier(replace(RECIPE, epochs=1), folds=3).fit(few(30))

    again = pickle.loads(pickle.dumps(classifier))

    again.cross_fit()  # is done already, and needs images that are not pickled
    assert again.folds_finished_ == classifier.folds_finished_ == 3


def test_last_layers_on_the_same_embedding_ship_and_decide_the_sets() -> None:
    data = few(120)
    classifier = Classifier(RECIPE, Linear(), folds=4).fit(data)
    model, judged = classifier.predictor_, few(90, seed=9)

    outputs = model.outputs(judged.images, *model.deciding)
    by_fold = outputs["fold_uncalibrated"]
    assert by_fold.shape == (90, 4, 3) and np.allclose(by_fold.sum(axis=2), 1, atol=1e-4)
    own, answers = model.outputs(data.images, "fold_uncalibrated"), classifier.answers_of_folds_
    assert answers is not None
    held_out = own["fold_uncalibrated"][data.order[answers.ranks], answers.folds]
    assert np.allclose(held_out, answers.outputs["uncalibrated"], atol=1e-4)
    verdicts = model.guarantees.decide(outputs, model.policy)
    conformal = model.guarantees.by("threshold")
    assert conformal is not None and verdicts.in_set is not None
    assert (verdicts.in_set >= conformal.sets_by_folds(by_fold, 0.95)).all()
    assert verdicts.in_set[np.arange(90), judged.labels].mean() > 0.9
    assert any("is proven" in text for text in model.guarantees.limitations)


def test_weights_of_images_travel_to_the_folds() -> None:
    data, weights = few(), np.ones(60)
    weights[:6] = 0

    classifier = Classifier(RECIPE, folds=3).fit(data.images, data.labels, sample_weight=weights)

    answers = classifier.answers_of_folds_
    assert answers is not None and len(answers.ranks) == 54 and len(classifier.split_.train) == 54


def test_a_run_is_judged_by_the_answers_that_it_keeps(tmp_path: Path) -> None:
    data = few()
    training = begun(tmp_path / "run", data)
    list(training.epochs())
    training.cross_fit()
    judged = training.finish()
    run, metrics = training.run, training.run.metrics()

    assert (judged.part, metrics["part"], metrics["folds"], metrics["images"]) == ("cross-validation",) * 2 + (5, 60)
    assert "5-fold cross-validated on 60 images" in judged.in_words and "validation accuracy" not in judged.in_words
    split = run.config()["split"]
    assert [split[key] for key in ("train", "validation", "folds", "judged")] == [60, 0, 5, 60]
    again = _again(run, data)
    assert again.evaluation == judged.evaluation and again.guarantees == judged.guarantees
    page = write_report_and_pictures(run, data, judged).read_text(encoding="utf-8")
    assert "5-fold cross-validated on 60 images" in page and "test image" not in page
    assert "validation image" not in page.replace("cross-validation image", "")
    with pytest.raises(UsageError, match="was trained on all 60 images"):
        stress(load(run.path), judged.data, folds=judged.folds)
    same, _ = compare_judgements(("one", "two"), judged, again)
    assert same.accuracies[0] == same.accuracies[1]
    (run.path / FILE).unlink()
    with pytest.raises(RunError, match=f"{FILE} is missing"):
        _again(run, data)


def _again(run: Run, data: LabelledImages) -> Judgement:
    return judge_own(run, data, load(run.path))


@pytest.mark.parametrize("finished", [1, 2])
def test_a_training_that_is_stopped_in_its_folds_counts_the_finished_ones(finished: int, tmp_path: Path) -> None:
    training = begun(tmp_path / "run", few())
    list(training.epochs())
    seen: list[int] = []
    training.cross_fit(lambda: bool(seen) and seen[-1] == finished + 1, lambda fold, folds, epoch: seen.append(fold))

    judged = training.finish()

    assert judged.evaluation.folds == finished and judged.evaluation.images == 12 * finished
    assert training.stopped and training.run.config()["status"] == STOPPED
    assert f"stopped after {finished} of 5 folds" in " ".join(training.notes())


def test_a_training_that_is_stopped_before_its_first_fold_is_left_to_be_resumed(tmp_path: Path) -> None:
    data = few()
    training = begun(tmp_path / "run", data)
    list(training.epochs())
    training.cross_fit(lambda: True)
    assert not training.can_finish
    training.leave()
    assert training.run.config()["status"] == STOPPED and not training.run.model.exists()

    resumed = Training._resume(Classifier(training.classifier.recipe), data, training.run, _lock(training))
    list(resumed.epochs())
    assert resumed.finish().evaluation.folds == 5


def _lock(training: Training) -> Any:
    lock = training.run.lock()
    assert lock is not None
    return lock


def test_a_test_part_judges_even_if_folds_are_asked_for(tmp_path: Path) -> None:
    images, labels = shapes(90)
    data = LabelledImages(images, labels, CLASSES, "shapes", parts={"train": slice(0, 60), "test": slice(60, 90)})
    training = begun(tmp_path / "run", data, folds=3)
    list(training.epochs())

    judged = training.finish()

    assert (judged.part, judged.evaluation.folds, judged.evaluation.images) == ("test", 0, 30)
    assert training.classifier.guarantees_.folds == 3
    assert json.loads((training.run.path / "config.json").read_text())["split"]["folds"] == 3


def test_folds_are_chosen_for_few_images_that_nothing_else_judges() -> None:
    data, recipe = few(60), find_recipe("fast")

    assert choose_folds(recipe, data) == (5, "")
    assert choose_folds(replace(recipe, folds=0), data) == (0, "")
    parts = {"train": slice(0, 40), "test": slice(40, 60)}
    assert choose_folds(recipe, replace(data, parts=parts)) == (0, "")
    assert choose_folds(find_recipe("transfer"), replace(data, parts=parts)) == (5, "")
    assert choose_folds(
        find_recipe("transfer"), replace(data, parts={**parts, "test": slice(40, 50), "validation": slice(50, 60)})
    ) == (0, "")
    assert choose_folds(find_recipe("fast", validation=0.2), data)[0] == 0
    assert choose_folds(replace(recipe, patience=2), data)[0] == 0
    assert choose_folds(recipe, few(2000))[0] == 0
    assert choose_folds(find_recipe("transfer"), data) == (5, "")
    assert choose_folds(find_recipe("transfer", fine_tune=3), data)[0] == 0  # held-out images decide on it
    parts = {"train": slice(0, 30), "test": slice(30, 60)}
    assert choose_folds(recipe, replace(data, parts=parts))[0] == 0
    large = LabelledImages(np.zeros((1500, 64, 64, 3), np.uint8), np.arange(1500) % 3, CLASSES)
    none, why = choose_folds(find_recipe("accurate"), large)
    assert none == 0 and "would take long; 10% of the images are held out instead" in why and "--folds 5" in why
    none, why = choose_folds(replace(recipe, network="own:net"), data)
    assert none == 0 and "custom network" in why


@pytest.mark.parametrize("setting", [{"validation": 0.2}, {"patience": 3}])
def test_folds_and_held_out_images_contradict_each_other(setting: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="contradict each other"):
        Classifier(RECIPE, folds=5, **setting).fit(few())
    given = replace(few(), parts={"train": slice(0, 40), "validation": slice(40, 60)})
    with pytest.raises(UsageError, match="has a validation part"):
        Classifier(RECIPE, folds=5).fit(given)


def test_the_number_of_folds_is_checked() -> None:
    for wrong in (1, -3, 101):
        with pytest.raises(UsageError, match="folds must be 0, or from 2 to 100"):
            Classifier(RECIPE, folds=wrong).fit(few())
