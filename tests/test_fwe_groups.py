"""Correction of two groups and of all features by null maxima, against the slow reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask import results
from nimare_dask.errors import SettingsError
from nimare_dask.nulls.observed import chi2_measures, difference_measures
from nimare_dask.nulls.stored import job_of
from nimare_dask.provenance import steps
from nimare_dask.stats.empirical import p_of_maxima_with_tail
from tests.group_pairs import (
    ALE,
    ALE_THRESH,
    CHI2,
    CHI2_ERROR,
    CHI2_THRESH,
    EFFECTS,
    INFERENCES,
    ZOOMS,
    P,
    Pair,
    R,
    difference_error,
    featured,
    mass_error,
    of_feature,
    pair,
    run,
)
from tests.groups import SPACE
from tests.nulls.test_redraw import moved
from tests.reference import two_groups as reference

N = 60
#: A rounding to float32, after a few of float64.
FLOAT32 = 2.0**-24 + 2.0**-40
OUTPUTS = ["p", "z", "logp"]
KINDS = {"voxel": "_level-voxel", "size": "Size_level-cluster", "mass": "Mass_level-cluster"}
Maps = Mapping[str, NDArray[Any]]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def names_of(effects: list[str]) -> set[str]:
    """What NiMARE calls the maps that a correction adds."""
    return {
        f"{output}_desc-{effect}{kind}_corr-FWE_method-montecarlo"
        for output in OUTPUTS
        for effect in effects
        for kind in KINDS.values()
    }


def corrected_names(maps: xr.Dataset) -> set[str]:
    return {key.name for key in results.map_keys(maps) if "corr-FWE" in key.name}


def near(values: Any, maxima: Any, error: Any) -> NDArray[np.bool_]:
    """Voxels whose value is within an error of a maximum, but not equal to it."""
    off = np.abs(np.asarray(values)[:, None] - np.asarray(maxima))
    close = (off <= np.broadcast_to(error, len(off))[:, None]) & (off > 0)
    found: NDArray[np.bool_] = close.any(axis=1)
    return found


def check(found: xr.Dataset, effect: str, wanted: Maps, edges: Maps) -> None:
    """The nine corrected maps of an effect against those of the reference."""
    for inference in INFERENCES:
        sure = ~edges[inference].astype(bool)
        assert sure.all(), f"the case has {(~sure).sum()} voxels within rounding of a maximum"
        for output in OUTPUTS:
            values = found[f"{output}_fwe"].sel(effect=effect, inference=inference)
            assert values.dtype == np.float32
            expected = wanted[f"{output}_{inference}"]
            assert_allclose(values, expected, rtol=FLOAT32, atol=0, err_msg=f"{effect} {inference}")


# two groups, chi-square


def reference_maxima(groups: Pair, null: xr.Dataset) -> NDArray[np.float64]:
    """Maxima (iteration, effect, inference) of the same draws."""
    job: Any = job_of(null)
    n_iters = null.sizes["iteration"]
    if null.attrs["job"] == "label counts":
        chosen = np.array([job.chosen(iteration) for iteration in range(n_iters)])
        return reference.label_permutation_maxima(groups.active, chosen, SPACE.mask, P, 0.0)
    return np.array(
        [
            reference.random_foci_maxima(*moved(job, iteration), SPACE.mask, ZOOMS, R, P, 0.0)
            for iteration in range(n_iters)
        ]
    )


def observed_of(groups: Pair, effect: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Chi-square and the sign of z, (voxel,), by the reference."""
    rows = groups.rows
    others = np.setdiff1d(np.arange(len(groups.active)), rows)
    ones, twos = groups.active[rows].sum(axis=0), groups.active[others].sum(axis=0)
    if effect == "association":
        return reference.association_chi2(ones, twos, len(rows), len(others), 0.0)
    counts, n = (twos, len(others)) if effect == "group2" else (ones, len(rows))
    return reference.uniformity_chi2(counts, n)


def masses(values: NDArray[np.float64], threshold: float) -> tuple[Any, Any]:
    """Size and mass of the cluster of each voxel, (voxel,)."""
    size, mass = np.zeros((2, len(values)))
    for members in reference.clusters_above(values, SPACE.mask, threshold):
        size[members] = len(members)
        mass[members] = reference.cluster_mass(values, members, threshold)
    return size, mass


@pytest.mark.parametrize("scheme", ["labels", "foci"])
@pytest.mark.parametrize(("n", "n_first"), [(18, 7), (18, 12), (9, 4)])
def test_chi2__equals_reference(n: int, n_first: int, scheme: str) -> None:
    groups = pair(n, n_first, effect=True)
    make = nd.label_permutation_null if scheme == "labels" else nd.random_foci_null
    n_iters = N if scheme == "labels" else 15
    null = make(
        CHI2,
        groups.first,
        groups.second,
        space=SPACE,
        n_iters=n_iters,
        voxel_thresh=P,
        random_state=5,
    )
    maps = CHI2.fit(groups.first, groups.second, space=SPACE)
    found = nd.correct_fwe(maps, null)
    assert found["p_fwe"].dims == ("inference", "effect", "voxel")
    assert found["inference"].values.tolist() == list(INFERENCES)
    maxima = reference_maxima(groups, null)
    for effect in ("uniformity", "association", "group1", "group2"):
        column = EFFECTS.index("uniformity" if effect == "group1" else effect)
        chi2, sign = observed_of(groups, "uniformity" if effect == "group1" else effect)
        assert (np.abs(chi2 - CHI2_THRESH) > CHI2_ERROR * CHI2_THRESH).all()
        size, mass = masses(chi2, CHI2_THRESH)
        edges = {
            "voxel": near(chi2, maxima[:, column, 0], CHI2_ERROR * chi2),
            "size": np.zeros(len(chi2)),
            "mass": near(mass, maxima[:, column, 2], mass_error(mass, size, CHI2_THRESH)),
        }
        wanted = reference.chi2_fwe(chi2, sign, maxima[:, column], SPACE.mask, P)
        check(found, effect, wanted, edges)
    p = found["p_fwe"].sel(effect="association").values
    assert (p < 0.2).any() and (p == 1).any(), "the case must have an effect"
    assert "effects" in found["p_fwe"].attrs and not np.isnan(found["p_fwe"]).any()


def test_chi2__is_measured_as_iterations_are() -> None:
    groups = pair()
    maps = CHI2.fit(groups.first, groups.second, space=SPACE)
    for effect in EFFECTS:
        chi2, _ = observed_of(groups, effect)
        z = maps["z"].sel(effect=effect).values
        size, mass = masses(chi2, CHI2_THRESH)
        for name, wanted, error in (
            ("voxel", chi2, CHI2_ERROR * chi2),
            ("size", size, 0),
            ("mass", mass, mass_error(mass, size, CHI2_THRESH)),
        ):
            measured = chi2_measures(SPACE.mask, CHI2_THRESH, name)(z)
            assert (np.abs(measured - wanted) <= error).all()
    assert_array_equal(chi2_measures(SPACE.mask, None, "voxel")(z), z.astype(np.float64) ** 2)
    nothing = np.zeros(SPACE.n_voxels, np.float32)
    for name in INFERENCES:
        assert not chi2_measures(SPACE.mask, CHI2_THRESH, name)(nothing).any()


def test_chi2__voxels_alone() -> None:
    groups = pair()
    maps = CHI2.fit(groups.first, groups.second, space=SPACE)
    found = nd.correct_fwe(maps, run("chi2", N, voxel_thresh=None))
    whole = nd.correct_fwe(maps, run("chi2", N))
    assert found["inference"].values.tolist() == ["voxel"]
    for output in OUTPUTS:
        assert_array_equal(found[f"{output}_fwe"], whole[f"{output}_fwe"].sel(inference=["voxel"]))


def test_chi2__z_is_enough_and_some_effects_are_enough() -> None:
    groups, null = pair(), run("chi2", N)
    maps = CHI2.fit(groups.first, groups.second, space=SPACE)
    whole = nd.correct_fwe(maps, null)["p_fwe"]
    assert_array_equal(nd.correct_fwe(maps[["z"]], null)["p_fwe"], whole)
    for effects in (["association"], ["group2", "group1"]):
        found = nd.correct_fwe(maps.sel(effect=effects), null)["p_fwe"]
        assert_array_equal(found, whole.sel(effect=effects))


# two groups, differences of ALE


@pytest.mark.parametrize(("n", "n_first"), [(18, 7), (18, 12), (5, 2), (2, 1)])
def test_subtraction__equals_reference(n: int, n_first: int) -> None:
    groups = pair(n, n_first, effect=True)
    null = nd.label_permutation_null(
        ALE,
        groups.first,
        groups.second,
        space=SPACE,
        n_iters=N,
        stat_thresh=ALE_THRESH,
        random_state=5,
    )
    maps = ALE.fit(groups.first, groups.second, space=SPACE, null=null)
    found = nd.correct_fwe(maps, null)
    assert found["p_fwe"].dims == ("inference", "effect", "voxel")
    job: Any = job_of(null)
    chosen = np.array([job.chosen(iteration) for iteration in range(N)])
    differences = reference.subtraction_permutations(groups.activation, chosen)
    maxima = reference.subtraction_maxima(differences, SPACE.mask, ALE_THRESH)
    observed = reference.subtraction_difference(groups.activation, groups.rows)
    error = difference_error(job, groups.activation)
    assert (np.abs(np.abs(observed) - ALE_THRESH) > error).all()
    higher, lower = masses(observed, ALE_THRESH), masses(-observed, ALE_THRESH)
    size, mass = higher[0] + lower[0], higher[1] + lower[1]
    edges = {
        "voxel": near(np.abs(observed), maxima[:, 0], 2 * error.max()),
        "size": np.zeros(len(observed)),
        "mass": near(mass, maxima[:, 2], 2 * (error.max() + 2.0**-41) * size),
    }
    sign = maps["z"].sel(effect="group1MinusGroup2").values
    wanted = reference.subtraction_fwe(observed, sign, maxima, SPACE.mask, ALE_THRESH)
    check(found, "group1MinusGroup2", wanted, edges)
    measured = difference_measures(job, maps["stat"].values[0])
    assert_array_equal(measured["size"], size)
    assert (np.abs(measured["mass"] - mass) <= (error.max() + 2.0**-41) * size).all()
    for effect in ("group1", "group2"):
        for output in OUTPUTS:
            assert np.isnan(found[f"{output}_fwe"].sel(effect=effect)).all()
    if n == 18:
        assert (found["p_fwe"][0, 0] < 0.2).any() and (found["p_fwe"][2, 0] < 0.2).any()


# features


@pytest.fixture(scope="module")
def feature_maps() -> xr.Dataset:
    return CHI2.fit_features(featured(), space=SPACE)


@pytest.fixture(scope="module")
def corrected_features(feature_maps: xr.Dataset) -> xr.Dataset:
    both = ["uniformity", "association"]
    with dask.config.set(scheduler="synchronous"):
        return nd.correct_fwe(feature_maps, run("features", N, effects=both)).compute()


@pytest.mark.parametrize("feature", range(6))
def test_features__equal_a_null_of_their_own(feature: int, corrected_features: xr.Dataset) -> None:
    groups = of_feature(featured(), feature)
    null = nd.label_permutation_null(
        CHI2, groups.first, groups.second, space=SPACE, n_iters=N, voxel_thresh=P, random_state=5
    )
    own = nd.correct_fwe(CHI2.fit(groups.first, groups.second, space=SPACE), null)
    of_all = corrected_features.isel(feature=feature)
    for output in OUTPUTS:
        for effect in ("uniformity", "association"):
            one, other = (part[f"{output}_fwe"].sel(effect=effect) for part in (of_all, own))
            assert_array_equal(one.values.view(np.int32), other.values.view(np.int32))
    assert (own["p_fwe"].sel(effect="association") < 1).any()


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("chunks", ["voxel", "feature"])
def test_features__lazy_or_not_in_any_blocks(
    chunks: Any, lazy: bool, corrected_features: xr.Dataset
) -> None:
    maps = CHI2.fit_features(featured(), space=SPACE, chunks=chunks)
    null = run("features", N, effects=["association", "uniformity"])
    found = nd.correct_fwe(maps if lazy else maps.compute(), null)
    for output in OUTPUTS:
        values = found[f"{output}_fwe"]
        assert values.dims == ("inference", "effect", "feature", "voxel")
        assert isinstance(values.data, da.Array) == lazy
        wanted = corrected_features[f"{output}_fwe"].values
        assert_array_equal(values.values.view(np.int32), wanted.view(np.int32))


def test_features__some_of_them(feature_maps: xr.Dataset, corrected_features: xr.Dataset) -> None:
    null = run("features", N, effects=["uniformity", "association"])
    for choice in ({"feature": [4, 0]}, {"feature": 2}, {"feature": [5]}):
        for maps in (feature_maps.isel(choice), feature_maps.isel(choice).compute()):
            found = nd.correct_fwe(maps, null)["p_fwe"]
            assert_array_equal(found, corrected_features["p_fwe"].isel(choice))


def test_features__effects_without_a_null_are_nan(feature_maps: xr.Dataset) -> None:
    for maps in (feature_maps, feature_maps.compute()):
        found = nd.correct_fwe(maps, run("features", 9))
        for output in OUTPUTS:
            values = found[f"{output}_fwe"]
            assert values.dtype == np.float32 and values.attrs["effects"] == ["association"]
            assert np.isnan(values.sel(effect="uniformity")).all()
            assert not np.isnan(values.sel(effect="association")).any()
        assert corrected_names(found) == names_of(["association"])


