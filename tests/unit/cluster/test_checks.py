"""What the doctor concludes from what services say of their disks; its other checks run in ``tests/contract``."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from muster.cluster.checks import checks, named, resting, short_of_room
from muster.cluster.file import ClusterFile
from muster.cluster.life import Life
from muster.cluster.service import FREE, TOTAL, Register, Told, merged, of_settings

GIB = 1 << 30
FIRST, SECOND = "proxy01.test", "proxy02.test"
AT = {FIRST: "192.0.2.1", SECOND: "192.0.2.2"}


def cluster(kind: str = "muster", **changes: Any) -> ClusterFile:
    content: dict[str, Any] = {
        "schema": 1,
        "cluster": "demo",
        "address": "cluster.test",
        "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [{"id": i, "name": n, "address": a, "kind": kind} for i, (n, a) in enumerate(AT.items(), 1)],
    }
    return ClusterFile.model_validate(content | changes)


def found(free_percent: int, *, age_s: float = 30.0, without: str = "") -> list[tuple[str, str, str]]:
    facts = {TOTAL: 1000 * GIB, FREE: free_percent * 10 * GIB}
    facts = {k: v for k, v in facts.items() if k != without}
    told = Told("proxy01.test", "asked by proxy01.test", {"pulp": {"facts": facts}})
    base = {"pulp": of_settings("pulp", "https://{member}")}
    register = Register(merged({}, base, [(told, 1000.0 - age_s)], 1000.0))
    return [(f.code, f.severity, f.sentence) for f in short_of_room(register)]


@pytest.mark.parametrize(("free", "severity"), [(9, "warning"), (3, "warning"), (2, "error"), (0, "error")])
def test_a_disk_that_is_nearly_full_is_said_with_its_member(free: int, severity: str) -> None:
    ((code, grave, sentence),) = found(free)
    assert (code, grave) == ("SERVICE-STORAGE", severity)
    assert sentence == f"The pulp of proxy01.test has {free * 10:.1f} of 1000.0 GiB left, {free} %"


def test_room_figures_that_are_old_or_absent_say_nothing() -> None:
    assert found(10) == []
    assert found(1, age_s=901) == []
    assert found(1, without=TOTAL) == []
    assert found(1, without=FREE) == []


# What stops while somebody is out.


def test_of_the_only_signer_that_is_out_it_is_said_what_that_stops() -> None:
    lives = {n: Life("maintenance", "put into maintenance by ada: a new disk") for n in AT}
    told = [f.sentence for f in resting(cluster(signer=SECOND), lives)]
    assert told == [
        f"{FIRST} is in maintenance, by ada: a new disk",
        f"{SECOND} is in maintenance, by ada: a new disk; no Puppet certificate can be signed until it is back",
    ]


# Reverse DNS.


async def of_names(
    of: ClusterFile, names: Callable[[str], frozenset[str]], **addresses: frozenset[str]
) -> list[tuple[str, str, str]]:
    known = {n: frozenset({a}) for n, a in AT.items()} | addresses

    async def resolve(name: str) -> frozenset[str]:
        if name not in known:
            raise OSError("no address")
        return known[name]

    async def reversed(address: str) -> frozenset[str]:
        return names(address)

    def no_store() -> Any:
        raise AssertionError

    here = {c.name: c for c in checks(of, no_store, resolve, reversed)}
    return [(f.code, f.place, f.sentence) for f in await here["member names"].run()]


def rightly(address: str) -> frozenset[str]:
    return frozenset(n for n, a in AT.items() if a == address)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["muster", "foreman"])
async def test_names_that_lead_there_and_back_are_no_finding(kind: str) -> None:
    assert await of_names(cluster(kind), rightly) == []
    assert await of_names(cluster(kind), lambda a: frozenset({"short", f"{next(iter(rightly(a)))}."})) == []


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["muster", "foreman"])
async def test_an_address_that_has_another_name_is_said_with_it(kind: str) -> None:
    found = await of_names(cluster(kind), lambda a: frozenset({"old.test"}) if a == AT[SECOND] else rightly(a))
    assert found == [("MEMBER-REVERSE", SECOND, f"The address {AT[SECOND]} of {SECOND} is old.test in reverse DNS")]


@pytest.mark.anyio
async def test_a_name_with_capital_letters_is_another_one_for_who_compares_letters() -> None:
    ((code, _, sentence), *_) = await of_names(cluster(), lambda a: frozenset(n.upper() for n in rightly(a)))
    assert (code, sentence) == (
        "MEMBER-REVERSE",
        f"The address {AT[FIRST]} of {FIRST} is PROXY01.TEST in reverse DNS, not in lower case",
    )


def nothing(address: str) -> frozenset[str]:
    raise LookupError(address)


def nobody(address: str) -> frozenset[str]:
    raise OSError(address)


@pytest.mark.anyio
async def test_an_address_without_a_name_matters_to_ruby_members_alone() -> None:
    assert [c for c, *_ in await of_names(cluster("foreman"), nothing)] == ["MEMBER-REVERSE"] * 2
    assert await of_names(cluster("muster"), nothing) == []


@pytest.mark.anyio
async def test_where_dns_does_not_answer_nothing_is_said_of_names_a_second_time() -> None:
    assert await of_names(cluster("foreman"), nobody) == []
    found = await of_names(cluster("foreman"), nothing, **{SECOND: frozenset({"192.0.2.99"})})
    assert [(c, p) for c, p, _ in found] == [("MEMBER-REVERSE", FIRST), ("MEMBER-ELSEWHERE", SECOND)]


@pytest.mark.anyio
async def test_a_member_that_is_reached_by_its_name_is_asked_back_by_what_that_resolves_to() -> None:
    members = [{"id": 1, "name": FIRST, "address": FIRST}]
    found = await of_names(cluster(members=members), lambda _: frozenset({"old.test"}))
    assert [p for _, p, _ in found] == [FIRST]


@pytest.mark.anyio
@pytest.mark.parametrize(("number", "raised"), [(1, LookupError), (4, LookupError), (2, OSError), (3, OSError)])
async def test_no_name_and_no_answer_are_told_apart(
    number: int, raised: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_address: str) -> None:
        raise socket.herror(number, "said so")

    monkeypatch.setattr(socket, "gethostbyaddr", fails)
    with pytest.raises(raised):
        await named("192.0.2.1")
