"""The balancers' addresses while names come and go; the resolver is a fake."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from muster.app import resolution
from muster.app.resolution import Resolved

pytestmark = pytest.mark.anyio


class Resolver:
    """Answers from a table; a name that is not in it does not resolve, ``hangs`` never answers."""

    def __init__(self) -> None:
        self.known: dict[str, list[str]] = {}
        self.asked: list[str] = []

    async def getaddrinfo(self, name: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.asked.append(name)
        if name == "hangs.test":
            await asyncio.sleep(60)
        if name not in self.known:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, 0)) for a in self.known[name]]


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    found = Resolver()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found.getaddrinfo)
    return found


async def test_a_name_that_no_longer_resolves_keeps_its_addresses(resolver: Resolver) -> None:
    resolver.known = {"lb1.test": ["192.0.2.1", "192.0.2.2"], "lb2.test": ["192.0.2.3"]}
    balancers = Resolved(["lb1.test", "lb2.test", "lb1.test"])
    await balancers.refresh()
    assert (balancers.is_complete, set(balancers.addresses)) == (True, {"192.0.2.1", "192.0.2.2", "192.0.2.3"})
    assert sorted(resolver.asked) == ["lb1.test", "lb2.test"]
    del resolver.known["lb1.test"]
    resolver.known["lb2.test"] = ["192.0.2.4"]
    await balancers.refresh()
    assert (balancers.is_complete, set(balancers.addresses)) == (False, {"192.0.2.1", "192.0.2.2", "192.0.2.4"})
    resolver.known["lb1.test"] = ["192.0.2.9"]
    await balancers.refresh()
    assert (balancers.is_complete, set(balancers.addresses)) == (True, {"192.0.2.9", "192.0.2.4"})


async def test_an_address_needs_no_resolver(resolver: Resolver) -> None:
    balancers = Resolved(["192.0.2.1", "2001:db8::1"])
    await balancers.refresh()
    assert (balancers.is_complete, set(balancers.addresses), resolver.asked) == (True, {"192.0.2.1", "2001:db8::1"}, [])


async def test_a_resolver_that_is_silent_holds_nobody_up(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolution, "_TIMEOUT_S", 0.05)
    resolver.known = {"lb1.test": ["192.0.2.1"]}
    balancers = Resolved(["hangs.test", "lb1.test"])
    await balancers.refresh()
    assert (balancers.is_complete, set(balancers.addresses)) == (False, {"192.0.2.1"})
