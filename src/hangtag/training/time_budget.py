"""A time to train in -> the recipe, network and number of epochs that fill it on this machine and data.

A few steps of each candidate are taken and timed; the largest network that still sees the data often enough is chosen.
Nothing that was trained here is kept.
"""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import stratified
from hangtag.errors import DataError, HangtagError, UsageError
from hangtag.mapped import MappedRows
from hangtag.model.neighbours import KEPT
from hangtag.pictures import Images
from hangtag.training.classifier import MOST_DESCRIBED, VERIFIED, part_of
from hangtag.training.engine.batches import Batches
from hangtag.training.engine.build import build_network
from hangtag.training.engine.cuda_graph import WARM_UP
from hangtag.training.engine.guard import enough_memory
from hangtag.training.engine.inference import images_at_once, predict_logits
from hangtag.training.engine.loop import settings
from hangtag.training.engine.networks import channels_last
from hangtag.training.engine.recipes import DEFAULT, Recipe, adapt_to_size, find_recipe
from hangtag.training.engine.sampling import choose_balance
from hangtag.training.engine.steps import steps_for

__all__ = ["Plan", "plan"]

_CANDIDATES = (("accurate", "cnn-large", 20), ("fast", "cnn", 4), ("fast", "cnn-small", 3), ("quick", "mlp", 0))
"""Recipe, network, and the fewest epochs that make it better than the next one, largest first; see docs/log.md."""
_MOST_EPOCHS = 200  # beyond this more passes teach nothing
_MEASURED_SECONDS = 0.8  # per candidate, at least
_MEASURED_SHARE, _MOST_MEASURED = 0.015, 5.0  # of the time left, and seconds: a machine's slow moments pass
_FEW = (2, 8, 32, 128)  # images of the steps that are tried before one on a whole batch
_TRIED_PIXELS = 4_000_000  # of the images that are trained on meanwhile; at least a batch
_UNTIL_CAPTURED = WARM_UP + 2  # steps on a GPU: the next is recorded, and the last is a replay
_AFTERWARDS = 6.0  # seconds for exporting, opening the file, drawing and writing the report; see docs/log.md
_SLOWER = 1.1  # a whole training beside a few of its steps; see docs/log.md
_HASHED = 3  # times that the content of all images is gone over, where they came in parts


@dataclass(frozen=True)
class Plan:
    """What fills the time.

    Attributes:
        recipe: with its network and epochs.
        minutes: that were asked for.
        expected_seconds: from the beginning of the command to its end.
        epochs: passes over the images, with the fraction of the last.
        epoch_seconds: of one, validation included.
        measured: seconds of a step of each network tried.
    """

    recipe: Recipe
    minutes: float
    expected_seconds: float
    epochs: float
    epoch_seconds: float
    measured: dict[str, float]

    @property
    def in_words(self) -> str:
        tried = ", ".join(f"{name} {1000 * seconds:.3g} ms a step" for name, seconds in self.measured.items())
        early = ""
        if self.expected_seconds < 0.9 * 60 * self.minutes:
            early = f"; more than {_MOST_EPOCHS} passes teach nothing, so this ends early"
        return (
            f"{self.minutes:g} minutes: recipe '{self.recipe.name}', network '{self.recipe.network}', "
            f"{self.epochs:.1f} epochs of {self.epoch_seconds:.2g} s (measured: {tried}); should end after "
            f"{self.expected_seconds / 60:.1f} minutes in all{early}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "minutes": self.minutes,
            "expected_seconds": self.expected_seconds,
            "epochs": self.epochs,
            "epoch_seconds": self.epoch_seconds,
            "measured_step_seconds": self.measured,
        }


