"""One visible training loop; yields an `Epoch` now and then, and one at the end of every epoch.

It knows nothing of screens, files or what the images show. The caller owns the network: whenever the caller stops
asking, the network holds the weights of the last step.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hangtag.errors import DivergedError, RunError, UsageError
from hangtag.mapped import MappedRows
from hangtag.pictures import Images
from hangtag.training.engine.balance import class_weights
from hangtag.training.engine.batches import Batches, mixed_seed, phases_of, resized
from hangtag.training.engine.checkpoints import Checkpoint, CheckpointWriter
from hangtag.training.engine.guard import custom_code, enough_memory, is_out_of_memory
from hangtag.training.engine.networks import channels_last, predict_logits
from hangtag.training.engine.pruning import Pruning
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.steps import Steps, has_bfloat16, steps_for

__all__ = ["Epoch", "choose_device", "learning_rate_at", "train"]

_REPORT_SECONDS = 0.1  # between two unfinished Epochs


@dataclass(frozen=True)
class Epoch:
    """Where a training stands.

    Attributes:
        number: from 1 to `epochs`.
        step: steps taken in this epoch, of `steps`.
        loss: mean over this epoch's images so far, each judged just before its step.
        accuracy: likewise.
        val_loss, val_accuracy: on the held-out images; only when finished and if there are any.
        learning_rate: of the last step.
        seconds: since this epoch began, validation included.
        finished: whether no more steps of this epoch follow.
        enough: the recipe's patience is at its end; no epoch follows.
        training_seconds: of `seconds`, those that were spent on steps in this process.
        first_step: the step of this epoch at which this process began; not 0 only in an epoch gone on with.
        kept: the epoch whose weights the network now has, where patience chose it; only in the last of a training.
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

    @property
    def cut_short(self) -> bool:
        """Stopped on request before its last step."""
        return self.finished and self.step < self.steps

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def train(
    network: nn.Module,
    images: Images | MappedRows,
    labels: NDArray[np.int64],
    recipe: Recipe,
    seed: int,
    validation: tuple[Images | MappedRows, NDArray[np.int64]] | None = None,
    device: torch.device | str = "cpu",
    stop: Callable[[], bool] = lambda: False,
    checkpoint_writer: CheckpointWriter | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[Epoch]:
    """Train `network` in place.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K).
        images: (N, H, W) or (N, H, W, 3) uint8; an array moves to the device, `Rows` are read bit by bit.
        labels: (N,) indices of classes.
        recipe: how.
        seed: decides order and augmentation; the same seed, machine and versions give the same weights.
        validation: images and labels to judge after each epoch, never trained on.
        device: "cpu", "cuda", ...
        stop: asked some times a second; True ends the training after the current step's chunk.
        keeper: saves checkpoints when it finds that due.
        resume: go on from here; the weights will be those of a training that was never interrupted.

    Raises:
        DivergedError: the loss, here or on the held-out images, or a weight is no longer a number; the network has
            the weights from before this epoch.
        ModelError: out of memory; or the network's own code raised something.
        RunError: `resume` is of another training.
    """
    device = torch.device(device)
    with _enough_memory(min(recipe.batch_size, len(labels))), _own_code():
        _make_ready(network, recipe, device)
        batches = Batches(images, labels, recipe, seed, device, _least_batch(network))
        by_class = class_weights(np.bincount(labels)).to(device) if recipe.balance == "weights" else None
        steps = steps_for(network, recipe, batches.batch_size, device, bool(by_class is not None or batches.pruning))
        phases = phases_of(recipe, network, *images.shape[1:3])
        good, best = _LastGood(network), _Best(recipe.patience)
        at = _Position(1, 0) if resume is None else _go_on(resume, network, steps, best, batches.pruning)
    steps_of = _steps_of(recipe, batches)
    taken, total = sum(steps_of[: at.epoch - 1]) + batches.steps_before(at.epoch, at.chunk), sum(steps_of)
    for number in range(at.epoch, recipe.epochs + 1):
        began = reported = time.perf_counter() - at.seconds
        good.look(network, number - 1)
        sums = _Sums(recipe.label_smoothing, at.images, at.hits, at.loss)
        of, stopped = steps_of[number - 1], False
        step = first = min(of, batches.steps_before(number, at.chunk))
        if not at.chunk:
            batches.begin(number)
        for chunk in range(at.chunk, batches.chunks(number)):
            if step >= of:
                break
            with (
                _own_randomness(device, seed, number, chunk),
                settings(recipe, steps.torch_threads),
                _enough_memory(batches.batch_size),
            ):
                images_, labels_, stands_for = batches.chunk(number, chunk).first((of - step) * batches.batch_size)
                images_ = resized(images_, next(phase.size for phase in phases if taken <= phase.until * total))
                count = math.ceil(len(labels_) / batches.batch_size)
                rates = [learning_rate_at(recipe, (taken + ahead) / total) for ahead in range(count)]
                logits = _taken(steps, images_, labels_, rates, _weights(labels_, by_class, stands_for))
                batches.note(number, chunk, sums.add(logits, labels_, stands_for))
            step, taken = step + count, taken + count
            if not math.isfinite(sums.loss):
                raise _diverged(recipe, "the loss is", f"epoch {number}, step {step}", good.bring_back(network))
            stopped = stop()
            if checkpoint_writer is not None and (stopped or checkpoint_writer.due()):
                here = _Position(number, chunk + 1, time.perf_counter() - began, sums.images, sums.hits, sums.loss)
                checkpoint_writer.save(partial(_checkpoint, network, steps, best, batches.pruning, here))
            if stopped:
                break
            if time.perf_counter() - reported > _REPORT_SECONDS:
                reported = time.perf_counter()
                rate = learning_rate_at(recipe, (taken - 1) / total)
                yield Epoch(number, recipe.epochs, step, of, *sums.means(), rate, reported - began)
        trained = time.perf_counter() - began - at.seconds
        with _enough_memory(batches.batch_size):
            val_loss, val_accuracy = _judge(network, recipe, device, validation, number, good)
        best.look(network, number, val_loss)
        over = stopped or best.enough or number == recipe.epochs
        kept = best.bring_back(network) if over else None
        yield Epoch(
            number, recipe.epochs, step, of, *sums.means(), learning_rate_at(recipe, (taken - 1) / total),
            time.perf_counter() - began, val_loss, val_accuracy, True, best.enough, kept, trained, first,
        )  # fmt: skip
        if over:
            return
        at = _Position(number + 1, 0)


def _make_ready(network: nn.Module, recipe: Recipe, device: torch.device) -> None:
    network.to(device)
    channels_last(network)
    network.train()
    with settings(recipe, None):
        torch.ones(1 << 20).sum()  # worker threads take these settings over when they start, at the first large sum


def _least_batch(network: nn.Module) -> int:
    """Images of the smallest batch that a step is taken on: one alone may have no deviation to normalise by."""
    return 2 if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()) else 1


