"""steps.py: each network gets the steps that fit it, and all of them are Adam's."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from hangtag.training.engine.build import build_network
from hangtag.training.engine.dense import CompiledSteps, DenseSteps
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.engine.steps import GenericSteps, steps_for
from stacks import chunk, deep
from toys import SIDE, ImageSpec

CPU = torch.device("cpu")
RECIPE = replace(find_recipe("tutorial"), batch_size=8)
SPEC = ImageSpec(SIDE, SIDE)


def test_generic_steps_are_those_of_adam() -> None:
    one, other = deep((16,)), deep((16,))
    images, labels = chunk(24)

    generic = GenericSteps(one, RECIPE, 8, CPU).run(images, labels, [1e-2] * 3)
    dense = DenseSteps(other, RECIPE, 8).run(images, labels, [1e-2] * 3)

    torch.testing.assert_close(generic, dense, atol=1e-5, rtol=1e-4)


def test_the_lessons_network_gets_the_fast_steps_and_nothing_else_does() -> None:
    plain = build_network("mlp", SPEC, 3, seed=0)
    frozen = copy.deepcopy(plain)
    next(frozen.parameters()).requires_grad_(False)
    no_bias = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 3, bias=False))
    gelu = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 4), nn.GELU(), nn.Linear(4, 3))

    def kind(network: nn.Module, **changes: float) -> type:
        return type(steps_for(network, replace(RECIPE, **changes), 8, CPU))

    assert kind(plain) is (CompiledSteps if CompiledSteps.possible() else DenseSteps)
    assert kind(plain, weight_decay=0.1) is GenericSteps
    assert kind(plain, label_smoothing=0.1) is GenericSteps
    assert {kind(network) for network in (frozen, no_bias, gelu, build_network("cnn", SPEC, 3, 0))} == {GenericSteps}


class Doubled(nn.Sequential):
    """Looks like a stack, and is more."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = 2 * super().forward(x)
        return logits


def test_what_only_looks_like_a_stack_of_dense_layers_is_none() -> None:
    tied = nn.Linear(SIDE * SIDE, SIDE * SIDE)
    hooked = copy.deepcopy(build_network("mlp", SPEC, 3, seed=0))
    hooked.register_forward_hook(lambda module, given, answer: 2 * answer)
    for network in (
        Doubled(nn.Flatten(), nn.Linear(SIDE * SIDE, 3)),
        hooked,
        nn.Sequential(nn.Flatten(), tied, nn.ReLU(), tied),
        nn.Sequential(nn.Flatten(2), nn.Linear(SIDE * SIDE, 3)),
    ):
        assert type(steps_for(network, RECIPE, 8, CPU)) is GenericSteps


def test_weight_decay_spares_biases() -> None:
    network = deep((4,))
    steps = GenericSteps(network, replace(RECIPE, weight_decay=0.1), 8, CPU)

    decayed = {decay: [weight.ndim for weight in weights] for weights, decay in steps.optimizer.groups}

    assert decayed == {0.1: [2, 2], 0.0: [1, 1]}
