"""Two groups of analyses that are about to be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from nimare_dask import activation, schema
from nimare_dask import corpus as _corpus
from nimare_dask.activation import LocatedFoci
from nimare_dask.errors import SchemaError, SelectionError, SettingsError, shorten
from nimare_dask.footprint import Kernel
from nimare_dask.nulls.jobs import Job
from nimare_dask.selection import select
from nimare_dask.space import Space

#: Where group 1 is active, and where group 2 is: (voxel,) each.
Gates = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """The analyses of two groups that have foci, pooled in the order of their ids.

    The order decides which analyses a shuffle takes, so it is the same however a database is
    divided: a feature of a corpus and the same two groups given apart have the same null.

    Attributes
    ----------
    given
        The two corpora as they were given.
    corpora
        The analyses of each that have foci.
    foci
        Foci of all of them, pooled.
    order
        Position of each pooled analysis in the two corpora one after the other, (analysis,).
    space
        The voxels.
    """

    given: tuple[xr.Dataset, xr.Dataset]
    corpora: tuple[xr.Dataset, xr.Dataset]
    foci: LocatedFoci
    order: NDArray[np.intp]
    space: Space

    @property
    def sizes(self) -> tuple[int, int]:
        """Analyses of each group."""
        first, second = self.corpora
        return first.sizes["analysis"], second.sizes["analysis"]

    @property
    def in_first(self) -> NDArray[np.bool_]:
        """Whether each pooled analysis is of the first group, (analysis,)."""
        return self.order < self.sizes[0]

    def footprints(self, kernel: Kernel) -> tuple[list[NDArray[np.float64]], NDArray[np.int32]]:
        """Footprints, and which of them each pooled analysis has, (analysis,)."""
        (first, of_first), (second, of_second) = (
            kernel.footprints(corpus, self.space) for corpus in self.corpora
        )
        which = np.concatenate([of_first, of_second + np.int32(len(first))])
        return [*first, *second], which[self.order]

    def facts(self) -> dict[str, Any]:
        """What a provenance keeps of the input."""
        without = sum(corpus.sizes["analysis"] for corpus in self.given) - self.foci.n_analyses
        return {
            "corpus_digests": [_corpus.digest(corpus) for corpus in self.given],
            "space_digest": self.space.digest,
            "n_analyses": self.foci.n_analyses,
            "n_selected": self.sizes[0],
            "n_analyses_without_foci": without,
            **self.foci.report(),
        }


class Settings(Protocol):
    """Settings of an estimator of any kind."""

    def settings(self) -> dict[str, Any]:
        """Parameters for the provenance."""
        ...


@runtime_checkable
class TwoGroups(Settings, Protocol):
    """What a label permutation asks of the settings of an estimator."""

    def permutation_job(
        self,
        pooled: Pooled,
        *,
        random_state: int,
        voxel_thresh: float | None,
        stat_thresh: float | None,
    ) -> Job:
        """Iterations in which analyses change groups."""
        ...


def pool(selected: xr.Dataset, unselected: xr.Dataset, space: Space) -> Pooled:
    """Put two groups together.

    Raises
    ------
    SelectionError
        When a group has no foci, or the groups share an analysis.
    """
    first, second = with_foci(selected, "selected"), with_foci(unselected, "unselected")
    refuse_shared(first, second)
    ids = np.concatenate(
        [np.array(part["analysis_id"].values.tolist()) for part in (first, second)]
    )
    order = np.argsort(ids, kind="stable")
    foci = activation.locate([first, second], space).take(order)
    return Pooled(
        given=(selected, unselected),
        corpora=(first, second),
        foci=foci,
        order=order,
        space=space,
    )


def with_foci(corpus: xr.Dataset, word: str) -> xr.Dataset:
    """Drop analyses without foci: they say nothing about where, and do not count in the n."""
    schema.check(corpus, ["analysis_n_foci"], made_by="read_neurosynth() or simulate_corpus()")
    some = corpus["analysis_n_foci"].values > 0
    if not some.any():
        raise SelectionError(
            f"The {word} analyses have no focus at all ({some.size:,} analyses); choose others."
        )
    return corpus if some.all() else select(corpus, some)


def refuse_shared(selected: xr.Dataset, unselected: xr.Dataset) -> None:
    """Raise SelectionError when an analysis is in both groups."""
    # Not np.intersect1d: numpy 2.4 dies (SIGSEGV) sorting long ids of two arrays put together.
    first, second = (set(group["analysis_id"].values.tolist()) for group in (selected, unselected))
    shared = sorted(first & second)
    if shared:
        raise SelectionError(
            f"{len(shared):,} analyses are in both groups ({shorten(shared)}); an "
            "analysis can be selected or not. Use nd.select(corpus, ~mask) for the others."
        )


def gates_of(first: ArrayLike | None, second: ArrayLike | None, space: Space) -> Gates | None:
    """Where each group is active, from two inference maps (voxel,); None without them.

    Raises
    ------
    SchemaError
        When a map is not of this space.
    SettingsError
        When one is missing, or nothing is active.
    """
    if first is None and second is None:
        return None
    if first is None or second is None:
        raise SettingsError("One inference map is given; expected both, or none.")
    gates = []
    for name, values in (("inference_map1", first), ("inference_map2", second)):
        array = np.asarray(values)
        if array.shape != (space.n_voxels,):
            raise SchemaError(
                f"{name} has shape {array.shape}; expected ({space.n_voxels},), a value for each "
                f"voxel of {space}."
            )
        gates.append(array > 0)
    if not (gates[0] | gates[1]).any():
        raise SettingsError(
            "No voxel of either inference map is above 0, so there is nothing to compare; use "
            "other maps, or a higher alpha."
        )
    return gates[0], gates[1]
