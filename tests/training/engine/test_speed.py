"""speed.py: operations are counted right, nothing of the network changes, and the sentence holds what was measured."""

import pytest
import torch
from torch import nn

from hangtag.pictures import ImageSpec
from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.networks import build_network
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.engine.speed import peak_memory, speed_of, training_operations

SPEC = ImageSpec(8, 8)


def test_operations_of_a_dense_stack_are_those_of_its_products() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 3))

    # Forwards, for the weights and, but for the first layer, for the inputs; a multiply-add is two.
    assert training_operations(network, SPEC) == 2 * (2 * 64 * 20 + 3 * 20 * 3)


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build_network("cnn", SPEC, 3, 0).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    assert training_operations(network, SPEC) > 1e5

    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_share_of_the_peak_is_images_times_operations_over_peak() -> None:
    epoch = Epoch(1, 1, 100, 100, 0.5, 0.9, 0.01, 3.0, finished=True, training_seconds=2.0, first_step=20)
    network = build_network("mlp", SPEC, 3, 0)

    found = speed_of(network, SPEC, find_recipe("tutorial"), [epoch], 32, torch.device("cpu"))

    assert found.images_per_second == 80 * 32 / 2.0
    assert found.share_of_peak == pytest.approx(
        found.images_per_second * found.operations_per_image / found.peak_gflops / 1e9
    )
    assert (found.dtype, "1,280 images/s" in str(found), "float32" in str(found)) == ("float32", True, True)


def test_peak_memory_is_what_the_process_held() -> None:
    held = peak_memory(torch.device("cpu"))

    assert held is not None
    assert 50e6 < held < 100e9
