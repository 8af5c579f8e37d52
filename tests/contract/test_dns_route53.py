"""What only Route 53 has, of a stand-in: signatures, pages, zones of one name, changes with conditions, bounds."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.loaders import Loader

from muster.features.dns import checks, providers
from muster.features.dns.contract import SRV, NoZone, Record, RecordType
from muster.features.dns.providers import route53
from muster.features.dns.providers.route53 import ClockOff, Route53DNS
from muster.features.dns.settings import DNSSettings, Route53Settings
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import FQDN, ServiceName
from tests.servers import member, route53_stand_in
from tests.servers.route53_stand_in import ACCESS_KEY, SECRET_KEY, Account, HostedZone, Values

pytestmark = pytest.mark.anyio

WEB = FQDN.parse("web.example.com")
_MINUTES = timedelta(minutes=1)


@pytest.fixture
def account() -> Iterator[Account]:
    with route53_stand_in.running() as account:
        account.add("example.com")
        yield account


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route53, "_PAUSES_S", (0.0, 0.0, 0.0))


def given(account: Account, **change: Any) -> dict[str, Any]:
    known = {"url": account.url, "aws_access_key": ACCESS_KEY, "aws_secret_key": SECRET_KEY, "timeout_s": 5}
    return {**known, **change}


@asynccontextmanager
async def opened(account: Account, believed_s: float = 0, **change: Any) -> AsyncIterator[Route53DNS]:
    settings = Route53Settings.model_validate(given(account, **change))
    async with route53.opened(settings, 300, believed_s=believed_s) as provider:
        yield provider


def a(name: str, address: str = "192.0.2.10") -> Record:
    return Record(FQDN.parse(name), RecordType.A, ip_address(address))


async def codes(account: Account, **change: Any) -> list[str]:
    """Return what the doctor calls it, beside that the provider is unproven."""
    settings = DNSSettings.model_validate({"provider": "route53", "route53": given(account, **change)})
    found = [f.code for check in checks.checks(settings, (), lambda: None) for f in await check.run()]
    assert found[0] == "DNS-UNPROVEN"
    return found[1:]


async def test_a_record_is_made_under_the_condition_that_there_is_none(account: Account) -> None:
    async with opened(account) as dns:
        await dns.add(a("Web.example.com"))
        asked = len(account.asked)
        await dns.add(a("web.example.com"))
    (zone,) = account.zones
    assert zone.sets["web.example.com.", "A", ""] == Values(300, ("192.0.2.10",))
    # What is there is not written again, and the zone is not looked for again at once.
    assert [one.partition("?")[0] for one in account.asked[asked:]] == [f"GET /2013-04-01/hostedzone/{zone.id}/rrset"]
    assert await codes(account) == []


async def test_foreman_is_answered_through_a_member(account: Account, tmp_path: Path) -> None:
    feature = {"use_provider": "dns_route53", "ttl_s": 60, "route53": given(account)}

    def asked() -> list[tuple[int, str]]:
        with member.running(tmp_path, features={"dns": feature}) as running:

            def call(method: str, path: str, **form: str) -> tuple[int, str]:
                answer = running.ask(method, path, body=urlencode(form).encode())
                return answer.status, answer.body.decode()

            one = {"fqdn": "call.example.com", "value": "192.0.2.80", "type": "A"}
            return [
                call("POST", "/dns/", **one),
                call("POST", "/dns/", **one),
                call("POST", "/dns/", **{**one, "value": "192.0.2.81"}),
                call("POST", "/dns/", fqdn="_sip._tcp.example.com", value="1 2 5060 call.example.com", type="SRV"),
                call("POST", "/dns/", **{**one, "fqdn": "call.nozone.test"}),
                call("DELETE", "/dns/call.example.com/AAAA"),
                call("DELETE", "/dns/call.nozone.test/A"),
                call("DELETE", "/dns/_sip._tcp.example.com/SRV"),
            ]

    answers = await asyncio.to_thread(asked)
    assert [status for status, _ in answers] == [200, 200, 409, 200, 400, 200, 404, 200]
    assert answers[2][1] == "'call.example.com 'is already in use"
    assert account.zones[0].sets["call.example.com.", "A", ""] == Values(60, ("192.0.2.80",))
    assert not account.values("_sip._tcp.example.com", "SRV")


async def test_nothing_of_the_environment_and_of_files_counts(
    account: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".aws").mkdir()
    wrong = "aws_access_key_id = AKIAELSEWHERE0000000\naws_secret_access_key = elsewhere\nregion = eu-west-1\n"
    for file in ("config", "credentials"):
        (tmp_path / ".aws" / file).write_text(f"[default]\n{wrong}endpoint_url = http://127.0.0.1:9\n")
    models = tmp_path / ".aws/models/route53/2013-04-01"
    models.mkdir(parents=True)
    (models / "service-2.json").write_text("no model")
    # It knows this home since it was imported.
    monkeypatch.setattr(Loader, "CUSTOMER_DATA_PATH", str(tmp_path / ".aws/models"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAELSEWHERE0000000", "AWS_SECRET_ACCESS_KEY": "elsewhere", "AWS_SESSION_TOKEN": "t",
        "AWS_PROFILE": "nowhere", "AWS_DEFAULT_PROFILE": "nowhere", "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_CA_BUNDLE": "/nowhere",
        "AWS_ENDPOINT_URL_ROUTE_53": "http://127.0.0.1:9", "AWS_CONFIG_FILE": str(tmp_path / ".aws/config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / ".aws/credentials"), "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_MAX_ATTEMPTS": "9", "AWS_RETRY_MODE": "none such", "AWS_DEFAULTS_MODE": "none such",
        "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9",
        "ALL_PROXY": "http://127.0.0.1:9", "AWS_DATA_PATH": "/nowhere",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    async with opened(account) as dns:
        await dns.add(a("web.example.com"))
    # The stand-in knows one key, and one region.
    assert account.values("web.example.com", "A") == ("192.0.2.10",)


async def test_zones_and_records_are_read_page_by_page(account: Account) -> None:
    account.page = 2
    for number in range(7):
        account.add(f"zone{number}.test")
    deep = account.add("deep.zone3.test")
    name = "many.deep.zone3.test"
    for kind in ("CAA", "MX", "TXT", "SPF", "NAPTR"):
        deep.sets[f"{name}.", kind, ""] = Values(300, (f'"{kind}"',))
    deep.sets[f"{name}.", "A", ""] = Values(300, ("192.0.2.9",))
    for number in range(4):
        deep.sets[f"{name}.", "SRV", f"weight{number}"] = Values(
            300, (f"1 1 {number + 1} {name}.",), "<Weight>1</Weight>"
        )
    async with opened(account) as dns:
        with pytest.raises(Conflict, match=r"holds A, CAA, MX, NAPTR, SPF, SRV, TXT records"):
            await dns.add(Record(FQDN.parse(name), RecordType.CNAME, WEB))
        found = await dns.lookup(FQDN.parse(name), RecordType.SRV)
        assert sorted(d.port for d in found if isinstance(d, SRV)) == [1, 2, 3, 4]
        assert await dns.lookup(FQDN.parse("before.many.deep.zone3.test"), RecordType.A) == frozenset()
    assert len([one for one in account.asked if one.startswith("GET /2013-04-01/hostedzone?")]) == 5


async def test_the_longest_name_of_a_zone_counts(account: Account) -> None:
    account.add("a.example.com")
    account.add("xample.com")
    async with opened(account) as dns:
        for name in ("web.a.example.com", "a.example.com", "weba.example.com"):
            await dns.add(a(name))
    zones = {zone.name: sorted(key[0] for key in zone.sets if key[1] == "A") for zone in account.zones}
    assert zones == {
        "example.com.": ["weba.example.com."],
        "a.example.com.": ["a.example.com.", "web.a.example.com."],
        "xample.com.": [],
    }


async def test_which_of_two_zones_of_one_name_is_meant_must_be_said(account: Account) -> None:
    private = account.add("example.com", private=True)
    public = account.zones[0]
    async with opened(account) as dns:
        said = rf"has 2 zones example\.com: {public.id} \(public\), {private.id} \(private\).*zone_ids"
        for asking in (dns.add(a("web.example.com")), dns.remove(WEB, RecordType.A), dns.lookup(WEB, RecordType.A)):
            with pytest.raises(Rejected, match=said) as caught:
                await asking
            assert not isinstance(caught.value, NoZone)
    async with opened(account, zone_ids=[private.id]) as dns:
        await dns.add(a("web.example.com"))
        # The account may have a zone for it that is none of ours.
        with pytest.raises(Rejected, match="serves no zone") as caught:
            await dns.remove(FQDN.parse("web.elsewhere.test"), RecordType.A)
        assert not isinstance(caught.value, NoZone)
    assert ("web.example.com.", "A", "") in private.sets
    assert ("web.example.com.", "A", "") not in public.sets
    # With ids, nothing is listed.
    assert not any(one.startswith("GET /2013-04-01/hostedzone?") for one in account.asked[-4:])
    assert await codes(account, zone_ids=[private.id]) == []


async def test_an_id_of_no_zone_is_named(account: Account) -> None:
    async with opened(account, zone_ids=["ZNOWHERE"]) as dns:
        for asking in (dns.reached(), dns.add(a("web.example.com")), dns.remove(WEB, RecordType.A)):
            with pytest.raises(Misconfigured, match="No hosted zone found with ID: ZNOWHERE"):
                await asking
    assert await codes(account, zone_ids=["ZNOWHERE"]) == ["DNS-API-KEY"]


async def test_a_zone_that_is_made_or_removed_meanwhile_is_noticed(account: Account) -> None:
    async with opened(account) as dns:
        with pytest.raises(Rejected, match="serves no zone"):
            await dns.add(a("web.new.test"))
        new = account.add("new.test")
        await dns.add(a("web.new.test"))
        account.zones.remove(new)
        with pytest.raises(Rejected, match="serves no zone"):
            await dns.add(a("other.new.test"))
        account.zones.append(new)
        await dns.remove(FQDN.parse("web.new.test"), RecordType.A)
        account.zones.remove(new)
        with pytest.raises(NoZone):
            await dns.remove(FQDN.parse("web.new.test"), RecordType.A)


async def test_of_an_account_without_zones_nothing_is_taken_for_gone(account: Account) -> None:
    account.zones.clear()
    async with opened(account) as dns:
        with pytest.raises(Rejected, match="serves no zone") as caught:
            await dns.remove(WEB, RecordType.A)
        assert not isinstance(caught.value, NoZone)


@pytest.mark.parametrize(
    "kept",
    [
        ("web.example.com.", "A", "", Values(other="<AliasTarget><HostedZoneId>Z2</HostedZoneId><DNSName>lb.test.</DNSName>"
         "<EvaluateTargetHealth>false</EvaluateTargetHealth></AliasTarget>")),
        ("web.example.com.", "A", "blue", Values(60, ("192.0.2.9",), "<Weight>1</Weight>")),
    ],
    ids=["alias", "routing"],
)  # fmt: skip
async def test_what_somebody_made_there_counts_and_stays(account: Account, kept: tuple[Any, ...]) -> None:
    (zone,) = account.zones
    zone.sets[kept[:3]] = kept[3]
    before = dict(zone.sets)
    async with opened(account) as dns:
        with pytest.raises(Conflict, match=r"holds A"):
            await dns.add(a("web.example.com"))
        with pytest.raises(Rejected, match=r"made by somebody .* it stays"):
            await dns.remove(WEB, RecordType.A)
    assert zone.sets == before


async def test_values_are_removed_whatever_they_and_their_time_to_live_are(account: Account) -> None:
    (zone,) = account.zones
    zone.sets["web.example.com.", "A", ""] = Values(7, ("192.0.2.1", "192.0.2.2"))
    async with opened(account) as dns:
        await dns.remove(WEB, RecordType.A)
        with pytest.raises(NotFound):
            await dns.remove(WEB, RecordType.A)
    assert not account.values("web.example.com", "A")


async def test_a_change_of_others_between_looking_and_changing_is_not_lost(account: Account) -> None:
    key = ("web.example.com.", "A", "")

    def others(zone: HostedZone) -> None:
        zone.sets[key] = Values(60, ("192.0.2.99",))

    (zone,) = account.zones
    async with opened(account) as dns:
        account.before = others
        with pytest.raises(Conflict, match=r"holds A 192\.0\.2\.99"):
            await dns.add(a("web.example.com"))
        assert zone.sets[key].values == ("192.0.2.99",)
        # What was looked at is no more: it is looked at again, and then removed.
        account.before = lambda zone: zone.sets.update({key: Values(60, ("192.0.2.98",))})
        await dns.remove(WEB, RecordType.A)
        assert key not in zone.sets
        # Others made the same.
        account.before = lambda zone: zone.sets.update({key: Values(300, ("192.0.2.10",))})
        await dns.add(a("web.example.com"))
        # Others removed it.
        account.before = lambda zone: zone.sets.pop(key)
        with pytest.raises(NotFound):
            await dns.remove(WEB, RecordType.A)


async def test_values_of_srv_that_members_add_at_once_are_all_there(account: Account) -> None:
    name, target = ServiceName.parse("_sip._tcp.example.com"), FQDN.parse("sip.example.com")
    records = [Record(name, RecordType.SRV, SRV(10, 60, port, target)) for port in range(5060, 5066)]
    (zone,) = account.zones
    zone.sets["_sip._tcp.example.com.", "SRV", ""] = Values(60, ("1 2 3 old.example.com.",))
    async with opened(account) as one, opened(account) as two:
        await asyncio.gather(*((one, two)[n % 2].add(record) for n, record in enumerate(records)))
        assert await one.lookup(name, RecordType.SRV) == {
            *(r.data for r in records), SRV(1, 2, 3, FQDN("old.example.com")),
        }  # fmt: skip


async def test_a_change_it_does_not_like_is_refused_once(account: Account) -> None:
    async with opened(account) as dns:
        for code, message in (("InvalidChangeBatch", "[The record set is protected]"), ("InvalidInput", "bad")):
            del account.asked[:]
            account.refuse_changes = (400, code, message)
            with pytest.raises(Rejected, match=r"(protected|bad).* not done"):
                await dns.add(a("web.example.com"))
            assert len([one for one in account.asked if one.startswith("POST")]) == 1
        account.refuse_changes = None
        await dns.add(a("web.example.com"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"aws_secret_key": "hunter2/hunter2/hunter2"}, "SignatureDoesNotMatch"),
        ({"aws_access_key": "AKIAELSEWHERE0000000"}, "InvalidClientTokenId"),
        ({"region": "eu-west-1"}, "SignatureDoesNotMatch"),
    ],
)
async def test_a_key_it_refuses_is_said_and_the_secret_not_shown(
    account: Account, change: dict[str, Any], said: str
) -> None:
    async with opened(account, **change) as dns:
        for asking in (dns.reached(), dns.add(a("web.example.com")), dns.remove(WEB, RecordType.A)):
            with pytest.raises(Misconfigured, match=f"answered 403 {said}.* It refuses key AKIA") as caught:
                await asking
            shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {dns!r} {vars(dns)}"
            assert "hunter2" not in shown
            assert SECRET_KEY not in shown
    assert await codes(account, **change) == ["DNS-API-KEY"]


@pytest.mark.parametrize("off", [-6 * _MINUTES, 6 * _MINUTES])
async def test_a_clock_that_is_off_is_named(account: Account, off: timedelta) -> None:
    account.off = off
    async with opened(account) as dns:
        with pytest.raises(ClockOff, match=r"Signature (?:expired|not yet current).* Set the clocks"):
            await dns.add(a("web.example.com"))
    assert await codes(account) == ["DNS-CLOCK"]


async def test_what_the_accounts_policy_does_not_allow_is_named(account: Account) -> None:
    denied = (403, "AccessDenied", "User: arn:aws:iam::1:user/m is not authorized to perform: route53:ListHostedZones")
    account.refusals = [denied] * 2
    async with opened(account) as dns:
        with pytest.raises(Rejected, match="is not authorized to perform"):
            await dns.add(a("web.example.com"))
    assert await codes(account) == ["DNS-REFUSED"]


@pytest.mark.parametrize(
    "refusal",
    [
        (400, "Throttling", "Rate exceeded"),
        (
            400,
            "PriorRequestNotComplete",
            "The request was rejected because Route 53 was still processing a prior request.",
        ),
    ],
)
async def test_who_asks_too_often_waits_a_while_and_then_gives_up(
    account: Account, refusal: tuple[int, str, str]
) -> None:
    async with opened(account) as dns:
        account.refusals = [refusal] * 3
        await dns.add(a("web.example.com"))
        assert account.values("web.example.com", "A") == ("192.0.2.10",)
        account.refusals = [refusal] * 4
        with pytest.raises(Unavailable, match=f"answered 400 {refusal[1]}.*not done"):
            await dns.remove(WEB, RecordType.A)
        assert account.refusals == []
        assert account.values("web.example.com", "A") == ("192.0.2.10",)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"{}"),
        (200, b"<html><body>Welcome</body></html>"),
        (200, b"<html><br>"),
        (200, b'<?xml version="1.0"?><ListHostedZonesResponse><MaxItems>100</MaxItems></ListHostedZonesResponse>'),
        (200, b"<r><HostedZones>3</HostedZones><IsTruncated>false</IsTruncated><HostedZones/></r>"),
        (200, b"<r><HostedZones><HostedZone/></HostedZones><IsTruncated>false</IsTruncated></r>"),
        (200, b"\xff\xfe"),
        (500, b"<html>"),
        (503, b""),
        (302, b""),
        (408, b"<ErrorResponse><Error><Code>RequestTimeout</Code></Error></ErrorResponse>"),
        (404, b"<html>no such page</html>"),
        (404, b""),
    ],
)
async def test_where_no_route_53_is_nothing_is_taken_for_gone(account: Account, status: int, body: bytes) -> None:
    account.broken = (status, body)
    async with opened(account) as dns:
        for asking in (dns.remove(WEB, RecordType.A), dns.add(a("web.example.com")), dns.reached()):
            with pytest.raises((Unavailable, Misconfigured)) as caught:
                await asking
            assert not isinstance(caught.value, NotFound)
    assert await codes(account) in (["DNS-DOWN"], ["DNS-API-KEY"])


async def test_an_answer_without_end_or_too_late_is_not_waited_for(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(account, timeout_s=0.5) as dns:
        monkeypatch.setattr(route53, "_ANSWER_LIMIT_BYTES", 1000)
        account.broken = (200, b" " * 5000)
        with pytest.raises(Unavailable, match="more than 1000 bytes"):
            await dns.add(a("web.example.com"))
        account.broken, account.slow_s = None, 2
        with pytest.raises(Unavailable, match=r"no answer in time|cannot be reached"):
            await dns.add(a("web.example.com"))
        account.slow_s = 0
        await dns.add(a("web.example.com"))


async def test_an_answer_a_moment_ago_is_believed_and_a_failure_ends_that(account: Account) -> None:
    async with opened(account, believed_s=60) as dns:
        for _ in range(5):
            await dns.reached()
        assert len(account.asked) == 1
        account.broken = (503, b"")
        await dns.reached()
        with pytest.raises(Unavailable):
            await dns.add(a("web.example.com"))
        with pytest.raises(Unavailable):
            await dns.reached()


async def test_a_secret_key_in_a_file_does_as_well(account: Account, tmp_path: Path) -> None:
    file = tmp_path / "key"
    change: dict[str, Any] = {"aws_secret_key": None, "aws_secret_key_file": file}
    with pytest.raises(Misconfigured, match="No such file"):
        async with opened(account, **change):
            pass
    assert await codes(account, **change) == ["DNS-KEY-ABSENT"]
    for wrong in ("", "two words of hunter2 hunter2", "hunter2"):
        file.write_text(wrong)
        with pytest.raises(Misconfigured, match="has no secret key in its first line") as caught:
            async with opened(account, **change):
                pass
        assert "hunter2" not in str(caught.value)
    file.write_text(f"{SECRET_KEY}\n")
    async with opened(account, **change) as dns:
        await dns.reached()


@pytest.mark.parametrize(
    ("ip", "is_known", "said"),
    [("127.0.0.1", True, ""), ("127.0.0.1", False, "not accepted"), ("127.0.0.9", True, "not accepted")],
)
async def test_over_tls_its_certificate_must_be_its_own(tmp_path: Path, ip: str, is_known: bool, said: str) -> None:
    pem = tmp_path / "server.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    named = ["-subj", "/CN=route53", "-addext", f"subjectAltName=IP:{ip}", "-keyout", str(pem), "-out", f"{pem}.crt"]
    subprocess.run([*made, *named], check=True, capture_output=True, timeout=20)
    pem.write_text(pem.read_text() + Path(f"{pem}.crt").read_text())
    with route53_stand_in.running(pem) as account:
        account.add("example.com")
        async with opened(account, ca=f"{pem}.crt" if is_known else None) as dns:
            if not said:
                await dns.add(a("web.example.com"))
                return
            with pytest.raises(Misconfigured, match=f"failed in TLS: .*{said}"):
                await dns.add(a("web.example.com"))
        assert account.asked == []


async def test_without_the_library_the_provider_says_what_to_install(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.awsrequest", None)
    monkeypatch.delitem(sys.modules, route53.__name__)
    monkeypatch.delattr(providers, "route53")
    with pytest.raises(Misconfigured, match=r"no botocore on this host .*requirements-route53\.txt.*muster\[route53\]"):
        importlib.import_module(route53.__name__)
    assert await codes(account) == ["DNS-AWS-LIBRARY"]


async def test_a_closed_port_is_named(account: Account) -> None:
    async with opened(account, url="http://127.0.0.1:9") as dns:
        with pytest.raises(MusterError, match=r"127\.0\.0\.1:9 cannot be reached: Connection refused"):
            await dns.reached()
    assert await codes(account, url="http://127.0.0.1:9") == ["DNS-DOWN"]
