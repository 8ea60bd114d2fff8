"""Features of a pretrained network: through ONNX Runtime, as hangtag computes them, against plain PyTorch.

    python -m benchmarks.backbone_speed [--json FILE]

The same weights, images (random pixels) and cores. PyTorch runs as most people write it: `network.eval()`,
`torch.no_grad()`, batches of 32, contiguous memory. Both run in turn, first in every other round. Processor seconds
(user and system) tell the cost on a busy machine too; the images per second are only as good as the machine is quiet.
"""

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from benchmarks.common import Others, Result, alone, options, publish, summary

from hangtag.training.engine.backbones import Backbone, compute_features, find_backbone

NAMES = ("efficientnet-lite0", "efficientnet-lite1")
ROUNDS, IMAGES, BATCH = 6, 32, 32


def main() -> None:
    settings = options(__doc__).parse_args()
    with alone():
        publish(describe({name: measured(find_backbone(name)) for name in NAMES}), settings.json)


def measured(backbone: Backbone) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *backbone.side, 3), np.uint8)
    ways: list[Callable[[], Any]] = [lambda: by_pytorch(backbone, images), lambda: compute_features(backbone, images)]
    seconds: list[list[tuple[float, float]]] = [[], []]
    others = Others()
    for number in range(ROUNDS + 1):
        for way in (0, 1) if number % 2 else (1, 0):
            used = timed(ways[way])
            if number:  # the first round warms up
                seconds[way].append(used)
    wall, processor = ([[each[kind] for each in rows] for rows in seconds] for kind in (0, 1))
    difference = np.abs(by_pytorch(backbone, images) - compute_features(backbone, images)).max()
    return {
        "times as fast": summary([one / other for one, other in zip(*wall, strict=True)]),
        "times less processor time": summary([one / other for one, other in zip(*processor, strict=True)]),
        "images per second": [IMAGES / float(np.median(each)) for each in wall],
        "processor milliseconds per image": [1000 * float(np.median(each)) / IMAGES for each in processor],
        "largest difference": float(difference),
        "share of the processors used by others": others.share(),
    }


def by_pytorch(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    assert backbone.network is not None
    network, rows = backbone.network.eval(), []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            pixels = torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float() / 255
            rows.append(network(pixels.contiguous()).mean((2, 3)).numpy())
    return np.concatenate(rows)


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Seconds on the clock, and of the processors."""
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    function()
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def describe(found: dict[str, Any]) -> Result:
    rows = [
        (
            name,
            *(f"{rate:.1f}" for rate in numbers["images per second"]),
            f"{numbers['times as fast']['median']:.1f}",
            *(f"{cost:.1f} ms" for cost in numbers["processor milliseconds per image"]),
            f"{numbers['times less processor time']['median']:.1f}",
            f"{numbers['largest difference']:.1g}",
        )
        for name, numbers in found.items()
    ]
    columns = (
        "backbone", "PyTorch, images/s", "ONNX Runtime, images/s", "times as fast", "PyTorch, processor time per image",
        "ONNX Runtime", "times less", "largest difference of features",
    )  # fmt: skip
    shares = [numbers["share of the processors used by others"] for numbers in found.values()]
    says = [f"Medians of {ROUNDS} rounds of {IMAGES} images. Others used up to {max(shares):.0%} of the processors."]
    title = "Features of a pretrained network: ONNX Runtime against PyTorch"
    return Result("backbone_speed", title, columns, rows, says, found)


if __name__ == "__main__":
    main()
