"""What a Puppet provider promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from muster.policy.marks import query


@dataclass(frozen=True)
class Environment:
    """An environment whose modules can be found."""

    name: str
    paths: tuple[str, ...]


class PuppetProvider(Protocol):
    """A Puppet server's view of its code."""

    @query
    async def environments(self) -> list[Environment]:
        """Return the environments in the server's order, less those without a module path.

        Raises:
            Unavailable: the server did not answer.
            Rejected: it refused, with its status and words.
        """

    @query
    async def files(self, environment: str) -> list[dict[str, Any]]:
        """Return the environment's manifests: ``path`` with ``classes``, or with the ``error`` that makes it unreadable.

        Puppetserver parses every manifest for the first answer, which may take minutes; later ones are cheap.

        Raises:
            NotFound: there is no such environment.
            Unavailable, Rejected: as for ``environments``.
        """

    @query
    async def reached(self) -> None:
        """Return when the server has answered any question."""
