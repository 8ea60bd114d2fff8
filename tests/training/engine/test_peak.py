"""peak.py: a measured speed that is a speed."""

from typing import Literal

import pytest

from hangtag.training.engine.peak import matmul_gflops


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_speed_is_finite_and_positive(dtype: Literal["float32", "bfloat16"]) -> None:
    assert 0 < matmul_gflops(dtype, seconds=0.0) < float("inf")
