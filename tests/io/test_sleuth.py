"""Sleuth text: what people write, what is wrong with it, and NiMARE as the other reader."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask import facts
from nimare_dask.corpus import analysis_of_focus
from nimare_dask.errors import (
    CorpusWarning,
    SettingsError,
    SourceFormatError,
    StoreExistsError,
)
from nimare_dask.io.problems import Problems
from nimare_dask.io.sleuth import parse, read_sleuth, split_label
from nimare_dask.io.sleuth_writer import safe_contrast, safe_study, write_sleuth
from nimare_dask.provenance import steps
from nimare_dask.space import mni2tal, tal2mni
from tests.builders import foci_of, tiny_corpus, write_text
from tests.texts import (
    LONG_LINES,
    NO_TEXT,
    corpora,
    foci_by_analysis,
    nimare_folder,
    quietly,
    survives,
)

FILE = (
    "//Reference=MNI\n"
    "//Smith, 2005; faces > houses\n"
    "//Subjects=12\n"
    "-16\t-58\t-22\n"
    "26 -64.5 50\n"
    "\n"
    "// Smith, 2005: words\n"
    "// Subjects = 11\n"
    "1, 2, 3\n"
    "//Jones; pain\n"
    "//Subjects=20\n"
    "4 5 6\n"
)
FOCI = {
    "Smith, 2005-faces > houses": [(-16, -58, -22, "MNI"), (26, -64.5, 50, "MNI")],
    "Smith, 2005-words": [(1, 2, 3, "MNI")],
    "Jones-pain": [(4, 5, 6, "MNI")],
}
HEADER = "//Reference=MNI\n//A, 2000; c\n//Subjects=9\n"

Read = Callable[..., xr.Dataset]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a text and read it."""
    return lambda text=FILE: read_sleuth(write_text(tmp_path / "foci.txt", text))


def problems_of(tmp_path: Path, text: str) -> Problems:
    problems = Problems(write_text(tmp_path / "foci.txt", text))
    parse(problems.path, problems)
    return problems


def sizes_of(corpus: xr.Dataset) -> list[float]:
    if "analysis_sample_size" not in corpus:
        return [np.nan] * corpus.sizes["analysis"]
    return [float(size) for size in corpus["analysis_sample_size"].values]


# what is read


def test_read_sleuth__studies_contrasts_and_foci(read: Read) -> None:
    corpus = read()
    assert foci_of(corpus) == FOCI
    assert corpus["study"].values.tolist() == ["Smith, 2005", "Jones"]
    assert corpus["analysis_contrast"].values.tolist() == ["faces > houses", "words", "pain"]
    assert sizes_of(corpus) == [12, 11, 20]
    assert facts.values(corpus, "analysis.metadata.sample_sizes")[1] == [[12], [11], [20]]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n", "\n\r"])
def test_read_sleuth__line_ends(tmp_path: Path, end: str) -> None:
    path = tmp_path / "foci.txt"
    path.write_bytes(FILE.replace("\n", end).encode())
    assert foci_of(read_sleuth(path)) == FOCI


@pytest.mark.parametrize("blank", ["", "\n\n", " \t\n"])
def test_read_sleuth__blank_lines_between_experiments_or_none(read: Read, blank: str) -> None:
    assert foci_of(read(FILE.replace("\n\n", f"\n{blank}"))) == FOCI


def test_read_sleuth__compressed_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "foci.txt.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + FILE.encode()))
    assert foci_of(read_sleuth(path)) == FOCI


def test_read_sleuth__header_of_several_lines(read: Read) -> None:
    corpus = read("//Reference=MNI\n//Smith,\n// 2005:\n//a > b\n//Subjects=3\n1 2 3\n")
    assert corpus["analysis_id"].values.tolist() == ["Smith, 2005-a > b"]


def test_read_sleuth__spaces_within_one_study(read: Read) -> None:
    corpus = read(
        "//Reference=MNI\n//A 2000; x\n//Subjects=3\n1 2 3\n"
        "//Reference=TAL\n//A 2000; y\n//Subjects=3\n1 2 3\n"
        "//A 2000; z\n//Reference=Talairach\n//Subjects=3\n1 2 3\n"
        "//Reference=MNI\n4 5 6\n"
    )
    assert foci_of(corpus) == {
        "A 2000-x": [(1, 2, 3, "MNI")],
        "A 2000-y": [(1, 2, 3, "TAL")],
        "A 2000-z": [(1, 2, 3, "Talairach"), (4, 5, 6, "MNI")],
    }