def plan(data: LabelledImages, minutes: float, began: float, device: torch.device, seed: int = 0) -> Plan:
    """Measure, and choose.

    Nearly equal pictures are looked for before a split: do that first, so that the time it took has passed.

    Args:
        data: with a training part.
        minutes: above 0, for everything, from `began` to the written report.
        began: `time.perf_counter()` when the command began.
        device: to train on.
        seed: of the split.

    Raises:
        UsageError: there is not even time for a tenth of an epoch of the smallest network.
        DataError: there is nothing to train on.
        ModelError: no network could be tried; the reason is that of the smallest one.
    """
    end = began + 60 * minutes
    measured: dict[str, float] = {}
    needed: float | None = None
    refused: HangtagError | None = None
    work = _Work.of(data, find_recipe(DEFAULT).validation, seed)  # every candidate holds out as many
    for name, network, fewest in _CANDIDATES:
        recipe, least = _suited(find_recipe(name, network=network), fewest, len(work.train))
        cost: _Cost | None = None
        try:
            with enough_memory(f"with the network '{network}'", "use smaller images: --size 64"):
                cost = _Cost.of(recipe, data, work, device, seed, least, end)
        except HangtagError as error:  # images too small for it, for example
            refused = type(error)(error.message, error.hint)  # the error itself holds on to what was tried
        _give_back(device)
        if cost is None:
            continue
        measured[network] = cost.step
        epochs = min((end - time.perf_counter() - cost.besides) / cost.epoch, float(_MOST_EPOCHS))
        wanted = max(least, 0.1)
        if epochs >= wanted:
            return _plan(recipe, minutes, epochs, cost, time.perf_counter() - began, measured)
        needed = 60 * minutes + (wanted - epochs) * cost.epoch
    if needed is None:
        assert refused is not None
        raise refused
    raise UsageError(
        f"--minutes {minutes:g} is too short: reading, checking and judging alone take {needed:.0f} s here",
        f"give at least {1.1 * needed / 60:.2f}",
    )


@dataclass(frozen=True)
class _Work:
    """What a training, and all that comes after it, goes over.

    Attributes:
        train: (M,) positions among all images of those that train.
        validation, judged: how many are held out, and how many judge the model in the end.
    """

    train: NDArray[np.int64]
    validation: int
    judged: int

    @classmethod
    def of(cls, data: LabelledImages, fraction: float, seed: int) -> "_Work":
        """The numbers of `splits.split_of`, but for groups; no image is looked at."""
        given = data.parts
        train = data.positions("train") if "train" in given else np.arange(0 if given else len(data), dtype=np.int64)
        if not len(train):
            raise DataError(f"{data.name} has no training images", "give some: a part called train, or no parts")
        if "validation" in given:
            validation = len(data.positions("validation"))
        else:
            split = stratified(data.labels[train], fraction, seed)
            train, validation = train[split.train], len(split.validation)
        return cls(train, validation, len(data.positions("test")) if "test" in given else validation)


def _suited(recipe: Recipe, fewest: float, images: int) -> tuple[Recipe, float]:
    """The recipe as it will train on so many images, and the fewest epochs: few images take more, in smaller batches.

    The classifier finds nothing left to change: the time asked for decides the epochs, not a least number of steps.
    """
    few, _ = adapt_to_size(recipe, images)
    batch = min(few.batch_size, images)
    chosen = replace(recipe, batch_size=batch, min_steps=0)
    return chosen, min(fewest * few.epochs / recipe.epochs, float(_MOST_EPOCHS))


