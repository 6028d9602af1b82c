"""Correction by the maxima of null iterations: by hand, against the slow reference, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from nimare_dask import results
from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.estimators.ale import ALE
from nimare_dask.estimators.kda import KDA
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.estimators.mkda_density import MKDADensity
from nimare_dask.estimators.scale import SCALE
from nimare_dask.footprint import ALEKernel, KDAKernel, MKDAKernel
from nimare_dask.fwe import correct_fwe
from nimare_dask.nulls.monte_carlo import monte_carlo_null
from nimare_dask.nulls.observed import observed_measures
from nimare_dask.nulls.relocation import Enhancement, from_dataset
from nimare_dask.provenance import steps
from nimare_dask.space import Space
from nimare_dask.stats.empirical import p_of_maxima_with_tail
from tests.foci import make_corpus, make_space
from tests.groups import SPACE, anywhere, group, with_foci
from tests.reference import nulls, pvalues
from tests.slow import FLOAT32, voxels_by_analysis

MKDA = MKDADensity(kernel=MKDAKernel(r=14))
ESTIMATORS: list[Any] = [
    MKDA,
    MKDADensity(kernel=MKDAKernel(r=14), weighting="sample_size", n_histogram_bins=500),
    KDA(kernel=KDAKernel(r=14)),
    ALE(kernel=ALEKernel(fwhm=24)),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def with_maxima(null: xr.Dataset, maxima: Any) -> xr.Dataset:
    """A null with other maxima, (iteration, inference)."""
    values = np.asarray(maxima, np.float64)
    return null.drop_vars("null_max").assign(null_max=(("iteration", "inference"), values))


def line() -> tuple[Space, xr.Dataset]:
    """Twelve voxels, and analyses that are active at 1 2 3, at 2 3 4 and at 8 9 10."""
    space = make_space((1, 1, 12), seed=None)
    return space, make_corpus([[[0, 0, -7]], [[0, 0, -5]], [[0, 0, 7]]])


def test_correct_fwe__hand_computed() -> None:
    space, corpus = line()
    estimator = MKDADensity(kernel=MKDAKernel(r=2))
    maps = estimator.fit(corpus, space=space)
    assert_array_equal(maps["stat"], [0, 1, 2, 2, 1, 0, 0, 0, 1, 1, 1, 0])
    null = monte_carlo_null(estimator, corpus, space=space, n_iters=2, random_state=0)
    told = json.loads(null.attrs["job_settings"]) | {"stat_thresh": 0.5}
    null = null.assign_attrs(job_settings=json.dumps(told))
    # Clusters of 4 voxels and mass 4, and of 3 voxels and mass 1.5.
    null = with_maxima(null, [[1, 0, 0], [3, 5, 9], [1, 3, 1.5], [2, 4, 2]])
    found = correct_fwe(maps, null)
    assert found["inference"].values.tolist() == ["voxel", "size", "mass"]
    expected = [
        [1, 1, 0.5, 0.5, 1, 1, 1, 1, 1, 1, 1, 1],
        [1, 0.5, 0.5, 0.5, 0.5, 1, 1, 1, 0.75, 0.75, 0.75, 1],
        [1, 0.25, 0.25, 0.25, 0.25, 1, 1, 1, 0.75, 0.75, 0.75, 1],
    ]
    assert_allclose(found["p_fwe"], expected, rtol=FLOAT32)
    assert_allclose(found["logp_fwe"], -np.log10(expected), rtol=FLOAT32)
    # One-sided, at least 0: p = 1/4 is 0.6745.
    assert_allclose(found["z_fwe"][2, 1], 0.6744898, rtol=FLOAT32)
    assert_array_equal(found["z_fwe"].values[np.array(expected) >= 0.5], 0)
    for name in ("p_fwe", "z_fwe", "logp_fwe"):
        assert found[name].dtype == np.float32
        assert found[name].dims == ("inference", "voxel")
    assert "p_fwe" not in maps


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_correct_fwe__equals_reference(estimator: Any) -> None:
    corpus = anywhere(2, 12)
    maps = estimator.fit(corpus, space=SPACE)
    tfce = Enhancement(E=0.6, H=1.5, step=0.2)
    null = monte_carlo_null(
        estimator,
        corpus,
        space=SPACE,
        n_iters=30,
        voxel_thresh=0.05,
        random_state=1,
        maps=maps,
        tfce=tfce,
    )
    threshold = null.attrs["stat_thresh"]
    bins = maps["bin_center"].values
    assert threshold == nulls.threshold_of_p(0.05, maps["null_weight"].values, bins)
    volume = results.to_volume(maps, maps["stat"].values)
    labels = ndimage.label(volume > threshold)[0]
    clusters, largest = nulls.cluster_measures(volume, threshold)
    assert len(clusters) > 1
    size, mass = np.array([(0.0, 0.0), *clusters]).T
    score = nulls.tfce(results.to_volume(maps, maps["z"].values), 0.6, 1.5, 0.2)
    observed = {
        "voxel": maps["stat"].values,
        "size": size[labels][SPACE.mask],
        "mass": mass[labels][SPACE.mask],
        "tfce": score[SPACE.mask],
    }
    found = correct_fwe(maps, null)
    job = from_dataset(null)
    measured = observed_measures(job, maps)
    assert list(measured) == list(observed) == found["inference"].values.tolist()
    for row, (name, values) in enumerate(observed.items()):
        assert_allclose(measured[name], values, rtol=1e-5, atol=1e-9, err_msg=name)
        maxima = null["null_max"].values[:, row]
        p = nulls.null_to_p(measured[name], maxima, "upper")
        p[(measured[name] == 0) | (measured[name] <= maxima.min())] = 1
        nlogp = np.log(p)
        assert_allclose(found["p_fwe"][row], p, rtol=FLOAT32, err_msg=name)
        assert_allclose(found["z_fwe"][row], pvalues.nlogp_to_z(nlogp, "one"), rtol=FLOAT32)
        assert_allclose(found["logp_fwe"][row], -nlogp / np.log(10), rtol=FLOAT32)
    assert_allclose([measured["size"].max(), measured["mass"].max()], largest, rtol=1e-14)
    assert (found["p_fwe"].values < 1).any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_correct_fwe__iterations_are_measured_as_the_map_is(estimator: Any) -> None:
    # The reported foci as if they were an iteration: kernels on sums, and scipy on the map.
    corpus = with_foci(group(3))
    maps = estimator.fit(corpus, space=SPACE)
    null = monte_carlo_null(
        estimator, corpus, space=SPACE, n_iters=1, voxel_thresh=0.2, tfce=Enhancement()
    )
    job = from_dataset(null)
    ijk = np.concatenate(voxels_by_analysis(corpus, SPACE)).astype(np.int32)
    sums = job.statistic.sums(ijk, job.owner, job.place)
    label = np.zeros(job.neighbours.size, np.int32)
    found = job.measure(sums, label)
    expected = [values.max() for values in observed_measures(job, maps).values()]
    # To the bit: an iteration like the map has to count as one that reaches it.
    assert found == expected
    assert found[1] > 1


def test_correct_fwe__maxima_as_large_as_the_map_count() -> None:
    space, corpus = line()
    estimator = MKDADensity(kernel=MKDAKernel(r=2))
    maps = estimator.fit(corpus, space=space)
    null = monte_carlo_null(estimator, corpus, space=space, n_iters=1, voxel_thresh=None)
    found = correct_fwe(maps, with_maxima(null, [[2]] * 3 + [[1]] * 7))
    assert found["inference"].values.tolist() == ["voxel"]
    assert_allclose(found["p_fwe"][0, [2, 3]], 0.3, rtol=FLOAT32)
    nothing = correct_fwe(maps, with_maxima(null, [[0.5]] * 10))
    assert_allclose(nothing["p_fwe"][0, 2], 0.1, rtol=FLOAT32)  # one at least
    assert_allclose(nothing["p_fwe"][0, 0], 1, rtol=FLOAT32)


def test_correct_fwe__pareto_tail() -> None:
    corpus = anywhere(4)
    maps = MKDA.fit(corpus, space=SPACE)
    null = monte_carlo_null(MKDA, corpus, space=SPACE, n_iters=1, voxel_thresh=None)
    maxima = np.random.default_rng(0).gumbel(0, 0.5, size=(1000, 1))
    null = with_maxima(null, maxima)
    found = correct_fwe(maps, null, tail="pareto")
    stat = maps["stat"].values
    expected = np.where(stat > 0, p_of_maxima_with_tail(stat, maxima), 1)
    assert_allclose(found["p_fwe"][0], expected, rtol=FLOAT32)
    assert (found["p_fwe"].values < correct_fwe(maps, null)["p_fwe"].values).any()
    assert steps(found)[-1]["settings"]["tail"] == "pareto"
    with pytest.raises(SettingsError, match="tail is 'gamma'"):
        correct_fwe(maps, null, tail="gamma")  # type: ignore[arg-type]


def test_correct_fwe__scale() -> None:
    corpus = group(5)
    estimator = SCALE(xyz=corpus["focus_xyz"].values, kernel=ALEKernel(fwhm=24))
    null = monte_carlo_null(estimator, corpus, space=SPACE, n_iters=9, random_state=0)
    maps = estimator.fit(corpus, space=SPACE, null=null)
    found = correct_fwe(maps, null)
    maxima = null["null_max"].values[:, 0]
    stat = maps["stat"].values
    expected = [max(1, (maxima >= value).sum()) / 9 if value > 0 else 1 for value in stat]
    assert_allclose(found["p_fwe"][0], expected, rtol=FLOAT32)


def test_correct_fwe__names_and_provenance() -> None:
    corpus = group(6)
    maps = MKDA.fit(corpus, space=SPACE)
    null = monte_carlo_null(MKDA, corpus, space=SPACE, n_iters=3, tfce=Enhancement())
    found = correct_fwe(maps, null)
    names = {key.name for key in results.map_keys(found)} - {"stat", "p", "z", "logp"}
    assert names == {
        f"{kind}_{level}_corr-FWE_method-montecarlo"
        for kind in ("p", "z", "logp")
        for level in (
            "level-voxel",
            "desc-size_level-cluster",
            "desc-mass_level-cluster",
            "desc-tfce_level-voxel",
        )
    }
    values = results.find_map(found, "z_desc-size_level-cluster_corr-FWE_method-montecarlo")
    assert_array_equal(values, found["z_fwe"].sel(inference="size"))
    step = steps(found)[-1]
    assert step["step"] == "correct_fwe"
    assert step["settings"]["n_iters"] == 3
    assert step["settings"]["estimator"] == "MKDADensity"


# nulls of something else


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (MKDADensity(kernel=MKDAKernel(r=15)), "r"),
        (MKDADensity(kernel=MKDAKernel(r=14), weighting="sample_size"), "weighting"),
        (KDA(kernel=KDAKernel(r=14)), "estimator"),
        (ALE(kernel=ALEKernel(fwhm=24)), "estimator"),
    ],
)
def test_correct_fwe__null_of_another_estimator_is_refused(estimator: Any, said: str) -> None:
    corpus = group(7)
    maps = MKDA.fit(corpus, space=SPACE)
    null = monte_carlo_null(estimator, corpus, space=SPACE, n_iters=1, voxel_thresh=None)
    with pytest.raises(SchemaError, match=f"together: one was made with {said} "):
        correct_fwe(maps, null)


def test_correct_fwe__null_of_another_corpus_or_mask_is_refused() -> None:
    maps = MKDA.fit(group(7), space=SPACE)
    other = monte_carlo_null(MKDA, group(8), space=SPACE, n_iters=1, voxel_thresh=None)
    with pytest.raises(SchemaError, match="together: one was made with corpus "):
        correct_fwe(maps, other)
    mask = SPACE.mask.copy()
    mask[6, 6, 6] = False
    space = Space("small", mask, SPACE.affine)
    other = monte_carlo_null(MKDA, group(7), space=space, n_iters=1, voxel_thresh=None)
    with pytest.raises(SchemaError, match="together: one was made with mask "):
        correct_fwe(maps, other)


def test_correct_fwe__pool_of_another_scale_is_refused() -> None:
    corpus = group(7)
    one, other = (SCALE(xyz=[[0.0, 0, z], [8, 8, 0]], kernel=ALEKernel(fwhm=24)) for z in (0, 8))
    maps = one.fit(corpus, space=SPACE, n_iters=1, random_state=0)
    null = monte_carlo_null(other, corpus, space=SPACE, n_iters=1, random_state=0)
    with pytest.raises(SchemaError, match="together: one was made with pool_digest "):
        correct_fwe(maps, null)


def test_correct_fwe__what_is_no_null_and_what_is_no_map() -> None:
    corpus = group(7)
    maps = MKDA.fit(corpus, space=SPACE)
    null = monte_carlo_null(MKDA, corpus, space=SPACE, n_iters=1)
    with pytest.raises(SchemaError, match="null has no null_max"):
        correct_fwe(maps, maps)
    other = make_corpus([[[0.0, 0, 0]]], prefix="other")
    chi2 = MKDAChi2().fit(corpus, other, space=SPACE)
    with pytest.raises(SchemaError, match="and the result has no map stat of that"):
        correct_fwe(chi2, null)
    with pytest.raises(SchemaError, match="and the result has no map stat of that"):
        correct_fwe(maps[["z", "p"]], null)


def test_correct_fwe__null_that_was_stripped_is_refused() -> None:
    corpus = group(7)
    maps = MKDA.fit(corpus, space=SPACE)
    null = monte_carlo_null(MKDA, corpus, space=SPACE, n_iters=1)
    with pytest.raises(SchemaError, match="monte_carlo_null"):
        correct_fwe(maps, null[["null_max"]].drop_attrs())
