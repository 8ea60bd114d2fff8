"""A time limit -> the recipe, network and number of epochs that fill it on this machine and data.

Steps of each network are timed, the largest network first, and the first one that can train for enough epochs is
chosen. For pictures that pretrained features suit, recipe "transfer" and, for a third of the time left, a network from
nothing are trained; the held-out images choose, and the rest of the time is for fine-tuning or for training from
nothing. Weights trained here are discarded; features are kept in the cache.

Few images, which nothing else judges, are cross-validated if the time allows. They are not fine-tuned on: that would
hold a tenth out, and a handful of images cannot show whether it helps.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.data.folds import FOLDS
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import stratified
from hangtag.errors import DataError, HangtagError, UsageError
from hangtag.mapped import MappedRows
from hangtag.model.neighbours import KEPT
from hangtag.pictures import Images
from hangtag.training.choose_recipe import choose_recipe
from hangtag.training.classifier import Classifier
from hangtag.training.cross_fit import FEW
from hangtag.training.engine.backbones import find_backbone
from hangtag.training.engine.batches import Batches
from hangtag.training.engine.build import build_network
from hangtag.training.engine.cuda_graph import WARM_UP
from hangtag.training.engine.fine_tuning import TunedNetwork, compare
from hangtag.training.engine.guard import enough_memory
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.loop import Epoch, torch_settings
from hangtag.training.engine.networks import channels_last
from hangtag.training.engine.recipes import DEFAULT, FINE_TUNING, Recipe, adapt_to_pixels, adapt_to_size, find_recipe
from hangtag.training.engine.sampling import choose_balance
from hangtag.training.engine.steps import steps_for
from hangtag.training.exported import MOST_DESCRIBED, VERIFIED
from hangtag.training.fit_input import part_of
from hangtag.training.transfer import build_frozen

__all__ = ["Plan", "plan"]

_CANDIDATES = (("accurate", "cnn-large", 20), ("fast", "cnn", 4), ("fast", "cnn-small", 3), ("quick", "mlp", 0))
"""Recipe, network, and the fewest epochs that make it better than the next one, largest first; see docs/log.md."""
_MOST_EPOCHS = 200.0  # more epochs do not help
_MEASURED_SECONDS, _MOST_MEASURED, _MEASURED_SHARE = 0.8, 5.0, 0.015
"""Seconds for which steps of a network are timed, at least and at most, and the share of the time left."""
_SMALL_BATCHES = (2, 32)  # timed before whole batches, which may be far too slow or too large for memory
_TIMED_PIXELS = 1_600_000  # of the images that are trained on meanwhile, or one batch if that is more
_AFTERWARDS = 6.0  # seconds for exporting, opening the file, drawing and writing the report; see docs/log.md
_TRANSFER = "transfer"
_TRIAL = 1 / 3  # of the time left, in which a network from nothing shows what it can
_LEAST_TUNING, _MOST_TUNING = 3, 20  # epochs of fine-tuning
_COMPARED = 200  # images held out of few for the comparison, but at most a third of them
_SLOWER = 1.1  # a step in a whole training, relative to a step here; see docs/log.md

Watch = Callable[[str, Iterator[Epoch]], object]


def _ignore(title: str, epochs: Iterator[Epoch]) -> None:
    for _ in epochs:
        pass


@dataclass(frozen=True)
class Plan:
    """The training that fills a time limit.

    Attributes:
        recipe: with its network and epochs.
        minutes: the time limit.
        expected_seconds: expected time from the beginning of the command to its end.
        epochs: passes over the images, including the fraction of the last.
        epoch_seconds: of one epoch, validation included.
        measured_step_seconds: of each network that was timed.
        compared: why pretrained features or a network from nothing was chosen, in words; empty if only one is possible.
    """

    recipe: Recipe
    minutes: float
    expected_seconds: float
    epochs: float
    epoch_seconds: float
    measured_step_seconds: dict[str, float]
    compared: str = ""

    @property
    def in_words(self) -> str:
        words = self._of_transfer if self.recipe.backbone else self._from_nothing
        return f"{words}; {self.compared}" if self.compared else words

    @property
    def _of_transfer(self) -> str:
        tuned = f", then {self.recipe.fine_tune} epochs of fine-tuning" if self.recipe.fine_tune else ""
        return (
            f"{self.minutes:g} minutes: recipe '{self.recipe.name}'{tuned}; "
            f"expected to take {self.expected_seconds / 60:.1f} minutes in total"
        )

    @property
    def _from_nothing(self) -> str:
        steps = ", ".join(
            f"{name} {1000 * seconds:.3g} ms per step" for name, seconds in self.measured_step_seconds.items()
        )
        early, folds = "", f", then {self.recipe.folds} folds" if self.recipe.folds else ""
        if self.expected_seconds < 0.9 * 60 * self.minutes:
            early = f"; training is limited to {_MOST_EPOCHS:.0f} epochs, so it ends early"
        return (
            f"{self.minutes:g} minutes: recipe '{self.recipe.name}', network '{self.recipe.network}', "
            f"{self.epochs:.1f} epochs of {self.epoch_seconds:.2g} s (measured: {steps}){folds}; "
            f"expected to take {self.expected_seconds / 60:.1f} minutes in total{early}"
        )

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "recipe"}


def plan(
    data: LabelledImages, minutes: float, began: float, device: torch.device, seed: int = 0, watch: Watch = _ignore
) -> Plan:
    """Time the networks, and choose one.

    Find near-duplicates before calling this, so that the time it takes is counted.

    Args:
        data: has a training part.
        minutes: above 0; from `began` to the written report.
        began: `time.perf_counter()` at the beginning of the command.
        device: to train on.
        seed: of the split.
        watch: called with a title and the epochs of each training that is only compared; it must iterate over them.

    Raises:
        UsageError: there is too little time for a tenth of an epoch of the smallest network.
        DataError: there are no training images.
        ModelError: no network can be trained; the reason is that of the smallest one.
    """
    if ("train" not in data.parts and data.parts) or choose_recipe(data)[0] != _TRANSFER:
        return _plan_from_nothing(data, minutes, began, device, seed)
    end, pretrained = began + 60 * minutes, _Pretrained.of(data, device, seed)
    if pretrained.seconds > end - time.perf_counter():
        return _plan_from_nothing(data, minutes, began, device, seed)
    compared_on = _to_compare(data)
    head = Classifier(find_recipe(_TRANSFER, **compared_on), seed=seed, device=device.type)
    watch("recipe 'transfer':", head.fit_epochs(data))
    left = end - time.perf_counter()
    compared = "there is too little time to compare it with training from nothing"
    with suppress(UsageError):
        trial = _plan_from_nothing(data, _TRIAL * left / 60, time.perf_counter(), device, seed)
        network = Classifier(replace(trial.recipe, **compared_on), seed=seed, device=device.type)
        title = f"recipe '{trial.recipe.name}' from nothing, for a comparison in a third of the time:"
        watch(title, network.fit_epochs(data))
        logits, labels = network.validation_logits()
        better, numbers = compare(logits, head.validation_logits()[0], labels)
        if better:
            chosen = _plan_from_nothing(data, minutes, began, device, seed)
            return replace(chosen, compared=f"better than recipe 'transfer': {numbers}")
        compared = f"recipe '{trial.recipe.name}' from nothing, tried in a third of the time, was not better: {numbers}"
    if _is_few(data, {"validation"}):
        why = f"not fine-tuned, because a tenth of fewer than {FEW:,} images is too few to show a gain"
        return pretrained.plan(minutes, began, f"{compared}; {why}", tunes=False)
    return pretrained.plan(minutes, began, compared)


def _is_few(data: LabelledImages, judging: set[str]) -> bool:
    """Whether there are few images, and none in these parts."""
    return len(data.train) < FEW and not judging & data.parts.keys()


def _to_compare(data: LabelledImages) -> dict[str, Any]:
    """Settings of trainings that are only compared: of few images, more are held out."""
    if not _is_few(data, {"validation"}):
        return {"folds": 0}
    share = max(find_recipe(_TRANSFER).validation, min(1 / 3, _COMPARED / len(data.train)))
    return {"folds": 0, "validation": round(share, 3)}


def _plan_from_nothing(data: LabelledImages, minutes: float, began: float, device: torch.device, seed: int) -> Plan:
    """The largest network that can train for enough epochs; arguments and errors as for `plan`."""
    end = began + 60 * minutes
    work = _Work.of(data, find_recipe(DEFAULT).validation, seed)  # every candidate holds out the same fraction
    measured: dict[str, float] = {}
    needed, refused = 0.0, HangtagError("no network can be trained", "use other images")
    for name, network, least in _CANDIDATES:
        recipe, _ = adapt_to_pixels(find_recipe(name, network=network), math.prod(data.spec.shape))
        recipe, fewest, usual = _adapt(recipe, least, len(work.train))
        cost: _Cost | None = None
        try:
            with enough_memory(f"with the network '{network}'", "use smaller images: --size 64"):
                cost = _Cost.of(recipe, work, fewest, end, device, seed)
        except HangtagError as error:  # for example, the images are too small for it
            refused = type(error)(error.message, error.hint)  # the error itself would keep the network in memory
        if cost is None or device.type == "cuda":  # a timed network is freed without it
            gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if cost is None:
            continue
        measured[network] = cost.step
        epochs, rounds = (end - time.perf_counter() - cost.besides) / cost.epoch, 1
        if _is_few(data, {"validation", "test"}) and epochs >= FOLDS * usual:
            rounds = FOLDS  # one training on all images, and FOLDS on all but one fold of them
        epochs = min(epochs / rounds, _MOST_EPOCHS)
        fewest = max(fewest, 0.1)
        if epochs >= fewest:
            whole = max(1, -int(-epochs // 1))
            fraction = round(min(1.0, max(0.01, epochs - (whole - 1))), 3)
            expected = time.perf_counter() - began + rounds * epochs * cost.epoch + cost.besides
            folds = FOLDS if rounds > 1 else 0
            chosen = replace(recipe, epochs=whole, last_epoch_fraction=fraction, folds=folds)
            return Plan(chosen, minutes, expected, epochs, cost.epoch, measured)
        needed = 60 * minutes + (fewest - epochs) * cost.epoch
    if not measured:
        raise refused
    raise UsageError(
        f"--minutes {minutes:g} is too short: reading, minimal training, export and evaluation take {needed:.0f} s",
        f"use at least --minutes {1.1 * needed / 60:.2f}",
    )


@dataclass(frozen=True)
class _Pretrained:
    """What recipe "transfer" takes.

    Attributes:
        seconds: from here to the written report, without fine-tuning.
        epoch: seconds of an epoch of fine-tuning, with its validation.
        besides: seconds that fine-tuning adds after its epochs: the features change.
    """

    seconds: float
    epoch: float
    besides: float

    @classmethod
    def of(cls, data: LabelledImages, device: torch.device, seed: int) -> "_Pretrained":
        recipe = find_recipe(_TRANSFER)
        work = _Work.of(data, recipe.validation, seed)
        network = build_frozen(recipe.backbone, data.spec, len(data.class_names))
        few = part_of(data, work.train[: FINE_TUNING.batch_size])
        tuned = TunedNetwork(find_backbone(recipe.backbone), network, whole=device.type != "cpu").to(device)
        step = _step_seconds(tuned, FINE_TUNING, *few, seed, device, _MEASURED_SECONDS)
        steps = max(1, len(work.train) // FINE_TUNING.batch_size)
        forward, feature = _forward_seconds(tuned, few[0]), _forward_seconds(network, few[0])
        judged = 0 if work.judged == work.validation else work.judged
        images = len(work.train) + work.validation
        once = feature * (images + judged)
        return cls(
            seconds=_AFTERWARDS + once + feature * images,  # of mirror images
            epoch=_SLOWER * steps * step + forward * work.validation,
            besides=_AFTERWARDS + once,
        )

    def plan(self, minutes: float, began: float, compared: str, tunes: bool = True) -> Plan:
        """Recipe "transfer", and if it `tunes` as many epochs as fit; its features are computed already."""
        taken = time.perf_counter() - began + _AFTERWARDS
        epochs = min(int((60 * minutes - taken - self.besides) / self.epoch), _MOST_TUNING)
        if not tunes or epochs < _LEAST_TUNING:
            return Plan(find_recipe(_TRANSFER), minutes, taken, 1, 0.0, {}, compared)
        recipe, seconds = find_recipe(_TRANSFER, fine_tune=epochs), epochs * self.epoch + self.besides
        return Plan(recipe, minutes, taken + seconds, epochs, self.epoch, {}, compared)


@dataclass(frozen=True)
class _Work:
    """The images that a training and its judgement process.

    Attributes:
        train: (M,) positions of the training images in `data`.
        validation, judged: how many images are held out, and how many judge the model.
    """

    data: LabelledImages
    train: NDArray[np.int64]
    validation: int
    judged: int

    @classmethod
    def of(cls, data: LabelledImages, fraction: float, seed: int) -> "_Work":
        """The numbers of `splits.split_of`, without groups; reads no pixels."""
        train = data.positions("train") if "train" in data.parts else np.arange(0 if data.parts else len(data))
        if not len(train):
            raise DataError(
                f"{data.name} has no training images", "add a part called train, or give data without parts"
            )
        if "validation" in data.parts:
            validation = len(data.positions("validation"))
        else:
            split = stratified(data.labels[train], fraction, seed)
            train, validation = train[split.train], len(split.validation)
        return cls(data, train, validation, len(data.positions("test")) if "test" in data.parts else validation)


def _adapt(recipe: Recipe, least: float, images: int) -> tuple[Recipe, float, float]:
    """The recipe for this many images, its fewest and its usual epochs: few images take more, in smaller batches.

    The classifier changes nothing more, because the time determines the epochs, not a least number of steps.
    """
    adapted, _ = adapt_to_size(recipe, images)
    chosen = replace(recipe, batch_size=min(adapted.batch_size, images), min_steps=0)
    return chosen, min(least * adapted.epochs / recipe.epochs, _MOST_EPOCHS), min(adapted.epochs, _MOST_EPOCHS)


@dataclass(frozen=True)
class _Cost:
    """Seconds that one network takes.

    Attributes:
        step: of training.
        epoch: with its validation.
        besides: after training, and for the images that only the first epoch does not leave out.
    """

    step: float
    epoch: float
    besides: float

    @classmethod
    def of(
        cls, recipe: Recipe, work: _Work, fewest: float, end: float, device: torch.device, seed: int
    ) -> "_Cost | None":
        """Time the network; None if `fewest` epochs cannot be over by `end`, a time of `time.perf_counter`."""
        data, classes, area = work.data, len(work.data.class_names), work.data.spec.height * work.data.spec.width
        recipe = replace(
            recipe, balance=choose_balance(recipe, np.bincount(data.labels[work.train], minlength=classes))
        )
        network = build_network(recipe.network, data.spec, classes, seed).to(device)
        channels_last(network)
        whole, rest = divmod(len(work.train), recipe.batch_size)
        steps = whole + bool(rest and recipe.last_partial_batch)
        kept = recipe.mean_fraction_kept

        def timed(batch: int, count: int, seconds: float) -> float:
            part = part_of(data, work.train[:count])
            return _step_seconds(network, replace(recipe, batch_size=batch), *part, seed, device, seconds)

        fewest_steps = steps * (1 + (fewest - 1) * kept)
        for small in _SMALL_BATCHES if fewest and device.type == "cpu" else ():  # on a GPU small batches take as long
            fastest = timed(small, small, 0.0) if small < recipe.batch_size else 0.0
            if fewest_steps * fastest > end - _AFTERWARDS - time.perf_counter():
                return None
        seconds = max(_MEASURED_SECONDS, min(_MOST_MEASURED, _MEASURED_SHARE * (end - time.perf_counter())))
        step = timed(recipe.batch_size, max(recipe.batch_size, _TIMED_PIXELS // area), seconds)
        images, _ = part_of(data, work.train[: recipe.batch_size])
        forward = _forward_seconds(network, images)
        on_cpu = forward if device.type == "cpu" else _forward_seconds(network.cpu(), images)
        views = 2 if recipe.uses_flip_tta else 1
        samples = sum(min(each, len(work.train)) for each in (VERIFIED, VERIFIED, MOST_DESCRIBED, KEPT))
        passes = 2 * work.judged + work.validation + samples  # the network and the file both judge
        epoch = _SLOWER * steps * step
        return cls(
            step=step,
            epoch=epoch * kept + work.validation * forward,
            besides=_AFTERWARDS + views * on_cpu * passes + epoch * (1 - kept),
        )


def _step_seconds(
    network: nn.Module, recipe: Recipe, images: Images | MappedRows, labels: NDArray[np.int64], seed: int,
    device: torch.device, seconds: float,
) -> float:  # fmt: skip
    """Median over rounds of steps that take about `seconds` in total, at least one; the first steps do not count."""
    batches = Batches(images, labels, recipe, seed, device)
    weighted = recipe.balance == "weights" or batches.pruning is not None
    steps = steps_for(network, recipe, batches.batch_size, device)

    def timed(count: int) -> float:
        """Seconds of one of `count` steps, with its share of preparing a chunk of batches."""
        began = time.perf_counter()
        with torch_settings(steps.torch_threads):
            chunk = batches.chunk(1, 0)
            prepared = time.perf_counter()
            images, labels, weights = chunk.first(count * batches.batch_size)
            taken = -(-len(labels) // batches.batch_size)
            if weighted and weights is None:
                weights = torch.ones(len(labels), device=device)
            steps.run(images, labels, [recipe.learning_rate] * taken, weights)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (prepared - began) * batches.batch_size / len(chunk.labels) + (time.perf_counter() - prepared) / taken

    for _ in range(1 if device.type == "cpu" else WARM_UP + 2):  # on a GPU the last is a replay
        timed(1)
    end = time.perf_counter() + seconds
    rounds = [timed(1)]
    count = max(1, int(0.2 * _MEASURED_SECONDS / rounds[0]))
    while time.perf_counter() < end:
        rounds.append(timed(count))
    return statistics.median(rounds)


def _forward_seconds(network: nn.Module, images: Images | MappedRows) -> float:
    """Seconds per image of a forward pass; the first pass does not count."""
    predict_logits(network, images)
    began = time.perf_counter()
    predict_logits(network, images)
    return (time.perf_counter() - began) / len(images)
