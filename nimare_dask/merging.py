"""One corpus of several, with each paper once."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import block_diag, csc_matrix

from nimare_dask import corpus as _corpus
from nimare_dask import facts as _facts
from nimare_dask.corpus import Annotation, Images, annotations_of, studyset_of, weights_of
from nimare_dask.errors import CorpusWarning, SelectionError
from nimare_dask.facts import Facts
from nimare_dask.provenance import with_step
from nimare_dask.schema import describe
from nimare_dask.subset import take

_DOI = re.compile(r"10\.\S+")


def merge(*corpora: xr.Dataset) -> xr.Dataset:
    """Join corpora; a study that several have is taken from the first.

    Studies are the same when they have the same PMID, or the same DOI (whatever its case or
    address), or, where neither contradicts, the same name. Two studies of one name that are not the
    same keep their analyses; the later is called ``<name>_2``.

    Parameters
    ----------
    *corpora
        Two or more.

    Returns
    -------
    corpus
        Studies in the order of the corpora, features and fields of all of them. A corpus without a
        feature says nothing about it: it has no weight of it.

    Warns
    -----
    CorpusWarning
        Counts the studies that were there already.
    """
    if len(corpora) < 2:
        raise SelectionError(f"{len(corpora)} corpora to merge; expected two or more.")
    merged = corpora[0]
    n_doubled = []
    for further in corpora[1:]:
        kept, names, doubled = _new_studies(merged, further)
        n_doubled.append(doubled)
        if kept.any():
            merged = _append(merged, _renamed(take(further, _with_all_of(further, kept)), names))
    if any(n_doubled):
        counts = ", ".join(f"{n:,}" for n in n_doubled)
        warnings.warn(
            f"{counts} studies of the further corpora are in an earlier one already (same PMID, "
            "DOI or name); each is taken once, from the first.",
            CorpusWarning,
            stacklevel=2,
        )
    digests = [_corpus.digest(each) for each in corpora]
    return with_step(merged, "merge", digests=digests, n_studies_doubled=n_doubled)


def _identities(corpus: xr.Dataset) -> list[tuple[str, str, str]]:
    """PMID, DOI and name of each study; empty where not known."""
    found = {}
    for name in ("pmid", "doi"):
        rows, values = _facts.values(corpus, f"study.{name}")
        found[name] = dict(zip(rows.tolist(), map(str, values), strict=True))
    identities = []
    for row, name in enumerate(corpus["study"].values.tolist()):
        pmid = found["pmid"].get(row, "").strip().removesuffix(".0")
        doi = _DOI.search(found["doi"].get(row, "").casefold())
        identities.append((pmid, doi[0] if doi else "", name))
    return identities


def _new_studies(
    before: xr.Dataset, further: xr.Dataset
) -> tuple[NDArray[np.bool_], list[str], int]:
    """Which studies of `further` are new, what they are called, and how many are not new."""
    known = _identities(before)
    by_name = {name: (pmid, doi) for pmid, doi, name in known}
    pmids = {pmid for pmid, _, _ in known if pmid}
    dois = {doi for _, doi, _ in known if doi}
    new = np.zeros(further.sizes["study"], bool)
    names = []
    taken = {*by_name, *map(str, further["study"].values.tolist())}
    for row, (pmid, doi, name) in enumerate(_identities(further)):
        if pmid in pmids or doi in dois:
            continue
        if name in by_name:
            other_pmid, other_doi = by_name[name]
            contradicts = (pmid and other_pmid) or (doi and other_doi)
            if not contradicts:
                continue
            name = next(each for n in range(2, 10**9) if (each := f"{name}_{n}") not in taken)
            taken.add(name)
        new[row] = True
        names.append(name)
    return new, names, int((~new).sum())


def _with_all_of(corpus: xr.Dataset, studies: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    """Masks of all that belongs to some studies."""
    analyses = studies[corpus["analysis_study"].values]
    kept = {
        "study": studies,
        "analysis": analyses,
        "focus": analyses[_corpus.analysis_of_focus(corpus)],
    }
    if "image" in corpus.dims:
        kept["image"] = analyses[_corpus.analysis_of_image(corpus)]
    return kept


def _renamed(corpus: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """The same corpus with other names of studies."""
    if list(names) == corpus["study"].values.tolist():
        return corpus
    study = np.array(list(names), dtype=np.dtypes.StringDType())
    papers = study[corpus["analysis_study"].values]
    ids = [
        f"{paper}-{contrast}"
        for paper, contrast in zip(papers, corpus["analysis_contrast"].values, strict=True)
    ]
    return corpus.assign_coords(
        study=("study", study),
        study_id=("analysis", papers),
        analysis_id=("analysis", np.array(ids, dtype=np.dtypes.StringDType())),
    )


def _joined(first: xr.Dataset, second: xr.Dataset, name: str) -> NDArray[Any]:
    return np.concatenate([first[name].values, second[name].values])


def _append(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """The studies of `second` after those of `first`; none is in both."""
    spaces = list(dict.fromkeys([*first.attrs["spaces"], *second.attrs["spaces"]]))
    codes = [
        np.array([spaces.index(space) for space in each.attrs["spaces"]] or [0])[
            each["focus_space"].values
        ]
        for each in (first, second)
    ]
    sizes = [
        each["analysis_sample_size"].values
        if "analysis_sample_size" in each
        else np.full(each.sizes["analysis"], np.nan)
        for each in (first, second)
    ]
    n_before = len(annotations_of(first))
    made = _corpus.build(
        analysis_id=_joined(first, second, "analysis_id"),
        study_id=_joined(first, second, "study_id"),
        study=_joined(first, second, "study"),
        contrast=_joined(first, second, "analysis_contrast"),
        n_foci=_joined(first, second, "analysis_n_foci"),
        xyz=_joined(first, second, "focus_xyz"),
        focus_space=np.concatenate(codes),
        spaces=spaces,
        images=_joined_images(first, second),
        facts=_joined_facts(first, second, n_before),
        studyset=studyset_of(first) or None,
        **_joined_weights(first, second),
    )
    sample_sizes = np.concatenate(sizes)
    if np.isfinite(sample_sizes).any():
        made = describe(made.assign(analysis_sample_size=("analysis", sample_sizes)))
    return made.assign_attrs({k: v for k, v in first.attrs.items() if k == "provenance"})


def _joined_images(first: xr.Dataset, second: xr.Dataset) -> Images | None:
    if "image" not in first.dims and "image" not in second.dims:
        return None
    parts = []
    for each in (first, second):
        if "image" in each.dims:
            names = ("analysis_n_images", "image_type", "image_path", "image_space")
            parts.append([each[name].values for name in names])
        else:
            parts.append([np.zeros(each.sizes["analysis"], np.int32), *[np.empty(0, object)] * 3])
    n_images, *texts = zip(*parts, strict=True)
    kind, path, space = (np.concatenate([t.astype(object) for t in each]) for each in texts)
    return Images(n_images=np.concatenate(n_images), kind=kind, path=path, space=space)


def _joined_facts(first: xr.Dataset, second: xr.Dataset, n_annotations: int) -> Facts:
    facts = Facts()
    for name in _facts.fields(first):
        rows, values = _facts.values(first, name)
        facts.extend(name, rows.tolist(), values)
    for name in _facts.fields(second):
        rows, values = _facts.values(second, name)
        moved = rows + first.sizes.get(_facts.level_of(name), 0)
        facts.extend(_renumbered(name, n_annotations), moved.tolist(), values)
    return facts


def _renumbered(name: str, shift: int) -> str:
    """The name of a field of a note, whose annotation moves along."""
    if not name.startswith("note."):
        return name
    number, _, rest = name.removeprefix("note.").partition(".")
    return f"note.{int(number) + shift}.{rest}"


def _joined_weights(first: xr.Dataset, second: xr.Dataset) -> dict[str, Any]:
    """Features of both; one that both have by the same name is one."""
    parts = []
    for each in (first, second):
        has = "feature" in each.dims
        names = each["feature"].values.tolist() if has else []
        empty = csc_matrix((each.sizes["analysis"], 0))
        parts.append((names, weights_of(each) if has else empty))
    names = list(dict.fromkeys([*parts[0][0], *parts[1][0]]))
    if not names:
        return {}
    place = {name: at for at, name in enumerate(names)}
    joined = csc_matrix(block_diag([matrix for _, matrix in parts], format="csc"))
    columns = np.array([place[name] for each, _ in parts for name in each], np.int64)
    entries = joined.tocoo()
    weights = csc_matrix(
        (entries.data, (entries.row, columns[entries.col])), shape=(joined.shape[0], len(names))
    )
    made: dict[str, Any] = {"feature": names, "weights": weights}
    documents = [*annotations_of(first), *annotations_of(second)]
    if documents:
        made["annotation"] = _joined_annotation(first, second, names, documents)
    return made


def _joined_annotation(
    first: xr.Dataset, second: xr.Dataset, names: Sequence[str], documents: list[dict[str, Any]]
) -> Annotation:
    of: dict[str, tuple[int, str, str]] = {}
    for each, shift in ((first, 0), (second, len(annotations_of(first)))):
        if "feature_annotation" not in each:
            continue
        for at, name in enumerate(each["feature"].values.tolist()):
            number = int(each["feature_annotation"].values[at]) + shift
            label, kind = (str(each[f"feature_{what}"].values[at]) for what in ("label", "kind"))
            of.setdefault(name, (number, label, kind))
    without = [name for name in names if name not in of]
    if without:
        documents = [*documents, {"id": "features", "name": "features"}]
        of |= {name: (len(documents) - 1, name, "number") for name in without}
    numbers, labels, kinds = zip(*(of[name] for name in names), strict=True)
    return Annotation(documents=documents, of_feature=numbers, label=labels, kind=kinds)
