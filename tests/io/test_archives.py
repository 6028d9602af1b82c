"""Archives come out whole or not at all, and nothing of them outside their folder."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nimare_dask.errors import SettingsError, SourceFormatError, StoreExistsError
from nimare_dask.io.archives import Limits, unpack

FILES = {"top.txt": b"top", "a/b/deep.bin": bytes(range(256)) * 10, "a/empty": b""}


def tarred(path: Path, *members: tarfile.TarInfo | tuple[str, bytes]) -> Path:
    """A .tar.gz with members as given."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            info, body = (member, b"") if isinstance(member, tarfile.TarInfo) else (None, member[1])
            if info is None:
                info = tarfile.TarInfo(member[0])  # type: ignore[index]
                info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return path


def zipped(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    """A .zip with members as given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, body in members:
            packed.writestr(name, body)
    return path


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """A member that is no plain file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def content(folder: Path) -> dict[str, bytes]:
    """Files of a folder by relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("make", [tarred, zipped])
def test_unpack__gives_the_files(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / "archive", *FILES.items())
    assert unpack(archive, tmp_path / "in" / "out") == tmp_path / "in" / "out"
    assert content(tmp_path / "in" / "out") == FILES
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["out"]


def test_unpack__takes_folders_and_long_names(tmp_path: Path) -> None:
    name = "d/" + "n" * 150  # a pax header in a tar
    archive = tarred(tmp_path / "a", special("./d", tarfile.DIRTYPE), (name, b"x"))
    unpack(archive, tmp_path / "tar")
    assert content(tmp_path / "tar") == {name: b"x"}
    unpack(zipped(tmp_path / "b", ("d/", b""), (name, b"x")), tmp_path / "zip")
    assert content(tmp_path / "zip") == {name: b"x"}


BAD_NAMES = [
    "../out.txt",
    "a/../../out.txt",
    "/etc/out.txt",
    "..",
    "..\\out.txt",
    "C:/out.txt",
    "a\nb",
    "x" * 1_001,
]


@pytest.mark.parametrize("make", [tarred, zipped])
@pytest.mark.parametrize("name", BAD_NAMES, ids=range(len(BAD_NAMES)))
def test_unpack__refuses_names_that_lead_elsewhere(
    tmp_path: Path, make: Callable[..., Path], name: str
) -> None:
    archive = make(tmp_path / "archive", ("good.txt", b"good"), (name, b"bad"))
    before = sorted(tmp_path.parent.rglob("*"))
    with pytest.raises(SourceFormatError, match=r"is not unpacked: .* in it"):
        unpack(archive, tmp_path / "out")
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "good.txt"),
        special("link", tarfile.LNKTYPE, "good.txt"),
        special("device", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
        special("good.txt", tarfile.DIRTYPE),
        ("good.txt", b"again"),
        ("good.txt/below", b"x"),
    ],
    ids=["symlink", "symlink_inside", "hardlink", "device", "pipe", "dir", "twice", "below"],
)
def test_unpack__refuses_what_is_no_plain_file(
    tmp_path: Path, member: tarfile.TarInfo | tuple[str, bytes]
) -> None:
    archive = tarred(tmp_path / "archive", ("good.txt", b"good"), member)
    with pytest.raises(SourceFormatError, match=r"neither a file nor a folder|is there twice"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_unpack__refuses_a_link_in_a_zip(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive = zipped(tmp_path / "archive", (link, b"/etc/passwd"))
    with pytest.raises(SourceFormatError, match="'link' in it is neither a file nor a folder"):
        unpack(archive, tmp_path / "out")


def test_unpack__refuses_an_encrypted_zip(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "archive", ("secret", b"x" * 50))
    packed = bytearray(archive.read_bytes())
    packed[6] |= 1
    packed[packed.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(packed)
    with pytest.raises(SourceFormatError, match="'secret' in it is encrypted"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("make", [tarred, zipped])
def test_unpack__refuses_a_bomb(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / "archive", ("zeros", bytes(40_000_000)))
    with pytest.raises(SourceFormatError, match=r"holds more than 16,777,216 bytes"):
        unpack(archive, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    unpack(archive, tmp_path / "out", limits=Limits(most_ratio=2_000))
    assert (tmp_path / "out" / "zeros").stat().st_size == 40_000_000


def test_unpack__refuses_a_long_header(tmp_path: Path) -> None:
    info = special("x", tarfile.XHDTYPE)
    info.size = 10**9
    archive = tmp_path / "archive"
    with gzip.open(archive, "wb", 1) as out:
        out.write(info.tobuf() + bytes(30_000_000))
    with pytest.raises(SourceFormatError, match="holds more than"):
        unpack(archive, tmp_path / "out", limits=Limits(most_ratio=10**6))


@pytest.mark.parametrize("make", [tarred, zipped])
def test_unpack__holds_to_bytes_and_files(tmp_path: Path, make: Callable[..., Path]) -> None:
    archive = make(tmp_path / "archive", *FILES.items())
    with pytest.raises(SourceFormatError, match="more than 2 files"):
        unpack(archive, tmp_path / "out", limits=Limits(most_files=2))
    with pytest.raises(SourceFormatError, match="more than 1,000 bytes"):
        unpack(archive, tmp_path / "out", limits=Limits(most_bytes=1_000))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [tarred, zipped])
def test_unpack__refuses_every_truncation(tmp_path: Path, make: Callable[..., Path]) -> None:
    whole = make(tmp_path / "archive", *FILES.items()).read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(SourceFormatError):
            unpack(tmp_path / "cut", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [tarred, zipped])
def test_unpack__changed_bytes_are_an_error_or_change_no_content(
    tmp_path: Path, make: Callable[..., Path]
) -> None:
    whole = make(tmp_path / "archive", *FILES.items()).read_bytes()
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 0x55
        (tmp_path / "changed").write_bytes(changed)
        out = tmp_path / f"out{place}"
        try:
            unpack(tmp_path / "changed", out)
        except SourceFormatError:
            assert not out.exists()
        else:
            # The directory of a zip has no checksum: a file of it may go, but none may change.
            values = sorted(content(out).values())
            assert values == sorted(FILES.values()) or (
                make is zipped and set(values) < set(FILES.values())
            )


def test_unpack__refuses_other_files(tmp_path: Path) -> None:
    (tmp_path / "page.tar.gz").write_bytes(b"<html>log in</html>")
    with pytest.raises(SourceFormatError, match=r"neither a \.zip nor a \.tar\.gz"):
        unpack(tmp_path / "page.tar.gz", tmp_path / "out")


def test_unpack__touches_no_folder_that_is_there(tmp_path: Path) -> None:
    archive = tarred(tmp_path / "archive", *FILES.items())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(StoreExistsError, match="exists already"):
        unpack(archive, tmp_path / "out")
    assert content(tmp_path / "out") == {"mine": b"mine"}
    bad = tarred(tmp_path / "bad", ("good", b"x"), ("../bad", b"x"))
    with pytest.raises(SourceFormatError):
        unpack(bad, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == {"mine": b"mine"}
    unpack(archive, tmp_path / "out", overwrite=True)
    assert content(tmp_path / "out") == FILES


def test_limits__refuse_what_cannot_work() -> None:
    with pytest.raises(SettingsError, match="most_files is 0; expected 1 or more"):
        Limits(most_files=0)
