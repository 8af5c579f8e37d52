from __future__ import annotations

import pytest

from muster.app.offers import answered, modelled
from muster.balancer.generations import FOREMANCTL, INSTALLER, KNOWN, SEED
from muster.balancer.model import Balancing, Service, problems, signs_itself, warnings
from muster.cluster.file import ClusterFile
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import Document, Problem, parse

HEAD = """\
schema: 1
cluster: demo
address: cluster.test
store: {url: sqlite:////nowhere/x.db}
members:
- {id: 11, name: Proxy01.test, address: 10.0.0.1}
- {id: 12, name: proxy02.test, address: 10.0.0.2, kind: foreman}
"""

# The table of seed 000, typed again from the article: label, listen port, balance, member port, destination.
SEED_TABLE = """\
HTTP 80 roundrobin 80 all
Anaconda 8000 roundrobin 8000 all
HTTPS 443 source 443 all
RHSM 8443 roundrobin 8443 all
AMQP 5647 roundrobin 5647 all
Puppet 8140 roundrobin 8140 all
PuppetCA 8141 roundrobin 8140 signer
SmartProxy 9090 roundrobin 9090 all
Docker 5000 roundrobin 5000 all
"""


def document(rest: str = "") -> Document:
    return parse(HEAD + rest)


def model(rest: str = "") -> Balancing:
    return modelled(document(rest).parsed(ClusterFile))


def said(rest: str) -> list[Problem]:
    """Return what is wrong beside the signer, which the head does not name."""
    return problems(document(f"{rest}signer: proxy02.test\n"))


def service(rest: str, name: str) -> Service:
    found = model(rest).service(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        (
            "content: {services: [rhsm]}\n",
            "rhsm is no service of generation installer; add it: services: {rhsm: {listen_port: 8443",
        ),
        ("content: {services: [https]}\nservices: {https: {enabled: false}}\n", "https is switched off under services"),
        (
            "content: {services: [docker]}\nservices: {docker: {member_port: 5000}}\n",
            "docker is no service of generation",
        ),
        ("content: {}\nservices: {http: {enabled: false}}\n", "http is switched off under services"),
    ],
)
def test_a_port_that_members_shall_answer_must_be_one(rest: str, why: str) -> None:
    assert any(p.sentence.startswith(why) and p.where == "content.services" for p in said(rest)), said(rest)


@pytest.mark.parametrize(
    "rest",
    [
        "content: {}\n",
        "generation: seed\ncontent: {services: [https, http, rhsm, docker]}\n",
        "content: {services: [docker]}\nservices: {docker: {listen_port: 5000, member_port: 5000}}\n",
    ],
)
def test_members_answer_ports_of_content(rest: str) -> None:
    assert said(rest) == []


@pytest.mark.parametrize(
    ("rest", "where"),
    [
        ("content: {pulp_content_url: 'https://{address}'}\n", "pulp_content_url"),
        ("content: {pulp_api_url: 'http://10.0.0.1:80'}\n", "pulp_api_url"),
        ("content: {pulp_api_url: 'https://PROXY02.test'}\n", "pulp_api_url"),
        ("content: {registry_url: 'https://cluster.test/v2'}\n", "registry_url"),
        ("generation: seed\ncontent: {services: [docker], registry_url: 'https://{address}:5000'}\n", "registry_url"),
        (
            "content: {pulp_api_url: 'http://{address}:8443'}\nservices: {https: {member_port: 8443}}\n",
            "pulp_api_url",
        ),
    ],
)
def test_what_members_answer_must_not_come_from_themselves(rest: str, where: str) -> None:
    (found,) = said(rest)
    assert found.where == f"content.{where}"
    assert "which members answer" in found.sentence


@pytest.mark.parametrize(
    "rest",
    [
        "content:\n",
        "content: {pulp_content_url: 'http://{address}:24816', registry_url: 'https://{address}:9443/container_gateway'}\n",
        # The port stays with another program.
        "content: {services: [http], pulp_api_url: 'https://{address}'}\n",
        "content: {pulp_api_url: 'unix:/run/pulp.sock', pulp_content_url: 'https://pulp.test'}\n",
    ],
)
def test_what_members_answer_comes_from_elsewhere(rest: str) -> None:
    assert said(rest) == []


@pytest.mark.parametrize("content", ["[]", "x", "{pulp_api_url: 7}", "{services: x, pulp_api_url: 'http://['}"])
def test_a_half_valid_section_is_looked_at_without_stumbling(content: str) -> None:
    said(f"content: {content}\n")


