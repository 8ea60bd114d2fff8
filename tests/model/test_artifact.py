"""A model file is opened without trusting it: its metadata and its graph must agree."""

import copy
import io
import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from PIL import Image

import hangtag
from hangtag.errors import ArtifactError, HangtagError, ModelNotFound, RunError, RunNotFound, UsageError
from hangtag.model.artifact import FORMAT, INPUT, MODEL_FILE, OUTPUT, PIXELS, Metadata, open_artifact
from hangtag.model.calibration import Calibrator
from hangtag.model.conformal import LEVELS, Conformal
from hangtag.model.guarantees import Guarantees
from hangtag.model.onnx_file import CHECKSUM_KEY, METADATA_KEY, sealed
from hangtag.pictures import ImageSpec
from toys import CLASSES, metadata, shapes, toy_model

RETRAIN = "train again, or get a fresh copy of the file"


def refused(source: Any) -> HangtagError:
    with pytest.raises(HangtagError) as caught:
        open_artifact(source)
    assert caught.value.hint
    return caught.value


def resealed(model: onnx.ModelProto) -> bytes:
    """A model as an attacker would write it who knows how the checksum is made."""
    entries = {entry.key: entry.value for entry in model.metadata_props} | {CHECKSUM_KEY: "0" * 64}
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, entries)
    content: bytes = model.SerializeToString()
    return sealed(content) if METADATA_KEY in entries else content


def with_metadata(text: str | None) -> bytes:
    """The toy model with another text in place of its metadata, or with none."""
    model = onnx.load_model_from_string(toy_model())
    del model.metadata_props[:]
    if text is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
    return resealed(model)


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
    for tensor in model.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    if data is not None:
        onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(data.to_json())})
    return resealed(model)


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
    beside = open_artifact(toy_model(), spins=False)  # several pieces at once
    np.testing.assert_array_equal(together, beside.probabilities(images))


@pytest.mark.parametrize(("cores", "threads", "each"), [(2, None, 1), (12, None, 2), (12, 3, 3)])
def test_batches_side_by_side_share_the_cores(
    cores: int, threads: int | None, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hangtag.model.artifact.processors", lambda: cores)

    session = open_artifact(toy_model(), threads, spins=False)._session

    assert session.get_session_options().intra_op_num_threads == each


def test_many_images_that_are_answered_side_by_side_fail_with_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = open_artifact(toy_model(), spins=False)
    monkeypatch.setattr(artifact, "_outputs", {OUTPUT: artifact._outputs["embedding"]})  # a graph that lied

    with pytest.raises(ArtifactError, match="its graph does not do what its metadata says"):
        artifact.probabilities(np.zeros((9, 200, 1000), np.uint8))


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
        (lambda: b"\x00\x01\x02" * 100, "not an ONNX model, or a damaged one", RETRAIN),
        (lambda: np.random.default_rng(0).bytes(5000), "not an ONNX model, or a damaged one", RETRAIN),
        (lambda: b"hello there, I am a text", "not an ONNX model, or a damaged one", RETRAIN),
        (lambda: toy_model()[:-500], "not an ONNX model, or a damaged one", RETRAIN),
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
        ("missing.onnx", ModelNotFound, "no such file"),
        ("folder", RunNotFound, "no model.onnx in this folder"),
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

    assert str(caught.value) == (
        f"{tmp_path}: no model.onnx in this folder (name a run folder or a model.onnx; the training of a run without "
        "one did not finish)"
    )


# --- false metadata ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["class_names"].append("more"), "its metadata names 4 classes but 'probabilities' has 3"),
        (lambda data: data["class_names"].pop(), "its metadata names 2 classes but 'probabilities' has 3"),
        (lambda data: data.update(class_names=["one"]),
         "its metadata is invalid: there must be 2 to 100,000 class names, got 1"),
        (lambda data: data.update(class_names=["a", "a", "b"]),
         "its metadata is invalid: class names must be distinct"),
        (lambda data: data.update(class_names=[1, 2, 3]),
         "its metadata is invalid: expected `str`, got `int` (field `class_names[0]`)"),
        (lambda data: data["image"].update(height=9),
         "its metadata says 8x9 grey but its network takes images of shape (1, 8, 8)"),
        (lambda data: data["image"].update(height=10**6, width=10**6),
         "its metadata says 1000000x1000000 grey but its network takes images of shape (1, 8, 8)"),
        (lambda data: data["image"].update(channels=3),
         "its metadata says 8x8 colour but its graph takes uint8 ['N', 'height', 'width']"),
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
        (lambda data: data.update(guarantees={**guarantees_of(), "limitations": ["x"] * 21}),
         "its metadata is invalid: there must be at most 20 limitations of 10,000 characters"),
        (lambda data: data.update(class_names=["caf\u00e9", "cafe\u0301", "dot"]),
         "its metadata is invalid: class names must be distinct"),
        (lambda data: data.update(seed=True), "its metadata is invalid: expected `int`, got `bool` (field `seed`)"),
        (lambda data: data.update(format="1"), "its metadata is not valid JSON, or has no format"),
    ],
)  # fmt: skip
def test_false_metadata_is_refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
    error = refused(saying(change))

    assert type(error) is ArtifactError
    assert error.message.startswith(f"model: {message}")
    assert error.hint == RETRAIN


