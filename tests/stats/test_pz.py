"""p, z and chi-square in log space against the slow reference and golden values."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask.errors import SettingsError
from nimare_dask.stats import pz
from tests.reference import pvalues

#: natural-log p values from 1 to far past float64.
TAILS = [0.0, -1e-300, -1e-12, -1e-3, -0.1, -0.702, -1.0, -5.0, -50.0, -745.0, -1e3, -1e5, -1e8]

#: ln(erfcx(x)) - x^2 is a difference of numbers near 1 where p is near 1, so nlogp has an absolute
#: error of a few roundings of 1 there, not a relative one; a stored float32 resolves 6e-8 there.
AT_ONE = 1e-15


@pytest.mark.parametrize(
    ("p", "one", "two"),
    [
        (0.05, 1.6448536, 1.9599640),
        (0.001, 3.0902323, 3.2905267),
        (1e-10, 6.3613409, 6.4669511),
        (1e-300, 37.0470963, 37.0657879),
    ],
)
def test_p_to_z__golden(p: float, one: float, two: float) -> None:
    assert_allclose(pz.p_to_z(p, "one"), one, atol=6e-8, rtol=0)
    assert_allclose(pz.p_to_z(p), two, atol=6e-8, rtol=0)


def test_p_to_z__off_cluster_golden() -> None:
    p = 1 - 1 / 5000
    assert pz.p_to_z(p, "one") == 0
    assert_allclose(pz.p_to_z(p, "two"), 2.51e-4, atol=5e-7)
    assert_allclose(pz.nlogp_to_logp(pz.p_to_nlogp(p)), 8.69e-5, atol=5e-8)


@pytest.mark.parametrize("tail", ["one", "two"])
def test_p_to_z__equals_reference(tail: pz.Tail) -> None:
    p = np.array([0.0, 5e-324, 1e-310, 1e-45, 1e-5, 0.3, 0.5, 0.7, 1 - 1e-15, 1.0, 1.5, np.nan])
    assert_allclose(pz.p_to_z(p, tail), pvalues.p_to_z(p, tail), rtol=1e-14, atol=0)


@pytest.mark.parametrize("tail", ["one", "two"])
def test_nlogp_to_z__equals_reference(tail: pz.Tail) -> None:
    nlogp = np.array([*TAILS, np.nan])
    z = pz.nlogp_to_z(nlogp, tail)
    assert_allclose(z, pvalues.nlogp_to_z(nlogp, tail), rtol=1e-14, atol=0)
    assert (z[:-1] >= 0).all()
    assert not np.signbit(z[:-1]).any()


def test_nlogp_to_z__past_one_is_one() -> None:
    # A sum of logarithms can end a rounding above 0.
    assert_array_equal(pz.nlogp_to_z([1e-16, 0.0]), pz.nlogp_to_z([0.0, 0.0]))


@pytest.mark.parametrize(
    "chi2", [0.0, 1e-12, 1e-6, 0.1, 0.49, 0.51, 2.0, 100.0, 799.0, 801.0, 1500.0, 1e4, 1e6, 1e8]
)
def test_chi2_to_nlogp__equals_reference_and_mpmath(chi2: float) -> None:
    with mpmath.workdps(60):
        exact = float(mpmath.log(mpmath.erfc(mpmath.sqrt(mpmath.mpf(chi2) / 2))))
    found = float(pz.chi2_to_nlogp(chi2))
    assert_allclose(found, exact, rtol=1e-13, atol=AT_ONE)
    assert_allclose(found, float(pvalues.chi2_to_nlogp(chi2)), rtol=1e-13, atol=AT_ONE)


def test_chi2_to_nlogp__golden() -> None:
    assert_allclose(pz.chi2_to_nlogp(10.827566170662733), math.log(0.001), rtol=1e-14)
    assert math.isnan(pz.chi2_to_nlogp(np.nan))


def test_chi2_to_nlogp__never_above_one_and_falls() -> None:
    chi2 = np.concatenate([[0], np.geomspace(1e-30, 1e12, 4000)])
    nlogp = pz.chi2_to_nlogp(chi2)
    assert nlogp[0] == 0
    assert (nlogp <= 0).all()
    assert (np.diff(nlogp) <= AT_ONE).all()


def test_chi2_to_nlogp__infinite_is_p_zero() -> None:
    assert pz.chi2_to_nlogp(np.inf) == -np.inf


@pytest.mark.parametrize("tail", ["one", "two"])
def test_z_to_nlogp__round_trip(tail: pz.Tail) -> None:
    z = np.array([0.01, 0.5, 1.96, 5.0, 38.0, 40.0, 1e3, 1e4])
    assert_allclose(pz.nlogp_to_z(pz.z_to_nlogp(z, tail), tail), z, rtol=1e-11)


def test_z_to_nlogp__signs() -> None:
    z = np.array([-3.0, -1.0, 0.0])
    assert_array_equal(pz.z_to_nlogp(z, "two"), pz.z_to_nlogp(-z, "two"))
    assert_allclose(np.exp(pz.z_to_nlogp(z, "one")), [0.9986501, 0.8413447, 0.5], atol=5e-8)


def test_nlogp_to_p__floor_of_float32() -> None:
    p = pz.nlogp_to_p([0.0, math.log(0.05), -90.0, -104.0, -1e6, np.nan])
    assert_allclose(p[:3], [1, 0.05, math.exp(-90)], rtol=1e-14)
    assert (p[3:5] == pz.P_FLOOR).all()
    assert np.isnan(p[5])
    assert (p[:5].astype(np.float32) > 0).all()


def test_nlogp_to_logp__ends_of_float32() -> None:
    logp = pz.nlogp_to_logp([0.0, -math.log(10), -1e300, -np.inf, np.nan])
    largest = float(np.finfo(np.float32).max)
    assert_allclose(logp, [0, 1, largest, largest, np.nan])
    assert np.isfinite(logp[:4].astype(np.float32)).all()


def test_nlogp_to_logp__no_negative_zero() -> None:
    assert not np.signbit(pz.nlogp_to_logp([0.0, -1e-300])).any()


def test_logp_to_nlogp__round_trip() -> None:
    nlogp = np.array(TAILS)
    assert_allclose(pz.logp_to_nlogp(pz.nlogp_to_logp(nlogp)), nlogp, rtol=1e-15)


def test_p_to_nlogp__clips() -> None:
    assert_array_equal(pz.p_to_nlogp([0.0, -1.0]), pz.p_to_nlogp([5e-324, 5e-324]))
    assert_array_equal(pz.p_to_nlogp([1.0, 1.5]), [0, 0])


@pytest.mark.parametrize("function", [pz.nlogp_to_z, pz.z_to_nlogp, pz.p_to_z])
def test_tail__other_names_are_refused(function: object) -> None:
    with pytest.raises(SettingsError, match="tail is 'both'; expected 'one' or 'two'"):
        function([0.5], "both")  # type: ignore[operator]
