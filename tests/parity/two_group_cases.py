"""Real studies in two groups that both packages are given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.selection import has_label
from tests.parity.cases import studies
from tests.parity.peer import open_database, quiet, real_subset
from tests.parity.peer_cbma import corpus_of, wheel_studyset
from tests.parity.peer_two_groups import Groups

Name = Literal["pain", "pain few", "nback part", "nback"]

#: What a study of the n-back and flanker studyset is of.
TASK = "comparison_task"
TOPIC = "32_pain_somatosensory_stimulation"


@dataclass(frozen=True)
class Pair:
    """Two groups as both have them. Corpora are in the order of ids; every analysis has foci."""

    studysets: Groups
    first: xr.Dataset
    second: xr.Dataset
    pooled: xr.Dataset

    @property
    def sizes(self) -> tuple[int, int]:
        """Analyses of each group."""
        return self.first.sizes["analysis"], self.second.sizes["analysis"]


@cache
def groups(name: Name) -> Pair:
    """Two groups of a studyset of the wheel."""
    if name.startswith("pain"):
        studyset, corpus = studies("pain")
        first = np.arange(corpus.sizes["analysis"]) % 2 == 0
        if name == "pain few":  # so few that most shuffles come twice
            return pair_of(studyset, corpus["analysis_id"].values[:6], first[:6])
        return pair_of(studyset, corpus["analysis_id"].values, first)
    studyset = wheel_studyset("nback_flanker")
    table = studyset.annotations_df.drop_duplicates("id").set_index("id")[TASK]
    with quiet():
        ids = np.unique(studyset.coordinates["id"].to_numpy(str))
    ids = ids[:: 15 if name == "nback part" else 1]
    return pair_of(studyset, ids, (table.loc[ids.tolist()] == "n-back").to_numpy(bool))


def neurosynth(folder: Path, source: Path, n_with: int, n_without: int) -> Pair:
    """Studies of Neurosynth that are of pain, and some that are not."""
    database = open_database(real_subset(folder, source, TOPIC, n_with, n_without))
    is_first = has_label(database.corpus, TOPIC, 0.1).values
    return pair_of(database.studyset, database.corpus["analysis_id"].values, is_first)


def pair_of(studyset: Any, ids: Any, is_first: NDArray[np.bool_]) -> Pair:
    """Divide analyses of a studyset."""
    ids = np.asarray(ids).astype(object)
    with quiet():
        parts = [studyset.slice(ids[mask].tolist()) for mask in (is_first, ~is_first)]
        whole = studyset.slice(ids.tolist())
    return Pair((parts[0], parts[1]), corpus_of(parts[0]), corpus_of(parts[1]), corpus_of(whole))
