"""Names of studies and analyses: each once, however often a source has it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Taken:
    """Names that are given already; a further one of the same gets a number behind it."""

    _names: set[str] = field(default_factory=set)
    _last: dict[str, int] = field(default_factory=dict)

    def free(self, wanted: str, *, before: str = "") -> str:
        """Take `wanted`, or ``wanted_2`` and so on where it is taken.

        Parameters
        ----------
        wanted
            The name.
        before
            What stands before it where names are compared (``<study>-`` for a contrast).
        """
        name, whole = wanted, f"{before}{wanted}"
        number = self._last.get(whole, 1)
        while f"{before}{name}" in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._last[whole] = number
        self._names.add(f"{before}{name}")
        return name

    def contrast(self, study: str, wanted: str) -> str:
        """A contrast whose ``<study>-<contrast>`` is not taken yet."""
        return self.free(wanted, before=f"{study}-")
