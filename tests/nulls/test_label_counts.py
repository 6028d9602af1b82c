"""Iterations of chi-square in which labels are shuffled, against the slow reference."""

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
from scipy import stats

from nimare_dask.kernels.footprints import sphere_columns
from nimare_dask.nulls.jobs import n_maxima
from nimare_dask.nulls.label_counts import LabelCounts, chi2_threshold, from_dataset
from nimare_dask.nulls.observed import chi2_measures
from tests.foci import draw_case
from tests.group_pairs import (
    CHI2,
    CHI2_THRESH,
    EFFECTS,
    INFERENCES,
    P,
    assert_chi2_maxima,
    fisher_yates,
    n_at_the_edge,
    pair,
)
from tests.groups import SPACE
from tests.nulls.test_relocation import same
from tests.reference import two_groups as reference
from tests.reference.kernel import mkda_maps

N_ITERS = 25
#: Groups that are smaller, half, larger, and as small and as large as can be.
SIZES = [(18, 7), (18, 9), (18, 12), (18, 1), (18, 17), (5, 2), (2, 1)]


def maxima_of(job: LabelCounts, start: int = 0, stop: int = N_ITERS) -> NDArray[np.float64]:
    """Maxima (iteration, label...) as a null has them."""
    batch = job.run(start, stop)
    assert batch.maxima.shape == (stop - start, n_maxima(job)) and not batch.sums
    return batch.maxima.reshape(stop - start, *(len(labels) for labels in job.labels.values()))


def drawn(job: LabelCounts, iteration: int, size: int) -> list[int]:
    """Who has the label, by whole numbers of Python."""
    n, is_rest = job.n_analyses, 2 * size > job.n_analyses
    seeds = SeedSequence(job.random_state, spawn_key=(job.step, iteration))
    count = n - size if is_rest else size
    first = fisher_yates(PCG64(seeds).random_raw(count).tolist(), n)
    return sorted(set(range(n)) - set(first)) if is_rest else first


# against the reference


@pytest.mark.parametrize(("n", "n_first"), SIZES)
def test_run__equals_reference(n: int, n_first: int) -> None:
    groups = pair(n, n_first)
    job = groups.label_counts()
    chosen = np.array([job.chosen(iteration) for iteration in range(N_ITERS)])
    assert chosen.shape == (N_ITERS, n_first)
    n_edges = 0
    for rows in chosen:
        others = np.setdiff1d(np.arange(n), rows)
        ones, twos = (groups.active[part].sum(axis=0) for part in (rows, others))
        n_edges += n_at_the_edge(ones, twos, n_first, n - n_first, CHI2_THRESH)
    assert n_edges == 0
    wanted = reference.label_permutation_maxima(groups.active, chosen, SPACE.mask, P, 0.0)
    found = maxima_of(job)
    assert_chi2_maxima(found, wanted, CHI2_THRESH)
    assert n == 2 or (found[..., 1] > 1).any(), "the case must find clusters"


@pytest.mark.parametrize("p", [0.5, 0.001, 1e-12])
def test_run__equals_reference_at_other_thresholds(p: float) -> None:
    groups, thresh = pair(), chi2_threshold(p)
    assert thresh is not None
    job = groups.label_counts(p)
    assert job.chi2_thresh == thresh == float(stats.chi2.isf(p, 1))
    chosen = np.array([job.chosen(iteration) for iteration in range(10)])
    wanted = reference.label_permutation_maxima(groups.active, chosen, SPACE.mask, p, 0.0)
    assert_chi2_maxima(maxima_of(job, 0, 10), wanted, thresh)
    if p == 1e-12:  # chi-square of 18 analyses is at most 18, for association
        assert (maxima_of(job, 0, 10)[:, 1, 1:] == 0).all()


def test_run__chi_square_where_nobody_is_active_is_zero() -> None:
    # A fitted map of chi-square says 2 there (NiMARE's convention) and z = 0; a null is of z.
    groups, p = pair(5, 2), 0.2
    job, thresh = groups.label_counts(p), chi2_threshold(p)
    assert thresh is not None and thresh < 2 and (~groups.active).all(axis=0).any()
    chosen = np.array([job.chosen(iteration) for iteration in range(8)])
    zero, two = (
        reference.label_permutation_maxima(groups.active, chosen, SPACE.mask, p, degenerate)
        for degenerate in (0.0, 2.0)
    )
    assert_chi2_maxima(maxima_of(job, 0, 8), zero, thresh)
    assert (two[:, 1, 1] > zero[:, 1, 1]).any()


