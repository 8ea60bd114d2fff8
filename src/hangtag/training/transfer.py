"""Recipe `transfer`: the features of a pretrained backbone, computed once for each image, and a linear head on them."""

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import cast
from weakref import WeakValueDictionary

import numpy as np
import torch
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages, content_hashes
from hangtag.data.splits import Split, kept_together, merge_groups
from hangtag.mapped import MappedRows
from hangtag.pictures import Images, ImageSpec
from hangtag.progress import Progress
from hangtag.training.engine.backbones import compute_features, find_backbone
from hangtag.training.engine.fine_tuning import TunedNetwork, as_frozen, compare
from hangtag.training.engine.frozen import FrozenNetwork, for_size
from hangtag.training.engine.inference import extract_features
from hangtag.training.engine.loop import Epoch, Labelled, train
from hangtag.training.engine.recipes import FINE_TUNING, Recipe
from hangtag.training.engine.sampling import class_weights
from hangtag.training.features import cached_features
from hangtag.training.head import fit_head, loss_and_accuracy
from hangtag.training.scenes import same_scenes

__all__ = ["build_frozen", "fine_tune", "fit_frozen"]

_COMPARED = 16  # images on which a fine-tuned network and its ONNX model must agree

_MOST_MIRRORED = 10_000  # training images; of more, mirror images would take long and change little


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
    data: LabelledImages,
    split: Split,
    recipe: Recipe,
    seed: int,
    weights: NDArray[np.float32] | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Epoch]:
    """Fit the head of a network in place; yields one finished `Epoch`, and others while features are computed.

    Args:
        network: from `build_frozen`.
        data, split: images, and which of them train the head; those that are held out only measure it.
        recipe: with a backbone.
        seed: of the folds.
        weights: (M,) of the training images, with mean 1; None: all equal.
        stop: called several times a second; True raises KeyboardInterrupt, because there is no head yet. The features
            computed so far are remembered.
    """
    began, embed = time.perf_counter(), network.embed
    assert isinstance(embed, _Embeddings)
    views = []
    for mirrored in (False, True) if recipe.flip and len(split.train) <= _MOST_MIRRORED else (False,):
        for done, total, rows in _reported(partial(embed.of, data, mirrored), stop):
            if rows is None:
                doing = f"computing features{' of mirror images' if mirrored else ''}"
                yield Epoch(1, 1, done, total, 0.0, 0.0, 0.0, time.perf_counter() - began, doing=doing)
            else:
                views.append(rows)
    train, held_out = split.train, split.validation
    labels, groups = data.labels[train], kept_together(data)
    groups = np.arange(len(train)) if groups is None else groups[train]
    if data.groups is None and (scenes := same_scenes(views[0][train], labels)) is not None:
        groups = merge_groups(groups, scenes)
    own = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    if recipe.balance in ("weights", "sampling"):
        own = own * class_weights(np.bincount(labels)).numpy()[labels]
    head = fit_head(
        [view[train] for view in views], labels, network.logits.out_features, own / own.mean(), groups, seed
    )
    with torch.no_grad():
        network.logits.weight.copy_(torch.from_numpy(head.weight))
        network.logits.bias.copy_(torch.from_numpy(head.bias))
    loss, accuracy = loss_and_accuracy(head(views[0][train]), labels)
    val_loss, val_accuracy = None, None
    if len(held_out):
        val_loss, val_accuracy = loss_and_accuracy(head(views[0][held_out]), data.labels[held_out])
    yield Epoch(
        1, recipe.fine_tune + 2 if recipe.fine_tune else 1, len(labels), len(labels), loss, accuracy, 0.0,
        time.perf_counter() - began, val_loss, val_accuracy, finished=True,
        training_seconds=time.perf_counter() - began, doing=head.in_words,
    )  # fmt: skip


