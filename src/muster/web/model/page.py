"""The page as one value: the JSON documents that it is made of, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Nothing:
    """What stands for something that nobody found yet, or of which nobody knows while the store is away.

    Attributes:
        is_of_another_version: it was found, and recorded in a form that is not known here.
    """

    store_is_away: bool
    is_of_another_version: bool = False

    @classmethod
    def of(cls, page: Page) -> Self:
        return cls(bool(page.status["store"]["trouble"]))


_OF_ANOTHER_VERSION = (KeyError, IndexError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Page:
    """Everything that the page says.

    Attributes:
        at: when it was looked at.
        by: who looked: a member's name, or the host of ``muster status --serve``.
        status: ``muster status --json``.
        parity: what the census found last (``muster parity --json`` less every member's facts) with ``age_s`` and ``by``;
            None: nobody took one yet, or the store did not answer.
        doctor: what ``muster doctor --json`` found last, likewise.
        certificates: ``muster certs show --json`` of the host that looked.
        puppet_ca: ``muster ca status --json``; None: members are no Puppet CA, or the store did not answer.
        logs: ``/logs``.
        traffic: the members' rings (``/cluster/rings.json``), merged.
        boots: ``muster netboot boots --json``; None: members see nothing of machines that boot, or the store did not answer.
    """

    at: datetime
    by: str
    status: Mapping[str, Any]
    parity: Mapping[str, Any] | None
    doctor: Mapping[str, Any] | None
    certificates: Sequence[Mapping[str, Any]]
    puppet_ca: Mapping[str, Any] | None
    logs: Mapping[str, Any]
    traffic: Mapping[str, Any]
    boots: Sequence[Mapping[str, Any]] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "at": self.at.isoformat(),
            "by": self.by,
            "status": self.status,
            "parity": self.parity,
            "doctor": self.doctor,
            "certificates": self.certificates,
            "puppet_ca": self.puppet_ca,
            "logs": self.logs,
            "traffic": self.traffic,
            "boots": self.boots,
        }


def recorded(page: Page, record: Mapping[str, Any] | None, read: Callable[[Mapping[str, Any]], T]) -> T | Nothing:
    """Return what a record of the store says, as ``read`` makes it of one.

    A member of another version, which may run beside this one, may have written it in a form that cannot be read here.
    """
    if record is None:
        return Nothing.of(page)
    try:
        return read(record)
    except _OF_ANOTHER_VERSION:
        return Nothing(store_is_away=False, is_of_another_version=True)