@pytest.mark.parametrize(
    ("line", "space"),
    [
        ("//Reference=MNI", "MNI"),
        ("// Reference = TAL ", "TAL"),
        ("/Reference=Talairach", "Talairach"),
        ("//reference=talairach", "Talairach"),
        ("// REFERENCE: mni", "MNI"),
    ],
)
def test_read_sleuth__spellings_of_the_reference(read: Read, line: str, space: str) -> None:
    corpus = read(f"{line}\n//A; b\n//Subjects=1\n1 2 3\n")
    assert corpus.attrs["spaces"] == [space]


@pytest.mark.parametrize(
    "line",
    [
        "//Subjects=12",
        "// Subjects = 12",
        "//subjects:12",
        "/ Subjects=12",
        "//n=12",
        "// N = 12",
        "//Participants=12",
        "//Sample size = 12",
        "//Number of subjects: 12",
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_read_sleuth__subjects_anywhere_in_the_header(read: Read, line: str, first: bool) -> None:
    header = [line, "//A, 2000; b"] if first else ["//A, 2000;", line, "//b"]
    corpus = read("\n".join(["//Reference=MNI", *header, "1 2 3"]))
    assert corpus["analysis_id"].values.tolist() == ["A, 2000-b"]
    assert sizes_of(corpus) == [12]


def test_read_sleuth__subjects_within_a_name(read: Read) -> None:
    corpus = read("//Reference=MNI\n//A, 2000; b (n=12)\n1 2 3\n")
    assert corpus["analysis_contrast"].values.tolist() == ["b (n=12)"]
    assert sizes_of(corpus) == [12]


@pytest.mark.parametrize(
    "line",
    [
        "-1 2.5 3",
        "-1\t2.5\t3",
        "-1,2.5,3",
        "-1, 2.5, 3",
        "-1;2.5;3",
        "\u22121 2.5 3",
        "\u20131\u00a02.5\u00a03",
        "  -1.0   +2.5  3.  ",
        "-1 2,5 3",
        "-1e0 25e-1 3,",
        "\ufeff-1 2.5 3",
    ],
)
def test_read_sleuth__spellings_of_a_focus(read: Read, line: str) -> None:
    assert foci_of(read(HEADER + line))["A, 2000-c"] == [(-1, 2.5, 3, "MNI")]


def test_read_sleuth__slash_within_a_name(read: Read) -> None:
    corpus = read("//Reference=MNI\n/ A, 2000; faces/houses\n//Subjects=9\n1 2 3\n")
    assert corpus["analysis_contrast"].values.tolist() == ["faces/houses"]


def test_read_sleuth__headers_that_a_spreadsheet_quoted(read: Read) -> None:
    text = '"//Reference=MNI"\n"//A, 2000; b"\t\t\n//Subjects=9\t\t\n1\t2\t3\n'
    assert foci_of(read(text)) == {"A, 2000-b": [(1, 2, 3, "MNI")]}


def test_read_sleuth__what_nimare_writes_of_a_study(read: Read) -> None:
    corpus = read(
        "//Reference=MNI\n//A (B): c\n//Subjects=9\n//DOI=10.1/x\n//PubMedId=123\n"
        "//Year=2001\n1 2 3\n"
    )
    assert corpus["analysis_id"].values.tolist() == ["A (B)-c"]
    found = {name: facts.values(corpus, name)[1] for name in facts.fields(corpus)}
    assert found["study.doi"] == ["10.1/x"]
    assert found["study.pmid"] == ["123"]
    assert found["study.year"] == [2001]


@pytest.mark.parametrize(
    ("label", "parts"),
    [
        ("Smith et al., 2010; Memory", ("Smith et al., 2010", "Memory")),
        ("J: Neurosci, 1999: a; b", ("J: Neurosci, 1999", "a; b")),
        ("A; b: c", ("A", "b: c")),
        ("A: b; c", ("A: b", "c")),
        ("A: b", ("A", "b")),
        ("A", ("A", "analysis_1")),
        ("A 2001;", ("A 2001", "analysis_1")),
        ("A: x 2001", ("A", "x 2001")),
        ("; b", ("; b", "b")),
        ("2001 a;b:c", ("2001 a", "b:c")),
        ("a1999b; 2001; c", ("a1999b", "2001; c")),
    ],
)
def test_split_label__as_nimare(tmp_path: Path, label: str, parts: tuple[str, str]) -> None:
    assert split_label(label) == parts
    io = pytest.importorskip("nimare.io")
    path = write_text(tmp_path / "one.txt", f"//Reference=MNI\n//{label}\n//Subjects=5\n1 2 3\n")
    ((study, found),) = io.convert_sleuth_to_dict(str(path)).items()
    assert (study, *found["contrasts"]) == parts


def test_read_sleuth__several_files_merge_by_study(tmp_path: Path) -> None:
    one = write_text(tmp_path / "one.txt", FILE)
    other = write_text(
        tmp_path / "other.txt", "//Reference=Talairach\n//Jones; itch\n//Subjects=7\n7 8 9\n"
    )
    corpus = read_sleuth([one, other])
    assert corpus.sizes["study"] == 2
    assert foci_of(corpus) == FOCI | {"Jones-itch": [(7, 8, 9, "Talairach")]}
    assert steps(corpus)[-1]["settings"] == {"files": ["one.txt", "other.txt"]}


# what is said and read all the same


def test_read_sleuth__same_contrast_twice_gets_a_number(tmp_path: Path) -> None:
    text = "//Reference=MNI\n" + "//A; b\n//Subjects=5\n1 2 3\n" * 3
    path = write_text(tmp_path / "foci.txt", text)
    with pytest.warns(CorpusWarning, match="2 notes.*line 5: 'A' has 'b' already.*'b_2'"):
        corpus = read_sleuth(path)
    assert corpus["analysis_contrast"].values.tolist() == ["b", "b_2", "b_3"]
    assert facts.values(corpus, "analysis.name")[1] == ["b", "b", "b"]
    with pytest.warns(CorpusWarning, match="has 'b' already"):
        assert read_sleuth([path, path]).sizes["analysis"] == 6


def test_read_sleuth__ids_that_meet_where_they_are_joined(read: Read) -> None:
    text = "//Reference=MNI\n//a-b; c\n//Subjects=5\n1 2 3\n//a; b-c\n//Subjects=5\n1 2 3\n"
    with pytest.warns(CorpusWarning, match="already"):
        corpus = read(text)
    assert corpus["analysis_id"].values.tolist() == ["a-b-c", "a-b-c_2"]


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("//A; b\n//Subjects=5\n1 2 3", "line 3", "space is unknown"),
        ("//Reference=MNI152\n//A; b\n//Subjects=5\n1 2 3", "line 1", "read as MNI"),
        ("//Reference=MNI\n//A; b\n1 2 3", "line 2", "sample size is unknown"),
        ("//Reference=MNI\n//A; b\n//Subjects=many\n1 2 3", "line 3", "'many'"),
        ("//Reference=MNI\n//A; b\n//Subjects=0\n1 2 3", "line 3", "above 0"),
        (f"//Reference=MNI\n//A; b\n//Subjects={'9' * 5000}\n1 2 3", "line 3", "'9999"),
        ("//Reference=MNI\n//Subjects=5\n1 2 3", "line 2", "experiment_1"),
        (HEADER + "1 2 3\nnan nan nan", "line 5", "no place"),
        (HEADER + "1 2 3\n1 2 1e999", "line 5", "no place"),
        (HEADER + "1 2 3\n1 2 -inf", "line 5", "no place"),
        (HEADER + "1 2 3\n1 n/a 3", "line 5", "no place"),
        (HEADER + "1 2 3\n//B; c\n//Subjects=5\n", "line 5", "no foci"),
        (
            "//Reference=MNI\n//B; c\n//Subjects=5\n\n//A; c\n//Subjects=5\n1 2 3",
            "line 2",
            "no foci",
        ),
        (
            "//Reference=MNI\n//B; c\n//Subjects=5\n//A; c\n//Subjects=6\n1 2 3",
            "line 2",
            "no foci",
        ),
        ("//Reference=MNI\n//A; c\n//Subjects=5\n//Subjects=6\n1 2 3", "line 4", "this one"),
    ],
)
def test_read_sleuth__notes(tmp_path: Path, text: str, place: str, said: str) -> None:
    problems = problems_of(tmp_path, text)
    assert problems.n_errors == 0
    (note,) = problems.found
    assert (note.place, note.severity) == (place, "warning")
    assert said in note.message
    assert len(str(note)) < 300
    assert quietly(read_sleuth, problems.path).sizes["focus"] == 1


