"""Verbs about NeuroStore: search, get and release."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from nimare_dask.io.fetch import Progress
    from nimare_dask.io.neurostore import NeuroStore

neurostore = typer.Typer(
    help="Search NeuroStore, and download studysets and releases. What is not public needs a "
    "token, in the variable NEUROSTORE_TOKEN.",
    no_args_is_help=True,
)

Address = Annotated[
    str | None,
    typer.Option("--base-url", help="Address of the API, if not that of NeuroStore."),
]
Cache = Annotated[Path | None, typer.Option(help="Folder to keep answers in.")]


@neurostore.command("search")
def search(
    words: Annotated[list[str], typer.Argument(help="Words to look for.")],
    studysets: Annotated[
        bool, typer.Option("--studysets", help="Studysets instead of studies.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, one record a line.")] = False,
    base_url: Address = None,
    cache: Cache = None,
) -> None:
    """Find studies or studysets: id, year and name, one a line."""
    from itertools import islice

    from nimare_dask.cli.console import say, sentences_for_warnings

    with sentences_for_warnings(), _store(base_url, cache) as store:
        ask = store.studysets if studysets else store.studies
        found = ask(search=" ".join(words), page_size=min(limit, 100))
        shown = list(islice(found, limit))
        for record in shown:
            print(json.dumps(record) if as_json else _line(record))
        say(f"{len(shown):,} of {len(found):,} {found.what}.")


@neurostore.command("get")
def get(
    studyset_id: Annotated[str, typer.Argument(help="Twelve letters and digits.")],
    out: Annotated[Path, typer.Argument(help="File to write: .json or .json.gz.")],
    annotation: Annotated[
        list[str] | None,
        typer.Option(help="Also this annotation, beside OUT; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    base_url: Address = None,
    cache: Cache = None,
) -> None:
    """Download a studyset, and annotations of it, as NIMADS."""
    from tempfile import TemporaryDirectory

    from nimare_dask.cli.console import say
    from nimare_dask.io.neurostore import checked_id
    from nimare_dask.io.whole import refuse_file

    stem = out.name.removesuffix(".gz").removesuffix(".json")
    ending = out.name.removeprefix(stem)
    beside = {
        given: out.with_name(f"{stem}_annotation-{checked_id(given)}{ending}")
        for given in annotation or []
    }
    checked_id(studyset_id)
    for path in (out, *beside.values()):
        refuse_file(path, overwrite=force)
    told = []
    out.parent.mkdir(parents=True, exist_ok=True)
    # All of them or none: they are put in their places when the last one has come.
    with (
        _store(base_url, cache) as store,
        TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.", suffix=".part") as folder,
    ):
        partial = Path(folder)
        studies = store.studyset(studyset_id, path=partial / out.name)["studies"]
        analyses = sum(len(study.get("analyses") or []) for study in studies)
        told.append(f"{len(studies):,} studies with {analyses:,} analyses in {out}")
        for given, path in beside.items():
            notes = store.annotation(given, path=partial / path.name)["notes"]
            told.append(f"{len(notes):,} notes in {path}")
        for path in (out, *beside.values()):
            (partial / path.name).replace(path)
    for sentence in told:
        say(sentence)


@neurostore.command("release")
def release(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of releases; each gets a folder in it.")
    ] = None,
    version: Annotated[
        str, typer.Option(help="Such as 2026-09, nightly, or latest (not nightly).")
    ] = "latest",
    as_list: Annotated[bool, typer.Option("--list", help="List the releases.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace another build of this version.")
    ] = False,
    base_url: Address = None,
) -> None:
    """Download a release of the whole of NeuroStore: a folder of parquet tables."""
    from nimare_dask.cli.console import progress

    with _store(base_url, None) as store:
        if as_list:
            for found in store.releases():
                facts = (found.get(name, "") for name in ("version", "built_at", "study_count"))
                print("\t".join(_plain(fact) for fact in facts))
            return
        if folder is None:
            raise typer.BadParameter("give FOLDER, or --list.")
        with progress("Download", "bytes") as report:

            def show(name: str, done: int, total: int | None) -> None:
                if total is not None:
                    report(done, total)

            shown: Progress = show
            path = store.release(version, folder=folder, overwrite=force, on_progress=shown)
    print(path)


def _store(base_url: str | None, cache: Path | None) -> NeuroStore:
    from nimare_dask.io.neurostore import NEUROSTORE_URL, NeuroStore

    # No option: what stands on a command line is seen by everybody on the machine.
    token = os.environ.get("NEUROSTORE_TOKEN") or None
    return NeuroStore(base_url=base_url or NEUROSTORE_URL, token=token, cache=cache)


def _line(record: dict[str, Any]) -> str:
    return "\t".join(_plain(record.get(name)) for name in ("id", "year", "name"))


def _plain(value: Any) -> str:
    """A value of a stranger for a terminal and for a table: one line, no control characters."""
    text = "" if value is None else str(value)
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
