"""Writing a corpus as a NIMADS studyset, and its features as NIMADS annotations (JSON)."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np
import orjson
import xarray as xr

from nimare_dask import facts
from nimare_dask.corpus import annotations_of, studyset_of, weights_of
from nimare_dask.draft import UNKNOWN_SPACE
from nimare_dask.io.nimads_notes import INLINE
from nimare_dask.io.nimads_values import NESTED, UNPLACED
from nimare_dask.io.whole import whole_file

#: The words of a document that are always there, so that readers need not ask.
_ANALYSIS: dict[str, Any] = {"name": None, "description": None, "conditions": [], "weights": []}


def write_nimads(corpus: xr.Dataset, path: str | Path, *, overwrite: bool = False) -> list[Path]:
    """Write a NIMADS studyset, and beside it one file for each annotation.

    Parameters
    ----------
    corpus
        Any corpus. Features that are of no annotation become one that is called ``features``.
    path
        The studyset, such as ``studyset.json`` or ``studyset.json.gz``. Annotations are
        ``studyset_annotation.json``, or ``studyset_annotation-1.json`` and so on when there are
        several.
    overwrite
        Replace files that are there.

    Returns
    -------
    paths
        The studyset and its annotations.

    Raises
    ------
    StoreExistsError
        When a file is there and may not be replaced.
    """
    target = Path(path)
    notes = [each for each in _annotations(corpus) if each[1].get("id") != INLINE]
    paths = [target, *_names(target, len(notes))]
    contents = [_studyset(corpus), *(_annotation(corpus, *each) for each in notes)]
    for where, parts in zip(paths, contents, strict=True):
        with whole_file(where, overwrite=overwrite) as plain, _packed(plain, where) as handle:
            handle.writelines(parts)
    return paths


def _names(target: Path, n: int) -> list[Path]:
    stem, suffix = target.name, ""
    for ending in (".gz", ".json"):
        if stem.lower().endswith(ending):
            stem, suffix = stem[: -len(ending)], stem[-len(ending) :] + suffix
    numbers = [""] if n == 1 else [f"-{number}" for number in range(1, n + 1)]
    return [target.with_name(f"{stem}_annotation{each}{suffix}") for each in numbers]


@contextmanager
def _packed(plain: BinaryIO, target: Path) -> Iterator[IO[bytes]]:
    if target.suffix.lower() != ".gz":
        yield plain
        return
    # Neither name nor time, so that the same corpus is the same file.
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=plain, mtime=0) as packed:
        yield cast(IO[bytes], packed)


def _dump(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    except TypeError:  # a whole number of more than 64 bits
        return facts.dump(value, default=lambda each: each.item()).encode()


def _nest(found: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a row as the object that they were read from."""
    made: dict[str, Any] = {}
    for name, value in found.items():
        outer, point, inner = name.partition(".")
        if point and outer in NESTED:
            made.setdefault(outer, {})[inner] = value
        else:
            made[name.removeprefix(".")] = value
    return made


def _studyset(corpus: xr.Dataset) -> Iterator[bytes]:
    """The document piece by piece, one study at a time."""
    head = _dump({"id": None, "name": None} | studyset_of(corpus))
    yield head[:-1] + b',"studies":['
    analyses = _analyses(corpus)
    owner = corpus["analysis_study"].values
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=corpus.sizes["study"]))
    said = facts.records(corpus, "study", corpus.sizes["study"])
    start = 0
    for row, name in enumerate(corpus["study"].values.tolist()):
        study = {"id": name, "name": None} | _nest(said[row])
        study["analyses"] = [analyses[at] for at in order[start : ends[row]].tolist()]
        yield (b",\n" if row else b"\n") + _dump(study)
        start = int(ends[row])
    yield b"\n]}\n"


def _analyses(corpus: xr.Dataset) -> list[dict[str, Any]]:
    points, images = _points(corpus), _images(corpus)
    said = facts.records(corpus, "analysis", corpus.sizes["analysis"])
    inline = next(
        (_notes(corpus, n)[0] for n, each in _annotations(corpus) if each.get("id") == INLINE), {}
    )
    made = []
    start = at = 0
    n_foci = corpus["analysis_n_foci"].values.tolist()
    n_images = corpus["analysis_n_images"].values.tolist() if images else [0] * len(n_foci)
    for row, contrast in enumerate(corpus["analysis_contrast"].values.tolist()):
        unplaced = said[row].pop(UNPLACED, [])
        analysis = {"id": contrast} | _ANALYSIS | _nest(said[row])
        analysis["points"] = points[start : start + n_foci[row]]
        for place, point in unplaced:
            analysis["points"].insert(place, point)
        analysis["images"] = images[at : at + n_images[row]]
        if row in inline:
            analysis["annotations"] = inline[row]
        start, at = start + n_foci[row], at + n_images[row]
        made.append(analysis)
    return made


