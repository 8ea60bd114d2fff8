"""ONNX files of users: features are found in graphs of many forms, and hostile ones are refused in one line."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper

from hangtag.errors import ArtifactError, HangtagError, ModelError, ModelNotFound, UsageError
from hangtag.model import artifact
from hangtag.model.onnx_file import OnnxFile
from hangtag.training.engine import onnx_backbone
from hangtag.training.engine.backbones import Backbone, compute_features, find_backbone
from hangtag.training.engine.onnx_backbone import SCALES

RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.normal(size=(5, 3, 3, 3)).astype(np.float32)
IMAGES = RANDOM.integers(0, 256, (4, 8, 8, 3), np.uint8)
CONV = "Conv <pads = [1, 1, 1, 1]>"
HEAD = RANDOM.normal(size=(7, 5)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes a graph in ONNX's text format, with weights, as a file."""

    def save(
        inputs: str, nodes: str, outputs: str = "float[N, 5] y", opset: int = 20, ir: int = 9, functions: str = "",
        domains: str = "", **weights: np.ndarray,
    ) -> Path:  # fmt: skip
        weights = {"kernel": KERNEL, "head": HEAD} | weights
        used = {name: value for name, value in weights.items() if name in nodes}
        header = f'<ir_version: {ir}, opset_import: ["" : {opset}{domains}]>'
        model = onnx.parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {{ {nodes} }}{functions}")
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in used.items())
        path = tmp_path / "features.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    return save


def maps_of(images: np.ndarray, scale: str) -> np.ndarray:
    """(N, 5, H, W): the convolution and the ReLU, by NumPy, with pixels on this scale."""
    mean, deviation = (np.array(each) for each in SCALES[scale])
    x = np.pad((images - mean) / deviation, [(0, 0), (1, 1), (1, 1), (0, 0)])
    views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))  # (N, H, W, C, 3, 3)
    return np.maximum(np.einsum("nhwcij,kcij->nkhw", views, KERNEL), 0)


