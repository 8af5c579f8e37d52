"""What Foreman knows of a cluster: compared, registered, refreshed, at a stand-in of its API and of Ruby Smart Proxies."""

from __future__ import annotations

import contextlib
import json
import pwd
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from muster.cli import muster
from muster.kernel.errors import Denied, NotFound
from muster.pki.authority import ClusterCA, ca_paths
from muster.pki.bundles import BundleRequest, write
from tests.servers import foreman as servers
from tests.servers import ruby
from tests.servers.certificates import NOW
from tests.servers.client import Place
from tests.servers.foreman import TOKEN, Foreman
from tests.servers.haproxy import free_ports
from tests.servers.ruby import RubyProxy, feature

FOREMAN = "foreman.example.net"
NAMES = ("proxy01.example.net", "proxy02.example.net")
# Foreman's words for what the wire calls otherwise.
WORDS = {"puppetca": "Puppet CA", "dns": "DNS", "registration": "Registration", "pulpcore": "Pulpcore"}


@dataclass
class World:
    directory: Path
    foreman: Foreman
    proxies: dict[str, RubyProxy]

    def run(self, *arguments: str) -> Result:
        given = [
            "foreman",
            *arguments,
            "--cluster",
            str(self.directory / "cluster.yaml"),
            "--pki",
            str(self.directory / "pki"),
        ]
        return CliRunner().invoke(muster, given)

    def standing(self) -> dict[str, str]:
        said = json.loads(self.run("status", "--json").stdout)
        return {one["name"]: one["standing"] for one in said["smart_proxies"]}

    def asks(self, url: str) -> dict[str, list[str]] | None:
        """Foreman asks a proxy, as it does at its own refresh."""
        proxy = next((p for name, p in self.proxies.items() if name in url), None)
        if proxy is None:
            return None
        running = {n: f for n, f in proxy.features.items() if f["state"] == "running"}
        return {WORDS[n]: f["capabilities"] for n, f in running.items()}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    pki = tmp_path / "pki"
    ca = ClusterCA.create(pki, "demo", now=NOW)
    write(ca.issue(BundleRequest("client", FOREMAN), now=NOW), pki)
    (port,) = free_ports("127.0.0.1", 1)
    with contextlib.ExitStack() as stack:
        foreman = stack.enter_context(servers.running(tmp_path / "foreman"))
        proxies = {}
        for number, name in enumerate(NAMES, 21):
            bundle = write(ca.issue(BundleRequest("member", name), now=NOW), pki)
            features = {"dns": feature(), "puppetca": feature(), "pulpcore": feature("disabled")}
            proxy = RubyProxy(Place(f"127.0.0.{number}", port), FOREMAN, features=features)
            proxies[name] = stack.enter_context(ruby.running(proxy, bundle, ca_paths(pki)[0]))
        it = World(tmp_path, foreman, proxies)
        foreman.asks = it.asks
        foreman.taxonomies = {"organizations": {"ACME": 3}, "locations": {"Berlin": 7, "Paris": 8}}
        cluster: dict[str, Any] = {
            "schema": 1, "cluster": "demo", "address": "proxies.example.net",
            "store": {"url": f"sqlite:///{tmp_path}/muster.db"},
            "members": [
                {"id": n, "name": name, "address": f"127.0.0.{20 + n}", "kind": "foreman"} for n, name in enumerate(NAMES, 1)
            ],
            "services": {
                "smartproxy": {"member_port": port}, "puppet": {"enabled": False}, "puppetca": {"enabled": False},
            },
            "foreman": {
                **foreman.settings(), "ca_file": str(ca_paths(foreman.ca.directory)[0]), "trusted_hosts": [FOREMAN],
                "organizations": ["ACME"], "locations": ["Berlin"],
            },
        }  # fmt: skip
        (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster))
        yield it


def test_members_are_registered_once_in_their_places(world: World) -> None:
    assert world.standing() == dict.fromkeys(NAMES, "absent")
    none = world.run("refresh")
    assert (none.exit_code, none.output.count("does not know")) == (1, 2)
    assert none.output.count("\n  muster foreman register\n") == 2
    dry = world.run("register", "--dry-run")
    assert (dry.exit_code, world.foreman.changes) == (0, [])
    said = world.run("register")
    assert said.exit_code == 0, said.output
    rows = list(world.foreman.proxies.values())
    assert [row["name"] for row in rows] == list(NAMES)
    assert [(r["organizations"][0]["name"], r["locations"][0]["name"]) for r in rows] == [("ACME", "Berlin")] * 2
    assert world.standing() == dict.fromkeys(NAMES, "well")
    world.foreman.changes.clear()
    for command in ("register", "refresh"):
        again = world.run(command)
        assert (again.exit_code, world.foreman.changes) == (0, [])
    assert TOKEN not in said.output + dry.output


def test_an_account_that_has_no_name_may_give_the_commands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)

    def nobody(_: int) -> pwd.struct_passwd:
        raise KeyError("uid not found")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for command in ("register", "refresh"):
        world.proxies[NAMES[0]].features["dns"]["settings"] = {"of": command}
        said = world.run(command)
        assert said.exit_code == 0, (said.output, said.exception)
    assert world.standing() == dict.fromkeys(NAMES, "well")


