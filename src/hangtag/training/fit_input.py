"""What `fit` and `predict` are given, checked: labels and weights of images, and pictures in files."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages, one_column
from hangtag.data.splits import Split
from hangtag.errors import DataError
from hangtag.pictures import is_one_picture

__all__ = ["are_files", "check_same_labels", "checked_weights", "with_validation", "without_weightless"]


def checked_weights(weights: Any, count: int) -> NDArray[np.float64]:
    """(count,) weights as float64; raises DataError if they cannot be used."""
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("weights must be numbers", "give one number for each image") from None
    if array.shape != (count,):
        raise DataError(f"{count:,} images but weights of shape {array.shape}", "give one weight for each image")
    if not np.isfinite(array).all() or (array < 0).any():
        raise DataError("weights must be finite and at least 0", "0 leaves an image out")
    return array


def without_weightless(split: Split, weights: NDArray[np.float64]) -> tuple[Split, NDArray[np.float32] | None]:
    """The split without images of weight 0, and the weights of its training images with mean 1; None: all equal.

    Args:
        weights: (M,) of all training images before the split.
    """
    train = split.train[weights[split.train] > 0]
    held_out = split.validation if split.given else split.validation[weights[split.validation] > 0]
    if not len(train):
        raise DataError("every training image has weight 0", "give some images a weight above 0")
    own = weights[train] / weights[train].max()
    own = None if (own == own[0]).all() else (own / own.mean()).astype(np.float32)
    return replace(split, train=train, validation=held_out), own


def with_validation(data: LabelledImages, held_out: LabelledImages) -> LabelledImages:
    """The training images of `data`, and `held_out` as their validation part; classes are matched by name.

    Raises:
        DataError: there are no validation images, or they have other classes or another shape than the training images.
    """
    train = data.train
    unknown = {held_out.class_names[label] for label in np.unique(held_out.labels)} - set(train.class_names)
    if unknown:
        raise DataError(
            f"validation_data has classes that the training images lack: {', '.join(sorted(unknown)[:5])}",
            "leave these images out",
        )
    if not len(held_out) or held_out.images.shape[1:] != train.images.shape[1:]:
        raise DataError(
            f"validation_data must have images of shape {train.images.shape[1:]}, got {held_out.images.shape}",
            "resize them as the training images",
        )
    number = {name: index for index, name in enumerate(train.class_names)}
    labels = np.array([number.get(name, 0) for name in held_out.class_names])[held_out.labels]
    return LabelledImages(
        np.concatenate([train.images, held_out.images]),
        np.concatenate([train.labels, labels]),
        train.class_names,
        data.name,
        parts={"train": slice(0, len(train)), "validation": slice(len(train), None)},
        source=train.source,
    )


def check_same_labels(data: LabelledImages, labels: Any) -> None:
    """Raise DataError unless the labels, numbers or names, are those of the data."""
    given = np.asarray(one_column(labels))
    own = data.labels if given.dtype.kind in "iuf" else np.asarray(data.class_names)[data.labels]
    if not np.array_equal(given, own):
        raise DataError(
            f"{data.name} has labels already, and others were given",
            "leave out the labels, or give the images without theirs: data.images",
        )


def are_files(images: Any) -> bool:
    """Whether these are pictures in forms that only a `Predictor` reads: paths, bytes, open files, PIL images."""
    if isinstance(images, list | tuple):
        return not images or any(map(is_one_picture, images))
    return isinstance(images, Iterator) or getattr(images, "ndim", 0) == 1