@pytest.mark.parametrize("key", sorted(each.name for each in fields(Metadata) if each.default is MISSING))
def test_metadata_without_a_field_is_refused(key: str) -> None:
    message = refused(saying(lambda data: data.pop(key))).message

    assert message.startswith("model: its metadata is invalid: ") and f"field `{key}`" in message


@pytest.mark.parametrize("key", sorted(asdict(metadata()).keys() - {"guarantees", "format", "appearance", "backbone"}))
def test_metadata_with_a_field_of_the_wrong_type_is_refused(key: str) -> None:
    message = refused(saying(lambda data: data.update({key: None}))).message

    assert message.startswith("model: its metadata is invalid: expected ") and message.endswith(f" (field `{key}`)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "model: its metadata is not valid JSON, or has no format"),
        ("", "model: its metadata is not valid JSON, or has no format"),
        ("[" * 100_000, "model: its metadata is not valid JSON, or has no format"),
        ("[1, 2]", "model: its metadata is not valid JSON, or has no format"),
        ("null", "model: its metadata is not valid JSON, or has no format"),
        ('{"format": 5, "seed": ' + "[" * 100_000, "model: its metadata is not valid JSON, or has no format"),
    ],
)
def test_metadata_that_is_not_an_object_is_refused(text: str, message: str) -> None:
    error = refused(with_metadata(text))

    assert (type(error), error.message, error.hint) == (ArtifactError, message, RETRAIN)


def test_a_newer_format_asks_for_a_newer_hangtag() -> None:
    error = refused(saying(lambda data: data.update(format=FORMAT + 1, entries="we do not know yet")))

    assert (error.message, error.hint) == (
        f"model: it has format {FORMAT + 1}; this hangtag reads formats up to {FORMAT}",
        "install a newer hangtag",
    )


@pytest.mark.parametrize("older", [1, 2, 3])
def test_a_file_of_an_older_format_is_refused(older: int) -> None:
    model = onnx.load_model_from_string(saying(lambda data: data.update(format=older)))
    del model.metadata_props[1:]  # it has no checksum

    error = refused(model.SerializeToString())

    assert (error.message, error.hint) == (
        f"model: it was written by an older version of hangtag (format {older})",
        "train again",
    )


def test_unknown_fields_do_no_harm() -> None:
    assert open_artifact(saying(lambda data: data.update(more=[1, 2]))).metadata == metadata()


# --- false graphs -----------------------------------------------------------------------------------------------


def changed(change: Callable[[onnx.ModelProto], object]) -> bytes:
    """The toy model after a change, with the right checksum."""
    model = onnx.load_model_from_string(toy_model())
    change(model)
    return resealed(model)


def weights(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name.endswith("hidden.weight"))


def last(model: onnx.ModelProto) -> onnx.NodeProto:
    """The node that computes the probabilities."""
    return next(node for node in model.graph.node if OUTPUT in node.output)


def add(model: onnx.ModelProto, kind: str, *inputs: str, **attributes: Any) -> None:
    """Add a node whose output nothing uses."""
    model.graph.node.append(onnx.helper.make_node(kind, inputs, ["unused"], **attributes))


