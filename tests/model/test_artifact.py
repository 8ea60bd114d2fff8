"""A model file is opened without trusting it: its metadata and its graph must agree."""

import copy
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from PIL import Image

import hangtag
from hangtag.errors import ArtifactError, HangtagError, RunError
from hangtag.model.artifact import FORMAT, INPUT, METADATA_KEY, MODEL_FILE, OUTPUT, PIXELS, Metadata, open_artifact
from hangtag.model.calibration import Calibrator
from hangtag.model.conformal import LEVELS, Conformal
from hangtag.model.guarantees import Guarantees
from hangtag.pictures import ImageSpec
from toys import CLASSES, metadata, shapes, toy_model

RETRAIN = "train again, or get a fresh copy of the file"


def refused(source: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        open_artifact(source)
    assert caught.value.hint
    return caught.value


def with_metadata(text: str | None) -> bytes:
    """The toy model with another text in place of its metadata, or with none."""
    model = onnx.load_model_from_string(toy_model())
    del model.metadata_props[:]
    if text is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
    content: bytes = model.SerializeToString()
    return content


def saying(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The toy model with changed metadata."""
    data = copy.deepcopy(json.loads(json.dumps(metadata().to_json())))
    change(data)
    return with_metadata(json.dumps(data))


def guarantees_of(method: str = "raps", classes: int = 3, has_ood_score: bool = False) -> dict[str, Any]:
    """The guarantees of a model with this number of classes."""
    conformal = [{**Conformal("raps", 9, (None,) * len(LEVELS)).to_json(), "method": method}]
    data = Guarantees((3,) * classes, Calibrator.none(classes), (), has_ood_score).to_json()
    return {**data, "conformal": conformal}


def foreign(text: str, data: Metadata | None = None) -> bytes:
    """A small graph in ONNX's own text, as a file."""
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> {text}')
    if data is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(data.to_json())})
    content: bytes = model.SerializeToString()
    return content


# --- opening ---------------------------------------------------------------------------------------------------


def test_a_file_its_bytes_and_its_run_folder_are_the_same_model(tmp_path: Path) -> None:
    (tmp_path / MODEL_FILE).write_bytes(toy_model())

    opened = [open_artifact(source) for source in (toy_model(), tmp_path, tmp_path / MODEL_FILE, str(tmp_path))]

    assert [artifact.metadata for artifact in opened] == [metadata()] * 4
    assert len({artifact.fingerprint for artifact in opened}) == 1
    assert len(opened[0].fingerprint) == 12


def test_a_model_answers_with_one_row_of_probabilities_per_image() -> None:
    artifact = open_artifact(toy_model())

    rows = artifact.probabilities(shapes(7)[0])

    assert (rows.shape, rows.dtype.name) == ((7, 3), "float32")
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-6)
    assert artifact.probabilities(np.zeros((0, 8, 8), np.uint8)).shape == (0, 3)


def test_many_images_are_answered_in_pieces_with_the_same_answers() -> None:
    artifact = open_artifact(toy_model())
    images = np.random.default_rng(0).integers(0, 256, (9, 200, 1000), dtype=np.uint8)  # 2 fit into a piece

    together = artifact.probabilities(images)

    np.testing.assert_allclose(together, np.concatenate([artifact.probabilities(images[i : i + 1]) for i in range(9)]))


def test_the_file_names_what_goes_in_and_comes_out() -> None:
    session = onnxruntime.InferenceSession(toy_model(channels=3))

    ends = [(node.name, node.type, node.shape) for node in (*session.get_inputs(), *session.get_outputs())]

    assert ends == [
        (INPUT, "tensor(uint8)", ["N", "height", "width", 3]),
        (OUTPUT, "tensor(float)", ["N", 3]),
        ("uncalibrated", "tensor(float)", ["N", 3]),
        ("embedding", "tensor(float)", ["N", 128]),
        (PIXELS, "tensor(float)", ["N", 3, 8, 8]),
    ]


# --- files that are not models -----------------------------------------------------------------------------------

IDENTITY = f"g (float[N, 3] {INPUT}) => (float[N, 3] {OUTPUT}) {{ {OUTPUT} = Identity ({INPUT}) }}"


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (lambda: b"", "the file is empty", RETRAIN),
        (lambda: b"\x00\x01\x02" * 100, "not a model that ONNX Runtime can open", RETRAIN),
        (lambda: np.random.default_rng(0).bytes(5000), "not a model that ONNX Runtime can open", RETRAIN),
        (lambda: b"hello there, I am a text", "not a model that ONNX Runtime can open", RETRAIN),
        (lambda: toy_model()[:-500], "not a model that ONNX Runtime can open", RETRAIN),
        (
            lambda: foreign(IDENTITY),
            "an ONNX model, but not one made by hangtag",
            "use a model.onnx that hangtag wrote",
        ),
        (
            lambda: with_metadata(None),
            "an ONNX model, but not one made by hangtag",
            "use a model.onnx that hangtag wrote",
        ),
    ],
    ids=["empty", "zeros", "random bytes", "text", "cut short", "foreign", "without metadata"],
)
def test_a_file_that_is_not_ours_is_refused_with_its_name(
    tmp_path: Path, content: Callable[[], bytes], message: str, hint: str
) -> None:
    path = tmp_path / "some.onnx"
    path.write_bytes(content())

    error = refused(path)

    assert (type(error), error.message, error.hint) == (ArtifactError, f"{path}: {message}", hint)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("missing.onnx", ArtifactError, "no such file"),
        ("folder", RunError, "no model.onnx in this folder"),
        ("x" * 300, ArtifactError, "cannot be read: [Errno 36]"),
        ("nul\0l", ArtifactError, "cannot be read: embedded null byte"),
    ],
)
def test_a_path_without_a_model_is_refused_with_its_name(
    tmp_path: Path, name: str, kind: type[HangtagError], message: str
) -> None:
    (tmp_path / "folder").mkdir()

    error = refused(tmp_path / name)

    assert type(error) is kind
    assert error.message.startswith(f"{tmp_path / name}: {message}")


