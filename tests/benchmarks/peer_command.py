"""What a user of NiMARE runs for a corrected ALE map, as a program of its own.

``python -m tests.benchmarks.peer_command STUDYSET MASK OUT N_ITERS``: from NIMADS to images.
"""

from __future__ import annotations

import sys

from nimare.correct import FWECorrector
from nimare.meta.cbma.ale import ALE
from nimare.studyset import Studyset


def main(studyset: str, mask: str, out: str, n_iters: str) -> None:
    """Fit, correct and write."""
    estimator = ALE(kernel__sample_size=20, mask=mask)
    result = estimator.fit(Studyset(studyset, target="mni152_2mm"))
    corrector = FWECorrector(
        method="montecarlo", voxel_thresh=0.001, n_iters=int(n_iters), n_cores=1
    )
    corrector.transform(result).save_maps(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
