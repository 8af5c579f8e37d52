"""What every IPAM provider promises (``features/externalipam/contract.py``), and what the service makes of it.

``claims`` on both stores, ``smart_proxy`` on a real member; of NetBox and phpIPAM there are stand-ins alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.edge.another_proxy import SmartProxySettings
from muster.edge.feature import Surroundings
from muster.features.externalipam import checks
from muster.features.externalipam.contract import IPAMProvider, Subnet
from muster.features.externalipam.promises import Promises
from muster.features.externalipam.providers import netbox, phpipam, smart_proxy
from muster.features.externalipam.providers.claims import ClaimedIPAM
from muster.features.externalipam.providers.memory import MemoryIPAM
from muster.features.externalipam.service import ExternalIPAM
from muster.features.externalipam.settings import (
    ExternalIPAMSettings,
    KeptSettings,
    NetBoxSettings,
    PhpIPAMSettings,
)
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.names import FQDN, MACAddress
from muster.kernel.secrets import Secret
from muster.policy.metered import OperationMetrics
from muster.store.engine import Store
from muster.store.engine import opened as store_opened
from muster.store.writing import Change
from tests.servers import ipam_stand_ins, member
from tests.servers.ipam_stand_ins import PASSWORD, TOKEN, USER, NetBox, PhpIPAM
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio

CALLER = "proxy00.example.com"
PROVIDERS = ("claims", "memory", "netbox", "phpipam", "smart_proxy")
NET4 = ip_network("192.0.2.0/29")
NET6 = ip_network("2001:db8::/124")
LAB = "Lab & Büro+1"
KEPT: dict[str, Any] = {
    "subnets": [
        {"network": str(NET4), "description": "first"},
        {"network": str(NET6)},
        {"network": "198.51.100.0/29", "group": LAB},
        {"network": "203.0.113.0/29", "group": LAB},
        {"network": "203.0.113.0/29", "group": "other"},
    ]
}
# Small on its way, and hundreds of MiB once it is read.
MANY = b'{"count":1,"success":true,"results":[' + b"[]," * 1_000_000 + b"[]]}"
MAC = MACAddress.parse("52:54:00:aa:00:01")


@dataclass
class Subject:
    """A provider under test. ``stop`` and ``start`` take the IPAM away and bring it back."""

    name: str
    provider: IPAMProvider
    stop: Callable[[], object]
    start: Callable[[], object]

    async def subnet(self, network: str = str(NET4), group: str = "") -> Subnet:
        return await self.provider.subnet(ip_network(network), group)


@pytest.fixture(scope="module")
def other_member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with member.running(
        tmp_path_factory.mktemp("member"),
        features={"externalipam": {"provider": "memory", "memory": KEPT}},
        foreman={"trusted_hosts": [TRUSTED, CALLER]},
    ) as running:
        yield running


@pytest.fixture
def nb() -> Iterator[NetBox]:
    api = NetBox()
    with ipam_stand_ins.serving(api):
        lab, other = api.add_vrf(LAB, "for tests"), api.add_vrf("other")
        api.add_prefix(str(NET4), description="first")
        api.add_prefix(str(NET6))
        api.add_prefix("198.51.100.0/29", lab)
        api.add_prefix("203.0.113.0/29", lab)
        api.add_prefix("203.0.113.0/29", other)
        api.add_prefix("10.0.0.0/24", status="deprecated")
        yield api


@pytest.fixture
def php() -> Iterator[PhpIPAM]:
    api = PhpIPAM()
    with ipam_stand_ins.serving(api):
        plain, lab, other = (api.add_section(name) for name in ("Customers", LAB, "other"))
        api.add_subnet(str(NET4), plain, description="first")
        api.add_subnet(str(NET6), plain)
        api.add_subnet("198.51.100.0/29", lab)
        api.add_subnet("203.0.113.0/29", lab)
        api.add_subnet("203.0.113.0/29", other)
        api.add_subnet("0.0.0.0/0", lab, isFolder="1")
        yield api


@pytest.fixture
async def ours(tmp_path: Path) -> AsyncIterator[Store]:
    async with store_opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        yield store


@pytest.fixture(params=PROVIDERS)
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    opening = {
        "claims": _claims, "memory": _memory, "netbox": _netbox, "phpipam": _phpipam, "smart_proxy": _smart_proxy,
    }  # fmt: skip
    async with opening[request.param](request) as found:
        yield found


@contextlib.asynccontextmanager
async def _claims(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    server: PostgreSQL = request.getfixturevalue("postgresql_server")
    url = server.fresh_store()
    async with store_opened(Secret(url), connect_timeout_s=1, statement_timeout_s=2) as store:
        await store.prepare()
        provider = ClaimedIPAM(store, KeptSettings.model_validate(KEPT))
        yield Subject("claims", provider, server.stop, server.start)


@contextlib.asynccontextmanager
async def _memory(_: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    provider = MemoryIPAM(KeptSettings.model_validate(KEPT))

    def stop() -> None:
        provider.failure = Unavailable("memory was told to fail")

    def start() -> None:
        provider.failure = None

    yield Subject("memory", provider, stop, start)


def _breakable(api: NetBox | PhpIPAM) -> tuple[Callable[[], object], Callable[[], object]]:
    return lambda: setattr(api, "broken", (503, b"{}")), lambda: setattr(api, "broken", None)


@contextlib.asynccontextmanager
async def _netbox(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    api: NetBox = request.getfixturevalue("nb")
    async with netbox.opened(of_netbox(api)) as provider:
        yield Subject("netbox", provider, *_breakable(api))


@contextlib.asynccontextmanager
async def _phpipam(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    api: PhpIPAM = request.getfixturevalue("php")
    async with phpipam.opened(of_phpipam(api)) as provider:
        yield Subject("phpipam", provider, *_breakable(api))


@contextlib.asynccontextmanager
async def _smart_proxy(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    other: Member = request.getfixturevalue("other_member")
    mine = other.other_member(CALLER)
    around = Surroundings(CALLER, OperationMetrics(CollectorRegistry()), mine.certificate, mine.key, mine.ca)
    url = f"https://{other.https.address}:{other.https.port}"
    settings = SmartProxySettings(url=url, server_name=FQDN.parse(CLUSTER_ADDRESS), timeout_s=5)
    async with smart_proxy.opened(settings, around) as provider:
        yield Subject("smart_proxy", provider, other.stop, other.start)


def of_netbox(api: NetBox, **change: Any) -> NetBoxSettings:
    return NetBoxSettings.model_validate({"url": api.url, "token": TOKEN, "timeout_s": 3, **change})


def of_phpipam(api: PhpIPAM, **change: Any) -> PhpIPAMSettings:
    given = {"url": api.url, "user": USER, "password": PASSWORD, "timeout_s": 3, **change}
    return PhpIPAMSettings.model_validate(given)


async def test_groups_and_subnets_are_told(subject: Subject) -> None:
    names = [g.name for g in await subject.provider.groups()]
    assert [n for n in names if n != "Customers"] == [LAB, "other"]
    found = await subject.provider.subnets(LAB)
    assert [str(s.network) for s in found] == ["198.51.100.0/29", "203.0.113.0/29"]
    one = await subject.subnet()
    assert (one.network, one.description) == (NET4, "first")
    assert (await subject.subnet("203.0.113.0/29", "other")).network == ip_network("203.0.113.0/29")
    for network, group in ((str(NET4), LAB), (str(NET4), "nobody"), ("10.0.0.0/24", "")):
        with pytest.raises(NotFound):
            await subject.subnet(network, group)
    with pytest.raises(NotFound):
        await subject.provider.subnets("nobody")
    # Whose it is nobody said.
    with pytest.raises(Rejected):
        await subject.subnet("203.0.113.0/29")


@pytest.mark.parametrize(("network", "ip"), [(str(NET4), "192.0.2.4"), (str(NET6), "2001:db8::4")])
async def test_an_address_is_added_found_and_removed(subject: Subject, network: str, ip: str) -> None:
    subnet, address = await subject.subnet(network), ip_address(ip)
    assert not await subject.provider.holds(subnet, address)
    await subject.provider.add(subnet, address, MAC)
    assert await subject.provider.holds(subnet, address)
    # The same number is another address in another group, and so is its neighbour.
    assert not await subject.provider.holds(subnet, address + 1)
    await subject.provider.remove(subnet, address)
    assert not await subject.provider.holds(subnet, address)
    with pytest.raises(NotFound):
        await subject.provider.remove(subnet, address)


async def test_addresses_of_two_groups_are_two(subject: Subject) -> None:
    lab, other = [await subject.subnet("203.0.113.0/29", group) for group in (LAB, "other")]
    ip = ip_address("203.0.113.2")
    await subject.provider.add(lab, ip, None)
    assert (await subject.provider.holds(lab, ip), await subject.provider.holds(other, ip)) == (True, False)
    await subject.provider.remove(lab, ip)


async def test_the_lowest_free_addresses_are_told_without_those_that_are_promised(subject: Subject) -> None:
    subnet = await subject.subnet()
    used, promised = ip_address("192.0.2.1"), ip_address("192.0.2.3")
    if subject.name == "smart_proxy":
        with pytest.raises(Unsupported):
            await subject.provider.free(subnet, (), 2)
        one = await subject.provider.offered(subnet, MAC)
        assert one == await subject.provider.offered(subnet, MAC) != await subject.provider.offered(subnet, None)
        return
    await subject.provider.add(subnet, used, None)
    assert [str(ip) for ip in await subject.provider.free(subnet, {promised}, 2)] == ["192.0.2.2", "192.0.2.4"]
    everything = {ip_address(f"192.0.2.{n}") for n in range(2, 7)}
    assert await subject.provider.free(subnet, everything, 2) == []
    # The first of an IPv6 network is its routers'.
    found = await subject.provider.free(await subject.subnet(str(NET6)), (), 100)
    assert (str(found[0]), str(found[-1]), len(found)) == ("2001:db8::1", "2001:db8::f", 15)
    with pytest.raises(Unsupported):
        await subject.provider.offered(subnet, None)


async def test_while_the_ipam_is_away_everything_is_unavailable_and_then_it_is_there_again(subject: Subject) -> None:
    subnet, ip = await subject.subnet(), ip_address("192.0.2.6")
    subject.stop()
    try:
        for call in (
            subject.provider.reached(),
            subject.provider.holds(subnet, ip),
            subject.provider.add(subnet, ip, None),
            subject.provider.remove(subnet, ip),
        ):
            with pytest.raises(Unavailable):
                await call
    finally:
        subject.start()
    await subject.provider.reached()
    assert not await subject.provider.holds(subnet, ip)


# --- NetBox and phpIPAM: what their settings can have wrong, and answers that are none


async def test_a_wrong_secret_is_our_fault_and_stands_in_no_sentence(nb: NetBox, php: PhpIPAM, tmp_path: Path) -> None:
    wrong = "very-secret-and-wrong"
    async with netbox.opened(of_netbox(nb, token=wrong)) as provider:
        with pytest.raises(Misconfigured) as caught:
            await provider.reached()
        assert wrong not in str(caught.value)
        assert wrong not in repr(of_netbox(nb, token=wrong))
    async with phpipam.opened(of_phpipam(php, password=wrong)) as other:
        with pytest.raises(Misconfigured) as caught:
            await other.reached()
        assert "Invalid username or password" in str(caught.value)
        assert wrong not in str(caught.value)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    async with netbox.opened(of_netbox(nb, token=None, token_file=tmp_path / "token")) as provider:
        await provider.reached()
    nb.authorization = "Bearer nbt_key.secret"
    async with netbox.opened(of_netbox(nb, token="nbt_key.secret")) as provider:
        await provider.reached()


@pytest.mark.parametrize(
    "broken", [(302, b""), (200, b"<html>"), (200, b"[1]"), (500, b"{}"), (200, b"[" * 5000), (200, MANY)]
)
async def test_what_is_no_answer_is_unavailable_and_nobody_is_followed_elsewhere(
    nb: NetBox, php: PhpIPAM, broken: tuple[int, bytes]
) -> None:
    async with netbox.opened(of_netbox(nb)) as one, phpipam.opened(of_phpipam(php)) as other:
        await other.reached()
        nb.broken = php.broken = broken
        for provider in (one, other):
            with pytest.raises(Unavailable):
                await provider.reached()


async def test_a_token_that_has_ended_is_fetched_anew_once_for_all(php: PhpIPAM) -> None:
    async with phpipam.opened(of_phpipam(php)) as provider:
        await asyncio.gather(*(provider.reached() for _ in range(5)))
        assert php.logins == 1
        php.token = ".another"
        await asyncio.gather(*(provider.reached() for _ in range(5)))
        assert php.logins == 2


async def test_a_netbox_that_minds_duplicates_says_conflict(nb: NetBox) -> None:
    nb.minds_duplicates = True
    async with netbox.opened(of_netbox(nb)) as provider:
        subnet = await provider.subnet(NET4, "")
        await provider.add(subnet, ip_address("192.0.2.2"), None)
        with pytest.raises(Conflict):
            await provider.add(subnet, ip_address("192.0.2.2"), None)
        nb.minds_duplicates = False
        await provider.add(subnet, ip_address("192.0.2.2"), None)
        await provider.remove(subnet, ip_address("192.0.2.2"))
        assert nb.addresses == []
        nb.add_vrf(LAB)
        with pytest.raises(Rejected, match="2 VRFs"):
            await provider.subnets(LAB)


async def test_promises_that_fill_all_netbox_tells_at_once_are_no_lack_of_addresses(nb: NetBox) -> None:
    nb.add_prefix("10.1.0.0/20")
    async with netbox.opened(of_netbox(nb)) as provider:
        subnet = await provider.subnet(ip_network("10.1.0.0/20"), "")
        promised = {ip_address("10.1.0.0") + n for n in range(1, 1001)}
        with pytest.raises(Unavailable, match="all promised"):
            await provider.free(subnet, promised, 16)


async def test_the_doctor_says_what_is_wrong(nb: NetBox, php: PhpIPAM, ours: Store, tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def store() -> AsyncIterator[Store]:
        yield ours

    async def found(**given: Any) -> dict[str, str]:
        settings = ExternalIPAMSettings.model_validate(given)
        (check,) = checks.checks(settings, lambda: None, store)
        return {f.code: f.sentence for f in await check.run()}

    of = {"url": nb.url, "token": TOKEN}
    assert list(await found(provider="netbox", netbox=of)) == ["IPAM-UNPROVEN"]
    assert "refused" in (await found(provider="netbox", netbox={**of, "token": "x"}))["IPAM-KEY"]
    assert "Reading the CA" in (await found(provider="netbox", netbox={**of, "ca": str(tmp_path / "no")}))["IPAM-KEY"]
    away = {"url": "https://127.0.0.1:1", "user": USER, "password": PASSWORD}
    assert list(await found(provider="phpipam", phpipam=away)) == ["IPAM-UNPROVEN", "IPAM-DOWN"]
    assert list(await found(provider="phpipam", phpipam={**away, "url": php.url})) == ["IPAM-UNPROVEN"]
    assert list(await found(provider="claims")) == ["IPAM-NO-SUBNET"]
    assert await found(provider="memory") == {}
    kept = {"subnets": [{"network": str(NET4), "first": "192.0.2.5"}, {"network": "198.51.100.0/29", "group": LAB}]}
    ipam = ClaimedIPAM(ours, KeptSettings.model_validate(kept))
    assert await found(provider="claims", claims=kept) == {}
    for ip in ("192.0.2.5", "192.0.2.6"):
        await ipam.add(await ipam.subnet(NET4, ""), ip_address(ip), None)
    await ipam.add(await ipam.subnet(ip_network("198.51.100.0/29"), LAB), ip_address("198.51.100.1"), None)
    told = await found(provider="claims", claims={"subnets": kept["subnets"][:1]})
    assert told["IPAM-NEARLY-FULL"].startswith("2 of the 2 addresses")
    assert told["IPAM-NO-HOME"].startswith("1 address in use in 198.51.100.0/29 of group Lab")


# --- the service: what is promised to whom


def service(store: Store, provider: IPAMProvider, word: str = "claims", held_s: float = 600) -> ExternalIPAM:
    return ExternalIPAM(provider, word, Promises(store, held_s=held_s))


AT = ("192.0.2.0", "29")


async def test_two_hosts_are_never_told_of_one_address_and_one_host_of_its_own_again(store: Store) -> None:
    ipam = service(store, ClaimedIPAM(store, KeptSettings.model_validate(KEPT)))
    first = await ipam.next_ip(*AT, None, MAC)
    assert str(first) == "192.0.2.1"
    assert await ipam.next_ip(*AT, "", MAC.upper()) == first
    others = [str(await ipam.next_ip(*AT, None, mac)) for mac in (None, "", "52-54-00-aa-00-02")]
    assert others == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]
    assert [str(await ipam.next_ip(*AT, None, None)) for _ in range(2)] == ["192.0.2.5", "192.0.2.6"]
    assert await ipam.next_ip(*AT, None, None) is None
    # What is promised is not in use yet: Foreman asks before it adds.
    assert not await ipam.holds(*AT, "192.0.2.1", None)
    await ipam.add(*AT, "192.0.2.1", None)
    assert await ipam.holds(*AT, "192.0.2.1", None)
    # It is a host's now, so another one of the same hardware address gets another.
    assert await ipam.next_ip(*AT, None, MAC) is None
    with pytest.raises(Conflict):
        await ipam.add(*AT, "192.0.2.1", None)
    await ipam.remove(*AT, "192.0.2.1", None)
    await ipam.remove(*AT, "192.0.2.1", None)
    assert str(await ipam.next_ip(*AT, None, None)) == "192.0.2.1"


async def test_a_promise_ends_and_the_lowest_address_is_offered_again(store: Store) -> None:
    ipam = service(store, MemoryIPAM(KeptSettings.model_validate(KEPT)), held_s=0.0)
    assert [str(await ipam.next_ip(*AT, None, None)) for _ in range(3)] == ["192.0.2.1"] * 3


async def test_what_was_added_is_not_promised_whatever_the_ipam_said_before(store: Store) -> None:
    class Late(MemoryIPAM):
        """Tells what was free before the change, as an answer that took its time."""

        async def free(self, *arguments: Any) -> Any:
            told = await super().free(*arguments)
            if not told:
                return []
            await service(store, self).add(*AT, str(told[0]), None)
            return told[:1]

    provider = Late(KeptSettings.model_validate({"subnets": [{"network": str(NET4), "last": "192.0.2.3"}]}))
    ipam = service(store, provider)
    assert await ipam.next_ip(*AT, None, None) is None
    assert {str(ip) for _, ip in provider.held} == {"192.0.2.1", "192.0.2.2", "192.0.2.3"}


async def test_of_two_who_add_one_address_at_once_one_is_refused_though_the_ipam_minds_nothing(
    store: Store, nb: NetBox
) -> None:
    nb.slow_s = 0.02
    async with netbox.opened(of_netbox(nb)) as one, netbox.opened(of_netbox(nb)) as other:
        calls = [service(store, p, "netbox").add(*AT, "192.0.2.2", None) for p in (one, other, one)]
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(r) for r in results].count(Conflict) == 2
    assert len(nb.addresses) == 1


async def test_what_was_perhaps_added_is_promised_to_nobody_and_may_be_added_again(store: Store) -> None:
    class Lost(MemoryIPAM):
        async def add(self, *arguments: Any) -> None:
            raise Unavailable("no answer; whether it is in use is unknown")

    kept = KeptSettings.model_validate(KEPT)
    with pytest.raises(Unavailable):
        await service(store, Lost(kept)).add(*AT, "192.0.2.1", None)
    ipam = service(store, MemoryIPAM(kept))
    assert str(await ipam.next_ip(*AT, None, None)) == "192.0.2.2"
    await ipam.add(*AT, "192.0.2.1", None)


async def test_what_the_ipam_refuses_stays_promised_to_whom_it_was(store: Store) -> None:
    class Refusing(MemoryIPAM):
        async def add(self, *arguments: Any) -> None:
            raise Rejected("not that one")

    ipam = service(store, Refusing(KeptSettings.model_validate(KEPT)))
    first = await ipam.next_ip(*AT, None, MAC)
    with pytest.raises(Rejected):
        await ipam.add(*AT, str(first), None)
    assert str(await ipam.next_ip(*AT, None, None)) == "192.0.2.2"
    assert await ipam.next_ip(*AT, None, MAC) == first


async def test_another_proxys_offer_is_promised_here_too(store: Store) -> None:
    class Forgetful(MemoryIPAM):
        """Promises what it promised before, as one that was restarted."""

        offers = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "198.51.100.1"]

        async def offered(self, subnet: Subnet, mac: MACAddress | None) -> Any:
            return ip_address(self.offers.pop(0))

    ipam = service(store, Forgetful(KeptSettings.model_validate(KEPT)))
    assert [str(await ipam.next_ip(*AT, None, None)) for _ in range(2)] == ["192.0.2.1", "192.0.2.2"]
    with pytest.raises(Unavailable, match=r"no address of 192\.0\.2\.0/29"):
        await ipam.next_ip(*AT, None, None)


async def test_another_proxy_that_offers_ever_more_of_what_is_promised_here_is_not_asked_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.features.externalipam.service.FOUND_WITHIN_S", 0.2)
    promises = Promises(store, held_s=600)

    class Endless(MemoryIPAM):
        asked = 0

        async def offered(self, subnet: Subnet, mac: MACAddress | None) -> Any:
            self.asked += 1
            found = subnet.address(int(subnet.network.network_address) + self.asked)
            await promises.promise("smart_proxy/", subnet, [found], "")
            return found

    kept = KeptSettings.model_validate({"subnets": [{"network": "2001:db8::/64"}]})
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="took longer than"):
            await service(store, Endless(kept), "smart_proxy").next_ip("2001:db8::", "64", None, None)


async def set_back(store: Store, seconds: float) -> None:
    """Let all that stands there be from before the store's clock was set back by so much."""
    later = "UPDATE ipam_promises SET until = until + :s, held_until = held_until + (CASE holder WHEN '' THEN 0 ELSE :s END)"
    async with store.write() as uow:
        await uow.changed(Change(later), {"s": seconds})


