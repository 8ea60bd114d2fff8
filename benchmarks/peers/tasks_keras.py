"""The seven tasks in Keras 3, on any backend; see tasks.py."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops
from scipy import stats
from sklearn.model_selection import StratifiedKFold, train_test_split


def lesson() -> Any:
    hidden = layers.Dense(128, activation="relu")
    return keras.Sequential([keras.Input((8, 8)), layers.Flatten(), hidden, layers.Dense(10)])


def compiled(model: Any, rate: float = 0.003, loss: Any = None) -> Any:
    loss = loss or keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    return model


def trained(model: Any, images: Any, labels: Any, epochs: int = 8, batch_size: int = 32, **settings: Any) -> Any:
    return model.fit(images / 255.0, labels, epochs=epochs, batch_size=batch_size, verbose=0, **settings)


def score(model: Any, images: Any, labels: Any) -> float:
    return float(model.evaluate(images / 255.0, labels, verbose=0)[1])


def search(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    scores = {}
    for setting in [(rate, size) for rate in (0.001, 0.01) for size in (16, 64)]:
        folds = []
        for fit, held_out in StratifiedKFold(3).split(images, labels):
            model = compiled(lesson(), setting[0])
            trained(model, images[fit], labels[fit], 5, setting[1])
            folds.append(score(model, images[held_out], labels[held_out]))
        scores[setting] = np.mean(folds)
    best = max(scores, key=lambda setting: scores[setting])
    model = compiled(lesson(), best[0])
    trained(model, images, labels, 5, best[1])
    return best, score(model, test_images, test_labels)


class Pruner(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, curves: Any) -> None:
        super().__init__()
        self.curves = curves
        self.curve: list[Any] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.curve.append(logs["val_accuracy"])
        others = [other[epoch] for other in self.curves if len(other) > epoch]
        if len(others) > 2 and self.curve[-1] < np.median(others):
            self.model.stop_training = True


def pruning(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    fit, held_out, fit_labels, held_out_labels = train_test_split(images, labels, test_size=0.1, stratify=labels)
    curves: list[Any] = []
    for rate in 10 ** np.random.default_rng(0).uniform(-4, -1, 10):
        pruner, held = Pruner(curves), (held_out / 255.0, held_out_labels)
        trained(compiled(lesson(), rate), fit, fit_labels, validation_data=held, callbacks=[pruner])
        curves.append(pruner.curve)
    return [len(curve) for curve in curves], max(curve[-1] for curve in curves)


def own_network(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    convolution = layers.Conv2D(16, 3, activation="relu")
    model = compiled(keras.Sequential([keras.Input((8, 8, 1)), convolution, layers.Flatten(), layers.Dense(10)]))
    trained(model, images[..., None], labels)
    return score(model, test_images[..., None], test_labels)


def focal_loss(labels: Any, logits: Any) -> Any:
    losses = ops.sparse_categorical_crossentropy(ops.reshape(labels, (-1,)), logits, from_logits=True)
    return (1 - ops.exp(-losses)) ** 2 * losses


def own_loss(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    model = compiled(lesson(), loss=focal_loss)
    trained(model, images, labels)
    return score(model, test_images, test_labels)


class Shifting(layers.Layer):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.seed = keras.random.SeedGenerator()

    def call(self, x: Any, training: bool = False) -> Any:
        return ops.roll(x, int(keras.random.randint((), -1, 2, seed=self.seed)), axis=2) if training else x


def own_augmentation(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    model = compiled(keras.Sequential([keras.Input((8, 8)), Shifting(), lesson()]))
    trained(model, images, labels)
    return score(model, test_images, test_labels)


def seeds(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    scores = []
    for seed in range(5):
        keras.utils.set_random_seed(seed)
        model = compiled(lesson())
        trained(model, images, labels)
        scores.append(score(model, test_images, test_labels))
    return np.mean(scores), stats.t.interval(0.95, 4, np.mean(scores), stats.sem(scores))


def comparison(images: Any, labels: Any, test_images: Any, test_labels: Any) -> Any:
    models = [compiled(lesson()) for _ in range(2)]
    for model, epochs in zip(models, (2, 8), strict=True):
        trained(model, images, labels, epochs)
    one, two = (model.predict(test_images / 255.0, verbose=0).argmax(1) == test_labels for model in models)
    gained, lost, count = int((two & ~one).sum()), int((one & ~two).sum()), len(test_labels)
    low, high = (gained + 1) / (count + 2), (lost + 1) / (count + 2)  # Bonett & Price (2012)
    half = 1.96 * np.sqrt((low + high - (low - high) ** 2) / (count + 2))
    p = stats.binomtest(gained, gained + lost).pvalue
    return (gained - lost) / count, (low - high - half, low - high + half), p
