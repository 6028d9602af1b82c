"""Stores that are of another run, no stores, not to be written to, or on a disk that is full."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nimare_dask as nd
from nimare_dask.errors import SourceFormatError, StoreExistsError
from nimare_dask.nulls import iterate
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.stores import whole_or_nothing
from nimare_dask.space import Space
from tests import null_runs
from tests.null_runs import ROOT, SPACE, assert_same_null, corpus, names_in, run


def contents(folder: Path) -> dict[str, str]:
    """Every file in a folder and a digest of it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# another run


def other_corpus(store: Path) -> None:
    nd.monte_carlo_null(
        null_runs.estimator("mkda"),
        corpus(1),
        space=SPACE,
        n_iters=14,
        voxel_thresh=0.05,
        random_state=5,
        store=store,
    )


def other_mask(store: Path) -> None:
    mask = SPACE.mask.copy()
    mask[tuple(np.argwhere(mask)[0])] = False
    run("mkda", 14, space=Space("other", mask, SPACE.affine), maps=None, store=store)


def other_radius(store: Path) -> None:
    nd.monte_carlo_null(
        nd.MKDADensity(kernel=nd.MKDAKernel(r=14)),
        corpus(),
        space=SPACE,
        n_iters=14,
        voxel_thresh=0.05,
        random_state=5,
        store=store,
    )


OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "seed": (
        lambda store: run("mkda", 14, random_state=6, store=store),
        "random_state: 5 there, 6",
    ),
    "threshold": (
        lambda store: run("mkda", 14, voxel_thresh=0.001, store=store),
        "voxel_thresh: 0.05 there, 0.001 now; stat_thresh: 4.0 there",
    ),
    "no threshold": (
        lambda store: run("mkda", 14, voxel_thresh=None, store=store),
        "voxel_thresh: 0.05 there, null now; stat_thresh: 4.0 there, null now",
    ),
    "coverage": (
        lambda store: run("mkda", 14, coverage="gm", store=store),
        'coverage: "brain" there, "gm" now',
    ),
    "enhancement": (
        lambda store: run("mkda", 14, tfce=nd.Enhancement(), store=store),
        'tfce: null there, {"E": 0.5, "H": 2.0, "step": 0.1} now',
    ),
    "purpose": (lambda store: run("mkda", 14, purpose="fit", store=store), "step: 0 there, 1 now"),
    "estimator": (
        lambda store: run("kda", 14, store=store),
        'estimator: "MKDADensity" there, "KDA" now',
    ),
    "radius": (other_radius, "r: 15 there, 14 now"),
    "corpus": (other_corpus, 'corpus: "[0-9a-f]+... there, "[0-9a-f]+... now'),
    "mask": (other_mask, 'mask: "[0-9a-f]+... there, "[0-9a-f]+... now'),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "null"
    run("mkda", 14, batch=7, store=path)
    return path


@pytest.mark.parametrize("name", OTHERS)
def test_store__of_another_run_is_refused_and_says_why(name: str, made: Path) -> None:
    again, told = OTHERS[name]
    before = contents(made)
    with pytest.raises(StoreExistsError, match=told.replace("{", r"\{")) as raised:
        again(made)
    message = str(raised.value)
    assert message.startswith(f"{made} holds iterations of another run (")
    assert "Give another path" in message and "repeat the settings" in message
    assert "\n" not in message and contents(made) == before


def test_store__another_seed_is_all_that_differs(made: Path) -> None:
    with pytest.raises(StoreExistsError, match=re.escape("(random_state: 5 there, 6 now).")):
        run("mkda", 14, random_state=6, store=made)


def test_store__of_another_version_is_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = nd.__version__
    monkeypatch.setattr(iterate, "__version__", "99.0")
    told = re.escape(f'(version: "{version}" there, "99.0" now)')
    with pytest.raises(StoreExistsError, match=told):
        run("mkda", 14, store=made)
    with pytest.raises(StoreExistsError, match=told):
        run("mkda", 40, store=made)


