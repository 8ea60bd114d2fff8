"""Classes of small sets, predicted out of sample from simple descriptors of images, without a network.

On a few hundred images, a network trained from scratch is slower and less often right than two kernel ridge
regressions on colours and directions of edges (docs/log.md). A regression also needs no folds: what it would predict
for an image without having seen it has a closed form (Rasmussen and Williams, Gaussian Processes for Machine Learning,
2006, section 5.4.2), here for all images of a group at once.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hangtag.pictures import Images
from hangtag.progress import Progress
from hangtag.training.engine.inference import to_pixels

__all__ = ["descriptor_scores"]

_SIDE, _CELLS, _DIRECTIONS, _LEVELS = 32, 4, 9, (8, 4)
_WIDTHS = (0.25, 0.5, 1.0)  # of a kernel, in units of the median distance between two images
_RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_AT_ONCE = 256


def descriptor_scores(
    images: Images,
    labels: NDArray[np.int64],
    groups: NDArray[np.int64],
    classes: int,
    progress: Progress | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Class scores of each image by regressions on all images of other groups.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8.
        labels: (N,) int64 below `classes`.
        groups: (N,) int64.
        progress: called with (what is happening, kernels done, kernels in total).

    Returns:
        (N, classes) scores of a linear regression, and those of one with a Laplacian kernel. Time grows with N cubed.
    """
    kinds = _descriptors(images)
    targets = np.eye(classes)[labels] - 1 / classes
    together = [rows for rows in map(np.flatnonzero, groups == np.unique(groups)[:, None]) if len(rows) > 1]
    distance = np.sqrt(sum(_distances(rows) for rows in kinds) / len(kinds))
    rows = np.concatenate(kinds, axis=1)
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-6)
    linear = 1 + rows @ rows.T / rows.shape[1]  # 1: a constant, without which centred rows betray a left-out label
    found = []
    for number, kernel in enumerate([linear, *(np.exp(-width * distance) for width in _WIDTHS)]):
        found.append(_best_scores(kernel, targets, together))
        if progress:
            progress("comparing images", number + 1, 1 + len(_WIDTHS))
    return found[0][1], min(found[1:], key=lambda each: each[0])[1]


def _best_scores(
    kernel: NDArray[np.float64], targets: NDArray[np.float64], together: list[NDArray[np.int64]]
) -> tuple[float, NDArray[np.float64]]:
    """The smallest squared error out of sample of all ridges, and (N, K) the scores that have it."""
    values, vectors = np.linalg.eigh(kernel)
    projected, squares = vectors.T @ targets, np.square(vectors)
    best, least = np.zeros_like(targets), np.inf
    for ridge in _RIDGES:
        inverse = 1 / (np.maximum(values, 0) + ridge)
        weights = vectors @ (projected * inverse[:, None])
        missed = weights / (squares @ inverse)[:, None]
        for rows in together:
            missed[rows] = np.linalg.solve((vectors[rows] * inverse) @ vectors[rows].T, weights[rows])
        error = float(np.square(missed).sum())
        if error < least:
            best, least = targets - missed, error
    return least, best


def _distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, N) squared distances, in units of their median."""
    lengths = np.square(rows).sum(axis=1)
    squared = np.maximum(lengths[:, None] + lengths - 2 * rows @ rows.T, 0)
    np.fill_diagonal(squared, 0)
    return np.asarray(squared / (np.median(squared[np.triu_indices(len(rows), 1)]) + 1e-9))


def _descriptors(images: Images) -> list[NDArray[np.float64]]:
    """(N, D) of each kind: colours in a grid, histograms of levels, directions of edges."""
    parts = []
    for start in range(0, len(images), _AT_ONCE):
        pixels = to_pixels(torch.from_numpy(np.array(images[start : start + _AT_ONCE])))
        parts.append([_grid(pixels), *(_levels(pixels, number) for number in _LEVELS), _edges(pixels)])
    return [torch.cat(kind).double().numpy() for kind in zip(*parts, strict=True)]


def _grid(pixels: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(pixels, (8, 8), mode="area").flatten(1)


def _levels(pixels: torch.Tensor, number: int) -> torch.Tensor:
    """(N, D) square roots of the shares of pixels: of each channel's levels (8), or of the colours (4)."""
    level = (pixels * number).long().clamp(max=number - 1)
    if number == _LEVELS[1]:
        level = (level * number ** torch.arange(level.shape[1])[:, None, None]).sum(dim=1, keepdim=True)
        number **= pixels.shape[1]
    shares = functional.one_hot(level.flatten(2), number).float().mean(dim=2)
    return shares.sqrt().flatten(1)


def _edges(pixels: torch.Tensor) -> torch.Tensor:
    """(N, D) histograms of oriented gradients (Dalal and Triggs, 2005)."""
    large = min(pixels.shape[2:]) >= _SIDE
    size = (_SIDE, _SIDE)
    grey = functional.interpolate(pixels.mean(dim=1, keepdim=True), size, mode="area" if large else "bilinear")
    down, across = torch.gradient(grey[:, 0], dim=(1, 2))
    place = torch.atan2(down, across).remainder(torch.pi) / torch.pi * _DIRECTIONS
    bins = functional.one_hot(place.long().clamp(max=_DIRECTIONS - 1), _DIRECTIONS).permute(0, 3, 1, 2)
    cells = functional.avg_pool2d(bins * torch.hypot(down, across)[:, None], _SIDE // _CELLS)
    blocks = functional.unfold(cells, 2)  # (N, 36, 9)
    return functional.normalize(blocks, dim=1, eps=1e-3).flatten(1)
