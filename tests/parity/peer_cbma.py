"""The peer's one-sample estimators, ALE, MKDA density, KDA and SCALE, as an oracle.

They get our mask, and with `ijk=` our relocated foci in place of their own draws, so that every
map that comes of a Monte Carlo null can be compared value by value.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy import ndimage

from nimare_dask import corpus as nd_corpus
from nimare_dask.space import Space
from tests.parity.peer import image_of, quiet

Kind = Literal["ale", "mkda", "kda", "scale"]
Correction = Literal["bonferroni", "indep", "negcorr", "montecarlo"]
Arrays = dict[str, NDArray[Any]]

#: Module and name of each estimator.
ESTIMATORS: dict[Kind, tuple[str, str]] = {
    "ale": ("meta.cbma.ale", "ALE"),
    "mkda": ("meta.cbma.mkda", "MKDADensity"),
    "kda": ("meta.cbma.mkda", "KDA"),
    "scale": ("meta.cbma.ale", "SCALE"),
}

#: Where the peer's wheel has each studyset: a NIMADS file, or a folder of parquet files.
STUDYSETS = {
    "pain": "resources/nidm_pain_studyset.json",
    "laird": "resources/neurosynth_laird_studyset.json",
    "nback_flanker": "resources/nback_vs_flanker_studyset_2026-07",
    "neurostore": "resources/neurostore_parquet_studyset",
    "nimads": "tests/data/nimads_studyset.json",
    "nimads_sample_size": "tests/data/sample_size_nimads_studyset.json",
}


def peer_module(name: str = "") -> Any:
    """A module of the peer, imported when a test needs it."""
    with quiet():
        return importlib.import_module(f"nimare.{name}" if name else "nimare")


# studysets


def wheel_studyset(name: str, target: str | None = "mni152_2mm") -> Any:
    """A real studyset of the peer's wheel, by its name in STUDYSETS; without it a skip."""
    path = Path(peer_module().__file__).parent / STUDYSETS[name]
    if not path.exists():
        pytest.skip(f"the installed NiMARE has no {STUDYSETS[name]}")
    if path.is_dir():
        pytest.importorskip("pyarrow", reason=f"NiMARE reads {name} with pyarrow")
    with quiet():
        return peer_module("studyset").Studyset(str(path), target=target)


def with_sample_sizes(studyset: Any, sizes: Sequence[Sequence[int]]) -> Any:
    """The studyset with these sample sizes, a list for each of its `ids`; an empty one is unknown.

    The peer takes the mean of a list, which is the only way to a size that is no whole number.
    """
    values = np.full(studyset.store.n_analyses, None, dtype=object)
    for row, listed in zip(studyset.view.index.tolist(), sizes, strict=True):
        values[row] = list(listed) or None
    store = peer_module("studyset").with_metadata(studyset.store, "sample_sizes", values)
    return studyset._with_store(store)


def corpus_of(studyset: Any) -> xr.Dataset:
    """Our corpus of the analyses that have foci, in the order of their ids, as NiMARE has them.

    Coordinates and spaces are as reported; a focus without a space is `UNKNOWN`.
    """
    with quiet():
        foci = studyset.with_context(space=None).coordinates
        sizes = dict(zip(studyset.ids.tolist(), studyset.sample_sizes().tolist(), strict=True))
    foci = foci.iloc[np.argsort(foci["id"].to_numpy(str), kind="stable")]
    names, first, n_foci = np.unique(
        foci["id"].to_numpy(str), return_index=True, return_counts=True
    )
    codes, spaces = pd.factorize(foci["space"].astype(object).fillna("UNKNOWN"))
    corpus = nd_corpus.build(
        analysis_id=names,
        study_id=foci["study_id"].to_numpy(str)[first],
        n_foci=n_foci,
        xyz=foci[["x", "y", "z"]].to_numpy(np.float64),
        focus_space=codes,
        spaces=[str(space) for space in spaces],
    )
    known = np.array([sizes[name] for name in names.tolist()], dtype=np.float64)
    return corpus.assign(analysis_sample_size=("analysis", known))


# estimators and correctors


