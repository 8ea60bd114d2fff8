"""Fine-tuning: the last blocks of a pretrained network are trained on together with the head, in small steps.

Images pass through the whole network, so every augmentation is exact. The statistics of batch normalisation stay those
of the pretrained network: few images would estimate them badly.
"""

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from hangtag.errors import ModelError, UsageError
from hangtag.model.calibration import cross_fitted
from hangtag.pictures import Images, ImageSpec
from hangtag.training.engine.backbones import Backbone, with_weights
from hangtag.training.engine.efficientnet_lite import EfficientNetLite
from hangtag.training.engine.export import TOLERANCE
from hangtag.training.engine.frozen import FrozenNetwork, for_size
from hangtag.training.engine.inference import predict_logits

__all__ = ["TunedNetwork", "as_frozen", "compare"]

_LAST_BLOCKS = 5  # of 16 in variant 0, with two thirds of its weights, for a third of the work; a GPU trains all
_FEWEST_HELD_OUT = 10  # images on which two networks can be compared


class TunedNetwork(nn.Module):
    """Takes float32 pixels (N, C, H, W) from 0 to 1, returns logits (N, K); only the last blocks and the head train.

    Args:
        backbone: with a PyTorch network; a copy of it is trained.
        frozen: the same backbone with a trained head.
        whole: train all blocks.

    Raises:
        UsageError: the backbone is none of `efficientnet_lite.py`.
    """

    def __init__(self, backbone: Backbone, frozen: FrozenNetwork, whole: bool) -> None:
        super().__init__()
        self.network, self.logits = copy.deepcopy(_tunable(backbone)), copy.deepcopy(frozen.logits)
        self.side = backbone.side
        if not whole:
            self.network.requires_grad_(False)
            for part in (*[*self.network._blocks][-_LAST_BLOCKS:], self.network._conv_head, self.network._bn1):
                part.requires_grad_(True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1)
        if tuple(x.shape[2:]) != self.side:
            x = interpolate(x, self.side, mode="bilinear", antialias=True)
        logits: Tensor = self.logits(self.network(x).mean(dim=(2, 3)))
        return logits

    def train(self, mode: bool = True) -> "TunedNetwork":
        super().train(mode)
        self.network.eval()
        return self


def as_frozen(tuned: TunedNetwork, backbone: Backbone, spec: ImageSpec, images: Images) -> FrozenNetwork:
    """The trained network as one with a frozen backbone, computed by ONNX Runtime.

    Args:
        backbone: the pretrained one.
        spec: of the images.
        images: some images, on which both must agree.

    Raises:
        ModelError: they do not.
    """
    tuned = tuned.cpu().eval()
    frozen = FrozenNetwork(for_size(with_weights(backbone, tuned.network), spec), tuned.logits.out_features)
    frozen.logits.load_state_dict(tuned.logits.state_dict())
    frozen.backbone.keep(tuned.network.requires_grad_(False))
    one, other = (torch.softmax(predict_logits(network, images), dim=1) for network in (tuned, frozen))
    if not bool((difference := (one - other).abs().max()) <= TOLERANCE):
        raise ModelError(
            f"the fine-tuned network and its ONNX model disagree: probabilities differ by {float(difference):.2g}",
            "train without fine-tuning; please report this problem",
        )
    return frozen


def compare(new: NDArray[np.float32], old: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[bool, str]:
    """Whether a network has a lower loss on held-out images than another, by more than a standard error; and in words.

    Both are compared as they would ship, after calibration, which is cross-fitted. A standard error is the usual margin
    for the less simple of two models (Breiman et al., 1984).

    Args:
        new, old: logits (N, K) of the N held-out images.
        labels: (N,) their classes.
    """
    count = len(labels)
    if count < _FEWEST_HELD_OUT:
        return False, f"a comparison takes {_FEWEST_HELD_OUT} held-out images, there are {count}"
    probabilities = [cross_fitted(logits, labels)[1][np.arange(count), labels] for logits in (new, old)]
    losses = [-np.log(np.maximum(each, 1e-12)) for each in probabilities]
    gain = losses[1] - losses[0]
    accuracies = [f"{(logits.argmax(axis=1) == labels).mean():.1%}" for logits in (new, old)]
    return bool(gain.mean() > gain.std(ddof=1) / np.sqrt(count)), (
        f"on {count:,} held-out images, loss {losses[0].mean():.3f} instead of {losses[1].mean():.3f}, "
        f"accuracy {accuracies[0]} instead of {accuracies[1]}"
    )


def _tunable(backbone: Backbone) -> EfficientNetLite:
    """The backbone's network; raises UsageError if it cannot be trained on."""
    if not isinstance(backbone.network, EfficientNetLite):
        raise UsageError(
            f"{backbone.name} cannot be fine-tuned", "use the backbone efficientnet-lite0, or leave out fine-tuning"
        )
    return backbone.network
