"""Why the model gave an answer, as pictures for clients: the evidence on what the model saw."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hangtag.html import data_uri, is_light_on_black
from hangtag.model.artifact import OUTPUT
from hangtag.model.explanation import covered, evidence, lost_odds
from hangtag.pictures import encode_png
from hangtag.serving.models import ServedModel

if TYPE_CHECKING:
    from hangtag.serving.app import Server

__all__ = ["heat_map", "why"]

_FOR, _AGAINST = (22, 104, 176), (200, 50, 31)  # red, green, blue
_LEAST_SIDE = 256  # pixels of a heat map: smaller pictures are enlarged
_DEPTH = 0.8


async def why(server: "Server", model: ServedModel, seen: NDArray[np.uint8], deadline: float) -> dict[str, Any]:
    """The explanation of an answer as JSON.

    `method` is "evidence" or "occlusion" (see `model/explanation.py`), `most_for` and `most_against` are the highest
    and the lowest evidence of a place, and `heat_map` is a PNG in a data URI: blue for the answer, red against it.

    Args:
        seen: (H, W) or (H, W, 3) what the model saw.

    Raises:
        Refusal: as `Batcher.outputs`.
    """
    predictor = model.predictor
    if predictor.has_output("maps"):
        rows = await server.batcher.outputs(model, seen[None], ("maps", "map_weights"), deadline, is_reported=False)
        method, heat = "evidence", evidence(**rows, pooling=predictor.metadata.pooling)[0]
    else:
        images, most = covered(seen), min(server.settings.max_batch, server.settings.max_queue)
        parts = [
            await server.batcher.outputs(model, images[start : start + most], (OUTPUT,), deadline, is_reported=False)
            for start in range(0, len(images), most)
        ]
        method, heat = "occlusion", lost_odds(np.concatenate([part[OUTPUT] for part in parts]), seen.shape)
    return {
        "method": method,
        "most_for": max(0.0, float(heat.max())),
        "most_against": min(0.0, float(heat.min())),
        "heat_map": data_uri(encode_png(heat_map(seen, heat))),
    }


def heat_map(seen: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(h, w, 3) uint8: evidence in blue (for the answer) and red (against it) on a pale picture, enlarged if small.

    Args:
        seen: (H, W) or (H, W, 3) uint8.
        heat: (h, w) evidence of each place.
    """
    grey = seen if seen.ndim == 2 else seen.mean(axis=2)
    pale = 128 + (255 - grey if is_light_on_black([seen]) else grey) * (127 / 255)
    factor = max(1, -(-_LEAST_SIDE // max(seen.shape[:2])))
    pale = pale.repeat(factor, axis=0).repeat(factor, axis=1)[..., None]  # (h, w, 1)
    smooth = _enlarged(heat / max(float(np.abs(heat).max()), 1e-6), pale.shape[:2])
    depth = _DEPTH * np.sqrt(np.abs(smooth))[..., None] if seen.ndim == 2 else _DEPTH * np.abs(smooth)[..., None]
    colour = np.where(smooth[..., None] >= 0, _FOR, _AGAINST)
    mixed: NDArray[np.uint8] = np.rint((1 - depth) * pale + depth * colour).astype(np.uint8)
    return mixed


def _enlarged(heat: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float64]:
    """Bilinear interpolation between the middles of places."""
    values = heat.astype(np.float64)
    for side in (size[1], size[0]):
        at = (np.arange(side) + 0.5) * values.shape[1] / side - 0.5
        values = np.array([np.interp(at, np.arange(values.shape[1]), row) for row in values]).T
    return values
