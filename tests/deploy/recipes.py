"""The image's recipes, for Docker and for Apptainer, as steps that can be run elsewhere."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
DEFINITION = ROOT / "deploy" / "apptainer" / "nimare-dask.def"
LOCK = ROOT / "deploy" / "docker" / "requirements.lock"


@dataclass
class Recipe:
    """What a recipe does."""

    base: str
    #: Commands that install, in order.
    steps: list[str] = field(default_factory=list)
    #: Where files of the repository are put.
    files: dict[str, str] = field(default_factory=dict)
    #: Environment while it is built, and of what runs later.
    building: dict[str, str] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    #: The other instructions of the last stage.
    rest: dict[str, str] = field(default_factory=dict)


def _assignments(text: str, known: dict[str, str]) -> dict[str, str]:
    found = dict(word.split("=", 1) for word in shlex.split(text.replace("$PATH", "@PATH")))
    return {
        name: re.sub(r"\$\{?(\w+)\}?", lambda ref: known[ref[1]], value).replace("@PATH", "$PATH")
        for name, value in found.items()
    }


def dockerfile() -> Recipe:
    """The Dockerfile: the steps of its first stage, the settings of its last."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(None, 1) for line in text.splitlines() if line and line[0] not in "# "]
    arguments: dict[str, str] = {}
    recipe, stage = Recipe(base=""), 0
    for word, given in lines:
        if word == "ARG":
            arguments |= _assignments(given, arguments)
        elif word == "FROM":
            stage += 1
            base = arguments[re.sub(r"\W", "", given.split()[0])]
            assert recipe.base in ("", base), "both stages have one base"
            recipe.base = base
        elif word == "ENV":
            into = recipe.building if stage == 1 else recipe.running
            into |= _assignments(given, arguments)
        elif word == "RUN" and stage == 1:
            recipe.steps.append(given.strip())
        elif word == "COPY" and stage == 1:
            *sources, target = given.split()
            for source in sources:
                whole = not target.endswith("/")
                recipe.files[source] = target if whole else target + Path(source).name
        elif stage == 2:
            recipe.rest[word] = given.strip()
    return recipe


def definition() -> Recipe:
    """The Apptainer definition."""
    head, *parts = re.split(r"^%(?=\w)", DEFINITION.read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = {}
    for part in parts:
        name, _, body = part.partition("\n")
        lines = [line.strip() for line in body.splitlines()]
        sections[name.strip()] = [line for line in lines if line and not line.startswith("#")]
    recipe = Recipe(base=re.findall(r"^From: (\S+)$", head, flags=re.MULTILINE)[0])
    recipe.files = dict(line.split() for line in sections["files"])
    for line in sections["post"]:
        if line.startswith("export "):
            recipe.building |= _assignments(line.removeprefix("export "), {})
        else:
            recipe.steps.append(line)
    for line in sections["environment"]:
        recipe.running |= _assignments(line.removeprefix("export "), {})
    recipe.rest = {name: "\n".join(lines) for name, lines in sections.items()}
    return recipe


def locked() -> dict[str, list[Requirement]]:
    """The requirements of the lock by name; several where they depend on the version of Python."""
    text = LOCK.read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, list[Requirement]] = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            requirement = Requirement(line.split("--hash")[0].strip())
            found.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return found
