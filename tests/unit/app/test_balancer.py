"""A balancer that follows its files; HAProxy is a fake that refuses as often as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml

from muster.app import balancer as app
from muster.app.balancer import BalancerOptions, BalancerProcess
from muster.app.offers import modelled
from muster.app.settings import loaded
from muster.balancer.checks import Here
from muster.balancer.haproxy.binary import Binary
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.journal import Journal
from muster.balancer.haproxy.render import RuntimePaths
from muster.balancer.haproxy.version import HAProxyVersion
from muster.balancer.steering import noted_refusal
from muster.cluster import checks as cluster_room
from muster.cluster.file import ClusterFile
from muster.cluster.life import Life
from muster.cluster.observations import Observation
from muster.doctor.examine import examined
from muster.kernel.errors import Conflict, Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.files import fingerprint
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
    is_changing = False

    def __init__(self) -> None:
        self.errors: list[MusterError] = []
        self.applied: list[bool] = []
        self.texts: list[str] = []
        self.mended = 0
        self.pid: int | None = None
        self.holds = asyncio.Event()
        self.holds.set()

    async def apply(self, text: str, *, anew: bool = False) -> None:
        self.applied.append(anew)
        self.texts.append(text)
        await self.holds.wait()
        if self.errors:
            raise self.errors.pop(0)

    async def mend(self) -> None:
        self.mended += 1

    def newcomers(self) -> frozenset[tuple[str, str]]:
        return frozenset()

    async def remember(self) -> bool:
        return True


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


def written(tmp_path: Path) -> BalancerOptions:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump({**GOOD, "store": {"url": f"sqlite:///{tmp_path}/muster.db"}}))
    (tmp_path / "run").mkdir(exist_ok=True)
    return BalancerOptions(file, tmp_path / "pki", tmp_path / "run")


@contextlib.asynccontextmanager
async def running(
    options: BalancerOptions,
    engine: Engine,
    store: Store,
    cluster: ClusterFile | None = None,
    refused: str = "",
    read: tuple[object, ...] | None = None,
) -> AsyncIterator[BalancerProcess]:
    process = BalancerProcess(
        options,
        cluster or loaded(options.cluster_file),
        read or fingerprint(options.cluster_file),
        store,
        RuntimePaths(options.run, options.pki / "balancer"),
        Binary(Path("/nowhere"), engine.version),
        cast(HAProxyEngine, engine),
        cast(Journal, SimpleNamespace(totals={})),
    )
    await process.open(refused)
    try:
        yield process
    finally:
        await process.close()


@pytest.fixture
async def process(tmp_path: Path, engine: Engine, clock: Clock) -> AsyncIterator[BalancerProcess]:
    async with (
        opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store,
        running(written(tmp_path), engine, store) as found,
    ):
        engine.applied.clear()
        yield found


def changed(process: BalancerProcess, weight: int) -> None:
    file = process.options.cluster_file
    content = yaml.safe_load(file.read_text())
    content["members"][0]["weight"] = weight
    file.write_text(yaml.safe_dump(content))


async def refusals(process: BalancerProcess) -> list[tuple[str, str]]:
    """What the doctor says of it, on this host and from any other one."""
    options, cluster = process.options, process.cluster

    async def unknown(name: str) -> frozenset[str]:
        raise OSError(name)

    here = Here(cluster, modelled(cluster), options.run, options.pki, datetime.now(UTC), lambda _: 100_000)

    @contextlib.asynccontextmanager
    async def store() -> AsyncIterator[Store]:
        yield process.store

    found = await examined([*here.checks(), *cluster_room.checks(cluster, store, unknown)])
    return [(f.code, f.sentence) for f in found if f.code == "BALANCER-REFUSED"]


async def test_what_is_refused_is_a_finding_of_the_doctor_until_it_is_in_force(
    process: BalancerProcess, engine: Engine, clock: Clock
) -> None:
    assert await refusals(process) == []
    said = "HAProxy refuses haproxy.cfg: cannot open the file '/etc/muster/pki/balancer/check.pem'"
    # The text is the one in force; a file that it names is another one.
    engine.errors = [Rejected(said)]
    process.paths.check.parent.mkdir(parents=True)
    process.paths.check.write_text("new")
    await process.beat()
    noted = [("BALANCER-REFUSED", f"Balancer lb did not put its configuration in force: {said}")]
    assert await refusals(process) == noted
    await process._beat_in_store(await process._steered())
    # Here the file says so, elsewhere the store; the doctor says it once.
    assert await refusals(process) == noted
    (process.options.run / "refused.json").unlink()
    assert await refusals(process) == noted
    clock.now += 5.0
    await process.beat()
    await process._beat_in_store(await process._steered())
    assert await refusals(process) == []


async def test_why_a_balancer_did_not_start_is_left_for_the_doctor(
    tmp_path: Path, engine: Engine, clock: Clock
) -> None:
    engine.errors = [Rejected("cannot open the file check.pem")]
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        with pytest.raises(Rejected):
            async with running(written(tmp_path), engine, store):
                pass
        assert noted_refusal(tmp_path / "run") == ("lb", "cannot open the file check.pem")
        async with running(written(tmp_path), engine, store):
            assert noted_refusal(tmp_path / "run") is None


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
    async with (
        opened(Secret(f"postgresql://muster:x@127.0.0.1:{port}/muster")) as store,
        running(written(tmp_path), engine, store),
    ):
        assert engine.applied == [False]
    server.close()


async def test_a_reload_that_takes_its_time_makes_nobody_silent(
    process: BalancerProcess, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_BEAT_S", 0.05)
    told = []

    async def steered(*_: Any, **more: Any) -> Observation:
        told.append(more["trouble"])
        return Observation("lb")

    monkeypatch.setattr(process.steering, "beat", steered)
    engine.holds.clear()
    changed(process, 50)
    for _ in range(3):
        await process.beat()
    assert (len(engine.applied), len(told)) == (1, 3)
    assert process.cluster.members[0].weight == 100, "HAProxy has not heard of the change yet"
    # Between two workers nobody is steered, and what was seen last is told again.
    engine.is_changing = True
    await process.beat()
    assert len(told) == 3
    engine.is_changing = False
    engine.holds.set()
    assert process._following is not None
    await process._following
    assert process.cluster.members[0].weight == 50


async def test_a_haproxy_that_does_not_answer_says_nothing_about_sessions(process: BalancerProcess) -> None:
    await process.beat()
    assert process._seen is not None
    assert process._seen.blind


async def test_who_restarts_on_a_bad_cluster_file_goes_on_with_the_good_one(
    tmp_path: Path, engine: Engine, clock: Clock
) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        options = written(tmp_path)
        options.cluster_file.write_text("members: [")
        with pytest.raises(MusterError):
            app._usable(options)
        options = written(tmp_path)
        async with running(options, engine, store):
            pass
        options.cluster_file.write_text("members: [")
        cluster, refused, _ = app._usable(options)
        assert "not YAML" in refused
        engine.pid = 17
        async with running(options, engine, store, cluster, refused) as process:
            assert engine.texts[0] == engine.texts[1]
            assert process._trouble() == refused
            written(tmp_path)
            changed(process, 50)
            await process.beat()
            assert (process._trouble(), process.cluster.members[0].weight) == ("", 50)


async def test_a_cluster_file_that_changes_while_the_balancer_starts_is_in_force_with_the_first_beat(
    tmp_path: Path, engine: Engine, clock: Clock
) -> None:
    """The store, HAProxy's version and its first configuration take their time; who promotes a signer meanwhile waits."""
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        options = written(tmp_path)
        cluster, refused, read = app._usable(options)
        options.cluster_file.write_text(options.cluster_file.read_text().replace("127.0.0.11", "127.0.0.12"))
        async with running(options, engine, store, cluster, refused, read) as process:
            assert not (options.run / "cluster.accepted.yaml").exists(), "it is not the one in force"
            await process.beat()
            assert str(process.cluster.members[0].address) == "127.0.0.12"
            assert (options.run / "cluster.accepted.yaml").read_text() == options.cluster_file.read_text()


