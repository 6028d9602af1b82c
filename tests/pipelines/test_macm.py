"""Coactivation with a region, end to end: a planted network is found, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import xarray as xr

import nimare_dask as nd
from tests.builders import coarse_space
from tests.command import write_mask
from tests.foci import make_corpus

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "macm.py"
#: The seed, what is active with it, and what others report; mm.
SEED, PARTNER, OTHER = (-24.0, -4.0, -16.0), (28.0, 20.0, 44.0), (0.0, -80.0, 8.0)


def network_corpus() -> xr.Dataset:
    """120 analyses, of which 30 report seed and partner and 60 another place."""
    rng, space = np.random.default_rng(0), coarse_space()
    anywhere = space.voxel_ijk @ space.affine[:3, :3].T + space.affine[:3, 3]
    foci = []
    for analysis in range(120):
        places = [SEED, PARTNER] if analysis < 30 else [OTHER] if analysis < 90 else []
        noise = anywhere[rng.integers(len(anywhere), size=6)]
        noise = noise[np.linalg.norm(noise - SEED, axis=1) > 20]
        near = [rng.normal(place, 2.0, (2, 3)) for place in places]
        foci.append(np.round(np.concatenate([noise, *near])))
    return make_corpus(foci)


def run(*words: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def value_at(path: str | Path, xyz: tuple[float, float, float]) -> float:
    """The value of an image at a point."""
    image = nib.load(path)
    ijk = np.rint(np.linalg.inv(image.affine) @ [*xyz, 1.0]).astype(int)[:3]
    return float(np.asanyarray(image.dataobj)[tuple(ijk)])


@pytest.mark.parametrize("region", ["xyz", pytest.param("roi", marks=pytest.mark.slow)])
def test_macm__finds_the_planted_network(region: str, tmp_path: Path) -> None:
    space = coarse_space()
    nd.save_corpus(network_corpus(), tmp_path / "corpus.zarr")
    mask = write_mask(space, tmp_path / "mask.nii.gz")
    options: list[object] = ["--xyz", *SEED, "--r", 8]
    if region == "roi":
        centres = space.voxel_ijk @ space.affine[:3, :3].T + space.affine[:3, 3]
        values = np.zeros(space.shape, np.uint8)
        values[space.mask] = np.linalg.norm(centres - SEED, axis=1) <= 8
        nib.Nifti1Image(values, space.affine).to_filename(tmp_path / "roi.nii.gz")
        options = ["--roi", tmp_path / "roi.nii.gz"]
    more = ["--sample-size", 20, "--n-iters", 40, "--seed", 1, "--space", mask]
    images = run(tmp_path / "corpus.zarr", tmp_path / "out", *options, *more)
    by_name = {Path(path).name: path for path in images}
    assert all(Path(path).is_file() for path in images)
    for name in (
        "z_level-voxel_corr-FWE_method-montecarlo.nii.gz",
        "z_desc-mass_level-cluster_corr-FWE_method-montecarlo.nii.gz",
        "z_desc-association_level-voxel_corr-FDR_method-indep.nii.gz",
    ):
        assert value_at(by_name[name], SEED) > 1.7, name
        assert value_at(by_name[name], PARTNER) > 1.7, name
        assert value_at(by_name[name], OTHER) < 1.0, name
    assert value_at(by_name["z_desc-association.nii.gz"], OTHER) < -2  # what the rest reports
    assert nd.open_null(tmp_path / "out" / "null.zarr").sizes["iteration"] == 40


def test_macm__uses_public_names_only() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if "nimare_dask" in line]
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert imports == ["import nimare_dask as nd"]
