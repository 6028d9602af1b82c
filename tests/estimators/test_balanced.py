"""Balanced subtraction: subsets, clusters, mean differences and nulls against the reference."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dask
import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import stats

import nimare_dask as nd
from nimare_dask.estimators.balanced import EFFECT, BalancedALESubtraction, subset_schedule
from nimare_dask.estimators.two_groups import pool
from nimare_dask.nulls.jobs import STEPS
from nimare_dask.nulls.mean_difference import MeanDifference
from nimare_dask.nulls.stored import job_of
from nimare_dask.nulls.subsets import Activation, Surviving
from nimare_dask.provenance import steps
from nimare_dask.results import find_map, map_keys
from nimare_dask.space import voxel_to_mm
from tests import slow
from tests.foci import make_corpus
from tests.groups import SPACE
from tests.planted import (
    Groups,
    assert_same_maps,
    bits,
    drawn,
    in_mask,
    planted,
    raw_numbers,
    shuffled,
)
from tests.reference import gaussian
from tests.reference import two_groups as reference
from tests.slow import FLOAT32

KERNEL = nd.ALEKernel(fwhm=20.0)
ALE = nd.ALE(kernel=KERNEL)
SEED, N_ITERS, N_DRAWS, TARGET_N, N_SUBSETS = 4, 12, 3, 6, 10
#: So high that few iterations leave something.
ALPHA, P = 0.2, 0.05
#: Of 13, the first ones.
GREY_PLANES = 9
Z = float(stats.norm.isf(P))
#: Settings of whole fits that are checked; of the second, group 1 has one subset.
FITS = [
    {},
    {"coverage": "gm", "target_n": 7, "voxel_thresh": 0.01},
    {"null_method": "label-permutation"},
]
KINDS = ["sizes1", "subsets1", "sizes2", "subsets2", "difference"]


def by_kind(folder: Path) -> dict[str, Path]:
    """Stores by kind; those of subsets are named by the size that clusters are larger than too."""
    found = {path.name.removesuffix(".zarr").partition("-")[0]: path for path in folder.iterdir()}
    assert len(found) == len(list(folder.iterdir()))
    return found


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@cache
def space() -> nd.Space:
    """The small space, some planes of which are grey matter."""
    made = nd.Space(SPACE.name, SPACE.mask, SPACE.affine)
    grey = np.zeros(SPACE.shape, bool)
    grey[:GREY_PLANES] = True
    made.__dict__["grey_matter"] = grey
    return made


def groups() -> Groups:
    """Groups of 7 and 9 analyses with foci: all but one of the first make a subset."""
    return planted(7, 9, 2)


def estimator(**settings: Any) -> BalancedALESubtraction:
    given: dict[str, Any] = {
        "kernel": KERNEL,
        "target_n": TARGET_N,
        "n_subsamples": N_SUBSETS,
        "difference_iterations": N_DRAWS,
        "coverage": "brain",
        "voxel_thresh": P,
        "alpha": ALPHA,
    }
    return BalancedALESubtraction(**{**given, **settings})


def fit(pair: Any = None, /, **settings: Any) -> xr.Dataset:
    """The planted groups by settings of the estimator and of the fit."""
    of_fit = ("n_iters", "random_state", "store", "report", "space")
    given: dict[str, Any] = {name: settings.pop(name) for name in of_fit if name in settings}
    given = {"space": space(), "n_iters": N_ITERS, "random_state": SEED, **given}
    return estimator(**settings).fit(*(pair or groups().pair), **given)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fit and the folder of its stores, by settings; each is done once."""
    done: dict[Any, tuple[xr.Dataset, Path]] = {}

    def get(**settings: Any) -> tuple[xr.Dataset, Path]:
        key = tuple(sorted(settings.items()))
        if key not in done:
            folder = tmp_path_factory.mktemp("balanced")
            done[key] = fit(**settings, store=folder / "stores"), folder / "stores"
        return done[key]

    return get


def subset_of(corpus: xr.Dataset, rows: Any) -> xr.Dataset:
    """Some analyses, by their place among those with foci in the order of their ids."""
    some = np.flatnonzero(corpus["analysis_n_foci"].values)
    return nd.select(corpus, np.isin(np.arange(corpus.sizes["analysis"]), some[np.asarray(rows)]))


def z_of(corpus: xr.Dataset, kernel: nd.ALEKernel = KERNEL) -> NDArray[np.float32]:
    """z of ALE by its approximate null, (voxel,)."""
    return nd.ALE(kernel=kernel).fit(corpus, space=SPACE)["z"].values


