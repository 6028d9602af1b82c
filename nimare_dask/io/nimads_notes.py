"""Annotations of NIMADS studysets: notes on analyses, label by label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nimare_dask.draft import Draft
from nimare_dask.io.nimads_values import add_facts, is_missing, read_id, without_nothing
from nimare_dask.io.problems import Problems, show

_KINDS = ("number", "boolean", "string")
#: The annotation that stands in the analyses of a studyset, as NiMARE writes it.
INLINE = "in_studyset"
_OWN = ("study", "analysis", "note")


def read_annotation(document: Any, label: str, draft: Draft, problems: Problems) -> None:
    """Read one annotation into a draft whose studies are there.

    Parameters
    ----------
    document
        ``{id, name, note_keys, notes: [{study, analysis, note: {label: value}}]}``.
    label
        What messages call it.
    draft
        Notes go to its analyses.
    problems
        Takes what is wrong.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("notes"), list):
        found = list(document) if isinstance(document, Mapping) else document
        problems.error(
            label, f"found {show(found)}; expected a NIMADS annotation, an object with `notes`."
        )
        return
    number = draft.add_annotation(without_nothing(document, ("notes",)))
    kinds = _kinds(document.get("note_keys"), label, problems)
    for key, kind in kinds.items():
        if kind != "string":
            draft.add_feature(number, key, kind)
    finder = _Finder(draft)
    for at, note in enumerate(document["notes"]):
        place = f"{label}: notes[{at}]"
        if not isinstance(note, Mapping) or not isinstance(note.get("note") or {}, Mapping):
            problems.error(place, f"found {show(note)}; expected an object with an object `note`.")
            continue
        row = finder.find(note, place, problems)
        if row is not None:
            _add_note(draft, number, row, note, kinds)
    keys = draft.annotations[number].setdefault("note_keys", {})
    if not isinstance(keys, dict):
        return  # which is an error already
    for (annotation, name), feature in draft.features.items():
        if annotation == number and name not in keys:
            keys[name] = draft.feature_kind[feature]


def add_inline_notes(draft: Draft, notes: Mapping[int, Mapping[str, Any]]) -> None:
    """Add notes that stand in the analyses themselves, by their rows, as one annotation."""
    number = draft.add_annotation({"id": INLINE})
    for row, items in notes.items():
        _add_note(draft, number, row, {"note": items}, {})


def _kinds(note_keys: Any, label: str, problems: Problems) -> dict[str, str]:
    """The kind of each label; a label may be described by a word or by an object with `type`."""
    if is_missing(note_keys):
        return {}
    if not isinstance(note_keys, Mapping):
        problems.error(f"{label}: note_keys", f"found {show(note_keys)}; expected an object.")
        return {}
    kinds = {}
    for key, described in note_keys.items():
        kind = described.get("type") if isinstance(described, Mapping) else described
        if kind not in _KINDS:
            problems.warn(
                f"{label}: note_keys[{show(key)}]",
                f"found {show(described)}; expected number, boolean or string. What its values are "
                "decides.",
            )
            continue
        kinds[key] = kind
    return kinds


class _Finder:
    """Finds the analysis of a note: by study and analysis, or by an analysis that is alone."""

    def __init__(self, draft: Draft) -> None:
        self.by_pair = {
            (draft.studies[study], contrast): row
            for row, (study, contrast) in enumerate(
                zip(draft.analysis_study, draft.contrasts, strict=True)
            )
        }
        self.by_name: dict[str, int | None] = {}
        for row, contrast in enumerate(draft.contrasts):
            self.by_name[contrast] = None if contrast in self.by_name else row

    def find(self, note: Mapping[str, Any], place: str, problems: Problems) -> int | None:
        """Row of the analysis of a note."""
        study, analysis = read_id(note.get("study")), read_id(note.get("analysis"))
        if analysis is None:
            found = show(note.get("analysis"))
            problems.error(f"{place}.analysis", f"found {found}; expected the id of an analysis.")
            return None
        if study is not None:
            row = self.by_pair.get((study, analysis))
        else:
            row = self.by_name.get(analysis)
            if row is None and analysis in self.by_name:
                problems.error(
                    f"{place}.study",
                    f"several studies have an analysis {show(analysis)}; say which `study`.",
                )
                return None
        if row is None:
            problems.warn(
                place,
                f"analysis {show(analysis)} of study {show(study)} is not in the studyset; the "
                "note is left out.",
            )
        return row


def _add_note(
    draft: Draft, number: int, row: int, note: Mapping[str, Any], kinds: Mapping[str, str]
) -> None:
    level = f"note.{number}"
    items = note.get("note") or {}
    said = False
    for key, value in items.items():
        if is_missing(value):
            continue
        said = True
        is_truth = isinstance(value, bool)
        kind = kinds.get(key, "boolean" if is_truth else "number")
        fits = is_truth if kind == "boolean" else isinstance(value, int | float) and not is_truth
        if kind != "string" and fits and abs(value) < 1e300:
            draft.add_weight(draft.add_feature(number, key, kind), row, float(value))
        else:
            draft.facts.add(f"{level}.note.{key}", row, value)
    if not said:
        draft.facts.add(f"{level}.is_empty", row, True)
    add_facts(draft, level, row, note, _OWN)
