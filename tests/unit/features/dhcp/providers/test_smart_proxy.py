"""What another proxy may answer, and what is made of it; one that is real is asked in ``tests/contract/test_dhcp.py``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import pytest

from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.providers.smart_proxy import SmartProxyDHCP
from muster.foreman.answers import Answer
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Unavailable, Unsupported
from muster.kernel.names import MACAddress

pytestmark = pytest.mark.anyio

SUBNET = Subnet(IPv4Network("192.0.2.0/24"))
MAC = MACAddress.parse("52:54:00:aa:00:01")
ONE = Reservation("h1", IPv4Address("192.0.2.5"), MAC, SUBNET, {"hostname": "h1", "ztp_firmware": {"core": "a"}})
AT, OF, IN = f"GET /dhcp/192.0.2.0/ip/{ONE.ip}", f"GET /dhcp/192.0.2.0/mac/{MAC}", "POST /dhcp/192.0.2.0"
FIRST, LAST = IPv4Address("192.0.2.10"), IPv4Address("192.0.2.20")
UNUSED = f"GET /dhcp/192.0.2.0/unused_ip?from={FIRST}&to={LAST}"


class Other:
    """Another proxy that says what it is told to."""

    url = "https://other.test:9090"

    def __init__(self, said: Mapping[str, tuple[int, Any]]) -> None:
        self.said, self.asked, self.forms = said, list[str](), list[Any]()

    async def ask(self, method: str, path: str, form: Any = None) -> Answer:
        self.asked.append(f"{method} {path}")
        self.forms.append(form)
        status, body = self.said.get(f"{method} {path}", (404, "No DHCP record for MAC x found"))
        return Answer(status, body if isinstance(body, str) else json.dumps(body))


def provider(said: Mapping[str, tuple[int, Any]]) -> tuple[SmartProxyDHCP, Other]:
    other = Other(said)
    return SmartProxyDHCP(cast(SmartProxy, other)), other


@pytest.mark.parametrize(
    "ip", [5, True, "", "x", "10.9.9.9", "192.0.2.0", "192.0.2.9", "192.0.2.21", ["192.0.2.11"], {"ip": "192.0.2.11"}]
)
async def test_an_offer_that_was_not_asked_for_is_none(ip: Any) -> None:
    with pytest.raises(Unavailable, match=r"is no address between 192\.0\.2\.10 and 192\.0\.2\.20"):
        await provider({UNUSED: (200, {"ip": ip})})[0].offered(SUBNET, FIRST, LAST)


async def test_an_offer_is_an_address_or_none() -> None:
    assert await provider({UNUSED: (200, {"ip": "192.0.2.11"})})[0].offered(SUBNET, FIRST, LAST) == FIRST + 1
    assert await provider({UNUSED: (200, {"ip": None})})[0].offered(SUBNET, FIRST, LAST) is None
    with pytest.raises(Unsupported):
        await provider({UNUSED: (501, "not implemented")})[0].offered(SUBNET, FIRST, LAST)


@pytest.mark.parametrize("change", [{"mac": "52:54:00:aa:00:02"}, {"ip": "198.51.100.1"}])
async def test_a_record_of_something_else_is_no_answer(change: dict[str, str]) -> None:
    told = shapes.of_record(ONE) | change
    asking, _ = provider({OF: (200, told), AT: (200, [shapes.of_record(ONE) | {"ip": "192.0.2.6"}])})
    with pytest.raises(Unavailable, match="is about another"):
        await asking.of(SUBNET, MAC)
    with pytest.raises(Unavailable, match="is about another address"):
        await asking.at(SUBNET, ONE.ip)


async def test_only_the_protocol_s_own_404_is_an_absence() -> None:
    for words in ("No DHCP records for IP 192.0.2.0/192.0.2.5 found", "Subnet 192.0.2.0 could not found"):
        asking, _ = provider({OF: (404, words), AT: (404, words)})
        assert await asking.of(SUBNET, MAC) is None
        assert await asking.at(SUBNET, ONE.ip) == ()
    for words in ("Requested url was not found", "<html>404 Not Found</html>", ""):
        asking, _ = provider({OF: (404, words), AT: (404, words), IN: (404, words)})
        for call in (asking.of(SUBNET, MAC), asking.at(SUBNET, ONE.ip), asking.add(ONE), asking.remove(ONE)):
            with pytest.raises(Unavailable, match="does not serve the feature dhcp"):
                await call


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, Unavailable),
        (307, Unavailable),
        (401, Misconfigured),
        (403, Misconfigured),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
async def test_refusals_are_what_they_mean(status: int, kind: type[MusterError]) -> None:
    every = dict.fromkeys((OF, AT, IN, UNUSED, "GET /dhcp", "GET /dhcp/192.0.2.0"), (status, "no"))
    asking, _ = provider(every)
    calls: list[Callable[[], Any]] = [
        asking.reached, asking.subnets, lambda: asking.records(SUBNET), lambda: asking.of(SUBNET, MAC),
        lambda: asking.at(SUBNET, ONE.ip), lambda: asking.offered(SUBNET, FIRST, LAST), lambda: asking.add(ONE),
        lambda: asking.remove(ONE),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(kind):
            await call()


async def test_that_the_same_is_there_already_is_success() -> None:
    conflict = (409, "Record 192.0.2.0/192.0.2.5 already exists")
    asking, other = provider({IN: conflict, OF: (200, shapes.of_record(ONE))})
    await asking.add(ONE, related=[MACAddress.parse("52:54:00:aa:00:09"), MACAddress.parse("52:54:00:aa:00:08")])
    assert other.forms[0] == [
        ("name", "h1"), ("ip", "192.0.2.5"), ("mac", str(MAC)), ("hostname", "h1"), ("ztp_firmware[core]", "a"),
        ("related_macs[]", "52:54:00:aa:00:08"), ("related_macs[]", "52:54:00:aa:00:09"),
    ]  # fmt: skip
    for held in (shapes.of_record(ONE) | {"ip": "192.0.2.6"}, None):
        asking, _ = provider({IN: conflict} | ({OF: (200, held)} if held else {}))
        with pytest.raises(Conflict):
            await asking.add(ONE)


async def test_another_reservation_of_the_machine_is_not_removed() -> None:
    asking, other = provider({OF: (200, shapes.of_record(ONE) | {"ip": "192.0.2.77"})})
    with pytest.raises(NotFound):
        await asking.remove(ONE)
    assert other.asked == [OF]


async def test_a_large_list_is_read_beside_the_loop() -> None:
    many = [shapes.of_record(ONE) | {"ip": f"192.0.2.{n % 250 + 1}", "name": f"h{n}"} for n in range(3000)]
    asking, _ = provider({"GET /dhcp/192.0.2.0": (200, {"reservations": many, "leases": []})})
    assert len((await asking.records(SUBNET)).reservations) == 3000
