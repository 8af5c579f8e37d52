"""Several balancers at once: two HAProxies agree on a client's member, two nginxes do, and nginx serves at all."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.render import RuntimePaths
from muster.balancer.haproxy.render import rendered as haproxy_rendered
from muster.cluster.file import ClusterFile
from muster.derived import nginx
from muster.derived.nginx import NginxPaths
from muster.kernel.settings import parse
from tests.servers.haproxy import Pki, call, free_ports, member

pytestmark = pytest.mark.anyio

SOURCES = [f"127.0.1.{n}" for n in range(1, 51)]
MEMBERS = {21: "127.0.0.21", 22: "127.0.0.22", 23: "127.0.0.23"}

CLUSTER = """
schema: 1
cluster: demo
address: cluster.test
store: {{url: "sqlite:////nowhere/x.db"}}
members:
{members}balancers:
- {{name: lb1, address: {address}, bind: "{bind}"}}
services:
  http: {{enabled: false}}
  anaconda: {{enabled: false}}
  puppet: {{enabled: false}}
  puppetca: {{enabled: false}}
  https: {{listen_port: {listen}, member_port: {port}, traffic: {traffic}, balance: source, check: tcp}}
  smartproxy: {{listen_port: {other}, member_port: {port}}}
"""


def cluster(
    address: str, ports: tuple[int, ...], *, ids: list[int], traffic: str = "plain", bind: str = ""
) -> ClusterFile:
    listen, other, port = ports
    members = "".join(f"- {{id: {n}, name: proxy{n}.test, address: {MEMBERS[n]}, kind: foreman}}\n" for n in ids)
    text = CLUSTER.format(
        members=members, address=address, listen=listen, other=other, port=port, traffic=traffic, bind=bind or address
    )
    return parse(text).parsed(ClusterFile)


@asynccontextmanager
async def named(address: str, port: int) -> AsyncIterator[None]:
    """A server that says its own address to everybody who connects."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(address.encode())
            await writer.drain()
            writer.close()

    async with await asyncio.start_server(greet, address, port):
        yield


async def answer(address: str, port: int, source: str) -> str:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(address, port, local_addr=(source, 0))
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()


async def picks(address: str, port: int) -> list[str]:
    """Which member each source gets."""
    return [await answer(address, port, source) for source in SOURCES]


async def serves(address: str, port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                if await answer(address, port, "127.0.0.1"):
                    return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def running(*command: str | Path) -> AsyncIterator[None]:
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


@asynccontextmanager
async def haproxy(of: ClusterFile, directory: Path) -> AsyncIterator[None]:
    directory.mkdir()
    found = await binaries.probed(binaries.found())
    paths = RuntimePaths(directory, Pki.made(directory / "pki").directory)
    text = haproxy_rendered(modelled(of), which=of.balancers[0], runtime=paths, version=found.version)
    paths.config.write_text(text)
    async with running(found.path, "-db", "-f", paths.config):
        yield


@asynccontextmanager
async def nginxed(of: ClusterFile, directory: Path) -> AsyncIterator[None]:
    directory.mkdir()
    text = nginx.rendered(of, modelled(of), which=of.balancers[0], paths=NginxPaths(directory))
    config = directory / "nginx.conf"
    config.write_text(text)
    async with running(nginx.found(), "-e", "stderr", "-c", config, "-g", "daemon off;"):
        yield


@pytest.mark.parametrize("engine", ["haproxy", "nginx"])
async def test_balancers_whose_files_list_members_in_another_order_and_bind_otherwise_agree_on_fifty_clients(
    engine: str, needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs(engine)
    run = haproxy if engine == "haproxy" else nginxed
    port, *free = free_ports("127.0.0.1", 5)
    first, second = (*free[:2], port), (*free[2:], port)
    async with AsyncExitStack() as stack:
        for address in MEMBERS.values():
            await stack.enter_async_context(named(address, port))
        one = cluster("127.0.0.31", first, ids=[21, 22, 23])
        two = cluster("127.0.0.32", second, ids=[23, 21, 22], bind="*")
        await stack.enter_async_context(run(one, tmp_path / "one"))
        await stack.enter_async_context(run(two, tmp_path / "two"))
        await serves("127.0.0.31", first[0])
        await serves("127.0.0.32", second[0])
        picked = await picks("127.0.0.31", first[0])
        assert picked == await picks("127.0.0.32", second[0])
    assert set(picked) == set(MEMBERS.values())


async def test_nginx_passes_tls_on_and_source_keeps_a_client_with_its_member(
    needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("nginx")
    pki = Pki.made(tmp_path / "pki")
    listen, other, port = ports = tuple(free_ports("127.0.0.1", 3))
    of = cluster("127.0.0.31", ports, ids=[21, 22], traffic="tls")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(member("proxy21.test", MEMBERS[21], port, pki))
        await stack.enter_async_context(member("proxy22.test", MEMBERS[22], port, pki))
        await stack.enter_async_context(nginxed(of, tmp_path / "nginx"))
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    await call("127.0.0.31", other, pki)
                    break
                await asyncio.sleep(0.05)
        got = {await call("127.0.0.31", other, pki) for _ in range(4)}
        assert got == {"proxy21.test", "proxy22.test"}
        assert len({await call("127.0.0.31", listen, pki) for _ in range(4)}) == 1


async def test_what_is_no_tls_reaches_no_member_through_nginx(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("nginx")
    listen, other, port = ports = tuple(free_ports("127.0.0.1", 3))
    async with AsyncExitStack() as stack:
        for n in (21, 22):
            await stack.enter_async_context(named(MEMBERS[n], port))
        await stack.enter_async_context(nginxed(cluster("127.0.0.31", ports, ids=[21, 22]), tmp_path / "nginx"))
        await serves("127.0.0.31", listen)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.31", other)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()


async def test_a_member_that_dies_costs_nginx_no_connection(needs: Callable[[str], None], tmp_path: Path) -> None:
    needs("nginx")
    listen, _, port = ports = tuple(free_ports("127.0.0.1", 3))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(named(MEMBERS[22], port))
        await stack.enter_async_context(nginxed(cluster("127.0.0.31", ports, ids=[21, 22, 23]), tmp_path / "nginx"))
        await serves("127.0.0.31", listen)
        assert set(await picks("127.0.0.31", listen)) == {MEMBERS[22]}
