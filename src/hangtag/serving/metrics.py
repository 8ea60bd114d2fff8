"""What a server counts, for Prometheus at `GET /metrics`.

Handlers only append to lists. The lists become counts a few times a second and before each scrape, so that a request
costs little. With several processes, prometheus-client keeps the counts in files of a folder that all of them read.
"""

import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hangtag.errors import HangtagError, SaveError
from hangtag.model.artifact import OUTPUT
from hangtag.model.guarantees import OOD_FALSE_POSITIVE_RATE
from hangtag.serving.batching import Recorder
from hangtag.version import __version__

if TYPE_CHECKING:
    from hangtag.model.predictor import Answer
    from hangtag.serving.answer_log import AnswerLog
    from hangtag.serving.models import ServedModel

__all__ = ["KINDS", "Metrics", "Seen", "current_request", "shared_by_workers"]

SECONDS = 0.5
"""How old counts may be that another process reports; a killed process loses at most those."""
KINDS = {
    400: "bad request", 401: "no token", 403: "forbidden", 404: "not found", 405: "method", 408: "slow client",
    413: "too large", 415: "media type", 421: "wrong host", 422: "unprocessable",
    431: "headers too large", 499: "client left", 500: "internal", 503: "overloaded", 504: "deadline",
}  # fmt: skip
"""The kind of error of each HTTP status; other statuses are "other"."""

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_MOST_LABELS = 200  # classes of a model that are counted each; the others are counted together
_OTHER = "(other)"
_TIMES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)


@dataclass
class Seen:
    """What becomes known about a request while it is answered, for its line in the access log."""

    pictures: int = 0
    queued: float = 0.0
    model: str | None = None


current_request: ContextVar[Seen | None] = ContextVar("current_request", default=None)
"""Set for each request by `access_log.py`."""


@contextmanager
def shared_by_workers() -> Iterator[None]:
    """Let the processes that are started meanwhile count together; around all of them, before any of them starts.

    Raises:
        SaveError: there is no folder for temporary files.
    """
    try:
        folder = tempfile.mkdtemp(prefix="hangtag-metrics-")
    except OSError:
        raise SaveError(
            "several workers need a temporary folder, in which they count together",
            "set the variable TMPDIR to a folder that can be written, or use one worker",
        ) from None
    os.environ[_FOLDER] = folder
    try:
        yield
    finally:
        os.environ.pop(_FOLDER, None)
        shutil.rmtree(folder, ignore_errors=True)


