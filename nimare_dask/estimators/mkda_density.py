"""MKDA density: how many analyses are active within reach of a voxel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.activation import LocatedFoci
from nimare_dask.errors import SchemaError, SettingsError, shorten
from nimare_dask.estimators import one_sample
from nimare_dask.estimators.prepared import NullMethod, check_kernel
from nimare_dask.footprint import MKDAKernel, sample_sizes
from nimare_dask.kernels.overlay import pack_footprints
from nimare_dask.nulls import approximate
from nimare_dask.space import Space
from nimare_dask.statistic import Statistic, StudyValues, whole_numbers

#: How fixed-effects analyses are spelt.
_FIXED_EFFECTS = frozenset({"fixed", "ffx", "fixed-effects", "fixed effects", "fe"})


@dataclass(frozen=True, kw_only=True)
class StudyWeights:
    """How much each analysis counts: by its sample size, less for fixed-effects analyses.

    Parameters
    ----------
    transform
        What the sample size counts: ``"sqrt"`` its square root, ``"linear"`` itself, ``"none"``
        nothing (all 1).
    inference_field
        Variable of the corpus over ``analysis`` with the kind of inference; analyses that are
        ``fixed``, ``ffx``, ``fe``, ``fixed effects`` or ``fixed-effects`` are discounted.
    fixed_effects_discount
        What their weight is multiplied by.
    on_missing
        What to do about analyses without a sample size: ``"raise"``, or ``"impute"`` the mean
        weight of the others.

    References
    ----------
    Wager TD et al. (2009), doi:10.1016/j.neuroimage.2008.10.061.
    """

    transform: Literal["sqrt", "linear", "none"] = "sqrt"
    inference_field: str | None = None
    fixed_effects_discount: float = 0.75
    on_missing: Literal["raise", "impute"] = "raise"

    def __post_init__(self) -> None:
        if self.transform not in ("sqrt", "linear", "none"):
            raise SettingsError(
                f"transform is {self.transform!r}; expected 'sqrt', 'linear' or 'none'."
            )
        if self.on_missing not in ("raise", "impute"):
            raise SettingsError(f"on_missing is {self.on_missing!r}; expected 'raise' or 'impute'.")
        if not 0 < self.fixed_effects_discount <= 1:
            raise SettingsError(
                f"fixed_effects_discount is {self.fixed_effects_discount!r}; expected a number "
                "above 0 and up to 1."
            )

    def raw(self, corpus: xr.Dataset) -> NDArray[np.float64]:
        """Weights before they are scaled to a sum, (analysis,)."""
        n = corpus.sizes["analysis"]
        if self.transform == "none":
            weights = np.ones(n)
        elif self.on_missing == "raise":
            weights = self._of_sizes(
                sample_sizes(corpus, "weighting=StudyWeights(on_missing='impute')")
            )
        else:
            sizes = corpus.get("analysis_sample_size")
            known = np.full(n, np.nan) if sizes is None else sizes.values.astype(np.float64)
            if not (known > 0).any():
                raise SchemaError(
                    f"None of {n:,} analyses has a sample size, so there is no weight to impute; "
                    "use weighting=None."
                )
            weights = self._of_sizes(np.where(known > 0, known, np.nan))
        discounted = weights * self._discounts(corpus)
        return np.where(np.isnan(discounted), np.nanmean(discounted), discounted)

    def _of_sizes(self, sizes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.sqrt(sizes) if self.transform == "sqrt" else sizes

    def _discounts(self, corpus: xr.Dataset) -> NDArray[np.float64]:
        if self.inference_field is None:
            return np.ones(corpus.sizes["analysis"])
        if self.inference_field not in corpus:
            raise SchemaError(
                f"The corpus has no variable {self.inference_field!r} to tell fixed-effects "
                f"analyses by; it has {shorten([str(name) for name in corpus.data_vars], 12)}."
            )
        kinds = np.array(corpus[self.inference_field].values.tolist(), dtype=str)
        fixed = np.isin(np.char.strip(np.char.lower(kinds)), list(_FIXED_EFFECTS))
        return np.where(fixed, self.fixed_effects_discount, 1.0)


#: None or "uniform" for equal weights; "sample_size" for :class:`StudyWeights` as it is; or a
#: weight for each analysis by its id.
Weighting = Literal["uniform", "sample_size"] | StudyWeights | Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class MKDADensity:
    """Where more analyses have a focus within reach than if their foci fell anywhere.

    Parameters
    ----------
    kernel
        What a focus reaches.
    weighting
        None or ``"uniform"``: every analysis counts 1. ``"sample_size"``: the square root of its
        sample size. A :class:`StudyWeights`, or a mapping from analysis ids to weights. Weights are
        scaled so that their sum is the number of analyses.
    n_histogram_bins
        Bins of the null histogram when analyses have different weights.

    Notes
    -----
    The statistic is the (weighted) number of analyses with a focus within ``r`` mm. All inference
    is one-sided.

    References
    ----------
    Wager TD, Lindquist M, Kaplan L (2007), doi:10.1093/scan/nsm015.
    """

    kernel: MKDAKernel = field(default_factory=MKDAKernel)
    weighting: Weighting = None
    n_histogram_bins: int = 100_000

    references: ClassVar[tuple[str, ...]] = ("wager2007", "wager2009", "lancaster2007")
    fit = one_sample.fit

    def __post_init__(self) -> None:
        check_kernel(self, self.kernel, MKDAKernel, "MKDA counts analyses once at a voxel")
        known = (
            self.weighting in (None, "uniform", "sample_size")
            if isinstance(self.weighting, str | None)
            else isinstance(self.weighting, StudyWeights | Mapping)
        )
        if not known:
            raise SettingsError(
                f"weighting is {self.weighting!r}; expected None, 'uniform', 'sample_size', "
                "StudyWeights(...) or a mapping from analysis ids to weights."
            )
        if self.n_histogram_bins < 100:
            raise SettingsError(
                f"n_histogram_bins is {self.n_histogram_bins}; expected at least 100."
            )

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        weighting: Any = self.weighting
        if isinstance(weighting, StudyWeights):
            weighting = asdict(weighting)
        elif isinstance(weighting, Mapping):
            weighting = {str(name): float(value) for name, value in sorted(weighting.items())}
        return {
            "estimator": type(self).__name__,
            **self.kernel.settings(),
            "weighting": weighting,
            "n_histogram_bins": self.n_histogram_bins,
        }

    def weights(self, corpus: xr.Dataset) -> NDArray[np.float64]:
        """Weight of each analysis, whose sum is their number, (analysis,)."""
        n = corpus.sizes["analysis"]
        if self.weighting in (None, "uniform"):
            return np.ones(n)
        if isinstance(self.weighting, Mapping):
            raw = _weights_by_id(self.weighting, corpus["analysis_id"].values.tolist())
        elif isinstance(self.weighting, StudyWeights):
            raw = self.weighting.raw(corpus)
        else:
            raw = StudyWeights().raw(corpus)
        if (raw == raw[0]).all():
            return np.ones(n)
        weights: NDArray[np.float64] = n * raw / raw.sum()
        return weights

    def statistic(
        self, corpus: xr.Dataset, foci: LocatedFoci, space: Space, study: StudyValues
    ) -> Statistic:
        """Weighted number of analyses within reach."""
        (sphere,), _ = self.kernel.footprints(corpus, space)
        weights = self.weights(corpus)
        distinct, which = np.unique(weights, return_inverse=True)
        footprint_of = which.astype(np.int32)
        whole, scale, wide = whole_numbers([weight * sphere for weight in distinct], footprint_of)
        n = len(weights)
        return Statistic(
            footprints=pack_footprints(whole),
            footprint_of=footprint_of,
            union=True,
            scale=scale,
            wide=wide,
            probability=False,
            bins=np.arange(n + 1.0)
            if len(distinct) == 1
            else approximate.weighted_bins(weights, self.n_histogram_bins),
        )

    def approximate_null(
        self, corpus: xr.Dataset, study: StudyValues, statistic: Statistic, method: NullMethod
    ) -> NDArray[np.float64]:
        """Law of the weighted number of active analyses, (bin,)."""
        share = study.counts[:, 1] / study.n_voxels
        weights = self.weights(corpus)
        if (weights == 1).all():
            return approximate.poisson_binomial(share)
        return approximate.weighted_poisson_binomial(share, weights, statistic.bins)


def _weights_by_id(weights: Mapping[str, float], ids: list[str]) -> NDArray[np.float64]:
    missing = [name for name in ids if not weights.get(name, 0) > 0]
    if missing:
        raise SettingsError(
            f"weighting has no weight above 0 for {len(missing):,} of {len(ids):,} analyses "
            f"({shorten(missing)}); give one for each, or leave those analyses out."
        )
    return np.array([float(weights[name]) for name in ids])
