"""A member whose disk takes no more says so, keeps the others from nothing, and stays where it is the only one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from muster.cli.demo.bind import free_port
from muster.cluster.roster import seen_in
from muster.content.views import Picture
from muster.kernel.secrets import Secret
from muster.store.glance import glanced
from tests.contract.test_content_versions import Cluster, packages
from tests.servers import member
from tests.servers.client import ask
from tests.servers.member import Member
from tests.servers.pulp_stand_in import Pulp, Version, version

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
            stack.callback(_stopped, one)
        it = Cluster(members, pulps, ports["https"])
        until(lambda: all(verdict(it, at)[0] == 200 for at in range(2)))
        yield it


def _stopped(one: Member) -> None:
    with contextlib.suppress(AttributeError):
        one.stop()


def until(holds: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


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
    # Whoever comes to it nevertheless gets the same.
    assert cluster.shown(0) == two.repomd
    began = time.monotonic()
    carry(cluster, three)
    until(lambda: cluster.shown(1) == three.repomd)
    assert time.monotonic() - began < 30
    restart(cluster, 0, full=False)
    cluster.until_shown(three)


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
