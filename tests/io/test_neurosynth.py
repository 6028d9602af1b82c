"""Reading Neurosynth: a tiny database in every shape, every way to be wrong, and the real one."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_array_equal
from scipy import sparse

from nimare_dask import corpus as nd_corpus
from nimare_dask import facts
from nimare_dask.errors import CorpusWarning, SourceFormatError
from nimare_dask.io.neurosynth import FeatureFiles, read_neurosynth
from nimare_dask.metadata import get_metadata
from nimare_dask.provenance import steps
from tests.builders import foci_of, weights_by_name, write_features, write_text

# Neither in the order of their ids nor grouped by study.
METADATA = (
    "id\tdoi\tspace\ttitle\tauthors\tyear\tjournal\n"
    "30\t10.1/c\tTAL\tThird\tA B, C D\t2003\tJ One\n"
    '10\t\tMNI\t"The ""what"" of Ärger"\tE\t\tJ Two\n'
    "20\t10.1/b\tUNKNOWN\tNA\tNone\t1999\t\n"
)
COORDINATES = (
    "id\ttable_id\tx\ty\tz\n"
    "10\t7\t1\t2\t3\n"
    "30\t7\t-4.5\t5\t6\n"
    "10\t8\t7.0\t8\t9\n"
    "20\t8\t-1e1\t0\t-0.25\n"
    "30\t9\t10\t11\t12\n"
    "10\t9\t1\t2\t3\n"
)
FOCI = {
    "30-1": [(-4.5, 5, 6, "TAL"), (10, 11, 12, "TAL")],
    "10-1": [(1, 2, 3, "MNI"), (7, 8, 9, "MNI"), (1, 2, 3, "MNI")],
    "20-1": [(-10, 0, -0.25, "UNKNOWN")],
}
# Rows are studies in the order of the metadata.
MATRIX = np.array([[0.5, 0.0], [0.0, 0.0], [0.25, 0.001]])
TERMS = ["pain", "working memory"]
TERMS_NAME = "data-neurosynth_version-7_vocab-terms_source-abstract_type-tfidf_features"
TOPICS_NAME = "data-neurosynth_version-7_vocab-LDA50_source-abstract_type-weight_features"

Read = Callable[..., xr.Dataset]


def texts_of(corpus: xr.Dataset, name: str) -> list[str]:
    """What is known of each study, empty where nothing is."""
    if f"study.{name}" not in facts.fields(corpus):
        return [""] * corpus.sizes["analysis"]
    return [str(each) for each in get_metadata(corpus, f"study.{name}").values]


def years_of(corpus: xr.Dataset) -> list[int]:
    """The year of each study, 0 where it is not known."""
    if "study.year" not in facts.fields(corpus):
        return [0] * corpus.sizes["analysis"]
    return [int(each) for each in get_metadata(corpus, "year").fillna(0).values]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write two tables and read them."""

    def _read(
        coordinates: str = COORDINATES,
        metadata: str = METADATA,
        features: list[FeatureFiles] | tuple[()] = (),
        suffix: str = ".tsv",
        **settings: Any,
    ) -> xr.Dataset:
        return read_neurosynth(
            write_text(tmp_path / f"coordinates{suffix}", coordinates),
            write_text(tmp_path / f"metadata{suffix}", metadata),
            features,
            **settings,
        )

    return _read


def error_of(action: Callable[..., Any], *args: Any, **settings: Any) -> str:
    with pytest.raises(SourceFormatError) as caught:
        action(*args, **settings)
    return str(caught.value)


def assert_says(message: str, *parts: str) -> None:
    missing = [part for part in parts if part not in message]
    assert not missing, f"{missing} not in: {message}"


# what is read


def test_read_neurosynth__ids_follow_the_metadata(read: Read) -> None:
    corpus = read()
    assert corpus["analysis_id"].values.tolist() == ["30-1", "10-1", "20-1"]
    assert corpus["study_id"].values.tolist() == ["30", "10", "20"]
    assert corpus["analysis_n_foci"].values.tolist() == [2, 3, 1]


