"""Ruby members behind real HAProxies: a program that hangs or answers badly loses its service, and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.balancer.generations import KNOWN
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.model import Question
from muster.cluster.file import ClusterFile
from muster.kernel.settings import parse
from muster.observed.programs import Asker, believing
from tests.servers import puppetserver
from tests.servers.haproxy import CLUSTER_NAME, Pki, free_ports
from tests.servers.program import Mood, Program, running

pytestmark = pytest.mark.anyio

LB = "127.0.0.9"
MEMBERS = {"ruby01.test": "127.0.0.15", "ruby02.test": "127.0.0.16", "ruby03.test": "127.0.0.17"}
FIRST, SECOND, THIRD = MEMBERS
GOOD_PULP = '{"versions":[],"database_connection":{"connected":true}}'
BAD_PULP = '{"versions":[],"database_connection":{"connected":false}}'
BODIES = {
    "https": GOOD_PULP,
    "anaconda": "{}",
    "puppet": "running",
    "puppetca": "running",
    "smartproxy": "{}",
    "mqtt": "",
}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki.made(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def puppet_pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """Puppet's CA, which balancers know nothing of."""
    return Pki.made(tmp_path_factory.mktemp("puppet-pki"))


@dataclass
class Site:
    """Two Ruby members with a program per port, and HAProxy in front; a third is there and not in the file."""

    engine: HAProxyEngine
    executable: Path
    programs: dict[tuple[str, str], Program]
    ports: dict[str, int]
    listen: dict[str, int]

    def file(self, *names: str, **services: Any) -> ClusterFile:
        content = {
            "schema": 1, "cluster": "rubies", "address": CLUSTER_NAME, "store": {"url": "sqlite:////nowhere/x.db"},
            "members": [
                {"id": i, "name": n, "address": a, "kind": "foreman"}
                for i, (n, a) in enumerate(MEMBERS.items(), 1) if n in (names or (FIRST, SECOND))
            ],
            "balancers": [{"name": "lb", "address": LB, "bind": LB}],
            "services": {
                "http": {"listen_port": self.listen["http"], "member_port": self.ports["http"]},
                **{s: {"listen_port": self.listen[s], "member_port": self.ports[s]} for s in BODIES},
            },
        }  # fmt: skip
        for name, more in services.items():
            content["services"][name] |= more  # type: ignore[index]
        return parse(yaml.safe_dump(content)).parsed(ClusterFile)

    async def apply(self, cluster: ClusterFile) -> None:
        version = (await binaries.probed(self.executable)).version
        await self.engine.apply(
            rendered(modelled(cluster), which=cluster.balancers[0], runtime=self.engine.paths, version=version)
        )

    async def states(self, member: str) -> dict[str, str]:
        """A server is up when a check has ended, not already when none has."""
        found = await self.engine.runtime.servers()
        mine = (s for s in found if s.server == member and "_" not in s.backend)
        return {s.backend: s.status.split()[0] if s.check.startswith("L") else s.check for s in mine}

    async def until(self, member: str, **wanted: str) -> None:
        """Wait until these are the states of its services; every other one must be up then, and stay so."""
        told: dict[str, str] = {}
        try:
            async with asyncio.timeout(25):
                while not told or told != {s: wanted.get(s, "UP") for s in told}:
                    await asyncio.sleep(0.1)
                    told = await self.states(member)
        except TimeoutError:
            raise AssertionError(f"{member}: {told}, wanted {wanted} and the others up") from None


def context(pki: Pki, *, demanding: bool) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(pki.directory / "check.pem")
    made.load_verify_locations(pki.directory / "ca.pem")
    made.verify_mode = ssl.CERT_REQUIRED if demanding else ssl.CERT_OPTIONAL
    return made


