"""Running null iterations: what is missing, batch by batch, with or without a store."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import schema
from nimare_dask._version import __version__
from nimare_dask.errors import CorpusWarning, SourceFormatError
from nimare_dask.nulls.jobs import Batch, Job, n_maxima
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.checkpoints import Checkpoint, inputs_digest
from nimare_dask.parallel.execute import Report, expected_workers
from nimare_dask.parallel.iterations import map_iterations
from nimare_dask.parallel.places import AnyPath, is_there
from nimare_dask.provenance import plain, with_step

#: First iteration of each batch and the one after its last, by number.
Spans = Mapping[int, tuple[int, int]]


def checkpoint_of(
    path: AnyPath, job: Job, facts: Mapping[str, Any], *, n_iters: int, batch: int
) -> Checkpoint:
    """Open the store of a run, or make it.

    Raises
    ------
    StoreExistsError
        When it is there and of another run.
    """
    mark = _fingerprint(job, facts)
    if is_there(path):
        found = checkpoints.open_checkpoint(path)
        checkpoints.refuse_other(found, mark)
        return checkpoints.grow(found, n_iters)
    return checkpoints.create(
        path,
        inputs=job.to_dataset(),
        fingerprint=mark,
        facts={"run": dict(facts)},
        n_iters=n_iters,
        batch=batch,
        n_maxima=n_maxima(job),
        lengths=job.lengths,
    )


def _fingerprint(job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the bits of the iterations depend on, so that people can read what differs."""
    digests = facts["facts"]["corpus_digests"]
    names = ["corpus"] if len(digests) == 1 else ["group 1", "group 2"]
    mark = {
        **facts["settings"],
        "random_state": job.random_state,
        "step": job.step,
        **facts["told"],
        **job.facts(),
        **dict(zip(names, digests, strict=True)),
        "mask": facts["space_digest"],
        "inputs": inputs_digest(job.to_dataset()),
        "version": __version__,
    }
    return dict(plain(mark))


def iterate(
    job: Job,
    facts: Mapping[str, Any],
    *,
    n_iters: int,
    batch: int,
    checkpoint: Checkpoint | None = None,
    before: Batch | None = None,
    report: Report | None = None,
    look_for_stop: bool = True,
) -> xr.Dataset:
    """Do the iterations that are missing, and put all of them together as a null."""
    if checkpoint is not None:
        batch = checkpoint.batch
    first = 0 if before is None else len(before.maxima)
    spans = {
        number: (start, min(start + batch, n_iters))
        for number, start in enumerate(range(first, n_iters, batch))
    }
    collected = _Collected(job, n_iters)
    if before is not None:
        collected.add(0, before)
    runner = _Runner(job, spans, checkpoint, report, n_iters)
    try:
        if facts["stop_after"] is None or not look_for_stop:
            runner.run(list(spans), collected)
        else:
            _stop_early(runner, collected, facts)
    except Exception as error:
        if checkpoint is not None:
            checkpoints.note_failure(checkpoint, error)
        raise
    return _null_dataset(job, facts, collected, batch, checkpoint)


class _Collected:
    """Batches as they come in: maxima by iteration, sums of everything else."""

    def __init__(self, job: Job, n_iters: int) -> None:
        self.maxima = np.full((n_iters, n_maxima(job)), np.nan)
        self.sums = {name: np.zeros(length, np.int64) for name, length in job.lengths.items()}

    def add(self, start: int, batch: Batch) -> None:
        self.maxima[start : start + len(batch.maxima)] = batch.maxima
        for name, values in batch.sums.items():
            self.sums[name] += values