def test_read_neurosynth__foci_and_spaces_of_ungrouped_rows(read: Read) -> None:
    corpus = read()
    assert foci_of(corpus) == FOCI
    assert sorted(corpus.attrs["spaces"]) == ["MNI", "TAL", "UNKNOWN"]


def test_read_neurosynth__texts(read: Read) -> None:
    corpus = read()
    assert texts_of(corpus, "name") == ["Third", 'The "what" of Ärger', "NA"]
    assert texts_of(corpus, "authors") == ["A B, C D", "E", "None"]
    assert texts_of(corpus, "publication") == ["J One", "J Two", ""]
    assert texts_of(corpus, "doi") == ["10.1/c", "", "10.1/b"]


def test_read_neurosynth__missing_year_is_0(read: Read) -> None:
    assert years_of(read()) == [2003, 0, 1999]


@pytest.mark.parametrize("year", ["", "n/a", "unknown", "inf", "nan", "99999999999"])
def test_read_neurosynth__year_that_is_no_number_is_0(read: Read, year: str) -> None:
    corpus = read(metadata=METADATA.replace("2003", year))
    assert years_of(corpus) == [0, 0, 1999]


def test_read_neurosynth__year_with_decimals(read: Read) -> None:
    corpus = read(metadata=METADATA.replace("2003", "2003.0"))
    assert years_of(corpus) == [2003, 0, 1999]


def test_read_neurosynth__blank_space_is_unknown(read: Read) -> None:
    corpus = read(metadata=METADATA.replace("\tMNI\t", "\t\t"))
    assert {focus[3] for focus in foci_of(corpus)["10-1"]} == {"UNKNOWN"}


def test_read_neurosynth__ids_are_text(read: Read) -> None:
    ids = METADATA.replace("30\t10", "0030\t10"), COORDINATES.replace("\n30", "\n0030")
    assert read(metadata=ids[0], coordinates=ids[1])["study_id"].values.tolist()[0] == "0030"


def test_read_neurosynth__compressed_equals_plain(read: Read) -> None:
    plain, packed = read(), read(suffix=".tsv.gz")
    assert nd_corpus.digest(plain) == nd_corpus.digest(packed)
    assert foci_of(packed) == FOCI


def test_read_neurosynth__windows_line_ends_and_byte_order_mark(read: Read) -> None:
    corpus = read(*("\ufeff" + text.replace("\n", "\r\n") for text in (COORDINATES, METADATA)))
    assert nd_corpus.digest(corpus) == nd_corpus.digest(read())


def test_read_neurosynth__column_order_does_not_matter(read: Read) -> None:
    rows = [line.split("\t") for line in COORDINATES.splitlines()]
    turned = "".join("\t".join(reversed(row)) + "\n" for row in rows)
    assert foci_of(read(coordinates=turned)) == FOCI


def test_read_neurosynth__neuroquery_has_no_space_and_other_columns(read: Read) -> None:
    metadata = "id\tpmid\ttitle\tkeywords\n30\t1\tThird\tk\n10\t2\tFirst\tk\n20\t3\tNull\tk\n"
    corpus = read(metadata=metadata)
    assert corpus.attrs["spaces"] == ["MNI"]
    assert {focus[3] for foci in foci_of(corpus).values() for focus in foci} == {"MNI"}
    assert texts_of(corpus, "name") == ["Third", "First", "Null"]
    assert texts_of(corpus, "authors") == ["", "", ""]
    assert years_of(corpus) == [0, 0, 0]


def test_read_neurosynth__without_features(read: Read) -> None:
    assert "feature" not in read().dims


def test_read_neurosynth__provenance_names_the_files(read: Read, tmp_path: Path) -> None:
    pair = write_features(tmp_path, MATRIX, TERMS)
    (step,) = steps(read(features=[pair]))
    assert step["step"] == "read_neurosynth"
    assert step["settings"]["files"] == [
        "coordinates.tsv",
        "metadata.tsv",
        "features.npz",
        "features_vocabulary.txt",
    ]


# features


