"""The exported file answers as the trained network does, and an export that would not is refused."""

import dataclasses
import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from hangtag.errors import ModelError
from hangtag.model.artifact import EXTRA_OUTPUTS, open_artifact
from hangtag.model.calibration import Calibrator, log_softmax
from hangtag.model.explanation import evidence
from hangtag.model.guarantees import Guarantees
from hangtag.model.onnx_file import CHECKSUM_KEY, METADATA_KEY
from hangtag.model.ood import fit_ood_detector
from hangtag.model.turned import TurnedOdds
from hangtag.pictures import FITS, Images, ImageSpec
from hangtag.training.engine import export
from hangtag.training.engine.build import build_network
from hangtag.training.engine.export import TOLERANCE, FoldHeads, export_model, quick_features, verify, with_metadata
from hangtag.training.engine.inference import Features, extract_features, predict_logits
from hangtag.training.engine.networks import NETWORKS, FlipTTA
from hangtag.training.engine.onnx_writer import IR_VERSION
from toys import CLASSES, SIDE, metadata, shapes, toy_model

IMAGES, LABELS = shapes(40)
GREY, COLOUR = ImageSpec(SIDE, SIDE, background=0), ImageSpec(SIDE, SIDE, 3, background=0)


def network(seed: int = 0) -> nn.Module:
    """Of `toy_model()` when the seed is 0."""
    return build_network("mlp", GREY, len(CLASSES), seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_predicts_the_same_as_the_network(name: str, channels: int, capfd: pytest.CaptureFixture[str]) -> None:
    spec = dataclasses.replace(GREY, channels=channels)
    trained = build_network(name, spec, len(CLASSES), seed=1).train()
    images = np.random.default_rng(0).integers(0, 256, (33, *spec.shape), dtype=np.uint8)

    content = export_model(trained, metadata(spec))
    shipped = open_artifact(content).probabilities(images)

    own = torch.softmax(predict_logits(trained, images), 1).numpy()
    assert np.abs(shipped - own).max() <= TOLERANCE / 10
    np.testing.assert_array_equal(shipped.argmax(1), own.argmax(1))
    np.testing.assert_array_equal(verify(open_artifact(content), trained, images), shipped)
    assert trained.training


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["mlp", "cnn-small"])
def test_quick_features_are_those_of_the_network(name: str, channels: int) -> None:
    spec = dataclasses.replace(GREY, channels=channels)
    trained = FlipTTA(build_network(name, spec, len(CLASSES), seed=1)).train()
    images = np.random.default_rng(0).integers(0, 256, (133, *spec.shape), dtype=np.uint8)

    features_of = quick_features(trained, spec, torch.device("cpu"))
    quick, empty, own = features_of(images), features_of(images[:0]), extract_features(trained, images)

    for field in dataclasses.fields(Features):
        np.testing.assert_allclose(getattr(quick, field.name), getattr(own, field.name), atol=1e-5)
        assert getattr(empty, field.name).shape == (0, *getattr(own, field.name).shape[1:])
    assert trained.training


def test_an_older_onnx_runtime_opens_the_graph_of_quick_features(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bytes] = []
    monkeypatch.setattr(export, "open_session", lambda content, **_: opened.append(content))

    quick_features(build_network("cnn-small", GREY, len(CLASSES), seed=1), GREY, torch.device("cpu"))

    assert [onnx.load_from_string(content).ir_version for content in opened] == [IR_VERSION]
    assert IR_VERSION < onnx.IR_VERSION  # what ONNX writes unless it is told


def test_the_graph_contains_the_calibrator_and_uncalibrated_probabilities() -> None:
    random = np.random.default_rng(3)
    calibrator = Calibrator("matrix", tuple(map(tuple, random.normal(size=(3, 3)))), (0.1, -0.2, 0.0), 40)
    guarantees = Guarantees((13, 13, 14), calibrator)
    content = export_model(network(), dataclasses.replace(metadata(), guarantees=guarantees))

    shipped = verify(open_artifact(content), network(), IMAGES)

    logits = predict_logits(network(), IMAGES).numpy()
    np.testing.assert_allclose(shipped, calibrator(log_softmax(logits)), atol=1e-5)
    before = open_artifact(content).outputs(IMAGES, "uncalibrated")["uncalibrated"]
    np.testing.assert_allclose(before, torch.softmax(torch.from_numpy(logits), 1), atol=1e-6)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("name", ["mlp", "cnn-small"])
