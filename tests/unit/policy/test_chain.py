from __future__ import annotations

import ipaddress
from typing import Protocol

import pytest

from muster.features.dns.contract import DNSProvider, Record, RecordType
from muster.features.dns.providers.memory import MemoryDNS
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Conflict, NotFound, Unavailable
from muster.kernel.names import FQDN
from muster.policy.chain import Call, chained
from muster.policy.marks import Operation, query
from muster.policy.retry import Retry, RetryBudget
from tests.unit.policy.shelf import Noted, Shelf, ToldShelf

RECORD = Record(FQDN.parse("a.example.com"), RecordType.A, ipaddress.IPv4Address("192.0.2.1"))
OTHER = Record(FQDN.parse("a.example.com"), RecordType.A, ipaddress.IPv4Address("192.0.2.2"))


def shelf(provider: ToldShelf, *policies: Noted) -> Shelf:
    return chained(Shelf, provider, policies)  # type: ignore[type-abstract]


async def test_the_first_policy_is_the_outermost() -> None:
    notes: list[str] = []
    assert await shelf(ToldShelf(), Noted("a", notes), Noted("b", notes)).lookup("x") == "ok"
    assert notes == ["a in Shelf.lookup", "b in Shelf.lookup", "b out", "a out"]


async def test_arguments_and_results_pass_through_unchanged() -> None:
    provider = ToldShelf(["five"])
    assert await shelf(provider, Noted("a", [])).lookup("x", default="y") == "five"
    await shelf(provider).add(name="z")
    assert provider.calls == [("lookup", "x", "y"), ("add", "z")]


async def test_an_error_leaves_the_chain_untouched() -> None:
    error = NotFound("there is no x")
    with pytest.raises(NotFound) as raised:
        await shelf(ToldShelf([error]), Noted("a", [])).lookup("x")
    assert raised.value is error


async def test_what_is_no_operation_is_the_providers_own() -> None:
    provider = ToldShelf()
    wrapped = shelf(provider, Noted("a", []))
    assert wrapped.colour == "red"  # type: ignore[attr-defined]
    assert "ToldShelf" in repr(wrapped)
    with pytest.raises(AttributeError):
        _ = wrapped.size  # type: ignore[attr-defined]


def test_a_contract_with_an_unmarked_coroutine_cannot_be_wrapped() -> None:
    class Forgetful(Protocol):
        @query
        async def lookup(self) -> None: ...

        async def add(self) -> None: ...

    with pytest.raises(TypeError, match=r"Forgetful\.add is marked neither"):
        chained(Forgetful, object(), ())


async def test_the_same_policies_serve_the_dns_contract() -> None:
    notes: list[str] = []
    provider = MemoryDNS()
    dns = chained(DNSProvider, provider, [Noted("a", notes)])  # type: ignore[type-abstract]
    await dns.add(RECORD)
    await dns.add(RECORD)
    with pytest.raises(Conflict):
        await dns.add(OTHER)
    assert await dns.lookup(RECORD.name, RecordType.A) == {RECORD.data}
    await dns.remove(RECORD.name, RecordType.A)
    with pytest.raises(NotFound):
        await dns.remove(RECORD.name, RecordType.A)
    assert [n for n in notes if " in " in n] == [
        *["a in DNSProvider.add"] * 3,
        "a in DNSProvider.lookup",
        *["a in DNSProvider.remove"] * 2,
    ]


async def test_a_change_of_the_dns_contract_is_repeated_because_its_mark_allows_it() -> None:
    clock = FakeClock()
    provider = MemoryDNS()
    provider.failure = Unavailable("the name server did not answer")
    recovering = _Recovering(provider)
    retry = Retry(clock=clock, budget=RetryBudget(clock=clock))
    dns = chained(DNSProvider, provider, [retry, recovering])  # type: ignore[type-abstract]
    await dns.add(RECORD)
    assert recovering.attempts == 2
    assert await provider.lookup(RECORD.name, RecordType.A) == {RECORD.data}


class _Recovering:
    """Lets the first attempt meet the failure, and none after it."""

    def __init__(self, provider: MemoryDNS) -> None:
        self._provider = provider
        self.attempts = 0

    async def __call__(self, operation: Operation, call: Call) -> object:
        self.attempts += 1
        try:
            return await call()
        finally:
            self._provider.failure = None
