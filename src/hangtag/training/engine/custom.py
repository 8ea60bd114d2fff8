"""Custom losses and augmentations: their type, their name in config.json, and the check before training."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hangtag.errors import ModelError, UsageError
from hangtag.training.engine.guard import custom_code
from hangtag.training.engine.recipes import Recipe

__all__ = ["Augment", "Loss", "augmented", "check_augment", "check_loss", "full_name", "on_device", "suit_loss"]

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Takes logits (N, K) float32 and labels (N,) int64; returns the loss of each image (N,), or one number."""

Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""Takes images (N, C, H, W) uint8 and a seeded generator; returns images of the same shape, from 0 to 255."""

_LOSS_CONTRACT = "loss(logits, labels) must take (N, K) and (N,) and return the loss of each image (N,), or one number"
_AUGMENT_CONTRACT = (
    "augment(images, generator) must take uint8 (N, C, H, W) and return the same shape, as uint8 or floats to 255"
)


def full_name(function: object) -> str:
    """A function's module and name, as "module.name"; that of its class for other objects."""
    function = getattr(function, "func", function)  # functools.partial
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def suit_loss(
    recipe: Recipe, loss: Loss | None, labels: NDArray[np.int64], classes: int, device: torch.device, weighted: bool
) -> tuple[Recipe, str]:
    """The recipe without settings that a custom loss rules out, and a note or ""; the loss is tried first.

    Args:
        labels: (N,) of some training images.
        weighted: whether the user weights images.

    Raises:
        UsageError: the loss rules out what the user chose, or is not callable.
        ModelError: the loss cannot be used.
    """
    if loss is None:
        return recipe, ""
    per_image = check_loss(loss, torch.from_numpy(labels.copy()).repeat(2), classes, device)
    if "label_smoothing" in recipe.given and recipe.label_smoothing:
        raise UsageError("label_smoothing has no effect on a custom loss", "smooth the labels in the loss itself")
    recipe = replace(recipe, label_smoothing=0.0)
    if per_image:
        return recipe, ""
    if weighted or recipe.balance == "weights" or ("prune_fraction" in recipe.given and recipe.prune_fraction):
        raise UsageError(
            "the loss returns one number per batch, so images cannot be weighted or pruned",
            "return the loss of each image (N,), as reduction='none' does",
        )
    recipe = replace(recipe, prune_fraction=0.0, balance="off" if recipe.balance == "auto" else recipe.balance)
    return recipe, "the loss returns one number per batch, so no image is pruned, and no class is weighted"


def check_loss(loss: Loss, labels: Tensor, classes: int, device: torch.device) -> bool:
    """Try a loss on random logits; return whether it gives one loss per image.

    Args:
        labels: (N,) of some training images, at least 2.

    Raises:
        UsageError: it is not callable.
        ModelError: it raises an exception, or its result is not a differentiable, finite loss.
    """
    if not callable(loss):
        raise UsageError(f"loss must be a function, got {loss!r}", _LOSS_CONTRACT)
    if isinstance(loss, nn.Module) and any(each.requires_grad for each in loss.parameters()):
        raise ModelError(
            "the loss has weights of its own, which would not be trained", "put them into the network instead"
        )
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(len(labels), classes, generator=random).to(device).requires_grad_()
    with torch.random.fork_rng(devices=[]), custom_code("the loss cannot be computed", _LOSS_CONTRACT):
        losses = on_device(loss, device)(logits, labels.to(device))
    if not isinstance(losses, Tensor) or not losses.is_floating_point():
        kind = (
            f"a tensor of {losses.dtype}"
            if isinstance(losses, Tensor)
            else f"an object of type {type(losses).__name__}"
        )
        raise ModelError(f"the loss must be a float tensor, got {kind}", _LOSS_CONTRACT)
    if losses.shape not in ((), (len(labels),)):
        raise ModelError(
            f"the loss of {len(labels)} images must have shape ({len(labels)},) or (), got {tuple(losses.shape)}",
            _LOSS_CONTRACT,
        )
    if not losses.requires_grad or torch.autograd.grad(losses.sum(), logits, allow_unused=True)[0] is None:
        raise ModelError(
            "the loss is not differentiable with respect to the logits", "compute it from the logits with PyTorch"
        )
    if not torch.isfinite(losses).all():
        raise ModelError("the loss of random logits is NaN or infinite", "use log_softmax instead of log(softmax)")
    return losses.ndim == 1


def check_augment(augment: Augment, images: Tensor) -> None:
    """Try an augmentation twice on some images (N, C, H, W) uint8.

    Raises:
        UsageError: it is not callable.
        ModelError: it raises an exception, its result has another shape or scale, or the same generator gives other
            images, so that no training could be repeated or resumed.
    """
    if not callable(augment):
        raise UsageError(f"augment must be a function, got {augment!r}", _AUGMENT_CONTRACT)
    results = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]), custom_code("the augmentation failed", _AUGMENT_CONTRACT):
            torch.manual_seed(0)
            results.append(augmented(augment, images.clone(), torch.Generator().manual_seed(0)))
    first, second = results
    if float(first.max()) <= 1 < float(images.max()):
        raise ModelError("the augmentation returned values from 0 to 1; images range from 0 to 255", _AUGMENT_CONTRACT)
    if not torch.isfinite(first).all():
        raise ModelError("the augmentation returned NaN or infinite pixels", _AUGMENT_CONTRACT)
    if not torch.equal(first, second):
        raise ModelError(
            "the augmentation returned different images for equal generators, so no training could be repeated",
            "draw every random number from the generator: torch.rand(n, generator=generator)",
        )


def augmented(augment: Augment, images: Tensor, random: torch.Generator) -> Tensor:
    """The result of an augmentation as float32; raises ModelError if it has another shape or an unsuitable type."""
    result = augment(images, random)
    if not isinstance(result, Tensor) or result.shape != images.shape:
        got = tuple(result.shape) if isinstance(result, Tensor) else f"an object of type {type(result).__name__}"
        raise ModelError(
            f"the augmentation must return images of shape {tuple(images.shape)}, got {got}", _AUGMENT_CONTRACT
        )
    if result.dtype != torch.uint8 and not result.is_floating_point():
        raise ModelError(f"the augmentation must return uint8 or floats, got {result.dtype}", _AUGMENT_CONTRACT)
    return result.float()


def on_device(loss: Loss, device: torch.device) -> Loss:
    """The loss; a module is copied to the device, because it may hold tensors."""
    return copy.deepcopy(loss).to(device) if isinstance(loss, nn.Module) else loss