class _Runner:
    """Takes batches from the store, or computes them and puts them there."""

    def __init__(
        self,
        job: Job,
        spans: Spans,
        checkpoint: Checkpoint | None,
        report: Report | None,
        n_iters: int,
    ) -> None:
        self.job, self.spans, self.checkpoint = job, spans, checkpoint
        self.report, self.n_iters = report, n_iters
        self.n_done = n_iters - sum(stop - start for start, stop in spans.values())
        self.counted: frozenset[int] = frozenset()

    def run(self, numbers: list[int], collected: _Collected) -> None:
        """Add batches to what is collected, in any order."""

        def take(number: int, result: tuple[Batch, float]) -> None:
            done, seconds = result
            collected.add(self.spans[number][0], done)
            if self._is_stored(number) and self.checkpoint is not None:
                checkpoints.write_batch(self.checkpoint, number, done.maxima, done.sums, seconds)
            self._count(len(done.maxima))

        missing = self._read(numbers, collected)
        self._count(0)
        if missing:
            map_iterations(_run_batch, (self.job, dict(self.spans)), missing, take)

    def count_stored(self) -> None:
        """Report all that the store holds before anything is computed, whenever it is read."""
        if self.checkpoint is None or self.report is None:
            return
        whole = checkpoints.progress(self.checkpoint).done
        self.counted = frozenset(filter(self._is_stored, self.spans.keys() & set(whole)))
        self._count(sum(stop - start for start, stop in map(self.spans.__getitem__, self.counted)))

    def _count(self, n: int) -> None:
        self.n_done += n
        if self.report:
            self.report(self.n_done, self.n_iters)

    def _is_stored(self, number: int) -> bool:
        """Whether the store has just this batch; a run may end within one of a longer run's."""
        return self.checkpoint is not None and self.checkpoint.span(number) == self.spans[number]

    def _read(self, numbers: list[int], collected: _Collected) -> list[int]:
        """Add what the store holds; give the batches that it does not."""
        if self.checkpoint is None:
            return numbers
        stored = list(filter(self._is_stored, numbers))
        missing, n_torn = sorted(set(numbers) - set(stored)), 0
        for number, found in checkpoints.read_batches(self.checkpoint, stored):
            if found is None or isinstance(found, SourceFormatError):
                n_torn += found is not None
                missing.append(number)
                continue
            maxima, sums, _ = found
            collected.add(self.spans[number][0], Batch(maxima=maxima, sums=sums))
            if number not in self.counted:
                self.n_done += len(maxima)
        if n_torn:
            warnings.warn(
                f"Batches of {self.checkpoint.path} that are torn, and are computed again: "
                f"{n_torn:,}.",
                CorpusWarning,
                stacklevel=_outside(),
            )
        return sorted(missing)


