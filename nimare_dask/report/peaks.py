"""Tables of peaks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr

from nimare_dask import results
from nimare_dask.io.nifti import get_map

if TYPE_CHECKING:
    import nibabel as nib

#: Columns of a table of peaks, after those that say which map it is.
COLUMNS = ["x", "y", "z", "peak_z", "cluster", "cluster_mm3"]


def significant_z(
    maps: xr.Dataset, *, effect: str, feature: str, corrected: str = "z_fdr_indep", q: float = 0.05
) -> nib.Nifti1Image:
    """The uncorrected z of one map where its corrected z passes `q`, and 0 elsewhere."""
    import nibabel as nib
    from scipy.stats import norm

    image = get_map(maps, "z", effect=effect, feature=feature)
    values = results.find_map(maps, corrected, effect=effect, feature=feature)
    limit = norm.isf(q / 2)
    keep = results.to_volume(maps, (np.abs(values) >= limit).astype(np.float32)) > 0
    return nib.Nifti1Image(np.where(keep, image.get_fdata(), 0).astype(np.float32), image.affine)


def peak_table(image: nib.Nifti1Image, *, cluster_voxels: int = 10) -> pd.DataFrame:
    """Peaks of the positive clusters of a thresholded image, the highest first.

    Parameters
    ----------
    image
        0 where it does not pass.
    cluster_voxels
        Voxels that a cluster must have.

    Returns
    -------
    table
        ``x y z`` in mm, ``peak_z``, ``cluster`` (1, 1a, ...) and ``cluster_mm3``, whose value is
        that of the whole cluster also for its subpeaks.
    """
    from nilearn.reporting import get_clusters_table

    positive = np.asarray(image.get_fdata())
    if not (positive > 0).any():
        return pd.DataFrame(columns=COLUMNS)
    smallest = float(positive[positive > 0].min())
    found = get_clusters_table(
        image, stat_threshold=smallest * (1 - 1e-6), cluster_threshold=cluster_voxels
    )
    found.columns = ["cluster", "x", "y", "z", "peak_z", "cluster_mm3"]
    size = pd.to_numeric(found["cluster_mm3"], errors="coerce").ffill()
    found["cluster_mm3"] = size.astype(int)
    found["peak_z"] = found["peak_z"].astype(float).round(2)
    table: pd.DataFrame = found.sort_values("peak_z", ascending=False)[COLUMNS]
    return table.reset_index(drop=True)


def write_tsv(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as tab-separated text."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(target, sep="\t", index=False)
    return target
