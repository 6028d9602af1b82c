"""Paths and addresses, and how a group becomes whole where nothing can be renamed.

Addresses are of fsspec's store in memory here; ``tests/deploy/test_object_store.py`` has a server.
"""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import nimare_dask as nd
from nimare_dask.errors import (
    SettingsError,
    SourceFormatError,
    StoreAccessError,
    StoreExistsError,
)
from nimare_dask.io.nifti import to_nifti
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.objects import many_at_once
from nimare_dask.parallel.places import is_address, is_there, place, reaching, refuse_address
from nimare_dask.parallel.stores import open_group, whole_or_nothing
from tests.builders import small_space, tiny_corpus
from tests.null_runs import assert_same_null, run

upath = pytest.importorskip("upath", reason="the extra cloud is not installed")

KIND = "nimare_dask.thing"


@pytest.fixture
def folder() -> Any:
    """A place in memory of this test's own."""
    return place(f"memory://{uuid.uuid4().hex}/folder")


def names(address: Any) -> list[str]:
    """All objects below an address."""
    root = address.path.rstrip("/")
    return sorted(name.removeprefix(f"{root}/") for name in address.fs.find(root))


def write(path: Any, value: int = 1, *, overwrite: bool = False, kind: str = KIND) -> None:
    with whole_or_nothing(path, kind=kind, overwrite=overwrite) as partial:
        made = xr.Dataset({"a": ("x", np.full(3, value))}).assign_attrs(kind=kind, schema_version=1)
        made.to_zarr(partial, zarr_format=3, consolidated=False)


def read(path: Any) -> list[int]:
    values: list[int] = open_group(path, kind=KIND, version=1)["a"].values.tolist()
    return values


# what is a path, and what an address


@pytest.mark.parametrize("given", ["a.zarr", "/a/b.zarr", "C:/a.zarr", "a:b.zarr", ".", "x/a:/b"])
def test_place__a_path_of_this_machine_stays_what_it_is(given: str) -> None:
    assert place(given) == Path(given) and isinstance(place(given), Path)
    assert place(Path(given)) == Path(given)
    assert not is_address(place(given))


@pytest.mark.parametrize("given", ["file:///a/b.zarr", "local:///a/b.zarr", "file:/a/b.zarr"])
def test_place__a_file_address_is_a_path(given: str) -> None:
    assert place(given) == Path("/a/b.zarr") and isinstance(place(given), Path)


def test_place__an_address_keeps_its_slashes() -> None:
    pytest.importorskip("s3fs")
    found = place("s3://bucket/folder/name.zarr/")
    assert is_address(found) and str(found) == "s3://bucket/folder/name.zarr"
    assert (found.name, found.stem, found.suffix) == ("name.zarr", "name", ".zarr")
    assert str(found.with_name("null.zarr")) == "s3://bucket/folder/null.zarr"
    assert str(found.parent / "x") == "s3://bucket/folder/x"
    # What pathlib makes of an address is told from a path all the same.
    assert place(Path("s3://bucket/folder/name.zarr")) == found
    windows = PureWindowsPath("s3://bucket/folder/name.zarr").as_posix()
    assert place(windows) == found


def test_place__options_of_a_upath_are_kept() -> None:
    pytest.importorskip("s3fs")
    given = upath.UPath("s3://bucket/name.zarr", anon=True, endpoint_url="http://127.0.0.1:1")
    found: Any = place(given)
    assert found.storage_options["anon"] and found.storage_options["endpoint_url"].endswith(":1")
    assert found.with_name("b").storage_options == found.storage_options
    # What others write is seen at once.
    assert found.storage_options["use_listings_cache"] is False


