"""Foreman's calls for environments and classes; the recorded ones are played in ``tests/wire``."""

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
from muster.kernel.errors import MusterError, NotAcceptable, Rejected, Unavailable
from tests.unit.edge.calls import request

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
    for calling in (service.classes, service.classes_and_errors):
        with pytest.raises(
            NotAcceptable, match="Failed to show puppet classes: 400 The environment must be purely alpha"
        ):
            await calling(name)
    assert memory.asked == 0
    # Foreman takes a 404 for an environment without classes, and would forget those it has.
    assert (await call(service, "GET", "/environments/bad-name!/classes")) == (
        406,
        "Failed to show puppet classes: 400 The environment must be purely alphanumeric, not 'bad-name!'",
    )


@pytest.mark.parametrize(
    ("parameter", "default"),
    [
        ({"default_literal": False, "default_source": "false"}, "false"),
        ({"default_literal": True, "default_source": "true"}, True),
        ({"default_literal": 0, "default_source": "0"}, 0),
        ({"default_literal": "", "default_source": "''"}, ""),
        ({"default_literal": None, "default_source": "undef"}, "undef"),
        ({"default_literal": False}, None),
        ({"default_source": "$x"}, "${x}"),
        ({"default_literal": "$x"}, "${x}"),
        ({"default_source": "${x}"}, "${x}"),
        ({}, None),
    ],
)
async def test_a_default_is_told_as_the_ruby_proxy_tells_it(parameter: dict[str, Any], default: object) -> None:
    service, memory = made()
    memory.known["production"] = [{"path": "/p.pp", "classes": [{"name": "p", "params": [{"name": "x", **parameter}]}]}]
    (found,) = await service.classes("production")
    assert found["p"]["params"] == {"x": default}


async def test_the_legacy_form_shows_variables_as_foreman_does_and_leaves_what_was_parsed_alone() -> None:
    service, memory = made()
    given = json.dumps(FILES)
    told = await service.classes_and_errors("production")
    assert json.dumps(told) == given.replace('"$foo::bar"', '"${foo::bar}"')
    assert json.dumps(memory.known["production"]) == given


async def test_a_manifest_of_another_form_is_passed_on_and_has_no_classes() -> None:
    service, memory = made()
    odd: list[dict[str, Any]] = [
        {"path": "/a.pp", "classes": {"name": "a"}},
        {"path": "/b.pp", "classes": ["b", {"name": 1}]},
        {"path": "/c.pp", "classes": [{"name": "c", "params": "x"}, {"name": "d", "params": ["x", {}]}]},
    ]
    memory.known["production"] = odd
    assert await service.classes_and_errors("production") == odd
    assert [list(c) for c in await service.classes("production")] == [["c"], ["d"]]


async def test_a_server_that_does_not_answer_is_503_and_one_that_refuses_406() -> None:
    service, memory = made()
    memory.failure = Unavailable("it is down")
    assert await call(service, "GET", "/environments") == (503, "Failed to list puppet environments: it is down")
    memory.failure = Rejected("500 puppet exploded")
    assert await call(service, "GET", "/environments/production/classes") == (
        406,
        "Failed to show puppet classes: 500 puppet exploded",
    )
