"""Three members give addresses of one IPAM to hosts at once, on a real PostgreSQL; the judge reads what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from ipaddress import ip_network

import pytest

from muster.features.externalipam.contract import IPAMProvider
from muster.features.externalipam.promises import Promises
from muster.features.externalipam.providers import netbox
from muster.features.externalipam.providers.claims import ClaimedIPAM
from muster.features.externalipam.service import ExternalIPAM
from muster.features.externalipam.settings import KeptSettings, NetBoxSettings
from muster.kernel.errors import Conflict
from muster.kernel.secrets import Secret
from muster.store.engine import opened as store_opened
from tests.histories.history import History
from tests.histories.judge import judged
from tests.histories.kept import KeptAddresses
from tests.servers import ipam_stand_ins
from tests.servers.ipam_stand_ins import TOKEN, NetBox
from tests.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.anyio

NETWORK = ip_network("192.0.2.0/27")
AT = (str(NETWORK.network_address), str(NETWORK.prefixlen))
MEMBERS = 3
CLIENTS = 12
ROUNDS = 3


@contextlib.asynccontextmanager
async def members(url: str, word: str) -> AsyncIterator[list[ExternalIPAM]]:
    """Yield the feature as each of three members has it, with a store and a client of its own."""
    async with contextlib.AsyncExitStack() as stack:
        api = NetBox(slow_s=0.01, most=100)
        if word == "netbox":
            stack.enter_context(ipam_stand_ins.serving(api))
            api.add_prefix(str(NETWORK))
        found = []
        for _ in range(MEMBERS):
            store = await stack.enter_async_context(store_opened(Secret(url)))
            await store.prepare()
            provider: IPAMProvider = ClaimedIPAM(
                store, KeptSettings.model_validate({"subnets": [{"network": str(NETWORK)}]})
            )
            if word == "netbox":
                settings = NetBoxSettings.model_validate({"url": api.url, "token": TOKEN})
                provider = await stack.enter_async_context(netbox.opened(settings))
            found.append(ExternalIPAM(provider, word, Promises(store, held_s=600)))
        yield found


class Client:
    """Asks one member after the other, in an order of chance, and writes down what it hears."""

    def __init__(self, number: int, members: list[ExternalIPAM], history: History) -> None:
        self.name = f"client {number}"
        self._number = number
        self._chance = random.Random(number)
        self._members = members
        self._history = history

    @property
    def _member(self) -> ExternalIPAM:
        return self._chance.choice(self._members)

    async def run(self) -> None:
        for turn in range(ROUNDS):
            begun = self._history.at()
            found = await self._member.next_ip(*AT, None, f"52:54:00:aa:{turn:02x}:{self._number:02x}")
            if found is not None:
                self._history.note(self.name, "offer", str(found), None, None, begun)
                await self._add(str(found))
            # And one that somebody typed in, which may be anybody's.
            typed = str(NETWORK[self._chance.randrange(1, 31)])
            await self._add(typed)
            with self._history.call(self.name, "holds", typed) as heard:
                heard.ok(await self._member.holds(*AT, typed, None))
            for ip in {str(found or typed), typed}:
                if self._chance.random() < 0.6:
                    with self._history.call(self.name, "remove", ip) as heard:
                        await self._member.remove(*AT, ip, None)
                        heard.ok()

    async def _add(self, ip: str) -> None:
        with self._history.call(self.name, "add", ip) as heard:
            try:
                await self._member.add(*AT, ip, None)
                heard.ok()
            except Conflict:
                heard.refused()


@pytest.mark.parametrize("word", ["claims", "netbox"])
async def test_of_three_members_none_gives_an_address_that_another_gave(
    postgresql_server: PostgreSQL, word: str
) -> None:
    history = History()
    async with members(postgresql_server.fresh_store(), word) as found:
        await asyncio.gather(*(Client(n, found, history).run() for n in range(CLIENTS)))
    offered = [c.key for c in history.calls if c.operation == "offer"]
    assert len(offered) > CLIENTS
    assert [str(f) for f in judged(KeptAddresses(), history.calls)] == []


async def test_all_addresses_are_given_and_each_once(postgresql_server: PostgreSQL) -> None:
    async with members(postgresql_server.fresh_store(), "claims") as found:
        asked = [found[n % MEMBERS].next_ip(*AT, None, None) for n in range(34)]
        given = await asyncio.gather(*asked)
    told = sorted(str(ip) for ip in given if ip is not None)
    assert told == sorted(str(ip) for ip in NETWORK.hosts())
