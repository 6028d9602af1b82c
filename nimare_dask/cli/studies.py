"""Verbs about files of studies: import FORMAT, convert, validate, merge and combine."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nimare_dask.cli.corpora import importers
from nimare_dask.cli.options import ZarrPath
from nimare_dask.cli.options import path as path_or_address

if TYPE_CHECKING:
    import xarray as xr

Out = Annotated[
    ZarrPath,
    typer.Argument(help="Corpus to write, such as studies.zarr.", parser=path_or_address),
]
Force = Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")]
Annotations = Annotated[
    list[Path] | None,
    typer.Option("--annotation", help="An annotation (.json) of the studyset; may be repeated."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="What a column is, such as x=MNI_X or n=Subjects; may be repeated."
    ),
]


def _say_corpus(corpus: xr.Dataset, path: ZarrPath, started: float, *, where: str = "in") -> None:
    from nimare_dask.cli.console import say
    from nimare_dask.corpus import summary

    facts = summary(corpus)
    say(
        f"{facts['studies']:,} studies, {facts['analyses']:,} analyses, {facts['foci']:,} foci, "
        f"{facts['images']:,} images and {facts['features']:,} features {where} {path} after "
        f"{time.perf_counter() - started:.1f} s."
    )
    spaces = facts["foci by reported space"]
    if spaces:
        say("Foci by reported space: " + ", ".join(f"{name} {n:,}" for name, n in spaces.items()))


def _import(
    path: Path,
    out: ZarrPath,
    force: bool,
    *,
    format: str,
    annotations: Sequence[Path] = (),
    **options: Any,
) -> None:
    """Read studies, write a corpus, say what is in it."""
    from nimare_dask.cli.console import sentences_for_warnings
    from nimare_dask.corpus import save_corpus
    from nimare_dask.io.formats import read_studies
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import CORPUS_KIND

    started = time.perf_counter()
    refuse_existing(out, kind=CORPUS_KIND, overwrite=force)
    with sentences_for_warnings():
        corpus = read_studies(path, format=format, annotations=annotations, **options)
    save_corpus(corpus, out, overwrite=force)
    _say_corpus(corpus, out, started)


@importers.command("nimads")
def import_nimads(
    studyset: Annotated[Path, typer.Argument(help="A studyset (.json, .json.gz).")],
    out: Out,
    annotation: Annotations = None,
    force: Force = False,
) -> None:
    """Import a NIMADS studyset of NeuroStore or Neurosynth Compose."""
    _import(studyset, out, force, format="nimads", annotations=annotation or ())


@importers.command("sleuth")
def import_sleuth(
    files: Annotated[
        list[Path], typer.Argument(help="Files of Sleuth text, and last the corpus to write.")
    ],
    force: Force = False,
) -> None:
    """Import Sleuth (GingerALE) text: FILE... OUT; files are joined by study."""
    from nimare_dask.cli.console import sentences_for_warnings
    from nimare_dask.corpus import save_corpus
    from nimare_dask.io.sleuth import read_sleuth
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import CORPUS_KIND

    started = time.perf_counter()
    if len(files) < 2:
        raise typer.BadParameter("expected one or several files, and then the corpus to write.")
    *texts, last = files
    out = path_or_address(last)
    refuse_existing(out, kind=CORPUS_KIND, overwrite=force)
    with sentences_for_warnings():
        corpus = read_sleuth(texts)
    save_corpus(corpus, out, overwrite=force)
    _say_corpus(corpus, out, started)


@importers.command("table")
def import_table(
    table: Annotated[Path, typer.Argument(help="A table of foci (.csv, .tsv, .xlsx).")],
    out: Out,
    column: Column = None,
    sheet: Annotated[str | None, typer.Option(help="Sheet of an .xlsx file.")] = None,
    space: Annotated[
        str | None, typer.Option(help="Space of foci when no column says: MNI or TAL.")
    ] = None,
    force: Force = False,
) -> None:
    """Import a table with a row a focus: study, contrast, x, y, z, space, n."""
    _import(
        table,
        out,
        force,
        format="table",
        columns=_pairs(column or []),
        sheet=sheet,
        space=space,
    )


def _pairs(words: Sequence[str]) -> dict[str, str] | None:
    pairs = [word.partition("=") for word in words]
    for name, sign, column in pairs:
        if not (name and sign and column):
            raise typer.BadParameter(f"--column {name}{sign}{column}: expected such as x=MNI_X.")
    return {name: column for name, _, column in pairs} or None


@importers.command("parquet")
def import_parquet(
    folder: Annotated[Path, typer.Argument(help="Folder of a NeuroStore or NiMARE release.")],
    out: Out,
    force: Force = False,
) -> None:
    """Import a parquet studyset: a release of NeuroStore, or what NiMARE writes."""
    _import(folder, out, force, format="parquet")


@importers.command("dataset")
def import_dataset(
    dataset: Annotated[Path, typer.Argument(help="A NiMARE dataset (.json, .json.gz).")],
    out: Out,
    force: Force = False,
) -> None:
    """Import a legacy NiMARE dataset."""
    _import(dataset, out, force, format="dataset")


@importers.command("pubget")
def import_pubget(
    folder: Annotated[Path, typer.Argument(help="Folder of extracted data that pubget wrote.")],
    out: Out,
    per: Annotated[str, typer.Option(help="An analysis for each table, or each study.")] = "table",
    texts: Annotated[bool, typer.Option("--texts", help="Keep abstracts and bodies.")] = False,
    force: Force = False,
) -> None:
    """Import what pubget extracted from papers."""
    if per not in ("table", "study"):
        raise typer.BadParameter(f"--per is {per!r}; expected table or study.")
    _import(folder, out, force, format="pubget", per=per, texts=texts)


def convert(
    source: Annotated[
        ZarrPath,
        typer.Argument(help="File or folder of studies, of any format.", parser=path_or_address),
    ],
    out: Annotated[
        ZarrPath,
        typer.Argument(
            help="What to write: .zarr a corpus, .json NIMADS, .txt Sleuth, .csv .tsv .xlsx a "
            "table, .parquet a folder of tables.",
            parser=path_or_address,
        ),
    ],
    from_: Annotated[
        str | None, typer.Option("--from", help="Format of the source, when it does not say.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Format to write, when its name does not say.")
    ] = None,
    annotation: Annotations = None,
    force: Force = False,
) -> None:
    """Convert studies from one format to another; what a format cannot hold is said."""
    from nimare_dask.cli.console import say, sentences_for_warnings
    from nimare_dask.io.formats import read_studies, write_studies

    started = time.perf_counter()
    with sentences_for_warnings():
        corpus = read_studies(source, format=from_, annotations=annotation or ())
        written = write_studies(corpus, out, format=to, overwrite=force)
    _say_corpus(corpus, source, started, where="read from")
    say(f"Written: {', '.join(map(str, written))}")


def validate(
    path: Annotated[
        ZarrPath,
        typer.Argument(help="File or folder of studies, of any format.", parser=path_or_address),
    ],
    annotation: Annotations = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """List all that is wrong with a file, with its place and what to do; exit code 1 for errors."""
    from dataclasses import asdict

    from nimare_dask.io.formats import validate as find_problems

    found = find_problems(path, annotations=annotation or ())
    n_errors = sum(problem.severity == "error" for problem in found)
    if as_json:
        print(json.dumps([asdict(problem) for problem in found], indent=2, ensure_ascii=False))
    else:
        for problem in found:
            print(f"{problem.severity:8}{problem}")
        n_warnings = len(found) - n_errors
        print(f"{path}: {n_errors:,} errors, {n_warnings:,} warnings.")
    if n_errors:
        raise typer.Exit(1)


def merge(
    corpora: Annotated[
        list[ZarrPath],
        typer.Argument(
            help="Two or more corpora, and last the corpus to write; or one store of null "
            "iterations, of which maps are made.",
            parser=path_or_address,
        ),
    ],
    force: Force = False,
) -> None:
    """Join what is apart: CORPUS CORPUS... OUT, or the iterations of a job array: STORE.

    A paper that several corpora have is taken from the first. The maps of a store are those of the
    command that prepared it.
    """
    from nimare_dask.cli.batches import finish
    from nimare_dask.cli.console import sentences_for_warnings
    from nimare_dask.corpus import open_corpus, save_corpus
    from nimare_dask.merging import merge as join
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import CORPUS_KIND

    started = time.perf_counter()
    if len(corpora) == 1:
        finish(corpora[0])
        return
    if len(corpora) < 3:
        raise typer.BadParameter(
            "expected two or more corpora, and then the corpus to write; or one store of null "
            "iterations."
        )
    *sources, out = corpora
    refuse_existing(out, kind=CORPUS_KIND, overwrite=force)
    with sentences_for_warnings():
        merged = join(*map(open_corpus, sources))
    save_corpus(merged, out, overwrite=force)
    _say_corpus(merged, out, started)


def combine(
    corpus: Annotated[ZarrPath, typer.Argument(help="A corpus.", parser=path_or_address)],
    out: Out,
    force: Force = False,
) -> None:
    """Pool the analyses of each study into one, so that a study counts once."""
    from nimare_dask.corpus import open_corpus, save_corpus
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.pooling import combine_analyses
    from nimare_dask.schema import CORPUS_KIND

    started = time.perf_counter()
    refuse_existing(out, kind=CORPUS_KIND, overwrite=force)
    pooled = combine_analyses(open_corpus(corpus))
    save_corpus(pooled, out, overwrite=force)
    _say_corpus(pooled, out, started)
