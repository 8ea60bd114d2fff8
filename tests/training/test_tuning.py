"""tuning.py: trials are proposed, trained, pruned and resumed; the best setting is trained and judged once."""

import json
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hangtag
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import RunError, UsageError
from hangtag.evaluation.judge import judge
from hangtag.evaluation.run_folder import Run
from hangtag.evaluation.tuning_results import Trial
from hangtag.training import tuning
from hangtag.training.engine.recipes import Recipe
from hangtag.training.estimator import ImageClassifier
from hangtag.training.run import Training
from hangtag.training.tuning import Search, calibrated_loss, run_trial
from toys import CLASSES, quick_recipe, shapes

SOURCE = {"what": "toys", "path": None}
SPACE = {"learning_rate": (1e-4, 0.1), "batch_size": [8, 16, 32]}


def data(test_seed: int = 1) -> LabelledImages:
    images, labels = shapes(210)
    noise = np.random.default_rng(1).integers(0, 200, images.shape)
    images = np.clip(images.astype(int) // 3 + noise, 0, 255).astype(np.uint8)
    images[150:] = np.random.default_rng(test_seed).integers(0, 255, images[150:].shape)
    return LabelledImages(images, labels, CLASSES, "toys", parts={"train": slice(0, 150), "test": slice(150, 210)})


@pytest.fixture(autouse=True)
def readable_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.data.read.read", lambda *_: data())


def recipe() -> Recipe:
    return replace(quick_recipe(9), validation=0.2)


def search(folder: Path, **changes: Any) -> Search:
    own = {"search": SPACE, "trials": 8, "parallel": 2} | changes
    images = own.pop("data", None) or data()
    classifier = own.pop("classifier", ImageClassifier(recipe=recipe(), seed=4))
    return Search(classifier, images, SOURCE, folder / "run", **own)


def never() -> bool:
    return False


def run_all(found: Search) -> None:
    while (job := next(found.waiting(), None)) is not None:
        trial = run_trial(job, found.searched, found.source, never)
        assert trial is not None
        found.add(trial)


def told(found: Search) -> list[Trial]:
    """The trials without their durations."""
    return [replace(trial, seconds=0.0) for trial in found.results.trials]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Search:
    found = search(tmp_path_factory.mktemp("undisturbed"))
    run_all(found)
    training = found.refit()
    list(training.epochs())
    training.finish()
    return found


def test_the_best_setting_is_trained_and_judged_once(undisturbed: Search) -> None:
    trials, run = undisturbed.results, undisturbed.run
    best = min((trial for trial in trials.trials if trial.state == "completed"), key=lambda trial: trial.loss or 9)

    assert trials.chosen == best.number
    assert [run.config()["recipe"][name] for name in SPACE] == list(best.settings.values())
    assert run.config()["tuning"]["tried"] == len(trials) == 8
    assert len(run.config()["test_opened"]) == 1
    assert run.history()[-1]["val_loss"] == best.curve[-1]  # the same images were held out, and the seed is the same
    assert judge(run).evaluation.accuracy == run.metrics()["accuracy"]
    assert run.trials() == trials
    assert list(trials) == list(trials.trials) and len(repr(trials)) < 100 > max(map(len, map(repr, trials)))
    assert not (run.path / "trials").exists()
    assert (run.path / "trials.csv").read_text().splitlines()[0].startswith("trial,state,loss,accuracy,epochs,seconds,")


def test_bad_trials_are_pruned_and_the_first_has_the_recipes_own_settings(undisturbed: Search) -> None:
    trials = undisturbed.results.trials

    assert trials[0].settings == {"learning_rate": 0.001, "batch_size": 32}
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert len(trial.curve) in (1, 3)
        rung = len(trial.rungs) - 1
        rivals = [each.rungs[rung] for each in trials[: trial.number - 1] if len(each.rungs) > rung]
        assert sum(rival < trial.rungs[rung] for rival in rivals) >= (len(rivals) + 1) // 3
    assert len({tuple(trial.settings.items()) for trial in trials}) == len(trials)


def test_test_images_take_no_part_in_the_search(undisturbed: Search, tmp_path: Path) -> None:
    other = search(tmp_path, data=data(test_seed=2), trials=4)
    run_all(other)

    assert told(other) == told(undisturbed)[:4]
    assert "test" not in other.searched.parts


def test_trials_in_any_order_and_several_at_once_give_the_same_result(undisturbed: Search, tmp_path: Path) -> None:
    found = search(tmp_path)
    while jobs := list(found.waiting()):
        assert len(jobs) <= 2
        for job in reversed(jobs):
            trial = run_trial(job, found.searched, found.source, never)
            assert trial is not None
            found.add(trial)

    assert told(found) == told(undisturbed)


def test_a_search_that_is_interrupted_anywhere_gives_the_same_result(
    undisturbed: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hangtag.training.engine.checkpoints._FIRST_SECONDS", 0.0)
    random, resumed, running = np.random.default_rng(0), 0, True
    while running:
        found = search(tmp_path)
        resumed += found.resumed
        while running := (job := next(found.waiting(), None)) is not None:
            checks, limit = count(), random.integers(1, 10)
            trial = run_trial(job, found.searched, found.source, lambda: next(checks) >= limit)  # noqa: B023
            if trial is None:
                break
            found.add(trial)
        found.pause()

    assert resumed > 3
    assert told(search(tmp_path)) == told(undisturbed)


def test_an_interrupted_final_training_goes_on_with_the_chosen_setting(tmp_path: Path) -> None:
    found = search(tmp_path, trials=2)
    run_all(found)
    next(found.refit().epochs())
    found.lock.close()

    again = search(tmp_path, trials=2)
    assert (again.resumed, again.is_chosen) == (True, True)
    training = again.refit()
    list(training.epochs())
    training.finish()

    assert training.run.config()["status"] == "finished"
    assert training.config["recipe"]["given"] == ["batch_size", "epochs", "learning_rate"]
    with pytest.raises(RunError, match="already exists"):
        search(tmp_path, trials=2)


def test_an_unfinished_search_can_only_be_continued_as_it_began(tmp_path: Path) -> None:
    search(tmp_path).lock.close()

    with pytest.raises(RunError, match="trials 8 there, 9 here"):
        search(tmp_path, trials=9)
    with pytest.raises(RunError, match="repeat the command"):
        Training.resume(Run(tmp_path / "run"))


def test_a_small_space_is_tried_completely(tmp_path: Path) -> None:
    found = search(tmp_path, search={"batch_size": [8, 16], "flip": [False, True]}, trials=20)
    run_all(found)

    assert len(found.results) == 4
    assert len({json.dumps(trial.settings) for trial in found.results.trials}) == 4


def test_few_images_without_a_test_part_are_cross_validated(tmp_path: Path) -> None:
    own = replace(quick_recipe(2), validation=0.1, folds=3)
    only = replace(data(), parts={})
    found = search(tmp_path, data=only, trials=2, classifier=ImageClassifier(recipe=own))
    run_all(found)

    assert found.results.judged_by == "cross-validation"
    assert all(trial.state == "completed" and trial.loss is not None for trial in found.results.trials)


def test_a_recipe_that_holds_nothing_out_gets_validation_images(tmp_path: Path) -> None:
    found = search(tmp_path, classifier=ImageClassifier(recipe=quick_recipe(2)))

    assert found.classifier.chosen_recipe().validation == 0.1
    assert "10%" in found.note


def test_diverging_trials_fail_and_the_search_goes_on(tmp_path: Path) -> None:
    found = search(tmp_path, search={"learning_rate": [0.01, 1e30]}, trials=2)
    run_all(found)

    states = {trial.settings["learning_rate"]: trial.state for trial in found.results.trials}
    assert states == {0.01: "completed", 1e30: "failed"}
    assert found.results.best is not None and found.results.best.settings == {"learning_rate": 0.01}


def test_a_search_in_which_every_trial_fails_ends_with_the_reason(tmp_path: Path) -> None:
    found = search(tmp_path, search={"learning_rate": [1e28, 1e29, 1e30]}, trials=3)

    with pytest.raises(RunError, match=r"every trial failed.*diverged"):
        run_all(found)


def test_the_time_ends_a_search_after_at_least_one_trial(tmp_path: Path) -> None:
    found = search(tmp_path, trials=None, minutes=1e-6)
    run_all(found)

    assert len(found.results) == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"trials": 0}, "trials"), ({"minutes": 0.0}, "minutes"), ({"parallel": 0}, "parallel")],
)
def test_limits_out_of_range_are_refused(tmp_path: Path, limits: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=f"{message} must be"):
        search(tmp_path, **limits)
    assert not (tmp_path / "run").exists()