def outside(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def branch() -> onnx.GraphProto:
    return onnx.parser.parse_graph("b () => (float[1] x) { x = Constant <value_floats = [1.0]> () }")


def divide(model: onnx.ModelProto, by: int) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([by]), "by"))
    add(model, "Shape", INPUT)
    model.graph.node[-1].output[0] = "sides"
    add(model, "Div", "sides", "by")


def not_a_number(model: onnx.ModelProto) -> None:
    tensor = weights(model)
    tensor.raw_data = np.full(tensor.dims, np.nan, np.float32).tobytes()


FORBIDDEN: list[tuple[Callable[[onnx.ModelProto], object], str]] = [
    (lambda model: add(model, "Inverse", PIXELS, domain="com.microsoft"),
     "its graph uses the operator 'com.microsoft::Inverse', which hangtag's model files may not contain"),
    (lambda model: add(model, "RandomUniform", shape=[1]),
     "its graph uses the operator 'RandomUniform', which hangtag's model files may not contain"),
    (lambda model: add(model, "If", PIXELS, then_branch=branch(), else_branch=branch()), "it has a subgraph"),
    (lambda model: model.functions.add(name="f", domain="d"), "it has functions"),
    (lambda model: model.opset_import.add(domain="com.microsoft", version=1),
     "its graph must use version 18 to 26 of the standard operators, got "),
    (lambda model: setattr(model.opset_import[0], "version", 7),
     "its graph must use version 18 to 26 of the standard operators, got [('', 7)]"),
    (lambda model: setattr(model, "ir_version", 3), "its graph has a header that hangtag does not write"),
    (lambda model: outside(weights(model)), "it has weights in another file"),
    (lambda model: weights(model).dims.append(2**40), "its graph has weights of shape ["),
    (lambda model: weights(model).dims.__setitem__(0, 127), "its graph has weights of shape [127, "),
    (lambda model: setattr(weights(model), "data_type", onnx.TensorProto.STRING),
     "its graph has values of the type 8, which hangtag does not use"),
    (lambda model: add(model, "MaxPool", PIXELS, kernel_shape=[0, 0]),
     "its graph has an attribute 'kernel_shape' that is out of range: [0, 0]"),
    (lambda model: add(model, "Concat", PIXELS, axis=2**40),
     "its graph has an attribute 'axis' that is out of range: 1099511627776"),
    (lambda model: divide(model, -1), "its graph divides whole numbers by a number that is not a fixed one other than"),
    (lambda model: divide(model, 0), "its graph divides whole numbers by a number that is not a fixed one other than"),
    (lambda model: add(model, "Identity", "nothing"), "its graph has a node (Identity) whose inputs are not computed"),
    (lambda model: model.graph.node.append(model.graph.node[0]), "its graph computes two values of one name"),
    (lambda model: model.graph.input.append(model.graph.output[0]), "its graph computes two values of one name"),
    (lambda model: model.graph.output.pop(), "its graph must go from 'images' through 'pixels' to 'probabilities'"),
    (lambda model: model.graph.output.add(name="more", type=model.graph.output[0].type),
     "its graph does not compute all its outputs"),
    (lambda model: setattr(model.graph.output[0].type.tensor_type, "elem_type", 11),
     "its output 'probabilities' cannot have the shape ['N', 3]"),
    (lambda model: last(model).attribute[0].__setattr__("i", 0), "its graph does not return probabilities"),
    (lambda model: setattr(last(model), "op_type", "LogSoftmax"), "its graph does not return probabilities"),
    (not_a_number, "its graph returns NaN or infinite numbers as 'probabilities'"),
    (lambda model: setattr(last(model), "op_type", "Conv"), "ONNX Runtime cannot open its graph"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), FORBIDDEN)
