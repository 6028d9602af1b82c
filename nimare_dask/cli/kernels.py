"""The verb compile: every kernel is compiled now, and no later run waits for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

#: Commands that together use every kernel for every kind of number; F, M and S are corpora of few
#: and of many analyses, and a file of studies. Those on the cluster C get arrays that came from
#: another process and cannot be written to, for which numba compiles again.
_COMMANDS = (
    "ale F --n-iters 2 --tfce",
    "ale F --n-iters 2 --null fft --coverage gm",
    "ale F --n-iters 2 --null montecarlo",
    "ale F --n-iters 2 --stop-after 1",
    "ale F --n-iters 2 --cluster C --tfce",
    "ale M --n-iters 2 --sample-size 20 --null fft --tfce",
    "ale M --n-iters 2 --sample-size 20 --cluster C",
    "mkda F --n-iters 2 --tfce",
    "mkda F --n-iters 2 --cluster C",
    "mkda F --n-iters 2 --weighting sample_size",
    "kda F --n-iters 2 --tfce",
    "kda F --n-iters 2 --cluster C",
    "scale F --n-iters 2",
    "scale F --n-iters 2 --cluster C",
    "associate F --fdr --fwe --n-iters 2",
    "associate F",
    "associate F --fdr --fwe --n-iters 2 --cluster C",
    "associate F --cluster C",
    "contrast F --group1 000>=0.1 --n-iters 2",
    "contrast F --group1 000>=0.1 --n-iters 2 --cluster C",
    "contrast F --group1 000>=0.1 --n-iters 2 --permute foci",
    "contrast F --group1 000>=0.1 --n-iters 2 --permute foci --cluster C",
    "contrast F --group1 000>=0.1 --n-iters 2 --method ale",
    "contrast F --group1 000>=0.1 --n-iters 2 --method ale --cluster C",
    "contrast M --group1 000>=0.1 --n-iters 2 --method ale --sample-size 20",
    "coactivation F --grid 16 --fdr",
    "coactivation F --grid 16 --cluster C",
    "macm F --xyz 0 0 0 --r 60 --n-iters 2",
    "convert S",
)


def compile_kernels() -> None:
    """Compile all kernels now, by running every verb on next to nothing.

    They go where numba keeps them: $NUMBA_CACHE_DIR, else beside the package. It takes some
    minutes. An image brings its kernels this way; on a cluster, one job may do it for all others.
    """
    import tempfile
    import time

    import dask.config

    from nimare_dask.cli.console import progress, say
    from nimare_dask.parallel.clusters import cluster

    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        cluster("local", n_workers=1, say=lambda _: None) as client,
        progress("Compiling", "commands") as report,
    ):
        folder = Path(name)
        places = {**_make(folder), "C": client.scheduler.address}
        report(0, len(_COMMANDS))
        for done, command in enumerate(_COMMANDS, start=1):
            verb, source, *options = command.split()
            words = [places[source], str(folder / f"{done}.zarr")]
            # Only those on the cluster are to see its client.
            with dask.config.set(scheduler=None if "C" in options else "synchronous"):
                _run([verb, *words, *(places.get(option, option) for option in options)])
            report(done, len(_COMMANDS))
    where = os.environ.get("NUMBA_CACHE_DIR") or f"{Path(__file__).parents[1]} (beside the source)"
    say(f"Kernels are compiled after {time.monotonic() - began:.0f} s, in {where}.")


def _make(folder: Path) -> dict[str, str]:
    """The inputs of the commands, by their letters."""
    from nimare_dask.corpus import save_corpus
    from nimare_dask.io.formats import write_studies

    places = {"F": str(folder / "few.zarr"), "M": str(folder / "many.zarr")}
    save_corpus(_simulated(30), places["F"])
    save_corpus(_simulated(2_500), places["M"])
    places["S"] = str(folder / "studies.json")
    write_studies(_simulated(3), places["S"])
    return places


def _simulated(n_analyses: int) -> xr.Dataset:
    import numpy as np

    from nimare_dask.simulate import simulate_corpus

    made = simulate_corpus(
        n_analyses, n_foci=2 * n_analyses, n_features=2, effects_per_feature=1, foci_per_effect=1
    )
    sizes = np.full(n_analyses, 20, np.float32)
    return made.assign(analysis_sample_size=("analysis", sizes))


def _run(words: list[str]) -> None:
    """Run a command without its sentences.

    Raises
    ------
    SettingsError
        When it fails, with what it said.
    """
    import io
    from contextlib import redirect_stderr, redirect_stdout

    from nimare_dask.cli.app import main
    from nimare_dask.errors import SettingsError

    said = io.StringIO()
    try:
        with redirect_stderr(said), redirect_stdout(said):
            main(words)
    except SystemExit as ended:
        if ended.code:
            told = said.getvalue().strip().rpartition("\n")[2]
            raise SettingsError(
                f"Kernels could not be compiled: `nimare-dask {' '.join(words)}` says: {told}"
            ) from ended
