"""Kernels: settings that cannot be, golden values, and the grid that they are made for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.footprint import ALEKernel, KDAKernel, Kernel, MKDAKernel, fwhm_of
from nimare_dask.kernels.footprints import dense_sphere, gaussian, sphere_columns
from tests.builders import small_space, tiny_corpus
from tests.foci import make_corpus, make_space
from tests.reference.gaussian import ale_fwhm, ale_kernel
from tests.reference.kernel import sphere_offsets

MM2 = (2.0, 2.0, 2.0)
#: Full width at half maximum of a normal law of standard deviation 1.
FWHM = 2.3548200450309493
Zooms = tuple[float, float, float]

#: Subjects, FWHM in mm, standard deviation in voxels, edge of the box and largest value, at 2 mm.
GOLDEN = [
    (5, 11.3733, 2.41491, 21, 0.00450863),
    (10, 10.0026, 2.12385, 17, 0.00662871),
    (15, 9.5018, 2.01752, 17, 0.0077322),
    (20, 9.24124, 1.9622, 17, 0.00840461),
    (30, 8.97312, 1.90527, 17, 0.00918059),
    (50, 8.75272, 1.85847, 15, 0.00989287),
    (100, 8.5837, 1.82258, 15, 0.0104884),
]


# Gaussians


@pytest.mark.parametrize(("n", "fwhm", "sigma", "edge", "peak"), GOLDEN)
def test_gaussian__golden_2mm(n: int, fwhm: float, sigma: float, edge: int, peak: float) -> None:
    assert_allclose(fwhm_of(n), fwhm, rtol=5e-6)
    values = gaussian(fwhm_of(n), MM2)
    assert values.shape == (edge, edge, edge)
    assert np.count_nonzero(values > 0) == edge**3
    assert_allclose(values.max(), peak, rtol=5e-6)
    assert values[edge // 2, edge // 2, edge // 2] == values.max()
    assert_allclose(values.sum(), 1, rtol=1e-13)
    # exp(-1 / (2 sigma^2)) one voxel beside the middle.
    beside = values[edge // 2, edge // 2, edge // 2 + 1] / values.max()
    assert_allclose(math.sqrt(-0.5 / math.log(beside)), sigma, rtol=5e-6)


def test_gaussian__golden_10mm() -> None:
    values = gaussian(10.0, MM2)
    assert values.shape == (17, 17, 17)
    assert_allclose(values.max(), 0.00663381, rtol=5e-6)


@pytest.mark.parametrize(
    "zooms", [MM2, (3.0, 3.0, 3.0), (1.0, 1.0, 1.0), (1.0, 2.0, 3.0), (4.0, 2.5, 2.0)]
)
@pytest.mark.parametrize("fwhm", [5.0, 9.24124, 12.0])
def test_gaussian__equals_reference(fwhm: float, zooms: Zooms) -> None:
    expected = ale_kernel(fwhm, zooms)
    found = gaussian(fwhm, zooms)
    assert found.shape == expected.shape
    assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("zooms", [MM2, (3.0, 3.0, 3.0), (1.0, 2.0, 3.0), (2.0, 3.3, 0.7)])
@pytest.mark.parametrize("fwhm", [8.0, 15.0, 40.0])
def test_gaussian__has_its_width_in_mm_on_every_axis(fwhm: float, zooms: Zooms) -> None:
    values = gaussian(fwhm, zooms)
    for axis, zoom in enumerate(zooms):
        profile = values.sum(axis=tuple(other for other in range(3) if other != axis))
        mm = (np.arange(len(profile)) - len(profile) // 2) * zoom
        # Half of the peak half a width from it: the log of the profile is a parabola.
        assert_allclose(
            np.interp((fwhm / 2) ** 2, mm[mm >= 0] ** 2, np.log(profile[mm >= 0] / profile.max())),
            -math.log(2),
            rtol=1e-6,
        )
        assert_allclose(math.sqrt(profile @ mm**2) * FWHM, fwhm, rtol=0.01)
        # Cut at four standard deviations, to a voxel.
        assert abs(mm[-1] - 4 * fwhm / FWHM) <= zoom


def test_gaussian__wide_ones_are_not_cut_at_31_voxels() -> None:
    # NiMARE's box at 2 mm ends at 15 voxels, where a width of 24 mm loses 1 % and more.
    assert gaussian(24.0, MM2).shape == (41, 41, 41)
    assert_allclose(gaussian(24.0, MM2).sum(), 1, rtol=1e-13)


def test_gaussian__flipped_axis_is_the_same() -> None:
    assert_array_equal(gaussian(8.0, (-2.0, 2.0, 3.0)), gaussian(8.0, (2.0, 2.0, 3.0)))


def test_fwhm_of__equals_reference_and_shrinks() -> None:
    sizes = [0.5, 1, 2.5, 12, 20, 20.5, 1000, 1e12]
    found = [fwhm_of(size) for size in sizes]
    assert_allclose(found, [ale_fwhm(size) for size in sizes], rtol=1e-14)
    assert (np.diff(found) < 0).all()
    assert_allclose(found[1], math.hypot(17.118, 8.411), rtol=5e-5)
    assert_allclose(found[-1], 8.411, rtol=5e-5)


# spheres


@pytest.mark.parametrize(("r", "zooms"), [(10, MM2), (6, (3, 2, 4)), (1, MM2), (5, (2.5, 0.7, 1))])
def test_dense_sphere__equals_reference(r: float, zooms: Zooms) -> None:
    sphere = dense_sphere(sphere_columns(zooms, r))
    middle = np.array(sphere.shape) // 2
    offsets = np.argwhere(sphere) - middle
    assert_array_equal(offsets, sphere_offsets(zooms, r))
    assert_array_equal(np.unique(sphere), [0.0, 1.0] if sphere.size > 1 else [1.0])


@pytest.mark.parametrize("kernel", [MKDAKernel(r=10), KDAKernel(r=10)])
def test_sphere_kernels__one_footprint_for_all_analyses(kernel: Kernel) -> None:
    space = make_space((4, 4, 4))
    (sphere,), footprint_of = kernel.footprints(tiny_corpus(), space)
    assert sphere.sum() == 515
    assert_array_equal(footprint_of, np.zeros(4))
    assert footprint_of.dtype == np.int32


def test_kernels__say_what_overlaps_mean_and_their_settings() -> None:
    assert (MKDAKernel().union, KDAKernel().union, ALEKernel().union) == (True, False, True)
    assert MKDAKernel(r=6).settings() == {"kernel": "MKDAKernel", "r": 6}
    assert KDAKernel().settings() == {"kernel": "KDAKernel", "r": 10.0}
    assert ALEKernel(fwhm=8).settings() == {"kernel": "ALEKernel", "fwhm": 8, "sample_size": None}


# which Gaussian an analysis has


def widths_of(values: list[NDArray[np.float64]], zoom: float) -> list[float]:
    """Width in mm of Gaussians, from the two values in the middle."""
    found = []
    for part in values:
        i, j, k = (length // 2 for length in part.shape)
        sigma = math.sqrt(-0.5 / math.log(part[i, j, k + 1] / part[i, j, k]))
        found.append(sigma * zoom * FWHM)
    return found


def test_ale_kernel__one_gaussian_for_each_sample_size() -> None:
    space = make_space((4, 4, 4))
    sizes = np.array([20.0, 12.5, 20.0, 31.0])
    corpus = tiny_corpus().assign(analysis_sample_size=("analysis", sizes))
    values, footprint_of = ALEKernel().footprints(corpus, space)
    assert len(values) == 3
    assert footprint_of.dtype == np.int32
    found = np.array(widths_of(values, 2.0))[footprint_of]
    assert_allclose(found, [ale_fwhm(size) for size in sizes], rtol=1e-6)
    for part in values:
        assert part.dtype == np.float64
        assert_array_equal(part, part.astype(np.float32))  # in steps of float32


@pytest.mark.parametrize(
    ("kernel", "fwhm"),
    [
        (ALEKernel(fwhm=9), 9.0),
        (ALEKernel(fwhm=np.float32(9)), 9.0),  # type: ignore[arg-type]
        (ALEKernel(sample_size=20), ale_fwhm(20)),
        (ALEKernel(sample_size=7.5), ale_fwhm(7.5)),
    ],
)
def test_ale_kernel__one_width_for_all(kernel: ALEKernel, fwhm: float) -> None:
    sizes = np.array([np.nan, 5, 5, 0])  # not looked at
    corpus = tiny_corpus().assign(analysis_sample_size=("analysis", sizes))
    for given in (tiny_corpus(), corpus):
        values, footprint_of = kernel.footprints(given, make_space((4, 4, 4)))
        assert_allclose(widths_of(values, 2.0), [fwhm], rtol=1e-6)
        assert_array_equal(footprint_of, np.zeros(4))


@pytest.mark.parametrize("zooms", [(3.0, 3.0, 3.0), (2.0, 3.0, 4.0)])
def test_ale_kernel__other_grids(zooms: Zooms) -> None:
    (values,), _ = ALEKernel(fwhm=12).footprints(tiny_corpus(), make_space((4, 4, 4), zooms))
    assert_array_equal(values, ale_kernel(12.0, zooms).astype(np.float32))
    coarse, _ = ALEKernel(sample_size=20).footprints(tiny_corpus(), small_space())
    assert_allclose(widths_of(coarse, 8.0), [ale_fwhm(20)], rtol=1e-6)


# what is refused and said


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "10", None, True, [10.0]])
@pytest.mark.parametrize("make", [MKDAKernel, KDAKernel])
def test_sphere_kernels__radius_that_cannot_be(make: Callable[..., Any], value: Any) -> None:
    with pytest.raises(SettingsError, match=r"^r is .*; expected a radius in mm above 0\.$"):
        make(r=value)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, "10", True, [10.0]])
def test_ale_kernel__settings_that_cannot_be(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"^fwhm is .*; expected a width in mm above 0\.$"):
        ALEKernel(fwhm=value)
    expected = r"^sample_size is .*; expected a number of subjects above 0\.$"
    with pytest.raises(SettingsError, match=expected):
        ALEKernel(sample_size=value)


def test_ale_kernel__both_widths_are_refused() -> None:
    with pytest.raises(SettingsError, match="fwhm is 10 and sample_size is 20; give one of them"):
        ALEKernel(fwhm=10, sample_size=20)


def test_ale_kernel__missing_sample_sizes_are_named_with_two_ways_out() -> None:
    sizes = np.array([20, np.nan, 0, 12.0])
    corpus = tiny_corpus().assign(analysis_sample_size=("analysis", sizes))
    with pytest.raises(SchemaError) as caught:
        ALEKernel().footprints(corpus, small_space())
    said = str(caught.value)
    assert "2 of 4 analyses have no sample size" in said
    assert "s1-2" in said and "s2-1" in said and "s1-1" not in said and "s3-1" not in said
    assert "ALEKernel(sample_size=20) or ALEKernel(fwhm=10)" in said
    assert 'nd.select(corpus, corpus["analysis_sample_size"] > 0)' in said


def test_ale_kernel__no_sample_sizes_at_all() -> None:
    with pytest.raises(SchemaError, match="4 of 4 analyses have no sample size"):
        ALEKernel().footprints(tiny_corpus(), small_space())


def test_ale_kernel__many_missing_sample_sizes_are_shortened() -> None:
    corpus = make_corpus([[[0.0, 0, 0]]] * 500)
    with pytest.raises(SchemaError, match="500 of 500") as caught:
        ALEKernel().footprints(corpus, small_space())
    assert len(str(caught.value)) < 600


def test_ale_kernel__within_one_voxel_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"0\.5 mm lies within one voxel .* about a voxel"):
        ALEKernel(fwhm=0.5).footprints(tiny_corpus(), small_space())
    ALEKernel(fwhm=8).footprints(tiny_corpus(), small_space())
