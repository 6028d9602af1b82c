"""What is wrong with a file: every problem, with its place, how bad it is and what to do.

A reader collects problems as it goes on, so that one look tells a person all there is to mend.
:func:`settle` turns them into an error or a warning when the corpus is asked for;
:func:`~nimare_dask.validate` gives the list.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nimare_dask.errors import CorpusWarning, SourceFormatError

Severity = Literal["error", "warning"]
#: Errors, and warnings, that are kept of a file; further ones are counted.
MOST = 10_000
#: Problems that a message shows; `nimare-dask validate` shows all.
_SHOWN = 5
_LONGEST = 300


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file.

    Attributes
    ----------
    place
        Where: a line (``line 12``), a JSON path (``studies[3].analyses[0].points[2]``) or a row.
    severity
        ``error``: there is no corpus until it is mended; ``warning``: read all the same, as said.
    message
        What was found, what was expected, what to do (or what was done).
    """

    place: str
    severity: Severity
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


@dataclass
class Problems:
    """Problems of one file, in the order of the file."""

    path: Path
    found: list[Problem] = field(default_factory=list)
    n_errors: int = 0
    n_warnings: int = 0

    def error(self, place: str, message: str) -> None:
        """Add what keeps the file from being read."""
        self.n_errors += 1
        if self.n_errors <= MOST:
            self.found.append(Problem(place, "error", message))

    def warn(self, place: str, message: str) -> None:
        """Add what was treated in a way that the message says."""
        self.n_warnings += 1
        if self.n_warnings <= MOST:
            self.found.append(Problem(place, "warning", message))


def show(value: object, longest: int = 60) -> str:
    """A value for a message: short, on one line, whatever it is."""
    text = repr(value[: longest + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= longest else f"{text[:longest]}..."


def settle(problems: Problems) -> None:
    """Raise what is an error, warn of the rest.

    Raises
    ------
    SourceFormatError
        With the first errors and how many there are.
    """
    where = f"nimare-dask validate {problems.path} lists them all"
    if problems.n_errors:
        errors = [problem for problem in problems.found if problem.severity == "error"]
        raise SourceFormatError(_list(problems, errors, problems.n_errors, "errors", where))
    if problems.n_warnings:
        message = _list(problems, problems.found, problems.n_warnings, "notes", where)
        warnings.warn(message, CorpusWarning, stacklevel=3)


def _list(problems: Problems, found: list[Problem], count: int, what: str, where: str) -> str:
    if count == 1:
        text = str(found[0])
        return f"{problems.path}, {text if len(text) <= 2 * _LONGEST else text[: 2 * _LONGEST]}"
    shown = [str(problem)[:_LONGEST] for problem in found[:_SHOWN]]
    rest = f" {count - len(shown):,} more; {where}." if count > len(shown) else ""
    return (
        f"{problems.path}: {count:,} {what}. "
        + " ".join(f"({number}) {text}" for number, text in enumerate(shown, start=1))
        + rest
    )
