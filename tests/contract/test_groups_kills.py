"""A real member killed at each durable step of a change at two real BINDs: both servers have it, or neither.

Before it is written down nobody has heard of it. From then on it comes to both, whoever dies when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy import func, select, update

from muster.store.tables import group_changes, group_repairs, leases
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
