"""The verb run-batch, and how its iterations become maps: a job array without a scheduler."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from nimare_dask.cli.options import ZarrPath, path


def prepared(store: ZarrPath) -> None:
    """Keep in a store, of which no iteration was done yet, what makes maps of it; say what to do.

    Parameters
    ----------
    store
        What a null function made with ``compute=False``.
    """
    from nimare_dask.cli.console import say, words_given
    from nimare_dask.parallel import checkpoints

    words = [word for word in words_given.get() if word != "--prepare"]
    checkpoint = checkpoints.open_checkpoint(store)
    checkpoints.note_command(checkpoint, words, Path.cwd())
    told = shlex.quote(str(store))
    say(
        f"{store} is ready for {checkpoint.n_iters:,} iterations in {checkpoint.n_batches:,} "
        "batches. Do them by any number N of jobs, on machines that see this folder:\n"
        f"  nimare-dask run-batch {told} --task I --of N     for I from 0 to N - 1\n"
        "and then make the maps:\n"
        f"  nimare-dask merge {told}"
    )


def run_batch(
    store: Annotated[
        ZarrPath, typer.Argument(help="A store of null iterations, made by --prepare.", parser=path)
    ],
    task: Annotated[int, typer.Option(min=0, help="Which share, counted from 0.")],
    of: Annotated[int, typer.Option("--of", min=1, help="How many shares there are.")],
) -> None:
    """Do one share of the null iterations of a store, as an element of a job array.

    What is done already is not done again, so a share that failed or ran out of time is given the
    same command once more.
    """
    from nimare_dask.cli.console import peak_memory, progress, say, sentences_for_warnings
    from nimare_dask.errors import SettingsError
    from nimare_dask.nulls.stored import run_batches

    if task >= of:
        raise SettingsError(
            f"--task is {task}, and there are {of} shares (--of); expected 0 to {of - 1}."
        )
    with sentences_for_warnings(), progress("Null", "iterations") as report:
        done = run_batches(store, task=task, of=of, report=report)
    say(
        f"Share {task} of {of} is done: {done:,} iterations now; peak memory "
        f"{peak_memory() / 1e9:.2f} GB."
    )


def finish(store: ZarrPath) -> None:
    """Make the maps of a store whose iterations are all done, by the command that prepared it.

    Raises
    ------
    SchemaError
        When iterations are missing, or the store was made by no command.
    """
    from nimare_dask.cli.app import main
    from nimare_dask.cli.console import say
    from nimare_dask.errors import SchemaError
    from nimare_dask.parallel import checkpoints

    checkpoint = checkpoints.open_checkpoint(store)
    found = checkpoints.progress(checkpoint)
    if found.n_done < checkpoint.n_iters:
        torn = f" ({found.n_torn:,} batches are torn)" if found.n_torn else ""
        raise SchemaError(
            f"{store} holds {found.n_done:,} of {checkpoint.n_iters:,} iterations{torn}; give the "
            "jobs of its array again, those that are done end at once, and then merge."
        )
    kept: dict[str, Any] | None = checkpoint.facts.get("command")
    if kept is None:
        raise SchemaError(
            f"{store} has all {checkpoint.n_iters:,} iterations, but was not made by a command "
            "with --prepare; run the script or the command that made it again, which will find "
            "them."
        )
    say(f"All {checkpoint.n_iters:,} iterations are there: nimare-dask {shlex.join(kept['words'])}")
    before = Path.cwd()
    # All that a store at an address was made from may be at addresses, so any folder will do.
    if Path(kept["folder"]).is_dir() or isinstance(store, Path):
        os.chdir(kept["folder"])
    try:
        main(kept["words"])
    finally:
        os.chdir(before)
