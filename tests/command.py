"""Commands that run in this process, which has loaded everything."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nimare_dask.cli.app import main
from nimare_dask.parallel import checkpoints
from nimare_dask.space import Space


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The sentence that it ended with."""
        return self.stderr.splitlines()[-1]


def run(*words: object, code: int = 0) -> Done:
    """Run a command and hold it to its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    done = Done(out.getvalue(), err.getvalue())
    assert (ended.value.code or 0) == code, f"exit {ended.value.code}\n{done.stdout}\n{done.stderr}"
    return done


def interrupt_at_batch(patch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C just before that batch of null iterations is written, counted from 1."""
    write, seen = checkpoints.write_batch, [0]

    def write_or_stop(*given: object) -> None:
        seen[0] += 1
        if seen[0] == number:
            raise KeyboardInterrupt
        write(*given)  # type: ignore[arg-type]

    patch.setattr(checkpoints, "write_batch", write_or_stop)


def write_mask(space: Space, path: Path) -> Path:
    """The mask of a space as an image."""
    nib.Nifti1Image(space.mask.astype(np.uint8), space.affine).to_filename(path)
    return path
