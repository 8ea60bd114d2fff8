"""A model repository for NVIDIA Triton Inference Server, with its ONNX Runtime backend."""

import json

import numpy as np

from hangtag.model.artifact import INPUT, OUTPUT
from hangtag.shipping.parcel import Files, Parcel, Shipped
from hangtag.version import __version__

__all__ = ["repository", "ship"]

_MAX_BATCH = 64
_DELAY_US = 2000  # how long a request may wait for others
_QUEUE, _TIMEOUT_US = 1000, 30_000_000  # as `hangtag serve`: what may wait, and for how long
_TYPES = {np.uint8: "TYPE_UINT8", np.float32: "TYPE_FP32"}


def ship(parcel: Parcel) -> Shipped:
    """A model repository, whose folder is given to the server."""
    return Shipped(
        repository(parcel),
        ("tritonserver --model-repository={folder}", f"curl -fsS localhost:8000/v2/models/{parcel.name}/ready"),
    )


def repository(parcel: Parcel) -> Files:
    """The files of the repository."""
    return {
        f"{parcel.name}/config.pbtxt": _config(parcel).encode(),
        f"{parcel.name}/labels.txt": parcel.labels,
        f"{parcel.name}/1/model.onnx": parcel.content,
    }


def _config(parcel: Parcel) -> str:
    """A `ModelConfig` in the text format of Protocol Buffers.

    Requests are batched only with requests of the same image size, as Triton requires unless told otherwise.
    """
    spec = parcel.metadata.image
    sides = [-1, -1, *spec.shape[2:]]
    outputs = ",\n".join(_output(parcel, name) for name in parcel.deciding)
    facts = {"hangtag": __version__, "sha256": parcel.sha256, "image": str(spec)}
    parameters = "\n".join(
        f"parameters {{ key: {_text(f'hangtag.{key}' if key != 'hangtag' else key)} "
        f"value {{ string_value: {_text(value)} }} }}"
        for key, value in facts.items()
    )
    return f"""# Written by hangtag {__version__} for a model of {spec} images. The images of a request must have one size,
# which may be any: the file resizes them. Other outputs of the file (maps, embedding, pixels) can be added to `output`.
name: {_text(parcel.name)}
backend: "onnxruntime"
platform: "onnxruntime_onnx"
default_model_filename: "model.onnx"
max_batch_size: {_MAX_BATCH}
input [
  {{ name: {_text(INPUT)} data_type: TYPE_UINT8 dims: {json.dumps(sides)} }}
]
output [
{outputs}
]
dynamic_batching {{
  preferred_batch_size: [ 8, 16, 32, {_MAX_BATCH} ]
  max_queue_delay_microseconds: {_DELAY_US}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {_TIMEOUT_US}
    allow_timeout_override: true
    max_queue_size: {_QUEUE}
  }}
}}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
version_policy {{ latest {{ num_versions: 1 }} }}
model_warmup [
  {{ name: "one image" batch_size: 1 inputs {{ key: {_text(INPUT)}
    value {{ data_type: TYPE_UINT8 dims: {json.dumps(list(spec.shape))} zero_data: true }} }} }}
]
{parameters}
"""


def _output(parcel: Parcel, name: str) -> str:
    value = parcel.outputs[name]
    sides = [side for side in value.shape[1:] if isinstance(side, int)] or [1]
    reshaped = "" if len(value.shape) > 1 else " reshape { shape: [ ] }"  # a number for each image
    labels = ' label_filename: "labels.txt"' if name == OUTPUT else ""
    return f"  {{ name: {_text(name)} data_type: {_TYPES[value.type]} dims: {json.dumps(sides)}{reshaped}{labels} }}"


def _text(text: str) -> str:
    """A string literal: every byte that is not plain ASCII as an octal escape."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode())
    return f'"{"".join(plain)}"'