async def test_what_is_promised_counts_when_the_stores_clock_goes_back_a_little_and_not_for_ever(store: Store) -> None:
    kept = KeptSettings.model_validate(KEPT)
    ipam, promises = service(store, MemoryIPAM(kept)), Promises(store, held_s=600)
    subnet = await ipam.subnet(*AT, None)
    assert [str(await ipam.next_ip(*AT, None, m)) for m in (MAC, None)] == ["192.0.2.1", "192.0.2.2"]
    await ipam.add(*AT, "192.0.2.2", None)
    await ipam.remove(*AT, "192.0.2.2", None)
    await ipam.add(*AT, "192.0.2.3", None)
    # Another member that has not heard of any of it, and a standby's clock that lags behind.
    forgetful = service(store, MemoryIPAM(kept))
    async with promises.changing("claims/", subnet, ip_address("192.0.2.4")):
        await set_back(store, 5)
        assert str(await forgetful.next_ip(*AT, None, None)) == "192.0.2.2"
        assert str(await forgetful.next_ip(*AT, None, None)) == "192.0.2.5"
        await set_back(store, 3 * 24 * 3600)
        assert [str(await forgetful.next_ip(*AT, None, None)) for _ in range(6)] == [
            f"192.0.2.{n}" for n in range(1, 7)
        ]


