"""``muster demo``: a cluster that proves itself: records created through the balancer land in a real BIND."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG

if TYPE_CHECKING:
    from muster.cli.demo.bind import Bind
    from muster.cli.local.cluster import LocalCluster
    from muster.cli.local.plan import Plan

_NAME, _ADDRESS, _REVERSE = "demo01.example.net", "192.0.2.10", "10.2.0.192.in-addr.arpa"


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".demo"),
    show_default=True,
    help="Where the demo keeps its files.",
)
@click.option("--check", is_flag=True, help="Stop after the check; the exit code says whether all was well.")
@click.option("--members", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option("--memory", is_flag=True, help="Do not use BIND even when it is installed.")
def demo(directory: Path, check: bool, members: int, memory: bool) -> int:
    """Run three members behind a real HAProxy, create DNS records through them, examine everything.

    With a BIND 9 on this machine the records land in its zone; without one they stay in each member's memory.
    """
    return asyncio.run(_demonstrated(directory.absolute(), check, members, memory))


@dataclass(frozen=True)
class _DNS:
    """Where the demo's records go: the features section, and how to look a record up (None without a real server)."""

    features: dict[str, Any]
    sentence: str
    server: Bind | None = None


async def _demonstrated(directory: Path, check: bool, members: int, memory: bool) -> int:
    from muster.cli.local.cluster import running
    from muster.cli.local.files import prepare
    from muster.cli.local.only_one import only_one
    from muster.cli.local.plan import planned
    from muster.cli.up import greeted
    from muster.kernel.files import make_directory

    started = time.monotonic()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    make_directory(directory, mode=0o700)
    _step("Muster demo: a cluster of Foreman Smart Proxies on this machine's loopback addresses.")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_one(directory))
        dns = await stack.enter_async_context(_dns(directory, memory))
        _step(dns.sentence)
        plan = planned(directory, members=members, features=dns.features)
        await asyncio.to_thread(prepare, plan)
        _step(f"Certificates: cluster CA, {members} members, balancer and Foreman's client bundle in {plan.pki}")
        cluster = await stack.enter_async_context(running(plan))
        _step(f"{members} members and HAProxy are ready after {time.monotonic() - started:.1f} s")
        good = await _records(cluster, dns)
        healthy = await _examined(plan)
        good = good and healthy
        click.echo()
        click.echo(greeted(cluster), nl=False)
        if check:
            click.echo("The demo's check passed." if good else "The demo's check FAILED.")
            return 0 if good else WRONG
        _next_steps(plan, dns)
        said = 0
        while not stop.is_set():
            for sentence in cluster.sayings[said:]:
                click.echo(sentence)
            said = len(cluster.sayings)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await stop.wait()
        click.echo("\nStopping.")
    return 0 if good else WRONG


@contextlib.asynccontextmanager
async def _dns(directory: Path, memory: bool) -> AsyncIterator[_DNS]:
    from muster.cli.demo import bind
    from muster.kernel.errors import Unavailable

    why = ""
    async with contextlib.AsyncExitStack() as stack:
        if memory:
            why = "as asked"
        elif bind.binary() is None:
            why = "because there is no BIND on this machine (Debian: apt-get install bind9)"
        else:
            try:
                server = await stack.enter_async_context(bind.running(directory / "bind"))
            except Unavailable as e:
                why = f"because BIND did not start ({e})"
        if why:
            sentence = (
                f"DNS: provider memory, {why}. Each member keeps its own records and forgets them when it ends: "
                "enough to see the protocol, no DNS server anywhere."
            )
            yield _DNS({"dns": {"provider": "memory"}}, sentence)
            return
        settings = {"server": server.address, "port": server.port, "key_file": str(server.key_file)}
        sentence = f"DNS: a real BIND on {server.address} port {server.port}, zones {', '.join(bind.ZONES)}"
        yield _DNS({"dns": {"provider": "nsupdate", "nsupdate": settings}}, sentence, server)