# what cannot be read


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (HEADER + "10 20 dog", "line 4", "'10 20 dog'"),
        (HEADER + "10 20", "line 4", "expected x y z"),
        (HEADER + "10 20 30 40", "line 4", "expected x y z"),
        (HEADER + "1 2 3\nSubjects=5", "line 5", "begins with //"),
        (HEADER + "1_0 2 3", "line 4", "expected x y z"),
        (HEADER + "\u0661 2 3", "line 4", "expected x y z"),
        ("//Reference=Dog\n//A; b\n//Subjects=5\n1 2 3", "line 1", "'Dog'"),
        ("1 2 3\n", "line 1", "above the first header"),
        ("//Reference=MNI\n", "", "no header"),
        (HEADER, "", "no focus"),
    ],
)
def test_read_sleuth__errors(tmp_path: Path, text: str, place: str, said: str) -> None:
    problems = problems_of(tmp_path, text)
    (found,) = [problem for problem in problems.found if problem.severity == "error"]
    assert found.place == place
    assert said in found.message
    with pytest.raises(SourceFormatError, match=r"foci\.txt"):
        read_sleuth(problems.path)


def test_read_sleuth__all_errors_at_once(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, HEADER + "a b c\n1 2 3\n1 2\n//B\n\nx\n")
    assert [each.place for each in problems.found if each.severity == "error"] == [
        "line 4",
        "line 6",
        "line 9",
    ]


