"""What a unit that is carried out in one go may do (``Store.carry_out``): read, and change, in plain SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from muster.store.reading import STORE_NOW, Dialect, Reading


@dataclass(frozen=True)
class Change:
    """An INSERT, UPDATE or DELETE that both databases understand.

    Attributes:
        text: parameters stand in it as ``:name``, and no other colon and no percent sign; ``{now}`` is the store's clock.
    """

    text: str

    def of(self, dialect: Dialect) -> str:
        return self.text.replace("{now}", STORE_NOW[dialect])


class Writing(Reading, Protocol):
    """A unit that writes."""

    @property
    def dialect(self) -> Dialect:
        """Which database it is."""

    async def change(self, change: Change, rows: Sequence[Mapping[str, Any]]) -> None:
        """Carry a change out for each of these values; that it failed may be heard of only at the unit's end."""

    async def changed(self, change: Change, row: Mapping[str, Any]) -> int:
        """Carry a change out; return how many rows it changed."""
