"""Importing the package is light, and its public names are true."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import nimare_dask

HEAVY = ("aiobotocore", "matplotlib", "nilearn", "s3fs", "sklearn", "torch", "upath")
MOST_SECONDS = 1.5
TIMED = """
import time
start = time.perf_counter()
import nimare_dask
print(time.perf_counter() - start)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter, with this environment; its output as text."""
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def imported_by(*arguments: str) -> set[str]:
    """Top-level packages that a fresh interpreter imported on the way."""
    lines = run("-X", "importtime", *arguments).stderr.splitlines()
    names = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize(
    "arguments",
    [("-c", "import nimare_dask"), ("-m", "nimare_dask.cli.app", "--help")],
    ids=["package", "command-line-help"],
)
def test_import__leaves_heavy_libraries_out(arguments: tuple[str, ...]) -> None:
    imported = imported_by(*arguments)
    assert "nimare_dask" in imported
    assert imported.isdisjoint(HEAVY), f"imported at start: {sorted(imported & set(HEAVY))}"


def test_import__sees_a_heavy_library_that_is_imported() -> None:
    assert "sklearn" in imported_by("-c", "import sklearn")


def test_import__takes_little_time() -> None:
    run("-c", "import nimare_dask")  # byte code and file cache
    seconds: list[float] = []
    while len(seconds) < 3 and min(seconds, default=MOST_SECONDS) >= MOST_SECONDS:
        seconds.append(float(run("-c", TIMED).stdout))
    assert min(seconds) < MOST_SECONDS, f"`import nimare_dask` took {seconds} s, three times"


def test_all__is_sorted_and_unique() -> None:
    assert list(nimare_dask.__all__) == sorted(set(nimare_dask.__all__))


def test_all__names_exist() -> None:
    missing = [name for name in nimare_dask.__all__ if not hasattr(nimare_dask, name)]
    assert not missing, f"in nimare_dask.__all__ but not there: {missing}"


def test_public_names__each_can_be_had() -> None:
    for name in nimare_dask.__all__:
        assert getattr(nimare_dask, name) is not None
    assert nimare_dask.select is nimare_dask.selection.select
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nimare_dask.nonsense
