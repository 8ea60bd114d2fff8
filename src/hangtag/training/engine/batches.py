"""Images on the device, shuffled and augmented many batches at a time.

Images stay uint8, a quarter of the bytes to move; gathering, flipping and shifting a chunk of some batches at once
leaves nothing of that to each step. What a chunk holds depends on (seed, epoch, number) alone: any one can be made
again. Where the recipe leaves easy images out, also on what `Pruning` knows of them.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hangtag.mapped import MappedRows
from hangtag.pictures import Images
from hangtag.training.engine.balance import balanced_order
from hangtag.training.engine.pruning import Pruning
from hangtag.training.engine.recipes import Recipe

__all__ = ["Batches", "Chunk", "Phase", "mixed_seed", "phases_of", "resized"]

_SMALL_FIRST = ((0.3, 5 / 7), (0.6, 6 / 7))  # until which share of all steps, share of the side; docs/log.md
_LEAST_SMALL = 16  # pixels; below, nothing is left to see
_GPU_SHARE = 0.5  # of the free memory; the rest is for the network, what it computes, and its optimizer
_CHUNK_PIXELS = 1_600_000  # 6 MB once float32: stays in a processor's cache


class Chunk(NamedTuple):
    """Some batches in a row; split them by `Batches.batch_size`.

    Attributes:
        images: (M, C, H, W) uint8.
        labels: (M,) int64.
        weights: (M,) float32, how many images each stands for; None: one.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor | None

    def first(self, count: int) -> "Chunk":
        """Its first images."""
        weights = None if self.weights is None else self.weights[:count]
        return Chunk(self.images[:count], self.labels[:count], weights)


class Batches:
    """The training images of one run.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8; `Rows` stay in their file, an array goes to the device if it fits.
        labels: (N,) int64.
        recipe: batch size and augmentation.
        seed: decides order and augmentation.
        device: where images live and chunks are made.
        least: images of the smallest batch that a step is taken on; an epoch leaves a smaller rest out.
    """

    def __init__(
        self,
        images: Images | MappedRows,
        labels: np.ndarray,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        least: int = 1,
    ) -> None:
        self.least = least
        self.device = device
        self.file = images if isinstance(images, MappedRows) else None
        """Images that stay in their file, and of which each chunk is read when its turn comes."""
        self.images = torch.empty(0) if isinstance(images, MappedRows) else _placed(_tensor(images), device)
        image_pixels = math.prod(images.shape[1:])
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.recipe = recipe
        self.seed = seed
        turns = torch.randint(0, 2, (len(labels),), generator=_random(seed, 0))
        self.turns = turns.to(device)  # who is mirrored in even epochs
        self.batch_size = min(recipe.batch_size, len(labels))
        self.pruning = (
            Pruning(len(labels), recipe) if recipe.mean_fraction_kept < 1 and recipe.balance != "sampling" else None
        )
        """What leaves easy images out; sampling chooses images by itself."""
        self._chunk_steps = max(1, _CHUNK_PIXELS // (image_pixels * self.batch_size))
        self._order = (0, torch.empty(0))

    def begin(self, epoch: int) -> None:
        """Before the first chunk of an epoch; not before going on in the middle of one."""
        if self.pruning is not None:
            self.pruning.begin(epoch)

    def steps(self, epoch: int) -> int:
        """Of one epoch, from 1."""
        left_out = self.pruning.left_out(epoch) if self.pruning is not None else 0
        whole, rest = divmod(len(self.labels) - left_out, self.batch_size)
        return max(1, whole + (1 if rest >= self.least and self.recipe.last_partial_batch else 0))

    def chunks(self, epoch: int) -> int:
        """Of one epoch, from 1."""
        return -(-self.steps(epoch) // self._chunk_steps)

    def chunk(self, epoch: int, number: int) -> Chunk:
        """Chunk `number`, from 0, of an epoch."""
        positions = self._positions_of(epoch, number)
        chunk = self._gathered(positions)
        chunk = chunk.unsqueeze(1) if chunk.ndim == 3 else chunk.permute(0, 3, 1, 2)
        if self.recipe.flip:
            chunk = flipped(chunk, (self.turns[positions] + epoch) % 2 == 0)
        random = _random(self.seed, epoch, number)
        if self.recipe.random_shift:
            chunk = shifted(chunk, self.recipe.random_shift, random)
        if self.recipe.random_erasing:
            chunk = erased(chunk, self.recipe.random_erasing, random)
        weights = self.pruning.weights(positions.cpu()).to(self.device) if self.pruning is not None else None
        return Chunk(chunk, self.labels[positions], weights)

    def note(self, epoch: int, number: int, losses: Tensor) -> None:
        """The losses that the images of a chunk had; of its first ones, if there are fewer."""
        if self.pruning is not None:
            self.pruning.note(self._positions_of(epoch, number)[: len(losses)].cpu(), losses.cpu())

    def _gathered(self, positions: Tensor) -> Tensor:
        """(M, H, W[, 3]) uint8 on the device."""
        if self.file is None:
            return self.images.index_select(0, positions.to(self.images.device)).to(self.device)
        return torch.from_numpy(self.file[positions.cpu().numpy()]).to(self.device)

    def steps_before(self, epoch: int, chunk: int) -> int:
        """Steps of an epoch before this chunk of it."""
        return min(self.steps(epoch), chunk * self._chunk_steps)

    def _positions_of(self, epoch: int, number: int) -> Tensor:
        length = self._chunk_steps * self.batch_size
        return self._positions(epoch)[: self.steps(epoch) * self.batch_size][number * length :][:length]

    def _positions(self, epoch: int) -> Tensor:
        """The images of an epoch, in its order."""
        if self._order[0] != epoch:
            random = _random(self.seed, epoch)
            if self.recipe.balance == "sampling":
                order = balanced_order(self.labels.cpu(), random)
            else:
                order = torch.randperm(len(self.labels), generator=random)
            if self.pruning is not None:
                order = self.pruning.kept(order)
            self._order = (epoch, order.to(self.device))
        return self._order[1]


def _tensor(images: Images) -> Tensor:
    """The same memory, which nothing here writes to; a copy where PyTorch cannot have it."""
    usable = images.flags.writeable and images.flags.c_contiguous
    return torch.from_numpy(images if usable else np.array(images))


def _placed(images: Tensor, device: torch.device) -> Tensor:
    """On the device, or where they are if they would fill more than a share of a GPU's free memory."""
    if device.type == "cuda" and images.nbytes > _GPU_SHARE * torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)


def flipped(images: Tensor, mirror: Tensor) -> Tensor:
    """(M, C, H, W), those chosen by `mirror` (M,) mirrored left to right."""
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, most: int, random: torch.Generator) -> Tensor:
    """(M, C, H, W), each moved by -most..most pixels down and right; what comes in at an edge mirrors the inside."""
    count, _, height, width = images.shape
    moves = torch.randint(-most, most + 1, (2, count), generator=random).to(images.device)
    rows, columns = (
        _reflected(move[:, None] + torch.arange(size, device=images.device), size)
        for move, size in zip(moves, (height, width), strict=True)
    )
    which = torch.arange(count, device=images.device)
    return images[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def erased(images: Tensor, share: float, random: torch.Generator) -> Tensor:
    """(M, C, H, W) uint8; in `share` of them a rectangle of 2 to 30 % of the area becomes noise.

    Its height is 0.3 to 3.3 times its width (Zhong et al., 2020, "Random erasing data augmentation").
    """
    count, _, height, width = images.shape
    uniform = torch.rand(5, count, generator=random)
    area = (0.02 + 0.28 * uniform[0]) * height * width
    aspect = 0.3 * (3.3 / 0.3) ** uniform[1]
    tall, wide = (area * aspect).sqrt().clamp(max=height - 1), (area / aspect).sqrt().clamp(max=width - 1)
    inside = []
    for size, begin, extent in (
        (height, uniform[2] * (height - tall), tall),
        (width, uniform[3] * (width - wide), wide),
    ):
        places = torch.arange(size)[None]
        inside.append((places >= begin[:, None]) & (places < (begin + extent)[:, None]))
    chosen = uniform[4] < share
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :] & chosen[:, None, None, None]
    noise = torch.randint(0, 256, images.shape, generator=random, dtype=torch.uint8)
    return torch.where(hole.to(images.device), noise.to(images.device), images)


