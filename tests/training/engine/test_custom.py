"""custom.py: a loss and an augmentation of one's own are checked before training, and train exactly."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hangtag.errors import HangtagError, ModelError, UsageError
from hangtag.training.engine import batches
from hangtag.training.engine.build import build_network
from hangtag.training.engine.checkpoints import CheckpointWriter, latest
from hangtag.training.engine.custom import Augment, Loss, check_augment, check_loss, full_name
from hangtag.training.engine.loop import train
from hangtag.training.engine.recipes import find_recipe
from toys import SIDE, ImageSpec, quick_recipe, shapes

CPU, SPEC, LABELS = torch.device("cpu"), ImageSpec(SIDE, SIDE), torch.arange(6) % 3
IMAGES = torch.from_numpy(shapes(6)[0]).unsqueeze(1)


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Lin et al., 2017, with gamma = 2."""
    log = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -((1 - log.exp()) ** 2) * log


def noisy(images: Tensor, generator: torch.Generator) -> Tensor:
    return (images + 20 * torch.randn(images.shape, generator=generator)).clamp(0, 255)


def test_the_kind_of_loss_is_recognised() -> None:
    assert check_loss(focal, LABELS, 3, CPU)
    assert not check_loss(nn.CrossEntropyLoss(), LABELS, 3, CPU)
    assert check_loss(nn.CrossEntropyLoss(reduction="none"), LABELS, 3, CPU)


@pytest.mark.parametrize(
    ("loss", "kind", "says"),
    [
        ("mse", UsageError, "loss must be a function, got 'mse'"),
        (lambda logits, labels: 1.0, ModelError, "must be a float tensor, got an object of type float"),
        (lambda logits, labels: logits, ModelError, r"must have shape \(6,\) or \(\), got \(6, 3\)"),
        (lambda logits, labels: logits.detach().mean(), ModelError, "not differentiable"),
        (lambda logits, labels: logits.mean() / 0, ModelError, "NaN or infinite"),
        (lambda logits: logits.mean(), ModelError, "TypeError"),
        (nn.Sequential(nn.Linear(3, 3)), ModelError, "weights of its own"),
    ],
)
def test_an_unusable_loss_is_refused(loss: Any, kind: type[HangtagError], says: str) -> None:
    with pytest.raises(kind, match=says):
        check_loss(loss, LABELS, 3, CPU)


@pytest.mark.parametrize(
    ("augment", "kind", "says"),
    [
        ("flip", UsageError, "augment must be a function, got 'flip'"),
        (lambda images, generator: images[:, :, 1:], ModelError, r"of shape \(6, 1, 8, 8\), got \(6, 1, 7, 8\)"),
        (lambda images, generator: images / 255, ModelError, "values from 0 to 1"),
        (lambda images, generator: images.long(), ModelError, "uint8 or floats, got torch.int64"),
        (lambda images, generator: images * torch.nan, ModelError, "NaN"),
        (lambda images, generator: images + np.random.default_rng().random(), ModelError, "different images"),
        (lambda images, generator: None, ModelError, "got an object of type NoneType"),
        (lambda images: images, ModelError, "TypeError"),
    ],
)
def test_an_unusable_augmentation_is_refused(augment: Any, kind: type[HangtagError], says: str) -> None:
    with pytest.raises(kind, match=says):
        check_augment(augment, IMAGES)


def test_a_check_leaves_images_and_random_state_as_they_were() -> None:
    before, state = IMAGES.clone(), torch.random.get_rng_state()

    check_augment(lambda images, generator: images.add_(torch.randint(2, images.shape).byte()), IMAGES)

    assert torch.equal(IMAGES, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def trained(loss: Loss | None, augment: Augment | None = None, **options: Any) -> tuple[list[Tensor], float]:
    network = build_network("mlp", SPEC, 3, 0)
    recipe = find_recipe(quick_recipe(3), batch_size=8)
    held_out = shapes(30, seed=1)
    *_, last = train(network, *shapes(90), recipe, 0, held_out, loss=loss, augment=augment, **options)
    return [each.detach() for each in network.parameters()], last.val_loss or 0.0


def test_a_custom_loss_trains_and_measures() -> None:
    plain, custom, other = (trained(loss) for loss in (None, cross_entropy, focal))

    for one, another in zip(plain[0], custom[0], strict=True):
        torch.testing.assert_close(one, another, atol=1e-4, rtol=1e-3)
    assert custom[1] == pytest.approx(plain[1], rel=0.05)
    assert other[1] < 0.7 * plain[1]


def test_sample_weights_multiply_a_custom_loss() -> None:
    weights = np.linspace(0.1, 1.9, 90, dtype=np.float32)

    for one, another in zip(trained(None, weights=weights)[0], trained(each_loss, weights=weights)[0], strict=True):
        torch.testing.assert_close(one, another, atol=1e-4, rtol=1e-3)


def each_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, reduction="none")


def test_a_training_with_a_custom_loss_and_augmentation_resumes_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_CHUNK_PIXELS", 3 * 8 * SIDE * SIDE)
    whole, _ = trained(focal, noisy)
    assert not torch.equal(whole[0], trained(focal)[0][0])  # the augmentation is applied

    stops = iter([False] * 5 + [True])
    trained(focal, noisy, stop=lambda: next(stops), checkpoint_writer=CheckpointWriter(tmp_path))
    resumed, _ = trained(focal, noisy, resume=latest(tmp_path))

    assert all(torch.equal(one, other) for one, other in zip(whole, resumed, strict=True))


def test_names_say_where_the_code_is() -> None:
    assert full_name(focal) == f"{__name__}.focal"
    assert full_name(functools.partial(focal)) == f"{__name__}.focal"
    assert full_name(nn.CrossEntropyLoss()) == "torch.nn.modules.loss.CrossEntropyLoss"
