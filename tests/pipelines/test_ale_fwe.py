"""The ALE pipeline runs as its text says, and goes on where it stopped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

import nimare_dask as nd
from tests.builders import coarse_space

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "ale_fwe.py"


def test_ale_fwe__from_corpus_to_images(tmp_path: Path) -> None:
    space = coarse_space()
    nib.Nifti1Image(space.mask.astype(np.uint8), space.affine).to_filename(tmp_path / "m.nii.gz")
    corpus = nd.simulate_corpus(20, n_foci=200, n_features=2, space=space)
    nd.save_corpus(corpus, tmp_path / "corpus.zarr")
    options = ["--select", "simulated__000", "--threshold", "0.1", "--sample-size", "20"]
    options += ["--n-iters", "20", "--seed", "4", "--space", str(tmp_path / "m.nii.gz")]
    command = [sys.executable, SCRIPT, tmp_path / "corpus.zarr", tmp_path / "out", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    images = [Path(line).name for line in done.stdout.splitlines()]
    assert "z_desc-size_level-cluster_corr-FWE_method-montecarlo.nii.gz" in images
    first = nd.open_result(tmp_path / "out" / "result.zarr").load()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    second = nd.open_result(tmp_path / "out" / "result.zarr")
    np.testing.assert_array_equal(first["z_fwe"].values, second["z_fwe"].values)


def test_ale_fwe__uses_public_names_only() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if "nimare_dask" in line]
    assert [line for line in lines if line.startswith(("import", "from"))] == [
        "import nimare_dask as nd"
    ]
