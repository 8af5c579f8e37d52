"""All members answer the same version of a repository, whole, whatever their Pulps have (stand-ins) at the moment."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.cli.demo.bind import free_port
from muster.content import views
from muster.content.views import Views
from muster.kernel.errors import Unavailable
from muster.store.engine import Store
from tests.servers import member
from tests.servers.client import Answer, Place, ask
from tests.servers.member import Member
from tests.servers.pulp_stand_in import ROOT, Pulp, Version, version
from tests.servers.waiting import is_ready, stopped, until

REPOMD = f"{ROOT}/repodata/repomd.xml"
LAG_S = 4.0


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

    def get(self, at: int, path: str, *, method: str = "GET", name: str | None = None, **more: Any) -> Answer:
        found = self.members[at]
        return ask(Place(found.https.address, self.port), method, path, tls=found.tls(name), **more)

    def shown(self, at: int, *, name: str | None = None) -> bytes:
        answer = self.get(at, REPOMD, name=name)
        assert answer.status == 200, answer
        return answer.body

    def until_shown(self, wanted: Version, *, name: str | None = None) -> None:
        """Return when every member answers with a version; each answer before is one that was, never one of before that."""
        deadline = time.monotonic() + 30
        is_new = False
        while time.monotonic() < deadline:
            found = [self.shown(at, name=name) == wanted.repomd for at in range(len(self.members))]
            assert not is_new or all(found), "older after newer"
            is_new = is_new or any(found)
            if all(found):
                return
            time.sleep(0.05)
        raise AssertionError("the version was never shown")


# Workers hear from their member what is shown.
also_with_workers = pytest.mark.parametrize("cluster", [1, 2], ids=["alone", "two workers"], indirect=True)


@pytest.fixture(params=[1])
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
            stack.callback(stopped, one)
        it = Cluster(members, pulps, ports["https"])
        until(lambda: all(is_ready(it.members[at]) and _knows_the_other(it, at) for at in range(2)))
        yield it


def _knows_the_other(cluster: Cluster, at: int) -> bool:
    path = f"/pulp/content/known-by-{at}"
    return cluster.get(at, path).status == 404 and all(("GET", path) in pulp.asked for pulp in cluster.pulps)


def _carry(cluster: Cluster, *versions: Version | None) -> None:
    for pulp, one in zip(cluster.pulps, versions, strict=True):
        pulp.carries = one


@also_with_workers
def test_both_answer_what_both_carry_with_one_validator(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    tag = f'"sha256:{hashlib.sha256(one.repomd).hexdigest()}"'
    for at in (0, 1):
        answer = cluster.get(at, REPOMD)
        assert (answer.status, answer.body, answer.headers["etag"]) == (200, one.repomd, tag)
        assert cluster.get(at, f"{REPOMD}.asc").body == one.files["repodata/repomd.xml.asc"]
        for name in (one.primary, "Packages/same.rpm", "Packages/of1.rpm"):
            found = cluster.get(at, f"{ROOT}/{name}")
            assert (found.status, found.body) == (200, one.files[name]), name
            assert found.headers["etag"] == f'"sha256:{hashlib.sha256(one.files[name]).hexdigest()}"'
        assert cluster.get(at, REPOMD, headers={"If-None-Match": tag}).status == 304
    assert cluster.get(0, f"{REPOMD}.key").status == 404


def test_a_version_is_shown_by_all_when_two_pulps_carry_it(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    # The second has flipped, and keeps nothing of what it had.
    _carry(cluster, one, two)
    until = time.monotonic() + LAG_S / 2
    while time.monotonic() < until:
        for at in (0, 1):
            assert cluster.shown(at) == one.repomd
            assert cluster.get(at, f"{REPOMD}.asc").body == one.files["repodata/repomd.xml.asc"]
            for name in (one.primary, "Packages/of1.rpm", "Packages/again.rpm"):
                assert cluster.get(at, f"{ROOT}/{name}").body == one.files[name], (at, name)
    _carry(cluster, two, two)
    cluster.until_shown(two)
    for at in (0, 1):
        for name in (two.primary, "Packages/of2.rpm", "Packages/again.rpm"):
            assert cluster.get(at, f"{ROOT}/{name}").body == two.files[name], (at, name)
        # Whoever still reads the metadata of before gets all of it.
        assert cluster.get(at, f"{ROOT}/{one.primary}").body == one.files[one.primary]


@also_with_workers
def test_a_pulp_that_lags_is_not_waited_for_and_its_member_gives_the_new_bytes(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    assert len(one.packages["again"]) == len(two.packages["again"])
    _carry(cluster, one, one)
    cluster.until_shown(one)
    _carry(cluster, one, two)
    cluster.until_shown(two)
    for name in (two.primary, "Packages/of2.rpm", "Packages/again.rpm"):
        for at in (0, 1):
            found = cluster.get(at, f"{ROOT}/{name}")
            assert (found.status, found.body) == (200, two.files[name]), (at, name)
    # And its member leaves content with a sentence.
    one_member = cluster.members[0]
    until(lambda: not is_ready(cluster.members[0]))
    said = ask(one_member.https, "GET", "/health/ready?service=https", tls=one_member.tls()).body.decode()
    assert "still carries" in said, said


def test_who_publishes_the_same_packages_anew_does_not_lag(cluster: Cluster) -> None:
    one, again = version(1, packages(1)), version(2, packages(1))
    assert one.repomd != again.repomd
    _carry(cluster, one, again)
    cluster.until_shown(again)
    time.sleep(LAG_S + 2)
    assert [is_ready(cluster.members[at]) for at in (0, 1)] == [True, True]


def test_a_repository_that_changes_faster_than_all_have_a_version_is_shown_all_the_same(cluster: Cluster) -> None:
    """Two Pulps that are never at the same version, and change while a member fetches."""
    versions = [version(n, {"same": b"the same"}) for n in range(1, 9)]
    _carry(cluster, versions[0], versions[0])
    cluster.until_shown(versions[0])
    shown = [0]
    for n in range(1, len(versions)):
        for at, pulp in enumerate(cluster.pulps):
            pulp.pause_s = 0.3
            pulp.carries, pulp.before = versions[n - at], versions[: n - at]
            until = time.monotonic() + 1.3
            while time.monotonic() < until:
                shown.append([v.repomd for v in versions].index(cluster.shown(len(shown) % 2)))
                time.sleep(0.1)
    assert shown == sorted(shown)
    assert len(set(shown)) > 2, "nothing newer was shown while there was something newer still"


def test_metadata_stays_when_every_pulp_is_gone(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    for pulp in cluster.pulps:
        pulp.status = 500
    for at in (0, 1):
        assert cluster.shown(at) == one.repomd
        assert cluster.get(at, f"{ROOT}/{one.primary}").body == one.files[one.primary]
        assert cluster.get(at, f"{ROOT}/Packages/same.rpm").status >= 500


def test_a_member_that_lost_the_store_answers_as_the_others_do(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    lost = cluster.members[0].process.store
    for name in ("shown", "picture", "ask", "tell", "show", "know"):
        monkeypatch.setattr(Views, name, _lost(getattr(Views, name), lost))
    # It still says in the roster that it is there, which one without the store could not.
    monkeypatch.setattr(views, "_SILENT_S", 2.0)
    _carry(cluster, two, two)
    until(lambda: cluster.shown(1) == two.repomd)
    assert cluster.shown(0) == two.repomd
    assert cluster.get(0, f"{ROOT}/{two.primary}").body == two.files[two.primary]


def _lost(method: Callable[..., Any], store: Store) -> Callable[..., Any]:
    async def called(self: Views, *arguments: Any, **more: Any) -> Any:
        if self._store is store:
            raise Unavailable("The store is cut off")
        return await method(self, *arguments, **more)

    return called


def test_going_back_works_with_the_last_pulp(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    _carry(cluster, two, two)
    cluster.until_shown(two)
    _carry(cluster, one, two)
    time.sleep(2)
    assert [cluster.shown(at) for at in (0, 1)] == [two.repomd] * 2
    _carry(cluster, one, one)
    cluster.until_shown(one)
    assert cluster.get(1, f"{ROOT}/Packages/again.rpm").body == one.files["Packages/again.rpm"]


def test_a_member_that_comes_back_without_its_disk_has_all_before_it_is_ready(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    back = cluster.members[0]
    back.stop()
    shutil.rmtree(back.pki / "content")
    # Meanwhile the other one goes on, alone after the lag, and its Pulp dies.
    _carry(cluster, one, two)
    until(lambda: cluster.shown(1) == two.repomd)
    cluster.pulps[1].status = 500
    back.start()
    until(lambda: cluster.get(0, "/pulp/content/nothing").status in (404, 503))
    assert cluster.shown(0) == two.repomd
    assert cluster.get(0, f"{ROOT}/{two.primary}").body == two.files[two.primary]


@also_with_workers
def test_a_guard_is_asked_for_what_lies_on_the_disk(cluster: Cluster) -> None:
    one = version(1, packages(1))
    for pulp in cluster.pulps:
        pulp.guarded = True
    _carry(cluster, one, one)
    assert cluster.get(0, REPOMD).status == 403
    cluster.until_shown(one, name="host.example.com")
    for at in (0, 1):
        for name in ("repodata/repomd.xml", "repodata/repomd.xml.asc", one.primary, "Packages/same.rpm"):
            assert cluster.get(at, f"{ROOT}/{name}").status == 403, name
            assert cluster.get(at, f"{ROOT}/{name}", method="HEAD").status == 403, name
            assert cluster.get(at, f"{ROOT}/{name}", name="host.example.com").body == one.files[name], name
    tag = f'"sha256:{hashlib.sha256(one.files["Packages/same.rpm"]).hexdigest()}"'
    assert cluster.get(0, f"{ROOT}/Packages/same.rpm", headers={"If-None-Match": tag}).status == 403
    # One whose Pulp lost the repository, and its guard with it, lets nobody in by itself.
    cluster.pulps[0].carries = None
    cluster.pulps[0].guarded = False
    time.sleep(2)
    assert cluster.get(0, f"{ROOT}/{one.primary}").status == 403
    assert cluster.get(0, f"{ROOT}/{one.primary}", name="host.example.com").body == one.files[one.primary]


@also_with_workers
def test_what_gets_a_guard_later_is_for_who_that_lets_in(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    names = ("repodata/repomd.xml", one.primary, "Packages/same.rpm")

    def all_are(status: int, name: str | None = None) -> bool:
        return {cluster.get(at, f"{ROOT}/{n}", name=name).status for at in (0, 1) for n in names} == {status}

    assert all_are(200)
    for pulp in cluster.pulps:
        pulp.guarded = True
    until(lambda: all_are(403))
    assert all_are(200, "host.example.com")
    assert all_are(403)
    for pulp in cluster.pulps:
        pulp.guarded = False
    until(lambda: all_are(200))


def test_what_lies_on_a_disk_is_for_members_alone(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    for path in (f"/.muster/kept/{hashlib.sha256(one.repomd).hexdigest()}", f"/.muster/shown{ROOT}"):
        for name in (None, "host.example.com", member.TRUSTED):
            assert cluster.get(0, path, name=name).status == 403


@also_with_workers
def test_a_package_is_answered_for_from_what_metadata_says_of_it(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    path, body = f"{ROOT}/Packages/of1.rpm", one.files["Packages/of1.rpm"]
    tag = f'"sha256:{hashlib.sha256(body).hexdigest()}"'
    for pulp in cluster.pulps:
        pulp.asked.clear()
    head = cluster.get(0, path, method="HEAD")
    assert (head.status, head.headers["content-length"], head.headers["etag"]) == (200, str(len(body)), tag)
    assert cluster.get(0, path, headers={"If-None-Match": tag}).status == 304
    assert cluster.get(0, path, headers={"If-Match": '"other"'}).status == 412
    assert not [p for pulp in cluster.pulps for _, p in pulp.asked if p == path]
    part = cluster.get(0, path, headers={"Range": "bytes=10-19", "If-Range": tag})
    assert (part.status, part.body) == (206, body[10:20])
    whole = cluster.get(0, path, headers={"Range": "bytes=10-19", "If-Range": '"other"'})
    assert (whole.status, whole.body) == (200, body)


def test_damaged_metadata_on_a_disk_is_never_served(cluster: Cluster) -> None:
    one = version(1, packages(1))
    _carry(cluster, one, one)
    cluster.until_shown(one)
    for digest in (hashlib.sha256(one.repomd).hexdigest(), one.primary.removeprefix("repodata/")[:64]):
        file = cluster.members[0].pki / "content" / "sha256" / digest[:2] / digest
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(b"x" * len(data))
    assert cluster.shown(0) == one.repomd
    assert cluster.get(0, f"{ROOT}/{one.primary}").body == one.files[one.primary]


def test_what_names_no_repository_is_as_its_pulp_has_it(cluster: Cluster) -> None:
    assert cluster.get(0, "/pulp/content/other/repodata/repomd.xml").status == 404
    assert cluster.get(0, f"{ROOT}/Packages/none.rpm").status == 404
