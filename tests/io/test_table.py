"""Plain tables: how people name columns and leave cells blank, and what is written comes back."""

from __future__ import annotations

import gzip
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import xarray as xr
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from nimare_dask import facts
from nimare_dask.corpus import build
from nimare_dask.errors import CorpusWarning, SettingsError, SourceFormatError, StoreExistsError
from nimare_dask.facts import Facts
from nimare_dask.io.problems import Problems
from nimare_dask.io.table import parse, read_table
from nimare_dask.io.table_cells import decode, encode
from nimare_dask.io.table_columns import axis_of, find_columns
from nimare_dask.io.table_writer import write_table
from nimare_dask.provenance import steps
from tests.builders import TEXT, foci_of, tiny_corpus, write_text
from tests.texts import LONG_LINES, NO_TEXT, corpora, quietly, survives

TABLE = (
    "study,contrast,x,y,z,space,n\n"
    "Smith 2005,faces,-16,-58,-22,MNI,12\n"
    "Smith 2005,faces,26,-64.5,50,MNI,12\n"
    "Smith 2005,words,1,2,3,MNI,11\n"
    "Jones 2010,pain,4,5,6,TAL,20\n"
)
FOCI = {
    "Smith 2005-faces": [(-16, -58, -22, "MNI"), (26, -64.5, 50, "MNI")],
    "Smith 2005-words": [(1, 2, 3, "MNI")],
    "Jones 2010-pain": [(4, 5, 6, "TAL")],
}
XYZ = [(1, 2, 3, "MNI")]

