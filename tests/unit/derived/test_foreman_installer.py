"""How Ruby Smart Proxies are installed, run as a shell would run it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.foreman_installer import OUTPUT
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import parse
from tests.servers.stubs import Ran, options, ran
from tests.unit.derived.test_ruby_settings import CLUSTER, REST

SECRETS = {"FOREMAN_OAUTH_KEY": "k3y $(id)", "FOREMAN_OAUTH_SECRET": "s3cret"}
OURS = "- {id: 3, name: proxy03.test, address: 10.0.0.3}\n"
SSL = "/etc/puppetlabs/puppet/ssl"


def scripts(rest: str = REST, **given: Any) -> dict[str, str]:
    cluster = parse(f"{CLUSTER}{rest}").parsed(ClusterFile)
    return {d.name: d.text for d in OUTPUT.rendered(modelled(cluster), cluster, Site(given=given))}


def installed(
    rest: str, member: str, directory: Path, environment: Mapping[str, str] = SECRETS, **given: Any
) -> dict[str, list[str]]:
    text = scripts(rest, **given)[f"{member}/foreman-installer.sh"]
    said = ran(text, directory, ["foreman-installer"], environment=environment)
    assert said.status == 0, said.stderr
    (words,) = said.of("foreman-installer")
    return options(words)


def handed_over(
    rest: str, member: str, directory: Path, *, is_new: bool = False, is_there: bool = False, **how: Any
) -> Ran:
    programs = ["ssh", "scp", "systemctl", "puppetserver", "puppet", "muster", "rm"]
    text = scripts(rest, new_certificates=is_new)[f"{member}/puppet-certificates.sh"]
    # Where a certificate would lie, on this host.
    lies = directory / "lies.pem"
    lies.unlink(missing_ok=True)
    if is_there:
        lies.write_text("")
    text = text.replace(f"-e {SSL}/certs/{member}.pem", f"-e {lies}")
    return ran(text, directory, programs, **how)


def test_a_member_of_today_gets_every_option_that_names_the_address(tmp_path: Path) -> None:
    assert installed(REST, "proxy02.test", tmp_path) == {
        "--scenario": ["foreman-proxy-content"],
        "--certs-tar-file": ["/root/proxy02.test-certs.tar"],
        "--certs-cname": ["cluster.test", "proxies.test"],
        "--foreman-proxy-registration": ["true"],
        "--foreman-proxy-registration-url": ["https://cluster.test:9090"],
        "--foreman-proxy-register-in-foreman": ["true"],
        "--foreman-proxy-foreman-base-url": ["https://Foreman.test"],
        "--foreman-proxy-trusted-hosts": ["foreman.test", "proxy02.test"],
        "--foreman-proxy-oauth-consumer-key": ["k3y $(id)"],
        "--foreman-proxy-oauth-consumer-secret": ["s3cret"],
        "--foreman-proxy-templates": ["true"],
        "--foreman-proxy-template-url": ["http://cluster.test:8000"],
        "--enable-puppet": [],
        "--puppet-server": ["true"],
        "--foreman-proxy-puppet": ["true"],
        "--puppet-dns-alt-names": ["cluster.test", "proxies.test"],
        "--foreman-proxy-puppetca": ["false"],
        "--puppet-server-ca": ["false"],
        "--puppet-ca-server": ["proxy01.test"],
    }


def test_a_member_of_2018_gets_the_options_of_then(tmp_path: Path) -> None:
    assert installed(f"generation: seed\n{REST}", "proxy01.test", tmp_path) == {
        "--scenario": ["foreman-proxy-content"],
        "--foreman-proxy-content-certs-tar": ["/root/proxy01.test-certs.tar"],
        "--foreman-proxy-content-parent-fqdn": ["foreman.test"],
        "--puppet-server-foreman-url": ["https://Foreman.test"],
        "--foreman-proxy-register-in-foreman": ["true"],
        "--foreman-proxy-foreman-base-url": ["https://Foreman.test"],
        "--foreman-proxy-trusted-hosts": ["foreman.test", "proxy01.test"],
        "--foreman-proxy-oauth-consumer-key": ["k3y $(id)"],
        "--foreman-proxy-oauth-consumer-secret": ["s3cret"],
        "--foreman-proxy-templates": ["true"],
        "--foreman-proxy-template-url": ["http://cluster.test:8000"],
        "--puppet-dns-alt-names": ["cluster.test", "proxies.test"],
        "--foreman-proxy-puppetca": ["true"],
        "--puppet-server-ca": ["true"],
        "--puppet-ca-server": ["proxy01.test"],
    }


@pytest.mark.parametrize("generation", ["seed", "installer"])
def test_only_the_signer_signs_and_it_gets_no_certificate_from_itself(generation: str, tmp_path: Path) -> None:
    rest = f"generation: {generation}\n{REST}"
    for member, signs in (("proxy01.test", "true"), ("proxy02.test", "false")):
        found = installed(rest, member, tmp_path)
        assert (found["--foreman-proxy-puppetca"], found["--puppet-server-ca"]) == ([signs], [signs])
        assert found["--puppet-ca-server"] == ["proxy01.test"]
    assert [name for name in scripts(rest) if "puppet" in name] == ["proxy02.test/puppet-certificates.sh"]


def test_where_members_of_ours_are_the_ca_no_other_signs_and_all_are_led_to_the_address(tmp_path: Path) -> None:
    rest = f'{OURS}authority: {{}}\nforeman: {{url: "https://foreman.test"}}\n'
    for member in ("proxy01.test", "proxy02.test"):
        found = installed(rest, member, tmp_path)
        assert (found["--foreman-proxy-puppetca"], found["--puppet-server-ca"]) == (["false"], ["false"])
        assert (found["--puppet-ca-server"], found["--puppet-ca-port"]) == (["cluster.test"], ["8141"])
        said = handed_over(rest, member, tmp_path)
        assert said.of("muster") == [["ca", "issue-member", member, "--output", f"/root/{member}-puppet"]]
        files = (f"certs/{member}.pem", f"private_keys/{member}.pem", "certs/ca.pem", "crl.pem")
        assert said.of("scp") == [["-p", f"/root/{member}-puppet/{f}", f"root@{member}:{SSL}/{f}"] for f in files]
    assert not [name for name in scripts(rest) if name.startswith("proxy03")]


def test_a_signer_may_be_a_member_of_ours_with_a_puppetserver(tmp_path: Path) -> None:
    rest = f'{OURS}signer: proxy03.test\nforeman: {{url: "https://foreman.test"}}\n'
    assert [name for name in scripts(rest) if "puppet" in name] == [
        "proxy01.test/puppet-certificates.sh",
        "proxy02.test/puppet-certificates.sh",
    ]
    assert installed(rest, "proxy01.test", tmp_path)["--puppet-ca-server"] == ["proxy03.test"]


def test_without_puppet_nothing_of_it_is_said(tmp_path: Path) -> None:
    rest = f"{REST}services: {{puppet: {{enabled: false}}, puppetca: {{enabled: false}}}}\n"
    assert not [name for name in installed(rest, "proxy01.test", tmp_path) if "puppet" in name]
    assert set(scripts(rest)) == {"proxy01.test/foreman-installer.sh", "proxy02.test/foreman-installer.sh"}


def test_ports_that_are_not_the_installers_own_are_told_to_it(tmp_path: Path) -> None:
    rest = (
        f"{REST}services: {{smartproxy: {{member_port: 9443}}, anaconda: {{member_port: 8008}}, "
        "puppetca: {member_port: 8150}, mqtt: {}}\n"
    )
    found = installed(rest, "proxy02.test", tmp_path)
    assert (found["--foreman-proxy-ssl-port"], found["--foreman-proxy-http-port"]) == (["9443"], ["8008"])
    assert found["--puppet-ca-port"] == ["8150"]
    assert found["--foreman-proxy-plugin-remote-execution-script-mode"] == ["pull-mqtt"]


def test_an_archive_made_anew_is_taken_when_that_is_asked_for(tmp_path: Path) -> None:
    found = installed(REST, "proxy01.test", tmp_path, new_certificates=True)
    assert found["--certs-update-all"] == []
    assert (found["--certs-regenerate"], found["--certs-deploy"]) == (["true"], ["true"])


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_a_secret_stands_in_no_file_and_is_asked_for_before_anything_runs(missing: str, tmp_path: Path) -> None:
    text = scripts()["proxy01.test/foreman-installer.sh"]
    environment = {**SECRETS, missing: ""}
    said = ran(text, tmp_path, ["foreman-installer"], environment=environment)
    assert (said.status != 0, said.calls) == (True, [])
    assert missing in said.stderr
    assert "foreman-proxy-certs-generate" in said.stderr


def test_the_signer_makes_a_certificate_with_the_address_and_hands_it_over(tmp_path: Path) -> None:
    said = handed_over(REST, "proxy02.test", tmp_path)
    assert said.status == 0
    assert said.of("puppetserver") == [
        [
            *("ca", "generate", "--ca-client", "--certname", "proxy02.test"),
            *("--subject-alt-names", "cluster.test,proxies.test"),
        ]
    ]
    assert [name for name, *_ in said.calls[:4]] == ["ssh", "systemctl", "puppetserver", "systemctl"]
    assert said.of("systemctl") == [["stop", "puppetserver"], ["start", "puppetserver"]]
    copies = [f"{SSL}/{where}/proxy02.test.pem" for where in ("certs", "private_keys", "public_keys")]
    assert said.of("scp") == [["-p", f, f"root@proxy02.test:{f}"] for f in (*copies, f"{SSL}/certs/ca.pem")]
    first, last = said.of("ssh")
    assert first[0] == last[0] == "root@proxy02.test"
    assert "id puppet" in first[1]
    assert f"mkdir -p {SSL}/certs {SSL}/private_keys {SSL}/public_keys" in first[1]
    assert f"chown -R puppet:puppet {SSL}/" in last[1]


def test_a_puppetserver_that_was_stopped_for_it_is_started_although_no_certificate_came(tmp_path: Path) -> None:
    said = handed_over(REST, "proxy02.test", tmp_path, failing=["puppetserver"])
    assert said.status != 0
    assert said.of("systemctl") == [["stop", "puppetserver"], ["start", "puppetserver"]]
    assert said.of("scp") == []


def test_a_certificate_that_is_there_is_copied_and_replaced_only_on_request(tmp_path: Path) -> None:
    kept = handed_over(REST, "proxy02.test", tmp_path, is_there=True)
    assert (kept.of("puppetserver"), kept.of("rm"), len(kept.of("scp"))) == ([], [], 4)
    replaced = handed_over(REST, "proxy02.test", tmp_path, is_there=True, is_new=True)
    assert replaced.of("puppetserver")[0] == ["ca", "clean", "--certname", "proxy02.test"]
    own = [f"{SSL}/{where}/proxy02.test.pem" for where in ("certs", "private_keys", "public_keys")]
    assert replaced.of("rm") == [["-f", *own]]
    absent = handed_over(REST, "proxy02.test", tmp_path, is_new=True)
    assert [words[1] for words in absent.of("puppetserver")] == ["generate"]


def test_in_2018_puppet_itself_made_it_while_the_server_ran(tmp_path: Path) -> None:
    said = handed_over(f"generation: seed\n{REST}", "proxy02.test", tmp_path)
    assert said.of("puppet") == [["cert", "generate", "proxy02.test", "--dns_alt_names=cluster.test,proxies.test"]]
    assert said.of("systemctl") == []


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("signer: proxy01.test\n", "set foreman.url"),
        ('foreman: {url: "https://foreman.test"}\n', "set signer"),
        ('generation: seed\nsigner: proxy01.test\nforeman: {url: "https://192.0.2.9"}\n', "name it there"),
        (f"generation: foremanctl\n{REST}", "muster render foremanctl"),
    ],
)
def test_what_is_missing_is_named_by_its_key(rest: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        scripts(rest)
