"""What must not change a result: blocks, order, schedulers, files; and what must mirror it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from nimare_dask.corpus import open_corpus, save_corpus
from nimare_dask.correct import correct_fdr
from nimare_dask.estimators import features
from nimare_dask.estimators.mkda_chi2 import Chunks, MKDAChi2
from nimare_dask.footprint import MKDAKernel
from nimare_dask.io.results import open_result, save_result
from nimare_dask.parallel import shapes
from nimare_dask.selection import has_label, select
from nimare_dask.space import Space
from tests.foci import draw_corpus, draw_foci, make_corpus, make_space

ESTIMATOR = MKDAChi2(kernel=MKDAKernel(r=5))
SPACE = make_space((7, 8, 9))
CHUNKS: list[Chunks] = ["voxel", "feature"]


def bits(result: xr.Dataset) -> dict[str, Any]:
    """Every variable as integers of its bits, so that NaN equals NaN and -0 is not 0."""
    return {
        str(name): (variable.dims, variable.values.view(f"i{variable.dtype.itemsize}"))
        for name, variable in result.variables.items()
        if variable.dtype.kind in "fiu"
    }


def assert_same_bits(found: xr.Dataset, expected: xr.Dataset) -> None:
    one, other = bits(found), bits(expected)
    assert set(one) == set(other)
    for name, (dims, values) in one.items():
        assert dims == other[name][0], name
        assert_array_equal(values, other[name][1], err_msg=name)
    for name in ("feature", "effect", "probability"):
        if name in expected.coords:
            assert_array_equal(found[name], expected[name])


def corrected(corpus: xr.Dataset, chunks: Chunks = "voxel", space: Space = SPACE) -> xr.Dataset:
    """Every map of every feature, and corrected ones: lazy."""
    maps = ESTIMATOR.fit_features(corpus, space=space, chunks=chunks)
    return correct_fdr(correct_fdr(maps, method="indep"), method="negcorr")


@pytest.fixture(scope="module")
def corpus() -> xr.Dataset:
    return draw_corpus(1, SPACE, empty=[4])


@pytest.fixture(scope="module")
def expected(corpus: xr.Dataset) -> xr.Dataset:
    with dask.config.set(scheduler="synchronous"):
        return corrected(corpus).compute()


# blocks


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("voxel_chunk", [64, 65, 150, 4096])
@pytest.mark.parametrize("feature_chunk", [1, 4])
def test_blocks__do_not_matter(
    corpus: xr.Dataset,
    expected: xr.Dataset,
    chunks: Chunks,
    voxel_chunk: int,
    feature_chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", voxel_chunk)
    monkeypatch.setattr(features, "FEATURE_CHUNK", feature_chunk)
    assert_same_bits(corrected(corpus, chunks).compute(scheduler="synchronous"), expected)


# schedulers


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_scheduler__does_not_matter(
    corpus: xr.Dataset,
    expected: xr.Dataset,
    scheduler: str,
    chunks: Chunks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", 100)
    found = corrected(corpus, chunks).compute(scheduler=scheduler, num_workers=2)
    assert_same_bits(found, expected)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            protocol="tcp",
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.mark.parametrize("chunks", CHUNKS)
def test_scheduler__two_distributed_workers(
    corpus: xr.Dataset,
    expected: xr.Dataset,
    client: Any,
    chunks: Chunks,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", 100)
    monkeypatch.setattr(features, "FEATURE_CHUNK", 2)
    assert_same_bits(corrected(corpus, chunks).compute(), expected)


def test_scheduler__pair_on_two_distributed_workers(corpus: xr.Dataset, client: Any) -> None:
    mask = has_label(corpus, "0002")
    groups = select(corpus, mask), select(corpus, ~mask)
    found = ESTIMATOR.fit(*groups, space=SPACE)
    with dask.config.set(scheduler="synchronous"):
        assert_same_bits(found, ESTIMATOR.fit(*groups, space=SPACE))


# order


def reordered(corpus: xr.Dataset, order: np.ndarray) -> xr.Dataset:
    """The same analyses in another order, through the front door."""
    foci = np.split(corpus["focus_xyz"].values, np.cumsum(corpus["analysis_n_foci"].values)[:-1])
    weights = np.column_stack(
        [
            np.bincount(
                corpus["weight_analysis"].values[part],
                corpus["weight_value"].values[part],
                corpus.sizes["analysis"],
            )
            for part in np.split(
                np.arange(corpus.sizes["weight"]),
                np.cumsum(corpus["feature_n_weights"].values)[:-1],
            )
        ]
    )
    return make_corpus([foci[place] for place in order], weights[order])


@settings(max_examples=5)
@given(seed=st.integers(0, 1000))
def test_order__of_analyses_does_not_matter(seed: int) -> None:
    corpus = draw_corpus(2, SPACE)
    order = np.random.default_rng(seed).permutation(corpus.sizes["analysis"])
    expected = corrected(corpus).compute(scheduler="synchronous")
    found = corrected(reordered(corpus, order)).compute(scheduler="synchronous")
    assert_same_bits(found, expected)


def test_order__of_foci_does_not_matter() -> None:
    foci = draw_foci(3, SPACE, 20)
    weights = np.eye(20)[:, :4] + np.eye(20, k=1)[:, :4]
    expected = corrected(make_corpus(foci, weights)).compute(scheduler="synchronous")
    turned = corrected(make_corpus([part[::-1] for part in foci], weights))
    assert_same_bits(turned.compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_order__of_features_does_not_matter(
    corpus: xr.Dataset, expected: xr.Dataset, chunks: Chunks
) -> None:
    names = expected["feature"].values[np.random.default_rng(0).permutation(6)].tolist()
    maps = ESTIMATOR.fit_features(corpus, space=SPACE, features=names, chunks=chunks)
    found = correct_fdr(correct_fdr(maps, method="indep"), method="negcorr")
    assert found["feature"].values.tolist() == names
    assert_same_bits(found.compute(scheduler="synchronous"), expected.sel(feature=names))


# what adds nothing


def test_empty_analysis__changes_nothing() -> None:
    foci = draw_foci(4, SPACE, 20)
    weights = np.eye(20)[:, :4] + np.eye(20, k=1)[:, :4]
    expected = corrected(make_corpus(foci, weights)).compute(scheduler="synchronous")
    more = make_corpus(
        [[], *foci[:7], [], *foci[7:], []],
        np.vstack([np.ones(4), weights[:7], np.zeros(4), weights[7:], np.ones(4)]),
    )
    assert_same_bits(corrected(more).compute(scheduler="synchronous"), expected)


def test_duplicated_focus__changes_nothing() -> None:
    foci = draw_foci(5, SPACE, 20)
    weights = np.eye(20)[:, :4] + np.eye(20, k=1)[:, :4]
    expected = corrected(make_corpus(foci, weights)).compute(scheduler="synchronous")
    twice = make_corpus([np.concatenate([part, part[:1], part]) for part in foci], weights)
    assert_same_bits(corrected(twice).compute(scheduler="synchronous"), expected)


def test_focus_out_of_reach__changes_nothing_but_counts_as_a_focus() -> None:
    foci = draw_foci(6, SPACE, 12)
    weights = np.eye(12)[:, :3]
    expected = corrected(make_corpus(foci, weights)).compute(scheduler="synchronous")
    far = make_corpus([np.concatenate([part, [[500, -500, 500]]]) for part in foci], weights)
    assert_same_bits(corrected(far).compute(scheduler="synchronous"), expected)


# symmetry


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_foci__give_a_mirrored_map(axis: int) -> None:
    # With an odd number of voxels a tie between two voxels goes to the mirrored one, too.
    mask = make_space((9, 7, 9)).mask
    mask &= np.flip(mask, axis)
    whole = make_space((9, 7, 9))
    space = Space("symmetric", mask, whole.affine)
    foci = draw_foci(7, space, 20)
    sign = np.where(np.arange(3) == axis, -1, 1)
    weights = np.eye(20)[:, :4] + np.eye(20, k=1)[:, :4]
    found = corrected(make_corpus([part * sign for part in foci], weights), space=space)
    found = found.compute(scheduler="synchronous")
    straight = corrected(make_corpus(foci, weights), space=space).compute(scheduler="synchronous")
    place = np.zeros(mask.shape, np.int64)
    place[mask] = np.arange(mask.sum())
    mirror = np.flip(place, axis)[mask]
    for name in [str(name) for name in straight.data_vars] + ["n_active"]:
        expected = straight[name].values[..., mirror]
        assert_array_equal(found[name].values, expected, err_msg=name)


def test_swapped_groups__turn_the_sign() -> None:
    groups = [make_corpus(draw_foci(seed, SPACE, 14), prefix=str(seed)) for seed in (8, 9)]
    there = ESTIMATOR.fit(*groups, space=SPACE)
    back = ESTIMATOR.fit(*groups[::-1], space=SPACE)
    there_z, back_z = (maps["z"].sel(effect="association") for maps in (there, back))
    assert_array_equal(there_z, -back_z)
    for name in ("chi2", "p", "logp"):
        one, other = (maps[name].sel(effect="association") for maps in (there, back))
        assert_array_equal(one, other)
    for name in ("z", "chi2", "p", "logp"):
        one, other = there[name].sel(effect="group1"), back[name].sel(effect="group2")
        assert_array_equal(one, other)


# files


def test_corpus__written_and_read_gives_the_same(
    corpus: xr.Dataset, expected: xr.Dataset, tmp_path: Path
) -> None:
    opened = open_corpus(save_corpus(corpus, tmp_path / "corpus.zarr"))
    assert_same_bits(corrected(opened).compute(scheduler="synchronous"), expected)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_result__written_and_read_gives_the_same(
    corpus: xr.Dataset,
    expected: xr.Dataset,
    chunks: Chunks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", 100)
    opened = open_result(save_result(corrected(corpus, chunks), tmp_path / "maps.zarr"))
    assert_same_bits(opened.compute(), expected)


def test_result__corrected_after_reading_is_the_same(
    corpus: xr.Dataset, expected: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "VOXEL_CHUNK", 100)
    maps = ESTIMATOR.fit_features(corpus, space=SPACE)
    opened = open_result(save_result(maps[["z"]], tmp_path / "z.zarr"))
    found = correct_fdr(correct_fdr(opened, method="indep"), method="negcorr").compute()
    assert_same_bits(found, expected[list(map(str, found.data_vars))])