def peer_fit(
    kind: Kind,
    studyset: Any,
    space: Space,
    *,
    null_method: Literal["approximate", "montecarlo"] = "approximate",
    n_iters: int = 10,
    random_state: int = 0,
    weighting: str | Mapping[str, Any] | None = None,
    xyz: NDArray[np.float64] | None = None,
    ijk: Sequence[NDArray[Any]] | None = None,
    mask_coverage: Literal["brain", "gm"] = "brain",
    **kernel: Any,
) -> tuple[Arrays, Arrays, Any]:
    """Fit an estimator of the peer.

    Parameters
    ----------
    kind
        Which estimator. SCALE has no `null_method`: it always permutes.
    studyset
        What the peer analyses; it keeps the analyses that have foci.
    space
        Its mask, in the same order of voxels as ours.
    null_method, n_iters, random_state
        The uncorrected null; the seed is also that of a later correction.
    weighting
        MKDA only: a name such as ``"sample_size"``, or what StudyWeights takes.
    xyz
        SCALE only: the reference pool in mm of `space`, (point, 3).
    ijk
        Relocated foci of each iteration in place of the peer's draws, see :func:`fed`.
    mask_coverage
        Where the peer draws foci from.
    **kernel
        `r` and `value` of MKDA and KDA; `fwhm` or `sample_size` (an int) of ALE and SCALE.

    Returns
    -------
    maps, null_distributions, result
        Arrays by the peer's names, and its own result.
    """
    settings: dict[str, Any] = {f"kernel__{name}": value for name, value in kernel.items()}
    settings |= {"mask": image_of(space), "mask_coverage": mask_coverage, "n_cores": 1}
    settings |= {"random_state": random_state, "n_iters": n_iters if ijk is None else len(ijk)}
    if kind == "scale":
        # With foci from outside nothing is drawn from the pool, but the peer wants one.
        settings["xyz"] = np.zeros((1, 3)) if xyz is None and ijk is not None else xyz
    else:
        settings["null_method"] = null_method
    if weighting is not None:
        # The peer's other estimators would ignore it.
        assert kind == "mkda"
        if not isinstance(weighting, str):
            weighting = peer_module("meta.cbma.weights").StudyWeights(**weighting)
        settings["weighting"] = weighting
    module, name = ESTIMATORS[kind]
    with quiet(), fed(ijk):
        result = getattr(peer_module(module), name)(**settings).fit(studyset)
    return dict(result.maps), null_distributions(result), result


def peer_correct(
    result: Any,
    correction: Correction,
    *,
    n_iters: int = 10,
    voxel_thresh: float | None = None,
    vfwe_only: bool | None = None,
    ijk: Sequence[NDArray[Any]] | None = None,
) -> tuple[Arrays, Arrays]:
    """Correct a result of the peer.

    Parameters
    ----------
    result
        What :func:`peer_fit` returned; it stays as it is.
    correction
        Bonferroni, either FDR, or Monte Carlo FWE.
    n_iters, voxel_thresh, vfwe_only
        Of Monte Carlo; None is the peer's own default (0.001, and all three levels).
    ijk
        Relocated foci of each iteration in place of the peer's draws, see :func:`fed`.

    Returns
    -------
    maps, null_distributions
        The maps that the correction adds, and all null distributions after it: for Monte Carlo
        ``values_*_corr-fwe_method-montecarlo`` hold one value for each iteration.
    """
    correct = peer_module("correct")
    if correction == "montecarlo":
        corrector = correct.FWECorrector(
            method="montecarlo",
            n_iters=n_iters if ijk is None else len(ijk),
            n_cores=1,
            voxel_thresh=voxel_thresh,
            vfwe_only=vfwe_only,
        )
    elif correction == "bonferroni":
        corrector = correct.FWECorrector(method="bonferroni")
    else:
        corrector = correct.FDRCorrector(method=correction)
    with quiet(), fed(ijk):
        corrected = corrector.transform(result)
    added = {name: values for name, values in corrected.maps.items() if name not in result.maps}
    return added, null_distributions(corrected)


def null_distributions(result: Any) -> Arrays:
    """The null distributions of a result, by the peer's names."""
    found = result.estimator.null_distributions_
    return {name: np.array(values) for name, values in found.items()}


def peer_threshold(result: Any, p: float = 0.001) -> np.float64:
    """The statistic above which the peer forms clusters at an uncorrected `p`."""
    return np.float64(result.estimator._p_to_summarystat(p))


# single iterations


@contextmanager
def fed(
    ijk: Sequence[NDArray[Any]] | None, keep: list[NDArray[Any]] | None = None
) -> Iterator[None]:
    """While open, permutations of the peer take our foci, one array after the other.

    Only where the foci of an iteration lie is replaced, at the place where the peer makes a
    statistic map of them; all else is its own code. It fails when the peer asks for more or fewer
    iterations than there are, or for another number of foci.

    Parameters
    ----------
    ijk
        Voxel indices for each iteration, (focus, 3), foci in the order of the corpus; None changes
        nothing.
    keep
        Gets the statistic map of each iteration.
    """
    if ijk is None:
        yield
        return
    base, scale = peer_module("meta.cbma.base").CBMAEstimator, peer_module("meta.cbma.ale").SCALE
    of_foci, of_sample = base._compute_permutation_summarystat, scale._run_permutation
    waiting = iter(ijk)

    def take(n_foci: int) -> NDArray[np.int32]:
        foci = next(waiting, None)
        assert foci is not None, f"NiMARE runs more than {len(ijk)} iterations"
        assert foci.shape == (n_foci, 3), f"{foci.shape} where NiMARE has {n_foci} foci"
        return np.ascontiguousarray(foci, dtype=np.int32)

    def kept(values: NDArray[Any]) -> NDArray[Any]:
        if keep is not None:
            keep.append(values)
        return values

    def statistic(self: Any, iter_ijk: Any, iter_df: Any) -> NDArray[Any]:
        return kept(of_foci(self, take(len(iter_df)), iter_df))

    def run(
        self: Any,
        sampled_voxel_idx: Any,
        voxel_ijk: Any,
        iter_df: Any,
        permutation_args: Any = None,
    ) -> NDArray[Any]:
        foci = take(len(iter_df))
        return kept(of_sample(self, np.arange(len(foci)), foci, iter_df, permutation_args))

    with (
        patch.object(base, "_compute_permutation_summarystat", statistic),
        patch.object(scale, "_run_permutation", run),
    ):
        yield
    assert next(waiting, None) is None, f"NiMARE runs fewer than {len(ijk)} iterations"


