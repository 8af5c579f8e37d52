from __future__ import annotations

from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.observed.checks import _of_answers, _short
from muster.observed.survey import Answer, Standing

MEMBERS = ("proxy01.test", "proxy02.test", "proxy03.test")


def cluster(**changes: Any) -> ClusterFile:
    content: dict[str, Any] = {
        "schema": 1,
        "cluster": "demo",
        "address": "cluster.test",
        "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [{"id": i, "name": n, "address": f"192.0.2.{i}"} for i, n in enumerate(MEMBERS, 1)],
    }
    return ClusterFile.model_validate(content | changes)


def test_a_member_that_drains_is_named_once_with_its_services() -> None:
    answers = [
        *(Answer(s, "proxy03.test", "draining", "drained by root: kernel") for s in ("anaconda", "smartproxy")),
        Answer("anaconda", "proxy02.test", "draining", "the member is stopping"),
    ]
    assert [(f.code, f.place, f.sentence) for f in _of_answers(answers, cluster())] == [
        ("MEMBER-DRAINING", "proxy03.test", "proxy03.test drains anaconda, smartproxy: drained by root: kernel"),
        ("MEMBER-DRAINING", "proxy02.test", "proxy02.test drains anaconda: the member is stopping"),
    ]


def test_of_the_only_signer_that_drains_it_is_said_what_that_stops() -> None:
    answers = [Answer("puppetca", "proxy01.test", "draining", "drained by root: kernel")]
    (found,) = _of_answers(answers, cluster(signer="Proxy01.test"))
    assert found.sentence == (
        "proxy01.test drains puppetca: drained by root: kernel; no Puppet certificate can be signed until it is back"
    )
    off = cluster(signer="proxy01.test", services={"puppetca": {"enabled": False}})
    assert "signed" not in next(_of_answers(answers, off)).sentence


def short(least: int, *standing: Standing, leaving: frozenset[str] = frozenset()) -> list[tuple[str, str]]:
    balancing = modelled(cluster(signer=MEMBERS[0]))
    answers = [Answer(s.name, v.name, standing[MEMBERS.index(v.name)]) for s in balancing.services for v in s.servers]
    return [(f.place, f.sentence) for f in _short(balancing, answers, leaving, least)]


@pytest.mark.parametrize("how", ["it says so", "a Ruby member does not know"])
def test_drains_that_leave_fewer_than_min_ready_are_said_of_each_service_that_members_share(how: str) -> None:
    said = how == "it says so"
    out: Standing = "draining" if said else "ready"
    found = short(2, "ready", out, out, leaving=frozenset() if said else frozenset(MEMBERS[1:]))
    assert dict(found)["smartproxy"] == (
        "1 member is ready for service smartproxy (proxy01.test); min_ready asks for 2"
    )
    assert {place for place, _ in found} == {"http", "https", "anaconda", "puppet", "smartproxy"}


def test_enough_are_no_finding_and_none_is_another_one() -> None:
    assert short(2, "ready", "ready", "draining") == []
    assert short(1, "ready", "draining", "draining") == []
    assert short(2, "draining", "draining", "draining") == []
