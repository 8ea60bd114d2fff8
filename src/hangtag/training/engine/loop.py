"""The training loop: it yields an `Epoch` several times during an epoch, and one at its end.

It knows nothing about screens, files or what the images show. The caller owns the network: whenever the caller stops
iterating, the network has the weights of the last step.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hangtag.errors import DivergedError, RunError, UnknownName, UsageError
from hangtag.mapped import MappedRows
from hangtag.pictures import Images
from hangtag.training.engine.batches import Batches, Chunk, mixed_seed
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.cores import CoreChoice
from hangtag.training.engine.custom import Augment, Loss, on_device
from hangtag.training.engine.guard import custom_code, enough_memory, is_out_of_memory
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.networks import channels_last
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.sampling import class_weights
from hangtag.training.engine.steps import has_bfloat16, steps_for
from hangtag.training.engine.workers import Workers

__all__ = ["Epoch", "Labelled", "choose_device", "learning_rate_at", "train", "use_threads"]

Labelled = tuple[Images | MappedRows, NDArray[np.int64]]
"""Images (N, H, W[, 3]) uint8 and class indices (N,)."""

_REPORT_SECONDS = 0.1  # between two reports within an epoch
_FEW_EPOCHS = 15  # each of them has a line in a log
_SLOW_SECONDS = 5.0  # and so has each epoch that takes this long


@dataclass(frozen=True)
class Epoch:
    """The state of a training within or at the end of an epoch.

    Attributes:
        number: from 1 to `epochs`.
        step: steps completed in this epoch, out of `steps`.
        loss, accuracy: means over this epoch's images so far, each computed just before the image's step.
        val_loss, val_accuracy: on the validation images, if there are any; only for a finished epoch.
        learning_rate: of the last step.
        seconds: since the epoch began, validation included.
        finished: whether the epoch has ended.
        enough: whether early stopping ends the training here.
        training_seconds: the part of `seconds` spent on steps in this process.
        first_step: the step of this epoch at which this process began; above 0 only in a resumed epoch.
        cores, most_cores: how many cores the next step will use, and how many it may use.
        kept: the epoch whose weights early stopping restored; only in the last epoch of a training.
        doing: what a training that does not proceed in steps is doing, in words.
    """

    number: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float
    val_loss: float | None = None
    val_accuracy: float | None = None
    finished: bool = False
    enough: bool = False
    kept: int | None = None
    training_seconds: float = 0.0
    first_step: int = 0
    cores: int = 0
    most_cores: int = 0
    doing: str = ""

    @property
    def cut_short(self) -> bool:
        """Whether `stop` ended the epoch before its last step."""
        return self.finished and self.step < self.steps

    @property
    def has_line(self) -> bool:
        """Whether a log has a line for this finished epoch: each, if they are few or slow; otherwise about ten."""
        few_or_slow = self.epochs <= _FEW_EPOCHS or self.seconds >= _SLOW_SECONDS
        last = self.number == self.epochs or self.enough or self.cut_short
        return self.finished and (few_or_slow or last or self.number % -(-self.epochs // 10) == 0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __repr__(self) -> str:
        return f"<E{str(self)[1:]}>"

    def __str__(self) -> str:
        width = len(str(self.epochs))
        line = self.doing or f"epoch {self.number:>{width}}/{self.epochs}  {self.step}/{self.steps}"
        if self.doing and not self.finished:
            return f"{line}  {self.step}/{self.steps}"
        line += f"  loss {self.loss:.4f}  accuracy {self.accuracy:.4f}"
        if self.val_accuracy is not None:
            line += f"  val loss {self.val_loss:.4f}  val accuracy {self.val_accuracy:.4f}"
        return line


def train(
    network: nn.Module,
    images: Images | MappedRows,
    labels: NDArray[np.int64],
    recipe: Recipe,
    seed: int,
    validation: Labelled | None = None,
    device: torch.device | str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    checkpoint_writer: CheckpointWriter | None = None,
    resume: Checkpoint | None = None,
    weights: NDArray[np.float32] | None = None,
    loss: Loss | None = None,
    augment: Augment | None = None,
    workers: Workers | None = None,
) -> Iterator[Epoch]:
    """Train `network` in place.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K).
        images: (N, H, W) or (N, H, W, 3) uint8; an array moves to the device, `MappedRows` are read chunk by chunk.
        labels: (N,) class indices.
        recipe: the settings.
        seed: determines order and augmentation; the same seed, machine and versions give the same weights.
        validation: images and labels to evaluate after each epoch; they are never trained on.
        device: "cpu", "cuda", ...
        stop: called after each chunk of steps, several times a second; True ends the training.
        checkpoint_writer: saves checkpoints when they are due.
        resume: the checkpoint to continue from; the final weights equal those of an uninterrupted training.
        weights: (N,) the weight of each image in the loss, with mean 1; None: all equal.
        loss, augment: a custom loss, and a custom augmentation; see `custom.py`.
        workers: those among which every batch and the validation images are divided. Each of them calls this function
            with the same arguments, gets the same epochs and ends with the same weights. Only the first needs `resume`
            and saves checkpoints; all stop when one should.

    Raises:
        DivergedError: the training or validation loss or a weight became NaN or infinite; the network has the weights
            from before this epoch.
        ModelError: out of memory, or the network's own code raised an exception.
        RunError: `resume` belongs to another training, or another worker stopped.
        UsageError: there are more workers than images in a batch.
    """
    run = _Run(network, (images, labels), recipe, seed, torch.device(device), resume, weights, loss, augment, workers)
    while not run.finished:
        run.begin_epoch()
        stopped = False
        while run.has_chunk and not stopped:
            run.run_chunk()
            stopped = stop() if workers is None else workers.any(stop())
            if checkpoint_writer is not None and run.saves and (stopped or checkpoint_writer.due()):
                checkpoint_writer.save(run.checkpoint)
            if run.report_due and not stopped:
                yield run.report()
        yield run.end_epoch(validation, stopped)


@dataclass
class _Position:
    """The next chunk of a training, and the sums over the current epoch so far; images count by sample weight."""

    epoch: int = 1
    chunk: int = 0
    cores: int | None = None
    seconds: float = 0.0
    images: float = 0
    hits: float = 0
    loss: float = 0.0

    def add(self, losses: Tensor, correct: Tensor, weights: Tensor | None) -> None:
        """Add a chunk's losses (M,) and correct predictions (M,)."""
        if weights is None:
            sums = torch.stack((losses.sum(), correct.sum()))
            self.images += len(losses)
        else:
            sums = torch.stack((losses @ weights, correct.float() @ weights))
            self.images += float(weights.sum())
        loss, hits = sums.tolist()
        self.loss, self.hits = self.loss + loss, self.hits + hits


