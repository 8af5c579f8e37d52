from __future__ import annotations

import base64
import contextlib
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.authority.ledger.entries import entry_of, pending_of
from muster.authority.x509 import csr, profile
from muster.authority.x509.csr import CertificateRequest
from muster.authority.x509.profile import crls_in
from muster.kernel.errors import Rejected
from tests import scale
from tests.servers import puppetca

# A common name of 133 characters is one of the fixtures.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")

CSR = puppetca.RECORDED / "csr"
KEY = ec.generate_private_key(ec.SECP256R1())


def judged(request: CertificateRequest, name: str, *, all_allowed: bool = False) -> str:
    """Return why a request is refused, empty when it is not."""
    try:
        csr.refuse_subject(request, name)
        csr.refuse_content(request, allow_alternatives=all_allowed, allow_authorisations=all_allowed)
    except Rejected as e:
        return str(e)
    return ""


# ------------------------------------------------------------------ every fixture, against the table of its README


def _rows() -> list[tuple[str, str, str, str]]:
    """Return file, certname, outcome with autosign on, outcome with everything allowed."""
    found = []
    for line in (CSR / "README.md").read_text("utf-8").splitlines():
        cells = [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 6 or not cells[0].endswith((".pem", ".der")):
            continue
        named = re.match(r"`([^`]*)`", cells[1])
        name = named[1] if named else f"{cells[0].rpartition('.')[0]}.example.net"
        # Beside the ordinary: a name the table shortens, and one whose line feed stands as two characters.
        if name.endswith("…"):
            name = f"{'l' * 60}.{'m' * 60}.example.net"
        found.append((cells[0], name.replace("\\n", "\n"), cells[3], cells[4]))
    return found


ROWS = _rows()

# What puppetserver signs and we do not, with what we say.
STRICTER: Mapping[str, str] = {
    "rsa1024.pem": "RSA keys must have 2048",
    "ec-secp256k1.pem": "Curve secp256k1 is not accepted",
    "cn-ca.pem": "is reserved",
}
STRICTER_WHEN_ALLOWED: Mapping[str, str] = {**STRICTER, "san-wildcard.pem": "contains a wildcard among"}

# The table's words for a refusal → ours, which are puppetserver's.
SAID: Mapping[str, str] = {
    "bad signature": "CSR contains a public key that does not correspond to the signing key",
    "extra SAN (": "contains extra subject alternative names (",
    "authorisation extension": "contains an authorization extension",
    "extension ": "Found extensions that are not permitted: ",
    "upper case": "Certificate names must be lower case.",
    "name ≠ CN": "does not match requested key",
    "bad host name": "Subject hostname format is invalid",
}


def _check(outcome: str, said: str, stricter: str | None) -> None:
    if stricter is not None:
        assert outcome.startswith("200")
        assert stricter in said
    elif outcome.startswith("200"):
        assert said == ""
    elif outcome.startswith("400"):
        words = outcome.removeprefix("400 ").removesuffix(", left").replace("\\*", "*")
        ours = next((words.replace(theirs, our, 1) for theirs, our in SAID.items() if words.startswith(theirs)), None)
        # Known by the ledger, or no relative path: those two are not the request's own fault.
        assert ours is not None or words in ("already signed", "relative path")
        assert (ours or "") in said
    else:
        # A name no route takes, or a body that makes the original stumble: refused here, whichever of the two it was.
        assert outcome.startswith(("404", "500"))
        assert said


@pytest.mark.parametrize(("file", "name", "autosign", "allowed"), ROWS, ids=[r[0] for r in ROWS])
def test_each_fixture_is_judged_as_the_table_says(file: str, name: str, autosign: str, allowed: str) -> None:
    body = (CSR / file).read_bytes()
    for outcome, all_allowed, stricter in ((autosign, False, STRICTER), (allowed, True, STRICTER_WHEN_ALLOWED)):
        if not outcome:
            continue
        try:
            said = judged(csr.read(body), name, all_allowed=all_allowed)
        except Rejected as e:
            said = str(e)
        _check(outcome, said, stricter.get(file))


def test_the_table_was_read() -> None:
    assert len(ROWS) > 90
    assert {r[0] for r in ROWS} >= {*STRICTER, *STRICTER_WHEN_ALLOWED}
    assert sum(bool(r[3]) for r in ROWS) > 25


def fixture(name: str) -> CertificateRequest:
    return csr.read((CSR / f"{name}.pem").read_bytes())


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("enc-der.der", "holds no certificate request"),
        ("enc-empty.pem", "holds no certificate request"),
        ("enc-garbage.pem", "holds no certificate request"),
        ("enc-two.pem", "more than one PEM object"),
        ("enc-bad-base64.pem", "is no base64"),
        ("enc-bad-der.pem", "cannot be decoded"),
        ("enc-truncated.pem", "cannot be decoded"),
        ("enc-no-end.pem", "has no end line"),
        ("enc-public-key.pem", "holds a public key"),
        ("enc-certificate.pem", "holds a certificate, not"),
    ],
)
def test_what_is_no_request_is_named(file: str, said: str) -> None:
    with pytest.raises(Rejected, match=said):
        csr.read((CSR / file).read_bytes())


@pytest.mark.parametrize("name", ["ver-1", "ver-2-own", "ver-2-cli"])
def test_any_version_is_read_and_its_signature_is_over_what_was_sent(name: str) -> None:
    request = fixture(name)
    assert request.is_signed_by_its_key()
    assert request.der != request.parsed.public_bytes(Encoding.DER)
    again = csr.read(request.pem.encode())
    assert (again.der, again.sha256) == (request.der, request.sha256)


def test_a_version_changed_on_the_way_breaks_the_signature() -> None:
    der = bytearray(fixture("plain").der)
    der[der.index(b"\x02\x01\x00") + 2] = 2
    changed = csr.of_der(bytes(der))
    assert not changed.is_signed_by_its_key()
    assert "does not correspond" in judged(changed, "plain.example.net")


def test_a_pem_block_is_made_in_sixty_four_columns() -> None:
    request = fixture("plain")
    lines = request.pem.splitlines()
    assert max(map(len, lines)) == 64
    assert request.pem.encode() == request.parsed.public_bytes(Encoding.PEM)


def test_a_body_above_the_limit_is_refused_before_it_is_looked_at() -> None:
    body = puppetca.agent("a.example.net").csr
    padded = body + b" " * (csr.LIMIT_BYTES - len(body))
    assert csr.read(padded).name == "a.example.net"
    with pytest.raises(Rejected, match="larger than 65536"):
        csr.read(padded + b" ")


def test_attributes_are_read_and_are_no_extensions() -> None:
    assert fixture("attr-challenge").challenge == "opensesame"
    assert fixture("plain").challenge is None
    renewing = fixture("attr-autorenew")
    assert renewing.wants_renewal
    assert renewing.extensions == ()
    assert not fixture("plain").wants_renewal


def test_a_repeated_extension_is_refused_with_its_number() -> None:
    request = csr.read(puppetca.request_with_extension_twice("twice.example.net"))
    assert request.is_signed_by_its_key()
    with pytest.raises(Rejected, match=r"has extension 1\.2\.3\.4\.5 twice"):
        _ = request.extensions


def test_the_first_fault_is_named_in_puppetservers_order() -> None:
    faults = fixture("ext-many-faults")
    assert "extra subject alternative names" in judged(faults, "ext-many-faults.example.net")
    allowed = judged(faults, "ext-many-faults.example.net", all_allowed=True)
    assert allowed == "Found extensions that are not permitted: 1.3.6.1.4.1.34380.1.3.39, 1.2.3.4.5"


def test_addresses_are_shown_as_java_writes_them_and_before_names() -> None:
    assert fixture("san-ipv6").alternatives.shown == ("IP:2001:db8:0:0:0:0:0:10", "DNS:san-ipv6.example.net")


# ------------------------------------------------------------------ hostile requests


def made(*names: x509.GeneralName, extensions: tuple[tuple[str, bytes], ...] = ()) -> CertificateRequest:
    return csr.read(puppetca.agent("a.example.net", alternatives=names, extensions=extensions).csr)


def test_an_address_that_is_a_network_is_refused() -> None:
    request = made(x509.IPAddress(ip_network("192.0.2.0/24")))
    assert "other than DNS and IP: IPAddress" in judged(request, "a.example.net", all_allowed=True)
    assert made(x509.IPAddress(ip_address("192.0.2.1"))).alternatives.addresses == ("192.0.2.1",)


@pytest.mark.parametrize("value", [b"", b"\x0c", b"\x0c\x81", b"\x0c\x84", b"\x0c\x80", b"\x0c\x05abc", b"\xff" * 300])
def test_an_extension_that_only_looks_like_text_is_wrapped_and_signed(value: bytes) -> None:
    request = made(extensions=(("1.3.6.1.4.1.34380.1.1.13", value),))
    assert judged(request, "a.example.net") == ""
    new = puppetca.new_ca()
    leaf = profile.signed_leaf(request, new.issuer, new.key, serial=1, now=datetime.now(UTC), ttl=timedelta(days=1))
    copied = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.34380.1.1.13")).value
    assert isinstance(copied, x509.UnrecognizedExtension)
    assert csr.utf8_body(copied.value) == value


def test_a_key_of_an_unknown_kind_is_refused() -> None:
    der = puppetca.agent("a.example.net").csr
    body = csr.read(der).der.replace(bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d0263"))
    assert judged(csr.of_der(body), "a.example.net")


def test_a_subject_that_cannot_be_decoded_is_refused() -> None:
    body = csr.read(puppetca.agent("a.example.net").csr).der.replace(b"\x0c\x0da.ex", b"\x0c\x0d\xff\xff\xff\xff")
    with pytest.raises(Rejected, match="subject of the certificate request cannot be decoded"):
        _ = csr.of_der(body).name


VALID = csr.read(puppetca.agent("a.example.net", challenge="x", renews=True).csr).der


def everything(request: CertificateRequest) -> None:
    """Do all that is done to a request before anybody decides about it."""
    said = judged(request, request.name, all_allowed=True)
    _ = request.challenge, request.wants_renewal, request.sha256, request.pem
    if not said:
        signed_and_shown(request)


def signed_and_shown(request: CertificateRequest) -> None:
    new = puppetca.new_ca()
    pending_of(request)
    leaf = profile.signed_leaf(request, new.issuer, new.key, serial=1, now=datetime.now(UTC), ttl=timedelta(days=1))
    entry_of(leaf, request.name)
    profile.renewed_leaf(leaf, new.issuer, new.key, serial=2, now=datetime.now(UTC), ttl=timedelta(days=1))


def harmless(work: Callable[[], object]) -> None:
    """Whatever the input is: nothing but Rejected, which the client gets as 400."""
    with contextlib.suppress(Rejected):
        work()


@given(st.binary(max_size=200))
def test_bytes_are_a_request_or_rejected(body: bytes) -> None:
    harmless(lambda: everything(csr.read(body)))
    harmless(lambda: everything(csr.of_der(body)))
    label = b"CERTIFICATE REQUEST-----\n"
    harmless(lambda: everything(csr.read(b"-----BEGIN " + label + base64.b64encode(body) + b"\n-----END " + label)))


EDITS = st.lists(
    st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 2), st.integers(0, 255)), min_size=1, max_size=4
)


@pytest.mark.proof
@settings(max_examples=scale.CHANGED_REQUESTS, deadline=None)
@given(EDITS)
def test_a_request_changed_anywhere_is_a_request_or_rejected(edits: list[tuple[int, int, int]]) -> None:
    body = bytearray(VALID)
    for at, how, value in edits:
        at = min(at, len(body) - 1)
        if how == 0:
            body[at] = value
        elif how == 1:
            del body[at]
        else:
            body.insert(at, value)
    harmless(lambda: everything(csr.of_der(bytes(body))))


TEXTS = st.text(alphabet="ab-._A*é\n\0 0", max_size=20) | st.just("host.example.net")
PUPPETS = st.tuples(
    st.builds("1.3.6.1.4.1.34380.1.{}.{}".format, st.integers(1, 3), st.integers(1, 50)),
    st.binary(max_size=20) | st.binary(max_size=20).map(lambda b: b"\x0c" + b),
    st.booleans(),
)
NAMES: Any = st.one_of(
    TEXTS.map(x509.DNSName._init_without_validation),
    st.sampled_from(["192.0.2.1", "fe80::1"]).map(lambda a: x509.IPAddress(ip_address(a))),
    st.sampled_from(["192.0.2.0/24", "fe80::/64"]).map(lambda a: x509.IPAddress(ip_network(a))),
    st.just(x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))),
    st.just(x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")),
)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.lists(NAMES, max_size=3), st.lists(PUPPETS, max_size=3, unique_by=lambda e: e[0]))
def test_what_is_accepted_can_be_signed_shown_and_renewed(
    name: str, names: list[x509.GeneralName], extensions: list[tuple[str, bytes, bool]]
) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for number, value, critical in extensions:
        oid = x509.ObjectIdentifier(number)
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=critical)
    try:
        der = builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)
    except ValueError:
        return
    harmless(lambda: everything(csr.of_der(der)))


# ------------------------------------------------------------------ hostile sizes


def _costs(work: Callable[[bytes], object], unit: bytes, size: int) -> float:
    body = unit * (size // len(unit))
    best = float("inf")
    for _ in range(5):
        begun = time.process_time()
        harmless(lambda: work(body))
        best = min(best, time.process_time() - begun)
    return best


@pytest.mark.parametrize(
    "unit",
    [
        b"-----BEGIN ",
        b"-----BEGIN CERTIFICATE REQUEST-----",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA",
        b"-----END CERTIFICATE REQUEST-----",
        b"-",
        b" ",
        b"A",
        b"-----BEGIN AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_reading_a_hostile_body_costs_no_more_than_its_length(unit: bytes) -> None:
    """Eight times the length is about eight times the work; were it quadratic, sixty-four times. No clock is asserted."""
    begun = b"-----BEGIN CERTIFICATE REQUEST-----\n"
    for head in (b"", begun):
        small = _costs(lambda body, head=head: csr.read(head + body), unit, 7_500)  # type: ignore[misc]
        large = _costs(lambda body, head=head: csr.read(head + body), unit, 60_000)  # type: ignore[misc]
        assert large < max(small, 1e-4) * 40


@pytest.mark.parametrize("unit", ["-----BEGIN X509 CRL-----", " ", "\n", "A", "A\n", "-----END X509 CRL-----", "="])
def test_reading_hostile_lists_costs_no_more_than_their_length(unit: str) -> None:
    def read(body: bytes) -> None:
        for text in (body.decode(), f"-----BEGIN X509 CRL-----{body.decode()}"):
            try:
                crls_in(text)
            except ValueError as e:
                raise Rejected(str(e) or "no list") from e

    small, large = (_costs(read, unit.encode(), size) for size in (20_000, 160_000))
    assert large < max(small, 1e-4) * 40
