"""More iterations than there were, fewer, an early stop: always a run of just so many."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nimare_dask as nd
from nimare_dask.errors import SchemaError, SettingsError
from nimare_dask.nulls.observed import observed_measures
from nimare_dask.nulls.relocation import from_dataset
from tests import null_runs
from tests.null_runs import NAMES, assert_same_null, n_done, run, threads

TFCE = nd.Enhancement(E=0.6, H=1.5, step=0.25)
#: Settings with which each estimator stops somewhere within 400 iterations.
STOPS: dict[str, dict[str, Any]] = {
    "ale": {"stop_after": 3},
    "mkda": {"stop_after": 3},
    "kda": {"stop_after": 2, "voxel_thresh": 0.2},
    "scale": {"stop_after": 20},
}


# more iterations


# Batches of which 13 iterations leave one that is not full, or none, or that are larger than all.
@pytest.mark.parametrize("batch", [1, 7, 13, 64])
@pytest.mark.parametrize("name", NAMES)
def test_extend__13_to_40_equals_40(name: str, batch: int) -> None:
    wanted, some = run(name, 40), run(name, 13, batch=batch)
    assert_same_null(nd.extend_null(some, 40), wanted)
    assert_same_null(nd.extend_null(nd.extend_null(some, 14), 40), wanted)


@pytest.mark.parametrize(
    ("name", "batch"), [*((name, 7) for name in NAMES), ("mkda", 1), ("mkda", 13), ("mkda", 64)]
)
def test_extend__13_to_40_in_a_store(name: str, batch: int, tmp_path: Path) -> None:
    wanted, store = run(name, 40), tmp_path / "null"
    some = run(name, 13, batch=batch, store=store)
    assert_same_null(nd.extend_null(nd.extend_null(some, 14), 40), wanted)
    assert_same_null(nd.open_null(store), wanted)
    assert_same_null(run(name, 40, store=store), wanted)


def test_extend__does_only_what_is_missing(tmp_path: Path) -> None:
    some = run("mkda", 14, batch=7, store=tmp_path / "null")
    said: list[int] = []
    nd.extend_null(some, 40, report=lambda done, total: said.append(done))
    assert said[0] == 14 and said[-1] == 40


def test_extend__without_a_store_reports_what_there_is_first() -> None:
    said: list[tuple[int, int]] = []
    nd.extend_null(run("mkda", 13), 40, report=lambda *done: said.append(done))
    assert said[0] == (13, 40) and said[-1] == (40, 40)


def test_extend__to_what_there_is_changes_nothing() -> None:
    null = run("scale", 13)
    assert_same_null(nd.extend_null(null, 13), null)


def test_extend__to_fewer_is_refused() -> None:
    with pytest.raises(SettingsError, match="n_iters is 12, and the null has 13 already"):
        nd.extend_null(run("mkda", 13), 12)


def test_extend__n_iters_is_checked() -> None:
    null = run("mkda", 13)
    assert_same_null(nd.extend_null(null, 40.0), run("mkda", 40))  # type: ignore[arg-type]
    for n_iters in ("many", 40.5, None):
        with pytest.raises(SettingsError, match="n_iters"):
            nd.extend_null(null, n_iters)  # type: ignore[arg-type]


def test_extend__of_an_early_stop_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"stopped early by stop_after=2; .* without stop_after"
    ):
        nd.extend_null(run("mkda", 400, stop_after=2), 500)


def test_extend__a_store_that_is_another_run_by_now_is_refused(tmp_path: Path) -> None:
    null = run("mkda", 14, batch=7, store=tmp_path / "null")
    shutil.rmtree(tmp_path / "null")
    run("mkda", 14, batch=7, store=tmp_path / "null", random_state=6)
    with pytest.raises(nd.StoreExistsError, match="random_state"):
        nd.extend_null(null, 40)


@pytest.mark.parametrize("n_iters", [14, 7])
def test_store__fewer_iterations_than_it_holds(n_iters: int, tmp_path: Path) -> None:
    run("mkda", 40, batch=7, store=tmp_path / "null")
    assert_same_null(run("mkda", n_iters, store=tmp_path / "null"), run("mkda", n_iters))
    assert n_done(tmp_path / "null") == 40


def test_store__fewer_iterations_that_end_within_a_batch(tmp_path: Path) -> None:
    run("mkda", 40, batch=7, store=tmp_path / "null")
    assert_same_null(run("mkda", 13, store=tmp_path / "null"), run("mkda", 13))


def test_store__that_has_grown_meanwhile_gives_fewer(tmp_path: Path) -> None:
    some = run("mkda", 13, batch=7, store=tmp_path / "null")
    nd.extend_null(some, 40)
    assert_same_null(nd.extend_null(some, 20), run("mkda", 20))


# an early stop


def first_enough(maxima: Any, observed: Sequence[float], stop_after: int) -> int | None:
    """Iterations by which all observed maxima were reached so often, counted one by one."""
    counts = [0] * len(observed)
    for n_iters, row in enumerate(maxima.tolist(), start=1):
        counts = [
            count + (value >= most)
            for count, value, most in zip(counts, row, observed, strict=True)
        ]
        if min(counts) >= stop_after:
            return n_iters
    return None


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_stop_after__equals_a_run_of_that_many(name: str, stored: bool, tmp_path: Path) -> None:
    settings = STOPS[name]
    other = {key: value for key, value in settings.items() if key != "stop_after"}
    null = run(name, 400, **settings)
    stop = null.sizes["iteration"]
    assert settings["stop_after"] <= stop < 400, "the case must stop somewhere inside"
    observed = null.attrs["run"]["observed_max"]
    whole = run(name, 400, **other)["null_max"].values
    assert stop == first_enough(whole, observed, settings["stop_after"])
    assert_same_null(null, run(name, stop, **other))
    for batch, n_threads in [(7, 2), (64, 1)] if stored else [(1, 2), (7, 1), (7, 2), (64, 2)]:
        store = tmp_path / str(batch) if stored else None
        with threads(n_threads):
            found = run(name, 400, batch=batch, store=store, **settings)
            assert_same_null(found, null)
            if store is not None:  # again, from what the store holds
                assert_same_null(run(name, 400, store=store, **settings), null)


def test_stop_after__observed_is_what_the_maps_have() -> None:
    null = run("mkda", 40, stop_after=3, tfce=TFCE)
    maps = null_runs.maps("mkda")
    assert maps is not None
    measures = observed_measures(from_dataset(null), maps)
    assert list(measures) == null["inference"].values.tolist() == ["voxel", "size", "mass", "tfce"]
    most = [float(values.max()) for values in measures.values()]
    np.testing.assert_allclose(null.attrs["run"]["observed_max"], most, rtol=1e-12)


def test_stop_after__never_reached_does_all() -> None:
    assert_same_null(run("mkda", 40, stop_after=41), run("mkda", 40))


def test_stop_after__then_all_of_them_from_the_same_store(tmp_path: Path) -> None:
    stopped = run("mkda", 400, batch=7, stop_after=3, store=tmp_path / "null")
    done = n_done(tmp_path / "null")
    assert stopped.sizes["iteration"] <= done < 400
    said: list[int] = []
    found = run("mkda", 400, store=tmp_path / "null", report=lambda n, total: said.append(n))
    assert said[0] == done
    assert_same_null(found, run("mkda", 400))


def test_stop_after__then_all_of_them_and_opened(tmp_path: Path) -> None:
    run("mkda", 400, batch=7, stop_after=3, store=tmp_path / "null")
    found = run("mkda", 400, store=tmp_path / "null")
    assert_same_null(nd.open_null(tmp_path / "null"), found)


def test_stop_after__its_store_can_be_opened(tmp_path: Path) -> None:
    stopped = run("mkda", 400, batch=7, stop_after=3, store=tmp_path / "null")
    assert_same_null(nd.open_null(tmp_path / "null"), stopped)


def test_stop_after__interrupted_cannot_be_opened(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with threads(1), pytest.raises(KeyboardInterrupt):
        run("mkda", 400, batch=2, stop_after=3, store=tmp_path / "null", report=stop)
    done = n_done(tmp_path / "null")
    assert done < run("mkda", 400, stop_after=3).sizes["iteration"]
    with pytest.raises(SchemaError, match=f"holds {done} of"):
        nd.open_null(tmp_path / "null")
    assert n_done(tmp_path / "null") == done, "opening computes nothing"


def test_stop_after__going_on_reports_all_that_is_stored_first(tmp_path: Path) -> None:
    run("mkda", 100, batch=2, store=tmp_path / "null")
    lost = [1, 30, 31, 49]
    for batch in lost:
        (tmp_path / "null" / "log" / "c" / str(batch) / "0").unlink()
    said: list[int] = []
    with threads(1):  # which looks at two batches at a time
        run(
            "mkda", 100, stop_after=101, store=tmp_path / "null", report=lambda n, _: said.append(n)
        )
    assert sorted(set(said)) == [92, 94, 96, 98, 100] and said == sorted(said)
