"""Modelled activation: maps, values and counts against volumes of the slow reference."""

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

from nimare_dask.activation import activation_maps, foci_pool, locate, study_values, value_steps
from nimare_dask.errors import CorpusWarning, SettingsError
from nimare_dask.footprint import ALEKernel, KDAKernel, Kernel, MKDAKernel
from nimare_dask.space import Space
from tests import slow
from tests.builders import tiny_corpus
from tests.foci import make_corpus, make_space
from tests.groups import EMPTY, SPACE, group
from tests.reference.gaussian import ale_fwhm
from tests.reference.space import lancaster_mni2tal, lancaster_tal2mni

KERNELS: list[Kernel] = [
    ALEKernel(fwhm=14),
    ALEKernel(sample_size=3),
    ALEKernel(),
    MKDAKernel(r=14),
    KDAKernel(r=14),
    KDAKernel(r=30),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


def expected_maps(kernel: Kernel, corpus: xr.Dataset, space: Space) -> NDArray[Any]:
    """Volumes of the slow reference inside the mask, (analysis, voxel)."""
    if isinstance(kernel, ALEKernel):
        n = corpus.sizes["analysis"]
        if kernel.fwhm is not None:
            widths = [kernel.fwhm] * n
        elif kernel.sample_size is not None:
            widths = [ale_fwhm(kernel.sample_size)] * n
        else:
            widths = [ale_fwhm(size) for size in corpus["analysis_sample_size"].values]
        volumes = slow.ale_volumes(corpus, space, widths)
    elif isinstance(kernel, MKDAKernel):
        volumes = slow.mkda_volumes(corpus, space, kernel.r)
    else:
        assert isinstance(kernel, KDAKernel)
        volumes = slow.kda_volumes(corpus, space, kernel.r)
    return np.array([volume[space.mask] for volume in volumes])


# maps


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("analysis_chunk", [1, 4, 512])
def test_activation_maps__equal_reference(kernel: Kernel, analysis_chunk: int) -> None:
    corpus = group(1)
    maps = activation_maps(corpus, kernel, SPACE, analysis_chunk=analysis_chunk)
    expected = expected_maps(kernel, corpus, SPACE)
    assert expected.any() and expected.min() == 0
    # Gaussians are rounded to float32 once on either side, from sums in another order.
    rtol = 2.5e-7 if isinstance(kernel, ALEKernel) else 0
    assert_allclose(maps.values, expected, rtol=rtol)
    assert not maps.values[list(EMPTY)].any()


@pytest.mark.parametrize("zooms", [(3.0, 3.0, 3.0), (2.0, 3.0, 4.0)])
@pytest.mark.parametrize("kernel", [ALEKernel(fwhm=9), KDAKernel(r=6), MKDAKernel(r=6)])
def test_activation_maps__other_grids(kernel: Kernel, zooms: Any) -> None:
    space = make_space((9, 8, 7), zooms)
    rng = np.random.default_rng(0)
    corpus = make_corpus([rng.uniform(-25, 25, size=(n, 3)) for n in (3, 0, 8, 1)])
    found = activation_maps(corpus, kernel, space).values
    assert_allclose(found, expected_maps(kernel, corpus, space), rtol=2.5e-7)


@pytest.mark.parametrize(
    ("kernel", "dtype"),
    [(ALEKernel(fwhm=14), np.float32), (MKDAKernel(r=14), np.uint8), (KDAKernel(r=14), np.int16)],
)
def test_activation_maps__is_lazy_and_says_what_it_is(kernel: Kernel, dtype: type) -> None:
    corpus = group(2)
    maps = activation_maps(corpus, kernel, SPACE, analysis_chunk=4)
    assert isinstance(maps.data, da.Array)
    assert maps.dims == ("analysis", "voxel")
    assert maps.chunks == ((4, 4, 1), (SPACE.n_voxels,))
    assert maps.dtype == maps.values.dtype == dtype
    assert_array_equal(maps["analysis_id"], corpus["analysis_id"])
    for axis, name in enumerate(("voxel_i", "voxel_j", "voxel_k")):
        assert_array_equal(maps[name], np.argwhere(SPACE.mask)[:, axis])
    assert maps.attrs["kernel"] == type(kernel).__name__
    assert maps.attrs["shape"] == [13, 14, 12]


def test_activation_maps__kda_counts_foci_that_are_there_twice() -> None:
    corpus = make_corpus([[[0.0, 0, 0]] * 3 + [[8, 0, 0]], [[0, 0, 0]]])
    found = activation_maps(corpus, KDAKernel(r=8), SPACE).values
    assert sorted(set(found[0].tolist())) == [0, 1, 3, 4]
    assert (found[0] == 4).sum() == 2  # the two places themselves
    assert found[1].max() == 1


def test_activation_maps__foci_far_out_are_nowhere() -> None:
    corpus = make_corpus([[[1e7, 0, 0], [0, -1e7, 0]], [[0, 0, 1e3]]])
    for kernel in KERNELS[:2] + KERNELS[3:]:
        assert not activation_maps(corpus, kernel, SPACE).values.any()


def test_activation_maps__no_foci_at_all() -> None:
    nothing: list[Any] = [[], []]
    for kernel in (ALEKernel(fwhm=14), MKDAKernel(), KDAKernel()):
        found = activation_maps(make_corpus(nothing), kernel, SPACE)
        assert found.shape == (2, SPACE.n_voxels)
        assert not found.values.any()


def test_activation_maps__chunk_that_cannot_be() -> None:
    with pytest.raises(SettingsError, match="analysis_chunk is 0; expected at least 1"):
        activation_maps(group(), KDAKernel(), SPACE, analysis_chunk=0)


# values and counts


@pytest.mark.parametrize("kernel", KERNELS)
def test_study_values__count_the_voxels_of_the_maps(kernel: Kernel) -> None:
    corpus = group(3)
    study = study_values(kernel, corpus, locate([corpus], SPACE), SPACE)
    maps = activation_maps(corpus, kernel, SPACE).values
    assert study.values.dtype == np.float32
    assert study.values[0] == 0 and (np.diff(study.values) > 0).all()
    assert study.counts.shape == (9, len(study.values))
    assert (study.counts.sum(axis=1) == SPACE.n_voxels).all()
    assert study.n_voxels == SPACE.n_voxels
    for row, counts in zip(maps.astype(np.float32), study.counts, strict=True):
        assert_array_equal(np.repeat(study.values, counts), np.sort(row))
    assert_array_equal(study.maxima(), maps.max(axis=1).astype(np.float32))


@pytest.mark.parametrize("kernel", [ALEKernel(), MKDAKernel(r=14)])
def test_value_steps__give_back_the_footprints(kernel: Kernel) -> None:
    corpus = group(4)
    values, packed, footprint_of = value_steps(kernel, corpus, SPACE)
    dense, expected_of = kernel.footprints(corpus, SPACE)
    assert_array_equal(footprint_of, expected_of)
    assert_array_equal(values, np.unique([0, *np.concatenate([part.ravel() for part in dense])]))
    assert packed.largest == len(values) - 1
    assert packed.values.dtype == np.int16
    assert_array_equal(np.sort(values[packed.values[packed.values > 0]]), all_above_zero(dense))


def all_above_zero(dense: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    together = np.concatenate([part.ravel() for part in dense]).astype(np.float32)
    return np.sort(together[together > 0])


# where foci are reported at all


@pytest.mark.parametrize("reference", ["MNI", "TAL"])
def test_foci_pool__all_foci_in_mm_of_the_space(reference: Any) -> None:
    space = make_space((5, 5, 5), reference=reference)
    foci = np.random.default_rng(0).uniform(-60, 60, size=(6, 3))
    corpus = make_corpus([foci[:4], [], foci[4:]], spaces=["TAL", "MNI"], codes=[0, 1, 0, 1, 1, 0])
    found = foci_pool(corpus, space)
    here = np.array([0, 1, 0, 1, 1, 0]) == 0
    expected = foci.copy()
    if reference == "MNI":
        expected[here] = lancaster_tal2mni(foci[here])
    else:
        expected[~here] = lancaster_mni2tal(foci[~here])
    assert_allclose(found, expected, rtol=1e-12)
    assert_allclose(corpus["focus_xyz"], foci)  # as it was


def test_foci_pool__unknown_spaces_are_mni_with_a_warning() -> None:
    with pytest.warns(CorpusWarning, match=r"3 of 6 foci have a space that is not known"):
        found = foci_pool(tiny_corpus(), SPACE)
    assert found.shape == (6, 3)
    assert_array_equal(found[3:], [[2.5, 3, 4], [-20, 10, 10], [400, 0, 0]])
