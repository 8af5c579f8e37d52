"""Members that leave, die, hang or vanish from the network: rows 2 to 6."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from bench.load import Operation, by_member

from muster.kernel.errors import MusterError
from tests.e2e.test_doctor_and_status_find_it import stopped
from tests.faults.fault import Outcome, moment, p99_ms
from tests.faults.network import alone, dropped
from tests.servers import local as clusters
from tests.servers.local import Load, Local, is_running, load, until


def is_up(local: Local, member: str) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return (await local.servers())[member].status == "UP"

    return asked


async def all_up(local: Local) -> bool:
    """Whether HAProxy sends clients to every member; a cluster that just started may hold some back for a beat."""
    with contextlib.suppress(MusterError):
        servers = await local.servers()
        return len(servers) == local.members and all(s.status == "UP" for s in servers.values())
    return False


async def out_s(local: Local, member: str, since: float) -> float:
    """Return how long after that moment HAProxy sends the member nothing new; asked every few milliseconds."""

    async def is_out() -> bool:
        return not (await local.servers())[member].takes_traffic

    limit = time.monotonic() + clusters.PATIENCE_S
    while not await is_out():
        assert time.monotonic() < limit, f"{member} is still not out of the balancer"
        await asyncio.sleep(0.01)
    return time.monotonic() - since


async def answers_again(local: Local, member: str, seen: Load, since: float) -> None:
    async def does() -> bool:
        return by_member(seen.new, since)[member] > 0

    await until(does, f"{member} answers clients again")


async def drained_and_stopped(local: Local, chance: random.Random) -> Outcome:
    outcome = Outcome()
    name = chance.choice(local.names)
    pid = local.pid_of(name)
    assert pid is not None
    async with load(local) as seen:
        await moment(chance)
        outcome.fault_at = time.monotonic()
        draining = asyncio.create_task(local.cli("drain", name, "--reason", "fault matrix"))

        async def is_empty() -> bool:
            return await local.master.sessions(name) == 0 and not (await local.servers())[name].takes_traffic

        await until(is_empty, "the draining member has no connection")
        empty_s = time.monotonic() - outcome.fault_at
        drained = await draining
        outcome.measured["command_s"] = round(time.monotonic() - outcome.fault_at, 2)
        outcome.promise("is drained" in drained.out, f"muster drain did not empty the member: {drained}")
        await moment(chance)
        os.kill(pid, signal.SIGTERM)

        async def drains_again() -> bool:
            with contextlib.suppress(OSError):
                answer = await local.ask("/health/ready", name)
                return answer.status == 404 and local.pid_of(name) not in (None, pid)
            return False

        await until(drains_again, "another process serves as this member and drains")
        quiet_until = time.monotonic()
        strays = by_member([o for o in seen.new if o.start > outcome.fault_at + empty_s and o.end < quiet_until])[name]
        ready = await local.cli("ready", name)
        assert ready.code == 0, ready
        await answers_again(local, name, seen, quiet_until)
    outcome.operations = seen.new + seen.kept
    longest_s = max(o.end - o.start for o in outcome.operations)
    outcome.promise_within("empty_s", empty_s, longest_s + 2.0)
    outcome.promise(strays == 0, f"{strays} new connections reached the drained member")
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


@dataclass(frozen=True)
class Look:
    """What HAProxy showed of a member at one moment; ``taken`` counts connections in every backend."""

    at: float
    is_checked: bool
    taken: int


@contextlib.asynccontextmanager
async def watched(local: Local, member: str) -> AsyncIterator[list[Look]]:
    """Look at a member in HAProxy as often as it goes, for the length of the block."""
    looks: list[Look] = []
    done = asyncio.Event()

    async def look() -> None:
        while not done.is_set():
            # Between two workers nobody answers.
            with contextlib.suppress(MusterError):
                states = [s for s in await local.runtime.servers() if s.server == member]
                asked = [s for s in states if not s.backend.endswith("_panic")]
                passed = bool(asked) and all(s.check.startswith(("L4OK", "L7OK")) for s in asked)
                looks.append(Look(time.monotonic(), passed, sum(s.total_sessions for s in states)))
            await asyncio.sleep(0.05)

    work = asyncio.create_task(look())
    try:
        yield looks
    finally:
        done.set()
        await work


async def removed_and_added(local: Local, chance: random.Random, *, times: int) -> Outcome:
    """Remove a member and stop its process, add it again and start it, so many times."""
    outcome = Outcome()
    name = chance.choice(local.names)
    address, number = local.target(member=name).host, local.names.index(name) + 1
    before, configuration = local.cluster_file.read_text(), local.run / "haproxy.cfg"
    in_force = configuration.read_text()
    strays: list[Operation] = []
    unchecked = taken = 0
    try:
        async with load(local) as seen, watched(local, name) as looks:
            outcome.fault_at = time.monotonic()
            for _ in range(times):
                await moment(chance)
                removed = await local.cli("remove", name, "--reason", "fault matrix")
                removed_at = time.monotonic()
                assert removed.code == 0, removed
                await until(lambda: is_forgotten(local, name), "HAProxy does not know the removed member")
                pid = local.pid_of(name)
                assert pid is not None
                # No balancer has to hear of it any more: of two signals the second ends the wait for them.
                os.kill(pid, signal.SIGTERM)
                await moment(chance)
                async with stopped(local, pid, signal.SIGTERM):
                    wanted_at = time.monotonic()
                    added = await local.cli("add", name, "--address", address, "--id", str(number))
                    assert added.code == 0, added
                ready = await local.cli("ready", name, "--wait", "40")
                assert ready.code == 0, ready
                await answers_again(local, name, seen, wanted_at)
                # A member that is not ready says so with 404; before it is wanted back it must be asked nothing at all.
                mine = [o for o in seen.new if o.member == name and o.start > removed_at]
                strays += [o for o in mine if o.status == 404 or o.end < wanted_at]
                # A connection to a member that is not there would be made anew to another one, and no client know.
                since = [look for look in looks if look.at > wanted_at]
                early = list(itertools.takewhile(lambda look: not look.is_checked, since))
                unchecked += len(early)
                taken += max((look.taken for look in early), default=0)
    finally:
        local.cluster_file.write_text(before)

    async def is_as_before() -> bool:
        return configuration.read_text() == in_force

    # The member stood last in the file meanwhile. What comes next must not meet the reload that puts it back.
    await until(is_as_before, "the configuration from before is in force again")
    outcome.operations = seen.new + seen.kept
    outcome.measured |= {
        "times": times,
        "calls_to_the_not_ready": len(strays) + taken,
        "looks_before_checked": unchecked,
    }
    outcome.promise(not strays, f"{len(strays)} new connections reached the member while it was not ready")
    outcome.promise(taken == 0, f"HAProxy sent {taken} connections to the member before its checks had passed")
    outcome.promise(unchecked > 0, "nobody looked at the member before its checks had passed")
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


async def is_forgotten(local: Local, name: str) -> bool:
    return name not in await local.servers()


async def killed(local: Local, chance: random.Random) -> Outcome:
    outcome = Outcome()
    victim = chance.choice(local.names)
    pid = local.pid_of(victim)
    assert pid is not None
    async with load(local) as seen:
        await moment(chance)
        held = (await local.servers())[victim].sessions
        outcome.fault_at = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        # Until the kernel has closed its sockets, connections are still accepted by nobody.
        while is_running(pid):
            await asyncio.sleep(0.001)
        gone_at = time.monotonic()
        outcome.promise_within("down_s", await out_s(local, victim, outcome.fault_at), 0.5)
        await answers_again(local, victim, seen, gone_at + 1.0)
    outcome.operations = seen.new + seen.kept
    in_flight = [o for o in outcome.operations if not o.ok and o.start <= gone_at]
    outcome.measured |= {"open_on_it": held, "failed_in_flight": len(in_flight)}
    outcome.promise(
        len(in_flight) <= held + 2, f"{len(in_flight)} calls in flight failed; {held} connections were open on it"
    )
    outcome.promise_no_failure([o for o in outcome.operations if o.start > gone_at], "calls begun after the kill")
    return outcome


async def hung(local: Local, chance: random.Random) -> Outcome:
    """Stop a member's process: it takes connections and never answers."""
    outcome = Outcome()
    victim = chance.choice(local.names)
    pid = local.pid_of(victim)
    assert pid is not None
    async with load(local, before_s=2.5) as seen:
        await moment(chance)
        outcome.fault_at = time.monotonic()
        os.kill(pid, signal.SIGSTOP)
        try:
            down_s = await out_s(local, victim, outcome.fault_at)
            # Long enough for the last call that waits for it to give up, and for calls after that.
            await asyncio.sleep(6.0)
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(is_up(local, victim), "the member is up again")
    outcome.operations = seen.new + seen.kept
    outcome.promise_within("down_s", down_s, 4.0)
    down_at = outcome.fault_at + down_s
    outcome.promise_p99_unchanged(
        [o for o in seen.new if o.end < outcome.fault_at],
        [o for o in seen.new if down_at + 0.2 < o.due < down_at + 5.5],
    )
    served = sum(o.ok for o in seen.new) / len(seen.new)
    served_all = sum(o.ok for o in outcome.operations) / len(outcome.operations)
    outcome.measured |= {"served_new_%": round(100 * served, 1), "served_%": round(100 * served_all, 1)}
    outcome.promise(served_all >= 0.9, f"only {100 * served_all:.1f} % were served, promised 90 %")
    return outcome


