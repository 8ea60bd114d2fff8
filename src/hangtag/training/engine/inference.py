"""What a trained network computes for images: logits, and the features that the model file ships with them.

descriptor  (N, D)  for out-of-distribution scores: the channel means of the last feature maps; for a custom
                    network, its embedding
embedding   (N, E)  the input of the last linear layer; similar images have nearby rows
maps        (N, V, C, h, w)  built-in networks and most backbones: the last feature maps of each view, which are the
                    image and, with flip averaging, its mirror image, mirrored back; `export.py` reads the evidence
                    from them
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from hangtag.errors import ModelError
from hangtag.mapped import MappedRows
from hangtag.pictures import Images
from hangtag.training.engine.frozen import FrozenNetwork
from hangtag.training.engine.guard import NETWORK_CONTRACT, custom_code
from hangtag.training.engine.keras_model import KerasHead
from hangtag.training.engine.networks import WHITE, FlipTTA, channels_first, channels_last, device_of, is_builtin

__all__ = ["FeatureExtractor", "Features", "extract_features", "images_at_once", "predict_logits", "to_pixels"]

_PIXELS_AT_ONCE = 100_000  # 127 images of 28x28; larger batches are not faster
_PIXELS_OF_A_THREAD = 25_000  # that works beside others
_PIXELS_AT_ONCE_ON_GPU = 1_000_000  # a feature map of 64 channels then takes 256 MB


@torch.no_grad()  # not inference mode: weights that lazy layers create there could never be trained
def predict_logits(network: nn.Module, images: Images | MappedRows, batch: int | None = None) -> Tensor:
    """Logits (N, K), float32 on the CPU, of a network in evaluation mode for N uint8 images (N, H, W[, C]).

    Args:
        batch: images at a time; None: `images_at_once`.

    Raises:
        ModelError: the network does not accept such images, or does not return one row of logits per image.
        RuntimeError, MemoryError: out of memory; callers wrap this in `enough_memory` with a fitting hint.
    """

    def logits_of(pixels: Tensor) -> list[Tensor]:
        with custom_code(f"the network does not accept pixels of shape {tuple(pixels.shape)}"):
            logits = network(pixels)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(pixels):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"the network returned {shape} for {len(pixels)} images", NETWORK_CONTRACT)
        return [logits]

    return _in_batches(network, logits_of, images, batch)[0]


@dataclass(frozen=True, eq=False)
class Features:
    """Logits (N, K), descriptors (N, D) and embeddings (N, E) of N images, float32."""

    logits: NDArray[np.float32]
    descriptor: NDArray[np.float32]
    embedding: NDArray[np.float32]

    def take(self, places: NDArray[np.int64]) -> "Features":
        return Features(self.logits[places], self.descriptor[places], self.embedding[places])


def extract_features(network: nn.Module, images: Images | MappedRows, device: torch.device | None = None) -> Features:
    """The features of N uint8 images (N, H, W[, C]), from a network in evaluation mode.

    Args:
        device: where the network computes, if there is enough memory; its weights are moved there and back. None: where
            they are.
    """
    if device is not None and device.type != device_of(network).type:
        with suppress(torch.OutOfMemoryError), _moved(network, device):
            return _features(network, images)
    return _features(network, images)


@torch.inference_mode()
def _features(network: nn.Module, images: Images | MappedRows) -> Features:
    if isinstance(network, FrozenNetwork) and network.embed is not None:
        embedding = network.embed(images)
        logits = network.logits.cpu()(torch.from_numpy(embedding)).numpy()
        return Features(logits, embedding, embedding)
    threads = 1
    if is_builtin(network.network if isinstance(network, FlipTTA) else network):
        network = deepcopy(network)  # the caller's weights keep their layout
        channels_last(network)
        threads = torch.get_num_threads() if device_of(network).type == "cpu" else 1
    extractor = FeatureExtractor(network)
    compute = torch.inference_mode()(lambda pixels: extractor(pixels)[:3])  # each thread has a mode of its own
    return Features(*(output.numpy() for output in _in_batches(network, compute, images, threads=threads)))


@contextmanager
def _moved(network: nn.Module, device: torch.device) -> Iterator[None]:
    """The network on another device, which computes with all digits of float32; its weights are moved back."""
    home, rounds = device_of(network), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        network.to(device)
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = rounds
        network.to(home)


class FeatureExtractor(nn.Module):
    """Returns (logits, descriptor, embedding) of a network, and maps if the network has any.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K); may be wrapped in `FlipTTA`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.flip_tta = isinstance(network, FlipTTA)
        self.network: nn.Module = network.network if isinstance(network, FlipTTA) else network
        self.has_maps = self.network.has_maps if isinstance(self.network, FrozenNetwork) else is_builtin(self.network)
        linear = [module for module in self.network.modules() if isinstance(module, nn.Linear | KerasHead)]
        self.last_linear = linear[-1] if linear else None

    @property
    def outputs(self) -> list[str]:
        return ["logits", "descriptor", "embedding", *(["maps"] if self.has_maps else [])]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        view = self._builtin_view if self.has_maps else self._custom_view
        if isinstance(self.network, FrozenNetwork):
            view = self.network.view
        if not self.flip_tta:
            logits, descriptor, embedding, *maps = view(x)
        else:
            first, second = view(x), view(x.flip(3))
            logits, descriptor, embedding = ((first[index] + second[index]) / 2 for index in range(3))
            maps = [*first[3:], *(each.flip(3) for each in second[3:])]
        return logits, descriptor, embedding, *([torch.stack(maps, dim=1)] if maps else [])

    def _builtin_view(self, x: Tensor) -> list[Tensor]:
        maps = embedding = x
        for name, part in self.network.named_children():
            if name == "pool":
                maps = x
            elif name == "logits":
                embedding = x
            x = part(x)
        return [x, adaptive_avg_pool2d(maps, 1).flatten(1), embedding, maps]

    def _custom_view(self, x: Tensor) -> list[Tensor]:
        inputs: list[Tensor] = []
        hook = None
        if self.last_linear is not None:
            hook = self.last_linear.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        try:
            logits: Tensor = self.network(x)
        finally:
            if hook is not None:
                hook.remove()
        # shape[0], not len(): the exporter would turn the length of its example into a constant.
        one_row_each = bool(inputs) and inputs[-1].ndim == 2 and inputs[-1].shape[0] == logits.shape[0]
        embedding = inputs[-1] if one_row_each else logits
        return [logits, embedding, embedding]


