"""The networks: the lesson's exactly, ours in every size, all with weights that depend on the seed alone."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.errors import ModelError, UnknownName
from hangtag.pictures import ImageSpec
from hangtag.training.engine.loop import train
from hangtag.training.engine.networks import (
    NETWORKS,
    Layer,
    build_network,
    custom_network,
    layers,
    parameter_count,
    predict_logits,
    to_pixels,
)
from toys import SIDE, quick_recipe, shapes

LESSON = ImageSpec(28, 28)


def weights(network: nn.Module) -> bytes:
    return b"".join(parameter.detach().numpy().tobytes() for parameter in network.parameters())


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
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    torch.manual_seed(1)
    first = build_network(name, LESSON, 10, seed=3)
    torch.manual_seed(2)
    second, other = build_network(name, LESSON, 10, seed=3), build_network(name, LESSON, 10, seed=4)

    assert weights(first) == weights(second)
    assert weights(first) != weights(other)


@pytest.mark.parametrize("name", NETWORKS)
def test_building_leaves_pytorchs_random_state_alone(name: str) -> None:
    before = torch.get_rng_state()

    build_network(name, LESSON, 10, seed=3)

    assert torch.equal(torch.get_rng_state(), before)


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


def test_images_too_small_for_a_network_are_refused_with_a_way_out() -> None:
    with pytest.raises(ModelError) as caught:
        build_network("cnn", ImageSpec(3, 3), 10, seed=0)

    assert str(caught.value) == "images of 3x3 grey are too small for 'cnn' (use the network 'mlp', or larger images)"


def test_an_unknown_network_offers_the_nearest_one() -> None:
    with pytest.raises(UnknownName) as caught:
        build_network("cn", LESSON, 10, seed=0)

    assert str(caught.value).startswith("unknown network 'cn' (did you mean 'cnn'? known: ")


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_logits_do_not_depend_on_the_batch(batch: int) -> None:
    network = build_network("cnn", ImageSpec(SIDE, SIDE), 3, seed=0).train()
    images, _ = shapes(20)

    answer = predict_logits(network, images, batch)

    torch.testing.assert_close(answer, predict_logits(network, images))
    assert network.training


def test_pixels_are_scaled_and_channels_come_first() -> None:
    grey = torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8)
    colour = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 2, 3)

    torch.testing.assert_close(to_pixels(grey), torch.tensor([[[[0, 1], [0.2, 0.4]]]]))
    torch.testing.assert_close(to_pixels(colour)[0, 2] * 255, torch.tensor([[2.0, 5.0], [8.0, 11.0]]))


class Odd(nn.Module):
    """Answers something else than logits."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(5, 3), "the network does not take pixels of shape (4, 1, 8, 8): "),
        (nn.Flatten(start_dim=0), "the network answered (256,) for 4 images"),
        (nn.Identity(), "the network answered (4, 1, 8, 8) for 4 images"),
        (Odd("words"), "the network answered str for 4 images"),
        (Odd(torch.zeros(3, 3)), "the network answered (3, 3) for 4 images"),
    ],
)
def test_a_network_that_does_not_classify_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        predict_logits(network, np.zeros((4, 8, 8), np.uint8))

    assert caught.value.message.startswith(message)
    assert caught.value.hint


class Raising(nn.Module):
    """Raises what it is given."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), NotImplementedError("x"), AssertionError("x")])
def test_whatever_a_network_raises_is_said_in_one_line(error: Exception) -> None:
    with pytest.raises(ModelError) as caught:
        predict_logits(Raising(error), np.zeros((4, 8, 8), np.uint8))

    assert f"does not take pixels of shape (4, 1, 8, 8): {type(error).__name__}: " in caught.value.message
    assert caught.value.__cause__ is error


def test_running_out_of_memory_is_no_mistake_of_the_network() -> None:
    with pytest.raises(MemoryError):
        predict_logits(Raising(MemoryError()), np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(ModelError, match=r"out of memory with two images of 8x8 grey \(use smaller images"):
        custom_network(Raising(MemoryError()), ImageSpec(8, 8), 3, seed=0)


def test_the_layer_table_takes_layers_that_answer_several_things() -> None:
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


def test_no_images_give_no_logits() -> None:
    network = build_network("mlp", ImageSpec(8, 8), 3, seed=0)

    assert predict_logits(network, np.zeros((0, 8, 8), np.uint8)).shape == (0, 3)


OWN = """
import torch
from torch import nn

def tiny(spec, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.height * spec.width, classes))

ready = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
number = lambda spec, classes: 7
def broken(spec, classes):
    raise KeyError("weights")
"""


def test_of_the_current_folder_only_the_named_module_comes_before_what_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit")  # of the standard library, and not loaded yet
    (tmp_path / "helper.py").write_text("SIZE = 64")
    (tmp_path / "beside_helper.py").write_text("import colorsys\nfrom helper import SIZE\n" + OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    before = list(sys.path)

    assert isinstance(build_network("beside_helper:tiny", ImageSpec(8, 8), 3, seed=1), torch.nn.Module)
    assert sys.path == before


def test_a_network_of_ones_own_is_named_as_module_and_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    spec = ImageSpec(8, 8)

    one, other = (build_network("own_networks:tiny", spec, 3, seed=1) for _ in range(2))

    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert isinstance(build_network("own_networks:ready", spec, 3, seed=1), torch.nn.Module)
    for name, said in (
        ("own_networks:number", "made a int"),
        ("own_networks:broken", "KeyError: 'weights'"),
        ("own_networks:missing", "has no attribute 'missing'"),
        ("no_such_module:tiny", "No module named 'no_such_module'"),
    ):
        with pytest.raises(ModelError, match=said):
            build_network(name, spec, 3, seed=0)
    with pytest.raises(ModelError, match="answers 3 logits but the data has 4 classes"):
        build_network("own_networks:ready", spec, 4, seed=0)


LAZY = """
from torch import nn

def lazy(spec, classes):
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(classes))

ready = lazy(None, 3)

def small(spec, classes):
    from hangtag.training.engine.networks import build_network
    return build_network("cnn", type(spec)(3, 3), classes, 0)
"""


@pytest.mark.parametrize("name", ["lazy_networks:lazy", "lazy_networks:ready"])
def test_lazy_layers_have_their_weights_by_the_seed_and_learn(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_networks.py").write_text(LAZY)
    monkeypatch.chdir(tmp_path)
    spec = ImageSpec(SIDE, SIDE)

    one, same, other = (build_network(name, spec, 3, seed) for seed in (1, 1, 2))

    assert parameter_count(one) == 4 * 9 + 4 + 8 + 4 * 36 * 3 + 3
    assert weights(one) == weights(same) != weights(other)
    before = weights(one)
    list(train(one, *shapes(60), quick_recipe(), 0))
    assert weights(one) != before


def test_an_error_of_hangtags_in_ones_own_function_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small_networks.py").write_text(LAZY)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ModelError) as caught:
        build_network("small_networks:small", ImageSpec(8, 8), 3, seed=0)

    assert caught.value.message == "images of 3x3 grey are too small for 'cnn'"


@pytest.mark.parametrize(
    ("name", "million"), [("cnn-small", 3.2), ("cnn", 12.6), ("cnn-large", 64.5), ("cnn-wide", 286.3)]
)
def test_the_sizes_that_are_said_are_counted(name: str, million: float) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    network = build_network(name, ImageSpec(28, 28), 10, seed=0).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 28, 28))

    assert counter.get_total_flops() / 2e6 == pytest.approx(million, rel=0.02)
