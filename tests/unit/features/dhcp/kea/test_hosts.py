"""Hosts that Kea's library keeps one by one: what two callers that come at once hear."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import pytest

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.kea import reservations
from muster.features.dhcp.kea.commands import Answer, Kea
from muster.features.dhcp.kea.configuration import read
from muster.features.dhcp.kea.hosts import Hosts
from muster.features.dhcp.kea.unwritten import Unwritten
from muster.kernel.errors import Conflict, Rejected
from muster.kernel.names import MACAddress

pytestmark = pytest.mark.anyio

SUBNET = Subnet(IPv4Network("192.0.2.0/24"))
WANTED = Reservation(
    "one.example.com", IPv4Address("192.0.2.7"), MACAddress.parse("52:54:00:00:00:01"), SUBNET,
    {"hostname": "one.example.com"},
)  # fmt: skip
OTHERS = Reservation("two.example.com", WANTED.ip, MACAddress.parse("52:54:00:00:00:02"), SUBNET)


class QuickerKea:
    """A Kea (a stand-in) that another caller tells of a host between our question and our order."""

    def __init__(self, host: Reservation) -> None:
        self.hosts: list[dict[str, Any]] = []
        self._host = host

    async def ask(self, command: str, _arguments: object) -> Answer:
        if command == "reservation-add":
            self.hosts = [{**reservations.written(self._host), "subnet-id": 1}]
            raise Rejected("failed to add new host: as this host has already been added")
        return Answer(bool(self.hosts), "", {"hosts": self.hosts})


async def add(host: Reservation) -> None:
    database = {"hosts-databases": [{"type": "postgresql"}]}
    on = read({"subnet4": [{"id": 1, "subnet": str(SUBNET.network)}], **database})
    hosts = Hosts(cast(Kea, QuickerKea(host)), cast(Unwritten, None))
    await hosts.add(on, WANTED, ())


async def test_who_comes_second_with_the_same_is_told_of_success() -> None:
    await add(WANTED)


async def test_who_comes_second_with_another_is_told_of_the_first() -> None:
    with pytest.raises(Conflict, match=r"two\.example\.com"):
        await add(OTHERS)
