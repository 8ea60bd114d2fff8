"""Keras models on Keras's PyTorch backend, adapted to what the engine trains. Keras itself is never imported here."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hangtag.errors import ModelError
from hangtag.pictures import ImageSpec
from hangtag.training.engine.guard import custom_code

__all__ = [
    "KerasHead",
    "KerasNetwork",
    "adapt_keras_model",
    "is_keras_model",
    "keras_notes",
    "own_network",
    "user_network",
]

_SMALL_SCALE = 0.1  # a Rescaling layer with a smaller factor, such as 1/255, expects pixels up to 255
_LARGE_MEAN = 1.0  # so does a Normalization layer with a larger mean
_REGULARISED = ("kernel", "bias", "activity", "depthwise", "pointwise", "embeddings")  # weights of a layer
_BACKEND_HINT = "set os.environ['KERAS_BACKEND'] = 'torch' before Keras is imported; saved .keras files open there, too"


def is_keras_model(thing: object) -> bool:
    """Whether this is a Keras model, on any backend."""
    model = getattr(sys.modules.get("keras"), "Model", None)
    return isinstance(model, type) and isinstance(thing, model)


def adapt_keras_model(model: Any, spec: ImageSpec, *, copied: bool) -> "KerasNetwork":
    """Wrap a Keras model so that the engine can train it.

    Args:
        copied: whether to train a copy with the same weights and leave the model unchanged.

    Raises:
        ModelError: the model runs on another backend, cannot be copied, or does not take one image of this spec and
            return logits.
    """
    keras: Any = sys.modules["keras"]
    if not isinstance(model, nn.Module):
        backend = keras.config.backend() if hasattr(keras, "config") else "TensorFlow"
        raise ModelError(f"the Keras model runs on {backend}, but hangtag trains with PyTorch", _BACKEND_HINT)
    network = _copy(model, spec) if copied else KerasNetwork(model, spec)
    network.notes = list(_notes(model, network))
    return network


def _copy(model: Any, spec: ImageSpec) -> "KerasNetwork":
    keras: Any = sys.modules["keras"]
    hint = "pass a function instead, which builds the model: def build(spec, classes)"
    with custom_code("the Keras model cannot be copied", hint), keras.device("cpu"):
        network = KerasNetwork(keras.models.clone_model(model), spec)
        for new, old in zip(network.model.weights, model.weights or network.model.weights, strict=True):
            new.assign(keras.ops.convert_to_numpy(old))
            new.trainable = old.trainable
    return network


def own_network(network: nn.Module) -> nn.Module:
    """The network as its user knows it: a Keras model without its adapter, moved to the device that Keras uses."""
    if isinstance(network, KerasNetwork):
        network.to(sys.modules["keras"].ops.zeros(()).device)
    return user_network(network)


def user_network(network: nn.Module) -> nn.Module:
    """The network as its user knows it, where it is."""
    return network.model if isinstance(network, KerasNetwork) else network


def keras_notes(network: nn.Module) -> list[str]:
    """What the user of a Keras model should know, in sentences; nothing for other networks."""
    return network.notes if isinstance(network, KerasNetwork) else []


class KerasNetwork(nn.Module):
    """A Keras model that takes float32 (N, C, H, W) from 0 to 1 and returns logits (N, K), as the engine expects.

    Images get the shape of the model's input: (N, H, W), (N, H, W, C), (N, C, H, W), or flat, (N, H * W * C). A model
    that scales pixels itself gets them from 0 to 255. A softmax at its end is left out here; the model keeps it.

    Attributes:
        model: the Keras model; its variables and the parameters of this module are the same tensors.
        notes: what its user should know, in sentences.

    Raises:
        ModelError: the model does not take one image of this spec, or does not end with logits or softmax.
    """

    model: Any
    _body: Any

    def __init__(self, model: Any, spec: ImageSpec) -> None:
        super().__init__()
        self.spec = spec
        self.notes: list[str] = []
        self.white = 255 if _scales_pixels(model) else 1
        # Not as submodules: Keras's state_dict has every variable several times, and its names depend on what the
        # process built before, so that a checkpoint of another process would not fit.
        object.__setattr__(self, "model", model)
        self.layout = self._find_layout()
        body, head = _split(model)
        object.__setattr__(self, "_body", body)
        self.head = None if head is None else KerasHead(head)
        self.softmax = _has_output(model) and _activation(model.layers[-1]) == "softmax"
        tensors = {f"{number}/{each.name}": each.value for number, each in enumerate(model.variables)}
        self.variables = nn.ParameterDict(tensors)

    def forward(self, x: Tensor) -> Tensor:
        with sys.modules["keras"].device(str(x.device)):
            x = self._body(_arranged(x * self.white, self.layout), training=self.training)
            return x if self.head is None else self.head(x)

    def keras_layers(self) -> list[tuple[str, str, tuple[int, ...], int]]:
        """Name, type, output shape and number of weights of each layer; () if Keras does not know the shape."""
        return [
            (layer.name, type(layer).__name__, _output_shape(layer), layer.count_params())
            for layer in _all_layers(self.model)
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        return KerasNetwork, (self.model, self.spec), {"notes": self.notes}  # bound to the variables of its own model

    def _find_layout(self) -> str:
        """The first layout that the model's input has; a model without a known input is tried, which builds it."""
        spec, (model, keras) = self.spec, (self.model, sys.modules["keras"])
        shapes = {
            "HWC": (spec.height, spec.width, spec.channels),
            "CHW": (spec.channels, spec.height, spec.width),
            **({"HW": (spec.height, spec.width)} if spec.channels == 1 else {}),
            "flat": (spec.height * spec.width * spec.channels,),
        }
        formats = [layer.data_format for layer in _all_layers(model) if hasattr(layer, "data_format")]
        if (formats[0] if formats else keras.config.image_data_format()) == "channels_first":
            shapes = {"CHW": shapes["CHW"]} | shapes
        inputs = getattr(model, "inputs", None)
        if inputs is None:
            error: ModelError | None = None
            for layout in shapes:
                try:
                    self._try(layout)
                    return layout
                except ModelError as caught:
                    error = error or caught
            assert error is not None
            raise error
        if len(inputs) != 1 or len(model.outputs) != 1:
            count = f"{len(inputs)} inputs and {len(model.outputs)} outputs"
            raise ModelError(f"the Keras model has {count}", "it must have one input, the image, and one output")
        wanted = tuple(inputs[0].shape[1:])
        for layout, shape in shapes.items():
            if len(shape) == len(wanted) and all(side in (None, own) for own, side in zip(shape, wanted, strict=True)):
                return layout
        raise ModelError(
            f"the Keras model takes pixels of shape {wanted}, but the images are {spec}",
            f"build it with keras.Input({shapes.get('HW', shapes['HWC'])}), or read the images in the shape it takes",
        )

    def _try(self, layout: str) -> None:
        zeros = torch.zeros(2, self.spec.channels, self.spec.height, self.spec.width)
        shape = tuple(_arranged(zeros, layout).shape)
        refused = custom_code(f"the Keras model does not accept pixels of shape {shape}")
        with refused, torch.no_grad(), sys.modules["keras"].device("cpu"):
            self.model(_arranged(zeros, layout), training=False)


