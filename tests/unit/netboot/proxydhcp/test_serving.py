from ipaddress import IPv4Address
from typing import Any

import pytest

from muster.cluster.roster import Report, Seen, Wish
from muster.kernel.errors import Unavailable
from muster.netboot.ledger import Standing
from muster.netboot.proxydhcp.answers import BootServer
from muster.netboot.proxydhcp.serving import Serving, ready, resolved


def seen(name: str, *, age_s: float = 0.5, state: str = "ready") -> Seen:
    said = {"https": {"state": state, "reason": ""}}
    report = Report(name, 1, "1", "1", "host", 1, "ready", "", {}, said, {})
    return Seen(report, 0.0, age_s, Wish())


def test_who_takes_clients_and_is_not_behind_may_serve() -> None:
    everybody = {n: seen(n) for n in ("a", "b", "c", "d")}
    standings = [
        Standing("a", 7, 5, counts=True),
        Standing("b", 4, 5, counts=True),
        Standing("c", 7, 0, counts=False),
        Standing("e", 7, 0, counts=True),
    ]
    assert ready(everybody, standings) == ["a"]


def test_where_there_is_no_tree_whoever_takes_clients_may() -> None:
    everybody = {"a": seen("a"), "b": seen("b", state="draining"), "c": seen("c", age_s=9.0)}
    assert ready(everybody, None) == ["a"]


def test_who_is_late_is_left_out_while_another_is_not() -> None:
    everybody = {"a": seen("a", age_s=3.0), "b": seen("b")}
    assert ready(everybody, None) == ["b"]
    assert ready({"a": seen("a", age_s=3.0)}, None) == ["a"]


class Roster:
    def __init__(self, *names: str) -> None:
        self.names = names
        self.away = False

    async def seen(self) -> dict[str, Seen]:
        if self.away:
            raise Unavailable("the store is away")
        return {n: seen(n) for n in self.names}


def serving(roster: Any, members: dict[str, str], **more: Any) -> Serving:
    return Serving(lambda: members, roster, None, more.pop("everybodys", None), **more)


async def test_members_are_known_by_their_addresses() -> None:
    one = serving(Roster("a", "b", "gone"), {"a": "192.0.2.1", "b": "2001:db8::1", "c": "192.0.2.3"})
    assert not one.is_known
    await one.look()
    assert (one.is_known, list(one.servers)) == (True, [BootServer("a", IPv4Address("192.0.2.1"))])


async def test_a_name_that_does_not_resolve_now_keeps_its_address() -> None:
    answers = [IPv4Address("192.0.2.1"), None]

    async def resolve(_host: str) -> IPv4Address | None:
        return answers.pop(0)

    one = serving(Roster("a"), {"a": "a.example.com"}, resolve=resolve)
    await one.look()
    before = one.servers
    await one.look()
    assert one.servers == before
    assert len(before) == 1


async def test_without_the_store_those_who_might_serve_still_may() -> None:
    roster = Roster("a")
    one = serving(roster, {"a": "192.0.2.1"})
    await one.look()
    roster.away = True
    with pytest.raises(Unavailable):
        await one.look()
    assert len(one.servers) == 1


async def test_where_an_address_stands_for_everybody_nobody_is_looked_at() -> None:
    address = BootServer("proxy.example.com", IPv4Address("192.0.2.10"))
    one = serving(None, {}, everybodys=address)
    await one.look()
    assert (one.is_known, list(one.servers)) == (True, [address])


async def test_an_address_is_its_own_answer() -> None:
    assert await resolved("192.0.2.1") == IPv4Address("192.0.2.1")
    assert await resolved("2001:db8::1") is None
