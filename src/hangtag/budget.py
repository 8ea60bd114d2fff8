"""A time to train in -> the recipe, network and number of epochs that fill it on this machine and data.

A few steps of each candidate are taken and timed; the largest network that still sees the data often enough is chosen.
Nothing that was trained here is kept.
"""

import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from hangtag.batches import Batches, phases_of
from hangtag.errors import HangtagError, UsageError
from hangtag.images import Images, ImageSpec
from hangtag.labelled import LabelledImages
from hangtag.models import build, logits_of
from hangtag.recipes import Recipe, find_recipe
from hangtag.splits import stratified
from hangtag.steps import steps_for
from hangtag.train import settings

__all__ = ["Plan", "plan"]

_CANDIDATES = (("accurate", "cnn-large", 20), ("fast", "cnn", 4), ("fast", "cnn-small", 3), ("quick", "mlp", 0))
"""Recipe, network, and the fewest epochs that make it better than the next one, largest first; see docs/log.md."""
_MOST_EPOCHS = 200  # beyond this more passes teach nothing
_MEASURED_SECONDS = 0.8  # per candidate
_VERIFIED = 1000  # as in classifier.py
_AFTERWARDS = 6.0  # seconds for exporting, opening the file, drawing and writing the report; see docs/log.md
_SLOWER = 1.1  # a whole training beside a few of its steps; see docs/log.md
_PASSES = 2.5  # over judged and verified images afterwards, in forward passes of PyTorch


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

    Args:
        data: with a training part.
        minutes: for everything, from `began` to the written report.
        began: `time.perf_counter()` when the command began.
        device: to train on.
        seed: of the split.

    Raises:
        UsageError: there is not even time for a tenth of an epoch of the smallest network.
    """
    if not 0 < minutes < float("inf"):
        raise UsageError(f"--minutes {minutes:g} makes no sense", "give a number above 0")
    measured: dict[str, float] = {}
    for name, network, fewest in _CANDIDATES:
        recipe = find_recipe(name, network=network)
        try:
            cost = _Cost.of(recipe, data, device, seed)
        except HangtagError:  # images too small for it, for example
            continue
        measured[network] = cost.step
        left = 60 * minutes - (time.perf_counter() - began) - cost.besides
        epochs = min(left / cost.epoch, float(_MOST_EPOCHS))
        if epochs >= max(fewest, 0.1):
            return _plan(recipe, minutes, epochs, cost, time.perf_counter() - began, measured)
    needed = time.perf_counter() - began + cost.besides + 0.1 * cost.epoch
    raise UsageError(
        f"--minutes {minutes:g} is too short: reading, checking and judging alone take {needed:.0f} s here",
        f"give at least {1.1 * needed / 60:.2f}",
    )


@dataclass(frozen=True)
class _Cost:
    """Seconds of one candidate: a step; an epoch with its validation; what comes besides, after training and in the
    first epoch, which leaves no image out."""

    step: float
    epoch: float
    besides: float

    @classmethod
    def of(cls, recipe: Recipe, data: LabelledImages, device: torch.device, seed: int) -> "_Cost":
        train = data.train
        split = stratified(train.labels, recipe.validation, seed)
        judged = len(data.test) if "test" in data.parts else len(split.validation)
        network = build(recipe.network, train.spec, len(train.class_names), seed).to(device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from the types
        few = split.train[: min(len(split.train), 16 * recipe.batch_size)]
        batches = Batches(train.images[few], train.labels[few], recipe, seed, device)
        steps = steps_for(network, recipe, batches.batch_size, device, batches.pruning is not None)
        with settings(recipe, steps.torch_threads):
            step = _seconds_per_step(batches, steps, recipe.lr_peak)
            forward = _forward_seconds(network, train.images[: min(512, len(train))])
        whole, rest = divmod(len(split.train), batches.batch_size)
        count = whole + bool(rest and recipe.last_partial_batch)
        full = _SLOWER * count * step * _mean_area(recipe, network, train.spec)
        views = 2 if recipe.averages_mirror_images else 1
        told = judged + len(split.validation) + min(_VERIFIED, len(train))
        afterwards = _AFTERWARDS + _PASSES * views * forward * told
        return cls(
            step=step,
            epoch=full * recipe.kept + len(split.validation) * forward,
            besides=afterwards + full * (1 - recipe.kept),
        )


def _seconds_per_step(batches: Batches, steps: Any, rate: float) -> float:
    """Median over some rounds of steps, the making of the batches included; the first round does not count."""

    def timed() -> float:
        began = time.perf_counter()
        images, labels, weights = batches.chunk(1, 0).first(count * batches.batch_size)
        taken = -(-len(labels) // batches.batch_size)
        steps.take(images, labels, [rate] * taken, weights)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        return (time.perf_counter() - began) / taken

    count = 1
    first = timed()
    count = max(1, min(batches.steps(1), int(0.2 * _MEASURED_SECONDS / first)))
    rounds, end = [timed()], time.perf_counter() + _MEASURED_SECONDS
    while len(rounds) < 3 or time.perf_counter() < end:
        rounds.append(timed())
    return statistics.median(rounds[1:])


def _mean_area(recipe: Recipe, network: torch.nn.Module, spec: ImageSpec) -> float:
    """Of the images over a training, as a share of the full area; steps cost about as much."""
    total, before = 0.0, 0.0
    for phase in phases_of(recipe, network, spec.height, spec.width):
        total += (phase.until - before) * phase.size[0] * phase.size[1] / (spec.height * spec.width)
        before = phase.until
    return total


def _forward_seconds(network: torch.nn.Module, images: Images) -> float:
    """Per image, of judging."""
    logits_of(network, np.array(images[:1]))
    began = time.perf_counter()
    logits_of(network, np.array(images))
    return (time.perf_counter() - began) / len(images)


def _plan(
    recipe: Recipe, minutes: float, epochs: float, cost: _Cost, passed: float, measured: dict[str, float]
) -> Plan:
    whole = max(1, -int(-epochs // 1))
    share = min(1.0, max(0.01, epochs - (whole - 1)))
    chosen = replace(recipe, epochs=whole, last_epoch=round(share, 3))
    return Plan(chosen, minutes, passed + epochs * cost.epoch + cost.besides, epochs, cost.epoch, measured)
