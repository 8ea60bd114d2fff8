"""run.py: a run folder from data to a judged model, and judging it again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
from torch import Tensor, nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.public import datasets
from hangtag.data.read import read
from hangtag.errors import DataError, ModelError, RunError
from hangtag.evaluation.judge import judge, judge_own
from hangtag.evaluation.run_folder import Run
from hangtag.model.artifact import Artifact
from hangtag.model.predictor import load
from hangtag.training import exported
from hangtag.training.engine import inference
from hangtag.training.engine.build import build_network
from hangtag.training.estimator import ImageClassifier
from hangtag.training.run import Training, find_planned
from toys import CLASSES, in_a_process, quick_recipe, shapes, tiny_files, tiny_set


def divided(count: int = 120) -> LabelledImages:
    images, labels = shapes(count)
    return LabelledImages(images, labels, CLASSES, "shapes", parts={"train": slice(0, 90), "test": slice(90, count)})


def finished(folder: Path, classifier: ImageClassifier, data: LabelledImages) -> Training:
    training = Training.begin(classifier, data, {"what": data.name, "path": None}, folder / "run")
    list(training.epochs())
    training.finish()
    return training


def test_the_published_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    data = divided()

    run = finished(tmp_path, ImageClassifier(recipe=quick_recipe(8)), data).run

    answers = load(run.path).probabilities(data.test.images).argmax(1)
    assert run.metrics()["accuracy"] == np.mean(answers == data.test.labels)
    assert run.metrics()["part"] == "test"
    assert [epoch["number"] for epoch in run.history()] == list(range(1, 9))


def test_the_kept_weights_are_the_networks(tmp_path: Path) -> None:
    training = finished(tmp_path, ImageClassifier(recipe=quick_recipe()), divided())

    network = build_network("mlp", training.classifier.spec_, 3, seed=9)
    network.load_state_dict(safetensors.torch.load(training.run.weights.read_bytes()))

    for own, kept in zip(training.classifier.network_.parameters(), network.parameters(), strict=True):
        assert bool((own == kept).all())


def test_the_config_says_what_is_needed_to_do_it_again(tmp_path: Path) -> None:
    data = divided()
    config = finished(tmp_path, ImageClassifier(recipe=quick_recipe(), seed=5), data).run.config()

    assert config["status"] == "finished"
    assert config["seed"] == 5
    assert config["data"]["fingerprint"] == data.fingerprint
    assert config["data"]["counts"] == {"train": [30, 30, 30], "test": [10, 10, 10]}
    assert config["network"]["parameters"] == (64 + 1) * 128 + 129 * 3
    assert set(config["seconds"]) == {"train", "export", "evaluate"}
    assert {"python", "torch", "onnxruntime"} <= set(config["versions"])


def test_without_a_test_part_the_held_out_images_judge(tmp_path: Path) -> None:
    images, labels = shapes(300)
    data = LabelledImages(images, labels, CLASSES, "shapes")
    recipe = replace(quick_recipe(), validation=0.2)

    run = finished(tmp_path, ImageClassifier(recipe=recipe), data).run

    assert (run.metrics()["part"], run.metrics()["images"]) == ("validation", 60)


@pytest.mark.parametrize("test_images", [100, 0])
def test_each_image_passes_once_through_the_network_and_if_it_judges_through_the_file(
    test_images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = shapes(300)
    parts = {"train": slice(0, 200), "test": slice(200, 300)} if test_images else {}
    data = LabelledImages(images, labels, CLASSES, "shapes", parts=parts)
    monkeypatch.setattr(exported, "VERIFIED", 20)
    given = ImageClassifier(recipe=replace(quick_recipe(), validation=0.2))
    training = Training.begin(given, data, {"what": data.name, "path": None}, tmp_path / "run")
    list(training.epochs())
    passed = {"network": 0, "file": 0}

    def counting(name: str, counted: Any) -> Any:
        def call(first: Any, images: Any, *more: Any) -> Any:
            passed[name] += len(images)
            return counted(first, images, *more)

        return call

    monkeypatch.setattr(inference, "_features", counting("network", inference._features))
    monkeypatch.setattr(Artifact, "outputs", counting("file", Artifact.outputs))
    judged = training.finish()

    split = training.classifier.split_
    trained, held_out = len(split.train), len(split.validation)
    assert held_out > 20 and len(judged.data) == (test_images or held_out)
    assert passed == {"network": trained + held_out + test_images, "file": held_out + test_images}
    assert judge_own(training.run, data, load(training.run.path)).to_json() == judged.to_json()
    assert len(training.classifier.neighbours().labels) == trained


def test_no_images_to_judge_on_is_an_error(tmp_path: Path) -> None:
    images, labels = shapes(60)

    with pytest.raises(DataError, match="no images to evaluate"):
        finished(tmp_path, ImageClassifier(recipe=quick_recipe(), folds=0), LabelledImages(images, labels, CLASSES))


class _Unfaithful(nn.Module):
    """Answers differently while PyTorch exports it: always, or once it was trained."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.dense = nn.Linear(64, 3)
        self.differs = always

    def forward(self, x):  # type: ignore[no-untyped-def]
        import torch

        self.differs = self.differs or self.training
        y = self.dense(x.flatten(1))
        return -y if self.differs and torch.compiler.is_exporting() else y


