"""The cluster's CA replaced under load, every step interrupted and done again, and not one call fails."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from bench.load import Operation, Target

from muster.cli.local.plan import FOREMAN
from muster.pki.bundles import paths
from tests.servers import local as clusters
from tests.servers.local import Local, Said, load, presented_serial, shown, until

pytestmark = pytest.mark.anyio

LATE = "later.example.net"


def kept_aside(local: Local, directory: Path) -> tuple[Path, Path, Path]:
    """Keep a copy of the client's files, as a client would that nobody gave the new ones."""
    bundle = paths(local.pki, "client", FOREMAN)
    directory.mkdir()
    files = (local.pki / "ca.pem", bundle.certificate, bundle.key)
    ca, certificate, key = (Path(shutil.copy(f, directory)) for f in files)
    return ca, certificate, key


@contextlib.contextmanager
def obstacle(local: Local, *, for_files: bool) -> Iterator[None]:
    """Let a step fail on its way: after the members' bundles, before the balancer's, at a client's in between."""
    at = paths(local.pki, "client", LATE)
    spoilt = at.ca if for_files else at.directory
    aside = spoilt.with_name(".aside")
    spoilt.rename(aside)
    spoilt.mkdir()
    try:
        yield
    finally:
        shutil.rmtree(spoilt)
        aside.rename(spoilt)


async def interrupted_and_resumed(local: Local, name: str, *options: str) -> Said:
    with obstacle(local, for_files=name != "reissue"):
        said = await local.cli("certs", "rotate", "--ca", "--step", name, *options)
        assert said.code == 4, said
        # Long enough for the members to take up the half that was written.
        await asyncio.sleep(1.5)
    return await step(local, name, *options)


async def step(local: Local, name: str, *options: str) -> Said:
    said = await local.cli("certs", "rotate", "--ca", "--step", name, *options)
    assert said.code == 0, said
    return said


def is_reloaded(local: Local, heard: int) -> Callable[[], Awaitable[bool]]:
    """Ask whether the balancer took new files up since that place in its log."""

    async def asked() -> bool:
        return "configuration is in force" in local.log("balancer")[heard:]

    return asked


async def refused(target: Target) -> bool:
    """Whether the client is turned away for its certificate."""
    try:
        await asyncio.to_thread(clusters._asked, target)
    except (ssl.SSLError, ConnectionError):
        return True
    return False


def bad(*operations: list[Operation]) -> list[Operation]:
    return [o for some in operations for o in some if not o.ok]


async def test_a_whole_rotation_of_the_ca_drops_no_call(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("needs")("haproxy")
    with clusters.running(members=2) as local:
        await until(local.is_steady, "every member is ready and up")
        assert (await local.cli("certs", "issue", "--client", LATE)).code == 0
        old = kept_aside(local, tmp_path / "old")
        pids = [local.pid_of(n) for n in local.names] + [local.balance_pid]
        serials = [await asyncio.to_thread(presented_serial, local, n) for n in local.names]

        # Clients learn of the new CA between the steps, as Foreman does: each load begins with the files of its day and
        # overlaps with the next.
        async with load(local, new=15, kept=10, connections=4, before_s=0.5, after_s=0.5) as first:
            heard = len(local.log("balancer"))
            said = await interrupted_and_resumed(local, "trust-both")
            await until(is_reloaded(local, heard), "the balancer trusts both")
            assert f"member {local.names[0]}: {paths(local.pki, 'member', local.names[0]).ca}" in said.out
            second_load = load(local, new=15, kept=10, connections=4, before_s=0.5, after_s=0.5)
            second = await second_load.__aenter__()
        shown("old CA, then both trusted, new", first.new)
        try:
            heard = len(local.log("balancer"))
            await interrupted_and_resumed(local, "reissue", "--settle", "4")

            async def are_new() -> bool:
                now = [await asyncio.to_thread(presented_serial, local, n) for n in local.names]
                return not set(now) & set(serials)

            await until(are_new, "every member presents a certificate of the new CA")
            await until(is_reloaded(local, heard), "the balancer shows a certificate of the new CA")
            third_load = load(local, new=15, kept=10, connections=4, before_s=0.5, after_s=0.5)
            third = await third_load.__aenter__()
        finally:
            await second_load.__aexit__(None, None, None)
        shown("reissued, new", second.new)
        shown("reissued, kept", second.kept)
        try:
            old_client = replace(local.target("/features"), ca=old[0], certificate=old[1], key=old[2])
            still_fine = replace(old_client, ca=local.pki / "ca.pem")
            assert not await refused(still_fine)
            heard = len(local.log("balancer"))
            await interrupted_and_resumed(local, "drop-old", "--settle", "0")

            async def old_is_refused() -> bool:
                direct = [replace(still_fine, host=local.target("/", n).host) for n in local.names]
                return all([await refused(t) for t in direct])

            await until(old_is_refused, "every member refuses the old CA's client certificate")
            assert await refused(still_fine)
            assert (await local.ask("/features")).status == 200
            await until(is_reloaded(local, heard), "the balancer trusts the new CA alone")
            await until(local.is_steady, "every member is up with the new CA alone")
        finally:
            await third_load.__aexit__(None, None, None)
        shown("old CA dropped, new", third.new)
        shown("old CA dropped, kept", third.kept)

        loads = (first, second, third)
        assert bad(*(x.new for x in loads), *(x.kept for x in loads)) == []
        assert all(x.new and x.kept for x in loads)
        verified = await local.cli("certs", "verify")
        assert (verified.code, verified.out) == (0, "Nothing is wrong.\n")
        assert old[0].read_text() not in (local.pki / "ca.pem").read_text()
        assert [local.pid_of(n) for n in local.names] + [local.balance_pid] == pids
        metrics = (await local.ask("/metrics", local.names[0])).text
        assert 'muster_certificate_alarm{days="30"} 0.0' in metrics
