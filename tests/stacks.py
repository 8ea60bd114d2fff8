"""Stacks of dense layers, and chunks of pictures to train them on."""

import torch
from torch import nn

from toys import SIDE


def chunk(count: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pictures of 8x8 pixels as a training step takes them, and labels of three classes."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, SIDE, SIDE), generator=random, dtype=torch.uint8)
    return images, torch.randint(0, 3, (count,), generator=random)


def deep(widths: tuple[int, ...]) -> nn.Module:
    """A stack of dense layers of these widths, for three classes."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in zip((SIDE * SIDE, *widths), (*widths, 3), strict=True):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
