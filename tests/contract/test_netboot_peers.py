"""Boot files from member to member: real listeners with members' certificates, good ones and bad."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from muster.cluster.sections import Edge
from muster.edge import server as edge
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Callers, Gate
from muster.edge.feature import Features
from muster.edge.metrics import EdgeMetrics
from muster.kernel.errors import MusterError, NotFound, Unavailable
from muster.kernel.rings import LogRings
from muster.netboot import partial, peers
from muster.netboot.answers import Limits
from muster.netboot.api import MOUNT, Blobs
from muster.netboot.contract import HIDDEN, PASSED_BYTES, BootPath, Entry
from muster.netboot.disk import Disk
from muster.netboot.ledger import Fetched, Ledger
from muster.netboot.peers import Peers, Sibling
from muster.netboot.tree import Tree
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest, write
from muster.pki.context import RenewedContext, server_context
from muster.store.engine import Store
from tests.servers import boot_origins
from tests.servers.boot_origins import Origin, Talk, said

pytestmark = pytest.mark.anyio

INITRD = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(INITRD).hexdigest()
LIMITS = Limits(connect_s=3, answer_s=3, silent_s=1, whole_s=20, again=1, pause_s=0.01)


class Cluster:
    """Members with certificates, and what they have.

    Attributes:
        has: a directory of files by digest, of each member.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        now = datetime.now(UTC)
        ca = ClusterCA.create(directory / "ca", "demo", now=now)
        self.bundles: dict[str, BundlePaths] = {}
        self.has: dict[str, Path] = {}
        for name in ("m1.example", "m2.example", "m3.example", "m4.example"):
            self.bundles[name] = write(ca.issue(BundleRequest("member", name), now=now), directory / name)
            self.has[name] = directory / name / "blobs"
            self.has[name].mkdir()

    def context(self, name: str = "m1.example") -> RenewedContext:
        own = self.bundles[name]
        return RenewedContext(own.ca, own.certificate, own.key)

    def gives(self, name: str, body: bytes = INITRD) -> None:
        (self.has[name] / DIGEST).write_bytes(body)

    @contextlib.asynccontextmanager
    async def serving(self, name: str, **settings: Any) -> AsyncIterator[Sibling]:
        """A member's listener."""

        def find(digest: str) -> Path | None:
            path = self.has[name] / digest
            return path if path.exists() else None

        async def tree() -> Any:
            return {"version": 7}

        blobs, limits, metrics = Blobs(find, tree, **settings), Edge(), EdgeMetrics(CollectorRegistry())
        application = Application(
            gate=Gate(Callers(frozenset(), frozenset(), over_http=False)),
            features=Features({}), mounts=[Mounted(MOUNT, blobs)], limits=limits, rings=LogRings(), metrics=metrics,
        )  # fmt: skip
        own, address = self.bundles[name], f"127.0.0.8{name[1]}"
        async with edge.opened(application, limits, metrics) as server:
            listener = server.listen("https", address, 0, server_context(own.certificate, own.key, [own.ca]))
            try:
                yield Sibling(name, address, listener.port)
            finally:
                blobs.close()

    @contextlib.asynccontextmanager
    async def playing(self, name: str, *talks: Talk) -> AsyncIterator[tuple[Sibling, Origin]]:
        """What has a member's certificate, and says what a test wants."""
        own = self.bundles[name]
        context = server_context(own.certificate, own.key, [own.ca])
        async with boot_origins.serving(f"127.0.0.8{name[1]}", tls=context) as it:
            it.next = list(talks)
            it.files[f"/netboot/blobs/{DIGEST}"] = INITRD
            yield Sibling(name, it.address, it.port), it

    async def bring(self, into: Path, *siblings: Sibling, limits: Limits = LIMITS) -> None:
        await peers.brought(DIGEST, len(INITRD), into, siblings, context=self.context(), limits=limits)

    async def failed(self, into: Path, *siblings: Sibling, limits: Limits = LIMITS) -> MusterError:
        with pytest.raises(MusterError) as raised:
            await self.bring(into, *siblings, limits=limits)
        return raised.value


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "coming" / "initrd"


