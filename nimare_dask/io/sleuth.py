"""Sleuth text, which GingerALE and NiMARE read: headers that begin with slashes, then foci.

.. code-block:: text

    //Reference=MNI
    //Author, 2005; contrast
    //Subjects=12
    -16  -58  -22

A header may have several lines, the line of subjects may be any of them, and a further reference
holds from its line on. The study is what stands before the first semicolon or colon after the year.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import xarray as xr

from nimare_dask.draft import UNKNOWN_SPACE, Draft
from nimare_dask.errors import SettingsError
from nimare_dask.io.names import Taken
from nimare_dask.io.problems import Problems, settle, show
from nimare_dask.io.text_files import SIGNS, is_place, read_text, to_number
from nimare_dask.provenance import with_step

#: What a contrast without a name is called, as NiMARE has it.
NO_CONTRAST = "analysis_1"
_EXPECTED = "Sleuth text (//Reference=MNI, headers that begin with //, rows of x y z)"
_LINE_END = re.compile("\r\n|\n\r|\n|\r")
_YEAR = re.compile("(?:19|20)[0-9]{2}")
_REFERENCE = re.compile(r"reference\s*=\s*(.*)|reference\s*:\s*((?:mni|tal).*)", re.IGNORECASE)
_SIZE = re.compile(
    r"(?:(?P<n>n)|(?:(?:number|no\.?|#)\s?(?:of\s)?)?(?:subjects?|participants?)|sample\s?sizes?)"
    r"\s*(?P<sign>[=:])\s*(?P<value>.*)",
    re.IGNORECASE,
)
_WHOLE_SIZE = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")
_SIZE_INSIDE = re.compile(r"\b(?:subjects|n)\s?=\s?([0-9]{1,9})\b", re.IGNORECASE)
#: What NiMARE writes of a study below its name.
_OF_STUDY = {
    "doi": "study.doi",
    "pubmedid": "study.pmid",
    "pmid": "study.pmid",
    "authors": "study.authors",
    "publication": "study.publication",
    "year": "study.year",
    "affiliations": "study.metadata.affiliations",
}
_KEY = re.compile(rf"({'|'.join(_OF_STUDY)})\s?=\s?(\S.*)", re.IGNORECASE)


def read_sleuth(path: str | Path | Sequence[str | Path]) -> xr.Dataset:
    """Read one or several files of Sleuth text.

    Studies are called what stands before the first semicolon or colon after the year (else before
    the first semicolon, else colon), contrasts what follows; without either the contrast is
    ``analysis_1``. Those are NiMARE's ids. Foci keep the space of the reference above them.

    Parameters
    ----------
    path
        A file, plain or compressed (.gz), or several; studies of one name are merged.

    Returns
    -------
    corpus
        See :mod:`nimare_dask.corpus`; sample sizes are ``analysis.metadata.sample_sizes``.

    Raises
    ------
    SourceFormatError
        Names the lines, what was found and what to do.
    SettingsError
        When no file is given.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    if not paths:
        raise SettingsError("No file is given; expected the path of Sleuth text, or several.")
    draft, names = Draft(), Taken()
    for each in paths:
        problems = Problems(each)
        _read_into(draft, names, each, problems)
        settle(problems)
    files = [each.name for each in paths]
    return with_step(draft.build(), "read_sleuth", settings={"files": files})


def parse(path: Path, problems: Problems) -> xr.Dataset | None:
    """The corpus of one file, or None; what is wrong is added to `problems`."""
    draft = Draft()
    _read_into(draft, Taken(), path, problems)
    return None if problems.n_errors else draft.build()


def split_label(label: str) -> tuple[str, str]:
    """Study and contrast of a header, as NiMARE tells them apart."""
    year = _YEAR.search(label)
    places = [label.find(sign, year.end()) for sign in ";:"] if year else []
    places = [place for place in places if place >= 0]
    if not places:
        places = [place for sign in ";:" if (place := label.find(sign)) >= 0][:1]
    if not places:
        return label.strip(), NO_CONTRAST
    at = min(places)
    return label[:at].strip() or label.strip(), label[at + 1 :].strip() or NO_CONTRAST


