"""Writing Sleuth text: names that its readers take apart as they were, and foci in one space."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask import facts
from nimare_dask.errors import CorpusWarning, SettingsError, SourceFormatError, shorten
from nimare_dask.io.names import Taken
from nimare_dask.io.sleuth import has_size_inside, is_special, split_label
from nimare_dask.io.whole import whole_file
from nimare_dask.metadata import mean_sample_sizes
from nimare_dask.space import SPELLINGS, Reference, mni2tal, tal2mni
from nimare_dask.wholeness import check

_REFERENCE = {"MNI": "MNI", "TAL": "Talairach"}
_MOST_DECIMALS = 15
_NO_SEPARATORS = str.maketrans(";:", ",,")
#: What a file of Sleuth text says by itself.
_SAID = {"study.name", "analysis.name", "analysis.metadata.sample_sizes"}


def write_sleuth(
    corpus: xr.Dataset,
    path: str | Path,
    *,
    target: Reference = "MNI",
    decimals: int = 2,
    names: Literal["id", "name"] = "id",
    overwrite: bool = False,
) -> Path:
    """Write the foci of a corpus as Sleuth text, for GingerALE, NiMARE and others.

    Parameters
    ----------
    corpus
        A corpus. Analyses without foci are left out.
    path
        File to write; it appears when it is whole.
    target
        Space of what is written, ``"MNI"`` or ``"TAL"``; foci of the other are transformed.
    decimals
        Decimals of coordinates.
    names
        What studies and analyses are called: their ``"id"``, or their ``"name"`` (a title, say)
        where they have one.
    overwrite
        Replace a file that is there.

    Returns
    -------
    path
        The file.

    Warns
    -----
    CorpusWarning
        With what is lost, and how much of it.

    Raises
    ------
    SettingsError
        For a target or decimals that cannot be.
    SourceFormatError
        When the corpus has no focus.
    StoreExistsError
        When `path` exists and may not be replaced.

    References
    ----------
    Lancaster JL et al. (2007), Human Brain Mapping 28(11):1194-1205, doi:10.1002/hbm.20345.
    """
    _refuse(target, decimals, names)
    check(corpus)
    if corpus.sizes["focus"] == 0:
        raise SourceFormatError("The corpus has no focus; there is nothing to write as Sleuth.")
    lost: list[str] = []
    xyz = _in_target(corpus, target, lost)
    shown = _round(xyz, decimals, lost)
    labels = _labels(corpus, names, lost)
    sizes = _sizes(corpus, lost)
    _add_losses(corpus, lost)
    lines = [f"//Reference={_REFERENCE[target]}"]
    ends = np.cumsum(corpus["analysis_n_foci"].values)
    for place, (label, size, end) in enumerate(zip(labels, sizes, ends.tolist(), strict=True)):
        n_foci = int(corpus["analysis_n_foci"].values[place])
        if n_foci:
            lines += [f"//{label}", *([f"//Subjects={size}"] if size else [])]
            lines += ["\t".join(focus) for focus in shown[end - n_foci : end]]
            lines.append("")
    out = Path(path)
    with whole_file(out, overwrite=overwrite) as handle:
        handle.write(("\n".join(lines) + "\n").encode("utf-8"))
    if lost:
        warnings.warn(
            f"{out}: Sleuth text keeps names, sample sizes and foci. {'; '.join(lost)}.",
            CorpusWarning,
            stacklevel=2,
        )
    return out


def _refuse(target: str, decimals: int, names: str) -> None:
    if target not in _REFERENCE:
        raise SettingsError(f"target is {target!r}; expected 'MNI' or 'TAL'.")
    if isinstance(decimals, bool) or not isinstance(decimals, int | np.integer):
        raise SettingsError(f"decimals is {decimals!r}; expected a whole number.")
    if not 0 <= decimals <= _MOST_DECIMALS:
        raise SettingsError(f"decimals is {decimals}; expected 0 to {_MOST_DECIMALS}.")
    if names not in ("id", "name"):
        raise SettingsError(f"names is {names!r}; expected 'id' or 'name'.")


def _in_target(corpus: xr.Dataset, target: Reference, lost: list[str]) -> NDArray[np.float64]:
    """Foci in mm of the target, (focus, 3)."""
    xyz: NDArray[np.float64] = corpus["focus_xyz"].values.astype(np.float64)
    moved, unknown = 0, 0
    for code, name in enumerate(corpus.attrs["spaces"]):
        here = corpus["focus_space"].values == code
        unknown += 0 if name in SPELLINGS else int(here.sum())
        if SPELLINGS.get(name, "MNI") != target:
            moved += int(here.sum())
            xyz[here] = tal2mni(xyz[here]) if target == "MNI" else mni2tal(xyz[here])
    if unknown:
        lost.append(f"{unknown:,} foci have an unknown space and are taken as MNI")
    if moved:
        lost.append(f"{moved:,} foci are transformed to {_REFERENCE[target]} (Lancaster 2007)")
    return xyz


def _round(xyz: NDArray[np.float64], decimals: int, lost: list[str]) -> list[list[str]]:
    shown = [[f"{value:.{decimals}f}" for value in focus] for focus in xyz.tolist()]
    written = np.array(shown, dtype=np.float64).reshape(-1, 3)
    changed = int((written != xyz).any(axis=1).sum())
    if changed:
        lost.append(f"{changed:,} foci are rounded to {decimals} decimals")
    return shown


@dataclass
class _Labels:
    """Names of studies and their analyses, made safe and kept apart."""

    studies: Taken = field(default_factory=Taken)
    contrasts: Taken = field(default_factory=Taken)
    study_of: dict[str, str] = field(default_factory=dict)
    n_changed: int = 0

    def label(self, study_id: str, study: str, contrast: str) -> str:
        if study_id not in self.study_of:
            free = self.studies.free(safe_study(study))
            self.n_changed += free != study
            self.study_of[study_id] = free
        kept = self.study_of[study_id]
        free = self.contrasts.contrast(kept, safe_contrast(kept, contrast))
        self.n_changed += free != contrast
        return f"{kept}; {free}"


def _labels(corpus: xr.Dataset, names: str, lost: list[str]) -> list[str]:
    """The header line of each analysis, empty for those without foci."""
    study = corpus["study_id"].values.tolist()
    contrast = corpus["analysis_contrast"].values.tolist()
    called_study, called = list(study), list(contrast)
    if names == "name":
        place = corpus["analysis_study"].values
        of_study = _text_of(corpus, "study.name")
        called_study = [of_study.get(at, name) for at, name in zip(place, study, strict=True)]
        of_analysis = _text_of(corpus, "analysis.name")
        called = [of_analysis.get(at, name) for at, name in enumerate(contrast)]
    made = _Labels()
    n_foci = corpus["analysis_n_foci"].values
    labels = [
        made.label(*parts) if n else ""
        for n, *parts in zip(n_foci, study, called_study, called, strict=True)
    ]
    if made.n_changed:
        lost.append(f"{made.n_changed:,} names are changed, so that they are read as one name each")
    return labels


def _text_of(corpus: xr.Dataset, name: str) -> dict[int, str]:
    rows, found = facts.values(corpus, name)
    pairs = zip(rows.tolist(), found, strict=True)
    return {row: text for row, text in pairs if isinstance(text, str) and text.strip()}


def _plain(name: str) -> str:
    """A name on one line, without the slashes that readers take away."""
    words = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return re.sub("/{2,}", "/", words).lstrip("/ ")


def safe_study(name: str) -> str:
    """A name of a study that the first separator of a header does not cut."""
    plain = _plain(name) or "unnamed"
    year = re.search("(?:19|20)[0-9]{2}", plain)
    start = year.end() if year else 0
    safe = plain[:start] + plain[start:].translate(_NO_SEPARATORS)
    if is_special(f"{safe}; x") or has_size_inside(safe):
        safe = _plain(re.sub("[=:]", " ", safe))
    return safe or "unnamed"


def safe_contrast(study: str, name: str) -> str:
    """A name of a contrast that is read as it is behind its study."""
    safe = _plain(name) or "1"
    if has_size_inside(safe):
        safe = _plain(safe.replace("=", " "))
    if split_label(f"{study}; {safe}") != (study, safe):
        safe = safe.translate(_NO_SEPARATORS)
    return safe


def _sizes(corpus: xr.Dataset, lost: list[str]) -> list[int]:
    """Subjects of each analysis, 0 where they are unknown."""
    known = "analysis_sample_size" in corpus
    sizes = corpus["analysis_sample_size"].values if known else mean_sample_sizes(corpus)
    has_foci = corpus["analysis_n_foci"].values > 0
    there = np.isfinite(sizes) & (sizes > 0)
    whole = np.where(there, np.maximum(np.rint(np.where(there, sizes, 0)), 1), 0)
    if rounded := int((there & has_foci & (whole != sizes)).sum()):
        lost.append(f"{rounded:,} sample sizes are rounded to whole subjects")
    if missing := int((has_foci & ~there).sum()):
        lost.append(
            f"{missing:,} analyses have no sample size, and NiMARE and GingerALE ask for one"
        )
    _, lists = facts.values(corpus, "analysis.metadata.sample_sizes")
    if several := sum(isinstance(each, list) and len(each) > 1 for each in lists):
        lost.append(f"{several:,} lists of sample sizes become their mean")
    return [int(size) for size in whole.tolist()]


def _add_losses(corpus: xr.Dataset, lost: list[str]) -> None:
    empty = int((corpus["analysis_n_foci"].values == 0).sum())
    bare = corpus.sizes["study"] - len(np.unique(corpus["analysis_study"].values))
    for count, what in (
        (empty, "analyses without foci"),
        (bare, "studies without analyses"),
        (corpus.sizes.get("feature", 0), "features"),
        (corpus.sizes.get("image", 0), "images"),
    ):
        if count:
            lost.append(f"{count:,} {what} are left out")
    further = [name for name in facts.fields(corpus) if name not in _SAID]
    if further:
        lost.append(f"{len(further):,} fields are left out ({shorten(further)})")
