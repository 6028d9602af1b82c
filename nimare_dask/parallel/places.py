"""Where zarr groups are: a folder of this machine, or an address such as ``s3://bucket/name.zarr``.

A path of this machine is a `pathlib.Path`, and nothing is different for it. An address is a `UPath`
of universal-pathlib, which stands on fsspec; both are imported when the first address is used, and
come with the extra ``cloud``. Every process finds credentials and endpoint by itself, as other
programs do: variables such as ``AWS_ACCESS_KEY_ID`` and ``AWS_ENDPOINT_URL``, or its files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nimare_dask.errors import NimareDaskError, SettingsError, StoreAccessError

if TYPE_CHECKING:
    from upath import UPath

    AnyPath: TypeAlias = Path | UPath
else:
    AnyPath = Path

#: The document of the root of a zarr group.
ROOT = "zarr.json"

#: A scheme of two letters or more (one is a drive of Windows). `Path` leaves one slash of two.
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_OF_THIS_MACHINE = ("file", "local")
_SUCH_AS = "expected such as s3://bucket/folder/name.zarr"

#: Libraries that talk to object stores; an error of theirs is about the store.
_LIBRARIES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "s3fs"}
)


def place(path: str | AnyPath) -> AnyPath:
    """A path or address as what the package works with.

    Parameters
    ----------
    path
        A path of this machine, an address, or a `UPath`, whose options are kept.

    Returns
    -------
    place
        A `Path` for what is on this machine (``file://`` is), else a `UPath`.

    Raises
    ------
    StoreAccessError
        When it is an address that names no group, or of a kind that is not installed.
    """
    if not isinstance(path, str | Path):
        return _of_upath(path)
    text = path if isinstance(path, str) else path.as_posix()
    found = _ADDRESS.fullmatch(text)
    if found is None:
        if "::" in text and "://" in text:
            raise StoreAccessError(f"{text} is an address inside another; {_SUCH_AS}.")
        return Path(path)
    protocol, rest = found[1].lower(), found[2].rstrip("/")
    if protocol in _OF_THIS_MACHINE:
        from fsspec.implementations.local import LocalFileSystem

        return Path(LocalFileSystem._strip_protocol(f"file:///{rest}"))
    return _of_address(protocol, rest)


def _of_address(protocol: str, rest: str) -> UPath:
    address = f"{protocol}://{rest}"
    try:
        from fsspec import get_filesystem_class

        get_filesystem_class(protocol)
        from upath import UPath
    except ValueError as error:
        raise StoreAccessError(f"{address} is of a kind that is not known; {_SUCH_AS}.") from error
    except ImportError as error:
        raise StoreAccessError(
            f"{address} is an address of an object store, and what reads it is not installed "
            f"({error}): pip install 'nimare-dask[cloud]'."
        ) from error
    # A bucket alone is no group: what is written beside a group has no place there.
    if len([part for part in rest.split("/") if part]) < (1 if protocol == "memory" else 2):
        raise StoreAccessError(f"{address} names no group in a bucket; {_SUCH_AS}.")
    made: UPath = UPath(address, **_options(protocol))
    return made


def _options(protocol: str) -> dict[str, Any]:
    """How addresses are opened, when their owner says nothing else."""
    # Other processes write there too, so what a listing said once is not kept.
    options: dict[str, Any] = {"use_listings_cache": False}
    # Else s3fs asks for the size of each object first, to read large ones in parts.
    return options | ({"max_concurrency": 1} if protocol in ("s3", "s3a") else {})


def _of_upath(path: UPath) -> AnyPath:
    from upath import UPath

    if path.protocol in ("", *_OF_THIS_MACHINE):
        return Path(path.path)
    made: UPath = UPath(path, **{**_options(path.protocol), **path.storage_options})
    return made


def is_address(path: AnyPath) -> bool:
    """Whether it is an address, and not a path of this machine."""
    return not isinstance(path, Path)


def refuse_address(path: str | AnyPath, what: str) -> None:
    """Raise SettingsError when what is written to this machine only is to go to an address."""
    text = path.as_posix() if isinstance(path, Path) else str(path)
    found = _ADDRESS.fullmatch(text)
    if found is not None:
        raise SettingsError(
            f"{found[1]}://{found[2]} is an address, and {what} are written to this machine; give "
            "a path here, or for a corpus or a result an address that ends in .zarr."
        )


def make_folder(path: AnyPath) -> None:
    """Make a folder of this machine; an object store needs none."""
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)


def zarr_store(path: AnyPath, *, read_only: bool = False) -> Any:
    """What zarr and xarray open or write at a path."""
    if isinstance(path, Path):
        return path
    from zarr.storage import FsspecStore

    return FsspecStore.from_url(
        str(path), storage_options=dict(path.storage_options), read_only=read_only
    )


def is_there(path: AnyPath) -> bool:
    """Whether something is at a path; in an object store, whether a whole group is."""
    return path.exists() if isinstance(path, Path) else read_root(path) is not None


def read_root(path: AnyPath) -> bytes | None:
    """The root document of a zarr group, None when there is none.

    Raises
    ------
    StoreAccessError
        When the object store cannot be reached, or not by this person.
    """
    if isinstance(path, Path):
        return (path / ROOT).read_bytes() if (path / ROOT).is_file() else None
    with reaching(path):
        try:
            return bytes(path.fs.cat_file((path / ROOT).path))
        except FileNotFoundError as error:
            if "NoSuchBucket" in _codes(error):
                raise
            return None


@contextmanager
def reaching(path: AnyPath | None) -> Iterator[None]:
    """Say in a sentence what keeps an object store from being read or written.

    Errors that are not of an object store stay what they are. None is an address that is not known.
    """
    try:
        yield
    except NimareDaskError:
        raise
    except Exception as error:
        if isinstance(path, Path):
            raise
        told = _told("An object store" if path is None else str(path), error)
        if told is None:
            raise
        raise StoreAccessError(told) from error


def _told(path: str, error: BaseException) -> str | None:
    """What went wrong in an object store; None for errors of something else."""
    chain = list(_chain(error))
    if not any(type(each).__module__.partition(".")[0] in _LIBRARIES for each in chain):
        return None
    codes, names = _codes(error), {type(each).__name__ for each in chain}
    why = " ".join(str(error).split()) or type(error).__name__
    why = why if len(why) <= 200 else f"{why[:197]}..."
    if "NoSuchBucket" in codes:
        return f"{path} is in no bucket that is there ({why}); make the bucket, or give another."
    if names & {"NoCredentialsError", "PartialCredentialsError"}:
        return (
            f"{path} needs credentials, and there are none; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, here and for workers."
        )
    if any(isinstance(each, PermissionError) for each in chain):
        return (
            f"{path} may not be accessed ({why}); check the credentials (AWS_PROFILE, "
            "AWS_ACCESS_KEY_ID) and that they may list, read, write and delete there."
        )
    if isinstance(error, FileNotFoundError):
        return None
    if codes:
        return f"{path} could not be read or written ({why}); run this again to go on."
    return (
        f"{path} could not be reached ({type(error).__name__}: {why}); check the network and the "
        "endpoint (AWS_ENDPOINT_URL), and run this again to go on."
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _codes(error: BaseException) -> set[str]:
    """What the server called an error: NoSuchBucket, AccessDenied ..."""
    answers = [getattr(each, "response", None) for each in _chain(error)]
    return {
        str(answer["Error"].get("Code"))
        for answer in answers
        if isinstance(answer, dict) and isinstance(answer.get("Error"), dict)
    }
