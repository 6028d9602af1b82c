"""The store of null iterations: what it holds, what it refuses, and how it mends itself."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.errors import CorpusWarning, SchemaError, SourceFormatError, StoreExistsError
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.checkpoints import Checkpoint
from tests import null_runs
from tests.builders import listing
from tests.null_runs import SPACE, assert_same_null, corpus, names_in, run

MARK = {"random_state": 1, "voxel_thresh": None}
#: Every array of a batch, in the order in which they are written.
ARRAYS = ["null_histogram", "null_reaching", "null_max", "log"]
N, BATCH = 17, 7  # the last batch has three iterations


def empty(path: Path, n_iters: int = 10, batch: int = 4) -> Checkpoint:
    return checkpoints.create(
        path,
        inputs=xr.Dataset({"pool_ijk": (("place", "axis"), np.eye(3, dtype=np.int32))}),
        fingerprint=MARK,
        facts={"run": {"estimator": "none"}},
        n_iters=n_iters,
        batch=batch,
        n_maxima=2,
        lengths={"null_histogram": 5},
    )


def fill(store: Checkpoint, batch: int) -> None:
    start, stop = store.span(batch)
    maxima = np.arange(2.0 * (stop - start)).reshape(-1, 2) + start
    histogram = np.full(5, batch, np.int64)
    checkpoints.write_batch(store, batch, maxima, {"null_histogram": histogram}, 0.25 + batch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of SCALE, which has every array; tests take a copy."""
    path = tmp_path_factory.mktemp("whole") / "null"
    run("scale", N, batch=BATCH, store=path)
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "null"))


@pytest.fixture(scope="module")
def expected() -> xr.Dataset:
    return run("scale", N)


# what is written and read


def test_create__is_empty_and_says_what_it_is_for(tmp_path: Path) -> None:
    store = empty(tmp_path / "deep" / "null")
    assert names_in(tmp_path / "deep") == ["null"]
    assert (store.n_iters, store.batch, store.n_batches) == (10, 4, 3)
    assert [store.span(batch) for batch in range(3)] == [(0, 4), (4, 8), (8, 10)]
    assert store.parts == ("null_histogram",) and dict(store.fingerprint) == MARK
    assert store.path.is_absolute() and store.facts["run"] == {"estimator": "none"}
    found = checkpoints.progress(store)
    assert (found.done, found.n_torn, found.n_done) == ([], 0, 0)
    assert found.finished.shape == found.seconds.shape == (0,)
    assert all(checkpoints.read_batch(store, batch) is None for batch in range(3))
    inputs = xr.open_zarr(store.path / "inputs", consolidated=False, chunks=None)
    assert_array_equal(inputs["pool_ijk"], np.eye(3, dtype=np.int32))


def test_create__where_something_is_changes_nothing(tmp_path: Path) -> None:
    empty(tmp_path / "null")
    before = listing(tmp_path)
    with pytest.raises(StoreExistsError, match="exists already"):
        empty(tmp_path / "null")
    assert listing(tmp_path) == before


def test_write__in_any_order_is_read_back(tmp_path: Path) -> None:
    store = empty(tmp_path / "null")
    for batch in (2, 0):
        fill(store, batch)
    found = checkpoints.progress(store)
    assert (found.done, found.n_torn, found.n_done) == ([0, 2], 0, 6)
    assert found.seconds.tolist() == [0.25, 2.25]
    assert checkpoints.read_batch(store, 1) is None
    read = checkpoints.read_batch(checkpoints.open_checkpoint(tmp_path / "null"), 2)
    assert read is not None
    assert_array_equal(read[0], [[8, 9], [10, 11]])
    assert_array_equal(read[1]["null_histogram"], [2] * 5)
    assert read[1]["null_histogram"].dtype == np.int64
    assert read[2][0] == 2 and read[2][1] == found.finished[1] > 1.7e9


def test_write__a_batch_again_takes_its_place(tmp_path: Path) -> None:
    store = empty(tmp_path / "null")
    fill(store, 1)
    before = listing(tmp_path)
    fill(store, 1)
    assert listing(tmp_path) == before
    assert checkpoints.progress(store).done == [1]


def test_write__each_array_of_a_batch_is_one_file(store: Path) -> None:
    for name in ARRAYS:
        assert [path.name for path in sorted((store / name / "c").iterdir())] == ["0", "1", "2"]
    assert not [path for path in store.rglob("*") if "partial" in path.name]


def test_grow__keeps_what_is_done_but_a_last_batch_that_was_short(tmp_path: Path) -> None:
    store = empty(tmp_path / "null")
    for batch in range(3):
        fill(store, batch)
    store = checkpoints.grow(store, 19)
    assert (store.n_iters, store.n_batches) == (19, 5)
    assert checkpoints.progress(store).done == [0, 1]
    for batch in (2, 3, 4):
        fill(store, batch)
    assert checkpoints.progress(store).n_done == 19
    assert checkpoints.grow(store, 5) == store, "a store never shrinks"


def test_progress__of_a_run_that_is_done(store: Path) -> None:
    found = checkpoints.progress(checkpoints.open_checkpoint(store))
    assert (found.done, found.n_torn, found.n_done) == ([0, 1, 2], 0, N)
    assert (found.seconds > 0).all() and (np.diff(np.sort(found.finished)) >= 0).all()


