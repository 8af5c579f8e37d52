"""The merged log, newest first, as much of it as a reader asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from muster.kernel.rings import LEVELS, RANKS
from muster.web.model.moment import Moment
from muster.web.model.page import Page

MOST = 100
"""Records that are shown."""

LONGEST_TEXT = 200


@dataclass(frozen=True)
class Filter:
    """What a reader asks for.

    Attributes:
        member: one member's name; empty: all.
        level: this and what is worse.
        text: what the message holds, whatever the case.
    """

    member: str = ""
    level: str = "INFO"
    text: str = ""

    def takes(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is asked for."""
        return (
            RANKS.get(record["level"], len(LEVELS)) >= RANKS[self.level]
            and (not self.member or record.get("member", "").lower() == self.member.lower())
            and (not self.text or self.text.lower() in record["message"].lower())
        )


@dataclass(frozen=True)
class Record:
    """A line of the log."""

    at: Moment
    member: str
    level: str
    message: str
    backtrace: str
    request: str


@dataclass(frozen=True)
class Log:
    """The section.

    Attributes:
        incomplete: what is not among the records, and why; empty: nothing.
        is_cut: whether older records were left out.
        failed: features that failed on the member that answers, and why.
    """

    filter: Filter
    members: tuple[str, ...]
    levels: tuple[str, ...]
    records: tuple[Record, ...]
    incomplete: str
    is_cut: bool
    failed: tuple[tuple[str, str], ...]


def log(page: Page, wanted: Filter) -> Log:
    """Return the newest records that a reader asks for."""
    records = tuple(islice(_taken(page, wanted), MOST + 1))
    about = page.logs["info"]
    return Log(
        filter=wanted,
        members=tuple(str(m["name"]) for m in page.status["members"]),
        levels=LEVELS[:-1],
        records=tuple(_record(r) for r in records[:MOST]),
        incomplete=str(about.get("incomplete", "")),
        is_cut=len(records) > MOST,
        failed=tuple((str(f), str(why)) for f, why in about["failed_modules"].items()),
    )


def _taken(page: Page, wanted: Filter) -> Iterator[Mapping[str, Any]]:
    return (r for r in reversed(page.logs["logs"]) if wanted.takes(r))


def _record(record: Mapping[str, Any]) -> Record:
    at = datetime.fromtimestamp(record["timestamp"], UTC)
    return Record(
        Moment(f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%m-%d %H:%M:%S}"),
        str(record.get("member", "")).split(".")[0],
        str(record["level"]),
        str(record["message"]),
        str(record.get("backtrace") or ""),
        str(record.get("request_id") or ""),
    )
