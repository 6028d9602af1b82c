"""The expression language of Neurosynth: ``emo* &~ (reward* | pain*) < 0.05``.

An expression is read into a tree (:mod:`nimare_dask.grammar`), its names are looked up in the
corpus, and then it is worked out from the leaves: every node is a set of analyses, each with a
value (the weight of what it was chosen by), held as one array in which NaN is not in the set.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from nimare_dask.errors import SettingsError, UnknownLabelError, find_label, suggest
from nimare_dask.grammar import Node, nodes, parse, point, warn_of_grouping
from nimare_dask.selection import DEFAULT_THRESHOLD, as_mask, feature_names

Func = Literal["sum", "mean", "max"]
Values = NDArray[np.float64]

#: A longer name is not compared with those of features.
_LONGEST_NAME = 500
#: Terms whose values are kept, for an expression that names one again.
_MOST_KEPT = 32


def expression(
    corpus: xr.Dataset, text: str, *, threshold: float = DEFAULT_THRESHOLD, func: Func = "sum"
) -> xr.DataArray:
    """Mark the analyses that an expression over features selects, in Neurosynth's language.

    .. code-block:: text

        pain                       analyses whose weight of pain is at least `threshold`
        working memory             spaces belong to a name
        emo*   topic_?             `func` of all features that match: * any text, ? one character
        "R&D"                      a name with any characters, without wildcards
        a & b    a | b    a &~ b   in both; in either; in the first and not in the second
        ~a                         not in a
        pain >= 0.1   pain > 0.1   a weight of its own in place of `threshold`
        pain < 0.1   pain <= 0.1   of the analyses that have pain
        (a | b) < 0.05             of those in the parentheses, by `func` of their values

    Operators between sets have no precedence: each takes all that follows it in the same
    parentheses, as in Neurosynth, so that ``a & b | c`` is ``a & (b | c)``. Where that is not what
    people would expect, a warning says so. ``~`` and comparisons go with the nearest term or
    parentheses: ``~a < 0.1 & b`` is ``(~(a < 0.1)) & b``.

    The value of ``a & b`` and ``a | b`` is `func` of both values, 0 where there is none; that of
    ``a &~ b`` is the value of a; that of ``~a`` is 0.

    Parameters
    ----------
    corpus
        A corpus with features. A name is that of a feature, or what follows the last ``__`` in it.
    text
        The expression, of at most 50,000 characters.
    threshold
        Smallest weight that counts where a term has no weight of its own, inclusive.
    func
        How weights are put together: ``"sum"``, ``"mean"`` or ``"max"``.

    Returns
    -------
    mask
        Boolean, (analysis,).

    Raises
    ------
    SettingsError
        For what is no expression; it points at the character.
    UnknownLabelError
        When no feature has a name or matches a pattern, or several have a name.

    Notes
    -----
    ``>`` is above; in Neurosynth it is at least. There a comparison never reaches below
    `threshold`; here it does after a term, as it says.
    """
    if func not in _TOGETHER:
        raise SettingsError(f"func is {func!r}; expected one of {', '.join(_TOGETHER)}.")
    if not threshold == threshold:
        raise SettingsError("threshold is not a number; expected the smallest weight that counts.")
    text = str(text)
    root = parse(text)
    if root.unclear >= 0:
        warn_of_grouping(text, root.unclear)
    table = _Table(corpus, text, threshold, func)
    for node in nodes(root):
        if node.kind == "term":
            table.find(node)
    return as_mask(corpus, ~np.isnan(_work_out(root, table)))


def _work_out(root: Node, table: _Table) -> Values:
    """Values of the analyses that an expression selects, NaN of others, (analysis,).

    Of two parts the one that needs more arrays is worked out first, so that few are held at once
    however an expression is nested.
    """
    waiting: list[tuple[Node, bool]] = [(root, False)]
    done: list[Values] = []
    while waiting:
        node, parts_done = waiting.pop()
        if not parts_done:
            waiting.append((node, True))
            parts = sorted(node.parts, key=lambda part: part.need)
            waiting.extend((part, False) for part in parts)
            continue
        if node.kind == "term":
            done.append(table.values(node))
        elif len(node.parts) == 1:
            done.append(_of_one(node, done.pop(), table.number))
        else:
            last, first = done.pop(), done.pop()
            # The part that came first in `sorted` was worked out last.
            swapped = node.parts[0].need > node.parts[1].need
            left, right = (first, last) if swapped else (last, first)
            done.append(_of_two(node.kind, left, right, table.func))
    return done.pop()


def _of_one(node: Node, values: Values, number: Callable[[float], float]) -> Values:
    if node.kind == "()":
        return values
    if node.kind == "~":
        return np.where(np.isnan(values), 0.0, np.nan)
    assert node.number is not None
    limit = number(node.number)
    return np.where(_COMPARE[node.kind](values, limit), values, np.nan)


def _of_two(operator: str, left: Values, right: Values, func: Func) -> Values:
    if operator == "&~":
        return np.where(np.isnan(right), left, np.nan)
    together = _TOGETHER[func]
    if operator == "&":  # NaN with anything is NaN
        return np.asarray(together(left, right))
    out = [np.isnan(part) for part in (left, right)]
    pair = [np.where(missing, 0.0, part) for missing, part in zip(out, (left, right), strict=True)]
    return np.where(out[0] & out[1], np.nan, together(*pair))


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_TOGETHER: dict[str, Callable[[Any, Any], Any]] = {
    "sum": np.add,
    "mean": lambda a, b: (a + b) / 2,
    "max": np.maximum,
}


class _Table:
    """The weights of a corpus, as the terms of one expression ask for them."""

    def __init__(self, corpus: xr.Dataset, text: str, threshold: float, func: Func) -> None:
        self.text, self.func = text, func
        self.names = feature_names(corpus, text)
        self.shorts = [name.rpartition("__")[2] for name in self.names]
        self.ends = np.cumsum(corpus["feature_n_weights"].values)
        self.starts = self.ends - corpus["feature_n_weights"].values
        self.analysis = corpus["weight_analysis"].values
        self.weight = corpus["weight_value"].values
        self.n_analyses = corpus.sizes["analysis"]
        self.threshold = threshold
        self.found: dict[tuple[str, bool], list[int]] = {}
        self.kept: dict[Any, Values] = {}

    def number(self, number: float) -> float:
        """A number as the weights can hold it, so that 0.1 equals a stored 0.1."""
        with np.errstate(over="ignore"):
            return float(self.weight.dtype.type(number))

    def find(self, node: Node) -> list[int]:
        """Positions of the features of a term."""
        key = node.text, node.quoted
        if key not in self.found:
            self.found[key] = self._find(node)
        return self.found[key]

    def _find(self, node: Node) -> list[int]:
        if len(node.text) > _LONGEST_NAME:
            said = f"No feature has a name of {len(node.text):,} characters."
            raise UnknownLabelError(point(self.text, node.at, said))
        if node.quoted or not set("*?") & set(node.text):
            try:
                return [find_label(self.names, node.text, "feature")]
            except UnknownLabelError as error:
                raise UnknownLabelError(point(self.text, node.at, str(error))) from None
        # Only * and ? are wildcards; fnmatch also knows [ ].
        pattern = re.sub(r"\*+", "*", node.text).replace("[", "[[]")
        matches = re.compile(fnmatch.translate(pattern)).match
        pairs = enumerate(zip(self.names, self.shorts, strict=True))
        found = [place for place, pair in pairs if any(map(matches, pair))]
        if not found:
            plain = re.sub(r"[*?]+", "", node.text)
            raise UnknownLabelError(
                point(
                    self.text,
                    node.at,
                    f"No feature matches {node.text!r}. {suggest(plain, self.names)}",
                )
            )
        return found

    def values(self, node: Node) -> Values:
        """Values of the analyses that a term selects, NaN of others, (analysis,)."""
        key = node.text, node.quoted, node.number, node.strict
        if key not in self.kept:
            if len(self.kept) >= _MOST_KEPT:
                self.kept.clear()
            total = self._together(self.find(node))
            limit = self.number(self.threshold if node.number is None else node.number)
            enough = total > limit if node.strict else total >= limit
            self.kept[key] = np.where(enough, total, np.nan)
        return self.kept[key]

    def _together(self, features: list[int]) -> Values:
        """What `func` makes of the weights of some features, (analysis,)."""
        total = np.full(self.n_analyses, -np.inf if self.func == "max" else 0.0)
        stored = np.zeros(self.n_analyses, np.int64)
        for place in features:
            weights = slice(self.starts[place], self.ends[place])
            rows, values = self.analysis[weights], self.weight[weights].astype(np.float64)
            if self.func == "max":
                total[rows] = np.maximum(total[rows], values)
                stored[rows] += 1
            else:
                total[rows] += values
        if self.func == "max":  # what is not stored is 0
            return np.where(stored < len(features), np.maximum(total, 0.0), total)
        return total / len(features) if self.func == "mean" else total
