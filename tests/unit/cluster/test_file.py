from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import pytest
import yaml

from muster.cluster.file import ClusterFile, Log, load, problems
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.log import configure
from muster.kernel.secrets import Secret
from muster.kernel.settings import InvalidSettings, Problem, parse

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
profile: seed
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

SMALL = """\
schema: 1
cluster: demo
address: proxy.example.com
store: {url: "sqlite:///var/muster.db"}
members:
  - {id: 1, name: proxy01.example.com, address: 127.0.0.11}
"""


def parsed(text: str) -> ClusterFile:
    return parse(text, "cluster.yaml").parsed(ClusterFile)


def schema_problems(text: str) -> list[Problem]:
    with pytest.raises(InvalidSettings) as raised:
        parsed(text)
    return raised.value.problems


def said(found: list[Problem]) -> list[tuple[int, str, str]]:
    return [(p.line, p.where, p.sentence) for p in found]


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
    assert (cluster.profile, cluster.signer, cluster.balancers, cluster.aliases) == ("current", "any", (), ())
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
    ("foreman: {url: 'ftp://x'}", "foreman.url", "String should match pattern"),
    ('foreman: {url: "https://x\\nInjected: 1"}', "foreman.url", "String should match pattern"),
    ("foreman: {version: 5.0}", "foreman.version", 'write it in quotes: "3.10"'),
    ("foreman: {version: 5}", "foreman.version", "write it in quotes"),
    ("foreman: {version: '5'}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {version: 3.11.0-develop}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {version: '3.011'}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {version: 1.2.3.4}", "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ('foreman: {version: "5.0\\n"}', "foreman.version", "MAJOR.MINOR or MAJOR.MINOR.PATCH"),
    ("foreman: {trusted_hosts: ['*.example.com']}", "foreman.trusted_hosts[0]", "Invalid DNS name"),
    ("foreman: {trusted_host: []}", "foreman.trusted_host", "did you mean 'trusted_hosts'?"),
    ("balancers: [{address: 'a b'}]", "balancers[0].address", "Invalid DNS name"),
    ("balancers: [{address: 192.0.2.1, maxconn: 99}]", "balancers[0].maxconn", "greater than or equal to 100"),
    ("balancers: [{address: 192.0.2.1, metrics_port: 65536}]", "balancers[0].metrics_port", "less than or equal to"),
    ("profile: 2018", "profile", "Input should be 'seed' or 'current'"),
    ("services: {UPPER: {}}", "services", "String should match pattern"),
    ("services: {http: {traffic: udp}}", "services.http.traffic", "Input should be 'tls', 'plain' or 'tls-tunnel'"),
    ("services: {http: {check: udp}}", "services.http.check", "Input should be 'tcp'"),
    ("services: {http: {check: {path: 'x'}}}", "services.http.check.path", "String should match pattern"),
    ("services: {http: {check: {path: '/x y'}}}", "services.http.check.path", "String should match pattern"),
    ("services: {http: {check: {pfad: /x}}}", "services.http.check.pfad", "did you mean 'path'?"),
    ('services: {http: {check: {holds: "it\'s"}}}', "services.http.check.holds", "String should match pattern"),
    ("services: {http: {check: {timeout_s: 61}}}", "services.http.check.timeout_s", "less than or equal to 60"),
    ("features: {dns: yes}", "features.dns", "valid dictionary"),
    ("edge: {body_limit_bytes: 1023}", "edge.body_limit_bytes", "greater than or equal to 1024"),
    ("edge: {idle_timeout_s: 0}", "edge.idle_timeout_s", "greater than 0"),
    ("edge: {idle_timeout_s: .nan}", "edge.idle_timeout_s", ""),
    ("edge: {idle_timeout_s: .inf}", "edge.idle_timeout_s", ""),
    ("edge: {proxy_protocol: maybe}", "edge.proxy_protocol", "'accepted', 'required' or 'off'"),
    ("log: {level: LOUD}", "log.level", "Input should be 'DEBUG'"),
    ("log: {level: UNKNOWN}", "log.level", "Input should be 'DEBUG', 'INFO', 'WARN', 'ERROR' or 'FATAL'"),
    ("log: {buffer: 1}", "log.buffer", "greater than or equal to 2"),
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


@pytest.mark.parametrize(
    ("given", "told"),
    [("", "5.0.0"), ("version: '3.10'", "3.10.0"), ("version: '3.14.2'", "3.14.2"), ("version: 4.1.0", "4.1.0")],
)
def test_foremans_version_is_told_in_the_form_it_parses(given: str, told: str) -> None:
    assert parsed(SMALL + f"foreman: {{{given}}}\n").foreman.told_version == told


@pytest.mark.parametrize("address", ["127.0.0.256", "192.0.2", "192.0.2.1.5", "10"])
def test_an_address_with_a_slip_is_not_taken_for_a_host_name(address: str) -> None:
    found = schema_problems(SMALL.replace("127.0.0.11", f'"{address}"'))
    assert [p.where for p in found] == ["members[0].address"]


def test_an_unknown_key_of_a_service_is_answered_with_the_nearest() -> None:
    (found,) = schema_problems(SMALL + "services: {http: {listen_prot: 1}}\n")
    assert found.sentence == "unknown key 'listen_prot'; did you mean 'listen_port'?"


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


def test_a_store_url_is_never_repeated_in_a_problem() -> None:
    found = schema_problems(SMALL.replace("sqlite:///var/muster.db", "mysql://u:hunter2@h/d"))
    assert "hunter2" not in "".join(map(str, found))


def with_members(*lines: str, rest: str = "") -> str:
    return SMALL.partition("members:")[0] + "members:\n" + "".join(f"  - {line}\n" for line in lines) + rest


ONE = "{id: 1, name: proxy01.example.com, address: 127.0.0.11}"
TWO = "{id: 2, name: proxy02.example.com, address: 127.0.0.12}"


def test_members_that_share_an_id_or_a_name_are_named_with_both_lines() -> None:
    again = "{id: 1, name: PROXY01.example.com., address: 127.0.0.13}"
    assert said(problems(parse(with_members(ONE, TWO, again)))) == [
        (8, "members[2].id", "1 stands already in line 6"),
        (8, "members[2].name", "PROXY01.example.com. stands already in line 6"),
    ]


def test_a_signer_that_is_no_member_is_answered_with_the_members() -> None:
    assert said(problems(parse(with_members(ONE, TWO, rest="signer: proxy03.example.com\n")))) == [
        (8, "signer", "proxy03.example.com is no member; members are proxy01.example.com, proxy02.example.com")
    ]
    for good in ("any", "PROXY02.example.com"):
        assert problems(parse(with_members(ONE, TWO, rest=f"signer: {good}\n"))) == []


def test_a_signer_with_a_trailing_dot_is_the_member_without() -> None:
    text = with_members(ONE, TWO, rest="signer: proxy02.example.com.\n")
    assert parsed(text).signer == parsed(text).members[1].name
    assert problems(parse(text)) == []


def test_a_member_may_not_have_the_clusters_address() -> None:
    text = with_members(ONE, "{id: 2, name: Proxy.example.com, address: 127.0.0.12}")
    assert said(problems(parse(text))) == [(7, "members[1].name", "is the cluster's address; a member needs its own")]


def test_a_member_may_not_have_the_clusters_address_with_a_dot_either() -> None:
    text = with_members(ONE, "{id: 2, name: proxy.example.com., address: 127.0.0.12}")
    assert parsed(text).members[1].name == parsed(text).address
    assert [p.line for p in problems(parse(text))] == [7]


def test_balancers_need_names_of_their_own() -> None:
    rest = "balancers:\n  - {address: 192.0.2.1}\n  - {name: lb2, address: 192.0.2.2}\n  - {address: 192.0.2.3}\n"
    assert said(problems(parse(with_members(ONE, rest=rest)))) == [(10, "balancers[2].name", "balancer stands twice")]


def test_an_expected_difference_of_somebody_who_is_no_member_is_named_with_its_line() -> None:
    rest = (
        "expected_differences:\n"
        "  - field: dns.settings.*\n"
        "    members:\n"
        "      - PROXY02.example.com\n"
        "      - proxy03.example.com\n"
        "    reason: its own zone\n"
        "  - {field: version, reason: mixed kinds}\n"
    )
    text = with_members(ONE, TWO, rest=rest)
    known = "members are proxy01.example.com, proxy02.example.com"
    assert said(problems(parse(text))) == [
        (12, "expected_differences[0].members[1]", f"proxy03.example.com is no member; {known}")
    ]
    assert [e.field for e in parsed(text).expected_differences] == ["dns.settings.*", "version"]


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("{field: dns.state}", "expected_differences[0].reason"),
        ("{field: dns.state, reason: ''}", "expected_differences[0].reason"),
        ("{field: 'dns state', reason: x}", "expected_differences[0].field"),
        ("{reason: x}", "expected_differences[0].field"),
    ],
)
def test_an_expected_difference_needs_a_field_and_a_reason(given: str, where: str) -> None:
    assert [p.where for p in schema_problems(SMALL + f"expected_differences: [{given}]\n")] == [where]


