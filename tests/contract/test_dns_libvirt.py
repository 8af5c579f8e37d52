"""What only a network of libvirt has, on the real libvirtd: entries that are told both ways, by its own dnsmasq."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from muster.features.dns import checks
from muster.features.dns.contract import Record, RecordType
from muster.features.dns.providers import libvirt
from muster.features.dns.providers.libvirt import LibvirtDNS
from muster.features.dns.settings import DNSSettings, LibvirtSettings
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN
from muster.kernel.secrets import Secret
from muster.store.engine import Store
from muster.store.engine import opened as store_opened
from muster.store.leases import Leases
from tests.servers import libvirtd, member
from tests.servers.libvirtd import Libvirtd

pytestmark = pytest.mark.anyio

DEFINITION = """
<network>
  <name>muster</name>
  <bridge name='virbr9' stp='off' delay='0'/>
  <domain name='example.com' localOnly='yes'/>
  <dns><host ip='192.168.120.3'><hostname>both.example.com</hostname><hostname>other.example.com</hostname></host></dns>
  <ip address='192.168.120.1' netmask='255.255.255.0'/>
</network>
"""
LIVE, CONFIG = ("--live",), ("--config",)


@pytest.fixture(scope="module")
def server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Libvirtd]:
    needs("libvirtd")
    needs("namespaces")
    with libvirtd.running(tmp_path_factory.mktemp("libvirtd"), DEFINITION) as it:
        yield it


@asynccontextmanager
async def opened(server: Libvirtd, store: Store | None = None, **change: Any) -> AsyncIterator[LibvirtDNS]:
    async with libvirt.opened(LibvirtSettings.model_validate({**server.settings, **change}), store) as provider:
        yield provider


def a(name: str, address: str) -> Record:
    return Record(FQDN.parse(name), RecordType.A, ip_address(address))


def ptr(address: str, name: str) -> Record:
    return Record(FQDN.parse(ip_address(address).reverse_pointer), RecordType.PTR, FQDN.parse(name))


def told(server: Libvirtd, *question: str, until: list[str]) -> list[str]:
    """Return what the network's dnsmasq answers once that is what it should be: libvirt signals it."""
    limit = time.monotonic() + 5
    while True:
        dig = server.host.command("dig", "@192.168.120.1", "+short", "+time=1", "+tries=1", *question)
        found = subprocess.run(dig, capture_output=True, text=True, timeout=10, check=False).stdout.split()
        if found == until or time.monotonic() > limit:
            return found
        time.sleep(0.1)


def changed(server: Libvirtd, how: str, entry: str, flags: tuple[str, ...]) -> None:
    """Change an entry as an administrator does."""
    done = server.virsh("net-update", libvirtd.NETWORK, how, "dns-host", entry, *flags)
    assert done.returncode == 0, done.stderr


def definitions(server: Libvirtd) -> tuple[str, str]:
    live, kept = (server.virsh("net-dumpxml", libvirtd.NETWORK, *how).stdout for how in ((), ("--inactive",)))
    return live, kept


async def test_machines_are_answered_both_ways_until_either_is_removed(server: Libvirtd) -> None:
    name, reverse = "Web.example.com", ptr("192.168.120.10", "web.example.com")
    async with opened(server) as dns:
        for removed in ((FQDN.parse(name), RecordType.A), (reverse.name, RecordType.PTR)):
            await dns.add(a(name, "192.168.120.10"))
            await dns.add(reverse)
            answer = ["192.168.120.10"]
            assert await asyncio.to_thread(told, server, "web.example.com", "A", until=answer) == answer
            answer = ["web.example.com."]
            assert await asyncio.to_thread(told, server, "-x", "192.168.120.10", until=answer) == answer
            await dns.remove(*removed)
            assert await asyncio.to_thread(told, server, "web.example.com", "A", until=[]) == []
            assert await asyncio.to_thread(told, server, "-x", "192.168.120.10", until=[]) == []
            for name_, kind in ((FQDN.parse(name), RecordType.A), (reverse.name, RecordType.PTR)):
                with pytest.raises(NotFound):
                    await dns.remove(name_, kind)