@pytest.mark.parametrize("kind", NO_TEXT)
def test_read_sleuth__no_text(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "foci.txt"
    path.write_bytes(NO_TEXT[kind])
    with pytest.raises(SourceFormatError, match=r"foci\.txt"):
        read_sleuth(path)


def test_read_sleuth__bad_utf8_says_where(tmp_path: Path) -> None:
    path = tmp_path / "foci.txt"
    path.write_bytes(HEADER.encode() + "Ärger".encode("latin-1"))
    with pytest.raises(SourceFormatError, match=r"byte 42 \(line 4\).*UTF-8"):
        read_sleuth(path)


def test_read_sleuth__no_file(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.txt"):
        with pytest.raises(SourceFormatError, match="could not be read"):
            read_sleuth(path)
    with pytest.raises(SettingsError, match="No file"):
        read_sleuth([])


@pytest.mark.parametrize("kind", LONG_LINES)
def test_read_sleuth__line_of_a_million_characters(tmp_path: Path, kind: str) -> None:
    path = write_text(tmp_path / "foci.txt", HEADER + "1 2 3\n" + LONG_LINES[kind] + "\n1 2 3\n")
    start = time.perf_counter()
    survives(read_sleuth, path)
    assert time.perf_counter() - start < 3


@pytest.mark.parametrize("end", range(0, len(FILE), 7))
def test_read_sleuth__truncated(tmp_path: Path, end: int) -> None:
    survives(read_sleuth, write_text(tmp_path / "foci.txt", FILE[:end]))


# what is written


def test_write_sleuth__text(tmp_path: Path) -> None:
    corpus = read_sleuth(write_text(tmp_path / "foci.txt", FILE))
    path = write_sleuth(corpus, tmp_path / "out.txt", decimals=1)
    assert path.read_text(encoding="utf-8") == (
        "//Reference=MNI\n"
        "//Smith, 2005; faces > houses\n//Subjects=12\n-16.0\t-58.0\t-22.0\n26.0\t-64.5\t50.0\n\n"
        "//Smith, 2005; words\n//Subjects=11\n1.0\t2.0\t3.0\n\n"
        "//Jones; pain\n//Subjects=20\n4.0\t5.0\t6.0\n\n"
    )


@pytest.mark.parametrize("target", ["MNI", "TAL"])
def test_write_sleuth__foci_in_the_target_space(tmp_path: Path, target: Any) -> None:
    corpus = tiny_corpus()
    path = quietly(write_sleuth, corpus, tmp_path / "out.txt", target=target, decimals=9)
    written = quietly(read_sleuth, path)
    space = {"MNI": "MNI", "TAL": "Talairach"}[target]
    assert written.attrs["spaces"] == [space]
    xyz = corpus["focus_xyz"].values
    is_tal = np.array(corpus.attrs["spaces"])[corpus["focus_space"].values] == "TAL"
    expected = (
        np.where(is_tal[:, None], tal2mni(xyz), xyz)
        if target == "MNI"
        else np.where(is_tal[:, None], xyz, mni2tal(xyz))
    )
    assert_allclose(written["focus_xyz"].values, expected, atol=6e-10)


def test_write_sleuth__says_what_is_lost(tmp_path: Path) -> None:
    with pytest.warns(CorpusWarning) as caught:
        write_sleuth(tiny_corpus(), tmp_path / "out.txt", decimals=0)
    (warning,) = caught
    message = str(warning.message)
    for part in (
        "3 foci have an unknown space and are taken as MNI",
        "1 foci are transformed to MNI",
        "2 foci are rounded to 0 decimals",
        "2 analyses have no sample size",
        "1 lists of sample sizes become their mean",
        "1 analyses without foci",
        "3 features",
        "1 fields are left out (study.year)",
    ):
        assert part in message, message


def test_write_sleuth__names_instead_of_ids(tmp_path: Path) -> None:
    path = quietly(write_sleuth, tiny_corpus(), tmp_path / "out.txt", names="name")
    written = quietly(read_sleuth, path)
    assert written["analysis_contrast"].values.tolist() == ["Ärger 痛み", "NA", 'a "title"']


@pytest.mark.parametrize(
    ("setting", "value"),
    [("target", "mni"), ("decimals", -1), ("decimals", 99), ("decimals", 1.5), ("names", "x")],
)
def test_write_sleuth__settings_that_cannot_be(tmp_path: Path, setting: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=setting):
        write_sleuth(tiny_corpus(), tmp_path / "out.txt", **{setting: value})


def test_write_sleuth__leaves_what_is_there(tmp_path: Path) -> None:
    path = write_text(tmp_path / "out.txt", "mine")
    with pytest.raises(StoreExistsError, match="exists already"):
        quietly(write_sleuth, tiny_corpus(), path)
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["out.txt"]
    quietly(write_sleuth, tiny_corpus(), path, overwrite=True)
    assert path.read_text().startswith("//Reference=MNI")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a\nb", "a b"),
        ("//a//b", "a/b"),
        ("a; b", "a, b"),
        ("a: 2001: b", "a: 2001, b"),
        ("Reference=MNI", "Reference MNI"),
        ("Subjects=5", "Subjects 5"),
        ("doi=x", "doi x"),
        ("", "unnamed"),
        (" / ", "unnamed"),
    ],
)
def test_safe_study__names_that_would_break_the_format(name: str, safe: str) -> None:
    assert safe_study(name) == safe