@pytest.mark.parametrize("off", ["false", "no", '"off"'])
def test_muster_members_cannot_serve_without_the_service_smartproxy(off: str) -> None:
    rest = f"services:\n  smartproxy:\n    enabled: {off}\n"
    assert said(problems(parse(with_members(ONE, TWO, rest=rest)))) == [
        (
            10,
            "services.smartproxy.enabled",
            "members of kind muster cannot serve without this service; only a cluster of kind foreman can",
        )
    ]
    ruby = [m.replace("}", ", kind: foreman}") for m in (ONE, TWO)]
    assert problems(parse(with_members(*ruby, rest=rest))) == []
    assert len(problems(parse(with_members(ruby[0], TWO, rest=rest)))) == 1
    for fine in ("enabled: true", "enabled: maybe", "listen_port: 9443"):
        assert problems(parse(with_members(ONE, rest=f"services: {{smartproxy: {{{fine}}}}}\n"))) == []


def test_every_level_a_file_may_name_is_one_that_a_member_can_log_from() -> None:
    try:
        for level in get_args(Log.model_fields["level"].annotation):
            configure(level=level, stream=io.StringIO())
    finally:
        configure(level="ERROR")


def test_sqlite_serves_one_host_only() -> None:
    apart = ONE.replace("127.0.0.11", "192.0.2.11"), TWO.replace("127.0.0.12", "192.0.2.12")
    assert said(problems(parse(with_members(*apart)))) == [
        (4, "store.url", "SQLite serves members of one host; members on several need postgresql://")
    ]
    assert problems(parse(with_members(ONE, TWO))) == []
    assert problems(parse(with_members(*apart).replace("sqlite:///var/muster.db", "postgresql://u@h/d"))) == []


