from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert, select

from muster.authority import api, own
from muster.authority.authority import PuppetCA, entry_of
from muster.authority.ledger.ledger import Ledger, certificate_row, serial_text
from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import Issuer
from muster.cluster.file import Authority
from muster.edge.routes import Access, Mount
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Rejected, Unavailable
from muster.store.engine import Store
from muster.store.tables import certificates, revocations
from tests.servers import puppetca
from tests.servers.puppetca import ADMINISTRATOR, Answer, asked

pytestmark = pytest.mark.anyio

V1 = "/puppet-ca/v1"
CRL = f"{V1}/certificate_revocation_list/ca"
ADMIN = "foreman.example.net"


def admin() -> bytes:
    return puppetca.certificate_of(puppetca.new_ca(), "proxy01.example.net", cli_auth=ADMINISTRATOR)


def somebody() -> bytes:
    return puppetca.certificate_of(puppetca.new_ca(), "agent01.example.net")


@pytest.fixture
async def open_ca(store: Store, home: Path) -> AsyncIterator[PuppetCA]:
    """Yield a CA that signs everybody, renews, and knows an administrator by name."""
    await puppetca.begin(store, home)
    settings = Authority(autosign=("all",), allow_auto_renewal=True, administrators=(ADMIN,), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        yield ca


async def enrolled(ca: PuppetCA, name: str, **wishes: Any) -> tuple[puppetca.Agent, bytes]:
    """Have a host enrol over the API; return it with its certificate, DER."""
    host = puppetca.agent(name, **wishes)
    put = await asked(ca, "PUT", f"{V1}/certificate_request/{name}", body=host.csr)
    assert (put.status, put.body) == (200, ""), put
    got = await asked(ca, "GET", f"{V1}/certificate/{name}")
    assert got.status == 200
    return host, x509.load_pem_x509_certificate(got.body.encode()).public_bytes(Encoding.DER)


# ------------------------------------------------------------------ a host's way


async def test_a_host_enrols_in_four_requests(open_ca: PuppetCA) -> None:
    bundle = await asked(open_ca, "GET", f"{V1}/certificate/ca")
    lists = await asked(open_ca, "GET", CRL)
    host, der = await enrolled(open_ca, "agent01.example.net")
    assert bundle.body == open_ca.chain_pem
    assert puppetca.number_in(lists.body) == 0
    certificate = x509.load_der_x509_certificate(der)
    assert certificate.public_key() == host.key.public_key()
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(bundle.body.encode()))
    for answer in (bundle, lists):
        assert answer.headers["x-puppet-version"] == "7.23.0"


async def test_a_lost_answer_is_no_trouble_the_second_put_is_400_and_the_get_succeeds(open_ca: PuppetCA) -> None:
    host, _ = await enrolled(open_ca, "agent01.example.net")
    again = await asked(open_ca, "PUT", f"{V1}/certificate_request/agent01.example.net", body=host.csr)
    assert (again.status, again.body) == (
        400,
        "agent01.example.net already has a signed certificate; ignoring certificate request",
    )
    assert (await asked(open_ca, "GET", f"{V1}/certificate/agent01.example.net")).status == 200


async def test_a_request_waits_until_it_is_signed(ca: PuppetCA) -> None:
    host = puppetca.agent("agent01.example.net")
    path = f"{V1}/certificate_request/{host.name}"
    assert (await asked(ca, "PUT", path, body=host.csr)).status == 200
    assert (await asked(ca, "GET", path)).body.encode() == host.csr
    assert (await asked(ca, "GET", f"{V1}/certificate/{host.name}")).status == 404
    signed = await asked(
        ca,
        "PUT",
        f"{V1}/certificate_status/{host.name}",
        by=admin(),
        body=b'{"desired_state":"signed","cert_ttl":3600}',
    )
    assert signed.status == 204
    assert (await asked(ca, "GET", path)).status == 404
    made = x509.load_pem_x509_certificate((await asked(ca, "GET", f"{V1}/certificate/{host.name}")).body.encode())
    assert made.not_valid_after_utc - made.not_valid_before_utc == timedelta(hours=25)