def test_hangtag_load_refuses_in_the_same_words(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        hangtag.load(tmp_path)

    assert (
        str(caught.value)
        == f"{tmp_path}: no model.onnx in this folder (its training did not finish; resume it or train again)"
    )


# --- false metadata ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["class_names"].append("more"), "its metadata names 4 classes but its graph returns (3,)"),
        (lambda data: data["class_names"].pop(), "its metadata names 2 classes but its graph returns (3,)"),
        (lambda data: data.update(class_names=["one"]), "its metadata is invalid: class names must be two or more"),
        (lambda data: data.update(class_names=["a", "a", "b"]), "its metadata is invalid: class names must be two or"),
        (lambda data: data.update(class_names=[1, 2, 3]),
         "its metadata is invalid: expected `str`, got `int` (field `class_names[0]`)"),
        (lambda data: data["image"].update(height=9),
         "its metadata says 8x9 grey but its network takes images of shape [1, 8, 8]"),
        (lambda data: data["image"].update(height=10**6, width=10**6),
         "its metadata says 1000000x1000000 grey but its network takes images of shape [1, 8, 8]"),
        (lambda data: data["image"].update(channels=3),
         "its metadata says 8x8 colour but its graph takes tensor(uint8) ['N', 'height', 'width']"),
        (lambda data: data["image"].update(channels=4),
         "its metadata is invalid: image channels must be one that hangtag supports, got 4"),
        (lambda data: data["image"].update(height=0),
         "its metadata is invalid: image height must be one that hangtag supports, got 0"),
        (lambda data: data["image"].update(height=8.0),
         "its metadata is invalid: expected `int`, got `float` (field `image.height`)"),
        (lambda data: data["image"].update(width="8"),
         "its metadata is invalid: expected `int`, got `str` (field `image.width`)"),
        (lambda data: data["image"].update(background=256),
         "its metadata is invalid: image background must be one that hangtag supports, got 256"),
        (lambda data: data["image"].update(background=-1),
         "its metadata is invalid: image background must be one that hangtag supports, got -1"),
        (lambda data: data["image"].update(fit="bend"),
         "its metadata is invalid: image fit must be one that hangtag supports, got 'bend'"),
        (lambda data: data["image"].pop("width"),
         "its metadata is invalid: object missing required field `width` (field `image`)"),
        (lambda data: data.update(guarantees={}),
         "its metadata is invalid: object missing required field `images` (field `guarantees`)"),
        (lambda data: data.update(guarantees=[1]),
         "its metadata is invalid: expected `object | null`, got `array` (field `guarantees`)"),
        (lambda data: data.update(guarantees=guarantees_of("raps2")),
         "its metadata is invalid: raps2 thresholds are for the coverage levels of another hangtag version "
         "(field `guarantees.conformal[0]`)"),
        (lambda data: data.update(guarantees=guarantees_of(classes=4)),
         "its metadata is invalid: guarantees are for a different number of classes"),
        (lambda data: data.update(guarantees=guarantees_of(has_ood_score=True)),
         "its metadata promises an OOD score but its graph has none"),
        (lambda data: data.update(seed=True), "its metadata is invalid: expected `int`, got `bool` (field `seed`)"),
        (lambda data: data.update(format="1"), "its metadata is invalid: expected a whole number (field `format`)"),
    ],
)  # fmt: skip
def test_false_metadata_is_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    error = refused(saying(change))

    assert type(error) is ArtifactError
    assert error.message.startswith(f"model: {message}")
    assert error.hint == RETRAIN


@pytest.mark.parametrize("key", sorted(asdict(metadata()).keys() - {"guarantees"}))
def test_metadata_without_a_field_is_refused(key: str) -> None:
    message = refused(saying(lambda data: data.pop(key))).message

    assert message.startswith("model: its metadata is invalid: ") and f"field `{key}`" in message


