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
from torch import Tensor, nn

from hangtag.mapped import MappedRows
from hangtag.model.artifact import BackboneRecord, open_session
from hangtag.pictures import Images, ImageSpec
from hangtag.training.engine.onnx_writer import GraphWriter, float_value

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
    before = GraphWriter()
    side = before.constant(np.array(backbone.side, np.int64), "resize/side")
    count = before.add("Shape", "pixels", output="resize/count", start=0, end=2)
    shape = before.add("Concat", count, side, output="resize/shape", axis=0)
    before.add("Resize", "pixels", "", "", shape, output="resized", mode="linear", antialias=1, exclude_outside=1)
    whole = _with_nodes(model, before, {"pixels": "resized"}, GraphWriter())
    whole.graph.input[0].CopyFrom(float_value("pixels", f"3, {spec.height}, {spec.width}"))
    whole.graph.output.extend(model.graph.output)
    notes = backbone.notes
    if min(size) < min(backbone.side):
        notes += (
            f"the backbone takes images of {backbone.side[1]}x{backbone.side[0]}, and these are {spec.width}x"
            f"{spec.height}; if the pictures are larger, read them at --size {backbone.side[0]} (in Python "
            f"size={backbone.side[0]})",
        )
    return replace(backbone, model=whole.SerializeToString(deterministic=True), side=size, notes=notes)


def frozen_graph(network: FrozenNetwork, spec: ImageSpec, shapes: dict[str, str]) -> onnx.ModelProto:
    """What `FeatureExtractor` computes of this network, as ONNX; arguments as for `network_graph`."""
    model = onnx.load_model_from_string(network.backbone.backbone.model)
    before, after = GraphWriter(), GraphWriter()
    before.add("Concat", *["pixels"] * (1 if spec.channels == 3 else 3), output="colour", axis=1)
    weights = [after.constant(value, f"logits.{name}") for name, value in network.logits.named_parameters()]
    after.add("Gemm", "of_backbone", *weights, output="logits", transB=1)
    for name in ("descriptor", "embedding"):
        after.add("Identity", "of_backbone", output=name)
    if "maps" in shapes:
        after.add("Unsqueeze", "maps_of_backbone", after.constant(np.array([1]), "views"), output="maps")
    renamed = {"pixels": "colour", "embedding": "of_backbone", "maps": "maps_of_backbone"}
    whole = _with_nodes(model, before, renamed, after)
    whole.graph.input[0].CopyFrom(float_value("pixels", f"{spec.channels}, {spec.height}, {spec.width}"))
    whole.graph.output.extend(float_value(name, shape) for name, shape in shapes.items())
    return whole


def _with_nodes(
    model: onnx.ModelProto, before: GraphWriter, renamed: dict[str, str], after: GraphWriter
) -> onnx.ModelProto:
    """The model between other nodes, with some of its values renamed; its outputs are left to the caller."""
    whole = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    whole.graph.name = "network"
    whole.graph.input.add()
    whole.graph.node.extend([*before.nodes, *model.graph.node, *after.nodes])
    for node in whole.graph.node[len(before.nodes) : len(before.nodes) + len(model.graph.node)]:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    whole.graph.initializer.extend([*model.graph.initializer, *before.tensors(), *after.tensors()])
    return whole
