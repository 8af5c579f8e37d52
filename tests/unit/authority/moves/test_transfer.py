from __future__ import annotations

import base64
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtensionOID
from sqlalchemy import select

from muster.authority.ledger.ledger import Ledger
from muster.authority.moves import transfer
from muster.authority.moves.transfer import Found
from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import Issuer, crls_in
from muster.cluster.file import Authority
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.tables import certificates, crls, requests, revocations
from tests.servers import puppetca

pytestmark = pytest.mark.anyio

SAMPLE = puppetca.RECORDED / "cadir-sample"
NOW = datetime.now(UTC)


@pytest.fixture
def cadir(tmp_path: Path) -> Path:
    """Return a copy of the sample that a test may damage."""
    copy = tmp_path / "ca"
    shutil.copytree(SAMPLE, copy)
    for name in ("README.md", "expected.json"):
        (copy / name).unlink()
    return copy


def read(directory: Path) -> Found:
    return transfer.read_directory(directory, now=NOW)


def sample_key() -> rsa.RSAPrivateKey:
    key = load_pem_private_key((SAMPLE / "ca_key.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def expected() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SAMPLE / "expected.json").read_text())
    return content


def sign(name: str, serial: int, *, ca: puppetca.NewCA | None = None) -> bytes:
    """Return a certificate in PEM that the sample's CA, or another one, signed with this serial."""
    issuer = ca.issuer if ca else Issuer.read((SAMPLE / "ca_crt.pem").read_text())
    request = csr.read(puppetca.agent(name).csr)
    key = ca.key if ca else sample_key()
    made = profile.signed_leaf(request, issuer, key, serial=serial, now=NOW, ttl=timedelta(days=30))
    return made.public_bytes(Encoding.PEM)


# ------------------------------------------------------------------ the sample


def test_the_sample_is_read_whole(cadir: Path) -> None:
    found, facts = read(cadir), expected()
    assert found.problems == []
    assert found.issuer.chain_pem == (cadir / "ca_crt.pem").read_text()
    assert [profile.key_identifier(c).hex() for c in found.issuer.chain] == [
        facts["signing_ca"]["ski"],
        facts["root_ca"]["ski"],
    ]
    assert (found.counter, found.number) == (facts["next_serial"], facts["crl"]["number"])
    assert {f"{s:02X}" for s in found.revoked} == set(facts["crl"]["revoked_serials"])
    with_file = {i["serial"]: i["name"] for i in facts["issued"] if i["file_in_signed"]}
    without = {i["serial"]: i["name"] for i in facts["issued"] if not i["file_in_signed"]}
    assert {s: e.certname for s, e in found.live.items()} == with_file
    assert {s: i.name for s, i in found.gone.items()} == without
    assert sorted(r.name for r, _ in found.pending) == facts["pending"]
    flawed = {r.name.split(".")[0]: flaw for r, flaw in found.pending if flaw}
    assert set(flawed) == {"pend-auth", "pend-badsig", "pend-oid", "pend-san"}
    (ancestor,) = crls_in(found.ancestors_pem)
    assert ancestor.issuer.rfc4514_string() == facts["ancestor_crl"]["issuer"].removeprefix("/")


def test_the_summary_says_so_in_numbers(cadir: Path) -> None:
    summary = read(cadir).summary()
    assert {k: summary[k] for k in ("certificates", "issued_without_file", "revoked", "pending", "pending_flawed")} == {
        "certificates": 9,
        "issued_without_file": 3,
        "revoked": 3,
        "pending": 6,
        "pending_flawed": 4,
    }
    assert summary["ca"] == "Puppet CA: proxy01.example.net"
    assert (summary["crl_number"], summary["next_serial"], summary["key"]) == (3, 13, True)


async def test_the_sample_is_taken_over_whole(store: Store, cadir: Path, home: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    facts = expected()
    async with puppetca.member(store, home) as ca:
        lists = await ca.lists()
        assert puppetca.revoked_in(lists.pem) == {5, 0xB, 0xC}
        assert (lists.number, puppetca.number_in(lists.pem)) == (3, 3)
        assert lists.pem == (cadir / "ca_crl.pem").read_text()
        assert ca.chain_pem == (cadir / "ca_crt.pem").read_text()
        signed = [json.loads(s)["name"] for s in await ca.statuses("signed")]
        revoked = [json.loads(s)["name"] for s in await ca.statuses("revoked")]
        pending = [json.loads(s)["name"] for s in await ca.statuses("requested")]
        assert (signed, revoked, pending) == (facts["live_names"], ["revoked01.example.net"], facts["pending"])
        await ca.revoke("twice01.example.net", actor="test")
        # The one that was deleted without a revocation still counts, and is revoked with its successor.
        assert puppetca.revoked_in((await ca.lists()).pem) == {5, 9, 0xA, 0xB, 0xC}
        assert (await ca.lists()).number == 4


async def test_a_second_import_changes_nothing(store: Store, cadir: Path, home: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    with pytest.raises(Conflict, match="holds a Puppet CA already; nothing was changed"):
        await puppetca.take_over(store, home, cadir)


async def test_a_list_that_has_ended_is_made_anew_with_all_its_entries(store: Store, cadir: Path, home: Path) -> None:
    found = read(cadir)
    revoked = [(s, at) for s, at in found.revoked.items()]
    ended = profile.signed_list(
        found.issuer, sample_key(), revoked, number=3, now=NOW - timedelta(days=100), ttl=timedelta(days=1)
    )
    (cadir / "ca_crl.pem").write_text(profile.pem_of(ended) + found.ancestors_pem)
    assert read(cadir).notes == ["The revocation list has ended; it is made anew"]
    await puppetca.take_over(store, home, cadir)
    published = await Ledger(store, "test").published()
    assert puppetca.revoked_in(published.own_pem) == {5, 0xB, 0xC}
    assert (published.number, puppetca.number_in(published.own_pem)) == (4, 4)
    assert published.next_update > NOW.timestamp()


async def test_the_key_of_the_root_is_left_where_it_is(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    root_key = (cadir / "root_key.pem").read_text().splitlines()[1]
    await transfer.write_directory(store, tmp_path / "out", key_pem=(home / "ca_key.pem").read_bytes())
    for path in [*home.rglob("*"), *(tmp_path / "out").rglob("*"), *tmp_path.glob("store.db*")]:
        if path.is_file():
            assert root_key.encode() not in path.read_bytes()


# ------------------------------------------------------------------ damage


def test_a_serial_given_twice_names_both_and_keeps_one(cadir: Path) -> None:
    (cadir / "signed" / "zwilling.example.net.pem").write_bytes(sign("zwilling.example.net", 3))
    found = read(cadir)
    (problem,) = found.problems
    assert "Serial 3 was given twice, to agent01.example.net and to zwilling.example.net" in problem
    assert found.live[3].certname == "agent01.example.net"
    assert len(found.live) == 9


def test_a_foreign_certificate_is_left_out(cadir: Path) -> None:
    (cadir / "signed" / "foreign.example.net.pem").write_bytes(sign("foreign.example.net", 99, ca=puppetca.new_ca()))
    found = read(cadir)
    assert found.problems == [
        "signed/foreign.example.net.pem is no certificate of Puppet CA: proxy01.example.net; left out"
    ]
    assert 99 not in found.live


@pytest.mark.parametrize(
    "content", [b"", b"junk\n", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", b"\xff"]
)
def test_junk_among_the_certificates_and_requests_is_left_out(cadir: Path, content: bytes) -> None:
    for place in ("signed", "requests"):
        (cadir / place / "junk.example.net.pem").write_bytes(content)
    found = read(cadir)
    assert len(found.problems) == 2
    assert all("junk.example.net.pem" in p for p in found.problems)
    assert (len(found.live), len(found.pending)) == (9, 6)


def test_files_under_another_name_are_left_out(cadir: Path) -> None:
    (cadir / "signed" / "agent01.example.net.pem").rename(cadir / "signed" / "other.example.net.pem")
    (cadir / "requests" / "pend-plain.example.net.pem").rename(cadir / "requests" / "other.example.net.pem")
    problems = read(cadir).problems
    assert problems[0] == "signed/other.example.net.pem is the certificate of agent01.example.net; left out"
    assert "pend-plain.example.net" in problems[1]


def test_a_request_with_a_repeated_extension_or_no_subject_is_left_out(cadir: Path) -> None:
    twice = puppetca.request_with_extension_twice("twice.example.net")
    (cadir / "requests" / "twice.example.net.pem").write_bytes(twice)
    nameless = puppetca.RECORDED / "csr" / "cn-empty-subject.pem"
    shutil.copy(nameless, cadir / "requests" / "cn-empty-subject.example.net.pem")
    undecodable = csr.read(puppetca.agent("u.example.net").csr).der.replace(
        b"\x0c\x0du.ex", b"\x0c\x0d\xff\xff\xff\xff"
    )
    (cadir / "requests" / "u.example.net.pem").write_text(csr.of_der(undecodable).pem)
    found = read(cadir)
    assert len(found.problems) == 3
    assert len(found.pending) == 6


@pytest.mark.parametrize(
    "line",
    [
        "junk",
        "0xZZ 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC /CN=x.example.net",
        "0x0099 2026-99-99T07:05:17UTC 2041-11-18T07:05:19UTC /CN=x.example.net",
        "0x0099 2026-11-21T07:05:17UTC /CN=x.example.net",
        "0x0099 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC x.example.net",
        "0x0099 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC /CN=",
        "0x0099 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC /OU=x.example.net",
        "\x00\x01",
    ],
)
def test_a_junk_line_in_the_inventory_is_passed_over_and_named(cadir: Path, line: str) -> None:
    with (cadir / "inventory.txt").open("a") as f:
        f.write(f"{line}\n\n")
    found = read(cadir)
    (problem,) = found.problems
    assert problem.startswith("inventory.txt line 12")
    assert len(found.gone) == 3


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        # A puppetserver that made its CA at its first start writes that CA's own row, too (7.9.5).
        ("/CN=Puppet CA: puppet01.example.net", "Puppet CA: puppet01.example.net"),
        ("/CN=a.example.net/OU=b", "a.example.net"),
        ("/O=Example Inc./CN=a.example.net/OU=b", "a.example.net"),
        ("/CN=a/b c/1.2.3", "a/b c/1.2.3"),
        ("/CN=x y  ", "x y"),
    ],
)
def test_a_row_that_puppets_own_programs_wrote_is_taken(cadir: Path, subject: str, name: str) -> None:
    line = f"0x0099 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC {subject}\n"
    comment = "# Inventory of signed certificates\n# SERIAL NOT_BEFORE NOT_AFTER SUBJECT\n"
    before = (cadir / "inventory.txt").read_text()
    (cadir / "inventory.txt").write_text(comment + before + line)
    found = read(cadir)
    assert (found.problems, found.gone[0x99].name, len(found.gone)) == ([], name, 4)


async def test_the_row_of_the_ca_itself_comes_back_with_an_export(store: Store, cadir: Path, tmp_path: Path) -> None:
    line = "0x0099 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC /CN=Puppet CA: puppet01.example.net\n"
    with (cadir / "inventory.txt").open("a") as f:
        f.write(line)
    await puppetca.take_over(store, tmp_path / "home", cadir)
    await transfer.write_directory(store, tmp_path / "out", key_pem=None)
    assert line in (tmp_path / "out" / "inventory.txt").read_text()


def test_an_inventory_that_contradicts_itself_is_named(cadir: Path) -> None:
    with (cadir / "inventory.txt").open("a") as f:
        f.write("0x0009 2026-11-21T07:05:17UTC 2041-11-18T07:05:19UTC /CN=somebody.example.net\n")
    (problem,) = read(cadir).problems
    assert problem == "Serial 9 stands in the inventory for twice01.example.net and for somebody.example.net"


async def test_without_a_list_nothing_is_revoked_and_that_is_wrong(store: Store, cadir: Path, home: Path) -> None:
    (cadir / "ca_crl.pem").unlink()
    found = read(cadir)
    assert found.problems[0] == "ca_crl.pem is missing: revocations are not known"
    assert "lacks the revocation list of Puppet Root CA" in found.problems[1]
    assert len(found.problems) == 2
    await puppetca.take_over(store, home, cadir)
    published = await Ledger(store, "test").published()
    assert puppetca.revoked_in(published.own_pem) == set()


def test_without_inventory_or_requests_or_signed_the_rest_is_read(cadir: Path) -> None:
    (cadir / "inventory.txt").unlink()
    shutil.rmtree(cadir / "requests")
    found = read(cadir)
    assert found.problems == []
    assert "inventory.txt is missing" in found.notes[0]
    assert found.notes[1] == "requests is missing: nobody waits"
    assert (len(found.live), len(found.gone), len(found.pending)) == (9, 0, 0)


@pytest.mark.parametrize("name", ["signed", "requests"])
def test_a_directory_that_is_a_file_is_wrong(cadir: Path, name: str) -> None:
    shutil.rmtree(cadir / name)
    (cadir / name).write_text("")
    (problem,) = read(cadir).problems
    assert problem.startswith(f"{name} is no directory")


def test_without_its_certificates_a_directory_is_wrong(cadir: Path) -> None:
    shutil.rmtree(cadir / "signed")
    found = read(cadir)
    assert found.problems == ["signed is missing: what was issued is known from the inventory alone"]
    assert (found.live, len(found.gone)) == ({}, 11)


# ------------------------------------------------------------------ the ancestors' lists


def parts(cadir: Path) -> tuple[str, str]:
    """Return the sample's own list and the root's."""
    own, root = (profile.pem_of(c) for c in crls_in((cadir / "ca_crl.pem").read_text()))
    return own, root


def root_list(cadir: Path, *, number: int, ends: timedelta, key: rsa.RSAPrivateKey | None = None) -> str:
    """Return a list in the root's name, by its own key unless another one is given."""
    chain = Issuer.read((cadir / "ca_crt.pem").read_text()).chain
    root = Issuer.read(profile.pem_of(chain[1]))
    signs = key or load_pem_private_key((cadir / "root_key.pem").read_bytes(), None)
    assert isinstance(signs, rsa.RSAPrivateKey)
    start = NOW - timedelta(days=900)
    return profile.pem_of(profile.signed_list(root, signs, [], number=number, now=start, ttl=NOW + ends - start))


def test_a_missing_list_of_the_root_is_wrong(cadir: Path) -> None:
    own, _ = parts(cadir)
    (cadir / "ca_crl.pem").write_text(own)
    (problem,) = read(cadir).problems
    assert problem.startswith("ca_crl.pem lacks the revocation list of Puppet Root CA")
    assert "certificate_revocation = chain" in problem


def test_a_list_of_the_root_that_it_did_not_sign_is_left_out(cadir: Path) -> None:
    own, _ = parts(cadir)
    forged = root_list(cadir, number=9, ends=timedelta(days=9), key=sample_key())
    (cadir / "ca_crl.pem").write_text(own + forged)
    found = read(cadir)
    assert "is not signed by it; left out" in found.problems[0]
    assert "lacks the revocation list" in found.problems[1]
    assert found.ancestors_pem == ""


def test_of_several_lists_of_the_root_the_newest_is_taken(cadir: Path) -> None:
    own, root = parts(cadir)
    newer = root_list(cadir, number=7, ends=timedelta(days=9))
    (cadir / "ca_crl.pem").write_text(own + newer + root)
    found = read(cadir)
    assert (found.problems, found.ancestors_pem) == ([], newer)


def test_a_list_of_the_root_that_has_ended_is_noted(cadir: Path) -> None:
    own, _ = parts(cadir)
    (cadir / "ca_crl.pem").write_text(own + root_list(cadir, number=7, ends=timedelta(days=-1)))
    found = read(cadir)
    assert found.problems == []
    assert "agents refuse every certificate until they get a newer one" in found.notes[0]


@pytest.mark.parametrize(("days", "noted"), [(3, True), (27, True), (29, False), (400, False)])
def test_a_list_of_the_root_that_ends_soon_is_noted(cadir: Path, days: int, noted: bool) -> None:
    own, _ = parts(cadir)
    (cadir / "ca_crl.pem").write_text(own + root_list(cadir, number=7, ends=timedelta(days=days)))
    found = read(cadir)
    assert found.problems == []
    said = [n for n in found.notes if n.startswith("The revocation list of Puppet Root CA")]
    assert ["from then on unless they get a newer one" in n for n in said] == [True] * noted


def test_a_file_with_the_roots_list_alone_lacks_ours(cadir: Path) -> None:
    _, root = parts(cadir)
    (cadir / "ca_crl.pem").write_text(root)
    (problem,) = read(cadir).problems
    assert problem == "ca_crl.pem holds no list of Puppet CA: proxy01.example.net: revocations are not known"


def test_a_list_that_is_cut_off_is_refused(cadir: Path) -> None:
    text = (cadir / "ca_crl.pem").read_text()
    (cadir / "ca_crl.pem").write_text(text[:-60])
    with pytest.raises(Misconfigured, match="cannot be decoded: it is cut off"):
        read(cadir)


# ------------------------------------------------------------------ bytes that are hardly certificates


def with_extension_twice(name: str) -> bytes:
    """Return a certificate of the sample's CA that says one extension twice; signed, so that only its content is wrong."""
    issuer = Issuer.read((SAMPLE / "ca_crt.pem").read_text())
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.certificate.subject)
        .public_key(sample_key().public_key())
        .serial_number(77)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.UnrecognizedExtension(puppetca.UNKNOWN, b"\x0c\x01a"), critical=False)
        .add_extension(x509.UnrecognizedExtension(puppetca.UNKNOWN_NEXT, b"\x0c\x01a"), critical=False)
        .sign(sample_key(), hashes.SHA256())
    )
    old = made.tbs_certificate_bytes
    tbs = puppetca.said_twice(old)
    signature = sample_key().sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    whole = made.public_bytes(Encoding.DER).replace(old, tbs).replace(made.signature, signature)
    body = base64.encodebytes(whole).decode()
    return f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n".encode()


def test_a_signed_certificate_with_a_repeated_extension_is_left_out(cadir: Path) -> None:
    (cadir / "signed" / "twice.example.net.pem").write_bytes(with_extension_twice("twice.example.net"))
    found = read(cadir)
    assert found.problems == ["signed/twice.example.net.pem has an extension twice; left out"]
    assert len(found.live) == 9


def test_a_signed_certificate_with_an_undecodable_name_is_left_out(cadir: Path) -> None:
    issuer = Issuer.read((SAMPLE / "ca_crt.pem").read_text())
    # The kind of an X.400 address, which the library knows by number alone.
    names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x02\xa3\x00")
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd.example.net")]))
        .issuer_name(issuer.certificate.subject)
        .public_key(sample_key().public_key())
        .serial_number(78)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(sample_key(), hashes.SHA256())
    )
    (cadir / "signed" / "odd.example.net.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (problem,) = read(cadir).problems
    assert problem == "signed/odd.example.net.pem is no certificate of Puppet CA: proxy01.example.net; left out"


def test_file_names_are_shown_so_that_they_can_be_printed(cadir: Path) -> None:
    for place in ("signed", "requests"):
        (cadir / place / "\udcff\x1b[2J.pem").write_bytes(b"junk")
    for problem in read(cadir).problems:
        assert problem.isprintable()
        problem.encode()


# ------------------------------------------------------------------ hosts that all agents must know


async def test_infra_hosts_have_their_short_list_from_the_first_moment(store: Store, cadir: Path, home: Path) -> None:
    (cadir / "infra_inventory.txt").write_text("twice01.example.net\n\nrevoked01.example.net\n")
    found = read(cadir)
    assert found.infra == ("twice01.example.net", "revoked01.example.net")
    assert found.summary()["infra_hosts"] == list(found.infra)
    assert found.key is not None
    puppetca.put_key(home, (cadir / "ca_key.pem").read_bytes())
    await transfer.take_over(
        store, found, member="here", key=found.key, crl_ttl_days=1825, infra_hosts=("revoked01.example.net",)
    )
    serial = next(e.serial for e in found.live.values() if e.certname == "revoked01.example.net")
    settings = Authority(infra_hosts=("revoked01.example.net",), requests_per_minute=0)
    async with puppetca.member(store, home, settings) as ca:
        short = await ca.lists()
        assert puppetca.revoked_in(short.pem) == {serial}
        assert (puppetca.number_in(short.pem), len(crls_in(short.pem))) == (3, 2)
        assert puppetca.revoked_in((await ca.lists(whole=True)).pem) == {5, 0xB, 0xC}


async def test_infra_hosts_are_exported_with_their_serials(
    store: Store, cadir: Path, home: Path, tmp_path: Path
) -> None:
    await puppetca.take_over(store, home, cadir)
    hosts = ("agent01.example.net", "absent.example.net", "agent02.example.net")
    await transfer.write_directory(store, tmp_path / "out", key_pem=None, infra_hosts=hosts)
    assert (tmp_path / "out" / "infra_inventory.txt").read_text() == "".join(f"{h}\n" for h in hosts)
    found = read(cadir)
    serials = {e.certname: e.serial for e in found.live.values()}
    lines = (tmp_path / "out" / "infra_serials").read_text().splitlines()
    # In decimal: puppetserver reads them so.
    assert sorted(map(int, lines)) == sorted(serials[h] for h in hosts if h in serials)
    assert read(tmp_path / "out").infra == hosts


def test_another_cas_key_is_refused(cadir: Path) -> None:
    (cadir / "ca_key.pem").write_bytes(puppetca.key_pem(puppetca.new_ca("Puppet CA: other", "rsa").key))
    with pytest.raises(Misconfigured, match=r"does not belong to Puppet CA: proxy01\.example\.net"):
        read(cadir)


def test_the_key_of_the_root_is_refused_with_the_remedy(cadir: Path) -> None:
    shutil.copy(cadir / "root_key.pem", cadir / "ca_key.pem")
    with pytest.raises(Misconfigured, match="belongs to Puppet Root CA: 97f86624230bc9, which is not the first"):
        read(cadir)


def test_a_bundle_in_the_wrong_order_is_refused(cadir: Path) -> None:
    first, second = (profile.pem_of(c) for c in Issuer.read((cadir / "ca_crt.pem").read_text()).chain)
    (cadir / "ca_crt.pem").write_text(second + first)
    with pytest.raises(Misconfigured, match="put the signing CA first, the root last"):
        read(cadir)
    (cadir / "ca_key.pem").unlink()
    with pytest.raises(Misconfigured, match=r"chain of ca_crt\.pem does not verify"):
        read(cadir)


def test_a_key_that_is_elsewhere_is_noted(cadir: Path) -> None:
    (cadir / "ca_key.pem").unlink()
    found = read(cadir)
    assert found.key is None
    assert found.problems == []
    assert "authority.key" in found.notes[0]


def test_a_list_by_somebody_else_is_refused(cadir: Path) -> None:
    issuer = Issuer.read((cadir / "ca_crt.pem").read_text())
    forged = profile.signed_list(
        issuer, puppetca.new_ca("Puppet CA: other", "rsa").key, [], number=9, now=NOW, ttl=timedelta(days=1)
    )
    (cadir / "ca_crl.pem").write_text(profile.pem_of(forged))
    with pytest.raises(Misconfigured, match="is not signed by Puppet CA"):
        read(cadir)
    (cadir / "ca_crl.pem").write_text("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
    with pytest.raises(Misconfigured, match="cannot be decoded"):
        read(cadir)


def test_a_foreign_list_beside_ours_is_not_taken_for_an_ancestors(cadir: Path) -> None:
    other = puppetca.new_ca("Puppet CA: other")
    foreign = profile.signed_list(other.issuer, other.key, [], number=1, now=NOW, ttl=timedelta(days=1))
    before = (cadir / "ca_crl.pem").read_text()
    (cadir / "ca_crl.pem").write_text(profile.pem_of(foreign) + before)
    found = read(cadir)
    assert len(crls_in(found.ancestors_pem)) == 1
    assert set(found.revoked) == {5, 0xB, 0xC}


@pytest.mark.parametrize(("content", "said"), [("", "no hexadecimal"), ("xyz", "no hexadecimal"), ("1" * 41, "no hex")])
def test_a_junk_counter_is_refused(cadir: Path, content: str, said: str) -> None:
    (cadir / "serial").write_text(content)
    with pytest.raises(Misconfigured, match=said):
        read(cadir)


@pytest.mark.parametrize("text", ["F" * 20, "80000000", "7FFFFFFF0"])
def test_a_counter_that_puppetserver_could_not_read_is_refused(cadir: Path, text: str) -> None:
    (cadir / "serial").write_text(text)
    with pytest.raises(Misconfigured, match=f"serial holds {text}, and a puppetserver counts to 7FFFFFFF"):
        read(cadir)
    (cadir / "serial").write_text("7FFFFFFF")
    assert read(cadir).counter == 0x7FFF_FFFF


def test_a_directory_that_is_none_says_which_file_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"ca_crt\.pem"):
        read(tmp_path)


def test_a_ca_that_has_ended_is_said(cadir: Path) -> None:
    later = datetime(2042, 1, 1, tzinfo=UTC)
    found = transfer.read_directory(cadir, now=later)
    assert found.problems == ["Puppet CA: proxy01.example.net expired on 2041-11-18"]


def test_an_ancestor_that_has_ended_is_said(cadir: Path) -> None:
    chain = Issuer.read((cadir / "ca_crt.pem").read_text()).chain
    root_key = load_pem_private_key((cadir / "root_key.pem").read_bytes(), None)
    assert isinstance(root_key, rsa.RSAPrivateKey)
    name = profile.common_name(chain[1].subject)
    ended = profile.self_signed(name, root_key, now=NOW - timedelta(days=10), ttl=timedelta(days=9))
    (cadir / "ca_crt.pem").write_text(profile.pem_of(chain[0]) + profile.pem_of(ended))
    assert f"{name} expired on {NOW - timedelta(days=1):%Y-%m-%d}" in read(cadir).problems


def test_progress_is_told(cadir: Path) -> None:
    told: list[tuple[str, int, int]] = []
    transfer.read_directory(cadir, now=NOW, progress=lambda what, done, of: told.append((what, done, of)))
    assert told[-1] == ("certificates read", 9, 9)


# ------------------------------------------------------------------ there and back


async def _ledger(store: Store) -> dict[str, Any]:
    """Return everything an export has to bring back, in comparable form."""
    async with store.read() as uow:
        certs = (await uow.connection.execute(select(certificates))).mappings().all()
        pending = (await uow.connection.execute(select(requests))).mappings().all()
        gone = (await uow.connection.execute(select(revocations))).mappings().all()
        lists = (await uow.connection.execute(select(crls))).mappings().one()
    # A list holds whole seconds, and a directory no file of what was cleaned.
    kept = ("serial", "certname", "state", "not_before", "not_after")
    whole = ("pem", "status")
    return {
        "certificates": sorted(tuple(c[k] for k in (*kept, *(whole if c["state"] == "live" else ()))) for c in certs),
        "requests": sorted((r["certname"], r["pem"], r["sha256"], r["flaw"]) for r in pending),
        "revocations": sorted((r["serial"], r["certname"], int(r["revoked_at"])) for r in gone),
        "lists": (lists["number"], lists["own_pem"], lists["ancestors_pem"]),
    }


async def test_export_and_import_give_the_same_ledger(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    async with puppetca.member(store, home) as ca:
        await ca.submit("new.example.net", puppetca.agent("new.example.net").csr, source="192.0.2.1")
        await ca.sign("new.example.net", actor="test")
        await ca.submit("waits.example.net", puppetca.agent("waits.example.net").csr, source="192.0.2.1")
        await ca.clean(["agent02.example.net"], actor="test")
    out = tmp_path / "out"
    counts = await transfer.write_directory(store, out, key_pem=(home / "ca_key.pem").read_bytes())
    assert counts == {"certificates": 9, "requests": 7, "revocations": 4}
    async with opened(Secret(f"sqlite:///{tmp_path}/second.db")) as second:
        await puppetca.take_over(second, tmp_path / "second", out)
        assert await _ledger(second) == await _ledger(store)


async def test_the_exported_directory_is_a_puppetservers(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    out = tmp_path / "out"
    await transfer.write_directory(store, out, key_pem=(home / "ca_key.pem").read_bytes())
    for name in ("ca_crt.pem", "ca_crl.pem", "ca_key.pem", "ca_pub.pem", "serial"):
        assert (out / name).read_text() == (cadir / name).read_text(), name
    for place in ("signed", "requests"):
        ours = {p.name: p.read_text() for p in (out / place).iterdir()}
        assert ours == {p.name: p.read_text() for p in (cadir / place).iterdir()}
    # Ours lists what was signed offline, too, which puppetserver's own inventory lacks.
    lines = set((out / "inventory.txt").read_text().splitlines())
    theirs = set((cadir / "inventory.txt").read_text().splitlines())
    assert theirs <= lines
    assert [line.rpartition("=")[2] for line in lines - theirs] == ["admin.example.net"]
    modes = {name: oct((out / name).stat().st_mode & 0o777) for name in ("ca_key.pem", "serial", "signed")}
    assert modes == {"ca_key.pem": "0o600", "serial": "0o644", "signed": "0o750"}


async def test_random_serials_do_not_reach_the_counter(store: Store, cadir: Path, home: Path, tmp_path: Path) -> None:
    await puppetca.take_over(store, home, cadir)
    async with puppetca.member(store, home) as ca:
        await ca.submit("new.example.net", puppetca.agent("new.example.net").csr, source="192.0.2.1")
        await ca.sign("new.example.net", actor="test")
    await transfer.write_directory(store, tmp_path / "out", key_pem=None)
    assert (tmp_path / "out" / "serial").read_text() == "000D"
    assert not (tmp_path / "out" / "ca_key.pem").exists()


async def test_a_directory_with_something_in_it_is_not_written_to(store: Store, home: Path, tmp_path: Path) -> None:
    await puppetca.begin(store, home)
    out = tmp_path / "out"
    out.mkdir()
    (out / "note").write_text("mine")
    with pytest.raises(Conflict, match="is not empty; nothing was written"):
        await transfer.write_directory(store, out, key_pem=None)
    assert [p.name for p in out.iterdir()] == ["note"]


async def test_without_a_ca_there_is_nothing_to_export(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="nothing to export"):
        await transfer.write_directory(store, tmp_path / "out", key_pem=None)


async def test_openssl_verifies_an_exported_certificate(store: Store, home: Path, tmp_path: Path) -> None:
    """With the list: that is what an agent does (certificate_revocation = chain)."""
    await puppetca.begin(store, home)
    async with puppetca.member(store, home) as ca:
        for name in ("good.example.net", "bad.example.net"):
            await ca.submit(name, puppetca.agent(name).csr, source="192.0.2.1")
            await ca.sign(name, actor="test")
        await ca.revoke("bad.example.net", actor="test")
    out = tmp_path / "out"
    await transfer.write_directory(store, out, key_pem=None)

    def verified(name: str) -> str:
        lists = ("-crl_check_all", "-CAfile", str(out / "ca_crt.pem"), "-CRLfile", str(out / "ca_crl.pem"))
        command = ["openssl", "verify", *lists, str(out / "signed" / f"{name}.example.net.pem")]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return f"{said.stdout} {said.stderr}"

    assert "good.example.net.pem: OK" in verified("good")
    assert "certificate revoked" in verified("bad")


def test_a_certificate_of_the_sample_is_not_touched_by_reading(cadir: Path) -> None:
    before = {p: p.read_bytes() for p in cadir.rglob("*") if p.is_file()}
    read(cadir)
    assert {p: p.read_bytes() for p in cadir.rglob("*") if p.is_file()} == before


def test_an_ec_ca_is_read_like_any_other(tmp_path: Path) -> None:
    new = puppetca.new_ca("Puppet CA: ec")
    (tmp_path / "signed").mkdir()
    (tmp_path / "ca_crt.pem").write_text(new.issuer.chain_pem)
    (tmp_path / "ca_key.pem").write_bytes(puppetca.key_pem(new.key))
    made = profile.signed_list(new.issuer, new.key, [], number=0, now=NOW, ttl=timedelta(days=1))
    (tmp_path / "ca_crl.pem").write_text(profile.pem_of(made))
    (tmp_path / "signed" / "a.example.net.pem").write_bytes(sign("a.example.net", 7, ca=new))
    found = read(tmp_path)
    assert (found.problems, list(found.live)) == ([], [7])
