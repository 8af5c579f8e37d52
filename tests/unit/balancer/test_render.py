from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from muster.app.offers import modelled
from muster.balancer.generations import Proof
from muster.balancer.haproxy.layout import Layout
from muster.balancer.haproxy.render import RuntimePaths, generation, is_untouched, rendered
from muster.balancer.haproxy.version import HAProxyVersion
from muster.cluster.file import Balancer, ClusterFile
from muster.cluster.sections import ServiceCheck
from muster.kernel.errors import Misconfigured, Rejected, Unsupported
from tests.unit.balancer.test_model import document

PATHS = RuntimePaths(Path("/run/muster"), Path("/etc/muster/pki"))
NEW = HAProxyVersion(2, 8)


def text(
    rest: str = "", *, address: str = "10.0.0.9", bind: str = "*", paths: RuntimePaths = PATHS, **more: int
) -> str:
    which = Balancer.model_validate({"address": address, "bind": bind, **more})
    return rendered(modelled(document(rest).parsed(ClusterFile)), which=which, runtime=paths, version=NEW)


def section(of: str, head: str) -> list[str]:
    lines = of.splitlines()
    start = lines.index(head) + 1
    end = next((n for n in range(start, len(lines)) if not lines[n].startswith(" ")), len(lines))
    return [line.strip() for line in lines[start:end]]


def servers(of: str, head: str) -> list[str]:
    return [line for line in section(of, head) if line.startswith("server ")]


def test_one_line_and_one_twin_for_puppetca_when_the_signer_has_a_name() -> None:
    it = text("signer: Proxy01.test\n")
    (line,) = servers(it, "backend puppetca from tcp_base")
    assert line.startswith("server proxy01.test 10.0.0.1:8140 id 11 weight 100 ")
    assert len(servers(it, "backend puppetca_panic from tcp_base")) == 1


def test_clients_are_counted_by_address_or_ipv6_network_and_no_service_takes_all() -> None:
    for name in ("smartproxy", "anaconda"):
        lines = section(text(maxconn=4000), f"frontend {name}_in from tcp_base")
        assert "maxconn 3000" in lines
        assert "tcp-request connection reject if { src,ipmask(32,64),table_conn_cur(source_guard) ge 256 }" in lines
        assert "tcp-request connection track-sc0 src,ipmask(32,64) table source_guard" in lines
    off = ", ".join(f"{s}: {{enabled: false}}" for s in ("http", "https", "puppet", "puppetca", "anaconda"))
    alone = section(text(f"services: {{{off}}}\n", maxconn=4000), "frontend smartproxy_in from tcp_base")
    assert "maxconn 4000" in alone


def test_source_is_never_rendered_without_a_consistent_hash() -> None:
    lines = [line.strip() for line in text("generation: seed\n").splitlines()]
    after = [lines[n + 1] for n, line in enumerate(lines) if line == "balance source"]
    assert after == ["hash-type consistent"] * 2


def test_the_seed_listens_on_the_seeds_nine_ports() -> None:
    ports = [port for _, port in Layout.of(text("generation: seed\n")).listeners]
    assert ports == [80, 8000, 443, 8443, 5647, 8140, 8141, 9090, 5000]


def test_our_members_checks_are_mutual_tls_on_their_own_port_with_the_clusters_name() -> None:
    line = servers(text(), "backend anaconda from tcp_base")[0]
    assert " send-proxy-v2 check port 9090 check-send-proxy check-ssl check-sni cluster.test verify required " in line
    assert " ca-file /etc/muster/pki/ca.pem crt /etc/muster/pki/check.pem " in line
    assert "observe layer4 error-limit 3 on-error mark-down" in line


def test_a_version_one_header_is_never_sent() -> None:
    for proxy in ("accepted", "required", '"off"'):
        for line in text(f"generation: seed\nedge: {{proxy_protocol: {proxy}}}\n").splitlines():
            assert "check-send-proxy" not in line or "send-proxy-v2" in line.split()


def test_ruby_members_get_no_header_in_any_backend() -> None:
    lines = [x for x in text("edge: {proxy_protocol: required}\n").splitlines() if " server proxy02.test " in x]
    assert lines
    assert not [x for x in lines if "send-proxy" in x]


