"""Iterations of ALE differences in which analyses change groups, against the slow reference."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.random import PCG64, SeedSequence
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask.estimators.two_groups import pool
from nimare_dask.kernels import difference
from nimare_dask.nulls import subtraction
from nimare_dask.nulls.jobs import STEPS, Batch
from nimare_dask.nulls.observed import difference_measures
from nimare_dask.nulls.subtraction import Subtraction, from_dataset, threshold_of
from tests import slow
from tests.foci import make_corpus
from tests.group_pairs import (
    ALE,
    ALE_THRESH,
    FWHM,
    INFERENCES,
    Pair,
    assert_difference_maxima,
    difference_error,
    fisher_yates,
    pair,
    sum_error,
)
from tests.groups import SPACE
from tests.nulls.test_relocation import same
from tests.reference import two_groups as reference

N_ITERS = 25
SIZES = [(18, 7), (18, 9), (18, 12), (18, 1), (18, 17), (5, 2), (2, 1)]


def chosen_of(job: Subtraction, n_iters: int) -> NDArray[np.int64]:
    return np.array([job.chosen(iteration) for iteration in range(n_iters)])


def assert_same_batch(found: Batch, expected: Batch) -> None:
    assert_array_equal(found.maxima.view(np.int64), expected.maxima.view(np.int64))
    assert list(found.sums) == list(expected.sums) == ["null_up", "null_low"]
    for name, values in expected.sums.items():
        assert_array_equal(found.sums[name], values, err_msg=name)


def check(
    job: Subtraction, activation: NDArray[Any], rows: NDArray[Any], n_iters: int, most: int = 25
) -> Batch:
    """Iterations against the reference.

    At a voxel where some iteration is within rounding of the observed difference, but not equal to
    it, counts are held to the iterations that are surely so, and those that may be. There may be
    `most` such voxels (of 500), in the tails of Gaussians.
    """
    wanted = reference.subtraction_permutations(activation, chosen_of(job, n_iters))
    observed = reference.subtraction_difference(activation, rows)
    batch, of_sums = job.run(0, n_iters), 2 * sum_error(job, activation)
    above, equal = wanted - observed, wanted == observed
    near = (np.abs(above) <= of_sums) & ~equal
    assert near.any(axis=0).sum() <= most
    for name, sign in (("null_up", 1), ("null_low", -1)):
        found = batch.sums[name].astype(np.int64)
        surely = ((sign * above > of_sums) | equal).sum(axis=0)
        assert ((found >= surely) & (found <= surely + near.sum(axis=0))).all()
    error = difference_error(job, activation)
    assert (np.abs(np.abs(wanted) - job.stat_thresh) > error).all(), "no voxel at the threshold"
    maxima = reference.subtraction_maxima(wanted, SPACE.mask, job.stat_thresh)
    assert_difference_maxima(batch.maxima, maxima, error)
    for iteration in range(min(3, n_iters)):
        values = job.differences(job.first_sums(iteration))
        assert (np.abs(values - wanted[iteration]) <= error).all()
    return batch


# against the reference


@pytest.mark.parametrize(("n", "n_first"), SIZES)
def test_run__equals_reference(n: int, n_first: int) -> None:
    groups = pair(n, n_first)
    assert_array_equal(nd.activation_maps(groups.some, ALE.kernel, SPACE).values, groups.activation)
    job = groups.subtraction()
    assert job.takes_rest == (2 * n_first > n)
    batch = check(job, groups.activation, groups.rows, N_ITERS)
    assert n == 2 or (batch.maxima[:, 1] > 1).any(), "the case must find clusters"
    assert batch.maxima.shape == (N_ITERS, 3)


@pytest.mark.parametrize("threshold", [1e-4, 0.02, 0.05])
def test_run__equals_reference_at_other_thresholds(threshold: float) -> None:
    groups = pair(18, 12)
    check(groups.subtraction(threshold), groups.activation, groups.rows, 10)


def test_run__widths_of_sample_sizes() -> None:
    few = pair(12, 5, seed=3)
    sizes = np.resize([0.7, 1.0, 1.6, 0.9], few.corpus.sizes["analysis"])  # wide Gaussians
    groups = Pair(few.corpus.assign(analysis_sample_size=("analysis", sizes)), few.in_first)
    estimator = nd.ALESubtraction()
    widths = estimator.kernel.widths(groups.some)
    assert len(np.unique(widths)) > 2
    volumes = slow.ale_volumes(groups.some, SPACE, widths.tolist())
    activation = np.stack([volume[SPACE.mask] for volume in volumes])
    job = estimator.permutation_job(
        groups.pooled, random_state=5, voxel_thresh=None, stat_thresh=ALE_THRESH
    )
    batch = check(job, activation, groups.rows, 15)
    assert (batch.maxima[:, 1] > 1).any()


def test_run__sums_that_need_64_bits() -> None:
    many = nd.simulate_corpus(2500, n_foci=2600, n_features=1, space=SPACE, random_state=4)
    groups = Pair(many, np.random.default_rng(0).uniform(size=2500) < 0.4)
    job = groups.subtraction(0.12)
    assert job.statistic.wide and job.table().total.dtype == np.int64
    batch = check(job, groups.activation, groups.rows, 2)
    assert (batch.maxima[:, 1] > 1).all()
    without_table(job, batch)


@pytest.mark.parametrize("threshold", [0.99, 1.0, 5.0])
def test_run__nothing_is_beyond_the_threshold(threshold: float) -> None:
    job = pair().subtraction(threshold)
    maxima, low = job.run(0, 10).maxima, pair().subtraction().run(0, 10).maxima
    assert_array_equal(maxima[:, 0], low[:, 0])
    assert (maxima[:, 1:] == 0).all()


def test_run__nothing_beyond_in_some_iterations_only() -> None:
    groups = pair()
    largest = groups.subtraction().run(0, N_ITERS).maxima[:, 0]
    job = groups.subtraction(float(np.median(largest)))
    found = job.run(0, N_ITERS).maxima
    assert_array_equal(found[:, 0], largest)
    nothing = largest <= np.median(largest)
    assert 0 < nothing.sum() < N_ITERS
    assert_array_equal(found[:, 1] == 0, nothing)


def test_run__a_threshold_of_zero_lists_every_voxel() -> None:
    # More than there is room for at first; and where groups are equal the difference is 0.
    groups = pair()
    job = replace(groups.subtraction(), stat_thresh=0.0)
    assert N_ITERS * SPACE.n_voxels > 10_000 + N_ITERS * SPACE.n_voxels // 200
    found = job.run(0, N_ITERS)
    wanted = reference.subtraction_permutations(groups.activation, chosen_of(job, N_ITERS))
    maxima = reference.subtraction_maxima(wanted, SPACE.mask, 0.0)
    assert_difference_maxima(found.maxima, maxima, difference_error(job, groups.activation))
    assert_same_batch(
        Batch(maxima=found.maxima[:, :1], sums=found.sums),
        replace(groups.subtraction(), with_clusters=False).run(0, N_ITERS),
    )


def test_run__the_observed_division_reaches_what_is_observed() -> None:
    groups = pair(5, 2)
    job = groups.subtraction()
    maps = ALE.fit(groups.first, groups.second, space=SPACE, n_iters=1, random_state=0)
    stat = maps["stat"].values[0]
    assert_array_equal(job.differences(job.table().observed), stat)
    mine = set(groups.rows.tolist())
    hits = [i for i in range(60) if set(job.chosen(i).tolist()) == mine]
    assert len(hits) > 2
    measured = difference_measures(job, stat)
    assert list(measured) == list(INFERENCES)
    wanted = [values.max() for values in measured.values()]
    for hit in hits:
        batch = job.run(hit, hit + 1)
        assert_array_equal(batch.maxima, [wanted])
        assert (batch.sums["null_up"] == 1).all() and (batch.sums["null_low"] == 1).all()


# with a table, and without


def without_table(job: Subtraction, expected: Batch) -> None:
    """The same bits when maps are rebuilt from foci."""
    again = from_dataset(job.to_dataset())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subtraction, "TABLE_BYTES", 0)
        assert again.table().rows is None
    assert job.table().rows is not None
    assert_same_batch(again.run(0, len(expected.maxima)), expected)
    for iteration in range(2):
        assert_array_equal(again.first_sums(iteration), job.first_sums(iteration))


@pytest.mark.parametrize("threshold", [0.0, ALE_THRESH, 0.99])
@pytest.mark.parametrize(("n", "n_first"), [(18, 7), (18, 12), (2, 1)])
def test_table__same_bits_without(n: int, n_first: int, threshold: float) -> None:
    job = replace(pair(n, n_first).subtraction(), stat_thresh=threshold)
    without_table(job, job.run(0, N_ITERS))


@pytest.mark.parametrize("block", [1, 64, 100, 499, 500])
def test_table__same_bits_for_any_block_of_voxels(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pair(18, 12).subtraction().run(0, 9)
    assert SPACE.n_voxels == 500 < difference.BLOCK
    monkeypatch.setattr(difference, "BLOCK", block)
    job = pair(18, 12).subtraction()
    rows = job.table().rows
    assert rows is not None and rows.place.shape == (-(-500 // block), 18)
    assert_same_batch(job.run(0, 9), expected)
    assert threshold_of(job, 0.05) == pair(18, 12).subtraction(None, p=0.05).stat_thresh


def test_table__is_built_once_and_stays_with_another_threshold() -> None:
    job = pair().subtraction()
    assert job.table() is job.table()
    other = job.with_threshold(0.01)
    assert other.stat_thresh == 0.01 and other.table() is job.table()
    assert_same_batch(other.run(0, 5), replace(job, stat_thresh=0.01).run(0, 5))


def test_task_bytes__are_fewer_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    job = pair().subtraction()
    with_table = job.task_bytes()
    monkeypatch.setattr(subtraction, "TABLE_BYTES", 0)
    assert 0 < job.task_bytes() < with_table
    assert job.facts() == {"stat_thresh": ALE_THRESH}
    assert replace(job, with_clusters=False).facts() == {"stat_thresh": None}


# the threshold of clusters


@pytest.mark.parametrize("p", [0.5, 0.05, 0.001, 1e-6])
def test_threshold_of__is_the_quantile_of_iterations_of_its_own(p: float) -> None:
    groups = pair(5, 2)
    job = groups.subtraction()
    found = threshold_of(job, p)
    apart = replace(job, step=STEPS["threshold"])
    n_iters = 200  # of so few voxels
    values = np.array([apart.differences(apart.first_sums(i)) for i in range(n_iters)])
    exact = np.quantile(np.abs(values.astype(np.float64)), 1 - p)
    # Both go from one value to the next by a share, one forwards and the other backwards.
    assert_allclose(found, exact, rtol=4 * 2.0**-53, atol=0)
    wanted = reference.subtraction_permutations(groups.activation, chosen_of(apart, n_iters))
    near = reference.subtraction_threshold(wanted, p)
    assert abs(found - near) <= difference_error(job, groups.activation).max()
    assert groups.subtraction(None, p=p).stat_thresh == found
    assert not np.array_equal(chosen_of(apart, 20), chosen_of(job, 20)), "of a stream of their own"


def test_threshold_of__same_bits_without_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    found = threshold_of(pair().subtraction(), 0.05)
    monkeypatch.setattr(subtraction, "TABLE_BYTES", 0)
    job = from_dataset(pair().subtraction().to_dataset())
    assert threshold_of(job, 0.05) == found and job.table().rows is None


def test_threshold_of__one_value_everywhere() -> None:
    # One focus each, at the same place: no division differs.
    one, other = (make_corpus([[[0.0, 0, 0]]] * 3, prefix=name) for name in ("one", "two"))
    job = ALE.permutation_job(
        pool(one, other, SPACE), random_state=0, voxel_thresh=0.05, stat_thresh=None
    )
    assert job.stat_thresh == 0
    batch = job.run(0, 7)
    assert (batch.maxima == 0).all()
    assert (batch.sums["null_up"] == 7).all() and (batch.sums["null_low"] == 7).all()


# who is chosen


@pytest.mark.parametrize(("n", "n_first"), SIZES)
def test_chosen__equals_whole_numbers_of_python(n: int, n_first: int) -> None:
    job = pair(n, n_first).subtraction(seed=2**60)
    for iteration in (0, 1, 4999):
        seeds = SeedSequence(2**60, spawn_key=(0, iteration))
        drawn = fisher_yates(PCG64(seeds).random_raw(min(n_first, n - n_first)).tolist(), n)
        wanted = sorted(set(range(n)) - set(drawn)) if 2 * n_first > n else drawn
        assert job.chosen(iteration).tolist() == wanted


def test_chosen__is_that_of_chi_square_of_the_same_seed() -> None:
    for n_first in (7, 12):
        groups = pair(18, n_first)
        one, other = groups.subtraction(), groups.label_counts()
        assert_array_equal(chosen_of(one, 9), [other.chosen(i) for i in range(9)])


# parts of a run


@pytest.mark.parametrize("n_first", [7, 12])
def test_run__iterations_do_not_depend_on_where_a_batch_begins(n_first: int) -> None:
    job = pair(18, n_first).subtraction()
    whole = job.run(0, 20)
    parts = [job.run(*span) for span in [(0, 1), (1, 8), (8, 19), (19, 20)]]
    maxima = np.concatenate([part.maxima for part in parts])
    sums = {name: np.sum([part.sums[name] for part in parts], axis=0) for name in whole.sums}
    assert_same_batch(Batch(maxima=maxima, sums=sums), whole)
    assert (whole.sums["null_up"] + whole.sums["null_low"] >= 20).all()


def changed() -> Subtraction:
    """A job with no field as it is in another."""
    return replace(
        pair().subtraction(), stat_thresh=0.25, with_clusters=False, random_state=2**60, step=1
    )


@pytest.mark.parametrize("stored", [False, True])
def test_dataset__there_and_back(stored: bool, tmp_path: Path) -> None:
    for job in (pair().subtraction(), changed()):
        dataset = job.to_dataset()
        assert dataset.attrs["job"] == "subtraction"
        if stored:
            dataset.to_zarr(tmp_path / "inputs", mode="w", zarr_format=3, consolidated=False)
            dataset = xr.open_zarr(tmp_path / "inputs", consolidated=False, chunks=None).load()
        again = from_dataset(dataset)
        assert same(job, again)
        assert_same_batch(again.run(0, 3), job.run(0, 3))
        xr.testing.assert_identical(again.to_dataset(), job.to_dataset())


def test_dataset__says_every_field() -> None:
    again, plain = from_dataset(changed().to_dataset()), pair(5, 2).subtraction()
    for field in fields(Subtraction):
        if field.name != "mask":
            assert not same(getattr(again, field.name), getattr(plain, field.name)), field.name


def test_pickle__does_not_carry_tables() -> None:
    job = replace(pair().subtraction())
    before = pickle.dumps(job)
    expected = job.run(0, 4)
    assert {"_table", "place"} <= set(vars(job)), "there must be something to leave out"
    after = pickle.dumps(job)
    assert len(after) == len(before)
    again: Any = pickle.loads(after)
    assert set(vars(again)) == {field.name for field in fields(Subtraction)}
    assert_same_batch(again.run(0, 4), expected)


def test_fwhm__of_the_reference_is_that_of_the_kernel() -> None:
    assert ALE.kernel.fwhm == FWHM
