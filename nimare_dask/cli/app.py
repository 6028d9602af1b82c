"""The command line: ``nimare-dask VERB ...``.

Exit codes: 0 done; 1 an error that a person can mend, in one sentence; 2 wrong usage; 130 Ctrl-C.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from nimare_dask._version import __version__
from nimare_dask.cli import (
    associate,
    batches,
    coactivation,
    console,
    contrast,
    corpora,
    demo,
    export,
    kernels,
    macm,
    meta,
    neurostore,
    status,
    studies,
)
from nimare_dask.errors import NimareDaskError
from nimare_dask.parallel.places import reaching

app = typer.Typer(
    name="nimare-dask",
    help="Meta-analysis of the neuroimaging literature, from a laptop to a cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(corpora.importers, name="import")
app.add_typer(neurostore.neurostore, name="neurostore")
app.command("info")(corpora.info)
app.command("convert")(studies.convert)
app.command("validate")(studies.validate)
app.command("merge")(studies.merge)
app.command("combine")(studies.combine)
app.command("associate")(associate.associate)
app.command("ale")(meta.ale)
app.command("mkda")(meta.mkda)
app.command("kda")(meta.kda)
app.command("scale")(meta.scale)
app.command("macm")(macm.macm)
app.command("coactivation")(coactivation.coactivation)
app.command("contrast")(contrast.contrast)
app.command("run-batch")(batches.run_batch)
app.command("status")(status.status)
app.command("export")(export.export)
app.command("compile")(kernels.compile_kernels)
app.command("demo")(demo.demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"nimare-dask {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where an error arose (works after any verb).")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    given = corpora.split_pairs([word for word in given if word != "--debug"])
    console.words_given.set(tuple(given))
    try:
        # Maps at an address are read when they are needed, wherever that is.
        with nullcontext() if debug else reaching(None):
            app(args=given, prog_name="nimare-dask")
    except NimareDaskError as error:
        if debug:
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except (OSError, MemoryError) as error:
        # A full disk, a folder that cannot be written, too little memory: a sentence, not a trace.
        if debug:
            raise
        print(f"Error: {_in_a_sentence(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Stopped; no result was written.", file=sys.stderr)
        sys.exit(130)


def _in_a_sentence(error: OSError | MemoryError) -> str:
    from nimare_dask.parallel.parts import is_full

    if not (isinstance(error, OSError) and error.strerror and error.filename is not None):
        return f"{type(error).__name__}: {error}"
    todo = "; make room there, and give the same command again" if is_full(error) else ""
    return f"{error.filename}: {error.strerror}{todo}."


if __name__ == "__main__":
    main()
