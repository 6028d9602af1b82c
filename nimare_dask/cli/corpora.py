"""Verbs about corpora: import and info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nimare_dask.cli.options import ZarrPath, path

importers = typer.Typer(help="Read studies from files into a corpus.", no_args_is_help=True)


def split_pairs(words: list[str], option: str = "--features") -> list[str]:
    """Write ``--features A B`` as ``--features A --features B``.

    An option of two values that may be repeated is more than typer can declare.
    """
    split: list[str] = []
    for place, word in enumerate(words):
        second = place >= 2 and words[place - 2] == option and words[place - 1] != option
        if second and not word.startswith("-"):
            split.append(option)
        split.append(word)
    return split


@importers.callback()
def _formats() -> None:
    pass


@importers.command("neurosynth")
def import_neurosynth(
    coordinates: Annotated[Path, typer.Argument(help="Table of foci: id x y z (.tsv, .tsv.gz).")],
    metadata: Annotated[Path, typer.Argument(help="Table of studies: id space title ...")],
    out: Annotated[
        ZarrPath, typer.Argument(help="Corpus to write, such as neurosynth.zarr.", parser=path)
    ],
    features: Annotated[
        list[Path] | None,
        typer.Option(
            help="A feature matrix (.npz) and its vocabulary (.txt); may be repeated.",
            metavar="NPZ VOCABULARY",
        ),
    ] = None,
    allow_empty: Annotated[
        bool, typer.Option("--allow-empty", help="Keep studies that have no coordinates.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it is there.")] = False,
) -> None:
    """Import Neurosynth (versions 3 to 7) or NeuroQuery files."""
    import time

    from nimare_dask.cli.console import say, sentences_for_warnings
    from nimare_dask.corpus import save_corpus, summary
    from nimare_dask.io.neurosynth import read_neurosynth
    from nimare_dask.parallel.stores import refuse_existing
    from nimare_dask.schema import CORPUS_KIND

    start = time.perf_counter()
    refuse_existing(out, kind=CORPUS_KIND, overwrite=force)
    files = features or []
    if len(files) % 2:
        raise typer.BadParameter(
            f"{files[-1]} has no vocabulary; each --features takes NPZ VOCABULARY."
        )
    pairs = list(zip(files[::2], files[1::2], strict=True))
    with sentences_for_warnings():
        corpus = read_neurosynth(coordinates, metadata, pairs, allow_empty=allow_empty)
    save_corpus(corpus, out, overwrite=force)
    facts = summary(corpus)
    say(
        f"{facts['analyses']:,} analyses, {facts['foci']:,} foci and {facts['features']:,} "
        f"features in {out} after {time.perf_counter() - start:.1f} s."
    )
    spaces = facts["foci by reported space"]
    say("Foci by reported space: " + ", ".join(f"{name} {n:,}" for name, n in spaces.items()))


def info(
    corpus: Annotated[ZarrPath, typer.Argument(help="A corpus.", parser=path)],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    features: Annotated[bool, typer.Option("--features", help="List the features too.")] = False,
) -> None:
    """Say what is in a corpus."""
    from nimare_dask.corpus import open_corpus, summary

    opened = open_corpus(corpus)
    facts = summary(opened)
    if features:
        facts["names of features"] = opened["feature"].values.tolist() if facts["features"] else []
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{key} {count:,}" for key, count in value.items())
        elif isinstance(value, list):
            shown = "".join(f"\n  {item}" for item in value)
        else:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
        print(f"{name + ':':24}{shown}")
