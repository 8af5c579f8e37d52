from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.app.settings import checked
from muster.balancer.haproxy.found import found
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.version import HAProxyVersion
from muster.balancer.model import Balancing
from muster.foreman.ruby_settings import RubySettings, read
from muster.kernel.errors import Rejected
from muster.observed.adoption.content import Adoption, Told, adopted
from tests.servers.hand_made import FOUR, NINE, haproxy_cfg, settings_of

ADDRESS = "smartproxy.example.net"
HOSTS = {"proxy01.example.net": "192.0.2.11", "proxy02.example.net": "192.0.2.12"}
FIRST, SECOND = HOSTS


def adoption(text: str, settings: Mapping[str, RubySettings] = {}, **told: Any) -> Adoption:
    given: dict[str, Any] = {"address": ADDRESS, "members": HOSTS, "balancer": ("lb", "192.0.2.10"), **told}
    return adopted(found(text), settings, Told(**given))


def balancing(it: Adoption, directory: Path) -> Balancing:
    """What the cluster file makes of it, which must be valid and render."""
    (directory / "cluster.yaml").write_text(yaml.safe_dump(dict(it.content)))
    cluster, problems = checked(directory / "cluster.yaml")
    assert problems == []
    assert cluster is not None
    made = modelled(cluster)
    runtime = RuntimePaths(directory / "run", directory / "pki")
    assert rendered(made, which=cluster.balancers[0], runtime=runtime, version=HAProxyVersion(2, 6, 12))
    return made


def offered(made: Balancing) -> dict[str, tuple[tuple[int, ...], int, str, list[str]]]:
    return {
        s.name: (s.listen_ports, s.member_port, s.balance, [one.address for one in s.servers]) for s in made.services
    }


def listen(*sections: str) -> str:
    return "\n".join(sections) + "\n"


def section(name: str, bind: str, *lines: str, port: int = 443, hosts: Sequence[str] = tuple(HOSTS.values())) -> str:
    servers = [f"server s{n} {host}:{port} check" for n, host in enumerate(hosts)]
    return "\n  ".join([f"listen {name}", f"bind {bind}", *lines, *servers])


@pytest.mark.parametrize(
    ("rows", "generation", "called"),
    [
        (NINE, "seed", {"scap": "smartproxy", "puppet-ca": "puppetca"}),
        (FOUR, "installer", {"smart-proxy": "smartproxy"}),
    ],
)
def test_the_balancers_of_2018_and_2025_become_the_same_services(
    rows: tuple[tuple[str, int, int, str, bool], ...], generation: str, called: dict[str, str], tmp_path: Path
) -> None:
    it = adoption(haproxy_cfg(rows, list(HOSTS.values())))
    assert it.content["generation"] == generation
    everywhere, first = list(HOSTS.values()), list(HOSTS.values())[:1]
    # amqp was balanced by turns, and so it stays.
    assert offered(balancing(it, tmp_path)) == {
        called.get(name, name): ((port,), member_port, balance, first if only_first else everywhere)
        for name, port, member_port, balance, only_first in rows
    }
    assert [(m["name"], m["address"], m["kind"]) for m in it.content["members"]] == [
        (name, address, "foreman") for name, address in HOSTS.items()
    ]
    assert it.content.get("signer") == (FIRST if generation == "seed" else None)


def test_what_a_generation_has_and_haproxy_not_is_switched_off() -> None:
    it = adoption(haproxy_cfg(FOUR, list(HOSTS.values())))
    assert it.content["services"] == {"puppet": {"enabled": False}, "puppetca": {"enabled": False}}
    assert it.remarks["services", "puppet"] == "haproxy.cfg has nothing on port 8140"


def test_8443_alone_is_the_smart_proxy_in_containers(tmp_path: Path) -> None:
    it = adoption(listen(section("web", ":443"), section("proxy", ":8443", port=8443)))
    assert it.content["generation"] == "foremanctl"
    assert offered(balancing(it, tmp_path))["smartproxy"][:2] == ((8443,), 8443)


@pytest.mark.parametrize(
    ("port", "generation", "ports"), [(9090, "installer", (9090, 8443)), (8443, "foremanctl", (8443, 9090))]
)
def test_9090_and_8443_to_one_program_are_one_service(
    port: int, generation: str, ports: tuple[int, ...], tmp_path: Path
) -> None:
    it = adoption(listen(section("old", ":9090", port=port), section("new", ":8443", port=port)))
    assert it.content["generation"] == generation
    assert offered(balancing(it, tmp_path))["smartproxy"][:2] == (ports, port)


def test_9090_and_8443_to_different_programs_are_two_of_2018() -> None:
    it = adoption(listen(section("a", ":9090", port=9090), section("b", ":8443", port=8443)))
    assert it.content["generation"] == "seed"
    assert adoption(listen(section("b", ":8443", port=8443)), generation="seed").content["generation"] == "seed"


