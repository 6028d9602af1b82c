"""MACM against NiMARE 0.22.1: the same analyses report in a region, and their ALE is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from nimare_dask.nearby import has_focus_in, has_focus_near
from nimare_dask.selection import select
from nimare_dask.space import voxel_to_mm
from tests.parity.agreement import assert_fits_agree
from tests.parity.cases import SIZE_20, Case, ale, error_of, space, studies
from tests.parity.peer import quiet
from tests.parity.peer_cbma import corpus_of, peer_fit

pytestmark = pytest.mark.filterwarnings("ignore::nimare_dask.errors.CorpusWarning")

CASE = Case("laird", "ale", ale(**SIZE_20), SIZE_20, most=5)
#: In the anterior insula, which many of those studies report; mm.
SEED, R = (36.0, 20.0, 0.0), 12.0


def region() -> nib.Nifti1Image:
    """The voxels around the seed."""
    where = space()
    values = np.zeros(where.shape, np.uint8)
    centres = voxel_to_mm(where.voxel_ijk, where.affine)
    values[where.mask] = np.linalg.norm(centres - SEED, axis=1) <= R
    return nib.Nifti1Image(values, where.affine)


@pytest.mark.parametrize("kind", ["xyz", "roi"])
def test_macm__same_analyses_and_same_ale(kind: str, tmp_path: Path) -> None:
    studyset, corpus = studies(CASE.studyset)
    with quiet():
        if kind == "xyz":
            theirs: Any = studyset.get_analyses_by_coordinate([SEED], r=R)
            mask = has_focus_near(corpus, SEED, r=R)
        else:
            region().to_filename(tmp_path / "roi.nii.gz")
            theirs = studyset.get_analyses_by_mask(str(tmp_path / "roi.nii.gz"))
            mask = has_focus_in(corpus, tmp_path / "roi.nii.gz")
        part = studyset.slice(list(theirs))
    chosen = select(corpus, mask)
    ids = chosen["analysis_id"].values.tolist()
    assert sorted(ids) == sorted(map(str, theirs))
    assert 3 < len(ids) < corpus.sizes["analysis"]
    assert corpus_of(part)["analysis_id"].values.tolist() == ids
    ours = CASE.estimator.fit(chosen, space=space())
    maps, nulls, _ = peer_fit(CASE.kind, part, space(), **CASE.settings)
    error = error_of(CASE, chosen, maps["stat"], space())
    assert_fits_agree(ours, maps, nulls, error, most=CASE.most)
