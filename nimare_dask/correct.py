"""Corrections for testing every voxel, from p values alone."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.kernels.levels import look_up
from nimare_dask.parallel.shapes import apply_to_whole_maps
from nimare_dask.provenance import steps, with_step
from nimare_dask.schema import describe
from nimare_dask.stats import chi2, pz
from nimare_dask.stats.chi2 import is_degenerate
from nimare_dask.stats.multiple import FdrMethod, fdr_of_levels

_CORRECTED = ("p", "z", "logp")
_REFERENCES = {"indep": "benjamini1995", "negcorr": "benjamini2001"}

Source = Literal["z", "chi2", "logp", "p"]


def correct_fdr(maps: xr.Dataset, *, method: FdrMethod = "indep") -> xr.Dataset:
    """Control the false discovery rate over the voxels of each map.

    Parameters
    ----------
    maps
        A result with ``z`` and one of ``chi2``, ``logp`` or ``p``; or the ``z`` of a chi-square
        result with ``n_active``.
    method
        ``"indep"``: Benjamini-Hochberg, for independent or positively dependent tests (what
        NiMARE and Neurosynth use); ``"negcorr"``: Benjamini-Yekutieli, for any dependence.

    Returns
    -------
    maps
        With ``p_fdr_<method>``, ``z_fdr_<method>`` and ``logp_fdr_<method>``, float32, of the dims
        of ``z``; lazy where ``maps`` is. z is two-sided with the sign of the uncorrected z, as in
        NiMARE, also for one-sided statistics. Voxels that are NaN stay NaN and do not count.

    Raises
    ------
    SchemaError
        When there is nothing to take p values from.
    SettingsError
        For a method that is not known, or maps in blocks of voxels too large to turn in memory.

    References
    ----------
    Benjamini Y, Hochberg Y (1995), doi:10.1111/j.2517-6161.1995.tb02031.x.
    Benjamini Y, Yekutieli D (2001), doi:10.1214/aos/1013699998.
    """
    if method not in _REFERENCES:
        raise SettingsError(f"method is {method!r}; expected 'indep' or 'negcorr'.")
    results.check(maps)
    if "z" not in maps:
        raise SchemaError("The result has no map z, whose sign a corrected z needs; keep z in it.")
    kind, arrays, about = _p_source(maps)
    corrected = {
        f"{output}_fdr_{method}": (
            maps["z"].dims,
            apply_to_whole_maps(_correct_block, *arrays, kind=kind, method=method, output=output),
            about,
        )
        for output in _CORRECTED
    }
    return with_step(
        describe(maps.assign(corrected)),
        "correct_fdr",
        settings={"method": method},
        makes=list(corrected),
        references=[_REFERENCES[method]],
    )


def _p_source(maps: xr.Dataset) -> tuple[Source, list[Any], dict[str, Any]]:
    """What p values are taken from, with z last, and the effects that have any (see results)."""
    z = maps["z"]
    fit = next((step for step in steps(maps)[::-1] if "n_analyses" in step), {})
    n = None if fit.get("directional") else fit.get("n_analyses")
    if n is not None and "n_active" in maps.coords and "effect" in maps.coords:
        # z is the signed root of chi-square, so one array has both. Only where a table had an
        # empty margin is chi-square not the square of z.
        empty = maps["n_active"].copy(data=is_degenerate(maps["n_active"].data, n))
        degenerate = empty & (maps["effect"] == "association")
        once = {dim: 1 for dim in z.dims if dim not in degenerate.dims}
        return "z", [degenerate.expand_dims(once).transpose(*z.dims).data, z.data], {}
    for name in ("chi2", "logp", "p"):
        if name in maps:
            about = {key: maps[name].attrs[key] for key in ("effects",) if key in maps[name].attrs}
            return name, [maps[name].data, z.data], about
    raise SchemaError(
        f"The result has none of chi2, logp and p to take p values from (it has "
        f"{', '.join(map(str, maps.data_vars))}); keep one of them when saving."
    )


def _correct_block(
    first: NDArray[Any], z: NDArray[np.float32], *, kind: Source, method: FdrMethod, output: str
) -> NDArray[np.float32]:
    """Correct maps (..., voxel) one after the other."""
    first = np.broadcast_to(first, z.shape)
    out = np.empty(z.shape, np.float32)
    values, ascending = np.empty((2, z.shape[-1]), np.float32)  # the room of one map, used again
    for place in np.ndindex(z.shape[:-1]):
        if kind == "z":
            np.square(z[place], out=values)
            values[first[place]] = chi2.DEGENERATE_CHI2
        else:
            np.abs(first[place], out=values)  # a p value of -0 would sort apart from 0
        ascending[:] = values
        ascending.sort()
        _correct_map(values, ascending, kind, method, output, out[place])
        if output == "z":
            np.sign(z[place], out=values)
            out[place] *= values
    return out


def _correct_map(
    values: NDArray[np.float32],
    ascending: NDArray[np.float32],
    kind: Source,
    method: FdrMethod,
    output: str,
    out: NDArray[np.float32],
) -> None:
    """Correct one map, given also in ascending order, into `out`."""
    # Counts are integers, so a map holds few distinct values: sort once, then work on those.
    ascending = ascending[: np.searchsorted(ascending, np.nan)]  # NaN sorts last
    n = len(ascending)
    if n == 0:
        out[:] = np.nan
        return
    last = np.append(np.flatnonzero(ascending[1:] != ascending[:-1]), n - 1)
    levels = ascending[last]
    if kind == "p":
        corrected = fdr_of_levels(pz.p_to_nlogp(levels), last + 1, method)
    else:
        # The largest value has the smallest p: count from above.
        to_nlogp = pz.logp_to_nlogp if kind == "logp" else pz.chi2_to_nlogp
        n_at_least = n - np.append(0, last[:-1] + 1)
        corrected = fdr_of_levels(to_nlogp(levels[::-1]), n_at_least[::-1], method)[::-1]
    look_up(values, levels, _outputs(corrected, output), out)


def _outputs(nlogp: NDArray[np.float64], output: str) -> NDArray[np.float32]:
    """Turn corrected levels, which are in order and repeat, into what is asked for."""
    ends = np.append(np.flatnonzero(nlogp[1:] != nlogp[:-1]), len(nlogp) - 1)
    distinct = nlogp[ends]
    if output == "z":
        values = pz.nlogp_to_z(distinct, "two")
    else:
        values = pz.nlogp_to_p(distinct) if output == "p" else pz.nlogp_to_logp(distinct)
    return np.repeat(values.astype(np.float32), np.diff(ends, prepend=-1))


def correct_bonferroni(maps: xr.Dataset) -> xr.Dataset:
    """Control the family-wise error rate by multiplying p values by the number of voxels.

    Parameters
    ----------
    maps
        As for :func:`correct_fdr`.

    Returns
    -------
    maps
        With ``p_bonferroni``, ``z_bonferroni`` and ``logp_bonferroni``, float32, of the dims of
        ``z``. z is two-sided with the sign of the uncorrected z, as in NiMARE, also for one-sided
        statistics. Voxels that are NaN stay NaN and do not count.

    Raises
    ------
    SchemaError
        When there is nothing to take p values from.
    """
    results.check(maps)
    if "z" not in maps:
        raise SchemaError("The result has no map z, whose sign a corrected z needs; keep z in it.")
    kind, arrays, about = _p_source(maps)
    corrected = {
        f"{output}_bonferroni": (
            maps["z"].dims,
            apply_to_whole_maps(_bonferroni_block, *arrays, kind=kind, output=output),
            about,
        )
        for output in _CORRECTED
    }
    return with_step(describe(maps.assign(corrected)), "correct_bonferroni", makes=list(corrected))


def _bonferroni_block(
    first: NDArray[Any], z: NDArray[np.float32], *, kind: Source, output: str
) -> NDArray[np.float32]:
    """Correct maps (..., voxel)."""
    if kind == "z":
        values = np.where(first, chi2.DEGENERATE_CHI2, z.astype(np.float64) ** 2)
        nlogp = pz.chi2_to_nlogp(values)
    else:
        to_nlogp = {"chi2": pz.chi2_to_nlogp, "logp": pz.logp_to_nlogp, "p": pz.p_to_nlogp}[kind]
        nlogp = to_nlogp(np.abs(first))
    n = np.sum(~np.isnan(nlogp), axis=-1, keepdims=True)
    corrected = np.minimum(nlogp + np.log(np.maximum(n, 1)), 0.0)
    if output == "z":
        return np.asarray(pz.nlogp_to_z(corrected, "two") * np.sign(z), np.float32)
    turn = pz.nlogp_to_p if output == "p" else pz.nlogp_to_logp
    return turn(corrected).astype(np.float32)
