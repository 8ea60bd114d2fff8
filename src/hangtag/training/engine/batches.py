"""Training images on the device, shuffled and augmented several batches at a time.

Images stay uint8, a quarter of the size of float32. Gathering, flipping and shifting a chunk of several batches at
once is faster than doing so in each step. The content of a chunk depends only on (seed, epoch, number) and, if easy
images are pruned, on the losses that `Pruning` recorded, so any chunk can be made again.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hangtag.mapped import MappedRows
from hangtag.pictures import Images
from hangtag.training.engine.custom import Augment, augmented
from hangtag.training.engine.guard import custom_code
from hangtag.training.engine.networks import channels_first
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.sampling import Pruning, balanced_order
from hangtag.training.engine.workers import Workers

__all__ = ["Batches", "Chunk", "mixed_seed"]

_GPU_FRACTION = 0.5  # of the free memory; the rest is for the network, its activations and its optimizer
_CHUNK_PIXELS = 1_600_000  # 6 MB as float32, which fits in a processor's cache


class Chunk(NamedTuple):
    """Several consecutive batches of `Batches.batch_size` images each.

    Attributes:
        images: (M, C, H, W) uint8, or float32 from 0 to 255 after a custom augmentation; with several workers, only the
            images that this one computes.
        labels: (M,) int64.
        weights: (M,) float32 sample weights, those from pruning included; None: 1 each.
    """

    images: Tensor
    labels: Tensor
    weights: Tensor | None

    def first(self, count: int) -> "Chunk":
        """The first `count` images of the chunk."""
        weights = None if self.weights is None else self.weights[:count]
        return Chunk(self.images[:count], self.labels[:count], weights)


class Rows(NamedTuple):
    """Some images of a chunk, for which random numbers are drawn as for all of it.

    Attributes:
        which: their numbers in the chunk.
        total: number of all images.
    """

    which: Tensor | slice
    total: int


class Batches:
    """The training images of one run.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8; `MappedRows` stay in their file, an array moves to the device if it
            fits.
        labels: (N,) int64.
        recipe: batch size and augmentation.
        seed: determines order and augmentation.
        device: where images are stored and chunks are made.
        min_batch: an epoch leaves out a last batch smaller than this.
        weights: (N,) float32 sample weights; None: 1 each.
        augment: a custom augmentation, applied after those of the recipe.
    """

    def __init__(
        self,
        images: Images | MappedRows,
        labels: np.ndarray,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        min_batch: int = 1,
        weights: NDArray[np.float32] | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.recipe, self.seed, self.device, self.min_batch, self.augment = recipe, seed, device, min_batch, augment
        self.file = images if isinstance(images, MappedRows) else None
        """Images that stay in their file; each chunk is read when it is needed."""
        self.images = torch.empty(0) if isinstance(images, MappedRows) else _to_device(_tensor(images), device)
        self.labels = torch.from_numpy(np.array(labels, dtype=np.int64)).to(device)
        self.weights = None if weights is None else torch.from_numpy(weights).to(device)
        self.mirrored = torch.randint(0, 2, (len(labels),), generator=_random(seed, 0)).to(device)
        """(N,) 1 for images that are mirrored in odd epochs, 0 for those mirrored in even ones."""
        self.batch_size = min(recipe.batch_size, len(labels))
        prunes = recipe.mean_fraction_kept < 1 and recipe.balance != "sampling"
        self.pruning = Pruning(len(labels), recipe) if prunes else None
        self._chunk_steps = max(1, _CHUNK_PIXELS // (math.prod(images.shape[1:]) * self.batch_size))
        self._order = (0, torch.empty(0))

    def begin(self, epoch: int) -> None:
        """Call before the first chunk of an epoch, but not when resuming in the middle of one."""
        if self.pruning is not None:
            self.pruning.begin(epoch)

    def steps(self, epoch: int) -> int:
        """Number of steps in an epoch, counted from 1."""
        pruned = self.pruning.pruned(epoch) if self.pruning is not None else 0
        whole, rest = divmod(len(self.labels) - pruned, self.batch_size)
        return max(1, whole + (1 if rest >= self.min_batch and self.recipe.last_partial_batch else 0))

    def chunks(self, epoch: int) -> int:
        """Number of chunks in an epoch."""
        return -(-self.steps(epoch) // self._chunk_steps)

    def chunk(self, epoch: int, number: int, most: int | None = None, workers: Workers | None = None) -> Chunk:
        """Chunk `number`, counted from 0, of an epoch.

        Args:
            most: its first images, if it has more; None: all.
            workers: those among which its batches are divided; only the images of this worker are read. A custom
                augmentation gets all images from every worker, because their numbers may depend on each other.
        """
        positions = self._positions_of(epoch, number)
        total = len(positions)
        used: slice | Tensor = slice(most)
        if workers is not None:
            used = torch.tensor(workers.parts(len(positions[:most]), self.batch_size), device=self.device)
        rows = Rows(used if self.augment is None else slice(None), total)
        some = positions[rows.which]
        chunk = channels_first(self._gather(some))
        if self.recipe.flip:
            chunk = flipped(chunk, (self.mirrored[some] + epoch) % 2 == 0)
        random = _random(self.seed, epoch, number)
        if self.recipe.random_shift:
            chunk = shifted(chunk, self.recipe.random_shift, random, rows)
        if self.recipe.random_erasing:
            chunk = erased(chunk, self.recipe.random_erasing, random, rows)
        if self.augment is not None:
            with custom_code("the augmentation failed", "it must take every image of the training data"):
                chunk = augmented(self.augment, chunk, random)[used]
        positions = positions[:most]
        weights = self.pruning.weights(positions.cpu()).to(self.device) if self.pruning is not None else None
        if self.weights is not None:
            weights = self.weights[positions] if weights is None else self.weights[positions] * weights
        return Chunk(chunk, self.labels[positions], weights)

    def record_losses(self, epoch: int, number: int, losses: Tensor) -> None:
        """Pass the losses of a chunk's images, or of its first ones, to the pruning."""
        if self.pruning is not None:
            self.pruning.record(self._positions_of(epoch, number)[: len(losses)].cpu(), losses.cpu())

    def _gather(self, positions: Tensor) -> Tensor:
        """(M, H, W[, 3]) uint8 on the device."""
        if self.file is None:
            return self.images.index_select(0, positions.to(self.images.device)).to(self.device)
        return torch.from_numpy(self.file[positions.cpu().numpy()]).to(self.device)

    def steps_before(self, epoch: int, chunk: int) -> int:
        """Number of steps in an epoch before this chunk."""
        return min(self.steps(epoch), chunk * self._chunk_steps)

    def _positions_of(self, epoch: int, number: int) -> Tensor:
        length = self._chunk_steps * self.batch_size
        return self._positions(epoch)[: self.steps(epoch) * self.batch_size][number * length :][:length]

    def _positions(self, epoch: int) -> Tensor:
        """The positions of an epoch's images, in the order of training."""
        if self._order[0] != epoch:
            random = _random(self.seed, epoch)
            if self.recipe.balance == "sampling":
                order = balanced_order(self.labels.cpu(), random)
            else:
                order = torch.randperm(len(self.labels), generator=random)
            if self.pruning is not None:
                order = self.pruning.select(order)
            self._order = (epoch, order.to(self.device))
        return self._order[1]


