"""The pipeline script runs as its text says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import sparse

import nimare_dask as nd

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "term_maps.py"


def test_term_maps__from_files_to_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ids = [f"s{index}" for index in range(30)]
    foci = pd.DataFrame(rng.integers(-40, 40, (300, 3)), columns=["x", "y", "z"])
    foci.insert(0, "id", np.repeat(ids, 10))
    foci.to_csv(tmp_path / "coordinates.tsv", sep="\t", index=False)
    pd.DataFrame({"id": ids}).to_csv(tmp_path / "metadata.tsv", sep="\t", index=False)
    sparse.save_npz(tmp_path / "f.npz", sparse.csc_matrix(rng.random((30, 4)) > 0.5, dtype=float))
    (tmp_path / "v.txt").write_text("a\nb\nc\nd\n")
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = -60
    nib.Nifti1Image(np.ones((20, 20, 20), np.uint8), affine).to_filename(tmp_path / "mask.nii.gz")
    names = ("coordinates.tsv", "metadata.tsv", "f.npz", "v.txt", "out")
    options = ("--threshold", "0.5", "--space", str(tmp_path / "mask.nii.gz"), "--feature", "c")
    done = subprocess.run(
        [sys.executable, SCRIPT, *(tmp_path / name for name in names), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    terms = nd.open_result(tmp_path / "out" / "terms.zarr")
    assert terms.sizes["feature"] == 4
    image = nib.load(tmp_path / "out" / "maps" / "f__c" / "z_desc-association.nii.gz")
    wanted = nd.get_map(terms, "z", effect="association", feature="c")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(wanted.dataobj))


def test_term_maps__uses_public_names_only() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if "nimare_dask" in line]
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert imports == ["import nimare_dask as nd"]