async def test_bytes_come_from_the_first_member_that_has_them(cluster: Cluster, into: Path) -> None:
    cluster.gives("m3.example")
    async with cluster.serving("m2.example") as m2, cluster.serving("m3.example") as m3:
        await cluster.bring(into, m2, m3)
        assert into.read_bytes() == INITRD
        assert list(into.parent.iterdir()) == [into]
        error = await cluster.failed(into, m2)
        assert isinstance(error, NotFound)
        assert str(error) == f"Bringing boot file {DIGEST[:12]} from other members failed: no other member has it"
    partial.forget(into)
    assert isinstance(await cluster.failed(into, m3), Unavailable)


async def test_what_breaks_off_goes_on_with_the_next_member(cluster: Cluster, into: Path) -> None:
    cluster.gives("m3.example")
    async with (
        cluster.playing("m2.example", boot_origins.broken_after(2_000_000)) as (m2, it),
        cluster.playing("m4.example", boot_origins.broken_after(1_000_000)) as (m4, other),
        cluster.serving("m3.example") as m3,
    ):
        await cluster.bring(into, m2, m4, m3)
        assert (it.asked("Range"), other.asked("Range")) == ([None], ["bytes=2000000-"])
    assert into.read_bytes() == INITRD


async def test_bytes_that_are_not_what_they_are_called_are_thrown_away(cluster: Cluster, into: Path) -> None:
    cluster.gives("m2.example", INITRD[::-1])
    cluster.gives("m3.example")
    async with cluster.serving("m2.example") as m2, cluster.serving("m3.example") as m3:
        await cluster.bring(into, m2, m3)
        assert into.read_bytes() == INITRD
        partial.forget(into)
        error = await cluster.failed(into, m2)
        assert isinstance(error, Unavailable)
        assert "what m2.example gave is not what it is called" in str(error)
        assert into.stat().st_size == 0
        cluster.gives("m2.example", INITRD[:-1])
        assert "answered 200 with what is not that file" in str(await cluster.failed(into, m2))
    part = f"bytes 1000000-{len(INITRD) - 1}/{len(INITRD)}"
    for talk in (said(206, INITRD[1_000_000:], Content_Range=part), said(500), said(302, Location="http://x/")):
        async with cluster.playing("m4.example", talk, talk) as (m4, _):
            assert "answered" in str(await cluster.failed(into, m4))


async def test_whoever_is_not_the_member_by_name_gives_nothing(cluster: Cluster, into: Path, tmp_path: Path) -> None:
    cluster.gives("m2.example")
    stranger = Cluster(tmp_path / "strangers")
    stranger.gives("m2.example")
    async with cluster.serving("m2.example") as m2, stranger.serving("m3.example") as m3:
        error = await cluster.failed(into, m2._replace(name="m3.example"), m3)
        assert str(error).count("is not who it should be: the certificate is not accepted") == 2
        for context in (stranger.context(), RenewedContext(cluster.bundles["m1.example"].ca)):
            with pytest.raises(MusterError):
                await peers.brought(DIGEST, len(INITRD), into, [m2], context=context, limits=LIMITS)
    assert into.stat().st_size == 0


async def passed(
    cluster: Cluster, tmp_path: Path, *siblings: Sibling, first: int = 0, count: int = len(INITRD)
) -> list[bytes]:
    entry = Entry(BootPath("boot/initrd"), "file", 1, DIGEST, len(INITRD))

    async def found() -> list[Sibling]:
        return list(siblings)

    return [p async for p in Peers(tmp_path, found, cluster.context(), LIMITS).passed(entry, first, count)]


