"""What a network saw on the way to its answer: a descriptor, an embedding, and where on the picture its evidence lies.

One wrapper around a network, exported with it, so that the model file can tell. It fits and decides nothing.

    descriptor  (N, D)     whether a picture is like those learned from: channel means of the last feature maps, means
                           and deviations of the first; of a network that is not ours, its embedding
    embedding   (N, E)     what the last linear layer sees; near rows are pictures alike
    evidence    (N, h, w)  how much each place speaks for the answer, in logits over the mean of all classes; its sum is
                           the answer's logit less the mean logit, but for the biases (class activation mapping: Zhou et
                           al., 2016; here exact, because the maximum of a channel lies in one place). Ours only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hangtag.images import Images
from hangtag.mapped import Rows
from hangtag.models import FlipAveraged, is_ours, to_pixels

__all__ = ["Described", "Seen", "seen_by"]


@dataclass(frozen=True, eq=False)
class Seen:
    """Of N pictures.

    Attributes:
        logits: (N, K) float32.
        descriptor: (N, D) float32.
        embedding: (N, E) float32.
    """

    logits: NDArray[np.float32]
    descriptor: NDArray[np.float32]
    embedding: NDArray[np.float32]


class Described(nn.Module):
    """A network that answers with (logits, descriptor, embedding), and with evidence where it can.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K); or a `FlipAveraged` one.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.flips = isinstance(network, FlipAveraged)
        self.network: nn.Module = network.network if isinstance(network, FlipAveraged) else network
        self.ours = is_ours(self.network)
        self.last = _last_linear(self.network)

    @property
    def outputs(self) -> list[str]:
        return ["logits", "descriptor", "embedding", *(["evidence"] if self.ours else [])]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        views = [self._view(x), self._view(x.flip(3))] if self.flips else [self._view(x)]
        logits, descriptor, embedding = (_mean([view[place] for view in views]) for place in range(3))
        if not self.ours:
            return logits, descriptor, embedding
        weights = self.last.weight[logits.argmax(dim=1)] - self.last.weight.mean(dim=0)  # type: ignore[union-attr]
        maps = [_evidence(view[3], weights) for view in views]
        if self.flips:
            maps[1] = maps[1].flip(2)
        return logits, descriptor, embedding, _mean(maps)

    def _view(self, x: Tensor) -> list[Tensor]:
        """Logits, descriptor, embedding and, of ours, the last feature maps, without mirror images."""
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
        seen = caught[-1] if caught and caught[-1].ndim == 2 else logits
        return [logits, seen, seen]

    def _through_blocks(self, x: Tensor) -> list[Tensor]:
        first = maps = embedding = x
        for name, part in self.network.named_children():
            if name == "pool":
                maps = x
            elif name == "logits":
                embedding = x
            x = part(x)
            if name == "stem":
                first = x
        descriptor = torch.cat([first.mean((2, 3)), first.std((2, 3)), maps.mean((2, 3))], dim=1)
        return [x, descriptor, embedding, maps]


@torch.inference_mode()
def seen_by(network: nn.Module, images: Images | Rows, batch: int = 1000) -> Seen:
    """What a network in evaluation mode sees on N uint8 images (N, H, W[, C])."""
    described = Described(network)
    was_training = network.training
    described.eval()
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    rows: list[list[Tensor]] = []
    try:
        for start in range(0, max(1, len(images)), batch):
            pixels = to_pixels(torch.from_numpy(np.array(images[start : start + batch]))).to(device)
            rows.append([each.float().cpu() for each in described(pixels)[:3]])
    finally:
        network.train(was_training)
    return Seen(*(torch.cat([row[place] for row in rows]).numpy() for place in range(3)))


def _mean(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else (tensors[0] + tensors[1]) / 2


def _evidence(maps: Tensor, weights: Tensor) -> Tensor:
    """(N, h, w): each channel's maximum, times its weight, laid where the maximum is; shared where it is twice."""
    most = maps.amax((2, 3), keepdim=True)
    there = (maps == most).to(maps.dtype)
    share = maps * there / there.sum((2, 3), keepdim=True)
    return (share * weights[:, :, None, None]).sum(1)


def _last_linear(network: nn.Module) -> nn.Linear | None:
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear else None
