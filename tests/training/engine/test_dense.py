"""dense.py: gradients written out by hand are autograd's, and Adam is PyTorch's, in PyTorch calls and in C."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hangtag.training.engine.build import build_network
from hangtag.training.engine.dense import CompiledSteps, DenseSteps
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.engine.steps import GenericSteps
from stacks import chunk, deep
from toys import SIDE, ImageSpec

RECIPE = replace(find_recipe("tutorial"), batch_size=8)
SPEC = ImageSpec(SIDE, SIDE)
KINDS = [
    DenseSteps,
    pytest.param(CompiledSteps, marks=pytest.mark.skipif(not CompiledSteps.possible(), reason="no C compiler here")),
]
needs_compiler = pytest.mark.skipif(not CompiledSteps.possible(), reason="no C compiler here")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(), (16,), (16, 8), (5, 7, 9), (63,), (64, 65), (130, 200)])
def test_steps_written_out_by_hand_are_those_of_autograd_and_pytorchs_adam(
    widths: tuple[int, ...], kind: type[DenseSteps] | type[CompiledSteps]
) -> None:
    by_hand, by_autograd = deep(widths), deep(widths)
    images, labels = chunk()
    rates = [1e-3, 2e-3, 1e-3, 5e-4]  # 8 + 8 + 8 + 4 images
    steps = kind(by_hand, RECIPE, 8)
    optimizer = torch.optim.Adam(by_autograd.parameters(), eps=RECIPE.adam_epsilon)

    for _ in range(3):
        logits = steps.run(images, labels, rates)
        expected = []
        for x, y, rate in zip(images.split(8), labels.split(8), rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            expected.append(by_autograd(x / 255))
            cross_entropy(expected[-1], y).backward()
            optimizer.step()
        torch.testing.assert_close(logits, torch.cat(expected).detach(), atol=1e-4, rtol=1e-4)

    for own, reference in zip(by_hand.parameters(), by_autograd.parameters(), strict=True):
        torch.testing.assert_close(own, reference, atol=1e-4, rtol=1e-3)


@needs_compiler
@pytest.mark.parametrize("widths", [(), (130,), (100, 70), (9, 9, 9)])
def test_compiled_steps_give_the_same_bits_with_any_number_of_threads(widths: tuple[int, ...]) -> None:
    results = []
    for threads in (1, 2, 3, 7):
        network = deep(widths)
        steps = CompiledSteps(network, RECIPE, 8)
        steps.threads = threads
        for _ in range(5):
            logits = steps.run(*chunk(), [1e-2] * 4)
        results.append([logits, *(parameter.detach().clone() for parameter in network.parameters())])

    for other in results[1:]:
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(results[0], other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_trained_with_these_steps_stays_an_ordinary_network(
    kind: type[DenseSteps] | type[CompiledSteps],
) -> None:
    network = build_network("mlp", SPEC, 3, seed=0)
    images, labels = chunk(8)

    kind(network, RECIPE, 8).run(images, labels, [1e-2])
    again = build_network("mlp", SPEC, 3, seed=1)
    again.load_state_dict(network.state_dict())

    torch.testing.assert_close(again(images / 255), network(images / 255))


@pytest.mark.parametrize("kind", KINDS)
def test_colour_pictures_are_flattened_as_the_network_flattens_them(
    kind: type[DenseSteps] | type[CompiledSteps],
) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 5, 3))
    images = torch.randint(0, 256, (8, 4, 5, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    expected = network(images / 255).detach()

    logits = kind(network, RECIPE, 8).run(images, torch.zeros(8, dtype=torch.int64), [1e-3])

    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("widths", [(), (16, 8), (130, 200)])
def test_sample_weights_weigh_the_loss_as_in_autograd(
    widths: tuple[int, ...], kind: type[DenseSteps] | type[CompiledSteps]
) -> None:
    by_hand, by_autograd, unweighted = deep(widths), deep(widths), deep(widths)
    images, labels = chunk()
    weights = torch.linspace(0, 4, len(labels))

    for steps, given in (
        (kind(by_hand, RECIPE, 8), weights),
        (GenericSteps(by_autograd, RECIPE, 8, torch.device("cpu")), weights),
        (kind(unweighted, RECIPE, 8), None),
    ):
        for _ in range(3):
            steps.run(images, labels, [1e-3] * 4, given)

    pairs = list(zip(by_hand.parameters(), by_autograd.parameters(), unweighted.parameters(), strict=True))
    for own, reference, _ in pairs:
        torch.testing.assert_close(own, reference, atol=1e-4, rtol=1e-3)
    assert any(float((own - other).detach().abs().max()) > 1e-3 for own, _, other in pairs)
