from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from muster.features.dhcp.kea.commands import Answer, Kea
from muster.features.dhcp.kea.in_force import Current
from muster.kernel.errors import Unavailable, Unsupported

pytestmark = pytest.mark.anyio


class Told:
    """A Kea that says what it is told to, and remembers what it was asked."""

    url = "unix:/kea"

    def __init__(self, *, hashes: bool) -> None:
        self.hashes, self.version, self.asked = hashes, "2.2.0", list[str]()
        self.content: Any = {"subnet4": []}

    async def ask(self, command: str, _arguments: Any = None) -> Answer:
        self.asked.append(command)
        now = self.content
        await asyncio.sleep(0)
        more = {"hash": str(hash(repr(now)))} if self.hashes else {}
        match command:
            case "config-get":
                return Answer(True, "", {"Dhcp4": now, **more})
            case "config-hash-get" if self.hashes:
                return Answer(True, "", more)
            case "list-commands":
                return Answer(True, "", ["config-get"])
            case "version-get":
                return Answer(True, self.version)
        raise Unsupported(command)


def current(told: Told) -> Current:
    return Current(cast(Kea, told))


@pytest.mark.parametrize("hashes", [True, False])
async def test_a_change_is_always_seen_and_nothing_is_asked_twice_without_need(hashes: bool) -> None:
    told = Told(hashes=hashes)
    asked = current(told)
    first = await asked.now()
    told.asked.clear()
    assert await asked.now() is first
    assert told.asked == ["config-hash-get" if hashes else "config-get"]
    told.content = {"subnet4": [{"id": 1, "subnet": "192.0.2.0/24"}]}
    assert [s.id for s in (await asked.now()).configuration.subnets] == [1]


async def test_who_asks_while_another_does_gets_no_older_answer() -> None:
    told = Told(hashes=False)
    asked = current(told)
    early = asyncio.create_task(asked.now())
    # It has read what was in force, and not told it yet.
    while "config-get" not in told.asked:
        await asyncio.sleep(0)
    told.content = {"subnet4": [{"id": 1, "subnet": "192.0.2.0/24"}]}
    late = await asyncio.gather(*(asked.now() for _ in range(20)))
    assert (await early).configuration.subnets == []
    assert all(len(one.configuration.subnets) == 1 for one in late)
    assert told.asked.count("config-get") == 2


@pytest.mark.parametrize(("content", "version"), [(None, "2.2.0"), ({"subnet4": []}, "kea"), ({"subnet4": []}, "2.x")])
async def test_what_is_no_kea_is_said(content: Any, version: str) -> None:
    told = Told(hashes=False)
    told.content, told.version = content, version
    with pytest.raises(Unavailable):
        await current(told).now()
