"""The object in front of its background: a page, wood, cloth or any surface whose colour changes slowly.

A quadratic surface for each channel is fitted to the background, first to a ring along the picture's border and then to
everything that looks like it. The object is what differs from the surface by more than the background's own texture.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEAST_SIDE", "Foreground", "find_foreground"]

_SEARCHED = 160  # pixels of the longer side of what is searched
LEAST_SIDE = 12
"""Pixels of the shorter side; a narrower picture is not searched."""

_RING = 0.06  # of the shorter side: taken for background at first
_ROUNDS = 5  # of fitting the background and leaving out what differs from it
_STRONG, _WEAK = 4.5, 3.0  # deviations of the background: what is object, and what is if it touches such pixels
_LEAST_DEVIATION = (
    0.011  # of the full scale, so that a difference of `appearance.TRIM` is strong on a perfect background
)
_LEAST_AREA, _MOST_AREA = 0.0015, 0.97  # of what is searched
_LEAST_PART = 0.04  # of the largest part's area: another part of the same object
_MOST_PARTS = 6
_NEARBY = 2  # pixels around the object of the first look, where the second may find more of it
_FINE = 40  # pixels of the shorter side from which single pixels do not matter
_MARGIN = 0.3  # of the object's longer side, around the object at the second look
_PAGE = 0.8  # of its box that an object fills if it may be a page or a screen with a picture on it
_FRAME = 0.08  # of the box's side, left out when looking into a page

Grid = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]
Box = tuple[int, int, int, int]
"""Top, left, bottom, right, in pixels of the picture; the last two are behind the box."""


@dataclass(frozen=True, eq=False)
class Foreground:
    """A part of a picture with an object, reduced in size.

    Attributes:
        pixels: (h, w, C) from 0 to 1.
        background: (h, w, C) what the background would look like without the object.
        object: (h, w) whether a pixel belongs to the object.
        box: the object's box in the picture.
    """

    pixels: Grid
    background: Grid
    object: Mask
    box: Box

    @property
    def may_be_page(self) -> bool:
        rows, columns = np.flatnonzero(self.object.any(axis=1)), np.flatnonzero(self.object.any(axis=0))
        inside = self.object[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return bool(inside.mean() >= _PAGE)

    @property
    def within(self) -> Box:
        """The inside of the object's box, where a page has its picture."""
        top, left, bottom, right = self.box
        down, across = int((bottom - top) * _FRAME), int((right - left) * _FRAME)
        return top + down, left + across, bottom - down, right - across


def find_foreground(picture: NDArray[np.uint8], window: Box | None = None) -> Foreground | None:
    """The object in a picture (H, W, C), or in a window of it; None if nothing stands out.

    It is searched for twice: in the whole window, and then in the object's surroundings, at a finer scale and against
    the background there.
    """
    height, width = picture.shape[:2]
    window = window or (0, 0, height, width)
    first = _look(picture, window)
    if first is None:
        return None
    top, left, bottom, right = first.box
    margin = int(max(bottom - top, right - left) * _MARGIN) + 1
    near = (max(0, top - margin), max(0, left - margin), min(height, bottom + margin), min(width, right + margin))
    if (near[2] - near[0]) * (near[3] - near[1]) > 0.8 * height * width:
        return first
    return _look(picture, near, _grown(first.object, _NEARBY), window) or first


def _look(
    picture: NDArray[np.uint8], window: Box, within: Mask | None = None, seen: Box = (0, 0, 0, 0)
) -> Foreground | None:
    """The object in a window; of `within`, the parts of another window, `seen`, where it can be."""
    top, left, bottom, right = window
    pixels, step = _reduced(picture[top:bottom, left:right])
    height, width = pixels.shape[:2]
    if min(height, width) < LEAST_SIDE:
        return None
    surface, apart = _background(pixels)
    if within is not None:
        unit_y, unit_x = (seen[2] - seen[0]) / len(within), (seen[3] - seen[1]) / within.shape[1]
        rows = ((top - seen[0] + (np.arange(height) + 0.5) * step) / unit_y).astype(int).clip(0, len(within) - 1)
        columns = ((left - seen[1] + (np.arange(width) + 0.5) * step) / unit_x).astype(int)
        apart = apart * within[np.ix_(rows, columns.clip(0, within.shape[1] - 1))]
    inside = _object(apart)
    if inside is None:
        return None
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    box = (
        top + int(rows[0] * step), left + int(columns[0] * step),
        top + int((rows[-1] + 1) * step), left + int((columns[-1] + 1) * step),
    )  # fmt: skip
    return Foreground(pixels, surface, inside, box)


def _reduced(picture: NDArray[np.uint8]) -> tuple[Grid, int]:
    """The picture (h, w, C) from 0 to 1, reduced to about `_SEARCHED` pixels by the means of squares; their side."""
    step = max(1, round(max(picture.shape[:2]) / _SEARCHED))
    skip = max(1, step // 8)  # of a large picture, enough pixels of each square
    few, side = picture[::skip, ::skip], step // skip
    height, width = few.shape[0] // side, few.shape[1] // side
    squares = few[: height * side, : width * side].reshape(height, side, width, side, few.shape[2])
    return squares.mean(axis=(1, 3), dtype=np.float32) / np.float32(255), side * skip


def _background(pixels: Grid) -> tuple[Grid, Grid]:
    """The background (h, w, C), and how far each pixel is from it (h, w), in the background's deviations."""
    height, width, channels = pixels.shape
    y, x = (grid.ravel() for grid in np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"))
    basis = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y], axis=1)
    values: Grid = pixels.reshape(-1, channels).astype(np.float64)
    wide = max(1, round(_RING * min(height, width)))
    ring = np.ones((height, width), bool)
    ring[wide:-wide, wide:-wide] = False
    used = _majority(values, ring.ravel())
    for turn in range(_ROUNDS):
        terms = 3 if turn < 2 else 6
        surface = basis[:, :terms] @ _fit(basis[used, :terms], values[used])
        rest = _smooth((values - surface).reshape(pixels.shape)).reshape(-1, channels)
        apart = _deviations(rest, used)
        allowed = ring.ravel() if turn < 2 else np.ones(len(apart), bool)
        near = ~_grown((apart > _WEAK).reshape(height, width), 1).ravel() & allowed
        if near.sum() < 4 * basis.shape[1]:
            break
        used = near
    return surface.reshape(pixels.shape).clip(0, 1).astype(np.float32), apart.reshape(height, width).astype(np.float32)


