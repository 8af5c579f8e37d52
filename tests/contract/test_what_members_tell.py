"""What Ruby members tell Foreman of where clients are sent, seen by ``muster doctor`` on the wire.

Two are installed as one program; the third one's Pulp answers Foreman for itself, as in containers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.app.settings import loaded
from muster.kernel.files import write_atomically
from muster.observed.services import told_by
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.pki.context import client_context
from tests.servers import ruby
from tests.servers.client import Place
from tests.servers.haproxy import free_ports
from tests.servers.local import Said, muster
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED
from tests.servers.ruby import RubyProxy, feature

HOSTS = {"proxy01.example.com": "127.0.4.21", "proxy02.example.com": "127.0.4.22", "proxy03.example.com": "127.0.4.23"}
FIRST, SECOND, CONTAINER = HOSTS
RECORD = "/pulp/api/v3/smart_proxy/v2/features"
MATTERS = ("MEMBER-U", "MEMBER-PULP", "MEMBER-VERSIONS", "FEATURE-")


@dataclass
class Listening(RubyProxy):
    """As a Ruby proxy, and what it was asked."""

    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, client: str | None) -> tuple[int, str]:
        self.asked.append(path)
        return super().answer(path, client)


@dataclass
class Site:
    directory: Path
    ca: ClusterCA
    port: int
    https: int
    proxies: dict[str, Listening]
    pulp: Listening

    @property
    def url(self) -> str:
        return f"https://{CLUSTER_ADDRESS}:{self.port}"

    def pulpcore(self, name: str, **changed: Any) -> dict[str, Any]:
        content = f"https://{CLUSTER_ADDRESS}:{self.https}"
        told = {
            "pulp_url": f"https://{name}",
            "content_app_url": f"{content}/pulp/content",
            "rhsm_url": f"{content}/rhsm",
        }
        return feature(**{**told, "mirror": True, **changed})

    def doctor(self, *options: str) -> Said:
        place = ("--cluster", str(self.directory / "cluster.yaml"), "--pki", str(self.ca.directory))
        return muster("doctor", *place, "--run", str(self.directory / "run"), *options)

    def found(self, *options: str) -> list[tuple[str, str]]:
        """Return code and place of what is said of features, versions and URLs."""
        findings = self.doctor("--json", *options).json["findings"]
        return sorted((f["code"], f["place"]) for f in findings if f["code"].startswith(MATTERS))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    port, https = free_ports("127.0.0.1", 2)
    off = {"enabled": False}
    content = {
        "schema": 1,
        "cluster": "ruby",
        "address": CLUSTER_ADDRESS,
        "store": {"url": f"sqlite:///{tmp_path}/muster.db"},
        "foreman": {"trusted_hosts": [TRUSTED]},
        "members": [{"id": i, "name": n, "address": a, "kind": "foreman"} for i, (n, a) in enumerate(HOSTS.items(), 1)],
        "services": {
            **dict.fromkeys(("http", "puppet", "puppetca", "anaconda"), off),
            "smartproxy": {"listen_port": port, "member_port": port},
            "https": {"listen_port": https, "member_port": https, "check": "tcp"},
        },
    }
    write_atomically(tmp_path / "cluster.yaml", yaml.safe_dump(content))
    ca = ClusterCA.create(tmp_path / "pki", "ruby", now=datetime.now(UTC))
    bundles.write(ca.issue(BundleRequest("client", TRUSTED), now=datetime.now(UTC)), ca.directory)
    proxies = {name: Listening(Place(address, port), TRUSTED) for name, address in HOSTS.items()}
    site = Site(tmp_path, ca, port, https, proxies, Listening(Place(HOSTS[CONTAINER], https), TRUSTED))
    for name, proxy in proxies.items():
        proxy.features = {
            "registration": feature(registration_url=site.url),
            "templates": feature(template_url=site.url),
            "realm": feature("disabled", use_provider=None),
            **({"pulpcore": site.pulpcore(name)} if name != CONTAINER else {}),
        }
    site.pulp.raw[RECORD] = (200, json.dumps({"pulpcore": site.pulpcore(CONTAINER)}))
    with ExitStack() as stack:
        for proxy, name in (*((p, n) for n, p in proxies.items()), (site.pulp, CONTAINER)):
            bundle = ca.issue(BundleRequest("member", name, (CLUSTER_ADDRESS,)), now=datetime.now(UTC))
            stack.enter_context(ruby.running(proxy, bundles.write(bundle, ca.directory), ca.directory / "ca.pem"))
        yield site


def test_members_that_send_clients_to_the_cluster_are_asked_once_and_no_finding(site: Site) -> None:
    assert site.found() == []
    for name, proxy in site.proxies.items():
        assert proxy.asked.count("/v2/features") == 1, name
        assert "/features" not in proxy.asked
    # Under its own name: where no URL is set for it, it tells the one it was asked by.
    assert site.pulp.asked.count(RECORD) == 1
    assert CONTAINER in site.pulp.server_names


def test_every_fault_is_named_with_its_member_values_and_remedy(site: Site) -> None:
    site.proxies[FIRST].features["templates"] = feature(template_url=f"http://{CLUSTER_ADDRESS}:8000")
    site.proxies[SECOND].features["registration"] = feature(registration_url=None)
    site.proxies[SECOND].features["pulpcore"] = site.pulpcore(SECOND, rhsm_url=f"https://{SECOND}:443/rhsm")
    site.proxies[SECOND].version = "3.11.0"
    wrong = site.pulpcore(
        CONTAINER, pulp_url=f"https://{CLUSTER_ADDRESS}/", content_app_url=f"https://{CONTAINER}/pulp"
    )
    site.pulp.raw[RECORD] = (200, json.dumps({"pulpcore": wrong}))
    assert site.found() == [
        ("MEMBER-PULP-URL", f"pulp_url on {CONTAINER}"),
        ("MEMBER-UNGROUPED", f"registration_url on {SECOND}"),
        ("MEMBER-URL", f"content_app_url on {CONTAINER}"),
        ("MEMBER-URL", f"rhsm_url on {SECOND}"),
        ("MEMBER-URL-PORT", f"template_url on {FIRST}"),
        ("MEMBER-URLS-DIFFER", "template_url"),
        ("MEMBER-VERSIONS", "ruby"),
    ]
    said = site.doctor()
    assert said.code == 1
    for words in (
        f"MEMBER-UNGROUPED: {SECOND} tells Foreman no registration_url, which is told {site.url} by {FIRST}",
        "Hosts that are registered through this member are bound to it alone",
        "foreman-installer --foreman-proxy-registration-url",
        f"tells Foreman rhsm_url https://{SECOND}:443/rhsm, whose host is not {CLUSTER_ADDRESS}",
        "SMART_PROXY_PULP_URL",
        "refresh that Smart Proxy's features in Foreman",
    ):
        assert words in said.out, said


def test_a_member_that_does_not_answer_is_not_compared(site: Site) -> None:
    site.proxies[SECOND].raw["/v2/features"] = site.proxies[SECOND].raw["/features"] = (500, "broken")
    site.pulp.raw[RECORD] = (502, "bad gateway")
    assert site.found() == []


def test_a_member_that_is_older_than_v2_lacks_features_and_is_asked_for_nothing_more(site: Site) -> None:
    site.proxies[SECOND].raw["/v2/features"] = (404, "Requested url was not found")
    # Whether a Pulp would answer on 443 cannot be said where nobody listens.
    del site.proxies[SECOND].features["pulpcore"], site.proxies[SECOND].features["templates"]
    assert site.found() == [("FEATURE-MISSING", SECOND)]


def test_without_a_certificate_they_trust_what_was_not_seen_is_said_once(site: Site) -> None:
    bundles.write(
        site.ca.issue(BundleRequest("client", "stranger.example.com"), now=datetime.now(UTC)), site.ca.directory
    )
    names = ", ".join(HOSTS)
    site.pulp.raw[RECORD] = (403, "Authentication credentials were not provided.")
    site.proxies[CONTAINER].features = {"logs": feature()}
    for proxy in (site.proxies[FIRST], site.proxies[SECOND]):
        proxy.features["logs"] = feature()
    found = site.found("--client", "stranger.example.com")
    assert ("MEMBER-URLS-UNSEEN", names) in found
    # Whether its Pulp runs nobody knows; that the others are not there anybody is told.
    assert [f for f in found if f[0] != "MEMBER-URLS-UNSEEN"] == [("FEATURE-MISSING", CONTAINER)]
    assert "it tells them to trusted hosts only" in site.doctor("--client", "stranger.example.com").out


@pytest.mark.anyio
async def test_the_services_register_asks_a_pulp_under_the_member_s_own_name(site: Site) -> None:
    cluster = loaded(site.directory / "cluster.yaml")
    bundle = bundles.paths(site.ca.directory, "client", TRUSTED)
    context = client_context(site.ca.directory / "ca.pem", bundle.certificate, bundle.key)
    told = await told_by(cluster.member(CONTAINER), modelled(cluster), context)
    assert told is not None
    assert site.pulp.server_names == {CONTAINER}


def test_nonsense_from_a_member_stops_nothing(site: Site) -> None:
    site.proxies[SECOND].raw["/v2/features"] = (200, json.dumps({"pulpcore": 5}))
    site.proxies[FIRST].raw["/v2/features"] = (200, json.dumps({"registration": {"state": "running", "settings": [1]}}))
    site.pulp.raw[RECORD] = (200, "<html>")
    found = site.found()
    assert ("MEMBER-URLS-UNSEEN", SECOND) in found
    assert ("FEATURE-MISSING", FIRST) in found