def test_place__a_upath_of_this_machine_is_a_path(tmp_path: Path) -> None:
    assert place(upath.UPath(tmp_path / "a.zarr")) == tmp_path / "a.zarr"
    assert place(upath.UPath(f"file://{tmp_path}/a.zarr")) == tmp_path / "a.zarr"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("s3://bucket", "s3://bucket names no group in a bucket; expected such as s3://"),
        ("s3://", "names no group"),
        ("memory://", "names no group"),
        ("nosuch://bucket/a.zarr", "nosuch://bucket/a.zarr is of a kind that is not known"),
        ("simplecache::s3://bucket/a.zarr", "is an address inside another"),
    ],
)
def test_place__what_names_no_group_is_refused(given: str, told: str) -> None:
    pytest.importorskip("s3fs")
    with pytest.raises(StoreAccessError, match=told.replace("(", r"\(")):
        place(given)


WITHOUT = """
import sys
sys.modules["{missing}"] = None
from nimare_dask.cli.app import main
main(["info", "s3://bucket/corpus.zarr"])
"""


@pytest.mark.parametrize("missing", ["s3fs", "upath"])
def test_place__without_the_extra_is_a_sentence(missing: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing)], capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: s3://bucket/corpus.zarr is an address of an object store")
    assert done.stderr.endswith("pip install 'nimare-dask[cloud]'.\n")


def test_refuse_address__files_stay_on_this_machine(folder: Any, tmp_path: Path) -> None:
    refuse_address(tmp_path / "a", "images")
    for given in (folder, "s3://bucket/images", Path("s3://bucket/images")):
        with pytest.raises(SettingsError, match="images are written to this machine"):
            refuse_address(given, "images")
    with pytest.raises(SettingsError, match="s3://bucket/images is an address, and images are"):
        to_nifti(xr.Dataset({"z": ("voxel", np.zeros(3))}), "s3://bucket/images")
    for name, words in (("a.json", "files"), ("a.parquet", "files"), ("a.csv", "files")):
        with pytest.raises(SettingsError, match=f"is an address, and {words} of this format"):
            nd.write_studies(tiny_corpus(), f"s3://bucket/{name}")
    with pytest.raises(SettingsError, match="only a corpus"):
        nd.read_studies("memory://folder/studies.json", format="nimads")


# a group is whole, or it is not there


