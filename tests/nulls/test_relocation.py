"""One iteration: where foci fall, and what is read off the map by plain loops."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.random import PCG64, SeedSequence
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from scipy import ndimage, stats

import nimare_dask as nd
from nimare_dask.estimators.prepared import Prepared
from nimare_dask.nulls.monte_carlo import relocate
from nimare_dask.nulls.relocation import Relocation, from_dataset
from nimare_dask.space import Space
from tests.null_runs import NAMES, SPACE, corpus, estimator, job
from tests.overlays import Overlay

FACES = ndimage.generate_binary_structure(3, 1)
TFCE = nd.Enhancement(E=0.6, H=1.5, step=0.25)


def places(n_places: int, n_foci: int, *, seed: int = 20240131, step: int = 0) -> Relocation:
    """Foci on a pool of numbered places, so that what is drawn can be read."""
    pool = np.zeros((n_places, 3), np.int32)
    pool[:, 0] = np.arange(n_places)
    n_foci_of = np.array([n_foci], np.int32)
    return replace(job("mkda"), pool=pool, n_foci=n_foci_of, random_state=seed, step=step)


def drawn(relocation: Relocation, iteration: int) -> list[int]:
    found = relocation.draw(iteration)
    assert found.dtype == np.int32 and found.shape == (len(relocation.owner), 3)
    return [int(place) for place in found[:, 0]]


# draws

# Written down once; a run that was begun with another version must be able to go on.
GOLDEN = {
    (1_000, 0, 0): [133, 521, 24, 173, 231, 250, 395, 77],
    (1_000, 0, 1): [815, 245, 746, 989, 213, 152, 104, 261],
    (1_000, 1, 0): [14, 207, 677, 329, 959, 272, 871, 945],
    (235_375, 0, 0): [31469, 122751, 5831, 40886, 54482, 59060, 93103, 18141],
    (235_375, 0, 4999): [72331, 195038, 136022, 121775, 201600, 187083, 162029, 197669],
}


@pytest.mark.parametrize(("n_places", "step", "iteration"), GOLDEN)
def test_draw__first_foci_of_a_seed_are_these(n_places: int, step: int, iteration: int) -> None:
    found = drawn(places(n_places, 8, step=step), iteration)
    assert found == GOLDEN[n_places, step, iteration]


@pytest.mark.parametrize("n_places", [1, 2, 1000, 235_375, 2**31 - 1])
def test_draw__is_the_upper_half_of_a_product(n_places: int) -> None:
    few = places(min(n_places, 1000), 50, seed=7)
    raw = PCG64(SeedSequence(7, spawn_key=(0, 12))).random_raw(50)
    wanted = [(int(number) * n_places) >> 64 for number in raw]
    assert max(wanted) < n_places
    if n_places <= 1000:
        assert drawn(few, 12) == wanted
        return

    object.__setattr__(few, "pool", range(n_places))  # only its length is asked for
    assert few.draw_places(12).tolist() == wanted


def test_draw__is_uniform_over_the_pool() -> None:
    relocation = places(97, 2000)
    found = np.concatenate([drawn(relocation, iteration) for iteration in range(100)])
    counts = np.bincount(found, minlength=97)
    assert len(counts) == 97
    assert 0.001 < stats.chisquare(counts).pvalue < 0.999
    # One after the other, and the same focus from one iteration to the next: pairs are uniform too.
    after = np.bincount(found[:-1] % 10 * 10 + found[1:] % 10, minlength=100)
    shares = np.bincount(np.arange(97) % 10) / 97
    for pairs in (after, np.bincount(found[:-2000] % 10 * 10 + found[2000:] % 10, minlength=100)):
        wanted = np.outer(shares, shares).ravel() * pairs.sum()
        assert 0.001 < stats.chisquare(pairs, wanted).pvalue < 0.999


def test_draw__a_place_that_is_there_twice_is_drawn_twice_as_often() -> None:
    relocation = places(10, 5000)
    twice = np.concatenate([relocation.pool, relocation.pool[:1]])
    found = np.concatenate([drawn(replace(relocation, pool=twice), i) for i in range(20)])
    counts = np.bincount(found, minlength=10)
    assert stats.chisquare(counts, np.array([2, *[1] * 9]) / 11 * counts.sum()).pvalue > 0.001


def test_draw__depends_on_seed_step_and_iteration_only() -> None:
    one = drawn(places(1000, 40), 3)
    assert one == drawn(places(1000, 40), 3)
    assert one[:20] == drawn(places(1000, 20), 3), "the first foci do not depend on later ones"
    assert one != drawn(places(1000, 40), 4)
    assert one != drawn(places(1000, 40, step=1), 3)
    assert one != drawn(places(1000, 40, seed=20240132), 3)


def test_draw__analyses_keep_their_number_of_foci() -> None:
    relocation = job("mkda")
    assert_array_equal(np.bincount(relocation.owner), corpus()["analysis_n_foci"].values)
    assert SPACE.mask[tuple(relocation.draw(0).T)].all()


@pytest.mark.parametrize("name", [*NAMES, "weighted"])
def test_run__iterations_do_not_depend_on_where_a_batch_begins(name: str) -> None:
    relocation = job(name, tfce=None if name == "scale" else TFCE)
    whole = relocation.run(0, 20)
    parts = [relocation.run(*span) for span in [(0, 1), (1, 8), (8, 19), (19, 20)]]
    assert_array_equal(np.concatenate([part.maxima for part in parts]), whole.maxima)
    assert_array_equal(
        sum(part.sums["null_histogram"] for part in parts), whole.sums["null_histogram"]
    )
    if "null_reaching" in whole.sums:
        reaching = sum(part.sums["null_reaching"] for part in parts)
        assert_array_equal(reaching, whole.sums["null_reaching"])


# there and back


def same(one: Any, other: Any) -> bool:
    """Whether two parts of a relocation are the same, with the types of their arrays."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        names = one.__dataclass_fields__
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", [*NAMES, "weighted"])
def test_dataset__there_and_back(name: str, stored: bool, tmp_path: Path) -> None:
    relocation = job(name, tfce=None if name == "scale" else TFCE)
    dataset = relocation.to_dataset()
    if stored:
        dataset.to_zarr(tmp_path / "inputs", zarr_format=3, consolidated=False)
        dataset = xr.open_zarr(tmp_path / "inputs", consolidated=False, chunks=None).load()
    again = from_dataset(dataset)
    assert same(relocation, again)
    one, other = relocation.run(0, 5), again.run(0, 5)
    assert_array_equal(one.maxima, other.maxima)
    assert_array_equal(one.sums["null_histogram"], other.sums["null_histogram"])
    xr.testing.assert_identical(again.to_dataset(), relocation.to_dataset())