class KerasHead(nn.Module):
    """The last Dense layer of a Keras model, without its softmax; its input (N, E) is the model's embedding."""

    dense: Any

    def __init__(self, dense: Any) -> None:
        super().__init__()
        object.__setattr__(self, "dense", dense)

    def forward(self, x: Tensor) -> Tensor:
        activation, self.dense.activation = self.dense.activation, sys.modules["keras"].activations.linear
        try:
            logits: Tensor = self.dense(x)
            return logits
        finally:
            self.dense.activation = activation


def _arranged(x: Tensor, layout: str) -> Tensor:
    """Pixels (N, C, H, W) in the layout "CHW", "HW", "HWC" or "flat"."""
    if layout == "CHW":
        return x
    if layout == "HW":
        return x[:, 0]
    x = x.permute(0, 2, 3, 1)
    return x.flatten(1) if layout == "flat" else x


def _split(model: Any) -> tuple[Any, Any]:
    """The model without a softmax at its end and without its last Dense layer, and that layer, if it has one."""
    if not _has_output(model):
        return model, None
    layers: Any = sys.modules["keras"].layers
    remaining, output, head = list(model.layers), model.outputs[0], None
    if _activation(remaining[-1]) not in ("linear", "softmax", "log_softmax"):
        raise ModelError(
            f"the last layer of the Keras model applies {_activation(remaining[-1])}, but hangtag needs logits",
            "give it no activation; and as many outputs as there are classes, even for two",
        )
    if isinstance(remaining[-1], layers.Softmax | layers.Activation):
        output = remaining.pop().input
    if remaining and isinstance(remaining[-1], layers.Dense) and _computes(remaining[-1], output):
        head = remaining[-1]
        output = head.input
    body = model if output is model.outputs[0] else sys.modules["keras"].Model(model.inputs, output)
    return body, head


def _has_output(model: Any) -> bool:
    """Whether the model is a graph of layers whose last one computes its output."""
    return bool(getattr(model, "inputs", None)) and bool(model.layers) and _computes(model.layers[-1], model.outputs[0])


def _output_shape(layer: Any) -> tuple[int, ...]:
    try:
        return tuple(layer.output.shape[1:])
    except (AttributeError, ValueError):  # it is used several times, or in a model that is no graph of layers
        return ()


def _computes(layer: Any, output: Any) -> bool:
    try:
        return layer.output is output
    except (AttributeError, ValueError):  # it is used several times
        return False


def _activation(layer: Any) -> str:
    if isinstance(layer, sys.modules["keras"].layers.Softmax):
        return "softmax"
    return str(getattr(getattr(layer, "activation", None), "__name__", "linear"))


def _notes(model: Any, network: KerasNetwork) -> Iterator[str]:
    if model.compiled:
        yield (
            "the optimizer, loss and metrics that the Keras model was compiled with are not used: "
            "the recipe decides how it is trained"
        )
    if any(getattr(layer, f"{name}_regularizer", None) for layer in _all_layers(model) for name in _REGULARISED):
        yield "the regularizers of the Keras model are not used; --set weight_decay=0.05 is hangtag's own"
    if network.white != 1:
        yield "the Keras model scales pixels itself, so it gets them from 0 to 255 instead of 0 to 1"
    if network.softmax:
        yield "the softmax at the end of the Keras model is left out in training, because hangtag applies one itself"


def _scales_pixels(model: Any) -> bool:
    """Whether a layer of the model expects pixels from 0 to 255."""
    layers: Any = sys.modules["keras"].layers
    for layer in _all_layers(model):
        if isinstance(layer, layers.Rescaling):
            return bool(np.max(layer.scale) < _SMALL_SCALE)
        if isinstance(layer, layers.Normalization) and getattr(layer, "mean", None) is not None:
            mean = sys.modules["keras"].ops.convert_to_numpy(layer.mean)
            return bool(np.max(mean) > _LARGE_MEAN)
    return False


def _all_layers(model: Any) -> Iterator[Any]:
    """The layers of a model in order, with those of the models in it."""
    for layer in model.layers:
        yield from _all_layers(layer) if hasattr(layer, "layers") else [layer]
