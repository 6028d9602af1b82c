"""Groups of analyses as people write them: ``pain>=0.1``, ``emo* &~ pain``, ``rest``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

#: What an expression has and a label with a smallest weight has not.
_OPERATORS = frozenset("&|~()<>*?\"'")


def parse(condition: str, *, option: str) -> tuple[str, float]:
    """Label and smallest weight of a condition such as ``pain>=0.1`` or ``pain``."""
    from nimare_dask.errors import SettingsError
    from nimare_dask.selection import DEFAULT_THRESHOLD

    label, operator, number = condition.partition(">=")
    try:
        threshold = float(number) if operator else DEFAULT_THRESHOLD
    except ValueError:
        threshold = float("nan")
    if not label.strip() or threshold != threshold:
        raise SettingsError(
            f"{option} is {condition!r}; expected LABEL>=NUMBER, such as 'pain>=0.1'."
        )
    return label.strip(), threshold


def mark(corpus: xr.Dataset, condition: str, *, option: str) -> xr.DataArray:
    """Analyses that meet a condition: ``pain``, ``pain>=0.1``, or an expression over features."""
    from nimare_dask.expressions import expression
    from nimare_dask.selection import has_label

    if _is_expression(corpus, condition):
        return expression(corpus, condition)
    label, threshold = parse(condition, option=option)
    return has_label(corpus, label, threshold=threshold)


def _is_expression(corpus: xr.Dataset, condition: str) -> bool:
    """Whether a condition is more than a label, and perhaps ``>=`` and a number."""
    label, _, number = condition.partition(">=")
    if "feature" not in corpus.dims:
        return False
    names = [str(name) for name in corpus["feature"].values.tolist()]
    known = label.strip() in {*names, *(name.rpartition("__")[2] for name in names)}
    # The name of a feature may have operators in it.
    return not _OPERATORS.isdisjoint(number if known else label + number)


def choose(corpus: xr.Dataset, conditions: list[str]) -> xr.Dataset:
    """Analyses that meet every condition."""
    from nimare_dask.cli.console import say
    from nimare_dask.selection import select

    for condition in conditions:
        corpus = select(corpus, mark(corpus, condition, option="--select"))
    say(f"{corpus.sizes['analysis']:,} analyses with {corpus.sizes['focus']:,} foci.")
    return corpus


def two_groups(
    corpus: xr.Dataset, group1: str, group2: str, *, drop_shared: bool
) -> tuple[xr.Dataset, xr.Dataset]:
    """Two groups of analyses; ``rest`` is everybody who is not in group 1."""
    from nimare_dask.cli.console import say
    from nimare_dask.errors import SelectionError
    from nimare_dask.selection import select

    first = mark(corpus, group1, option="--group1")
    second = ~first if group2.strip() == "rest" else mark(corpus, group2, option="--group2")
    shared = int((first & second).sum())
    if shared and not drop_shared:
        raise SelectionError(
            f"{shared:,} analyses are in both groups ({int(first.sum()):,} in group 1, "
            f"{int(second.sum()):,} in group 2); leave them out with --drop-shared, or compare "
            "with --group2 rest."
        )
    first, second = first & ~second, second & ~first
    if shared:
        say(f"{shared:,} analyses are in both groups and are left out.")
    groups = []
    for number, mask in enumerate((first, second), start=1):
        if not mask.any():
            raise SelectionError(
                f"No analysis is in group {number}; use a lower threshold or another label."
            )
        group = select(corpus, mask)
        groups.append(group)
        say(
            f"Group {number}: {group.sizes['analysis']:,} analyses with "
            f"{group.sizes['focus']:,} foci."
        )
    return groups[0], groups[1]
