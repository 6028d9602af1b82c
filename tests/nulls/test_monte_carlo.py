"""The Monte Carlo null: the same bits however it is run, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.errors import SchemaError, SelectionError, SettingsError
from nimare_dask.space import Space
from tests import null_runs
from tests.foci import make_corpus
from tests.null_runs import NAMES, SPACE, assert_same_null, run, threads

N = 70
BATCHES = [1, 7, 64, N]
TFCE = nd.Enhancement(E=0.6, H=1.5, step=0.25)


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """Seventy iterations of each estimator, one after the other in one batch."""
    with dask.config.set(scheduler="synchronous"):
        return {name: run(name, N, batch=N) for name in [*NAMES, "weighted"]}


@pytest.fixture(scope="module", params=[1, 2])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A cluster of one or of two worker processes."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=request.param,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            protocol="tcp",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


# what must not matter


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("scheduler", ["synchronous", "one thread", "two threads"])
@pytest.mark.parametrize("name", NAMES)
def test_null__same_bits_for_any_batch_and_local_scheduler(
    name: str, scheduler: str, stored: bool, expected: dict[str, Any], tmp_path: Path
) -> None:
    config = {
        "synchronous": {"scheduler": "synchronous"},
        "one thread": {"scheduler": "threads", "num_workers": 1},
        "two threads": {"scheduler": "threads", "num_workers": 2},
    }[scheduler]
    for batch in [7, 64] if stored else BATCHES:
        store = tmp_path / str(batch) if stored else None
        with dask.config.set(config):
            found = run(name, N, batch=batch, store=store)
        assert_same_null(found, expected[name])
        assert found.attrs["batch"] == batch
        if store is not None:
            assert_same_null(nd.open_null(store), expected[name])


@pytest.mark.parametrize("batch", [1, N, 1000])
def test_null__same_bits_from_a_store_of_many_batches_and_of_one(
    batch: int, expected: dict[str, Any], tmp_path: Path
) -> None:
    assert_same_null(run("mkda", N, batch=batch, store=tmp_path / "null"), expected["mkda"])
    assert_same_null(nd.open_null(tmp_path / "null"), expected["mkda"])


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_null__same_bits_on_worker_processes(
    name: str, stored: bool, expected: dict[str, Any], client: Any, tmp_path: Path
) -> None:
    with client.as_current():
        for batch in [7] if stored else [7, 64]:
            store = tmp_path / "null" if stored else None
            assert_same_null(run(name, N, batch=batch, store=store), expected[name])


def test_null__stopped_and_extended_on_worker_processes(client: Any, tmp_path: Path) -> None:
    stopped = run("mkda", 400, stop_after=3)
    with client.as_current():
        for batch in (7, 64):
            assert_same_null(run("mkda", 400, stop_after=3, batch=batch), stopped)
        some = run("scale", 13, batch=7, store=tmp_path / "null")
        more = nd.extend_null(some, 40), nd.open_null(tmp_path / "null")
    for null in more:
        assert_same_null(null, run("scale", 40))


def test_null__same_bits_with_dask_processes(expected: dict[str, Any]) -> None:
    with dask.config.set(scheduler="processes", num_workers=2):
        assert_same_null(run("mkda", N, batch=35), expected["mkda"])


def test_null__different_weights_and_their_footprints(
    expected: dict[str, Any], tmp_path: Path
) -> None:
    run("weighted", N, batch=9, store=tmp_path / "null")
    assert_same_null(nd.open_null(tmp_path / "null"), expected["weighted"])


def test_null__its_histogram_counts_every_voxel_of_every_iteration(
    expected: dict[str, Any],
) -> None:
    for null in expected.values():
        assert int(null["null_histogram"].sum()) == N * SPACE.n_voxels
        assert not np.isnan(null["null_max"]).any()


def test_null__reports_every_iteration_once() -> None:
    said: list[tuple[int, int]] = []
    with threads(2):
        run("mkda", 40, batch=7, report=lambda done, total: said.append((done, total)))
    assert said[0] == (0, 40) and said[-1] == (40, 40) and len(said) == 7
    assert [done for done, _ in said] == sorted({done for done, _ in said})


# seeds


def test_random_state__none_records_one_that_reproduces() -> None:
    null = run("mkda", 13, random_state=None)
    seed = null.attrs["random_state"]
    assert isinstance(seed, int) and 0 <= seed < 2**53
    assert_same_null(run("mkda", 13, random_state=seed), null)
    assert run("mkda", 13, random_state=None).attrs["random_state"] != seed


def test_random_state__none_goes_on_with_that_of_the_store(tmp_path: Path) -> None:
    some = run("mkda", 13, batch=7, random_state=None, store=tmp_path / "null")
    seed = some.attrs["random_state"]
    more = run("mkda", 40, random_state=None, store=tmp_path / "null")
    assert more.attrs["random_state"] == seed
    assert_same_null(more, run("mkda", 40, random_state=seed))


@pytest.mark.parametrize("seed", [0, 1, 2**53, 2**80, np.int64(3)])
def test_random_state__any_whole_number(seed: int, tmp_path: Path) -> None:
    null = run("mkda", 5, random_state=seed, store=tmp_path / "null")
    assert null.attrs["random_state"] == int(seed)
    assert_same_null(nd.open_null(tmp_path / "null"), run("mkda", 5, random_state=seed))
    assert not np.array_equal(null["null_max"], run("mkda", 5, random_state=4)["null_max"])


@pytest.mark.parametrize("seed", [-1, 1.5, "seed"])
def test_random_state__anything_else_is_refused(seed: Any) -> None:
    with pytest.raises(SettingsError, match="random_state"):
        run("mkda", 5, random_state=seed)


# where foci fall


def test_coverage__gm_uses_grey_matter_voxels_only() -> None:
    grey = SPACE.mask & SPACE.grey_matter
    assert 0 < grey.sum() < SPACE.n_voxels
    null = run("mkda", 13, coverage="gm")
    assert_array_equal(null["pool_ijk"].values, np.argwhere(grey))
    job = null_runs.job("mkda", coverage="gm")
    for iteration in range(50):
        assert grey[tuple(job.draw(iteration).T)].all()
    assert null.attrs["coverage"] == "gm"
    assert not np.array_equal(null["null_max"], run("mkda", 13)["null_max"])


def test_coverage__brain_uses_the_mask() -> None:
    assert_array_equal(run("kda", 3)["pool_ijk"].values, np.argwhere(SPACE.mask))


def test_coverage__scale_has_a_pool_of_its_own() -> None:
    found = run("scale", 13, coverage="gm")
    assert found.sizes["place"] == 60
    assert_same_null(found, run("scale", 13))


def test_coverage__gm_where_there_is_none_is_refused() -> None:
    white = Space("white matter", SPACE.mask & ~SPACE.grey_matter, SPACE.affine)
    with pytest.raises(SettingsError, match=r"No voxel of .*white matter.* is in grey matter; use"):
        run("mkda", 3, space=white, coverage="gm", maps=None)


def test_coverage__gm_of_a_mask_far_from_the_template_is_refused() -> None:
    affine = SPACE.affine.copy()
    affine[:3, 3] += 1000.0
    away = Space("far away", SPACE.mask, affine)
    with pytest.raises(SettingsError, match="grey matter"):
        run("mkda", 3, space=away, coverage="gm", maps=None)


# which inferences there are


def test_voxel_thresh__none_leaves_clusters_out(expected: dict[str, Any]) -> None:
    null = run("mkda", N, voxel_thresh=None)
    assert null["inference"].values.tolist() == ["voxel"]
    assert null.attrs["voxel_thresh"] is None and null.attrs["stat_thresh"] is None
    assert_array_equal(null["null_max"].values[:, 0], expected["mkda"]["null_max"].values[:, 0])
    assert_array_equal(null["null_histogram"], expected["mkda"]["null_histogram"])
    assert_same_null(nd.extend_null(run("mkda", 9, voxel_thresh=None), N), null)


def test_voxel_thresh__is_the_same_with_and_without_maps(expected: dict[str, Any]) -> None:
    assert_same_null(run("mkda", N, maps=None), expected["mkda"])


@pytest.mark.parametrize("name", ["ale", "mkda", "kda", "weighted"])
def test_tfce__is_a_further_inference(name: str, expected: dict[str, Any], tmp_path: Path) -> None:
    null = run(name, N, tfce=TFCE)
    assert null["inference"].values.tolist() == ["voxel", "size", "mass", "tfce"]
    assert_array_equal(null["null_max"].values[:, :3], expected[name]["null_max"].values)
    assert (null["null_max"].sel(inference="tfce") > 0).all()
    run(name, N, tfce=TFCE, batch=9, store=tmp_path / "null")
    assert_same_null(nd.open_null(tmp_path / "null"), null)
    assert_same_null(nd.extend_null(run(name, 13, tfce=TFCE, batch=9), N), null)


def test_tfce__alone() -> None:
    null = run("mkda", 13, tfce=TFCE, voxel_thresh=None)
    assert null["inference"].values.tolist() == ["voxel", "tfce"]


def test_tfce__a_step_above_every_z_scores_nothing(tmp_path: Path) -> None:
    high = nd.Enhancement(step=50.0)
    null = run("mkda", 13, tfce=high, batch=7, store=tmp_path / "null")
    assert (null["null_max"].sel(inference="tfce") == 0).all()
    assert_same_null(nd.open_null(tmp_path / "null"), null)


# settings that cannot be


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"n_iters": 0}, "n_iters is 0; expected a whole number of at least 1."),
        ({"n_iters": -3}, "n_iters is -3; expected a whole number of at least 1."),
        ({"n_iters": 2.5}, "n_iters is 2.5; expected a whole number of at least 1."),
        ({"batch": 0}, "batch is 0; expected a whole number of at least 1."),
        ({"stop_after": 0}, "stop_after is 0; expected a whole number of at least 1."),
        ({"voxel_thresh": 0}, "voxel_thresh is 0; expected a p value."),
        ({"voxel_thresh": 1}, "voxel_thresh is 1; expected a p value."),
        ({"voxel_thresh": -0.1}, "voxel_thresh is -0.1; expected a p value."),
        ({"voxel_thresh": float("nan")}, "voxel_thresh is nan; expected a p value."),
        ({"coverage": "grey"}, "coverage is 'grey'; expected 'brain' or 'gm'."),
    ],
)
def test_settings__that_cannot_be_are_said(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        run("mkda", **settings)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "settings",
    [{"E": 0}, {"H": -1}, {"step": 0}, {"E": float("nan")}, {"H": np.inf}, {"step": "fine"}],
)
def test_enhancement__refuses_what_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as raised:
        nd.Enhancement(**settings)
    ((name, value),) = settings.items()
    assert "expected E, H and step above 0." in str(raised.value)
    assert f"{name}={value!r}" in str(raised.value)


def test_settings__tfce_is_an_enhancement() -> None:
    with pytest.raises(SettingsError, match=r"tfce is True; expected Enhancement\(E=0.5"):
        run("mkda", tfce=True)


def test_settings__scale_has_no_map_of_z_to_enhance() -> None:
    with pytest.raises(SettingsError, match=r"SCALE has a null for every voxel .* leave tfce out"):
        run("scale", 5, tfce=TFCE)


@pytest.mark.parametrize("settings", [{"n_iters": 13.0}, {"batch": 7.0}])
def test_settings__whole_floats_are_whole_numbers(settings: dict[str, Any]) -> None:
    assert_same_null(run("mkda", **{"n_iters": 13, **settings}), run("mkda", 13))


@pytest.mark.parametrize("n_iters", [float("nan"), float("inf"), "many"])
def test_settings__no_number_at_all(n_iters: Any) -> None:
    with pytest.raises(SettingsError, match="n_iters"):
        run("mkda", n_iters)


def test_maps__without_a_null_histogram_are_refused() -> None:
    maps = null_runs.maps("mkda")
    assert maps is not None
    with pytest.raises(SchemaError, match="maps has no null histogram of this estimator"):
        run("mkda", 5, maps=maps.drop_vars("null_weight"))


def test_maps__of_another_estimator_are_refused() -> None:
    with pytest.raises(nd.NimareDaskError, match="same estimator"):
        run("mkda", 5, maps=null_runs.maps("kda"))


def test_corpus__without_foci_is_refused() -> None:
    with pytest.raises(SelectionError, match="no focus at all"):
        nd.monte_carlo_null(
            nd.MKDADensity(), make_corpus([[], []]), space=SPACE, n_iters=3, random_state=1
        )
