"""The address that moves, on real keepalived and real HAProxy, on hosts of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.render import RuntimePaths
from muster.balancer.haproxy.render import rendered as haproxy_rendered
from muster.cluster.file import ClusterFile
from muster.cluster.sections import TFTP
from muster.derived import keepalived
from muster.derived.keepalived import CHECK_SCRIPT, CheckPaths
from muster.kernel.process import run
from muster.kernel.settings import parse
from tests.servers import tftp
from tests.servers.namespaces import DEVICE, Host, segment

pytestmark = pytest.mark.anyio

VIRTUAL = "10.231.7.100"
PORT = 8000
TFTP_PORT = 6969

CLUSTER = """
schema: 1
cluster: demo
address: cluster.test
store: {{url: postgresql://muster@db.test/muster}}
members:
- {{id: 1, name: proxy01.test, address: {member}, kind: foreman}}
balancers:
- {{name: lb1, address: {first}}}
- {{name: lb2, address: {second}}}
virtual_address: {{address: {virtual}/24, interface: {device}, advert_s: 0.2, script_user: root}}
services:
  http: {{enabled: false}}
  https: {{enabled: false}}
  puppet: {{enabled: false}}
  puppetca: {{enabled: false}}
  smartproxy: {{enabled: false}}
"""


@pytest.fixture
def directory(needs: Callable[[str], None]) -> Iterator[Path]:
    """A directory only root can change; keepalived runs no script from anywhere else."""
    needs("namespaces")
    needs("keepalived")
    needs("haproxy")
    made = Path(tempfile.mkdtemp(prefix="muster-test-", dir="/run"))
    try:
        script = made / "answers"
        script.write_text(CHECK_SCRIPT)
        script.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(made)


def cluster(lb1: Host, lb2: Host, member: Host) -> ClusterFile:
    text = CLUSTER.format(member=member.address, first=lb1.address, second=lb2.address, virtual=VIRTUAL, device=DEVICE)
    return parse(text).parsed(ClusterFile)


@dataclass
class RunningBalancer:
    """HAProxy and keepalived on one host."""

    host: Host
    directory: Path
    haproxy: subprocess.Popen[bytes]
    keepalived: subprocess.Popen[bytes]

    @property
    def owns(self) -> bool:
        return VIRTUAL in self.host.addresses()

    def said(self, words: str) -> int:
        return (self.directory / "keepalived.log").read_text("utf-8", "replace").count(words)


def start_haproxy(host: Host, where: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(host.command("haproxy", "-db", "-f", where / "haproxy.cfg"), stderr=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def balancer(
    of: ClusterFile, name: str, host: Host, directory: Path, *, moved_by: ClusterFile | None = None
) -> AsyncIterator[RunningBalancer]:
    """Run both; ``moved_by``: what keepalived's configuration is rendered from, where it is not what HAProxy's is."""
    where = directory / name
    where.mkdir()
    which, paths = of.balancer(name), RuntimePaths(where, where)
    haproxy = await binaries.probed(binaries.found())
    text = haproxy_rendered(modelled(of), which=which, runtime=paths, version=haproxy.version, dual_stack=False)
    (where / "haproxy.cfg").write_text(text)
    check = CheckPaths(paths.runtime_socket, directory / "answers")
    (where / "keepalived.conf").write_text(keepalived.rendered(moved_by or of, which=which, check=check))
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((where / "keepalived.log").open("wb"))
        pids = ("--pid", where / "pid", "--vrrp_pid", where / "vrrp.pid")
        command = ("keepalived", "--dont-fork", "--log-console", "--log-detail", "--vrrp", *pids)
        it = RunningBalancer(
            host,
            where,
            start_haproxy(host, where),
            subprocess.Popen(host.command(*command, "--use-file", where / "keepalived.conf"), stdout=log, stderr=log),
        )
        try:
            yield it
        finally:
            it.keepalived.terminate()
            it.haproxy.kill()
            it.keepalived.wait(10)
            it.haproxy.wait(10)


async def eventually(holds: Callable[[], Awaitable[bool]] | Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.1)


async def called(client: Host) -> str:
    """What the virtual address answers to a new connection from the client; empty when it does not."""
    s = client.opened()
    s.setblocking(False)
    try:
        async with asyncio.timeout(1):
            await asyncio.get_running_loop().sock_connect(s, (VIRTUAL, PORT))
            return (await asyncio.get_running_loop().sock_recv(s, 100)).decode()
    except (OSError, TimeoutError):
        return ""
    finally:
        s.close()


async def greeted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"proxy01")
    with contextlib.suppress(OSError):
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("stopped", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stuck"])
async def test_the_address_leaves_a_host_whose_haproxy_does_not_answer_and_stays_where_it_went(
    directory: Path, stopped: signal.Signals
) -> None:
    with segment("lb1", "lb2", "client", "member") as (lb1, lb2, client, member):
        of = cluster(lb1, lb2, member)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(await asyncio.start_server(greeted, sock=member.listening(PORT)))
            first = await stack.enter_async_context(balancer(of, "lb1", lb1, directory))
            await eventually(lambda: first.owns)
            second = await stack.enter_async_context(balancer(of, "lb2", lb2, directory))

            async def served() -> bool:
                return await called(client) == "proxy01"

            await eventually(served)
            await eventually(lambda: second.said("Entering BACKUP STATE") > 0)
            assert (first.owns, second.owns) == (True, False)

            os.kill(first.haproxy.pid, stopped)
            await eventually(lambda: second.owns and not first.owns)
            await eventually(served)

            os.kill(first.haproxy.pid, signal.SIGKILL)
            first.haproxy.wait(10)
            backups = first.said("Entering BACKUP STATE")
            first.haproxy = start_haproxy(lb1, first.directory)
            await eventually(lambda: first.said("Entering BACKUP STATE") > backups)
            assert await served()

            # It comes back when it is needed, and the second was never asked to give way before.
            second.haproxy.kill()
            await eventually(lambda: first.owns and not second.owns)
            await eventually(served)
            assert second.said("Entering BACKUP STATE") == 1


async def test_the_address_leaves_a_host_whose_tftp_does_not_answer_for_one_whose_does(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    with segment("lb1", "lb2", "member") as (lb1, lb2, member):
        of = cluster(lb1, lb2, member)
        # HAProxy has no certificates here, by which it would ask members.
        moved_by = with_tftp(of, lb1, lb2)
        async with AsyncExitStack() as stack:

            def tftp_on(host: Host) -> contextlib.AbstractContextManager[tftp.Serving]:
                return tftp.ours(tmp_path / "root", host=host, port=TFTP_PORT)

            stack.enter_context(tftp_on(lb2))
            with tftp_on(lb1):
                first = await stack.enter_async_context(balancer(of, "lb1", lb1, directory, moved_by=moved_by))
                await eventually(lambda: first.owns)
                second = await stack.enter_async_context(balancer(of, "lb2", lb2, directory, moved_by=moved_by))
                await eventually(lambda: second.said("Entering BACKUP STATE") > 0)
                assert (first.owns, second.owns) == (True, False)
            await eventually(lambda: second.owns and not first.owns)
            # Back in order, it waits until it is needed.
            backups = first.said("Entering BACKUP STATE")
            stack.enter_context(tftp_on(lb1))
            await eventually(lambda: first.said("Entering BACKUP STATE") > backups)
            assert (first.owns, second.owns) == (False, True)


def with_tftp(of: ClusterFile, *hosts: Host) -> ClusterFile:
    """Return the cluster with a member on each of these hosts, which serves TFTP."""
    members = [
        of.members[0].model_copy(update={"id": n, "name": f"proxy0{n}.test", "address": h.address, "kind": "muster"})
        for n, h in enumerate(hosts, 2)
    ]
    netboot = of.netboot.model_copy(update={"tftp": TFTP(port=TFTP_PORT)})
    return of.model_copy(update={"members": (*of.members, *members), "netboot": netboot})


async def test_keepalived_accepts_what_is_rendered_and_refuses_what_is_spoilt(directory: Path) -> None:
    with segment("lb1", "lb2", "member") as (lb1, lb2, member):
        of = with_tftp(cluster(lb1, lb2, member), lb1, lb2)
        check = CheckPaths(directory / "runtime.sock", directory / "answers")
        for family in (4, 6):
            text = keepalived.rendered(of, which=of.balancers[0], check=check)
            if family == 6:
                text = _as_ipv6(of, check)
            (directory / "keepalived.conf").write_text(text)
            done = await run(lb1.command("keepalived", "-t", "-f", directory / "keepalived.conf"), timeout_s=10)
            assert (done.status, done.stdout + done.stderr) == (0, "")
        (directory / "keepalived.conf").write_text(text.replace("nopreempt", "nopreempted"))
        done = await run(lb1.command("keepalived", "-t", "-f", directory / "keepalived.conf"), timeout_s=10)
        assert done.status != 0


def _as_ipv6(of: ClusterFile, check: CheckPaths) -> str:
    balancers = tuple(b.model_copy(update={"address": f"fd00::{n}"}) for n, b in enumerate(of.balancers, 1))
    assert of.virtual_address is not None
    virtual = of.virtual_address.model_copy(update={"address": "fd00::100/64"})
    six = of.model_copy(update={"balancers": balancers, "virtual_address": virtual})
    return keepalived.rendered(six, which=balancers[0], check=check)
