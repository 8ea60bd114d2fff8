"""The seven tasks in hangtag; see tasks.py."""

from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.model_selection import GridSearchCV
from torch import nn
from torch.nn.functional import cross_entropy

import hangtag


def search(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    clf = hangtag.ImageClassifier("quick", epochs=5)
    grid = GridSearchCV(clf, {"learning_rate": [0.001, 0.01], "batch_size": [16, 64]}, cv=3).fit(images, labels)
    return grid.best_params_, grid.score(test_images, test_labels)


def pruning(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    curves: list[Any] = []
    for rate in 10 ** np.random.default_rng(0).uniform(-4, -1, 10):
        clf = hangtag.ImageClassifier("quick", epochs=8, learning_rate=rate)
        curve: list[Any] = []
        for epoch in clf.fit_epochs(images, labels):
            if epoch.finished:
                curve.append(epoch.val_accuracy)
                others = [other[len(curve) - 1] for other in curves if len(other) >= len(curve)]
                if len(others) > 2 and curve[-1] < np.median(others):
                    break
        curves.append(curve)
    return [len(curve) for curve in curves], max(curve[-1] for curve in curves)


def own_network(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    return hangtag.ImageClassifier("quick", model=network).fit(images, labels).score(test_images, test_labels)


def focal_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(logits, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** 2 * losses


def own_loss(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    return hangtag.ImageClassifier("quick", loss=focal_loss).fit(images, labels).score(test_images, test_labels)


def shift(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    return torch.roll(images, int(torch.randint(-1, 2, (), generator=random)), dims=3)


def own_augmentation(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    return hangtag.ImageClassifier("quick", augment=shift).fit(images, labels).score(test_images, test_labels)


def seeds(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    fitted = [hangtag.ImageClassifier("quick", random_state=seed).fit(images, labels) for seed in range(5)]
    scores = [clf.score(test_images, test_labels) for clf in fitted]
    return np.mean(scores), stats.t.interval(0.95, 4, np.mean(scores), stats.sem(scores))


def comparison(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    first, second = (hangtag.ImageClassifier("quick", epochs=n).fit(images, labels) for n in (2, 8))
    found = hangtag.compare(first, second, (test_images, test_labels))  # type: ignore[attr-defined,unused-ignore]
    return found.difference, found.interval, found.p
