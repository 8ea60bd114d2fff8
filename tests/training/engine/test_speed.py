"""speed.py: images per second and peak memory of a training, and the speed of matrix products."""

from typing import Literal

import pytest
import torch

from hangtag.training.engine.loop import Epoch
from hangtag.training.engine.speed import matmul_gflops, peak_memory, speed_of

CPU = torch.device("cpu")


def test_the_speed_counts_the_steps_of_this_process() -> None:
    epoch = Epoch(1, 1, 100, 100, 0.5, 0.9, 0.01, 3.0, finished=True, training_seconds=2.0, first_step=20)

    speed = speed_of([epoch], 32, CPU)

    assert speed.images_per_second == 80 * 32 / 2.0
    assert set(speed.to_json()) == {"images_per_second", "peak_memory_bytes"}
    assert str(speed).startswith("1,280 images/s, peak memory ")
    assert speed_of([], 32, CPU).images_per_second == 0


def test_peak_memory_is_plausible() -> None:
    peak = peak_memory(CPU)

    assert peak is not None
    assert 50e6 < peak < 100e9


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_speed_of_a_matrix_product_is_finite_and_positive(dtype: Literal["float32", "bfloat16"]) -> None:
    assert 0 < matmul_gflops(dtype, seconds=0.0) < float("inf")