@pytest.mark.parametrize(
    ("rest", "where", "why"),
    [
        (
            "services: {https: {member_port: 9090}}\n",
            "services.https.member_port",
            "9090, for smartproxy and for https",
        ),
        ("services: {http: {member_port: 443}}\n", "services.http.member_port", "443, for https and for http"),
        ("services: {http: {member_port: 8000}}\n", "services.http.member_port", "8000, for anaconda and for http"),
        ("authority: {port: 443}\n", "authority.port", "443, for https and for puppetca"),
        (
            "services: {https: {member_port: 8141}}\nauthority: {}\n",
            "services.https.member_port",
            "8141, for puppetca and",
        ),
    ],
)
def test_a_member_cannot_listen_twice_on_one_port(rest: str, where: str, why: str) -> None:
    found = problems(document(f"content: {{}}\n{rest}" + ("" if "authority" in rest else "signer: proxy02.test\n")))
    assert [p.where for p in found] == [where], found
    assert f"members would listen twice on port {why}" in found[0].sentence


def test_ports_of_other_programs_beside_a_member_are_theirs() -> None:
    assert said("services: {https: {member_port: 9090}}\n") == []
    ruby = HEAD.replace("10.0.0.1}", "10.0.0.1, kind: foreman}")
    assert (
        problems(parse(f"{ruby}content: {{}}\nservices: {{http: {{member_port: 443}}}}\nsigner: proxy02.test\n")) == []
    )


@pytest.mark.parametrize(
    ("key", "url", "service"),
    [
        ("pulp_content_url", "https://{address}", "https"),
        ("pulp_content_url", "http://10.0.0.1:80", "http"),
        ("pulp_api_url", "https://proxy01.test:443", "https"),
        ("registry_url", "https://cluster.test", "https"),
        ("registry_url", "https://hosts.test", "https"),
    ],
)
def test_what_is_behind_members_is_not_what_they_answer_themselves(key: str, url: str, service: str) -> None:
    found = said(f"aliases: [hosts.test]\ncontent: {{{key}: '{url}'}}\n")
    assert [(p.where, p.sentence) for p in found] == [
        (f"content.{key}", f"leads back to {service}, which members answer themselves")
    ]


@pytest.mark.parametrize(
    "url",
    ["http://{address}:24816", "unix:/run/x.sock", "https://pulp.test", "http://cluster.test:24816", "http://[::1]:80"],
)
def test_what_is_behind_members_may_be_on_their_hosts(url: str) -> None:
    assert said(f"content: {{pulp_content_url: '{url}'}}\n") == []


def test_the_generation_seed_is_the_seeds_table() -> None:
    rows = [f"{r.label} {r.listen_port} {r.balance} {r.member_port} {r.destinations}" for r in SEED]
    assert rows == SEED_TABLE.splitlines()


def test_the_generation_installer_is_the_documented_six() -> None:
    assert {(r.name, r.listen_port, r.member_port, r.balance) for r in INSTALLER} == {
        ("http", 80, 80, "roundrobin"),
        ("https", 443, 443, "source"),
        ("anaconda", 8000, 8000, "roundrobin"),
        ("puppet", 8140, 8140, "roundrobin"),
        ("puppetca", 8141, 8140, "roundrobin"),
        ("smartproxy", 9090, 9090, "roundrobin"),
    }


def test_plain_ports_and_tunnels_are_told_from_tls() -> None:
    traffic = {s.name: s.traffic for s in model("generation: seed\n").services}
    assert [n for n, t in traffic.items() if t == "plain"] == ["http", "anaconda"]
    assert [n for n, t in traffic.items() if t == "tls-tunnel"] == ["amqp"]


def test_a_named_signer_is_the_only_destination_of_puppetca() -> None:
    assert [s.name for s in service("signer: proxy02.test\n", "puppetca").servers] == ["proxy02.test"]
    assert len(service("signer: proxy02.test\n", "puppet").servers) == 2


def test_any_signer_means_every_member() -> None:
    assert len(service("signer: any\n", "puppetca").servers) == 2


def test_a_signer_that_is_no_member_is_said() -> None:
    with pytest.raises(Misconfigured, match=r"proxy09\.test"):
        model("signer: proxy09.test\n")


@pytest.mark.parametrize("signer", ["", "signer: any\n"])
def test_members_that_are_the_ca_are_its_destinations_on_the_authoritys_port(signer: str) -> None:
    found = service(f"{signer}authority: {{port: 8149}}\n", "puppetca")
    # The Ruby member is none: its puppetserver would sign beside the ledger.
    assert [(s.name, s.port) for s in found.servers] == [("proxy01.test", 8149)]
    assert (found.listen_port, found.member_port, found.destinations) == (8141, 8149, "all")