def test_group__is_there_when_its_root_is(folder: Any) -> None:
    path = folder / "a.zarr"
    with whole_or_nothing(path, kind=KIND) as partial:
        group = zarr.open_group(partial, mode="w", zarr_format=3)
        group.create_array("a", shape=(3,), dtype="int64")[:] = 7
        group.attrs["kind"] = KIND
        # Workers see the array; whoever looks for the group does not see it.
        assert names(folder) == [".a.zarr.part", "a.zarr/a/c/0", "a.zarr/a/zarr.json"]
        assert not is_there(path)
        with pytest.raises(SourceFormatError, match="is not there, or was not written to its end"):
            open_group(path, kind=KIND, version=1)
    assert names(folder) == ["a.zarr/a/c/0", "a.zarr/a/zarr.json", "a.zarr/zarr.json"]
    assert is_there(path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_group__that_fails_leaves_nothing(error: type[BaseException], folder: Any) -> None:
    with pytest.raises(error), whole_or_nothing(folder / "a.zarr", kind=KIND) as partial:
        xr.Dataset({"a": ("x", [1])}).to_zarr(partial, zarr_format=3, consolidated=False)
        raise error
    assert names(folder) == []


def test_group__what_a_killed_run_left_is_removed_by_the_next(folder: Any) -> None:
    path = folder / "a.zarr"
    context = whole_or_nothing(path, kind=KIND)
    partial = context.__enter__()
    left = xr.Dataset({"a": ("x", [1, 2, 3]), "b": ("x", [1, 2, 3])})
    left.to_zarr(partial, zarr_format=3, consolidated=False)
    assert not is_there(path) and "a.zarr/b/c/0" in names(folder)
    write(path, 5)
    assert read(path) == [5, 5, 5]
    assert not [name for name in names(folder) if "/b/" in name or name.endswith(".part")]
    # The first was not killed after all: it leaves what the second wrote.
    with pytest.raises(StoreExistsError, match="Another run has begun to write"):
        context.__exit__(None, None, None)
    assert read(path) == [5, 5, 5]


def test_group__that_another_run_begins_is_left_to_it(folder: Any) -> None:
    path = folder / "a.zarr"
    told = "Another run has begun to write .*Give each run a path of its own"
    # The second is begun after the first, and ends before it.
    with (
        pytest.raises(StoreExistsError, match=told),
        whole_or_nothing(path, kind=KIND) as first,
        whole_or_nothing(path, kind=KIND) as second,
    ):
        for value, store in ((1, first), (2, second)):
            made = xr.Dataset({"a": ("x", np.full(3, value))})
            made = made.assign_attrs(kind=KIND, schema_version=1)
            made.to_zarr(store, mode="a", zarr_format=3, consolidated=False)
    assert read(path) == [2, 2, 2]
    assert ".a.zarr.part" not in names(folder)


def test_group__is_replaced_only_when_that_is_asked_for(folder: Any) -> None:
    path = folder / "a.zarr"
    write(path, 1)
    with pytest.raises(StoreExistsError, match=r"exists already\. .*--force on the command line"):
        write(path, 2)
    assert read(path) == [1, 1, 1]
    write(path, 2, overwrite=True)
    assert read(path) == [2, 2, 2]
    with pytest.raises(StoreExistsError, match=r"is nimare_dask\.thing, not a other"):
        write(path, 3, overwrite=True, kind="nimare_dask.other")
    assert read(path) == [2, 2, 2]


def test_group__does_not_touch_what_is_strange_or_beside(folder: Any) -> None:
    (folder / "a.zarr" / "precious").write_bytes(b"1")
    with pytest.raises(StoreExistsError, match="exists and is not a zarr group, so it is not"):
        write(folder / "a.zarr", overwrite=True)
    (folder / "b.zarr").write_bytes(b"a file")
    with pytest.raises(StoreExistsError, match="exists and is not a zarr group"):
        write(folder / "b.zarr", overwrite=True)
    (folder / "c.zarr2" / "precious").write_bytes(b"1")
    write(folder / "c.zarr")
    write(folder / "c.zarr", overwrite=True)
    kept = ["a.zarr/precious", "b.zarr", "c.zarr2/precious"]
    assert [name for name in names(folder) if not name.startswith("c.zarr/")] == kept


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"attributes": 3}'])
def test_group__with_a_torn_root_is_a_sentence(text: bytes, folder: Any) -> None:
    write(folder / "a.zarr")
    (folder / "a.zarr" / "zarr.json").write_bytes(text)
    with pytest.raises(SourceFormatError, match=r"a\.zarr"):
        read(folder / "a.zarr")
    with pytest.raises(StoreExistsError, match="nothing that nimare_dask wrote"):
        write(folder / "a.zarr", overwrite=True)


# what the package keeps


def test_corpus_and_result__come_back_from_an_address(folder: Any, tmp_path: Path) -> None:
    corpus = nd.simulate_corpus(80, n_foci=400, n_features=3, space=small_space(), random_state=2)
    for where in (tmp_path, folder):
        assert nd.save_corpus(corpus, where / "corpus.zarr") == where / "corpus.zarr"
    local, far = (nd.open_corpus(str(where / "corpus.zarr")) for where in (tmp_path, folder))
    xr.testing.assert_identical(local, far)
    xr.testing.assert_identical(nd.read_studies(str(folder / "corpus.zarr")), far)
    assert nd.validate(folder / "corpus.zarr") == nd.validate(tmp_path / "corpus.zarr")
    maps = nd.MKDAChi2().fit_features(far, space=small_space())
    reports: list[tuple[int, int]] = []
    nd.save_result(maps, folder / "maps.zarr", report=lambda *told: reports.append(told))
    nd.save_result(maps, tmp_path / "maps.zarr")
    assert reports[0] == (0, reports[-1][1]) and reports[-1][0] == reports[-1][1] > 0
    xr.testing.assert_identical(
        nd.open_result(folder / "maps.zarr").compute(),
        nd.open_result(tmp_path / "maps.zarr").compute(),
    )
    written = nd.write_studies(corpus, str(folder / "again.zarr"))
    assert written == [folder / "again.zarr"]


