"""The verbs about files of studies: what they write and say, and that nothing is half-written."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nimare_dask.corpus import digest, open_corpus, save_corpus
from nimare_dask.io.formats import write_studies
from tests.builders import listing, tiny_corpus, write_text
from tests.command import Done, run
from tests.io.test_pubget import FILES as PUBGET
from tests.texts import quietly

DATASET = {
    "s": {"contrasts": {"1": {"coords": {"space": "MNI", "x": [1], "y": [2], "z": [3]},
                              "metadata": {"sample_sizes": [12]}}}}
}  # fmt: skip
SLEUTH = "//Reference=MNI\n//{0}, 2001; one\n//Subjects=12\n1 2 3\n4 5 6\n"


def json_text(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus in every format."""
    pytest.importorskip("pyarrow", reason="parquet files are read with pyarrow")
    folder = tmp_path_factory.mktemp("made")
    for name in ("x.zarr", "x.json", "x.json.gz", "x.txt", "x.csv", "x.tsv", "x.xlsx", "x.parquet"):
        quietly(write_studies, tiny_corpus(), folder / name)
    quietly(write_studies, tiny_corpus(), folder / "ns", format="neurosynth")
    (folder / "dataset.json").write_bytes(json_text(DATASET))
    (folder / "pubget").mkdir()
    for name, text in PUBGET.items():
        write_text(folder / "pubget" / name, text)
    return folder