async def test_bytes_are_passed_on_piece_by_piece_from_whoever_has_them(cluster: Cluster, tmp_path: Path) -> None:
    cluster.gives("m3.example")
    async with (
        cluster.playing("m2.example", boot_origins.broken_after(1000), said(500)) as (m2, _),
        cluster.serving("m4.example") as m4,
        cluster.serving("m3.example") as m3,
    ):
        pieces = await passed(cluster, tmp_path, m2, m4, m3)
        assert b"".join(pieces) == INITRD
        assert max(map(len, pieces)) == PASSED_BYTES
        assert await passed(cluster, tmp_path, m3, first=1000, count=24) == [INITRD[1000:1024]]
        with pytest.raises(NotFound, match="no other member has it"):
            await passed(cluster, tmp_path, m4)
    with pytest.raises(NotFound, match="there is no other member"):
        await passed(cluster, tmp_path)


async def test_what_is_passed_on_and_is_not_what_it_is_called_never_ends_well(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_NEXT_PIECE_S", 0.2)
    cluster.gives("m2.example", INITRD[::-1])
    async with cluster.serving("m2.example") as m2:
        with pytest.raises(Unavailable, match="is not what it is called"):
            await passed(cluster, tmp_path, m2)
        cluster.gives("m2.example", INITRD[:-1])
        with pytest.raises(Unavailable, match="what is not that part of the file"):
            await passed(cluster, tmp_path, m2)
        stranger = m2._replace(name="m3.example")
        with pytest.raises(Unavailable, match="is not who it should be"):
            await passed(cluster, tmp_path, stranger)


async def test_who_reads_slowly_what_is_passed_on_keeps_nobody_else_from_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.gives("m2.example")
    entry = Entry(BootPath("boot/initrd"), "file", 1, DIGEST, len(INITRD))
    async with cluster.serving("m2.example", at_once=1) as m2:

        async def found() -> list[Sibling]:
            return [m2]

        slow = Peers(tmp_path, found, cluster.context(), LIMITS).passed(entry, 0, len(INITRD))
        async with contextlib.aclosing(slow):
            assert await anext(slow) == INITRD[:PASSED_BYTES]
            await cluster.bring(tmp_path / "other" / "initrd", m2, limits=replace(LIMITS, whole_s=5))


async def test_a_member_gives_to_so_many_at_once_and_all_get_it(cluster: Cluster, tmp_path: Path) -> None:
    cluster.gives("m2.example")
    async with cluster.serving("m2.example", at_once=2) as m2:
        url = f"https://{m2.address}:{m2.port}/netboot/blobs/{DIGEST}"
        most, statuses = 0, set()
        bringing = [asyncio.create_task(cluster.bring(tmp_path / f"{n}" / "initrd", m2)) for n in range(4)]
        async with aiohttp.ClientSession() as session:
            while not all(task.done() for task in bringing):
                async with session.head(url, ssl=cluster.context()(), server_hostname=m2.name) as found:
                    statuses.add(found.status)
                    most += found.status == 503 and found.headers["Retry-After"] == "5"
                await asyncio.sleep(0.05)
        await asyncio.gather(*bringing)
        assert most
        assert statuses == {200, 503}
        # Whoever goes away leaves room for others.
        for _ in range(4):
            task = asyncio.create_task(cluster.bring(tmp_path / "left" / "initrd", m2))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.wait([task])
        async with asyncio.timeout(5):
            await cluster.bring(tmp_path / "last" / "initrd", m2, limits=replace(LIMITS, again=0))


async def test_a_member_gives_no_faster_than_it_may_to_all_of_them_together(cluster: Cluster, tmp_path: Path) -> None:
    cluster.gives("m2.example")
    loop = asyncio.get_running_loop()
    async with cluster.serving("m2.example", bytes_per_s=len(INITRD)) as m2:
        since = loop.time()
        await asyncio.gather(*(cluster.bring(tmp_path / f"{n}" / "initrd", m2) for n in range(2)))
        # A quarter of a second's worth comes at once.
        assert loop.time() - since > 1.5


async def test_parts_and_the_tree_are_given_and_what_is_none_is_refused(cluster: Cluster) -> None:
    cluster.gives("m2.example")
    (cluster.has["m2.example"] / ("0" * 64)).write_bytes(b"")
    (cluster.has["m2.example"] / ("1" * 64)).symlink_to("/etc/passwd")
    async with cluster.serving("m2.example") as m2, aiohttp.ClientSession() as session:

        async def asked(path: str, **headers: str) -> tuple[int, bytes]:
            url = f"https://{m2.address}:{m2.port}/netboot{path}"
            async with session.get(url, ssl=cluster.context()(), server_hostname=m2.name, headers=headers) as found:
                return found.status, await found.read()

        assert await asked(f"/blobs/{DIGEST}", Range="bytes=5119990-") == (206, INITRD[-10:])
        assert await asked(f"/blobs/{DIGEST}", Range="bytes=1-2") == (206, INITRD[1:3])
        assert await asked(f"/blobs/{DIGEST}", Range="bytes=5120000-") == (416, b"")
        assert await asked(f"/blobs/{'0' * 64}") == (200, b"")
        for path, status in (("1" * 64, 503), ("2" * 64, 404), ("x", 400), ("A" * 64, 400), ("..%2F..%2Fx", 404)):
            assert (await asked(f"/blobs/{path}"))[0] == status, path
        found = await asked("/tree")
        assert (found[0], json.loads(found[1])) == (200, {"version": 7})
        # Nothing of all that holds room.
        assert (await asked(f"/blobs/{DIGEST}"))[1] == INITRD


async def test_a_tree_has_what_another_member_fetched(cluster: Cluster, store: Store, tmp_path: Path) -> None:
    path = BootPath.parse("boot/debian-initrd")
    roots = {name: tmp_path / "trees" / name for name in ("m1.example", "m2.example")}
    trees: dict[str, Tree] = {}
    trees["m2.example"] = Tree(Ledger(store), Disk(roots["m2.example"]), "m2.example", confirm_s=0.5)
    await trees["m2.example"].beat()
    file = trees["m2.example"].beside() / "came"
    file.write_bytes(INITRD)
    await trees["m2.example"].take(Fetched(path, DIGEST, len(INITRD)), file)
    cluster.has["m2.example"] = roots["m2.example"] / HIDDEN / "blobs"
    async with cluster.serving("m2.example") as m2:
        coming = roots["m1.example"] / HIDDEN / "coming"

        async def siblings() -> list[Sibling]:
            return [m2]

        bring = Peers(coming, siblings, cluster.context(), LIMITS).bring
        tree = Tree(Ledger(store), Disk(roots["m1.example"]), "m1.example", confirm_s=0.5, bring=bring)
        async with asyncio.timeout(20):
            while not (roots["m1.example"] / path.text).exists():
                await tree.beat()
                await asyncio.sleep(0.05)
        await tree.close()
    assert (roots["m1.example"] / path.text).read_bytes() == INITRD
    assert list(coming.iterdir()) == []


async def test_one_that_is_stopped_keeps_nobody_from_hearing_that_another_reads_the_store(
    cluster: Cluster, tmp_path: Path
) -> None:
    own = cluster.bundles["m3.example"]
    talk = server_context(own.certificate, own.key, [own.ca])
    async with boot_origins.serving("127.0.0.83", tls=talk) as reads:
        reads.files["/netboot/tree"] = b'{"read_age_s": 0.5}'
        with socket.create_server(("127.0.0.82", 0)) as stopped:
            # It takes the connection, and says nothing.
            siblings = [Sibling("m2.example", "127.0.0.82", stopped.getsockname()[1])]

            async def all_of() -> list[Sibling]:
                return siblings

            asking = Peers(tmp_path, all_of, cluster.context(), replace(LIMITS, connect_s=60, answer_s=60))
            async with asyncio.timeout(30):
                assert not await asking.read_the_store(2.0)
                siblings.append(Sibling("m3.example", reads.address, reads.port))
                assert await asking.read_the_store(2.0)