def test_safe_contrast__second_year() -> None:
    assert safe_contrast("a", "b; c") == "b; c"
    assert safe_contrast("a", "in 2001: c") == "in 2001, c"
    assert safe_contrast("a 1999", "in 2001: c") == "in 2001: c"


def as_nimare_reads(path: Path) -> list[tuple[str, str, np.ndarray[Any, Any], list[int]]]:
    """Study, contrast, foci and sample sizes of each experiment, in their order."""
    io = pytest.importorskip("nimare.io")
    return [
        (
            study,
            contrast,
            np.array([part["coords"][axis] for axis in "xyz"], dtype=float).T,
            part["metadata"]["sample_sizes"],
        )
        for study, its in io.convert_sleuth_to_dict(str(path)).items()
        for contrast, part in its["contrasts"].items()
    ]


def compare_with_nimare(corpus: xr.Dataset, path: Path) -> None:
    theirs = {(study, contrast): (xyz, n) for study, contrast, xyz, n in as_nimare_reads(path)}
    ours = zip(corpus["study_id"].values, corpus["analysis_contrast"].values, strict=True)
    assert set(ours) == set(theirs)
    sizes = sizes_of(corpus)
    owner = analysis_of_focus(corpus)
    for place, key in enumerate(
        zip(corpus["study_id"].values, corpus["analysis_contrast"].values, strict=True)
    ):
        assert_array_equal(corpus["focus_xyz"].values[owner == place], theirs[key][0])
        assert [sizes[place]] == theirs[key][1]


