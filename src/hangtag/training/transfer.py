"""Recipe `transfer`: the features of a pretrained backbone, computed once for each image, and a linear head on them."""

import hashlib
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.splits import kept_together
from hangtag.mapped import MappedRows
from hangtag.pictures import Images, ImageSpec
from hangtag.training.engine.backbones import find_backbone
from hangtag.training.engine.frozen import FrozenNetwork, for_size
from hangtag.training.engine.inference import to_pixels
from hangtag.training.engine.loop import Epoch, Labelled
from hangtag.training.engine.recipes import Recipe
from hangtag.training.engine.sampling import class_weights
from hangtag.training.head import fit_head, loss_and_accuracy

__all__ = ["build_frozen", "fit_frozen", "groups_of_training"]

_AT_ONCE = 8  # images, between two reports


def build_frozen(name: str, spec: ImageSpec, classes: int) -> FrozenNetwork:
    """An untrained network with this backbone; it remembers the embeddings of the images that it has seen.

    Raises:
        UnknownName, MissingExtra, ModelError: see `find_backbone`.
    """
    network = FrozenNetwork(for_size(find_backbone(name), spec), classes)
    network.embed = _Embeddings(network)
    return network


def fit_frozen(
    network: FrozenNetwork,
    training: Labelled,
    held_out: Labelled,
    recipe: Recipe,
    seed: int,
    groups: NDArray[np.int64],
    weights: NDArray[np.float32] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Epoch]:
    """Fit the head of a network in place; yields one finished `Epoch`, and others while features are computed.

    Args:
        network: from `build_frozen`.
        training, held_out: images and labels; those that are held out only measure the head.
        recipe: with a backbone.
        seed: of the folds.
        groups: (N,) equal for training images that are never on two sides of a fold.
        weights: (N,) of the training images, with mean 1; None: all equal.
        stop: called several times a second; True raises KeyboardInterrupt, because there is no head yet. The features
            computed so far are remembered.
    """
    images, labels = training
    began, embed = time.perf_counter(), network.embed
    assert embed is not None
    mirrors = (False, True) if recipe.flip else (False,)
    parts = [(images, mirrored) for mirrored in mirrors] + [(held_out[0], False)]
    rows: list[list[NDArray[np.float32]]] = []
    total, done = sum(len(part) for part, _ in parts), 0

    def state(**more: object) -> Epoch:
        return Epoch(1, 1, done, total, 0.0, 0.0, 0.0, time.perf_counter() - began, **more)  # type: ignore[arg-type]

    for part, mirrored in parts:
        rows.append([np.zeros((0, network.logits.in_features), np.float32)])
        for start in range(0, len(part), _AT_ONCE):
            if stop():
                raise KeyboardInterrupt
            some = np.asarray(part[start : start + _AT_ONCE])
            rows[-1].append(embed(some[:, :, ::-1] if mirrored else some))
            done += len(some)
            yield state(doing="computing features")
    *views, validation = (np.concatenate(part) for part in rows)
    own = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    if recipe.balance in ("weights", "sampling"):
        own = own * class_weights(np.bincount(labels)).numpy()[labels]
    head = fit_head(views, labels, network.logits.out_features, own / own.mean(), groups, seed)
    with torch.no_grad():
        network.logits.weight.copy_(torch.from_numpy(head.weight))
        network.logits.bias.copy_(torch.from_numpy(head.bias))
    loss, accuracy = loss_and_accuracy(head(views[0]), labels)
    val_loss, val_accuracy = loss_and_accuracy(head(validation), held_out[1]) if len(validation) else (None, None)
    yield Epoch(
        1, 1, len(labels), len(labels), loss, accuracy, 0.0, time.perf_counter() - began, val_loss, val_accuracy,
        finished=True, training_seconds=time.perf_counter() - began, doing=head.in_words,
    )  # fmt: skip


def groups_of_training(data: LabelledImages, train: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) equal for training images that belong together: the data's groups, and equal and nearly equal images.

    Args:
        train: (N,) positions of the training images in `data`.
    """
    groups = kept_together(data)
    return np.arange(len(train)) if groups is None else groups[train]


class _Embeddings:
    """Embeddings by a network's backbone; an image that was seen before is not computed again."""

    def __init__(self, network: FrozenNetwork) -> None:
        self.backbone = network.backbone
        self.known = _known(hashlib.sha256(network.backbone.backbone.model).digest())

    def __call__(self, images: Images | MappedRows) -> NDArray[np.float32]:
        """(N, E) of N uint8 images (N, H, W[, 3])."""
        rows = np.empty((len(images), self.backbone.backbone.size), np.float32)
        for start in range(0, len(images), _AT_ONCE):
            some = np.ascontiguousarray(images[start : start + _AT_ONCE])
            keys = [hashlib.blake2b(image.data, digest_size=16).digest() for image in some]
            new = [place for place, key in enumerate(keys) if key not in self.known]
            if new:
                pixels = to_pixels(torch.from_numpy(some[new])).expand(-1, 3, -1, -1)
                for place, row in zip(new, self.backbone(pixels)[0].numpy(), strict=True):
                    self.known[keys[place]] = row.copy()
            rows[start : start + len(some)] = [self.known[key] for key in keys]
        return rows


@cache
def _known(model: bytes) -> dict[bytes, NDArray[np.float32]]:
    """The embeddings by a model, by the hash of the image."""
    return {}
