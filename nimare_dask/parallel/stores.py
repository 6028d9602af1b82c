"""zarr groups that are either whole or not there.

A group is written under a temporary name beside its place and renamed when it is whole, so a
crash, a full disk or Ctrl-C leaves nothing that looks like a result.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr

from nimare_dask.errors import SourceFormatError, StoreExistsError


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the path of a store into an error of the disk that names no file, as when it is full."""
    try:
        yield
    except OSError as error:
        of_network = isinstance(error, ConnectionError | TimeoutError)
        if error.errno is not None and error.filename is None and not of_network:
            error.filename = str(path)
        raise


@contextmanager
def whole_or_nothing(path: Path, *, kind: str, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to `path` when the block ends well.

    Raises
    ------
    StoreExistsError
        When `path` exists and `overwrite` is false, or when it is not a group of this `kind`.
    """
    # Workers may run in another folder, so every path that goes to them is absolute.
    path = path.absolute()
    refuse_existing(path, kind=kind, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = uuid.uuid4().hex[:8]
    partial = path.with_name(f".{path.name}.{unique}.part")
    try:
        with naming(path):
            yield partial
        # Another process may have finished the same result meanwhile.
        refuse_existing(path, kind=kind, overwrite=overwrite)
        if path.exists():
            old = path.with_name(f".{path.name}.{unique}.old")
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


def refuse_existing(path: Path, *, kind: str, overwrite: bool = False) -> None:
    """Raise StoreExistsError when writing to `path` would destroy something."""
    if not path.exists():
        return
    if not (path / "zarr.json").is_file():
        raise StoreExistsError(
            f"{path} exists and is not a zarr group, so it is not touched. Give another path."
        )
    found = _kind_of(path)
    if found != kind:
        word = kind.rpartition(".")[2]
        raise StoreExistsError(
            f"{path} exists and is {found or 'nothing that nimare_dask wrote'}, not a {word}, so "
            "it is not touched. Give another path."
        )
    if not overwrite:
        raise StoreExistsError(
            f"{path} exists already. Give another path, or replace it: --force on the command "
            "line, overwrite=True in Python."
        )


def _say_kind(kind: Any) -> str:
    return f"a {str(kind).rpartition('.')[2]}" if kind else "a zarr group of another origin"


def _kind_of(path: Path) -> str | None:
    try:
        attributes = json.loads((path / "zarr.json").read_text())["attributes"]
        return str(attributes["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def group_attributes(path: Path, *, kind: str, version: int) -> dict[str, Any]:
    """Attributes of a zarr group of a kind and version, read from its ``zarr.json`` alone.

    Raises
    ------
    SourceFormatError
        When there is no such group, or it is of another kind or version.
    """
    word = kind.rpartition(".")[2]
    if not path.exists():
        raise SourceFormatError(f"{path} does not exist; expected a {word} (a zarr folder).")
    if not (path / "zarr.json").is_file():
        raise SourceFormatError(
            f"{path} is not a zarr version 3 group (it has no zarr.json); expected a {word} "
            "written by nimare_dask."
        )
    try:
        attributes = dict(json.loads((path / "zarr.json").read_text()).get("attributes", {}))
    except (OSError, ValueError, AttributeError) as error:
        raise SourceFormatError(f"{path} could not be opened as a {word}: {error}") from error
    _check_attributes(path, attributes, kind=kind, version=version)
    return attributes


def _check_attributes(path: Path, attributes: Any, *, kind: str, version: int) -> None:
    word = kind.rpartition(".")[2]
    if attributes.get("kind") != kind:
        raise SourceFormatError(
            f"{path} is {_say_kind(attributes.get('kind'))}; expected a {word} written by "
            "nimare_dask."
        )
    if attributes.get("schema_version") != version:
        raise SourceFormatError(
            f"{path} has schema version {attributes.get('schema_version')}; this version of "
            f"nimare_dask reads {version}. Make the {word} again from its source."
        )


def open_group(path: Path, *, kind: str, version: int, chunks: Any = None) -> xr.Dataset:
    """Open a zarr group and check what it is.

    Parameters
    ----------
    path
        Folder of the group.
    kind, version
        The attributes ``kind`` and ``schema_version`` that it must have.
    chunks
        None for plain lazy arrays, ``{}`` for dask arrays in the chunks of the store.

    Raises
    ------
    SourceFormatError
        When there is no such group, or it is of another kind or version.
    """
    word = kind.rpartition(".")[2]
    path = path.absolute()
    group_attributes(path, kind=kind, version=version)
    try:
        dataset: xr.Dataset = xr.open_zarr(path, chunks=chunks, consolidated=False)
    except Exception as error:
        raise SourceFormatError(f"{path} could not be opened as a {word}: {error}") from error
    return dataset


def stamp(dataset: xr.Dataset, *, kind: str, version: int, facts: Mapping[str, Any]) -> xr.Dataset:
    """Say what a dataset is, in its attributes, and drop the encoding of where it was read from."""
    stamped = dataset.assign_attrs({"kind": kind, "schema_version": version, **facts})
    return stamped.drop_encoding()
