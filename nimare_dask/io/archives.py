"""Unpack archives of strangers: nothing leaves the folder, sizes are bounded, whole or not at all.

Of an archive only plain files and folders are taken. Anything else in it (a link, a device, a path
that points elsewhere) is an error, not something to skip: a good archive of data has none.
"""

from __future__ import annotations

import errno
import gzip
import io
import lzma
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar, cast

from nimare_dask.errors import SettingsError, SourceFormatError
from nimare_dask.io.whole import whole_folder

M = TypeVar("M")
_CHUNK_BYTES = 1 << 18
#: What a small archive may hold, however well it is compressed.
_ALWAYS_FINE = 1 << 24
_LONGEST_NAME = 1_000
_LONGEST_HEADER = 1 << 24
#: What reading a broken archive ends in.
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a way to compress that zipfile does not know
    OverflowError,
    ValueError,  # numbers in a header that are none, text that is none
    OSError,  # gzip and bz2 raise it without a number; an offset that is none has EINVAL
)
#: Characters to which some system gives a meaning in a path.
_ELSEWHERE = re.compile(r"[\\:\x00-\x1f]")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an archive may hold.

    Parameters
    ----------
    most_bytes
        Bytes of all its files together, unpacked.
    most_files
        Files and folders.
    most_ratio
        Bytes unpacked for each byte of the archive; 16 MiB are always fine. Text of numbers packs
        to a tenth or so; a hundredth is a bomb.
    """

    most_bytes: int = 50 * 10**9
    most_files: int = 100_000
    most_ratio: int = 100

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise SettingsError(f"{name} is {value}; expected 1 or more.")

    def bytes_of(self, archive: Path) -> int:
        """Bytes that this archive may hold."""
        packed = archive.stat().st_size
        return min(self.most_bytes, max(_ALWAYS_FINE, packed * self.most_ratio))


def unpack(
    archive: Path, folder: Path, *, limits: Limits | None = None, overwrite: bool = False
) -> Path:
    """Unpack a ``.zip`` or ``.tar.gz`` into a new folder, which is there whole or not at all.

    Parameters
    ----------
    archive
        What it is, is read from its content and not from its name.
    folder
        The folder to make.
    limits
        How much may come out of it.
    overwrite
        Replace the folder if it is there.

    Raises
    ------
    SourceFormatError
        When it is no such archive, is broken, or holds what it should not: a path that leaves the
        folder, a link, a device, a name twice, an encrypted file, or more than the limits.
    StoreExistsError
        When the folder exists.
    """
    with whole_folder(folder, overwrite=overwrite) as partial:
        unpack_into(archive, partial, limits=limits)
    return folder


def unpack_into(archive: Path, folder: Path, *, limits: Limits | None = None) -> None:
    """As :func:`unpack`, into an empty folder that is there; half of it is left when it fails."""
    limits = limits or Limits()
    with archive.open("rb") as handle:
        start = handle.read(4)
    if start[:2] == b"\x1f\x8b":
        extract = _untar
    elif start in (b"PK\x03\x04", b"PK\x05\x06"):
        extract = _unzip
    else:
        raise SourceFormatError(f"{archive} is neither a .zip nor a .tar.gz; expected one of them.")
    try:
        extract(archive, folder, limits)
    except SourceFormatError:
        raise
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk
        cause = str(error) or type(error).__name__
        raise SourceFormatError(
            f"{archive} is broken ({cause}): download or copy it again."
        ) from error


def _untar(archive: Path, folder: Path, limits: Limits) -> None:
    with gzip.open(archive, "rb") as unzipped:
        # Headers are bounded too: tarfile reads a long one into memory at once.
        metered = _Metered(cast(IO[bytes], unzipped), archive, limits.bytes_of(archive))
        stream = cast(IO[bytes], io.BufferedReader(metered, _CHUNK_BYTES))
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in _numbered(tar, archive, limits):
                metered.expect_content()
                if not (member.isfile() or member.isdir()) or member.issparse():
                    raise _refused(archive, member.name, "is neither a file nor a folder")
                target = folder / _inside(archive, member.name)
                if member.isdir():
                    _make(archive, target)
                else:
                    content = tar.extractfile(member)
                    assert content is not None
                    _copy(archive, content, target)
                metered.expect_header()
        metered.expect_content()
        while stream.read(_CHUNK_BYTES):
            pass  # to the end, where the checksum of gzip stands


def _unzip(archive: Path, folder: Path, limits: Limits) -> None:
    most = limits.bytes_of(archive)
    with zipfile.ZipFile(archive) as packed:
        members = packed.infolist()
        # zipfile never gives more of a file than is declared here.
        if sum(member.file_size for member in members) > most:
            raise _too_much(archive, most)
        for member in _numbered(members, archive, limits):
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(archive, member.filename, "is neither a file nor a folder")
            if member.flag_bits & 1:
                raise _refused(archive, member.filename, "is encrypted")
            # zipfile cuts a name at a NUL and turns backslashes; what stood there is judged.
            target = folder / _inside(archive, member.orig_filename)
            if member.is_dir():
                _make(archive, target)
            else:
                with packed.open(member) as content:
                    _copy(archive, content, target)


def _numbered(members: Iterable[M], archive: Path, limits: Limits) -> Iterator[M]:
    """The members of an archive, as long as they are not too many."""
    for number, member in enumerate(members, start=1):
        if number > limits.most_files:
            raise SourceFormatError(
                f"{archive} holds more than {limits.most_files:,} files: it is not unpacked."
            )
        yield member


def _inside(archive: Path, name: str) -> PurePosixPath:
    """The path of a member below the folder; whatever could lead elsewhere is refused."""
    path = PurePosixPath(name)
    if not name or len(name) > _LONGEST_NAME or _ELSEWHERE.search(name):
        raise _refused(archive, name, "has a name that cannot be a file's here")
    if path.is_absolute() or ".." in path.parts:
        raise _refused(archive, name, "leads out of the folder")
    return path


def _make(archive: Path, target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise _refused(archive, target.name, "is there twice") from error


def _copy(archive: Path, content: IO[bytes], target: Path) -> None:
    """Write one file. The folder is new and has no links, so no path in it leads out of it."""
    _make(archive, target.parent)
    try:
        with target.open("xb") as out:
            shutil.copyfileobj(content, out, _CHUNK_BYTES)
    except (FileExistsError, IsADirectoryError) as error:
        raise _refused(archive, target.name, "is there twice") from error


def _refused(archive: Path, name: str, what: str) -> SourceFormatError:
    shown = repr(name if len(name) <= 80 else f"{name[:80]}...")
    return SourceFormatError(
        f"{archive} is not unpacked: {shown} in it {what}; expected plain files and folders. "
        "Take it from a source that you trust."
    )


def _too_much(archive: Path, most: int) -> SourceFormatError:
    return SourceFormatError(
        f"{archive} ({archive.stat().st_size:,} bytes) holds more than {most:,} bytes: it is not "
        "unpacked. Where it is meant, unpack it by hand."
    )


class _Metered(io.RawIOBase):
    """A stream that ends in an error when more is read than should be there."""

    def __init__(self, source: IO[bytes], archive: Path, most: int) -> None:
        self._source, self._archive, self._most, self._read = source, archive, most, 0
        self.expect_header()

    def expect_header(self) -> None:
        """From here on there is a header, which is short."""
        self._stop = min(self._most, self._read + _LONGEST_HEADER)

    def expect_content(self) -> None:
        """From here on there is a file, which may be as long as all of it may be."""
        self._stop = self._most

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what fits."""
        piece = self._source.read(len(buffer))
        self._read += len(piece)
        if self._read > self._stop:
            raise _too_much(self._archive, self._most)
        buffer[: len(piece)] = piece
        return len(piece)
