"""p values from null distributions: histograms of all voxels, and maxima of iterations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

#: Null maxima that a generalised Pareto tail is fitted to, at most and at least.
_MOST_EXCEEDANCES = 250
_FEWEST_EXCEEDANCES = 30
#: With as many null maxima reached, or more, their share is p.
_FEW = 10


def tail_of(weights: ArrayLike) -> NDArray[np.float64]:
    """Share of a histogram in each bin and those above it, (bin,); the first is 1."""
    weights = np.asarray(weights, dtype=np.float64)
    tail = np.cumsum((weights / weights.sum())[::-1])[::-1]
    shares: NDArray[np.float64] = tail / tail.max()
    return shares


def p_of_bins(weights: ArrayLike) -> NDArray[np.float64]:
    """One-sided p value of a statistic in each bin, (bin,).

    Bins beyond the last that the null reached have the smallest p that it has, never 0.
    """
    tail = tail_of(weights)
    p: NDArray[np.float64] = np.clip(tail, tail[tail > 0].min(), 1.0)
    return p


def threshold_bin(weights: ArrayLike, p: float) -> int:
    """Find the last bin whose tail is above `p`; the last bin of all when every tail is.

    A statistic strictly above the centre of that bin has a p value of at most `p`.
    """
    at_most = np.flatnonzero(tail_of(weights) <= p)
    if at_most.size == 0:
        return int(np.size(weights)) - 1
    return max(0, int(at_most[0]) - 1)


def p_of_maxima(values: ArrayLike, null: ArrayLike) -> NDArray[np.float64]:
    """Share of null maxima that are at least each value, and at least one of them.

    Parameters
    ----------
    values
        Any shape.
    null
        Maxima of null iterations, (iteration,).
    """
    ascending = np.sort(np.asarray(null, dtype=np.float64).ravel())
    n_below = np.searchsorted(ascending, np.asarray(values, dtype=np.float64), side="left")
    p: NDArray[np.float64] = np.maximum(ascending.size - n_below, 1) / ascending.size
    return p


def p_of_maxima_with_tail(values: ArrayLike, null: ArrayLike) -> NDArray[np.float64]:
    """As :func:`p_of_maxima`, but with fewer than ten exceedances from a generalised Pareto tail.

    The tail is fitted by maximum likelihood to the largest tenth of the null, at most 250 maxima.
    When it does not fit (Anderson-Darling test at 5 %), fewer are tried, down to 30; when none fits
    the empirical p stays. A fitted shape below 0 would say that larger maxima cannot be, and give p
    values of nothing beyond: the tail is exponential then.

    Notes
    -----
    Measured with Gumbel maxima, whose law is known (5,000 iterations, 200 repetitions): at a true p
    of 1e-4 the estimate is within a factor of 2 in 80 % of repetitions and of 5 in all; at 1e-5
    within 2 in 57 % and within 5 in 91 % (5th to 95th percentile of estimate / true: 0.46 to 7.8).
    ``tests/stats/test_empirical.py`` repeats it.

    References
    ----------
    Knijnenburg TA et al. (2009), doi:10.1093/bioinformatics/btp211.
    Winkler AM et al. (2016), doi:10.1016/j.neuroimage.2016.05.068.
    """
    p = np.atleast_1d(p_of_maxima(values, null))
    shape = np.shape(values)
    ascending = np.sort(np.asarray(null, dtype=np.float64).ravel())
    found = np.atleast_1d(np.asarray(values, dtype=np.float64))
    n_reached = ascending.size - np.searchsorted(ascending, found, side="left")
    rare = n_reached < _FEW
    tail = _fit_tail(ascending) if rare.any() else None
    if tail is not None:
        start, share, fitted = tail
        beyond = share * fitted.sf(found[rare] - start)
        # The tail goes on from where ten maxima are reached, so larger values never have larger p.
        p[rare] = np.clip(beyond, np.finfo(np.float64).tiny, _FEW / ascending.size)
    return p.reshape(shape)


def _fit_tail(ascending: NDArray[np.float64]) -> tuple[float, float, Any] | None:
    """Where the tail begins, the share of the null in it, and its law; None when none fits."""
    n = ascending.size
    count = min(_MOST_EXCEEDANCES, n // 10)
    while count >= _FEWEST_EXCEEDANCES:
        start = (ascending[n - count] + ascending[n - count - 1]) / 2
        excess = ascending[n - count :] - start
        if excess[0] > 0:
            shape, _, scale = stats.genpareto.fit(excess, floc=0.0)
            fitted = stats.genpareto(shape, scale=scale)
            if _anderson_darling(fitted.cdf(excess)) < _CRITICAL:
                if shape < 0:
                    fitted = stats.expon(scale=excess.mean())
                return float(start), count / n, fitted
        count = int(count * 0.8)
    return None


#: 5 % point of the Anderson-Darling statistic of a generalised Pareto law with both parameters
#: fitted and a shape near 0 (Choulakian and Stephens 2001, table 2).
_CRITICAL = 1.074


def _anderson_darling(uniform: NDArray[np.float64]) -> float:
    """Anderson-Darling statistic of values that should be uniform, ascending."""
    n = uniform.size
    inside = np.clip(uniform, 1e-12, 1 - 1e-12)
    odd = 2 * np.arange(1, n + 1) - 1
    return float(-n - (odd * (np.log(inside) + np.log1p(-inside[::-1]))).sum() / n)
