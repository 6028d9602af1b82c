"""Files and folders that are either whole or not there."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nimare_dask.errors import StoreExistsError
from nimare_dask.parallel.places import refuse_address
from nimare_dask.parallel.stores import naming


@contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """Give a file to write to; it gets its name when the block ends well.

    Raises
    ------
    StoreExistsError
        When `path` exists and `overwrite` is false, or when it is a folder.
    """
    refuse_address(path, "files")
    path = path.absolute()
    refuse_file(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        with naming(path), partial.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        refuse_file(path, overwrite=overwrite)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def refuse_file(path: Path, *, overwrite: bool = False) -> None:
    """Raise StoreExistsError when writing the file `path` would destroy something."""
    refuse_address(path, "files")
    if path.is_dir():
        raise StoreExistsError(f"{path} is a folder; expected the path of a file to write.")
    if path.exists() and not overwrite:
        raise StoreExistsError(
            f"{path} exists already. Give another path, or replace it: --force on the command "
            "line, overwrite=True in Python."
        )


@contextmanager
def whole_folder(
    path: Path, *, overwrite: bool = False, marker: str | None = None
) -> Iterator[Path]:
    """Give an empty folder to fill; it gets its name when the block ends well.

    Parameters
    ----------
    path
        Folder to write.
    overwrite
        Replace a folder that is there.
    marker
        Pattern of a file that folders of this kind have; one without is never replaced.

    Raises
    ------
    StoreExistsError
        When `path` exists and may not be replaced.
    """
    refuse_address(path, "folders of files")
    path = path.absolute()
    refuse_folder(path, overwrite=overwrite, marker=marker)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _beside(path)
    try:
        with naming(path):
            partial.mkdir()
            yield partial
            for file in partial.iterdir():
                if file.is_file():
                    with file.open("rb+") as handle:
                        os.fsync(handle.fileno())
        refuse_folder(path, overwrite=overwrite, marker=marker)
        if path.exists():
            old = partial.with_suffix(".old")
            path.rename(old)
            try:
                partial.rename(path)
            except OSError:
                old.rename(path)
                raise
            shutil.rmtree(old)
        else:
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_folder(path: Path, *, overwrite: bool = False, marker: str | None = None) -> None:
    """Raise StoreExistsError when filling the folder `path` would destroy something."""
    refuse_address(path, "folders of files")
    if marker and path.is_dir() and any(path.iterdir()) and not any(path.glob(marker)):
        raise StoreExistsError(
            f"{path} exists and holds no {marker}, so it is not touched; give another folder."
        )
    if path.exists() and not (overwrite and path.is_dir()):
        raise StoreExistsError(
            f"{path} exists already and is not touched. Give another folder, or replace it: "
            "--force on the command line, overwrite=True in Python."
        )


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
