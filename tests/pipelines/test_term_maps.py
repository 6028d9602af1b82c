"""The pipeline script runs as its text says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

import nimare_dask as nd
from tests.pipelines.files import FILES, write_files

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "term_maps.py"


def test_term_maps__from_files_to_images(tmp_path: Path) -> None:
    write_files(tmp_path)
    names = (*FILES, "out")
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
