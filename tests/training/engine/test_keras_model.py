"""keras_model.py: Keras models on the PyTorch backend go in, train, ship, resume and come back out."""

import copy
import os
import pickle
import random
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import hangtag
from hangtag.errors import ModelError
from hangtag.pictures import Images, ImageSpec
from hangtag.training.engine.build import build_network, custom_network
from hangtag.training.engine.checkpoints import CheckpointWriter, latest
from hangtag.training.engine.inference import predict_logits
from hangtag.training.engine.keras_model import KerasNetwork
from hangtag.training.engine.loop import train
from hangtag.training.engine.networks import layers, parameter_count
from toys import SIDE, quick_recipe, shapes

os.environ["KERAS_BACKEND"] = "torch"
import keras

L = keras.layers
SPEC = ImageSpec(SIDE, SIDE)
IMAGES, LABELS = shapes(60)
pytestmark = [  # of Keras's own code: under numpy 2, and when it loads a model that was compiled and never trained
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
]


def lesson() -> Any:
    return keras.Sequential([keras.Input((SIDE, SIDE)), L.Flatten(), L.Dense(16, activation="relu"), L.Dense(3)])


def convolutional(data_format: str = "channels_last") -> Any:
    last = data_format == "channels_last"
    layers = [
        keras.Input((SIDE, SIDE, 1) if last else (1, SIDE, SIDE)),
        L.Conv2D(4, 3, padding="same", data_format=data_format),
        L.BatchNormalization(axis=-1 if last else 1, momentum=0.5),
        L.ReLU(),
        L.MaxPooling2D(data_format=data_format),
        L.Dropout(0.1),
        L.Flatten(data_format=data_format),
        L.Dropout(0.1, seed=7),
        L.Dense(3),
    ]
    return keras.Sequential(layers)


def channels_first() -> Any:
    return convolutional("channels_first")


def flat() -> Any:
    return keras.Sequential([keras.Input((SIDE * SIDE,)), L.Dense(3)])


def ending_in_softmax() -> Any:
    return keras.Sequential([keras.Input((SIDE, SIDE)), L.Flatten(), L.Dense(3, activation="softmax")])


def with_a_softmax_layer() -> Any:
    return keras.Sequential([lesson(), L.Softmax()])


def without_an_input() -> Any:
    return keras.Sequential([L.Conv2D(4, 3), L.Flatten(), L.Dense(3)])


def scaling_itself() -> Any:
    image = keras.Input((None, None, 1))
    x = L.Conv2D(4, 3)(L.Rescaling(1 / 255)(image))
    return keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(x)))


class Subclassed(keras.Model):  # type: ignore[misc]  # Keras ships no types
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.flatten, self.dropout, self.dense = L.Flatten(), L.Dropout(0.1), L.Dense(3)

    def call(self, x: Any, training: bool = False) -> Any:
        return self.dense(self.dropout(self.flatten(x), training=training))


class Twice(L.Layer):  # type: ignore[misc]
    """A layer of one's own, which Keras does not know by name."""

    def call(self, x: Any) -> Any:
        return 2 * x


def with_an_own_layer() -> Any:
    return keras.Sequential([keras.Input((SIDE, SIDE)), L.Flatten(), Twice(), L.Dense(3)])


SHAPES: dict[Callable[[], Any], Callable[[Images], NDArray[Any]]] = {
    lesson: lambda images: images / 255,
    convolutional: lambda images: images[..., None] / 255,
    channels_first: lambda images: images[:, None] / 255,
    flat: lambda images: images.reshape(len(images), -1) / 255,
    ending_in_softmax: lambda images: images / 255,
    with_a_softmax_layer: lambda images: images / 255,
    without_an_input: lambda images: images[..., None] / 255,
    scaling_itself: lambda images: images[..., None],
    Subclassed: lambda images: images[..., None] / 255,
    with_an_own_layer: lambda images: images / 255,
}
"""Each model, and the images as Keras itself takes them."""


def weights(model: Any) -> bytes:
    return b"".join(array.tobytes() for array in model.get_weights())


def softmax(logits: Any) -> NDArray[np.float32]:
    found: NDArray[np.float32] = torch.as_tensor(logits).softmax(1).numpy()
    return found


@pytest.mark.parametrize("build", SHAPES, ids=lambda build: build.__name__)
def test_the_engine_gets_the_logits_of_the_keras_model(build: Callable[[], Any]) -> None:
    model = build()
    own = model.predict(SHAPES[build](IMAGES), verbose=0)  # builds the model, if it is not built

    network = custom_network(model, SPEC, 3, seed=0)

    assert isinstance(network, KerasNetwork)
    ends_in_softmax = "softmax" in build.__name__
    expected = own if ends_in_softmax else softmax(own)
    assert softmax(predict_logits(network, IMAGES)) == pytest.approx(expected, abs=1e-5)
    assert np.allclose(network.model.predict(SHAPES[build](IMAGES), verbose=0), own, atol=1e-5)
    assert parameter_count(network) == model.count_params()


