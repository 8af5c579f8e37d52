"""A member that does nothing but fetch boot files, as a process of its own that can be killed, armed and started anew.

``python -m tests.servers.boot_fetcher STORE DIRECTORY NAME PATH [URL]`` asks for a file, or goes on with what others left,
and ends when the path's last fetch has.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from muster.kernel import failpoints
from muster.kernel.clock import SystemClock
from muster.kernel.errors import MusterError
from muster.kernel.secrets import Secret
from muster.netboot import origin
from muster.netboot.answers import Limits, Told
from muster.netboot.contract import HIDDEN, BootPath
from muster.netboot.disk import Disk
from muster.netboot.fetches import Fetches
from muster.netboot.fetching import Fetching, InTree
from muster.netboot.ledger import Ledger
from muster.netboot.origin import Known, Outcome, Vouching
from muster.netboot.tree import Tree
from muster.store.engine import opened

LIMITS = Limits(silent_s=5, whole_s=30, pause_s=0.1)


async def run(url: str, directory: Path, name: str, path: BootPath, asked: str) -> str:
    async with opened(Secret(url)) as store:
        disk = Disk(directory)
        tree = Tree(Ledger(store), disk, name, confirm_s=0.5)
        it = InTree(tree)

        async def bring(url: str, into: Path, known: Known | None, told: Told) -> Outcome:
            return await origin.fetched(url, into, known=known, limits=LIMITS, vouching=Vouching(), told=told)

        fetching = Fetching(
            Fetches(store, member=name),
            directory=directory / HIDDEN / "coming",
            bring=bring,
            known=it.known,
            commit=it.commit,
        )
        await tree.beat()
        if asked:
            tree.fetching = fetching
            found = await tree.fetch(path, asked, wait_s=60)
            return f"{found.state} {found.why}"
        for _ in range(600):
            await fetching.beat()
            found = (await fetching.fetches())[0]
            if found.ended_at is not None:
                return f"{found.state} {found.why}"
            await SystemClock().sleep(0.1)
        return "never"


def main() -> None:
    failpoints.arm(os.environ)
    url, directory, name, path, asked = [*sys.argv[1:], ""][:5]
    try:
        said = asyncio.run(run(url, Path(directory), name, BootPath.parse(path), asked))
    except MusterError as e:
        said = f"error {e}"
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
