from __future__ import annotations

from typing import Any

from muster.edge.traffic import Traffic
from muster.kernel.clock import FakeClock
from muster.web.model.traffic import joined, merged, traffic
from tests.servers import pages


def told(begin: int, calls: list[int], states: str, service: str = "a") -> dict[str, Any]:
    buckets = [[0, n, 0, 0, 0, 0, 0, 0, 0, 0] if n else [] for n in calls]
    of = {"calls": calls, "errors": [0] * len(calls), "buckets": buckets, "states": states}
    return {"member": "m", "step_s": 60, "from": begin, "services": {service: of}}


def test_of_slots_that_were_told_twice_the_newer_word_counts() -> None:
    first = told(600, [1, 2, 3], "rrd")
    found = joined(first, told(720, [9, 4], "ur"))
    assert found["from"] == 600
    assert found["services"]["a"]["calls"] == [1, 2, 9, 4]
    assert found["services"]["a"]["states"] == "rrur"


def test_a_service_that_is_new_or_gone_has_nothing_there() -> None:
    found = joined(told(600, [1], "r"), told(660, [5], "d", service="b"))
    assert found["services"]["a"]["calls"] == [1, 0]
    assert found["services"]["b"]["states"] == "-d"


def test_an_hour_is_kept_and_a_member_that_began_anew_is_believed() -> None:
    kept: dict[str, Any] = told(0, [0], "r")
    for minute in range(1, 200):
        kept = joined(kept, told(60 * minute, [minute], "r"))
    assert len(kept["services"]["a"]["calls"]) == 60
    assert kept["services"]["a"]["calls"][-1] == 199
    assert kept["from"] == 140 * 60
    assert joined(kept, told(60, [7], "r"))["services"]["a"]["calls"] == [7]


def test_members_are_laid_over_each_other_by_time() -> None:
    now = 7200.0
    found = merged({"x": told(7080, [1, 2, 3], "rrr"), "y": told(7140, [5, 6], "ud")}, {"z": "gone"}, now)
    assert (found["from"], found["slots"], found["unasked"]) == (3660, 60, {"z": "gone"})
    rows = found["services"]["a"]
    assert (rows["x"]["calls"][-3:], rows["y"]["calls"][-3:]) == ([1, 2, 3], [0, 5, 6])
    assert rows["y"]["states"][-3:] == "-ud"


def test_what_a_member_really_tells_can_be_shown() -> None:
    clock = FakeClock()
    rings = Traffic(clock, "proxy01")
    rings.count("smartproxy", 503, 0.3)
    rings.judge({"smartproxy": "ready"})
    rings.turn()
    page = pages.page_of(1)
    data = merged({"proxy01": rings.told()}, {}, clock.now().timestamp())
    (service,) = traffic(type(page)(**{**vars(page), "traffic": data})).services
    assert (service.all.all_calls, service.all.all_errors, service.all.worst_ms) == (1, 1, 500)
    assert service.members[0].states[-1] == "r"


def test_the_busiest_service_is_first_and_all_its_members_together() -> None:
    found = traffic(pages.page_of(3))
    assert [s.all.name for s in found.services][:3] == ["https", "smartproxy", "puppet"]
    assert found.services[0].all.all_calls == sum(m.all_calls for m in found.services[0].members)
    assert "u" in found.services[0].all.states
