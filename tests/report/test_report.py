"""Tables of peaks and pictures."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from nimare_dask.report.figures import save_picture
from nimare_dask.report.peaks import COLUMNS, peak_table, write_tsv


def image_of(values: np.ndarray) -> nib.Nifti1Image:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-60, -84, -48)
    return nib.Nifti1Image(values.astype(np.float32), affine)


def two_blobs() -> nib.Nifti1Image:
    values = np.zeros((30, 36, 30))
    values[5:8, 5:8, 5:8] = 3.0
    values[6, 6, 6] = 9.0
    values[20:23, 20:23, 20:23] = 4.0
    values[21, 21, 21] = 6.0
    values[28, 28, 28] = 20.0  # a single voxel: too small
    return image_of(values)


def test_peak_table__highest_first_and_small_clusters_left_out() -> None:
    table = peak_table(two_blobs(), cluster_voxels=10)
    assert list(table.columns) == COLUMNS
    assert table["peak_z"].tolist() == [9.0, 6.0]
    assert table[["x", "y", "z"]].to_numpy(float).tolist() == [[-36, -60, -24], [24, 0, 36]]
    assert table["cluster_mm3"].tolist() == [27 * 64, 27 * 64]


def test_peak_table__nothing_passes(tmp_path: Path) -> None:
    table = peak_table(image_of(np.zeros((30, 36, 30))))
    assert table.empty and list(table.columns) == COLUMNS
    assert write_tsv(table, tmp_path / "new" / "peaks.tsv").read_text() == "\t".join(COLUMNS) + "\n"


def test_save_picture__is_a_png(tmp_path: Path) -> None:
    path = save_picture(two_blobs(), tmp_path / "new" / "blobs.png", title="two blobs")
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG") and len(data) > 20_000


def test_save_picture__nothing_passes(tmp_path: Path) -> None:
    path = save_picture(image_of(np.zeros((30, 36, 30))), tmp_path / "empty.png", title="none")
    assert path.read_bytes().startswith(b"\x89PNG")
