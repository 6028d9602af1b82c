"""What several test files make: small spaces, small corpora and the plain tables behind them."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from scipy import sparse

from nimare_dask import corpus as nd_corpus
from nimare_dask.facts import Facts
from nimare_dask.space import Reference, Space, load_space

#: Any text but NUL, which numpy drops from the end of a string.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAME = TEXT.filter(bool)


def small_space(reference: Reference = "MNI") -> Space:
    """About 600 voxels of 8 mm: an ellipsoid that fills no row of its volume."""
    shape, zoom = (13, 14, 12), 8.0
    away = [np.linspace(-1.2, 1.2, length) ** 2 for length in shape]
    mask = away[0][:, None, None] + away[1][None, :, None] + away[2][None, None, :] < 1.0
    affine = np.diag([zoom, zoom, zoom, 1.0])
    affine[:3, 3] = (-48.0, -56.0, -40.0)
    return Space("small", mask, affine, reference)


@cache
def coarse_space() -> Space:
    """The MNI152 mask at 4 mm: every second voxel of the one at 2 mm."""
    fine = load_space("mni152_2mm")
    affine = fine.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    return Space("mni152_4mm", fine.mask[::2, ::2, ::2].copy(), affine)


def tiny_facts() -> Facts:
    """A name of each analysis, years of two studies, and a list."""
    facts = Facts()
    facts.add_column("analysis.name", ["Ärger 痛み", "", "NA", 'a "title"'])
    facts.add_column("study.year", [1999, None, 2010])
    facts.add("analysis.metadata.sample_sizes", 2, [20, 22])
    return facts


def tiny_corpus() -> xr.Dataset:
    """Four analyses, the second without foci; three features, the second without weights."""
    matrix = np.array([[0.5, 0, 0.001], [0, 0, 0.2], [0.25, 0, 0], [0.1, 0, 0.0005]])
    return nd_corpus.build(
        analysis_id=["s1-1", "s1-2", "s2-1", "s3-1"],
        study_id=["s1", "s1", "s2", "s3"],
        n_foci=[2, 0, 1, 3],
        xyz=[[0.0, 0, 0], [8.0, 0, 0], [0.0, -16, 8], [2.5, 3, 4], [-20.0, 10, 10], [400.0, 0, 0]],
        focus_space=[0, 0, 1, 2, 2, 2],
        spaces=["MNI", "TAL", "UNKNOWN"],
        feature=["terms_abstract__pain", "terms_abstract__fear", "topics_abstract__pain relief"],
        weights=sparse.csc_matrix(matrix),
        contrast=["1", "2", "1", "1"],
        facts=tiny_facts(),
    )


@dataclass(frozen=True)
class Draft:
    """The plain parts of a corpus, to compare with what became of them."""

    ids: list[str]
    titles: list[str]
    foci: list[list[tuple[float, float, float]]]
    space_of_analysis: list[int]
    spaces: list[str]
    features: list[str]
    weights: np.ndarray[Any, Any]

    def build(self) -> xr.Dataset:
        """The corpus of these parts."""
        n_foci = [len(foci) for foci in self.foci]
        facts = Facts()
        facts.add_column("study.name", self.titles)
        return nd_corpus.build(
            analysis_id=self.ids,
            study_id=self.ids,
            n_foci=n_foci,
            xyz=np.array([focus for foci in self.foci for focus in foci]),
            focus_space=np.repeat(np.array(self.space_of_analysis, np.int8), n_foci),
            spaces=self.spaces,
            feature=self.features,
            weights=sparse.csc_matrix(self.weights) if self.features else None,
            facts=facts,
        )


@st.composite
def drafts(draw: st.DrawFn, min_foci: int = 1) -> Draft:
    """Corpora with any titles, analyses without foci and features without weights."""
    n = draw(st.integers(1, 5))
    axis = st.floats(-120, 120, width=32)
    foci = st.lists(st.tuples(axis, axis, axis), max_size=3)
    features = draw(st.lists(NAME, max_size=4, unique=True))
    spaces = draw(st.lists(st.sampled_from(["MNI", "TAL", "UNKNOWN"]), min_size=1, unique=True))
    weight = st.sampled_from([0.0, 0.0, 0.0005, 0.001, 0.5])
    flat = draw(st.lists(weight, min_size=n * len(features), max_size=n * len(features)))
    drawn = draw(
        st.lists(foci, min_size=n, max_size=n).filter(lambda all_: sum(map(len, all_)) >= min_foci)
    )
    return Draft(
        ids=draw(st.lists(NAME, min_size=n, max_size=n, unique=True)),
        titles=draw(st.lists(TEXT, min_size=n, max_size=n)),
        foci=drawn,
        space_of_analysis=draw(st.lists(st.integers(0, len(spaces) - 1), min_size=n, max_size=n)),
        spaces=spaces,
        features=features,
        weights=np.array(flat).reshape(n, len(features)),
    )


def foci_of(corpus: xr.Dataset) -> dict[str, list[tuple[Any, ...]]]:
    """Foci by analysis, read off the ragged array one by one: x, y, z and the name of the space."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    at = 0
    for name, n in zip(
        corpus["analysis_id"].values.tolist(),
        corpus["analysis_n_foci"].values.tolist(),
        strict=True,
    ):
        rows = range(at, at + n)
        found[name] = [
            (*corpus["focus_xyz"].values[row].tolist(), space_name(corpus, row)) for row in rows
        ]
        at += n
    assert at == corpus.sizes["focus"]
    return found


def space_name(corpus: xr.Dataset, focus: int) -> Any:
    """The name of the space of one focus."""
    return corpus.attrs["spaces"][int(corpus["focus_space"].values[focus])]


def weights_by_name(corpus: xr.Dataset) -> dict[tuple[str, str], float]:
    """Weights by analysis and feature, read off the ragged array one by one."""
    found: dict[tuple[str, str], float] = {}
    at = 0
    ids = corpus["analysis_id"].values.tolist()
    for feature, n in zip(
        corpus["feature"].values.tolist(), corpus["feature_n_weights"].values.tolist(), strict=True
    ):
        for row in range(at, at + n):
            analysis = ids[int(corpus["weight_analysis"].values[row])]
            assert (analysis, feature) not in found
            found[analysis, feature] = float(corpus["weight_value"].values[row])
        at += n
    assert at == corpus.sizes["weight"]
    return found


def write_text(path: Path, text: str) -> Path:
    """Write text; compressed where the name ends in .gz."""
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_features(
    folder: Path, matrix: Any, terms: Sequence[str], name: str = "features"
) -> tuple[Path, Path]:
    """Write a feature matrix and its vocabulary, one term a line."""
    matrix_file, vocabulary = folder / f"{name}.npz", folder / f"{name}_vocabulary.txt"
    sparse.save_npz(matrix_file, sparse.csr_matrix(matrix))
    return matrix_file, write_text(vocabulary, "".join(f"{term}\n" for term in terms))


def listing(folder: Path) -> list[str]:
    """Everything in a folder, hidden or not."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
