"""Benchmarks of the kernels at small size; ``pytest -m bench --benchmark-enable`` measures them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture
from scipy.sparse import csr_matrix

import nimare_dask as nd
from nimare_dask import activation
from nimare_dask.estimators.prepared import Prepared
from nimare_dask.kernels import chi2, coverage, overlay, tally
from nimare_dask.kernels.fold import fold_histograms
from nimare_dask.kernels.levels import look_up
from nimare_dask.nulls.approximate import ale_bins
from tests.benchmarks import jobs
from tests.benchmarks.amounts import KINDS, Kind
from tests.benchmarks.group import estimator_of
from tests.benchmarks.inputs import small_inputs
from tests.reference import nulls

pytestmark = pytest.mark.bench

N_GROUPS = 32


@dataclass(frozen=True)
class Case:
    """What the kernels work on: 300 analyses in 32 random groups and in one of all."""

    space: nd.Space
    corpus: xr.Dataset
    index: coverage.FocusIndex
    lines: coverage.VoxelLines
    members: NDArray[np.bool_]
    group_start: NDArray[np.int64]
    group: NDArray[np.int32]
    maps: xr.Dataset

    @property
    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
        return self.group_start, self.group, self.members.shape[1]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    inputs = small_inputs(tmp_path_factory.mktemp("kernels"))
    space = nd.load_space(inputs.mask)
    corpus = nd.open_corpus(inputs.corpus)
    foci = activation.locate([corpus], space)
    footprint = nd.MKDAKernel().footprint(space)
    owner = nd.corpus.analysis_of_focus(corpus)
    index = coverage.index_foci(foci.ijk, owner, footprint, space.shape, foci.n_analyses)
    members = np.random.default_rng(0).random((foci.n_analyses, N_GROUPS + 1)) < 0.1
    members[:, -1] = True
    sparse = csr_matrix(members)
    return Case(
        space=space,
        corpus=corpus,
        index=index,
        lines=coverage.group_lines(space.voxel_ijk),
        members=members,
        group_start=sparse.indptr.astype(np.int64),
        group=sparse.indices.astype(np.int32),
        maps=jobs.fit(jobs.groups(corpus, inputs.feature), space).sel(effect=["association"]),
    )


@pytest.fixture(scope="module")
def expected(case: Case) -> NDArray[np.int64]:
    """Counts from the dense array of activation."""
    active = coverage.dense_activation(case.index, case.lines).astype(np.int64)
    return active.T @ case.members


def test_count_active__speed(
    benchmark: BenchmarkFixture, case: Case, expected: NDArray[np.int64]
) -> None:
    counts = benchmark(coverage.count_active, case.index, case.lines, *case.groups)
    np.testing.assert_array_equal(counts, expected)


def test_list_runs__speed(benchmark: BenchmarkFixture, case: Case) -> None:
    runs = benchmark(coverage.list_runs, case.index, case.lines)
    assert runs.start[-1] == len(runs.begin) > 1000
    assert (runs.begin < runs.end).all()


def test_count_from_runs__speed(
    benchmark: BenchmarkFixture, case: Case, expected: NDArray[np.int64]
) -> None:
    runs = coverage.list_runs(case.index, case.lines)
    length = case.space.shape[2]
    counts = benchmark(coverage.count_from_runs, runs, case.lines, length, *case.groups)
    np.testing.assert_array_equal(counts, expected)


def test_count_voxels__speed(benchmark: BenchmarkFixture, case: Case) -> None:
    extent = benchmark(coverage.count_voxels, case.index, case.lines)
    assert extent.shape == (case.index.n_analyses,)
    dense = coverage.dense_activation(case.index, case.lines)
    np.testing.assert_array_equal(extent, dense.sum(axis=1))


def test_association_z__speed(
    benchmark: BenchmarkFixture, case: Case, expected: NDArray[np.int64]
) -> None:
    n_selected = case.members.sum(axis=0)[:-1]
    counts = expected.astype(np.int32)
    z = benchmark(chi2.association_z, counts, n_selected, len(case.members), np.float32)
    assert z.shape == (N_GROUPS, case.space.n_voxels)
    a, active, n = expected[:, 0], expected[:, -1], len(case.members)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = a * (n - n_selected[0]) - (active - a) * n_selected[0]
        margins = active * (n - active) * n_selected[0] * (n - n_selected[0])
        by_hand = np.nan_to_num(excess * np.sqrt(n / margins))
    np.testing.assert_allclose(z[0], by_hand, rtol=1e-6, atol=1e-6)


def test_look_up__speed(benchmark: BenchmarkFixture, case: Case) -> None:
    values = np.abs(case.maps["z"].values[0])
    levels = np.unique(values)
    out = np.empty_like(values)
    benchmark(look_up, values, levels, 2 * levels, out)
    np.testing.assert_array_equal(out, 2 * values)


def test_correct_fdr_of_one_map__speed(benchmark: BenchmarkFixture, case: Case) -> None:
    corrected = benchmark(nd.correct_fdr, case.maps)["z_fdr_indep"].values
    z = case.maps["z"].values
    assert (np.abs(corrected) <= np.abs(z) + 1e-5).all()
    assert (corrected * z >= 0).all()


# Kernels of one group of analyses.


@pytest.mark.parametrize("kind", KINDS)
def test_sum_footprints__speed(benchmark: BenchmarkFixture, case: Case, kind: Kind) -> None:
    estimator = estimator_of(kind)
    prepared = Prepared(estimator, case.corpus, case.space)
    statistic, foci = prepared.statistic, prepared.foci
    sums = np.empty(case.space.n_voxels, statistic.footprints.values.dtype)
    benchmark(
        overlay.sum_footprints,
        foci.ijk.astype(np.int32),
        foci.owner,
        statistic.footprint_of,
        statistic.footprints,
        statistic.union,
        overlay.place_of(case.space.mask),
        sums,
    )
    each = nd.activation_maps(case.corpus, estimator.kernel, case.space).values.astype(np.float64)
    if kind == "ale":
        each = np.rint(-np.log1p(-each) * statistic.scale)
    np.testing.assert_array_equal(sums, each.sum(axis=0))


@pytest.fixture(scope="module")
def ale(case: Case) -> Prepared:
    return Prepared(estimator_of("ale"), case.corpus, case.space)


def test_tally__speed(benchmark: BenchmarkFixture, case: Case, ale: Prepared) -> None:
    sums, steps = ale.observed_sums(case.space), ale.statistic.steps
    counts = np.zeros(len(steps.edges), np.int64)
    benchmark(tally.tally, sums, steps, counts)
    n_rounds, rest = divmod(int(counts.sum()), len(sums))
    assert n_rounds >= 1
    assert rest == 0
    by_hand = np.searchsorted(steps.edges, sums, side="right") - 1
    np.testing.assert_array_equal(counts, n_rounds * np.bincount(by_hand, minlength=len(counts)))


def test_largest_clusters__speed(benchmark: BenchmarkFixture, case: Case, ale: Prepared) -> None:
    stat = ale.statistic.values(ale.observed_sums(case.space)).astype(np.float64)
    threshold = float(np.quantile(stat, 0.9))
    above = np.flatnonzero(stat > threshold)
    neighbours = tally.neighbours_of(case.space.mask)
    label = np.zeros(neighbours.size, np.int32)
    excess = stat[above] - threshold
    found = benchmark(tally.largest_clusters, above, excess, neighbours, label)
    volume = np.zeros(case.space.shape)
    volume[case.space.mask] = stat
    clusters, (size, mass) = nulls.cluster_measures(volume, threshold)
    assert len(clusters) > 20
    assert found[0] == size
    np.testing.assert_allclose(found[1], mass, rtol=1e-12)
    assert not label.any()


def test_largest_enhanced__speed(benchmark: BenchmarkFixture, case: Case) -> None:
    z = np.maximum(case.maps["z"].values[0].astype(np.float64), 0)
    step = 0.5
    heights = step * np.arange(1, int(z.max() / step) + 1)
    level = np.searchsorted(heights, z, side="right").astype(np.int32)
    weights = np.append(0, heights**2 * step)
    extent_power = np.arange(len(z) + 1.0) ** 0.5
    neighbours = tally.neighbours_of(case.space.mask)
    label = np.zeros(neighbours.size, np.int32)
    found = benchmark(tally.largest_enhanced, level, weights, extent_power, neighbours, label)
    volume = np.zeros(case.space.shape)
    volume[case.space.mask] = z
    np.testing.assert_allclose(found, nulls.tfce(volume, 0.5, 2.0, step).max(), rtol=1e-12)
    assert not label.any()


def test_fold_histograms__speed(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    bins = ale_bins(np.full(10, 0.003, np.float32))
    histograms = rng.gamma(0.3, size=(10, 301))
    histograms /= histograms.sum(axis=1, keepdims=True)
    weights = benchmark(fold_histograms, histograms, bins)
    dense = np.zeros((10, len(bins)))
    dense[:, :301] = histograms
    np.testing.assert_allclose(weights, nulls.ale_fold(list(dense), bins), rtol=1e-12)
