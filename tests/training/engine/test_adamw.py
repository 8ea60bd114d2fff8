"""adamw.py: the steps are those of PyTorch's AdamW, bit by bit."""

import torch
from torch import Tensor, nn

from hangtag.training.engine.adamw import AdamW
from hangtag.training.engine.dense import copy_state

RATE = torch.tensor(0.01)


def weights() -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=random)) for shape in ((4, 3, 2, 2), (5, 4), (5,), (3,))]


def give_gradients(weights: list[nn.Parameter], seed: int) -> None:
    """The last weight never gets one."""
    random = torch.Generator().manual_seed(seed)
    for weight in weights[:-1]:
        weight.grad = torch.randn(weight.shape, generator=random)


def ours(weights: list[nn.Parameter]) -> AdamW:
    return AdamW([(weights[:2], 0.1), (weights[2:], 0.0)], 0.9, 0.98, 1e-7)


def equal(one: list[nn.Parameter], other: list[nn.Parameter]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_steps_are_those_of_pytorch() -> None:
    one, other = weights(), weights()
    groups = [{"params": other[:2], "weight_decay": 0.1}, {"params": other[2:], "weight_decay": 0.0}]
    rate: Tensor = RATE.clone()
    optimizer, theirs = ours(one), torch.optim.AdamW(groups, rate, (0.9, 0.98), 1e-7, fused=True)

    for step in range(5):
        rate.fill_(0.01 * step)
        give_gradients(one, step)
        give_gradients(other, step)
        optimizer.step(rate)
        theirs.step()

    assert equal(one, other) and not equal(one, weights())


def test_the_state_can_be_transferred() -> None:
    one = weights()
    first = ours(one)
    give_gradients(one, 1)
    first.step(RATE)
    other = [nn.Parameter(weight.detach().clone()) for weight in one]
    second = ours(other)
    copy_state(first.state(), second.state())

    for optimizer, each in ((first, one), (second, other)):
        give_gradients(each, 2)
        optimizer.step(RATE)

    assert equal(one, other)
