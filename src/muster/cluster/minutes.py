"""What the steward last said, and whether there is one: its minutes, kept in the store for everybody who asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.store.documents import document_in
from muster.store.leases import held_in
from muster.store.reading import Readable, Reading

ROLE = "steward"
"""The lease of the process that decides."""

MINUTES = "steward"
"""The document with what it said."""


@dataclass(frozen=True)
class Minutes:
    """What the steward last said.

    Attributes:
        by: which process was steward.
        held: why wishes are not carried out, by member.
        waiting: what members that take no step wait for, by member.
    """

    sentence: str = ""
    by: str = ""
    held: Mapping[str, str] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)


async def minutes(store: Readable) -> Minutes:
    """Return what the steward last said; empty when there never was one.

    Raises:
        Unavailable: the store did not answer.
    """
    async with store.read() as uow:
        return await minutes_in(uow)


async def minutes_in(uow: Reading) -> Minutes:
    """As :func:`minutes`, within a unit that reads more."""
    found: Any = (await document_in(uow, MINUTES)).content or {}
    held, waiting = dict(found.get("held") or {}), dict(found.get("waiting") or {})
    return Minutes(str(found.get("sentence", "")), str(found.get("by", "")), held, waiting)


async def is_there_in(uow: Reading) -> bool:
    """Whether somebody is steward now; else the minutes are what the last one said."""
    return await held_in(uow, ROLE) is not None
