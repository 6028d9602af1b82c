"""p-values, z-values and corrections, in natural-log space where a p-value could underflow.

``nlogp`` is the natural logarithm of p (never positive). Accuracy, measured against mpmath by
the tests: ``chi2_to_nlogp`` within 1e-13 relative for chi2 from 1e-12 to 1e8; ``nlogp_to_z``
within 1e-12 relative down to nlogp = -1e8, wherever z is above 0.01, and within 1e-15 absolute
where z is smaller than that.
"""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

FloatArray = npt.NDArray[np.float64]
Tail = Literal["one", "two"]
Method = Literal["indep", "negcorr"]

#: Smallest positive float64: p-values are clipped to it from below before taking logarithms.
SMALLEST_P = 5e-324


def _as_nlogp(nlogp: npt.ArrayLike) -> FloatArray:
    """Return ``nlogp`` as float64, refusing positive values (plain p-values by mistake)."""
    values = np.asarray(nlogp, dtype=np.float64)
    if np.any(values > 0):
        raise ValueError("nlogp is a natural logarithm of p and cannot be positive")
    return values


def _one_nlogp_to_z(nlogp: float, tail: Tail) -> float:
    """Return the z of one natural-log p-value; NaN stays NaN."""
    if math.isnan(nlogp):
        return math.nan
    log_tail_area = nlogp - math.log(2.0) if tail == "two" else nlogp
    return max(-float(special.ndtri_exp(log_tail_area)), 0.0)


def nlogp_to_z(nlogp: npt.ArrayLike, tail: Tail) -> FloatArray:
    """Unsigned z (same shape) of natural-log p. One-tailed z is floored at 0 (p > 0.5 gives 0)."""
    if tail not in ("one", "two"):
        raise ValueError(f"tail must be 'one' or 'two', got {tail!r}")
    values = _as_nlogp(nlogp)
    z = np.empty(values.shape, dtype=np.float64)
    for index in np.ndindex(values.shape):
        z[index] = _one_nlogp_to_z(float(values[index]), tail)
    return z


def p_to_z(p: npt.ArrayLike, tail: Tail) -> FloatArray:
    """Unsigned z (same shape) of p, clipped to [5e-324, 1] first. NaN stays NaN."""
    clipped = np.clip(np.asarray(p, dtype=np.float64), SMALLEST_P, 1.0)
    return nlogp_to_z(np.log(clipped), tail)


def _one_chi2_to_nlogp(chi2: float) -> float:
    """Natural log of erfc(sqrt(chi2 / 2)), by whichever form is accurate at this chi2."""
    if math.isnan(chi2):
        return math.nan
    y = math.sqrt(chi2 / 2.0)
    if y < 0.5:
        return math.log1p(-math.erf(y))
    if y < 20.0:  # erfc(20) is 5e-176: far from underflow
        return math.log(math.erfc(y))
    return math.log(2.0) + float(special.log_ndtr(-y * math.sqrt(2.0)))


def chi2_to_nlogp(chi2: npt.ArrayLike) -> FloatArray:
    """Natural-log upper-tail p (same shape) of a chi-square value with one degree of freedom."""
    values = np.asarray(chi2, dtype=np.float64)
    if np.any(values < 0):
        raise ValueError("chi2 cannot be negative")
    nlogp = np.empty(values.shape, dtype=np.float64)
    for index in np.ndindex(values.shape):
        nlogp[index] = _one_chi2_to_nlogp(float(values[index]))
    return nlogp


def fdr(nlogp: npt.ArrayLike, method: Method) -> FloatArray:
    """FDR-corrected natural-log p (voxel,): 'indep' is Benjamini-Hochberg, 'negcorr' -Yekutieli.

    NaN voxels are removed first, so they do not count as tests, and are NaN in the result.
    """
    if method not in ("indep", "negcorr"):
        raise ValueError(f"method must be 'indep' or 'negcorr', got {method!r}")
    values = _as_nlogp(nlogp)
    if values.ndim != 1:
        raise ValueError("nlogp must have one dimension")
    corrected = np.full(values.shape, np.nan)
    tested = [voxel for voxel in range(values.size) if not math.isnan(values[voxel])]
    n = len(tested)
    penalty = 0.0
    if method == "negcorr" and n > 0:
        penalty = math.log(math.fsum(1.0 / j for j in range(1, n + 1)))

    ascending = sorted(tested, key=lambda voxel: float(values[voxel]))
    running_minimum = 0.0  # a corrected p is at most 1
    for rank in range(n, 0, -1):
        voxel = ascending[rank - 1]
        q = float(values[voxel]) - math.log(rank / n) + penalty
        running_minimum = min(running_minimum, q)
        corrected[voxel] = running_minimum
    return corrected


def bonferroni(nlogp: npt.ArrayLike) -> FloatArray:
    """Bonferroni-corrected natural-log p (voxel,): times the number of non-NaN voxels, at most 1.

    NaN voxels are NaN in the result.
    """
    values = _as_nlogp(nlogp)
    if values.ndim != 1:
        raise ValueError("nlogp must have one dimension")
    n = sum(1 for value in values if not math.isnan(value))
    corrected = np.full(values.shape, np.nan)
    for voxel, value in enumerate(values):
        if not math.isnan(value):
            corrected[voxel] = min(float(value) + math.log(n), 0.0)
    return corrected


def corrected_z(nlogp_corrected: npt.ArrayLike, sign_source: npt.ArrayLike) -> FloatArray:
    """Signed z (voxel,): the two-tailed z of corrected p times the sign of ``sign_source``.

    ``sign_source`` (voxel,) is the uncorrected z map. Two-tailed whatever test p came from.
    """
    unsigned = nlogp_to_z(nlogp_corrected, "two")
    signs = np.sign(np.asarray(sign_source, dtype=np.float64))
    if signs.shape != unsigned.shape:
        raise ValueError(f"shapes differ: {unsigned.shape} and {signs.shape}")
    return unsigned * signs
