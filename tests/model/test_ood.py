"""ood.py: far images score higher than near ones, few false positives, and nothing breaks on dead features."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from hangtag.errors import DataError
from hangtag.model.ood import OodDetector, fit_ood_detector

Clouds = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]


def clouds(count: int, seed: int = 0, away: float = 0.0) -> Clouds:
    """Three classes of points in six dimensions, of unequal spread, with logits that know them."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    points = random.normal(size=(count, 6)) * np.array([1, 5, 0.2, 1, 1, 3]) + away
    points[:, :3] += 4 * np.eye(3)[labels]
    logits = 6 * np.eye(3)[labels] + random.normal(size=(count, 3))
    return points, labels, logits


def fitted(count: int = 3000) -> OodDetector:
    points, labels, _ = clouds(count)
    held_out, _, logits = clouds(count, seed=1)
    return fit_ood_detector(points, labels, held_out, logits)


def test_five_in_a_hundred_are_false_positives_and_far_images_are_found() -> None:
    ood_detector = fitted()
    near, _, logits = clouds(4000, seed=2)
    far, _, weak = clouds(4000, seed=3, away=6.0)

    assert np.mean(ood_detector.ood_score(near, logits) > 0.95) == pytest.approx(0.05, abs=0.015)
    assert np.mean(ood_detector.ood_score(far, weak) > 0.95) > 0.9
    assert np.mean(ood_detector.ood_score(near, np.zeros((4000, 3))) > 0.95) > 0.9  # no logit is large


def test_the_distance_is_that_of_mahalanobis() -> None:
    points, labels, _ = clouds(600)
    means = np.stack([points[labels == label].mean(0) for label in range(3)])
    scale = points.std(0)
    inner = LedoitWolf(assume_centered=True).fit((points - means[labels]) / scale).precision_

    found = fitted(600).distance(points[:20])

    expected = [min(mahalanobis(point / scale, mean / scale, inner) for mean in means) for point in points[:20]]
    unit = found[0] / expected[0]  # held-out images' standard deviation
    np.testing.assert_allclose(found, np.array(expected) * unit, rtol=1e-3)


def test_dead_and_doubled_features_do_no_harm() -> None:
    points, labels, logits = clouds(300)
    wide = np.concatenate([points, np.zeros((300, 2)), points[:, :1], np.full((300, 1), 7.0)], axis=1)

    ood_detector = fit_ood_detector(wide[:200], labels[:200], wide[200:], logits[200:])

    assert np.isfinite(ood_detector.score(wide, logits)).all()


def test_few_held_out_images_bound_the_score() -> None:
    points, labels, logits = clouds(40)
    ood_detector = fit_ood_detector(points[:30], labels[:30], points[30:], logits[30:])

    assert ood_detector.ood_score(points + 1000, logits).max() == pytest.approx(10 / 11)


def test_scores_rise_with_distance_beyond_all_held_out_images() -> None:
    ood_detector = fitted()
    points, _, logits = clouds(1)

    scores = [float(ood_detector.score(points + away, logits)[0]) for away in (0, 5, 50, 500)]

    assert scores == sorted(scores) and scores[-1] > 100


def test_no_held_out_images_or_broken_features_are_refused() -> None:
    points, labels, logits = clouds(30)

    with pytest.raises(DataError, match="no held-out images"):
        fit_ood_detector(points, labels, points[:0], logits[:0])
    with pytest.raises(DataError, match="NaN or infinity"):
        fit_ood_detector(points * np.nan, labels, points, logits)
