"""batches.py: every image once per epoch, in an order that depends on seed and epoch alone, augmented correctly."""

from dataclasses import replace

import numpy as np
import torch

from hangtag.training.engine.batches import Batches, Chunk, erased, flipped, shifted
from hangtag.training.engine.recipes import find_recipe
from toys import shapes

CPU = torch.device("cpu")
PLAIN = replace(find_recipe("tutorial"), batch_size=8)


def chunks(batches: Batches, epoch: int) -> list[Chunk]:
    return [batches.chunk(epoch, number) for number in range(batches.chunks(epoch))]


def labels_of(batches: Batches, epoch: int) -> list[int]:
    return [int(label) for chunk in chunks(batches, epoch) for label in chunk.labels]


def test_every_image_comes_once_an_epoch_with_its_own_label() -> None:
    images, labels = shapes(30)
    images[:, 0, 0] = np.arange(30)
    batches = Batches(images, labels, PLAIN, 0, CPU)

    pairs = [
        (int(image[0, 0, 0]), int(label))
        for chunk in chunks(batches, 1)
        for image, label in zip(chunk.images, chunk.labels, strict=True)
    ]

    assert sorted(pairs) == [(position, position % 3) for position in range(30)]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    images, labels = shapes(90)
    orders = {
        (seed, epoch): labels_of(Batches(images, labels, PLAIN, seed, CPU), epoch)
        for seed in (0, 1)
        for epoch in (1, 2)
    }

    assert len({tuple(order) for order in orders.values()}) == 4
    assert labels_of(Batches(images, labels, PLAIN, 1, CPU), 2) == orders[1, 2]


def test_a_last_smaller_batch_is_taken_or_left_as_the_recipe_says() -> None:
    images, labels = shapes(30)

    taken = Batches(images, labels, PLAIN, 0, CPU)
    left = Batches(images, labels, replace(PLAIN, last_partial_batch=False), 0, CPU)

    assert (taken.steps(1), len(labels_of(taken, 1))) == (4, 30)
    assert (left.steps(1), len(labels_of(left, 1))) == (3, 24)


def test_a_batch_larger_than_the_data_becomes_the_data() -> None:
    images, labels = shapes(6)

    batches = Batches(images, labels, replace(PLAIN, batch_size=100, last_partial_batch=False), 0, CPU)

    assert (batches.steps(1), batches.batch_size) == (1, 6)


def test_alternating_flip_shows_each_image_both_ways_in_two_epochs() -> None:
    images = np.zeros((20, 8, 8), np.uint8)
    images[:, :, 0] = 200  # bright left edge
    batches = Batches(images, np.zeros(20, np.int64), replace(PLAIN, flip=True), 0, CPU)

    def mirrored(epoch: int) -> int:
        return sum(int((chunk.images[:, 0, 0, -1] > 0).sum()) for chunk in chunks(batches, epoch))

    assert 0 < mirrored(1) < 20
    assert mirrored(1) + mirrored(2) == 20
    assert mirrored(1) == mirrored(3)


def test_flipped_mirrors_only_the_chosen() -> None:
    pixels = torch.arange(12.0).view(2, 1, 2, 3)

    out = flipped(pixels, torch.tensor([True, False]))

    assert out[0, 0].tolist() == [[2, 1, 0], [5, 4, 3]]
    assert torch.equal(out[1], pixels[1])


def test_shifted_moves_pictures_within_bounds_and_keeps_shape() -> None:
    pixels = torch.zeros(50, 1, 9, 9)
    pixels[:, 0, 4, 4] = 1

    out = shifted(pixels, 2, torch.Generator().manual_seed(0))
    places = {tuple(place[1:].tolist()) for place in (out[:, 0] == 1).nonzero()}

    assert out.shape == pixels.shape
    assert (out.sum((1, 2, 3)) == 1).all()
    assert len(places) > 10
    assert all(2 <= row <= 6 and 2 <= column <= 6 for row, column in places)


def test_erased_leaves_the_rest_alone_and_makes_rectangles_of_noise() -> None:
    pixels = torch.full((400, 1, 28, 28), 7, dtype=torch.uint8)

    out = erased(pixels, 0.5, torch.Generator().manual_seed(0))

    touched = (out != pixels)[:, 0]
    shares = touched.float().mean((1, 2))
    assert 0.4 < float((shares > 0).float().mean()) < 0.6
    assert float(shares.max()) < 0.35
    for mask in touched[shares > 0][:50]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert float(box.float().mean()) > 0.9  # noise may hit the old value now and then


def test_a_balanced_epoch_is_decided_by_seed_and_epoch() -> None:
    images, labels = shapes(60)
    labels = np.where(labels == 2, 1, labels)
    recipe = replace(PLAIN, balance="sampling")

    one, other = (labels_of(Batches(images, labels, recipe, 0, CPU), 1) for _ in range(2))

    assert one == other
    assert (one.count(0), one.count(1)) == (30, 30)