def test_what_changed_is_refreshed_and_nothing_else(world: World) -> None:
    assert world.run("register").exit_code == 0
    world.foreman.changes.clear()
    first, second = NAMES
    world.proxies[first].features["pulpcore"] = feature()
    world.proxies[second].features["puppetca"] = feature("disabled")
    said = world.run("status")
    assert said.exit_code == 1
    assert f"{first}: outdated: Foreman does not know of pulpcore" in said.output
    assert f"{second}: outdated: Foreman believes in Puppet CA, which it has not" in said.output
    dry = world.run("refresh", "--dry-run")
    assert (dry.exit_code, world.foreman.changes) == (0, [])
    assert world.run("refresh").exit_code == 0
    assert world.standing() == dict.fromkeys(NAMES, "well")
    # Capabilities Foreman shows, settings it does not: those are known by their digest.
    world.proxies[first].features["dns"]["capabilities"] = ["dns_cname"]
    assert world.standing()[first] == "outdated"
    assert world.run("refresh").exit_code == 0
    world.foreman.changes.clear()
    world.proxies[first].features["dns"]["settings"] = {"dns_ttl": 60}
    assert world.standing() == {first: "outdated", second: "well"}
    assert world.run("refresh").exit_code == 0
    assert world.foreman.changes == [("PUT", "/api/smart_proxies/1/refresh")]
    assert world.standing()[first] == "well"


def test_who_registered_by_hand_is_refreshed_once(world: World) -> None:
    for name in NAMES:
        port = world.proxies[name].place[1]
        body = json.dumps({"smart_proxy": {"name": name, "url": f"https://{name}:{port}"}}).encode()
        at = (f"localhost:{world.foreman.port}", f"Basic {servers.basic(TOKEN)}")
        assert world.foreman.change("POST", "/api/smart_proxies", *at, body)[0] == 201
    assert world.standing() == dict.fromkeys(NAMES, "well")
    world.foreman.changes.clear()
    for count in (2, 2):
        assert world.run("refresh").exit_code == 0
        assert len(world.foreman.changes) == count


def test_one_at_another_url_stays_unless_it_is_moved(world: World) -> None:
    assert world.run("register").exit_code == 0
    world.foreman.proxies[1]["url"] = "https://proxy01.example.net:9091"
    assert world.standing()[NAMES[0]] == "elsewhere"
    world.foreman.changes.clear()
    said = world.run("register")
    assert (said.exit_code, world.foreman.changes) == (1, [])
    assert "--move" in said.output
    assert world.run("register", "--move").exit_code == 0
    assert world.standing() == dict.fromkeys(NAMES, "well")


def test_a_proxy_that_foreman_cannot_reach_is_said_in_its_words_and_the_other_is_registered(world: World) -> None:
    reached = world.asks
    world.foreman.asks = lambda url: None if NAMES[0] in url else reached(url)
    said = world.run("register")
    assert said.exit_code == 1
    assert f"{NAMES[0]}: Foreman refuses POST /api/smart_proxies: Unable to communicate" in said.output
    assert [row["name"] for row in world.foreman.proxies.values()] == [NAMES[1]]


def test_a_place_that_is_mistyped_leaves_nothing_half_done(world: World) -> None:
    del world.foreman.taxonomies["locations"]["Berlin"]
    said = world.run("register")
    assert isinstance(said.exception, NotFound)
    assert "no location 'Berlin'" in str(said.exception)
    assert world.foreman.changes == []


def test_a_terminal_is_sent_no_control_characters_of_names(world: World) -> None:
    assert world.run("register").exit_code == 0
    for proxy in world.proxies.values():
        proxy.features["dns"]["capabilities"] = ["a\x1b[2Jb\nc"]
    said = world.run("status")
    assert said.exit_code == 1
    assert "a\\x1b[2Jb\\nc" in said.output
    assert "\x1b" not in said.output + world.run("refresh").output


def test_a_place_within_another_is_named_by_its_title(world: World) -> None:
    world.foreman.taxonomies["locations"] |= {"Europe/Berlin": 9}
    path = world.directory / "cluster.yaml"
    path.write_text(path.read_text().replace("Berlin", "Europe/Berlin"))
    assert world.run("register").exit_code == 0
    assert all(
        {"id": 9, "name": "Berlin", "title": "Europe/Berlin"} in p["locations"] for p in world.foreman.proxies.values()
    )


def test_a_token_that_is_refused_is_not_repeated(world: World) -> None:
    world.foreman.token = "another"
    said = world.run("status")
    assert isinstance(said.exception, Denied)
    assert TOKEN not in str(said.exception)


def test_the_cluster_is_one_smart_proxy_where_that_is_said(world: World) -> None:
    file = world.directory / "cluster.yaml"
    content = yaml.safe_load(file.read_text())
    content["foreman"]["registration"] = "cluster"
    file.write_text(yaml.safe_dump(content))
    assert world.standing() == {"proxies.example.net": "absent"}
    said = json.loads(world.run("status", "--json").stdout)
    assert said["smart_proxies"][0]["url"] == "https://proxies.example.net:9090"


def test_more_than_a_page_of_smart_proxies_is_read_to_its_end(world: World) -> None:
    assert world.run("register").exit_code == 0
    own = list(world.foreman.proxies.values())
    others = [{"id": n, "name": f"other{n}", "url": f"https://other{n}:9090", "features": []} for n in range(10, 260)]
    world.foreman.proxies = {row["id"]: row for row in (*others, *own)}
    assert world.standing() == dict.fromkeys(NAMES, "well")
