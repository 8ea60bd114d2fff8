"""Exporting a trained network as the bytes of model.onnx, and verifying that both give the same predictions.

`onnx_nodes.py` writes a built-in network; PyTorch exports any other. The parts before it (resizing, scaling) and after
it (calibration, softmax, OOD score, what explains answers) are written here in ONNX's text format. `artifact.py` opens
the file without PyTorch.
"""

import contextlib
import io
import json
import logging
import textwrap
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.errors import ArtifactError, ModelError
from hangtag.mapped import MappedRows
from hangtag.model.artifact import INPUT, OUTPUT, PIXELS, Artifact, Metadata, check_file, open_session
from hangtag.model.calibration import Calibrator, log_softmax, softmax
from hangtag.model.onnx_file import CHECKSUM_KEY, METADATA_KEY, sealed
from hangtag.model.ood import OodDetector, mean_weights
from hangtag.pictures import Images, ImageSpec
from hangtag.resize import SIZED, sizing_nodes
from hangtag.training.engine.inference import FeatureExtractor, Features, extract_features, images_at_once, to_pixels
from hangtag.training.engine.networks import FlipTTA, device_of, is_builtin
from hangtag.training.engine.onnx_nodes import network_graph
from hangtag.training.engine.onnx_writer import IR_VERSION

__all__ = [
    "TOLERANCE", "FoldHeads", "export_by_pytorch", "export_model", "plain_model", "quick_features", "verify",
    "verify_outputs", "with_metadata",
]  # fmt: skip

TOLERANCE = 1e-4
"""Largest accepted difference between probabilities of PyTorch and of the file; float32 rounding is 100 times less."""

_MAX_LENGTH = 300  # characters of the exporter's error


