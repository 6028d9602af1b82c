"""What null maxima are compared with: the statistic, clusters and scores of the observed map."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from nimare_dask.kernels import clusters, difference, exceed
from nimare_dask.nulls.relocation import Relocation
from nimare_dask.nulls.subtraction import Subtraction

_FACES = ndimage.generate_binary_structure(3, 1)


def observed_measures(job: Relocation, maps: xr.Dataset) -> dict[str, NDArray[np.float64]]:
    """Everything that a null has maxima of, at each voxel.

    Parameters
    ----------
    job
        What the iterations were.
    maps
        A fitted result with ``stat``.

    Returns
    -------
    measures
        (voxel,) by inference; 0 for voxels in no cluster.
    """
    stat = maps["stat"].values
    measures = {"voxel": stat.astype(np.float64)}
    if job.stat_thresh is not None:
        measures["size"], measures["mass"] = _clusters(stat, job.mask, job.stat_thresh)
    if job.enhancement is not None:
        measures["tfce"] = enhanced(stat, job)
    return measures


def _clusters(
    stat: NDArray[np.float32], mask: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Size and mass of the cluster of each voxel, (voxel,)."""
    above = np.zeros(mask.shape, bool)
    above[mask] = stat.astype(np.float64) > threshold
    label = ndimage.label(above, _FACES)[0][mask]
    inside = label > 0
    excess = np.where(inside, stat.astype(np.float64) - threshold, 0.0)
    sizes = np.bincount(label).astype(np.float64)
    masses = np.bincount(label, excess)
    return np.where(inside, sizes[label], 0.0), np.where(inside, masses[label], 0.0)


def enhanced(stat: NDArray[np.float32], job: Relocation) -> NDArray[np.float64]:
    """Score of threshold-free cluster enhancement of each voxel, (voxel,)."""
    assert job.heights is not None
    reached = job.heights[np.isfinite(job.heights)]
    level = np.searchsorted(reached, stat.astype(np.float64), side="right")
    score = np.zeros(len(stat))
    for step in range(int(level.max(initial=0)), 0, -1):
        member = np.zeros(job.mask.shape, bool)
        member[job.mask] = level >= step
        label = ndimage.label(member, _FACES)[0][job.mask]
        extent = job.extent_powers[np.bincount(label)][label]
        score += np.where(label > 0, extent * job.height_weights[step], 0.0)
    return score


def chi2_measures(
    mask: NDArray[np.bool_], threshold: float | None, inference: str
) -> Callable[[NDArray[np.float32]], NDArray[np.float64]]:
    """Give a function from z (voxel,) to what `inference` compares, (voxel,).

    What iterations do in kernels.exceed: chi-square is the square of z as maps have it, and masses
    are whole numbers.
    """
    grid = clusters.grid_of(mask)
    room = clusters.room_for(grid)

    def measure(z: NDArray[np.float32]) -> NDArray[np.float64]:
        chi2 = z.astype(np.float64) ** 2
        if inference == "voxel":
            return chi2
        assert threshold is not None
        size, mass = _sizes_and_masses(chi2, threshold, exceed.MASS_SCALE, grid, room)
        return size if inference == "size" else mass

    return measure


def difference_measures(
    job: Subtraction, stat: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Everything that a null of ALE differences has maxima of, at each voxel, by inference."""
    values = stat.astype(np.float64)
    measures = {"voxel": np.abs(values)}
    if job.with_clusters:
        grid = clusters.grid_of(job.mask)
        room = clusters.room_for(grid)
        settings = (job.stat_thresh, difference.MASS_SCALE, grid, room)
        higher, lower = _sizes_and_masses(values, *settings), _sizes_and_masses(-values, *settings)
        measures["size"], measures["mass"] = higher[0] + lower[0], higher[1] + lower[1]
    return measures


def _sizes_and_masses(
    values: NDArray[np.float64],
    threshold: float,
    scale: float,
    grid: clusters.Grid,
    room: clusters.Room,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Size and mass of the cluster of each voxel, (voxel,); 0 for voxels in none."""
    voxels = np.flatnonzero(values > threshold).astype(np.int32)
    excess = np.rint((values[voxels] - threshold) * scale).astype(np.int64)
    size, mass = np.empty((2, len(voxels)), np.int64)
    clusters.cluster_of_each(voxels, excess, grid, room, size, mass)
    sizes, masses = np.zeros((2, len(values)))
    sizes[voxels], masses[voxels] = size, mass / scale
    return sizes, masses