def test_mixed_members_are_asked_different_questions() -> None:
    it = text()
    ours, theirs = servers(it, "backend smartproxy from tcp_base")
    assert " check-ssl " in ours
    assert "track smartproxy_alive_probe/proxy02.test" in theirs
    assert any("uri /version " in line for line in section(it, "backend smartproxy_alive_probe from tcp_base"))


def test_both_sides_of_a_track_stop_softly_alike() -> None:
    it = text()
    for line in it.splitlines():
        if " track " in line:
            probe = line.partition(" track ")[2].partition("/")[0]
            for name in (probe, probe.partition("_")[0]):
                head = next(x for x in it.splitlines() if x.startswith(f"backend {name} from "))
                assert "http-check disable-on-404" in section(it, head)


RUBIES = "signer: Proxy01.test\nservices:\n  mqtt: {listen_port: 1883, member_port: 1883}\n"


def rubies(rest: str = RUBIES) -> str:
    of = document(rest).parsed(ClusterFile)
    members = tuple(m.model_copy(update={"kind": "foreman"}) for m in of.members)
    which = Balancer(address="10.0.0.9")
    return rendered(modelled(of.model_copy(update={"members": members})), which=which, runtime=PATHS, version=NEW)


def test_a_ruby_members_programs_are_asked_and_not_only_connected_to() -> None:
    it = rubies()
    puppet, https = section(it, "backend puppet from tcp_base"), section(it, "backend https from tcp_base")
    assert "http-check send meth GET uri /status/v1/simple ver HTTP/1.1 hdr host cluster.test" in puppet
    assert [x for x in puppet if x.startswith(("timeout", "option"))] == ["timeout check 3s", "option httpchk"]
    assert [x for x in puppet if "expect" in x] == [
        "http-check expect status 200",
        "http-check expect string 'running'",
    ]
    wanted = """http-check expect ! string '"database_connection":{"connected":false}'"""
    assert "http-check send meth GET uri /pulp/api/v3/status/ ver HTTP/1.1 hdr host cluster.test" in https
    assert wanted in https
    http = servers(it, "backend http from tcp_base")[0]
    assert (
        " check port 443 check-ssl check-sni cluster.test verify required ca-file /etc/muster/pki/ca.pem inter" in http
    )
    assert " check inter " in servers(it, "backend anaconda from tcp_base")[0]


def test_ruby_members_may_have_certificates_of_the_site_s_ca_and_ours_may_not() -> None:
    site = RUBIES + "foreman: {ca_file: /etc/site-ca.pem}\n"
    assert " verify required ca-file /run/muster/site-ca.pem crt" in rubies(site)
    assert "/etc/muster/pki/ca.pem" not in rubies(site)
    both = text("foreman: {ca_file: /etc/site-ca.pem}\n").splitlines()
    trusting = [x for x in both if "/health/ready" in x or "ca-file" in x]
    assert {x.split(" ca-file ")[1].split()[0] for x in trusting if " ca-file " in x} == {
        "/etc/muster/pki/ca.pem", "/run/muster/site-ca.pem",
    }  # fmt: skip


def test_whose_certificate_is_not_known_is_not_verified_and_ours_is_shown_only_where_it_is_wanted() -> None:
    def line(of: str, head: str) -> str:
        return servers(of, head)[0]

    it = rubies()
    assert " check-ssl check-sni cluster.test verify none inter" in line(it, "backend puppet from tcp_base")
    assert " verify required ca-file /etc/muster/pki/ca.pem inter" in line(it, "backend https from tcp_base")
    for head in ("backend smartproxy from tcp_base", "backend mqtt from tcp_long"):
        assert " verify required ca-file /etc/muster/pki/ca.pem crt /etc/muster/pki/check.pem inter" in line(it, head)
    known = rubies("signer: Proxy01.test\nservices:\n  puppet: {check: {ca_file: /etc/puppet/ca.pem}}\n")
    assert " verify required ca-file /etc/puppet/ca.pem inter" in line(known, "backend puppet from tcp_base")


def test_a_handshake_is_enough_where_there_is_no_path() -> None:
    assert "option httpchk" not in section(rubies(), "backend mqtt from tcp_long")


