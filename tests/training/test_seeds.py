"""seeds.py: several seeds share a folder; the best by validation loss is kept, and the run can be resumed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import RunError, UsageError
from hangtag.evaluation.judge import Judgement, judge
from hangtag.evaluation.run_folder import Run
from hangtag.model.neighbours import FILE
from hangtag.training.engine.recipes import Recipe
from hangtag.training.estimator import ImageClassifier
from hangtag.training.run import Training
from hangtag.training.seeds import Seeds, spread
from toys import CLASSES, quick_recipe, shapes

SOURCE = {"what": "toys", "path": None}


@pytest.fixture(autouse=True)
def readable_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hangtag.data.read.read", lambda *_: data())


def data() -> LabelledImages:
    images, labels = shapes(150)
    noise = np.random.default_rng(1).integers(0, 120, images.shape)
    images = np.clip(images.astype(int) // 2 + noise, 0, 255).astype(np.uint8)
    return LabelledImages(images, labels, CLASSES, "toys", parts={"train": slice(0, 90), "test": slice(90, 150)})


def recipe(validation: float = 0.2) -> Recipe:
    return replace(quick_recipe(2), validation=validation)


def seeds(folder: Path, count: int = 3, validation: float = 0.2) -> Seeds:
    return Seeds(ImageClassifier(recipe=recipe(validation), seed=4), data(), SOURCE, folder / "run", count)


def train_all(several: Seeds) -> list[int]:
    """Train the seeds that are not finished, and return their numbers."""
    trained = []
    for number, step in several.trainings():
        if isinstance(step, Training):
            list(step.epochs())
            step.finish()
            trained.append(number)
        else:
            assert isinstance(step, Judgement)
    return trained


def test_the_best_seed_by_validation_loss_is_kept_with_statistics(tmp_path: Path) -> None:
    several = seeds(tmp_path)
    assert train_all(several) == [4, 5, 6]

    kept, judged = several.finish()

    runs = {number: Run(tmp_path / "run" / "seeds" / str(number)) for number in (4, 5, 6)}
    losses = {number: run.history()[-1]["val_loss"] for number, run in runs.items()}
    assert kept == min(losses, key=lambda number: losses[number])
    top = Run(tmp_path / "run")
    assert top.model.read_bytes() == runs[kept].model.read_bytes()
    assert (top.path / FILE).read_bytes() == (runs[kept].path / FILE).read_bytes()
    assert (top.config()["status"], top.config()["kept_seed"], top.config()["seeds"]) == ("finished", kept, [4, 5, 6])
    common = top.metrics()["seeds"]
    values = [run.metrics()["accuracy"] for run in runs.values()]
    assert common["accuracy"]["values"] == values
    low, high = common["accuracy"]["interval"]
    assert 0 <= low <= common["accuracy"]["mean"] <= high <= 1
    assert common["accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert judge(top).evaluation.accuracy == judged.evaluation.accuracy == runs[kept].metrics()["accuracy"]


def test_all_seeds_hold_out_the_same_images(tmp_path: Path) -> None:
    held_out = []
    for _, step in seeds(tmp_path, 2).trainings():
        assert isinstance(step, Training)
        list(step.epochs())
        step.finish()
        held_out.append(step.classifier.split_.validation)

    assert np.array_equal(*held_out)


def test_the_same_command_resumes_the_missing_seeds(tmp_path: Path) -> None:
    several = seeds(tmp_path)
    _, step = next(several.trainings())
    assert isinstance(step, Training)
    list(step.epochs())
    step.finish()
    several.lock.close()

    again = seeds(tmp_path)

    assert again.resumed
    assert train_all(again) == [5, 6]
    again.finish()
    with pytest.raises(RunError, match="already exists"):
        seeds(tmp_path)


def test_without_held_out_images_the_first_seed_is_kept(tmp_path: Path) -> None:
    several = seeds(tmp_path, 2, validation=0.0)
    train_all(several)

    kept, _ = several.finish()

    assert kept == 4
    assert several.run.metrics()["seeds"]["kept_because"] == "the first, because no images were held out"


def test_finishing_before_all_are_trained_is_an_error(tmp_path: Path) -> None:
    several = seeds(tmp_path, 2)
    _, step = next(several.trainings())
    assert isinstance(step, Training)
    with pytest.raises(RunError, match="status of this run is 'training'"):
        several.finish()


def test_a_last_seed_that_is_too_large_is_refused_before_the_first_is_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed must be a whole number"):
        Seeds(ImageClassifier(recipe=recipe(), seed=2**63 - 2), data(), SOURCE, tmp_path / "run", 3)
    assert not (tmp_path / "run").exists()


def test_one_seed_is_not_several(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--seeds must be from 2 to 1,000, got 1"):
        seeds(tmp_path, 1)


@pytest.mark.parametrize("n", [2, 5, 16])
def test_the_interval_is_students(n: int) -> None:
    values = list(np.random.default_rng(n).normal(0.9, 0.01, n))

    result = spread(values)

    expected = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert result["interval"] == pytest.approx(expected, rel=1e-4)


def test_a_stopped_seed_is_resumed(tmp_path: Path) -> None:
    several = seeds(tmp_path, 2)
    _, step = next(several.trainings())
    assert isinstance(step, Training)
    list(step.epochs(stop=lambda: True))
    step.finish()
    several.lock.close()

    again = seeds(tmp_path, 2)

    assert train_all(again) == [4, 5]
    assert again.finish()[1].part == "test"
