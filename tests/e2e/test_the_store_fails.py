"""The store gone under a running cluster: a full disk, a stopped PostgreSQL. Nobody is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import scale
from tests.servers import local as clusters
from tests.servers import postgresql
from tests.servers.local import Local, load, shown, until
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        if os.environ.get("MUSTER_NO_SKIPS"):
            pytest.fail(f"a small disk is required here: {mounted.stderr}")
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


@pytest.fixture(scope="module")
def server(needs: Callable[[str], None]) -> Iterator[PostgreSQL]:
    needs("haproxy")
    needs("postgresql")
    with postgresql.running() as found:
        yield found


@contextlib.asynccontextmanager
async def serving(url: str) -> AsyncIterator[Local]:
    """Hold two members running on a store; the same processes must serve at the end."""
    with clusters.running(members=2, store_url=url) as local:
        await until(local.is_steady, "every member is ready and up")
        pids = [local.pid_of(name) for name in local.names]
        yield local
        await until(local.is_steady, "every member reports again")
        assert [local.pid_of(name) for name in local.names] == pids


async def notes(local: Local, member: str) -> list[str]:
    answer = await local.ask("/health/ready?service=smartproxy", member)
    assert answer.status == 200, answer
    found: list[str] = answer.json.get("notes", [])
    return found


async def serves_without_store(local: Local, number: int) -> None:
    """What needs no store answers as ever."""
    for member in (None, *local.names):
        assert (await local.ask("/version", member)).status == 200
        assert (await local.ask("/features", member)).json == ["dns", "logs"]
    for word in ("new", "repeated"):
        form = {"fqdn": f"host{number}.example.com", "value": "192.0.2.7", "type": "A"}
        answer = await local.ask("/dns/", local.names[0], method="POST", form=form)
        assert answer.status == 200, (word, answer)


async def complains(local: Local, *words: str) -> None:
    """Every member notes the store's failure, and the commands say it."""
    for name in local.names:

        async def is_noted(name: str = name) -> bool:
            return any(all(w in note for w in ("The store (", *words)) for note in await notes(local, name))

        await until(is_noted, f"{name} notes that the store fails")
    drained = await local.cli("drain", "proxy01", "--reason", "never")
    assert drained.code == 4
    assert all(w in drained.err for w in ("The store (", *words)), drained


async def test_a_full_disk_stops_heartbeats_and_nothing_else(small_disk: Path, needs: Callable[[str], None]) -> None:
    needs("haproxy")
    async with serving(f"sqlite:///{small_disk / 'store.db'}") as local:
        await serves_without_store(local, 1)
        async with load(local, new=10, kept=10, connections=4) as seen:
            ballast = small_disk / "ballast"
            fill(ballast)
            await complains(local, "the disk is full")
            await serves_without_store(local, 2)
            assert (await local.ask("/logs/", local.names[0])).status == 200

            async def is_said() -> bool:
                said = await local.cli("status")
                return said.code == 1 and "silent for" in said.out and "the disk is full" in said.out

            await until(is_said, "status says that the disk is full and members are silent")
            ballast.unlink()
            await until(local.is_steady, "every member reports again")
        shown("full disk, new", seen.new)
        shown("full disk, kept", seen.kept)
        assert {o.status for o in seen.new + seen.kept} == {200}
        assert (await local.cli("status")).code == 0


@pytest.mark.proof
async def test_a_stopped_postgresql_stops_heartbeats_and_nothing_else(server: PostgreSQL) -> None:
    async with serving(server.fresh_database()) as local:
        async with load(local, new=10, kept=10, connections=4) as seen:
            await asyncio.to_thread(server.stop)
            stopped = time.monotonic()
            try:
                await complains(local)
                await serves_without_store(local, 1)

                said = await local.cli("status")
                assert said.code == 1
                assert "where it stands is unknown, the store did not answer" in said.out
                status: dict[str, Any] = (await local.cli("status", "--json")).json
                assert not status["store"]["ok"]
                assert "connection refused" in status["store"]["trouble"]

                logs = (await local.ask("/logs/", local.names[0])).json
                assert "records of the other members are missing" in logs["info"]["incomplete"]
                assert {r["member"] for r in logs["logs"]} == {local.names[0]}

                examined = await local.cli("doctor", "--json")
                assert examined.code == 1
                assert "STORE-DOWN" in {f["code"] for f in examined.json["findings"]}
                assert postgresql.PASSWORD not in str(logs) + str(status) + str(examined) + str(said)
                await asyncio.sleep(max(0.0, scale.STORE_STOPPED_S - (time.monotonic() - stopped)))
            finally:
                await asyncio.to_thread(server.start)
            await until(local.is_steady, "every member reports again")

            async def is_complete() -> bool:
                return "incomplete" not in (await local.ask("/logs/", local.names[0])).json["info"]

            await until(is_complete, "the time line is whole again")
        shown(f"PostgreSQL stopped for {scale.STORE_STOPPED_S:g} s, new", seen.new)
        shown(f"PostgreSQL stopped for {scale.STORE_STOPPED_S:g} s, kept", seen.kept)
        assert {o.status for o in seen.new + seen.kept} == {200}
        assert await notes(local, local.names[0]) == []


async def test_a_cluster_starts_and_serves_while_its_store_is_down(server: PostgreSQL) -> None:
    url, started = server.fresh_database(), False
    await asyncio.to_thread(server.stop)
    try:
        with clusters.running(members=2, store_url=url) as local:
            await serves_without_store(local, 1)
            await asyncio.to_thread(server.start)
            started = True
            await until(local.is_steady, "every member reports")
    finally:
        if not started:
            await asyncio.to_thread(server.start)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 9):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
