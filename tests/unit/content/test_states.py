"""What is said to be the matter with a repository, for how long, and what comes first."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from muster.content.states import State, ago, states
from muster.content.views import Picture
from tests.unit.content.pictures import LAG_S, MEMBERS, NOW, PATH, both, picture, seen, told, version

ONE, TWO, THREE = (version(n) for n in (1, 2, 3))


def state(of: Picture) -> State:
    (found,) = states(of, MEMBERS, ["https"], LAG_S)
    return found


def matters(of: Picture) -> list[tuple[str, tuple[str, ...], bool]]:
    return [(m.kind, m.members, m.is_overdue) for m in state(of).matters]


def test_where_all_have_what_is_shown_there_is_no_matter() -> None:
    found = state(picture({m: told(TWO, TWO) for m in MEMBERS}, TWO, shown=TWO, shown_s=90))
    assert (found.matters, found.is_wrong, found.sentence) == ((), False, "as it should be")
    assert (found.shown, found.digest, found.shown_s, found.asked_s) == (str(TWO), TWO.digest, 90, 5)
    assert [(m.name, m.carried, m.is_staged, m.versions, m.sentence) for m in found.members] == [
        (name, str(TWO), True, 1, "") for name in MEMBERS
    ]


def test_a_pulp_lags_since_what_it_has_was_left_whatever_was_shown_after_that() -> None:
    says = {"p1.test": told(ONE, THREE), "p2.test": told(THREE, THREE), "p3.test": told(THREE, THREE)}
    left = {ONE.digest: NOW - 1500, TWO.digest: NOW - 60}
    of = picture(says, ONE, TWO, THREE, shown=THREE, shown_s=60, left=left)
    assert matters(of) == [("behind", ("p1.test",), True)]
    found = state(of)
    assert found.sentence == f"the Pulp of p1.test still carries {ONE}, for 25 min"
    assert found.is_wrong
    assert found.members[0].sentence == found.sentence


def test_a_suite_is_spoken_of_without_a_revision() -> None:
    path = "/pulp/content/deb/dists/stable"
    one, two, three = (replace(v, revision=-1) for v in (ONE, TWO, THREE))
    says = {"p1.test": told(one, two), "p2.test": told(three, two), "p3.test": told(two, two)}
    of = picture(says, one, two, three, shown=two, shown_s=900, newer_s=40, path=path)
    found = state(of)
    assert found.shown == f"the version ({two.digest[:12]})"
    assert found.matters[0].sentence == f"the Pulp of p1.test still carries the version ({one.digest[:12]}), for 15 min"
    assert "-1" not in json.dumps([m.sentence for m in found.matters])


@pytest.mark.parametrize(("shown_s", "is_overdue"), [(599.0, False), (600.0, True)])
def test_a_pulp_may_lag_for_so_long(shown_s: float, is_overdue: bool) -> None:
    says = {"p1.test": told(ONE, TWO), "p2.test": told(TWO, TWO), "p3.test": told(TWO, TWO)}
    of = picture(says, ONE, TWO, shown=TWO, shown_s=shown_s, left={ONE.digest: NOW - shown_s})
    assert matters(of) == [("behind", ("p1.test",), is_overdue)]


def test_one_pulp_that_has_it_alone_is_one_matter() -> None:
    says = {"p1.test": told(TWO, TWO), "p2.test": told(None, TWO), "p3.test": told(None, TWO)}
    of = picture(says, TWO, shown=TWO)
    assert matters(of) == [("alone", ("p2.test", "p3.test"), True)]
    assert state(of).sentence == (
        "the Pulp of p1.test alone has it, p2.test, p3.test have no such repository, 50 min after it was shown"
    )


def test_a_pulp_that_lost_it_is_behind() -> None:
    says = {"p1.test": told(None, TWO), "p2.test": told(TWO, TWO), "p3.test": told(TWO, TWO)}
    of = picture(says, TWO, shown=TWO)
    assert matters(of) == [("behind", ("p1.test",), True)]
    assert "has no such repository" in state(of).sentence


def test_of_what_members_mirror_no_pulp_is_spoken() -> None:
    says = {"p1.test": told(ONE, TWO), "p2.test": told(TWO, TWO), "p3.test": told(TWO, TWO)}
    path = "/pulp/content/muster/library/yum/tools"
    found = state(picture(says, ONE, TWO, shown=TWO, path=path))
    assert found.sentence.startswith("the mirror of p1.test")
    assert "Pulp" not in found.sentence


def test_a_disk_that_cannot_be_filled_is_said_with_the_reason() -> None:
    says = {
        "p1.test": told(TWO, ONE, trouble="no space left on device"), "p2.test": told(TWO, ONE, TWO),
        "p3.test": told(TWO, ONE, TWO),
    }  # fmt: skip
    of = picture(says, ONE, TWO, shown=ONE, newer_s=30)
    assert matters(of) == [("unstaged", ("p1.test",), False), ("waiting", (), False)]
    assert state(of).matters[0].sentence == "p1.test cannot bring it to its disk: no space left on device"
    assert state(of).matters[1].sentence == f"not showing {TWO} yet: not all metadata of it is at p1.test, for 30 s"
    assert matters(picture(says, ONE, TWO, shown=ONE, newer_s=700))[0] == ("unstaged", ("p1.test",), True)


def test_what_nobody_could_bring_is_wrong_though_nobody_knows_since_when() -> None:
    unknown = version(9)
    says = {"p1.test": told(unknown, ONE, trouble="no XML"), **{m: told(ONE, ONE) for m in MEMBERS[1:]}}
    of = picture(says, ONE, shown=ONE)
    assert matters(of) == [("unstaged", ("p1.test",), True)]
    assert state(of).matters[0].for_s is None
    assert state(of).members[0].carried == "something that is not known yet"


def test_what_is_newer_waits_for_a_second_pulp() -> None:
    says = {"p1.test": told(TWO, ONE, TWO), "p2.test": told(ONE, ONE, TWO), "p3.test": told(ONE, ONE, TWO)}
    of = picture(says, ONE, TWO, shown=ONE, newer_s=120)
    assert matters(of) == [("waiting", (), False)]
    assert state(of).sentence == f"not showing {TWO} yet: one Pulp alone carries it, for 2 min"


def test_a_pulp_without_an_answer_is_one_matter() -> None:
    says = {
        "p1.test": told(ONE, TWO, unreached_s=700, trouble="it answers 500"),
        **{m: told(TWO, TWO) for m in MEMBERS[1:]},
    }
    of = picture(says, ONE, TWO, shown=TWO)
    assert matters(of) == [("unreached", ("p1.test",), True)]
    assert state(of).sentence == "the Pulp of p1.test has given no useful answer for 12 min (it answers 500)"
    assert state(of).members[0].carried == ""


def test_what_a_silent_member_said_last_is_no_matter() -> None:
    says = {"p1.test": told(ONE, ONE, age_s=300), "p2.test": told(TWO, TWO), "p3.test": told(TWO, TWO)}
    silent = {m: seen(m, age_s=300.0 if m == "p1.test" else 0.5) for m in MEMBERS}
    of = picture(says, ONE, TWO, shown=TWO, members=silent)
    assert matters(of) == []
    assert state(of).members[0].sentence == "is silent; this is what it said last"


def test_of_what_nobody_asks_for_now_nothing_is_the_matter() -> None:
    of = picture({"p1.test": told(ONE, ONE, age_s=4000)}, ONE, TWO, shown=TWO, asked_s=4000)
    found = state(of)
    assert (found.is_followed, found.matters, found.sentence) == (False, (), "nobody asks for it now")


def test_where_nothing_is_shown_no_pulp_has_it() -> None:
    found = state(picture({m: told(None) for m in MEMBERS}))
    assert (found.shown, found.digest, found.shown_s, found.sentence) == ("", "", None, "no Pulp has it")


def test_a_version_that_was_forgotten_in_this_moment_is_none() -> None:
    assert state(picture({m: told(TWO) for m in MEMBERS}, shown=TWO)).shown == ""


def test_the_worst_comes_first() -> None:
    well = {m: told(TWO, TWO) for m in MEMBERS}
    behind = {**well, "p1.test": told(ONE, TWO)}
    full = {**well, "p1.test": told(TWO, ONE, trouble="full")}
    waits = {**well, **{m: told(ONE, TWO) for m in MEMBERS[1:]}}
    of = both(
        picture(well, TWO, shown=TWO, path="/1/well"),
        picture(well, TWO, shown=TWO, path="/0/cold", asked_s=400),
        picture({**waits}, ONE, TWO, shown=ONE, newer_s=5, path="/2/waits"),
        picture(behind, ONE, TWO, shown=TWO, path="/3/behind"),
        picture(full, ONE, TWO, shown=ONE, newer_s=900, path="/4/full"),
        picture(behind, ONE, TWO, shown=TWO, shown_s=5, left={ONE.digest: NOW - 5}, path="/5/behind a little"),
    )
    found = [s.path for s in states(of, MEMBERS, ["https"], LAG_S)]
    assert found == ["/4/full", "/3/behind", "/5/behind a little", "/2/waits", "/1/well", "/0/cold"]


def test_all_of_it_goes_into_json() -> None:
    says = {"p1.test": told(ONE, TWO), "p2.test": told(TWO, TWO)}
    said = json.loads(json.dumps(state(picture(says, ONE, TWO, shown=TWO)).as_json()))
    assert (said["path"], said["is_wrong"], said["matters"][0]["kind"]) == (PATH, True, "behind")
    assert said["members"][2] == {
        "name": "p3.test", "carried": "", "is_staged": None, "versions": 0, "told_s": None,
        "sentence": "has said nothing of it",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (-3, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (172_800, "2 d")]
)
def test_a_time_is_said_as_people_say_it(seconds: float, words: str) -> None:
    assert ago(seconds) == words