def test_a_graph_that_hangtag_would_not_write_is_refused(
    change: Callable[[onnx.ModelProto], object], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    error = refused(changed(change))

    assert type(error) is ArtifactError
    assert error.message.startswith(f"model: {message}")
    assert capfd.readouterr() == ("", "")  # neither ONNX Runtime's log lines nor its errors


def test_a_foreign_graph_with_our_metadata_is_refused() -> None:
    assert refused(foreign(IDENTITY, metadata())).message == (
        "model: its graph must go from 'images' through 'pixels' to 'probabilities'"
    )


def test_the_unchanged_model_with_a_new_checksum_is_the_same_file() -> None:
    assert changed(lambda model: None) == toy_model()


def test_a_graph_that_asks_for_too_much_memory_is_refused() -> None:
    def huge(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([4, 10**12]), "sides"))
        add(model, "ConstantOfShape", "sides")
        model.graph.node[-1].output[0] = "zeros"
        add(model, "ReduceSum", "zeros", keepdims=0)
        model.graph.node[-1].output[0] = "zero"
        last(model).input[0] = "more"
        scores = next(node for node in model.graph.node if "scores" in node.output)
        model.graph.node.remove(last(model))
        add(model, "Add", "scores", "zero")
        model.graph.node[-1].output[0] = "more"
        add(model, "Softmax", "more")
        model.graph.node[-1].output[0] = OUTPUT
        assert scores

    assert refused(changed(huge)).message == (
        "model: its graph needs more memory for images of 8x8 pixels than hangtag allows"
    )


def test_every_changed_byte_is_found() -> None:
    content, random = toy_model(), np.random.default_rng(0)
    for at in random.choice(len(content), 100, replace=False):
        damaged = bytearray(content)
        damaged[at] ^= 1 << random.integers(8)
        refused(bytes(damaged))


# --- run folders ---------------------------------------------------------------------------------------------------


def test_a_model_that_the_run_did_not_write_is_refused_with_its_name(tmp_path: Path) -> None:
    content = toy_model()
    (tmp_path / MODEL_FILE).write_bytes(content)
    config = {"status": "finished", "model": {"sha256": open_artifact(content).sha256}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert open_artifact(tmp_path).metadata == metadata()

    (tmp_path / MODEL_FILE).write_bytes(changed(lambda model: last(model).attribute[0].__setattr__("i", 1)))

    assert refused(tmp_path).message == (
        f"{tmp_path / MODEL_FILE}: is not the file that this run wrote: its SHA-256 differs from the one in config.json"
    )
    assert open_artifact(tmp_path / MODEL_FILE).metadata == metadata()


def test_a_model_that_is_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.onnx").write_bytes(toy_model())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / MODEL_FILE).symlink_to(tmp_path / "elsewhere.onnx")

    assert refused(tmp_path / "run").message.endswith("model.onnx: is a link that leads out of the run folder")


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


@pytest.mark.parametrize("source", [None, 5, [], io.BytesIO(b"x")])
def test_what_is_neither_a_path_nor_bytes_is_one_line(source: Any) -> None:
    assert refused(source).message.startswith("expected a path or the content of a model file, got ")


def test_bytes_of_any_kind_are_opened() -> None:
    assert open_artifact(bytearray(toy_model())).sha256 == open_artifact(memoryview(toy_model())).sha256  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [0, 1025, "2", 1.5])
def test_an_impossible_number_of_threads_is_one_line(threads: Any) -> None:
    with pytest.raises(UsageError, match="threads must be a whole number from 1 to 1,024"):
        open_artifact(toy_model(), threads)


def test_a_folder_without_a_model_is_not_said_to_be_a_run(tmp_path: Path) -> None:
    assert "name a run folder or a model.onnx" in refused(tmp_path).hint


def test_a_machine_that_computes_batches_otherwise_gets_images_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = open_artifact(toy_model())
    images = np.random.default_rng(3).integers(0, 256, (5, *artifact.metadata.image.shape), dtype=np.uint8)
    run, counts = artifact._run, []

    def otherwise(images: Any, names: tuple[str, ...], options: Any = None) -> Any:
        counts.append(len(images))
        return [rows * np.float32(1 - 1e-6 * (len(images) > 1)) for rows in run(images, names, options)]

    assert artifact.settle_batches()
    monkeypatch.setattr(artifact, "_run", otherwise)
    assert not artifact.settle_batches()
    counts.clear()
    artifact.probabilities(images)
    assert counts == [1] * 5
