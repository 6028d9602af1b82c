"""How the verbs that make maps end: corrected, written, and told in sentences."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nimare_dask.cli.options import Correct, Job, ZarrPath

#: About the memory of a process that has loaded everything and does nothing.
PROCESS_BYTES = 300_000_000

if TYPE_CHECKING:
    import xarray as xr

    from nimare_dask.parallel.plan import Plan


def correct(maps: xr.Dataset, job: Job, null: xr.Dataset | None) -> xr.Dataset:
    """Correct maps as a job asks for; `null` is that of fwe."""
    from nimare_dask.correct import correct_bonferroni, correct_fdr
    from nimare_dask.fwe import correct_fwe

    if job.correct == Correct.fwe and null is not None:
        return correct_fwe(maps, null)
    if job.correct == Correct.fdr:
        return correct_fdr(maps)
    return correct_bonferroni(maps) if job.correct == Correct.bonferroni else maps


@contextmanager
def told_where_to_go_on(*stores: ZarrPath, out: ZarrPath | None = None) -> Iterator[None]:
    """Say what is kept and how to go on, after Ctrl-C, a lost cluster or a full disk.

    Parameters
    ----------
    *stores
        Where null iterations are kept.
    out
        A result that is written as it is computed.
    """
    from nimare_dask.cli.console import say, words_given
    from nimare_dask.errors import WorkerError

    try:
        yield
    except (KeyboardInterrupt, WorkerError, OSError) as error:
        stopped = _why(error)
        kept = _kept([store for store in stores if _is_there(store)], out)
        if stopped and kept:
            say(f"{stopped}; {kept}:\n  {_again(words_given.get())}")
        raise


def _is_there(store: ZarrPath) -> bool:
    from nimare_dask.errors import StoreAccessError
    from nimare_dask.parallel.places import is_there

    try:
        return is_there(store)
    except StoreAccessError:
        return False


def _why(error: BaseException) -> str | None:
    """What has happened, as the beginning of a sentence; None for what going on does not mend."""
    from nimare_dask.errors import WorkerError
    from nimare_dask.parallel.parts import is_full

    if isinstance(error, KeyboardInterrupt):
        return "Stopped"
    if isinstance(error, WorkerError):
        return "The cluster did not finish"
    return "The disk is full" if is_full(error) else None


def _kept(stores: Sequence[ZarrPath], out: ZarrPath | None) -> str:
    """What is kept of what was done, in a sentence that goes on with the command."""
    from nimare_dask.errors import NimareDaskError
    from nimare_dask.parallel import checkpoints
    from nimare_dask.parallel.parts import left_of

    told = []
    for store in stores:
        try:
            opened = checkpoints.open_checkpoint(store)
            n_done = checkpoints.progress(opened).n_done
        except (NimareDaskError, OSError):  # a folder of stores
            told.append(f"{store} keeps the iterations that are done")
            continue
        told.append(f"{store} keeps {n_done:,} of {opened.n_iters:,} iterations")
    left = None if out is None else left_of(out)
    if left is not None:
        told.append(f"{left[0]} keeps {left[1]:,} of {left[2]:,} blocks of maps")
    what = "batches" if left is None else "blocks"
    lost = f"{what} that were at work are lost and will be done again. Go on with"
    return f"{' and '.join(told)}; {lost}" if told else ""


def _again(words: Sequence[str]) -> str:
    if "slurm-runner" in words:  # which run.sbatch adds, in the tasks of a job
        at = words.index("slurm-runner")
        return shlex.join(["sbatch", "run.sbatch", *words[: at - 1], *words[at + 1 :]])
    return shlex.join(["nimare-dask", *words]) if words else "the same command"


def refuse_to_prepare(job: Job, *, montecarlo: bool = False, main_effects: bool = False) -> None:
    """Raise SettingsError where there is not just one store of iterations to prepare."""
    from nimare_dask.errors import SettingsError

    if job.plan:
        raise SettingsError("Expected --plan or --prepare, not both.")
    if montecarlo:
        raise SettingsError(
            "--prepare is for one null; --null montecarlo makes one of uncorrected p values first. "
            "Leave --null out, or compute with --cluster."
        )
    if main_effects:
        raise SettingsError(
            "--prepare is for one null; --main-effects makes one for each group and then that of "
            "the contrast. Leave it out, or compute with --cluster."
        )
    if job.correct != Correct.fwe:
        raise SettingsError("--prepare is for null iterations, which --correct fwe makes.")


def say_plan(planned: Plan) -> None:
    """Say what a run would cost."""
    from nimare_dask.cli.console import say

    threads = planned.n_workers
    say(
        f"{planned} A worker with {threads} threads needs about "
        f"{(PROCESS_BYTES + threads * planned.task_bytes) / 1e6:,.0f} MB in all."
    )


def write_or_say(maps: xr.Dataset | None, job: Job) -> None:
    """Write the result; or say how to make it, when there are only preparations."""
    from nimare_dask.cli.batches import prepared

    if maps is None:
        prepared(job.null_store)
    else:
        write(maps, job)


def write(maps: xr.Dataset, job: Job) -> None:
    """Write the result, and images of it, and say what was found."""
    from nimare_dask.cli.console import peak_memory, say
    from nimare_dask.io.nifti import to_nifti
    from nimare_dask.io.results import save_result
    from nimare_dask.provenance import steps

    save_result(maps, job.result, overwrite=job.force)
    images = [] if job.out == job.result else to_nifti(maps, str(job.out))
    fit = next(step for step in steps(maps)[::-1] if "n_foci_outside_mask" in step)
    if fit["n_foci_outside_mask"]:
        say(
            f"{fit['n_foci_outside_mask']:,} of {fit['n_foci']:,} foci lie outside the mask "
            f"({fit['n_foci_outside_volume']:,} outside the volume); they count where their "
            "kernel reaches into it."
        )
    for sentence in _findings(maps):
        say(sentence)
    what = f"{job.result}" + (f" and {len(images)} images beside it" if images else "")
    say(f"Written: {what}; peak memory {peak_memory() / 1e9:.2f} GB.")


def _findings(maps: xr.Dataset) -> list[str]:
    """How many voxels are significant by each corrected map."""
    from nimare_dask.results import find_map, map_keys

    found = []
    for key in map_keys(maps):
        if key.name.startswith("z_") and "_corr-" in key.name:
            p = find_map(maps, key.name.replace("z_", "p_", 1))
            found.append(f"{key.name}: {int((p < 0.05).sum()):,} voxels with p < 0.05.")
    return found
