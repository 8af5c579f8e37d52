"""``muster ca`` from the operator's side: real stores, real files, exit codes."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from cryptography import x509

from muster.cli import NOT_DONE, WRONG, muster
from muster.cluster.file import Authority
from muster.kernel.errors import Conflict, Misconfigured, NotFound
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers import puppetca

SAMPLE = puppetca.RECORDED / "cadir-sample"


class Host:
    """A host with a cluster file; the CA's key is where the command puts it."""

    def __init__(self, directory: Path, url: str, authority: str = "{}") -> None:
        self.directory = directory
        self.url = url
        self.cluster = directory / "cluster.yaml"
        self.home = directory / "pki" / "puppet-ca"
        self.cluster.write_text(
            "schema: 1\ncluster: demo\naddress: proxy.example.net\naliases: [puppet.example.net]\n"
            f"store: {{url: '{url}'}}\nauthority: {authority}\n"
            "members:\n- {id: 1, name: proxy01.example.net, address: 127.0.0.11}\n"
        )

    def run(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(muster, ["ca", *arguments, "--cluster", str(self.cluster)], standalone_mode=False)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        found = result.return_value if result.exit_code == 0 else result.exit_code
        assert (found or 0) == code, result.output
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    async def submit(self, *hosts: puppetca.Agent) -> None:
        """Have hosts ask a member."""
        async with (
            opened(Secret(self.url)) as store,
            puppetca.member(store, self.home, Authority(requests_per_minute=0)) as ca,
        ):
            for host in hosts:
                await ca.submit(host.name, host.csr, source="192.0.2.1")

    def names(self, state: str) -> list[str]:
        return [c["name"] for c in self.json("list", "--state", state)]


@pytest.fixture
def host(tmp_path: Path, url: str) -> Host:
    return Host(tmp_path, url)


@pytest.fixture
def begun(host: Host) -> Host:
    host.run("init", "--key", "ec-p256")
    return host


@pytest.fixture
def cadir(tmp_path: Path) -> Path:
    puppetca.need_recordings()
    copy = tmp_path / "ca"
    shutil.copytree(SAMPLE, copy)
    return copy


def asking(host: Host, *names: str) -> None:
    asyncio.run(host.submit(*(puppetca.agent(n) for n in names)))


# ------------------------------------------------------------------ init


def test_a_ca_is_made_once(host: Host) -> None:
    said = host.run("init", "--key", "ec-p256", "--dry-run").stdout
    assert said.startswith("Would make Puppet CA: proxy.example.net, ec-p256, 5475 days")
    assert not host.home.exists()
    said = host.run("init", "--key", "ec-p256").stdout
    assert "Copy the key to every member, mode 0600." in said
    key = host.home / "ca_key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert host.home.stat().st_mode & 0o777 == 0o700
    before = key.read_bytes()
    with pytest.raises(Conflict, match="holds a Puppet CA already"):
        host.run("init")
    assert key.read_bytes() == before
    assert host.json("list") == []
    assert [e["event"] for e in host.json("audit")] == ["created"]


def test_a_key_that_lies_there_is_not_overwritten(host: Host) -> None:
    puppetca.put_key(host.home, b"somebody's")
    with pytest.raises(Conflict, match="a new CA would overwrite"):
        host.run("init", "--key", "ec-p256")
    assert (host.home / "ca_key.pem").read_bytes() == b"somebody's"


def test_without_the_section_the_remedy_is_said(tmp_path: Path) -> None:
    host = Host(tmp_path, f"sqlite:///{tmp_path}/x.db")
    host.cluster.write_text(host.cluster.read_text().replace("authority: {}\n", ""))
    with pytest.raises(Misconfigured, match="has no authority: section"):
        host.run("init")


# ------------------------------------------------------------------ import


def test_a_puppetservers_ca_is_taken_over(host: Host, cadir: Path) -> None:
    seen = host.json("import", str(cadir), "--dry-run")
    assert (seen["certificates"], seen["revoked"], seen["pending_flawed"], seen["done"]) == (9, 3, 4, True)
    assert not host.home.exists()
    done = host.json("import", str(cadir))
    assert done["problems"] == []
    assert (host.home / "ca_key.pem").read_bytes() == (cadir / "ca_key.pem").read_bytes()
    assert not (host.home / "root_key.pem").exists()
    assert host.names("revoked") == ["revoked01.example.net"]
    assert len(host.names("requested")) == 6
    with pytest.raises(Conflict, match="already; nothing was changed"):
        host.run("import", str(cadir))


def test_what_is_wrong_stops_an_import_until_forced(host: Host, cadir: Path) -> None:
    (cadir / "signed" / "junk.example.net.pem").write_text("junk")
    seen = host.json("import", str(cadir), "--dry-run", code=WRONG)
    assert "junk.example.net.pem" in seen["problems"][0]
    refused = host.run("import", str(cadir), code=NOT_DONE)
    assert "  wrong: signed/junk.example.net.pem" in refused.stdout
    assert "Nothing was taken over: --force leaves out what is wrong." in refused.stdout
    assert not host.home.exists()
    assert host.run("list").stdout == "There are none.\n"
    forced = host.run("import", str(cadir), "--force", code=WRONG)
    assert "Taken over." in forced.stdout
    assert len(host.json("list")) == 9 + 6


def test_another_key_in_place_is_not_overwritten_by_an_import(host: Host, cadir: Path) -> None:
    puppetca.put_key(host.home, b"somebody's")
    with pytest.raises(Misconfigured, match="holds another key; nothing was changed"):
        host.run("import", str(cadir))
    assert (host.home / "ca_key.pem").read_bytes() == b"somebody's"


# ------------------------------------------------------------------ list, show, audit


def test_a_certificate_is_shown_with_what_was_done_to_it(begun: Host) -> None:
    asking(begun, "a.example.net", "b.example.net")
    begun.run("sign", "a.example.net")
    assert [(c["name"], c["state"]) for c in begun.json("list")] == [
        ("b.example.net", "requested"),
        ("a.example.net", "signed"),
    ]
    assert begun.names("signed") == ["a.example.net"]
    lines = begun.run("list").stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["requested", "b.example.net"], ["signed", "a.example.net"]]
    shown = begun.json("show", "a.example.net")
    assert (shown["state"], shown["name"]) == ("signed", "a.example.net")
    assert [h["event"] for h in shown["history"]] == ["signed", "requested"]
    assert "signed" in begun.run("show", "a.example.net").stdout
    with pytest.raises(NotFound, match=r"Nothing is known of nobody\.example\.net"):
        begun.run("show", "nobody.example.net")
    events = begun.json("audit", "--certname", "a.example.net")
    assert [e["event"] for e in events] == ["signed", "requested"]
    assert len(begun.json("audit", "--most", "1")) == 1
    assert "a.example.net" in begun.run("audit").stdout


