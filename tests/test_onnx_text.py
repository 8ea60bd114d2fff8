"""onnx_text.py: the bytes are those that the package `onnx` writes."""

import onnx.parser
import pytest

from hangtag.pictures import FITS, ImageSpec
from hangtag.resize import OPSET, SIZED, sizing_model, sizing_nodes


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_resizing_model_has_the_bytes_that_onnx_would_write(fit: str, channels: int) -> None:
    spec = ImageSpec(300, 28, channels, 255, fit)
    shape, constants, nodes = sizing_nodes(spec, "pictures")
    text = f"""
        <ir_version: 9, opset_import: ["" : {OPSET}]>
        sizing (uint8[{shape}] pictures) => (uint8[N, {channels}, 300, 28] {SIZED})
        <{constants}>
        {{{nodes}
        }}"""

    assert sizing_model(spec) == onnx.parser.parse_model(text).SerializeToString(deterministic=True)
