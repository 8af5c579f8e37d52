from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from muster.edge import health
from muster.edge.health import Health
from tests.unit.edge.calls import request


def member(**changes: object) -> Health:
    one = Health("proxy01.example.com", frozenset({"smartproxy", "puppet"}), starting="")
    for name, value in changes.items():
        setattr(one, name, value)
    return one


async def asked(one: Health, query: str = "") -> tuple[int, dict[str, object]]:
    answer = await health.ready(one, request("GET", "/ready" + query))
    return answer.status, json.loads(answer.body)


NAME = {"member": "proxy01.example.com"}


@pytest.mark.parametrize("query", ["", "?service=smartproxy", "?service", "?service[]=nosuch", "?other=1"])
async def test_a_ready_member_says_200(query: str) -> None:
    assert await asked(member(), query) == (200, {**NAME, "ready": True, "state": "ready"})


@pytest.mark.parametrize("query", ["", "?service=smartproxy", "?service=nosuch"])
async def test_a_draining_member_says_404_for_everything(query: str) -> None:
    one = member(draining="drained by admin: kernel update", reasons=[lambda: ["the certificate expired"]])
    assert await asked(one, query) == (
        404,
        {**NAME, "ready": False, "state": "draining", "reason": "drained by admin: kernel update"},
    )


async def test_an_unknown_service_says_503_because_404_would_mean_draining() -> None:
    status, shown = await asked(member(), "?service=dns")
    assert status == 503
    assert shown["state"] == "unready"
    assert shown["reason"] == "this cluster has no such service; it has puppet, smartproxy"


async def test_all_services_are_told_beside_the_member_when_asked_for() -> None:
    one = member(down={"puppet": "nothing answers on 192.0.2.1 port 8140"})
    status, shown = await asked(one, "?services=all")
    assert (status, shown["state"]) == (200, "ready")
    assert shown["services"] == {
        "smartproxy": {"ready": True, "state": "ready"},
        "puppet": {"ready": False, "state": "unready", "reason": "nothing answers on 192.0.2.1 port 8140"},
    }


async def test_a_member_begins_unready_until_it_is_told_otherwise() -> None:
    one = Health("m", frozenset({"smartproxy"}))
    assert await asked(one, "?service=smartproxy") == (
        503,
        {"member": "m", "ready": False, "state": "unready", "reason": "the member is starting"},
    )


async def test_a_service_of_another_program_is_down_alone() -> None:
    one = member(down={"puppet": "nothing answers on 192.0.2.1 port 8140"})
    assert (await asked(one, "?service=puppet"))[0] == 503
    assert (await asked(one, "?service=puppet"))[1]["reason"] == "nothing answers on 192.0.2.1 port 8140"
    assert (await asked(one, "?service=smartproxy"))[0] == 200
    assert (await asked(one))[0] == 200


async def test_reasons_take_every_service_out_and_are_all_said() -> None:
    sources: list[Callable[[], list[str]]] = [
        lambda: ["the certificate expired"],
        list,
        lambda: ["the disk is full"],
    ]
    one = member(reasons=sources, down={"puppet": "puppet is down"})
    assert (await asked(one))[1]["reason"] == "the certificate expired; the disk is full"
    assert (await asked(one, "?service=puppet"))[1][
        "reason"
    ] == "the certificate expired; the disk is full; puppet is down"
    assert (await asked(one, "?service=smartproxy"))[0] == 503


async def test_reasons_are_asked_anew_each_time() -> None:
    found = ["the certificate expired"]
    one = member(reasons=[lambda: list(found)])
    assert (await asked(one))[0] == 503
    found.clear()
    assert (await asked(one))[0] == 200


@pytest.mark.parametrize("changes", [{}, {"draining": "d"}, {"starting": "s"}], ids=["ready", "draining", "starting"])
async def test_notes_are_shown_and_change_nothing(changes: dict[str, object]) -> None:
    without, _ = await asked(member(**changes))
    status, shown = await asked(
        member(**changes, notes=[lambda: ["the store is down"], lambda: ["feature dns failed"]])
    )
    assert status == without
    assert shown["notes"] == ["the store is down", "feature dns failed"]


async def test_a_member_that_drains_still_lives() -> None:
    answer = await health.live(member(draining="d"), request())
    assert (answer.status, answer.body) == (200, b'{"live":true}')
