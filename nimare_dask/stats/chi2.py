"""Maps of the MKDA chi-square from counts of active analyses, for many groups at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nimare_dask.kernels.chi2 import association_z, uniformity_z
from nimare_dask.stats import pz

Map = Literal["z", "chi2", "p", "logp"]
MAPS: tuple[Map, ...] = ("z", "chi2", "p", "logp")

#: Chi-square where no analysis or every analysis is active: NiMARE's convention. z is 0 there.
DEGENERATE_CHI2 = 2.0


def is_degenerate(n_active: NDArray[np.integer], n: int) -> NDArray[np.bool_]:
    """Voxels at which no analysis or every analysis is active: the table has an empty margin."""
    degenerate: NDArray[np.bool_] = (n_active == 0) | (n_active == n)
    return degenerate


def association(
    counts: NDArray[np.int32], *, n_selected: NDArray[np.int64], n: int, name: Map
) -> NDArray[np.float32]:
    """One map of the 2 x 2 chi-square, (group, voxel).

    Parameters
    ----------
    counts
        Active analyses, (voxel, group + 1): those of each group, and last those of all.
    n_selected
        Analyses of each group, (group,).
    n
        Analyses in all.
    name
        ``z``, ``chi2``, ``p`` or ``logp``.
    """
    if name == "z":
        return association_z(counts, n_selected, n, np.float32)
    z = association_z(counts, n_selected, n)
    return _from_z(z, name, is_degenerate(counts[:, -1], n))


def uniformity(
    counts: NDArray[np.int32],
    *,
    n_selected: NDArray[np.int64],
    expected: NDArray[np.float64],
    name: Map,
) -> NDArray[np.float32]:
    """One map of the chi-square against `expected` (group,) active analyses, (group, voxel).

    Parameters
    ----------
    counts
        Active analyses, (voxel, group + 1): those of each group, and last those of all.
    n_selected
        Analyses of each group, (group,).
    expected
        Mean over the mask of the active analyses of each group, (group,).
    name
        ``z``, ``chi2``, ``p`` or ``logp``.
    """
    groups = counts[:, :-1]
    if name == "z":
        return uniformity_z(groups, expected, n_selected, np.float32)
    return _from_z(uniformity_z(groups, expected, n_selected), name, None)


def _from_z(
    z: NDArray[np.float64], name: Map, degenerate: NDArray[np.bool_] | None
) -> NDArray[np.float32]:
    out = np.empty(z.shape, np.float32)
    for row, values in zip(out, z, strict=True):  # a row at a time: no float64 copies of a block
        chi2 = values**2
        if degenerate is not None:
            chi2[degenerate] = DEGENERATE_CHI2
        if name == "chi2":
            row[:] = chi2
        elif name == "p":
            row[:] = pz.nlogp_to_p(pz.chi2_to_nlogp(chi2))
        else:
            row[:] = pz.nlogp_to_logp(pz.chi2_to_nlogp(chi2))
    return out


def probability_names(prior: float | None) -> tuple[str, ...]:
    """Which probability maps there are."""
    return ("A", "AgF", "AgU", "FgA") + (() if prior is None else ("AgF_prior", "FgA_prior"))


def probability(
    counts: NDArray[np.int32],
    *,
    n_selected: NDArray[np.int64],
    n: int,
    prior: float | None,
    name: str,
) -> NDArray[np.float32]:
    """One probability map, (group, voxel); NaN where it is not defined because nothing is active.

    A is being active, F being in the group, U not being in it; ``AgF`` is A given F. ``AgF_prior``
    is the probability of being active when F has the probability `prior`, and ``FgA_prior`` that
    of F given A then.
    """
    n_first = n_selected[:, None].astype(np.float64)
    active, n_active = counts[:, :-1].T, counts[:, -1]
    if name == "A":
        return np.broadcast_to((n_active / n).astype(np.float32), active.shape)
    p_if, p_unless = active / n_first, (n_active - active) / (n - n_first)
    with np.errstate(invalid="ignore", divide="ignore"):
        if name == "AgF":
            wanted = p_if
        elif name == "AgU":
            wanted = p_unless
        elif name == "FgA":
            wanted = p_if * (n_first / n) / (n_active / n)
        elif prior is not None:
            wanted = prior * p_if + (1 - prior) * p_unless
            if name == "FgA_prior":
                wanted = prior * p_if / wanted
    return wanted.astype(np.float32)
