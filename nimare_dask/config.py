"""Where things lie on this machine: the cache folder and the folder of real data."""

from __future__ import annotations

import os
import sys
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
