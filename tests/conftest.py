"""What every test shares: the real data where there is some, and a cache of the run's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: the first call of a numba function compiles it, which takes seconds.
settings.register_profile("nimare_dask", settings(deadline=None))
settings.load_profile("nimare_dask")

# A shell that runs tests in the background has Ctrl-C ignored, which processes of tests inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package's cache of this run: an empty folder, also for subprocesses; never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIMARE_DASK_CACHE", str(folder))
        patch.setenv("MPLBACKEND", "Agg")
        yield folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with `neurosynth/` in it (NIMARE_DASK_DATA); without it the test is skipped."""
    value = os.environ.get("NIMARE_DASK_DATA")
    if not value:
        pytest.skip("NIMARE_DASK_DATA is unset: set it to the folder that holds neurosynth/")
    folder = Path(value)
    if not (folder / "neurosynth").is_dir():
        pytest.skip(f"NIMARE_DASK_DATA is {value!r}, which holds no folder neurosynth/")
    return folder
