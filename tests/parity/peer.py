"""The peer, NiMARE, as an oracle: databases that both read, and its maps by name."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from scipy import sparse

from nimare_dask import results
from nimare_dask.io.neurosynth import read_neurosynth
from nimare_dask.space import Space, load_space, voxel_to_mm
from nimare_dask.stats import pz

STEM = "data-neurosynth_version-7_"
FEATURES = f"{STEM}vocab-LDA50_source-abstract_type-weight_features.npz"
VOCABULARY = f"{STEM}vocab-LDA50_vocabulary.txt"
PREFIX = "LDA50_abstract_weight__"

#: One rounding to float32.
ONE_FLOAT32 = float(np.finfo(np.float32).eps)


@contextmanager
def quiet() -> Iterator[None]:
    """NiMARE's warnings and log messages are none of ours."""
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


@dataclass(frozen=True)
class Database:
    """A database in Neurosynth's format, as both packages read it."""

    corpus: xr.Dataset
    studyset: Any
    folder: Path

    def ids(self, mask: NDArray[np.bool_]) -> list[str]:
        chosen: list[str] = self.corpus["analysis_id"].values[mask].tolist()
        return chosen

    def slice(self, mask: NDArray[np.bool_]) -> Any:
        """The chosen analyses as the peer has them."""
        with quiet():
            return self.studyset.slice(self.ids(mask))


def open_database(folder: Path) -> Database:
    """Read the files of `folder` with both."""
    tables = [folder / f"{STEM}{name}.tsv.gz" for name in ("coordinates", "metadata")]
    pair = (folder / FEATURES, folder / VOCABULARY)
    with quiet():
        from nimare.io import convert_neurosynth_to_studyset

        studyset = convert_neurosynth_to_studyset(
            *map(str, tables),
            annotations_files={"features": str(pair[0]), "vocabulary": str(pair[1])},
        )
    return Database(read_neurosynth(*tables, [pair]), studyset, folder)


def write_database(
    folder: Path,
    metadata: pd.DataFrame,
    coordinates: pd.DataFrame,
    weights: Any,
    names: Sequence[str],
) -> Path:
    """Write a small database in Neurosynth's format."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("metadata", metadata), ("coordinates", coordinates)):
        table.to_csv(folder / f"{STEM}{name}.tsv.gz", sep="\t", index=False)
    sparse.save_npz(folder / FEATURES, sparse.csr_matrix(weights))
    (folder / VOCABULARY).write_text("\n".join(names) + "\n")
    return folder


def simulated_database(folder: Path, n: int = 60, seed: int = 0) -> Path:
    """Foci in whole mm of all three spaces, many on ties between voxels, some outside."""
    rng = np.random.default_rng(seed)
    brain = load_space("mni152_2mm")
    # Ids are not in sorted order, in which NiMARE keeps its analyses.
    ids = rng.permutation(np.arange(10_000_000, 10_000_000 + n)).astype(str)
    metadata = pd.DataFrame(
        {"id": ids, "doi": "", "space": rng.choice(["MNI", "TAL", "UNKNOWN"], n)}
    )
    for name in ("title", "authors", "journal"):
        metadata[name] = name
    metadata["year"] = 2001
    size = rng.integers(1, 30, n)
    owner = np.repeat(ids, size)
    xyz = voxel_to_mm(brain.voxel_ijk[rng.integers(brain.n_voxels, size=len(owner))], brain.affine)
    xyz = np.round(xyz + rng.normal(0, 6, xyz.shape))
    xyz[:5] = [[0, 0, 90], [-91, 0, 0], [75, 0, 0], [0, 95, 0], [300, 0, 0]]  # outside
    xyz[5:8] = xyz[8]  # duplicates
    xyz[8::7] += 0.5
    coordinates = pd.DataFrame({"id": owner, "table_id": "1", "table_num": "1", "peak_id": "1"})
    coordinates[["x", "y", "z"]] = xyz
    weights = rng.uniform(size=(n, 4))
    weights[weights < 0.6] = 0
    return write_database(folder, metadata, coordinates, weights, ["0_a", "1_b", "2_c", "3_d"])


def real_subset(folder: Path, source: Path, topic: str, n_with: int, n_without: int) -> Path:
    """Some studies of Neurosynth that have a topic, and some that have not."""
    tables = {
        name: pd.read_csv(
            source / f"{STEM}{name}.tsv.gz", sep="\t", dtype={"id": str}, keep_default_na=False
        )
        for name in ("metadata", "coordinates")
    }
    weights = sparse.load_npz(source / FEATURES).tocsr()
    names = (source / VOCABULARY).read_text().splitlines()
    has = weights[:, [names.index(topic)]].toarray().ravel() >= 0.1
    rng = np.random.default_rng(0)
    rows = [
        rng.choice(np.flatnonzero(mask), n, replace=False)
        for mask, n in ((has, n_with), (~has, n_without))
    ]
    chosen = np.sort(np.concatenate(rows))
    metadata = tables["metadata"].iloc[chosen]
    kept = tables["coordinates"]["id"].isin(metadata["id"])
    return write_database(folder, metadata, tables["coordinates"][kept], weights[chosen], names)


def studyset_of(corpora: Sequence[xr.Dataset]) -> Any:
    """The analyses of corpora as the peer's studyset, also those without foci."""
    studies = []
    for corpus in corpora:
        ends = np.cumsum(corpus["analysis_n_foci"].values)[:-1]
        xyz = np.split(corpus["focus_xyz"].values, ends)
        codes = np.split(corpus["focus_space"].values, ends)
        names = corpus["study_id"].values.tolist()
        for name, points, spaces in zip(names, xyz, codes, strict=True):
            foci = [
                {"coordinates": point, "space": corpus.attrs["spaces"][code], "values": []}
                for point, code in zip(points.tolist(), spaces, strict=True)
            ]
            analysis = {"id": "1", "name": "1", "points": foci, "images": [], "metadata": {}}
            analysis |= {"conditions": [], "weights": []}
            study = {"id": name, "name": "", "authors": "", "publication": "", "metadata": {}}
            studies.append({**study, "analyses": [analysis]})
    with quiet():
        from nimare.studyset import Studyset

        return Studyset({"id": "s", "name": "s", "studies": studies}, target="mni152_2mm")


