"""The commands of mirrored repositories know steered ones: sync, publish, publications, jobs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from muster.cli.content import jobs, publications
from muster.content.steered.ledger import Steerings
from muster.content.steered.stages import Stage, Turned
from muster.kernel.errors import NotFound
from muster.store.engine import Store
from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import MIRROR, answered, beat, in_store, mirroring, narrow
from tests.unit.cli.terminal import CLEAN, EVIL, printed

ONE, TWO = "1" * 64, "2" * 64
STEERED = """\
  steered:
    pulps: [pulp@a, pulp@b]
    repositories:
      el9: {kind: yum, url: "http://origin.test/el9", path: el9}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = mirroring(tmp_path, f"content:\n{STEERED}")

    async def done(store: Store) -> None:
        steerings = Steerings(store)
        for job, digest in enumerate((ONE, TWO), 1):
            turned = {name: Turned(f"v{job}", f"p{job}") for name in ("pulp@a", "pulp@b")}
            await steerings.flip(Stage("el9", job), turned, digest=digest, packages=1234, by="me", lease=None)
        await steerings.follows("el9", "pulp@a", 2, "")
        await steerings.follows("el9", "pulp@b", 1, "pulp@b cannot be reached: Connection refused")

    in_store(made, done)
    beat(made, "proxy01.test")
    return made


def told(file: Path, *command: str) -> list[str]:
    """Return what a command prints, whatever time has passed."""
    return re.sub(r"\d+ s\b", "N s", run(file, "content", *command).stdout).splitlines()


def test_what_pulps_were_turned_to_is_said_with_who_does_not_follow(file: Path) -> None:
    lines = told(file, "publications")
    assert lines == [
        "el9",
        "    222222222222  turned to N s ago, 1234 packages",
        "        pulp@a",
        "        pulp@b does not follow: pulp@b cannot be reached: Connection refused",
        "    111111111111  turned to N s ago, 1234 packages",
        "        pulp@b",
    ]
    assert narrow("\n".join(lines))
    said = answered(file, "publications", "el9")
    assert (said["repositories"], [p["digest"] for p in said["steered"]["el9"]]) == ({}, [TWO, ONE])
    assert told(file, "jobs") == [
        "pulp@b does not follow with el9, for N s",
        "    pulp@b cannot be reached: Connection refused",
    ]
    assert [b["pulp"] for b in answered(file, "jobs")["behind"]] == ["pulp@b"]


def test_what_is_asked_for_by_name_may_be_steered(file: Path) -> None:
    assert run(file, "content", "sync", "--all", "--dry-run").stdout == "sync of el9 would be asked for.\n"
    (job,) = answered(file, "publish", "el9", "--of", "1" * 8, "--dry-run")["jobs"]
    assert (job["repository"], job["publication"]) == ("el9", ONE)
    with pytest.raises(NotFound, match="has no publication"):
        run(file, "content", "publish", "el9", "--of", "3" * 8)
    with pytest.raises(NotFound, match=r"names no repository el8 .*; el9 it names"):
        run(file, "content", "sync", "el8")


def test_beside_what_is_mirrored_both_are_known(tmp_path: Path) -> None:
    file = mirroring(tmp_path, MIRROR + STEERED)
    beat(file, "proxy01.test")
    lines = run(file, "content", "sync", "--all", "--dry-run").stdout.splitlines()
    assert lines == [f"sync of {name} would be asked for." for name in ("rocky", "debian", "el9")]
    said = answered(file, "publications")
    assert ([*said["repositories"]], said["steered"]) == (["rocky", "debian"], {"el9": []})
    assert answered(file, "publications", "rocky")["steered"] == {}
    with pytest.raises(NotFound, match="names no repository el9"):
        run(file, "content", "promote", "el9", "--from", "library", "--to", "test")


def test_what_somebody_left_in_the_store_is_shown_and_not_obeyed() -> None:
    of = {"digest": EVIL, "age_s": 1.0, "packages": 1, "of": True, "turned": [EVIL], "behind": {EVIL: EVIL}}
    assert CLEAN in printed(publications.shown({"repositories": {}, "steered": {EVIL: [of]}}))
    behind = {"pulp": EVIL, "repository": EVIL, "since": 0.0, "why": EVIL}
    assert CLEAN in printed(jobs.shown({"now": 1.0, "jobs": [], "behind": [behind]}))
