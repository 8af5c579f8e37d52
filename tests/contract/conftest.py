"""The stores and HAProxies that contract tests run on; each test has a SQLite file and a PostgreSQL database of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import debian, once, postgresql, pulp, schemas
from tests.servers.haproxy import executables
from tests.servers.postgresql import PostgreSQL
from tests.servers.pulp import Pulp


@pytest.fixture(scope="session")
def postgresql_server(needs: Callable[[str], None]) -> Iterator[PostgreSQL]:
    needs("postgresql")
    with postgresql.running() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that somebody has made the schema of already, and in which nothing is."""
    if request.param == "sqlite":
        return schemas.place(tmp_path / "store.db")
    started: PostgreSQL = request.getfixturevalue("postgresql_server")
    return started.fresh_store()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store to which nobody has come: whoever does first makes the schema."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/store.db"
    started: PostgreSQL = request.getfixturevalue("postgresql_server")
    return started.fresh_database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with opened(Secret(url)) as store:
        yield store


@pytest.fixture(params=["debian", "wheel"])
def executable(request: pytest.FixtureRequest, needs: Callable[[str], None]) -> Path:
    """An HAProxy: tests that have it run on both releases there are here."""
    needs("haproxy")
    path = executables()[request.param]
    if path is None:
        pytest.skip(f"no HAProxy of {request.param}")
    return path


# To start them costs less than to keep them until the next file wants them.
@pytest.fixture(scope="module")
def pulps(needs: Callable[[str], None]) -> Iterator[tuple[Pulp, Pulp]]:
    """Two Pulps that know nothing of each other; a test names its repositories by itself and leaves them."""
    needs("pulp")
    made = [pulp.running(f"pulp{n}", address=f"127.0.0.6{n}") for n in (1, 2)]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        one, other = pool.map(stack.enter_context, made)
        yield one, other


@pytest.fixture(scope="session")
def bare_debian(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Path:
    """The root directory of the least Debian 12 there is; a test that changes anything copies it."""
    needs("debootstrap")
    needs("namespaces")
    return once.made(once.directory(tmp_path_factory) / "debian-bare", debian.bare)


@pytest.fixture(scope="session")
def debian_of_hosts(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None], bare_debian: Path) -> Path:
    """The root directory of hosts that boot (``tests/servers/hosts.py``), which nothing changes."""
    needs("nspawn")
    place = once.directory(tmp_path_factory) / "debian-of-hosts"
    return once.made(place, lambda root: debian.of_hosts(root, bare_debian))


@pytest.fixture(scope="session")
def muster_packages(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Path:
    """The directory of the deb and the rpm that are built from here."""
    needs("rpmbuild")
    return once.made(once.directory(tmp_path_factory) / "muster-packages", debian.packages)