def _steps_of(recipe: Recipe, batches: Batches) -> list[int]:
    """Steps of each epoch."""
    *steps, last = (batches.steps(number) for number in range(1, recipe.epochs + 1))
    return [*steps, max(1, round(recipe.last_epoch_fraction * last))]


def learning_rate_at(recipe: Recipe, done: float) -> float:
    """The rate of a step, from the share of all steps already taken.

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
    """`auto` takes a CUDA GPU when PyTorch sees one, else the CPU.

    Raises:
        UsageError: a device that is not there.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device '{wanted}' cannot be used: {reason}", "use --device cpu") from None
    return device


@dataclass(frozen=True)
class _Position:
    """Before which chunk of which epoch a training stands, and what it has counted in this epoch."""

    epoch: int
    chunk: int
    seconds: float = 0.0
    images: float = 0
    hits: float = 0
    loss: float = 0.0


def _checkpoint(
    network: nn.Module, steps: Steps, best: "_Best", pruning: Pruning | None, position: _Position
) -> Checkpoint:
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    tensors |= {f"steps.{name}": value for name, value in steps.state().items()}
    tensors |= {f"best.{name}": value for name, value in best.state.items()}
    tensors |= {f"pruning.{name}": value for name, value in (pruning.state() if pruning else {}).items()}
    facts = {"steps": type(steps).__name__, "position": asdict(position), "best": best.metadata()}
    return Checkpoint(tensors, facts)


