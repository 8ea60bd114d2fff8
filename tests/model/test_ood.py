"""ood.py: far images score higher than near ones, few false positives, and nothing breaks on dead features."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from hangtag.errors import DataError
from hangtag.model.ood import (
    Distances,
    FeatureDistance,
    OodDetector,
    PixelStatistics,
    TurnedCopies,
    fit_cross_fitted_detector,
    fit_feature_distance,
    fit_ood_detector,
    fit_pixel_statistics,
    measure_distances,
    measured,
)
from hangtag.pictures import Images
from toys import shapes

Clouds = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]


def clouds(count: int, seed: int = 0, away: float = 0.0) -> Clouds:
    """Three classes of points in six dimensions, of unequal spread, with logits that know them."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    points = random.normal(size=(count, 6)) * np.array([1, 5, 0.2, 1, 1, 3]) + away
    points[:, :3] += 4 * np.eye(3)[labels]
    logits = 6 * np.eye(3)[labels] + random.normal(size=(count, 3))
    return points, labels, logits


def pixels(count: int) -> Images:
    return shapes(count, seed=count)[0]


def features(count: int = 3000) -> FeatureDistance:
    points, labels, _ = clouds(count)
    held_out, _, logits = clouds(count, seed=1)
    return fit_feature_distance(points, labels, held_out, logits)


def fitted(count: int = 3000, held_out: int = 3000, seed: int = 1) -> OodDetector:
    points, labels, _ = clouds(count)
    others, _, logits = clouds(held_out, seed=seed)
    return fit_ood_detector(pixels(count), points, labels, pixels(held_out), others, logits)


def test_at_most_five_in_a_hundred_are_false_positives_and_far_images_are_found() -> None:
    ood_detector, images = fitted(), pixels(4000)
    near, _, logits = clouds(4000, seed=2)
    far, _, weak = clouds(4000, seed=3, away=6.0)

    assert 0.03 < np.mean(ood_detector.ood_score(images, near, logits) > 0.95) < 0.055
    assert np.mean(ood_detector.ood_score(images, far, weak) > 0.95) > 0.9
    assert np.mean(ood_detector.ood_score(images, near, np.zeros((4000, 3))) > 0.95) > 0.9  # no logit is large


def turned_clouds(count: int, seed: int, change: float) -> Clouds:
    """Images that the network takes for the first class; a feature that varies much differs by `change`."""
    points, labels, logits = clouds(3 * count, seed)
    first = labels == 0
    return points[first] + change * np.array([0, 0, 0, 0, 0, 1]), labels[first], logits[first]


def fitted_with_turned(change: float) -> OodDetector:
    points, labels, logits = clouds(3000)
    others, _, weak = clouds(3000, seed=1)
    (turned, _, seen), (unseen, _, their) = (turned_clouds(1000, seed, change) for seed in (7, 8))
    copies = TurnedCopies(turned, seen, pixels(1000), unseen, their)
    return fit_ood_detector(pixels(3000), points, labels, pixels(3000), others, weak, logits, copies)


def test_turned_images_are_found_with_no_more_false_positives() -> None:
    plain, ood_detector = fitted(), fitted_with_turned(8)
    near, _, logits = clouds(4000, seed=2)
    turned, _, their = turned_clouds(900, 9, 8)

    assert 0.03 < np.mean(ood_detector.ood_score(pixels(4000), near, logits) > 0.95) < 0.055
    assert np.mean(ood_detector.ood_score(pixels(900), turned, their) > 0.95) > 0.8
    assert np.mean(plain.ood_score(pixels(900), turned, their) > 0.95) < 0.5
    assert repr(ood_detector) == "<OodDetector: from pixels and features, finds turned images>"


def test_turned_images_that_look_like_the_others_change_nothing() -> None:
    ood_detector, plain = fitted_with_turned(0), fitted()

    assert ood_detector.turned is None
    np.testing.assert_array_equal(ood_detector.quantiles, plain.quantiles)


@pytest.mark.parametrize("held_out", [0, 19, 25, 60, 200])
def test_the_rate_of_false_positives_holds_in_nine_of_ten_trainings(held_out: int) -> None:
    near, _, logits = clouds(3000, seed=99)
    images, rates = pixels(3000), []
    for seed in range(20):
        points, labels, _ = clouds(120, seed=seed + 1000)
        others, _, weak = clouds(held_out, seed=seed + 2000)
        some = shapes(120, seed=seed)[0], shapes(held_out, seed=seed + 500)[0]
        ood_detector = fit_ood_detector(some[0], points, labels, some[1], others, weak)
        rates.append(float(np.mean(ood_detector.ood_score(images, near, logits) > 0.95)))

    assert np.mean(np.array(rates) <= 0.05) >= 0.8 and np.mean(rates) < 0.04


@pytest.mark.parametrize("images", [6, 40, 300])
@pytest.mark.parametrize("held_out", [0, 10, 30])
def test_pixels_warn_with_and_without_held_out_images(images: int, held_out: int) -> None:
    points, labels, _ = clouds(images)
    others, _, logits = clouds(held_out, seed=1)
    ood_detector = fit_ood_detector(pixels(images), points, labels, pixels(held_out), others, logits)
    near, _, sure = clouds(90, seed=2)
    random = np.random.default_rng(0)
    strange = {
        "inverted": 255 - pixels(90),
        "noise": random.integers(0, 256, (90, 8, 8), dtype=np.uint8),
        "white": np.full((90, 8, 8), 255, np.uint8),
    }

    for name, pictures in strange.items():
        assert np.mean(ood_detector.ood_score(pictures, near, sure) > 0.95) > 0.95, name