async def partitioned(local: Local, chance: random.Random) -> Outcome:
    """Let every packet of a member vanish, in a cluster on a network of its own."""
    return await alone(lambda: _partitioned(chance))


async def _partitioned(chance: random.Random) -> Outcome:
    outcome = Outcome()
    with clusters.running() as local:
        await until(lambda: all_up(local), "every member is up")
        victim = chance.choice(local.names)
        async with load(local) as seen:
            await moment(chance)
            outcome.fault_at = time.monotonic()
            with dropped(local.target(member=victim).host):
                cut_at = time.monotonic()
                down_s = await out_s(local, victim, outcome.fault_at)
                # Time for calls that are made while it is away; one that was on its way is answered when it is back.
                await asyncio.sleep(2.0)
            healed_at = time.monotonic()
            await until(is_up(local, victim), "the member is up again")
    outcome.operations = seen.new + seen.kept
    outcome.promise_within("down_s", down_s, 2.0)
    later = [o for o in seen.new if o.start > cut_at]
    outcome.promise_no_failure(later, "new connections after the partition")
    outcome.promise_within("p99_during_s", p99_ms([o for o in later if o.due < healed_at]) / 1000, 1.0)
    outcome.measured["failed_kept"] = sum(not o.ok for o in seen.kept)
    return outcome
