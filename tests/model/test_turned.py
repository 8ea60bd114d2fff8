"""turned.py: what turned images look like to a network, learned for each class, and only where it can be learned."""

import numpy as np
import pytest

from hangtag.model.turned import fit_turned_odds, turned_images
from hangtag.pictures import ImageSpec


def test_images_are_turned_left_upside_down_and_right() -> None:
    images = np.array([[[1, 2], [3, 4]]] * 4, np.uint8)

    turned = turned_images(images, ImageSpec(2, 2))

    left, down, right = [[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]]
    np.testing.assert_array_equal(turned, [left, down, right, left])


@pytest.mark.parametrize("channels", [1, 3])
def test_turned_images_keep_the_size_of_the_model(channels: int) -> None:
    spec = ImageSpec(6, 9, channels)
    images = np.random.default_rng(0).integers(0, 256, (4, *spec.shape), dtype=np.uint8)

    turned = turned_images(images, spec)

    assert turned.shape == images.shape and turned.dtype == np.uint8
    np.testing.assert_array_equal(turned[1], images[1, ::-1, ::-1])


def test_each_class_has_its_own_odds_and_a_class_that_looks_the_same_has_none() -> None:
    random = np.random.default_rng(0)
    answers = np.arange(900) % 3
    logits = 20.0 * np.eye(3)[answers]
    upright, turned = random.normal(size=(2, 900, 4))
    turned[answers == 0, 0] += 5  # the first class changes one feature, the second another one
    turned[answers == 1, 1] += 5

    odds = fit_turned_odds(upright, logits, turned, logits)

    before, after = odds.log_odds(upright, logits), odds.log_odds(turned, logits)
    for label in (0, 1):
        assert np.median(after[answers == label]) > 2 and np.median(before[answers == label]) < -2
    assert np.abs(np.concatenate([before[answers == 2], after[answers == 2]])).max() < 1.5
    np.testing.assert_allclose(odds.scaled(2, 1).log_odds(turned, logits), 2 * after + 1, rtol=1e-4, atol=1e-4)


def test_a_class_that_only_turned_images_pass_for_is_suspect() -> None:
    features = np.zeros((60, 2))
    first, second = 20.0 * np.eye(2)[np.zeros(60, int)], 20.0 * np.eye(2)[np.ones(60, int)]

    odds = fit_turned_odds(features, first, features, second)

    assert (odds.log_odds(features, first) < -1).all() and (odds.log_odds(features, second) > 1).all()