def _points(corpus: xr.Dataset) -> list[dict[str, Any]]:
    spaces = corpus.attrs["spaces"]
    spaces = [None if space == UNKNOWN_SPACE else space for space in spaces]
    named = [spaces[code] for code in corpus["focus_space"].values.tolist()]
    xyz = corpus["focus_xyz"].values.tolist()
    said = facts.records(corpus, "focus", len(xyz))
    return [
        {"coordinates": place, "space": space, "values": []} | _nest(more)
        for place, space, more in zip(xyz, named, said, strict=True)
    ]


def _images(corpus: xr.Dataset) -> list[dict[str, Any]]:
    if "image" not in corpus.dims:
        return []
    said = facts.records(corpus, "image", corpus.sizes["image"])
    columns = [corpus[name].values.tolist() for name in ("image_path", "image_type", "image_space")]
    made = []
    for path, kind, space, more in zip(*columns, said, strict=True):
        own = {} if "url" in more or "filename" in more else _address(path)
        own |= {"value_type": kind} if kind else {}
        own |= {"space": space} if space else {}
        made.append(own | _nest(more))
    return made


def _address(path: str) -> dict[str, str]:
    return {"url" if "://" in path else "filename": path} if path else {}


def _annotations(corpus: xr.Dataset) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each annotation with its number; features that are of none are one."""
    documents = annotations_of(corpus)
    yield from enumerate(documents)
    if not documents and corpus.sizes.get("feature", 0):
        yield 0, {"id": "features", "name": "features"}


def _annotation(corpus: xr.Dataset, number: int, document: dict[str, Any]) -> Iterator[bytes]:
    """The document piece by piece, one note at a time."""
    notes, more, kinds = _notes(corpus, number)
    yield _dump({"note_keys": kinds} | document)[:-1] + b',"notes":['
    studies, contrasts = (corpus[name].values for name in ("study_id", "analysis_contrast"))
    for place, row in enumerate(sorted(notes)):
        note = {"study": str(studies[row]), "analysis": str(contrasts[row])}
        note |= {"note": notes[row]} | _nest(more.get(row, {}))
        yield (b",\n" if place else b"\n") + _dump(note)
    yield b"\n]}\n"


def _notes(
    corpus: xr.Dataset, number: int
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]], dict[str, str]]:
    """Notes of an annotation by analysis, what else they say, and the kinds of labels."""
    notes: dict[int, dict[str, Any]] = {}
    more: dict[int, dict[str, Any]] = {}
    kinds = _add_weights(corpus, number, notes)
    level = f"note.{number}"
    for name in facts.fields(corpus):
        if not name.startswith(f"{level}."):
            continue
        key = name[len(level) + 1 :]
        rows, values = facts.values(corpus, name)
        for row, value in zip(rows.tolist(), values, strict=True):
            note = notes.setdefault(row, {})
            if key.startswith("note."):
                note[key[5:]] = value
                kinds.setdefault(key[5:], "string")
            elif key != "is_empty":
                more.setdefault(row, {})[key] = value
    return notes, more, kinds


def _add_weights(
    corpus: xr.Dataset, number: int, notes: dict[int, dict[str, Any]]
) -> dict[str, str]:
    """Put the weights of an annotation into its notes; the kind of each of its labels."""
    if "feature" not in corpus.dims:
        return {}
    known = "feature_annotation" in corpus
    label = corpus["feature_label" if known else "feature"].values.tolist()
    kind = corpus["feature_kind"].values.tolist() if known else ["number"] * len(label)
    matrix = weights_of(corpus)
    kinds = {}
    for place, (name, what) in enumerate(zip(label, kind, strict=True)):
        if known and int(corpus["feature_annotation"].values[place]) != number:
            continue
        kinds[name] = what
        part = slice(matrix.indptr[place], matrix.indptr[place + 1])
        values = matrix.data[part]
        shown = (values != 0).tolist() if what == "boolean" else values.tolist()
        for row, value in zip(matrix.indices[part].tolist(), shown, strict=True):
            notes.setdefault(row, {})[name] = value
    return kinds
