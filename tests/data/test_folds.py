"""folds.py: every image is held out once, with its group, and every class can always be trained on."""

import numpy as np
import pytest

from hangtag.data.folds import folds_of, stratified_folds
from hangtag.data.labelled_images import LabelledImages
from hangtag.errors import DataError


def textures(labels: list[int], seed: int = 0, groups: list[int] | None = None) -> LabelledImages:
    images = np.random.default_rng(seed).integers(0, 256, (len(labels), 16, 16), dtype=np.uint8)
    together = None if groups is None else np.array(groups)
    return LabelledImages(images, np.array(labels), tuple("abcdef")[: max(labels) + 1], groups=together)


def test_each_class_is_spread_over_the_folds_as_evenly_as_possible() -> None:
    labels = np.repeat(np.arange(6), 9)

    fold = stratified_folds(labels, np.arange(54), 5, seed=3)

    table = np.array([np.bincount(labels[fold == number], minlength=6) for number in range(5)])
    assert table.sum() == 54 and table.min() == 1 and table.max() == 2
    assert set(table.sum(axis=1)) == {10, 11}


def test_images_of_a_group_share_a_fold_and_other_seeds_give_other_folds() -> None:
    labels, groups = np.repeat(np.arange(3), 20), np.arange(60) // 4

    one, other = (stratified_folds(labels, groups, 5, seed) for seed in (0, 1))

    assert all(len(set(one[groups == group])) == 1 for group in range(15))
    assert (one != other).any()


@pytest.mark.parametrize("seed", range(20))
def test_no_fold_holds_all_images_of_a_class(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, groups = np.sort(random.integers(0, 4, 30)), random.integers(0, 12, 30)

    fold = stratified_folds(labels, groups, 5, seed)

    for number in range(fold.max() + 1):
        assert set(labels[fold != number]) == set(labels)
        assert not set(groups[fold == number]) & set(groups[fold != number])


def test_a_class_with_one_image_is_never_judged_and_a_note_says_so() -> None:
    folds = folds_of(textures([0] * 8 + [1] * 8 + [2]), 5, seed=0)

    assert folds.of[16] == -1 and 16 not in folds.judged and len(folds.judged) == 16
    (note,) = folds.notes
    assert note.startswith("never judged: c;")


def test_equal_images_count_once_and_the_order_of_the_images_changes_nothing() -> None:
    data = textures([0, 1] * 12)
    data.images[2] = data.images[0]
    order = np.random.default_rng(1).permutation(24)
    moved = LabelledImages(data.images[order], data.labels[order], data.class_names)

    one, other = folds_of(data, 5, seed=0), folds_of(moved, 5, seed=0)

    assert one.of[0] == one.of[2] and len(one.judged) == 23
    assert other.fingerprint == one.fingerprint
    assert (other.of[np.argsort(order)] == one.of).all()


def test_two_images_a_class_make_two_folds_and_one_image_a_class_is_refused() -> None:
    assert folds_of(textures([0, 0, 1, 1]), 5, seed=0).count == 2
    with pytest.raises(DataError, match="no image can be held out"):
        folds_of(textures([0, 1, 2]), 5, seed=0)
