"""What trust costs when predicting: the whole model file against its graph cut down to bare probabilities.

    python -m benchmarks.trust_cost [--json FILE]

The network of recipe `fast`, hardly trained (weights do not change the time), calibrated and fitted as ever. Both run
in turn, a block of calls each, first in every other round; the first calls of a block are not counted, since threads of
the other session still spin. Medians of blocks, then of the ratios of the rounds.
"""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnx.utils
import onnxruntime
from benchmarks.common import Result, alone, options, publish, summary

import hangtag
from hangtag.model.artifact import OUTPUT
from hangtag.training.engine.recipes import find_recipe
from hangtag.training.estimator import ImageClassifier

SIZES = ((1, 40, 100), (64, 20, 6), (1000, 15, 2))
"""Pictures at a time, rounds, calls in a block."""

UNCOUNTED = 0.3  # of a block's calls


def main() -> None:
    settings = options(__doc__).parse_args()
    data = hangtag.read("fashion-mnist")
    recipe = replace(find_recipe("fast"), epochs=1, last_epoch_fraction=0.05)
    content = ImageClassifier(recipe=recipe, device="cpu").fit(data.train).to_bytes()
    with alone():
        publish(describe(measured(content, data.test.images)), settings.json)


def measured(content: bytes, images: Any) -> dict[str, Any]:
    model = onnx.load_model_from_string(content)
    bare = onnx.utils.Extractor(model).extract_model(["images"], ["uncalibrated"])
    ways = [
        (onnxruntime.InferenceSession(each.SerializeToString()), names)
        for each, names in ((bare, ["uncalibrated"]), (model, [OUTPUT, "ood_score"]))
    ]
    found: dict[str, Any] = {}
    for count, rounds, calls in SIZES:
        some = images[:count]
        seconds: list[list[float]] = [[], []]
        for number in range(rounds + 1):
            for way in (0, 1) if number % 2 else (1, 0):
                session, names = ways[way]
                block = []
                for _ in range(calls):
                    began = time.perf_counter()
                    session.run(names, {"images": some})
                    block.append(time.perf_counter() - began)
                if number:  # the first round warms up
                    seconds[way].append(float(np.median(block[int(UNCOUNTED * calls) :])))
        ratios = [whole / plain for plain, whole in zip(*seconds, strict=True)]
        found[str(count)] = {
            "ratio": summary(ratios) | {"values": []},
            "bare milliseconds": 1000 * float(np.median(seconds[0])),
            "whole milliseconds": 1000 * float(np.median(seconds[1])),
        }
    return found


def describe(found: dict[str, Any]) -> Result:
    rows = [
        (
            count,
            f"{numbers['bare milliseconds']:.3f} ms",
            f"{numbers['whole milliseconds']:.3f} ms",
            f"{100 * (numbers['ratio']['median'] - 1):+.0f} %",
            str(numbers["ratio"]["n"]),
        )
        for count, numbers in found.items()
    ]
    columns = ("pictures at a time", "bare probabilities", "with everything", "more time (median of ratios)", "rounds")
    says = [
        "Everything: calibration, unfamiliarity, embedding. Evidence is computed when asked for; sets are two "
        "comparisons more, in Python."
    ]
    return Result("trust_cost", "What trust costs when predicting", columns, rows, says, found)


if __name__ == "__main__":
    main()