@pytest.mark.parametrize("key", sorted(asdict(metadata()).keys() - {"guarantees"}))
def test_metadata_with_a_field_of_the_wrong_type_is_refused(key: str) -> None:
    message = refused(saying(lambda data: data.update({key: None}))).message

    assert message.startswith("model: its metadata is invalid: expected ") and message.endswith(f" (field `{key}`)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "model: its metadata is not valid JSON"),
        ("", "model: its metadata is not valid JSON"),
        ("[1, 2]", "model: its metadata is invalid: expected `object`, got `array`"),
        ("null", "model: its metadata is invalid: expected `object`, got `null`"),
    ],
)
def test_metadata_that_is_not_an_object_is_refused(text: str, message: str) -> None:
    error = refused(with_metadata(text))

    assert (type(error), error.message, error.hint) == (ArtifactError, message, RETRAIN)


def test_a_newer_format_asks_for_a_newer_hangtag() -> None:
    error = refused(saying(lambda data: data.update(format=FORMAT + 1, entries="we do not know yet")))

    assert (error.message, error.hint) == (
        "model: it has format 4; this hangtag reads formats up to 3",
        "install a newer hangtag",
    )


@pytest.mark.parametrize("older", [{"format": 1, "temperature": 1.0}, {"format": 2, "guarantees": "of format 2"}])
def test_a_file_of_an_older_format_answers_without_guarantees(older: dict[str, Any]) -> None:
    tag = hangtag.load(saying(lambda data: (data.pop("guarantees"), data.update(older))))
    answer = tag(shapes(1)[0][0])

    assert (answer.prediction_set, answer.coverage, answer.is_ood, answer.sure) == (None, None, None, None)
    assert tag.guarantees.limitations == ("this model file predates calibrated answers; retrain to get them",)


def test_unknown_fields_do_no_harm() -> None:
    assert open_artifact(saying(lambda data: data.update(more=[1, 2]))).metadata == metadata()


# --- false graphs -----------------------------------------------------------------------------------------------

WHITE = f"{PIXELS} = RandomNormal <shape = [1, 1, 8, 8]> ()"


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (IDENTITY, "its graph must go from 'images' through 'pixels' to 'probabilities'"),
        (
            f"g (uint8[N, h, w] {INPUT}) => (float[1, 3] {OUTPUT}, float[1, 1, 8, 8] {PIXELS}) "
            f"<float[1, 3] answer = {{5.0, 5.0, 5.0}}> {{ {OUTPUT} = Identity (answer) {WHITE} }}",
            "its graph does not return probabilities",
        ),
        (
            f"g (float[N, h, w] {INPUT}) => (float[1, 3] {OUTPUT}, float[1, 1, 8, 8] {PIXELS}) "
            f"<float[1, 3] answer = {{1.0, 0.0, 0.0}}> {{ {OUTPUT} = Identity (answer) {WHITE} }}",
            "its metadata says 8x8 grey but its graph takes tensor(float) ['N', 'h', 'w']",
        ),
        (
            f"g (uint8[N, h, w] {INPUT}) => (float[a, b] {OUTPUT}, float[1, 1, 8, 8] {PIXELS}) "
            f"<int64[2] odd = {{7, 9}}> {{ f = Cast <to = 1> ({INPUT}) {OUTPUT} = Reshape (f, odd) {WHITE} }}",
            "its graph fails on a blank image",
        ),
    ],
)
def test_a_graph_that_disagrees_with_the_metadata_is_refused(graph: str, message: str) -> None:
    error = refused(foreign(graph, metadata()))

    assert (type(error), error.message, error.hint) == (ArtifactError, f"model: {message}", RETRAIN)


# --- resizing in the graph -------------------------------------------------------------------------------------

SIZES = [(8, 8), (16, 16), (9, 8), (28, 28), (5, 7), (3, 20), (64, 48), (100, 7), (1, 1), (1, 300), (301, 203)]


def seen_by_the_network(picture: np.ndarray, channels: int) -> np.ndarray:
    """Grey levels (8, 8[, 3]) that the graph makes of one picture."""
    session = onnxruntime.InferenceSession(toy_model(channels))
    pixels = session.run([PIXELS], {INPUT: picture[None]})[0][0] * 255
    return pixels[0] if channels == 1 else np.moveaxis(pixels, 0, -1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_graph_resizes_as_pillow_does(height: int, width: int, channels: int) -> None:
    shape = (height, width) if channels == 1 else (height, width, 3)
    picture = np.random.default_rng(height).integers(0, 256, shape, dtype=np.uint8)

    seen = seen_by_the_network(picture, channels)

    pillows = np.asarray(Image.fromarray(picture).resize((8, 8), Image.Resampling.BILINEAR), dtype=np.float64)
    assert np.abs(seen - pillows).max() <= 1.001


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_of_the_right_size_reaches_the_network_untouched(channels: int) -> None:
    shape = (8, 8) if channels == 1 else (8, 8, 3)
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)

    np.testing.assert_array_equal(np.rint(seen_by_the_network(picture, channels)), picture)
    np.testing.assert_allclose(seen_by_the_network(picture, channels), picture, atol=1e-4)


# --- metadata --------------------------------------------------------------------------------------------------


def test_metadata_survives_json() -> None:
    data = metadata(ImageSpec(3, 4, 3, 17), ("셔츠", "b"))

    assert Metadata.from_json(json.loads(json.dumps(data.to_json()))) == data
    assert open_artifact(toy_model()).metadata.class_names == CLASSES
