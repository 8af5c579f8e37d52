from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.providers.memory import MemoryDHCP
from muster.kernel.errors import Unavailable
from muster.kernel.names import MACAddress

pytestmark = pytest.mark.anyio
SUBNET = Subnet(IPv4Network("192.0.2.0/24"))


async def test_it_can_be_told_to_fail() -> None:
    memory = MemoryDHCP([SUBNET])
    memory.failure = Unavailable("gone")
    one = Reservation("h", IPv4Address("192.0.2.5"), MACAddress.parse("52:54:00:aa:00:01"), SUBNET)
    calls = (
        memory.reached(), memory.subnets(), memory.records(SUBNET), memory.at(SUBNET, one.ip), memory.of(SUBNET, one.mac),
        memory.taken(SUBNET, [one.ip]), memory.offered(SUBNET, one.ip, one.ip), memory.add(one), memory.remove(one),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(Unavailable, match=r"^gone$"):
            await call