def test_images_that_are_all_alike_are_not_unfamiliar() -> None:
    grey = np.full((60, 8, 8), 90, np.uint8)
    flat = np.zeros((60, 6))
    logits = np.full((60, 3), 0.3) + 1e-8 * np.random.default_rng(0).normal(size=(60, 3))

    for held_out in (0, 40):
        some = grey[:held_out], flat[:held_out], logits[:held_out]
        ood_detector = fit_ood_detector(grey, flat, np.arange(60) % 3, *some)
        assert (ood_detector.ood_score(grey, flat, logits + 1e-7) <= 0.95).all()


def test_the_pixel_statistics_are_what_they_say() -> None:
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[0, 0, :, 0] = 255  # the first row is red

    mean, border, deviation, down, across, colour = PixelStatistics.of_pixels(
        images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    )[0]

    third = 8 / 3
    assert mean == pytest.approx(third / 64) and border == pytest.approx(third / 28)
    assert deviation == pytest.approx((images[0, :, :, 0] / 765).std())
    assert (down, across, colour) == (pytest.approx(third / 64), 0, pytest.approx(8 / 64))


def test_one_picture_is_enough_for_statistics() -> None:
    statistics, reference = fit_pixel_statistics(pixels(1))

    assert np.isfinite(statistics.distance(pixels(9))).all() and len(reference) == 1


@pytest.mark.parametrize(("count", "sides"), [(600, 6), (40, 90), (600, 120)])
def test_the_distance_is_that_of_mahalanobis(count: int, sides: int) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    points = random.normal(size=(count, sides)) * random.uniform(0.1, 2, sides) + random.normal(size=(3, sides))[labels]
    soft = points / np.sqrt((points**2).sum(1, keepdims=True) + 0.3 * (points**2).sum(1).mean())
    means = np.stack([soft[labels == label].mean(0) for label in range(3)])
    inner = LedoitWolf(assume_centered=True).fit(soft - means[labels]).precision_

    found = fit_feature_distance(points, labels, points, random.normal(size=(count, 3))).distance(points[:20])

    expected = [min(mahalanobis(point, mean, inner) for mean in means) for point in soft[:20]]
    unit = found[0] / expected[0]  # held-out images' standard deviation
    np.testing.assert_allclose(found, np.array(expected) * unit, rtol=1e-3)


def test_wide_features_keep_the_file_small_and_their_distances_in_order() -> None:
    random = np.random.default_rng(0)
    points = random.normal(size=(2000, 600)) * np.geomspace(3, 0.1, 600)
    labels = np.zeros(2000, np.int64)
    soft = points / np.sqrt((points**2).sum(1, keepdims=True) + 0.3 * (points**2).sum(1).mean())
    inner = LedoitWolf(assume_centered=True).fit(soft - soft.mean(0)).precision_

    found = fit_feature_distance(points, labels, points, random.normal(size=(2000, 3)))

    assert found.directions.shape == (600, 128)
    expected = [mahalanobis(point, soft.mean(0), inner) for point in soft[:200]]
    assert np.corrcoef(found.distance(points[:200]), expected)[0, 1] > 0.7


def test_dead_and_doubled_features_do_no_harm() -> None:
    points, labels, logits = clouds(300)
    wide = np.concatenate([points, np.zeros((300, 2)), points[:, :1], np.full((300, 1), 7.0)], axis=1)

    found = fit_feature_distance(wide[:200], labels[:200], wide[200:], logits[200:])

    assert np.isfinite(found.score(wide, logits)).all()


def test_features_of_any_length_in_a_new_direction_are_beyond_all_held_out_images() -> None:
    found = features()
    points, held_out = clouds(1)[0], clouds(3000, seed=1)[0]

    distances = [float(found.distance(points + away)[0]) for away in (5, 50, 500)]

    assert min(distances) > found.distance(held_out).max()


def test_broken_features_are_refused() -> None:
    points, labels, logits = clouds(30)

    with pytest.raises(DataError, match="NaN or infinity"):
        fit_ood_detector(pixels(30), points * np.nan, labels, pixels(30), points, logits)


@pytest.mark.parametrize(("count", "known"), [(54, 0.3), (120, 0.7), (300, 0.9)])
def test_the_rate_of_false_positives_holds_after_a_cross_validation(count: int, known: float) -> None:
    near, _, logits = clouds(3000, seed=99)
    images, rates, folds = pixels(3000), [], np.arange(count) % 5
    for seed in range(20):
        points, labels, own = clouds(count, seed=seed + 1000)
        some, parts = shapes(count, seed=seed)[0], []
        for fold in range(5):
            out = folds == fold
            rows = measured(some)
            parts.append(measure_distances(rows[~out], points[~out], labels[~out], rows[out], points[out], own[out]))
        order = np.argsort(np.concatenate([np.flatnonzero(folds == fold) for fold in range(5)]))
        held_out = Distances(
            *(
                np.concatenate([getattr(each, name) for each in parts])[order]
                for name in ("pixels", "features", "logits")
            )
        )
        ood_detector, scores = fit_cross_fitted_detector(some, points, labels, held_out, folds)
        rates.append(float(np.mean(ood_detector.ood_score(images, near, logits) > 0.95)))
        assert np.mean(ood_detector.shares_below(scores) > 0.95) <= 0.05

    assert np.mean(np.array(rates) <= 0.05) >= 0.8 and np.mean(rates) < 0.05
    far, _, weak = clouds(500, seed=3, away=8.0)
    assert np.mean(ood_detector.ood_score(images[:500], far, weak) > 0.95) > known
