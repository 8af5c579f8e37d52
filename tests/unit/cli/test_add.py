"""``add``: what it refuses, and what a new member needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.kernel.errors import Conflict, Rejected
from muster.kernel.settings import InvalidSettings
from muster.pki.authority import ClusterCA
from tests.unit.cli.calls import run, wrong_usage


def test_a_dry_add_refuses_what_the_real_one_refuses_and_touches_nothing(file: Path) -> None:
    new = ("proxy03.test", "--address", "127.0.0.13")
    directory = file.parent / "pki" / "members" / "proxy03.test"
    before = file.read_text()
    with pytest.raises(InvalidSettings, match="is the cluster's address") as raised:
        run(file, "add", "proxy.test", "--address", "127.0.0.13", "--dry-run")
    assert raised.value.path == str(file)
    directory.mkdir(parents=True)
    for further in ((), ("--dry-run",)):
        with pytest.raises(Conflict, match="was not made by Muster"):
            run(file, "add", *new, *further)
    directory.rmdir()
    ClusterCA.create(
        file.parent / "pki", "demo", now=datetime.now(UTC) - timedelta(days=9), valid_days=1, overwrite=True
    )
    for further in ((), ("--dry-run",)):
        with pytest.raises(Rejected, match="expired on"):
            run(file, "add", *new, *further)
    assert file.read_text() == before
    assert [p.name for p in file.parent.iterdir() if p.name.startswith(".")] == []


def test_a_member_is_added_with_a_dot_at_its_end_and_without(file: Path) -> None:
    assert run(file, "add", "proxy03.test.", "--address", "127.0.0.13").exit_code == 0
    assert (file.parent / "pki" / "members" / "proxy03.test" / "cert.pem").exists()
    assert "name: proxy03.test," in file.read_text()
    assert wrong_usage("add", "proxy04.test", "--address", "a..b")


def test_an_added_member_s_needs_are_listed_whole(file: Path) -> None:
    text = file.read_text().replace('store.db"', f'store.db", password_file: {file.parent}/store.password')
    text = text.replace("puppetca: {enabled: false}", "puppetca: {listen_port: 8141}")
    file.write_text(f"{text}authority: {{}}\nfeatures: {{dns: {{nsupdate: {{key_file: {file.parent}/dns.key}}}}}}\n")
    (file.parent / "store.password").write_text("word")
    said = run(file, "add", "proxy03.test", "--address", "127.0.0.13", "--dry-run").output
    pki = file.parent / "pki"
    for needed in (
        file, file.parent / "store.password", file.parent / "dns.key", pki / "ca.pem", f"{pki}/members/proxy03.test/",
        pki / "puppet-ca" / "ca_key.pem", "chown -R muster:", "systemctl enable --now muster-member", f"never {pki}/ca.key",
    ):  # fmt: skip
        assert str(needed) in said
    content = (
        f"content: {{services: [https], ca_file: {file.parent}/site.pem, foreman_certificate: {file.parent}/its.pem, "
        "pub: /var/www/html/pub}\n"
    )
    text = file.read_text().replace("https: {enabled: false}", "https: {listen_port: 8443}")
    file.write_text(text + content)
    said = run(file, "add", "proxy03.test", "--address", "127.0.0.13", "--dry-run").output
    copied = next(line for line in said.splitlines() if "copy there" in line)
    assert f"{file.parent}/site.pem" in copied
    assert f"{file.parent}/its.pem" not in copied
    assert f"the host's own {file.parent}/its.pem" in said
    assert "muster-member.service.d/content.conf, let the account use Pulp's sockets" in said
    assert "what others have in /var/www/html/pub" in said
    ruby = run(file, "add", "rb1.test", "--address", "127.0.0.14", "--kind", "foreman", "--dry-run").output
    assert "a certificate with the names rb1.test and proxy.test" in ruby
    assert "muster certs import rb1.test" in ruby