# subsets


@pytest.mark.parametrize(("n", "size"), [(6, 3), (7, 2), (5, 5), (1, 1), (9, 7)])
def test_subset_schedule__all(n: int, size: int) -> None:
    wanted = list(itertools.combinations(range(n), size))
    for n_subsets in (len(wanted), len(wanted) + 1, 2500):
        found = subset_schedule(n, size, n_subsets, 0)
        assert found.dtype == np.int32
        assert_array_equal(found, wanted)
        assert_array_equal(found, reference.subset_schedule(n, size, n_subsets, 10_000, 0))


@pytest.mark.parametrize("n_subsets", [1, 3, 2500])
@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_subset_schedule__leave_one_out(n: int, n_subsets: int) -> None:
    found = subset_schedule(n, n - 1, n_subsets, 0)
    assert_array_equal(found, reference.subset_schedule(n, n - 1, n_subsets, 10_000, 0))
    assert [sorted(set(range(n)) - set(row))[0] for row in found.tolist()] == list(range(n))


@pytest.mark.parametrize(("n", "size", "n_subsets"), [(9, 6, 15), (9, 6, 83), (30, 5, 200)])
def test_subset_schedule__drawn(n: int, size: int, n_subsets: int) -> None:
    found = subset_schedule(n, size, n_subsets, 7).tolist()
    assert len(found) == n_subsets and all(len(row) == size for row in found)
    assert found == sorted(found) and len({tuple(row) for row in found}) == n_subsets
    assert all(row == sorted(set(row)) and row[0] >= 0 and row[-1] < n for row in found)
    assert found == subset_schedule(n, size, n_subsets, 7).tolist()
    assert found != subset_schedule(n, size, n_subsets, 8).tolist()
    wanted: set[tuple[int, ...]] = set()
    for iteration in itertools.count():
        if len(wanted) == n_subsets:
            break
        raw = raw_numbers(7, 1, iteration, size)
        wanted.add(tuple(sorted(shuffled(raw, range(n)))))
    assert found == [list(row) for row in sorted(wanted)]


def test_subset_schedule__more_subsets_hold_the_fewer() -> None:
    few, many = (subset_schedule(12, 5, n_subsets, 1).tolist() for n_subsets in (20, 60))
    assert {tuple(row) for row in few} < {tuple(row) for row in many}


def test_subset_schedule__every_analysis_is_as_likely() -> None:
    found = subset_schedule(20, 4, 1000, 3)
    counts = np.bincount(found.ravel(), minlength=20)
    # Of 1,000 subsets each analysis is in 200 on average, with a standard deviation of 12.6.
    assert np.abs(counts - 200).max() < 5 * 12.6


# clusters of subsets


def activation_of(group: Groups, kernel: nd.ALEKernel, first: bool = True) -> Activation:
    pooled = pool(*group.pair, SPACE)
    members = np.flatnonzero(pooled.in_first == first)
    return estimator(kernel=kernel)._activation(pooled, members, SPACE.mask)


def sized() -> Groups:
    """Groups of which each analysis has its own, small, sample size."""
    made = groups()
    rng = np.random.default_rng(1)
    sizes = rng.choice([2.5, 4.0, 7.0], made.corpus.sizes["analysis"])
    return Groups(made.corpus.assign(analysis_sample_size=("analysis", sizes)), made.in_first)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kernel", [KERNEL, nd.ALEKernel()])
def test_significant__is_where_z_of_ale_is_above(kernel: nd.ALEKernel, first: bool) -> None:
    group = sized()
    activation = activation_of(group, kernel, first)
    corpus = group.first if first else group.second
    n = len(activation.n_foci)
    assert n == (7 if first else 9)
    for rows in ([*range(n)], [0, 2, 3, 6], [1, 4], [5]):
        z = z_of(subset_of(corpus, rows), kernel)
        for threshold in (0.5, Z, 3.09, 4.5):
            found = activation.significant(np.array(rows, np.int32), threshold)
            assert found.dtype == np.int32
            assert_array_equal(found, np.flatnonzero(z > threshold))
    assert activation.significant(np.array([5], np.int32), 30.0).size == 0


