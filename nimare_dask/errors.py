"""How nimare_dask fails: one tree of exceptions, each also a builtin that callers already catch.

.. code-block:: text

    NimareDaskError
    ├── SettingsError       (ValueError)      a parameter that cannot work
    ├── SchemaError         (ValueError)      a dataset without a variable it needs
    ├── SourceFormatError   (ValueError)      a file that is not what it should be
    ├── SelectionError      (ValueError)      a choice of analyses that leaves nothing to compare
    ├── UnknownLabelError   (LookupError)     a feature, effect or map that is not there
    ├── WorkerError         (RuntimeError)    a cluster that lost its workers
    ├── StoreAccessError    (OSError)         an object store that cannot be reached, or not by you
    ├── StoreExistsError    (FileExistsError) a result that would overwrite something
    └── DownloadError       (OSError)         a download that did not end well

Every message is one sentence or two: what was found, what was expected, what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class NimareDaskError(Exception):
    """Base of every error that a person can mend."""


class SettingsError(NimareDaskError, ValueError):
    """A parameter has a value that cannot work."""


class SchemaError(NimareDaskError, ValueError):
    """A dataset lacks a variable, or has it with other dimensions or another kind of values."""


class SourceFormatError(NimareDaskError, ValueError):
    """A source file or store is not in the format that was expected."""


class SelectionError(NimareDaskError, ValueError):
    """A selection of analyses leaves nothing to compute or to compare."""


class UnknownLabelError(NimareDaskError, LookupError):
    """A feature, effect, map or other label was asked for that is not there."""


class WorkerError(NimareDaskError, RuntimeError):
    """A cluster has no workers, lost them, or they cannot do the work."""


class StoreAccessError(NimareDaskError, OSError):
    """An object store cannot be reached, refuses, or needs what is not installed."""


class StoreExistsError(NimareDaskError, FileExistsError):
    """Writing would overwrite something that is already there."""


class DownloadError(NimareDaskError, OSError):
    """A download failed or did not have the expected content."""


class CorpusWarning(UserWarning):
    """Something in a corpus was treated in a way that its user should know of."""


def shorten(items: Sequence[object], limit: int = 5) -> str:
    """Join the first `limit` items for a message and count the rest."""
    shown = ", ".join(str(item) for item in items[:limit])
    more = len(items) - limit
    return f"{shown} and {more:,} more" if more > 0 else shown


def suggest(name: str, known: Sequence[str]) -> str:
    """Name the known labels nearest to `name`, for the end of a message."""
    if not name:
        return f"There are {shorten(list(known), 8)}."
    last = {label.rpartition("__")[2]: label for label in known}
    near = get_close_matches(name, known, n=3, cutoff=0.5)
    near += [last[part] for part in get_close_matches(name, list(last), n=3, cutoff=0.5)]
    near = list(dict.fromkeys(near))
    near += [label for label in known if name.lower() in label.lower() and label not in near][:3]
    if near:
        return f"Did you mean {shorten(near)}?"
    return f"There are {len(known):,}: {shorten(list(known))}."


def find_label(known: Sequence[str], label: str, what: str) -> int:
    """Position of `label` in `known`, by its whole text or by what follows ``__`` in it.

    Raises
    ------
    UnknownLabelError
        When nothing is called so, or several things are.
    """
    if label in known:
        return list(known).index(label)
    short = [place for place, name in enumerate(known) if name.rpartition("__")[2] == label]
    if len(short) > 1:
        names = shorten([known[place] for place in short])
        raise UnknownLabelError(f"{label!r} is what several {what}s end in: {names}. Name one.")
    if not short:
        raise UnknownLabelError(f"No {what} is called {label!r}. {suggest(label, known)}")
    return short[0]
