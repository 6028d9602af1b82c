"""One analysis of the several of a study."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from nimare_dask import corpus as _corpus
from nimare_dask import facts as _facts
from nimare_dask.corpus import Annotation, Images, annotations_of, studyset_of, weights_of
from nimare_dask.facts import Facts
from nimare_dask.metadata import mean_sample_sizes
from nimare_dask.provenance import with_step
from nimare_dask.schema import describe


def combine_analyses(corpus: xr.Dataset) -> xr.Dataset:
    """Pool the analyses of each study into one.

    Analyses of one group of subjects are not independent; pooled, a study counts once, however many
    contrasts it reports (Turkeltaub et al. 2012, Human Brain Mapping 33(1):1-13,
    doi:10.1002/hbm.21186).

    Parameters
    ----------
    corpus
        Any corpus.

    Returns
    -------
    corpus
        One analysis for each study that has any, called ``<study>-<contrasts joined by _>``, with
        the foci and images of all of them in their order. Of a feature the largest weight counts.
        Of other fields lists are joined, texts that differ are joined by ``"; "``, and numbers that
        differ become a list of all; so the sample size is the mean of all, as after writing and
        reading.
    """
    study = corpus["analysis_study"].values
    order = np.argsort(study, kind="stable")
    first = np.append(True, np.diff(study[order]) > 0) if len(order) else np.zeros(0, bool)
    pooled = np.empty(len(order), np.int64)  # the analysis that each becomes part of
    pooled[order] = np.cumsum(first) - 1
    n = int(first.sum())
    contrasts: list[list[str]] = [[] for _ in range(n)]
    for at in order.tolist():
        contrasts[int(pooled[at])].append(str(corpus["analysis_contrast"].values[at]))
    called = ["_".join(each) for each in contrasts]
    papers = corpus["study_id"].values[order[first]]
    foci = np.argsort(pooled[_corpus.analysis_of_focus(corpus)], kind="stable")
    images = np.empty(0, np.int64)
    if "image" in corpus.dims:
        images = np.argsort(pooled[_corpus.analysis_of_image(corpus)], kind="stable")
    made = _corpus.build(
        analysis_id=[f"{paper}-{name}" for paper, name in zip(papers, called, strict=True)],
        study_id=papers,
        study=corpus["study"].values,
        contrast=called,
        n_foci=np.bincount(pooled, corpus["analysis_n_foci"].values, minlength=n).astype(np.int32),
        xyz=corpus["focus_xyz"].values[foci],
        focus_space=corpus["focus_space"].values[foci],
        spaces=corpus.attrs["spaces"],
        images=_pooled_images(corpus, pooled, images, n),
        facts=_pooled_facts(corpus, pooled, {"focus": _inverse(foci), "image": _inverse(images)}),
        studyset=studyset_of(corpus) or None,
        **_pooled_weights(corpus, pooled, n),
    )
    made = _with_pooled_sizes(made, corpus, pooled, n)
    made = made.assign_attrs({k: v for k, v in corpus.attrs.items() if k == "provenance"})
    return with_step(made, "combine_analyses", n_analyses=n, n_before=len(order))


def _inverse(order: NDArray[np.int64]) -> NDArray[np.int64]:
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place


def _pooled_images(
    corpus: xr.Dataset, pooled: NDArray[np.int64], order: NDArray[np.int64], n: int
) -> Images | None:
    if "image" not in corpus.dims:
        return None
    counts = np.bincount(pooled, corpus["analysis_n_images"].values, minlength=n)
    kind, path, space = (
        corpus[f"image_{what}"].values[order] for what in ("type", "path", "space")
    )
    return Images(n_images=counts.astype(np.int32), kind=kind, path=path, space=space)


def _pooled_facts(
    corpus: xr.Dataset, pooled: NDArray[np.int64], places: dict[str, NDArray[np.int64]]
) -> Facts:
    facts = Facts()
    for name, column in _facts.iterate(corpus):
        rows, values = _facts.meanings(corpus, column)
        level = _facts.level_of(name)
        if level != "analysis":
            moved = places[level][rows] if level in places else rows
            facts.extend(name, moved.tolist(), values)
            continue
        of: dict[int, list[Any]] = {}
        for row, value in zip(pooled[rows].tolist(), values, strict=True):
            of.setdefault(row, []).append(value)
        facts.extend(name, list(of), [_one_of(found) for found in of.values()])
    return facts


def _one_of(values: list[Any]) -> Any:
    """What several values say together."""
    if any(isinstance(value, list) for value in values):  # a list of sizes beside one size
        lists = [value if isinstance(value, list) else [value] for value in values]
        return [item for value in lists for item in value]
    unlike = list({_facts.dump(value): value for value in values}.values())  # True is not 1 here
    if len(unlike) == 1:
        return unlike[0]
    if all(isinstance(value, str) for value in values):
        return "; ".join(unlike)
    return values if all(isinstance(value, int | float) for value in values) else unlike


def _pooled_weights(corpus: xr.Dataset, pooled: NDArray[np.int64], n: int) -> dict[str, Any]:
    if "feature" not in corpus.dims:
        return {}
    entries = weights_of(corpus).tocoo()
    rows = pooled[entries.row]
    keys = entries.col.astype(np.int64) * n + rows
    unique, place = np.unique(keys, return_inverse=True)
    largest = np.full(len(unique), -np.inf)
    np.maximum.at(largest, place, entries.data)
    weights = csc_matrix((largest, (unique % n, unique // n)), shape=(n, corpus.sizes["feature"]))
    made: dict[str, Any] = {"feature": corpus["feature"].values.tolist(), "weights": weights}
    if documents := annotations_of(corpus):
        of_feature, label, kind = (
            corpus[f"feature_{what}"].values for what in ("annotation", "label", "kind")
        )
        made["annotation"] = Annotation(
            documents=documents, of_feature=of_feature, label=label, kind=kind
        )
    return made


def _with_pooled_sizes(
    made: xr.Dataset, corpus: xr.Dataset, pooled: NDArray[np.int64], n: int
) -> xr.Dataset:
    """Sample sizes from the facts, as readers take them; the mean of those that are no facts."""
    if "analysis_sample_size" not in corpus:
        return made
    of_facts = mean_sample_sizes(made)
    sizes = corpus["analysis_sample_size"].values
    known = np.isfinite(sizes)
    total = np.bincount(pooled[known], sizes[known], minlength=n)
    count = np.bincount(pooled[known], minlength=n)
    mean = np.divide(total, count, out=of_facts.copy(), where=np.isnan(of_facts) & (count > 0))
    return describe(made.assign(analysis_sample_size=("analysis", mean)))
