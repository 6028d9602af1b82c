"""A small database as files, and a mask, for the scripts to begin with."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import sparse

#: Names of the files that scripts take, in order.
FILES = ("coordinates.tsv", "metadata.tsv", "f.npz", "v.txt")


def write_files(folder: Path) -> None:
    """Write 30 studies of 10 foci with the features a, b, c and d, and mask.nii.gz."""
    rng = np.random.default_rng(0)
    ids = [f"s{index}" for index in range(30)]
    foci = pd.DataFrame(rng.integers(-40, 40, (300, 3)), columns=["x", "y", "z"])
    foci.insert(0, "id", np.repeat(ids, 10))
    foci.to_csv(folder / "coordinates.tsv", sep="\t", index=False)
    pd.DataFrame({"id": ids}).to_csv(folder / "metadata.tsv", sep="\t", index=False)
    sparse.save_npz(folder / "f.npz", sparse.csc_matrix(rng.random((30, 4)) > 0.5, dtype=float))
    (folder / "v.txt").write_text("a\nb\nc\nd\n")
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = -60
    nib.Nifti1Image(np.ones((20, 20, 20), np.uint8), affine).to_filename(folder / "mask.nii.gz")