def assert_same(features: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


USUAL = f"m = {CONV} (x, kernel) r = Relu (m)"
POOLED = f"{USUAL} p = GlobalAveragePool (r) y = Flatten (p)"


def test_feature_maps_before_the_pooling_are_found(saved: Callable[..., Path]) -> None:
    found = find_backbone(str(saved("float[N, 3, 8, 8] x", POOLED)))

    assert (found.name, found.side, found.size, found.has_maps) == ("features.onnx", (8, 8), 5, True)
    assert (found.network, found.parameters) == (None, pytest.approx(KERNEL.size, abs=10))
    assert_same(compute_features(found, IMAGES), maps_of(IMAGES, "imagenet").mean((2, 3)))


def test_an_older_onnx_runtime_opens_a_file_of_the_newest_onnx(
    saved: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []

    def open_session(content: bytes, **options: Any) -> Any:
        opened.append(onnx.load_from_string(content).ir_version)
        return artifact.open_session(content, **options)

    monkeypatch.setattr(onnx_backbone, "open_session", open_session)

    find_backbone(str(saved("float[N, 3, 8, 8] x", POOLED, ir=onnx.IR_VERSION)))

    assert opened
    assert set(opened) == {onnx_backbone.IR_VERSION}


def test_the_last_layer_of_a_classifier_is_left_out(saved: Callable[..., Path]) -> None:
    nodes = f"{POOLED.replace('y =', 'f =')} l = Gemm <transB = 1> (f, head) y = Softmax (l)"

    found = find_backbone(str(saved("float[N, 3, 8, 8] x", nodes, "float[N, 7] y")))

    assert (found.size, found.has_maps) == (5, True)
    assert any("a classifier of 7 classes, is left out" in note for note in found.notes)
    assert any("(a guess); to choose another, name it as FILE.onnx@SCALE" in note for note in found.notes)
    assert_same(compute_features(found, IMAGES), maps_of(IMAGES, "imagenet").mean((2, 3)))


def test_a_projection_to_an_embedding_is_kept(saved: Callable[..., Path]) -> None:
    nodes = f"{POOLED.replace('y =', 'f =')} y = Gemm <transB = 1> (f, head)"

    found = find_backbone(str(saved("float[N, 3, 8, 8] x", nodes, "float[N, 7] y")))

    assert (found.size, found.has_maps) == (7, False)
    assert_same(compute_features(found, IMAGES), maps_of(IMAGES, "imagenet").mean((2, 3)) @ HEAD.T)


CHANNELS_LAST = f"t = Transpose <perm = [0, 3, 1, 2]> (x) {USUAL.replace('(x', '(t')}"
TWICE = """
    <domain: "own", opset_import: ["" : 20]> positive (a) => (b) { b = Relu (a) }"""


@pytest.mark.parametrize(
    ("inputs", "nodes", "outputs", "scale"),
    [
        ("float[N, 8, 8, 3] x", f"{CHANNELS_LAST} y = GlobalAveragePool (r)", "float[N, 5, 1, 1] y", "-1..1"),
        ("float[1, 3, 8, 8] x", USUAL.replace("r =", "y ="), "float[1, 5, 8, 8] y", "imagenet"),
        ("uint8[N, 8, 8, 3] x",
         f"c = Cast <to = 1> (x) {CHANNELS_LAST.replace('(x)', '(c)')} y = GlobalAveragePool (r)",
         "float[N, 5, 1, 1] y", "0..255"),
        ("float[N, 3, 8, 8] x", f"s = Div (x, white) {POOLED.replace('(x', '(s')}", "float[N, 5] y", "0..1"),
        ("float[N, 3, 8, 8] x", f"s = Mul (x, two) u = Sub (s, one) {POOLED.replace('(x', '(u')}",
         "float[N, 5] y", "-1..1"),
        ("float[1, 3, 8, 8] x", f"{USUAL} p = GlobalAveragePool (r) shape = Constant <value_ints = [1, -1]> () "
         "y = Reshape <allowzero = 1> (p, shape)", "float[1, 5] y", "imagenet"),
        ("float[N, 3, 8, 8] x", f"{USUAL} w = Constant <value_ints = [0, 5, -1]> () s = Reshape (r, w) "
         "y = Transpose <perm = [0, 2, 1]> (s)", "float[N, 64, 5] y", "imagenet"),
        ("float16[N, 3, 8, 8] x", f"c = Cast <to = 1> (x) {POOLED.replace('(x', '(c')}", "float[N, 5] y", "imagenet"),
    ],
    ids=["channels last", "maps", "uint8", "scales", "normalises", "fixed batch", "tokens", "half"],
)  # fmt: skip
def test_graphs_of_other_forms(inputs: str, nodes: str, outputs: str, scale: str, saved: Callable[..., Path]) -> None:
    white, one, two = (np.array([value], np.float32) for value in (255, 1, 2))
    path = saved(inputs, nodes, outputs, white=white, one=one, two=two)

    features = compute_features(find_backbone(str(path)), IMAGES)

    expected = maps_of(IMAGES, scale).mean((2, 3))
    np.testing.assert_allclose(features, expected, rtol=0.01, atol=0.01 * np.abs(expected).max())  # half precision


def test_old_files_and_functions_are_brought_up_to_date(saved: Callable[..., Path]) -> None:
    expected = maps_of(IMAGES, "imagenet").mean((2, 3))
    old = "float[N, 3, 8, 8] x, float[5, 3, 3, 3] kernel"
    path = saved(old, f"{USUAL} y = ReduceMean <axes = [2, 3], keepdims = 0> (r)", opset=11, ir=3)
    assert_same(compute_features(find_backbone(str(path)), IMAGES), expected)

    nodes = POOLED.replace("Relu (m)", "own.positive (m)")
    path = saved("float[N, 3, 8, 8] x", nodes, functions=TWICE, domains=', "own" : 1')
    assert_same(compute_features(find_backbone(str(path)), IMAGES), expected)


def test_grey_networks_get_luma_and_free_sizes_a_usual_one(saved: Callable[..., Path]) -> None:
    grey = KERNEL[:, :1]
    found = find_backbone(str(saved("float[N, 1, H, W] x", POOLED, kernel=grey)) + "@0..1")
    images = np.repeat(RANDOM.integers(0, 256, (2, *found.side, 1), np.uint8), 3, axis=3)
    expected = KERNEL[:, :1].sum((1, 2, 3))

    features = compute_features(found, np.full_like(images, 255))

    assert found.side == (224, 224)
    np.testing.assert_allclose(features[0], np.maximum(expected, 0), rtol=0.1, atol=0.05)


def test_the_scale_can_be_named(saved: Callable[..., Path]) -> None:
    path = saved("float[N, 3, 8, 8] x", POOLED)

    for scale in SCALES:
        features = compute_features(find_backbone(f"{path}@{scale}"), IMAGES)
        assert_same(features, maps_of(IMAGES, scale).mean((2, 3)))
    with pytest.raises(UsageError, match=r"unknown scale of pixels '0\.\.2' \(known: imagenet"):
        find_backbone(f"{path}@0..2")


def test_the_graph_may_be_part_of_a_model_file(saved: Callable[..., Path]) -> None:
    found = find_backbone(str(saved("float[N, 3, 8, 8] x", POOLED)))
    model = onnx.load_model_from_string(found.model)
    onnx.helper.set_model_props(model, {"hangtag": "{}"})

    inputs, outputs = OnnxFile(model.SerializeToString()).check_graph()

    assert list(inputs) == ["pixels"] and list(outputs) == ["embedding", "maps"]


@pytest.mark.parametrize(
    ("inputs", "nodes", "outputs", "message"),
    [
        ("float[N, 3, 8, 8] x, float[1] z", f"{POOLED} q = Add (y, z)", "float[N, 5] q", "must have one input, got 2"),
        ("float[N, 9] x", "y = Relu (x)", "float[N, 9] y", "does not take images: FLOAT"),
        ("int64[N, 3, 8, 8] x", "c = Cast <to = 1> (x) y = Flatten (c)", "float[N, 192] y",
         "does not take images: INT64"),
        ("float[N, 4, 8, 8] x", "y = Flatten (x)", "float[N, 256] y", "1 or 3 channels, got 4"),
        ("float[N, 3, 8, 9999] x", "y = GlobalAveragePool (x)", "float[N, 3, 1, 1] y", "the limit is 2048"),
        ("float[N, 3, 8, 8] x", "m = Softmax <axis = 0> (x) y = Flatten (m)", "float[N, 192] y",
         "depend on the images beside it"),
        ("float[N, 3, 8, 8] x", "l = Sub (x, x) d = Div (l, l) y = Flatten (d)", "float[N, 192] y", "NaN or infinite"),
        ("float[N, 3, 8, 8] x", "m = QuantizeLinear (x, one) d = DequantizeLinear (m, one) y = Flatten (d)",
         "float[N, 192] y", "the operator 'QuantizeLinear'"),
        ("float[N, 3, 8, 8] x", "m = RandomNormalLike (x) y = Flatten (m)", "float[N, 192] y", "'RandomNormalLike'"),
        ("float[N, 3, 8, 8] x", "y = ReduceMax <keepdims = 0> (x)", "float y", "none of its outputs holds features"),
    ],
)  # fmt: skip
def test_graphs_that_cannot_be_used_are_refused(
    inputs: str, nodes: str, outputs: str, message: str, saved: Callable[..., Path]
) -> None:
    path = saved(inputs, nodes, outputs, one=np.array(1, np.float32))

    with pytest.raises((ModelError, ArtifactError), match=message) as caught:
        find_backbone(str(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_files_that_are_missing_damaged_or_in_parts_are_refused(saved: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no such file"):
        find_backbone(str(tmp_path / "none.onnx"))
    path = saved("float[N, 3, 8, 8] x", POOLED)
    content = path.read_bytes()
    for damaged in (b"", b"\x89PNG", content[: len(content) // 2], content[:40] + content[60:]):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"damaged|empty"):
            find_backbone(str(path))
    model = onnx.load_model_from_string(content)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "/etc/passwd")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="weights are in another file"):
        find_backbone(str(path))


def test_changed_bytes_give_a_refusal_or_a_backbone(saved: Callable[..., Path]) -> None:
    path = saved("float[N, 3, 8, 8] x", POOLED)
    content, refused = path.read_bytes(), 0
    for place in range(0, len(content), 17):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        try:
            assert isinstance(find_backbone(str(path)), Backbone)
        except HangtagError:
            refused += 1
    assert refused > 10


def test_functions_that_double_in_each_step_are_refused_before_they_are_inlined(saved: Callable[..., Path]) -> None:
    calls = "".join(f'<domain: "own", opset_import: ["" : 20, "own" : 1]> F{n} (a) => (b) '
                    f"{{ c = own.F{n - 1} (a) b = own.F{n - 1} (c) }}" for n in range(1, 40))  # fmt: skip
    first = '<domain: "own", opset_import: ["" : 20]> F0 (a) => (b) { b = Relu (a) }'
    path = saved("float[N, 3, 8, 8] x", f"z = own.F39 (x) {POOLED}", functions=first + calls, domains=', "own" : 1')

    with pytest.raises(ArtifactError, match="549,755,813,892 nodes with those of its functions"):
        find_backbone(str(path))


def test_a_graph_with_too_many_features_or_too_much_memory_is_refused(saved: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match="computes 196,608 features of an image; the limit is 100,000"):
        find_backbone(str(saved("float[N, 3, 256, 256] x", "y = Flatten (x)", "float[N, 196608] y")))

    larger = f"l = Resize (x, , scales) {POOLED.replace('(x,', '(l,')}"
    scales = np.array([1, 1, 9000, 9000], np.float32)
    with pytest.raises(ModelError, match="needs more memory for 2 images than hangtag allows"):
        find_backbone(str(saved("float[N, 3, 8, 8] x", larger, scales=scales)))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "features.onnx")

    with pytest.raises(ArtifactError, match="is not a file"):
        find_backbone(str(tmp_path / "features.onnx"))
