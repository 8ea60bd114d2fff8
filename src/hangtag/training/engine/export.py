"""A trained network -> the bytes of model.onnx, and the proof that the two give the same answers.

The torch half of `artifact.py`. PyTorch exports the network itself; what stands before it (resize, scaling) and
after it (calibration, softmax, unfamiliarity) is written here in ONNX's own text, so that it can be read.
"""

import contextlib
import io
import json
import logging
import textwrap
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.errors import ModelError
from hangtag.model.artifact import EXPLAIN, INPUT, METADATA_KEY, OUTPUT, PIXELS, Metadata, open_artifact
from hangtag.model.calibration import Calibrator, log_softmax
from hangtag.model.ood import OodDetector
from hangtag.pictures import Images, ImageSpec
from hangtag.resize import SIZED, sizing_nodes
from hangtag.training.engine.features import FeatureExtractor, extract_features
from hangtag.training.engine.networks import FlipTTA, device_of

__all__ = ["TOLERANCE", "export_model", "verify", "verify_outputs"]

TOLERANCE = 1e-4
"""Largest difference between a probability from PyTorch and one from the file; float32 rounding is 100 times less."""

_LONGEST = 300  # characters of the exporter's error
_IR_VERSION = 9  # ONNX 1.14: the oldest that holds what the exporter writes


def export_model(network: nn.Module, metadata: Metadata, ood_detector: OodDetector | None = None) -> bytes:
    """The bytes of a model file: uint8 (N, H, W[, 3]) of any size in, float32 (N, K) probabilities out.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K).
        metadata: goes into the file as JSON; its image spec and calibrator shape the graph.
        ood_detector: what the network learned from looks like; with it the graph tells what is unfamiliar.

    Raises:
        ModelError: PyTorch cannot export the network.
    """
    core, told = _export_network(network, metadata.image)
    opset = next(entry.version for entry in core.opset_import if not entry.domain)
    before = onnx.parser.parse_model(_before(metadata.image, opset))
    after = _after(network, metadata, told, ood_detector, opset)
    core = onnx.compose.add_prefix(core, "network/")
    for part in (before, core, after):
        part.ir_version = _IR_VERSION
    whole = onnx.compose.merge_models(before, core, io_map=[(PIXELS, core.graph.input[0].name)])
    seen = [(f"network/{name}", f"seen_{name}") for name in told]
    whole = onnx.compose.merge_models(whole, after, io_map=seen)
    whole.graph.output.append(before.graph.output[0])  # declares the size that the metadata must not contradict
    for notes in (whole.metadata_props, whole.graph.value_info, *(node.metadata_props for node in whole.graph.node)):
        del notes[:]  # the exporter notes paths and source lines of this machine, which are nobody's business
    whole.producer_name = "hangtag"
    onnx.helper.set_model_props(whole, {METADATA_KEY: json.dumps(metadata.to_json(), ensure_ascii=False)})
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def verify(
    content: bytes, network: nn.Module, images: Images, ood_detector: OodDetector | None = None
) -> NDArray[np.float32]:
    """The file's probabilities for `images`, after proving that they are the network's.

    Args:
        ood_detector: what the file was built with; its scores are proved too.

    Raises:
        ModelError: a label differs or a probability is off by more than `TOLERANCE`; the worst images are named.
    """
    artifact = open_artifact(content)
    outputs = artifact.outputs(images, OUTPUT, *(["ood_score"] if ood_detector else []))
    verify_outputs(outputs, artifact.metadata, network, images, ood_detector)
    return outputs[OUTPUT]