async def test_what_is_refused_is_not_kept_and_does_not_block_the_name(ca: PuppetCA) -> None:
    greedy = puppetca.agent("a.example.net", alternatives=(x509.DNSName("www.example.net"),))
    path = f"{V1}/certificate_request/a.example.net"
    assert (await asked(ca, "PUT", path, body=greedy.csr)).status == 400
    assert (await asked(ca, "GET", path)).status == 404
    assert (await asked(ca, "PUT", path, body=puppetca.agent("a.example.net").csr)).status == 200


async def test_an_imported_request_with_a_flaw_gives_way_to_a_good_one(store: Store, home: Path) -> None:
    await puppetca.take_over(store, home)
    async with puppetca.member(store, home) as ca:
        name = "pend-badsig.example.net"
        path = f"{V1}/certificate_request/{name}"
        sign = await asked(
            ca, "PUT", f"{V1}/certificate_status/{name}", by=puppetca.client("cli"), body=b'{"desired_state":"signed"}'
        )
        assert sign.status == 409
        host = puppetca.agent(name)
        assert (await asked(ca, "PUT", path, body=host.csr)).status == 200
        assert (await asked(ca, "GET", path)).body.encode() == host.csr


# ------------------------------------------------------------------ If-Modified-Since and ETag


async def since(ca: PuppetCA, seconds: float) -> Answer:
    """Ask for the list with the agent's clock that far from when the list changed, whole seconds as agents send them."""
    changed = (await ca.lists()).updated_at
    moment = datetime.fromtimestamp(changed + seconds, UTC)
    return await asked(ca, "GET", CRL, headers={"If-Modified-Since": format_datetime(moment, usegmt=True)})


@pytest.mark.parametrize(
    ("seconds", "status"),
    [(-86_400, 200), (-3600, 200), (-1, 200), (0, 200), (1, 200), (3599, 200), (3602, 304), (86_400, 304)],
)
async def test_an_agent_whose_clock_is_off_by_an_hour_still_gets_a_changed_list(
    ca: PuppetCA, seconds: float, status: int
) -> None:
    answer = await since(ca, seconds)
    assert answer.status == status
    assert (answer.body == "") is (status == 304)
    assert answer.content_type == "text/plain"


async def test_a_list_that_changes_in_the_second_of_a_look_is_fetched_by_the_next_look(open_ca: PuppetCA) -> None:
    """The agent looks, the list changes in the same second, and the agent comes back with the time of its first look."""
    await enrolled(open_ca, "a.example.net")
    looked = format_datetime(datetime.fromtimestamp((await open_ca.lists()).updated_at, UTC), usegmt=True)
    await open_ca.revoke("a.example.net", actor="test")
    answer = await asked(open_ca, "GET", CRL, headers={"If-Modified-Since": looked})
    assert answer.status == 200
    assert puppetca.number_in(answer.body) == 1


async def test_without_slack_only_a_later_moment_is_unchanged(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, Authority(crl_slack_s=0, requests_per_minute=0)) as ca:
        assert [(await since(ca, s)).status for s in (-1, 0, 2)] == [200, 200, 304]


async def test_an_etag_is_the_lists_own_and_changes_with_it(open_ca: PuppetCA) -> None:
    await enrolled(open_ca, "a.example.net")
    first = (await asked(open_ca, "GET", CRL)).headers["etag"]
    same = await asked(open_ca, "GET", CRL, headers={"If-None-Match": first})
    assert (same.status, same.headers["etag"]) == (304, first)
    await open_ca.revoke("a.example.net", actor="test")
    changed = await asked(open_ca, "GET", CRL, headers={"If-None-Match": first})
    assert changed.status == 200
    assert changed.headers["etag"] != first


async def test_with_infra_hosts_agents_get_the_short_list(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(autosign=("all", "hostnames"), infra_hosts=("infra.example.net",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        serials = {}
        # Its name is reserved: all is not enough.
        await ca.autosign.add_host("infra.example.net", by="test")
        for name in ("infra.example.net", "many.example.net"):
            _, der = await enrolled(ca, name)
            serials[name] = x509.load_der_x509_certificate(der).serial_number
        await ca.clean(list(serials), actor="test")
        assert puppetca.revoked_in((await asked(ca, "GET", CRL)).body) == {serials["infra.example.net"]}
        assert puppetca.revoked_in((await ca.lists(whole=True)).pem) == set(serials.values())


async def test_infra_hosts_switched_on_later_have_their_list_from_the_start(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    serials = {}
    async with puppetca.member(store, home, Authority(autosign=("all",), requests_per_minute=0)) as ca:
        for name in ("infra.example.net", "other.example.net", "many.example.net"):
            _, der = await enrolled(ca, name)
            serials[name] = x509.load_der_x509_certificate(der).serial_number
        await ca.clean(list(serials), actor="test")
    async with puppetca.member(store, home, Authority(infra_hosts=("infra.example.net",))) as ca:
        # No short list was ever made: the whole one says at least as much.
        assert puppetca.revoked_in((await asked(ca, "GET", CRL)).body) == set(serials.values())
        await ca.keep_up()
        answer = await asked(ca, "GET", CRL)
        assert puppetca.revoked_in(answer.body) == {serials["infra.example.net"]}
        assert puppetca.number_in(answer.body) == 2
        await ca.keep_up()
        assert (await ca.lists()).number == 2
    # As they are, they are not made anew by the next start.
    async with puppetca.member(store, home, Authority(infra_hosts=("infra.example.net",))) as ca:
        await ca.keep_up()
        assert (await ca.lists()).number == 2
    both = ("infra.example.net", "other.example.net")
    async with puppetca.member(store, home, Authority(infra_hosts=both)) as ca:
        await ca.keep_up()
        assert puppetca.revoked_in((await ca.lists()).pem) == {serials[n] for n in both}


async def test_members_that_know_different_infra_hosts_do_not_take_turns(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    old, new = (Authority(autosign=("all",), infra_hosts=(n,), requests_per_minute=0) for n in ("b.net", "a.net"))
    async with puppetca.member(store, home, old) as before, puppetca.member(store, home, new) as after:
        await enrolled(before, "a.net")
        await before.revoke("a.net", actor="test")
        for _ in range(3):
            for ca in (before, after):
                await ca.keep_up()
        # The one that started with the new hosts made it once.
        assert (await after.lists()).number == 2
        assert len(puppetca.revoked_in((await after.lists()).pem)) == 1


# ------------------------------------------------------------------ who may what

OPEN = [("GET", "certificate/ca"), ("GET", "certificate_revocation_list/ca"), ("GET", "certificate_request/x")]
BEARERS = [("GET", "expirations"), ("POST", "certificate_renewal")]
ADMINISTRATORS = [
    ("GET", "certificate_status/a.example.net"),
    ("PUT", "certificate_status/a.example.net"),
    ("DELETE", "certificate_status/a.example.net"),
    ("GET", "certificate_statuses/all"),
    ("PUT", "clean"),
    ("POST", "sign"),
    ("POST", "sign/all"),
    ("PUT", "certificate_revocation_list"),
]
NOBODY = [
    ("DELETE", "certificate_request/a.example.net"),
    ("POST", "certificate_request/a.example.net"),
    ("PUT", "certificate/a.example.net"),
    ("PATCH", "certificate_status/a.example.net"),
    ("GET", "clean"),
    ("PUT", "certificate_revocation_list/ca"),
    ("GET", "certificate_revocation_list/other"),
    ("GET", "certificate_renewal"),
    ("GET", "bogus"),
    ("GET", ""),
]


async def statuses(ca: PuppetCA, by: bytes | None, calls: list[tuple[str, str]]) -> list[int]:
    return [(await asked(ca, method, f"{V1}/{path}", by=by)).status for method, path in calls]


async def test_everybody_may_what_is_open_and_nobody_what_has_no_rule(ca: PuppetCA) -> None:
    for by in (None, somebody(), admin()):
        assert 403 not in await statuses(ca, by, OPEN)
        assert set(await statuses(ca, by, NOBODY)) == {403}


async def test_bearers_need_a_certificate_and_administrators_a_right(ca: PuppetCA) -> None:
    assert set(await statuses(ca, None, BEARERS + ADMINISTRATORS)) == {403}
    assert 403 not in await statuses(ca, somebody(), BEARERS)
    assert set(await statuses(ca, somebody(), ADMINISTRATORS)) == {403}
    assert 403 not in await statuses(ca, admin(), BEARERS + ADMINISTRATORS)


async def test_an_administrator_may_be_known_by_name(open_ca: PuppetCA, store: Store) -> None:
    named = await imported(store, ADMIN, ec.generate_private_key(ec.SECP256R1()), [])
    near = await imported(store, f"x{ADMIN}", ec.generate_private_key(ec.SECP256R1()), [])
    # Signed with the CA's key, and written down nowhere: nobody could revoke it by its name.
    unknown = puppetca.certificate_of(puppetca.new_ca(), ADMIN)
    assert set(await statuses(open_ca, unknown, ADMINISTRATORS)) == {403}
    assert 403 not in await statuses(open_ca, named, ADMINISTRATORS)
    assert set(await statuses(open_ca, near, ADMINISTRATORS)) == {403}


@pytest.mark.parametrize(
    "value", [b"true", b"\x0c\x05false", b"\x0c\x04TRUE", b"\x16\x04true", b"\x0c\x05true\x00", b""]
)
async def test_only_the_word_true_is_an_authority(ca: PuppetCA, value: bytes) -> None:
    """As an import may bring it; over HTTP such a request is never signed."""
    issuer = puppetca.new_ca()
    made = x509.load_der_x509_certificate(puppetca.certificate_of(issuer, "x.example.net", cli_auth=value))
    held = made.extensions.get_extension_for_oid(puppetca.AUTHORISED).value
    assert isinstance(held, x509.UnrecognizedExtension)
    assert held.value != ADMINISTRATOR or value == b"true"
    is_true = held.value == ADMINISTRATOR
    assert await ca.holds_authority(made.public_bytes(Encoding.DER)) is is_true


async def test_an_authority_forged_by_another_ca_is_none(ca: PuppetCA) -> None:
    for name in ("Puppet CA: other", "Puppet CA: test"):
        # Even one that calls itself by our name: its signature is not ours.
        other = _another(name)
        forged = puppetca.certificate_of(other, "proxy01.example.net", cli_auth=ADMINISTRATOR)
        assert set(await statuses(ca, forged, ADMINISTRATORS)) == {403}


def _another(name: str) -> puppetca.NewCA:
    key = ec.generate_private_key(ec.SECP256R1())
    made = profile.self_signed(name, key, now=datetime.now(UTC), ttl=timedelta(days=1))
    return puppetca.NewCA(Issuer.read(profile.pem_of(made)), key)


async def test_a_revoked_certificate_is_refused_at_open_endpoints_too(open_ca: PuppetCA) -> None:
    _, der = await enrolled(open_ca, "a.example.net")
    before = await statuses(open_ca, der, OPEN + BEARERS)
    assert 403 not in before
    await open_ca.revoke("a.example.net", actor="test")
    assert set(await statuses(open_ca, der, OPEN + BEARERS + ADMINISTRATORS)) == {403}
    assert (await asked(open_ca, "GET", "/status/v1/simple", by=der)).status == 403
    # The host itself, without it, may still fetch what it needs to enrol anew.
    assert 403 not in await statuses(open_ca, None, OPEN)


async def test_pp_cli_auth_is_never_signed_over_http(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    settings = Authority(autosign=("all",), allow_authorization_extensions=True, requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        for value in (ADMINISTRATOR, b"true", b""):
            host = puppetca.agent("a.example.net", extensions=((puppetca.AUTHORISED.dotted_string, value),))
            put = await asked(ca, "PUT", f"{V1}/certificate_request/a.example.net", body=host.csr)
            assert (put.status, "not permitted" in put.body) == (400, True)


@pytest.mark.parametrize(
    "path",
    [
        f"{V1}/certificate/ca/",
        f"{V1}/certificate/..%2Fcertificate_statuses/all",
        f"{V1}/certificate/%2e%2e/certificate_statuses/all",
        f"{V1}/certificate/../certificate_statuses/all",
        "//puppet-ca/v1/certificate_statuses/all",
        f"{V1}//certificate_statuses/all",
        "/puppet-ca/v1/certificate%5fstatuses/all",
        "/PUPPET-CA/v1/certificate_statuses/all",
        "/puppet-ca/v2/certificate_statuses/all",
        f"{V1}/certificate/..%252fcertificate_statuses/all",
    ],
)
async def test_no_spelling_of_a_path_gets_around_the_rules(ca: PuppetCA, path: str) -> None:
    answer = await asked(ca, "GET", path)
    assert answer.status in (400, 403, 404)
    assert "[" not in answer.body


async def test_a_path_that_climbs_above_the_root_is_rejected(ca: PuppetCA) -> None:
    with pytest.raises(Rejected, match="bad URI"):
        await asked(ca, "GET", "/../../etc/passwd")


# ------------------------------------------------------------------ renewal


async def test_a_host_renews_with_the_key_it_has(open_ca: PuppetCA) -> None:
    host, der = await enrolled(open_ca, "a.example.net", renews=True)
    answer = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
    assert answer.status == 200
    new = x509.load_pem_x509_certificate(answer.body.encode())
    assert new.public_key() == host.key.public_key()
    assert new.serial_number != x509.load_der_x509_certificate(der).serial_number
    assert (await asked(open_ca, "GET", f"{V1}/certificate/a.example.net")).body == answer.body
    # The old one stays valid, and whoever lost the answer gets the same again.
    again = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
    assert (again.status, again.body) == (200, answer.body)
    assert (await asked(open_ca, "GET", f"{V1}/expirations", by=der)).status == 200


async def test_an_answer_that_was_lost_until_its_certificate_ended_is_given_anew(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    clock = FakeClock(datetime.now(UTC))
    settings = Authority(autosign=("all",), allow_auto_renewal=True, auto_renewal_ttl_days=10, requests_per_minute=0)
    async with puppetca.member(store, home, settings, clock=clock) as ca:
        _, der = await enrolled(ca, "a.example.net")
        lost = await ca.renew(der)
        clock.advance(timedelta(days=9).total_seconds())
        assert await ca.renew(der) == lost
        clock.advance(timedelta(days=2).total_seconds())
        given = await ca.renew(der)
        assert given != lost
        assert x509.load_pem_x509_certificate(given.encode()).not_valid_after_utc > clock.now()
        assert await ca.certificate("a.example.net") == given


async def test_a_certificate_replaced_for_another_key_is_not_given_to_the_old_ones_holder(open_ca: PuppetCA) -> None:
    _, der = await enrolled(open_ca, "a.example.net")
    await own.host_files(open_ca, "a.example.net", ["a.example.net"])
    answer = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
    assert (answer.status, "replaced" in answer.body) == (403, True)


async def test_a_renewal_that_was_revoked_is_not_given_again(open_ca: PuppetCA, store: Store) -> None:
    _, der = await enrolled(open_ca, "a.example.net")
    await open_ca.renew(der)
    # Its own revocation alone, as an import may bring it; revoking the name revokes both.
    live = x509.load_pem_x509_certificate((await open_ca.certificate("a.example.net")).encode())
    async with store.write() as uow:
        row = {"serial": serial_text(live.serial_number), "certname": "a.example.net", "revoked_at": 0.0}
        await uow.connection.execute(insert(revocations).values(**row))
    assert (await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)).status == 403


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: rsa.generate_private_key(65537, 1024), "RSA keys must have 2048"),  # noqa: S505 - as puppetserver takes it
        (lambda: ec.generate_private_key(ec.SECP224R1()), "Curve secp224r1 is not accepted"),
        ("*.example.net", "a wildcard among its names"),
        (x509.RFC822Name("root@example.net"), "names other than DNS and IP: RFC822Name"),
    ],
    ids=["rsa-1024", "p-224", "wildcard", "e-mail"],
)
async def test_what_would_not_be_signed_is_not_renewed_and_that_is_written_down_once(
    open_ca: PuppetCA, store: Store, made: Any, said: str
) -> None:
    """Such certificates come by import: puppetserver signs them."""
    key = made() if callable(made) else ec.generate_private_key(ec.SECP256R1())
    extra = [] if callable(made) else [x509.DNSName(made) if isinstance(made, str) else made]
    der = await imported(store, "a.example.net", key, extra)
    for _ in range(2):
        answer = await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=der)
        assert (answer.status, answer.content_type) == (400, "text/plain;charset=utf-8")
        assert said in answer.body
    with pytest.raises(Rejected, match="Clean it, and let the host ask anew"):
        await open_ca.renew_name("a.example.net", actor="test")
    async with store.read() as uow:
        live = select(certificates.c.serial).where(certificates.c.certname == "a.example.net")
        assert len((await uow.connection.execute(live)).all()) == 1
    history = await Ledger(store, "test").history("a.example.net", most=10)
    assert [(h["event"], h["actor"]) for h in history] == [("renewal refused", "a.example.net")]


async def imported(store: Store, name: str, key: Any, extra: list[x509.GeneralName]) -> bytes:
    """Put a certificate into the ledger that no request would get; return it, DER."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name), *extra]), critical=False)
    request = csr.as_der(builder.sign(key, hashes.SHA256()))
    new = puppetca.new_ca()
    signed = profile.signed_leaf(
        request, new.issuer, new.key, serial=profile.random_serial(), now=datetime.now(UTC), ttl=timedelta(days=9)
    )
    async with store.write() as uow:
        row = certificate_row(entry_of(signed), "importer")
        await uow.connection.execute(insert(certificates).values(**row, issued_at=0.0))
    return signed.public_bytes(Encoding.DER)


async def test_renewal_that_is_off_is_not_found_which_agents_take_silently(ca: PuppetCA) -> None:
    answer = await asked(ca, "POST", f"{V1}/certificate_renewal", by=somebody())
    assert (answer.status, answer.body) == (404, "Not Found")


async def test_what_another_ca_issued_is_not_renewed(open_ca: PuppetCA) -> None:
    other = puppetca.certificate_of(puppetca.new_ca("Puppet CA: other"), "a.example.net")
    assert (await asked(open_ca, "POST", f"{V1}/certificate_renewal", by=other)).status == 403


async def test_agents_that_renew_get_the_shorter_time(open_ca: PuppetCA) -> None:
    _, long = await enrolled(open_ca, "a.example.net")
    _, short = await enrolled(open_ca, "b.example.net", renews=True)

    def days(der: bytes) -> int:
        found = x509.load_der_x509_certificate(der)
        return (found.not_valid_after_utc - found.not_valid_before_utc).days

    assert (days(long), days(short)) == (1826, 91)


# ------------------------------------------------------------------ limits


async def test_a_client_that_asks_too_often_is_told_to_wait_and_others_are_not(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, Authority(requests_per_minute=3)) as ca:
        path = f"{V1}/certificate_request/a.example.net"
        for _ in range(3):
            assert (await asked(ca, "PUT", path, body=b"junk")).status == 400
        with pytest.raises(Unavailable, match="sent 3 certificate requests within a minute"):
            await asked(ca, "PUT", path, body=b"junk")
        assert (await asked(ca, "PUT", path, body=b"junk", address="192.0.2.10")).status == 400


async def test_no_more_requests_wait_than_the_limit_says(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    async with puppetca.member(store, home, Authority(pending_limit=2, requests_per_minute=0)) as ca:

        async def put(name: str) -> Answer:
            return await asked(ca, "PUT", f"{V1}/certificate_request/{name}", body=puppetca.agent(name).csr)

        assert [(await put(f"n{i}.example.net")).status for i in range(2)] == [200, 200]
        full = await put("n2.example.net")
        assert (full.status, "wait for an administrator already" in full.body) == (400, True)
        await ca.reject("n0.example.net", actor="test")
        assert (await put("n2.example.net")).status == 200


# ------------------------------------------------------------------ the rest


@pytest.mark.parametrize("ttl_s", [0, -1, -86_400, -86_401, -200_000, -100 * 365 * 86_400])
async def test_a_time_to_live_below_zero_is_given_as_by_a_puppetserver(ca: PuppetCA, ttl_s: int) -> None:
    await ca.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
    body = json.dumps({"desired_state": "signed", "cert_ttl": ttl_s}).encode()
    signed = await asked(ca, "PUT", f"{V1}/certificate_status/a.example.net", by=admin(), body=body)
    assert (signed.status, signed.body) == (204, "")
    made = x509.load_pem_x509_certificate((await ca.certificate("a.example.net")).encode())
    assert made.not_valid_before_utc <= made.not_valid_after_utc <= datetime.now(UTC)


@pytest.mark.parametrize("name", ["\ud800", "a\udfff.example.net", "a\0.example.net"])
async def test_what_can_be_no_name_is_refused_before_the_ledger_is_asked(
    open_ca: PuppetCA, store: Store, name: str
) -> None:
    await open_ca.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
    body = json.dumps({"certnames": ["a.example.net", name]}).encode()
    clean = await asked(open_ca, "PUT", f"{V1}/clean", by=admin(), body=body)
    assert (clean.status, clean.body) == (400, "'certnames' must be a list of names.")
    assert (await asked(open_ca, "POST", f"{V1}/sign", by=admin(), body=body)).status == 422
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: open_ca.clean(["a.example.net", name], actor="test"),
        lambda: open_ca.sign_all(["a.example.net", name], actor="test"),
        lambda: open_ca.certificate(name),
        lambda: open_ca.request(name),
        lambda: open_ca.status(name),
        *(
            lambda do=do: do(name, actor="test")
            for do in (open_ca.sign, open_ca.revoke, open_ca.remove, open_ca.reject, open_ca.renew_name)
        ),
        lambda: Ledger(store, "test").history(name, most=1),
    ]
    for call in calls:
        with pytest.raises(Rejected, match=r"(ud800|udfff|x00).* is no certname"):
            await call()
    # Nothing was done to the name beside it.
    status = await open_ca.status("a.example.net")
    assert status is not None
    assert status.state == "signed"


async def test_names_known_by_nobody_are_404_and_clean_says_which(ca: PuppetCA) -> None:
    by = admin()
    revoke = await asked(
        ca, "PUT", f"{V1}/certificate_status/x.example.net", by=by, body=b'{"desired_state":"revoked"}'
    )
    assert (revoke.status, revoke.body) == (404, "Invalid certificate subject.")
    clean = await asked(ca, "PUT", f"{V1}/clean", by=by, body=b'{"certnames":["x.example.net","y\\"z"]}')
    assert clean.body == 'The following certs do not exist and cannot be revoked: ["x.example.net" "y\\"z"]'


async def test_bulk_signing_signs_each_by_itself(ca: PuppetCA) -> None:
    for name in ("a.example.net", "b.example.net", "c.example.net"):
        await ca.submit(name, puppetca.agent(name).csr, source="192.0.2.1")
    some = await asked(ca, "POST", f"{V1}/sign", by=admin(), body=b'{"certnames":["b.example.net","x.example.net"]}')
    assert json.loads(some.body) == {"signed": ["b.example.net"], "no-csr": ["x.example.net"], "signing-errors": []}
    every = await asked(ca, "POST", f"{V1}/sign/all", by=admin(), body=b"{}")
    assert json.loads(every.body) == {"signed": ["a.example.net", "c.example.net"], "no-csr": [], "signing-errors": []}
    for wrong in (b"", b"[]", b'{"certnames":"a"}', b'{"certnames":[1]}'):
        assert (await asked(ca, "POST", f"{V1}/sign", by=admin(), body=wrong)).status == 422


async def test_expirations_name_every_certificate_and_list(store: Store, home: Path) -> None:
    await puppetca.take_over(store, home)
    async with puppetca.member(store, home) as ca:
        content = json.loads((await asked(ca, "GET", f"{V1}/expirations", by=puppetca.client("agent"))).body)
        both = {"Puppet CA: proxy01.example.net", "Puppet Root CA: 97f86624230bc9"}
        assert {k: set(v) for k, v in content.items()} == {"ca-certs": both, "crls": both}


async def test_a_list_is_pushed_to_a_puppetserver_keeping_its_mode(store: Store, home: Path, tmp_path: Path) -> None:
    pushed, absent = tmp_path / "crl.pem", tmp_path / "absent" / "crl.pem"
    pushed.write_text("old")
    pushed.chmod(0o640)
    await puppetca.begin(store, home)
    settings = Authority(autosign=("all",), push_crl=(pushed,), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        await ca.keep_up()
        assert puppetca.number_in(pushed.read_text()) == 0
        await enrolled(ca, "a.example.net")
        await ca.revoke("a.example.net", actor="test")
        assert puppetca.number_in(pushed.read_text()) == 1
        assert pushed.stat().st_mode & 0o777 == 0o640
        # What another member revokes is seen, too; this one is asked for nothing.
        async with puppetca.member(store, home, Authority(autosign=("all",), requests_per_minute=0)) as other:
            await enrolled(other, "b.example.net")
            await other.revoke("b.example.net", actor="test")
        await ca.follow()
        assert ca.list_now is not None
        assert (ca.list_now.number, puppetca.number_in(pushed.read_text())) == (2, 2)
    async with puppetca.member(store, home, Authority(push_crl=(absent,))) as ca:
        # A directory that is not there is logged, and nothing fails.
        await ca.keep_up()
        assert not absent.exists()


@pytest.mark.parametrize("days", [1, 10, 30, 1825])
async def test_a_list_of_any_life_is_renewed_in_its_last_fifth_or_month_and_not_before(
    store: Store, home: Path, days: int
) -> None:
    settings = Authority(crl_ttl_days=days, requests_per_minute=0)
    await puppetca.begin(store, home, settings=settings)
    clock = FakeClock(datetime.now(UTC))
    ahead_s = min(30.0, days / 5) * 86_400
    async with puppetca.member(store, home, settings, clock=clock) as ca:
        await ca.keep_up()
        clock.advance(days * 86_400 - ahead_s - 600)
        await ca.keep_up()
        assert (await ca.lists()).number == 0
        clock.advance(1200)
        await ca.keep_up()
        await ca.keep_up()
        assert (await ca.lists()).number == 1


async def test_a_list_is_renewed_before_it_ends_and_its_number_grows(store: Store, home: Path) -> None:
    await puppetca.begin(store, home)
    clock = FakeClock(datetime.now(UTC))
    async with puppetca.member(store, home, clock=clock) as ca:
        await ca.keep_up()
        assert (await ca.lists()).number == 0
        clock.advance(timedelta(days=1825 - 29).total_seconds())
        await ca.keep_up()
        await ca.keep_up()
        lists = await ca.lists()
        assert (lists.number, puppetca.number_in(lists.pem)) == (1, 1)
        ends = x509.load_pem_x509_crl(lists.pem.encode()).next_update_utc
        assert ends is not None
        assert ends > clock.now() + timedelta(days=1800)


def test_the_mount_answers_everything_itself() -> None:
    assert api.MOUNT.access is Access.OPEN
    assert api.MOUNT.unrouted is api.answered
    assert Mount("", ()).unrouted is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"desired_state":"\\ud800"}',
        b'{"desired_state":"signed","cert_ttl":"\\udfff"}',
        b'{"desired_state":"signed","cert_ttl":["\\ud800"]}',
        b'{"desired_state":"\xff"}',
        b'"\\ud800"',
    ],
)
async def test_a_wish_that_is_no_text_is_refused_and_no_bug(open_ca: PuppetCA, body: bytes) -> None:
    await enrolled(open_ca, "a.example.net")
    answer = await asked(open_ca, "PUT", f"{V1}/certificate_status/a.example.net", by=admin(), body=body)
    assert answer.status == 400


@pytest.mark.parametrize(
    "path", ["/status/v1/simple", "/status/v1/simple/ca", "/status/v1/services", "/status/v1/services/ca"]
)
async def test_a_ca_that_cannot_answer_says_when_to_ask_again(
    open_ca: PuppetCA, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    assert "retry-after" not in (await asked(open_ca, "GET", path)).headers

    async def down() -> None:
        raise Unavailable("the store did not answer")

    monkeypatch.setattr(open_ca, "reached", down)
    answer = await asked(open_ca, "GET", path)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