def test_read_neurosynth__features_are_named_after_the_file(read: Read, tmp_path: Path) -> None:
    corpus = read(features=[write_features(tmp_path, MATRIX, TERMS, TERMS_NAME)])
    pain, memory = "terms_abstract_tfidf__pain", "terms_abstract_tfidf__working memory"
    assert corpus["feature"].values.tolist() == [pain, memory]
    assert weights_by_name(corpus) == {
        ("30-1", pain): 0.5,
        ("20-1", pain): 0.25,
        ("20-1", memory): 0.001,
    }


def test_read_neurosynth__features_of_another_file_name(read: Read, tmp_path: Path) -> None:
    corpus = read(features=[write_features(tmp_path, MATRIX, TERMS, "mine.v2")])
    assert corpus["feature"].values.tolist() == ["mine.v2__pain", "mine.v2__working memory"]


def test_read_neurosynth__transposed_matrix(read: Read, tmp_path: Path) -> None:
    straight = read(features=[write_features(tmp_path, MATRIX, TERMS)])
    turned = read(features=[write_features(tmp_path, MATRIX.T, TERMS)])
    assert weights_by_name(turned) == weights_by_name(straight)
    assert nd_corpus.digest(turned) == nd_corpus.digest(straight)


def test_read_neurosynth__square_matrix_warns_and_takes_rows_as_studies(
    read: Read, tmp_path: Path
) -> None:
    square = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    pair = write_features(tmp_path, square, ["a", "b", "c"], "square")
    with pytest.warns(CorpusWarning, match=r"square\.npz is 3 x 3.*rows are taken as studies"):
        corpus = read(features=[pair])
    assert weights_by_name(corpus) == {("30-1", "square__b"): 1.0, ("10-1", "square__c"): 2.0}


def test_read_neurosynth__several_feature_pairs(read: Read, tmp_path: Path) -> None:
    topics = np.array([[0.0], [0.75], [0.0]])
    pairs = [
        write_features(tmp_path, MATRIX, TERMS, TERMS_NAME),
        write_features(tmp_path, topics, ["pain"], TOPICS_NAME),
    ]
    corpus = read(features=pairs)
    assert corpus["feature"].values.tolist() == [
        "terms_abstract_tfidf__pain",
        "terms_abstract_tfidf__working memory",
        "LDA50_abstract_weight__pain",
    ]
    weights = weights_by_name(corpus)
    assert weights["10-1", "LDA50_abstract_weight__pain"] == 0.75
    assert len(weights) == 4


@pytest.mark.parametrize("form", ["csr", "csc", "coo"])
def test_read_neurosynth__any_sparse_format(read: Read, tmp_path: Path, form: str) -> None:
    pair = write_features(tmp_path, MATRIX, TERMS)
    sparse.save_npz(pair[0], sparse.coo_matrix(MATRIX).asformat(form))
    assert_array_equal(nd_corpus.weights_of(read(features=[pair])).toarray(), MATRIX)


# every way for a table to be wrong


@pytest.mark.parametrize("file", ["coordinates", "metadata"])
def test_read_neurosynth__missing_file(read: Read, tmp_path: Path, file: str) -> None:
    paths = {name: tmp_path / f"{name}.tsv" for name in ("coordinates", "metadata")}
    read()
    paths[file].unlink()
    message = error_of(read_neurosynth, **paths)
    assert_says(message, str(paths[file]), "not there", "tab-separated")


@pytest.mark.parametrize("file", ["coordinates", "metadata"])
def test_read_neurosynth__empty_file(read: Read, file: str) -> None:
    message = error_of(read, **{file: ""})
    assert_says(message, f"{file}.tsv, line 1", "is empty", "header", "id")


@pytest.mark.parametrize(
    ("file", "text"), [("coordinates", COORDINATES), ("metadata", METADATA)], ids=["xyz", "meta"]
)
def test_read_neurosynth__header_only(read: Read, file: str, text: str) -> None:
    message = error_of(read, **{file: text.splitlines()[0] + "\n"})
    assert_says(message, f"{file}.tsv, line 2", "a header and no row")


