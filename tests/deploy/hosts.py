"""Hosts of their own on one machine: network namespaces that are joined by a bridge.

Addresses (10.77.0.x) are inside the namespaces only; what is made is removed, whatever happens.
Namespaces share the file system, as the machines of a computing centre do.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Self

import psutil

#: Names of namespaces begin with this and the number of the process that made them.
_PREFIX = "ndhost"

_count = itertools.count()


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@cache
def why_not() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        return "needs Linux and ip (Debian's iproute2)"
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    try:
        with Hosts(["a", "b"]) as hosts:
            hosts.cut("a")
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces cannot be made here ({error})"
    return None


class Hosts:
    """Hosts on a network of their own; a context manager.

    Parameters
    ----------
    names
        What they are called, up to 9 letters each.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._own = f"{_PREFIX}-{os.getpid()}-{next(_count)}-"

    def __enter__(self) -> Self:
        _sweep()
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make(self) -> None:
        # The bridge is in a namespace too, so this machine's own network sees nothing of it.
        switch = self._own + "switch"
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for name in self._names:
            here = self._own + name
            _ip("netns", "add", here)
            ends = ("type", "veth", "peer", "name", "eth0", "netns", here)
            _ip("-n", switch, "link", "add", f"to-{name}", *ends)
            _ip("-n", switch, "link", "set", f"to-{name}", "master", "bridge", "up")
            _ip("-n", here, "address", "add", f"{self.address(name)}/24", "dev", "eth0")
            _ip("-n", here, "link", "set", "eth0", "up")
            _ip("-n", here, "link", "set", "lo", "up")

    def address(self, name: str) -> str:
        """The address that a host has for the others."""
        return f"10.77.0.{1 + self._names.index(name)}"

    def on(self, name: str, words: Sequence[str]) -> list[str]:
        """A command that runs another one on a host, as the same process."""
        return ["ip", "netns", "exec", self._own + name, *words]

    def cut(self, name: str) -> None:
        """Pull the cable of a host."""
        _ip("-n", self._own + "switch", "link", "set", f"to-{name}", "down")

    def heal(self, name: str) -> None:
        """Plug it in again."""
        _ip("-n", self._own + "switch", "link", "set", f"to-{name}", "up")

    def close(self) -> None:
        """End what runs on the hosts, and remove them."""
        for name in [*self._names, "switch"]:
            _remove(self._own + name)


def _there() -> list[str]:
    return [line.split()[0] for line in _ip("netns", "list").splitlines() if line]


def _remove(name: str) -> None:
    if name not in _there():
        return
    until = time.monotonic() + 10
    while (pids := _ip("netns", "pids", name).split()) and time.monotonic() < until:
        for pid in pids:
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
    _ip("netns", "del", name)


def _sweep() -> None:
    """Remove what a process has left that was killed before it could."""
    for name in _there():
        prefix, _, rest = name.partition("-")
        owner = rest.partition("-")[0]
        if prefix == _PREFIX and owner.isdecimal() and not psutil.pid_exists(int(owner)):
            _remove(name)