# what is torn


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(place: float) -> Callable[[Path], None]:
    """Turn one bit at a share of the length of a file."""

    def turn(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 0x10
        path.write_bytes(data)

    return turn


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


TEARS = {
    "truncated": truncate,
    "first byte": flip(0.0),
    "middle byte": flip(0.5),
    "last byte": flip(1.0),
    "empty": make_empty,
    "deleted": Path.unlink,
}


@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize(("tear", "batch"), [*((tear, 0) for tear in TEARS), ("truncated", 2)])
def test_torn__chunk_is_noticed_said_and_done_again(
    tear: str, array: str, batch: int, store: Path, expected: xr.Dataset
) -> None:
    TEARS[tear](store / array / "c" / str(batch) / "0")
    # A batch without its line in the log was never finished, which is no damage.
    torn = (array, tear) != ("log", "deleted")
    rest = N - (7 if batch == 0 else 3)
    found = checkpoints.progress(checkpoints.open_checkpoint(store))
    assert (found.n_done, found.n_torn) == (rest, int(torn)) and batch not in found.done
    with pytest.raises(SchemaError, match=f"holds {rest} of {N} iterations"):
        nd.open_null(store)
    said: list[int] = []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        null = run("scale", N, store=store, report=lambda done, total: said.append(done))
    messages = [str(one.message) for one in warned if one.category is CorpusWarning]
    assert messages == [f"Batches of {store} that are torn, and are computed again: 1."] * torn
    assert said[0] == rest, "the other batches are not done again"
    assert_same_null(null, expected)
    assert_same_null(nd.open_null(store), expected)


@pytest.mark.parametrize("n_written", [0, 1, 2, 3])
def test_torn__a_crash_between_the_files_of_a_batch(
    n_written: int, store: Path, expected: xr.Dataset
) -> None:
    for array in ARRAYS[n_written:]:
        (store / array / "c" / "1" / "0").unlink()
    (store / "null_max" / "c" / "1" / "0.0123abcd.partial").write_bytes(b"half a chunk")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # this is no damage
        assert_same_null(run("scale", N, store=store), expected)
    assert_same_null(nd.open_null(store), expected)


def test_torn__everything_at_once(store: Path, expected: xr.Dataset) -> None:
    for array in ARRAYS:
        for path in (store / array / "c").rglob("0"):
            if path.is_file():
                make_empty(path)
    with pytest.warns(CorpusWarning, match="computed again: 3"):
        assert_same_null(run("scale", N, store=store), expected)


def test_torn__while_it_grows(store: Path) -> None:
    truncate(store / "null_max" / "c" / "2" / "0")  # the short batch, which is done again anyway
    flip(0.5)(store / "null_histogram" / "c" / "0" / "0")
    with pytest.warns(CorpusWarning, match="computed again: 1"):
        assert_same_null(run("scale", 40, store=store), run("scale", 40))


def test_torn__is_said_where_the_user_called(store: Path) -> None:
    truncate(store / "null_max" / "c" / "0" / "0")
    with pytest.warns(CorpusWarning) as warned:
        nd.monte_carlo_null(
            null_runs.estimator("scale"), corpus(), space=SPACE, n_iters=N, store=store
        )
    assert warned[0].filename == __file__


def test_torn__is_said_where_the_user_called_with_stop_after(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"space": SPACE, "n_iters": 30, "store": tmp_path / "null"}
    settings |= {"batch": 7, "voxel_thresh": None, "stop_after": 30, "random_state": 1}
    nd.monte_carlo_null(null_runs.estimator("mkda"), corpus(), **settings)
    truncate(tmp_path / "null" / "null_max" / "c" / "0" / "0")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        nd.monte_carlo_null(null_runs.estimator("mkda"), corpus(), **settings)
    assert [one.filename for one in warned] == [__file__]


INPUT = Path("inputs") / "pool_ijk" / "c" / "0" / "0"


@pytest.mark.parametrize("tear", TEARS)
def test_torn__inputs_do_not_matter_to_a_run(tear: str, store: Path, expected: xr.Dataset) -> None:
    TEARS[tear](store / INPUT)
    assert_same_null(run("scale", N, store=store), expected)


@pytest.mark.parametrize("tear", ["deleted", "truncated", "empty"])
def test_torn__inputs_are_noticed_when_opened(tear: str, store: Path) -> None:
    TEARS[tear](store / INPUT)
    with pytest.raises(SourceFormatError, match="null"):
        nd.open_null(store)


@pytest.mark.parametrize("tear", ["deleted", "truncated"])
def test_torn__metadata_of_an_array_is_a_sentence(tear: str, store: Path) -> None:
    TEARS[tear](store / "null_max" / "zarr.json")
    with pytest.warns(CorpusWarning), pytest.raises(SourceFormatError, match="null_max"):
        run("scale", N, store=store)


@pytest.mark.parametrize("tear", ["deleted", "truncated", "empty"])
def test_torn__metadata_of_the_store_is_a_sentence(tear: str, store: Path) -> None:
    before = listing(store)
    TEARS[tear](store / "zarr.json")
    for attempt in (lambda: run("scale", N, store=store), lambda: nd.open_null(store)):
        with pytest.raises(SourceFormatError, match=str(store)):
            attempt()
    assert set(listing(store)) <= set(before)
