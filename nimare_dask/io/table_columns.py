"""Which column of a table is what: the spellings of coordinates, studies, contrasts and sizes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nimare_dask.facts import LEVELS
from nimare_dask.io.names import Taken
from nimare_dask.io.problems import Problems, show

AXES = ("x", "y", "z")
#: Spellings of each role in lower case with single spaces, the likeliest first.
SPELLINGS: dict[str, tuple[str, ...]] = {
    "study": (
        *("study id", "studyid", "study", "paper id", "paper", "article id", "article"),
        *("author year", "authors year", "first author", "author", "authors", "citation"),
        *("source", "pmid", "pubmed id", "pubmedid", "pmcid", "doi", "id", "study name", "title"),
    ),
    "contrast": (
        *("contrast id", "contrast", "contrast name", "experiment id", "experiment"),
        *("experiment name", "analysis id", "analysis", "analysis name", "comparison"),
    ),
    "space": (
        *("space", "coordinate space", "coordinates space", "coord space", "coordinate system"),
        *("reference space", "standard space", "stereotactic space", "stereotaxic space"),
        *("template", "mni tal", "tal mni", "mni or tal", "mni talairach", "mni or talairach"),
    ),
    "n": (
        *("n", "sample size", "samplesize", "sample sizes", "sample n", "n subjects"),
        *("nsubjects", "n subj", "nsubj", "subjects", "number of subjects", "no of subjects"),
        *("num subjects", "nr of subjects", "subject n", "n participants", "participants"),
        *("number of participants", "no of participants", "total n", "n total"),
    ),
}
_STATISTIC = re.compile(
    r"(?:peak )?(?P<kind>[tz]) ?(?:values?|scores?|stats?|statistics?|max|peak)?|(?:peak|max) "
    r"(?P<other>[tz])(?: (?:value|score))?"
)
#: Columns that say something of the study or analysis, and the field that it becomes.
NAMED = {
    "study": "study.name",
    "contrast": "analysis.name",
    "contrast name": "analysis.name",
    "analysis name": "analysis.name",
    "title": "study.name",
    "study name": "study.name",
    "paper title": "study.name",
    "article title": "study.name",
    "authors": "study.authors",
    "author": "study.authors",
    "journal": "study.publication",
    "publication": "study.publication",
    "doi": "study.doi",
    "pmid": "study.pmid",
    "pubmed id": "study.pmid",
    "year": "study.year",
    "publication year": "study.year",
}
#: Fields whose values are text, also where they look like numbers.
TEXT_FIELDS = frozenset(NAMED.values()) - {"study.year"}
_SPACES = {"mni": "MNI", "mni152": "MNI", "tal": "TAL", "talairach": "TAL"}
_NO_MATTER = {
    *("mm", "coord", "coords", "coordinate", "coordinates", "peak", "position", "pos", "location"),
    *("focus", "foci", "axis", "in", "space", "local", "maximum", "maxima"),
}
_GLUED = re.compile(
    r"(?P<before>mni|tal|talairach)?(?P<axis>[xyz])(?:mm)?(?P<after>mni|tal)?(?:mm)?"
)
_LEVEL = re.compile(rf"(?:{'|'.join(sorted(set(LEVELS) - {'image', 'note'}))})\.\S.*", re.DOTALL)
ROLES = ("study", "contrast", *AXES, "space", "n", "t", "z_value")


def plain(name: str) -> str:
    """A column name in lower case, words with single spaces, as in :data:`SPELLINGS`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name[:200])
    return " ".join(re.sub(r"[\W_]+", " ", apart.casefold()).split())


def axis_of(name: str) -> tuple[str, str] | None:
    """Axis and space (``""`` where it is not said) of a column of coordinates."""
    words = [word for word in plain(name).split() if word not in _NO_MATTER]
    spaces = [_SPACES[word] for word in words if word in _SPACES]
    rest = [word for word in words if word not in _SPACES]
    if len(rest) == 1 and len(spaces) <= 1 and rest[0] in AXES:
        return rest[0], "".join(spaces)
    found = _GLUED.fullmatch("".join(rest)) if len(rest) == 1 and not spaces else None
    if found is None:
        return None
    return found["axis"], _SPACES.get(found["before"] or found["after"] or "", "")


