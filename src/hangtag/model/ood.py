"""Out-of-distribution (OOD) detection: a score that is fitted once and computed in the model file.

These parts recognise images unlike the training images:

- `PixelStatistics`, always: brightness, contrast, border, edges and colourfulness of the pixels, compared with those
  of training images. They find images that are inverted, blank, noisy, or far too bright, before any network.
- `FeatureDistance`, with at least 20 held-out images: the network's features and logits. It adds two measures, each in
  standard deviations of held-out images: the Mahalanobis distance of the features, divided by their length, to the
  nearest class mean, with one covariance for all classes (Lee et al., 2018; Mueller & Hein, 2025), and the negative
  maximum logit (Hendrycks et al., 2022). In our experiments (docs/log.md) the sum did better than either measure alone,
  and better than the maximum probability and the energy (Liu et al., 2020); the nearest training image (Sun et al.,
  2022) did as well on photos, but the file would have to hold the features of all training images.
- `TurnedOdds`, if a network was trained from nothing and it helps: whether the features look like those of turned
  training images that pass for the same class. Its unit makes the median and the 95 % quantile of held-out images those
  of the second part, and the larger of the two counts.

The raw score is that of the features, raised where the pixels are beyond those of almost all training images; without
features, it is the distance of the pixels. The reported OOD score is the share of in-distribution images with a lower
raw score, so that a limit of 0.95 flags at most 5 of 100 of them; it is estimated from reference images, on the safe
side in nine of ten trainings. These are the held-out images; without the second part, half of the training images, and
the other half fits the pixel statistics. After a cross-validation every image is a reference image: it is scored with
what was fitted to the images of the other folds, and the detector in the file is fitted to all.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import DataError
from hangtag.mapped import MappedRows
from hangtag.model.appearance import across_channels
from hangtag.model.calibration import Floats
from hangtag.model.turned import TurnedOdds, fit_turned_odds
from hangtag.pictures import Images

__all__ = [
    "LEAST_TURNED", "Distances", "FeatureDistance", "OodDetector", "PixelStatistics", "TurnedCopies",
    "fit_cross_fitted_detector", "fit_feature_distance", "fit_ood_detector", "fit_pixel_statistics", "mean_weights",
    "measure_distances", "measured",
]  # fmt: skip

LEAST_TURNED = 100
"""Turned held-out images without which nobody can say whether the detector finds such images."""

_MIN_QUANTILES, _MAX_QUANTILES = 45, 1000  # 45 are enough for a limit of 0.95 in nine of ten draws
_RISK = 0.1
_BEYOND = 0.5  # standard deviations above all held-out images; enough with few of them, docs/log.md
_AT_ONCE = 256  # images whose pixels are floating-point numbers at the same time
_MIN_HELD_OUT = 20  # for units of the features' measures
_MIN_DEVIATION = 1e-3  # of distances and logits: below it, differences are those of rounding
_ROUNDING = 0.01  # added to the reference scores, in standard deviations, so that equal scores stay equal

# Chosen on held-out training images of Fashion-MNIST; docs/log.md.
_ALIKE = (0.5, 0.95)  # quantiles of held-out images that both parts of the features' score have in common
_LEAST_GAIN = 0.05  # share of turned held-out images that must be found in addition; fewer are not worth false alarms
_MIN_SPREAD = 1e-3  # between the two quantiles, in log odds

# Chosen on six sets of photos and drawings with EfficientNet-Lite 0, and on Fashion-MNIST; docs/log.md.
_DIRECTIONS = 128  # in which the covariance of features is not a multiple of the identity
_SOFTNESS = 0.3  # in mean squared lengths of training features

# Chosen on Fashion-MNIST training images and on digits; docs/log.md.
_PIXEL_DEVIATION = 0.01  # added to each statistic's deviation: 2.5 grey levels
_PIXEL_MARGIN = 1.1  # pixel distances of reference images are taken as this much larger
_PIXEL_LIMIT = 0.995  # quantile of the pixel distance from which the raw score is raised
_RAISE = 1000.0  # standard deviations for a distance of twice the limit


@dataclass(frozen=True, eq=False)
class PixelStatistics:
    """Where the statistics of training images lie; see `measured`.

    Attributes:
        mean: (S,) of training images.
        whitening: (S, S) from differences to the mean to independent standard deviations.
        limit: distance up to which the raw score ignores the pixels.
        slope: by how much it rises above it, per unit of distance.
    """

    mean: NDArray[np.float32]
    whitening: NDArray[np.float32]
    limit: float = 0.0
    slope: float = 1.0

    def distance(self, images: Images | MappedRows) -> NDArray[np.float32]:
        """(N,) Mahalanobis distance of the statistics of uint8 images (N, H, W[, 3]) to the mean."""
        return self.distance_of(measured(images))

    def distance_of(self, statistics: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) Mahalanobis distance of (N, S) statistics to the mean."""
        placed = (statistics - self.mean) @ self.whitening
        distances: NDArray[np.float32] = np.sqrt((placed * placed).sum(axis=1))
        return distances

    def rise(self, images: Images | MappedRows) -> NDArray[np.float32]:
        """(N,) what the pixels of uint8 images add to the raw score."""
        rises: NDArray[np.float32] = np.float32(self.slope) * np.maximum(self.distance(images) - self.limit, 0)
        return rises

    @staticmethod
    def of_pixels(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, S) statistics of images: mean, mean of the border, standard deviation, mean difference of neighbours down
        and across, and for colour images the mean of the largest minus the smallest channel.

        Args:
            pixels: (N, C, H, W) from 0 to 1.
        """
        grey = across_channels(np.add, pixels, 1) / np.float32(pixels.shape[1])
        flat = grey.reshape(len(grey), -1)
        mean, border = np.split(flat @ mean_weights(*grey.shape[1:]), 2, axis=1)
        centred = flat - mean
        deviation = np.sqrt((centred * centred).mean(axis=1, keepdims=True))
        sums = [np.abs(np.diff(grey, axis=axis)).sum(axis=(1, 2)) for axis in (1, 2)]
        edges = np.stack(sums, axis=1) / np.float32(flat.shape[1])
        range_of = across_channels(np.maximum, pixels, 1) - across_channels(np.minimum, pixels, 1)
        colour = [range_of.mean(axis=(1, 2))[:, None]] if pixels.shape[1] > 1 else []
        return np.concatenate([mean, border, deviation, edges, *colour], axis=1)


@dataclass(frozen=True, eq=False)
class FeatureDistance:
    """The distribution of training features, as float32 values for the graph.

    Features are divided by the square root of their squared length plus `softness`, because long features are far from
    everything and say little about what an image shows (Mueller & Hein, 2025). The covariance is a multiple of the
    identity but in R directions, so that files stay small where features are wide.

    Attributes:
        softness: a share of the mean squared length of training features.
        centre: (D,) the mean of the class means of divided features.
        scale: from divided features to units in which the multiple of the identity is 1; distances are then in standard
            deviations of those of held-out images.
        directions: (D, R) in these units; the squared distance is less by the squared projection on each of them.
        classes: (D, K) the inverse covariance times the class means relative to the centre, times -2.
        lengths: (K,) squared lengths of the class means.
        weak: 1 / standard deviation of the maximum logit.
    """

    softness: float
    centre: NDArray[np.float32]
    scale: float
    directions: NDArray[np.float32]
    classes: NDArray[np.float32]
    lengths: NDArray[np.float32]
    weak: float

    def distance(self, descriptor: Floats) -> NDArray[np.float32]:
        """(N,) Mahalanobis distance of (N, D) features to the nearest class mean."""
        placed = (_divided(descriptor.astype(np.float32), self.softness) - self.centre) * np.float32(self.scale)
        squares = (placed**2).sum(axis=1) - ((placed @ self.directions) ** 2).sum(axis=1)
        squares = squares[:, None] + (placed @ self.classes + self.lengths)
        distances: NDArray[np.float32] = np.sqrt(np.maximum(squares.min(axis=1), 0))
        return distances

    def score(self, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) raw scores of (N, D) features and (N, K) logits; higher is further from the training images."""
        scores: NDArray[np.float32] = (self.distance(descriptor) - self.weak * logits.max(axis=1)).astype(np.float32)
        return scores


