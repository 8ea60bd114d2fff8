"""Writing ONNX graphs by hand: nodes, constants, and the shapes of values."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

__all__ = ["IR_VERSION", "GraphWriter", "float_value"]

IR_VERSION = 9
"""Of ONNX 1.14, the oldest that supports what PyTorch's exporter writes."""

_OPSET = 20  # as PyTorch's exporter writes


def float_value(name: str, shape: str) -> onnx.ValueInfoProto:
    """An input or output of float32; `shape` is without N, in ONNX's text format."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *map(int, shape.split(", "))])


class GraphWriter:
    """Collects nodes, and the constants that they use."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, value: NDArray[Any] | Tensor, name: str = "") -> str:
        """The name of a constant; two constants of one name are the same."""
        name = name or f"constant_{len(self.constants)}"
        self.constants[name] = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        return name

    def tensors(self) -> list[onnx.TensorProto]:
        """The constants."""
        return [numpy_helper.from_array(array, name) for name, array in self.constants.items()]

    def model(self, pixels: str, outputs: dict[str, str]) -> onnx.ModelProto:
        """The model that the nodes make of "pixels"; shapes as for `float_value`."""
        values = [float_value(name, shape) for name, shape in outputs.items()]
        graph = helper.make_graph(self.nodes, "network", [float_value("pixels", pixels)], values, self.tensors())
        return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)])
