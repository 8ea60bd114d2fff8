"""What a training got out of the machine: images and operations a second, share of its peak, most memory held.

Everything is measured or counted from the network that was trained; nothing is taken from a data sheet.
"""

import sys
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from hangtag.pictures import ImageSpec
from hangtag.training.engine.batches import phases_of
from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.networks import device_of, to_pixels
from hangtag.training.engine.peak import matmul_gflops
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.steps import has_bfloat16

__all__ = ["Speed", "peak_memory", "speed_of", "training_operations"]


@dataclass(frozen=True)
class Speed:
    """Of one training.

    Attributes:
        images_per_second: trained on, validation not counted; of the whole training.
        operations_per_image: floating-point operations of a step's products, both ways; counted by PyTorch.
        peak_gflops: thousand million operations a second of the machine's best matrix product, measured afterwards.
        dtype: of that product, and of the training's.
        peak_memory_bytes: the most this process held until then; on a GPU, what its tensors took there. None: unknown.
    """

    images_per_second: float
    operations_per_image: float
    peak_gflops: float
    dtype: str
    peak_memory_bytes: int | None

    @property
    def share_of_peak(self) -> float:
        return self.images_per_second * self.operations_per_image / (1e9 * self.peak_gflops)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "share_of_peak": self.share_of_peak}

    def __str__(self) -> str:
        memory = "" if self.peak_memory_bytes is None else f", at most {self.peak_memory_bytes / 1e9:.2f} GB of memory"
        return (
            f"{self.images_per_second:,.0f} images/s, {self.share_of_peak:.0%} of this machine's best {self.dtype} "
            f"matrix product ({self.peak_gflops:,.0f} GFLOP/s){memory}"
        )


def speed_of(
    network: nn.Module, spec: ImageSpec, recipe: Recipe, epochs: list[Epoch], batch_size: int, device: torch.device
) -> Speed:
    """Measure the peak, for a third of a second, and put the training beside it.

    Args:
        network: trained.
        spec: of its images.
        recipe: it was trained by.
        epochs: those finished here.
        batch_size: images of a step.
        device: that trained.
    """
    held = peak_memory(device)  # before the product below takes some
    half = recipe.bfloat16 and has_bfloat16(device.type)
    seconds = sum(epoch.training_seconds for epoch in epochs)
    steps = sum(epoch.step - epoch.first_step for epoch in epochs)
    return Speed(
        images_per_second=steps * batch_size / seconds if seconds else 0.0,
        operations_per_image=_operations(network, spec, recipe),
        peak_gflops=matmul_gflops("bfloat16" if half else "float32", device, 0.3),
        dtype="bfloat16" if half else "float32",
        peak_memory_bytes=held,
    )


def _operations(network: nn.Module, spec: ImageSpec, recipe: Recipe) -> float:
    """Per image, on average over a training whose images may grow."""
    total, before = 0.0, 0.0
    for phase in phases_of(recipe, network, spec.height, spec.width):
        height, width = phase.size
        total += (phase.until - before) * training_operations(network, replace(spec, height=height, width=width))
        before = phase.until
    return total


def training_operations(network: nn.Module, spec: ImageSpec) -> float:
    """Floating-point operations of products and convolutions in one step, forwards and backwards, per image."""
    was_training, images = network.training, 2
    device = device_of(network)
    state = {name: value.clone() for name, value in network.state_dict().items()}  # running statistics change
    network.train()
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
            pixels = to_pixels(torch.from_numpy(np.zeros((images, *spec.shape), np.uint8))).to(device)
            logits = network(pixels)
            cross_entropy(logits, torch.zeros(images, dtype=torch.int64, device=device)).backward()  # type: ignore[no-untyped-call]
    finally:
        network.load_state_dict(state)
        network.zero_grad(set_to_none=True)
        network.train(was_training)
    return float(counter.get_total_flops()) / images


def peak_memory(device: torch.device) -> int | None:
    """Bytes: the most this process ever held in memory; for a GPU, the most its tensors took there."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(held if sys.platform == "darwin" else held * 1024)
