"""What ``muster config check`` finds and warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli import INVALID_SETTINGS, muster
from tests.unit.cli.config.calls import CLUSTER, OFF, checked, said


@pytest.mark.parametrize(
    ("added", "where"),
    [
        (f"{OFF}}}\nlog: {{level: UNKNOWN}}\n", (7, "log.level")),
        (f"{OFF},\n  smartproxy: {{enabled: false}}}}\n", (7, "services.smartproxy.enabled")),
    ],
)
def test_a_file_that_cannot_serve_is_not_valid(tmp_path: Path, added: str, where: tuple[int, str]) -> None:
    assert checked(tmp_path, CLUSTER + added) == (INVALID_SETTINGS, [where])
    assert checked(tmp_path, CLUSTER + f"{OFF}}}\n") == (0, [])


def test_a_key_that_stands_twice_hides_no_other_problem(tmp_path: Path) -> None:
    text = CLUSTER + f"cluster: other\n{OFF}}}\nlog: {{level: LOUD}}\nfeatures: {{nds: {{}}}}\nsigner: nobody.test\n"
    code, found = checked(tmp_path, text)
    assert code == INVALID_SETTINGS
    assert found == [(6, "cluster"), (8, "log.level"), (9, "features.nds"), (10, "signer")]


def warned(tmp_path: Path, text: str) -> list[tuple[int, str]]:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    said = CliRunner().invoke(muster, ["config", "check", str(file), "--json"], standalone_mode=False)
    content: Any = json.loads(said.output)
    assert (said.return_value, content["valid"], content["problems"]) == (0, True, [])
    return [(w["line"], w["where"]) for w in content["warnings"]]


@pytest.mark.parametrize(
    ("added", "where"),
    [
        ("foreman: {ca_file: /x.pem}\n", [(7, "foreman.ca_file")]),
        ("foreman: {ca_file: /x.pem, url: 'https://192.0.2.1'}\n", [(7, "foreman.ca_file")]),
        ("foreman: {ca_file: /x.pem, url: 'https://foreman.test'}\n", []),
        ("foreman: {ca_file: /x.pem, trusted_hosts: []}\n", []),
        ("foreman: {url: 'https://foreman.test', api_user: a, api_token_file: /x.pem}\n", []),
        (
            "foreman: {url: 'https://foreman.test', api_user: a, api_token_file: /x.pem.absent}\n",
            [(7, "foreman.api_token_file")],
        ),
        ("features: {dns: {enabled: true, provider: memory}}\n", [(7, "features.dns.enabled")]),
        ("features: {dns: {enabled: http, provider: memory}}\n", [(7, "features.dns.enabled")]),
        ("features: {dns: {enabled: https, provider: memory}, logs: {enabled: false}}\n", []),
        ("features: {dns: {enabled: true, provider: memory}}\nforeman: {trusted_hosts: [foreman.test]}\n", []),
    ],
)
def test_what_is_valid_and_leaves_callers_out_is_a_warning(
    added: str, where: list[tuple[int, str]], tmp_path: Path
) -> None:
    (tmp_path / "x.pem").touch(mode=0o640)
    (tmp_path / "x.pem").write_text("there")
    assert warned(tmp_path, f"{CLUSTER}{OFF}}}\n{added.replace('/x.pem', str(tmp_path / 'x.pem'))}") == where


def test_a_token_that_everybody_on_the_host_may_read_is_a_warning(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o644)
    text = f"{CLUSTER}{OFF}}}\nforeman: {{url: 'https://foreman.test', api_user: a, api_token_file: {token}}}\n"
    (warning,) = said(tmp_path, text)[1]
    assert warning == (
        7,
        "foreman.api_token_file",
        f"{token} has mode 0644, so that everybody on this host may use it: chmod o= {token}",
    )


@pytest.mark.parametrize(
    ("url", "count"),
    [
        ("postgresql://muster:geheim@db.example.net/muster", 1),
        ("postgresql://muster:geheim@db1.example.net,127.0.0.1,db2.example.net:5433/muster?sslmode=require", 2),
        ("postgresql://muster:geheim@db.example.net/muster?sslmode=verify-full", 0),
        ("postgresql://muster:geheim@127.0.0.1/muster", 0),
        ("postgresql:///muster?host=/run/postgresql", 0),
    ],
)
def test_a_database_across_the_network_that_is_not_verified_is_a_warning(tmp_path: Path, url: str, count: int) -> None:
    text = CLUSTER.replace("sqlite:////var/muster.db", url) + f"{OFF}}}\n"
    assert warned(tmp_path, text) == [(4, "store.url")] * count
    said = CliRunner().invoke(muster, ["config", "check", str(tmp_path / "cluster.yaml")]).output
    assert said.count("warning: line 4: store.url: db") == count
    assert "valid; 1 member," in said
    assert "geheim" not in said


def test_files_that_are_named_and_absent_are_warned_of(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("x")
    text = CLUSTER.replace('muster.db"', f'muster.db", password_file: {tmp_path}/none') + (
        f"{OFF}}}\nforeman: {{ca_file: {there}, trusted_hosts: []}}\n"
        f"features: {{dns: {{nsupdate: {{key_file: {tmp_path}/dns.key}}}}}}\n"
    )
    code, found, plain = said(tmp_path, text)
    assert [(line, where) for line, where, _ in found] == [
        (4, "store.password_file"), (8, "features.dns.nsupdate.key_file"),
    ]  # fmt: skip
    assert (code, f"{tmp_path}/none is not on this host" in found[0][2]) == (0, True)
    assert "cluster.yaml: warning: line 4: store.password_file: " in plain
    assert "valid; 1 member, generation installer; 2 warnings" in plain


@pytest.mark.parametrize(
    ("dhcp", "count"),
    [
        ("provider: memory, memory: {subnets: [{network: 192.0.2.0/24}]}", 0),
        ("provider: dnsmasq, subnets: [192.0.2.0/24]", 2),
        ("provider: memory, memory: {subnets: [{network: 192.0.2.0/24}]}, dnsmasq: {pid_file: /none/pid}", 2),
    ],
)
def test_files_of_a_provider_that_nobody_chose_are_not_missed(tmp_path: Path, dhcp: str, count: int) -> None:
    found = warned(tmp_path, f"{CLUSTER}{OFF}}}\nfeatures: {{dhcp: {{{dhcp}}}}}\n")
    assert sum(".dnsmasq." in where for _, where in found) == count


def test_keytabs_and_certificates_of_features_that_are_absent_are_warned_of(tmp_path: Path) -> None:
    realm = "provider: ad, ad: {realm: A.TEST, keytab_path: /none/keytab, principal: m, domain_controller: dc1.a.test}"
    ipam = "provider: netbox, netbox: {url: 'https://n.example.net', token_file: /none/token, ca: /none/ca}"
    dns = "provider: nsupdate_gss, nsupdate_gss: {server: ns.example.com, tsig_keytab: /none/dns}"
    text = f"{CLUSTER}{OFF}}}\nfeatures:\n  realm: {{{realm}}}\n  externalipam: {{{ipam}}}\n  dns: {{{dns}}}\n"
    assert [(line, where) for line, where, why in said(tmp_path, text)[1] if "is not on this host" in why] == [
        (8, "features.realm.ad.keytab_path"), (9, "features.externalipam.netbox.token_file"),
        (9, "features.externalipam.netbox.ca"), (10, "features.dns.nsupdate_gss.tsig_keytab"),
    ]  # fmt: skip


def test_files_of_a_groups_providers_that_are_absent_are_warned_of_where_they_stand(tmp_path: Path) -> None:
    text = (
        f"{CLUSTER}{OFF}}}\nfeatures:\n  dns:\n    nsupdate: {{key_file: /none/both}}\n    group:\n      mode: all\n"
        "      providers:\n        ns1: {nsupdate: {server: 192.0.2.53, key_file: /none/ns1}}\n"
        "        ns2: {ttl_s: 60}\n        ns3: {}\n"
    )
    assert [(line, where, why.partition(" ")[0]) for line, where, why in said(tmp_path, text)[1]] == [
        (9, "features.dns.nsupdate.key_file", "/none/both"),
        (13, "features.dns.group.providers.ns1.nsupdate.key_file", "/none/ns1"),
    ]


def test_secrets_of_features_and_groups_that_everybody_may_read_are_warned_of(tmp_path: Path) -> None:
    for name in ("token", "ns1", "ns2", "ca"):
        (tmp_path / name).write_text("x")
        (tmp_path / name).chmod(0o640 if name == "ns2" else 0o644)
    ipam = (
        f"provider: netbox, netbox: {{url: 'https://n.example.net', token_file: {tmp_path}/token, ca: {tmp_path}/ca}}"
    )
    ns = [f"ns{n}: {{nsupdate: {{server: 192.0.2.{n}, key_file: {tmp_path}/ns{n}}}}}" for n in (1, 2)]
    dns = f"group: {{mode: all, providers: {{{', '.join(ns)}}}}}"
    found = said(tmp_path, f"{CLUSTER}{OFF}}}\nfeatures:\n  externalipam: {{{ipam}}}\n  dns: {{{dns}}}\n")[1]
    assert [(where, why) for _, where, why in found] == [
        (where, f"{file} has mode 0644, so that everybody on this host may use it: chmod o= {file}")
        for where, file in (
            ("features.externalipam.netbox.token_file", tmp_path / "token"),
            ("features.dns.group.providers.ns1.nsupdate.key_file", tmp_path / "ns1"),
        )
    ]


def test_files_of_what_is_mirrored_that_are_absent_are_warned_of(tmp_path: Path) -> None:
    of = "kind: yum, url: 'https://h/x', ca_file: /none/ca, certificate: /none/c, key: /none/k"
    text = f"{CLUSTER}{CONTENT}content: {{services: [https], mirror: {{repositories: {{r: {{{of}}}}}}}}}\n"
    found = [where.rpartition(".")[2] for _, where in warned(tmp_path, text)]
    assert found == ["ca_file", "certificate", "key", "content"]


def test_a_mirror_without_https_is_warned_of(tmp_path: Path) -> None:
    mirror = "mirror: {repositories: {r: {kind: yum, url: 'https://h/x'}}}"
    two = CLUSTER.replace("}]", "}, {id: 2, name: b.test, address: 127.0.0.9}]")
    for cluster, services, more in (
        (two, "[http]", ["content.mirror"]), (two, "[https]", []), (CLUSTER, "[http]", []),
    ):  # fmt: skip
        text = f"{cluster}{CONTENT}foreman: {{url: 'https://f'}}\ncontent: {{services: {services}, {mirror}}}\n"
        assert [where for _, where in warned(tmp_path, text)] == more


CONTENT = (
    "services: {puppet: {enabled: false}, puppetca: {enabled: false}, "
    "docker: {listen_port: 5000, member_port: 5000, check: tcp}}\n"
)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("services: [http]", []),
        ("services: [https]", ["content"]),
        ("services: [docker]", ["content.services"]),
        ("services: [docker], registry_url: 'https://registry.test'", []),
        ("services: [http], pub: /nowhere/pub", ["content.pub"]),
        (
            "services: [http], foreman_certificate: /nowhere/c.pem, foreman_key: /nowhere/k.pem",
            ["content.foreman_certificate", "content.foreman_key"],
        ),
    ],
)
def test_content_that_leads_nowhere_or_lacks_its_files_is_warned_of(
    content: str, where: list[str], tmp_path: Path
) -> None:
    text = f"{CLUSTER}{CONTENT}content: {{{content}}}\n"
    assert [w for _, w in warned(tmp_path, text)] == where
    if where == ["content"]:
        assert warned(tmp_path, f"{text}foreman: {{url: 'https://foreman.test'}}\n") == []


FOREMAN = "foreman: {url: 'https://foreman.test'}\n"
GATEWAY = "features: {container_gateway: {}}\n"


@pytest.mark.parametrize(
    ("url", "rest", "told"),
    [
        ("https://{address}:9090/container_gateway", FOREMAN + GATEWAY, {}),
        ("https://{address}:9090/container_gateway", FOREMAN, {"content.registry_url": "which is off"}),
        (
            "https://{address}:9090/container_gateway",
            FOREMAN + "features: {container_gateway: {enabled: false}}\n",
            {"content.registry_url": "features: {container_gateway: {}}"},
        ),
        (
            "https://{address}:9090/container_gateway", GATEWAY,
            {"features.container_gateway": "does not start without foreman.url"},
        ),
        (
            "https://{address}:9090", FOREMAN,
            {"content.registry_url": "container gateway is at https://{address}:9090/container_gateway"},
        ),
        (
            "https://{address}:9443/container_gateway", FOREMAN + GATEWAY,
            {"features.container_gateway": "https://{address}:9090/container_gateway does"},
        ),
        ("https://{address}:9443/container_gateway", FOREMAN, {}),
        ("http://registry.test:5000/v2", FOREMAN, {"content.registry_url": "ends in /v2"}),
        ("http://registry.test:5000/images/v2", FOREMAN, {"content.registry_url": "ends in /v2"}),
        ("http://registry.test:5000", FOREMAN, {}),
    ],
)  # fmt: skip
def test_images_that_lead_nowhere_are_warned_of(url: str, rest: str, told: dict[str, str], tmp_path: Path) -> None:
    text = f"{CLUSTER}{CONTENT}content: {{services: [http], registry_url: '{url}'}}\n{rest}"
    code, found, _ = said(tmp_path, text)
    assert (code, [where for _, where, _ in found]) == (0, list(told))
    assert all(told[where] in why for _, where, why in found)


@pytest.mark.parametrize("name", ["content", "authority"])
def test_a_section_with_nothing_below_it_is_warned_of(name: str, tmp_path: Path) -> None:
    code, found, _ = said(tmp_path, f"{CLUSTER}{OFF}}}\n{name}:\n")
    assert (code, [w for _, w, _ in found]) == (0, [name])
    assert f"counts as absent; {name}: {{}} has" in found[0][2]


def test_content_without_a_member_that_answers_it_is_warned_of(tmp_path: Path) -> None:
    text = CLUSTER.replace("}]", ", kind: foreman}]") + f"{CONTENT}content: {{services: [http]}}\n"
    assert [w for _, w in warned(tmp_path, text)] == ["content"]


def test_a_key_without_its_certificate_is_refused(tmp_path: Path) -> None:
    text = f"{CLUSTER}{CONTENT}content: {{services: [http], foreman_key: /x.pem}}\n"
    assert checked(tmp_path, text) == (INVALID_SETTINGS, [(7, "content.foreman_key")])


def test_keepers_of_what_nothing_follows_are_invalid(tmp_path: Path) -> None:
    text = f"{CLUSTER}{CONTENT}content: {{services: [http], one_version: false, keepers: 2}}\n"
    assert checked(tmp_path, text) == (INVALID_SETTINGS, [(7, "content.keepers")])
    assert checked(tmp_path, text.replace("keepers: 2", "keepers: 0"))[0] != INVALID_SETTINGS


def test_an_authority_whose_service_is_disabled_is_warned_of(tmp_path: Path) -> None:
    code, found, _ = said(tmp_path, CLUSTER + f"{OFF}}}\nauthority: {{}}\n")
    assert (code, [w for _, w, _ in found]) == (0, ["authority"])
    assert "puppetca is disabled" in found[0][2]
    assert said(tmp_path, CLUSTER + "services: {puppet: {enabled: false}}\nauthority: {}\n")[1] == []


def test_a_file_that_is_no_cluster_file_is_called_so_without_our_own_names(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    file.write_text("root:x:0:0:root:/root:/bin/bash\n")
    told = CliRunner().invoke(muster, ["config", "check", str(file)], standalone_mode=False)
    assert told.return_value == INVALID_SETTINGS
    assert "is not a mapping of settings" in told.output
    assert "ClusterFile" not in told.output
    assert told.output.endswith("1 problem\n")


def test_an_absent_file_that_the_database_is_verified_with_is_warned_of(tmp_path: Path) -> None:
    there = tmp_path / "db-ca.pem"
    url = f"postgresql://u@db/x?sslmode=verify-full&sslrootcert={there}"
    text = CLUSTER.replace("sqlite:////var/muster.db", url) + f"{OFF}}}\n"
    code, found, _ = said(tmp_path, text)
    assert (code, [(line, where) for line, where, _ in found]) == (0, [(4, "store.url")])
    assert f"sslrootcert {there} is not on this host" in found[0][2]
    there.write_text("x")
    assert said(tmp_path, text)[1] == []
    assert said(tmp_path, text.replace(str(there), "system"))[1] == []


def test_ruby_members_behind_one_name_at_foreman_are_warned_of(tmp_path: Path) -> None:
    ruby = CLUSTER.replace("}]", ", kind: foreman}]") + f"{OFF}}}\n"
    code, found, _ = said(tmp_path, f"{ruby}foreman: {{registration: cluster}}\n")
    assert (code, [where for _, where, _ in found]) == (0, ["foreman.registration"])
    assert said(tmp_path, f"{ruby}foreman: {{registration: members}}\n")[1] == []
    assert said(tmp_path, f"{CLUSTER}{OFF}}}\nforeman: {{registration: cluster}}\n")[1] == []