def test_the_loss_does_not_depend_on_the_scale_of_the_logits() -> None:
    labels = np.arange(90) % 3
    logits = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32) + 2 * np.eye(3, dtype=np.float32)[labels]

    assert calibrated_loss(5 * logits, labels) == pytest.approx(calibrated_loss(logits, labels), rel=1e-4)
    assert calibrated_loss(logits, labels) < calibrated_loss(0.5 * logits - np.roll(logits, 1, axis=1), labels)


def test_successive_halving_keeps_the_best_third() -> None:
    assert not tuning._is_worse(9.0, [1.0, 2.0])  # too few to compare with
    assert [tuning._is_worse(loss, [1.0, 2.0, 3.0, 4.0, 5.0]) for loss in (0.5, 1.5, 2.5)] == [False, False, True]


def test_tune_in_python_returns_a_run_that_loads_and_evaluates(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "toys.npz", x_train=data().train.images, y_train=data().train.labels,
        x_test=shapes(60)[0], y_test=shapes(60)[1],
    )  # fmt: skip
    seen: list[Trial] = []
    own = {"validation": 0.2, "epochs": 2}
    run = hangtag.tune(
        tmp_path / "toys.npz",
        "quick",
        {"batch_size": [8, 16]},
        settings=own,
        out=tmp_path / "run",
        progress=seen.append,
    )

    trials = run.trials()
    assert trials is not None and list(trials.trials) == seen
    assert len(seen) == 2
    assert hangtag.load(run)(data().images[0]).label in ("0", "1", "2")
    assert run.config()["status"] == "finished"
