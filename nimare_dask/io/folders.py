"""Folders of files that are either whole or not there."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nimare_dask.errors import StoreExistsError
from nimare_dask.parallel.stores import naming


@contextmanager
def whole_folder(path: Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder to fill; it gets its name when the block ends well.

    Parameters
    ----------
    path
        Folder to write.
    marker
        Pattern of a file that a folder of this kind has; one without is never replaced.
    overwrite
        Replace a folder of this kind.

    Raises
    ------
    StoreExistsError
        When `path` is there and may not be replaced.
    """
    path = path.absolute()
    refuse_folder(path, marker=marker, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = uuid.uuid4().hex[:8]
    partial = path.with_name(f".{path.name}.{unique}.part")
    old = path.with_name(f".{path.name}.{unique}.old")
    try:
        with naming(path):
            partial.mkdir()
            yield partial
            for file in partial.iterdir():
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
        # Another process may have written the same folder meanwhile.
        refuse_folder(path, marker=marker, overwrite=overwrite)
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_folder(path: Path, *, marker: str, overwrite: bool = False) -> None:
    """Raise StoreExistsError when writing the folder `path` would destroy something."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir() or not any(path.glob(marker)):
        raise StoreExistsError(
            f"{path} exists and holds no {marker}, so it is not touched; give another folder."
        )
    if not overwrite:
        raise StoreExistsError(
            f"{path} exists already; choose another name or replace it with overwrite=True "
            "(--force)."
        )
