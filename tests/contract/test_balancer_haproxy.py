"""The balancer on real HAProxies: Debian's, and the wheel's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.journal import Journal, connections, found
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.sockets import ServerState
from muster.balancer.steering import Steering
from muster.balancer.watch import Watch, watched
from muster.cluster.file import ClusterFile, Member
from muster.cluster.life import Life, State
from muster.cluster.observations import Observation
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.settings import parse
from muster.pki.context import Credentials
from tests.servers.haproxy import Pki, TestMember, call, free_ports, member

pytestmark = pytest.mark.anyio

LB = "127.0.0.9"

CLUSTER = """
schema: 1
cluster: demo
address: cluster.test
store: {{url: sqlite:////nowhere/x.db}}
generation: {generation}
members:
- {{id: 1, name: proxy01.test, address: {first}}}
- {{id: 2, name: proxy02.test, address: {second}{kind}}}
balancers:
- {{name: lb1, address: {lb}, bind: {lb}{metrics}}}
edge: {{proxy_protocol: "{proxy}", connections_per_address: 100}}
services:
{services}
"""


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


async def eventually_true(holds: Callable[[], bool]) -> None:
    async def found() -> bool:
        return holds()

    await eventually(found)


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
    services: str, *, generation: str = "installer", proxy: str = "off", kind: str = "", metrics: str = ""
) -> ClusterFile:
    return parse(
        CLUSTER.format(
            generation=generation,
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


@pytest.mark.parametrize("generation", ["seed", "installer", "foremanctl"])
@pytest.mark.parametrize("proxy", ["accepted", "required", "off"])
@pytest.mark.parametrize("kind", ["", ", kind: foreman"], ids=["muster", "mixed"])
async def test_haproxy_accepts_what_is_rendered_without_a_warning(
    executable: Path, tmp_path: Path, pki: Pki, generation: str, proxy: str, kind: str
) -> None:
    paths = RuntimePaths(tmp_path, pki.directory)
    of = cluster(
        "  mqtt: {listen_port: 1883, member_port: 1883, traffic: tls-tunnel, maxconn_per_member: 50}",
        generation=generation,
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


async def test_a_cluster_that_moves_answers_both_ports_and_each_member_has_its_own(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    before, after, old, new = free_ports("127.0.0.1", 4)
    file = smartproxy_only(before, old).model_dump(mode="json", by_alias=True, exclude_unset=True)
    file["store"]["url"] = "sqlite:////nowhere/x.db"
    file["members"][1]["ports"] = {"smartproxy": new}
    file["services"]["smartproxy"]["also_listen_ports"] = [after]
    paths = RuntimePaths(tmp_path / "run", pki.directory)
    config = await text(executable, paths, ClusterFile.model_validate(file))
    async with (
        member("proxy01.test", "127.0.0.11", old, pki) as first,
        member("proxy02.test", "127.0.0.12", new, pki) as second,
        HAProxyEngine(paths, binary=executable, min_interval_s=0.0) as engine,
    ):
        await engine.apply(config)
        it = Site(engine, config, before, [first, second], pki)
        await it.until(lambda s: len(s) == 2 and all(x.check == "L7OK" for x in s.values()))
        for port in (before, after):
            assert {await call(LB, port, pki) for _ in range(4)} == {"proxy01.test", "proxy02.test"}


async def test_a_member_that_answers_404_drains_and_comes_back(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with site(executable, tmp_path, pki) as it:
        it.members[0].ready = 404
        await it.until(lambda s: s["proxy01.test"].status.startswith("NOLB"))
        assert {await it.call() for _ in range(4)} == {"proxy02.test"}
        it.members[0].ready = 200
        await it.until(lambda s: s["proxy01.test"].status == "UP")


@asynccontextmanager
async def watching(executable: Path, directory: Path, pki: Pki, paused_s: float) -> AsyncIterator[Site]:
    """As ``site``, but HAProxy asks rarely once members have passed, and the watch asks."""
    async with site(executable, directory, pki) as it:
        of = modelled(smartproxy_only(it.listen, it.members[0].port))
        rare = replace(of.services[0].check, watched_s=paused_s)
        of = replace(of, services=tuple(replace(s, check=rare) for s in of.services))
        which = smartproxy_only(it.listen, 1).balancers[0]
        found = await binaries.probed(executable)
        it.text = rendered(of, which=which, runtime=it.engine.paths, version=found.version)
        await it.engine.apply(it.text)
        await it.until(lambda s: all(x.status == "UP" for x in s.values()))
        watch = Watch(it.engine.runtime)
        await watch.follow(watched(of, which), Credentials(pki.directory / "ca.pem", pki.directory / "check.pem"), 1)
        try:
            yield it
        finally:
            await watch.close()


async def test_the_watch_tells_haproxy_what_its_checks_would_find_much_later(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with watching(executable, tmp_path, pki, 600) as it:
        first, second = it.members
        # By this the member knows its balancer.
        await eventually_true(lambda: "/health/ready?services=all" in first.asked)
        assert first.peers == {LB}
        first.services = {"smartproxy": "draining"}
        await it.until(lambda s: s["proxy01.test"].status.startswith("NOLB"))
        assert {await it.call() for _ in range(4)} == {"proxy02.test"}
        second.services = {"smartproxy": "unready", "other": "ready"}
        await it.until(lambda s: s["proxy02.test"].status.startswith("DOWN"))


async def test_a_member_that_hangs_is_found_by_the_watch_and_let_in_by_haproxys_own_checks(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with watching(executable, tmp_path, pki, 30) as it:
        asked = it.members[0].asked
        before = sum(path.endswith("=smartproxy") for path in asked)
        it.members[0].hangs = True
        await it.until(lambda s: s["proxy01.test"].status.startswith("DOWN"))
        # Not its checks: none has ended since.
        assert sum(path.endswith("=smartproxy") for path in asked) == before
        assert {await it.call() for _ in range(4)} == {"proxy02.test"}
        it.members[0].hangs = False

        async def is_up() -> bool:
            return (await it.states())["proxy01.test"].status == "UP"

        await eventually(is_up, 60)
        assert sum(path.endswith("=smartproxy") for path in asked) > before


async def test_what_the_watch_told_outlives_a_reload_and_maintenance_outlives_what_it_tells(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with watching(executable, tmp_path, pki, 600) as it:
        first, second = it.members
        first.hangs = True
        await it.until(lambda s: s["proxy01.test"].status.startswith("DOWN"))
        await it.engine.apply(it.text + "# changed\n")
        assert {n: s.status for n, s in (await it.states()).items()} == {"proxy01.test": "DOWN", "proxy02.test": "UP"}
        await it.engine.runtime.maint("smartproxy", "proxy02.test")
        second.services = {"smartproxy": "unready"}
        before = len(second.asked)
        await eventually_true(lambda: len(second.asked) > before + 3)
        assert (await it.states())["proxy02.test"].status == "MAINT"
        # Anew it is thought of by HAProxy's own checks alone.
        await it.engine.runtime.ready("smartproxy", "proxy02.test")
        assert (await it.states())["proxy02.test"].status.startswith("UP")


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


# What a state file holds beside what the configuration cannot say.
_PLANNED_COLUMNS = (
    *("srv_addr", "srv_port", "srv_fqdn", "srvrecord", "srv_use_ssl"),
    *("srv_check_port", "srv_check_addr", "srv_agent_addr", "srv_agent_port"),
)


async def restored(it: Site) -> dict[str, dict[str, str]]:
    """The rows of HAProxy's own table about the service's servers."""
    text = await it.engine.runtime.state_file_content()
    head, *lines = [line.split() for line in text.splitlines()[1:] if line]
    found = [dict(zip(head[1:], line, strict=True)) for line in lines]
    return {row["srv_name"]: row for row in found if row["be_name"] == "smartproxy"}


async def planned(it: Site) -> dict[str, list[str]]:
    return {name: [row[c] for c in _PLANNED_COLUMNS] for name, row in (await restored(it)).items()}


@pytest.mark.parametrize(
    "tampering",
    ["addr 127.0.0.77", "check-addr 127.0.0.77 port {closed}", "check-port {closed}", "ssl on"],
)
async def test_a_reload_brings_back_what_the_configuration_says(
    executable: Path, tmp_path: Path, pki: Pki, tampering: str
) -> None:
    async with site(executable, tmp_path, pki) as it:
        (closed,) = free_ports("127.0.0.1", 1)
        before = await planned(it)
        said = await it.engine.runtime.ask(f"set server smartproxy/proxy01.test {tampering.format(closed=closed)}")
        assert await planned(it) != before, said
        await it.engine.apply(it.text + "# changed\n")
        assert await planned(it) == before
        await it.until(lambda s: all(x.status == "UP" and x.check == "L7OK" for x in s.values()))


async def test_the_port_of_checks_is_the_configurations_and_a_drain_outlives_its_change(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        (closed,) = free_ports("127.0.0.1", 1)
        await it.engine.runtime.drain("smartproxy", "proxy01.test")
        old = it.text.replace(" check check-ssl", f" check port {closed} check-ssl")
        assert old != it.text
        await it.engine.apply(old)
        await it.until(lambda s: all(x.check == "L4CON" for x in s.values()))
        member_port = it.members[0].port
        await it.engine.apply(old.replace(f"port {closed}", f"port {member_port}"))
        await it.until(lambda s: (s["proxy01.test"].status, s["proxy02.test"].status) == ("DRAIN", "UP"))
        assert {row["srv_check_port"] for row in (await restored(it)).values()} == {str(member_port)}


async def test_a_check_somebody_switched_off_is_on_again_after_a_reload(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        await it.engine.runtime.ask("disable health smartproxy/proxy01.test")
        await it.until(lambda s: s["proxy01.test"].status == "no check")
        await it.engine.apply(it.text + "# changed\n")
        await it.until(lambda s: s["proxy01.test"].status == "UP")


async def test_a_weight_that_goes_and_returns_is_the_planned_one_after_a_reload(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        await it.engine.apply(it.text.replace("weight 100", "weight 50"))
        assert {s.weight for s in (await it.states()).values()} == {50}
        await it.engine.apply(it.text, anew=True)
        assert {s.weight for s in (await it.states()).values()} == {100}


async def test_a_server_that_came_to_track_another_is_up_when_that_one_is(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        (closed,) = free_ports("127.0.0.1", 1)
        await it.engine.apply(it.text.replace(" check check-ssl", f" check port {closed} check-ssl"))
        await it.until(lambda s: all(x.status == "DOWN" for x in s.values()))
        port = it.members[0].port
        tracking = re.sub(r"(server (proxy0\d)\.test \S+ id \d weight 100) check .*", r"\1 track probe/\2", it.text)
        probe = "".join(f"  server proxy0{n} 127.0.0.1{n}:{port} check inter 200ms\n" for n in (1, 2))
        await it.engine.apply(f"{tracking}backend probe from tcp_base\n  http-check disable-on-404\n{probe}")
        await it.until(lambda s: all(x.status.startswith("UP") for x in s.values()))


@pytest.mark.parametrize("is_resumed", [True, False], ids=["resumed", "without-a-configuration"])
async def test_what_an_earlier_run_left_in_the_state_file_loses_too(
    executable: Path, tmp_path: Path, pki: Pki, is_resumed: bool
) -> None:
    async with site(executable, tmp_path, pki) as it:
        (closed,) = free_ports("127.0.0.1", 1)
        paths = it.engine.paths
        await it.engine.runtime.drain("smartproxy", "proxy02.test")
        await it.engine.runtime.ask(f"set server smartproxy/proxy01.test check-port {closed}")
        left = await it.engine.runtime.state_file_content()
        await it.engine.__aexit__(None, None, None)
        # As an earlier version left it.
        paths.state.write_text(left)
        if not is_resumed:
            paths.config.unlink()
        async with HAProxyEngine(paths, binary=executable, min_interval_s=0.0) as engine:
            it.engine = engine
            await engine.apply(it.text)
            await it.until(lambda s: all(x.check == "L7OK" for x in s.values()))
            assert (await it.states())["proxy02.test"].status.startswith("DRAIN")


async def test_the_same_text_is_reloaded_only_when_a_file_it_names_is_new(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        before = await workers(it)
        await it.engine.apply(it.text)
        assert await workers(it) == before
        await it.engine.apply(it.text, anew=True)
        assert not await workers(it) & before
        after = await workers(it)
        await it.engine.apply(it.text)
        assert await workers(it) == after


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


async def test_a_port_that_is_taken_is_refused_before_haproxy_tries_it(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        before = {p.pid for p in await it.engine.master.processes()}
        taken = await asyncio.start_server(lambda r, w: w.close(), LB, 0)
        port = taken.sockets[0].getsockname()[1]
        clash = it.text + f"frontend late from tcp_base\n  bind {LB}:{port}\n  default_backend smartproxy\n"
        with pytest.raises(Misconfigured, match=f"port {port}: it is in use by another program"):
            await it.engine.apply(clash)
        taken.close()
        assert it.engine.paths.config.read_text() == it.text
        assert {p.pid for p in await it.engine.master.processes()} == before
        assert await it.call()


async def test_what_somebody_wrote_into_the_file_is_put_back_on_request_and_never_started(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        config = it.engine.paths.config
        assert not it.engine.is_edited
        config.write_text(it.text.replace("retries 3", "retries 1"))
        assert it.engine.is_edited
        await it.engine.mend()
        assert config.read_text() == it.text
        config.write_text("nonsense\n")
        assert it.engine.pid is not None
        restarts = it.engine.restarts
        os.kill(it.engine.pid, signal.SIGKILL)
        await it.until(lambda s: it.engine.restarts > restarts and len(s) == 2)
        assert config.read_text() == it.text
        assert await it.call()


async def test_an_address_that_is_not_ours_brings_the_configuration_before_back(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        # haproxy -c binds nothing, and nobody has this port: only the start finds it out.
        clash = it.text + "frontend late from tcp_base\n  bind 192.0.2.77:18877\n  default_backend smartproxy\n"
        with pytest.raises(Unavailable):
            await it.engine.apply(clash)
        assert it.engine.paths.config.read_text() == it.text
        assert it.engine.last_error is not None
        await it.until(lambda s: len(s) == 2)
        assert await it.call()
        await it.engine.apply(it.text + "# fine again\n")
        assert it.engine.last_error is None


async def workers(it: Site) -> set[int]:
    return {p.pid for p in await it.engine.master.processes() if p.type == "worker" and not p.is_old}


async def test_a_weight_in_the_file_changes_without_a_reload_and_outlives_one(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with site(executable, tmp_path, pki) as it:
        before = await workers(it)
        lighter = "".join(
            line.replace("weight 100", "weight 20") if line.lstrip().startswith("server proxy02") else line
            for line in it.text.splitlines(keepends=True)
        )
        await it.engine.apply(lighter)
        assert await workers(it) == before
        assert {n: s.weight for n, s in (await it.states()).items()} == {"proxy01.test": 100, "proxy02.test": 20}
        await it.engine.apply(lighter, anew=True)
        assert await workers(it) != before
        assert (await it.states())["proxy02.test"].weight == 20
        answers = [await it.call() for _ in range(24)]
        assert answers.count("proxy02.test") == 4
        await it.engine.apply(it.text)
        assert (await it.states())["proxy02.test"].weight == 100


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
        supervisor = it.engine._haproxy.supervisor
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


THIRD = "proxy03.test"
NEW = {("smartproxy", THIRD), ("smartproxy_panic", THIRD)}


@dataclass
class Growing:
    """A site whose third member comes and goes, and the hand that steers its HAProxy."""

    site: Site
    third: TestMember
    executable: Path

    def __post_init__(self) -> None:
        self.steering = Steering(self.site.engine.paths.run, self.site.engine.remember)

    @property
    def two(self) -> ClusterFile:
        return smartproxy_only(self.site.listen, self.third.port)

    @property
    def three(self) -> ClusterFile:
        two = self.two
        new = Member.model_validate({"id": 3, "name": self.third.name, "address": self.third.address})
        return two.model_copy(update={"members": (*two.members, new)})

    async def apply(self, of: ClusterFile, balance: str = "roundrobin") -> None:
        rendered_text = await text(self.executable, self.site.engine.paths, of)
        await self.site.engine.apply(rendered_text.replace("balance roundrobin", f"balance {balance}"))

    async def worker(self) -> int:
        found = [p.pid for p in await self.site.engine.master.processes() if p.type == "worker" and not p.is_old]
        return found[0]

    async def beat(self, lives: Mapping[str, State] | None) -> Observation:
        self.steering.gate(self.site.engine.newcomers())
        told = {n: Life(state) for n, state in lives.items()} if lives is not None else None
        return await self.steering.beat(
            "lb1", modelled(self.three), told, engine="", generation="", trouble="", totals={}
        )

    async def until_thinks(self, opinion: str, lives: Mapping[str, State] | None) -> None:
        async def thinks() -> bool:
            return (await self.beat(lives)).opinions.get(THIRD, {}).get("smartproxy") == opinion

        await eventually(thinks)

    async def until_served_by_the_third(self) -> None:
        async def served() -> bool:
            return await self.site.call() == THIRD

        await eventually(served)

    async def panic_status(self) -> str:
        states = await self.site.engine.runtime.servers()
        return next(s.status for s in states if (s.backend, s.server) == ("smartproxy_panic", THIRD))


@asynccontextmanager
async def growing(executable: Path, directory: Path, pki: Pki) -> AsyncIterator[Growing]:
    async with (
        site(executable, directory, pki) as it,
        member(THIRD, "127.0.0.13", it.members[0].port, pki) as third,
    ):
        yield Growing(it, third, executable)


@asynccontextmanager
async def clients(it: Site) -> AsyncIterator[list[str]]:
    """Keep calling around the block; yields who answered. A call that fails, fails the test."""
    done, answers = asyncio.Event(), list[str]()

    async def keep_calling() -> None:
        while not done.is_set():
            answers.append(await it.call())
            await asyncio.sleep(0.005)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(keep_calling())
        try:
            yield answers
        finally:
            done.set()


async def test_a_server_added_without_a_reload_is_checked_and_takes_nothing_until_it_is_ready(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        it.third.ready = 503
        before = await it.worker()
        async with clients(it.site) as answers:
            await it.apply(it.three)
            assert await it.worker() == before
            assert (await it.site.states())[THIRD].status.startswith("DRAIN")
            await it.until_thinks("down", {THIRD: "warming"})
            it.third.ready = 200
            await it.until_thinks("up", {THIRD: "warming"})
            count = len(answers)
            await eventually(lambda: _as_answer(len(answers) > count + 20))
            states = await it.site.states()
            assert (it.third.served, states[THIRD].total_sessions, await it.panic_status()) == (0, 0, "DRAIN")
            assert THIRD not in answers
            assert len(it.third.asked) > 1
            await it.beat({THIRD: "ready"})
            await it.until_served_by_the_third()
        assert set(answers) >= {"proxy01.test", "proxy02.test"}
        assert it.site.engine.newcomers() == set()
        assert THIRD in it.site.engine.paths.config.read_text()


async def _as_answer(answer: bool) -> bool:
    return answer


async def test_a_server_is_added_twice_and_with_another_before_it_and_stays_one(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        before = await it.worker()
        await it.apply(it.three)
        assert it.site.engine.newcomers() == NEW
        await it.apply(it.three)
        assert it.site.engine.newcomers() == set()
        assert await it.worker() == before
        assert sorted(await it.site.states()) == ["proxy01.test", "proxy02.test", THIRD]


async def test_while_nobody_decides_a_new_server_is_let_in_by_its_first_check(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        await it.apply(it.three)
        await it.until_thinks("up", None)
        await it.beat(None)
        await it.until_served_by_the_third()


async def test_an_addition_haproxy_refuses_becomes_a_reload_that_brings_the_newcomer_drained(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        # HAProxy takes no new servers at run time where the balancing is static.
        await it.apply(it.two, "static-rr")
        before = await it.worker()
        async with clients(it.site) as answers:
            await it.apply(it.three, "static-rr")
            assert await it.worker() != before
            assert (await it.site.states())[THIRD].status.startswith("DRAIN")
            assert await it.panic_status() == "DRAIN"
            await it.until_thinks("up", {THIRD: "warming"})
            assert (it.third.served, THIRD in answers) == (0, False)
            await it.beat({THIRD: "ready"})
            await it.until_served_by_the_third()
        assert it.site.engine.last_error is None


async def test_half_an_addition_is_taken_back_before_the_reload(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with growing(executable, tmp_path, pki) as it:
        # The service's backend takes the newcomer, its twin refuses.
        half = (await text(executable, it.site.engine.paths, it.two)).replace("balance roundrobin", "balance static-rr")
        half = half.replace("balance static-rr", "balance roundrobin", 1)
        await it.site.engine.apply(half)
        before = await it.worker()
        grown = (await text(executable, it.site.engine.paths, it.three)).replace(
            "balance roundrobin", "balance static-rr"
        )
        await it.site.engine.apply(grown.replace("balance static-rr", "balance roundrobin", 1))
        assert await it.worker() != before
        assert it.site.engine.newcomers() == NEW
        states = await it.site.states()
        assert (len(states), states[THIRD].status.startswith("DRAIN")) == (3, True)


async def test_an_addition_that_cannot_be_kept_on_disk_is_taken_back(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        config = it.site.engine.paths.config
        config.unlink()
        # A file cannot replace a directory, whoever tries.
        config.mkdir()
        before = await it.worker()
        with pytest.raises(Unavailable):
            await it.apply(it.three)
        assert sorted(await it.site.states()) == ["proxy01.test", "proxy02.test"]
        assert (await it.worker(), it.site.engine.newcomers()) == (before, set())
        config.rmdir()
        await it.apply(it.three)
        assert it.site.engine.newcomers() == NEW


async def test_a_newcomer_takes_nothing_when_every_check_fails_either(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        for one in it.site.members:
            one.ready = 503
        await it.site.until(lambda s: all(x.status.startswith("DOWN") for x in s.values()))
        await it.apply(it.three)
        await it.beat({THIRD: "warming"})
        assert {await it.site.call() for _ in range(8)} == {"proxy01.test", "proxy02.test"}


async def test_a_removed_server_is_gone_with_a_reload_and_its_connections_end_by_themselves(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        await it.apply(it.three)
        await it.until_thinks("up", {THIRD: "warming"})
        lives: dict[str, State] = {"proxy01.test": "draining", "proxy02.test": "draining", THIRD: "ready"}
        await it.beat(lives)
        await it.until_served_by_the_third()
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(
                LB, it.site.listen, ssl=pki.client_context(), server_hostname="cluster.test"
            )
        before = await it.worker()
        await it.apply(it.two)
        assert await it.worker() != before
        assert sorted(await it.site.states()) == ["proxy01.test", "proxy02.test"]
        seen = await it.beat({**lives, THIRD: "removed"})
        assert (seen.sessions[THIRD], THIRD in seen.opinions) == (1, False)
        writer.write(b"GET / HTTP/1.1\r\nHost: cluster.test\r\n\r\n")
        assert (await reader.read()).endswith(THIRD.encode())
        writer.close()


async def test_who_comes_out_of_maintenance_takes_nothing_before_it_was_checked_anew(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        await it.apply(it.three)
        await it.until_thinks("up", {THIRD: "warming"})
        await it.beat({THIRD: "ready"})
        await it.until_served_by_the_third()
        async with clients(it.site) as answers:
            seen = await it.beat({THIRD: "maintenance"})
            seen = await it.beat({THIRD: "maintenance"})
            assert (await it.site.states())[THIRD].status == "MAINT"
            assert seen.opinions[THIRD] == {"smartproxy": "unknown"}
            # Its last check was good, and it broke since.
            it.third.ready = 503
            await asyncio.sleep(0.2)
            served, count = it.third.served, len(answers)
            said = []
            for _ in range(200):
                said.append((await it.beat({THIRD: "warming"})).opinions[THIRD]["smartproxy"])
                if said[-1] == "down":
                    break
                await asyncio.sleep(0.02)
            assert (said[-1], "up" in said) == ("down", False)
            assert (await it.site.states())[THIRD].status.startswith(("DRAIN", "DOWN"))
            it.third.ready = 200
            await it.until_thinks("up", {THIRD: "warming"})
            assert (it.third.served, THIRD in answers[count:]) == (served, False)
            assert len(answers) > count
            await it.beat({THIRD: "ready"})
            await it.until_served_by_the_third()


async def test_a_drain_made_by_hand_outlives_beats_and_one_of_ours_outlives_a_lost_store(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        await it.site.engine.runtime.drain("smartproxy", "proxy01.test")
        lives: dict[str, State] = {"proxy01.test": "ready", "proxy02.test": "draining"}
        await it.beat(lives)
        await it.beat(None)
        # What runs is replaced; what is held out is on disk.
        it.steering = Steering(it.site.engine.paths.run)
        await it.beat(None)
        status = {n: s.status for n, s in (await it.site.states()).items()}
        assert status == {"proxy01.test": "DRAIN", "proxy02.test": "DRAIN"}
        await it.beat({"proxy01.test": "ready", "proxy02.test": "ready"})
        status = {n: s.status for n, s in (await it.site.states()).items()}
        assert (status["proxy01.test"], status["proxy02.test"].startswith("UP")) == ("DRAIN", True)


async def test_who_was_let_in_the_moment_before_haproxy_was_killed_is_let_in(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        await it.beat({"proxy01.test": "draining"})
        assert await it.site.engine.remember()
        await it.beat({"proxy01.test": "ready"})
        before = await it.worker()
        os.kill(before, signal.SIGKILL)

        async def served_again() -> bool:
            with contextlib.suppress(MusterError, IndexError):
                return await it.worker() != before and bool(await it.site.states())
            return False

        await eventually(served_again)
        await it.beat({"proxy01.test": "ready"})
        assert (await it.site.states())["proxy01.test"].status.startswith("UP")


async def test_an_order_for_a_server_that_is_gone_is_no_failure(executable: Path, tmp_path: Path, pki: Pki) -> None:
    async with growing(executable, tmp_path, pki) as it:
        it.steering.gate(NEW)
        await it.beat({THIRD: "ready"})
        assert it.site.engine.paths.run.joinpath("held.json").read_text() == "[]"


async def test_the_journal_hears_of_every_connection_once_also_from_an_old_worker(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        run = it.site.engine.paths.run
        with Journal(run) as journal:
            async with asyncio.timeout(10):
                reader, writer = await asyncio.open_connection(
                    LB, it.site.listen, ssl=pki.client_context(), server_hostname="cluster.test"
                )
            port = writer.get_extra_info("sockname")[1]
            await it.site.engine.apply(it.site.text + "# changed\n")
            answered = [await it.site.call() for _ in range(5)]
            await eventually(lambda: _as_answer(len(list(connections(run))) == 5))
            assert not found(run, f"127.0.0.1:{port}", most=5)
            writer.write(b"GET / HTTP/1.1\r\nHost: cluster.test\r\n\r\n")
            answered.append((await reader.read()).rpartition(b"\r\n\r\n")[2].decode())
            writer.close()
            await eventually(lambda: _as_answer(len(list(connections(run))) == 6))
            (late,) = found(run, f"127.0.0.1:{port}", most=5)
            assert (late.server, late.service, late.backend, late.failed) == (
                answered[-1], "smartproxy", "smartproxy", False,
            )  # fmt: skip
            assert late.bytes_out > late.bytes_in > 0
            totals = {n: t.connections for n, t in journal.totals.items()}
        assert totals == {n: answered.count(n) for n in set(answered)}


async def test_haproxy_takes_the_limit_of_old_workers_and_keeps_to_it(
    executable: Path, tmp_path: Path, pki: Pki
) -> None:
    async with growing(executable, tmp_path, pki) as it:
        limited = re.sub(r"mworker-max-reloads \d+", "mworker-max-reloads 2", it.site.text)
        assert limited != it.site.text
        candidate = tmp_path / "limited.cfg"
        for one in (it.site.text, limited):
            candidate.write_text(one)
            await binaries.checked(executable, candidate)
        writers = []
        for n in range(5):
            async with asyncio.timeout(10):
                _, writer = await asyncio.open_connection(
                    LB, it.site.listen, ssl=pki.client_context(), server_hostname="cluster.test"
                )
            writers.append(writer)
            await it.site.engine.apply(f"{limited}# reload {n}\n")

        async def few() -> bool:
            return sum(p.is_old for p in await it.site.engine.master.processes()) <= 3

        await eventually(few)
        for writer in writers:
            writer.close()
