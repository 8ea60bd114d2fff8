"""Several processes, the workers, that train one network: each takes its part of every batch, and gradients are summed.

torch.distributed carries the numbers: gloo between processors, NCCL between GPUs. Every worker makes the same
decisions, because everything that one could depend on is summed over all workers or comes from the first.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hangtag.errors import WorkerLostError
from hangtag.mapped import MappedRows
from hangtag.pictures import Images
from hangtag.training.engine.torchrun import started_by_torchrun

__all__ = ["GradientSum", "Workers", "joined_as_torchrun_says", "lost_worker"]

_BUCKET = 1_000_000  # weights whose gradients are sent together; DistributedDataParallel sends six times as many
_SMALL = 32_768  # bytes that workers send each other directly; the rings of all_reduce take three times as long
_FEW = 8  # workers, at most, that do so


class Workers:
    """The workers of one training, as one of them sees the others.

    The batch that is being trained on is known to all of them. Of its images 0, 1, 2, ... a worker takes those whose
    number modulo the number of workers is its rank. If there are fewer images than workers, the workers without one
    repeat an image with weight 0.

    Attributes:
        rank: this worker, from 0.
        count: number of workers, at least 2.
        device: where numbers to be summed must be.
        batch: number of images of the current batch, over all workers.
    """

    def __init__(self, rank: int, count: int, device: torch.device) -> None:
        self.rank, self.count, self.device = rank, count, device
        self.batch = count

    @classmethod
    def of_process_group(cls, device: torch.device) -> "Workers | None":
        """The processes of torch.distributed's default group; None if this process is alone."""
        if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
            return None
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def idle(self) -> bool:
        """Whether this worker has no image of its own in the current batch."""
        return self.rank >= self.batch

    @property
    def share(self) -> float:
        """This worker's share of the images of the current batch."""
        return 0.0 if self.idle else len(range(self.rank, self.batch, self.count)) / self.batch

    def part(self, size: int) -> range:
        """The images of a batch that this worker computes; at least one.

        >>> [list(Workers(rank, 3, torch.device("cpu")).part(5)) for rank in range(3)]
        [[0, 3], [1, 4], [2]]
        >>> [list(Workers(rank, 3, torch.device("cpu")).part(2)) for rank in range(3)]
        [[0], [1], [0]]
        """
        return range(self.rank, size, self.count) if self.rank < size else range(self.rank % size, size, size)

    def parts(self, images: int, batch_size: int) -> list[int]:
        """The same for `images` images in batches of `batch_size`; the last batch may be smaller."""
        starts = range(0, images, batch_size)
        return [start + row for start in starts for row in self.part(min(batch_size, images - start))]

    def some_of(self, images: Images | MappedRows) -> Images | MappedRows:
        """The images that this worker computes, if all are one batch."""
        own = slice(self.rank, None, self.count) if self.rank < len(images) else slice(0, 1)
        return MappedRows(images.array, images.positions[own]) if isinstance(images, MappedRows) else images[own]

    def gathered(self, own: Tensor) -> Tensor:
        """(batch, ...) the rows of all workers' parts of the current batch, from this worker's; not differentiable."""
        rows = torch.zeros((self.batch, *own.shape[1:]), dtype=own.dtype, device=own.device)
        if not self.idle:
            rows[self.rank :: self.count] = own
        return self.summed(rows)

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, also stored in the tensor; every worker gets the same bits."""
        on_device = tensor.to(self.device)
        with lost_worker():
            if self.device.type == "cpu" and self.count <= _FEW and on_device.nbytes <= _SMALL:
                self._exchange(on_device)
            else:
                dist.all_reduce(on_device)
        return tensor if on_device is tensor else tensor.copy_(on_device)

    def _exchange(self, tensor: Tensor) -> None:
        """Sum by sending the tensor to every other worker; all add in the order of ranks, so they get the same bits."""
        rows = tensor.new_empty((self.count, *tensor.shape))
        rows[self.rank] = tensor
        others = [rank for rank in range(self.count) if rank != self.rank]
        sent = [dist.isend(rows[self.rank], rank) for rank in others]
        for rank in others:
            dist.recv(rows[rank], rank)
        for work in sent:
            if work is not None:
                work.wait()
        tensor.copy_(rows[0])
        for row in rows[1:]:
            tensor.add_(row)

    def of_first(self, tensor: Tensor) -> Tensor:
        """The first worker's values, also stored in the tensor."""
        on_device = tensor.to(self.device).contiguous()
        with lost_worker():
            dist.broadcast(on_device, 0)
        return tensor if on_device is tensor else tensor.copy_(on_device)

    def any(self, value: bool) -> bool:
        """Whether it is true for any worker."""
        return bool(self.summed(torch.tensor(float(value))) > 0)

    def bytes_of_first(self, content: bytes | None) -> bytes | None:
        """What the first worker passes; the others' `content` is ignored."""
        first = content if self.rank == 0 else None
        length = int(self.of_first(torch.tensor(-1 if first is None else len(first))))
        if length < 0:
            return None
        values = torch.zeros(length, dtype=torch.uint8)
        if first:
            values = torch.frombuffer(bytearray(first), dtype=torch.uint8)
        return bytes(self.of_first(values).numpy().tobytes()) if length else b""

    def bytes_of_all(self, content: bytes) -> list[bytes]:
        """What each worker passes, in the order of ranks."""
        lengths = torch.zeros(self.count, dtype=torch.int64)
        lengths[self.rank] = len(content)
        lengths = self.summed(lengths)
        rows = torch.zeros(self.count, int(lengths.max()), dtype=torch.uint8)
        rows[self.rank, : len(content)] = torch.tensor(list(content), dtype=torch.uint8)
        rows = self.summed(rows)
        return [row[:length].numpy().tobytes() for row, length in zip(rows, lengths.tolist(), strict=True)]

    def synchronise(self, tensors: list[Tensor]) -> None:
        """Give every worker the first one's values, so that unlike processors do not drift apart."""
        for tensor in tensors:
            self.of_first(tensor.data)


