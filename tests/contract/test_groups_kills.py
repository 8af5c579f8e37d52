"""A real member killed at each durable step of a change at two real BINDs: both servers have it, or neither.

Before it is written down nobody has heard of it. From then on it comes to both, whoever dies when.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import Table, func, select, update

from muster.features.dns.contract import Record, RecordType
from muster.features.dns.providers import nsupdate
from muster.features.dns.settings import NSUpdateSettings
from muster.kernel.names import FQDN
from muster.store.tables import group_changes, group_leaders, group_repairs, leases
from tests import scale
from tests.servers import bind, served
from tests.servers.bind import BindServer, Zone
from tests.servers.local import until
from tests.servers.served import NoAnswer, Served

ZONE = "example.com"
BEFORE, AFTER = "before-commit", "after-commit"


@pytest.fixture(scope="module")
def servers(
    needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[BindServer, BindServer]]:
    needs("bind")
    one, other = tmp_path_factory.mktemp("ns1"), tmp_path_factory.mktemp("ns2")
    with bind.running(one, zones=[Zone(ZONE)]) as first, bind.running(other, zones=[Zone(ZONE)]) as second:
        yield first, second


def rows(member: Served) -> tuple[int, int]:
    """Return how many changes are under way, and how many repairs there are."""

    async def counted() -> tuple[int, int]:
        async with member.store() as store, store.read() as unit:
            found = [
                (await unit.connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in (group_changes, group_repairs)
            ]
        return found[0], found[1]

    return asyncio.run(counted())


def time_is_up(member: Served) -> None:
    """Have whoever carried a change out, or repaired, be taken for dead, which would take a minute."""

    async def expire() -> None:
        async with member.store() as store, store.write("test") as unit:
            await unit.connection.execute(update(group_changes).values(until=0))
            await unit.connection.execute(update(leases).where(leases.c.name == "repairs-dns").values(expires_at=0))

    asyncio.run(expire())


def found_in(member: Served, table: Table) -> list[dict[str, Any]]:
    async def read() -> list[dict[str, Any]]:
        async with member.store() as store, store.read() as unit:
            return [dict(row) for row in (await unit.connection.execute(select(table))).mappings()]

    return asyncio.run(read())


def features(servers: tuple[BindServer, BindServer], mode: str) -> dict[str, Any]:
    providers = {
        f"ns{n}": {"nsupdate": {"server": s.address, "port": s.port, "key_file": str(s.key_file), "timeout_s": 2}}
        for n, s in enumerate(servers, 1)
    }
    policies = {"retry": {"attempts": 1}, "breaker": {"failures": 0}}
    return {"dns": {"policies": policies, "group": {"mode": mode, "providers": providers}}}


def added(member: Served, name: str, value: str = "192.0.2.1") -> tuple[int, str]:
    """Ask for an address as Foreman does."""
    body = urlencode({"fqdn": name, "value": value, "type": "A"}).encode()
    return member.ask_as_foreman("POST", "/dns/", body, form=True)


def wait(question: Callable[[], bool], what: str) -> None:
    async def asked() -> bool:
        return await asyncio.to_thread(question)

    waiting: Callable[[], Awaitable[bool]] = asked
    asyncio.run(until(waiting, what))


@pytest.mark.proof
@pytest.mark.parametrize("url", ["postgresql", "sqlite"][: scale.KILLED_STORES], indirect=True)
def test_a_change_is_at_both_servers_or_at_neither_wherever_its_member_dies(
    tmp_path: Path, url: str, servers: tuple[BindServer, BindServer]
) -> None:
    name = f"{'p' if url.startswith('postgresql') else 's'}.{ZONE}"

    def at() -> list[bool]:
        return [bool(s.dig(name, "A")) for s in servers]

    providers = {
        f"ns{n}": {"nsupdate": {"server": s.address, "port": s.port, "key_file": str(s.key_file)}}
        for n, s in enumerate(servers, 1)
    }
    features = {"dns": {"group": {"mode": "all", "providers": providers}}}
    with served.made(tmp_path, url, features=features) as member:

        def killed(point: str, method: str = "POST") -> None:
            member.kill()
            member.start(f"{point}=kill")
            body = urlencode({"fqdn": name, "value": "192.0.2.1", "type": "A"}).encode() if method == "POST" else b""
            path = "/dns/" if method == "POST" else f"/dns/{name}/A"
            with pytest.raises(NoAnswer):
                member.ask_as_foreman(method, path, body, form=True)
            member.died()

        killed(f"group-begun.{BEFORE}")
        assert (at(), rows(member)) == ([False, False], (0, 0))
        killed(f"group-begun.{AFTER}")
        assert (at(), rows(member)) == ([False, False], (1, 0))
        # Whoever finds it dies as well, before and after it has said that others are to make it.
        time_is_up(member)
        member.begin(f"group-recovered.{BEFORE}=kill")
        member.died()
        assert (at(), rows(member)) == ([False, False], (1, 0))
        time_is_up(member)
        member.begin(f"group-recovered.{AFTER}=kill")
        member.died()
        assert (at(), rows(member)) == ([False, False], (0, 2))
        time_is_up(member)
        member.begin(f"group-repaired.{BEFORE}=kill")
        member.died()
        # One of them has it, and nobody wrote that down: it has it once more.
        assert (True in at(), rows(member)) == (True, (0, 2))
        time_is_up(member)
        member.start()
        wait(lambda: rows(member) == (0, 0), "both have it")
        assert at() == [True, True]
        killed(f"group-ended.{BEFORE}", "DELETE")
        assert (at(), rows(member)) == ([False, False], (1, 0))
        time_is_up(member)
        member.start()
        wait(lambda: rows(member) == (0, 0), "both were told once more")
        assert at() == [False, False]
        killed(f"group-ended.{AFTER}")
        assert (at(), rows(member)) == ([True, True], (0, 0))


@pytest.mark.proof
@pytest.mark.parametrize("url", ["postgresql", "sqlite"][: scale.KILLED_STORES], indirect=True)
def test_a_repair_is_not_lost_wherever_who_makes_it_or_decides_about_it_dies(
    tmp_path: Path, url: str, servers: tuple[BindServer, BindServer]
) -> None:
    _, other = servers
    name = f"r{'p' if url.startswith('postgresql') else 's'}.{ZONE}"

    async def somebodys() -> None:
        settings = NSUpdateSettings(server=other.address, port=other.port, key_file=other.key_file)
        async with nsupdate.opened(settings, 300) as provider:
            await provider.add(Record(FQDN.parse(name), RecordType.A, ip_address("192.0.2.99")))

    async def gone() -> None:
        settings = NSUpdateSettings(server=other.address, port=other.port, key_file=other.key_file)
        async with nsupdate.opened(settings, 300) as provider:
            await provider.remove(FQDN.parse(name), RecordType.A)

    with served.made(tmp_path, url, features=features(servers, "all")) as member:

        def repair() -> tuple[int, int]:
            (found,) = found_in(member, group_repairs)
            return found["attempts"], found["stuck"]

        def dies(point: str) -> None:
            time_is_up(member)
            member.begin(f"{point}=kill")
            member.died()

        member.start()
        other.stop()
        assert added(member, name)[0] == 200
        member.kill()
        before = repair()[0]
        dies(f"group-repair-put-off.{BEFORE}")
        assert repair() == (before, 0)
        dies(f"group-repair-put-off.{AFTER}")
        assert repair() == (before + 1, 0)
        other.start()
        asyncio.run(somebodys())
        dies(f"group-repair-refused.{BEFORE}")
        assert repair()[1] == 0
        dies(f"group-repair-refused.{AFTER}")
        assert repair()[1] == 1
        (refused,) = found_in(member, group_repairs)
        asyncio.run(gone())

        def decides(point: str) -> None:
            said = member.command("repairs", "retry", str(refused["id"]), armed=f"{point}=kill")
            assert said.code == -signal.SIGKILL

        decides(f"group-repair-decided.{BEFORE}")
        assert repair()[1] == 1
        # Nothing of the turn it took is left behind.
        assert found_in(member, group_changes) == []
        decides(f"group-repair-decided.{AFTER}")
        assert repair()[1] == 0
        assert found_in(member, group_changes) == []
        time_is_up(member)
        member.start()
        wait(lambda: rows(member) == (0, 0), "ns2 has it")
        assert [[line.split()[-1] for line in s.dig(name, "A")] for s in servers] == [["192.0.2.1"]] * 2


@pytest.mark.proof
@pytest.mark.parametrize("url", ["postgresql", "sqlite"][: scale.KILLED_STORES], indirect=True)
def test_a_group_has_one_leader_wherever_a_member_dies(
    tmp_path: Path, url: str, servers: tuple[BindServer, BindServer]
) -> None:
    one, _ = servers
    word = f"l{'p' if url.startswith('postgresql') else 's'}"

    def at(name: str) -> list[bool]:
        return [bool(s.dig(f"{name}.{ZONE}", "A")) for s in servers]

    with served.made(tmp_path, url, features=features(servers, "leader")) as member:

        def leads() -> list[tuple[str, int]]:
            return [(row["provider"], row["epoch"]) for row in found_in(member, group_leaders)]

        def killed(point: str, name: str) -> None:
            member.kill()
            member.start(f"{point}=kill")
            with pytest.raises(NoAnswer):
                added(member, f"{name}.{ZONE}")
            member.died()

        member.begin(f"group-leader-first.{BEFORE}=kill")
        member.died()
        assert leads() == []
        member.begin(f"group-leader-first.{AFTER}=kill")
        member.died()
        assert leads() == [("ns1", 1)]
        killed(f"group-led-begun.{BEFORE}", f"{word}1")
        assert (at(f"{word}1"), rows(member)) == ([False, False], (0, 0))
        killed(f"group-led-begun.{AFTER}", f"{word}1")
        assert (at(f"{word}1"), rows(member)) == ([False, False], (1, 0))
        killed(f"group-led-ended.{BEFORE}", f"{word}2")
        assert (at(f"{word}2"), rows(member)) == ([True, False], (2, 0))
        killed(f"group-led-ended.{AFTER}", f"{word}3")
        assert (at(f"{word}3"), rows(member)) == ([True, False], (2, 0))
        # Who is waited for is dead, which is known when his time is up; what he had begun is nobody's repair.
        time_is_up(member)
        one.stop()
        try:
            member.begin(f"group-leader-changed.{BEFORE}=kill")
            member.died()
            assert leads() == [("ns1", 1)]
            member.begin(f"group-leader-changed.{AFTER}=kill")
            member.died()
            assert leads() == [("ns2", 2)]
            assert rows(member) == (0, 0)
            member.start()
            assert added(member, f"{word}4.{ZONE}")[0] == 200
        finally:
            one.start()
        assert at(f"{word}4") == [False, True]
        member.kill()
