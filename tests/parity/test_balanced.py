"""Balanced ALE subtraction against NiMARE 0.22.1, of the same subsets and relocated foci.

Ours draws; the peer gets what was drawn, answer by answer, in place of its random numbers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.estimators.balanced import EFFECT, BalancedALESubtraction
from nimare_dask.kernels import prefixes
from nimare_dask.nulls import scheme
from nimare_dask.nulls.mean_difference import MeanDifference
from nimare_dask.nulls.subsets import Activation
from nimare_dask.provenance import steps
from tests.parity.agreement import assert_within, maps_of
from tests.parity.cases import SIZE_20, ale, space
from tests.parity.peer import ONE_FLOAT32
from tests.parity.peer_two_groups import Compared, peer_balanced
from tests.parity.two_group_agreement import difference_error
from tests.parity.two_group_cases import Pair, groups

NullMethod = Literal["random-foci", "label-permutation"]

N_ITERS = 4
#: Of 11 and of 10 analyses; all such subsets are taken, so the peer draws none.
TARGET_N, N_SUBSETS = 9, 60
#: So high that a few iterations can leave something.
ALPHA = 0.5
N_DRAWS = 3


# what ours drew


@dataclass
class Mean:
    """A mean difference: groups and subsets are positions in the sorted ids of both groups."""

    groups: list[NDArray[np.integer]] = field(default_factory=list)
    subsets: list[NDArray[np.integer]] = field(default_factory=list)
    ijk: NDArray[np.integer] | None = None


@dataclass
class Draws:
    """Everything that ours drew."""

    #: Analyses and places of their foci, for each group and iteration.
    relocated: list[tuple[NDArray[np.integer], NDArray[np.integer]]] = field(default_factory=list)
    #: By iteration; None is what is observed.
    means: dict[int | None, Mean] = field(default_factory=dict)


@contextmanager
def recorded() -> Iterator[Draws]:
    """While open, what ours draws is kept; iterations are one batch, one after the other."""
    draws, current = Draws(), [Mean()]
    significant = Activation.significant
    mean, table, mean_ale = MeanDifference.mean, MeanDifference._table, MeanDifference._mean_ale

    def of_significant(self: Any, analyses: Any, z_thresh: Any, ijk: Any = None) -> Any:
        if ijk is not None:
            draws.relocated.append((np.array(analyses), np.array(ijk)))
        return significant(self, analyses, z_thresh, ijk)

    def of_mean(self: Any, iteration: int | None) -> Any:
        current[0] = draws.means[iteration] = Mean()
        return mean(self, iteration)

    def of_table(self: Any, ijk: Any) -> Any:
        current[0].ijk = ijk
        return table(self, ijk)

    def of_mean_ale(self: Any, blocks: Any, group: Any, raw: Any) -> Any:
        current[0].groups.append(np.array(group))
        size = self.target_n
        picked = [group.copy() for _ in range(self.n_draws)]
        for pick, members in enumerate(picked):
            prefixes.shuffle(raw[pick * size : (pick + 1) * size], members)
        current[0].subsets.append(np.stack(picked)[:, :size])
        return mean_ale(self, blocks, group, raw)

    with (
        patch.object(Activation, "significant", of_significant),
        patch.object(MeanDifference, "mean", of_mean),
        patch.object(MeanDifference, "_table", of_table),
        patch.object(MeanDifference, "_mean_ale", of_mean_ale),
    ):
        yield draws


# what the peer gets for it


@dataclass
class Script:
    """A random state that gives these answers, and fails when it is asked for something else."""

    answers: deque[tuple[str, int, NDArray[Any]]]

    def _next(self, kind: str, n: int, size: int) -> NDArray[Any]:
        wanted, of, answer = self.answers.popleft()
        assert (wanted, of, len(answer)) == (kind, n, size)
        return answer

    def permutation(self, n: int) -> NDArray[Any]:
        return self._next("permutation", n, n)

    def choice(self, n: int, size: int, replace: bool) -> NDArray[Any]:
        assert not replace
        return self._next("choice", n, size)

    def randint(self, low: int, high: int, size: int) -> NDArray[Any]:
        assert low == 0
        return self._next("randint", high, size)


def script(answers: Iterable[tuple[str, int, NDArray[Any]]]) -> Script:
    return Script(deque(answers))


def places(ijk: NDArray[np.integer]) -> NDArray[np.int64]:
    """Numbers of voxels of grey matter."""
    pool = space().pool("gm")
    number = np.full(space().shape, -1)
    number[tuple(pool.T)] = np.arange(len(pool))
    found: NDArray[np.int64] = number[tuple(np.asarray(ijk).T)]
    assert (found >= 0).all()
    return found


def relocating(
    n_foci: NDArray[np.integer], ijk: NDArray[np.integer]
) -> Iterator[tuple[str, int, NDArray[Any]]]:
    """The peer draws places analysis by analysis."""
    n_places = len(space().pool("gm"))
    for part in np.split(places(ijk), np.cumsum(n_foci)[:-1]):
        yield "randint", n_places, part


def states_of(draws: Draws, pair: Pair) -> list[Script]:
    """The peer's random states, in the order in which it makes them."""
    states = []
    for number, corpus in enumerate((pair.first, pair.second)):
        answers = []
        n_foci = corpus["analysis_n_foci"].values
        for analyses, ijk in draws.relocated[number * N_ITERS : (number + 1) * N_ITERS]:
            rest = np.setdiff1d(np.arange(len(n_foci)), analyses)
            answers.append(("permutation", len(n_foci), np.concatenate([analyses, rest])))
            answers += relocating(n_foci[analyses], ijk)
        states.append(script(answers))
    ids = pair.pooled["analysis_id"].values
    in_first = np.isin(ids, pair.first["analysis_id"].values)
    row = np.argsort(np.argsort(~in_first, kind="stable"))  # the peer's, of each pooled analysis
    n_foci = pair.pooled["analysis_n_foci"].values
    owner = np.repeat(np.arange(len(ids)), n_foci)
    answers = []
    for iteration in (None, *range(N_ITERS)):
        mean = draws.means[iteration]
        if mean.ijk is not None:
            for group in (in_first, ~in_first):
                answers += relocating(n_foci[group], mean.ijk[group[owner]])
        elif iteration is not None:
            answers.append(("permutation", len(ids), row[np.concatenate(mean.groups)]))
        for pick in range(N_DRAWS):
            for members, subsets in zip(mean.groups, mean.subsets, strict=True):
                chosen = np.searchsorted(members, subsets[pick])
                answers.append(("choice", len(members), chosen))
    return [*states, script(answers)]


