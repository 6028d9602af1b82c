"""p values, z scores and chi-square, in natural-log space so that no tail is lost."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erfcx, log_ndtr, ndtri_exp

from nimare_dask.errors import SettingsError

Tail = Literal["one", "two"]

#: Smallest positive float32; no stored p value is below it.
P_FLOOR = float(np.finfo(np.float32).smallest_subnormal)
_LN2 = float(np.log(2.0))
_LN10 = float(np.log(10.0))


def nlogp_to_z(nlogp: ArrayLike, tail: Tail = "two") -> NDArray[np.float64]:
    """Turn natural-log p values into z scores that are never negative.

    Two-tailed, z has the p value in both tails together; one-tailed, p above 0.5 gives 0.
    """
    values = np.minimum(np.asarray(nlogp, dtype=np.float64), 0.0)
    if tail not in ("one", "two"):
        raise SettingsError(f"tail is {tail!r}; expected 'one' or 'two'.")
    # p = 1 in two tails gives ln(1/2), whose quantile is 0 up to rounding.
    quantile = ndtri_exp(values - _LN2 if tail == "two" else values)
    z: NDArray[np.float64] = np.maximum(-quantile, 0.0)
    return z


def z_to_nlogp(z: ArrayLike, tail: Tail = "two") -> NDArray[np.float64]:
    """Turn z scores into natural-log p values; two-tailed the sign of z does not matter."""
    values = np.asarray(z, dtype=np.float64)
    if tail == "two":
        return _log_erfc(np.abs(values) / np.sqrt(2.0))
    if tail == "one":
        return np.asarray(log_ndtr(-values), dtype=np.float64)
    raise SettingsError(f"tail is {tail!r}; expected 'one' or 'two'.")


def chi2_to_nlogp(chi2: ArrayLike) -> NDArray[np.float64]:
    """Natural log of the upper tail of chi-square with one degree of freedom."""
    return _log_erfc(np.sqrt(np.asarray(chi2, dtype=np.float64) / 2.0))


def nlogp_to_p(nlogp: ArrayLike) -> NDArray[np.float64]:
    """Turn natural-log p values into p values, at least the smallest float32."""
    return np.clip(np.exp(np.asarray(nlogp, dtype=np.float64)), P_FLOOR, 1.0)


def nlogp_to_logp(nlogp: ArrayLike) -> NDArray[np.float64]:
    """Turn natural-log p values into -log10 p."""
    limit = float(np.finfo(np.float32).max)
    # Adding 0 makes 0 of the -0 that p = 1 gives.
    return np.clip(-np.asarray(nlogp, dtype=np.float64) / _LN10, 0.0, limit) + 0.0


def p_to_nlogp(p: ArrayLike) -> NDArray[np.float64]:
    """Turn p values into natural-log p values, at least that of the smallest float64."""
    return np.log(np.clip(np.asarray(p, dtype=np.float64), 5e-324, 1.0))


def p_to_z(p: ArrayLike, tail: Tail = "two") -> NDArray[np.float64]:
    """Turn p values into z scores that are never negative."""
    return nlogp_to_z(p_to_nlogp(p), tail)


def logp_to_nlogp(logp: ArrayLike) -> NDArray[np.float64]:
    """Turn -log10 p into natural-log p values."""
    return -_LN10 * np.asarray(logp, dtype=np.float64)


def _log_erfc(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # erfc(x) = erfcx(x) exp(-x^2): the scaled function is 0 for an infinite x only.
    with np.errstate(divide="ignore"):
        nlogp: NDArray[np.float64] = np.minimum(np.log(erfcx(x)) - x * x, 0.0)
    return nlogp
