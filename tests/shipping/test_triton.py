"""The Triton model repository: read by the official message, and true to what the model file computes."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import hangtag
from hangtag.pictures import ImageSpec
from hangtag.shipping.parcel import Parcel
from hangtag.shipping.ship import ship
from toys import metadata, toy_model


def parcel(channels: int = 1, name: str = "toys") -> Parcel:
    return Parcel.of(hangtag.load(toy_model(channels)), name)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_configuration_is_read_by_the_official_message_and_fits_the_model(channels: int, tmp_path: Path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    messages = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")

    ship(parcel(channels), ["triton"], tmp_path / "models")

    model = tmp_path / "models" / "toys"
    config = text_format.Parse((model / "config.pbtxt").read_text(encoding="utf-8"), messages.ModelConfig())
    session = onnxruntime.InferenceSession(str(model / "1" / config.default_model_filename))
    (given,) = config.input
    assert (config.name, config.backend, given.name) == ("toys", "onnxruntime", "images")
    assert messages.DataType.Name(given.data_type) == "TYPE_UINT8"
    sides = [7 if side == -1 else side for side in given.dims]
    images = np.zeros((max(config.dynamic_batching.preferred_batch_size), *sides), np.uint8)
    for output in config.output:
        assert messages.DataType.Name(output.data_type) == "TYPE_FP32"
        (rows,) = session.run([output.name], {given.name: images})
        assert rows.dtype == np.float32
        assert list(rows.shape[1:]) == list(output.reshape.shape if output.HasField("reshape") else output.dims)
    assert config.max_batch_size == len(images)
    (warm,) = config.model_warmup[0].inputs.values()
    assert tuple(warm.dims) == hangtag.load(model / "1" / "model.onnx").spec.shape
    labels = (model / config.output[0].label_filename).read_text(encoding="utf-8").splitlines()
    assert labels == list(metadata().class_names)


def test_labels_with_line_breaks_stay_on_their_lines() -> None:
    named = dataclasses.replace(parcel(), metadata=metadata(ImageSpec(8, 8), ("a\nb", "Überschuh", "\ud800")))

    assert len(named.labels.decode().splitlines()) == 3
