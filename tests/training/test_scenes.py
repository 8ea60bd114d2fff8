"""scenes.py: photos of a burst are held out together, also where neither pixels nor Exif data tell."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hangtag.data.labelled_images import LabelledImages
from hangtag.training.classifier import Classifier
from hangtag.training.scenes import same_scenes


def embeddings(scenes: list[list[int]], spread: float = 0.3, seed: int = 0) -> tuple[NDArray[np.float32], list[int]]:
    """Features of photos of scenes, for each class a list of how many photos each of its scenes has."""
    random = np.random.default_rng(seed)
    rows, labels = [], []
    for label, counts in enumerate(scenes):
        of_class = random.normal(size=64)
        for count in counts:
            of_scene = of_class + random.normal(size=64)
            rows += [of_scene + spread * random.normal(size=64) for _ in range(count)]
            labels += [label] * count
    return np.array(rows, np.float32), labels


def sizes(groups: NDArray[np.int64] | None) -> list[int]:
    assert groups is not None
    return sorted(np.unique(groups, return_counts=True)[1].tolist(), reverse=True)


@pytest.mark.parametrize("seed", range(5))
def test_photos_of_one_scene_are_together_and_others_are_not(seed: int) -> None:
    rows, labels = embeddings([[4, 1, 1, 1, 3], [1] * 8], seed=seed)

    groups = same_scenes(rows, np.array(labels))

    assert sizes(groups) == [4, 3] + [1] * 11
    assert groups is not None and len(set(groups[:4])) == 1


def test_without_bursts_nothing_is_together() -> None:
    rows, labels = embeddings([[1] * 20, [1] * 20])

    assert same_scenes(rows, np.array(labels)) is None


def test_where_all_classes_look_alike_only_what_is_more_alike_is_together() -> None:
    rows, labels = embeddings([[1] * 15 + [3], [1] * 18])
    alike = rows + 10 * np.random.default_rng(1).normal(size=64).astype(np.float32)

    assert sizes(same_scenes(alike, np.array(labels))) == [3] + [1] * 33


def test_a_class_that_is_all_alike_is_still_judged() -> None:
    rows, labels = embeddings([[9], [1] * 9], spread=0.1)

    assert same_scenes(rows, np.array(labels)) is None


SHOTS = 3


def bursts(count: int = 8) -> LabelledImages:
    """Drawn scenes, photographed by a moved, turned camera in different light; their classes are a matter of chance."""
    random = np.random.default_rng(0)
    images = []
    for _ in range(count):
        large = Image.fromarray(random.integers(0, 256, (2, 2, 3), dtype=np.uint8)).resize((300, 300))
        draw = ImageDraw.Draw(large)
        for _ in range(7):
            corners, colour = random.integers(-50, 350, (4, 2)), random.integers(0, 256, 3)
            getattr(draw, random.choice(["polygon", "line"]))(
                corners.flatten().tolist(), tuple(colour.tolist()), width=9
            )
        for _ in range(SHOTS):
            left, top = random.integers(30, 42, 2)
            photo = large.rotate(random.normal(0, 1)).crop((left, top, left + 224, top + 224))
            images.append((np.asarray(photo) * random.uniform(0.92, 1.0)).astype(np.uint8))
    labels = np.repeat(np.arange(count) % 2, SHOTS)
    names = [f"{number}.jpg" for number in range(len(images))]
    return LabelledImages(np.stack(images), labels, ("cat", "dog"), "bursts", names=names)


def test_photos_of_a_burst_are_in_one_fold_unless_groups_are_given() -> None:
    data = bursts()
    judged, given = Classifier("transfer"), Classifier("transfer")
    for classifier, images in ((judged, data), (given, replace(data, groups=np.arange(len(data))))):
        for _ in classifier.fit_epochs(images):
            pass

    assert judged._to_cross_fit is not None and given._to_cross_fit is not None
    (images, folds, _), (_, apart, _) = judged._to_cross_fit, given._to_cross_fit
    scene = np.repeat(np.arange(len(data) // SHOTS), SHOTS)[[data.names.index(name) for name in images.names]]
    assert all(len(set(folds.of[scene == number])) == 1 for number in scene)
    assert any(len(set(apart.of[scene == number])) > 1 for number in scene)
    assert any("seem to show one scene" in note for note in judged.notes_)
    assert not any("seem to show one scene" in note for note in given.notes_)
    assert (judged.split_.folds, judged.split_.judged, judged.split_.fingerprint) == (4, len(data), folds.fingerprint)