def test_run__the_observed_division_reaches_what_is_observed() -> None:
    # Of five analyses two: each of the ten groups comes up, among them the one that was fitted.
    groups = pair(5, 2)
    job, maps = groups.label_counts(), CHI2.fit(groups.first, groups.second, space=SPACE)
    mine = set(groups.rows.tolist())
    hits = [i for i in range(60) if set(job.chosen(i).tolist()) == mine]
    assert len(hits) > 2
    found = maxima_of(job, 0, 60)[hits]
    for row, effect in enumerate(EFFECTS):
        z = maps["z"].sel(effect=effect).values
        wanted = [chi2_measures(SPACE.mask, CHI2_THRESH, name)(z).max() for name in INFERENCES]
        assert_array_equal(found[:, row], np.broadcast_to(wanted, (len(hits), 3)))


def test_run__many_analyses_are_counted_in_32_bits() -> None:
    # 32,900 of 33,000 analyses are active at one voxel, most of them in no group; foci lie at ten
    # places.
    n, mask = 33_000, np.ones((3, 3, 4), bool)
    places = np.argwhere(mask)[np.random.default_rng(0).permutation(36)[:10]]
    place = np.arange(n) % 9 + 1
    place[:32_900] = np.where(np.arange(32_900) % 40 == 0, place[:32_900], 0)
    twice = np.stack([np.broadcast_to(places[0], (n, 3)), places[place]], axis=1).astype(np.int16)
    twice[32_900:, 0] = places[place[32_900:]]
    job = LabelCounts(
        ijk=twice.reshape(-1, 3),
        n_foci=np.full(n, 2, np.int32),
        columns=sphere_columns((2.0, 2.0, 2.0), 2.0),
        mask=mask,
        sizes=np.array([20, 20_000]),
        effects=EFFECTS,
        chi2_thresh=CHI2_THRESH,
        random_state=1,
        by_size=True,
    )
    maps = mkda_maps(list(places[:, None]), mask, [2.0] * 3, 2.0)
    active = maps[place]
    active[:32_900] |= maps[0]
    assert active.sum(axis=0).max() > np.iinfo(np.int16).max
    assert_array_equal(job.tables().margins.n_active, active.sum(axis=0))
    found = maxima_of(job, 0, 2)
    for column, size in enumerate(job.sizes.tolist()):
        for iteration in range(2):
            inside = np.zeros(n, bool)
            inside[job.chosen(iteration, size)] = True
            counts = active[inside].sum(axis=0), active[~inside].sum(axis=0)
            wanted = reference.chi2_maxima(*counts, size, n - size, mask, P, 0.0)
            assert_chi2_maxima(found[iteration, column], wanted, CHI2_THRESH)


# who is chosen


@pytest.mark.parametrize(("n", "n_first"), SIZES)
def test_chosen__equals_whole_numbers_of_python(n: int, n_first: int) -> None:
    job = pair(n, n_first).label_counts(seed=2**60)
    for iteration in (0, 1, 4999):
        assert job.chosen(iteration).tolist() == drawn(job, iteration, n_first)


# Written down once; a run that was begun with another version must be able to go on.
GOLDEN = {
    0: [2, 9, 0, 5, 7, 8, 10],
    1: [14, 5, 13, 17, 6, 4, 7],
    4999: [5, 15, 11, 10, 1, 4, 14],
}


@pytest.mark.parametrize("iteration", GOLDEN)
def test_chosen__of_a_seed_are_these(iteration: int) -> None:
    job = pair(18, 7).label_counts(seed=20240131)
    assert job.chosen(iteration).tolist() == GOLDEN[iteration]


def test_chosen__depends_on_seed_step_and_iteration_only() -> None:
    job = pair(18, 7).label_counts()
    first = job.chosen(3).tolist()
    assert first == pair(18, 7).label_counts().chosen(3).tolist()
    assert first[:2] == replace(job, sizes=np.array([2])).chosen(3).tolist()
    assert first != job.chosen(4).tolist()
    assert first != replace(job, step=2).chosen(3).tolist()
    assert first != replace(job, random_state=6).chosen(3).tolist()


# groups of several sizes


def test_sizes__each_equals_a_job_of_its_own() -> None:
    job = pair(18, 7).label_counts()
    sizes = np.array([1, 3, 9, 11, 15, 17])
    together = maxima_of(replace(job, sizes=sizes, by_size=True))
    assert together.shape == (N_ITERS, 6, 3, 3)
    for column, size in enumerate(sizes.tolist()):
        alone = replace(job, sizes=np.array([size]))
        assert_array_equal(together[:, column], maxima_of(alone))
        several = replace(job, sizes=sizes)
        for iteration in range(5):
            assert set(several.chosen(iteration, size)) == set(alone.chosen(iteration))


