"""A built-in network as ONNX nodes, written directly, because PyTorch's exporter takes seconds.

Every layer of `networks.py` has its nodes here. Any other network goes through PyTorch's exporter; `export.py` compares
the file with the network either way.
"""

from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from hangtag.pictures import ImageSpec
from hangtag.training.engine.dense import dense_layers
from hangtag.training.engine.frozen import FrozenNetwork, frozen_graph
from hangtag.training.engine.inference import FeatureExtractor
from hangtag.training.engine.networks import Block, GlobalMax, Standardise, is_builtin
from hangtag.training.engine.onnx_writer import GraphWriter

__all__ = ["network_graph"]

_LAYERS = {
    nn.Sequential, nn.Flatten, nn.Linear, nn.ReLU, nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.Identity, Block,
    GlobalMax, Standardise,
}  # fmt: skip


def network_graph(extractor: FeatureExtractor, spec: ImageSpec, shapes: dict[str, str]) -> onnx.ModelProto | None:
    """What the extractor computes in evaluation mode; None if its network has a layer that is not built in.

    Args:
        spec: size and colours of the input, float32 (N, C, H, W) from 0 to 1, called "pixels" in the graph.
        shapes: the shape of each output without N, in ONNX's text format.
    """
    if isinstance(extractor.network, FrozenNetwork):
        return frozen_graph(extractor.network, spec, shapes)
    if not _is_known(extractor.network):
        return None
    writer = _NetworkWriter()
    views = [writer.view(extractor, "pixels")]
    if extractor.flip_tta:
        views.append(writer.view(extractor, writer.mirrored("pixels")))
    for name in ("logits", "descriptor", "embedding"):
        writer.add("Mean" if extractor.flip_tta else "Identity", *(view[name] for view in views), output=name)
    if extractor.has_maps:
        maps = [views[0]["maps"], *(writer.mirrored(view["maps"]) for view in views[1:])]
        one = writer.constant(np.array([1]))
        writer.add("Concat", *(writer.add("Unsqueeze", each, one) for each in maps), output="maps", axis=1)
    return writer.model(f"{spec.channels}, {spec.height}, {spec.width}", shapes)


def _is_known(network: nn.Module) -> bool:
    """Whether the network is one of ours, or a stack of dense layers, and computes what its layers compute."""
    if not (is_builtin(network) or dense_layers(network)):
        return False
    modules = list(network.modules())
    changed = any(each._forward_hooks or each._forward_pre_hooks or "forward" in vars(each) for each in modules)
    weights = [*network.parameters(), *network.buffers()]
    floats = all(weight.dtype is torch.float32 for weight in weights if weight.is_floating_point())
    return {type(module) for module in modules} <= _LAYERS and floats and not changed


class _NetworkWriter(GraphWriter):
    """Writes a built-in network, layer by layer."""

    def mirrored(self, x: str) -> str:
        axis, last, before_first = np.array([3]), np.array([-1]), np.array([-(2**31)])
        return self.add("Slice", x, *map(self.constant, (last, before_first, axis, last)))

    def view(self, extractor: FeatureExtractor, x: str) -> dict[str, str]:
        """The outputs of `FeatureExtractor` for one view of the images."""
        found = {}
        for name, part in extractor.network.named_children():
            if isinstance(part, GlobalMax):
                found["maps"], axes = x, self.constant(np.array([2, 3]))
                found["descriptor"] = self.add("ReduceMean", x, axes, keepdims=0)
            if part is extractor.last_linear:
                found["embedding"] = x
            x = self.layer(name, part, x)
        return {"descriptor": found["embedding"], **found, "logits": x}

    def layer(self, name: str, layer: nn.Module, x: str) -> str:
        """Add one layer, applied to `x`."""
        weights = [self.constant(value, f"{name}.{key}") for key, value in layer.named_parameters(recurse=False)]
        match layer:
            case nn.Linear():
                x = self.add("Gemm", x, *weights, transB=1)
            case nn.ReLU():
                x = self.add("Relu", x)
            case nn.Flatten():
                x = self.add("Flatten", x)
            case Standardise():
                mean, deviation = (np.array(value, np.float32) for value in (layer.MEAN, layer.DEVIATION))
                x = self.add("Div", self.add("Sub", x, self.constant(mean)), self.constant(deviation))
            case GlobalMax():
                x = self.add("GlobalMaxPool", x)
            case nn.Conv2d():
                given: dict[str, Any] = {"kernel_shape": layer.kernel_size, "strides": layer.stride}
                given |= {"pads": [*layer.padding, *layer.padding], "dilations": layer.dilation, "group": layer.groups}
                x = self.add("Conv", x, *weights, **given)
            case nn.MaxPool2d():
                x = self.add("MaxPool", x, kernel_shape=[layer.kernel_size] * 2, strides=[layer.stride] * 2)
            case nn.BatchNorm2d():
                moments = (self.constant(value, f"{name}.{key}") for key, value in layer.named_buffers())
                x = self.add("BatchNormalization", x, *weights, *list(moments)[:2], epsilon=layer.eps)
            case Block():
                y = x
                for key, part in layer.named_children():
                    y = self.layer(f"{name}.{key}", part, y)
                y = self.add("Relu", y)
                x = self.add("Add", x, y) if layer.residual else y
        return x