def test_a_cleaned_name_is_still_known_by_its_history(begun: Host) -> None:
    asking(begun, "a.example.net")
    begun.run("sign", "a.example.net")
    begun.run("clean", "a.example.net")
    shown = begun.json("show", "a.example.net")
    assert shown["state"] == "none"
    assert [h["event"] for h in shown["history"]] == ["removed", "revoked", "signed", "requested"]


# ------------------------------------------------------------------ sign, reject, revoke, clean


def test_each_name_is_done_by_itself_and_the_exit_code_says_when_one_was_not(begun: Host) -> None:
    asking(begun, "a.example.net", "b.example.net", "c.example.net")
    assert begun.run("sign", "a.example.net", "--dry-run").stdout == "Would sign a.example.net.\n"
    assert begun.names("signed") == []
    said = begun.run("sign", "nobody.example.net", "a.example.net", code=NOT_DONE)
    assert said.stdout == "a.example.net: signed\n"
    assert "nobody.example.net: Invalid certificate subject." in said.stderr
    assert begun.run("reject", "b.example.net").stdout == "b.example.net: rejected\n"
    begun.run("sign", "--all", "--ttl-days", "7")
    (c,) = [x for x in begun.json("list") if x["name"] == "c.example.net"]
    assert c["state"] == "signed"
    assert begun.names("requested") == []
    assert begun.run("revoke", "a.example.net", "--dry-run").stdout == "Would revoke a.example.net.\n"
    assert begun.names("revoked") == []
    assert begun.run("revoke", "a.example.net").stdout == "a.example.net: revoked\n"
    assert begun.names("revoked") == ["a.example.net"]
    begun.run("revoke", "nobody.example.net", code=NOT_DONE)
    assert begun.run("clean", "c.example.net", "--dry-run").stdout == "Would clean c.example.net.\n"
    said = begun.run("clean", "c.example.net", "nobody.example.net", code=NOT_DONE)
    assert said.stdout == "c.example.net: cleaned\n"
    assert "nobody.example.net: has no certificate" in said.stderr
    assert [x["name"] for x in begun.json("list")] == ["a.example.net"]


