"""steps.py: gradients written out by hand are autograd's, and Adam is PyTorch's."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hangtag.models import build
from hangtag.recipes import find_recipe
from hangtag.steps import DenseSteps, GenericSteps, steps_for
from toys import SIDE, ImageSpec

CPU = torch.device("cpu")
RECIPE = replace(find_recipe("tutorial"), batch_size=8)
SPEC = ImageSpec(SIDE, SIDE)


def chunk(count: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(count, 1, SIDE, SIDE, generator=random), torch.randint(0, 3, (count,), generator=random)


def deep(widths: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip((SIDE * SIDE, *widths), (*widths, 3), strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("widths", [(), (16,), (16, 8), (5, 7, 9)])
def test_steps_written_out_by_hand_are_those_of_autograd_and_pytorchs_adam(widths: tuple[int, ...]) -> None:
    by_hand, by_autograd = deep(widths), deep(widths)
    pixels, labels = chunk()
    rates = [1e-2, 2e-2, 1e-2, 5e-3]  # 8 + 8 + 8 + 4 images
    steps = DenseSteps(by_hand, RECIPE, 8)
    optimizer = torch.optim.Adam(by_autograd.parameters(), eps=RECIPE.adam_epsilon)

    for _ in range(3):
        answered = steps.take(pixels, labels, rates)
        expected = []
        for x, y, rate in zip(pixels.split(8), labels.split(8), rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            expected.append(by_autograd(x))
            cross_entropy(expected[-1], y).backward()
            optimizer.step()
        torch.testing.assert_close(answered, torch.cat(expected).detach(), atol=1e-4, rtol=1e-4)

    for own, reference in zip(by_hand.parameters(), by_autograd.parameters(), strict=True):
        torch.testing.assert_close(own, reference, atol=1e-4, rtol=1e-3)


def test_generic_steps_are_those_of_adam() -> None:
    one, other = deep((16,)), deep((16,))
    pixels, labels = chunk(24)

    generic = GenericSteps(one, RECIPE, 8, CPU).take(pixels, labels, [1e-2] * 3)
    dense = DenseSteps(other, RECIPE, 8).take(pixels, labels, [1e-2] * 3)

    torch.testing.assert_close(generic, dense, atol=1e-5, rtol=1e-4)


def test_the_lessons_network_gets_the_fast_steps_and_nothing_else_does() -> None:
    plain = build("mlp", SPEC, 3, seed=0)
    frozen = copy.deepcopy(plain)
    next(frozen.parameters()).requires_grad_(False)
    no_bias = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3, bias=False))
    gelu = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4), nn.GELU(), nn.Linear(4, 3))

    def kind(network: nn.Module, **changes: float) -> type:
        return type(steps_for(network, replace(RECIPE, **changes), 8, CPU))

    assert kind(plain) is DenseSteps
    assert kind(plain, weight_decay=0.1) is GenericSteps
    assert kind(plain, label_smoothing=0.1) is GenericSteps
    assert {kind(network) for network in (frozen, no_bias, gelu, build("cnn", SPEC, 3, 0))} == {GenericSteps}


def test_weight_decay_spares_biases() -> None:
    network = deep((4,))
    steps = GenericSteps(network, replace(RECIPE, weight_decay=0.1), 8, CPU)

    decayed = {group["weight_decay"]: [p.ndim for p in group["params"]] for group in steps.optimizer.param_groups}

    assert decayed == {0.1: [2, 2], 0.0: [1, 1]}


def test_a_network_trained_with_fast_steps_stays_an_ordinary_network() -> None:
    network = build("mlp", SPEC, 3, seed=0)
    pixels, labels = chunk(8)

    DenseSteps(network, RECIPE, 8).take(pixels, labels, [1e-2])
    again = build("mlp", SPEC, 3, seed=1)
    again.load_state_dict(network.state_dict())

    torch.testing.assert_close(again(pixels), network(pixels))