@dataclass(frozen=True, eq=False)
class OodDetector:
    """What the graph computes its OOD score from.

    Attributes:
        pixels: the part of the score that comes from the pixels.
        features: the part that comes from the network; None with too few held-out images.
        quantiles: (Q,) limits of the raw score, ascending; the i-th has a share of i / (Q + 1) below it.
        turned: finds images that look like turned ones, in units of the score of `features`; None if it does not help.
    """

    pixels: PixelStatistics
    features: FeatureDistance | None
    quantiles: NDArray[np.float32]
    turned: TurnedOdds | None = None

    def __repr__(self) -> str:
        turned = "" if self.turned is None else ", finds turned images"
        return f"<OodDetector: from pixels{'' if self.features is None else ' and features'}{turned}>"

    def score(self, images: Images | MappedRows, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) raw scores of uint8 images (N, H, W[, 3]), their features (N, D) and logits (N, K)."""
        rise = self.pixels.rise(images)
        if self.features is None:
            return rise
        scores = self.features.score(descriptor, logits)
        if self.turned is not None:
            scores = np.maximum(scores, self.turned.log_odds(descriptor, logits))
        return scores + rise

    def ood_score(self, images: Images | MappedRows, descriptor: Floats, logits: Floats) -> NDArray[np.float32]:
        """(N,) the share of in-distribution images with a lower raw score, from 0 to Q / (Q + 1)."""
        return self.shares_below(self.score(images, descriptor, logits))

    def shares_below(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) the OOD scores of (N,) raw scores."""
        below = np.searchsorted(self.quantiles, scores, side="left")
        shares: NDArray[np.float32] = (below / (len(self.quantiles) + 1)).astype(np.float32)
        return shares