async def _records(cluster: LocalCluster, dns: _DNS) -> bool:
    """Create, repeat, contradict and read back an A and a PTR record, all through the balancer."""
    from muster.cli.local.plan import ADDRESS, FOREMAN
    from muster.foreman import smart_proxy
    from muster.pki.bundles import paths
    from muster.pki.context import client_context

    bundle = paths(cluster.plan.pki, "client", FOREMAN)
    context = client_context(bundle.ca, bundle.certificate, bundle.key)
    a = {"fqdn": _NAME, "type": "A", "value": _ADDRESS}
    ptr = {"fqdn": _NAME, "type": "PTR", "value": _REVERSE}
    click.echo()
    good = True
    # One kept-alive connection reaches one member, which is what provider memory needs to remember anything.
    async with smart_proxy.opened(cluster.url, context=context, server_name=ADDRESS) as proxy:
        for words, form, expected in (
            (f"POST /dns/ {_NAME} A {_ADDRESS}", a, 200),
            ("the same again: nothing changes", a, 200),
            ("another address for the same name: a conflict", {**a, "value": "192.0.2.11"}, 409),
            (f"POST /dns/ {_REVERSE} PTR {_NAME}", ptr, 200),
        ):
            answer = await proxy.ask("POST", "/dns/", form)
            good = _told(f"{words}", str(answer.status), str(expected)) and good
        if dns.server is not None:
            good = _told(f"BIND: {_NAME} A", await _looked_up(dns.server, _NAME, "A"), _ADDRESS) and good
            good = _told(f"BIND: {_REVERSE} PTR", await _looked_up(dns.server, _REVERSE, "PTR"), f"{_NAME}.") and good
        for path, words in ((f"/dns/{_NAME}/A", "DELETE the A record"), (f"/dns/{_REVERSE}", "DELETE the PTR record")):
            answer = await proxy.ask("DELETE", path)
            good = _told(words, str(answer.status), "200") and good
        if dns.server is not None:
            good = _told(f"BIND: {_NAME} A", await _looked_up(dns.server, _NAME, "A"), "(nothing)") and good
    return good


def _told(words: str, got: str, expected: str) -> bool:
    mark = "ok  " if got == expected else "FAIL"
    click.echo(f"  {mark} {words:<58} {got}{'' if got == expected else f' (expected {expected})'}")
    return got == expected


async def _looked_up(server: Bind, name: str, kind: str) -> str:
    import dns.asyncquery
    import dns.message

    answer = await dns.asyncquery.tcp(dns.message.make_query(name, kind), server.address, 3.0, server.port)
    return ", ".join(item.to_text() for rrset in answer.answer for item in rrset) or "(nothing)"


async def _examined(plan: Plan) -> bool:
    from rich.console import Console

    from muster.cli.doctor import examination, shown

    found = await examination(plan.cluster_file, plan.pki, run=plan.run)
    click.echo()
    console = Console(width=None if sys.stdout.isatty() else 110)
    for part in shown(found):
        console.print(part)
    return bool(found["healthy"])


def _next_steps(plan: Plan, dns: _DNS) -> None:
    click.echo(
        "\nTry next, in another terminal (after the export above, with .venv/bin on the PATH):\n"
        "  muster status --watch                 who is ready for what\n"
        "  muster drain proxy02                  let a member finish; then: muster ready proxy02\n"
        f"  kill -9 a member's process            (pgrep -f 'serve .*{plan.directory.name}'): nobody notices\n"
        "  muster doctor                         the table above, at any time\n"
        "  muster render haproxy --balancer local"
    )
    if dns.server is not None:
        click.echo(f"  dig @{dns.server.address} -p {dns.server.port} example.net AXFR +short")
    click.echo(f"Logs are in {plan.directory}/log. Ctrl-C stops everything.")


def _step(sentence: str) -> None:
    click.echo(f"* {sentence}")
