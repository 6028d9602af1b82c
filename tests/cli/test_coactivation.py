"""The verb coactivation: what it writes for each kind of targets, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import nimare_dask as nd
from tests.builders import small_space
from tests.command import run, write_mask

SPACE = small_space()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 60 analyses, a mask, and an atlas of eight parcels with names."""
    place = tmp_path_factory.mktemp("coactivation")
    write_mask(SPACE, place / "mask.nii.gz")
    i, j, k = np.indices(SPACE.shape)
    values = 1 + (i > 5) + 2 * (j > 6) + 4 * (k > 5)
    nib.Nifti1Image(values.astype(np.int16), SPACE.affine).to_filename(place / "atlas.nii.gz")
    lines = [f"{number}\tpart {number}" for number in range(1, 9)]
    (place / "names.tsv").write_text("\n".join(["index\tname", *lines]) + "\n")
    (place / "points.txt").write_text("-8 0 -8\n16 8 0\n")
    (place / "away.txt").write_text("900 0 0\n")
    nd.save_corpus(
        nd.simulate_corpus(60, n_foci=150, n_features=2, space=SPACE), place / "corpus.zarr"
    )
    return place


def coactivation(folder: Path, out: str, *words: object, code: int = 0) -> str:
    given = ["--mask", folder / "mask.nii.gz"]
    done = run("coactivation", folder / "corpus.zarr", folder / out, *given, *words, code=code)
    return done.stderr


@pytest.mark.parametrize("kind", ["atlas", "share", "grid", "xyz"])
def test_coactivation__equals_the_python_interface(folder: Path, kind: str) -> None:
    atlas, names = folder / "atlas.nii.gz", folder / "names.tsv"
    space = nd.load_space(str(folder / "mask.nii.gz"))
    words: dict[str, list[Any]] = {
        "atlas": ["--atlas", atlas, "--labels", names, "--fdr"],
        "share": ["--atlas", atlas, "--min-overlap", "0.5", "--r", 20],
        "grid": ["--grid", 16],
        "xyz": ["--xyz", folder / "points.txt", "--effect", "uniformity", "--r", 20],
    }
    said = coactivation(folder, f"{kind}.zarr", *words[kind])
    targets: dict[str, Any] = {
        "grid": nd.grid_targets(space, step=16),
        "xyz": [[-8, 0, -8], [16, 8, 0]],
    }
    more: dict[str, Any] = {"atlas": {"labels": names}, "share": {"min_overlap": 0.5}}.get(kind, {})
    wanted = nd.coactivation(
        nd.open_corpus(folder / "corpus.zarr"),
        targets.get(kind, atlas),
        kernel=nd.MKDAKernel(r=20 if kind in ("share", "xyz") else 10),
        space=space,
        **more,
    )
    found = nd.open_result(folder / f"{kind}.zarr")
    assert f"{wanted.sizes['feature']} targets, each activated by " in said
    np.testing.assert_array_equal(found["n_both"], wanted["n_both"])
    effect = "uniformity" if kind == "xyz" else "association"
    np.testing.assert_array_equal(found["z"].sel(effect=effect), wanted["z"].sel(effect=effect))
    assert ("z_fdr_indep" in found) == (kind == "atlas")
    if kind == "atlas":
        run("export", folder / "atlas.zarr", folder / "maps", "--feature", "part 3")
        assert (folder / "maps" / "part_3" / "z_desc-association.nii.gz").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "one of --atlas IMAGE, --grid MM and --xyz FILE; none is given."),
        (["--grid", 16, "--xyz", "a.txt"], "--grid and --xyz are given."),
        (["--grid", 16, "--labels", "a.tsv"], "--labels is for --atlas."),
        (["--grid", 3], "step is 3 mm; expected a multiple"),
        (["--atlas", "none.nii"], "none.nii could not be read as an image"),
        (["--grid", 16, "--min-overlap", "some"], "--min-overlap is 'some'; expected a number"),
        (["--grid", 16, "--min-overlap", "0"], "min_overlap is 0; expected a number of voxels"),
        (["--xyz", "none.txt"], "none.txt could not be read as points"),
        (["--xyz", "away.txt"], "None of 1 target points lies in"),
    ],
)
def test_coactivation__refuses_in_a_sentence(folder: Path, words: list[object], says: str) -> None:
    words = [folder / word if word == "away.txt" else word for word in words]
    said = coactivation(folder, "refused.zarr", *words, code=1)
    assert said.splitlines()[-1].startswith("Error: ")
    assert says in said
    assert not (folder / "refused.zarr").exists()