def fine_tune(
    network: FrozenNetwork,
    spec: ImageSpec,
    training: Labelled,
    held_out: Labelled,
    recipe: Recipe,
    seed: int,
    weights: NDArray[np.float32] | None = None,
    device: torch.device | str = "cpu",
    stop: Callable[[], bool] = lambda: False,
) -> Generator[Epoch, None, tuple[FrozenNetwork, str]]:
    """Train the last blocks of the backbone, on a GPU all of it; returns the better network, and why it is, in words.

    Args:
        network: with a trained head; it stays as it is.
        spec: of the images.
        training, held_out: images and labels; those that are held out choose between the two networks.
        recipe: with a backbone; `fine_tune` is the number of epochs.
        seed, weights, device, stop: as for `train`.
    """
    backbone = find_backbone(recipe.backbone)
    tuned = TunedNetwork(backbone, network, whole=torch.device(device).type != "cpu")
    own = {name: getattr(recipe, name) for name in ("flip", "balance", "cores")}
    settings = replace(FINE_TUNING, epochs=recipe.fine_tune, **own)
    images, labels = held_out
    for epoch in train(tuned, *training, settings, seed, held_out, device, stop, weights=weights):
        doing = f"fine-tuning: epoch {epoch.number}/{epoch.epochs}"
        last = replace(epoch, number=epoch.number + 1, epochs=recipe.fine_tune + 2, doing=doing)
        yield last
    result = as_frozen(tuned, backbone, spec, np.asarray(training[0][:_COMPARED]))
    result.embed = _Embeddings(result)
    new, old = (extract_features(each, images).logits for each in (result, network))
    better, numbers = compare(new, old, labels)
    words = f"fine-tuning was {'kept' if better else 'dropped, and the backbone stays as it was'}: {numbers}"
    kept = result if better else network
    held_out_numbers = loss_and_accuracy(new if better else old, labels) if len(labels) else (None, None)
    loss, accuracy = loss_and_accuracy(extract_features(kept, training[0]).logits, training[1])
    yield replace(
        last, number=last.number + 1, loss=loss, accuracy=accuracy, val_loss=held_out_numbers[0],
        val_accuracy=held_out_numbers[1], doing=words,
    )  # fmt: skip
    return kept, words


class _Embeddings:
    """Embeddings by a network's backbone; those that were computed are remembered, and kept in the cache."""

    def __init__(self, network: FrozenNetwork) -> None:
        self.backbone = network.backbone.backbone
        self.known = _KNOWN.setdefault(hashlib.sha256(self.backbone.model).digest(), _Known())

    def of(self, data: LabelledImages, mirrored: bool, progress: Progress) -> NDArray[np.float32]:
        """(N, E) of N images, or of their mirror images."""
        rows = cached_features(self.backbone, data, progress, mirrored)
        if not mirrored:
            self.known.update(zip(map(bytes, data.contents), rows, strict=True))
        return rows

    def __call__(self, images: Images | MappedRows) -> NDArray[np.float32]:
        """(N, E) of N uint8 images (N, H, W[, 3])."""
        keys = list(map(bytes, content_hashes(cast(Images, images))))
        new = np.array([place for place, key in enumerate(keys) if key not in self.known], np.int64)
        if len(new):
            rows = compute_features(self.backbone, MappedRows(cast(Images, images), new))
            self.known.update((keys[place], row) for place, row in zip(new.tolist(), rows, strict=True))
        return np.array([self.known[key] for key in keys], np.float32).reshape(len(keys), self.backbone.size)


class _Known(dict[bytes, NDArray[np.float32]]):
    """The embeddings by one model, by the hash of the image; networks share them, and the last one takes them along."""


_KNOWN: WeakValueDictionary[bytes, _Known] = WeakValueDictionary()
"""By the hash of the model."""


def _reported(
    work: Callable[[Progress], NDArray[np.float32]], stop: Callable[[], bool]
) -> Iterator[tuple[int, int, NDArray[np.float32] | None]]:
    """Do the work in a thread: (done, total, None) while it reports progress, and (done, total, its result).

    Raises:
        KeyboardInterrupt: `stop` returned True.
    """
    reports: queue.Queue[tuple[int, int]] = queue.Queue()
    left = threading.Event()

    def progress(_: str, done: int, total: int) -> None:
        if left.is_set():
            raise KeyboardInterrupt
        reports.put((done, total))

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work, progress)
        done, total = 0, 0
        try:
            while not result.done():
                with suppress(queue.Empty):
                    done, total = reports.get(timeout=0.1)
                    yield done, total, None
                if stop():
                    raise KeyboardInterrupt
        finally:
            left.set()
        yield done, total, result.result()
