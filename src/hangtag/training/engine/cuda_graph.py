"""A function of tensors, recorded once on a GPU and replayed.

A small network's step is some hundred short kernels, and starting each from Python takes longer than running it; a
CUDA graph (pytorch.org/docs/stable/notes/cuda.html#cuda-graphs) starts all of them at once. It does not know what the
function does.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["WARM_UP", "Captured", "Function", "record_cuda_graph"]

Function = Callable[..., Tensor]
"""Of tensors on one device, answering one tensor."""

WARM_UP = 3
"""Calls before recording, in which libraries choose their kernels; as PyTorch's notes advise."""


class Captured:
    """Calls a function and answers what it answers, from a recording as soon as there is one for inputs of such shapes.

    The function is given with each call, and is always the same: held here, it would hold whoever holds this. What it
    reads and writes beside its inputs must stay at its place in memory from call to call, and it must not look at
    values (`.item()`, branches). Where it cannot be recorded, a warning says why, and it is called as ever.

    Args:
        record: makes a recording from the function and its inputs, without running it.
    """

    def __init__(self, record: Callable[[Function, tuple[Tensor, ...]], Function]) -> None:
        self.record = record
        self.recorded: dict[tuple[torch.Size, ...], Function] = {}
        self.possible = True
        self._calls: dict[tuple[torch.Size, ...], int] = {}

    def __call__(self, function: Function, *inputs: Tensor) -> Tensor:
        shapes = tuple(each.shape for each in inputs)
        if shapes in self.recorded:
            return self.recorded[shapes](*inputs)
        calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
        if self.possible and calls > WARM_UP:
            try:
                self.recorded[shapes] = self.record(function, inputs)
            except RuntimeError as error:
                self.possible = False
                reason = str(error).splitlines()[0]
                warnings.warn(f"steps cannot be captured for replay and are taken one by one: {reason}", stacklevel=2)
            else:
                return self.recorded[shapes](*inputs)
        return function(*inputs)

    def forget(self) -> None:
        """What the function uses has moved in memory: record anew."""
        self.recorded.clear()


def record_cuda_graph(function: Function, inputs: tuple[Tensor, ...]) -> Function:
    """Raises RuntimeError where the function does what a graph cannot hold."""
    places = tuple(each.clone() for each in inputs)
    device, graph = inputs[0].device, torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    # A stream of this device: PyTorch's own for recording is one of whichever device was the current one at first.
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # PyTorch leaves some classes untyped
    with torch.cuda.device(device), torch.cuda.graph(graph, stream=stream):
        answer = function(*places)

    def replay(*inputs: Tensor) -> Tensor:
        for place, value in zip(places, inputs, strict=True):
            place.copy_(value)
        graph.replay()
        return answer.clone()

    return replay
