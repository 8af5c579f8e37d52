"""Members in front of real Pulps, with the real clients: dnf and apt."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.cli.demo.bind import free_port
from tests.servers import member, origins, pulp_api
from tests.servers.client import Answer, Place, ask
from tests.servers.clients import Apt, Dnf, Identity
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.servers.packages import Package
from tests.servers.pulp import Pulp

ALPHA, BETA, BIG = Package("alpha"), Package("beta"), Package("big", padding=5_000_000)
HOST = "host.example.com"


@dataclass(frozen=True)
class Front:
    """A member in front of a Pulp of its own."""

    member: Member
    pulp: Pulp
    https: Place
    http: Place

    def ask(
        self, path: str, *, method: str = "GET", name: str | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        return ask(self.https, method, f"/pulp/content/{path}", tls=self.member.tls(name), headers=headers)

    def url(self, path: str, *, tls: bool = True) -> str:
        if tls:
            return f"https://{CLUSTER_ADDRESS}:{self.https.port}/pulp/content/{path}"
        return f"http://{self.http.address}:{self.http.port}/pulp/content/{path}"

    def identity(self, name: str | None) -> Identity:
        file = self.member.client(name) if name else None
        return Identity(self.member.ca, file, file)


@pytest.fixture(scope="module")
def fronts(pulps: tuple[Pulp, Pulp], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, Front]]:
    with ExitStack() as stack:
        found = []
        for one in pulps:
            made = member.made(
                tmp_path_factory.mktemp("front"),
                content={"pulp_content_url": one.content_url().partition("/pulp/")[0]},
            )
            address = made.https.address
            https, http = Place(address, free_port(address)), Place(address, free_port(address))
            document = yaml.safe_load(made.cluster_file.read_text())
            document["services"] |= {"https": {"member_port": https.port}, "http": {"member_port": http.port}}
            made.cluster_file.write_text(yaml.safe_dump(document))
            made.start()
            stack.callback(made.stop)
            found.append(Front(made, one, https, http))
        yield found[0], found[1]


def test_dnf_gets_a_guarded_repository_with_its_certificate_and_without_it_is_left_out(
    fronts: tuple[Front, Front], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("dnf")
    needs("namespaces")
    front, _ = fronts
    source = origins.yum(tmp_path / "1", [ALPHA, BETA], revision=1)
    repository = pulp_api.repository(front.pulp.api, "rpm", "front/guarded").sync_from(source.as_uri())
    repository.guard(pulp_api.certificate_guard(front.pulp.api, "front", front.member.ca.read_text()))
    hosts = {CLUSTER_ADDRESS: front.https.address}
    urls = {"base": front.url("front/guarded/")}
    dnf = Dnf(tmp_path / "dnf", urls, front.identity(HOST), hosts=hosts)
    assert dnf.refresh().is_whole
    assert list(dnf.download("alpha").fetched) == [ALPHA.rpm_name]
    stranger = Dnf(tmp_path / "stranger", urls, front.identity(None), hosts=hosts).refresh()
    assert not stranger.is_whole
    assert front.ask("front/guarded/repodata/repomd.xml").status == 403
    # A name for a certificate is no certificate.
    forged = front.ask("front/guarded/repodata/repomd.xml", headers={"X-CLIENT-CERT": "anything"})
    assert forged.status == 403


def test_apt_updates_and_downloads(fronts: tuple[Front, Front], tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("apt")
    front, _ = fronts
    with origins.served(tmp_path) as origin:
        origins.deb(tmp_path / "deb", [ALPHA, BETA], revision=1, by_hash=True)
        debs = pulp_api.repository(front.pulp.api, "deb", "front/deb")
        debs.sync_from(origin.url("deb/"), distributions="stable").publish_verbatim()
    apt = Apt(tmp_path / "apt", [f"{front.url('front/deb', tls=False)} stable main"])
    updated = apt.update()
    assert updated.is_whole, updated
    assert list(apt.download("alpha").fetched) == [ALPHA.deb_name]
    # Nothing has changed, and it is told so by a validator of ours.
    assert apt.update().is_whole


def test_two_members_of_two_pulps_have_the_same_validators(fronts: tuple[Front, Front], tmp_path: Path) -> None:
    source = origins.yum(tmp_path / "1", [ALPHA, BETA], revision=1)
    for front in fronts:
        pulp_api.repository(front.pulp.api, "rpm", "front/same").sync_from(source.as_uri())
    one, other = fronts
    primary = next((source / "repodata").glob("*primary*")).name
    for path in (f"front/same/repodata/{primary}", "front/same/repodata/repomd.xml"):
        first, second = one.ask(path), other.ask(path)
        assert (first.status, first.headers["etag"], first.body) == (200, second.headers["etag"], second.body)
        assert other.ask(path, headers={"If-None-Match": first.headers["etag"]}).status == 304
        part = other.ask(path, headers={"Range": "bytes=2-5", "If-Range": '"of-another"'})
        assert (part.status, part.body) == (200, first.body)


def test_what_is_fetched_on_demand_comes_whole(fronts: tuple[Front, Front], tmp_path: Path) -> None:
    front, _ = fronts
    origins.yum(tmp_path / "1", [BIG], revision=1)
    path = f"front/later/Packages/b/{BIG.rpm_name}"
    with origins.served(tmp_path) as origin:
        pulp_api.repository(front.pulp.api, "rpm", "front/later").sync_from(origin.url("1/"), policy="on_demand")
        # Its length is not known before it is here, so it comes in chunks.
        connection = HTTPSConnection(front.https.address, front.https.port, context=front.member.tls(), timeout=30)
        with closing(connection):
            connection.request("GET", f"/pulp/content/{path}")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (200, BIG.rpm())
    again = front.ask(path)
    assert (again.headers["content-length"], again.body) == (str(len(BIG.rpm())), BIG.rpm())
    head = front.ask(path, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(BIG.rpm())))


def test_a_content_application_that_is_gone_takes_its_services_out_and_returns(fronts: tuple[Front, Front]) -> None:
    _, front = fronts

    def state(service: str) -> str:
        answer = front.member.ask("GET", f"/health/ready?service={service}")
        return {200: "ready", 503: "unready"}[answer.status]

    def until(wanted: str) -> None:
        deadline = time.monotonic() + 30
        while state("https") != wanted or state("http") != wanted:
            assert time.monotonic() < deadline, f"never {wanted}"
            time.sleep(0.1)

    until("ready")
    front.pulp.end("content")
    try:
        until("unready")
        # Metadata is on the member's own disk.
        gone = front.ask(f"front/same/Packages/a/{ALPHA.rpm_name}")
        assert (gone.status, "retry-after" in gone.headers) == (503, True)
        assert state("smartproxy") == "ready"
    finally:
        front.pulp.begin("content")
    until("ready")


@pytest.fixture(scope="module")
def both(pulps: tuple[Pulp, Pulp], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, Front]]:
    """Two members of one cluster, each in front of a Pulp of its own, and each with the metadata that this has."""

    def before(pulp: Pulp) -> Callable[[str], dict[str, Any]]:
        return lambda _: {"pulp_content_url": pulp.content_url().partition("/pulp/")[0], "one_version": False}

    members, ports = member.together(tmp_path_factory.mktemp("both"), [before(p) for p in pulps], "https", "http")
    with ExitStack() as stack:
        found = []
        for one, pulp in zip(members, pulps, strict=True):
            one.start()
            stack.callback(one.stop)
            address = one.https.address
            found.append(Front(one, pulp, Place(address, ports["https"]), Place(address, ports["http"])))
        # A question to the one is answered by the other's Pulp once they know each other.
        for front, pulp in zip(found, reversed(pulps), strict=True):
            name = f"known/{front.member.name}"
            pulp_api.repository(pulp.api, "rpm", name).sync_from(
                origins.yum(tmp_path_factory.mktemp("known"), [ALPHA], revision=1).as_uri()
            )
            deadline = time.monotonic() + 30
            while front.ask(f"{name}/repodata/repomd.xml").status != 200:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        yield found[0], found[1]


def test_dnf_that_read_the_newer_metadata_gets_its_packages_from_the_member_that_lags(
    both: tuple[Front, Front], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    """What sticky connections are for, where every proxy has its own Pulp: here the one that lags asks the other."""
    needs("dnf")
    needs("namespaces")
    newer, lagging = both
    old = origins.yum(tmp_path / "1", [ALPHA, BETA], revision=1)
    newest = Package("alpha", release="2")
    new = origins.yum(tmp_path / "2", [newest, BIG], revision=2)
    now = tmp_path / "now"
    now.symlink_to(old)
    guarded = []
    for front in both:
        repository = pulp_api.repository(front.pulp.api, "rpm", "both/guarded", retain_versions=5)
        repository = repository.sync_from(now.as_uri())
        repository.guard(pulp_api.certificate_guard(front.pulp.api, "both", front.member.ca.read_text()))
        guarded.append(repository)
    now.unlink()
    now.symlink_to(new)
    guarded[0].sync()
    url = newer.url("both/guarded/")
    here = Dnf(tmp_path / "dnf", {"base": url}, newer.identity(HOST), hosts={CLUSTER_ADDRESS: newer.https.address})
    there = replace(here, hosts={CLUSTER_ADDRESS: lagging.https.address})
    assert here.refresh().is_whole
    got = there.download("alpha", "big")
    assert got.fetched == {p.rpm_name: hashlib.sha256(p.rpm()).hexdigest() for p in (newest, BIG)}, got
    path = f"both/guarded/Packages/b/{BIG.rpm_name}"
    assert lagging.ask(path, name=HOST).status == 200
    assert lagging.ask(path).status == 403, "the other Pulp asks for the host's certificate, too"
    # And back: what the newer one has dropped but still keeps.
    stale = replace(there, directory=tmp_path / "stale")
    assert stale.refresh().is_whole
    fetched = replace(stale, hosts={CLUSTER_ADDRESS: newer.https.address}).download("beta").fetched
    assert list(fetched) == [BETA.rpm_name]
