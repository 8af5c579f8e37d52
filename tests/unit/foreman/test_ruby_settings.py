from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from muster.foreman.ruby_settings import host_in, read, settings
from muster.kernel.errors import Misconfigured
from tests.servers.hand_made import settings_of
from tests.unit.kernel.test_archives import archive

MEMBER, ADDRESS = "proxy01.example.net", "smartproxy.example.net"


def packed(directory: Path, archive: Path, *, above: str = "etc/foreman-proxy") -> Path:
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
        tar.add(directory, above)
    return archive


def test_a_directory_says_what_the_proxy_is_told(tmp_path: Path) -> None:
    it = read(settings_of(tmp_path / "p", MEMBER, address=ADDRESS))
    assert (it.foreman_host, it.http_port, it.https_port) == ("foreman.example.net", 8000, 9090)
    assert it.trusted_hosts == ("foreman.example.net", MEMBER)
    assert sorted(it.features) == ["container_gateway", "pulpcore", "puppet", "registration", "templates"]
    assert it.said("registration", "registration_url") == f"https://{ADDRESS}:9090"
    assert it.said("pulpcore", "rhsm_url") == f"https://{ADDRESS}:443/rhsm"
    assert it.said("dns", "use_provider") == ""
    assert it.ca_file == "/etc/foreman-proxy/ssl_ca.pem"


@pytest.mark.parametrize("name", ["proxy.tar", "proxy.tar.gz"])
def test_an_archive_of_it_says_the_same(tmp_path: Path, name: str) -> None:
    directory = settings_of(tmp_path / "p", MEMBER, address=ADDRESS)
    archive = read(packed(directory, tmp_path / name))
    plain = read(directory)
    assert archive.features == plain.features
    assert archive.trusted_hosts == plain.trusted_hosts


@pytest.mark.parametrize(
    ("main", "tls"),
    [
        ({":tls_disabled_versions:": "['1.2']"}, {"tls_disabled_versions": ["1.2"]}),
        ({":ssl_disabled_ciphers:": "[AES128-SHA]"}, {"ssl_disabled_ciphers": ["AES128-SHA"]}),
        ({":ssl_disabled_ciphers:": "[]"}, {}),
        ({":tls_min_version:": "'1.3'"}, {"tls_min_version": "1.3"}),
        ({":tls_ciphers:": "PROFILE=SYSTEM"}, {"tls_ciphers": "PROFILE=SYSTEM"}),
        ({":tls_ciphers:": "''"}, {"tls_ciphers": ""}),
    ],
)
def test_limits_of_tls_are_read_in_the_words_of_both_generations(
    tmp_path: Path, main: dict[str, str], tls: dict[str, object]
) -> None:
    assert read(settings_of(tmp_path / "p", MEMBER, address=ADDRESS, main=main)).tls == tls


@pytest.mark.parametrize(
    ("enabled", "is_on"),
    [
        ("true", True),
        ("https", True),
        ("http", True),
        (":https", True),
        ("false", False),
        ('"true"', False),
        ("", False),
    ],
)
def test_a_module_is_enabled_as_the_ruby_proxy_has_it(enabled: str, is_on: bool) -> None:
    it = settings({"settings.yml": b"---\n", "settings.d/dns.yml": f":enabled: {enabled}\n".encode()}, "p")
    assert ("dns" in it.features) == is_on


def test_absent_trusted_hosts_are_not_an_empty_list() -> None:
    assert settings({"settings.yml": b":http_port: 8000\n"}, "p").trusted_hosts is None
    assert settings({"settings.yml": b":trusted_hosts: []\n"}, "p").trusted_hosts == ()


def test_passwords_are_never_shown(tmp_path: Path) -> None:
    it = read(settings_of(tmp_path / "p", MEMBER, address=ADDRESS))
    assert "hidden" not in repr(it)
    assert "hidden" in it.said("container_gateway", "db_connection_string")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b":a: !ruby/object:Object {}\n", "not YAML"),
        (b":a: !!python/object:os.system x\n", "not YAML"),
        (b":a: [\n", "not YAML"),
        (b"[" * 200, "levels deep"),
    ],
)
def test_nothing_but_plain_values_is_made(content: bytes, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        settings({"settings.yml": content}, "p")


def test_what_is_no_mapping_says_nothing() -> None:
    it = settings({"settings.yml": b"- 1\n", "settings.d/dns.yml": b"hello\n"}, "p")
    assert (it.foreman_url, it.features) == ("", {})


@pytest.mark.parametrize("url", ["", "nonsense", "https://", "https://[::1", "https://a b/", "https://x:y:z/"])
def test_what_is_no_url_has_no_host(url: str) -> None:
    assert host_in(url) == ""


def test_a_directory_or_archive_without_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Misconfigured, match=r"holds no settings\.yml"):
        read(tmp_path / "empty")
    with pytest.raises(Misconfigured, match=r"holds no settings\.yml"):
        read(packed(tmp_path / "empty", tmp_path / "empty.tar"))
    with pytest.raises(Misconfigured, match="failed"):
        read(tmp_path / "absent")


def test_links_in_an_archive_are_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "links.tar", "w") as tar:
        link = tarfile.TarInfo("settings.yml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
    with pytest.raises(Misconfigured, match="dereference"):
        read(tmp_path / "links.tar")


def test_an_archive_of_two_proxies_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "two.tar", "w") as tar:
        for name in ("a", "b"):
            tar.add(settings_of(tmp_path / name, MEMBER, address=ADDRESS), name)
    with pytest.raises(Misconfigured, match="several"):
        read(tmp_path / "two.tar")


def test_what_is_no_archive_or_half_of_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("hello " * 1000)
    with pytest.raises(Misconfigured, match="no tar archive"):
        read(tmp_path / "text.tar")
    whole = packed(settings_of(tmp_path / "p", MEMBER, address=ADDRESS), tmp_path / "p.tar.gz").read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Misconfigured, match="copied in part"):
        read(tmp_path / "half.tar.gz")


def test_an_archive_with_a_size_that_no_file_has_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.tar").write_bytes(archive(name="proxy.log", size=b"\x80" + b"\x7f" * 11))
    with pytest.raises(Misconfigured, match="no tar archive"):
        read(tmp_path / "odd.tar")


def test_a_file_larger_than_settings_are_is_refused(tmp_path: Path) -> None:
    large = b"#" * ((256 << 10) + 1)
    with tarfile.open(tmp_path / "large.tar", "w") as tar:
        entry = tarfile.TarInfo("settings.yml")
        entry.size = len(large)
        tar.addfile(entry, io.BytesIO(large))
    with pytest.raises(Misconfigured, match="more than settings are"):
        read(tmp_path / "large.tar")
    (tmp_path / "settings.yml").write_bytes(large)
    with pytest.raises(Misconfigured, match="larger than"):
        read(tmp_path)
