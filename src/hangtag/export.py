"""A trained network -> the bytes of model.onnx, and the proof that the two give the same answers.

The torch half of `artifact.py`. PyTorch exports the network itself; what stands before it (resize, scaling) and
after it (temperature, softmax) is written here in ONNX's own text, so that it can be read.
"""

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import onnx.compose
import onnx.parser
import torch
from numpy.typing import NDArray
from torch import nn

from hangtag.artifact import INPUT, METADATA_KEY, OUTPUT, PIXELS, Metadata, open_artifact
from hangtag.errors import ModelError
from hangtag.images import Images, ImageSpec
from hangtag.models import logits_of
from hangtag.sizing import SIZED, sizing_nodes

__all__ = ["TOLERANCE", "build", "verify"]

TOLERANCE = 1e-4
"""Largest difference between a probability from PyTorch and one from the file; float32 rounding is 100 times less."""

_IR_VERSION = 9  # ONNX 1.14: the oldest that holds what the exporter writes


def build(network: nn.Module, metadata: Metadata) -> bytes:
    """The bytes of a model file: uint8 (N, H, W[, 3]) of any size in, float32 (N, K) probabilities out.

    Args:
        network: takes float32 (N, C, H, W) from 0 to 1, returns logits (N, K).
        metadata: goes into the file as JSON; its image spec and temperature shape the graph.

    Raises:
        ModelError: PyTorch cannot export the network.
    """
    core = _export_network(network, metadata.image)
    opset = next(entry.version for entry in core.opset_import if not entry.domain)
    before = onnx.parser.parse_model(_before(metadata.image, opset))
    after = onnx.parser.parse_model(_after(len(metadata.class_names), metadata.temperature, opset))
    core = onnx.compose.add_prefix(core, "network/")
    for part in (before, core, after):
        part.ir_version = _IR_VERSION
    whole = onnx.compose.merge_models(before, core, io_map=[(PIXELS, core.graph.input[0].name)])
    whole = onnx.compose.merge_models(whole, after, io_map=[(core.graph.output[0].name, "logits")])
    whole.graph.output.append(before.graph.output[0])  # declares the size that the metadata must not contradict
    for notes in (whole.metadata_props, whole.graph.value_info, *(node.metadata_props for node in whole.graph.node)):
        del notes[:]  # the exporter notes paths and source lines of this machine, which are nobody's business
    whole.producer_name = "hangtag"
    onnx.helper.set_model_props(whole, {METADATA_KEY: json.dumps(metadata.to_json(), ensure_ascii=False)})
    onnx.checker.check_model(whole)
    content: bytes = whole.SerializeToString(deterministic=True)
    return content


def verify(content: bytes, network: nn.Module, images: Images) -> NDArray[np.float32]:
    """The file's probabilities for `images`, after proving that they are the network's.

    Raises:
        ModelError: a label differs or a probability is off by more than `TOLERANCE`; the worst images are named.
    """
    artifact = open_artifact(content)
    shipped = artifact.probabilities(images)
    own = torch.softmax(logits_of(network, images) / artifact.metadata.temperature, dim=1).numpy()
    off = np.abs(shipped - own).max(axis=1)
    other_label = shipped.argmax(axis=1) != own.argmax(axis=1)
    if other_label.any() or not (off <= TOLERANCE).all():  # a NaN is not <= anything
        worst = np.argsort(-np.where(np.isnan(off), np.inf, off) - other_label)[:5]
        named = ", ".join(f"image {index}: {off[index]:.2g}" for index in worst)
        raise ModelError(
            f"the exported file does not answer as the trained network does: {int(other_label.sum())} labels differ, "
            f"the worst probabilities are off by {named}",
            "the network has a part that does not export faithfully; this run has no model file",
        )
    return shipped


def _export_network(network: nn.Module, spec: ImageSpec) -> onnx.ModelProto:
    example = torch.zeros(2, spec.channels, spec.height, spec.width)
    was_training = network.training
    network.eval()
    try:
        with _quiet_exporter():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=["pixels"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
            )
    except Exception as error:  # the exporter raises its own and Python's, whatever the network's code provokes
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"PyTorch cannot export this network: {first_line}",
            "see torch.export's rules; the weights are kept in weights.safetensors",
        ) from error
    finally:
        network.train(was_training)
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """The exporter reports optional packages and its own deprecations; neither concerns a user of hangtag."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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


def _after(classes: int, temperature: float, opset: int) -> str:
    """Logits -> probabilities."""
    return f"""
        <ir_version: {_IR_VERSION}, opset_import: ["" : {opset}]>
        after (float[N, {classes}] logits) => (float[N, {classes}] {OUTPUT})
        <float temperature = {{{float(temperature)!r}}}>
        {{
            calibrated = Div (logits, temperature)
            {OUTPUT} = Softmax <axis = -1> (calibrated)
        }}"""
