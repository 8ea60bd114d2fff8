"""A picture of any size -> the size a model takes, with the first nodes of every model file.

Training data is resized here, and a picture to predict in the model file. Both run the same ONNX nodes in ONNX Runtime,
so the pixels are the same. Resizing is bilinear with antialiasing (ONNX `Resize`, weights renormalised at the borders),
on 8-bit pixels.
"""

import numpy as np
from numpy.typing import NDArray

from hangtag.onnx_text import model_bytes
from hangtag.pictures import ImageSpec

__all__ = ["OPSET", "SIZED", "Sizer", "sizing_model", "sizing_nodes"]

SIZED = "sized"
"""The output of the nodes: uint8 (N, C, H, W)."""

OPSET = 18
"""The first version of the ONNX operators whose `Resize` has antialiasing."""

_IR_VERSION = 9

_RESIZE = 'Resize <mode = "linear", antialias = 1, exclude_outside = 1, coordinate_transformation_mode = "half_pixel">'
_SQUASH = f"""
            shape = Concat <axis = 0> (count, size)
            {SIZED} = {_RESIZE} (first, , , shape)"""
_RATIOS = """
            given = Shape <start = 2, end = 4> (first)
            given_float = Cast <to = 1> (given)
            size_float = Cast <to = 1> (size)
            ratios = Div (size_float, given_float)"""
_PAD = f"""{_RATIOS}
            ratio = ReduceMin <keepdims = 1> (ratios)
            exact = Mul (given_float, ratio)
            rounded = Round (exact)
            at_least = Max (rounded, pixel)
            inner = Cast <to = 7> (at_least)
            shape = Concat <axis = 0> (count, inner)
            resized = {_RESIZE} (first, , , shape)
            gap = Sub (size, inner)
            before_it = Div (gap, two)
            behind_it = Sub (gap, before_it)
            pads = Concat <axis = 0> (nothing, before_it, nothing, behind_it)
            {SIZED} = Pad (resized, pads, background)"""
_CROP = f"""{_RATIOS}
            ratio = ReduceMax <keepdims = 1> (ratios)
            exact = Div (size_float, ratio)
            rounded = Round (exact)
            at_least = Max (rounded, pixel)
            at_most = Min (at_least, given_float)
            window = Cast <to = 7> (at_most)
            gap = Sub (given, window)
            start = Div (gap, two)
            end = Add (start, window)
            cut = Slice (first, start, end, axes)
            shape = Concat <axis = 0> (count, size)
            {SIZED} = {_RESIZE} (cut, , , shape)"""
_WAYS = {"squash": _SQUASH, "pad": _PAD, "crop": _CROP}


def sizing_nodes(spec: ImageSpec, pictures: str) -> tuple[str, str, str]:
    """(input shape, initializers, nodes) as ONNX text; the nodes turn uint8 `pictures` of one size into `SIZED`."""
    if spec.channels == 1:
        shape, channels_first = "N, height, width", f"first = Unsqueeze ({pictures}, one)"
    else:
        shape, channels_first = "N, height, width, 3", f"first = Transpose <perm = [0, 3, 1, 2]> ({pictures})"
    constants = [f"int64[2] size = {{{spec.height}, {spec.width}}}"]
    if spec.channels == 1:
        constants.append("int64[1] one = {1}")
    if spec.fit != "squash":
        constants += ["int64[1] two = {2}", "float[1] pixel = {1.0}"]
    if spec.fit == "pad":
        constants += ["int64[2] nothing = {0, 0}", f"uint8 background = {{{spec.background}}}"]
    if spec.fit == "crop":
        constants.append("int64[2] axes = {2, 3}")
    nodes = f"""
            {channels_first}
            count = Shape <start = 0, end = 2> (first){_WAYS[spec.fit]}"""
    return shape, ", ".join(constants), nodes


def sizing_model(spec: ImageSpec) -> bytes:
    """A model file that only resizes pictures, for `Sizer`."""
    shape, constants, nodes = sizing_nodes(spec, "pictures")
    sized = f"uint8[N, {spec.channels}, {spec.height}, {spec.width}] {SIZED}"
    return model_bytes(
        "sizing", f"uint8[{shape}] pictures", sized, constants, nodes, ir_version=_IR_VERSION, opset=OPSET
    )


class Sizer:
    """Resizes pictures on one thread; a picture of the right size is returned unchanged.

    Args:
        spec: the size, and how to fit pictures to it.
    """

    def __init__(self, spec: ImageSpec) -> None:
        self.spec = spec
        self._session: object = None

    def __call__(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 (h, w) or (h, w, 3) -> uint8 (H, W) or (H, W, 3)."""
        if picture.shape == self.spec.shape:
            return picture
        if self._session is None:
            self._session = _session(sizing_model(self.spec))
        sized: NDArray[np.uint8] = self._session.run([SIZED], {"pictures": picture[np.newaxis]})[0][0]  # type: ignore[attr-defined]
        return sized[0] if self.spec.channels == 1 else np.ascontiguousarray(sized.transpose(1, 2, 0))


def _session(model: bytes) -> object:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
