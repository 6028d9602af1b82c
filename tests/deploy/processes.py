"""Programs of a manifest or an image as processes of this machine, which end with the test."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
from scipy.sparse import csc_matrix

import nimare_dask as nd
from nimare_dask import corpus as nd_corpus
from nimare_dask.space import load_space, voxel_to_mm
from tests.planted import assert_same_maps

#: Seconds after which something that should have happened has not.
HANGS = 240.0


def make_corpus() -> xr.Dataset:
    """Fourteen analyses of six foci, of which ten are about pain."""
    space, random = load_space("mni152_2mm"), np.random.default_rng(4)
    n, each = 14, 6
    xyz = voxel_to_mm(space.voxel_ijk, space.affine)[random.integers(space.n_voxels, size=n * each)]
    ids = [f"study{number:02}" for number in range(n)]
    return nd_corpus.build(
        analysis_id=[f"{name}-1" for name in ids],
        study_id=ids,
        n_foci=[each] * n,
        xyz=np.round(xyz),
        focus_space=np.zeros(n * each, np.int8),
        spaces=["MNI"],
        feature=["terms__pain"],
        weights=csc_matrix(np.where(np.arange(n) < 10, 0.5, 0.0)[:, None]),
    )


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nothing listens at."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def answer(port: int, path: str) -> str | None:
    """What a server of this machine answers with success, None otherwise."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as got:
            return str(got.read().decode())
    except OSError:
        return None


def wait_for(what: str, seen: Callable[[], bool], seconds: float = HANGS) -> None:
    """Look until it is seen."""
    until = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


@dataclass
class Processes:
    """Processes of a test, each with its output in a file."""

    folder: Path
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    #: What programs are started by.
    prefix: tuple[str, ...] = ()

    def start(
        self, words: Sequence[str], env: Mapping[str, str], *, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        log = self.folder / f"{len(self.started):02}-{Path(words[0]).name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*self.prefix, *words],
                env=dict(env),
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.started.append(process)
        return process

    def run(self, words: Sequence[str], env: Mapping[str, str], *, cwd: Path | None = None) -> str:
        """Run to a good end; gives what was said."""
        process = self.start(words, env, cwd=cwd)
        code = process.wait(timeout=2 * HANGS)
        assert code == 0, f"{' '.join(words)} ended with {code}\n{self.said(process)}"
        return self.said(process)

    def said(self, process: subprocess.Popen[bytes]) -> str:
        """Output so far."""
        number = self.started.index(process)
        (log,) = self.folder.glob(f"{number:02}-*.log")
        return log.read_text(errors="replace")

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """End a process and its children, whatever state they are in."""
        try:
            family = [*psutil.Process(process.pid).children(recursive=True), process]
        except psutil.NoSuchProcess:
            family = [process]
        for member in family:
            try:
                member.kill()
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        process.wait(timeout=30)


@contextmanager
def processes(folder: Path, *, prefix: tuple[str, ...] = ()) -> Iterator[Processes]:
    """Processes that end with the block, and what they said when it ends badly."""
    made = Processes(folder, prefix=prefix)
    try:
        yield made
    except BaseException:
        for process in made.started:
            print(f"--- {process.args}\n{made.said(process)[-3000:]}")
        raise
    finally:
        for process in made.started[::-1]:
            made.end(process)


def assert_same_result(found: Path, expected: Path) -> None:
    """The maps of two results, bit by bit."""
    one, other = (nd.open_result(path).compute() for path in (found, expected))
    assert "z_fwe" in other
    assert_same_maps(one, other)


def path_of(*folders: Path) -> str:
    """A PATH that begins with some folders."""
    return os.pathsep.join([*map(str, folders), "/usr/local/bin", "/usr/bin", "/bin"])