@dataclass(frozen=True, eq=False)
class FoldHeads:
    """The last linear layers of the networks of F folds, which otherwise equal the network that ships.

    Attributes:
        weight: (F, K, E) float32.
        bias: (F, K) float32.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


def export_model(
    network: nn.Module,
    metadata: Metadata,
    ood_detector: OodDetector | None = None,
    fold_heads: FoldHeads | None = None,
) -> bytes:
    """The bytes of a model file: uint8 (N, H, W[, 3]) of any size in, float32 (N, K) probabilities out.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K).
        metadata: stored in the file as JSON; its image spec and calibrator determine the graph.
        ood_detector: adds OOD scores to the graph.
        fold_heads: adds the probabilities of the networks of a cross-validation, which have the same embedding.

    Raises:
        ModelError: PyTorch cannot export the network.
    """
    core, shapes = _export_network(network, metadata.image)
    opset = next(entry.version for entry in core.opset_import if not entry.domain)
    before = onnx.parser.parse_model(_before(metadata.image, opset))
    after = _after(network, metadata, shapes, ood_detector, fold_heads, opset)
    core = onnx.compose.add_prefix(core, "network/")
    whole = onnx.compose.merge_models(before, core, io_map=[(PIXELS, core.graph.input[0].name)])
    outputs = [(f"network/{name}", f"network_{name}") for name in shapes]
    if ood_detector is not None:
        whole.graph.output.append(before.graph.output[0])
        outputs.append((PIXELS, f"network_{PIXELS}"))
    whole = onnx.compose.merge_models(whole, after, io_map=outputs)
    whole.graph.output.append(before.graph.output[0])  # declares the image size, which the metadata must match
    return _serialized(plain_model(whole), metadata)


def with_metadata(content: bytes, metadata: Metadata) -> bytes:
    """The same model file with other metadata, which must have the same calibrator."""
    return _serialized(onnx.load_model_from_string(content), metadata)


def _serialized(model: onnx.ModelProto, metadata: Metadata) -> bytes:
    text = json.dumps(metadata.to_json(), ensure_ascii=False, allow_nan=False)
    onnx.helper.set_model_props(model, {METADATA_KEY: text, CHECKSUM_KEY: "0" * 64})
    try:
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString(deterministic=True)
        check_file(content, sealed=False)
    except (ArtifactError, ValueError, onnx.checker.ValidationError) as error:
        reason = error.message if isinstance(error, ArtifactError) else _reason(error)
        raise ModelError(
            f"this network cannot be written as a model file: {reason}", "change the part of the network that needs it"
        ) from error
    return sealed(content)


def plain_model(whole: onnx.ModelProto) -> onnx.ModelProto:
    """The model with nothing but what it needs to run: no notes of the exporter, and all weights as plain bytes."""
    graph = onnx.GraphProto(name="hangtag", input=whole.graph.input, output=whole.graph.output)
    used = {name for node in whole.graph.node for name in node.input} | {value.name for value in whole.graph.output}
    for tensor in whole.graph.initializer:
        if tensor.name in used:  # ONNX Runtime warns about others whenever somebody opens the file
            graph.initializer.append(_plain_tensor(tensor))
    for node in whole.graph.node:  # the exporter stores paths and source lines of this machine, which are private
        copy = graph.node.add(input=node.input, output=node.output, name=node.name, op_type=node.op_type)
        copy.domain = node.domain
        for attribute in node.attribute:
            attribute.doc_string = ""
            attribute.ClearField("doc_string")
            if attribute.HasField("t"):
                attribute.t.CopyFrom(_plain_tensor(attribute.t))
            copy.attribute.append(attribute)
    for value in (*graph.input, *graph.output):
        value.ClearField("doc_string")
        value.ClearField("metadata_props")
    plain = onnx.ModelProto(ir_version=IR_VERSION, producer_name="hangtag", graph=graph, functions=whole.functions)
    opset = max(entry.version for entry in whole.opset_import if not entry.domain)
    plain.opset_import.add(domain="", version=opset)
    return plain


def _plain_tensor(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)


def quick_features(
    network: nn.Module, spec: ImageSpec, device: torch.device
) -> Callable[[Images | MappedRows], Features]:
    """What computes features of uint8 images (N, H, W[, 3]) in the shortest time; not for verifying a file.

    On a processor, ONNX Runtime takes 0.7 of PyTorch's time for a built-in convolutional network, and rounds
    differently (docs/log.md).
    """
    if device.type != "cpu" or not is_builtin(network.network if isinstance(network, FlipTTA) else network):
        return lambda images: extract_features(network, images, device)
    session = open_session(_export_network(network, spec)[0].SerializeToString(), threads=1, spins=False)
    threads, names = torch.get_num_threads(), ["logits", "descriptor", "embedding"]

    def features_of(images: Images | MappedRows) -> Features:
        at_once = images_at_once(images, threads=threads)

        def computed(start: int) -> list[NDArray[np.float32]]:
            pixels = to_pixels(torch.from_numpy(np.array(images[start : start + at_once])))
            rows: list[NDArray[np.float32]] = session.run(names, {PIXELS: pixels.numpy()})
            return rows

        with ThreadPoolExecutor(threads) as pool:
            rows = list(pool.map(computed, range(0, max(1, len(images)), at_once)))
        return Features(*(np.concatenate(each) for each in zip(*rows, strict=True)))

    return features_of


def verify(
    artifact: Artifact,
    network: nn.Module,
    images: Images,
    ood_detector: OodDetector | None = None,
    device: torch.device | None = None,
    fold_heads: FoldHeads | None = None,
) -> NDArray[np.float32]:
    """Return the file's probabilities for `images`, after verifying that they equal the network's.

    Args:
        artifact: the opened file.
        ood_detector: the one in the file; its scores are verified too.
        device: where the network computes; None: where it is.
        fold_heads: the ones in the file; their answers are verified too.

    Raises:
        ModelError: a label differs, or a probability differs by more than `TOLERANCE`; the worst images are named.
    """
    more = [*(["ood_score"] if ood_detector else []), *(["fold_uncalibrated", "embedding"] if fold_heads else [])]
    outputs = artifact.outputs(images, OUTPUT, *more)
    verify_outputs(outputs, artifact.metadata, network, images, ood_detector, device)
    if fold_heads is not None:
        logits = np.einsum("ne,fke->nfk", outputs["embedding"], fold_heads.weight) + fold_heads.bias
        difference = np.abs(
            softmax(logits.reshape(-1, logits.shape[2])).reshape(logits.shape) - outputs["fold_uncalibrated"]
        )
        if not difference.max(initial=0) <= TOLERANCE:
            raise ModelError(
                f"the answers of the folds in the exported file differ by up to {difference.max():.2g}",
                "this run has no model file; please report this problem",
            )
    return outputs[OUTPUT]


def verify_outputs(
    outputs: dict[str, NDArray[np.float32]],
    metadata: Metadata,
    network: nn.Module,
    images: Images,
    ood_detector: OodDetector | None,
    device: torch.device | None = None,
    features: Features | None = None,
) -> None:
    """Verify that a model file's outputs for `images` equal the network's; see `verify`.

    A GPU rounds differently from the processor that the file runs on: before a file is refused, the network answers
    again where it is.

    Args:
        features: of `images`, computed on `device`; None: they are computed.
    """
    elsewhere = device is not None and device.type != device_of(network).type
    if features is None and elsewhere:
        features = extract_features(network, images, device)
    if features is not None:
        with contextlib.suppress(ModelError) if elsewhere else contextlib.nullcontext():
            return _compare(outputs, metadata, features, images, ood_detector)
    return _compare(outputs, metadata, extract_features(network, images), images, ood_detector)


def _compare(
    outputs: dict[str, NDArray[np.float32]],
    metadata: Metadata,
    features: Features,
    images: Images,
    ood_detector: OodDetector | None,
) -> None:
    """Raise ModelError unless the outputs follow from the network's features."""
    guarantees = metadata.guarantees
    calibrator = guarantees.calibrator if guarantees else Calibrator.none(features.logits.shape[1])
    expected = calibrator(log_softmax(features.logits))
    actual = outputs[OUTPUT]
    difference = np.abs(actual - expected).max(axis=1)
    other_label = (actual.argmax(axis=1) != expected.argmax(axis=1)) & ~_tied(expected)
    if other_label.any() or not (difference <= TOLERANCE).all():  # a NaN is not <= anything
        worst = np.argsort(-np.where(np.isnan(difference), np.inf, difference) - other_label)[:5]
        named = ", ".join(f"image {index}: {difference[index]:.2g}" for index in worst)
        raise ModelError(
            f"the exported file and the trained network disagree: {int(other_label.sum())} labels differ, "
            f"and the largest differences between probabilities are {named}",
            "part of the network does not export correctly, so this run has no model file; change the network",
        )
    if ood_detector is not None:
        scores, found = ood_detector.score(images, features.descriptor, features.logits), outputs["ood_score"]
        signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), features.descriptor.shape)
        rounded = ood_detector.score(images, features.descriptor * (1 + _ROUNDING * signs), features.logits)
        slack = np.float32(_SLACK) * (1 + np.abs(scores)) + _PATHS * np.abs(rounded - scores).max(initial=0)
        lowest, highest = (ood_detector.shares_below(scores + change) for change in (-slack, slack))
        if not ((found >= lowest - 1e-5) & (found <= highest + 1e-5)).all():
            difference = np.abs(found - ood_detector.shares_below(scores)).max()
            raise ModelError(
                f"OOD scores of the exported file and the trained network differ by up to {difference:.2g}",
                "this run has no model file; please report this problem",
            )


