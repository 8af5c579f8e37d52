"""What the members of a hand-made cluster answer that its HAProxy's file cannot say: open ports, and features.

Whether each service that is led somewhere works there is the doctor's own table (:mod:`muster.doctor.adopted`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from muster.balancer.generations import GENERATIONS
from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.kernel.findings import Finding
from muster.observed.features import Running, running_on
from muster.pki.context import Credentials

_TRIED_S = 2.0
# Of the 1024 descriptors that a shell gives others are in use: a port that cannot be tried would look closed.
AT_ONCE = 200


async def unled(balancing: Balancing, cluster: ClusterFile) -> list[Finding]:
    """Return which ports of the generation answer on members though the balancer leads nobody there; never raises.

    Only a connection is made: what it is stays unasked.
    """
    led = {(v.address, v.port) for s in balancing.services for v in s.servers}
    generation = GENERATIONS[cluster.generation]
    services: dict[int, list[str]] = {}
    for row in (*generation.rows, *generation.beside):
        if balancing.service(row.name) is None:
            services.setdefault(row.member_port, []).append(row.name)
    room = asyncio.Semaphore(AT_ONCE)
    tried = await asyncio.gather(*(_of_port(port, of, cluster.members, led, room) for port, of in services.items()))
    return [f for f in tried if f is not None]


async def _of_port(
    port: int, services: Sequence[str], members: Sequence[Member], led: set[tuple[str, int]], room: asyncio.Semaphore
) -> Finding | None:
    """Return what it means that members answer there; one port may be several services' (Puppet's own and its CA's)."""
    asked = [m for m in members if (m.address, port) not in led]
    opened = await asyncio.gather(*(_is_open(m.address, port, room) for m in asked))
    names = [str(m.name) for m, is_open in zip(asked, opened, strict=True) if is_open]
    if not names:
        return None
    return Finding(
        "ADOPT-UNLED",
        f"{services[0]} on {', '.join(names)}",
        f"Members answer on port {port} ({', '.join(services)}), and HAProxy leads nobody there",
        "the service runs on members and was forgotten in front of them, or clients go to members themselves",
        f"when clients shall have it at the address: services: {services[0]}: {{enabled: true}}",
        "warning",
    )


async def _is_open(host: str, port: int, room: asyncio.Semaphore) -> bool:
    async with room:
        try:
            async with asyncio.timeout(_TRIED_S):
                _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
    writer.transport.abort()
    return True


async def features_differ(balancing: Balancing, cluster: ClusterFile, credentials: Credentials) -> list[Finding]:
    """Return which features some members say they run and others do not; of members that say nothing, nothing.

    Raises:
        Misconfigured: one of our own files cannot be used.
    """
    context = credentials.rubys()
    said = await asyncio.gather(*(running_on(m, balancing, context) for m in cluster.members))
    told = {str(m.name): running for m, running in zip(cluster.members, said, strict=True) if running is not None}
    return differing(told)


def differing(told: Mapping[str, Running]) -> list[Finding]:
    """Return a finding for each feature that only some of the members say they run; pure."""
    found = []
    for feature in sorted({f for running in told.values() for f in running.features}):
        sure = {name: feature in running.features for name, running in told.items() if feature not in running.unknown}
        without = [name for name, runs in sure.items() if not runs]
        if without:
            having = ", ".join(name for name, runs in sure.items() if runs)
            found.append(
                Finding(
                    "ADOPT-FEATURES",
                    f"{feature} on {', '.join(without)}",
                    f"Feature {feature} runs on {having} and not on {', '.join(without)}, as they answer now",
                    "any member may be asked, and Foreman knows the cluster as one",
                    "enable it on all members, or on none (foreman-installer)",
                    "warning",
                )
            )
    return found