@contextmanager
def joined_as_torchrun_says(device: torch.device) -> Iterator[Workers | None]:
    """The workers that torchrun started; None if this process was started alone.

    Raises:
        WorkerLostError: the others cannot be reached.
    """
    if not started_by_torchrun():
        yield None
        return
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with lost_worker():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Workers.of_process_group(device)
    finally:
        dist.destroy_process_group()


@contextmanager
def lost_worker() -> Iterator[None]:
    """Turn the error of a connection to another worker into a WorkerLostError; other errors pass through."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error) or "NCCL" in str(error)):
            raise
        raise WorkerLostError(
            f"another worker of this training stopped or cannot be reached: {str(error).splitlines()[0]}",
            "repeat the command; the training resumes from its last checkpoint",
        ) from error


class GradientSum:
    """Adds the gradients of all workers: in one call for a small network, for a large one while others are computed.

    `DistributedDataParallel` is not suitable: it changes the order of addition after its first step, so that a resumed
    training of three workers or more would get other bits; it requires that every step uses every weight; and it
    imports PyTorch's compiler, which takes longer than training a small network.

    Args:
        parameters: those of the network that are trained.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], workers: Workers) -> None:
        self.workers = workers
        self.buckets: list[list[nn.Parameter]] = [[]]
        for parameter in reversed(list(parameters)):  # about the order in which their gradients are computed
            if sum(each.numel() for each in self.buckets[-1]) > _BUCKET:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
        self.sums: list[tuple[Tensor, Any]] = []

    @contextmanager
    def adding(self) -> Iterator[None]:
        """The backward pass within it ends with the sums of all workers' gradients."""
        self.sums, self.waiting = [], [len(bucket) for bucket in self.buckets]
        hooks = [
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
                partial(self._computed, number)
            )
            for number, bucket in enumerate(self.buckets[:-1])
            for parameter in bucket
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._finish()

    def _finish(self) -> None:
        """Wait for the sums, and store them as the gradients; a weight that no worker used has none."""
        while len(self.sums) < len(self.buckets):
            self._send()
        for bucket, (total, work) in zip(self.buckets, self.sums, strict=True):
            with lost_worker():
                work.wait()
            *values, used = torch.split(total.to(bucket[0].device), [*(each.numel() for each in bucket), len(bucket)])
            for parameter, value, count in zip(bucket, values, used.tolist(), strict=True):
                if count and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                if count and parameter.grad is not None:
                    parameter.grad.copy_(value.view_as(parameter))

    def _computed(self, number: int, _: Tensor) -> None:
        self.waiting[number] -= 1
        while self.waiting[len(self.sums)] == 0:  # in the order of the buckets, as all workers do
            self._send()

    def _send(self) -> None:
        bucket = self.buckets[len(self.sums)]
        rows = [(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in bucket]
        used = torch.tensor([float(each.grad is not None) for each in bucket], device=rows[0].device)
        total = torch.cat([*rows, used]).to(self.workers.device)
        with lost_worker():
            self.sums.append((total, dist.all_reduce(total, async_op=True)))