def test_a_network_that_does_not_export_faithfully_leaves_no_model_file(tmp_path: Path) -> None:
    def train() -> None:
        finished(tmp_path, ImageClassifier(recipe=quick_recipe(), model=_Unfaithful(always=False)), divided())

    with pytest.raises(ModelError, match=r"file and the trained network disagree.*image"):
        train()

    run = Run(tmp_path / "run")
    assert (run.model.exists(), run.weights.exists(), run.config()["status"]) == (False, True, "not exported")
    with pytest.raises(RunError, match="already exists"):  # and nothing is trained again for nothing
        train()


def test_a_network_that_cannot_ship_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="file and the trained network disagree"):
        finished(tmp_path, ImageClassifier(recipe=quick_recipe(), model=_Unfaithful(always=True)), divided())

    assert not (tmp_path / "run").exists()


def test_an_incomplete_config_is_an_error(tmp_path: Path) -> None:
    run = Training.begin(
        ImageClassifier(recipe=quick_recipe()), divided(), {"what": "x", "path": None}, tmp_path / "run"
    ).run
    run.write_config({name: value for name, value in run.config().items() if name != "seed"})

    with pytest.raises(RunError, match=r"config\.json is incomplete: it has no `seed`"):
        Training.resume(run)


def test_judging_again_gives_the_same_numbers_and_notices_changed_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(datasets.NAMED, "tiny", tiny_set())
    for name, content in tiny_files().items():
        (tmp_path / name).write_bytes(content)
    data = read("tiny", tmp_path)
    training = Training.begin(
        ImageClassifier(recipe=quick_recipe()), data, {"what": "tiny", "path": str(tmp_path)}, tmp_path / "run"
    )
    list(training.epochs())
    first = training.finish()

    assert judge(training.run).to_json() == first.to_json()

    config = training.run.config()
    config["data"]["fingerprint"] = "0" * 64
    training.run.write_config(config)
    with pytest.raises(DataError, match="has changed since this run"):
        judge(training.run)
    with pytest.raises(DataError, match="has no class that the model knows"):
        judge(training.run, LabelledImages(data.images, data.labels, ("a", "b", "c")))


def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    program = """
import resource, sys
from hangtag.training.estimator import ImageClassifier
from hangtag.errors import SaveError
from hangtag.training.run import Training
from toys import quick_recipe
from test_run import divided
training = Training.begin(ImageClassifier(recipe=quick_recipe()), divided(), {"what": "x", "path": None}, None)
list(training.epochs())
training.classifier.to_bytes()
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    training.finish()
except SaveError as error:
    print(error)
"""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    out = in_a_process(f"import sys; sys.path[:0] = {folders!r}\n{program}", tmp_path)

    run = tmp_path / "runs" / "shapes-tutorial"
    assert "weights.safetensors: cannot be written" in out
    assert "free some space" in out
    assert sorted(path.name for path in run.iterdir()) == [".hangtag", "config.json", "history.jsonl"]
    assert json.loads((run / "config.json").read_text())["status"] == "training"