Read = Callable[..., xr.Dataset]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a text and read it."""

    def _read(text: str = TABLE, suffix: str = ".csv", **settings: Any) -> xr.Dataset:
        return read_table(write_text(tmp_path / f"foci{suffix}", text), **settings)

    return _read


def write_sheet(path: Path, rows: list[list[Any]], *, sheets: tuple[str, ...] = ("one",)) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name in sheets:
        page = book.create_sheet(name)
        for row in rows:
            page.append(row)
    book.save(path)
    return path


def field(corpus: xr.Dataset, name: str) -> list[Any]:
    return facts.values(corpus, name)[1]


def all_facts(corpus: xr.Dataset) -> dict[str, list[tuple[int, Any]]]:
    made = {}
    for name in facts.fields(corpus):
        rows, values = facts.values(corpus, name)
        made[name] = list(zip(rows.tolist(), values, strict=True))
    return made


# which column is what


@pytest.mark.parametrize(
    "header",
    [
        "study,contrast,x,y,z,space,n",
        "Study,Contrast,X,Y,Z,Space,N",
        "study_id,contrast_id,x (mm),y (mm),z (mm),Coordinate space,sample_size",
        "Paper,Experiment,X [mm],Y [mm],Z [mm],coordinate_system,Subjects",
        "PMID,analysis,x_coord,y_coord,z_coord,Template,Number of subjects",
        "Author,Comparison,peak x,peak y,peak z,MNI/TAL,n_subjects",
        "First author,Experiment name,x-coordinate,y-coordinate,z-coordinate,space,SampleSize",
        " study , contrast , x , y , z , space , n ",
        "StudyID,analysis_id,coordX,coordY,coordZ,standard space,Participants",
    ],
)
def test_read_table__spellings_of_columns(read: Read, header: str) -> None:
    corpus = read(TABLE.replace("study,contrast,x,y,z,space,n", header))
    assert foci_of(corpus) == FOCI
    assert corpus["analysis_sample_size"].values.tolist() == [12, 11, 20]
    assert field(corpus, "analysis.metadata.sample_sizes") == [[12], [11], [20]]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("x", ("x", "")),
        ("MNI_x", ("x", "MNI")),
        ("X_MNI", ("x", "MNI")),
        ("y MNI152 (mm)", ("y", "MNI")),
        ("Talairach x", ("x", "TAL")),
        ("mnix", ("x", "MNI")),
        ("ztal", ("z", "TAL")),
        ("xmm", ("x", "")),
        ("Z (mm)", ("z", "")),
        ("z value", None),
        ("z-score", None),
        ("max", None),
        ("xyz", None),
        ("", None),
        ("MNI", None),
    ],
)
def test_axis_of__spellings(name: str, told: tuple[str, str] | None) -> None:
    assert axis_of(name) == told


@pytest.mark.parametrize(("before", "space"), [("MNI", "MNI"), ("Talairach", "TAL")])
def test_read_table__space_in_the_names_of_columns(read: Read, before: str, space: str) -> None:
    corpus = read(f"study,{before}_x,{before}_y,{before}_z\na,1,2,3\n")
    assert foci_of(corpus) == {"a-1": [(1, 2, 3, space)]}


def test_read_table__both_spaces_are_there(read: Read) -> None:
    corpus = read("study,TAL_x,TAL_y,TAL_z,MNI_x,MNI_y,MNI_z\na,4,5,6,1,2,3\n")
    assert foci_of(corpus) == {"a-1": XYZ}
    assert field(corpus, "analysis.metadata.TAL_x") == [4]


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("x,y,z,Z,t", [{"kind": "z", "value": 3.5}, {"kind": "t", "value": 4}]),
        ("X,Y,Z,z,T", [{"kind": "z", "value": 3.5}, {"kind": "t", "value": 4}]),
        ("x,y,z,z-score,t value", [{"kind": "z", "value": 3.5}, {"kind": "t", "value": 4}]),
        ("x,y,z,Zmax,t_stat", [{"kind": "z", "value": 3.5}, {"kind": "t", "value": 4}]),
        ("x,y,z,peak z,foo", [{"kind": "z", "value": 3.5}]),
    ],
)
def test_read_table__statistics_of_foci(read: Read, header: str, values: list[Any]) -> None:
    corpus = read(f"study,{header}\na,1,2,3,3.5,4\na,4,5,6,,\n", space="MNI")
    assert field(corpus, "focus.values") == [values]
    assert facts.values(corpus, "focus.values")[0].tolist() == [0]
    assert foci_of(corpus)["a-1"] == [(1, 2, 3, "MNI"), (4, 5, 6, "MNI")]


def test_read_table__other_columns_are_facts(read: Read) -> None:
    corpus = read(
        "study_id,Study,x,y,z,space,task,hemisphere,code,doi,year\n"
        "a,About A,1,2,3,MNI,stroop,L,007,10.1/a,2001\n"
        "a,About A,4,5,6,MNI,stroop,R,008,10.1/a,2001\n"
        "b,About B,7,8,9,MNI,n-back,L,009,,2002\n"
    )
    assert field(corpus, "study.name") == ["About A", "About B"]
    assert field(corpus, "study.doi") == ["10.1/a"]
    assert field(corpus, "study.year") == [2001, 2002]
    assert field(corpus, "analysis.metadata.task") == ["stroop", "n-back"]
    assert field(corpus, "focus.metadata.hemisphere") == ["L", "R", "L"]
    assert field(corpus, "focus.metadata.code") == ["007", "008", "009"]


def test_read_table__columns_that_are_asked_for(read: Read) -> None:
    text = TABLE.replace("study,", "Quelle,").replace(",x,", ",vorn,")
    with pytest.raises(SourceFormatError) as caught:
        read(text)
    message = str(caught.value)
    for part in ("study, x", "'Quelle'", "'vorn'", 'columns={"study": "..."}', "--column study="):
        assert part in message
    corpus = read(text, columns={"study": "Quelle", "x": "vorn"})
    assert foci_of(corpus) == FOCI
    assert steps(corpus)[-1]["settings"] == {
        "files": ["foci.csv"],
        "columns": {"study": "Quelle", "x": "vorn"},
    }


def test_read_table__columns_asked_for_come_first(read: Read) -> None:
    corpus = read(
        "study,x,y,z,x2,y2,z2,space\na,9,9,9,1,2,3,MNI\n", columns={"x": "x2", "y": "y2", "z": "z2"}
    )
    assert foci_of(corpus) == {"a-1": XYZ}


@pytest.mark.parametrize("columns", [{"w": "x"}, {"x": 5}])
def test_read_table__roles_that_are_not_known(read: Read, columns: Any) -> None:
    with pytest.raises(SettingsError, match="columns has"):
        read(columns=columns)


def test_find_columns__one_column_has_one_role() -> None:
    found = find_columns(["id", "Study", "PMID", "x", "y", "z", "Z", "t", "T", "n"], {})
    assert len(set(found.role.values())) == len(found.role)
    assert set(found.role.values()) | set(found.fields) == set(range(10))


# files


@pytest.mark.parametrize(
    ("suffix", "delimiter"),
    [(".csv", ","), (".csv", ";"), (".csv", "\t"), (".tsv", "\t"), (".txt", "\t"), (".txt", "|")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_read_table__delimiters(read: Read, suffix: str, delimiter: str, end: str) -> None:
    text = TABLE.replace(",", delimiter).replace("\n", end)
    assert foci_of(read(text, suffix)) == FOCI


def test_read_table__decimal_commas(read: Read) -> None:
    text = "study;x;y;z;space;t\na;1,5;-2;3;MNI;4,5\na;\u22122,25;0;1;MNI;\n"
    corpus = read(text)
    assert foci_of(corpus) == {"a-1": [(1.5, -2, 3, "MNI"), (-2.25, 0, 1, "MNI")]}
    assert field(corpus, "focus.values") == [[{"kind": "t", "value": 4.5}]]
    with pytest.raises(SourceFormatError, match="x is '1,5'"):
        read(text.replace("-2;3", "-2.5;3"))


def test_read_table__title_above_the_header(read: Read) -> None:
    assert foci_of(read("Table 1. Foci\n\n" + TABLE)) == FOCI
    assert foci_of(read("\r\n" * 100_000 + TABLE)) == FOCI


def test_read_table__compressed_and_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "foci.csv.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + TABLE.encode()))
    assert foci_of(read_table(path)) == FOCI


def test_read_table__quoted_fields(read: Read) -> None:
    corpus = read('study,x,y,z,space,note\n"A, ""B""",1,2,3,MNI,"two\nlines, one cell"\n')
    assert foci_of(corpus) == {'A, "B"-1': XYZ}
    assert field(corpus, "analysis.metadata.note") == ["two\nlines, one cell"]


