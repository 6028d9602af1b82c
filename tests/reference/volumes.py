"""Volumes small enough to be written down."""

import numpy as np


def line(*values: float) -> np.ndarray:
    """Values as a volume (1, 1, voxel)."""
    return np.array(values, dtype=np.float64).reshape(1, 1, -1)
