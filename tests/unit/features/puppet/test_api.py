"""Foreman's calls for environments and classes, the recorded ones included."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from muster.edge.replies import error_reply, not_found
from muster.edge.routes import Access, RouteTable
from muster.features.puppet.api import MOUNT
from muster.features.puppet.providers.memory import MemoryPuppet
from muster.features.puppet.service import Puppet
from muster.kernel.clock import FakeClock
from muster.kernel.errors import MusterError, Rejected, Unavailable
from tests.unit.edge.calls import request
from tests.wire import golden

TABLE = RouteTable(MOUNT.routes)
FILES: list[dict[str, Any]] = [
    {
        "path": "/a/init.pp",
        "classes": [
            {
                "name": "a",
                "params": [
                    {"name": "x", "type": "String", "default_literal": "abc", "default_source": "'abc'"},
                    {"name": "y", "default_source": "$foo::bar"},
                    {"name": "z"},
                ],
            },
            {"name": "a::b", "params": []},
        ],
    },
    {"path": "/bad.pp", "error": "Syntax error at '=>' at /bad.pp:20:19"},
]


async def call(service: Puppet, method: str, path: str) -> tuple[int, str]:
    found = TABLE.find(method, path)
    if found is None:
        return 404, not_found().body.decode()
    asked = request(method, path)
    route, asked.arguments = found
    try:
        answer = await route.endpoint(service, asked)
    except MusterError as e:
        answer = error_reply(e, accept=None)
    return answer.status, answer.body.decode()


def made(wait_s: float = 5.0) -> tuple[Puppet, MemoryPuppet]:
    memory = MemoryPuppet()
    memory.known = {"production": FILES, "dev_test": []}
    return Puppet(memory, wait_s=wait_s), memory


def test_every_route_is_for_trusted_hosts() -> None:
    assert {r.access for r in MOUNT.routes} == {Access.TRUSTED}


async def test_classes_are_told_as_foreman_reads_them() -> None:
    service, _ = made()
    status, said = await call(service, "GET", "/environments/production/classes")
    assert status == 200
    assert json.loads(said) == [
        {"a": {"name": "a", "module": None, "params": {"x": "abc", "y": "${foo::bar}", "z": None}}},
        {"a::b": {"name": "b", "module": "a", "params": {}}},
    ]


async def test_calls_for_one_environment_share_one_question() -> None:
    service, memory = made()
    memory.slow = asyncio.Event()
    calls = [asyncio.create_task(service.classes("production")) for _ in range(8)]
    await asyncio.sleep(0)
    memory.slow.set()
    answers = await asyncio.gather(*calls)
    assert memory.asked == 1
    assert all(a == answers[0] for a in answers)


async def test_who_waits_too_long_is_told_so_and_the_next_has_the_answer() -> None:
    service, memory = made(wait_s=0.01)
    memory.slow = asyncio.Event()
    text = "Puppet is taking too long to respond, please try again later."
    assert await call(service, "GET", "/environments/production/classes") == (503, text)
    memory.slow.set()
    assert (await call(service, "GET", "/environments/production/classes"))[0] == 200
    assert memory.asked == 1


async def test_an_answer_that_came_late_is_given_to_the_next_call_once() -> None:
    service, memory = made(wait_s=0.01)
    memory.slow = asyncio.Event()
    path = "/environments/production/classes"
    assert (await call(service, "GET", path))[0] == 503
    memory.slow.set()
    # It comes while nobody asks, and the server answers no second question in time.
    await asyncio.gather(*(t for t in asyncio.all_tasks() if t.get_name() == "classes of production"))
    memory.slow = asyncio.Event()
    assert (await call(service, "GET", path))[0] == 200
    assert memory.asked == 1
    assert (await call(service, "GET", path))[0] == 503
    await service.close()


async def test_an_answer_that_came_late_is_there_for_the_next_also_when_somebody_had_waited_for_it() -> None:
    service, memory = made(wait_s=0.01)
    memory.slow = asyncio.Event()
    path = "/environments/production/classes"
    assert (await call(service, "GET", path))[0] == 503
    patient = service._asked("production")
    memory.slow.set()
    await patient
    memory.slow = asyncio.Event()
    assert (await call(service, "GET", path))[0] == 200
    assert memory.asked == 1


async def test_an_answer_that_came_late_does_not_outlive_what_it_says() -> None:
    memory, clock = MemoryPuppet(), FakeClock()
    memory.known = {"production": FILES}
    service = Puppet(memory, wait_s=0.01, clock=clock)
    memory.slow = asyncio.Event()
    path = "/environments/production/classes"
    assert (await call(service, "GET", path))[0] == 503
    memory.slow.set()
    await asyncio.gather(*(t for t in asyncio.all_tasks() if t.get_name() == "classes of production"))
    clock.advance(301)
    assert (await call(service, "GET", path))[0] == 200
    assert memory.asked == 2


async def test_an_answer_in_time_is_not_kept() -> None:
    service, memory = made()
    for asked in (1, 2):
        assert (await call(service, "GET", "/environments/production/classes"))[0] == 200
        assert memory.asked == asked


async def test_a_question_that_still_runs_ends_with_the_feature() -> None:
    service, memory = made(wait_s=0.01)
    memory.slow = asyncio.Event()
    await call(service, "GET", "/environments/production/classes")
    await service.close()
    assert not [t for t in asyncio.all_tasks() if t.get_name().startswith("classes of")]


@pytest.mark.parametrize("name", ["a b", "../x", "a\nb", "é", "x" * 300])
async def test_a_name_that_is_none_is_never_asked_for(name: str) -> None:
    service, memory = made()
    with pytest.raises(MusterError) as raised:
        await service.classes(name)
    assert raised.value.status == 404
    assert memory.asked == 0


async def test_a_server_that_does_not_answer_is_503_and_one_that_refuses_406() -> None:
    service, memory = made()
    memory.failure = Unavailable("it is down")
    assert await call(service, "GET", "/environments") == (503, "Failed to list puppet environments: it is down")
    memory.failure = Rejected("500 puppet exploded")
    assert await call(service, "GET", "/environments/production/classes") == (
        406,
        "Failed to show puppet classes: 500 puppet exploded",
    )


async def test_recorded_calls_are_answered_as_recorded() -> None:
    if golden.missing() is not None:
        pytest.skip(f"no recordings: {golden.missing()}")
    service, memory = made()
    told_files = [{**f, "classes": _interpolated(f["classes"])} if "classes" in f else f for f in FILES]
    for record in golden.lines("puppet"):
        memory.known = {"production": FILES, "dev_test": []}
        memory.failure = Rejected("500 puppet exploded") if "broken" in record["path"] else None
        status, said = await call(service, record["method"], record["path"].removeprefix("/puppet") or "/")
        assert (record["seq"], status) == (record["seq"], record["status"])
        if record["seq"] == 744:
            # The Ruby proxy rewrites what the server said also where it passes it on; Foreman reads either.
            assert json.loads(record["body"]) == told_files
            assert json.loads(said) == FILES
        elif (record["body"] or "").startswith(("[", "{")):
            assert json.loads(said) == json.loads(record["body"])
        else:
            assert (record["seq"], said) == (record["seq"], record["body"] or "")


def _interpolated(classes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return json.loads(json.dumps(classes).replace('"$foo::bar"', '"${foo::bar}"'))  # type: ignore[no-any-return]
