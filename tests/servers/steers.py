"""The process of a cluster that steers Pulps, without the rest of a member, so that it can be killed often.

``python -m tests.servers.steers CLUSTER_FILE HOLDER`` does jobs and brings Pulps along until it is ended; it obeys
``MUSTER_FAILPOINTS`` as a member does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from muster.app.settings import cluster_store, loaded
from muster.content.mirror.jobs import ROLE, Jobs
from muster.content.mirror.ledger import Ledger
from muster.content.steered.ledger import Steerings
from muster.content.steered.reached import Reach
from muster.content.steered.steering import Steering
from muster.kernel import failpoints
from muster.kernel.errors import MusterError
from muster.kernel.process import end_with_parent
from muster.pki import bundles
from muster.store.leases import Leases
from muster.store.writing import Change

_END_S = 60.0
# Who had the role is gone: its time is not waited for.
_EXPIRE = Change("UPDATE leases SET expires_at = 0 WHERE name = :name")


async def _steer(file: Path, holder: str) -> None:
    cluster = loaded(file)
    assert cluster.content is not None
    assert cluster.content.steered is not None
    async with cluster_store(cluster) as store:
        async with store.write("lease") as uow:
            await uow.changed(_EXPIRE, {"name": ROLE})
        ledger, pki = Ledger(store), file.parent / "pki"
        bundle = bundles.paths(pki, "member", str(cluster.members[0].name))
        reach = Reach(cluster, cluster.content.steered, store, bundle, pki)
        steering = Steering(cluster.content.steered, Steerings(store), ledger, reach)
        jobs = Jobs(
            ledger, Leases(store), holder=holder, member=str(cluster.members[0].name), runs=steering.runs_beside({}),
            settings=None, steered=cluster.content.steered,
        )  # fmt: skip
        beats = 0
        while True:
            with contextlib.suppress(MusterError):
                await jobs.beat()
                if beats % 10 == 0:
                    await steering.beat()
            beats += 1
            await asyncio.sleep(0.1)


class Process:
    """It, running. Use :func:`steering`."""

    def __init__(self, file: Path, armed: str) -> None:
        self._log = file.parent / "steers.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.servers.steers", str(file), f"steers {time.monotonic_ns()}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=end_with_parent,
                env={**os.environ, failpoints.VARIABLE: armed},
            )  # fmt: skip

    def died(self) -> None:
        """Return when it has ended at what it was armed with."""
        assert self._process.wait(_END_S) == -signal.SIGKILL, self.log()

    @property
    def ran(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text("utf-8", "replace")[-3000:]

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def steering(file: Path, armed: str = "") -> Iterator[Process]:
    """Hold it running."""
    process = Process(file, armed)
    try:
        yield process
    finally:
        process.end()


if __name__ == "__main__":
    failpoints.arm(os.environ)
    asyncio.run(_steer(Path(sys.argv[1]), sys.argv[2]))
