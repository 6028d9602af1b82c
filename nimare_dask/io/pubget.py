"""Folders of pubget: articles of PubMed Central with the coordinates found in their tables.

``coordinates.csv`` (pmcid, table_id, table_label, x, y, z), ``metadata.csv`` (pmcid, pmid, doi,
title, journal, publication_year, license), ``authors.csv`` (pmcid, surname, given-names),
``coordinate_space.csv`` (pmcid, coordinate_space: MNI, TAL or UNKNOWN) and ``text.csv`` (pmcid,
title, keywords, abstract, body). Later versions call the article ``id`` and its authors
``firstname`` and ``lastname``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import xarray as xr

from nimare_dask.draft import UNKNOWN_SPACE, Draft
from nimare_dask.errors import SettingsError
from nimare_dask.io.names import Taken
from nimare_dask.io.problems import Problems, settle, show
from nimare_dask.io.text_files import is_place, read_text, split_rows, to_number
from nimare_dask.provenance import with_step

Per = Literal["table", "study"]

_AXES = ("x", "y", "z")
_ARTICLE = ("pmcid", "id")
_EXTRACTED = "*extractedData"
_METADATA = {
    "title": "study.name",
    "journal": "study.publication",
    "publication_year": "study.year",
    "doi": "study.doi",
    "pmid": "study.pmid",
    "license": "study.metadata.license",
}
_TEXTS = ("keywords", "abstract", "body")
_MOST_SPACES = 120


class _File(NamedTuple):
    """Rows of a table as mappings, and the line of each."""

    name: str
    columns: list[str]
    rows: list[dict[str, str]]
    line: list[int]

    def place(self, at: int) -> str:
        return f"{self.name}, line {self.line[at]}"


def read_pubget(folder: str | Path, *, per: Per = "table", texts: bool = False) -> xr.Dataset:
    """Read a folder of data that pubget extracted.

    Parameters
    ----------
    folder
        Folder with ``coordinates.csv`` and what goes with it (``subset_..._extractedData``), or the
        one that this is the only such folder of.
    per
        ``"table"``: one analysis for each table with coordinates, called by its id; ``"study"``:
        one for each article.
    texts
        Keep keywords, abstract and body of articles, as ``analysis.texts``.

    Returns
    -------
    corpus
        See :mod:`nimare_dask.corpus`. Studies are called by their pmcid; those without coordinates
        are kept as studies without an analysis.

    Raises
    ------
    SourceFormatError
        Names the file and line, what was found and what to do.
    SettingsError
        For a `per` that is not known.
    """
    if per not in ("table", "study"):
        raise SettingsError(f"per is {per!r}; expected 'table' or 'study'.")
    path = Path(folder)
    problems = Problems(path)
    corpus = parse(path, problems, per=per, texts=texts)
    settle(problems)
    assert corpus is not None  # there would have been an error
    kept = {"files": [path.name], "per": per, "texts": texts}
    return with_step(corpus, "read_pubget", settings=kept)


def parse(
    path: Path, problems: Problems, *, per: Per = "table", texts: bool = False
) -> xr.Dataset | None:
    """The corpus of a folder, or None; what is wrong is added to `problems`."""
    folder = _find_folder(path, problems)
    foci = None if folder is None else _load(folder, "coordinates.csv", _AXES, problems)
    if folder is None or foci is None:
        return None
    draft = Draft()
    studies: dict[str, int] = {}
    _add_studies(draft, studies, folder, problems)
    spaces = _read_spaces(folder, problems)
    analyses = _add_foci(draft, studies, foci, spaces, per, problems)
    if texts:
        _add_texts(draft, studies, folder, problems)
    if problems.n_errors:
        return None
    if not draft.focus_xyz:
        problems.error("coordinates.csv", "it has no focus; expected rows with x, y and z in mm.")
        return None
    bare = len(studies) - len({study for study, _ in analyses})
    if bare:
        problems.warn(
            "", f"{bare:,} articles have no coordinates; kept as studies without an analysis."
        )
    return draft.build()


def _find_folder(path: Path, problems: Problems) -> Path | None:
    """The folder itself, or the only folder of extracted data in it."""
    try:
        if (path / "coordinates.csv").is_file():
            return path
        inside = sorted(each.parent for each in path.glob(f"{_EXTRACTED}/coordinates.csv"))
    except (OSError, ValueError) as error:
        problems.error("", f"it could not be read ({error}); expected a folder of pubget.")
        return None
    if len(inside) == 1:
        return inside[0]
    if inside:
        names = ", ".join(each.name for each in inside)
        problems.error("", f"it has several folders of extracted data ({names}); give one.")
    else:
        problems.error(
            "",
            "it has no coordinates.csv; expected a folder that `pubget extract_data` wrote "
            "(subset_..._extractedData).",
        )
    return None


def _load(folder: Path, name: str, required: tuple[str, ...], problems: Problems) -> _File | None:
    """One table of the folder; None, and a problem, without."""
    inside = Problems(folder / name)
    text = read_text(folder / name, inside, expected="a table between commas")
    split = None if text is None else split_rows(text, ",", inside)
    for problem in inside.found:
        problems.error(", ".join(part for part in (name, problem.place) if part), problem.message)
    if split is None:
        return None
    header = [each.strip() for each in split.cells[0]]
    article = next((each for each in _ARTICLE if each in header), None)
    missing = [] if article else ["pmcid"]
    missing += [each for each in required if each not in header]
    if missing:
        problems.error(
            f"{name}, line 1",
            f"no column {', '.join(missing)}; found {show(', '.join(header))}.",
        )
        return None
    made = _File(name, header, [], [])
    for line, row in zip(split.place[1:], split.cells[1:], strict=True):
        if len(row) > len(header):
            problems.error(
                f"{name}, line {line}",
                f"the row has {len(row)} fields, but the header names {len(header)} columns.",
            )
        elif any(map(str.strip, row)):
            cells = {key: cell.strip() for key, cell in zip(header, row, strict=False)}
            cells["pmcid"] = cells.get(str(article), "")
            if cells["pmcid"]:
                made.rows.append(cells)
                made.line.append(line)
            else:
                problems.error(f"{name}, line {line}", "the pmcid is blank.")
    return made


def _load_if_there(
    folder: Path, name: str, required: tuple[str, ...], problems: Problems, *, without: str
) -> _File | None:
    if (folder / name).is_file():
        return _load(folder, name, required, problems)
    problems.warn("", f"{name} is not there, so {without}.")
    return None


def _add_studies(draft: Draft, studies: dict[str, int], folder: Path, problems: Problems) -> None:
    """Articles with what their metadata say."""
    found = _load_if_there(
        folder, "metadata.csv", (), problems, without="nothing but coordinates is known of articles"
    )
    if found is None:
        return
    for at, row in enumerate(found.rows):
        if row["pmcid"] in studies:
            problems.warn(
                found.place(at), f"{show(row['pmcid'])} is there already; this row is left out."
            )
            continue
        study = _study(draft, studies, row["pmcid"])
        for theirs, ours in _METADATA.items():
            draft.facts.add(ours, study, _known(ours, row.get(theirs, "")))
    if (folder / "authors.csv").is_file():
        _add_authors(draft, studies, folder, problems)


def _study(draft: Draft, studies: dict[str, int], article: str) -> int:
    if article not in studies:
        studies[article] = draft.add_study(article)
        if re.fullmatch("[0-9]{1,12}", article):
            draft.facts.add("study.metadata.pmcid", studies[article], article)
    return studies[article]


def _known(field: str, text: str) -> Any:
    """A value without the traces of pandas: ``1234.0``, and blank or ``nan`` for nothing."""
    if text.casefold() in ("", "nan", "none"):
        return None
    whole = re.fullmatch(r"([0-9]{1,15})\.0", text)
    plain = whole[1] if whole and field in ("study.year", "study.pmid") else text
    is_year = field == "study.year" and re.fullmatch("[0-9]{4}", plain)
    return int(plain) if is_year else plain


def _add_authors(
    draft: Draft, studies: Mapping[str, int], folder: Path, problems: Problems
) -> None:
    found = _load(folder, "authors.csv", (), problems)
    by_study: dict[int, list[str]] = {}
    for row in found.rows if found else []:
        given = row.get("given-names") or row.get("firstname") or ""
        last = row.get("surname") or row.get("lastname") or ""
        name = " ".join(part for part in (given, last) if part)
        if name and row["pmcid"] in studies:
            by_study.setdefault(studies[row["pmcid"]], []).append(name)
    for study, names in by_study.items():
        draft.facts.add("study.authors", study, ", ".join(names))


def _read_spaces(folder: Path, problems: Problems) -> dict[str, str]:
    found = _load_if_there(
        folder,
        "coordinate_space.csv",
        ("coordinate_space",),
        problems,
        without="the space of all foci is unknown",
    )
    rows = found.rows if found else []
    spaces = {row["pmcid"]: row.get("coordinate_space") or UNKNOWN_SPACE for row in rows}
    if len(set(spaces.values())) > _MOST_SPACES:
        problems.error(
            "coordinate_space.csv",
            f"it has {len(set(spaces.values())):,} different spaces; expected MNI, TAL, UNKNOWN.",
        )
    return spaces


def _add_foci(
    draft: Draft,
    studies: dict[str, int],
    foci: _File,
    spaces: Mapping[str, str],
    per: Per,
    problems: Problems,
) -> dict[tuple[int, str], int]:
    """Foci and their analyses, by study and table."""
    analyses: dict[tuple[int, str], int] = {}
    names = Taken()
    n_known = len(studies)
    for at, row in enumerate(foci.rows):
        article, table = row["pmcid"], row.get("table_id", "") if per == "table" else ""
        study = _study(draft, studies, article)
        if (study, table) not in analyses:
            made = draft.add_analysis(study, names.contrast(article, table or "1"))
            analyses[study, table] = made
            if per == "table":
                draft.facts.add("analysis.name", made, row.get("table_label") or None)
                draft.facts.add("analysis.description", made, row.get("table_caption") or None)
        texts = [row.get(axis, "") for axis in _AXES]
        xyz = [to_number(text) for text in texts]
        there = [value for value in xyz if value is not None]
        if len(there) < len(_AXES):
            problems.error(foci.place(at), f"found {show(' '.join(texts))}; expected x y z in mm.")
        elif is_place(there):
            draft.add_focus(analyses[study, table], there, spaces.get(article, UNKNOWN_SPACE))
        else:
            problems.warn(
                foci.place(at), f"found {show(' '.join(texts))}, no place in mm; left out."
            )
    strangers = len(studies) - n_known
    if strangers and n_known:
        problems.warn(
            "", f"{strangers:,} articles have coordinates and are not in metadata.csv; kept."
        )
    return analyses


def _add_texts(draft: Draft, studies: Mapping[str, int], folder: Path, problems: Problems) -> None:
    """Texts of articles, for each of their analyses."""
    found = _load(folder, "text.csv", (), problems)
    of_study: dict[int, list[int]] = {}
    for analysis, study in enumerate(draft.analysis_study):
        of_study.setdefault(study, []).append(analysis)
    seen: set[str] = set()
    for row in found.rows if found else []:
        if row["pmcid"] in seen or row["pmcid"] not in studies:
            continue
        seen.add(row["pmcid"])
        for analysis in of_study.get(studies[row["pmcid"]], []):
            for name in _TEXTS:
                draft.facts.add(f"analysis.texts.{name}", analysis, row.get(name) or None)
