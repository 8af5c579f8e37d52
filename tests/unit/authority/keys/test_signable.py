"""What a signer signs, and what it does not whoever asks: each refusal with its sentence, in this process."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from muster.authority.keys.contract import PROOF
from muster.authority.keys.signable import Rules, judged
from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import Issuer
from muster.kernel.errors import Rejected
from tests.servers import puppetca
from tests.servers.puppetca import NewCA

NOW = datetime.now(UTC)
CA = puppetca.new_ca()
OTHER = puppetca.new_ca("Puppet CA: other")
NO_CA = x509.BasicConstraints(ca=False, path_length=None)
OWN_USAGE = "digital_signature", "key_encipherment"


def public(ca: NewCA = CA) -> Any:
    return ca.key.public_key()


def judge(data: bytes, rules: Rules | None = None, ca: NewCA = CA) -> str | None:
    return judged(data, public(ca), rules or Rules(ca.issuer.certificate), NOW)


def usage(*given: str) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in given for name in every})


def certificate(
    *,
    issuer: x509.Name | None = None,
    basic: x509.BasicConstraints | None = NO_CA,
    uses: Iterable[str] | None = OWN_USAGE,
    further: Iterable[x509.ExtensionType] = (),
    days: float = 30,
) -> bytes:
    """Return what is to be signed of a certificate; what a member makes is a special case."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.example.net")]))
        .issuer_name(issuer or CA.issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=days))
    )
    for extension in (basic, usage(*uses) if uses is not None else None, *further):
        builder = builder.add_extension(extension, critical=True) if extension is not None else builder
    return builder.sign(key, hashes.SHA256()).tbs_certificate_bytes


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_what_members_make_is_signed_and_said(kind: str) -> None:
    ca = puppetca.new_ca("Puppet CA: kinds", kind)
    extensions = (("1.3.6.1.4.1.34380.1.1.13", b"\x0c\x09webserver"), ("1.3.6.1.4.1.34380.1.3.13", b"\x0c\x04role"))
    request = csr.read(puppetca.agent("a.example.net", extensions=extensions).csr)
    leaf = profile.signed_leaf(
        request, ca.issuer, ca.key, serial=0x77, now=NOW, ttl=timedelta(days=1825)
    )  # the longest by default
    ends = f"{leaf.not_valid_after_utc:%Y-%m-%d}"
    assert judge(leaf.tbs_certificate_bytes, ca=ca) == f"certificate of a.example.net, serial 77, until {ends}"
    again = profile.renewed_leaf(leaf, ca.issuer, ca.key, serial=8, now=NOW, ttl=timedelta(days=90))
    assert judge(again.tbs_certificate_bytes, ca=ca)
    # A list of any length of life: agents before 7 never fetch another.
    listed = profile.signed_list(ca.issuer, ca.key, [(7, NOW)], number=9, now=NOW, ttl=timedelta(days=18_250))
    assert judge(listed.tbs_certlist_bytes, ca=ca) == "revocation list 9"
    assert judge(PROOF, ca=ca) is None


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"basic": x509.BasicConstraints(ca=True, path_length=None)}, "no CA's (basicConstraints)"),
        ({"basic": x509.BasicConstraints(ca=True, path_length=0)}, "no CA's (basicConstraints)"),
        ({"basic": None}, "no CA's (basicConstraints)"),
        ({"uses": (*OWN_USAGE, "key_cert_sign")}, "(keyUsage)"),
        ({"uses": (*OWN_USAGE, "crl_sign")}, "(keyUsage)"),
        ({"uses": None}, "(keyUsage)"),
        (
            {"further": [x509.UnrecognizedExtension(puppetca.AUTHORISED, puppetca.ADMINISTRATOR)]},
            "an administrator's (pp_cli_auth); name it in authority.administrators",
        ),
        ({"further": [x509.UnrecognizedExtension(puppetca.AUTHORISED, b"\x0c\x05false")]}, "(pp_cli_auth)"),
        ({"days": 1827}, "more than 1825 days (--longest-days)"),
        ({"issuer": OTHER.issuer.certificate.subject}, "in the name of another issuer: CN=Puppet CA: other"),
    ],
)
def test_what_would_outlive_a_break_in_is_refused(made: dict[str, Any], said: str) -> None:
    assert judge(certificate())
    with pytest.raises(Rejected) as refused:
        judge(certificate(**made))
    assert said in str(refused.value)
    assert "certificate of a.example.net, serial 7" in str(refused.value)


def test_an_extension_said_twice_is_refused() -> None:
    value = b"\x0c\x01a"
    twice = [x509.UnrecognizedExtension(o, value) for o in (puppetca.UNKNOWN, puppetca.UNKNOWN_NEXT)]
    with pytest.raises(Rejected, match="an extension that cannot be read"):
        judge(puppetca.said_twice(certificate(further=twice)))


def test_a_list_of_another_issuer_is_refused() -> None:
    listed = profile.signed_list(OTHER.issuer, OTHER.key, [], number=1, now=NOW, ttl=timedelta(days=1))
    with pytest.raises(Rejected, match="revocation list in the name of another issuer: CN=Puppet CA: other"):
        judge(listed.tbs_certlist_bytes)


def test_a_longer_life_has_to_be_allowed() -> None:
    assert judge(certificate(days=3650), Rules(CA.issuer.certificate, timedelta(days=3650)))
    with pytest.raises(Rejected, match="more than 90 days"):
        judge(certificate(days=100), Rules(CA.issuer.certificate, timedelta(days=90)))


def test_a_new_cas_certificate_is_signed_while_no_other_is_known_and_for_the_own_key_alone() -> None:
    own, others = (c.issuer.certificate.tbs_certificate_bytes for c in (CA, OTHER))
    said = judge(own, Rules())
    assert said is not None
    assert said.startswith("the CA's own certificate of Puppet CA: test")
    with pytest.raises(Rejected, match="basicConstraints"):
        judge(others, Rules())
    with pytest.raises(Rejected, match="basicConstraints"):
        judge(own)
    # Below ours with our own key is not self-signed, and is a CA's.
    with pytest.raises(Rejected, match="basicConstraints"):
        judge(certificate(basic=x509.BasicConstraints(ca=True, path_length=None)), Rules())
    assert judge(certificate(issuer=OTHER.issuer.certificate.subject), Rules())


@pytest.mark.parametrize("data", [b"", b"x", b"\x30", b"\x30\x00", PROOF + b"?", b"\x30\x84\xff\xff\xff\xff"])
def test_what_is_neither_a_certificate_nor_a_list_is_refused(data: bytes) -> None:
    with pytest.raises(Rejected, match="neither a certificate nor a revocation list"):
        judge(data)


def test_what_follows_a_certificate_is_refused() -> None:
    with pytest.raises(Rejected):
        judge(certificate() + b"\x05\x00")


@given(st.data())
def test_a_certificate_with_a_byte_changed_is_signed_only_as_one_that_keeps_the_rules(data: st.DataObject) -> None:
    whole = bytearray(_SAMPLE)
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    try:
        judge(bytes(whole))
    except Rejected:
        return


_SAMPLE = certificate()


def test_of_a_chain_the_first_is_the_issuer() -> None:
    issuer = Issuer.read((puppetca.RECORDED / "cadir-sample" / "ca_crt.pem").read_text())
    rules = Rules(issuer.certificate)
    assert judge(certificate(issuer=issuer.certificate.subject), rules)
    with pytest.raises(Rejected, match="in the name of another issuer"):
        judge(certificate(issuer=issuer.chain[1].subject), rules)
