"""Corrections for many tests against the slow reference and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from nimare_dask.errors import SettingsError
from nimare_dask.stats.multiple import FdrMethod, bonferroni, fdr_of_levels
from tests.reference import pvalues

METHODS: list[FdrMethod] = ["indep", "negcorr"]


def fdr(nlogp: ArrayLike, method: FdrMethod) -> NDArray[np.float64]:
    """fdr_of_levels for every test: levels are its distinct values."""
    levels, place, n = np.unique(nlogp, return_inverse=True, return_counts=True)
    return fdr_of_levels(levels, np.cumsum(n), method)[place]


def test_fdr_of_levels__hand_computed_indep() -> None:
    # .01 .02 .03 .5 of n = 4: .04 .04 .04 .5.
    assert_allclose(np.exp(fdr(np.log([0.03, 0.5, 0.01, 0.02]), "indep")), [0.04, 0.5, 0.04, 0.04])


def test_fdr_of_levels__hand_computed_negcorr() -> None:
    # The same times 1 + 1/2 + 1/3 + 1/4 = 25/12, at most 1.
    corrected = np.exp(fdr(np.log([0.03, 0.5, 0.01, 0.02]), "negcorr"))
    assert_allclose(corrected, [1 / 12, 1, 1 / 12, 1 / 12])


def test_fdr_of_levels__ties_share_the_last_rank() -> None:
    # .02 three times of n = 4: rank 3, so .02 * 4 / 3.
    assert_allclose(np.exp(fdr(np.log([0.02, 0.02, 0.9, 0.02]), "indep"))[0], 0.08 / 3)


def test_fdr_of_levels__one_test_and_one_level() -> None:
    for method in METHODS:
        assert_allclose(fdr([-3.0], method), [-3.0])
    assert_allclose(fdr([-3.0] * 7, "indep"), [-3.0] * 7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_fdr_of_levels__equals_reference_and_scipy(seed: int, method: FdrMethod) -> None:
    rng = np.random.default_rng(seed)
    p = rng.uniform(size=400) ** rng.integers(1, 8)
    p[rng.integers(400, size=120)] = p[0]
    found = fdr(np.log(p), method)
    assert_allclose(found, pvalues.fdr(np.log(p), method), rtol=1e-12, atol=1e-14)
    kind = "bh" if method == "indep" else "by"
    assert_allclose(np.exp(found), stats.false_discovery_control(p, method=kind), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_fdr_of_levels__tails_past_float64(method: FdrMethod) -> None:
    nlogp = np.array([-5e5, -5e5, -5000.0, -800.0, -2.0, 0.0, 0.0])
    assert_allclose(fdr(nlogp, method), pvalues.fdr(nlogp, method), rtol=1e-14)
    assert_allclose(fdr([-5000.0, -1.0], "indep"), [-5000 + math.log(2), -1])


@given(
    nlogp=hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-2000, 0)),
    method=st.sampled_from(METHODS),
)
def test_fdr_of_levels__drawn(nlogp: NDArray[np.float64], method: FdrMethod) -> None:
    found = fdr(nlogp, method)
    assert_allclose(found, pvalues.fdr(nlogp, method), rtol=1e-13, atol=1e-13)
    assert (found <= 0).all()
    assert (found >= nlogp - 1e-12).all()
    assert (np.diff(found[np.argsort(nlogp)]) >= 0).all()


def test_fdr_of_levels__other_methods_are_refused() -> None:
    with pytest.raises(SettingsError, match="method is 'bh'; expected 'indep' or 'negcorr'"):
        fdr_of_levels(np.array([-1.0]), np.array([1]), "bh")  # type: ignore[arg-type]


def test_fdr_of_levels__does_not_change_its_input() -> None:
    nlogp = np.array([-3.0, -1.0])
    fdr_of_levels(nlogp, np.array([1, 2]), "negcorr")
    assert nlogp.tolist() == [-3.0, -1.0]


def test_bonferroni__equals_reference() -> None:
    nlogp = np.array([math.log(0.01), math.log(0.5), -5000.0, 0.0])
    found = bonferroni(nlogp)
    assert_allclose(found, pvalues.bonferroni(nlogp), rtol=1e-14)
    assert_allclose(found, [math.log(0.04), 0, -5000 + math.log(4), 0])


def test_bonferroni__each_map_alone() -> None:
    nlogp = np.log([[0.01, 0.2], [0.3, 0.9]])
    assert_allclose(np.exp(bonferroni(nlogp)), [[0.02, 0.4], [0.6, 1]])
