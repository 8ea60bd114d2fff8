"""The seven tasks in skorch; see tasks.py."""

from typing import Any

import numpy as np
import torch
from scipy import stats
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback
from torch import nn
from torch.nn.functional import cross_entropy


def lesson() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def scaled(images: Any) -> Any:
    return images[:, None].astype(np.float32) / 255


def classifier(network: Any = lesson, **settings: Any) -> Any:
    defaults = {"criterion": nn.CrossEntropyLoss, "optimizer": torch.optim.Adam, "lr": 0.003, "batch_size": 32}
    return NeuralNetClassifier(network, **{**defaults, "max_epochs": 8, "verbose": 0, **settings})


def search(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    net = classifier(max_epochs=5, train_split=None)
    grid = GridSearchCV(net, {"lr": [0.001, 0.01], "batch_size": [16, 64]}, cv=3).fit(scaled(images), labels)
    return grid.best_params_, grid.score(scaled(test_images), test_labels)


class Pruner(Callback):  # type: ignore[misc]
    def __init__(self, curves: Any) -> None:
        self.curves = curves

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        curve = net.history[:, "valid_acc"]
        others = [other[len(curve) - 1] for other in self.curves if len(other) >= len(curve)]
        if len(others) > 2 and curve[-1] < np.median(others):
            raise KeyboardInterrupt


def pruning(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    curves: list[Any] = []
    for rate in 10 ** np.random.default_rng(0).uniform(-4, -1, 10):
        net = classifier(lr=rate, callbacks=[Pruner(curves)]).fit(scaled(images), labels)
        curves.append(net.history[:, "valid_acc"])
    return [len(curve) for curve in curves], max(curve[-1] for curve in curves)


def own_network(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    return classifier(network).fit(scaled(images), labels).score(scaled(test_images), test_labels)


class FocalLoss(nn.Module):
    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        losses = cross_entropy(logits, labels, reduction="none")
        return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


def own_loss(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    net = classifier(criterion=FocalLoss).fit(scaled(images), labels)
    return (net.forward(scaled(test_images)).argmax(1).numpy() == test_labels).mean()


class Shifting(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.roll(x, int(torch.randint(-1, 2, ())), dims=3) if self.training else x


def own_augmentation(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    net = classifier(nn.Sequential(Shifting(), lesson()))
    return net.fit(scaled(images), labels).score(scaled(test_images), test_labels)


def seeds(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    scores = []
    for seed in range(5):
        torch.manual_seed(seed)
        scores.append(classifier().fit(scaled(images), labels).score(scaled(test_images), test_labels))
    return np.mean(scores), stats.t.interval(0.95, 4, np.mean(scores), stats.sem(scores))


def comparison(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    nets = [classifier(max_epochs=epochs).fit(scaled(images), labels) for epochs in (2, 8)]
    one, two = (net.predict(scaled(test_images)) == test_labels for net in nets)
    gained, lost, count = int((two & ~one).sum()), int((one & ~two).sum()), len(test_labels)
    low, high = (gained + 1) / (count + 2), (lost + 1) / (count + 2)  # Bonett & Price (2012)
    half = 1.96 * np.sqrt((low + high - (low - high) ** 2) / (count + 2))
    p = stats.binomtest(gained, gained + lost).pvalue
    return (gained - lost) / count, (low - high - half, low - high + half), p