def _majority(values: Grid, ring: Mask) -> Mask:
    """The pixels of the ring without those far from its median colour; the object may touch the picture's border."""
    far = np.abs(values - _median(values[ring])).max(axis=1)
    limit = max(2.5 * float(_median(far[ring])), 0.08)
    near: Mask = ring & (far <= limit)
    return near


def _fit(basis: Grid, values: Grid) -> Grid:
    """Least squares with a little weight on flatness, which matters where the background is seen on one side only."""
    flat = 1e-3 * len(basis) * np.diag([0.0, *[1.0] * (basis.shape[1] - 1)])
    solved: Grid = np.linalg.solve(basis.T @ basis + flat, basis.T @ values)
    return solved


def _deviations(rest: Grid, used: Mask) -> Grid:
    """(P,) Mahalanobis distance of differences (P, C) under the distribution of those of the background."""
    spread = _median(np.abs(rest[used])) * 1.4826
    inner = used & (np.abs(rest) <= 4 * np.maximum(spread, _LEAST_DEVIATION)).all(axis=1)
    covariance = rest[inner].T @ rest[inner] / max(1, inner.sum()) + _LEAST_DEVIATION**2 * np.eye(rest.shape[1])
    placed = rest @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    distances: Grid = np.sqrt((placed * placed).sum(axis=1) / rest.shape[1] ** 0.5)
    return distances


def _object(apart: Grid) -> Mask | None:
    """The parts of what differs from the background that belong to one object, without holes; None if there is none."""
    strong = apart > _STRONG
    if min(apart.shape) > _FINE:
        strong = _grown(_shrunk(strong, 1), 1)
    weak = apart > _WEAK
    if not _LEAST_AREA * strong.size <= strong.sum():
        return None
    parts: list[Mask] = []
    left = strong.copy()
    while left.any() and len(parts) < _MOST_PARTS:
        weight = _smooth(np.where(left, apart, 0)[..., None].astype(np.float64), 4)[..., 0] * left
        seed = np.zeros_like(left)
        seed[np.unravel_index(int(weight.argmax()), left.shape)] = True
        part = _spread(seed, weak)
        parts.append(part)
        left &= ~part
    largest = max(int(part.sum()) for part in parts)
    whole = np.logical_or.reduce([part for part in parts if part.sum() >= _LEAST_PART * largest])
    thin = whole & ~_grown(_shrunk(np.pad(whole, 2), 2), 3)[2:-2, 2:-2]
    edge = np.zeros_like(whole)
    edge[[0, -1]], edge[:, [0, -1]] = True, True
    whole &= ~_spread(edge & thin, thin)  # joints, cables and edges of tables, which lead out of the picture
    if not whole.any():
        return None
    whole = ~_spread(edge & ~whole, ~whole)
    if min(apart.shape) > _FINE:  # what was smoothed is a pixel larger
        whole = _shrunk(whole, 1) | (whole & edge)
    return whole if _LEAST_AREA * whole.size <= whole.sum() <= _MOST_AREA * whole.size else None


def _spread(seed: Mask, within: Mask) -> Mask:
    """The connected parts of `within` that the seed touches."""
    reached = seed & within
    while True:
        grown = _grown(_grown(reached, 1) & within, 1) & within
        if (grown == reached).all():
            return reached
        reached = grown


def _grown(mask: Mask, by: int) -> Mask:
    """The mask and everything within a square around each of its pixels."""
    for _ in range(by):
        rows = mask.copy()
        rows[1:] |= mask[:-1]
        rows[:-1] |= mask[1:]
        mask = rows.copy()
        mask[:, 1:] |= rows[:, :-1]
        mask[:, :-1] |= rows[:, 1:]
    return mask


def _shrunk(mask: Mask, by: int) -> Mask:
    return ~_grown(~mask, by)


def _smooth(grid: Grid, radius: int = 1) -> Grid:
    """The means of squares of 2 x radius + 1 pixels of (h, w, C)."""
    span = 2 * radius + 1
    for axis in (0, 1):
        size, before = grid.shape[axis], (slice(None),) * axis
        with_margins = grid.take(np.arange(-radius - 1, size + radius).clip(0, size - 1), axis)
        total = with_margins.cumsum(axis=axis)
        grid = (total[*before, span:] - total[*before, :size]) / span
    return grid


def _median(values: Grid) -> Grid:
    """`np.median` along axis 0, in a fraction of the time for a small picture."""
    low, high = (len(values) - 1) // 2, len(values) // 2
    ordered = np.partition(values, (low, high), axis=0)
    median: Grid = (ordered[low] + ordered[high]) / 2
    return median