def test_result__of_a_run_whose_place_is_taken_stops_at_its_next_block(folder: Any) -> None:
    corpus = nd.simulate_corpus(80, n_foci=400, n_features=3, space=small_space(), random_state=2)
    maps = nd.MKDAChi2().fit_features(corpus, space=small_space())[["z"]]
    taken: list[int] = []

    def take(done: int, total: int) -> None:
        if not taken:
            taken.append(total)
            nd.save_result(maps, folder / "maps.zarr")

    with pytest.raises(StoreExistsError, match="Another run has begun"):
        nd.save_result(maps, folder / "maps.zarr", report=take)
    xr.testing.assert_identical(
        nd.open_result(folder / "maps.zarr")["z"].compute().reset_coords(drop=True),
        maps["z"].compute().reset_coords(drop=True),
    )


N, BATCH = 17, 7


def tear(path: Any) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def remove(path: Any) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [tear, remove])
@pytest.mark.parametrize("array", ["null_histogram", "null_max", "log"])
def test_null__goes_on_from_an_address(
    array: str, damage: Callable[[Any], None], folder: Any
) -> None:
    expected, path = run("mkda", N), folder / "null.zarr"
    made = run("mkda", N, batch=BATCH, store=path)
    assert_same_null(made, expected)
    assert made.attrs["store"] == str(path)
    damage(path / array / "c" / "1" / "0")
    found = checkpoints.progress(checkpoints.open_checkpoint(path))
    # What is not there at all may never have been; only a part of it that is damaged is torn.
    lost_log = array == "log" and damage is remove
    assert (found.done, found.n_torn) == ([0, 2], 0 if lost_log else 1)
    if lost_log:
        assert nd.run_batches(path) == BATCH
    else:
        with pytest.warns(nd.CorpusWarning, match="torn, and are computed again: 1"):
            run("mkda", N, store=str(path))
    null = nd.open_null(str(path))
    assert_same_null(null, expected)
    assert_same_null(nd.extend_null(null, 30), run("mkda", 30))


def test_null__of_another_run_is_refused(folder: Any) -> None:
    run("mkda", N, batch=BATCH, store=folder / "null.zarr")
    with pytest.raises(StoreExistsError, match="random_state: 5 there, 6 now"):
        run("mkda", N, random_state=6, store=folder / "null.zarr")
    assert_same_null(run("mkda", N, random_state=None, store=folder / "null.zarr"), run("mkda", N))


def test_null__that_is_removed_under_way_is_a_sentence(folder: Any) -> None:
    path = folder / "null.zarr"

    def report(done: int, total: int) -> None:
        if done and is_there(path):
            path.fs.rm(path.path, recursive=True)

    with pytest.raises(SourceFormatError, match="was removed while it was written"):
        run("mkda", N, batch=BATCH, store=path, report=report)
    assert not is_there(path)


# small parts


def test_many_at_once__is_in_order_and_holds_few() -> None:
    begun: list[int] = []

    def slowly(number: int) -> int:
        begun.append(number)
        time.sleep(0.01 * (number % 3))
        return number * 2

    found = many_at_once(slowly, range(60))
    assert next(found) == 0
    assert len(begun) < 40
    assert list(found) == [number * 2 for number in range(1, 60)]


def test_many_at_once__gives_the_error_of_an_item() -> None:
    with pytest.raises(ZeroDivisionError):
        list(many_at_once(lambda number: 1 // number, [1, 0, 2]))


def test_reaching__leaves_errors_of_other_things_alone(folder: Any) -> None:
    for error in (OSError(28, "No space left"), ValueError("x"), SettingsError("y")):
        for where in (folder, None, Path("a")):
            with pytest.raises(type(error)) as raised, reaching(where):
                raise error
            assert raised.value is error


def test_reaching__says_what_a_library_found() -> None:
    class Lost(Exception):
        """As it comes from botocore."""

    Lost.__module__ = "botocore.exceptions"
    told = r"An object store could not be reached \(Lost: over two lines\)"
    with pytest.raises(StoreAccessError, match=told), reaching(None):
        raise Lost("over\n  two lines")