@dataclass(frozen=True)
class _Cost:
    """Seconds of one candidate: a step; an epoch with its validation; what comes besides, after training and in the
    first epoch, which leaves no image out."""

    step: float
    epoch: float
    besides: float

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        data: LabelledImages,
        work: _Work,
        device: torch.device,
        seed: int,
        least: float,
        end: float,
    ) -> "_Cost | None":
        """Measured; None where `least` epochs cannot be over by `end`, a time of `time.perf_counter`."""
        counts = np.bincount(data.labels[work.train], minlength=len(data.class_names))
        tried = replace(recipe, balance=choose_balance(recipe, counts))
        network = build_network(recipe.network, data.spec, len(data.class_names), seed).to(device)
        channels_last(network)
        whole, rest = divmod(len(work.train), recipe.batch_size)
        count = whole + bool(rest and recipe.last_partial_batch)
        steps = count * (1 + (least - 1) * recipe.mean_fraction_kept)
        few_images = _FEW if least and device.type == "cpu" else ()  # a GPU takes many as quickly as few
        for few in few_images:
            if few < recipe.batch_size:
                timed = _timer(network, replace(tried, batch_size=few), *part_of(data, work.train[:few]), seed, device)
                if steps * _seconds_of_few(timed) > end - _AFTERWARDS - time.perf_counter():
                    return None
        at_once = min(16 * recipe.batch_size, _TRIED_PIXELS // (data.spec.height * data.spec.width))
        images, labels = part_of(data, work.train[: max(recipe.batch_size, at_once)])
        seconds = max(_MEASURED_SECONDS, min(_MOST_MEASURED, _MEASURED_SHARE * (end - time.perf_counter())))
        step = _seconds_per_step(_timer(network, tried, images, labels, seed, device), device, seconds)
        forward = _forward_seconds(network, images)
        shipped = forward if device.type == "cpu" else _forward_seconds(network.cpu(), images)
        full = _SLOWER * count * step
        return cls(
            step=step,
            epoch=full * recipe.mean_fraction_kept + work.validation * forward,
            besides=_afterwards(recipe, data, work, shipped) + full * (1 - recipe.mean_fraction_kept),
        )


def _timer(
    network: nn.Module,
    recipe: Recipe,
    images: Images | MappedRows,
    labels: NDArray[np.int64],
    seed: int,
    device: torch.device,
) -> Callable[[int], float]:
    """Takes at most so many steps, and tells the seconds of one, the making of the batches included."""
    batches = Batches(images, labels, recipe, seed, device)
    weighted = recipe.balance == "weights" or batches.pruning is not None
    steps = steps_for(network, recipe, batches.batch_size, device, weighted)

    def timed(count: int) -> float:
        began = time.perf_counter()
        with settings(recipe, steps.torch_threads):
            images, labels, weights = batches.chunk(1, 0).first(count * batches.batch_size)
            taken = -(-len(labels) // batches.batch_size)
            if weighted and weights is None:
                weights = torch.ones(len(labels), device=device)
            steps.run(images, labels, [recipe.learning_rate] * taken, weights)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / taken

    return timed


def _seconds_of_few(timed: Callable[[int], float]) -> float:
    """No step on more images is quicker than this; in the first, kernels are chosen and memory is fetched."""
    tries = [timed(1)]
    while len(tries) < 3 and sum(tries) < _MEASURED_SECONDS:
        tries.append(timed(1))
    return min(tries)


def _seconds_per_step(timed: Callable[[int], float], device: torch.device, seconds: float) -> float:
    """Median over rounds of steps for so many seconds; the first do not count."""
    for _ in range(1 if device.type == "cpu" else _UNTIL_CAPTURED):
        timed(1)
    once = timed(1)
    if once > _MEASURED_SECONDS:
        return once
    count = max(1, int(0.2 * _MEASURED_SECONDS / once))
    rounds, end = [timed(count)], time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        rounds.append(timed(count))
    return statistics.median(rounds[1:])


def _forward_seconds(network: nn.Module, images: Images | MappedRows) -> float:
    """Per image, of judging."""

    def timed(count: int) -> float:
        pixels = images[:count]
        began = time.perf_counter()
        predict_logits(network, pixels)
        return (time.perf_counter() - began) / count

    once = min(len(images), images_at_once(images))
    timed(once)  # not counted, as above
    return timed(max(once, min(len(images), int(0.25 * _MEASURED_SECONDS / timed(once)))))


def _afterwards(recipe: Recipe, data: LabelledImages, work: _Work, forward: float) -> float:
    """Seconds from the last step to the report, and of going over the content of the images before the first.

    In forward passes, images that judge count three times (network, file, and the file again), those on which the file
    is proved twice.

    Args:
        forward: seconds of a forward pass an image on the processor, which does all of this also where a GPU trains.
    """
    train = len(work.train)
    told = 3 * work.judged + work.validation + 2 * min(VERIFIED, train) + min(MOST_DESCRIBED, train) + min(KEPT, train)
    views = 2 if recipe.uses_flip_tta else 1
    return _AFTERWARDS + views * forward * told + _hashing_seconds(data, train + work.validation)


def _hashing_seconds(data: LabelledImages, images: int) -> float:
    """Of so many images; each part that is taken out of the data is gone over anew."""
    if not data.parts:
        return 0.0
    some = data.take(slice(0, 100))
    began = time.perf_counter()
    hashed = len(some.contents)
    return _HASHED * images * (time.perf_counter() - began) / hashed


def _give_back(device: torch.device) -> None:
    """The memory of what was tried in vain."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _plan(
    recipe: Recipe, minutes: float, epochs: float, cost: _Cost, passed: float, measured: dict[str, float]
) -> Plan:
    whole = max(1, -int(-epochs // 1))
    share = min(1.0, max(0.01, epochs - (whole - 1)))
    chosen = replace(recipe, epochs=whole, last_epoch_fraction=round(share, 3))
    return Plan(chosen, minutes, passed + epochs * cost.epoch + cost.besides, epochs, cost.epoch, measured)