@pytest.mark.parametrize(
    "name",
    [
        "resources/semantic_knowledge_children.txt",
        "resources/semantic_relatedness_children.txt",
        "tests/data/test_sleuth_file.txt",
        "tests/data/test_sleuth_file2.txt",
    ],
)
def test_read_sleuth__files_in_nimare(tmp_path: Path, name: str) -> None:
    path = nimare_folder() / name
    if not path.is_file():
        pytest.skip(f"NiMARE is installed without {name}")
    corpus = read_sleuth(path)
    compare_with_nimare(corpus, path)
    target: Any = "MNI" if corpus.attrs["spaces"] == ["MNI"] else "TAL"
    written = write_sleuth(corpus, tmp_path / "out.txt", target=target, decimals=3)
    again = read_sleuth(written)
    assert foci_of(again) == foci_of(corpus)
    compare_with_nimare(again, written)


@pytest.mark.parametrize("number", [3, 4, 5])
def test_read_sleuth__files_that_nimare_refuses(number: int) -> None:
    path = nimare_folder() / "tests" / "data" / f"test_sleuth_file{number}.txt"
    if not path.is_file():
        pytest.skip(f"NiMARE is installed without {path.name}")
    with pytest.raises(SourceFormatError, match="line"):
        read_sleuth(path)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpus=corpora(), decimals=st.integers(0, 6))
def test_write_sleuth__is_read_as_it_was(tmp_path: Path, corpus: xr.Dataset, decimals: int) -> None:
    assume(corpus.sizes["focus"])
    path = quietly(write_sleuth, corpus, tmp_path / "out.txt", decimals=decimals, overwrite=True)
    written = quietly(read_sleuth, path)
    with_foci = corpus["analysis_n_foci"].values > 0
    for name in ("study_id", "analysis_id"):
        ours, theirs = written[name].values, corpus[name].values[with_foci]
        pairs = set(zip(ours.tolist(), theirs.tolist(), strict=True))
        assert len(pairs) == len(set(ours.tolist())) == len(set(theirs.tolist()))
    assert_array_equal(sizes_of(written), np.array(sizes_of(corpus))[with_foci])
    xyz, space = corpus["focus_xyz"].values, np.array(corpus.attrs["spaces"])
    is_tal = np.isin(space[corpus["focus_space"].values], ["TAL", "Talairach"])
    expected = np.where(is_tal[:, None], tal2mni(xyz), xyz)
    assert_allclose(written["focus_xyz"].values, expected, atol=0.51 * 10.0**-decimals)
    if np.isfinite(sizes_of(written)).all():
        compare_with_nimare(written, path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpus=corpora())
def test_write_sleuth__twice_is_once(tmp_path: Path, corpus: xr.Dataset) -> None:
    assume(corpus.sizes["focus"])
    path = quietly(write_sleuth, corpus, tmp_path / "out.txt", overwrite=True)
    first = path.read_bytes()
    written = quietly(read_sleuth, path)
    assert len(foci_by_analysis(written)) == len(foci_by_analysis(corpus))
    assert quietly(write_sleuth, written, path, overwrite=True).read_bytes() == first


LINE = st.sampled_from(
    ["//Reference=MNI", "//Reference=TAL", "//A; b", "//", "/", "//Subjects=5", "1 2 3", "1 2", ""]
)


@pytest.mark.slow
@settings(max_examples=1200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(st.text(), st.lists(st.one_of(LINE, st.text(max_size=9))).map("\n".join)))
def test_read_sleuth__survives_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "foci.txt"
    path.write_bytes(text.encode("utf-8", "replace"))
    survives(read_sleuth, path)


@pytest.mark.slow
@settings(max_examples=800, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), at=st.integers(0, len(FILE)))
def test_read_sleuth__survives_any_bytes(tmp_path: Path, data: bytes, at: int) -> None:
    path = tmp_path / "foci.txt"
    path.write_bytes(FILE[:at].encode() + data + FILE[at:].encode())
    survives(read_sleuth, path)
