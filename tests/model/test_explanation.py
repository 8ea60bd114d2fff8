"""explanation.py and neighbours.py: the evidence lies where the mark is, and the nearest images are of its class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import RunError
from hangtag.model.explanation import evidence, explain
from hangtag.model.neighbours import FILE, Neighbours, chosen, read_neighbours, write_neighbours
from hangtag.reports.explain_figure import draw_explanation
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.estimator import ImageClassifier
from toys import CLASSES


def corners(count: int = 240) -> LabelledImages:
    """(count, 16, 16): a bright mark in one of three corners, on noise."""
    random = np.random.default_rng(0)
    labels = np.arange(count) % 3
    images = random.integers(0, 60, (count, 16, 16), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = ((0, 0), (0, 10), (10, 0))[label]
        image[top + 1 : top + 5, left + 1 : left + 5] = 220
    return LabelledImages(images, labels, CLASSES)


@pytest.fixture(scope="module", params=["cnn-small", "mlp"])
def trained(request: pytest.FixtureRequest) -> ImageClassifier:
    recipe = find_recipe("fast", network=request.param, epochs=4, batch_size=16)
    recipe = replace(recipe, flip=False)  # two of the corners mirror each other
    return ImageClassifier(recipe=recipe).fit(corners())


def test_the_evidence_is_where_the_mark_is(trained: ImageClassifier) -> None:
    data = corners()
    kept = trained.neighbours(60)
    found = 0
    for image, label in zip(data.images[:30], data.labels[:30], strict=True):
        why = explain(trained.predictor_, image, kept)
        height, width = why.heat.shape
        top, left = (int(part) for part in np.unravel_index(int(why.heat.argmax()), why.heat.shape))
        corner = (top < height / 2, left < width / 2)
        found += corner == ((True, True), (True, False), (False, True))[label]
        assert why.method == ("evidence" if trained.recipe_.network == "cnn-small" else "occlusion")
        assert [near.label for near in why.neighbours[:3]] == [CLASSES[label]] * 3
        np.testing.assert_array_equal(why.seen, image)

    assert found >= 18  # by chance, 8
    assert len(draw_explanation(why).png()) > 10_000
    figure = draw_explanation(replace(why, seen=255 - why.seen))  # a photo of one's own, dark on light
    shown = [image for axes in figure.get_axes() for image in axes.get_images() if image.get_array().ndim == 2]
    assert len(shown) == 2 + len(why.neighbours) and {image.get_cmap().name for image in shown} == {"gray"}


@pytest.mark.parametrize("pooling", ["max", "mean"])
def test_the_evidence_adds_up_to_the_logit_apart_from_the_biases(pooling: str) -> None:
    random = np.random.default_rng(0)
    maps = random.normal(size=(5, 2, 8, 3, 4)).astype(np.float32)  # of an image and its mirror image
    head = random.normal(size=(3, 8)).astype(np.float32)
    pooled = maps.max(axis=(3, 4)) if pooling == "max" else maps.mean(axis=(3, 4))
    logits = (pooled @ head.T).mean(axis=1)  # (N, K)
    weights = (head - head.mean(axis=0))[logits.argmax(axis=1)]

    heat = evidence(maps, weights, pooling)

    assert heat.shape == (5, 3, 4)
    np.testing.assert_allclose(heat.sum(axis=(1, 2)), logits.max(axis=1) - logits.mean(axis=1), rtol=1e-4)


def test_neighbours_are_kept_without_pickle_and_belong_to_their_model(trained: ImageClassifier, tmp_path: Path) -> None:
    kept = trained.neighbours(30)
    write_neighbours(tmp_path, kept)
    size = kept.embeddings.shape[1]

    again = read_neighbours(tmp_path, 3, size)

    assert again is not None and len(again.labels) == 30
    np.testing.assert_array_equal(again.pictures, kept.pictures)
    assert np.bincount(again.labels).tolist() == [10, 10, 10]
    assert read_neighbours(tmp_path / "nowhere", 3, size) is None
    with pytest.raises(RunError, match="does not belong to this model"):
        read_neighbours(tmp_path, 3, size + 1)
    with pytest.raises(RunError, match="does not belong to this model"):
        read_neighbours(tmp_path, 2, size)
    (tmp_path / FILE).write_bytes(b"PK damaged")
    with pytest.raises(RunError, match="damaged"):
        read_neighbours(tmp_path, 3, size)


def test_large_pictures_are_kept_small() -> None:
    images = np.zeros((4, 300, 200, 3), np.uint8)
    images[:, :, ::2] = 100  # every second column

    kept = Neighbours.of(images, np.zeros(4, np.int64), np.ones((4, 2), np.float32))

    assert kept.pictures.shape == (4, 60, 40, 3)
    assert set(np.unique(kept.pictures)) == {40, 60}  # the means of 5x5 pixels


def test_a_small_class_is_kept_whole() -> None:
    labels = np.array([0] * 50 + [1] * 3)

    some = chosen(labels, seed=0, count=20)

    assert np.bincount(labels[some]).tolist() == [10, 3]
    assert (np.diff(some) > 0).all()


def test_preferred_images_of_each_class_are_drawn_first() -> None:
    labels, preferred = np.array([0] * 50 + [1] * 30), np.array([3, 4, *range(60, 75)])

    some = chosen(labels, 0, 20, preferred)

    assert np.bincount(labels[some]).tolist() == [10, 10]
    assert {3, 4} < set(some.tolist()) and set(some[some >= 50].tolist()) < set(preferred.tolist())


def test_hostile_neighbours_are_refused_before_they_are_read(tmp_path: Path) -> None:
    pictures, labels = np.zeros((2, 8, 8), np.uint8), np.zeros(2, np.int64)
    embeddings = np.ones((2, 4), np.float16)
    hostile: list[dict[str, np.ndarray]] = [
        {"pictures": np.zeros((2, 8, 8), object), "labels": labels, "embeddings": embeddings},
        {"pictures": np.zeros((2, 5000, 5000), np.uint8), "labels": labels, "embeddings": embeddings},
        {"pictures": pictures, "labels": labels - 1, "embeddings": embeddings},
        {"pictures": pictures, "labels": labels, "embeddings": embeddings * np.nan},
        {"pictures": pictures, "labels": labels},
    ]
    for arrays in hostile:
        np.savez_compressed(tmp_path / FILE, **arrays)  # type: ignore[arg-type]
        with pytest.raises(RunError, match="delete it; predictions do not need it"):
            read_neighbours(tmp_path, 3, 4)
    (tmp_path / FILE).rename(tmp_path / "elsewhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="leads out of the run folder"):
        read_neighbours(tmp_path / "run", 3, 4)
