from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.balancer.model import Balancing
from muster.cluster.file import Balancer, ClusterFile
from muster.derived.nginx import OUTPUT, NginxPaths, lacks, rendered
from muster.derived.output import Document
from muster.kernel.errors import Misconfigured, MusterError, Rejected, Unavailable
from tests.unit.balancer.test_model import document

PATHS = NginxPaths(Path("/run/muster"))


def text(rest: str = "", *, bind: str = "*", dual_stack: bool = True, balancing: Balancing | None = None) -> str:
    of = document(rest).parsed(ClusterFile)
    which = Balancer.model_validate({"address": "10.0.0.9", "bind": bind})
    return rendered(of, balancing or modelled(of), which=which, paths=PATHS, dual_stack=dual_stack)


def blocks(of: str, head: str) -> list[list[str]]:
    found, lines = [], of.splitlines()
    for n, line in enumerate(lines):
        if line == f"  {head} {{":
            found.append([x.strip() for x in lines[n + 1 : lines.index("  }", n)]])
    return found


def test_the_seed_listens_on_the_seeds_nine_ports() -> None:
    listened = [
        x.split()[1].rstrip(";") for x in text("generation: seed\n", dual_stack=False).splitlines() if "listen " in x
    ]
    assert listened == ["80", "8000", "443", "8443", "5647", "8140", "8141", "9090", "5000"]


@pytest.mark.parametrize(
    ("balance", "line"),
    [
        ("source", "hash $remote_addr consistent;"),
        ("leastconn", "least_conn;"),
        ("random", "random;"),
    ],
)
def test_each_way_to_spread_has_nginxs_word(balance: str, line: str) -> None:
    (upstream,) = blocks(text(f"services:\n  puppet: {{balance: {balance}}}\n"), "upstream puppet")
    assert upstream[1] == line
    (plain,) = blocks(text(), "upstream puppet")
    assert [x.split()[0] for x in plain] == ["zone", "server", "server"]


def test_members_stand_with_their_address_and_limit() -> None:
    (upstream,) = blocks(text("services:\n  puppet: {maxconn_per_member: 7}\n"), "upstream puppet")
    assert upstream[1] == (
        "server 10.0.0.1:8140 weight=100 max_fails=3 fail_timeout=5s max_conns=7; # proxy01.test, id 11"
    )


def test_only_tls_waits_for_a_client_hello_and_what_has_none_goes_nowhere() -> None:
    of = text()
    (gate,) = blocks(of, "map $ssl_preread_protocol $to_https")
    assert gate == ['"" "";', "default https;"]
    servers = {x[0].split()[1].rstrip(";"): x for x in blocks(of, "server")}
    assert "proxy_pass $to_https;" in servers["443"]
    assert "ssl_preread on;" in servers["443"]
    assert servers["80"] == ["listen 80;", "listen [::]:80 ipv6only=on;", "proxy_timeout 60s;", "proxy_pass http;"]


def test_tunnels_live_long_and_notice_dead_peers() -> None:
    (amqp,) = [x for x in blocks(text("generation: seed\n"), "server") if " 5647" in x[0]]
    assert amqp[0].endswith("so_keepalive=60s:10s:3;")
    assert {"proxy_timeout 21600s;", "proxy_socket_keepalive on;"} <= set(amqp)


def test_no_proxy_header_is_sent_and_members_that_demand_one_are_refused() -> None:
    assert "proxy_protocol" not in text()
    with pytest.raises(Misconfigured, match="version 2"):
        text("edge: {proxy_protocol: required}\n")


def test_what_nginx_lacks_is_said_in_the_files_head() -> None:
    rest = "balancers: [{address: 10.0.0.9, metrics_port: 9101}]\n"
    of = document(rest).parsed(ClusterFile)
    said = lacks(of, of.balancers[0])
    head = rendered(of, modelled(of), which=of.balancers[0], paths=PATHS)
    for sentence in said:
        assert f"# {sentence}\n" in head
    for word in ("not asked", "client's: nginx", "metrics"):
        assert any(word in s for s in said)


@pytest.mark.parametrize(
    ("bind", "dual_stack", "listen"),
    [
        ("*", True, "80"),
        ("*", True, "[::]:80 ipv6only=on"),
        ("*", False, "80"),
        ("10.0.0.9", True, "10.0.0.9:80"),
        ("fd00::1", True, "[fd00::1]:80"),
    ],
)
def test_bind_says_where_nginx_listens(bind: str, dual_stack: bool, listen: str) -> None:
    assert f"    listen {listen};\n" in text(bind=bind, dual_stack=dual_stack)


@pytest.mark.parametrize("bad", ["x; } evil {", "a b", "x#y", "$host", 'x"', "{", "", "x\ny"])
def test_nothing_hostile_reaches_the_file(bad: str) -> None:
    good = modelled(document().parsed(ClusterFile))
    first = good.services[0]
    for spoilt in (
        replace(good, cluster=bad),
        replace(good, services=(replace(first, name=bad),)),
        replace(good, services=(replace(first, servers=(replace(first.servers[0], name=bad),)),)),
        replace(good, services=(replace(first, servers=(replace(first.servers[0], address=bad),)),)),
    ):
        with pytest.raises(Rejected):
            text(balancing=spoilt)
    of = document().parsed(ClusterFile)
    which = Balancer(address="10.0.0.9")
    for paths in (NginxPaths(Path(f"/run/{bad}/x y")), NginxPaths(Path("/run"), (f"/etc/{bad} *.conf",))):
        with pytest.raises(Rejected):
            rendered(of, good, which=which, paths=paths)


def test_the_ports_of_a_service_lead_to_the_same_servers() -> None:
    it = text("services: {smartproxy: {also_listen_ports: [8443]}}\n", dual_stack=False)
    (both,) = [x for x in blocks(it, "server") if "listen 9090;" in x]
    assert [line for line in both if line.startswith("listen ")] == ["listen 9090;", "listen 8443;"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("complaint", "kind", "said"),
    [
        ("[emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)", Unavailable, "run this as root"),
        ('[emerg] unknown directive "strem"', Rejected, 'nginx refuses it: [emerg] unknown directive "strem"'),
    ],
)
async def test_a_port_that_the_account_may_not_open_is_no_fault_of_the_file(
    complaint: str, kind: type[MusterError], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx -t opens the ports it is told of."""
    nginx = tmp_path / "nginx"
    nginx.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
    nginx.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert OUTPUT.check is not None
    with pytest.raises(kind, match=re.escape(said)):
        await OUTPUT.check.asked(tmp_path, [Document("nginx.conf", "", "nginx")])
