"""The difference of two ALE maps of groups of different size, by way of subsets of one size."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import xarray as xr
from numpy.random import PCG64, SeedSequence
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.activation import foci_of, values_of_union
from nimare_dask.errors import SettingsError
from nimare_dask.estimators.ale import union_statistic
from nimare_dask.estimators.prepared import check_kernel
from nimare_dask.estimators.two_groups import Pooled, pool
from nimare_dask.footprint import ALEKernel
from nimare_dask.kernels import prefixes
from nimare_dask.nulls.jobs import STEPS, Job
from nimare_dask.nulls.label_permutation import facts_of
from nimare_dask.nulls.mean_difference import MeanDifference, NullMethod
from nimare_dask.nulls.scheme import check_asked, is_whole, run, seed_of
from nimare_dask.nulls.subsets import Activation, Surviving
from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.places import AnyPath, make_folder, place
from nimare_dask.provenance import with_step
from nimare_dask.space import Coverage, Space, load_space
from nimare_dask.stats import pz

EFFECT = "balancedGroup1MinusGroup2"

#: Subsets up to which all of them are taken, in order.
_ALL_SUBSETS = 10_000


@dataclass(frozen=True, kw_only=True)
class BalancedALESubtraction:
    """Where groups of different size differ, compared by random subsets of the same size.

    Parameters
    ----------
    kernel
        What a focus stands for: a Gaussian.
    target_n
        Analyses of a subset; those of the smaller group by default.
    n_subsamples
        Subsets of each group in which clusters are looked for.
    difference_iterations
        Pairs of subsets whose difference is averaged.
    null_method
        ``"random-foci"``: foci of both groups fall anywhere; ``"label-permutation"``: analyses
        change groups.
    coverage
        Where differences are looked for and foci fall: ``"gm"``, grey matter of the mask, or
        ``"brain"``, the mask.
    voxel_thresh
        Uncorrected p that voxels of clusters of a subset are below.
    alpha
        Error rate of clusters of a subset, and of the difference (two-sided).

    References
    ----------
    Frahm L, Hoffstaedter F, et al.: the balanced contrast of the software JALE.
    Eickhoff SB et al. (2012), doi:10.1016/j.neuroimage.2011.09.017.
    """

    kernel: ALEKernel = field(default_factory=ALEKernel)
    target_n: int | None = None
    n_subsamples: int = 2500
    difference_iterations: int = 1000
    null_method: NullMethod = "random-foci"
    coverage: Coverage = "gm"
    voxel_thresh: float = 0.001
    alpha: float = 0.05

    def __post_init__(self) -> None:
        check_kernel(self, self.kernel, ALEKernel, "ALE unites probabilities")
        for name in ("n_subsamples", "difference_iterations", "target_n"):
            value = getattr(self, name)
            if name == "target_n" and value is None:
                continue
            if not (is_whole(value) and value >= 1):
                raise SettingsError(f"{name} is {value!r}; expected a whole number of at least 1.")
        if self.null_method not in ("random-foci", "label-permutation"):
            raise SettingsError(
                f"null_method is {self.null_method!r}; expected 'random-foci' or "
                "'label-permutation'."
            )
        if self.coverage not in ("brain", "gm"):
            raise SettingsError(f"coverage is {self.coverage!r}; expected 'brain' or 'gm'.")
        for name in ("voxel_thresh", "alpha"):
            if not 0 < getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)!r}; expected a p value.")

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        kept = {
            each.name: getattr(self, each.name) for each in fields(self) if each.name != "kernel"
        }
        return {"estimator": type(self).__name__, **self.kernel.settings(), **kept}

    def fit(
        self,
        group1: xr.Dataset,
        group2: xr.Dataset,
        *,
        space: Space | str = "mni152_2mm",
        n_iters: int = 1000,
        random_state: int | None = None,
        store: str | AnyPath | None = None,
        report: Report | None = None,
    ) -> xr.Dataset:
        """Compare two groups of analyses, now.

        Parameters
        ----------
        group1, group2
            Corpora with no analysis in common. Analyses without foci do not count.
        space
            See :func:`~nimare_dask.load_space`.
        n_iters
            Iterations of the null of the difference, and of that of cluster sizes.
        random_state
            Seed. Without one a seed is drawn, which the result keeps.
        store
            A folder for the stores of five kinds of iterations, to go on from when interrupted.
        report
            Called with the number of iterations that are done and of all, kind after kind.

        Returns
        -------
        maps
            ``stat p z logp`` (effect, voxel) of ``balancedGroup1MinusGroup2``: the mean difference
            of ALE of subsets (0 outside of where differences are looked for), and where it is
            beyond `alpha` of the null its p and z; elsewhere p is 1 and z is 0. ``stat`` of
            ``conjunction`` is the smaller of the two ``prob`` (probability, voxel), ``group1`` and
            ``group2``: the share of subsets in which a voxel is in a cluster larger than by chance.

        Raises
        ------
        SelectionError
            When a group has no foci, or the groups share an analysis.
        SettingsError
            When a group has fewer analyses than `target_n`.
        """
        space = load_space(space)
        check_asked(n_iters=n_iters, voxel_thresh=self.voxel_thresh, random_state=random_state)
        pooled = pool(group1, group2, space)
        target_n = min(pooled.sizes) if self.target_n is None else int(self.target_n)
        if target_n > min(pooled.sizes):
            raise SettingsError(
                f"target_n is {target_n:,}, and the groups have {pooled.sizes[0]:,} and "
                f"{pooled.sizes[1]:,} analyses with foci; expected no more than the smaller has."
            )
        first_store = None if store is None else place(store) / "sizes1.zarr"
        seed = seed_of(random_state, first_store)
        facts = facts_of("BalancedALESubtraction", self, pooled.facts(), group1)

        def iterate(name: str, job: Job, count: int) -> xr.Dataset:
            path = None if store is None else place(store) / f"{name}.zarr"
            if path is not None:
                make_folder(path.parent)
            return run(job, facts, n_iters=count, batch=None, store=path, report=report)

        prob, larger_than = [], []
        for number, group in enumerate((pooled.in_first, ~pooled.in_first)):
            activation = self._activation(pooled, np.flatnonzero(group), space.mask)
            common: dict[str, Any] = {
                "activation": activation,
                "target_n": target_n,
                "z_thresh": float(pz.nlogp_to_z(np.log(np.float64(self.voxel_thresh)), "one")),
                "random_state": seed + number,
            }
            by_chance = Surviving(pool=space.pool(self.coverage), **common)
            sizes = iterate(f"sizes{number + 1}", by_chance, n_iters)["null_max"].values
            # A whole size must not fall short of itself by rounding.
            share = 100 * (1 - self.alpha)
            larger_than.append(round(float(np.percentile(sizes, share)), 9))
            subsets = subset_schedule(
                len(activation.n_foci), target_n, self.n_subsamples, seed + number
            )
            job = Surviving(
                subsets=subsets, larger_than=larger_than[-1], step=STEPS["fit"], **common
            )
            # More iterations by chance may move the size, and then clusters are counted anew.
            name = f"subsets{number + 1}-larger-than-{larger_than[-1]:g}"
            found = iterate(name, job, len(subsets))
            prob.append(found["null_surviving"].values / len(subsets))
        prior = space.mask if self.coverage == "brain" else space.mask & space.grey_matter
        everyone = np.arange(pooled.foci.n_analyses)
        null_job = MeanDifference(
            activation=self._activation(pooled, everyone, prior),
            in_first=pooled.in_first,
            target_n=target_n,
            n_draws=self.difference_iterations,
            null_method=self.null_method,
            random_state=seed,
            step=STEPS["difference"],
        )
        null = iterate("difference", null_job, n_iters)["null_max"].values
        inside = prior[space.mask]
        maps = self._difference(null_job.mean(None), null, inside)
        stat = np.stack([maps.pop("stat"), np.minimum(*prob)]).astype(np.float32)
        nothing = {"p": np.nan, "z": np.nan, "logp": np.nan}
        both = np.array([EFFECT, "conjunction"], dtype=np.dtypes.StringDType())
        groups = np.array(["group1", "group2"], dtype=np.dtypes.StringDType())
        result = results.as_result(
            {
                "stat": (("effect", "voxel"), stat),
                **{
                    name: (
                        ("effect", "voxel"),
                        np.stack([values, np.full_like(values, nothing[name])]),
                        {"effects": [EFFECT]},
                    )
                    for name, values in maps.items()
                },
                "prob": (("probability", "voxel"), np.stack(prob).astype(np.float32)),
            },
            space,
            {"effect": ("effect", both), "probability": ("probability", groups)},
        )
        result.attrs["provenance"] = group1.attrs.get("provenance", "[]")
        return with_step(
            result,
            "BalancedALESubtraction",
            settings={**self.settings(), "target_n": target_n, "n_iters": int(n_iters)}
            | {"random_state": seed, "larger_than": larger_than},
            references=("jale", "eickhoff2012"),
            **pooled.facts(),
        )

    def _activation(
        self, pooled: Pooled, analyses: NDArray[np.intp], mask: NDArray[np.bool_]
    ) -> Activation:
        """Some of the pooled analyses, for maps over a mask."""
        dense, which = pooled.footprints(self.kernel)
        values, steps = values_of_union(dense)
        return Activation(
            statistic=union_statistic(dense, which[analyses], np.zeros(1)),
            values=values,
            steps=steps,
            ijk=pooled.foci.ijk[foci_of(pooled.foci.n_foci, analyses)],
            n_foci=pooled.foci.n_foci[analyses],
            mask=mask,
        )

    def _difference(
        self, observed: NDArray[np.float64], null: NDArray[np.float64], inside: NDArray[np.bool_]
    ) -> dict[str, NDArray[np.float32]]:
        """Maps of the difference over all voxels, of which some are `inside`."""
        n = len(null)
        p, sign = np.ones(len(observed)), np.zeros(len(observed))
        for column, direction in ((0, 1.0), (1, -1.0)):
            beyond = direction * observed > np.percentile(
                null[:, column], 100 * (1 - self.alpha / 2)
            )
            ascending = np.sort(null[:, column])
            reached = n - np.searchsorted(ascending, direction * observed[beyond], side="left")
            p[beyond], sign[beyond] = np.maximum(reached, 1) / n, direction
        nlogp = pz.p_to_nlogp(p)
        values = {
            "stat": observed,
            "p": pz.nlogp_to_p(nlogp),
            "z": sign * pz.nlogp_to_z(nlogp, "one"),
            "logp": pz.nlogp_to_logp(nlogp),
        }
        maps = {}
        for name, found in values.items():
            maps[name] = np.full(len(inside), 1 if name == "p" else 0, np.float32)
            maps[name][inside] = found
        return maps


def subset_schedule(n: int, size: int, n_subsets: int, random_state: int) -> NDArray[np.int32]:
    """Distinct subsets of so many of `n` analyses, (subset, analysis), in order.

    Subsets that leave one analysis out are all taken; others are all taken when there are no more
    than asked for, up to 10,000; else so many are drawn.
    """
    n_all = comb(n, size)
    if size == n - 1 or n_all <= min(n_subsets, _ALL_SUBSETS):
        rows = list(combinations(range(n), size))
        # Leaving out the first analysis comes first.
        return np.array(rows[::-1] if size == n - 1 else rows, np.int32)
    found: set[tuple[int, ...]] = set()
    iteration = 0
    while len(found) < min(n_subsets, n_all):
        seeds = SeedSequence(random_state, spawn_key=(STEPS["fit"], iteration))
        order = np.arange(n, dtype=np.int32)
        prefixes.shuffle(PCG64(seeds).random_raw(size), order)
        found.add(tuple(np.sort(order[:size]).tolist()))
        iteration += 1
    return np.array(sorted(found), np.int32)
