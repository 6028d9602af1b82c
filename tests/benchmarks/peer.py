"""What NiMARE does in each job, and how long it takes: one fresh process for all of them.

Loading is needed by everything else and is paid once. For many features there is
CorrelationDecoder: it builds the maps of all analyses once (the fixed part), then does one
meta-analysis after the other. It is measured with a few topics and a few words, and the report
extends the cost of one feature to all of them.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nimare_dask as nd
from tests.benchmarks.inputs import TOPIC_THRESHOLD, Inputs
from tests.benchmarks.measure import begin_peak, peak_mb

#: Topics, and words, with which the decoder is measured.
N_TOPICS, N_WORDS = 6, 6


def load(inputs: Inputs) -> Any:
    """Tables and features of a database to a Studyset, in memory."""
    from nimare.io import convert_neurosynth_to_studyset

    annotations = {"features": inputs.features, "vocabulary": inputs.vocabulary}
    return convert_neurosynth_to_studyset(
        inputs.coordinates, inputs.metadata, annotations_files=annotations
    )


def groups(studyset: Any, feature: str) -> tuple[Any, Any]:
    """Analyses with the topic, and the rest."""
    chosen = set(studyset.get_studies_by_label(labels=[feature], label_threshold=TOPIC_THRESHOLD))
    rest = [name for name in studyset.ids if name not in chosen]
    return studyset.slice(sorted(chosen)), studyset.slice(rest)


def fit(pair: tuple[Any, ...]) -> Any:
    """One meta-analysis of two groups."""
    from nimare.meta.cbma.mkda import MKDAChi2

    return MKDAChi2().fit(*pair)


def with_words(studyset: Any, inputs: Inputs) -> tuple[Any, list[str]]:
    """The studyset with some words of the titles as annotations, from frequent to rare."""
    words = nd.open_corpus(inputs.words)
    place = np.linspace(0, words.sizes["feature"] - 1, N_WORDS).astype(int)
    row = {str(name): number for number, name in enumerate(words["analysis_id"].values)}
    order = [row[str(name)] for name in studyset.ids]
    weights = nd.corpus.weights_of(words)[:, place][order]
    names = [f"words__{word}" for word in words["feature"].values[place]]
    return studyset.with_annotation("words", names, weights), names


def decode(studyset: Any, topics: list[str], words: list[str]) -> dict[str, float]:
    """Seconds of the decoder: what it does once, and for each topic and each word."""
    from nimare.decode.continuous import CorrelationDecoder
    from nimare.meta.cbma.mkda import MKDAChi2

    ends: list[float] = []

    class Watched(MKDAChi2):
        """Says when each meta-analysis ended."""

        def fit(self, dataset1: Any, dataset2: Any, **settings: Any) -> Any:
            result = super().fit(dataset1, dataset2, **settings)
            ends.append(time.perf_counter())
            return result

    began = time.perf_counter()
    CorrelationDecoder(
        features=topics + words,
        frequency_threshold=TOPIC_THRESHOLD,
        meta_estimator=Watched(),
        n_cores=1,
    ).fit(studyset)
    if len(ends) != len(topics + words):
        raise RuntimeError(f"{len(ends)} meta-analyses for {len(topics + words)} features.")
    # From the end of one to the end of another; what the first takes beyond that is paid once.
    per_topic = (ends[len(topics) - 1] - ends[0]) / (len(topics) - 1)
    per_word = (ends[-1] - ends[len(topics) - 1]) / len(words)
    return {
        "fixed_seconds": ends[0] - began - per_topic,
        "seconds_per_topic": per_topic,
        "seconds_per_word": per_word,
    }


def measure(inputs: Inputs, jobs: list[str], folder: Path) -> dict[str, Any]:
    """Load always; then what `jobs` asks for, "fit" and "decoder"."""
    import nibabel as nib

    found: dict[str, Any] = {}
    studyset, found["load"] = _measured(lambda: load(inputs))
    studyset = studyset.with_context(masker=nib.load(inputs.mask))
    if "fit" in jobs:
        pair = groups(studyset, inputs.feature)
        # The first fit compiles; a small one is enough for that and is not counted.
        fit(tuple(group.slice(list(group.ids[:20])) for group in pair))
        result, found["fit"] = _measured(lambda: fit(pair))
        z_file = folder / "peer_z.npy"
        np.save(z_file, result.get_map("z_desc-association", return_type="array"))
        found["fit"] |= {"z": str(z_file), "n_selected": len(pair[0].ids)}
        del result, pair
    if "decoder" in jobs:
        labels = studyset.get_labels()
        topics = [labels[at] for at in np.linspace(0, len(labels) - 1, N_TOPICS).astype(int)]
        studyset, words = with_words(studyset, inputs)
        seconds, facts = _measured(lambda: decode(studyset, topics, words))
        found["decoder"] = facts | seconds
    return found


def _measured(action: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    begin_peak()
    began = time.perf_counter()
    value = action()
    return value, {"seconds": time.perf_counter() - began, "peak_mb": peak_mb()}


def main() -> None:
    """Answer one request."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    request = json.load(sys.stdin)
    answer = measure(Inputs(**request["inputs"]), request["jobs"], Path(request["folder"]))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
