"""What a Pulp is asked, and what its status says. Nothing here changes anything at a Pulp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from muster.cluster.service import room_said
from muster.kernel.errors import Unavailable
from muster.kernel.names import shown
from muster.policy.marks import query

_LONGEST_COMPONENT = 64
_MOST_COMPONENTS = 100


@dataclass(frozen=True)
class Said:
    """Pulp's answer to the question for its status, whatever it is."""

    status: int
    text: str


@dataclass(frozen=True)
class PulpStatus:
    """What a Pulp says of itself.

    Attributes:
        versions: by component, in Pulp's order: ``{"core": "3.105.12", "rpm": "3.35.1"}``.
        room: how full the disk is on which it keeps its content, as the register's facts; empty where it does not say.
        troubles: what of it is amiss; one clause each.
    """

    versions: Mapping[str, str]
    room: Mapping[str, int]
    troubles: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> PulpStatus:
        """Read a status.

        Raises:
            Unavailable: it is none, so whoever answers is no Pulp.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        listed = content.get("versions") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(listed, list):
            # Anybody may hear this, so nothing of the answer is repeated.
            what = "no JSON" if content is None else "JSON without a list of versions"
            raise Unavailable(f"What answers as Pulp's API says no status of a Pulp: {what}")
        versions = {
            name: shown(str(one.get("version", "")), _LONGEST_COMPONENT)
            for one in listed[:_MOST_COMPONENTS]
            if isinstance(one, dict) and isinstance(name := one.get("component"), str)
            if name.isprintable() and 0 < len(name) <= _LONGEST_COMPONENT
        }
        return cls(versions, room_said(content.get("storage")), tuple(_troubles(content)))

    def facts(self) -> dict[str, Any]:
        """Return it as facts for the register."""
        return {
            "versions": dict(self.versions),
            **self.room,
            **({"troubles": list(self.troubles)} if self.troubles else {}),
        }


class PulpProvider(Protocol):
    """A Pulp's API.

    Concurrency: any number of calls at once.
    """

    @query
    async def status(self, url: str) -> Said:
        """Return what Pulp at a URL (``https://HOST``, ``http://HOST``, ``unix:/PATH``) says of itself.

        Raises:
            Unavailable: it did not answer.
            Misconfigured: TLS refused.
        """


def _troubles(content: Mapping[str, Any]) -> list[str]:
    database = content.get("database_connection")
    found = []
    if isinstance(database, dict) and database.get("connected") is False:
        found.append("its database is not connected")
    if content.get("online_content_apps") == []:
        found.append("no content application reports to it")
    if content.get("online_workers") == []:
        found.append("no worker reports to it, so nothing is synchronised")
    return found
