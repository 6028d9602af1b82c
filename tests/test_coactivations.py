"""Coactivation against dense activation maps and plain products of tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask import counting
from nimare_dask.errors import CorpusWarning, SelectionError, SettingsError
from nimare_dask.estimators import features
from nimare_dask.provenance import steps
from tests.builders import small_space
from tests.foci import draw_foci, make_corpus

SPACE = small_space()
KERNEL = nd.MKDAKernel(r=18)
EMPTY = (3, 11)


@pytest.fixture(scope="module")
def corpus() -> xr.Dataset:
    """40 analyses in two spaces; two have no foci."""
    foci = draw_foci(4, SPACE, 40, 3, empty=EMPTY)
    codes = np.repeat(np.arange(40) % 2, [len(part) for part in foci])
    return make_corpus(foci, spaces=["MNI", "TAL"], codes=codes.tolist())


def parcels(n: int = 20) -> nib.Nifti1Image:
    """Parcels around drawn voxels of the mask; none at the bottom."""
    rng = np.random.default_rng(1)
    ijk = SPACE.voxel_ijk.astype(float)
    seeds = ijk[rng.choice(len(ijk), n, replace=False)]
    nearest = ((ijk[:, None] - seeds) ** 2).sum(axis=2).argmin(axis=1)
    values = np.zeros(SPACE.shape, np.int16)
    values[SPACE.mask] = nearest + 1
    values[:, :, :3] = 0
    return nib.Nifti1Image(values, SPACE.affine)


# the slow reference


def active(corpus: xr.Dataset) -> NDArray[np.int64]:
    """Who is active where, (analysis, voxel), of analyses with foci."""
    some = corpus["analysis_n_foci"].values > 0
    return nd.activation_maps(corpus, KERNEL, SPACE).values[some].astype(np.int64)


def who(maps: NDArray[np.int64], targets: nd.Targets, least: Any) -> NDArray[np.int64]:
    """Who activates which target, (analysis, target)."""
    table = [maps[:, targets.of_voxel == own].sum(axis=1) for own in range(len(targets.names))]
    return (np.transpose(table) >= least).astype(np.int64)


def association(both: Any, n_target: Any, n_voxel: Any, n: int) -> NDArray[np.float64]:
    """Signed root of the chi-square of a 2 x 2 table, cell by cell; 0 where a margin is empty."""
    z = np.zeros(both.shape)
    for place in np.ndindex(both.shape):
        a, row, column = both[place], n_target[place[0]], n_voxel[place[1]]
        cells = np.array([[a, row - a], [column - a, n - row - column + a]], float)
        rows, columns = cells.sum(axis=1), cells.sum(axis=0)
        if min(*rows, *columns) > 0:
            expected = np.outer(rows, columns) / n
            chi2 = ((cells - expected) ** 2 / expected).sum()
            z[place] = np.sign(cells[0, 0] - expected[0, 0]) * np.sqrt(chi2)
    return z


def check(found: xr.Dataset, corpus: xr.Dataset, targets: nd.Targets, least: Any = 1) -> None:
    maps = active(corpus)
    member, n = who(maps, targets, least), len(maps)
    kept = (member.sum(axis=0) > 0) & (member.sum(axis=0) < n)
    assert kept.sum() > 1
    names = [name for name, keep in zip(targets.names, kept, strict=True) if keep]
    assert found["feature"].values.tolist() == names
    member = member[:, kept]
    both = member.T @ maps
    assert found["n_both"].dtype == np.int32
    assert_array_equal(found["n_both"], both)
    assert_array_equal(found["n_selected"], member.sum(axis=0))
    assert_array_equal(found["n_active"], maps.sum(axis=0))
    given = found["prob"].sel(probability="AgF")
    assert_allclose(given, both / member.sum(axis=0)[:, None], rtol=1e-6)
    expected = association(both, member.sum(axis=0), maps.sum(axis=0), n)
    assert_allclose(found["z"].sel(effect="association"), expected, rtol=2e-6, atol=1e-6)
    assert_array_equal(found["target_n_voxels"], targets.n_voxels[kept])
    for at, axis in enumerate("xyz"):
        assert_allclose(found[f"target_{axis}"], targets.centre[kept, at])


@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
@pytest.mark.parametrize(
    ("min_overlap", "least"), [(1, 1), (3, 3), (1.0, "all"), (0.3, "share"), (1e-9, 1)]
)
def test_coactivation__of_parcels_equals_dense(
    corpus: xr.Dataset, min_overlap: float, least: Any
) -> None:
    atlas = parcels(60)
    targets = nd.parcel_targets(atlas, SPACE)
    if least in ("all", "share"):
        least = np.ceil((1.0 if least == "all" else 0.3) * targets.n_voxels - 1e-9)
    found = nd.coactivation(corpus, atlas, kernel=KERNEL, space=SPACE, min_overlap=min_overlap)
    check(found.compute(), corpus, targets, least)


@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
def test_coactivation__of_every_voxel_equals_dense(corpus: xr.Dataset) -> None:
    targets = nd.grid_targets(SPACE, step=8)
    found = nd.coactivation(corpus, targets, kernel=KERNEL, space=SPACE).compute()
    check(found, corpus, targets)
    # A voxel coactivates with another as that does with it.
    place = np.flatnonzero(np.isin(targets.names, found["feature"].values))
    square = found["n_both"].values[:, place]
    assert_array_equal(square, square.T)
    assert_array_equal(np.diag(square), found["n_selected"])


def test_coactivation__of_a_point_is_the_contrast_of_who_activates_it(corpus: xr.Dataset) -> None:
    found = nd.coactivation(corpus, [8, 0, 0], kernel=KERNEL, space=SPACE).compute()
    whole = nd.select(corpus, corpus["analysis_n_foci"].values > 0)
    voxel = int(np.flatnonzero((SPACE.voxel_ijk == [7, 7, 5]).all(axis=1))[0])
    there = active(corpus)[:, voxel] > 0
    pair = nd.MKDAChi2(kernel=KERNEL).fit(
        nd.select(whole, there), nd.select(whole, ~there), space=SPACE
    )
    for name in ("z", "chi2", "p", "logp"):
        wanted = pair[name].sel(effect=["uniformity", "association"])
        assert_array_equal(found[name].isel(feature=0), wanted, err_msg=name)
    assert found["n_both"].values[0, voxel] == there.sum()


def test_coactivation__hand_computed() -> None:
    # Three analyses; the spheres of 9 mm reach the six neighbours of a voxel of 8 mm.
    foci = [[[0, 0, 0]], [[8, 0, 0], [-24, 0, 0]], [[-24, 0, 0]]]
    found = nd.coactivation(
        make_corpus(foci), [[0, 0, 0], [-24, 0, 0]], kernel=nd.MKDAKernel(r=9), space=SPACE
    )
    at = {
        name: int(np.flatnonzero((SPACE.voxel_ijk == ijk).all(axis=1))[0])
        for name, ijk in {"0": (6, 7, 5), "16": (8, 7, 5), "-24": (3, 7, 5)}.items()
    }
    both = found["n_both"].values
    assert found["n_selected"].values.tolist() == [2, 2]
    assert [int(both[0, at[name]]) for name in at] == [2, 1, 1]
    assert [int(both[1, at[name]]) for name in at] == [1, 1, 2]


# laziness and blocks


@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("share", [0.0, 2.0])
def test_coactivation__blocks_and_ways_of_counting_do_not_matter(
    corpus: xr.Dataset, chunk: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = nd.coactivation(corpus, parcels(), kernel=KERNEL, space=SPACE).compute()
    monkeypatch.setattr(features, "FEATURE_CHUNK", chunk)
    monkeypatch.setattr(counting, "TABLE_SHARE", share)
    monkeypatch.setattr(counting, "TABLE_GROUPS", 1)
    lazy = nd.coactivation(corpus, parcels(), kernel=KERNEL, space=SPACE)
    assert max(lazy["z"].data.chunks[1]) <= chunk
    assert lazy["z"].data.numblocks[-1] == 1
    with dask.config.set(scheduler="threads", num_workers=3):
        xr.testing.assert_identical(lazy.compute(), expected)


@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
def test_coactivation__computes_only_what_is_asked_for(
    corpus: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []
    original = counting._count_whole

    def watch(*args: Any, **more: Any) -> Any:
        counted.append(1)
        return original(*args, **more)

    monkeypatch.setattr(counting, "_count_whole", watch)
    monkeypatch.setattr(features, "FEATURE_CHUNK", 4)
    lazy = nd.coactivation(corpus, parcels(), kernel=KERNEL, space=SPACE)
    assert all(isinstance(lazy[name].data, dask.array.Array) for name in lazy.data_vars)
    assert counted == []
    one = str(lazy["feature"].values[2])  # n_active comes from the first block
    lazy["z"].sel(feature=one, effect="association").compute()
    assert counted == [1]


# what comes after


@pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")
def test_coactivation__is_corrected_saved_and_exported_as_features_are(
    corpus: xr.Dataset, tmp_path: Path
) -> None:
    maps = nd.coactivation(corpus, parcels(), kernel=KERNEL, space=SPACE)
    maps = nd.correct_fdr(maps.sel(effect=["association"]))
    null = nd.feature_null(
        corpus,
        sizes=maps,
        estimator=nd.MKDAChi2(kernel=KERNEL),
        n_iters=20,
        space=SPACE,
        random_state=0,
    )
    maps = nd.correct_fwe(maps, null)
    kept = maps[["n_both", "z", "z_fdr_indep", "z_fwe"]]
    nd.save_result(kept, tmp_path / "coactivation.zarr")
    opened = nd.open_result(tmp_path / "coactivation.zarr")
    xr.testing.assert_equal(opened.compute(), kept.compute())
    name = str(opened["feature"].values[2])
    paths = nd.to_nifti(opened, tmp_path / "maps", features=[name], names=["z_desc-association"])
    assert [path.parent.name for path in paths] == [name.replace(" ", "_")]
    done = [step["step"] for step in steps(opened)]
    assert done == ["coactivation", "correct_fdr", "correct_fwe"]


# what is said and refused


def test_coactivation__targets_of_nobody_and_of_everybody_are_said(corpus: xr.Dataset) -> None:
    foci = [[[0, 0, 0]], [[0, 0, 0], [16, 0, 0]], [[0, 0, 0]]]
    given = [[0, 0, 0], [16, 0, 0], [-24, 0, 0]]
    small = nd.MKDAKernel(r=4)
    with pytest.warns(CorpusWarning, match=r"2 of 3 targets are dropped: .*x=0 y=0 z=0, x=-24"):
        maps = nd.coactivation(make_corpus(foci), given, kernel=small, space=SPACE)
    assert maps["feature"].values.tolist() == ["x=16 y=0 z=0"]
    (step,) = steps(maps)
    assert step["n_targets_dropped"] == 2
    assert step["settings"]["r"] == 4
    with pytest.raises(SelectionError, match=r"No target of 2 is activated .* use other targets"):
        nd.coactivation(make_corpus(foci), given[::2], kernel=small, space=SPACE)
    with pytest.raises(SelectionError, match="at least 2 of 3 analyses"):
        nd.coactivation(make_corpus(foci), given[1:2], kernel=small, space=SPACE, min_analyses=2)


def test_coactivation__no_foci_at_all() -> None:
    with pytest.raises(SelectionError, match="no focus at all"):
        nd.coactivation(make_corpus([[], []]), [0, 0, 0], space=SPACE)


@pytest.mark.parametrize("min_overlap", [0, -1, 0.0, 1.5, np.nan, True, "all", None])
def test_coactivation__min_overlap_that_cannot_be(corpus: xr.Dataset, min_overlap: Any) -> None:
    with pytest.raises(SettingsError, match="expected a number of voxels from 1, or a share"):
        nd.coactivation(corpus, [0, 0, 0], space=SPACE, min_overlap=min_overlap)


def test_coactivation__kernel_must_be_mkda(corpus: xr.Dataset) -> None:
    with pytest.raises(SettingsError, match="is defined for MKDAKernel"):
        nd.coactivation(corpus, [0, 0, 0], space=SPACE, kernel=nd.ALEKernel(fwhm=9))  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.realdata
def test_coactivation__of_neurosynth_equals_dense_at_some_voxels(data_folder: Path) -> None:
    source = data_folder / "neurosynth" / "data-neurosynth_version-7_"
    with pytest.warns(CorpusWarning):
        corpus = nd.read_neurosynth(f"{source}coordinates.tsv.gz", f"{source}metadata.tsv.gz")
        points = [[0, 0, 0], [-24, -2, -18], [38, 22, -2]]
        maps = nd.coactivation(corpus, points)
        found = maps["n_both"].values
        activation = nd.activation_maps(corpus, analysis_chunk=256)
    space = nd.load_space("mni152_2mm")
    at = [int(np.flatnonzero(nd.voxel_targets(point, space).of_voxel == 0)[0]) for point in points]
    some = np.random.default_rng(0).choice(space.n_voxels, 500, replace=False)
    dense = activation.isel(voxel=np.concatenate([at, some])).values.astype(np.int64)
    assert_array_equal(found[:, some], dense[:, :3].T @ dense[:, 3:])
    assert_array_equal(maps["n_selected"], dense[:, :3].sum(axis=0))
