"""MKDA chi-square analysis, voxel by voxel, in exact rational arithmetic.

Counts are integers, so every probability and chi-square value is an exact fraction; each is
rounded once, to float64, at the end. Only square roots and tail areas are floating-point.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from .pvalues import chi2_to_nlogp

FloatArray = npt.NDArray[np.float64]

#: chi-square given to a table with an empty margin (a voxel active in no study, or in all).
DEGENERATE_CHI2 = Fraction(2)


def _as_counts(counts: npt.ArrayLike) -> list[int]:
    """Check that ``counts`` is (voxel,) of integers and return Python (unbounded) integers."""
    values = np.atleast_1d(np.asarray(counts))
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError("counts must be integers in one dimension")
    return [int(value) for value in values]


def _sign(value: Fraction) -> int:
    return (value > 0) - (value < 0)


def _floats(values: Sequence[Fraction | None]) -> FloatArray:
    """Fractions -> float64 (voxel,); ``None`` (0/0) becomes NaN."""
    return np.array([math.nan if value is None else float(value) for value in values])


def one_way(counts: npt.ArrayLike, n: int) -> FloatArray:
    """Uniformity chi-square (voxel,) of ``counts`` (voxel,) of active studies out of ``n``.

    The expected count is the mean over voxels; 0 everywhere if it is 0 or ``n``.
    """
    observed = _as_counts(counts)
    expected = Fraction(sum(observed), len(observed))
    chi2 = []
    for x in observed:
        if expected * (n - expected) == 0:
            chi2.append(Fraction(0))
        else:
            # (x - e)^2 / e for the active studies, plus the same for the n - x inactive ones.
            active = (x - expected) ** 2 / expected
            inactive = ((n - x) - (n - expected)) ** 2 / (n - expected)
            chi2.append(active + inactive)
    return _floats(chi2)


def two_way(a: npt.ArrayLike, b: npt.ArrayLike, n_a: int, n_b: int) -> FloatArray:
    """Association chi-square (voxel,) of ``a`` of ``n_a`` studies active against ``b`` of ``n_b``.

    No continuity correction; 2.0 where a margin of the table is empty.
    """
    chi2 = []
    n = n_a + n_b
    for x, y in zip(_as_counts(a), _as_counts(b), strict=True):
        denominator = (x + y) * (n - x - y) * n_a * n_b
        if denominator == 0:
            chi2.append(DEGENERATE_CHI2)
        else:
            chi2.append(Fraction(n * (x * n_b - y * n_a) ** 2, denominator))
    return _floats(chi2)


def _statistic_maps(name: str, chi2: FloatArray, signs: Sequence[int]) -> dict[str, FloatArray]:
    """Return the z, chi2, p and logp (-log10 p) maps (voxel,) of one test."""
    nlogp = chi2_to_nlogp(chi2)
    return {
        f"z_desc-{name}": np.sqrt(chi2) * np.array(signs, dtype=np.float64),
        f"chi2_desc-{name}": chi2,
        f"p_desc-{name}": np.exp(nlogp),
        f"logp_desc-{name}": np.abs(nlogp) / math.log(10.0),  # nlogp <= 0; abs avoids -0.0
    }


def _signs_against_mean(counts: list[int]) -> list[int]:
    """Sign of each count minus the mean over voxels."""
    mean = Fraction(sum(counts), len(counts))
    return [_sign(count - mean) for count in counts]


def mkda_chi2(
    active_selected: npt.ArrayLike, active_unselected: npt.ArrayLike, prior: float = 0.5
) -> dict[str, FloatArray]:
    """All MKDA chi-square maps, each (voxel,) float64, keyed by name.

    ``active_selected`` and ``active_unselected`` are bool (analysis, voxel), each with at least
    one analysis. p is not clipped: it is 0 where float64 underflows (logp stays finite).
    """
    selected = np.asarray(active_selected)
    unselected = np.asarray(active_unselected)
    for group in (selected, unselected):
        if group.dtype != np.bool_ or group.ndim != 2 or 0 in group.shape:
            raise ValueError("groups must be non-empty bool arrays of shape (analysis, voxel)")
    if selected.shape[1] != unselected.shape[1]:
        raise ValueError("groups must have the same voxels")

    n_f, n_u = len(selected), len(unselected)
    a_f = [int(np.count_nonzero(column)) for column in selected.T]
    a_u = [int(np.count_nonzero(column)) for column in unselected.T]

    p_f = Fraction(n_f, n_f + n_u)
    pi = Fraction(prior)
    p_a: list[Fraction] = []
    p_agf: list[Fraction] = []
    p_agu: list[Fraction] = []
    p_fga: list[Fraction | None] = []
    p_a_prior: list[Fraction] = []
    p_fga_prior: list[Fraction | None] = []
    for x, y in zip(a_f, a_u, strict=True):
        a = Fraction(x + y, n_f + n_u)
        agf = Fraction(x, n_f)
        agu = Fraction(y, n_u)
        a_prior = pi * agf + (1 - pi) * agu
        p_a.append(a)
        p_agf.append(agf)
        p_agu.append(agu)
        p_fga.append(agf * p_f / a if a != 0 else None)
        p_a_prior.append(a_prior)
        p_fga_prior.append(pi * agf / a_prior if a_prior != 0 else None)

    maps = {
        "prob_desc-A": _floats(p_a),
        "prob_desc-AgF": _floats(p_agf),
        "prob_desc-group1": _floats(p_agf),
        "prob_desc-AgU": _floats(p_agu),
        "prob_desc-group2": _floats(p_agu),
        "prob_desc-FgA": _floats(p_fga),
        "prob_desc-AgF_prior": _floats(p_a_prior),
        "prob_desc-FgA_prior": _floats(p_fga_prior),
    }
    chi2_f = one_way(a_f, n_f)
    chi2_u = one_way(a_u, n_u)
    chi2_association = two_way(a_f, a_u, n_f, n_u)
    signs_association = [_sign(f - u) for f, u in zip(p_agf, p_agu, strict=True)]
    maps |= _statistic_maps("uniformity", chi2_f, _signs_against_mean(a_f))
    maps |= _statistic_maps("group1", chi2_f, _signs_against_mean(a_f))
    maps |= _statistic_maps("group2", chi2_u, _signs_against_mean(a_u))
    maps |= _statistic_maps("association", chi2_association, signs_association)
    return maps
