"""Corrections for many tests: false discovery rate and Bonferroni, in natural-log space."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nimare_dask.errors import SettingsError

FdrMethod = Literal["indep", "negcorr"]


def fdr_of_levels(
    nlogp: NDArray[np.float64], n_up_to: NDArray[np.integer], method: FdrMethod
) -> NDArray[np.float64]:
    """Correct distinct p values that stand in ascending order.

    Tests with the same p value share one corrected value, so a map of 228,483 voxels that holds
    20,000 distinct values needs the logarithms of 20,000.

    Parameters
    ----------
    nlogp
        Distinct natural-log p values, ascending, (level,).
    n_up_to
        Number of tests with a p value up to each level, (level,); the last is the number of tests.
    method
        ``indep`` (Benjamini-Hochberg) or ``negcorr`` (Benjamini-Yekutieli).

    Returns
    -------
    corrected
        Natural-log corrected p values, (level,).
    """
    n = float(n_up_to[-1])
    corrected = nlogp - np.log(n_up_to / n)
    if method == "negcorr":
        corrected += np.log(np.sum(1.0 / np.arange(1.0, n + 1.0)))
    elif method != "indep":
        raise SettingsError(f"method is {method!r}; expected 'indep' or 'negcorr'.")
    # A corrected value is the smallest of its own and of all those of larger p values.
    return np.minimum(np.minimum.accumulate(corrected[::-1])[::-1], 0.0)


def bonferroni(nlogp: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural-log p values times the number of tests, at most 0 (that is p = 1)."""
    corrected: NDArray[np.float64] = np.minimum(nlogp + np.log(nlogp.shape[-1]), 0.0)
    return corrected
