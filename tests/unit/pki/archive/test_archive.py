"""Archives of certificates: made, read, judged and put into place."""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.kernel.errors import Misconfigured, Rejected, Unsupported
from muster.kernel.secrets import Secret
from muster.pki import pem as pems
from muster.pki.archive.judged import judged
from muster.pki.archive.layout import FORMATS, Format, layout
from muster.pki.archive.made import Custom, Wanted, made
from muster.pki.archive.placed import placements
from muster.pki.archive.read import Archive, opened, packed
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.pki.facts import CertificateFacts

NOW = datetime.now(UTC)
MEMBER = "proxy01.example.net"
NAMES = ("proxies.example.net", "smartproxy.example.net")


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> ClusterCA:
    return ClusterCA.create(tmp_path_factory.mktemp("pki"), "demo", now=NOW, valid_days=3650)


def wanted(form: Format, **changes: object) -> Wanted:
    return replace(Wanted(form, MEMBER, NAMES, key_kind="ec-p256"), **changes)  # type: ignore[arg-type]


def files(form: Format, ca: ClusterCA, **changes: object) -> dict[str, bytes]:
    return made(wanted(form, **changes), ca, now=NOW, valid_days=825)


def archive(form: Format, ca: ClusterCA, **changes: object) -> Archive:
    return Archive(layout(form, MEMBER), files(form, ca, **changes))


def test_the_installer_s_archive_has_its_files_and_no_others(ca: ClusterCA) -> None:
    """docs/facts/deployment.md §2.2."""
    below = f"ssl-build/{MEMBER}/{MEMBER}-"
    pairs = ("apache", "foreman-proxy", "foreman-proxy-client", "puppet-client")
    assert set(files("installer", ca)) == {
        "ssl-build/katello-default-ca.crt", "ssl-build/katello-server-ca.crt", "ssl-build/ca-bundle.crt",
        *(f"{below}{pair}.{end}" for pair in pairs for end in ("crt", "key")),
    }  # fmt: skip


def test_foremanctl_s_archive_has_its_files_and_what_a_proxy_registers_with(ca: ClusterCA) -> None:
    """docs/facts/deployment.md §5."""
    found = files("foremanctl", ca, secrets={"key": Secret("the-key"), "secret": Secret("the-secret")})
    assert set(found) == {
        "certs/ca.crt", "certs/server-ca.crt", "certs/ca-bundle.crt", f"certs/{MEMBER}.crt", f"certs/{MEMBER}-client.crt",
        f"private/{MEMBER}.key", f"private/{MEMBER}-client.key",
        "oauth/foreman-oauth-consumer-key", "oauth/foreman-oauth-consumer-secret",
    }  # fmt: skip
    assert found["oauth/foreman-oauth-consumer-secret"] == b"the-secret\n"
    with pytest.raises(Misconfigured, match="holds no key or secret"):
        files("installer", ca, secrets={"key": Secret("the-key"), "secret": Secret("the-secret")})


@pytest.mark.parametrize("form", FORMATS)
def test_every_certificate_names_the_member_and_the_cluster_and_all_is_good(form: Format, ca: ClusterCA) -> None:
    it = archive(form, ca, secrets={"key": Secret("k"), "secret": Secret("s")} if form == "foremanctl" else None)
    for pair in it.layout.pairs:
        facts = CertificateFacts.from_pem(it.files[pair.certificate])
        assert (facts.subject_cn, facts.names) == (MEMBER, (MEMBER, *NAMES))
    assert judged(it, MEMBER, NAMES, NOW) == []


def test_the_forgotten_name_is_said_with_the_option_that_was_forgotten(ca: ClusterCA) -> None:
    for form, option in (("installer", "--foreman-proxy-cname"), ("foremanctl", "--server-alias")):
        it = archive(form, ca, names=())  # type: ignore[arg-type]
        found = [c for c in judged(it, MEMBER, NAMES, NOW) if c.code == "TLS-NAME"]
        assert len(found) == sum(p.serves for p in it.layout.pairs)
        assert all(n in found[0].sentence for n in NAMES)
        assert option in found[0].cause
        assert all(f"{option} {n}" in found[0].remedy for n in NAMES)