@dataclass(frozen=True, eq=False)
class TurnedCopies:
    """What a network says about turned training and held-out images.

    Attributes:
        descriptor, logits: (T, D) and (T, K) of turned training images.
        held_out_images: (U, H, W[, 3]) uint8, turned held-out images.
        held_out_descriptor, held_out_logits: (U, D) and (U, K).
    """

    descriptor: Floats
    logits: Floats
    held_out_images: Images
    held_out_descriptor: Floats
    held_out_logits: Floats


def fit_ood_detector(
    images: Images,
    descriptor: Floats,
    labels: NDArray[np.int64],
    held_out_images: Images | MappedRows,
    held_out_descriptor: Floats,
    held_out_logits: Floats,
    logits: Floats | None = None,
    turned: TurnedCopies | None = None,
) -> OodDetector:
    """Fit a detector to training images, and its quantiles to held-out images, or to training images if there are few.

    Args:
        images: (N, H, W[, 3]) uint8, training images in the model's size.
        descriptor: (N, D) their features.
        labels: (N,) indices of their classes.
        held_out_images: (M, H, W[, 3]) uint8, images the network was not trained on.
        held_out_descriptor: (M, D) their features.
        held_out_logits: (M, K) their logits.
        logits: (N, K) of the training images; needed if there are turned ones.
        turned: if given, the detector also finds turned images where it can.

    Raises:
        DataError: values that are not finite.
    """
    _check_finite(descriptor, held_out_descriptor, held_out_logits)
    pixels, reference = fit_pixel_statistics(images)
    if len(held_out_logits) < _MIN_HELD_OUT:
        return OodDetector(pixels, None, _quantiles(reference, 2 * float(reference.max())))
    limit = _pixel_limit(reference)
    pixels = replace(pixels, limit=limit, slope=_RAISE / limit)
    features = fit_feature_distance(descriptor, labels, held_out_descriptor, held_out_logits)
    unranked = OodDetector(pixels, features, np.zeros(0, np.float32))
    if turned is not None and logits is not None and len(turned.held_out_logits) >= LEAST_TURNED:
        odds = fit_turned_odds(descriptor, logits, turned.descriptor, turned.logits)
        held_out = held_out_images, held_out_descriptor, held_out_logits
        unranked = _with_turned_odds(unranked, odds, held_out, turned)
    scores = unranked.score(held_out_images, held_out_descriptor, held_out_logits)
    return replace(unranked, quantiles=_quantiles(scores, float(scores.max()) + _BEYOND))


