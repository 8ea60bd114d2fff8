"""Groups of images on which a model is worse than on the rest, with a controlled rate of false discoveries.

Groups are formed by class, by image properties (brightness, contrast, size) and by any column of the data. Each is
tested against all other images (one-sided exact test: Fisher, 1935), and the false discovery rate is controlled over
all groups (Benjamini & Hochberg, 1995).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.metrics import wilson
from hangtag.significance import false_discovery_rates, hypergeometric_tail

__all__ = ["FALSE_DISCOVERIES", "Slice", "groupings_of", "weak_slices"]

FALSE_DISCOVERIES = 0.01
"""Expected share of reported groups that are no worse than the rest."""

_PARTS = 5  # of equal numbers of images, for each image property
_MIN_IMAGES = 10  # in a group, and in the rest
_MAX_GROUPS = 200  # in a column; with more, the largest groups are used


@dataclass(frozen=True)
class Slice:
    """A group of images with a lower accuracy than the rest.

    Attributes:
        by: what the group is formed by: "class", "brightness", ...
        group: name of the group.
        images, wrong: number of images, and of wrong answers among them.
        accuracy, interval: on the group, with its 95% interval (Wilson).
        rest: accuracy on all other images.
        q: p-value of the exact test, adjusted by Benjamini and Hochberg's procedure.
    """

    by: str
    group: str
    images: int
    wrong: int
    accuracy: float
    interval: tuple[float, float]
    rest: float
    q: float


def groupings_of(data: LabelledImages, columns: Mapping[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
    """(N,) the name of each image's group, for each property that forms more than one group.

    Args:
        columns: (N,) further values of the images by name, such as columns of a table.
    """
    groupings: dict[str, NDArray[Any]] = {"class": np.array(data.class_names, object)[data.labels]}
    axes = tuple(range(1, data.images.ndim))
    brightness, contrast = np.empty(len(data)), np.empty(len(data))
    for start in range(0, len(data), 10_000):
        some = np.asarray(data.images[start : start + 10_000], np.float32)
        brightness[start : start + len(some)] = some.mean(axis=axes)
        contrast[start : start + len(some)] = some.std(axis=axes)
    groupings["brightness"] = _parts(brightness, ("darkest", "dark", "middle", "bright", "brightest"))
    groupings["contrast"] = _parts(contrast, ("lowest", "low", "middle", "high", "highest"))
    if data.picture_facts is not None:
        sides = np.sqrt(data.picture_facts["height"].astype(float) * data.picture_facts["width"])
        groupings["size"] = _parts(sides, ("smallest", "small", "middle", "large", "largest"))
    for name, values in (columns or {}).items():
        groupings[name] = np.array([str(value) for value in values], object)
    return {name: groups for name, groups in groupings.items() if len(set(groups.tolist())) > 1}


def weak_slices(
    correct: NDArray[np.bool_], groupings: Mapping[str, NDArray[Any]], rate: float = FALSE_DISCOVERIES
) -> list[Slice]:
    """Groups with fewer correct answers than the rest, worst first.

    Args:
        correct: (N,) whether each image was answered correctly.
        groupings: (N,) the group of each image, for each property.
        rate: false discovery rate, 0 to 1.
    """
    count, wrong = len(correct), int((~correct).sum())
    tested: list[Slice] = []
    for by, groups in groupings.items():
        names, group_of, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
        wrongs = np.bincount(group_of.reshape(-1), weights=~correct, minlength=len(names)).astype(int)
        for place in np.argsort(-sizes, kind="stable")[:_MAX_GROUPS]:
            size, missed = int(sizes[place]), int(wrongs[place])
            if size < _MIN_IMAGES or size > count - _MIN_IMAGES:
                continue
            p = hypergeometric_tail(missed, count, wrong, size)
            rest, interval = 1 - (wrong - missed) / (count - size), wilson(size - missed, size)
            tested.append(Slice(by, str(names[place]), size, missed, 1 - missed / size, interval, rest, p))
    adjusted = false_discovery_rates([each.q for each in tested])
    weak = [replace(each, q=float(q)) for each, q in zip(tested, adjusted, strict=True) if q <= rate]
    return sorted(weak, key=lambda each: (each.accuracy - each.rest, -each.q))


def _parts(values: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[Any]:
    """(N,) the part of each image: five of equal numbers of images, by value; equal values stay together."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _PARTS + 1)[1:-1]))
    part = np.searchsorted(edges, values, side="left")
    chosen = names if len(edges) == _PARTS - 1 else tuple(f"part {number + 1}" for number in range(len(edges) + 1))
    return np.array(chosen, object)[part]
