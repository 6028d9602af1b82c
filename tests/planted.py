"""Two groups of analyses with planted places in a small space, and what iterations draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import xarray as xr
from numpy.random import PCG64, SeedSequence
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from tests import slow
from tests.foci import draw_foci, make_corpus
from tests.groups import SPACE, with_foci

#: Where group 1 reports activation, where group 2 does, and where both do; mm.
ONE, TWO, BOTH = (-24, 0, 0), (24, 8, 0), (0, -24, 16)


@dataclass(frozen=True, eq=False)
class Groups:
    """Two groups out of one corpus, whose analyses lie mixed in the order of their ids."""

    corpus: xr.Dataset
    in_first: NDArray[np.bool_]  # (analysis,)

    @cached_property
    def first(self) -> xr.Dataset:
        return nd.select(self.corpus, self.in_first)

    @cached_property
    def second(self) -> xr.Dataset:
        return nd.select(self.corpus, ~self.in_first)

    @property
    def pair(self) -> tuple[xr.Dataset, xr.Dataset]:
        return self.first, self.second

    @cached_property
    def pooled(self) -> xr.Dataset:
        """The analyses that count, in the order of their ids."""
        return with_foci(self.corpus)

    @cached_property
    def member(self) -> NDArray[np.bool_]:
        """Which of those are of group 1, (analysis,)."""
        return self.in_first[self.corpus["analysis_n_foci"].values > 0]

    def activation(self, fwhm: float) -> NDArray[np.float32]:
        """Gaussians of those by the slow reference, (analysis, voxel)."""
        widths = [fwhm] * self.pooled.sizes["analysis"]
        return in_mask(slow.ale_volumes(self.pooled, SPACE, widths))


def in_mask(volumes: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Volumes as vectors over the voxels of the mask, (volume, voxel)."""
    return np.stack([volume[SPACE.mask] for volume in volumes])


@cache
def planted(n_first: int = 8, n_second: int = 12, seed: int = 2) -> Groups:
    """Groups that report around their own place and a common one; one more of each has no foci."""
    rng = np.random.default_rng(seed)
    n = n_first + n_second + 2
    in_first = np.zeros(n, bool)
    in_first[rng.permutation(n)[: n_first + 1]] = True
    empty = [int(np.flatnonzero(in_first)[1]), int(np.flatnonzero(~in_first)[2])]
    foci = draw_foci(seed, SPACE, n, 1, empty=empty)
    for analysis in np.setdiff1d(np.arange(n), empty):
        own, common = (ONE, 2) if in_first[analysis] else (TWO, int(rng.uniform() < 0.9))
        near = [rng.normal(own, 5, (2, 3)), rng.normal(BOTH, 5, (common, 3))]
        foci[analysis] = np.round(np.concatenate([foci[analysis], *near]))
    return Groups(make_corpus(foci), in_first)


# what iterations draw, by whole numbers of Python


def raw_numbers(seed: int, step: int, iteration: int, count: int) -> list[int]:
    """The random numbers of an iteration, 64 bits each."""
    stream = PCG64(SeedSequence(seed, spawn_key=(step, iteration)))
    return [int(number) for number in stream.random_raw(count)]


def shuffled(raw: Sequence[int], order: Sequence[int]) -> list[int]:
    """The first places of a shuffle of Fisher and Yates, one for each random number."""
    order = [*map(int, order)]
    for at, number in enumerate(raw):
        other = at + ((number * (len(order) - at)) >> 64)
        order[at], order[other] = order[other], order[at]
    return order[: len(raw)]


def drawn(raw: Sequence[int], pool: NDArray[Any]) -> NDArray[Any]:
    """Rows of a pool, with replacement, one for each random number."""
    return pool[[(number * len(pool)) >> 64 for number in raw]]


# bits


def assert_same_maps(found: xr.Dataset, expected: xr.Dataset) -> None:
    """All maps and labels, bit by bit."""
    assert set(found.data_vars) == set(expected.data_vars)
    for name in expected.data_vars:
        one, other = found[name], expected[name]
        assert one.dims == other.dims and one.dtype == other.dtype, name
        if one.dtype.kind == "f":
            one, other = (each.copy(data=bits(each.values)) for each in (one, other))
        assert_array_equal(one.values, other.values, err_msg=str(name))
    for name in expected.coords:
        assert_array_equal(found[name].values, expected[name].values, err_msg=str(name))


def bits(values: NDArray[Any]) -> NDArray[Any]:
    """Floating-point numbers as whole numbers."""
    values = np.ascontiguousarray(values)
    return values.view(f"i{values.dtype.itemsize}")
