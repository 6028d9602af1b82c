"""MKDA chi-square: voxels that are active more often in selected analyses than in others.

Everything here is counted: how many selected analyses, and how many of all, are active at a voxel.
One pair of groups and thousands of features are the same count with more columns.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_matrix

from nimare_dask import activation, results
from nimare_dask import corpus as _corpus
from nimare_dask.activation import LocatedFoci
from nimare_dask.counting import Counting
from nimare_dask.errors import (
    CorpusWarning,
    SelectionError,
    SettingsError,
    find_label,
    shorten,
)
from nimare_dask.estimators.features import labels, maps_of_features
from nimare_dask.estimators.two_groups import Pooled, gates_of, refuse_shared, with_foci
from nimare_dask.footprint import MKDAKernel
from nimare_dask.kernels.exceed import EFFECTS
from nimare_dask.nulls.label_counts import LabelCounts, chi2_threshold
from nimare_dask.parallel import shapes
from nimare_dask.provenance import with_step
from nimare_dask.selection import DEFAULT_THRESHOLD
from nimare_dask.space import Space, load_space
from nimare_dask.stats import chi2

Chunks = Literal["voxel", "feature"]

REFERENCES = ("wager2007", "yarkoni2011", "lancaster2007")


@dataclass(frozen=True, kw_only=True)
class MKDAChi2:
    """Chi-square meta-analysis of binary activation (Neurosynth's uniformity and association).

    Parameters
    ----------
    kernel
        What a focus reaches.
    prior
        Prior probability of the selection, for ``AgF_prior`` and ``FgA_prior``; None leaves them
        out.

    Notes
    -----
    With S1 selected and S2 other analyses, of which A_F and A_U are active at a voxel:

    - uniformity (``group1`` is its other name, ``group2`` the same for the others): A_F against its
      mean over the mask;
    - association: the 2 x 2 table of (selected, other) x (active, not active), no continuity
      correction. Where no analysis or every analysis is active, chi2 is 2 and z is 0.

    z is the square root of chi2 with the sign of the difference; p is two-sided.

    References
    ----------
    Wager TD, Lindquist M, Kaplan L (2007), doi:10.1093/scan/nsm015.
    Yarkoni T et al. (2011), doi:10.1038/nmeth.1635.
    """

    kernel: MKDAKernel = field(default_factory=MKDAKernel)
    prior: float | None = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, MKDAKernel):
            raise SettingsError(
                f"kernel is a {type(self.kernel).__name__}; chi-square counts active analyses and "
                "is defined for MKDAKernel."
            )
        number = isinstance(self.prior, float | np.floating)
        if self.prior is not None and not (number and 0 < self.prior < 1):
            raise SettingsError(f"prior is {self.prior!r}; expected a probability, or None.")

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        return {"estimator": type(self).__name__, "prior": self.prior, **self.kernel.settings()}

    def fit(
        self,
        selected: xr.Dataset,
        unselected: xr.Dataset,
        *,
        space: Space | str = "mni152_2mm",
        inference_map1: ArrayLike | None = None,
        inference_map2: ArrayLike | None = None,
    ) -> xr.Dataset:
        """Compare two groups of analyses, now.

        Parameters
        ----------
        selected, unselected
            Corpora with no analysis in common. Analyses without foci do not count.
        space
            See :func:`~nimare_dask.space.load_space`.
        inference_map1, inference_map2
            Where each group is active, (voxel,), such as its corrected main effect; voxels above 0
            count. With them association is kept where the selected analyses are more often active
            and their map is above 0, or the others and theirs is; elsewhere chi2 is 0 and p is 1.

        Returns
        -------
        maps
            ``z chi2 p logp`` (effect, voxel) for uniformity, association, group1 and group2, and
            ``prob`` (probability, voxel), float32; coordinate ``n_active`` (voxel).

        Raises
        ------
        SelectionError
            When a group has no foci, or the groups share an analysis.
        SchemaError, SettingsError
            For inference maps that cannot be.
        """
        space = load_space(space)
        gates = gates_of(inference_map1, inference_map2, space)
        corpora = [with_foci(selected, "selected"), with_foci(unselected, "unselected")]
        refuse_shared(*corpora)
        foci = activation.locate(corpora, space)
        n_first = corpora[0].sizes["analysis"]
        membership = csr_matrix((np.arange(foci.n_analyses) < n_first)[:, None])
        counts = (
            Counting(foci, self.kernel, space).by_voxel(membership, shapes.VOXEL_CHUNK).compute()
        )
        maps = self._pair(counts, n_first, foci.n_analyses)
        if gates is not None:
            z = maps["z"][1]
            off = ~((z > 0) & gates[0] | (z < 0) & gates[1])
            for name, nothing in (("z", 0), ("chi2", 0), ("p", 1), ("logp", 0)):
                maps[name][1, off] = nothing
        result = results.as_result(
            {name: (_pair_dims(name), values) for name, values in maps.items()},
            space,
            {
                "n_active": ("voxel", counts[:, 1]),
                "effect": labels("effect", ["uniformity", "association", "group1", "group2"]),
                "probability": labels("probability", self._pair_probabilities()),
            },
        )
        choice = {"n_selected": n_first, "directional": gates is not None}
        return self._signed(result, foci, [selected, unselected], **choice)

    def fit_features(
        self,
        corpus: xr.Dataset,
        *,
        threshold: float = DEFAULT_THRESHOLD,
        features: Sequence[str] | None = None,
        space: Space | str = "mni152_2mm",
        min_analyses: int = 1,
        chunks: Chunks = "voxel",
    ) -> xr.Dataset:
        """Compare, for every feature, the analyses that have it with the rest. Lazy.

        Parameters
        ----------
        corpus
            A corpus with features.
        threshold
            Smallest weight with which an analysis has a feature, inclusive.
        features
            Names of features; all by default.
        space
            See :func:`~nimare_dask.space.load_space`.
        min_analyses
            Features that fewer analyses have are dropped, and so are those that all have; how many
            is said in a warning and kept in the provenance.
        chunks
            ``"voxel"``: blocks of voxels with all features in each, the least work; the number of
            tasks does not grow with the features. ``"feature"``: blocks of features with all voxels
            in each, for corrections over voxels that fit in memory.

        Returns
        -------
        maps
            ``z chi2 p logp`` (effect, feature, voxel) for uniformity and association and ``prob``
            (probability, feature, voxel), float32; coordinates ``n_active`` (voxel) and
            ``n_selected`` (feature).
            Nothing is computed until a map is asked for, and only what it needs.

        Raises
        ------
        SelectionError
            When no feature is left.
        SettingsError
            For a threshold, space or `chunks` that cannot be.
        SchemaError
            When the corpus has no features.
        UnknownLabelError
            When one of `features` is not there.
        """
        if chunks not in ("voxel", "feature"):
            raise SettingsError(f"chunks is {chunks!r}; expected 'voxel' or 'feature'.")
        space = load_space(space)
        whole = with_foci(corpus, "corpus")
        foci = activation.locate([whole], space)
        names, membership, dropped = _members(whole, threshold, features, min_analyses)
        result = maps_of_features(
            Counting(foci, self.kernel, space),
            names,
            membership,
            prior=self.prior,
            whole_maps=chunks == "feature",
        )
        choice = {"threshold": threshold, "min_analyses": min_analyses}
        return self._signed(result, foci, [corpus], n_features_dropped=dropped, **choice)

    def permutation_job(
        self,
        pooled: Pooled,
        *,
        random_state: int,
        voxel_thresh: float | None,
        stat_thresh: float | None,
    ) -> LabelCounts:
        """Iterations in which analyses change groups."""
        return LabelCounts(
            ijk=pooled.foci.ijk,
            n_foci=pooled.foci.n_foci,
            columns=self.kernel.footprint(pooled.space),
            mask=pooled.space.mask,
            sizes=np.array(pooled.sizes[:1]),
            effects=EFFECTS,
            chi2_thresh=chi2_threshold(voxel_thresh) if stat_thresh is None else float(stat_thresh),
            random_state=random_state,
        )

    def _pair_probabilities(self) -> list[str]:
        return [*chi2.probability_names(self.prior), "group1", "group2"]

    def _pair(self, counts: NDArray[np.int32], n_first: int, n: int) -> dict[str, NDArray[Any]]:
        """Every map of two groups, from counts (voxel, 2) of the first group and of all."""
        n_selected, n_others = np.array([n_first]), np.array([n - n_first])
        others = np.column_stack([counts[:, 1] - counts[:, 0], counts[:, 1]])
        maps: dict[str, NDArray[Any]] = {}
        for name in chi2.MAPS:
            group1, group2 = (
                chi2.uniformity(
                    group, n_selected=size, expected=group[:, :1].mean(axis=0), name=name
                )
                for group, size in ((counts, n_selected), (others, n_others))
            )
            both = chi2.association(counts, n_selected=n_selected, n=n, name=name)
            maps[name] = np.concatenate([group1, both, group1, group2])
        same = {"group1": "AgF", "group2": "AgU"}
        maps["prob"] = np.concatenate(
            [
                chi2.probability(
                    counts, n_selected=n_selected, n=n, prior=self.prior, name=same.get(name, name)
                )
                for name in self._pair_probabilities()
            ]
        )
        return maps

    def _signed(
        self, result: xr.Dataset, foci: LocatedFoci, corpora: list[xr.Dataset], **facts: Any
    ) -> xr.Dataset:
        result.attrs["provenance"] = corpora[0].attrs.get("provenance", "[]")
        facts |= {
            "corpus_digests": [_corpus.digest(corpus) for corpus in corpora],
            "n_analyses": foci.n_analyses,
        }
        facts |= {"space_digest": result.attrs["space_digest"]}
        return with_step(
            result,
            "MKDAChi2",
            settings=self.settings(),
            references=REFERENCES,
            **facts,
            **foci.report(),
        )


def _pair_dims(name: str) -> tuple[str, str]:
    return ("probability" if name == "prob" else "effect"), "voxel"


def _members(
    corpus: xr.Dataset, threshold: float, features: Sequence[str] | None, min_analyses: int
) -> tuple[list[str], csr_matrix, int]:
    """Names of the features that can be compared, who has them, and how many were dropped."""
    weights = _corpus.weights_of(corpus)
    names = [str(name) for name in corpus["feature"].values]
    if features is not None:
        wanted = [features] if isinstance(features, str) else features
        places = list(dict.fromkeys(find_label(names, name, "feature") for name in wanted))
        names, weights = [names[place] for place in places], weights[:, places]
    if threshold <= 0:
        raise SettingsError(
            f"threshold is {threshold:g}; weights are at least 0, so expected a number above 0 "
            f"(NiMARE's is {DEFAULT_THRESHOLD:g})."
        )
    members = weights.copy()
    members.data = members.data >= threshold
    members.eliminate_zeros()
    n_selected = np.diff(members.indptr)
    kept = (n_selected >= max(1, min_analyses)) & (n_selected < corpus.sizes["analysis"])
    if not kept.any():
        raise SelectionError(
            f"No feature of {len(names):,} has at least {max(1, min_analyses)} analyses with a "
            f"weight of {threshold:g} or more and leaves some without; the largest weight is "
            f"{weights.data.max(initial=0):.3g}. Use another threshold."
        )
    dropped = int((~kept).sum())
    if dropped:
        without = [name for name, keep in zip(names, kept, strict=True) if not keep]
        warnings.warn(
            f"{dropped:,} of {len(names):,} features are dropped: at threshold {threshold:g} they "
            f"have fewer than {max(1, min_analyses)} analyses or leave none to compare with "
            f"({shorten(without)}).",
            CorpusWarning,
            stacklevel=3,
        )
    chosen = [name for name, keep in zip(names, kept, strict=True) if keep]
    return chosen, csr_matrix(members[:, kept]), dropped
