"""Where things lie on this machine: caches, and the folder of real data."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from nimare_dask._version import __version__

CACHE_VARIABLE = "NIMARE_DASK_CACHE"
DATA_VARIABLE = "NIMARE_DASK_DATA"
KERNELS_VARIABLE = "NIMARE_DASK_KERNELS"


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

    An image brings its kernels compiled, in the folder $NIMARE_DASK_KERNELS. Numba reads no cache
    that it cannot write to, so they are copied to where it can.
    """
    chosen, compiled = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get(KERNELS_VARIABLE)
    if not chosen and "numba" not in sys.modules:
        usual = (Path(__file__).parent, Path.home())
        if compiled or not any(os.access(folder, os.W_OK) for folder in usual):
            scratch = os.environ.get("SLURM_TMPDIR") or tempfile.gettempdir()
            # On machines of many, the folder of another person could not be written.
            user = getattr(os, "getuid", lambda: "")()
            chosen = str(Path(scratch) / f"nimare_dask_numba_{__version__}_{user}")
            os.environ["NUMBA_CACHE_DIR"] = chosen
    if chosen and compiled:
        # Without them kernels are compiled when they are first used.
        with suppress(OSError):
            _copy_once(Path(compiled), Path(chosen))


def _copy_once(source: Path, target: Path) -> None:
    """Copy a folder unless it is there; other processes see all of it or nothing."""
    if target.exists() or not source.is_dir():
        return
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        # Not shutil.copytree: folders would get the modes of an image that cannot be written to.
        for file in filter(Path.is_file, source.rglob("*")):
            copy = partial / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