def test_the_graph_computes_ood_scores_embeddings_and_evidence(name: str, flips: bool) -> None:
    trained = build_network(name, GREY, len(CLASSES), seed=1).eval()
    shipped = FlipTTA(trained) if flips else trained
    seen = extract_features(shipped, IMAGES)
    ood_detector = fit_ood_detector(
        IMAGES[:20], seen.descriptor[:20], LABELS[:20], IMAGES[20:], seen.descriptor[20:], seen.logits[20:]
    )

    content = export_model(shipped, metadata(), ood_detector)
    verify(open_artifact(content), shipped, IMAGES, ood_detector)
    artifact = open_artifact(content)

    found = artifact.outputs(IMAGES, "ood_score", "embedding")
    np.testing.assert_allclose(
        found["ood_score"], ood_detector.ood_score(IMAGES, seen.descriptor, seen.logits), atol=0.1
    )
    assert found["ood_score"].shape == (40,) and 0 <= found["ood_score"].min() <= 0.5
    np.testing.assert_allclose(found["embedding"], seen.embedding, atol=1e-5)
    assert artifact.has_output("maps") == (name != "mlp")
    if name != "mlp":
        rows = artifact.outputs(IMAGES, "maps", "map_weights")
        layer = trained.get_submodule("logits")
        assert isinstance(layer, nn.Linear)
        biases = layer.bias.detach().numpy()
        best = seen.logits.argmax(1)
        expected = seen.logits.max(1) - seen.logits.mean(1) - (biases[best] - biases.mean())
        np.testing.assert_allclose(evidence(rows["maps"], rows["map_weights"]).sum((1, 2)), expected, atol=1e-4)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("name", ["mlp", "cnn-small"])
def test_the_graph_finds_turned_images_as_the_detector_does(name: str, flips: bool) -> None:
    trained = build_network(name, GREY, len(CLASSES), seed=1).eval()
    shipped = FlipTTA(trained) if flips else trained
    seen = extract_features(shipped, IMAGES)
    plain = fit_ood_detector(IMAGES, seen.descriptor, LABELS, IMAGES, seen.descriptor, seen.logits)
    random = np.random.default_rng(0)
    weights = random.normal(size=(seen.descriptor.shape[1], len(CLASSES))).astype(np.float32)
    scores = plain.score(IMAGES, seen.descriptor, seen.logits)
    weights *= scores.std() / (seen.descriptor @ weights).std(axis=0)
    bias = scores.mean() - (seen.descriptor @ weights).mean(axis=0)
    with_turned = dataclasses.replace(plain, turned=TurnedOdds(weights, bias))

    artifact = open_artifact(export_model(shipped, metadata(), with_turned))

    verify(artifact, shipped, IMAGES, with_turned)
    expected = with_turned.score(IMAGES, seen.descriptor, seen.logits)
    np.testing.assert_allclose(artifact.outputs(IMAGES, "ood_distance")["ood_distance"], expected, atol=1e-2)
    assert 0.2 < (expected > scores + 0.1).mean() < 0.8
    with pytest.raises(ModelError, match="OOD scores of the exported file"):
        more = dataclasses.replace(with_turned, turned=TurnedOdds(weights, bias + 100))
        verify(artifact, shipped, IMAGES, more)