def test_read_table__sheet(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["My foci"],
        [],
        ["PMID", "Contrast", "x", "y", "z", "Space", "N", None],
        [12345, "faces", -16, 58.5, 3, "MNI", 12],
        [None, None, 1, 2, 3, None, None],
        [],
        [999, "pain", 4, 5, 6, "Talairach", 9, "a note"],
    ]
    path = write_sheet(tmp_path / "foci.xlsx", rows)
    with pytest.warns(CorpusWarning, match="3 notes.*1 rows have a blank study"):
        corpus = read_table(path)
    assert foci_of(corpus) == {
        "12345-faces": [(-16, 58.5, 3, "MNI"), (1, 2, 3, "MNI")],
        "999-pain": [(4, 5, 6, "Talairach")],
    }
    assert field(corpus, "analysis.metadata.column_8") == ["a note"]
    assert corpus["analysis_sample_size"].values.tolist() == [12, 9]


def test_read_table__one_of_several_sheets(tmp_path: Path) -> None:
    rows = [["study", "x", "y", "z", "space"], ["a", 1, 2, 3, "MNI"]]
    path = write_sheet(tmp_path / "foci.xlsx", rows, sheets=("one", "two"))
    with pytest.warns(CorpusWarning, match="2 sheets; 'one' is read"):
        read_table(path)
    assert foci_of(read_table(path, sheet="two")) == {"a-1": XYZ}
    with pytest.raises(SourceFormatError, match="no sheet 'three'; it has one, two"):
        read_table(path, sheet="three")


# what is said and read all the same


def problems_of(tmp_path: Path, text: str) -> Problems:
    problems = Problems(write_text(tmp_path / "foci.csv", text))
    parse(problems.path, problems)
    return problems