def is_field(name: str) -> bool:
    """Whether a column is called by the whole name of a field, as write_table calls them."""
    return _LEVEL.fullmatch(name) is not None


@dataclass
class Found:
    """Which column, by its position, is what."""

    #: role -> position of its column
    role: dict[str, int] = field(default_factory=dict)
    #: MNI, TAL or nothing, by the names of the columns of coordinates.
    space: str = ""
    #: position -> name of the field that a further column becomes; "" is to be found out
    fields: dict[int, str] = field(default_factory=dict)
    #: names of all columns, each once
    names: list[str] = field(default_factory=list)

    def has_place(self) -> bool:
        """Whether all coordinates have their column."""
        return all(axis in self.role for axis in AXES)


def find_columns(header: Sequence[str], asked: Mapping[str, str]) -> Found:
    """Tell columns by their names.

    Parameters
    ----------
    header
        Names as they stand in the file.
    asked
        Names of columns by role, which come first.
    """
    found = Found(names=[name.strip() for name in header])
    for role, name in asked.items():
        if name.strip() in found.names:
            found.role[role] = found.names.index(name.strip())
    _find_axes(found)
    used = set(found.role.values())
    words = [plain(name) for name in found.names]
    for role, spellings in SPELLINGS.items():
        free = {word: at for at, word in reversed(list(enumerate(words))) if at not in used}
        at = next((free[spelling] for spelling in spellings if spelling in free), None)
        if role not in found.role and at is not None and not is_field(found.names[at]):
            found.role[role] = at
            used.add(at)
    _find_statistics(found, words)
    taken = set(found.role.values())
    for at, name in enumerate(found.names):
        if at not in taken:
            found.fields[at] = name if is_field(name) else NAMED.get(words[at], "")
    return found


def _find_axes(found: Found) -> None:
    """Columns of coordinates of one space; MNI where there are several."""
    asked = set(found.role)
    by_space: dict[str, dict[str, list[int]]] = {}
    for at, name in enumerate(found.names):
        told = None if is_field(name) else axis_of(name)
        if told and at not in found.role.values():
            by_space.setdefault(told[1], {}).setdefault(told[0], []).append(at)
    for space in ("", "MNI", "TAL"):
        places = by_space.get(space, {})
        missing = [axis for axis in AXES if axis not in asked]
        if missing and all(axis in places for axis in missing):
            for axis in missing:
                found.role[axis] = _same_case(found, places[axis], places)
            found.space = space
            return
    for axis in AXES:
        places = by_space.get("", {})
        if axis not in found.role and axis in places:
            found.role[axis] = places[axis][0]


def _same_case(found: Found, places: list[int], others: Mapping[str, list[int]]) -> int:
    """Of ``z`` and ``Z`` the one that is written as x and y are; the other is a statistic."""
    is_upper = found.names[others.get("x", places)[0]].strip()[:1].isupper()
    like = [at for at in places if found.names[at].strip()[:1].isupper() == is_upper]
    return (like or places)[0]


def _find_statistics(found: Found, words: Sequence[str]) -> None:
    for at, word in enumerate(words):
        told = _STATISTIC.fullmatch(word)
        if told is None or at in found.role.values():
            continue
        role = {"t": "t", "z": "z_value"}[told["kind"] or told["other"]]
        found.role.setdefault(role, at)


def refuse_doubles(found: Found, place: str, problems: Problems) -> None:
    """Names that several columns have: an error for what is needed, a number for the others."""
    names = found.names
    given, seen = Taken(), set()
    needed = {names[at]: role for role, at in found.role.items() if role in (*AXES, "study")}
    for at, name in enumerate(names):
        if not name:
            continue
        if name in seen and name in needed:
            problems.error(
                place,
                f"the column {show(name)} is there twice; expected one column for "
                f"{needed[name]}: rename the other.",
            )
            continue
        seen.add(name)
        names[at] = given.free(name)
        if names[at] != name:
            problems.warn(
                place,
                f"the column {show(name)} is there twice; one is called {show(names[at])}.",
            )
