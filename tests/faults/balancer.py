"""The balancer reloads, dies, loses its host, gets a bad file, too few descriptors, a stranger's edit: 1, 12 to 15, 21."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Literal

import yaml
from bench.load import Operation, by_member, summary

from muster.balancer.haproxy.layout import steered
from muster.balancer.haproxy.render import is_untouched
from muster.cluster.file import ClusterFile
from muster.derived.keepalived import CHECK_SCRIPT
from muster.kernel.settings import parse
from tests.contract import test_balancer_keepalived as moving
from tests.e2e.test_doctor_and_status_find_it import findings
from tests.e2e.test_the_balancer_changes_and_dies import in_force, workers
from tests.faults.fault import Outcome, moment
from tests.faults.network import ip
from tests.servers import local as clusters
from tests.servers.local import Local, environment, load, until
from tests.servers.namespaces import DEVICE, Host, segment

_RELOADS = 6
_PROBES_PER_SECOND = 20


@contextlib.asynccontextmanager
async def edited(local: Local) -> AsyncIterator[Callable[[Callable[[dict[str, Any]], None]], None]]:
    """Edit the cluster file as parsed YAML; it is put back, and in force again, afterwards."""
    before, generation = local.cluster_file.read_text(), in_force(local)

    def edit(change: Callable[[dict[str, Any]], None]) -> None:
        content = yaml.safe_load(before)
        change(content)
        local.cluster_file.write_text(yaml.safe_dump(content, sort_keys=False))

    try:
        yield edit
    finally:
        local.cluster_file.write_text(before)

        async def is_as_before() -> bool:
            return in_force(local) == generation and bool(await workers(local))

        await until(is_as_before, "the configuration before the fault is in force again")


def heard(local: Local, since: int, words: str) -> Callable[[], Awaitable[bool]]:
    """Ask whether the balancer's log has the words after that place."""

    async def asked() -> bool:
        return words in local.log("balancer")[since:]

    return asked


async def reloaded(local: Local, chance: random.Random) -> Outcome:
    """Drain a member as an administrator does, then reload HAProxy by signal and on its master's socket."""
    outcome = Outcome()
    drained = chance.choice(local.names)
    said = await local.cli("drain", drained, "--reason", "fault matrix")
    assert said.code == 0, said

    async def is_remembered() -> bool:
        state = steered((local.run / "servers.state").read_text())
        return any(row[:2] == ("smartproxy", drained) and row[2] != "0" for row in state)

    try:
        await until(is_remembered, "the balancer remembers the drain")
        async with load(local) as seen:
            outcome.fault_at = time.monotonic()
            for number in range(_RELOADS):
                await moment(chance)
                before = await workers(local)
                if chance.random() < 0.5:
                    (master,) = [p.pid for p in await local.master.processes() if p.type == "master"]
                    os.kill(master, signal.SIGUSR2)
                else:
                    await local.master.reload()

                async def is_reloaded(before: set[int] = before) -> bool:
                    now = await workers(local)
                    return bool(now) and not now & before

                await until(is_reloaded, f"reload {number + 1} has a new worker")
                state = (await local.servers())[drained]
                outcome.promise(
                    not state.takes_traffic, f"after reload {number + 1} the drained member is {state.status}"
                )
    finally:
        back = await local.cli("ready", drained)
        assert back.code == 0, back
    outcome.operations = seen.new + seen.kept
    strays = by_member(seen.new)[drained]
    outcome.measured |= {"reloads": _RELOADS, "calls_to_the_drained": strays}
    outcome.promise(strays == 0, f"{strays} calls reached the drained member")
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


async def killed(local: Local, chance: random.Random) -> Outcome:
    """Kill HAProxy's worker and its master, one after the other."""
    outcome = Outcome()
    order: list[Literal["worker", "master"]] = ["worker", "master"]
    chance.shuffle(order)
    async with load(local, before_s=0.5) as seen:
        for victim in order:
            await moment(chance)
            before = {p.type: p.pid for p in await local.master.processes() if not p.is_old}
            at = time.monotonic()
            outcome.fault_at = at
            os.kill(before[victim], signal.SIGKILL)

            async def serves_again(at: float = at, old: int = before["worker"]) -> bool:
                now = await workers(local)
                return bool(now) and old not in now and any(o.ok and o.due > at for o in seen.new)

            await until(serves_again, "HAProxy serves again")
            await asyncio.sleep(1.5)
            around = [o for o in seen.new if at - 0.5 < o.end < at + 1.5]
            outcome.promise_within(f"gap_{victim}_s", summary(around).longest_gap_s, 0.2)
    outcome.operations = seen.new + seen.kept
    outcome.measured["failed_new"] = sum(not o.ok for o in seen.new)
    outcome.measured["failed_kept"] = sum(not o.ok for o in seen.kept)
    return outcome


