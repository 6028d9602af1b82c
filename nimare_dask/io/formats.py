"""All formats of studies in one place: which a file is of, reading, checking and writing it."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import xarray as xr

from nimare_dask.corpus import open_corpus, save_corpus
from nimare_dask.errors import CorpusWarning, NimareDaskError, SettingsError, SourceFormatError
from nimare_dask.io.problems import Problem, Problems, settle
from nimare_dask.parallel.places import AnyPath, place, refuse_address
from nimare_dask.provenance import with_step

#: The module of each format that is read from one path, with ``parse``.
READERS = {
    "nimads": "nimads",
    "sleuth": "sleuth",
    "table": "table",
    "parquet": "parquet",
    "dataset": "dataset_json",
    "pubget": "pubget",
}
#: Module and function of each format that is written.
WRITERS = {
    "corpus": ("", "save_corpus"),
    "nimads": ("nimads_write", "write_nimads"),
    "sleuth": ("sleuth_writer", "write_sleuth"),
    "table": ("table_writer", "write_table"),
    "parquet": ("parquet_write", "write_parquet"),
    "neurosynth": ("neurosynth_files", "write_neurosynth"),
}
FORMATS = ("corpus", *READERS, "neurosynth")

#: What the end of a name says of a file to write.
_ENDINGS = {
    ".zarr": "corpus",
    ".json": "nimads",
    ".json.gz": "nimads",
    ".txt": "sleuth",
    ".csv": "table",
    ".tsv": "table",
    ".xlsx": "table",
    ".parquet": "parquet",
}
#: What tells JSON formats apart: the first of these keys.
_KEYS = re.compile(rb'"(studies|contrasts|notes)"\s*:')
_LOOKED_AT = 1 << 20


def format_of(path: str | AnyPath) -> str:
    """Format of a file or folder of studies, by its name and how it begins.

    Returns
    -------
    name
        One of :data:`FORMATS`, or ``annotation`` for the notes of a studyset.

    Raises
    ------
    SourceFormatError
        When there is nothing, or nothing that is known.
    """
    target = place(path)
    if not isinstance(target, Path):
        return "corpus"
    if target.is_dir():
        return _format_of_folder(target)
    if not target.is_file():
        raise SourceFormatError(f"{target} is not there; expected a file or folder of studies.")
    name = target.name.lower().removesuffix(".gz")
    if name.endswith((".csv", ".tsv", ".xlsx")):
        return "table"
    begins = _beginning(target)
    if begins.lstrip().startswith((b"{", b"[")) or name.endswith(".json"):
        found = _KEYS.search(begins)
        kinds = {b"contrasts": "dataset", b"notes": "annotation"}
        return kinds.get(found[1], "nimads") if found else "nimads"
    if begins.lstrip().startswith(b"/") or name.endswith(".txt"):
        return "sleuth"
    raise SourceFormatError(
        f"{target} is of no format that is known by its name or content; say which with --from "
        f"(format=): {', '.join(FORMATS)}."
    )


def _format_of_folder(folder: Path) -> str:
    names = {path.name.lower() for path in folder.iterdir()}
    if "zarr.json" in names:
        return "corpus"
    if names & {"analyses.parquet", "coordinates.parquet", "studies.parquet"}:
        return "parquet"
    if any("coordinates.tsv" in name for name in names):
        return "neurosynth"
    if "coordinates.csv" in names or any(folder.glob("*/coordinates.csv")):
        return "pubget"
    raise SourceFormatError(
        f"{folder} holds none of what is known: a corpus (.zarr), a parquet studyset, Neurosynth "
        "files or a pubget folder."
    )


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as handle:
            packed = handle.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as handle:
            return bytes(handle.read(_LOOKED_AT)).removeprefix(b"\xef\xbb\xbf")
    except (OSError, EOFError, zlib.error):
        return b""


def read_studies(
    path: str | AnyPath,
    *,
    format: str | None = None,
    annotations: Sequence[str | Path] = (),
    **options: Any,
) -> xr.Dataset:
    """Read studies of any format.

    Parameters
    ----------
    path
        A file or folder: NIMADS (.json, .json.gz), Sleuth text, a table (.csv, .tsv, .xlsx), a
        NiMARE or NeuroStore parquet studyset, a legacy NiMARE dataset (.json), a pubget folder, a
        folder of Neurosynth files (studies without coordinates are kept), or a corpus (also at an
        address).
    format
        One of :data:`FORMATS`; told by the path by default.
    annotations
        Annotations of a NIMADS studyset.
    **options
        What the reader of the format takes beside (``columns``, ``sheet``, ``per`` ...).

    Returns
    -------
    corpus
        See :mod:`nimare_dask.corpus`.

    Raises
    ------
    SourceFormatError
        Names the first errors; :func:`validate` gives all.
    """
    name = format_of(path) if format is None else format
    _refuse_unknown(name, FORMATS)
    target = place(path)
    if name == "corpus":
        return open_corpus(target)
    if not isinstance(target, Path):
        raise SettingsError(f"{target} is an address, where only a corpus can be; not {name}.")
    if name == "neurosynth":
        return _read_neurosynth(target)
    problems = Problems(target)
    corpus = _parse(name, target, problems, annotations, options)
    settle(problems)
    assert corpus is not None
    files = [each.name for each in (target, *map(Path, annotations))]
    return with_step(corpus, f"read_{name}", settings={"files": files, **options})


def _refuse_unknown(name: str, known: Sequence[str]) -> None:
    if name == "annotation":
        raise SourceFormatError(
            "This is an annotation, which has no studies; give the studyset, and this with "
            "--annotation (annotations=)."
        )
    if name not in known:
        raise SettingsError(f"The format is {name!r}; expected one of {', '.join(known)}.")


def _parse(
    name: str,
    path: Path,
    problems: Problems,
    annotations: Sequence[str | Path],
    options: Mapping[str, Any],
) -> xr.Dataset | None:
    if annotations and name != "nimads":
        raise SettingsError(f"{path} is {name}; only a NIMADS studyset takes annotations.")
    parse = import_module(f"nimare_dask.io.{READERS[name]}").parse
    try:
        if name == "nimads":
            found: xr.Dataset | None = parse(path, list(annotations), problems, **options)
        else:
            found = parse(path, problems, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise SettingsError(
            f"{path} is {name}, which does not take {', '.join(options)}; leave it out."
        ) from error
    return found


def _read_neurosynth(folder: Path) -> xr.Dataset:
    """Read a folder with coordinates, metadata and any number of feature matrices."""
    from nimare_dask.io.neurosynth import read_neurosynth

    def only(pattern: str) -> Path:
        found = sorted(folder.glob(pattern))
        if len(found) != 1:
            raise SourceFormatError(
                f"{folder} has {len(found)} files {pattern}; expected one. Name the files one by "
                "one: nimare-dask import neurosynth."
            )
        return found[0]

    pairs = []
    for matrix in sorted(folder.glob("*_features.npz")):
        stem = matrix.name.split("_source-")[0]
        pairs.append((matrix, only(f"{stem}*vocabulary.txt")))
    tables = only("*coordinates.tsv*"), only("*metadata.tsv*")
    return read_neurosynth(*tables, pairs, allow_empty=True)


def validate(path: str | AnyPath, *, annotations: Sequence[str | Path] = ()) -> list[Problem]:
    """Find all that is wrong with a file or folder of studies.

    Parameters
    ----------
    path
        As for :func:`read_studies`.
    annotations
        Annotations of a NIMADS studyset, to be checked with it.

    Returns
    -------
    problems
        In the order of the file, each with its place, ``error`` or ``warning``, and what to do.
        Without an error the file can be read.
    """
    target = Path(str(path))
    problems = Problems(target)
    corpus = None
    try:
        name = format_of(path)
        if name in ("corpus", "neurosynth"):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", CorpusWarning)
                corpus = read_studies(path, format=name)
            for each in caught:
                problems.warn("", str(each.message))
        else:
            _refuse_unknown(name, FORMATS)
            corpus = _parse(name, target, problems, annotations, {})
    except NimareDaskError as error:
        problems.error("", str(error).removeprefix(f"{target}: ").removeprefix(f"{target}, "))
    if corpus is not None:
        _look_over(corpus, problems)
    return problems.found


def _look_over(corpus: xr.Dataset, problems: Problems) -> None:
    """Say what is allowed and yet seldom meant."""
    from nimare_dask.space import SPELLINGS

    n_foci = corpus["analysis_n_foci"].values
    if not n_foci.sum():
        problems.error("", "no analysis has a focus; there is nothing to analyse.")
    elif (n_foci == 0).any():
        problems.warn(
            "", f"{(n_foci == 0).sum():,} of {len(n_foci):,} analyses have no focus; no map counts "
            "them."
        )  # fmt: skip
    unknown = [space for space in corpus.attrs["spaces"] if space not in SPELLINGS]
    codes = corpus["focus_space"].values
    lost = sum(int((codes == corpus.attrs["spaces"].index(space)).sum()) for space in unknown)
    if lost:
        problems.warn(
            "",
            f"{lost:,} foci have a space that is not known ({', '.join(unknown)}; known are "
            f"{', '.join(SPELLINGS)}); they are taken as MNI.",
        )


def write_studies(
    corpus: xr.Dataset,
    path: str | AnyPath,
    *,
    format: str | None = None,
    overwrite: bool = False,
) -> list[AnyPath]:
    """Write a corpus in any format that is written.

    Parameters
    ----------
    corpus
        Any corpus.
    path
        ``.zarr`` is a corpus, ``.json`` and ``.json.gz`` are NIMADS, ``.txt`` is Sleuth text,
        ``.csv``, ``.tsv`` and ``.xlsx`` are tables, ``.parquet`` is a folder of parquet tables.
    format
        One of ``corpus nimads sleuth table parquet neurosynth``; told by the path by default.
    overwrite
        Replace what is there.

    Returns
    -------
    paths
        What was written.
    """
    target = place(path)
    name = format or _format_to_write(target)
    _refuse_unknown(name, tuple(WRITERS))
    if name == "corpus":
        return [save_corpus(corpus, target, overwrite=overwrite)]
    refuse_address(target, "files of this format")
    module, function = WRITERS[name]
    write = getattr(import_module(f"nimare_dask.io.{module}"), function)
    written = write(corpus, target, overwrite=overwrite)
    if isinstance(written, Path):
        return [written]
    # Feature matrices of Neurosynth come as pairs with their vocabularies.
    paths: list[AnyPath] = []
    for part in written:
        paths += [part] if isinstance(part, Path) else [path for pair in part for path in pair]
    return paths


def _format_to_write(path: AnyPath) -> str:
    name = path.name.lower()
    for ending in sorted(_ENDINGS, key=len, reverse=True):
        if name.endswith(ending):
            return _ENDINGS[ending]
    raise SettingsError(
        f"{path} does not say what to write; end it with {', '.join(_ENDINGS)}, or name the format "
        "with --to (format=)."
    )
