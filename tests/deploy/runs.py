"""Runs of `nimare-dask` on a cluster that loses something, and what must hold afterwards."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

import nimare_dask as nd
from nimare_dask.nulls import scheme
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.parts import left_of
from tests import command
from tests.builders import coarse_space
from tests.deploy.losing import MAPS, NULL, Outcome
from tests.deploy.started import Cluster, Command, until
from tests.null_runs import assert_same_null, names_in, threads

#: What the tasks are called that do a batch of iterations, and a block of maps.
TASKS = {NULL: "_run_batch", MAPS: "_write_block"}

#: Iterations of a run, and of a batch: about half a second.
N_ITERS, BATCH = 1600, 80

#: Seconds that a block of maps takes longer to write, so that some are at work when it matters.
SLOW = 0.08

#: How long what was done may be on its way to the store.
ON_ITS_WAY = 0.3


@dataclass(frozen=True)
class Files:
    """A corpus, a mask, and the results of undisturbed runs in one process."""

    folder: Path

    @property
    def corpus(self) -> Path:
        """The corpus."""
        return self.folder / "corpus.zarr"

    def words(self, work: str, out: Path) -> list[str]:
        """The command of a run of some seconds, in at least ten batches or blocks."""
        mask = ["--mask", str(self.folder / "mask.nii.gz")]
        if work == NULL:
            told = ["--n-iters", str(N_ITERS), "--seed", "11", *mask]
            return ["mkda", str(self.corpus), str(out), *told]
        told = ["--threshold", "0.01", "--effect", "association"]
        return ["associate", str(self.corpus), str(out / "result.zarr"), *told]

    def begin(self, out: Path) -> None:
        """Make the store of a run of null iterations, with batches that are the same each time."""
        made = self.folder / "begun"
        if not made.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(scheme, "batch_size", lambda *_: BATCH)
                command.run(*self.words(NULL, made), "--prepare")
        shutil.copytree(made / "null.zarr", out / "null.zarr")

    def expected(self, work: str) -> Path:
        """The folder of the undisturbed result."""
        out = self.folder / work.replace(" ", "-")
        if not out.exists():
            with threads(2):
                said = command.run(*self.words(work, out)).stderr
            if work == MAPS:
                found = re.search(r"Computing: (\d+) of \1 blocks", said)
                assert found is not None
                (out / "blocks").write_text(found[1])
        return out


def make_files(folder: Path) -> Files:
    """Simulate a corpus of 200 analyses."""
    space = coarse_space()
    made = nd.simulate_corpus(
        200, n_foci=6000, n_features=40, effects_per_feature=1, space=space, random_state=3
    )
    nd.save_corpus(made, folder / "corpus.zarr")
    command.write_mask(space, folder / "mask.nii.gz")
    return Files(folder)


@dataclass
class Run:
    """A run on a cluster.

    Attributes
    ----------
    situation, work
        A key of `SITUATIONS`.
    cluster, files
        Where, and of what.
    out
        The folder of its result.
    driver
        Its process.
    at
        When something was lost, in seconds since 1970.
    kept
        Batches or blocks that were kept when it stopped.
    """

    situation: str
    work: str
    cluster: Cluster
    files: Files
    out: Path
    driver: Command
    at: float
    kept: int = 0

    @property
    def task(self) -> str:
        """What its batches or blocks are called."""
        return TASKS[self.work]

    @property
    def store(self) -> Path:
        """Its null iterations."""
        return self.out / "null.zarr"

    def ended(self, worker: str | None = None, *, since: float = 0.0) -> int:
        """Batches or blocks that workers have done."""
        lines = self.cluster.lines("ended", worker=worker)
        return sum(line.key.startswith(self.task) and line.time > since for line in lines)

    def done(self, count: int) -> None:
        """Wait until so many batches or blocks are done and kept, and others are at work."""

        def kept() -> bool:
            ended = self.ended()
            return self._gone() or (ended >= count and self._kept() >= ended)

        until(kept, f"{count} batches are kept")
        self.at = time.time()

    def _kept(self) -> int:
        """About how many batches or blocks are kept, without reading them."""
        if self.work == MAPS:
            return self._blocks_kept()
        return sum(path.is_file() for path in (self.store / "log" / "c").rglob("*"))

    def _on_their_way(self) -> int:
        """Batches that had just been done when something was lost, and may not have been kept."""
        ended = [line for line in self.cluster.lines("ended") if line.key.startswith(self.task)]
        return sum(0 <= self.at - line.time < ON_ITS_WAY for line in ended)

    def _gone(self) -> bool:
        code = self.driver.process.poll()
        assert code is None, f"exit {code}\n{self.driver.said}"
        return False

    def finished(self, *, most: int, happened: str, seen: str = "progress goes on") -> Outcome:
        """It goes on to the end, with the right result and at most so many batches lost."""
        self.driver.end()
        self.check()
        begun = self.cluster.begun(self.task)
        lost = begun.total() - self.in_all()
        more = self._on_their_way() if most else 0
        assert lost <= most + more, f"{lost} of {self.in_all()} were done again"
        pause = self.cluster.longest_pause(self.task, self.at)
        return Outcome(self.situation, self.work, happened, pause, lost, self.in_all(), seen)

    def stopped(self, happened: str, *, code: int = 1, seen: str = "") -> Outcome:
        """It stops, with nothing half-written, and then goes on to the right result."""
        self.driver.end(code)
        took = time.time() - self.at
        self.kept = self.is_whole()
        lines = [line for line in self.cluster.lines() if line.key.startswith(self.task)]
        begun = sum(line.what == "begun" and line.time <= self.at for line in lines)
        lost = max(0, begun - self.kept)
        assert lost <= 2 + self._on_their_way(), f"{lost} of {self.in_all()} were lost"
        if code == 1:
            assert "Traceback" not in self.driver.said, self.driver.said
            assert self.driver.said.splitlines()[-1] == self.driver.error
            seen = seen or self.driver.error.removeprefix("Error: ")
            seen = re.sub(
                r"127\.0\.0\.1:\d+", "10.0.0.2:40001", seen.replace(f"{self.out}/", "pain/")
            )
        return Outcome(self.situation, self.work, happened, took, lost, self.in_all(), seen)

    def is_whole(self) -> int:
        """Hold that there is no result and no torn batch; give what is kept."""
        seen = [name for name in names_in(self.out) if not name.startswith(".")]
        if self.work == MAPS:
            assert seen == []
            return self._blocks_kept()
        assert seen == ["null.zarr"]
        found = checkpoints.progress(checkpoints.open_checkpoint(self.store))
        assert found.n_torn == 0
        return len(found.done)

    def _blocks_kept(self) -> int:
        left = left_of(self.out / "result.zarr")
        return 0 if left is None else left[1]

    def go_on(self, words: Sequence[str] | None = None) -> None:
        """Give the command that was told, or that of before, on this machine alone."""
        given = list(words or self.files.words(self.work, self.out))
        for option in ("--cluster", "--cluster-config"):
            if option in given:
                place = given.index(option)
                del given[place : place + 2]
        there = names_in(self.out)
        with threads(2):
            said = command.run(*given).stderr
        told = f"{self.kept} kept in {there}, then {names_in(self.out)}\n{said}"
        assert ("were done before" in said) == (self.kept > 0), told
        self.check()

    def check(self) -> None:
        """The result is that of the undisturbed run, to the bit, and nothing else is left."""
        expected = self.files.expected(self.work)
        assert_same_maps(self.out / "result.zarr", expected / "result.zarr")
        left = [path.name for path in self.out.rglob("*.part*")]
        assert left == [], "something half-written was left"
        if self.work == NULL:
            found = checkpoints.progress(checkpoints.open_checkpoint(self.store))
            assert found.n_torn == 0 and found.n_done == N_ITERS
            assert_same_null(nd.open_null(self.store), nd.open_null(expected / "null.zarr"))

    def in_all(self) -> int:
        """Batches or blocks of the whole run."""
        if self.work == NULL:
            return checkpoints.open_checkpoint(self.store).n_batches
        return int((self.files.expected(MAPS) / "blocks").read_text())


def assert_same_maps(found: Path, expected: Path) -> None:
    """Every variable, bit by bit."""
    one, other = nd.open_result(found), nd.open_result(expected)
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        a, b = one[name].values, other[name].values
        assert a.dtype == b.dtype
        if a.dtype.kind == "f":
            a, b = a.view(f"i{a.itemsize}"), b.view(f"i{b.itemsize}")
        assert_array_equal(a, b, err_msg=str(name))


def begin(
    situation: str,
    work: str,
    cluster: Cluster,
    files: Files,
    *,
    prefix: Sequence[str] = (),
    out: Path | None = None,
) -> Run:
    """Start a run on a cluster whose workers are there."""
    out = out or Path(tempfile.mkdtemp(prefix="out", dir=cluster.folder))
    out.mkdir(exist_ok=True)
    if work == NULL:
        files.begin(out)
    driver = cluster.run(files.words(work, out), prefix=prefix)
    return Run(situation, work, cluster, files, out, driver, time.time())


def started_on_two(work: str, situation: str, cluster: Cluster, files: Files, *, done: int) -> Run:
    """A run on two workers, of which so many batches or blocks are done."""
    if "one" not in cluster.commands:
        cluster.workers("one", "two")
    run = begin(situation, work, cluster, files)
    run.done(done)
    return run
