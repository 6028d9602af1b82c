"""Bonferroni over the voxels of maps against the slow reference, from every source of p."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask import results
from nimare_dask.correct import correct_bonferroni
from nimare_dask.errors import SchemaError
from nimare_dask.estimators.mkda_chi2 import MKDAChi2
from nimare_dask.estimators.mkda_density import MKDADensity
from nimare_dask.footprint import MKDAKernel
from nimare_dask.provenance import steps
from nimare_dask.stats.pz import P_FLOOR
from tests.foci import draw_corpus, make_space
from tests.groups import SPACE, group
from tests.reference import pvalues
from tests.slow import FLOAT32

N_VOXELS = 300
MKDA = MKDADensity(kernel=MKDAKernel(r=14))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def result_of(**variables: NDArray[Any]) -> xr.Dataset:
    """A result of maps over `N_VOXELS` voxels."""
    space = make_space((1, 1, N_VOXELS), seed=None)
    maps = {name: ("voxel", values.astype(np.float32)) for name, values in variables.items()}
    return results.as_result(maps, space, {})


def drawn(seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Values of 0 and more, some far out, and z scores of either sign."""
    rng = np.random.default_rng(seed)
    values = rng.chisquare(1, N_VOXELS) * rng.choice([0.1, 1, 30], N_VOXELS)
    values[:4] = 0, 300, 5000, 0
    z = rng.normal(size=N_VOXELS)
    z[4] = 0
    return values.astype(np.float32), z.astype(np.float32)


def check_bonferroni(found: xr.Dataset, nlogp: NDArray[np.float64], z: NDArray[Any]) -> None:
    corrected = pvalues.bonferroni(nlogp)
    expected = {
        "p_bonferroni": np.maximum(np.exp(corrected), P_FLOOR),
        "logp_bonferroni": np.abs(corrected) / np.log(10),
        "z_bonferroni": pvalues.corrected_z(corrected, z),
    }
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].dims == ("voxel",)
        assert_allclose(found[name], values, rtol=FLOAT32, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("source", ["chi2", "logp", "p"])
@pytest.mark.parametrize("gaps", [False, True])
def test_correct_bonferroni__equals_reference(source: str, gaps: bool) -> None:
    values, z = drawn(1)
    if source == "p":
        values = np.exp(-values).astype(np.float32)
        values[1] = P_FLOOR
    if gaps:
        values[10:60] = z[10:60] = np.nan
    kept = values.astype(np.float64)
    nlogp = {
        "chi2": lambda: pvalues.chi2_to_nlogp(kept),
        "logp": lambda: -kept * np.log(10),
        "p": lambda: np.log(np.maximum(kept, pvalues.SMALLEST_P)),
    }[source]()
    check_bonferroni(correct_bonferroni(result_of(z=z, **{source: values})), nlogp, z)


def test_correct_bonferroni__hand_computed() -> None:
    p = np.full(N_VOXELS, 1 / 600)
    p[:3] = 1e-5, 0.004, np.nan
    z = np.where(np.arange(N_VOXELS) == 0, -1.0, 1.0)
    found = correct_bonferroni(result_of(p=p, z=z))
    # 299 voxels count; 0.00299 in two tails is 2.969 standard deviations.
    assert_allclose(found["p_bonferroni"][:2], [299e-5, 1], rtol=FLOAT32)
    assert_allclose(found["p_bonferroni"][3:], 299 / 600, rtol=FLOAT32)
    assert_allclose(found["z_bonferroni"][:2], [-2.969, 0], atol=1e-3)
    for name in ("p_bonferroni", "z_bonferroni", "logp_bonferroni"):
        assert_array_equal(np.isnan(found[name]), np.isnan(p))


def test_correct_bonferroni__of_one_group() -> None:
    corpus = group(1)
    maps = MKDA.fit(corpus, space=SPACE)
    nlogp = -maps["logp"].values.astype(np.float64) * np.log(10)
    check_bonferroni(correct_bonferroni(maps), nlogp, maps["z"].values)


def test_correct_bonferroni__of_z_of_two_groups_and_of_features() -> None:
    space = make_space((7, 8, 9))
    corpus = draw_corpus(3, space, 20, 3)
    maps = MKDAChi2(kernel=MKDAKernel(r=3)).fit_features(corpus, space=space)
    found = correct_bonferroni(maps[["z"]])
    assert found["z_bonferroni"].dims == maps["z"].dims
    found, maps = found.compute(), maps.compute()
    degenerate = np.isin(maps["n_active"], [0, 20])
    assert degenerate.any()
    for place, effect in enumerate(maps["effect"].values.tolist()):
        for feature in range(3):
            z = maps["z"].values[place, feature]
            chi2 = z.astype(np.float64) ** 2
            chi2[degenerate & (effect == "association")] = 2
            where = found.isel(effect=place, feature=feature)
            check_bonferroni(where, pvalues.chi2_to_nlogp(chi2), z)


def test_correct_bonferroni__lazily_equals_at_once() -> None:
    values, z = drawn(2)
    maps = result_of(z=z, chi2=values)
    lazy, eager = correct_bonferroni(maps.chunk({"voxel": 77})), correct_bonferroni(maps)
    for name in ("p_bonferroni", "z_bonferroni", "logp_bonferroni"):
        assert lazy[name].chunks is not None
        assert_array_equal(lazy[name].values, eager[name].values)


def test_correct_bonferroni__names_and_what_is_refused() -> None:
    ones = np.ones(N_VOXELS)
    found = correct_bonferroni(result_of(z=ones, p=ones))
    assert [key.name for key in results.map_keys(found)] == [
        "z",
        "p",
        "p_corr-FWE_method-bonferroni",
        "z_corr-FWE_method-bonferroni",
        "logp_corr-FWE_method-bonferroni",
    ]
    assert steps(found)[-1]["step"] == "correct_bonferroni"
    with pytest.raises(SchemaError, match="no map z"):
        correct_bonferroni(result_of(p=ones))
    with pytest.raises(SchemaError, match="none of chi2, logp and p"):
        correct_bonferroni(result_of(z=ones))