def test_significant__of_foci_that_fall_elsewhere() -> None:
    activation = activation_of(groups(), KERNEL)
    rows = np.array([0, 3, 4, 6], np.int32)
    rng = np.random.default_rng(5)
    for _ in range(4):
        n_foci = activation.n_foci[rows]
        # Among few places, so that some are near each other.
        ijk = SPACE.voxel_ijk[200 + rng.integers(0, 40, n_foci.sum())].astype(np.int32)
        z = z_of(relocated(n_foci, ijk))
        assert (z > Z).any()
        assert_array_equal(activation.significant(rows, Z, ijk), np.flatnonzero(z > Z))


def relocated(n_foci: NDArray[Any], ijk: NDArray[Any]) -> xr.Dataset:
    """A corpus with foci at voxel centres, one analysis after the other."""
    foci = voxel_to_mm(ijk, SPACE.affine)
    return make_corpus(np.split(foci, np.cumsum(n_foci)[:-1]))


def by_chance(n_foci: list[int], target_n: int, seed: int, places: Any) -> list[Any]:
    """z of a random subset whose foci fall anywhere, for each iteration."""
    n, maps = len(n_foci), []
    for iteration in range(N_ITERS):
        raw = raw_numbers(seed, 0, iteration, n + sum(n_foci))
        rows = sorted(shuffled(raw[:target_n], range(n))) if target_n < n else [*range(n)]
        some = np.array([n_foci[row] for row in rows])
        maps.append(z_of(relocated(some, drawn(raw[n : n + some.sum()], places))))
    return maps


@pytest.mark.parametrize("settings", FITS[:2])
def test_fit__clusters_and_probabilities(stores: Any, settings: dict[str, Any]) -> None:
    maps, folder = stores(**settings)
    told = steps(maps)[-1]["settings"]
    target_n = told["target_n"]
    z_thresh = float(stats.norm.isf(told["voxel_thresh"]))
    places = SPACE.voxel_ijk
    if told["coverage"] == "gm":
        places = places[places[:, 0] < GREY_PLANES]
    n_kept, n_dropped = 0, 0
    for number, corpus in enumerate(groups().pair):
        n_foci = [n for n in corpus["analysis_n_foci"].values.tolist() if n]
        chance = by_chance(n_foci, target_n, SEED + number, places)
        threshold = reference.cluster_size_threshold(chance, SPACE.mask, z_thresh, ALPHA)
        assert threshold > 1
        assert told["larger_than"][number] == pytest.approx(threshold, rel=1e-12)
        subsets = subset_schedule(len(n_foci), target_n, N_SUBSETS, SEED + number)
        assert len(subsets) == {7: 1 if target_n == 7 else 7, 9: N_SUBSETS}[len(n_foci)]
        z = [z_of(subset_of(corpus, rows)) for rows in subsets]
        wanted = reference.probability_of_clusters(z, SPACE.mask, z_thresh, threshold)
        found = maps["prob"].sel(probability=f"group{number + 1}").values
        n_dropped += int((wanted < (np.array(z) > z_thresh).mean(axis=0)).sum())
        n_kept += int((wanted > 0).sum())
        assert_allclose(found, wanted, rtol=FLOAT32, atol=0)
        sizes = nd.open_null(by_kind(folder)[f"sizes{number + 1}"])["null_max"].values[:, 0]
        share = np.percentile(sizes, 100 * (1 - ALPHA))
        assert told["larger_than"][number] == round(float(share), 9)
    assert n_kept > 10 and (n_dropped > 0 or settings)
    both = reference.minimum_statistic(*(maps["prob"].values))
    assert_array_equal(maps["stat"].sel(effect="conjunction"), both)


def test_surviving__hand_computed() -> None:
    # Two pairs of analyses at two places: a subset of two analyses at one place is significant
    # there, and one of each is nowhere.
    corpus = make_corpus([[[-24, 0, 0]], [[24, 0, 0]], [[-24, 0, 0]], [[24, 0, 0]]])
    other = make_corpus([[[0, 0, 0]]], prefix="zz")
    pooled = pool(corpus, other, SPACE)
    activation = estimator()._activation(pooled, np.flatnonzero(pooled.in_first), SPACE.mask)
    z = [z_of(nd.select(corpus, np.isin(np.arange(4), rows))) for rows in ([0, 2], [0, 1])]
    high = float(z[1].max()) + 0.01
    assert z[0].max() > high + 0.3
    job = Surviving(
        activation=activation,
        target_n=2,
        z_thresh=high,
        random_state=0,
        subsets=np.array([[0, 1], [0, 2], [0, 3], [1, 3]], np.int32),
        step=1,
    )
    sizes = [0, int((z[0] > high).sum()), 0]
    found = job.run(0, 4)
    assert found.maxima[:3, 0].tolist() == sizes and found.maxima[3, 0] > 0
    assert found.sums["null_surviving"].sum() == found.maxima.sum()


