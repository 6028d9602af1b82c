"""An object store on this machine (moto's server), and processes that work with it.

``python -m tests.object_store`` is the server: it says its port, and ends when its standard input
does, so that none is left whatever becomes of the tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

#: What any program finds an S3 store by; nothing of the machine's own is looked at.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_MAX_ATTEMPTS": "2",
}


@dataclass(frozen=True)
class Server:
    """An object store that runs."""

    endpoint: str
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.endpoint}

    def make_bucket(self) -> str:
        """A bucket of one test's own, such as ``s3://b-0123abcd``."""
        name = f"b-{uuid.uuid4().hex[:8]}"
        self.fs().mkdir(name)
        return f"s3://{name}"

    def fs(self) -> Any:
        """The store as a file system that remembers nothing."""
        import s3fs

        return s3fs.S3FileSystem(
            endpoint_url=self.endpoint,
            key="testing",
            secret="testing",
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def names(self, address: str) -> list[str]:
        """All objects below an address, by their names below it."""
        below = address.removeprefix("s3://")
        return sorted(name.removeprefix(f"{below}/") for name in self.fs().find(below))


@contextmanager
def running(**environment: str) -> Iterator[Server]:
    """Start a server on a free port, and end it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.object_store"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, **CREDENTIALS, "PYTHONPATH": str(ROOT), **environment},
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        assert port.isdecimal(), "moto's server did not start"
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait(timeout=30)
        process.stdin.close()
        process.stdout.close()


def forget() -> None:
    """Drop what fsspec keeps of stores, which were found by other variables."""
    with suppress(ImportError):
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()


def _serve() -> None:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve()
