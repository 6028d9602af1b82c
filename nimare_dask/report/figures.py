"""Pictures of maps, by nilearn."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import nibabel as nib


def save_picture(image: nib.Nifti1Image, path: str | Path, *, title: str) -> Path:
    """Write a picture of a thresholded map: three cuts through its peak, and a glass brain.

    Parameters
    ----------
    image
        0 where it does not pass.
    path
        A file that ends in .png (or another ending that matplotlib knows).
    title
        What stands above it.
    """
    import matplotlib

    matplotlib.use("Agg", force=False)
    from matplotlib import pyplot
    from nilearn import plotting

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    values = np.nan_to_num(np.asarray(image.get_fdata()))
    if not values.any():
        title = f"{title} (nothing passes)"
    top = float(np.abs(values).max()) or 1.0
    peak = np.unravel_index(int(np.argmax(np.abs(values))), values.shape)
    centre = (image.affine @ [*peak, 1])[:3]
    figure, axes = pyplot.subplots(2, 1, figsize=(9, 6.4), height_ratios=(1, 0.9))
    try:
        with warnings.catch_warnings():
            # nilearn warns of a map that is 0 everywhere; the title says it.
            warnings.filterwarnings("ignore", "empty mask", UserWarning)
            figure.suptitle(title)
            plotting.plot_stat_map(
                image, axes=axes[0], cut_coords=tuple(centre), vmax=top, threshold=1e-6
            )
            plotting.plot_glass_brain(
                image,
                axes=axes[1],
                display_mode="lyrz",
                plot_abs=False,
                vmax=top,
                threshold=1e-6,
                colorbar=True,
                cbar_tick_format="%.0f",
            )
            figure.savefig(target, dpi=110, bbox_inches="tight")
    finally:
        pyplot.close(figure)
    return target