def is_special(line: str) -> bool:
    """Whether a header line, without its slashes, is read as something else than a name."""
    size = _SIZE.fullmatch(line)
    return bool(_REFERENCE.fullmatch(line) or _KEY.fullmatch(line) or (size and _is_size(size)))


def has_size_inside(label: str) -> bool:
    """Whether a label says a number of subjects."""
    return _SIZE_INSIDE.search(label) is not None


def _is_size(size: re.Match[str]) -> bool:
    """A line of subjects: a number, or nothing that it could be else."""
    if _WHOLE_SIZE.fullmatch(size["value"]):
        return True
    return size["sign"] == "=" and size["n"] is None


@dataclass
class _Experiment:
    """A header and the foci below it."""

    line: int
    names: list[str] = field(default_factory=list)
    size: float | None = None
    #: How many names stand above the line of subjects; None where there is no such line.
    size_at: int | None = None
    of_study: dict[str, str] = field(default_factory=dict)
    has_foci: bool = False
    foci: list[tuple[list[float], str]] = field(default_factory=list)


@dataclass
class _Reader:
    """Lines go in, experiments go into the draft."""

    draft: Draft
    names: Taken
    problems: Problems
    study_row: dict[str, int]
    space: str | None = None
    current: _Experiment | None = None
    after_blank: bool = False
    n_experiments: int = 0

    def read(self, number: int, line: str) -> None:
        plain = line.strip().lstrip("\ufeff\u200b")
        if plain.startswith('"') and plain.lstrip('"').startswith("/"):
            plain = plain.strip('"\t ')  # a spreadsheet has quoted it
        if not plain:
            self.after_blank = True
        elif plain.startswith("/"):
            self._header(number, plain.lstrip("/").strip())
        else:
            self._focus(number, plain)

    def _header(self, number: int, text: str) -> None:
        if not text:
            return
        if found := _REFERENCE.fullmatch(text):
            self.space = self._reference(number, found[1] if found[2] is None else found[2])
            return
        at = self.current
        ended = at and (at.has_foci or (self.after_blank and at.names and at.size_at is not None))
        if at is None or ended:
            self.finish()
            at = self.current = _Experiment(number)
        self.after_blank = False
        if (size := _SIZE.fullmatch(text)) and _is_size(size):
            self._size(number, at, size["value"])
        elif key := _KEY.fullmatch(text):
            at.of_study[_OF_STUDY[key[1].casefold()]] = key[2]
        else:
            at.names.append(text)

    def _reference(self, number: int, spelling: str) -> str:
        plain = spelling.strip()
        known = {"mni": "MNI", "tal": "TAL", "talairach": "Talairach"}
        if plain.casefold() in known:
            return known[plain.casefold()]
        place = f"line {number}"
        for begin, name in {"mni": "MNI", "tal": "Talairach"}.items():
            if plain.casefold().startswith(begin):
                self.problems.warn(place, f"the reference is {show(plain)}; read as {name}.")
                return name
        self.problems.error(
            place, f"the reference is {show(plain)}; expected MNI, TAL or Talairach."
        )
        return UNKNOWN_SPACE

    def _size(self, number: int, at: _Experiment, value: str) -> None:
        size = float(value) if _WHOLE_SIZE.fullmatch(value) else 0.0
        if size <= 0:
            self.problems.warn(
                f"line {number}",
                f"the number of subjects is {show(value)}; expected a number above 0, so it is "
                "unknown.",
            )
        if at.size_at is not None and 0 < at.size_at < len(at.names):
            # Names, subjects, names, subjects: the first of two experiments has no foci.
            rest, at.names = at.names[at.size_at :], at.names[: at.size_at]
            self.finish()
            at = self.current = _Experiment(number, names=rest)
        elif at.size_at is not None and size > 0 and at.size not in (None, size):
            self.problems.warn(
                f"line {number}", "the header has a second number of subjects; this one counts."
            )
        at.size = size if size > 0 else at.size
        at.size_at = len(at.names)

    def _focus(self, number: int, line: str) -> None:
        at = self.current
        if at is None:
            self.problems.error(
                f"line {number}",
                f"found {show(line)} above the first header; expected a line such as "
                "//Author, 2005; contrast.",
            )
            return
        at.has_foci = True
        xyz = _numbers(line)
        if xyz is None:
            self.problems.error(
                f"line {number}",
                f"found {show(line)}; expected x y z in mm, or a header that begins with //.",
            )
        elif not is_place(xyz):
            self.problems.warn(
                f"line {number}", f"found {show(line)}, which is no place in mm; left out."
            )
        else:
            if self.space is None:
                self.space = UNKNOWN_SPACE
                self.problems.warn(
                    f"line {number}",
                    "no reference stands above these foci, so their space is unknown; put "
                    "//Reference=MNI or //Reference=Talairach on the first line.",
                )
            at.foci.append((xyz, self.space))

    def finish(self) -> None:
        """Put the current experiment into the draft."""
        at, self.current = self.current, None
        if at is None:
            return
        self.n_experiments += 1
        place, label = f"line {at.line}", " ".join(at.names).strip()
        study, contrast = split_label(label) if label else ("", NO_CONTRAST)
        if not study:
            study = f"experiment_{self.n_experiments}"
            self.problems.warn(place, f"the header names no study; it is called {study}.")
        name = self.names.contrast(study, contrast)
        if name != contrast:
            self.problems.warn(
                place,
                f"{show(study)} has {show(contrast)} already; this one is called {show(name)}.",
            )
        row = self.study_row.get(study)
        if row is None:
            row = self.study_row[study] = self.draft.add_study(study)
            self.draft.facts.add("study.name", row, study)
            for field_name, value in at.of_study.items():
                whole = field_name == "study.year" and re.fullmatch("[0-9]{4}", value)
                self.draft.facts.add(field_name, row, int(value) if whole else value)
        analysis = self.draft.add_analysis(row, name)
        self.draft.facts.add("analysis.name", analysis, contrast)
        self._add_size(at, analysis, label)
        for xyz, space in at.foci:
            self.draft.add_focus(analysis, xyz, space)
        if not at.has_foci:
            self.problems.warn(
                place, f"{show(label)} has no foci; kept as an analysis without foci."
            )

    def _add_size(self, at: _Experiment, analysis: int, label: str) -> None:
        size = at.size
        if size is None and at.size_at is None and (inside := _SIZE_INSIDE.search(label)):
            size = float(inside[1]) or None
        if size is not None:
            whole = int(size) if size.is_integer() else size
            self.draft.facts.add("analysis.metadata.sample_sizes", analysis, [whole])
        elif at.size_at is None:
            self.problems.warn(
                f"line {at.line}",
                f"the header of {show(label)} has no line //Subjects=N, so its sample size is "
                "unknown.",
            )