class Metrics(Recorder):
    """The `Recorder` of a server process, and the text that Prometheus reads.

    Args:
        models: all models that answer now; called often.
        waiting: the number of pictures that wait for an answer.

    Attributes:
        answer_log: gets all answers; None: nothing does.
    """

    def __init__(self, models: "Callable[[], Sequence[ServedModel]]", waiting: Callable[[], int]) -> None:
        from prometheus_client import CollectorRegistry, Gauge, Histogram, disable_created_metrics
        from prometheus_client import Counter as Counted

        disable_created_metrics()  # type: ignore[no-untyped-call]  # they are a third of all lines, and rarely used

        class Spread(Histogram):
            """A histogram that takes many values at once."""

            def observe_all(self, values: "Sequence[float] | NDArray[Any]") -> None:
                amounts = np.asarray(values, np.float64)
                amounts = amounts[np.isfinite(amounts)]
                places = np.searchsorted(self._upper_bounds, amounts)  # the bucket of values up to its bound
                for place, count in zip(*np.unique(places, return_counts=True), strict=True):
                    self._buckets[place].inc(int(count))
                self._sum.inc(float(amounts.sum()))

        self._models, self._waiting = models, waiting
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._children: dict[tuple[Any, ...], Any] = {}
        self._requests: list[tuple[str, str, int, float]] = []
        self._decoded: list[float] = []
        self._inferred: list[tuple[int, float]] = []
        self._queued: list[float] = []
        self._answered: list[tuple[ServedModel, Sequence[Answer | HangtagError]]] = []
        self._computed: list[tuple[ServedModel, Mapping[str, NDArray[Any]], int]] = []
        self.answer_log: AnswerLog | None = None
        self._lost: list[str] = []
        self._versions: set[tuple[str, str]] = set()
        self._labels: dict[str, set[str]] = {}

        def counter(name: str, text: str, *labels: str) -> Any:
            return Counted(f"hangtag_{name}", text, labels, registry=self._registry)

        def spread(name: str, text: str, bounds: Sequence[float], *labels: str) -> Any:
            return Spread(f"hangtag_{name}", text, labels, buckets=bounds, registry=self._registry)

        def gauge(name: str, text: str, mode: Any, *labels: str) -> Any:
            return Gauge(f"hangtag_{name}", text, labels, multiprocess_mode=mode, registry=self._registry)

        self._of = {
            "requests": counter("requests", "Finished requests.", "endpoint", "method", "status"),
            "errors": counter("errors", "Requests with a status of 400 or more, by kind.", "kind"),
            "request": spread("request_seconds", "Time from a request's headers to its last byte.", _TIMES, "endpoint"),
            "queue": spread("queue_seconds", "Time that requests waited for their batch.", _TIMES),
            "decode": spread("decode_seconds", "Time to decode a picture.", _TIMES),
            "inference": spread("inference_seconds", "Time of a batch in the model.", _TIMES),
            "batch": spread("batch_pictures", "Pictures in a batch.", _SIZES),
            "pictures": counter("pictures", "Pictures, with and without an answer.", "model"),
            "unreadable": counter("unreadable_pictures", "Pictures that could not be read.", "model"),
            "answers": counter("answers", "Answers by label.", "model", "label"),
            "sure": counter("answers_by_certainty", "Answers by whether they are sure.", "model", "sure"),
            "unfamiliar": counter("unfamiliar_pictures", "Pictures unlike the training images (OOD).", "model"),
            "confidence": spread("confidence", "Probability of the label.", _SHARES, "model"),
            "ood": spread("ood_score", "OOD score; uniform for images like the training images.", _SHARES, "model"),
            "lost": counter("lost_log_lines", "Lines that could not be written.", "log"),
            "waiting": gauge("waiting_pictures", "Pictures that wait for an answer.", "livesum"),
            "memory": gauge("resident_memory_bytes", "Memory of all server processes.", "livesum"),
            "processes": gauge("processes", "Server processes that answer.", "livesum"),
            "info": gauge("model_info", "1 for the version that answers, 0 for earlier ones.", "livemax", "model",
                          "version", "hangtag"),
        }  # fmt: skip

    def requested(self, endpoint: str, method: str, status: int, seconds: float) -> None:
        """A request has ended.

        Args:
            endpoint: the route, which has no value that a client chose.
        """
        self._requests.append((endpoint, method, status, seconds))

    def decoded(self, seconds: Sequence[float]) -> None:
        self._decoded.extend(seconds)

    def inferred(self, pictures: int, seconds: float) -> None:
        self._inferred.append((pictures, seconds))

    def answered(self, model: "ServedModel", answers: "Sequence[Answer | HangtagError]", queued: float) -> None:
        self._queued.append(queued)
        self._answered.append((model, answers))
        if self.answer_log is not None:
            self.answer_log.answered(model.name, answers)
        self._note(model, len(answers), queued)

    def computed(
        self, model: "ServedModel", outputs: Mapping[str, NDArray[np.float32]], pictures: int, queued: float
    ) -> None:
        self._queued.append(queued)
        self._computed.append((model, outputs, pictures))
        self._note(model, pictures, queued)

    def lost_line(self, log: str) -> None:
        """A line of this log could not be written."""
        self._lost.append(log)

    def text(self) -> tuple[bytes, str]:
        """The counts of all processes as Prometheus reads them, and the media type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        self.flush()
        folder = os.environ.get(_FOLDER)
        if folder is None:
            return generate_latest(self._registry), CONTENT_TYPE_LATEST
        _forget_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST

    def flush(self) -> None:
        """Count what was reported since the last call."""
        with self._lock:
            self._count_requests()
            self._count_work()
            answers: dict[str, list[Answer | HangtagError]] = {}
            for model, some in _taken(self._answered):
                answers.setdefault(model.name, []).extend(some)
            for name, found in answers.items():
                self._count_answers(name, found)
            outputs: dict[ServedModel, list[tuple[Mapping[str, NDArray[Any]], int]]] = {}
            for model, rows, pictures in _taken(self._computed):
                outputs.setdefault(model, []).append((rows, pictures))
            for model, computed in outputs.items():
                self._count_outputs(model, computed)
            self._set_gauges()

    def _note(self, model: "ServedModel", pictures: int, queued: float) -> None:
        seen = current_request.get()
        if seen is not None:
            seen.pictures += pictures
            seen.queued = max(seen.queued, queued)
            seen.model = model.version

    def _child(self, name: str, *labels: str) -> Any:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._of[name].labels(*labels) if labels else self._of[name]
        return child

    def _count_requests(self) -> None:
        requests = _taken(self._requests)
        for (endpoint, method, status), count in Counter(each[:3] for each in requests).items():
            self._child("requests", endpoint, method, str(status)).inc(count)
            if status >= 400:
                self._child("errors", KINDS.get(status, "other")).inc(count)
        by_endpoint: dict[str, list[float]] = {}
        for endpoint, _, _, seconds in requests:
            by_endpoint.setdefault(endpoint, []).append(seconds)
        for endpoint, times in by_endpoint.items():
            self._child("request", endpoint).observe_all(times)

    def _count_work(self) -> None:
        batches = _taken(self._inferred)
        for name, values in (
            ("queue", _taken(self._queued)), ("decode", _taken(self._decoded)),
            ("batch", [pictures for pictures, _ in batches]), ("inference", [seconds for _, seconds in batches]),
        ):  # fmt: skip
            if values:
                self._child(name).observe_all(values)
        for log, count in Counter(_taken(self._lost)).items():
            self._child("lost", log).inc(count)

    def _count_answers(self, model: str, answers: "Sequence[Answer | HangtagError]") -> None:
        read = [each for each in answers if not isinstance(each, HangtagError)]
        self._child("pictures", model).inc(len(answers))
        self._child("unreadable", model).inc(len(answers) - len(read))
        if not read:
            return
        self._count_labels(model, Counter(str(each.label) for each in read))
        sure = Counter("unknown" if each.sure is None else "yes" if each.sure else "no" for each in read)
        for kind, count in sure.items():
            self._child("sure", model, kind).inc(count)
        self._child("unfamiliar", model).inc(sum(bool(each.is_ood) for each in read))
        self._child("confidence", model).observe_all([each.probability or 0.0 for each in read])
        self._child("ood", model).observe_all([each.ood_score for each in read if each.ood_score is not None])

    def _count_outputs(self, model: "ServedModel", computed: list[tuple[Mapping[str, NDArray[Any]], int]]) -> None:
        name, names = model.name, model.predictor.class_names
        self._child("pictures", name).inc(sum(pictures for _, pictures in computed))
        rows = [each[OUTPUT] for each, _ in computed if OUTPUT in each]
        if rows:
            labels = np.concatenate([each.argmax(axis=1) for each in rows])
            places, counts = np.unique(labels, return_counts=True)
            self._count_labels(name, {names[place]: int(n) for place, n in zip(places, counts, strict=True)})
            self._child("confidence", name).observe_all(np.concatenate([each.max(axis=1) for each in rows]))
        scores = [each["ood_score"] for each, _ in computed if "ood_score" in each]
        if scores:
            values = np.concatenate(scores)
            self._child("unfamiliar", name).inc(int((values > 1 - OOD_FALSE_POSITIVE_RATE).sum()))
            self._child("ood", name).observe_all(values)

    def _count_labels(self, model: str, counts: Mapping[str, int]) -> None:
        known = self._labels.setdefault(model, set())
        for label, count in counts.items():
            if label not in known and len(known) < _MOST_LABELS:
                known.add(label)
            self._child("answers", model, label if label in known else _OTHER).inc(count)

    def _set_gauges(self) -> None:
        self._child("waiting").set(self._waiting())
        self._child("processes").set(1)
        memory = _resident_bytes()
        if memory is not None:
            self._child("memory").set(memory)
        now = {(model.name, model.version) for model in self._models()}
        if now != self._versions:
            for name, version in self._versions - now:
                self._child("info", name, version, __version__).set(0)
            for name, version in now:
                self._child("info", name, version, __version__).set(1)
            self._versions = now


def _taken(values: list[Any]) -> list[Any]:
    """All values so far, which are removed; other threads may append meanwhile."""
    count = len(values)
    taken = values[:count]
    del values[:count]
    return taken


def _resident_bytes() -> int | None:
    """The memory of this process; None where the system does not say."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def _forget_dead(folder: Path) -> None:
    """Remove the gauges of processes that ended, however they ended; their counts stay."""
    from prometheus_client.multiprocess import mark_process_dead

    for process in {int(path.stem.rpartition("_")[2]) for path in folder.glob("gauge_live*.db")}:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            with suppress(FileNotFoundError):  # another process was quicker
                mark_process_dead(process, str(folder))  # type: ignore[no-untyped-call]
        except OSError:
            continue
