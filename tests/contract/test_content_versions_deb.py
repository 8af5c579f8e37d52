"""All members answer the same version of a deb suite, whole, and each client the lists of the version that it has."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.cli.demo.bind import free_port
from muster.content.fill import Behind
from muster.content.given import key
from tests.servers import member
from tests.servers.client import Answer, Place, ask
from tests.servers.clients import Apt, Identity
from tests.servers.deb_stand_in import BINARY, SUITE, both, version
from tests.servers.member import Member
from tests.servers.packages import Package
from tests.servers.pulp_stand_in import ROOT, Pulp, Version
from tests.servers.waiting import is_ready, until

HOST = "host.example.com"
LAG_S = 4.0
PACKAGES = f"{SUITE}/{BINARY}/Packages.gz"


def packages(revision: int) -> dict[str, bytes]:
    """Return the packages of a revision: one stays, one has a name of its own, one has other bytes of the same length."""
    return {
        "same": b"the same " * 300,
        f"of{revision}": b"of %3d " % revision * 300,
        "again": b"built %3d " % revision * 300,
    }


@dataclass
class Cluster:
    members: list[Member]
    pulps: list[Pulp]
    port: int

    def get(
        self,
        at: int,
        below: str,
        *,
        method: str = "GET",
        name: str | None = None,
        source: str | None = None,
        **more: Any,
    ) -> Answer:
        """Ask a member for a path below the archive; a name is one client with one certificate, at whichever member."""
        path = below if below.startswith("/") else f"{ROOT}/{below}"
        place = Place(self.members[at].https.address, self.port)
        return ask(place, method, path, tls=self.members[0].tls(name), source=source, **more)

    def shown(self, at: int, *, entry: str = "InRelease", name: str | None = None, source: str | None = None) -> bytes:
        answer = self.get(at, f"{SUITE}/{entry}", name=name, source=source)
        assert answer.status == 200, answer
        return answer.body

    def until_shown(self, wanted: Version, *, entry: str = "InRelease", name: str | None = None) -> None:
        """Return when every member answers with a version; each answer before is one that was, never one of before that."""
        deadline = time.monotonic() + 30
        is_new = False
        while time.monotonic() < deadline:
            expected = wanted.files[f"{SUITE}/{entry}"]
            found = [self.shown(at, entry=entry, name=name) == expected for at in range(len(self.members))]
            assert not is_new or all(found), "older after newer"
            is_new = is_new or any(found)
            if all(found):
                return
            time.sleep(0.05)
        raise AssertionError("the version was never shown")


@pytest.fixture(params=[1, 2], ids=["alone", "two workers"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    def content(address: str) -> dict[str, Any]:
        url = f"http://{address}:{port}"
        return {
            "pulp_content_url": url, "pulp_api_url": url, "workers": request.param,
            "first_byte_timeout_s": 10, "hold_s": 3, "fill_after_s": 0.3, "lag_s": LAG_S,
        }  # fmt: skip

    port = free_port()
    members, ports = member.together(tmp_path, [content] * 2, "https", "http")
    pulps = [Pulp(m.https.address, port) for m in members]
    with contextlib.ExitStack() as stack:
        for pulp in pulps:
            stack.enter_context(pulp.running())
        for one in members:
            one.start()
            stack.callback(one.stop)
        it = Cluster(members, pulps, ports["https"])
        until(lambda: all(is_ready(it.members[at]) and _knows_the_other(it, at) for at in range(2)))
        yield it


def _knows_the_other(cluster: Cluster, at: int) -> bool:
    path = f"/pulp/content/known-by-{at}"
    return cluster.get(at, path).status == 404 and all(("GET", path) in pulp.asked for pulp in cluster.pulps)


def _carry(cluster: Cluster, *versions: Version | None) -> None:
    for pulp, one in zip(cluster.pulps, versions, strict=True):
        pulp.carries = one


def test_both_answer_what_both_carry(cluster: Cluster) -> None:
    one = version(1, packages(1), sha512=True)
    _carry(cluster, one, one)
    cluster.until_shown(one)
    for at in (0, 1):
        for name, data in one.files.items():
            found = cluster.get(at, name)
            assert (found.status, found.body) == (200, data), name
            tag = f'"sha256:{hashlib.sha256(data).hexdigest()}"'
            assert found.headers["etag"] == tag, name
            assert cluster.get(at, name, headers={"If-None-Match": tag}).status == 304
            assert cluster.get(at, name, method="HEAD").headers["content-length"] == str(len(data))
        for name in (f"{SUITE}/{BINARY}/Packages.xz", f"{SUITE}/main/i18n/Translation-de.bz2", "pool/none.deb"):
            assert cluster.get(at, name).status == 404, name


def test_names_of_digests_are_answered_though_pulp_has_none(cluster: Cluster) -> None:
    one, two = version(1, packages(1), sha512=True), version(2, packages(2), sha512=True)
    for now in (one, two):
        _carry(cluster, now, now)
        cluster.until_shown(now)
    for kept in (one, two):
        data = kept.files[PACKAGES]
        for algorithm in ("sha256", "sha512"):
            digest = hashlib.new(algorithm, data).hexdigest()
            for at in (0, 1):
                found = cluster.get(at, f"{SUITE}/{BINARY}/by-hash/{algorithm.upper()}/{digest}")
                assert (found.status, found.body) == (200, data), (algorithm, kept.revision)
                assert found.headers["etag"] == f'"{algorithm}:{digest}"'
    assert cluster.get(0, f"{SUITE}/{BINARY}/by-hash/SHA256/{'0' * 64}").status == 404


def test_a_version_is_shown_whole_when_two_pulps_carry_it(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    _carry(cluster, one, two)
    until = time.monotonic() + LAG_S / 2
    while time.monotonic() < until:
        for at in (0, 1):
            assert cluster.shown(at) == one.files[f"{SUITE}/InRelease"]
            for name in one.files:
                assert cluster.get(at, name).body == one.files[name], (at, name)
    _carry(cluster, two, two)
    cluster.until_shown(two)
    for at in (0, 1):
        for name, data in two.files.items():
            assert cluster.get(at, name, source="127.0.0.9").body == data, (at, name)


@pytest.mark.parametrize("by", ["certificate", "address"])
def test_a_client_gets_the_lists_of_the_version_that_it_has(cluster: Cluster, by: str) -> None:
    names = ("slow.example.com", "quick.example.com", "new.example.com") if by == "certificate" else (None,) * 3
    sources = (None,) * 3 if by == "certificate" else ("127.0.0.7", "127.0.0.8", "127.0.0.9")
    clients: list[dict[str, Any]] = [{"name": n, "source": s} for n, s in zip(names, sources, strict=True)]
    slow, quick, new = clients
    one, two = version(1, packages(1)), version(2, packages(2))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    for at, client in enumerate((slow, quick)):
        assert cluster.shown(at, **client) == one.files[f"{SUITE}/InRelease"]
    _carry(cluster, two, two)
    cluster.until_shown(two)
    # At the other member than before, and then at both.
    assert cluster.shown(0, **quick) == two.files[f"{SUITE}/InRelease"]
    for at in (0, 1):
        for name in (PACKAGES, f"{SUITE}/{BINARY}/Release", f"{SUITE}/Release.gpg", f"{SUITE}/main/Contents-amd64.gz"):
            assert cluster.get(at, name, **quick).body == two.files[name], (at, name)
            # Who has nothing gets what is shown.
            assert cluster.get(at, name, **new).body == two.files[name], (at, name)
            if "Contents" not in name:
                assert cluster.get(at, name, **slow).body == one.files[name], (at, name)
    # No Pulp has it any more, and what is shown has another under that name.
    assert cluster.get(1, f"{SUITE}/main/Contents-amd64.gz", **slow).status == 404
    assert cluster.shown(1, **slow) == two.files[f"{SUITE}/InRelease"]
    for at in (0, 1):
        assert cluster.get(at, PACKAGES, **slow).body == two.files[PACKAGES]


def test_a_suite_may_have_no_in_release(cluster: Cluster) -> None:
    one, two = version(1, packages(1), signed=False), version(2, packages(2), signed=False)
    client = {"source": "127.0.0.7"}
    _carry(cluster, one, one)
    cluster.until_shown(one, entry="Release")
    assert cluster.shown(0, entry="Release", **client) == one.files[f"{SUITE}/Release"]
    _carry(cluster, two, two)
    cluster.until_shown(two, entry="Release")
    for at in (0, 1):
        for name in ("InRelease", "Release.gpg"):
            assert cluster.get(at, f"{SUITE}/{name}").status == 404
        assert cluster.get(at, PACKAGES, **client).body == one.files[PACKAGES]
        assert cluster.get(at, PACKAGES, source="127.0.0.9").body == two.files[PACKAGES]


def test_a_pulp_that_lags_gives_no_old_bytes(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    _carry(cluster, one, two)
    cluster.until_shown(two)
    for name in ("pool/of2.deb", "pool/again.deb", f"{SUITE}/main/Contents-amd64.gz"):
        for at in (0, 1):
            found = cluster.get(at, name, source="127.0.0.9")
            assert (found.status, found.body) == (200, two.files[name]), (at, name)
    until(lambda: not is_ready(cluster.members[0]))


def test_publications_of_the_same_packages_are_as_good_as_each_other(cluster: Cluster) -> None:
    """As Pulps publish by themselves: other dates, and other bytes of Packages.gz."""
    one, two = (version(n, packages(1), has_contents=False) for n in (1, 2))
    _carry(cluster, one, two)
    cluster.until_shown(two)
    until = time.monotonic() + LAG_S + 3
    while time.monotonic() < until:
        assert all(is_ready(cluster.members[at]) for at in (0, 1))
        for at in (0, 1):
            assert cluster.shown(at) == two.files[f"{SUITE}/InRelease"]
            assert cluster.get(at, PACKAGES).body == two.files[PACKAGES]
        time.sleep(0.3)


def test_suites_of_one_archive_share_their_packages(cluster: Cluster) -> None:
    other = "dists/testing"
    one = version(1, packages(1))
    archive = both(one, version(1, {"of9": b"of 9 " * 100}, suite=other))
    _carry(cluster, archive, archive)
    cluster.until_shown(one)
    until(lambda: cluster.get(0, f"{other}/InRelease").body == archive.files[f"{other}/InRelease"])
    until(lambda: cluster.get(1, f"{other}/InRelease").body == archive.files[f"{other}/InRelease"])
    for at in (0, 1):
        for name, data in archive.files.items():
            assert cluster.get(at, name).body == data, name
    # And each of them goes on by itself.
    two = version(2, packages(2))
    later = both(two, version(1, {"of9": b"of 9 " * 100}, suite=other))
    _carry(cluster, later, later)
    cluster.until_shown(two)
    for at in (0, 1):
        for name in ("pool/of2.deb", "pool/of9.deb", f"{other}/{BINARY}/Packages.gz"):
            assert cluster.get(at, name).body == later.files[name], name


def test_lists_stay_when_every_pulp_is_gone(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    for pulp in cluster.pulps:
        pulp.status = 500
    for at in (0, 1):
        for name in ("InRelease", "Release", "Release.gpg", f"{BINARY}/Packages", f"{BINARY}/Packages.gz"):
            assert cluster.get(at, f"{SUITE}/{name}").body == one.files[f"{SUITE}/{name}"]
        assert cluster.get(at, "pool/same.deb").status >= 500


def test_a_list_that_one_pulp_alone_has_is_answered_by_all(cluster: Cluster) -> None:
    """As where they were told to sync other architectures of the same suite."""
    one = version(1, packages(1))
    name = f"{SUITE}/{BINARY}/Packages.xz"
    more = Version(1, one.packages, {**one.files, name: b"not here"})
    # Whose Pulp has it must not matter.
    _carry(cluster, one, more)
    cluster.until_shown(one)
    for at in (0, 1):
        found = cluster.get(at, name)
        assert (found.status, found.body) == (200, b"not here"), at


def test_what_a_disk_lost_another_member_gives(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    for pulp in cluster.pulps:
        pulp.status = 500
    for name in ("InRelease", f"{BINARY}/Packages.gz"):
        data = one.files[f"{SUITE}/{name}"]
        digest = hashlib.sha256(data).hexdigest()
        (cluster.members[0].pki / "content" / "sha256" / digest[:2] / digest).unlink()
        found = cluster.get(0, f"{SUITE}/{name}")
        assert (found.status, found.body) == (200, data)
        head = cluster.get(0, f"{SUITE}/{name}", method="HEAD")
        assert (head.status, head.headers["content-length"]) == (200, str(len(data)))


def test_a_guard_is_asked_for_what_lies_on_the_disk(cluster: Cluster) -> None:
    one = version(1, packages(1))
    for pulp in cluster.pulps:
        pulp.guarded = True
    _carry(cluster, one, one)
    assert cluster.get(0, f"{SUITE}/InRelease").status == 403
    cluster.until_shown(one, name=HOST)
    digest = hashlib.sha256(one.files[PACKAGES]).hexdigest()
    for at in (0, 1):
        for name in (*one.files, f"{SUITE}/{BINARY}/by-hash/SHA256/{digest}"):
            for method in ("GET", "HEAD"):
                assert cluster.get(at, name, method=method).status == 403, name
            assert cluster.get(at, name, name=HOST).status == 200, name


def test_what_members_remember_is_for_members_alone(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    path = f"/.muster/given/{key(f'{ROOT}/{SUITE}', Behind('127.0.0.1', None))}"
    for name in (None, HOST, member.TRUSTED):
        assert cluster.get(0, path, name=name).status == 403


def test_what_is_no_release_is_as_its_pulp_has_it(cluster: Cluster) -> None:
    body = b"Suite: stable\nMD5Sum:\n"
    odd = Version(1, {}, {f"{SUITE}/Release": body, PACKAGES: b"whatever", "pool/x.deb": b"x"})
    _carry(cluster, odd, odd)
    for at in (0, 1):
        for name, data in odd.files.items():
            found = cluster.get(at, name)
            assert (found.status, found.body) == (200, data), name
    assert cluster.get(0, "dists/other/InRelease").status == 404


@pytest.mark.parametrize("by_hash", [True, False], ids=["by hash", "plain names"])
def test_apt_fetches_lists_and_packages(
    cluster: Cluster, tmp_path: Path, needs: Callable[[str], None], by_hash: bool
) -> None:
    needs("apt")
    made = [Package("alpha"), Package("alpha", release="2")]
    versions = [version(n, {"alpha": p.deb()}, signed=False, by_hash=by_hash) for n, p in enumerate(made)]
    apts = [
        Apt(
            tmp_path / f"apt{at}", [f"https://{m.https.address}:{cluster.port}{ROOT} stable main"],
            Identity(m.ca),
        )
        for at, m in enumerate(cluster.members)
    ]  # fmt: skip
    for now in versions:
        _carry(cluster, now, now)
        cluster.until_shown(now, entry="Release")
        for apt in apts:
            updated = apt.update()
            assert updated.is_whole, updated
            assert hashlib.sha256(now.files[f"{SUITE}/{BINARY}/Packages"]).hexdigest() in apt.lists().values()
            wanted = hashlib.sha256(now.files["pool/alpha.deb"]).hexdigest()
            got = apt.download("alpha")
            assert list(got.fetched.values()) == [wanted], got
    asked = " ".join(path for pulp in cluster.pulps for _, path in pulp.asked)
    for now in versions:
        # It comes from the disk, where Pulp has nothing of that name.
        assert f"by-hash/SHA256/{hashlib.sha256(now.files[PACKAGES]).hexdigest()}" not in asked
