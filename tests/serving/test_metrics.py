"""Counts of a server: what `GET /metrics` says after known requests, in one process and in several."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from hangtag.errors import PictureError, SaveError
from hangtag.model.predictor import Answer
from hangtag.pictures import encode_png
from hangtag.serving.metrics import KINDS, Metrics, shared_by_workers
from toys import shapes


@dataclass(frozen=True, eq=False)
class Model:
    """What metrics use of a served model."""

    name: str
    version: str
    predictor: Any = None


TOY: Any = Model(name="toy", version="1", predictor=SimpleNamespace(class_names=("bar", "dot")))
MODELS: Any = lambda: ()  # noqa: E731


def values(text: str | bytes) -> dict[str, float]:
    """Every sample of a scrape, by its name and labels."""
    lines = (text if isinstance(text, str) else text.decode()).splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def answer(label: str = "bar", probability: float = 0.9, **rest: Any) -> Answer:
    return Answer(label, probability, ((label, probability),), (), "abc", **rest)


def test_answers_are_counted_by_label_certainty_and_familiarity() -> None:
    metrics = Metrics(MODELS, lambda: 3)
    sure, strange = answer(sure=True, is_ood=False, ood_score=0.2), answer("dot", 0.4, sure=False, is_ood=True)
    metrics.answered(TOY, [sure, strange], 0.0)
    metrics.answered(TOY, [answer(probability=0.9), *[PictureError("damaged", "")] * 2], 0.1)
    found = values(metrics.text()[0])

    assert found['hangtag_answers_total{label="bar",model="toy"}'] == 2
    assert found['hangtag_answers_total{label="dot",model="toy"}'] == 1
    assert found['hangtag_answers_by_certainty_total{model="toy",sure="yes"}'] == 1
    assert found['hangtag_answers_by_certainty_total{model="toy",sure="unknown"}'] == 1
    assert found['hangtag_unfamiliar_pictures_total{model="toy"}'] == 1
    assert found['hangtag_pictures_total{model="toy"}'] == 5
    assert found['hangtag_unreadable_pictures_total{model="toy"}'] == 2
    assert found['hangtag_confidence_bucket{le="0.4",model="toy"}'] == 1
    assert found['hangtag_confidence_bucket{le="0.9",model="toy"}'] == 3
    assert found['hangtag_ood_score_count{model="toy"}'] == 1
    assert found["hangtag_waiting_pictures"] == 3
    assert found["hangtag_resident_memory_bytes"] > 1e7


def test_many_values_fall_into_the_buckets_of_single_observations() -> None:
    from prometheus_client import CollectorRegistry, Histogram, generate_latest

    metrics, registry = Metrics(MODELS, lambda: 0), CollectorRegistry()
    seconds = [*np.random.default_rng(0).exponential(0.1, 300).round(3).tolist(), 0.001, 0.5, 100.0]
    bounds = metrics._of["inference"]._upper_bounds
    one_by_one = Histogram("hangtag_inference_seconds", "", buckets=bounds, registry=registry)
    for value in seconds:
        metrics.inferred(4, value)
        one_by_one.observe(value)
    expected = values(generate_latest(registry))

    found = values(metrics.text()[0])
    assert {name: found[name] for name in expected if "_sum" not in name and "_created" not in name} == {
        name: value for name, value in expected.items() if "_sum" not in name and "_created" not in name
    }
    assert found["hangtag_inference_seconds_sum"] == pytest.approx(sum(seconds))


def test_a_model_of_many_classes_has_a_bounded_number_of_series() -> None:
    metrics = Metrics(MODELS, lambda: 0)
    metrics.answered(TOY, [answer(f"class {number}") for number in range(1000)], 0.0)
    found = {
        name: count for name, count in values(metrics.text()[0]).items() if name.startswith("hangtag_answers_total")
    }

    assert len(found) == 201
    assert found['hangtag_answers_total{label="(other)",model="toy"}'] == 800
    assert sum(found.values()) == 1000


def test_outputs_count_as_answers_do() -> None:
    model, metrics = TOY, Metrics(lambda: [TOY], lambda: 0)
    rows = np.array([[0.2, 0.8], [0.3, 0.7], [0.9, 0.1]], np.float32)
    metrics.computed(model, {"probabilities": rows, "ood_score": np.array([0.1, 0.97, 0.5], np.float32)}, 3, 0.0)
    metrics.computed(model, {"pixels": np.zeros((4, 1, 2, 2), np.float32)}, 4, 0.0)
    found = values(metrics.text()[0])

    assert found['hangtag_answers_total{label="dot",model="toy"}'] == 2
    assert found['hangtag_unfamiliar_pictures_total{model="toy"}'] == 1
    assert found['hangtag_pictures_total{model="toy"}'] == 7
    assert found['hangtag_model_info{hangtag="0.1.0",model="toy",version="1"}'] == 1


def test_a_new_version_takes_the_place_of_the_old_one() -> None:
    now = [Model("toy", "old")]
    metrics = Metrics(lambda: now, lambda: 0)  # type: ignore[arg-type, return-value]
    metrics.flush()
    now[0] = Model("toy", "new")
    found = values(metrics.text()[0])

    assert found['hangtag_model_info{hangtag="0.1.0",model="toy",version="new"}'] == 1
    assert found['hangtag_model_info{hangtag="0.1.0",model="toy",version="old"}'] == 0


def test_every_kind_of_error_is_a_word() -> None:
    assert all(re.fullmatch(r"[a-z ]+", kind) for kind in KINDS.values())


def test_requests_are_counted_by_route_and_status(start_server: Any) -> None:
    with start_server(access_log=None) as running, httpx.Client(base_url=running.url) as client:
        for _ in range(3):
            assert client.post("/predict", content=encode_png(shapes(1)[0][0])).status_code == 200
        refused = client.post("/predict", content=b"not a picture").status_code
        for secret in ("a", "b"):
            client.get(f"/nowhere/{secret}?token=x")
        found = values(client.get("/metrics").text)

    assert found['hangtag_requests_total{endpoint="/predict",method="POST",status="200"}'] == 3
    assert found[f'hangtag_requests_total{{endpoint="/predict",method="POST",status="{refused}"}}'] == 1
    assert found['hangtag_requests_total{endpoint="other",method="GET",status="404"}'] == 2
    assert found['hangtag_errors_total{kind="not found"}'] == 2
    assert found["hangtag_batch_pictures_sum"] == 3
    assert not any("nowhere" in name or "token=" in name for name in found)


CHILD = """
import sys, time
from hangtag.serving.metrics import Metrics
metrics = Metrics(lambda: (), lambda: 5)
for _ in range(int(sys.argv[1])):
    metrics.requested("/predict", "POST", 200, 0.01)
metrics.flush()
print("counted", flush=True)
sys.stdin.readline()
sys.stdout.write(metrics.text()[0].decode())
"""


@contextmanager
def counting_child(count: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that is killed at the end, so that a failing test leaves no open pipe."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, count], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def test_processes_count_together_also_after_one_was_killed() -> None:
    with shared_by_workers():
        folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        with ExitStack() as running:
            children = [running.enter_context(counting_child(count)) for count in ("3", "4")]
            for child in children:
                assert child.stdout is not None
                assert child.stdout.readline() == "counted\n"
            children[0].kill()
            children[0].communicate()
            found = values(children[1].communicate("\n", timeout=20)[0])
    assert found['hangtag_requests_total{endpoint="/predict",method="POST",status="200"}'] == 7
    assert found["hangtag_waiting_pictures"] == 5, "of the living process only"
    assert found["hangtag_processes"] == 1
    assert not folder.exists()
    assert "PROMETHEUS_MULTIPROC_DIR" not in os.environ


def test_workers_say_that_they_need_a_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))

    with pytest.raises(SaveError, match="temporary folder"), shared_by_workers():
        pass
