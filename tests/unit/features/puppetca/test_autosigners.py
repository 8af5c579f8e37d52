from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.authority.autosign import Autosign
from muster.authority.reserved import Reserved
from muster.cluster.file import Authority, ClusterFile
from muster.features.puppetca import autosigners
from muster.features.puppetca.autosign_file import BEGIN, END, AutosignFile
from muster.features.puppetca.autosigners import Hostnames, Tokens
from muster.features.puppetca.settings import PuppetCASettings
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import puppetca

NAME = "web01.example.com"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        yield store


def hostnames(store: Store, path: Path, clock: FakeClock | None = None) -> Hostnames:
    return Hostnames(Autosign(store, Authority()), AutosignFile(path), clock)


def said(path: Path) -> list[str]:
    lines = path.read_text().splitlines()
    assert (lines[0], lines[-1]) == (BEGIN, END)
    return lines[1:-1]


async def test_the_member_that_is_asked_has_written_before_it_answers(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    names = hostnames(store, path)
    assert await names.allow(NAME, None) is None
    assert said(path) == [NAME]
    await names.allow("*.example.net", None)
    assert said(path) == [NAME, "*.example.net"]
    await names.forbid(NAME)
    assert said(path) == ["*.example.net"]
    with pytest.raises(NotFound):
        await names.forbid(NAME)
    with pytest.raises(Rejected):
        await names.allow("web01 # x", None)
    assert said(path) == ["*.example.net"]
    await names.reached()


CLUSTER = ClusterFile.model_validate(
    {
        "schema": 1,
        "cluster": "test",
        "address": "smartproxy.example.com",
        "store": {"url": "postgresql://db/muster"},
        "members": [{"name": "proxy01.example.com", "id": 1, "address": "192.0.2.11"}],
        "foreman": {"trusted_hosts": ["foreman.example.com"]},
        "authority": {"administrators": ["admin.example.com"], "infra_hosts": ["puppet.example.com"]},
    }
)


async def test_a_puppetservers_file_gives_no_reserved_name_away(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    autosign = Autosign(store, Authority(), Reserved.of(CLUSTER))
    # Put on the list by a member that did not know, or for another host's muster-autosign.
    for entry in ("*.example.com", "*", "admin.example.com", "smartproxy.example.com", "puppetca.proxy01.example.com"):
        await autosign.add_host(entry, by="test")
    names = Hostnames(autosign, AutosignFile(path))
    for entry in ("proxy01.example.com", "foreman.example.com", "puppet.example.com", "*.web.example.com", NAME):
        await names.allow(entry, None)
    assert said(path) == ["proxy01.example.com", "foreman.example.com", "puppet.example.com", "*.web.example.com", NAME]
    with pytest.raises(Rejected, match=r"would have the puppetserver sign admin\.example\.com.*muster-autosign"):
        await names.allow("*.example.com", None)
    # Foreman builds a host of that name: its call is no failure, and an administrator signs.
    await names.allow("smartproxy.example.com", None)
    assert "smartproxy.example.com" not in said(path)


async def test_a_puppetserver_that_asks_is_told_no_for_reserved_names(store: Store) -> None:
    autosign = Autosign(store, Authority(), Reserved.of(CLUSTER))
    names, tokens = Hostnames(autosign), Tokens(autosign, 60)
    await names.allow("*", None)

    async def both(name: str) -> tuple[bool, bool]:
        token = await tokens.allow(name, None)
        return (
            await names.permits(puppetca.agent(name).csr),
            await tokens.permits(puppetca.agent(name, challenge=token).csr),
        )

    assert await both(NAME) == (True, True)
    for name in ("admin.example.com", "smartproxy.example.com", "puppetca.x.example.com"):
        await names.allow(name, None)
        assert await both(name) == (False, False)
    for name in ("proxy01.example.com", "foreman.example.com", "puppet.example.com"):
        assert await both(name) == (False, True)
        await names.allow(name, None)
        assert await both(name) == (True, True)


async def test_every_member_follows_what_one_was_told(store: Store, tmp_path: Path) -> None:
    paths = [tmp_path / f"proxy{n}.conf" for n in range(3)]
    first, *others = (hostnames(store, p, FakeClock()) for p in paths)

    async def until_all_say(names: list[str]) -> None:
        async with asyncio.timeout(60):
            while not all(p.exists() and said(p) == names for p in paths):
                await asyncio.sleep(0.01)

    async with others[0].following(), others[1].following():
        await first.allow(NAME, None)
        await until_all_say([NAME])
        await first.forbid(NAME)
        await until_all_say([])


class Fallible(Autosign):
    """The list in a store that can be taken away.

    Attributes:
        failure: raised instead of an answer while set.
        asked: how often the list was looked at.
    """

    failure: Exception | None = None
    asked = 0

    async def hosts(self) -> list[str]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return await super().hosts()


@pytest.mark.parametrize("failure", [Unavailable("the store is down"), KeyError("a bug")])
async def test_while_the_list_cannot_be_read_the_file_stays_and_afterwards_it_follows(
    store: Store, tmp_path: Path, failure: Exception
) -> None:
    path = tmp_path / "autosign.conf"
    list_ = Fallible(store, Authority())
    names = Hostnames(list_, AutosignFile(path), FakeClock())
    async with asyncio.timeout(60), names.following():
        await names.allow(NAME, None)
        list_.failure = failure
        looks = list_.asked
        while list_.asked < looks + 3:
            await asyncio.sleep(0.01)
        assert said(path) == [NAME]
        path.unlink()
        list_.failure = None
        while not path.exists():
            await asyncio.sleep(0.01)
        assert said(path) == [NAME]


async def test_a_file_that_is_stale_is_no_failure_of_foremans_call_and_shows(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "absent" / "autosign.conf"
    names = hostnames(store, path)
    await names.allow(NAME, None)
    assert await names.entries() == [NAME]
    with pytest.raises(Misconfigured, match=rf"Writing {path} failed: No such file or directory"):
        await names.reached()
    path.parent.mkdir()
    await names.follow()
    await names.reached()
    assert said(path) == [NAME]


async def test_an_older_list_never_replaces_a_newer_one(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "autosign.conf"
    names = hostnames(store, path)
    every = [f"web{n:02}.example.com" for n in range(20)]
    await asyncio.gather(*(names.allow(n, None) for n in every), *(names.follow() for _ in range(20)))
    assert said(path) == every
    await asyncio.gather(*(names.forbid(n) for n in every[::2]), *(names.follow() for _ in range(20)))
    assert said(path) == every[1::2]


async def test_the_settings_decide_which_it_is_and_a_block_that_ends_leaves_nothing_running(
    store: Store, tmp_path: Path
) -> None:
    autosign = Autosign(store, Authority())
    before = asyncio.all_tasks()
    async with autosigners.opened(PuppetCASettings(autosigner="tokens"), autosign) as one:
        assert isinstance(one, Tokens)
        await one.reached()
    async with autosigners.opened(PuppetCASettings(), autosign) as one:
        assert isinstance(one, Hostnames)
        assert asyncio.all_tasks() == before, "without a file nothing follows"
    path = tmp_path / "autosign.conf"
    async with autosigners.opened(PuppetCASettings(provider="memory", autosign_file=path), autosign) as one:
        assert len(asyncio.all_tasks() - before) == 1
        await one.allow(NAME, None)
        assert said(path) == [NAME]
    assert asyncio.all_tasks() == before
