"""Which keeper is turned to what, and what is ours."""

from __future__ import annotations

import pytest

from muster.content.pulp import Distribution
from muster.content.retention import ring
from muster.content.retention.ring import Keeper, Turn


def distribution(base_path: str, *, guard: str = "", hidden: bool | None = False, **labels: str) -> Distribution:
    return Distribution("/d/", base_path, base_path, "/r/", "", "", guard, labels, hidden, False)


def play(count: int, *served: str) -> list[str]:
    """Return what a ring holds by number after publications were served one by one, a look after each."""
    kept: dict[int, Keeper] = {}
    for publication in served:
        for turn in ring.turned(list(kept.values()), [publication], count):
            assert bool(turn.href) == (turn.number in kept)
            kept[turn.number] = Keeper(f"/{turn.number}/", turn.number, "b", turn.publication, turn.turn, "")
    return [kept[n].publication for n in sorted(kept)]


@pytest.mark.parametrize(
    ("count", "served", "kept"),
    [
        (4, "a", "a"),
        (4, "aaa", "a"),
        (4, "abcd", "abcd"),
        (4, "abcde", "ebcd"),
        (4, "abcdef", "efcd"),
        (1, "abc", "c"),
        # What is served again was left last when the next comes.
        (3, "abcad", "adc"),
        (0, "abc", ""),
    ],
)
def test_the_one_turned_longest_ago_is_turned(count: int, served: str, kept: str) -> None:
    assert "".join(play(count, *served)) == kept


def test_what_was_served_between_two_looks_is_kept_too() -> None:
    has = [Keeper("/0/", 0, "b", "a", 7, "")]
    assert ring.turned(has, ["a", "b", "c"], 3) == [Turn("", 1, "b", 8), Turn("", 2, "c", 9)]
    assert ring.turned(has, ["a", "b", "c", "d"], 2) == [Turn("", 1, "c", 8), Turn("/0/", 0, "d", 9)]


def test_two_members_that_look_at_once_come_to_the_same() -> None:
    has = [Keeper("/1/", 1, "b", "x", 3, ""), Keeper("/0/", 0, "b", "y", 4, "")]
    assert ring.turned(has, ["z"], 2) == ring.turned(list(reversed(has)), ["z"], 2) == [Turn("/1/", 1, "z", 5)]


@pytest.mark.parametrize(
    ("of", "at"),
    [("org/lib/repo", "org/lib/muster-keep/3/repo"), ("repo", "muster-keep/3/repo"), ("a/b", "a/muster-keep/3/b")],
)
def test_a_keeper_lies_beside_its_repository(of: str, at: str) -> None:
    assert ring.base_path(of, 3) == at
    found = ring.recognised(distribution(at, muster_keeper="site", muster_turn="12"), "site")
    assert found is not None
    assert (found.of, found.number, found.turn) == (of, 3, 12)


@pytest.mark.parametrize(
    "one",
    [
        distribution("org/muster-keep/1/repo"),
        distribution("org/muster-keep/1/repo", muster_keeper="another"),
        distribution("org/repo", muster_keeper="site"),
        distribution("org/muster-keep/1/repo/more", muster_keeper="site"),
        distribution("org/muster-keep/x/repo", muster_keeper="site"),
        distribution("org/not-muster-keep/1/repo", muster_keeper="site"),
    ],
)
def test_what_is_not_ours(one: Distribution) -> None:
    assert ring.recognised(one, "site") is None


@pytest.mark.parametrize("turn", ["", "x", "-1", "²", "9" * 40])
def test_a_turn_that_is_none_is_the_first(turn: str) -> None:
    found = ring.recognised(distribution("muster-keep/1/repo", muster_keeper="site", muster_turn=turn), "site")
    assert found is not None
    assert found.turn == 0


def test_what_is_made_asks_the_same_guard_and_is_hidden_where_pulp_knows_that() -> None:
    turn = Turn("", 2, "/p/", 5)
    assert ring.made(turn, distribution("org/repo", guard="/g/"), "site") == {
        "name": "muster-keep/site/2/org/repo", "base_path": "org/muster-keep/2/repo", "publication": "/p/",
        "content_guard": "/g/", "hidden": True,
        "pulp_labels": {"muster_keeper": "site", "muster_turn": "5", "katello_orphan_cleanup": "false"},
    }  # fmt: skip
    assert "hidden" not in ring.made(turn, distribution("org/repo", hidden=None), "site")
    assert ring.altered(turn, distribution("org/repo"), "site")["content_guard"] is None


def test_keepers_are_asked_for_packages_alone() -> None:
    assert ring.paths("/pulp/content/org/repo", "Packages/a/a.rpm", 2) == [
        "/pulp/content/org/muster-keep/0/repo/Packages/a/a.rpm",
        "/pulp/content/org/muster-keep/1/repo/Packages/a/a.rpm",
    ]
    for below in ("repodata/repomd.xml", "repodata/abc-primary.xml.gz", "images/boot.iso", "a.rpm?x=1"):
        assert ring.paths("/pulp/content/org/repo", below, 2) == []
    assert ring.paths("/elsewhere/repo", "a.rpm", 2) == []


@pytest.mark.parametrize(
    ("path", "is_inside"),
    [
        ("/pulp/content/muster-keep/0/repo/a.rpm", True),
        ("/pulp/content/org/muster-keep/7/repo/repodata/repomd.xml", True),
        ("/pulp/content/org/%6duster-keep/7/repo/x", True),
        ("/pulp/content/org/muster-keep%2F7/repo/x", True),
        ("/pulp/content/org/muster-keep/7", True),
        ("/pulp/content/org/muster-keep/", False),
        ("/pulp/content/org/repo/x?at=/muster-keep/7/x", False),
        ("/pulp/container/org/muster-keep/7/x", False),
        ("/pulp/content/org/muster-keeper/7/x", False),
        ("/pulp/content/org/repo/Packages/m/muster-keep-1.rpm", False),
    ],
)
def test_who_asks_for_a_keeper_itself_is_known(path: str, is_inside: bool) -> None:
    assert ring.is_inside(path) is is_inside