@dataclass(frozen=True)
class Iterations:
    """What the peer makes of each relocation; cluster measures of SCALE are NaN."""

    max_stat: NDArray[np.float32]  # (iteration,)
    max_size: NDArray[np.float64]
    max_mass: NDArray[np.float64]  # before the peer stores it as float32
    stat: NDArray[np.float32]  # (iteration, voxel)


def peer_iterations(
    kind: Kind,
    studyset: Any,
    space: Space,
    ijk: Sequence[NDArray[Any]],
    threshold: float,
    **settings: Any,
) -> Iterations:
    """The peer's statistic map and its largest measures for each relocation of the foci.

    Parameters
    ----------
    kind, studyset, space
        As for :func:`peer_fit`.
    ijk
        Voxel indices for each iteration, (focus, 3), foci in the order of :func:`corpus_of`.
    threshold
        Clusters are of voxels whose statistic is above it.
    **settings
        Further ones of :func:`peer_fit`: the kernel and the weighting.
    """
    estimator = _fitted(kind, studyset, space, **settings)
    run = _iteration(kind, estimator, space, threshold)
    stat: list[NDArray[Any]] = []
    with quiet(), fed(ijk, stat):
        measures = [run(foci) for foci in ijk]
    largest, sizes, masses = zip(*measures, strict=True)
    assert {values.dtype for values in stat} == {np.dtype(np.float32)}
    return Iterations(
        np.array(largest, np.float32),
        np.array(sizes, np.float64),
        np.array(masses, np.float64),
        np.stack(stat),
    )


def peer_iteration_seconds(
    kind: Kind, studyset: Any, space: Space, n: int = 3, *, voxel_thresh: float = 0.001, **more: Any
) -> float:
    """Median time of an iteration of the peer's Monte Carlo FWE in one thread, after a first one.

    Foci are drawn beforehand: by the peer too, which draws those of all iterations at once.
    """
    estimator = _fitted(kind, studyset, space, **more)
    threshold = 0.0 if kind == "scale" else estimator._p_to_summarystat(voxel_thresh)
    run = _iteration(kind, estimator, space, threshold)
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(n + 1):
        rows = rng.integers(space.n_voxels, size=len(estimator.inputs_["coordinates"]))
        foci = np.ascontiguousarray(space.voxel_ijk[rows], dtype=np.int32)
        with quiet():
            begin = time.perf_counter()
            run(foci)
            seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds[1:]))


def _fitted(kind: Kind, studyset: Any, space: Space, **settings: Any) -> Any:
    # One draw is the cheapest null: it saves the fold of all studies' histograms.
    if kind == "scale":
        settings.setdefault("xyz", np.zeros((1, 3)))
    _, _, result = peer_fit(kind, studyset, space, null_method="montecarlo", n_iters=1, **settings)
    return result.estimator


def _iteration(
    kind: Kind, estimator: Any, space: Space, threshold: float
) -> Callable[[NDArray[Any]], tuple[float, float, float]]:
    """One iteration of the peer: foci to the largest statistic, cluster size and cluster mass."""
    frame = estimator.inputs_["coordinates"].drop(columns=["x", "y", "z"])
    if kind == "scale":
        arguments = estimator._prepare_permutation_args(frame)

        def run_scale(foci: NDArray[Any]) -> tuple[float, float, float]:
            stat = estimator._run_permutation(np.arange(len(foci)), foci, frame, arguments)
            return stat.max(), np.nan, np.nan

        return run_scale
    # A plain float would make the peer compare, and add up masses, in float32.
    fixed = {"voxel_thresh": np.float64(threshold), "mask_arr": space.mask, "vfwe_only": False}
    fixed |= {"conn": ndimage.generate_binary_structure(3, 1), "iter_df": frame}

    def run(foci: NDArray[Any]) -> tuple[float, float, float]:
        measures: tuple[float, float, float] = estimator._correct_fwe_montecarlo_permutation(
            foci, **fixed
        )
        return measures

    return run
