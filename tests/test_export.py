"""The exported file answers as the trained network does, and an export that would not is refused."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from hangtag.artifact import METADATA_KEY, open_artifact
from hangtag.errors import ModelError
from hangtag.export import TOLERANCE, build, verify
from hangtag.images import ImageSpec
from hangtag.models import NETWORKS, logits_of
from hangtag.models import build as build_network
from toys import CLASSES, SIDE, metadata, shapes, toy_model

IMAGES, LABELS = shapes(40)
GREY, COLOUR = ImageSpec(SIDE, SIDE, background=0), ImageSpec(SIDE, SIDE, 3, background=0)


def network(seed: int = 0) -> nn.Module:
    """Of `toy_model()` when the seed is 0."""
    return build_network("mlp", GREY, len(CLASSES), seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_file_answers_as_the_network_does(name: str, channels: int) -> None:
    spec = dataclasses.replace(GREY, channels=channels)
    trained = build_network(name, spec, len(CLASSES), seed=1).train()
    images = np.random.default_rng(0).integers(0, 256, (33, *spec.shape), dtype=np.uint8)

    content = build(trained, metadata(spec))
    shipped = open_artifact(content).probabilities(images)

    own = torch.softmax(logits_of(trained, images), 1).numpy()
    assert np.abs(shipped - own).max() <= TOLERANCE / 10
    np.testing.assert_array_equal(shipped.argmax(1), own.argmax(1))
    np.testing.assert_array_equal(verify(content, trained, images), shipped)
    assert trained.training


def test_temperature_softens_the_answers_and_changes_no_label() -> None:
    content = build(network(), dataclasses.replace(metadata(), temperature=2.5))

    softened = verify(content, network(), IMAGES)

    expected = torch.softmax(logits_of(network(), IMAGES) / 2.5, 1).numpy()
    np.testing.assert_allclose(softened, expected, atol=1e-6)
    np.testing.assert_array_equal(softened.argmax(1), expected.argmax(1))


def test_the_same_network_gives_the_same_bytes() -> None:
    assert build(network(), metadata()) == toy_model()


def test_the_file_holds_nothing_about_the_machine_that_made_it() -> None:
    model = onnx.load_model_from_string(toy_model())

    assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]
    assert (model.producer_name, model.doc_string) == ("hangtag", "")
    assert [part for part in (b".py", b"site-packages", b"torch") if part in toy_model()] == []


def test_class_names_of_any_script_arrive_in_the_file() -> None:
    names = ("셔츠", "T-shirt/top", "ankle\nboot 'x' \"y\"")

    content = build(network(), metadata(class_names=names))

    assert open_artifact(content).metadata.class_names == names


def test_the_file_opens_in_plain_onnx_runtime_without_hangtag() -> None:
    session = onnxruntime.InferenceSession(toy_model())

    (answer,) = session.run(["probabilities"], {"images": IMAGES})

    np.testing.assert_array_equal(answer, open_artifact(toy_model()).probabilities(IMAGES))


def test_a_network_that_differs_is_refused_with_the_worst_offenders() -> None:
    other = network(seed=5)
    shipped = open_artifact(toy_model()).probabilities(IMAGES)
    own = torch.softmax(logits_of(other, IMAGES), 1).numpy()
    off = np.abs(shipped - own).max(axis=1)
    other_label = shipped.argmax(1) != own.argmax(1)
    worst = np.argsort(-off - other_label)[:5]

    with pytest.raises(ModelError) as caught:
        verify(toy_model(), other, IMAGES)

    assert caught.value.message == (
        f"the exported file does not answer as the trained network does: {other_label.sum()} labels differ, "
        f"the worst probabilities are off by {', '.join(f'image {index}: {off[index]:.2g}' for index in worst)}"
    )
    assert caught.value.hint


def test_a_small_difference_in_one_probability_is_refused() -> None:
    nudged = network()
    with torch.no_grad():
        nudged.get_parameter("logits.bias")[0] += 0.002  # far too little to change a label

    with pytest.raises(ModelError, match="0 labels differ, the worst probabilities are off by image "):
        verify(toy_model(), nudged, IMAGES)


def test_a_network_that_answers_nan_is_refused() -> None:
    broken = network()
    with torch.no_grad():
        broken.get_parameter("logits.bias")[0] = torch.nan

    with pytest.raises(ModelError, match=r"off by image .*: nan"):
        verify(toy_model(), broken, IMAGES)


class Branching(nn.Module):
    """Asks the pixels which way to go, which no exporter can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]


def test_a_network_that_cannot_be_exported_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError) as caught:
        build(Branching(), metadata())

    assert caught.value.message.startswith("PyTorch cannot export this network: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint
