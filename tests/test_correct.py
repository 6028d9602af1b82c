"""FDR over the voxels of maps against the slow reference, from every source of p values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.correct import correct_fdr
from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.footprint import MKDAKernel
from nimare_dask.parallel import shapes
from nimare_dask.provenance import steps
from nimare_dask.stats.multiple import FdrMethod
from nimare_dask.stats.pz import P_FLOOR
from tests.foci import draw_corpus, draw_foci, make_corpus, make_space
from tests.reference import pvalues

#: One rounding to float32; z of p near 1 is a difference from 1, hence absolute there.
ONE_FLOAT32 = float(np.finfo(np.float32).eps)
NEAR_ONE = 1e-14
METHODS: list[FdrMethod] = ["indep", "negcorr"]
N_VOXELS = 300


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def result_of(**variables: NDArray[Any]) -> xr.Dataset:
    """A result of maps over `N_VOXELS` voxels, with a feature for each row."""
    space = make_space((1, 1, N_VOXELS), seed=None)
    dims = {1: ("voxel",), 2: ("feature", "voxel")}
    maps = {
        name: (dims[values.ndim], values.astype(np.float32)) for name, values in variables.items()
    }
    return results.as_result(maps, space, {})


def drawn_chi2(seed: int, shape: Any = N_VOXELS) -> NDArray[np.float32]:
    """Chi-square as float32 with ties, zeros and a few in the far tail."""
    rng = np.random.default_rng(seed)
    values = np.round(rng.chisquare(1, size=shape) * rng.choice([1, 4, 20], size=shape), 1)
    values[..., :7] = [0, 0, 400, 400, 2000, 5000, 0.1]
    return np.asarray(values, np.float32)


def expected_maps(
    nlogp: NDArray[np.float64], z: NDArray[np.float32], method: FdrMethod
) -> dict[str, NDArray[np.float64]]:
    """Corrected maps of one map (voxel,) by the reference."""
    corrected = pvalues.fdr(nlogp, method)
    return {
        f"p_fdr_{method}": np.maximum(np.exp(corrected), P_FLOOR),
        f"logp_fdr_{method}": -corrected / np.log(10),
        f"z_fdr_{method}": pvalues.corrected_z(corrected, z),
    }


def check(found: xr.Dataset, nlogp: Any, z: Any, method: FdrMethod, **where: Any) -> None:
    for name, wanted in expected_maps(np.asarray(nlogp), np.asarray(z), method).items():
        values = found[name].isel(where).values
        assert values.dtype == np.float32
        assert_allclose(values, wanted, rtol=ONE_FLOAT32, atol=NEAR_ONE, err_msg=name)


# against the reference


@pytest.mark.parametrize("method", METHODS)
def test_correct_fdr__hand_computed(method: FdrMethod) -> None:
    p = np.ones(N_VOXELS)
    p[:3] = 0.0001, 0.0002, 0.00015
    z = np.sign(np.arange(N_VOXELS) - 0.5)  # the first is negative
    found = correct_fdr(result_of(z=z, p=p), method=method)
    # 300 * .0002 / 3 is the least for all three; negcorr times 1 + 1/2 + ... + 1/300 = 6.282664.
    least = 0.02 if method == "indep" else 0.02 * 6.282663880299
    assert_allclose(found[f"p_fdr_{method}"][:3], least, rtol=2e-7)
    assert_array_equal(found[f"p_fdr_{method}"][3:], 1)
    assert_array_equal(np.sign(found[f"z_fdr_{method}"][:4]), [-1, 1, 1, 0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_correct_fdr__from_chi2(seed: int, method: FdrMethod) -> None:
    chi2 = drawn_chi2(seed)
    z = np.sqrt(chi2) * np.random.default_rng(seed).choice([-1, 1], size=N_VOXELS)
    found = correct_fdr(result_of(z=z, chi2=chi2), method=method)
    check(found, pvalues.chi2_to_nlogp(chi2), z, method)


@pytest.mark.parametrize("method", METHODS)
def test_correct_fdr__from_logp(method: FdrMethod) -> None:
    logp = (-pvalues.chi2_to_nlogp(drawn_chi2(4)) / np.log(10)).astype(np.float32)
    z = np.random.default_rng(0).normal(size=N_VOXELS)
    found = correct_fdr(result_of(z=z, logp=logp), method=method)
    check(found, -logp.astype(np.float64) * np.log(10), z, method)
    assert found[f"logp_fdr_{method}"].max() > 1000  # the tail past float64 is kept


@pytest.mark.parametrize("method", METHODS)
def test_correct_fdr__from_p(method: FdrMethod) -> None:
    p = np.exp(pvalues.chi2_to_nlogp(drawn_chi2(5))).astype(np.float32)
    assert (p == 0).any()  # a p value of 0 is taken as the smallest float64
    z = np.random.default_rng(1).normal(size=N_VOXELS)
    found = correct_fdr(result_of(z=z, p=p), method=method)
    with np.errstate(divide="ignore"):
        nlogp = np.log(np.maximum(p.astype(np.float64), pvalues.SMALLEST_P))
    check(found, nlogp, z, method)


@pytest.mark.parametrize("method", METHODS)
def test_correct_fdr__from_z_of_a_pair(method: FdrMethod) -> None:
    space = make_space((7, 8, 9))
    groups = [make_corpus(draw_foci(seed, space, 12, 2), prefix=str(seed)) for seed in (1, 2)]
    maps = MKDAChi2(kernel=MKDAKernel(r=3)).fit(*groups, space=space)
    assert (maps["n_active"] == 0).any()
    found = correct_fdr(maps, method=method)
    only_z = correct_fdr(maps[["z"]], method=method)
    for place, effect in enumerate(maps["effect"].values.tolist()):
        z = maps["z"].values[place]
        chi2 = np.square(z)
        if effect == "association":
            chi2[maps["n_active"] == 0] = 2
        check(found, pvalues.chi2_to_nlogp(chi2), z, method, effect=place)
        # z^2 is a rounding or two from the stored chi-square, and ln p about twice as many.
        exact = expected_maps(pvalues.chi2_to_nlogp(maps["chi2"].values[place]), z, method)
        for name, wanted in exact.items():
            values = found[name].values[place]
            assert_allclose(values, wanted, rtol=2e-6, atol=1e-6, err_msg=name)
    for name in only_z.data_vars:
        assert_array_equal(only_z[name], found[name])


@pytest.mark.parametrize("method", METHODS)
def test_correct_fdr__from_z_of_features(method: FdrMethod) -> None:
    space = make_space((7, 8, 9))
    maps = MKDAChi2(kernel=MKDAKernel(r=3)).fit_features(draw_corpus(3, space, 20, 3), space=space)
    found = correct_fdr(maps[["z"]], method=method).compute()
    degenerate = np.isin(found["n_active"], [0, 20])
    assert degenerate.any()
    for effect in (0, 1):
        for feature in range(3):
            z = found["z"].values[effect, feature]
            chi2 = np.square(z)
            chi2[degenerate & (effect == 1)] = 2
            nlogp = pvalues.chi2_to_nlogp(chi2)
            check(found, nlogp, z, method, effect=effect, feature=feature)


def test_correct_fdr__source_prefers_chi2_then_logp_then_p() -> None:
    chi2, z = drawn_chi2(6), np.ones(N_VOXELS)
    nonsense = np.full(N_VOXELS, 0.5)
    one = correct_fdr(result_of(z=z, chi2=chi2, logp=nonsense, p=nonsense))
    assert_array_equal(one["p_fdr_indep"], correct_fdr(result_of(z=z, chi2=chi2))["p_fdr_indep"])
    two = correct_fdr(result_of(z=z, logp=chi2, p=nonsense))
    assert_array_equal(two["p_fdr_indep"], correct_fdr(result_of(z=z, logp=chi2))["p_fdr_indep"])


# NaN and ends


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("source", ["chi2", "logp", "p"])
def test_correct_fdr__nan_voxels_stay_and_do_not_count(source: str, method: FdrMethod) -> None:
    values = drawn_chi2(7) if source != "p" else np.random.default_rng(7).uniform(size=N_VOXELS)
    values = np.asarray(values, np.float32)
    gaps = np.random.default_rng(8).uniform(size=N_VOXELS) < 0.3
    values[gaps] = np.nan
    z = np.where(gaps, np.nan, 1.0)
    found = correct_fdr(result_of(z=z, **{source: values}), method=method)
    kept = values.astype(np.float64)
    nlogp = {
        "chi2": lambda: pvalues.chi2_to_nlogp(kept),
        "logp": lambda: -kept * np.log(10),
        "p": lambda: np.log(kept),
    }[source]()
    check(found, nlogp, z, method)
    for name in ("p", "z", "logp"):
        assert_array_equal(np.isnan(found[f"{name}_fdr_{method}"]), gaps)


def test_correct_fdr__all_nan_stays_nan() -> None:
    maps = result_of(z=np.full(N_VOXELS, np.nan), p=np.full(N_VOXELS, np.nan))
    for values in correct_fdr(maps).data_vars.values():
        assert np.isnan(values).all()


def test_correct_fdr__all_the_same() -> None:
    found = correct_fdr(result_of(z=np.full(N_VOXELS, -1.0), p=np.full(N_VOXELS, 0.25)))
    assert_allclose(found["p_fdr_indep"], 0.25)
    assert (found["z_fdr_indep"] < 0).all()


def test_correct_fdr__sign_of_zero_is_zero() -> None:
    found = correct_fdr(result_of(z=np.zeros(N_VOXELS), p=np.full(N_VOXELS, 1e-6)))
    assert_array_equal(found["z_fdr_indep"], 0)


def test_correct_fdr__is_two_sided_for_one_sided_statistics() -> None:
    # ALE gives z = 1.645 to p = .05; its corrected z is that of .05 in two tails, as in NiMARE.
    found = correct_fdr(result_of(z=np.full(N_VOXELS, 1.6448536), p=np.full(N_VOXELS, 0.05)))
    assert_allclose(found["z_fdr_indep"], 1.9599640, rtol=1e-6)


def test_correct_fdr__each_map_alone() -> None:
    chi2 = drawn_chi2(9, (4, N_VOXELS))
    z = np.sqrt(chi2)
    found = correct_fdr(result_of(z=z, chi2=chi2), method="negcorr")
    for row in range(4):
        check(found, pvalues.chi2_to_nlogp(chi2[row]), z[row], "negcorr", feature=row)


# lazily


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunks", [(4, N_VOXELS), (2, 100), (3, 7), (1, 1)])
def test_correct_fdr__lazily_equals_at_once(chunks: Any, method: FdrMethod) -> None:
    chi2 = drawn_chi2(10, (4, N_VOXELS))
    eager = result_of(z=np.sqrt(chi2), chi2=chi2)
    at_once = correct_fdr(eager, method=method)
    lazy = eager.chunk({"feature": chunks[0], "voxel": chunks[1]})
    found = correct_fdr(lazy, method=method)
    for name in (f"{output}_fdr_{method}" for output in ("p", "z", "logp")):
        assert isinstance(at_once[name].data, np.ndarray)
        assert isinstance(found[name].data, da.Array)
        assert found[name].dims == eager["z"].dims
        assert_array_equal(found[name].values, at_once[name].values)


@pytest.mark.parametrize("method", METHODS)
def test_correct_fdr__blocks_of_voxels_equal_blocks_of_features(
    method: FdrMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", 64)
    space = make_space((7, 8, 9))
    corpus = draw_corpus(4, space, 40, 20)
    found = []
    for chunks in ("voxel", "feature"):
        maps = MKDAChi2(kernel=MKDAKernel(r=4)).fit_features(
            corpus,
            space=space,
            chunks=chunks,  # type: ignore[arg-type]
        )
        assert (maps["z"].data.numblocks[-1] > 1) == (chunks == "voxel")
        found.append(correct_fdr(maps, method=method).compute())
    for name in found[0].data_vars:
        assert_array_equal(found[0][name], found[1][name], err_msg=str(name))


def test_correct_fdr__too_large_to_turn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chi2 = drawn_chi2(11, (4, N_VOXELS))
    maps = result_of(z=np.sqrt(chi2), chi2=chi2).chunk({"voxel": 100})
    monkeypatch.setattr(shapes, "TURN_BYTES", maps["z"].nbytes)
    correct_fdr(maps)
    monkeypatch.setattr(shapes, "TURN_BYTES", maps["z"].nbytes - 1)
    expected = r"chunks='feature'\)\."
    with pytest.raises(SettingsError, match=expected):
        correct_fdr(maps)
    correct_fdr(maps.chunk({"voxel": -1, "feature": 1}))  # whole maps need no turning
    correct_fdr(maps.compute())


# what is refused and said


def test_correct_fdr__other_methods_are_refused() -> None:
    with pytest.raises(SettingsError, match="method is 'bh'; expected 'indep' or 'negcorr'"):
        correct_fdr(result_of(z=np.ones(N_VOXELS)), method="bh")  # type: ignore[arg-type]


def test_correct_fdr__without_z_is_refused() -> None:
    with pytest.raises(SchemaError, match="no map z, whose sign a corrected z needs"):
        correct_fdr(result_of(p=np.ones(N_VOXELS)))


def test_correct_fdr__without_p_values_is_refused() -> None:
    with pytest.raises(SchemaError, match=r"none of chi2, logp and p .* \(it has z\)"):
        correct_fdr(result_of(z=np.ones(N_VOXELS)))


def test_correct_fdr__what_is_no_result_is_refused() -> None:
    with pytest.raises(SchemaError, match="voxel_i"):
        correct_fdr(xr.Dataset({"z": ("voxel", np.ones(3))}))


def test_correct_fdr__z_alone_of_one_chosen_effect() -> None:
    space = make_space((7, 8, 9))
    groups = [make_corpus(draw_foci(seed, space, 12, 2), prefix=str(seed)) for seed in (5, 6)]
    maps = MKDAChi2(kernel=MKDAKernel(r=3)).fit(*groups, space=space)
    wanted = correct_fdr(maps[["z"]]).sel(effect="association")
    found = correct_fdr(maps[["z"]].sel(effect="association"))
    for name in wanted.data_vars:
        assert_array_equal(found[name], wanted[name])


def test_correct_fdr__names_and_provenance() -> None:
    maps = result_of(z=np.ones(N_VOXELS), p=np.full(N_VOXELS, 0.5))
    found = correct_fdr(correct_fdr(maps, method="indep"), method="negcorr")
    assert [key.name for key in results.map_keys(found)] == [
        "z",
        "p",
        "p_corr-FDR_method-indep",
        "z_corr-FDR_method-indep",
        "logp_corr-FDR_method-indep",
        "p_corr-FDR_method-negcorr",
        "z_corr-FDR_method-negcorr",
        "logp_corr-FDR_method-negcorr",
    ]
    assert [step["settings"]["method"] for step in steps(found)] == METHODS
    assert [list(step["references"]) for step in steps(found)] == [
        ["benjamini1995"],
        ["benjamini2001"],
    ]
    assert set(maps.data_vars) == {"z", "p"}