@pytest.mark.parametrize("column", ["id", "x", "y", "z"])
def test_read_neurosynth__coordinates_lack_a_column(read: Read, column: str) -> None:
    header, rest = COORDINATES.split("\n", 1)
    names = ["other" if name == column else name for name in header.split("\t")]
    message = error_of(read, coordinates="\t".join(names) + "\n" + rest)
    assert_says(message, "coordinates.tsv, line 1", f"no column {column};", "found", "other")
    assert_says(message, "tab-separated")


def test_read_neurosynth__metadata_lack_the_id(read: Read) -> None:
    message = error_of(read, metadata=METADATA.replace("id\t", "pmid\t", 1))
    assert_says(message, "metadata.tsv, line 1", "no column id;", "found pmid, doi, space")


def test_read_neurosynth__commas_instead_of_tabs(read: Read) -> None:
    message = error_of(read, coordinates="id,x,y,z\n10,1,2,3\n")
    assert_says(message, "coordinates.tsv, line 1", "no column id, x, y, z", "tab-separated")


@pytest.mark.parametrize(
    ("value", "found"),
    [("1O", "'1O'"), ("1,5", "'1,5'"), ("", "nothing"), ("inf", "inf"), ("NaN", "nothing")],
)
def test_read_neurosynth__coordinate_that_is_no_number(read: Read, value: str, found: str) -> None:
    message = error_of(read, coordinates=COORDINATES.replace("7.0\t8", f"7.0\t{value}"))
    assert_says(message, "coordinates.tsv, line 4, column y", f"found {found}", "in mm")
    assert_says(message, "1 rows", "correct or remove")


def test_read_neurosynth__coordinate_absent_at_the_end_of_a_row(read: Read) -> None:
    message = error_of(read, coordinates=COORDINATES.replace("\t8\t9\n", "\t8\n"))
    assert_says(message, "coordinates.tsv, line 4, column z", "found nothing")


def test_read_neurosynth__counts_the_rows_that_are_no_numbers(read: Read) -> None:
    message = error_of(read, coordinates=COORDINATES.replace("\t7\t", "\t7\tx"))
    assert_says(message, "line 2, column x", "2 rows")


def test_read_neurosynth__line_numbers_count_blank_lines(read: Read) -> None:
    text = COORDINATES.replace("\n30\t7", "\n\n\n30\t7").replace("7.0\t8", "7.0\tbad")
    assert_says(error_of(read, coordinates=text), "coordinates.tsv, line 6, column y", "'bad'")


def test_read_neurosynth__line_numbers_count_line_ends_in_quotes(read: Read) -> None:
    text = METADATA.replace("\tThird\t", '\t"Third\nof three"\t').replace("\n20\t", "\n30\t")
    assert_says(error_of(read, metadata=text), "metadata.tsv, line 5, column id", "30")


def test_read_neurosynth__coordinates_of_an_unknown_study(read: Read) -> None:
    text = COORDINATES.replace("\n20\t", "\n99\t") + "98\t1\t1\t1\t1\n99\t1\t1\t1\t1\n"
    message = error_of(read, coordinates=text)
    assert_says(message, "coordinates.tsv, line 5, column id: 99 is not in", "metadata.tsv")
    assert_says(message, "2 ids are not: 99, 98", "same version")


def test_read_neurosynth__study_without_coordinates(read: Read) -> None:
    text = "".join(line for line in COORDINATES.splitlines(True) if not line.startswith("10"))
    message = error_of(read, coordinates=text)
    assert_says(message, "metadata.tsv, line 3, column id: 10 has no coordinates")
    assert_says(message, "coordinates.tsv", "1 studies", "allow_empty=True", "--allow-empty")


def test_read_neurosynth__allow_empty_keeps_studies_without_coordinates(read: Read) -> None:
    text = "".join(line for line in COORDINATES.splitlines(True) if not line.startswith("10"))
    corpus = read(coordinates=text, allow_empty=True)
    assert foci_of(corpus) == {**FOCI, "10-1": []}
    assert corpus["analysis_n_foci"].values.tolist() == [2, 0, 1]


def test_read_neurosynth__repeated_id(read: Read) -> None:
    message = error_of(read, metadata=METADATA.replace("\n20\t", "\n30\t"))
    assert_says(message, "metadata.tsv, line 4, column id: 30", "already", "1 ids", "one row")