async def test_two_do_not_change_one_address_when_the_stores_clock_goes_back_a_little(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.features.externalipam.promises._WAITED_S", 0.1)
    promises, ip = Promises(store, held_s=600), ip_address("192.0.2.1")
    async with promises.changing("claims/", Subnet(NET4, ""), ip):
        await set_back(store, 5)
        with pytest.raises(Unavailable, match="another call changes the same address"):
            async with promises.changing("claims/", Subnet(NET4, ""), ip):
                pytest.fail("two change it at once")
        await set_back(store, 3600)
        async with promises.changing("claims/", Subnet(NET4, ""), ip):
            pass


async def test_promises_that_have_ended_are_dropped(store: Store) -> None:
    from muster.store.reading import Query

    promises, subnet = Promises(store, held_s=-120), Subnet(NET4, "")
    assert await promises.promise("claims/", subnet, [ip_address("192.0.2.1")], "")
    await promises.forget()
    async with store.read() as uow:
        assert await uow.rows(Query("SELECT address FROM ipam_promises")) == []


# --- a member: what Foreman hears


async def test_foreman_is_answered_as_the_plugin_answers(other_member: Member) -> None:
    def ask(method: str, path: str) -> tuple[int, str]:
        answer = other_member.ask(method, path)
        return answer.status, answer.text

    assert ask("GET", "/ipam/groups") == (
        200, f'[{{"name":"{LAB}","description":""}},{{"name":"other","description":""}}]',
    )  # fmt: skip
    # As Foreman writes a group into a path, and into a query.
    there = "Lab+%26+B%C3%BCro%2B1"
    assert ask("GET", f"/ipam/groups/{there}") == (200, f'{{"name":"{LAB}","description":""}}')
    told = (
        '[{"id":"198.51.100.0/29","subnet":"198.51.100.0","mask":"29","description":""},'
        '{"id":"203.0.113.0/29","subnet":"203.0.113.0","mask":"29","description":""}]'
    )
    assert ask("GET", f"/ipam/groups/{there}/subnets") == (200, told)
    assert ask("GET", "/ipam/groups/nobody") == (404, '{"error":"The IPAM has no group nobody"}')
    assert ask("GET", f"/ipam/subnet/198.51.100.0/29?group={there}")[0] == 200
    assert ask("GET", "/ipam/subnet/198.51.100.8/29")[0] == 404
    net6 = "/ipam/subnet/2001:db8::/124"
    assert ask("GET", f"{net6}/next_ip?mac={MAC}&group=") == (200, '{"data":"2001:db8::1"}')
    assert ask("GET", f"{net6}/2001:db8::1?group=") == (200, "false")
    assert ask("POST", f"{net6}/2001:db8::1?group=") == (201, "")
    assert ask("GET", f"{net6}/2001:db8::1?group=") == (200, "true")
    assert ask("POST", f"{net6}/2001:db8::1?group=")[0] == 409
    assert ask("DELETE", f"{net6}/2001:db8::1?group=") == (204, "")
    assert ask("DELETE", f"{net6}/2001:db8::1?group=") == (204, "")
    for path in (
        "192.0.2.1/29", "192.0.2.0/33", "192.0.2.0/029", "192.0.2.0/29%0A", "x/29", "fe80::%25eth0/64",
        "192.0.2.0/29/next_ip?mac=zz", "192.0.2.0/29/192.0.2.9", "192.0.2.0/29/next_ip?group[a]=b",
        "192.0.2.0/29?group=%0Aa",
    ):  # fmt: skip
        status, text = ask("GET", f"/ipam/subnet/{path}")
        assert (status, text.startswith('{"error":"')) == (400, True), (path, status, text)
    features = json.loads(ask("GET", "/v2/features")[1])["externalipam"]
    assert (features["state"], features["settings"]) == ("running", {"use_provider": "externalipam_memory"})
