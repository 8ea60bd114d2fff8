"""What hangtag does on this machine: seconds of the lesson's epoch, speed of `fast`, of predicting, of the processor.

Measured through the library as any user would call it, for some seconds each; nothing is kept. To compare with other
frameworks, see benchmarks/ in the source.
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
from hangtag.training.classifier import ImageClassifier
from hangtag.training.engine.loop import Epoch, choose_device
from hangtag.training.engine.recipes import RECIPES
from hangtag.training.engine.speed import matmul_gflops

__all__ = ["Bench", "measure_machine"]

_EPOCHS = 7  # of the lesson, the first of which does not count
_WARM_SHARE = 0.2  # of the time given to `fast`; caches, threads and kernels settle in it
_MANY = 2_000  # pictures answered at once


@dataclass(frozen=True)
class Bench:
    """What was measured on one machine.

    Attributes:
        data: name of the set and number of its training images.
        device: that trained.
        lesson_epoch_seconds: of an epoch of recipe `tutorial`, median.
        lesson_epochs: how many that is the median of; 0 where not even two ended in time, and the seconds are
            reckoned from the steps that were taken.
        fast_images_per_second: in training by recipe `fast`, once warm.
        matmul_gflops: thousand million operations a second of the best matrix product, by type of number.
        predict_seconds: for one picture in memory, median, by a model file of recipe `fast`.
        predict_seconds_p95: 19 of 20 pictures are answered within this.
        predict_images_per_second: likewise, many at once.
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
        data: with a training part to train on; Fashion-MNIST, to compare with others.
        device: "auto", "cpu" or "cuda", of training and products; predictions are made on the CPU.
        seconds: about how long; imports, exporting the model and slow machines come on top.
        progress: told what is measured now, and the share of all that is done, from 0 to 1.
    """
    chosen = choose_device(device)
    told = _stage(progress, "the lesson's epoch", 0.0, 0.25)
    lesson, epochs = _lesson_epoch(data, device, 0.3 * seconds, told)
    told = _stage(progress, "training by recipe 'fast'", 0.25, 0.6)
    # Nothing held out, so that no validation falls into the time; epochs enough for any machine.
    classifier = ImageClassifier(
        replace(RECIPES["fast"], validation=0.0, prune_fraction=0.0, epochs=10_000), device=device
    )
    fast = _images_per_second(classifier, data, 0.4 * seconds, told)
    progress("matrix products", 0.6)
    float32, bfloat16 = (matmul_gflops(dtype, chosen, 0.05 * seconds) for dtype in ("float32", "bfloat16"))
    progress("the model file", 0.7)
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
    """A progress, from 0 to 1, of the part of all that lies between two shares."""
    progress(what, begin)
    return lambda share: progress(what, begin + (end - begin) * min(1.0, share))


def _lesson_epoch(
    data: LabelledImages, device: str, seconds: float, told: Callable[[float], None]
) -> tuple[float, int]:
    """Seconds of an epoch of the lesson's training, and how many epochs they are the median of."""
    classifier = ImageClassifier("tutorial", epochs=_EPOCHS, device=device)
    ended = [epoch for epoch in _epochs(classifier, data, seconds, told) if epoch.finished]
    whole = [epoch.seconds for epoch in ended[1:] if not epoch.cut_short]
    if whole:
        return statistics.median(whole), len(whole)
    return ended[-1].seconds * ended[-1].steps / ended[-1].step, 0


def _images_per_second(
    classifier: ImageClassifier, data: LabelledImages, seconds: float, told: Callable[[float], None]
) -> float:
    """Of a training cut short after so many seconds, the first of them not counted."""
    began = time.perf_counter()
    moments = [
        (time.perf_counter() - began, (epoch.number - 1) * epoch.steps + epoch.step)
        for epoch in _epochs(classifier, data, seconds, told)
    ]
    warm = [moment for moment in moments if moment[0] >= _WARM_SHARE * seconds]
    (first, before), (last, after) = (warm[0], warm[-1]) if len(warm) > 1 else ((0.0, 0), moments[-1])
    return (after - before) * min(classifier.recipe_.batch_size, len(data.train)) / (last - first)


def _epochs(
    classifier: ImageClassifier, data: LabelledImages, seconds: float, told: Callable[[float], None]
) -> Iterator[Epoch]:
    """A training that ends so many seconds after its first steps."""
    first: list[float] = []

    def enough() -> bool:
        here = time.perf_counter()
        if not first:
            first.append(here)
        passed = here - first[0]
        told(passed / seconds if seconds else 1.0)
        return passed >= seconds

    yield from classifier.fit_epochs(data.train, stop=enough)


def _one_at_a_time(predictor: Predictor, data: LabelledImages, seconds: float) -> tuple[float, float]:
    """Median and 95th percentile of the seconds for one picture in memory."""
    images = data.train.images
    predictor(images[0])
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 20 or time.perf_counter() < end:
        began = time.perf_counter()
        predictor(images[len(taken) % len(images)])
        taken.append(time.perf_counter() - began)
    return statistics.median(taken), float(np.percentile(taken, 95))


def _many_at_once(predictor: Predictor, data: LabelledImages, seconds: float) -> float:
    """Pictures a second, a few thousand at once."""
    images = np.array(data.train.images[:_MANY])
    predictor.probabilities(images)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < 2 or time.perf_counter() < end:
        began = time.perf_counter()
        predictor.probabilities(images)
        taken.append(time.perf_counter() - began)
    return len(images) / statistics.median(taken)