def test_members_that_are_the_ca_get_the_clients_address_on_its_port() -> None:
    for proxy, proxied in (("accepted", True), ("required", True), ('"off"', False)):
        (server,) = service(f"authority: {{}}\nedge: {{proxy_protocol: {proxy}}}\n", "puppetca").servers
        assert (server.proxied, server.question.proxied) == (proxied, proxied)
        assert (server.question.kind, server.question.uri) == ("ready", "/health/ready?service=puppetca")
        # Asked on the member's own port, because only that one speaks of readiness.
        assert server.question.port == 9090


def test_with_a_named_signer_the_authority_of_members_is_not_led_to() -> None:
    found = service("signer: proxy02.test\nauthority: {port: 8149}\n", "puppetca")
    assert [(s.name, s.port, s.proxied) for s in found.servers] == [("proxy02.test", 8140, False)]


def test_without_an_authority_puppetca_is_as_it_was() -> None:
    found = service("", "puppetca")
    assert [(s.name, s.port, s.proxied) for s in found.servers] == [
        ("proxy01.test", 8140, False),
        ("proxy02.test", 8140, False),
    ]


@pytest.mark.parametrize(
    ("rest", "itself"),
    [("", False), ("authority: {}\n", True), ("authority: {}\nsigner: proxy01.test\n", False)],
)
def test_members_sign_themselves_with_an_authority_and_no_named_signer(rest: str, itself: bool) -> None:
    cluster = document(rest).parsed(ClusterFile)
    assert signs_itself(cluster) is itself
    assert answered(cluster) == {"smartproxy", "anaconda"} | ({"puppetca"} if itself else set())


def test_an_override_of_puppetca_is_stronger_than_the_authoritys_port() -> None:
    found = service("authority: {}\nservices:\n  puppetca: {listen_port: 8146, member_port: 8147}\n", "puppetca")
    assert (found.listen_port, found.member_port) == (8146, 8147)


def test_the_authority_changes_no_other_service() -> None:
    def others(rest: str) -> list[Service]:
        return [s for s in model(rest).services if s.name != "puppetca"]

    assert others("authority: {}\n") == others("")


def test_our_members_are_asked_for_every_service_on_their_own_port() -> None:
    ours = {s.name: s.servers[0].question for s in model("services:\n  smartproxy: {member_port: 9443}\n").services}
    assert {q.uri for q in ours.values()} == {f"/health/ready?service={n}" for n in ours}
    assert {(q.kind, q.port) for q in ours.values()} == {("ready", 9443)}


def test_ruby_members_are_asked_what_they_can_answer_and_never_get_a_proxy_header() -> None:
    for rest in ("", "edge: {proxy_protocol: required}\n"):
        theirs = {s.name: s.servers[1] for s in model(rest).services}
        assert (theirs["smartproxy"].question.kind, theirs["smartproxy"].question.uri) == ("alive", "/version")
        assert theirs["smartproxy"].question.over == "mutual"
        assert {theirs[n].question.kind for n in theirs if n != "smartproxy"} == {"connect"}
        assert not any(s.proxied or s.question.proxied for s in theirs.values())


def asked(rest: str = "") -> dict[str, tuple[int, str, str]]:
    """Port, URI and how it is asked, of the Ruby member's programs."""
    found = {s.name: s.servers[-1].question for s in model(rest).services if s.name != "smartproxy"}
    return {n: (q.port, q.proof.uri, q.over) for n, q in found.items()}


def test_a_program_behind_a_port_is_asked_and_not_only_connected_to() -> None:
    seed = asked("generation: seed\nservices:\n  mqtt: {listen_port: 1883, member_port: 1883}\n")
    assert seed == {
        "http": (443, "/pulp/api/v3/status/", "verified"),
        "https": (443, "/pulp/api/v3/status/", "verified"),
        "anaconda": (8000, "/version", "plain"),
        "rhsm": (8443, "", "verified"),
        "amqp": (5647, "", "plain"),
        "puppet": (8140, "/status/v1/simple", "tls"),
        "puppetca": (8140, "/status/v1/simple/ca", "tls"),
        "docker": (5000, "", "verified"),
        "mqtt": (1883, "", "mutual"),
    }
    assert asked() == {n: q for n, q in seed.items() if n in asked()}
    assert service("", "puppet").servers[1].question.proof.holds == "running"
    # Pulp may say 200 without its database.
    assert "false" in service("", "https").servers[1].question.proof.lacks


