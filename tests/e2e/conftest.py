"""One cluster for all tests that leave it as they found it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.servers import local as clusters
from tests.servers.local import Local


# Of the package: while other tests run, for most of an hour, its processes would take a tenth of a processor for nothing.
@pytest.fixture(scope="package")
def shared_cluster(needs: Callable[[str], None]) -> Iterator[Local]:
    needs("haproxy")
    with clusters.running() as local:
        yield local


@pytest.fixture
async def local(shared_cluster: Local) -> Local:
    """Three members and a balancer, all well before the test."""
    await clusters.until(shared_cluster.is_steady, "every member is ready and up")
    return shared_cluster