def test_dataset__says_every_field() -> None:
    """A field that is added must be kept too: each one that is not its default comes back."""
    changed = replace(
        job("mkda", tfce=TFCE),
        random_state=2**60,
        step=1,
        observed=np.arange(SPACE.n_voxels, dtype=np.int32),
    )
    again = from_dataset(changed.to_dataset())
    assert same(changed, again)
    plain = Relocation(
        statistic=changed.statistic,
        n_foci=changed.n_foci,
        pool=changed.pool,
        mask=changed.mask,
        random_state=1,
    )
    for name in Relocation.__dataclass_fields__:
        if name not in ("statistic", "n_foci", "pool", "mask"):
            assert not same(getattr(again, name), getattr(plain, name)), name


# brute force


@dataclass(frozen=True)
class Case:
    """An estimator, a corpus and a space, done by plain loops."""

    chosen: Any
    corpus: xr.Dataset
    space: Space

    def prepare(self) -> tuple[Relocation, Prepared]:
        prepared = Prepared(self.chosen, self.corpus, self.space)
        own_null = isinstance(self.chosen, nd.SCALE)
        relocation = relocate(
            self.chosen,
            prepared,
            self.space,
            random_state=9,
            voxel_thresh=0.05,
            coverage="brain",
            maps=None if own_null else self.fit(),
            tfce=None if own_null else TFCE,
        )
        return relocation, prepared

    def fit(self) -> xr.Dataset:
        maps: xr.Dataset = self.chosen.fit(self.corpus, space=self.space, null_method="fft")
        return maps

    def sums(self, ijk: NDArray[np.int32], owner: NDArray[np.int32], scale: float) -> Any:
        """Footprints in whole numbers of `scale`, laid voxel by voxel, int64 (voxel,)."""
        dense, footprint_of = self.chosen.kernel.footprints(self.corpus, self.space)
        if isinstance(self.chosen, nd.ALE | nd.SCALE):
            dense = [-np.log1p(-footprint) for footprint in dense]
        if isinstance(self.chosen, nd.MKDADensity):
            distinct, which = np.unique(self.chosen.weights(self.corpus), return_inverse=True)
            dense, footprint_of = [weight * dense[0] for weight in distinct], which.astype(np.int32)
        whole = [np.rint(footprint * scale).astype(np.int64) for footprint in dense]
        overlay = Overlay(ijk, owner, footprint_of, whole, self.space.mask)
        return overlay.expected_maps(not isinstance(self.chosen, nd.KDA)).sum(axis=0)

    def clusters(self, stat: NDArray[np.float64], threshold: float) -> list[float]:
        """Size and mass of the largest clusters, by scipy."""
        volume = np.zeros(self.space.shape)
        volume[self.space.mask] = np.where(stat > threshold, stat - threshold, 0.0)
        label, n = ndimage.label(volume > 0, FACES)
        if n == 0:
            return [0.0, 0.0]
        numbers = np.arange(1, n + 1)
        size = ndimage.sum_labels(np.ones(label.shape), label, numbers).max()
        return [float(size), float(ndimage.sum_labels(volume, label, numbers).max())]

    def score(self, stat: NDArray[np.float64], heights: NDArray[np.float64]) -> float:
        """The largest score of threshold-free cluster enhancement, height by height."""
        total = np.zeros(self.space.shape)
        for number, height in enumerate(heights, start=1):
            volume = np.zeros(self.space.shape, bool)
            volume[self.space.mask] = stat >= height
            label = ndimage.label(volume, FACES)[0]
            extent = np.bincount(label.ravel()).astype(np.float64)
            extent[0] = 0.0
            total += extent[label] ** TFCE.E * (number * TFCE.step) ** TFCE.H * TFCE.step
        return float(total.max())

    def check(self, iterations: range) -> None:
        relocation, prepared = self.prepare()
        step, scale = relocation.statistic.bins[1], relocation.statistic.scale
        histogram = np.zeros(len(relocation.statistic.bins), np.int64)
        reaching = np.zeros(self.space.n_voxels, np.int64)
        observed = self.sums(prepared.foci.ijk.astype(np.int32), prepared.foci.owner, scale)
        batch = relocation.run(iterations.start, iterations.stop)
        for row, iteration in enumerate(iterations):
            sums = self.sums(relocation.draw(iteration), relocation.owner, scale)
            share = sums / scale
            stat = 1 - np.exp(-share) if relocation.statistic.probability else share
            stat = stat.astype(np.float32).astype(np.float64)
            wanted = [float(stat.max())]
            if relocation.stat_thresh is not None:
                wanted += self.clusters(stat, relocation.stat_thresh)
            if relocation.heights is not None:
                wanted.append(self.score(stat, relocation.heights))
            np.testing.assert_allclose(batch.maxima[row], wanted, rtol=1e-6)
            np.add.at(histogram, np.floor(stat / step + 0.5).astype(np.int64), 1)
            reaching += sums >= observed
        assert_array_equal(batch.sums["null_histogram"], histogram)
        if relocation.observed is not None:
            assert_array_equal(batch.sums["null_reaching"], reaching)


