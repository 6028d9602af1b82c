"""Writing a corpus as the files of a Neurosynth database: two tables and sparse matrices."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from scipy import sparse

from nimare_dask import facts
from nimare_dask.corpus import analysis_of_focus, weights_of
from nimare_dask.draft import UNKNOWN_SPACE
from nimare_dask.errors import CorpusWarning, SettingsError, shorten
from nimare_dask.io.whole import refuse_folder, whole_folder
from nimare_dask.space import SPELLINGS, tal2mni
from nimare_dask.wholeness import check

_MARKER = "*_coordinates.tsv.gz"
#: Columns of the metadata, and the fields that they are.
_COLUMNS = {
    "doi": "study.doi",
    "title": "study.name",
    "authors": "study.authors",
    "year": "study.year",
    "journal": "study.publication",
}
#: The prefix of features whose names do not say vocabulary, source and type.
_OTHERS = ("corpus", "features", "weight")
_PREFIX = re.compile(r"([A-Za-z0-9]+)_([A-Za-z0-9]+)_([A-Za-z0-9]+)__(.+)", re.DOTALL)
#: What would end a field or a line of a table or a vocabulary.
_BREAKS = re.compile(r"[\t\n\r\v\f\x00\x1c-\x1e\x85\u2028\u2029]+")
_COMPRESSION = {"method": "gzip", "compresslevel": 6, "mtime": 0}


class NeurosynthFiles(NamedTuple):
    """Files of a database, as :func:`~nimare_dask.read_neurosynth` takes them."""

    coordinates: Path
    metadata: Path
    features: list[tuple[Path, Path]]


def write_neurosynth(
    corpus: xr.Dataset,
    folder: str | Path,
    *,
    name: str = "data-neurosynth_version-0",
    overwrite: bool = False,
) -> NeurosynthFiles:
    """Write a corpus as the files of a Neurosynth database.

    Such a database has one analysis a study, in one space. Analyses of a study are pooled (a
    feature has the largest of their weights), and foci of a study in several spaces are
    transformed to MNI.

    Parameters
    ----------
    corpus
        Any corpus.
    folder
        Folder to write; it appears when it is whole.
    name
        What names of files begin with.
    overwrite
        Replace such a folder.

    Returns
    -------
    files
        ``<name>_coordinates.tsv.gz``, ``<name>_metadata.tsv.gz``, and for each vocabulary, source
        and type of the features a matrix and its vocabulary; ``read_neurosynth(*files)`` reads
        them.

    Warns
    -----
    CorpusWarning
        With what is merged or lost, and how much of it.

    Raises
    ------
    SettingsError
        For a name that no file can have, or ids of studies with tabs or line ends.
    StoreExistsError
        When `folder` is there and may not be replaced.
    """
    if not name or set(name) & set('/\\:*?"<>|\0'):
        raise SettingsError(f"name is {name!r}; expected the beginning of names of files.")
    check(corpus)
    target = Path(folder)
    refuse_folder(target, marker=_MARKER, overwrite=overwrite)
    ids = _ids(corpus)
    lost: list[str] = []
    space, xyz = _one_space(corpus, lost)
    metadata = _metadata(corpus, ids, space, lost)
    matrix, groups = _features(corpus, lost)
    _say_losses(corpus, lost)
    with whole_folder(target, marker=_MARKER, overwrite=overwrite) as partial:
        paths = partial / f"{name}_coordinates.tsv.gz", partial / f"{name}_metadata.tsv.gz"
        coordinates = _coordinates(corpus, ids, xyz)
        for path, table in zip(paths, (coordinates, metadata), strict=True):
            table.to_csv(path, sep="\t", index=False, compression=_COMPRESSION)
        pairs = [
            _write_features(partial, name, prefix, terms, matrix[:, places], groups)
            for prefix, (terms, places) in groups.items()
        ]
    if lost:
        warnings.warn(
            f"{target}: a Neurosynth database has one analysis a study. {'; '.join(lost)}.",
            CorpusWarning,
            stacklevel=2,
        )
    return NeurosynthFiles(
        target / paths[0].name,
        target / paths[1].name,
        [(target / npz.name, target / terms.name) for npz, terms in pairs],
    )


def _ids(corpus: xr.Dataset) -> NDArray[np.object_]:
    ids = corpus["study"].values.astype(object)
    odd = [each for each in ids if _BREAKS.search(each) or not each.strip()]
    if odd:
        raise SettingsError(
            f"{len(odd):,} ids of studies are blank or have a tab or line end "
            f"({shorten([repr(each) for each in odd])}); a table has no room for them, rename them."
        )
    return np.asarray(ids, object)


def _one_space(
    corpus: xr.Dataset, lost: list[str]
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Space of each study, (study,), and foci in it, (focus, 3) in mm."""
    names = np.array(corpus.attrs["spaces"] or [UNKNOWN_SPACE], object)
    xyz: NDArray[np.float64] = corpus["focus_xyz"].values.astype(np.float64)
    owner = corpus["analysis_study"].values[analysis_of_focus(corpus)]
    code = corpus["focus_space"].values.astype(np.int64)
    n = corpus.sizes["study"]
    first = np.full(n, 0, np.int64)
    first[owner[::-1]] = code[::-1]
    mixed = np.zeros(n, bool)
    mixed[owner[code != first[owner]]] = True
    space = names[first]
    space[mixed] = "MNI"
    if mixed.any():
        in_tal = np.array([SPELLINGS.get(str(each), "MNI") == "TAL" for each in names], bool)
        moved = mixed[owner] & in_tal[code]
        xyz[moved] = tal2mni(xyz[moved])
        lost.append(
            f"{mixed.sum():,} studies report in several spaces; all their foci are written as MNI, "
            f"{moved.sum():,} of them transformed (Lancaster 2007)"
        )
    return np.asarray(space, object), xyz