def _with_turned_odds(
    plain: OodDetector, odds: TurnedOdds, held_out: tuple[Images | MappedRows, Floats, Floats], turned: TurnedCopies
) -> OodDetector:
    """The detector with the odds in its units, if it then finds more turned images with as many false alarms."""
    assert plain.features is not None
    odds_at = np.quantile(odds.log_odds(*held_out[1:]), _ALIKE)
    score_at = np.quantile(plain.features.score(*held_out[1:]), _ALIKE)
    if odds_at[1] - odds_at[0] < _MIN_SPREAD:
        return plain
    scale = float((score_at[1] - score_at[0]) / (odds_at[1] - odds_at[0]))
    both = replace(plain, turned=odds.scaled(scale, float(score_at[0] - scale * odds_at[0])))
    found = [
        (each.score(turned.held_out_images, turned.held_out_descriptor, turned.held_out_logits)
         > np.quantile(each.score(*held_out), _ALIKE[1])).mean()
        for each in (plain, both)
    ]  # fmt: skip
    return both if found[1] >= found[0] + _LEAST_GAIN else plain


@dataclass(frozen=True, eq=False)
class Distances:
    """How far J images are from the images that they were held out from, and the logits of the same network.

    Attributes:
        pixels: (J,) of their pixel statistics.
        features: (J,) of their features, in standard deviations of the training images' features.
        logits: (J, K).
    """

    pixels: NDArray[np.float32]
    features: NDArray[np.float32]
    logits: NDArray[np.float32]


def measure_distances(
    statistics: NDArray[np.float32],
    descriptor: Floats,
    labels: NDArray[np.int64],
    held_out_statistics: NDArray[np.float32],
    held_out_descriptor: Floats,
    held_out_logits: NDArray[np.float32],
) -> Distances:
    """Distances of the images of one fold; arguments and errors as for `fit_ood_detector`, but what is `measured`."""
    _check_finite(descriptor, held_out_descriptor, held_out_logits)
    return Distances(
        _fitted_statistics(statistics).distance_of(held_out_statistics),
        _fit_feature_distance(descriptor, labels).distance(held_out_descriptor),
        held_out_logits,
    )


