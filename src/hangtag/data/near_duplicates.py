"""Pairs of nearly equal images: re-encoded, shifted a little, brightened, cropped a little.

They are found in two steps. First, candidates have similar descriptors, which such changes hardly affect: the
magnitudes of the lowest frequencies of the Fourier transform (independent of position), whitened over the set so that
what distinguishes pictures counts (Jegou & Chum, 2012), of the whole picture and of its middle. Second, the two
pictures of each candidate are aligned with many small shifts and zooms, and their edges must correlate: either almost
perfectly, or well and much better than with any other picture of the set.

Both steps are matrix products. Pictures are sorted into the cells of a k-d tree over the first principal components of
their descriptors before whitening, which such changes rarely move by more than 0.15; a cell is not compared with
pictures farther away than 0.2, nor with middles farther away than 0.15, since a crop rarely moves by more than 0.13
from the middle of its picture. Descriptors are compared by an upper bound of their cosine, which needs half of the
products (the other halves contribute at most the product of their lengths, by the Cauchy-Schwarz inequality); the few
pairs whose bound is high enough are computed in full. The length of a picture's edges at an alignment is computed once
for each picture, not for each pair; its square is linear in the products of neighbouring differences of pixels.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from hangtag.machine import blas_threads, processors
from hangtag.mapped import MappedRows, as_slice, rows_of, scratch
from hangtag.pictures import Images
from hangtag.progress import Progress

__all__ = ["Pairs", "groups_of", "near_pairs"]

_SIDE = 28  # pixels at which pictures are compared
_MARGIN = 2  # pixels at each side that a shift may have moved out
_KEEP, _DIMENSIONS, _FLOOR = 10, 96, 0.05  # lowest frequencies, whitened dimensions, least share of the largest spread
_MIDDLE = 0.925  # share of the side that the second descriptor sees
_LIKE = 0.77  # the lowest cosine of the descriptors of candidates
_AXES = 8  # principal components of unwhitened descriptors of length 1
_AWAY, _AWAY_FROM_MIDDLE = 0.2, 0.15  # largest distance along them; that of a picture from a middle; docs/log.md
_SAME, _GOOD = 0.975, 0.88  # correlation of edges that suffices alone; that suffices if no other is as good
_EQUAL = 0.999  # correlation from which pictures are compared pixel by pixel
_WORTH = 0.7  # correlation at the middle zoom, below which no other zoom is tried
_BETTER = 0.6  # of the misfit of the next best, at most
_DIFFERENT = 0.5  # standard deviations by which a few neighbouring pixels of one thing never differ
_NEXT = 0.8  # correlation that is assumed for the next best if none was computed
_ZOOMS = (0.925, 0.90, 0.9125, 0.9375, 0.95)  # the middle one first
_ALL_ZOOMS = (1.0, *_ZOOMS)
_TINT = 16.0  # grey levels by which a quarter may be redder or bluer than in the other picture
_BLANK = 2.0  # grey levels of standard deviation; below, there is nothing to compare
_BLOCK, _COLUMNS_AT_ONCE, _PAIRS_AT_ONCE, _CELL_AT_ONCE = 256, 2048, 1000, 256
_PIXELS_AT_ONCE = 1_000_000
_PICTURES_AT_ONCE = 1024
_MOST_PAIRS = 2_000_000  # candidates in memory before the weaker ones are dropped
_CHECKED_AT_ONCE = 65_536  # pairs of descriptors whose bound is high enough
_ROUNDING = 1e-5  # of a bound
_MOST_THREADS = 16  # each needs some 50 MB
_WINDOW = 100_000  # images that a block is compared with at most, the nearest
_MOST_LIKE = 16  # candidates of one image
_LARGEST_GROUP = 50  # images
_INSIDE = slice(_MARGIN, _SIDE - _MARGIN)

T = TypeVar("T")
_Similar: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""First and second of some pairs, and their cosine."""


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

    Images are compared unless their coarse descriptors are far apart; in a set of more than 100,000, with the 100,000
    whose descriptors are nearest, so that time grows linearly. Blank images are in no pair. Intermediate results
    of a large set are kept in files, not in memory.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8; may be mapped from a file.
        progress: called with (what is happening, done, total).
    """
    if len(images) < 2:
        return _pairs([], [], [])
    small = _small(images, progress)
    spread = _in_threads(lambda part: small[part].std(axis=(1, 2)), len(small), _PICTURES_AT_ONCE)
    usable = np.flatnonzero(np.concatenate([*spread]) > _BLANK)
    if len(usable) < 2:
        return _pairs([], [], [])
    first, second = _candidates(small, usable, progress)
    if images.ndim == 4 and len(first):
        tint = _tints(images)
        alike = np.abs(tint[first] - tint[second]).max(axis=1) < _TINT
        first, second = first[alike], second[alike]
    fit = _fit(small, first, second, progress)
    close = np.flatnonzero(fit > _EQUAL)
    equal = close[~_differ(images, first[close], second[close])]
    other = np.delete(np.arange(len(fit)), equal)
    first, second, fit = first[other], second[other], fit[other]
    sure = (fit > _SAME) | ((fit > _GOOD) & (1 - fit < _BETTER * (1 - _next_best(first, second, fit, len(images)))))
    first, second, fit = first[sure], second[sure], fit[sure]
    same_thing = _same_thing(images, first, second, progress)
    return _pairs(first[same_thing], second[same_thing], fit[same_thing])


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


def _in_threads(
    work: Callable[[slice], T], count: int, at_once: int, what: str = "", progress: Progress | None = None
) -> Iterator[T]:
    """What `work` returns for each part of `count` rows, in their order; the parts are worked on at the same time."""
    parts = _parts(count, at_once)
    # Matrix products that themselves use several threads would wait for each other.
    with blas_threads(1), ThreadPoolExecutor(min(processors(), _MOST_THREADS)) as pool:
        for part, found in zip(parts, pool.map(work, parts), strict=True):
            yield found
            if progress:
                progress(what, min(part.stop, count), count)


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


def _small(images: Images | MappedRows, progress: Progress | None) -> NDArray[np.float32]:
    """(N, 28, 28) grey levels, by area-weighted linear interpolation."""
    height, width = images.shape[1:3]
    rows, columns = _shrinking(height), _shrinking(width)
    found = scratch((len(images), _SIDE, _SIDE))

    def shrink(places: NDArray[np.int64]) -> None:
        pixels = rows_of(images, places).astype(np.float32)
        grey = pixels if pixels.ndim == 3 else pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        found[as_slice(places)] = grey if (height, width) == (_SIDE, _SIDE) else rows @ grey @ columns.T

    _as_in_file(images, shrink, "shrinking images", progress)
    return found


def _as_in_file(
    images: Images | MappedRows, work: Callable[[NDArray[np.int64]], None], what: str = "",
    progress: Progress | None = None,
) -> None:  # fmt: skip
    """Do this for all positions of a set, in blocks, in the order of the file, in which a disk reads fastest."""
    order = np.argsort(images.positions) if isinstance(images, MappedRows) else np.arange(len(images))
    at_once = max(1, _PIXELS_AT_ONCE // int(np.prod(images.shape[1:3])))
    for _ in _in_threads(lambda part: work(order[part]), len(order), at_once, what, progress):
        pass


def _tints(images: Images | MappedRows) -> NDArray[np.float32]:
    """(N, 8) how far red and blue are from the mean of the channels in each quarter, in grey levels."""
    found = np.empty((len(images), 8), np.float32)
    down, across = images.shape[1] // 2, images.shape[2] // 2

    def look(places: NDArray[np.int64]) -> None:
        pixels = rows_of(images, places).astype(np.float32)
        halves = (pixels[:, :down], pixels[:, down:])
        quarters = [quarter for half in halves for quarter in (half[:, :, :across], half[:, :, across:])]
        means = np.stack([quarter.mean(axis=(1, 2)) for quarter in quarters], axis=1)
        away = means[:, :, (0, 2)] - means.mean(axis=2, keepdims=True)
        found[places] = away.reshape(len(pixels), 8)

    _as_in_file(images, look)
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


@dataclass(frozen=True, eq=False)
class _Described:
    """Descriptors of M pictures, or of their middles, in an order that puts similar ones near each other.

    Attributes:
        front, back: (M, D) each, the halves of the descriptor; in front of each stands the length of the back.
        place: (8, B, 256) the unwhitened descriptor along its first principal components; infinite after the last.
        low, high: (8, B) the least and the largest place in each block.
    """

    front: NDArray[np.float32]
    back: NDArray[np.float32]
    place: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]

    def near(
        self, low: NDArray[np.float32], high: NDArray[np.float32], first_block: int, most: float
    ) -> NDArray[np.int64]:
        """Positions of those whose place is at most this far from a box, in blocks from `first_block` on."""
        away = _beyond(self.low[:, first_block:], self.high[:, first_block:], low, high)
        blocks = np.flatnonzero(away <= most)
        if len(blocks) * _BLOCK > _WINDOW:
            blocks = np.sort(blocks[np.argsort(away[blocks], kind="stable")[: _WINDOW // _BLOCK]])
        blocks += first_block
        place = np.take(self.place, blocks, axis=1).reshape(len(low), -1)
        which, row = np.divmod(np.flatnonzero(_beyond(place, place, low, high) <= most), _BLOCK)
        return blocks[which] * _BLOCK + row


def _beyond(
    low: NDArray[np.float32], high: NDArray[np.float32], from_low: NDArray[np.float32], to_high: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(M,) distances of boxes (8, M) from one box (8,)."""
    squares = np.zeros(low.shape[1], np.float32)
    for axis in range(len(low)):
        squares += np.square(np.maximum(np.maximum(low[axis] - to_high[axis], from_low[axis] - high[axis]), 0))
    return np.sqrt(squares)


