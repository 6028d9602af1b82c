"""Where things lie on this machine: caches, and the folder of real data."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

CACHE_VARIABLE = "NIMARE_DASK_CACHE"
DATA_VARIABLE = "NIMARE_DASK_DATA"


def cache_folder() -> Path:
    """Folder for downloads: $NIMARE_DASK_CACHE, else the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "nimare_dask"


def data_folder() -> Path | None:
    """Folder of real data named by $NIMARE_DASK_DATA, or None."""
    chosen = os.environ.get(DATA_VARIABLE)
    return Path(chosen).expanduser() if chosen else None


def choose_numba_cache() -> None:
    """Give compiled kernels a place on machines where their usual places cannot be written.

    Numba caches beside the source, or in the user's cache folder. On a compute node neither may be
    writable; the scratch folder of the job is. It has to be chosen before numba is imported.
    """
    if os.environ.get("NUMBA_CACHE_DIR") or "numba" in sys.modules:
        return
    if not any(os.access(folder, os.W_OK) for folder in (Path(__file__).parent, Path.home())):
        scratch = os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir()
        os.environ["NUMBA_CACHE_DIR"] = str(Path(scratch) / "nimare_dask_numba")
