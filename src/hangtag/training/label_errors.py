"""Labels that are probably wrong, found by models that did not train on the images they judge.

Up to 2,000 images are judged by kernel regressions (`descriptors.py`), more by quickly trained networks. Their
probabilities are calibrated together with a share of wrong labels: a given label is the true one, or, with a small
probability, any other class. Only if this explains the labels better than calibration alone (a likelihood ratio test)
is any label suspected. Otherwise the model contradicts labels no more often than its own probabilities say, which is
no reason to suspect one.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from hangtag.data.audit import LabelErrorFinder, LabelErrors
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import merge_groups
from hangtag.progress import Progress
from hangtag.training.descriptors import descriptor_scores
from hangtag.training.engine.build import build_network
from hangtag.training.engine.guard import enough_memory
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.loop import Epoch, choose_device, train
from hangtag.training.engine.recipes import adapt_to_size, find_recipe

__all__ = [
    "LEARNING", "LabelFold", "LabelFoldRunner", "find_label_errors", "folds_in_turn", "label_error_finder",
]  # fmt: skip

LEARNING = "learning from images"
"""What progress calls the training of networks."""

_FOLDS = 3
_LEAST_IMAGES = 10  # of a class; fewer images teach too little to judge a label
_MOST_DESCRIBED = 2000  # images that regressions judge
_LEAST_AGREEMENT = 0.5  # a model that contradicts more labels than it supports judges none
_SUGGESTIVE, _CONVINCING = 1.64, 3.84  # likelihood ratios; at most 10 % and 2.5 % of sets without errors exceed them
_SUSPECT = 0.05  # the lowest probability of an error that is reported
_MOST_SUSPECTS = 0.1  # of the images that were judged
_RECIPE = replace(
    find_recipe("fast"),
    epochs=2,  # of 40,000 images in each fold: average precision 0.92 at 3 % planted flips; docs/log.md
    min_steps=150,
    validation=0.0,
    prune_fraction=0.0,
    flip_tta=False,
)


@dataclass(frozen=True, eq=False)
class LabelFold:
    """A network to train on some images and to ask about others.

    Attributes:
        number: from 0.
        train, judged: (M,), (J,) positions of the images.
        labels: (M,) of the images to train on, from 0 to `classes` - 1.
        seed: of the network.
    """

    number: int
    train: NDArray[np.int64]
    judged: NDArray[np.int64]
    labels: NDArray[np.int64]
    classes: int
    seed: int

    def scores(
        self, data: LabelledImages, device: str = "auto", report: Callable[[Epoch], None] = lambda _: None
    ) -> NDArray[np.float64]:
        """(J, K) logits of the judged images; `report` is called several times a second."""
        network = build_network("cnn", data.spec, self.classes, self.seed)
        recipe, _ = adapt_to_size(_RECIPE, len(self.train), defaults=_RECIPE)
        torch_device = choose_device(device)
        for epoch in train(network, data.images[self.train], self.labels, recipe, self.seed, device=torch_device):
            report(epoch)
        logits: NDArray[np.float64] = predict_logits(network, data.images[self.judged]).to(torch.float64).numpy()
        return logits


LabelFoldRunner = Callable[[LabelledImages, Sequence[LabelFold], Progress | None], Iterator[tuple[int, NDArray[Any]]]]
"""Trains the networks of folds; yields the number and scores of each as it ends, in any order."""


def label_error_finder(seed: int = 0, device: str = "auto", run: LabelFoldRunner | None = None) -> LabelErrorFinder:
    """`find_label_errors` with these settings, for `audit`; raises UsageError if the device is not available."""
    choose_device(device)
    return lambda data, groups, progress: find_label_errors(data, groups, seed, device, progress, run)


def find_label_errors(
    data: LabelledImages,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
    run: LabelFoldRunner | None = None,
) -> LabelErrors:
    """Rank the labels of `data` by how little their images support them.

    Equal images with one label are one piece of evidence: the first is judged, and the others share its result.

    Args:
        groups: (N,) int64; images of one group, of one group of the data, and equal images are judged by a model that
            trained on none of them.
        progress: called with (the current activity, steps done, steps in total).
        run: trains the networks, instead of one after the other in this process.

    Raises:
        ModelError: out of memory.
    """
    classes = len(data.class_names)
    rows = np.column_stack([data.labels.astype(np.uint64), data.contents])
    _, order, alike = np.unique(rows, axis=0, return_index=True, return_inverse=True)  # by content, not as read
    enough = np.bincount(data.labels[order], minlength=classes) >= _LEAST_IMAGES
    skipped_classes = tuple(name for name, fine in zip(data.class_names, enough, strict=True) if not fine)
    usable = order[enough[data.labels[order]]]
    probabilities = np.full((len(data), classes), 1 / classes, np.float32)
    wrong = np.zeros(len(data))
    contents = np.unique(data.contents, axis=0, return_inverse=True)[1].reshape(-1)
    together = merge_groups(contents, *(each for each in (groups, data.groups) if each is not None))
    if enough.sum() < 2 or len(np.unique(together[usable])) < _FOLDS:
        return LabelErrors(np.zeros(0, np.int64), wrong, data.labels, probabilities, 0.0, skipped_classes)
    present = np.flatnonzero(enough)
    labels = np.searchsorted(present, data.labels[usable])
    with enough_memory("while checking labels", "use smaller images: --size 64; or audit without labels: --no-labels"):
        if len(usable) <= _MOST_DESCRIBED:
            both = descriptor_scores(data.images[usable], labels, together[usable], len(present), progress)
            calibrated = [log_softmax(_fitted(each, labels).temperature * each, axis=1) for each in both]
            scores = np.sum(calibrated, axis=0)
        else:
            run = run or folds_in_turn(device)
            scores = _network_scores(data, usable, labels, together[usable], len(present), seed, run, progress)
    agreement = float((scores.argmax(axis=1) == labels).mean())
    without, fitted = _fitted(scores, labels), _fitted(scores, labels, with_errors=True)
    probabilities[np.ix_(usable, present)] = softmax(fitted.temperature * scores, axis=1)
    probabilities[np.ix_(usable, np.flatnonzero(~enough))] = 0
    wrong[usable] = fitted.wrong
    alike = order[alike.reshape(-1)]
    wrong, probabilities = wrong[alike], probabilities[alike]
    suggested = probabilities.argmax(axis=1)
    found = np.zeros(0, np.int64)
    judged = agreement >= _LEAST_AGREEMENT
    evidence = 2 * (fitted.log_likelihood - without.log_likelihood)
    if judged and evidence > _SUGGESTIVE:
        ranked = usable[np.argsort(-fitted.wrong, kind="stable")][: round(_MOST_SUSPECTS * len(usable))]
        found = ranked[(wrong[ranked] >= _SUSPECT) & (suggested[ranked] != data.labels[ranked])]
    convincing = judged and evidence > _CONVINCING
    return LabelErrors(found, wrong, suggested, probabilities, agreement, skipped_classes, judged, convincing)


def folds_in_turn(device: str = "auto") -> LabelFoldRunner:
    """A runner that trains one network after the other in this process."""

    def run(
        data: LabelledImages, folds: Sequence[LabelFold], progress: Progress | None
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        for done, fold in enumerate(folds):

            def report(epoch: Epoch, done: int = done) -> None:
                if progress:
                    total = len(folds) * epoch.epochs * epoch.steps
                    steps = (done * epoch.epochs + epoch.number - 1) * epoch.steps + epoch.step
                    progress(LEARNING, min(steps, total), total)

            yield fold.number, fold.scores(data, device, report)

    return run


def _network_scores(
    data: LabelledImages, usable: NDArray[np.int64], labels: NDArray[np.int64], groups: NDArray[np.int64],
    classes: int, seed: int, run: LabelFoldRunner, progress: Progress | None,
) -> NDArray[np.float64]:  # fmt: skip
    """(M, K) out-of-fold logits of the usable images."""
    from sklearn.model_selection import StratifiedGroupKFold

    scores = np.zeros((len(usable), classes))
    splits = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(usable, labels, groups)
    places = {number: (others, fold) for number, (others, fold) in enumerate(splits) if len(fold)}
    folds = [
        LabelFold(number, usable[others], usable[fold], labels[others], classes, seed + number)
        for number, (others, fold) in places.items()
    ]
    for number, found in run(data, folds, progress):
        scores[places[number][1]] = found
    return scores


@dataclass(frozen=True, eq=False)
class _Fitted:
    """How probable the labels are, given scores.

    Attributes:
        share: the estimated share of wrong labels.
        wrong: (M,) the probability that a label is wrong.
    """

    log_likelihood: float
    temperature: float
    share: float
    wrong: NDArray[np.float64]


def _fitted(scores: NDArray[np.float64], labels: NDArray[np.int64], with_errors: bool = False) -> _Fitted:
    """The most likely factor for (M, K) scores and, if wanted, share of wrong labels, of at most a half.

    No probability below 1 / (M K) is believed: M images cannot show how rare something rarer is.
    """
    count, classes = scores.shape
    floor, rows = 1 / count, np.arange(count)

    def parts(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        true = softmax(scores * np.exp(values[0]), axis=1)[rows, labels] * (1 - floor) + floor / classes
        share = expit(values[1]) / 2 if with_errors else 0.0
        return (1 - share) * true, share * (1 - true) / (classes - 1)

    def cost(values: NDArray[np.float64]) -> float:
        return -float(np.log(np.add(*parts(values))).sum())

    starts = [(factor, share) for factor in (-1.0, 1.0) for share in ((-6.0, -2.0) if with_errors else (0.0,))]
    tries = [minimize(cost, start[: 1 + with_errors], method="Nelder-Mead") for start in starts]
    best = min(tries, key=lambda each: each.fun)
    right, wrong = parts(best.x)
    share = float(expit(best.x[1]) / 2) if with_errors else 0.0
    return _Fitted(-float(best.fun), float(np.exp(best.x[0])), share, wrong / (right + wrong))