@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize(
    ("file", "text"), [("coordinates", COORDINATES), ("metadata", METADATA)], ids=["xyz", "meta"]
)
def test_read_neurosynth__blank_id(read: Read, file: str, text: str, blank: str) -> None:
    message = error_of(read, **{file: text.replace("\n10\t", f"\n{blank}\t")})
    line = text.split("\n").index(next(row for row in text.split("\n") if row.startswith("10")))
    assert_says(message, f"{file}.tsv, line {line + 1}, column id", "blank", "name its study")


@pytest.mark.parametrize("file", ["coordinates", "metadata"])
@pytest.mark.parametrize("spoil", ["cut", "flip", "plain"])
def test_read_neurosynth__spoilt_gzip(tmp_path: Path, file: str, spoil: str) -> None:
    texts = {"coordinates": COORDINATES, "metadata": METADATA}
    paths = {name: write_text(tmp_path / f"{name}.tsv.gz", text) for name, text in texts.items()}
    packed = bytearray(paths[file].read_bytes())
    if spoil == "cut":
        del packed[-20:]
    elif spoil == "flip":
        packed[len(packed) // 2] ^= 0xFF
    else:
        packed = bytearray(gzip.decompress(packed))
    paths[file].write_bytes(packed)
    message = error_of(read_neurosynth, **paths)
    assert_says(message, str(paths[file]), "not a whole gzip file", "download it again")


def test_read_neurosynth__not_utf8(tmp_path: Path) -> None:
    coordinates = write_text(tmp_path / "coordinates.tsv", COORDINATES)
    metadata = tmp_path / "metadata.tsv"
    metadata.write_bytes(METADATA.encode("latin-1"))
    message = error_of(read_neurosynth, coordinates, metadata)
    assert_says(message, str(metadata), "UTF-8")


def test_read_neurosynth__row_that_is_too_long(read: Read) -> None:
    message = error_of(read, metadata=METADATA.replace("\tJ Two", "\tJ\tTwo"))
    assert_says(message, "metadata.tsv", "tab-separated", "line 3")


@pytest.mark.parametrize("extra", ["", "9", "extra"])
@pytest.mark.parametrize(
    ("file", "text"), [("coordinates", COORDINATES), ("metadata", METADATA)], ids=["xyz", "meta"]
)
def test_read_neurosynth__every_row_is_too_long(
    read: Read, file: str, text: str, extra: str
) -> None:
    header, rest = text.split("\n", 1)
    longer = header + "\n" + rest.replace("\n", f"\t{extra}\n")
    message = error_of(read, **{file: longer})
    assert_says(message, f"{file}.tsv, line 2", "fields, but the header names", "a tab too many")


@pytest.mark.parametrize("first", [0, 1])
def test_read_neurosynth__every_row_is_too_long_and_ids_count_up(read: Read, first: int) -> None:
    ids = [first, first + 1]
    metadata = "id\tspace\n" + "".join(f"{number}\tMNI\t9\n" for number in ids)
    message = error_of(read, metadata=metadata)
    assert_says(message, "metadata.tsv, line 2", "fields, but the header names")
    coordinates = "id\tx\ty\tz\n" + "".join(f"{number}\t0\t0\t0\t0\n" for number in ids)
    metadata = "id\tspace\n" + "".join(f"{number}\tMNI\n" for number in ids)
    message = error_of(read, coordinates=coordinates, metadata=metadata)
    assert_says(message, "coordinates.tsv, line 2", "fields, but the header names")


def test_read_neurosynth__a_column_without_a_name_is_left_out(read: Read) -> None:
    corpus = read(*(text.replace("\n", "\t\n") for text in (COORDINATES, METADATA)))
    assert foci_of(corpus) == FOCI
    assert texts_of(corpus, "publication") == ["J One", "J Two", ""]


def test_read_neurosynth__quotation_mark_left_open(read: Read) -> None:
    text = METADATA.replace("\tThird\t", '\t"Third\t').replace("\tNA\t", '\tNA"\t')
    message = error_of(read, metadata=text)
    assert_says(message, "metadata.tsv, line 2, column title", "quotation mark", "left open")
    unclosed = METADATA.replace("\tNA\t", '\t"NA\t')
    assert_says(error_of(read, metadata=unclosed), "metadata.tsv", "not a tab-separated table")


# every way for features to be wrong


@pytest.mark.parametrize("shape", [(4, 2), (3, 3), (2, 4)])
def test_read_neurosynth__matrix_of_another_size(
    read: Read, tmp_path: Path, shape: tuple[int, int]
) -> None:
    pair = write_features(tmp_path, np.ones(shape), TERMS)
    message = error_of(read, features=[pair])
    assert_says(message, str(pair[0]), f"{shape[0]} x {shape[1]}", "3 studies", "2 features")
    assert_says(message, pair[1].name, "version")


def test_read_neurosynth__square_matrix_of_another_size(read: Read, tmp_path: Path) -> None:
    pair = write_features(tmp_path, np.ones((4, 4)), ["a", "b", "c"])
    assert_says(error_of(read, features=[pair]), "4 x 4", "3 studies", "3 features")


def _as_text(path: Path) -> None:
    path.write_text("not a matrix")


def _as_nothing(path: Path) -> None:
    path.write_bytes(b"")


def _as_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, MATRIX)


