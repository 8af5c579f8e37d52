from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from muster import features
from muster.edge.feature import FOREMAN_PREFIXES, FeatureSettings
from muster.edge.routes import Access
from muster.features.bmc import providers as bmc
from muster.features.bmc.settings import BMCSettings
from muster.features.dns import providers as dns
from muster.features.dns.settings import DNSSettings
from muster.features.pulpcore import providers as pulpcore
from muster.features.pulpcore.settings import PulpcoreSettings
from muster.features.puppet import providers as puppet
from muster.features.puppet.settings import PuppetSettings
from muster.features.puppetca import providers as puppetca
from muster.features.puppetca.autosigners import AUTOSIGNERS
from muster.features.puppetca.settings import PuppetCASettings
from muster.features.realm import providers as realm
from muster.features.realm.settings import RealmSettings
from muster.kernel.settings import parse
from tests.unit.cluster.written import SMALL, parsed

# What members ask each other, and Foreman never asks.
BETWEEN_MEMBERS = {"/dhcp_files"}


def said(text: str) -> list[tuple[int, str, str]]:
    return [(p.line, p.where, p.sentence) for p in features.problems(parse(text))]


def test_every_feature_is_listed_by_its_name_under_foremans_prefixes() -> None:
    assert features.manifests()
    for name, feature in features.manifests().items():
        assert feature.name == name
        assert feature.mounts
        assert all(FOREMAN_PREFIXES[m.prefix] == name for m in feature.mounts if m.prefix not in BETWEEN_MEMBERS)


# Open by design: docs/facts/smart-proxy-protocol.md §18 and §5: Pulp's status, machines that nobody knows yet, and what a
# proxy is, here Pulp's own record.
OPEN = {
    "/discovery/create",
    "/pulpcore/status",
    "/pulp/api/v3/smart_proxy/features[/]",
    "/pulp/api/v3/smart_proxy/version[/]",
}

# Hosts speak for themselves here, by their certificates: docs/facts/openscap.md §2.
CERTIFIED = {
    "/compliance/arf/{policy}", "/compliance/policies/{policy}/content/{digest}",
    "/compliance/policies/{policy}/tailoring/{digest}",
}  # fmt: skip


def test_every_route_of_a_feature_whose_clients_are_not_hosts_is_protected() -> None:
    for_hosts = {"httpboot", "templates", "registration"}
    for name, feature in features.manifests().items():
        mounts = [m for m in feature.mounts if m.prefix not in BETWEEN_MEMBERS]
        assert name in for_hosts or all(m.routes for m in mounts)
        for path, access in ((m.prefix + r.path, r.access) for m in mounts for r in m.routes):
            expected = Access.CERTIFIED if path in CERTIFIED else Access.TRUSTED
            assert access is (Access.OPEN if name in for_hosts or path in OPEN else expected), path


def test_what_members_ask_each_other_is_the_clusters_alone() -> None:
    mounts = [m for f in features.manifests().values() for m in f.mounts if m.prefix in BETWEEN_MEMBERS]
    assert {m.prefix for m in mounts} == BETWEEN_MEMBERS
    assert {r.access for m in mounts for r in m.routes} == {Access.CLUSTER}


@pytest.mark.parametrize(
    ("table", "settings", "key"),
    [
        (dns.PROVIDERS, DNSSettings, "provider"),
        (bmc.PROVIDERS, BMCSettings, "bmc_default_provider"),
        (puppet.PROVIDERS, PuppetSettings, "provider"),
        (pulpcore.PROVIDERS, PulpcoreSettings, "provider"),
        (puppetca.PROVIDERS, PuppetCASettings, "provider"),
        (realm.PROVIDERS, RealmSettings, "provider"),
        (AUTOSIGNERS, PuppetCASettings, "autosigner"),
    ],
)
def test_every_word_of_the_settings_has_a_line_in_the_table(
    table: Mapping[str, Any], settings: type[FeatureSettings], key: str
) -> None:
    annotation = settings.model_fields[key].annotation
    words = {w for part in get_args(annotation) for w in get_args(part) or (part,)} - {type(None)}
    assert set(table) == words


def test_settings_of_known_features_are_checked_each_with_its_line() -> None:
    text = """\
features:
  dns:
    provider: memory
    ttl_s: -1
    nsupdate:
      sevrer: x
  logs:
    enabled: maybe
"""
    assert [(line, where) for line, where, _ in said(text)] == [
        (4, "features.dns.ttl_s"),
        (6, "features.dns.nsupdate.sevrer"),
        (8, "features.logs.enabled"),
    ]
    assert said(text)[1][2] == "unknown key 'sevrer'; did you mean 'server'?"


