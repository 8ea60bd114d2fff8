"""A network that sees a part of a batch computes as if it saw all of it: batch statistics and random numbers.

Batch normalisation takes its mean and variance from the images of all workers. Random numbers, such as those of
dropout, are drawn for the whole batch by every worker, which then uses the rows of its own images. So a network with
several workers takes the same steps, up to rounding, as with one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hangtag.training.engine.workers import Workers

__all__ = ["as_whole_batch"]


@contextmanager
def as_whole_batch(workers: Workers, draws: bool) -> Iterator[None]:
    """Within it, a network in training computes as on the whole batch.

    Args:
        workers: those among which the batch is divided.
        draws: whether the network may draw random numbers; without, it is faster.
    """
    with _BatchStatistics(workers):
        if not draws:
            yield
            return
        with _RandomNumbers(workers):
            yield


class _BatchStatistics(TorchFunctionMode):
    """Batch normalisation by the statistics of all workers' images."""

    def __init__(self, workers: Workers) -> None:
        super().__init__()
        self.workers = workers

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _batch_norm(
        self, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,  # noqa: A002 - PyTorch's name
        weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        if not training:
            return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        with torch.no_grad():
            mean, variance, count = _statistics(input, self.workers)
            if running_mean is not None and running_var is not None:
                unbiased = variance * (count / (count - 1).clamp_min(1))
                for running, now in ((running_mean, mean), (running_var, unbiased)):
                    running.mul_(1 - momentum).add_(now.to(running.dtype), alpha=momentum)
        return _Normalise.apply(  # type: ignore[no-any-return, no-untyped-call]
            input, weight, bias, mean.float(), variance.float(), count, eps, self.workers
        )


def _statistics(x: Tensor, workers: Workers) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,) and biased variance (C,) over all workers' images as float64, and the number of values of a channel."""
    channels = x.shape[1]
    zeros = torch.zeros(2, channels, device=x.device)
    mean, variance = (each.double() for each in torch.batch_norm_update_stats(x, zeros[0], zeros[1], 0.0))
    count = 0 if workers.idle else x.numel() // channels
    # The sum of squares needs float64, because the variance is a small difference of large numbers.
    own = torch.cat([mean * count, (variance + mean * mean) * count, mean.new_full((1,), count)])
    total = workers.summed(own if count else torch.zeros_like(own))
    mean, square, number = total[:channels] / total[-1], total[channels:-1] / total[-1], total[-1]
    return mean, (square - mean * mean).clamp_min(0), number


class _Normalise(torch.autograd.Function):
    """Batch normalisation by given statistics, which are those of the images of all workers.

    The kernels of evaluation do most of the work: forward, and the part of the gradient that does not pass through the
    statistics. The other part is affine in the input, with sums over all workers' images (Ioffe & Szegedy, 2015).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, variance: Tensor,
        count: Tensor, eps: float, workers: Workers,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.eps, ctx.workers = eps, workers
        return functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, variance, count = ctx.saved_tensors
        ones = torch.ones_like(mean) if weight is None else weight
        direct, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, ones, mean, variance, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack((of_weight, of_bias)).double()
        sums = (ctx.workers.summed(torch.zeros_like(sums) if ctx.workers.idle else sums) / count).float()
        factor = -ones / torch.sqrt(variance + ctx.eps)
        through = functional.batch_norm(x, mean, variance, factor * sums[0], factor * sums[1], False, 0.0, ctx.eps)
        return direct.add_(through), None if weight is None else of_weight, of_bias, None, None, None, None, None


class _RandomNumbers(TorchDispatchMode):  # type: ignore[no-untyped-call]  # PyTorch leaves some classes untyped
    """Draws random numbers for the whole batch and passes on the rows of this worker's images.

    It recognises them by their first dimension, the number of this worker's images. Every worker draws all other
    numbers alike, because all use the same seed.
    """

    def __init__(self, workers: Workers) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.workers = workers
        part = workers.part(workers.batch)
        self.own, self.rows = len(part), slice(part.start, part.stop, part.step)
        self.places = (torch.arange(workers.batch) // workers.count).clamp_max(self.own - 1)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        # Tensors with a row for each of this worker's images become as large as the batch, and so do such sizes.
        enlarged, named = [self._enlarged(each) for each in args], {n: self._enlarged(v) for n, v in kwargs.items()}
        if all(
            one is other for one, other in zip((*args, *kwargs.values()), (*enlarged, *named.values()), strict=True)
        ):
            return func(*args, **kwargs)
        results = func(*enlarged, **named)
        if isinstance(results, tuple):
            return tuple(map(self._own, results))
        in_place = results is enlarged[0]
        return args[0].copy_(self._own(results)) if in_place else self._own(results)

    def _enlarged(self, value: Any) -> Any:
        if isinstance(value, Tensor) and value.ndim and len(value) == self.own:
            return value[self.places]  # the rows of other workers are placeholders
        if isinstance(value, list | tuple) and value and value[0] == self.own and all(type(n) is int for n in value):
            return [self.workers.batch, *value[1:]]
        return value

    def _own(self, value: Any) -> Any:
        whole = isinstance(value, Tensor) and value.ndim and len(value) == self.workers.batch
        return value[self.rows].contiguous() if whole else value
