"""Counting active analyses at every voxel, for many groups at once, as a graph.

What every chi-square rests on: how many analyses of a group, and how many of all, are active at a
voxel. A task rebuilds the activation of its voxels from the foci and counts all groups in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack

from nimare_dask.activation import LocatedFoci, index_foci
from nimare_dask.footprint import MKDAKernel
from nimare_dask.kernels import coverage, targets
from nimare_dask.parallel import shapes
from nimare_dask.space import Space

Groups = tuple[NDArray[np.int64], NDArray[np.int32]]

#: Groups that hold at least this share of the analyses, on average, are counted from a table with a
#: column for each (0.25 s for 64 groups of Neurosynth, whatever their sizes); smaller and fewer
#: ones from the list of the groups of each analysis (8 s times the share).
TABLE_SHARE, TABLE_GROUPS = 1 / 32, 8


@dataclass(frozen=True)
class Counting:
    """One job of counting; its graph nodes are shared by all blocks.

    Attributes
    ----------
    foci
        Foci in voxels of `space`.
    kernel
        What a focus reaches.
    space
        The voxels.
    """

    foci: LocatedFoci
    kernel: MKDAKernel
    space: Space

    @cached_property
    def _index(self) -> Any:
        return shapes.call_once(
            index_foci,
            self.foci.ijk,
            self.foci.n_foci,
            self.kernel.footprint(self.space),
            self.space.shape,
        )

    @cached_property
    def _runs(self) -> Any:
        return shapes.call_once(_all_runs, self._index, shapes.share(self.space.voxel_ijk))

    @cached_property
    def _n_active(self) -> Any:
        return shapes.call_once(
            _count_everyone, self._runs, shapes.share(self.space.voxel_ijk), self.space.shape[2]
        )

    def by_voxel(self, membership: csr_matrix, chunk: int) -> Any:
        """Active analyses of each group, and last of all: lazy, (voxel, group + 1).

        Parameters
        ----------
        membership
            Boolean and sparse, (analysis, group).
        chunk
            Voxels of a block; each block rebuilds its activation.
        """
        groups, n_groups = _with_everyone(membership)
        return shapes.map_voxels(
            _count_block,
            self.space.voxel_ijk,
            n_columns=n_groups,
            dtype=np.int32,
            chunk=chunk,
            focus_index=self._index,
            groups=shapes.share(groups),
            n_groups=n_groups,
        )

    def by_group(self, membership: csr_matrix) -> Any:
        """The same as one block of all voxels, from activation that all such blocks share.

        Parameters
        ----------
        membership
            Boolean and sparse, (analysis, group).

        Returns
        -------
        counts
            Lazy, (voxel, group + 1), one chunk: active analyses of each group, and last of all.
        """
        n_groups = membership.shape[1] + 1
        return shapes.map_voxels(
            _count_whole,
            self.space.voxel_ijk,
            n_columns=n_groups,
            dtype=np.int32,
            chunk=self.space.n_voxels,
            runs=self._runs,
            n_active=self._n_active,
            length=self.space.shape[2],
            membership=shapes.share(csr_matrix(membership)),
        )

    def expected(self, membership: csr_matrix) -> Any:
        """Mean over the mask of the active analyses of each group: one lazy value, (group,)."""
        return shapes.call_once(_expected, membership, self._extent, self.space.n_voxels)

    @cached_property
    def _extent(self) -> Any:
        return shapes.sum_over_voxels(
            _extent_block, self.space.voxel_ijk, chunk=shapes.VOXEL_CHUNK, focus_index=self._index
        )


def _with_everyone(membership: csr_matrix) -> tuple[Groups, int]:
    everyone = csr_matrix(np.ones((membership.shape[0], 1), bool))
    groups = csr_matrix(hstack([membership, everyone], format="csr"))
    return _ragged(groups), groups.shape[1]


def _ragged(groups: csr_matrix) -> Groups:
    return groups.indptr.astype(np.int64), groups.indices.astype(np.int32)


def _count_block(
    voxel_ijk: NDArray[np.int16], *, focus_index: coverage.FocusIndex, groups: Groups, n_groups: int
) -> NDArray[np.int32]:
    return coverage.count_active(focus_index, coverage.group_lines(voxel_ijk), *groups, n_groups)


def _count_whole(
    voxel_ijk: NDArray[np.int16],
    *,
    runs: coverage.Runs,
    n_active: NDArray[np.int32],
    length: int,
    membership: csr_matrix,
) -> NDArray[np.int32]:
    lines, (n_analyses, n_groups) = coverage.group_lines(voxel_ijk), membership.shape
    if n_groups >= TABLE_GROUPS and membership.nnz >= TABLE_SHARE * n_analyses * n_groups:
        counts = targets.count_table(runs, lines, length, membership.toarray(), n_groups + 1)
    else:
        groups = _ragged(membership)
        counts = coverage.count_from_runs(runs, lines, length, *groups, n_groups + 1)
    counts[:, -1] = n_active  # the same for every block, so it is counted once
    return counts


def _count_everyone(
    runs: coverage.Runs, voxel_ijk: NDArray[np.int16], length: int
) -> NDArray[np.int32]:
    n = int(runs.analysis.max()) + 1 if runs.analysis.size else 0
    each = (np.arange(n + 1, dtype=np.int64), np.zeros(n, np.int32))
    return coverage.count_from_runs(runs, coverage.group_lines(voxel_ijk), length, *each, 1)[:, 0]


def _all_runs(focus_index: coverage.FocusIndex, voxel_ijk: NDArray[np.int16]) -> coverage.Runs:
    return coverage.list_runs(focus_index, coverage.group_lines(voxel_ijk))


def _extent_block(
    voxel_ijk: NDArray[np.int16], *, focus_index: coverage.FocusIndex
) -> NDArray[np.int64]:
    return coverage.count_voxels(focus_index, coverage.group_lines(voxel_ijk))


def _expected(
    membership: csr_matrix, extent: NDArray[np.int64], n_voxels: int
) -> NDArray[np.float64]:
    # The mean count over voxels is the sum of the extents of the analyses, so no map is needed.
    total: NDArray[np.int64] = membership.T.astype(np.int64) @ extent
    return total / n_voxels
