"""Labels that are probably wrong, found by networks that never saw the picture they judge.

Out-of-fold predictions of a quickly trained network of ours, ranked by cleanlab (confident learning; Northcutt, Jiang
and Chuang, 2021). The fewer images, the more passes each network takes.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hangtag.data.audit import LabelErrorFinder, LabelErrors
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import in_order_of_appearance, merge_groups
from hangtag.progress import Progress
from hangtag.training.engine.build import build_network
from hangtag.training.engine.guard import enough_memory
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.loop import choose_device, train
from hangtag.training.engine.recipes import adapt_to_size, find_recipe

__all__ = ["find_label_errors", "label_error_finder"]

_EPOCHS = 2  # of 40,000 images in each fold: average precision 0.92 at 3 % planted flips; docs/log.md
_FOLDS = 3
_LEAST_STEPS = 150
_LEAST = 10  # images of a class; from fewer nothing is learned that could judge a label
_DOING = "while labels were judged"
_HINT = "use smaller pictures: --size 64; or look for everything else: --no-labels"


def label_error_finder(seed: int = 0, device: str = "auto") -> LabelErrorFinder:
    """`suspect_labels` with these settings, for `audit`."""
    return lambda data, groups, progress: find_label_errors(data, groups, seed, device, progress)


def find_label_errors(
    data: LabelledImages,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> LabelErrors:
    """Rank the labels of `data` by how little its own pictures support them.

    Args:
        groups: (N,) int64; images of one group are judged by a network that saw none of them, as are equal images.
        progress: called with (what is going on, done, in all).

    Raises:
        ModelError: out of memory.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    classes = len(data.class_names)
    order = data.order
    contents = np.unique(data.contents, axis=0, return_inverse=True)[1].reshape(-1)
    together = merge_groups(contents, *([groups] if groups is not None else []))
    enough = data.counts() >= _LEAST
    left_out = tuple(name for name, fine in zip(data.class_names, enough, strict=True) if not fine)
    usable = order[enough[data.labels[order]]]
    if enough.sum() < 2:
        none, even = np.zeros(0, np.int64), np.full((len(data), classes), 1 / classes, np.float32)
        return LabelErrors(none, np.ones(len(data)), data.labels, even, 0.0, left_out)
    fold = _folds(data.labels[usable], together[usable], seed)
    probabilities = np.full((len(data), classes), 1 / classes, np.float32)
    where = choose_device(device)
    steps = 0
    for number in range(_FOLDS):
        learned, judged = usable[fold != number], usable[fold == number]
        if not len(judged):
            continue
        with enough_memory(_DOING, _HINT):
            network = build_network("cnn", data.spec, classes, seed + number)
            recipe = replace(find_recipe("fast"), epochs=_EPOCHS, min_steps=_LEAST_STEPS, validation=0.0)
            recipe = replace(recipe, prune_fraction=0.0, flip_tta=False)
            recipe, _ = adapt_to_size(recipe, len(learned), defaults=recipe)
            for epoch in train(
                network, data.images[learned], data.labels[learned], recipe, seed + number, device=where
            ):
                if progress:
                    in_all = _FOLDS * recipe.epochs * epoch.steps
                    steps = (number * recipe.epochs + epoch.number - 1) * epoch.steps + epoch.step
                    progress("learning from pictures", min(steps, in_all), in_all)
            logits = predict_logits(network, data.images[judged])
        probabilities[judged] = torch.softmax(logits, dim=1).numpy()
    quality = np.ones(len(data))
    labels = data.labels[usable]
    quality[usable] = get_label_quality_scores(labels, probabilities[usable], method="self_confidence")
    present = np.flatnonzero(enough)
    compact = np.searchsorted(present, labels)
    rows = probabilities[np.ix_(usable, present)]
    rows = rows / rows.sum(axis=1, keepdims=True)
    ranked = find_label_issues(compact, rows, return_indices_ranked_by="self_confidence", n_jobs=1)
    suggested = probabilities.argmax(axis=1)
    agree = float((suggested[usable] == labels).mean())
    return LabelErrors(usable[np.asarray(ranked, np.int64)], quality, suggested, probabilities, agree, left_out)


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """(N,) a fold for each image: every class spread evenly, groups together."""
    random = np.random.default_rng(seed)
    fold = np.zeros(len(labels), np.int64)
    _, firsts, group_of, sizes = np.unique(
        in_order_of_appearance(groups), return_index=True, return_inverse=True, return_counts=True
    )
    of_group = np.zeros(len(firsts), np.int64)
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels[firsts] == label))
        before = np.cumsum(sizes[members]) - sizes[members]
        of_group[members] = np.minimum(before * _FOLDS // max(1, int(sizes[members].sum())), _FOLDS - 1)
    fold[:] = of_group[group_of.reshape(-1)]
    return fold