def verify_outputs(
    outputs: dict[str, NDArray[np.float32]],
    metadata: Metadata,
    network: nn.Module,
    images: Images,
    ood_detector: OodDetector | None,
) -> None:
    """Check that a model file's outputs for `images` are the network's; see `verify`."""
    seen = extract_features(network, images)
    guarantees = metadata.guarantees
    calibrator = guarantees.calibrator if guarantees else Calibrator.none(seen.logits.shape[1])
    own = calibrator(log_softmax(seen.logits))
    shipped = outputs[OUTPUT]
    off = np.abs(shipped - own).max(axis=1)
    other_label = (shipped.argmax(axis=1) != own.argmax(axis=1)) & ~_tied(own)
    if other_label.any() or not (off <= TOLERANCE).all():  # a NaN is not <= anything
        worst = np.argsort(-np.where(np.isnan(off), np.inf, off) - other_label)[:5]
        named = ", ".join(f"image {index}: {off[index]:.2g}" for index in worst)
        raise ModelError(
            f"the exported file does not answer as the trained network does: {int(other_label.sum())} labels differ, "
            f"the worst probabilities are off by {named}",
            "the network has a part that does not export faithfully; this run has no model file",
        )
    if ood_detector is not None:
        apart = np.abs(outputs["ood_score"] - ood_detector.ood_score(seen.descriptor, seen.logits))
        if not (apart <= _RANKS / (len(ood_detector.quantiles) + 1)).all():
            raise ModelError(
                f"the exported file finds other pictures unfamiliar than the network does: off by {apart.max():.2g}",
                "this run has no model file; please report it",
            )


def _tied(probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Rows whose two largest values rounding may exchange."""
    best = np.sort(probabilities, axis=1)[:, -2:]
    tied: NDArray[np.bool_] = best[:, 1] - best[:, 0] < 1e-6
    return tied


def _export_network(network: nn.Module, spec: ImageSpec) -> tuple[onnx.ModelProto, dict[str, str]]:
    """The graph, and what it tells: the shape of each output but for N, in ONNX's own text."""
    device = device_of(network)
    example = torch.zeros(2, spec.channels, spec.height, spec.width, device=device)
    was_training = network.training
    described = FeatureExtractor(network).eval()
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                described,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["pixels"],
                output_names=described.outputs,
                dynamic_shapes=({0: torch.export.Dim("N")},),
            )
        with torch.inference_mode():
            shapes = [each.shape[1:] for each in described(example)]
    except Exception as error:  # the exporter raises its own and Python's, whatever the network's code provokes
        raise ModelError(
            f"PyTorch cannot export this network: {_reason(error)}",
            "write it without Python's decisions about values; pytorch.org/docs/stable/export.html has the rules",
        ) from error
    finally:
        network.train(was_training)
    assert program is not None
    told = {name: ", ".join(map(str, shape)) for name, shape in zip(described.outputs, shapes, strict=True)}
    return program.model_proto, told


def _reason(error: BaseException) -> str:
    """What went wrong first, in a line, and in which line of the network's code."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    said = textwrap.shorten(f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__, _LONGEST)
    not_theirs = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(not_theirs)]
    where = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno}: {theirs[-1].line})" if theirs else ""
    return said + where


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter prints pages about optional packages, its own deprecations and what it found; none is for users."""
    before, nowhere = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _before(spec: ImageSpec, opset: int) -> str:
    """uint8 pictures of any size -> float (N, C, H, W) from 0 to 1, sized by the nodes of `sizing.py`."""
    shape, constants, nodes = sizing_nodes(spec, INPUT)
    return f"""
        <ir_version: {_IR_VERSION}, opset_import: ["" : {opset}]>
        before (uint8[{shape}] {INPUT}) => (float[N, {spec.channels}, {spec.height}, {spec.width}] {PIXELS})
        <{constants}, float white = {{255.0}}>
        {{{nodes}
            grey_levels = Cast <to = 1> ({SIZED})
            {PIXELS} = Div (grey_levels, white)
        }}"""


