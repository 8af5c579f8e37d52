from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from muster.authority import api
from muster.authority.authority import PuppetCA
from muster.authority.ledger.ledger import Ledger
from muster.cluster.file import Authority
from muster.edge.routes import Access, Mount
from muster.kernel.errors import Rejected, Unavailable
from muster.store.engine import Store
from tests.servers import puppetca
from tests.servers.puppetca import ADMINISTRATOR, Answer, asked
from tests.unit.authority.hosts import ADMIN, CRL, V1, admin, another, enrolled, imported, somebody

pytestmark = pytest.mark.anyio


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
    changed = (await ca.lists.served()).updated_at
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
    looked = format_datetime(datetime.fromtimestamp((await open_ca.lists.served()).updated_at, UTC), usegmt=True)
    await open_ca.certificates.revoke("a.example.net", actor="test")
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
    await open_ca.certificates.revoke("a.example.net", actor="test")
    changed = await asked(open_ca, "GET", CRL, headers={"If-None-Match": first})
    assert changed.status == 200
    assert changed.headers["etag"] != first


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
    assert await ca.certificates.holds_authority(made.public_bytes(Encoding.DER)) is is_true


async def test_an_authority_forged_by_another_ca_is_none(ca: PuppetCA) -> None:
    for name in ("Puppet CA: other", "Puppet CA: test"):
        # Even one that calls itself by our name: its signature is not ours.
        other = another(name)
        forged = puppetca.certificate_of(other, "proxy01.example.net", cli_auth=ADMINISTRATOR)
        assert set(await statuses(ca, forged, ADMINISTRATORS)) == {403}


async def test_a_revoked_certificate_is_refused_at_open_endpoints_too(open_ca: PuppetCA) -> None:
    _, der = await enrolled(open_ca, "a.example.net")
    before = await statuses(open_ca, der, OPEN + BEARERS)
    assert 403 not in before
    await open_ca.certificates.revoke("a.example.net", actor="test")
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
        await ca.requests.reject("n0.example.net", actor="test")
        assert (await put("n2.example.net")).status == 200


# ------------------------------------------------------------------ the rest


@pytest.mark.parametrize("ttl_s", [0, -1, -86_400, -86_401, -200_000, -100 * 365 * 86_400])
async def test_a_time_to_live_below_zero_is_given_as_by_a_puppetserver(ca: PuppetCA, ttl_s: int) -> None:
    await ca.requests.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
    body = json.dumps({"desired_state": "signed", "cert_ttl": ttl_s}).encode()
    signed = await asked(ca, "PUT", f"{V1}/certificate_status/a.example.net", by=admin(), body=body)
    assert (signed.status, signed.body) == (204, "")
    made = x509.load_pem_x509_certificate((await ca.certificates.pem("a.example.net")).encode())
    assert made.not_valid_before_utc <= made.not_valid_after_utc <= datetime.now(UTC)


@pytest.mark.parametrize("name", ["\ud800", "a\udfff.example.net", "a\0.example.net"])
async def test_what_can_be_no_name_is_refused_before_the_ledger_is_asked(
    open_ca: PuppetCA, store: Store, name: str
) -> None:
    await open_ca.requests.submit("a.example.net", puppetca.agent("a.example.net").csr, source="192.0.2.1")
    body = json.dumps({"certnames": ["a.example.net", name]}).encode()
    clean = await asked(open_ca, "PUT", f"{V1}/clean", by=admin(), body=body)
    assert (clean.status, clean.body) == (400, "'certnames' must be a list of names.")
    assert (await asked(open_ca, "POST", f"{V1}/sign", by=admin(), body=body)).status == 422
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: open_ca.certificates.clean(["a.example.net", name], actor="test"),
        lambda: open_ca.requests.sign_all(["a.example.net", name], actor="test"),
        lambda: open_ca.certificates.pem(name),
        lambda: open_ca.requests.pem(name),
        lambda: open_ca.certificates.status(name),
        *(
            lambda do=do: do(name, actor="test")
            for do in (
                open_ca.requests.sign,
                open_ca.certificates.revoke,
                open_ca.certificates.remove,
                open_ca.requests.reject,
                open_ca.certificates.renew_name,
            )
        ),
        lambda: Ledger(store, "test").history(name, most=1),
    ]
    for call in calls:
        with pytest.raises(Rejected, match=r"(ud800|udfff|x00).* is no certname"):
            await call()
    # Nothing was done to the name beside it.
    status = await open_ca.certificates.status("a.example.net")
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
        await ca.requests.submit(name, puppetca.agent(name).csr, source="192.0.2.1")
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