def test_the_log_odds_of_an_image_do_not_depend_on_the_others_in_its_batch() -> None:
    names, random = tuple("abcdefghij"), np.random.default_rng(0)
    trained = build_network("cnn-small", GREY, len(names), seed=1).eval()
    seen = extract_features(trained, IMAGES)
    plain = fit_ood_detector(IMAGES, seen.descriptor, np.arange(40) % 10, IMAGES, seen.descriptor, seen.logits)
    weights = random.normal(size=(seen.descriptor.shape[1], len(names))).astype(np.float32)
    odds = TurnedOdds(weights, np.full(len(names), 100, np.float32))  # larger than the other scores
    metadata_of_ten = dataclasses.replace(metadata(), class_names=names)
    artifact = open_artifact(export_model(trained, metadata_of_ten, dataclasses.replace(plain, turned=odds)))

    together = artifact.outputs(IMAGES, "ood_distance")["ood_distance"]

    for count in (1, 3, 7):
        parts = [artifact.outputs(IMAGES[start : start + count], "ood_distance") for start in range(0, 40, count)]
        np.testing.assert_array_equal(np.concatenate([part["ood_distance"] for part in parts]), together)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_all_outputs_exist_for_images_of_other_sizes(fit: str, channels: int) -> None:
    spec = ImageSpec(SIDE, SIDE, channels, background=0, fit=fit)
    trained = build_network("cnn-small", spec, len(CLASSES), seed=1).eval()
    images = np.random.default_rng(0).integers(0, 256, (20, *spec.shape), dtype=np.uint8)
    seen = extract_features(trained, images)
    ood_detector = fit_ood_detector(images, seen.descriptor, np.arange(20) % 3, images, seen.descriptor, seen.logits)

    weight, bias = (trained.get_parameter(f"logits.{name}").detach().numpy() for name in ("weight", "bias"))
    heads = FoldHeads(np.stack([weight, 2 * weight]), np.stack([bias, bias]))

    content = export_model(trained, metadata(spec), ood_detector, heads)
    verify(open_artifact(content), trained, images, ood_detector, fold_heads=heads)

    larger = np.random.default_rng(0).integers(0, 256, (2, 31, 17, *spec.shape[2:]), dtype=np.uint8)
    told = open_artifact(content).outputs(larger, "probabilities", *EXTRA_OUTPUTS)
    assert {name: len(rows) for name, rows in told.items()} == {"probabilities": 2, **dict.fromkeys(EXTRA_OUTPUTS, 2)}


@pytest.mark.parametrize("shape", [(9, 9), (28, 20, 3), (1, 8), (2, 2, 3)])
@pytest.mark.parametrize("held_out", [0, 30])
def test_the_graph_measures_pixels_as_the_detector_does(shape: tuple[int, ...], held_out: int) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 120, (90, *shape), dtype=np.uint8)
    spec = ImageSpec.of(images)
    trained = build_network("mlp", spec, len(CLASSES), seed=1).eval()
    seen, kept = extract_features(trained, images), slice(0, held_out)
    ood_detector = fit_ood_detector(
        images, seen.descriptor, np.arange(90) % 3, images[kept], seen.descriptor[kept], seen.logits[kept]
    )
    content = export_model(trained, metadata(spec), ood_detector)

    verify(open_artifact(content), trained, images, ood_detector)
    found = open_artifact(content).outputs(np.concatenate([images, 255 - images]), "ood_score")["ood_score"]

    assert (found[90:] > 0.95).all() and (found[:90] > 0.95).mean() < 0.1


def test_other_metadata_leave_the_answers_alone() -> None:
    content = with_metadata(toy_model(), dataclasses.replace(metadata(), seed=7))

    artifact = open_artifact(content)
    assert artifact.metadata.seed == 7
    np.testing.assert_array_equal(artifact.probabilities(IMAGES), open_artifact(toy_model()).probabilities(IMAGES))


def test_different_ood_scores_are_refused() -> None:
    seen = extract_features(network(), IMAGES)
    ood_detector = fit_ood_detector(IMAGES, seen.descriptor, LABELS, IMAGES, seen.descriptor, seen.logits)
    content = export_model(network(), metadata(), ood_detector)
    other = dataclasses.replace(ood_detector, quantiles=ood_detector.quantiles - 100)

    with pytest.raises(ModelError, match="OOD scores of the exported file and the trained network differ by up to"):
        verify(open_artifact(content), network(), IMAGES, other)


def test_the_same_network_gives_the_same_bytes() -> None:
    assert export_model(network(), metadata()) == toy_model()


