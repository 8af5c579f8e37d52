from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.app.duties.proxydhcp import BootServersKnown, ProxyDHCPKept
from muster.kernel.errors import Misconfigured, Unavailable
from muster.netboot.proxydhcp.metrics import ProxyDHCPMetrics

pytestmark = pytest.mark.anyio


class Server:
    """A server that can be told that it may not listen."""

    def __init__(self) -> None:
        self.holds = self.may_serve = self.listens = False
        self.servers: Sequence[Any] = ()
        self.interfaces: Sequence[str] = ()
        self.absent: Sequence[str] = ()
        self.may_listen = True
        self.tries = 0

    def listen(self) -> None:
        self.tries += 1
        if not self.may_listen:
            raise Misconfigured("UDP port 67 cannot be listened on: it may not")
        self.listens = True

    def absent_interfaces(self) -> Sequence[str]:
        return self.absent


class Holding:
    """The role, which is free, and a store that can be away."""

    def __init__(self) -> None:
        self.holds = False
        self.away = False

    async def beat(self, *, fit: bool) -> None:
        if self.away:
            raise Unavailable("the store is away")
        self.holds = fit

    async def resign(self) -> None:
        self.holds = False


class Made:
    def __init__(self) -> None:
        self.now = 100.0
        self.fit = True
        self.server, self.holding = Server(), Holding()
        self.serving = SimpleNamespace(servers=("m1",), is_known=True)
        self.tree = SimpleNamespace(trouble="")
        counted = ProxyDHCPMetrics(CollectorRegistry())
        given: Any = (self.server, self.holding, self.serving, self.tree, counted)
        self.duty = ProxyDHCPKept(*given, fit=lambda: self.fit, now=lambda: self.now)

    async def answers(self) -> tuple[bool, bool]:
        await self.duty.beat()
        return self.server.holds, self.server.may_serve


async def test_a_fit_member_answers_on_both_ports_and_knows_whom_to_name() -> None:
    made = Made()
    assert await made.answers() == (True, True)
    assert made.server.servers == ("m1",)
    assert not made.duty.found().notes


async def test_who_drains_is_behind_or_knows_nobody_answers_on_neither() -> None:
    made = Made()
    unfit: tuple[tuple[Any, str, Any, Any], ...] = (
        (made, "fit", False, True),
        (made.tree, "trouble", "behind", ""),
        (made.serving, "is_known", False, True),
    )
    for of, what, bad, good in unfit:
        setattr(of, what, bad)
        assert await made.answers() == (False, False)
        setattr(of, what, good)
        assert await made.answers() == (True, True)


async def test_who_may_not_listen_leaves_it_to_others_says_why_and_tries_again() -> None:
    made = Made()
    made.server.may_listen = False
    for _ in range(10):
        assert await made.answers() == (False, False)
    assert made.server.tries == 1
    assert made.duty.found().notes == (
        "this member answers no ProxyDHCP: UDP port 67 cannot be listened on: it may not",
    )
    made.server.may_listen = True
    made.now += 5
    assert await made.answers() == (True, True)
    assert not made.duty.found().notes


async def test_who_has_none_of_the_interfaces_leaves_it_to_others() -> None:
    made = Made()
    made.server.interfaces = ("eth1", "eth2")
    made.server.absent = ("eth1",)
    assert await made.answers() == (True, True)
    made.server.absent = ("eth1", "eth2")
    assert await made.answers() == (False, False)
    assert "eth1, eth2: this host has no such interface" in made.duty.found().notes[0]


async def test_without_the_store_who_answered_goes_on_and_says_so() -> None:
    made = Made()
    assert await made.answers() == (True, True)
    made.holding.away = True
    assert await made.answers() == (True, True)
    assert made.duty.found().notes == ("ProxyDHCP goes on as it was, without the store: the store is away",)


async def test_at_its_end_a_member_gives_the_role_up() -> None:
    made = Made()
    await made.duty.beat()
    await made.duty.end()
    assert (made.server.holds, made.server.may_serve, made.holding.holds) == (False, False, False)


async def test_a_store_that_is_away_breaks_no_look_at_the_boot_servers() -> None:
    async def look() -> None:
        raise Unavailable("the store is away")

    duty: Any = BootServersKnown(SimpleNamespace(look=look))  # type: ignore[arg-type]
    await duty.beat()
