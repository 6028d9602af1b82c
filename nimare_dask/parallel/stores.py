"""zarr groups that are either whole or not there.

A group is written under a temporary name beside its place and renamed when it is whole, so a
crash, a full disk or Ctrl-C leaves nothing that looks like a result. An object store has no rename;
how a group becomes whole there stands in `objects`.
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

from nimare_dask.errors import SourceFormatError, StoreAccessError, StoreExistsError
from nimare_dask.parallel.objects import RootLast, holds_something, root_last
from nimare_dask.parallel.parts import Part
from nimare_dask.parallel.places import ROOT, AnyPath, is_there, reaching, read_root, zarr_store


@contextmanager
def naming(path: AnyPath) -> Iterator[None]:
    """Put the path of a store into an error of the disk that names no file, as when it is full.

    What keeps an object store from being written is said in a sentence.
    """
    try:
        with reaching(path):
            yield
    except OSError as error:
        of_network = isinstance(error, ConnectionError | TimeoutError)
        if error.errno is not None and error.filename is None and not of_network:
            error.filename = str(path)
        raise


@contextmanager
def whole_or_nothing(
    path: AnyPath, *, kind: str, overwrite: bool = False, part: Part | None = None
) -> Iterator[Path | RootLast]:
    """Give something for zarr to write to, which is at `path` when the block ends well.

    It is a temporary path that is renamed, or, for an address, a store that puts the root last.

    Parameters
    ----------
    path
        Where the group will be.
    kind
        What it is.
    overwrite
        Replace one of the same kind.
    part
        What is written block by block, at its own temporary path, and may be of use to a later run;
        without it nothing is left.

    Raises
    ------
    StoreExistsError
        When `path` exists and `overwrite` is false, or when it is not a group of this `kind`.
    """
    if not isinstance(path, Path):
        refuse_existing(path, kind=kind, overwrite=overwrite)
        with root_last(path) as store:
            yield store
        return
    # Workers may run in another folder, so every path that goes to them is absolute.
    path = path.absolute()
    refuse_existing(path, kind=kind, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    unique = uuid.uuid4().hex[:8]
    partial = path.with_name(f".{path.name}.{unique}.part") if part is None else part.path
    kept = False
    try:
        try:
            with naming(path):
                yield partial
        except BaseException as error:
            kept = part is not None and part.is_of_use_after(error)
            raise
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
        if not kept:
            shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(path: AnyPath, *, kind: str, overwrite: bool = False) -> None:
    """Raise StoreExistsError when writing to `path` would destroy something."""
    there = path.exists() if isinstance(path, Path) else holds_something(path)
    if not there:
        return
    is_group = (path / ROOT).is_file() if isinstance(path, Path) else is_there(path)
    if not is_group:
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


def _kind_of(path: AnyPath) -> str | None:
    try:
        return str(json.loads(read_root(path) or b"")["attributes"]["kind"])
    except StoreAccessError:
        raise
    except (OSError, ValueError, KeyError, TypeError):
        return None


def group_attributes(path: AnyPath, *, kind: str, version: int) -> dict[str, Any]:
    """Attributes of a zarr group of a kind and version, read from its ``zarr.json`` alone.

    Raises
    ------
    SourceFormatError
        When there is no such group, or it is of another kind or version.
    StoreAccessError
        When the object store that it is in cannot be read.
    """
    word = kind.rpartition(".")[2]
    if not isinstance(path, Path):
        missing = f"{path} is not there, or was not written to its end; expected a {word}."
    elif path.exists():
        missing = (
            f"{path} is not a zarr version 3 group (it has no zarr.json); expected a {word} "
            "written by nimare_dask."
        )
    else:
        missing = f"{path} does not exist; expected a {word} (a zarr folder)."
    try:
        root = read_root(path)
        attributes = None if root is None else dict(json.loads(root).get("attributes", {}))
    except StoreAccessError:
        raise
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise SourceFormatError(f"{path} could not be opened as a {word}: {error}") from error
    if attributes is None:
        raise SourceFormatError(missing)
    _check_attributes(path, attributes, kind=kind, version=version)
    return attributes


def _check_attributes(path: AnyPath, attributes: Any, *, kind: str, version: int) -> None:
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


def open_group(path: AnyPath, *, kind: str, version: int, chunks: Any = None) -> xr.Dataset:
    """Open a zarr group and check what it is.

    Parameters
    ----------
    path
        Folder or address of the group.
    kind, version
        The attributes ``kind`` and ``schema_version`` that it must have.
    chunks
        None for plain lazy arrays, ``{}`` for dask arrays in the chunks of the store.

    Raises
    ------
    SourceFormatError
        When there is no such group, or it is of another kind or version.
    StoreAccessError
        When the object store that it is in cannot be read.
    """
    word = kind.rpartition(".")[2]
    path = path.absolute()
    group_attributes(path, kind=kind, version=version)
    try:
        with reaching(path):
            dataset: xr.Dataset = xr.open_zarr(
                zarr_store(path, read_only=True), chunks=chunks, consolidated=False, zarr_format=3
            )
    except StoreAccessError:
        raise
    except Exception as error:
        raise SourceFormatError(f"{path} could not be opened as a {word}: {error}") from error
    return dataset


def stamp(dataset: xr.Dataset, *, kind: str, version: int, facts: Mapping[str, Any]) -> xr.Dataset:
    """Say what a dataset is, in its attributes, and drop the encoding of where it was read from."""
    stamped = dataset.assign_attrs({"kind": kind, "schema_version": version, **facts})
    return stamped.drop_encoding()
