"""Neurosynth (versions 3 to 7) and NeuroQuery: two tables and sparse feature matrices.

The coordinates table has the columns ``id x y z`` (and others), the metadata table ``id`` and, as
far as it is known, ``doi space title authors year journal``. A feature matrix is a scipy sparse
``.npz`` whose rows follow the rows of the metadata table, beside a vocabulary with one name a line.
"""

from __future__ import annotations

import re
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import sparse

from nimare_dask import corpus as _corpus
from nimare_dask.errors import CorpusWarning, SourceFormatError, shorten
from nimare_dask.facts import Facts
from nimare_dask.provenance import with_step

_AXES = ("x", "y", "z")
#: What NIMADS calls the columns of the metadata.
_FIELDS = {
    "title": "study.name",
    "authors": "study.authors",
    "journal": "study.publication",
    "doi": "study.doi",
    "year": "study.year",
}
#: What scipy and zipfile raise for a file that is not a whole sparse matrix.
_NOT_A_MATRIX = (
    *(OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
_FEATURE_FILE = re.compile(r"vocab-(.+?)_source-(.+?)_type-(.+?)_features")

FeatureFiles = tuple[str | Path, str | Path]


def read_neurosynth(
    coordinates: str | Path,
    metadata: str | Path,
    features: Sequence[FeatureFiles] = (),
    *,
    allow_empty: bool = False,
) -> xr.Dataset:
    """Read a Neurosynth or NeuroQuery database.

    Each study becomes one analysis, ``<id>-1``, in the order of the metadata. A metadata table
    without the column ``space`` (NeuroQuery) means MNI.

    Parameters
    ----------
    coordinates, metadata
        Tab-separated tables, plain or compressed (.gz).
    features
        Pairs of a feature matrix (.npz) and its vocabulary (.txt). A feature is called
        ``<vocabulary>_<source>_<type>__<term>`` after the name of its file.
    allow_empty
        Keep studies of the metadata that have no coordinates; otherwise they are an error.

    Returns
    -------
    corpus
        See :mod:`nimare_dask.corpus`.

    Raises
    ------
    SourceFormatError
        Names the file, line and column, what was found and what to do.
    """
    table = _read_metadata(Path(metadata))
    foci, row_of_focus = _read_coordinates(Path(coordinates), table["id"], Path(metadata))
    n_foci = np.bincount(row_of_focus, minlength=len(table))
    if not allow_empty and (n_foci == 0).any():
        line = int(np.argmin(n_foci > 0))
        raise SourceFormatError(
            f"{metadata}, line {table['line'][line]}, column id: {table['id'][line]} has no "
            f"coordinates in {coordinates} ({(n_foci == 0).sum():,} studies have none); remove "
            "them, or keep them as analyses without foci with allow_empty=True (--allow-empty)."
        )
    order = np.argsort(row_of_focus, kind="stable")
    codes, spaces = pd.factorize(table["space"], sort=True)
    names, weights = _read_all_features(features, len(table))
    ids = table["id"].to_numpy(dtype=object)
    facts = Facts()
    for theirs, ours in _FIELDS.items():
        known = table[theirs].astype(object).where((table[theirs] != "") & (table[theirs] != 0))
        facts.add_column(ours, known)
    facts.add_column("study.pmid", table["id"].where(table["id"].str.fullmatch(r"[0-9]{1,8}")))
    corpus = _corpus.build(
        analysis_id=ids + "-1",
        study_id=ids,
        n_foci=n_foci,
        xyz=foci[order],
        focus_space=codes[row_of_focus[order]],
        spaces=[str(space) for space in spaces],
        feature=names,
        weights=weights,
        facts=facts,
    )
    sources = [coordinates, metadata, *(path for pair in features for path in pair)]
    return with_step(
        corpus, "read_neurosynth", settings={"files": [Path(path).name for path in sources]}
    )


def _read_table(path: Path, required: Sequence[str], text: Sequence[str]) -> pd.DataFrame:
    """Read a tab-separated table; every way of not being one is a SourceFormatError."""
    if not path.is_file():
        raise SourceFormatError(f"{path} is not there; expected a tab-separated table.")
    try:
        _refuse_odd_header(path)
        table = pd.read_csv(
            path,
            sep="\t",
            dtype=dict.fromkeys(text, "str"),
            keep_default_na=False,
            na_values={axis: ["", "nan", "NaN", "NA", "n/a", "None"] for axis in _AXES},
            encoding="utf-8",
            low_memory=False,
            index_col=False,
            skip_blank_lines=False,  # so that the row tells the line
        )
    except pd.errors.EmptyDataError:
        raise SourceFormatError(
            f"{path}, line 1: the file is empty; expected a header with {', '.join(required)}."
        ) from None
    except (EOFError, zlib.error, OSError) as error:
        raise SourceFormatError(
            f"{path} is not a whole gzip file ({error}); download it again."
        ) from error
    except UnicodeDecodeError as error:
        raise SourceFormatError(
            f"{path}, byte {error.start}: {error.reason}; expected text in UTF-8."
        ) from error
    except pd.errors.ParserError as error:
        raise SourceFormatError(
            f"{path} is not a tab-separated table ({str(error).strip()})."
        ) from error
    missing = [name for name in required if name not in table.columns]
    if missing:
        raise SourceFormatError(
            f"{path}, line 1: no column {', '.join(missing)}; found {', '.join(table.columns)}. "
            "Expected a tab-separated Neurosynth or NeuroQuery table."
        )
    table["line"] = _lines(table)
    for name in [name for name in text if name in table.columns]:
        swallowed = table[name].str.contains(r"(?s)\n.*\t", regex=True).to_numpy(bool)
        if swallowed.any():
            raise SourceFormatError(
                f"{path}, line {table['line'][int(np.argmax(swallowed))]}, column {name}: the "
                "field holds whole rows; a quotation mark is left open."
            )
    blank = (table.drop(columns="line").isna() | (table.drop(columns="line") == "")).all(axis=1)
    table = table[~blank].reset_index(drop=True)
    if table.empty:
        raise SourceFormatError(f"{path}, line 2: the table has a header and no row.")
    return table


def _refuse_odd_header(path: Path) -> None:
    """Refuse repeated columns, and rows with more fields than the header names columns."""
    header = pd.read_csv(path, sep="\t", header=None, nrows=1, dtype="str").iloc[0]
    if header.duplicated().any():
        name = header[header.duplicated()].iloc[0]
        raise SourceFormatError(f"{path}, line 1: the column {name} is there twice; rename one.")
    try:
        first = pd.read_csv(path, sep="\t", header=None, skiprows=1, nrows=1, dtype="str")
    except pd.errors.EmptyDataError:
        return
    if first.shape[1] > len(header):
        raise SourceFormatError(
            f"{path}, line 2: the row has {first.shape[1]} fields, but the header names "
            f"{len(header)} columns; is there a tab too many at the end of each row?"
        )


def _lines(table: pd.DataFrame) -> NDArray[np.int64]:
    """Line of the file on which each row begins; a quoted field may run over several lines."""
    extra = np.zeros(len(table), np.int64)
    for name in table.columns:
        if not pd.api.types.is_numeric_dtype(table[name]):
            extra += table[name].astype("str").str.count("\n").fillna(0).to_numpy(np.int64)
    return 2 + np.arange(len(table)) + np.cumsum(extra) - extra


def _read_metadata(path: Path) -> pd.DataFrame:
    texts = [name for name in _FIELDS if name != "year"]
    table = _read_table(path, ["id"], ["id", "space", "year", *texts])
    _refuse_bad_ids(path, table)
    repeated = table["id"].duplicated()
    if repeated.any():
        line = int(np.argmax(repeated))
        raise SourceFormatError(
            f"{path}, line {table['line'][line]}, column id: {table['id'][line]} is there already "
            f"({repeated.sum():,} ids are repeated); each study must have one row."
        )
    for name in texts:
        table[name] = table[name] if name in table.columns else ""
    space = table["space"] if "space" in table.columns else pd.Series("MNI", index=table.index)
    table["space"] = space.mask(space == "", "UNKNOWN")
    year = pd.Series(table["year"] if "year" in table.columns else 0, index=table.index)
    number = pd.to_numeric(year, errors="coerce").to_numpy(np.float64)
    known = (number >= 1) & (number <= 9999)
    table["year"] = np.where(known, number, 0).astype(np.int32)
    return table


def _refuse_bad_ids(path: Path, table: pd.DataFrame) -> None:
    ids = table["id"]
    blank = (ids.isna() | (ids.str.strip() == "")).to_numpy()
    if blank.any():
        raise SourceFormatError(
            f"{path}, line {table['line'][int(np.argmax(blank))]}, column id: the id is blank "
            f"({blank.sum():,} are); each row must name its study."
        )


def _read_coordinates(
    path: Path, ids: pd.Series, metadata: Path
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    table = _read_table(path, ["id", *_AXES], ["id"])
    _refuse_bad_ids(path, table)
    for axis in _AXES:
        _refuse_non_numeric(path, axis, table)
    row = pd.Index(ids).get_indexer(pd.Index(table["id"]))
    if (row < 0).any():
        line = int(np.argmax(row < 0))
        strangers = table["id"][row < 0].unique()
        raise SourceFormatError(
            f"{path}, line {table['line'][line]}, column id: {table['id'][line]} is not in "
            f"{metadata} ({len(strangers):,} ids are not: {shorten(list(strangers))}); the two "
            "files must be of the same version of the database."
        )
    return table[list(_AXES)].to_numpy(np.float64), row


def _refuse_non_numeric(path: Path, axis: str, table: pd.DataFrame) -> None:
    column = table[axis]
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
    bad = ~np.isfinite(numbers)
    if bad.any():
        line = int(np.argmax(bad))
        value = column.iloc[line]
        shown = repr(value) if isinstance(value, str) else f"{value}"
        found = "nothing" if pd.isna(value) else shown
        raise SourceFormatError(
            f"{path}, line {table['line'][line]}, column {axis}: found {found}, expected "
            f"a coordinate in mm ({bad.sum():,} rows are like this); correct or remove the row."
        )


def _read_all_features(
    files: Sequence[FeatureFiles], n_studies: int
) -> tuple[list[str], sparse.csc_matrix | None]:
    if not files:
        return [], None
    names: list[str] = []
    blocks = []
    for matrix_file, vocabulary_file in files:
        matrix, vocabulary = _read_features(Path(matrix_file), Path(vocabulary_file), n_studies)
        names += vocabulary
        blocks.append(matrix)
    repeated = pd.Series(names).duplicated()
    if repeated.any():
        raise SourceFormatError(
            f"The feature {names[int(np.argmax(repeated))]} is in two of the feature files; give "
            "each file once."
        )
    return names, sparse.csc_matrix(sparse.hstack(blocks, format="csc"))


def _read_features(
    matrix_file: Path, vocabulary_file: Path, n_studies: int
) -> tuple[sparse.csc_matrix, list[str]]:
    """Read one matrix as (analysis, feature), whichever way it is stored, with its full names."""
    terms = _read_vocabulary(vocabulary_file)
    try:
        matrix = sparse.load_npz(matrix_file)
    except _NOT_A_MATRIX as error:
        raise SourceFormatError(
            f"{matrix_file} could not be read as a scipy sparse matrix ({error}); expected the "
            "_features.npz of the database."
        ) from error
    straight, turned = (n_studies, len(terms)), (len(terms), n_studies)
    if matrix.shape == straight == turned:
        warnings.warn(
            f"{matrix_file.name} is {matrix.shape[0]} x {matrix.shape[1]}: as many studies as "
            "features, so its shape does not tell which is which; rows are taken as studies.",
            CorpusWarning,
            stacklevel=4,
        )
    elif matrix.shape == turned:
        matrix = matrix.T
    elif matrix.shape != straight:
        raise SourceFormatError(
            f"{matrix_file} is a matrix of {matrix.shape[0]:,} x {matrix.shape[1]:,}; expected "
            f"{straight[0]:,} studies (rows of the metadata) x {straight[1]:,} features (lines of "
            f"{vocabulary_file.name}), or the same turned. Are the files of one version?"
        )
    columns = sparse.csc_matrix(matrix)
    columns.sum_duplicates()
    if not np.isfinite(columns.data).all():
        bad = sparse.coo_matrix(columns)
        at = int(np.argmax(~np.isfinite(bad.data)))
        raise SourceFormatError(
            f"{matrix_file}, row {bad.row[at] + 1}, column {bad.col[at] + 1}: found "
            f"{bad.data[at]}, expected a finite weight."
        )
    named = _FEATURE_FILE.search(matrix_file.name)
    prefix = "_".join(named.groups()) if named else matrix_file.stem
    return columns, [f"{prefix}__{term}" for term in terms]


def _read_vocabulary(path: Path) -> list[str]:
    try:
        terms = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceFormatError(
            f"{path} could not be read ({error}); expected a text file with one feature a line."
        ) from error
    if not terms:
        raise SourceFormatError(f"{path}, line 1: the file is empty; expected one feature a line.")
    seen: dict[str, int] = {}
    for line, term in enumerate(terms, start=1):
        if not term.strip():
            raise SourceFormatError(f"{path}, line {line}: the line is blank; expected a feature.")
        if term in seen:
            raise SourceFormatError(
                f"{path}, line {line}: {term!r} is on line {seen[term]} already; each feature must "
                "have one line."
            )
        seen[term] = line
    return terms
