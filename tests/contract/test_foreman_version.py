"""Two members of one store say Foreman's version: it changes, Foreman is away, members start again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.app.duties import foreman as duties
from muster.pki.authority import ca_paths
from tests.servers import foreman as servers
from tests.servers import member
from tests.servers.foreman import TOKEN, Foreman
from tests.servers.member import Member
from tests.servers.waiting import stopped, until


@dataclass
class World:
    foreman: Foreman
    members: list[Member]

    @property
    def versions(self) -> list[str]:
        return [version(m)["version"] for m in self.members]

    def notes(self, one: Member) -> str:
        return one.ask("GET", "/health/ready").text


def version(one: Member) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(one.ask("GET", "/version", name=None).body)
    assert found["modules"] == dict.fromkeys(found["modules"], found["version"])
    return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    # The cadence is what it is in production, but for its unit.
    monkeypatch.setattr(duties, "_ASKED_EVERY_S", 1.0)
    monkeypatch.setattr(duties, "_FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(duties.ForemanFollowed, "every_s", 0.2)
    with contextlib.ExitStack() as stack:
        foreman = stack.enter_context(servers.running(tmp_path / "foreman"))
        section = {**foreman.settings(), "ca_file": str(ca_paths(foreman.ca.directory)[0]), "version": None}
        members, _ = member.together(tmp_path, [lambda _: None] * 2, foreman=section)
        for one in members:
            stack.callback(stopped, one)
            one.start()
        it = World(foreman, members)
        until(lambda: it.versions == ["3.19.0"] * 2)
        yield it


def test_members_follow_foreman_while_they_serve(world: World) -> None:
    world.foreman.version = "5.0.0"
    until(lambda: world.versions == ["5.0.0"] * 2)
    # It really is the older one again: somebody restored it.
    world.foreman.version = "3.19.2"
    until(lambda: world.versions == ["3.19.2"] * 2)
    assert world.foreman.server_names == {servers.NAME}
    assert set(world.foreman.asked) == {"/api/v2/status"}


def test_a_member_that_starts_while_foreman_is_away_says_what_was_heard_at_once(world: World) -> None:
    one, two = world.members
    world.foreman.stop()
    until(lambda: "Foreman's version was not heard, and this member says 3.19.0" in world.notes(one))
    two.stop()
    two.start()
    assert version(two)["version"] == "3.19.0"
    until(lambda: "Foreman's version was not heard" in world.notes(two))
    world.foreman.version = "5.0.0"
    world.foreman.start()
    until(lambda: world.versions == ["5.0.0"] * 2)
    until(lambda: "Foreman's version" not in world.notes(one) + world.notes(two))


def test_one_that_may_not_ask_says_what_the_other_heard(world: World) -> None:
    one, two = world.members
    two.stop()
    absent = world.foreman.directory / "absent"
    file = two.cluster_file
    file.write_text(file.read_text().replace(str(world.foreman.token_file), str(absent)))
    two.start()
    world.foreman.version = "5.0.0"
    until(lambda: world.versions == ["5.0.0"] * 2)
    until(lambda: f"Reading token of Foreman's API {absent} failed: No such file" in world.notes(two))
    assert f"as {one.name} heard" in world.notes(two)
    assert "Foreman's version" not in world.notes(one)


def test_a_token_that_foreman_does_not_take_shows_nowhere(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    one = world.members[0]
    world.foreman.token = "another-one"
    until(lambda: "answered 401" in world.notes(one))
    told = world.notes(one) + one.ask("GET", "/logs").text + "".join(capfd.readouterr())
    assert "Foreman's version was not heard" in told
    assert TOKEN not in told
    assert servers.basic(TOKEN) not in told
    assert world.versions == ["3.19.0"] * 2


def test_a_written_version_asks_nobody(tmp_path: Path) -> None:
    with servers.running(tmp_path / "foreman") as foreman:
        section = {**foreman.settings(), "ca_file": str(ca_paths(foreman.ca.directory)[0]), "version": "3.14"}
        (one,), _ = member.together(tmp_path, [lambda _: None], foreman=section)
        one.start()
        try:
            assert version(one)["version"] == "3.14.0"
            assert foreman.asked == []
        finally:
            one.stop()