def test_the_file_contains_nothing_about_the_machine_that_made_it() -> None:
    model = onnx.load_model_from_string(toy_model())

    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY, CHECKSUM_KEY]
    assert (model.producer_name, model.doc_string) == ("hangtag", "")
    assert [part for part in (b".py", b"site-packages", b"torch") if part in toy_model()] == []


def test_class_names_of_any_script_arrive_in_the_file() -> None:
    names = ("셔츠", "T-shirt/top", "ankle\nboot 'x' \"y\"")

    content = export_model(network(), metadata(class_names=names))

    assert open_artifact(content).metadata.class_names == names


def test_the_file_opens_in_plain_onnx_runtime_without_hangtag() -> None:
    session = onnxruntime.InferenceSession(toy_model())

    (answer,) = session.run(["probabilities"], {"images": IMAGES})

    np.testing.assert_array_equal(answer, open_artifact(toy_model()).probabilities(IMAGES))


def test_a_network_that_differs_is_refused_and_the_worst_images_are_named() -> None:
    other = network(seed=5)
    shipped = open_artifact(toy_model()).probabilities(IMAGES)
    own = torch.softmax(predict_logits(other, IMAGES), 1).numpy()
    off = np.abs(shipped - own).max(axis=1)
    other_label = shipped.argmax(1) != own.argmax(1)
    worst = np.argsort(-off - other_label)[:5]

    with pytest.raises(ModelError) as caught:
        verify(open_artifact(toy_model()), other, IMAGES)

    assert caught.value.message == (
        f"the exported file and the trained network disagree: {other_label.sum()} labels differ, and the largest "
        f"differences between probabilities are {', '.join(f'image {index}: {off[index]:.2g}' for index in worst)}"
    )
    assert caught.value.hint


def test_a_small_difference_in_one_probability_is_refused() -> None:
    nudged = network()
    with torch.no_grad():
        nudged.get_parameter("logits.bias")[0] += 0.002  # far too little to change a label

    with pytest.raises(
        ModelError, match="0 labels differ, and the largest differences between probabilities are image "
    ):
        verify(open_artifact(toy_model()), nudged, IMAGES)


def test_a_network_that_returns_nan_is_refused() -> None:
    broken = network()
    with torch.no_grad():
        broken.get_parameter("logits.bias")[0] = torch.nan

    with pytest.raises(ModelError, match=r"probabilities are image .*: nan"):
        verify(open_artifact(toy_model()), broken, IMAGES)


@pytest.mark.parametrize("wrong", [0.0, 0.01])
def test_a_device_that_rounds_differently_does_not_refuse_a_file(wrong: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU here is one that always answers something else; the network's own answer on the CPU decides."""

    def answered(trained: nn.Module, images: Images, device: torch.device | None = None) -> Features:
        features = extract_features(trained, images)
        return dataclasses.replace(features, logits=features.logits + (0.01 if device else wrong) * np.arange(3))

    monkeypatch.setattr(export, "extract_features", answered)
    artifact, gpu = open_artifact(toy_model()), torch.device("cuda")

    if wrong:
        with pytest.raises(ModelError, match="the exported file and the trained network disagree"):
            verify(artifact, network(), IMAGES, device=gpu)
    else:
        verify(artifact, network(), IMAGES, device=gpu)


class Branching(nn.Module):
    """Branches on pixel values, which cannot be exported."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]


def test_a_network_that_cannot_be_exported_is_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError) as caught:
        export_model(Branching(), metadata())

    assert caught.value.message.startswith("PyTorch cannot export this network: ")
    assert re.search(r"\(test_export\.py, line \d+: .* if x\.sum\(\) > 0 else", caught.value.message)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert capfd.readouterr() == ("", "")


class Determinant(nn.Module):
    """Uses an operator that model files may not contain."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)[:, :3]
        return rows + torch.linalg.det(x[:, 0])[:, None]


def test_a_network_with_an_operator_that_files_may_not_contain_is_refused_at_export() -> None:
    with pytest.raises(ModelError, match="cannot be written as a model file: its graph uses the operator 'Det'"):
        export_model(Determinant().eval(), metadata())
