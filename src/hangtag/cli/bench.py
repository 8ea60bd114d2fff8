"""The speed of this machine: an epoch of the lesson, training with recipe `fast`, prediction, matrix products.

Each is measured for a few seconds through the library's public interface; no result is stored. benchmarks/ in the
source code compares hangtag with other frameworks.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from hangtag.data.labelled_images import LabelledImages
from hangtag.machine import hardware, now, versions
from hangtag.model.predictor import Predictor
from hangtag.training.classifier import Classifier
from hangtag.training.engine.loop import Epoch, choose_device
from hangtag.training.engine.recipes import RECIPES
from hangtag.training.engine.speed import matmul_gflops

__all__ = ["Bench", "measure_machine"]

_EPOCHS = 7  # of the lesson; the first one is not counted
_WARMUP = 0.2  # share of the time for `fast`, not counted: caches, threads and kernels settle
_MANY = 2_000  # images classified at once


@dataclass(frozen=True)
class Bench:
    """The measurements on one machine.

    Attributes:
        data: name of the dataset and number of its training images.
        device: the device that trained.
        lesson_epoch_seconds: median time of an epoch of recipe `tutorial`.
        lesson_epochs: number of epochs in that median; 0 if fewer than two ended in time, so that the value was
            extrapolated from single steps.
        fast_images_per_second: training speed of recipe `fast` after warm-up.
        matmul_gflops: 10^9 operations per second of the fastest matrix product, by number type.
        predict_seconds: median time to classify one image in memory with a model file of recipe `fast`.
        predict_seconds_p95: 95th percentile of that time.
        predict_images_per_second: speed of the same file with many images at once.
    """

    data: dict[str, Any]
    device: str
    lesson_epoch_seconds: float
    lesson_epochs: int
    fast_images_per_second: float
    matmul_gflops: dict[str, float]
    predict_seconds: float
    predict_seconds_p95: float
    predict_images_per_second: float
    date: str = field(default_factory=now)
    machine: dict[str, Any] = field(default_factory=hardware)
    versions: dict[str, str] = field(default_factory=versions)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_machine(
    data: LabelledImages,
    device: str = "auto",
    seconds: float = 25.0,
    progress: Callable[[str, float], None] = lambda what, share: None,
) -> Bench:
    """Measure this machine.

    Args:
        data: a dataset with a training part; Fashion-MNIST for comparable numbers.
        device: "auto", "cpu" or "cuda" for training and matrix products; prediction runs on the CPU.
        seconds: approximate duration; imports and the export of the model are not included.
        progress: called with what is being measured and the share of the work that is done, from 0 to 1.
    """
    chosen = choose_device(device)
    report = _stage(progress, "an epoch of the lesson", 0.0, 0.25)
    lesson, epochs = _lesson_epoch(data, device, 0.3 * seconds, report)
    report = _stage(progress, "training: recipe 'fast'", 0.25, 0.6)
    # No validation in the measured time, and enough epochs for any machine.
    classifier = Classifier(replace(RECIPES["fast"], validation=0.0, prune_fraction=0.0, epochs=10_000), device=device)
    fast = _images_per_second(classifier, data, 0.4 * seconds, report)
    progress("matrix products", 0.6)
    float32, bfloat16 = (matmul_gflops(dtype, chosen, 0.05 * seconds) for dtype in ("float32", "bfloat16"))
    progress("exporting the model", 0.7)
    predictor = classifier.predictor_
    progress("predicting", 0.9)
    median, p95 = _one_at_a_time(predictor, data, 0.1 * seconds)
    many = _many_at_once(predictor, data, 0.1 * seconds)
    progress("predicting", 1.0)
    return Bench(
        data={"name": data.name, "training_images": len(data.train)},
        device=str(chosen),
        lesson_epoch_seconds=lesson,
        lesson_epochs=epochs,
        fast_images_per_second=fast,
        matmul_gflops={"float32": float32, "bfloat16": bfloat16},
        predict_seconds=median,
        predict_seconds_p95=p95,
        predict_images_per_second=many,
    )


def _stage(progress: Callable[[str, float], None], what: str, begin: float, end: float) -> Callable[[float], None]:
    """A function that reports the progress of one stage, from 0 to 1, as a share of the whole."""
    progress(what, begin)
    return lambda share: progress(what, begin + (end - begin) * min(1.0, share))


def _lesson_epoch(
    data: LabelledImages, device: str, seconds: float, report: Callable[[float], None]
) -> tuple[float, int]:
    """Median seconds of an epoch of the lesson, and the number of epochs in that median."""
    classifier = Classifier("tutorial", epochs=_EPOCHS, device=device)
    finished = [epoch for epoch in _epochs(classifier, data, seconds, report) if epoch.finished]
    whole = [epoch.seconds for epoch in finished[1:] if not epoch.cut_short]
    if whole:
        return statistics.median(whole), len(whole)
    last = finished[-1]
    return last.seconds * last.steps / last.step, 0


def _images_per_second(
    classifier: Classifier, data: LabelledImages, seconds: float, report: Callable[[float], None]
) -> float:
    """The training speed after warm-up."""
    began = time.perf_counter()
    moments = [
        (time.perf_counter() - began, (epoch.number - 1) * epoch.steps + epoch.step)
        for epoch in _epochs(classifier, data, seconds, report)
    ]
    warm = [moment for moment in moments if moment[0] >= _WARMUP * seconds]
    (first, before), (last, after) = (warm[0], warm[-1]) if len(warm) > 1 else ((0.0, 0), moments[-1])
    return (after - before) * min(classifier.recipe_.batch_size, len(data.train)) / (last - first)


def _epochs(
    classifier: Classifier, data: LabelledImages, seconds: float, report: Callable[[float], None]
) -> Iterator[Epoch]:
    """The epochs of a training that ends this many seconds after its first steps."""
    moments: list[float] = []

    def enough() -> bool:
        moments.append(time.perf_counter())
        passed = moments[-1] - moments[0]
        report(passed / seconds if seconds else 1.0)
        return passed >= seconds

    yield from classifier.fit_epochs(data.train, stop=enough)


def _one_at_a_time(predictor: Predictor, data: LabelledImages, seconds: float) -> tuple[float, float]:
    """Median and 95th percentile of the seconds for one image in memory."""
    images = data.train.images
    times = _times(lambda index: predictor(images[index % len(images)]), seconds, least=20)
    return statistics.median(times), float(np.percentile(times, 95))


def _many_at_once(predictor: Predictor, data: LabelledImages, seconds: float) -> float:
    """Images per second, a few thousand at once."""
    images = np.array(data.train.images[:_MANY])
    return len(images) / statistics.median(_times(lambda _: predictor.probabilities(images), seconds, least=2))


def _times(call: Callable[[int], object], seconds: float, least: int) -> list[float]:
    """The durations of repeated calls, for this long and at least this many, after one that is not counted."""
    call(0)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < least or time.perf_counter() < end:
        began = time.perf_counter()
        call(len(times))
        times.append(time.perf_counter() - began)
    return times
