"""Files that are either whole or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nimare_dask.errors import StoreExistsError
from nimare_dask.parallel.stores import naming


@contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to `path` when the block ends well.

    Raises
    ------
    StoreExistsError
        When `path` is there and `overwrite` is false, or when it is a folder.
    """
    refuse_file(path, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with naming(path):
            yield partial
            with partial.open("rb+") as handle:
                os.fsync(handle.fileno())
        # Another process may have written the same file meanwhile.
        refuse_file(path, overwrite=overwrite)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def refuse_file(path: Path, *, overwrite: bool = False) -> None:
    """Raise StoreExistsError when `path` is there and may not be replaced."""
    if path.is_dir():
        raise StoreExistsError(f"{path} is a folder; give the name of a file.")
    if path.exists() and not overwrite:
        raise StoreExistsError(
            f"{path} exists already; choose another name or replace it with overwrite=True "
            "(--force)."
        )
