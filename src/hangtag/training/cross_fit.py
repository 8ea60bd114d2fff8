"""Cross-fitting: every image is trained on, and every image judges networks that have not seen it.

A copy of the classifier is fitted on all folds but one and answers for the images of that one. These answers give the
accuracy, calibration, thresholds and OOD limits of the final model, which is trained on all images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hangtag.data.folds import FOLDS, Folds
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import Split
from hangtag.errors import UsageError
from hangtag.evaluation.cross_validation import CrossValidation
from hangtag.files import make_folder, write_bytes
from hangtag.model.artifact import OUTPUT
from hangtag.model.calibration import Calibrator, Floats, cross_fitted, softmax
from hangtag.model.guarantees import Guarantees, better_than_chance, fit_guarantees
from hangtag.model.ood import Distances, OodDetector, fit_cross_fitted_detector, measure_distances, measured
from hangtag.pictures import Images
from hangtag.training.engine.build import build_network
from hangtag.training.engine.export import FoldHeads
from hangtag.training.engine.inference import Features, extract_features
from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.networks import NETWORKS
from hangtag.training.engine.recipes import Recipe, adapt_to_size, is_given

if TYPE_CHECKING:
    from hangtag.training.classifier import Classifier

__all__ = [
    "FEW",
    "CrossFit",
    "CrossFitting",
    "Fitted",
    "FoldAnswers",
    "FoldRunner",
    "KeptFolds",
    "Progress",
    "choose_folds",
    "cross_fit",
    "in_turn",
    "with_checked_folds",
    "with_folds",
    "without_own_split",
]

FEW = 2000
"""With fewer images than this and nothing else to judge the model on, it is cross-fitted if there is time."""

_MOST_WORK = 6e12  # multiplications and additions of all folds: about a minute on two cores; docs/log.md

Progress = Callable[[int, int, Epoch], None]
"""Called with the number of a fold from 1, the number of folds, and the state of its training."""


class _Trainable(Protocol):
    """What is used of a `Classifier`."""

    recipe_: Recipe
    module_: nn.Module

    @property
    def shipped_(self) -> nn.Module: ...
    @property
    def features_device_(self) -> torch.device: ...
    def fit_epochs(
        self, X: LabelledImages, y: None = None, stop: Callable[[], bool] = ..., *, sample_weight: Any = None
    ) -> Iterator[Epoch]: ...


def with_checked_folds(recipe: Recipe, data: LabelledImages) -> tuple[Recipe, int]:
    """The recipe, which holds nothing out if there are folds, and `_checked_folds`."""
    folds = _checked_folds(recipe, data)
    return replace(recipe, validation=0.0) if folds else recipe, folds


def _checked_folds(recipe: Recipe, data: LabelledImages) -> int:
    """The number of folds that the recipe asks for, 0 for none; if it leaves the choice, only what is cheap has folds.

    Raises:
        UsageError: the data has a validation part.
    """
    if recipe.folds is None and recipe.backbone:
        return choose_folds(recipe, data)[0]
    folds = recipe.folds or 0
    if folds and "validation" in data.parts:
        raise UsageError(
            f"folds={folds} cannot be used: {data.name} has a validation part", "leave folds out, or set it to 0"
        )
    return folds


def choose_folds(recipe: Recipe, data: LabelledImages) -> tuple[int, str]:
    """How many folds a training should have, 0 for none; and why it has none, empty where nobody would expect any.

    The work is counted, not timed, so that the same command always does the same.

    Raises:
        UsageError: folds were chosen, and the data has a validation part.
    """
    if recipe.folds is not None:
        return _checked_folds(recipe, data), ""
    train, held_out = data.train, {"validation"} if recipe.backbone else {"test", "validation"}
    if (
        held_out & data.parts.keys()
        or len(train) >= FEW
        or recipe.patience
        or recipe.fine_tune
        or (recipe.validation and is_given(recipe, "validation"))
    ):
        return 0, ""
    if recipe.backbone:
        return FOLDS, ""  # the features are computed once
    if recipe.network not in NETWORKS:
        why = "not cross-validated: how long a custom network takes is not known"
        return 0, f"{why}; --folds {FOLDS} cross-validates anyway"
    network = build_network(recipe.network, data.spec, len(data.class_names), 0)
    adapted, _ = adapt_to_size(recipe, len(train))
    images = adapted.epochs * adapted.mean_fraction_kept * len(train) * (FOLDS - 1)
    if 3 * images * _work_per_image(network, data.spec.shape) > _MOST_WORK:  # backwards takes twice as much as forwards
        instead = f"; {recipe.validation:.0%} of the images are held out instead" if recipe.validation else ""
        why = f"not cross-validated, because training {FOLDS} more networks would take long{instead}"
        return 0, f"{why}; --folds {FOLDS} cross-validates anyway"
    return FOLDS, ""


def _work_per_image(network: nn.Module, shape: tuple[int, ...]) -> int:
    """Multiplications and additions of one pass."""
    height, width, *channels = shape
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, *(channels or [1]), height, width))
    return int(counter.get_total_flops())


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a cross-validation says about the final model.

    Attributes:
        answers: the out-of-fold answers, which judge it.
    """

    guarantees: Guarantees
    ood_detector: OodDetector
    answers: CrossValidation


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The answers of each fold's network for the J images of the fold, and what is known about these images.

    Attributes:
        images: all N training images.
        positions, labels, folds, groups: (J,) of the images that were held out.
        held_out: (J,) distances and logits.
        heads: the last layers of the folds' networks, if these otherwise equal the final network.
    """

    images: LabelledImages
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]
    held_out: Distances
    heads: FoldHeads | None

    @property
    def count(self) -> int:
        """Number of finished folds."""
        return len(np.unique(self.folds))

    def fitted(
        self, images: Images, trained: Features, labels: NDArray[np.int64], class_names: tuple[str, ...]
    ) -> Fitted:
        """Guarantees and OOD detector for the final model.

        Args:
            images: (M, H, W[, 3]) training images, all or a sample.
            trained: their features from the final network.
            labels: (M,) indices of their classes.
        """
        logits = self.held_out.logits
        detector, scores = fit_cross_fitted_detector(images, trained.descriptor, labels, self.held_out, self.folds)
        calibrator, out_of_fold = cross_fitted(logits, self.labels)
        uncalibrated = softmax(logits)
        if not better_than_chance(uncalibrated, self.labels):  # a map could only learn to turn the answers round
            calibrator, out_of_fold = Calibrator.none(len(class_names)), uncalibrated
        guarantees = fit_guarantees(
            out_of_fold, self.labels, calibrator, class_names, True, out_of_fold, uncalibrated, self.folds,
            self.heads is not None,
        )  # fmt: skip
        rank = np.empty(len(self.images), np.int64)
        rank[self.images.order] = np.arange(len(self.images))
        outputs: dict[str, Floats] = {
            OUTPUT: out_of_fold,
            "uncalibrated": uncalibrated,
            "ood_score": detector.shares_below(scores),
        }
        rows = {name: values.astype(np.float32) for name, values in outputs.items()}
        return Fitted(guarantees, detector, CrossValidation(rank[self.positions], self.folds, self.groups, rows))


@dataclass(frozen=True, eq=False)
class FoldAnswers:
    """What the network of one fold, trained without its J images, says about them.

    Attributes:
        number: of the fold, from 0.
        epochs: how many it was trained for, at most.
        positions: (J,) of the images that it judges.
        distances: (J,) distances and logits.
        state: the weights of the network, by name.
    """

    number: int
    epochs: int
    positions: NDArray[np.int64]
    distances: Distances
    state: Mapping[str, torch.Tensor]

    def to_bytes(self) -> bytes:
        """As safetensors."""
        arrays = {
            "positions": self.positions,
            **{f"distances.{name}": each for name, each in vars(self.distances).items()},
        }
        tensors = {name: torch.from_numpy(np.ascontiguousarray(each)) for name, each in arrays.items()}
        tensors |= {f"state.{name}": each.cpu().clone().contiguous() for name, each in self.state.items()}
        return safetensors.torch.save(tensors, {"number": str(self.number), "epochs": str(self.epochs)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "FoldAnswers":
        """Raises ValueError or KeyError for anything but the result of `to_bytes`."""
        tensors = safetensors.torch.load(content)
        header = msgspec.json.decode(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
        state = {name.removeprefix("state."): each for name, each in tensors.items() if name.startswith("state.")}
        distances = Distances(*(tensors[f"distances.{name}"].numpy() for name in ("pixels", "features", "logits")))
        return cls(int(header["number"]), int(header["epochs"]), tensors["positions"].numpy(), distances, state)


@dataclass(frozen=True, eq=False)
class CrossFitting:
    """A cross-validation to do.

    Attributes:
        unfitted: makes a classifier with the settings of the final one for this many images.
        images: all N training images.
        folds: of these images.
        weights: (N,) how much each image counts, or None.
        epochs: how many each network is trained for, at most.
    """

    unfitted: "Callable[[int], Classifier]"
    images: LabelledImages
    folds: Folds
    weights: NDArray[np.float64] | None
    epochs: int

    def judged(self, number: int) -> NDArray[np.int64]:
        """(J,) the positions of the images that a fold judges."""
        judged: NDArray[np.int64] = self.folds.judged[self.folds.of[self.folds.judged] == number]
        return judged

    @cached_property
    def statistics(self) -> NDArray[np.float32]:
        """The `measured` pixels of all images."""
        return measured(self.images.images)

    def fit(self, number: int, stop: Callable[[], bool], progress: Progress | None = None) -> FoldAnswers | None:
        """Train a network without one fold, and let it answer for the fold; None if it was stopped."""
        rest = np.flatnonzero(self.folds.of != number)
        part, weights = self.images.take(rest), None if self.weights is None else self.weights[rest]
        trained = self.unfitted(len(part))
        try:
            for epoch in trained.fit_epochs(part, stop=stop, sample_weight=weights):
                if progress is not None:
                    progress(number + 1, self.folds.count, epoch)
                if epoch.finished and epoch.number >= self.epochs:
                    break
        except KeyboardInterrupt:  # by `stop`, while features were computed
            if not stop():
                raise
        if stop():
            return None
        judged, statistics = self.judged(number), self.statistics
        held_out, others = (
            extract_features(trained.shipped_, self.images.images[at], trained.features_device_)
            for at in (judged, rest)
        )
        distances = measure_distances(
            statistics[rest], others.descriptor, self.images.labels[rest], statistics[judged], held_out.descriptor,
            held_out.logits,
        )  # fmt: skip
        return FoldAnswers(number, self.epochs, judged, distances, trained.module_.state_dict())


FoldRunner = Callable[[CrossFitting, Sequence[int]], Iterator[FoldAnswers]]
"""Fits folds, given by their numbers; yields each as it ends, in any order, and ends early if it is stopped."""


class KeptFolds:
    """The answers of finished folds in a folder, so that an interrupted cross-validation continues with the others."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, fitting: CrossFitting) -> list[FoldAnswers]:
        """Those that belong to this cross-validation; damaged and other files are ignored."""
        found = []
        for number in range(fitting.folds.count):
            with suppress(OSError, ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError):
                answers = FoldAnswers.from_bytes(self._path(number).read_bytes())
                is_of_fold = (answers.number, answers.epochs) == (number, fitting.epochs)
                if is_of_fold and np.array_equal(answers.positions, fitting.judged(number)):
                    found.append(answers)
        return found

    def keep(self, answers: FoldAnswers) -> None:
        make_folder(self.folder)
        write_bytes(self._path(answers.number), answers.to_bytes())

    def remove(self) -> None:
        """Remove the files of a cross-validation that is complete."""
        with suppress(OSError):
            for path in self.folder.glob("*.safetensors"):
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.safetensors"


