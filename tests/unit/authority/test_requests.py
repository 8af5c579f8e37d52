"""Requests that wait: not for ever, not all of one client, and not in the way of the host that the name was given to."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from sqlalchemy import select, update

from muster.authority.authority import PuppetCA
from muster.authority.ledger.ledger import Ledger
from muster.authority.x509 import csr
from muster.cluster.file import Authority
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.names import source_of
from muster.store.engine import Store
from muster.store.tables import requests
from tests.servers import puppetca

pytestmark = pytest.mark.anyio

NODE = "node.example.net"


async def ask(ca: PuppetCA, name: str, source: str = "192.0.2.1", **wishes: str | None) -> bool:
    return await ca.requests.submit(name, puppetca.agent(name, challenge=wishes.get("challenge")).csr, source=source)


async def events(store: Store, name: str) -> list[tuple[str, str]]:
    return [(e["event"], e["actor"]) for e in await Ledger(store, "test").history(name, most=10)]


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_a_client_counts_as_its_ipv4_address_or_its_ipv6_network(address: str, source: str) -> None:
    assert source_of(address) == source


async def test_one_client_cannot_fill_the_limit(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(pending_per_source=2, requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        for n in range(2):
            await ask(ca, f"n{n}.example.net", f"2001:db8::{n}")
        with pytest.raises(Rejected, match=r"2 certificate requests of 2001:db8::/64 wait .*pending_per_source"):
            await ask(ca, "n2.example.net", "2001:db8::ffff:1")
        # Who asks for the same again hears that it waits, as ever.
        with pytest.raises(Rejected, match=r"n0\.example\.net already has a requested certificate"):
            await ask(ca, "n0.example.net", "2001:db8::1")
        await ask(ca, "n3.example.net", "2001:db8:0:1::1")
        await ca.requests.reject("n0.example.net", actor="test")
        await ask(ca, "n4.example.net", "2001:db8::5")
        # Who asked is written down as it was.
        assert await events(store, "n4.example.net") == [("requested", "2001:db8::5")]


async def test_without_a_quota_one_client_may_fill_the_limit(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(pending_per_source=0, pending_limit=3, requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        for n in range(3):
            await ask(ca, f"n{n}.example.net")
        with pytest.raises(Rejected, match="3 certificate requests wait for an administrator already"):
            await ask(ca, "n3.example.net", "192.0.2.2")


async def test_requests_by_the_minute_are_counted_by_network(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, Authority(requests_per_minute=2)) as ca:
        for n in range(2):
            await ask(ca, f"n{n}.example.net", f"2001:db8::{n}")
        with pytest.raises(Unavailable, match="2001:db8::/64 sent 2 certificate requests"):
            await ask(ca, "n2.example.net", "2001:db8::ffff:1")


async def test_a_request_that_waits_too_long_is_thrown_away_and_the_host_may_ask_again(
    store: Store, home: Path
) -> None:
    await puppetca.begin(store, home)
    settings = Authority(pending_days=7, requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        for name in (NODE, "young.example.net"):
            await ask(ca, name)
        async with store.write() as uow:
            at = requests.c.submitted_at
            old = update(requests).where(requests.c.certname == NODE).values(submitted_at=at - 7 * 86_400 - 1)
            young = update(requests).where(requests.c.certname != NODE).values(submitted_at=at - 7 * 86_400 + 600)
            await uow.connection.execute(old)
            await uow.connection.execute(young)
        await ca.keep_up()
        assert await ca.certificates.status(NODE) is None
        assert ca.waiting == 1
        assert (await events(store, NODE))[0] == ("expired", "")
        assert not await ask(ca, NODE)
        await ca.keep_up()
        assert ca.waiting == 2


@pytest.mark.parametrize("way", ["token", "entry", "file"])
async def test_a_host_that_its_name_was_given_to_is_not_kept_out_by_who_asked_first(
    store: Store, home: Path, tmp_path: Path, way: str
) -> None:
    await puppetca.begin(store, home)
    no = tmp_path / "no"
    no.write_text("#!/bin/sh\nexit 1\n")
    no.chmod(no.stat().st_mode | stat.S_IXUSR)
    names = tmp_path / "names"
    settings = Authority(
        autosign=("policy", "hostnames", "tokens"),
        policy_executable=no,
        hostnames_file=names,
        requests_per_minute=0,
    )
    async with puppetca.member(store, home, settings) as ca:
        assert not await ask(ca, NODE, "192.0.2.66")
        token = await ca.autosign.give_token(NODE, ttl_s=60) if way == "token" else None
        if way == "entry":
            await ca.autosign.add_host(NODE, by="Foreman")
        if way == "file":
            names.write_text(f"{NODE}\n")
        host = puppetca.agent(NODE, challenge=token)
        assert await ca.requests.submit(NODE, host.csr, source="192.0.2.1")
        made = x509.load_pem_x509_certificate((await ca.certificates.pem(NODE)).encode())
        assert made.public_key() == host.key.public_key()
        by = "autosign token" if token else "autosign hostnames"
        assert await events(store, NODE) == [("signed", by), ("superseded", by), ("requested", "192.0.2.66")]
        async with store.read() as uow:
            assert (await uow.connection.execute(select(requests.c.certname))).all() == []
        # What is signed stays signed, whoever is let through now.
        again = await ca.autosign.give_token(NODE, ttl_s=60)
        with pytest.raises(Rejected, match="already has a signed certificate"):
            await ask(ca, NODE, challenge=again)


async def test_a_request_of_its_own_that_waited_is_served_by_its_entry(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(autosign=("hostnames",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        host = puppetca.agent(NODE)
        assert not await ca.requests.submit(NODE, host.csr, source="192.0.2.1")
        await ca.autosign.add_host(NODE, by="Foreman")
        assert await ca.requests.submit(NODE, host.csr, source="192.0.2.1")
        assert await events(store, NODE) == [("signed", "autosign hostnames"), ("requested", "192.0.2.1")]


@pytest.mark.parametrize("entry", ["*", "*.example.net", "all"])
async def test_who_is_let_through_with_many_has_to_wait_behind_who_asked_first(
    store: Store, home: Path, entry: str
) -> None:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, Authority(requests_per_minute=0)) as ca:
        assert not await ask(ca, NODE, "192.0.2.66")
    settings = Authority(autosign=("all",) if entry == "all" else ("hostnames",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        if entry != "all":
            await ca.autosign.add_host(entry, by="Foreman")
        with pytest.raises(Rejected, match="already has a requested certificate"):
            await ask(ca, NODE)
        first = csr.read((await ca.requests.pem(NODE)).encode())
        assert first.name == NODE
        assert await events(store, NODE) == [("requested", "192.0.2.66")]
