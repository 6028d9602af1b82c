"""The flagship: every feature with FDR and FWE, interrupted and gone on with."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from distributed import LocalCluster

import nimare_dask as nd
from tests.pipelines.files import FILES, write_files

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "neurosynth_wide.py"


def command(folder: Path, out: str, *more: str) -> list[str]:
    options = ["--threshold", "0.5", "--min-analyses", "5", "--space", str(folder / "mask.nii.gz")]
    files = [str(folder / name) for name in (*FILES, out)]
    return [sys.executable, str(SCRIPT), *files, *options, *more]


def run(folder: Path, out: str, *more: str) -> list[str]:
    done = subprocess.run(
        command(folder, out, *more), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_neurosynth_wide__killed_and_gone_on_with_on_a_cluster(tmp_path: Path) -> None:
    write_files(tmp_path)
    images = run(tmp_path, "whole", "--n-iters", "60", "--feature", "c")
    assert len(images) == 5  # z, its FDR, and three by FWE
    whole = nd.open_result(tmp_path / "whole" / "features.zarr")
    assert whole.sizes["feature"] == 4
    assert whole["inference"].values.tolist() == ["voxel", "size", "mass"]
    name = "z_desc-associationMass_level-cluster_corr-FWE_method-montecarlo"
    image = nib.load(tmp_path / "whole" / "maps" / "f__c" / f"{name}.nii.gz")
    np.testing.assert_array_equal(
        np.asanyarray(image.dataobj),
        np.asanyarray(nd.get_map(whole, name, feature="c").dataobj),
    )

    many = ("--n-iters", "4000")
    killed = subprocess.Popen(command(tmp_path, "out", *many), stderr=subprocess.DEVNULL)
    chunks = tmp_path / "out" / "null.zarr" / "null_max" / "c"
    until = time.monotonic() + 60
    while len(list(chunks.glob("*"))) < 3 and killed.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    n_done = len(list(chunks.glob("*")))
    assert 3 <= n_done < 16
    assert not (tmp_path / "out" / "features.zarr").exists()
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        run(tmp_path, "out", *many, "--cluster", cluster.scheduler_address)
    run(tmp_path, "undisturbed", *many)
    nulls = [nd.open_null(tmp_path / out / "null.zarr") for out in ("out", "undisturbed")]
    np.testing.assert_array_equal(nulls[0]["null_max"], nulls[1]["null_max"])
    results = [nd.open_result(tmp_path / out / "features.zarr") for out in ("out", "undisturbed")]
    for variable in ("z", "z_fdr_indep", "z_fwe"):
        np.testing.assert_array_equal(results[0][variable], results[1][variable])


def test_neurosynth_wide__uses_public_names_only() -> None:
    lines = [line for line in SCRIPT.read_text().splitlines() if "nimare_dask" in line]
    imports = [line for line in lines if line.startswith(("import", "from"))]
    assert imports == ["import nimare_dask as nd"]