@pytest.mark.parametrize("build", SHAPES, ids=lambda build: build.__name__)
def test_training_changes_the_copy_alone_and_its_weights_come_back(build: Callable[[], Any]) -> None:
    model = build()
    model.predict(SHAPES[build](IMAGES), verbose=0)
    before = weights(model)

    network = custom_network(model, SPEC, 3, seed=0)
    assert isinstance(network, KerasNetwork)
    assert weights(network.model) == before
    *_, last = train(network, IMAGES, LABELS, quick_recipe(2), 0)

    assert last.finished
    assert weights(model) == before
    assert weights(network.model) != before
    own = network.model.predict(SHAPES[build](IMAGES), verbose=0)
    assert (own.argmax(1) == predict_logits(network, IMAGES).argmax(1).numpy()).all()


@pytest.mark.parametrize("build", [convolutional, channels_first], ids=lambda build: build.__name__)
def test_a_fitted_keras_model_ships_and_is_saved_by_keras(build: Callable[[], Any], tmp_path: Path) -> None:
    model = build()
    model.compile("adam", "mse")
    recipe = replace(quick_recipe(8), validation=0.2, learning_rate=0.01)
    clf = hangtag.ImageClassifier(recipe, model=model).fit(IMAGES, LABELS)

    found = clf.predict_proba(IMAGES)  # from model.onnx, verified against the network
    clf.network_.save(tmp_path / "x.keras")
    reloaded = keras.models.load_model(tmp_path / "x.keras")

    assert (found.argmax(1) == LABELS).mean() > 0.9
    assert (reloaded.predict(SHAPES[build](IMAGES), verbose=0).argmax(1) == found.argmax(1)).all()
    assert clf.notes_[-1].startswith("the optimizer, loss and metrics that the Keras model was compiled with")
    assert reloaded.evaluate(SHAPES[build](IMAGES), keras.utils.to_categorical(LABELS), verbose=0) > 0  # still compiled
    assert clf.predictor_.metadata.network == "Sequential"
    assert clf.neighbours().embeddings.shape[1] == 4 * SIDE * SIDE // 4  # the input of the last Dense layer
    again = pickle.loads(pickle.dumps(clf))
    assert np.array_equal(again.predict_proba(IMAGES), found)
    assert weights(again.network_) == weights(clf.network_)


def test_a_resumed_training_of_a_keras_model_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hangtag.training.engine.batches._CHUNK_PIXELS", 2 * 8 * SIDE * SIDE)
    monkeypatch.setattr("hangtag.training.engine.checkpoints._FIRST_SECONDS", 0.0)
    monkeypatch.setattr("hangtag.training.engine.checkpoints._COST", 1e9)
    recipe = replace(quick_recipe(3), batch_size=8)
    build = lambda spec, classes: convolutional()  # noqa: E731
    whole = custom_network(build, SPEC, 3, seed=5)
    list(train(whole, IMAGES, LABELS, recipe, 0))

    chunks = iter(range(5))
    left = custom_network(build, SPEC, 3, seed=5)
    stop = lambda: next(chunks, None) is None  # noqa: E731
    list(train(left, IMAGES, LABELS, recipe, 0, stop=stop, checkpoint_writer=CheckpointWriter(tmp_path)))
    keras.layers.Dense(3)  # Keras counts the layers of a process in their names
    resumed = custom_network(build, SPEC, 3, seed=6)
    list(train(resumed, IMAGES, LABELS, recipe, 0, resume=latest(tmp_path)))

    states = [network.state_dict() for network in (whole, resumed, left)]
    assert [*states[0]] == [*states[1]]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not all(torch.equal(value, states[2][name]) for name, value in states[0].items())


