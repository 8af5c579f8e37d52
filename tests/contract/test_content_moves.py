"""Where a Pulp is, is data: members follow what an administrator types into the services register, without a restart."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment
from tests.servers import member
from tests.servers.client import Place, ask
from tests.servers.member import Member
from tests.servers.pulp_stand_in import ROOT, Pulp, version
from tests.servers.waiting import until

ONE, TWO = (version(n, {"a": b"package %d" % n * 500_000}) for n in (1, 2))
REPOMD = f"{ROOT}/repodata/repomd.xml"


@dataclass
class World:
    member: Member
    port: int
    first: Pulp
    second: Pulp

    def get(self, path: str) -> bytes:
        return ask(Place(self.member.https.address, self.port), "GET", path, tls=self.member.tls(None)).body

    def services(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "muster", "services", *arguments, "--cluster", self.member.cluster_file],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def notes(self, of: str = "") -> str:
        found = ask(self.member.https, "GET", f"/health/ready{of}", tls=self.member.tls())
        return found.body.decode()


@pytest.fixture(params=[1])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    first, second = (Pulp(f"127.0.0.{n}", free_port(f"127.0.0.{n}")) for n in (71, 72))
    first.carries, second.carries = ONE, TWO

    def content(_: str) -> dict[str, Any]:
        return {
            "pulp_content_url": first.url,
            "pulp_api_url": first.url,
            "workers": request.param,
            "one_version": False,
        }

    with contextlib.ExitStack() as stack:
        for pulp in (first, second):
            stack.enter_context(pulp.running())
        (one,), ports = member.together(tmp_path, [content], "https", "http")
        one.start()
        stack.callback(one.stop)
        it = World(one, ports["https"], first, second)
        until(lambda: it.get(REPOMD) == ONE.repomd)
        yield it


@pytest.mark.parametrize("world", [1, 2], ids=["alone", "two workers"], indirect=True)
def test_content_follows_where_pulp_is_and_comes_back(world: World) -> None:
    assert "moves nothing" not in world.services("set", "pulp", "--client-url", f"members={world.second.url}")
    until(lambda: world.get(REPOMD) == TWO.repomd)
    assert world.get(f"{ROOT}/Packages/a.rpm") == TWO.packages["a"]
    # The one of this member alone counts before that of all.
    world.services("add", f"pulp@{world.member.name}", "--client-url", f"members={world.first.url}")
    until(lambda: world.get(REPOMD) == ONE.repomd)
    world.services("remove", f"pulp@{world.member.name}")
    until(lambda: world.get(REPOMD) == TWO.repomd)
    world.services("remove", "pulp")
    until(lambda: world.get(REPOMD) == ONE.repomd)


def test_a_pulp_that_is_members_own_port_is_not_followed(world: World) -> None:
    itself = f"https://{world.member.https.address}:{world.port}"
    world.services("set", "pulp", "--client-url", f"members={itself}")
    until(lambda: "leads back to members" in world.notes())
    assert world.get(REPOMD) == ONE.repomd
    world.services("set", "pulp", "--client-url", f"members={world.second.url}")
    until(lambda: world.get(REPOMD) == TWO.repomd)
    until(lambda: "leads back" not in world.notes())


def test_one_that_is_not_there_is_named_as_it_was_typed(world: World) -> None:
    nowhere = f"http://127.0.0.71:{free_port('127.0.0.71')}"
    world.services("set", "pulp", "--client-url", f"members={nowhere}")
    until(lambda: nowhere in world.notes("?service=https"))