# the mean difference


def subsets_of(members: list[int], raw: list[int], target_n: int, n_draws: int) -> list[list[int]]:
    """Random subsets of a group; only one when it is no larger."""
    if len(members) == target_n:
        return [members]
    parts = [raw[draw * target_n : (draw + 1) * target_n] for draw in range(n_draws)]
    return [shuffled(part, members) for part in parts]


def reference_mean(
    job: MeanDifference, group: Groups, widths: list[float], iteration: int | None
) -> NDArray[np.float64]:
    """The mean difference of an iteration, or the observed one, by the slow reference."""
    pooled, mask = group.pooled, job.activation.mask
    n, n_foci = pooled.sizes["analysis"], pooled["analysis_n_foci"].values
    first = max(n, int(n_foci.sum()))
    stream = 0 if iteration is None else iteration + 1
    raw = raw_numbers(job.random_state, job.step, stream, first + 2 * job.n_draws * job.target_n)
    member = group.member.tolist()
    volumes = slow.ale_volumes(pooled, SPACE, widths)
    if iteration is not None and job.null_method == "label-permutation":
        chosen = shuffled(raw[:n], range(n))[: sum(member)]
        member = [row in chosen for row in range(n)]
    elif iteration is not None:
        places = drawn(raw[: int(n_foci.sum())], np.argwhere(mask))
        volumes = [
            gaussian.ale_modelled_activation(
                part, gaussian.ale_kernel(width, SPACE.zooms.tolist()), SPACE.shape
            )
            for part, width in zip(np.split(places, np.cumsum(n_foci)[:-1]), widths, strict=True)
        ]
    activation = np.stack([volume[mask] for volume in volumes])
    rest = raw[first:]
    half = job.n_draws * job.target_n
    drawn_subsets = [
        subsets_of(
            [row for row in range(n) if member[row] == which], part, job.target_n, job.n_draws
        )
        for which, part in ((True, rest[:half]), (False, rest[half:]))
    ]
    # A group of one subset has it in every draw.
    subsets = [each * (job.n_draws // len(each)) for each in drawn_subsets]
    return reference.mean_difference(activation, activation, subsets[0], subsets[1])


def mean_job(group: Groups, **settings: Any) -> MeanDifference:
    """The iterations of the difference."""
    pooled = pool(*group.pair, SPACE)
    chosen = estimator(**{name: settings.pop(name) for name in ("kernel",) if name in settings})
    given: dict[str, Any] = {
        "target_n": TARGET_N,
        "n_draws": N_DRAWS,
        "null_method": "random-foci",
        "random_state": SEED,
        "step": STEPS["difference"],
    }
    return MeanDifference(
        activation=chosen._activation(pooled, np.arange(pooled.foci.n_analyses), SPACE.mask),
        in_first=pooled.in_first,
        **{**given, **settings},
    )


@pytest.mark.parametrize("iteration", [None, 0, 5])
@pytest.mark.parametrize("null_method", ["random-foci", "label-permutation"])
@pytest.mark.parametrize(("target_n", "n_draws"), [(6, 3), (7, 4), (2, 1)])
def test_mean__equals_reference(
    target_n: int, n_draws: int, null_method: Any, iteration: int | None
) -> None:
    group = sized()
    kernel = nd.ALEKernel()
    job = mean_job(
        group, kernel=kernel, target_n=target_n, n_draws=n_draws, null_method=null_method
    )
    found = job.mean(iteration)
    widths = kernel.widths(group.pooled).tolist()
    wanted = reference_mean(job, group, widths, iteration)
    # -ln(1 - activation) of each analysis is rounded to half a unit.
    error = target_n / job.activation.statistic.scale + 1e-14
    assert error < 1e-7 and wanted.max() > 0.001 and wanted.min() < -0.001
    assert_allclose(found, wanted, rtol=0, atol=error)


@pytest.mark.parametrize("null_method", ["random-foci", "label-permutation"])
def test_mean__iterations_differ_from_each_other_and_the_observed(null_method: Any) -> None:
    job = mean_job(groups(), null_method=null_method)
    maps = {bits(job.mean(iteration)).tobytes() for iteration in (None, 0, 1, 2)}
    assert len(maps) == 4
    run = job.run(1, 3)
    assert run.maxima.tolist() == [[mean.max(), -mean.min()] for mean in (job.mean(1), job.mean(2))]


def test_mean__observed_does_not_depend_on_the_null() -> None:
    one, two = (
        mean_job(groups(), null_method=name) for name in ("random-foci", "label-permutation")
    )
    assert_array_equal(bits(one.mean(None)), bits(two.mean(None)))


# the whole fit


@pytest.mark.parametrize("settings", FITS)
def test_fit__difference_equals_reference(stores: Any, settings: dict[str, Any]) -> None:
    maps, folder = stores(**settings)
    null = nd.open_null(by_kind(folder)["difference"])
    job = job_of(null)
    assert isinstance(job, MeanDifference) and null.sizes["iteration"] == N_ITERS
    inside = np.ones(SPACE.n_voxels, bool)
    if settings.get("coverage") == "gm":
        inside = SPACE.voxel_ijk[:, 0] < GREY_PLANES
        assert 100 < inside.sum() < SPACE.n_voxels - 50
    widths = [20.0] * len(job.in_first)
    observed = reference_mean(job, groups(), widths, None)
    means = [reference_mean(job, groups(), widths, iteration) for iteration in range(N_ITERS)]
    highest, lowest = (np.array([getattr(mean, of)() for mean in means]) for of in ("max", "min"))
    assert_allclose(null["null_max"], np.stack([highest, -lowest], axis=1), rtol=0, atol=1e-8)
    p, z = reference.balanced_p_z(observed, lowest, highest, ALPHA)
    # No difference is so near a percentile, or a maximum of the null, that rounding decides.
    edges = [np.percentile(highest, 90), -np.percentile(lowest, 10), *highest, *-lowest]
    assert np.abs(np.abs(observed)[:, None] - np.array(edges)).min() > 1e-8
    assert (z > 0).any() and ((z < 0).any() or "gm" in settings.values())
    wanted = {
        "stat": (observed, 0),
        "p": (p, 1),
        "z": (z, 0),
        "logp": (np.abs(np.log10(p)), 0),
    }
    for name, (values, nothing) in wanted.items():
        found = maps[name].sel(effect=EFFECT).values
        assert_allclose(found[inside], values, rtol=FLOAT32, atol=1e-8, err_msg=name)
        assert (found[~inside] == nothing).all(), name


def test_fit__names_saved_opened_and_exported(stores: Any, tmp_path: Path) -> None:
    maps, _ = stores()
    names = {f"{kind}_desc-{EFFECT}" for kind in ("stat", "p", "z", "logp")}
    names |= {"stat_desc-conjunction", "prob_desc-group1", "prob_desc-group2"}
    keys = [key.name for key in map_keys(maps)]
    assert len(keys) == len(names) and set(keys) == names
    assert all(maps[name].dtype == np.float32 for name in maps.data_vars)
    opened = nd.open_result(nd.save_result(maps, tmp_path / "maps.zarr"))
    assert_same_maps(opened.compute(), maps)
    paths = nd.to_nifti(opened, tmp_path / "images")
    assert {path.name for path in paths} == {f"{name}.nii.gz" for name in names}
    image: Any = nib.load(tmp_path / "images" / "prob_desc-group2.nii.gz")
    assert_array_equal(np.asanyarray(image.dataobj)[SPACE.mask], find_map(maps, "prob_desc-group2"))


def test_fit__provenance(stores: Any) -> None:
    last = steps(stores()[0])[-1]
    assert last["step"] == "BalancedALESubtraction"
    told = last["settings"]
    for name, value in {
        **estimator().settings(),
        "n_iters": N_ITERS,
        "random_state": SEED,
        "target_n": TARGET_N,
    }.items():
        assert told[name] == value, name
    assert (last["n_analyses"], last["n_selected"], last["n_analyses_without_foci"]) == (16, 7, 2)
    assert list(last["references"]) == ["jale", "eickhoff2012"]


def test_fit__default_target_is_the_smaller_group() -> None:
    maps = fit(target_n=None, n_iters=3)
    assert steps(maps)[-1]["settings"]["target_n"] == 7
    assert_same_maps(maps, fit(target_n=7, n_iters=3))
    settings = nd.BalancedALESubtraction()
    assert (settings.n_subsamples, settings.difference_iterations) == (2500, 1000)
    assert (settings.null_method, settings.coverage) == ("random-foci", "gm")


# groups of one size


@pytest.mark.parametrize("null_method", ["random-foci", "label-permutation"])
def test_fit__groups_of_one_size_have_one_subset(null_method: Any, tmp_path: Path) -> None:
    group = planted(6, 6, 3)
    maps = fit(group.pair, target_n=None, null_method=null_method, store=tmp_path / "s")
    for number in (1, 2):
        null = nd.open_null(by_kind(tmp_path / "s")[f"subsets{number}"])
        assert null["null_max"].shape == (1, 1)
    assert set(np.unique(maps["prob"].values)) == {0, 1}
    activation = group.activation(20.0)
    difference = reference.subtraction_difference(activation, np.flatnonzero(group.member))
    assert_allclose(maps["stat"].sel(effect=EFFECT), difference, rtol=FLOAT32, atol=1e-8)
    # Each draw would be the same, so there is one, and their number changes nothing.
    other = fit(group.pair, target_n=6, null_method=null_method, difference_iterations=1)
    assert_same_maps(other, maps)


def test_fit__shuffles_that_are_the_observed_division_count() -> None:
    # Of two and two analyses a third of the shuffles are the observed groups, or these swapped.
    group = Groups(
        make_corpus([[[-24, 0, 0]], [[-24, 0, 0]], [[24, 8, 0]], [[24, 8, 0]]]),
        np.array([True, True, False, False]),
    )
    job = mean_job(group, target_n=2, null_method="label-permutation")
    n_iters = 60
    highest = job.run(0, n_iters).maxima[:, 0]
    observed = job.mean(None)
    same = sum(
        sorted(shuffled(raw_numbers(SEED, job.step, iteration + 1, 4), range(4))[:2])
        in ([0, 1], [2, 3])
        for iteration in range(n_iters)
    )
    assert 10 < same < 30
    assert (highest == observed.max()).sum() == same and highest.max() == observed.max()
    maps = fit(group.pair, null_method="label-permutation", target_n=2, n_iters=n_iters, alpha=0.99)
    p = maps["p"].sel(effect=EFFECT).values
    # Nothing is above the percentile, which is the observed maximum itself.
    assert np.percentile(highest, 50.5) < observed.max()
    assert p.min() == pytest.approx(same / n_iters, rel=FLOAT32)


# the same bits


def jobs() -> dict[str, Any]:
    group = groups()
    common: dict[str, Any] = {
        "activation": activation_of(group, KERNEL),
        "target_n": 4,
        "z_thresh": Z,
        "random_state": SEED,
    }
    subsets = subset_schedule(7, 4, N_ITERS, SEED)
    return {
        "by chance": Surviving(pool=SPACE.pool("brain"), **common),
        "subsets": Surviving(subsets=subsets, larger_than=7.5, step=1, **common),
        "random-foci": mean_job(group),
        "label-permutation": mean_job(group, null_method="label-permutation"),
    }


JOBS = ["by chance", "subsets", "random-foci", "label-permutation"]


@pytest.mark.parametrize("name", JOBS)
def test_job__there_and_back(name: str, tmp_path: Path) -> None:
    job = jobs()[name]
    wanted = job.run(0, 8)
    job.to_dataset().to_zarr(tmp_path / "job.zarr", zarr_format=3, consolidated=False)
    opened = xr.open_zarr(tmp_path / "job.zarr", consolidated=False).load()
    others = [
        type(job).from_dataset(job.to_dataset()),
        type(job).from_dataset(opened),
        pickle.loads(pickle.dumps(job)),
    ]
    for other in others:
        found = other.run(0, 8)
        assert_array_equal(bits(found.maxima), bits(wanted.maxima))
        assert found.sums.keys() == wanted.sums.keys()
        for key, values in wanted.sums.items():
            assert_array_equal(found.sums[key], values)
        assert (other.labels, other.facts(), other.step) == (job.labels, job.facts(), job.step)


@pytest.mark.parametrize("name", JOBS)
def test_job__same_bits_in_any_batches(name: str) -> None:
    job = jobs()[name]
    wanted = job.run(0, 9)
    assert len(np.unique(wanted.maxima[:, 0])) > 2
    for batch in (1, 2, 7):
        parts = [job.run(at, min(at + batch, 9)) for at in range(0, 9, batch)]
        found = np.concatenate([part.maxima for part in parts])
        assert_array_equal(bits(found), bits(wanted.maxima))
        for key, values in wanted.sums.items():
            assert_array_equal(sum(part.sums[key] for part in parts), values)


@pytest.mark.parametrize("settings", FITS[1:])
def test_fit__same_bits_with_threads_and_without_stores(
    stores: Any, settings: dict[str, Any]
) -> None:
    maps, _ = stores(**settings)
    assert_same_maps(fit(**settings), maps)
    with dask.config.set(scheduler="threads", num_workers=2):
        assert_same_maps(fit(**settings), maps)


def test_fit__does_not_depend_on_the_order_of_analyses() -> None:
    rng = np.random.default_rng(0)
    mixed = []
    for corpus in groups().pair:
        order = rng.permutation(corpus.sizes["analysis"])
        parts = np.split(
            corpus["focus_xyz"].values, np.cumsum(corpus["analysis_n_foci"].values)[:-1]
        )
        made = make_corpus([parts[place] for place in order])
        mixed.append(made.assign(analysis_id=("analysis", corpus["analysis_id"].values[order])))
    assert_same_maps(fit(mixed, n_iters=4), fit(n_iters=4))


def test_fit__random_state_none_keeps_one_that_reproduces(tmp_path: Path) -> None:
    maps = fit(random_state=None, n_iters=3, store=tmp_path / "s")
    seed = steps(maps)[-1]["settings"]["random_state"]
    assert isinstance(seed, int) and 0 <= seed < 2**53
    assert_same_maps(fit(random_state=seed, n_iters=3), maps)
    assert_same_maps(fit(random_state=None, n_iters=3, store=tmp_path / "s"), maps)


# stores


class Stop(Exception):
    """Raised by a report."""


@pytest.mark.parametrize("kind", [0, 1, 4])
def test_fit__goes_on_from_its_stores(stores: Any, kind: int, tmp_path: Path) -> None:
    wanted, _ = stores()
    said: list[list[int]] = []

    def report(done: int, total: int) -> None:
        if not said or said[-1][-1] == said[-1][0]:
            said.append([total])
        said[-1].append(done)
        if stops and len(said) > kind and done > 0:
            raise Stop

    stops = True
    with pytest.raises(Stop):
        fit(store=tmp_path / "s", report=report)
    assert set(by_kind(tmp_path / "s")) == set(KINDS[: kind + 1])
    stopped, stops = said[-1][-1], False
    assert stopped < said[-1][0] or kind == 1
    said.clear()
    assert_same_maps(fit(store=tmp_path / "s", report=report), wanted)
    totals = [N_ITERS, 7, N_ITERS, N_SUBSETS, N_ITERS]
    assert [part[0] for part in said] == totals
    assert [part[1] for part in said] == [*totals[:kind], stopped, *[0] * (4 - kind)]


def test_open_null__of_its_stores(stores: Any) -> None:
    maps, folder = stores()
    found = by_kind(folder)
    assert set(found) == set(KINDS)
    nulls = {name: nd.open_null(path) for name, path in found.items()}
    for name, null in nulls.items():
        expected = ["group1", "group2"] if name == "difference" else ["size"]
        assert null["inference"].values.tolist() == expected
        assert null.attrs["kind"] == "nimare_dask.null" and null.attrs["n_iters"] == len(
            null["null_max"]
        )
        assert steps(null)[-1]["settings"]["estimator"] == "BalancedALESubtraction"
    for number in (1, 2):
        null = nulls[f"subsets{number}"]
        share = null["null_surviving"].values / null.sizes["iteration"]
        assert_array_equal(maps["prob"].sel(probability=f"group{number}"), share.astype(np.float32))
        larger = steps(maps)[-1]["settings"]["larger_than"][number - 1]
        assert null.attrs["larger_than"] == larger
    assert nulls["difference"].attrs["null_method"] == "random-foci"


def test_extend_null__of_its_stores(tmp_path: Path) -> None:
    fit(n_iters=4, store=tmp_path / "s")
    for name in ("sizes1", "difference"):
        null = nd.open_null(by_kind(tmp_path / "s")[name])
        more = nd.extend_null(null, 11)
        wanted = job_of(null).run(0, 11).maxima
        assert_array_equal(bits(more["null_max"].values.reshape(wanted.shape)), bits(wanted))
        assert nd.open_null(by_kind(tmp_path / "s")[name]).sizes["iteration"] == 11
    # Fewer are read again.
    assert_same_maps(fit(n_iters=4, store=tmp_path / "s"), fit(n_iters=4))


def test_extend_null__there_are_no_more_subsets(tmp_path: Path) -> None:
    fit(n_iters=2, store=tmp_path / "s")
    path = by_kind(tmp_path / "s")["subsets1"]
    with pytest.raises(nd.SettingsError):
        nd.extend_null(nd.open_null(path), 20)
    nd.open_null(path)


def test_fit__more_iterations_go_on_from_its_stores(tmp_path: Path) -> None:
    fit(n_iters=10, store=tmp_path / "s")
    assert_same_maps(fit(n_iters=N_ITERS, store=tmp_path / "s"), fit(n_iters=N_ITERS))


def test_fit__more_iterations_go_on_where_the_size_moves_by_rounding(tmp_path: Path) -> None:
    few = {"random_state": 1, "alpha": 0.3, "n_subsamples": 1, "difference_iterations": 1}
    fit(n_iters=8, store=tmp_path / "s", **few)
    assert_same_maps(fit(n_iters=18, store=tmp_path / "s", **few), fit(n_iters=18, **few))


def test_fit__stores_of_other_settings_are_refused(stores: Any) -> None:
    _, folder = stores()
    for settings in ({"random_state": 5}, {"target_n": 5}, {"difference_iterations": 4}):
        (name,) = settings
        with pytest.raises(nd.StoreExistsError, match=f"holds iterations of another run .*{name}"):
            fit(**settings, store=folder)


def test_correct_fwe__is_not_for_it(stores: Any) -> None:
    maps, folder = stores()
    with pytest.raises(nd.SchemaError):
        nd.correct_fwe(maps, nd.open_null(by_kind(folder)["difference"]))


# refusals


def test_fit__target_larger_than_a_group() -> None:
    for target_n in (8, 1000):
        with pytest.raises(nd.SettingsError) as raised:
            fit(target_n=target_n)
        assert str(raised.value) == (
            f"target_n is {target_n:,}, and the groups have 7 and 9 analyses with foci; expected "
            "no more than the smaller has."
        )


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"target_n": 0}, "target_n is 0; expected a whole number of at least 1."),
        ({"target_n": 2.5}, "target_n is 2.5; expected a whole number"),
        ({"target_n": True}, "target_n is True; expected a whole number"),
        ({"n_subsamples": 0}, "n_subsamples is 0; expected a whole number"),
        ({"n_subsamples": None}, "n_subsamples is None; expected a whole number"),
        ({"difference_iterations": -1}, "difference_iterations is -1; expected a whole number"),
        ({"null_method": "foci"}, "null_method is 'foci'; expected 'random-foci' or 'label-perm"),
        ({"coverage": "white"}, "coverage is 'white'; expected 'brain' or 'gm'."),
        ({"voxel_thresh": 0}, "voxel_thresh is 0; expected a p value."),
        ({"alpha": 1}, "alpha is 1; expected a p value."),
        ({"alpha": math.nan}, "alpha is nan; expected a p value."),
        (
            {"kernel": nd.MKDAKernel()},
            "kernel of BalancedALESubtraction is a MKDAKernel; ALE unite",
        ),
        ({"n_iters": 0}, "n_iters is 0; expected a whole number of at least 1."),
        ({"n_iters": 2.5}, "n_iters is 2.5; expected a whole number"),
        ({"random_state": -1}, "random_state is -1; expected a whole number"),
        ({"space": "mni"}, "mni is neither the path of an image nor a space"),
    ],
)
def test_settings__that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(nd.SettingsError) as raised:
        fit(**settings)
    assert str(raised.value).startswith(said)


def test_fit__groups_that_cannot_be() -> None:
    first, second = groups().pair
    bare = nd.select(first, first["analysis_n_foci"].values == 0)
    for pair, said in (((first, first), "are in both groups"), ((bare, second), "no focus at all")):
        with pytest.raises(nd.SelectionError, match=said):
            fit(pair)
    with pytest.raises(nd.SchemaError, match="7 of 7 analyses have no sample size"):
        fit(kernel=nd.ALEKernel())


def test_fit__no_grey_matter() -> None:
    bare = nd.Space(SPACE.name, SPACE.mask, SPACE.affine)
    bare.__dict__["grey_matter"] = np.zeros(SPACE.shape, bool)
    with pytest.raises(nd.SettingsError, match=r"No voxel of .* is in grey matter; use coverage="):
        fit(coverage="gm", space=bare)


def test_in_mask__is_how_volumes_become_maps() -> None:
    volume = np.arange(SPACE.mask.size).reshape(SPACE.shape)
    assert_array_equal(in_mask([volume])[0], np.flatnonzero(SPACE.mask))