@asynccontextmanager
async def site(executable: Path, directory: Path, pki: Pki, puppet_pki: Pki) -> AsyncIterator[Site]:
    names = (*BODIES, "http")
    numbers = free_ports("127.0.0.1", 2 * len(names))
    ports, listen = dict(zip(names, numbers, strict=False)), dict(zip(names, numbers[len(names) :], strict=True))
    contexts = {
        "https": context(pki, demanding=False), "smartproxy": context(pki, demanding=True),
        "mqtt": context(pki, demanding=True),
        "puppet": context(puppet_pki, demanding=False), "puppetca": context(puppet_pki, demanding=False),
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        programs = {}
        for name, address in MEMBERS.items():
            for service, body in {**BODIES, "http": ""}.items():
                program = Program(address, ports[service], body=body, context=contexts.get(service))
                programs[name, service] = await stack.enter_async_context(running(program))
        paths = RuntimePaths(directory / "run", pki.directory)
        engine = await stack.enter_async_context(HAProxyEngine(paths, binary=executable, min_interval_s=0.0))
        it = Site(engine, executable, programs, ports, listen)
        await it.apply(it.file())
        await it.until(FIRST)
        await it.until(SECOND)
        yield it


@pytest.mark.parametrize("generation", ["seed", "installer", "foremanctl"])
async def test_haproxy_accepts_a_cluster_of_ruby_members_without_a_warning(
    executable: Path, tmp_path: Path, pki: Pki, generation: str
) -> None:
    content = {
        "schema": 1, "cluster": "rubies", "address": CLUSTER_NAME, "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [{"id": i, "name": n, "address": a, "kind": "foreman"} for i, (n, a) in enumerate(MEMBERS.items(), 1)],
        "balancers": [{"name": "lb", "address": LB, "bind": LB}], "generation": generation, "signer": FIRST,
        "services": {"mqtt": {"listen_port": 1883, "member_port": 1883}},
    }  # fmt: skip
    of = parse(yaml.safe_dump(content)).parsed(ClusterFile)
    paths = RuntimePaths(tmp_path, pki.directory)
    version = (await binaries.probed(executable)).version
    paths.config.write_text(rendered(modelled(of), which=of.balancers[0], runtime=paths, version=version))
    paths.state.write_text("1\n")
    said = await asyncio.create_subprocess_exec(executable, "-c", "-f", paths.config, stderr=-1, stdout=-1)
    assert b"WARNING" not in b"".join(await said.communicate())
    assert said.returncode == 0


async def test_every_program_is_asked_its_own_question(
    executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki
) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        asked = {s: set(it.programs[FIRST, s].asked) for s in (*BODIES, "http")}
        assert asked == {
            "https": {("GET /pulp/api/v3/status/ HTTP/1.1", CLUSTER_NAME)},
            "anaconda": {("GET /version HTTP/1.1", CLUSTER_NAME)},
            "puppet": {("GET /status/v1/simple HTTP/1.1", CLUSTER_NAME)},
            "puppetca": {("GET /status/v1/simple/ca HTTP/1.1", CLUSTER_NAME)},
            "smartproxy": {("GET /version HTTP/1.1", CLUSTER_NAME)},
            # The handshake is its proof; port 80 is Apache's, which speaks of Pulp on 443 only.
            "mqtt": set(),
            "http": set(),
        }
        assert set(it.programs[FIRST, "smartproxy"].clients) == {CLUSTER_NAME}
        assert set(it.programs[FIRST, "mqtt"].clients) == {CLUSTER_NAME}
        assert set(it.programs[FIRST, "https"].clients) == {""}


@pytest.mark.parametrize("mood", ["hangs", "stalls"])
async def test_what_takes_connections_and_never_answers_goes_down_and_comes_back(
    executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki, mood: Mood
) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        it.programs[FIRST, "puppet"].mood = mood
        await it.until(FIRST, puppet="DOWN")
        await it.until(SECOND)
        it.programs[FIRST, "puppet"].mood = "answers"
        await it.until(FIRST)


@pytest.mark.parametrize("status", [503, 404])
async def test_a_bad_answer_takes_the_service_down_and_does_not_only_drain_it(
    executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki, status: int
) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        it.programs[FIRST, "puppetca"].status = status
        it.programs[SECOND, "anaconda"].status = status
        await it.until(FIRST, puppetca="DOWN")
        await it.until(SECOND, anaconda="DOWN")


async def test_a_pulp_without_its_database_leaves_both_ports_of_apache_and_stays_in_the_others(
    executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki
) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        it.programs[FIRST, "https"].body = BAD_PULP
        await it.until(FIRST, https="DOWN", http="DOWN")
        await it.until(SECOND)


async def test_a_broker_that_hangs_in_tls_goes_down(
    executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki
) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        it.programs[FIRST, "mqtt"].mood = "hangs"
        await it.until(FIRST, mqtt="DOWN")


async def test_a_certificate_is_verified_where_its_ca_is_known(
    executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki
) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        it.programs[FIRST, "https"].context = context(puppet_pki, demanding=False)
        await it.until(FIRST, https="DOWN", http="DOWN")
        # Told whose CA it is, puppetserver is verified, too: the other's certificate is refused then.
        known = {"check": {"ca_file": str(puppet_pki.directory / "ca.pem")}}
        it.programs[SECOND, "puppet"].context = context(pki, demanding=False)
        await it.apply(it.file(puppet=known, puppetca=known))
        await it.until(SECOND, puppet="DOWN")
        await it.until(FIRST, https="DOWN", http="DOWN")


async def test_check_tcp_asks_nothing(executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        it.programs[FIRST, "puppet"].status = 503
        it.programs[FIRST, "https"].mood = "hangs"
        await it.until(FIRST, puppet="DOWN", https="DOWN", http="DOWN")
        await it.apply(it.file(puppet={"check": "tcp"}, https={"check": "tcp"}))
        await it.until(FIRST)


async def test_a_ruby_member_is_added_without_a_reload(
    executable: Path, tmp_path: Path, pki: Pki, puppet_pki: Pki
) -> None:
    async with site(executable, tmp_path, pki, puppet_pki) as it:
        # A tunnel's server lines have a word that only a reload brings.
        off = {"enabled": False}
        await it.apply(it.file(mqtt=off))
        before = {p.pid for p in await it.engine.master.processes() if p.type == "worker" and not p.is_old}
        it.programs[THIRD, "puppet"].status = 503
        await it.apply(it.file(*MEMBERS, mqtt=off))
        assert {p.pid for p in await it.engine.master.processes() if p.type == "worker" and not p.is_old} == before
        held = {place for place in it.engine.newcomers() if place[1] == THIRD}
        assert len(held) == 2 * (len(BODIES) + 1 - 1)
        for service in ("puppet", "https", "smartproxy"):
            await it.engine.runtime.ready(service, THIRD)
        ready = {"https": "UP", "smartproxy": "UP", "puppet": "DOWN"}
        await it.until(THIRD, **{s: ready.get(s, "DRAIN") for s in (*BODIES, "http") if s != "mqtt"})


@pytest.mark.parametrize("executable", ["debian"], indirect=True)
async def test_a_real_puppetserver_is_proven_and_one_that_stands_still_is_not(
    executable: Path, tmp_path: Path, pki: Pki, needs: Callable[[str], None]
) -> None:
    needs("puppetserver")
    listen, other = free_ports(LB, 2)
    with puppetserver.running(tmp_path / "server", certname=FIRST, address=MEMBERS[FIRST]) as server:
        content = {
            "schema": 1, "cluster": "rubies", "address": CLUSTER_NAME, "store": {"url": "sqlite:////nowhere/x.db"},
            "members": [{"id": 1, "name": FIRST, "address": server.address, "kind": "foreman"}],
            "balancers": [{"name": "lb", "address": LB, "bind": LB}], "signer": FIRST,
            "services": {
                **{s: {"enabled": False} for s in ("http", "https", "anaconda", "smartproxy")},
                "puppet": {"listen_port": listen, "member_port": server.port},
                "puppetca": {"listen_port": other, "member_port": server.port},
            },
        }  # fmt: skip
        async with HAProxyEngine(RuntimePaths(tmp_path / "run", pki.directory), binary=executable) as engine:
            it = Site(engine, executable, {}, {}, {})
            await it.apply(parse(yaml.safe_dump(content)).parsed(ClusterFile))
            await it.until(FIRST)
            asker = Asker(CLUSTER_NAME, believing(pki.directory / "check.pem", pki.directory / "check.pem"))
            asked = [Question("connect", server.port, proof=KNOWN[s].proof) for s in ("puppet", "puppetca")]
            assert [await asker.unproven(server.address, q) for q in asked] == ["", ""]
            os.kill(server.pid, signal.SIGSTOP)
            try:
                await it.until(FIRST, puppet="DOWN", puppetca="DOWN")
                assert "no answer within 3 s" in await asker.unproven(server.address, asked[0])
            finally:
                os.kill(server.pid, signal.SIGCONT)
            await it.until(FIRST)