HEADER = "study,contrast,x,y,z,space,n\n"


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (HEADER + "a,b,1,2,3,MNI,5\n,b,4,5,6,MNI,5\n", "", "1 rows have a blank study"),
        (HEADER + "a,b,1,2,3,MNI,5\na,,4,5,6,MNI,5\n", "", "1 rows have a blank contrast"),
        (HEADER + "a,,1,2,3,MNI,5\n", "", "1 rows have a blank contrast; it is taken as 1"),
        (HEADER + "a,b,1,2,3,MNI,5\na,b,4,5,6,,5\n", "", "1 rows have a blank space"),
        (HEADER + "a,b,1,2,3,,5\n", "", "1 rows have a blank space; it is taken as UNKNOWN"),
        (HEADER + "a,b,1,2,3,MNI,5\na,c,,,,MNI,5\n", "", "1 rows have no coordinates"),
        (HEADER + "a,b,1,2,3,MNI,5\na,b,1,,3,MNI,5\n", "line 3", "no place in mm"),
        (HEADER + "a,b,1,2,3,MNI,5\na,b,n/a,2,3,MNI,5\n", "line 3", "no place in mm"),
        (HEADER + "a,b,1,2,3,MNI,5\na,b,1e999,2,3,MNI,5\n", "line 3", "no place in mm"),
        (HEADER + "a,b,1,2,3,MNI,5\na,b,1e300,2,3,MNI,5\n", "line 3", "no place in mm"),
        (HEADER + "a,b,1,2,3,mni152,5\n", "", "'mni152' of 1 rows is read as MNI"),
        (HEADER + "a,b,1,2,3,tlrc,5\na,b,1,2,3,talairach,5\n", "", "is read as TAL"),
        (HEADER + "a,b,1,2,3,MNI,many\n", "line 2", "n is 'many'"),
        (HEADER + "a,b,1,2,3,MNI,0\n", "line 2", "above 0"),
        (HEADER + "a,b,1,2,3,MNI,5\na,b,1,2,3,MNI,6\n", "", "1 analyses have several values of n"),
        ("study,x,y,z\na,1,2,3\n", "line 1", "space of the foci, so it is unknown"),
        ("study,x,y,z,space,t\na,1,2,3,MNI,high\n", "line 2", "t is 'high'"),
        ("study,x,y,z,space,w,w\na,1,2,3,MNI,1,2\n", "line 1", "'w' is there twice"),
        ("study,x,y,z,space,,\na,1,2,3,MNI,,\na,4,5,6,MNI\n", None, ""),
        ("Author,x,y,z,space,year\na,1,2,3,MNI,1\na,4,5,6,MNI,2\n", "", "several years"),
        (
            "study,contrast,x,y,z,space,doi\na,b,1,2,3,MNI,p\na,c,4,5,6,MNI,q\n",
            "",
            "study.doi differs within a study",
        ),
        (HEADER + "a-b,c,1,2,3,MNI,5\na,b-c,1,2,3,MNI,5\n", "", "is taken"),
    ],
)
def test_read_table__notes(tmp_path: Path, text: str, place: str | None, said: str) -> None:
    problems = problems_of(tmp_path, text)
    assert [(each.severity, each.place) for each in problems.found] == (
        [] if place is None else [("warning", place)]
    )
    assert all(said in each.message for each in problems.found)
    assert quietly(read_table, problems.path).sizes["focus"] >= 1


def test_read_table__years_tell_authors_apart(read: Read) -> None:
    text = "Author,Year,x,y,z,space\nSmith,2005,1,2,3,MNI\nSmith,2007,1,2,3,MNI\n,,4,5,6,MNI\n"
    corpus = quietly(read, text)
    assert foci_of(corpus) == {
        "Smith, 2005-1": XYZ,
        "Smith, 2007-1": [*XYZ, (4, 5, 6, "MNI")],
    }
    assert field(corpus, "study.year") == [2005, 2007]


def test_read_table__space_that_is_asked_for(read: Read) -> None:
    assert foci_of(read("study,x,y,z\na,1,2,3\n", space="TAL")) == {"a-1": [(1, 2, 3, "TAL")]}


def test_read_table__analysis_without_foci_is_kept(read: Read) -> None:
    corpus = quietly(read, HEADER + "a,b,1,2,3,MNI,5\na,c,,,,,7\n")
    assert corpus["analysis_n_foci"].values.tolist() == [1, 0]
    assert corpus["analysis_sample_size"].values.tolist() == [5, 7]


