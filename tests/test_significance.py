"""significance.py: the p-values are SciPy's."""

import numpy as np
import pytest
from scipy import stats

from hangtag.significance import (
    false_discovery_rates,
    holm,
    homogeneity,
    hypergeometric_tail,
    kolmogorov_smirnov,
    sign_test,
)


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


def test_holm_adjusts_by_rank() -> None:
    assert holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]).tolist() == []


def test_homogeneity_agrees_with_fisher_and_chi_squared() -> None:
    stats = pytest.importorskip("scipy.stats")
    small, large = np.array([[8, 2], [1, 5]]), np.array([[300, 200, 100], [60, 50, 40]])

    assert homogeneity(small)[1] == pytest.approx(stats.fisher_exact(small).pvalue, abs=0.01)
    assert homogeneity(large)[1] == pytest.approx(stats.chi2_contingency(large).pvalue, abs=0.01)
    assert homogeneity(np.array([[10, 0, 30], [0, 0, 40]]))[0] == pytest.approx(0.25)


def test_weights_of_a_sample_stand_for_copies() -> None:
    random = np.random.default_rng(0)
    first, second = random.random(50), random.random(80)
    copies = np.repeat(first, np.arange(50) % 3)
    weights = (np.arange(50) % 3) / len(copies)

    assert kolmogorov_smirnov(first, second, weights)[0] == pytest.approx(kolmogorov_smirnov(copies, second)[0])
    assert kolmogorov_smirnov(first, second, weights)[1] > kolmogorov_smirnov(copies, second)[1], "copies are no images"
