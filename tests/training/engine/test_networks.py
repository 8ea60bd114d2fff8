"""networks.py: the lesson's network exactly, and our own for every size of image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.errors import ModelError
from hangtag.model.artifact import open_artifact
from hangtag.pictures import ImageSpec
from hangtag.training.engine.build import build_network
from hangtag.training.engine.export import export_model, verify
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.networks import NETWORKS, FlipTTA, Layer, layers, parameter_count
from toys import metadata

LESSON = ImageSpec(28, 28)


def test_the_lessons_network_is_the_lessons() -> None:
    network = build_network("mlp", LESSON, 10, seed=0)

    assert layers(network, LESSON) == [
        Layer("flatten", "Flatten", (784,), 0),
        Layer("hidden", "Linear", (128,), 100_480),
        Layer("relu", "ReLU", (128,), 0),
        Layer("logits", "Linear", (10,), 1_290),
    ]
    assert parameter_count(network) == 101_770


def test_the_lessons_weights_start_glorot_uniform_and_its_biases_at_zero() -> None:
    network = build_network("mlp", LESSON, 10, seed=0)

    for name, inputs, outputs in (("hidden", 784, 128), ("logits", 128, 10)):
        limit = (6 / (inputs + outputs)) ** 0.5
        weight = network.get_parameter(f"{name}.weight").detach()
        assert float(weight.abs().max()) <= limit
        assert float(weight.std()) == pytest.approx(limit / 3**0.5, rel=0.05)
        assert float(weight.mean()) == pytest.approx(0, abs=limit / 10)
        assert not network.get_parameter(f"{name}.bias").any()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("spec", [LESSON, ImageSpec(4, 4), ImageSpec(9, 31), ImageSpec(32, 32, 3), ImageSpec(5, 64, 3)])
@pytest.mark.parametrize("classes", [2, 17])
def test_every_network_takes_every_size(name: str, spec: ImageSpec, classes: int) -> None:
    network = build_network(name, spec, classes, seed=0)

    answer = predict_logits(network, np.zeros((3, *spec.shape), np.uint8))

    assert (tuple(answer.shape), answer.dtype) == ((3, classes), torch.float32)
    assert layers(network, spec)[-1].shape == (classes,)
    assert not any(layer.kind == "Identity" for layer in layers(network, spec))
    assert sum(layer.parameters for layer in layers(network, spec)) == parameter_count(network)


def shapes_of(height: int, width: int) -> list[tuple[int, ...]]:
    spec = ImageSpec(height, width)
    return [row.shape for row in layers(build_network("cnn", spec, 10, seed=0), spec) if row.kind == "Conv2d"]


@pytest.mark.parametrize(
    ("height", "width", "first", "last"),
    [
        (28, 28, (16, 28, 28), (64, 7, 7)),  # unchanged up to 56x56
        (56, 56, (16, 56, 56), (64, 14, 14)),
        (64, 64, (16, 32, 32), (128, 4, 4)),
        (128, 128, (16, 64, 64), (128, 4, 4)),
        (224, 224, (16, 112, 112), (128, 7, 7)),
        (33, 400, (16, 16, 200), (128, 2, 25)),  # a strip keeps some height
        (8, 1024, (16, 8, 1024), (64, 2, 256)),
    ],
)
def test_large_images_are_halved_first_and_get_a_stage_more(
    height: int, width: int, first: tuple[int, ...], last: tuple[int, ...]
) -> None:
    shapes = shapes_of(height, width)

    assert (shapes[0], shapes[-1]) == (first, last)


@pytest.mark.parametrize("name", ["cnn-small", "cnn-large"])
def test_a_network_for_photos_answers_from_its_file_as_in_pytorch(name: str) -> None:
    spec = ImageSpec(70, 130, 3)
    network = FlipTTA(build_network(name, spec, 3, seed=0))
    images = np.random.default_rng(0).integers(0, 256, (3, *spec.shape), dtype=np.uint8)

    artifact = open_artifact(export_model(network, replace(metadata(), image=spec)))

    verify(artifact, network, images)


def test_images_too_small_for_a_network_are_refused_with_a_hint() -> None:
    with pytest.raises(ModelError) as caught:
        build_network("cnn", ImageSpec(3, 3), 10, seed=0)

    assert caught.value.message == "convolutional networks need images of at least 4x4 pixels, got 3x3 grey"
    assert caught.value.hint == "use the network 'mlp', or larger images"


def test_the_layer_table_accepts_layers_with_several_outputs() -> None:
    class Reads(nn.Module):
        """The rows of a picture, one after the other."""

        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.LSTM(8, 5, batch_first=True)
            self.logits = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            answer: Tensor = self.logits(self.rows(x[:, 0])[0][:, -1])
            return answer

    assert [layer.shape for layer in layers(Reads(), ImageSpec(8, 8))] == [(8, 5), (3,)]


@pytest.mark.parametrize(
    ("name", "million"), [("cnn-small", 3.2), ("cnn", 12.6), ("cnn-large", 64.5), ("cnn-wide", 286.3)]
)
def test_documented_multiply_adds_are_correct(name: str, million: float) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = build_network(name, ImageSpec(28, 28), 10, seed=0).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 28, 28))

    assert counter.get_total_flops() / 2e6 == pytest.approx(million, rel=0.02)