# names and files


def test_names__are_those_of_nimare() -> None:
    groups = pair()
    chi2 = nd.correct_fwe(CHI2.fit(groups.first, groups.second, space=SPACE), run("chi2", 3))
    assert corrected_names(chi2) == names_of(["uniformity", "association", "group1", "group2"])
    assert "z_desc-associationSize_level-cluster_corr-FWE_method-montecarlo" in corrected_names(
        chi2
    )
    null = run("ale", 3)
    ale = nd.correct_fwe(ALE.fit(groups.first, groups.second, space=SPACE, null=null), null)
    assert corrected_names(ale) == names_of(["group1MinusGroup2"])
    name = "p_desc-group1MinusGroup2_level-voxel_corr-FWE_method-montecarlo"
    values = results.find_map(ale, name)
    assert_array_equal(values, ale["p_fwe"].sel(effect="group1MinusGroup2", inference="voxel"))
    step = steps(ale)[-1]
    assert step["step"] == "correct_fwe" and step["settings"]["n_iters"] == 3
    assert step["makes"] == ["p_fwe", "z_fwe", "logp_fwe"]
    assert list(step["references"]) == ["laird2005"]
    assert list(steps(chi2)[-1]["references"]) == ["wager2007"]


@pytest.mark.parametrize("kind", ["ale", "features"])
def test_files__keep_what_is_tested_and_have_no_nan(kind: str, tmp_path: Path) -> None:
    groups, null = pair(), run(kind, 5)
    if kind == "ale":
        maps = ALE.fit(groups.first, groups.second, space=SPACE, null=null)
        tested = ["group1MinusGroup2"]
    else:
        maps = CHI2.fit_features(featured(), space=SPACE).isel(feature=[0, 4])
        tested = ["association"]
    found = nd.correct_fwe(maps, null)
    opened = nd.open_result(nd.save_result(found, tmp_path / "maps.zarr"))
    for output in OUTPUTS:
        name = f"{output}_fwe"
        assert_array_equal(opened[name], found[name])
        assert opened[name].attrs["effects"] == found[name].attrs["effects"] == tested
    assert corrected_names(opened) == names_of(tested)
    for which, folder in ((found, tmp_path / "one"), (opened, tmp_path / "other")):
        paths = nd.to_nifti(which, folder)
        written = {path.name.removesuffix(".nii.gz") for path in paths}
        assert {name for name in written if "corr-FWE" in name} == names_of(tested)
        for path in paths:
            image: Any = nib.load(path)
            volume = np.asarray(image.dataobj)
            assert "FgA" in path.name or not np.isnan(volume).any(), path.name


# tails


def with_maxima(null: xr.Dataset, maxima: NDArray[np.float64]) -> xr.Dataset:
    """A null with other maxima, of the same dims."""
    dims = null["null_max"].dims
    return null.drop_vars("null_max").assign(null_max=(dims, maxima))


@pytest.mark.parametrize("kind", ["chi2", "ale"])
def test_tail__pareto(kind: str) -> None:
    groups, rng = pair(), np.random.default_rng(0)
    estimator: Any = CHI2 if kind == "chi2" else ALE
    null = run(kind, 1, voxel_thresh=None)
    maps = estimator.fit(groups.first, groups.second, space=SPACE)
    values = maps["z"].values[1] ** 2 if kind == "chi2" else np.abs(maps["stat"].values[0])
    draws = rng.gumbel(0.3 * values.max(), 0.1 * values.max(), 1000)
    shape = (1000, *null["null_max"].shape[1:])
    null = with_maxima(null, np.broadcast_to(draws.reshape(-1, *[1] * (len(shape) - 1)), shape))
    found = nd.correct_fwe(maps, null, tail="pareto")
    row = found["p_fwe"].values[0, 1 if kind == "chi2" else 0]
    exact = values.astype(np.float64) if kind == "ale" else maps["z"].values[1].astype(float) ** 2
    inside = (exact > 0) & (exact >= draws.min())
    wanted = np.where(inside, p_of_maxima_with_tail(exact, draws), 1)
    assert_allclose(row, wanted, rtol=FLOAT32)
    plain = nd.correct_fwe(maps, null)["p_fwe"].values[0, 1 if kind == "chi2" else 0]
    assert (row < plain).any() and (row[plain > 0.01] == plain[plain > 0.01]).all()
    assert steps(found)[-1]["settings"]["tail"] == "pareto"
    with pytest.raises(SettingsError, match="tail is 'gamma'"):
        nd.correct_fwe(maps, null, tail="gamma")  # type: ignore[arg-type]