def test_store__of_another_version_is_not_extended(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    null = nd.open_null(shutil.copytree(made, tmp_path / "null"))
    monkeypatch.setattr(iterate, "__version__", "99.0")
    with pytest.raises(StoreExistsError, match="version"):
        nd.extend_null(null, 40)


def test_store__of_another_schema_is_refused(made: Path, tmp_path: Path) -> None:
    store = shutil.copytree(made, tmp_path / "null")
    whole = json.loads((store / "zarr.json").read_text())
    whole["attributes"]["schema_version"] = 99
    (store / "zarr.json").write_text(json.dumps(whole))
    with pytest.raises(SourceFormatError, match=r"schema version 99; .* Make the null again"):
        run("mkda", 14, store=store)


@pytest.mark.parametrize("settings", [{"batch": 3}, {"stop_after": 100}, {"maps": None}])
def test_store__what_changes_no_bit_is_not_refused(settings: dict[str, Any], made: Path) -> None:
    before = contents(made)
    assert_same_null(run("mkda", 14, store=made, **settings), run("mkda", 14))
    assert contents(made) == before


# no store


@pytest.mark.parametrize("what", ["file", "empty folder", "folder", "corpus", "result", "inputs"])
def test_path__that_is_no_store(what: str, tmp_path: Path) -> None:
    path = tmp_path / "thing"
    if what == "file":
        path.write_text("precious")
    elif what == "empty folder":
        path.mkdir()
    elif what == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("precious")
    elif what == "corpus":
        nd.save_corpus(corpus(), path)
    elif what == "result":
        nd.save_result(null_runs.maps("mkda"), path)
    else:
        run("mkda", 5, store=tmp_path / "null")
        path = tmp_path / "null" / "inputs"
    before = contents(tmp_path), names_in(tmp_path)
    for attempt in (
        lambda: run("mkda", 5, store=path),
        lambda: run("mkda", 5, store=path, random_state=None),
        lambda: nd.open_null(path),
    ):
        with pytest.raises(
            SourceFormatError, match=r"expected a null written by nimare_dask"
        ) as it:
            attempt()
        assert str(path) in str(it.value) and "\n" not in str(it.value)
    assert (contents(tmp_path), names_in(tmp_path)) == before


def test_path__that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(SourceFormatError, match="does not exist; expected a null"):
        nd.open_null(tmp_path / "null")


def test_path__relative_is_kept_as_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    null = run("mkda", 13, batch=7, store="deep/null")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert null.attrs["store"] == str(tmp_path / "deep" / "null")
    assert_same_null(nd.extend_null(null, 40), run("mkda", 40))
    assert names_in(tmp_path / "elsewhere") == []


@pytest.mark.parametrize(
    "settings",
    [
        {"n_iters": np.int64(5)},
        {"batch": np.int64(5)},
        {"stop_after": np.int64(5)},
        {"voxel_thresh": np.float32(0.05)},
        {"tfce": nd.Enhancement(step=np.float32(0.5))},
        {"estimator": nd.MKDADensity(kernel=nd.MKDAKernel(r=np.int64(15)))},
        {"estimator": nd.ALE(kernel=nd.ALEKernel(fwhm=np.float32(24)))},
    ],
    ids=str,
)
def test_store__takes_numbers_of_numpy(settings: dict[str, Any], tmp_path: Path) -> None:
    given = {"estimator": null_runs.estimator("mkda"), "n_iters": 5, **settings}
    chosen = given.pop("estimator")
    if isinstance(chosen, nd.ALE):
        given |= {"voxel_thresh": None}
    nd.monte_carlo_null(chosen, corpus(), space=SPACE, store=tmp_path / "null", **given)


# a disk that cannot be written to, or is full

MOUNTS = ["unshare", "--mount"]


def can_mount() -> bool:
    words = [*MOUNTS, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def in_process(code: str, *words: object, mount: bool = False) -> list[Any]:
    """What a script prints, line by line as JSON."""
    script = "import json, os, resource, signal, subprocess, sys\nfrom pathlib import Path\n"
    script += "from tests.null_runs import nd, run\n" + textwrap.dedent(code)
    done = subprocess.run(
        [*(MOUNTS if mount else []), sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left"), "[Errno 28] No space left: '{path}'"),
        (OSError(errno.EIO, "Broken", "chunk"), "[Errno 5] Broken: 'chunk'"),
        (OSError("Without a number"), "Without a number"),
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Refused"),
            f"[Errno {errno.ECONNREFUSED}] Refused",
        ),
    ],
)
def test_disk_error__names_the_store(error: OSError, said: str, tmp_path: Path) -> None:
    path = tmp_path / "made.zarr"
    with pytest.raises(type(error)) as raised, whole_or_nothing(path, kind="x") as partial:
        partial.mkdir()
        raise error
    assert str(raised.value) == said.format(path=path) and names_in(tmp_path) == []


def test_full_disk__is_said_and_goes_on_later(tmp_path: Path) -> None:
    cases = [("mkda", 8), ("scale", 100)]
    begin, *stops = in_process(
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def most(limit):  # from now on no file can have more bytes
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        def attempt(name, limit, after):
            stopped = []

            def report(done, total):  # a batch that had begun still reports after the error
                if done >= after and not stopped:
                    most(limit)

            try:
                run(name, 70, batch=7, store=Path(sys.argv[1]) / name, report=report)
            except OSError as error:
                stopped.append(error)
                most(resource.RLIM_INFINITY)
                print(json.dumps([error.errno, str(error), os.listdir(sys.argv[1])]))

        run("mkda", 3)
        most(100)
        attempt("mkda", 100, 0)
        for name, limit in json.loads(sys.argv[2]):
            attempt(name, limit, 14)
        """,
        tmp_path,
        json.dumps(cases),
    )
    assert str(tmp_path / "mkda") in begin[1]
    assert begin[0] == errno.EFBIG and begin[2] == [], (
        "nothing is left of a store that was not made"
    )
    assert names_in(tmp_path) == ["mkda", "scale"]
    for (name, _), stop in zip(cases, stops, strict=True):
        assert stop[0] == errno.EFBIG and "File too large" in stop[1] and "\n" not in stop[1]
        assert str(tmp_path / name) in stop[1]
        progress = checkpoints.progress(checkpoints.open_checkpoint(tmp_path / name))
        assert 14 <= progress.n_done < 70 and progress.n_torn == 0
        said: list[int] = []
        null = run(name, 70, store=tmp_path / name, report=lambda n, _, said=said: said.append(n))
        assert said[0] == progress.n_done
        assert_same_null(null, run(name, 70))


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="needs the right to mount (root, or a user namespace)")
def test_full_disk__of_a_real_file_system(tmp_path: Path) -> None:
    stopped, again = in_process(
        """
        disk = Path(sys.argv[1])
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=True)
        done = []
        try:
            run("scale", 600, batch=5, store=disk / "null", report=lambda n, total: done.append(n))
        except OSError as error:
            print(json.dumps([error.errno, done[-1], os.listdir(disk), str(error)]))
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        done = []
        null = run("scale", 600, store=disk / "null", report=lambda n, total: done.append(n))
        names = [name for name in null.data_vars if name.startswith("null_")]
        print(json.dumps([done[0], {name: null[name].values.tolist() for name in names}]))
        """,
        tmp_path,
        mount=True,
    )
    assert stopped[0] == errno.ENOSPC and 0 < stopped[1] < 600 and stopped[2] == ["null"]
    assert "No space left on device" in stopped[3] and str(tmp_path / "null") in stopped[3]
    assert stopped[1] <= again[0] < 600
    expected = run("scale", 600)
    for name, values in again[1].items():
        np.testing.assert_array_equal(np.array(values), expected[name].values)


def test_read_only__says_so_and_can_still_be_read(tmp_path: Path) -> None:
    mount = os.geteuid() == 0  # for whom permissions do not count
    if mount and not can_mount():
        pytest.skip("root, but without the right to mount")
    store = tmp_path / "null"
    null = run("scale", 17, batch=7, store=store)
    before = contents(store)
    if not mount:
        for path in [store, *store.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
    found = in_process(
        """
        store = sys.argv[1]
        if os.geteuid() == 0:
            subprocess.run(["mount", "--bind", store, store], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", store], check=True)
        null = nd.open_null(store)
        print(json.dumps(null["null_max"].values.tolist()))
        print(json.dumps(run("scale", 17, store=store)["null_max"].values.tolist()))
        for more in (lambda: run("scale", 40, store=store), lambda: nd.extend_null(null, 40)):
            try:
                more()
            except OSError as error:
                print(json.dumps([error.errno, str(error)]))
        """,
        store,
        mount=mount,
    )
    assert found[0] == found[1] == null["null_max"].values.tolist()
    for number, message in found[2:]:
        assert number in (errno.EROFS, errno.EACCES)
        assert str(store) in message and "\n" not in message
    assert len(found) == 4 and contents(store) == before
    for path in [store, *store.rglob("*")]:
        path.chmod(0o755)