def _after(
    network: nn.Module, metadata: Metadata, told: dict[str, str], ood_detector: OodDetector | None, opset: int
) -> onnx.ModelProto:
    """What the network tells -> probabilities, and what else the file answers."""
    classes = len(metadata.class_names)
    calibrator = metadata.guarantees.calibrator if metadata.guarantees else Calibrator.none(classes)
    arrays = {"weights": np.array(calibrator.weights), "bias": np.array(calibrator.bias)}
    outputs = {OUTPUT: f"N, {classes}", "uncalibrated": f"N, {classes}", "embedding": f"N, {told['embedding']}"}
    nodes = _CALIBRATION
    if ood_detector is not None:
        arrays |= {name: getattr(ood_detector, name) for name in ("projection", "offset", "classes", "lengths")}
        arrays |= {"quantiles": ood_detector.quantiles[None, :], "weak": np.array([ood_detector.weak])}
        arrays |= {"per_rank": np.array([1 / (len(ood_detector.quantiles) + 1)]), "across": np.array([1], np.int64)}
        nodes += _OOD_SCORE
        outputs["ood_score"] = "N"
    if "maps" in told:
        last = network.network if isinstance(network, FlipTTA) else network
        weights = last.get_submodule("logits").get_parameter("weight").detach().cpu().numpy()
        height, width = told["maps"].split(", ")[-2:]
        arrays |= {"of_class": weights - weights.mean(axis=0), "places": np.array([3, 4], np.int64)}
        arrays |= {"channels": np.array([2], np.int64), "views": np.array([1], np.int64)}
        arrays |= {"spread": np.array([1, 3, 4], np.int64), "no_evidence": np.zeros((0, int(height), int(width)))}
        nodes += _EVIDENCE.format(height=height, width=width)
        outputs["evidence"] = f"explained, {height}, {width}"
    given = [f"float[N, {shape}] seen_{name}" for name, shape in told.items()]
    given += [f"bool {EXPLAIN}"] if "maps" in told else []
    constants = [f"{_ELEMENT[array.dtype.kind]}{list(array.shape)} {name}" for name, array in arrays.items()]
    answers = [f"float[{shape}] {name}" for name, shape in outputs.items()]
    model = onnx.parser.parse_model(f"""
        <ir_version: {_IR_VERSION}, opset_import: ["" : {opset}]>
        after ({", ".join([*given, *constants])}) => ({", ".join(answers)}) {{{nodes}
        }}""")
    del model.graph.input[len(given) :]
    for name, array in arrays.items():  # too large for text
        kept = array if array.dtype.kind == "i" else array.astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(kept, name))
    if "maps" in told:  # an input with a value of its own: it need not be given
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(False), EXPLAIN))
    return model


_ELEMENT = {"f": "float", "i": "int64"}
_RANKS = 3  # by which rounding may move a picture among the held-out ones

_CALIBRATION = """
            embedding = Identity (seen_embedding)
            uncalibrated = Softmax <axis = -1> (seen_logits)
            logs = LogSoftmax <axis = -1> (seen_logits)
            scores = Gemm (logs, weights, bias)
            probabilities = Softmax <axis = -1> (scores)"""

_OOD_SCORE = """
            placed = Gemm (seen_descriptor, projection, offset)
            length = ReduceSumSquare <keepdims = 1> (placed, across)
            toward = Gemm (placed, classes, lengths)
            squares = Add (length, toward)
            nearest = ReduceMin <keepdims = 1> (squares, across)
            positive = Relu (nearest)
            distance = Sqrt (positive)
            best = ReduceMax <keepdims = 1> (seen_logits, across)
            strong = Mul (best, weak)
            strangeness = Sub (distance, strong)
            less_strange = Less (quantiles, strangeness)
            ones = Cast <to = 1> (less_strange)
            rank = ReduceSum <keepdims = 0> (ones, across)
            ood_score = Mul (rank, per_rank)"""
"""What `OodDetector.ood_score` computes."""

_EVIDENCE = """
            evidence = If (explain) <
                then_branch = located () => (float[N, {height}, {width}] found) {{
                    answer = ArgMax <axis = 1, keepdims = 0> (seen_logits)
                    row = Gather <axis = 0> (of_class, answer)
                    worth = Unsqueeze (row, spread)
                    most = ReduceMax <keepdims = 1> (seen_maps, places)
                    same = Equal (seen_maps, most)
                    there = Cast <to = 1> (same)
                    often = ReduceSum <keepdims = 1> (there, places)
                    kept = Mul (seen_maps, there)
                    share = Div (kept, often)
                    weighed = Mul (share, worth)
                    of_view = ReduceSum <keepdims = 0> (weighed, channels)
                    found = ReduceMean <keepdims = 0> (of_view, views)
                }},
                else_branch = unasked () => (float[0, {height}, {width}] empty) {{
                    empty = Identity (no_evidence)
                }}
            >"""
"""How much each place speaks for the answer: each channel's maximum, times the channel's weight for the answer less its
mean weight, laid where the maximum is. Exact, because the network pools by maximum: all of it adds up to the answer's
logit less the mean logit, but for the biases (class activation mapping: Zhou et al., 2016)."""
