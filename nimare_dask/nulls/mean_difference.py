"""Iterations of the balanced contrast of ALE: the mean difference of subsets of two groups."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.kernels import difference, prefixes
from nimare_dask.nulls.jobs import Batch, below, own_fields, raw_numbers
from nimare_dask.nulls.subsets import Activation

NullMethod = Literal["random-foci", "label-permutation"]


@dataclass(frozen=True, kw_only=True)
class MeanDifference:
    """The mean difference of ALE of random subsets of two groups, of foci or groups by chance.

    Attributes
    ----------
    activation
        The analyses of both groups, the mask of which is where foci may fall.
    in_first
        Whether each analysis is of group 1, (analysis,).
    target_n
        Analyses of a subset.
    n_draws
        Pairs of subsets that are averaged; groups of `target_n` have one subset only.
    null_method
        What is left to chance.
    random_state, step
        Seed, and what the iterations are for.
    """

    activation: Activation
    in_first: NDArray[np.bool_]
    target_n: int
    n_draws: int
    null_method: NullMethod
    random_state: int
    step: int = 0

    @property
    def labels(self) -> dict[str, list[str]]:
        """What there is a maximum of: the difference, and the difference the other way round."""
        return {"inference": ["group1", "group2"]}

    @property
    def lengths(self) -> dict[str, int]:
        """Nothing adds up over iterations."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Settings that people are told."""
        names = ("target_n", "n_draws", "null_method")
        return {name: getattr(self, name) for name in names}

    @cached_property
    def pool(self) -> NDArray[np.int32]:
        """Voxel indices that foci fall on, (place, axis)."""
        return np.ascontiguousarray(np.argwhere(self.activation.mask), np.int32)

    def __getstate__(self) -> dict[str, Any]:
        return own_fields(self)

    def mean(self, iteration: int | None) -> NDArray[np.float64]:
        """The mean difference of an iteration, or the observed one, (voxel,)."""
        everyone = np.arange(len(self.in_first), dtype=np.int32)
        in_first, ijk = self.in_first, None
        # The observed difference has a stream of its own, before those of iterations.
        raw = raw_numbers(self, 0 if iteration is None else iteration + 1, self._n_numbers)
        if iteration is not None and self.null_method == "label-permutation":
            order = everyone.copy()
            prefixes.shuffle(raw[: len(order)], order)
            in_first = np.zeros(len(order), bool)
            in_first[order[: int(self.in_first.sum())]] = True
        elif iteration is not None:
            n_foci = int(self.activation.n_foci.sum())
            drawn = below(raw[:n_foci], np.uint64(len(self.pool))).astype(np.intp)
            ijk = self.pool[drawn]
        rest = raw[max(len(everyone), int(self.activation.n_foci.sum())) :]
        table = self._table(ijk)
        one = self._mean_ale(table, everyone[in_first], rest[: self._n_each])
        return one - self._mean_ale(table, everyone[~in_first], rest[self._n_each :])

    @property
    def _n_each(self) -> int:
        return self.n_draws * self.target_n

    @property
    def _n_numbers(self) -> int:
        n_foci = int(self.activation.n_foci.sum())
        return max(len(self.in_first), n_foci) + 2 * self._n_each

    def _table(self, ijk: NDArray[np.int32] | None) -> difference.Table:
        """Whole numbers of -ln(1 - activation) of each analysis."""
        first = np.append(0, np.cumsum(self.activation.n_foci))
        rows = (
            self.activation.sums(
                np.array([analysis]),
                None if ijk is None else ijk[first[analysis] : first[analysis + 1]],
            )
            for analysis in range(len(self.in_first))
        )
        table = difference.table_of(rows, self.activation.n_voxels)
        assert table is not None
        return table

    def _mean_ale(
        self,
        table: difference.Table,
        group: NDArray[np.int32],
        raw: NDArray[np.uint64],
    ) -> NDArray[np.float64]:
        """Mean of ALE over random subsets of a group, (voxel,)."""
        n_draws = self.n_draws if len(group) > self.target_n else 1
        subsets = np.empty((n_draws, self.target_n), np.int32)
        for draw in range(n_draws):
            members = group.copy()
            if len(group) > self.target_n:
                prefixes.shuffle(raw[draw * self.target_n : (draw + 1) * self.target_n], members)
            subsets[draw] = members[: self.target_n]
        survival = np.zeros(self.activation.n_voxels)
        difference.add_survival(table, subsets, self.activation.statistic.scale, survival)
        return 1 - survival / n_draws

    def run(self, start: int, stop: int) -> Batch:
        """Do iterations `start` to `stop`."""
        maxima = np.empty((stop - start, 2))
        for row, iteration in enumerate(range(start, stop)):
            mean = self.mean(iteration)
            maxima[row] = mean.max(), -mean.min()
        return Batch(maxima=maxima, sums={})

    def task_bytes(self) -> int:
        """About the memory of a running batch."""
        item = self.activation.statistic.sum_type.itemsize
        return (len(self.in_first) * item + 60) * self.activation.n_voxels + 8 * self._n_numbers

    def to_dataset(self) -> xr.Dataset:
        """All of it as one dataset, from which it can be made again."""
        variables, settings = self.activation.to_variables()
        variables["analysis_in_first"] = ("analysis", self.in_first)
        names = ("target_n", "n_draws", "null_method", "random_state", "step")
        settings |= {name: getattr(self, name) for name in names}
        return xr.Dataset(
            variables, attrs={"job": "mean difference", "job_settings": json.dumps(settings)}
        )

    @staticmethod
    def from_dataset(dataset: xr.Dataset) -> MeanDifference:
        """Make it again from what :meth:`to_dataset` gave."""
        told = json.loads(dataset.attrs["job_settings"])
        names = ("target_n", "n_draws", "null_method", "random_state", "step")
        return MeanDifference(
            activation=Activation.from_dataset(dataset, told),
            in_first=dataset["analysis_in_first"].values.astype(bool),
            **{name: told[name] for name in names},
        )