def test_differences_from_the_generation_are_overrides(tmp_path: Path) -> None:
    it = adoption(
        listen(
            section("web", ":443,:10443", "balance leastconn", port=8444),
            section("puppet", ":8140", port=8140),
            section("ca", ":8141", port=8140, hosts=["192.0.2.12"]),
            section("brokers", ":1883", "timeout tunnel 6h", "balance leastconn", port=1883),
            section('"Site\'s own"', ":7777", port=7000),
        )
    )
    services = it.content["services"]
    assert services["https"] == {"also_listen_ports": [10443], "member_port": 8444, "balance": "leastconn"}
    assert "puppet" not in services
    assert it.content["signer"] == SECOND
    assert services["mqtt"] == {"enabled": True}
    assert services["site-s-own"] == {
        "listen_port": 7777, "member_port": 7000, "traffic": "plain", "check": "tcp", "balance": "roundrobin",
    }  # fmt: skip
    made = offered(balancing(it, tmp_path))
    assert made["puppetca"] == ((8141,), 8140, "roundrobin", ["192.0.2.12"])
    assert made["site-s-own"][0] == (7777,)


def test_services_on_other_ports_are_known_by_their_names() -> None:
    it = adoption(listen(section("https", ":10443"), section("smart-proxy", ":10090", port=9090)))
    services = it.content["services"]
    assert services["https"]["listen_port"] == 10443
    assert services["smartproxy"] == {"listen_port": 10090}


def test_a_member_with_a_port_of_its_own_keeps_it(tmp_path: Path) -> None:
    servers = "server a 192.0.2.11:9090 check\n  server b 192.0.2.12:8443 check\n  server c 192.0.2.13:9090 check"
    it = adoption(f"listen p\n  bind :9090\n  {servers}\n", members={**HOSTS, "proxy03.example.net": "192.0.2.13"})
    assert [m.get("ports") for m in it.content["members"]] == [None, {"smartproxy": 8443}, None]
    assert balancing(it, tmp_path).services[-1].servers[1].port == 8443


@pytest.mark.parametrize("bind", ["192.0.2.10", "[2001:db8::10]"])
def test_the_address_haproxy_listens_on_is_the_balancers(bind: str, tmp_path: Path) -> None:
    it = adoption(haproxy_cfg(FOUR, list(HOSTS.values()), bind=bind), balancer=None)
    host = bind.strip("[]")
    assert it.content["balancers"] == [{"name": "balancer", "address": host, "bind": host}]
    balancing(it, tmp_path)


def test_members_of_ipv6_and_of_several_hosts_are_one_by_name(tmp_path: Path) -> None:
    it = adoption(
        listen(
            section("web", ":443", hosts=["[2001:db8::11]", "proxy02.example.net"]),
            section("p", ":9090", hosts=["proxy01.example.net", "proxy02.example.net"], port=9090),
        ),
        members={FIRST: "2001:db8::11"},
    )
    assert [(m["name"], m["address"]) for m in it.content["members"]] == [(FIRST, "2001:db8::11"), (SECOND, SECOND)]
    balancing(it, tmp_path)


def test_servers_named_like_members_need_nobody_to_name_them() -> None:
    it = adoption(f"listen w\n bind :443\n server {FIRST} 192.0.2.11:443\n", members={})
    assert [(m["name"], m["address"]) for m in it.content["members"]] == [(FIRST, "192.0.2.11")]


def test_weights_are_shares_of_the_largest() -> None:
    it = adoption("listen w\n bind :443\n server a 192.0.2.11:443 weight 2\n server b 192.0.2.12:443\n")
    assert [m.get("weight") for m in it.content["members"]] == [None, 50]
    it = adoption("listen w\n bind :443\n server a 192.0.2.11:443 weight 7\n server b 192.0.2.12:443 weight 7\n")
    assert [m.get("weight") for m in it.content["members"]] == [None, None]


def test_settings_say_foreman_the_address_and_further_names(tmp_path: Path) -> None:
    templates = ":enabled: true\n:template_url: http://boot.example.net:8000\n"
    settings = {
        name: read(settings_of(tmp_path / name, name, address=ADDRESS, files={"templates": templates}))
        for name in HOSTS
    }
    it = adoption(haproxy_cfg(NINE, list(HOSTS.values())), settings, address=None)
    assert it.content["address"] == ADDRESS
    assert it.content["aliases"] == ["boot.example.net"]
    assert it.content["foreman"] == {"url": "https://foreman.example.net", "trusted_hosts": ["foreman.example.net"]}
    balancing(it, tmp_path)


@pytest.mark.parametrize(
    ("text", "told", "said"),
    [
        (haproxy_cfg(FOUR, ["192.0.2.11", "192.0.2.99"]), {}, r"192\.0\.2\.99 .line 33.: --member NAME=192\.0\.2\.99"),
        (haproxy_cfg(FOUR, list(HOSTS.values())), {"address": None}, "--address NAME"),
        (haproxy_cfg(FOUR, list(HOSTS.values())), {"balancer": None}, "--balancer NAME=IP"),
        (
            haproxy_cfg(FOUR, ["192.0.2.11"]),
            {},
            "--member proxy02.example.net: HAProxy leads to no member of that name",
        ),
        ("frontend x\n bind :443\n", {}, "nothing to adopt"),
        ("backend x\n server a 192.0.2.1:443\n", {}, "nothing to adopt"),
    ],
)
def test_what_stands_nowhere_is_asked_for_by_its_option(text: str, told: dict[str, Any], said: str) -> None:
    with pytest.raises(Rejected, match=said):
        adoption(text, **told)
