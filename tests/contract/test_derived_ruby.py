"""What Ruby Smart Proxies are told, read by Ruby, and the certificates that they get, made by puppetserver and OpenSSL."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived import certs_generate, foreman_installer, ruby_settings
from muster.derived.output import Site
from muster.kernel.settings import parse
from tests.servers.haproxy import free_ports
from tests.servers.stubs import ran
from tests.unit.derived.test_ruby_settings import CLUSTER, REST

# Each key as Ruby shows it, so that a symbol is told from a text.
READ = """\
require 'yaml'; require 'json'
read = ->(file) { YAML.safe_load(File.read(file), permitted_classes: [Symbol]) }
puts JSON.generate(ARGV.to_h { |file| [file, read.(file).to_h { |key, value| [key.inspect, value] }] })
"""
PORTS = {"seed": ("9090", "8000"), "installer": ("9090", "8000"), "foremanctl": ("8443", "8443")}


def read_by_ruby(generation: str, directory: Path) -> tuple[ClusterFile, dict[str, dict[str, Any]]]:
    cluster = parse(f"{CLUSTER}generation: {generation}\n{REST}").parsed(ClusterFile)
    names = []
    for document in ruby_settings.OUTPUT.rendered(modelled(cluster), cluster, Site()):
        file = directory / document.name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(document.text)
        names.append(document.name)
    said = subprocess.run(["ruby", "-e", READ, *names], cwd=directory, capture_output=True, text=True, check=True)
    return cluster, json.loads(said.stdout)


@pytest.mark.parametrize("generation", sorted(PORTS))
def test_ruby_reads_every_member_port_and_name_and_no_key_but_symbols(
    generation: str, needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("ruby")
    cluster, found = read_by_ruby(generation, tmp_path)
    https, templates = PORTS[generation]
    assert all(key.startswith(":") for keys in found.values() for key in keys)
    for member in cluster.members:
        name = member.name.lower()
        own = found[f"{name}/settings.yml"]
        assert own[":https_port"] == int(https)
        assert own[":trusted_hosts"] == ["foreman.test", name]
        assert own[":foreman_url"] == "https://Foreman.test"
        template_url = found[f"{name}/settings.d/templates.yml"][":template_url"]
        assert template_url == f"{'https' if templates == https else 'http'}://cluster.test:{templates}"
        if generation != "seed":
            registration = found[f"{name}/settings.d/registration.yml"]
            assert registration == {":enabled": "https", ":registration_url": f"https://cluster.test:{https}"}


PUPPET = """\
[main]
confdir = {0}
ssldir = {0}/ssl
vardir = {0}/var
certname = proxy01.test
# What puppetserver asks whether it still runs: nobody listens there.
ca_server = localhost
ca_port = {1}
serverport = {1}
[server]
cadir = {0}/ca
"""


def test_puppetserver_makes_what_is_handed_over_with_the_address_among_its_names(
    needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("puppetserver")
    configuration = tmp_path / "puppet.conf"
    configuration.write_text(PUPPET.format(tmp_path, *free_ports("127.0.0.1", 1)))
    made = ["puppetserver", "ca", "setup", "--config", str(configuration), "--certname", "proxy01.test"]
    subprocess.run(made, capture_output=True, check=True)
    cluster = parse(f"{CLUSTER}{REST}").parsed(ClusterFile)
    documents = foreman_installer.OUTPUT.rendered(modelled(cluster), cluster, Site(member="proxy02.test"))
    text = documents[0].text.replace("/etc/puppetlabs/puppet/ssl", f"{tmp_path}/ssl")
    text = text.replace("puppetserver ca generate", f"puppetserver ca generate --config {configuration}")
    for _ in range(2):
        # The second time it is there, and is copied again.
        said = ran(text, tmp_path, ["ssh", "scp", "systemctl"])
        assert said.status == 0, said.stderr
        copies = [Path(words[1]) for words in said.of("scp")]
        assert [file.relative_to(tmp_path / "ssl").as_posix() for file in copies] == [
            "certs/proxy02.test.pem",
            "private_keys/proxy02.test.pem",
            "public_keys/proxy02.test.pem",
            "certs/ca.pem",
        ]
        assert all(file.is_file() for file in copies)
    names = ["openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", str(copies[0])]
    said_of = subprocess.run(names, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"DNS:([a-z0-9.]+)", said_of)) == {"cluster.test", "proxies.test", "proxy02.test"}


def certificate(directory: Path, member: str, names: list[str]) -> None:
    """Issue a member's certificate with a CA of its own, as a site may have one."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=directory, capture_output=True, check=True)

    extensions = f"subjectAltName={','.join(f'DNS:{name}' for name in names)}"
    for name, subject in (("ca", "Site"), (member, member)):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", f"{name}.key")
        openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/CN={subject}", "-out", f"{name}.csr")
    openssl("x509", "-req", "-in", "ca.csr", "-signkey", "ca.key", "-days", "2", "-out", "ca.crt")
    (directory / "names").write_text(extensions)
    signed = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", f"{member}.csr", *signed, "-out", f"{member}.crt")


@pytest.mark.parametrize(
    ("missing", "is_made"),
    [(None, True), ("cluster.test", False), ("proxies.test", False), ("proxy01.test", False)],
)
def test_a_certificate_of_the_sites_own_that_lacks_a_name_is_not_given_to_a_member(
    missing: str | None, is_made: bool, tmp_path: Path
) -> None:
    names = [name for name in ("proxy01.test", "cluster.test", "proxies.test") if name != missing]
    certificate(tmp_path, "proxy01.test", names)
    cluster = parse(f"{CLUSTER}{REST}").parsed(ClusterFile)
    site = Site(member="proxy01.test", given={"custom_certificates": tmp_path})
    (document,) = certs_generate.OUTPUT.rendered(modelled(cluster), cluster, site)
    said = ran(document.text, tmp_path, ["foreman-proxy-certs-generate", "scp"])
    assert bool(said.of("foreman-proxy-certs-generate")) is is_made
    assert (said.status == 0) is is_made
