"""significance.py: the p-values are SciPy's."""

import numpy as np
import pytest
from scipy import stats

from hangtag.significance import false_discovery_rates, hypergeometric_tail, kolmogorov_smirnov, sign_test


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (3, 3), (5, 10), (1, 40), (700, 1300), (4, 9)])
def test_the_sign_test(successes: int, trials: int) -> None:
    expected = stats.binomtest(successes, trials, 0.5).pvalue

    assert sign_test(successes, trials) == pytest.approx(expected, rel=1e-8)


def test_no_trials_show_nothing() -> None:
    assert sign_test(0, 0) == 1.0


@pytest.mark.parametrize("hits", [0, 1, 7, 12, 40])
@pytest.mark.parametrize(("total", "marked", "drawn"), [(60, 40, 50), (10_000, 900, 400), (50, 0, 10), (45, 41, 45)])
def test_the_hypergeometric_tail(hits: int, total: int, marked: int, drawn: int) -> None:
    expected = stats.hypergeom.sf(hits - 1, total, marked, drawn)

    assert hypergeometric_tail(hits, total, marked, drawn) == pytest.approx(expected, rel=1e-8, abs=1e-300)


def test_false_discovery_rates() -> None:
    values = np.random.default_rng(0).random(50) ** 3
    values[7] = values[3]

    np.testing.assert_allclose(false_discovery_rates(values.tolist()), stats.false_discovery_control(values))
    assert len(false_discovery_rates([])) == 0


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.1, 1.0])
@pytest.mark.parametrize("sizes", [(30, 12), (5000, 800)])
def test_the_p_value_for_two_samples_is_never_too_small(shift: float, sizes: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    one, two = random.normal(0, 1, sizes[0]).round(2), random.normal(shift, 1, sizes[1]).round(2)
    expected = stats.ks_2samp(one, two)

    distance, p = kolmogorov_smirnov(one, two)

    assert distance == pytest.approx(expected.statistic)
    assert p >= expected.pvalue * 0.999
    if sizes[1] > 100:
        assert p == pytest.approx(expected.pvalue, rel=0.15, abs=1e-30)
