"""Going on with a null: more iterations, or opening the store of one that is done."""

from __future__ import annotations

from collections.abc import Callable

import xarray as xr

from nimare_dask._version import __version__
from nimare_dask.errors import SchemaError, SettingsError, StoreExistsError
from nimare_dask.nulls import (
    label_counts,
    mean_difference,
    redraw,
    relocation,
    subsets,
    subtraction,
)
from nimare_dask.nulls.iterate import checkpoint_of, iterate, run_missing, stopping_point
from nimare_dask.nulls.jobs import Batch, Job, n_maxima
from nimare_dask.nulls.scheme import is_whole
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.places import AnyPath, place

#: How each kind of job is made again from what a null keeps of it.
_JOBS: dict[str, Callable[[xr.Dataset], Job]] = {
    "relocation": relocation.from_dataset,
    "label counts": label_counts.from_dataset,
    "redraw": redraw.from_dataset,
    "subtraction": subtraction.from_dataset,
    "surviving": subsets.Surviving.from_dataset,
    "mean difference": mean_difference.MeanDifference.from_dataset,
}


def job_of(null: xr.Dataset) -> Job:
    """The job that made a null."""
    kind = null.attrs.get("job")
    if kind not in _JOBS or "null_max" not in null:
        raise SchemaError(
            "null has no null_max (iteration, inference); make it with monte_carlo_null(), "
            "label_permutation_null(), random_foci_null() or feature_null()."
        )
    return _JOBS[kind](null)


def extend_null(null: xr.Dataset, n_iters: int, *, report: Report | None = None) -> xr.Dataset:
    """Go on to more iterations; the result equals one run of that many.

    Parameters
    ----------
    null
        What :func:`monte_carlo_null`, another function of that kind or :func:`open_null` gave. Its
        store, when it has one, grows.
    n_iters
        Iterations in all.
    report
        Called with the number of iterations that are done and of all.

    Returns
    -------
    null
        As that which was given, of `n_iters` iterations.

    Raises
    ------
    SettingsError
        When there are more iterations already, or the null was stopped early.
    WorkerError
        When a cluster is lost; the store keeps what was done.
    """
    done = null.sizes["iteration"]
    if not is_whole(n_iters):
        raise SettingsError(f"n_iters is {n_iters!r}; expected a whole number.")
    n_iters = int(n_iters)
    if n_iters < done:
        raise SettingsError(f"n_iters is {n_iters:,}, and the null has {done:,} already.")
    facts = dict(null.attrs["run"])
    if facts["stop_after"] is not None:
        raise SettingsError(
            f"The null was stopped early by stop_after={facts['stop_after']}; to have more "
            "iterations, make it without stop_after (a store keeps those that are done)."
        )
    job = job_of(null)
    if isinstance(job, subsets.Surviving) and job.subsets is not None and n_iters > done:
        raise SettingsError(
            f"n_iters is {n_iters:,}, and there is one iteration for each of {done:,} subsets; fit "
            "again with more n_subsamples and another store."
        )
    if null.attrs.get("store"):
        checkpoint = checkpoint_of(
            place(null.attrs["store"]), job, facts, n_iters=n_iters, batch=null.attrs["batch"]
        )
        return iterate(
            job,
            facts,
            n_iters=n_iters,
            batch=checkpoint.batch,
            checkpoint=checkpoint,
            report=report,
        )
    before = Batch(
        maxima=null["null_max"].values.reshape(done, n_maxima(job)),
        sums={name: null[name].values for name in job.lengths},
    )
    batch = int(null.attrs["batch"])
    return iterate(job, facts, n_iters=n_iters, batch=batch, before=before, report=report)


def run_batches(
    store: str | AnyPath, *, task: int = 0, of: int = 1, report: Report | None = None
) -> int:
    """Do one of several shares of the iterations that a store lacks.

    Shares can be done at the same time by programs that know nothing of each other, such as the
    elements of a job array. A share that is done, in part or whole, is not done again.

    Parameters
    ----------
    store
        What ``monte_carlo_null(..., store=..., compute=False)`` or another function of that kind
        made.
    task, of
        Which share, counted from 0, of how many.
    report
        Called with the number of iterations of the share that are done and of all.

    Returns
    -------
    n_iters
        Iterations that were done now.

    Raises
    ------
    SettingsError
        When there is no such share.
    StoreExistsError
        When the store was made by another version.
    SourceFormatError
        When it is no store of a null.
    WorkerError
        When a cluster is lost; the store keeps what was done.

    Notes
    -----
    A batch is written as whole files, each by a rename or one put, and is the same whoever does it,
    so even two programs that do the same share leave what one leaves.
    """
    if not (is_whole(task) and is_whole(of) and 0 <= task < of):
        raise SettingsError(f"Task {task} of {of} is none; expected 0 to {of} - 1.")
    checkpoint = checkpoints.open_checkpoint(place(store))
    made_by = checkpoint.fingerprint["version"]
    if made_by != __version__:
        raise StoreExistsError(
            f"{store} was made by nimare_dask {made_by}, and this is {__version__}; use that "
            "version, or make the store again."
        )
    inputs = checkpoints.read_inputs(checkpoint)
    job = _JOBS[inputs.attrs["job"]](inputs)
    mine = list(range(int(task), checkpoint.n_batches, int(of)))
    return run_missing(job, checkpoint, mine, report=report)


def open_null(path: str | AnyPath) -> xr.Dataset:
    """Open the store of a null whose iterations are all done.

    Returns
    -------
    null
        What the function that made the store returned.

    Raises
    ------
    SourceFormatError
        When it is no store of a null.
    SchemaError
        When iterations are missing.
    """
    checkpoint = checkpoints.open_checkpoint(place(path))
    found = checkpoints.progress(checkpoint)
    facts, n_iters = dict(checkpoint.facts["run"]), checkpoint.n_iters
    stop = stopping_point(checkpoint, facts)
    if found.n_done == n_iters:
        facts["stop_after"] = None
    elif stop is not None:
        n_iters = stop
    else:
        raise SchemaError(
            f"{path} holds {found.n_done:,} of {n_iters:,} iterations; run the command or the "
            "script that made it again to compute the rest."
        )
    job = _JOBS[checkpoints.read_inputs(checkpoint).attrs["job"]](
        checkpoints.read_inputs(checkpoint)
    )
    return iterate(
        job,
        facts,
        n_iters=n_iters,
        batch=checkpoint.batch,
        checkpoint=checkpoint,
        look_for_stop=False,
    )