async def test_a_first_configuration_that_is_refused_does_not_end_a_haproxy_that_serves(
    tmp_path: Path, engine: Engine, clock: Clock
) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        options = written(tmp_path)
        engine.errors = [Misconfigured("too few descriptors")]
        with pytest.raises(Misconfigured):
            async with running(options, engine, store):
                pass
        async with running(options, engine, store) as process:
            changed(process, 50)
        engine.errors = [Misconfigured("too few descriptors")]
        engine.pid = 17
        async with running(options, engine, store) as process:
            assert process._trouble() == "too few descriptors"
            assert process.cluster.members[0].weight == 100, "only what HAProxy has can be steered"
            await process.beat(asked=True)
            assert (process._trouble(), process.cluster.members[0].weight) == ("", 50)


async def test_who_may_have_issued_a_ruby_member_s_certificate_stands_in_one_file_that_follows_both(
    tmp_path: Path, engine: Engine, clock: Clock
) -> None:
    options = written(tmp_path)
    content = yaml.safe_load(options.cluster_file.read_text())
    content["members"][0]["kind"] = "foreman"
    content["foreman"] = {"ca_file": str(tmp_path / "site.pem")}
    options.cluster_file.write_text(yaml.safe_dump(content))
    ours = tmp_path / "pki" / "balancer" / "ca.pem"
    ours.parent.mkdir(parents=True)
    ours.write_text("ours\n")
    (tmp_path / "site.pem").write_text("site\n")
    joined = tmp_path / "run" / "site-ca.pem"
    async with (
        opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store,
        running(options, engine, store) as process,
    ):
        assert joined.read_text() == "ours\nsite\n"
        (tmp_path / "site.pem").write_text("another site")
        await process._followed()
        # HAProxy reads the file anew, though the configuration names the same one.
        assert (joined.read_text(), engine.applied[-1]) == ("ours\nanother site\n", True)