def test_predicting_never_imports_torch(tmp_path: Path) -> None:
    finished(tmp_path, ImageClassifier(recipe=quick_recipe()), divided())
    program = (
        "import sys, numpy, hangtag; tag = hangtag.load('run'); tag(numpy.zeros((8, 8), numpy.uint8));"
        "print([name for name in ('torch', 'sklearn', 'onnx', 'matplotlib') if name in sys.modules])"
    )

    assert in_a_process(program, tmp_path).strip() == "[]"


def test_an_interrupted_planned_training_is_found_by_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = divided()
    training = Training.begin(
        ImageClassifier(recipe=quick_recipe(), seed=3), data, {"what": "shapes", "path": None}, None
    )
    training.record(plan={"minutes": 2.0})

    assert find_planned(data, 2.0, 3, None) is None  # another process is training there
    training.lock.close()

    found = find_planned(data, 2.0, 3, None)
    assert found is not None
    assert found.path == training.run.path
    assert find_planned(data, 3.0, 3, None) is None
    assert find_planned(data, 2.0, 4, None) is None
    training.record(hangtag="0.0.1")
    assert find_planned(data, 2.0, 3, None) is None


def test_a_run_of_a_network_from_python_is_not_resumed_with_the_recipes_own(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    classifier = ImageClassifier(recipe=quick_recipe(), model=network)
    training = Training.begin(classifier, divided(), {"what": "x", "path": None}, tmp_path / "run")

    with pytest.raises(RunError, match="class weights given in Python"):
        Training.resume(training.run)


def own_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits, labels)


def test_a_run_names_its_own_loss_and_is_resumed_only_with_it(tmp_path: Path) -> None:
    source = {"what": "x", "path": None}
    settings: dict[str, Any] = {"recipe": quick_recipe(), "loss": own_loss, "class_weight": None}
    training = Training.begin(ImageClassifier(**settings), divided(), source, tmp_path / "run")
    training.lock.close()

    assert training.run.config()["from_python"] == {"loss": f"{__name__}.own_loss"}
    with pytest.raises(RunError, match="class weights given in Python"):
        Training.resume(training.run)
    with pytest.raises(RunError, match=r"loss .*test_run\.own_loss there, None here"):
        Training.begin(ImageClassifier(**{**settings, "loss": None}), divided(), source, tmp_path / "run")
    again = Training.begin(ImageClassifier(**settings), divided(), source, tmp_path / "run")
    assert again.resumed
    again.lock.close()


def test_a_run_is_resumed_only_with_the_version_that_began_it(tmp_path: Path) -> None:
    training = Training.begin(
        ImageClassifier(recipe=quick_recipe()), divided(), {"what": "shapes", "path": None}, tmp_path / "run"
    )
    training.lock.close()
    training.record(hangtag="0.0.1")

    with pytest.raises(
        RunError, match=r"started with hangtag 0\.0\.1, but this is hangtag .* \(resume it with that version"
    ):
        Training.resume(training.run)
    with pytest.raises(RunError, match=r"different settings \(hangtag 0\.0\.1 there"):
        Training.begin(training.classifier, training.data, {"what": "shapes", "path": None}, training.run.path)


def test_a_run_is_not_resumed_by_one_whose_epochs_small_data_may_change(tmp_path: Path) -> None:
    source = {"what": "x", "path": None}
    training = Training.begin(ImageClassifier("fast", epochs=9), divided(), source, tmp_path / "run")
    training.lock.close()

    with pytest.raises(RunError, match="settings given there: epochs, here: none"):
        Training.begin(ImageClassifier("fast"), divided(), source, tmp_path / "run")
