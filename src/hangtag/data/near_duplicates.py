"""Pairs of nearly equal images: re-encoded, shifted a little, brightened, cropped a little.

They are found in two steps. First, candidates have similar descriptors, which such changes hardly affect: the
magnitudes of the lowest frequencies of the Fourier transform (independent of position), whitened over the set so that
what distinguishes pictures counts (Jegou & Chum, 2012), of the whole picture and of its middle. Second, the two
pictures of each candidate are aligned with many small shifts and zooms, and their edges must correlate: either almost
perfectly, or well and much better than with any other picture of the set.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hangtag.mapped import MappedRows, rows_of, scratch
from hangtag.pictures import Images
from hangtag.progress import Progress

__all__ = ["Pairs", "groups_of", "near_pairs"]

_SIDE = 28  # pixels at which pictures are compared
_MARGIN = 2  # pixels at each side that a shift may have moved out
_KEEP, _DIMENSIONS, _FLOOR = 10, 96, 0.05  # lowest frequencies, whitened dimensions, least share of the largest spread
_MIDDLE = 0.925  # share of the side that the second descriptor sees
_LIKE = 0.77  # the lowest cosine of the descriptors of candidates
_SAME, _GOOD = 0.975, 0.88  # correlation of edges that suffices alone; that suffices if no other is as good
_BETTER = 0.6  # of the misfit of the next best, at most
_DIFFERENT = 0.5  # standard deviations by which a few neighbouring pixels of one thing never differ
_NEXT = 0.8  # correlation that is assumed for the next best if none was computed
_ZOOMS = (0.90, 0.9125, 0.925, 0.9375, 0.95)
_TINT = 16.0  # grey levels by which a quarter may be redder or bluer than in the other picture
_BLANK = 2.0  # grey levels of standard deviation; below, there is nothing to compare
_BLOCK, _ROWS_AT_ONCE, _PAIRS_AT_ONCE = 256, 32, 1000
_PIXELS_AT_ONCE = 4_000_000
_PICTURES_AT_ONCE = 8192
_MOST_PAIRS = 10_000_000  # candidates in memory before the weaker ones are dropped
_WINDOW = 100_000  # images that one is compared with, nearest along the first principal component
_MOST_LIKE = 16  # candidates of one image
_LARGEST_GROUP = 50  # images


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of nearly equal images, the most certain first.

    Attributes:
        first, second: (M,) int64 positions, first < second.
        certainty: (M,) float, 0 to 1: the correlation of their edges at the best alignment.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    certainty: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.first)


def near_pairs(images: Images | MappedRows, progress: Progress | None = None) -> Pairs:
    """Pairs of images that are nearly, but not exactly, equal.

    In a set of up to 100,000 images, each is compared with every other; in a larger set, with the 100,000 nearest to it
    along the first principal component, so that time grows linearly. Blank images are in no pair. Intermediate results
    of a large set are kept in files, not in memory.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8; may be mapped from a file.
        progress: called with (what is happening, done, total).
    """
    if len(images) < 2:
        return _pairs([], [], [])
    small = _small(images)
    spread = [small[part].std(axis=(1, 2)) for part in _parts(len(small), _PICTURES_AT_ONCE)]
    usable = np.flatnonzero(np.concatenate(spread) > _BLANK)
    if len(usable) < 2:
        return _pairs([], [], [])
    first, second = _candidates(small, usable, progress)
    equal = np.flatnonzero(~_differ(small, first, second))
    same = equal[~_differ(images, first[equal], second[equal])]
    first, second = np.delete(first, same), np.delete(second, same)
    if images.ndim == 4 and len(first):
        tint = _tints(images)
        alike = np.abs(tint[first] - tint[second]).max(axis=1) < _TINT
        first, second = first[alike], second[alike]
    fit = _fit(small, first, second, progress)
    sure = (fit > _SAME) | ((fit > _GOOD) & (1 - fit < _BETTER * (1 - _next_best(first, second, fit, len(images)))))
    first, second, fit = first[sure], second[sure], fit[sure]
    alike = _largest_difference(images, first, second) < _DIFFERENT
    return _pairs(first[alike], second[alike], fit[alike])


def groups_of(count: int, pairs: Pairs) -> NDArray[np.int64]:
    """(N,) a number for each image, equal for images that are connected by pairs.

    The most certain pairs connect first, and no group grows beyond 50 images: chains of similar pictures must not join
    a whole set.
    """
    group = np.arange(count, dtype=np.int64)
    members: dict[int, list[int]] = {}
    for a, b in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        one, other = int(group[a]), int(group[b])
        if one == other:
            continue
        joined = members.get(one, [a]) + members.get(other, [b])
        if len(joined) > _LARGEST_GROUP:
            continue
        members.pop(other, None)
        members[one] = joined
        group[joined] = one
    return group


def _pairs(first: Any, second: Any, certainty: Any) -> Pairs:
    a, b = np.asarray(first, np.int64), np.asarray(second, np.int64)
    sure = np.asarray(certainty, np.float64)
    order = np.lexsort((np.maximum(a, b), np.minimum(a, b), -sure))
    return Pairs(np.minimum(a, b)[order], np.maximum(a, b)[order], sure[order])


def _parts(count: int, at_once: int) -> list[slice]:
    return [slice(start, start + at_once) for start in range(0, count, at_once)]


def _differ(
    images: Images | MappedRows | NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(M,) whether the pixels of two images differ anywhere."""
    found = np.zeros(len(first), bool)
    for part in _parts(len(first), max(1, _PIXELS_AT_ONCE // int(np.prod(images.shape[1:3])))):
        one, other = rows_of(images, first[part]), rows_of(images, second[part])
        found[part] = (one != other).reshape(len(one), -1).any(axis=1)
    return found


# --- small grey pictures ---------------------------------------------------------------------------------------


def _small(images: Images | MappedRows) -> NDArray[np.float32]:
    """(N, 28, 28) grey levels, by area-weighted linear interpolation."""
    height, width = images.shape[1:3]
    rows, columns = _shrinking(height), _shrinking(width)
    found = scratch((len(images), _SIDE, _SIDE))
    for places in _as_in_file(images):
        pixels = rows_of(images, places).astype(np.float32)
        grey = pixels if pixels.ndim == 3 else pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        found[places] = rows @ grey @ columns.T
    return found


def _as_in_file(images: Images | MappedRows) -> list[NDArray[np.int64]]:
    """All positions of a set, in blocks, in the order of the file, in which a disk reads fastest."""
    order = np.argsort(images.positions) if isinstance(images, MappedRows) else np.arange(len(images))
    return [order[part] for part in _parts(len(order), max(1, _PIXELS_AT_ONCE // int(np.prod(images.shape[1:3]))))]


def _tints(images: Images | MappedRows) -> NDArray[np.float32]:
    """(N, 8) how far red and blue are from the mean of the channels in each quarter, in grey levels."""
    found = np.empty((len(images), 8), np.float32)
    down, across = images.shape[1] // 2, images.shape[2] // 2
    for places in _as_in_file(images):
        pixels = rows_of(images, places).astype(np.float32)
        halves = (pixels[:, :down], pixels[:, down:])
        quarters = [quarter for half in halves for quarter in (half[:, :, :across], half[:, :, across:])]
        means = np.stack([quarter.mean(axis=(1, 2)) for quarter in quarters], axis=1)
        away = means[:, :, (0, 2)] - means.mean(axis=2, keepdims=True)
        found[places] = away.reshape(len(pixels), 8)
    return found


def _shrinking(size: int) -> NDArray[np.float32]:
    """(28, size) weights of a triangle as wide as a pixel of the larger grid."""
    if size == _SIDE:
        return np.eye(_SIDE, dtype=np.float32)
    step = size / _SIDE
    centre = (np.arange(_SIDE) + 0.5) * step - 0.5
    weight = np.maximum(0, 1 - np.abs(np.arange(size)[None] - centre[:, None]) / max(step, 1.0))
    weights: NDArray[np.float32] = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
    return weights


def _sampling(zoom: float, offset: float) -> NDArray[np.float32]:
    """(28, 28) weights that read a line at offset + zoom * place, interpolated linearly."""
    at = np.clip(offset + zoom * (np.arange(_SIDE) + 0.5) - 0.5, 0, _SIDE - 1)
    low = np.clip(np.floor(at).astype(int), 0, _SIDE - 2)
    found = np.zeros((_SIDE, _SIDE), np.float32)
    found[np.arange(_SIDE), low] = 1 - (at - low)
    found[np.arange(_SIDE), low + 1] += at - low
    return found


# --- candidates ------------------------------------------------------------------------------------------------


def _candidates(
    small: NDArray[np.float32], usable: NDArray[np.int64], progress: Progress | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of similar descriptors among some pictures: first (M,), second (M,); each pair once."""
    whole, middle, order = _descriptors(small, usable)
    count = len(usable)
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    for start in range(0, count, _BLOCK):
        block = whole[start : start + _BLOCK]
        low = max(0, min(start + _BLOCK // 2 - _WINDOW // 2, count - _WINDOW))
        window = slice(low, low + _WINDOW)
        for others, half in ((whole[window], True), (middle[window], False)):
            likeness = block @ others.T
            for few in _parts(len(block), _ROWS_AT_ONCE):
                rows, columns = np.divmod(np.flatnonzero(likeness[few] > _LIKE), likeness.shape[1])
                values = likeness[few][rows, columns]
                a, b = start + few.start + rows, low + columns
                keep = a < b if half else a != b
                found.append((a[keep], b[keep], values[keep]))
                if sum(len(each[0]) for each in found) > _MOST_PAIRS:
                    found = [_likest(found)]
        if progress:
            progress("searching for similar images", min(start + _BLOCK, count), count)
    first, second, _ = _likest(found)
    return usable[order[first]], usable[order[second]]


def _likest(
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Each pair once, and only those that are among the most similar ones of either image."""
    first, second, likeness = (np.concatenate(each) for each in zip(*found, strict=True))
    low_end, high_end = np.minimum(first, second), np.maximum(first, second)
    best = np.lexsort((-likeness, high_end, low_end))
    low_end, high_end, likeness = low_end[best], high_end[best], likeness[best]
    once = np.ones(len(best), bool)
    once[1:] = (low_end[1:] != low_end[:-1]) | (high_end[1:] != high_end[:-1])
    low_end, high_end, likeness = low_end[once], high_end[once], likeness[once]
    keep = _most_like(low_end, high_end, likeness)
    return low_end[keep], high_end[keep], likeness[keep]


def _most_like(first: NDArray[np.int64], second: NDArray[np.int64], likeness: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(M,) whether a pair is among the most similar ones of either image."""
    keep = np.zeros(len(first), bool)
    for ends in (first, second):
        order = np.lexsort((-likeness, ends))
        sorted_ends = ends[order]
        starts = np.flatnonzero(np.r_[True, sorted_ends[1:] != sorted_ends[:-1]])
        lengths = np.diff(np.r_[starts, len(order)])
        rank = np.arange(len(order)) - np.repeat(starts, lengths)
        keep[order[rank < _MOST_LIKE]] = True
    return keep


def _descriptors(
    small: NDArray[np.float32], usable: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """(M, D) each, D at most 96: of whole pictures and of their middles, whitened, of length 1; and their order.

    In sets too large to compare all pairs, the order puts similar pictures near each other.
    """
    few = _magnitudes(rows_of(small, usable[:: max(1, len(usable) // 6000)]))
    mean = few.mean(axis=0)
    _, spread, directions = np.linalg.svd(few - mean, full_matrices=False)
    kept = min(_DIMENSIONS, max(8, len(few) // 4))  # few pictures: keep out differences by chance
    spread = spread[:kept] / np.sqrt(len(few))
    weights = (directions[:kept].T / (spread + _FLOOR * spread[0] + 1e-6)).astype(np.float32)
    inner = _sampling(_MIDDLE, (1 - _MIDDLE) * _SIDE / 2)
    whole, middle = (scratch((len(usable), weights.shape[1])) for _ in range(2))
    for part in _parts(len(usable), _PICTURES_AT_ONCE):
        pictures = rows_of(small, usable[part])
        whole[part] = _of_length_1((_magnitudes(pictures) - mean) @ weights)
        middle[part] = _of_length_1((_magnitudes((inner @ pictures @ inner.T).astype(np.float32)) - mean) @ weights)
    if len(usable) <= _WINDOW:
        return whole, middle, np.arange(len(usable))
    order = np.argsort(whole[:, 0], kind="stable")
    return _in_order(whole, order), _in_order(middle, order), order


def _in_order(rows: NDArray[np.float32], order: NDArray[np.int64]) -> NDArray[np.float32]:
    found = scratch(rows.shape)
    for part in _parts(len(order), _PICTURES_AT_ONCE):
        found[part] = rows_of(rows, order[part])
    return found


def _magnitudes(small: NDArray[np.float32]) -> NDArray[np.float32]:
    """Square roots of the magnitudes of the lowest frequencies, of pictures faded out at their edges."""
    place = np.arange(_SIDE)
    fade = np.minimum(1, np.minimum(place + 1, _SIDE - place) / 8).astype(np.float32)
    faded = (small - small.mean(axis=(1, 2), keepdims=True)) * np.outer(fade, fade)
    size = np.abs(np.fft.rfft2(faded, s=(32, 32)))
    low = np.concatenate([size[:, :_KEEP, :_KEEP], size[:, 1 - _KEEP :, :_KEEP]], axis=1)
    found: NDArray[np.float32] = np.sqrt(low.reshape(len(small), -1)[:, 1:]).astype(np.float32)
    return found


def _of_length_1(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)).astype(np.float32)
    return scaled


# --- alignment -------------------------------------------------------------------------------------------------


def _fit(
    small: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64], progress: Progress | None
) -> NDArray[np.float32]:
    """(M,) the best correlation of the edges of one picture, shifted and zoomed, with those of the other."""
    found = np.empty(len(first), np.float32)
    for start in range(0, len(first), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        found[part] = _best_fit(small[first[part]], small[second[part]])
        if progress:
            progress("comparing similar images", min(start + _PAIRS_AT_ONCE, len(first)), len(first))
    return found


def _best_fit(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    shifts = np.arange(-1.0, 2.0)
    best = _best_of(one, other, 1.0, shifts, shifts, edges=True)[0]
    rough = np.linspace(0, (1 - _MIDDLE) * _SIDE, 3)  # first a rough position of one in the other
    into = [_best_of(a, b, _MIDDLE, rough, rough, edges=False) for a, b in ((one, other), (other, one))]
    swapped = into[1][0] > into[0][0]
    moved, fixed = np.where(swapped[:, None, None], other, one), np.where(swapped[:, None, None], one, other)
    place = np.where(swapped, into[1][1], into[0][1])
    for cell in range(9):  # then the exact one
        here = np.flatnonzero(place == cell)
        if len(here):
            for zoom in _ZOOMS:
                down, across = (_around(number / 2, zoom) for number in divmod(cell, 3))
                fit = _best_of(moved[here], fixed[here], zoom, down, across, edges=True)[0]
                best[here] = np.maximum(best[here], fit)
    return best


def _around(share: float, zoom: float) -> NDArray[np.float64]:
    """Three of the five offsets of a crop of this size, around a share of the largest."""
    middle = round(1 + 2 * share)
    return np.linspace(0, (1 - zoom) * _SIDE, 5)[middle - 1 : middle + 2]


def _best_of(
    moved: NDArray[np.float32], fixed: NDArray[np.float32], zoom: float, down: NDArray[np.float64],
    across: NDArray[np.float64], edges: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:  # fmt: skip
    """(M,) the best correlation over all pairs of offsets, and (M,) the number of its pair."""
    inside = slice(_MARGIN, _SIDE - _MARGIN)
    wanted = _compared(fixed[:, inside, inside], edges)
    best, place = np.full(len(moved), -1.0, np.float32), np.zeros(len(moved), np.int64)
    for row, below in enumerate(down):
        rows = _sampling(zoom, float(below))[inside] @ moved
        for column, beside in enumerate(across):
            sampled = rows @ _sampling(zoom, float(beside))[inside].T
            fit = (_compared(sampled.astype(np.float32), edges) * wanted).sum(axis=1)
            place[fit > best] = row * len(across) + column
            best = np.maximum(best, fit)
    return best, place


def _largest_difference(
    images: Images | MappedRows, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """(M,) the largest difference of 3 x 3 pixels at the alignment where it is smallest, in standard deviations.

    Two pictures that are alike as a whole may be of two things: a clock at another time, a face with another mouth.
    """
    found = np.empty(len(first), np.float32)
    for part in _parts(len(first), _PAIRS_AT_ONCE // 4):
        one, other = (_channels(images, ends[part]) for ends in (first, second))
        best = np.full(len(one), np.inf, np.float32)
        for zoom in (1.0, *_ZOOMS):
            offsets = np.arange(-1.0, 2.0) if zoom == 1 else np.linspace(0, (1 - zoom) * _SIDE, 5)
            for moved, fixed in ((one, other), (other, one)) if zoom < 1 else ((one, other),):
                for down in offsets:
                    rows = _sampling(zoom, float(down)) @ moved
                    for across in offsets:
                        sampled = (rows @ _sampling(zoom, float(across)).T).astype(np.float32)
                        best = np.minimum(best, _difference(sampled, fixed))
        found[part] = best
    return found


def _channels(images: Images | MappedRows, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """(M, C, 28, 28) levels of each channel."""
    pixels = rows_of(images, positions).astype(np.float32)
    pixels = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1)
    return np.asarray(_shrinking(pixels.shape[2]) @ pixels @ _shrinking(pixels.shape[3]).T, np.float32)


def _difference(moved: NDArray[np.float32], fixed: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M,) the largest difference of 3 x 3 pixels of (M, C, 28, 28), after the best change of brightness."""
    inside = slice(_MARGIN, _SIDE - _MARGIN)
    axes = (1, 2, 3)
    inner = [each[:, :, inside, inside] for each in (moved, fixed)]
    one, other = (np.asarray(each - each.mean(axis=axes, keepdims=True)) for each in inner)
    gain = (one * other).sum(axis=axes, keepdims=True) / (np.square(one).sum(axis=axes, keepdims=True) + 1e-6)
    left = np.asarray(gain * one - other).cumsum(axis=2).cumsum(axis=3)
    squares = left[:, :, 3:, 3:] - left[:, :, :-3, 3:] - left[:, :, 3:, :-3] + left[:, :, :-3, :-3]
    return np.asarray(np.abs(squares / 9).max(axis=axes) / (other.std(axis=axes) + 1e-6), np.float32)


def _compared(pictures: NDArray[np.float32], edges: bool) -> NDArray[np.float32]:
    """(M, D) with mean 0 and length 1, so that a product is a correlation."""
    if edges:
        down, across = np.diff(pictures, axis=1), np.diff(pictures, axis=2)
        rows = np.concatenate([down.reshape(len(down), -1), across.reshape(len(across), -1)], axis=1)
    else:
        rows = pictures.reshape(len(pictures), -1)
    return _of_length_1(rows - rows.mean(axis=1, keepdims=True))


def _next_best(
    first: NDArray[np.int64], second: NDArray[np.int64], fit: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    """(M,) for each pair, the best fit of either image with a third one."""
    best = np.full((count, 2), _NEXT, np.float32)  # the best and the second best of each image
    for a, b, value in zip(first.tolist(), second.tolist(), fit.tolist(), strict=True):
        for end in (a, b):
            if value > best[end, 0]:
                best[end] = value, best[end, 0]
            elif value > best[end, 1]:
                best[end, 1] = value
    one, other = (np.where(best[ends, 0] > fit, best[ends, 0], best[ends, 1]) for ends in (first, second))
    next_best: NDArray[np.float32] = np.maximum(one, other)
    return next_best