def image_of(space: Space) -> nib.Nifti1Image:
    """Our mask as an image, so that both have the same voxels in the same order."""
    return nib.Nifti1Image(space.mask.astype(np.uint8), space.affine)


def peer_space(name: str = "mni152_2mm") -> Space:
    """The peer's own mask as a space."""
    with quiet():
        from nimare.utils import get_template

        return load_space(get_template(name, mask="brain"))


def peer_fit(
    database: Database, mask: NDArray[np.bool_], space: Space, r: float = 10
) -> dict[str, NDArray[Any]]:
    """Every map of the peer: MKDA chi-square of `mask` against the rest, and both FDRs."""
    return peer_maps(database.slice(mask), database.slice(~mask), space, r)


def peer_maps(selected: Any, unselected: Any, space: Space, r: float) -> dict[str, NDArray[Any]]:
    """The same of two studysets."""
    with quiet():
        from nimare.correct import FDRCorrector
        from nimare.meta.cbma.mkda import MKDAChi2

        estimator = MKDAChi2(kernel__r=r, mask=image_of(space))
        fitted = estimator.fit(selected, unselected)
        maps = dict(fitted.maps)
        for method in ("indep", "negcorr"):
            maps |= FDRCorrector(method=method).transform(fitted).maps
    return maps


def maps_of(result: xr.Dataset) -> dict[str, NDArray[np.float32]]:
    """Every map of ours by the name that the peer gives it."""
    return {key.name: results.find_map(result, key.name) for key in results.map_keys(result)}


def fdr_error(p: NDArray[np.float32], chi2: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far ln of a corrected p may be from the peer's, from what each side rounds, (voxel,).

    We take ln p from the square of z: three roundings of chi-square, of which ln p is about half.
    The peer takes it from its float32 p map, one rounding, but below 1.2e-38 such a p has few
    digits left and finally one; where it is at its floor the peer takes its float32 logp. A
    corrected value moves by at most the largest error of its own p and of larger ones.
    """
    wide = p.astype(np.float64)
    floored = p <= np.finfo(np.float32).smallest_subnormal
    rounding = np.maximum(ONE_FLOAT32 / 2, np.spacing(p).astype(np.float64) / 2 / wide)
    nlogp = -pz.chi2_to_nlogp(chi2)
    with np.errstate(divide="ignore"):  # a share of 1 is at the floor, where it is not used
        error = np.where(floored, ONE_FLOAT32 / 2 * nlogp, -np.log1p(-rounding))
    error += 1.5 * ONE_FLOAT32 * (chi2 + 1.0) / 2
    order = np.argsort(chi2, kind="stable")
    error[order] = np.maximum.accumulate(error[order])
    return error


def assert_corrected_within(name: str, ours: Any, peers: Any, error: NDArray[np.float64]) -> None:
    """Hold one corrected map to what an error of ln p allows at each voxel."""
    kind = name.partition("_")[0]
    ours, peers = ours.astype(np.float64), peers.astype(np.float64)
    assert_array_equal(np.isnan(ours), np.isnan(peers), err_msg=name)
    allowed = ONE_FLOAT32 * np.abs(peers)
    if kind == "logp":
        allowed += error / np.log(10)
    elif kind == "p":
        # Both are stored as float32, which below 1.2e-38 has a fixed distance of 1.4e-45.
        allowed += np.expm1(error) * peers + 2 * pz.P_FLOOR
    else:
        # dz / d ln p is the ratio of tail to density, which is below 1 / z and at most 1.2533.
        allowed += error * np.minimum(1.2533142, 1 / np.maximum(np.abs(peers), 1e-9))
    excess = np.abs(ours - peers) - allowed
    worst = int(np.nanargmax(excess))
    assert excess[worst] <= 0, (
        f"{name}: Not equal to tolerance at {(excess > 0).sum()} voxels, worst at {worst}: "
        f"{ours[worst]} and {peers[worst]}, allowed {allowed[worst]}"
    )


def assert_maps_agree(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Hold every map to its tolerance (README.md has the reasons)."""
    assert set(ours) == set(theirs)
    for name, values in ours.items():
        peers = np.asarray(theirs[name])
        assert values.dtype == peers.dtype == np.float32, name
        if "_corr-" not in name:
            assert_allclose(values, peers, rtol=ONE_FLOAT32, atol=0, err_msg=name)
            continue
        effect = name.partition("_desc-")[2].partition("_")[0]
        uncorrected = (np.asarray(theirs[f"{kind}_desc-{effect}"]) for kind in ("p", "chi2"))
        assert_corrected_within(name, values, peers, fdr_error(*uncorrected))
