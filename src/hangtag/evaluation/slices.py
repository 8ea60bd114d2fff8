"""Groups of pictures on which a model is worse than on the rest: found, tested, and few of them false.

Groups are formed by class, by what can be measured on a picture (brightness, contrast, size) and by any column that was
given. Each is tested against all other pictures (one-sided exact test: Fisher, 1935) and the false discovery rate is
controlled over all of them (Benjamini & Hochberg, 1995).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.evaluation.metrics import wilson

__all__ = ["FALSE_DISCOVERIES", "Slice", "groupings_of", "weak_slices"]

FALSE_DISCOVERIES = 0.01
"""The share of reported groups that may be no worse than the rest."""

_PARTS = 5  # of equal numbers of pictures, for what is measured
_LEAST = 10  # pictures in a group that can be judged
_MOST_GROUPS = 200  # of a column; with more, those with the most pictures


@dataclass(frozen=True)
class Slice:
    """A group of pictures that is answered worse than the rest.

    Attributes:
        by: what formed the group: "class", "brightness", ...
        group: which one, in words.
        images, wrong: how many, and how many of them were answered wrongly.
        accuracy: on the group, with its 95 % interval (Wilson).
        rest: accuracy on all other pictures.
        q: the false discovery rate at which it is just reported.
    """

    by: str
    group: str
    images: int
    wrong: int
    accuracy: float
    interval: tuple[float, float]
    rest: float
    q: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Slice":
        return cls(**{**value, "interval": tuple(value["interval"])})


def groupings_of(data: LabelledImages, columns: Mapping[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
    """(N,) a group's name for each picture, by what forms it.

    Args:
        columns: (N,) values known about the pictures, such as a table's column.
    """
    found: dict[str, NDArray[Any]] = {"class": np.array(data.class_names, object)[data.labels]}
    axes = tuple(range(1, data.images.ndim))
    brightness, contrast = np.empty(len(data)), np.empty(len(data))
    for start in range(0, len(data), 10_000):
        some = np.asarray(data.images[start : start + 10_000], np.float32)
        brightness[start : start + len(some)] = some.mean(axis=axes)
        contrast[start : start + len(some)] = some.std(axis=axes)
    found["brightness"] = _parts(brightness, ("darkest", "dark", "middle", "bright", "brightest"))
    found["contrast"] = _parts(contrast, ("least", "little", "middle", "much", "most"))
    if data.picture_facts is not None:
        sides = np.sqrt(data.picture_facts["height"].astype(float) * data.picture_facts["width"])
        found["size"] = _parts(sides, ("smallest", "small", "middle", "large", "largest"))
    for name, values in (columns or {}).items():
        found[name] = np.array([str(value) for value in values], object)
    return {name: groups for name, groups in found.items() if len(set(groups.tolist())) > 1}


def weak_slices(
    right: NDArray[np.bool_], groupings: Mapping[str, NDArray[Any]], rate: float = FALSE_DISCOVERIES
) -> list[Slice]:
    """Groups on which fewer answers are right than on the rest, worst first.

    Args:
        right: (N,) whether each picture was answered rightly.
        groupings: (N,) a group for each picture, by what forms it.
        rate: of false discoveries.
    """
    from scipy.stats import hypergeom

    count, wrong = len(right), int((~right).sum())
    tried: list[Slice] = []
    for by, groups in groupings.items():
        names, group_of, sizes = np.unique(groups.astype(str), return_inverse=True, return_counts=True)
        wrongs = np.bincount(group_of.reshape(-1), weights=~right, minlength=len(names)).astype(int)
        for place in np.argsort(-sizes, kind="stable")[:_MOST_GROUPS]:
            size, missed = int(sizes[place]), int(wrongs[place])
            if size < _LEAST or size > count - _LEAST:
                continue
            p = float(hypergeom.sf(missed - 1, count, wrong, size))
            rest = 1 - (wrong - missed) / (count - size)
            tried.append(
                Slice(by, str(names[place]), size, missed, 1 - missed / size, wilson(size - missed, size), rest, p)
            )
    return sorted(_discovered(tried, rate), key=lambda each: each.accuracy - each.rest)


def _discovered(tried: list[Slice], rate: float) -> list[Slice]:
    """Those that Benjamini and Hochberg's procedure keeps, p replaced by q."""
    ranked = sorted(tried, key=lambda each: each.q)
    least, kept = 1.0, []
    for place in range(len(ranked), 0, -1):
        least = min(least, ranked[place - 1].q * len(ranked) / place)
        if least <= rate:
            kept.append(Slice(**{**vars(ranked[place - 1]), "q": least}))
    return kept


def _parts(values: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[Any]:
    """Five parts of equal numbers of pictures, by value; equal values stay together."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _PARTS + 1)[1:-1]))
    part = np.searchsorted(edges, values, side="left")
    chosen = names if len(edges) == _PARTS - 1 else tuple(f"part {number + 1}" for number in range(len(edges) + 1))
    return np.array(chosen, object)[part]
