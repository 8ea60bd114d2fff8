"""Building a network with seeded weights: a built-in one by name, or a custom one."""

import copy
import importlib
import importlib.machinery
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hangtag.errors import ModelError, UnknownName
from hangtag.pictures import ImageSpec
from hangtag.training.engine.guard import custom_code, enough_memory
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.keras_model import adapt_keras_model, is_keras_model
from hangtag.training.engine.networks import NETWORKS

__all__ = ["build_network", "custom_network", "find_network"]

_FUNCTION_CONTRACT = "the function must take (hangtag.ImageSpec, number of classes) and return a torch.nn.Module"


def build_network(name: str, spec: ImageSpec, classes: int, seed: int) -> nn.Module:
    """Build a network with weights drawn from `seed`, leaving PyTorch's random state unchanged.

    Args:
        name: a name in `NETWORKS`, or "module:function" for a custom network, searched in the current folder first:
            either a function of (ImageSpec, number of classes) or a ready `torch.nn.Module`.
        spec: size and colours of the images.
        classes: number of logits.
        seed: determines the weights.

    Raises:
        UnknownName: no network has this name.
        ModelError: the custom network cannot be imported or built, or its output is invalid.

    >>> from hangtag.training.engine.networks import parameter_count
    >>> parameter_count(build_network("mlp", ImageSpec(28, 28), 10, seed=0))
    101770
    """
    source = find_network(name, seed)
    if name not in NETWORKS:
        return custom_network(source, spec, classes, seed, name)
    with _seeded(seed):
        return NETWORKS[name](spec, classes)


def find_network(name: str, seed: int) -> Any:
    """What a name stands for: a function of (ImageSpec, number of classes), or a ready `torch.nn.Module`.

    Args:
        name, seed: as for `build_network`; a module may build its network on import.

    Raises:
        UnknownName: no network has this name.
        ModelError: the custom network cannot be imported.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if ":" not in name:
        raise UnknownName.among("network", name, NETWORKS, ", or a custom one as module:function")
    with _seeded(seed):
        return _import_attribute(name)


def custom_network(
    source: nn.Module | Callable[[ImageSpec, int], nn.Module], spec: ImageSpec, classes: int, seed: int, name: str = ""
) -> nn.Module:
    """Copy a ready custom network, or call the function that builds one, and check the result.

    Lazy layers get their weights here, drawn from `seed`. PyTorch's random state is left unchanged.

    Args:
        name: the network's name in error messages; default: the name of the function or class.

    Raises:
        ModelError: the network cannot be built, or its output is invalid.
    """
    name = name or getattr(source, "__name__", type(source).__name__)
    with _seeded(seed):
        with (
            enough_memory(f"while building the network '{name}'", "use a smaller network"),
            custom_code(f"the network '{name}' cannot be built", _FUNCTION_CONTRACT),
        ):
            network: Any = source if _is_ready(source) else source(spec, classes)
            if is_keras_model(network):
                network = adapt_keras_model(network, spec, copied=network is source)
            elif network is source:
                network = _copy(source)
        if not isinstance(network, nn.Module):
            raise ModelError(f"'{name}' returned an object of type {type(network).__name__}", _FUNCTION_CONTRACT)
        _check_output(network, spec, classes)
        _check_logits(network, spec, name)
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the network '{name}' stores '{key}', which is not a tensor, so checkpoints cannot hold it",
                "store it in a buffer: register_buffer",
            )
    return network


def _check_output(network: nn.Module, spec: ImageSpec, classes: int) -> None:
    """Raise ModelError unless the network accepts such images and returns one logit per class.

    Lazy layers draw their weights here.
    """
    with enough_memory(f"with two images of {spec}", "use smaller images or a smaller network"):
        outputs = predict_logits(network, np.zeros((2, *spec.shape), np.uint8), 2).shape[1]
    if outputs != classes:
        raise ModelError(
            f"the network returns {outputs} logits but the data has {classes} classes",
            f"its last layer must have {classes} outputs",
        )


def _check_logits(network: nn.Module, spec: ImageSpec, name: str) -> None:
    """Raise ModelError if the network in evaluation mode returns probabilities, or varying logits for equal images."""
    images = np.random.default_rng(0).integers(0, 256, (2, *spec.shape), dtype=np.uint8)
    first, second = (predict_logits(network, images, 2) for _ in range(2))
    if not torch.allclose(first, second, atol=1e-4, equal_nan=True):
        raise ModelError(
            f"the network '{name}' returns different logits for the same images in evaluation mode",
            "if dropout is always on, use nn.Dropout or dropout(x, training=self.training)",
        )
    if bool((first >= 0).all()) and torch.allclose(first.sum(dim=1), torch.ones(2), atol=1e-3):
        raise ModelError(
            f"the network '{name}' returns probabilities, but hangtag needs logits",
            "remove the softmax at its end: hangtag applies it",
        )


def _is_ready(source: object) -> bool:
    return isinstance(source, nn.Module) or is_keras_model(source)


def _copy(network: nn.Module) -> nn.Module:
    """A copy of the network; `copy.deepcopy` alone cannot copy the missing weights of lazy layers."""
    tensors = [*network.parameters(), *network.buffers()]
    return copy.deepcopy(network, {id(each): _uninitialised(each) for each in tensors if is_lazy(each)})


def _uninitialised(lazy: Any) -> Any:
    return type(lazy)(lazy.requires_grad, lazy.device, lazy.dtype)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed PyTorch, and Python's `random`, from which Keras draws the seeds of its weights; restore both."""
    state = random.getstate()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            random.seed(seed)
            yield
    finally:
        random.setstate(state)


def _import_attribute(name: str) -> Any:
    """Import what `module:function` names, from the current folder or from installed packages.

    Only this module takes precedence over installed ones: a `json.py` in the current folder never replaces Python's.
    """
    module, _, attribute = name.partition(":")
    path_before = list(sys.path)
    folder = str(Path.cwd())
    with custom_code(f"the network '{name}' cannot be built", f"name it as module:function; {_FUNCTION_CONTRACT}"):
        try:
            sys.path.append(folder)
            _import_from(folder, module.partition(".")[0])
            return getattr(importlib.import_module(module), attribute)
        finally:
            sys.path[:] = path_before


def _import_from(folder: str, name: str) -> None:
    """Import a top-level module from this folder if it exists there and is not imported yet."""
    spec = None if name in sys.modules else importlib.machinery.PathFinder.find_spec(name, [folder])
    if spec is None or spec.loader is None:
        return
    sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(sys.modules[name])
    except BaseException:
        del sys.modules[name]
        raise
