"""Real studies and estimators that both packages are given, fitted once for all tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.estimators.ale import ALE
from nimare_dask.estimators.kda import KDA
from nimare_dask.estimators.mkda_density import MKDADensity, StudyWeights
from nimare_dask.footprint import ALEKernel, KDAKernel, MKDAKernel
from nimare_dask.space import Space, load_space
from tests.parity.agreement import Estimator, n_active, stat_error
from tests.parity.peer import peer_space, quiet
from tests.parity.peer_cbma import (
    Arrays,
    Kind,
    corpus_of,
    peer_fit,
    peer_module,
    wheel_studyset,
    with_sample_sizes,
)

#: Kinds of inference of the 21 analyses of pain, as people spell them.
INFERENCE = ["ffx", "RFX", "Fixed Effects", "mixed", "fe", "random", "FIXED"] * 3


@dataclass(frozen=True)
class Case:
    """An estimator of both sides, and the studies that it gets."""

    studyset: str
    kind: Kind
    estimator: Estimator
    kernel: dict[str, Any] = field(default_factory=dict)
    weighting: Any = None
    #: Voxels whose statistic is so near the edge of a bin that they may be beyond it.
    most: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What ``peer_fit`` and ``peer_iterations`` take."""
        return {**self.kernel, **({} if self.weighting is None else {"weighting": self.weighting})}


@dataclass(frozen=True)
class Fitted:
    """Both sides' fit of a case."""

    ours: xr.Dataset
    maps: Arrays
    nulls: Arrays
    result: Any
    error: NDArray[np.float64]  # of the statistic, (voxel,)


def ale(**kernel: float) -> ALE:
    """With these settings of the kernel."""
    return ALE(kernel=ALEKernel(**kernel))


SIZE_20: dict[str, Any] = {"sample_size": 20}
_DISCOUNTED: dict[str, Any] = {
    "transform": "linear",
    "inference_field": "inference",
    "fixed_effects_discount": 0.6,
}

#: A weight for each analysis of pain.
GIVEN = {f"pain_{number:02d}.nidm-1": 1.0 + number % 4 for number in range(1, 22)}

CASES = {
    "pain ale": Case("pain", "ale", ale(), most=5),
    "pain ale of 20": Case("pain", "ale", ale(**SIZE_20), SIZE_20, most=5),
    "pain ale of 8 mm": Case("pain", "ale", ale(fwhm=8.0), {"fwhm": 8.0}, most=5),
    "pain mkda": Case("pain", "mkda", MKDADensity()),
    "pain mkda of 6 mm": Case("pain", "mkda", MKDADensity(kernel=MKDAKernel(r=6)), {"r": 6}),
    "pain mkda by size": Case(
        "pain", "mkda", MKDADensity(weighting="sample_size"), weighting="sample_size", most=5
    ),
    "pain mkda discounted": Case(
        "pain inference",
        "mkda",
        MKDADensity(weighting=StudyWeights(**_DISCOUNTED)),
        weighting=_DISCOUNTED,
        most=5,
    ),
    "pain mkda imputed": Case(
        "pain gaps",
        "mkda",
        MKDADensity(weighting=StudyWeights(on_missing="impute")),
        weighting={"on_missing": "impute"},
        most=5,
    ),
    "pain mkda of weights": Case(
        "pain",
        "mkda",
        MKDADensity(weighting=GIVEN),
        weighting={"source": GIVEN},
        most=5,
    ),
    "pain kda": Case("pain", "kda", KDA()),
    "pain kda of 4 mm": Case("pain", "kda", KDA(kernel=KDAKernel(r=4)), {"r": 4}),
    "laird ale": Case("laird", "ale", ale(**SIZE_20), SIZE_20, most=5),
    "laird mkda": Case("laird", "mkda", MKDADensity()),
    "laird kda": Case("laird", "kda", KDA()),
    "nback part ale": Case("nback part", "ale", ale(**SIZE_20), SIZE_20, most=10),
    "nback ale": Case("nback_flanker", "ale", ale(**SIZE_20), SIZE_20, most=400),
    "nback mkda": Case("nback_flanker", "mkda", MKDADensity()),
    "nback kda": Case("nback_flanker", "kda", KDA()),
}


@cache
def space() -> Space:
    """Our mask, which the peer gets too."""
    return load_space("mni152_2mm")


@cache
def peer_mask(name: str = "mni152_2mm") -> Space:
    """The peer's own mask."""
    return peer_space(name)


@cache
def studies(name: str) -> tuple[Any, xr.Dataset]:
    """A studyset of the wheel or what is made of one, and its corpus."""
    if name == "nback part":  # of every space
        whole, corpus = studies("nback_flanker")
        chosen = corpus["analysis_id"].values[::15].astype(object).tolist()
        with quiet():
            part = whole.slice(chosen)
        return part, corpus_of(part)
    if name.startswith("pain "):
        return _pain(name)
    studyset = wheel_studyset(name)
    return studyset, corpus_of(studyset)


def _pain(name: str) -> tuple[Any, xr.Dataset]:
    studyset, corpus = studies("pain")
    if name == "pain inference":
        values = np.full(studyset.store.n_analyses, None, dtype=object)
        values[studyset.view.index] = INFERENCE
        store = peer_module("studyset").with_metadata(studyset.store, "inference", values)
        named = ("analysis", np.array(INFERENCE, dtype=np.dtypes.StringDType()))
        return studyset._with_store(store), corpus.assign(inference=named)
    sizes = {
        "pain gaps": [[], [25], [30], [], [17]],  # sample sizes that are not known
        "pain fractions": [[12, 13], [25], [20, 21, 21], [9, 10], [14]],  # means of more than one
    }[name]
    listed = [sizes[i % 5] for i in range(len(studyset.ids))]
    changed = with_sample_sizes(studyset, listed)
    return changed, corpus_of(changed)


@cache
def fitted(name: str) -> Fitted:
    """Both sides' fit with the approximate null."""
    case = CASES[name]
    studyset, corpus = studies(case.studyset)
    ours = case.estimator.fit(corpus, space=space())
    maps, nulls, result = peer_fit(case.kind, studyset, space(), **case.settings)
    return Fitted(ours, maps, nulls, result, error_of(case, corpus, maps["stat"]))


def error_of(case: Case, corpus: xr.Dataset, stat: Any, where: Space | None = None) -> Any:
    """How far the statistic of the reported foci may be from the peer's, (voxel,)."""
    where = where or space()
    return stat_error(case.estimator, corpus, where, stat, n_active(case.estimator, corpus, where))


def smallest_weight(case: Case, corpus: xr.Dataset) -> float:
    """Of an analysis."""
    estimator = case.estimator
    return float(estimator.weights(corpus).min()) if isinstance(estimator, MKDADensity) else 1.0
