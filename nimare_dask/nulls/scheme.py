"""What every null scheme does: check what is asked, find a seed, run with or without a store."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.random import SeedSequence

from nimare_dask.errors import SettingsError
from nimare_dask.nulls.cost import batch_size
from nimare_dask.nulls.iterate import checkpoint_of, iterate, null_without_iterations
from nimare_dask.nulls.jobs import Job
from nimare_dask.parallel import checkpoints
from nimare_dask.parallel.execute import Report
from nimare_dask.parallel.places import AnyPath, is_there, place


def is_whole(number: Any) -> bool:
    """Whether it is a whole number of any type; True and False are none."""
    if isinstance(number, bool) or not isinstance(number, Real):
        return False
    return isinstance(number, Integral) or float(number).is_integer()


def check_asked(
    *,
    n_iters: int,
    voxel_thresh: float | None,
    random_state: int | None,
    batch: int | None = None,
    stop_after: int | None = None,
    coverage: str = "brain",
    purpose: str = "null",
) -> None:
    """Raise SettingsError for what cannot be."""
    for name, count in (("n_iters", n_iters), ("batch", batch), ("stop_after", stop_after)):
        if count is not None and not (is_whole(count) and count >= 1):
            raise SettingsError(f"{name} is {count!r}; expected a whole number of at least 1.")
    if random_state is not None and not (is_whole(random_state) and random_state >= 0):
        raise SettingsError(
            f"random_state is {random_state!r}; expected a whole number of at least 0, or None."
        )
    number = isinstance(voxel_thresh, Real)
    if voxel_thresh is not None and not (number and 0 < voxel_thresh < 1):
        raise SettingsError(f"voxel_thresh is {voxel_thresh!r}; expected a p value.")
    if purpose not in ("null", "fit"):
        raise SettingsError(f"purpose is {purpose!r}; expected 'null' or 'fit'.")
    if coverage not in ("brain", "gm"):
        raise SettingsError(f"coverage is {coverage!r}; expected 'brain' or 'gm'.")


def seed_of(random_state: int | None, store: str | AnyPath | None) -> int:
    """The seed that is asked for; else that of a store that is there; else a new one."""
    if random_state is not None:
        return int(random_state)
    if store is not None and is_there(place(store)):
        return int(checkpoints.open_checkpoint(place(store)).fingerprint["random_state"])
    drawn = SeedSequence().generate_state(1, np.uint64)[0]
    return int(drawn >> np.uint64(11))  # 53 bits, which JSON holds


def _batch_of(store: str | AnyPath | None) -> int | None:
    """Iterations of a batch in a store that is there."""
    there = store is not None and is_there(place(store))
    return checkpoints.open_checkpoint(place(store or "")).batch if there else None


def run(
    job: Job,
    facts: Mapping[str, Any],
    *,
    n_iters: int,
    batch: int | None,
    store: str | AnyPath | None,
    report: Report | None,
    compute: bool = True,
) -> xr.Dataset:
    """Do all iterations of a job, or those that its store lacks; without `compute` make the store.

    Raises
    ------
    SettingsError
        When nothing is to be computed and there is no store.
    """
    if store is None and not compute:
        raise SettingsError("compute=False makes a store of iterations; say where (store=).")
    n_iters = int(n_iters)
    batch = int(batch or _batch_of(store) or batch_size(job, n_iters))
    if store is None:
        return iterate(job, facts, n_iters=n_iters, batch=batch, report=report)
    checkpoint = checkpoint_of(place(store), job, facts, n_iters=n_iters, batch=batch)
    if not compute:
        return null_without_iterations(job, facts, checkpoint)
    return iterate(job, facts, n_iters=n_iters, batch=batch, checkpoint=checkpoint, report=report)
