"""What only dynamic updates under GSS-TSIG have: keytabs, tickets, a realm's clock, keys that end or are forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from muster.features.dns import checks
from muster.features.dns.contract import Record, RecordType
from muster.features.dns.providers import nsupdate_gss
from muster.features.dns.providers.nsupdate import NSUpdateDNS
from muster.features.dns.providers.nsupdate_gss import ClockOff, KDCAway, NegotiatedKey, NoKeytab, NoTicket
from muster.features.dns.settings import DNSSettings, NSUpdateGSSSettings
from muster.kernel.errors import MusterError, Rejected
from muster.kernel.names import FQDN
from tests.servers import bind, kerberos
from tests.servers.bind import BindServer, Kerberos, Zone
from tests.servers.kerberos import Realm

pytestmark = pytest.mark.anyio

OURS, SERVICE = "muster@EXAMPLE.COM", "DNS/ns.example.com@EXAMPLE.COM"
ZONES = (Zone("example.com"), Zone("readonly.test", updatable=False))
NAME = FQDN.parse("host.example.com")
RECORD = Record(NAME, RecordType.A, ip_address("192.0.2.10"))


@pytest.fixture(scope="module")
def realm(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    needs("kerberos")
    with kerberos.running(tmp_path_factory.mktemp("realm")) as running, pytest.MonkeyPatch.context() as patch:
        # Kerberos' library has no other seam.
        patch.setenv("KRB5_CONFIG", str(running.configuration))
        running.principal(OURS, "muster.keytab")
        running.principal(SERVICE, "named.keytab")
        yield running


@pytest.fixture(scope="module")
def server(
    realm: Realm, needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BindServer]:
    needs("bind")
    by = Kerberos(realm.directory / "named.keytab", OURS, realm.configuration)
    with bind.running(tmp_path_factory.mktemp("bind"), zones=ZONES, kerberos=by) as server:
        yield server


@pytest.fixture
def given(realm: Realm, server: BindServer) -> dict[str, Any]:
    return {
        "server": server.address, "port": server.port, "tsig_keytab": realm.directory / "muster.keytab",
        "service": SERVICE, "timeout_s": 3,
    }  # fmt: skip


@asynccontextmanager
async def opened(given: dict[str, Any]) -> AsyncIterator[NSUpdateDNS]:
    async with nsupdate_gss.opened(NSUpdateGSSSettings.model_validate(given), 300) as provider:
        yield provider


async def failure(given: dict[str, Any]) -> MusterError:
    async with opened(given) as provider:
        with pytest.raises(MusterError) as caught:
            await provider.add(RECORD)
    return caught.value


async def code(given: dict[str, Any]) -> list[str]:
    """Return what the doctor calls it."""
    settings = DNSSettings.model_validate({"provider": "nsupdate_gss", "nsupdate_gss": given})
    return [f.code for check in checks.checks(settings, [NAME], lambda: None) for f in await check.run()]


async def test_a_server_of_the_realm_is_well(given: dict[str, Any]) -> None:
    assert await code(given) == []


async def test_a_principal_that_is_named_is_who_we_are(given: dict[str, Any]) -> None:
    async with opened({**given, "tsig_principal": OURS}) as provider:
        await provider.add(RECORD)
        await provider.remove(NAME, RecordType.A)


async def test_one_key_serves_many_calls_at_once(given: dict[str, Any]) -> None:
    async with opened({**given, "connections": 4}) as provider:
        records = [Record(FQDN.parse(f"m{i}.example.com"), RecordType.A, ip_address("192.0.2.11")) for i in range(30)]
        await asyncio.gather(*map(provider.add, records))
        signing = provider.signing
        assert isinstance(signing, NegotiatedKey)
        key = signing._key
        await asyncio.gather(*(provider.remove(r.name, r.type) for r in records))
        assert signing._key is key is not None


async def test_a_key_that_ends_soon_is_agreed_on_anew(given: dict[str, Any], realm: Realm) -> None:
    short = realm.principal("short@EXAMPLE.COM", "short.keytab", "-maxlife", "20 seconds")
    async with opened({**given, "tsig_keytab": short}) as provider:
        signing = provider.signing
        assert isinstance(signing, NegotiatedKey)
        await provider.lookup(NAME, RecordType.A)
        first = signing._key
        await provider.lookup(NAME, RecordType.A)
        assert first is not None
        assert signing._key is not first


async def test_a_server_that_forgot_the_key_is_told_another(given: dict[str, Any], server: BindServer) -> None:
    async with opened(given) as provider:
        await provider.add(RECORD)
        first = provider.signing._key  # type: ignore[attr-defined]
        await asyncio.to_thread(server.stop)
        # What BIND keeps of such keys when it ends in peace; one that is killed keeps none.
        (kept,) = server.key_file.parent.glob("*.tsigkeys")
        kept.unlink()
        await asyncio.to_thread(server.start)
        await provider.remove(NAME, RecordType.A)
        assert provider.signing._key is not first  # type: ignore[attr-defined]
    assert server.dig(NAME, "A") == []


async def test_who_may_not_change_a_zone_is_named(given: dict[str, Any], realm: Realm) -> None:
    other = realm.principal("other@EXAMPLE.COM", "other.keytab")
    given = {**given, "tsig_keytab": other, "tsig_principal": "other@EXAMPLE.COM"}
    error = await failure(given)
    assert isinstance(error, Rejected)
    assert "does not let principal other@EXAMPLE.COM change example.com" in str(error)
    assert await code(given) == ["DNS-REFUSED"]


@pytest.mark.parametrize("content", [None, b"", b"no keytab"])
async def test_a_keytab_that_is_none_is_said_when_it_is_opened(
    given: dict[str, Any], tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "keytab"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NoKeytab, match=r"keytab"):
        async with opened({**given, "tsig_keytab": path}):
            pass
    assert await code({**given, "tsig_keytab": path}) == ["DNS-KEY-ABSENT" if content is None else "DNS-KEYTAB"]


async def test_a_keytab_that_went_away_is_said(given: dict[str, Any], tmp_path: Path, realm: Realm) -> None:
    path = tmp_path / "keytab"
    path.write_bytes((realm.directory / "muster.keytab").read_bytes())
    async with opened({**given, "tsig_keytab": path}) as provider:
        path.unlink()
        with pytest.raises(NoKeytab, match="No such file"):
            await provider.add(RECORD)


async def test_a_principal_that_the_keytab_lacks_is_named(given: dict[str, Any]) -> None:
    given = {**given, "tsig_principal": "nobody@EXAMPLE.COM"}
    error = await failure(given)
    assert isinstance(error, NoKeytab)
    assert "principal nobody@EXAMPLE.COM" in str(error)
    assert await code(given) == ["DNS-KEYTAB"]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (["-expire", "2020-01-01"], "the account has expired"),
        (["-allow_tix"], "locked or disabled"),
        (["-pwexpire", "2020-01-01"], "its password has expired"),
    ],
    ids=["expired", "locked", "password"],
)
async def test_an_account_that_is_none_any_more_is_said(
    given: dict[str, Any], realm: Realm, made: list[str], said: str
) -> None:
    name = f"ended-{made[0].strip('-')}"
    path = realm.principal(f"{name}@EXAMPLE.COM", f"{name}.keytab")
    realm.administer(["modprinc", *made, name])
    error = await failure({**given, "tsig_keytab": path})
    assert isinstance(error, NoTicket)
    assert said in str(error)


@pytest.mark.parametrize("options", [[], ["+requires_preauth"]], ids=["plain", "preauth"])
async def test_a_keytab_that_is_older_than_its_key_is_said(
    given: dict[str, Any], realm: Realm, options: list[str]
) -> None:
    number = f"old{len(options)}"
    path = realm.principal(f"{number}@EXAMPLE.COM", f"{number}.keytab", *options)
    realm.administer(["cpw", "-randkey", number])
    error = await failure({**given, "tsig_keytab": path})
    assert isinstance(error, NoTicket)
    assert "make the keytab anew" in str(error)
    assert await code({**given, "tsig_keytab": path}) == ["DNS-TICKET"]
    realm.administer(["delprinc", "-force", number])
    assert "the realm has no such principal" in str(await failure({**given, "tsig_keytab": path}))


async def test_a_server_the_realm_does_not_know_is_named(given: dict[str, Any]) -> None:
    error = await failure({**given, "service": "DNS/elsewhere.example.com"})
    assert isinstance(error, NoTicket)
    assert "the realm has no such server" in str(error)
    assert "DNS/elsewhere.example.com" in str(error)


async def test_a_server_with_another_key_than_the_realms_refuses_us_and_is_named(
    given: dict[str, Any], realm: Realm, server: BindServer
) -> None:
    # There is such a principal; the server is not it.
    realm.principal("DNS/other.example.com", "unused.keytab")
    given = {**given, "service": "DNS/other.example.com"}
    error = await failure(given)
    assert isinstance(error, NoTicket)
    assert f"{server.address}#{server.port} refuses the ticket" in str(error)
    assert await code(given) == ["DNS-TICKET"]


async def test_a_server_without_kerberos_is_named(
    given: dict[str, Any], realm: Realm, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    with bind.running(tmp_path / "bind", zones=ZONES) as plain:
        error = await failure({**given, "port": plain.port})
    assert isinstance(error, NoTicket)
    assert "takes no keys by Kerberos" in str(error)


async def test_while_the_kdc_is_away_a_key_serves_and_no_other_is_had(given: dict[str, Any], realm: Realm) -> None:
    async with opened(given) as provider:
        await provider.add(RECORD)
        await asyncio.to_thread(realm.stop)
        try:
            await provider.remove(NAME, RecordType.A)
            error = await failure(given)
            assert isinstance(error, KDCAway)
            assert "no server of the realm can be reached" in str(error)
            assert await code(given) == ["DNS-KDC-DOWN"]
        finally:
            await asyncio.to_thread(realm.start)


@pytest.mark.parametrize("off", ["+1h", "-1h"])
async def test_a_realm_with_another_clock_is_said(given: dict[str, Any], realm: Realm, off: str) -> None:
    await asyncio.to_thread(realm.stop)
    try:
        await asyncio.to_thread(realm.start, off)
        error = await failure(given)
        assert isinstance(error, ClockOff)
        assert "set the clocks" in str(error)
        assert await code(given) == ["DNS-CLOCK"]
    finally:
        await asyncio.to_thread(realm.stop)
        await asyncio.to_thread(realm.start)
    async with opened(given) as provider:
        await provider.lookup(NAME, RecordType.A)


async def test_a_kdc_that_never_answers_is_not_waited_for(
    given: dict[str, Any], tmp_path: Path, realm: Realm, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    configuration = tmp_path / "krb5.conf"
    configuration.write_text(realm.configuration.read_text().replace(f":{realm.port}", f":{port}"))
    monkeypatch.setenv("KRB5_CONFIG", str(configuration))
    error = await failure({**given, "timeout_s": 0.3})
    assert isinstance(error, KDCAway)
    assert "within 0.3 s" in str(error)
    listening.close()
