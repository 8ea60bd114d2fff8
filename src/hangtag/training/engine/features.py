"""What a network saw on the way to its answer: a descriptor, an embedding, and the maps its evidence can be read from.

One wrapper around a network, exported with it, so that the model file can tell. It fits and decides nothing.

    descriptor  (N, D)  whether a picture is like those learned from: the channel means of the last feature maps; of a
                        network that is not ours, its embedding
    embedding   (N, E)  what the last linear layer sees; near rows are pictures alike
    maps        (N, V, C, h, w) the last feature maps of each view: of the picture and, where answers are averaged over
                        mirror images, of the mirror image, turned back. Ours only; `export.py` reads evidence there.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from hangtag.mapped import MappedRows
from hangtag.pictures import Images
from hangtag.training.engine.networks import FlipTTA, device_of, images_at_once, is_builtin, to_pixels

__all__ = ["FeatureExtractor", "Features", "extract_features"]


@dataclass(frozen=True, eq=False)
class Features:
    """Of N pictures.

    Attributes:
        logits: (N, K) float32.
        descriptor: (N, D) float32.
        embedding: (N, E) float32.
    """

    logits: NDArray[np.float32]
    descriptor: NDArray[np.float32]
    embedding: NDArray[np.float32]


class FeatureExtractor(nn.Module):
    """A network that answers with (logits, descriptor, embedding), and with maps where it can.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K); or a `FlipAveraged` one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.flips = isinstance(network, FlipTTA)
        self.network: nn.Module = network.network if isinstance(network, FlipTTA) else network
        self.ours = is_builtin(self.network)
        self.last = _last_linear(self.network)

    @property
    def outputs(self) -> list[str]:
        return ["logits", "descriptor", "embedding", *(["maps"] if self.ours else [])]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        views = [self._view(x), self._view(x.flip(3))] if self.flips else [self._view(x)]
        logits, descriptor, embedding = (_mean([view[place] for view in views]) for place in range(3))
        if not self.ours:
            return logits, descriptor, embedding
        maps = [views[0][3], views[1][3].flip(3)] if self.flips else [views[0][3]]
        return logits, descriptor, embedding, torch.stack(maps, dim=1)

    def _view(self, x: Tensor) -> list[Tensor]:
        """Logits, descriptor, embedding and, of ours, the last feature maps, of one view."""
        if self.ours:
            return self._through_blocks(x)
        caught: list[Tensor] = []
        hook = None
        if self.last is not None:
            hook = self.last.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        try:
            logits: Tensor = self.network(x)
        finally:
            if hook is not None:
                hook.remove()
        # Not len(): the exporter would take the number of its example for the only one.
        one_row_each = bool(caught) and caught[-1].ndim == 2 and caught[-1].shape[0] == logits.shape[0]
        seen = caught[-1] if one_row_each else logits
        return [logits, seen, seen]

    def _through_blocks(self, x: Tensor) -> list[Tensor]:
        maps = embedding = x
        for name, part in self.network.named_children():
            if name == "pool":
                maps = x
            elif name == "logits":
                embedding = x
            x = part(x)
        return [x, adaptive_avg_pool2d(maps, 1).flatten(1), embedding, maps]


@torch.inference_mode()
def extract_features(network: nn.Module, images: Images | MappedRows) -> Features:
    """What a network in evaluation mode sees on N uint8 images (N, H, W[, C])."""
    described = FeatureExtractor(network)
    was_training = network.training
    described.eval()
    device = device_of(network)
    rows: list[list[Tensor]] = []
    batch = images_at_once(images)
    try:
        for start in range(0, max(1, len(images)), batch):
            pixels = to_pixels(torch.from_numpy(np.array(images[start : start + batch]))).to(device)
            rows.append([each.float().cpu() for each in described(pixels)[:3]])
    finally:
        network.train(was_training)
    return Features(*(torch.cat([row[place] for row in rows]).numpy() for place in range(3)))


def _mean(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else (tensors[0] + tensors[1]) / 2


def _last_linear(network: nn.Module) -> nn.Linear | None:
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None