def test_our_members_ask_the_same_of_the_programs_beside_them_and_nothing_of_themselves() -> None:
    for s in model("authority: {}\n").services:
        ours, theirs = s.servers[0], s.servers[-1]
        assert (ours.beside is None) is (s.name in ("smartproxy", "anaconda", "puppetca"))
        assert ours.beside in (None, theirs.question)
        assert theirs.beside is None or theirs is ours


def test_port_80_is_asked_itself_where_443_is_not_offered_or_says_nothing_more() -> None:
    for override in (
        "https: {enabled: false}",
        "https: {check: tcp}",
        "http: {check: tcp}",
        "https: {destinations: signer}",
    ):
        assert asked(f"signer: Proxy01.test\nservices:\n  {override}\n")["http"] == (80, "", "plain")
    assert asked("services:\n  https: {member_port: 444}\n")["http"][0] == 444
    assert asked("services:\n  http: {check: {path: /pub/}}\n")["http"] == (80, "/pub/", "plain")


@pytest.mark.parametrize(
    ("check", "wanted"),
    [
        ("tcp", ("", "plain", 200, "", 1.0, None)),
        ("{ca_file: /etc/ca.pem}", ("/status/v1/simple", "verified", 200, "running", 3.0, "/etc/ca.pem")),
        ("{timeout_s: 9}", ("/status/v1/simple", "tls", 200, "running", 9.0, None)),
        ("{path: /x, status: 204}", ("/x", "tls", 204, "", 3.0, None)),
        ("{path: /x, over: mutual, holds: fine}", ("/x", "mutual", 200, "fine", 3.0, None)),
        ("{path: /x, over: plain, ca_file: /etc/ca.pem}", ("/x", "plain", 200, "", 3.0, "/etc/ca.pem")),
    ],
)
def test_the_cluster_file_says_what_a_program_is_asked(check: str, wanted: tuple[object, ...]) -> None:
    proof = service(f"services:\n  puppet: {{check: {check}}}\n", "puppet").servers[1].question.proof
    assert (proof.uri, proof.over, proof.status, proof.holds, proof.timeout_s, proof.ca_file) == wanted


def test_a_ruby_proxy_may_be_asked_something_else() -> None:
    question = service("services:\n  smartproxy: {check: {path: /features}}\n", "smartproxy").servers[1].question
    assert (question.kind, question.proof.uri, question.over) == ("connect", "/features", "mutual")


def test_a_new_services_program_is_asked_over_what_its_clients_speak() -> None:
    def added(traffic: str, check: str) -> tuple[str, str]:
        new = f"services:\n  new: {{listen_port: 7000, member_port: 7000, traffic: {traffic}, check: {check}}}\n"
        question = service(new, "new").servers[1].question
        return question.proof.uri, question.over

    assert added("tls", "{path: /ping}") == ("/ping", "tls")
    assert added("plain", "{path: /ping}") == ("/ping", "plain")
    assert added("tls", "{over: tls}") == ("", "tls")


def test_an_expected_answer_to_nothing_is_a_problem() -> None:
    new = "services:\n  new: {listen_port: 7000, member_port: 7000, check: {holds: fine}}\n  puppet: {check: {holds: x}}\n"
    (found,) = (p for p in problems(document(f"signer: Proxy01.test\n{new}")) if p.where != "signer")
    assert (found.where, "path" in found.sentence) == ("services.new.check.holds", True)


def test_our_members_get_a_proxy_header_only_where_they_listen_themselves() -> None:
    assert {s.name for s in model().services if s.servers[0].proxied} == {"smartproxy", "anaconda"}
    assert not [
        s for s in model("edge: {proxy_protocol: off}\n".replace("off", '"off"')).services if s.servers[0].proxied
    ]


def test_names_ids_and_weights_are_ready_for_consistent_hashing() -> None:
    first = service("", "https").servers[0]
    assert (first.name, first.id, first.weight) == ("proxy01.test", 11, 100)


