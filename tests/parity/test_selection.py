"""Selections against NiMARE 0.22.1: the same analyses, and the same foci."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose

from nimare_dask.activation import foci_pool
from nimare_dask.nearby import FocusFilter, has_focus_in, has_focus_near, nearest_analyses
from nimare_dask.selection import has_label, is_analysis, is_study
from tests.parity.cases import space, studies
from tests.parity.peer import (
    PREFIX,
    Database,
    image_of,
    open_database,
    quiet,
    simulated_database,
)
from tests.parity.peer_cbma import peer_module

pytestmark = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")

#: In the amygdala, in the visual cortex, between voxels, outside the brain.
POINTS = [(-22, -4, -18), (4, -86, 2), (33.3, 21.7, -8.1), (0, 0, 90), (300, 0, 0)]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """120 studies of all three spaces."""
    return open_database(simulated_database(tmp_path_factory.mktemp("db"), n=120, seed=5))


@pytest.fixture(scope="module", params=["simulated", "laird", "nback_flanker"])
def both(request: pytest.FixtureRequest, database: Database) -> tuple[Any, xr.Dataset]:
    """A studyset and its corpus."""
    if request.param == "simulated":
        return database.studyset, database.corpus
    studyset, corpus = studies(request.param)
    return studyset, corpus


def ids_of(corpus: xr.Dataset, mask: xr.DataArray) -> list[str]:
    return sorted(corpus["analysis_id"].values[mask.values].tolist())


def sphere(centre: tuple[float, float, float], r: float, zoom: float) -> nib.Nifti1Image:
    """A region on a grid of its own, smaller than the brain."""
    affine = np.diag([-zoom, zoom, zoom, 1.0])
    affine[:3, 3] = np.array(centre) + np.array([1, -1, -1]) * zoom * 12
    at = np.stack(np.meshgrid(*[np.arange(25)] * 3, indexing="ij"), axis=-1)
    mm = at @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(mm - centre, axis=-1) <= r
    return nib.Nifti1Image(inside.astype(np.uint8), affine)


@pytest.mark.parametrize("r", [0, 4, 10, 20.5])
def test_has_focus_near__ids_are_those_of_the_peer(both: Any, r: float) -> None:
    studyset, corpus = both
    n_found = 0
    for point in POINTS:
        with quiet():
            theirs = sorted(studyset.get_analyses_by_coordinate(point, r=r))
        found = ids_of(corpus, has_focus_near(corpus, point, r))
        assert found == theirs
        n_found += len(found)
    assert n_found or r < 10
    with quiet():
        theirs = sorted(studyset.get_studies_by_coordinate(np.array(POINTS), r=r))
    assert ids_of(corpus, has_focus_near(corpus, POINTS, r)) == theirs


@pytest.mark.parametrize("n", [1, 5, 40])
def test_nearest_analyses__begin_with_those_of_the_nearest_foci_of_the_peer(
    both: Any, n: int
) -> None:
    # The peer takes the n nearest foci, which may be of fewer analyses; here it is n analyses.
    studyset, corpus = both
    n = min(n, corpus.sizes["analysis"])
    with quiet():
        block = studyset.coordinate_block()
    for point in POINTS[:3]:
        with quiet():
            theirs = set(studyset.get_analyses_by_coordinate(point, n=n))
        distance = np.sort(np.linalg.norm(block.xyz - np.array(point), axis=1))
        found = nearest_analyses(corpus, point, len(theirs))
        assert int(found.sum()) == len(theirs) <= n
        if n == len(distance) or distance[n] > distance[n - 1] + 1e-9:
            assert set(ids_of(corpus, found)) == theirs
        assert int(nearest_analyses(corpus, point, n).sum()) == n


@pytest.mark.parametrize("zoom", [1.0, 2.0, 3.0])
def test_has_focus_in__ids_are_those_of_the_peer(both: Any, zoom: float, tmp_path: Path) -> None:
    studyset, corpus = both
    n_found = 0
    for place, point in enumerate(POINTS[:4]):
        image = sphere(point, 8 * zoom, zoom)
        path = tmp_path / f"{place}.nii.gz"
        nib.save(image, path)
        with quiet():
            theirs = sorted(studyset.get_analyses_by_mask(image))
        assert ids_of(corpus, has_focus_in(corpus, image)) == theirs
        assert ids_of(corpus, has_focus_in(corpus, path)) == theirs
        n_found += len(theirs)
    assert n_found


def test_has_focus_in__of_the_whole_brain(both: Any) -> None:
    studyset, corpus = both
    with quiet():
        theirs = sorted(studyset.get_analyses_by_mask(image_of(space())))
    assert ids_of(corpus, has_focus_in(corpus, space())) == theirs


@pytest.mark.parametrize("names", [["0_a"], ["0_a", "2_c"], ["0_a", "1_b", "2_c", "3_d"]])
@pytest.mark.parametrize("threshold", [0.001, 0.8])
def test_has_label__ids_are_those_of_the_peer(
    database: Database, names: list[str], threshold: float
) -> None:
    labels = [f"{PREFIX}{name}" for name in names]
    with quiet():
        theirs = sorted(database.studyset.get_analyses_by_label(labels, label_threshold=threshold))
        either = database.studyset.filter_annotations(labels, threshold=threshold, match="any")
    corpus = database.corpus
    assert ids_of(corpus, has_label(corpus, names, threshold)) == theirs
    found = ids_of(corpus, has_label(corpus, names, threshold, match="any"))
    assert found == sorted(either.ids.tolist())
    assert 0 < len(found) < 120


def test_is_analysis__and_is_study_keep_what_the_peer_keeps(database: Database) -> None:
    corpus = database.corpus
    ids, study_ids = corpus["analysis_id"].values[::7], corpus["study_id"].values[::5]
    with quiet():
        kept = database.studyset.filter_ids(ids.tolist())
        of_studies = database.studyset.filter_study_ids(study_ids.tolist())
        without = database.studyset.exclude_study_ids(study_ids.tolist())
    assert ids_of(corpus, is_analysis(corpus, ids)) == sorted(kept.ids.tolist())
    assert ids_of(corpus, is_study(corpus, study_ids)) == sorted(of_studies.ids.tolist())
    assert ids_of(corpus, ~is_study(corpus, study_ids)) == sorted(without.ids.tolist())


@pytest.mark.parametrize("region", ["brain", "sphere"])
def test_focus_filter__keeps_the_foci_of_the_peer(both: Any, region: str) -> None:
    studyset, corpus = both
    mask = image_of(space()) if region == "brain" else sphere((0, -20, 10), 45, 4.0)
    with quiet():
        filtered = peer_module("diagnostics").FocusFilter(mask=mask).transform(studyset)
        theirs = filtered.coordinates
    ours = FocusFilter(mask=mask).transform(corpus)
    assert ours["analysis_id"].values.tolist() == corpus["analysis_id"].values.tolist()
    names, n_foci = ours["analysis_id"].values.tolist(), ours["analysis_n_foci"].values
    counts = dict(zip(names, n_foci.tolist(), strict=True))
    expected = theirs["id"].value_counts().to_dict()
    assert {name: n for name, n in counts.items() if n} == expected
    assert 0 < ours.sizes["focus"] < corpus.sizes["focus"]
    order = np.argsort(theirs["id"].to_numpy(str), kind="stable")
    pool = foci_pool(ours, space())
    owner = np.repeat(np.array(names, str), n_foci)
    ordered = pool[np.argsort(owner, kind="stable")]
    assert_allclose(ordered, theirs[["x", "y", "z"]].to_numpy(float)[order], rtol=0, atol=1e-9)
