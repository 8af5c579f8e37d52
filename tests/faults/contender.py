"""A process that wants a lease, renews it, and writes in its name when it is told to: ``contender URL LEASE HOLDER TTL``.

It prints one JSON object a line: what it got, that it renewed, that it lost. A line on its input makes it write.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from sqlalchemy import insert

from muster.kernel.errors import Conflict, MusterError
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.leases import Lease, Leases
from muster.store.tables import log_records


def say(event: str, **more: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **more}) + "\n")
    sys.stdout.flush()


async def contend(url: str, name: str, holder: str, ttl_s: float) -> None:
    async with opened(Secret(url)) as store:
        leases = Leases(store)
        while (lease := await leases.acquire(name, holder, ttl_s)) is None:
            await asyncio.sleep(ttl_s / 20)
        say("acquired", epoch=lease.epoch, expires_at=lease.expires_at)
        async with asyncio.TaskGroup() as group:
            renewing = group.create_task(renew(leases, lease, ttl_s))
            while await asyncio.to_thread(sys.stdin.readline):
                await write(store, leases, lease)
            renewing.cancel()


async def renew(leases: Leases, lease: Lease, ttl_s: float) -> None:
    try:
        while True:
            await asyncio.sleep(ttl_s / 3)
            lease = await leases.renew(lease, ttl_s)
            say("renewed")
    except Conflict as e:
        say("lost", why=str(e))


async def write(store: Store, leases: Leases, lease: Lease) -> None:
    """Write with the lease it once got, as a process does that was paused between its look and its write."""
    record = {"member": lease.holder, "timestamp": 0.0, "level": "INFO", "message": f"epoch {lease.epoch}"}
    try:
        async with store.write() as uow:
            await leases.fence(uow, lease)
            await uow.connection.execute(insert(log_records), [record])
    except MusterError as e:
        say("refused", kind=type(e).__name__, why=str(e))
    else:
        say("wrote")


if __name__ == "__main__":
    asyncio.run(contend(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))