def cross_fit(
    final: _Trainable, fitting: CrossFitting, run: FoldRunner, kept: KeptFolds | None = None
) -> CrossFit | None:
    """Fit all folds, and join their answers; None if stopped before the first fold ended.

    Args:
        final: the classifier that was trained on all images.
        run: fits those folds that are not in `kept`.
        kept: the folds that an earlier process finished, and where others are kept.
    """
    images, folds = fitting.images, fitting.folds
    done = {each.number: each for each in (kept.find(fitting) if kept is not None else [])}
    for answers in run(fitting, [number for number in range(folds.count) if number not in done]):
        done[answers.number] = answers
        if kept is not None:
            kept.keep(answers)
    if not done:
        return None
    fitted = [done[number] for number in sorted(done)]
    order = np.argsort(np.concatenate([each.positions for each in fitted]), kind="stable")
    positions = np.concatenate([each.positions for each in fitted])[order]
    joined = (
        np.concatenate([getattr(each.distances, name) for each in fitted])[order]
        for name in ("pixels", "features", "logits")
    )
    group_of = np.full(len(images), -1, np.int64)
    group_of[folds.judged] = folds.groups
    heads = [head for each in fitted if (head := _head(each.state, final.module_)) is not None]
    return CrossFit(
        images,
        positions,
        images.labels[positions],
        folds.of[positions],
        group_of[positions],
        Distances(*joined),
        FoldHeads(*(np.stack(each) for each in zip(*heads, strict=True))) if len(heads) == folds.count else None,
    )


