"""Groups of analyses as people write them: ``pain>=0.1``, ``rest``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr


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


def choose(corpus: xr.Dataset, conditions: list[str]) -> xr.Dataset:
    """Analyses that meet every condition."""
    from nimare_dask.cli.console import say
    from nimare_dask.selection import has_label, select

    for condition in conditions:
        label, threshold = parse(condition, option="--select")
        corpus = select(corpus, has_label(corpus, label, threshold=threshold))
    say(f"{corpus.sizes['analysis']:,} analyses with {corpus.sizes['focus']:,} foci.")
    return corpus


def two_groups(
    corpus: xr.Dataset, group1: str, group2: str, *, drop_shared: bool
) -> tuple[xr.Dataset, xr.Dataset]:
    """Two groups of analyses; ``rest`` is everybody who is not in group 1."""
    from nimare_dask.cli.console import say
    from nimare_dask.errors import SelectionError
    from nimare_dask.selection import has_label, select

    label, threshold = parse(group1, option="--group1")
    first = has_label(corpus, label, threshold=threshold)
    if group2.strip() == "rest":
        second = ~first
    else:
        label, threshold = parse(group2, option="--group2")
        second = has_label(corpus, label, threshold=threshold)
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
