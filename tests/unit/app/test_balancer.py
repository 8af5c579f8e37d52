"""A balancer that follows its files; HAProxy is a fake that refuses as often as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from muster.app import balancer as app
from muster.app.balancer import BalancerOptions, BalancerProcess
from muster.app.settings import loaded
from muster.balancer.haproxy.binary import Binary, HAProxyVersion
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.journal import Journal
from muster.balancer.haproxy.render import RuntimePaths
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened

pytestmark = pytest.mark.anyio

GOOD: dict[str, Any] = {
    "schema": 1,
    "cluster": "demo",
    "address": "proxy.example.com",
    "members": [{"id": 1, "name": "proxy01.example.com", "address": "127.0.0.11"}],
    "balancers": [{"name": "lb", "address": "127.0.0.10", "bind": "127.0.0.1"}],
    "services": {"puppet": {"enabled": False}, "puppetca": {"enabled": False}},
}


class Engine:
    """Takes every text, or refuses it with the next of the errors."""

    version = HAProxyVersion.parse("HAProxy version 2.6.12")
    generation = "none"
    last_error = None
    is_edited = False

    def __init__(self) -> None:
        self.errors: list[MusterError] = []
        self.applied: list[bool] = []
        self.mended = 0

    async def apply(self, _: str, *, anew: bool = False) -> None:
        self.applied.append(anew)
        if self.errors:
            raise self.errors.pop(0)

    async def mend(self) -> None:
        self.mended += 1

    def newcomers(self) -> frozenset[tuple[str, str]]:
        return frozenset()


class Clock:
    """``time`` of the room, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(app, "time", found)
    return found


@pytest.fixture
def engine() -> Engine:
    return Engine()


@contextlib.asynccontextmanager
async def running(tmp_path: Path, engine: Engine, store: Store) -> AsyncIterator[BalancerProcess]:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({**GOOD, "store": {"url": f"sqlite:///{tmp_path}/muster.db"}}))
    options = BalancerOptions(file, tmp_path / "pki", tmp_path / "run")
    paths = RuntimePaths(tmp_path / "run", tmp_path / "pki" / "balancer")
    process = BalancerProcess(
        options,
        loaded(file),
        store,
        paths,
        Binary(Path("/nowhere"), engine.version),
        cast(HAProxyEngine, engine),
        cast(Journal, SimpleNamespace(totals={})),
    )
    await process.open()
    try:
        yield process
    finally:
        await process.close()


@pytest.fixture
async def process(tmp_path: Path, engine: Engine, clock: Clock) -> AsyncIterator[BalancerProcess]:
    async with (
        opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store,
        running(tmp_path, engine, store) as found,
    ):
        engine.applied.clear()
        yield found


def changed(process: BalancerProcess, weight: int) -> None:
    file = process.options.cluster_file
    content = yaml.safe_load(file.read_text())
    content["members"][0]["weight"] = weight
    file.write_text(yaml.safe_dump(content))


async def test_what_was_refused_is_tried_again_more_and_more_rarely(
    process: BalancerProcess, engine: Engine, clock: Clock
) -> None:
    changed(process, 50)
    engine.errors = [Misconfigured("port 9090 is taken")] * 3
    await process.beat()
    await process.beat()
    assert len(engine.applied) == 1
    assert process._trouble() == "port 9090 is taken"
    for wait_s, tries in ((4.9, 1), (0.2, 2), (9.7, 2), (0.4, 3), (21.0, 4)):
        clock.now += wait_s
        await process.beat()
        assert len(engine.applied) == tries
    assert process._trouble() == ""
    clock.now += 1000
    await process.beat()
    assert len(engine.applied) == 4


async def test_whoever_asks_need_not_wait(process: BalancerProcess, engine: Engine) -> None:
    changed(process, 50)
    engine.errors = [Unavailable("the new worker did not come up")]
    await process.beat()
    await process.beat(asked=True)
    assert (len(engine.applied), engine.mended, process._trouble()) == (2, 1, "")


async def test_a_check_certificate_that_changed_with_a_refusal_is_read_later(
    process: BalancerProcess, engine: Engine
) -> None:
    process.paths.check.parent.mkdir(parents=True)
    process.paths.check.write_text("new")
    engine.errors = [Unavailable("the new worker did not come up")]
    await process.beat()
    await process.beat(asked=True)
    assert engine.applied == [True, True]


async def test_a_file_that_cannot_be_read_is_said_until_it_can(process: BalancerProcess, engine: Engine) -> None:
    good = process.options.cluster_file.read_text()
    process.options.cluster_file.write_text("members: [")
    await process.beat()
    assert process._trouble()
    process.options.cluster_file.write_text(good)
    await process.beat()
    assert (engine.applied, process._trouble()) == ([False], "")


async def test_a_store_that_is_silent_does_not_keep_haproxy_from_serving(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_LAST_BEAT_S", 0.1)

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(Secret(f"postgresql://muster:x@127.0.0.1:{port}/muster")) as store:
        async with running(tmp_path, engine, store):
            assert engine.applied == [False]
    server.close()