def _go_on(saved: Checkpoint, network: nn.Module, steps: Steps, best: "_Best", pruning: Pruning | None) -> _Position:
    """Put network, steps and what is known of the images where they were."""
    parts: dict[str, dict[str, Tensor]] = {"network": {}, "steps": {}, "best": {}, "pruning": {}}
    for key, value in saved.tensors.items():
        part, _, name = key.partition(".")
        parts[part][name] = value
    try:
        if saved.metadata["steps"] != type(steps).__name__:
            raise ValueError(f"it was made by {saved.metadata['steps']}, here {type(steps).__name__} would go on")
        network.load_state_dict(parts["network"])
        steps.set_state(parts["steps"])
        best.set_state(parts["best"], saved.metadata["best"])
        if pruning is not None:
            pruning.set_state(parts["pruning"])
        return _Position(**saved.metadata["position"])
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise RunError(
            f"the checkpoint does not fit this training: {error}", "begin anew in another folder: --out"
        ) from error


def _diverged(recipe: Recipe, what: str, where: str, kept: str) -> DivergedError:
    return DivergedError(
        f"{what} no longer a number ({where}); {kept} are kept",
        f"the learning rate {recipe.learning_rate:g} is too large for this data; use a smaller one: "
        f"--set learning_rate={recipe.learning_rate / 10:g}",
    )


class _LastGood:
    """The newest weights that are all numbers, at the end of an epoch; running statistics count as weights.

    What holds something else from the beginning, such as the mask of an attention, is meant to.
    """

    def __init__(self, network: nn.Module) -> None:
        state = network.state_dict()
        self.watched = [name for name, value in state.items() if _all_numbers(value)]
        self.state, self.epochs = _copied(state), 0

    def no_numbers(self, network: nn.Module) -> str:
        """The name of what no longer holds numbers alone; empty where all is well."""
        state = network.state_dict()
        return next((name for name in self.watched if not _all_numbers(state[name])), "")

    def look(self, network: nn.Module, epochs: int) -> None:
        if not self.no_numbers(network):
            self.state, self.epochs = _copied(network.state_dict()), epochs

    def bring_back(self, network: nn.Module) -> str:
        """Put them into the network, and say which they are."""
        network.load_state_dict(self.state)
        return f"the weights after epoch {self.epochs}" if self.epochs else "the weights it began with"


def _all_numbers(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in state.items()}