async def test_a_second_balancer_and_one_of_no_such_name_leave_the_first_one_s_haproxy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_over: list[Path] = []

    class TakesOver:
        def __init__(self, paths: RuntimePaths, **_: object) -> None:
            taken_over.append(paths.config)
            raise Rejected("an HAProxy of an earlier run would be ended now")

    monkeypatch.setattr(app, "HAProxyEngine", TakesOver)
    options = written(tmp_path)
    with pytest.raises(MusterError, match="'nosuch' is no balancer; balancers are lb"):
        await app.balance(replace(options, name="nosuch"))
    held = os.open(options.run, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(Conflict, match=f"Another muster balance runs in {options.run}"):
            await app.balance(options)
    finally:
        os.close(held)
    assert taken_over == []
    # Whoever ended holds nothing.
    with pytest.raises(Rejected, match="would be ended now"):
        await app.balance(options)


async def test_an_account_that_may_not_make_the_directory_is_told_of_another_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        Unavailable, match=r"^Making directory .*/file/run failed: .*; --run or MUSTER_RUN names another"
    ):
        await app.balance(replace(written(tmp_path), run=tmp_path / "file" / "run"))


async def test_a_cluster_that_lost_its_only_signer_does_not_end_the_balancer(
    process: BalancerProcess, engine: Engine
) -> None:
    # As after muster remove --force: what is left cannot be balanced, and what was in force stays.
    content = yaml.safe_load(process.options.cluster_file.read_text())
    content["members"].append({"id": 2, "name": "proxy02.example.com", "address": "127.0.0.12"})
    content["services"] = {}
    content["signer"] = "proxy02.example.com"
    process.options.cluster_file.write_text(yaml.safe_dump(content))
    await process.beat()
    assert process.cluster.signer == "proxy02.example.com"
    process._lives = {"proxy02.example.com": Life("removed")}
    await process.beat()
    await process.beat()
    assert process._refused is not None
    # Who is out is told so by the configuration in force, in which all of them are.
    assert len(process._in_force()[0].services[0].servers) == 2