@pytest.mark.parametrize(
    "text", ["features: {dns: {provider: memory}, logs: {}}", "features: {logs: null}", "a: 1", "features: 5", "- 1"]
)
def test_a_file_with_good_features_or_none_has_no_problems(text: str) -> None:
    assert said(text) == []


def test_an_unknown_feature_is_answered_with_the_nearest_or_all() -> None:
    (dsn, other) = said("features:\n  dnss: {}\n  zzzzz: {}\n")
    assert dsn == (2, "features.dnss", "unknown feature 'dnss'; did you mean 'dns'?")
    assert other[:2] == (3, "features.zzzzz")
    assert other[2].startswith("unknown feature 'zzzzz'; known features: bmc, container_gateway, dhcp, discovery, dns")


def test_a_rule_between_settings_of_a_feature_has_the_features_line() -> None:
    assert said("features:\n  dns:\n    provider: smart_proxy\n") == [
        (2, "features.dns", "provider smart_proxy needs smart_proxy.url")
    ]


def test_features_stand_in_the_order_in_which_the_ruby_proxy_loads_them() -> None:
    ours = [
        "facts", "dns", "templates", "tftp", "dhcp", "puppetca", "puppet", "bmc", "realm", "httpboot",
        "registration", "externalipam", "pulpcore", "container_gateway", "openscap",
        "discovery",
    ]  # fmt: skip
    assert list(features.manifests()) == ours
    found = list(features.manifests(dataclasses.replace(features.manifests()["dns"], name="logs")))
    at = ours.index("httpboot")
    assert found == [*ours[:at], "logs", *ours[at:]]
    assert set(found) == set(features.settings_models())


def test_settings_of_enabled_features_name_the_services_behind_them() -> None:
    server = {"url": "https://puppet.test:8140", "certificate": "/c", "key": "/k", "ca": "/ca"}
    given: dict[str, Any] = {
        "dns": {"nsupdate": {"server": "fd00::53"}, "readiness": "essential"},
        "puppet": {"puppetserver": server},
        "puppetca": {"provider": "puppetserver", "puppetserver": {**server, "url": "https://ca.test"}},
        "pulpcore": {
            "pulp_url": "https://{member}", "content_app_url": "https://lb.test/pulp/content", "password_file": "/etc/p",
        },
        "logs": {},
    }  # fmt: skip
    cluster = parsed(SMALL)
    found = features.services(cluster.model_copy(update={"features": given}))
    assert {n: (s.control_url, s.weight) for n, s in found.items()} == {
        "store": ("sqlite:///var/muster.db", "essential"),
        "dns": ("dns://[fd00::53]:53", "essential"),
        "puppet": ("https://puppet.test:8140", "functional"),
        "puppetca": ("https://ca.test", "functional"),
        "pulp": ("https://{member}", "functional"),
    }
    assert found["pulp"].credentials == "file:/etc/p"
    assert found["pulp"].client_urls == {"any": "https://lb.test/pulp/content"}
    off = {name: {**one, "enabled": False} for name, one in given.items()}
    assert list(features.services(cluster.model_copy(update={"features": off}))) == ["store"]
    memory = {name: {"provider": "memory"} for name in ("dns", "puppet", "puppetca", "pulpcore")}
    assert list(features.services(cluster.model_copy(update={"features": memory}))) == ["store"]


def test_what_will_fail_on_members_is_said_before_they_start() -> None:
    def doubts(foreman: str, **given: Any) -> list[str]:
        text = f"{SMALL}foreman: {foreman}\nfeatures: {json.dumps(given)}\n"
        document = parse(text)
        return [f"{p.where}: {p.sentence}" for p in features.warnings(document, parsed(text))]

    known = "{url: 'https://foreman.test', trusted_hosts: []}"
    assert doubts(known, templates={}, registration={"enabled": True}) == []
    assert doubts("{url: 'https://foreman.test'}", templates={"enabled": True}, dns={"provider": "memory"}) == []
    (plain,) = doubts("{url: 'https://foreman.test'}", dns={"provider": "memory", "enabled": True})
    assert plain.startswith("features.dns.enabled: opens dns to plain HTTP")
    (alone,) = doubts(known, registration={})
    assert (
        alone == "features.registration: fails on members: 'templates' required by 'registration' could not be found."
    )
    (nowhere,) = doubts("{trusted_hosts: []}", templates={})
    assert nowhere.startswith("features.templates: fails on members: ")
    assert doubts("{trusted_hosts: []}", templates={"enabled": False}) == []
