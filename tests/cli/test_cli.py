"""The command line as a subprocess: what a person types, reads and gets back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dask
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import nimare_dask as nd

FEATURES = "data-neurosynth_version-9_vocab-V_source-S_type-T_features.npz"


def run(*words: object, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command and hold it to its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "nimare_dask", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment},
        check=False,
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Neurosynth-like files of a simulated corpus of 60 studies, and a coarse mask."""
    folder = tmp_path_factory.mktemp("files")
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:3, 3] = (-60, -84, -48)
    mask = nib.Nifti1Image(np.ones((20, 24, 20), np.uint8), affine)
    mask.to_filename(folder / "mask.nii.gz")
    corpus = nd.simulate_corpus(
        60, n_foci=600, n_features=3, effects_per_feature=1, space=nd.load_space(mask)
    )
    owner = np.repeat(corpus["study_id"].values.astype(object), corpus["analysis_n_foci"].values)
    foci = pd.DataFrame(corpus["focus_xyz"].values, columns=["x", "y", "z"])
    foci.insert(0, "id", owner)
    foci.loc[:1, "x"] = 500.0  # far outside the volume: counted and said, not dropped
    foci.to_csv(folder / "coordinates.tsv.gz", sep="\t", index=False)
    studies = pd.DataFrame({"id": corpus["study_id"].values.astype(object), "space": "MNI"})
    studies.loc[:4, "space"] = "UNKNOWN"
    studies.to_csv(folder / "metadata.tsv.gz", sep="\t", index=False)
    sparse.save_npz(folder / FEATURES, nd.corpus.weights_of(corpus))
    (folder / "vocabulary.txt").write_text("pain\nmotor\nempty lobe\n")
    return folder


@pytest.fixture(scope="module")
def corpus(files: Path) -> Path:
    """The corpus that the import command makes of those files."""
    out = files / "corpus.zarr"
    done = run(
        *("import", "neurosynth", files / "coordinates.tsv.gz", files / "metadata.tsv.gz", out),
        *("--features", files / FEATURES, files / "vocabulary.txt"),
    )
    assert "60 analyses, 600 foci and 3 features" in done.stderr
    return out


@pytest.fixture(scope="module")
def terms(files: Path, corpus: Path) -> Path:
    """The result of associate with FDR."""
    out = files / "terms.zarr"
    done = run(
        *("associate", corpus, out, "--threshold", 0.05, "--mask", files / "mask.nii.gz", "--fdr")
    )
    assert "Plan: " in done.stderr and "tasks" in done.stderr and " MB each" in done.stderr
    assert "Computing: " in done.stderr and "\r" not in done.stderr  # lines, no bar, in a log
    assert "peak memory" in done.stderr and done.stdout == ""
    assert "of 600 foci lie outside the mask" in done.stderr
    return out


def expected(corpus: Path, files: Path) -> nd.corpus.xr.Dataset:
    """The same result through the Python interface."""
    maps = nd.MKDAChi2().fit_features(
        nd.open_corpus(corpus), threshold=0.05, space=str(files / "mask.nii.gz")
    )
    return nd.correct_fdr(maps[["z"]])


def test_import__order_of_words_and_repeated_features(files: Path) -> None:
    out = files / "other.zarr"
    sparse.save_npz(files / "extra.npz", sparse.csc_matrix(np.eye(60, 2)))
    (files / "extra.txt").write_text("a\nb\n")
    run(
        *("import", "neurosynth", "--features", files / FEATURES, files / "vocabulary.txt"),
        *("--features", files / "extra.npz", files / "extra.txt"),
        *(files / "coordinates.tsv.gz", files / "metadata.tsv.gz", out),
    )
    names = nd.open_corpus(out)["feature"].values.tolist()
    assert names == ["V_S_T__pain", "V_S_T__motor", "V_S_T__empty lobe", "extra__a", "extra__b"]


def test_import__features_without_vocabulary_is_usage(files: Path) -> None:
    done = run(
        *("import", "neurosynth", files / "coordinates.tsv.gz", files / "metadata.tsv.gz"),
        *(files / "none.zarr", "--features", files / FEATURES),
        code=2,
    )
    assert "vocabulary" in done.stderr.lower()
    assert not (files / "none.zarr").exists()


def test_import__bad_file_is_one_sentence(files: Path, tmp_path: Path) -> None:
    bad = tmp_path / "coordinates.tsv"
    bad.write_text("id\tx\ty\tz\nsimulated000000\t1\tleft\t3\n")
    words = ("import", "neurosynth", bad, files / "metadata.tsv.gz", tmp_path / "out.zarr")
    done = run(*words, code=1)
    assert "Traceback" not in done.stderr
    assert f"{bad}, line 2, column y: found 'left', expected a coordinate in mm" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coordinates.tsv"]
    assert "Traceback" in run(*words, "--debug", code=1).stderr


def test_import__refuses_to_overwrite(files: Path, corpus: Path) -> None:
    before = nd.corpus.digest(nd.open_corpus(corpus))
    words = ("import", "neurosynth", files / "coordinates.tsv.gz", files / "metadata.tsv.gz")
    assert "--force" in run(*words, corpus, code=1).stderr
    assert nd.corpus.digest(nd.open_corpus(corpus)) == before


def test_info__text_and_json(corpus: Path) -> None:
    assert "foci by reported space: MNI" in run("info", corpus).stdout
    facts = json.loads(run("info", corpus, "--json", "--features").stdout)
    assert facts["foci"] == 600 and facts["features"] == 3
    assert facts["names of features"][0] == "V_S_T__pain"


