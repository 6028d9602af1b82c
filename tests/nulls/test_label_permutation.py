"""Nulls of two groups and of all features: what people call, what they get, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import nimare_dask as nd
from nimare_dask import corpus as nd_corpus
from nimare_dask.errors import SchemaError, SettingsError, StoreExistsError
from nimare_dask.nulls.jobs import Job
from nimare_dask.nulls.stored import job_of
from nimare_dask.provenance import steps
from nimare_dask.space import Space
from tests.group_pairs import (
    ALE,
    ALE_THRESH,
    CHI2,
    CHI2_THRESH,
    FEATURE_SIZES,
    KINDS,
    P,
    Pair,
    assert_same_null,
    featured,
    null_names,
    of_feature,
    pair,
    run,
)
from tests.groups import SPACE
from tests.null_runs import n_done, names_in, threads

N = 30


@pytest.fixture(scope="module")
def expected() -> dict[str, xr.Dataset]:
    """Thirty iterations of each null, in one batch."""
    with threads(1):
        return {kind: run(kind, N, batch=N) for kind in KINDS}


# what there is


def test_null__dims_and_coords(expected: dict[str, xr.Dataset]) -> None:
    effects, inferences = ["uniformity", "association", "group2"], ["voxel", "size", "mass"]
    for null in expected.values():
        assert null["inference"].values.tolist() == inferences
        assert null["null_max"].dtype == np.float64 and not np.isnan(null["null_max"]).any()
        assert null.sizes["iteration"] == N
    for kind in ("chi2", "random foci"):
        assert expected[kind]["null_max"].dims == ("iteration", "effect", "inference")
        assert expected[kind]["effect"].values.tolist() == effects
        assert null_names(expected[kind]) == ["null_max"]
    features = expected["features"]
    assert features["null_max"].dims == ("iteration", "size", "effect", "inference")
    assert features["effect"].values.tolist() == ["association"]
    assert features["size"].values.tolist() == FEATURE_SIZES
    assert features["size"].dtype == np.int64
    ale = expected["ale"]
    assert ale["null_max"].dims == ("iteration", "inference")
    assert null_names(ale) == ["null_max", "null_up", "null_low"]
    for name in ("null_up", "null_low"):
        assert ale[name].dims == ("voxel",) and ale[name].dtype == np.int64
    assert (ale["null_up"] + ale["null_low"] >= N).all()


def test_null__is_what_its_job_gives(expected: dict[str, xr.Dataset]) -> None:
    groups = pair()
    jobs: dict[str, Job] = {
        "chi2": groups.label_counts(),
        "random foci": groups.redraw(),
        "ale": groups.subtraction(None, p=P),
    }
    for kind, job in jobs.items():
        batch = job.run(0, N)
        null = expected[kind]
        assert_array_equal(null["null_max"].values.reshape(N, -1), batch.maxima)
        for name, values in batch.sums.items():
            assert_array_equal(null[name], values)
        assert job_of(null).facts() == job.facts()


def test_null__keeps_how_it_was_made(expected: dict[str, xr.Dataset]) -> None:
    schemes = ["label_permutation_null", "random_foci_null", "feature_null"]
    schemes.append("label_permutation_null")
    for (kind, null), scheme in zip(expected.items(), schemes, strict=True):
        step = steps(null)[-1]
        assert step["step"] == scheme == null.attrs["run"]["scheme"]
        name = "ALESubtraction" if kind == "ale" else "MKDAChi2"
        assert step["settings"]["estimator"] == null.attrs["run"]["estimator"] == name
        assert step["settings"]["connectivity"] == "faces"
        assert null.attrs["n_iters"] == N and null.attrs["random_state"] == 5
        assert null.attrs["voxel_thresh"] == P
        assert (step["n_analyses"], step["n_analyses_without_foci"]) == (18, 2)
        assert len(step["corpus_digests"]) == (1 if kind == "features" else 2)
        thresh = null.attrs["stat_thresh" if kind == "ale" else "chi2_thresh"]
        of_job = pair().subtraction(None, p=P).stat_thresh
        assert thresh == (of_job if kind == "ale" else CHI2_THRESH)
    assert steps(expected["chi2"])[-1]["n_selected"] == 7
    assert expected["random foci"].attrs["coverage"] == "brain"


@pytest.mark.parametrize("kind", KINDS)
def test_voxel_thresh__none_leaves_clusters_out(
    kind: str, expected: dict[str, xr.Dataset], tmp_path: Path
) -> None:
    null = run(kind, N, voxel_thresh=None)
    assert null["inference"].values.tolist() == ["voxel"]
    assert_same_null(
        null.drop_vars("inference"), expected[kind].isel(inference=[0]).drop_vars("inference")
    )
    run(kind, 9, voxel_thresh=None, batch=4, store=tmp_path / "null")
    assert_same_null(run(kind, N, voxel_thresh=None, store=tmp_path / "null"), null)


@pytest.mark.parametrize(("estimator", "thresh"), [(CHI2, CHI2_THRESH), (ALE, ALE_THRESH)])
def test_stat_thresh__takes_the_place_of_voxel_thresh(estimator: Any, thresh: float) -> None:
    groups = pair()
    given: dict[str, Any] = {"space": SPACE, "n_iters": N, "random_state": 5}
    null = nd.label_permutation_null(
        estimator, groups.first, groups.second, stat_thresh=thresh, **given
    )
    job = groups.label_counts() if estimator is CHI2 else groups.subtraction()
    assert_array_equal(null["null_max"].values.reshape(N, -1), job.run(0, N).maxima)
    assert null.attrs["voxel_thresh"] is None
    higher = nd.label_permutation_null(
        estimator, groups.first, groups.second, stat_thresh=2 * thresh, **given
    )
    sizes = (part["null_max"].sel(inference="size") for part in (higher, null))
    assert bool((next(sizes) <= next(sizes)).all())


# seeds and stores


@pytest.mark.parametrize("kind", KINDS)
def test_random_state__none_records_one_and_goes_on_with_that_of_the_store(
    kind: str, tmp_path: Path
) -> None:
    some = run(kind, 9, batch=4, random_state=None, store=tmp_path / "null")
    seed = some.attrs["random_state"]
    more = run(kind, 15, random_state=None, store=tmp_path / "null")
    assert isinstance(seed, int) and more.attrs["random_state"] == seed
    assert_same_null(more, run(kind, 15, random_state=seed))
    assert run(kind, 2, random_state=None).attrs["random_state"] != seed


@pytest.mark.parametrize("kind", KINDS)
def test_store__goes_on_after_an_interruption(
    kind: str, expected: dict[str, xr.Dataset], tmp_path: Path
) -> None:
    said: list[int] = []

    def stop(done: int, total: int) -> None:
        if done >= 12:
            raise KeyboardInterrupt

    with threads(1), pytest.raises(KeyboardInterrupt):
        run(kind, N, batch=5, store=tmp_path / "null", report=stop)
    done = n_done(tmp_path / "null")
    assert 12 <= done < N and done % 5 == 0
    with pytest.raises(SchemaError, match=f"holds {done} of {N} iterations"):
        nd.open_null(tmp_path / "null")
    with threads(1):
        null = run(kind, N, store=tmp_path / "null", report=lambda n, _: said.append(n))
    assert said[0] == done and said[-1] == N, "nothing is done again"
    assert_same_null(null, expected[kind])
    assert_same_null(nd.open_null(tmp_path / "null"), expected[kind])
    assert names_in(tmp_path) == ["null"]


@pytest.mark.parametrize("kind", KINDS)
def test_extend__equals_one_run(kind: str, expected: dict[str, xr.Dataset], tmp_path: Path) -> None:
    assert_same_null(nd.extend_null(run(kind, 13, batch=5), N), expected[kind])
    some = run(kind, 13, batch=5, store=tmp_path / "null")
    assert_same_null(nd.extend_null(nd.extend_null(some, 14), N), expected[kind])
    opened = nd.open_null(tmp_path / "null")
    assert_same_null(opened, expected[kind])
    assert opened.attrs["run"] == expected[kind].attrs["run"]
    assert_same_null(run(kind, 10, store=tmp_path / "null"), run(kind, 10))
    assert_same_null(nd.extend_null(opened, 33), run(kind, 33))


@pytest.mark.parametrize("kind", KINDS)
def test_extend__to_fewer_is_refused(kind: str) -> None:
    with pytest.raises(SettingsError, match="n_iters is 4, and the null has 5 already"):
        nd.extend_null(run(kind, 5), 4)


OTHERS: list[tuple[str, dict[str, Any], str]] = [
    *((kind, {"random_state": 6}, r"random_state: 5 there, 6 now") for kind in KINDS),
    *((kind, {"voxel_thresh": 0.01}, r"voxel_thresh: 0\.05 there, 0\.01 now") for kind in KINDS),
    ("chi2", {"stat_thresh": 3.5}, r"chi2_thresh: 3\.84\d* there, 3\.5 now"),
    ("ale", {"stat_thresh": 0.25}, r"stat_thresh: 0\.029\d* there, 0\.25 now"),
    ("random foci", {"coverage": "gm"}, r'coverage: "brain" there, "gm" now'),
    ("features", {"sizes": [3, 8]}, r"sizes: \[3, 7, 9, 12, 15\] there, \[3, 8\] now"),
    (
        "features",
        {"effects": ["uniformity"]},
        r'effects: \["association"\] there, \["uniformity"\] now',
    ),
    ("features", {"estimator": nd.MKDAChi2(kernel=nd.MKDAKernel(r=12))}, r"r: 15.* there, 12 now"),
]


@pytest.mark.parametrize(("kind", "settings", "sentence"), OTHERS)
def test_store__of_another_run_is_refused(
    kind: str, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    run(kind, 4, batch=4, store=tmp_path / "null")
    with pytest.raises(StoreExistsError, match=sentence) as raised:
        run(kind, 4, store=tmp_path / "null", **settings)
    assert "holds iterations of another run" in str(raised.value)
    assert_same_null(run(kind, 4, store=tmp_path / "null"), run(kind, 4))


@pytest.mark.parametrize("estimator", [CHI2, ALE])
def test_store__of_other_groups_is_refused(estimator: Any, tmp_path: Path) -> None:
    def permute(groups: Pair, space: Space = SPACE, settings: Any = estimator) -> xr.Dataset:
        return nd.label_permutation_null(
            settings,
            groups.first,
            groups.second,
            space=space,
            n_iters=3,
            voxel_thresh=None,
            random_state=1,
            store=tmp_path / "null",
        )

    permute(pair())
    both = "group 1: .* there, .* now; group 2: .* there, "
    with pytest.raises(StoreExistsError, match=both):
        permute(pair(18, 8))
    with pytest.raises(StoreExistsError, match=both):
        permute(pair().swapped)
    mask = SPACE.mask.copy()
    mask[tuple(SPACE.voxel_ijk[0])] = False
    with pytest.raises(StoreExistsError, match=r"mask: .* there, .* now"):
        permute(pair(), Space("small", mask, SPACE.affine))
    with pytest.raises(StoreExistsError, match='estimator: "'):
        permute(pair(), settings=ALE if estimator is CHI2 else CHI2)
    assert names_in(tmp_path) == ["null"]


def test_store__of_random_foci_is_none_of_labels(tmp_path: Path) -> None:
    run("random foci", 3, store=tmp_path / "null")
    with pytest.raises(StoreExistsError, match=r'inputs: ".* there, .* now'):
        run("chi2", 3, store=tmp_path / "null")


def test_extend__a_store_that_is_another_run_by_now_is_refused(tmp_path: Path) -> None:
    null = run("ale", 4, store=tmp_path / "null")
    shutil.rmtree(tmp_path / "null")
    run("ale", 4, store=tmp_path / "null", random_state=6)
    with pytest.raises(StoreExistsError, match="random_state"):
        nd.extend_null(null, 9)


# what does not matter


def reordered(corpus: xr.Dataset, order: NDArray[np.intp]) -> xr.Dataset:
    """The same analyses in another order."""
    ends = np.cumsum(corpus["analysis_n_foci"].values)
    parts = np.split(corpus["focus_xyz"].values, ends[:-1])
    ids = corpus["analysis_id"].values[order]
    made = nd_corpus.build(
        analysis_id=ids,
        study_id=ids,
        n_foci=corpus["analysis_n_foci"].values[order],
        xyz=np.concatenate([parts[place] for place in order]),
        focus_space=np.zeros(int(ends[-1]), np.int8),
        spaces=["MNI"],
        feature=[],
        weights=None,
    )
    sizes = corpus["analysis_sample_size"].values[order]
    return made.assign(analysis_sample_size=("analysis", sizes))


@pytest.mark.parametrize("kind", ["chi2", "ale", "random foci"])
def test_null__order_of_analyses_does_not_matter(
    kind: str, expected: dict[str, xr.Dataset]
) -> None:
    rng, groups = np.random.default_rng(0), pair()
    first, second = (
        reordered(part, rng.permutation(part.sizes["analysis"]))
        for part in (groups.first, groups.second)
    )
    assert first["analysis_id"].values.tolist() != groups.first["analysis_id"].values.tolist()
    make = nd.random_foci_null if kind == "random foci" else nd.label_permutation_null
    estimator: Any = ALE if kind == "ale" else CHI2
    found = make(estimator, first, second, space=SPACE, n_iters=N, voxel_thresh=P, random_state=5)
    assert_same_null(found, expected[kind])


def test_null__analyses_without_foci_do_not_matter(expected: dict[str, xr.Dataset]) -> None:
    groups = pair()
    some = [
        nd.select(part, part["analysis_n_foci"].values > 0)
        for part in (groups.first, groups.second)
    ]
    for kind, estimator in (("chi2", CHI2), ("ale", ALE)):
        found = nd.label_permutation_null(
            estimator, *some, space=SPACE, n_iters=N, voxel_thresh=P, random_state=5
        )
        assert_same_null(found, expected[kind])


def test_coverage__gm_uses_grey_matter_only() -> None:
    null = run("random foci", 5, coverage="gm")
    assert_array_equal(null["pool_ijk"].values, np.argwhere(SPACE.mask & SPACE.grey_matter))
    assert not np.array_equal(null["null_max"], run("random foci", 5)["null_max"])


# one null for all features


@pytest.mark.parametrize("feature", range(6))
def test_feature_null__a_size_equals_the_null_of_its_own_groups(feature: int) -> None:
    corpus = featured()
    groups, effects = of_feature(corpus, feature), ["group2", "association", "uniformity"]
    null = run("features", 20, effects=effects)
    own = nd.label_permutation_null(
        CHI2, groups.first, groups.second, space=SPACE, n_iters=20, voxel_thresh=P, random_state=5
    )
    size = len(groups.rows)
    assert size == [3, 3, 7, 9, 12, 15][feature]
    slice_ = null["null_max"].sel(size=size, effect=own["effect"].values)
    assert_array_equal(slice_.values.view(np.int64), own["null_max"].values.view(np.int64))


def test_feature_null__sizes_in_any_order_and_of_a_fit(expected: dict[str, xr.Dataset]) -> None:
    for sizes in ([15, 3, 12, 3, 9, 7, 7], np.array(FEATURE_SIZES, np.uint8)):
        assert_same_null(run("features", N, sizes=sizes), expected["features"])
    maps = CHI2.fit_features(featured(), space=SPACE)
    assert maps["n_selected"].values.tolist() == [3, 3, 7, 9, 12, 15]
    assert_same_null(run("features", N, sizes=maps), expected["features"])
    one = run("features", N, sizes=9)
    wanted = expected["features"]["null_max"].sel(size=[9])
    assert_array_equal(one["null_max"].values, wanted)


def test_feature_null__one_effect_and_the_default_estimator() -> None:
    null = run("features", 4, effects="uniformity")
    assert null["effect"].values.tolist() == ["uniformity"]
    default = run("features", 2, estimator=None)
    assert steps(default)[-1]["settings"]["r"] == 10