def _coordinates(
    corpus: xr.Dataset, ids: NDArray[np.object_], xyz: NDArray[np.float64]
) -> pd.DataFrame:
    """Foci, one study after the other; the table that they are from is their analysis."""
    analysis = analysis_of_focus(corpus)
    contrast = [_BREAKS.sub(" ", str(each)) for each in corpus["analysis_contrast"].values]
    owner = corpus["analysis_study"].values
    number = pd.Series(owner).groupby(owner).cumcount().to_numpy() + 1
    table = {
        "id": ids[owner[analysis]],
        "table_id": np.array(contrast, object)[analysis],
        "table_num": number[analysis],
        "peak_id": np.arange(len(analysis)),
        **{axis: xyz[:, place] for place, axis in enumerate("xyz")},
    }
    order = np.argsort(owner[analysis], kind="stable")
    return pd.DataFrame(table).iloc[order]


def _metadata(
    corpus: xr.Dataset, ids: NDArray[np.object_], space: NDArray[np.object_], lost: list[str]
) -> pd.DataFrame:
    table: dict[str, NDArray[np.object_]] = {"id": ids, "space": space}
    changed: Counter[str] = Counter()
    for column, field in _COLUMNS.items():
        table[column] = np.full(len(ids), "", object)
        rows, values = facts.values(corpus, field)
        for row, value in zip(rows.tolist(), values, strict=True):
            text = value if isinstance(value, str) else ""
            if column == "year":
                is_year = isinstance(value, int) and 1 <= value <= 9999
                text = str(value) if is_year else ""
            shown = _BREAKS.sub(" ", text)
            changed[field] += shown != (str(value) if column == "year" else value)
            table[column][row] = shown
    lost += [
        f"{times:,} facts {field} are no plain {column} and are changed or left out"
        for column, field in _COLUMNS.items()
        if (times := changed[field])
    ]
    order = ["id", "doi", "space", "title", "authors", "year", "journal"]
    return pd.DataFrame(table)[order]