def in_turn(stop: Callable[[], bool], progress: Progress | None = None) -> FoldRunner:
    """A runner that fits one fold after the other in this process.

    Args:
        stop: called several times per second; when it returns True, the folds that are finished count.
    """

    def run(fitting: CrossFitting, numbers: Sequence[int]) -> Iterator[FoldAnswers]:
        for number in numbers:
            answers = fitting.fit(number, stop, progress)
            if answers is None:
                return
            yield answers

    return run


def with_folds(split: Split, folds: Folds) -> Split:
    """The split that records a cross-validation."""
    return replace(
        split, folds=folds.count, judged=len(folds.judged), fingerprint=folds.fingerprint,
        notes=(*split.notes, *folds.notes),
    )  # fmt: skip


def without_own_split(recipe: Recipe, images: int) -> Recipe:
    """The recipe for one fold, which holds nothing out, with a batch that fits."""
    return replace(recipe, folds=0, validation=0.0, batch_size=min(recipe.batch_size, images))


def _head(own: Mapping[str, torch.Tensor], final: nn.Module) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Weights (K, E) and bias (K,) of a network's last linear layer, from its state; None if more than these differ."""
    name = next((name for name, part in reversed([*final.named_modules()]) if isinstance(part, nn.Linear)), None)
    other = final.state_dict()
    if name is None or own.keys() != other.keys() or f"{name}.bias" not in own:
        return None
    last = (f"{name}.weight", f"{name}.bias")
    if any(not torch.equal(own[key].cpu(), other[key].cpu()) for key in own if key not in last):
        return None
    weight, bias = (own[key].detach().cpu().numpy().astype(np.float32) for key in last)
    return weight, bias
