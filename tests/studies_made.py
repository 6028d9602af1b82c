"""Small corpora with everything in them: facts of every level, images, annotations, spaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xarray as xr
from hypothesis import strategies as st

from nimare_dask import facts
from nimare_dask.draft import Draft
from tests.builders import foci_of, weights_by_name

#: Numbers that JSON and float64 hold, and whole ones that float64 does not.
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
#: Whatever JSON can say but null, which is no fact.
JSON = st.recursive(
    st.booleans() | NUMBERS | WORDS,
    lambda inner: (
        st.lists(inner | st.none(), max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    *("study.name", "study.metadata.x", "analysis.name", "analysis.metadata.x"),
    *("focus.values", "image.filename", "note.0.note.task"),
)


def corpus_with(
    values: Sequence[Any], field: str = "analysis.metadata.x", studies: Sequence[str] = ()
) -> xr.Dataset:
    """An analysis of one focus for each value, in one study unless it is said in which."""
    draft = Draft()
    for place, value in enumerate(values):
        name = studies[place] if studies else "s"
        study = draft.studies.index(name) if name in draft.studies else draft.add_study(name)
        analysis = draft.add_analysis(study, str(place))
        draft.add_focus(analysis, (place, 0, 0), "MNI")
        draft.facts.add(field, study if field.startswith("study.") else analysis, value)
    return draft.build()


@st.composite
def full_corpora(
    draw: st.DrawFn, *, prefix: str = "s", value: st.SearchStrategy[Any] = JSON
) -> xr.Dataset:
    """Corpora of some studies, one of which may have no analysis; foci and images in any order."""
    draft = Draft()
    annotation = draft.add_annotation({"id": f"of {prefix}", "name": "coding"})
    pain = draft.add_feature(annotation, "pain")
    draft.add_feature(annotation, "fear", "boolean")
    for study in range(draw(st.integers(1, 4))):
        draft.add_study(f"{prefix}{study}")
        for contrast in range(draw(st.integers(0, 3))):
            draft.add_analysis(study, f"c{contrast}")
    n = len(draft.contrasts)
    if n == 0:
        n = draft.add_analysis(0, "c0") + 1
    rows = st.integers(0, n - 1)
    n_foci = draw(st.integers(1, 6))
    for number in range(n_foci):
        space = draw(st.sampled_from(["MNI", "TAL", "UNKNOWN"]))
        draft.add_focus(draw(rows), (number, number + 0.5, -1), space)
    n_images = draw(st.integers(0, 3))
    for number in range(n_images):
        draft.add_image(draw(rows), draw(st.sampled_from(["T map", "z"])), f"{number}.nii", "MNI")
    for row in draw(st.lists(rows, unique=True)):
        draft.add_weight(pain, row, draw(st.sampled_from([0.0, 0.5, 1.0])))
    sizes = {"study": len(draft.studies), "analysis": n, "focus": n_foci, "image": n_images}
    for field in FIELDS:
        level = facts.level_of(field)
        for row in range(sizes[level]):
            if draw(st.booleans()):
                draft.facts.add(field, row, draw(value))
    for row in range(n):
        found = draw(st.none() | st.lists(st.integers(1, 99), min_size=1, max_size=3))
        draft.facts.add("analysis.metadata.sample_sizes", row, found)
    return draft.build()


def said_of(corpus: xr.Dataset) -> dict[str, dict[Any, Any]]:
    """All that is known, by name: of studies, analyses, foci and images with what they are."""
    studies = corpus["study"].values.tolist()
    ids = corpus["analysis_id"].values.tolist()
    images = images_of(corpus)
    foci = [(name, *focus) for name, all_ in foci_of(corpus).items() for focus in all_]
    names = {"study": studies, "analysis": ids, "note": ids, "focus": foci, "image": images}
    found: dict[str, dict[Any, Any]] = {
        "studies": {name: None for name in studies},
        "analyses": dict(zip(ids, zip_analyses(corpus), strict=True)),
        "foci": foci_of(corpus),
        "images": {image: None for image in images},
        "weights": weights_by_name(corpus) if "feature" in corpus.dims else {},
    }
    for field in facts.fields(corpus):
        rows, values = facts.values(corpus, field)
        level = names[field.partition(".")[0]]
        of_field: dict[Any, Any] = {}
        for row, value in zip(rows.tolist(), values, strict=True):
            of_field.setdefault(level[row], []).append(repr(value))
        found[field] = of_field
    return found


def zip_analyses(corpus: xr.Dataset) -> list[tuple[Any, ...]]:
    """Study, contrast and sample size of each analysis."""
    sizes = [""] * corpus.sizes["analysis"]
    if "analysis_sample_size" in corpus:
        sizes = [str(n).replace("nan", "") for n in corpus["analysis_sample_size"].values.tolist()]
    parts = (corpus["study_id"].values.tolist(), corpus["analysis_contrast"].values.tolist(), sizes)
    return list(zip(*parts, strict=True))


def images_of(corpus: xr.Dataset) -> list[tuple[Any, ...]]:
    """Analysis, type, path and space of each image, read off the ragged array one by one."""
    if "image" not in corpus.dims:
        return []
    counts = corpus["analysis_n_images"].values.tolist()
    ids = corpus["analysis_id"].values.tolist()
    owners = [name for name, n in zip(ids, counts, strict=True) for _ in range(n)]
    parts = [corpus[f"image_{what}"].values.tolist() for what in ("type", "path", "space")]
    return list(zip(owners, *parts, strict=True))