async def test_a_name_has_addresses_of_both_families_and_each_goes_alone(server: Libvirtd) -> None:
    name = FQDN.parse("dual.example.com")
    async with opened(server) as dns:
        await dns.add(a(name, "192.168.120.20"))
        await dns.add(Record(name, RecordType.AAAA, ip_address("2001:db8::20")))
        answer = ["2001:db8::20"]
        assert await asyncio.to_thread(told, server, name, "AAAA", until=answer) == answer
        await dns.remove(name, RecordType.AAAA)
        assert await dns.lookup(name, RecordType.A) == {ip_address("192.168.120.20")}
        await dns.remove(name, RecordType.A)


async def test_what_cannot_stand_beside_another_entry_is_refused_and_nothing_changed(server: Libvirtd) -> None:
    async with opened(server) as dns:
        await dns.add(a("first.example.com", "192.168.120.30"))
        before = definitions(server)
        with pytest.raises(Rejected, match=r"one entry for each address, and 192\.168\.120\.30 is first\.example\.com"):
            await dns.add(a("second.example.com", "192.168.120.30"))
        with pytest.raises(Conflict, match=r"holds PTR first\.example\.com"):
            await dns.add(ptr("192.168.120.30", "second.example.com"))
        # It would have a second address by that.
        with pytest.raises(Conflict, match=r"first\.example\.com holds A 192\.168\.120\.30"):
            await dns.add(ptr("192.168.120.31", "first.example.com"))
        for strange in ("120.168.192.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa", "1.2.3.4.5.in-addr.arpa"):
            with pytest.raises(Rejected, match="is the reverse name of no address"):
                await dns.add(Record(FQDN.parse(strange), RecordType.PTR, FQDN.parse("a.example.com")))
        assert definitions(server) == before
        await dns.remove(FQDN.parse("first.example.com"), RecordType.A)


async def test_an_entry_of_several_names_counts_and_stays(server: Libvirtd) -> None:
    async with opened(server) as dns:
        await dns.add(a("other.example.com", "192.168.120.3"))
        await dns.add(ptr("192.168.120.3", "both.example.com"))
        before = definitions(server)
        with pytest.raises(Conflict, match=r"holds PTR both\.example\.com"):
            await dns.add(ptr("192.168.120.3", "other.example.com"))
        for name, kind in (("other.example.com", RecordType.A), ("3.120.168.192.in-addr.arpa", RecordType.PTR)):
            with pytest.raises(Rejected, match=r"has 2 names and was made by somebody there; it stays"):
                await dns.remove(FQDN.parse(name), kind)
        assert definitions(server) == before


@pytest.mark.parametrize("only", [LIVE, CONFIG])
async def test_what_is_only_in_force_or_only_kept_is_completed_and_removed_whole(
    server: Libvirtd, only: tuple[str, ...]
) -> None:
    half, name = "<host ip='192.168.120.40'><hostname>half.example.com</hostname></host>", "half.example.com"
    async with opened(server) as dns:
        changed(server, "add-last", half, only)
        await dns.add(a(name, "192.168.120.40"))
        assert all(name in one for one in definitions(server))
        await dns.remove(FQDN.parse(name), RecordType.A)
        assert not any(name in one for one in definitions(server))
        changed(server, "add-last", half, only)
        with pytest.raises(Conflict):
            await dns.add(a(name, "192.168.120.41"))
        await dns.remove(FQDN.parse(name), RecordType.A)
        assert not any(name in one for one in definitions(server))


async def test_two_members_that_add_different_values_to_one_name_end_in_one_of_them(
    server: Libvirtd, tmp_path: Path
) -> None:
    url = Secret(f"sqlite:///{tmp_path}/store.db")
    async with store_opened(url) as one, store_opened(url) as two:
        await one.prepare()
        async with opened(server, one) as first, opened(server, two) as second:
            for n in range(5):
                name = FQDN.parse(f"race{n}.example.com")
                mine, theirs = a(name, f"192.168.120.{50 + n}"), a(name, f"192.168.120.{60 + n}")
                results = await asyncio.gather(first.add(mine), second.add(theirs), return_exceptions=True)
                assert [type(r) for r in results if r is not None] == [Conflict]
                won = mine if results[0] is None else theirs
                assert await first.lookup(name, RecordType.A) == {won.data}
                await second.remove(name, RecordType.A)
            assert await Leases(one).held("dns-libvirt") is None


