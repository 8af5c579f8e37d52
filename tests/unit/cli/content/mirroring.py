"""A cluster that mirrors, what its ledger holds, and members that do what commands ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from rich.cells import cell_len

from muster.cluster.roster import Roster
from muster.content.mirror.ledger import Ledger, Move
from muster.content.mirror.publications import JobKind, Publication
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.unit.cli.calls import CLUSTER, run
from tests.unit.content.test_views import report

T = TypeVar("T")

NAMES = ("proxy01.test", "proxy02.test")
M1, M2 = "1" * 64, "2" * 64
MIRROR = """\
content:
  mirror:
    environments: [library, test, prod]
    repositories:
      rocky: {kind: yum, url: "http://origin.test/rocky"}
      debian: {kind: deb, url: "http://origin.test/debian", suites: [stable, testing]}
"""


def yum(manifest: str = M1, *, of: str = "") -> Publication:
    return Publication("rocky", {"": manifest}, "http://origin.test/rocky", 1234, 5 << 30, of)


def deb(manifest: str = M1) -> Publication:
    return Publication("debian", {"dists/stable": manifest, "dists/testing": M1}, "http://origin.test/debian", 1, 2000)


def mirroring(directory: Path, text: str = MIRROR) -> Path:
    """Return the file of a cluster whose members mirror."""
    file = directory / "cluster.yaml"
    file.write_text(CLUSTER.format(store=directory / "muster.db") + text)
    return file


def in_store(file: Path, work: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
    """Return what is done with the store of a cluster."""

    async def done() -> T:
        async with opened(Secret(f"sqlite:///{file.parent}/muster.db")) as store:
            return await work(store)

    return asyncio.run(done())


def publish(file: Path, *publications: Publication, environment: str = "library") -> None:
    async def done(store: Store) -> None:
        for one in publications:
            kind = "deb" if one.repository == "debian" else "yum"
            await Ledger(store).publish(one, environment=environment, kind=kind, by="p1")  # type: ignore[arg-type]

    in_store(file, done)


def promoted(file: Path, publication: Publication, to: str) -> None:
    move = Move(publication.repository, "yum", publication.digest)
    in_store(file, lambda store: Ledger(store).promote([move], to=to, by="ann@desk"))


def beat(file: Path, *names: str) -> None:
    """Let members say that they are there."""

    async def done(store: Store) -> None:
        for name in names:
            await Roster(store).beat(report(name, NAMES.index(name) + 1), first=True)

    in_store(file, done)


def done_by(
    file: Path, kinds: tuple[JobKind, ...], does: Callable[[Ledger, int, str], Awaitable[None]]
) -> Callable[[float], Awaitable[None]]:
    """Return what stands for a command's wait: members take each a job meanwhile, and do that to it."""

    async def slept(_seconds: float) -> None:
        async with opened(Secret(f"sqlite:///{file.parent}/muster.db")) as store:
            for name in NAMES:
                if job := await Ledger(store).take(f"{name}/1", name, kinds):
                    await does(Ledger(store), job.id, f"{name}/1")

    return slept


def answered(file: Path, *command: str) -> Any:
    """Return the JSON that a command prints."""
    return json.loads(run(file, "content", *command, "--json").stdout)


def narrow(text: str) -> bool:
    """Whether all of it can be read in 80 columns, and obeyed by no terminal."""
    return all(cell_len(one) <= 80 and one.isprintable() for one in text.splitlines())
