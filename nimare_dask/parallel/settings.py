"""Settings of where to run: files of Dask's configuration, and our own section in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.config
from dask.utils import parse_timedelta

from nimare_dask.errors import SettingsError

#: How long a cluster may be without any worker; `nimare-dask.no-worker-timeout` in Dask's
#: configuration sets another time, such as 24h where jobs wait in a queue.
NO_WORKER_TIMEOUT = "10 minutes"

#: How long to look for a scheduler at an address; `nimare-dask.connect-timeout` sets another time,
#: such as 10 minutes where scheduler and program are started together.
CONNECT_TIMEOUT = "10 seconds"


def no_worker_seconds() -> float:
    """How long a cluster may be without any worker."""
    return _seconds("no-worker-timeout", NO_WORKER_TIMEOUT)


def _seconds(name: str, default: str) -> float:
    """A time of our own section in Dask's configuration."""
    given = dask.config.get(f"nimare-dask.{name}", default)
    try:
        return float(parse_timedelta(given, default="seconds"))
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"nimare-dask.{name} is {given!r}; expected a time such as '10 minutes' or '24h'."
        ) from error


def connect_seconds() -> float:
    """How long to look for a scheduler at an address."""
    return _seconds("connect-timeout", CONNECT_TIMEOUT)


def read_settings(path: str | Path) -> dict[str, Any]:
    """The settings of a YAML file.

    Raises
    ------
    SettingsError
        When it is not there or no YAML, or holds no settings.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        loaded = yaml.safe_load(text)
    except OSError as error:
        raise SettingsError(
            f"The settings {path} cannot be read ({error.strerror}); copy one of the files in the "
            "folder deploy and give its path."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())
        raise SettingsError(f"The settings {path} are not YAML: {told}.") from error
    if not isinstance(loaded, dict):
        raise SettingsError(
            f"The settings {path} are {type(loaded).__name__ if loaded else 'empty'}; expected "
            "sections such as jobqueue: and distributed:."
        )
    return loaded


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings with dotted names, which Dask lays over what it has instead of replacing it."""
    made: dict[str, Any] = {}
    for name, value in settings.items():
        dotted = f"{prefix}{name}"
        made |= flat(value, f"{dotted}.") if isinstance(value, Mapping) else {dotted: value}
    return made
