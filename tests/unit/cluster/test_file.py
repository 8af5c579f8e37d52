from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from muster.cluster.file import ClusterFile, Member, load
from muster.cluster.problems import problems
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.secrets import Secret
from muster.kernel.settings import parse
from tests.unit.cluster.written import ONE, SHARED, SMALL, TWO, parsed, schema_problems, with_members

BIG = """\
schema: 1
cluster: demo-1
address: Proxy.example.com.
aliases: [proxy-old.example.com, boot.example.com]
store:
  url: postgresql://muster@db.example.com:5433/muster?sslmode=verify-full
  password_file: /etc/muster/store-password
  connect_timeout_s: 1.5
  statement_timeout_s: 3
foreman:
  url: https://foreman.example.com/
  trusted_hosts: [foreman.example.com, FOREMAN2.example.com]
  ca_file: /etc/muster/foreman-ca.pem
  forward_verify: false
members:
  - {id: 1, name: proxy01.example.com, address: 192.0.2.11}
  - {id: 2, name: proxy02.example.com, address: "2001:DB8::12"}
  - {id: 4095, name: old.example.net, address: old.example.net, kind: foreman}
balancers:
  - {name: lb1, address: 192.0.2.1, bind: 192.0.2.10, metrics_port: 9101, maxconn: 100}
  - {name: lb2, address: 192.0.2.2}
generation: seed
services:
  docker: {enabled: false}
  mqtt: {listen_port: 1883, member_port: 1884, traffic: tls-tunnel, balance: leastconn, maxconn_per_member: 50}
  puppetca: {destinations: signer}
features:
  dns:
    provider: nsupdate
    nsupdate: {server: 192.0.2.53}
  logs: {}
signer: proxy02.example.com
edge:
  body_limit_bytes: 1024
  proxy_protocol: required
  drain_s: 0
log: {level: WARN, buffer: 2, buffer_errors: 0}
"""


def test_a_big_file_becomes_real_types() -> None:
    cluster = parsed(BIG)
    assert (cluster.cluster, str(cluster.address)) == ("demo-1", "Proxy.example.com")
    assert cluster.names == ("proxy.example.com", "proxy-old.example.com", "boot.example.com")
    assert cluster.store.url.reveal() == "postgresql://muster@db.example.com:5433/muster?sslmode=verify-full"
    assert cluster.store.password_file == Path("/etc/muster/store-password")
    assert [(m.id, m.address, m.kind) for m in cluster.members] == [
        (1, "192.0.2.11", "muster"),
        (2, "2001:db8::12", "muster"),
        (4095, "old.example.net", "foreman"),
    ]
    assert [(b.name, b.bind, b.metrics_port, b.maxconn) for b in cluster.balancers] == [
        ("lb1", "192.0.2.10", 9101, 100),
        ("lb2", "*", None, 4000),
    ]
    assert cluster.services["mqtt"].traffic == "tls-tunnel"
    assert cluster.features["dns"] == {"provider": "nsupdate", "nsupdate": {"server": "192.0.2.53"}}
    assert (cluster.signer, cluster.edge.drain_s, cluster.log.level) == ("proxy02.example.com", 0.0, "WARN")
    assert problems(parse(BIG)) == []


def test_a_file_written_from_the_settings_is_read_as_the_same_settings() -> None:
    cluster = parsed(BIG)
    written = cluster.model_dump(mode="json", by_alias=True)
    assert written["store"]["url"] == "***"
    written["store"]["url"] = cluster.store.url.reveal()
    assert parsed(yaml.safe_dump(written)) == cluster


def test_a_small_file_has_todays_defaults() -> None:
    cluster = parsed(SMALL)
    assert (cluster.generation, cluster.signer, cluster.balancers, cluster.aliases) == ("installer", "any", (), ())
    # Absent is not empty: nobody is trusted only when the file says so.
    assert cluster.foreman.trusted_hosts is None
    assert parsed(SMALL + "foreman: {trusted_hosts: []}\n").foreman.trusted_hosts == ()
    assert (cluster.edge.proxy_protocol, cluster.log.buffer, cluster.log.buffer_errors) == ("accepted", 2000, 1000)