class _Best:
    """The weights of the epoch with the smallest validation loss, and whether to wait any longer for a better one."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.state: dict[str, Tensor] = {}
        self.epoch, self.loss, self.newest = 0, math.inf, 0

    def look(self, network: nn.Module, epoch: int, loss: float | None) -> None:
        if not self.patience or loss is None:
            return
        self.newest = epoch
        if loss < self.loss:
            self.state = _copied(network.state_dict())
            self.epoch, self.loss = epoch, loss

    @property
    def enough(self) -> bool:
        return bool(self.patience) and self.newest - self.epoch >= self.patience

    def bring_back(self, network: nn.Module) -> int | None:
        """Put the best weights into the network, and say of which epoch they are; None where nobody watched."""
        if not self.state:
            return None
        network.load_state_dict(self.state)
        return self.epoch

    def metadata(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "loss": self.loss if self.epoch else None, "newest": self.newest}

    def set_state(self, state: dict[str, Tensor], facts: dict[str, Any]) -> None:
        self.state, self.epoch, self.newest = state, facts["epoch"], facts["newest"]
        self.loss = facts["loss"] if self.epoch else math.inf


class _Sums:
    """Loss and hits of an epoch so far, of all its images, those included for which others stand."""

    def __init__(self, label_smoothing: float, images: float, hits: float, loss: float) -> None:
        self.label_smoothing, self.images, self.hits, self.loss = label_smoothing, images, hits, loss

    def add(self, logits: Tensor, labels: Tensor, stands_for: Tensor | None) -> Tensor:
        """Returns the loss (M,) of each image."""
        losses = cross_entropy(logits, labels, reduction="none", label_smoothing=self.label_smoothing)
        hits = logits.argmax(1) == labels
        if stands_for is None:
            counts = torch.stack((losses.sum(), hits.sum()))
            self.images += len(labels)
        else:
            counts = torch.stack((losses @ stands_for, hits.float() @ stands_for))
            self.images += float(stands_for.sum())
        loss, right = counts.tolist()
        self.loss, self.hits = self.loss + loss, self.hits + right
        return losses

    def means(self) -> tuple[float, float]:
        return self.loss / self.images, self.hits / self.images


def _weights(labels: Tensor, by_class: Tensor | None, stands_for: Tensor | None) -> Tensor | None:
    """(M,), how much each image counts in its step; None: all alike."""
    if by_class is None:
        return stands_for
    return by_class[labels] if stands_for is None else by_class[labels] * stands_for


@contextmanager
def _own_randomness(device: torch.device, *numbers: int) -> Iterator[None]:
    """Dropout and the like draw from these numbers; PyTorch's own random state is left as it was."""
    # `torch.manual_seed` and `fork_rng` do this for every kind of device, which takes longer than some chunks.
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


def _taken(steps: Steps, images: Tensor, labels: Tensor, rates: list[float], weights: Tensor | None) -> Tensor:
    with _own_code():
        return steps.take(images, labels, rates, weights)


def _own_code() -> AbstractContextManager[None]:
    return custom_code(
        "the network cannot be trained",
        "in training, too, it must take float (N, C, H, W) and return logits (N, K), through which gradients flow",
    )


def _enough_memory(batch_size: int) -> AbstractContextManager[None]:
    return enough_memory(
        f"with batches of {batch_size} images",
        f"use smaller ones: --batch-size {max(1, batch_size // 2)}; or smaller images, or a smaller network",
    )


@contextmanager
def settings(recipe: Recipe, threads: int | None) -> Iterator[None]:
    """PyTorch as a training wants it inside the block, as before after it.

    Numbers below 1e-38 count as zero: Adam's averages for pixels that are always black fade into them, and
    processors are slow with them.
    """
    cores = torch.get_num_threads()
    torch.set_num_threads(threads or min(recipe.cores or cores, cores))
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(cores)


def _judge(
    network: nn.Module,
    recipe: Recipe,
    device: torch.device,
    validation: tuple[Images | MappedRows, NDArray[np.int64]] | None,
    number: int,
    good: _LastGood,
) -> tuple[float | None, float | None]:
    """Loss and accuracy on the held-out images, with products as in training: they tell how it goes, no more.

    Args:
        number: of the epoch.
        good: what is brought back where it went wrong.

    Raises:
        DivergedError: a weight, or an answer to a held-out image, is no longer a number.
    """
    if wrong := good.no_numbers(network):
        raise _diverged(
            recipe, f"the network's '{wrong}' is", f"epoch {number}, in the weights", good.bring_back(network)
        )
    if validation is None or not len(validation[1]):
        return None, None
    bfloat16 = recipe.bfloat16 and has_bfloat16(device.type)
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        logits = predict_logits(network, validation[0])
    labels = torch.from_numpy(validation[1])
    loss = float(cross_entropy(logits, labels))
    if not (math.isfinite(loss) and _all_numbers(logits)):
        raise _diverged(recipe, "the loss is", f"epoch {number}, on the held-out images", good.bring_back(network))
    return loss, float((logits.argmax(1) == labels).float().mean())