def _tied(probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows whose two largest values are equal up to rounding."""
    best = np.sort(probabilities, axis=1)[:, -2:]
    tied: NDArray[np.bool_] = best[:, 1] - best[:, 0] < 1e-6
    return tied


def _export_network(network: nn.Module, spec: ImageSpec) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph, and the shape of each of its outputs without N, in ONNX's text format."""
    example = torch.zeros(2, spec.channels, spec.height, spec.width, device=device_of(network))
    was_training = network.training
    extractor = FeatureExtractor(network).eval()
    try:
        with torch.inference_mode():
            named = zip(extractor.outputs, extractor(example), strict=True)
            shapes = {name: ", ".join(map(str, output.shape[1:])) for name, output in named}
        return network_graph(extractor, spec, shapes) or export_by_pytorch(
            extractor, example, extractor.outputs
        ), shapes
    except Exception as error:  # the network's code may raise anything in the exporter
        raise ModelError(
            f"PyTorch cannot export this network: {_reason(error)}",
            "avoid Python branches that depend on tensor values; see pytorch.org/docs/stable/export.html",
        ) from error
    finally:
        network.train(was_training)


def export_by_pytorch(network: nn.Module, example: torch.Tensor, outputs: list[str]) -> onnx.ModelProto:
    """The graph of any network from "pixels" (N, C, H, W) to these outputs, by PyTorch's exporter."""
    with _quiet_exporter():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["pixels"],
            output_names=outputs,
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    model.ir_version = IR_VERSION
    return model


def _reason(error: BaseException) -> str:
    """The first cause in one line, and the line of the network's code that it came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    reason = textwrap.shorten(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, _MAX_LENGTH)
    libraries = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    frames = traceback.extract_tb(error.__traceback__)
    custom = [frame for frame in frames if not frame.filename.startswith(libraries)]
    where = f" ({Path(custom[-1].filename).name}, line {custom[-1].lineno}: {custom[-1].line})" if custom else ""
    return reason + where


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter, which prints pages about optional packages and its own deprecations."""
    level, sink = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _before(spec: ImageSpec, opset: int) -> str:
    """uint8 images of any size -> float (N, C, H, W) from 0 to 1, resized by the nodes of `resize.py`."""
    shape, constants, nodes = sizing_nodes(spec, INPUT)
    return f"""
        <ir_version: {IR_VERSION}, opset_import: ["" : {opset}]>
        before (uint8[{shape}] {INPUT}) => (float[N, {spec.channels}, {spec.height}, {spec.width}] {PIXELS})
        <{constants}, float white = {{255.0}}>
        {{{nodes}
            grey_levels = Cast <to = 1> ({SIZED})
            {PIXELS} = Div (grey_levels, white)
        }}"""


def _after(
    network: nn.Module, metadata: Metadata, shapes: dict[str, str], ood_detector: OodDetector | None,
    fold_heads: FoldHeads | None, opset: int,
) -> onnx.ModelProto:  # fmt: skip
    """The network's outputs -> the file's outputs: probabilities, embedding, OOD score, and feature maps."""
    classes = len(metadata.class_names)
    calibrator = metadata.guarantees.calibrator if metadata.guarantees else Calibrator.none(classes)
    arrays = {"weights": np.array(calibrator.weights), "bias": np.array(calibrator.bias)}
    outputs = {OUTPUT: f"N, {classes}", "uncalibrated": f"N, {classes}", "embedding": f"N, {shapes['embedding']}"}
    nodes = _CALIBRATION
    if fold_heads is not None:
        folds = len(fold_heads.bias)
        arrays |= {
            "fold_weights": fold_heads.weight.reshape(folds * classes, -1).T,
            "fold_bias": fold_heads.bias.reshape(-1),
            "fold_shape": np.array([-1, folds, classes]),
        }
        nodes += _FOLDS
        outputs["fold_uncalibrated"] = f"N, {folds}, {classes}"
    if ood_detector is not None:
        more, ood_nodes = _ood_score(ood_detector, metadata.image)
        arrays |= more
        nodes += ood_nodes
        outputs |= {"ood_score": "N", "ood_distance": "N"}
        shape = f"{metadata.image.channels}, {metadata.image.height}, {metadata.image.width}"
        shapes = {**shapes, PIXELS: shape}
    if "maps" in shapes:
        last = network.network if isinstance(network, FlipTTA) else network
        weights = last.get_submodule("logits").get_parameter("weight").detach().cpu().numpy()
        arrays |= {"class_weights": weights - weights.mean(axis=0)}
        nodes += _MAPS
        outputs |= {"maps": f"N, {shapes['maps']}", "map_weights": f"N, {weights.shape[1]}"}
    inputs = [f"float[N, {shape}] network_{name}" for name, shape in shapes.items()]
    constants = [f"{_ELEMENT[array.dtype.kind]}{list(array.shape)} {name}" for name, array in arrays.items()]
    declared = [f"float[{shape}] {name}" for name, shape in outputs.items()]
    model = onnx.parser.parse_model(f"""
        <ir_version: {IR_VERSION}, opset_import: ["" : {opset}]>
        after ({", ".join([*inputs, *constants])}) => ({", ".join(declared)}) {{{nodes}
        }}""")
    del model.graph.input[len(inputs) :]
    for name, array in arrays.items():  # too large for the text format
        value = array if array.dtype.kind == "i" else array.astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def _ood_score(ood_detector: OodDetector, spec: ImageSpec) -> tuple[dict[str, NDArray[Any]], str]:
    """Constants and nodes that compute what `OodDetector.ood_score` computes."""
    pixels, features, size = ood_detector.pixels, ood_detector.features, spec.height * spec.width
    whole_numbers = {
        "flat_shape": [0, size], "from_0": [0], "from_1": [1], "columns": [1], "across_axis": [2], "sides": [1, 2],
        "last_row": [spec.height - 1], "last_column": [spec.width - 1], "to_end": [max(spec.height, spec.width)],
    }  # fmt: skip
    arrays: dict[str, NDArray[Any]] = {name: np.array(values, np.int64) for name, values in whole_numbers.items()}
    arrays |= {
        "border_weights": mean_weights(spec.height, spec.width)[:, 1:],
        "per_pixel": np.array([1 / size]),
        "pixel_mean": pixels.mean,
        "whitening": pixels.whitening,
        "limit": np.array([pixels.limit]),
        "slope": np.array([pixels.slope]),
        "quantiles": ood_detector.quantiles[None, :],
        "per_rank": np.array([1 / (len(ood_detector.quantiles) + 1)]),
    }
    statistics = "mean_grey, border_grey, deviation, down, across"
    nodes = _PIXEL_STATISTICS
    if spec.channels > 1:
        nodes, statistics = nodes + _COLOUR, f"{statistics}, colour"
    nodes += _PIXEL_DISTANCE.format(statistics=statistics)
    if features is None:
        return arrays, nodes + "\n            raw_score = Identity (rise)" + _RANK
    arrays |= {name: getattr(features, name) for name in ("centre", "directions", "classes", "lengths")}
    arrays |= {name: np.array([getattr(features, name)]) for name in ("softness", "scale", "weak")}
    if ood_detector.turned is None:
        return arrays, nodes + _FEATURE_DISTANCE + _WITHOUT_ODDS + _RANK
    arrays |= {"turned_weights": ood_detector.turned.weights, "turned_bias": ood_detector.turned.bias}
    arrays |= {"last_axis": np.array([2]), "one_column": np.array([-1, 1])}
    return arrays, nodes + _FEATURE_DISTANCE + _TURNED_ODDS + _RANK


_ELEMENT = {"f": "float", "i": "int64"}
_SLACK = 0.02  # standard deviations by which rounding may change a raw OOD score
_ROUNDING, _PATHS = np.float32(1e-6), np.float32(8)
"""Relative rounding of features, and by how many times its effect on OOD scores these may differ: features that hardly
vary are far apart in units of their own deviation."""

_CALIBRATION = """
            embedding = Identity (network_embedding)
            uncalibrated = Softmax <axis = -1> (network_logits)
            logs = LogSoftmax <axis = -1> (network_logits)
            scores = Gemm (logs, weights, bias)
            probabilities = Softmax <axis = -1> (scores)"""

_PIXEL_STATISTICS = """
            grey = ReduceMean <keepdims = 0> (network_pixels, columns)
            flat = Reshape (grey, flat_shape)
            mean_grey = ReduceMean <keepdims = 1> (flat, columns)
            border_grey = MatMul (flat, border_weights)
            centred = Sub (flat, mean_grey)
            centred_squares = Mul (centred, centred)
            variance = ReduceMean <keepdims = 1> (centred_squares, columns)
            deviation = Sqrt (variance)"""

_STEPS = """
            {name}_later = Slice (grey, from_1, to_end, {axis})
            {name}_earlier = Slice (grey, from_0, {last}, {axis})
            {name}_steps = Sub ({name}_later, {name}_earlier)
            {name}_sizes = Abs ({name}_steps)
            {name}_sum = ReduceSum <keepdims = 0> ({name}_sizes, sides)
            {name}_mean = Mul ({name}_sum, per_pixel)
            {name} = Unsqueeze ({name}_mean, columns)"""
"""The mean difference between neighbouring pixels in one direction."""

_PIXEL_STATISTICS += _STEPS.format(name="down", axis="columns", last="last_row")
_PIXEL_STATISTICS += _STEPS.format(name="across", axis="across_axis", last="last_column")

_COLOUR = """
            largest = ReduceMax <keepdims = 0> (network_pixels, columns)
            smallest = ReduceMin <keepdims = 0> (network_pixels, columns)
            colourfulness = Sub (largest, smallest)
            colour_mean = ReduceMean <keepdims = 0> (colourfulness, sides)
            colour = Unsqueeze (colour_mean, columns)"""

_PIXEL_DISTANCE = """
            statistics = Concat <axis = 1> ({statistics})
            from_mean = Sub (statistics, pixel_mean)
            whitened = MatMul (from_mean, whitening)
            squared_pixel_distance = ReduceSumSquare <keepdims = 1> (whitened, columns)
            pixel_distance = Sqrt (squared_pixel_distance)
            beyond = Sub (pixel_distance, limit)
            excess = Relu (beyond)
            rise = Mul (excess, slope)"""

_FEATURE_DISTANCE = """
            squared_length = ReduceSumSquare <keepdims = 1> (network_descriptor, columns)
            softened = Add (squared_length, softness)
            length = Sqrt (softened)
            divided = Div (network_descriptor, length)
            from_centre = Sub (divided, centre)
            placed = Mul (from_centre, scale)
            squared_norm = ReduceSumSquare <keepdims = 1> (placed, columns)
            along = MatMul (placed, directions)
            squared_along = ReduceSumSquare <keepdims = 1> (along, columns)
            squared_rest = Sub (squared_norm, squared_along)
            cross_terms = Gemm (placed, classes, lengths)
            squared_distances = Add (squared_rest, cross_terms)
            nearest = ReduceMin <keepdims = 1> (squared_distances, columns)
            positive = Relu (nearest)
            distance = Sqrt (positive)
            max_logit = ReduceMax <keepdims = 1> (network_logits, columns)
            weighted_logit = Mul (max_logit, weak)
            feature_score = Sub (distance, weighted_logit)"""

_WITHOUT_ODDS = """
            raw_score = Add (feature_score, rise)"""

_TURNED_ODDS = """
            odds_by_class = Gemm (network_descriptor, turned_weights, turned_bias)
            odds_in_row = Unsqueeze (odds_by_class, columns)
            shares_in_column = Unsqueeze (uncalibrated, last_axis)
            weighted_odds = MatMul (odds_in_row, shares_in_column)
            turned_score = Reshape (weighted_odds, one_column)
            network_score = Max (feature_score, turned_score)
            raw_score = Add (network_score, rise)"""
"""The sum is a product of matrices for each image: the last bits of a sum over ten columns would depend on the images
before it, because ONNX Runtime adds what is aligned in memory in another order."""

_RANK = """
            is_below = Less (quantiles, raw_score)
            ones = Cast <to = 1> (is_below)
            rank = ReduceSum <keepdims = 0> (ones, columns)
            ood_score = Mul (rank, per_rank)
            ood_distance = Squeeze (raw_score, columns)"""

_FOLDS = """
            fold_logits = Gemm (network_embedding, fold_weights, fold_bias)
            by_fold = Reshape (fold_logits, fold_shape)
            fold_uncalibrated = Softmax <axis = -1> (by_fold)"""

_MAPS = """
            maps = Identity (network_maps)
            prediction = ArgMax <axis = 1, keepdims = 0> (network_logits)
            map_weights = Gather <axis = 0> (class_weights, prediction)"""
"""What `explanation.py` makes evidence of. Nothing is computed for it but a row of weights."""
