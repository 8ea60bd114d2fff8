"""Tests of significance in numpy, so that the base install, which has no SciPy, can compare, stress and audit.

Tests compare the results with SciPy's. Probabilities are sums of terms computed by logarithms of factorials.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "false_discovery_rates", "holm", "homogeneity", "hypergeometric_tail", "kolmogorov_smirnov", "sign_test",
]  # fmt: skip

_TERMS = 100  # of Kolmogorov's series; far more than it takes


def sign_test(successes: int, trials: int) -> float:
    """The two-sided exact p-value of `successes` in `trials` fair coin flips; 1 without trials."""
    if not trials:
        return 1.0
    logs = _log_factorials(trials)
    hits = np.arange(min(successes, trials - successes) + 1)
    terms = logs[trials] - logs[hits] - logs[trials - hits] - trials * np.log(2)
    return min(1.0, 2 * float(np.exp(terms).sum()))


def hypergeometric_tail(hits: int, total: int, marked: int, drawn: int) -> float:
    """The probability of at least `hits` marked items among `drawn` ones, if `marked` of `total` items are marked."""
    logs = _log_factorials(total)
    counts = np.arange(max(hits, drawn + marked - total, 0), min(drawn, marked) + 1)
    ways = logs[marked] - logs[counts] - logs[marked - counts]
    ways += logs[total - marked] - logs[drawn - counts] - logs[total - marked - drawn + counts]
    ways -= logs[total] - logs[drawn] - logs[total - drawn]
    return min(1.0, float(np.exp(ways).sum()))


def false_discovery_rates(p_values: Sequence[float]) -> NDArray[np.float64]:
    """(N,) p-values adjusted for their number (Benjamini & Hochberg, 1995, J. R. Stat. Soc. B 57:289-300)."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)[::-1]
    ranks = np.arange(len(values), 0, -1)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.minimum.accumulate(values[order] * len(values) / ranks), 1)
    return adjusted


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """(N,) p-values adjusted for their number: any is below a level by chance at most that often (Holm, 1979)."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)), 1)
    return adjusted


def homogeneity(counts: NDArray[np.int64], draws: int = 9999) -> tuple[float, float]:
    """Whether two rows of counts have the same shares: their total variation distance, and a p-value.

    The p-value counts the random tables with the same sums whose chi-squared statistic is at least as large, and so
    holds for small counts too (Monte Carlo; Patefield, 1981).

    Args:
        counts: (2, K) of two samples, neither of them empty.
    """
    counts = counts[:, counts.sum(axis=0) > 0]
    columns, sizes = counts.sum(axis=0), counts.sum(axis=1)
    shares = counts / sizes[:, None]
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    expected = columns * (sizes[1] / sizes.sum())  # of the second row, which determines the first
    random = np.random.default_rng(0)
    statistic, at_least, left = float(((counts[1] - expected) ** 2 / columns).sum()), 1, draws
    while left:
        some = min(left, max(1, 10_000_000 // len(columns)))
        drawn = random.multivariate_hypergeometric(columns, sizes[1], some, method="marginals")
        at_least += int((((drawn - expected) ** 2 / columns).sum(axis=1) >= statistic * (1 - 1e-12)).sum())
        left -= some
    return distance, at_least / (draws + 1)


def kolmogorov_smirnov(
    first: NDArray[np.float64], second: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> tuple[float, float]:
    """The largest distance between the distributions of two samples, and its p-value.

    The p-value is Kolmogorov's limit for large samples, which is too large for small ones.

    Args:
        weights: of the first sample, with the sum 1; None: all are equal.
    """
    order = np.argsort(first, kind="stable")
    one, two = first[order], np.sort(second)
    both = np.concatenate([one, two])
    weights = np.full(len(one), 1 / len(one)) if weights is None else weights[order]
    sums = np.concatenate([[0.0], np.cumsum(weights)])
    shares = sums[np.searchsorted(one, both, side="right")], np.searchsorted(two, both, side="right") / len(two)
    distance = float(np.abs(shares[0] - shares[1]).max())
    size = 1 / float((weights**2).sum())  # Kish's effective size
    scaled = distance * (size * len(two) / (size + len(two))) ** 0.5
    if scaled < 0.2:  # the series converges slowly, and its sum is 1 up to 10^-12
        return distance, 1.0
    terms = np.arange(1, _TERMS + 1)
    return distance, float(np.clip(2 * (-((-1.0) ** terms) * np.exp(-2 * (terms * scaled) ** 2)).sum(), 0, 1))


def _log_factorials(most: int) -> NDArray[np.float64]:
    """(most + 1,) the logarithms of 0!, 1!, ..."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
