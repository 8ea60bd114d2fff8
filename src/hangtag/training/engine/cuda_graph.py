"""Recording a function of tensors as a CUDA graph, and replaying it.

A step of a small network runs about a hundred short kernels, and launching each from Python takes longer than running
it. A CUDA graph (pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) launches all of them at once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hangtag.errors import warn

__all__ = ["WARM_UP", "Function", "GraphReplay", "record_cuda_graph"]

Function = Callable[..., Tensor]
"""A function of tensors on one device that returns one tensor."""

WARM_UP = 3
"""Calls before recording, in which libraries choose their kernels; PyTorch's notes advise this number."""


class GraphReplay:
    """Calls a function of tensors, and replays a recorded graph once there is one for these input shapes.

    Every call must pass the same function. It is not stored: that would be a reference cycle if the function belongs
    to the owner of this object. Apart from its inputs, the function must always read and write the same memory, and it
    must not depend on values (`.item()`, branches). If it cannot be recorded, a warning gives the reason, and all
    calls run without a graph.

    Args:
        record: makes a graph from the function and its inputs, without running the function.
    """

    def __init__(self, record: Callable[[Function, tuple[Tensor, ...]], Function]) -> None:
        self.record = record
        self.graphs: dict[tuple[torch.Size, ...], Function] = {}
        self.recordable = True
        self._calls: dict[tuple[torch.Size, ...], int] = {}

    def __call__(self, function: Function, *inputs: Tensor) -> Tensor:
        shapes = tuple(each.shape for each in inputs)
        if shapes in self.graphs:
            return self.graphs[shapes](*inputs)
        calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if self.recordable and calls > WARM_UP:
            try:
                self.graphs[shapes] = self.record(function, inputs)
            except RuntimeError as error:
                self.recordable = False
                reason = str(error).splitlines()[0]
                warn(f"training steps run without a CUDA graph, which is slower: {reason}")
            else:
                return self.graphs[shapes](*inputs)
        return function(*inputs)


def record_cuda_graph(function: Function, inputs: tuple[Tensor, ...]) -> Function:
    """Raises RuntimeError if the function does something a graph cannot record."""
    buffers = tuple(each.clone() for each in inputs)
    device, graph = inputs[0].device, torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    # PyTorch's own capture stream belongs to whichever device was current first; this one belongs to our device.
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # PyTorch leaves some classes untyped
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream):
        output = function(*buffers)

    def replay(*inputs: Tensor) -> Tensor:
        for buffer, value in zip(buffers, inputs, strict=True):
            buffer.copy_(value)
        graph.replay()
        return output.clone()

    return replay