def test_info__not_a_corpus(tmp_path: Path) -> None:
    assert "does not exist; expected a corpus" in run("info", tmp_path / "no.zarr", code=1).stderr


def test_associate__equals_the_python_interface(files: Path, corpus: Path, terms: Path) -> None:
    found, wanted = nd.open_result(terms), expected(corpus, files)
    for name in ("z", "z_fdr_indep"):
        np.testing.assert_array_equal(found[name].values, wanted[name].values)
    assert "unknown" not in run("info", corpus).stderr


def test_associate__says_once_that_spaces_are_unknown(files: Path, corpus: Path) -> None:
    out = files / "noted.zarr"
    done = run("associate", corpus, out, "--threshold", 0.05, "--mask", files / "mask.nii.gz")
    notes = [line for line in done.stderr.splitlines() if "not known" in line]
    assert len(notes) == 1 and notes[0].startswith("Note: ") and "taken as MNI" in notes[0]


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal needs POSIX")
def test_associate__shows_a_bar_on_a_terminal(files: Path, corpus: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = ("associate", corpus, files / "bar.zarr", "--threshold", 0.05)
    words += ("--mask", files / "mask.nii.gz")
    with subprocess.Popen(
        [sys.executable, "-m", "nimare_dask", *map(str, words)], stderr=theirs, stdout=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # Linux ends a pseudo-terminal so
            pass
        assert process.wait(timeout=120) == 0
    os.close(ours)
    assert b"blocks" in shown and "━".encode() in shown and b" blocks in " not in shown


def test_associate__unknown_feature_suggests(files: Path, corpus: Path) -> None:
    words = ("associate", corpus, files / "x.zarr", "--mask", files / "mask.nii.gz")
    done = run(*words, "--feature", "pains", code=1)
    assert "No feature is called 'pains'. Did you mean V_S_T__pain" in done.stderr
    assert "Traceback" not in done.stderr and not (files / "x.zarr").exists()


def test_associate__no_scheduler_answers(files: Path, corpus: Path) -> None:
    words = ("associate", corpus, files / "y.zarr", "--mask", files / "mask.nii.gz")
    with dask.config.set({"nimare-dask.connect-timeout": "0.5s"}):
        done = run(*words, "--cluster", "tcp://127.0.0.1:9", code=1)
    assert "No Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """A scheduler with two worker processes, as deploy/README.md starts them."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


def test_associate__on_a_scheduler_gives_the_same_bits(
    files: Path, corpus: Path, terms: Path, scheduler: str
) -> None:
    out = files / "distributed.zarr"
    words = ("associate", corpus, out, "--threshold", 0.05, "--mask", files / "mask.nii.gz")
    run(*words, "--fdr", "--cluster", scheduler)
    for name in ("z", "z_fdr_indep"):
        np.testing.assert_array_equal(nd.open_result(out)[name], nd.open_result(terms)[name])


def test_export__names_and_values(terms: Path, tmp_path: Path) -> None:
    done = run("export", terms, tmp_path / "maps", "--feature", "pain", "--png")
    folder = tmp_path / "maps" / "V_S_T__pain"
    names = {path.name for path in folder.glob("*.nii.gz")}
    assert names == {
        f"z_desc-{effect}{suffix}.nii.gz"
        for effect in ("association", "uniformity")
        for suffix in ("", "_level-voxel_corr-FDR_method-indep")
    }
    assert sorted(done.stdout.splitlines()) == sorted(str(folder / name) for name in names)
    assert len(list(folder.glob("*.png"))) == 4
    image = nib.load(folder / "z_desc-association.nii.gz")
    wanted = nd.get_map(nd.open_result(terms), "z_desc-association", feature="pain")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), np.asanyarray(wanted.dataobj))
    assert image.get_data_dtype() == np.float32


def test_export__unknown_map(terms: Path, tmp_path: Path) -> None:
    done = run("export", terms, tmp_path / "maps", "--map", "z_desc-asociation", code=1)
    assert "Did you mean z_desc-association" in done.stderr
    assert not (tmp_path / "maps").exists()


def test_usage__wrong_words_exit_2() -> None:
    run("associate", code=2)
    run("nonsense", code=2)


def test_version__is_the_package_version() -> None:
    assert run("--version").stdout.strip() == f"nimare-dask {nd.__version__}"


@pytest.mark.slow
def test_demo__simulated_finds_the_planted_places(tmp_path: Path) -> None:
    done = run("demo", "--simulate", "--out", tmp_path / "demo")
    assert "8 of 8 planted places have a peak within 10 mm" in done.stdout
    assert len(list((tmp_path / "demo" / "pictures").glob("*.png"))) == 4
    assert "Done in " in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.long
def test_demo__real_database(tmp_path: Path, data_folder: Path) -> None:
    done = run("demo", "--data", data_folder, "--out", tmp_path / "demo")
    assert "14,371 analyses and 507,891 foci" in done.stderr
    peaks = pd.read_csv(tmp_path / "demo" / "peaks.tsv", sep="\t")
    motor = peaks[peaks["feature"] == "17_motor_cortex_hand"].iloc[0]
    # Hand area of the left precentral gyrus.
    assert np.linalg.norm(motor[["x", "y", "z"]].to_numpy(float) - (-36, -20, 58)) < 12
    images = list((tmp_path / "demo" / "maps").rglob("*.nii.gz"))
    assert len(images) == 8


def test_demo__data_folder_without_the_files(tmp_path: Path) -> None:
    done = run("demo", "--data", tmp_path, "--out", tmp_path / "demo", code=1)
    assert "does not hold all files of Neurosynth 7" in done.stderr
    assert not (tmp_path / "demo").exists()