# both


@dataclass(frozen=True)
class Both:
    """The same subsets and foci by both."""

    pair: Pair
    ours: xr.Dataset
    nulls: NDArray[np.float64]  # (iteration, largest of either sign)
    theirs: Compared


def balanced(null_method: NullMethod) -> Both:
    pair = groups("pain")
    settings: dict[str, Any] = {"target_n": TARGET_N, "n_subsamples": N_SUBSETS}
    settings |= {"difference_iterations": N_DRAWS, "null_method": null_method, "alpha": ALPHA}
    kept: list[NDArray[np.float64]] = []
    run: Callable[..., Any] = MeanDifference.run

    def of_run(self: Any, start: int, stop: int) -> Any:
        batch = run(self, start, stop)
        kept.append(batch.maxima)
        return batch

    with (
        recorded() as draws,
        patch.object(MeanDifference, "run", of_run),
        patch.object(scheme, "batch_size", lambda *_: N_ITERS),
    ):
        ours = BalancedALESubtraction(**settings).fit(
            pair.first, pair.second, space=space(), n_iters=N_ITERS, random_state=0
        )
    assert len(kept) == 1 and len(draws.relocated) == 2 * N_ITERS
    theirs = peer_balanced(
        pair.studysets, space(), states=states_of(draws, pair), n_iters=N_ITERS, **settings
    )
    return Both(pair, ours, kept[0], theirs)


both = cache(balanced)
METHODS = ["random-foci", pytest.param("label-permutation", marks=pytest.mark.slow)]


