from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.kernel.errors import Conflict, MusterError, Rejected
from muster.kernel.files import write_atomically
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, certificate_facts, paths, present, write
from muster.pki.context import server_context

NOW = datetime.now(UTC)
MEMBER = BundleRequest("member", "proxy01.example.com", ("proxy.example.com",), ("127.0.0.11",))


@pytest.fixture
def ca(tmp_path: Path) -> ClusterCA:
    return ClusterCA.create(tmp_path, "demo", now=NOW)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_keys_are_private_and_certificates_are_not(ca: ClusterCA, tmp_path: Path) -> None:
    at = write(ca.issue(MEMBER, now=NOW), tmp_path)
    assert (mode(at.key), mode(at.certificate), mode(at.ca)) == (0o600, 0o644, 0o644)
    check = write(ca.issue(BundleRequest("balancer", "balancer"), now=NOW), tmp_path)
    assert check.certificate == check.key == tmp_path / "balancer" / "check.pem"
    assert mode(check.key) == 0o600
    assert check.key.read_text().index("BEGIN CERTIFICATE") < check.key.read_text().index("PRIVATE KEY")


def test_a_reissue_keeps_all_names_and_changes_the_key(ca: ClusterCA, tmp_path: Path) -> None:
    at = write(ca.issue(MEMBER, now=NOW), tmp_path)
    before, key = certificate_facts(at), at.key.read_bytes()
    again = BundleRequest("member", "proxy01.example.com", ("new.example.com",)).keeping(before)
    write(ca.issue(again, now=NOW), tmp_path)
    after = certificate_facts(at)
    assert set(after.names) == {*before.names, "new.example.com"}
    assert after.addresses == before.addresses
    assert at.key.read_bytes() != key


@pytest.mark.parametrize("dies_at", ["key.pem", "cert.pem", "ca.pem", "link"])
def test_a_reissue_that_dies_anywhere_leaves_the_old_pair(
    ca: ClusterCA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    at = write(ca.issue(MEMBER, now=NOW), tmp_path)
    before = at.certificate.read_bytes()
    # A power cut has no seam: the last step that still happens is chosen here.
    real = write_atomically

    def dying(path: Path, content: bytes | str, *, mode: int = 0o644, like: Path | None = None) -> None:
        if path.name == dies_at:
            raise KeyboardInterrupt
        real(path, content, mode=mode, like=like)

    def dying_link(link: Path, version: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundles, "write_atomically", dying)
    if dies_at == "link":
        monkeypatch.setattr(bundles, "_point", dying_link)
    with pytest.raises(KeyboardInterrupt):
        write(ca.issue(MEMBER, now=NOW), tmp_path)
    assert at.certificate.read_bytes() == before
    server_context(at.certificate, at.key, [at.ca])


def test_only_the_previous_version_is_kept(ca: ClusterCA, tmp_path: Path) -> None:
    for _ in range(4):
        at = write(ca.issue(MEMBER, now=NOW), tmp_path)
    assert len(list((tmp_path / "members" / ".proxy01.example.com").iterdir())) == 2
    assert at.certificate.exists()


def test_a_directory_made_by_hand_is_not_replaced(ca: ClusterCA, tmp_path: Path) -> None:
    by_hand = paths(tmp_path, "member", "proxy01.example.com")
    by_hand.directory.mkdir(parents=True)
    by_hand.key.write_text("precious")
    with pytest.raises(Conflict, match="move it away"):
        write(ca.issue(MEMBER, now=NOW), tmp_path)
    assert by_hand.key.read_text() == "precious"


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "..", "a b", "evil\nname", "*.example.com", "x" * 64])
def test_a_name_that_is_no_host_name_reaches_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(Rejected):
        BundleRequest("member", name)
    with pytest.raises(Rejected):
        paths(tmp_path, "client", name)


def test_a_common_name_longer_than_x509_allows_is_refused() -> None:
    with pytest.raises(MusterError, match="room for 64"):
        BundleRequest("member", "a." * 40 + "example.com")


def test_present_lists_every_bundle_and_no_version(ca: ClusterCA, tmp_path: Path) -> None:
    assert present(tmp_path) == []
    for request in (MEMBER, BundleRequest("client", "Foreman.example.com"), BundleRequest("balancer", "balancer")):
        write(ca.issue(request, now=NOW), tmp_path)
    assert [(b.kind, b.name) for b in present(tmp_path)] == [
        ("member", "proxy01.example.com"),
        ("client", "foreman.example.com"),
        ("balancer", "balancer"),
    ]
