from __future__ import annotations

import json
from typing import Any

import pytest

from muster.cluster.service import FREE, TOTAL, USED
from muster.features.pulpcore.contract import PulpStatus
from muster.kernel.errors import Unavailable

GOOD = {
    "versions": [{"component": "core", "version": "3.105.12"}, {"component": "rpm", "version": "3.35.1"}],
    "database_connection": {"connected": True},
    "redis_connection": {"connected": False},
    "online_workers": [{}],
    "online_content_apps": [{}],
    "storage": {"total": 100, "used": 40, "free": 60},
}


def read(**more: Any) -> PulpStatus:
    return PulpStatus.read(json.dumps({**GOOD, **more}))


def test_a_status_says_components_room_and_nothing_amiss() -> None:
    found = read()
    assert found == PulpStatus({"core": "3.105.12", "rpm": "3.35.1"}, {TOTAL: 100, USED: 40, FREE: 60}, ())


@pytest.mark.parametrize(
    "storage",
    [None, {}, 7, {"total": 100}, {"total": None, "used": None, "free": None}, {"total": 0, "used": 0, "free": 0},
     {"total": -1, "used": 1, "free": 1}, {"total": True, "used": 1, "free": 1}, {"total": "1", "used": 1, "free": 1}],
)  # fmt: skip
def test_storage_that_is_not_said_is_no_error(storage: object) -> None:
    assert read(storage=storage).room == {}


def test_what_is_amiss_is_said() -> None:
    assert read(database_connection={"connected": False}).troubles == ("its database is not connected",)
    assert len(read(online_workers=[], online_content_apps=[]).troubles) == 2
    # Where a status does not say, nothing is concluded.
    assert read(online_workers=None, database_connection=None).troubles == ()


@pytest.mark.parametrize("text", ["", "<html>", "[]", "{}", '{"versions": {}}', "[" * 100_000])
def test_what_is_no_status_is_said(text: str) -> None:
    with pytest.raises(Unavailable, match="no status of a Pulp"):
        PulpStatus.read(text)


def test_odd_components_are_passed_over() -> None:
    odd = [1, {}, {"component": 5}, {"component": "a\x1b[2J"}, {"component": "x" * 65}, {"component": "deb"}]
    assert dict(read(versions=odd).versions) == {"deb": ""}