@contextlib.contextmanager
def scripts() -> Iterator[Path]:
    """A directory only root can change, with the check script; keepalived runs none from anywhere else."""
    made = Path(tempfile.mkdtemp(prefix="muster-fault-", dir="/run"))
    try:
        script = made / "answers"
        script.write_text(CHECK_SCRIPT)
        script.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(made)


@contextlib.asynccontextmanager
async def probing(client: Host) -> AsyncIterator[list[Operation]]:
    """Call the virtual address from the client again and again, never waiting for the call before."""
    seen: list[Operation] = []
    stop = asyncio.Event()

    async def probe(due: float) -> None:
        start = time.monotonic()
        answer = await moving.called(client)
        seen.append(Operation(due, start, time.monotonic(), None if answer else "no answer"))

    async def all_of_them() -> None:
        begin = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(300 * _PROBES_PER_SECOND):
                due = begin + number / _PROBES_PER_SECOND
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if stop.is_set():
                    return
                group.create_task(probe(due))

    task = asyncio.create_task(all_of_them())
    try:
        yield seen
    finally:
        stop.set()
        await task


async def host_died(_: Local, chance: random.Random) -> Outcome:
    """Kill HAProxy on the host that owns the address, then cut the next owner's link."""
    outcome = Outcome()
    with scripts() as directory, segment("lb1", "lb2", "client", "member") as (lb1, lb2, client, member):
        text = moving.CLUSTER.format(
            member=member.address, first=lb1.address, second=lb2.address, virtual=moving.VIRTUAL, device=DEVICE
        )
        of = parse(text.replace("advert_s: 0.2", "advert_s: 1")).parsed(ClusterFile)
        async with AsyncExitStack() as stack:
            server = await asyncio.start_server(moving.greeted, sock=member.listening(moving.PORT))
            await stack.enter_async_context(server)
            first = await stack.enter_async_context(moving.balancer(of, "lb1", lb1, directory))
            await moving.eventually(lambda: first.owns)
            second = await stack.enter_async_context(moving.balancer(of, "lb2", lb2, directory))
            await moving.eventually(lambda: second.said("Entering BACKUP STATE") > 0)
            seen = await stack.enter_async_context(probing(client))

            async def served(since: float) -> None:
                async def is_served() -> bool:
                    return any(o.ok and o.due > since for o in seen)

                await until(is_served, "the address is served")

            await served(time.monotonic())
            await moment(chance)
            killed_at = time.monotonic()
            os.kill(first.haproxy.pid, signal.SIGKILL)
            await moving.eventually(lambda: second.owns and not first.owns)
            await served(time.monotonic())
            first.haproxy.wait(10)
            backups = first.said("Entering BACKUP STATE")
            first.haproxy = moving.start_haproxy(lb1, first.directory)
            await moving.eventually(lambda: first.said("Entering BACKUP STATE") > backups)
            await moment(chance)
            cut_at = time.monotonic()
            ip("-n", lb2.namespace, "link", "set", DEVICE, "down")
            await moving.eventually(lambda: first.owns)
            await served(time.monotonic())
            await asyncio.sleep(1.0)
    outcome.operations, outcome.fault_at = sorted(seen, key=lambda o: o.due), cut_at
    # What was under way when the link went down belongs to that.
    of_kill = [o for o in seen if o.end < cut_at]
    outcome.promise_within("moved_after_kill_s", summary(of_kill).recovery_s(killed_at), 1.5)
    outcome.promise_within("moved_after_link_down_s", outcome.recovery_s, 3.5)
    return outcome


async def misconfigured(local: Local, chance: random.Random) -> Outcome:
    """A file that cannot be used, then one that only HAProxy finds out about, when it starts."""
    outcome = Outcome()
    spoilt = chance.choice(["", "members: [\n", "schema: 1\ncluster: nobody\n", "\0\1\2"])
    before, worker, pids = in_force(local), await workers(local), processes(local)
    async with edited(local) as edit, load(local) as seen:
        since = len(local.log("balancer"))
        outcome.fault_at = time.monotonic()
        if chance.random() < 0.5:
            local.cluster_file.write_text(spoilt)
        else:
            edit(lambda content: content.update(signer="nobody.muster.test"))
        await until(heard(local, since, "the old one stays in force"), "the bad file is refused")
        outcome.promise((in_force(local), await workers(local)) == (before, worker), "a bad file changed HAProxy")

        with socket.create_server(("127.0.0.1", 0)) as taken:
            since = len(local.log("balancer"))
            port = taken.getsockname()[1]
            edit(lambda content: content["balancers"][0].update(metrics_port=port))
            await until(heard(local, since, "the old one stays in force"), "the taken port is refused")
            said = local.log("balancer")[since:]
            outcome.promise(str(port) in said, f"the refusal does not name port {port}")
            outcome.promise(in_force(local) == before, "the last known good configuration is not restored")

            async def is_served() -> bool:
                return bool(await workers(local))

            await until(is_served, "the old configuration has a worker")
        edit(lambda content: content["balancers"][0].update(maxconn=1100 + chance.randrange(100)))

        async def is_applied() -> bool:
            return in_force(local) != before

        await until(is_applied, "a good file is applied afterwards")
    outcome.operations = seen.new + seen.kept
    failed = [o for o in outcome.operations if not o.ok]
    if failed:
        outcome.measured["trouble_s"] = round(max(o.end for o in failed) - min(o.due for o in failed), 2)
    outcome.promise(processes(local) == pids, "a process was restarted")
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


