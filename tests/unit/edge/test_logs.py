from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from muster.edge import logs
from muster.edge.feature import FeatureSettings
from muster.edge.logs import Timeline
from muster.edge.routes import Access
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.rings import LogRecord, LogRings
from tests.unit.edge.calls import request


@dataclass
class Others:
    """The other members' records, or why they are missing."""

    found: Sequence[LogRecord] = ()
    failure: Unavailable | None = None
    missing: str = ""
    asked: list[float] = field(default_factory=list)

    async def records(self, since: float) -> tuple[Sequence[LogRecord], str]:
        self.asked.append(since)
        if self.failure is not None:
            raise self.failure
        return [r for r in self.found if r.timestamp >= since], self.missing


def filled_rings() -> LogRings:
    rings = LogRings(size=2, tail_size=7, member="proxy01", failed_modules={"dhcp": "no key"})
    rings.add(LogRecord(1.0, "ERROR", "old error", "old error: frame", "deadbeef"))
    rings.add(LogRecord(3.0, "INFO", "three"))
    rings.add(LogRecord(5.0, "INFO", "five"))
    return rings


async def asked(others: Others, query: str = "") -> dict[str, Any]:
    answer = await logs.logs(Timeline(filled_rings(), others), request("GET", "/" + query))
    assert answer.status == 200
    shown: dict[str, Any] = json.loads(answer.body)
    return shown


async def test_the_records_of_all_members_are_one_ascending_time_line_and_name_their_member() -> None:
    others = Others([LogRecord(2.0, "WARN", "two", member="proxy02"), LogRecord(4.0, "INFO", "four", member="proxy03")])
    shown = await asked(others)
    assert [(r["timestamp"], r["member"], r["message"]) for r in shown["logs"]] == [
        (1.0, "proxy01", "old error"),
        (2.0, "proxy02", "two"),
        (3.0, "proxy01", "three"),
        (4.0, "proxy03", "four"),
        (5.0, "proxy01", "five"),
    ]
    assert shown["logs"][0] == {
        "timestamp": 1.0,
        "level": "ERROR",
        "message": "old error",
        "backtrace": "old error: frame",
        "request_id": "deadbeef",
        "member": "proxy01",
    }


async def test_what_the_rings_are_is_said_in_the_protocols_words() -> None:
    shown = await asked(Others())
    assert list(shown) == ["info", "logs"]
    assert shown["info"] == {
        "size": 2,
        "tail_size": 7,
        "level": None,
        "level_tail": 3,
        "failed_modules": {"dhcp": "no key"},
    }


async def test_without_the_store_the_members_own_records_remain_and_the_answer_says_what_is_missing() -> None:
    shown = await asked(Others(failure=Unavailable("the store did not answer")))
    assert [r["timestamp"] for r in shown["logs"]] == [1.0, 3.0, 5.0]
    assert shown["info"]["incomplete"] == "records of the other members are missing: the store did not answer"


async def test_records_the_others_did_not_share_are_said_to_be_missing() -> None:
    shown = await asked(Others([LogRecord(4.0, "INFO", "four")], missing="7 records of proxy02 were not shared"))
    assert [r["timestamp"] for r in shown["logs"]] == [1.0, 3.0, 4.0, 5.0]
    assert list(shown["info"])[-1] == "incomplete"
    assert shown["info"]["incomplete"] == "7 records of proxy02 were not shared"


@pytest.mark.parametrize(
    ("query", "since"),
    [
        ("", 0.0),
        ("?from_timestamp", 0.0),
        ("?from_timestamp=", 0.0),
        ("?from_timestamp=0", 0.0),
        ("?from_timestamp=abc", 0.0),
        ("?from_timestamp=.", 0.0),
        ("?from_timestamp=-", 0.0),
        ("?from_timestamp[]=5", 0.0),
        ("?from_timestamp[a]=5", 0.0),
        ("?from_timestamp=12abc", 12.0),
        ("?from_timestamp=+4", 4.0),
        ("?from_timestamp=%2B4", 4.0),
        ("?from_timestamp=-1", -1.0),
        ("?from_timestamp=3", 3.0),
        ("?from_timestamp=4.5", 4.5),
        ("?from_timestamp=4.", 4.0),
        ("?from_timestamp=1795332872.399374", 1795332872.399374),
        ("?from_timestamp=99999999999999999999", 99999999999999999999.0),
        ("?from_timestamp=nan", 0.0),
        ("?from_timestamp=inf", 0.0),
    ],
)
async def test_the_timestamp_is_read_as_ruby_reads_a_number(query: str, since: float) -> None:
    others = Others()
    shown = await asked(others, query)
    assert others.asked == [since]
    assert [r["timestamp"] for r in shown["logs"]] == [t for t in (1.0, 3.0, 5.0) if t >= since]


async def test_a_timestamp_that_is_not_utf_8_is_refused_as_every_such_text() -> None:
    with pytest.raises(Rejected, match="not valid UTF-8"):
        await asked(Others(), "?from_timestamp=%FF")


@pytest.mark.parametrize(("text", "since"), [("1e3", 1000.0), ("1.5e9", 1.5e9), ("1_000", 1000.0), (".5", 0.5)])
async def test_a_timestamp_in_rubys_other_notations_is_read_too(text: str, since: float) -> None:
    others = Others()
    await asked(others, f"?from_timestamp={text}")
    assert others.asked == [since]


def test_the_logs_feature_is_protected_and_has_nothing_to_expose() -> None:
    feature = logs.feature(Timeline(LogRings(), Others()))
    (mount,) = feature.mounts
    assert (feature.name, mount.prefix, mount.access) == ("logs", "/logs", Access.TRUSTED)
    assert feature.exposed(FeatureSettings()) == {}