def test_ruby_members_never_touch_the_store_so_sqlite_serves_one_balancer() -> None:
    apart = (
        ONE.replace("127.0.0.11", "192.0.2.11").replace("}", ", kind: foreman}"),
        TWO.replace("127.0.0.12", "192.0.2.12").replace("}", ", kind: foreman}"),
    )
    one, two = "- {name: lb1, address: 192.0.2.1}", "- {name: lb2, address: 192.0.2.2}"
    assert problems(parse(f"{with_members(*apart)}\nbalancers:\n{one}\n")) == []
    assert said(problems(parse(f"{with_members(*apart)}\nbalancers:\n{one}\n{two}\n"))) == [
        (4, "store.url", "SQLite serves one balancer; several need postgresql://")
    ]
    assert (
        problems(parse(f"{with_members(ONE.replace('127.0.0.11', '192.0.2.3'), apart[1])}\nbalancers:\n{one}\n")) == []
    )


@pytest.mark.parametrize(
    "text",
    [
        "members: 5\n",
        "members: [5, null, [a]]\n",
        "members: [{id: null}]\nbalancers: 7\nstore: x\nsigner: [a]\n",
        "balancers: [null, null, x]\n",
        "address: null\nstore: {url: null}\n",
        "services: 5\n",
        "members: [{id: 1}]\nservices: {smartproxy: 5}\n",
        "members: [{id: 1}]\nservices: {smartproxy: {enabled: [5]}}\n",
        "{}",
    ],
)
def test_a_half_valid_file_is_looked_at_without_stumbling(text: str) -> None:
    assert all(isinstance(p, Problem) for p in problems(parse(text)))


