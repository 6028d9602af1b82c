"""What the tests of text formats share: spoilt files, and corpora of any names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import strategies as st

from nimare_dask.draft import Draft
from nimare_dask.errors import CorpusWarning, SourceFormatError
from tests.builders import TEXT

LONG = 1_000_000

#: Bytes that are no text of any of the formats.
NO_TEXT: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t\r\n",
    "nul": b"a\0b\n1 2 3\n",
    "binary": bytes(range(256)) * 4,
    "utf16": "study,x,y,z\na,1,2,3\n".encode("utf-16"),
    "gzip_cut": b"\x1f\x8b\x08\x00abc",
}

#: Lines of a million characters, none of which may take a second.
LONG_LINES: dict[str, str] = {
    "letters": "a" * LONG,
    "digits": "1" * LONG,
    "spaces": "n" + " " * LONG + "x",
    "header": "//" + "no " * (LONG // 3),
    "years": "//" + "19" * (LONG // 2),
    "signs": "//" + ";" * LONG,
    "sizes": "//" + "n=" * (LONG // 2),
    "subjects": "//subjects" + " " * LONG,
    "reference": "//reference" + " " * LONG + "x",
    "commas": "1," * (LONG // 2),
    "quotes": '"' * LONG,
    "dots": "1." * (LONG // 2),
    "exponents": "1e" * (LONG // 2),
}


def nimare_folder() -> Path:
    """The folder of NiMARE's package; without it the test is skipped."""
    spec = find_spec("nimare")
    if spec is None or spec.origin is None:
        pytest.skip("NiMARE is not installed")
    return Path(spec.origin).parent


def quietly(action: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """The result, whatever is said of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CorpusWarning)
        return action(*args, **settings)


def survives(read: Callable[[Path], xr.Dataset], path: Path) -> xr.Dataset | None:
    """A corpus, or None where an error of the source says why not; nothing else may happen."""
    try:
        corpus: xr.Dataset = quietly(read, path)
    except SourceFormatError as error:
        assert str(path.name) in str(error)
        return None
    return corpus


@st.composite
def corpora(draw: st.DrawFn, *, name: st.SearchStrategy[str] = TEXT) -> xr.Dataset:
    """Corpora of studies and contrasts of any names, foci in several spaces, and sample sizes."""
    axis = st.floats(-150, 150)
    focus = st.tuples(axis, axis, axis)
    space = st.sampled_from(["MNI", "TAL", "Talairach", "UNKNOWN"])
    size = st.one_of(st.none(), st.integers(1, 999))
    analyses = st.lists(st.tuples(name, space, size, st.lists(focus, max_size=3)), max_size=3)
    drawn = draw(st.lists(st.tuples(name, analyses), min_size=1, max_size=4))
    draft, seen = Draft(), set()
    for study_name, drawn_analyses in drawn:
        if study_name in draft.studies:
            continue
        row = draft.add_study(study_name)
        for contrast, its_space, n, foci in drawn_analyses:
            if f"{study_name}-{contrast}" in seen:
                continue
            seen.add(f"{study_name}-{contrast}")
            analysis = draft.add_analysis(row, contrast)
            draft.facts.add("analysis.metadata.sample_sizes", analysis, n and [n])
            for xyz in foci:
                draft.add_focus(analysis, xyz, its_space)
    return draft.build()


def foci_by_analysis(corpus: xr.Dataset) -> list[np.ndarray[Any, Any]]:
    """Coordinates of each analysis that has foci."""
    ends = np.cumsum(corpus["analysis_n_foci"].values)[:-1]
    return [part for part in np.split(corpus["focus_xyz"].values, ends) if len(part)]
