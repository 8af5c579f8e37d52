"""A local cluster's processes, started, watched and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from muster.cli.local.child import Child
from muster.cli.local.files import found_puppet_ca
from muster.cli.local.plan import ADDRESS, BIND, Plan
from muster.kernel.errors import Unavailable

_READY_TIMEOUT_S = 30.0


@dataclass
class LocalCluster:
    """A running local cluster. Use :func:`running`."""

    plan: Plan
    members: list[Child]
    balancer: Child
    sayings: list[str] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        self.sayings.append(f"{time.strftime('%H:%M:%S')} {sentence}")

    @property
    def children(self) -> list[Child]:
        return [*self.members, self.balancer]

    @property
    def url(self) -> str:
        return f"https://{BIND}:{self.plan.ports['smartproxy']}"


@contextlib.asynccontextmanager
async def running(plan: Plan) -> AsyncIterator[LocalCluster]:
    """Yield the cluster when every member is ready and the balancer passes a call through; stop it on leaving.

    The plan is prepared, and the caller holds :func:`only_one`.

    Raises:
        Unavailable: a process did not come up; the sentence has the end of its log.
    """
    if plan.puppet_ca:
        await found_puppet_ca(plan)
    shared = ["--cluster", str(plan.cluster_file), "--pki", str(plan.pki)]
    log = plan.directory / "log"
    members = [
        Child(n, ["serve", *shared, "--state", str(plan.state_of(n)), "--member", n], log / f"{n.split('.')[0]}.log")
        for n in plan.names
    ]
    balancer = Child("balancer", ["balance", *shared, "--run", str(plan.run)], log / "balancer.log")
    cluster = LocalCluster(plan, members, balancer)
    keepers: list[asyncio.Task[None]] = []
    try:
        await asyncio.gather(*(c.start() for c in cluster.children))
        await _ready(cluster)
        await _taken_in(cluster)
        keepers = [asyncio.create_task(c.keep_running(cluster.say), name=c.name) for c in cluster.children]
        yield cluster
    finally:
        for child in cluster.children:
            child.stopping = True
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*(c.stop() for c in cluster.members))
        await cluster.balancer.stop()


async def _ready(cluster: LocalCluster) -> None:
    from muster.foreman import smart_proxy
    from muster.kernel.errors import MusterError
    from muster.pki.context import client_context

    context = client_context(cluster.plan.pki / "ca.pem")
    port = cluster.plan.ports["smartproxy"]
    targets = [(c, f"https://{cluster.plan.member_address(i)}:{port}/") for i, c in enumerate(cluster.members)]
    targets.append((cluster.balancer, cluster.url))
    deadline = time.monotonic() + _READY_TIMEOUT_S
    for child, url in targets:
        last = "no answer"
        async with smart_proxy.opened(url, context=context, server_name=ADDRESS, timeout_s=2.0) as proxy:
            while True:
                if child.process is not None and child.process.returncode is not None:
                    raise Unavailable(f"{child.name} ended at start: {child.tail()}")
                try:
                    answer = await proxy.ask("GET", "/health/ready?service=smartproxy")
                    last = answer.text
                    if answer.status == 200:
                        break
                except MusterError as e:
                    last = str(e)
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"{child.name} is not ready after {_READY_TIMEOUT_S:g} s ({last}): {child.tail()}"
                    )
                await asyncio.sleep(0.05)


async def _taken_in(cluster: LocalCluster) -> None:
    """Wait until HAProxy holds no member down: it may have started first and met nobody."""
    from muster.balancer.haproxy.sockets import RuntimeSocket
    from muster.kernel.errors import MusterError

    runtime = RuntimeSocket(cluster.plan.run / "runtime.sock")
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            down = [f"{s.backend}/{s.server}" for s in await runtime.servers() if s.status.startswith("DOWN")]
        except MusterError as e:
            down = [str(e)]
        if not down:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"HAProxy still holds down after {_READY_TIMEOUT_S:g} s: {', '.join(down)}")
        await asyncio.sleep(0.1)
