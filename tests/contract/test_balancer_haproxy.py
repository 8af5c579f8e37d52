"""The balancer on real HAProxies: Debian's, and the wheel's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.sockets import ServerState
from muster.balancer.model import modelled
from muster.cluster.file import ClusterFile
from muster.kernel.errors import Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.settings import parse
from tests.servers.haproxy import Pki, TestMember, call, executables, free_ports, member

pytestmark = pytest.mark.anyio

LB = "127.0.0.9"

CLUSTER = """
schema: 1
cluster: demo
address: cluster.test
store: {{url: sqlite:////nowhere/x.db}}
profile: {profile}
members:
- {{id: 1, name: proxy01.test, address: {first}}}
- {{id: 2, name: proxy02.test, address: {second}{kind}}}
balancers:
- {{name: lb1, address: {lb}, bind: {lb}{metrics}}}
edge: {{proxy_protocol: "{proxy}", connections_per_address: 100}}
services:
{services}
"""


@pytest.fixture(params=["debian", "wheel"])
def executable(request: pytest.FixtureRequest, needs: Callable[[str], None]) -> Path:
    needs("haproxy")
    path = executables()[request.param]
    if path is None:
        pytest.skip(f"no HAProxy of {request.param}")
    return path


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.made(tmp_path_factory.mktemp("pki"))


@dataclass
class Site:
    """Two members, and an engine that balances them on one port."""

    engine: HAProxyEngine
    text: str
    listen: int
    members: list[TestMember]
    pki: Pki

    async def call(self) -> str:
        return await call(LB, self.listen, self.pki)

    async def states(self) -> dict[str, ServerState]:
        return {s.server: s for s in await self.engine.runtime.servers() if s.backend == "smartproxy"}

    async def until(self, condition: Callable[[dict[str, ServerState]], bool]) -> None:
        async def holds() -> bool:
            try:
                return condition(await self.states())
            except Unavailable:
                return False

        await eventually(holds)

    async def until_served(self) -> None:
        async def served() -> bool:
            try:
                return bool(await self.call())
            except OSError:
                return False

        await eventually(served)


async def eventually(holds: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def site(executable: Path, directory: Path, pki: Pki, **engine: float) -> AsyncIterator[Site]:
    listen, port = free_ports("127.0.0.1", 2)
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(member(f"proxy0{n}.test", f"127.0.0.1{n}", port, pki)) for n in (1, 2)
        ]
        paths = RuntimePaths(directory / "run", pki.directory)
        config = await text(executable, paths, smartproxy_only(listen, port))
        opened = HAProxyEngine(paths, binary=executable, **({"min_interval_s": 0.0} | engine))  # type: ignore[arg-type]
        it = Site(await stack.enter_async_context(opened), config, listen, members, pki)
        await it.engine.apply(config)
        await it.until(lambda s: all(x.check == "L7OK" for x in s.values()))
        yield it


def cluster(
    services: str, *, profile: str = "current", proxy: str = "off", kind: str = "", metrics: str = ""
) -> ClusterFile:
    return parse(
        CLUSTER.format(
            profile=profile,
            proxy=proxy,
            kind=kind,
            metrics=metrics,
            services=services,
            lb=LB,
            first="127.0.0.11",
            second="127.0.0.12",
        )
    ).parsed(ClusterFile)


def smartproxy_only(listen: int, port: int) -> ClusterFile:
    off = "".join(f"  {n}: {{enabled: false}}\n" for n in ("http", "https", "anaconda", "puppet", "puppetca"))
    return cluster(f"{off}  smartproxy: {{listen_port: {listen}, member_port: {port}}}")


async def text(executable: Path, paths: RuntimePaths, of: ClusterFile) -> str:
    found = await binaries.probed(executable)
    return rendered(modelled(of), which=of.balancers[0], runtime=paths, version=found.version)


@pytest.mark.parametrize("profile", ["seed", "current"])
@pytest.mark.parametrize("proxy", ["accepted", "required", "off"])
@pytest.mark.parametrize("kind", ["", ", kind: foreman"], ids=["muster", "mixed"])
async def test_haproxy_accepts_what_is_rendered_without_a_warning(
    executable: Path, tmp_path: Path, pki: Pki, profile: str, proxy: str, kind: str
) -> None:
    paths = RuntimePaths(tmp_path, pki.directory)
    of = cluster(
        "  mqtt: {listen_port: 1883, member_port: 1883, traffic: tls-tunnel, maxconn_per_member: 50}",
        profile=profile,
        proxy=proxy,
        kind=kind,
        metrics=", metrics_port: 9404",
    )
    paths.config.write_text(await text(executable, paths, of))
    paths.state.write_text("1\n")
    await binaries.checked(executable, paths.config)
    said = await asyncio.create_subprocess_exec(executable, "-c", "-f", paths.config, stderr=-1, stdout=-1)
    assert b"WARNING" not in b"".join(await said.communicate())


async def test_a_bad_file_is_refused_in_haproxys_words_with_the_line(executable: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.cfg"
    bad.write_text("global\n  maxcon 7\n")
    with pytest.raises(Rejected, match=r"bad\.cfg:2.*maxcon"):
        await binaries.checked(executable, bad)


async def test_members_are_asked_for_the_service_and_serve(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        assert {await it.call() for _ in range(4)} == {"proxy01.test", "proxy02.test"}
        assert it.members[0].asked[0] == "/health/ready?service=smartproxy"
        assert it.members[0].peers == {LB}
        assert it.engine.generation is not None
        assert it.engine.generation in it.text
        assert (it.engine.paths.runtime_socket.stat().st_mode & 0o777, it.engine.last_error) == (0o600, None)


async def test_a_member_that_answers_404_drains_and_comes_back(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        it.members[0].ready = 404
        await it.until(lambda s: s["proxy01.test"].status.startswith("NOLB"))
        assert {await it.call() for _ in range(4)} == {"proxy02.test"}
        it.members[0].ready = 200
        await it.until(lambda s: s["proxy01.test"].status == "UP")


async def test_when_every_check_fails_everybody_serves(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        for one in it.members:
            one.ready = 503
        await it.until(lambda s: all(x.status.startswith("DOWN") for x in s.values()))
        assert {await it.call() for _ in range(6)} == {"proxy01.test", "proxy02.test"}


async def test_a_connection_without_a_client_hello_reaches_no_member(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        reader, writer = await asyncio.open_connection(LB, it.listen)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(10):
                answer = await reader.read()
        writer.close()
        assert answer == b""
        total = [s.total_sessions for s in (await it.states()).values()]
        assert total == [0, 0]


async def test_a_drain_survives_a_reload(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        await it.engine.runtime.drain("smartproxy", "proxy01.test")
        await it.engine.runtime.weight("smartproxy", "proxy02.test", 50)
        worker = {p.pid for p in await it.engine.master.processes() if p.type == "worker"}
        await it.engine.apply(it.text + "# changed\n")
        assert not worker & {p.pid for p in await it.engine.master.processes() if p.type == "worker" and not p.is_old}
        states = await it.states()
        assert states["proxy01.test"].status.startswith("DRAIN")
        assert states["proxy02.test"].weight == 50
        assert {await it.call() for _ in range(4)} == {"proxy02.test"}
        await it.engine.runtime.ready("smartproxy", "proxy01.test")
        await it.until(lambda s: s["proxy01.test"].status == "UP")


async def test_the_same_text_is_reloaded_only_when_a_file_it_names_is_new(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:

        async def worker() -> set[int]:
            return {p.pid for p in await it.engine.master.processes() if p.type == "worker" and not p.is_old}

        before = await worker()
        await it.engine.apply(it.text)
        assert await worker() == before
        await it.engine.apply(it.text, anew=True)
        assert not await worker() & before
        after = await worker()
        await it.engine.apply(it.text)
        assert await worker() == after


@pytest.mark.parametrize("victim", ["worker", "master"])
async def test_a_killed_haproxy_is_started_again_and_keeps_the_drain(
    executable: Path, tmp_path: Path, pki: Pki, victim: str
) -> None:
    async with site(executable, tmp_path, pki) as it:
        await it.engine.runtime.drain("smartproxy", "proxy01.test")

        async def remembered() -> bool:
            return bool(re.search(r"proxy01\.test \S+ \d+ 8 ", it.engine.paths.state.read_text()))

        await eventually(remembered)
        pid = next(p.pid for p in await it.engine.master.processes() if p.type == victim)
        os.kill(pid, signal.SIGKILL)

        async def restarted() -> bool:
            return it.engine.restarts == 1 and it.engine.pid is not None

        await eventually(restarted)
        await it.until(lambda s: s["proxy01.test"].status.startswith("DRAIN"))
        await it.until_served()
        assert await it.call() == "proxy02.test"


async def test_a_refused_configuration_changes_nothing(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        before = it.engine.pid, it.engine.generation, it.engine.paths.config.read_text()
        with pytest.raises(Rejected, match="balance"):
            await it.engine.apply(it.text.replace("balance roundrobin", "balance sideways"))
        with pytest.raises(Misconfigured, match="file descriptors"):
            await it.engine.apply(it.text.replace("maxconn 4000", "maxconn 900000000"))
        assert (it.engine.pid, it.engine.generation, it.engine.paths.config.read_text()) == before
        assert await it.call()
        assert sorted(p.name for p in it.engine.paths.run.glob("candidate*")) == []


async def test_a_port_that_is_taken_brings_the_configuration_before_back(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        taken = await asyncio.start_server(lambda r, w: w.close(), LB, 0)
        port = taken.sockets[0].getsockname()[1]
        clash = it.text + f"frontend late from tcp_base\n  bind {LB}:{port}\n  default_backend smartproxy\n"
        with pytest.raises(Unavailable):
            await it.engine.apply(clash)
        taken.close()
        assert it.engine.paths.config.read_text() == it.text
        assert it.engine.last_error is not None
        await it.until(lambda s: len(s) == 2)
        assert await it.call()
        await it.engine.apply(it.text + "# fine again\n")
        assert it.engine.last_error is None


async def test_six_reloads_lose_no_connection(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        done = asyncio.Event()

        async def keep_calling() -> int:
            count = 0
            while not done.is_set():
                assert (await it.call()).startswith("proxy0")
                count += 1
                await asyncio.sleep(0.01)
            return count

        async with asyncio.TaskGroup() as group:
            callers = [group.create_task(keep_calling()) for _ in range(3)]
            for n in range(6):
                await it.engine.apply(f"{it.text}# reload {n}\n")
            done.set()
        assert sum(c.result() for c in callers) > 6
        assert it.engine.restarts == 0


async def test_of_texts_that_wait_for_their_turn_the_last_one_wins(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki, min_interval_s=2.0) as it:
        master = next(p for p in await it.engine.master.processes() if p.type == "master")
        async with asyncio.TaskGroup() as group:
            for n in range(4):
                group.create_task(it.engine.apply(f"{it.text}# {n}\n"))
        assert re.search(r"# \d\n\Z", it.engine.paths.config.read_text())
        after = next(p for p in await it.engine.master.processes() if p.type == "master")
        assert after.reloads - master.reloads == 1


async def test_a_second_engine_takes_over_what_the_first_left(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        left = it.engine.pid
        # The first incarnation dies without its block ending: nobody restarts its HAProxy any more.
        supervisor = it.engine._supervisor
        assert supervisor is not None
        assert supervisor._keeping is not None
        supervisor._keeping.cancel()
        async with HAProxyEngine(it.engine.paths, binary=executable) as second:
            await it.until_served()
            assert second.pid not in (None, left)
            assert second.generation == it.engine.generation


async def test_names_that_would_be_commands_are_refused(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        for name in ("a\nshutdown", "a; quit", "a b", ""):
            with pytest.raises(Rejected):
                await it.engine.runtime.drain("smartproxy", name)
        with pytest.raises(NotFound):
            await it.engine.runtime.drain("smartproxy", "nobody")
        with pytest.raises(Rejected):
            await it.engine.runtime.ask("show info\nquit")


async def test_sessions_are_counted_over_old_workers_too(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        async with asyncio.timeout(10):
            _, writer = await asyncio.open_connection(
                LB, it.listen, ssl=pki.client_context(), server_hostname="cluster.test"
            )
        await it.engine.apply(it.text + "# changed\n")
        counted = [await it.engine.master.sessions(m.name) for m in it.members]
        assert sum(counted) == 1
        assert sum([await it.engine.runtime.sessions(m.name) for m in it.members]) == 0
        writer.close()


async def test_a_socket_nobody_listens_on_is_unavailable(tmp_path: Path) -> None:
    engine = HAProxyEngine(RuntimePaths(tmp_path, tmp_path))
    with pytest.raises(Unavailable, match=r"runtime\.sock"):
        await engine.runtime.servers()


async def test_nothing_of_haproxy_is_left_after_the_block(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        pids = [p.pid for p in await it.engine.master.processes()]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)

    async def gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in pids)

    await eventually(gone)