def test_overrides_change_disable_and_add() -> None:
    it = model(
        "services:\n  http: {enabled: false}\n  https: {balance: leastconn, maxconn_per_member: 7}\n"
        "  mqtt: {listen_port: 1883, member_port: 1884, traffic: tls-tunnel}\n"
        "  amqp: {listen_port: 5647, member_port: 5647}\n"
    )
    assert it.service("http") is None
    https, mqtt, amqp = it.service("https"), it.service("mqtt"), it.service("amqp")
    assert https is not None
    assert mqtt is not None
    assert amqp is not None
    assert (https.balance, https.maxconn_per_member) == ("leastconn", 7)
    assert (mqtt.listen_port, mqtt.member_port, mqtt.timeouts.tunnel_s) == (1883, 1884, 21600.0)
    assert amqp.traffic == "tls-tunnel"


@pytest.mark.parametrize("generation", ["seed", "installer", "foremanctl"])
def test_a_known_service_beside_the_generation_keeps_its_traffic_unless_another_is_given(generation: str) -> None:
    def added(name: str, more: str = "") -> Service:
        ports = f"listen_port: 18{len(name)}3, member_port: 18{len(name)}4"
        return service(f"generation: {generation}\nservices:\n  {name}: {{{ports}{more}}}\n", name)

    for name, row in KNOWN.items():
        found = added(name)
        assert (found.label, found.traffic) == (row.label, row.traffic)
        assert (found.timeouts.tunnel_s is None) == (name not in ("mqtt", "amqp"))
    assert added("mqtt").balance == "leastconn"
    assert added("mqtt", ", traffic: tls, balance: source").timeouts.tunnel_s is None
    assert added("mqtt", ", traffic: tls, balance: source").balance == "source"
    assert (added("syslog").traffic, added("syslog", ", traffic: tls-tunnel").timeouts.tunnel_s) == ("tls", 21600.0)


def test_checks_slow_down_as_the_cluster_grows_but_not_beyond_five_seconds() -> None:
    def every_s(count: int) -> float:
        members = "".join(f"- {{id: {n}, name: m{n}.test, address: 10.1.0.{n}}}\n" for n in range(20, 20 + count))
        return model(members).services[0].check.every_s

    assert every_s(1) == 1.0
    assert 1.0 < every_s(30) < every_s(50)
    assert every_s(150) == 5.0


def test_an_unknown_service_is_named_with_its_line_and_the_nearest_known() -> None:
    (found,) = said("services:\n  htps: {balance: leastconn}\n")
    assert (found.line, "'https'" in found.sentence, "listen_port" in found.sentence) == (9, True, True)


def test_a_new_service_with_both_ports_is_no_problem() -> None:
    assert said("services:\n  mqtt: {listen_port: 1883, member_port: 1883}\n") == []
    assert len(said("services:\n  more: {listen_port: 1883}\n")) == 1


@pytest.mark.parametrize("second", ["puppet: {listen_port: 443}", "mqtt: {listen_port: 443, member_port: 1883}"])
def test_two_services_on_one_port_are_said_where_it_was_written(second: str) -> None:
    (found,) = said(f"services:\n  {second}\n")
    assert found.line == 9
    assert "https" in found.sentence
    assert "443" in found.sentence


def test_a_disabled_service_holds_no_port() -> None:
    assert said("services:\n  https: {enabled: false}\n  puppet: {listen_port: 443}\n") == []


def test_the_metrics_port_must_be_free() -> None:
    (found,) = said("balancers:\n- {address: 10.0.0.9, bind: 10.0.0.9, metrics_port: 8140}\n")
    assert (found.line, found.where, "puppet" in found.sentence) == (9, "balancers[0].metrics_port", True)


def test_a_balancer_may_not_take_its_members_ports() -> None:
    (found,) = said('balancers:\n- {address: 10.0.0.1, bind: "*"}\n')
    assert "Proxy01.test" in found.sentence
    assert said('balancers:\n- {address: 10.0.0.9, bind: "*"}\n') == []


SIGNERS = "puppetca would lead to 2 members, each a Puppet CA of its own; name the one that signs (signer: NAME)"


@pytest.mark.parametrize(
    "rest", ["", "signer: any\n", "generation: seed\n", "services:\n  puppetca: {balance: random}\n"]
)
def test_several_members_that_would_each_sign_out_of_a_ca_of_their_own_are_said(rest: str) -> None:
    (found,) = problems(document(rest))
    assert found.where == "signer"
    assert found.line == (8 if rest.startswith("signer") else 1)
    assert found.sentence.startswith(SIGNERS)


@pytest.mark.parametrize(
    "rest",
    [
        "signer: proxy02.test\n",
        "signer: proxy02.test\nservices:\n  puppetca: {destinations: all}\n",
        "authority: {}\n",
        "authority: {}\nsigner: any\n",
        "services:\n  puppetca: {enabled: false}\n",
    ],
)
def test_one_ca_or_none_is_no_problem(rest: str) -> None:
    assert problems(document(rest)) == []