def test_a_file_is_loaded_with_its_document(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(SMALL)
    cluster, document = load(path)
    assert cluster == parsed(SMALL)
    assert document.line_of(("members", 0, "name")) == 6
    with pytest.raises(Misconfigured, match="No such file"):
        load(tmp_path / "none.yaml")


WRONG: list[tuple[str, str, int, str, str]] = [
    ("schema: 1", "schema: 2", 1, "schema", "should be 1"),
    ("cluster: demo", "cluster: De_mo", 2, "cluster", "String should match pattern"),
    ("cluster: demo", 'cluster: "demo\\n"', 2, "cluster", "String should match pattern"),
    ("cluster: demo", "clutser: demo", 2, "clutser", "did you mean 'cluster'?"),
    ("address: proxy.example.com", "address: proxy_1.example.com", 3, "address", "Invalid DNS name"),
    ("store: {", "stoer: {", 4, "stoer", "did you mean 'store'?"),
    ("sqlite:///var/muster.db", "mysql://h/d", 4, "store.url", "is neither sqlite:///PATH nor postgresql://"),
    ("sqlite:///var/muster.db", "postgresql://u@h/a b", 4, "store.url", "is neither"),
    ("id: 1,", "id: 0,", 6, "members[0].id", "greater than or equal to 1"),
    ("id: 1,", "id: 4096,", 6, "members[0].id", "less than or equal to 4095"),
    ("id: 1,", "", 6, "members[0].id", "is required"),
    ("name: proxy01.example.com", "name: proxy01 example.com", 6, "members[0].name", "Invalid DNS name"),
    ("address: 127.0.0.11", "adress: 127.0.0.11", 6, "members[0].adress", "did you mean 'address'?"),
    ("127.0.0.11}", "127.0.0.11, kind: ruby}", 6, "members[0].kind", "Input should be 'muster' or 'foreman'"),
]


ADDED: list[tuple[str, str, str]] = [
    ("aliases: [a b]", "aliases[0]", "Invalid DNS name"),
    ("balancers: [{address: 'a b'}]", "balancers[0].address", "Invalid DNS name"),
    ("balancers: [{address: 192.0.2.1, maxconn: 99}]", "balancers[0].maxconn", "greater than or equal to 100"),
    ("balancers: [{address: 192.0.2.1, metrics_port: 65536}]", "balancers[0].metrics_port", "less than or equal to"),
    ("profile: 2018", "profile", "Input should be 'seed' or 'current'"),
    ("generation: current", "generation", "Input should be 'seed', 'installer' or 'foremanctl'"),
    ("services: {UPPER: {}}", "services", "String should match pattern"),
    ("features: {dns: yes}", "features.dns", "is not a mapping of settings"),
]


@pytest.mark.parametrize(("good", "bad", "line", "where", "sentence"), WRONG)
def test_a_wrong_value_is_said_with_its_line(good: str, bad: str, line: int, where: str, sentence: str) -> None:
    assert good in SMALL
    found = {p.where: p for p in schema_problems(SMALL.replace(good, bad, 1))}
    assert found[where].line == line
    assert sentence in found[where].sentence


@pytest.mark.parametrize(("added", "where", "sentence"), ADDED)
def test_a_wrong_addition_is_said_with_its_line(added: str, where: str, sentence: str) -> None:
    (found, *_) = [p for p in schema_problems(SMALL + added + "\n") if p.where.startswith(where)]
    assert found.line == 7
    assert sentence in found.sentence


def test_a_cluster_has_at_least_one_member_and_at_most_200() -> None:
    members = "members:\n" + "".join(
        f"  - {{id: {n}, name: p{n}.example.com, address: 127.0.0.1}}\n" for n in range(1, 202)
    )
    head = SMALL.partition("members:")[0]
    assert [p.where for p in schema_problems(head + "members: []\n")] == ["members"]
    assert [p.where for p in schema_problems(head + members)] == ["members"]
    assert len(parsed(head + members.rpartition("  -")[0]).members) == 200


def test_several_problems_are_said_at_once_in_order_of_lines() -> None:
    text = SMALL.replace("demo", "DEMO").replace("id: 1", "id: 0") + "edge: {drain_s: -1}\nlgo: {}\n"
    assert [p.line for p in schema_problems(text)] == [2, 6, 7, 8]


def test_a_member_is_found_by_name_or_by_its_first_label() -> None:
    cluster = parsed(with_members(ONE, TWO, "{id: 3, name: proxy02.example.net, address: 127.0.0.13}"))
    assert cluster.member("PROXY02.example.com").id == 2
    assert cluster.member("Proxy01").id == 1
    with pytest.raises(Rejected, match="'proxy02' names 2 members; members are proxy01"):
        cluster.member("proxy02")
    with pytest.raises(Rejected, match="'proxy09' names no members"):
        cluster.member("proxy09")


def test_settings_in_memory_may_hold_a_secret_already() -> None:
    given = yaml.safe_load(SMALL)
    given["store"]["url"] = Secret("sqlite:///x")
    assert ClusterFile.model_validate(given).store.url == Secret("sqlite:///x")


def test_a_balancer_is_found_by_name_or_because_it_is_the_only_one() -> None:
    two = parsed(BIG)
    assert two.balancer("lb2").address == "192.0.2.2"
    with pytest.raises(Rejected, match="the balancer must be named; balancers are lb1, lb2"):
        two.balancer(None)
    with pytest.raises(Rejected, match="'lb3' is no balancer; balancers are lb1, lb2"):
        two.balancer("lb3")
    assert parsed(SMALL + "balancers: [{address: 192.0.2.1}]\n").balancer(None).name == "balancer"
    with pytest.raises(Rejected, match="has no balancer to do it for; balancers are none"):
        parsed(SMALL).balancer(None)


def test_balancers_share_an_address_and_each_has_its_priority() -> None:
    cluster = parsed(SHARED)
    assert cluster.virtual_address is not None
    assert (cluster.virtual_address.address, cluster.virtual_address.version) == ("192.0.2.10/24", 4)
    assert [cluster.priority(b) for b in cluster.balancers] == [200, 190, 254]
    assert problems(parse(SHARED)) == []


AUTHORITY = """\
authority:
  port: 8149
  key: {kind: pkcs11, module: /usr/lib/softhsm/libsofthsm2.so, token_label: muster, key_label: ca, pin_file: /etc/pin}
  autosign: [hostnames, tokens, policy]
  hostnames_file: /etc/muster/autosign.conf
  policy_executable: /usr/local/bin/policy
  policy_timeout_s: 2.5
  allow_subject_alt_names: true
  administrators: [foreman.example.com]
  cert_ttl_days: 365
  infra_hosts: [db.example.com]
  push_crl: [/etc/puppetlabs/puppet/ssl/crl.pem]
"""


def test_without_the_section_members_are_no_ca_and_with_it_empty_they_have_defaults() -> None:
    assert parsed(SMALL).authority is None
    authority = parsed(SMALL + "authority: {}\n").authority
    assert authority is not None
    assert (authority.port, authority.key.kind, authority.autosign, authority.administrators) == (8141, "file", (), ())
    assert not authority.allow_subject_alt_names
    assert not authority.allow_authorization_extensions
    assert not authority.allow_auto_renewal
    assert (authority.cert_ttl_days, authority.crl_slack_s, authority.pending_limit) == (1825, 3600.0, 10_000)


def test_an_authority_becomes_real_types() -> None:
    authority = parsed(SMALL + AUTHORITY).authority
    assert authority is not None
    assert authority.key.module == Path("/usr/lib/softhsm/libsofthsm2.so")
    assert authority.autosign == ("hostnames", "tokens", "policy")
    assert (authority.policy_timeout_s, authority.infra_hosts) == (2.5, ("db.example.com",))
    assert authority.push_crl == (Path("/etc/puppetlabs/puppet/ssl/crl.pem"),)
    assert problems(parse(SMALL + AUTHORITY)) == []


@pytest.mark.parametrize(
    ("added", "where", "sentence"),
    [
        ("{key: {kind: signer}}", "authority.key", "kind signer needs socket"),
        (
            "{key: {kind: pkcs11, module: /x}}",
            "authority.key",
            "kind pkcs11 needs token_label, key_label, pin_file",
        ),
        ("{key: {kind: vault}}", "authority.key.kind", "'file', 'signer' or 'pkcs11'"),
        ("{key: {passphrase: secret}}", "authority.key.passphrase", "did you mean 'passphrase_file'?"),
        ("{autosign: [policy]}", "authority", "autosign policy needs policy_executable"),
        ("{autosign: [everybody]}", "authority.autosign[0]", "'all', 'hostnames', 'tokens' or 'policy'"),
        ("{autosign: all}", "authority.autosign", ""),
        ("{port: 0}", "authority.port", "greater than or equal to 1"),
        ("{administrators: ['*']}", "authority.administrators[0]", "match pattern"),
        ("{administrators: [Foreman.example.com]}", "authority.administrators[0]", "match pattern"),
        ('{administrators: ["a\\nb"]}', "authority.administrators[0]", "match pattern"),
        ("{infra_hosts: ['a b']}", "authority.infra_hosts[0]", "match pattern"),
        ("{cert_ttl_days: 0}", "authority.cert_ttl_days", "greater than or equal to 1"),
        ("{crl_ttl_days: 18251}", "authority.crl_ttl_days", "less than or equal to 18250"),
        ("{crl_slack_s: -1}", "authority.crl_slack_s", "greater than or equal to 0"),
        ("{crl_slack_s: .nan}", "authority.crl_slack_s", ""),
        ("{pending_limit: 0}", "authority.pending_limit", "greater than or equal to 1"),
        ("{requests_per_minute: -1}", "authority.requests_per_minute", "greater than or equal to 0"),
        ("{policy_timeout_s: 0}", "authority.policy_timeout_s", "greater than 0"),
        ("{autosgn: []}", "authority.autosgn", "did you mean 'autosign'?"),
        ("true", "authority", ""),
    ],
)
def test_a_wrong_authority_is_said_with_its_line(added: str, where: str, sentence: str) -> None:
    found = {p.where: p for p in schema_problems(SMALL + f"authority: {added}\n")}
    assert where in found
    assert found[where].line == 7
    assert sentence in found[where].sentence


def test_members_stand_in_sets_whatever_ports_they_have() -> None:
    given = {"id": 1, "name": "proxy01.test", "address": "127.0.0.1"}
    one, moved = Member.model_validate(given), Member.model_validate({**given, "ports": {"smartproxy": 8443}})
    assert len({one, moved, Member.model_validate(given)}) == 2
