"""A network of a frozen backbone and a trained linear head; ONNX Runtime computes the backbone, PyTorch the head.

The embeddings of the training images need to be computed only once, and the head is linear on them, so training takes
seconds. `export.py` writes both into one file.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from hangtag.mapped import MappedRows
from hangtag.model.artifact import BackboneRecord, open_session
from hangtag.pictures import Images, ImageSpec

if TYPE_CHECKING:
    from hangtag.training.engine.backbones import Backbone

__all__ = ["FrozenNetwork", "for_size", "frozen_graph"]


class FrozenBackbone(nn.Module):
    """Takes float32 pixels (N, 3, H, W) from 0 to 1, returns embeddings (N, E), and maps (N, E, h, w) if it has any.

    PyTorch knows none of its weights, so they are neither trained nor saved with those of the head, unless `keep` gave
    them.
    """

    def __init__(self, backbone: "Backbone") -> None:
        super().__init__()
        self.backbone = replace(backbone, network=None)  # the ONNX model is enough
        self.frozen_parameters = backbone.parameters
        self._session: Any = None

    def keep(self, network: nn.Module) -> None:
        """Keep the weights of a fine-tuned network, so that they are saved with those of the head."""
        self.network, self.frozen_parameters = network, 0

    def forward(self, x: Tensor) -> list[Tensor]:
        if self._session is None:
            self._session = open_session(self.backbone.model)
        names = ["embedding", *(["maps"] if self.backbone.has_maps else [])]
        rows = self._session.run(names, {"pixels": np.ascontiguousarray(x.detach().cpu().numpy())})
        return [torch.from_numpy(row).to(x.device) for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}  # cannot be pickled or copied


class FrozenNetwork(nn.Module):
    """Takes float32 pixels (N, C, H, W) from 0 to 1, returns logits (N, K), which are 0 before training.

    Args:
        backbone: for images of this size; see `for_size`.
        classes: K.

    Attributes:
        backbone: a `FrozenBackbone`.
        logits: the head, a linear layer.
        embed: uint8 images (N, H, W[, 3]) -> embeddings (N, E), where these are remembered; it is not pickled.
    """

    def __init__(self, backbone: "Backbone", classes: int) -> None:
        super().__init__()
        self.backbone = FrozenBackbone(backbone)
        self.embed: Callable[[Images | MappedRows], NDArray[np.float32]] | None = None
        self.logits = nn.Linear(backbone.size, classes)
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    @property
    def record(self) -> BackboneRecord:
        return self.backbone.backbone.record

    @property
    def has_maps(self) -> bool:
        return self.backbone.backbone.has_maps

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed about the backbone, in sentences."""
        return self.backbone.backbone.notes

    def forward(self, x: Tensor) -> Tensor:
        return self.view(x)[0]

    def view(self, x: Tensor) -> list[Tensor]:
        """Logits, descriptor and embedding, and maps if the backbone has any; see `inference.py`."""
        embedding, *maps = self.backbone(x.expand(-1, 3, -1, -1))
        return [self.logits(embedding), embedding, embedding, *maps]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"embed": None}


def for_size(backbone: "Backbone", spec: ImageSpec) -> "Backbone":
    """The backbone with a model that takes images of this size and resizes them first."""
    size = (spec.height, spec.width)
    if size == backbone.side:
        return backbone
    model = onnx.load_model_from_string(backbone.model)
    nodes = [
        _node("Shape", ["pixels"], "resize/count", start=0, end=2),
        _node("Concat", ["resize/count", "resize/side"], "resize/shape", axis=0),
        _node("Resize", ["pixels", "", "", "resize/shape"], "resized", mode="linear", antialias=1, exclude_outside=1),
    ]
    side = numpy_helper.from_array(np.array(backbone.side, np.int64), "resize/side")
    whole = _with_nodes(model, nodes, {"pixels": "resized"}, [], [side])
    whole.graph.input[0].CopyFrom(_value("pixels", (3, *size)))
    whole.graph.output.extend(model.graph.output)
    return replace(backbone, model=whole.SerializeToString(deterministic=True), side=size)


def frozen_graph(network: FrozenNetwork, spec: ImageSpec, shapes: dict[str, str]) -> onnx.ModelProto:
    """What `FeatureExtractor` computes of this network, as ONNX; arguments as for `network_graph`."""
    model = onnx.load_model_from_string(network.backbone.backbone.model)
    colour = ["pixels"] * (1 if spec.channels == 3 else 3)
    weights = {f"logits.{name}": value.detach().cpu().numpy() for name, value in network.logits.named_parameters()}
    after = [
        _node("Gemm", ["of_backbone", *weights], "logits", transB=1),
        _node("Identity", ["of_backbone"], "descriptor"),
        _node("Identity", ["of_backbone"], "embedding"),
        *([_node("Unsqueeze", ["maps_of_backbone", "views"], "maps")] if "maps" in shapes else []),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    constants.append(numpy_helper.from_array(np.array([1]), "views"))
    renamed = {"pixels": "colour", "embedding": "of_backbone", "maps": "maps_of_backbone"}
    whole = _with_nodes(model, [_node("Concat", colour, "colour", axis=1)], renamed, after, constants)
    whole.graph.input[0].CopyFrom(_value("pixels", (spec.channels, spec.height, spec.width)))
    whole.graph.output.extend(_value(name, tuple(map(int, shape.split(", ")))) for name, shape in shapes.items())
    return whole


def _node(operator: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], **attributes)


def _value(name: str, sides: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sides])


def _with_nodes(
    model: onnx.ModelProto,
    before: list[onnx.NodeProto],
    renamed: dict[str, str],
    after: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
) -> onnx.ModelProto:
    """The model between other nodes, with some of its values renamed; its outputs are left to the caller."""
    whole = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    whole.graph.name = "network"
    whole.graph.input.add()
    whole.graph.node.extend([*before, *model.graph.node, *after])
    for node in whole.graph.node[len(before) : len(before) + len(model.graph.node)]:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    whole.graph.initializer.extend([*model.graph.initializer, *constants])
    return whole