class _Run:
    """A training in progress.

    Attributes:
        position: where the training is; what a checkpoint stores.
        step: steps completed in this epoch, out of `epoch_steps`.
        steps_done: steps completed in the whole training, out of `total_steps`.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Labelled,
        recipe: Recipe,
        seed: int,
        device: torch.device,
        resume: Checkpoint | None,
        weights: NDArray[np.float32] | None,
        loss: Loss | None,
        augment: Augment | None,
        workers: Workers | None,
    ) -> None:
        images, labels = data
        self.workers = workers
        self.loss = None if loss is None else on_device(loss, device)
        self.network, self.recipe, self.seed, self.device = network, recipe, seed, device
        with _enough_memory(min(recipe.batch_size, len(labels))), _training_errors():
            _prepare(network, recipe, device)
            self.batches = Batches(images, labels, recipe, seed, device, _min_batch(network), weights, augment)
            balanced = recipe.balance == "weights"
            self.class_weights = class_weights(np.bincount(labels)).to(device) if balanced else None
            batch_size, floats = self.batches.batch_size, augment is not None
            if workers is not None:
                _check_batch_size(batch_size, workers)
                content = workers.bytes_of_first(None if resume is None else resume.to_bytes())
                resume = None if content is None else Checkpoint.from_bytes(content)
            self.optimizer = steps_for(network, recipe, batch_size, device, self.loss, floats, workers)
            self.restore_point, self.early_stopping = RestorePoint(network), EarlyStopping(recipe.patience)
            self.position = _Position() if resume is None else self._restore(resume)
        # Workers wait for each other, which looks like a busy machine.
        self.adapts = recipe.adapt_cores and device.type == "cpu" and workers is None
        self.cores = CoreChoice(self.optimizer.cores, self.position.cores)
        *steps, last = (self.batches.steps(number) for number in range(1, recipe.epochs + 1))
        self.steps_of_epochs = [*steps, max(1, round(recipe.last_epoch_fraction * last))]
        self.total_steps = sum(self.steps_of_epochs)
        self.finished = False

    @property
    def saves(self) -> bool:
        """Whether this process saves checkpoints."""
        return self.workers is None or self.workers.rank == 0

    def begin_epoch(self) -> None:
        at = self.position
        self.began = self.reported = time.perf_counter() - at.seconds
        self.resumed_seconds = at.seconds
        if not at.chunk and self.workers is not None:  # unlike processors drift apart
            self.workers.synchronise(list(self.network.state_dict().values()))
        if not at.chunk:  # else these are weights of the middle of an epoch, and the checkpoint held the earlier ones
            self.restore_point.update(self.network, at.epoch - 1)
        self.epoch_steps = self.steps_of_epochs[at.epoch - 1]
        self.step = self.first_step = min(self.epoch_steps, self.batches.steps_before(at.epoch, at.chunk))
        self.steps_done = sum(self.steps_of_epochs[: at.epoch - 1]) + self.step
        if not at.chunk:
            self.batches.begin(at.epoch)

    @property
    def has_chunk(self) -> bool:
        """Whether steps remain in this epoch."""
        return self.step < self.epoch_steps and self.position.chunk < self.batches.chunks(self.position.epoch)

    def run_chunk(self) -> None:
        """Take the steps of the next chunk."""
        at, size = self.position, self.batches.batch_size
        with _seeded(self.device, self.seed, at.epoch, at.chunk), self._threads(), _enough_memory(size):
            chunk = self.batches.chunk(at.epoch, at.chunk, (self.epoch_steps - self.step) * size, self.workers)
            steps = math.ceil(len(chunk.labels) / size)
            rates = [self._rate(self.steps_done + ahead) for ahead in range(steps)]
            logits = self._take_steps(chunk.images, chunk.labels, rates, self._sample_weights(chunk))
            losses = self._losses(logits, chunk.labels, self.recipe.label_smoothing)
            if self.workers is not None:
                self.workers.of_first(losses)  # unlike processors would prune other images
            at.add(losses, logits.argmax(1) == chunk.labels, chunk.weights)
            self.batches.record_losses(at.epoch, at.chunk, losses)
        at.chunk, self.step, self.steps_done = at.chunk + 1, self.step + steps, self.steps_done + steps
        self._require_finite(math.isfinite(at.loss), "the training loss", f"epoch {at.epoch}, step {self.step}")

    def _take_steps(self, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None) -> Tensor:
        """`Steps.run`, in parts short enough to notice soon that the machine is busy."""
        if not self.adapts:
            with _training_errors():
                return self.optimizer.run(images, labels, rates, weights)
        logits, first, size = [], 0, self.batches.batch_size
        while first < len(rates):
            last = first + self.cores.steps_to_measure
            rows, began = slice(first * size, last * size), time.perf_counter()
            with self._threads(), _training_errors():
                some = None if weights is None else weights[rows]
                logits.append(self.optimizer.run(images[rows], labels[rows], rates[first:last], some))
            self.cores.record(len(rates[first:last]), time.perf_counter() - began)
            first = last
        return torch.cat(logits)

    def _threads(self) -> AbstractContextManager[None]:
        self.optimizer.cores = self.cores.count
        return torch_settings(self.optimizer.torch_threads)

    @property
    def report_due(self) -> bool:
        return time.perf_counter() - self.reported > _REPORT_SECONDS

    def report(self, **more: Any) -> Epoch:
        self.reported, at = time.perf_counter(), self.position
        means = at.loss / at.images, at.hits / at.images
        rate, seconds = self._rate(self.steps_done - 1), self.reported - self.began
        steps = at.epoch, self.recipe.epochs, self.step, self.epoch_steps
        cores = self.cores.count, self.cores.most
        return Epoch(*steps, *means, rate, seconds, cores=cores[0], most_cores=cores[1], **more)

    def checkpoint(self) -> Checkpoint:
        """The state after the last chunk."""
        self.position.seconds, self.position.cores = time.perf_counter() - self.began, self.cores.count
        pruning = self.batches.pruning
        parts = {
            "network": self.network.state_dict(),
            "steps": self.optimizer.state(),
            "best": self.early_stopping.state,
            "restore": self.restore_point.state,
            "pruning": pruning.state() if pruning is not None else {},
        }
        tensors = {f"{part}.{name}": value for part, state in parts.items() for name, value in state.items()}
        metadata = {
            "steps": self.optimizer.kind,
            "workers": self.workers.count if self.workers is not None else 1,
            "position": asdict(self.position),
            "best": self.early_stopping.metadata(),
            "restore": self.restore_point.epoch,
        }
        return Checkpoint(tensors, metadata)

    def end_epoch(self, validation: Labelled | None, stopped: bool) -> Epoch:
        """Validate, restore the best weights after the last epoch, and advance to the next epoch."""
        training_seconds = time.perf_counter() - self.began - self.resumed_seconds
        number = self.position.epoch
        with _enough_memory(self.batches.batch_size):
            val_loss, val_accuracy = self._validate(validation)
        self.early_stopping.update(self.network, number, val_loss)
        enough = self.early_stopping.enough
        self.finished = stopped or enough or number == self.recipe.epochs
        epoch = self.report(
            val_loss=val_loss, val_accuracy=val_accuracy, finished=True, enough=enough,
            kept=self.early_stopping.restore(self.network) if self.finished else None,
            training_seconds=training_seconds, first_step=self.first_step,
        )  # fmt: skip
        self.position = _Position(number + 1)
        return epoch

    def _validate(self, validation: Labelled | None) -> tuple[float | None, float | None]:
        """Loss and accuracy on the validation images, in the precision of training.

        Raises:
            DivergedError: a weight or a validation logit is NaN or infinite.
        """
        where = f"epoch {self.position.epoch}"
        name = self.restore_point.not_finite(self.network)
        self._require_finite(not name, f"the network's '{name}'", where)
        if validation is None or not len(validation[1]):
            return None, None
        bfloat16 = self.recipe.bfloat16 and has_bfloat16(self.device.type)
        threads = torch_settings(self.cores.count)
        with threads, torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            logits = self._predict(validation[0])
        labels = torch.from_numpy(validation[1])
        with _seeded(self.device, self.seed, self.position.epoch):
            mean = self._losses(logits, labels).mean()
            loss = float(mean if self.workers is None else self.workers.of_first(mean))
        self._require_finite(math.isfinite(loss) and _is_finite(logits), "the validation loss", where)
        return loss, float((logits.argmax(1) == labels).float().mean())

    def _predict(self, images: Images | MappedRows) -> Tensor:
        """(N, K) logits; each worker computes some of them."""
        if self.workers is None:
            return predict_logits(self.network, images)
        own = predict_logits(self.network, self.workers.some_of(images))
        self.workers.batch = len(images)
        return self.workers.gathered(own)

    def _losses(self, logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """(M,) the loss of each image; if a custom loss returns one number per batch, that number."""
        if self.loss is None:
            return cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)
        with torch.no_grad(), _training_errors():
            batches = zip(
                *(torch.split(each.to(self.device), self.batches.batch_size) for each in (logits, labels)), strict=True
            )
            return torch.cat([self.loss(rows, batch).detach().expand(len(batch)) for rows, batch in batches])

    def _require_finite(self, finite: bool, name: str, where: str) -> None:
        """Restore the last finite weights and raise DivergedError unless `finite`."""
        if finite:
            return
        self.restore_point.restore(self.network)
        epoch, rate = self.restore_point.epoch, self.recipe.learning_rate
        weights = f"weights of epoch {epoch}" if epoch else "initial weights"
        raise DivergedError(
            f"training diverged: {name} is NaN or infinite in {where}; the {weights} were restored",
            f"use a smaller learning rate than {rate:g}: --set learning_rate={rate / 10:g} (in Python "
            f"learning_rate={rate / 10:g})",
        )

    def _rate(self, step: int) -> float:
        return learning_rate_at(self.recipe, step / self.total_steps)

    def _sample_weights(self, chunk: Chunk) -> Tensor | None:
        """(M,), the weight of each image in the loss; None: all equal."""
        if self.class_weights is None:
            return chunk.weights
        weights = self.class_weights[chunk.labels]
        return weights if chunk.weights is None else weights * chunk.weights

    def _restore(self, saved: Checkpoint) -> _Position:
        """Load the state of network, optimizer, early stopping and pruning."""
        parts: dict[str, dict[str, Tensor]] = {
            "network": {}, "steps": {}, "best": {}, "restore": {}, "pruning": {}
        }  # fmt: skip
        try:
            for key, value in saved.tensors.items():
                part, _, name = key.partition(".")
                parts[part][name] = value
            if saved.metadata["steps"] != (kind := self.optimizer.kind):
                raise ValueError(f"it was saved by {saved.metadata['steps']} steps, but this training uses {kind} ones")
            self.network.load_state_dict(parts["network"])
            self.optimizer.set_state(parts["steps"])
            self.early_stopping.set_state(parts["best"], saved.metadata["best"])
            self.restore_point.set_state(parts["restore"], saved.metadata["restore"])
            if self.batches.pruning is not None:
                self.batches.pruning.set_state(parts["pruning"])
            position = msgspec.convert(saved.metadata["position"], _Position)
            if saved.metadata.get("workers", 1) != (1 if self.workers is None else self.workers.count):
                position.cores = None  # another number of workers has another number of cores for each
            if position.epoch > self.recipe.epochs + 1 or position.chunk < 0:
                raise ValueError(f"it is in epoch {position.epoch} of {self.recipe.epochs}")
            return position
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            raise RunError(
                f"the checkpoint does not fit this training: {error}", "start over in another folder: --out"
            ) from error


class RestorePoint:
    """The newest finite weights at the end of an epoch, running statistics included.

    Tensors that are not finite from the beginning, such as an attention mask, are not watched.
    """

    def __init__(self, network: nn.Module) -> None:
        self.watched = [name for name, value in network.state_dict().items() if _is_finite(value)]
        self.state, self.epoch = _copy(network.state_dict()), 0

    def not_finite(self, network: nn.Module) -> str:
        """The name of a tensor with a NaN or infinite value; empty if there is none."""
        state = network.state_dict()
        return next((name for name in self.watched if not _is_finite(state[name])), "")

    def update(self, network: nn.Module, epoch: int) -> None:
        if not self.not_finite(network):
            self.state, self.epoch = _copy(network.state_dict()), epoch

    def restore(self, network: nn.Module) -> None:
        network.load_state_dict(self.state)

    def set_state(self, state: dict[str, Tensor], epoch: int) -> None:
        """Take over what a checkpoint holds; raises ValueError if it belongs to another network."""
        if {name: value.shape for name, value in state.items()} != {n: v.shape for n, v in self.state.items()}:
            raise ValueError("it has other weights to restore")
        self.state, self.epoch = state, epoch


class EarlyStopping:
    """Keeps the weights with the smallest validation loss, and stops after `patience` epochs without improvement."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.state: dict[str, Tensor] = {}
        self.epoch, self.loss, self.newest = 0, math.inf, 0

    def update(self, network: nn.Module, epoch: int, loss: float | None) -> None:
        if not self.patience or loss is None:
            return
        self.newest = epoch
        if loss < self.loss:
            self.state, self.epoch, self.loss = _copy(network.state_dict()), epoch, loss

    @property
    def enough(self) -> bool:
        return bool(self.patience) and self.newest - self.epoch >= self.patience

    def restore(self, network: nn.Module) -> int | None:
        """Load the best weights, and return their epoch; None if there was no validation."""
        if not self.state:
            return None
        network.load_state_dict(self.state)
        return self.epoch

    def metadata(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss if self.epoch else None, "newest": self.newest}

    def set_state(self, state: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        self.state, self.epoch, self.newest = state, metadata["epoch"], metadata["newest"]
        self.loss = metadata["loss"] if self.epoch else math.inf


def learning_rate_at(recipe: Recipe, done: float) -> float:
    """The learning rate of a step, from the fraction of all steps already taken.

    >>> from hangtag.training.engine.recipes import RECIPES
    >>> [round(learning_rate_at(RECIPES["tutorial"], done), 4) for done in (0.0, 0.5, 1.0)]
    [0.001, 0.001, 0.001]
    """
    if not recipe.warmup:
        return recipe.learning_rate
    if done < recipe.warmup:
        return recipe.learning_rate * (recipe.start_factor + (1 - recipe.start_factor) * done / recipe.warmup)
    return recipe.learning_rate * (1 - (1 - recipe.end_factor) * (done - recipe.warmup) / (1 - recipe.warmup))


def choose_device(wanted: str = "auto") -> torch.device:
    """The named device; "auto" is a CUDA GPU if PyTorch finds one, else the CPU.

    Raises:
        UsageError: the device is not available.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(str(wanted))
    except RuntimeError:
        raise UnknownName.among("device", str(wanted), ("auto", "cpu", "cuda")) from None
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise UsageError(f"device '{wanted}' cannot be used: {reason}", "use the device cpu") from None
    return device


def use_threads(count: int) -> None:
    """Let PyTorch compute with this many threads in this process; the same number gives the same last digits."""
    torch.set_num_threads(count)


@contextmanager
def torch_settings(threads: int) -> Iterator[None]:
    """Set PyTorch's threads for training, and flush numbers below 1e-38 to zero; restore both afterwards.

    Adam's averages for pixels that are always black decay to such denormal numbers, which processors handle slowly.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(cores)


def _prepare(network: nn.Module, recipe: Recipe, device: torch.device) -> None:
    network.to(device)
    channels_last(network)
    network.train()
    with torch_settings(recipe.most_cores(torch.get_num_threads())):
        torch.ones(1 << 20).sum()  # the first large sum starts the worker threads, which then inherit these settings


def _min_batch(network: nn.Module) -> int:
    """The smallest batch a step is taken on: batch normalisation may need two images to compute a deviation."""
    return 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) else 1


def _check_batch_size(batch_size: int, workers: Workers) -> None:
    if batch_size < workers.count:
        raise UsageError(
            f"{workers.count} workers cannot divide a batch of {batch_size} images",
            f"use at most {batch_size} workers, or a larger batch: --batch-size {workers.count}",
        )


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


@contextmanager
def _seeded(device: torch.device, *numbers: int) -> Iterator[None]:
    """Seed PyTorch's generators by these numbers, for dropout and the like; restore their state afterwards."""
    # `torch.manual_seed` and `fork_rng` cover every kind of device, which takes longer than some chunks.
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(mixed_seed(*numbers))
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _training_errors() -> AbstractContextManager[None]:
    return custom_code(
        "the network cannot be trained",
        "in training, too, it must take float (N, C, H, W) and return differentiable logits (N, K)",
    )


def _enough_memory(batch_size: int) -> AbstractContextManager[None]:
    return enough_memory(
        f"with batches of {batch_size} images",
        f"use a smaller batch, such as {max(1, batch_size // 2)}; or smaller images, or a smaller network",
    )