def test_effects__each_equals_a_job_of_all() -> None:
    job = pair(18, 7).label_counts()
    whole = maxima_of(job)
    for effects in (("association",), ("group2", "uniformity"), ("association", "group2")):
        columns = [EFFECTS.index(name) for name in effects]
        assert_array_equal(maxima_of(replace(job, effects=effects)), whole[:, columns])


@pytest.mark.parametrize("n_first", [7, 1])
def test_threshold__none_leaves_clusters_out(n_first: int) -> None:
    # No chi-square is as high as where voxels are looked for then.
    job = pair(18, n_first).label_counts()
    without = replace(job, chi2_thresh=None)
    assert without.labels["inference"] == ["voxel"]
    assert_array_equal(maxima_of(without)[..., 0], maxima_of(job)[..., 0])


# parts of a run


def test_run__iterations_do_not_depend_on_where_a_batch_begins() -> None:
    job = replace(pair(18, 7).label_counts(), sizes=np.array([3, 7, 14]), by_size=True)
    whole = maxima_of(job, 0, 20)
    parts = [maxima_of(job, *span) for span in [(0, 1), (1, 8), (8, 19), (19, 20)]]
    assert_array_equal(np.concatenate(parts), whole)


def changed() -> LabelCounts:
    """A job with no field as it is made by default."""
    return replace(
        pair(18, 7).label_counts(p=None),
        sizes=np.array([2, 5, 12]),
        effects=("group2", "association"),
        chi2_thresh=3.25,
        random_state=2**60,
        step=1,
        by_size=True,
    )


@pytest.mark.parametrize("stored", [False, True])
def test_dataset__there_and_back(stored: bool, tmp_path: Path) -> None:
    for job in (pair(18, 7).label_counts(), pair(18, 7).label_counts(p=None), changed()):
        dataset = job.to_dataset()
        assert dataset.attrs["job"] == "label counts"
        if stored:
            dataset.to_zarr(tmp_path / "inputs", mode="w", zarr_format=3, consolidated=False)
            dataset = xr.open_zarr(tmp_path / "inputs", consolidated=False, chunks=None).load()
        again = from_dataset(dataset)
        assert same(job, again)
        assert_array_equal(maxima_of(again, 0, 3), maxima_of(job, 0, 3))
        xr.testing.assert_identical(again.to_dataset(), job.to_dataset())


def test_dataset__says_every_field() -> None:
    again, plain = from_dataset(changed().to_dataset()), pair(5, 2).label_counts()
    for field in fields(LabelCounts):
        if field.name not in ("columns", "mask"):
            assert not same(getattr(again, field.name), getattr(plain, field.name)), field.name


def test_pickle__does_not_carry_tables() -> None:
    job = pair(18, 7).label_counts()
    before = pickle.dumps(job)
    expected = maxima_of(job)
    assert {"_corpus", "groups"} <= set(vars(job)), "the case must have something to leave out"
    after = pickle.dumps(job)
    assert len(after) == len(before)
    again: Any = pickle.loads(after)
    assert set(vars(again)) == {field.name for field in fields(LabelCounts)}
    assert_array_equal(maxima_of(again), expected)


def test_tables__are_built_once() -> None:
    job = pair(18, 7).label_counts()
    assert job.tables() is job.tables()
    # For all nulls of a corpus, and of the latest corpus only.
    assert replace(job, step=1, sizes=np.array([3])).tables() is job.tables()
    before = job.tables()
    other = replace(job, n_foci=job.n_foci[::-1].copy())
    assert other.tables() is not before
    assert job.tables() is not before


def test_run__foci_outside_the_mask_count_where_they_reach() -> None:
    case = draw_case(3, (5, 6, 7), n_analyses=9, n_foci=40)
    order = np.argsort(case.owner, kind="stable")
    job = LabelCounts(
        ijk=case.ijk[order].astype(np.int16),
        n_foci=np.bincount(case.owner, minlength=9).astype(np.int32),
        columns=sphere_columns(case.zooms, case.r),
        mask=case.mask,
        sizes=np.array([4]),
        effects=EFFECTS,
        chi2_thresh=CHI2_THRESH,
        random_state=0,
    )
    chosen = np.array([job.chosen(iteration) for iteration in range(8)])
    wanted = reference.label_permutation_maxima(case.expected, chosen, case.mask, P, 0.0)
    assert_chi2_maxima(maxima_of(job, 0, 8), wanted, CHI2_THRESH)


def test_facts__say_sizes_and_threshold() -> None:
    job = pair(18, 7).label_counts()
    assert job.task_bytes() > 0
    assert job.facts() == {
        "chi2_thresh": CHI2_THRESH,
        "sizes": [7],
        "effects": list(EFFECTS),
    }