def _features(
    corpus: xr.Dataset, lost: list[str]
) -> tuple[sparse.csc_matrix, dict[tuple[str, str, str], tuple[list[str], list[int]]]]:
    """Weights, (study, feature), and for each prefix its terms and their places."""
    groups: dict[tuple[str, str, str], tuple[list[str], list[int]]] = {}
    if "feature" not in corpus.dims:
        return sparse.csc_matrix((corpus.sizes["study"], 0)), groups
    others = _OTHERS
    names = [str(name) for name in corpus["feature"].values]
    found = [_PREFIX.fullmatch(name) for name in names]
    while others in {match.groups()[:3] for match in found if match}:
        others = (f"{others[0]}x", *others[1:])
    seen: set[tuple[str, str, str, str]] = set()
    renamed = 0
    for place, (name, match) in enumerate(zip(names, found, strict=True)):
        vocabulary, source, kind, term = match.groups() if match else (*others, name)
        shown = _BREAKS.sub(" ", term)
        shown = shown if shown.strip() else "blank"
        while (vocabulary, source, kind, shown) in seen:
            shown += "_"
        seen.add((vocabulary, source, kind, shown))
        renamed += match is None or shown != term
        terms, places = groups.setdefault((vocabulary, source, kind), ([], []))
        terms.append(shown)
        places.append(place)
    if renamed:
        lost.append(
            f"{renamed:,} features get names of the form vocabulary_source_type__term"
            f" ({'_'.join(others)}__... where they have none)"
        )
    weights = weights_of(corpus)
    owner = corpus["analysis_study"].values
    if len(np.unique(owner)) == len(owner):
        rows = owner[weights.indices]
        shape = (corpus.sizes["study"], weights.shape[1])
        return sparse.csc_matrix((weights.data, rows, weights.indptr), shape=shape), groups
    return _largest(weights, owner, corpus.sizes["study"]), groups


def _largest(
    weights: sparse.csc_matrix, owner: NDArray[np.int32], n_studies: int
) -> sparse.csc_matrix:
    """The largest weight of the analyses of each study, (study, feature)."""
    flat = sparse.coo_matrix(weights)
    table = pd.DataFrame({"column": flat.col, "row": owner[flat.row], "value": flat.data})
    best = table.groupby(["column", "row"], as_index=False)["value"].max()
    places = (best["row"].to_numpy(), best["column"].to_numpy())
    return sparse.csc_matrix(
        (best["value"].to_numpy(), places), shape=(n_studies, weights.shape[1])
    )


def _write_features(
    folder: Path,
    name: str,
    prefix: tuple[str, str, str],
    terms: list[str],
    matrix: sparse.csc_matrix,
    groups: dict[tuple[str, str, str], tuple[list[str], list[int]]],
) -> tuple[Path, Path]:
    vocabulary, source, kind = prefix
    whole = f"{name}_vocab-{vocabulary}_source-{source}_type-{kind}"
    same = [each for each, (others, _) in groups.items() if each[0] == vocabulary]
    shared = all(groups[each][0] == terms for each in same)
    words = folder / f"{f'{name}_vocab-{vocabulary}' if shared else whole}_vocabulary.txt"
    words.write_text("".join(f"{term}\n" for term in terms), encoding="utf-8", newline="\n")
    npz = folder / f"{whole}_features.npz"
    sparse.save_npz(npz, sparse.csr_matrix(matrix))
    return npz, words


def _say_losses(corpus: xr.Dataset, lost: list[str]) -> None:
    """Add what a database of this kind has no place for."""
    n_analyses = np.bincount(corpus["analysis_study"].values, minlength=corpus.sizes["study"])
    pooled = n_analyses > 1
    if pooled.any():
        lost.append(
            f"{n_analyses[pooled].sum():,} analyses of {pooled.sum():,} studies are pooled, one "
            "analysis a study"
        )
    renamed = ~pooled[corpus["analysis_study"].values]
    renamed &= corpus["analysis_contrast"].values != "1"
    if renamed.any():
        lost.append(f"{renamed.sum():,} analyses lose their name and become 1")
    n_foci = np.bincount(
        corpus["analysis_study"].values,
        weights=corpus["analysis_n_foci"].values,
        minlength=corpus.sizes["study"],
    )
    if (n_foci == 0).any():
        lost.append(
            f"{(n_foci == 0).sum():,} studies have no foci; read them with allow_empty=True"
        )
    fields = []
    for field in facts.fields(corpus):
        rows, values = facts.values(corpus, field)
        if field == "study.pmid":
            ids = corpus["study"].values[rows].tolist()
            if all(str(value) == each for value, each in zip(values, ids, strict=True)):
                continue
        if field not in _COLUMNS.values():
            fields.append(f"{field} ({len(values):,})")
    if fields:
        lost.append(f"fields that are left out: {shorten(fields)}")
    for what, dim in (("images", "image"), ("annotations' descriptions", "")):
        count = corpus.sizes.get(dim, 0) if dim else int("annotations" in corpus.attrs)
        if count:
            lost.append(f"{count:,} {what} are left out" if dim else f"{what} are left out")
    if "analysis_sample_size" in corpus:
        lost.append("sample sizes are left out")
