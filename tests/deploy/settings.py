"""Settings of the folder deploy, edited for a test as a person edits them for a site."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"

#: The file of settings and the job array of each batch system.
SETTINGS = {system: DEPLOY / system / f"{system}.yaml" for system in ("slurm", "pbs", "sge", "lsf")}
ARRAYS = {
    "slurm": DEPLOY / "slurm" / "array.sbatch",
    "pbs": DEPLOY / "pbs" / "array.pbs",
    "sge": DEPLOY / "sge" / "array.sge",
    "lsf": DEPLOY / "lsf" / "array.lsf",
}


def read(system: str) -> dict[str, Any]:
    """The settings of a batch system as they are in the folder."""
    loaded: dict[str, Any] = yaml.safe_load(SETTINGS[system].read_text(encoding="utf-8"))
    return loaded


def edited(system: str, folder: Path, others: dict[str, Any] | None = None, **own: Any) -> Path:
    """A copy of them, with other values of its jobqueue section, and of others by dotted name."""
    settings = read(system)
    settings["jobqueue"][system] |= {
        "log-directory": str(folder / "logs"),
        "scheduler-options": {"dashboard_address": ":0"},
        **{name.replace("_", "-"): value for name, value in own.items()},
    }
    for dotted, value in (others or {}).items():
        *sections, last = dotted.split(".")
        place = settings
        for name in sections:
            place = place[name]
        assert last in place, f"{dotted} is not in {SETTINGS[system]}"
        place[last] = value
    path = folder / f"{system}.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def commands(path: Path) -> list[str]:
    """The commands that the comments at the top of a script tell to give."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        if not line.startswith("#"):
            break
        if line.startswith("#   "):
            lines.append(line[1:].strip())
    return lines
