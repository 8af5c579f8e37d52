"""``adopt --live``: what answers where a hand-made cluster stands; its members are played by TLS servers of our own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, write
from tests.servers import ruby
from tests.servers.client import Place
from tests.servers.hand_made import haproxy_cfg
from tests.servers.haproxy import free_ports
from tests.servers.local import Said, muster
from tests.servers.ruby import RubyProxy, feature

MEMBERS = {"live01.example.net": "127.0.0.86", "live02.example.net": "127.0.0.87"}
BALANCER, ADDRESS, FOREMAN = "127.0.0.88", "live.example.net", "foreman.example.net"


@dataclass
class Stand:
    """Two members; what stands at the balancer's address is a third server, as a balancer would lead to the first."""

    home: Path
    proxies: dict[str, RubyProxy]
    foreman: BundlePaths
    running: dict[str, contextlib.ExitStack] = field(default_factory=dict)

    def adopt(self, *options: str) -> Said:
        named = [f"--member={name}={address}" for name, address in MEMBERS.items()]
        given = ["--haproxy", str(self.home / "haproxy.cfg"), "--address", ADDRESS, *named]
        return muster("adopt", *given, "--live", "--ca", str(self.home / "pki" / "ca.pem"), *options)

    def found(self, *options: str) -> dict[tuple[str, str], str]:
        """Return the sentences about what answers, by code and place."""
        findings = self.adopt("--json", *options).json["findings"]
        return {(f["code"], f["place"]): f["sentence"] for f in findings if not f["place"].startswith("haproxy.cfg")}


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    now = datetime.now(UTC)
    ca = ClusterCA.create(tmp_path / "pki", "live", now=now)
    foreman = write(ca.issue(BundleRequest("client", FOREMAN), now=now), tmp_path / "pki")
    listen, port = free_ports(BALANCER, 1)[0], free_ports(MEMBERS["live01.example.net"], 1)[0]
    rows = [("smart-proxy", listen, port, "roundrobin", False)]
    (tmp_path / "haproxy.cfg").write_text(haproxy_cfg(rows, list(MEMBERS.values()), bind=BALANCER))
    places = {**{n: Place(a, port) for n, a in MEMBERS.items()}, "balancer": Place(BALANCER, listen)}
    proxies = {name: RubyProxy(place, FOREMAN) for name, place in places.items()}
    stand = Stand(tmp_path, proxies, foreman)
    with contextlib.ExitStack() as stack:
        for name, proxy in proxies.items():
            proxy.features = {"registration": feature(), "dns": feature()}
            holder = "live01.example.net" if name == "balancer" else name
            bundle = write(ca.issue(BundleRequest("member", holder, (ADDRESS,)), now=now), tmp_path / "pki" / name)
            one = stand.running[name] = stack.enter_context(contextlib.ExitStack())
            one.enter_context(ruby.running(proxy, bundle, tmp_path / "pki" / "ca.pem"))
        yield stand


def test_a_cluster_that_answers_well_is_found_without_fault(stand: Stand) -> None:
    said = stand.adopt()
    assert said.code == 0, said
    assert "Asking 2 members and the balancer" in said.err
    assert stand.found() == {}
    assert stand.found("--certificate", str(stand.foreman.certificate), "--key", str(stand.foreman.key)) == {}


def test_what_differs_is_forgotten_or_is_gone_is_said_in_the_doctors_words(stand: Stand) -> None:
    second = "live02.example.net"
    del stand.proxies[second].features["dns"]
    stand.proxies[second].version = "3.11.0"
    with socket.create_server((MEMBERS[second], 8140)):
        found = stand.found()
    assert found.keys() == {
        ("MEMBER-VERSIONS", "proxies"), ("ADOPT-FEATURES", f"dns on {second}"), ("ADOPT-UNLED", f"puppet on {second}"),
    }  # fmt: skip
    assert "runs on live01.example.net and not on live02.example.net" in found["ADOPT-FEATURES", f"dns on {second}"]
    stand.running[second].close()
    said = stand.adopt()
    assert said.code == 1
    assert "# - error MEMBER-DOWN live02.example.net: live02.example.net answers on none of its ports" in said.out
    assert "systemctl status foreman-proxy" in said.out


def test_a_certificate_without_the_clusters_name_is_an_error(stand: Stand) -> None:
    second = "live02.example.net"
    stand.running[second].close()
    ca = ClusterCA.open(stand.home / "pki")
    now = datetime.now(UTC)
    bundle = write(ca.issue(BundleRequest("member", second), now=now), stand.home / "pki" / "forgotten")
    with ruby.running(stand.proxies[second], bundle, stand.home / "pki" / "ca.pem"):
        found = stand.found()
    assert [code for code, _ in found] == ["TLS-NAME"]
    assert ADDRESS in next(iter(found.values()))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("--live",), "--live needs --ca FILE"),
        (("--ca", "ca.pem"), "--ca counts with --live only"),
        (("--certificate", "x.pem"), "count with --live only"),
        (("--live", "--ca", "ca.pem", "--key", "x.key"), "--key belongs to --certificate"),
    ],
)
def test_options_that_mean_nothing_alone_are_refused(tmp_path: Path, given: tuple[str, ...], why: str) -> None:
    said = muster("adopt", "--haproxy", str(tmp_path / "haproxy.cfg"), *given)
    assert said.code == 2
    assert why in " ".join(said.err.split())
