"""Coactivation: where in the brain the analyses that activate a place are active too.

The meta-analytic coactivation of every voxel, or parcel: one selection of analyses for each place,
compared with the rest.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from nimare_dask import activation
from nimare_dask import corpus as _corpus
from nimare_dask.activation import LocatedFoci, index_foci
from nimare_dask.counting import Counting
from nimare_dask.errors import CorpusWarning, SelectionError, SettingsError, shorten
from nimare_dask.estimators.features import maps_of_features
from nimare_dask.estimators.mkda_chi2 import REFERENCES, MKDAChi2
from nimare_dask.estimators.two_groups import with_foci
from nimare_dask.footprint import MKDAKernel
from nimare_dask.kernels.coverage import group_lines
from nimare_dask.kernels.rows import list_rows
from nimare_dask.kernels.targets import reached_targets
from nimare_dask.provenance import with_step
from nimare_dask.space import Space, load_space
from nimare_dask.targets import Labels, Targets, as_targets


def coactivation(
    corpus: xr.Dataset,
    targets: Any,
    *,
    labels: Labels | None = None,
    kernel: MKDAKernel | None = None,
    space: Space | str = "mni152_2mm",
    min_overlap: float = 1,
    min_analyses: int = 1,
    prior: float | None = 0.5,
) -> xr.Dataset:
    """Find, for every target, where the analyses that activate it are active too. Lazy.

    An analysis activates a voxel when one of its foci lies within reach of it, and a parcel when
    `min_overlap` of its voxels are active. For each target, the analyses that activate it are
    compared with the rest at every voxel, as :meth:`MKDAChi2.fit_features` does for the analyses
    that have a feature: targets are the features of this result, and everything that takes maps of
    features takes these (`correct_fdr`, `feature_null`, `save_result`, `to_nifti`).

    Parameters
    ----------
    corpus
        Any corpus; analyses without foci do not count.
    targets
        Points in mm of the space, (target, 3); an atlas, as a path or an image (see
        :func:`~nimare_dask.targets.parcel_targets`); or what
        :func:`~nimare_dask.targets.voxel_targets`, :func:`~nimare_dask.targets.grid_targets` or
        :func:`~nimare_dask.targets.parcel_targets` return.
    labels
        Names of the points or parcels, see there.
    kernel
        What a focus reaches; MKDA with 10 mm by default (Neurosynth has 6).
    space
        See :func:`~nimare_dask.space.load_space`.
    min_overlap
        Of a parcel: how many of its voxels must be active when it is a whole number, else which
        share of its voxels in the mask; 1 is any voxel, 1.0 the whole parcel.
    min_analyses
        Targets that fewer analyses activate are dropped, and so are those that all activate; how
        many is said in a warning and kept in the provenance.
    prior
        See :class:`MKDAChi2`.

    Returns
    -------
    maps
        ``n_both`` (feature, voxel), int32: analyses that activate target and voxel; ``z chi2 p
        logp`` (effect, feature, voxel) for association (against the rest) and uniformity (against
        the mean over the mask), and ``prob`` (probability, feature, voxel) of which ``AgF`` is
        that of a voxel given the target, float32. Coordinates ``n_active`` (voxel), ``n_selected``,
        ``target_n_voxels`` and ``target_x``, ``target_y``, ``target_z``, the centre in mm
        (feature). Which analyses activate which target is found now (2 s for Neurosynth); maps are
        computed when they are asked for, in blocks of at most 64 targets with all voxels in each.

    Raises
    ------
    SelectionError
        When no target is left, or no analysis has foci.
    SettingsError, SourceFormatError
        For targets, names or settings that cannot be.

    Notes
    -----
    Targets are activated by many analyses (a quarter of Neurosynth each, of 400 parcels), so
    counting them is adding 24 million runs with 400 columns each way, 16 columns an instruction.
    A population count on bits would read 400 x 235,375 x 14,371 of them, 21 thousand million words
    of 64, and build 423 MB of bits first.

    References
    ----------
    Robinson JL, Laird AR, Glahn DC, Lovallo WR, Fox PT (2010), doi:10.1002/hbm.20854.
    Yarkoni T et al. (2011), doi:10.1038/nmeth.1635.
    """
    estimator = MKDAChi2(kernel=MKDAKernel() if kernel is None else kernel, prior=prior)
    space = load_space(space)
    places = as_targets(targets, space, labels, stacklevel=3)
    needed = _needed(places, min_overlap)
    whole = with_foci(corpus, "corpus")
    foci = activation.locate([whole], space)
    membership = _who_activates(places, needed, foci, estimator.kernel)
    kept = _worth_comparing(places, membership, min_analyses)
    centre = places.centre[kept]
    result = maps_of_features(
        Counting(foci, estimator.kernel, space),
        [places.names[target] for target in kept],
        membership[:, kept],
        prior=prior,
        whole_maps=True,
        with_counts=True,
        coords={
            "target_n_voxels": ("feature", places.n_voxels[kept]),
            **{f"target_{axis}": ("feature", centre[:, at]) for at, axis in enumerate("xyz")},
        },
    )
    result.attrs["provenance"] = corpus.attrs.get("provenance", "[]")
    return with_step(
        result,
        "coactivation",
        settings={
            **estimator.settings(),
            "targets": places.kind,
            "min_overlap": min_overlap,
            "min_analyses": min_analyses,
        },
        references=(*REFERENCES, "robinson2010"),
        n_targets_dropped=places.n_dropped + len(places.names) - len(kept),
        corpus_digests=[_corpus.digest(corpus)],
        n_analyses=foci.n_analyses,
        space_digest=space.digest,
        **foci.report(),
    )


def _needed(targets: Targets, min_overlap: float) -> NDArray[np.int64]:
    """Voxels of each target that must be active, (target,)."""
    number: Any = min_overlap
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    share = isinstance(number, float | np.floating) and 0 < number <= 1
    if not share and not (whole and min_overlap >= 1):
        raise SettingsError(
            f"min_overlap is {min_overlap!r}; expected a number of voxels from 1, or a share of "
            "the parcel above 0.0 and up to 1.0."
        )
    if whole:
        return np.full(len(targets.names), int(min_overlap), np.int64)
    # What is a whole number but for rounding is meant to be one.
    return np.ceil(np.round(min_overlap * targets.n_voxels, 9)).astype(np.int64).clip(1)


def _who_activates(
    targets: Targets, needed: NDArray[np.int64], foci: LocatedFoci, kernel: MKDAKernel
) -> csr_matrix:
    """Which analyses activate which targets, boolean and sparse, (analysis, target)."""
    space, inside = targets.space, targets.of_voxel >= 0
    index = index_foci(foci.ijk, foci.n_foci, kernel.footprint(space), space.shape)
    rows = list_rows(index, group_lines(space.voxel_ijk[inside]))
    start, found = reached_targets(rows, targets.of_voxel[inside], needed)
    shape = (foci.n_analyses, len(targets.names))
    return csr_matrix((np.ones(len(found), bool), found, start), shape=shape)


def _worth_comparing(
    targets: Targets, membership: csr_matrix, min_analyses: int
) -> NDArray[np.intp]:
    """Targets that some analyses activate and some do not."""
    n, least = membership.shape[0], max(1, min_analyses)
    n_selected = np.asarray(membership.sum(axis=0)).ravel()
    kept = (n_selected >= least) & (n_selected < n)
    without = [name for name, keep in zip(targets.names, kept, strict=True) if not keep]
    if not kept.any():
        raise SelectionError(
            f"No target of {len(kept):,} is activated by at least {least:,} of {n:,} analyses "
            f"and not by all of them ({shorten(without)}); use other targets, min_overlap or "
            "kernel."
        )
    if without:
        warnings.warn(
            f"{len(without):,} of {len(kept):,} targets are dropped: fewer than {least:,} analyses "
            f"activate them, or all do, which leaves none to compare with ({shorten(without)}).",
            CorpusWarning,
            stacklevel=3,
        )
    return np.flatnonzero(kept)
