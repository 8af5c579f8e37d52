"""What the settings of Ruby Smart Proxies have to hold."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.output import Site
from muster.derived.ruby_settings import OUTPUT
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import parse

CLUSTER = """\
schema: 1
cluster: demo
address: Cluster.test
aliases: [proxies.test]
store: {url: sqlite:////nowhere/x.db}
members:
- {id: 1, name: Proxy01.test, address: 10.0.0.1, kind: foreman}
- {id: 2, name: proxy02.test, address: 10.0.0.2, kind: foreman}
"""
REST = 'signer: proxy01.test\nforeman: {url: "https://Foreman.test/"}\n'


def read(rest: str = REST, *, member: str | None = None) -> dict[str, dict[str, Any]]:
    """Return each file's keys by the file's name, read from the text line by line."""
    cluster = parse(f"{CLUSTER}{rest}").parsed(ClusterFile)
    found: dict[str, dict[str, Any]] = {}
    for document in OUTPUT.rendered(modelled(cluster), cluster, Site(member=member)):
        head, body = document.text.split("---\n")
        assert all(line.startswith("#") for line in head.splitlines())
        assert "to be merged into /etc/foreman-proxy/" in head
        lines = [re.fullmatch(r":([a-z_]+): (.+)", line) for line in body.splitlines()]
        found[document.name] = {line[1]: json.loads(line[2]) for line in lines if line}
        assert len(found[document.name]) == len(lines)
    return found


def test_an_installers_member_leads_hosts_to_the_address_and_foreman_to_itself() -> None:
    assert read(member="proxy02.test") == {
        "proxy02.test/settings.yml": {
            "foreman_url": "https://Foreman.test",
            "trusted_hosts": ["foreman.test", "proxy02.test"],
            "http_port": 8000,
            "https_port": 9090,
            "tls_min_version": "1.2",
        },
        "proxy02.test/settings.d/templates.yml": {"enabled": True, "template_url": "http://cluster.test:8000"},
        "proxy02.test/settings.d/registration.yml": {
            "enabled": "https",
            "registration_url": "https://cluster.test:9090",
        },
        "proxy02.test/settings.d/container_gateway.yml": {
            "enabled": "https",
            "pulp_endpoint": "https://proxy02.test",
            "client_endpoint": "https://cluster.test",
        },
        "proxy02.test/settings.d/pulpcore.yml": {
            "enabled": "https",
            "pulp_url": "https://proxy02.test",
            "content_app_url": "https://cluster.test/pulp/content",
            "mirror": True,
            "rhsm_url": "https://cluster.test:443/rhsm",
        },
        "proxy02.test/settings.d/puppet.yml": {"enabled": "https"},
        "proxy02.test/settings.d/puppet_proxy_puppet_api.yml": {"puppet_url": "https://proxy02.test:8140"},
        "proxy02.test/settings.d/puppetca.yml": {"enabled": False},
        "proxy02.test/settings.d/puppetca_http_api.yml": {"puppet_url": "https://proxy01.test:8140"},
    }


@pytest.mark.parametrize("generation", ["seed", "installer", "foremanctl"])
def test_members_differ_in_their_own_name_and_in_who_signs(generation: str) -> None:
    found = read(f"generation: {generation}\n{REST}")

    def of(number: int) -> str:
        mine = {name: keys for name, keys in found.items() if name.startswith(f"proxy0{number}.test/")}
        mine.pop(f"proxy0{number}.test/settings.d/puppetca.yml", None)
        mine.pop(f"proxy0{number}.test/settings.d/puppetca_http_api.yml", None)
        return json.dumps(mine).replace(f"proxy0{number}.test", "OWN")

    assert of(1) == of(2)
    signs = [keys["enabled"] for name, keys in found.items() if name.endswith("/puppetca.yml")]
    assert signs == ([] if generation == "foremanctl" else ["https", False])


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("3.19", {"ssl_disabled_ciphers", "tls_disabled_versions"}),
        ("3.19.2", {"ssl_disabled_ciphers", "tls_disabled_versions"}),
        ("5.0", {"tls_min_version"}),
        ("5.0.1", {"tls_min_version"}),
        ("10.0", {"tls_min_version"}),
    ],
)
def test_tls_has_the_words_of_foremans_version(version: str, keys: set[str]) -> None:
    foreman = f'signer: proxy01.test\nforeman: {{url: "https://foreman.test", version: "{version}"}}\n'
    found = read(foreman, member="proxy01")["proxy01.test/settings.yml"]
    assert {name for name in found if name.startswith(("tls", "ssl"))} == keys


def test_2018_has_neither_registration_nor_pulp_3_and_the_older_words() -> None:
    found = read(f"generation: seed\n{REST}", member="proxy01")
    assert {name.partition("/")[2] for name in found} == {
        "settings.yml",
        "settings.d/templates.yml",
        "settings.d/puppet.yml",
        "settings.d/puppet_proxy_puppet_api.yml",
        "settings.d/puppetca.yml",
    }
    assert "tls_min_version" not in found["proxy01.test/settings.yml"]


def test_containers_listen_on_one_port_and_have_pulp_beside_them() -> None:
    found = read(f"generation: foremanctl\n{REST}", member="proxy01")
    assert {name.partition("/")[2] for name in found} == {
        "settings.yml",
        "settings.d/templates.yml",
        "settings.d/registration.yml",
        "settings.d/container_gateway.yml",
    }
    assert found["proxy01.test/settings.yml"]["https_port"] == 8443
    assert "http_port" not in found["proxy01.test/settings.yml"]
    # Nothing of a container listens on 8000.
    assert found["proxy01.test/settings.d/templates.yml"]["template_url"] == "https://cluster.test:8443"


def test_ports_are_those_of_the_balancer_and_of_each_member() -> None:
    services = (
        "services: {smartproxy: {listen_port: 9443}, https: {listen_port: 8444, member_port: 4443}, "
        "anaconda: {listen_port: 8080, member_port: 8008}, puppet: {member_port: 8150}, "
        "puppetca: {listen_port: 8200, member_port: 8201}, mqtt: {}}\n"
    )
    moved = CLUSTER.replace("10.0.0.2,", "10.0.0.2, ports: {smartproxy: 8443, mqtt: 1884},")
    cluster = parse(f"{moved}{REST}{services}").parsed(ClusterFile)
    found: Any = OUTPUT.as_json and OUTPUT.as_json(modelled(cluster), cluster, Site())
    one, two = found["proxy01.test"], found["proxy02.test"]
    assert [(m["settings.yml"]["https_port"], m["settings.yml"]["http_port"]) for m in (one, two)] == [
        (9090, 8008),
        (8443, 8008),
    ]
    assert two["settings.d/registration.yml"]["registration_url"] == "https://cluster.test:9443"
    assert two["settings.d/templates.yml"]["template_url"] == "http://cluster.test:8080"
    assert two["settings.d/pulpcore.yml"]["pulp_url"] == "https://proxy02.test:4443"
    assert two["settings.d/pulpcore.yml"]["content_app_url"] == "https://cluster.test:8444/pulp/content"
    assert two["settings.d/pulpcore.yml"]["rhsm_url"] == "https://cluster.test:8444/rhsm"
    assert two["settings.d/puppet_proxy_puppet_api.yml"]["puppet_url"] == "https://proxy02.test:8150"
    assert two["settings.d/puppetca_http_api.yml"]["puppet_url"] == "https://proxy01.test:8201"
    assert two["settings.d/remote_execution_ssh.yml"] == {
        "enabled": "https",
        "mode": "pull-mqtt",
        "mqtt_broker": "proxy02.test",
        "mqtt_port": 1884,
    }


def test_where_members_of_ours_are_the_ca_it_is_behind_the_address() -> None:
    ours = "- {id: 3, name: proxy03.test, address: 10.0.0.3}\n"
    found = read(f'{ours}authority: {{}}\nforeman: {{url: "https://foreman.test"}}\n')
    for number in (1, 2):
        of = f"proxy0{number}.test/settings.d"
        assert found[f"{of}/puppetca.yml"] == {"enabled": False}
        assert found[f"{of}/puppetca_http_api.yml"] == {"puppet_url": "https://cluster.test:8141"}
    assert not [name for name in found if name.startswith("proxy03")]


def test_what_the_balancer_does_not_offer_is_not_spoken_of() -> None:
    off = (
        f"services: {{{', '.join(f'{n}: {{enabled: false}}' for n in ('https', 'anaconda', 'puppet', 'puppetca'))}}}\n"
    )
    found = read(f"{REST}{off}", member="proxy01")
    assert {name.partition("/")[2] for name in found} == {
        "settings.yml",
        "settings.d/templates.yml",
        "settings.d/registration.yml",
    }
    assert found["proxy01.test/settings.d/templates.yml"]["template_url"] == "https://cluster.test:9090"


def test_hosts_that_the_file_trusts_are_trusted_in_small_letters() -> None:
    trusted = 'signer: proxy01.test\nforeman: {url: "https://foreman.test", trusted_hosts: [Ops.test, PROXY01.test]}\n'
    assert read(trusted, member="proxy01")["proxy01.test/settings.yml"]["trusted_hosts"] == ["ops.test", "proxy01.test"]


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("signer: proxy01.test\n", "set foreman.url"),
        ('foreman: {url: "https://foreman.test"}\n', "set signer"),
        (f"{REST}services: {{smartproxy: {{enabled: false}}}}\n", "services.smartproxy"),
    ],
)
def test_what_is_missing_is_named_by_its_key(rest: str, why: str) -> None:
    with pytest.raises(Misconfigured, match=why):
        read(rest)


def test_a_member_of_ours_is_told_nothing() -> None:
    ours = "- {id: 3, name: proxy03.test, address: 10.0.0.3}\n"
    with pytest.raises(Misconfigured, match="proxy03"):
        read(f"{ours}{REST}", member="proxy03")
    cluster = parse(CLUSTER.replace(", kind: foreman", "") + REST).parsed(ClusterFile)
    with pytest.raises(Misconfigured, match="kind: foreman"):
        OUTPUT.rendered(modelled(cluster), cluster, Site())