# what cannot be read


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        (HEADER + "a,b,1,2,dog,MNI,5\n", "line 2", "z is 'dog'"),
        (HEADER + "a,b,1,2,3_0,MNI,5\n", "line 2", "z is '3_0'"),
        (HEADER + ",b,1,2,3,MNI,5\n", "line 2", "study is blank"),
        (HEADER + "a,b,1,2,3,MNI,5,6\n", "line 2", "8 fields, but the header names 7"),
        (HEADER + 'a,b,1,2,3,MNI,5\n"a,b,1,2,3,MNI,5\n', "line 3", "quotation marks"),
        (HEADER + 'a,b,1,2,3,MNI,"5"x\n', "line 2", "quotation marks"),
        (HEADER, "", "no focus"),
        (HEADER + "a,b,,,,MNI,5\n", "", "no focus"),
        ("study,x,x,y,z\na,1,1,2,3\n", "line 1", "'x' is there twice"),
        ("study,x,y\na,1,2\n", "line 1", "no column is recognised as z"),
        ("x,y,z\n1,2,3\n", "line 1", "no column is recognised as study"),
        ("hello\n", "line 1", "no column is recognised"),
        ("a," * 30_000 + "\n", "line 1", "30,001 columns"),
        (
            "study,x,y,z,space\n" + "".join(f"a,1,2,3,s{n}\n" for n in range(200)),
            "line 1",
            "200 different values",
        ),
    ],
)
def test_read_table__errors(tmp_path: Path, text: str, place: str, said: str) -> None:
    problems = problems_of(tmp_path, text)
    (found,) = [each for each in problems.found if each.severity == "error"]
    assert found.place == place
    assert said in found.message
    with pytest.raises(SourceFormatError, match=r"foci\.csv"):
        read_table(problems.path)


def test_read_table__all_errors_at_once(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, HEADER + "a,b,1,2,x,MNI,5\na,b,1,2,3,MNI,5,6\na,b,y,2,3,,\n")
    errors = [each.place for each in problems.found if each.severity == "error"]
    assert sorted(errors) == ["line 2", "line 3", "line 4"]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
@pytest.mark.parametrize("kind", NO_TEXT)
def test_read_table__no_text(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"foci{suffix}"
    path.write_bytes(NO_TEXT[kind])
    with pytest.raises(SourceFormatError, match="foci"):
        read_table(path)


@pytest.mark.parametrize("name", [".", "absent.csv", "absent.xlsx"])
def test_read_table__no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceFormatError, match="could not be read"):
        read_table(tmp_path / name)


