"""Features of images from a pretrained backbone; each image's are computed once and kept in the cache."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from hangtag.data.labelled_images import LabelledImages
from hangtag.data.store.cache import load_features, save_features
from hangtag.mapped import MappedRows, scratch
from hangtag.progress import Progress
from hangtag.training.engine.backbones import Backbone, compute_features

__all__ = ["cached_features"]

_AT_ONCE = 512  # images whose features are kept together: an interruption costs about ten seconds
_PAIR = np.dtype([("first", "u8"), ("second", "u8")])


def cached_features(
    backbone: Backbone, data: LabelledImages, progress: Progress | None = None, mirrored: bool = False
) -> NDArray[np.float32]:
    """The embeddings (N, E) of N images; only those of images that are not in the cache are computed.

    Images of the same content are the same image, in whatever dataset or order. Everything that has an influence on
    features (weights, preprocessing, size) is in the backbone's model, whose hash names them in the cache.

    Args:
        mirrored: of the mirrored images instead.

    Raises:
        UsageError: the images have another size than the backbone takes.
    """
    source = _source(backbone, data, mirrored)
    wanted, places = np.unique(_pairs(data.contents), return_inverse=True)
    first = np.full(len(wanted), len(data))  # a position in the data for each content
    np.minimum.at(first, places, np.arange(len(data)))
    found = scratch((len(wanted), backbone.size))
    missing = np.ones(len(wanted), np.bool_)
    for contents, features in load_features(source):
        _, here, there = np.intersect1d(wanted, _pairs(contents), return_indices=True)
        found[here] = features[there]
        missing[here] = False
    remaining = np.flatnonzero(missing)
    for start in range(0, len(remaining), _AT_ONCE):
        rows = remaining[start : start + _AT_ONCE]
        step = _shifted(progress, start, len(remaining))
        found[rows] = compute_features(backbone, MappedRows(data.images, first[rows]), step, mirrored)
        what = f"{len(rows):,} images{' mirrored' if mirrored else ''}, {backbone.name}"
        save_features(source, what, data.contents[first[rows]], found[rows])
    return found[places]


def _source(backbone: Backbone, data: LabelledImages, mirrored: bool) -> str:
    digest = hashlib.sha256(backbone.model)
    digest.update(repr((data.images.shape[1:], mirrored)).encode())
    return digest.hexdigest()[:32]


def _pairs(contents: NDArray[np.uint64]) -> NDArray[np.void]:
    """(N, 2) hashes as (N,) pairs, which can be sorted and compared."""
    return np.ascontiguousarray(contents).view(_PAIR)[:, 0]


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    """A callback for one part of the work that reports the whole of it."""
    if progress is None:
        return None
    return lambda step, count, _: progress(step, done + count, total)