def test_404_drains_members_of_ours_only() -> None:
    it = rubies()
    assert "disable-on-404" not in it
    assert "http-check disable-on-404" in section(text("signer: Proxy01.test\n"), "backend puppetca from tcp_base")


def test_a_mixed_services_programs_are_asked_in_a_backend_of_their_own() -> None:
    it = text()
    assert "track puppet_connect_probe/proxy02.test" in servers(it, "backend puppet from tcp_base")[1]
    probe = section(it, "backend puppet_connect_probe from tcp_base")
    assert "http-check send meth GET uri /status/v1/simple ver HTTP/1.1 hdr host cluster.test" in probe
    assert "timeout check 3s" not in section(it, "backend puppet from tcp_base")


@pytest.mark.parametrize("bad", ["/x y", "/x\nserver evil 1.2.3.4:1", "/x'", '/"', "/${HOME}", "/#", "x"])
def test_no_path_can_break_a_line(bad: str) -> None:
    refuses_to_ask(lambda proof: [replace(proof, uri=bad), replace(proof, ca_file=f"/etc/{bad} ", over="verified")])


def refuses_to_ask(changed: Callable[[Proof], list[Proof]]) -> None:
    """Each of these proofs of a program, given past the settings, is refused when it is rendered."""
    good = modelled(document().parsed(ClusterFile))
    first = next(s for s in good.services if s.name == "puppet")
    asked = first.servers[1].question
    for proof in changed(asked.proof):
        server = replace(first.servers[1], question=replace(asked, proof=proof))
        with pytest.raises(Rejected):
            rendered(
                replace(good, services=(replace(first, servers=(server,)),)),
                which=Balancer(address="10.0.0.9"),
                runtime=PATHS,
                version=NEW,
            )


@pytest.mark.parametrize("bad", ["it's", "a\nb", "\\", "\x07"])
def test_no_text_of_an_answer_can_end_its_quotes(bad: str) -> None:
    refuses_to_ask(lambda proof: [replace(proof, holds=bad), replace(proof, lacks=bad)])
    with pytest.raises(ValidationError):
        ServiceCheck(path="/", holds=bad)


def test_every_service_falls_back_to_unchecked_servers() -> None:
    it = text("generation: seed\n")
    for row in modelled(document("generation: seed\n").parsed(ClusterFile)).services:
        defaults = "tcp_long" if row.traffic == "tls-tunnel" else "tcp_base"
        rule = f"use_backend {row.name}_panic if {{ nbsrv({row.name}) lt 1 }}"
        assert rule in section(it, f"frontend {row.name}_in from {defaults}")
        assert not [x for x in servers(it, f"backend {row.name}_panic from {defaults}") if "check" in x or "track" in x]


def test_only_tls_waits_for_a_client_hello() -> None:
    it = text()
    gate = "tcp-request content accept if { req.ssl_hello_type 1 }"
    assert gate in section(it, "frontend https_in from tcp_base")
    assert gate not in section(it, "frontend http_in from tcp_base")


@pytest.mark.parametrize(
    ("settings", "idle"),
    [("first_byte_timeout_s: 300", "310s"), ("stall_timeout_s: 90", "100s"), ("services: [https, http]", "70s")],
)
def test_where_members_answer_content_silence_may_last_as_long_as_they_wait(settings: str, idle: str) -> None:
    it = text(f"content: {{{settings}}}\n")
    for name in ("https", "http"):
        assert f"timeout client {idle}" in section(it, f"frontend {name}_in from tcp_base")
        for backend in (name, f"{name}_panic"):
            assert f"timeout server {idle}" in section(it, f"backend {backend} from tcp_base")
    assert f"timeout client {idle}" not in section(it, "frontend smartproxy_in from tcp_base")
    short = text("content: {first_byte_timeout_s: 20, stall_timeout_s: 20}\n")
    assert "timeout client" not in section(short, "frontend https_in from tcp_base")