def mean_error(pair: Pair, highest: float) -> NDArray[np.float64]:
    """How far a mean difference may be from the peer's, (voxel,).

    The peer rounds 1 - activation and each product of it to float32, numbers below 1, for both
    groups; and the sum of differences, which are at most `highest`, after each.
    """
    products = 2 * (2 * TARGET_N) * ONE_FLOAT32 / 4
    sums = (N_DRAWS + 1) * ONE_FLOAT32 * highest
    return difference_error(ale(), pair, space()) + products + sums


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random-foci", "label-permutation"])
def test_balanced__clusters_of_subsets(method: NullMethod) -> None:
    found = both(method)
    ours, theirs = maps_of(found.ours), found.theirs.maps
    assert set(ours) == set(theirs)
    assert all(size > 0 for size in steps(found.ours)[-1]["settings"]["larger_than"])
    for name in ("prob_desc-group1", "prob_desc-group2", "stat_desc-conjunction"):
        assert ours[name].dtype == theirs[name].dtype == np.float32
        assert len(np.unique(theirs[name])) > 5
        # A voxel whose statistic is on the edge of a bin is in a cluster on one side only.
        differs = np.abs(ours[name] - theirs[name]) > ONE_FLOAT32
        assert differs.sum() <= 2, f"{name}: Not equal at {differs.sum()} voxels"


@pytest.mark.parametrize("method", METHODS)
def test_balanced__difference_and_its_null(method: NullMethod) -> None:
    found = both(method)
    ours, theirs, nulls = maps_of(found.ours), found.theirs.maps, found.theirs.nulls
    stat = theirs[f"stat_desc-{EFFECT}"].astype(np.float64)
    error = mean_error(found.pair, 2 * float(np.abs(stat).max()))
    assert_within("stat", ours[f"stat_desc-{EFFECT}"], stat, error)
    maxima = np.stack(
        [
            nulls["values_desc-balancedMaxNull_corr-none"],
            -nulls["values_desc-balancedMinNull_corr-none"],
        ],
        axis=1,
    )
    assert maxima.max() < 2 * np.abs(stat).max()
    assert_within("maxima", found.nulls.ravel(), maxima.ravel(), np.full(maxima.size, error.max()))
    edges = np.concatenate([np.percentile(maxima, 100 * (1 - ALPHA / 2), axis=0), maxima.ravel()])
    near = (np.abs(np.abs(stat)[:, None] - edges) <= error[:, None]).any(axis=1)
    assert near.sum() < 100
    significant = theirs[f"z_desc-{EFFECT}"] != 0
    assert significant.sum() > 5
    for kind in ("p", "z", "logp"):
        values = theirs[f"{kind}_desc-{EFFECT}"]
        assert_allclose(
            ours[f"{kind}_desc-{EFFECT}"][~near], values[~near], rtol=ONE_FLOAT32, atol=0
        )


def test_balanced__grey_matter() -> None:
    found = both("random-foci")
    prior = np.zeros(space().shape, bool)
    prior[tuple(space().pool("gm").T)] = True
    outside = ~prior[space().mask]
    for maps in (maps_of(found.ours), found.theirs.maps):
        assert (maps[f"stat_desc-{EFFECT}"][outside] == 0).all()
        assert (maps[f"p_desc-{EFFECT}"][outside] == 1).all()


@pytest.mark.slow
def test_balanced__null_of_the_peer_has_another_kernel_than_its_maps() -> None:
    # Whatever the kernel, its random foci have that of each analysis's own sample size.
    pair = groups("pain few")
    settings: dict[str, Any] = {"n_iters": 3, "n_subsamples": 3, "difference_iterations": 1}
    own, constant = (
        peer_balanced(pair.studysets, space(), kernel=kernel, random_state=0, **settings)
        for kernel in ({}, SIZE_20)
    )
    assert len(own.nulls) == 2
    for name, values in own.nulls.items():
        assert_array_equal(values, constant.nulls[name])
    name = "stat_desc-balancedGroup1MinusGroup2"
    assert np.abs(own.maps[name] - constant.maps[name]).max() > 1e-3
