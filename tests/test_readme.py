"""What the README shows is run as it stands there, on the real database."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import run

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """Code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def commands() -> list[list[str]]:
    """The commands of the README that are ours, with their lines joined."""
    lines = "\n".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("nimare-dask ")]


def test_commands__are_the_verbs_that_there_are() -> None:
    verbs = ["import", "info", "ale", "status", "contrast", "contrast", "associate", "export"]
    verbs += ["ale", "ale", "run-batch", "run-batch", "merge"]
    assert [words[1] for words in commands()] == verbs
    assert len(blocks("python")) == 3


@pytest.mark.slow
@pytest.mark.realdata
def test_readme__runs_from_import_to_images(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (data_folder / "neurosynth").iterdir():
        (tmp_path / path.name).symlink_to(path.resolve())
    for words in commands():
        if "slurm" in words:  # tests/deploy/test_slurm.py
            continue
        # The commands as they are printed, with fewer iterations.
        words = ["40" if word in ("1000", "5000", "10000") else word for word in words]
        run(*words[1:])
    folder = tmp_path / "maps" / "LDA50_abstract_weight__32_pain_somatosensory_stimulation"
    assert len(list(folder.glob("*.nii.gz"))) == len(list(folder.glob("*.png"))) == 7

    for block in blocks("python"):
        script = tmp_path / "snippet.py"
        script.write_text(re.sub(r"n_iters=\d+", "n_iters=40", block), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "pain_not_motor" / "z_desc-association.nii.gz").is_file()
    corrected = "z_desc-size_level-cluster_corr-FWE_method-montecarlo.nii.gz"
    assert (tmp_path / "pain" / corrected).is_file()
    assert (tmp_path / "pain_by_array" / corrected).is_file()
    voxel = "_level-voxel_corr-FWE_method-montecarlo.nii.gz"
    assert (tmp_path / "pain_or_not" / f"z_desc-association{voxel}").is_file()
    assert (tmp_path / "pain_or_motor" / f"z_desc-group1MinusGroup2{voxel}").is_file()
    assert (tmp_path / "pain_ale" / corrected).is_file()
