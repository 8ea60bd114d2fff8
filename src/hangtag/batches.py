"""Images on the device, shuffled and augmented many batches at a time.

Images stay uint8 until a chunk of some batches is needed; gathering, flipping, shifting and scaling a chunk at once
leaves nothing of that to each step. The order and the augmentation of an epoch depend on (seed, epoch) alone.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hangtag.images import Images
from hangtag.models import to_pixels
from hangtag.recipes import Recipe

__all__ = ["Batches"]

_CHUNK_PIXELS = 1_600_000  # 6 MB as float32: stays in a processor's cache


class Batches:
    """The training images of one run.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) int64.
        recipe: batch size and augmentation.
        seed: decides order and augmentation.
        device: where images live and chunks are made.
    """

    def __init__(self, images: Images, labels: np.ndarray, recipe: Recipe, seed: int, device: torch.device) -> None:
        self.images = torch.from_numpy(np.array(images)).to(device)
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.recipe = recipe
        self.seed = seed
        first = torch.Generator().manual_seed(_mixed(seed, 0))
        self.turns = torch.randint(0, 2, (len(labels),), generator=first).to(device)  # who is mirrored in even epochs
        self.batch_size = min(recipe.batch_size, len(labels))
        whole, rest = divmod(len(labels), self.batch_size)
        self.steps = whole + (1 if rest and recipe.last_partial_batch else 0)
        """Steps of one epoch."""

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Chunks of an epoch: float32 pixels (M, C, H, W) from 0 to 1, and labels (M,); split them by `batch_size`."""
        random = torch.Generator().manual_seed(_mixed(self.seed, number))
        order = torch.randperm(len(self.labels), generator=random)[: self.steps * self.batch_size]
        per_image = self.images[0].numel()
        batches_per_chunk = max(1, _CHUNK_PIXELS // (per_image * self.batch_size))
        for positions in torch.split(order.to(self.images.device), batches_per_chunk * self.batch_size):
            pixels = to_pixels(self.images.index_select(0, positions))
            yield self._augmented(pixels, positions, number, random), self.labels[positions]

    def _augmented(self, pixels: Tensor, positions: Tensor, epoch: int, random: torch.Generator) -> Tensor:
        if self.recipe.flip:
            pixels = flipped(pixels, (self.turns[positions] + epoch) % 2 == 0)
        if self.recipe.shift:
            pixels = shifted(pixels, self.recipe.shift, random)
        return pixels


def flipped(pixels: Tensor, mirror: Tensor) -> Tensor:
    """(M, C, H, W), those chosen by `mirror` (M,) mirrored left to right."""
    return torch.where(mirror[:, None, None, None], pixels.flip(3), pixels)


def shifted(pixels: Tensor, most: int, random: torch.Generator) -> Tensor:
    """(M, C, H, W), each moved by -most..most pixels down and right; edges are reflected."""
    count, _, height, width = pixels.shape
    padded = torch.nn.functional.pad(pixels, (most, most, most, most), mode="reflect")
    moves = torch.randint(0, 2 * most + 1, (2, count), generator=random).to(pixels.device)
    rows = moves[0][:, None] + torch.arange(height, device=pixels.device)
    columns = moves[1][:, None] + torch.arange(width, device=pixels.device)
    which = torch.arange(count, device=pixels.device)
    return padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _mixed(seed: int, epoch: int) -> int:
    """One 63-bit seed from two numbers, without the collisions of adding them."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
