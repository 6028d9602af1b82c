"""How the verbs that make maps end: corrected, written, and told in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nimare_dask.cli.options import Correct, Job

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
def told_where_to_go_on(*stores: Path) -> Iterator[None]:
    """Say after Ctrl-C that the first of some stores keeps what is done, when one is there."""
    from nimare_dask.cli.console import say

    try:
        yield
    except KeyboardInterrupt:
        if any(store.exists() for store in stores):
            say(
                f"Stopped; {stores[0]} keeps the iterations that are done. Run the same command "
                "again to go on."
            )
        raise


def say_plan(planned: Plan) -> None:
    """Say what a run would cost."""
    from nimare_dask.cli.console import say

    threads = planned.n_workers
    say(
        f"{planned} A worker with {threads} threads needs about "
        f"{(PROCESS_BYTES + threads * planned.task_bytes) / 1e6:,.0f} MB in all."
    )


def write(maps: xr.Dataset, job: Job) -> None:
    """Write the result, and images of it, and say what was found."""
    from nimare_dask.cli.console import peak_memory, say
    from nimare_dask.io.nifti import to_nifti
    from nimare_dask.io.results import save_result
    from nimare_dask.provenance import steps

    save_result(maps, job.result, overwrite=job.force)
    images = [] if job.out == job.result else to_nifti(maps, job.out)
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