def _candidates(
    small: NDArray[np.float32], usable: NDArray[np.int64], progress: Progress | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of similar descriptors among some pictures: first (M,), second (M,); each pair once."""
    whole, middle, order = _descriptors(small, usable, progress)
    found = [_none_similar()]
    for each in _in_threads(
        lambda rows: _similar(whole, middle, rows), len(usable), _BLOCK, "searching for similar images", progress
    ):
        found = _fewer([*found, each])
    first, second, _ = _likest(found)
    ends = usable[order[first]], usable[order[second]]
    return np.minimum(*ends), np.maximum(*ends)


def _similar(whole: _Described, middle: _Described, part: slice) -> _Similar:
    """Pairs of a block of pictures with later ones and with middles, of those near the block."""
    block, rows, back = part.start // _BLOCK, whole.front[part], whole.back[part]
    found = [_none_similar()]
    for others, first_block, most in ((whole, block, _AWAY), (middle, 0, _AWAY_FROM_MIDDLE)):
        near = others.near(whole.low[:, block], whole.high[:, block], first_block, most)
        for some in _parts(len(near), _COLUMNS_AT_ONCE):
            columns = near[some]
            bound = (np.take(others.front, columns, axis=0) @ rows.T).reshape(-1)
            possible = np.flatnonzero(bound > _LIKE - _ROUNDING)
            for few in _parts(len(possible), _CHECKED_AT_ONCE):
                column, row = np.divmod(possible[few], len(rows))
                b = columns[column]
                likeness = bound[possible[few]] - rows[row, 0] * others.front[b, 0]
                likeness += np.einsum("ij,ij->i", back[row], np.take(others.back, b, axis=0))
                a = part.start + row
                keep = (likeness > _LIKE) & (a < b if others is whole else a != b)
                found.append((a[keep], b[keep], likeness[keep]))
            found = _fewer(found)
    return _joined(found)


def _none_similar() -> _Similar:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)


def _joined(found: list[_Similar]) -> _Similar:
    first, second, likeness = (np.concatenate(each) for each in zip(*found, strict=True))
    return first, second, likeness


def _fewer(found: list[_Similar]) -> list[_Similar]:
    """The same, without the weaker pairs if there are too many and twice as many as the last time."""
    most = max(_MOST_PAIRS, 2 * len(found[0][0]))
    return [_likest(found)] if sum(len(each[0]) for each in found) > most else found


def _likest(found: list[_Similar]) -> _Similar:
    """Each pair once, and only those that are among the most similar ones of either image."""
    first, second, likeness = _joined(found)
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
    small: NDArray[np.float32], usable: NDArray[np.int64], progress: Progress | None
) -> tuple[_Described, _Described, NDArray[np.int64]]:
    """Of whole pictures and of their middles, whitened, of length 1, D at most 96; and their order."""
    few = _magnitudes(rows_of(small, usable[:: max(1, len(usable) // 6000)]), 1.0)
    mean = few.mean(axis=0)
    variances, directions = _principal(few)
    kept = min(_DIMENSIONS, len(few), max(8, len(few) // 4))  # few pictures: keep out differences by chance
    spread = np.sqrt(np.maximum(variances[:kept], 0))
    weights = (directions[:, :kept] / (spread + _FLOOR * spread[0] + 1e-6)).astype(np.float32)
    axes = np.ascontiguousarray(_principal(_of_length_1(few))[1][:, :_AXES], np.float32)
    half = (kept + 1) // 2
    of_both = [[scratch((len(usable), width)) for width in (1 + half, kept - half)] for _ in range(2)]
    places = np.empty((2, axes.shape[1], len(usable)), np.float32)

    def describe(part: slice) -> None:
        pictures = rows_of(small, usable[part])
        for (front, back), place, share in zip(of_both, places, (1.0, _MIDDLE), strict=True):
            magnitudes = _magnitudes(pictures, share)
            rows = _of_length_1((magnitudes - mean) @ weights)
            back[part] = rows[:, half:]
            front[part] = np.c_[np.linalg.norm(rows[:, half:], axis=1), rows[:, :half]]
            place[:, part] = (_of_length_1(magnitudes) @ axes).T

    for _ in _in_threads(describe, len(usable), _PICTURES_AT_ONCE, "describing images", progress):
        pass
    order = _neighbours_in_blocks(places[0])
    places, starts = places[:, :, order], np.arange(0, len(order), _BLOCK)
    ends = [operation.reduceat(places, starts, axis=2) for operation in (np.minimum, np.maximum)]
    padded = np.pad(places, ((0, 0), (0, 0), (0, -len(order) % _BLOCK)), constant_values=np.inf)
    blocks = padded.reshape(*places.shape[:2], -1, _BLOCK)
    halves = ([_in_order(rows, order) for rows in each] for each in of_both)
    whole, middle = (_Described(*each, *box) for each, *box in zip(halves, blocks, *ends, strict=True))
    return whole, middle, order


def _principal(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances (D,) of rows (M, D) along their principal components, the largest first, and the components (D, D)."""
    variances, directions = np.linalg.eigh(np.cov(rows, rowvar=False, bias=True))
    return variances[::-1], directions[:, ::-1]


def _neighbours_in_blocks(place: NDArray[np.float32]) -> NDArray[np.int64]:
    """(M,) an order in which blocks are cells of a k-d tree."""
    order = np.arange(place.shape[1])
    cells = [slice(0, len(order))]
    while cells:
        cell = cells.pop()
        blocks = -(-(cell.stop - cell.start) // _BLOCK)
        if blocks > 1:
            rows, half = order[cell], blocks // 2 * _BLOCK
            widest = place[:, rows].var(axis=1).argmax()
            order[cell] = rows[np.argpartition(place[widest, rows], half)]
            cells += [slice(cell.start, cell.start + half), slice(cell.start + half, cell.stop)]
    return order


def _in_order(rows: NDArray[np.float32], order: NDArray[np.int64]) -> NDArray[np.float32]:
    found = scratch(rows.shape)
    for part in _parts(len(order), _CHECKED_AT_ONCE):
        found[part] = rows_of(rows, order[part])
    return found


def _magnitudes(small: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """(N, 189) square roots of the magnitudes of the lowest frequencies, of pictures faded out at their edges.

    Args:
        share: of each side, the middle part that is used.
    """
    place = np.arange(_SIDE)
    fade = np.minimum(1, np.minimum(place + 1, _SIDE - place) / 8)
    angles = 2 * np.pi / 32 * np.arange(_KEEP)[:, None] * place
    inner = _sampling(share, (1 - share) * _SIDE / 2)
    waves = ((np.concatenate([np.cos(angles), np.sin(angles)]) * fade) @ inner).astype(np.float32)
    across = inner.mean(axis=0)
    centred = small - np.einsum("nij,i,j->n", small, across, across, optimize=True)[:, None, None]
    both = (waves @ (centred.reshape(-1, _SIDE) @ waves.T).reshape(-1, _SIDE, 2 * _KEEP)).reshape(
        -1, 2, _KEEP, 2, _KEEP
    )
    cos_cos, cos_sin, sin_cos, sin_sin = both[:, 0, :, 0], both[:, 0, :, 1], both[:, 1, :, 0], both[:, 1, :, 1]
    ahead = np.square(cos_cos - sin_sin) + np.square(cos_sin + sin_cos)
    back = np.square(cos_cos + sin_sin) + np.square(cos_sin - sin_cos)  # frequencies below 0 along the columns
    low = np.concatenate([ahead, back[:, :0:-1]], axis=1)
    found: NDArray[np.float32] = np.sqrt(np.sqrt(low.reshape(len(small), -1)[:, 1:]))
    return found


def _of_length_1(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    scaled: NDArray[np.float32] = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)).astype(np.float32)
    return scaled


# --- alignment -------------------------------------------------------------------------------------------------


def _fit(
    small: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64], progress: Progress | None
) -> NDArray[np.float32]:
    """(M,) the best correlation of the edges of one picture, shifted and zoomed, with those of the other."""
    images, ends = np.unique(np.concatenate([first, second]), return_inverse=True)
    one, other = ends.reshape(2, -1)
    lengths = scratch((len(images), sum(_sampled(zoom).shape[0] ** 2 for zoom in (*_ALL_ZOOMS, None))))
    edges = scratch((len(images), *_sampled(1.0).shape[1:2] * 2))

    def measure(part: slice) -> None:
        pictures = small[images[part]]
        lengths[part], edges[part] = _lengths(pictures), _edges_of(pictures)

    def compare(part: slice) -> NDArray[np.float32]:
        ends = (at[part] for at in (one, other))
        return _best_fit(*(_Measured(small[images[at]], lengths[at], edges[at]) for at in ends))

    for _ in _in_threads(measure, len(images), _CELL_AT_ONCE, "measuring edges of images", progress):
        pass
    found = _in_threads(compare, len(first), _PAIRS_AT_ONCE, "comparing similar images", progress)
    return np.concatenate([np.empty(0, np.float32), *found])


class _Measured(NamedTuple):
    """Pictures (M, 28, 28), and what `_lengths` and `_edges_of` say about them."""

    pictures: NDArray[np.float32]
    lengths: NDArray[np.float32]
    edges: NDArray[np.float32]


def _best_fit(one: _Measured, other: _Measured) -> NDArray[np.float32]:
    shifts, rough = _sampled(1.0), _sampled(None)
    edges = _products(one.pictures, other.edges, shifts, shifts)
    best: NDArray[np.float32] = (edges / (one.lengths[:, :9] + 1e-6)).max(axis=1)
    ways = ((one, other), (other, one))
    into = [  # first a rough position of one in the other
        _products(moved.pictures, _pixels_of(fixed.pictures), rough, rough) / (moved.lengths[:, -9:] + 1e-6)
        for moved, fixed in ways
    ]
    swapped = into[1].max(axis=1) > into[0].max(axis=1)
    place = np.where(swapped, into[1].argmax(axis=1), into[0].argmax(axis=1))
    for cell in range(9):  # then the exact one, among three of the five offsets of each zoom
        down, across = (slice(start, start + 3) for start in divmod(cell, 3))
        for way, (moved, fixed) in enumerate(ways):
            all_here = np.flatnonzero((place == cell) & (swapped == bool(way)))
            for few in _parts(len(all_here), _CELL_AT_ONCE):
                here = all_here[few]
                for number, zoom in enumerate(_ZOOMS):
                    lengths = moved.lengths[here, 9:-9].reshape(-1, len(_ZOOMS), 5, 5)[:, number, down, across]
                    sampled = _sampled(zoom)[down], _sampled(zoom)[across]
                    edges = _products(moved.pictures[here], fixed.edges[here], *sampled)
                    fit = (edges / (lengths.reshape(-1, 9) + 1e-6)).max(axis=1)
                    best[here] = np.maximum(best[here], fit)
                    here = here[fit > _WORTH] if number == 0 else here
    return best


@cache
def _sampled(zoom: float | None) -> NDArray[np.float32]:
    """(K, 24, 28) the weights of `_sampling` at the K offsets of a zoom, without the margin; None is a rough look."""
    offsets = np.arange(-1.0, 2.0) if zoom == 1 else np.linspace(0, (1 - (zoom or _MIDDLE)) * _SIDE, 5 if zoom else 3)
    return np.stack([_sampling(zoom or _MIDDLE, float(offset))[_INSIDE] for offset in offsets])


def _products(
    moved: NDArray[np.float32], target: NDArray[np.float32], down: NDArray[np.float32], across: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(M, I * J) products of targets (M, 24, 24) with pictures (M, 28, 28), sampled at I offsets down and J across."""
    rows = (down.reshape(-1, _SIDE) @ moved).reshape(len(moved), len(down), down[0].size)
    columns = np.empty((len(across), len(moved), down[0].size), np.float32)
    for found, each in zip(columns, across, strict=True):
        np.matmul(target.reshape(-1, target.shape[2]), each, out=found.reshape(-1, _SIDE))
    products: NDArray[np.float32] = np.einsum("mik,jmk->mij", rows, columns).reshape(-1, len(down) * len(across))
    return products


def _pixels_of(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, 24, 24) whose product with another picture is the correlation times the other's length."""
    inner = pictures[:, _INSIDE, _INSIDE].reshape(len(pictures), -1)
    return _of_length_1(inner - inner.mean(axis=1, keepdims=True)).reshape(-1, *_sampled(1.0).shape[1:2] * 2)


def _edges_of(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, 24, 24) whose product with another picture is the correlation of their edges times the other's length."""
    inner = pictures[:, _INSIDE, _INSIDE]
    down, across = np.diff(inner, axis=1), np.diff(inner, axis=2)
    edges = np.concatenate([down.reshape(len(down), -1), across.reshape(len(across), -1)], axis=1)
    edges = _of_length_1(edges - edges.mean(axis=1, keepdims=True))
    down, across = edges[:, : down[0].size].reshape(down.shape), edges[:, down[0].size :].reshape(across.shape)
    found = np.zeros_like(inner)
    found[:, 1:] += down
    found[:, :-1] -= down
    found[:, :, 1:] += across
    found[:, :, :-1] -= across
    return found


def _lengths(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, 143) lengths of the edges of pictures at each zoom and offset; of their pixels at a rough look.

    Mean values are taken out, so that a product divided by the lengths is a correlation.
    """
    inside = _SIDE - 2 * _MARGIN
    down, across, sums, (i, j) = _edge_weights()
    squares = np.zeros((len(pictures), len(i)), np.float32)
    for products, places in ((_neighbours(pictures), (i, j)), (_neighbours(pictures.transpose(0, 2, 1)), (j, i))):
        columns = np.matmul(products, across).reshape(len(pictures), down.shape[1], -1)
        squares += (down @ columns)[:, *places]
    squares -= np.square(pictures.reshape(len(pictures), -1) @ sums) / (2 * inside * (inside - 1))
    rough = _sampled(None)
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    rows = ((rough.reshape(-1, _SIDE) @ centred) @ rough.reshape(-1, _SIDE).T).reshape(-1, inside)
    of_rows = (rows @ np.ones(inside, np.float32), np.einsum("ij,ij->i", rows, rows))
    totals, of_squares = (each.reshape(-1, 3, inside, 3).sum(axis=2).reshape(-1, 9) for each in of_rows)
    spread = np.sqrt(np.maximum(of_squares - np.square(totals) / inside**2, 0))
    return np.concatenate([np.sqrt(np.maximum(squares, 0)), spread], axis=1)


_NEIGHBOURS = ((0, 0), (0, 1), (1, -1), (1, 0), (1, 1))


def _neighbours(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, 5, 27, 28) products of each difference of pixels down with itself and with those beside and below it."""
    steps = np.diff(pictures, axis=1)
    padded = np.pad(steps, ((0, 0), (0, 1), (1, 1)))
    found = [steps * padded[:, y : y + _SIDE - 1, 1 + x : 1 + x + _SIDE] for y, x in _NEIGHBOURS]
    return np.stack(found, axis=1)


@cache
def _edge_weights() -> tuple[
    NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], tuple[NDArray[np.int64], NDArray[np.int64]]
]:
    """Weights at each of the 28 offsets of all zooms, and the 134 pairs of offsets of one zoom, down and across.

    (28, 5 * 27) and (5, 28, 28): of the rows and columns of `_neighbours` in the squared length of the edges down;
    (784, 134): of the pixels in the sum of the edges.

    An edge of a sampled picture is a sum of differences of one or two pixels; each is in at most three such sums, so a
    squared length has products of neighbours only.
    """
    near: list[list[Any]] = [[], []]
    sums, pairs, offsets = [], [], 0
    for zoom in _ALL_ZOOMS:
        sampled = _sampled(zoom).astype(np.float64)
        edges = np.diff(sampled, axis=1)
        of_steps = -np.cumsum(edges, axis=2)[:, :, :-1]
        for found, each in zip(near, (of_steps, sampled), strict=True):
            twice = np.pad(each.transpose(0, 2, 1) @ each, ((0, 0), (0, 0), (1, 1)))
            found.append([twice.diagonal(1 + shift, 1, 2)[:, : each.shape[2]] for shift in (-1, 0, 1)])
        total, total_edge = sampled.sum(axis=1), edges.sum(axis=1)
        sum_of_edges = np.einsum("ip,jr->prij", total_edge, total) + np.einsum("ip,jr->prij", total, total_edge)
        sums.append(sum_of_edges.reshape(_SIDE**2, -1))
        pairs.append(offsets + np.indices((len(sampled), len(sampled))).reshape(2, -1))
        offsets += len(sampled)
    rows, columns = (np.concatenate(each, axis=1) for each in near)  # (3, 28, 27), (3, 28, 28)
    down = np.concatenate([(1 if y == x == 0 else 2) * rows[1 + y] for y, x in _NEIGHBOURS], axis=1)
    across = np.stack([columns[1 + x].T for _, x in _NEIGHBOURS])
    i, j = np.concatenate(pairs, axis=1)
    return down.astype(np.float32), across.astype(np.float32), np.concatenate(sums, axis=1).astype(np.float32), (i, j)


def _same_thing(
    images: Images | MappedRows, first: NDArray[np.int64], second: NDArray[np.int64], progress: Progress | None
) -> NDArray[np.bool_]:
    """(M,) whether no 3 x 3 pixels differ much at some alignment.

    Two pictures that are alike as a whole may be of two things: a clock at another time, a face with another mouth.
    """

    def compare(part: slice) -> NDArray[np.bool_]:
        one, other = (_channels(images, ends[part]) for ends in (first, second))
        left = np.arange(len(one))
        for zoom in _ALL_ZOOMS:
            offsets = np.arange(-1.0, 2.0) if zoom == 1 else np.linspace(0, (1 - zoom) * _SIDE, 5)
            weights = [_sampling(zoom, float(offset)) for offset in offsets]
            for moved, fixed in ((one, other), (other, one)) if zoom < 1 else ((one, other),):
                for down in weights:
                    rows = down @ moved[left]
                    for across in weights:
                        alike = _difference((rows @ across.T).astype(np.float32), fixed[left]) < _DIFFERENT
                        left, rows = left[~alike], rows[~alike]
        found = np.ones(len(one), bool)
        found[left] = False
        return found

    found = _in_threads(compare, len(first), _PAIRS_AT_ONCE // 2, "checking similar images", progress)
    return np.concatenate([np.empty(0, bool), *found])


def _channels(images: Images | MappedRows, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """(M, C, 28, 28) levels of each channel."""
    pixels = rows_of(images, positions).astype(np.float32)
    pixels = pixels[:, None] if pixels.ndim == 3 else np.moveaxis(pixels, 3, 1)
    return np.asarray(_shrinking(pixels.shape[2]) @ pixels @ _shrinking(pixels.shape[3]).T, np.float32)


def _difference(moved: NDArray[np.float32], fixed: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M,) the largest difference of 3 x 3 pixels of (M, C, 28, 28), after the best change of brightness."""
    axes = (1, 2, 3)
    inner = [each[:, :, _INSIDE, _INSIDE] for each in (moved, fixed)]
    one, other = (np.asarray(each - each.mean(axis=axes, keepdims=True)) for each in inner)
    gain = (one * other).sum(axis=axes, keepdims=True) / (np.square(one).sum(axis=axes, keepdims=True) + 1e-6)
    left = np.asarray(gain * one - other).cumsum(axis=2).cumsum(axis=3)
    squares = left[:, :, 3:, 3:] - left[:, :, :-3, 3:] - left[:, :, 3:, :-3] + left[:, :, :-3, :-3]
    return np.asarray(np.abs(squares / 9).max(axis=axes) / (other.std(axis=axes) + 1e-6), np.float32)


def _next_best(
    first: NDArray[np.int64], second: NDArray[np.int64], fit: NDArray[np.float32], count: int
) -> NDArray[np.float32]:
    """(M,) for each pair, the best fit of either image with a third one."""
    ends, fits = np.concatenate([first, second]), np.concatenate([fit, fit])
    order = np.lexsort((-fits, ends))
    ends, fits = ends[order], fits[order]
    rank = np.arange(len(ends)) - np.searchsorted(ends, ends)
    best = np.full((count, 2), _NEXT, np.float32)  # the best and the second best of each image
    for place in (0, 1):
        best[ends[rank == place], place] = np.maximum(fits[rank == place], _NEXT)
    one, other = (np.where(best[ends, 0] > fit, best[ends, 0], best[ends, 1]) for ends in (first, second))
    next_best: NDArray[np.float32] = np.maximum(one, other)
    return next_best