@pytest.mark.parametrize("name", [*NAMES, "weighted"])
def test_run__equals_dense_maps_and_scipy(name: str) -> None:
    Case(estimator(name), corpus(), SPACE).check(range(60))


@pytest.mark.parametrize("name", ["weighted", "scale"])
def test_run__equals_dense_maps_and_scipy_where_sums_are_wide(name: str) -> None:
    many = nd.simulate_corpus(2500, n_foci=2600, n_features=1, space=SPACE, random_state=4)
    sizes = np.tile([10, 40, 90, 20], 625).astype(np.float32)
    case = Case(estimator(name), many.assign(analysis_sample_size=("analysis", sizes)), SPACE)
    assert case.prepare()[0].statistic.wide
    case.check(range(2))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ale", "mkda", "kda", "scale"])
def test_run__equals_dense_maps_and_scipy_at_2_mm(name: str) -> None:
    space = nd.load_space("mni152_2mm")
    many = nd.simulate_corpus(15, n_foci=90, n_features=1, space=space, random_state=4)
    sizes = np.arange(10, 25).astype(np.float32)
    many = many.assign(analysis_sample_size=("analysis", sizes))
    chosen = {
        "ale": nd.ALE(),
        "mkda": nd.MKDADensity(weighting="sample_size"),
        "kda": nd.KDA(kernel=nd.KDAKernel(r=6)),
        "scale": nd.SCALE(xyz=many["focus_xyz"].values),
    }[name]
    Case(chosen, many, space).check(range(2))
