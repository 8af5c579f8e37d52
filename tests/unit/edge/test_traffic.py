from __future__ import annotations

import pytest

from muster.edge.traffic import SLOTS, Traffic, added, below_ms, rings
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Rejected
from tests.unit.edge.calls import request


def at(clock: FakeClock) -> float:
    return clock.now().timestamp()


@pytest.fixture
def clock() -> FakeClock:
    made = FakeClock()
    # To the beginning of a minute.
    made.advance(60 - at(made) % 60)
    return made


def test_calls_go_into_the_minute_they_were_answered_in(clock: FakeClock) -> None:
    traffic = Traffic(clock, "proxy01")
    for status, seconds in ((200, 0.004), (503, 0.3), (404, 9.0)):
        traffic.count("smartproxy", status, seconds)
    traffic.turn()
    clock.advance(10)
    traffic.count("smartproxy", 200, 0.02)
    traffic.turn()
    told = traffic.told()
    assert (told["member"], told["step_s"], len(told["services"]["smartproxy"]["calls"])) == ("proxy01", 60, 60)
    assert told["from"] + 59 * 60 == at(clock) - 10
    of = told["services"]["smartproxy"]
    assert (of["calls"][-1], of["errors"][-1], sum(of["calls"])) == (4, 1, 4)
    assert of["buckets"][-1] == [1, 0, 1, 0, 0, 0, 1, 0, 0, 1]
    assert traffic.told(step_s=10)["services"]["smartproxy"]["calls"][-2:] == [3, 1]


def test_of_what_checks_said_in_a_slot_the_worst_is_kept(clock: FakeClock) -> None:
    traffic = Traffic(clock)
    traffic.judge({"a": "ready", "b": "ready"})
    traffic.judge({"a": "unready", "b": "draining"})
    traffic.judge({"a": "ready", "b": "ready", "c": "something newer"})
    traffic.turn()
    clock.advance(60)
    traffic.judge({"a": "ready"})
    traffic.turn()
    services = traffic.told()["services"]
    assert {name: of["states"][-3:] for name, of in services.items()} == {"a": "-ur", "b": "-d-"}


def test_after_an_hour_a_slot_is_forgotten_also_when_nobody_turned_meanwhile(clock: FakeClock) -> None:
    traffic = Traffic(clock)
    traffic.count("a", 200, 0.01)
    traffic.turn()
    clock.advance(SLOTS * 10 - 10)
    traffic.turn()
    assert sum(traffic.told()["services"]["a"]["calls"]) == 1
    clock.advance(5 * SLOTS * 10)
    traffic.turn()
    assert sum(traffic.told()["services"]["a"]["calls"]) == 0


def test_a_clock_that_goes_back_loses_nothing(clock: FakeClock) -> None:
    traffic = Traffic(clock)
    traffic.count("a", 200, 0.01)
    traffic.turn()
    clock.advance(-500)
    traffic.count("a", 200, 0.01)
    traffic.turn()
    assert traffic.told()["services"]["a"]["calls"][-1] == 2


def test_a_clock_that_was_far_ahead_and_is_set_right_does_not_stop_the_rings(clock: FakeClock) -> None:
    clock.advance(30 * 86_400)
    traffic = Traffic(clock)
    traffic.count("a", 200, 0.01)
    traffic.turn()
    clock.advance(-30 * 86_400)
    traffic.count("a", 200, 0.01)
    traffic.judge({"a": "ready"})
    traffic.turn()
    told = traffic.told()
    assert told["from"] + 59 * 60 == at(clock)
    assert (told["services"]["a"]["calls"], told["services"]["a"]["states"][-1]) == ([0] * 59 + [2], "r")
    clock.advance(60)
    traffic.turn()
    assert traffic.told()["services"]["a"]["calls"][-2:] == [2, 0]


def test_who_asks_again_is_told_what_is_new(clock: FakeClock) -> None:
    traffic = Traffic(clock)
    for _ in range(12):
        traffic.count("a", 200, 0.01)
        traffic.turn()
        clock.advance(60)
    traffic.turn()
    told = traffic.told(since=at(clock) - 60)
    assert (told["from"], told["services"]["a"]["calls"]) == (at(clock) - 60, [1, 0])
    # Who is ahead of this clock gets the newest all the same.
    assert len(traffic.told(since=at(clock) + 9999)["services"]["a"]["calls"]) == 1


def test_what_another_process_counted_is_added_and_what_is_none_is_not(clock: FakeClock) -> None:
    worker, member = Traffic(clock), Traffic(clock)
    worker.count("https", 200, 0.2)
    taken = worker.take()
    member.add(taken)
    member.add({"https": [1, 2, 3]})
    member.turn()
    assert worker.take() == {}
    assert member.told()["services"]["https"]["calls"][-1] == 1


def test_so_much_of_the_calls_took_no_longer() -> None:
    assert below_ms([]) is None
    assert below_ms([95, 5, 0, 0, 0, 0, 0, 0, 0, 0]) == 5
    assert below_ms([94, 0, 6, 0, 0, 0, 0, 0, 0, 0]) == 25
    assert below_ms([0] * 9 + [1]) == 5000
    assert added([[1] * 10, [], [2] * 10]) == [3] * 10


@pytest.mark.parametrize(
    "query", ["since=-1", "since=x", "since=9999999999999", "step_s=7", "since=1&since=2&step_s=60"]
)
async def test_a_question_that_is_none_is_refused(query: str) -> None:
    if query.startswith("since=1&"):
        # The last of several counts, as with all parameters.
        assert (await rings(Traffic(), request("GET", f"/rings.json?{query}"))).status == 200
        return
    with pytest.raises(Rejected):
        await rings(Traffic(), request("GET", f"/rings.json?{query}"))
