"""The reference kernels and statistics (ALE, MKDA, KDA) against golden and hand-made cases."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from .gaussian import ale_fwhm, ale_kernel, ale_modelled_activation, ale_sigma
from .summary import ale, kda, kda_modelled_activation, mkda, mkda_modelled_activation
from .volumes import line

MM2 = (2.0, 2.0, 2.0)


# gaussian


@pytest.mark.parametrize(
    ("n", "fwhm", "sigma", "edge", "peak"),
    [
        (5, 11.3733, 2.41491, 21, 0.00450863),
        (10, 10.0026, 2.12385, 17, 0.00662871),
        (15, 9.5018, 2.01752, 17, 0.0077322),
        (20, 9.24124, 1.9622, 17, 0.00840461),
        (30, 8.97312, 1.90527, 17, 0.00918059),
        (50, 8.75272, 1.85847, 15, 0.00989287),
        (100, 8.5837, 1.82258, 15, 0.0104884),
        (None, 10.0, 2.1233, 17, 0.00663381),
    ],
)
def test_ale_kernel__golden_2mm(
    n: int | None, fwhm: float, sigma: float, edge: int, peak: float
) -> None:
    width = 10.0 if n is None else ale_fwhm(n)
    assert_allclose(width, fwhm, rtol=5e-6)
    assert_allclose(ale_sigma(width, MM2), [sigma] * 3, rtol=5e-6)
    kernel = ale_kernel(width, MM2)
    assert kernel.shape == (edge, edge, edge)
    assert np.count_nonzero(kernel > 0) == edge**3
    assert_allclose(kernel.max(), peak, rtol=5e-6)
    assert kernel[edge // 2, edge // 2, edge // 2] == kernel.max()
    assert_allclose(kernel.sum(), 1, rtol=1e-13)


def test_ale_fwhm__hand_computed() -> None:
    # 17.118 / sqrt(N) and 8.411 mm, added in squares; an infinite sample leaves the template's.
    assert_allclose(ale_fwhm(1), math.hypot(17.118, 8.411), rtol=5e-5)
    assert_allclose(ale_fwhm(1e12), 8.411, rtol=5e-5)
    assert ale_fwhm(20) > ale_fwhm(20.5) > ale_fwhm(21)


@pytest.mark.parametrize("n", [0.0, -1.0, math.nan, math.inf])
def test_ale_fwhm__needs_a_sample_size(n: float) -> None:
    with pytest.raises(ValueError, match="sample size"):
        ale_fwhm(n)


def test_ale_kernel__is_the_outer_product_of_normal_densities() -> None:
    kernel = ale_kernel(ale_fwhm(20), MM2)
    x = np.arange(-8, 9) / ale_sigma(ale_fwhm(20), MM2)[0]
    line_kernel = np.exp(-(x**2) / 2)
    line_kernel /= line_kernel.sum()
    expected = line_kernel[:, None, None] * line_kernel[:, None] * line_kernel
    assert_allclose(kernel, expected, rtol=1e-12)


def test_ale_kernel__other_grids_keep_the_width_in_mm() -> None:
    zooms = (1.0, 2.0, 3.0)
    assert_allclose(ale_sigma(10.0, zooms), [4.2466, 2.1233, 1.41553], rtol=5e-6)
    kernel = ale_kernel(10.0, zooms)
    # Radius int(4 sigma + 0.5): 17, 8 and 6.
    assert kernel.shape == (35, 17, 13)
    assert_allclose(kernel.sum(), 1, rtol=1e-13)
    # Second moments in mm, somewhat less than sigma^2 for being cut at 4 sigma.
    for axis, zoom in enumerate(zooms):
        x = (np.arange(kernel.shape[axis]) - kernel.shape[axis] // 2) * zoom
        others = tuple(other for other in range(3) if other != axis)
        assert_allclose(kernel.sum(axis=others) @ x**2, (10 / 2.354820) ** 2, rtol=5e-3)


def test_ale_kernel__box_of_31_cuts_a_wide_kernel_off() -> None:
    kernel = ale_kernel(24.0, MM2)  # sigma 5.1 voxels, radius 20
    assert kernel.shape == (31, 31, 31)
    assert 0.97 < kernel.sum() < 1 - 1e-3


def test_ale_modelled_activation__one_focus() -> None:
    kernel = ale_kernel(ale_fwhm(20), MM2)
    volume = ale_modelled_activation(np.array([[10, 11, 12]]), kernel, (20, 21, 22))
    assert volume.dtype == np.float32
    assert_array_equal(np.argwhere(volume == volume.max()), [[10, 11, 12]])
    assert_array_equal(volume[2:19, 3:20, 4:21], kernel.astype(np.float32))
    assert np.count_nonzero(volume) == 17**3


def test_ale_modelled_activation__hand_computed_maximum_and_duplicates() -> None:
    kernel = line(0.25, 0.5, 0.25)
    foci = np.array([[0, 0, 1], [0, 0, 2], [0, 0, 2], [0, 0, 5]])
    volume = ale_modelled_activation(foci, kernel, (1, 1, 7))
    assert_array_equal(volume, line(0.25, 0.5, 0.5, 0.25, 0.25, 0.5, 0.25))


def test_ale_modelled_activation__outside_foci_reach_in_and_do_not_wrap() -> None:
    kernel = line(0.1, 0.2, 0.4, 0.2, 0.1)
    shape = (1, 1, 4)
    before = ale_modelled_activation([[0, 0, -1]], kernel, shape)
    assert_allclose(before, line(0.2, 0.1, 0, 0))
    after = ale_modelled_activation([[0, 0, 5]], kernel, shape)
    assert_allclose(after, line(0, 0, 0, 0.1))
    far = ale_modelled_activation([[0, 0, -3], [0, 0, 7], [1, 0, 0], [0, -1, 0]], kernel, shape)
    assert not far.any()


def test_ale_modelled_activation__same_as_blurring_a_delta() -> None:
    fwhm = ale_fwhm(50)
    shape, focus = (9, 10, 11), (0, 9, 5)
    delta = np.zeros(shape)
    delta[focus] = 1
    expected = ndimage.gaussian_filter(delta, ale_sigma(fwhm, MM2), mode="constant")
    volume = ale_modelled_activation([focus], ale_kernel(fwhm, MM2), shape)
    assert_allclose(volume, expected, rtol=1e-6)


def test_ale_modelled_activation__ijk_must_be_integers_and_may_be_empty() -> None:
    with pytest.raises(ValueError, match="integers"):
        ale_modelled_activation([[0.5, 0, 0]], line(1.0), (1, 1, 1))
    assert not ale_modelled_activation(np.empty((0, 3)), line(1.0), (1, 1, 3)).any()


# summary


def test_modelled_activation__union_and_sum_of_spheres() -> None:
    foci = np.array([[0, 0, 1], [0, 0, 2], [0, 0, 2], [0, 0, 7]])
    union = mkda_modelled_activation(foci, (1, 1, 7), MM2, 2, 3.0)
    assert_array_equal(union, line(3, 3, 3, 3, 0, 0, 3))
    total = kda_modelled_activation(foci, (1, 1, 7), MM2, 2, 3.0)
    assert_array_equal(total, line(3, 9, 9, 6, 0, 0, 3))
    nothing = np.empty((0, 3), dtype=np.int64)
    assert not mkda_modelled_activation(nothing, (1, 1, 7), MM2, 2).any()
    assert not kda_modelled_activation(nothing, (1, 1, 7), MM2, 2).any()


def test_ale__hand_computed() -> None:
    # 1 - (1/2)(3/4)(1/2) = 13/16.
    studies = [line(0.5, 0, 0.25, 1), line(0.25, 0, 0, 0.5), line(0.5, 0, 0, 0)]
    assert_array_equal(ale(studies), line(13 / 16, 0, 0.25, 1))


def test_ale__equals_one_minus_the_product() -> None:
    studies = np.random.default_rng(0).uniform(0, 0.2, size=(30, 2, 3, 4)).astype(np.float32)
    expected = 1 - np.prod(1 - studies.astype(np.float64), axis=0)
    assert_allclose(ale(list(studies)), expected, rtol=1e-14)
    # 1 - (1 - x) would lose all of this.
    assert_allclose(ale([line(1e-20), line(2e-20)]), line(3e-20), rtol=1e-15)


def test_mkda_and_kda__hand_computed() -> None:
    studies = [line(1, 0, 1), line(1, 1, 0)]
    assert_array_equal(mkda(studies), line(2, 1, 1))
    assert_array_equal(mkda(studies, [1.5, 0.5]), line(2, 0.5, 1.5))
    assert_array_equal(kda([line(2, 0, 1), line(1, 3, 0)]), line(3, 3, 1))


def test_summary__bad_input_raises() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ale([])
    with pytest.raises(ValueError, match="same shape"):
        kda([line(1), line(1, 2)])
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        ale([line(1.5)])