def processes(local: Local) -> list[int | None]:
    return [local.balance_pid, *(local.pid_of(name) for name in local.names)]


async def without_descriptors(_: Local, chance: random.Random) -> Outcome:
    """Lower a running balancer's limit and ask for more connections; then start another one under such a limit."""
    outcome = Outcome()
    limit = chance.randrange(1200, 2000)
    # A cluster of its own: only a privileged process could raise the limit again.
    with clusters.running(members=1) as local:
        pid = local.balance_pid
        assert pid is not None
        before, worker = in_force(local), await workers(local)
        content = yaml.safe_load(local.cluster_file.read_text())
        content["balancers"][0].update(maxconn=1050)
        async with load(local) as seen:
            await moment(chance)
            since = len(local.log("balancer"))
            outcome.fault_at = time.monotonic()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
            local.cluster_file.write_text(yaml.safe_dump(content, sort_keys=False))
            await until(heard(local, since, "the old one stays in force"), "the file is refused")
            said = local.log("balancer")[since:]
            outcome.promise(explains(said, limit), f"the refusal does not show its arithmetic: {said[-600:]}")
            outcome.promise((in_force(local), await workers(local)) == (before, worker), "the refused file had effect")
            with tempfile.TemporaryDirectory(prefix="muster-fault-") as run:
                status, said = await started_under(local, Path(run), limit)
            outcome.promise(status not in (0, None), f"muster balance under the limit ended with {status}")
            outcome.promise(explains(said, limit), f"muster balance under the limit does not say why: {said[-600:]}")
    outcome.operations = seen.new + seen.kept
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


def explains(said: str, limit: int) -> bool:
    return all(words in said for words in ("2 x maxconn 1050", f"may open {limit}", "LimitNOFILE"))


async def started_under(local: Local, run: Path, limit: int) -> tuple[int | None, str]:
    """Start another balancer of the same cluster with few descriptors; return how it ended and what it said."""
    process = await asyncio.create_subprocess_exec(
        "prlimit", f"--nofile={limit}:{limit}",
        sys.executable, "-m", "muster", "balance", "--run", str(run),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={k: v for k, v in environment(local).items() if k != "MUSTER_RUN"},
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    return process.returncode, out.decode("utf-8", "replace")


async def drifted(local: Local, chance: random.Random) -> Outcome:
    """Edit HAProxy's file by hand; look whether it is detected, shown, and repaired when somebody asks."""
    outcome = Outcome()
    file = local.run / "haproxy.cfg"
    before = file.read_bytes()
    pid = local.balance_pid
    assert pid is not None
    edits = {
        "a lower maxconn": before.replace(b"  maxconn 1000\n", b"  maxconn 900\n"),
        "fewer retries": before.replace(b"  retries 3\n", b"  retries 1\n"),
        "a line more": before + b"# just to be sure\n",
    }
    what = chance.choice(sorted(edits))
    async with load(local) as seen:
        await moment(chance)
        outcome.fault_at = time.monotonic()
        file.write_bytes(edits[what])
        try:
            _, found, _ = await findings(local)
            about = [f for f in found if f["code"] == "BALANCER-EDITED"]
            outcome.promise(bool(about), f"doctor does not see {what} in haproxy.cfg")
            outcome.promise(all(f["remedy"] for f in about), "doctor names no remedy")
            os.kill(pid, signal.SIGHUP)

            async def is_repaired() -> bool:
                return is_untouched(file.read_text()) and file.read_bytes() == before

            try:
                # Two intervals between reloads; what has not happened by then will not.
                await until(is_repaired, "the file is what was rendered", patience_s=12.0)
            except AssertionError:
                outcome.promise(False, f"HUP to muster balance does not repair haproxy.cfg ({what})")
        finally:
            if file.read_bytes() != before:
                file.write_bytes(before)
    outcome.operations = seen.new + seen.kept
    outcome.measured["edit"] = what
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome
