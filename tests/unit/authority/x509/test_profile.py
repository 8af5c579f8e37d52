from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import CAKey, Issuer
from muster.kernel.errors import Misconfigured
from tests.servers import puppetca
from tests.servers.puppetca import NewCA

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
YEARS = timedelta(days=1825)
SAMPLE = puppetca.RECORDED / "cadir-sample"


@pytest.fixture
def sample() -> NewCA:
    key = load_pem_private_key((SAMPLE / "ca_key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return NewCA(Issuer.read((SAMPLE / "ca_crt.pem").read_text()), key)


def golden(name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((SAMPLE / "signed" / f"{name}.example.net.pem").read_bytes())


def shape(certificate: x509.Certificate) -> list[tuple[str, bool, bytes | None]]:
    """Return extensions in order, with their values but for the one that is a digest of the host's own key."""
    return [
        (
            e.oid.dotted_string,
            e.critical,
            None if isinstance(e.value, x509.SubjectKeyIdentifier) else e.value.public_bytes(),
        )
        for e in certificate.extensions
    ]


def leaf(ca: NewCA, host: puppetca.Agent, *, ttl: timedelta = YEARS, now: datetime = NOW) -> x509.Certificate:
    return profile.signed_leaf(csr.read(host.csr), ca.issuer, ca.key, serial=0x77, now=now, ttl=ttl)


@pytest.mark.parametrize(
    ("name", "extensions"),
    [("agent01", ()), ("agent02", (("1.3.6.1.4.1.34380.1.1.13", b"\x0c\x09webserver"),)), ("ec01", ())],
)
def test_a_leaf_has_the_extensions_of_a_real_one_in_order(
    sample: NewCA, name: str, extensions: tuple[tuple[str, bytes], ...]
) -> None:
    theirs = golden(name)
    role = [e.value.public_bytes() for e in theirs.extensions if e.oid.dotted_string.startswith("1.3.6.1.4.1.34380")]
    assert [b for _, b in extensions] == role
    ours = leaf(sample, puppetca.agent(f"{name}.example.net", extensions=extensions))
    assert shape(ours) == shape(theirs)
    assert ours.version == theirs.version
    assert ours.subject.public_bytes() == theirs.subject.public_bytes()
    assert ours.issuer.public_bytes() == theirs.issuer.public_bytes()
    assert ours.signature_algorithm_oid == theirs.signature_algorithm_oid
    assert ours.not_valid_after_utc - ours.not_valid_before_utc == (
        theirs.not_valid_after_utc - theirs.not_valid_before_utc
    )
    ours.verify_directly_issued_by(sample.issuer.certificate)


def test_the_key_identifier_is_the_keys_own(sample: NewCA) -> None:
    theirs = golden("agent01")
    said = theirs.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert said == x509.SubjectKeyIdentifier.from_public_key(theirs.public_key())
    ours = leaf(sample, puppetca.agent("a.example.net"))
    own = ours.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert own == x509.SubjectKeyIdentifier.from_public_key(ours.public_key())


def test_a_critical_extension_stays_so_and_comes_last_as_theirs_does(sample: NewCA) -> None:
    request = csr.read((puppetca.RECORDED / "csr" / "ext-pp-critical.pem").read_bytes())
    made = profile.signed_leaf(request, sample.issuer, sample.key, serial=1, now=NOW, ttl=YEARS)
    last = list(made.extensions)[-1]
    assert (last.oid.dotted_string, last.critical) == ("1.3.6.1.4.1.34380.1.1.13", True)


def test_a_leaf_begins_a_day_back_and_ends_when_told_and_never_after_9999() -> None:
    ca = puppetca.new_ca()
    made = leaf(ca, puppetca.agent("a.example.net"), ttl=timedelta(hours=1))
    assert made.not_valid_before_utc == NOW - timedelta(hours=24)
    assert made.not_valid_after_utc == NOW + timedelta(hours=1)
    born_expired = leaf(ca, puppetca.agent("a.example.net"), ttl=timedelta(seconds=-60))
    assert born_expired.not_valid_after_utc == NOW - timedelta(seconds=60)
    endless = leaf(ca, puppetca.agent("a.example.net"), ttl=timedelta(days=10_000 * 366))
    assert endless.not_valid_after_utc.year == 9999


def test_the_subject_is_the_name_alone_and_the_name_always_stands_among_the_names() -> None:
    names = (x509.DNSName("www.example.net"), x509.IPAddress(ip_address("192.0.2.1")))
    made = leaf(puppetca.new_ca(), puppetca.agent("a.example.net", alternatives=names))
    assert made.subject.rfc4514_string() == "CN=a.example.net"
    alternatives = profile.alternatives_of(made)
    assert alternatives.shown == ("IP:192.0.2.1", "DNS:www.example.net", "DNS:a.example.net")


@pytest.mark.parametrize(
    ("recorded", "written"),
    [
        ("san-ip", ["192.0.2.10", "san-ip.example.net"]),
        ("san-ipv6", ["2001:db8::10", "san-ipv6.example.net"]),
        ("san-ip-only", ["192.0.2.11", "san-ip-only.example.net"]),
        ("san-extra-dns", ["san-extra-dns.example.net", "www.example.net"]),
    ],
)
def test_addresses_stand_before_names_as_recorded(sample: NewCA, recorded: str, written: list[str]) -> None:
    request = csr.read((puppetca.RECORDED / "csr" / f"{recorded}.pem").read_bytes())
    made = profile.signed_leaf(request, sample.issuer, sample.key, serial=1, now=NOW, ttl=YEARS)
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(n.value) for n in names] == written


def test_a_renewed_leaf_keeps_key_names_and_puppets_extensions_and_nothing_else() -> None:
    ca = puppetca.new_ca()
    names = (x509.DNSName("www.example.net"), x509.IPAddress(ip_address("192.0.2.1")))
    wanted = (("1.3.6.1.4.1.34380.1.1.13", b"\x0c\x09webserver"), ("1.3.6.1.4.1.34380.1.2.1", b"\x0c\x04site"))
    old = leaf(ca, puppetca.agent("a.example.net", alternatives=names, extensions=wanted))
    later = NOW + timedelta(days=60)
    new = profile.renewed_leaf(old, ca.issuer, ca.key, serial=0x99, now=later, ttl=timedelta(days=90))
    assert shape(new) == shape(old)
    assert new.public_key() == old.public_key()
    assert new.subject == old.subject
    assert (new.serial_number, new.not_valid_after_utc) == (0x99, later + timedelta(days=90))
    new.verify_directly_issued_by(ca.issuer.certificate)


@pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")
def test_a_common_name_longer_than_x520_allows_is_signed_and_renewed() -> None:
    request = csr.read((puppetca.RECORDED / "csr" / "cn-long.pem").read_bytes())
    ca = puppetca.new_ca()
    made = profile.signed_leaf(request, ca.issuer, ca.key, serial=1, now=NOW, ttl=YEARS)
    again = profile.renewed_leaf(made, ca.issuer, ca.key, serial=2, now=NOW, ttl=YEARS)
    assert profile.common_name(again.subject) == request.name
    assert len(request.name) == 133


@pytest.mark.parametrize("kind", ["ec", "rsa", "ed25519"])
def test_each_kind_of_key_signs_a_ca_leaves_and_lists(kind: str) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", kind)
    ca.issuer.certificate.verify_directly_issued_by(ca.issuer.certificate)
    leaf(ca, puppetca.agent("a.example.net")).verify_directly_issued_by(ca.issuer.certificate)
    listed = profile.signed_list(ca.issuer, ca.key, [], number=0, now=NOW, ttl=YEARS)
    assert listed.is_signature_valid(ca.issuer.certificate.public_key())  # type: ignore[arg-type]


def test_a_list_has_the_form_of_a_real_one(sample: NewCA) -> None:
    theirs = x509.load_pem_x509_crl((SAMPLE / "ca_crl.pem").read_bytes())
    revoked = [(r.serial_number, r.revocation_date_utc) for r in theirs]
    ours = profile.signed_list(sample.issuer, sample.key, revoked, number=3, now=NOW, ttl=YEARS)
    for mine, one in zip(ours, theirs, strict=True):
        assert (mine.serial_number, mine.revocation_date_utc) == (one.serial_number, one.revocation_date_utc)
        assert [(e.oid, e.critical, e.value) for e in mine.extensions] == [
            (e.oid, e.critical, e.value) for e in one.extensions
        ]
    assert [(e.oid, e.critical, e.value) for e in ours.extensions] == [
        (e.oid, e.critical, e.value) for e in theirs.extensions
    ]
    assert ours.issuer == theirs.issuer
    assert ours.is_signature_valid(sample.issuer.certificate.public_key())  # type: ignore[arg-type]


def test_a_list_begins_ten_minutes_back() -> None:
    """Agents check their own certificate without tolerance for a list from the future (docs/facts/puppet-ca.md §3.3)."""
    ca = puppetca.new_ca()
    made = profile.signed_list(ca.issuer, ca.key, [], number=0, now=NOW, ttl=timedelta(days=7))
    assert made.last_update_utc == NOW - timedelta(minutes=10)
    assert made.next_update_utc == NOW + timedelta(days=7)


def test_a_status_object_says_what_the_recorded_one_says() -> None:
    status = profile.status_of(golden("proxy01"))
    assert status["name"] == "proxy01.example.net"
    assert status["authorization_extensions"] == {"pp_cli_auth": "true"}
    assert status["serial_number"] == 1
    assert str(status["not_before"]).endswith("UTC")


def test_a_bundle_begins_with_the_one_that_signs() -> None:
    text = (SAMPLE / "ca_crt.pem").read_text()
    issuer = Issuer.read(text)
    assert issuer.chain_pem == text
    assert issuer.common_name == "Puppet CA: proxy01.example.net"
    assert issuer.key_identifier.hex() == "45694bb60b0ea87ab9ff94bb74748b55cce32172"
    with pytest.raises(Misconfigured, match="no certificate in PEM"):
        Issuer.read("nothing\n")


def test_a_random_serial_fits_twenty_octets_and_says_nothing_about_the_fleet() -> None:
    serials = {profile.random_serial() for _ in range(1000)}
    assert len(serials) == 1000
    assert {s.bit_length() for s in serials} == {159}


@given(st.binary(max_size=70_000))
def test_wrapped_values_come_back_whatever_their_length(value: bytes) -> None:
    wrapped = b"\x0c" + profile._length_of(value) + value
    assert csr.utf8_body(wrapped) == value


def test_a_key_belongs_to_its_certificate_only() -> None:
    ca, other = puppetca.new_ca(), puppetca.new_ca("Puppet CA: other")
    assert profile.belongs(ca.key, ca.issuer.certificate)
    assert not profile.belongs(other.key, ca.issuer.certificate)
    key: CAKey = ec.generate_private_key(ec.SECP384R1())
    assert not profile.belongs(key, ca.issuer.certificate)


def test_a_new_ca_may_sign_certificates_and_lists_and_nothing_else() -> None:
    certificate = puppetca.new_ca().issuer.certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, None)
    assert (usage.critical, usage.value.key_cert_sign, usage.value.crl_sign) == (True, True, True)
    assert not usage.value.digital_signature
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert certificate.public_key().public_bytes(*form) == puppetca.new_ca().key.public_key().public_bytes(*form)
