"""The difference of two ALE maps, tested by analyses that change groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from nimare_dask import results
from nimare_dask.errors import SchemaError
from nimare_dask.estimators.ale import ALE, union_statistic
from nimare_dask.estimators.prepared import check_kernel, refuse_difference, source_of
from nimare_dask.estimators.two_groups import Gates, Pooled, gates_of, pool
from nimare_dask.footprint import ALEKernel
from nimare_dask.nulls.label_permutation import label_permutation_null
from nimare_dask.nulls.stored import job_of
from nimare_dask.nulls.subtraction import Subtraction, threshold_of
from nimare_dask.provenance import plain, with_step
from nimare_dask.space import Space, load_space
from nimare_dask.stats import pz

EFFECT = "group1MinusGroup2"

_REFERENCES = ("laird2005", "eickhoff2012", "lancaster2007")
_MAPS = ("stat", "p", "z", "logp")

#: Where the difference is looked for when no threshold of clusters is asked for.
_SEARCH_SHARE = 0.001


@dataclass(frozen=True, kw_only=True)
class ALESubtraction:
    """Where two groups of analyses differ in how likely they report activation.

    Parameters
    ----------
    kernel
        What a focus stands for: a Gaussian.

    Notes
    -----
    The statistic is ALE of group 1 less ALE of group 2. Analyses are shuffled between the groups;
    p is twice the share of shuffles in which the difference is at least as high, or at most as
    high, whichever are fewer. The difference and everything that it is compared with are functions
    of sums of whole numbers, so that a shuffle which gives the same difference counts as such.

    References
    ----------
    Laird AR et al. (2005), doi:10.1002/hbm.20136.
    Eickhoff SB et al. (2012), doi:10.1016/j.neuroimage.2011.09.017.
    """

    kernel: ALEKernel = field(default_factory=ALEKernel)

    def __post_init__(self) -> None:
        check_kernel(self, self.kernel, ALEKernel, "ALE unites probabilities")

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"estimator": type(self).__name__, **self.kernel.settings()}

    def fit(
        self,
        group1: xr.Dataset,
        group2: xr.Dataset,
        *,
        space: Space | str = "mni152_2mm",
        n_iters: int = 5000,
        random_state: int | None = None,
        null: xr.Dataset | None = None,
        inference_map1: ArrayLike | None = None,
        inference_map2: ArrayLike | None = None,
    ) -> xr.Dataset:
        """Compare two groups of analyses, now.

        Parameters
        ----------
        group1, group2
            Corpora with no analysis in common. Analyses without foci do not count.
        space
            See :func:`~nimare_dask.space.load_space`.
        n_iters, random_state
            Of the shuffles that every voxel gets its p value from.
        null
            What :func:`~nimare_dask.label_permutation_null` gave for this estimator and these
            groups; its shuffles are used instead of new ones.
        inference_map1, inference_map2
            Where each group is active, (voxel,), such as its corrected main effect; voxels above 0
            count. With them the test is one-sided: whether group 1 is higher is asked where group 1
            is active, and likewise for group 2; everywhere else p is 1.

        Returns
        -------
        maps
            ``stat p z logp`` (effect, voxel), float32, for ``group1MinusGroup2``, and ``group1``
            and ``group2``, which are the maps of :class:`~nimare_dask.ALE` of each group.

        Raises
        ------
        SelectionError
            When a group has no foci, or the groups share an analysis.
        SchemaError
            When the null or an inference map belongs to something else, or analyses lack the
            sample size that the kernel needs.
        SettingsError
            When one inference map is given without the other, or none of their voxels is active.
        """
        space = load_space(space)
        gates = gates_of(inference_map1, inference_map2, space)
        pooled = pool(group1, group2, space)
        if null is None:
            null = label_permutation_null(
                self,
                group1,
                group2,
                space=space,
                n_iters=n_iters,
                voxel_thresh=None,
                random_state=random_state,
            )
        facts = pooled.facts()
        wanted = {"corpus": facts["corpus_digests"], "mask": space.digest, **self.settings()}
        refuse_difference(plain(wanted), source_of(null))
        job = job_of(null)
        if not isinstance(job, Subtraction):
            raise SchemaError("null is not one of label_permutation_null(ALESubtraction(...)).")
        maps = {name: np.empty((3, space.n_voxels), np.float32) for name in _MAPS}
        maps["stat"][0] = job.differences(job.table().observed)
        for name, values in _maps_of_counts(null, maps["stat"][0], gates).items():
            maps[name][0] = values
        for row, corpus in enumerate((group1, group2), start=1):
            main = ALE(kernel=self.kernel).fit(corpus, space=space)
            for name in _MAPS:
                maps[name][row] = main[name].values
        labels = np.array([EFFECT, "group1", "group2"], dtype=np.dtypes.StringDType())
        result = results.as_result(
            {name: (("effect", "voxel"), values) for name, values in maps.items()},
            space,
            {"effect": ("effect", labels)},
        )
        result.attrs["provenance"] = group1.attrs.get("provenance", "[]")
        settings = {name: null.attrs[name] for name in ("n_iters", "random_state")}
        return with_step(
            result,
            "ALESubtraction",
            settings={**self.settings(), **settings, "directional": gates is not None},
            references=_REFERENCES,
            **facts,
        )

    def permutation_job(
        self,
        pooled: Pooled,
        *,
        random_state: int,
        voxel_thresh: float | None,
        stat_thresh: float | None,
    ) -> Subtraction:
        """Iterations in which analyses change groups."""
        dense, which = pooled.footprints(self.kernel)
        job = Subtraction(
            # Bins are those of histograms, which a difference has none of.
            statistic=union_statistic(dense, which, np.zeros(1)),
            ijk=pooled.foci.ijk,
            n_foci=pooled.foci.n_foci,
            in_first=pooled.in_first,
            mask=pooled.space.mask,
            stat_thresh=0.0,
            with_clusters=stat_thresh is not None or voxel_thresh is not None,
            random_state=random_state,
        )
        if stat_thresh is None:
            stat_thresh = threshold_of(job, voxel_thresh or _SEARCH_SHARE)
        return job.with_threshold(stat_thresh)


def _maps_of_counts(
    null: xr.Dataset,
    stat: NDArray[np.float32],
    gates: Gates | None,
) -> dict[str, NDArray[np.float64]]:
    """Maps ``p z logp`` from the numbers of shuffles at least and at most as high, (voxel,)."""
    up, low = (null[name].values.astype(np.int64) for name in ("null_up", "null_low"))
    n = null.sizes["iteration"]
    if gates is None:
        sign, count, tail = np.sign(low - up), 2 * np.minimum(up, low), "two"
    else:
        higher, lower = gates[0] & (stat > 0), gates[1] & (stat < 0)
        sign = higher.astype(np.int64) - lower
        count, tail = np.where(higher, up, np.where(lower, low, n)), "one"
    nlogp = pz.p_to_nlogp(np.clip(count / n, 1 / n, 1.0))
    z = pz.nlogp_to_z(nlogp, "two" if tail == "two" else "one")
    return {"p": pz.nlogp_to_p(nlogp), "z": sign * z, "logp": pz.nlogp_to_logp(nlogp)}