def fit_cross_fitted_detector(
    images: Images, descriptor: Floats, labels: NDArray[np.int64], held_out: Distances, folds: NDArray[np.int64]
) -> tuple[OodDetector, NDArray[np.float32]]:
    """Fit a detector to all images of a cross-validation, and its quantiles to their held-out distances.

    Args:
        images: (N, H, W[, 3]) uint8, all training images in the model's size.
        descriptor: (N, D) their features, from the network that ships.
        labels: (N,) indices of their classes.
        held_out: of J of them, each measured while it was held out.
        folds: (J,) the fold of each of these, from 0.

    Returns:
        The detector, and the (J,) raw scores of the held-out images.

    Raises:
        DataError: values that are not finite.
    """
    _check_finite(descriptor)
    pixels, reference = _fitted_statistics(measured(images)), np.float32(_PIXEL_MARGIN) * held_out.pixels
    scores = reference
    if len(scores) < _MIN_HELD_OUT:
        return OodDetector(pixels, None, _quantiles(scores, 2 * float(scores.max()), _MAX_QUANTILES)), scores
    own, others = _pixel_limit(reference), np.empty_like(reference)
    for fold in np.unique(folds):
        rest = reference[folds != fold]
        others[folds == fold] = _pixel_limit(rest) if len(rest) else own
    rise = np.float32(_RAISE) / others * np.maximum(held_out.pixels - others, 0)
    pixels = replace(pixels, limit=own, slope=_RAISE / own)
    max_logit = held_out.logits.max(axis=1)
    unit, weak = _units(held_out.features, max_logit)
    features = _fit_feature_distance(descriptor, labels, unit, weak)
    scores = (held_out.features / np.float32(unit) - np.float32(weak) * max_logit + rise).astype(np.float32)
    return OodDetector(pixels, features, _quantiles(scores, float(scores.max()) + _BEYOND, _MAX_QUANTILES)), scores


def _pixel_limit(distances: NDArray[np.float32]) -> float:
    return max(1.0, float(np.quantile(distances, _PIXEL_LIMIT, method="higher")))


def fit_pixel_statistics(images: Images) -> tuple[PixelStatistics, NDArray[np.float32]]:
    """Fit to every second of N images; also returns the distances of the others, with a margin."""
    statistics = _fitted_statistics(measured(images[::2]))
    return statistics, np.float32(_PIXEL_MARGIN) * statistics.distance(images[1::2] if len(images) > 1 else images)


def _fitted_statistics(statistics: NDArray[np.float32]) -> PixelStatistics:
    rows = statistics.astype(np.float64)
    covariance = np.cov(rows.T, bias=True) + _PIXEL_DEVIATION**2 * np.eye(rows.shape[1])
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return PixelStatistics(rows.mean(axis=0).astype(np.float32), whitening.astype(np.float32))


def fit_feature_distance(
    descriptor: Floats, labels: NDArray[np.int64], held_out_descriptor: Floats, held_out_logits: Floats
) -> FeatureDistance:
    """Fit to the features of training images; held-out images give the units. Arguments as for `fit_ood_detector`."""
    distance = _fit_feature_distance(descriptor, labels).distance(held_out_descriptor)
    return _fit_feature_distance(descriptor, labels, *_units(distance, held_out_logits.max(axis=1)))


def _units(distance: NDArray[np.float32], max_logit: Floats) -> tuple[float, float]:
    """The standard deviation of the distances, and 1 / that of the maximum logits."""
    return max(float(distance.std()), _MIN_DEVIATION), 1 / max(float(max_logit.std()), _MIN_DEVIATION)


def _fit_feature_distance(
    descriptor: Floats, labels: NDArray[np.int64], unit: float = 1.0, weak: float = 0.0
) -> FeatureDistance:
    softness = max(_SOFTNESS * float((descriptor.astype(np.float64) ** 2).sum(axis=1).mean()), 1e-12)
    wide = _divided(descriptor.astype(np.float64), softness)
    present = np.unique(labels)
    means = np.stack([wide[labels == label].mean(axis=0) for label in present])
    variances, directions, rest = _spectrum(wide - means[np.searchsorted(present, labels)])
    centre, scale = means.mean(axis=0), 1 / np.sqrt(rest) / unit
    directions = directions * np.sqrt(np.maximum(1 - rest / variances, 0))
    classes = (means - centre) * scale
    inverse = classes - classes @ directions @ directions.T
    return FeatureDistance(
        softness=softness,
        centre=centre.astype(np.float32),
        scale=float(scale),
        directions=directions.astype(np.float32),
        classes=(-2 * inverse.T).astype(np.float32),
        lengths=(classes * inverse).sum(axis=1).astype(np.float32),
        weak=weak,
    )


