"""A whole replacement of the CA on real files, interrupted before every single command."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from muster.kernel.clock import FakeClock
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected
from muster.kernel.files import write_atomically
from muster.pki import carry_out as acting
from muster.pki import pem as pems
from muster.pki.authority import ClusterCA, pem_text
from muster.pki.bundles import BundlePaths, BundleRequest, certificate_facts, kind_of_key, present, write
from muster.pki.carry_out import Workshop, alone, carry_out, refuse_unless_able, viewed
from muster.pki.context import client_context, server_context
from muster.pki.facts import CertificateFacts
from muster.pki.rotation import STEPS, Begin, Reissue, Step, View, decided, expiring, next_step
from muster.pki.verify import verify_files

NOW = datetime.now(UTC)
MEMBERS = (
    BundleRequest("member", "proxy01.example.com", ("proxy.example.com", "kept.example.com"), ("127.0.0.11",)),
    BundleRequest("member", "proxy02.example.com", ("proxy.example.com",), ("127.0.0.12",), "rsa-2048"),
    BundleRequest("client", "foreman.example.com"),
    BundleRequest("balancer", "balancer"),
)


def requested(at: BundlePaths, facts: CertificateFacts | None) -> BundleRequest:
    if facts is None:
        return BundleRequest(at.kind, at.name)
    return BundleRequest(at.kind, at.name, key_kind=kind_of_key(facts)).keeping(facts)


def workshop(directory: Path) -> Workshop:
    def make(directory: Path, common_name: str, *, dry: bool) -> ClusterCA:
        return ClusterCA.create(directory, "demo", now=NOW, common_name=common_name, dry=dry)

    return Workshop(directory, FakeClock(NOW), 100, make)


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    for request in MEMBERS:
        write(ca.issue(request, now=NOW), tmp_path)
    return tmp_path


def seen(pki: Path) -> View:
    return viewed(pki, NOW, requested)


def do(pki: Path, step: Step | None = None) -> None:
    for command in decided(seen(pki), step).commands:
        carry_out(command, workshop(pki))


def issued_by(pki: Path) -> dict[str, str]:
    return {at.kind + " " + at.name: certificate_facts(at).issuer for at in present(pki)}


def wrong(pki: Path) -> list[str]:
    return [c.code for at in present(pki) for c in verify_files(at, pki / "ca.pem", [at.name], NOW)]


def all_get_along(pki: Path) -> bool:
    """Whether every certificate here is trusted by every CA file here, and every bundle loads."""
    bundles = present(pki)
    for at in bundles:
        if at.kind == "member":
            server_context(at.certificate, at.key, [at.ca])
        client_context(at.ca, at.certificate, at.key)
    leaves = [pems.certificates(at.certificate.read_bytes(), "leaf")[0] for at in bundles]
    trusting = [pems.certificates(p.read_bytes(), "ca") for p in (pki / "ca.pem", *(at.ca for at in bundles))]
    return all(any(pems.signed_by(leaf, ca) for ca in cas) for leaf in leaves for cas in trusting)


def test_three_steps_replace_the_ca_and_keep_every_name_and_kind_of_key(pki: Path) -> None:
    before = {at.directory: certificate_facts(at) for at in present(pki)}
    old = (pki / "ca.pem").read_text()
    for step in STEPS:
        assert next_step(seen(pki)) == step
        do(pki, step)
        assert all_get_along(pki)
        assert wrong(pki) == []
    assert old not in (pki / "ca.pem").read_text()
    assert set(issued_by(pki).values()) == {"CN=Muster cluster CA 2,O=demo"}
    for at in present(pki):
        facts, earlier = certificate_facts(at), before[at.directory]
        assert (facts.names, facts.addresses, facts.key) == (earlier.names, earlier.addresses, earlier.key)
    assert not (pki / "rotation").exists()
    ClusterCA.open(pki)
    assert not seen(pki).begun
    modes = {stat.S_IMODE(p.stat().st_mode) for p in pki.glob("*.key")}
    assert (modes, len(list(pki.glob("*.key")))) == ({0o600}, 2)


def test_a_power_cut_before_any_command_is_survived(pki: Path) -> None:
    names = {at.directory: certificate_facts(at).names for at in present(pki)}
    shop, made = workshop(pki), 0
    for step in STEPS:
        complete = False
        while not complete:
            # Each attempt does one command only and then everything is looked at anew, as after a cut.
            decision = decided(seen(pki), step)
            carry_out(decision.commands[0], shop)
            made += type(decision.commands[0]).__name__ == "MakeCA"
            assert all_get_along(pki), decision.commands[0]
            complete = len(decision.commands) == 1
    assert made == 1
    assert {at.directory: certificate_facts(at).names for at in present(pki)} == names
    assert not (pki / "rotation").exists()
    assert wrong(pki) == []


def test_a_power_cut_between_key_and_certificate_of_the_ca_is_mended(
    pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do(pki, "trust-both")

    # A power cut has no seam: the last write that still happens is chosen here.
    def dying(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
        if path == pki / "ca.pem":
            raise KeyboardInterrupt
        write_atomically(path, content, mode=mode)

    with monkeypatch.context() as patch:
        patch.setattr(acting, "write_atomically", dying)
        with pytest.raises(KeyboardInterrupt):
            do(pki, "reissue")
    with pytest.raises(Misconfigured, match="does not belong"):
        ClusterCA.open(pki)
    do(pki, "reissue")
    do(pki, "drop-old")
    assert wrong(pki) == []
    assert set(issued_by(pki).values()) == {"CN=Muster cluster CA 2,O=demo"}


def test_a_new_ca_that_was_half_made_is_made_again(pki: Path) -> None:
    begin, make, *_ = decided(seen(pki)).commands
    carry_out(begin, workshop(pki))
    carry_out(make, workshop(pki))
    (pki / "rotation" / "new" / "ca.pem").unlink()
    for step in STEPS:
        do(pki, step)
    assert wrong(pki) == []


def test_what_is_issued_meanwhile_gets_along_with_everybody(pki: Path) -> None:
    late = BundleRequest("member", "late.example.com")
    do(pki, "trust-both")
    write(ClusterCA.open(pki).issue(late, now=NOW), pki)
    assert all_get_along(pki)
    do(pki, "reissue")
    assert issued_by(pki)["member late.example.com"] == "CN=Muster cluster CA 2,O=demo"
    write(ClusterCA.open(pki).issue(late, now=NOW), pki)
    assert all_get_along(pki)
    do(pki, "drop-old")
    assert wrong(pki) == []


def test_a_ca_with_an_issuer_is_replaced_by_one_without_and_sends_no_leftovers(tmp_path: Path) -> None:
    from tests.unit.pki.test_authority import foreign_ca, key_pem, pem

    root = foreign_ca(name="Root")
    middle = foreign_ca(name="Middle", issuer=root)
    ca = ClusterCA.adopt(tmp_path, pem(middle[0]) + pem(root[0]), key_pem(middle[1]), now=NOW)
    write(ca.issue(MEMBERS[0], now=NOW), tmp_path)
    do(tmp_path, "trust-both")
    do(tmp_path, "reissue")
    assert present(tmp_path)[0].certificate.read_text().count("BEGIN CERTIFICATE") == 1
    do(tmp_path, "drop-old")
    assert (tmp_path / "ca.pem").read_text() == pem_text([ClusterCA.open(tmp_path).certificate])
    assert set(issued_by(tmp_path).values()) == {"CN=Muster cluster CA,O=demo"}


def test_renewing_issues_only_what_ends_soon_and_keeps_names(pki: Path) -> None:
    write(ClusterCA.open(pki).issue(MEMBERS[0], now=NOW, valid_days=20), pki)
    chosen = expiring(seen(pki).bundles, NOW, timedelta(days=30))
    assert [h.at.name for h in chosen] == ["proxy01.example.com"]
    for one in chosen:
        carry_out(Reissue(one), workshop(pki))
    after = certificate_facts(chosen[0].at)
    assert "kept.example.com" in after.names
    assert after.not_after > NOW + timedelta(days=99)
    assert expiring(seen(pki).bundles, NOW, timedelta(days=30)) == []


def test_a_ca_file_copied_too_early_or_too_late_is_found(pki: Path) -> None:
    member = present(pki)[0].ca
    early = member.read_bytes()
    do(pki, "trust-both")
    both = member.read_bytes()
    member.write_bytes(early)
    assert wrong(pki) == ["FILE-CA"]
    member.write_bytes(both)
    do(pki, "reissue")
    both = member.read_bytes()
    do(pki, "drop-old")
    member.write_bytes(both)
    assert wrong(pki) == ["FILE-CA-MORE"]


def test_a_ca_replaced_by_other_means_meanwhile_is_not_carried_on_with(pki: Path) -> None:
    do(pki, "trust-both")
    ClusterCA.create(pki, "demo", now=NOW, overwrite=True)
    with pytest.raises(Conflict, match="speaks of another CA"):
        seen(pki)


def test_of_two_at_work_one_is_refused(pki: Path, tmp_path: Path) -> None:
    with alone(pki), pytest.raises(Conflict, match="Another muster certs rotate"), alone(pki):
        pass
    with alone(pki):
        pass
    with pytest.raises(NotFound, match="muster certs init"), alone(tmp_path / "nowhere"):
        pass


def test_what_would_be_refused_half_way_is_refused_before_anything_is_done(pki: Path) -> None:
    for step in STEPS[:2]:
        before = {p: p.read_bytes() for p in pki.rglob("*") if p.is_file()}
        commands = decided(seen(pki), step).commands
        refuse_unless_able(commands, workshop(pki))
        assert {p: p.read_bytes() for p in pki.rglob("*") if p.is_file()} == before
        late = replace(workshop(pki), clock=FakeClock(NOW + timedelta(days=9_000)))
        if any(isinstance(c, Reissue) for c in commands):
            with pytest.raises(Rejected, match="expired on"):
                refuse_unless_able(commands, late)
            with pytest.raises(Rejected, match="1 to 36500"):
                refuse_unless_able(commands, replace(workshop(pki), valid_days=0))
        do(pki, step)


def test_a_directory_made_by_hand_stops_a_reissue_before_it_begins(pki: Path) -> None:
    at = seen(pki).bundles[0].at
    real = at.directory.resolve()
    at.directory.unlink()
    real.rename(at.directory)
    commands = [Reissue(b) for b in seen(pki).bundles]
    with pytest.raises(Conflict, match="was not made by Muster"):
        refuse_unless_able(commands, workshop(pki))


def test_a_new_ca_that_cannot_be_made_stops_the_step_before_it_begins(pki: Path) -> None:
    def make(directory: Path, common_name: str, *, dry: bool) -> ClusterCA:
        return ClusterCA.create(directory, "demo", now=NOW, common_name=common_name, valid_days=0, dry=dry)

    with pytest.raises(Rejected, match="1 to 36500"):
        refuse_unless_able(decided(seen(pki)).commands, replace(workshop(pki), make=make))
    (pki / "ca.key").write_bytes(b"")
    with pytest.raises(Misconfigured):
        refuse_unless_able([Begin()], workshop(pki))


def test_a_ca_with_an_encrypted_key_replaces_and_is_replaced_whenever_it_is_interrupted(pki: Path) -> None:
    word = pki.parent / "words"
    word.write_text("open sesame")

    def encrypted(directory: Path, common_name: str, *, dry: bool) -> ClusterCA:
        made = ClusterCA.create(
            pki.parent / f"site-{pki.name}", "demo", now=NOW, common_name=common_name, overwrite=True
        )
        key = pems.private_key((made.directory / "ca.key").read_bytes(), "key")
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
        return ClusterCA.adopt(directory, made.chain_pem.encode(), pem, overwrite=True, dry=dry, passphrase_file=word)

    for make in (encrypted, workshop(pki).make):
        shop = replace(workshop(pki), make=make)
        for step in STEPS:
            # One command at a time, each decided anew, as after a cut.
            while (commands := decided(seen(pki), step).commands) and not (
                len(commands) == 1 and step in seen(pki).done
            ):
                carry_out(commands[0], shop)
                if not seen(pki).begun:
                    break
        assert not seen(pki).begun
        assert wrong(pki) == []
        assert pems.is_encrypted((pki / "ca.key").read_bytes()) == (make is encrypted)
        assert (pki / "ca.passphrase").is_symlink() == (make is encrypted)
