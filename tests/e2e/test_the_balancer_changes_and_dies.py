"""The balancer's process and configuration under load: reloads, bad files, deaths, clients that say nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import yaml
from bench.load import Target, by_member, half_client_hello, idle, new_connections

from muster.balancer.haproxy.render import generation
from muster.cli.local.plan import ADDRESS
from muster.kernel.errors import MusterError
from tests.servers.haproxy import free_ports
from tests.servers.local import Local, is_running, load, say, shown, until

pytestmark = pytest.mark.anyio

Edit = Callable[[Callable[[dict[str, Any]], None]], None]

_SLOW = 80
_RELOADS = 6
# So many services of three members that HAProxy alone would ask about each too rarely.
_MORE_SERVICES = 30


def in_force(local: Local) -> str | None:
    return generation((local.run / "haproxy.cfg").read_text())


async def workers(local: Local) -> set[int]:
    with contextlib.suppress(MusterError):
        return {p.pid for p in await local.master.processes() if p.type == "worker" and not p.is_old}
    return set()


@pytest.fixture
async def cluster_file(local: Local) -> AsyncIterator[Edit]:
    """Edit the cluster file as parsed YAML; it is put back, and in force again, afterwards."""
    before, generation_before = local.cluster_file.read_text(), in_force(local)

    def edit(change: Callable[[dict[str, Any]], None]) -> None:
        content = yaml.safe_load(before)
        change(content)
        local.cluster_file.write_text(yaml.safe_dump(content, sort_keys=False))

    yield edit
    local.cluster_file.write_text(before)

    async def is_as_before() -> bool:
        return in_force(local) == generation_before and bool(await workers(local))

    await until(is_as_before, "the configuration before the test is in force again")


async def test_six_reloads_fail_no_call_and_keep_a_drain(local: Local, cluster_file: Edit) -> None:
    drained = local.names[2]
    await local.runtime.drain("smartproxy", drained)
    try:
        async with load(local) as seen:
            for number in range(_RELOADS):
                before, worker = in_force(local), await workers(local)

                def change(content: dict[str, Any], maxconn: int = 1001 + number) -> None:
                    content["balancers"][0]["maxconn"] = maxconn

                cluster_file(change)

                async def is_reloaded(before: str | None = before, worker: set[int] = worker) -> bool:
                    now = await workers(local)
                    return in_force(local) != before and bool(now) and not now & worker

                await until(is_reloaded, f"reload {number + 1} is in force")
                assert f"maxconn {1001 + number}\n" in (local.run / "haproxy.cfg").read_text()
                assert (await local.servers())[drained].status.startswith("DRAIN")
    finally:
        await local.runtime.ready("smartproxy", drained)
    shown("six reloads, new", seen.new)
    shown("six reloads, kept", seen.kept)
    assert [o for o in seen.new + seen.kept if not o.ok or o.reconnected] == []
    strays = by_member(seen.new)[drained]
    say(f"calls that reached the drained member: {strays}")
    # Seen once: a single call slipped to it during a reload. A drain that is forgotten would let in a third of all.
    assert strays <= _RELOADS


async def test_in_a_large_cluster_a_member_that_hangs_is_out_before_haproxys_own_checks_find_it(
    local: Local, cluster_file: Edit
) -> None:
    before, victim = in_force(local), local.names[1]
    ports = free_ports("127.0.0.1", 2 * _MORE_SERVICES)

    def grow(content: dict[str, Any]) -> None:
        for n in range(_MORE_SERVICES):
            listen, member = ports[2 * n : 2 * n + 2]
            content["services"][f"more{n:02d}"] = {"listen_port": listen, "member_port": member, "check": "tcp"}

    cluster_file(grow)

    async def is_grown() -> bool:
        return in_force(local) != before and bool(await workers(local))

    async def are_all_in() -> bool:
        return all(s.status == "UP" for s in (await local.servers()).values())

    await until(is_grown, "the large configuration is in force")
    await until(are_all_in, "all members are in")
    heard, pid = len(local.log("balancer")), local.pid_of(victim)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:

        async def is_out() -> bool:
            return (await local.servers())[victim].status.startswith("DOWN")

        async def is_told() -> bool:
            said = [line for line in local.log("balancer")[heard:].splitlines() if "before its checks find it" in line]
            return any(victim in line and "smartproxy" in line for line in said)

        await until(is_out, "the member that hangs is out")
        # Written down after it was told; and HAProxy may have been asking in that very moment.
        await until(is_told, "the watch has told HAProxy")
    finally:
        os.kill(pid, signal.SIGCONT)
    await until(are_all_in, "HAProxy's own checks let it in again")


async def test_a_bad_cluster_file_is_refused_with_a_reason_and_a_good_one_applied_afterwards(
    local: Local, cluster_file: Edit
) -> None:
    before, worker = in_force(local), await workers(local)
    heard = len(local.log("balancer"))
    cluster_file(lambda content: content.update(signer="nobody.muster.test"))

    async def is_refused() -> bool:
        return "the old one stays in force" in local.log("balancer")[heard:]

    async with load(local, new=10, kept=0) as seen:
        await until(is_refused, "the refusal stands in the balancer's log")
        assert "nobody.muster.test is no member" in local.log("balancer")[heard:]
        assert (in_force(local), await workers(local)) == (before, worker)

        local.cluster_file.write_text("members: [\n")
        heard = len(local.log("balancer"))
        await until(is_refused, "no YAML is refused, too")
        assert (in_force(local), await workers(local)) == (before, worker)

        cluster_file(lambda content: content["balancers"][0].update(maxconn=1100))

        async def is_applied() -> bool:
            return in_force(local) != before and bool(await workers(local) - worker)

        await until(is_applied, "the good file is applied")
    shown("bad and good cluster file, new", seen.new)
    assert [o for o in seen.new if not o.ok] == []


@pytest.mark.parametrize("victim", ["worker", "master"])
async def test_a_killed_haproxy_is_back_before_many_calls_fail(local: Local, victim: str) -> None:
    before: dict[str, int] = {p.type: p.pid for p in await local.master.processes() if not p.is_old}
    async with load(local, new=10, kept=0) as seen:
        os.kill(before[victim], signal.SIGKILL)
        killed = time.monotonic()

        async def serves_again() -> bool:
            return bool(await workers(local)) and any(o.ok and o.due > killed for o in seen.new)

        await until(serves_again, "HAProxy serves again")
        await asyncio.sleep(2.0)
    shown(f"kill -9 of HAProxy's {victim}, new", seen.new, killed)
    assert before["worker"] not in await workers(local)
    failed = [o for o in seen.new if not o.ok]
    assert len(failed) <= 10, "more than one second of calls failed"
    assert all(o.due < killed + 2.0 for o in failed)


async def test_a_killed_balancer_command_is_started_again_and_leaves_no_second_haproxy(local: Local) -> None:
    pid = local.balance_pid
    old = {p.pid for p in await local.master.processes()}
    assert pid is not None
    async with load(local, new=10, kept=0) as seen:
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()

        async def is_replaced() -> bool:
            now = await workers(local)
            return local.balance_pid not in (None, pid) and bool(now) and not now & old

        await until(is_replaced, "another HAProxy serves")
        await asyncio.sleep(1.0)
    shown("kill -9 of muster balance, new", seen.new, killed)
    assert not [p for p in old if is_running(p)], "the first HAProxy still runs"
    served_again = [o for o in seen.new if o.ok and o.start > killed]
    assert served_again, "nobody was served afterwards"


@pytest.mark.parametrize("spoilt", ["members: [\n", "signer", "descriptors"])
async def test_a_balancer_that_starts_on_a_file_it_cannot_use_serves_the_last_good_one(
    local: Local, cluster_file: Edit, spoilt: str
) -> None:
    before, pid, since = in_force(local), local.balance_pid, len(local.log("balancer"))
    old = {p.pid for p in await local.master.processes()}
    assert pid is not None
    # Dead before the file is bad: whoever runs refuses it and needs no memory.
    os.kill(pid, signal.SIGKILL)
    if spoilt == "signer":
        cluster_file(lambda content: content.update(signer="nobody.muster.test"))
    elif spoilt == "descriptors":
        cluster_file(lambda content: content["balancers"][0].update(maxconn=1_000_000))
    else:
        local.cluster_file.write_text(spoilt)

    async def is_replaced() -> bool:
        now = await workers(local)
        return local.balance_pid not in (None, pid) and bool(now) and not now & old

    await until(is_replaced, "another HAProxy serves")
    assert in_force(local) == before
    assert (await local.ask("/version")).status == 200

    sentence = "the one in force last is" if spoilt != "descriptors" else "The configuration of the last run stays"

    async def is_said() -> bool:
        return sentence in local.log("balancer")[since:]

    # HAProxy serves a moment before that.
    await until(is_said, "the balancer says what is in force")
    states = await local.servers()
    assert all(s.takes_traffic for s in states.values()), states


async def test_mute_and_babbling_clients_reach_no_member_and_disturb_nobody(local: Local) -> None:
    hello = half_client_hello(ADDRESS)
    openings = [(b"", b"GET / HTTP/1.0\r\n\r\n", hello, b"\x16\x03\x01")[n % 4] for n in range(_SLOW)]
    before = sum(s.total_sessions for s in (await local.servers()).values())
    target: Target = local.target()
    held, operations = await asyncio.gather(
        idle(target.host, target.port, openings, 20.0), new_connections(target, 10, 6.0)
    )
    after = sum(s.total_sessions for s in (await local.servers()).values())
    closed = [h.closed_after_s for h in held if h.closed_after_s is not None]
    shown(f"{_SLOW} slow clients; the others", operations)
    say(f"slow clients: {len(closed)} closed, the last after {max(closed):.1f} s")
    assert all(h.connected for h in held)
    assert len(closed) == _SLOW
    assert [o for o in operations if not o.ok] == []
    assert after - before == len(operations)
