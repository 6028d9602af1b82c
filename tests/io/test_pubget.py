"""Folders of pubget: what their tables become, and every way for them to be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.errors import CorpusWarning, SettingsError, SourceFormatError
from nimare_dask.io.problems import Problems
from nimare_dask.io.pubget import parse, read_pubget
from nimare_dask.metadata import get_metadata
from tests.builders import foci_of, write_text
from tests.texts import LONG_LINES, NO_TEXT, quietly, survives

FILES = {
    "coordinates.csv": (
        "pmcid,table_id,table_label,table_caption,x,y,z\n"
        '20,T1,Table 1,"Peaks, all",1,2,3\n'
        "20,T2,Table 2,,4.5,5,6\n"
        "10,T1,Table 1,,-7,8,9\n"
        '20,T1,Table 1,"Peaks, all",10,11,12\n'
    ),
    "metadata.csv": (
        "pmcid,pmid,doi,title,journal,publication_year,license\n"
        '10,123.0,10.1/a,"Pain, again",J One,2004,CC\n'
        "20,,,Fear,J Two,2010,\n"
    ),
    "authors.csv": "pmcid,surname,given-names\n10,Smith,Ann\n10,Doe,\n20,Roe,R\n",
    "coordinate_space.csv": "pmcid,coordinate_space\n10,TAL\n20,UNKNOWN\n",
    "text.csv": (
        "pmcid,title,keywords,abstract,body\n"
        '10,Pain,"pain\nache",We hurt.,Long text\n'
        "20,Fear,,We feared.,\n"
    ),
}
FOCI = {
    "20-T1": [(1, 2, 3, "UNKNOWN"), (10, 11, 12, "UNKNOWN")],
    "20-T2": [(4.5, 5, 6, "UNKNOWN")],
    "10-T1": [(-7, 8, 9, "TAL")],
}

Read = Callable[..., xr.Dataset]


def write(folder: Path, **changed: str | None) -> Path:
    """A folder of pubget; names of files without their ending, None for those that are absent."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in FILES.items():
        text = changed.get(name.removesuffix(".csv"), text)
        if text is not None:
            write_text(folder / name, text)
    return folder


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a folder and read it."""

    def _read(per: Any = "table", texts: bool = False, **changed: str | None) -> xr.Dataset:
        return read_pubget(write(tmp_path / "data", **changed), per=per, texts=texts)

    return _read


def field(corpus: xr.Dataset, name: str) -> dict[str, Any]:
    """Values of a field by study or analysis."""
    level = facts.level_of(name)
    names = corpus["study" if level == "study" else "analysis_id"].values.tolist()
    rows, values = facts.values(corpus, name)
    return dict(zip([names[row] for row in rows], values, strict=True))


def test_read_pubget__one_analysis_a_table(read: Read) -> None:
    corpus = read()
    assert foci_of(corpus) == FOCI
    assert corpus["study"].values.tolist() == ["10", "20"]
    assert field(corpus, "analysis.name") == {
        "20-T1": "Table 1",
        "20-T2": "Table 2",
        "10-T1": "Table 1",
    }
    assert field(corpus, "analysis.description") == {"20-T1": "Peaks, all"}


def test_read_pubget__one_analysis_a_study(read: Read) -> None:
    corpus = read(per="study")
    assert foci_of(corpus) == {
        "20-1": [(1, 2, 3, "UNKNOWN"), (4.5, 5, 6, "UNKNOWN"), (10, 11, 12, "UNKNOWN")],
        "10-1": [(-7, 8, 9, "TAL")],
    }


def test_read_pubget__metadata(read: Read) -> None:
    corpus = read()
    assert field(corpus, "study.name") == {"10": "Pain, again", "20": "Fear"}
    assert field(corpus, "study.pmid") == {"10": "123"}
    assert field(corpus, "study.doi") == {"10": "10.1/a"}
    assert field(corpus, "study.year") == {"10": 2004, "20": 2010}
    assert field(corpus, "study.publication") == {"10": "J One", "20": "J Two"}
    assert field(corpus, "study.authors") == {"10": "Ann Smith, Doe", "20": "R Roe"}
    assert field(corpus, "study.metadata.pmcid") == {"10": "10", "20": "20"}
    assert get_metadata(corpus, "year").values.tolist() == [2010, 2010, 2004]


def test_read_pubget__texts_when_asked_for(read: Read) -> None:
    assert not [name for name in facts.fields(read()) if "texts" in name]
    corpus = read(texts=True)
    assert field(corpus, "analysis.texts.abstract") == {
        "20-T1": "We feared.",
        "20-T2": "We feared.",
        "10-T1": "We hurt.",
    }
    assert field(corpus, "analysis.texts.keywords") == {"10-T1": "pain\nache"}
    assert field(corpus, "analysis.texts.body") == {"10-T1": "Long text"}


def test_read_pubget__later_columns(read: Read) -> None:
    corpus = read(
        coordinates="id,table_id,x,y,z\npmcid_10,T1,1,2,3\n",
        metadata="id,title\npmcid_10,Pain\n",
        authors="id,firstname,lastname\npmcid_10,Ann,Smith\n",
        coordinate_space="id,coordinate_space\npmcid_10,MNI\n",
    )
    assert foci_of(corpus) == {"pmcid_10-T1": [(1, 2, 3, "MNI")]}
    assert field(corpus, "study.authors") == {"pmcid_10": "Ann Smith"}


def test_read_pubget__the_only_folder_of_extracted_data(tmp_path: Path) -> None:
    write(tmp_path / "query" / "subset_allArticles_extractedData")
    assert foci_of(read_pubget(tmp_path / "query")) == FOCI
    write(tmp_path / "query" / "subset_articlesWithCoords_extractedData")
    with pytest.raises(SourceFormatError, match="several folders"):
        read_pubget(tmp_path / "query")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"metadata": None}, "metadata.csv is not there"),
        ({"coordinate_space": None}, "space of all foci is unknown"),
        ({"metadata": FILES["metadata.csv"] + "30,,,Joy,,,\n"}, "1 articles have no coordinates"),
        ({"metadata": FILES["metadata.csv"] + "10,,,Joy,,,\n"}, "line 4: '10' is there already"),
        ({"metadata": "pmcid\n10\n"}, "1 articles have coordinates and are not in metadata.csv"),
        (
            {"coordinates": FILES["coordinates.csv"] + "10,T1,,,nan,1,2\n"},
            "coordinates.csv, line 6: found 'nan 1 2'",
        ),
        ({"coordinates": FILES["coordinates.csv"] + "10,T1,,,1e999,1,2\n"}, "no place in mm"),
    ],
)
def test_read_pubget__notes(read: Read, changed: dict[str, Any], said: str) -> None:
    with pytest.warns(CorpusWarning) as caught:
        corpus = read(**changed)
    (warning,) = caught
    assert said in str(warning.message)
    assert corpus.sizes["focus"] == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"coordinates": None}, "no coordinates.csv"),
        ({"coordinates": "pmcid,x,y\n1,2,3\n"}, "coordinates.csv, line 1: no column z"),
        ({"coordinates": "x,y,z\n1,2,3\n"}, "no column pmcid"),
        ({"coordinates": "pmcid,x,y,z\n"}, "it has no focus"),
        ({"coordinates": "pmcid,x,y,z\n1,2,dog,3\n"}, "line 2: found '2 dog 3'"),
        ({"coordinates": "pmcid,x,y,z\n1,2,3,4,5\n"}, "line 2: the row has 5 fields"),
        ({"coordinates": "pmcid,x,y,z\n,2,3,4\n"}, "line 2: the pmcid is blank"),
        ({"coordinates": 'pmcid,x,y,z\n1,2,3,4\n"1,2,3,4\n'}, "line 3: the quotation marks"),
        ({"metadata": "title\nx\n"}, "metadata.csv, line 1: no column pmcid"),
        ({"coordinate_space": "pmcid\n10\n"}, "no column coordinate_space"),
    ],
)
def test_read_pubget__errors(read: Read, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(SourceFormatError) as caught:
        read(**changed)
    assert said in str(caught.value)


def test_read_pubget__all_errors_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path, coordinates="pmcid,x,y,z\n1,a,3,4\n1,2,3,b\n", metadata="title\nx\n")
    problems = Problems(folder)
    assert parse(folder, problems) is None
    assert [each.place for each in problems.found] == [
        "metadata.csv, line 1",
        "coordinates.csv, line 2",
        "coordinates.csv, line 3",
    ]


def test_read_pubget__no_texts_to_be_had(read: Read) -> None:
    with pytest.raises(SourceFormatError, match=r"text\.csv.*could not be read"):
        read(text=None, texts=True)


def test_read_pubget__no_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", write_text(tmp_path / "file", "x"), tmp_path):
        with pytest.raises(SourceFormatError, match=r"no coordinates\.csv|could not be read"):
            read_pubget(path)
    with pytest.raises(SettingsError, match="per"):
        read_pubget(tmp_path, per="focus")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", NO_TEXT)
def test_read_pubget__no_text(tmp_path: Path, name: str, kind: str) -> None:
    folder = write(tmp_path / "data")
    (folder / name).write_bytes(NO_TEXT[kind])
    with pytest.raises(SourceFormatError, match="data"):
        quietly(read_pubget, folder, texts=True)


@pytest.mark.parametrize("kind", LONG_LINES)
def test_read_pubget__line_of_a_million_characters(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "data")
    for name in ("coordinates.csv", "metadata.csv"):
        write_text(folder / name, FILES[name] + LONG_LINES[kind])
        survives(read_pubget, folder)


@pytest.mark.slow
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(sorted(FILES)), at=st.integers(0, 300), data=st.binary(max_size=60))
def test_read_pubget__survives_any_bytes(tmp_path: Path, name: str, at: int, data: bytes) -> None:
    folder = write(tmp_path / "data")
    text = FILES[name].encode()
    (folder / name).write_bytes(text[:at] + data + text[at:])
    survives(lambda path: read_pubget(path, texts=True), folder)