@pytest.mark.parametrize("text", ["- a\n", "5\n", "text\n"])
def test_a_file_that_is_no_mapping_says_so(text: str) -> None:
    assert said(problems(parse(text))) == [(1, "", "is not a mapping of settings")]


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
    with pytest.raises(Rejected, match="balancers are none"):
        parsed(SMALL).balancer(None)


SHARED = (
    SMALL
    + """\
balancers:
  - {name: lb1, address: 192.0.2.1}
  - {name: lb2, address: 192.0.2.2, interface: ens3}
  - {name: lb3, address: 192.0.2.3, priority: 254}
virtual_address:
  address: 192.0.2.10/24
  interface: eth0
"""
)


def test_balancers_share_an_address_and_each_has_its_priority() -> None:
    cluster = parsed(SHARED)
    assert cluster.virtual_address is not None
    assert (cluster.virtual_address.address, cluster.virtual_address.version) == ("192.0.2.10/24", 4)
    assert [cluster.priority(b) for b in cluster.balancers] == [200, 190, 254]
    assert problems(parse(SHARED)) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("priority: 254", "priority: 190", (10, "balancers[2].priority", "lb3 and lb2 both have priority 190")),
        (
            "192.0.2.2,",
            "lb2.test,",
            (
                9,
                "balancers[1].address",
                "must be an IPv4 address, because balancers tell each other who owns 192.0.2.10",
            ),
        ),
        (
            "192.0.2.2,",
            "'fd00::2',",
            (
                9,
                "balancers[1].address",
                "must be an IPv4 address, because balancers tell each other who owns 192.0.2.10",
            ),
        ),
        ("192.0.2.3", "192.0.2.10", (10, "balancers[2].address", "is the virtual address; lb3 needs its own")),
        (
            "127.0.0.11",
            "192.0.2.10",
            (6, "members[0].address", "is the virtual address; proxy01.example.com needs its own"),
        ),
    ],
)
def test_what_keeps_balancers_from_sharing_is_said_with_its_line(
    old: str, new: str, expected: tuple[int, str, str]
) -> None:
    assert said(problems(parse(SHARED.replace(old, new)))) == [expected]


def test_one_balancer_shares_with_nobody() -> None:
    alone = SMALL + "balancers: [{address: 192.0.2.1}]\nvirtual_address: {address: 192.0.2.10/24, interface: eth0}\n"
    assert said(problems(parse(alone))) == [
        (8, "virtual_address", "moves between balancers, so it needs two or more; the file has 1")
    ]


@pytest.mark.parametrize(
    "address", ["192.0.2.10", "192.0.2.0/24", "192.0.2.255/24", "127.0.0.5/8", "x/24", "192.0.2.10/33", "fd00::/64", 7]
)
def test_an_address_that_no_host_could_have_is_refused_with_its_line(address: object) -> None:
    (found,) = schema_problems(SHARED.replace("192.0.2.10/24", str(address)))
    assert (found.line, found.where) == (12, "virtual_address.address")


@pytest.mark.parametrize("address", ["192.0.2.10/32", "192.0.2.0/31", "fd00::a/64"])
def test_short_networks_and_ipv6_are_fine(address: str) -> None:
    assert parsed(SHARED.replace("192.0.2.10/24", address)).virtual_address is not None


@pytest.mark.parametrize(
    "text",
    [
        "virtual_address: 3",
        "virtual_address: {address: 3}\nbalancers: 3",
        "virtual_address: {}\nbalancers: [1, {}, {priority: [1]}, {address: {}}]\nmembers: [{address: []}]",
    ],
)
def test_half_valid_shared_addresses_are_spoken_of_without_a_crash(text: str) -> None:
    problems(parse(text))


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
