"""How much the jobs of one group of analyses do: at full size, or enough to be seen to work."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tests.benchmarks.inputs import Inputs

#: Which corpus: some of a group, all of the group, the whole database.
Size = Literal["few", "many", "all"]
#: Estimators that the peer has too.
Kind = Literal["ale", "mkda", "kda"]
KINDS: tuple[Kind, ...] = ("ale", "mkda", "kda")
#: What iterations of two groups are of: labels that are shuffled, differences of ALE.
Pair = Literal["shuffle", "difference"]
#: Effects of chi-square that differ from each other.
EFFECTS = ("uniformity", "association", "group2")
#: Features that share a null: the topic, or all topics.
Topics = Literal["one", "all"]

#: Subjects of every analysis, which give the Gaussian of ALE.
SAMPLE_SIZE = 20
#: Uncorrected p that voxels of a cluster are below.
VOXEL_THRESH = 0.001
#: Iterations of a null of many features (title words), of which some are measured.
N_WORD_ITERS = 1000
#: Iterations on a cluster, and its cores, for which the time is computed.
N_PLANNED, N_PLANNED_CORES = 10_000, 200


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Numbers of iterations and repetitions.

    Attributes
    ----------
    each, peer_each
        Iterations of a measured run of ours, and single iterations that the peer's median is of.
    runs
        Measured runs of ours, of which the median counts.
    fits, peer_fits
        Measured fits of each size.
    command, command_runs
        Iterations of the whole command, and how often ours is run.
    extended, extended_runs
        Iterations that the peer's command is run with where it is extended to all, and how often.
    scaling, scaling_runs
        Iterations that workers share, and how often.
    memory
        Iterations between which memory is held to be the same.
    whole
        Single iterations of the whole database.
    pair_each
        Iterations of a measured run of two groups: shuffled labels, and differences of ALE.
    ready
        How often the tables of shuffled labels are built.
    pair_null
        Iterations of a whole null of shuffled labels, for one topic and for all of them.
    pair_runs
        How often such a null is measured, of one topic and of all.
    pair_scaling
        Iterations of two groups that worker processes share, of one topic and of all.
    words
        Iterations up to which the null of words is done, and then taken on; and the words that
        are corrected.
    peer_shuffles, peer_differences
        Iterations of the peer's two runs, whose difference is what the ones between them cost.
    peer_pair_runs
        How often both runs of the peer's differences are measured; shuffled labels once.
    """

    each: dict[Size, int]
    peer_each: dict[Size, int]
    runs: int
    fits: dict[Size, int]
    peer_fits: dict[Size, int]
    command: int
    command_runs: int
    extended: tuple[int, int]
    extended_runs: int
    scaling: int
    scaling_runs: int
    memory: dict[Size, tuple[int, int]]
    whole: int
    pair_each: dict[Pair, int]
    ready: int
    pair_null: int
    pair_runs: dict[Topics, int]
    pair_scaling: dict[Topics, int]
    words: tuple[int, int, int]
    peer_shuffles: tuple[int, int]
    peer_differences: tuple[int, int]
    peer_pair_runs: int


FULL = Amounts(
    each={"few": 100, "many": 10},
    peer_each={"few": 15, "many": 5},
    runs=7,
    fits={"few": 5, "many": 3, "all": 1},
    peer_fits={"few": 3, "many": 1},
    command=5000,
    command_runs=3,
    extended=(200, 600),
    extended_runs=3,
    scaling=400,
    scaling_runs=3,
    memory={"few": (1000, 10_000), "many": (100, 1000)},
    whole=5,
    pair_each={"shuffle": 50, "difference": 100},
    ready=5,
    pair_null=5000,
    pair_runs={"one": 3, "all": 1},
    pair_scaling={"one": 5000, "all": 1000},
    words=(20, 100, 128),
    peer_shuffles=(5, 40),
    peer_differences=(20, 80),
    peer_pair_runs=3,
)

QUICK = Amounts(
    each={"few": 4, "many": 2},
    peer_each={"few": 2, "many": 1},
    runs=2,
    fits={"few": 2, "many": 1, "all": 1},
    peer_fits={"few": 1, "many": 1},
    command=20,
    command_runs=1,
    extended=(4, 8),
    extended_runs=1,
    scaling=20,
    scaling_runs=1,
    memory={"few": (10, 40), "many": (4, 10)},
    whole=2,
    pair_each={"shuffle": 4, "difference": 4},
    ready=1,
    pair_null=20,
    pair_runs={"one": 1, "all": 1},
    pair_scaling={"one": 20, "all": 20},
    words=(10, 30, 8),
    peer_shuffles=(1, 3),
    peer_differences=(2, 4),
    peer_pair_runs=1,
)


#: Enough to tell whether a target is reached, for tests.
BRIEF = replace(
    FULL,
    runs=3,
    ready=2,
    pair_runs={"one": 1, "all": 1},
    fits={"few": 3, "many": 1, "all": 1},
    peer_each={"few": 7, "many": 3},
    peer_fits={"few": 2, "many": 1},
    memory={"few": (500, 2000), "many": (50, 200)},
    peer_shuffles=(1, 6),
    peer_pair_runs=1,
)


def amounts_of(inputs: Inputs) -> Amounts:
    if inputs.quick:
        return QUICK
    return BRIEF if inputs.brief else FULL


def corpus_of(inputs: Inputs, size: Size) -> str:
    """The saved corpus of a size."""
    return {"few": inputs.few, "many": inputs.many, "all": inputs.corpus}[size]