def refused(*words: object) -> str:
    """The one sentence that a command ends with."""
    done = run(*words, code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.error


# import


@pytest.mark.parametrize(
    ("verb", "source", "said"),
    [
        ("nimads", "x.json", "3 studies, 4 analyses, 6 foci, 0 images and 0 features"),
        ("nimads", "x.json.gz", "3 studies, 4 analyses, 6 foci, 0 images and 0 features"),
        ("sleuth", "x.txt", "3 studies, 3 analyses, 6 foci, 0 images and 0 features"),
        ("table", "x.csv", "3 studies, 4 analyses, 6 foci, 0 images and 0 features"),
        ("table", "x.xlsx", "3 studies, 4 analyses, 6 foci, 0 images and 0 features"),
        ("parquet", "x.parquet", "3 studies, 4 analyses, 6 foci, 0 images and 3 features"),
        ("dataset", "dataset.json", "1 studies, 1 analyses, 1 foci, 0 images and 0 features"),
        ("pubget", "pubget", "2 studies, 3 analyses, 4 foci, 0 images and 0 features"),
    ],
)
def test_import__each_format(made: Path, tmp_path: Path, verb: str, source: str, said: str) -> None:
    out = tmp_path / "out.zarr"
    done = run("import", verb, made / source, out)
    assert f"{said} in {out} after " in done.stderr and done.stdout == ""
    assert "Foci by reported space: " in done.stderr
    before = digest(open_corpus(out))
    assert "exists already" in refused("import", verb, made / source, out)
    run("import", verb, made / source, out, "--force")
    assert digest(open_corpus(out)) == before
    assert listing(tmp_path)[0] == "out.zarr" and len(list(tmp_path.iterdir())) == 1


def test_import__annotations(made: Path, tmp_path: Path) -> None:
    notes = made / "x_annotation.json"
    done = run("import", "nimads", made / "x.json", tmp_path / "o.zarr", "--annotation", notes)
    assert "3 features" in done.stderr
    wrong = ("import", "nimads", made / "x.json", tmp_path / "p.zarr", "--annotation", "none.json")
    assert "none.json" in refused(*wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["o.zarr"]


def test_import_sleuth__several_files(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.txt" for name in ("a", "b")]
    for path in files:
        path.write_text(SLEUTH.format(path.stem))
    done = run("import", "sleuth", *files, tmp_path / "out.zarr")
    assert "2 studies, 2 analyses, 4 foci" in done.stderr
    done = run("import", "sleuth", files[0], code=2)
    assert "and then the corpus to write" in done.stderr


def test_import_table__columns_sheet_and_space(tmp_path: Path) -> None:
    path, out = tmp_path / "x.csv", tmp_path / "out.zarr"
    path.write_text("paper,peak 1,peak 2,peak 3\nA,1,2,3\nB,4,5,6\n")
    columns = ("--column", "study=paper", "--column", "x=peak 1", "--column", "y=peak 2")
    done = run("import", "table", path, out, *columns, "--column", "z=peak 3", "--space", "TAL")
    assert "2 studies, 2 analyses, 2 foci" in done.stderr and "TAL 2" in done.stderr
    for word in ("x", "x=", "=x"):
        done = run("import", "table", path, out, "--force", "--column", word, code=2)
        assert "expected such as x=MNI_X" in done.stderr.replace("\n", " ").replace("│ ", "")
    assert "peak 9" in refused("import", "table", path, out, "--force", "--column", "x=peak 9")
    assert open_corpus(out).sizes["focus"] == 2


def test_import_pubget__per_study_with_texts(made: Path, tmp_path: Path) -> None:
    words = ("import", "pubget", made / "pubget", tmp_path / "out.zarr")
    done = run(*words, "--per", "study", "--texts")
    assert "2 studies, 2 analyses, 4 foci" in done.stderr
    fields = open_corpus(tmp_path / "out.zarr")["field"].values.tolist()
    assert any("abstract" in field for field in fields)
    assert "--per is 'paper'" in run(*words, "--force", "--per", "paper", code=2).stderr


# convert


def test_convert__says_what_it_wrote_and_what_is_lost(made: Path, tmp_path: Path) -> None:
    done = run("convert", made / "x.zarr", tmp_path / "x.txt")
    read, foci, written = [line for line in done.stderr.splitlines() if "Note" not in line]
    assert read.startswith(
        f"3 studies, 4 analyses, 6 foci, 0 images and 3 features read from {made}"
    )
    assert foci == "Foci by reported space: MNI 2, TAL 1, UNKNOWN 3"
    assert written == f"Written: {tmp_path / 'x.txt'}"
    (note,) = [line for line in done.stderr.splitlines() if "Note" in line]
    assert "3 features are left out" in note and "1 analyses without foci are left out" in note
    done = run("convert", made / "x.zarr", tmp_path / "a" / "x.json")
    assert done.stderr.splitlines()[-1] == (
        f"Written: {tmp_path / 'a' / 'x.json'}, {tmp_path / 'a' / 'x_annotation.json'}"
    )


def test_convert__from_and_to(made: Path, tmp_path: Path) -> None:
    source = tmp_path / "foci"
    source.write_text("study,x,y,z\nA,1,2,3\n")
    assert "say which with --from" in refused("convert", source, tmp_path / "x.json")
    run("convert", source, tmp_path / "out", "--from", "table", "--to", "sleuth")
    assert (tmp_path / "out").read_text().startswith("//Reference=MNI\n")
    assert "'excel'" in refused("convert", source, tmp_path / "o.txt", "--from", "excel")
    assert "'excel'" in refused("convert", made / "x.zarr", tmp_path / "o.txt", "--to", "excel")
    assert "end it with" in refused("convert", made / "x.zarr", tmp_path / "o.doc")
    assert "This is an annotation" in refused(
        "convert", made / "x_annotation.json", tmp_path / "o.csv"
    )
    assert listing(tmp_path) == ["foci", "out"]


def test_convert__what_is_there_stays_unless_forced(made: Path, tmp_path: Path) -> None:
    for name in ("x.json", "x.txt", "x.csv"):
        (tmp_path / name).write_text("mine")
        done = run("convert", made / "x.zarr", tmp_path / name, code=1)
        assert "exists already" in done.error and (tmp_path / name).read_text() == "mine"
        run("convert", made / "x.zarr", tmp_path / name, "--force")
        assert (tmp_path / name).read_text() != "mine"


def test_convert__onto_itself(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zarr"
    shutil.copytree(made / "x.zarr", path)
    run("convert", path, path, "--force")
    assert digest(open_corpus(path)) == digest(tiny_corpus())


# validate


def test_validate__lists_and_counts(made: Path) -> None:
    done = run("validate", made / "x.json")
    assert done.stderr == "" and done.stdout.splitlines() == [
        "warning 1 of 4 analyses have no focus; no map counts them.",
        "warning 3 foci have a space that is not known (UNKNOWN; known are MNI, TAL, Talairach); "
        "they are taken as MNI.",
        f"{made / 'x.json'}: 0 errors, 2 warnings.",
    ]
    found = json.loads(run("validate", made / "x.json", "--json").stdout)
    assert [each["severity"] for each in found] == ["warning", "warning"]
    assert set(found[0]) == {"place", "severity", "message"}
    assert json.loads(run("validate", made / "dataset.json", "--json").stdout) == []


def test_validate__of_every_format_reads_what_is_written(made: Path) -> None:
    for path in sorted(made.iterdir()):
        if "annotation" not in path.name:
            assert "0 errors" in run("validate", path).stdout
    done = run("validate", made / "x.json", "--annotation", made / "x_annotation.json")
    assert "0 errors, 2 warnings" in done.stdout


def test_validate__nothing_there(tmp_path: Path) -> None:
    done = run("validate", tmp_path / "absent.json", code=1)
    assert "is not there" in done.stdout and "1 errors, 0 warnings." in done.stdout
    (tmp_path / "empty").mkdir()
    assert "holds none of what is known" in run("validate", tmp_path / "empty", code=1).stdout


# merge and combine


def test_merge__joins_and_counts(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    done = run("merge", made / "x.zarr", made / "x.zarr", out)
    assert "Note: 3 studies of the further corpora are in an earlier one already" in done.stderr
    assert digest(open_corpus(out)) == digest(tiny_corpus())
    assert "exists already" in refused("merge", made / "x.zarr", made / "x.zarr", out)
    done = run("merge", made / "x.zarr", out, code=2)
    assert "and then the corpus to write" in done.stderr
    assert "x.json" in refused("merge", made / "x.zarr", made / "x.json", tmp_path / "p.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_combine__pools(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.zarr"
    done = run("combine", made / "x.zarr", out)
    assert "3 studies, 3 analyses, 6 foci, 0 images and 3 features" in done.stderr
    assert open_corpus(out)["analysis_id"].values.tolist() == ["s1-1_2", "s2-1", "s3-1"]
    assert "exists already" in refused("combine", made / "x.zarr", out)
    run("combine", out, out, "--force")
    assert open_corpus(out).sizes["analysis"] == 3
    assert refused("combine", tmp_path / "absent.zarr", tmp_path / "p.zarr")


# what is wrong

GARBAGE = {
    "empty": b"",
    "one": b"{",
    "bytes": bytes(range(256)) * 4,
    "page": b"<!doctype html><html>404</html>",
    "zipped": gzip.compress(b"<html>"),
    "cut": gzip.compress(b"x" * 1000)[:-8],
    "null": b"null",
    "utf-16": "id,x,y,z\n1,2,3,4\n".encode("utf-16"),
    "list": b"[]",
    "surrogate": b'{"studies": ["\\ud800"]}',
    "deep": b'{"studies": ' + b"[" * 5000,
}
NAMES = ("x.json", "x.txt", "x.csv", "x.xlsx")


def wrong(path: Path, out: Path) -> Done:
    """Hold validate, its JSON and convert to saying what is wrong, and to writing nothing."""
    before = listing(path.parent)
    done = run("validate", path, "--json", code=1)
    assert done.stderr == ""
    assert any(each["severity"] == "error" for each in json.loads(done.stdout))
    assert path.name in refused("convert", path, out)
    assert listing(path.parent) == before
    return done


@pytest.mark.parametrize("content", GARBAGE)
def test_validate__garbage_is_said_and_nothing_written(tmp_path: Path, content: str) -> None:
    for number, name in enumerate(NAMES):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(GARBAGE[content])
        wrong(folder / name, folder / "out.zarr")


@pytest.mark.parametrize("name", ["x.json", "x.json.gz", "x.xlsx", "dataset.json"])
@pytest.mark.parametrize("share", [0.1, 0.95])
def test_validate__a_file_that_was_cut_off(
    made: Path, tmp_path: Path, name: str, share: float
) -> None:
    data = (made / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    wrong(tmp_path / name, tmp_path / "out.zarr")


@pytest.mark.parametrize(
    ("folder", "file"),
    [
        *(("x.parquet", f"{table}.parquet") for table in ("studies", "analyses", "coordinates")),
        ("x.parquet", "studyset.json"),
        ("x.zarr", "zarr.json"),
        ("x.zarr", "focus_xyz/c/0/0"),
        ("x.zarr", "study/zarr.json"),
        ("ns", "data-neurosynth_version-0_coordinates.tsv.gz"),
        ("ns", "data-neurosynth_version-0_metadata.tsv.gz"),
        ("pubget", "coordinates.csv"),
    ],
)
def test_validate__a_folder_with_a_damaged_file(
    made: Path, tmp_path: Path, folder: str, file: str
) -> None:
    whole = (made / folder / file).read_bytes()
    damages = {"bytes": bytes(range(256)), "half": whole[: len(whole) // 2]}
    for how, data in damages.items():
        if how == "half" and file.endswith(".csv"):
            continue  # whole rows are left
        path = tmp_path / how / folder
        shutil.copytree(made / folder, path)
        (path / file).write_bytes(data)
        wrong(path, path.parent / "out.json")


def test_import__garbage_leaves_what_was_there(tmp_path: Path) -> None:
    out, source = tmp_path / "out.zarr", tmp_path / "x.json"
    save_corpus(tiny_corpus(), out)
    source.write_bytes(b'{"studies": [')
    for verb in ("nimads", "dataset", "parquet", "pubget", "sleuth", "table"):
        for target in (out, tmp_path / "new.zarr"):
            assert refused("import", verb, source, target, "--force")
    assert digest(open_corpus(out)) == digest(tiny_corpus())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zarr", "x.json"]
