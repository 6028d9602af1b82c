"""NIMADS studysets and annotations, as NeuroStore and Neurosynth Compose give them (JSON).

A studyset holds studies, these hold analyses, these hold points, images and conditions; an
annotation holds notes on analyses. What the corpus has no variable for becomes facts, so that
nothing is lost between reading and writing. Specification: https://neurostuff.github.io/NIMADS/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, compress
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.draft import FARTHEST, UNKNOWN_SPACE, Draft
from nimare_dask.errors import SchemaError
from nimare_dask.io.json_files import load_json, without_collection
from nimare_dask.io.nimads_notes import add_inline_notes, read_annotation
from nimare_dask.io.nimads_values import (
    MISSING,
    NESTED,
    UNPLACED,
    add_facts,
    is_missing,
    literal,
    read_id,
    without_nothing,
)
from nimare_dask.io.problems import Problems, settle, show
from nimare_dask.provenance import with_step

Source = str | Path | Mapping[str, Any]


def read_nimads(studyset: Source, annotations: Source | Sequence[Source] = ()) -> xr.Dataset:
    """Read a NIMADS studyset, with any number of annotations.

    Parameters
    ----------
    studyset
        JSON file (plain or .gz) with nested studies, or the document itself.
    annotations
        One or several files or documents. Numbers and booleans of notes become features; texts
        become facts (``note.0.note.<label>``).

    Returns
    -------
    corpus
        Analyses are called ``<study id>-<analysis id>``. Points without coordinates are no foci;
        they are counted, kept and written again.

    Raises
    ------
    SourceFormatError
        Names the places of what is wrong; ``nimare-dask validate`` lists everything.
    """
    given = [annotations] if isinstance(annotations, str | Path | Mapping) else list(annotations)
    where = studyset if isinstance(studyset, str | Path) else "the studyset"
    problems = Problems(Path(where))
    corpus = parse(studyset, given, problems)
    settle(problems)
    assert corpus is not None
    files = [Path(each).name for each in (studyset, *given) if isinstance(each, str | Path)]
    return with_step(corpus, "read_nimads", settings={"files": files})


def parse(studyset: Source, annotations: Sequence[Source], problems: Problems) -> xr.Dataset | None:
    """Read what can be read; say all that is wrong."""
    # Until the document is gone: every look at millions of objects costs as much as reading them.
    with without_collection():
        return _parse(studyset, annotations, problems)


def _parse(
    studyset: Source, annotations: Sequence[Source], problems: Problems
) -> xr.Dataset | None:
    document = _document(studyset, problems)
    if document is None:
        return None
    if not isinstance(document, Mapping) or not isinstance(document.get("studies"), list):
        found = list(document) if isinstance(document, Mapping) else document
        problems.error(
            "", f"found {show(found)}; expected a NIMADS studyset, an object with a list `studies`."
        )
        return None
    draft = Draft()
    draft.studyset = without_nothing(document, ("studies",))
    _Reader(draft, problems).read(document["studies"])
    for number, source in enumerate(annotations):
        label = Path(source).name if isinstance(source, str | Path) else f"annotation {number}"
        own = Problems(problems.path)
        notes = _document(source, own)
        for each in own.found:
            tell = problems.error if each.severity == "error" else problems.warn
            tell(f"{label}, {each.place}" if each.place else label, each.message)
        if notes is not None:
            read_annotation(notes, label, draft, problems)
    if problems.n_errors:
        return None
    try:
        return draft.build()
    except SchemaError as error:
        problems.error("", str(error))
        return None


def _document(source: Source, problems: Problems) -> Any:
    return load_json(Path(source), problems) if isinstance(source, str | Path) else source


class _Reader:
    """Reads the list of studies into a draft; points of all analyses are read at once."""

    def __init__(self, draft: Draft, problems: Problems) -> None:
        self.draft = draft
        self.problems = problems
        self.points: list[Any] = []
        self.n_points: list[int] = []
        self.places: list[str] = []
        self.notes: dict[int, Mapping[str, Any]] = {}

    def read(self, studies: list[Any]) -> None:
        """Read all."""
        seen: set[str] = set()
        for number, study in enumerate(studies):
            place = f"studies[{number}]"
            if not isinstance(study, dict):
                self.problems.error(place, f"found {show(study)}; expected an object.")
                continue
            name = read_id(study.get("id"))
            if name is None or name in seen:
                found = f"found {show(study.get('id'))}; "
                self.problems.error(f"{place}.id", f"{found}each study must have an id of its own.")
                continue
            seen.add(name)
            row = self.draft.add_study(name)
            add_facts(self.draft, "study", row, study, ("id", "analyses"))
            self._read_analyses(study.get("analyses"), row, place)
        self._read_points()
        if self.notes:
            add_inline_notes(self.draft, self.notes)

    def _objects(self, found: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The objects of a list, each with its place."""
        if is_missing(found):
            return
        if not isinstance(found, list):
            self.problems.error(place, f"found {show(found)}; expected a list.")
            return
        for number, each in enumerate(found):
            if isinstance(each, dict):
                yield f"{place}[{number}]", each
            else:
                found = f"found {show(each)}; expected an object."
                self.problems.error(f"{place}[{number}]", found)

    def _read_analyses(self, analyses: Any, study: int, place: str) -> None:
        seen: set[str] = set()
        for where, analysis in self._objects(analyses, f"{place}.analyses"):
            name = read_id(analysis.get("id"))
            if name is None:
                name = f"analysis-{len(self.draft.contrasts)}"
                found = f"found {show(analysis.get('id'))}; it is called {name}."
                self.problems.warn(f"{where}.id", found)
            if name in seen:
                self.problems.error(
                    f"{where}.id",
                    f"{show(name)} is the id of another analysis of the study; rename one.",
                )
                continue
            seen.add(name)
            row = self.draft.add_analysis(study, name)
            self._check_weights(analysis, where)
            taken = ["id", "points", "images"]
            if isinstance(notes := analysis.get("annotations"), dict):
                self.notes[row] = notes
                taken.append("annotations")
            add_facts(self.draft, "analysis", row, analysis, taken)
            points = analysis.get("points")
            if not isinstance(points, list):
                if not is_missing(points):
                    found = f"found {show(points)}; expected a list."
                    self.problems.error(f"{where}.points", found)
                points = []
            self.points.extend(points)
            self.n_points.append(len(points))
            self.places.append(where)
            if (images := analysis.get("images")) is not None and images != []:
                for at, image in self._objects(images, f"{where}.images"):
                    self._read_image(image, row, at)

    def _check_weights(self, analysis: Mapping[str, Any], place: str) -> None:
        conditions: Any = analysis.get("conditions")
        weights: Any = analysis.get("weights")
        both = isinstance(conditions, list) and isinstance(weights, list)
        if both and len(conditions) != len(weights):
            self.problems.warn(
                f"{place}.weights",
                f"{len(weights)} weights of {len(conditions)} conditions; each condition should "
                "have one. Both are kept as they are.",
            )

    def _read_image(self, image: Mapping[str, Any], row: int, place: str) -> None:
        text = {
            key: value if isinstance(value := image.get(key), str) and value != MISSING else ""
            for key in ("url", "filename", "value_type", "space")
        }
        path = text["url"] or text["filename"]
        if not path:
            self.problems.warn(place, "it has neither url nor filename, so it cannot be found.")
        at = self.draft.add_image(row, text["value_type"], path, text["space"])
        add_facts(
            self.draft, "image", at, image, [key for key in ("value_type", "space") if text[key]]
        )

    def _place(self, number: int) -> str:
        """Place of a point."""
        ends = np.cumsum(self.n_points)
        row = int(np.searchsorted(ends, number, side="right"))
        return f"{self.places[row]}.points[{number - int(ends[row]) + self.n_points[row]}]"

    def _read_points(self) -> None:
        """Coordinates, spaces and whatever else, one column after the other."""
        if not {*map(type, self.points)} <= {dict}:
            self._refuse_other_points()
        xyz, good = self._coordinates(self._column("coordinates"))
        owner = np.repeat(np.arange(len(self.n_points)), self.n_points)
        rows = np.cumsum(good) - 1
        spaces = self._spaces(self._column("space"))
        kept = range(len(good)) if good.all() else np.flatnonzero(good).tolist()
        placed = spaces if isinstance(spaces, str) or good.all() else [spaces[at] for at in kept]
        self.draft.add_foci(owner[good], xyz[good], placed)
        taken = {"coordinates", "space"}
        for key in sorted(self._keys() - taken):
            column = self._column(key)
            if {*map(type, column)} <= {list, type(None)}:
                there = list(
                    compress(kept, column if good.all() else map(column.__getitem__, kept))
                )
            else:  # a NaN is not itself
                there = [
                    at
                    for at in kept
                    if (value := column[at]) is not None
                    and value != []
                    and value != MISSING
                    and value == value
                ]
            if not there:
                continue
            if any(key in NESTED and isinstance(column[at], dict) for at in there):
                for at in there:
                    add_facts(self.draft, "focus", int(rows[at]), {key: column[at]})
            else:
                name = f"focus.{literal(key)}"
                self.draft.facts.extend(name, rows[there].tolist(), [column[at] for at in there])
        self._keep_unplaced(np.flatnonzero(~good).tolist(), owner)

    def _refuse_other_points(self) -> None:
        for number, point in enumerate(self.points):
            if type(point) is not dict:
                found = f"found {show(point)}; expected an object."
                self.problems.error(self._place(number), found)
                self.points[number] = {}

    def _keys(self) -> set[str]:
        """All that any point says."""
        return {*chain.from_iterable(self.points)}

    def _column(self, key: str) -> list[Any]:
        """What every point says of one thing."""
        try:
            return list(map(itemgetter(key), self.points))
        except KeyError:
            return [point.get(key) for point in self.points]

    def _keep_unplaced(self, numbers: list[int], owner: NDArray[np.int64]) -> None:
        """Points that are no foci go along, with their place in the list, to be written again."""
        starts = np.append(0, np.cumsum(self.n_points))
        kept: dict[int, list[Any]] = {}
        for number in numbers:
            row = int(owner[number])
            kept.setdefault(row, []).append([int(number - starts[row]), self.points[number]])
        for row, points in kept.items():
            self.draft.facts.add(f"analysis.{UNPLACED}", row, points)

    def _coordinates(self, found: list[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Coordinates of all points, and which of them are places in a head."""
        if _are_triples(found):
            flat = np.fromiter(chain.from_iterable(found), np.float64, 3 * len(found))
            xyz = flat.reshape(-1, 3)
            good: NDArray[np.bool_] = np.all(np.abs(xyz) <= FARTHEST, axis=1)
            for number in np.flatnonzero(~good).tolist():
                self._say_unplaced(number, found[number])
            return xyz, good
        xyz = np.zeros((len(found), 3))
        good = np.zeros(len(found), bool)
        for number, values in enumerate(found):
            numbers = values if isinstance(values, list) else []
            if is_missing(values) or (numbers and all(map(is_missing, numbers))):
                self._say_unplaced(number, values)
            elif len(numbers) != 3 or not {*map(type, numbers)} <= {int, float}:
                self.problems.error(
                    f"{self._place(number)}.coordinates",
                    f"found {show(values)}; expected three numbers [x, y, z] in mm.",
                )
            elif all(abs(value) <= FARTHEST for value in numbers):
                xyz[number], good[number] = numbers, True
            else:
                self._say_unplaced(number, values)
        return xyz, good

    def _say_unplaced(self, number: int, values: Any) -> None:
        self.problems.warn(
            f"{self._place(number)}.coordinates",
            f"found {show(values)}, which is no place in a head (mm); it is no focus, and is kept "
            "with its analysis.",
        )

    def _spaces(self, found: list[Any]) -> str | list[str]:
        """Name of the space of each point; by itself where it is that of all."""
        with suppress(TypeError):  # of what cannot be in a set, and is no name
            names = {*found}
            if {*map(type, names)} <= {str} and not names & {"", MISSING}:
                return found[0] if len(names) == 1 else found
        for number, space in enumerate(found):
            if type(space) is not str or space == MISSING or not space:
                if not is_missing(space) and space != "":
                    message = f"found {show(space)}; expected the name of a space, such as MNI."
                    self.problems.error(f"{self._place(number)}.space", message)
                found[number] = UNKNOWN_SPACE
        return found


def _are_triples(found: list[Any]) -> bool:
    """Whether all are lists of three numbers that a float can hold."""
    if not ({*map(type, found)} <= {list} and {*map(len, found)} <= {3}):
        return False
    kinds = {*map(type, chain.from_iterable(found))}
    if not kinds <= {int, float}:
        return False
    # orjson reads whole numbers of 64 bits only; what Python reads may be longer.
    return int not in kinds or max(map(abs, chain.from_iterable(found)), default=0) < 1e300