def images_at_once(images: Images | MappedRows, device: str = "cpu", threads: int = 1) -> int:
    """Number of images per batch that keeps full-size feature maps small; with several threads, in each of them."""
    pixels = _PIXELS_AT_ONCE_ON_GPU if device != "cpu" else _PIXELS_AT_ONCE if threads == 1 else _PIXELS_OF_A_THREAD
    return max(1, pixels // int(np.prod(images.shape[1:3])))


def to_pixels(images: Tensor) -> Tensor:
    """Convert uint8 (N, H, W) or (N, H, W, 3) to float32 (N, C, H, W) from 0 to 1."""
    return torch.div(channels_first(images), WHITE)


def _in_batches(
    network: nn.Module,
    function: Callable[[Tensor], Sequence[Tensor]],
    images: Images | MappedRows,
    batch: int | None = None,
    threads: int = 1,
) -> list[Tensor]:
    """Apply a function of pixels to all images in batches, the network in evaluation mode; float32 on the CPU.

    Args:
        threads: that each compute a batch alone. With as many as PyTorch uses, a convolutional network takes about 0.7
            of the time of threads that share every convolution.
    """
    was_training, device = network.training, device_of(network)
    batch = batch or images_at_once(images, device.type, threads)

    def computed(start: int) -> list[Tensor]:
        pixels = to_pixels(torch.from_numpy(np.array(images[start : start + batch]))).to(device)
        return [output.float().cpu() for output in function(pixels)]

    network.eval()
    try:
        with _at_the_same_time(threads) as each:
            rows = list(each(computed, range(0, max(1, len(images)), batch)))
    finally:
        network.train(was_training)
    return [torch.cat(outputs) for outputs in zip(*rows, strict=True)]


@contextmanager
def _at_the_same_time(threads: int) -> Iterator[Callable[..., Iterator[list[Tensor]]]]:
    """`map`, in so many threads; with several, PyTorch uses one for each operation meanwhile."""
    if threads == 1:
        yield map
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(before)
