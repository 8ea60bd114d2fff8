"""bench.py: every number is measured on any data; progress goes from 0 to 1."""

import json
import time

import pytest

from hangtag.cli import bench
from hangtag.cli.bench import measure_machine
from hangtag.data.labelled_images import from_arrays
from hangtag.errors import UsageError
from hangtag.machine import versions
from toys import shapes


def test_every_number_is_measured_and_goes_into_json(monkeypatch: pytest.MonkeyPatch) -> None:
    measure = bench._lesson_epoch
    monkeypatch.setattr(bench, "_lesson_epoch", lambda *given: measure(*given[:2], 60.0, given[3]))  # time for all six
    data = from_arrays(*shapes(600))
    reports: list[tuple[str, float]] = []

    began = time.perf_counter()
    found = measure_machine(data, "cpu", seconds=1.0, progress=lambda what, share: reports.append((what, share)))

    assert json.loads(json.dumps(found.to_json())) == found.to_json()
    assert found.data == {"name": data.name, "training_images": 600}
    assert (found.device, found.lesson_epochs) == ("cpu", 6)
    assert found.versions == versions()
    assert found.predict_seconds <= found.predict_seconds_p95
    measured = [
        found.lesson_epoch_seconds, found.fast_images_per_second, *found.matmul_gflops.values(),
        found.predict_seconds, found.predict_images_per_second,
    ]  # fmt: skip
    assert all(0 < number < float("inf") for number in measured)
    elapsed = time.perf_counter() - began  # each number is what it says, in its unit: together they took no longer
    assert found.lesson_epochs * found.lesson_epoch_seconds < elapsed
    assert len(data) / found.fast_images_per_second < elapsed
    assert found.predict_seconds < elapsed and 2000 / found.predict_images_per_second < elapsed
    assert found.predict_images_per_second > 1 / found.predict_seconds
    assert all(0.1 < gflops < 1e6 for gflops in found.matmul_gflops.values())
    shares = [share for _, share in reports]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)


def test_an_epoch_too_long_for_the_time_is_extrapolated_from_its_steps() -> None:
    found = measure_machine(from_arrays(*shapes(600)), "cpu", seconds=0.0)

    assert found.lesson_epochs == 0
    assert 0 < found.lesson_epoch_seconds < float("inf")


def test_a_missing_device_is_an_error_before_anything_is_measured() -> None:
    with pytest.raises(UsageError, match="abacus"):
        measure_machine(from_arrays(*shapes(30)), "abacus")
