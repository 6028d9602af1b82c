"""Specific coactivation likelihood estimation (SCALE): ALE against where foci are reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from nimare_dask import results
from nimare_dask.errors import SettingsError
from nimare_dask.estimators.ale import ale_statistic
from nimare_dask.estimators.one_sample import maps_of_bins
from nimare_dask.estimators.prepared import NullMethod, Prepared, check_kernel, source_of
from nimare_dask.footprint import ALEKernel
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.provenance import digest_values, with_step
from nimare_dask.space import Space, load_space, mm_to_voxel
from nimare_dask.statistic import Statistic, StudyValues


@dataclass(frozen=True, kw_only=True, eq=False)
class SCALE:
    """Where more analyses report activation than if their foci fell where foci are reported.

    Studies report some places more often than others, whatever they are about. In SCALE foci fall
    on a pool of reported foci instead of anywhere in the brain, so such places count as chance.

    Parameters
    ----------
    xyz
        The pool, in mm, (focus, 3); a place that is there twice is drawn twice as often. Such as
        all foci of a database: :func:`foci_pool`.
    kernel
        What a focus stands for: a Gaussian.

    References
    ----------
    Langner R et al. (2014), doi:10.1016/j.neuroimage.2014.06.007.
    """

    xyz: ArrayLike
    kernel: ALEKernel = field(default_factory=ALEKernel)

    references: ClassVar[tuple[str, ...]] = ("langner2014", "eickhoff2012", "lancaster2007")
    statistic = ale_statistic

    def __post_init__(self) -> None:
        check_kernel(self, self.kernel, ALEKernel, "SCALE unites probabilities")
        points = np.asarray(self.xyz, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) == 0:
            raise SettingsError(
                f"xyz has shape {points.shape}; expected points in mm, (focus, 3), one at least."
            )
        if not np.isfinite(points).all():
            raise SettingsError("xyz has values that are not numbers; expected points in mm.")
        object.__setattr__(self, "xyz", points)

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance; the pool as its size and digest."""
        points = np.asarray(self.xyz)
        pool = {"n_pool": len(points), "pool_digest": digest_values(points)}
        return {"estimator": type(self).__name__, **self.kernel.settings(), **pool}

    def fit(
        self,
        corpus: xr.Dataset,
        *,
        space: Space | str = "mni152_2mm",
        n_iters: int = 5000,
        random_state: int | None = None,
        null: xr.Dataset | None = None,
    ) -> xr.Dataset:
        """Fit one group of analyses, now.

        Parameters
        ----------
        corpus
            A corpus; analyses without foci do not count.
        space
            See :func:`~nimare_dask.space.load_space`.
        n_iters, random_state
            Of the iterations that give every voxel its p value.
        null
            What :func:`~nimare_dask.nulls.monte_carlo.monte_carlo_null` gave for this estimator and
            corpus; its iterations are used instead of new ones.

        Returns
        -------
        maps
            ``stat p z logp`` (voxel), float32; p is the share of iterations at least as high.
        """
        space = load_space(space)
        if null is None:
            null = monte_carlo_null(
                self, corpus, space=space, n_iters=n_iters, random_state=random_state
            )
        prepared = Prepared(self, corpus, space)
        prepared.refuse_other(self, space, source_of(null))
        sums = prepared.observed_sums(space)
        reaching = null["null_reaching"].values
        n = null.sizes["iteration"]
        # A number of iterations takes few values, so z is computed of those.
        p_of_count = np.maximum(np.arange(n + 1), 1) / n
        maps = maps_of_bins(p_of_count, reaching.astype(np.int32))
        result = results.as_result(
            {
                "stat": ("voxel", prepared.statistic.values(sums)),
                **{name: ("voxel", values) for name, values in maps.items()},
            },
            space,
            {},
        )
        result.attrs["provenance"] = corpus.attrs.get("provenance", "[]")
        settings = {**self.settings(), "n_iters": n, "random_state": null.attrs["random_state"]}
        return with_step(
            result,
            "SCALE",
            settings=settings,
            references=self.references,
            **prepared.facts(corpus, space),
        )

    def approximate_null(
        self, corpus: xr.Dataset, study: StudyValues, statistic: Statistic, method: NullMethod
    ) -> NDArray[np.float64]:
        """SCALE has none: every voxel has a null of its own."""
        raise SettingsError("SCALE has no approximate null; every voxel has a null of its own.")

    def pool(self, space: Space) -> NDArray[np.int32]:
        """Voxel indices that foci fall on, (place, axis)."""
        far = np.iinfo(np.int16)
        ijk = mm_to_voxel(np.asarray(self.xyz), space.affine)
        return np.ascontiguousarray(ijk.clip(far.min, far.max), np.int32)