def _divided(descriptor: Floats, softness: float) -> Floats:
    divided: Floats = descriptor / np.sqrt((descriptor**2).sum(axis=1, keepdims=True) + descriptor.dtype.type(softness))
    return divided


def _check_finite(*arrays: Floats) -> None:
    if not all(np.isfinite(each).all() for each in arrays):
        raise DataError("the network's features contain NaN or infinity", "training failed; lower the learning rate")


def _spectrum(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Variances (R,) along directions (D, R), and the variance across them, of rows (N, D) with mean 0.

    The covariance is moved towards a multiple of the identity (Ledoit & Wolf, 2004).
    """
    count, sides = rows.shape
    small = rows @ rows.T / count if count < sides else rows.T @ rows / count  # both have the same spectrum
    values, vectors = np.linalg.eigh(small)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    mean, squares = float(values.sum()) / sides, float((values**2).sum())
    distance = squares - sides * mean**2
    noise = (float(((rows**2).sum(axis=1) ** 2).mean()) - squares) / count
    share = min(noise / distance, 1.0) if distance > 0 else 0.0
    kept = values[: min(_DIRECTIONS, sides - 1)]
    kept = kept[kept > 1e-9 * max(mean, 1e-9)]
    directions = vectors[:, : len(kept)]
    if count < sides:
        directions = rows.T @ directions / np.sqrt(count * kept)
    rest = max(float(values.sum() - kept.sum()), 0.0) / (sides - len(kept)) if sides > len(kept) else 0.0
    least = share * mean + 1e-6 * max(mean, 1e-6)
    return (1 - share) * kept + least, directions, (1 - share) * rest + least


def mean_weights(height: int, width: int) -> NDArray[np.float32]:
    """(height * width, 2) weights of the pixels in the mean, and in the mean of the border, a 14th of the side wide."""
    wide = max(1, min(height, width) // 14)
    border = np.ones((height, width))
    border[wide : height - wide, wide : width - wide] = 0
    columns = [np.full(height * width, 1 / (height * width)), border.ravel() / border.sum()]
    return np.stack(columns, axis=1).astype(np.float32)


def measured(images: Images | MappedRows) -> NDArray[np.float32]:
    """(N, S) `PixelStatistics.of_pixels` of uint8 images (N, H, W[, 3])."""
    rows = []
    for start in range(0, max(1, len(images)), _AT_ONCE):
        some = np.asarray(images[start : start + _AT_ONCE], np.float32) / np.float32(255)
        rows.append(
            PixelStatistics.of_pixels(
                some[:, None] if some.ndim == 3 else np.ascontiguousarray(some.transpose(0, 3, 1, 2))
            )
        )
    return np.concatenate(rows)


def _quantiles(scores: NDArray[np.float32], beyond: float, least: int = _MIN_QUANTILES) -> NDArray[np.float32]:
    """(Q,) limits, ascending; at least i / (Q + 1) of new images like these are below the i-th.

    Each holds in nine of ten draws of the reference images: the share of new images below the k-th smallest of n scores
    has a beta distribution. Where n is too small for a limit, it is `beyond`. `least` is the smallest number of limits:
    with many of them, one is close to any share, so that few images still have a limit of 0.95 that is not `beyond`.
    """
    from scipy.special import betaincinv  # scipy.stats takes a second to import

    count = len(scores)
    kept = min(max(count, least), _MAX_QUANTILES)
    ranks = np.arange(1, count + 1)
    below = betaincinv(ranks, count + 1 - ranks, _RISK)  # the k-th smallest score is above this share of new images
    at = np.searchsorted(below, np.arange(1, kept + 1) / (kept + 1))
    limits = np.append(np.sort(scores) + np.float32(_ROUNDING), max(beyond, float(scores.max()) + _ROUNDING))
    return limits[at].astype(np.float32)
