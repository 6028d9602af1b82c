"""What the jobs work on: the real database, or a simulated one of its size, in the same files."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import xarray as xr
from scipy import sparse

import nimare_dask as nd

#: An analysis has a topic from this weight on.
TOPIC_THRESHOLD = 0.1
#: Which feature the pair of groups is made of: the fourth.
FEATURE_PLACE = 3
#: Title words of the large job, and of the small one beside which its memory is seen to be flat.
N_WORDS, N_WORDS_FEW = 3000, 300
#: The topic whose analyses are one group: all of them, and some with so many foci in all.
GROUP_LABEL = "32_pain_somatosensory_stimulation"
N_FEW, N_FEW_FOCI = 50, 1462
#: Labels are shuffled for the topic that about so many analyses have (of Neurosynth it is pain).
TOPIC_SIZE = 701

_REAL = "data-neurosynth_version-7"
_REAL_TOPICS = "LDA50_source-abstract_type-weight"


@dataclass(frozen=True)
class Inputs:
    """Files of one run; all but tables and the image `mask` are saved corpora.

    `many` is one group of analyses and `few` some of them, for the jobs of one group; `other` are
    as many that are not of the group, to compare the few with, and `topic` the feature whose labels
    are shuffled. `quick` says that these jobs do just enough to be seen to work, `brief` that they
    do enough to tell whether a target is reached.
    """

    coordinates: str
    metadata: str
    features: str
    vocabulary: str
    corpus: str
    words: str
    many: str
    few: str
    other: str
    mask: str
    feature: str
    topic: str
    n_words: int
    n_words_few: int
    quick: bool
    text: str
    brief: bool = False


def real_inputs(data: Path, folder: Path) -> Inputs:
    """The whole of Neurosynth with 50 topics at 2 mm, from the folder that holds neurosynth/."""
    source = data / "neurosynth"
    sources = (
        source / f"{_REAL}_coordinates.tsv.gz",
        source / f"{_REAL}_metadata.tsv.gz",
        source / f"{_REAL}_vocab-{_REAL_TOPICS}_features.npz",
        source / f"{_REAL}_vocab-LDA50_vocabulary.txt",
    )
    corpus = nd.read_neurosynth(sources[0], sources[1], features=[(sources[2], sources[3])])
    return _complete(
        corpus,
        sources,
        _titles(corpus),
        (N_WORDS, N_WORDS_FEW),
        1,
        "Neurosynth 7",
        folder,
        label=GROUP_LABEL,
    )


def simulated_inputs(
    folder: Path,
    *,
    n_analyses: int = 14371,
    n_foci: int = 507891,
    n_topics: int = 50,
    n_words: tuple[int, int] = (N_WORDS, N_WORDS_FEW),
    n_few: tuple[int, int] = (N_FEW, N_FEW_FOCI),
    every: int = 1,
    quick: bool = False,
) -> Inputs:
    """A simulated database, on every `every`-th voxel of the 2 mm mask along each axis."""
    corpus = nd.simulate_corpus(
        n_analyses, n_foci=n_foci, n_features=n_topics, features_per_analysis=2.5
    )
    folder.mkdir(parents=True, exist_ok=True)
    sources = _write_sources(corpus, folder)
    titles = _simulated_titles(n_analyses, 2 * n_words[0])
    return _complete(
        corpus, sources, titles, n_words, every, "simulated", folder, n_few=n_few, quick=quick
    )


def small_inputs(folder: Path) -> Inputs:
    """300 simulated analyses on a grid of 4 mm, for tests and for a quick look."""
    return simulated_inputs(
        folder,
        n_analyses=300,
        n_foci=6000,
        n_topics=8,
        n_words=(80, 40),
        n_few=(10, 180),
        every=2,
        quick=True,
    )


def _complete(
    corpus: xr.Dataset,
    sources: tuple[Path, ...],
    titles: list[str],
    n_words: tuple[int, int],
    every: int,
    name: str,
    folder: Path,
    *,
    label: str | None = None,
    n_few: tuple[int, int] = (N_FEW, N_FEW_FOCI),
    quick: bool = False,
) -> Inputs:
    """Save what the jobs share: the corpora and the mask image."""
    folder.mkdir(parents=True, exist_ok=True)
    nd.save_corpus(corpus, folder / "corpus.zarr")
    nd.save_corpus(word_corpus(corpus, titles, n_words[0]), folder / "words.zarr")
    space = nd.load_space("mni152_2mm")
    mask = space.mask[::every, ::every, ::every].astype(np.uint8)
    affine = space.affine @ np.diag([every, every, every, 1.0])
    nib.save(nib.Nifti1Image(mask, affine), folder / "mask.nii.gz")
    feature = str(corpus["feature"].values[FEATURE_PLACE])
    n_selected = int(nd.has_label(corpus, feature, TOPIC_THRESHOLD).sum())
    in_many = nd.has_label(corpus, label or feature, TOPIC_THRESHOLD)
    many = nd.select(corpus, in_many)
    few = some_analyses(many, *n_few)
    other = some_analyses(nd.select(corpus, ~in_many), *n_few)
    topic = nearest_topic(corpus, TOPIC_SIZE)
    n_with = int(nd.has_label(corpus, topic, TOPIC_THRESHOLD).sum())
    for name_of, group in (("many", many), ("few", few), ("other", other)):
        nd.save_corpus(group, folder / f"{name_of}.zarr")
    text = (
        f"{name}: {corpus.sizes['analysis']:,} analyses, {corpus.sizes['focus']:,} foci, "
        f"{corpus.sizes['feature']} topics, {int(mask.sum()):,} voxels of {2 * every} mm; "
        f"fit: {n_selected:,} analyses with {feature} >= {TOPIC_THRESHOLD:g} against the rest; "
        f"one group: {_size(many)} with {label or feature} >= {TOPIC_THRESHOLD:g}, "
        f"and {_size(few)}; "
        f"two groups: {n_with:,} analyses with {topic} >= {TOPIC_THRESHOLD:g} against the rest, "
        f"and the {_size(few)} against {_size(other)}"
    )
    coordinates, metadata, features, vocabulary = map(str, sources)
    return Inputs(
        coordinates=coordinates,
        metadata=metadata,
        features=features,
        vocabulary=vocabulary,
        corpus=str(folder / "corpus.zarr"),
        words=str(folder / "words.zarr"),
        many=str(folder / "many.zarr"),
        few=str(folder / "few.zarr"),
        other=str(folder / "other.zarr"),
        mask=str(folder / "mask.nii.gz"),
        feature=feature,
        topic=topic,
        n_words=n_words[0],
        n_words_few=n_words[1],
        quick=quick,
        text=text,
    )


def some_analyses(corpus: xr.Dataset, n: int, n_foci: int, tries: int = 100_000) -> xr.Dataset:
    """The first `n` analyses drawn that have `n_foci` foci in all, or of all draws the nearest.

    (For the topic of pain it is the 281st draw, with just as many foci.)
    """
    foci = corpus["analysis_n_foci"].values
    n = min(n, len(foci))
    rng = np.random.default_rng(0)
    best, least = np.arange(0), np.inf
    for _ in range(tries):
        drawn = rng.choice(len(foci), n, replace=False)
        off = abs(int(foci[drawn].sum()) - n_foci)
        if off < least:
            best, least = drawn, off
        if off == 0:
            break
    return nd.select(corpus, np.isin(np.arange(len(foci)), best))


def nearest_topic(corpus: xr.Dataset, n: int) -> str:
    """The feature that nearest to `n` analyses have; of features as near, the first."""
    weights = nd.corpus.weights_of(corpus)
    n_selected = np.asarray((weights >= TOPIC_THRESHOLD).sum(axis=0)).ravel()
    return str(corpus["feature"].values[np.abs(n_selected - n).argmin()])


def _size(corpus: xr.Dataset) -> str:
    return f"{corpus.sizes['analysis']:,} analyses, {corpus.sizes['focus']:,} foci"


def word_corpus(corpus: xr.Dataset, titles: list[str], n_words: int) -> xr.Dataset:
    """The corpus with presence (1.0) of the most frequent words of its titles as features.

    A word counts once a title; of words that are as frequent, the alphabet decides.
    """
    words = [set(re.findall("[a-z]+", title.lower())) for title in titles]
    frequency = Counter(word for title in words for word in title)
    ranked = sorted(frequency, key=lambda word: (-frequency[word], word))[:n_words]
    place = {word: number for number, word in enumerate(ranked)}
    pairs = np.array(
        [(row, place[word]) for row, title in enumerate(words) for word in title & place.keys()]
    )
    shape = (corpus.sizes["analysis"], len(ranked))
    return nd.corpus.build(
        analysis_id=corpus["analysis_id"].values,
        study_id=corpus["study_id"].values,
        n_foci=corpus["analysis_n_foci"].values,
        xyz=corpus["focus_xyz"].values,
        focus_space=corpus["focus_space"].values,
        spaces=corpus.attrs["spaces"],
        feature=ranked,
        weights=sparse.csc_matrix((np.ones(len(pairs)), pairs.T), shape=shape),
    )


def _titles(corpus: xr.Dataset) -> list[str]:
    return [str(title) for title in nd.get_metadata(corpus, "study.name").values]


def _simulated_titles(n: int, n_words: int, length: int = 12) -> list[str]:
    """Titles whose words are as unevenly frequent as those of a language."""
    rng = np.random.default_rng(0)
    frequency = 1.0 / (np.arange(n_words) + 10.0)
    drawn = rng.choice(n_words, size=(n, length), p=frequency / frequency.sum())
    letters = np.array([_letters(number) for number in range(n_words)])
    return [" ".join(title) for title in letters[drawn]]


def _letters(number: int) -> str:
    word = ""
    while number or not word:
        number, letter = divmod(number, 26)
        word = chr(ord("a") + letter) + word
    return word


def _write_sources(corpus: xr.Dataset, folder: Path) -> tuple[Path, ...]:
    """Write a corpus as the files of a Neurosynth database."""
    ids = corpus["study_id"].values.astype(object)
    n_foci = corpus["analysis_n_foci"].values
    coordinates = pd.DataFrame(corpus["focus_xyz"].values, columns=["x", "y", "z"])
    coordinates.insert(0, "id", np.repeat(ids, n_foci))
    metadata = pd.DataFrame({"id": ids, "space": "MNI", "title": "", "year": 2000})
    names = [str(name).rpartition("__")[2] for name in corpus["feature"].values]
    paths = (
        folder / "coordinates.tsv.gz",
        folder / "metadata.tsv.gz",
        folder / "vocab-simulated_source-none_type-weight_features.npz",
        folder / "vocabulary.txt",
    )
    coordinates.to_csv(paths[0], sep="\t", index=False)
    metadata.to_csv(paths[1], sep="\t", index=False)
    sparse.save_npz(paths[2], sparse.csr_matrix(nd.corpus.weights_of(corpus)))
    paths[3].write_text("\n".join(names) + "\n", encoding="utf-8")
    return paths
