"""What only PowerDNS' API has: a key, servers beside it on one database, and no condition that a change could carry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from muster.features.dns import checks, turns
from muster.features.dns.contract import SRV, Record, RecordType
from muster.features.dns.providers import powerdns as provider
from muster.features.dns.providers.powerdns import PowerDNSDNS
from muster.features.dns.settings import DNSSettings, PowerDNSSettings
from muster.kernel.errors import Conflict, Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.names import FQDN, ServiceName
from muster.kernel.secrets import Secret
from muster.store.engine import Store
from muster.store.engine import opened as store_opened
from muster.store.leases import Leases
from tests.servers import powerdns
from tests.servers.bind import Zone
from tests.servers.powerdns import PowerDNSServer

pytestmark = pytest.mark.anyio

ZONES = (Zone("example.com"), Zone("copy.test", ("host IN A 10.9.9.9",)))


@pytest.fixture(scope="module")
def server(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDNSServer]:
    needs("powerdns")
    with powerdns.running(tmp_path_factory.mktemp("powerdns"), zones=ZONES, secondary=["copy.test"]) as server:
        # As a zone has it that was made by the API: each change is a new serial.
        told(server, "PUT", "/zones/example.com.", {"soa_edit_api": "DEFAULT"})
        yield server


@pytest.fixture(scope="module")
def beside(server: PowerDNSServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDNSServer]:
    """Another server on the same database."""
    with powerdns.running(tmp_path_factory.mktemp("beside"), zones=(), beside=server) as another:
        yield another


def settings(server: PowerDNSServer, **given: Any) -> PowerDNSSettings:
    known = {"rest_url": server.api, "rest_api_key": powerdns.API_KEY, "timeout_s": 2}
    return PowerDNSSettings.model_validate({**known, **given})


@asynccontextmanager
async def opened(given: PowerDNSSettings, store: Store | None = None) -> AsyncIterator[PowerDNSDNS]:
    async with provider.opened(given, 300, store) as found:
        yield found


def a(name: str, address: str = "192.0.2.10") -> Record:
    return Record(FQDN.parse(name), RecordType.A, ip_address(address))


def told(server: PowerDNSServer, method: str, path: str, content: Mapping[str, Any] | None = None) -> Any:
    """Ask the API as an administrator does."""
    body = None if content is None else json.dumps(content).encode()
    with urlopen(Request(server.api + path, body, {"X-API-Key": powerdns.API_KEY}, method=method)) as answer:  # noqa: S310
        return json.loads(answer.read() or b"null")


def serial(server: PowerDNSServer) -> int:
    return int(told(server, "GET", "/zones/example.com.?rrset_name=none.example.com.")["serial"])


async def codes(given: PowerDNSSettings) -> list[str]:
    """Return what the doctor calls it, for two names of zones there."""
    whole = DNSSettings.model_validate({"provider": "powerdns", "powerdns": given})
    found = checks.checks(whole, [FQDN.parse("proxy.example.com")], lambda: None)
    return [f.code for check in found for f in await check.run()]


async def test_what_stands_there_already_is_not_written_again(server: PowerDNSServer) -> None:
    async with opened(settings(server)) as dns:
        await dns.add(a("again.example.com"))
        before = serial(server)
        await dns.add(a("again.example.com"))
        assert serial(server) == before
        with pytest.raises(MusterError):
            await dns.remove(FQDN.parse("again.example.com"), RecordType.AAAA)
        assert serial(server) == before
        await dns.remove(FQDN.parse("again.example.com"), RecordType.A)


@pytest.mark.parametrize("is_told", [True, False])
async def test_a_server_beside_forgets_what_it_answered_before(
    server: PowerDNSServer, beside: PowerDNSServer, is_told: bool
) -> None:
    name = f"asked-{is_told}.example.com".lower()
    assert beside.dig(name, "A") == []
    url = {"url": beside.api} if is_told else {}
    one = {"server": beside.address, "port": beside.port, **url}
    async with opened(settings(server, servers=[one])) as dns:
        await dns.add(a(name))
    # Else it has what it answered in its caches still, for a minute: the test tells those from a fresh look.
    assert beside.dig(name, "A") == ([f"{name}. 300 IN A 192.0.2.10"] if is_told else [])


async def test_a_server_beside_that_is_away_holds_up_no_change(server: PowerDNSServer) -> None:
    away = {"server": "127.0.0.1", "port": 9, "url": "http://127.0.0.1:9/api/v1/servers/localhost"}
    given = settings(server, servers=[{"server": server.address, "port": server.port}, away])
    async with opened(given) as dns:
        await dns.add(a("beside-away.example.com"))
        await dns.reached()
    assert server.dig("beside-away.example.com", "A") != []
    assert await codes(given) == ["DNS-SERVER-SILENT", "DNS-SERVER-SILENT"]


async def test_when_no_server_answers_clients_it_is_not_reached(server: PowerDNSServer) -> None:
    async with opened(settings(server, servers=[{"server": "127.0.0.1", "port": 9}])) as dns:
        with pytest.raises(
            Unavailable, match=r"None of the servers .*127\.0\.0\.1#9 does not answer: Connection refused"
        ):
            await dns.reached()


async def test_two_members_that_add_different_values_to_one_name_end_in_one_of_them(
    server: PowerDNSServer, tmp_path: Path
) -> None:
    url = Secret(f"sqlite:///{tmp_path}/store.db")
    async with store_opened(url) as one, store_opened(url) as two:
        await one.prepare()
        async with opened(settings(server), one) as first, opened(settings(server), two) as second:
            for n in range(10):
                mine, theirs = a(f"race{n}.example.com"), a(f"race{n}.example.com", "192.0.2.11")
                results = await asyncio.gather(first.add(mine), second.add(theirs), return_exceptions=True)
                assert [type(r) for r in results if r is not None] == [Conflict]
                won = mine if results[0] is None else theirs
                assert server.dig(mine.name, "A") == [f"race{n}.example.com. 300 IN A {won.data}"]
            assert await Leases(one).held("dns-powerdns") is None


async def test_many_names_at_once_are_all_there(server: PowerDNSServer) -> None:
    records = [a(f"many{n}.example.com") for n in range(12)]
    async with opened(settings(server)) as dns:
        await asyncio.gather(*map(dns.add, records))
        for record in records:
            assert await dns.lookup(record.name, RecordType.A) == {record.data}


async def test_values_of_srv_added_by_several_at_once_are_all_there(server: PowerDNSServer) -> None:
    name, target = ServiceName.parse("_sip._tcp.example.com"), FQDN.parse("sip.example.com")
    records = [Record(name, RecordType.SRV, SRV(10, 60, port, target)) for port in range(5060, 5068)]
    async with opened(settings(server)) as dns:
        await asyncio.gather(*map(dns.add, records))
        assert await dns.lookup(name, RecordType.SRV) == {r.data for r in records}


async def test_a_secondary_is_not_changed(server: PowerDNSServer) -> None:
    async with opened(settings(server)) as dns:
        with pytest.raises(Rejected, match=r"is not the primary server of copy\.test; adding new\.copy\.test"):
            await dns.add(a("new.copy.test"))
        with pytest.raises(Rejected, match="not the primary"):
            await dns.remove(FQDN.parse("host.copy.test"), RecordType.A)
        with pytest.raises(Rejected, match="not the primary"):
            await dns.is_primary_for(FQDN.parse("host.copy.test"))
    assert server.dig("host.copy.test", "A") == ["host.copy.test. 300 IN A 10.9.9.9"]


async def test_a_key_it_does_not_know_is_said_and_not_shown(server: PowerDNSServer) -> None:
    given = settings(server, rest_api_key="hunter2hunter2")
    async with opened(given) as dns:
        for asking in (dns.add(a("never.example.com")), dns.reached()):
            with pytest.raises(Misconfigured, match=r"answered 401 .* refuses the key") as caught:
                await asking
            assert "hunter2" not in f"{caught.value} {caught.value!r} {dns!r} {given!r}"
    assert await codes(given) == ["DNS-API-KEY"]


async def test_a_key_in_a_file_does_as_well(server: PowerDNSServer, tmp_path: Path) -> None:
    file = tmp_path / "key"
    given = settings(server, rest_api_key=None, rest_api_key_file=file)
    with pytest.raises(Misconfigured, match="No such file"):
        async with opened(given):
            pass
    assert await codes(given) == ["DNS-KEY-ABSENT"]
    for wrong in ("", "two words\r\nX-Other: 1", "schlüssel"):
        file.write_text(wrong)
        with pytest.raises(Misconfigured, match=r"has no API key"):
            async with opened(given):
                pass
    file.write_text(f"{powerdns.API_KEY}\n")
    async with opened(given) as dns:
        await dns.reached()
    assert await codes(given) == []


async def test_what_is_no_such_api_is_named(server: PowerDNSServer) -> None:
    given = settings(server, rest_url=server.api.replace("localhost", "elsewhere"))
    async with opened(given) as dns:
        with pytest.raises(Misconfigured, match="There is no such API"):
            await dns.reached()
    assert await codes(given) == ["DNS-API-KEY"]


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"name": 1}', b"<html>", b'{"name": "example.com.", "rrsets": 3}']
)
async def test_an_answer_that_is_none_of_its_changes_nothing(body: bytes) -> None:
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api/v1/servers/localhost"
        given = PowerDNSSettings.model_validate({"rest_url": url, "rest_api_key": "k", "timeout_s": 2})
        async with opened(given) as dns:
            with pytest.raises(Unavailable):
                await dns.add(a("never.example.com"))
    assert all(line.startswith(b"GET ") for line in asked)


async def test_an_answer_without_end_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provider, "_ANSWER_LIMIT_BYTES", 1000)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b" " * 5000)
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api/v1/servers/localhost"
        given = PowerDNSSettings.model_validate({"rest_url": url, "rest_api_key": "k", "timeout_s": 2})
        async with opened(given) as dns:
            with pytest.raises(Unavailable, match="more than 1000 bytes"):
                await dns.lookup(FQDN.parse("never.example.com"), RecordType.A)


@pytest.mark.parametrize("path", ["/api/v1/servers/elsewhere", "/other/api/v1/servers/localhost"])
async def test_where_no_api_is_nothing_is_taken_for_gone(server: PowerDNSServer, path: str) -> None:
    given = settings(server, rest_url=server.api.partition("/api/")[0] + path)
    async with opened(given) as dns:
        for asking in (dns.remove(FQDN.parse("kept.example.com"), RecordType.A), dns.add(a("never.example.com"))):
            with pytest.raises(Misconfigured, match="There is no such API"):
                await asking


@pytest.mark.parametrize("body", [b"<html>Welcome", b'{"daemon_type": "recursor"}', b"[]"])
async def test_who_is_no_server_of_zones_is_not_reached(body: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/api/v1/servers/localhost"
        given = PowerDNSSettings.model_validate({"rest_url": url, "rest_api_key": "k", "timeout_s": 2})
        async with opened(given) as dns:
            with pytest.raises(Misconfigured, match="no API of a PowerDNS"):
                await dns.reached()
        assert await codes(given) == ["DNS-API-KEY"]


async def ended(leases: Leases) -> None:
    """End the turn that there is, as half a minute does."""
    lease = await leases.held("dns-powerdns")
    assert lease is not None
    await leases.release(lease)


async def test_while_a_change_without_an_answer_may_still_be_made_nobody_else_has_a_turn(
    server: PowerDNSServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_WAITED_S", 0.1)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass calls on to the server, but no PATCH: of that nothing is heard."""
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"PATCH"):
            upstream, to = await asyncio.open_connection(server.address, server.api_port)
            to.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            writer.write(await upstream.read())
            to.close()
        else:
            patched.set()
            await held.wait()
        writer.close()

    patched, held = asyncio.Event(), asyncio.Event()
    listening = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    url = server.api.replace(str(server.api_port), str(listening.sockets[0].getsockname()[1]))
    store = Secret(f"sqlite:///{tmp_path}/store.db")
    async with listening, store_opened(store) as shared:
        await shared.prepare()
        async with (
            opened(settings(server, rest_url=url, timeout_s=0.5), shared) as slow,
            opened(settings(server), shared) as other,
        ):
            with pytest.raises(Unavailable, match="no answer in time"):
                await slow.add(a("late.example.com"))
            with pytest.raises(Unavailable, match="had no turn; nothing was changed"):
                await other.add(a("late.example.com", "192.0.2.11"))
            await ended(Leases(shared))
            patched.clear()
            call = asyncio.create_task(slow.add(a("late.example.com")))
            await patched.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await ended(Leases(shared))
            # What was refused is answered.
            with pytest.raises(Rejected):
                await other.add(a("new.copy.test"))
            assert await Leases(shared).held("dns-powerdns") is None
        held.set()