async def test_foreman_is_answered_through_a_member(server: Libvirtd, tmp_path: Path) -> None:
    feature = {"use_provider": "dns_libvirt", "libvirt": server.settings}

    def asked() -> list[tuple[int, str]]:
        with member.running(tmp_path, features={"dns": feature}) as running:

            def call(method: str, path: str, **form: str) -> tuple[int, str]:
                answer = running.ask(method, path, body=urlencode(form).encode())
                return answer.status, answer.body.decode()

            one = {"fqdn": "call.example.com", "value": "192.168.120.80", "type": "A"}
            return [
                call("POST", "/dns/", **one),
                call("POST", "/dns/", **one),
                call("POST", "/dns/", **{**one, "value": "192.168.120.81"}),
                call("POST", "/dns/", **{**one, "fqdn": "other.call.example.com"}),
                call("POST", "/dns/", fqdn="call.example.com", value="80.120.168.192.in-addr.arpa", type="PTR"),
                call("POST", "/dns/", fqdn="www.example.com", value="call.example.com", type="CNAME"),
                call("DELETE", "/dns/_sip._tcp.example.com/SRV"),
                call("DELETE", "/dns/80.120.168.192.in-addr.arpa"),
                call("DELETE", "/dns/call.example.com/A"),
            ]

    answers = await asyncio.to_thread(asked)
    assert [status for status, _ in answers] == [200, 200, 409, 400, 200, 400, 400, 200, 200]
    assert answers[2][1] == "'call.example.com 'is already in use"
    assert "one entry for each address" in answers[3][1]
    assert answers[5][1].startswith("Creation of CNAME not implemented")
    assert answers[6][1].startswith("Deletion of SRV not implemented")
    assert "call.example.com" not in "".join(definitions(server))


async def codes(server: Libvirtd, **change: Any) -> list[str]:
    """Return what the doctor calls it."""
    given = {"provider": "libvirt", "libvirt": {**server.settings, **change}}
    asked = checks.checks(DNSSettings.model_validate(given), (), lambda: None)
    return [f.code for check in asked for f in await check.run()]


async def test_what_is_wrong_with_libvirt_is_named(server: Libvirtd) -> None:
    assert await codes(server) == []
    assert await codes(server, network="nowhere") == ["DNS-DOWN"]
    assert await codes(server, url="qemu:///system?socket=/nowhere") == ["DNS-DOWN"]
    with pytest.raises(Misconfigured, match="Network not found"):
        async with opened(server, network="nowhere"):
            pass
    server.virsh("net-destroy", libvirtd.NETWORK)
    try:
        async with opened(server) as dns:
            for call in (dns.reached(), dns.add(a("off.example.com", "192.168.120.70"))):
                with pytest.raises(Unavailable, match=r"not (?:active|running)"):
                    await call
        assert "off.example.com" not in definitions(server)[1]
    finally:
        server.virsh("net-start", libvirtd.NETWORK)


async def test_a_network_whose_dns_is_switched_off_is_not_given_what_nobody_is_told(server: Libvirtd) -> None:
    silent = DEFINITION.replace("muster", "silent").replace("virbr9", "virbr8")
    silent = re.sub(r"<dns>.*</dns>", "<dns enable='no'/>", silent)
    file = server.directory / "silent.xml"
    file.write_text(silent.replace("192.168.120.", "192.168.121."))
    for arguments in (("net-define", str(file)), ("net-start", "silent")):
        done = server.virsh(*arguments)
        assert done.returncode == 0, done.stderr
    try:
        async with opened(server, network="silent") as dns:
            with pytest.raises(Misconfigured, match="is switched off"):
                await dns.add(a("web.example.com", "192.168.121.10"))
        assert await codes(server, network="silent") == ["DNS-SWITCHED-OFF"]
    finally:
        server.virsh("net-destroy", "silent")


async def test_no_virsh_is_named(server: Libvirtd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Misconfigured, match="virsh"):
        async with opened(server):
            pass
