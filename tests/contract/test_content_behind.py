"""Whose disk or Pulp does not follow is named, keeps nothing from the others, and stays where it is the only one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from muster.cli import doctor, parity
from muster.cli.content import status as content_status
from muster.cli.demo.bind import free_port
from muster.cluster.roster import seen_in
from muster.content.views import Picture
from muster.kernel.secrets import Secret
from muster.pki import bundles
from muster.pki.bundles import BundleRequest
from muster.store.glance import glanced
from tests.contract.test_content_versions import Cluster, packages
from tests.servers import member
from tests.servers.client import ask
from tests.servers.pulp_stand_in import ROOT, Pulp, Version, version
from tests.servers.waiting import stopped, until

LAG_S = 3.0
LEAST_BYTES = 64 << 20


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    def content(address: str) -> dict[str, Any]:
        url = f"http://{address}:{port}"
        return {
            "pulp_content_url": url, "pulp_api_url": url, "first_byte_timeout_s": 10, "hold_s": 3, "fill_after_s": 0.3,
            "lag_s": LAG_S, "kept_bytes": LEAST_BYTES,
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
        until(lambda: all(verdict(it, at)[0] == 200 for at in range(2)))
        yield it


def verdict(cluster: Cluster, at: int) -> tuple[int, str]:
    """Return what a balancer hears of a member, and its words."""
    one = cluster.members[at]
    answer = ask(one.https, "GET", "/health/ready?service=https", tls=one.tls())
    return answer.status, answer.body.decode()


def carry(cluster: Cluster, one: Version) -> None:
    for pulp in cluster.pulps:
        pulp.carries = one


def restart(cluster: Cluster, at: int, *, full: bool) -> None:
    """Start a member anew, with a disk on which there is no room by its limit, or with one on which there is."""
    one = cluster.members[at]
    one.stop()
    large = one.pki / "content" / "sha256" / "00" / f"{'0' * 64}"
    if full:
        large.parent.mkdir(parents=True, exist_ok=True)
        with large.open("wb") as file:
            # Counted, and not written.
            file.truncate(LEAST_BYTES)
    else:
        large.unlink()
    one.start()
    until(lambda: verdict(cluster, at)[0] == 200 and one.name in ready(cluster))


def ready(cluster: Cluster) -> frozenset[str]:
    """Return who takes clients of content, as all members read it."""

    async def read() -> frozenset[str]:
        store = glanced(Secret(f"sqlite:///{cluster.members[0].directory.parent / 'store.db'}"))
        async with store.read() as uow:
            return Picture(await uow.now(), members=await seen_in(uow)).ready(["https"])

    return asyncio.run(read())


def test_a_full_disk_keeps_the_others_from_nothing_for_longer_than_the_lag(cluster: Cluster) -> None:
    one, two, three = (version(n, packages(n)) for n in (1, 2, 3))
    carry(cluster, one)
    cluster.until_shown(one)
    restart(cluster, 0, full=True)
    carry(cluster, two)
    # It says so while it still takes clients, who get what both have.
    until(lambda: cluster.shown(1) == two.repomd)
    status, said = verdict(cluster, 0)
    assert status == 503
    assert "it has not all metadata of revision 2" in said, said
    assert f"of {LEAST_BYTES} bytes are taken" in said, said
    assert verdict(cluster, 1)[0] == 200

    def matters() -> list[tuple[str, list[str]]]:
        (of,) = asyncio.run(content_status.collected(cluster.members[1].cluster_file))["repositories"]
        return [(m["kind"], list(m["members"])) for m in of["matters"]]

    # The other one reads what this one has said of itself a moment later.
    until(lambda: ("unstaged", [cluster.members[0].name]) in matters())
    assert counted(cluster, 0, "muster_content_behind") == counted(cluster, 0, "muster_content_repositories") == 1
    assert counted(cluster, 0, "muster_content_kept_bytes") > LEAST_BYTES
    assert counted(cluster, 1, "muster_content_behind") == 0
    # Whoever comes to it nevertheless gets the same.
    assert cluster.shown(0) == two.repomd
    began = time.monotonic()
    carry(cluster, three)
    until(lambda: cluster.shown(1) == three.repomd)
    assert time.monotonic() - began < 30
    restart(cluster, 0, full=False)
    cluster.until_shown(three)


def counted(cluster: Cluster, at: int, name: str) -> float:
    """Return what a member counts, as Prometheus reads it."""
    one = cluster.members[at]
    text = ask(one.https, "GET", "/metrics", tls=one.tls(member.TRUSTED)).body.decode()
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(f"{name} "))


def of_an_administrator(cluster: Cluster) -> Path:
    """Return a directory with what shows members who asks."""
    one = cluster.members[0]
    pki = one.directory.parent / "administrator"
    bundles.write(one.authority.issue(BundleRequest("balancer", "balancer"), now=datetime.now(UTC)), pki)
    shutil.copy(one.ca, pki / "ca.pem")
    return pki


def test_a_pulp_that_lags_is_named_by_status_doctor_and_parity(cluster: Cluster) -> None:
    one, two = (version(n, packages(n)) for n in (1, 2))
    carry(cluster, one)
    cluster.until_shown(one)
    cluster.pulps[1].carries = two
    cluster.until_shown(two)
    lags, file = cluster.members[0].name, cluster.members[1].cluster_file
    pki = of_an_administrator(cluster)
    until(lambda: verdict(cluster, 0)[0] == 503)
    # Nobody asks any more, and it is known for a minute.
    (of,) = asyncio.run(content_status.collected(file))["repositories"]
    assert of["is_wrong"], of
    assert [(m["kind"], list(m["members"])) for m in of["matters"]] == [("behind", [lags])]
    assert "still carries revision 1" in of["sentence"]
    found = asyncio.run(doctor.examination(file, pki))["findings"]
    behind = [f for f in found if f["code"] == "CONTENT-BEHIND"]
    assert [f["place"] for f in behind] == [ROOT], found
    because = {f["because"] for f in found if f["code"] == "MEMBER-UNREADY" and f["place"].endswith(f" on {lags}")}
    assert because == {"CONTENT-BEHIND"}, found
    drifts = asyncio.run(parity.examination(file, pki))["drifts"]
    (drift,) = [d for d in drifts if d["field"] == f"content.{ROOT}"]
    assert list(drift["differing"]) == [lags]
    assert "shown is revision 2" in drift["sentence"]


def test_the_only_member_stays_with_a_full_disk_and_says_so(cluster: Cluster) -> None:
    one, two = (version(n, packages(n)) for n in (1, 2))
    carry(cluster, one)
    cluster.until_shown(one)
    cluster.members[1].stop()
    restart(cluster, 0, full=True)
    carry(cluster, two)
    until(lambda: cluster.shown(0) == one.repomd and "bytes are taken" in verdict(cluster, 0)[1])
    until_at = time.monotonic() + 2 * LAG_S
    while time.monotonic() < until_at:
        status, said = verdict(cluster, 0)
        assert (status, cluster.shown(0) == one.repomd) == (200, True), said
        time.sleep(0.2)
    assert "not all of it comes to this disk" in verdict(cluster, 0)[1]


def test_of_two_full_disks_both_stay_where_neither_has_more(cluster: Cluster) -> None:
    one, two = (version(n, packages(n)) for n in (1, 2))
    carry(cluster, one)
    cluster.until_shown(one)
    for at in (0, 1):
        restart(cluster, at, full=True)
    carry(cluster, two)
    until(
        lambda: (
            cluster.shown(0) == one.repomd and all("not all of it comes" in verdict(cluster, at)[1] for at in (0, 1))
        )
    )
    until_at = time.monotonic() + 2 * LAG_S
    while time.monotonic() < until_at:
        assert [verdict(cluster, at)[0] for at in (0, 1)] == [200, 200]
        assert [cluster.shown(at) for at in (0, 1)] == [one.repomd] * 2
        time.sleep(0.2)
