"""The seven tasks in fastai; see tasks.py."""

from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from scipy import stats
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


def lesson() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def dataset(images: Any, labels: Any) -> Any:
    return TensorDataset(torch.from_numpy(images[:, None]).float() / 255, torch.from_numpy(labels))


def trained(
    images: Any, labels: Any, network: Any = None, epochs: int = 8, rate: float = 0.003, size: int = 32,
    loss: Any = None, held_out: Any = None, callbacks: Any = (),
) -> Any:  # fmt: skip
    loader: Any = DataLoader(dataset(images, labels), size, shuffle=True)
    held: Any = DataLoader(dataset(*(held_out or (images, labels))), 256)
    loss, network = loss or CrossEntropyLossFlat(), network or lesson()
    learner = Learner(DataLoaders(loader, held), network, loss, metrics=[accuracy], cbs=list(callbacks))
    with learner.no_logging():
        learner.fit(epochs, float(rate))
    return learner


def right(learner: Any, images: Any, labels: Any) -> Any:
    with torch.no_grad():
        return learner.model.eval()(dataset(images, labels).tensors[0]).argmax(1).numpy() == labels


def search(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    scores = {}
    for setting in [(rate, size) for rate in (0.001, 0.01) for size in (16, 64)]:
        folds = []
        for fit, held_out in StratifiedKFold(3).split(images, labels):
            learner = trained(images[fit], labels[fit], epochs=5, rate=setting[0], size=setting[1])
            folds.append(right(learner, images[held_out], labels[held_out]).mean())
        scores[setting] = np.mean(folds)
    best = max(scores, key=lambda setting: scores[setting])
    learner = trained(images, labels, epochs=5, rate=best[0], size=best[1])
    return best, right(learner, test_images, test_labels).mean()


class Pruner(Callback):  # type: ignore[misc]
    order = 60  # after the recorder

    def __init__(self, curves: Any) -> None:
        self.curves = curves
        self.curve: list[Any] = []

    def after_epoch(self) -> None:
        self.curve.append(self.recorder.values[-1][-1])
        others = [other[len(self.curve) - 1] for other in self.curves if len(other) >= len(self.curve)]
        if len(others) > 2 and self.curve[-1] < np.median(others):
            raise CancelFitException


def pruning(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    fit, held_out, fit_labels, held_out_labels = train_test_split(images, labels, test_size=0.1, stratify=labels)
    curves: list[Any] = []
    for rate in 10 ** np.random.default_rng(0).uniform(-4, -1, 10):
        pruner = Pruner(curves)
        trained(fit, fit_labels, rate=rate, held_out=(held_out, held_out_labels), callbacks=[pruner])
        curves.append(pruner.curve)
    return [len(curve) for curve in curves], max(curve[-1] for curve in curves)


def own_network(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    network = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 10))
    return right(trained(images, labels, network), test_images, test_labels).mean()


def focal_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    losses = cross_entropy(logits, labels, reduction="none")
    return ((1 - torch.exp(-losses)) ** 2 * losses).mean()


def own_loss(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    return right(trained(images, labels, loss=focal_loss), test_images, test_labels).mean()


class Shift(Callback):  # type: ignore[misc]
    def before_batch(self) -> None:
        if self.training:
            self.learn.xb = (torch.roll(self.x, int(torch.randint(-1, 2, ())), dims=3),)


def own_augmentation(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    return right(trained(images, labels, callbacks=[Shift()]), test_images, test_labels).mean()


def seeds(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    scores = []
    for seed in range(5):
        set_seed(seed)
        scores.append(right(trained(images, labels), test_images, test_labels).mean())
    return np.mean(scores), stats.t.interval(0.95, 4, np.mean(scores), stats.sem(scores))


def comparison(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    one, two = (right(trained(images, labels, epochs=epochs), test_images, test_labels) for epochs in (2, 8))
    gained, lost, count = int((two & ~one).sum()), int((one & ~two).sum()), len(test_labels)
    low, high = (gained + 1) / (count + 2), (lost + 1) / (count + 2)  # Bonett & Price (2012)
    half = 1.96 * np.sqrt((low + high - (low - high) ** 2) / (count + 2))
    p = stats.binomtest(gained, gained + lost).pvalue
    return (gained - lost) / count, (low - high - half, low - high + half), p
