"""inference.py: logits do not depend on the batch size; networks that do not classify are refused."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hangtag.errors import ModelError
from hangtag.pictures import ImageSpec
from hangtag.training.engine import inference
from hangtag.training.engine.build import build_network, custom_network
from hangtag.training.engine.inference import FeatureExtractor, extract_features, predict_logits, to_pixels
from hangtag.training.engine.networks import FlipTTA, device_of
from toys import SIDE, shapes


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_logits_do_not_depend_on_the_batch(batch: int) -> None:
    network = build_network("cnn", ImageSpec(SIDE, SIDE), 3, seed=0).train()
    images, _ = shapes(20)

    answer = predict_logits(network, images, batch)

    torch.testing.assert_close(answer, predict_logits(network, images))
    assert network.training


def test_features_leave_the_weights_of_a_network_as_they_are() -> None:
    network = build_network("cnn", ImageSpec(SIDE, SIDE), 3, seed=0).train()
    strides = [weight.stride() for weight in network.parameters()]
    images, _ = shapes(20)

    features = extract_features(network, images)

    np.testing.assert_allclose(features.logits, predict_logits(network, images).numpy(), atol=1e-5)
    assert [weight.stride() for weight in network.parameters()] == strides
    assert network.training


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 7])
def test_features_come_in_order_from_every_number_of_threads(
    threads: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = FlipTTA(build_network("cnn", ImageSpec(SIDE, SIDE), 3, seed=0)).eval()
    images, before = shapes(20)[0][:count], torch.get_num_threads()
    with torch.inference_mode():
        expected = FeatureExtractor(network)(to_pixels(torch.from_numpy(images)))
    monkeypatch.setattr(inference, "_PIXELS_OF_A_THREAD", 2 * SIDE * SIDE)

    torch.set_num_threads(threads)
    try:
        found = extract_features(network, images)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)

    for rows, wanted in zip((found.logits, found.descriptor, found.embedding), expected[:3], strict=True):
        np.testing.assert_allclose(rows, wanted.numpy(), atol=1e-5)
        assert len(rows) == count


def test_pixels_are_scaled_and_channels_come_first() -> None:
    grey = torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8)
    colour = torch.arange(12, dtype=torch.uint8).reshape(1, 2, 2, 3)

    torch.testing.assert_close(to_pixels(grey), torch.tensor([[[[0, 1], [0.2, 0.4]]]]))
    torch.testing.assert_close(to_pixels(colour)[0, 2] * 255, torch.tensor([[2.0, 5.0], [8.0, 11.0]]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["mlp", "cnn-large"])
def test_a_gpu_gives_the_features_of_the_processor(name: str) -> None:
    network = FlipTTA(build_network(name, ImageSpec(28, 28), 10, seed=0))
    images = np.random.default_rng(0).integers(0, 256, (3000, 28, 28), dtype=np.uint8)

    here, there = extract_features(network, images), extract_features(network, images, torch.device("cuda"))

    for key, rows in vars(here).items():
        np.testing.assert_allclose(vars(there)[key], rows, rtol=1e-4, atol=1e-4)
    assert device_of(network).type == "cpu" and torch.backends.cudnn.allow_tf32
    network(torch.zeros(2, 1, 28, 28)).sum().backward()  # the weights can be trained further


def test_without_memory_on_the_device_the_network_computes_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    images, _ = shapes(20)
    network, features, tried = build_network("mlp", ImageSpec(SIDE, SIDE), 3, seed=0), inference._features, []

    def full_at_first(*given: Any) -> inference.Features:
        tried.append(given)
        if len(tried) == 1:
            raise torch.OutOfMemoryError
        return features(*given)

    monkeypatch.setattr(inference, "_features", full_at_first)
    monkeypatch.setattr(inference, "_moved", lambda *_: nullcontext())
    found = extract_features(network, images, torch.device("cuda"))

    np.testing.assert_array_equal(found.logits, predict_logits(network, images).numpy())
    assert len(tried) == 2


class Odd(nn.Module):
    """Returns something other than logits."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(5, 3), "the network does not accept pixels of shape (4, 1, 8, 8): "),
        (nn.Flatten(start_dim=0), "the network returned (256,) for 4 images"),
        (nn.Identity(), "the network returned (4, 1, 8, 8) for 4 images"),
        (Odd("words"), "the network returned str for 4 images"),
        (Odd(torch.zeros(3, 3)), "the network returned (3, 3) for 4 images"),
    ],
)
def test_a_network_that_does_not_classify_is_refused(network: nn.Module, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        predict_logits(network, np.zeros((4, 8, 8), np.uint8))

    assert caught.value.message.startswith(message)
    assert caught.value.hint


class Raising(nn.Module):
    """Raises the given error."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, x: Tensor) -> Tensor:
        raise self.error


@pytest.mark.parametrize("error", [KeyError("x"), AttributeError("x"), NotImplementedError("x"), AssertionError("x")])
def test_any_error_of_a_network_becomes_one_line(error: Exception) -> None:
    with pytest.raises(ModelError) as caught:
        predict_logits(Raising(error), np.zeros((4, 8, 8), np.uint8))

    assert f"does not accept pixels of shape (4, 1, 8, 8): {type(error).__name__}: " in caught.value.message
    assert caught.value.__cause__ is error


def test_out_of_memory_is_not_reported_as_an_error_of_the_network() -> None:
    with pytest.raises(MemoryError):
        predict_logits(Raising(MemoryError()), np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(ModelError, match=r"out of memory with two images of 8x8 grey \(use smaller images"):
        custom_network(Raising(MemoryError()), ImageSpec(8, 8), 3, seed=0)


def test_no_images_give_no_logits() -> None:
    network = build_network("mlp", ImageSpec(8, 8), 3, seed=0)

    assert predict_logits(network, np.zeros((0, 8, 8), np.uint8)).shape == (0, 3)