def test_what_was_mixed_lost_spoilt_or_let_expire_is_said(ca: ClusterCA, tmp_path: Path) -> None:
    it = archive("installer", ca)
    apache, proxy, *_ = it.layout.pairs
    mixed = replace(it, files={**it.files, apache.key: it.files[proxy.key]})
    assert [c.code for c in judged(mixed, MEMBER, NAMES, NOW)] == ["FILE-MISMATCH"]
    lost = replace(it, files={n: c for n, c in it.files.items() if n != proxy.key})
    assert [(c.code, proxy.key in c.sentence) for c in judged(lost, MEMBER, NAMES, NOW)] == [("ARCHIVE-FILE", True)]
    spoilt = replace(it, files={**it.files, apache.certificate: b"nothing"})
    assert [c.code for c in judged(spoilt, MEMBER, NAMES, NOW)] == ["FILE-UNREADABLE"]
    later = {c.code for c in judged(it, MEMBER, NAMES, NOW + timedelta(days=830))}
    assert later == {"TLS-EXPIRED"}
    other = ClusterCA.create(tmp_path / "other", "other", now=NOW, valid_days=3650)
    foreign = replace(it, files={**it.files, it.layout.server_ca: other.chain_pem.encode()})
    assert {c.code for c in judged(foreign, MEMBER, NAMES, NOW) if c.severity == "error"} & {"TLS-CA", "TLS-CA-KEY"}
    assert [c.code for c in judged(it, "proxy02.example.net", NAMES, NOW)] == ["ARCHIVE-MEMBER"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("compress", [bytes, bz2.compress, lzma.compress])
def test_what_was_packed_is_read_again_however_it_is_compressed(
    form: Format, compress: object, ca: ClusterCA, tmp_path: Path
) -> None:
    found = files(form, ca)
    of = layout(form, MEMBER)
    place = tmp_path / "a.tar"
    place.write_bytes(compress(packed(found, of.keys, compressed=False)))  # type: ignore[operator]
    again = opened(place)
    assert (again.layout, dict(again.files)) == (of, found)
    place.write_bytes(packed(found, of.keys, compressed=True))
    assert dict(opened(place).files) == found
    assert packed(found, of.keys, compressed=True) == place.read_bytes()
    with tarfile.open(place) as tar:
        assert {m.name: m.mode for m in tar} == {n: 0o600 if n in of.keys else 0o644 for n in found}
    place.write_bytes(packed(found, of.keys, compressed=True)[:-40])
    with pytest.raises(Misconfigured, match=r"too early|cannot be"):
        opened(place)


def tar_of(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def test_what_is_no_archive_of_certificates_is_refused(tmp_path: Path) -> None:
    name = f"ssl-build/{MEMBER}/{MEMBER}-foreman-proxy.crt"
    link = tarfile.TarInfo(name)
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
    place = tmp_path / "a.tar"
    for content, why in (
        (b"no tar at all", r"no tar|neither"),
        (b"\x1f\x8bno gzip", "decompressed"),
        (tar_of((tarfile.TarInfo("etc/motd"), b"x")), "neither"),
        (tar_of((link, b"")), "is no file"),
        (tar_of((tarfile.TarInfo(name), b"x"), (tarfile.TarInfo(name), b"y")), "twice"),
        (tar_of(*((tarfile.TarInfo(f"f{n}"), b"") for n in range(300))), "more than"),
        (lzma.compress(bytes(20 << 20)), "more than"),
    ):
        place.write_bytes(content)
        with pytest.raises(Misconfigured, match=why):
            opened(place)


def test_a_size_that_no_file_has_is_one_sentence(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.size = 1 << 70
    place = tmp_path / "a.tar"
    for kind in (tarfile.XHDTYPE, tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME):
        info.type = kind
        place.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
        with pytest.raises(Misconfigured):
            opened(place)


def test_the_longest_names_of_hosts_fit(tmp_path: Path) -> None:
    member = f"{'a' * 63}.{'b' * 63}.{'c' * 63}.example.net"
    of = layout("installer", member)
    found = dict.fromkeys(of.files, b"x")
    place = tmp_path / "a.tar"
    place.write_bytes(packed(found, of.keys, compressed=False))
    assert (opened(place).member, dict(opened(place).files)) == (member, found)


def custom(ca: ClusterCA, *names: str, kind: str = "member", now: datetime = NOW, key: str = "rsa-2048") -> Custom:
    bundle = ca.issue(BundleRequest(kind, names[0], names, key_kind=key), now=now)  # type: ignore[arg-type]
    chain = pems.certificates(bundle.certificate_pem.encode(), "x")
    return Custom(tuple(chain), pems.private_key(bundle.key_pem.reveal().encode(), "x"), ca.certificates)


def test_a_certificate_of_somebody_else_is_shown_to_hosts_and_not_to_foreman(ca: ClusterCA, tmp_path: Path) -> None:
    public = ClusterCA.create(tmp_path / "public", "public", now=NOW, valid_days=3650)
    it = archive("installer", ca, custom=custom(public, MEMBER, *NAMES))
    by_pair = {p: CertificateFacts.from_pem(it.files[p.certificate]).issuer for p in it.layout.pairs}
    assert {"public" in issuer for p, issuer in by_pair.items() if p.serves} == {True}
    assert {"public" in issuer for p, issuer in by_pair.items() if not p.serves} == {False}
    assert judged(it, MEMBER, NAMES, NOW) == []
    # Whoever calls the member is believed by the cluster's CA only.
    assert it.files[it.layout.default_ca] == ca.chain_pem.encode()


def test_a_certificate_that_lacks_the_address_is_refused_before_anything_is_made(ca: ClusterCA, tmp_path: Path) -> None:
    public = ClusterCA.create(tmp_path / "public", "public", now=NOW - timedelta(days=400), valid_days=3650)
    for unfit, why in (
        (custom(public, MEMBER), "does not name proxies.example.net, smartproxy.example.net"),
        (custom(public, MEMBER, *NAMES, kind="client"), "certificate"),
        (replace(custom(public, MEMBER, *NAMES), issuers=ca.certificates), r"issued by|not"),
    ):
        with pytest.raises(Rejected, match=why):
            files("installer", ca, custom=unfit)


def test_files_go_where_the_installer_puts_them(ca: ClusterCA) -> None:
    """docs/facts/deployment.md §2.3, but that no file with a key is for everybody."""
    it = archive("installer", ca, key_kind="rsa-2048")
    found = {p.path: p for p in placements(it, mqtt=True, puppet=True)}
    text = {name: content.decode() for name, content in it.files.items()}
    below = f"ssl-build/{MEMBER}/{MEMBER}-"
    for path, name, group, mode in (
        ("/etc/foreman-proxy/ssl_cert.pem", f"{below}foreman-proxy.crt", "foreman-proxy", 0o444),
        ("/etc/foreman-proxy/ssl_key.pem", f"{below}foreman-proxy.key", "foreman-proxy", 0o440),
        ("/etc/foreman-proxy/ssl_ca.pem", "ssl-build/katello-default-ca.crt", "foreman-proxy", 0o440),
        ("/etc/foreman-proxy/foreman_ssl_ca.pem", "ssl-build/katello-server-ca.crt", "foreman-proxy", 0o440),
        ("/etc/foreman-proxy/foreman_ssl_key.pem", f"{below}foreman-proxy-client.key", "foreman-proxy", 0o440),
        ("/etc/pki/katello/private/katello-apache.key", f"{below}apache.key", "root", 0o440),
        ("/etc/pki/katello/puppet/puppet_client.crt", f"{below}puppet-client.crt", "puppet", 0o440),
        ("/etc/mosquitto/ssl/ssl_key.pem", f"{below}foreman-proxy.key", "mosquitto", 0o440),
    ):
        one = found[path]
        assert (one.content.reveal(), one.group, one.mode) == (text[name], group, mode)
        assert "PRIVATE" not in repr(one)
    both = found[f"/etc/pki/katello/private/{MEMBER}-foreman-proxy-client-bundle.pem"].content.reveal()
    assert both.startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert both.endswith(text[f"{below}foreman-proxy-client.crt"])
    assert all(not p.mode & 0o007 for p in found.values() if "PRIVATE KEY" in p.content.reveal())
    with pytest.raises(Unsupported, match="deploy-proxy"):
        placements(archive("foremanctl", ca))
