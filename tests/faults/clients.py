"""Clients that vanish, keep silent, babble or come in crowds: rows 7 to 9."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from bench.load import half_client_hello, idle

from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.sockets import RuntimeSocket
from muster.cli.local.plan import ADDRESS
from muster.cluster.file import ClusterFile
from muster.kernel.errors import MusterError
from muster.kernel.settings import parse
from tests.faults.fault import NOISE, Outcome, moment
from tests.faults.network import ip
from tests.servers.local import Local, load, until
from tests.servers.namespaces import DEVICE, Host, segment

_PORT = 1883
_HALF_OPEN = 10
_KEEPALIVE_S = 3.0 + 3 * 1.0
_UNACKNOWLEDGED_S = 3.0
_SLOW = 80
_CROWD = 400
_CAP = 256

_CLUSTER = f"""
schema: 1
cluster: demo
address: cluster.test
store: {{{{url: postgresql://muster@db.test/muster}}}}
members:
- {{{{id: 1, name: proxy01.test, address: {{member}}, kind: foreman}}}}
balancers:
- {{{{name: lb, address: {{lb}}}}}}
services:
  http: {{{{enabled: false}}}}
  https: {{{{enabled: false}}}}
  anaconda: {{{{enabled: false}}}}
  puppet: {{{{enabled: false}}}}
  puppetca: {{{{enabled: false}}}}
  smartproxy: {{{{enabled: false}}}}
  mqtt: {{{{listen_port: {_PORT}, member_port: {_PORT}, traffic: tls-tunnel, check: tcp}}}}
"""

# What the product waits for takes minutes; the test keeps the mechanism and shortens the times.
_SHORTER = {
    "tcpka-idle 60s": "tcpka-idle 3s",
    "tcpka-intvl 10s": "tcpka-intvl 1s",
    "tcp-ut 60s": "tcp-ut 3s",
}


async def half_open(_: Local, chance: random.Random) -> Outcome:
    """Cut the link of clients with long connections: half of them idle, half in the middle of receiving."""
    outcome = Outcome()
    streaming = set(chance.sample(range(_HALF_OPEN), _HALF_OPEN // 2))
    with segment("lb", "client", "member", network="10.231.8") as (lb, client, member):
        async with contextlib.AsyncExitStack() as stack:
            ended = await stack.enter_async_context(talking(member, streaming))
            text = await long_connections(lb, member)
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-fault-", dir="/run")))
            for given, shorter in _SHORTER.items():
                outcome.promise(given in text, f"the rendered configuration lacks {given!r}")
                text = text.replace(given, shorter)
            runtime = stack.enter_context(haproxy(lb, directory, text))

            async def is_up() -> bool:
                with contextlib.suppress(MusterError):
                    return any(s.backend == "mqtt" and s.takes_traffic for s in await runtime.servers())
                return False

            await until(is_up, "HAProxy runs")
            for _number in range(_HALF_OPEN):
                stack.enter_context(await greeting(client, lb))

            async def open_now() -> int:
                return sum(s.sessions for s in await runtime.servers() if s.backend == "mqtt")

            async def are_open() -> bool:
                return await open_now() == _HALF_OPEN

            await until(are_open, "every long connection leads to the member")
            await moment(chance)
            outcome.fault_at = time.monotonic()
            ip("-n", client.namespace, "link", "set", DEVICE, "down")
            budget_s = _KEEPALIVE_S + _UNACKNOWLEDGED_S

            async def are_reaped() -> bool:
                return await open_now() == 0 and len(ended) == _HALF_OPEN

            with contextlib.suppress(AssertionError):
                await until(are_reaped, "the dead peers are found", patience_s=NOISE * budget_s)
            reaped = _HALF_OPEN - await open_now()
            outcome.measured["reaped"] = f"{reaped}/{_HALF_OPEN}"
            outcome.promise(reaped == _HALF_OPEN, f"only {reaped} of {_HALF_OPEN} half-open connections were found")
            outcome.promise(len(ended) == _HALF_OPEN, f"the member saw {len(ended)} of {_HALF_OPEN} connections end")
            outcome.promise_within("reaped_s", time.monotonic() - outcome.fault_at, budget_s)
    return outcome


async def long_connections(lb: Host, member: Host) -> str:
    of = parse(_CLUSTER.format(member=member.address, lb=lb.address)).parsed(ClusterFile)
    version = (await binaries.probed(binaries.found())).version
    paths = RuntimePaths(Path("/RUN"), Path("/RUN"))
    return rendered(modelled(of), which=of.balancers[0], runtime=paths, version=version, dual_stack=False)


@contextlib.contextmanager
def haproxy(host: Host, directory: Path, text: str) -> Iterator[RuntimeSocket]:
    config = directory / "haproxy.cfg"
    config.write_text(text.replace("/RUN", str(directory)))
    (directory / "servers.state").write_text("1\n")
    process = subprocess.Popen(
        host.command(binaries.found(), "-db", "-f", config), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield RuntimeSocket(directory / "runtime.sock")
    finally:
        process.kill()
        process.wait(10)


@contextlib.asynccontextmanager
async def talking(member: Host, streaming: set[int]) -> AsyncIterator[list[int]]:
    """A member that says a word to whoever says something, and more and more to some; holds the numbers of ended ones."""
    ended: list[int] = []
    served: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A check connects and says nothing.
            if not await reader.read(4096):
                return
            number = len(served)
            served.append(writer)
            writer.write(b"welcome")
            ending = asyncio.create_task(reader.read())
            while not ending.done():
                if number in streaming:
                    writer.write(b"." * 16)
                await asyncio.wait([ending], timeout=0.2)
            ended.append(number)
            with contextlib.suppress(OSError):
                ending.result()
        except OSError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(talk, sock=member.listening(_PORT)):
        yield ended


async def greeting(client: Host, lb: Host) -> socket.socket:
    """A connection that has sent a whole ClientHello, and got an answer."""
    loop = asyncio.get_running_loop()
    connection = client.opened()
    connection.setblocking(False)
    async with asyncio.timeout(10):
        await loop.sock_connect(connection, (lb.address, _PORT))
        await loop.sock_sendall(connection, client_hello("cluster.test"))
        await loop.sock_recv(connection, 100)
    return connection


def client_hello(server_name: str) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=server_name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


async def slow(local: Local, chance: random.Random) -> Outcome:
    outcome = Outcome()
    openings = [b"", b"GET / HTTP/1.0\r\n\r\n", half_client_hello(ADDRESS), b"\x16\x03\x01", chance.randbytes(200)]
    chosen = [chance.choice(openings) for _ in range(_SLOW)]
    before = sum(s.total_sessions for s in (await local.servers()).values())
    async with load(local, before_s=3.0) as seen:
        outcome.fault_at = time.monotonic()
        target = local.target()
        held = await idle(target.host, target.port, chosen, 20.0)
        over_at = time.monotonic()
    after = sum(s.total_sessions for s in (await local.servers()).values())
    outcome.operations = seen.new + seen.kept
    # Eight kept connections, and one more whenever one of them was made anew.
    used = len(seen.new) + len({id(o) for o in seen.kept if o.reconnected}) + 8
    closed = [h.closed_after_s for h in held if h.closed_after_s is not None]
    outcome.measured |= {"closed": f"{len(closed)}/{_SLOW}", "member_connections_used": after - before - used}
    outcome.promise(len(closed) == _SLOW, f"{_SLOW - len(closed)} of {_SLOW} slow clients were not closed")
    outcome.promise(after - before <= used, f"slow clients used {after - before - used} connections of members")
    outcome.promise_no_failure(outcome.operations, "the others")
    outcome.promise_p99_unchanged(
        [o for o in seen.new if o.end < outcome.fault_at], [o for o in seen.new if outcome.fault_at <= o.due < over_at]
    )
    return outcome


async def crowd(local: Local, chance: random.Random) -> Outcome:
    """Open very many connections from one address and hold them."""
    outcome = Outcome()
    source = f"127.0.0.{chance.randrange(100, 250)}"
    async with load(local, before_s=3.0) as seen:
        outcome.fault_at = time.monotonic()
        kept = await asyncio.gather(*(held_from(local, source) for _ in range(_CROWD)))
        over_at = time.monotonic()
    outcome.operations = seen.new + seen.kept
    outcome.measured["kept_of_the_crowd"] = sum(kept)
    outcome.promise(sum(kept) <= _CAP, f"{sum(kept)} connections of one address were kept, promised at most {_CAP}")
    outcome.promise(sum(kept) >= _CAP // 2, f"only {sum(kept)} connections were kept: something else refused them")
    outcome.promise_no_failure(outcome.operations, "the others")
    outcome.promise_p99_unchanged(
        [o for o in seen.new if o.end < outcome.fault_at], [o for o in seen.new if outcome.fault_at <= o.due < over_at]
    )
    return outcome


async def held_from(local: Local, source: str) -> bool:
    """Whether HAProxy lets a silent connection from the address wait for its first word, instead of closing it at once."""
    target = local.target()
    begin = time.monotonic()
    try:
        async with asyncio.timeout(15):
            reader, writer = await asyncio.open_connection(target.host, target.port, local_addr=(source, 0))
    except OSError:
        return False
    try:
        async with asyncio.timeout(15):
            with contextlib.suppress(ConnectionError):
                await reader.read(1)
    except TimeoutError:
        return True
    finally:
        writer.transport.abort()
    # One that is let in has five seconds for its ClientHello.
    return time.monotonic() - begin > 2.5
