"""What `fit` and `predict` are given, checked: images with labels and weights, and pictures in files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages, from_arrays, one_column
from hangtag.data.splits import Split
from hangtag.errors import DataError, UnknownName, UsageError
from hangtag.mapped import MappedRows, mapping_of
from hangtag.pictures import Images, ImageSpec, check_images, is_one_picture, many_images
from hangtag.training.engine.recipes import Recipe
from hangtag.words import natural

__all__ = [
    "are_files",
    "check_same_labels",
    "image_weights",
    "labelled",
    "part_of",
    "to_train_on",
    "with_validation",
    "without_weightless",
]

_IN_MEMORY = 256_000_000  # bytes; images of a larger memory-mapped file are read as training needs them


def to_train_on(X: LabelledImages | Images, y: Any) -> tuple[LabelledImages, NDArray[Any]]:
    """The data as `fit` takes them, and (K,) the label that the user has for each class.

    Raises:
        DataError: there are no training images or labels.
    """
    if isinstance(X, LabelledImages):
        data = X
        if y is not None:
            check_same_labels(X, y)
        if X.parts and "train" not in X.parts:
            raise DataError(f"{X.name} has no training part", f"it has {', '.join(X.parts)}")
        classes: NDArray[Any] = np.arange(len(data.class_names))
    else:
        if y is None:
            raise DataError("labels are missing", "call fit(images, labels), or fit(hangtag.read(data))")
        images = many_images(X, labels=y)
        data = from_arrays(images, y, natural_order=False)  # sorted as the classes, which scikit-learn requires
        classes = np.unique(np.asarray(one_column(y)))
    if not len(data.train):
        raise DataError(f"{data.name} has no training images", "add a part called train, or give data without parts")
    return data, classes


def labelled(X: Images, y: Any, spec: ImageSpec, class_names: Sequence[str], classes: NDArray[Any]) -> LabelledImages:
    """Images with labels as given to `fit`, or names of classes; labels that are unknown become further classes.

    Args:
        classes: (K,) the labels given to `fit`, in the order of `class_names`.
    """
    if y is None:
        raise DataError("labels are missing", "give images and labels, or a LabelledImages")
    images = check_images(many_images(X, width=spec.width), spec=spec)
    given = np.asarray(one_column(y))
    if given.shape != (len(images),):
        raise DataError(f"{len(images):,} images but labels of shape {given.shape}", "give one label for each image")
    labels, names, known = given.tolist(), list(class_names), _positions(class_names, classes)
    for label in sorted(set(labels) - known.keys(), key=lambda label: natural(str(label))):
        name = str(label)
        if name in names and classes.dtype.kind == "i":
            raise DataError(
                f"label {name} is not a position from 0 to {len(classes) - 1}, but the name of a class",
                f"give names: '{name}'",
            )
        if name not in names:
            names.append(name)
        known[label] = names.index(name)
    return LabelledImages(images, np.array([known[label] for label in labels], np.int64), tuple(names))


def _positions(class_names: Sequence[str], classes: NDArray[Any]) -> dict[Any, int]:
    """The position of each class, by its name and by its label."""
    names = {name: position for position, name in enumerate(class_names)}
    return names | {label: position for position, label in enumerate(classes.tolist())}


def image_weights(
    data: LabelledImages, classes: NDArray[Any], sample_weight: Any, class_weight: str | Mapping[Any, float] | None
) -> NDArray[np.float64] | None:
    """(M,) the weight of each training image, from `sample_weight` and a dict of `class_weight`; or None.

    Args:
        classes: (K,) the labels given to `fit`.
    """
    train = data.positions("train") if data.parts else np.arange(len(data))
    weights = None
    if sample_weight is not None:
        weights = _checked_weights(sample_weight, len(data))[train]
    if isinstance(class_weight, Mapping):
        by_class, known = np.ones(len(data.class_names)), _positions(data.class_names, classes)
        for label, weight in class_weight.items():
            if label not in known:
                raise UnknownName.among("class in class_weight", str(label), data.class_names)
            by_class[known[label]] = _checked_weights([weight], 1)[0]
        weights = by_class[data.labels[train]] * (1 if weights is None else weights)
    if weights is not None and not weights.any():
        raise DataError("every training image has weight 0", "give some images a weight above 0")
    return weights


def _checked_weights(weights: Any, count: int) -> NDArray[np.float64]:
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


def with_validation(
    data: LabelledImages, classes: NDArray[Any], recipe: Recipe, validation_data: LabelledImages | tuple[Any, Any]
) -> LabelledImages:
    """The training images of `data`, with `validation_data` as their validation part; classes are matched by name.

    Raises:
        UsageError: the data or the recipe hold out other images.
        DataError: there are no validation images, or they have other classes or another shape than the training images.
    """
    if "validation" in data.parts:
        raise UsageError(f"{data.name} has a validation part already", "leave validation_data out")
    if "validation" in recipe.given and recipe.validation:
        raise UsageError(
            f"validation={recipe.validation:g} and validation_data contradict each other", "give only one of them"
        )
    if isinstance(validation_data, LabelledImages):
        held_out = validation_data.validation if validation_data.parts else validation_data
    elif isinstance(validation_data, tuple | list) and len(validation_data) == 2:
        held_out = labelled(*validation_data, data.spec, data.class_names, classes)
    else:
        raise UsageError("validation_data must be (images, labels) or a LabelledImages", "give both in a tuple")
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


def part_of(data: LabelledImages, positions: NDArray[np.int64]) -> tuple[Images | MappedRows, NDArray[np.int64]]:
    """Images and labels at these positions; images of a large memory-mapped file stay in it."""
    labels = data.labels[positions]
    if data.images.nbytes > _IN_MEMORY and mapping_of(data.images) is not None:
        return MappedRows(data.images, positions), labels
    return data.images[positions], labels