def _tensor(images: Images) -> Tensor:
    """A tensor that shares the array's memory, or a copy if PyTorch cannot share it; nothing writes to it."""
    usable = images.flags.writeable and images.flags.c_contiguous
    return torch.from_numpy(images if usable else np.array(images))


def _to_device(images: Tensor, device: torch.device) -> Tensor:
    """Move the images to the device unless they would fill more than `_GPU_FRACTION` of a GPU's free memory."""
    if device.type == "cuda" and images.nbytes > _GPU_FRACTION * torch.cuda.mem_get_info(device)[0]:
        return images
    return images.to(device)


def flipped(images: Tensor, mirror: Tensor) -> Tensor:
    """(M, C, H, W); images chosen by `mirror` (M,) are mirrored left to right."""
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, max_shift: int, random: torch.Generator, rows: Rows | None = None) -> Tensor:
    """(M, C, H, W), each shifted by -max_shift to max_shift pixels in both directions, edges filled by reflection."""
    count, _, height, width = images.shape
    drawn = rows or Rows(slice(None), count)
    shifts = torch.randint(-max_shift, max_shift + 1, (2, drawn.total), generator=random)[:, _on_cpu(drawn.which)]
    shifts = shifts.to(images.device)
    lines, columns = (
        _reflected(shift[:, None] + torch.arange(size, device=images.device), size)
        for shift, size in zip(shifts, (height, width), strict=True)
    )
    which = torch.arange(count, device=images.device)
    return images[which[:, None, None], :, lines[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def erased(images: Tensor, probability: float, random: torch.Generator, rows: Rows | None = None) -> Tensor:
    """(M, C, H, W) uint8; with this probability, a rectangle of 2 to 30 % of an image's area becomes noise.

    Its height is 0.3 to 3.3 times its width (Zhong et al., 2020, "Random erasing data augmentation").
    """
    count, _, height, width = images.shape
    drawn = rows or Rows(slice(None), count)
    which = _on_cpu(drawn.which)
    uniform = torch.rand(5, drawn.total, generator=random)[:, which]
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
    chosen = uniform[4] < probability
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :] & chosen[:, None, None, None]
    noise = torch.randint(0, 256, (drawn.total, *images.shape[1:]), generator=random, dtype=torch.uint8)[which]
    return torch.where(hole.to(images.device), noise.to(images.device), images)


def _on_cpu(which: Tensor | slice) -> Tensor | slice:
    return which.cpu() if isinstance(which, Tensor) else which


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0..size-1, reflected at the edge."""
    return (size - 1 - (size - 1 - positions.abs()).abs()).clamp_min(0)


def mixed_seed(*numbers: int) -> int:
    """One 63-bit seed from several numbers; adding them would cause collisions."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _random(*numbers: int) -> torch.Generator:
    """A generator seeded by these numbers."""
    return torch.Generator().manual_seed(mixed_seed(*numbers))