def test_a_renewed_certificate_has_a_new_number_and_end_and_both_are_revoked(begun: Host) -> None:
    asking(begun, "a.example.net")
    begun.run("sign", "a.example.net", "--ttl-days", "7")
    before = begun.json("show", "a.example.net")
    assert begun.run("renew", "a.example.net", "--dry-run").stdout == "Would renew a.example.net.\n"
    assert begun.json("show", "a.example.net")["serial_number"] == before["serial_number"]
    assert begun.run("renew", "a.example.net").stdout == "a.example.net: renewed\n"
    after = begun.json("show", "a.example.net")
    assert after["serial_number"] != before["serial_number"]
    assert after["not_after"] > before["not_after"]
    begun.run("revoke", "a.example.net")
    events = [e["event"] for e in begun.json("audit", "--certname", "a.example.net")]
    assert events == ["revoked", "revoked", "renewed", "signed", "requested"]
    said = begun.run("renew", "a.example.net", "nobody.example.net", code=NOT_DONE)
    assert "a.example.net: The certificate of a.example.net is revoked" in said.stderr
    assert "nobody.example.net: Could not find certificate nobody.example.net" in said.stderr


@pytest.mark.parametrize("arguments", [(), ("a.example.net", "--all")])
def test_sign_wants_names_or_all(begun: Host, arguments: Sequence[str]) -> None:
    with pytest.raises(click.UsageError, match="Name who is signed, or use --all"):
        begun.run("sign", *arguments)


def test_the_key_of_another_ca_signs_nothing(begun: Host) -> None:
    asking(begun, "a.example.net")
    puppetca.put_key(begun.home, puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key))
    with pytest.raises(Misconfigured, match="does not belong to"):
        begun.run("sign", "a.example.net")
    # Looking needs no key.
    assert begun.names("requested") == ["a.example.net"]


# ------------------------------------------------------------------ export, issue-member


def test_an_export_is_a_ca_directory(begun: Host, tmp_path: Path) -> None:
    asking(begun, "a.example.net")
    begun.run("sign", "a.example.net")
    out = tmp_path / "out"
    assert begun.run("export", str(out), "--dry-run").stdout == f"Would write the CA to {out}.\n"
    assert not out.exists()
    done = begun.json("export", str(out))
    assert done == {"certificates": 1, "requests": 0, "revocations": 0, "directory": str(out), "key": True}
    assert (out / "ca_key.pem").read_bytes() == (begun.home / "ca_key.pem").read_bytes()
    with pytest.raises(Conflict, match="is not empty"):
        begun.run("export", str(out))
    without = begun.json("export", str(tmp_path / "without"), "--without-key")
    assert without["key"] is False
    assert not (tmp_path / "without" / "ca_key.pem").exists()


def test_an_export_is_taken_over_by_another_cluster(begun: Host, tmp_path: Path) -> None:
    asking(begun, "a.example.net", "b.example.net")
    begun.run("sign", "--all")
    begun.run("clean", "b.example.net")
    out = tmp_path / "out"
    begun.run("export", str(out))
    (tmp_path / "second").mkdir()
    second = Host(tmp_path / "second", f"sqlite:///{tmp_path}/second.db")
    seen = second.json("import", str(out))
    assert (seen["problems"], seen["certificates"], seen["revoked"]) == ([], 1, 1)
    assert second.names("signed") == ["a.example.net"]


def test_a_member_gets_its_host_certificate_with_the_clusters_names(begun: Host, tmp_path: Path) -> None:
    out = tmp_path / "ssl"
    said = begun.run("issue-member", "proxy01", "--output", str(out), "--dry-run").stdout
    assert said.startswith(
        "Would issue proxy01.example.net with proxy01.example.net, proxy.example.net, puppet.example.net"
    )
    assert not out.exists()
    begun.run("issue-member", "proxy01", "--output", str(out))
    certificate = x509.load_pem_x509_certificate((out / "certs" / "proxy01.example.net.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["proxy01.example.net", "proxy.example.net", "puppet.example.net"]
    assert (out / "private_keys" / "proxy01.example.net.pem").stat().st_mode & 0o777 == 0o600
    verify = subprocess.run(
        ["openssl", "verify", "-crl_check_all", "-CAfile", out / "certs" / "ca.pem", "-CRLfile", out / "crl.pem",
         out / "certs" / "proxy01.example.net.pem"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert verify.returncode == 0, verify.stderr
    with pytest.raises(Conflict, match="exists; nothing was changed"):
        begun.run("issue-member", "proxy01", "--output", str(out))