def test_a_single_member_is_the_signer() -> None:
    alone = HEAD[: HEAD.rindex("- {id: 12")]
    assert problems(parse(alone)) == []
    assert len(problems(parse(f"{alone}- {{id: 12, name: proxy02.test, address: 10.0.0.2}}\n"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "services: 3",
        "services: [1]",
        "services: {1: 2}",
        "profile: 7",
        "generation: 7",
        "generation: [seed]",
        "profile: [seed]",
        "members: x",
        "balancers: [x, {}]",
    ],
)
def test_half_valid_files_are_spoken_of_without_a_crash(text: str) -> None:
    problems(parse(text))


def warned(rest: str) -> list[tuple[str, str]]:
    there = document(rest)
    return [(w.where, w.sentence) for w in warnings(there, there.parsed(ClusterFile))]


def test_the_generation_foremanctl_is_what_containers_listen_on() -> None:
    """docs/facts/deployment.md §5: Apache on the host, the Smart Proxy on 8443, and none of Puppet."""
    assert {(r.name, r.listen_port, r.member_port) for r in FOREMANCTL} == {
        ("http", 80, 80), ("https", 443, 443), ("smartproxy", 8443, 8443),
    }  # fmt: skip
    it = service("generation: foremanctl\n", "smartproxy")
    assert {(s.port, s.question.port) for s in it.servers} == {(8443, 8443)}


@pytest.mark.parametrize(("older", "generation"), [("seed", "seed"), ("current", "installer")])
def test_the_older_words_of_generations_mean_the_same(older: str, generation: str) -> None:
    assert model(f"profile: {older}\n") == model(f"generation: {generation}\n")
    assert said(f"profile: {older}\nservices: {{rhsm: {{}}}}\n") == said(
        f"generation: {generation}\nservices: {{rhsm: {{}}}}\n"
    )


@pytest.mark.parametrize("generation", ["seed", "installer", "foremanctl"])
def test_mqtt_is_there_in_any_generation_once_it_is_named(generation: str) -> None:
    rest = f"generation: {generation}\n"
    assert model(f"{rest}signer: proxy02.test\n").service("mqtt") is None
    assert said(f"{rest}services: {{mqtt: {{}}}}\n") == []
    it = service(f"{rest}signer: proxy02.test\nservices: {{mqtt: {{}}}}\n", "mqtt")
    assert (it.listen_port, it.member_port, it.traffic) == (1883, 1883, "tls-tunnel")


def test_what_members_bring_to_containers_is_there_once_it_is_named() -> None:
    rest = "generation: foremanctl\nsigner: proxy02.test\n"
    it = model(f"{rest}services: {{puppet: {{}}, puppetca: {{}}, anaconda: {{}}}}\n")
    assert {s.name for s in it.services} == {"http", "https", "smartproxy", "puppet", "puppetca", "anaconda"}
    # The Puppet CA that members are has its port without being named again.
    assert model("generation: foremanctl\nauthority: {}\n").service("puppetca") is not None
    assert model(rest).service("puppetca") is None


@pytest.mark.parametrize(
    ("generation", "name", "why"),
    [
        ("installer", "rhsm", "443 under /rhsm, and nothing listens on 8443"),
        ("installer", "amqp", "qpid and katello-agent"),
        ("installer", "docker", "images are answered on 443"),
        ("foremanctl", "rhsm", "8443 is the Smart Proxy's port"),
        ("foremanctl", "amqp", "qpid and katello-agent"),
        ("foremanctl", "docker", "images are answered on 443"),
    ],
)
def test_what_a_generation_has_no_listener_for_is_refused_with_the_reason(generation: str, name: str, why: str) -> None:
    rest = f"generation: {generation}\nservices:\n"
    (found,) = said(f"{rest}  {name}: {{}}\n")
    assert (found.line, found.where) == (10, f"services.{name}")
    assert f"is no service of generation {generation}: " in found.sentence
    assert why in found.sentence
    # Somebody's own program may answer it; that is said, unless a check says that somebody knows.
    both = f"{rest}  {name}: {{listen_port: 7001, member_port: 7001"
    assert said(f"{both}}}\n") == []
    ((where, sentence),) = warned(f"{both}}}\n")
    assert (where, why in sentence) == (f"services.{name}", True)
    assert warned(f"{both}, check: tcp}}\n") == []
    assert warned(f"{both}, enabled: false}}\n") == []


def test_the_smart_proxy_is_had_on_9090_and_8443_while_clients_move() -> None:
    moving = "services:\n  smartproxy: {also_listen_ports: [8443]}\n"
    for generation in ("installer", "foremanctl"):
        given = moving if generation == "installer" else moving.replace("8443", "9090")
        rest = f"generation: {generation}\n{given}"
        assert said(rest) == []
        assert sorted(service(f"{rest}signer: proxy02.test\n", "smartproxy").listen_ports) == [8443, 9090]
    (found,) = said(f"generation: seed\n{moving}")
    assert found.where == "services.smartproxy.also_listen_ports[0]"
    assert found.sentence == "port 8443 is where rhsm listens in generation seed"


@pytest.mark.parametrize(
    ("ports", "where"),
    [("[443]", "also_listen_ports[0]"), ("[9090]", "also_listen_ports[0]"), ("[7001, 7001]", "also_listen_ports[1]")],
)
def test_a_port_that_is_taken_leads_nowhere_else(ports: str, where: str) -> None:
    (found,) = said(f"services:\n  smartproxy: {{also_listen_ports: {ports}}}\n")
    assert found.where == f"services.smartproxy.{where}"


def test_a_member_may_have_a_port_of_its_own_while_it_moves() -> None:
    text = (
        HEAD.replace("{id: 12,", "{id: 12, ports: {smartproxy: 8443, https: 8444},")
        + "services: {mqtt: {}}\nsigner: any\n"
    )
    it = modelled(parse(text).parsed(ClusterFile))
    by_name = {s.name: {v.id: (v.port, v.question.port) for v in s.servers} for s in it.services}
    assert by_name["smartproxy"][12] == (8443, 8443)
    assert by_name["https"][12][0] == 8444
    others = [number for number in by_name["smartproxy"] if number != 12]
    assert {by_name["smartproxy"][n] for n in others} == {(9090, 9090)}
    smartproxy = it.service("smartproxy")
    assert smartproxy is not None
    assert [smartproxy.port_on(s.name) for s in smartproxy.servers] == [s.port for s in smartproxy.servers]


@pytest.mark.parametrize(
    ("ports", "wanted"),
    [
        ("https: 1443", (80, 1443)),
        # Port 80 is believed where 443 answers, and nothing of 443 is asked on a plain port.
        ("http: 8080", (8080, 443)),
        ("http: 8080, https: 1443", (8080, 1443)),
    ],
)
@pytest.mark.parametrize("kind", ["muster", "foreman"])
def test_what_speaks_for_another_service_is_asked_on_its_own_port(
    ports: str, wanted: tuple[int, int], kind: str
) -> None:
    text = HEAD.replace("{id: 12,", f"{{id: 12, ports: {{{ports}}},").replace("kind: foreman", f"kind: {kind}")
    service = modelled(parse(text).parsed(ClusterFile)).service("http")
    assert service is not None
    it = next(s for s in service.servers if s.id == 12)
    asked = it.beside or it.question
    assert (it.port, asked.port, asked.proof.uri) == (*wanted, "/pulp/api/v3/status/")


def own(ports: str, rest: str) -> list[Problem]:
    """What is wrong when the member that is ours has ports of its own."""
    return problems(parse(HEAD.replace("10.0.0.1}", f"10.0.0.1, ports: {{{ports}}}}}") + rest))


def test_a_member_with_ports_of_its_own_cannot_listen_twice_on_one_either() -> None:
    signer = "signer: proxy02.test\n"
    (found,) = own("https: 9090", f"content: {{}}\n{signer}")
    assert (found.where, "9090, for smartproxy and for https" in found.sentence) == ("members[0].ports.https", True)
    assert own("https: 9090", signer) == []
    (found,) = own("puppetca: 9090", "authority: {}\n")
    assert (found.where, "for smartproxy and for puppetca" in found.sentence) == ("members[0].ports.puppetca", True)
    # What would clash where all have the same ports is no clash where the only member of ours has another.
    assert own("https: 1443", f"content: {{}}\nservices: {{https: {{member_port: 9090}}}}\n{signer}") == []


def test_a_port_of_puppetca_counts_before_the_authoritys_when_ports_are_compared() -> None:
    assert said_of_ca("authority: {port: 9090}\nservices: {puppetca: {member_port: 8141}}\n") == []
    (found,) = said_of_ca("authority: {}\nservices: {puppetca: {member_port: 9090}}\n")
    assert found.where == "services.puppetca.member_port"


def said_of_ca(rest: str) -> list[Problem]:
    return problems(document(rest))


def test_own_ports_count_on_a_host_of_both_kinds() -> None:
    moved = "http: 1080, https: 1443, anaconda: 18000, puppet: 18140, puppetca: 18141, smartproxy: 19090"
    balancer = "balancers:\n- {{address: 10.0.0.1, metrics_port: {}}}\nsigner: proxy02.test\n"
    assert own(moved, balancer.format(9101)) == []
    (found,) = own(moved, balancer.format(1443))
    assert (found.where, "member Proxy01.test's" in found.sentence) == ("balancers[0].metrics_port", True)


def test_what_is_behind_members_is_no_port_of_one_member_alone() -> None:
    rest = "content: {pulp_content_url: 'https://{address}:1443'}\nsigner: proxy02.test\n"
    (found,) = own("https: 1443", rest)
    assert "leads back to https" in found.sentence
    (found,) = said(
        "content: {pulp_content_url: 'https://cluster.test:1443'}\nservices: {https: {also_listen_ports: [1443]}}\n"
    )
    assert "leads back to https" in found.sentence


@pytest.mark.parametrize(
    "rest",
    [
        "balancers:\n- {address: 10.0.0.9, metrics_port: [1]}\n",
        "balancers:\n- {address: 10.0.0.1, metrics_port: {}}\n",
        "authority: {port: [1]}\n",
    ],
)
def test_ports_that_are_none_are_no_stumbling_block(rest: str) -> None:
    own("https: [1], http: {}", rest)


def test_a_member_s_own_port_that_leads_nobody_is_warned_of() -> None:
    text = HEAD.replace("{id: 12,", "{id: 12, ports: {anaconda: 12},") + "signer: proxy02.test\n"
    parsed = parse(text + "services: {anaconda: {enabled: false}}\n")
    (found,) = warnings(parsed, parsed.parsed(ClusterFile))
    assert (found.where[-14:], "switched off" in found.sentence) == ("ports.anaconda", True)


def test_two_members_on_one_host_want_ports_of_their_own() -> None:
    text = HEAD.replace("10.0.0.2", "10.0.0.1") + "signer: proxy02.test\n"
    parsed = parse(text)
    (found,) = warnings(parsed, parsed.parsed(ClusterFile))
    assert ("address" in found.where, "port 80" in found.sentence) == (True, True)


def test_a_member_has_its_own_port_also_where_no_client_is_led_to_it() -> None:
    text = HEAD.replace("10.0.0.1}", "10.0.0.1, ports: {puppetca: 18140}}") + "signer: proxy02.test\n"
    puppetca = modelled(parse(text).parsed(ClusterFile)).service("puppetca")
    assert puppetca is not None
    assert [s.name for s in puppetca.servers] == ["proxy02.test"]
    assert (puppetca.port_on("PROXY01.test"), puppetca.port_on("proxy02.test")) == (18140, 8140)


def test_a_member_s_own_port_is_of_a_service() -> None:
    text = HEAD.replace("{id: 12,", "{id: 12, ports: {smartprox: 8443},") + "signer: proxy02.test\n"
    (found,) = problems(parse(text))
    assert found.where.endswith("ports.smartprox")
    assert "did you mean 'smartproxy'?" in found.sentence


@pytest.mark.parametrize(
    ("rest", "where", "sentence"),
    [
        ("signer: proxy02.test\nservices: {mqtt: {traffic: tls}}\n", "services.mqtt.traffic", "tls-tunnel"),
        (
            "signer: proxy02.test\nservices: {puppetca: {destinations: all}}\n",
            "services.puppetca.destinations",
            "sign nothing",
        ),
        ("signer: proxy02.test\nmin_ready: 2\n", "min_ready", "none of the 2 can be drained"),
        ("signer: proxy02.test\nmin_ready: 3\n", "min_ready", "more than the 2 members"),
    ],
)
def test_what_is_valid_and_hardly_meant_is_warned_of(rest: str, where: str, sentence: str) -> None:
    ((found, said_of_it),) = warned(rest)
    assert (found, sentence in said_of_it) == (where, True)


def test_images_want_one_ruby_member_a_client() -> None:
    # Of the two members one is a Ruby proxy.
    for balance, count in (("roundrobin", 1), ("source", 0)):
        assert len(warned(f"services: {{https: {{balance: {balance}}}}}\n")) == count
    ours = parse(HEAD.replace(", kind: foreman", "") + "services: {https: {balance: roundrobin}}\n")
    assert warnings(ours, ours.parsed(ClusterFile)) == []
