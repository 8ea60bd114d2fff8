"""Labels that are probably wrong, found by networks that did not train on the images they judge.

Out-of-fold predictions of a quickly trained network, ranked by cleanlab (confident learning; Northcutt, Jiang and
Chuang, 2021). The fewer images, the more epochs each network trains.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hangtag.data.audit import LabelErrorFinder, LabelErrors
from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import merge_groups
from hangtag.progress import Progress
from hangtag.training.engine.build import build_network
from hangtag.training.engine.guard import enough_memory
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.loop import choose_device, train
from hangtag.training.engine.recipes import adapt_to_size, find_recipe

__all__ = ["find_label_errors", "label_error_finder"]

_FOLDS = 3
_LEAST_IMAGES = 10  # of a class; fewer images teach too little to judge a label
_RECIPE = replace(
    find_recipe("fast"),
    epochs=2,  # of 40,000 images in each fold: average precision 0.92 at 3 % planted flips; docs/log.md
    min_steps=150,
    validation=0.0,
    prune_fraction=0.0,
    flip_tta=False,
)


def label_error_finder(seed: int = 0, device: str = "auto") -> LabelErrorFinder:
    """`find_label_errors` with these settings, for `audit`."""
    return lambda data, groups, progress: find_label_errors(data, groups, seed, device, progress)


def find_label_errors(
    data: LabelledImages,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Progress | None = None,
) -> LabelErrors:
    """Rank the labels of `data` by how little their images support them.

    Args:
        groups: (N,) int64; images of one group, and equal images, are judged by a network that trained on none of them.
        progress: called with (the current activity, steps done, steps in total).

    Raises:
        ModelError: out of memory.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores
    from sklearn.model_selection import StratifiedGroupKFold

    classes = len(data.class_names)
    order = data.order  # by content, so that the order of reading does not matter
    enough = data.counts() >= _LEAST_IMAGES
    skipped_classes = tuple(name for name, fine in zip(data.class_names, enough, strict=True) if not fine)
    usable = order[enough[data.labels[order]]]
    probabilities = np.full((len(data), classes), 1 / classes, np.float32)
    quality = np.ones(len(data))
    contents = np.unique(data.contents, axis=0, return_inverse=True)[1].reshape(-1)
    together = merge_groups(contents, *([groups] if groups is not None else []))
    if enough.sum() < 2 or len(np.unique(together[usable])) < _FOLDS:
        return LabelErrors(np.zeros(0, np.int64), quality, data.labels, probabilities, 0.0, skipped_classes)
    labels = data.labels[usable]
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(usable, labels, together[usable])
    torch_device = choose_device(device)
    for number, (others, fold) in enumerate(folds):
        trained, judged = usable[others], usable[fold]
        if not len(judged):
            continue
        with enough_memory(
            "while checking labels", "use smaller images: --size 64; or audit without labels: --no-labels"
        ):
            network = build_network("cnn", data.spec, classes, seed + number)
            recipe, _ = adapt_to_size(_RECIPE, len(trained), defaults=_RECIPE)
            for epoch in train(
                network, data.images[trained], data.labels[trained], recipe, seed + number, device=torch_device
            ):
                if progress:
                    total = _FOLDS * recipe.epochs * epoch.steps
                    steps = (number * recipe.epochs + epoch.number - 1) * epoch.steps + epoch.step
                    progress("learning from images", min(steps, total), total)
            logits = predict_logits(network, data.images[judged])
        probabilities[judged] = torch.softmax(logits, dim=1).numpy()
    quality[usable] = get_label_quality_scores(labels, probabilities[usable], method="self_confidence")
    present = np.flatnonzero(enough)
    rows = probabilities[np.ix_(usable, present)]
    rows = rows / rows.sum(axis=1, keepdims=True)
    ranked = find_label_issues(
        np.searchsorted(present, labels), rows, return_indices_ranked_by="self_confidence", n_jobs=1
    )
    suggested = probabilities.argmax(axis=1)
    agreement = float((suggested[usable] == labels).mean())
    positions = usable[np.asarray(ranked, np.int64)]
    return LabelErrors(positions, quality, suggested, probabilities, agreement, skipped_classes)