def _numbers(line: str) -> list[float] | None:
    """Three numbers, between which there are spaces, tabs, commas or semicolons."""
    if len(line) > 1000:
        return None
    plain = line.translate(SIGNS)
    parts = [part.strip(",") for part in re.split(r"[\s;]+", plain.strip('"'))]
    parts = [part for part in parts if part]
    decimal_comma = len(parts) == 3
    if not decimal_comma:
        parts = [part for part in re.split(r"[\s;,]+", plain.strip('"')) if part]
    found = [to_number(part, decimal_comma=decimal_comma) for part in parts]
    numbers = [number for number in found if number is not None]
    return numbers if len(numbers) == len(found) == 3 else None


def _read_into(draft: Draft, names: Taken, path: Path, problems: Problems) -> None:
    text = read_text(path, problems, expected=_EXPECTED)
    if text is None:
        return
    study_row = {name: row for row, name in enumerate(draft.studies)}
    n_before = len(draft.focus_xyz)
    reader = _Reader(draft, names, problems, study_row)
    for number, line in enumerate(_LINE_END.split(text), start=1):
        reader.read(number, line)
    reader.finish()
    if not reader.n_experiments and not problems.n_errors:
        problems.error("", f"it has no header; expected {_EXPECTED}.")
    elif len(draft.focus_xyz) == n_before and not problems.n_errors:
        problems.error("", f"it has no focus; expected {_EXPECTED}.")
