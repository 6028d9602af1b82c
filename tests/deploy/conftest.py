"""A corpus and a cluster that the tests of losing things share, as far as they leave it whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deploy.runs import SLOW, Files, make_files
from tests.deploy.started import Cluster


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A corpus, and the results of undisturbed runs."""
    return make_files(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers on this machine."""
    # Where the disk is slow, blocks of maps are at work for long enough to be lost.
    with Cluster(tmp_path_factory.mktemp("cluster"), slow=SLOW) as made:
        yield made


@pytest.fixture
def shared(lasting: Cluster) -> Cluster:
    """The cluster with all its parts, as if nothing had run on it."""
    return lasting.ready()