def _as_dense_archive(path: Path) -> None:
    np.savez(path, matrix=MATRIX)


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _flip(path: Path) -> None:
    """Damage the compressed weights, which only reading them shows."""
    data = bytearray(path.read_bytes())
    data[data.index(b"data.npy") + 60] ^= 0xFF
    path.write_bytes(data)


def _shift(path: Path) -> None:
    """Damage the place where the first array starts, so that inflating it fails."""
    data = bytearray(path.read_bytes())
    data[28] ^= 0xFF
    path.write_bytes(data)


def _recode(path: Path) -> None:
    """Name a compression that nobody knows in the directory of the archive."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] ^= 0xFF
    path.write_bytes(data)


def _lock(path: Path) -> None:
    """Say in the directory of the archive that a file is encrypted."""
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        _as_text,
        _as_nothing,
        _as_array,
        _as_dense_archive,
        _cut,
        _flip,
        _shift,
        _recode,
        _lock,
        Path.unlink,
    ],
)
def test_read_neurosynth__no_sparse_matrix(
    read: Read, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    pair = write_features(tmp_path, MATRIX, TERMS)
    spoil(pair[0])
    message = error_of(read, features=[pair])
    assert_says(message, str(pair[0]), "could not be read", "sparse", "_features.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_read_neurosynth__weight_that_is_not_finite(
    read: Read, tmp_path: Path, value: float
) -> None:
    matrix = MATRIX.copy()
    matrix[2, 1] = value
    pair = write_features(tmp_path, matrix, TERMS)
    message = error_of(read, features=[pair])
    assert_says(message, str(pair[0]), "row 3, column 2", f"found {value}", "finite")


def test_read_neurosynth__same_term_twice(read: Read, tmp_path: Path) -> None:
    pair = write_features(tmp_path, np.ones((3, 3)), ["a", "b", "a"])
    message = error_of(read, features=[pair])
    assert_says(message, f"{pair[1]}, line 3", "'a'", "line 1 already", "one line")


@pytest.mark.parametrize("blank", ["", " \t"])
def test_read_neurosynth__blank_term(read: Read, tmp_path: Path, blank: str) -> None:
    pair = write_features(tmp_path, MATRIX, ["a", blank])
    assert_says(error_of(read, features=[pair]), f"{pair[1]}, line 2", "blank", "expected a")


def test_read_neurosynth__empty_vocabulary(read: Read, tmp_path: Path) -> None:
    pair = write_features(tmp_path, MATRIX, [])
    assert_says(error_of(read, features=[pair]), f"{pair[1]}, line 1", "empty", "one feature")


def test_read_neurosynth__missing_vocabulary(read: Read, tmp_path: Path) -> None:
    pair = write_features(tmp_path, MATRIX, TERMS)
    pair[1].unlink()
    assert_says(error_of(read, features=[pair]), str(pair[1]), "could not be read", "one feature")


def test_read_neurosynth__vocabulary_that_is_not_utf8(read: Read, tmp_path: Path) -> None:
    pair = write_features(tmp_path, MATRIX, TERMS)
    pair[1].write_bytes("Ärger\nb\n".encode("latin-1"))
    assert_says(error_of(read, features=[pair]), str(pair[1]), "could not be read")


def test_read_neurosynth__same_file_twice(read: Read, tmp_path: Path) -> None:
    pair = write_features(tmp_path, MATRIX, TERMS)
    assert_says(error_of(read, features=[pair, pair]), "features__pain", "two of", "once")


# real databases


def test_read_neurosynth__part_of_the_database_in_nimare() -> None:
    spec = find_spec("nimare")
    folder = Path(spec.origin or "").parent / "tests" / "data" if spec else Path("absent")
    stem = "data-neurosynth_version-7_"
    coordinates, metadata = (
        folder / f"{stem}{name}.tsv.gz" for name in ("coordinates", "metadata")
    )
    if not metadata.is_file():
        pytest.skip("NiMARE is not installed with its test data")
    pair = (folder / f"{TERMS_NAME}.npz", folder / f"{stem}vocab-terms_vocabulary.txt")
    compare_with_tables(read_neurosynth(coordinates, metadata, [pair]), coordinates, metadata, pair)


@pytest.mark.realdata
def test_read_neurosynth__whole_database(data_folder: Path) -> None:
    folder, stem = data_folder / "neurosynth", "data-neurosynth_version-7_"
    coordinates, metadata = (
        folder / f"{stem}{name}.tsv.gz" for name in ("coordinates", "metadata")
    )
    pair = (folder / f"{TOPICS_NAME}.npz", folder / f"{stem}vocab-LDA50_vocabulary.txt")
    corpus = read_neurosynth(coordinates, metadata, [pair])
    assert corpus.sizes["analysis"] == 14_371
    assert corpus.sizes["focus"] == 507_891
    assert corpus.sizes["feature"] == 50
    assert corpus.sizes["weight"] == 718_550
    assert set(corpus.attrs["spaces"]) == {"MNI", "TAL", "UNKNOWN"}
    compare_with_tables(corpus, coordinates, metadata, pair)


def compare_with_tables(
    corpus: xr.Dataset, coordinates: Path, metadata: Path, pair: tuple[Path, Path]
) -> None:
    """The corpus against the tables as pandas and scipy read them."""
    studies = pd.read_csv(metadata, sep="\t", dtype=str, keep_default_na=False)
    foci = pd.read_csv(coordinates, sep="\t", dtype={"id": str})
    assert corpus["study_id"].values.tolist() == studies["id"].tolist()
    assert corpus["analysis_id"].values.tolist() == (studies["id"] + "-1").tolist()
    for ours, theirs in {"name": "title", "authors": "authors", "publication": "journal"}.items():
        assert texts_of(corpus, ours) == studies[theirs].tolist()
    assert texts_of(corpus, "doi") == studies["doi"].tolist()
    assert years_of(corpus) == [int(y or 0) for y in studies["year"]]

    place = {study: row for row, study in enumerate(studies["id"])}
    order = foci["id"].map(place).sort_values(kind="stable").index
    sorted_foci = foci.loc[order]
    assert_array_equal(corpus["focus_xyz"].values, sorted_foci[["x", "y", "z"]].to_numpy(float))
    owner = studies["id"].to_numpy()[nd_corpus.analysis_of_focus(corpus)]
    assert_array_equal(owner, sorted_foci["id"])
    space = studies.set_index("id")["space"].loc[sorted_foci["id"]].tolist()
    assert np.array(corpus.attrs["spaces"])[corpus["focus_space"].values].tolist() == space

    terms = pair[1].read_text().split("\n")
    names = [name.partition("__")[2] for name in corpus["feature"].values.tolist()]
    assert names == [term for term in terms if term]
    raw = sparse.load_npz(pair[0]).tocsr()
    raw = raw if raw.shape == (len(studies), len(names)) else raw.T.tocsr()
    difference = nd_corpus.weights_of(corpus).tocsr() != raw
    assert difference.nnz == 0
