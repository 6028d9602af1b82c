"""Iterations of chi-square in which foci fall anywhere, against the slow reference."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.random import PCG64, SeedSequence
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from nimare_dask.kernels.footprints import sphere_columns
from nimare_dask.nulls.jobs import n_maxima
from nimare_dask.nulls.redraw import Redraw, from_dataset
from tests.group_pairs import (
    CHI2_THRESH,
    EFFECTS,
    ZOOMS,
    P,
    R,
    assert_chi2_maxima,
    n_at_the_edge,
    pair,
)
from tests.groups import SPACE
from tests.nulls.test_relocation import same
from tests.reference import two_groups as reference
from tests.reference.kernel import mkda_maps

N_ITERS = 12


def maxima_of(job: Redraw, start: int = 0, stop: int = N_ITERS) -> NDArray[np.float64]:
    """Maxima (iteration, effect, inference)."""
    batch = job.run(start, stop)
    assert batch.maxima.shape == (stop - start, n_maxima(job)) and not batch.sums
    return batch.maxima.reshape(stop - start, *(len(labels) for labels in job.labels.values()))


def moved(job: Redraw, iteration: int) -> tuple[list[Any], list[Any]]:
    """Where the foci of each analysis fall, by whole numbers of Python: one list for each group."""
    seeds = SeedSequence(job.random_state, spawn_key=(job.step, iteration))
    raw = PCG64(seeds).random_raw(int(job.n_foci.sum())).tolist()
    places = np.array([job.pool[(number * len(job.pool)) >> 64] for number in raw])
    parts = np.split(places, np.cumsum(job.n_foci)[:-1])
    first = [part for part, inside in zip(parts, job.in_first, strict=True) if inside]
    second = [part for part, inside in zip(parts, job.in_first, strict=True) if not inside]
    return first, second


# against the reference


@pytest.mark.parametrize(("n", "n_first"), [(18, 7), (18, 12), (18, 1), (5, 2), (2, 1)])
def test_run__equals_reference(n: int, n_first: int) -> None:
    job = pair(n, n_first).redraw()
    found = maxima_of(job)
    assert found.shape == (N_ITERS, 3, 3)
    assert job.labels == {"effect": list(EFFECTS), "inference": ["voxel", "size", "mass"]}
    for iteration in range(N_ITERS):
        groups = moved(job, iteration)
        ones, twos = (mkda_maps(part, SPACE.mask, ZOOMS, R).sum(axis=0) for part in groups)
        assert n_at_the_edge(ones, twos, n_first, n - n_first, CHI2_THRESH) == 0
        for ours, theirs in zip(job.counts(iteration), (ones, twos), strict=True):
            assert_array_equal(ours, theirs)
        wanted = reference.random_foci_maxima(*groups, SPACE.mask, ZOOMS, R, P, degenerate=0.0)
        assert_chi2_maxima(found[iteration], wanted, CHI2_THRESH)


def test_run__higher_thresholds_find_nothing() -> None:
    job = pair().redraw()
    high = maxima_of(replace(job, chi2_thresh=1e6))
    assert_array_equal(high[..., 0], maxima_of(job)[..., 0])
    assert (high[..., 1:] == 0).all()


def test_run__analyses_keep_their_group_and_their_number_of_foci() -> None:
    job, groups = pair().redraw(), pair()
    assert_array_equal(job.n_foci, groups.some["analysis_n_foci"])
    assert_array_equal(np.flatnonzero(job.in_first), groups.rows)
    ((first, first_owner), (second, second_owner)) = job.groups
    assert_array_equal(np.sort(np.concatenate([first, second])), np.arange(job.n_foci.sum()))
    assert_array_equal(np.bincount(first_owner), job.n_foci[job.in_first])
    assert_array_equal(np.bincount(second_owner), job.n_foci[~job.in_first])


def test_run__foci_fall_on_the_pool_only() -> None:
    # Within a corner of the mask nothing else is ever active.
    corner = np.argwhere(SPACE.mask)[:3].astype(np.int32)
    job = replace(pair().redraw(), pool=corner, columns=np.zeros((1, 3), np.int32))
    for iteration in range(5):
        first, second = job.counts(iteration)
        assert (first[3:] == 0).all() and (second[3:] == 0).all()
        assert (first[:3] + second[:3]).max() > 0


def test_run__without_clusters() -> None:
    job = pair().redraw()
    without = replace(job, chi2_thresh=None)
    assert without.labels["inference"] == ["voxel"]
    assert_array_equal(maxima_of(without)[..., 0], maxima_of(job)[..., 0])


@pytest.mark.parametrize(("n", "kind"), [(32_767, np.int16), (32_768, np.int32)])
def test_counts__many_analyses_are_counted_in_32_bits(n: int, kind: type) -> None:
    mask = np.ones((2, 2, 3), bool)
    job = Redraw(
        n_foci=np.ones(n, np.int32),
        in_first=np.arange(n) > 0,
        columns=sphere_columns((2.0, 2.0, 2.0), 2.0),
        pool=np.array([[0, 0, 0]], np.int32),
        mask=mask,
        chi2_thresh=CHI2_THRESH,
        random_state=0,
    )
    assert job.footprints.values.dtype == kind
    active = mkda_maps([np.zeros((1, 3), int)], mask, [2.0] * 3, 2.0)[0].astype(np.int64)
    first, second = job.counts(0)
    assert_array_equal(first, active * (n - 1))
    assert_array_equal(second, active)
    wanted = reference.chi2_maxima(active * (n - 1), active, n - 1, 1, mask, P, degenerate=0.0)
    assert_chi2_maxima(maxima_of(job, 0, 1)[0], wanted, CHI2_THRESH)


# draws


def test_counts__depend_on_seed_step_and_iteration_only() -> None:
    job = pair().redraw()
    one = np.array(job.counts(3))
    assert_array_equal(np.array(pair().redraw().counts(3)), one)
    for other in (job.counts(4), replace(job, step=1).counts(3), pair().redraw(seed=6).counts(3)):
        assert not np.array_equal(np.array(other), one)


def test_run__iterations_do_not_depend_on_where_a_batch_begins() -> None:
    job = pair().redraw()
    whole = maxima_of(job, 0, 20)
    parts = [maxima_of(job, *span) for span in [(0, 1), (1, 8), (8, 19), (19, 20)]]
    assert_array_equal(np.concatenate(parts), whole)


# there and back


def changed() -> Redraw:
    """A job with no field as it is in another."""
    return replace(
        pair().redraw(None, seed=2**60), chi2_thresh=1.25, step=1, pool=SPACE.pool("brain")[5:]
    )


@pytest.mark.parametrize("stored", [False, True])
def test_dataset__there_and_back(stored: bool, tmp_path: Path) -> None:
    for job in (pair().redraw(), pair().redraw(None), changed()):
        dataset = job.to_dataset()
        assert dataset.attrs["job"] == "redraw"
        if stored:
            dataset.to_zarr(tmp_path / "inputs", mode="w", zarr_format=3, consolidated=False)
            dataset = xr.open_zarr(tmp_path / "inputs", consolidated=False, chunks=None).load()
        again = from_dataset(dataset)
        assert same(job, again)
        assert_array_equal(maxima_of(again, 0, 3), maxima_of(job, 0, 3))
        xr.testing.assert_identical(again.to_dataset(), job.to_dataset())


def test_dataset__says_every_field() -> None:
    again, plain = from_dataset(changed().to_dataset()), pair(5, 2).redraw()
    for field in fields(Redraw):
        if field.name not in ("columns", "mask"):
            assert not same(getattr(again, field.name), getattr(plain, field.name)), field.name


def test_pickle__there_and_back() -> None:
    job = pair().redraw()
    fresh: Any = pickle.loads(pickle.dumps(job))
    expected = maxima_of(job)
    used: Any = pickle.loads(pickle.dumps(job))
    assert same(fresh, job) and same(used, job)
    assert_array_equal(maxima_of(fresh), expected)
    assert_array_equal(maxima_of(used), expected)


def test_facts__and_costs() -> None:
    job = pair().redraw()
    assert job.facts() == {"chi2_thresh": CHI2_THRESH} and job.lengths == {}
    assert job.task_bytes() > 0