@dataclass(frozen=True)
class Phase:
    """A part of a training in which images have one size.

    Attributes:
        until: share of all steps at which it ends.
        size: height and width, pixels.
    """

    until: float
    size: tuple[int, int]


def phases_of(recipe: Recipe, network: nn.Module, height: int, width: int) -> list[Phase]:
    """Sizes over a training: growing where the recipe says so and the network takes any, else one."""
    found = []
    for until, share in _SMALL_FIRST if recipe.small_first else ():
        size = (2 * round(height * share / 2), 2 * round(width * share / 2))
        if min(size) >= _LEAST_SMALL and _takes(network, size):
            found.append(Phase(until, size))
    return [*found, Phase(1.0, (height, width))]


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(M, C, H, W) uint8 at another size, bilinear with antialiasing."""
    if tuple(images.shape[2:]) == size:
        return images
    if images.device.type == "cpu":
        return interpolate(images, size, mode="bilinear", antialias=True)
    return interpolate(images.float(), size, mode="bilinear", antialias=True).round_().to(torch.uint8)


def _takes(network: nn.Module, size: tuple[int, int]) -> bool:
    was_training = network.training
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    network.eval()
    try:
        with torch.inference_mode():
            for channels in (1, 3):
                try:
                    network(torch.zeros(1, channels, *size, device=device))
                except Exception:  # whatever the user's own network may raise
                    continue
                return True
        return False
    finally:
        network.train(was_training)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0..size-1 sent back inside, as by a mirror at the edge."""
    return (size - 1 - (size - 1 - positions.abs()).abs()).clamp_min(0)


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers, without the collisions of adding them."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _random(*numbers: int) -> torch.Generator:
    """A generator that these numbers decide."""
    return torch.Generator().manual_seed(mixed_seed(*numbers))