@pytest.mark.parametrize("build", [convolutional, without_an_input], ids=lambda build: build.__name__)
def test_the_seed_alone_decides_the_weights_of_a_keras_model_that_a_function_builds(build: Callable[[], Any]) -> None:
    before = random.getstate()

    one, same, other = (custom_network(lambda *_: build(), SPEC, 3, seed) for seed in (1, 1, 2))

    assert random.getstate() == before
    tensors = [list(network.state_dict().values()) for network in (one, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(tensors[0], tensors[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(tensors[0], tensors[2], strict=True))


def test_a_keras_model_is_named_as_module_and_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import keras\ndef net(spec, classes):\n    return keras.Sequential([keras.Input((8, 8)), "
    (tmp_path / "keras_net.py").write_text(program + "keras.layers.Flatten(), keras.layers.Dense(classes)])\n")
    monkeypatch.chdir(tmp_path)

    assert parameter_count(build_network("keras_net:net", SPEC, 3, 0)) == 64 * 3 + 3


def test_the_layer_table_lists_the_layers_of_keras() -> None:
    network = custom_network(with_a_softmax_layer(), SPEC, 3, seed=0)
    subclassed = custom_network(lambda *_: Subclassed(), SPEC, 3, seed=0)

    rows = [(row.kind, row.shape, row.parameters) for row in layers(network, SPEC)]
    assert rows == [("Flatten", (64,), 0), ("Dense", (16,), 64 * 16 + 16), ("Dense", (3,), 51), ("Softmax", (3,), 0)]
    assert [row.parameters for row in layers(subclassed, SPEC)] == [0, 0, 64 * 3 + 3]


def test_frozen_layers_stay_as_they_are() -> None:
    model = convolutional()
    model.layers[0].trainable = False
    before = model.layers[0].get_weights()

    network = custom_network(model, SPEC, 3, seed=0)
    list(train(network, IMAGES, LABELS, quick_recipe(2), 0))

    assert isinstance(network, KerasNetwork)
    kernel, *_ = network.model.layers[0].get_weights()
    assert np.array_equal(kernel, before[0])
    assert not np.array_equal(network.model.layers[-1].get_weights()[0], model.layers[-1].get_weights()[0])


def test_a_copy_trains_its_own_variables() -> None:
    network = custom_network(convolutional(), SPEC, 3, seed=0)
    assert isinstance(network, KerasNetwork)

    twin = copy.deepcopy(network)
    list(train(twin, IMAGES, LABELS, quick_recipe(1), 0))

    assert weights(twin.model) != weights(network.model)
    assert not torch.equal(predict_logits(twin, IMAGES), predict_logits(network, IMAGES))


def test_what_is_special_about_a_keras_model_is_noted() -> None:
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE)),
            L.Rescaling(1 / 127.5, offset=-1),
            L.Flatten(),
            L.Dense(3, activation="softmax", kernel_regularizer="l2"),
        ]
    )
    model.compile("sgd", "mse")
    network = custom_network(model, SPEC, 3, seed=0)
    plain = custom_network(lesson(), SPEC, 3, seed=0)

    assert isinstance(network, KerasNetwork) and isinstance(plain, KerasNetwork)
    assert [re.findall(r"compiled|regularizers|255|softmax", note)[0] for note in network.notes] == [
        "compiled", "regularizers", "255", "softmax",
    ]  # fmt: skip
    assert plain.notes == []


def two_inputs() -> Any:
    first, second = keras.Input((SIDE, SIDE)), keras.Input((SIDE, SIDE))
    return keras.Model([first, second], L.Dense(3)(L.Flatten()(first + second)))


def one_sigmoid() -> Any:
    return keras.Sequential([keras.Input((SIDE, SIDE)), L.Flatten(), L.Dense(1, activation="sigmoid")])


def colour() -> Any:
    return keras.Sequential([keras.Input((32, 32, 3)), L.Flatten(), L.Dense(3)])


def four_outputs() -> Any:
    return keras.Sequential([keras.Input((SIDE, SIDE)), L.Flatten(), L.Dense(4)])


def maps() -> Any:
    return keras.Sequential([keras.Input((SIDE, SIDE, 1)), L.Conv2D(3, 3)])


class WithArguments(keras.Model):  # type: ignore[misc]
    def __init__(self, width: Any) -> None:
        super().__init__()
        self.width = width

    def call(self, x: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("build", "message", "hint"),
    [
        (two_inputs, "the Keras model has 2 inputs and 1 output", "one input, the image, and one output"),
        (one_sigmoid, "the last layer of the Keras model applies sigmoid", "as many outputs as there are classes"),
        (
            colour,
            r"pixels of shape \(32, 32, 3\), but the images are 8x8 grey",
            r"keras\.Input\(\(8, 8\)\)",
        ),
        (four_outputs, "returns 4 logits but the data has 3 classes", "must have 3 outputs"),
        (maps, r"returned \(2, 6, 6, 3\) for 2 images", r"logits \(N, K\)"),
        (lambda: WithArguments(nn.Identity()), "the Keras model cannot be copied", "pass a function instead"),
        (lambda: keras.Sequential([L.Conv2D(4, 9), L.Flatten()]), "does not accept pixels", "logits"),
    ],
)
def test_a_keras_model_that_does_not_fit_is_refused(build: Callable[[], Any], message: str, hint: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        custom_network(build(), SPEC, 3, seed=0)

    assert re.search(hint, caught.value.hint or "")


def test_a_keras_model_on_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        """What `keras.Model` is on JAX: no torch.nn.Module. A process cannot have Keras on two backends."""

    other = SimpleNamespace(Model=Model, config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", other)
    sources: list[Any] = [Model(), lambda *_: Model()]

    for source in sources:
        with pytest.raises(ModelError, match="the Keras model runs on jax, but hangtag trains with PyTorch"):
            custom_network(source, SPEC, 3, 0)
