"""speed.py: images per second and peak memory of a training, and the speed of matrix products."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.speed import matmul_gflops, speed_of
from toys import in_a_process

CPU = torch.device("cpu")


def test_the_speed_counts_the_steps_of_this_process() -> None:
    epoch = Epoch(1, 1, 100, 100, 0.5, 0.9, 0.01, 3.0, finished=True, training_seconds=2.0, first_step=20)

    speed = speed_of([epoch], 32, CPU)

    assert speed.images_per_second == 80 * 32 / 2.0
    assert set(speed.to_json()) == {"images_per_second", "peak_memory_bytes"}
    assert str(speed).startswith("1,280 images/s, peak memory ")
    assert speed_of([], 32, CPU).images_per_second == 0


def test_peak_memory_grows_with_what_is_held_and_does_not_shrink(tmp_path: Path) -> None:
    parent = np.ones(200_000_000)  # 1.6 GB: the peak of this process must not count in the next
    program = """
import numpy, torch
from hangtag.training.engine.speed import peak_memory
before = peak_memory(torch.device("cpu"))
held = numpy.ones(40_000_000)
during = peak_memory(torch.device("cpu"))
del held
print(during - before, peak_memory(torch.device("cpu")) - during)
"""
    grown, afterwards = map(int, in_a_process(program, tmp_path).split())
    del parent

    assert 250e6 < grown < 400e6  # 320 MB were held
    assert abs(afterwards) < 50e6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_speed_of_a_matrix_product_is_operations_over_the_fastest_time(
    dtype: Literal["float32", "bfloat16"], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock is read once for the end, then before and after each product, and whether the time is over.
    clock = iter([0.0, 1.0, 3.0, 3.0, 4.0, 4.5, 9.0])
    monkeypatch.setattr("hangtag.training.engine.speed.time.perf_counter", lambda: next(clock))

    assert matmul_gflops(dtype, seconds=5.0) == 2 * 1024**3 / 0.5 / 1e9
