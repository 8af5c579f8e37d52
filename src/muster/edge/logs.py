"""``/logs``: the newest records of every member as one time line (docs/facts/smart-proxy-protocol.md §6)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from muster.edge.feature import Feature, FeatureSettings, Surroundings
from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.errors import Unavailable
from muster.kernel.rings import LogRecord, LogRings, merged

_LEADING_FLOAT = re.compile(
    r"\s*([+-]?(?:[0-9](?:_?[0-9]){0,19}(?:\.[0-9](?:_?[0-9]){0,19})?|\.[0-9]{1,20})(?:[eE][+-]?[0-9]{1,3})?)"
)
_TAIL_LEVEL = 3  # ERROR, as Ruby's logger counts


class OtherMembers(Protocol):
    """Where the other members' records are found."""

    async def records(self, since: float) -> tuple[Sequence[LogRecord], str]:
        """Return the records of all other members from the timestamp on, ascending, and in words which are missing.

        Raises:
            Unavailable: the store did not answer.
        """


@dataclass(frozen=True)
class Timeline:
    """This member's rings and the other members' shared records."""

    rings: LogRings
    others: OtherMembers

    async def since(self, timestamp: float) -> tuple[list[LogRecord], str | None]:
        """Return one ascending time line, each record saying its member, and why it is incomplete, if it is."""
        mine = [r._replace(member=self.rings.member) for r in self.rings.records(timestamp)]
        try:
            theirs, missing = await self.others.records(timestamp)
        except Unavailable as e:
            return sorted(mine, key=lambda r: r.timestamp), f"records of the other members are missing: {e}"
        return list(merged(mine, theirs)), missing or None

    async def told(self, timestamp: float) -> dict[str, Any]:
        """Return what ``/logs`` answers."""
        records, incomplete = await self.since(timestamp)
        shown: dict[str, Any] = {
            "size": self.rings.size,
            "tail_size": self.rings.tail_size,
            "level": None,
            "level_tail": _TAIL_LEVEL,
            "failed_modules": self.rings.failed_modules,
        }
        if incomplete:
            shown["incomplete"] = incomplete
        return {"info": shown, "logs": [r.as_json() for r in records]}


async def logs(timeline: Timeline, request: Request) -> Reply:
    return json_reply(await timeline.told(_timestamp(request.query().get("from_timestamp"))))


def _timestamp(value: object) -> float:
    """Read as Ruby's ``to_f`` does: a leading number counts, anything else is 0."""
    found = _LEADING_FLOAT.match(value) if isinstance(value, str) else None
    return float(found.group(1)) if found else 0.0


def feature(timeline: Timeline) -> Feature:
    """Return the ``logs`` feature around this member's time line."""

    @asynccontextmanager
    async def opened(_: FeatureSettings, __: Surroundings) -> AsyncIterator[Timeline]:
        yield timeline

    return Feature(
        name="logs",
        label="Logs",
        settings=FeatureSettings,
        mounts=(Mount("/logs", (Route("GET", "/", Access.TRUSTED, logs),)),),
        exposed=lambda _: {},
        opened=opened,
    )