@pytest.mark.parametrize("suffix", [".xls", ".ods"])
def test_read_table__other_workbooks(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(SourceFormatError, match=r"save it as \.xlsx"):
        read_table(write_text(tmp_path / f"foci{suffix}", "x"))


def test_read_table__damaged_workbook(tmp_path: Path) -> None:
    path = write_table(tiny(), tmp_path / "foci.xlsx")
    data = path.read_bytes()
    for end in range(0, len(data), len(data) // 25):
        path.write_bytes(data[:end])
        survives(read_table, path)
    for at in range(0, len(data), len(data) // 50):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        survives(read_table, path)


@pytest.mark.parametrize("kind", LONG_LINES)
@pytest.mark.parametrize("first", [True, False])
def test_read_table__line_of_a_million_characters(tmp_path: Path, kind: str, first: bool) -> None:
    line = LONG_LINES[kind] + "\n"
    path = write_text(tmp_path / "foci.csv", line + TABLE if first else TABLE + line)
    start = time.perf_counter()
    survives(read_table, path)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("end", range(0, len(TABLE), 11))
def test_read_table__truncated(tmp_path: Path, end: int) -> None:
    survives(read_table, write_text(tmp_path / "foci.csv", TABLE[:end]))


# what is written


def tiny() -> xr.Dataset:
    return tiny_corpus().drop_dims(["feature", "weight"])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".xlsx"])
def test_write_table__tiny_corpus(tmp_path: Path, suffix: str) -> None:
    corpus = tiny()
    again = quietly(read_table, write_table(corpus, tmp_path / f"foci{suffix}"))
    assert foci_of(again) == foci_of(corpus)
    assert again["study"].values.tolist() == corpus["study"].values.tolist()
    assert all_facts(again) == all_facts(corpus)


def test_write_table__text(tmp_path: Path, read: Read) -> None:
    path = write_table(read(), tmp_path / "out.csv")
    assert path.read_text(encoding="utf-8").splitlines()[:3] == [
        "study,contrast,x,y,z,space,n",
        "Smith 2005,faces,-16.0,-58.0,-22.0,MNI,12",
        "Smith 2005,faces,26.0,-64.5,50.0,MNI,12",
    ]


@pytest.mark.parametrize(
    "values",
    [
        [[{"kind": "z", "value": 3.5}], [{"kind": "t", "value": 2}]],
        [[{"kind": "z", "value": 3.5}, {"kind": "t", "value": 2}], None],
        [[{"kind": "F", "value": 3.5}], [{"kind": "z", "value": None}]],
        [[{"kind": "z", "value": 3.5, "unit": "1"}], []],
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_write_table__statistics(tmp_path: Path, values: list[Any], suffix: str) -> None:
    made = Facts()
    made.add_column("focus.values", values)
    corpus = one_analysis(made)
    again = read_table(write_table(corpus, tmp_path / f"foci{suffix}"))
    assert all_facts(again) == all_facts(corpus)


def one_analysis(made: Facts) -> xr.Dataset:
    return build(
        analysis_id=["a-b"],
        study_id=["a"],
        contrast=["b"],
        n_foci=[2],
        xyz=[[1, 2, 3], [4, 5, 6]],
        focus_space=[0, 0],
        spaces=["MNI"],
        facts=made,
    )


def test_write_table__long_texts_stand_once(tmp_path: Path) -> None:
    made = Facts()
    made.add("analysis.texts.abstract", 0, "long " * 100)
    corpus = one_analysis(made)
    path = write_table(corpus, tmp_path / "foci.csv")
    assert path.read_text().count("long long") == 1 * 50
    assert all_facts(read_table(path)) == all_facts(corpus)


def test_write_table__texts_that_a_sheet_cuts(tmp_path: Path) -> None:
    made = Facts()
    made.add("analysis.texts.body", 0, "a" * 40_000)
    with pytest.warns(CorpusWarning, match="1 texts are cut at 32,767"):
        write_table(one_analysis(made), tmp_path / "foci.xlsx")


def test_write_table__formulas_stay_texts(tmp_path: Path) -> None:
    made = Facts()
    made.add("analysis.description", 0, "=1+1")
    made.add("analysis.name", 0, "#N/A")
    corpus = one_analysis(made)
    again = read_table(write_table(corpus, tmp_path / "foci.xlsx"))
    assert all_facts(again) == all_facts(corpus)


def test_write_table__says_what_is_lost(tmp_path: Path) -> None:
    made = Facts()
    made.add("note.0.pain", 0, "yes")
    corpus = build(
        analysis_id=[" a - "],
        study_id=[" a "],
        contrast=[" "],
        study=[" a ", "b"],
        n_foci=[1],
        xyz=[[1, 2, 3]],
        focus_space=[0],
        spaces=["MNI"],
        facts=made,
    )
    with pytest.warns(CorpusWarning) as caught:
        path = write_table(corpus, tmp_path / "foci.csv")
    (warning,) = caught
    for part in ("2 names are changed", "1 studies without analyses", "1 fields are left out"):
        assert part in str(warning.message)
    assert foci_of(read_table(path)) == {"a-1": XYZ}
    with pytest.warns(CorpusWarning, match="3 features are left out"):
        write_table(tiny_corpus(), tmp_path / "other.csv")


def test_write_table__refuses(tmp_path: Path) -> None:
    path = write_text(tmp_path / "out.csv", "mine")
    with pytest.raises(StoreExistsError, match="exists already"):
        write_table(tiny(), path)
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]
    write_table(tiny(), path, overwrite=True)
    with pytest.raises(SettingsError, match=r"expected \.csv"):
        write_table(tiny(), tmp_path / "out.json")


VALUE = st.recursive(
    st.one_of(
        st.integers(-(2**60), 2**60),
        st.floats(allow_nan=False, allow_infinity=False),
        st.booleans(),
        TEXT,
        st.sampled_from(["1", "true", "null", "NaN", "-0", "_x0041_", '"a"', "[", "\r\n", " a "]),
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)


@given(value=VALUE)
def test_encode__is_read_as_it_was(value: Any) -> None:
    again = decode(encode(value))
    assert again == value
    assert type(again) is type(value) or isinstance(value, float | int)
    assert "\r" not in encode(value)
    assert encode(value).strip()


LEVELS = st.sampled_from(
    [
        "study.name",
        "study.pmid",
        "study.year",
        "study.metadata.a",
        "analysis.name",
        "analysis.metadata.b",
        "focus.metadata.c",
        "focus.values",
    ]
)


@st.composite
def tables(draw: st.DrawFn) -> xr.Dataset:
    """A corpus with facts of every kind, and names without blanks around."""
    name = TEXT.map(lambda text: "".join(c for c in text if c.isprintable()).strip()).filter(bool)
    corpus = draw(corpora(name=name))
    made = Facts()
    for field_name, values in all_facts(corpus).items():
        for row, value in values:
            made.add(field_name, row, value)
    taken = set()
    for field_name, row, value in draw(
        st.lists(st.tuples(LEVELS, st.integers(0, 9), VALUE), max_size=6)
    ):
        size = corpus.sizes.get(facts.level_of(field_name), 0)
        if row < size and (field_name, row) not in taken:
            taken.add((field_name, row))
            made.add(field_name, row, value)
    return corpus.drop_dims(["field", "fact", "text"], errors="ignore").assign(
        {key: value for key, value in made.variables().items() if made}
    )


def by_id(corpus: xr.Dataset) -> dict[str, list[tuple[Any, Any]]]:
    """Facts of analyses by id and of studies that have analyses by name, foci by place."""
    study, analysis = corpus["study"].values, corpus["analysis_id"].values
    there = set(corpus["study_id"].values.tolist())
    kept: dict[str, list[tuple[Any, Any]]] = {}
    for name, values in all_facts(corpus).items():
        names = {"study": study, "analysis": analysis}.get(facts.level_of(name))
        said = [(str(names[row]) if names is not None else row, value) for row, value in values]
        if facts.level_of(name) == "study":
            said = [each for each in said if each[0] in there]
        if said:
            kept[name] = sorted(said, key=lambda each: each[0])
    return kept


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(corpus=tables(), suffix=st.sampled_from([".csv", ".tsv", ".xlsx"]))
def test_write_table__is_read_as_it_was(tmp_path: Path, corpus: xr.Dataset, suffix: str) -> None:
    assume(corpus.sizes["focus"])
    path = quietly(write_table, corpus, tmp_path / f"foci{suffix}", overwrite=True)
    again = quietly(read_table, path)
    digits = 1e-15 if suffix == ".xlsx" else 0
    assert_allclose(again["focus_xyz"].values, corpus["focus_xyz"].values, rtol=digits)
    assert_array_equal(again["analysis_n_foci"], corpus["analysis_n_foci"])
    assert [place[3] for its in foci_of(again).values() for place in its] == [
        place[3] for its in foci_of(corpus).values() for place in its
    ]
    assert again["analysis_id"].values.tolist() == corpus["analysis_id"].values.tolist()
    ours, theirs = by_id(again), by_id(corpus)
    if suffix == ".xlsx":  # where z and t are numbers, rounded as coordinates are
        ours.pop("focus.values", None), theirs.pop("focus.values", None)
    assert ours == theirs


CELL = st.one_of(st.text(max_size=5), st.sampled_from(["1", "-2.5", "MNI", "a", "", '"', "n/a"]))


@pytest.mark.slow
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    header=st.permutations(["study", "x", "y", "z", "space", "n", "t", "year"]),
    rows=st.lists(st.lists(CELL, max_size=9), max_size=5),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_read_table__survives_any_cells(
    tmp_path: Path, header: list[str], rows: list[list[str]], delimiter: str
) -> None:
    text = "\n".join(delimiter.join(row) for row in [header, *rows])
    path = tmp_path / "foci.csv"
    path.write_bytes(text.encode("utf-8", "replace"))
    survives(read_table, path)


@pytest.mark.slow
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(), data=st.binary(max_size=60), at=st.integers(0, len(TABLE)))
def test_read_table__survives_any_bytes(tmp_path: Path, text: str, data: bytes, at: int) -> None:
    path = tmp_path / "foci.csv"
    path.write_bytes(text.encode("utf-8", "replace"))
    survives(read_table, path)
    path.write_bytes(TABLE[:at].encode() + data + TABLE[at:].encode())
    survives(read_table, path)


def test_encode__numbers_that_json_does_not_know() -> None:
    assert math.isinf(decode(encode(math.inf)))
    assert decode("[" * 100_000) == "[" * 100_000
    assert decode("9" * 10_000) == "9" * 10_000