def _outside() -> int:
    """How many calls up the caller of this package is, for warnings."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals["__name__"].startswith("nimare_dask."):
        frame, level = frame.f_back, level + 1
    return level


def _run_batch(shared: tuple[Job, Spans], number: int) -> tuple[Batch, float]:
    job, spans = shared
    began = time.perf_counter()
    return job.run(*spans[number]), time.perf_counter() - began


def _stop_early(runner: _Runner, collected: _Collected, facts: Mapping[str, Any]) -> None:
    """Add batches in order, and stop at the iteration by which every inference is reached enough.

    Some batches run at a time. What they did after that iteration is left out, so the result is
    that of a run of just so many iterations, whatever the batches.
    """
    runner.count_stored()
    job, observed = runner.job, np.array(facts["observed_max"])
    reached = np.zeros(len(observed), np.int64)
    numbers, at_once = list(runner.spans), 2 * expected_workers()
    for at in range(0, len(numbers), at_once):
        some = numbers[at : at + at_once]
        first, last = runner.spans[some[0]][0], runner.spans[some[-1]][1]
        here = _Collected(job, last)
        runner.run(some, here)
        counts = reached + np.cumsum(here.maxima[first:last] >= observed, axis=0)
        enough = np.flatnonzero((counts >= facts["stop_after"]).all(axis=1))
        if enough.size:
            stop = first + int(enough[0]) + 1
            collected.add(first, job.run(first, stop))
            collected.maxima = collected.maxima[:stop]
            return
        reached = counts[-1]
        collected.add(first, Batch(maxima=here.maxima[first:last], sums=here.sums))


def stopping_point(checkpoint: Checkpoint, facts: Mapping[str, Any]) -> int | None:
    """Iterations after which a run stopped early, from its store alone; None when it did not."""
    if facts["stop_after"] is None:
        return None
    reached: Any = 0
    for number in range(checkpoint.n_batches):
        try:
            found = checkpoints.read_batch(checkpoint, number)
        except SourceFormatError:
            return None
        if found is None:
            return None
        counts = reached + np.cumsum(found[0] >= np.array(facts["observed_max"]), axis=0)
        enough = np.flatnonzero((counts >= facts["stop_after"]).all(axis=1))
        if enough.size:
            return checkpoint.span(number)[0] + int(enough[0]) + 1
        reached = counts[-1]
    return None


def null_without_iterations(
    job: Job, facts: Mapping[str, Any], checkpoint: Checkpoint
) -> xr.Dataset:
    """What a null is before its first iteration."""
    return _null_dataset(job, facts, _Collected(job, 0), checkpoint.batch, checkpoint)


def run_missing(
    job: Job, checkpoint: Checkpoint, numbers: list[int], *, report: Report | None = None
) -> int:
    """Do those of some batches that a store lacks, keep them there only; give their iterations."""
    there = {
        number
        for number, found in checkpoints.read_batches(checkpoint, numbers)
        if found is not None and not isinstance(found, SourceFormatError)
    }
    spans = {number: checkpoint.span(number) for number in numbers}
    sizes = {number: stop - start for number, (start, stop) in spans.items()}
    before, done = sum(sizes[number] for number in there & sizes.keys()), 0

    def take(number: int, result: tuple[Batch, float]) -> None:
        nonlocal done
        batch, seconds = result
        checkpoints.write_batch(checkpoint, number, batch.maxima, batch.sums, seconds)
        done += sizes[number]
        if report:
            report(before + done, sum(sizes.values()))

    if report:
        report(before, sum(sizes.values()))
    missing = [number for number in numbers if number not in there]
    if missing:
        try:
            map_iterations(_run_batch, (job, spans), missing, take)
        except Exception as error:
            checkpoints.note_failure(checkpoint, error)
            raise
    return done


def _null_dataset(
    job: Job,
    facts: Mapping[str, Any],
    collected: _Collected,
    batch: int,
    checkpoint: Checkpoint | None,
) -> xr.Dataset:
    shape = [len(labels) for labels in job.labels.values()]
    null = job.to_dataset()
    null = null.assign(
        {
            "null_max": (("iteration", *job.labels), collected.maxima.reshape(-1, *shape)),
            **{name: (schema.VARIABLES[name].dims, sum_) for name, sum_ in collected.sums.items()},
        }
    )
    null = null.assign_coords(
        {dim: (dim, _as_labels(values)) for dim, values in job.labels.items()}
    )
    n_iters = len(collected.maxima)
    told = {
        "n_iters": n_iters,
        "random_state": job.random_state,
        **facts["told"],
        **job.facts(),
    }
    null.attrs |= {
        **told,
        "kind": schema.NULL_KIND,
        "run": dict(facts),
        "space_digest": facts["space_digest"],
        "batch": batch,
        "store": None if checkpoint is None else str(checkpoint.path),
        "provenance": facts["corpus_provenance"],
    }
    settings = {
        **facts["settings"],
        **told,
        "stop_after": facts["stop_after"],
        "connectivity": "faces",
    }
    return with_step(schema.describe(null), facts["scheme"], settings=settings, **facts["facts"])


def _as_labels(values: list[Any]) -> NDArray[Any]:
    text = bool(values) and isinstance(values[0], str)
    return np.array(values, dtype=np.dtypes.StringDType() if text else np.int64)
