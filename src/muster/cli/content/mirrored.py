"""What the commands of mirrored and steered repositories share: their sections, what these name, and the words for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from muster.kernel.names import shown

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.cluster.mirror import Mirror, Mirrored
    from muster.cluster.steered import Steered
    from muster.content.mirror.ledger import Ledger
    from muster.content.mirror.recorded import Recorded
    from muster.content.steered.ledger import Flips
    from muster.store.engine import Store
    from muster.store.reading import Readable

# What stands behind what is left of an earlier cluster file.
UNNAMED = " (not in the cluster file any more)"
# So many digits of a digest tell publications apart on a screen.
DIGITS = 12


@dataclass(frozen=True)
class Place:
    """The cluster whose repositories are mirrored, or steered in Pulps.

    Attributes:
        settings: of what is mirrored, which may be nothing.
    """

    path: Path
    cluster: ClusterFile
    settings: Mirror
    steered: Steered | None = None

    @classmethod
    def of(cls, cluster_path: Path) -> Place:
        """Read the cluster file.

        Raises:
            Misconfigured: it says of no such repositories.
        """
        from muster.app.settings import loaded
        from muster.cluster.mirror import Mirror
        from muster.kernel import log
        from muster.kernel.errors import Misconfigured

        # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
        log.configure(level="ERROR")
        cluster = loaded(cluster_path)
        if cluster.content is None or (cluster.content.mirror is None and cluster.content.steered is None):
            raise Misconfigured(f"{cluster_path} has no section content.mirror: members mirror no repositories")
        return cls(cluster_path, cluster, cluster.content.mirror or Mirror(), cluster.content.steered)

    @property
    def members(self) -> list[str]:
        """Who mirrors."""
        return [str(m.name) for m in self.cluster.members if m.kind == "muster"]

    def repository(self, name: str) -> Mirrored:
        """Return what is said of a repository.

        Raises:
            NotFound: nothing.
        """
        self._refuse_unknown(name, self.settings.repositories, "repository", "content.mirror.repositories")
        return self.settings.repositories[name]

    @property
    def names(self) -> list[str]:
        """All repositories, mirrored and steered."""
        return [*self.settings.repositories, *(self.steered.repositories if self.steered is not None else ())]

    def is_steered(self, name: str) -> bool:
        """Whether Pulps have a repository, and members only lead them; false: members mirror it.

        Raises:
            NotFound: neither.
        """
        if self.steered is None:
            self.repository(name)
            return False
        where = "content.mirror.repositories, content.steered.repositories"
        self._refuse_unknown(name, self.names, "repository", where)
        return name in self.steered.repositories

    def environment(self, name: str) -> str:
        """Return an environment.

        Raises:
            NotFound: there is none of that name.
        """
        self._refuse_unknown(name, self.settings.environments, "environment", "content.mirror.environments")
        return name

    def member(self, name: str) -> str:
        """Return a member that mirrors.

        Raises:
            NotFound: there is none of that name.
        """
        self._refuse_unknown(name, self.members, "member of kind muster", "members")
        return name

    def _refuse_unknown(self, name: str, known: Iterable[str], what: str, where: str) -> None:
        import difflib

        from muster.kernel.errors import NotFound

        names = list(known)
        if name in names:
            return
        near = difflib.get_close_matches(name, names, n=1)
        also = f"; {near[0]} it names" if near else f"; it names {', '.join(names)}" if 0 < len(names) < 8 else ""
        raise NotFound(f"{self.path} names no {what} {shown(name)} ({where}){also}")

    @contextlib.asynccontextmanager
    async def recorded(self) -> AsyncIterator[tuple[Recorded, Readable]]:
        """Yield what the store says, for who only reads."""
        from muster.app.settings import store_to_read
        from muster.content.mirror.recorded import Recorded

        async with store_to_read(self.cluster) as store:
            yield Recorded(store), store

    @contextlib.asynccontextmanager
    async def flips(self) -> AsyncIterator[tuple[Flips, Readable]]:
        """Yield what was decided of steered repositories, for who only reads."""
        from muster.app.settings import store_to_read
        from muster.content.steered.ledger import Flips

        async with store_to_read(self.cluster) as store:
            yield Flips(store), store

    @contextlib.asynccontextmanager
    async def ledger(self, *, dry: bool) -> AsyncIterator[tuple[Ledger, Store]]:
        """Yield the ledger, for who changes something, or with ``dry`` looks what that would be."""
        from muster.app.settings import cluster_store
        from muster.content.mirror.ledger import Ledger

        async with cluster_store(self.cluster, changes=not dry) as store:
            yield Ledger(store), store


async def clock(store: Readable) -> float:
    """Return the store's time, of which every age is."""
    async with store.read() as uow:
        return await uow.now()


def counted(count: int, word: str) -> str:
    """Return a count with its word, in the plural where it is one."""
    return f"{count} {word}{'' if count == 1 else 's'}"