def test_tunnels_live_long_and_notice_dead_peers() -> None:
    it = text("generation: seed\n")
    assert "timeout tunnel 21600s" in section(it, "defaults tcp_long")
    for line in servers(it, "backend amqp from tcp_long"):
        assert "tcp-ut 60s on-marked-down shutdown-sessions" in line
    assert "bind :5647,:::5647 v6only tcp-ut 60s" in section(it, "frontend amqp_in from tcp_long")


@pytest.mark.parametrize(("address", "count"), [("127.0.0.9", 2), ("127.0.0.1", 0), ("10.0.0.9", 0), ("::1", 0)])
def test_only_another_loopback_address_is_a_source(address: str, count: int) -> None:
    assert text(address=address).count(f"  source {address}\n") == count


def test_the_state_file_goes_with_the_text() -> None:
    assert "server-state-file /run/muster/servers.state" in section(text(), "global")
    assert text().count("load-server-state-from-file global") == 2


def test_metrics_are_served_only_when_asked_for() -> None:
    assert "prometheus-exporter" not in text()
    assert "bind :9404,:::9404 v6only" in section(text(metrics_port=9404), "frontend balancer_metrics from http_base")


def test_the_generation_is_the_hash_of_the_rest() -> None:
    it = text()
    assert it == text()
    assert is_untouched(it)
    assert not is_untouched(it.replace("maxconn 4000", "maxconn 4001"))
    assert generation(it) != generation(text("generation: seed\n"))
    assert generation("global\n") is None
    assert not is_untouched("global\n")


@pytest.mark.parametrize("path", ["/run/a b", "/run/a#b", '/run/a"b', "/run/a\nb", "/run/a'b", "/run/$HOME", "run/x"])
def test_paths_that_mean_something_to_haproxy_are_refused(path: str) -> None:
    with pytest.raises(Rejected):
        text(paths=RuntimePaths(Path(path), Path("/pki")))
    with pytest.raises(Rejected):
        text(paths=RuntimePaths(Path("/run"), Path(path)))


def test_a_path_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(Misconfigured, match="too long"):
        text(paths=RuntimePaths(Path("/run/" + 90 * "x"), Path("/pki")))


@pytest.mark.parametrize("name", ["proxy01.test\n server evil 1.2.3.4:1", "a b", "x#y", 'x"y', "", "${HOME}"])
def test_hostile_member_names_do_not_get_past_the_cluster_file_or_the_renderer(name: str) -> None:
    good = modelled(document().parsed(ClusterFile))
    bad_server = replace(good.services[0].servers[0], name=name)
    bad = replace(good, services=(replace(good.services[0], servers=(bad_server,)),))
    with pytest.raises(Rejected):
        rendered(bad, which=Balancer(address="10.0.0.9"), runtime=PATHS, version=NEW)
    bad_server = replace(good.services[0].servers[0], address=name)
    bad = replace(good, services=(replace(good.services[0], servers=(bad_server,)),))
    with pytest.raises(Rejected):
        rendered(bad, which=Balancer(address="10.0.0.9"), runtime=PATHS, version=NEW)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", (2, 6, 12)),
        ("HAProxy version 2.8.25-5cf5d0683 2026/06/26", (2, 8, 25)),
        ("HAProxy version 3.2-dev5-abc 2026", (3, 2, 5)),
        ("HAProxy version 3.0.0 x", (3, 0, 0)),
    ],
)
def test_versions_are_read_as_haproxy_says_them(said: str, version: tuple[int, int, int]) -> None:
    assert HAProxyVersion.parse(said) == HAProxyVersion(*version)


@pytest.mark.parametrize("said", ["", "nginx 1.2", "HAProxy version 2.2.9 x"])
def test_too_old_or_other_programs_are_unsupported(said: str) -> None:
    with pytest.raises(Unsupported):
        HAProxyVersion.parse(said)


def test_the_ports_of_a_service_lead_to_the_same_servers() -> None:
    it = text("services: {smartproxy: {also_listen_ports: [8443, 7443]}}\nsigner: proxy02.test\n")
    binds = [one for one in section(it, "frontend smartproxy_in from tcp_base") if one.startswith("bind ")]
    assert [one.split()[1].rpartition(":")[2] for one in binds] == ["9090", "8443", "7443"]
    assert {port for _, port in Layout.of(it).listeners} >= {9090, 8443, 7443}
